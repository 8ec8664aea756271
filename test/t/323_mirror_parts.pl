# Mirrors that are more than a table: partitioned by list, where each of two tenants has its partition, and by range of a
# time that never changes; a partition that is a mirror itself; attached and detached while it is kept in step; and as the
# source and the subscriber of logical replication: what hubex changes in a mirror comes to a copy of it elsewhere, and
# what logical replication brings is no obstacle.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my @sandbox = map { Hubex::Sandbox->new(seed => $_) } 1, 2;
my $node = Hubex::Node->new('main', preload => 0, allows_streaming => 'logical', max_worker_processes => 16);
$node->start_hubex($sandbox[$_], server => 'fsm' . ($_ + 1)) for 0, 1;
my $client = Hubex::Client->new($node);
$client->query(q{
	CREATE SCHEMA fsm;
	CREATE FOREIGN TABLE fsm.tasks_1 (tenant int OPTIONS (constant '1'), id bigint, notes text, company_id bigint, created timestamptz, last_modified timestamptz, raw jsonb) SERVER fsm1 OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.tasks_2 (tenant int OPTIONS (constant '2'), id bigint, notes text, company_id bigint, created timestamptz, last_modified timestamptz, raw jsonb) SERVER fsm2 OPTIONS (resource 'tasks')});
my @columns = qw(tenant id notes company_id created last_modified raw);

