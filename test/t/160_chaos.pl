# A short chaos run: clients change rows while every kind of fault happens to answers and to processes. Every committed
# change arrives, once and in order. `make chaos` is the long form. HUBEX_SEED repeats what happened, though not which
# request it hit.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../chaos";

use Hubex::Node;
use Test::More;
use Time::HiRes qw(time);

use Chaos::Judge;
use Chaos::Report;
use Chaos::Run;
use Chaos::Schedule;

subtest 'the judge sees what is wrong' => \&judge_the_judge;

my $seed = $ENV{HUBEX_SEED} // int(time * 1000) % 1_000_000;
diag "HUBEX_SEED=$seed" if $ENV{HUBEX_SEED};
my $findings = eval { Chaos::Run->new(seed => $seed, requests => 600, clients => 3)->go } // BAIL_OUT("HUBEX_SEED=$seed: $@");
note Chaos::Report::markdown($findings, seed => $seed, requests => 600, clients => 3, about => []);

cmp_ok($findings->{changes}, '>=', 600, "$findings->{changes} changes are committed (HUBEX_SEED=$seed)");
is_deeply($findings->{lost}, [], "none is lost (HUBEX_SEED=$seed)");
is_deeply($findings->{doubled}, [], 'none is doubled');
is_deeply($findings->{disordered}, [], 'no task goes back to an earlier version');
is_deeply($findings->{unfounded}, [], 'nothing is written that was not committed');
is_deeply($findings->{crashes}, [], 'no process ended but those that were killed');
is_deeply($findings->{requests}{open}, [], 'hubex knows that all is delivered') or diag explain $findings->{requests}{open};
is_deeply([ grep { !$findings->{faults}{ $_->{label} } } @Chaos::Schedule::answers ], [], 'every kind of fault happened');
my %ended = map { ($_->{kind} =~ s/ with others$//r => 1) } @{ $findings->{ends} };
is_deeply([ grep { !$ended{$_} } @Chaos::Schedule::ends ], [], 'every kind of process was ended');
diag join "\n", "HUBEX_SEED=$seed", Chaos::Report::culprits($findings) unless Test::More->builder->is_passing;
done_testing;

# A made-up run in which everything is wrong once.
sub judge_the_judge
{
	my ($n, $write) = (0, 0);
	my $change = sub { my %change = (outcome => 'committed', time => 100, person => 1, asked => 0); @change{qw(row version mark)} = @_; return \%change };
	my $wrote = sub
	{
		my ($method, $row, $version, $mark, %entry) = @_;
		return { n => ++$n, time => 100 + $n, path => '/WORK/Tasks', method => $method, fault => undef, status => 202,
			write => exists $entry{write} ? undef : ++$write, body => qq([{"field": "notes", "value": "row $row v$version by $mark"}]), %entry };
	};
	my $task = sub { return { id => 1000 + ++$n, erpID => "JOB-$_[0]", notes => "row $_[0] $_[1]", contactPerson => $_[2] // $_[1] } };
	my $findings = Chaos::Judge::judge(
		changes => [
			$change->(1, 1, 'a'), $change->(1, 2, 'b'), $change->(1, 3, 'c'),    # b comes after c
			$change->(2, 1, 'd'),    # never comes
			$change->(3, 1, 'e'), $change->(3, 2, 'f'),    # f never comes
			$change->(4, 1, 'g'),    # comes twice
			{ %{ $change->(5, 1, 'h') }, outcome => 'undone' },    # comes
			$change->(6, 1, 'i'), $change->(6, 2, 'j') ],    # j is written twice, without its person
		journal => [
			$wrote->('POST', 1, 1, 'a'), $wrote->('PATCH', 1, 3, 'c'), $wrote->('PATCH', 1, 2, 'b'),
			$wrote->('POST', 3, 1, 'e'), $wrote->('PATCH', 3, 2, 'f', write => undef, status => 500, fault => '500'),
			$wrote->('POST', 4, 1, 'g'), $wrote->('POST', 4, 1, 'g'), $wrote->('POST', 5, 1, 'h'),
			$wrote->('POST', 6, 1, 'i'), $wrote->('PATCH', 6, 2, 'j'), $wrote->('PATCH', 6, 2, 'j') ],
		tasks => [
			$task->(1, 'v2 by b'), $task->(3, 'v1 by e'), $task->(4, 'v1 by g'), $task->(4, 'v1 by g'), $task->(5, 'v1 by h'),
			$task->(6, 'v2 by j', 'v1 by i') ],
		ends => [ { kind => 'worker killed', at => 101, up => 102 } ],
		crashes => [],
		requests => { open => [], attempts => [], states => [] });
	is_deeply([ map { /^row (\d+)/ } @{ $findings->{lost} } ], [ 1, 1, 2, 3, 3, 6 ], 'lost') or diag join "\n", @{ $findings->{lost} };
	is_deeply([ map { /^JOB-(\d+)/ } @{ $findings->{doubled} } ], [4], 'doubled');
	is_deeply([ map { /^row (\d+)/ } @{ $findings->{disordered} } ], [1], 'out of order');
	is_deeply([ map { /^row (\d+)/ } @{ $findings->{unfounded} } ], [5], 'unfounded');
	is($findings->{repeated}, 2, 'repeated');
	is($findings->{ends}[0]{arrival}, 102, 'recovery');
}
