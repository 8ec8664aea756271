#!/usr/bin/perl
# How long after COMMIT does the request reach HubEx, on an idle machine?
#
# One row at a time is committed, each after the one before was delivered. The moment of the commit is taken by the
# client when COMMIT has returned (so the figure is slightly too small) and, as an upper bound, just before it was
# sent; the moment of arrival is the sandbox's own, when a request's headers are there. fsync is on.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{ROUNDS} || 200;
my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('bench', fsync => 1);
$node->start_hubex($sandbox);

my $session = $node->background_psql('postgres');
my (@after, @before);
for my $n (-9 .. $rounds)
{
	$session->query_safe("BEGIN; SELECT hubex_create_task(1, 'bench', erp_id => 'bench$n')");
	my $sent = time;
	$session->query_safe('COMMIT');
	my $committed = time;
	my $entry;
	until ($entry && defined $entry->{status})
	{
		($entry) = grep { ($_->{body} // '') =~ /"bench$n"/ } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
	}
	$sandbox->clear_journal;
	$node->poll_query_until('postgres', "SELECT state = 'delivered' FROM hubex.outbox WHERE natural_key = 'bench$n'");
	next if $n < 1;    # the first ones warm up
	push @after, 1000 * ($entry->{time} - $committed);
	push @before, 1000 * ($entry->{time} - $sent);
}
$session->quit;

sub percentile
{
	my ($share, @values) = @_;
	@values = sort { $a <=> $b } @values;
	return $values[ int($share * $#values) ];
}

note sprintf "commit to wire, %d rounds, ms: after COMMIT returned  median %.1f  p95 %.1f  p99 %.1f", $rounds,
  map { percentile($_, @after) } .5, .95, .99;
note sprintf "commit to wire, %d rounds, ms: after COMMIT was sent   median %.1f  p95 %.1f  p99 %.1f", $rounds,
  map { percentile($_, @before) } .5, .95, .99;
ok(1, 'measured');
done_testing;
