package Chaos::Run;

=head1 NAME

Chaos::Run - a run of clients that change rows while everything they depend on fails

=head1 SYNOPSIS

	my $run = Chaos::Run->new(seed => 7, requests => 600, clients => 4);
	my $findings = $run->go;      # see Chaos::Judge

=head1 DESCRIPTION

Starts a server with hubex, a sandbox that keeps its state, and the clients (F<client.pl>), and does what
L<Chaos::Schedule> says, each deed as soon as so many changes are committed; the clients are kept from running far ahead
of it. Then all may come to rest, and L<Chaos::Judge> compares what the clients committed with what the sandbox did.

Processes end here, the machine does not: fsync is off, as what is written is with the kernel.

=cut

use strict;
use warnings;

use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

use Chaos::Judge;
use Chaos::Schedule;

my $client = abs_path(dirname(__FILE__) . '/../client.pl');
my $shared = 8;          # rows that all clients change
my $patience = 120;      # seconds without anything new until a run is given up

=head1 METHODS

=head2 new(seed => N, requests => N, clients => N, rest => 30)

C<rest> is how many seconds deliveries may take after the last change. What the sandbox kept and what the clients wrote is
beside the server's data folder, which PG_TEST_NOCLEAN=1 with HUBEX_KEEP=1 leaves for a look.

=cut

sub new
{
	my ($class, %option) = @_;
	my $self = bless { rest => 30, committed => 0, ends => [], read => {}, up_again => [], %option }, $class;

	$self->{node} = Hubex::Node->new('chaos', restart_after_crash => 'on');
	$self->{folder} = $self->{node}->basedir;
	$self->{sandbox} = Hubex::Sandbox->new(tasks => 0, seed => $self->{seed}, state => "$self->{folder}/sandbox");
	$self->{node}->start_hubex($self->{sandbox},
		timeout => '1500ms', connect_timeout => '1s', retry_base => '50ms', retry_cap => '500ms');
	$self->{node}->safe_psql('postgres', q(
		CREATE SCHEMA chaos;
		CREATE TABLE chaos.done (name text PRIMARY KEY);
		CREATE TABLE chaos.job (id bigint PRIMARY KEY, version int, mark text, person text);
		CREATE TRIGGER hubex AFTER INSERT OR UPDATE ON chaos.job FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fsm',
			'{"task_type_id": 2, "erp_id": "JOB-{id}", "notes": "row {id} v{version} by {mark}", "contact_person": "{person}"}')));
	$self->_share_rows;
	return $self;
}

# The rows that all clients change are made before they start.
sub _share_rows
{
	my ($self) = @_;
	my $record = $self->_record(0);
	open my $file, '>', $record or croak "$record: $!";
	print $file join("\t", 'committed', time, $_, 1, "0.$_", 1, 0) . "\n" for 1 .. $shared;
	close $file;
	$self->{node}->safe_psql('postgres', "INSERT INTO chaos.job SELECT g, 1, '0.' || g, 'v1 by 0.' || g FROM generate_series(1, $shared) g");
	return;
}

sub _record { return "$_[0]{folder}/client_$_[1]" }

=head2 go

The whole run; gives what L<Chaos::Judge> found. Dies where the run itself fails: a client that ends early, a server
that does not come back.

=cut

sub go
{
	my ($self) = @_;
	my @deeds = Chaos::Schedule::deeds($self->{seed}, $self->{requests});
	my $began = time;

	$self->_start_clients;
	my $moved = time;
	while (@deeds || %{ $self->{running} })
	{
		$moved = time if $self->_look_around;
		$self->_limit(@deeds ? $deeds[0]{at} + 20 + $self->{requests} / 200 : 2 * $self->{requests});
		if (@deeds && $deeds[0]{at} <= $self->{committed} && $self->_can($deeds[0]))
		{
			$self->_do(shift @deeds);
			$moved = time;
		}
		croak "nothing is committed any more after $self->{committed} changes" if time - $moved > $patience;
		usleep 10_000;
	}
	$self->_come_to_rest;

	return Chaos::Judge::judge(
		changes => $self->_changes,
		journal => $self->{sandbox}->journal(fields => 'n,time,finished,method,path,status,fault,write,effect,body'),
		tasks => $self->{sandbox}->tasks,
		ends => $self->{ends},
		requests => $self->_requests,
		crashes => $self->_crashes,
		seconds => time - $began);
}

