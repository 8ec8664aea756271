#!/usr/bin/perl
# Does delivery keep its pace when the outbox is long, and when an old snapshot keeps what is dead from being removed?

use strict;
use warnings;

use Bench;
use Hubex::Client;
use List::Util qw(min);
use Test::More;

my $n = min(option('N'), 5_000);
my $waiting = option('WAITING');
my $window = min(10, 20 * option('MINUTES'));    # seconds of the steady load that are compared
my $bench = Bench->new;
my $peer = Bench::Peer->nginx;
$bench->server($_, $peer) for qw(fast other);
my $can_pause = $bench->query(q(SELECT count(*) FROM pg_proc WHERE proname = 'hubex_pause'));

report('## Behind a long queue, and under an old snapshot');
report('');
report(sprintf 'Deliveries per second of %s calls with %s rows in the way; medians of %d rounds, ratios to the rounds with none in the way, before and after; below 1 is worse.',
	thousands($n), thousands($waiting), option('ROUNDS'));
report('');
report('| in the way | deliveries per second (least-most) | ratio | CPU of the worker, 1,000 deliveries | ratio |');
report('| --- | --- | --- | --- | --- |');

my @base = rounds();
my %behind = (
	'due tomorrow' => [ behind(q('fast', deliver_after => now() + interval '1 day')) ],
	'one ordering key, whose first is due tomorrow' => [
		behind(q('fast', ordering_key => 'key', deliver_after => now() + interval '1 day'), q(next_attempt_at = now())) ],
	$can_pause
	? ('of another server, which is paused' => [ behind(q('other'), undef, q(SELECT hubex_pause('other'))) ])
	: ());
$bench->reset;
push @base, rounds();
line('none', @base);
line($_, @{ $behind{$_} }) for sort keys %behind;
report('');
snapshot(500, 60 * option('MINUTES'));
report('');
$bench->end;
ok(1, 'measured');
done_testing;

# The middle of what rounds tell.
sub middle
{
	my ($what, @rounds) = @_;
	return median(map { $_->{$what} } @rounds);
}

sub line
{
	my ($what, @rounds) = @_;
	report(!@rounds ? "| $what | not delivered in time | 0 | | |" : sprintf '| %s | %s (%s) | %s | %.0f ms | %s |', $what,
		thousands(middle('rate', @rounds)), spread(map { $_->{rate} } @rounds), ratio(middle('rate', @rounds), middle('rate', @base)),
		1000 * middle('deliver_cpu', @rounds), ratio(middle('deliver_cpu', @base), middle('deliver_cpu', @rounds)));
	return;
}

# The first round warms up.
sub rounds
{
	my @rounds = map { $bench->round($peer, $bench->calls('fast', $n), $n) } 0 .. option('ROUNDS');
	return @rounds[ 1 .. $#rounds ];
}

# Rounds with many waiting rows, copies of one that is enqueued with some arguments, in which something is changed.
# None, if they do not come in time: that is a figure, too.
sub behind
{
	my ($arguments, $change, $first) = @_;
	$bench->reset;
	$bench->query($first) if $first;
	my $id = $bench->query("SELECT hubex_enqueue('POST', '/call/never', server => $arguments)");
	$bench->copy($id, $waiting - 1, $change);
	$bench->query('VACUUM ANALYZE hubex.outbox');
	$bench->query('CHECKPOINT');
	my @rounds;
	eval { @rounds = rounds(); 1 } or note $@;
	$bench->release;
	return @rounds;
}

# A steady load, at first without and then with a snapshot that sees everything; what a delivery costs at both ends.
sub snapshot
{
	my ($rate, $seconds) = @_;
	$bench->reset;
	$peer->forget;
	$bench->query('CREATE SEQUENCE number');
	my $before = steady($rate, $window);

	my $reader = Hubex::Client->new($bench->node);
	$reader->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hubex.outbox');
	steady($rate, $seconds);
	my $after = steady($rate, $window);
	my $sent = $bench->query(q(SELECT count(*) FROM hubex.outbox));
	$peer->wait_for($sent);
	$peer->must_have(split /\n/, $bench->query('SELECT path FROM hubex.outbox'));
	my @burst = rounds();
	$reader->end;

	report(sprintf 'A REPEATABLE READ snapshot held for %.1f minutes of %d/s (%s requests):', $seconds / 60, $rate, thousands($sent));
	report('');
	report('| | before | with the snapshot, at the end | ratio |');
	report('| --- | --- | --- | --- |');
	report(sprintf '| CPU of the worker, 1,000 deliveries | %.0f ms | %.0f ms | %s |', $before, $after, ratio($before, $after));
	report(sprintf '| deliveries per second, %s at once | %s | %s | %s |',
		thousands($n), thousands(middle('rate', @base)), thousands(middle('rate', @burst)),
		ratio(middle('rate', @burst), middle('rate', @base)));
	report(sprintf '| the same: CPU of the worker, 1,000 deliveries | %.0f ms | %.0f ms | %s |',
		1000 * middle('deliver_cpu', @base), 1000 * middle('deliver_cpu', @burst),
		ratio(middle('deliver_cpu', @base), middle('deliver_cpu', @burst)));
	return;
}

# Milliseconds of the worker's CPU for 1,000 of a steady load.
sub steady
{
	my ($rate, $seconds) = @_;
	my $cpu = cpu_seconds($bench->worker);
	my $printed = $bench->pgbench(
		q(SELECT hubex_enqueue('POST', '/call/steady' || nextval('number'), body => '{"notes": "steady"}', server => 'fast');),
		rate => $rate, seconds => $seconds, clients => 2);
	my ($sent) = $printed =~ /transactions actually processed: (\d+)/;
	return 1e6 * (cpu_seconds($bench->worker) - $cpu) / $sent;
}
