#!/usr/bin/perl
# How fast a mirror is filled, beside COPY of the same rows into a table with the same primary key; what it takes of memory;
# and what bringing a few changes costs, as the mirror grows.

use strict;
use warnings;

use Bench;
use Bench::Records;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use constant {
	SAMPLE => 1000,      # records of a list that are different from each other
	CHANGED => 50,       # tasks that an incremental run brings
	FIRST_TASK => 100_000 };

my $folder = PostgreSQL::Test::Utils::tempdir();
srand 7;
my @assets = map { asset($_) } 1 .. SAMPLE;
my @tasks = map { task($_) } 1 .. CHANGED;
my $bench = Bench->new(shared_buffers => '1GB', jit => 'off', log_min_messages => 'error');
$bench->query('SET client_min_messages = error');
filling();
changes();
$bench->end;
ok(1, 'measured');
done_testing;

# A peer's table, in a schema of the server's name.
sub table_of
{
	my ($server, $peer, $service, $table) = @_;
	$bench->server($server, $peer, page_size => 10_000);
	$bench->query("CREATE SCHEMA $server; IMPORT FOREIGN SCHEMA \"$service\" LIMIT TO ($table) FROM SERVER $server INTO $server");
	return;
}

# What a process has used of CPU, in milliseconds.
sub cpu
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/schedstat" or die "process $pid: $!";
	return (split ' ', <$stat>)[0] / 1e6;
}

# Runs a statement in a session; how long it took, and its CPU, in milliseconds.
sub timed
{
	my ($client, $sql) = @_;
	my $cpu = cpu($client->pid);
	my $answer = $client->try($sql, 900);
	die $answer->{error} if defined $answer->{error};
	return { took => 1000 * $answer->{took}, cpu => cpu($client->pid) - $cpu };
}

# The peak of a process, in MB, but for the memory of files and of the server that it shares.
sub peak
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or die "process $pid: $!";
	my %kilobytes = map { /^(\w+):\s+(\d+) kB/ } <$status>;
	return ($kilobytes{VmHWM} - $kilobytes{RssFile} - $kilobytes{RssShmem}) / 1024;
}

sub session
{
	my $client = Hubex::Client->new($bench->node);
	$client->query('SET client_min_messages = error');
	return $client;
}

# A mirror is filled, with hubex_subscribe's own target; the table beside it has its columns and its primary key.
sub filling
{
	my $n = option('MIRROR');
	my $peer = Bench::Peer->list(sample("$folder/assets", @assets), $n, 0);
	my %peak;

	table_of('list', $peer, 'ES', 'assets');
	my $fill = sub {
		my $client = session();
		$client->query(q(SELECT hubex_subscribe('list', 'list.assets', 'mirror', every => NULL)));
		$client->query('CHECKPOINT');
		my $timed = timed($client, q(CALL hubex_sync('list', 'full')));
		my $rows = $client->query('SELECT count(*) FROM mirror');
		die "$rows of $n rows\n" if $rows != $n;
		$peak{all} = peak($client->pid);
		return $timed;
	};
	my $clear = sub { $bench->query(q(SELECT hubex_unsubscribe('list'); DROP TABLE mirror)) };
	my $file = "$folder/copy";

	$fill->();
	$bench->query("COPY mirror TO '$file'; CREATE TABLE copied (LIKE mirror INCLUDING ALL)");
	my $bytes = -s $file;
	$clear->();
	my $got = alternate(
		hubex => sub { my $timed = $fill->(); $clear->(); return $timed },
		copy => sub {
			my $client = session();
			$client->query('TRUNCATE copied; CHECKPOINT');
			return timed($client, "COPY copied FROM '$file'");
		});

	report('## Filling a mirror');
	report('');
	report(sprintf '%s assets from a server on the same machine, in pages of 10,000, into the table that hubex_subscribe makes: %d columns, '
		  . 'raw among them, and a primary key; fsync on. Beside it, COPY of the same rows, as text (%.0f MB), into a table like it. Medians of %d alternating rounds.',
		thousands($n), $bench->query(q(SELECT count(*) FROM pg_attribute WHERE attrelid = 'copied'::regclass AND attnum > 0)), $bytes / 1e6, option('ROUNDS'));
	report('');
	report('| | rows/s (least-most) | ratio | CPU of the process, 1,000 rows | ratio |');
	report('| --- | --- | --- | --- | --- |');
	my %rate = map { my $arm = $_; ($arm => [ map { 1000 * $n / $_->{took} } @{ $got->{$arm} } ]) } keys %$got;
	my %cpu = map { my $arm = $_; ($arm => median(map { 1000 * $_->{cpu} / $n } @{ $got->{$arm} })) } keys %$got;
	for my $arm ('hubex', 'copy')
	{
		report(sprintf '| %s | %s (%s) | %s | %.1f ms | %s |', $arm eq 'copy' ? 'COPY' : 'hubex_sync, requests and all',
			thousands(median(@{ $rate{$arm} })), spread(@{ $rate{$arm} }), ratio(median(@{ $rate{$arm} }), median(@{ $rate{copy} })),
			$cpu{$arm}, ratio($cpu{copy}, $cpu{$arm}));
	}
	report('');

	# the same with a list a tenth as long
	my $tenth = int($n / 10);
	my $short = Bench::Peer->list("$folder/assets", $tenth, 0);
	table_of('short', $short, 'ES', 'assets');
	my $client = session();
	$client->query(q(SELECT hubex_subscribe('short', 'short.assets', 'short_mirror', every => NULL); CALL hubex_sync('short', 'full')), 900);
	report(sprintf 'Peak memory of the process (VmHWM, less what it shares): %.1f MB after %s rows, %.1f MB after %s.',
		peak($client->pid), thousands($tenth), $peak{all}, thousands($n));
	report('');
	return;
}

