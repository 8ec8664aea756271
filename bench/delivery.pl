#!/usr/bin/perl
# How many requests a second are delivered, and what one costs, beside a plain program over libcurl that sends the same
# requests, as many at a time, and keeps nothing.

use strict;
use warnings;

use Bench;
use Test::More;

my $n = option('N');
my $bench = Bench->new;

report('## Deliveries per second');
report('');
report(sprintf 'fsync on; %s requests that wait in the outbox when the worker begins, until the last is recorded as delivered; '
	  . 'medians of %d alternating rounds. The plain program keeps nothing.', thousands($n), option('ROUNDS'));
report('');
report('| peer | requests | at a time | hubex (least-most) | libcurl (least-most) | ratio |');
report('| --- | --- | --- | --- | --- | --- |');

my (%cost, %bytes);
compare('at once', Bench::Peer->nginx, 'fast', option('CONCURRENCY'), 'calls', 'creates');
compare('after 20 ms', Bench::Peer->slow(20), 'slow', 2 * option('CONCURRENCY'), 'calls', 'creates');

report('');
report('## Cost of 1,000 requests');
report('');
report('| requests | enqueueing: CPU, WAL | delivering: CPU, WAL | libcurl: CPU | bytes of a request: hubex, libcurl |');
report('| --- | --- | --- | --- | --- |');
for my $kind ('calls', 'creates')
{
	my ($hubex, $plain) = @{ $cost{$kind} }{qw(hubex libcurl)};
	report(sprintf '| %s | %.1f ms, %.0f kB | %.1f ms, %.0f kB | %.1f ms | %.0f, %.0f |', $kind,
		1000 * middle($hubex, 'enqueue_cpu'), middle($hubex, 'enqueue_wal') / 1024,
		1000 * middle($hubex, 'deliver_cpu'), middle($hubex, 'deliver_wal') / 1024,
		1000 * middle($plain, 'cpu'), @{ $bytes{$kind} });
}
report('');
report(sprintf 'Peak memory of the worker (VmHWM), shared buffers it touched included: %.0f MB.', $bench->peak_memory);
report('');
$bench->end;
ok(1, 'measured');
done_testing;

sub middle
{
	my ($rounds, $what) = @_;
	return median(map { $_->{$what} } @$rounds);
}

sub compare
{
	my ($answers, $peer, $server, $concurrency, @kinds) = @_;
	$bench->server($server, $peer, max_connections => $concurrency);
	for my $kind (@kinds)
	{
		my $got = alternate(
			hubex => sub {
				$bench->reset;
				return $bench->round($peer, $bench->$kind($server, $n), $n);
			},
			libcurl => sub { return $bench->curl_multi($peer, $kind, $n, $concurrency) });
		my @hubex = map { $_->{rate} } @{ $got->{hubex} };
		my @plain = map { $_->{rate} } @{ $got->{libcurl} };
		report(sprintf '| %s | %s | %d | %s (%s) | %s (%s) | %s |', $answers, $kind, $concurrency,
			thousands(median(@hubex)), spread(@hubex), thousands(median(@plain)), spread(@plain),
			ratio(median(@hubex), median(@plain)));
		$cost{$kind} //= $got;
		$bytes{$kind} = [ map { middle($got->{$_}, 'bytes') } qw(hubex libcurl) ];    # nginx leaves bodies out
	}
	return;
}
