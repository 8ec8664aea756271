# Joins that ask for many keys at once: the rows are those of a plain local copy, the requests are as few as can be.
#
# Each query runs on the foreign tables and, word for word, on copies of them; search_path makes the difference.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use List::Util qw(shuffle);
use Test::More;

my $sandbox = Hubex::Sandbox->new(seed => 27, tasks => 1500, assets => 300);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 500);

my $batch = qr/Custom Scan \(HubEx Batch Join\)/;
my $remote = 'SET search_path = fsm, public; SET hubex.max_requests_per_query = 0;';
my $local = 'SET search_path = loc, public;';

sub value { return $node->safe_psql('postgres', $_[0]) }

value(q{
	CREATE SCHEMA fsm;
	CREATE SCHEMA loc;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, tasks_conversations) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (companies) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ADM" LIMIT TO (users, users_asset_assignments) FROM SERVER fsm INTO fsm;
	CREATE TABLE loc.tasks AS SELECT * FROM fsm.tasks;
	CREATE TABLE loc.companies AS SELECT * FROM fsm.companies;
	CREATE TABLE loc.users_asset_assignments AS SELECT * FROM fsm.users_asset_assignments WHERE user_id IN (SELECT id FROM fsm.users);
	SET hubex.max_requests_per_query = 0;
	CREATE TABLE loc.tasks_conversations AS SELECT * FROM fsm.tasks_conversations
		WHERE task_id = ANY (ARRAY(SELECT id FROM loc.tasks ORDER BY id LIMIT 60));

	-- What an ERP knows of tasks: more than one line for some, none for others, and ids nobody has.
	CREATE TABLE links (no int PRIMARY KEY, task_id bigint, task4 int, task2 smallint, company_id int, asset_id bigint,
		user_id bigint, erp_id text, word varchar(20), made timestamptz);
	INSERT INTO links
		SELECT n, t.id, t.id, t.id, CASE WHEN n % 11 > 0 THEN n % 19 END, t.asset_id, t.assigned_to_id, t.erp_id, t.erp_id,
			timestamptz '2026-01-01' - n * interval '1 hour'
		FROM (SELECT row_number() OVER (ORDER BY id)::int AS n, * FROM loc.tasks ORDER BY id LIMIT 400) t;
	UPDATE links SET task_id = NULL, task4 = NULL, task2 = NULL, erp_id = NULL WHERE no % 13 = 0;
	UPDATE links SET task_id = 9000000000 + no, task4 = -no, task2 = 3, erp_id = 'no such ключ & = %' || no WHERE no % 17 = 0;
	INSERT INTO links SELECT no + 1000, task_id, task4, task2, company_id, asset_id, user_id, erp_id, word, made + interval '30 minutes'
		FROM links WHERE no % 3 = 0;
	CREATE INDEX ON links (made);
	CREATE TABLE kids (no int, task_id bigint);
	INSERT INTO kids SELECT n, CASE WHEN n % 7 > 0 THEN (SELECT id FROM loc.tasks ORDER BY id OFFSET n % 23 LIMIT 1) END
		FROM generate_series(1, 60) n;
	ANALYZE;
});

my $session = Hubex::Session->new($node);

# The requests a query makes for the list of a path, all but sign-ins where none is given.
sub requests_of
{
	my ($sql, $path) = @_;
	$sandbox->clear_journal;
	value("$remote $sql");
	return scalar grep { defined $path ? $_->{path} =~ $path : $_->{path} !~ /AccessTokens/ } @{ $sandbox->journal };
}

