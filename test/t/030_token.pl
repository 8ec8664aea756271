# One access token for the whole server: renewed ahead of time, by one process, and never at the price of a request.
#
# Eight backends ask and the worker delivers while tokens age or are taken back. The sandbox's journal tells how often
# somebody signed in, and whether anybody was ever refused. Then all that can go wrong with a sign-in.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $SIGN_IN = '/AUTHZ/AccessTokens';
my $sandbox = Hubex::Sandbox->new(tasks => 30);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->safe_psql('postgres', 'CREATE TABLE stop ()');
my $seeded = @{ $sandbox->tasks };
my $worker;
eventually { $worker = $node->safe_psql('postgres', 'SELECT pid FROM hubex.worker_state()') } 'the worker runs';

subtest 'a token that ages' => \&ages;
subtest 'tokens that are taken back' => \&taken_back;
subtest 'two databases' => \&two_databases;
subtest 'who signs in goes away' => \&signer_goes;
subtest 'a wrong service token' => \&wrong_token;
subtest 'no user mapping' => \&no_mapping;
subtest 'a sign-in that fails' => \&failing_sign_ins;
is($node->safe_psql('postgres', 'SELECT pid FROM hubex.worker_state()'), $worker, 'it was the same worker all the time');
done_testing;

# ---- a busy server ----

# Eight sessions that ask until told to stop, and the function that tells them: it gives their last words.
sub eight_busy
{
	$node->safe_psql('postgres', 'DELETE FROM stop; ALTER TABLE stop DROP COLUMN IF EXISTS now; ALTER TABLE stop ADD now bool');
	my @sessions = map { Hubex::Session->new($node) } 1 .. 8;
	for my $n (0 .. $#sessions)
	{
		# A pause between the calls leaves the processor to others.
		my $call = $n % 2 ? q{(SELECT count(*) FROM hubex_tasks(jsonb_build_object('taskTypeID', 1 + n % 3)))} : q{hubex_request('GET', '/WORK/TaskTypes')};
		$sessions[$n]->send(qq{DO \$\$ DECLARE n int := 0; BEGIN
			WHILE NOT EXISTS (SELECT FROM stop) LOOP PERFORM $call; n := n + 1; PERFORM pg_sleep(0.01); END LOOP;
			RAISE NOTICE 'asked % times', n; END \$\$});
	}
	return sub {
		$node->safe_psql('postgres', 'INSERT INTO stop VALUES (true)');
		return map { $_->finish } @sessions;
	};
}

my $created = 0;

sub create_some
{
	my ($count) = @_;
	$created += $count;
	$node->safe_psql('postgres', "SELECT hubex_create_task(1, 'x') FROM generate_series(1, $count)");
}

sub all_delivered
{
	my ($seconds) = @_;
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'all requests are delivered', $seconds)
	  or diag $node->safe_psql('postgres', q{SELECT state, attempts, last_error, next_attempt_at - now() FROM hubex.outbox WHERE state <> 'delivered' LIMIT 3});
	is(@{ $sandbox->tasks } - $seeded, $created, 'each once');
}

sub sign_ins { return @{ $sandbox->journal(path => $SIGN_IN) } }

sub refused
{
	my $by = $sandbox->summary->{by};
	my $count = 0;
	$count += $_->{401} // 0 for values %$by;
	return $count;
}

sub ages
{
	# It is renewed at half its life at the latest, so every second.
	$sandbox->config(token_life => 2, token_grace => 0);
	my $stop = eight_busy();
	eventually { create_some(1); $sandbox->summary->{sign_ins} >= 5 } 'it is renewed again and again', 20;
	my @said = $stop->();
	is_deeply([ grep { !/^\S* *NOTICE:  00000: asked \d+ times\n.*\z/s } @said ], [], 'no request failed');
	all_delivered();

	my @times = map { $_->{time} } sign_ins();
	my @gaps = map { $times[$_] - $times[ $_ - 1 ] } 1 .. $#times;
	is_deeply([ grep { $_ < 0.9 } @gaps ], [], 'one sign-in a renewal: ' . join(' ', map { sprintf '%.2f', $_ } @gaps) . ' s apart');
	is(refused(), 0, 'nobody was refused');
	my $requests = $sandbox->summary->{requests};
	cmp_ok($requests, '>', 200, "$requests requests in all");
	$sandbox->config(token_life => 1800, token_grace => 300);
	$sandbox->expire_tokens;
}

