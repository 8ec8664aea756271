# A fresh role can do nothing; hubex_grant() gives exactly what it says, and USAGE on a foreign server decides whose
# account is used. A role sees its own requests, which are signed by its own user mapping. What hubex does as the owner
# of its tables cannot be bent by a search_path, temporary objects or text of a caller's choice.
#
# The rights a clerk needs for rows of an ERP table to become tasks: INSERT on the table and USAGE on the server.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', preload => 0);    # so that requests stay until they are looked at
$node->start_hubex($sandbox);
my $super = Hubex::Client->new($node);
my @roles = qw(fresh reader writer second chief mallory clerk);
$super->query("CREATE ROLE $_ LOGIN") for @roles;
$super->query('GRANT CREATE ON SCHEMA public TO fresh');
my %client = map { $_ => Hubex::Client->new($node, user => $_) } @roles;
my $members = q{FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'hubex'
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = };

#
# PUBLIC, and a fresh role
#
my $functions = $members . q('pg_proc'::regclass);
my $relations = $members . q('pg_class'::regclass);
cmp_ok($super->query("SELECT count(*) $functions"), '>', 15, 'the extension has functions');
is($super->query("SELECT objid::regprocedure $functions AND has_function_privilege('fresh', objid, 'EXECUTE')"), '', 'none is for PUBLIC');
cmp_ok($super->query("SELECT count(*) $relations"), '>', 2, 'it has tables and sequences');
is($super->query("SELECT c.oid::regclass FROM pg_class c WHERE c.oid IN (SELECT objid $relations) AND c.relkind <> 'c'
	AND CASE relkind WHEN 'S' THEN has_sequence_privilege('fresh', c.oid, 'USAGE, SELECT, UPDATE')
	ELSE has_table_privilege('fresh', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
		OR has_any_column_privilege('fresh', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END"), '', '... none for PUBLIC');
is($super->query(q(SELECT has_schema_privilege('fresh', 'hubex', 'USAGE') OR has_schema_privilege('fresh', 'hubex', 'CREATE')
	OR has_foreign_data_wrapper_privilege('fresh', 'hubex_fdw', 'USAGE') OR has_server_privilege('fresh', 'fsm', 'USAGE'))), 'f',
	'nor the schema, the wrapper or a server');
is($super->query("SELECT objid::regprocedure FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'hubex'
	JOIN pg_proc p ON p.oid = d.objid WHERE d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND p.prosecdef"), '',
	'no function runs as its owner');

my @calls = split /\n/, $super->query("SELECT CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE 'SELECT ' END || p.oid::regproc || '('
	|| (SELECT coalesce(string_agg(CASE t::regtype::text WHEN 'jsonb' THEN '''{}''' WHEN 'text[]' THEN '''{}'''
		WHEN 'timestamp with time zone' THEN '''now''' WHEN 'time without time zone' THEN '''now''' ELSE '''0''' END || '::' || t::regtype, ', ' ORDER BY n), '') FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, n)) || ')'
	FROM pg_proc p WHERE p.oid IN (SELECT objid $functions) AND p.prorettype NOT IN ('trigger'::regtype, 'fdw_handler'::regtype)");
for my $call (@calls)
{
	is($client{fresh}->try($call)->{sqlstate}, '42501', "$call is denied");
}
denied('fresh', $_) for 'SELECT * FROM hubex.outbox', 'SELECT * FROM hubex.connector', 'INSERT INTO hubex.outbox DEFAULT VALUES',
  'DELETE FROM hubex.outbox', 'UPDATE hubex.outbox SET state = NULL', 'TRUNCATE hubex.outbox', q(SELECT nextval('hubex.claimant')),
  q(CREATE SERVER his FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1')),
  q(CREATE USER MAPPING FOR fresh SERVER fsm OPTIONS (service_token 'x')),
  q(CREATE USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (service_token 'x')),
  'IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO public',
  q(CREATE FOREIGN TABLE t (id bigint) SERVER fsm OPTIONS (resource 'tasks')),
  q(CREATE TABLE t (a int); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fsm', '{}')),
  q(ALTER EXTENSION hubex UPDATE), q(DROP EXTENSION hubex), q(ALTER TABLE hubex.outbox DISABLE ROW LEVEL SECURITY),
  q(CREATE POLICY p ON hubex.outbox USING (true)), q(CREATE TABLE hubex.t (a int));
is($client{fresh}->query(q(SELECT count(umoptions) FROM pg_user_mappings)), 0, 'it sees no credentials');

#
# hubex_grant
#
my %level = (
	read => [ qw(hubex_tasks hubex_list hubex_get hubex_check hubex_version hubex.worker_state hubex.workers hubex.server_stats hubex.held
		hubex.binding hubex.probe hubex.only_server hubex.check_mirrors hubex.check_subscription hubex_is_syncing hubex.sync_progress hubex.pending) ],
	enqueue => [ qw(hubex_create hubex_update hubex_delete hubex_enqueue hubex_create_task hubex_update_task hubex_delete_task
		hubex_move_task hubex_assign_task hubex_complete_task hubex_comment_task hubex_attach_file hubex_set_task_attributes
		hubex_task_trigger hubex_create_trigger hubex_wait hubex_cancel hubex_retry hubex_mirror_trigger hubex_pending_view
		hubex.change hubex.moment) ],
	admin => [ qw(hubex_request hubex_connect hubex_deliver hubex_retry_all hubex_pause hubex_resume hubex_take_over
		hubex_stat_reset hubex_subscribe hubex_unsubscribe hubex_sync hubex_confirm_deletes hubex.make_server hubex.check_manifest) ]);
my %there = map { $_ => 1 } split /\n/, $super->query("SELECT DISTINCT objid::regproc $functions");
@$_ = grep { $there{$_} } @$_ for values %level;
my @seen = map { "hubex_stat_$_ SELECT" } qw(progress_sync server sync worker);
my @own = ('hubex.conflict DELETE', 'hubex.conflict SELECT', 'hubex.mirror SELECT', 'hubex.outbox SELECT');
my @given;
for my $grant ([ read => 'reader' ], [ enqueue => 'writer' ], [ admin => 'chief' ])
{
	my ($level, $role) = @$grant;
	push @given, @{ $level{$level} };
	denied('fresh', "SELECT hubex_grant('fresh', '$level')");
	$super->query("SELECT hubex_grant('$role', '$level'); SELECT hubex_grant('$role', '$level')");
	is($super->query("SELECT string_agg(f, ' ' ORDER BY f COLLATE \"C\") FROM (SELECT DISTINCT objid::regproc::text AS f $functions
		AND has_function_privilege('$role', objid, 'EXECUTE')) s"), join(' ', sort @given), "level $level gives its functions and no more");
	is($super->query("SELECT string_agg(c.oid::regclass || ' ' || p, ', ' ORDER BY c.oid::regclass::text, p) FROM pg_class c,
			unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
			WHERE c.relkind IN ('r', 'v', 'S') AND c.oid IN (SELECT objid $relations) AND has_table_privilege('$role', c.oid, p)"),
		join(', ', sort { $a cmp $b } @seen, {
				read => [ 'hubex.mirror SELECT' ],
				enqueue => [ @own, 'hubex_stat_outbox SELECT' ],
				admin => [ @own, 'hubex_stat_outbox SELECT', map({ "hubex.connector $_" } qw(DELETE INSERT SELECT UPDATE)),
					map { "hubex.$_ SELECT" } qw(server_state subscription) ] }->{$level}->@*),
		'... and its tables');
}
$super->query(q(SELECT hubex_grant('second', 'enqueue'); SELECT hubex_grant('mallory', 'enqueue')));
is($super->try(q(SELECT hubex_grant('no such role', 'read')))->{sqlstate}, '42704', 'a role that is not there is an error');
is($super->try(qq(SELECT hubex_grant('$_', 'read')))->{sqlstate}, '42704', "... so is '$_'") for '', 'public', 'PUBLIC', 'current_user';
denied('chief', q(SELECT hubex_grant('chief', 'admin')));

#
# USAGE on the server
#
my @use = (
	[ reader => q(SELECT count(*) FROM hubex_tasks(server => 'fsm')) ],
	[ writer => q(SELECT hubex_create_task(1, 'by the writer', server => 'fsm')) ],
	[ writer => q(SELECT hubex_enqueue('GET', '/WORK/Tasks', server => 'fsm')) ],
	[ chief => q(SELECT status FROM hubex_request('GET', '/WORK/Tasks', server => 'fsm')) ]);
for my $use (@use)
{
	my ($role, $sql) = @$use;
	my $answer = $client{$role}->try($sql);
	is($answer->{sqlstate}, '42501', "without USAGE on the server: $sql");
	like($answer->{hint} // '', qr/GRANT USAGE ON FOREIGN SERVER fsm TO $role/, '... is denied with a hint');
}
like($client{reader}->query(q(SELECT message FROM hubex_check() WHERE NOT ok AND subject = 'account')), qr/permission denied/, 'hubex_check says so');
$super->query("GRANT USAGE ON FOREIGN SERVER fsm TO $_") for qw(reader writer second chief mallory);
is($client{ $_->[0] }->try($_->[1])->{error}, undef, "with it: $_->[1]") for @use;
is($client{reader}->query(q(SELECT string_agg(subject || coalesce(' ' || ok, ''), ', ') FROM hubex_check())),
	'version true, delivery false, server true, account true, outbox', 'hubex_check works for a reader');
denied('reader', q(SELECT hubex_create_task(1, 'x')));
denied('reader', 'SELECT * FROM hubex.outbox');
denied('writer', q(SELECT hubex_request('GET', '/WORK/Tasks')));
denied('writer', 'CALL hubex_deliver()');
denied('writer', $_) for q(UPDATE hubex.outbox SET body = '{}'), 'DELETE FROM hubex.outbox', 'INSERT INTO hubex.outbox (server, owner) VALUES (NULL, NULL)',
  'SELECT * FROM hubex.outbox FOR UPDATE', q(SELECT nextval('hubex.claimant')), q(SELECT hubex.announce());
is($client{$_}->query(q(SELECT count(umoptions) FROM pg_user_mappings)), 0, "$_ sees no credentials") for qw(reader writer chief);

# a foreign table
$super->query(q(CREATE SCHEMA far; IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO far; GRANT USAGE ON SCHEMA far TO PUBLIC;
	GRANT SELECT ON far.tasks TO clerk, reader; CREATE VIEW far.mine AS SELECT * FROM far.tasks; GRANT SELECT ON far.mine TO clerk));
denied('clerk', 'SELECT count(*) FROM far.tasks');
is($client{reader}->query('SELECT count(*) > 0 FROM far.tasks'), 't', 'USAGE decides over foreign tables too');
is($client{clerk}->query('SELECT count(*) > 0 FROM far.mine'), 't', '... a view is read as its owner');

#
# Whose request
#
my $first = $client{writer}->query(q(SELECT hubex_create_task(1, 'of the writer')));
my $other = $client{second}->query(q(SELECT hubex_create_task(1, 'of the second')));
is($client{second}->query('SELECT DISTINCT owner FROM hubex.outbox'), 'second', 'a role sees its own requests');
is($client{second}->query("SELECT count(*) FROM hubex.outbox WHERE id = $first"), 0, '... and not those of others');
my $waited = $client{second}->try("SELECT hubex_wait($first)");
is($waited->{sqlstate}, '42704', 'hubex_wait: that of another does not exist');
my $nothing = $client{second}->try('SELECT hubex_wait(123456789)');
is($waited->{message} =~ s/\d+/N/r . $waited->{detail}, $nothing->{message} =~ s/\d+/N/r . $nothing->{detail}, '... just like one that does not');
is($client{chief}->query('SELECT count(DISTINCT owner) FROM hubex.outbox'), 2, 'an administrator sees all');
isnt($client{chief}->try("SELECT hubex_wait($first)")->{sqlstate}, '42704', '... also with hubex_wait');
is($super->query('SELECT count(DISTINCT owner) FROM hubex.outbox'), 2, 'so does a superuser');

# a function in a condition is asked about one's own rows only
$super->query('GRANT CREATE ON SCHEMA public TO second');
$client{second}->query(q{CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END'});
my $leaked = $client{second}->try('SELECT id FROM hubex.outbox WHERE leak(body::text)')->{notices};
like($leaked, qr/of the second/, 'a condition sees one\'s own rows');
unlike($leaked, qr/of the writer/, '... and no others');
is($client{second}->try('SET row_security = off; SELECT * FROM hubex.outbox')->{sqlstate}, '42501', '... row_security off or not');
$client{second}->query('RESET row_security');

# the same idempotency key of two roles is two keys
my @keyed = map { $client{$_}->query(q(SELECT hubex_create_task(1, 'keyed', idempotency_key => 'k'))) } qw(writer second writer);
is($keyed[0], $keyed[2], 'an idempotency key gives the request there is');
isnt($keyed[0], $keyed[1], '... but not another role\'s');

#
# Who signs it
#
$super->query(q(CREATE USER MAPPING FOR second SERVER fsm OPTIONS (service_token 'of the second')));
$sandbox->clear_journal;
$super->query('CALL hubex_deliver()');
my %signed = map { $_->{body} =~ /"serviceToken": ?"([^"]+)"/ => $_->{status} } @{ $sandbox->journal(path => '/AUTHZ/AccessTokens') };
is_deeply(\%signed, { 'of the second' => 401, 'sandbox-service-token' => 201 }, 'each request is signed by the mapping of its role, else PUBLIC\'s');
is_deeply([ made(qr/^of the/) ], [ 'of the writer' ], '... so that one is delivered and the other not');
like($super->query("SELECT state || ' ' || last_error FROM hubex.outbox WHERE id = $other"), qr/^waiting sign-in/, '... and waits for its sign-in');
$sandbox->config(service_token => 'of the second');
eventually { $client{chief}->query('CALL hubex_deliver()'); $super->query("SELECT state FROM hubex.outbox WHERE id = $other") eq 'delivered' }
'an administrator can deliver for all', 30;
$sandbox->config(service_token => 'sandbox-service-token');
$super->query('DROP USER MAPPING FOR second SERVER fsm');
$super->query('REVOKE USAGE ON FOREIGN SERVER fsm FROM second');
is($client{second}->try(q(SELECT hubex_create_task(1, 'x')))->{sqlstate}, '42501', 'USAGE can be taken away');
$super->query('GRANT USAGE ON FOREIGN SERVER fsm TO second');
my $late = $client{second}->query(q(SELECT hubex_create_task(1, 'too late')));
$super->query('REVOKE USAGE ON FOREIGN SERVER fsm FROM second');
$super->query('CALL hubex_deliver()');
like($super->query("SELECT state || ' ' || last_error FROM hubex.outbox WHERE id = $late"), qr/^waiting permission denied/, '... also between COMMIT and delivery');
is_deeply([ made(qr/^too late/) ], [], '... and nothing is sent');

#
# The clerk
#
$super->query(q(CREATE TABLE orders (id int PRIMARY KEY, what text); GRANT INSERT ON orders TO clerk;
	CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 1, "notes": "{what}"}')));
denied('clerk', q(INSERT INTO orders VALUES (1, 'by the clerk')));
is($super->query('SELECT count(*) FROM orders'), 0, 'without USAGE on the server a clerk\'s row is refused');
$super->query('GRANT USAGE ON FOREIGN SERVER fsm TO clerk');
is($client{clerk}->try(q(INSERT INTO orders VALUES (1, 'by the clerk')))->{error}, undef, 'with it, and INSERT on the table, it is enough');
$super->query('CALL hubex_deliver()');
is_deeply([ made(qr/^by the clerk/) ], ['by the clerk'], '... for a task');
denied('clerk', q(SELECT hubex_create_task(1, 'x')));

#
# search_path, temporary objects
#
$super->query(q(GRANT CREATE ON DATABASE postgres TO mallory, chief; GRANT mallory TO chief));
$client{mallory}->query(evil());
for my $role (qw(mallory chief))
{
	my $evil = Hubex::Client->new($node, user => $role);
	$evil->query(q(SET search_path = evil, pg_catalog, public, pg_temp));
	$evil->query(q(CREATE TEMP TABLE outbox (id bigint, state text, owner name, server name); CREATE TEMP TABLE connector (name name, manifest jsonb);
		CREATE TEMP TABLE pg_foreign_server (oid oid, srvname name); CREATE DOMAIN pg_temp.name AS pg_catalog.text; CREATE DOMAIN pg_temp.int8 AS pg_catalog.text));
	$super->query('TRUNCATE evil.log');
	is($evil->query('SELECT 1 = 1'), 't', 'a search_path');
	$evil->query(q(SELECT now(), 'a'::name = 'a'::name));
	is($evil->query('SELECT count(*) > 0 FROM evil.log WHERE who = current_user'), 't', '... that works on its owner');
	my $id = $evil->query(q(SELECT public.hubex_create_task(1, 'by mallory', erp_id => 'm', idempotency_key => 'm' || clock_timestamp())));
	$evil->try($_) for q(SELECT public.hubex_create('tasks', '{"taskTypeID": 1, "requestMethodID": 4}')),
	  q(SELECT public.hubex_enqueue('POST', '/WORK/Tasks', '{"taskTypeID": 1}')),
	  q(SELECT public.hubex_enqueue('GET', '/WORK/Tasks', query => '{"a": [1, 2]}')),
	  "SELECT public.hubex_wait($id, '1 ms')", q(SELECT * FROM public.hubex_tasks()), q(SELECT * FROM public.hubex_tasks('{"erp_id": "m"}')),
	  q(SELECT * FROM public.hubex_check()), q(SELECT public.hubex_version()), q(SELECT hubex.only_server(NULL)), q(SELECT hubex.probe('fsm')),
	  q(SELECT * FROM hubex.worker_state()), q(SELECT * FROM public.hubex_request('GET', '/WORK/Tasks')), q(CALL public.hubex_deliver()),
	  q(SELECT * FROM public.hubex_connect('mine', url => 'http://127.0.0.1:1/fsm', credentials => '{"service_token": "x"}', schema => 'evil_far')),
	  q(INSERT INTO hubex.connector SELECT 'evil', jsonb_set(manifest, '{connector}', '"evil"') FROM hubex.connector WHERE name = 'hubex'),
	  q(SELECT * FROM hubex.outbox), q(INSERT INTO public.orders VALUES (666, 'x'));
	is($super->query(qq(SELECT string_agg(DISTINCT who || ' ' || what, ', ') FROM evil.log WHERE who <> '$role')), '',
		"nothing of $role\'s runs as somebody else");
}
is($super->query(q(SELECT count(*) FROM hubex.outbox WHERE state = 'waiting' AND owner = 'mallory' AND next_attempt_at < now())), 0,
	'... and all that was enqueued was delivered');

#
# Files
#
{
	my $file = PostgreSQL::Test::Utils::tempdir() . '/secret';
	append_to_file($file, "the secret of the server\n");
	my $url = $sandbox->url;
	my @sql = (
		'SET check_function_bodies = off',
		"CREATE SERVER thief FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'thief', url '$url', rate_limit 'none')",
		"CREATE USER MAPPING FOR chief SERVER thief OPTIONS (loot_file '$file')",
		q(INSERT INTO hubex.connector SELECT 'thief', (manifest - 'credentials' - 'sign_in') || '{"connector": "thief",
			"credentials": {"loot": {}}, "sign_in": {"mechanism": "header", "header": "X-Loot", "value": "{loot}"}}'
			FROM hubex.connector WHERE name = 'hubex'),
		q(SELECT * FROM hubex_request('GET', '/WORK/Tasks', server => 'thief')));
	$sandbox->clear_journal;
	note $client{chief}->try($_)->{error} // 'done' for @sql;
	is((grep { ($_->{headers}{'x-loot'} // '') =~ /secret/ } @{ $sandbox->journal }), 0, 'no option that is not known yet names a file');
	$client{chief}->query('RESET check_function_bodies');
}

#
# Text
#
my @nasty = (q('; DROP TABLE hubex.outbox; --), q("; DROP TABLE hubex.outbox; --), q(\\'; DROP TABLE hubex.outbox; --), q($$; DROP TABLE hubex.outbox; --),
	q($1), q(%s%n%d), q(%I), q(a"b'c\\d), q({"a": 1}), q({what}), "a\nb", "\x{442}\x{430}\x{431}", '', ' ', 'x' x 70, q(a.b), q(public), q(../..), q(a;b));
utf8::encode($_) for @nasty;
$super->query('SET hubex.default_server = fsm');
my $before = $super->query(state_of_all());
for my $nasty (@nasty)
{
	my $q = quoted($nasty);
	my $shown = $nasty =~ s/\n/\\n/r;
	for my $sql (
		"SELECT hubex_create($q, '{}')", "SELECT hubex_create('tasks', '{}', $q)", "SELECT hubex_enqueue($q, '/a')", "SELECT hubex_enqueue('GET', $q)",
		"SELECT hubex_enqueue('GET', '/a', server => $q)", "SELECT hubex_enqueue('POST', '/a', content => 'x', content_type => $q)",
		"SELECT hubex_enqueue('GET', '/a', headers => jsonb_build_object($q, 1))", "SELECT hubex_enqueue('GET', '/a', query => jsonb_build_object($q, $q))",
		"SELECT hubex_create('tasks', jsonb_build_object('taskTypeID', 1, $q, $q))", "SELECT hubex_tasks(jsonb_build_object($q, 1))",
		"SELECT hubex_tasks(jsonb_build_object('erp_id', $q))", "SELECT hubex_tasks(server => $q)", "SELECT hubex_request($q, '/a')", "SELECT hubex_request('GET', $q)",
		"SELECT hubex_check($q)", "SELECT hubex.only_server($q)", "SELECT hubex.probe($q)", "CALL hubex_deliver($q)", "SELECT hubex_grant($q, 'read')", "SELECT hubex_grant('reader', $q)",
		"SELECT hubex_connect($q)", "SELECT hubex_connect('n', $q, 'http://127.0.0.1:1')", "SELECT hubex_connect('n', url => $q)",
		"SELECT hubex_connect('n', url => 'http://127.0.0.1:1', credentials => jsonb_build_object($q, $q))",
		"SELECT hubex_connect('n', url => 'http://127.0.0.1:1', credentials => '{\"service_token\": \"x\"}', options => jsonb_build_object($q, $q))",
		"SET hubex.default_server = $q; SELECT hubex_tasks()", "SELECT hubex.check_manifest(jsonb_build_object('connector', $q))",
		"INSERT INTO hubex.connector VALUES ($q, '{}')")
	{
		# what a caller may do is done, and taken back
		my $answer = $super->try("BEGIN; SET LOCAL statement_timeout = '5s'; $sql; ROLLBACK");
		$super->try('ROLLBACK; SET hubex.default_server = fsm');
		fail("$sql: $answer->{error}") if ($answer->{sqlstate} // '') =~ /^(?:XX|42601|57|F0)/ || ($answer->{ended} // 0);
	}
	my $id = $super->query("SELECT hubex_create('tasks', jsonb_build_object('taskTypeID', 1, 'notes', ${q}::text), idempotency_key => $q || 'k', ordering_key => $q || 'o', deliver_after => 'infinity')");
	is($super->query("SELECT idempotency_key = $q || 'k' AND ordering_key = $q || 'o' AND body ->> 'notes' = $q FROM hubex.outbox WHERE id = $id"), 't',
		"text is kept as it is: $shown");
	$super->query("DELETE FROM hubex.outbox WHERE id = $id");
}
is($super->query(state_of_all()), $before, 'all that is as it was before');

# names that need quotes, through to the foreign tables
{
	my ($server, $schema, $role) = (q(a "server"; DROP'), q(a "schema"; DROP'), q(a "role"; DROP'));
	my ($qs, $qc, $qr) = map { quoted($_) } $server, $schema, $role;
	my ($is, $ic, $ir) = map { '"' . s/"/""/gr . '"' } $server, $schema, $role;
	$super->query("CREATE ROLE $ir; SELECT hubex_grant($qr, 'read'); SELECT hubex_grant($qr, 'enqueue'); SELECT hubex_grant($qr, 'admin')");
	like($super->query("SELECT ok FROM hubex_connect($qs, url => '" . $sandbox->url . "', credentials => '{\"service_token\": \"sandbox-service-token\"}', schema => $qc) WHERE subject = 'account'"),
		qr/^t$/, 'names that need quotes get them');
	is($super->query("SELECT count(*) > 0 FROM $ic.tasks"), 't', '... in foreign tables');
	my $id = $super->query("SELECT hubex_create_task(1, 'quoted', server => $qs)");
	$super->query("CALL hubex_deliver($qs)");
	is($super->query("SELECT hubex_wait($id)"), 'delivered', '... and in delivery');
	is($super->query("SELECT has_function_privilege($qr, 'hubex_deliver(name, interval)', 'EXECUTE')"), 't', '... and in rights');
}

# two administrators with long names that differ at the end only
{
	my @long = map { 'administrator_' . 'x' x 48 . $_ } 1, 2;
	$super->query("CREATE ROLE $_ LOGIN; SELECT hubex_grant('$_', 'admin')") for @long;
	is(Hubex::Client->new($node, user => $_)->query('SELECT count(DISTINCT owner) > 1 FROM hubex.outbox'), 't', 'an administrator of a long name sees all') for @long;
	$super->query("DROP OWNED BY $_; DROP ROLE $_") for @long;
	pass('and can be dropped');
}
$node->stop;

#
# With a worker: a role that may not drop the database cannot send it away
#
my $preloaded = Hubex::Node->new('preloaded');
$preloaded->safe_psql('postgres', 'CREATE DATABASE erp; CREATE ROLE fresh LOGIN; CREATE ROLE maker LOGIN CREATEDB');
$preloaded->safe_psql('erp', 'CREATE SCHEMA "odd name"; CREATE EXTENSION hubex SCHEMA "odd name"; CREATE ROLE reader; SELECT "odd name".hubex_grant(\'reader\', \'admin\')');
eventually { $preloaded->safe_psql('erp', 'SELECT state FROM hubex.worker_state()') eq 'running' } 'a worker, of an extension in a schema with a space', 10;
my $worker = $preloaded->safe_psql('erp', 'SELECT pid FROM hubex.worker_state()');
for my $role (qw(fresh maker))
{
	my $client = Hubex::Client->new($preloaded, user => $role);
	is($client->try($_)->{sqlstate}, '42501', "$role: $_ is denied")
	  for 'DROP DATABASE erp', 'DROP DATABASE erp WITH (FORCE)', 'ALTER DATABASE erp RENAME TO mine', 'CREATE DATABASE mine TEMPLATE erp',
	  'ALTER DATABASE erp SET TABLESPACE pg_default', "SELECT pg_terminate_backend($worker)", "SELECT pg_cancel_backend($worker)";
}
is($preloaded->safe_psql('erp', q(SELECT string_agg(state || ' ' || pid, ',') FROM hubex.worker_state())), "running $worker", 'the worker is still there');
done_testing;

sub denied
{
	my ($role, $sql) = @_;
	my $answer = $client{$role}->try($sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($answer->{sqlstate}, '42501', "$role: $sql is denied") or diag $answer->{error} // $answer->{rows};
}

sub made
{
	my ($pattern) = @_;
	return map { $_->{request}{notes} } grep { ($_->{request}{notes} // '') =~ $pattern } @{ $sandbox->tasks };
}

sub quoted { my ($text) = @_; return "'" . $text =~ s/'/''/gr . "'" }

sub state_of_all
{
	return q{SELECT (SELECT md5(string_agg(o::text, '' ORDER BY id)) FROM hubex.outbox o), (SELECT md5(string_agg(c::text, '' ORDER BY name)) FROM hubex.connector c),
		(SELECT md5(string_agg(s::text, '' ORDER BY oid)) FROM pg_foreign_server s), (SELECT count(*) FROM pg_class), (SELECT md5(string_agg(proacl::text, '' ORDER BY oid)) FROM pg_proc)};
}

# A schema full of what one could hope is called in place of PostgreSQL's own. Each notes who called it.
sub evil
{
	my $sql = 'CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.log (who text, what text); GRANT ALL ON evil.log TO PUBLIC;';
	my $add = sub {
		my ($name, $arguments, $result, $body) = @_;
		$sql .= "CREATE FUNCTION evil.$name($arguments) RETURNS $result LANGUAGE plpgsql AS \$f\$
			BEGIN INSERT INTO evil.log VALUES (current_user, '$name'); RETURN $body; END \$f\$;";
	};
	$add->('now', '', 'timestamptz', 'pg_catalog.now()');
	$add->('clock_timestamp', '', 'timestamptz', 'pg_catalog.clock_timestamp()');
	$add->('gen_random_uuid', '', 'uuid', 'pg_catalog.gen_random_uuid()');
	$add->('nextval', 'regclass', 'bigint', '1');
	$add->('nextval', 'text', 'bigint', '1');
	$add->('jsonb_strip_nulls', 'jsonb', 'jsonb', '$1');
	$add->('has_table_privilege', 'text, text', 'boolean', 'true');
	$add->('format', 'text, VARIADIC text[]', 'text', q('SELECT 1'));
	$add->('length', 'text', 'int', '1');
	$add->('octet_length', 'text', 'int', '1');
	$add->('octet_length', 'bytea', 'int', '1');
	$add->('pg_column_size', 'anyelement', 'int', '1');
	$add->('pg_options_to_table', 'text[]', 'record', 'NULL');
	my %operators = (
		name => [qw(= <> < >)], text => [qw(= <> < > || ~ ~~)], int8 => [qw(= <> < > <= >= + -)], int4 => [qw(= <> < > <= >= + -)], timestamptz => [qw(= < > <= >=)],
		bool => [qw(= <>)], uuid => [qw(=)], oid => [qw(=)]);
	my $n = 0;
	for my $type (sort keys %operators)
	{
		for my $operator (@{ $operators{$type} })
		{
			my $name = 'op' . ++$n;
			my $result = $operator eq '||' ? 'text' : $operator =~ /[-+]/ ? $type : 'bool';
			$add->($name, "$type, $type", $result, $operator eq '||' ? '$1' : $operator =~ /[-+]/ ? '$1' : 'true');
			$sql .= "CREATE OPERATOR evil.$operator (FUNCTION = evil.$name, LEFTARG = $type, RIGHTARG = $type);";
		}
	}
	for my $operator ('->', '->>', '#>', '#>>')
	{
		my $name = 'json' . ++$n;
		my $right = $operator =~ /#/ ? 'text[]' : 'text';
		my $result = $operator =~ />>/ ? 'text' : 'jsonb';
		$add->($name, "jsonb, $right", $result, $result eq 'text' ? q('evil') : q('{}'));
		$sql .= "CREATE OPERATOR evil.$operator (FUNCTION = evil.$name, LEFTARG = jsonb, RIGHTARG = $right);";
	}
	return $sql;
}