# Same rows as the copy, joined in batches unless told otherwise.
sub same
{
	my ($sql, $what, %option) = @_;
	my $settings = $option{settings} // '';
	my $sorted = $option{ordered} ? $sql : "SELECT * FROM ($sql) q ORDER BY q::text";
	my $expected = $session->query("RESET ALL; $local $settings; $sorted");
	$sandbox->clear_journal;
	my $rows = $session->query("RESET ALL; $remote $settings; $sorted");
	my $requests = grep { $_->{path} !~ /AccessTokens/ } @{ $sandbox->journal };
	my $plan = $session->query("EXPLAIN (COSTS OFF) $sorted");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($rows, $expected, $what) or diag $plan;
	($option{plan} // ($option{batch} // 1) ? like($plan, $option{plan} // $batch, "$what: in batches") : unlike($plan, $batch, "$what: not in batches"))
		unless ($option{batch} // 1) == 2;
	is($requests, $option{requests}, "$what: requests") or diag $plan if exists $option{requests};
	return $plan;
}

# kinds of joins
my %join = (
	inner => 'SELECT l.no, t.id, t.number FROM links l JOIN tasks t ON t.id = l.task_id',
	left => 'SELECT l.no, t.id, t.number FROM links l LEFT JOIN tasks t ON t.id = l.task_id',
	semi => 'SELECT l.no FROM links l WHERE EXISTS (SELECT FROM tasks t WHERE t.id = l.task_id)',
	anti => 'SELECT l.no FROM links l WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = l.task_id)');
my $keys = value('SELECT count(DISTINCT task_id) FROM links WHERE task_id < 1e9');
my $chunks = int(($keys + 99) / 100);
same($join{$_}, "$_ join", requests => $chunks) for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.id = l.task4/r, "$_ join, int4 with int8", requests => $chunks) for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/l.task2 = t.id/r, "$_ join, int2 with int8, turned round", requests => $chunks) for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.id = l.task_id AND t.task_type_id <> l.no % 5/r, "$_ join, with a condition of both") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.id = l.task_id AND t.task_type_id = 2 AND l.no > 40/r, "$_ join, with conditions of each", batch => 2) for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.id = l.task_id + 1 - l.no % 2/r, "$_ join, by an expression") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.company_id = l.company_id AND l.no < 30/r, "$_ join, many rows of a key") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.company_id = l.company_id AND t.id = l.task_id/r, "$_ join, by two columns") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.assigned_to_id = l.user_id AND l.no < 30/r, "$_ join, by an inexact filter") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.asset_id = l.asset_id/r, "$_ join, chunks of a column that is not the id") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.erp_id = l.erp_id AND l.no < 30/r, "$_ join, by text") for sort keys %join;
same($join{$_} =~ s/t\.id = l\.task_id/t.erp_id = l.word AND l.no < 30/r, "$_ join, by varchar") for sort keys %join;
same('SELECT t.id, t.number FROM tasks t WHERE t.id IN (SELECT task_id FROM links)', 'the foreign table before IN', requests => $chunks);
same('SELECT t.* FROM links l JOIN tasks t ON t.id = l.task_id WHERE l.no < 30', 'whole rows', requests => 1);
same('SELECT l, t FROM links l LEFT JOIN tasks t ON t.id = l.task_id WHERE l.no < 30', 'rows as values', requests => 1);
same('SELECT l.no, t.id, t.tableoid IS NULL AS missing FROM links l LEFT JOIN tasks t ON t.id = l.task_id WHERE l.no < 30', 'system columns');
same('SELECT count(*), sum(t.id), max(l.no) FROM links l JOIN tasks t ON t.id = l.task_id', 'aggregates above');
same("SELECT l.no, t.id FROM links l LEFT JOIN (SELECT *, coalesce(number, 'none') AS shown FROM tasks) t ON t.id = l.task_id WHERE t.shown IS NULL",
	'a condition above a left join', requests => $chunks);
same("SELECT l.no, t.id FROM links l LEFT JOIN (SELECT * FROM tasks WHERE false) t ON t.id = l.task_id", 'a left join with nothing', batch => 0, requests => 0);
same("SELECT l.no, t.id FROM links l LEFT JOIN tasks t ON t.id = l.task_id AND false", 'a left join by nothing', batch => 0, requests => 0);
same("SELECT l.no, t.shown FROM links l LEFT JOIN (SELECT *, 'x' || l2.no AS shown FROM tasks t2 JOIN links l2 ON l2.task_id = t2.id) t ON t.id = l.task_id WHERE l.no < 50",
	'a join below a left join');
same('SELECT l.no, c.name, t.number FROM links l LEFT JOIN tasks t ON t.id = l.task_id LEFT JOIN companies c ON c.id = t.company_id WHERE l.no < 50',
	'two foreign tables', batch => 2);
