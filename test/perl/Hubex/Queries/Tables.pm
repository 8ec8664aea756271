package Hubex::Queries::Tables;

=head1 NAME

Hubex::Queries::Tables - the tables that generated queries are about, far and near

=head1 SYNOPSIS

	my $tables = Hubex::Queries::Tables->new($node, $sandbox, 'differential');
	my $queries = Hubex::Queries->new(seed => 7, tables => $tables->described);

=head1 DESCRIPTION

Makes a database with a linguistic collation, fills the sandbox with records that are hard to carry, and makes three
schemas: C<far>, foreign tables of all kinds; C<near>, tables of the same names and columns made from
L<Hubex::LocalCopy>; C<here>, local tables and functions for both.

=cut

use strict;
use utf8;
use warnings;

use Encode qw(encode);
use JSON::PP;

use Hubex::LocalCopy;
use Hubex::Queries::Values;

# What is near must hold of what is far; the second is SQL over r, the record.
my $alive = q(NOT r ? 'deleted');
my $type = q((r #>> '{taskType,id}'));
my @tables = (
	{ name => 'tasks', weight => 8, near => $alive },
	{ name => 'paged_tasks', weight => 1.5, server => 'small_pages', near => $alive },
	{ name => 'all_tasks', weight => 1.5, options => { filter => '{"isDeleted": null}' }, near => 'true' },
	{ name => 'kept_tasks', weight => 1, options => { include_deleted => 'true' }, near => 'true' },
	{ name => 'lift_tasks', weight => 1, options => { filter => '{"taskTypeID": [1, 2]}' }, near => "$alive AND $type IN ('1', '2')" },
	{ name => 'open_tasks', weight => 1, options => { filter => '{"isClosed": false}' }, near => "$alive AND r #> '{timesheet,closed}' IS NULL" },
	{ name => 'recent_tasks', weight => 1, options => { filter => '{"creationFrom": "2025-04-01T00:00:01"}' },
		near => "$alive AND r #>> '{timesheet,created}' > '2025-04-01T00:00:01'" },
	{ name => 'every_a', weight => 0.2, of => 'every', near => $alive },
	{ name => 'every_b', weight => 0.2, of => 'every', server => 'small_pages', options => { filter => '{"taskTypeID": 2}' },
		near => "$alive AND $type = '2'" },
	{ name => 'parted_a', weight => 0.2, of => 'parted', values => 'IN (1)', options => { filter => '{"taskTypeID": 1}' },
		near => "$alive AND $type = '1'" },
	{ name => 'parted_b', weight => 0.2, of => 'parted', server => 'second', values => 'IN (2, 3)',
		options => { filter => '{"taskTypeID": [2, 3]}' }, near => "$alive AND $type IN ('2', '3')" },
	{ name => 'parted_c', weight => 0.2, of => 'parted', values => 'DEFAULT', options => { filter => '{"taskTypeID": [6, 7]}' },
		near => "$alive AND $type IN ('6', '7')" },
	{ name => 'assets', weight => 1, resource => 'assets', near => $alive },
	{ name => 'companies', weight => 1, resource => 'companies', near => $alive },
	{ name => 'users', weight => 0.7, resource => 'users', near => $alive },
	{ name => 'all_users', weight => 0.3, resource => 'users', options => { include_deleted => 'true' }, near => 'true' },
	{ name => 'contacts', weight => 0.5, resource => 'contacts', near => $alive },
	{ name => 'materials', weight => 0.4, resource => 'materials', near => 'true' },
	{ name => 'task_types', weight => 0.4, resource => 'task_types', near => 'true' },
	{ name => 'tasks_conversations', weight => 1, resource => 'tasks_conversations', needs => 'task_id', near => 'true' },
	# By hand: fewer columns, of other types than the connector's.
	{ name => 'typed_tasks', weight => 1.3, near => $alive, columns => [
		[ id => 'numeric(20, 0)', 'key' ], [ task_type_id => 'smallint', $type ], [ company_id => 'text', q(r #>> '{company,id}') ],
			[ erp_id => 'varchar(200)', q(r ->> 'erpID') ],
		[ number => 'char(120)', q(r ->> 'number') ], [ created => 'timestamp', q(r #>> '{timesheet,created}') ],
			[ deadline => 'date', q(left(r #>> '{timesheet,deadline}', 10)) ],
		[ parent_id => 'integer', q(r #>> '{parent,id}') ], [ last_modified => 'text', q(r ->> 'lastModified') ],
			[ closed => 'timestamptz(0)', q((r #>> '{timesheet,closed}') || 'Z') ],
		[ stage_color => 'text', q(r #>> '{taskStage,color}'), q(path 'taskStage.color') ], [ asset_id => 'bigint', q(r #>> '{asset,id}') ],
		[ work_type_id => 'here.positive_int', q(r #>> '{workType,id}') ], [ tenant_id => 'integer', q('7'), q(constant '7') ] ] },
	# What does not fit is NULL there.
	{ name => 'lenient_tasks', weight => 0.7, options => { on_error => 'null' }, near => $alive, columns => [
		[ id => 'integer', 'key' ], [ number => 'bigint', q(CASE WHEN r ->> 'number' ~ '^\s*\d+\s*$' THEN r ->> 'number' END) ],
			[ task_type_id => 'text', $type ],
		[ company_id => 'smallint', q(r #>> '{company,id}') ], [ erp_id => 'name', q(r ->> 'erpID') ],
			[ created => 'date', q(left(r #>> '{timesheet,created}', 10)) ],
		[ closed => 'text', q(r #>> '{timesheet,closed}') ], [ parent_id => 'bigint', q(r #>> '{parent,id}') ] ] });

my @resources = qw(tasks assets companies users contacts materials task_types tasks_conversations);

# Fixed names beside them: tables over several of the above.
my @sums = (
	{ name => 'every', weight => 1, like => 'tasks', parts => [qw(every_a every_b)] },
	{ name => 'parted', weight => 1, like => 'tasks', key => 'id', parts => [qw(parted_a parted_b parted_c)] },
	{ name => 'view_tasks', weight => 0.7, like => 'tasks', key => 'id' },
	{ name => 'barrier_tasks', weight => 0.7, like => 'tasks', key => 'id' });

my $local = q{
	CREATE SCHEMA here;
	CREATE COLLATION here.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE FUNCTION here.immutable(anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
	CREATE FUNCTION here.stable(anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END';
	CREATE FUNCTION here.volatile(anyelement) RETURNS anyelement LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1; END';
	CREATE FUNCTION here.not_equal(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 <> $2';
	CREATE FUNCTION here.same_length(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length($1) = length($2)';
	CREATE OPERATOR here.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = here.not_equal);
	CREATE OPERATOR here.= (LEFTARG = text, RIGHTARG = text, FUNCTION = here.same_length);
	CREATE DOMAIN here.positive_int AS bigint CHECK (VALUE > 0);
	CREATE TABLE here.keys (k bigint);
	INSERT INTO here.keys SELECT 1000 + 7 * n FROM generate_series(1, 25) n;
	INSERT INTO here.keys SELECT n FROM generate_series(1, 12) n;
	INSERT INTO here.keys VALUES (NULL), (0), (-1), (1099511627776), (1014), (3);
	CREATE TABLE here.orders (id integer PRIMARY KEY, erp_id text, customer text, task_id bigint, company_id smallint, asset_id numeric,
		placed timestamptz);
	INSERT INTO here.orders
		SELECT n, (array['ORD-2025-' || lpad((n * 3)::text, 6, '0'), 'nothing', NULL, 'O''Hara & Sons'])[1 + n % 4], 'Клиент ' || n,
			CASE WHEN n % 3 > 0 THEN 1000 + n * 4 END, n % 18, n % 30,
			'2025-01-15 00:00+00'::timestamptz + n * interval '5 days 3 hours'
		FROM generate_series(1, 36) n;
	ANALYZE here.keys, here.orders;
};

=head1 METHODS

=head2 new($node, $sandbox, $database)

=head2 lie($name, sub { ... })

A schema of that name like C<far>, with one table C<tasks>, of a server whose connector is not true: the code gets the
manifest's part of the tasks and its columns by name, and changes them.

=head2 import_all

Every list of the connector, each service in a schema of its own, C<list_WORK>...

=head2 described

What L<Hubex::Queries> wants to know.

=head2 unknown

Columns of the connector, as RESOURCE.COLUMN, that the local copies do not know; they are not in the tables either.

=cut

sub new
{
	my ($class, $node, $sandbox, $database) = @_;
	my $self = bless { node => $node, database => $database, sandbox => $sandbox, unknown => [] }, $class;
	$node->safe_psql('postgres',
		qq(CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'ru' LOCALE 'C.UTF-8'));
	$node->safe_psql('postgres', join ';', map { "ALTER DATABASE $database SET $_" } "statement_timeout = '60s'", 'jit = off',
		'client_min_messages = error', "TimeZone = 'UTC'", 'search_path = here, public', 'hubex.max_requests_per_query = 0');
	$node->start_hubex($sandbox, database => $database);
	$node->start_hubex($sandbox, database => $database, server => 'small_pages', page_size => 7, max_connections => 2);
	$node->start_hubex($sandbox, database => $database, server => 'second', max_connections => 1);
	$self->_sql($local);

	my $copy = Hubex::LocalCopy->new($sandbox);
	_fill($copy);
	$node->safe_psql($database, $copy->load('near', @resources));    # bytes, as they came
	$self->_sql('CREATE SCHEMA far;' . join ';',
		map { qq(IMPORT FOREIGN SCHEMA "$_" LIMIT TO (@{[ join ', ', @resources ]}) FROM SERVER fsm INTO far) } qw(WORK ES ADM COMMON WH));
	$self->_settle_columns($copy);
	$self->_sql(join '', map { $self->_make($copy, $_) } @tables);
	$self->_sql(join '', map { $self->_make_sums($_) } qw(far near));
	$self->_sql('ANALYZE far.lift_tasks, far.typed_tasks, far.open_tasks, far.companies, far.users');    # others are of unknown size
	return $self;
}

sub _sql { return $_[0]{node}->safe_psql($_[0]{database}, encode('UTF-8', $_[1])) }
sub _json { return decode_json($_[0]->_sql($_[1])) }

# Columns the contract does not explain leave the tables: nobody could say what should be in them. So does raw where
# GET of one record may be the way to it, which shows more than the list.
sub _settle_columns
{
	my ($self, $copy) = @_;
	my $columns = $self->_json(q{
		SELECT json_object_agg(relname, columns)
		FROM (SELECT relname, json_agg(json_build_array(attname, format_type(atttypid, atttypmod)) ORDER BY attnum) AS columns
			FROM pg_attribute a JOIN pg_class c ON attrelid = c.oid WHERE relnamespace = 'far'::regnamespace AND attnum > 0 GROUP BY 1) s});
	for my $resource (@resources)
	{
		my $is_known = sub { $copy->knows($resource, $_[0]) && !($_[0] eq 'raw' && $resource =~ /^(?:assets|companies|task_types)$/) };
		my @unknown = map { $_->[0] } grep { !$is_known->($_->[0]) } @{ $columns->{$resource} };
		push @{ $self->{unknown} }, map { "$resource.$_" } @unknown;
		$self->{columns}{$resource} = [ grep { $is_known->($_->[0]) } @{ $columns->{$resource} } ];
		$self->{drops} .= "ALTER FOREIGN TABLE far.$resource " . join(', ', map { "DROP COLUMN $_" } @unknown) . ";\n" if @unknown;
	}
	$self->_sql(delete $self->{drops});
	return;
}

# One table in both schemas.
sub _make
{
	my ($self, $copy, $table) = @_;
	my $resource = $table->{resource} // 'tasks';
	my $name = $table->{name};
	my $sql = '';
	my @columns = $table->{columns} ? @{ $table->{columns} } : @{ $self->{columns}{$resource} };
	if ($name ne $resource)
	{
		my $list = join ', ', map { "$_->[0] $_->[1]" . ($_->[3] ? " OPTIONS ($_->[3])" : '') } @columns;
		my $options = join ', ', "resource '$resource'", map { "$_ '$table->{options}{$_}'" } sort keys %{ $table->{options} // {} };
		$sql = "CREATE FOREIGN TABLE far.$name ($list) SERVER " . ($table->{server} // 'fsm') . " OPTIONS ($options);\n";
	}
	$self->{described}{$name} = { columns => _asked_of(@columns), foreign => 1, key => 'id', weight => $table->{weight}, of => $resource,
		needs => $table->{needs}, slow => ($table->{server} // '') eq 'small_pages' };
	return $sql . $copy->table("near.$name", $resource, $table->{near}, $table->{columns} // [ map { $_->[0] } @columns ]);
}

# The columns a generated query may name. A condition on search_text means what the sandbox makes of it, not a comparison.
sub _asked_of { return [ map { [ @$_[ 0, 1 ] ] } grep { $_->[0] ne 'search_text' } @_ ] }

# Tables made of others, alike in both schemas.
sub _make_sums
{
	my ($self, $schema) = @_;
	my $foreign = $schema eq 'far' ? 'FOREIGN' : '';
	my $columns = join ', ', map { "$_->[0] $_->[1]" } @{ $self->{columns}{tasks} };
	my $sql = "CREATE TABLE $schema.every ($columns); CREATE TABLE $schema.parted ($columns) PARTITION BY LIST (task_type_id);\n";
	for my $table (grep { $_->{of} } @tables)
	{
		$sql .= ($table->{of} eq 'every' ? "ALTER $foreign TABLE $schema.$table->{name} INHERIT $schema.every"
			: "ALTER TABLE $schema.parted ATTACH PARTITION $schema.$table->{name} "
				. ($table->{values} eq 'DEFAULT' ? 'DEFAULT' : "FOR VALUES $table->{values}")) . ";\n";
	}
	$sql .= "CREATE VIEW $schema.view_tasks AS SELECT * FROM $schema.tasks WHERE task_type_id <> 3 OR erp_id IS NULL;
		CREATE VIEW $schema.barrier_tasks WITH (security_barrier) AS SELECT * FROM $schema.tasks WHERE company_id > 4;\n";
	$self->{described}{ $_->{name} } = { columns => _asked_of(@{ $self->{columns}{tasks} }), foreign => 1, key => $_->{key},
		weight => $_->{weight}, of => 'tasks', slow => scalar($_->{name} eq 'every'),
		view => scalar($_->{name} =~ /view|barrier/) } for @sums;
	return $sql . ($schema eq 'near' ? "ANALYZE near.every; ANALYZE near.parted;\n" : '');
}

sub lie
{
	my ($self, $name, $change) = @_;
	my $manifest = $self->_json(q(SELECT manifest FROM hubex.connector WHERE name = 'hubex'));
	$manifest->{connector} = $name;
	$manifest->{resources} = { tasks => $manifest->{resources}{tasks} };
	$change->($manifest->{resources}{tasks}, { map { $_->{name} => $_ } @{ $manifest->{resources}{tasks}{columns} } });
	my $quoted = encode_json($manifest) =~ s/'/''/gr;
	$self->{node}->safe_psql($self->{database}, "INSERT INTO hubex.connector (name, manifest) VALUES ('$name', '$quoted')");
	$self->{node}->start_hubex($self->{sandbox}, database => $self->{database}, server => $name, connector => $name);
	my $columns = join ', ', map { "$_->[0] $_->[1]" } @{ $self->{columns}{tasks} };
	$self->_sql("CREATE SCHEMA $name; CREATE FOREIGN TABLE $name.tasks ($columns) SERVER $name OPTIONS (resource 'tasks')");
	return;
}

sub import_all
{
	my ($self) = @_;
	$self->_sql(q{
		DO $$
		DECLARE
			service text;
		BEGIN
			FOR service IN
				SELECT DISTINCT coalesce(value ->> 'schema', split_part(value ->> 'path', '/', 2))
				FROM hubex.connector, jsonb_each(manifest -> 'resources') WHERE name = 'hubex'
			LOOP
				EXECUTE format('CREATE SCHEMA %I', 'list_' || service);
				EXECUTE format('IMPORT FOREIGN SCHEMA %I FROM SERVER fsm INTO %I', service, 'list_' || service);
			END LOOP;
		END $$});
	return;
}

sub unknown { return @{ $_[0]{unknown} } }

sub described
{
	my ($self) = @_;
	my %described = (%{ $self->{described} },
		keys => { columns => [ [ k => 'bigint' ] ], weight => 1 },
		orders => { columns => [ [ id => 'integer' ], [ erp_id => 'text' ], [ customer => 'text' ], [ task_id => 'bigint' ],
			[ company_id => 'smallint' ], [ asset_id => 'numeric' ], [ placed => 'timestamptz' ] ], weight => 4, key => 'id' });
	my $values = $self->_json('SELECT json_object_agg(name, columns) FROM (' . join(' UNION ALL ', map {
		my $schema = $described{$_}{foreign} ? 'near' : 'here';
		qq{SELECT '$_' AS name, (SELECT json_object_agg(key, texts)
			FROM (SELECT key, json_agg(value ORDER BY value COLLATE "C") AS texts
				FROM (SELECT DISTINCT key, value FROM $schema.$_ t,
					jsonb_each_text(to_jsonb(t)) WHERE jsonb_typeof(to_jsonb(t) -> key) NOT IN ('object', 'array', 'null')) s
				GROUP BY key) s) AS columns} } sort keys %described) . ') s');
	$described{$_}{values} = $values->{$_} for keys %described;
	return \%described;
}

# Records of the kinds that the sandbox's own past lacks: texts that are hard to carry, many at one moment, several with
# one erpID, families, times at the ends of the calendar, empty fields.
sub _fill
{
	my ($copy) = @_;
	my @texts = @Hubex::Queries::Values::texts;
	my @companies = @{ $copy->create('/ES/Companies', [ map { { name => $texts[$_], erpID => $texts[ $_ + 1 ] } } 2 .. 9 ]) };
	my @assets = map { $copy->create('/ES/Assets', { name => $texts[$_] . ' 1', companyID => $companies[ $_ % 5 ], $_ % 2
		? (erpID => $texts[ $_ + 3 ]) : () })->{id} } 2 .. 9;
	my @tasks;
	for my $n (0 .. $#texts)
	{
		my %task = (taskTypeID => $n % 3 + 1, requestMethodID => 4, erpID => $texts[$n]);
		$task{notes} = $texts[ -$n ] if $n % 2;
		$task{number} = $texts[ ($n + 5) % @texts ] if $n % 3 && length $texts[ ($n + 5) % @texts ];
		$task{contactPerson} = $texts[ ($n + 9) % @texts ] if $n % 4 == 1;
		$task{companyID} = $companies[ $n % @companies ] if $n % 5;
		$task{assetID} = $assets[ $n % @assets ] if $n % 4 == 2;
		$task{parentID} = $tasks[ $n % 4 ] // 1003 if $n % 6 == 5;
		$task{deadline} = ('2025-05-15T12:34:56.789012', '9999-12-31T23:59:59', '0001-01-01T00:00:00', '2025-03-30T02:30:00.5',
			'2025-04-01T00:00:00Z')[ $n / 3 % 5 ] if $n % 3 == 0;
		push @tasks, $copy->create('/WORK/Tasks', \%task)->{id};
	}
	# One key twice; empty but for what is required.
	push @tasks, $copy->create('/WORK/Tasks', { taskTypeID => 2, requestMethodID => 4, erpID => $_ })->{id} for q(O'Hara & Sons),
		q(O'Hara & Sons), 'ORD-2025-000003';
	$copy->create('/WORK/Tasks', { taskTypeID => 1, requestMethodID => 4 });
	$copy->remove("/WORK/Tasks/$_") for $tasks[7], $tasks[20], $tasks[-1];
	$copy->remove("/ES/Assets/$assets[1]");
	$copy->remove("/ES/Companies/$companies[2]");
}

1;
