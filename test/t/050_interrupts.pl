# A backend is never stuck: a cancel, a statement_timeout and the end of the session reach it within 100 ms, whatever
# the remote side does not do - accept, shake hands, answer, finish the answer, sign in - and whatever else hubex waits
# for: the quota, the sign-in of another process, a request in the outbox. The session is as good as before then and
# has lost no file descriptor. The times are the client's: from the cancel to the error in its hands. The median of
# several tries counts, so that one hiccup of a busy machine does not.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Client;
use Test::More;
use Time::HiRes qw(time usleep);

my $limit = 0.1;
my $tries = 7;

my $sandbox = Hubex::Sandbox->new(tasks => 20);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
my %hang = map { $_ => Hubex::Sandbox->hang($_) } qw(connect tls headers body);
add_server("at_$_", $hang{$_}->url) for sort keys %hang;

my $session = Hubex::Client->new($node);
my $watch = Hubex::Client->new($node);
my $request = q(SELECT status FROM hubex_request('GET', '/WORK/Tasks', server => '%s'));
my $tasks = q(SELECT count(*) FROM hubex_tasks(server => '%s'));
is($session->query(sprintf $request, 'fsm'), 200, 'the sandbox can be spoken to');
my $there = $session->query(sprintf $tasks, 'fsm');

#
# A peer that stops in the middle
#
for my $mode (qw(connect tls headers body))
{
	interrupted("a call that hangs at $mode", $session, sprintf($request, "at_$mode"));
	interrupted("a list that hangs at $mode", $session, sprintf($tasks, "at_$mode"));
}
$session->query('CREATE SCHEMA far; IMPORT FOREIGN SCHEMA "WORK" FROM SERVER at_body INTO far');
interrupted('a foreign table that hangs at body', $session, 'SELECT count(*) FROM far.tasks');
is($session->query(sprintf $tasks, 'fsm'), $there, 'the session goes on');

#
# The sandbox that answers some requests and not others
#
for my $path ('/AUTHZ/AccessTokens', '/WORK/Tasks')
{
	my $fault = $sandbox->fault(path => $path, fault => 'hang', probability => 1);
	my $stage = $path =~ /AUTHZ/ ? 'sign-in' : 'request';
	interrupted("a call that hangs in the $stage",
		$session, sprintf($request, 'fsm'), before => sub { $sandbox->expire_tokens });
	$sandbox->clear_faults($fault);
	is($session->query(sprintf $request, 'fsm'), 200, "the next $stage is none the worse for it");
}

#
# Another process signs in
#
{
	my $other = Hubex::Client->new($node);
	my $fault = $sandbox->fault(path => '/AUTHZ/AccessTokens', fault => 'hang', probability => 1);
	$sandbox->expire_tokens;
	$other->send(sprintf $request, 'fsm');
	eventually { signing_in() == 1 } 'one process signs in';
	interrupted('a call that waits for the sign-in of another', $session, sprintf($request, 'fsm'));
	is(signing_in(), 1, 'it did not sign in itself');

	cancel($other);
	is($other->answer->{sqlstate}, '57014', 'the sign-in is cancelled too');
	$sandbox->clear_faults($fault);
	is($session->query(sprintf $request, 'fsm'), 200, 'who comes next signs in');
}

#
# The quota
#
add_server('slow', $sandbox->url =~ s/127\.0\.0\.1/localhost/r, rate_limit => '1/min');    # another account
interrupted('a call that waits for the quota', $session, sprintf($request, 'slow'));

#
# A request in the outbox
#
{
	my $fault = $sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'hang', probability => 1);
	my $id = $session->query(q(SELECT hubex_create_task(1, 'hangs', server => 'fsm')));
	eventually { @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') } } 'the worker sends it';
	interrupted('hubex_wait', $session, "SELECT hubex_wait($id)");

	my $waited = $session->try("SELECT hubex_wait($id, '300 ms')");
	ok($waited->{rows} eq 'sending' && $waited->{took} > 0.25 && $waited->{took} < 0.6,
		'hubex_wait keeps its own timeout') or diag explain $waited;
	$sandbox->clear_faults($fault);
}

