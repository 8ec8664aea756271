# Triggers: what a row that is inserted, updated or deleted becomes, in the row form and the statement form, whatever
# statement it was; what is nothing to HubEx sends nothing; and each wrong use is an error that says what to do.
#
# What a statement makes is looked at in the outbox, in a transaction that is rolled back; what arrives, in the sandbox.

use strict;
use warnings;
use utf8;

use Encode qw(encode);
use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use Hubex::Statements;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');
my $session = Hubex::Session->new($node);
my $client = Hubex::Client->new($node);

statements_of($node, $session, $client);

my $TEMPLATE = q('{"task_type_id": 2, "erp_id": "J-{id}", "notes": "{note}", "company_id": "{company}", "deadline": "{due}"}');

sub each_row
{
	my ($table, $events, $arguments) = @_;
	return "CREATE OR REPLACE TRIGGER t AFTER $events ON $table FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger($arguments)";
}

subtest 'each row' => \&rows;
subtest 'what differs' => \&differences;
subtest 'types' => \&types;
subtest 'which record is meant' => \&keys_of_records;
subtest 'options' => \&options;
subtest 'each statement' => \&statements;
subtest 'every kind of statement' => \&kinds_of_statements;
subtest 'partitions' => \&partitions;
subtest 'changes under way' => \&changes_under_way;
subtest 'wrong uses' => \&wrong_uses;
subtest 'what arrives' => \&arrives;
subtest 'ten thousand rows' => \&bulk;
done_testing;

sub rows
{
	run('CREATE TABLE job (id int PRIMARY KEY, note text, company int, due timestamptz, other text)');
	run(each_row('job', 'INSERT OR UPDATE OR DELETE', "'fsm', $TEMPLATE"));
	my $first = q{INSERT INTO job VALUES (1, 'one', 7, '2030-01-01 00:00Z')};
	my $made = 'create J-1 {"erpID": "J-1", "notes": "one", "deadline": "2030-01-01T00:00:00", "companyID": 7, "taskTypeID": 2, "requestMethodID": 4}';
	makes($first, [$made], 'INSERT creates');
	makes("$first; UPDATE job SET note = 'uno'", [ $made, 'update J-1 {"notes": "uno"}' ], 'UPDATE sends what differs');
	makes("$first; DELETE FROM job", [ $made, 'delete J-1' ], 'DELETE deletes');
	makes("$first; UPDATE job SET note = 'uno'; UPDATE job SET company = 8, note = 'dos'",
		[ $made, 'update J-1 {"notes": "uno"}', 'update J-1 {"notes": "dos", "companyID": 8}' ], 'one request each');
	makes("$first; SAVEPOINT s; UPDATE job SET note = 'x'; ROLLBACK TO s; UPDATE job SET note = 'y'",
		[ $made, 'update J-1 {"notes": "y"}' ], 'what is rolled back to a savepoint is not sent');
	makes('INSERT INTO job (id) SELECT g FROM generate_series(1, 3) g; UPDATE job SET company = id; DELETE FROM job WHERE id < 3', [
			map({ qq(create J-$_ {"erpID": "J-$_", "taskTypeID": 2, "requestMethodID": 4}) } 1 .. 3),
			map({ qq(update J-$_ {"companyID": $_}) } 1 .. 3), 'delete J-1', 'delete J-2' ], 'many rows, in their order');
	is($session->query("BEGIN; $first; UPDATE job SET note = 'uno'; SELECT count(DISTINCT ordering_key) || ' ' || min(ordering_key) FROM hubex.outbox; ROLLBACK"),
		'1 tasks:J-1', 'the requests of a row share an ordering key');
}