same('SELECT a.no, t.id, u.id AS uid FROM links a LEFT JOIN tasks t ON t.id = a.task_id LEFT JOIN tasks u ON u.id = t.parent_id AND a.no > 3 WHERE t.id IS NULL OR u.id IS NULL',
	'a batch of what a batch gave');
same('SELECT k.no, c.id, c.message FROM kids k JOIN tasks_conversations c ON c.task_id = k.task_id', 'lists of parents',
	requests => value('SELECT count(DISTINCT task_id) FROM kids'));
same('SELECT k.no, c.id, c.message FROM kids k LEFT JOIN tasks_conversations c ON c.task_id = k.task_id', 'lists of parents, left');
same('SELECT k.no, c.id FROM kids k LEFT JOIN tasks_conversations c ON c.task_id = k.task_id', 'lists of parents are read by keys without pushdown, too',
	settings => 'SET hubex.pushdown = off');
same('SELECT user_id, asset_id FROM users_asset_assignments WHERE user_id = 3 AND asset_id IN (1, 14, 900)', 'a list of one parent and several values of another column',
	batch => 0, requests => 1);
same('SELECT k.no, a.user_id, a.asset_id FROM kids k JOIN users_asset_assignments a ON a.asset_id = k.no WHERE a.user_id = 3', 'a list of one parent by keys of another column',
	batch => 2, requests => 1);
same('SELECT k.no, a.user_id, a.asset_id FROM kids k JOIN users_asset_assignments a ON a.asset_id = k.no WHERE a.user_id IN (2, 3)', 'a list of several parents by keys of another column',
	batch => 2, requests => 2);
same($join{inner}, 'without pushdown', settings => 'SET hubex.pushdown = off', batch => 0);

# numbers of requests
is(requests_of('SELECT count(t.number) FROM (SELECT DISTINCT task_id FROM links WHERE task_id < 1e9 LIMIT 300) l JOIN tasks t ON t.id = l.task_id'),
	3, '300 keys are three requests');
is(requests_of('SELECT count(t.number) FROM links l JOIN tasks t ON t.id = l.task_id WHERE l.no <= 20'), 1, 'a join of 20 rows is one');
is(requests_of('SELECT count(t.number) FROM links l, generate_series(1, 50) JOIN tasks t ON true WHERE t.id = l.task_id AND l.no <= 20'), 1,
	'a thousand rows of few keys are one');
is(requests_of('SELECT count(t.number) FROM links l JOIN tasks t ON t.id = l.task_id WHERE l.no < 0'), 0, 'no rows are none');
is(requests_of('SELECT count(t.number) FROM links l LEFT JOIN tasks t ON t.id = l.task_id WHERE l.no % 13 = 0 AND l.no < 1000'), 0, 'nulls are none');
is(requests_of('SELECT count(t.number) FROM links l LEFT JOIN tasks t ON t.id = l.task_id WHERE l.no % 17 = 0 AND l.no < 1000 AND l.task_id > 1e9'), 0,
	'ids that no record can have are none');
is(requests_of('SELECT l.no FROM links l LEFT JOIN tasks t ON t.id = l.task_id'), 0, 'a left join whose columns nobody wants is none');
my $texts = value('SELECT count(DISTINCT erp_id) FROM links WHERE no < 30');
is(requests_of('SELECT count(t.number) FROM links l JOIN tasks t ON t.erp_id = l.erp_id WHERE l.no < 30'), $texts, 'a text key is one request');
is(scalar(grep { my $request = $_; !grep { $_->[0] eq 'erpID' } @{ $request->{query} } } @{ $sandbox->journal }), 0, 'and asks for nothing else');

# batches that end early
my $ordered = 'SELECT l.no, t.number FROM links l JOIN tasks t ON t.id = l.task_id ORDER BY l.made';
like(same("$ordered LIMIT 5", 'ORDER BY of the outer side and LIMIT', ordered => 1, requests => 1), qr/order kept/, 'keeps the order');
like(same('SELECT l.no, t.number FROM links l JOIN tasks t ON t.id = l.task_id ORDER BY l.word DESC NULLS LAST, l.no LIMIT 5', 'an order without an index', ordered => 1, requests => 1),
	qr/order kept.*Sort/s, 'is made below the join');
