# A server that does not preload hubex has all but the background: CREATE EXTENSION and hubex_wait say how to deliver,
# and CALL hubex_deliver() does it: all that is due, retries, one server, in its time, interruptibly, and in the company
# of other CALLs or of a worker without any request being sent twice. While it waits for the network it holds neither a
# snapshot nor a lock that others could wait for.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time usleep);

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', preload => 0);
my $client = Hubex::Client->new($node);
my $watch = Hubex::Client->new($node);
my $posts = { method => 'POST', path => '/WORK/Tasks' };

#
# What it says
#
my $created = $client->try('CREATE EXTENSION hubex');
is($created->{error}, undef, 'the extension can be made');
like($created->{notices}, qr/NOTICE:.*not in shared_preload_libraries.*\nHINT:.*CALL hubex_deliver\(\)/, '... and says how to deliver');
$node->start_hubex($sandbox);
my $id = enqueue($client, 'first');
my $waited = $client->try("SELECT hubex_wait($id)");
is($waited->{sqlstate}, '55000', 'there is nobody to wait for');
like($waited->{hint}, qr/CALL hubex_deliver\(\).*shared_preload_libraries/, '... and what to do about it');
like($client->query(q(SELECT hint FROM hubex_check() WHERE subject = 'delivery')), qr/CALL hubex_deliver\(\)/,
	'hubex_check says it too');

#
# Delivering
#
$client->query('CALL hubex_deliver()');
is($client->query("SELECT hubex_wait($id)"), 'delivered', 'a CALL delivers');
enqueue($client, 'bulk ', 500);
my $since = time;
$client->query('CALL hubex_deliver()');
note sprintf '500 requests took %.2f s', time - $since;
is_deeply([ times_made(qr/^bulk /) ], [ 500, 500 ], 'it delivers all that is due');
is(states(), 'delivered 501', '... and notes it');
is($client->query(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), 0, '... and keeps no lock');

$sandbox->fault(%$posts, fault => 'status', status => 503, times => 3);
enqueue($client, 'again ', 2);
my $calls = 0;
eventually { $calls++; $client->query('CALL hubex_deliver()'); states() eq 'delivered 503' } 'it retries', 30;
is_deeply([ times_made(qr/^again /) ], [ 2, 2 ], '... until done');
is(answered_with(503), 3, '... what failed');
cmp_ok($calls, '>', 2, '... in later CALLs');