sub differences
{
	my $given = q{INSERT INTO job VALUES (1, 'one', 7, '2030-01-01 00:00Z', 'x')};
	my $after = sub {
		my ($sql, $expected, $what) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		makes("$given; $sql; DELETE FROM hubex.outbox WHERE operation = 'create'", $expected, $what);
	};
	$after->('UPDATE job SET note = note, company = 7', [], 'the same values: nothing');
	$after->(q(UPDATE job SET other = 'y'), [], 'a column that the template does not name: nothing');
	$after->(q(UPDATE job SET due = '2030-01-01 03:00+03'), [], 'the same moment, written otherwise: nothing');
	$after->('UPDATE job SET company = NULL', ['update J-1 {"companyID": null}'], 'NULL empties the field');
	$after->('UPDATE job SET company = NULL, note = NULL, due = NULL',
		['update J-1 {"notes": null, "deadline": null, "companyID": null}'], 'all of them');
	$after->('UPDATE job SET company = NULL; UPDATE job SET company = 9',
		[ 'update J-1 {"companyID": null}', 'update J-1 {"companyID": 9}' ], 'and it is filled again');
	$after->('UPDATE job SET id = 2', ['update J-1 {"erpID": "J-2"}'], 'a new key is sent to the record of the old one');
	$after->(q(UPDATE job SET note = ''), ['update J-1 {"notes": ""}'], 'an empty text is a value');

	run('CREATE TABLE deep (id int PRIMARY KEY, a text, b numeric, j jsonb, l text[])');
	run(each_row('deep', 'INSERT OR UPDATE', q('{"task_type_id": 1, "erpID": "D-{id}", "notes": "<{a}|{b}>", "tree": {"a": "{a}", "in": {"b": "{b}", "c": 1}}, "list": ["{a}", "{b}"], "j": "{j}", "l": "{l}"}')));
	my $deep = q{INSERT INTO deep VALUES (1, NULL, 1.50, '{"x": [1, {"y": null}]}', '{p,q}')};
	my $changed = sub {
		my ($sql, $expected, $what) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		makes("$deep; $sql; DELETE FROM hubex.outbox WHERE operation = 'create'", $expected, $what);
	};
	makes($deep, ['create D-1 {"j": {"x": [1, {"y": null}]}, "l": ["p", "q"], "list": [null, 1.50], "tree": {"in": {"b": 1.50, "c": 1}}, "erpID": "D-1", "notes": "<|1.50>", "taskTypeID": 1, "requestMethodID": 4}'],
		'a document within the template');
	$changed->(q{UPDATE deep SET a = 'z'}, ['update D-1 {"list": ["z", 1.50], "tree": {"a": "z", "in": {"b": 1.50, "c": 1}}, "notes": "<z|1.50>"}'],
		'each member in which it stands is sent whole');
	$changed->(q{UPDATE deep SET j = '{"x":[1,{"y":null}]}', l = ARRAY['p', 'q']}, [], 'the same documents: nothing');
	$changed->(q{UPDATE deep SET j = NULL, l = '{p}'}, ['update D-1 {"j": null, "l": ["p"]}'], 'others are sent');
}