same("$ordered LIMIT 150", 'a longer LIMIT', ordered => 1, requests => 3);
same("$ordered OFFSET 30 LIMIT 5", 'OFFSET', ordered => 1, requests => 1);
same('SELECT l.no, t.number FROM links l LEFT JOIN tasks t ON t.id = l.task_id ORDER BY l.made LIMIT 40', 'left join in order', ordered => 1, requests => 1);
same('SELECT l.no FROM links l WHERE EXISTS (SELECT FROM tasks t WHERE t.id = l.task_id AND t.task_type_id < 4) ORDER BY l.made LIMIT 40', 'semi join in order', ordered => 1, requests => 1);
same('SELECT l.no FROM links l WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = l.task_id AND t.task_type_id < 4) ORDER BY l.made LIMIT 20', 'anti join in order', ordered => 1, requests => 1);
is(requests_of('SELECT l.no, t.number FROM links l JOIN tasks t ON t.id = l.task_id LIMIT 3'), 1, 'LIMIT without order');
cmp_ok(requests_of('SELECT l.no, t.number FROM (SELECT * FROM links WHERE no % 17 > 0 AND erp_id IS NOT NULL ORDER BY made) l JOIN tasks t ON t.erp_id = l.erp_id LIMIT 3'),
	'<=', 3, 'LIMIT of a join by text');

# memory of one batch, and what does not fit it
same($_, "little memory: $_", settings => "SET work_mem = '64kB'; SET hash_mem_multiplier = 1")
  for values %join, 'SELECT l.no, t.id FROM links l JOIN tasks t ON t.company_id = l.company_id WHERE l.no < 100';
same('SELECT l.no, t.id FROM links l LEFT JOIN tasks t ON t.company_id = l.company_id AND t.id > 1200 WHERE l.no < 200 ORDER BY l.made, t.id LIMIT 3000',
	'an order that is kept on disk', ordered => 1, settings => "SET work_mem = '64kB'; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off");

# rescans
my $loops = 'SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off';
same('SELECT s, l.no, t.id FROM generate_series(1, 3) s LEFT JOIN (links l JOIN tasks t ON t.id = l.task_id) ON l.no < s * 10', 'below a nested loop',
	settings => $loops);
same('SELECT s, q.* FROM generate_series(1, 4) s, LATERAL (SELECT l.no, t.id FROM links l LEFT JOIN tasks t ON t.id = l.task_id + s WHERE l.no BETWEEN s * 10 AND s * 10 + 5 OFFSET 0) q',
	'below LATERAL', requests => 4);
same('SELECT s, q.* FROM generate_series(1, 4) s, LATERAL (SELECT l.no, t.id FROM links l JOIN tasks t ON t.id = l.task_id WHERE l.no < s * 100 ORDER BY l.made LIMIT s) q',
	'below LATERAL with LIMIT', requests => 4);
same('SELECT s, (SELECT count(t.number) FROM links l JOIN tasks t ON t.id = l.task_id WHERE l.no < s * 10) FROM generate_series(0, 3) s OFFSET 0', 'in a correlated subquery',
	requests => 3);
same('SELECT l.no FROM links l WHERE l.no < 10 AND l.task_id IN (SELECT t.id FROM links m JOIN tasks t ON t.id = m.task_id WHERE m.no < 20)', 'in a subquery');
same('WITH RECURSIVE up AS (SELECT id, parent_id, 1 AS depth FROM loc.tasks WHERE parent_id IS NOT NULL UNION ALL SELECT t.id, t.parent_id, depth + 1 FROM up JOIN tasks t ON t.id = up.parent_id) SELECT * FROM up',
	'in a recursive query');
same('SELECT l.no, q.number FROM links l, LATERAL (SELECT t.number, l.no + 1 AS x FROM tasks t WHERE t.id = l.task_id) q WHERE q.x < 30', 'LATERAL that is a plain join');
same('SELECT l.no, (SELECT number FROM tasks t WHERE t.id = l.task_id) AS number FROM links l WHERE l.no < 8', 'a subquery for each row', batch => 0);
same('SELECT l.no, q.id FROM links l CROSS JOIN LATERAL (SELECT t.id FROM tasks t WHERE t.task_type_id = l.company_id ORDER BY t.id DESC LIMIT 1) q WHERE l.no < 60',
	'a lateral LIMIT for each of few values', batch => 2);
