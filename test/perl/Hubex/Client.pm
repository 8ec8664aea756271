package Hubex::Client;

=head1 NAME

Hubex::Client - a client whose errors are taken apart, and timed

=head1 SYNOPSIS

	my $client = Hubex::Client->new($node, user => 'clerk');
	$client->query('SET statement_timeout = 0');

	$client->send('SELECT * FROM hubex_tasks()');    # does not wait
	...
	my $answer = $client->answer;
	is($answer->{sqlstate}, '57014', 'it was cancelled');
	cmp_ok($answer->{at} - $cancelled_at, '<', 0.1, 'at once');

=head1 DESCRIPTION

A psql that stays connected. Where L<Hubex::Session> gives what was printed, this gives rows, messages and the parts
of an error apart, and knows to the millisecond when the error reached the client.

=cut

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IPC::Open3 qw(open3);
use POSIX qw(WNOHANG);
use Symbol qw(gensym);
use Time::HiRes qw(time usleep);

=head1 METHODS

=head2 new($node, database => 'postgres', user => undef)

=cut

sub new
{
	my ($class, $node, %option) = @_;
	my $address = $node->connstr($option{database} // 'postgres');
	$address .= " user=$option{user}" if defined $option{user};

	my $self = bless { marks => 0 }, $class;
	my $errors = gensym;
	$self->{process} = open3(my $in, my $out, $errors,
		'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=0', '-d', $address);
	@$self{qw(in out err)} = ($in, $out, $errors);
	$in->autoflush(1);
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

=head2 pid

The process id of the backend.

=cut

sub pid { return $_[0]{pid} }

=head2 send($sql)

Sends a query and does not wait for it.

=cut

sub send
{
	my ($self, $sql) = @_;
	my $mark = 'mark_' . ++$self->{marks} . '_';
	local $SIG{PIPE} = 'IGNORE';
	@$self{qw(text errors error_at mark)} = ('', '', undef, $mark);
	$self->{sent_at} = time;
	print { $self->{in} } "$sql\n;\n\\echo $mark\n\\warn $mark\n";
	return $self;
}

=head2 is_done

Would C<answer> give it at once?

=cut

sub is_done
{
	my ($self) = @_;
	my $mark = $self->{mark};
	my %into = (fileno $self->{out} => 'text', fileno $self->{err} => 'errors');
	for my $handle (IO::Select->new(@$self{qw(out err)})->can_read(0))
	{
		my $into = $into{ fileno $handle };
		return 1 if !sysread $handle, $self->{$into}, 65536, length $self->{$into};
	}
	return 2 == grep { $self->{$_} =~ /^\Q$mark\E\n\z/m } qw(text errors);
}

=head2 answer($seconds)

Waits for the end of what was sent, and dies after the time (60 seconds unless given). The answer is a hash: C<rows>
is what came, as psql -At prints it; C<notices> are all messages; C<error> is the first error, if any, and all after
it, with its parts in C<sqlstate>, C<message>, C<detail>, C<hint> and C<context>; C<took> is how long it took; C<at>
is when the error arrived, else when the end did; C<ended> is true if the session is gone.

=cut

sub answer
{
	my ($self, $seconds) = @_;
	my $deadline = time + ($seconds // 60);
	my $mark = $self->{mark};
	my %into = (fileno $self->{out} => 'text', fileno $self->{err} => 'errors');
	my $open = IO::Select->new(@$self{qw(out err)});

	# What is_done has read already.
	for my $handle (@$self{qw(out err)})
	{
		$open->remove($handle) if $self->{ $into{ fileno $handle } } =~ s/^\Q$mark\E\n\z//m;
	}
	while ($open->count)
	{
		my $left = $deadline - time;
		croak "no answer in time; so far: $self->{text}$self->{errors}" if $left <= 0;
		for my $handle ($open->can_read($left))
		{
			my $into = $into{ fileno $handle };
			if (!sysread $handle, $self->{$into}, 65536, length $self->{$into})
			{
				$open->remove($handle);
				$self->{ended} = 1;
				next;
			}
			$self->{error_at} //= time if $self->{errors} =~ /^(?:ERROR|FATAL|PANIC|psql: error):/m;
			$open->remove($handle) if $self->{$into} =~ s/^\Q$mark\E\n\z//m;
		}
	}

	my $at = $self->{error_at} // time;
	my ($text, $errors) = @$self{qw(text errors)};
	chomp($text, $errors);
	my %answer = (
		rows => $text,
		notices => $errors,
		at => $at,
		took => $at - $self->{sent_at},
		ended => $self->{ended});
	if ($errors =~ /^((?:ERROR|FATAL|PANIC):\s+(\w{5}): ([^\n]*).*)/ms)
	{
		@answer{qw(error sqlstate message)} = ($1, $2, $3);
		for my $part (qw(detail hint context))
		{
			($answer{$part}) = $answer{error} =~ /^\U$part\E:\s+(.*)/m;
		}
	}
	elsif ($self->{ended})
	{
		$answer{error} = "the session has ended: $errors";
	}
	return \%answer;
}

=head2 try($sql, $seconds)

C<send> and C<answer> in one.

=head2 query($sql, $seconds)

The same for what must succeed: gives the rows, and dies of an error.

=cut

sub try
{
	my ($self, $sql, $seconds) = @_;
	return $self->send($sql)->answer($seconds);
}

sub query
{
	my ($self, $sql, $seconds) = @_;
	my $answer = $self->try($sql, $seconds);
	croak "$sql\n$answer->{error}" if defined $answer->{error};
	return $answer->{rows};
}

=head2 end

Ends the session; it ends with the object anyway.

=cut

sub end
{
	my ($self) = @_;
	my $process = delete $self->{process} // return;
	local ($?, $!, $@);
	close $self->{in};    # which ends a psql that waits for no query
	for (my $deadline = time + 1; !waitpid $process, WNOHANG; usleep 5_000)
	{
		kill 'KILL', $process if time > $deadline;
	}
	return;
}

sub DESTROY { return $_[0]->end }

1;
