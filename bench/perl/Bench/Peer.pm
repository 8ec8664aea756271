package Bench::Peer;

=head1 NAME

Bench::Peer - a remote system that logs all it gets

=head1 SYNOPSIS

	my $peer = Bench::Peer->nginx;        # answers at once
	my $slow = Bench::Peer->slow(20);     # after 20 ms; /after/MS/... after its own time
	my $list = Bench::Peer->list($file, 1_000_000, 20);    # a list to read, page by page
	my $pages = Bench::Peer->pages(10_000, %files);         # pages to read, from files

	$peer->forget;
	...
	$peer->wait_for(1000);
	$peer->must_have(@ids);

=head1 DESCRIPTION

Its log has a line for each request: when it arrived, when it was answered, the status, its bytes, its stamp or -, its
path. A request is known by its stamp, and by its path where it has none. The process ends with the object.

=cut

use strict;
use warnings;

use File::Temp qw(tempdir);
use List::Util qw(max sum0);
use PostgreSQL::Test::Cluster;
use Time::HiRes qw(time usleep);

=head1 METHODS

=head2 nginx, slow($milliseconds)

=cut

sub nginx
{
	my ($class) = @_;
	my $self = $class->_nginx(sub { my ($folder) = @_; <<"CONF" }, '/', q(return 201 '{"id": $connection$connection_requests, "number": "$connection_requests"}';));
	log_format bench '\$msec \$msec \$status \$request_length \$http_x_concurrency_stamp \$request_uri';
	access_log $folder/log bench buffer=64k flush=50ms;
CONF
	return $self->_open_log;
}

sub slow
{
	my ($class, $milliseconds) = @_;
	my $folder = tempdir(CLEANUP => 1);
	my $self = $class->_start($folder, "$ENV{HUBEX_BENCH_BIN}/slow_peer", $milliseconds, "$folder/log");
	$self->{port} = readline $self->{out};
	chomp $self->{port};
	return $self->_open_log;
}

=head2 list($file, $records, $milliseconds)

A list whose records are those of the file, one a line, again and again; F<bench/list_peer.c>. It has no log.

=head2 pages($records, $range => $file, ...)

nginx with a list of so many records, whose pages are there as files, under the ranges they are asked for ("1-1000"). It
has no log.

=cut

sub list
{
	my ($class, @arguments) = @_;
	my $self = $class->_start(tempdir(CLEANUP => 1), "$ENV{HUBEX_BENCH_BIN}/list_peer", @arguments);
	$self->{port} = readline $self->{out};
	chomp $self->{port};
	return $self;
}

sub pages
{
	my ($class, $total, %page) = @_;
	my $files = join '', map { qq(\t\t"items=$_" $page{$_};\n) } sort keys %page;
	my $ranges = join '', map
	{
		my ($from, $till) = split /-/;
		qq(\t\t"items=$_" "items=$from-) . ($till < $total ? $till : $total) . qq(/$total";\n)
	} sort keys %page;

	return $class->_nginx(sub { <<"CONF" }, '/', 'return 404;', '= /page', <<'PAGE');
	access_log off;
	sendfile on;
	max_ranges 0;
	map_hash_bucket_size 256;
	map \$http_range \$page {
$files	}
	map \$http_range \$content_range {
$ranges	}
CONF
			internal;
			root /;
			add_header Content-Range $content_range always;
			try_files $page =416;
PAGE
}