#
# Its limits
#
is($client->try('BEGIN; CALL hubex_deliver()')->{sqlstate}, '2D000', 'it refuses to run inside of a transaction');
$client->query('ROLLBACK');
$client->query(q{CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL hubex_deliver(); END'});
is($client->try('SELECT f()')->{sqlstate}, '2D000', '... and inside of a function');
is($client->try(q(CALL hubex_deliver('none_such')))->{sqlstate}, '42704', '... and for a server that is not there');
is($client->try(q(CALL hubex_deliver(timeout => NULL)))->{sqlstate}, '22004', '... and without a timeout');
enqueue($client, 'in a DO block');
is($client->try(q(DO 'BEGIN CALL hubex_deliver(); END'))->{error}, undef, 'it runs in a DO block that may commit');
is_deeply([ times_made(qr/^in a DO block/) ], [ 1, 1 ], '... and delivers');

add_server('other', $sandbox->url, max_connections => 2);
enqueue($client, 'to fsm ', 3, 'fsm');
enqueue($client, 'to other ', 3, 'other');
$client->query(q(CALL hubex_deliver('other')));
is_deeply([ times_made(qr/^to /) ], [ 3, 3 ], 'one server is delivered');
is(join(' ', sort { $a cmp $b } map { $_->{request}{notes} } made(qr/^to /)), 'to other 1 to other 2 to other 3', '... the one named');
$client->query('CALL hubex_deliver()');
is_deeply([ times_made(qr/^to /) ], [ 6, 6 ], '... the rest later');

my $slow = $sandbox->fault(%$posts, fault => 'delay', seconds => 0.2, probability => 1);
enqueue($client, 'slow ', 60, 'other');    # six seconds of work
my $slow_call = $client->try(q(CALL hubex_deliver('other', '1 second')));
is($slow_call->{error}, undef, 'out of time it ends');
ok($slow_call->{took} > 0.9 && $slow_call->{took} < 2.5, '... in time') or diag $slow_call->{took};
my ($made) = times_made(qr/^slow /);
ok($made > 2 && $made < 30, '... with a part of the work done') or diag $made;
is($client->query(q(SELECT count(*) FROM hubex.outbox WHERE state = 'sending')), 0, '... and nothing in flight');
$sandbox->clear_faults;
$client->query('CALL hubex_deliver()');
is_deeply([ times_made(qr/^slow /) ], [ 60, 60 ], '... the rest later');

#
# What it holds while it waits
#
{
	my $fault = $sandbox->fault(%$posts, fault => 'hang', probability => 1);
	enqueue($client, 'watched');
	$client->send('CALL hubex_deliver()');
	in_flight($client, 'watched');
	is($watch->query('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $client->pid
			. ' AND backend_xid IS NULL AND backend_xmin IS NULL'), 1, 'while it waits it has no snapshot');
	is($watch->query(q(SELECT string_agg(coalesce(relation::regclass::text, locktype) || ' ' || mode, ', ') FROM pg_locks WHERE pid = )
			. $client->pid . q( AND locktype NOT IN ('virtualxid', 'advisory'))), '', '... and no lock on anything');
	my $altered = $watch->try(q(SET lock_timeout = '2s'; ALTER TABLE hubex.outbox SET (fillfactor = 90); RESET lock_timeout));
	is($altered->{error}, undef, '... so that nobody has to wait for it');
	cancel($client);
	is($client->answer->{sqlstate}, '57014', 'it is cancelled');
	$sandbox->clear_faults($fault);
	$client->query('CALL hubex_deliver()');
	is_deeply([ times_made(qr/^watched/) ], [ 1, 1 ], 'what was in flight is delivered by the next');
}

#
# Ctrl-C
#
for my $case (
	[ 'hang', $posts->{path}, 'a request that is not done' ],
	[ 'hang_after', $posts->{path}, 'a request that is done' ],
	[ 'hang', '/AUTHZ/AccessTokens', 'the sign-in' ])
{
	my ($fault, $path, $what) = @$case;
	my @times;
	for my $n (1 .. 5)
	{
		my $notes = "$fault $what $n";
		my $number = $sandbox->fault(method => 'POST', path => $path, fault => $fault, probability => 1);
		$sandbox->expire_tokens if $path =~ /AUTHZ/;
		$sandbox->clear_journal;
		enqueue($client, $notes);
		$client->send('CALL hubex_deliver()');
		in_flight($client, $path =~ /AUTHZ/ ? 'serviceToken' : $notes);
		my $since = time;
		cancel($client);
		my $answer = $client->answer;
		push @times, $answer->{at} - $since;
		$sandbox->clear_faults($number);
		if ($n == 1)
		{
			is($answer->{sqlstate}, '57014', "Ctrl-C ends a CALL that waits for $what");
			is($client->query(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1)), 'sending', '... and leaves it in flight');
		}
		$client->query(q(SET statement_timeout = '10s'));
		my $next = ($n % 2 ? $client : $watch)->try('CALL hubex_deliver()');
		$client->query(q(RESET statement_timeout));
		is($next->{error}, undef, '... the next CALL takes it up') if $n < 3 || $next->{error};
		is_deeply([ times_made(qr/^\Q$notes\E$/) ], [ 1, 1 ], '... and it is made once');
	}
	@times = sort { $a <=> $b } @times;
	ok($times[2] < 0.1, 'all that within 100 ms') or diag "@times";
	note join ' ', map { sprintf '%.1f ms', 1000 * $_ } @times;
}
is($client->query(q(SELECT status FROM hubex_request('GET', '/WORK/Tasks', server => 'fsm'))), 200,
	'the session can do other things');

{
	my $number = $sandbox->fault(%$posts, fault => 'hang', probability => 1);
	enqueue($client, 'out of time');
	$client->query(q(SET statement_timeout = '300 ms'));
	my $answer = $client->try('CALL hubex_deliver()');
	$client->query('RESET statement_timeout');
	is($answer->{sqlstate}, '57014', 'statement_timeout ends it');
	cmp_ok($answer->{took}, '<', 10, '... in time');

	my $victim = Hubex::Client->new($node);
	$sandbox->clear_journal;
	$victim->send('CALL hubex_deliver()');
	in_flight($victim, 'out of time');
	$watch->query('SELECT pg_terminate_backend(' . $victim->pid . ')');
	is($victim->answer->{sqlstate}, '57P01', 'so does the end of the session');
	$sandbox->clear_faults($number);
	$client->query('CALL hubex_deliver()');
	is_deeply([ times_made(qr/^out of time/) ], [ 1, 1 ], '... and what it left is delivered once');
}

# sockets, wait event sets: all go with the CALL
{
	$client->query('CALL hubex_deliver()');
	my $before = descriptors($client);
	for (1 .. 10)
	{
		enqueue($client, 'many');
		$client->query('CALL hubex_deliver()');
	}
	is(descriptors($client), $before, 'ten CALLs leave no descriptor behind');
}

#
# In company
#
{
	my @clients = map { Hubex::Client->new($node) } 1 .. 3;
	enqueue($client, 'for three ', 300);
	$_->send('CALL hubex_deliver()') for @clients;
	is_deeply([ map { $_->answer->{error} } @clients ], [ undef, undef, undef ], 'three CALLs at once');
	is_deeply([ times_made(qr/^for three /) ], [ 300, 300 ], '... deliver all, each once');
	is(answered_with(409), 0, '... without one being sent twice');
}
$node->stop;

my $preloaded = Hubex::Node->new('preloaded');
$preloaded->start_hubex($sandbox);
$client = Hubex::Client->new($preloaded);
$watch = Hubex::Client->new($preloaded);
$preloaded->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'a server with a worker', 10);
for my $round (1 .. 3)
{
	enqueue($client, "beside a worker $round ", 200);
	is($client->try('CALL hubex_deliver()')->{error}, undef, 'a CALL beside a worker');
	$preloaded->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, '... and all is delivered', 15);
	is_deeply([ times_made(qr/^beside a worker $round /) ], [ 200, 200 ], '... each once');
}
is(answered_with(409), 0, '... without one being sent twice');

