# IMPORT FOREIGN SCHEMA: every list of the API as a table, with columns, types and comments; and the manifest is what
# the script makes of the catalogue.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 60);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);

sub value { return $node->safe_psql('postgres', $_[0]) }

sub failure
{
	my ($sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT never\n$sql", on_error_stop => 0);
	return $stderr =~ s/^psql:<stdin>:\d+: //mgr;
}

# the manifest
is(system('connectors/generate', '--check'), 0, 'connectors/hubex.json is what connectors/generate makes');
my $catalogue = decode_json(slurp_file('connectors/catalogue/hubex.json'));
my $resources = decode_json(slurp_file('connectors/hubex.json'))->{resources};

# every list of the catalogue, by the parameters in its path
my (%lists, %paths);
for my $service (keys %$catalogue)
{
	while (my ($call, $about) = each %{ $catalogue->{$service}{calls} })
	{
		next unless ($about->{result} // '') =~ /^map<|\[\]$/ && $call =~ /^GET (.*)/;
		my $path = "/$service$1";
		my $parameters = $path =~ tr/{//;
		push @{ $lists{$parameters} }, $path;
	}
}
is(scalar @{ $lists{0} }, 164, 'the catalogue counts 164 lists of their own');
$paths{ $_->{path} =~ s/\{\w+\}/{}/gr } = 1 for values %$resources;
is_deeply([ grep { !$paths{ s/\{\w+\}/{}/gr } } @{ $lists{0} }, @{ $lists{1} } ], [], 'each is a resource, and so is each list of one parent');
is(scalar keys %$resources, @{ $lists{0} } + @{ $lists{1} }, 'and nothing else is');

# all of them as tables, each service for itself and all together
my @services = sort { $a cmp $b } grep { %{ $catalogue->{$_}{calls} } } keys %$catalogue;
for my $service (@services)
{
	value(qq(CREATE SCHEMA "$service"; IMPORT FOREIGN SCHEMA "$service" FROM SERVER fsm INTO "$service"));
}
value('CREATE SCHEMA everything; IMPORT FOREIGN SCHEMA "*" FROM SERVER fsm INTO everything');
is(value(q(SELECT count(*) FROM pg_foreign_table t JOIN pg_class c ON c.oid = t.ftrelid WHERE relnamespace = 'everything'::regnamespace)),
	scalar keys %$resources, '"*" makes a table of every resource');
is(value(q(SELECT count(*) FROM pg_foreign_table t JOIN pg_class c ON c.oid = t.ftrelid WHERE relnamespace <> 'everything'::regnamespace)),
	scalar keys %$resources, 'so do all services, one by one');
is(value(q(SELECT relname FROM pg_class WHERE relname !~ '^[a-z][a-z0-9]*(_[a-z0-9]+)*$' AND relkind = 'f')), '', 'their names are snake_case');
is(value(q(SELECT attrelid::regclass || '.' || attname FROM pg_attribute JOIN pg_foreign_table ON ftrelid = attrelid
	WHERE attnum > 0 AND attname !~ '^[a-z][a-z0-9]*(_[a-z0-9]+)*$')), '', 'and so are those of their columns');
is(value(q(SELECT ftrelid::regclass FROM pg_foreign_table WHERE obj_description(ftrelid, 'pg_class') IS NULL)), '', 'every table has a comment');
is(value(q(SELECT attrelid::regclass || '.' || attname FROM pg_attribute JOIN pg_foreign_table ON ftrelid = attrelid
	WHERE attnum > 0 AND col_description(attrelid, attnum) IS NULL)), '', 'and so has every column');
is(value(q(SELECT string_agg(DISTINCT format_type(atttypid, atttypmod), ', ' ORDER BY format_type(atttypid, atttypmod))
	FROM pg_attribute JOIN pg_foreign_table ON ftrelid = attrelid WHERE attnum > 0)),
	'bigint, boolean, jsonb, numeric, text, timestamp with time zone, uuid', 'the types are those of the API');
is(value(q(SELECT attrelid::regclass FROM pg_attribute a JOIN pg_foreign_table ON ftrelid = attrelid WHERE attname = 'raw'
	AND (atttypid <> 'jsonb'::regtype OR attnum < (SELECT max(attnum) FROM pg_attribute b WHERE b.attrelid = a.attrelid)))), '',
	'raw is jsonb and comes last');

# names
is(value(q(SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) FROM pg_attribute
	WHERE attrelid = '"WORK".tasks'::regclass AND attname IN ('id', 'number', 'task_type_id', 'task_type_name', 'created', 'is_closed', 'erp_id',
	'list_assigned_to', 'search_text', 'average_rating', 'raw'))),
	'id bigint, number text, erp_id text, task_type_id bigint, task_type_name text, created timestamp with time zone, is_closed boolean, '
	. 'average_rating numeric, list_assigned_to jsonb, search_text text, raw jsonb', 'tasks have the columns one looks for');
is(value(q(SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '"WORK".tasks_conversations'::regclass AND attnum <= 3 AND attnum > 0)),
	'task_id,id,attachment', 'a list of a parent begins with its id');
is(value(q(SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'everything'::regnamespace AND relname ~ 'attributes$'
	AND relname ~ '^(common_|sla_)?attributes$')), 'common_attributes,sla_attributes', 'where two services have a table of one name, "*" names the service');
is(value(q(SELECT relname FROM pg_class WHERE relnamespace = '"SLA"'::regnamespace AND relname ~ 'attributes$' AND relname !~ 'rules')), 'attributes',
	'in a schema of its own it has its own name');
is(value(q(SELECT obj_description('"WORK".tasks'::regclass))), 'tasks: the requests for work, open and closed; GET /WORK/Tasks', 'a comment of a table');
is(value(q(SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = '"WORK".tasks'::regclass AND attname = 'closed')),
	'when the task was closed; null: it is open; timesheet.closed; the API filters by closingFrom, closingTill, isClosed', 'and of a column');

# what is left out
value('CREATE SCHEMA few; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, task_types) FROM SERVER fsm INTO few');
is(value(q(SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'few'::regnamespace)), 'task_types,tasks', 'LIMIT TO');
value('CREATE SCHEMA others; IMPORT FOREIGN SCHEMA "work" EXCEPT (tasks, task_types) FROM SERVER fsm INTO others');
is(value(q(SELECT count(*) FROM pg_class WHERE relnamespace = 'others'::regnamespace AND relkind = 'f')),
	value(q(SELECT count(*) - 2 FROM pg_class WHERE relnamespace = '"WORK"'::regnamespace AND relkind = 'f')), 'EXCEPT, and a service in small letters');
value(q(CREATE SCHEMA plain; IMPORT FOREIGN SCHEMA "*" FROM SERVER fsm INTO plain OPTIONS (raw 'false', include_deleted 'true')));
is(value(q(SELECT attrelid::regclass FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'plain'::regnamespace AND attname = 'raw')),
	'', 'without raw');
is(value(q(SELECT count(*) FROM pg_foreign_table JOIN pg_class c ON c.oid = ftrelid WHERE relnamespace = 'plain'::regnamespace
	AND NOT 'include_deleted=true' = ANY (ftoptions))), 0, 'with what is deleted');
is(value(q(SELECT relname FROM pg_class c WHERE relnamespace = 'plain'::regnamespace AND relkind = 'f'
	AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0))), '', 'and every table has columns still');

# errors, which leave nothing behind
like(failure('CREATE SCHEMA e; IMPORT FOREIGN SCHEMA "WORKS" FROM SERVER fsm INTO e'), qr/HV00Q.*has no schema "WORKS".*"TSTG".*"WORK"/s, 'an unknown service');
like(failure(q(IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO e OPTIONS (colour 'red'))), qr/HV00D.*raw, include_deleted/s, 'an unknown option');
like(failure('CREATE TABLE e.work_types (); IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO e'), qr/42P07/, 'a table that is there');
is(value(q(SELECT count(*) FROM pg_class WHERE relnamespace = 'e'::regnamespace)), 1, 'is left alone, and so is the rest');
value('DROP TABLE e.work_types; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (work_types) FROM SERVER fsm INTO e');
isnt(value(q(SELECT obj_description('e.work_types'::regclass))), '', 'after an error there are comments again');

# another import, and a table made by hand, get no comments of ours
value('CREATE FOREIGN TABLE e.tasks (id bigint) SERVER fsm OPTIONS (resource \'tasks\')');
is(value(q(SELECT obj_description('e.tasks'::regclass))), '', 'a table of one\'s own has no comment of ours');
value(q(DO $$ BEGIN
	EXECUTE 'IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (task_statuses) FROM SERVER fsm INTO e';
	EXECUTE 'IMPORT FOREIGN SCHEMA "ES" LIMIT TO (locations) FROM SERVER fsm INTO e';
	END $$));
is(value(q(SELECT count(*) FROM pg_foreign_table WHERE ftrelid::regclass::text IN ('e.task_statuses', 'e.locations') AND obj_description(ftrelid, 'pg_class') LIKE 'GET %')),
	2, 'two imports of one block, each with comments');

# all lists can be selected from
my %failed;
for my $name (sort split /\n/, value(q(SELECT relname FROM pg_class c JOIN pg_foreign_table ON ftrelid = c.oid WHERE relnamespace = 'everything'::regnamespace)))
{
	next if $resources->{$name}{parent};
	my ($status, undef, $stderr) = $node->psql('postgres', "SELECT count(t) FROM everything.$name t");
	$failed{$name} = $stderr if $status;
}
is_deeply(\%failed, {}, 'each of the 164 can be selected from');

# and so can those of one parent
my %parents = (task_id => 'WORK.tasks', asset_id => 'ES.assets', company_id => 'ES.companies', user_id => 'ADM.users');
for my $name (sort keys %$resources)
{
	my $parent = $resources->{$name}{parent} or next;
	my ($id) = grep { defined } map { $parents{$parent} ? value("SELECT min(id) FROM \"" . ($parents{$parent} =~ s/\./"./r)) : undef } 1;
	next unless $id;
	my ($status, undef, $stderr) = $node->psql('postgres', "SELECT count(t) FROM everything.$name t WHERE $parent = $id");
	$failed{$name} = $stderr if $status && $stderr !~ /404/;
}
is_deeply(\%failed, {}, 'and so can the lists of a task, an asset, a company, a user');

# a session whose library is loaded by the import itself
my $bare = Hubex::Node->new('bare', preload => 0);
$bare->safe_psql('postgres', q(CREATE EXTENSION hubex; CREATE SCHEMA far;
	CREATE SERVER fsm FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1/fsm')));
is($bare->safe_psql('postgres', q(IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (task_types) FROM SERVER fsm INTO far;
	SELECT obj_description('far.task_types'::regclass))), 'GET /WORK/TaskTypes', 'comments where the import is what loads the library');

done_testing;
