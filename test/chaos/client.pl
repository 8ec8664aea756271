#!/usr/bin/perl
# One client of the chaos run: changes rows, whatever happens to its server, and writes down what was committed.
#
#	client.pl CONNECTION NUMBER SEED CHANGES SHARED RECORD LIMIT
#
# It makes rows of its own and changes them, and rows that all clients share (1 to SHARED), in transactions of one to
# four changes, some of which it rolls back, until CHANGES are committed. Every change carries a mark of its own into
# the row, and every transaction leaves its number in `chaos.done`: where the connection dies in COMMIT, that is asked
# afterwards. RECORD gets a line for each change, its words parted by tabs:
#
#	committed|undone  moment of the COMMIT  row  version  mark  new person?  asked afterwards?
#
# The file LIMIT says how many changes it may have committed by now.

use strict;
use warnings;

use Hubex::Session;
use List::Util qw(uniqnum);
use Time::HiRes qw(time usleep);

my ($connection, $number, $seed, $changes, $shared, $record, $limit) = @ARGV;
my $patience = 120;    # seconds until it gives up on its server
my $backlog = 200;     # so many requests may wait for delivery before it makes more

srand($seed * 1000 + $number);
$ENV{PGAPPNAME} = 'chaos client';
open my $file, '>>', $record or die "$record: $!";
$file->autoflush(1);

my ($session, $transactions, @rows);
my %known = map { $_ => 1 } 1 .. $shared;
for (my $committed = 0; $committed < $changes;)
{
	wait_until(sub { $committed < allowed() }, $patience) or die "not told to go on\n";
	my @steps = plan($changes - $committed);
	$committed += @steps if transaction(@steps);
	wait_until(\&is_delivered, 10) if $transactions % 10 == 0;
}

# What the next transaction does: rows to change, by their ids, ascending so that two transactions never wait for each
# other; ids that are not there yet are made.
sub plan
{
	my ($most) = @_;
	my $count = rand() < 0.7 ? 1 : 2 + int rand 3;
	$count = $most if $count > $most;
	my $next = $number * 1_000_000 + @rows;
	return sort { $a <=> $b } uniqnum(map { pick() // ++$next } 1 .. $count);
}

# A row to change, or undef for a new one. Half of the changes are to rows that were made only just now.
sub pick
{
	my $chance = rand;
	return undef if $chance < 0.35;
	return 1 + int rand $shared if $chance < 0.45 && $shared;
	return undef unless @rows;
	return $chance < 0.7 ? $rows[ -1 - int rand(@rows < 10 ? @rows : 10) ] : $rows[ rand @rows ];
}

# -> was it committed?
sub transaction
{
	my @ids = @_;
	my $name = "$number." . ++$transactions;
	my $undo = rand() < 0.04;
	my $sql = 'BEGIN;';
	my (%mark, %person);
	for my $id (@ids)
	{
		my $mark = $mark{$id} = sprintf '%s.%d', $name, scalar keys %mark;
		$person{$id} = !$known{$id} || rand() < 0.35 ? 1 : 0;
		my $person = $person{$id} ? ", person = 'v' || job.version + 1 || ' by $mark'" : '';
		$sql .= $known{$id}
		  ? "UPDATE chaos.job SET version = job.version + 1, mark = '$mark'$person WHERE id = $id RETURNING id, version;"
		  : "INSERT INTO chaos.job VALUES ($id, 1, '$mark', 'v1 by $mark') RETURNING id, version;";
	}
	my $changed = query("$sql INSERT INTO chaos.done VALUES ('$name')");
	my %version = map { split /\|/ } split /\n/, $changed // '';
	die "$sql\n$changed\n" if defined $changed && "@{[ sort { $a <=> $b } grep { /^\d+$/ } keys %version ]}" ne "@ids";

	my $moment = time;
	my $ended = defined $changed ? query($undo ? 'ROLLBACK' : 'COMMIT') : undef;
	die "$ended\n" if defined $ended && $ended ne '';
	my $committed = defined $ended ? !$undo : was_committed($name);
	print $file join("\t", $committed ? 'committed' : 'undone', $moment, $_, $version{$_} // 0, $mark{$_}, $person{$_}, defined $ended ? 0 : 1) . "\n"
	  for @ids;
	if ($committed)
	{
		my @new = grep { !$known{$_} } @ids;
		push @rows, @new;
		@known{@new} = (1) x @new;
	}
	return $committed;
}

# Asks a new session; the old one's process is gone, with all that was not committed, before the server takes it.
sub was_committed
{
	my ($name) = @_;
	return ask("SELECT count(*) FROM chaos.done WHERE name = '$name'");
}

# Asks until there is an answer, which begins with a digit.
sub ask
{
	my ($sql) = @_;
	my $answer;
	wait_until(sub { $answer = query($sql); ($answer // '') =~ /^\d/ }, $patience, 100_000)
	  or die 'the server does not come back: ' . ($answer // 'gone') . "\n";
	return $answer;
}

# -> what was printed; undef where the connection was lost, which the next query makes anew. A server that ends may
# still say so behind the answer.
sub query
{
	my ($sql) = @_;
	$session //= Hubex::Session->new($connection);
	my $answer = $session->query($sql);
	return $answer if defined $answer && $answer !~ /terminating connection/;
	return undef $session;
}

# Is the backlog small? So that all through the run there is both something to deliver and something new.
sub is_delivered { return ask(q{SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending')}) < $backlog }

sub allowed
{
	open my $handle, '<', $limit or return 0;
	return <$handle>;
}

sub wait_until
{
	my ($condition, $seconds, $pause) = @_;
	for (my $deadline = time + $seconds; !$condition->(); usleep($pause // 10_000))
	{
		return 0 if time > $deadline;
	}
	return 1;
}
