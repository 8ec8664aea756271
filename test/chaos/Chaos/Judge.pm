package Chaos::Judge;

=head1 NAME

Chaos::Judge - what the clients committed against what the sandbox did

=head1 DESCRIPTION

The clients' records say what was committed, the sandbox's journal what was done, in which order, and its tasks what is
there in the end. hubex's own tables are not asked.

A change is known by what it wrote: the task's C<erpID> names the row, its C<notes> the row, the version and the mark of
the change, and its C<contactPerson>, which only some changes touch, the last change that did.

=head2 judge(changes => [], journal => [], tasks => [], ends => [], ...)

Gives a hash of findings. Each of these is a list of texts, empty where all is well:

=over

=item lost

rows whose task is not there, or does not have the last committed values

=item doubled

erpIDs that more than one task has

=item disordered

writes that took a task back to an earlier version

=item unfounded

writes of what was not committed

=item crashes

processes that ended without being killed, from the server's log

=back

The rest is counts and times, for L<Chaos::Report>.

=cut

use strict;
use warnings;

use List::Util qw(first max);

sub judge
{
	my (%run) = @_;
	my @committed = grep { $_->{outcome} eq 'committed' } @{ $run{changes} };
	my $timelines = _timelines($run{journal});
	my %findings = (
		%run{qw(ends requests crashes seconds)},
		changes => scalar @committed,
		undone => @{ $run{changes} } - @committed,
		asked => scalar(grep { $_->{asked} } @{ $run{changes} }),
		rows => scalar(keys %{ { map { $_->{row} => 1 } @committed } }),
		tasks => scalar @{ $run{tasks} },
		calls => scalar @{ $run{journal} },
		lost => _lost(\@committed, $run{tasks}),
		doubled => _doubled($run{tasks}),
		_order(\@committed, $timelines),
		faults => _faults($run{journal}),
		refused_stamps => scalar(grep { $_->{method} eq 'POST' && ($_->{status} // 0) == 409 && _change($_) } @{ $run{journal} }),
		look_ups => scalar(grep { $_->{method} eq 'GET' } @{ $run{journal} }),
		delays => _delays(\@committed, $timelines, $run{ends}));
	_recovery($run{journal}, $run{ends});
	return \%findings;
}

# The row, version and mark that a request carries; nothing for any other.
sub _change
{
	my ($entry) = @_;
	return ($entry->{body} // '') =~ /\brow (\d+) v(\d+) by ([\w.]+)/ ? { row => $1, version => $2, mark => $3 } : undef;
}

# For each row the requests that carried a version of it, as they were done; those that did nothing come last.
sub _timelines
{
	my ($journal) = @_;
	my %timelines;
	for my $entry (grep { $_->{method} =~ /^(POST|PATCH|PUT)$/ } @$journal)
	{
		my $change = _change($entry) // next;
		push @{ $timelines{ $change->{row} } }, { %$change, entry => $entry };
	}
	@$_ = sort { ($a->{entry}{write} // 9**9) <=> ($b->{entry}{write} // 9**9) || $a->{entry}{n} <=> $b->{entry}{n} } @$_ for values %timelines;
	return \%timelines;
}

sub _lost
{
	my ($committed, $tasks) = @_;
	my (%last, %person, %task);
	for my $change (sort { $a->{version} <=> $b->{version} } @$committed)
	{
		my $written = "v$change->{version} by $change->{mark}";
		$last{ $change->{row} } = "row $change->{row} $written";
		$person{ $change->{row} } = $written if $change->{person};
	}
	push @{ $task{ $_->{erpID} // '' } }, $_ for @$tasks;

	my @lost;
	for my $row (sort { $a <=> $b } keys %last)
	{
		my $task = ($task{"JOB-$row"} // [])->[0];
		if (!$task)
		{
			push @lost, "row $row: there is no task; committed: $last{$row}";
			next;
		}
		push @lost, "row $row: task $task->{id} has '$task->{notes}', committed: '$last{$row}'" if $task->{notes} ne $last{$row};
		push @lost, "row $row: task $task->{id} has person '$task->{contactPerson}', committed: '$person{$row}'"
		  if $task->{contactPerson} ne $person{$row};
	}
	return \@lost;
}

sub _doubled
{
	my ($tasks) = @_;
	my %ids;
	push @{ $ids{ $_->{erpID} // '' } }, $_->{id} for @$tasks;
	return [ map { "$_: tasks @{ $ids{$_} }" } grep { @{ $ids{$_} } > 1 } sort keys %ids ];
}

# What was written to each task one after another.
sub _order
{
	my ($committed, $timelines) = @_;
	my %is_committed = map { ("$_->{row} $_->{version} $_->{mark}" => 1) } @$committed;
	my (@disordered, @unfounded);
	my ($writes, $repeated) = (0, 0);

	for my $row (sort { $a <=> $b } keys %$timelines)
	{
		my $last = 0;
		for my $step (grep { defined $_->{entry}{write} } @{ $timelines->{$row} })
		{
			my $what = "row $row: request $step->{entry}{n} ($step->{entry}{method} $step->{entry}{path}) wrote v$step->{version} by $step->{mark}";
			push @unfounded, "$what, which was not committed" unless $is_committed{"$row $step->{version} $step->{mark}"};
			push @disordered, "$what after v$last" if $step->{version} < $last;
			$repeated++ if $step->{version} == $last;
			$writes++;
			$last = $step->{version};
		}
	}
	return (disordered => \@disordered, unfounded => \@unfounded, writes => $writes, repeated => $repeated);
}

# How often each fault happened, and to which requests.
sub _faults
{
	my ($journal) = @_;
	my %faults;
	$faults{ $_->{fault} }++ for grep { defined $_->{fault} } @$journal;
	return \%faults;
}

# From each COMMIT to the write that brought its version or a later one: all; the ones that met no trouble; the ones
# whose request met a fault; the ones that were on their way when something ended.
sub _delays
{
	my ($committed, $timelines, $ends) = @_;
	my %delays;
	for my $change (@$committed)
	{
		my @carriers = grep { $_->{version} >= $change->{version} } @{ $timelines->{ $change->{row} } // [] };
		my $write = first { defined $_->{entry}{write} } @carriers or next;
		my $arrival = $write->{entry}{time};
		my %met = map { $_ => 1 } grep { defined } map { $_->{entry}{fault} } grep { $_->{entry}{time} <= $arrival } @carriers;
		$met{ $_->{kind} } = 1 for grep { $_->{at} >= $change->{time} && $_->{at} < $arrival } @$ends;
		my $delay = max 0, $arrival - $change->{time};
		push @{ $delays{$_} }, $delay for 'all', keys %met ? keys %met : 'no trouble of their own';
	}
	@$_ = sort { $a <=> $b } @$_ for values %delays;
	return \%delays;
}

# To each end the moments at which all was up again, what ended before anything arrived included, and at which the next
# request arrived after that.
sub _recovery
{
	my ($journal, $ends) = @_;
	my @times = sort { $a <=> $b } map { $_->{time} } grep { $_->{path} !~ m{^/AUTHZ}i } @$journal;
	for my $end (@$ends)
	{
		my @later = ($end);
		while (@later)
		{
			$end->{all_up} = max map { $_->{up} } @later;
			$end->{arrival} = first { $_ >= $end->{all_up} } @times;
			@later = grep { $_->{up} > $end->{all_up} && $_->{at} <= ($end->{arrival} // 9**99) } @$ends;
		}
	}
	return;
}

1;
