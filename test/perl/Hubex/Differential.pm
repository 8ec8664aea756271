package Hubex::Differential;

=head1 NAME

Hubex::Differential - the same queries over foreign tables and over local copies of them

=head1 SYNOPSIS

	my $differential = Hubex::Differential->new($node, $sandbox);
	my $report = $differential->run([ map { $queries->query($_) } 1 .. 100 ]);
	is_deeply($report->{differences}, [], 'no query gives other rows');

=head1 DESCRIPTION

Each query is run as it stands with two search paths: schema C<far> has foreign tables, C<near> ordinary tables of the
same names. All comparing happens in the server, so that thousands of queries fit into a minute: C<diff.ask> runs a
query in one of several ways and keeps its rows as texts, C<diff.judge> compares what was kept and writes down only
what differs.

A query says what of its result is fixed:

=over

=item C<rows>, and nothing else: the rows, in any order

=item C<total>: the rows and their order

=item C<keys>: as many sort keys, in columns k1, k2..., whose order is fixed; the order of rows with equal keys is not

=item C<near>: what is to be run over the local copies, where it is not the same

=item C<all>: the query without its LIMIT; which of its rows are given is not fixed, but their number is, and their keys

=back

An error is a result like any other: all sides have to fail with the same SQLSTATE.

=cut

use strict;
use utf8;
use warnings;

use Carp qw(croak);
use Encode qw(decode encode);
use File::Temp;
use JSON::PP;
use Time::HiRes qw(time);

=head1 METHODS

=head2 new($node, $database)

The functions of the comparison, in a database that is there.

=head2 run(\@queries, far => 'far')

Runs them in one session. The answer is a hash: C<differences> is a list of texts, ready to be shown; C<sides> how many
answers differ, with pushdown (C<on>) and without (C<off>); C<rows> how many
rows the local copies gave, C<failed> how many queries failed there, C<empty> how many gave no row, C<seconds> what it
took in all, and C<slowest> the number of the query that took longest.

=head2 sweep($values)

All conditions of the simplest kinds on each column of each list that has no parent and is imported
(L<Hubex::Queries::Tables>), with so many of its values, with pushdown against without. The answer is a hash: C<differences>, a list of texts;
C<queries>, how many there were.

=cut

my $functions = do { local $/; <DATA> };

sub new
{
	my ($class, $node, $database) = @_;
	$node->safe_psql($database, $functions);
	my $has_pushdown = $node->safe_psql($database, q(LOAD 'hubex'; SELECT count(*) FROM pg_settings WHERE name = 'hubex.pushdown'));
	return bless { node => $node, database => $database, sides => $has_pushdown ? [qw(on off)] : ['on'], pushdown => $has_pushdown }, $class;
}

sub has_pushdown { return $_[0]{pushdown} }

