package Hubex::Sandbox;

=head1 NAME

Hubex::Sandbox - the HubEx sandbox as a test's remote side

=head1 SYNOPSIS

	my $sandbox = Hubex::Sandbox->new(seed => 7, token_life => 60);
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'drop_after');
	...
	is(scalar @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') }, 2, 'asked twice');
	is(scalar @{ $sandbox->tasks }, 1, 'created once');

=head1 DESCRIPTION

Starts F<test/sandbox> as a process of its own on a free port of the loopback address and speaks to its control
address. It ends with the object, at the latest with the test. Its output goes to the test's log folder, in a file
whose name begins with the test's.

=cut

use strict;
use warnings;

use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

my $program = abs_path(dirname(__FILE__) . '/../../sandbox');
my $started = 0;
my %running;    # pid => 1, of the processes this test has to end

=head1 STARTING AND ENDING

=head2 new(%options)

The options are those of the command line with underscores: C<seed>, C<tasks>, C<assets>, C<token_life>,
C<token_grace>, C<rate_limit>, C<page_limit>, C<port>, C<host>, C<state>, C<access_log>, C<tls_cert>, C<tls_key>. With C<< tls => 1 >> a
certificate for 127.0.0.1 and localhost is made; C<ca_file> is then what trusts it.

=cut

sub new
{
	my ($class, %option) = @_;
	my $self = bless { folder => tempdir(CLEANUP => 1) }, $class;

	if (delete $option{tls})
	{
		$self->{ca_file} = "$self->{folder}/cert.pem";
		make_certificate($self->{ca_file}, "$self->{folder}/key.pem");
		@option{qw(tls_cert tls_key)} = ($self->{ca_file}, "$self->{folder}/key.pem");
	}
	$self->{ca_file} //= $option{tls_cert};
	$self->{option} = \%option;
	return $self->_start($program, _arguments(%option));
}

=head2 hang($mode)

A peer that stops in the middle: F<test/sandbox/hang.py>, see there for the modes. It has a C<url>, a C<port> and a
C<pid>, and no control address.

=cut

sub hang
{
	my ($class, $mode, %option) = @_;
	my $self = bless { folder => tempdir(CLEANUP => 1), option => \%option }, $class;
	return $self->_start("$program/hang.py", _arguments(mode => $mode, %option));
}

=head2 pages

A peer whose pages are what the path of the request says: F<test/sandbox/pages.py>. It has a C<url>, a C<port> and a
C<pid>, and no control address.

=cut

sub pages
{
	my ($class) = @_;
	my $self = bless { folder => tempdir(CLEANUP => 1), option => {} }, $class;
	return $self->_start("$program/pages.py");
}

=head2 attach($file)

A sandbox that somebody else started with C<--ready-file $file>, and will end.

=cut

sub attach
{
	my ($class, $file) = @_;
	return bless { ready => _read_json($file) }, $class;
}

=head2 stop, kill9, restart

C<stop> ends it in an orderly way, C<kill9> at once. C<restart> starts it again on the same port with the same
options, whatever ended it; what it held is gone unless it has a C<state> file.

=cut

sub stop { return $_[0]->_end('TERM') }

sub kill9 { return $_[0]->_end('KILL') }

sub restart
{
	my ($self) = @_;
	$self->stop;
	my %option = (%{ $self->{option} }, port => $self->port);
	return $self->_start($program, _arguments(%option));
}

=head1 WHERE IT IS

=head2 url, control, service_token, application_id, port, pid, ca_file

=cut

sub url { return $_[0]{ready}{url} }
sub control { return $_[0]{ready}{control} }
sub service_token { return $_[0]{ready}{service_token} }
sub application_id { return $_[0]{ready}{application_id} }
sub port { return $_[0]{ready}{port} }
sub pid { return $_[0]{ready}{pid} }
sub ca_file { return $_[0]{ca_file} }

=head1 WHAT IT SAW

=head2 journal(%filter)

The requests it got, in order of arrival, as an array of hashes. Filters: C<method>, C<path>, C<since>; C<fields>, a list
parted by commas, leaves the others out.

=head2 clear_journal, summary

=head2 tasks, state

What it holds: all tasks as they are stored; the numbers of its records.

=head2 export($path, %query)

A list, whole, as the API shows it: the text of its JSON.

=head2 versions

What each record has looked like since C<keep_versions>: the text of the JSON that the sandbox's README describes.

=cut

sub journal
{
	my ($self, %filter) = @_;
	my $query = HTTP::Tiny->new->www_form_urlencode(\%filter);
	return $self->_ask(GET => 'journal' . ($query eq '' ? '' : "?$query"));
}

sub clear_journal { return $_[0]->_ask(DELETE => 'journal') }
sub summary { return $_[0]->_ask(GET => 'journal/summary') }
sub tasks { return $_[0]->_ask(GET => 'tasks') }
sub state { return $_[0]->_ask(GET => 'state') }
sub versions { return $_[0]->_text(GET => 'versions') }

sub export
{
	my ($self, $path, %query) = @_;
	return $self->_text(GET => 'export?' . HTTP::Tiny->new->www_form_urlencode({ path => $path, %query }));
}

=head1 WHAT IT SHALL DO

=head2 fault(%specification)

Injects a fault and returns its id: C<< fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status =>
503, times => 2) >>. C<method> is any method, and C<path> any path, unless given.

