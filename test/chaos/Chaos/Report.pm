package Chaos::Report;

=head1 NAME

Chaos::Report - the findings of a chaos run, for people

=head1 FUNCTIONS

=head2 markdown($findings, seed => N, requests => N, clients => N, about => [[name => value], ...])

A page: what happened and how often, what became of the changes, how long it took.

=head2 culprits($findings)

What is wrong, a line each; nothing where all is well.

=cut

use strict;
use warnings;

use List::Util qw(max sum);

use Chaos::Schedule;

my $most_culprits = 20;

sub culprits
{
	my ($findings) = @_;
	my @culprits;
	for my $name (qw(lost doubled disordered unfounded crashes))
	{
		my @found = @{ $findings->{$name} };
		push @culprits, map { "$name: $_" } splice @found, 0, $most_culprits;
		push @culprits, "$name: and " . @found . ' more' if @found;
	}
	push @culprits, map { 'not delivered: request ' . join ' | ', @$_ } @{ $findings->{requests}{open} };
	return @culprits;
}

sub markdown
{
	my ($findings, %run) = @_;
	my @culprits = culprits($findings);
	my %count = map { $_ => scalar @{ $findings->{$_} } } qw(lost doubled disordered unfounded crashes);

	return join "\n",
	  '# Chaos',
	  '',
	  "Made by `make chaos SEED=$run{seed} REQUESTS=$run{requests} CLIENTS=$run{clients}`; do not edit.",
	  '',
	  "$run{clients} clients create rows and change them, each change one request through a trigger, while answers are lost, refused, late",
	  'or garbage and the processes on both sides are killed. What the clients committed is then compared with the journal of the sandbox,',
	  "which says what was done and in which order; hubex's own tables are not asked. `test/chaos/` is the generator.",
	  '',
	  _table([ '', '' ], @{ $run{about} }, [ 'the run took', sprintf '%.0f s', $findings->{seconds} ]),
	  '## What became of the changes',
	  '',
	  _table([ '', '' ],
		[ 'changes committed (creates and updates)', _number($findings->{changes}) ],
		[ 'of them, the connection died in COMMIT and the client asked afterwards', _number($findings->{asked}) ],
		[ 'changes rolled back, by the client or by a crash', _number($findings->{undone}) ],
		[ 'rows, and tasks there in the end', _number($findings->{rows}) . ', ' . _number($findings->{tasks}) ],
		[ '**lost**: rows without a task, or whose task lacks the last committed values', "**$count{lost}**" ],
		[ '**doubled**: rows with more than one task', "**$count{doubled}**" ],
		[ '**out of order**: writes that took a task back to an earlier version', "**$count{disordered}**" ],
		[ '**unfounded**: writes of what was never committed', "**$count{unfounded}**" ],
		[ '**crashes**: processes that ended without being killed', "**$count{crashes}**" ],
		[ 'requests the sandbox got, look-ups and sign-ins among them', _number($findings->{calls}) ],
		[ 'writes it did to these tasks', _number($findings->{writes}) ],
		[ 'of them, repeated: the same values written again, as the first answer was lost', _number($findings->{repeated}) ],
		[ 'creates sent again and refused by their stamp', _number($findings->{refused_stamps}) ],
		[ 'look-ups', _number($findings->{look_ups}) ]),
	  @culprits ? ('```', @culprits, '```', '') : (),
	  '## What happened',
	  '',
	  _table([ 'to answers', 'times' ], map { [ $_->{label}, _number($findings->{faults}{ $_->{label} } // 0) ] } @Chaos::Schedule::answers),
	  'Down is from the end of the process until the server takes connections again, or the sandbox, which is kept down for up to 1.5 s and then has to',
	  'do its past again. Recovery is from when all is up until the next request reaches the sandbox.',
	  '',
	  _recovery_table($findings->{ends}),
	  '## How long it took',
	  '',
	  'From the moment COMMIT was sent to the arrival of the request that brought the change, or a later one to the same row.',
	  '',
	  _delay_table($findings->{delays}),
	  'How often a request was taken up, as `hubex.outbox.attempts` has it:',
	  '',
	  _table([ 'attempts', 'requests' ], _histogram($findings->{requests}{attempts}));
}

sub _recovery_table
{
	my ($ends) = @_;
	my %ends;
	push @{ $ends{ $_->{kind} } }, $_ for @$ends;
	return _table([ 'to processes', 'times', 'down: median', 'max', 'recovery: median', 'max' ],
		map
		{
			my @of_kind = @{ $ends{$_} };
			[ $_, scalar @of_kind, _times([ map { $_->{up} - $_->{at} } @of_kind ], 0.5, 1),
				_times([ map { $_->{arrival} - $_->{all_up} } grep { defined $_->{arrival} } @of_kind ], 0.5, 1) ]
		} sort keys %ends);
}

sub _delay_table
{
	my ($delays) = @_;
	my %first = (all => 0, 'no trouble of their own' => 1);
	return _table([ 'changes that met', 'changes', 'p50', 'p95', 'max' ],
		map { [ $_, _number(scalar @{ $delays->{$_} }), _times($delays->{$_}, 0.5, 0.95, 1) ] }
		sort { ($first{$a} // 2) <=> ($first{$b} // 2) || $a cmp $b } keys %$delays);
}

# The counts of attempts, the many large ones in one line.
sub _histogram
{
	my ($attempts) = @_;
	my @few = grep { $_->[0] <= 6 } @$attempts;
	my @many = grep { $_->[0] > 6 } @$attempts;
	push @few, [ "7 to $many[-1][0]", sum map { $_->[1] } @many ] if @many;
	return map { [ $_->[0], _number($_->[1]) ] } @few;
}

sub _times
{
	my ($times, @shares) = @_;
	my @sorted = sort { $a <=> $b } @{ $times // [] };
	return map { @sorted ? sprintf('%.2f s', $sorted[ int($_ * $#sorted + 0.5) ]) : '-' } @shares;
}

sub _number { return $_[0] =~ s/(?<=\d)(?=(?:\d{3})+$)/,/gr }

sub _table
{
	my ($head, @rows) = @_;
	return join "\n", map({ '| ' . join(' | ', @$_) . ' |' } $head, [ ('---') x @$head ], @rows), '';
}

1;
