package Hubex::MirrorSteps;

=head1 NAME

Hubex::MirrorSteps - what happens in one run of the mirrors' property test, drawn from a seed

=head1 SYNOPSIS

	my $plan = Hubex::MirrorSteps::plan(7);
	print map { "$_\n" } Hubex::MirrorSteps::lines($plan);

=head1 DESCRIPTION

A plan is a hash: C<seed>; the tenant (C<tasks>, C<assets>, numbers); C<page>, records of a page; C<mirrors>, as
L<Hubex::Mirror> takes them; C<worker>, whether the worker runs them or only CALLs do; C<steps>, in order, hashes whose C<do> is
what is done (see L<Hubex::MirrorRun>).

A plan is gentle or it is not. In a gentle one nothing happens that an incremental run cannot see: no hard deletes, no
clock that is set back by more than the overlap, no list that lies. Then incremental runs alone have to bring the mirrors in
step.

=cut

use strict;
use warnings;

use Hubex::Mirror;
use JSON::PP;
use List::Util qw(max min);

use constant OVERLAP => 30;    # seconds

=head1 FUNCTIONS

=head2 plan($seed)

The same seed gives the same plan.

=head2 lines($plan)

The plan, to be read: a line for what is set up and one for each step, numbered.

=cut

# How often each kind of step is drawn; `rough` ones not in gentle plans, `crash` ones only where crashes are drawn.
my @kinds = (
	[ changes => 34 ], [ same_second => 4 ], [ fault => 16 ], [ skew => 8 ], [ wait => 24 ], [ call => 12 ], [ background_call => 8 ],
	[ cancel => 3 ], [ terminate_worker => 3 ], [ pause => 3 ], [ resume => 3 ], [ confirm => 3 ], [ alter => 5 ], [ lock => 4 ], [ unlock => 6 ],
	[ expire_tokens => 2 ], [ overtake => 5 ], [ local_change => 3, 'rough' ], [ write_here => 30, 'two_way' ], [ mass_erase => 3, 'rough' ],
	[ kill_worker => 5, 'crash' ], [ kill_caller => 3, 'crash' ], [ immediate => 4, 'crash' ], [ restart => 2, 'crash' ]);