sub run
{
	my ($self, $queries, %option) = @_;
	my $far = $option{far} // 'far';
	my $started = time;
	$self->{node}->safe_psql($self->{database}, 'TRUNCATE diff.found, diff.judged');
	my $output = $self->_psql(join '', _prologue(), map { $self->_script($_, $far) } @$queries);

	my %by_number = map { $_->{number} => $_ } @$queries;
	if ($output =~ /(?:server closed the connection|connection to server was lost)/)
	{
		my ($last) = $` =~ /.*^\@(\d+)$/ms;
		delete $self->{node}{_pid};    # there is nothing to stop any more
		return { differences => [ _describe($by_number{$last}, "the server has crashed:\n$output" =~ s/.*^(?=\@$last$)//msr,
			$self->_script($by_number{$last}, $far)) ],
			sides => { on => 1 }, crashed => 1, seconds => time - $started, rows => 0, failed => 0, empty => 0, slowest => [] };
	}
	my $found = decode_json($self->{node}->safe_psql($self->{database}, q(
		SELECT json_build_object(
			'found', (SELECT coalesce(json_agg(f ORDER BY number, side, part), '[]') FROM diff.found f),
			'judged', (SELECT coalesce(json_agg(number), '[]') FROM diff.judged),
			'rows', (SELECT coalesce(sum(rows), 0) FROM diff.judged),
			'failed', (SELECT count(*) FROM diff.judged WHERE failed),
			'empty', (SELECT count(*) FROM diff.judged WHERE rows = 0 AND NOT failed),
			'slowest', (SELECT json_agg(s) FROM (SELECT number || ': '
				|| round(extract(epoch FROM took), 2) AS s FROM diff.judged ORDER BY took DESC LIMIT 8) t)))));

	# What psql printed is an error outside of what is caught, under the number of its query.
	my (%printed, %judged);
	my $number = 0;
	for my $line (split /\n/, $output)
	{
		if ($line =~ /^\@(\d+)$/) { $number = $1 }
		elsif ($line =~ /\S/) { push @{ $printed{$number} }, $line }
	}
	$judged{$_} = 1 for @{ $found->{judged} };
	my @differences;
	my (%reported, %sides);
	for my $difference (@{ $found->{found} })
	{
		$sides{ $difference->{side} }++;
		next if $reported{ $difference->{number} }++;
		my $query = $by_number{ $difference->{number} };
		push @differences, _describe($query, "$difference->{side}, execution $difference->{part}: $difference->{problem}",
			$self->_script($query, $far));
	}
	for my $query (grep { !$judged{ $_->{number} } && !$reported{ $_->{number} } } @$queries)
	{
		push @differences, _describe($query, join("\n", 'not judged:', @{ $printed{ $query->{number} } // ['(nothing was printed)'] }),
			$self->_script($query, $far));
	}
	return {
		differences => \@differences,
		sides => \%sides,
		seconds => time - $started,
		(map { $_ => $found->{$_} } qw(rows failed empty slowest)) };
}

sub sweep
{
	my ($self, $values) = @_;
	return decode_json($self->{node}->safe_psql($self->{database}, qq(
		SET statement_timeout = 0;
		WITH swept AS (SELECT * FROM diff.sweep($values))
		SELECT json_build_object(
			'queries', (SELECT count(*) FROM swept),
			'differences', (SELECT coalesce(json_agg(query || ': ' || problem), '[]') FROM swept WHERE problem IS NOT NULL)))));
}

# A session of psql with the script; what it printed.
sub _psql
{
	my ($self, $script) = @_;
	my $file = File::Temp->new(SUFFIX => '.sql');
	print {$file} encode('UTF-8', $script);
	close $file;
	my $connection = $self->{node}->connstr($self->{database});
	open my $psql, '-|', "psql -XAtq -v VERBOSITY=verbose -v SHOW_CONTEXT=never -d '$connection' -f '$file' 2>&1" or croak "psql: $!";
	my $output = do { local $/; <$psql> } // '';
	close $psql;
	return decode('UTF-8', $output);
}

sub _prologue { return "SET client_encoding = 'UTF8';\nCREATE TEMP TABLE answer (LIKE diff.kept INCLUDING DEFAULTS);\n" }

# The statements that run one query on all sides and compare.
sub _script
{
	my ($self, $query, $far) = @_;
	my @set = map { "SET $_;" } @{ $query->{settings} };
	my $path = $query->{path} // 'here';
	my $script = "\\echo \@$query->{number}\nRESET ALL;\n" . join('', map { "$_\n" } @set)
		. "SET search_path = near, $path;\nINSERT INTO answer VALUES ('start');\n"
		. $self->_ask('near', $query, $query->{near} // $query->{sql});
	$script .= $self->_ask('all', $query, $query->{all}) if defined $query->{all};
	$script .= "SET search_path = $far, $path;\n";
	for my $side (@{ $self->{sides} })
	{
		$script .= "SET hubex.pushdown = $side;\n" if $self->{pushdown};
		$script .= $self->_ask($side, $query, $query->{sql});
	}
	return $script . sprintf "SELECT diff.judge(%d, %s, %s, %s);\n", $query->{number}, $query->{total} ? 'true' : 'false',
	  $query->{keys} ? 'true' : 'false', defined $query->{all} ? 'true' : 'false';
}

sub _ask
{
	my ($self, $side, $query, $sql) = @_;
	my $keys = $query->{keys} // 0;
	my @arguments = @{ $query->{arguments} };
	# With generic plans out of the way, every execution of a prepared statement is planned alike.
	@arguments = @arguments[ 0 .. 1 ] if $side eq 'off' && @arguments > 2;
	return "DECLARE diff_c CURSOR WITH HOLD FOR $sql;\nSELECT diff.take('$side', 'diff_c', $query->{fetch}, $keys);\nCLOSE diff_c;\n"
	  if $query->{way} eq 'hold';
	return sprintf "SELECT diff.ask('%s', '%s', \$sql\$%s\$sql\$, %d, %d, '%s', ARRAY[%s]::text[]);\n", $side, $query->{way}, $sql, $keys,
	  $query->{fetch}, join(', ', @{ $query->{types} }), join(', ', map { "\$sql\$$_\$sql\$" } @arguments);
}

sub _describe
{
	my ($query, $problem, $script) = @_;
	$problem = substr($problem, 0, 2000) . ' ...' if length $problem > 2100;
	return encode("UTF-8", "query $query->{number} ($query->{shape}, $query->{way}): $problem\n$script");
}

1;

__DATA__
CREATE SCHEMA diff;
-- What a side answered: one row for each execution of the query.
CREATE TABLE diff.kept (side text, part int, rows text[], keys text[], failure text, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE diff.found (number int, side text, part int, problem text);
CREATE TABLE diff.judged (number int, rows bigint, failed bool, took interval);

-- Runs a statement and keeps its rows as they come; keys only where there are some.
CREATE FUNCTION diff.collect(statement text, nkeys int, OUT rows text[], OUT keys text[]) LANGUAGE plpgsql AS $$
DECLARE
	row record;
	fields jsonb;
BEGIN
	rows := '{}';
	keys := '{}';
	FOR row IN EXECUTE statement LOOP
		rows := array_append(rows, row::text);
		IF nkeys > 0 THEN
			fields := to_jsonb(row);
			keys := array_append(keys, jsonb_build_array(fields -> 'k1', fields -> 'k2', fields -> 'k3', fields -> 'k4')::text);
		END IF;
	END LOOP;
END $$;

-- The same, kept as one execution of a side, be it an error.
CREATE FUNCTION diff.attempt(side text, part int, statement text, nkeys int, has_keys bool) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	got record;
BEGIN
	got := diff.collect(statement, nkeys);
	INSERT INTO answer VALUES (side, part, got.rows, CASE WHEN has_keys THEN got.keys END, NULL);
EXCEPTION WHEN OTHERS THEN
	INSERT INTO answer VALUES (side, part, '{}', CASE WHEN has_keys THEN '{}'::text[] END, SQLSTATE || ' ' || SQLERRM);
END $$;

-- All rows of a cursor, so many at a time.
CREATE FUNCTION diff.drain(cursor text, step int, nkeys int, OUT rows text[], OUT keys text[]) LANGUAGE plpgsql AS $$
DECLARE
	got record;
BEGIN
	rows := '{}';
	keys := '{}';
	LOOP
		got := diff.collect(format('FETCH %s FROM %s', step, cursor), nkeys);
		rows := rows || got.rows;
		keys := keys || got.keys;
		EXIT WHEN cardinality(got.rows) = 0;
	END LOOP;
END $$;

CREATE FUNCTION diff.take(side text, cursor text, step int, nkeys int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	got record := diff.drain(cursor, step, nkeys);
BEGIN
	INSERT INTO answer VALUES (side, 1, got.rows, got.keys, NULL);
END $$;

-- Runs a query in one of several ways and keeps what it answers, be it an error.
CREATE FUNCTION diff.ask(side text, way text, query text, nkeys int, step int, types text, arguments text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	got record;
	got2 record;
	part int := 0;
	argument text;
BEGIN
	CASE way
		WHEN 'plain' THEN
			PERFORM diff.attempt(side, 1, query, nkeys, true);
		WHEN 'explained' THEN
			EXECUTE 'EXPLAIN (VERBOSE, ANALYZE, BUFFERS) ' || query;
			PERFORM diff.attempt(side, 1, query, nkeys, true);
		WHEN 'subquery' THEN
			PERFORM diff.attempt(side, 1, format('SELECT unnest(array_agg(q::text)) FROM (%s) q', query), 0, nkeys = 0);
		WHEN 'cursor' THEN
			EXECUTE 'DECLARE diff_c CURSOR FOR ' || query;
			got := diff.drain('diff_c', step, nkeys);
			INSERT INTO answer VALUES (side, 1, got.rows, got.keys, NULL);
			EXECUTE 'CLOSE ALL';
		WHEN 'scroll' THEN      -- and once more from the start, after a look backwards
			EXECUTE 'DECLARE diff_c SCROLL CURSOR FOR ' || query;
			PERFORM diff.collect(format('FETCH %s FROM diff_c', step), 0);
			PERFORM diff.collect(format('FETCH BACKWARD %s FROM diff_c', step), 0);
			EXECUTE 'MOVE ABSOLUTE 0 FROM diff_c';
			got := diff.drain('diff_c', step, nkeys);
			EXECUTE 'MOVE ABSOLUTE 0 FROM diff_c';
			got2 := diff.drain('diff_c', 50, nkeys);
			INSERT INTO answer VALUES (side, 1, got.rows, got.keys, NULL), (side, 2, got2.rows, got2.keys, NULL);
			EXECUTE 'CLOSE ALL';
		WHEN 'pair' THEN        -- two cursors at once, the second begun in the middle of the first
			EXECUTE 'DECLARE diff_c CURSOR FOR ' || query;
			got := diff.collect(format('FETCH %s FROM diff_c', step), nkeys);
			EXECUTE 'DECLARE diff_d CURSOR FOR ' || query;
			got2 := diff.collect('FETCH 1 FROM diff_d', nkeys);
			WHILE cardinality(got2.rows) > 0 LOOP
				INSERT INTO answer VALUES (side, 1, got.rows, got.keys, NULL), (side, 2, got2.rows, got2.keys, NULL);
				got := diff.collect(format('FETCH %s FROM diff_c', step), nkeys);
				got2 := diff.collect(format('FETCH %s FROM diff_d', step + 1), nkeys);
			END LOOP;
			INSERT INTO answer VALUES (side, 1, got.rows, got.keys, NULL), (side, 2, '{}', '{}', NULL);
			got := diff.drain('diff_c', step, nkeys);
			INSERT INTO answer VALUES (side, 1, got.rows, got.keys, NULL);
			EXECUTE 'CLOSE ALL';
			PERFORM diff.merge(side);
		WHEN 'prepared' THEN
			EXECUTE format('PREPARE diff_p %s AS %s', nullif('(' || types || ')', '()'), query);
			FOREACH argument IN ARRAY arguments LOOP
				part := part + 1;
				PERFORM diff.attempt(side, part, format('EXECUTE diff_p %s', nullif('(' || argument || ')', '()')), nkeys, true);
			END LOOP;
			DEALLOCATE diff_p;
		WHEN 'function' THEN    -- a query of PL/pgSQL's own, whose parameters are the executor's
			EXECUTE format('CREATE OR REPLACE FUNCTION pg_temp.diff_f(%s) RETURNS SETOF text LANGUAGE plpgsql AS $f$
				DECLARE r record; BEGIN FOR r IN %s LOOP RETURN NEXT r::text; END LOOP; END $f$', types, query);
			FOREACH argument IN ARRAY arguments LOOP
				part := part + 1;
				PERFORM diff.attempt(side, part, format('SELECT f FROM pg_temp.diff_f(%s) f', argument), 0, nkeys = 0);
			END LOOP;
			EXECUTE format('DROP FUNCTION pg_temp.diff_f(%s)', types);
	END CASE;
EXCEPTION WHEN OTHERS THEN
	IF EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'diff_p') THEN
		DEALLOCATE diff_p;
	END IF;
	INSERT INTO answer VALUES (side, 1, '{}', '{}', SQLSTATE || ' ' || SQLERRM);
END $$;

-- Puts the pieces of an execution together again, in the order they came in.
CREATE FUNCTION diff.merge(merged text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WITH pieces AS (DELETE FROM answer WHERE side = merged RETURNING *)
	INSERT INTO answer
	SELECT merged, part,
		ARRAY(SELECT unnest(rows) FROM (SELECT rows FROM pieces q WHERE q.part = p.part ORDER BY at) o),
		ARRAY(SELECT unnest(keys) FROM (SELECT keys FROM pieces q WHERE q.part = p.part ORDER BY at) o), NULL
	FROM pieces p GROUP BY part;
END $$;

CREATE FUNCTION diff.sorted(texts text[]) RETURNS text[] LANGUAGE sql AS $$
	SELECT array_agg(t ORDER BY t COLLATE "C") FROM unnest(texts) t
$$;

-- What two answers differ in, or NULL.
CREATE FUNCTION diff.problem(given diff.kept, wanted diff.kept, everything diff.kept, is_total bool, has_keys bool) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	too_much text[];
	too_little text[];
BEGIN
	IF wanted.side IS NULL THEN
		RETURN 'the local copies gave no answer';
	ELSIF left(given.failure, 5) IS DISTINCT FROM left(wanted.failure, 5) THEN
		RETURN format('failed with %s, the local copies with %s', coalesce(given.failure, 'nothing'), coalesce(wanted.failure, 'nothing'));
	ELSIF everything.side IS NULL AND is_total AND given.rows = wanted.rows
		OR everything.side IS NULL AND NOT is_total AND diff.sorted(given.rows) IS NOT DISTINCT FROM diff.sorted(wanted.rows)
		OR everything.side IS NOT NULL AND cardinality(given.rows) = cardinality(wanted.rows)
			AND NOT EXISTS (SELECT unnest(given.rows) EXCEPT ALL SELECT unnest(everything.rows))
	THEN
		IF has_keys AND given.keys IS DISTINCT FROM wanted.keys THEN
			RETURN format('same rows, but their keys are %s instead of %s', left(given.keys::text, 700), left(wanted.keys::text, 700));
		END IF;
		RETURN NULL;
	ELSIF everything.side IS NULL AND diff.sorted(given.rows) IS NOT DISTINCT FROM diff.sorted(wanted.rows) THEN
		RETURN format('same rows, but their order is %s instead of %s', left(given.rows::text, 700), left(wanted.rows::text, 700));
	END IF;
	too_much := ARRAY(SELECT unnest(given.rows) EXCEPT ALL SELECT unnest(coalesce(everything.rows, wanted.rows)));
	too_little := ARRAY(SELECT unnest(wanted.rows) EXCEPT ALL SELECT unnest(given.rows));
	RETURN format('%s rows instead of %s; too much: %s; missing: %s', cardinality(given.rows), cardinality(wanted.rows),
		left(too_much::text, 700), CASE WHEN everything.side IS NULL THEN left(too_little::text, 700) ELSE 'any' END);
END $$;

-- Compares the sides and forgets them. Wherever a query runs more than once, all executions count.
CREATE FUNCTION diff.judge(n int, is_total bool, has_keys bool, has_all bool) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	given diff.kept;
	wanted diff.kept;
	everything diff.kept;
	complaint text;
BEGIN
	FOR given IN SELECT * FROM answer WHERE side IN ('on', 'off') ORDER BY side DESC, part LOOP
		SELECT * INTO wanted FROM answer WHERE side = 'near' AND part = given.part;
		SELECT * INTO everything FROM answer WHERE side = 'all' AND part = given.part AND has_all;
		complaint := diff.problem(given, wanted, everything, is_total, has_keys);
		IF complaint IS NOT NULL THEN
			INSERT INTO diff.found VALUES (n, given.side, given.part, complaint);
		END IF;
	END LOOP;
	-- None at all: a statement that no side could run.
	IF (SELECT count(DISTINCT side) FROM answer WHERE side IN ('on', 'near')) <> 1 THEN
		INSERT INTO diff.judged SELECT n, sum(cardinality(rows)) FILTER (WHERE side = 'near'),
			coalesce(bool_or(failure IS NOT NULL) FILTER (WHERE side = 'near'), true), clock_timestamp() - min(at) FROM answer;
	END IF;
	DELETE FROM answer;
END $$;

-- What a query gives with pushdown that it does not give without.
CREATE FUNCTION diff.on_against_off(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	rows text[] := '{}';
	got text[];
BEGIN
	FOR side IN 0 .. 1 LOOP
		PERFORM set_config('hubex.pushdown', (ARRAY['on', 'off'])[side + 1], true);
		BEGIN
			EXECUTE format('SELECT array_agg(q::text ORDER BY q::text COLLATE "C") FROM (%s) q', query) INTO got;
		EXCEPTION WHEN OTHERS THEN
			got := ARRAY[SQLSTATE, SQLERRM];
		END;
		rows := rows || coalesce(got::text, 'no rows');
	END LOOP;
	RETURN CASE WHEN rows[1] <> rows[2] THEN format('%s instead of %s', left(rows[1], 500), left(rows[2], 500)) END;
END $$;

CREATE FUNCTION diff.sweep(nvalues int) RETURNS TABLE (query text, problem text) LANGUAGE plpgsql AS $$
DECLARE
	list record;
	col record;
	everything text;
	found text[];
	condition text;
	conditions text[];
	item text;
BEGIN
	FOR list IN
		SELECT format('%I.%I', 'list_' || coalesce(value ->> 'schema', split_part(value ->> 'path', '/', 2)),
			coalesce(value ->> 'table', key)) AS name, value
		FROM hubex.connector, jsonb_each(manifest -> 'resources')
		WHERE connector.name = 'hubex' AND NOT value ? 'parent' ORDER BY 1
	LOOP
		-- raw of one record that came by itself shows more.
		everything := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = list.name::regclass AND attnum > 0 AND NOT (attname = 'raw' AND list.value ? 'one'));
		FOR col IN
			SELECT quote_ident(value ->> 'name') AS name, value ->> 'type' AS type FROM jsonb_array_elements(list.value -> 'columns')
			WHERE (value ? 'filter' OR value ->> 'path' = '@key') AND value ->> 'path' <> '@filter'
		LOOP
			PERFORM set_config('hubex.pushdown', 'off', true);
			EXECUTE format('SELECT coalesce(array_agg(v), ''{}'')
				FROM (SELECT DISTINCT %1$s::text AS v FROM %2$s WHERE %1$s IS NOT NULL ORDER BY 1 LIMIT %3$s) s', col.name, list.name, nvalues) INTO found;
			conditions := ARRAY[col.name || ' IS NULL', col.name || ' IS NOT NULL'];
			IF col.type = 'boolean' THEN
				conditions := conditions || ARRAY[col.name, 'NOT ' || col.name, col.name || ' IS NOT TRUE', col.name || ' IS FALSE', col.name || ' = true'];
			ELSIF col.type LIKE 'timestamp%' THEN
				conditions := conditions || ARRAY(SELECT format('%s %s %L', col.name, operator, v)
					FROM unnest(found) v, unnest(ARRAY['=', '>=', '<', '>']) operator);
			ELSE
				found := found || CASE col.type WHEN 'text' THEN ARRAY['no such'] WHEN 'uuid' THEN ARRAY[gen_random_uuid()::text] ELSE ARRAY['987654'] END;
				conditions := conditions || ARRAY(SELECT format('%s = %L', col.name, v) FROM unnest(found) v)
					|| format('%s IN (%s)', col.name, (SELECT string_agg(quote_literal(v), ', ') FROM unnest(found) v));
			END IF;
			FOREACH condition IN ARRAY conditions LOOP
				FOREACH item IN ARRAY ARRAY[everything, 'count(*)', col.name] LOOP
					query := format('SELECT %s FROM %s WHERE %s', item, list.name, condition);
					problem := diff.on_against_off(query);
					query := replace(query, everything, '...');
					RETURN NEXT;
				END LOOP;
			END LOOP;
		END LOOP;
	END LOOP;
END $$;