sub taken_back
{
	$sandbox->clear_journal;
	$node->safe_psql('postgres', q{SELECT hubex_request('GET', '/WORK/TaskTypes')});
	is(scalar sign_ins(), 1, 'a first sign-in');
	my $stop = eight_busy();
	my $rounds = 6;
	for my $round (1 .. $rounds)
	{
		my $tokens = $sandbox->tokens;
		$sandbox->expire_tokens;
		eventually { create_some(2); $sandbox->tokens > $tokens } "round $round: a new token";

		# Everybody has used it when the next one goes.
		my $before = $sandbox->summary->{requests};
		eventually { create_some(1); $sandbox->summary->{requests} > $before + 60 } 'and all go on';
	}
	my @said = $stop->();
	is_deeply([ grep { !/NOTICE:  00000: asked \d+ times/ || /ERROR/ } @said ], [], 'no request failed');
	all_delivered();
	is(scalar sign_ins(), 1 + $rounds, 'one sign-in for each token that was taken back');
	cmp_ok(refused(), '>=', $rounds, refused() . ' requests were refused on the way');
	is($sandbox->summary->{sign_ins}, 1 + $rounds, 'by the summary too');
}

sub two_databases
{
	$sandbox->clear_journal;
	$node->safe_psql('postgres', 'CREATE DATABASE second');
	$node->start_hubex($sandbox, database => 'second', server => 'its_own_name');
	$node->safe_psql('second', q{SELECT hubex_request('GET', '/WORK/TaskTypes'); SELECT hubex_create_task(1, 'from the second')});
	$created++;
	eventually { @{ $sandbox->tasks } - $seeded == $created } 'both databases are served';
	is(scalar sign_ins(), 0, 'with one token');
	$node->safe_psql('postgres', 'DROP DATABASE second');
}

sub signer_goes
{
	for my $end (qw(pg_cancel_backend pg_terminate_backend))
	{
		$sandbox->clear_journal;
		$sandbox->expire_tokens;
		$sandbox->fault(method => 'POST', path => $SIGN_IN, fault => 'hang', times => 1);
		my @sessions = map { Hubex::Session->new($node) } 1 .. 4;
		my $pid = $sessions[0]->backend;
		$sessions[0]->send(q{SELECT (hubex_request('GET', '/WORK/TaskTypes')).status});
		eventually { sign_ins() } 'one signs in, and gets no answer';
		$_->send(q{SELECT (hubex_request('GET', '/WORK/TaskTypes')).status}) for @sessions[ 1 .. 3 ];
		create_some(1);
		$node->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%hubex_request%' AND pid <> pg_backend_pid()}, 4, 'others wait for it');
		my $gone = time;
		is($node->safe_psql('postgres', "SELECT $end($pid)"), 't', $end);
		is_deeply([ map { $_->finish } @sessions[ 1 .. 3 ] ], [ (200) x 3 ], 'the others go on');
		cmp_ok(time - $gone, '<', 15, sprintf 'at once: %.2f s', time - $gone);
		is(scalar sign_ins(), 2, 'with one more sign-in');
		all_delivered();
	}
}

# ---- sign-ins that fail ----

# An attempt made now; gives its SQLSTATE, and looks that the secret is not told.
sub ask
{
	my ($session) = @_;
	my $answer = $session->query(q{SELECT (hubex_request('GET', '/WORK/TaskTypes')).status});
	unlike($answer, qr/sandbox-service-token|wrong-token/, 'no secret is told');
	return $answer =~ /ERROR:  (\w{5}):/ ? $1 : $answer;
}

sub wrong_token
{
	my $session = Hubex::Session->new($node);
	$sandbox->clear_journal;
	$session->query(q{ALTER USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (SET service_token 'wrong-token')});
	is(ask($session), '28000', 'hubex_request: invalid authorization');
	is(scalar sign_ins(), 1, 'after one sign-in');

	create_some(40);
	my $since = time;
	eventually { sign_ins() >= 3 } 'requests wait and are tried again';
	my $seconds = time - $since;
	my $tries = sign_ins() - 1;
	cmp_ok($tries, '<=', 2 + $seconds / 4, sprintf '%d sign-ins for 40 requests in %.1f s', $tries, $seconds);
	is_deeply([ grep { $_->{path} ne $SIGN_IN } @{ $sandbox->journal } ], [], 'nothing else is asked');
	is($node->safe_psql('postgres', q{SELECT DISTINCT state FROM hubex.outbox WHERE state <> 'delivered'}), 'waiting', 'all wait');
	my @errors = split /\n/, $node->safe_psql('postgres', q{SELECT DISTINCT regexp_replace(last_error, ' \(trace [^)]*\)', '') FROM hubex.outbox WHERE state = 'waiting' AND last_error IS NOT NULL});
	is(@errors, 1, 'with one reason');
	like($errors[0], qr/sign-in.*401.*InvalidServiceToken/, "which is clear: $errors[0]");
	unlike($errors[0], qr/wrong-token/, 'and tells no secret');

	my @many = map { Hubex::Session->new($node) } 1 .. 8;
	my $before = sign_ins();
	$_->send(q{SELECT hubex_request('GET', '/WORK/TaskTypes')}) for @many;
	is((grep { $_->finish =~ /28000/ } @many), 8, 'eight at once: all are told so');
	cmp_ok(sign_ins() - $before, '<=', 9, 'none asks more than once: ' . (sign_ins() - $before));

	$session->query(q{ALTER USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (SET service_token '} . $sandbox->service_token . q{')});
	my $mended = time;
	is(ask($session), 200, 'the right token: hubex_request at once');
	all_delivered(20);
	note sprintf 'delivered %.1f s after ALTER USER MAPPING', time - $mended;

	# The remote side changes it, and back.
	$sandbox->config(service_token => 'another');
	$sandbox->expire_tokens;
	is(ask($session), '28000', 'the remote side changes it');
	$sandbox->config(service_token => $sandbox->service_token);
	is(ask($session), 200, 'and back');
}

