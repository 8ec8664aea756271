# What HubEx does not take: a refusal is a dead letter at once, with HubEx's own words; what may pass is tried again,
# with pauses that grow, as long as asked for, and at no more than the rate allowed; and nobody else suffers from it.

use strict;
use warnings;
use utf8;

use Encode qw(decode);
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use JSON::PP;
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->safe_psql('postgres', q{ALTER ROLE CURRENT_USER SET hubex.default_server = 'fsm'});
my $manifest = $node->safe_psql('postgres', q{SELECT manifest FROM hubex.connector WHERE name = 'hubex'});
my $fences = 0;
anew();

subtest 'refused: a dead letter' => \&dead_letters;
subtest 'no refusal: 409 for a stamp that was used' => \&stamp_used;
subtest 'tried again, with growing pauses' => \&growing_pauses;
subtest 'the peer says how long to wait' => \&retry_after;
subtest 'the peer is not there' => \&not_there;
subtest 'a poison request' => \&poison;
subtest 'hubex_wait' => \&waiting;
subtest 'no more than the rate allows' => \&rate;
done_testing;

# ---- the parts of a test ----

sub sql { return decode('UTF-8', $node->safe_psql('postgres', $_[0])) }

# Everything anew, with a token.
sub anew
{
	$sandbox->reset;
	sql('TRUNCATE hubex.outbox');
	is(sql(q{SELECT hubex_wait(} . sql(q{SELECT hubex_create_task(1, 'fence')}) . ')'), 'delivered', 'the worker works');
	sql('TRUNCATE hubex.outbox');
	$sandbox->clear_journal;
}

sub retry_policy
{
	my (%policy) = @_;
	sql("UPDATE hubex.connector SET manifest = jsonb_set(manifest, '{retry,$_}', '$policy{$_}')") for keys %policy;
}

sub default_policy { sql("UPDATE hubex.connector SET manifest = \$\$$manifest\$\$ WHERE name = 'hubex'") }

# The requests sent for a path, sign-ins aside.
sub sent { return @{ $sandbox->journal(method => $_[0], path => $_[1]) } }

# ---- refusals ----

sub dead_letters
{
	my $task = sql(q{SELECT (hubex_request('POST', '/WORK/Tasks', '{"taskTypeID": 2, "requestMethodID": 4}')).body ->> 'id'});
	my %error = (code => 'AccessDenied', message => 'Нет прав на «создание» заявки', traceIdentifier => '0HM:7');
	my $long = 'Шлюз не отвечает. ' x 100;
	my $create = sub { "SELECT hubex_create('tasks', '$_[0]')" };
	my $good = $create->('{"taskTypeID": 2, "notes": "x"}');
	my @cases = (
		[ 'a field of the wrong type', 400, qr/^HTTP 400$/, $create->('{"taskTypeID": "two", "notes": "x"}') ],
		[ 'no right', 403, qr/^HTTP 403: AccessDenied: Нет прав на «создание» заявки \(trace 0HM:7\)$/, $good, { fault => 'status', status => 403, body => \%error } ],
		[ 'no such task', 404, qr/^HTTP 404: NotFound: Объект не найден/, q{SELECT hubex_enqueue('PUT', '/WORK/Tasks/999999/complete', '{}')} ],
		[ 'an unknown company', 409, qr/^HTTP 409: EntityNotFound: Связанный объект не найден/, $create->('{"taskTypeID": 2, "companyID": 999999}') ],
		[ 'an unknown company, an erpID', 409, qr/^HTTP 409: EntityNotFound/, $create->('{"taskTypeID": 2, "companyID": 999999, "erpID": "x"}') ],
		[ 'a script', 422, qr/^HTTP 422: .*NotAllowedTag.*script/, $create->('{"taskTypeID": 2, "notesHtml": "<script>alert(1)</script>"}') ],
		[ 'a stage that is not next', 201, qr/^refused with HTTP 201: .*Переход на эту стадию не предусмотрен маршрутом/,
			qq{SELECT hubex_enqueue('POST', '/WORK/TaskStagingHistory', '{"taskID": $task, "taskStageID": 15}')} ],
		[ 'a redirect', 302, qr/^HTTP 302/, $good, { fault => 'status', status => 302, headers => { Location => $sandbox->url . '/WORK/TaskTypes' } } ],
		[ 'a redirect that keeps the method', 308, qr/^HTTP 308/, $good, { fault => 'status', status => 308, headers => { Location => $sandbox->url . '/WORK/Tasks' } } ],
		[ 'a text', 400, qr/^HTTP 400: Только/, $good, { fault => 'status', status => 400, body => "Только для\nсвоих" } ],
		[ 'a long text', 413, qr/^HTTP 413: Шлюз не отвечает\. Шлюз [^?]*$/, $good, { fault => 'status', status => 413, body => $long } ],
		[ 'a long message', 403, qr/^HTTP 403: X: Шлюз не отвечает\. Шлюз [^?]*$/, $good, { fault => 'status', status => 403, body => { code => 'X', message => $long x 10 } } ],
		[ 'a body of zeros', 400, qr/^HTTP 400/, $good, { fault => 'status', status => 400, body => "\0\0\x01\x1b[31m" } ],
		[ 'an array', 403, qr/^HTTP 403: \[/, $good, { fault => 'status', status => 403, body => [ { message => 'x' } ] } ],
		[ 'numbers where texts should be', 403, qr/^HTTP 403: 17: \{"a": \[1\]\}/, $good, { fault => 'status', status => 403, body => { code => 17, message => { a => [1] } } } ],
		[ 'no such thing', 501, qr/^HTTP 501/, $good, { fault => 'status', status => 501 } ]);
	for my $case (@cases)
	{
		my ($what, $status, $error, $call, $fault) = @$case;
		$sandbox->clear_journal;
		$sandbox->clear_faults;
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', %$fault) if $fault;
		my $tasks = $sandbox->state->{tasks};
		my $id = sql($call);
		is(sql("SELECT hubex_wait($id, '10 s')"), 'dead', $what);
		my ($got_status, $attempts, $got) = split /\|/, sql("SELECT last_status, attempts, replace(last_error, E'\\n', '~') FROM hubex.outbox WHERE id = $id"), 3;
		like($got, $error, ' says why');
		is("$got_status, $attempts", "$status, 1", ' its status, after one attempt');
		is((grep { $_->{method} ne 'GET' } @{ $sandbox->journal }), 1, ' that was one request');
		is($sandbox->state->{tasks}, $tasks, ' and made nothing');
	}
	$sandbox->clear_faults;
	is(sql(q{SELECT count(*) FROM hubex.outbox WHERE state = 'dead' AND (remote_id IS NOT NULL OR delivered_at IS NOT NULL)}), 0, 'none has a task');
}

# As after a restore: the request is to be sent, and its task is there.
sub stamp_used
{
	anew();
	my $id = sql(q{SELECT hubex_create_task(1, 'x', erp_id => 'USED')});
	is(sql("SELECT hubex_wait($id)"), 'delivered', 'made');
	my ($task) = grep { ($_->{erpID} // '') eq 'USED' } @{ $sandbox->tasks };
	my $tasks = $sandbox->state->{tasks};
	my $id2 = sql(q{SELECT hubex_create_task(1, 'y')});
	is(sql("SELECT hubex_wait($id2)"), 'delivered', 'made, without an erpID');
	$sandbox->clear_journal;
	sql(q{BEGIN;
		UPDATE hubex.outbox SET state = 'waiting', remote_id = NULL, remote_number = NULL, response = NULL, attempts = 0, delivered_at = NULL, last_status = NULL;
		SELECT hubex_create_task(1, 'wakes the worker');
		COMMIT});
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state = 'delivered'}, 3, 'both are delivered again');
	is(sql("SELECT concat_ws(' ', remote_id, remote_number, last_error) FROM hubex.outbox WHERE id = $id"), "$task->{id} $task->{number}", 'with the id and number it has');
	is($sandbox->state->{tasks}, $tasks + 2, 'nothing is made twice');
	is((grep { $_->{status} == 409 } sent(POST => '/WORK/Tasks')), 2, 'though each was sent, and answered 409');
}

# ---- what may pass ----

sub growing_pauses
{
	retry_policy(base => 0.08, cap => 0.5);
	for my $case ([500], [ 502, '<html>Шлюз</html>' ], [503], [429])
	{
		my ($status, $body) = @$case;
		anew();
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => $status, times => 5, defined $body ? (body => $body) : ());
		my $id = sql(q{SELECT hubex_create_task(1, 'x')});
		is(sql("SELECT hubex_wait($id)"), 'delivered', "$status: delivered in the end");
		is(sql("SELECT attempts || ' ' || last_status || coalesce(' ' || last_error, '') FROM hubex.outbox WHERE id = $id"), '6 201', ' at the sixth attempt');
		my @times = map { $_->{time} } sent(POST => '/WORK/Tasks');
		is(@times, 6, ' so many were sent');

		# At least half of 0.08, 0.16, 0.32, 0.5, 0.5 seconds; and not much more than all of it.
		my @pauses = map { $times[$_] - $times[ $_ - 1 ] } 1 .. $#times;
		my @least = (0.04, 0.08, 0.16, 0.25, 0.25);
		my $all = join ' ', map { sprintf '%.2f', $_ } @pauses;
		is_deeply([ grep { $pauses[$_] < $least[$_] } 0 .. $#pauses ], [], " no pause is too short: $all");
		is_deeply([ grep { $pauses[$_] > 2 * $least[$_] + 0.5 } 0 .. $#pauses ], [], ' and none too long');
		my $look_ups = () = sent(GET => '/WORK/Tasks');
		is($look_ups, $status == 429 ? 0 : 5, ' looked up before each new attempt where it may have been made: ' . $look_ups);
	}

	# The requests of an outage do not come back together.
	anew();
	retry_policy(base => 1);
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 429, times => 12);
	sql(q{SELECT hubex_create_task(1, n::text) FROM generate_series(1, 12) n});
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'an outage ends');
	my %seen;
	my @pauses = sort { $a <=> $b } map { my $body = $_->{body}; my $first = $seen{$body}; $seen{$body} = $_->{time}; defined $first ? $_->{time} - $first : () }
	  sent(POST => '/WORK/Tasks');
	is(@pauses, 12, 'twelve requests came back');
	cmp_ok($pauses[-1] - $pauses[0], '>', 0.1, sprintf 'spread out: after %.2f to %.2f s', @pauses[ 0, -1 ]);
	default_policy();
}

sub retry_after
{
	retry_policy(base => 0.05);
	my $date = sub { return strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime($_[0])) };
	my $not_before = sub {
		my ($what, $when, %fault) = @_;
		anew();
		my $at = $when->();
		$fault{retry_after} = $date->($at) if exists $fault{retry_after} && !defined $fault{retry_after};
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', %fault);
		my $id = sql(q{SELECT hubex_create_task(1, 'first')});
		eventually { sent(POST => '/WORK/Tasks') } "$what: the first attempt";
		my ($first) = sent(POST => '/WORK/Tasks');
		$node->wait_for("SELECT attempts > 0 AND state = 'waiting' FROM hubex.outbox WHERE id = $id", 't', ' is answered');
		my $other = sql(q{SELECT hubex_create_task(1, 'other')});
		sql(q{SELECT hubex_request('GET', '/WORK/TaskTypes')});
		is(sql("SELECT hubex_wait($id), hubex_wait($other)"), 'delivered|delivered', ' in the end delivered');
		my @later = map { $_->{time} } grep { $_->{n} > $first->{n} } @{ $sandbox->journal };
		is_deeply([ map { sprintf '%.2f', $_ - $at } grep { $_ < $at } @later ], [], ' nobody asks before it may');
		cmp_ok((sort { $a <=> $b } @later)[0], '<', $at + 20, ' and not much later');
	};
	$not_before->('429, seconds', sub { time + 1.5 }, fault => 'throttle', retry_after => 2);
	$not_before->('429, a date', sub { int(time) + 2 }, fault => 'throttle', retry_after => undef);
	$not_before->('503, seconds', sub { time + 0.5 }, fault => 'status', status => 503, headers => { 'Retry-After' => '1' });
	for my $odd ('-5', 'soon', '', 'Thu, 01 Jan 1970 00:00:00 GMT', '1.5')
	{
		anew();
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 429, headers => { 'Retry-After' => $odd });
		my $id = sql(q{SELECT hubex_create_task(1, 'odd')});
		is(sql("SELECT hubex_wait($id, '5 s')"), 'delivered', "'$odd' is no reason to wait long");
	}

	# Somebody's mistake must not stop everything for years. An account of its own, for its pause outlives this.
	sql(q{CREATE SERVER mistaken FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '} . $sandbox->url . q{', rate_limit 'none', application_id '7');
		CREATE USER MAPPING FOR PUBLIC SERVER mistaken OPTIONS (service_token '} . $sandbox->service_token . q{')});
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 429, headers => { 'Retry-After' => '99999999999' });
	my $id = sql(q{SELECT hubex_create_task(1, 'never', server => 'mistaken')});
	$node->wait_for("SELECT attempts = 1 AND state = 'waiting' FROM hubex.outbox WHERE id = $id", 't', 'a peer that says to wait for 3000 years');
	is(sql("SELECT next_attempt_at <= now() + interval '25 hours' FROM hubex.outbox WHERE id = $id"), 't', 'is asked again after a day at the latest');
	sql("DELETE FROM hubex.outbox WHERE id = $id; DROP SERVER mistaken CASCADE");
	default_policy();
}