# A page of changed tasks; with each that is made they are changed again.
my $version = 0;

sub make_page
{
	my ($file) = @_;
	my $json = JSON::PP->new->canonical;
	$version++;
	open my $handle, '>:utf8', "$file.new" or die "$file: $!";
	print $handle '{', join(',', map {
		sprintf '"%d":%s', FIRST_TASK + $_, $json->encode({ %{ $tasks[ $_ - 1 ] }, notes => "version $version",
			lastModified => sprintf('2026-01-%02dT%02d:%02d:00', 1 + int($version / 1440), int($version / 60) % 24, $version % 60) })
	} 1 .. CHANGED), '}';
	close $handle or die "$file: $!";
	chmod 0644, "$file.new";
	rename "$file.new", $file or die "$file: $!";
	return;
}

# Mirrors that have so many rows besides those that change; never analysed, as they are after they were filled.
sub changes
{
	my @sizes = (1000, 100_000, 600_000);
	my $page = "$folder/page";
	make_page($page);
	my $peer = Bench::Peer->pages(CHANGED, '1-1' => $page, '1-10000' => $page);
	table_of('changing', $peer, 'WORK', 'tasks');
	my $client = session();
	for my $size (@sizes)
	{
		$client->query("SELECT hubex_subscribe('of_$size', 'changing.tasks', 'of_$size', every => NULL); CALL hubex_sync('of_$size', 'full')");
		$client->query("ALTER TABLE of_$size SET (autovacuum_enabled = off)");
		my @columns = split /\n/, $client->query("SELECT attname FROM pg_attribute WHERE attrelid = 'of_$size'::regclass AND attnum > 0 AND attname <> 'id'");
		$client->query(sprintf 'INSERT INTO of_%d (id, %s) SELECT %d + n, %s FROM generate_series(1, %d) n JOIN of_%d o ON o.id = %d + n %% %d',
			$size, join(', ', @columns), FIRST_TASK + CHANGED, join(', ', map { "o.$_" } @columns), $size - CHANGED, $size, FIRST_TASK + 1, CHANGED);
		my $rows = $client->query("SELECT count(*) FROM of_$size");
		die "$rows rows of $size\n" if $rows != $size;
	}

	my $run = sub {
		my ($size, $expected) = @_;
		my $updated = "SELECT updated FROM hubex.subscription_state WHERE subscription = 'of_$size'";
		my $before = $client->query($updated);
		my $timed = timed($client, "CALL hubex_sync('of_$size', 'incremental')");
		my $times = $client->query($updated) - $before;
		die "$times rows were updated, not $expected\n" if $times != $expected;
		return $timed;
	};
	my $got = alternate(map {
		my $size = $_;
		("$size changed" => sub { make_page($page); return $run->($size, CHANGED) }, "$size same" => sub { return $run->($size, 0) })
	} @sizes);

	report('## What an incremental run costs');
	report('');
	report(sprintf 'A run that brings %d tasks, all columns, from nginx on the same machine: changed ones, and then the same ones again. The mirrors were never analysed. '
		  . 'Medians of %d alternating rounds; ratios to the smallest mirror, below 1 is worse.', CHANGED, option('ROUNDS'));
	report('');
	report('| rows of the mirror | changed: ms | CPU | ratio | the same: ms | CPU | ratio |');
	report('| --- | --- | --- | --- | --- | --- | --- |');
	my %middle;
	for my $arm (keys %$got)
	{
		$middle{$arm}{$_} = median(do { my $what = $_; map { $_->{$what} } @{ $got->{$arm} } }) for qw(took cpu);
	}
	for my $size (@sizes)
	{
		report(sprintf '| %s | %s |', thousands($size), join ' | ', map {
			sprintf('%.1f | %.1f ms | %s', $middle{"$size $_"}{took}, $middle{"$size $_"}{cpu}, ratio($middle{"$sizes[0] $_"}{cpu}, $middle{"$size $_"}{cpu}))
		} qw(changed same));
	}
	report('');
	return;
}