sub no_mapping
{
	my $session = Hubex::Session->new($node);
	my $what_to_do = qr/ERROR:  28000: no credentials .*HINT:  CREATE USER MAPPING/s;

	# One that waits already when the mapping goes.
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 503, times => 1000);
	create_some(3);
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state = 'waiting' AND last_status = 503}, 3, 'requests wait');
	$session->query('DROP USER MAPPING FOR PUBLIC SERVER fsm');
	$sandbox->clear_faults;
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state = 'waiting' AND last_error ~ 'no credentials .* CREATE USER MAPPING'}, 3, 'and say what is missing');
	$sandbox->clear_journal;
	like($session->query(q{SELECT hubex_request('GET', '/WORK/TaskTypes')}), $what_to_do, 'hubex_request says what to do');
	like($session->query(q{SELECT hubex_create_task(1, 'x')}), $what_to_do, 'hubex_create_task too');
	is(@{ $sandbox->journal }, 0, 'nothing is asked');
	$session->query(q{CREATE USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (service_token '} . $sandbox->service_token . q{')});
	all_delivered();
}

sub failing_sign_ins
{
	my $session = Hubex::Session->new($node);
	$session->query(q{ALTER SERVER fsm OPTIONS (ADD timeout '1s')});
	my $made = sub { return (fault => 'status_after', status => 201, body => $_[0]) };
	for my $case (
		[ 'hangs', '08006', fault => 'hang' ], [ 'is dropped', '08006', fault => 'drop_after' ],
		[ 'is 500', qr/^(HV|08)/, fault => 'status', status => 500 ], [ 'is 503', qr/^(HV|08|53)/, fault => 'status', status => 503 ],
		[ 'is 429', qr/^(HV|08|53)/, fault => 'throttle' ], [ 'is 403', '28000', fault => 'status', status => 403 ],
		[ 'is cut off', '08006', fault => 'truncate' ], [ 'is no JSON', qr/^(HV|08P01|28000)/, fault => 'not_json' ], [ 'is half JSON', qr/^(HV|08P01|28000)/, fault => 'bad_json' ],
		(map { [ "is $_->[0]", qr/^(HV|08P01|28000)/, $made->($_->[1]) ] }
			[ 'an empty object', {} ], [ 'an array', [ 1 ] ], [ 'a number', 5 ], [ 'no body', '' ], [ 'without a token', { expires_in => 1800 } ],
			[ 'a null token', { access_token => undef } ], [ 'an empty token', { access_token => '' } ], [ 'a token of two lines', { access_token => "a\r\nX-Evil: 1" } ],
			[ 'a huge token', { access_token => 'x' x 1_000_000 } ], [ 'an object for a token', { access_token => { a => 1 } } ]))
	{
		my ($what, $code, %fault) = @$case;
		$sandbox->clear_journal;
		$sandbox->clear_faults;
		$sandbox->expire_tokens;
		my $fault = $sandbox->fault(method => 'POST', path => $SIGN_IN, times => 1000, %fault);
		my $got = ask($session);
		ref $code ? like($got, $code, "the answer $what: hubex_request gets $got") : is($got, $code, "the answer $what");
		$sandbox->clear_faults;
		$sandbox->expire_tokens;
		is(ask($session), 200, ' then it works again');
	}

	# The worker.
	$sandbox->expire_tokens;
	$sandbox->fault(method => 'POST', path => $SIGN_IN, fault => 'not_json');
	create_some(10);
	all_delivered();

	# Lives that are none.
	for my $life (-1, 0, '"soon"', 1e18, 9e15, 1e12, 'null', '{}')
	{
		$sandbox->clear_journal;
		$sandbox->fault(method => 'GET', path => '/WORK/TaskTypes', fault => 'status', status => 401);
		$sandbox->fault(method => 'GET', path => '/WORK/TaskTypes', fault => 'status', status => 200, body => [], times => 1000);
		$sandbox->fault(method => 'POST', path => $SIGN_IN, fault => 'status_after', status => 201, times => 1000,
			body => { access_token => 'made-up', expires_in => JSON::PP->new->allow_nonref->decode($life) });
		is($session->query(q{SET statement_timeout = '5s'; SELECT count(hubex_request('GET', '/WORK/TaskTypes')) FROM generate_series(1, 5)}), 5, "a life of $life: requests are made");
		my $sign_ins = () = sign_ins();
		ok($sign_ins == 1 || $sign_ins == 2, " with few sign-ins: $sign_ins");
		$sandbox->clear_faults;
	}
}