sub types
{
	run(q{CREATE TYPE shade AS ENUM ('light', 'dark'); CREATE DOMAIN amount AS numeric(10, 2) CHECK (VALUE > 0)});
	my @columns = (
		[ small => smallint => '-5', '-5', '6' ], [ big => bigint => '9007199254740993', '9007199254740993', '1' ],
		[ price => 'numeric' => '1.10', '1.10', '1.2' ], [ amount => amount => '2.5', '2.50', '3' ],
		[ ratio => float8 => '0.1', '0.1', '0.2' ], [ flag => boolean => 'true', 'true', 'false' ],
		[ txt => text => q('a"b\\c'), '"a\\"b\\\\c"', q('x') ], [ vc => 'varchar(9)' => q('ы'), '"ы"', q('x') ],
		[ ch => 'char(4)' => q('ab'), '"ab  "', q('x') ], [ day => date => q('2024-02-29'), '"2024-02-29"', q('2024-03-01') ],
		[ at => timestamptz => q('2024-02-29 23:59:59.5+03'), '"2024-02-29T20:59:59.5"', q('2024-03-01 00:00Z') ],
		[ loc => timestamp => q('2024-02-29 23:59'), '"2024-02-29T23:59:00"', q('2024-03-01') ],
		[ clock => time => q('10:00'), '"10:00:00"', q('11:00') ], [ span => interval => q('1 day'), '"1 day"', q('2 days') ],
		[ uid => uuid => q('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', 'gen_random_uuid()' ],
		[ bytes => bytea => q('\x00ff'), '"\\\\x00ff"', q('\x01') ], [ js => json => q('{"a": 1}'), '{"a": 1}', q('[]') ],
		[ jb => jsonb => q('[1, null]'), '[1, null]', q('2') ], [ arr => 'int[]' => q('{1,NULL}'), '[1, null]', q('{}') ],
		[ shade => shade => q('dark'), '"dark"', q('light') ], [ net => inet => q('10.0.0.1'), '"10.0.0.1"', q('10.0.0.2') ]);
	run('CREATE TABLE kinds (id int PRIMARY KEY, ' . join(', ', map { "$_->[0] $_->[1]" } @columns) . ')');
	run('ALTER TABLE kinds ADD dropped int; ALTER TABLE kinds DROP dropped; ALTER TABLE kinds ADD late int DEFAULT 8');
	my $members = join ', ', map { qq("$_->[0]": "{$_->[0]}") } @columns;
	run(each_row('kinds', 'INSERT OR UPDATE', qq('{"task_type_id": 1, "erp_id": "K-{id}", "late": "{late}", $members}')));
	$session->query('INSERT INTO kinds (id) VALUES (0)');
	for my $column (@columns)
	{
		my ($name, undef, $sql, $json, $other) = @$column;
		is($session->query("BEGIN; INSERT INTO kinds (id, $name) VALUES (1, $sql); SELECT body ->> 'late' || ' ' || (body -> '$name')::text FROM hubex.outbox WHERE created_at = now(); ROLLBACK"),
			encode('UTF-8', "8 $json"), "$column->[1]");
		is($session->query("BEGIN; UPDATE kinds SET $name = $sql WHERE id = 0; UPDATE kinds SET $name = $sql WHERE id = 0; UPDATE kinds SET $name = $other WHERE id = 0; UPDATE kinds SET $name = NULL;
			SELECT string_agg(CASE WHEN body -> '$name' = 'null' THEN 'null' ELSE 'a value' END, ', ' ORDER BY id), min((SELECT count(*) FROM jsonb_object_keys(body))) FROM hubex.outbox WHERE created_at = now(); ROLLBACK"),
			'a value, a value, null|1', "... when it changes, and only then");
	}
	my $text = $session->query(q{BEGIN; CREATE TABLE big (id int, t text); ALTER TABLE big ALTER t SET STORAGE EXTERNAL;
		CREATE TRIGGER t AFTER INSERT OR UPDATE ON big FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "B-{id}", "notes": "{t}"}');
		INSERT INTO big VALUES (1, repeat('абв', 50000)); UPDATE big SET id = id; UPDATE big SET t = t || 'x';
		SELECT operation, length(body ->> 'notes') FROM hubex.outbox WHERE created_at = now() ORDER BY id; ROLLBACK});
	is($text, "create|150000\nupdate|150001", 'a text stored out of line');
}

sub keys_of_records
{
	run('CREATE TABLE known (id int PRIMARY KEY, note text, hubex_id bigint, hubex_number text)');
	run(each_row('known', 'INSERT OR UPDATE OR DELETE', q('{"task_type_id": 1, "erp_id": "E-{id}", "notes": "{note} {hubex_id}"}', '{"write_back": {"id": "hubex_id", "number": "hubex_number"}}')));
	makes(q{INSERT INTO known VALUES (1, 'a', 77); UPDATE known SET note = 'b'; DELETE FROM known; DELETE FROM hubex.outbox WHERE operation = 'create'},
		[ 'update #77 {"notes": "b 77"}', 'delete #77' ], 'by the id that was written back');
	makes(q{INSERT INTO known VALUES (1, 'a'); UPDATE known SET note = 'b'; DELETE FROM known; DELETE FROM hubex.outbox WHERE operation = 'create'},
		[ 'update E-1 {"notes": "b "}', 'delete E-1' ], 'by the key of the template where it was not yet');
	makes(q{INSERT INTO known VALUES (1, 'a'); UPDATE known SET hubex_id = 5, hubex_number = '6'; DELETE FROM hubex.outbox WHERE operation = 'create'},
		[], 'a column that is written back is no change');
	run(each_row('known', 'INSERT OR UPDATE OR DELETE', q('{"task_type_id": 1, "notes": "{note}"}', '{"write_back": {"id": "hubex_id"}}')));
	refused(q{INSERT INTO known VALUES (1, 'a'); UPDATE known SET note = 'b'}, '55000', qr/"erp_id": "\{column\}".*"write_back": \{"id": "column"\}/, 'neither');
	refused(q{INSERT INTO known VALUES (1, 'a'); DELETE FROM known}, '55000', qr/"erp_id".*"write_back"/, 'nor for DELETE');
	makes(q{INSERT INTO known VALUES (1, 'a', 3); UPDATE known SET note = 'b'; DELETE FROM hubex.outbox WHERE operation = 'create'},
		['update #3 {"notes": "b"}'], 'the id alone will do');
	run(each_row('known', 'UPDATE', q('{"task_type_id": 1, "erp_id": "{note}", "x": "{id}"}')));
	refused(q{INSERT INTO known VALUES (1, NULL); UPDATE known SET id = 2}, '55000', qr/erp_id/, 'a key of the template that came to nothing');
	refused(q{INSERT INTO known VALUES (1, ''); UPDATE known SET id = 2}, '55000', qr/erp_id/, '... or to an empty text');
	makes(q{INSERT INTO known VALUES (1, 'k'); UPDATE known SET id = 2, note = 'l'}, ['update k {"x": 2, "erpID": "l"}'], 'the record is that of the old row');
}

sub options
{
	run('CREATE TABLE opt (id int PRIMARY KEY, grp text, note text)');
	my $with = sub { run(each_row('opt', 'INSERT OR UPDATE OR DELETE', qq('{"task_type_id": 1, "erp_id": "O-{id}", "notes": "{note}"}', '$_[0]'))) };
	my $sql = q{INSERT INTO opt VALUES (1, 'g', 'a'); UPDATE opt SET note = 'b'; DELETE FROM opt};
	my $orders = "SELECT string_agg(operation || ' ' || ordering_key, ', ' ORDER BY id) FROM hubex.outbox WHERE created_at = now()";
	$with->('{"delete": "ignore"}');
	is($session->query("BEGIN; $sql; $orders; ROLLBACK"), 'create tasks:O-1, update tasks:O-1', 'delete: ignore');
	$with->('{"delete": "delete", "ordering_key": "group {grp}"}');
	is($session->query("BEGIN; $sql; $orders; ROLLBACK"), 'create group g, update group g, delete group g', 'ordering_key');
	is($session->query("BEGIN; INSERT INTO opt VALUES (2, NULL, ''); $orders; ROLLBACK"), 'create group ', '... with nothing in it');
	$with->('{"ordering_key": "{grp}"}');
	is($session->query("BEGIN; INSERT INTO opt VALUES (2); $orders; ROLLBACK"), 'create tasks:O-2', '... that comes to nothing: the usual one');
	$with->('{}');
	is($session->query("BEGIN; $sql; $orders; ROLLBACK"), 'create tasks:O-1, update tasks:O-1, delete tasks:O-1', 'none');

	my $bad = sub {
		my ($options, $state, $hint, $what) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		$session->query(each_row('opt', 'INSERT', qq('{"task_type_id": 1}', '$options')));
		refused(q{INSERT INTO opt VALUES (1)}, $state, $hint, $what);
	};
	$bad->('{"writeback": {}}', '22023', qr/"write_back", "callback", "delete", "ordering_key"/, 'an unknown option');
	$bad->('{"write_back": {"ID": "note"}}', '22023', qr/"id", "number"/, 'an unknown member of write_back');
	$bad->('{"write_back": "note"}', '22023', qr/"write_back": \{"id": "column"/, 'write_back is no object');
	$bad->('{"delete": "never"}', '22023', qr/"delete" or "ignore"/, 'an unknown way to delete');
	$bad->('{"write_back": {"id": "nope"}}', '42703', qr/Name a column/, 'a column to write back to that is not there');
	$bad->('{"callback": "nope"}', '42883', qr/CREATE FUNCTION nope\(request_id bigint, remote_id text, remote_number text, response jsonb\)/, 'a callback that is not there');
	$bad->('{"ordering_key": "{nope}"}', '42703', qr/The columns are: id, grp, note\./, 'a column that is not there');
	$bad->('{"delete": 1}', '22023', qr/\A/, 'an option of the wrong type');
	$session->query(each_row('opt', 'INSERT', q('{"task_type_id": 1}', '{"delete": }')));
	refused('INSERT INTO opt VALUES (1)', '22P02', qr/\A/, 'options that are not JSON');
	run('CREATE TABLE keyless (id int, hid text); ' . each_row('keyless', 'INSERT', q('{"task_type_id": 1}', '{"write_back": {"id": "hid"}}')));
	refused('INSERT INTO keyless VALUES (1)', '55000', qr/ADD PRIMARY KEY/, 'write_back without a primary key');
	run('CREATE TEMP TABLE passing (id int PRIMARY KEY, hid text); ' . each_row('passing', 'INSERT', q('{"task_type_id": 1}', '{"write_back": {"id": "hid"}}')));
	like($session->query('INSERT INTO passing VALUES (1)'), qr/0A000/, 'write_back into a temporary table');
	run('DROP TRIGGER t ON opt');
}

sub statements
{
	run('CREATE TABLE bulk (id int PRIMARY KEY, note text, company int, due timestamptz)');
	run("CREATE TRIGGER i AFTER INSERT ON bulk REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger('fsm', $TEMPLATE);
		CREATE TRIGGER u AFTER UPDATE ON bulk REFERENCING NEW TABLE AS n OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION hubex_create_trigger('fsm', 'tasks', $TEMPLATE);
		CREATE TRIGGER d AFTER DELETE ON bulk REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION hubex_create_trigger('tasks', $TEMPLATE)");
	my @made = map { qq(create J-$_ {"erpID": "J-$_", "notes": "n$_", "taskTypeID": 2, "requestMethodID": 4}) } 1 .. 3;
	my $insert = q{INSERT INTO bulk SELECT g, 'n' || g FROM generate_series(1, 3) g};
	makes($insert, \@made, 'INSERT');
	makes("$insert; UPDATE bulk SET note = CASE id WHEN 2 THEN note ELSE 'x' || id END, company = id",
		[ @made, 'update J-1 {"notes": "x1", "companyID": 1}', 'update J-2 {"companyID": 2}', 'update J-3 {"notes": "x3", "companyID": 3}' ],
		'UPDATE pairs each row with what it was');
	makes("$insert; DELETE FROM bulk WHERE id > 1", [ @made, 'delete J-2', 'delete J-3' ], 'DELETE');
	makes("$insert; UPDATE bulk SET note = note", \@made, 'an UPDATE that changes nothing');
	makes('DELETE FROM bulk; UPDATE bulk SET id = 1; INSERT INTO bulk SELECT 1 WHERE false', [], 'no rows, no requests');

	# Others read the same tables, before and after.
	run(q{CREATE TABLE seen (what text, ids text);
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO seen SELECT TG_NAME, string_agg(id::text, ',' ORDER BY id) FROM n; RETURN NULL; END $$;
		CREATE TRIGGER a AFTER INSERT ON bulk REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION see();
		CREATE TRIGGER z AFTER INSERT ON bulk REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION see();
		CREATE TRIGGER j AFTER INSERT ON bulk REFERENCING NEW TABLE AS m FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "second-{id}"}')});
	is($session->query("BEGIN; $insert; SELECT * FROM seen; SELECT count(*) FROM hubex.outbox WHERE created_at = now(); ROLLBACK"), "a|1,2,3\nz|1,2,3\n6",
		'other triggers read the same rows');

	run('CREATE TABLE plain (id int); CREATE TRIGGER t AFTER INSERT ON plain FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger(\'{"task_type_id": 1}\')');
	my $answer = refused('INSERT INTO plain VALUES (1)', '39P01', qr/CREATE TRIGGER/, 'no transition table');
	like($answer->{detail}, qr/REFERENCING NEW TABLE/, '... says what it needs');
	run('DROP TRIGGER u ON bulk');
	run("CREATE TRIGGER u AFTER UPDATE ON bulk REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger($TEMPLATE)");
	$answer = refused("$insert; UPDATE bulk SET note = 'x'", '39P01', qr/CREATE TRIGGER/, 'only one of two');
	like($answer->{detail}, qr/REFERENCING OLD TABLE/, '... says which it lacks');
	run('DROP TABLE bulk, plain');
}

sub kinds_of_statements
{
	my @both = (
		[ row => 'AFTER INSERT OR UPDATE OR DELETE ON many FOR EACH ROW' ],
		[ statement => 'AFTER INSERT ON many REFERENCING NEW TABLE AS n FOR EACH STATEMENT', 'AFTER UPDATE ON many REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT',
			'AFTER DELETE ON many REFERENCING OLD TABLE AS o FOR EACH STATEMENT' ]);
	for my $form (@both)
	{
		my ($name, @triggers) = @$form;
		$session->query('DROP TABLE IF EXISTS many');
		run('CREATE TABLE many (id int PRIMARY KEY, note text)');
		my $n = 0;
		run("CREATE TRIGGER t" . ++$n . qq( $_ EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "M-{id}", "notes": "{note}"}'))) for @triggers;
		my $make = sub { qq(create M-$_[0] {"erpID": "M-$_[0]", "notes": "$_[1]", "taskTypeID": 1, "requestMethodID": 4}) };
		my $change = sub { qq(update M-$_[0] {"notes": "$_[1]"}) };
		my $there = q{INSERT INTO many VALUES (1, 'a'), (2, 'b'); DELETE FROM hubex.outbox WHERE created_at = now()};

		makes("$there; INSERT INTO many VALUES (2, 'c'), (3, 'd') ON CONFLICT (id) DO UPDATE SET note = excluded.note; DELETE FROM hubex.outbox WHERE operation = 'update'",
			[ $make->(3, 'd') ], "$name: ON CONFLICT DO UPDATE creates what is new");
		makes("$there; INSERT INTO many VALUES (2, 'c'), (3, 'd') ON CONFLICT (id) DO UPDATE SET note = excluded.note; DELETE FROM hubex.outbox WHERE operation = 'create'",
			[ $change->(2, 'c') ], "$name: ... and changes what is not");
		makes("$there; INSERT INTO many VALUES (2, 'c') ON CONFLICT DO NOTHING", [], "$name: ON CONFLICT DO NOTHING");
		is($session->query("BEGIN; $there; MERGE INTO many USING (VALUES (1, 'x'), (2, NULL), (3, 'z')) v (id, note) ON many.id = v.id
			WHEN MATCHED AND v.note IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET note = v.note WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.note);
			SELECT string_agg(operation || ' ' || natural_key, ', ' ORDER BY natural_key) FROM hubex.outbox WHERE created_at = now(); ROLLBACK"),
			'update M-1, delete M-2, create M-3', "$name: MERGE");
		makes(q{WITH a AS (INSERT INTO many VALUES (5, 'e') RETURNING id) UPDATE many SET note = 'q' WHERE id = 1}, [ $make->(5, 'e') ], "$name: a WITH");
		makes("$there; WITH gone AS (DELETE FROM many WHERE id = 1 RETURNING *) INSERT INTO many SELECT id + 10, note FROM gone;
			DELETE FROM hubex.outbox WHERE operation = 'delete'", [ $make->(11, 'a') ], "$name: a row moved");
		makes("$there; UPDATE many SET note = v.note FROM (VALUES (1, 'p'), (2, 'q')) v (id, note) WHERE many.id = v.id",
			[ $change->(1, 'p'), $change->(2, 'q') ], "$name: UPDATE ... FROM");
		my $copied = $node->safe_psql('postgres', "BEGIN;\nCOPY many FROM STDIN;\n8\tcopied\n9\ttoo\n\\.\n$LOOK;\nROLLBACK;\n");
		is($copied, join("\n", $make->(8, 'copied'), $make->(9, 'too')), "$name: COPY");
		makes(q{DO $$ BEGIN FOR i IN 1 .. 2 LOOP INSERT INTO many VALUES (i, 'p'); BEGIN INSERT INTO many VALUES (i, 'p'); EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; END $$},
			[ $make->(1, 'p'), $make->(2, 'p') ], "$name: an exception caught");
	}
	run('DROP TABLE many');
	run(q{CREATE TABLE late (id int PRIMARY KEY, note text);
		CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "L-{id}", "notes": "{note}"}')});
	makes(q{INSERT INTO late VALUES (1, 'a'); UPDATE late SET note = 'b'; SET CONSTRAINTS ALL IMMEDIATE},
		[ 'create L-1 {"erpID": "L-1", "notes": "a", "taskTypeID": 1, "requestMethodID": 4}', 'update L-1 {"notes": "b"}' ], 'a deferred trigger');
	run(q{CREATE TABLE picked (id int PRIMARY KEY, state text); CREATE TRIGGER t AFTER INSERT OR UPDATE ON picked FOR EACH ROW WHEN (NEW.state = 'open') EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "S-{id}"}')});
	makes(q{INSERT INTO picked VALUES (1, 'draft'), (2, 'open')}, ['create S-2 {"erpID": "S-2", "taskTypeID": 1, "requestMethodID": 4}'], 'WHEN');
	run('DROP TABLE late, picked');
}

sub partitions
{
	run(q{CREATE TABLE part (id int, region text, note text, hid text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
		CREATE TABLE north (note text, hid text, gone int, region text NOT NULL, id int NOT NULL); ALTER TABLE north DROP gone;
		ALTER TABLE part ATTACH PARTITION north FOR VALUES IN ('n'); CREATE TABLE south PARTITION OF part FOR VALUES IN ('s')});
	my $template = q('{"task_type_id": 1, "erp_id": "P-{id}", "notes": "{note}", "contactPerson": "{region}"}');
	run(each_row('part', 'INSERT OR UPDATE OR DELETE', qq($template, '{"write_back": {"id": "hid"}}')));
	my $there = q{INSERT INTO part VALUES (1, 'n', 'a'), (2, 's', 'b')};
	makes($there, [ map { my ($id, $region, $note) = @$_; qq(create P-$id {"erpID": "P-$id", "notes": "$note", "taskTypeID": 1, "contactPerson": "$region", "requestMethodID": 4}) } [qw(1 n a)], [qw(2 s b)] ],
		'each partition by its own columns');
	makes("$there; UPDATE part SET note = 'c'; DELETE FROM north; DELETE FROM hubex.outbox WHERE operation = 'create'",
		[ 'update P-1 {"notes": "c"}', 'update P-2 {"notes": "c"}', 'delete P-1' ], 'UPDATE and DELETE');
	makes("$there; DELETE FROM hubex.outbox; UPDATE part SET region = 'n' WHERE id = 2",
		[ 'delete P-2', 'create P-2 {"erpID": "P-2", "notes": "b", "taskTypeID": 1, "contactPerson": "n", "requestMethodID": 4}' ],
		'a row that moves to another partition is a DELETE and an INSERT to PostgreSQL');
	is($session->query("BEGIN; $there; SELECT string_agg(DISTINCT write_back ->> 'table', ' ') || ' ' || string_agg(write_back ->> 'key', ' ' ORDER BY id) FROM hubex.outbox WHERE created_at = now(); ROLLBACK"),
		'public.part {"id": "1", "region": "n"} {"id": "2", "region": "s"}', 'written back by way of the whole table, for the row may move');
	run(q{DROP TRIGGER t ON part});
	run("CREATE TRIGGER i AFTER INSERT ON part REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger($template);
		CREATE TRIGGER u AFTER UPDATE ON part REFERENCING NEW TABLE AS n OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger($template)");
	makes("$there; UPDATE part SET region = 'n', note = note || 'x'; DELETE FROM hubex.outbox WHERE operation = 'create'",
		[ 'update P-1 {"notes": "ax"}', 'update P-2 {"notes": "bx", "contactPerson": "n"}' ], 'FOR EACH STATEMENT, with a row that moves to another partition');
	run(q{CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER keep_out BEFORE INSERT ON north FOR EACH ROW EXECUTE FUNCTION keep_out()});
	refused(q{INSERT INTO part VALUES (1, 's', 'a'); UPDATE part SET region = 'n'}, '39P01', qr/FOR EACH ROW/, 'a row that was kept from moving');
	run('DROP TABLE part');
}

sub changes_under_way
{
	run('CREATE TABLE live (id int PRIMARY KEY, note text)');
	run(each_row('live', 'INSERT', q('{"task_type_id": 1, "erp_id": "V-{id}", "notes": "{note}"}')));
	my $insert = q(INSERT INTO live VALUES (1, 'a'));
	my $now = sub { makes($insert, [ "create V-1 $_[0]" ], $_[1]) };
	$now->('{"erpID": "V-1", "notes": "a", "taskTypeID": 1, "requestMethodID": 4}', 'a trigger');
	run('ALTER TABLE live ADD first int, DROP note; ALTER TABLE live ADD note text');
	$insert = q(INSERT INTO live VALUES (1, 2, 'a'));
	$now->('{"erpID": "V-1", "notes": "a", "taskTypeID": 1, "requestMethodID": 4}', 'another order of the columns');
	run('ALTER TABLE live ALTER note TYPE int USING NULL');
	$insert = q(INSERT INTO live VALUES (1, 2, 3));
	$now->('{"erpID": "V-1", "notes": 3, "taskTypeID": 1, "requestMethodID": 4}', 'another type');
	run('ALTER TABLE live RENAME note TO remark');
	refused($insert, '42703', qr/id, first, remark/, 'a column renamed');
	run(each_row('live', 'INSERT', q('{"task_type_id": 2, "erp_id": "V-{id}"}')));
	$now->('{"erpID": "V-1", "taskTypeID": 2, "requestMethodID": 4}', 'the trigger made anew');

	# What another session changes counts at once.
	$node->safe_psql('postgres', q{UPDATE hubex.connector SET manifest = jsonb_set(manifest, '{resources,tasks,operations,create,defaults,requestMethodID}', '9') WHERE name = 'hubex'});
	$now->('{"erpID": "V-1", "taskTypeID": 2, "requestMethodID": 9}', 'another manifest');
	$node->safe_psql('postgres', q{UPDATE hubex.connector SET manifest = jsonb_set(manifest, '{resources,tasks,operations,create,defaults,requestMethodID}', '4') WHERE name = 'hubex'});
	$node->safe_psql('postgres', q{CREATE SERVER second FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1'); CREATE USER MAPPING FOR PUBLIC SERVER second OPTIONS (service_token 'x')});
	refused($insert, '42P08', qr/fsm, second/, 'a second server: which is meant?');
	my $which = "BEGIN; $insert; SELECT server FROM hubex.outbox WHERE created_at = now(); ROLLBACK";
	for my $server (qw(second fsm))
	{
		run("SET hubex.default_server = '$server'");
		is($session->query($which), $server, "hubex.default_server = $server");
	}
	run('RESET hubex.default_server');
	$node->safe_psql('postgres', 'DROP SERVER second CASCADE');
	is($session->query($which), 'fsm', 'only one again');
	run(q{CREATE ROLE clerk; GRANT INSERT ON live TO clerk; SET ROLE clerk});
	like($session->query($insert), qr/42501.*GRANT USAGE ON FOREIGN SERVER fsm TO clerk/s, 'the role that changes the row needs the server');
	$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER fsm TO clerk');
	run("BEGIN; $insert; ROLLBACK");
	$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER fsm FROM clerk');
	like($session->query($insert), qr/42501/, '... as long as it has it');
	run('RESET ROLE; DROP TABLE live');
}

sub wrong_uses
{
	run('CREATE TABLE bad (id int PRIMARY KEY, note text); CREATE VIEW worse AS SELECT * FROM bad');
	my $with = sub {
		my ($function, $arguments, $state, $hint, $what, $kind) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		$session->query('CREATE OR REPLACE TRIGGER t ' . ($kind // 'AFTER INSERT ON bad FOR EACH ROW') . " EXECUTE FUNCTION $function($arguments)");
		my $answer = refused('INSERT INTO bad VALUES (1)', $state, $hint, $what);
		like($answer->{error} . $answer->{detail}, qr/$function/, '... in the name of the function') if $state eq '39P01';
	};
	for my $function (qw(hubex_task_trigger hubex_create_trigger))
	{
		my $resource = $function eq 'hubex_task_trigger' ? '' : q('tasks', );
		$with->($function, '', '39P01', qr/$function\('server'/, 'no arguments');
		$with->($function, q('fsm', 'tasks'), '39P01', qr/CREATE TRIGGER/, 'no template');
		$with->($function, q('a', 'b', 'c', '{}'), '39P01', qr/CREATE TRIGGER/, 'too many before it');
		$with->($function, "$resource'{}', 'x'", '39P01', qr/CREATE TRIGGER/, 'something else after it');
		$with->($function, "$resource'{}', '{}', '{}'", '39P01', qr/CREATE TRIGGER/, 'too many after it');
		$with->($function, "$resource'[1]'", '39P01', qr/CREATE TRIGGER/, 'a template that is no object');
		$with->($function, "$resource'{\"a\": }'", '22P02', qr/\A/, 'a template that is not JSON');
		$with->($function, "$resource'{\"task_type_id\": 1, \"a\": \"{nope}\"}'", '42703', qr/The columns are: id, note\./, 'a column that is not there');
		$with->($function, "$resource'{\"task_type_id\": 1, \"a\": \"{id\"}'", '22023', qr/\{\{/, 'a brace that is not closed');
		$with->($function, "'nowhere', $resource'{}'", '42704', qr/fsm/, 'a server that is not there');
		$with->($function, "$resource'{\"notes\": \"x\"}'", '22004', qr/short names/, 'a field that is required');
		$with->($function, "$resource'{}'", '39P01', qr/AFTER INSERT/, 'BEFORE', 'BEFORE INSERT ON bad FOR EACH ROW');
	}
	$with->('hubex_create_trigger', q('{"notes": "x"}'), '39P01', qr/'resource'/, 'no resource');
	$with->('hubex_create_trigger', q('fsm', 'nothings', '{"notes": "x"}'), 'HV00R', qr/IMPORT FOREIGN SCHEMA/, 'a resource that is not there');
	run('CREATE OR REPLACE TRIGGER t AFTER TRUNCATE ON bad EXECUTE FUNCTION hubex_task_trigger(\'{}\')');
	refused('TRUNCATE bad', '39P01', qr/AFTER INSERT OR UPDATE OR DELETE/, 'TRUNCATE');
	is($client->try('SELECT hubex_task_trigger()')->{sqlstate}, '39P01', 'a call');
	run('CREATE TRIGGER t INSTEAD OF INSERT ON worse FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger(\'{}\')');
	refused('INSERT INTO worse VALUES (1)', '39P01', qr/AFTER/, 'INSTEAD OF');
	run('DROP VIEW worse; DROP TABLE bad');
}

# ---- what is sent ----

sub task
{
	my ($key) = @_;
	my @found = grep { ($_->{erpID} // '') eq $key } @{ $sandbox->tasks };
	return @found == 1 ? $found[0] : {};
}

sub arrives
{
	run('DROP TABLE kinds');
	$session->query(q{DELETE FROM hubex.outbox});
	$sandbox->reset;
	run(q{INSERT INTO job VALUES (1, 'one', NULL, '2030-01-01 00:00Z'), (2, 'two', NULL, NULL), (3, 'three', NULL, NULL)});
	run(q{UPDATE job SET note = 'zwei' WHERE id = 2; BEGIN; UPDATE job SET note = 'drei' WHERE id = 3; ROLLBACK});
	settled('rows and a change of one, named by its key');
	is(join(' ', map { task("J-$_")->{notes} } 1 .. 3), 'one zwei three', 'as they are');
	run(q{UPDATE job SET note = 'uno', due = NULL WHERE id = 1; DELETE FROM job WHERE id = 3; UPDATE job SET other = 'x'});
	settled('more changes');
	is(task('J-1')->{notes}, 'uno', 'one is changed');
	is(task('J-1')->{deadline}, undef, '... and emptied');
	ok(task('J-3')->{deleted}, 'one is deleted');
	ok(!task('J-2')->{deleted}, '... and no other');
	is(scalar @{ $sandbox->tasks }, 3, 'three tasks');
	is(scalar grep({ $_->{method} eq 'PATCH' } @{ $sandbox->journal }), 2, 'two changes were sent, as the third is nothing to HubEx');
	run(q{DELETE FROM job; DELETE FROM hubex.outbox});
}

sub bulk
{
	$sandbox->reset;
	run(q{CREATE TABLE load (id int PRIMARY KEY, note text);
		CREATE TRIGGER i AFTER INSERT ON load REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 2, "erp_id": "BULK-{id}", "notes": "{note}"}');
		CREATE TRIGGER u AFTER UPDATE ON load REFERENCING NEW TABLE AS n OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 2, "erp_id": "BULK-{id}", "notes": "{note}"}')});
	run(q{BEGIN; SET LOCAL work_mem = '64kB'; INSERT INTO load SELECT g, 'row ' || g FROM generate_series(1, 10000) g; UPDATE load SET note = note || '!' WHERE id % 100 = 0});
	is($session->query(q{SELECT operation, count(*), count(DISTINCT natural_key) FROM hubex.outbox WHERE created_at = now() GROUP BY 1 ORDER BY 1}),
		"create|10000|10000\nupdate|100|100", 'ten thousand rows in one statement, from a table that was spilled to disk');
	is($session->query(q{SELECT count(*) FROM hubex.outbox WHERE created_at = now() AND operation = 'create' AND body ->> 'notes' = 'row ' || substr(natural_key, 6)}), 10000, 'each as it is');
	is($session->query(q{SELECT count(*) FROM hubex.outbox WHERE created_at = now() AND operation = 'update' AND body = jsonb_build_object('notes', 'row ' || substr(natural_key, 6) || '!')}), 100, '... and each change');
	run('ROLLBACK');
	run(q{INSERT INTO load SELECT g, 'row ' || g FROM generate_series(1, 300) g});
	settled('three hundred are sent');
	is(scalar @{ $sandbox->tasks }, 300, 'all arrive');
	is_deeply([ sort map { $_->{erpID} } @{ $sandbox->tasks } ], [ sort map { "BULK-$_" } 1 .. 300 ], 'each once');
	is($session->query(q{SELECT count(*) FROM hubex.outbox a JOIN hubex.outbox b ON b.id > a.id
			WHERE a.natural_key LIKE 'BULK-%' AND b.natural_key LIKE 'BULK-%' AND substr(a.natural_key, 6)::int > substr(b.natural_key, 6)::int}),
		0, 'their ids are in the order of the rows');
	run(q{DELETE FROM hubex.outbox});

	# An error after some were put in, and what a cast of the user's enqueues while they are collected.
	like($session->query(q{INSERT INTO load SELECT g, CASE WHEN g = 1700 THEN repeat('x', 70000000) ELSE 'row' END FROM generate_series(1001, 2000) g}),
		qr/54000/, 'one of them cannot be put in');
	is($session->query(q{SELECT count(*) FROM hubex.outbox}), 0, 'none is');
	run(q{CREATE TYPE mood AS ENUM ('good', 'bad');
		CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM hubex_create_task(2, erp_id => 'MOOD-' || (SELECT count(*) FROM hubex.outbox));
			RETURN to_json($1::text);
		END $$;
		CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
		CREATE TABLE moods (id int PRIMARY KEY, mood mood);
		CREATE TRIGGER i AFTER INSERT ON moods REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 2, "erp_id": "OF-{id}", "notes": "{mood}"}')});
	is($session->query(q{BEGIN; INSERT INTO moods VALUES (1, 'good'), (2, 'bad'); SELECT string_agg(natural_key, ' ' ORDER BY id) FROM hubex.outbox; ROLLBACK}),
		'MOOD-0 OF-1 MOOD-2 OF-2', 'code that runs for a row finds the rows before put in');
	run(q{DROP TABLE moods; DROP CAST (mood AS json); DROP FUNCTION mood_json; DROP TYPE mood});
}
