#!/usr/bin/perl
# How long after COMMIT does a request reach the remote system: on an idle server, under a steady load, and behind a
# request that takes long?
#
# The moment of arrival is the peer's own, when all of a request is there. The moment of the commit is that of its
# record in the WAL, before it was flushed (track_commit_timestamp): so its fsync is part of the figure. On the idle
# server it is also counted from when the client had COMMIT's answer.

use strict;
use warnings;

use Bench;
use Hubex::Client;
use Test::More;
use Time::HiRes qw(time);

my $bench = Bench->new(track_commit_timestamp => 'on');
my $peer = Bench::Peer->slow(0);
$bench->server('fast', $peer);
$bench->query(
	q(CREATE SEQUENCE number;
	CREATE TABLE sent (path text);
	CREATE FUNCTION send(path text) RETURNS void BEGIN ATOMIC
		INSERT INTO sent VALUES (path);
		SELECT hubex_enqueue('POST', path, body => '{"notes": "from commit to wire"}', server => 'fast');
	END;));

report('## From commit to wire');
report('');
report('| | requests | median | p95 | p99 |');
report('| --- | --- | --- | --- | --- |');
idle(option('ROUNDS') * 40);
steady(200, 4 * option('ROUNDS'));
behind_a_slow_one(50, 4);
report('');
$bench->end;
ok(1, 'measured');
done_testing;

sub row
{
	my ($what, @milliseconds) = @_;
	report(sprintf '| %s | %d | %.1f ms | %.1f ms | %.1f ms |',
		$what, scalar @milliseconds, map { percentile($_, @milliseconds) } .5, .95, .99);
	return;
}

# From the commits of what is in the table sent, by their records, to their arrivals.
sub since_commit
{
	my %arrived = map { $_->{id} => $_->{arrived} } $peer->entries;
	my @sent = map { [ split /\|/ ] } split /\n/,
	  $bench->query('SELECT path, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM sent');
	$peer->must_have(map { $_->[0] } @sent);
	return map { 1000 * ($arrived{ $_->[0] } - $_->[1]) } @sent;
}

sub forget
{
	$peer->forget;
	$bench->query('TRUNCATE sent');
	return;
}

# One at a time, each after the one before was recorded as delivered.
sub idle
{
	my ($rounds) = @_;
	my $client = Hubex::Client->new($bench->node);
	my (@returned, %returned);
	for my $n (-9 .. $rounds)
	{
		forget() if $n == 1;    # the first ones warm up
		my $path = "/call/idle$n";
		$client->query("BEGIN; SELECT send('$path')");
		$client->query('COMMIT');
		$returned{$path} = time;
		poll { $bench->query("SELECT state FROM hubex.outbox WHERE path = '$path'") eq 'delivered' } 'it is delivered';
	}
	$client->end;
	$peer->wait_for($rounds);
	my @since = since_commit();
	row('idle, one at a time, since the commit record', @since);
	row('the same, since COMMIT had returned', map { 1000 * ($_->{arrived} - $returned{ $_->{id} }) } $peer->entries);
	return;
}

sub steady
{
	my ($rate, $seconds) = @_;
	forget();
	$bench->pgbench(q(SELECT send('/call/steady' || nextval('number'));), rate => $rate, seconds => $seconds, clients => 2);
	$peer->wait_for($bench->query('SELECT count(*) FROM sent'));
	row("under $rate/s", since_commit());
	return;
}

# All of some that are committed while a slow one is under way: the time is that of the last of them.
sub behind_a_slow_one
{
	my ($n, $seconds) = @_;
	my @last;
	for my $round (1 .. option('ROUNDS'))
	{
		forget();
		$bench->query(sprintf q(SELECT send('/after/%d/call/slow%d')), 1000 * $seconds, $round);
		poll
		{
			$bench->query("SELECT state FROM hubex.outbox WHERE path LIKE '%/slow$round'") eq 'sending';
		}
		'the slow one is under way';
		$bench->query("SELECT send('/call/behind${round}_' || n) FROM generate_series(1, $n) n");
		$peer->wait_for(1 + $n);
		my @since = sort { $a <=> $b } since_commit();
		die "the slow one was not slow\n" if percentile(1, map { 1000 * ($_->{answered} - $_->{arrived}) } $peer->entries) < 1000 * $seconds;
		push @last, $since[-1];
	}
	row("the last of $n behind one that takes $seconds s", @last);
	return;
}
