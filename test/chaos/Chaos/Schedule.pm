package Chaos::Schedule;

=head1 NAME

Chaos::Schedule - what goes wrong in a chaos run, and when, from a seed

=head1 SYNOPSIS

	for my $deed (Chaos::Schedule::deeds($seed, $requests)) { ... }

=head1 DESCRIPTION

A deed has the number of committed changes C<at> which it is done, its C<kind>, and

=over

=item for a fault of answers: C<specification>, which F<test/sandbox> takes, and C<storm>: for so many seconds every answer is like that

=item for an end of the sandbox: C<down>, for how many seconds, and C<beside>, what else is done while it is down

=back

The same seed gives the same deeds; which request they hit is up to the processes.

=cut

use strict;
use warnings;

use List::Util qw(max);

# What happens to answers, in the order of the report. The label is what the journal calls it; `most` is how many
# requests in a row meet it, for those that keep a request until it is given up.
our @answers = (
	{ label => 'connection dropped before the work', fault => 'drop_before' },
	{ label => 'connection dropped after the work', fault => 'drop_after' },
	{ label => '500 before the work', fault => 'status', status => 500 },
	{ label => '500 after the work', fault => 'status_after', status => 500 },
	{ label => '503', fault => 'status', status => 503 },
	{ label => '503 with Retry-After', fault => 'status', status => 503, headers => { 'Retry-After' => '1' } },
	{ label => '429', fault => 'throttle', retry_after => 1 },
	{ label => 'no answer, before the work', fault => 'hang', most => 2 },
	{ label => 'no answer, after the work', fault => 'hang_after', most => 2 },
	{ label => 'body cut off', fault => 'truncate', method => 'POST' },
	{ label => 'body is not JSON', fault => 'not_json', method => 'POST' },
	{ label => 'late, in time', fault => 'delay', seconds => 0.4 },
	{ label => 'late, given up', fault => 'delay', seconds => 3, most => 2 },
	{ label => 'late before the work', fault => 'delay_before', seconds => 0.4 },
	{ label => 'late before the work, given up', fault => 'delay_before', seconds => 3, most => 2 },
	{ label => 'token expired', fault => 'expire' });

# What comes in storms as well.
our @storms = ('429', '503', '503 with Retry-After', '500 before the work');

# What happens to processes.
our @ends = ('worker killed', 'client\'s backend killed', 'server stopped at once', 'sandbox stopped', 'sandbox killed');

sub deeds
{
	my ($seed, $requests) = @_;
	my %answer = map { $_->{label} => $_ } @answers;
	my @deeds;

	srand $seed;
	for my $answer (@answers)
	{
		my @moments = _moments($requests, max 2, $requests / 400);
		push @deeds, map { _fault($answer, $moments[$_], $_ > 0 && rand() < 0.05) } 0 .. $#moments;
	}
	for my $label (@storms)
	{
		my %storm = (path => '/WORK/*', %{ $answer{$label} }, times => 1_000_000);
		push @deeds, map { { at => $_, kind => $label, specification => \%storm, storm => 0.1 + rand 0.5 } }
		  _moments($requests, max 1, $requests / 2500);
	}
	for my $end (@ends)
	{
		push @deeds, map { { at => $_, kind => $end, $end =~ /^sandbox/ ? (down => rand 1.5, beside => _beside()) : () } }
		  _moments($requests, max 1, $requests / 800);
	}
	return sort { $a->{at} <=> $b->{at} } @deeds;
}

# So many moments, one in each of as many equal parts of the run, whose last bit is left in peace.
sub _moments
{
	my ($requests, $count) = @_;
	$count = int $count;
	return map { int($requests * 0.93 * ($_ + rand) / $count) } 0 .. $count - 1;
}

# A fault of the calls that make and change tasks and look them up, or of one sign-in. No kind begins with sign-ins, of
# which there are few.
sub _fault
{
	my ($answer, $at, $signs_in) = @_;
	my %specification = (path => '/WORK/*', %$answer, times => 1 + int rand($answer->{most} // 5));
	@specification{qw(path times)} = ('/AUTHZ/*', 1) if $signs_in && $answer->{fault} ne 'expire';
	delete $specification{most};
	return { at => $at, kind => $answer->{label}, specification => \%specification };
}

# In three of seven cases something else ends while the sandbox is down.
sub _beside { return (@ends[ 0 .. 2 ])[ rand 7 ] // '' }

1;
