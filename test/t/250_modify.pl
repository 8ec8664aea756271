# INSERT, UPDATE, DELETE and COPY on foreign tables: each row that is changed is one request, which HubEx gets if and only
# if the statement is committed; what HubEx could not do is an error here, before anything is sent.
#
# What a statement makes is looked at in the outbox, in a transaction that is rolled back; what arrives, in the sandbox's
# journal.

use strict;
use utf8;
use warnings;

use Encode qw(encode);
use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use Hubex::Statements;
use JSON::PP;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 60, seed => 5);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');
my $session = Hubex::Session->new($node);
my $client = Hubex::Client->new($node);
$session->query('CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets, companies) FROM SERVER fsm INTO fsm');

my @alive = sort { $a->{id} <=> $b->{id} } grep { !$_->{deleted} } @{ $sandbox->tasks };
my ($one, $two, $three) = map { $_->{id} } @alive[ 3, 4, 5 ];

statements_of($node, $session, $client);

# What HubEx got since the journal was cleared: the writes, in the order of their texts.
sub got
{
	my $json = JSON::PP->new->canonical;
	return [ sort map { "$_->{method} $_->{path}" . (length($_->{body} // '') ? ' ' . $json->encode(decode_json($_->{body})) : '') }
		  grep { $_->{method} ne 'GET' && $_->{method} ne 'HEAD' && $_->{path} !~ /^\/AUTHZ/ } @{ $sandbox->journal } ];
}

# A statement that is committed, and what HubEx gets by it.
sub sends
{
	my ($sql, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->query('DELETE FROM hubex.outbox');
	$sandbox->clear_journal;
	is($session->query($sql), '', "$what: done");
	settled("$what: delivered");
	is_deeply(got(), [ sort @$expected ], "$what: as it is sent") or diag explain got();
	return;
}

subtest 'INSERT' => \&inserts;
subtest 'UPDATE' => \&updates;
subtest 'DELETE' => \&deletes;
subtest 'which record a row is' => \&names_of_records;
subtest 'columns and types' => \&columns;
subtest 'what cannot be written' => \&refusals;
subtest 'transactions' => \&transactions;
subtest 'COPY and partitions' => \&copies;
subtest 'views' => \&views;
subtest 'triggers' => \&triggers;
subtest 'rights' => \&rights;
subtest 'plans' => \&plans;
subtest 'five thousand rows' => \&bulk;
subtest 'what arrives' => \&arrives;
done_testing;

sub create
{
	my ($key, $members) = @_;
	return qq(create $key {"erpID": "$key"$members, "taskTypeID": 1, "requestMethodID": 4});
}

sub inserts
{
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, notes) VALUES (1, 'A', 'Ж')}, [ create('A', ', "notes": "Ж"') ], 'a row is a creation');
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT 1, 'R' || g FROM generate_series(1, 3) g}, [ map { create("R$_", '') } 1 .. 3 ], 'several rows, in their order');
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, notes, company_id, id) VALUES (1, 'A', NULL, NULL, NULL)}, [ create('A', '') ], 'NULL is left out');
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, notes) VALUES (1, 'A', '')}, [ create('A', ', "notes": ""') ], 'an empty text is a value');
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, deadline) VALUES (1, 'A', '2030-01-01 03:00+03')},
		[ create('A', ', "deadline": "2030-01-01T00:00:00"') =~ s/"erpID": "A", (.*?), "task/"erpID": "A", $1, "task/r ], 'times are sent in UTC');
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, raw) VALUES (1, 'A', '{"company_id": 5, "EstimatedCost": 2.50, "x": {"y": [1, null]}}')},
		['create A {"x": {"y": [1, null]}, "erpID": "A", "companyID": 5, "taskTypeID": 1, "EstimatedCost": 2.50, "requestMethodID": 4}'], 'raw takes further fields');
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, notes, raw) VALUES (1, 'A', 'column', '{"notes": "raw"}')}, [ create('A', ', "notes": "raw"') ], '... which go before columns');
	like($session->query(qq{BEGIN; INSERT INTO fsm.tasks (task_type_id) VALUES (1); $LOOK; ROLLBACK}), qr/^create hubex-[-0-9a-f]{36} /, 'a natural key is made where none is given');
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, erp_id, notes) VALUES (1, 'A', 'n'), (1, 'B', 'm') RETURNING id, erp_id, upper(notes), number; ROLLBACK}),
		"|A|N|\n|B|M|", 'RETURNING shows what was given; the id is not known');
	is($session->query(q{BEGIN; WITH i AS (INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A'), (1, 'B') RETURNING erp_id)
		SELECT string_agg(erp_id, ',') FROM i; ROLLBACK}), 'A,B', 'within a WITH');
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A'); SELECT count(*) FROM fsm.tasks WHERE erp_id = 'A'; ROLLBACK}), 0,
		'the table does not show what is not sent yet');
	makes(q{INSERT INTO fsm.companies (name, erp_id) VALUES ('C', 'K')}, ['create K {"name": "C", "erpID": "K"}'], 'another resource');
}

