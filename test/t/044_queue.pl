# Order and long queues: what has one ordering key goes one after another by id, whoever enqueued it in whatever order of
# commits; and what is behind a request that cannot go harms nobody but its own key.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(seed => 5);
my $node = Hubex::Node->new('main', max_prepared_transactions => 10);
my $client = Hubex::Client->new($node);
$node->start_hubex($sandbox, retry_base => '100ms', retry_cap => '300ms');
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');
my $ok = { fault => 'status', status => 200, body => {}, probability => 1 };

subtest 'a long queue behind one that fails' => \&long_queue;
subtest 'the order of ids, whatever the order of commits' => \&model;
subtest 'what is merged keeps its place' => \&merging;
subtest 'an old snapshot' => \&old_snapshot;
subtest 'prepared transactions' => \&prepared;
done_testing;

# ---- tools ----

sub sql { return $client->query(@_) }

sub fresh
{
	$sandbox->clear_faults;
	sql('DELETE FROM hubex.outbox');
	$sandbox->clear_journal;
}

# The paths that arrived, as often as they did, in their order; of these a part.
sub arrived
{
	my ($path) = @_;
	return map { $_->{path} =~ $path ? $1 : () } sort { $a->{n} <=> $b->{n} } @{ $sandbox->journal(fields => 'n,path') };
}

sub all_delivered { return $node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, $_[0], $_[1] // 120) }

# ---- the tests ----

# 2,000 behind one that fails, or is for later, until it succeeds, is cancelled, dies, or expires.
sub long_queue
{
	my $requests = 2000;
	for my $end (qw(succeeds cancelled dies expires))
	{
		fresh();
		my $fails = $sandbox->fault(path => "/WORK/Q/$end-first/*", fault => 'status', status => 500, body => {}, probability => 1);
		$sandbox->fault(path => '/WORK/Q/*', %$ok);
		my $when = $end eq 'expires' ? q(, deliver_after => now() + interval '1 hour', expires_at => now() + interval '8 s') : '';
		my $first = sql("SELECT hubex_enqueue('PUT', '/WORK/Q/$end-first/1', '{}', ordering_key => 'long'$when)");
		enqueue_behind($requests);
		sql(q(SELECT count(hubex_enqueue('PUT', '/WORK/Q/free/' || n, '{}', ordering_key => 'free' || n)) FROM generate_series(1, 100) n));
		$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE ordering_key LIKE 'free%' AND state <> 'delivered'), 0,
			"$end: what is not of that key is delivered", 60);
		is(sql(q(SELECT count(*) FROM hubex.outbox WHERE path LIKE '%/behind/%' AND (state <> 'waiting' OR attempts > 0))), 0, '... what is waits');
		$node->wait_for("SELECT count(*) > 1900 FROM hubex.outbox WHERE blocked_by = $first", 't', '... put off behind the first', 60);
		is(scalar(() = arrived(qr{/behind/(\d+)})), 0, '... and was not sent');
		eventually { arrived(qr{/$end-first/(\d+)}) >= 3 } '... which is tried again and again' unless $end eq 'expires';
		if ($end eq 'succeeds')
		{
			$sandbox->clear_faults($fails);
		}
		elsif ($end eq 'cancelled')
		{
			# while it waits; when it is just being sent the answer is no
			eventually { sql("SELECT hubex_cancel($first)") eq 't' } '... it is cancelled';
		}
		elsif ($end eq 'dies')
		{
			$sandbox->clear_faults;
			$sandbox->fault(path => "/WORK/Q/$end-first/*", fault => 'status', status => 400, body => {}, probability => 1);
			$sandbox->fault(path => '/WORK/Q/*', %$ok);
		}
		my $since = time;
		$node->wait_for("SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered' AND id <> $first", 0, '... when it has ended, all go', 180);
		note sprintf '%d in %.1f s', $requests, time - $since;
		is(sql("SELECT state FROM hubex.outbox WHERE id = $first"), { succeeds => 'delivered', cancelled => 'cancelled', dies => 'dead', expires => 'dead' }->{$end}, '... the first as it ended');
		is_deeply([ arrived(qr{/behind/(\d+)}) ], [ 1 .. $requests ], '... each once and in order');
	}

	# Somebody thinks about the one that is next, while the first ends.
	for my $end (qw(COMMIT ROLLBACK))
	{
		fresh();
		my $thinker = Hubex::Client->new($node);
		my $fails = $sandbox->fault(path => '/WORK/Q/first/*', fault => 'status', status => 500, body => {}, probability => 1);
		$sandbox->fault(path => '/WORK/Q/*', %$ok);
		my $first = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/first/1', '{}', ordering_key => 'long')));
		my $next = enqueue_behind(200);
		$node->wait_for("SELECT blocked_by FROM hubex.outbox WHERE id = $next", $first, 'the next one is put off', 60);
		$thinker->query("BEGIN; SELECT hubex_cancel($next)");
		$sandbox->clear_faults($fails);
		is(sql("SELECT hubex_wait($first, '60 s')"), 'delivered', 'the first one ends, while the next one is being cancelled');
		my $other = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/other/1', '{}')));
		is(sql("SELECT hubex_wait($other, '60 s')"), 'delivered', '... others go on');
		is(scalar(() = arrived(qr{/behind/(\d+)})), 0, '... those behind it do not');
		$thinker->query($end);
		my @left = ($end eq 'COMMIT' ? 2 : 1) .. 200;
		$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state = 'delivered'), 2 + @left, "... until $end", 120);
		is_deeply([ arrived(qr{/behind/(\d+)}) ], \@left, '... each once and in order');
	}
}

