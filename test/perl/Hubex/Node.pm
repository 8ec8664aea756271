package Hubex::Node;

=head1 NAME

Hubex::Node - a PostgreSQL server with hubex, for a test

=head1 SYNOPSIS

	use Hubex::Node;
	use Hubex::Sandbox;
	use Test::More;

	my $sandbox = Hubex::Sandbox->new;
	my $node = Hubex::Node->new('main', 'hubex.retention' => '1h');
	$node->start_hubex($sandbox);

	$node->safe_psql('postgres', q(SELECT hubex_create_task(...)));
	$node->wait_for("SELECT state FROM hubex.outbox", 'delivered', 'the task is delivered', 10);
	eventually { @{ $sandbox->tasks } == 1 } 'the sandbox has the task', 10;
	done_testing;

=head1 DESCRIPTION

A L<PostgreSQL::Test::Cluster>, with all it can do (C<safe_psql>, C<restart>, C<kill9>, C<backup>, C<wait_for_log>...).
Only what is the same in the modules of PostgreSQL 15 to 18 is used here.

Nothing here sleeps for a time that should be enough: C<wait_for> and C<eventually> look again and again until a
deadline, and are tests themselves.

=cut

use strict;
use warnings;

use parent qw(PostgreSQL::Test::Cluster Exporter);

use Carp qw(croak);
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(eventually);

# A test that is told to end dies instead, so that the servers it started are stopped.
$SIG{$_} = sub { die "caught SIG$_[0]\n" } for qw(INT TERM HUP);

=head1 METHODS

=head2 new($name, %conf)

A new server, which is running unless C<< start => 0 >>. C<%conf> are settings for F<postgresql.conf>, and

=over

=item preload => 0

without hubex in C<shared_preload_libraries>, which it is otherwise

=item fsync => 1

with fsync, which is otherwise off

=item init => 0

without a data folder, which C<init_from_backup> will make; then it is not started either, and takes its settings
from the backup

=item allows_streaming, has_archiving

are passed on to C<init>

=back

=cut

sub new
{
	my ($class, $name, %conf) = @_;
	my $init = delete $conf{init} // 1;
	my $start = delete $conf{start} // $init;
	my %init = map { $_ => delete $conf{$_} } grep { exists $conf{$_} } qw(allows_streaming has_archiving);

	my $self = $class->SUPER::new($name);
	return $self unless $init;

	my $preload = delete $conf{preload} // 1;
	%conf = (
		shared_preload_libraries => $preload ? 'hubex' : '',
		fsync => $conf{fsync} ? 'on' : 'off',
		log_statement => 'none',    # init asks for all, credentials among them
		%conf{ grep { $_ ne 'fsync' } keys %conf });
	$self->init(%init);
	$self->append_conf('postgresql.conf', join "\n", map { "$_ = " . _quote($conf{$_}) } sort keys %conf);
	$self->start if $start;
	return $self;
}

=head2 kill9

As in L<PostgreSQL::Test::Cluster>; the shared memory that the server leaves behind is freed when the test ends.

=cut

my %killed;

sub kill9
{
	my ($self) = @_;
	$killed{ $self->{_pid} } = 1 if defined $self->{_pid};
	return $self->SUPER::kill9;
}

END
{
	local $?;
	if (%killed && open my $segments, '<', '/proc/sysvipc/shm')
	{
		for (map { [split] } <$segments>)
		{
			my ($id, $creator, $attached) = @$_[ 1, 4, 6 ];
			system 'ipcrm', '-m', $id if $killed{$creator} && $attached == 0;
		}
	}
}

=head2 start_hubex($sandbox, %options)

Makes the extension, a server C<fsm> that speaks to the sandbox and a user mapping for PUBLIC. Further options of the
server are given by name (C<rate_limit> is none unless given), and

=over

=item database => 'postgres', server => 'fsm'

=item service_token => undef

another token than the sandbox's

=back

=cut

sub start_hubex
{
	my ($self, $sandbox, %option) = @_;
	my $database = delete $option{database} // 'postgres';
	my $server = delete $option{server} // 'fsm';
	my $token = _quote(delete $option{service_token} // $sandbox->service_token // 'none');

	%option = (connector => 'hubex', url => $sandbox->url, rate_limit => 'none', %option);
	$option{ca_file} //= $sandbox->ca_file if defined $sandbox->ca_file;
	my $options = join ', ', map { "$_ " . _quote($option{$_}) } sort keys %option;
	$self->safe_psql(
		$database, qq{
		CREATE EXTENSION IF NOT EXISTS hubex;
		CREATE SERVER "$server" FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($options);
		CREATE USER MAPPING FOR PUBLIC SERVER "$server" OPTIONS (service_token $token);
	});
	return $self;
}

=head2 wait_for($sql, $expected, $what, $seconds)

A test named C<$what>: the query, in database postgres, answers C<$expected> (as psql -At prints it) within the time
(30 seconds unless given). A query that fails is tried again, for the server may be starting.

=cut

sub wait_for
{
	my ($self, $sql, $expected, $what, $seconds) = @_;
	my ($answer, $errors);
	my $found = _poll($seconds, sub {
		(undef, $answer, $errors) = $self->psql('postgres', $sql);
		return defined $answer && $answer eq $expected;
	});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($found, $what) or diag "query:    $sql\nexpected: $expected\nlast got: $answer\n$errors";
	return $found;
}

=head1 FUNCTIONS

=head2 eventually { code } $what, $seconds

A test named C<$what>: the code returns true within the time (30 seconds unless given).

=cut

sub eventually(&@)
{
	my ($code, $what, $seconds) = @_;
	my $value;
	my $found = _poll($seconds, sub { $value = $code->() });

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($found, $what) or diag 'at last: ' . ($value // 'undef');
	return $found;
}

sub _poll
{
	my ($seconds, $code) = @_;
	my $deadline = time + ($seconds // 30);
	until ($code->())
	{
		return 0 if time > $deadline;
		usleep 50_000;
	}
	return 1;
}

sub _quote
{
	my ($text) = @_;
	return "'" . $text =~ s/'/''/gr . "'";
}

1;
