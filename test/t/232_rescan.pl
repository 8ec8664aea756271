# However a query is run, its rows are the same: prepared, generic, in functions, in cursors, again and again, locked, by
# another role, through views, beside parallel workers, while servers, mappings and connectors change.
#
# A local copy of the tasks is the measure: each query is run on the copy in the plainest way.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 1_200);
my $other = Hubex::Sandbox->new(tasks => 300, seed => 2);
my $node = Hubex::Node->new('main', max_parallel_workers => 4);
$node->start_hubex($sandbox, page_size => 300);
$node->start_hubex($other, server => 'far', page_size => 100);

$node->safe_psql('postgres', q{
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, tasks_conversations) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER far INTO public;
	ALTER FOREIGN TABLE tasks RENAME TO others;
	ALTER FOREIGN TABLE others SET SCHEMA fsm;
	CREATE SCHEMA copy;
	SET hubex.pushdown = off;
	CREATE TABLE copy.others AS SELECT * FROM fsm.others;
	CREATE TABLE copy.tasks AS SELECT * FROM fsm.tasks;
	CREATE TABLE keys AS SELECT row_number() OVER (ORDER BY id)::int AS n, id FROM copy.tasks WHERE id % 3 = 0;
	INSERT INTO keys VALUES (-1, 7), (-2, NULL);
	CREATE TABLE copy.tasks_conversations AS
		SELECT c.* FROM keys k, LATERAL (SELECT * FROM fsm.tasks_conversations c WHERE c.task_id = k.id OFFSET 0) c WHERE k.n <= 12 AND k.n > 0;
	ANALYZE copy.tasks; ANALYZE copy.others; ANALYZE keys; ANALYZE copy.tasks_conversations;
});

my ($id, $erp_id, $middle) = split /\|/, $node->safe_psql('postgres',
	'SELECT id, erp_id, created FROM copy.tasks WHERE erp_id IS NOT NULL ORDER BY created OFFSET 200 LIMIT 1');
my $ids = $node->safe_psql('postgres', 'SELECT array_agg(id) FROM keys WHERE n BETWEEN 5 AND 180');

