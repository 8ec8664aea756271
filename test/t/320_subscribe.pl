# hubex_subscribe() makes a table with the columns, types and comments of the foreign table, or takes one that is there;
# whatever a run would later fail for is refused at once, with a SQLSTATE, what is wrong and what to do, and without a
# trace. hubex_unsubscribe() leaves the table. Rights are the caller's. No request is made.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', preload => 0, allows_streaming => 1);
$node->start_hubex($sandbox);
my $super = Hubex::Client->new($node);
$super->query(q{
	CREATE SCHEMA fsm; CREATE SCHEMA work;
	IMPORT FOREIGN SCHEMA "*" FROM SERVER fsm INTO fsm;
	CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
	CREATE FOREIGN TABLE other (id bigint) SERVER files OPTIONS (filename '/dev/null');
});
$super->query('SET search_path = work, public, fsm');

#
# A target that is made
#
is($super->try(q(SELECT hubex_subscribe('made', 'fsm.tasks', 'made')))->{error}, undef, 'a subscription is made');
is($super->query(q(SELECT target || ' ' || mode || ' ' || every || ' ' || full_every || ' ' || deletes || ' ' || on_drift || ' ' || "overlap" || ' ' || delete_limit || ' ' || owner FROM hubex.subscription)),
	'made both 00:01:00 1 day delete error 00:05:00 0.1 ' . $super->query('SELECT current_user'), '... with what is usual');
is($super->query(q(SELECT count(*) FROM hubex.subscription_state WHERE subscription = 'made' AND next_at <= now() AND next_full_at <= now())), 1, '... due at once');
is($super->query(q(SELECT 'work.made'::regclass)), 'made', '... in the first schema of search_path');
is($super->query(differing('fsm.tasks', 'work.made')), 'search_text - bigint, synced_at timestamp with time zone -' =~ s/ - bigint/ text -/r,
	'... its columns are those of the foreign table, but for what is only asked by, and synced_at');
is($super->query(q(SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'work.made'::regclass AND contype = 'p')), 'PRIMARY KEY (id)', '... a primary key');
is($super->query(q(SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = 'work.made'::regclass AND attnum > 0 AND attnotnull)), 'id', '... NOT NULL is the key alone');
is($super->query(q(SELECT count(*) FROM pg_attribute a JOIN pg_attribute f USING (attname) WHERE a.attrelid = 'work.made'::regclass AND f.attrelid = 'fsm.tasks'::regclass
	AND col_description(a.attrelid, a.attnum) IS DISTINCT FROM col_description(f.attrelid, f.attnum))), 0, '... the comments of its columns');
like($super->query(q(SELECT obj_description('work.made'::regclass))), qr/^Mirror of resource tasks of server fsm.* made /, '... and one of its own');
is($super->query(q(SELECT (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'work.made'::regclass) + (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND 'work.made'::regclass IN (conrelid, confrelid)))),
	0, '... no trigger, no foreign key');

$super->query(q(SELECT hubex_subscribe('few', 'fsm.tasks', 'public.few', deletes => 'mark', columns => '["notes", "company_id"]', filter => '{"taskTypeID": [1, 2]}',
	every => NULL, owners => '{"notes": "local", "company_id": "newest"}')));
is($super->query(columns('public.few')), 'id bigint, notes text, company_id bigint, synced_at timestamp with time zone, deleted timestamp with time zone',
	'columns by name: those, the key, and what is marked by');
is($super->query(q(SELECT columns || filter || owners || jsonb_build_object('every', every, 'full', full_every) FROM hubex.subscription WHERE name = 'few')),
	'{"id": "id", "full": null, "every": null, "notes": "local", "company_id": "newest", "taskTypeID": [1, 2]}', '... and all that was said');
$super->query(q(SELECT hubex_subscribe('renamed', 'fsm.tasks', '"Renamed ""table"""', mode => 'full', every => '1 hour', columns => '{"the key": "id", "text": "notes", "also": "notes", "gone": "deleted"}', deletes => 'mark')));
is($super->query(columns('work."Renamed ""table"""')), '"the key" bigint, also text, text text, gone timestamp with time zone, synced_at timestamp with time zone', 'columns by other names, in the order of the list')
  or diag $super->query(columns('work."Renamed ""table"""'));