# A CALL that is interrupted in its sign-in leaves the sign-in to the others.
{
	my $number = $sandbox->fault(path => '/AUTHZ/AccessTokens', fault => 'hang', probability => 1);
	$sandbox->expire_tokens;
	my $worker = $client->query('SELECT pid FROM hubex.worker_state()');
	kill 'STOP', $worker;    # so that the CALL is the one to sign in
	enqueue($client, 'interrupted in the sign-in');
	$client->send('CALL hubex_deliver()');
	in_flight($client, 'serviceToken');
	cancel($client);
	is($client->answer->{sqlstate}, '57014', 'a CALL that signs in for all is cancelled');
	$sandbox->clear_faults($number);
	$watch->query(q(SET statement_timeout = '5s'));
	is($watch->try(q(SELECT status FROM hubex_request('GET', '/WORK/Tasks')))->{rows}, 200, '... and the next signs in');
	kill 'CONT', $worker;
	$preloaded->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, '... and all is delivered', 15);
	is_deeply([ times_made(qr/^interrupted in the sign-in/) ], [ 1, 1 ], '... once');
}
done_testing;

sub add_server
{
	my ($name, $url, %option) = @_;
	%option = (connector => 'hubex', url => $url, rate_limit => 'none', %option);
	my $options = join ', ', map { "$_ '$option{$_}'" } sort keys %option;
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (service_token 'sandbox-service-token');});
}

# Enqueues one request with these notes, or several with numbered ones.
sub enqueue
{
	my ($who, $notes, $count, $server) = @_;
	$server //= 'fsm';
	return $who->query("SELECT hubex_create_task(1, '$notes', server => '$server')") unless $count;
	return $who->query("SELECT count(hubex_create_task(1, '$notes' || n, server => '$server')) FROM generate_series(1, $count) n");
}

sub made
{
	my ($pattern) = @_;
	return grep { ($_->{request}{notes} // '') =~ $pattern } @{ $sandbox->tasks };
}

# How many tasks with such notes there are, and with how many different notes.
sub times_made
{
	my %notes = map { $_->{request}{notes} => 1 } my @made = made(@_);
	return (scalar @made, scalar keys %notes);
}

sub answered_with
{
	my ($status) = @_;
	return scalar grep { ($_->{status} // 0) == $status } @{ $sandbox->journal(%$posts) };
}

sub states { return $client->query(q(SELECT string_agg(state || ' ' || n, ', ') FROM (SELECT state, count(*) n FROM hubex.outbox GROUP BY 1) s)) }

# A request of the client with this text in its body has reached the sandbox, which does not answer.
sub in_flight
{
	my ($who, $text) = @_;
	my $deadline = time + 20;
	until (grep { !defined $_->{finished} && ($_->{body} // '') =~ /\Q$text\E/ } @{ $sandbox->journal(method => 'POST') })
	{
		die "nothing is in flight\n" if time > $deadline;
		usleep 5_000;
	}
}

sub cancel { return $watch->query('SELECT pg_cancel_backend(' . $_[0]->pid . ')') }

sub descriptors { return scalar(() = glob '/proc/' . $_[0]->pid . '/fd/*') }
