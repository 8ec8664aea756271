package Bench;

=head1 NAME

Bench - what the figures of bench/*.pl stand on

=head1 SYNOPSIS

	use Bench;

	my $bench = Bench->new;
	my $peer = Bench::Peer->nginx;
	$bench->server('fast', $peer);
	my $got = alternate(
		hubex => sub { return $bench->round($peer, $bench->calls('fast', 20_000), 20_000) },
		libcurl => sub { return $bench->curl_multi($peer, 'calls', 20_000, 64) });
	report('| ' . median(map { $_->{rate} } @{ $got->{hubex} }) . ' |');

=head1 DESCRIPTION

A server with fsync and with hubex, connected to peers that log every request they get. A round holds the delivery
worker, enqueues, lets it go and waits until the peer has got everything; then what the peer got is compared with
what the outbox says, one by one. A rate with a failure, a loss or a repetition is not a rate: the program dies.

Comparisons alternate, A B A B, after a round of each that is not counted.

=cut

use strict;
use warnings;

use parent 'Exporter';

use Bench::Peer;
use Hubex::Client;
use Hubex::Node;
use IPC::Run;
use JSON::PP;
use List::Util qw(max min);
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(alternate cpu_seconds median option percentile poll ratio report spread thousands);

# Why it died belongs to what is seen of it.
$SIG{__DIE__} = sub { diag @_ unless $^S };

# Numbers of twelve digits, so that all requests have the same length, and fit the end of a UUID.
my $next_number = 100_000_000_001;

=head1 FUNCTIONS

=head2 option($name)

What the caller of C<make bench> chose, or the default, of which there are two: for a whole run and for a quick one.

=cut

my %default = (
	ROUNDS => [ 5, 3 ],
	N => [ 20_000, 5_000 ],
	CONCURRENCY => [ 64, 64 ],
	WAITING => [ 1_000_000, 100_000 ],    # rows that are in the way
	MINUTES => [ 2, 0.25 ],               # how long a snapshot is held
	ROWS => [ 10_000, 5_000 ],            # of a bulk insert
	MIRROR => [ 577_953, 60_000 ]);       # records of a list that is mirrored

sub option
{
	my ($name) = @_;
	my $chosen = $ENV{"HUBEX_BENCH_$name"};
	return defined $chosen && $chosen ne '' ? $chosen : $default{$name}[ $ENV{HUBEX_BENCH_QUICK} ? 1 : 0 ];
}

=head2 report($line)

A line of the report, which is Markdown.

=cut

sub report
{
	my ($line) = @_;
	note $line;
	open my $file, '>>', $ENV{HUBEX_BENCH_REPORT} or die "$ENV{HUBEX_BENCH_REPORT}: $!";
	print $file "$line\n";
	close $file or die "$ENV{HUBEX_BENCH_REPORT}: $!";
	return;
}

=head2 alternate($name => $code, ...)

Calls each code once to warm up, then ROUNDS times in turn. Returns what they returned, by name, as arrays.

=cut

sub alternate
{
	my @arms = @_;
	my %got;
	for my $round (0 .. option('ROUNDS'))
	{
		for (my $i = 0; $i < @arms; $i += 2)
		{
			my ($name, $code) = @arms[ $i, $i + 1 ];
			my $value = $code->();
			note "round $round, $name: ", ref $value ? encode_json($value) : $value;
			push @{ $got{$name} }, $value if $round > 0;
		}
	}
	return \%got;
}

=head2 median(@values), percentile($share, @values), spread(@values), ratio($a, $b), thousands($number)

C<spread> is the least and the greatest, C<thousands> a whole number as people read it.

=cut

sub percentile
{
	my ($share, @values) = @_;
	@values = sort { $a <=> $b } @values;
	return $values[ int($share * $#values + 0.5) ];
}

sub median { return percentile(0.5, @_) }

sub spread { return thousands(min @_) . '-' . thousands(max @_) }

sub ratio { return sprintf '%.2f', $_[1] ? $_[0] / $_[1] : 0 }

sub thousands
{
	my $text = sprintf '%.0f', $_[0];
	1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;
	return $text;
}

=head2 poll { code } $what, $seconds

Waits until the code returns true, and dies after the time.

=cut

sub poll(&@)
{
	my ($code, $what, $seconds) = @_;
	my $deadline = time + ($seconds // 60);
	until ($code->())
	{
		die "timed out: $what\n" if time > $deadline;
		usleep 10_000;
	}
	return;
}

=head2 cpu_seconds($pid)

What a process has used, to the hundredth.

=cut

sub cpu_seconds
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/stat" or die "process $pid: $!";
	my @field = split ' ', <$stat> =~ s/.*\) //sr;
	return ($field[11] + $field[12]) / 100;
}

=head1 METHODS

=head2 new(%conf)

A server with fsync, hubex and the connector C<bench>: a HubEx without a sign-in. C<%conf> are further settings.

=cut

sub new
{
	my ($class, %conf) = @_;
	my $self = bless {}, $class;

	$self->{node} = Hubex::Node->new(
		'bench',
		fsync => 1,
		shared_buffers => '256MB',
		max_wal_size => '8GB',
		checkpoint_timeout => '1h',
		log_temp_files => 0,
		%conf);
	$self->{client} = Hubex::Client->new($self->{node});
	$self->query('CREATE EXTENSION hubex');
	my $manifest = encode_json($self->_manifest);
	$self->query("INSERT INTO hubex.connector (name, manifest) VALUES ('bench', \$json\$$manifest\$json\$)");

	# The fields of a record, in the order in which jsonb keeps them.
	$self->{fields} = $self->query(
		q(SELECT jsonb_build_object('taskTypeID', 1, 'requestMethodID', 4, 'erpID', 'order-{n}', 'notes',
			'Refrigerator does not cool, customer asks for a call before the visit', 'contactPerson', 'A. Example',
			'contactPhone', '+7 900 000-00-00', 'contactEmail', 'example@example.org')::text));
	return $self;
}

sub _manifest
{
	my ($self) = @_;
	my $manifest = decode_json($self->query(q(SELECT manifest FROM hubex.connector WHERE name = 'hubex')));
	my $resources = $manifest->{resources};
	delete @$manifest{qw(options credentials headers)};
	return {
		%$manifest,
		connector => 'bench',
		title => 'What the bench talks to',
		sign_in => { mechanism => 'none' },
		resources => { map { $_ => $resources->{$_} } qw(tasks assets) } };
}

=head2 node, query($sql), query($sql, $seconds)

=cut

sub node { return $_[0]{node} }

sub query
{
	my ($self, $sql, $seconds) = @_;
	return $self->{client}->query($sql, $seconds // 600);
}

=head2 server($name, $peer, %options)

A foreign server at a peer, without a limit of requests.

=cut

sub server
{
	my ($self, $name, $peer, %option) = @_;
	%option = (
		connector => 'bench',
		url => $peer->url,
		rate_limit => 'none',
		max_connections => option('CONCURRENCY'),
		%option);
	my $options = join ', ', map { "$_ '$option{$_}'" } sort keys %option;
	$self->query("CREATE SERVER $name FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name");
	return;
}

=head2 calls($server, $n), creates($server, $n)

SQL that enqueues so many in one transaction: calls without an ordering key, or creates with a natural key.

=cut

sub calls
{
	my ($self, $server, $n) = @_;
	return $self->_enqueue("hubex_enqueue('POST', '/call/' || n, replace(body, '{n}', n::text)::jsonb,
		server => '$server')", $n);
}

sub creates
{
	my ($self, $server, $n) = @_;
	return $self->_enqueue("hubex_create('tasks', replace(body, '{n}', n::text)::jsonb,
		server => '$server')", $n);
}

sub _enqueue
{
	my ($self, $call, $n) = @_;
	my $from = $next_number;
	$next_number += $n;
	return sprintf q(SELECT count(%s) FROM generate_series(%d, %d) n, (VALUES ($body$%s$body$)) b (body)),
	  $call, $from, $next_number - 1, $self->{fields};
}

=head2 curl_multi($peer, $kind, $n, $concurrency)

The same requests (C<calls> or C<creates>) by the plain program; returns C<rate>, C<cpu> for 1,000 and C<bytes> of one.

=cut

sub curl_multi
{
	my ($self, $peer, $kind, $n, $concurrency) = @_;
	my $from = $next_number;
	$next_number += $n;
	my @headers = ('Content-Type: application/json');
	push @headers, 'X-Concurrency-Stamp: 00000000-0000-4000-8000-{n}' if $kind eq 'creates';

	$peer->forget;
	open my $program, '-|', "$ENV{HUBEX_BENCH_BIN}/curl_multi",
	  $peer->url . ($kind eq 'creates' ? '/WORK/Tasks' : '/call/{n}'), $self->{fields}, $from, $n, $concurrency, @headers
	  or die "curl_multi: $!";
	my ($seconds, $cpu, $failures) = split ' ', <$program>;
	close $program or die "curl_multi: $failures of $n failed\n";
	$peer->wait_for($n);
	$peer->must_have(map { $kind eq 'creates' ? "00000000-0000-4000-8000-$_" : "/call/$_" } $from .. $from + $n - 1);
	return { rate => $n / $seconds, cpu => 1000 * $cpu / $n, bytes => $peer->bytes };
}

=head2 worker

Its process id.

=head2 hold, release

The worker stops where it stands, which is at rest, and goes on. Commits wake it as always, and nothing is delivered.

=cut

sub worker
{
	my ($self) = @_;
	poll { $self->{worker} = $self->query(q(SELECT pid FROM hubex.worker_state() WHERE state = 'running')) } 'the worker';
	return $self->{worker};
}

sub hold
{
	my ($self) = @_;
	my $pid = $self->worker;
	poll
	{
		kill 'STOP', $pid;
		my $rests = $self->query("SELECT wait_event IS NOT NULL AND backend_xid IS NULL AND backend_xmin IS NULL
			FROM pg_stat_activity WHERE pid = $pid") eq 't';
		kill 'CONT', $pid unless $rests;
		$rests;
	}
	'the worker rests';
	return;
}

sub release { return kill 'CONT', $_[0]{worker} }

=head2 reset

An empty outbox, and a checkpoint.

=cut

sub reset
{
	my ($self) = @_;
	$self->query('TRUNCATE hubex.outbox');
	$self->query('CHECKPOINT');
	return;
}

=head2 round($peer, $sql, $n)

Enqueues with the SQL, and measures how its N requests are delivered. Other rows in the outbox may stay as they are.
Returns C<rate>, and for 1,000 requests the seconds of CPU and the bytes of WAL of both halves: C<enqueue_cpu>,
C<enqueue_wal>, C<deliver_cpu>, C<deliver_wal>; and C<bytes> of one.

=cut

sub round
{
	my ($self, $peer, $sql, $n) = @_;
	my %cost;

	$peer->forget;
	$self->hold;
	my $before = $self->query('SELECT clock_timestamp()');
	my @enqueue = $self->_usage($self->{client}->pid);
	$self->query($sql);
	@cost{qw(enqueue_cpu enqueue_wal)} = $self->_since($n, @enqueue);

	my @deliver = $self->_usage($self->worker);
	my $started = time;
	$self->release;
	$peer->wait_for($n, 60 + $n / 100);
	my $ended = $self->_all_delivered($before, $n);
	@cost{qw(deliver_cpu deliver_wal)} = $self->_since($n, @deliver);
	$peer->must_have(split /\n/,
		$self->query("SELECT CASE operation WHEN 'create' THEN stamp::text ELSE path END FROM hubex.outbox
			WHERE state = 'delivered' AND created_at >= '$before'"));
	return { %cost, rate => $n / (max($ended, $peer->ended) - $started), bytes => $peer->bytes };
}

# Waits until all that was enqueued since a time is recorded as delivered; the last of it, as a time.
sub _all_delivered
{
	my ($self, $since, $n) = @_;
	my ($left, $delivered, $last);
	poll
	{
		($left, $delivered, $last) = split /\|/,
		  $self->query("SELECT count(*) FILTER (WHERE state <> 'delivered'), count(*) FILTER (WHERE state = 'delivered'),
			extract(epoch FROM max(delivered_at)) FROM hubex.outbox WHERE created_at >= '$since'");
		$left == 0;
	}
	'all are recorded as delivered';
	die "$delivered of $n were delivered\n" if $delivered != $n;
	return $last;
}

sub _usage
{
	my ($self, $pid) = @_;
	return ($pid, cpu_seconds($pid), $self->query(q(SELECT pg_current_wal_insert_lsn() - '0/0')));
}

sub _since
{
	my ($self, $n, $pid, @before) = @_;
	my (undef, @after) = $self->_usage($pid);
	return map { 1000 * ($after[$_] - $before[$_]) / $n } 0, 1;
}

=head2 peak_memory

Of the worker, in MB, since it started.

=cut

sub peak_memory
{
	my ($self) = @_;
	my $pid = $self->worker;
	open my $status, '<', "/proc/$pid/status" or die "process $pid: $!";
	my ($kilobytes) = map { /^VmHWM:\s+(\d+)/ } <$status>;
	return $kilobytes / 1024;
}

=head2 seconds($sql)

How long a statement takes, with its commit.

=cut

sub seconds
{
	my ($self, $sql) = @_;
	my $answer = $self->{client}->try($sql, 600);
	die $answer->{error} if defined $answer->{error};
	return $answer->{took};
}

=head2 copy($id, $n, $change)

Puts so many more rows like one into the outbox, with some columns changed: C<< column = expression >>.

=cut

sub copy
{
	my ($self, $id, $n, $change) = @_;
	my %value = (stamp => 'gen_random_uuid()', defined $change ? $change =~ /^(\w+) = (.*)$/ : ());
	my @columns = split /\n/, $self->query(q(SELECT attname FROM pg_attribute
		WHERE attrelid = 'hubex.outbox'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'));
	$self->query(sprintf 'INSERT INTO hubex.outbox (%s) SELECT %s FROM hubex.outbox o, generate_series(1, %d) WHERE o.id = %d',
		join(', ', @columns), join(', ', map { $value{$_} // "o.$_" } @columns), $n, $id);
	return;
}

=head2 pgbench($script, %options)

Runs a pgbench script: C<rate> and C<seconds>, or C<transactions>; C<clients>. Returns what it printed.

=cut

sub pgbench
{
	my ($self, $script, %option) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	my @command = ('pgbench', '-n', '-M', 'prepared', '-c', $option{clients} // 1, '-f', $file,
		$option{rate} ? ('-R', $option{rate}) : (),
		$option{seconds} ? ('-T', $option{seconds}) : ('-t', $option{transactions}),
		'-d', $self->{node}->connstr('postgres'));
	my ($out, $errors);
	IPC::Run::run(\@command, '<', \'', '>', \$out, '2>', \$errors) or die "pgbench: $errors";
	unlink $file;
	return $out;
}

=head2 end

Stops the server in an orderly way.

=cut

sub end
{
	my ($self) = @_;
	$self->{client}->end;
	$self->{node}->stop('fast');
	return;
}

1;
