# What people set and do about delivery: the retry policy as options of a server, expiry, dead letters and their retry,
# cancelling, and the circuit. Each concerns the requests it is meant for and no others.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $other = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main', max_prepared_transactions => 5);
my $client = Hubex::Client->new($node);
my $made = 0;
$node->start_hubex($sandbox);
$node->start_hubex($other, server => 'other');
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');

subtest 'the retry policy is data' => \&policy;
subtest 'the peer asks for a pause' => \&asked_to_wait;
subtest 'what expires' => \&expiry;
subtest 'dead letters' => \&dead_letters;
subtest 'cancelling' => \&cancelling;
subtest 'whose requests' => \&rights;
subtest 'transactions that stay open' => \&open_transactions;
subtest 'a server that is not there' => \&circuit_refused;
subtest 'a server that does not answer' => \&circuit_hangs;
subtest 'a request that always fails' => \&poison;
done_testing;

# ---- tools ----

sub sql { return $client->query(@_) }

# A retry policy of server fsm: these options and no others.
sub policy_is
{
	my (%option) = @_;
	for my $name (qw(attempts base factor cap jitter total))
	{
		my $is_there = sql("SELECT count(*) FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 'fsm' AND option_name = 'retry_$name'");
		next unless $is_there || defined $option{$name};
		my $what = !defined $option{$name} ? "DROP retry_$name" : ($is_there ? 'SET' : 'ADD') . " retry_$name '$option{$name}'";
		sql("ALTER SERVER fsm OPTIONS ($what)");
	}
}

