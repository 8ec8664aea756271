# What docs/mirrors.md says is so. Its recipes are run as they stand, in their order, and each has made what it says it makes;
# what its tables name is known to the server. The Russian guide is held to the English one by 110.

use strict;
use warnings;

use Encode qw(decode_utf8);
use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;

my $guide = slurp_file('docs/mirrors.md');
my %recipe = $guide =~ /^### (.*)\n(?:(?!^#).*\n)*?```sql\n((?:(?!^```).*\n)*)```/gm;
my @recipes = $guide =~ /^### (.*)\n(?:(?!^#).*\n)*?```sql\n/gm;
is(scalar(() = $guide =~ /^```sql$/gm), scalar @recipes, 'each recipe has its statements');
my %carried_out;

my $sandbox = Hubex::Sandbox->new(tasks => 120, assets => 60);
my @orders = $sandbox->orders(map { { list => 'tasks', kind => 'create', fields => { erpID => "ORDER-$_", taskTypeID => 2, notes => 'as it was' } } } 17, 18);
my $node = Hubex::Node->new('main', wal_level => 'logical', log_timezone => 'Asia/Yekaterinburg', max_worker_processes => 16);
$node->start_hubex($sandbox, server => $_) for qw(fsm north south);
# pg_cron itself is another test's; here it is enough to see what it is told.
sql(q(CREATE SCHEMA erp; CREATE SCHEMA cron;
	CREATE TABLE cron.job (name text, schedule text, command text);
	CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO cron.job VALUES ($1, $2, $3) RETURNING 1::bigint'));

#
# Fill, and keep in step
#
my (undef, $notices) = carry_out('Fill, and keep in step');
like($notices, qr/NOTICE:  resource "assets" cannot say what has changed: every 06:00:00 the whole list is read/, 'a NOTICE says so');
$node->wait_for(q(SELECT count(*) FROM hubex_stat_sync WHERE state = 'in step'), 2, 'the worker fills both');
same('mirror.tasks', 'fsm.tasks');
same('mirror.assets', 'fsm.assets');
is(sql(q(SELECT mode, every, full_every FROM hubex.subscription ORDER BY name)), "full|06:00:00|06:00:00\nboth|00:01:00|1 day", 'how often');
is(sql(q(SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'mirror.tasks'::regclass AND contype = 'p')), 'PRIMARY KEY (id)', 'the primary key');
is(sql(q(SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = 'mirror.tasks'::regclass AND attnum > 0
	AND attname NOT IN (SELECT attname FROM pg_attribute WHERE attrelid = 'fsm.tasks'::regclass))), 'synced_at', 'the columns, and synced_at');
is(sql(q(SELECT col_description('mirror.tasks'::regclass, 1) = col_description('fsm.tasks'::regclass, 1))), 't', 'their comments');

#
# By hand, or by pg_cron
#
carry_out('By hand, or by pg_cron');
same('mirror.companies', 'fsm.companies');
my $command = sql(q(SELECT command FROM cron.job));
like(notices($command), qr/subscription "companies", full: 0 inserted/, 'what pg_cron is told runs');
is(sql(q(SELECT count(*) FROM hubex_stat_sync WHERE name = 'companies' AND next_at IS NULL AND next_full_at IS NULL)), 1, 'the worker leaves it alone');
my ($calls) = $guide =~ /^(With `every => NULL`.*?)^###/ms;
my @calls = map { s/\s+/ /gr =~ s/\bname\b/'tasks'/r } $calls =~ /`(CALL hubex_sync\(.*?\))`/gs;
is(scalar @calls, 3, 'three ways to call it');
like(notices($calls[0]), qr/incremental: /, $calls[0]);
unlike(notices($calls[1]), qr/full: /, $calls[1]);
like(notices($calls[2]), qr/full: \d/, $calls[2]);

#
# Some columns, some records
#
carry_out('Some columns, some records');
sql(q(CALL hubex_sync('repairs')));
is(columns('mirror.repairs'), 'id,number,notes,company_id,created,last_modified,is_closed,synced_at', 'the key comes along');
is(sql('SELECT count(*) FROM mirror.repairs'), sql('SELECT count(*) FROM fsm.tasks WHERE task_type_id IN (2, 3)'), 'the filter');
same('mirror.repairs', '(SELECT * FROM fsm.tasks WHERE task_type_id IN (2, 3)) f');
my $gone = sql('SELECT max(id) FROM mirror.repairs WHERE id NOT IN (SELECT id FROM fsm.tasks WHERE erp_id IN (\'ORDER-17\', \'ORDER-18\'))');
$sandbox->orders({ list => 'tasks', kind => 'change', id => $gone + 0, fields => { taskTypeID => 1 } });
sql(q(CALL hubex_sync('repairs')));
is(sql("SELECT count(*) FROM mirror.repairs WHERE id = $gone"), 1, 'a record that leaves the filter');
sql(q(CALL hubex_sync('repairs', 'full')));
is(sql("SELECT count(*) FROM mirror.repairs WHERE id = $gone"), 0, '... goes with a sweep');

#
# A table there is
#
carry_out('A table there is');
sql(q(CALL hubex_sync('work_orders'); UPDATE erp.work_order SET picked = true));
is(sql('SELECT count(*) FROM (SELECT task, what, customer, due, changed FROM erp.work_order EXCEPT SELECT id, notes, company_id, deadline, last_modified FROM fsm.tasks) d'),
	0, 'each column shows what it is to show');
my $changed = sql('SELECT max(task) FROM erp.work_order');
$sandbox->orders({ list => 'tasks', kind => 'change', id => $changed + 0, fields => { notes => 'other words' } });
sql(q(CALL hubex_sync('work_orders')));
is(sql("SELECT what, picked FROM erp.work_order WHERE task = $changed"), 'other words|t', 'what is not named stays');
sql(q(CREATE TABLE erp.day (id bigint PRIMARY KEY, number date, created date, deadline timestamp)));
sql(q(ALTER TABLE erp.day DROP number));
sql(q(SET TimeZone = 'Asia/Vladivostok'; SELECT hubex_subscribe('days', 'fsm.tasks', 'erp.day', every => NULL); CALL hubex_sync('days')));
is(sql(q(SELECT count(*) FROM erp.day d JOIN fsm.tasks t USING (id) WHERE (d.created, d.deadline)
	IS DISTINCT FROM ((t.created AT TIME ZONE 'UTC')::date, t.deadline AT TIME ZONE 'UTC'))), 0, 'a date is that of UTC, whoever asks');
cmp_ok(sql(q(SELECT count(*) FROM erp.day d JOIN fsm.tasks t USING (id) WHERE d.created <> (t.created AT TIME ZONE 'Asia/Vladivostok')::date)),
	'>', 0, '... which is not that of others');
sql(q(SELECT hubex_unsubscribe('days')));

#
# Everything once a week, at night
#
carry_out('Everything once a week, at night');
eventually { sql(q(SELECT state FROM hubex_stat_sync WHERE name = 'archive')) eq 'in step' } 'the first reading begins at once';
is(sql(q(SELECT (next_full_at AT TIME ZONE current_setting('log_timezone'))::time,
	next_full_at > now() + interval '5 days', next_full_at < now() + interval '8 days' FROM hubex_stat_sync WHERE name = 'archive')), '03:00:00|t|t', 'the next one is at night');

#
# What becomes of deleted records
#
carry_out('What becomes of deleted records');
sql(q(CALL hubex_sync('kept')));
my $soft = sql('SELECT max(id) FROM mirror.kept WHERE deleted IS NULL');
my @hard = split /\n/, sql('SELECT id FROM mirror.kept WHERE deleted IS NULL ORDER BY id LIMIT 12');
$sandbox->orders({ list => 'tasks', kind => 'delete', id => $soft + 0 }, map { { list => 'tasks', kind => 'erase', id => $_ + 0 } } @hard);
sql(q(CALL hubex_sync('kept')));
is(sql("SELECT count(*) FROM mirror.kept WHERE id = $soft AND deleted > now() - interval '1 hour'"), 1, 'a record that says so is marked by the next run');
like(notices(q(CALL hubex_sync('kept', 'full'))), qr/waits for a confirmation/, 'more than delete_limit');
is(sql(q(SELECT state, to_confirm FROM hubex_stat_sync WHERE name = 'kept')), 'waits for confirmation|12', '... waits');
is(sql('SELECT count(*) FROM mirror.kept WHERE deleted IS NULL AND id IN (' . join(',', @hard) . ')'), 12, '... and takes nothing away');
my ($confirm) = $recipe{'What becomes of deleted records'} =~ /(SELECT hubex_confirm_deletes.*?);/;
is(sql($confirm), 12, 'it returns how many they are');
eventually { sql('SELECT count(*) FROM mirror.kept WHERE deleted IS NOT NULL AND id IN (' . join(',', @hard) . ')') == 12 } 'then they are marked';
is(sql($confirm), 0, '... or 0');
$sandbox->orders({ list => 'tasks', kind => 'restore', id => $soft + 0 });
sql(q(CALL hubex_sync('kept')));
is(sql("SELECT count(*) FROM mirror.kept WHERE id = $soft AND deleted IS NULL"), 1, 'a record that is restored loses the mark');

#
# Triggers as handlers
#
carry_out('Triggers as handlers');
my $told = sql('SELECT max(id) FROM mirror.repairs');
$sandbox->orders({ list => 'tasks', kind => 'change', id => $told + 0, fields => { notes => 'news' } });
sql(q(CALL hubex_sync('repairs')));
$sandbox->orders({ list => 'tasks', kind => 'change', id => $told + 0, fields => { closed => '2025-07-01T10:00:00' } });
sql(q(CALL hubex_sync('repairs'); CALL hubex_sync('repairs', 'full')));
sql("UPDATE mirror.repairs SET notes = 'ours' WHERE id = $told");
is(sql('SELECT task, notes FROM erp.notice'), "$told|news", 'a handler is told once of what it asked for, and not of what is done here');
sql(q(CREATE TABLE erp.seen (by text, path text); ALTER TABLE erp.seen OWNER TO CURRENT_USER;
	CREATE FUNCTION erp.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO erp.seen VALUES (current_user, current_setting('search_path')); RETURN NULL; END $$;
	CREATE TRIGGER look AFTER UPDATE OF number ON mirror.repairs FOR EACH ROW EXECUTE FUNCTION erp.look()));
sql(q(CALL hubex_sync('repairs', 'full')));
is(sql('SELECT DISTINCT * FROM erp.seen'), sql('SELECT current_user') . '|pg_catalog, pg_temp', 'who it runs as, and where; UPDATE OF any column fires');
sql(q(DROP TRIGGER look ON mirror.repairs));
my $failing = q(CREATE FUNCTION erp.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not so'; END $$;
	CREATE TRIGGER fail AFTER UPDATE ON mirror.repairs FOR EACH ROW EXECUTE FUNCTION erp.fail());
sql($failing);
my $others = sql("SELECT min(id) FROM mirror.repairs WHERE id <> $told");
$sandbox->orders({ list => 'tasks', kind => 'change', id => $others + 0, fields => { notes => 'kept from us' } });
like(notices(q(CALL hubex_sync('repairs'))), qr/ERROR:  not so/, 'an error of a handler is the error of the run');
is(sql(q(SELECT state, reason ~ 'not so' FROM hubex_stat_sync WHERE name = 'repairs')), 'failing|t', '... which is seen');
sql(q(DROP TRIGGER fail ON mirror.repairs; CALL hubex_sync('repairs')));
is(sql("SELECT notes FROM mirror.repairs WHERE id = $others"), 'kept from us', '... and it is tried again');

#
# Changes in both directions
#
my ($shown) = carry_out('Changes in both directions');
my ($id) = sql(q(SELECT id FROM mirror.dispatch WHERE erp_id = 'ORDER-17'));
is_deeply([ sort map { join '|', (split /\|/)[ 1, 3 ] } grep { /\|(?:create|update|delete)\|/ } split /\n/, $shown ],
	[ 'ORDER-17|update', 'ORDER-18|delete', 'ORDER-56|create' ], 'the view shows what is on its way');
is(sql(q(SELECT string_agg(hubex_wait(id), ' ' ORDER BY id) FROM hubex.outbox)), 'delivered delivered delivered', 'it is delivered');
is(decode_utf8(sql("SELECT notes FROM mirror.dispatch WHERE id = $id")), decode_utf8('Перезвонить до выезда'), 'an UPDATE shows at once');
sql(q(CALL hubex_sync('dispatch')));
is_deeply([ @{ there('ORDER-17') }{qw(notes deadline)} ], [ decode_utf8('Перезвонить до выезда'), '2030-01-31T15:00:00' ], 'UPDATE: there');
ok(there('ORDER-18')->{deleted}, 'DELETE: there');
is(sql(q(SELECT id, number FROM mirror.dispatch WHERE erp_id = 'ORDER-56')), join('|', @{ there('ORDER-56') }{qw(id number)}), 'INSERT: with its id and number');
is(sql('SELECT count(*) FROM mirror.dispatch_now WHERE hubex_pending IS NOT NULL'), 0, 'nothing is on its way any more');
is(sql('SELECT count(*) FROM hubex.conflict'), 0, 'nobody disagreed');
like(notices(q(UPDATE mirror.dispatch SET task_stage_name = 'x')), qr/ERROR:  column "task_stage_name" of mirror .* cannot be changed/, 'a column of the remote side');
$sandbox->orders({ list => 'tasks', kind => 'change', id => $id + 0, fields => { deadline => '2026-12-24T10:00:00', notes => 'theirs' } });
sql(q(CALL hubex_sync('dispatch')));
is(sql("SELECT notes, deadline = '2030-01-31 18:00+03' FROM mirror.dispatch WHERE id = $id"), 'theirs|t', 'newest, and local');
is(sql('SELECT column_name, kept, reason FROM hubex.conflict'), 'deadline|local|overruled', 'a conflict');
eventually { there('ORDER-17')->{deadline} eq '2030-01-31T15:00:00' } '... and it is sent again';
like(notices('INSERT INTO mirror.dispatch (task_type_id, notes) VALUES (1, \'x\') RETURNING id'), qr/\A\s*\z/, 'INSERT stores no row');

#
# Several tenants, one table; partitions by time
#
carry_out('Several tenants, one table');
sql(q(CALL hubex_sync('tasks_north'); CALL hubex_sync('tasks_south')));
my $tasks = sql('SELECT count(*) FROM fsm.tasks');
is(sql('SELECT tenant, tableoid::regclass, count(*) FROM mirror.every_task GROUP BY 1, 2 ORDER BY 1'),
	"north|mirror.every_task_north|$tasks\nsouth|mirror.every_task_south|$tasks", 'each tenant in its partition');
like(notices(q(SELECT hubex_subscribe('again', 'fsm.tasks', 'mirror.tasks'))), qr/ERROR:  table "tasks" is the mirror of subscription "tasks"/,
	'a second subscription, and nothing tells their rows apart');
carry_out('Partitions by time');
sql(q(CALL hubex_sync('by_year')));
same('mirror.task_by_year', 'fsm.tasks');
cmp_ok(sql('SELECT count(*) FROM mirror.task_2025'), '>', 0, 'partitions have their rows');

#
# On to another PostgreSQL; change it, end it
#
carry_out('On to another PostgreSQL');
is(sql(q(SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables)), 'assets,tasks', 'what is published');
my $before = sql(q(SELECT xmin FROM mirror.repairs ORDER BY id LIMIT 1));
carry_out('Change it, end it');
sql(q(CALL hubex_sync('repairs')));
is(sql('SELECT count(*) FROM mirror.repairs'), sql('SELECT count(*) FROM fsm.tasks WHERE task_type_id IN (2, 3, 4)'), 'the new filter');
is(sql(q(SELECT xmin FROM mirror.repairs ORDER BY id LIMIT 1)), $before, 'what is the same is not written');
is(sql(q(SELECT count(*) FROM hubex.subscription WHERE name = 'archive')), 0, 'it is ended');
is_deeply([ sort keys %carried_out ], [ sort @recipes ], 'all recipes were carried out');
is(sql(q(SELECT string_agg(DISTINCT state, ', ') FROM hubex_stat_sync)), 'in step', 'all of them are in step');
is(sql(q(SELECT string_agg(message, E'\n') FROM hubex_check('fsm') WHERE NOT ok)), '', 'and all is well');

#
# What the tables name
#
my %default = map { my ($name, $default) = /^\| `(\w+)` \| ([^|]*) \|/ ? ($1, $2) : (); $name => $default } rows_below('argument');
my $signature = sql(q(SELECT string_agg(format('%s=%s', n, pg_get_function_arg_default(oid, i::int)), E'\n' ORDER BY i)
	FROM pg_proc, unnest(proargnames) WITH ORDINALITY AS a (n, i) WHERE proname = 'hubex_subscribe'));
my %known = map { /^(\w+)=(.*)/ } split /\n/, $signature;
is_deeply([ map { /^\| `(\w+)`/ } rows_below('argument') ], [ map { /^(\w+)=/ } split /\n/, $signature ], 'the arguments of hubex_subscribe(), in their order');
for my $name (sort keys %known)
{
	my ($said) = $default{$name} =~ /^`([^`]*)`$/;
	next if $name eq 'full_every';    # it depends on the mode
	if ($known{$name} =~ /^(?:NULL.*)?$/) { is($said, undef, "$name has no fixed default") }
	else { is(sql("SELECT CAST('$said' AS @{[ $known{$name} =~ /::(.*)/ ? $1 : 'float8' ]}) = $known{$name}"), 't', "$name is $said") }
}
my @states = sql(q(SELECT pg_get_viewdef('hubex_stat_sync'::regclass))) =~ /CASE((?:(?!\bCASE\b).)*'in step'.*?)END/s ? $1 =~ /'([^']*)'::text/g : ();
is_deeply([ sort map { /^\| `([^`]*)`/ } rows_below('state') ], [ sort @states ], 'the states');
my @reasons = sql(q(SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'conflict_reason_check')) =~ /'([^']*)'::text/g;
is_deeply([ sort map { /^\| `([^`]*)`/ } rows_below('reason') ], [ sort @reasons ], 'the reasons of conflicts');
my ($assets) = $guide =~ /(\d+) for 577,953 assets/;
is($assets, int((577_953 - 10 + 9_990 - 1) / 9_990), 'pages of 10,000, each with 10 of the one before');
done_testing;

#
# Means
#

# Runs a recipe; what it printed, and its notices.
sub carry_out
{
	my ($heading) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $errors) = $node->psql('postgres', $recipe{$heading} // "SELECT 'no such recipe'::int", on_error_stop => 1);
	ok($status == 0, $heading) or diag $errors;
	$carried_out{$heading} = 1;
	return ($out, $errors);
}

sub sql { return $node->safe_psql('postgres', $_[0]) }

# A task as the sandbox has it.
sub there
{
	my ($erp_id) = @_;
	return (grep { ($_->{erpID} // '') eq $erp_id } @{ $sandbox->tasks })[0];
}

sub notices { return ($node->psql('postgres', $_[0]))[2] }

sub columns
{
	my ($table) = @_;
	return sql("SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 AND NOT attisdropped");
}

# A mirror has the rows of its list, in the columns it has of it.
sub same
{
	my ($mirror, $list) = @_;
	my $columns = join ', ', grep { $_ ne 'synced_at' } split /,/, columns($mirror);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql("SELECT count(*) FROM (SELECT $columns FROM $mirror EXCEPT ALL SELECT $columns FROM $list) a")
		  . ' ' . sql("SELECT count(*) FROM (SELECT $columns FROM $list EXCEPT ALL SELECT $columns FROM $mirror) a"),
		'0 0', "$mirror has what $list has");
}

# The rows of the table whose first heading is this one.
sub rows_below
{
	my ($heading) = @_;
	my ($rows) = $guide =~ /^\| \Q$heading\E \|.*\n\| ---.*\n((?:\|.*\n)+)/m;
	return split /\n/, $rows // '';
}
