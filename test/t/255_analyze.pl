# ANALYZE of a foreign table: a few pages of the list tell how many rows there are and what is in them, however long it is.
#
# What is asked for is read from the sandbox's journal; what comes of it is compared with what the sandbox holds.

use strict;
use utf8;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 2345);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 100);
my $client = Hubex::Client->new($node);
$client->query('CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, task_types, tasks_conversations) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm');

my @all = @{ $sandbox->tasks };
my @alive = grep { !$_->{deleted} } @all;
my $type = (sort { $a->{taskTypeID} <=> $b->{taskTypeID} } @alive)[0]{taskTypeID};

subtest 'a long list' => \&long;
subtest 'a short list' => \&short;
subtest 'what the table leaves out' => \&left_out;
subtest 'pages that are shorter than asked for' => \&clamped;
subtest 'partitions' => \&partitions;
subtest 'what cannot be analyzed' => \&refusals;
subtest 'errors and cancel' => \&errors;
done_testing;

sub value { return $client->query($_[0]) }

# Pages that were asked for, as [from, till]; and HEADs.
sub pages
{
	my ($path) = @_;
	return map { [ $_->{headers}{range} =~ /^items=(\d+)-(\d+)$/ ] } grep { $_->{method} eq 'GET' && $_->{path} eq $path } @{ $sandbox->journal };
}

sub heads { return scalar grep { $_->{method} eq 'HEAD' } @{ $sandbox->journal } }

sub reltuples { return value("SELECT reltuples FROM pg_class WHERE oid = '$_[0]'::regclass") }

sub long
{
	is(reltuples('fsm.tasks'), -1, 'nothing is known at first');
	$sandbox->clear_journal;
	my $answer = $client->try('ANALYZE (VERBOSE) fsm.tasks');
	is($answer->{error}, undef, 'ANALYZE');
	my $n = @alive;
	like($answer->{notices}, qr/"tasks": the list has $n records, 500 of them read with 5 requests; 500 rows in sample, $n estimated total rows/, '... which says what it did');
	is(reltuples('fsm.tasks'), scalar @alive, 'the number of rows');
	my @pages = pages('/WORK/Tasks');
	is_deeply([ map { $_->[1] - $_->[0] + 1 } @pages ], [ (100) x 5 ], 'five pages') or diag explain \@pages;
	is_deeply([ map { $_->[0] } @pages ], [ map { 1 + int((@alive - 100) * $_ / 4) } 0 .. 4 ], 'from the first to the last record, at equal distances') or diag explain \@pages;
	is(heads(), 0, 'no other request');
	is(value(q(SELECT count(*) FROM pg_stats WHERE schemaname = 'fsm' AND tablename = 'tasks')), value(q(SELECT count(*) FROM pg_attribute WHERE attrelid = 'fsm.tasks'::regclass AND attnum > 0)),
		'every column has statistics');
	is(value(q(SELECT n_distinct FROM pg_stats WHERE schemaname = 'fsm' AND tablename = 'tasks' AND attname = 'id')), -1, 'ids differ');

	my $share = grep({ $_->{taskTypeID} == $type } @alive) / @alive;
	my $estimate = value("SELECT f FROM pg_stats, unnest(most_common_vals::text::bigint[], most_common_freqs) AS u (v, f) WHERE schemaname = 'fsm' AND tablename = 'tasks' AND attname = 'task_type_id' AND v = $type");
	cmp_ok(abs($estimate - $share), '<', 0.15, "the share of a value: $estimate where it is $share");
	my ($least, $greatest) = split / /, value(q(SELECT min(b) || ' ' || max(b) FROM pg_stats, unnest(histogram_bounds::text::bigint[]) b WHERE schemaname = 'fsm' AND tablename = 'tasks' AND attname = 'id'));
	my @ids = sort { $a <=> $b } map { $_->{id} } @alive;
	ok($least <= $ids[100] && $greatest >= $ids[-100], "both ends of the list are in it: $least to $greatest");

	my ($rows) = value("EXPLAIN SELECT * FROM fsm.tasks WHERE task_type_id = $type") =~ /rows=(\d+)/;
	cmp_ok(abs($rows - $share * @alive), '<', 0.2 * @alive, "the planner knows: $rows rows");
	value('SET default_statistics_target = 1');
	$sandbox->clear_journal;
	value('ANALYZE fsm.tasks (notes)');
	is(scalar pages('/WORK/Tasks'), 5, 'one column');
	value('RESET default_statistics_target');
}