# A call that nothing else makes, so that the journal tells it apart; returns its id and its path.
sub enqueue
{
	my ($arguments, $who) = @_;
	my $path = '/WORK/Control' . ++$made;
	my $id = ($who // $client)->query("SELECT hubex_enqueue('PUT', '$path', '{}', server => 'fsm'" . (defined $arguments ? ", $arguments" : '') . ')');
	return ($id, $path);
}

sub arrivals { return map { $_->{time} } @{ $sandbox->journal(path => $_[0], fields => 'time') } }
sub row { my ($id, $columns) = @_; return sql("SELECT $columns FROM hubex.outbox WHERE id = $id") }
sub state_is { my ($id, $state, $what) = @_; return $node->wait_for("SELECT state FROM hubex.outbox WHERE id = $id", $state, $what, 60) }
sub pauses { my @t = @_; return map { $t[$_] - $t[ $_ - 1 ] } 1 .. $#t }

# From now on these paths answer with a status; without one, with 200 and an empty object.
sub answers
{
	my ($path, $status, %more) = @_;
	return $sandbox->fault(path => $path, fault => 'status', status => $status // 200, body => {}, probability => 1, %more);
}

sub fence { my $id = sql(q(SELECT hubex_create_task(1, 'fence', server => 'fsm'))); return sql("SELECT hubex_wait($id, '60 s')") }

# ---- the tests ----

sub policy
{
	answers('/WORK/Control*', 500);
	policy_is(attempts => 3, base => '50ms', jitter => 0);
	my ($id, $path) = enqueue();
	state_is($id, 'dead', 'retry_attempts: given up');
	is(scalar(() = arrivals($path)), 3, '... after so many attempts');
	like(row($id, 'last_error'), qr/^HTTP 500.*given up after 3 attempts/, '... and says so');

	policy_is(attempts => 5, base => '100ms', factor => 3, cap => '400ms', jitter => 0);
	($id, $path) = enqueue();
	state_is($id, 'dead', 'a policy that was changed holds for the next request');
	my @pauses = pauses(arrivals($path));
	my @least = (0.1, 0.3, 0.4, 0.4);
	is_deeply([ grep { ($pauses[$_] // 0) < $least[$_] - 0.005 } 0 .. 3 ], [], "the pauses grow by retry_factor to retry_cap: @pauses");

	policy_is(base => '100ms', factor => 100, cap => '1h', jitter => 0);
	($id, $path) = enqueue();
	$node->wait_for("SELECT attempts FROM hubex.outbox WHERE id = $id AND state = 'waiting' AND next_attempt_at > now() + interval '100 ms'", 2, 'another policy', 30);
	ok(row($id, "next_attempt_at - now() BETWEEN '0 s' AND '10 s'") eq 't', 'retry_factor 100: ten seconds after the second attempt');

	policy_is(attempts => 1000, base => '200ms', cap => '200ms', total => '1s');
	($id, $path) = enqueue();
	state_is($id, 'dead', 'retry_total: given up');
	like(row($id, 'last_error'), qr/given up after \d+ seconds/, '... and says so');
	my @times = arrivals($path);
	ok(@times >= 2 && @times <= 11 && $times[-1] - $times[0] <= 1.1, '... when its time is over, not before: ' . @times . ' attempts');

	# deliver_after is when its time begins
	($id, $path) = enqueue(q(deliver_after => now() + interval '2 s'));
	state_is($id, 'dead', 'one that was to be delivered later');
	cmp_ok(scalar(() = arrivals($path)), '>=', 2, '... had its time from then on');

	# One that waits long by the old policy is tried by hubex_retry, by the new one.
	policy_is(base => '1h', cap => '1h', jitter => 0);
	($id, $path) = enqueue();
	$node->wait_for("SELECT next_attempt_at > now() + interval '50 min' FROM hubex.outbox WHERE id = $id AND attempts = 1", 't', 'waits for an hour');
	policy_is();
	$sandbox->clear_faults;
	answers('/WORK/Control*');
	is(sql("SELECT hubex_retry($id)"), 't', 'hubex_retry of one that waits');
	state_is($id, 'delivered', '... has it tried at once');
	is(scalar(() = arrivals($path)), 2, '... once');
}

sub asked_to_wait
{
	$sandbox->clear_faults;
	my @cases = (
		[ 'in seconds', 429, sub { (2, $_[0] + 1.9) } ],
		[ 'as a date', 503, sub { my $at = int($_[0]) + 3; (strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime $at), $at - 0.1) } ]);
	for my $case (@cases)
	{
		my ($what, $status, $when) = @$case;
		is(fence(), 'delivered', 'signed in');
		my $asked_at = time;
		my ($header, $until) = $when->($asked_at);
		my $fault = $sandbox->fault(path => '/WORK/Control*', fault => 'status', status => $status, headers => { 'Retry-After' => "$header" }, times => 1);
		my ($id, $path) = enqueue();
		eventually { arrivals($path) >= 1 } "$status, Retry-After $what";
		$node->wait_for("SELECT attempts > 0 AND state = 'waiting' FROM hubex.outbox WHERE id = $id", 't', ' is recorded');
		my ($first) = @{ $sandbox->journal(path => $path, fields => 'n,finished') };
		answers('/WORK/Control*');
		my @more = map { (enqueue())[0] } 1 .. 3;
		my $elsewhere = sql(q(SELECT hubex_create_task(1, 'elsewhere', server => 'other')));
		is(sql("SELECT hubex_wait($elsewhere, '60 s')"), 'delivered', ' another server is not concerned');
		is(sql("SELECT hubex_wait($_, '60 s')"), 'delivered', ' what waits is delivered') for $id, @more;
		my @later = map { $_->{time} } grep { $_->{n} > $first->{n} } @{ $sandbox->journal(fields => 'n,time') };
		is_deeply([ map { sprintf '%.2f', $_ - $until } grep { $_ < $until } @later ], [], ' nothing is sent before it may');
		is(row($id, 'attempts'), 2, ' with a second attempt');
		is(row($more[0], 'attempts'), 1, ' the others with their first');
		$sandbox->clear_faults;
	}
}

sub expiry
{
	$sandbox->clear_faults;
	policy_is(base => '1h', jitter => 0);
	answers('/WORK/Control*', 500);
	my $soon = q(expires_at => clock_timestamp() + interval '3 s');

	my ($id, $path) = enqueue($soon);
	state_is($id, 'dead', 'one that would expire before its next attempt is given up at once');
	like(row($id, 'last_error'), qr/HTTP 500.*it expires before the next attempt/, '... and says so');
	is(scalar(() = arrivals($path)), 1, '... after one attempt');
	ok(row($id, 'ended_at < expires_at') eq 't', '... before it expires');

	sql(q(SELECT hubex_pause('fsm')));
	($id, $path) = enqueue($soon);
	state_is($id, 'dead', 'one expires while its server is paused');
	like(row($id, 'last_error'), qr/expired before it was delivered/, '... and says so');
	sql(q(SELECT hubex_resume('fsm')));
	is(scalar(() = arrivals($path)), 0, '... and was not sent');

	$sandbox->clear_faults;
	answers('/WORK/Control*');
	$sandbox->fault(method => 'PATCH', path => '/WORK/Held', fault => 'delay_before', seconds => 6, times => 1);
	my $first = sql(q(SELECT hubex_enqueue('PATCH', '/WORK/Held', '{}', server => 'fsm', ordering_key => 'held')));
	($id, $path) = enqueue("ordering_key => 'held', $soon");
	my ($next, $next_path) = enqueue(q(ordering_key => 'held'));
	state_is($id, 'dead', 'one expires while it waits behind another');
	is(scalar(() = arrivals($path)), 0, '... and was not sent');
	state_is($next, 'delivered', '... and does not hold up the next of its key');

	# Revived, it has no expiry any more.
	is(sql("SELECT hubex_retry($id)"), 't', 'what has expired can be retried');
	state_is($id, 'delivered', '... and is delivered');
	is(scalar(() = arrivals($path)), 1, '... once');
	my $past = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Past', '{}', server => 'fsm', expires_at => now() - interval '1 min')));
	state_is($past, 'dead', 'what has expired already is dead');
	is(scalar(() = arrivals('/WORK/Past')), 0, '... is never sent');
	policy_is();
}

sub dead_letters
{
	$sandbox->clear_faults;
	$sandbox->clear_journal;
	sql('DELETE FROM hubex.outbox');
	my $fault = answers('/WORK/Dead*', 400);
	my %id;
	for my $path (qw(DeadA DeadB DeadC DeadD))
	{
		$id{$path} = sql("SELECT hubex_enqueue('PUT', '/WORK/$path', '{}', server => 'fsm', ordering_key => '$path')");
		state_is($id{$path}, 'dead', "$path is a dead letter");
	}
	$id{other} = sql(q(SELECT hubex_enqueue('PUT', '/WORK/NoSuchThing', '{}', server => 'other')));
	state_is($id{other}, 'dead', 'so is one of another server');
	my $sent = sub { return scalar(() = arrivals("/WORK/$_[0]")) };

	for my $case (
		[ q(filter => '{"colour": "red"}'), '42703', qr/"colour" is no column to filter requests by/ ],
		[ q(filter => '{"state": "waiting"}'), '42703', qr/"state"/ ],
		[ q(filter => '[1]'), '22023', qr/must be a JSON object/ ],
		[ q(filter => '"x"'), '22023', qr/must be a JSON object/ ])
	{
		my $answer = $client->try("SELECT hubex_retry_all($case->[0])");
		is($answer->{sqlstate}, $case->[1], "$case->[0] is an error");
		like($answer->{message}, $case->[2], '... that names it');
	}
	like($client->try(q(SELECT hubex_retry_all('{"colour": 1}')))->{hint}, qr/The columns are: server, owner, .*ordering_key/, '... and says what there is');
	is(sql(q(SELECT count(*) FROM hubex.outbox WHERE state = 'dead')), 5, '... and changes nothing');

	is(sql(q(SELECT hubex_retry_all('{"path": "/WORK/None"}'))), 0, 'a filter that matches nothing');
	is(sql(q(SELECT hubex_retry_all(since => now() + interval '1 hour'))), 0, 'a time in which nothing was given up');
	is(sql(q(SELECT hubex_retry_all(server => 'none'))), 0, 'a server without any');
	is(sql(q(SELECT hubex_retry_all('{"path": "/WORK/DeadA", "last_status": 401}'))), 0, 'all of a filter has to match');
	is(sql(q(BEGIN; SELECT hubex_retry_all('{"path": "/WORK/DeadA"}'); ROLLBACK)), 1, 'a retry that is rolled back');
	is(row($id{DeadA}, 'state'), 'dead', '... is none');

	# What was refused is refused again, with a new count of attempts.
	is(sql("SELECT hubex_retry($id{DeadA})"), 't', 'hubex_retry of a dead letter');
	eventually { $sent->('DeadA') == 2 } '... sends it again';
	state_is($id{DeadA}, 'dead', '... and it is dead again');
	is(row($id{DeadA}, 'attempts'), 1, '... after one attempt since');

	$sandbox->clear_faults($fault);
	answers('/WORK/Dead*');
	is(sql(q(SELECT hubex_retry_all('{"path": "/WORK/DeadB", "last_status": 400}', now() - interval '1 hour', 'fsm'))), 1, 'hubex_retry_all by all there is');
	state_is($id{DeadB}, 'delivered', '... delivers the one');
	is(join(' ', map { $sent->($_) } qw(DeadA DeadB DeadC DeadD)), '2 2 1 1', '... and no other');
	sql("UPDATE hubex.outbox SET ended_at = now() - interval '1 day' WHERE id = $id{DeadC}");
	is(sql(q(SELECT hubex_retry_all(since => now() - interval '1 hour', server => 'fsm'))), 2, 'hubex_retry_all since a time, of a server');
	state_is($id{$_}, 'delivered', "... delivers $_") for qw(DeadA DeadD);
	is(row($id{DeadC}, 'state') . ' ' . row($id{other}, 'state'), 'dead dead', '... and no others');
	is(sql('SELECT hubex_retry_all()'), 2, 'hubex_retry_all of all');
	state_is($id{DeadC}, 'delivered', '... delivers what can be');
	state_is($id{other}, 'dead', '... and what cannot is dead again');
	is(sql('SELECT hubex_retry_all()'), 1, '... to be retried again');
	state_is($id{other}, 'dead', '... and again');
	is(sql("SELECT hubex_retry($id{DeadC})"), 'f', 'what is delivered is not retried');
	is($sent->('DeadC'), 2, '... nor sent');
}

sub cancelling
{
	$sandbox->clear_faults;
	answers('/WORK/Control*');
	my ($id, $path) = enqueue(q(deliver_after => now() + interval '1 hour'));
	is(sql("SELECT hubex_cancel($id)"), 't', 'one that waits is cancelled');
	is(row($id, 'state, ended_at IS NOT NULL'), 'cancelled|t', '... at once');
	is(sql("SELECT hubex_wait($id)"), 'cancelled', '... hubex_wait knows');
	is(sql("SELECT hubex_cancel($id)"), 'f', '... and only once');
	is(sql("SELECT hubex_retry($id)"), 't', '... until it is retried');
	state_is($id, 'delivered', '... then it is sent, now');
	is(scalar(() = arrivals($path)), 1, '... once');
	is(sql("SELECT hubex_cancel($id)"), 'f', 'what is delivered is not cancelled');
	is($client->try("SELECT $_(1000000)")->{sqlstate}, '42704', "$_ of one that is not there") for qw(hubex_cancel hubex_retry);

	# with its own transaction
	sql('BEGIN');
	($id, $path) = enqueue();
	is(sql("SELECT hubex_cancel($id)"), 't', 'one that was enqueued just now, by the same transaction');
	sql('COMMIT');
	is(fence(), 'delivered', '... others go on');
	is(scalar(() = arrivals($path)), 0, '... is never sent');
	($id, $path) = enqueue(q(deliver_after => now() + interval '2 s'));
	sql("BEGIN; SELECT hubex_cancel($id); ROLLBACK");
	state_is($id, 'delivered', 'a cancel that is rolled back is none');

	my $fault = answers('/WORK/Dead', 400);
	$id = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Dead', '{}', server => 'fsm')));
	state_is($id, 'dead', 'a dead letter');
	is(sql("SELECT hubex_cancel($id)"), 't', '... is cancelled');
	is(sql(q(SELECT hubex_retry_all('{"path": "/WORK/Dead"}'))) . ' ' . row($id, 'state'), '0 cancelled', '... and hubex_retry_all() leaves it alone');
	is(scalar(() = arrivals('/WORK/Dead')), 1, '... it was sent once');
	$sandbox->clear_faults;
	$sandbox->fault(path => '/WORK/Slow', fault => 'delay_before', seconds => 3, times => 1);
	$id = sql(q(SELECT hubex_enqueue('PUT', '/WORK/Slow', '{}', server => 'fsm')));
	eventually { arrivals('/WORK/Slow') >= 1 } 'one is being sent';
	is(sql("SELECT hubex_cancel($id)"), 'f', '... and is not cancelled');
	is(sql("SELECT hubex_retry($id)"), 'f', '... nor retried');
	sql("SELECT hubex_wait($id, '60 s')");
	is(scalar(() = arrivals('/WORK/Slow')), 1, '... it is sent once');
}

sub rights
{
	$sandbox->clear_faults;
	my $fault = answers('/WORK/Control*', 400);
	sql("CREATE ROLE $_ LOGIN; SELECT hubex_grant('$_', 'enqueue'); GRANT USAGE ON FOREIGN SERVER fsm TO $_") for qw(clerk colleague);
	sql(q(CREATE ROLE chief LOGIN; SELECT hubex_grant('chief', 'admin')));
	my %who = map { $_ => Hubex::Client->new($node, user => $_) } qw(clerk colleague chief);
	my ($id, $path) = enqueue(undef, $who{clerk});
	state_is($id, 'dead', 'a dead letter of a clerk');
	for my $function (qw(hubex_cancel hubex_retry))
	{
		my $answer = $who{colleague}->try("SELECT $function($id)");
		is($answer->{sqlstate}, '42704', "$function is not for a colleague");
		like($answer->{detail}, qr/another role's/, '... who learns nothing of it');
		is($who{colleague}->try("SELECT $function(1000000)")->{message} =~ s/\d+//r, $answer->{message} =~ s/\d+//r, '... not even whether it is there');
	}
	is($who{clerk}->try('SELECT hubex_retry_all()')->{sqlstate}, '42501', 'hubex_retry_all is for administrators');
	is(row($id, 'state, attempts'), 'dead|1', 'nothing has changed');
	is($who{clerk}->query("SELECT hubex_retry($id)"), 't', 'the clerk retries it');
	$node->wait_for("SELECT state FROM hubex.outbox WHERE id = $id AND ended_at IS NOT NULL", 'dead', '... in vain');
	is($who{chief}->query(q(SELECT hubex_retry_all('{"owner": "clerk"}'))), 1, 'an administrator retries all of the clerk');
	state_is($id, 'dead', '... in vain');
	is($who{chief}->query("SELECT hubex_cancel($id)"), 't', '... and cancels it');
	$sandbox->clear_faults;
	answers('/WORK/Control*');
	is($who{clerk}->query("SELECT hubex_retry($id)"), 't', 'the clerk revives it');
	state_is($id, 'delivered', '... and it is delivered');
	is(row($id, 'owner'), 'clerk', '... in the clerk\'s name');
}

# Somebody thinks long about a transaction: only the requests concerned wait, if these.
sub open_transactions
{
	$sandbox->clear_faults;
	answers('/WORK/Control*');
	my $thinker = Hubex::Client->new($node);

	my ($id, $path) = enqueue(q(deliver_after => now() + interval '1 s'));
	$thinker->query("BEGIN; SELECT hubex_cancel($id)");
	is(fence(), 'delivered', 'a cancel that is not committed: others go on');
	$node->wait_for("SELECT next_attempt_at < now() FROM hubex.outbox WHERE id = $id", 't', '... its request is due');
	is(fence(), 'delivered', '... others go on');
	$thinker->query('COMMIT');
	is(fence(), 'delivered', '... and when it is committed');
	is(scalar(() = arrivals($path)), 0, '... the request is not sent');

	# Two who want to cancel the same: the second one's answer is what comes of the first one.
	for my $case ([ 'ROLLBACK', 't' ], [ 'COMMIT', 'f' ])
	{
		my ($end, $answer) = @$case;
		my $second = Hubex::Client->new($node);
		($id, $path) = enqueue(q(deliver_after => now() + interval '1 hour'));
		$thinker->query("BEGIN; SELECT hubex_cancel($id)");
		$second->send("SELECT hubex_cancel($id)");
		eventually { sql('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $second->pid) eq 'Lock' } 'a second cancel waits for the first';
		$thinker->query($end);
		is($second->answer->{rows}, $answer, "... and answers what is so after its $end");
		is(row($id, 'state'), 'cancelled', '... and the request is cancelled');
	}

	for my $function (qw(hubex_cancel hubex_retry))
	{
		$sandbox->fault(path => "/WORK/Thought$function", fault => 'delay_before', seconds => 3, times => 1);
		$id = sql("SELECT hubex_enqueue('PUT', '/WORK/Thought$function', '{}', server => 'fsm')");
		eventually { arrivals("/WORK/Thought$function") >= 1 } 'one is being sent';
		is($thinker->query("BEGIN; SELECT $function($id)"), 'f', "... $function in a transaction that stays open answers false");
		eventually { row($id, "state <> 'sending'") eq 't' } '... and its outcome can be recorded meanwhile', 20;
		is(fence(), 'delivered', '... others go on');
		$thinker->query('COMMIT');
		is(scalar(() = arrivals("/WORK/Thought$function")), 1, '... it is sent once');
	}
	$sandbox->clear_faults;
}

# Server other is gone: the circuit opens, server fsm delivers, no request is given up for it.
sub circuit_refused
{
	my $requests = 40;
	sql('DELETE FROM hubex.outbox');
	sql(q(ALTER SERVER other OPTIONS (ADD retry_attempts '3', ADD retry_base '200ms', ADD retry_cap '1s', ADD retry_jitter '0', ADD max_connections '4')));
	my $fence = sql(q(SELECT hubex_create_task(1, 'signed in', server => 'other')));
	is(sql("SELECT hubex_wait($fence, '60 s')"), 'delivered', 'a server works');
	$other->stop;
	my $log = -s $node->logfile;
	sql("SELECT count(hubex_create_task(1, 'out ' || n, server => 'other')) FROM generate_series(1, $requests) n");
	eventually { circuit('other') eq 'open' } 'it is gone: its circuit opens';
	is(sql(q(SELECT circuit_failures > 0 AND circuit_since <= now() FROM hubex_stat_server WHERE server = 'other')), 't', '... as hubex_stat_server shows');
	is(fence(), 'delivered', 'another server delivers');
	is(circuit('fsm'), 'closed', '... its circuit is closed');

	# Five probes: by then everybody would have had three attempts, if all were tried.
	eventually { (() = slurp($node->logfile, $log) =~ /hubex sends nothing to server "other"/g) >= 6 } 'it is tried again and again', 60;
	is(fence(), 'delivered', 'another server delivers still');
	is(sql(q(SELECT count(*) FROM hubex.outbox WHERE server = 'other' AND state = 'dead')), 0, 'no request is given up');
	my $tried = sql(q(SELECT sum(attempts) FROM hubex.outbox WHERE server = 'other' AND natural_key IS DISTINCT FROM '' AND state <> 'delivered'));
	my $probes = () = slurp($node->logfile, $log) =~ /hubex sends nothing to server "other"/g;
	cmp_ok($tried, '<=', 8 + 4 + $probes + 1, "only the probes cost attempts: $tried of $requests requests, after $probes probes");
	$other->restart;
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE server = 'other' AND state <> 'delivered'), 0, 'it is back: all is delivered', 60);
	is(circuit('other'), 'closed', '... the circuit is closed');
	my %notes;
	$notes{ $_->{request}{notes} // '' }++ for @{ $other->tasks };
	is_deeply([ grep { ($notes{"out $_"} // 0) != 1 } 1 .. $requests ], [], '... each once');
}

sub circuit_hangs
{
	my $requests = 20;
	sql('DELETE FROM hubex.outbox');
	sql(q(ALTER SERVER other OPTIONS (ADD timeout '2s')));
	my $fence = sql(q(SELECT hubex_create_task(1, 'signed in', server => 'other')));
	is(sql("SELECT hubex_wait($fence, '60 s')"), 'delivered', 'a server works');
	$other->clear_journal;
	my $fault = $other->fault(fault => 'hang', probability => 1);
	sql("SELECT count(hubex_create_task(1, 'silent ' || n, server => 'other')) FROM generate_series(1, $requests) n");
	eventually { circuit('other') eq 'open' } 'it does not answer: its circuit opens', 60;
	is(fence(), 'delivered', 'another server delivers');
	eventually { circuit('other') eq 'half_open' } 'it is tried by one request', 60;
	is(fence(), 'delivered', 'another server delivers still');
	my ($last) = sort { $b <=> $a } map { $_->{n} } @{ $other->journal(fields => 'n') };
	my $probes = sub { return grep { $_->{n} >= $last } @{ $other->journal(fields => 'n,time') } };
	eventually { $probes->() >= 3 } '... and again, and again', 60;
	my @probes = $probes->();
	is_deeply([ grep { $_ < 1.9 } pauses(map { $_->{time} } @probes) ], [], '... one after the other');
	is(sql(q(SELECT count(*) FROM hubex.outbox WHERE server = 'other' AND state = 'dead')), 0, 'no request is given up');
	$other->clear_faults($fault);
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE server = 'other' AND state <> 'delivered'), 0, 'it answers again: all is delivered', 60);
	is(circuit('other'), 'closed', '... the circuit is closed');
	my %notes;
	$notes{ $_->{request}{notes} // '' }++ for @{ $other->tasks };
	is_deeply([ grep { ($notes{"silent $_"} // 0) != 1 } 1 .. $requests ], [], '... each once');
	sql('ALTER SERVER other OPTIONS (DROP timeout, DROP retry_attempts, DROP retry_base, DROP retry_cap, DROP retry_jitter, DROP max_connections)');
}

sub poison
{
	sql('DELETE FROM hubex.outbox');
	sql(q(ALTER SERVER fsm OPTIONS (ADD timeout '2s')));
	policy_is(base => '50ms', cap => '100ms');
	answers('/WORK/Fails', 500);
	$sandbox->fault(path => '/WORK/Hangs', fault => 'hang', probability => 1);
	answers('/WORK/Control*');
	my $log = -s $node->logfile;
	my %bad = map { $_ => sql("SELECT hubex_enqueue('PUT', '/WORK/$_', '{}', server => 'fsm')") } qw(Fails Hangs);
	my @good = map { [ enqueue() ] } 1 .. 50;
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 2, '50 good requests are delivered', 60);
	is_deeply([ grep { arrivals($_->[1]) != 1 } @good ], [], '... each sent once');
	eventually { arrivals('/WORK/Fails') > 10 && arrivals('/WORK/Hangs') > 2 } 'the bad ones are tried again and again', 60;
	is(circuit('fsm'), 'closed', 'that is not the server\'s fault: its circuit is closed');
	unlike(slurp($node->logfile, $log), qr/sends nothing to server "fsm"/, '... and was all the time');
	is(fence(), 'delivered', 'others go on');
	is(sql("SELECT string_agg(state, ' ') FROM (SELECT DISTINCT replace(state, 'sending', 'waiting') AS state FROM hubex.outbox WHERE id IN ($bad{Fails}, $bad{Hangs})) s"),
		'waiting', 'the bad ones wait');
	$sandbox->clear_faults;
	answers('/WORK/*');
	state_is($bad{$_}, 'delivered', "$_ is delivered when it can be") for qw(Fails Hangs);
}

sub circuit { return sql("SELECT circuit FROM hubex_stat_server WHERE server = '$_[0]'") }

sub slurp
{
	my ($file, $from) = @_;
	open my $handle, '<', $file or die "$file: $!";
	seek $handle, $from // 0, 0;
	local $/;
	return <$handle> // '';
}