sub not_there
{
	anew();
	retry_policy(base => 0.1, cap => 0.5);
	$sandbox->stop;
	my $id = sql(q{SELECT hubex_create_task(1, 'x')});
	$node->wait_for("SELECT attempts >= 3 FROM hubex.outbox WHERE id = $id", 't', 'tried again and again');
	like(sql("SELECT state || ': ' || last_error FROM hubex.outbox WHERE id = $id"), qr/^waiting: not sent, .*connect/i, 'and says why');
	is(sql("SELECT uncertain FROM hubex.outbox WHERE id = $id"), 'f', 'it is certain that nothing was made');
	$sandbox->restart;
	is(sql("SELECT hubex_wait($id)"), 'delivered', 'delivered when it is back');
	is(@{ $sandbox->tasks }, 1, 'once');
	is(scalar(() = sent(GET => '/WORK/Tasks')), 0, 'without looking it up');
	default_policy();
}

# ---- among others ----

sub poison
{
	anew();
	retry_policy(base => 0.05, cap => 0.2);
	$sandbox->fault(method => 'PUT', path => '/WORK/Tasks/restore', fault => 'status', status => 500, times => 100_000);
	$sandbox->fault(method => 'PUT', path => '/WORK/Tasks/1/complete', fault => 'drop_before', times => 100_000);
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 0.05, times => 100_000);
	my $session = Hubex::Session->new($node);
	$session->query(q{CREATE ROLE clerk; SELECT hubex_grant('clerk', 'enqueue'); GRANT USAGE ON FOREIGN SERVER fsm TO clerk});
	$session->query('BEGIN; SET LOCAL ROLE clerk');
	$session->query(q{SELECT hubex_create_task(1, 'nobody''s')});
	$session->query('RESET ROLE; DROP OWNED BY clerk; DROP ROLE clerk');
	is($session->query('COMMIT'), '', 'a request of a role that is gone');
	$session->query(q{SELECT hubex_enqueue('PUT', '/WORK/Tasks/restore', '[]') FROM generate_series(1, 3);
		SELECT hubex_enqueue('PUT', '/WORK/Tasks/1/complete', '{}') FROM generate_series(1, 3);
		SELECT hubex_create('tasks', '{"taskTypeID": "poison"}') FROM generate_series(1, 20)});
	my $from = time;
	$session->query(q{SELECT hubex_create_task(1, 'good ' || n) FROM generate_series(1, 200) n});
	eventually { 201 == $sandbox->state->{tasks} } '200 good requests among 27 bad ones arrive';
	my $took = time - $from;
	note sprintf 'in %.1f s, of 50 ms each', $took;
	cmp_ok($sandbox->summary->{max_in_flight}, '<=', 16, 'no more at once than the connector allows: ' . $sandbox->summary->{max_in_flight});
	my %made;
	$made{ $_->{request}{notes} // '' }++ for @{ $sandbox->tasks };
	is_deeply(\%made, { fence => 1, map { ("good $_" => 1) } 1 .. 200 }, 'each once');
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state = 'delivered'}, 200, 'and are recorded');
	is(sql(q{SELECT string_agg(state || ' ' || count, ', ' ORDER BY state) FROM (SELECT replace(state, 'sending', 'waiting') AS state, count(*) FROM hubex.outbox GROUP BY 1) s}),
		'dead 20, delivered 200, waiting 7', 'the bad ones are dead or wait, or are tried again just now');
	like(sql(q{SELECT last_error FROM hubex.outbox WHERE owner = 'clerk'}), qr/role "clerk" does not exist/, 'with the reason');
	eventually { sql(q{SELECT min(attempts) FROM hubex.outbox WHERE path LIKE '%complete'}) >= 5 } 'and are tried again';
	$sandbox->clear_faults;
	eventually { sql(q{SELECT count(*) FROM hubex.outbox WHERE path LIKE '%restore' AND state = 'delivered'}) == 3 } 'when the peer recovers they are delivered';
	sql('TRUNCATE hubex.outbox');
	default_policy();
}