=head2 faults, clear_faults, clear_faults($id)

=head2 expire_tokens, tokens

C<expire_tokens> refuses every access token given out so far; C<tokens> is how many were.

=head2 config(%setting)

Changes settings (C<token_life>, C<token_grace>, C<rate_limit>, C<page_limit>, C<service_token>; the clocks' C<clock_skew>,
C<modified_skew>, C<created_skew>, C<token_skew>) and returns all of them.

=head2 change(%description), orders(@orders)

What other clients do, drawn or as it is told; gives what was done.

=head2 keep_versions

From now on; a C<reset> ends it.

=head2 reset

Back to the seed; or to another tenant, of C<seed>, C<tasks>, C<assets>.

=cut

sub fault
{
	my ($self, %specification) = @_;
	return $self->_ask(POST => 'faults', { method => '*', path => '*', %specification })->{id};
}

sub faults { return $_[0]->_ask(GET => 'faults') }
sub clear_faults { return $_[0]->_ask(DELETE => 'faults' . (defined $_[1] ? "/$_[1]" : '')) }
sub expire_tokens { return $_[0]->_ask(POST => 'tokens/expire') }
sub tokens { return $_[0]->_ask(GET => 'tokens')->{issued} }
sub change { my ($self, %description) = @_; return $self->_ask(POST => 'changes', \%description) }
sub orders { my ($self, @orders) = @_; return $self->_ask(POST => 'changes', { do => \@orders }) }
sub keep_versions { return $_[0]->_ask(POST => 'versions', {}) }
sub reset { my ($self, %grow) = @_; return $self->_ask(POST => 'reset', %grow ? \%grow : ()) }

sub config
{
	my ($self, %setting) = @_;
	$self->_ask(POST => 'config', \%setting) if %setting;
	return $self->_ask(GET => 'config');
}

=head2 make_certificate($certificate_file, $key_file)

A function: makes a self-signed certificate for 127.0.0.1 and localhost.

=cut

sub make_certificate
{
	my ($certificate, $key) = @_;
	my $log = qx(openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \\
		-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout '$key' -out '$certificate' 2>&1);
	croak "openssl: $log" if $?;
}

sub _arguments
{
	my (%option) = @_;
	my @arguments = delete $option{access_log} ? '--access-log' : ();
	for my $name (sort keys %option)
	{
		push @arguments, '--' . $name =~ tr/_/-/r, $option{$name};
	}
	return @arguments;
}

sub _start
{
	my ($self, @command) = @_;
	my $ready = "$self->{folder}/ready.json";
	my $logs = -d ($ENV{TESTLOGDIR} // '') ? $ENV{TESTLOGDIR} : $self->{folder};
	my $log = sprintf '%s/%s_sandbox_%d.log', $logs, basename($0) =~ s/\.[^.]+$//r, ++$started;

	unlink $ready;
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		$ENV{PYTHONDONTWRITEBYTECODE} = 1;
		exec '/usr/bin/python3', @command, '--ready-file', $ready, '--parent', getppid
		  or POSIX::_exit(127);
	}
	$running{$pid} = 1;
	$self->{process} = $pid;

	for (my $deadline = time + 30; !-e $ready; usleep 20_000)
	{
		my $gone = waitpid $pid, WNOHANG;
		delete $running{$pid} if $gone;
		croak "@command " . ($gone ? 'has ended' : 'is not ready after 30 s') . ", see $log:\n" . _slurp($log)
		  if $gone || time > $deadline;
	}
	$self->{ready} = _read_json($ready);
	return $self;
}

sub _end
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{process} // return $self;

	local $?;
	kill $signal, $pid;
	for (my $deadline = time + 10; !waitpid($pid, WNOHANG); usleep 10_000)
	{
		kill 'KILL', $pid if time > $deadline;
	}
	delete $running{$pid};
	return $self;
}

sub _ask
{
	my ($self, @request) = @_;
	my $text = $self->_text(@request);
	return length $text ? JSON::PP->new->utf8->allow_nonref->decode($text) : undef;
}

sub _text
{
	my ($self, $method, $path, $body) = @_;
	my $http = HTTP::Tiny->new(
		timeout => 60,
		keep_alive => 0,
		verify_SSL => 1,
		SSL_options => { SSL_ca_file => $self->{ca_file} });
	my $answer = $http->request($method, $self->control . "/$path",
		defined $body ? { content => encode_json($body), headers => { 'Content-Type' => 'application/json' } } : {});
	croak "sandbox, $method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $answer->{content};
}

sub _slurp
{
	my ($file) = @_;
	open my $handle, '<', $file or croak "$file: $!";
	local $/;
	return scalar <$handle>;
}

sub _read_json { return decode_json(_slurp($_[0])) }

sub DESTROY
{
	my ($self) = @_;
	local ($@, $!);
	$self->_end('TERM') if $self->{process} && $running{ $self->{process} };
}

END
{
	kill 'TERM', keys %running;
}

1;