# SQL with parameters, their types, and the values to run it with. Rows are compared in any order, but where one is given
# it is the order of them all.
my @queries = (
	[ 'SELECT id, number, notes FROM fsm.tasks WHERE id = $1', ['bigint'], [$id], [0], [undef], [-5], ['9223372036854775807'] ],
	[ 'SELECT id, number FROM fsm.tasks WHERE id = ANY ($1)', ['bigint[]'], [$ids], ['{}'], [undef], ["{NULL,$id,$id,1}"], ['{NULL}'] ],
	[ 'SELECT id FROM fsm.tasks WHERE id = ANY ($1) AND task_type_id = $2', [ 'bigint[]', 'int' ], [ $ids, 2 ], [ $ids, undef ] ],
	[ 'SELECT id FROM fsm.tasks WHERE erp_id = $1', ['text'], [$erp_id], ['нет "такого" & %'], [''], [undef] ],
	[ 'SELECT id FROM fsm.tasks WHERE created >= $1 AND created < $2', [ 'timestamptz', 'timestamptz' ],
		[ '2025-03-01', '2025-04-01' ], [ $middle, 'infinity' ], [ '-infinity', $middle ], [ $middle, $middle ], [ undef, $middle ] ],
	[ 'SELECT id FROM fsm.tasks WHERE is_closed = $1 AND task_type_id = $2', [ 'boolean', 'bigint' ], [ 'f', 2 ], [ 't', 2 ], [ undef, 2 ], [ 'f', 99 ] ],
	[ 'SELECT id FROM fsm.tasks WHERE company_id = ANY ($1) AND NOT is_closed', ['int[]'], ['{2,3}'], ['{}'], ['{NULL,5}'], [undef] ],
	[ 'SELECT id FROM fsm.tasks WHERE closed IS NULL AND task_type_id IN ($1, $2)', [ 'bigint', 'bigint' ], [ 3, 7 ], [ 3, 3 ], [ undef, 7 ] ],
	[ 'SELECT id FROM fsm.tasks WHERE assigned_to_id = $1', ['bigint'], [21], [undef] ],
	[ 'SELECT id FROM fsm.tasks WHERE task_type_id = $1 ORDER BY created DESC, id LIMIT $2 OFFSET $3', [ 'bigint', 'int', 'int' ],
		[ 2, 10, 0 ], [ 2, 10, 50 ], [ 2, undef, undef ], [ 2, 0, 0 ], [ 2, 10, 100_000 ], [ 2, 1000, 3 ] ],
	[ 'SELECT id FROM fsm.tasks WHERE notes LIKE $1 ORDER BY created, id LIMIT 7', ['text'], ['%Лифт%'], ['%'], [undef] ],
	[ 'SELECT count(*), $1 FROM fsm.tasks WHERE task_type_id = $1', ['bigint'], [2], [undef], [99] ],
	[ 'SELECT count(*) FROM fsm.tasks WHERE created < $1', ['timestamptz'], [$middle], [undef] ],
	[ 'SELECT k.n, t.number FROM keys k JOIN fsm.tasks t ON t.id = k.id WHERE k.n <= $1', ['int'], [7], [250], [-1], [undef] ],
	[ 'SELECT k.n, t.number FROM keys k LEFT JOIN fsm.tasks t ON t.id = k.id AND t.task_type_id = $2 WHERE k.n <= $1', [ 'int', 'bigint' ], [ 120, 2 ], [ 3, undef ] ],
	[ 'SELECT k.n FROM keys k WHERE k.n <= $1 AND NOT EXISTS (SELECT FROM fsm.tasks t WHERE t.id = k.id AND t.is_closed)', ['int'], [150] ],
	[ 'SELECT k.n, (SELECT t.number FROM fsm.tasks t WHERE t.id = k.id AND t.task_type_id = $1) FROM keys k WHERE k.n <= 10', ['bigint'], [2], [undef] ],
	[ 'SELECT k.n, c.message FROM keys k LEFT JOIN LATERAL (SELECT message FROM fsm.tasks_conversations c WHERE c.task_id = k.id ORDER BY c.id LIMIT $1) c ON true WHERE k.n BETWEEN 1 AND 12',
		['int'], [1], [undef] ],
	[ 'SELECT task_id, message FROM fsm.tasks_conversations WHERE task_id = $1', ['bigint'],
		[ $node->safe_psql('postgres', 'SELECT task_id FROM copy.tasks_conversations LIMIT 1') ], [undef] ],
	[ 'SELECT g, t.id FROM generate_series(1, $1) g, LATERAL (SELECT id FROM fsm.tasks WHERE task_type_id = g LIMIT 1 + 0 * g OFFSET 0) t WHERE t.id IS NULL', ['int'], [3] ],
	[ 'SELECT g, t.n FROM generate_series(1, $1) g, LATERAL (SELECT count(*) AS n FROM fsm.tasks WHERE task_type_id = g) t', ['int'], [7] ],
	[ 'SELECT c.id, p.number FROM fsm.tasks c JOIN fsm.tasks p ON p.id = c.parent_id WHERE c.task_type_id = $1', ['bigint'], [2] ],
	[ 'SELECT id FROM fsm.tasks WHERE task_type_id = $1 UNION ALL SELECT -id FROM fsm.tasks WHERE task_type_id = $1 AND is_closed', ['bigint'], [3], [undef] ],
	[ 'SELECT id, number FROM fsm.tasks WHERE task_type_id = $1 UNION ALL SELECT -id, number FROM fsm.others WHERE task_type_id = $1', ['bigint'], [2], [99] ],
	[ 'SELECT k.n, u.number FROM keys k, LATERAL (SELECT number FROM fsm.tasks WHERE id = k.id UNION ALL SELECT number FROM fsm.others WHERE id = k.id) u WHERE k.n <= $1',
		['int'], [9] ]);