sub short
{
	$sandbox->clear_journal;
	value('ANALYZE fsm.task_types');
	is(scalar @{ $sandbox->journal(path => '/WORK/TaskTypes') }, 1, 'one request for all of it');
	is(reltuples('fsm.task_types'), value('SELECT count(*) FROM fsm.task_types'), 'the number of rows');
	value(q(CREATE FOREIGN TABLE fsm.none (id bigint) SERVER fsm OPTIONS (resource 'tasks', filter '{"erpID": "no such"}'); ANALYZE fsm.none));
	is(reltuples('fsm.none'), 0, 'none at all');
	value(q(CREATE FOREIGN TABLE fsm.wide (id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks', page_size '10000')));
	$sandbox->clear_journal;
	value('ANALYZE fsm.wide');
	is(scalar pages('/WORK/Tasks'), 1, 'a list that fits into one page of the sample');
	is(reltuples('fsm.wide'), scalar @alive, '... is read whole');
}

sub left_out
{
	value(qq(CREATE FOREIGN TABLE fsm.typed (id bigint, task_type_id bigint, raw jsonb) SERVER fsm OPTIONS (resource 'tasks', filter '{"taskTypeID": $type}');
		CREATE FOREIGN TABLE fsm.everything (id bigint, tenant int OPTIONS (constant '7'), deleted timestamptz) SERVER fsm OPTIONS (resource 'tasks', include_deleted 'true');
		ANALYZE fsm.typed, fsm.everything));
	is(reltuples('fsm.typed'), scalar(grep { $_->{taskTypeID} == $type } @alive), 'the table\'s filter');
	is(reltuples('fsm.everything'), scalar @all, 'deleted records, where they are asked for');
	is(value(q(SELECT most_common_vals::text || most_common_freqs::text FROM pg_stats WHERE tablename = 'everything' AND attname = 'tenant')), '{7}{1}', 'a column of one value');
	cmp_ok(value(q(SELECT null_frac FROM pg_stats WHERE tablename = 'everything' AND attname = 'deleted')), '<', 1, 'some are deleted');
	value('ANALYZE fsm.assets');
	my $assets = value('SELECT count(*) FROM fsm.assets');
	cmp_ok(abs(reltuples('fsm.assets') - $assets), '<=', 0.1 * $assets, 'deleted records that come all the same are none of it');
}

sub clamped
{
	$sandbox->config(page_limit => 50);
	$sandbox->clear_journal;
	value('ANALYZE fsm.tasks');
	my @pages = pages('/WORK/Tasks');
	cmp_ok(scalar @pages, '<=', 6, 'no more requests') or diag explain \@pages;
	is(reltuples('fsm.tasks'), scalar @alive, 'the number of rows');
	cmp_ok($pages[-1][1], '>=', @alive - 50, 'up to the end');
	$sandbox->config(page_limit => 10_000);
}

sub partitions
{
	value(q(CREATE TABLE part (id bigint, tenant int, notes text) PARTITION BY LIST (tenant);
		CREATE TABLE part_local PARTITION OF part FOR VALUES IN (1);
		CREATE FOREIGN TABLE part_remote PARTITION OF part (tenant) FOR VALUES IN (2) SERVER fsm OPTIONS (resource 'tasks');
		ALTER FOREIGN TABLE part_remote ALTER tenant OPTIONS (ADD constant '2');
		INSERT INTO part SELECT g, 1, 'x' FROM generate_series(1, 1000) g));
	$sandbox->clear_journal;
	value('ANALYZE part');
	cmp_ok(heads(), '>=', 1, 'its length is asked for');
	is(reltuples('part'), 1000 + @alive, 'a partitioned table');
	my $share = value(q(SELECT f FROM pg_stats, unnest(most_common_vals::text::int[], most_common_freqs) AS u (v, f) WHERE tablename = 'part' AND inherited AND attname = 'tenant' AND v = 2));
	cmp_ok($share, '>', 0.1, "to the sample of which it gives its share: $share");
	value('DROP TABLE part');
}

sub refusals
{
	$sandbox->clear_journal;
	my $answer = $client->try('ANALYZE fsm.tasks_conversations');
	is($answer->{error}, undef, 'a list of one parent is no error');
	like($answer->{notices}, qr/WARNING:.*"tasks_conversations" can be read only for a given "task_id".*WARNING:.*skipping "tasks_conversations"/s, '... but skipped');
	is(scalar @{ $sandbox->journal }, 0, 'without a request');
	value('CREATE ROLE owner LOGIN; ALTER SCHEMA fsm OWNER TO owner; ALTER FOREIGN TABLE fsm.typed OWNER TO owner');
	is($client->try('ANALYZE fsm.typed')->{sqlstate}, '42501', 'the account is that of the table\'s owner');
	value('GRANT USAGE ON FOREIGN SERVER fsm TO owner; GRANT CREATE ON SCHEMA public TO owner');
	is($client->try('ANALYZE fsm.typed')->{error}, undef, '... who may use it then');
	my $other = Hubex::Client->new($node, user => 'owner');
	is($other->try('ANALYZE fsm.typed')->{error}, undef, '... and analyze the table');
}

sub errors
{
	my $before = reltuples('fsm.tasks');
	$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'status', status => 403, after => 2, times => 1);
	is($client->try('ANALYZE fsm.tasks')->{sqlstate}, '42501', 'a refusal is an error');
	is(reltuples('fsm.tasks'), $before, '... and changes nothing');
	$sandbox->clear_faults;
	$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'hang');
	$client->send('ANALYZE fsm.tasks');
	$node->wait_for(q(SELECT wait_event_type || ' ' || (SELECT count(*) FROM pg_stat_progress_analyze) FROM pg_stat_activity WHERE query LIKE 'ANALYZE%'), 'Extension 1', 'it waits, and says so');
	my $cancelled = time;
	$node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $client->pid . ')');
	my $answer = $client->answer;
	is($answer->{sqlstate}, '57014', 'it can be cancelled');
	cmp_ok($answer->{at} - $cancelled, '<', 1, 'at once');
	$sandbox->clear_faults;
	is($client->try('ANALYZE fsm.tasks')->{error}, undef, 'and done later');
	$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'status', status => 500, times => 1);
	is($client->try('ANALYZE fsm.tasks')->{error}, undef, 'what fails for a moment is asked for again');
}