same('SELECT l.no, t.id FROM links l JOIN tasks t ON t.id = l.task_id OR t.id = l.no + 1000 WHERE l.no < 10', 'OR of two keys', batch => 0);
value("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)");
same('SELECT l.no, t.id FROM links l JOIN tasks t ON t.erp_id = l.erp_id COLLATE loose WHERE l.no < 10', 'texts that differ and are equal', batch => 0);
same('SELECT l.no, t.id FROM links l FULL JOIN tasks t ON t.id = l.task_id', 'a full join', batch => 0);

# cursors
is(value("$remote BEGIN; DECLARE c CURSOR FOR $ordered; MOVE 7 IN c; FETCH 3 FROM c"), value("$local $ordered OFFSET 7 LIMIT 3"), 'a cursor');
is(value("$remote BEGIN; DECLARE c SCROLL CURSOR FOR $ordered; MOVE 9 IN c; FETCH BACKWARD 2 FROM c"),
	join("\n", reverse split /\n/, value("$local $ordered OFFSET 6 LIMIT 2")), 'a cursor that goes back');
is(value("$remote BEGIN; DECLARE c CURSOR WITH HOLD FOR $ordered; COMMIT; MOVE 7 IN c; FETCH 3 FROM c"), value("$local $ordered OFFSET 7 LIMIT 3"), 'a cursor WITH HOLD');
is(requests_of("BEGIN; DECLARE c CURSOR FOR $ordered; FETCH 3 FROM c; FETCH 3 FROM c"), 1, 'a cursor asks for what it gives');
is(requests_of("BEGIN; DECLARE c CURSOR FOR SELECT l.no, t.id FROM links l JOIN tasks t ON t.id = l.task_id; CLOSE c"), 0, 'or for nothing');
is(value("$remote DO \$\$ DECLARE r record; n int := 0; BEGIN FOR r IN $ordered LOOP n := n + 1; EXIT WHEN n = 4; END LOOP; PERFORM set_config('x.y', r.no::text, false); END \$\$; SELECT current_setting('x.y')"),
	value("$local SELECT no FROM ($ordered OFFSET 3 LIMIT 1) q"), 'a loop of PL/pgSQL that leaves');

# prepared statements
for my $mode ('force_generic_plan', 'force_custom_plan', 'auto')
{
	my $prepare = 'PREPARE p(int, int) AS SELECT count(t.number), sum(l.no) FROM links l LEFT JOIN tasks t ON t.id = l.task_id AND t.task_type_id <> $2 WHERE l.no < $1;';
	my $execute = join ' ', map { "EXECUTE p($_ * 40, $_);" } 1 .. 7;
	is(value("SET plan_cache_mode = $mode; $remote $prepare $execute"), value("$local $prepare $execute"), "seven executions, $mode");
}
is(value("$remote SET plan_cache_mode = force_generic_plan; PREPARE p(bigint) AS SELECT l.no, t.number FROM links l JOIN tasks t ON t.id = l.task_id AND \$1 > 5 WHERE l.no < 5; EXECUTE p(1); EXECUTE p(9)"),
	value("$local SELECT l.no, t.number FROM links l JOIN tasks t ON t.id = l.task_id WHERE l.no < 5"), 'a condition that no row decides');

# the planner's switches
for my $off ([], ['hashjoin'], ['nestloop'], ['mergejoin'], ['hashjoin', 'nestloop', 'mergejoin'], ['seqscan', 'sort'], ['material', 'memoize'])
{
	same($join{$_}, "$_ join without @$off", batch => 2, settings => join '; ', map { "SET enable_$_ = off" } @$off) for sort keys %join;
}
same($join{inner}, 'GEQO', settings => 'SET geqo_threshold = 2');
same('SELECT a.no, t.id, c.id AS cid FROM links a JOIN tasks t ON t.id = a.task_id JOIN links b ON b.no = a.no JOIN companies c ON c.id = b.company_id WHERE a.no < 40', 'GEQO of four tables',
	settings => 'SET geqo_threshold = 2', batch => 2);