sub waiting
{
	anew();
	my $session = Hubex::Session->new($node);
	my $wait = sub { my ($id, $timeout) = @_; return $session->query("SELECT hubex_wait($id, '$timeout')") };

	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 0.7);
	my $id = sql(q{SELECT hubex_create_task(1, 'x')});
	my $from = time;
	is($wait->($id, '200 ms'), 'sending', 'in flight when the time is up');
	cmp_ok(time - $from, '<', 10, sprintf 'after %.0f ms', 1000 * (time - $from));
	is($wait->($id, '10 s'), 'delivered', 'delivered');
	my ($entry) = sent(POST => '/WORK/Tasks');
	cmp_ok(time - $entry->{finished}, '<', 10, sprintf 'known %.0f ms after the answer', 1000 * (time - $entry->{finished}));
	is($wait->($id, '0'), 'delivered', 'and known from then on');

	is($wait->(sql(q{SELECT hubex_create_task(99, 'x')}), '10 s'), 'dead', 'dead');
	my $later = sql(q{SELECT hubex_create_task(1, 'x', deliver_after => now() + interval '1 hour')});
	is($wait->($later, '50 ms'), 'waiting', 'waiting');
	like($wait->(-1, '1 s'), qr/ERROR:  42704:/, 'no such request');
	$session->query('BEGIN');
	my $own = $session->query(q{SELECT hubex_create_task(1, 'x')});
	like($wait->($own, '1 s'), qr/ERROR:  55000:.*HINT:  Commit first/s, 'one that is not committed');
	$session->query('ROLLBACK');

	# Inside a transaction with a snapshot from before.
	$session->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	my $new = sql(q{SELECT hubex_create_task(1, 'x')});
	is($wait->($new, '10 s'), 'delivered', 'in a transaction that is older than the request');
	$session->query('COMMIT');
	sql('TRUNCATE hubex.outbox');
}