#
# The end of the session
#
for my $mode (qw(connect body))
{
	my @times;
	for (1 .. 5)
	{
		my $victim = Hubex::Client->new($node);
		$victim->send(sprintf $request, "at_$mode");
		hangs($victim);
		my $since = time;
		$watch->query('SELECT pg_terminate_backend(' . $victim->pid . ')');
		my $answer = $victim->answer;
		push @times, $answer->{at} - $since;
		is($answer->{sqlstate}, '57P01', "the session that hangs at $mode is told to end") if @times == 1;
	}
	in_time("pg_terminate_backend at $mode", @times);
}

#
# What is left behind
#
{
	my $before = descriptors($session);
	for my $n (1 .. 52)
	{
		my $mode = (qw(connect tls headers body))[ $n % 4 ];
		$session->send(sprintf $request, "at_$mode");
		hangs($session);
		cancel($session);
		$session->answer;
	}
	is(descriptors($session), $before, 'no descriptor is left of 52 cancelled calls');
	is($session->query(sprintf $tasks, 'fsm'), $there, 'and the session works');
	is($session->query('SELECT pg_backend_pid()'), $session->pid, 'it is the one it was');
}

#
# The options that end what nobody does
#
{
	my %stage = (connect => 'connect', tls => 'TLS', headers => 'answer', body => 'body');
	for my $mode (sort keys %stage)
	{
		my $option = $mode =~ /connect|tls/ ? 'connect_timeout' : 'timeout';
		add_server("short_$mode", $hang{$mode}->url, $option => '300ms');
		my $answer = $session->try(sprintf $request, "short_$mode");
		is($answer->{sqlstate}, '08006', "$option ends what hangs at $mode");
		like($answer->{detail}, qr/\bstep was "$stage{$mode}"/, '... and says where it hung');
		cmp_ok($answer->{took}, '>=', 0.29, '... not before its time');
		cmp_ok($answer->{took}, '<', 10, '... and not long after');
	}

	add_server('nobody', 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . '/fsm');
	my $answer = $session->try(sprintf $request, 'nobody');
	is($answer->{sqlstate}, '08001', 'nobody listens: the connection failed');
	like($answer->{detail}, qr/\bstep was "connect"/, '... and says so');
}

# what hangs for ever must not keep the server from stopping
my $since = time;
$node->stop('fast');
cmp_ok(time - $since, '<', 3, 'the server stops');
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

# The session waits, and not for its client: it is inside of hubex.
sub hangs
{
	my ($who) = @_;
	my $deadline = time + 20;
	until ($watch->query('SELECT count(*) FROM pg_stat_activity WHERE state = \'active\' AND pid = ' . $who->pid
			. q( AND wait_event_type = 'Extension')))
	{
		die "it does not hang\n" if time > $deadline;
		usleep 2_000;
	}
}

sub cancel { return $watch->query('SELECT pg_cancel_backend(' . $_[0]->pid . ')') }

sub signing_in { return scalar grep { !defined $_->{finished} } @{ $sandbox->journal(path => '/AUTHZ/AccessTokens') } }

sub descriptors { return scalar(() = glob '/proc/' . $_[0]->pid . '/fd/*') }

sub in_time
{
	my ($what, @times) = @_;
	@times = sort { $a <=> $b } @times;
	my $figures = join ' ', map { sprintf '%.1f', 1000 * $_ } @times;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($times[ $#times / 2 ] < $limit, "$what ends within 100 ms");
	note "$what: $figures ms";
}

# Cancels a query several times, then lets statement_timeout do it.
sub interrupted
{
	my ($what, $who, $sql, %option) = @_;
	my (@cancelled, @timed_out, %sqlstate);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	for (1 .. $tries)
	{
		$option{before}->() if $option{before};
		$who->send($sql);
		hangs($who);
		my $since = time;
		cancel($who);
		my $answer = $who->answer;
		$sqlstate{ $answer->{sqlstate} // $answer->{rows} }++;
		push @cancelled, $answer->{at} - $since;
	}
	for (1 .. 3)
	{
		$option{before}->() if $option{before};
		$who->query("SET statement_timeout = '150 ms'");
		my $answer = $who->try($sql);
		$who->query('RESET statement_timeout');
		$sqlstate{ $answer->{sqlstate} // $answer->{rows} }++;
		push @timed_out, $answer->{took} - 0.15;
	}
	is_deeply(\%sqlstate, { 57014 => $tries + 3 }, "$what is cancelled");
	in_time("$what, cancelled,", @cancelled);
	in_time("$what, out of time,", @timed_out);
}