is($super->query(q(SELECT mode || ' ' || every || ' ' || full_every FROM hubex.subscription WHERE name = 'renamed')), 'full 01:00:00 01:00:00', 'mode full: every is how often the list is read');
like($super->try(q(SELECT hubex_subscribe('stages', 'fsm.task_statuses', 'stages')))->{notices}, qr/cannot say what has changed: every 00:01:00 the whole list/, 'a list that cannot say what changed is read whole, which is said');
is($super->query(q(SELECT mode FROM hubex.subscription WHERE name = 'stages')), 'full', '... in mode full');

# types: domains, collations, lengths of the foreign table
$super->query(q{
	CREATE DOMAIN work.note AS text COLLATE "C" CHECK (value <> 'x');
	CREATE FOREIGN TABLE fsm.narrow (id int, notes work.note, number varchar(20) COLLATE "C", erp_id text COLLATE "POSIX", average_rating numeric(5, 2)) SERVER fsm OPTIONS (resource 'tasks');
	SELECT hubex_subscribe('narrow', 'fsm.narrow', 'work.narrow')});
is($super->query(differing('fsm.narrow', 'work.narrow')), 'synced_at timestamp with time zone -', 'types, lengths and collations are those of the foreign table');

#
# A target that is there
#
$super->query(q{
	CREATE TABLE existing (notes varchar(2000) DEFAULT 'none', mine int, id text, last_modified timestamp, synced_at timestamptz NOT NULL, twice text GENERATED ALWAYS AS (notes || notes) STORED);
	CREATE UNIQUE INDEX existing_id ON existing (id);
	CREATE TABLE by_tenant (tenant int, id bigint, notes text, created timestamptz, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
	CREATE TABLE by_tenant_1 PARTITION OF by_tenant FOR VALUES IN (1);
	CREATE TABLE by_tenant_2 PARTITION OF by_tenant FOR VALUES IN (2);
	CREATE TABLE by_time (id bigint, notes text, created timestamptz, PRIMARY KEY (created, id)) PARTITION BY RANGE (created);
	CREATE FOREIGN TABLE fsm.tasks_1 (tenant int OPTIONS (constant '1'), id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.tasks_2 (tenant int OPTIONS (constant '2'), id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.tasks_01 (tenant int OPTIONS (constant '01'), id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.tags_of_1001 (task_id bigint OPTIONS (constant '1001'), value text) SERVER fsm OPTIONS (resource 'tasks_tags');
	CREATE FOREIGN TABLE fsm.no_key (notes text, last_modified timestamptz) SERVER fsm OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.filtered (id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks', filter '{"taskTypeID": 1}')});
is($super->try($_)->{error}, undef, $_)
  for q(SELECT hubex_subscribe('existing', 'fsm.tasks', 'existing')), q(SELECT hubex_subscribe('t1', 'fsm.tasks_1', 'by_tenant')), q(SELECT hubex_subscribe('t2', 'fsm.tasks_2', 'by_tenant')),
  q(SELECT hubex_subscribe('time', 'fsm.tasks', 'by_time'));

#
# Refusals
#
$super->query(q{
	CREATE TABLE free (id bigint PRIMARY KEY, notes text);
	CREATE TABLE no_index (id bigint, notes text); CREATE INDEX ON no_index (id); CREATE UNIQUE INDEX ON no_index (id, notes); CREATE UNIQUE INDEX ON no_index (id) WHERE id > 5;
	CREATE UNIQUE INDEX ON no_index ((id + 1)); ALTER TABLE no_index ADD UNIQUE (id) DEFERRABLE;
	CREATE TABLE by_end (id bigint, closed timestamptz, PRIMARY KEY (id, closed)) PARTITION BY RANGE (closed);
	CREATE TABLE demanding (id bigint PRIMARY KEY, mine int NOT NULL);
	CREATE TABLE odd_types (id bigint PRIMARY KEY, notes int);
	CREATE TABLE ruled (id bigint PRIMARY KEY); CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
	CREATE TABLE secured (id bigint PRIMARY KEY);
	CREATE UNLOGGED TABLE unlogged (id bigint PRIMARY KEY); CREATE TEMP TABLE temporary (id bigint PRIMARY KEY);
	CREATE VIEW a_view AS SELECT 1 AS id; CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id; CREATE SEQUENCE a_sequence;
	CREATE TABLE deleted_otherwise (id bigint PRIMARY KEY, deleted boolean);
	CREATE TABLE generated (id bigint PRIMARY KEY, a text GENERATED ALWAYS AS ('a') STORED)});
my $state = q(SELECT (SELECT count(*) FROM hubex.subscription) || ' ' || (SELECT count(*) FROM hubex.subscription_state) || ' ' || (SELECT count(*) FROM pg_class));
my $before = $super->query($state);
my @refused = (
	# arguments
	[ "NULL, 'fsm.tasks', 'new'", '22004' ], [ "'x', NULL, 'new'", '22004' ], [ "'x', 'fsm.tasks', NULL", '22004' ],
	[ "'', 'fsm.tasks', 'new'", '42602' ], [ "repeat('x', 64), 'fsm.tasks', 'new'", '42622', qr/63/ ],
	[ "'x', 'fsm.tasks', 'new', deletes => 'remove'", '22023', qr/delete, mark and ignore/ ], [ "'x', 'fsm.tasks', 'new', deletes => NULL", '22004' ],
	[ "'x', 'fsm.tasks', 'new', mode => 'all'", '22023', qr/incremental, full and both/ ],
	[ "'x', 'fsm.tasks', 'new', on_drift => 'stop'", '22023', qr/error, null and ignore/ ], [ "'x', 'fsm.tasks', 'new', on_drift => NULL", '22004' ],
	[ "'x', 'fsm.tasks', 'new', every => '0'", '22023', qr/one second/ ], [ "'x', 'fsm.tasks', 'new', every => '-1 day'", '22023' ],
	[ "'x', 'fsm.tasks', 'new', full_every => '999 ms'", '22023' ], [ "'x', 'fsm.tasks', 'new', every => '100000 years'", '22023' ],
	[ "'x', 'fsm.tasks', 'new', \"overlap\" => '-1 s'", '22023', qr/not negative/ ], [ "'x', 'fsm.tasks', 'new', \"overlap\" => NULL", '22004' ],
	[ "'x', 'fsm.tasks', 'new', delete_limit => 1.1", '22023', qr/from 0 to 1/ ], [ "'x', 'fsm.tasks', 'new', delete_limit => 'NaN'", '22023' ], [ "'x', 'fsm.tasks', 'new', delete_limit => NULL", '22004' ],
	[ "'x', 'fsm.tasks', 'new', mode => 'incremental', full_every => '1 day'", '22023', qr/both/ ], [ "'x', 'fsm.tasks', 'new', mode => 'incremental', full_at => '3:00'", '22023', qr/both/ ],
	[ "'made', 'fsm.tasks', 'new'", '42710', qr/hubex_unsubscribe/ ],
	# the list
	[ "'x', 'made', 'new'", '42809', qr/IMPORT/ ], [ "'x', 'public.other', 'new'", '42809', qr/file_fdw/ ], [ "'x', 999999, 'new'", '42P01', qr/IMPORT/ ],
	[ "'x', 'fsm.tasks_tags', 'new'", '0A000', qr/join .*tasks_tags to that by column task_id/ ], [ "'x', 'fsm.tags_of_1001', 'new'", 'HV00R' ], [ "'x', 'fsm.no_key', 'new'", 'HV00R', qr/ADD COLUMN id bigint/ ],
	[ "'x', 'fsm.districts', 'new'", 'HV00R', qr/ADD COLUMN key text OPTIONS \(path '\@key'\)/ ],
	[ "'x', 'fsm.task_statuses', 'new', mode => 'incremental'", '0A000', qr/'full'/ ], [ "'x', 'fsm.task_statuses', 'new', mode => 'both'", '0A000', qr/'full'/ ],
	[ "'x', 'fsm.tasks', 'new', filter => '{\"no\": 1}'", 'HV007', qr/taskTypeID/ ], [ "'x', 'fsm.tasks', 'new', filter => '{\"taskTypeID\": \"a\"}'", '22023', qr/number/ ], [ "'x', 'fsm.tasks', 'new', filter => '[1]'", '22023', qr/taskTypeID/ ],
	[ "'x', 'fsm.filtered', 'new', filter => '{\"taskTypeID\": 2}'", '22023' ], [ "'x', 'fsm.tasks', 'new', filter => '{\"isDeleted\": true}'", '22023', qr/deletes/ ],
	[ "'x', 'fsm.tasks', 'new', filter => '{\"lastModifiedFrom\": \"2026-01-01\"}'", '22023', qr/what has changed/ ], [ "'x', 'fsm.tasks', 'new', filter => '{\"id\": 1}'", '22023', qr/still there/ ],
	# columns
	[ "'x', 'fsm.tasks', 'new', columns => '{\"id\": \"no\"}'", '42703', qr/"id"/ ], [ "'x', 'fsm.tasks', 'new', columns => '[\"no\"]'", '42703' ], [ "'x', 'fsm.tasks', 'new', columns => '[1]'", '22023', qr/notes/ ],
	[ "'x', 'fsm.tasks', 'new', columns => '5'", '22023', qr/array/ ], [ "'x', 'fsm.tasks', 'new', columns => '{\"a\": 1}'", '22023', qr/column of the target/ ], [ "'x', 'fsm.tasks', 'new', columns => '[\"search_text\"]'", '0A000', qr/filter by it/ ],
	[ "'x', 'fsm.tasks', 'new', columns => '{\"a\": \"id\", \"b\": \"id\"}'", '42611', qr/"id"/ ], [ "'x', 'fsm.tasks', 'new', columns => jsonb_build_object(repeat('x', 64), 'notes')", '42602' ], [ "'x', 'fsm.tasks', 'new', columns => '{\"\": \"notes\"}'", '42602' ],
	[ "'x', 'fsm.tasks', 'free', columns => '{\"no\": \"notes\"}'", '42703', qr/"notes"/ ], [ "'x', 'fsm.tasks', 'generated', columns => '{\"a\": \"notes\"}'", '428C9', qr/GENERATED/ ],
	[ "'x', 'fsm.tasks', 'odd_types'", '42804', qr/column/ ], [ "'x', 'fsm.tasks', 'demanding'", '23502', qr/DROP NOT NULL/ ],
	# owners
	[ "'x', 'fsm.tasks', 'new', owners => '{\"notes\": \"me\"}'", '22023', qr/remote, local or newest/ ], [ "'x', 'fsm.tasks', 'new', owners => '{\"notes\": 1}'", '22023' ], [ "'x', 'fsm.tasks', 'new', owners => '[\"notes\"]'", '22023', qr/newest/ ],
	[ "'x', 'fsm.tasks', 'new', owners => '{\"no\": \"local\"}'", '42703', qr/"tasks"/ ], [ "'x', 'fsm.tasks', 'new', owners => '{\"id\": \"local\"}'", '22023', qr/which record/ ],
	[ "'x', 'fsm.tasks', 'new', owners => '{\"task_type_name\": \"local\"}'", '0A000', qr/takes no value/ ], [ "'x', 'fsm.task_statuses', 'new', owners => '{\"name\": \"local\"}'", '0A000', qr/no operation update/ ],
	[ "'x', 'fsm.tasks', 'by_time', owners => '{\"created\": \"local\"}'", '0A000', qr/partitioned by it/ ],
	# the target
	[ "'x', 'fsm.tasks', 'a_view'", '42809' ], [ "'x', 'fsm.tasks', 'a_matview'", '42809' ], [ "'x', 'fsm.tasks', 'a_sequence'", '42809' ], [ "'x', 'fsm.tasks', 'fsm.tasks'", '42809', qr/schema/ ], [ "'x', 'fsm.tasks', 'tasks'", '42809', qr/schema/ ],
	[ "'x', 'fsm.tasks', 'temporary'", '42809', qr/temporary/ ], [ "'x', 'fsm.tasks', 'unlogged'", '42809', qr/crash/ ], [ "'x', 'fsm.tasks', 'ruled'", '42809', qr/rules/ ],
	[ "'x', 'fsm.tasks', 'pg_class'", '42809', qr/system/ ], [ "'x', 'fsm.tasks', 'hubex.outbox'", '42809', qr/system/ ], [ "'x', 'fsm.tasks', 'hubex.new'", '42809', qr/system/ ],
	[ "'x', 'fsm.tasks', 'nowhere.new'", '3F000' ], [ "'x', 'fsm.tasks', 'a.b.c.d'", '42601' ], [ "'x', 'fsm.tasks', ''", '42602' ],
	[ "'x', 'fsm.tasks', 'no_index'", '42P10', qr/CREATE UNIQUE INDEX ON work.no_index \(id\)/ ], [ "'x', 'fsm.tasks', 'by_end'", '42P10', qr/never change/ ],
	[ "'x', 'fsm.tasks', 'deleted_otherwise', deletes => 'mark', columns => '[\"id\"]'", '42703', qr/ADD COLUMN deleted/ ],
	# what others mirror
	[ "'x', 'fsm.tasks', 'made'", '55006', qr/constant/ ], [ "'x', 'fsm.tasks_1', 'by_tenant'", '55006' ], [ "'x', 'fsm.tasks_01', 'by_tenant'", '55006' ], [ "'x', 'fsm.tasks_1', 'by_tenant_1'", '55006' ],
	[ "'x', 'fsm.filtered', 'by_tenant'", '42P10' ]);
for (@refused)
{
	my ($arguments, $state_of, $like) = @$_;
	my $answer = $super->try("SELECT hubex_subscribe($arguments)");
	is($answer->{sqlstate}, $state_of, "hubex_subscribe($arguments): " . ($answer->{error} // 'no error'));
	my $more = join ' ', grep { defined } @$answer{qw(detail hint)};
	like($more, $like, '... ' . $more) if defined $like;
	is($super->query($state), $before, '... without a trace') if $super->query($state) ne $before;
}
is($super->query($state), $before, 'no refusal has left a trace');
is($super->try(q(BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT hubex_subscribe('x', 'fsm.tasks', 'free'); ROLLBACK))->{error}, undef, 'any isolation level will do');
is($super->try(q(BEGIN READ ONLY; SELECT hubex_subscribe('x', 'fsm.tasks', 'free')))->{sqlstate}, '25006', 'a transaction that only reads will not');
$super->query('ROLLBACK');
is($super->query($state), $before, '... and ROLLBACK takes it back');

# two at once: the second waits for the first, and sees what it did
{
	my @client = map { Hubex::Client->new($node) } 1 .. 2;
	$client[0]->query(q(BEGIN; SELECT hubex_subscribe('both', 'fsm.tasks', 'work.free')));
	$client[1]->send(q(SELECT hubex_subscribe('both as well', 'fsm.tasks', 'work.free')));
	eventually { $super->query(q(SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = ) . $client[1]->pid) == 1 } 'who subscribes waits for another who does', 10;
	$client[0]->query('COMMIT');
	is($client[1]->answer->{sqlstate}, '55006', '... and then sees what it mirrors');
	$super->query(q(SELECT hubex_unsubscribe('both')));
}

#
# Ending
#
$super->query(q(INSERT INTO made (id) VALUES (1)));
$super->query(q(INSERT INTO hubex.sweep_page VALUES ('made', 1, '{1}'); INSERT INTO hubex.tombstone VALUES ('made', '2', now())));
is($super->try(q(SELECT hubex_unsubscribe('made')))->{error}, undef, 'a subscription is ended');
is($super->query(q(SELECT (SELECT count(*) FROM hubex.subscription WHERE name = 'made') + (SELECT count(*) FROM hubex.subscription_state WHERE subscription = 'made')
	+ (SELECT count(*) FROM hubex.sweep_page) + (SELECT count(*) FROM hubex.tombstone))), 0, '... nothing of it is left');
is($super->query('SELECT count(*) FROM made'), 1, '... but its table');
is($super->try(q(SELECT hubex_unsubscribe('made')))->{sqlstate}, '42704', '... and that it is not there is said');
is($super->try(q(SELECT hubex_unsubscribe(NULL)))->{sqlstate}, '22004', '... as for null');
is($super->try(q(SELECT hubex_subscribe('again', 'fsm.tasks', 'made')))->{error}, undef, '... its table can be the next one\'s');

# a run that applies something locks the state, then the subscription by a foreign key
{
	my $ender = Hubex::Client->new($node);
	$super->query(q(BEGIN; UPDATE hubex.subscription_state SET requests = requests + 1 WHERE subscription = 'few'));
	$ender->send(q(SELECT hubex_unsubscribe('few')));
	eventually { $super->query(q(SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = ) . $ender->pid) == 1 } 'who ends a subscription waits for what a run is applying', 10;
	is($super->try(q(INSERT INTO hubex.sweep_page VALUES ('few', 1, '{1}')))->{error}, undef, '... which can be done');
	$super->query('COMMIT');
	is($ender->answer->{error}, undef, '... then it ends');
	is($super->query(q(SELECT count(*) FROM hubex.sweep_page)), 0, '... with all it had');
}

#
# Rights
#
$super->query(q{
	CREATE ROLE nobody LOGIN; CREATE ROLE subscriber LOGIN; CREATE ROLE second LOGIN; CREATE ROLE chief LOGIN; CREATE ROLE reader LOGIN;
	SELECT hubex_grant('chief', 'admin'); SELECT hubex_grant('reader', 'read');
	GRANT EXECUTE ON FUNCTION hubex_subscribe, hubex_unsubscribe TO subscriber, second;
	GRANT USAGE ON SCHEMA fsm, work TO subscriber, second;
	CREATE SCHEMA AUTHORIZATION subscriber;
	CREATE TABLE work.not_mine (id bigint PRIMARY KEY);
	REVOKE CREATE ON SCHEMA public FROM PUBLIC;
	CREATE TABLE work.guarded (id bigint PRIMARY KEY); ALTER TABLE work.guarded ENABLE ROW LEVEL SECURITY; GRANT ALL ON work.guarded TO subscriber});
my %client = map { $_ => Hubex::Client->new($node, user => $_) } qw(nobody subscriber second chief reader);
my $subscribe = sub { my ($target) = @_; return "SELECT public.hubex_subscribe('mine', 'fsm.tasks', '$target')" };
denied('nobody', $_) for $subscribe->('x'), q(SELECT hubex_unsubscribe('again')), 'SELECT * FROM hubex.subscription', 'SELECT * FROM hubex.mirror';
denied('reader', $_) for $subscribe->('x'), q(SELECT hubex_unsubscribe('again')), 'SELECT * FROM hubex.subscription', 'SELECT * FROM hubex.subscription_state';
denied('subscriber', $subscribe->('mine'), qr/GRANT SELECT ON fsm.tasks TO subscriber/);
$super->query('GRANT SELECT ON fsm.tasks TO subscriber, second');
denied('subscriber', $subscribe->('mine'), qr/GRANT USAGE ON FOREIGN SERVER fsm TO subscriber/);
$super->query('GRANT USAGE ON FOREIGN SERVER fsm TO subscriber, second; DROP USER MAPPING FOR PUBLIC SERVER fsm');
like($client{subscriber}->try($subscribe->('mine'))->{detail} // '', qr/no user mapping/, 'credentials have to be there');
$super->query(q(CREATE USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (service_token 'x')));
denied('subscriber', $subscribe->('work.mine'));
denied('subscriber', $subscribe->('work.not_mine'), qr/GRANT SELECT, INSERT, UPDATE, DELETE ON work.not_mine TO subscriber/);
$super->query('GRANT SELECT, INSERT, UPDATE ON work.not_mine TO subscriber');
denied('subscriber', $subscribe->('work.not_mine'));
like($client{subscriber}->try($subscribe->('work.guarded'))->{detail} // '', qr/row security applies to role "subscriber"/i, 'a table of which it sees a part only is none');
is($client{second}->try($subscribe->('mine'))->{sqlstate}, '3F000', 'where no schema takes a table that is said');
denied('subscriber', $subscribe->('mine') =~ s/\)$/, owners => '{"notes": "local"}')/r);
is($client{subscriber}->try($subscribe->('mine'))->{error}, undef, 'a role that may all that subscribes');
is($super->query(q(SELECT owner || ' ' || target FROM hubex.subscription WHERE name = 'mine')), 'subscriber subscriber.mine', '... in its own schema, as itself');
is($super->query(q(SELECT relowner::regrole FROM pg_class WHERE oid = 'subscriber.mine'::regclass)), 'subscriber', '... the table is its own');
denied('second', q(SELECT hubex_unsubscribe('mine')), qr/belongs to role "subscriber"/);
is($client{chief}->try(q(SELECT hubex_unsubscribe('mine')))->{error}, undef, 'an administrator can end it');
$super->query('GRANT ALL ON work.not_mine TO subscriber');
is($client{subscriber}->try($subscribe->('work.not_mine'))->{error}, undef, 'a table that it may write will do');
is($client{subscriber}->try(q(SELECT public.hubex_unsubscribe('mine')))->{error}, undef, '... and its owner can end it');
is($client{chief}->query('SELECT count(*) > 0 FROM hubex.subscription'), 't', 'an administrator sees subscriptions');
is($client{reader}->query('SELECT count(*) FROM hubex.mirror'), 0, 'who may not use a server sees none of it');
$super->query('GRANT USAGE ON FOREIGN SERVER fsm TO reader');
is($client{reader}->query('SELECT count(*) > 0 FROM hubex.mirror'), 't', '... who may does');

# names that need quotes, and what is no name
for my $nasty (q(a'b), q(a"b), q($$; DROP TABLE hubex.subscription; --), q({x}), "a\nb", q(\\), q(%s%I))
{
	my $quoted = "'" . $nasty =~ s/'/''/gr . "'";
	is($super->try("SELECT hubex_subscribe($quoted, 'fsm.tasks', quote_ident($quoted || 't'), columns => jsonb_build_object($quoted, 'notes'))")->{error}, undef, "a name as any other: $nasty");
	is($super->query("SELECT count(*) FROM hubex.check_mirrors('fsm') WHERE ok AND message LIKE '%' || replace($quoted, '\\', '\\\\') || '%'"), 1, '... hubex_check has nothing against it');
	is($super->try("SELECT hubex_unsubscribe($quoted)")->{error}, undef, '... and it ends');
}

#
# A standby
#
$node->backup('base');
my $standby = Hubex::Node->new('standby', init => 0);
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
my $there = Hubex::Client->new($standby);
is($there->try($_)->{sqlstate}, '25006', "on a standby: $_") for q(SELECT hubex_subscribe('x', 'fsm.tasks', 'x')), q(SELECT hubex_unsubscribe('again'));
is($there->query(q(SELECT count(*) FILTER (WHERE NOT ok) || ' ' || count(*) FROM hubex.check_mirrors('fsm'))), '0 ' . $super->query('SELECT count(*) FROM hubex.subscription'),
	'... hubex_check has nothing against its mirrors');
is(scalar @{ $sandbox->journal }, 0, 'no request was made');
done_testing;

sub columns { return qq(SELECT string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$_[0]'::regclass AND attnum > 0 AND NOT attisdropped) }

# The columns that only one of two tables has, or that differ.
sub differing
{
	my ($foreign, $target) = @_;
	return qq(SELECT string_agg(concat_ws(' ', COALESCE(f.attname, t.attname), COALESCE(format_type(f.atttypid, f.atttypmod), format_type(t.atttypid, t.atttypmod)), '-'), ', ' ORDER BY COALESCE(f.attnum, t.attnum))
		FROM (SELECT * FROM pg_attribute WHERE attrelid = '$foreign'::regclass AND attnum > 0) f FULL JOIN (SELECT * FROM pg_attribute WHERE attrelid = '$target'::regclass AND attnum > 0) t USING (attname, atttypid, atttypmod, attcollation)
		WHERE f.attnum IS NULL OR t.attnum IS NULL);
}

sub denied
{
	my ($role, $sql, $hint) = @_;
	my $answer = $client{$role}->try($sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($answer->{sqlstate}, '42501', "$role: $sql is denied") or diag $answer->{error} // $answer->{rows};
	like(join(' ', grep { defined } @$answer{qw(detail hint)}), $hint, '... with what to do') if defined $hint;
}
