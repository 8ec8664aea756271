#!/usr/bin/perl
# How fast a remote list becomes rows, beside jsonb_each over the same bytes that are already in a local table; how soon
# the first row is there; what it takes of memory.

use strict;
use utf8;
use warnings;

use Bench;
use Bench::Records;
use Encode qw(encode_utf8);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use constant {
	TASKS => 10_000,
	PAGE => 1000,
	OVERLAP => 10,            # records that a page of that size begins before the end of the last one
	DISTANT_PAGES => 100,     # of a list far away
	DISTANT_MS => 20,
	MANY => option('WAITING') };

my $folder = PostgreSQL::Test::Utils::tempdir();
my $json = JSON::PP->new->canonical;
srand 7;
my @records = map { task($_) } 1 .. TASKS;
my @tasks = map { $json->encode($_) } @records;
my $bench = Bench->new(shared_buffers => '512MB', jit => 'off');
my @columns = @{ decode_json($bench->query(q(SELECT manifest #> '{resources,tasks,columns}' FROM hubex.connector WHERE name = 'bench'))) };
my %sets = (
	'3' => [qw(id task_type_id created)],
	'13' => [qw(id number notes erp_id task_type_id task_type_name task_stage_id company_id assigned_to_id
		created deadline closed last_modified)],
	'all but raw' => [ map { $_->{name} } grep { $_->{path} !~ /^\@(?:record|filter)/ } @columns ],
	'raw' => [qw(id raw)]);

# Runs a query to its end by a cursor that gives all its rows; times are in milliseconds.
$bench->query(q(
	SET hubex.max_requests_per_query = 0;
	SET cursor_tuple_fraction = 1;
	CREATE FUNCTION timed(sql text, OUT rows bigint, OUT first float8, OUT whole float8, OUT cpu float8) LANGUAGE plpgsql AS $$
	DECLARE
		c refcursor;
		r record;
		began timestamptz = clock_timestamp();
		used bigint = split_part(pg_read_file('/proc/self/schedstat'), ' ', 1);
	BEGIN
		OPEN c FOR EXECUTE sql;
		FETCH c INTO r;
		first = 1000 * extract(epoch FROM clock_timestamp() - began);
		MOVE FORWARD ALL FROM c;
		GET DIAGNOSTICS rows = ROW_COUNT;
		rows = rows + 1;
		whole = 1000 * extract(epoch FROM clock_timestamp() - began);
		cpu = (split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint - used) / 1e6;
		CLOSE c;
	END $$));

against_a_local_table();
far_away();
memory();
$bench->end;
ok(1, 'measured');
done_testing;

# The same records from nginx and from a local table, as text and as jsonb.
sub against_a_local_table
{
	my %pages;
	for (my $from = 1; $from <= TASKS - OVERLAP; $from += PAGE - OVERLAP)
	{
		my $till = $from + PAGE - 1;
		$pages{"$from-$till"} = page($from, $till);
	}
	my $one = Bench::Peer->pages(TASKS, '1-' . TASKS, page(1, TASKS));
	my $many = Bench::Peer->pages(TASKS, %pages);
	tasks_of('one_page', $one, page_size => TASKS);
	tasks_of('pages', $many, page_size => PAGE);

	# The bytes that nginx serves, page by page, neither compressed nor parsed; and parsed.
	$bench->query("CREATE TABLE as_text (body text); ALTER TABLE as_text ALTER body SET STORAGE EXTERNAL; CREATE TABLE as_jsonb (body jsonb)");
	for (my $from = 1; $from <= TASKS; $from += PAGE)
	{
		$bench->query(sprintf q(INSERT INTO as_text SELECT convert_from(pg_read_binary_file('%s'), 'UTF8')), page($from, $from + PAGE - 1));
	}
	$bench->query('INSERT INTO as_jsonb SELECT body::jsonb FROM as_text; VACUUM ANALYZE as_text, as_jsonb');
	my $bytes = $bench->query('SELECT sum(octet_length(body)) FROM as_text');

	report('## Reading a list');
	report('');
	report(sprintf '%s tasks, %.1f MB of JSON from nginx on the same machine, into typed columns; beside them the same columns of the '
		  . 'same bytes in a local table, by jsonb_each. Every value is counted; jit is off. Medians of %d alternating rounds; ratios to the text.',
		thousands(TASKS), $bytes / 1e6, option('ROUNDS'));
	report('');
	report('| columns | from | ms (least-most) | rows/s | ratio | CPU of the process, ms | ratio |');
	report('| --- | --- | --- | --- | --- | --- | --- |');
	for my $set ('3', '13', 'all but raw', 'raw')
	{
		my @names = @{ $sets{$set} };
		my $counts = join ', ', map { "count($_)" } @names;
		my $remote = "SELECT $counts FROM %s.tasks";
		my $local = "SELECT $counts FROM (SELECT " . join(', ', map { local_column($_) } @names) . ' FROM %s, jsonb_each(body::jsonb)) t';
		my %sql = (
			'nginx, one page' => sprintf($remote, 'one_page'),
			'nginx, pages of 1,000' => sprintf($remote, 'pages'),
			'a local table, text' => sprintf($local, 'as_text'),
			'a local table, jsonb' => sprintf($local, 'as_jsonb'));
		my @arms = sort { $b cmp $a } keys %sql;
		my %answers = map { $bench->query($_) => 1 } values %sql;
		die "not the same values: @{[ keys %answers ]}\n" if keys %answers != 1;
		my $got = alternate(map { my $sql = $sql{$_}; ($_ => sub { return timed($sql) }) } @arms);
		my (%all, %cpu);
		for my $arm (@arms)
		{
			$all{$arm} = [ map { $_->{all} } @{ $got->{$arm} } ];
			$cpu{$arm} = median(map { $_->{cpu} } @{ $got->{$arm} });
		}
		my ($text) = grep { /text/ } @arms;
		for my $arm (@arms)
		{
			report(sprintf '| %s | %s | %.0f (%s) | %s | %s | %.0f | %s |', $set, $arm, median(@{ $all{$arm} }), spread(@{ $all{$arm} }),
				thousands(1000 * TASKS / median(@{ $all{$arm} })), ratio(median(@{ $all{$text} }), median(@{ $all{$arm} })),
				$cpu{$arm}, ratio($cpu{$text}, $cpu{$arm}));
		}
	}

	my $names = join ', ', @{ $sets{13} };
	my %first = (
		'nginx, one page' => "SELECT $names FROM one_page.tasks",
		'nginx, pages of 1,000' => "SELECT $names FROM pages.tasks",
		'a local table, text' => 'SELECT ' . join(', ', map { local_column($_) } @{ $sets{13} }) . ' FROM as_text, jsonb_each(body::jsonb)');
	my $got = alternate(map { my $sql = $first{$_}; ($_ => sub { return timed($sql)->{first} }) } sort keys %first);
	report('');
	report('The first row of 13 columns: ' . join('; ', map { sprintf '%s %.1f ms', $_, median(@{ $got->{$_} }) } sort keys %first) . '.');
	report('');
	return;
}

# A list of many pages, each after a time: what is asked for ahead.
sub far_away
{
	my $size = 100;
	my $records = DISTANT_PAGES * ($size - 1) + 1;    # one record of overlap
	my $peer = Bench::Peer->list(sample("$folder/sample", @records[ 0 .. 99 ]), $records, DISTANT_MS);
	tasks_of('one_by_one', $peer, page_size => $size, max_connections => 1);
	tasks_of('ahead', $peer, page_size => $size, max_connections => 16);
	my $got = alternate(map { my $server = $_; ($server => sub { return timed("SELECT id, number FROM $server.tasks", $records) }) } 'one_by_one', 'ahead');
	report('## A list far away');
	report('');
	report(sprintf '%d pages of %d records, each page answered after %d ms; medians of %d rounds.', DISTANT_PAGES, $size, DISTANT_MS, option('ROUNDS'));
	report('');
	report('| pages asked for | first row | all rows | ratio |');
	report('| --- | --- | --- | --- |');
	my %all = map { my $server = $_; ($server => median(map { $_->{all} } @{ $got->{$server} })) } keys %$got;
	for my $server ('one_by_one', 'ahead')
	{
		report(sprintf '| %s | %.0f ms | %.0f ms | %s |', $server eq 'ahead' ? 'up to 16 at a time' : 'one by one',
			median(map { $_->{first} } @{ $got->{$server} }), $all{$server}, ratio($all{one_by_one}, $all{$server}));
	}
	report('');
	return;
}

# What a process that has read much holds more than one that has read little.
sub memory
{
	my $file = sample("$folder/sample", @records[ 0 .. 99 ]);
	my %peak;
	report('## Memory');
	report('');
	for my $records (TASKS, MANY)
	{
		my $peer = Bench::Peer->list($file, $records, 0);
		tasks_of("list_$records", $peer);
		my $client = Hubex::Client->new($bench->node);
		$client->query('SET hubex.max_requests_per_query = 0');
		my $answer = $client->query("SELECT count(id), count(notes), count(created) FROM list_$records.tasks", 600);
		die "$answer\n" if $answer !~ /^$records\|/;
		$peak{$records} = peak($client->pid);
	}
	report(sprintf 'Peak memory of the process (VmHWM, less what it shares): %.1f MB after %s rows in pages of 10,000, %.1f MB after %s.',
		$peak{ (TASKS) }, thousands(TASKS), $peak{ (MANY) }, thousands(MANY));
	report('');
	return;
}

# The peak of a process, in MB, but for the memory of files and of the server that it shares.
sub peak
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or die "process $pid: $!";
	my %kilobytes = map { /^(\w+):\s+(\d+) kB/ } <$status>;
	return ($kilobytes{VmHWM} - $kilobytes{RssFile} - $kilobytes{RssShmem}) / 1024;
}

# The table of a peer's tasks, in a schema of the server's name.
sub tasks_of
{
	my ($server, $peer, %option) = @_;
	$bench->server($server, $peer, %option);
	$bench->query("CREATE SCHEMA $server; IMPORT FOREIGN SCHEMA \"WORK\" LIMIT TO (tasks) FROM SERVER $server INTO $server");
	return;
}

# The milliseconds until a query's first row is there, until all are, and those of CPU that the process has used.
sub timed
{
	my ($sql, $expected) = @_;
	my %timed;
	(my $rows, @timed{qw(first all cpu)}) =
	  split /\|/, $bench->query("SELECT * FROM timed(\$sql\$$sql\$sql\$)");
	die "$rows of $expected rows\n" if defined $expected && $rows != $expected;
	return \%timed;
}

# A column as jsonb_each has it.
sub local_column
{
	my ($name) = @_;
	my ($column) = grep { $_->{name} eq $name } @columns;
	return "key::$column->{type} AS $name" if $column->{path} eq '@key';
	return "value AS $name" if $column->{path} eq '@record';
	my @names = split /\./, $column->{path};
	my $last = pop @names;
	my $object = join ' -> ', 'value', map { "'$_'" } @names;
	return "coalesce(jsonb_typeof($object -> '$last'), 'null') <> 'null' AS $name" if $column->{present};
	return "$object -> '$last' AS $name" if $column->{type} eq 'jsonb';
	return "$object ->> '$last' AS $name" if $column->{type} eq 'text';
	return "($object ->> '$last' || 'Z')::timestamptz AS $name" if $column->{type} eq 'timestamptz';
	return "($object ->> '$last')::$column->{type} AS $name";
}

# A file with the records of a page; what is behind the last one is not there.
sub page
{
	my ($from, $till) = @_;
	my $file = "$folder/$from-$till.json";
	$till = TASKS if $till > TASKS;
	open my $handle, '>:utf8', $file or die "$file: $!";
	print $handle '{', join(',', map { '"' . (100_000 + $_) . "\":$tasks[$_ - 1]" } $from .. $till), '}';
	close $handle or die "$file: $!";
	chmod 0644, $file;
	return $file;
}