=head2 node, sandbox

=cut

sub node { return $_[0]{node} }
sub sandbox { return $_[0]{sandbox} }

# ---- the clients ----

sub _start_clients
{
	my ($self) = @_;
	my $each = int $self->{requests} / $self->{clients};
	for my $number (1 .. $self->{clients})
	{
		my $pid = fork // croak "fork: $!";
		if (!$pid)
		{
			exec $^X, $client, $self->{node}->connstr('postgres'), $number, $self->{seed},
			  $each + ($number == 1 ? $self->{requests} % $self->{clients} : 0), $shared, $self->_record($number), "$self->{folder}/limit"
			  or POSIX::_exit(127);
		}
		$self->{running}{$pid} = $number;
	}
	return;
}

# Tells the clients how far they may go, all of them together.
sub _limit
{
	my ($self, $changes) = @_;
	return if ($self->{limit} // -1) == $changes;
	$self->{limit} = $changes;
	open my $file, '>', "$self->{folder}/limit.new" or croak "$self->{folder}: $!";
	print $file $changes / $self->{clients};
	close $file;
	rename "$self->{folder}/limit.new", "$self->{folder}/limit";
	return;
}

# Reads what the clients wrote, and ends what is over: storms, the sandbox's absence. -> is there anything new?
sub _look_around
{
	my ($self) = @_;
	my $before = $self->{committed};

	for my $number (1 .. $self->{clients})
	{
		open my $file, '<', $self->_record($number) or next;
		seek $file, $self->{read}{$number} // 0, 0;
		while (defined(my $line = <$file>))
		{
			last unless $line =~ /\n\z/;
			$self->{read}{$number} = tell $file;
			$self->{committed}++ if $line =~ /^committed/;
		}
	}
	for my $pid (keys %{ $self->{running} })
	{
		next unless waitpid $pid, WNOHANG;
		my $number = delete $self->{running}{$pid};
		croak "client $number has failed, see above" if $?;
	}
	for my $due (grep { $_->{at} <= time } @{ $self->{up_again} })
	{
		$due->{deed}->();
		$due->{done} = 1;
	}
	$self->{up_again} = [ grep { !$_->{done} } @{ $self->{up_again} } ];
	return $self->{committed} > $before;
}

sub _later
{
	my ($self, $seconds, $deed) = @_;
	push @{ $self->{up_again} }, { at => time + $seconds, deed => $deed };
	return;
}

# All that the clients wrote.
sub _changes
{
	my ($self) = @_;
	my @changes;
	for my $number (0 .. $self->{clients})
	{
		open my $file, '<', $self->_record($number) or croak "client $number has no record: $!";
		while (my $line = <$file>)
		{
			chomp $line;
			my %change;
			@change{qw(outcome time row version mark person asked)} = split /\t/, $line;
			push @changes, \%change;
		}
	}
	return \@changes;
}

# ---- the deeds ----

# What concerns answers has to wait while nobody answers.
sub _can
{
	my ($self, $deed) = @_;
	return !$self->{down} || !$deed->{specification} && !defined $deed->{down};
}

sub _do
{
	my ($self, $deed) = @_;
	return $self->_go_wrong($deed) if $deed->{specification};
	return $self->_end_sandbox($deed) if defined $deed->{down};
	return $self->_end_process($deed->{kind});
}

sub _go_wrong
{
	my ($self, $deed) = @_;
	my $id = $self->{sandbox}->fault(%{ $deed->{specification} });
	if ($deed->{storm})
	{
		$self->{storm}{$id} = 1;
		$self->_later($deed->{storm}, sub { $self->{sandbox}->clear_faults($id) if delete $self->{storm}{$id} });
	}
	return;
}

# Ends the sandbox, and starts it again after a while. Storms are over then; other faults that nobody has met yet are put back.
sub _end_sandbox
{
	my ($self, $deed) = @_;
	my $sandbox = $self->{sandbox};
	my $end = { kind => $deed->{kind} . ($deed->{beside} ? ' with others' : ''), at => time };
	my @faults = grep { !$self->{storm}{ $_->{id} } && $_->{fired} < $_->{times} } @{ $sandbox->faults };

	$self->{storm} = {};
	$deed->{kind} eq 'sandbox killed' ? $sandbox->kill9 : $sandbox->stop;
	$self->{down} = 1;
	$self->_later($deed->{down}, sub {
		$sandbox->restart;
		$self->{down} = 0;
		$end->{up} = time;
		for my $fault (@faults)
		{
			my %left = (%$fault, times => $fault->{times} - $fault->{fired});
			delete @left{qw(id seen fired)};
			$sandbox->fault(%left);
		}
	});
	push @{ $self->{ends} }, $end;
	$self->_end_process($deed->{beside}) if $deed->{beside};
	return;
}

# Ends a process of the server, or all of it, and waits until it takes connections again.
sub _end_process
{
	my ($self, $kind) = @_;
	my $node = $self->{node};
	my $watch = Hubex::Session->new($node);
	my $end = { kind => $kind };

	if ($kind eq 'server stopped at once')
	{
		$end->{at} = time;
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		my $victim = $kind eq 'worker killed' ? 'SELECT pid FROM hubex.worker_state() WHERE pid > 0'
		  : q{SELECT pid FROM pg_stat_activity WHERE application_name = 'chaos client' ORDER BY random() LIMIT 1};
		my $pid = _until('a process to kill', sub { my $found = $watch->query($victim) // croak 'the server is gone'; $found =~ /^(\d+)$/ && $1 });
		$end->{at} = time;
		kill 'KILL', $pid;
		_until('the server to notice', sub { !defined $watch->query('SELECT 1') });
	}
	_until('the server to come back', sub { (Hubex::Session->new($node)->query('SELECT 1') // '') eq '1' });
	$end->{up} = time;
	push @{ $self->{ends} }, $end;
	return;
}

sub _until
{
	my ($what, $code) = @_;
	for (my $deadline = time + $patience;; usleep 10_000)
	{
		my $value = $code->();
		return $value if $value;
		croak "waited in vain for $what" if time > $deadline;
	}
}

# ---- the end ----

# Waits until nothing is left to deliver, or too long. That says when to look; what is true, the sandbox says.
sub _come_to_rest
{
	my ($self) = @_;
	my $deadline = time + $self->{rest};
	my $left;
	do
	{
		$self->_look_around;
		usleep 20_000;
		$left = $self->{node}->safe_psql('postgres', q{SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending')});
	} while (($left || @{ $self->{up_again} }) && time < $deadline);
	return;
}

# What the server's log tells of processes that ended without being killed.
sub _crashes
{
	my ($self) = @_;
	open my $log, '<', $self->{node}->logfile or croak $self->{node}->logfile . ": $!";
	return [ map { chomp; $_ } grep { /^TRAP:|PANIC:|terminated by signal (?!9\b)|\(PID \d+\) exited with exit code/ } <$log> ];
}

# What hubex says of its requests: how many there are of which state and number of attempts, and those that are not delivered.
sub _requests
{
	my ($self) = @_;
	my $ask = sub { return [ map { [ split /\|/, $_, -1 ] } split /\n/, $self->{node}->safe_psql('postgres', $_[0]) ] };
	return {
		attempts => $ask->('SELECT attempts, count(*) FROM hubex.outbox GROUP BY 1 ORDER BY 1'),
		states => $ask->('SELECT state, count(*) FROM hubex.outbox GROUP BY 1 ORDER BY 1'),
		open => $ask->(q{SELECT id, operation, state, attempts, uncertain, natural_key, remote_id, last_status, replace(last_error, '|', '/')
			FROM hubex.outbox WHERE state <> 'delivered' ORDER BY id LIMIT 20}) };
}

1;