same($join{left}, 'JIT', settings => 'SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0');
same($join{inner}, 'parallel settings', settings => 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0');

# one server per tenant: each partition is asked for the keys
$node->start_hubex($sandbox, server => 'south', page_size => 500);
value(q{
	CREATE TABLE fsm.every_task (tenant text, id bigint, number text, task_type_id bigint) PARTITION BY LIST (tenant);
	CREATE FOREIGN TABLE fsm.north_tasks (number text, tenant text OPTIONS (constant 'north'), id bigint, task_type_id bigint)
		SERVER fsm OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.south_tasks (tenant text OPTIONS (constant 'south'), id bigint, number text, task_type_id bigint)
		SERVER south OPTIONS (resource 'tasks', filter '{"isClosed": false}');
	ALTER TABLE fsm.every_task ATTACH PARTITION fsm.north_tasks FOR VALUES IN ('north');
	ALTER TABLE fsm.every_task ATTACH PARTITION fsm.south_tasks FOR VALUES IN ('south');
	CREATE TABLE loc.every_task AS
		SELECT 'north' AS tenant, id, number, task_type_id FROM loc.tasks UNION ALL
		SELECT 'south', id, number, task_type_id FROM loc.tasks WHERE NOT is_closed;
});
for my $async ('on', 'off')
{
	my $settings = "SET enable_async_append = $async";
	same($join{$_} =~ s/tasks t/every_task t/r, "$_ join with partitions, async $async", settings => $settings, requests => 2 * $chunks)
	  for sort keys %join;
	same('SELECT l.no, t.tenant, t.number FROM links l JOIN every_task t ON t.id = l.task_id AND t.task_type_id < 4 AND l.no % 2 = 1',
		"partitions and conditions, async $async", settings => $settings);
}
same("SELECT l.no, t.number FROM links l JOIN every_task t ON t.id = l.task_id WHERE t.tenant = 'south'", 'one of the partitions', requests => $chunks);
same('SELECT l.no, t.tenant, t.number FROM links l JOIN every_task t ON t.id = l.task_id ORDER BY l.made, t.tenant LIMIT 5', 'partitions in order', ordered => 1, requests => 2);
same('SELECT s, l.no, t.tenant FROM generate_series(1, 3) s LEFT JOIN (links l JOIN every_task t ON t.id = l.task_id) ON l.no < s * 10', 'partitions below a nested loop',
	settings => $loops);
same("SELECT l.no FROM links l WHERE EXISTS (SELECT FROM every_task t WHERE t.id = l.task_id AND t.number > '0') LIMIT 1000", 'a semi join with partitions that stops early');

# changes of local tables, rechecked where another transaction came first
my ($one, $two) = map { Hubex::Session->new($node) } 1, 2;
value('CREATE TABLE marks (no int PRIMARY KEY, task_id bigint, number text, version int DEFAULT 1); INSERT INTO marks SELECT no, task_id FROM links WHERE no < 20');
$one->query($remote);
$two->query($remote);
my $update = 'UPDATE marks m SET number = t.number FROM tasks t WHERE t.id = m.task_id AND m.version = 1';
like($two->query("EXPLAIN (COSTS OFF) $update"), $batch, 'UPDATE FROM: in batches');
$one->query('BEGIN; UPDATE marks SET version = 2 WHERE no = 3; UPDATE marks SET task_id = (SELECT task_id FROM marks WHERE no = 5) WHERE no = 4; UPDATE marks SET version = 1 WHERE no = 5');
$two->send($update);
value('SELECT 1');
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE marks m%'");
$one->query('COMMIT');
$two->finish;
is(value('SELECT string_agg(m.no::text, \',\' ORDER BY m.no) FROM marks m JOIN loc.tasks t ON t.id = m.task_id WHERE m.number IS DISTINCT FROM t.number'),
	'3,4', 'rows that changed meanwhile and match no more are left alone, others are changed');
is(value("$remote SELECT count(*) FROM (SELECT m.no, t.id FROM marks m JOIN tasks t ON t.id = m.task_id FOR UPDATE OF m) q"),
	value("$local SELECT count(*) FROM marks m JOIN tasks t ON t.id = m.task_id"), 'FOR UPDATE');
value("$remote DELETE FROM marks m USING tasks t WHERE t.id = m.task_id AND t.task_type_id = 1");
is(value("SELECT count(*) FROM marks m JOIN loc.tasks t ON t.id = m.task_id WHERE t.task_type_id = 1"), 0, 'DELETE USING');

# who may see what
value(q{
	CREATE ROLE clerk LOGIN;
	CREATE FUNCTION peep(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
		$$ BEGIN RAISE NOTICE 'peep % %', $1, $2; RETURN true; END $$;
	CREATE VIEW few_links WITH (security_barrier) AS SELECT * FROM links WHERE no < 100;
	CREATE VIEW fsm.tasks_but_threes WITH (security_barrier) AS SELECT * FROM fsm.tasks WHERE task_type_id <> 3;
	CREATE VIEW loc.tasks_but_threes WITH (security_barrier) AS SELECT * FROM loc.tasks WHERE task_type_id <> 3;
	GRANT USAGE ON SCHEMA fsm TO clerk;
	GRANT SELECT ON few_links, fsm.tasks_but_threes TO clerk;
});
same('SELECT l.no, t.id FROM few_links l JOIN tasks_but_threes t ON t.id = l.task_id', 'security barriers', batch => 2);
my (undef, undef, $notices) = $node->psql('postgres', "SET ROLE clerk; $remote SELECT count(*) FROM links l JOIN tasks_but_threes t ON t.id = l.task_id");
like($notices, qr/permission denied/, 'rights are looked at');
(undef, undef, $notices) = $node->psql('postgres', "SET ROLE clerk; $remote SELECT count(*) FROM few_links l JOIN tasks_but_threes t ON t.id = l.task_id AND peep(t.task_type_id::text, l.no::text)");
unlike($notices, qr/peep 3 /, 'no function of the user sees what a view hides');
like($notices, qr/peep 2 /, 'but it sees the rest');

# what the remote side refuses, and what a user stops
$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'status', status => 403, times => 1);
my ($status, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$remote $join{left}");
like($stderr, qr/42501/, 'a refusal is an error, not an unmatched row');
($status, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$remote SET hubex.max_requests_per_query = 2; $join{inner}");
like($stderr, qr/53400/, 'more requests than a query may make');
like(value("$remote EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) $join{inner}"), qr/Batches: 1\n\s+Keys: \d+\n/, 'EXPLAIN ANALYZE counts batches');

# whatever else: conditions, joins and limits, put together by chance
srand 27;
my @on = ('t.id = l.task_id', 'l.task4 = t.id', 't.company_id = l.company_id', 't.erp_id = l.erp_id', 't.asset_id = l.asset_id');
my @more = ('', '', ' AND t.task_type_id = 2', ' AND NOT t.is_closed', ' AND l.no % 2 = 0', ' AND t.id > l.task_id - 300', " AND t.created > '2025-01-01'", ' AND t.parent_id IS NULL');
my @where = ('l.no < 40', 'l.no BETWEEN 100 AND 130', 'l.no > 1300', 'l.company_id = 3 AND l.no < 500', 'l.task_id IS NULL AND l.no < 100');
my @order = ('ORDER BY l.made, t.id', 'ORDER BY l.made DESC, t.id LIMIT 7', 'ORDER BY l.no, t.id OFFSET 3 LIMIT 20', 'ORDER BY t.id DESC NULLS LAST, l.no LIMIT 10');
sub any_of { return $_[ int rand @_ ] }
my ($tried, @wrong) = (0);
for my $i (1 .. 60)
{
	my $on = any_of(@on) . any_of(@more);
	my $select = 'SELECT l.no, l.made, t.id, t.number, t.company_id';
	my $sql = any_of(
		"$select FROM links l JOIN tasks t ON $on WHERE " . any_of(@where) . any_of(@more) . ' ' . any_of(@order),
		"$select FROM links l LEFT JOIN tasks t ON $on WHERE " . any_of(@where) . ' ' . any_of(@order),
		"SELECT l.no, l.made FROM links l WHERE " . any_of(@where) . ' AND ' . any_of('', 'NOT ') . "EXISTS (SELECT FROM tasks t WHERE $on) ORDER BY l.made, l.no");
	my ($expected, $rows) = map { $session->query("RESET ALL; $_ $sql") } $local, $remote;
	$tried++;
	push @wrong, $sql if $expected ne $rows;
}
is_deeply(\@wrong, [], "$tried joins put together by chance");

done_testing;