sub plan
{
	my ($seed) = @_;
	my $random = _random($seed);
	my $gentle = $random->(100) < 45;
	my $crashes = $random->(100) < 30;
	my %plan = (seed => 0 + $seed, gentle => $gentle, tasks => 5 + $random->(60), assets => $random->(40), page => 1 + $random->(24),
		worker => $random->(100) < 75);
	$plan{mirrors} = [ _mirrors($random, \%plan) ];
	my %lists = map { (Hubex::Mirror->new('x', $_->{kind})->list => 1) } @{ $plan{mirrors} };
	$plan{lists} = [ sort keys %lists ];

	my %state = (high => 0, skew => 0, locks => 0);
	my $two_way = grep { $_->{kind} =~ /two_way/ } @{ $plan{mirrors} };
	my @drawn = grep { ($_->[2] // '') eq '' || ($_->[2] eq 'two_way' && $two_way) || ($_->[2] eq 'rough' && !$gentle) || ($_->[2] eq 'crash' && $crashes) } @kinds;
	$plan{steps} = [ map { _step($random, \%plan, \%state, _weighted($random, @drawn)) } 1 .. 8 + $random->(22) ];
	return \%plan;
}

sub lines
{
	my ($plan) = @_;
	my $json = JSON::PP->new->canonical;
	my %set_up = map { $_ => $plan->{$_} } grep { $_ ne 'steps' && $_ ne 'mirrors' } keys %$plan;
	my $n = 0;
	return ($json->encode(\%set_up), (map { 'mirror ' . $json->encode($_) } @{ $plan->{mirrors} }),
		map { $n++; my %rest = %$_; my $do = delete $rest{do}; sprintf '%3d %s %s', $n, $do, %rest ? $json->encode(\%rest) : '' } @{ $plan->{steps} });
}

sub _mirrors
{
	my ($random, $plan) = @_;
	my @all = Hubex::Mirror::kinds();
	my @mirrors;
	for my $n (1 .. 1 + $random->(3))
	{
		my $kind = splice @all, $random->(scalar @all), 1;
		@all = grep { !/two_way/ } @all if $kind =~ /two_way/;    # two that own the same would never agree
		push @mirrors, { name => "m$n", kind => $kind, overlap => OVERLAP . ' seconds', every => '1 second',
			($kind =~ /incremental/ ? () : (full_every => $random->(2) ? '1 second' : '1 day')),
			delete_limit => (0, 0.1, 0.1, 1)[ $random->(4) ] };
	}
	return @mirrors;
}

sub _step
{
	my ($random, $plan, $state, $do) = @_;
	my %step = (do => $do);
	my $mirror = sub { $plan->{mirrors}[ $random->(scalar @{ $plan->{mirrors} }) ]{name} };
	if ($do eq 'changes')
	{
		%step = (%step, _changes($random, $plan, $state, 1 + $random->($random->(4) ? 6 : 40)));
	}
	elsif ($do eq 'same_second')    # more of them than a page holds
	{
		%step = (%step, _changes($random, $plan, $state, $plan->{page} * 2 + 3), lists => ['tasks'], weights => { create => 0, delete => 1 });
		delete $step{late};
	}
	elsif ($do eq 'skew')
	{
		my $most = $plan->{gentle} ? OVERLAP - 6 : 4 * OVERLAP;
		my $to = $random->(2 * $most) - $most;
		# The newest lastModified there can be counts, whatever the clock shows later.
		$to = max($to, $state->{high} - $most) if $plan->{gentle};
		$state->{high} = max($state->{high}, $to);
		$state->{skew} = $to;
		$step{seconds} = $to;
	}
	elsif ($do eq 'fault') { $step{fault} = _fault($random, $plan, $state) }
	elsif ($do eq 'overtake') { @step{qw(mirror mode seed)} = ($mirror->(), (qw(incremental full))[ $random->(2) ], $random->(1_000_000)) }
	elsif ($do eq 'wait') { $step{requests} = 1 + $random->(8) }
	elsif ($do =~ /call$/) { @step{qw(mirror mode)} = ($mirror->(), (undef, undef, 'full', 'incremental')[ $random->(4) ]) }
	elsif ($do eq 'confirm') { $step{mirror} = $mirror->() }
	elsif ($do eq 'alter') { @step{qw(mirror what)} = ($mirror->(), (qw(add drop index type comment))[ $random->(5) ]) }
	elsif ($do eq 'lock') { @step{qw(mirror what)} = ($mirror->(), (qw(rows table))[ $random->(2) ]) }
	elsif ($do eq 'local_change') { @step{qw(mirror what)} = ($mirror->(), (qw(update delete insert))[ $random->(3) ]) }
	elsif ($do eq 'write_here')
	{
		my @two_way = grep { $_->{kind} =~ /two_way/ } @{ $plan->{mirrors} };
		@step{qw(mirror what rows seed)} = ($two_way[ $random->(scalar @two_way) ]{name}, (qw(update update update update delete insert rollback))[ $random->(7) ],
			1 + $random->(3), $random->(1_000_000));
	}
	elsif ($do eq 'mass_erase')
	{
		%step = (%step, count => 12 + $random->(20), seed => $random->(1_000_000), lists => [ $plan->{lists}[ $random->(scalar @{ $plan->{lists} }) ] ],
			weights => { create => 0, change => 0, touch => 0, delete => 0, restore => 0, erase => 1 });
	}
	return \%step;
}

sub _changes
{
	my ($random, $plan, $state, $count) = @_;
	my %changes = (count => $count, seed => $random->(1_000_000), lists => $plan->{lists});
	if ($plan->{gentle})
	{
		my $room = OVERLAP - 6 - ($state->{high} - $state->{skew});
		$changes{late} = $room if $room > 0 && $random->(2);
	}
	else
	{
		$changes{weights} = { erase => $random->(3), hide => $random->(2), show => $random->(2) };
		$changes{late} = OVERLAP * 2 if !$random->(4);
		$changes{quietly} = JSON::PP::true if !$random->(4);
	}
	return %changes;
}

sub _fault
{
	my ($random, $plan, $state) = @_;
	my %at = (path => ('/WORK/Tasks', '/ES/Assets', '/ES/Assets*', '*')[ $random->(4) ], after => $random->(5), times => 1 + $random->(3));
	my @faults = (
		{ fault => 'drop_before' }, { fault => 'drop_after' }, { fault => 'status', status => 500 }, { fault => 'status', status => 503 },
		{ fault => 'status_after', status => 502 }, { fault => 'throttle', retry_after => 1, times => 1 }, { fault => 'delay', seconds => 0.3 },
		{ fault => 'delay_before', seconds => 0.3 }, { fault => 'hang', times => 1 }, { fault => 'hang_after', times => 1 }, { fault => 'truncate' },
		{ fault => 'slow_body', bytes => 4000, seconds => 0.03, times => 1 }, { fault => 'not_json' }, { fault => 'bad_json' }, { fault => 'expire' },
		{ fault => 'mutate' }, { fault => 'mutate' }, { fault => 'mutate_after', seconds => 0.3 }, { fault => 'mutate_after' }, { fault => 'no_content_range' },
		{ fault => 'empty' }, { fault => 'shrink', by => 1 + $random->(30) });
	my %fault = (%at, %{ $faults[ $random->(scalar @faults) ] });
	if ($fault{fault} =~ /^mutate/)
	{
		my %changes = _changes($random, $plan, $state, 1 + $random->(5));
		$fault{changes} = \%changes;
	}
	return \%fault;
}

sub _weighted
{
	my ($random, @of) = @_;
	my $sum = 0;
	$sum += $_->[1] for @of;
	my $at = $random->($sum);
	for my $one (@of)
	{
		return $one->[0] if ($at -= $one->[1]) < 0;
	}
	return;
}

# Numbers below the one asked for, the same on every machine.
sub _random
{
	my ($seed) = @_;
	my $state = ($seed * 2654435761 + 12345) & 0xFFFFFFFF;
	my $next = sub {
		$state ^= ($state << 13) & 0xFFFFFFFF;
		$state ^= $state >> 17;
		$state ^= ($state << 5) & 0xFFFFFFFF;
		return $state;
	};
	$state ||= 1;
	$next->() for 1 .. 8;
	return sub { return $next->() % $_[0] };
}

1;