# Puts so many behind what is there of the key "long". They are old, and are put off for an hour. Returns the first's id.
sub enqueue_behind
{
	my ($requests) = @_;
	sql('BEGIN');
	my $first = sql("SELECT min(hubex_enqueue('PUT', '/WORK/Q/behind/' || n, '{}', ordering_key => 'long')) FROM generate_series(1, $requests) n");
	sql(q(UPDATE hubex.outbox SET created_at = now() - interval '1 hour' WHERE path LIKE '%/behind/%'; COMMIT));
	return $first;
}

# Four sessions put requests of some keys into transactions with savepoints, which commit or roll back in any order; the
# worker delivers meanwhile, and sometimes an answer is lost. What has committed arrives, per key in the order of ids.
sub model
{
	fresh();
	my $seed = $ENV{HUBEX_SEED} // int(rand(1e6));
	srand $seed;

	$sandbox->fault(path => '/WORK/Q/*', fault => 'status', status => 500, body => {}, probability => 0.05);
	$sandbox->fault(path => '/WORK/Q/*', fault => 'drop_before', probability => 0.03);
	$sandbox->fault(path => '/WORK/Q/*', %$ok);
	sql('CREATE SEQUENCE model');    # numbers that tell the requests apart, also those that are rolled back
	my @sessions = map { { client => Hubex::Client->new($node), ids => undef } } 1 .. 4;
	my %expected;    # key => ids that have committed
	my $transactions = 0;
	while ($transactions < 150 || grep { $_->{ids} } @sessions)
	{
		my $session = $sessions[ rand @sessions ];
		my $ids = $session->{ids};
		my $what = rand;
		if (!$ids)
		{
			next if $transactions++ >= 150;
			$session->{client}->query('BEGIN');
			$session->{ids} = [];
			$session->{savepoints} = [];
		}
		elsif ($what < 0.55)
		{
			my $key = 'k' . int(rand 6);
			my $id = $session->{client}->query("SELECT hubex_enqueue('PUT', '/WORK/Q/$key/' || nextval('model'), '{}', ordering_key => '$key')");
			push @$ids, [ $key, $id ];
		}
		elsif ($what < 0.65)
		{
			push @{ $session->{savepoints} }, scalar @$ids;
			$session->{client}->query('SAVEPOINT s' . @{ $session->{savepoints} });
		}
		elsif ($what < 0.75)
		{
			my $savepoints = $session->{savepoints};
			next unless @$savepoints;
			$session->{client}->query('ROLLBACK TO s' . @$savepoints . '; RELEASE s' . @$savepoints);
			$#$ids = pop(@$savepoints) - 1;
		}
		else
		{
			my $commits = $what < 0.93;
			$session->{client}->query($commits ? 'COMMIT' : 'ROLLBACK');
			push @{ $expected{ $_->[0] } }, $_->[1] for $commits ? @$ids : ();
			$session->{ids} = undef;
		}
	}
	all_delivered('all that has committed is delivered');
	my %path = map { split /\|/ } split /\n/, sql('SELECT id, path FROM hubex.outbox');
	my $all = 0;
	for my $key (sort keys %expected)
	{
		my @ids = sort { $a <=> $b } @{ $expected{$key} };
		$all += @ids;
		my (@order, $last);
		for my $path (arrived(qr{^(/WORK/Q/$key/\d+)$}i))
		{
			push @order, $path unless ($last // '') eq $path;    # another attempt of the same
			$last = $path;
		}
		is_deeply(\@order, [ map { $path{$_} } @ids ], "key $key: " . @ids . " in the order of ids, one after another (HUBEX_SEED=$seed)");
	}
	is(sql('SELECT count(*) FROM hubex.outbox'), $all, "and no others: $all");
	is(scalar(grep { !exists $expected{$_} } arrived(qr{/Q/(\w+)/})), 0, 'nothing that was rolled back was sent');
}

# Updates of one record go as one call, but not past a move between them, nor past another session's.
sub merging
{
	fresh();
	my $task = sql(q(SELECT body ->> 'id' FROM hubex_request('POST', '/WORK/Tasks', '{"taskTypeID": 1, "requestMethodID": 4, "erpID": "merge"}')));
	$sandbox->clear_journal;
	my @ids = split /\n/, sql(qq{
		BEGIN;
		SELECT hubex_update_task('{"notes": "1", "contactPerson": "a"}', $task);
		SELECT hubex_update_task('{"notes": "2"}', $task);
		SELECT hubex_move_task(2, $task);
		SELECT hubex_update_task('{"notes": "3"}', $task);
		SELECT hubex_update_task('{"notes": "4", "contactEmail": "a\@b.example"}', $task);
		SELECT hubex_update_task('{"notes": "5"}', $task);
		SELECT hubex_comment_task('done', true, $task);
		SELECT hubex_update_task('{"notes": "6"}', $task);
		COMMIT});
	all_delivered('eight verbs on one task');
	my @calls = map { my $body = $_->{body} =~ /^[\[{]/ ? decode_json($_->{body}) : undef; [ "$_->{method} " . ($_->{path} =~ s/\b$task\b/ID/r), $body ] }
	  grep { $_->{method} ne 'GET' && $_->{path} !~ /AUTHZ/ } @{ $sandbox->journal };
	is(join(', ', map { $_->[0] } @calls), join(', ',
			'PATCH /WORK/Tasks/ID', $calls[1][0], 'PATCH /WORK/Tasks/ID', $calls[3][0], 'PATCH /WORK/Tasks/ID'), 'are five calls, in their order');
	like($calls[1][0], qr/TaskStagingHistory/, '... the second is the move');
	like($calls[3][0], qr/conversation/, '... the fourth the comment');
	my @notes = map { /"notes"\s*[:,]\s*(?:"value"\s*:\s*)?"(\d)"/ ? $1 : /"(\d)"/ ? $1 : '' } map { JSON::PP->new->canonical->encode($calls[$_][1]) } 0, 2, 4;
	is("@notes", '2 5 6', '... of what was merged the last value counts');
	is(sql("SELECT string_agg(coalesce(merged_into::text, '-'), ' ' ORDER BY id) FROM hubex.outbox WHERE id IN (" . join(',', @ids) . ')'),
		"- $ids[0] - - $ids[3] $ids[3] - -", '... which the outbox shows');
	my ($stored) = grep { $_->{id} == $task } @{ $sandbox->tasks };
	is("$stored->{notes} $stored->{contactPerson} $stored->{contactEmail}", '6 a a@b.example', 'the task is as the last one left it');

	# One in doubt between them: what is behind it is not merged, nor sent, before it is decided.
	my $doubter = Hubex::Client->new($node);
	$sandbox->clear_journal;
	sql(q(SELECT hubex_pause('fsm')));
	sql(qq(SELECT hubex_update_task('{"notes": "11"}', $task)));
	$doubter->query(qq(BEGIN; SELECT hubex_update_task('{"notes": "12"}', $task)));
	my $last = sql(qq(SELECT hubex_update_task('{"notes": "13"}', $task)));
	sql(q(SELECT hubex_resume('fsm')));
	my $patches = sub { return map { $_->{body} =~ /"(1\d)"/ ? $1 : $_->{body} } @{ $sandbox->journal(method => 'PATCH') } };
	eventually { $patches->() >= 1 } 'one before one in doubt is sent';
	my $fence = sql(q(SELECT hubex_create_task(1, 'fence')));
	is(sql("SELECT hubex_wait($fence, '60 s')"), 'delivered', 'others go on');
	is(join(' ', $patches->()), '11', 'one behind it waits');
	$doubter->query('COMMIT');
	is(sql("SELECT hubex_wait($last, '60 s')"), 'delivered', 'until it is decided');
	is(join(' ', $patches->()), '11 13', 'and then both go as one');
	($stored) = grep { $_->{id} == $task } @{ $sandbox->tasks };
	is($stored->{notes}, '13', 'the task is as the last one left it');
}

# A report that runs for long does not keep anything from being delivered, nor sees it.
sub old_snapshot
{
	fresh();
	$sandbox->fault(path => '/WORK/Q/*', %$ok);
	my $report = Hubex::Client->new($node);
	$report->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hubex.outbox');
	sql(q(SELECT count(hubex_enqueue('PUT', '/WORK/Q/snap' || n % 10 || '/' || n, '{}', ordering_key => 'snap' || n % 10)) FROM generate_series(1, 300) n));
	all_delivered('300 requests of ten keys are delivered under an old snapshot', 60);
	for my $key (0 .. 9)
	{
		my @order = arrived(qr{/snap$key/(\d+)});
		is_deeply(\@order, [ sort { $a <=> $b } @order ], "key $key in order, each once: " . @order) && is(scalar @order, 30, ' all of them');
	}
	is($report->query('SELECT count(*) FROM hubex.outbox'), 0, 'the report sees none of it');
	$report->query('COMMIT');
	is($report->query(q(SELECT count(*) FROM hubex.outbox WHERE state = 'delivered')), 300, '... until it ends');
}

sub prepared
{
	fresh();
	$sandbox->fault(path => '/WORK/Q/*', %$ok);
	my @sessions = map { Hubex::Client->new($node) } 1 .. 3;
	my $prepare = sub {
		my ($session, $name, $part) = @_;
		my $answer = $session->try("BEGIN; SELECT hubex_enqueue('PUT', '/WORK/Q/$part', '{}', ordering_key => 'prepared'); PREPARE TRANSACTION '$name'");
		is($answer->{error}, undef, "$name is prepared");
	};
	$prepare->($sessions[0], 'one', 'p/1');
	sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/p/2', '{}', ordering_key => 'prepared')));
	$prepare->($sessions[1], 'three', 'p/3');
	my $four = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/p/4', '{}', ordering_key => 'prepared')));
	$prepare->($sessions[2], 'five', 'p/5');
	my $other = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/other/1', '{}', ordering_key => 'another')));
	is(sql("SELECT hubex_wait($other, '60 s')"), 'delivered', 'another key is not concerned');
	is(scalar(() = arrived(qr{/p/(\d)})), 0, 'nothing is sent behind one in doubt');
	sql(q(ROLLBACK PREPARED 'one'));
	eventually { arrived(qr{/p/(\d)}) >= 1 } 'the first one is rolled back: the next goes', 60;
	$node->wait_for(q(SELECT state FROM hubex.outbox WHERE path = '/WORK/Q/p/2'), 'delivered', '... and is delivered', 60);
	sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/other/2', '{}', ordering_key => 'another')));
	all_but($four);
	is(join(' ', arrived(qr{/p/(\d)})), '2', '... up to the next in doubt');

	# What is in doubt stays so over a crash.
	$node->stop('immediate');
	$node->start;
	$client = Hubex::Client->new($node);
	my $after = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Q/other/3', '{}', ordering_key => 'another')));
	is(sql("SELECT hubex_wait($after, '60 s')"), 'delivered', 'the server comes back: another key goes on');
	is(join(' ', arrived(qr{/p/(\d)})), '2', '... what is in doubt does not');
	sql(q(COMMIT PREPARED 'three'));
	eventually { sql("SELECT state FROM hubex.outbox WHERE id = $four") eq 'delivered' } 'it is committed: both go', 60;
	is(join(' ', arrived(qr{/p/(\d)})), '2 3 4', '... in order');
	sql(q(COMMIT PREPARED 'five'));
	all_delivered('the last one');
	is(join(' ', arrived(qr{/p/(\d)})), '2 3 4 5', 'each once and in order');
}

sub all_but
{
	my ($id) = @_;
	return $node->wait_for("SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered' AND id <> $id", 0, 'others are delivered', 60);
}