# Ways to run a query that gives rows: a call -> SQL. What each says again and again it may say so many times.
my $loops = 'SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off; ';
my %ways = (
	'plain' => sub { $_[0]{plain} },
	'prepared, seven times' => sub { join ";\n", $_[0]{prepare}, ($_[0]{execute}) x 7 },
	'a generic plan' => sub { join ";\n", 'SET plan_cache_mode = force_generic_plan', $_[0]{prepare}, ($_[0]{execute}) x 2 },
	'a custom plan' => sub { join ";\n", 'SET plan_cache_mode = force_custom_plan', $_[0]{prepare}, ($_[0]{execute}) x 2 },
	'without pushdown' => sub { "SET hubex.pushdown = off; $_[0]{plain}" },
	'nested loops' => sub { "${loops}SET hubex.max_requests_per_query = 0; $_[0]{plain}" },
	'in plpgsql, seven times' => sub { join ";\n", $_[0]{function}, ($_[0]{select}) x 7 },
	'a cursor, in bits' => sub { "BEGIN; DECLARE c CURSOR FOR $_[0]{plain}; FETCH 3 FROM c; FETCH 5 FROM c; FETCH ALL FROM c; CLOSE c; COMMIT" },
	'a scrollable cursor, read again' => sub {
		"BEGIN; DECLARE c SCROLL CURSOR FOR $_[0]{plain}; MOVE FORWARD 4 FROM c; MOVE BACKWARD ALL FROM c; MOVE FORWARD ALL FROM c; MOVE BACKWARD ALL FROM c; FETCH ALL FROM c; COMMIT" },
	'a cursor that outlives its transaction' => sub { "BEGIN; DECLARE c CURSOR WITH HOLD FOR $_[0]{plain}; COMMIT; FETCH ALL FROM c; CLOSE c" },
	'beside parallel workers' => sub { "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; $_[0]{plain}" },
	'compiled' => sub { "SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0; $_[0]{plain}" },
	'into a table' => sub { "CREATE TEMP TABLE r AS SELECT * FROM ($_[0]{plain}) q; TABLE r; DROP TABLE r" });
my %times = ('prepared, seven times' => 7, 'a generic plan' => 2, 'a custom plan' => 2, 'in plpgsql, seven times' => 7);