#
# Two tenants in one table
#
$client->query(q{
	CREATE TABLE tasks (tenant int, id bigint, notes text, company_id bigint, created timestamptz, last_modified timestamptz, raw jsonb, synced_at timestamptz, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
	CREATE TABLE tasks_1 PARTITION OF tasks FOR VALUES IN (1);
	CREATE TABLE tasks_2 (dropped int, raw jsonb, synced_at timestamptz, last_modified timestamptz, created timestamptz, company_id bigint, notes text, id bigint, tenant int, PRIMARY KEY (tenant, id));
	ALTER TABLE tasks_2 DROP COLUMN dropped; ALTER TABLE tasks ATTACH PARTITION tasks_2 FOR VALUES IN (2);
	SELECT hubex_subscribe('one', 'fsm.tasks_1', 'tasks'); SELECT hubex_subscribe('two', 'fsm.tasks_2', 'tasks')});
sync(qw(one two));
same('fsm.tasks_1', 'tasks WHERE tenant = 1', @columns);
same('fsm.tasks_2', 'tasks WHERE tenant = 2', @columns);
cmp_ok($client->query('SELECT count(*) FROM tasks a JOIN tasks b USING (id) WHERE a.tenant = 1 AND b.tenant = 2'), '>', 100, '... ids of both are the same');
$client->query(q(CREATE TABLE fired (op text, tenant int, id bigint); CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.fired VALUES (TG_OP, COALESCE(new.tenant, old.tenant), COALESCE(new.id, old.id)); RETURN NULL; END $$;
	CREATE TRIGGER fire AFTER INSERT OR UPDATE OR DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION fire()));
my @ids = split /,/, $client->query(q(SELECT string_agg(id::text, ',' ORDER BY id) FROM (SELECT id FROM tasks WHERE tenant = 1 INTERSECT SELECT id FROM tasks WHERE tenant = 2 ORDER BY id LIMIT 6) s));
change(0, { kind => 'change', id => $ids[0], fields => { notes => 'of the first' } }, { kind => 'delete', id => $ids[1] }, { kind => 'erase', id => $ids[2] });
change(1, { kind => 'change', id => $ids[3], fields => { notes => 'of the second' } });
sync(qw(one two));
is($client->query(q(SELECT string_agg(op || ' ' || tenant || ' ' || id, ', ' ORDER BY op, tenant, id) FROM fired)), "DELETE 1 $ids[1], UPDATE 1 $ids[0], UPDATE 2 $ids[3]", 'changes touch the rows of their tenant, and triggers fire for these');
full('one');
is($client->query(q(SELECT string_agg(op || ' ' || tenant || ' ' || id, ', ' ORDER BY op, tenant, id) FROM fired)), "DELETE 1 $ids[1], DELETE 1 $ids[2], UPDATE 1 $ids[0], UPDATE 2 $ids[3]", '... and what a sweep misses goes in its tenant alone');
same('fsm.tasks_1', 'tasks WHERE tenant = 1', @columns);
same('fsm.tasks_2', 'tasks WHERE tenant = 2', @columns);
# one tenant goes: none of the other's rows is missed
$client->query(q(SELECT hubex_unsubscribe('two'); ALTER TABLE tasks DETACH PARTITION tasks_2));
is($client->try(q(SELECT hubex_subscribe('two', 'fsm.tasks_2', 'tasks_2')))->{error}, undef, 'a table that was a partition becomes a mirror of its own');
change(1, { kind => 'change', id => $ids[4], fields => { notes => 'alone' } });
sync(qw(one two));
same('fsm.tasks_2', 'tasks_2', @columns);
full('one');
$client->query('ALTER TABLE tasks ATTACH PARTITION tasks_2 FOR VALUES IN (2)');
change(1, { kind => 'change', id => $ids[4], fields => { notes => 'attached again' } });
sync(qw(one two));
same('fsm.tasks_2', 'tasks WHERE tenant = 2', @columns);
is($client->query(q(SELECT count(*) FROM hubex_check('fsm2') WHERE subject = 'mirror' AND NOT ok)), 0, 'a partition is a mirror of its own, too') or diag $client->query(q(SELECT * FROM hubex_check('fsm2')));
is($client->try(q(CREATE TABLE tasks_x PARTITION OF tasks FOR VALUES IN (9); SELECT hubex_subscribe('x', 'fsm.tasks_1', 'tasks_x')))->{sqlstate}, '55006', 'a partition of a mirror is not that of the same tenant once more');
$client->query('DROP TABLE IF EXISTS tasks_x');
# no partition takes a row
$client->query('ALTER TABLE tasks DETACH PARTITION tasks_1');
change(0, { kind => 'change', id => $ids[5], fields => { notes => 'nowhere to go' } });
is($client->try(q(CALL hubex_sync('one')))->{sqlstate}, '23514', 'where no partition takes a row, that is an error');
sync('two');
$client->query('ALTER TABLE tasks ATTACH PARTITION tasks_1 FOR VALUES IN (1)');
sync('one');
same('fsm.tasks_1', 'tasks WHERE tenant = 1', @columns);

#
# By range of a time that never changes
#
my @few = qw(id notes created company_id);
$client->query(q{
	CREATE TABLE by_time (created timestamptz, notes text, company_id bigint, id bigint, synced_at timestamptz, PRIMARY KEY (id, created)) PARTITION BY RANGE (created);
	CREATE TABLE by_time_1 PARTITION OF by_time FOR VALUES FROM (MINVALUE) TO ('2025-04-01'); CREATE TABLE by_time_2 PARTITION OF by_time FOR VALUES FROM ('2025-04-01') TO (MAXVALUE);
	SELECT hubex_subscribe('time', 'fsm.tasks_2', 'by_time')});
sync('time');
same('fsm.tasks_2', 'by_time', @few);
is($client->query('SELECT (SELECT count(*) > 0 FROM by_time_1) AND (SELECT count(*) > 0 FROM by_time_2)'), 't', '... in both partitions');
my @old = split /,/, $client->query(q(SELECT string_agg(id::text, ',') FROM (SELECT id FROM by_time_1 ORDER BY id LIMIT 4) s));
change(1, { kind => 'change', id => $old[0], fields => { notes => 'changed' } }, { kind => 'delete', id => $old[1] }, { kind => 'erase', id => $old[2] }, { kind => 'create', fields => { notes => 'new', taskTypeID => 1, requestMethodID => 4 } });
sync('time');
is($client->query(qq(SELECT count(*) FILTER (WHERE id = $old[0] AND notes = 'changed') || ' ' || count(*) FILTER (WHERE id = $old[1]) || ' ' || count(*) FILTER (WHERE notes = 'new') FROM by_time)), '1 0 1', 'changes, deletes and new ones come to it');
full('time');
same('fsm.tasks_2', 'by_time', @few);
is($client->query('SELECT count(*) - count(DISTINCT id) FROM by_time'), 0, '... a record is one row');

#
# Logical replication from a mirror
#
my $far = Hubex::Node->new('far', preload => 0, allows_streaming => 'logical');
my $there = Hubex::Client->new($far);
my $schema = q{
	CREATE TABLE published (tenant int, id bigint, notes text, company_id bigint, created timestamptz, last_modified timestamptz, raw jsonb, deleted timestamptz, synced_at timestamptz, PRIMARY KEY (tenant, id))};
$there->query("$schema; CREATE TABLE by_time (created timestamptz, notes text, company_id bigint, id bigint, synced_at timestamptz, PRIMARY KEY (id, created))");
$client->query("$schema; CREATE PUBLICATION mirrors FOR TABLE published, by_time WITH (publish_via_partition_root = true)");
$there->query("CREATE SUBSCRIPTION mirrors CONNECTION '" . $node->connstr('postgres') =~ s/'/''/gr . "' PUBLICATION mirrors");
$client->query(q(SELECT hubex_subscribe('published', 'fsm.tasks_1', 'published', deletes => 'mark')));
sync('published');
follows('published', 'a mirror that is filled');
follows('by_time', '... and one that is partitioned');
@ids = split /,/, $client->query(q(SELECT string_agg(id::text, ',' ORDER BY id) FROM (SELECT id FROM published ORDER BY id LIMIT 8) s));
change(0, { kind => 'change', id => $ids[0], fields => { notes => 'to be followed' } }, { kind => 'delete', id => $ids[1] }, { kind => 'erase', id => $ids[2] });
change(1, { kind => 'delete', id => $old[3] });
sync(qw(published time));
full('published');
follows('published', 'changes, and rows that are marked');
is($there->query(qq(SELECT string_agg(id::text, ',' ORDER BY id) FROM published WHERE deleted IS NOT NULL AND id IN ($ids[1], $ids[2]))), "$ids[1],$ids[2]", '... there they are');
follows('by_time', 'a row that was deleted');
is($there->query("SELECT count(*) FROM by_time WHERE id = $old[3]"), 0, '... is not there any more');
$client->query(q(ALTER TABLE published REPLICA IDENTITY FULL));
change(0, { kind => 'change', id => $ids[3], fields => { notes => 'full identity' } });
sync('published');
follows('published', 'with another replica identity');
is($there->query(q(SELECT count(*) FROM published WHERE notes = 'full identity')), 1, '... as well');

#
# Logical replication to a mirror: a column of its own is fed from elsewhere
#
$there->query(q(CREATE TABLE fed (id bigint PRIMARY KEY, price numeric); INSERT INTO fed SELECT id, id * 1.5 FROM by_time ORDER BY id LIMIT 5; CREATE PUBLICATION prices FOR TABLE fed));
$client->query(q{
	CREATE TABLE fed (id bigint PRIMARY KEY, notes text, price numeric, synced_at timestamptz);
	CREATE SUBSCRIPTION prices CONNECTION '} . $far->connstr('postgres') =~ s/'/''/gr . q{' PUBLICATION prices;
	SELECT hubex_subscribe('fed', 'fsm.tasks_2', 'fed')});
eventually { $client->query('SELECT count(*) FROM fed WHERE price IS NOT NULL') == 5 } 'rows come by logical replication';
sync('fed');
same('fsm.tasks_2', 'fed', qw(id notes));
is($client->query('SELECT count(*) || \' \' || sum(price - id * 1.5) FROM fed WHERE price IS NOT NULL'), '5 0.0', '... what hubex does not fill stays');
$there->query('UPDATE fed SET price = 7');
change(1, map { { kind => 'change', id => $_, fields => { notes => 'both at once' } } } split /,/, $there->query(q(SELECT string_agg(id::text, ',') FROM fed)));
sync('fed');
eventually { $client->query(q(SELECT count(*) FROM fed WHERE price = 7 AND notes = 'both at once')) == 5 } 'both sides write the same rows';
$client->query('ALTER SUBSCRIPTION prices DISABLE; ALTER SUBSCRIPTION prices SET (slot_name = NONE); DROP SUBSCRIPTION prices');
$there->query('ALTER SUBSCRIPTION mirrors DISABLE; ALTER SUBSCRIPTION mirrors SET (slot_name = NONE); DROP SUBSCRIPTION mirrors');
done_testing;

sub change { my ($n, @orders) = @_; return $sandbox[$n]->orders(map { { list => 'tasks', %$_, (defined $_->{id} ? (id => $_->{id} + 0) : ()) } } @orders) }

sub sync
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->try("CALL hubex_sync('$_')")->{error}, undef, "$_ is synchronised") for @_;
}

sub full
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->try("CALL hubex_sync('$name', 'full')")->{error}, undef, "$name is read whole");
}

sub same
{
	my ($foreign, $target, @names) = @_;
	my $columns = join ', ', @names;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("WITH r AS MATERIALIZED (SELECT $columns FROM $foreign), m AS MATERIALIZED (SELECT $columns FROM $target)
		SELECT (SELECT count(*) FROM (TABLE m EXCEPT TABLE r) x) || ' ' || (SELECT count(*) FROM (TABLE r EXCEPT TABLE m) x) || ' ' || (SELECT count(*) FROM r) - (SELECT count(*) FROM m) || ' ' || (SELECT count(*) > 0 FROM m)"), '0 0 0 true', "... $target is what $foreign is");
}

# The copy of a published table has the same rows as the table.
sub follows
{
	my ($table, $what) = @_;
	my $digest = "SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY id)) FROM (SELECT * FROM $table) t";
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { $client->query($digest) eq $there->query($digest) } "$what: its copy on the subscriber follows";
}
