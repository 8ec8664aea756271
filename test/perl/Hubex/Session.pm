package Hubex::Session;

=head1 NAME

Hubex::Session - a psql that stays connected, for what takes two

=head1 SYNOPSIS

	my $session = Hubex::Session->new($node);
	$session->query('BEGIN');
	my $id = $session->query('SELECT hubex_create_task(...)');

	$other->send('SELECT ...');        # goes on meanwhile
	...
	my $answer = $other->finish;

=head1 DESCRIPTION

Errors are part of what is printed, with their SQLSTATE, and end nothing. A session whose server went away answers
undef from then on.

=cut

use strict;
use warnings;

use Carp qw(croak);
use Encode qw(encode);
use IO::Select;
use POSIX ();
use Time::HiRes qw(time);

=head1 METHODS

=head2 new($node, database => 'postgres', seconds => 60)

C<$node> is a L<Hubex::Node> or, where there is none, a connection string. C<seconds> is how long an answer may take:
after that the test dies.

=cut

sub new
{
	my ($class, $node, %option) = @_;
	my $self = bless { seconds => $option{seconds} // 60, asked => 0, read => '' }, $class;
	my $connection = ref $node ? $node->connstr($option{database} // 'postgres') : $node;

	pipe my $child_in, $self->{in} or croak "pipe: $!";
	pipe $self->{out}, my $child_out or croak "pipe: $!";
	$self->{pid} = fork // croak "fork: $!";
	if (!$self->{pid})
	{
		$ENV{PGCLIENTENCODING} = 'UTF8';
		open STDIN, '<&', $child_in;
		open STDOUT, '>&', $child_out;
		open STDERR, '>&', $child_out;
		exec 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connection, '-f', '-' or POSIX::_exit(127);
	}
	$self->{in}->autoflush(1);
	return $self;
}

=head2 query($sql)

Runs it and returns what was printed.

=head2 send($sql), finish

The two halves of C<query>. C<send> may be called again before C<finish>, which waits for the last.

=head2 is_done

Has what was sent last ended?

=head2 backend

The process id of the session's server process.

=head2 quit

Ends it, at once.

=cut

sub query
{
	my ($self, $sql) = @_;
	return $self->send($sql)->finish;
}

sub send
{
	my ($self, $sql) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $mark = ++$self->{asked};
	print { $self->{in} } encode('UTF-8', $sql) . "\n;\n\\echo [done $mark]\n";
	return $self;
}

sub finish
{
	my ($self) = @_;
	my $deadline = time + $self->{seconds};
	until ($self->is_done)
	{
		return undef if $self->{gone};
		croak "no answer within $self->{seconds} s" if time > $deadline;
		$self->_read(0.5);
	}
	my ($answer) = $self->{read} =~ /\A(.*)^\[done $self->{asked}\]\n/ms;
	$self->{read} = '';
	$answer =~ s/^\[done \d+\]\n//mg;
	$answer =~ s/\n\z//;
	return $answer;
}

sub is_done
{
	my ($self) = @_;
	$self->_read(0);
	return !$self->{asked} || $self->{read} =~ /^\[done $self->{asked}\]\n/m;
}

sub backend { return $_[0]->query('SELECT pg_backend_pid()') }

sub quit
{
	my ($self) = @_;
	local ($?, $!, $@);
	kill 'TERM', $self->{pid} unless $self->is_done;
	close $self->{in};
	close $self->{out};
	waitpid delete $self->{pid}, 0;
	return;
}

sub _read
{
	my ($self, $seconds) = @_;
	return if $self->{gone} || !IO::Select->new($self->{out})->can_read($seconds);
	$self->{gone} = !sysread $self->{out}, $self->{read}, 65536, length $self->{read};
	return;
}

sub DESTROY
{
	my ($self) = @_;
	$self->quit if $self->{pid};
	return;
}

1;
