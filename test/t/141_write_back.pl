# Write-back: the id and the number of what a request made are in the row it was made for when the request is delivered, and a
# function is told. What fails there is done later, without sending again; and whoever may put a trigger on a table
# gains nothing by it.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');
my $worker = $node->safe_psql('postgres', 'SELECT pid FROM hubex.worker_state()');
my $session = Hubex::Session->new($node);
my $client = Hubex::Client->new($node);

sub run
{
	my ($sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query($sql), '', $sql =~ s/\s+/ /gr =~ s/^\s*(.{0,60}).*/$1/r);
	return;
}

sub trigger
{
	my ($table, $options, %option) = @_;
	my $events = $option{events} // 'INSERT OR UPDATE OR DELETE';
	my $key = $option{key} // uc($table) . '-{id}';
	return qq(CREATE OR REPLACE TRIGGER hubex AFTER $events ON $table FOR EACH ROW EXECUTE FUNCTION
		hubex_task_trigger('fsm', '{"task_type_id": 1, "erp_id": "$key", "notes": "{note}"}', '$options'));
}

# All requests of a key are delivered, and how many of them are still to be written back.
sub delivered
{
	my ($like, $unwritten, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_for("SELECT count(*) FILTER (WHERE state <> 'delivered') || ' ' || count(*) FILTER (WHERE unwritten) FROM hubex.outbox WHERE natural_key LIKE '$like'",
		"0 $unwritten", $what, 60)
	  || diag $node->safe_psql('postgres', "SELECT id, operation, state, unwritten, last_error FROM hubex.outbox WHERE natural_key LIKE '$like'");
}

sub made { my ($key) = @_; return scalar grep { ($_->{erpID} // '') eq $key } @{ $sandbox->tasks } }
sub task { my ($key) = @_; return (grep { ($_->{erpID} // '') eq $key } @{ $sandbox->tasks })[0] // {} }

subtest 'id and number' => \&columns;
subtest 'with the delivery, in one transaction' => \&one_transaction;
subtest 'no loops' => \&loops;
subtest 'a function' => \&callback;
subtest 'a function that fails' => \&failing_callback;
subtest 'a function without end' => \&endless_callback;
subtest 'a row that is locked' => \&locked_row;
subtest 'what is gone' => \&gone;
subtest 'keys and types' => \&keys;
subtest 'rights' => \&rights;
subtest 'without the worker' => \&by_hand;
is($node->safe_psql('postgres', 'SELECT pid FROM hubex.worker_state()'), $worker, 'it was one worker all the time');
done_testing;

sub columns
{
	run('CREATE TABLE erp (id int PRIMARY KEY, note text, hubex_id bigint, hubex_number text)');
	run(trigger('erp', '{"write_back": {"id": "hubex_id", "number": "hubex_number"}}'));
	run(q{INSERT INTO erp VALUES (1, 'a'), (2, 'b')});
	delivered('ERP-%', 0, 'two rows are delivered');
	is($session->query('SELECT id, hubex_id, hubex_number FROM erp ORDER BY id'),
		join("\n", map { join '|', $_, @{ task("ERP-$_") }{qw(id number)} } 1, 2), 'each knows its task');
	run(q{UPDATE erp SET note = 'c' WHERE id = 1; DELETE FROM erp WHERE id = 2});
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'what is done to them then');
	is($session->query(q{SELECT string_agg(operation || ' ' || (remote_id = (SELECT hubex_id::text FROM erp WHERE id = 1)), ', ' ORDER BY id) FROM hubex.outbox WHERE operation <> 'create'}),
		'update true, delete false', '... names the tasks by their ids');
	is(task('ERP-1')->{notes}, 'c', '... is done there');
	ok(task('ERP-2')->{deleted}, '... to the right one');

	# A row that the trigger did not see being made, found by its key.
	run(q{ALTER TABLE erp DISABLE TRIGGER hubex; INSERT INTO erp VALUES (3, 'x'); ALTER TABLE erp ENABLE TRIGGER hubex});
	run(q{SELECT FROM hubex_create_task(1, 'by hand', erp_id => 'ERP-3')});
	delivered('ERP-3', 0, 'a task made otherwise');
	run(q{UPDATE erp SET note = 'y' WHERE id = 3});
	delivered('ERP-3', 0, 'a change of its row');
	is($session->query('SELECT hubex_id FROM erp WHERE id = 3'), task('ERP-3')->{id}, 'brings its id into the row');
}

sub one_transaction
{
	run('CREATE TABLE many (id int PRIMARY KEY, note text, hid text)');
	run(trigger('many', '{"write_back": {"id": "hid"}}'));
	run(q{INSERT INTO many SELECT g, 'x' FROM generate_series(1, 200) g});
	my ($looks, $split) = (0, 0);
	my $left;
	my $deadline = time + 60;
	do
	{
		($left, my $wrong) = split /\|/, $session->query(q{SELECT count(*) FILTER (WHERE o.state <> 'delivered'), count(*) FILTER (WHERE (o.state = 'delivered') <> (m.hid IS NOT NULL) OR m.hid <> o.remote_id)
			FROM hubex.outbox o JOIN many m ON o.natural_key = 'MANY-' || m.id});
		$looks++;
		$split += $wrong;
	} until $left == 0 || time > $deadline;
	is($left, 0, 'all are delivered');
	is($split, 0, "nobody saw one without the other ($looks looks)");
	is($session->query(q{SELECT count(*) FROM hubex.outbox WHERE natural_key LIKE 'MANY-%'}), 200, 'nothing was sent because of it');
}

sub loops
{
	run(q{CREATE TABLE looped (id int PRIMARY KEY, note text, hid bigint, changed int NOT NULL DEFAULT 0);
		CREATE TABLE audit (what text, who text, path text);
		CREATE FUNCTION before_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.changed := OLD.changed + 1; RETURN NEW; END $$;
		CREATE FUNCTION after_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO public.audit VALUES (format('%s: %s -> %s', NEW.id, OLD.hid IS NOT NULL, NEW.hid IS NOT NULL), current_user, current_setting('search_path'));
			IF OLD.hid IS NULL AND NEW.note = 'again' THEN UPDATE public.looped SET note = 'by the trigger' WHERE id = NEW.id; END IF;
			RETURN NULL; END $$;
		CREATE TRIGGER a BEFORE UPDATE ON looped FOR EACH ROW EXECUTE FUNCTION before_change();
		CREATE TRIGGER z AFTER UPDATE ON looped FOR EACH ROW EXECUTE FUNCTION after_change()});
	run(q{CREATE TRIGGER hubex AFTER INSERT OR UPDATE ON looped FOR EACH ROW EXECUTE FUNCTION
		hubex_task_trigger('fsm', '{"task_type_id": 1, "erp_id": "LOOP-{id}", "notes": "{note}", "contact_person": "{changed} {hid}"}', '{"write_back": {"id": "hid"}}')});
	run(q{CREATE TRIGGER hubex2 AFTER UPDATE ON looped REFERENCING NEW TABLE AS n OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION
		hubex_task_trigger('fsm', '{"task_type_id": 1, "erp_id": "LOOP-{id}", "contact_phone": "{changed} {hid}"}')});
	run(q{INSERT INTO looped VALUES (1, 'once')});
	delivered('LOOP-%', 0, 'delivered');
	is($session->query('SELECT changed, hid IS NOT NULL FROM looped'), '1|t', "the row's own triggers take part");
	is($session->query('SELECT what, path FROM audit'), '1: f -> t|pg_catalog, pg_temp', '... with a search_path that nobody can bend');
	is($session->query(q{SELECT count(*) FROM hubex.outbox WHERE natural_key = 'LOOP-1'}), 1, '... and hubex makes nothing of it, in neither form');
	run(q{INSERT INTO looped VALUES (2, 'again')});
	$node->wait_for(q{SELECT string_agg(operation || ' ' || state || ' ' || (body ->> 'notes'), ', ' ORDER BY id) FROM hubex.outbox WHERE natural_key = 'LOOP-2' AND body ? 'notes'},
		'create delivered again, update delivered by the trigger', 'what a trigger of the row does then is sent');
	delivered('LOOP-%', 0, 'all is delivered');
	is(task('LOOP-2')->{notes}, 'by the trigger', 'as the row has it');
}

sub callback
{
	run(q{CREATE ROLE shop; GRANT USAGE ON FOREIGN SERVER fsm TO shop; GRANT CREATE, USAGE ON SCHEMA public TO shop;
		SELECT FROM hubex_grant('shop', 'enqueue')});
	$session->query(q{SELECT hubex_grant('shop', 'enqueue')});
	run(q{SET ROLE shop; CREATE TABLE sale (id int PRIMARY KEY, note text); CREATE TABLE told (n bigserial, request bigint, id text, number text, response jsonb, who text, path text);
		CREATE FUNCTION tell(request_id bigint, remote_id text, remote_number text, response jsonb) RETURNS void LANGUAGE sql
		AS $$ INSERT INTO public.told (request, id, number, response, who, path) VALUES ($1, $2, $3, $4, current_user, current_setting('search_path')) $$});
	run(trigger('sale', '{"callback": "tell"}'));
	run(q{INSERT INTO sale VALUES (1, 'a'); RESET ROLE});
	delivered('SALE-%', 0, 'delivered');
	my $task = task('SALE-1');
	is($session->query(q{SELECT t.id, t.number, t.response ->> 'id', who, t.path FROM told t JOIN hubex.outbox o ON o.id = request WHERE natural_key = 'SALE-1' AND operation = 'create'}),
		"$task->{id}|$task->{number}|$task->{id}|shop|pg_catalog, pg_temp", "the function is told, as the table's owner");
	run(q{UPDATE sale SET note = 'b'; DELETE FROM sale});
	$node->wait_for(q{SELECT string_agg(o.operation, ' ' ORDER BY n) FROM told JOIN hubex.outbox o ON o.id = request}, 'create update delete', 'of every change, in their order');
	is($session->query('SELECT count(DISTINCT id) FILTER (WHERE id IS NOT NULL), count(id) FROM told'), '1|3', '... with the id of the task');

	# A trigger that runs at the end of the transaction runs with the write-back, as the owner.
	run(q{CREATE FUNCTION note_role() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.told SET path = current_user WHERE n = NEW.n; RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER late AFTER INSERT ON told DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_role()});
	run(q{INSERT INTO sale VALUES (2, 'a')});
	delivered('SALE-2', 0, 'delivered');
	is($session->query(q{SELECT path FROM told ORDER BY n DESC LIMIT 1}), 'shop', 'a deferred trigger');
	run(q{DROP TRIGGER late ON told});
	run(q{ALTER TABLE sale ADD hid text; SET ROLE shop});
	run(trigger('sale', '{"callback": "tell", "write_back": {"id": "hid"}}') . '; RESET ROLE');
	run(q{INSERT INTO sale VALUES (3, 'a')});
	delivered('SALE-3', 0, 'delivered');
	is($session->query(q{SELECT told.id = hid FROM told, sale WHERE sale.id = 3 ORDER BY n DESC LIMIT 1}), 't', 'columns and a function');
}

sub failing_callback
{
	my $body = sub { return "CREATE OR REPLACE FUNCTION tell(request_id bigint, remote_id text, remote_number text, response jsonb) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN $_[0] END \$\$" };
	my @ways = (
		[ q(RAISE EXCEPTION 'no %', remote_id USING HINT = 'ask again';), qr/no \d+ Hint: ask again/ ],
		[ q(RAISE EXCEPTION USING ERRCODE = '57014', MESSAGE = 'as if cancelled';), qr/as if cancelled/ ],
		[ q(RAISE EXCEPTION USING ERRCODE = '57P01', MESSAGE = 'as if shut down';), qr/as if shut down/ ],
		[ q(INSERT INTO told (id) VALUES ('x');), qr/relation "told" does not exist.*name things in full/s ],
		[ q(PERFORM 1 / 0;), qr/division by zero/ ],
		[ q(SET CONSTRAINTS ALL DEFERRED; CREATE TEMP TABLE x (a int);), qr/temporary table/ ]);
	my $id = 100;
	for my $way (@ways)
	{
		my ($code, $error) = @$way;
		$id++;
		run('SET ROLE shop; ' . $body->($code) . '; RESET ROLE');
		run("INSERT INTO sale VALUES ($id, 'x')");
		delivered("SALE-$id", 1, "$code: delivered, and not written back");
		like($session->query("SELECT last_error FROM hubex.outbox WHERE natural_key = 'SALE-$id'"), $error, '... which it says');
		is($session->query("SELECT hid FROM sale WHERE id = $id"), '', '... not in part either');
	}
	run('SET ROLE shop; ' . $body->(q(INSERT INTO public.told (request, id) VALUES (request_id, remote_id);)) . '; RESET ROLE');
	run(q{INSERT INTO sale VALUES (99, 'x')});
	delivered('SALE-99', 0, 'another one goes on');
	delivered('SALE-1%', 0, 'once the function works it is called');
	is($session->query(q{SELECT count(*) FROM told JOIN sale ON hid = told.id WHERE sale.id > 100}), scalar @ways, '... for each, once');
	is(made("SALE-$_"), 1, "SALE-$_ was sent once") for 101 .. $id;
	is($session->query(q{SELECT count(*) FROM hubex.outbox WHERE natural_key LIKE 'SALE-1%' AND attempts <> 1}), 0, 'in one attempt each');
	is($session->query(q{SELECT count(*) FROM hubex.outbox WHERE natural_key LIKE 'SALE-1%' AND last_error IS NOT NULL}), 0, 'and nothing is said any more');
}

sub endless_callback
{
	run(q{CREATE TABLE slow (id int PRIMARY KEY, note text);
		CREATE FUNCTION dawdle(bigint, text, text, jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
			BEGIN PERFORM pg_catalog.pg_sleep(3600); EXCEPTION WHEN query_canceled THEN PERFORM pg_catalog.pg_sleep(3600); END; END $$});
	run(trigger('slow', '{"callback": "dawdle"}'));
	run(q{INSERT INTO slow VALUES (1, 'x')});
	delivered('SLOW-1', 1, 'a function that sleeps, and goes on when it is cancelled');
	like($session->query(q{SELECT last_error FROM hubex.outbox WHERE natural_key = 'SLOW-1'}), qr/took longer than \d+ ms/, '... which it says');
	run(q{INSERT INTO erp VALUES (50, 'x')});
	delivered('ERP-50', 0, 'others are delivered meanwhile');
	run(q{SET ROLE NONE; CREATE OR REPLACE FUNCTION dawdle(bigint, text, text, jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN LOOP END LOOP; END $$});
	run(q{INSERT INTO slow VALUES (2, 'x')});
	delivered('SLOW-2', 1, 'one that never rests');
	run(q{CREATE OR REPLACE FUNCTION dawdle(bigint, text, text, jsonb) RETURNS void LANGUAGE sql AS ''});
	delivered('SLOW-%', 0, 'both in the end');
	is(made("SLOW-$_"), 1, 'sent once') for 1, 2;
}

sub locked_row
{
	my $other = Hubex::Session->new($node);
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 0.5, times => 1);
	run(q{INSERT INTO erp VALUES (60, 'x')});
	is($other->query('BEGIN; SELECT id FROM erp WHERE id = 60 FOR UPDATE'), 60, 'somebody locks the row');
	delivered('ERP-60', 1, 'delivered all the same');
	like($session->query(q{SELECT last_error FROM hubex.outbox WHERE natural_key = 'ERP-60'}), qr/lock timeout/, 'it says why it is not in the row');
	run(q{INSERT INTO erp VALUES (61, 'x')});
	delivered('ERP-61', 0, 'others go on');
	$other->query('COMMIT');
	delivered('ERP-60', 0, 'it is written when the lock is gone');
	is($session->query('SELECT hubex_id FROM erp WHERE id = 60'), task('ERP-60')->{id}, 'the right one');
	is(made('ERP-60'), 1, 'sent once');
}

sub gone
{
	run('CREATE TABLE going (id int PRIMARY KEY, note text, hid text)');
	run(trigger('going', '{"write_back": {"id": "hid"}}', events => 'INSERT'));
	my $under_way = sub {
		my ($id, $sql, $unwritten, $what) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		my $fault = $sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 1, times => 1);
		is($session->query("INSERT INTO going VALUES ($id, 'x')"), '', 'a row');
		is($session->query($sql), '', "... $what") or return;
		delivered("GOING-$id", $unwritten, 'it is delivered');
		$sandbox->clear_faults($fault);
	};
	$under_way->(1, 'DELETE FROM going WHERE id = 1', 0, 'is deleted');
	$under_way->(2, 'ALTER TABLE going RENAME TO moved', 0, 'gets a table of another name');
	is($session->query('SELECT hid FROM moved WHERE id = 2'), task('GOING-2')->{id}, '... where it is written');
	run('ALTER TABLE moved RENAME TO going');
	$under_way->(3, 'ALTER TABLE going RENAME hid TO other', 1, 'loses the column');
	like($session->query(q{SELECT last_error FROM hubex.outbox WHERE natural_key = 'GOING-3'}), qr/column "hid" of relation "going" does not exist/, '... which it says');
	run('ALTER TABLE going RENAME other TO hid');
	delivered('GOING-3', 0, 'and is written when it is there again');
	$under_way->(4, 'DROP TABLE going', 0, 'loses its table');
	is(made("GOING-$_"), 1, "GOING-$_ was sent once") for 1 .. 4;
}

sub keys
{
	run(q{CREATE TABLE composed (day date, at timestamptz, span interval, "Who's" text, n numeric, note text, "the id" int, number varchar(5), PRIMARY KEY (day, at, span, "Who's", n));
		SET DateStyle = 'German'; SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'});
	run(q{CREATE TRIGGER hubex AFTER INSERT ON composed FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "KEYS-{n}"}', '{"write_back": {"id": "the id"}}')});
	run(q{INSERT INTO composed VALUES ('2024-02-01', '2024-02-01 10:00:00.25+03', '-1 day 02:00', 'O''Hara "x"', 1.50), ('2024-02-01', '2024-02-01 10:00:00.25+03', '1 day 02:00', '', 2); RESET ALL});
	delivered('KEYS-%', 0, 'a key of many columns');
	is($session->query('SELECT "the id" FROM composed ORDER BY n'), task('KEYS-1.50')->{id} . "\n" . task('KEYS-2')->{id}, 'each row its own');
	run(q{CREATE OR REPLACE TRIGGER hubex AFTER INSERT ON composed FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1, "erp_id": "SHORT-{n}"}', '{"write_back": {"number": "number"}}')});
	run(q{INSERT INTO composed VALUES ('2024-02-01', now(), '0', 'x', 3)});
	delivered('SHORT-%', 1, 'a number that does not fit the column');
	run(q{ALTER TABLE composed ALTER number TYPE text});
	delivered('SHORT-%', 0, 'nor is it cut: it is written when it fits');
	is($session->query('SELECT number FROM composed WHERE n = 3'), task('SHORT-3')->{number}, 'whole');

	run(q{CREATE TABLE part (id int, region text, note text, hid text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
		CREATE TABLE part_n PARTITION OF part FOR VALUES IN ('n', 'm'); CREATE TABLE part_s PARTITION OF part FOR VALUES IN ('s');
		CREATE DOMAIN label AS text CHECK (VALUE <> ''); CREATE TYPE side AS ENUM ('l', 'r');
		CREATE TABLE odd (a label, b side, c uuid DEFAULT gen_random_uuid(), note text, hid text, PRIMARY KEY (a, b, c))});
	run(trigger('part', '{"write_back": {"id": "hid"}}', events => 'INSERT'));
	run(trigger('odd', '{"write_back": {"id": "hid"}}', events => 'INSERT', key => 'ODD-{a}'));
	run(q{INSERT INTO part VALUES (1, 'n', 'x'), (2, 's', 'x'); INSERT INTO odd VALUES ('1', 'r')});
	delivered('PART-%', 0, 'partitions');
	delivered('ODD-%', 0, 'a domain, an enum and a uuid');
	is($session->query(q{SELECT string_agg(hid, ' ' ORDER BY id) FROM part}), join(' ', map { task("PART-$_")->{id} } 1, 2), 'each partition');
	is($session->query(q{SELECT hid FROM odd}), task('ODD-1')->{id}, 'the other');
}

sub rights
{
	run(q{CREATE ROLE mallory LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO mallory; GRANT USAGE ON FOREIGN SERVER fsm TO mallory});
	$session->query(q{SELECT hubex_grant('mallory', 'enqueue')});
	run(q{CREATE TABLE treasure (id int PRIMARY KEY, note text, hid text); GRANT TRIGGER, INSERT, SELECT ON treasure TO mallory; SET ROLE mallory;
		CREATE FUNCTION grab(bigint, text, text, jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END $$});
	run(trigger('treasure', '{"callback": "grab"}'));
	my $answer = $session->query(q{INSERT INTO treasure VALUES (1, 'x')});
	like($answer, qr/42501: function grab cannot be a callback of this table/, "her function cannot be a callback of another's table");
	like($answer, qr/HINT:  ALTER FUNCTION grab OWNER TO/, '... and it says what would do');

	# Her own table, and every way out of it.
	my $tries = 0;
	run('CREATE TABLE hers (id int PRIMARY KEY, note text, hid text)');
	run(trigger('hers', '{"callback": "grab"}', events => 'INSERT'));
	for my $try ('ALTER ROLE mallory SUPERUSER', 'SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
		'CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS $f$ SELECT 1 $f$', 'DELETE FROM hubex.outbox', 'SELECT * FROM pg_catalog.pg_authid')
	{
		$tries++;
		run(qq{CREATE OR REPLACE FUNCTION grab(bigint, text, text, jsonb) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN EXECUTE '$try'; EXECUTE 'ALTER ROLE mallory SUPERUSER'; END \$\$});
		run("INSERT INTO hers VALUES ($tries, 'x')");
		delivered("HERS-$tries", 1, $try);
	}
	is($session->query(q{SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper}), 0, 'she is no superuser');

	# What her function sets is set back.
	run(q{CREATE OR REPLACE FUNCTION grab(bigint, text, text, jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		SET default_transaction_read_only = on; SET lock_timeout = 1; SET statement_timeout = 1; SET search_path = mallory; SET default_transaction_isolation = serializable; SET enable_indexscan = off; END $$});
	run(q{INSERT INTO hers VALUES (50, 'x')});
	delivered('HERS-%', 0, 'settings of hers');
	run(q{INSERT INTO hers VALUES (51, 'x'); RESET ROLE});
	delivered('HERS-51', 0, '... are not those of the worker');

	# Tables and functions that change hands on the way.
	my $fault = $sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 1, times => 3);
	run(q{SET ROLE mallory; CREATE TABLE trap (id int PRIMARY KEY, note text, hid text)});
	run(trigger('trap', '{"write_back": {"id": "hid"}}', events => 'INSERT'));
	run(q{INSERT INTO trap VALUES (1, 'x'); DROP TABLE trap; RESET ROLE; CREATE TABLE trap (id int PRIMARY KEY, note text, hid text); INSERT INTO trap VALUES (1, 'y')});
	delivered('TRAP-1', 0, "a table of hers, replaced by another's of that name");
	is($session->query('SELECT hid FROM trap'), '', '... is not written to');
	run(q{SET ROLE mallory; CREATE OR REPLACE FUNCTION grab(bigint, text, text, jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END $$; INSERT INTO hers VALUES (52, 'x'); RESET ROLE; ALTER TABLE hers OWNER TO postgres});
	delivered('HERS-52', 1, "a table of hers that became another's");
	like($session->query(q{SELECT last_error FROM hubex.outbox WHERE natural_key = 'HERS-52'}), qr/cannot be a callback of this table/, '... does not call her function any more');
	is($session->query(q{SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper}), 0, 'she is no superuser');
	$sandbox->clear_faults($fault);

	run(q{CREATE FUNCTION closed(bigint, text, text, jsonb) RETURNS void LANGUAGE sql AS ''; REVOKE EXECUTE ON FUNCTION closed FROM PUBLIC; ALTER TABLE trap OWNER TO shop});
	run(trigger('trap', '{"callback": "closed"}', events => 'INSERT'));
	like($session->query(q{INSERT INTO trap VALUES (2)}), qr/42501: permission denied for function closed.*GRANT EXECUTE ON FUNCTION closed TO shop/s, 'a function that the owner may not call');
	run('GRANT EXECUTE ON FUNCTION closed TO shop');
	run('INSERT INTO trap VALUES (2)');
	delivered('TRAP-2', 0, '... until it may');
}

sub by_hand
{
	my $other = Hubex::Node->new('by_hand', preload => 0);
	$other->start_hubex($sandbox);
	my $hand = Hubex::Session->new($other);
	$hand->query(q{CREATE TABLE hand (id int PRIMARY KEY, note text, hid text); CREATE FUNCTION dawdle(bigint, text, text, jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_catalog.pg_sleep(3600)'});
	$hand->query(trigger('hand', '{"write_back": {"id": "hid"}}'));
	$hand->query(q{INSERT INTO hand VALUES (1, 'x'); SET lock_timeout = '7s'; CALL hubex_deliver()});
	is($hand->query('SELECT hid FROM hand'), task('HAND-1')->{id}, 'CALL hubex_deliver() writes back too');
	is($hand->query(q{SELECT current_setting('lock_timeout'), current_user, current_setting('search_path')}), '7s|' . $hand->query('SELECT session_user') . '|"$user", public', '... and leaves the session as it was');
	$hand->query(trigger('hand', '{"callback": "dawdle"}'));
	my $caller = Hubex::Client->new($other);
	$caller->query(q{INSERT INTO hand VALUES (2, 'x'); SET statement_timeout = '2s'});
	my $answer = $caller->try('CALL hubex_deliver()');
	is($answer->{sqlstate}, '57014', "the caller's own statement_timeout ends the call");
	$hand->quit;
	$other->stop;
}