for my $query (@queries)
{
	my ($sql, $types, @arguments) = @$query;
	my $ordered = $sql =~ /ORDER BY [a-z]+( DESC)?, id LIMIT/;
	my @calls = map { call($sql, $types, $_) } @arguments;
	my @right = runs(map { $_->{plain} =~ s/\bfsm\./copy./gr } @calls);
	for my $way (sort keys %ways)
	{
		my @got = runs(map { $ways{$way}->($_) } @calls);
		my @wrong = grep { defined } map
		{
			my @wanted = (@{ $right[$_] }) x ($times{$way} // 1);
			my @rows = @{ $got[$_] // ['(not run)'] };
			unless ($ordered)
			{
				@wanted = sort @wanted;
				@rows = sort @rows;
			}
			"@rows" eq "@wanted" ? undef
			  : "with $calls[$_]{values}: " . @wanted . ' rows wanted, got ' . @rows . ': ' . join ', ', @rows[ 0 .. ($#rows > 3 ? 3 : $#rows) ]
		} 0 .. $#calls;
		ok(!@wrong, "$way: $sql") or diag join "\n", @wrong;
	}
}

# Rescans read anew what others have changed meanwhile, and only when asked to.
is(rows('SELECT count(*) FROM (SELECT t.id FROM generate_series(1, 4) g, fsm.tasks t) q'), 4 * rows('SELECT count(*) FROM copy.tasks'), 'a list four times');
$sandbox->clear_journal;
rows($loops . 'SET enable_material = on; SELECT count(*) FROM generate_series(1, 40) g, fsm.tasks t WHERE t.task_type_id = 3');
is(requests(), 1, 'what does not depend on the row is read once');

# Two scans of one server, one in the other.
my $session = Hubex::Session->new($node);
$session->query('BEGIN; DECLARE a CURSOR FOR SELECT id FROM fsm.tasks ORDER BY id; DECLARE b CURSOR FOR SELECT id FROM fsm.tasks ORDER BY id DESC');
my @both = map { $session->query("FETCH 400 FROM a; FETCH 400 FROM b") } 1 .. 3;
is(join("\n", sort split /\n/, join "\n", @both), rows('SELECT id FROM copy.tasks UNION ALL SELECT id FROM copy.tasks'), 'two cursors by turns');
$session->query('COMMIT');
is($session->query(q{
	CREATE FUNCTION number_of(bigint) RETURNS text LANGUAGE sql AS 'SELECT number FROM fsm.tasks WHERE id = $1';
	SELECT count(*), count(*) FILTER (WHERE number_of(id) = number) FROM fsm.tasks WHERE id < 1030}),
	rows('SELECT count(*), count(*) FROM copy.tasks WHERE id < 1030'), 'a function that reads, called while reading');

# Errors in the middle: what is open is closed, and the session goes on.
$session->query('BEGIN; SAVEPOINT s; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks; FETCH 1 FROM c');
like($session->query('SELECT 1 / (id - id) FROM fsm.tasks'), qr/22012/, 'an error in the middle of a list');
is($session->query('ROLLBACK TO s; SELECT count(*) FROM fsm.tasks; COMMIT'), rows('SELECT count(*) FROM copy.tasks'), 'and on, after ROLLBACK TO');
is($session->query(q{DO $$ DECLARE n int; BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			FOR n IN SELECT id FROM fsm.tasks ORDER BY id LOOP
				IF n > 1100 THEN RAISE division_by_zero; END IF;
			END LOOP;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
	IF (SELECT count(id + 0) FROM fsm.tasks) <> (SELECT count(*) FROM copy.tasks) THEN RAISE 'wrong'; END IF;
END $$}), '', 'loops that are left early');
$session->query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks; FETCH 1 FROM c');
is($session->query('ROLLBACK; SELECT 1'), '1', 'a cursor that is left open by ROLLBACK');

# Locks: a foreign row cannot be locked, but what is joined with it can, and is looked at again when it has changed.
is(rows('SELECT id FROM fsm.tasks WHERE task_type_id = 3 FOR UPDATE'), rows('SELECT id FROM copy.tasks WHERE task_type_id = 3'), 'FOR UPDATE');
is(rows('SELECT t.id FROM keys k JOIN fsm.tasks t ON t.id = k.id FOR SHARE OF k'), rows('SELECT t.id FROM keys k JOIN copy.tasks t ON t.id = k.id'), 'FOR SHARE OF what is local');
$node->safe_psql('postgres', 'CREATE TABLE work AS SELECT n, id, 0 AS v FROM keys WHERE n BETWEEN 1 AND 20; ANALYZE work');
like(rows('EXPLAIN SELECT w.n FROM work w JOIN fsm.tasks t ON t.id = w.id FOR UPDATE OF w'), qr/Batch Join/, 'a join that asks for many keys at once is among what follows');
my $waiting = Hubex::Session->new($node);
for my $settings ('', $loops, 'SET enable_hashjoin = on; SET enable_nestloop = off;')
{
	$waiting->query("RESET ALL; $settings");
	for my $case (
		[ 'UPDATE work SET v = v + 1 WHERE n = 4', 'shows the new values of the row that was waited for',
			'SELECT w.n, w.v, t.number FROM work w JOIN %s.tasks t ON t.id = w.id WHERE w.n < 6 FOR UPDATE OF w' ],
		[ 'UPDATE work SET n = 100 WHERE n = 4', 'leaves out a row that is no longer meant',
			'SELECT w.n, t.number FROM work w JOIN %s.tasks t ON t.id = w.id WHERE w.n < 6 FOR UPDATE OF w' ],
		[ 'UPDATE work SET id = 7 WHERE n = 4', 'leaves out a row that no longer has a task',
			'SELECT w.n, t.number FROM work w JOIN %s.tasks t ON t.id = w.id WHERE w.n < 6 FOR UPDATE OF w' ],
		[ 'UPDATE work SET v = v + 1 WHERE n = 4', 'LEFT JOIN',
			'SELECT w.n, w.v, t.number FROM work w LEFT JOIN %s.tasks t ON t.id = w.id AND t.task_type_id = 2 WHERE w.n < 6 FOR UPDATE OF w' ],
		[ 'UPDATE work SET v = v + 1 WHERE n = 4', 'UPDATE ... FROM changes it twice',
			'UPDATE work w SET v = w.v + 10 FROM %s.tasks t WHERE t.id = w.id AND w.n < 6 RETURNING w.n, w.v, t.number' ],
		[ 'DELETE FROM work WHERE n = 4', 'leaves out a row that is gone',
			'SELECT w.n, t.number FROM work w JOIN %s.tasks t ON t.id = w.id WHERE w.n < 6 FOR UPDATE OF w' ])
	{
		my ($change, $what, $sql) = @$case;
		$session->query("BEGIN; $change");
		$waiting->send('BEGIN; ' . sprintf $sql, 'fsm');
		$node->wait_for("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'", 't', "$settings$what: it waits");
		$session->query('COMMIT');
		my $got = sorted($waiting->finish);
		$waiting->query('ROLLBACK');
		is($got, sorted($waiting->query('BEGIN; ' . sprintf($sql, 'copy') . '; ROLLBACK')), "$settings$what");
		$session->query('TRUNCATE work; INSERT INTO work SELECT n, id, 0 FROM keys WHERE n BETWEEN 1 AND 20');
	}
}

# Cached plans, while what they were made from changes.
$session = Hubex::Session->new($node);
$session->query('SET plan_cache_mode = force_generic_plan; PREPARE p(bigint) AS SELECT count(id + 0) FROM fsm.tasks WHERE task_type_id = $1');
my ($here, $there) = map { scalar grep { !$_->{deleted} && $_->{taskTypeID} == 2 } @{ $_->tasks } } $sandbox, $other;
is($session->query('EXECUTE p(2)'), $here, 'a cached plan');
$node->safe_psql('postgres', sprintf q{ALTER SERVER fsm OPTIONS (SET url '%s')}, $other->url);
is($session->query('EXECUTE p(2)'), $there, 'ALTER SERVER: it reads from there');
$node->safe_psql('postgres', sprintf q{ALTER SERVER fsm OPTIONS (SET url '%s')}, $sandbox->url);
is($session->query('EXECUTE p(2)'), $here, 'and back');
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (SET service_token 'wrong')});
like($session->query('EXECUTE p(2)'), qr/28000/, 'ALTER USER MAPPING: the new credentials count');
$node->safe_psql('postgres', sprintf q{ALTER USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (SET service_token '%s')}, $sandbox->service_token);
is($session->query('EXECUTE p(2)'), $here, 'and the right ones again');
$node->safe_psql('postgres', q{ALTER FOREIGN TABLE fsm.tasks OPTIONS (ADD filter '{"isClosed": false}')});
is($session->query('EXECUTE p(2)'), (scalar grep { !$_->{deleted} && !$_->{closed} && $_->{taskTypeID} == 2 } @{ $sandbox->tasks }), 'ALTER FOREIGN TABLE: its filter counts');
$node->safe_psql('postgres', q{ALTER FOREIGN TABLE fsm.tasks OPTIONS (DROP filter)});
$node->safe_psql('postgres', q{UPDATE hubex.connector SET manifest = (SELECT jsonb_set(manifest, ARRAY['resources', 'tasks', 'columns', (n - 1)::text],
	'{"name": "task_type_id", "type": "bigint", "path": "taskType.id"}') FROM jsonb_array_elements(manifest #> '{resources,tasks,columns}') WITH ORDINALITY AS c (value, n)
	WHERE value ->> 'name' = 'task_type_id') WHERE name = 'hubex'});
$sandbox->clear_journal;
is($session->query('EXECUTE p(2)'), $here, 'UPDATE hubex.connector: a column that cannot be asked for any more is looked at here');
is((grep { grep { $_->[0] eq 'taskTypeID' } @{ $_->{query} } } @{ $sandbox->journal(path => '/WORK/Tasks') }), 0, 'and not sent');
$node->safe_psql('postgres', q{UPDATE hubex.connector SET manifest = (SELECT jsonb_set(manifest, ARRAY['resources', 'tasks', 'columns', (n - 1)::text],
	'{"name": "task_type_id", "type": "bigint", "path": "taskType.id", "filter": {"equal": "taskTypeID", "several": true, "exact": true}}')
	FROM jsonb_array_elements(manifest #> '{resources,tasks,columns}') WITH ORDINALITY AS c (value, n)
	WHERE value ->> 'name' = 'task_type_id') WHERE name = 'hubex'});
$sandbox->clear_journal;
is($session->query('EXECUTE p(2)'), $here, 'and back');
cmp_ok((grep { grep { $_->[0] eq 'taskTypeID' } @{ $_->{query} } } @{ $sandbox->journal(path => '/WORK/Tasks') }), '>', 0, 'sent again');
$node->safe_psql('postgres', q{ALTER FOREIGN TABLE fsm.tasks ADD COLUMN stage_colour text OPTIONS (path 'taskStage.color'); ALTER FOREIGN TABLE fsm.tasks DROP COLUMN notes});
is($session->query('EXECUTE p(2)'), $here, 'columns come and go');
is($session->query('SET hubex.pushdown = off; EXECUTE p(2)'), $here, 'SET hubex.pushdown = off');
$session->query('SET hubex.pushdown = on');

# Roles: the mapping is that of whoever reads, or whose view it is.
$node->safe_psql('postgres', sprintf q{
	CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE carol;
	DROP USER MAPPING FOR PUBLIC SERVER fsm;
	CREATE USER MAPPING FOR postgres SERVER fsm OPTIONS (service_token '%1$s');
	CREATE USER MAPPING FOR alice SERVER fsm OPTIONS (service_token '%1$s');
	CREATE USER MAPPING FOR bob SERVER fsm OPTIONS (service_token 'not his');
	GRANT USAGE ON SCHEMA fsm TO alice, bob, carol;
	GRANT USAGE ON FOREIGN SERVER fsm TO alice, bob, carol;
	GRANT SELECT ON ALL TABLES IN SCHEMA fsm TO alice, bob, carol;
	GRANT CREATE ON SCHEMA public TO alice;
	SET ROLE alice;
	CREATE VIEW hers AS SELECT id, number FROM fsm.tasks WHERE task_type_id = 2;
	CREATE VIEW yours WITH (security_invoker) AS SELECT id, number FROM fsm.tasks WHERE task_type_id = 2;
	CREATE FUNCTION as_alice() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT count(*) FROM fsm.tasks WHERE task_type_id = 2';
	GRANT SELECT ON hers, yours TO bob, carol;
}, $sandbox->service_token) if $node->safe_psql('postgres', 'SHOW server_version_num') >= 150000;
$session = Hubex::Session->new($node);
$session->query('SET plan_cache_mode = force_generic_plan; PREPARE p(bigint) AS SELECT count(id + 0) FROM fsm.tasks WHERE task_type_id = $1; PREPARE h AS SELECT count(id + 0) FROM hers; PREPARE n AS SELECT count(*) FROM fsm.tasks WHERE task_type_id = 2');
for my $case (
	[ alice => 'EXECUTE p(2)', $here ], [ bob => 'EXECUTE p(2)', qr/28000/ ], [ carol => 'EXECUTE p(2)', qr/42704|28000/ ], [ alice => 'EXECUTE p(2)', $here ],
	[ bob => 'EXECUTE n', qr/28000/ ], [ alice => 'EXECUTE n', $here ],
	[ bob => 'EXECUTE h', $here ], [ carol => 'EXECUTE h', $here ], [ bob => 'SELECT count(*) FROM hers', $here ],
	[ bob => 'SELECT count(*) FROM yours', qr/28000/ ], [ alice => 'SELECT count(*) FROM yours', $here ],
	[ carol => 'SELECT count(*) FROM yours', qr/42704|28000/ ], [ bob => 'SELECT as_alice()', $here ],
	[ bob => "SELECT count(*) FROM hers WHERE id = $id", rows("SELECT count(*) FROM copy.tasks WHERE task_type_id = 2 AND id = $id") ],
	[ bob => 'SELECT count(*) FROM keys_hers', rows('SELECT count(*) FROM keys k JOIN copy.tasks t ON t.id = k.id WHERE t.task_type_id = 2') ])
{
	my ($role, $sql, $expected) = @$case;
	$node->safe_psql('postgres', 'CREATE OR REPLACE VIEW keys_hers AS SELECT k.n, h.number FROM keys k JOIN hers h ON h.id = k.id; GRANT SELECT ON keys_hers TO bob; ALTER VIEW keys_hers OWNER TO postgres') if $sql =~ /keys_hers/;
	my $answer = $session->query("SET ROLE $role; $sql");
	ref $expected ? like($answer, $expected, "$role: $sql") : is($answer, $expected, "$role: $sql");
}

# Barriers: a function that tells what it sees must not see what the view hides, whatever goes to the API.
$node->safe_psql('postgres', q{
	CREATE FUNCTION told(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$;
	CREATE VIEW exact WITH (security_barrier) AS SELECT * FROM fsm.tasks WHERE company_id = 5;
	CREATE VIEW inexact WITH (security_barrier) AS SELECT * FROM fsm.tasks WHERE assigned_to_id = 21;
	CREATE VIEW local WITH (security_barrier) AS SELECT * FROM fsm.tasks WHERE contact_person LIKE 'И%';
	CREATE VIEW joined WITH (security_barrier) AS SELECT t.* FROM keys k JOIN fsm.tasks t ON t.id = k.id WHERE k.n BETWEEN 1 AND 30;
	CREATE VIEW first WITH (security_barrier) AS SELECT * FROM fsm.tasks ORDER BY created DESC, id LIMIT 5;
	CREATE VIEW copy.exact AS SELECT * FROM copy.tasks WHERE company_id = 5;
	CREATE VIEW copy.inexact AS SELECT * FROM copy.tasks WHERE assigned_to_id = 21;
	CREATE VIEW copy.local AS SELECT * FROM copy.tasks WHERE contact_person LIKE 'И%';
	CREATE VIEW copy.joined AS SELECT t.* FROM keys k JOIN copy.tasks t ON t.id = k.id WHERE k.n BETWEEN 1 AND 30;
	CREATE VIEW copy.first AS SELECT * FROM copy.tasks ORDER BY created DESC, id LIMIT 5;
});
for my $view (qw(exact inexact local joined first))
{
	my $hidden = '';
	for my $clause ('told(number)', 'told(number) AND task_type_id = 2', "told(number) AND id = $id", "told(number) AND created > '2025-03-01'",
		'told(number) AND id = ANY (ARRAY(SELECT k.id FROM keys k))', 'told(number) AND number = ANY (ARRAY[number])')
	{
		my (undef, $rows, $errors) = $node->psql('postgres', "SELECT number FROM $view WHERE $clause");
		my %seen = map { $_ => 1 } split /\n/, rows("SELECT number FROM copy.$view");
		my @told = $errors =~ /told: (\S+)/g;
		$hidden .= "$clause: " . (grep { !$seen{$_} } @told) . " of " . @told . "\n" if grep { !$seen{$_} } @told;
		my $wanted = rows("SET client_min_messages = warning; SELECT number FROM copy.$view WHERE $clause");
		$hidden .= "$clause: other rows\n" if join("\n", sort split /\n/, $rows) ne $wanted;
	}
	is($hidden, '', "view $view: nothing hidden is told, and the rows are right");
}

# Parallel workers do the local part.
$node->safe_psql('postgres', q{CREATE TABLE large AS SELECT g AS n, 1001 + g % 1000 AS id, repeat('x', 200) AS filling FROM generate_series(1, 60000) g; ANALYZE large});
my $parallel = 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;';
my $join = 'SELECT t.task_type_id, count(*), sum(l.n) FROM large l JOIN %s.tasks t ON t.id = l.id WHERE t.is_closed GROUP BY 1';
like(rows("$parallel EXPLAIN (COSTS OFF) " . sprintf $join, 'fsm'), qr/Gather/, 'a parallel plan');
is(rows($parallel . sprintf $join, 'fsm'), rows(sprintf $join, 'copy'), 'gives the same rows');
my $force = $node->safe_psql('postgres', q(SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')));
is(rows("SET $force = on; SELECT id, number FROM fsm.tasks WHERE task_type_id = 2"), rows('SELECT id, number FROM copy.tasks WHERE task_type_id = 2'), "$force = on");

done_testing;

# What psql prints, sorted; an error by its message.
sub rows
{
	my ($sql) = @_;
	my ($status, $rows, $errors) = $node->psql('postgres', $sql, on_error_stop => 1);
	return $status ? "failed: $errors" : sorted($rows);
}

sub sorted { return join "\n", sort split /\n/, $_[0] // '(no answer)' }
sub requests { return scalar grep { $_->{path} !~ /^\/AUTHZ/ } @{ $sandbox->journal(fields => 'path') } }
# A query with values in it, and the same prepared and as a function.
sub call
{
	my ($sql, $types, $values) = @_;
	my @literals = map { defined $values->[$_] ? "'" . ($values->[$_] =~ s/'/''/gr) . "'::$types->[$_]" : "NULL::$types->[$_]" } 0 .. $#$types;
	my $list = join ', ', @literals;
	my $body = $sql =~ s/\$(\d)/a$1/gr;
	my $parameters = join ', ', map { "a$_ " . $types->[ $_ - 1 ] } 1 .. @$types;

	return {
		values => $list =~ s/.{100}\K.+/.../r,
		plain => $sql =~ s/\$(\d)/$literals[$1 - 1]/gr,
		prepare => 'PREPARE p(' . join(', ', @$types) . ") AS $sql",
		execute => "EXECUTE p($list)",
		function => "CREATE OR REPLACE FUNCTION pg_temp.f($parameters) RETURNS SETOF text LANGUAGE plpgsql AS \$f\$ #variable_conflict use_column\n"
		  . "DECLARE r record; BEGIN FOR r IN $body LOOP RETURN NEXT (SELECT string_agg(coalesce(j.value, ''), '|') FROM json_each_text(row_to_json(r)) j); END LOOP; END \$f\$",
		select => "SELECT pg_temp.f($list)" };
}

# What psql prints for each of several scripts, run in one session: lists of lines, an error among them.
sub runs
{
	my (@scripts) = @_;
	my $session = Hubex::Session->new($node);
	my @lines = map
	{
		my $answer = $session->query($_) // '(no answer)';
		$session->query('ROLLBACK; DEALLOCATE ALL; RESET ALL; CLOSE ALL');
		[ grep { $_ ne '' } split /\n/, $answer ]
	} @scripts;
	$session->quit;
	return @lines;
}