# Starts an nginx; $settings->($folder) are of its http, the rest are locations and what they hold. What is not found is /page.
sub _nginx
{
	my ($class, $settings, @locations) = @_;
	my $folder = tempdir(CLEANUP => 1);
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $temporary = join '', map { "\t${_}_temp_path $folder/$_;\n" } qw(client_body proxy fastcgi uwsgi scgi);
	my $http = $settings->($folder);
	my $served = '';
	while (my ($location, $does) = splice @locations, 0, 2)
	{
		$served .= "\t\tlocation $location { $does }\n";
	}

	open my $conf, '>', "$folder/nginx.conf" or die "$folder/nginx.conf: $!";
	print $conf <<"CONF";
daemon off;
worker_processes 1;
pid $folder/pid;
error_log $folder/error.log warn;
events { worker_connections 1024; }
http {
$temporary
	keepalive_timeout 1h;
	keepalive_requests 1000000000;
	tcp_nodelay on;
	default_type application/json;
$http
	server {
		listen 127.0.0.1:$port backlog=1024;
		error_page 404 =206 /page;
$served	}
}
CONF
	close $conf or die "$folder/nginx.conf: $!";

	local $ENV{PATH} = "$ENV{PATH}:/usr/sbin:/usr/local/sbin";
	my $self = $class->_start($folder, 'nginx', '-q', '-p', $folder, '-e', "$folder/error.log", '-c', "$folder/nginx.conf");
	$self->{port} = $port;
	_wait(sub { -s "$folder/pid" }, 'nginx');
	return $self;
}

sub _start
{
	my ($class, $folder, @command) = @_;
	my $pid = open my $out, '-|', @command or die "$command[0]: $!";
	return bless { folder => $folder, pid => $pid, out => $out, owner => $$, lines => [], rest => '' }, $class;
}

sub _open_log
{
	my ($self) = @_;
	_wait(sub { open $self->{log}, '<', "$self->{folder}/log" }, 'the log');
	$self->forget;
	return $self;
}

sub _wait
{
	my ($code, $what, $seconds) = @_;
	my $deadline = time + ($seconds // 30);
	until ($code->())
	{
		die "timed out: $what\n" if time > $deadline;
		usleep 5_000;
	}
	return;
}

sub DESTROY
{
	my ($self) = @_;
	return if $self->{owner} != $$;
	local ($?, $!, $@);
	kill 'TERM', $self->{pid};
	close $self->{out};
	return;
}

=head2 url

=cut

sub url { return "http://127.0.0.1:$_[0]{port}" }

=head2 forget

From here on what is told is of what comes.

=head2 wait_for($n, $seconds)

Waits until so many requests have been answered.

=head2 entries

What came, in the order of the answers: hashes of C<arrived>, C<answered>, C<status>, C<bytes>, C<id>.

=cut

sub forget
{
	my ($self) = @_;
	usleep 100_000;    # the log may be late
	$self->_read;
	$self->{lines} = [];
	return;
}

sub wait_for
{
	my ($self, $n, $seconds) = @_;
	_wait(sub { $self->_read >= $n }, "$n requests at the peer", $seconds);
	return;
}

sub entries
{
	my ($self) = @_;
	$self->_read;
	return map
	{
		my ($arrived, $answered, $status, $bytes, $stamp, $path) = split / /;
		{ arrived => $arrived, answered => $answered, status => $status, bytes => $bytes,
			id => $stamp eq '-' ? $path : $stamp }
	} @{ $self->{lines} };
}

sub _read
{
	my ($self) = @_;
	seek $self->{log}, 0, 1;
	while (sysread $self->{log}, $self->{rest}, 1 << 20, length $self->{rest})
	{
		my $end = rindex $self->{rest}, "\n";
		push @{ $self->{lines} }, split /\n/, substr($self->{rest}, 0, $end + 1, '') if $end >= 0;
	}
	return scalar @{ $self->{lines} };
}

=head2 must_have(@ids)

Dies unless each of these has come, exactly once, was answered 201, and nothing else came.

=cut

sub must_have
{
	my ($self, @expected) = @_;
	my %times;
	my $refused = 0;
	for my $entry ($self->entries)
	{
		$times{ $entry->{id} }++;
		$refused++ if $entry->{status} != 201;
	}
	my $repeated = grep { $_ > 1 } values %times;
	my $lost = grep { !delete $times{$_} } @expected;
	my $foreign = keys %times;
	die "of " . @expected . " requests $lost were lost, $repeated repeated, $refused refused, $foreign others came\n"
	  if $lost || $repeated || $refused || $foreign;
	return;
}

=head2 ended, bytes

When the last was answered; how long the requests were on average.

=cut

sub ended { return max map { $_->{answered} } $_[0]->entries }

sub bytes
{
	my ($self) = @_;
	my @entries = $self->entries;
	return sum0(map { $_->{bytes} } @entries) / @entries;
}

1;