# ---- the rate ----

# In no second more than five, counting all that is asked, by whomever, sign-ins too. The journal's clock is read by a
# process that may have to wait for the processor itself, so a tenth of a second is forgiven.
sub rate
{
	anew();
	my $limit = sub {
		my ($server, $rate, $application) = @_;
		sql(qq{CREATE SERVER $server FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '} . $sandbox->url . qq{', rate_limit '$rate', application_id '$application');
			CREATE USER MAPPING FOR PUBLIC SERVER $server OPTIONS (service_token '} . $sandbox->service_token . q{')});
	};
	$limit->('five', '5/s', 5);
	$limit->('bucket', '4/s burst 6', 6);
	my @backends = map { Hubex::Session->new($node) } 1 .. 3;

	# Some fail first: a request that waits for the quota keeps what was said about it.
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 429, times => 3);
	sql(q{SELECT hubex_create_task(1, server || n, server => server) FROM generate_series(1, 10) n, unnest('{five,bucket}'::name[]) server});
	$_->send(q{SELECT count(hubex_request('GET', '/WORK/TaskTypes', server => s)) FROM generate_series(1, 3), unnest('{five,bucket}'::name[]) s}) for @backends;
	my $speechless = 0;
	eventually {
		$speechless = 1 if sql(q{SELECT count(*) FROM hubex.outbox WHERE state = 'waiting' AND last_status = 429 AND last_error IS NULL}) > 0;
		sql(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}) == 0
	} 'all is delivered';
	is_deeply([ map { $_->finish } @backends ], [ (6) x 3 ], 'and answered');
	is($speechless, 0, 'what waits for the quota keeps its last error');

	my %times;
	push @{ $times{ $_->{headers}{'x-application-id'} } }, $_->{time} for @{ $sandbox->journal };
	my @five = sort { $a <=> $b } @{ $times{5} };
	cmp_ok(@five, '>=', 20, @five . ' requests at 5/s');
	is_deeply([ map { sprintf '%.3f', $five[ $_ + 5 ] - $five[$_] } grep { $five[ $_ + 5 ] - $five[$_] < 0.9 } 0 .. $#five - 5 ], [], 'never six of them within a second');
	note sprintf 'they took %.1f s', $five[-1] - $five[0];

	my @bucket = sort { $a <=> $b } @{ $times{6} };
	my @over;
	for my $i (0 .. $#bucket)
	{
		push @over, map { sprintf '%d in %.3f', $_ - $i + 1, $bucket[$_] - $bucket[$i] } grep { $_ - $i + 1 > 6 + 4 * ($bucket[$_] - $bucket[$i] + 0.1) } $i .. $#bucket;
	}
	is_deeply(\@over, [], @bucket . q( requests at '4/s burst 6': never more than the bucket holds));
	cmp_ok($bucket[-1] - $bucket[0], '<', @bucket / 4 * 1.6 + 20, sprintf 'and not much less: %.1f s', $bucket[-1] - $bucket[0]);

	# A slow peer: who waits for the quota does not wait for answers as well.
	anew();
	$limit->('slow', '4/s', 8);
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 4, times => 100);
	sql(q{SELECT hubex_create_task(1, 'slow' || n, server => 'slow') FROM generate_series(1, 7) n});
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state = 'delivered'}, 7, 'a slow peer');
	my @slow = map { $_->{time} } grep { $_->{headers}{'x-application-id'} == 8 } @{ $sandbox->journal };
	is(@slow, 8, 'a sign-in and seven requests');
	my $flying = $sandbox->summary->{max_in_flight};
	cmp_ok($flying, '>', 4, sprintf '%d in flight, sent as the quota allows: %s s', $flying, join ' ', map { sprintf '%.2f', $_ - $slow[0] } @slow);
	$sandbox->clear_faults;
	sql('DROP SERVER five CASCADE; DROP SERVER bucket CASCADE; DROP SERVER slow CASCADE');
}