sub updates
{
	my $old = (grep { $_->{id} == $one } @alive)[0]{notes} // '';
	makes("UPDATE fsm.tasks SET notes = 'x' WHERE id = $one", [qq(update #$one {"notes": "x"})], 'what is set is sent');
	makes("UPDATE fsm.tasks SET notes = notes, company_id = company_id, number = number, raw = raw, deadline = deadline WHERE id = $one", [], 'what is the same is not');
	makes("UPDATE fsm.tasks SET notes = notes, contact_person = 'И', contact_email = 'a\@b' WHERE id = $one",
		[qq(update #$one {"contactEmail": "a\@b", "contactPerson": "И"})], 'of several columns those that differ');
	makes("UPDATE fsm.tasks SET notes = 'x' WHERE id = $one; UPDATE fsm.tasks SET notes = NULL WHERE id = $one",
		[ qq(update #$one {"notes": "x"}), qq(update #$one {"notes": null}) ], 'NULL empties the field');
	makes("UPDATE fsm.tasks SET notes = 'x' WHERE id IN ($one, $two)", [ map { qq(update #$_ {"notes": "x"}) } $one, $two ], 'several rows');
	makes("UPDATE fsm.tasks SET notes = 'x' WHERE id = 999999999", [], 'no row, no request');
	makes(qq{UPDATE fsm.tasks SET raw = raw || '{"assetSchemaID": 4}' WHERE id = $one}, [qq(update #$one {"assetSchemaID": 4})], 'of raw what is new');
	makes(qq{UPDATE fsm.tasks SET raw = '{"estimatedCost": 4, "notes": "z"}', notes = 'y' WHERE id = $one}, [qq(update #$one {"notes": "z", "estimatedCost": 4})], '... before columns');
	is($session->query("BEGIN; UPDATE fsm.tasks SET notes = 'x' WHERE id = $one RETURNING id, notes, number IS NOT NULL; ROLLBACK"), "$one|x|t", 'RETURNING shows the new row');

	run('CREATE TABLE job (task bigint, note text)');
	run("INSERT INTO job VALUES ($one, 'from a'), ($two, 'from b'), (1, 'none')");
	makes('UPDATE fsm.tasks t SET notes = j.note FROM job j WHERE j.task = t.id', [ qq(update #$one {"notes": "from a"}), qq(update #$two {"notes": "from b"}) ],
		'joined with a local table');
	makes("UPDATE fsm.tasks SET notes = (SELECT note FROM job WHERE task = fsm.tasks.id) WHERE id = $two", [qq(update #$two {"notes": "from b"})], 'by a subquery');
	makes("WITH u AS (UPDATE fsm.tasks SET notes = 'w' WHERE id = $one RETURNING id) UPDATE job SET note = 'done' FROM u WHERE task = u.id",
		[qq(update #$one {"notes": "w"})], 'within a WITH');
	is($session->query("SELECT count(DISTINCT ordering_key) FROM hubex.outbox"), 0, 'nothing of all that is left');
	is($session->query("BEGIN; UPDATE fsm.tasks SET notes = 'x' WHERE id = $one; SELECT hubex_update_task('{\"notes\": \"y\"}', $one) > 0; DELETE FROM fsm.tasks WHERE id = $one;
		SELECT count(*), count(DISTINCT ordering_key) FROM hubex.outbox WHERE created_at = now(); ROLLBACK"), "t\n3|1",
		'the requests of a record share the ordering key of the functions');
}

sub deletes
{
	makes("DELETE FROM fsm.tasks WHERE id = $one", ["delete #$one"], 'a row is a deletion');
	makes("DELETE FROM fsm.tasks WHERE id IN ($one, $two, 999999999)", [ "delete #$one", "delete #$two" ], 'several');
	is($session->query("BEGIN; DELETE FROM fsm.tasks WHERE id = $one RETURNING id, number, raw ->> 'number' = number; ROLLBACK"),
		"$one|$alive[3]{number}|t", 'RETURNING shows the old row');
	makes("DELETE FROM fsm.tasks t USING job j WHERE j.task = t.id AND j.note = 'from b'", ["delete #$two"], 'joined with a local table');
	run('IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (work_types) FROM SERVER fsm INTO fsm');
	my $type = $session->query('SELECT min(id) FROM fsm.work_types');
	makes("DELETE FROM fsm.work_types WHERE id = $type", ["delete #$type"], 'of a list that is known by the catalogue only');
	makes(q{DELETE FROM fsm.assets WHERE id = (SELECT min(id) FROM fsm.assets)}, [ 'delete #' . $session->query('SELECT min(id) FROM fsm.assets') ], 'of another resource');
}

sub names_of_records
{
	run(q{CREATE FOREIGN TABLE fsm.keyed (erp_id text, notes text) SERVER fsm OPTIONS (resource 'tasks')});
	my ($record) = grep { defined $_->{erpID} && length $_->{erpID} } @alive;
	makes("UPDATE fsm.keyed SET notes = 'k' WHERE erp_id = '$record->{erpID}'", [qq(update $record->{erpID} {"notes": "k"})], 'without an id, by erp_id');
	makes("DELETE FROM fsm.keyed WHERE erp_id = '$record->{erpID}'", ["delete $record->{erpID}"], '... and DELETE');
	my ($nameless) = grep { !defined $_->{erpID} || !length $_->{erpID} } @alive;
	SKIP:
	{
		skip 'every task has its erpID', 2 unless $nameless;
		refused("UPDATE fsm.keyed SET notes = 'k' || coalesce(notes, '') WHERE erp_id IS NULL", '55000', qr/does not say which record it is/, 'neither');
	}
	makes("UPDATE fsm.tasks SET erp_id = 'new' WHERE id = $one", [qq(update #$one {"erpID": "new"})], 'erp_id itself can be written');
	run(q{CREATE FOREIGN TABLE fsm.anonymous (notes text, number text) SERVER fsm OPTIONS (resource 'tasks')});
	my $answer = refused(q{UPDATE fsm.anonymous SET notes = 'x'}, '0A000', qr/can be neither updated nor deleted/, 'a table whose rows have no name');
	like($answer->{hint}, qr/ADD COLUMN id bigint/, '... and says what to add');
	makes(q{INSERT INTO fsm.anonymous (notes) SELECT 'x' WHERE false}, [], '... into which can be inserted');
	refused(q{INSERT INTO fsm.anonymous (notes) VALUES ('x')}, '22004', qr/field "taskTypeID" is required/, '... what is required cannot');
}

sub columns
{
	run(q{CREATE FOREIGN TABLE fsm.named (num bigint OPTIONS (path '@key'), kind integer OPTIONS (path 'taskType.id'), text varchar(100) OPTIONS (path 'notes'),
			notes text OPTIONS (path 'contactPerson'), key text OPTIONS (path 'erpID'), at timestamptz OPTIONS (path 'timesheet.deadline'), gone text,
			more jsonb OPTIONS (path '@record'), method int OPTIONS (filter 'requestMethodID'), phase text OPTIONS (path 'taskStage.name'), tenant int OPTIONS (constant '7')) SERVER fsm OPTIONS (resource 'tasks');
		ALTER FOREIGN TABLE fsm.named DROP gone});
	makes(q{INSERT INTO fsm.named (kind, text, notes, key, at, more, method, tenant) VALUES (1, 't', 'p', 'N', '2030-01-01 00:00Z', '{"assetID": 3}', 7, 7)},
		['create N {"erpID": "N", "notes": "t", "assetID": 3, "deadline": "2030-01-01T00:00:00", "taskTypeID": 1, "contactPerson": "p", "requestMethodID": 7}'],
		'columns of other names are known by what they show');
	makes("UPDATE fsm.named SET text = 'u' WHERE num = $one", [qq(update #$one {"notes": "u"})], '... and so is the id');
	refused("UPDATE fsm.named SET phase = 'u' WHERE num = $one", '0A000', qr/column "phase" of foreign table "named" cannot be written/, '... and what cannot be written');
	refused(q{INSERT INTO fsm.named (kind, tenant) VALUES (1, 8)}, '0A000', qr/column "tenant" .* cannot be written.*DETAIL:  It is "7" in all rows/s, '... or is the same in all rows');
	run(q{CREATE DOMAIN short AS text CHECK (length(VALUE) < 5);
		CREATE TYPE mood AS ENUM ('good', 'bad');
		CREATE FOREIGN TABLE fsm.typed (id bigint, task_type_id numeric, erp_id short, notes mood, contact_person text[], deadline timestamp, location_id text COLLATE "C") SERVER fsm OPTIONS (resource 'tasks')});
	makes(q{INSERT INTO fsm.typed (task_type_id, erp_id, notes, deadline) VALUES (1.0, 'abc', 'bad', '2030-01-01 12:00')},
		['create abc {"erpID": "abc", "notes": "bad", "deadline": "2030-01-01T12:00:00", "taskTypeID": 1.0, "requestMethodID": 4}'], 'other types, as to_jsonb() writes them');
	refused(q{INSERT INTO fsm.typed (task_type_id, deadline) VALUES (1, 'infinity')}, '22023', qr/cannot be sent/, 'what JSON has no form for');
	run(q{CREATE FOREIGN TABLE fsm.defaults (id bigint, task_type_id bigint DEFAULT 1, erp_id text, notes text DEFAULT 'by default') SERVER fsm OPTIONS (resource 'tasks')});
	makes(q{INSERT INTO fsm.defaults (erp_id) VALUES ('D')}, [ create('D', ', "notes": "by default"') ], 'defaults of the table');
	run(q{CREATE FOREIGN TABLE fsm.generated (id bigint, task_type_id bigint, erp_id text, notes text, loud text GENERATED ALWAYS AS (upper(notes)) STORED) SERVER fsm OPTIONS (resource 'tasks')});
	is($session->query(qq{BEGIN; INSERT INTO fsm.generated (task_type_id, erp_id, notes) VALUES (1, 'G', 'g') RETURNING loud; $LOOK; ROLLBACK}),
		"G\n" . create('G', ', "notes": "g"'), 'a generated column is none of the record');
}

sub refusals
{
	my $answer = refused(q{INSERT INTO fsm.tasks (id, task_type_id) VALUES (7, 1)}, '0A000', qr/column "id" of foreign table "tasks" cannot be written/, 'the id is not ours to give');
	like($answer->{hint}, qr/What can be written is: .*\bnotes\b.* and raw, which/, '... and names what can be written');
	refused(q{INSERT INTO fsm.tasks (task_type_id, created) VALUES (1, now())}, '0A000', qr/column "created" .* cannot be written.*DETAIL:  Operation "create" of resource "tasks" has no field/s, 'what can only be read');
	refused("UPDATE fsm.tasks SET id = 1 WHERE id = $one", '0A000', qr/column "id"/, 'a new id');
	refused("UPDATE fsm.tasks SET task_stage_name = 'x' WHERE id = $one", '0A000', qr/column "task_stage_name"/, 'a name of something else');
	refused(q{INSERT INTO fsm.tasks (task_type_id, raw) VALUES (1, '[1]')}, '22023', qr/must be a JSON object/, 'raw that is no object');
	refused("UPDATE fsm.tasks SET raw = NULL WHERE id = $one", '22023', qr/must be a JSON object/, '... or nothing');
	refused(q{INSERT INTO fsm.tasks (notes) VALUES ('x')}, '22004', qr/field "taskTypeID" is required/, 'what HubEx requires');
	refused(q{INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, repeat('x', 2000))}, '22001', qr/too long/, 'a key that is too long');
	$answer = refused(q{UPDATE fsm.companies SET name = 'x'}, '0A000', qr/cannot update foreign table "companies"/, 'an operation that HubEx is not known to have');
	like($answer->{detail}, qr/create, delete/, '... with those it has');
	like($answer->{hint}, qr/hubex_enqueue/, '... and a way out');
	refused(q{EXPLAIN UPDATE fsm.companies SET name = 'x'}, '0A000', qr/cannot update/, '... also of EXPLAIN');
	is($session->query(q{SELECT table_name || ' ' || pg_relation_is_updatable(('fsm.' || table_name)::regclass, false) || ' ' || is_insertable_into FROM information_schema.tables
		WHERE table_name IN ('tasks', 'companies') ORDER BY 1}), "companies 24 YES\ntasks 28 YES", 'which the catalog says');
	refused(q{INSERT INTO fsm.tasks (task_type_id) VALUES (1) ON CONFLICT DO NOTHING}, '0A000', qr/ON CONFLICT is not supported/, 'ON CONFLICT');
	refused(q{INSERT INTO fsm.tasks (task_type_id) VALUES (1) ON CONFLICT (id) DO UPDATE SET notes = 'x'}, '42P10', qr/constraint/, '... DO UPDATE');
	refused(q{MERGE INTO fsm.tasks t USING job j ON t.id = j.task WHEN MATCHED THEN DELETE}, '0A000', qr/not supported for foreign tables/, 'MERGE');
	refused(q{TRUNCATE fsm.tasks}, '0A000', qr/cannot truncate foreign table/, 'TRUNCATE');
	refused(q{SET TRANSACTION READ ONLY; INSERT INTO fsm.tasks (task_type_id) VALUES (1)}, '25006', qr/read-only/, 'in a read-only transaction');
	is($session->query('SELECT count(*) FROM hubex.outbox'), 0, 'nothing of all that is left');
}

sub transactions
{
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A'); SAVEPOINT s; INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'B'); ROLLBACK TO s;
		INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'C')}, [ create('A', ''), create('C', '') ], 'what is rolled back to a savepoint is gone');
	makes(q{DO $$ BEGIN INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A'); BEGIN INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT 1, 'E' || 1 / (2 - g) FROM generate_series(1, 2) g;
		EXCEPTION WHEN division_by_zero THEN NULL; END; INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT 1, 'F' || g FROM generate_series(1, 2) g; END $$},
		[ create('A', ''), create('F1', ''), create('F2', '') ], 'so is a statement that failed');
	makes(qq{INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A'); UPDATE fsm.keyed SET notes = 'x' WHERE erp_id = 'A'}, [ create('A', '') ], 'what is not there yet is not updated');
	is($session->query('SELECT count(*) FROM hubex.outbox'), 0, 'ROLLBACK leaves nothing');
}

sub copies
{
	my $copied = $node->safe_psql('postgres', "BEGIN;\nCOPY fsm.tasks (task_type_id, erp_id, notes) FROM STDIN;\n1\tP\tone\n1\tQ\t\\N\n\\.\n$LOOK;\nROLLBACK;\n");
	is($copied, join("\n", create('P', ', "notes": "one"'), create('Q', '')), 'COPY');
	my (undef, undef, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\nCOPY fsm.tasks (task_type_id, task_stage_name) FROM STDIN;\n1\tP\n\\.\n");
	like($errors, qr/0A000: column "task_stage_name".*CONTEXT:  COPY tasks, line 1/s, '... names the line of what cannot be written');

	run(q{CREATE TABLE part (id bigint, tenant text, task_type_id bigint, erp_id text, notes text) PARTITION BY LIST (tenant);
		CREATE TABLE part_local PARTITION OF part FOR VALUES IN ('local');
		CREATE FOREIGN TABLE part_remote PARTITION OF part FOR VALUES IN ('remote') SERVER fsm OPTIONS (resource 'tasks');
		ALTER FOREIGN TABLE part_remote ALTER tenant OPTIONS (ADD path 'contactPerson')});
	my $remote = sub { qq(create $_[0] {"erpID": "$_[0]", "notes": "$_[1]", "taskTypeID": 1, "contactPerson": "remote", "requestMethodID": 4}) };
	makes(q{INSERT INTO part (tenant, task_type_id, erp_id, notes) VALUES ('local', 1, 'L', 'l'), ('remote', 1, 'M', 'm'), ('local', 1, 'K', 'k'), ('remote', 1, 'N', 'n')},
		[ $remote->('M', 'm'), $remote->('N', 'n') ], 'rows of a partitioned table go where they belong');
	is($session->query(q{BEGIN; INSERT INTO part (tenant, task_type_id, erp_id, notes) VALUES ('local', 1, 'L', 'l'), ('remote', 1, 'M', 'm') RETURNING tableoid::regclass, erp_id; ROLLBACK}),
		"part_local|L\npart_remote|M", '... with RETURNING');
	$copied = $node->safe_psql('postgres', "BEGIN;\nCOPY part (tenant, task_type_id, erp_id, notes) FROM STDIN;\nremote\t1\tM\tm\nlocal\t1\tL\tl\nremote\t1\tN\tn\n\\.\n$LOOK;\nSELECT count(*) FROM part_local;\nROLLBACK;\n");
	is($copied, join("\n", $remote->('M', 'm'), $remote->('N', 'n'), 1), '... and COPY');
	makes(q{INSERT INTO part_local (tenant, task_type_id, erp_id, notes) VALUES ('local', 1, 'L', 'l'); UPDATE part SET tenant = 'remote' WHERE tenant = 'local'}, [ $remote->('L', 'l') ],
		'a row that is moved into it is created');
	is($session->query(q{SELECT count(*) FROM part_local}), 0, 'and rolled back');
	run("ALTER TABLE part DETACH PARTITION part_remote");
	run('ALTER FOREIGN TABLE part_remote DROP tenant; ALTER FOREIGN TABLE part_remote ADD tenant text OPTIONS (path \'contactPerson\')');
	run("ALTER TABLE part ATTACH PARTITION part_remote DEFAULT");
	makes(q{INSERT INTO part (tenant, task_type_id, erp_id, notes) VALUES ('remote', 1, 'M', 'm')}, [ $remote->('M', 'm') ], 'a partition whose columns are in another order');
	my $person = $alive[3]{contactPerson} // '';
	makes("UPDATE part SET notes = 'p' WHERE id = $one", [qq(update #$one {"notes": "p"})], 'UPDATE by way of the partitioned table');
	makes("DELETE FROM part WHERE id = $one", ["delete #$one"], '... and DELETE');
	refused(q{INSERT INTO part (tenant, task_type_id) VALUES ('x', 1) ON CONFLICT DO NOTHING}, '0A000', qr/ON CONFLICT/, '... and ON CONFLICT');
	run('DROP TABLE part');
}

sub views
{
	run(q{CREATE VIEW urgent AS SELECT id, task_type_id, erp_id, notes FROM fsm.tasks WHERE task_type_id = 1 WITH CHECK OPTION});
	makes(q{INSERT INTO urgent (task_type_id, erp_id, notes) VALUES (1, 'V', 'v')}, [ create('V', ', "notes": "v"') ], 'through a view');
	refused(q{INSERT INTO urgent (task_type_id, erp_id) VALUES (2, 'V')}, '44000', qr/violates check option/, '... which checks');
	refused(q{INSERT INTO urgent (task_type_id, erp_id) SELECT CASE g WHEN 700 THEN 2 ELSE 1 END, 'V' || g FROM generate_series(1, 1000) g}, '44000', qr/violates check option/, '... every row');
	my ($task) = map { $_->{id} } grep { $_->{taskTypeID} == 1 } @alive;
	makes("UPDATE urgent SET notes = 'v' WHERE id = $task", [qq(update #$task {"notes": "v"})], 'UPDATE');
	refused("UPDATE urgent SET task_type_id = 2 WHERE id = $task", '44000', qr/violates check option/, '... out of its sight');
	makes("DELETE FROM urgent WHERE id = $task", ["delete #$task"], 'DELETE');
	run(q{CREATE VIEW renamed AS SELECT erp_id AS key, notes AS said, task_type_id AS type FROM fsm.tasks});
	makes(q{INSERT INTO renamed VALUES ('V', 'v', 1)}, [ create('V', ', "notes": "v"') ], 'a view with names of its own');
}

sub triggers
{
	run(q{CREATE TABLE seen (n serial, what text);
		CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO seen (what) VALUES (TG_WHEN || ' ' || TG_OP || ' ' || (SELECT count(*) FROM hubex.outbox WHERE created_at = now()));
			IF TG_OP = 'DELETE' THEN RETURN CASE WHEN OLD.erp_id = 'keep' THEN NULL ELSE OLD END; END IF;
			IF NEW.notes = 'drop' THEN RETURN NULL; END IF;
			NEW.notes := NEW.notes || '!'; RETURN NEW; END $$;
		CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO seen (what) VALUES (TG_WHEN || ' ' || TG_OP || ' ' || coalesce(OLD.id::text, '-') || ' ' || coalesce(NEW.notes, '-') || ' ' || (SELECT count(*) FROM hubex.outbox WHERE created_at = now())); RETURN NULL; END $$;
		CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON fsm.tasks FOR EACH ROW EXECUTE FUNCTION before_row()});
	makes(q{INSERT INTO fsm.tasks (task_type_id, erp_id, notes) VALUES (1, 'A', 'a'), (1, 'B', 'drop'), (1, 'C', 'c')}, [ create('A', ', "notes": "a!"'), create('C', ', "notes": "c!"') ], 'BEFORE may change and drop rows');
	makes("UPDATE fsm.tasks SET contact_person = 'x', notes = 'n' WHERE id = $one", [qq(update #$one {"notes": "n!", "contactPerson": "x"})], '... of UPDATE');
	makes("DELETE FROM fsm.tasks WHERE id = $one", ["delete #$one"], '... of DELETE');
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, notes) VALUES (1, 'a'), (1, 'b'), (1, 'c'); SELECT what FROM seen ORDER BY n; ROLLBACK}),
		"BEFORE INSERT 0\nBEFORE INSERT 1\nBEFORE INSERT 2", 'and see the rows before');
	run('CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON fsm.tasks FOR EACH ROW EXECUTE FUNCTION after_row(); DROP TRIGGER b ON fsm.tasks');
	is($session->query(qq{BEGIN; INSERT INTO fsm.tasks (task_type_id, notes) VALUES (1, 'a'), (1, 'b'); UPDATE fsm.tasks SET notes = 'u' WHERE id = $one; DELETE FROM fsm.tasks WHERE id = $one;
		SELECT what FROM seen ORDER BY n; ROLLBACK}), "AFTER INSERT - a 2\nAFTER INSERT - b 2\nAFTER UPDATE $one u 3\nAFTER DELETE $one - 4", 'AFTER sees all of it');
	run(q{DROP TRIGGER a ON fsm.tasks;
		CREATE TRIGGER s AFTER INSERT ON fsm.tasks FOR EACH STATEMENT EXECUTE FUNCTION after_row()});
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, notes) SELECT 1, 'a' FROM generate_series(1, 300); SELECT what FROM seen ORDER BY n; ROLLBACK}),
		'AFTER INSERT - - 300', '... so does one of the statement');
	my $copied = $node->safe_psql('postgres', "BEGIN;\nCOPY fsm.tasks (task_type_id, notes) FROM STDIN;\n1\ta\n1\tb\n\\.\nSELECT what FROM seen ORDER BY n;\nROLLBACK;\n");
	is($copied, 'AFTER INSERT - - 2', '... of COPY');
	run('DROP TRIGGER s ON fsm.tasks; DROP TABLE seen');
}

sub rights
{
	run("CREATE ROLE $_ LOGIN; GRANT USAGE ON SCHEMA fsm TO $_") for qw(clerk boss nobody);
	my %as = map { $_ => Hubex::Client->new($node, user => $_) } qw(clerk boss nobody);
	my $insert = q{INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A')};
	is($as{clerk}->try($insert)->{sqlstate}, '42501', 'without a right on the table');
	run('GRANT SELECT, INSERT, UPDATE, DELETE ON fsm.tasks TO clerk, boss');
	my $answer = $as{clerk}->try($insert);
	is($answer->{sqlstate} . ' ' . $answer->{message}, '42501 permission denied for foreign server fsm', 'without USAGE on the server');
	run('GRANT USAGE ON FOREIGN SERVER fsm TO clerk');
	for my $case ([ $insert, 'create' ], [ "UPDATE fsm.tasks SET notes = 'x' WHERE id = $one", 'update' ], [ "DELETE FROM fsm.tasks WHERE id = $one", 'delete' ])
	{
		$answer = $as{clerk}->try($case->[0]);
		is($answer->{sqlstate} . ' ' . $answer->{message}, "42501 permission denied for function hubex_$case->[1]", "without a right to put in what it is: $case->[1]");
		like($answer->{hint}, qr/hubex_grant\('clerk', 'enqueue'\)/, '... says how to give it');
	}
	is($as{clerk}->query('SELECT count(*) > 0 FROM fsm.tasks'), 't', '... which reading does not need');
	run(q{GRANT EXECUTE ON FUNCTION hubex_create TO clerk});
	is($as{clerk}->query("BEGIN; $insert; ROLLBACK"), '', 'the right to create is enough to insert');
	is($as{clerk}->try("DELETE FROM fsm.tasks WHERE id = $one")->{sqlstate}, '42501', '... and not to delete');
	run(q{SELECT hubex_grant('clerk', 'enqueue')});
	is($as{clerk}->query("BEGIN; $insert; UPDATE fsm.tasks SET notes = 'x' WHERE id = $one; SELECT string_agg(owner || ' ' || operation, ', ' ORDER BY id) FROM hubex.outbox; ROLLBACK"),
		'clerk create, clerk update', 'with it, the requests are the role\'s');

	# The view's owner is who acts.
	run(q{CREATE VIEW counter AS SELECT id, task_type_id, erp_id, notes FROM fsm.tasks; ALTER VIEW counter OWNER TO clerk; GRANT ALL ON counter TO nobody;
		REVOKE ALL ON fsm.tasks FROM boss; ALTER SCHEMA public OWNER TO postgres});
	is($as{nobody}->query(q{BEGIN; INSERT INTO counter (task_type_id, erp_id) VALUES (1, 'A'); SELECT current_user; COMMIT}), 'nobody', 'through a view without any right of one\'s own');
	is($session->query('SELECT owner FROM hubex.outbox'), 'clerk', '... the request is of the view\'s owner');
	settled('... and delivered with its account');
	is($as{nobody}->try('SELECT * FROM hubex.outbox')->{sqlstate}, '42501', '... and nothing is seen of it');
	run('DELETE FROM hubex.outbox; REVOKE USAGE ON FOREIGN SERVER fsm FROM clerk');
	is($as{nobody}->try(q{INSERT INTO counter (task_type_id) VALUES (1)})->{message}, 'permission denied for foreign server fsm', 'the rights asked for are the owner\'s, too');
	run('GRANT USAGE ON FOREIGN SERVER fsm TO clerk');
	run(q{ALTER VIEW counter SET (security_invoker = true)});
	is($as{nobody}->try(q{INSERT INTO counter (task_type_id) VALUES (1)})->{sqlstate}, '42501', '... but where the invoker\'s count');
	run(q{CREATE FUNCTION put() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO fsm.tasks (task_type_id) VALUES (1)'; ALTER FUNCTION put() OWNER TO clerk});
	is($as{nobody}->query('BEGIN; SELECT put(); ROLLBACK'), '', 'a function that acts for its owner');
	run(q{CREATE VIEW again AS SELECT task_type_id, notes FROM fsm.tasks; ALTER VIEW again OWNER TO clerk; GRANT ALL ON again TO nobody});
	is($as{nobody}->query(q{CREATE TEMP TABLE who AS SELECT current_user; DO $$ BEGIN BEGIN INSERT INTO again (notes) VALUES ('no type'); EXCEPTION WHEN null_value_not_allowed THEN NULL; END;
		INSERT INTO who SELECT current_user; END $$; SELECT DISTINCT current_user FROM who}), 'nobody', '... whoever fails is the same afterwards');
	$node->safe_psql('postgres', 'CREATE DATABASE second');
	$node->safe_psql('second', 'CREATE SCHEMA elsewhere; CREATE EXTENSION hubex SCHEMA elsewhere');
	$node->start_hubex($sandbox, database => 'second');
	$node->safe_psql('second', q(IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO public; GRANT INSERT ON tasks TO clerk; GRANT USAGE ON FOREIGN SERVER fsm TO clerk;
		GRANT EXECUTE ON FUNCTION elsewhere.hubex_create TO clerk));
	is(Hubex::Client->new($node, database => 'second', user => 'clerk')->query('BEGIN; INSERT INTO tasks (task_type_id) VALUES (1); ROLLBACK'), '',
		'the extension in a schema that is not to be used');
	run(q{CREATE ROLE without LOGIN; GRANT USAGE ON SCHEMA fsm TO without; GRANT INSERT ON fsm.tasks TO without; GRANT USAGE ON FOREIGN SERVER fsm TO without;
		DROP USER MAPPING FOR PUBLIC SERVER fsm});
	run(q{SELECT hubex_grant('without', 'enqueue')});
	is(Hubex::Client->new($node, user => 'without')->try($insert)->{sqlstate}, '28000', 'without credentials');
	my $token = $sandbox->service_token;
	run("CREATE USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (service_token '$token')");
}

sub plans
{
	is($session->query(q{EXPLAIN (COSTS OFF) INSERT INTO fsm.tasks (task_type_id) VALUES (1)}), "Insert on tasks\n  Remote Operation: POST /WORK/Tasks through the outbox\n  ->  Result", 'EXPLAIN of INSERT');
	like($session->query("EXPLAIN (COSTS OFF) UPDATE fsm.tasks SET notes = 'x' WHERE id = $one"), qr{^Update on tasks\n  Remote Operation: PATCH /WORK/Tasks/\{id\} through the outbox\n  ->  Foreign Scan}, '... of UPDATE');
	like($session->query("EXPLAIN (COSTS OFF) DELETE FROM fsm.tasks WHERE id = $one"), qr{^Delete on tasks\n  Remote Operation: DELETE /WORK/Tasks/\{id\} through the outbox\n}, '... of DELETE');
	like($session->query("BEGIN; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) UPDATE fsm.tasks SET notes = 'x' WHERE id IN ($one, $two); ROLLBACK"), qr{Requests Enqueued: 2\n}, '... with ANALYZE');
	is($session->query('SELECT count(*) FROM hubex.outbox'), 0, 'EXPLAIN enqueues nothing');
	run(q{SET plan_cache_mode = force_generic_plan; PREPARE i(text) AS INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, $1);
		PREPARE u(bigint, text) AS UPDATE fsm.tasks SET notes = $2 WHERE id = $1; PREPARE d(bigint) AS DELETE FROM fsm.tasks WHERE id = $1});
	makes("EXECUTE i('A'); EXECUTE i('B'); EXECUTE u($one, 'x'); EXECUTE u($two, 'y'); EXECUTE d($one)",
		[ create('A', ''), create('B', ''), qq(update #$one {"notes": "x"}), qq(update #$two {"notes": "y"}), "delete #$one" ], 'generic plans');

	# What a plan was made with may change.
	run(q{BEGIN; UPDATE hubex.connector SET manifest = manifest #- '{resources,tasks,operations,delete}' WHERE name = 'hubex'});
	like($session->query("EXECUTE d($one)"), qr/0A000|55000/, 'an operation that is gone');
	run('ROLLBACK');
	run(q{ALTER FOREIGN TABLE fsm.tasks ALTER notes OPTIONS (ADD path 'contactPerson')});
	makes("EXECUTE u($one, 'x')", [qq(update #$one {"contactPerson": "x"})], 'a column that shows something else now');
	run(q{ALTER FOREIGN TABLE fsm.tasks ALTER notes OPTIONS (DROP path)});
	run(q{DEALLOCATE ALL; RESET plan_cache_mode});
}

sub bulk
{
	run(q{CREATE TABLE src AS SELECT g AS n, 'BULK-' || g AS erp_id, 'row ' || g AS notes FROM generate_series(1, 5000) g});
	my $check = q{SELECT count(*), count(DISTINCT natural_key), count(*) FILTER (WHERE body ->> 'notes' = 'row ' || substr(natural_key, 6)),
		(SELECT count(*) FROM (SELECT substr(natural_key, 6)::int - lag(substr(natural_key, 6)::int) OVER (ORDER BY id) AS step FROM hubex.outbox) s WHERE step <> 1) FROM hubex.outbox};
	for my $statement (
		'INSERT INTO fsm.tasks (task_type_id, erp_id, notes) SELECT 1, erp_id, notes FROM src ORDER BY n',
		'WITH i AS (INSERT INTO fsm.tasks (task_type_id, erp_id, notes) SELECT 1, erp_id, notes FROM src ORDER BY n RETURNING 1) SELECT FROM i WHERE false')
	{
		is($session->query("BEGIN; $statement; $check; ROLLBACK"), '5000|5000|5000|0', 'five thousand rows, in their order');
	}
	my $file = $node->basedir . '/src.copy';
	run("COPY (SELECT 1, erp_id, notes FROM src ORDER BY n) TO '$file'");
	is($session->query("BEGIN; COPY fsm.tasks (task_type_id, erp_id, notes) FROM '$file'; $check; ROLLBACK"), '5000|5000|5000|0', '... by COPY');
	is($session->query(q{SELECT count(*) FROM hubex.outbox}), 0, 'nothing is left');
	refused(q{INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT CASE n WHEN 4000 THEN NULL ELSE 1 END, erp_id FROM src ORDER BY n}, '22004', qr/taskTypeID/, 'one of them cannot be put in');
	is($session->query(q{SELECT count(*) FROM hubex.outbox}), 0, 'none is');

	# Code of others that runs while rows are converted finds the rows before it put in.
	run(q{CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM hubex_create_task(2, erp_id => 'MOOD-' || (SELECT count(*) FROM hubex.outbox));
			RETURN to_json($1::text);
		END $$;
		CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)});
	is($session->query(q{BEGIN; INSERT INTO fsm.typed (task_type_id, erp_id, notes) VALUES (1, 'a', 'good'), (1, 'b', 'bad'); SELECT string_agg(natural_key, ' ' ORDER BY id) FROM hubex.outbox; ROLLBACK}),
		'MOOD-0 a MOOD-2 b', 'a cast that enqueues');
	run('DROP CAST (mood AS json)');

	# So does the code of a volatile function, and what it enqueues has its place between the rows.
	run(q{CREATE FUNCTION look() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT count(*)::text FROM hubex.outbox';
		CREATE FUNCTION enqueue(n int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM hubex_create_task(2, erp_id => 'CALL-' || n); RETURN 'x'; END $$});
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, erp_id, notes) SELECT 1, 'a' || g, look() FROM generate_series(1, 3) g; SELECT string_agg(body ->> 'notes', ' ' ORDER BY id) FROM hubex.outbox; ROLLBACK}),
		'0 1 2', 'a function that looks');
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, erp_id, notes) SELECT 1, 'a' || g, enqueue(g) FROM generate_series(1, 2) g; SELECT string_agg(natural_key, ' ' ORDER BY id) FROM hubex.outbox; ROLLBACK}),
		'CALL-1 a1 CALL-2 a2', '... and one that enqueues');
	is($session->query(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT 1, 'a' || g FROM generate_series(1, 3) g RETURNING look(); ROLLBACK}), "1\n2\n3", '... of RETURNING');
	is($session->query(qq{BEGIN; UPDATE fsm.tasks SET notes = look() WHERE id IN ($one, $two, $three); SELECT string_agg(body ->> 'notes', ' ' ORDER BY id) FROM hubex.outbox; ROLLBACK}),
		'0 1 2', '... of UPDATE');
	is($session->query(q{BEGIN; WITH a AS (INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT 1, 'a' || g FROM generate_series(1, 3) g RETURNING 1),
		b AS (INSERT INTO fsm.tasks (task_type_id, erp_id) SELECT 1, 'b' || count(*) FROM a RETURNING look()) SELECT * FROM b; ROLLBACK}), '4', '... beside another change');
	makes(q{DO $$ DECLARE r record; BEGIN FOR r IN INSERT INTO fsm.tasks (task_type_id, erp_id) VALUES (1, 'A'), (1, 'B') RETURNING erp_id LOOP
		PERFORM hubex_update_task('{"notes": "n"}', erp_id => r.erp_id); END LOOP; END $$},
		[ create('A', ''), create('B', ''), 'update A {"notes": "n"}', 'update B {"notes": "n"}' ], 'a loop over RETURNING comes after all of it');
	makes("UPDATE fsm.tasks SET notes = 'all' WHERE id IN ($one, $two, $three); DELETE FROM fsm.tasks WHERE id IN ($one, $two)",
		[ map({ qq(update #$_ {"notes": "all"}) } $one, $two, $three), map { "delete #$_" } $one, $two ], 'statements one after another');
}

sub arrives
{
	my $json = JSON::PP->new->canonical;
	my $post = sub { my ($key, %field) = @_; return 'POST /WORK/Tasks ' . $json->encode({ erpID => $key, taskTypeID => 1, requestMethodID => 4, %field }) };
	my $patch = sub { my ($id, %field) = @_; return "PATCH /WORK/Tasks/$id " . $json->encode([ map { { field => $_, value => $field{$_} } } sort keys %field ]) };
	sends(q{INSERT INTO fsm.tasks (task_type_id, erp_id, notes) VALUES (1, 'X1', 'one'), (1, 'X2', 'two')}, [ $post->('X1', notes => 'one'), $post->('X2', notes => 'two') ], 'INSERT');
	is(scalar(grep { ($_->{erpID} // '') =~ /^X[12]$/ } @{ $sandbox->tasks }), 2, 'HubEx has them');
	is($session->query(q{SELECT string_agg(notes, ',' ORDER BY erp_id) FROM fsm.tasks WHERE erp_id IN ('X1', 'X2')}), 'one,two', '... and the table shows them');
	my $x1 = $session->query(q{SELECT id FROM fsm.tasks WHERE erp_id = 'X1'});
	my $x2 = $session->query(q{SELECT id FROM fsm.tasks WHERE erp_id = 'X2'});
	sends(q{UPDATE fsm.tasks SET notes = notes || '!', contact_person = NULL WHERE erp_id IN ('X1', 'X2')}, [ $patch->($x1, notes => 'one!'), $patch->($x2, notes => 'two!') ], 'UPDATE');
	sends(q{BEGIN; UPDATE fsm.tasks SET notes = 'lost' WHERE erp_id = 'X1'; ROLLBACK}, [], 'ROLLBACK');
	sends(q{BEGIN; UPDATE fsm.tasks SET notes = 'kept' WHERE erp_id = 'X1'; SAVEPOINT s; DELETE FROM fsm.tasks WHERE erp_id = 'X1'; ROLLBACK TO s; COMMIT}, [ $patch->($x1, notes => 'kept') ], 'a savepoint');
	sends(q{DELETE FROM fsm.tasks WHERE erp_id = 'X2'}, ["DELETE /WORK/Tasks/$x2"], 'DELETE');
	is($session->query(q{SELECT count(*) FROM fsm.tasks WHERE erp_id = 'X2'}), 0, '... it is gone');
	my $file = $node->basedir . '/two.copy';
	$session->query("COPY (SELECT 1, 'X' || g FROM generate_series(3, 4) g) TO '$file'");
	sends("COPY fsm.tasks (task_type_id, erp_id) FROM '$file'", [ $post->('X3'), $post->('X4') ], 'COPY');
	sends(q{BEGIN; INSERT INTO fsm.tasks (task_type_id, erp_id, notes) VALUES (1, 'X5', 'five'); SELECT FROM hubex_update_task('{"notes": "later"}', erp_id => 'X5') WHERE false; COMMIT},
		[ $post->('X5', notes => 'five') ], 'beside the functions');
	$session->query('DELETE FROM hubex.outbox');
}
