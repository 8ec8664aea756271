# What was read is applied to a mirror: rows that differ and no others, what is newer and not what came later, each change
# once for the triggers; deleted, marked or left alone; values cast, dropped or refused; to tables of any make.

use strict;
use utf8;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 700, assets => 10);
my $node = Hubex::Node->new('main', autovacuum => 'off');
$node->start_hubex($sandbox);
my $client = Hubex::Client->new($node);
$client->query(q(SET hubex.max_requests_per_query = 0;
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	CREATE TABLE log (n integer GENERATED ALWAYS AS IDENTITY, mirror name, op text, level text, id text, syncing boolean, role name, path text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE
			id text := CASE WHEN TG_LEVEL = 'ROW' THEN to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END) ->> 'id' END;
		BEGIN
			INSERT INTO public.log (mirror, op, level, id, syncing, role, path)
				VALUES (TG_TABLE_NAME, TG_OP, TG_LEVEL, id, public.hubex_is_syncing(), current_user, current_setting('search_path'));
			RETURN NULL;
		END $$;
));
my @alive = map { $_->{id} } sort { $a->{id} <=> $b->{id} } grep { !$_->{deleted} } @{ $sandbox->tasks };
my $dead = grep { $_->{deleted} } @{ $sandbox->tasks };
my $narrow = 'id bigint PRIMARY KEY, number text, notes text, last_modified timestamptz, synced_at timestamptz';

# A table, its subscription and what its triggers note.
sub mirror
{
	my ($name, $columns, %option) = @_;
	my $table = delete $option{table} // 'fsm.tasks';
	my $quiet = delete $option{quiet};
	my $after = delete $option{after} // '';
	$client->query("CREATE TABLE $name ($columns) $after");
	watch($name) unless $quiet;
	my %argument = (every => undef, %option);
	my $arguments = join '', map { ", \"$_\" => " . (defined $argument{$_} ? "\$q\$$argument{$_}\$q\$" : 'NULL') } sort keys %argument;
	$client->query("SELECT hubex_subscribe('$name', '$table', '$name'$arguments)");
	return;
}

sub watch
{
	my ($name) = @_;
	$client->query("CREATE TRIGGER note_row AFTER INSERT OR UPDATE OR DELETE ON $name FOR EACH ROW EXECUTE FUNCTION note();
		CREATE TRIGGER note_statement AFTER INSERT OR UPDATE OR DELETE ON $name FOR EACH STATEMENT EXECUTE FUNCTION note()");
	return;
}

# Synchronises: what was inserted, updated, deleted and unchanged, as a text; or the error. The first time, by the full
# reading, behind which comes an incremental one.
sub sync
{
	my ($name, $mode, $session) = @_;
	$client->query('TRUNCATE log');
	return told(($session // $client)->try("CALL hubex_sync('$name'" . (defined $mode ? ", '$mode'" : '') . ')'));
}

sub told
{
	my ($answer) = @_;
	return "$answer->{sqlstate} $answer->{message}" . ($answer->{detail} ? "\n$answer->{detail}" : '') if defined $answer->{error};
	my @counts = $answer->{notices} =~ /^NOTICE: .*: (\d+) inserted, (\d+) updated, (\d+) deleted, (\d+) unchanged;/m;
	return join ' ', @counts;
}

sub rows { return $client->query("SELECT * FROM $_[0]") }

sub change { return map { $_->{lastModified} } @{ $sandbox->orders(map { { list => 'tasks', %$_ } } @_) } }

sub noted { return $client->query(q(SELECT string_agg(concat_ws(' ', op, level, id), ', ' ORDER BY n) FROM log)) }

# A mirror and what it is of have the same in these columns; "mirror's = foreign table's; ..."
sub in_step
{
	my ($name, $what, $columns, $where) = @_;
	$columns //= join '; ', split /\n/, $client->query("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = '$name'::regclass
		AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('synced_at', 'own')");
	my $here = join ', ', map { (split / = /, $_, 2)[0] } split /; /, $columns;
	my $there = join ', ', map { (split / = /, $_, 2)[-1] } split /; /, $columns;
	$where = $where ? "WHERE $where" : '';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("SELECT count(*) FROM ((SELECT $here FROM $name EXCEPT ALL SELECT $there FROM fsm.tasks $where)
		UNION ALL (SELECT $there FROM fsm.tasks $where EXCEPT ALL SELECT $here FROM $name)) d"), 0, $what);
	return;
}

#
# What does not differ is not touched; what does fires the triggers once
#
{
	mirror('m', $narrow);
	is(sync('m'), sprintf('%d 0 0 %d', scalar @alive, $dead), 'the first time, all that is alive is inserted');
	in_step('m', '... as it is');
	is($client->query(q(SELECT count(*) || ' ' || count(DISTINCT id) FROM log WHERE level = 'ROW' AND op = 'INSERT')),
		@alive . ' ' . @alive, '... and each row fires its trigger once');
	my $versions = $client->query(q(SELECT md5(string_agg(concat_ws(' ', id, ctid, xmin, xmax, synced_at), ',' ORDER BY id)) FROM m));
	for my $mode (qw(full incremental full))
	{
		like(sync('m', $mode), qr/^0 0 0 /, "nothing is new: $mode");
		is(noted() . $client->query(q(SELECT md5(string_agg(concat_ws(' ', id, ctid, xmin, xmax, synced_at), ',' ORDER BY id)) FROM m)), $versions,
			'... and no row is written or locked, no trigger fired');
	}

	change((map { { kind => 'change', id => $_, fields => { notes => "first $_" } } } @alive[ 0 .. 2 ]),
		{ kind => 'delete', id => $alive[3] }, { kind => 'touch', id => $alive[4] });
	like(sync('m', 'incremental'), qr/^0 4 1 /, 'three are changed, one is touched, one deleted');
	is(noted(), join(', ', "DELETE ROW $alive[3]", 'DELETE STATEMENT', (map { "UPDATE ROW $_" } @alive[ 0 .. 2, 4 ]), 'UPDATE STATEMENT'),
		'... each fires its trigger once, each kind its statement\'s');
	is($client->query(q(SELECT string_agg(DISTINCT concat_ws(' ', syncing, role = current_user, path), ';') FROM log)),
		't t pg_catalog, pg_temp', '... which know that it is a synchronisation, and run as the owner');
	in_step('m', '... as it is');
	like(sync('m', 'incremental'), qr/^0 0 0 /, 'the overlap brings them again');
	is(noted(), '', '... for nothing');

	change({ kind => 'restore', id => $alive[3] });
	like(sync('m', 'incremental'), qr/^1 0 0 /, 'a restored one');
	is(noted(), "INSERT ROW $alive[3], INSERT STATEMENT", '... is inserted again');
	is($client->query('SELECT hubex_is_syncing()'), 'f', 'a statement of one\'s own is no synchronisation');
	$client->query("TRUNCATE log; UPDATE m SET number = number || '!' WHERE id = $alive[5]");
	is($client->query('SELECT syncing FROM log WHERE level = \'ROW\''), 'f', '... nor is what a trigger of it sees');
	like(sync('m', 'full'), qr/^0 1 0 /, 'what was changed here is put right');
}

# what a trigger does for a change belongs to it
{
	mirror('chain', $narrow, quiet => 1);
	$client->query(q(CREATE TABLE behind (id bigint); CREATE TRIGGER note_row AFTER INSERT ON behind FOR EACH ROW EXECUTE FUNCTION note();
		CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.behind VALUES (NEW.id); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER forward AFTER INSERT ON chain DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION forward()));
	like(sync('chain'), qr/^\d+ 0 0 /, 'a trigger writes to another table, deferred as it may be');
	is($client->query(q(SELECT concat_ws(' ', count(*), bool_and(syncing), bool_and(role = 'postgres'), min(path)) FROM log)),
		@alive . ' t t pg_catalog, pg_temp', '... and that is the synchronisation\'s, too');
}

# triggers have the last word
{
	mirror('wilful', "$narrow, seen integer DEFAULT 0", quiet => 1);
	$client->query(q(CREATE FUNCTION wilful() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF TG_OP = 'INSERT' AND NEW.id % 3 = 0 THEN RETURN NULL; END IF;
			IF TG_OP = 'UPDATE' AND NEW.seen > OLD.seen THEN RETURN NEW; END IF;
			IF TG_OP = 'UPDATE' AND NEW.id % 3 = 1 THEN RETURN NULL; END IF;
			IF TG_OP = 'DELETE' THEN
				UPDATE public.wilful SET seen = seen + 1 WHERE id = OLD.id;
				RETURN NULL;
			END IF;
			NEW.number := 'No. ' || NEW.number;
			RETURN NEW;
		END $$;
		CREATE TRIGGER wilful BEFORE INSERT OR UPDATE OR DELETE ON wilful FOR EACH ROW EXECUTE FUNCTION wilful()));
	my @kept = grep { $_ % 3 } @alive;
	is(sync('wilful'), @kept . ' 0 0 ' . ($dead + @alive - @kept), 'a trigger lets no INSERT of some rows happen');
	is($client->query(q(SELECT count(*) FROM wilful WHERE number LIKE 'No. %')), scalar @kept, '... and changes the others');
	is(sync('wilful', 'full'), sprintf('0 %d 0 %d', scalar(grep { $_ % 3 == 2 } @alive), $dead + grep { $_ % 3 != 2 } @alive),
		'it lets no UPDATE of some happen, and no run goes on for ever');
	my ($gone) = grep { $_ % 3 == 2 } @alive[ 10 .. 20 ];
	change({ kind => 'delete', id => $gone });
	like(sync('wilful', 'incremental'), qr/^0 \d+ 0 /, 'it makes an UPDATE of a DELETE');
	is($client->query("SELECT seen FROM wilful WHERE id = $gone"), 1, '... once');
	change({ kind => 'restore', id => $gone });
}

#
# What is newer
#
{
	my ($later, $gone) = @alive[ 30, 31 ];
	like(sync('m', 'incremental'), qr/^\d+ \d+ \d+ /, 'in step');
	my $slow = Hubex::Client->new($node);
	for my $skew (0, -7200)
	{
		# of a full reading the list is answered, but arrives late; meanwhile it changes
		$sandbox->clear_journal;
		$client->query('TRUNCATE log');
		$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'delay', seconds => 4, times => 1);
		$slow->send(q(CALL hubex_sync('m', 'full')));
		eventually { @{ $sandbox->journal(path => '/WORK/Tasks') } == 1 } 'a full reading has asked' . ($skew ? ', and a clock goes wrong' : '');
		$sandbox->config(modified_skew => $skew);
		change({ kind => 'change', id => $later, fields => { notes => "later $skew" } }, { kind => 'delete', id => $gone });
		my $answer = $client->try(q(CALL hubex_sync('m', 'incremental')));
		is($answer->{error}, undef, '... an incremental run goes on beside it');
		my $seen = noted();
		is(told($slow->answer), sprintf('0 0 0 %d', @alive + $dead), '... which ends later, and writes nothing');
		is(noted(), $seen, '... so no trigger fires');
		is($client->query("SELECT count(*) FILTER (WHERE id = $gone) || ' ' || max(notes) FILTER (WHERE id = $later) FROM m"),
			$skew ? '1 later 0' : '0 later 0', '... no older text, none that was deleted, as far as that is known');
		$sandbox->config(modified_skew => 0);
		$client->query(q(CALL hubex_sync('m', 'full')));
		in_step('m', '... and in the end all is as it is, whatever the clock said');
		change({ kind => 'restore', id => $gone });
		$client->query(q(CALL hubex_sync('m', 'incremental')));
	}
	is($client->query('SELECT count(*) FROM hubex.tombstone'), 0, 'nothing is left to remember');

	# of an incremental run the answer is late; meanwhile a full reading finds that a record is gone, and ends
	mirror('late_mark', "$narrow, deleted timestamptz", deletes => 'mark', columns => '["id", "number", "notes", "last_modified"]');
	like(sync('late_mark'), qr/^\d+ 0 0 /, 'in step');
	for my $name (qw(m late_mark))
	{
		my $erased = splice @alive, 34, 1;
		change({ kind => 'change', id => $erased, fields => { notes => 'last words' } });
		$sandbox->clear_journal;
		$client->query('TRUNCATE log');
		$sandbox->fault(method => 'GET', path => '/WORK/Tasks', query => '*lastModifiedFrom*', fault => 'delay', seconds => 3, times => 1);
		$slow->send("CALL hubex_sync('$name', 'incremental')");
		eventually { @{ $sandbox->journal(path => '/WORK/Tasks') } == 1 } "'$name': an incremental run has asked";
		change({ kind => 'erase', id => $erased });
		$client->query("CALL hubex_sync('$name', 'full')");
		my $seen = noted();
		is($client->query("SELECT count(*) FROM $name WHERE id = $erased" . ($name eq 'm' ? '' : ' AND deleted IS NULL')), 0,
			'... a full reading finds that what it asked for is gone');
		like($seen, qr/(?:UPDATE|DELETE) ROW $erased\b/, '... and says so');
		is($slow->answer->{error}, undef, '... the answer comes');
		is($client->query("SELECT count(*) FROM $name WHERE id = $erased" . ($name eq 'm' ? '' : ' AND deleted IS NULL')), 0, '... and brings nothing back');
		is($client->query("SELECT count(*) FROM log WHERE id = '$erased' AND level = 'ROW'"), () = $seen =~ /ROW $erased\b/g, '... not even for a moment');
	}
	$client->query(q(CALL hubex_sync('m', 'full'); CALL hubex_sync('m', 'incremental')));
	is($client->query('SELECT count(*) FROM hubex.tombstone'), 0, 'nothing is left to remember');
	$slow->end;
}

#
# Deletes
#
{
	my $marked = 'id bigint PRIMARY KEY, number text, notes text';
	my ($one, $two) = @alive[ 40, 41 ];
	mirror('mapped', "$marked, gone timestamptz, synced_at timestamptz", deletes => 'mark',
		columns => '{"id": "id", "number": "number", "notes": "notes", "gone": "deleted"}');
	mirror('apart', "$marked, deleted timestamptz, synced_at timestamptz", deletes => 'mark', columns => '["id", "number", "notes"]');
	mirror('bare', "$marked, deleted timestamptz", deletes => 'mark', columns => '["id", "number", "notes"]');
	mirror('deaf', "$marked, synced_at timestamptz", deletes => 'ignore');
	like(sync($_), qr/^${\ ($dead + @alive)} 0 0 /, "deletes are marked: '$_' has the deleted ones, too") for qw(mapped apart bare);
	is($client->query('SELECT count(*) FROM apart WHERE deleted IS NOT NULL'), $dead, '... marked');
	is($client->query('SELECT count(*) FROM mapped m JOIN hubex_list(\'tasks\', \'{"isDeleted": true}\') l ON (l ->> \'id\')::bigint = m.id
		WHERE m.gone = ((l ->> \'deleted\') || \'Z\')::timestamptz'), $dead, '... with the time the record tells, where that is mapped');
	like(sync('deaf'), qr/^${\ scalar @alive} 0 0 /, 'deletes are ignored: deleted ones are not inserted');
	change({ kind => 'change', id => $one, fields => { notes => 'at last' } }, { kind => 'delete', id => $one });
	change({ kind => 'delete', id => $two });
	for my $name (qw(mapped apart bare))
	{
		my $column = $name eq 'mapped' ? 'gone' : 'deleted';
		like(sync($name, 'full'), qr/^0 2 0 /, "two are deleted: '$name'");
		is(noted(), "UPDATE ROW $one, UPDATE ROW $two, UPDATE STATEMENT", '... is told so once');
		is($client->query("SELECT concat_ws(' ', notes, $column IS NOT NULL) FROM $name WHERE id = $one"), 'at last t', '... and shows the record as it last was');
		my $before = rows($name);
		like(sync($name, 'full'), qr/^0 0 0 /, '... only once') && is(rows($name), $before, '... and the mark stays');
	}
	my $before = rows('deaf');
	is(sync('deaf', 'full') . rows('deaf'), '0 0 0 ' . ($dead + @alive) . $before, 'where deletes are ignored, nothing is done');
	change({ kind => 'restore', id => $one }, { kind => 'restore', id => $two });
	for my $name (qw(mapped apart bare))
	{
		my $column = $name eq 'mapped' ? 'gone' : 'deleted';
		like(sync($name, 'full'), qr/^0 2 0 /, "two are restored: '$name'");
		is($client->query("SELECT count(*) FROM $name WHERE id IN ($one, $two) AND $column IS NULL"), 2, '... and not marked any more');
	}
	like(sync('deaf', 'full'), qr/^0 1 0 /, 'where deletes are ignored, a restored one is as it is');

	# gone without a trace
	change({ kind => 'erase', id => $two });
	@alive = grep { $_ != $two } @alive;
	like(sync('apart', 'full'), qr/^0 [1-9]\d* 0 /, 'one is gone without a trace: it is marked');
	is($client->query("SELECT deleted IS NOT NULL FROM apart WHERE id = $two"), 't', '... as it is');
	like(sync('deaf', 'full'), qr/^0 \d+ 0 /, '... or ignored');
	is($client->query("SELECT count(*) FROM deaf WHERE id = $two"), 1, '... as it is');
	like(sync('m', 'full'), qr/^0 \d+ 1 /, '... or deleted');

	# a list that leaves one out, which is there when it is asked for
	$client->query('IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm');
	mirror('assets', 'id bigint PRIMARY KEY, name text, published timestamptz, raw jsonb, synced_at timestamptz', table => 'fsm.assets');
	like(sync('assets'), qr/^10 0 0 /, 'a list');
	my $shown = rows('assets');
	my $hidden = 0 + $client->query('SELECT min(id) FROM assets');
	$sandbox->orders({ list => 'assets', kind => 'hide', id => $hidden });
	$sandbox->clear_journal;
	like(sync('assets'), qr/^0 0 0 /, '... leaves a record out');
	is(scalar @{ $sandbox->journal(path => "/ES/Assets/$hidden") }, 1, '... which is asked for');
	is(noted() . rows('assets'), $shown, '... and stays as it is, for the answer shows only a part of it');
	$sandbox->orders({ list => 'assets', kind => 'show', id => $hidden }, { list => 'assets', kind => 'change', id => $hidden, fields => { name => 'shown' } });
	like(sync('assets'), qr/^0 1 0 /, '... until the list shows it');

	# a foreign table that shows the deleted ones
	$client->query(q(CREATE FOREIGN TABLE fsm.everything (id bigint, number text, deleted timestamptz) SERVER fsm OPTIONS (resource 'tasks', include_deleted 'true')));
	mirror('everything', 'id bigint PRIMARY KEY, number text, deleted timestamptz, synced_at timestamptz', table => 'fsm.everything');
	is(sync('everything'), sprintf('%d 0 0 0', $dead + @alive), 'the mirror of a table that shows what is deleted shows it, too');
}

#
# Targets of other makes
#
{
	mirror('jobs', q("the key" text PRIMARY KEY, gone text, title varchar(400), day date, changed timestamp(0), size numeric(12,1), whole json,
		own text DEFAULT 'mine', doubled text GENERATED ALWAYS AS (title || title) STORED, counted integer GENERATED ALWAYS AS IDENTITY,
		synced_at timestamptz), columns => q({"the key": "id", "title": "number", "day": "created", "changed": "last_modified", "size": "task_type_id",
		"whole": "raw", "gone": "erp_id"}));
	$client->query('ALTER TABLE jobs DROP COLUMN gone');
	is(sync('jobs'), sprintf('%d 0 0 %d', scalar @alive, $dead), 'other names and types; a column that was dropped, a generated one, an identity');
	my $columns = q("the key" = id::text; title = number; day = (created AT TIME ZONE 'UTC')::date; changed = (last_modified AT TIME ZONE 'UTC')::timestamp(0);
		size = task_type_id::numeric(12, 1); whole::text = raw::text) =~ s/\s+/ /gr;
	in_step('jobs', '... have the values cast', $columns);
	is($client->query(q(SELECT count(*) FROM jobs WHERE own = 'mine' AND doubled = title || title AND counted > 0 AND synced_at < now())), scalar @alive,
		'... defaults and all');
	my $elsewhere = Hubex::Client->new($node);
	$elsewhere->query(q(SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET extra_float_digits = 0));
	is(sync('jobs', 'full', $elsewhere), '0 0 0 ' . ($dead + @alive), '... which are the same wherever the session is');
	is(noted(), '', '... so nothing is written');
	$elsewhere->end;

	# the same by bulk, that is without triggers
	mirror('loaded', 'id bigint PRIMARY KEY, number text NOT NULL CHECK (length(number) > 0), notes text, own text DEFAULT upper(\'mine\'), at integer DEFAULT 7,
		last_modified timestamptz, deleted timestamptz, synced_at timestamptz, raw jsonb', quiet => 1);
	$client->query(q(CREATE INDEX ON loaded (lower(number)) WHERE notes IS NOT NULL; CREATE INDEX ON loaded USING gin (raw)));
	is(sync('loaded'), sprintf('%d 0 0 %d', scalar @alive, $dead), 'many at once');
	in_step('loaded', '... with the same in them', 'id; number; notes; last_modified; deleted; raw');
	is($client->query(q(SELECT count(*) FROM loaded WHERE own = 'MINE' AND at = 7 AND synced_at IS NOT NULL)), scalar @alive, '... defaults, too');
	$client->query('SET enable_seqscan = off');
	is($client->query(q(SELECT (SELECT count(*) FROM loaded WHERE lower(number) > '' AND notes IS NOT NULL) || ' ' || (SELECT count(*) FROM loaded WHERE raw @> '{"taskType": {}}'))),
		$client->query(q(SELECT count(notes) || ' ' || count(*) FROM fsm.tasks)), '... in all indexes');
	$client->query('RESET enable_seqscan');

	# keys that the server could make itself, and more than one column
	$client->query(q(CREATE FOREIGN TABLE fsm.of_tenant (tenant integer OPTIONS (constant '7'), id bigint, number text, last_modified timestamptz) SERVER fsm OPTIONS (resource 'tasks')));
	mirror('of_tenants', 'tenant integer, id bigint GENERATED BY DEFAULT AS IDENTITY, number text, last_modified timestamptz, synced_at timestamptz, PRIMARY KEY (tenant, id)',
		table => 'fsm.of_tenant', after => 'PARTITION BY LIST (tenant)');
	$client->query(qq(ALTER TABLE of_tenants ALTER COLUMN id SET GENERATED ALWAYS;
		CREATE TABLE of_7 PARTITION OF of_tenants FOR VALUES IN (7); CREATE TABLE of_8 PARTITION OF of_tenants FOR VALUES IN (8);
		INSERT INTO of_tenants (tenant, id, number) OVERRIDING SYSTEM VALUE VALUES (8, $alive[0], 'another\\'s')) =~ s/\\'/''/r);
	like(sync('of_tenants'), qr/^${\ scalar @alive} 0 0 /, 'several tenants in one table');
	is($client->query('SELECT count(*) FROM of_8 WHERE number = \'another\'\'s\''), 1, '... are told apart');
	change({ kind => 'change', id => $alive[50], fields => { number => 'N-50' } });
	like(sync('of_tenants', 'full'), qr/^0 [1-9]\d* 0 /, '... when they change');
	is($client->query("SELECT number FROM of_tenants WHERE tenant = 7 AND id = $alive[50]"), 'N-50', '... as well');

	# partitions by the key, and by a time that never changes
	mirror('hashed', $narrow, after => 'PARTITION BY HASH (id)');
	$client->query(join ';', map { "CREATE TABLE hashed_$_ PARTITION OF hashed FOR VALUES WITH (MODULUS 3, REMAINDER $_)" } 0 .. 2);
	mirror('by_month', "${\ ($narrow =~ s/ PRIMARY KEY//r)}, created timestamptz, PRIMARY KEY (id, created)", after => 'PARTITION BY RANGE (created)');
	$client->query(qq(CREATE TABLE by_month_1 PARTITION OF by_month FOR VALUES FROM ('2000-01-01') TO ('@{[ $client->query('SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY created) FROM fsm.tasks') ]}'); CREATE TABLE by_month_2 PARTITION OF by_month DEFAULT));
	my ($changed, $gone) = @alive[ 60, 61 ];
	for my $name (qw(hashed by_month))
	{
		like(sync($name), qr/^${\ scalar @alive} 0 0 /, "partitions: '$name' is filled");
		cmp_ok($client->query("SELECT count(DISTINCT tableoid) FROM $name"), '>', 1, '... all of them');
		change({ kind => 'change', id => $changed, fields => { notes => "in $name" } }, { kind => 'delete', id => $gone });
		like(sync($name, 'incremental'), qr/^0 1 1 /, '... one row changed, one deleted');
		is($client->query(q(SELECT string_agg(op || ' ' || id, ', ' ORDER BY n) FROM log WHERE level = 'ROW')), "DELETE $gone, UPDATE $changed", '... no others');
		in_step($name, '... and in step');
		like(sync($name, 'full'), qr/^0 0 0 /, '... with nothing to do');
		change({ kind => 'restore', id => $gone });
		like(sync($name, 'incremental'), qr/^1 0 0 /, '... and one row back');
		change({ kind => 'erase', id => $gone });
		@alive = grep { $_ != $gone } @alive;
		like(sync($name, 'full'), qr/^0 \d+ 1 /, '... and what is gone is deleted');
		in_step($name, '... from its partition');
		$gone = $alive[62];
	}
}

#
# What does not fit
#
{
	my @three = @alive[ 70 .. 72 ];
	$client->query(q(CREATE FOREIGN TABLE fsm.odd (id bigint, number text, pieces integer OPTIONS (path 'notes'), last_modified timestamptz) SERVER fsm OPTIONS (resource 'tasks')));
	change(map { { kind => 'change', id => $_, fields => { notes => '5' } } } @alive);
	mirror("odd_$_", 'id bigint PRIMARY KEY, number varchar(60), pieces integer, last_modified timestamptz, synced_at timestamptz', table => 'fsm.odd', on_drift => $_)
		for qw(error null ignore);
	my $dropped = grep { ($_->{notes} // 5) !~ /^\d+$/ && $_->{deleted} } @{ $sandbox->tasks };
	change(map { { kind => 'change', id => $_->{id}, fields => { notes => undef } } } grep { $_->{deleted} } @{ $sandbox->tasks }) if $dropped;
	like(sync("odd_$_"), qr/^${\ scalar @alive} 0 0 /, "values that fit: on_drift '$_'") for qw(error null ignore);
	change((map { { kind => 'change', id => $_, fields => { notes => 'many' } } } @three), { kind => 'change', id => $alive[73], fields => { notes => '6' } });
	like(sync('odd_error', 'incremental'),
		qr/^22P02 invalid input syntax for type integer: "many"\nColumn "pieces" of record ($three[0]|$three[1]|$three[2]) of resource "tasks": "many"\.$/,
		'a value that does not fit is the type\'s own error, which names record, column and value');
	is($client->query("SELECT pieces FROM odd_error WHERE id = $alive[73]"), 5, '... and nothing is applied');
	like($client->query(q(SELECT last_error FROM hubex.subscription_state WHERE subscription = 'odd_error')), qr/Column "pieces" of record \d+ of resource "tasks": "many"/,
		'... which is known later');
	for my $policy (qw(null ignore))
	{
		like(sync("odd_$policy", 'incremental'), $policy eq 'null' ? qr/^0 4 0 / : qr/^0 [1-4] 0 /, "on_drift '$policy'");
		is($client->query("SELECT string_agg(coalesce(pieces::text, 'null'), ' ' ORDER BY id) FROM odd_$policy WHERE id BETWEEN $three[0] AND $alive[73]"),
			$policy eq 'null' ? 'null null null 6' : '5 5 5 6', '... as it says');
		like($client->query("SELECT drift FROM hubex.subscription_state WHERE subscription = 'odd_$policy'"),
			qr/"pieces": \{.*"count": 3, .*"problem": "invalid input syntax for type integer: \\"many\\" \(record \d+\)"/, '... and tells of it');
		like(sync("odd_$policy", 'incremental'), qr/^0 0 0 /, '... once');
		is(noted(), '', '... and leaves it then');
	}
	change((map { { kind => 'change', id => $_, fields => { notes => '5' } } } @three), { kind => 'change', id => $alive[74], fields => { number => 'x' x 61 } });
	like(sync('odd_error', 'incremental'), qr/^22001 value too long for type character varying\(60\)\nColumn "number" of record $alive[74]: "x+"\.$/,
		'what the target\'s column cannot hold is an error, too');
	like(sync('odd_ignore', 'incremental'), qr/^0 \d 0 /, '... or ignored');
	isnt($client->query("SELECT number FROM odd_ignore WHERE id = $alive[74]"), 'x' x 61, '... as it says');
	change({ kind => 'change', id => $alive[74], fields => { number => 'short' } });
	like(sync('odd_error', 'incremental'), qr/^0 [2-5] 0 /, '... until it fits');

	# a column that no record has any more
	change(map { { kind => 'change', id => $_, fields => { notes => undef } } } @alive);
	like(sync('odd_error', 'full'), qr/^HV005 no record has a value for column "pieces" any more\n@{[ scalar @alive ]} rows of mirror public\.odd_error have one that would be lost\.$/,
		'a column that vanishes is an error');
	is($client->query('SELECT count(pieces) FROM odd_error'), scalar @alive, '... and keeps its values');
	like(sync('odd_ignore', 'full'), qr/^0 \d+ 0 /, '... which may be wished for');
	is($client->query('SELECT count(pieces) FROM odd_ignore'), scalar @alive, '... and done');
	like($client->query(q(SELECT drift FROM hubex.subscription_state WHERE subscription = 'odd_ignore')), qr/"pieces": \{.*"problem": "no record has it any more"/, '... and is told');
	change({ kind => 'change', id => $alive[75], fields => { number => 'N-75' } });
	like(sync('odd_ignore', 'incremental'), qr/^0 \d+ 0 /, '... by an incremental run, too');
	is($client->query("SELECT number || ' ' || pieces FROM odd_ignore WHERE id = $alive[75]"), 'N-75 5', '... which changes the rest');
	like(sync('odd_null', 'full'), qr/^0 \d+ 0 /, '... or not');
	is($client->query('SELECT count(pieces) FROM odd_null'), 0, '... and done');
	like($client->query(q(SELECT drift FROM hubex.subscription_state WHERE subscription = 'odd_null')), qr/"pieces": \{.*"problem": "no record has it any more"/, '... and is told');
}

#
# Constraints, and others at work
#
{
	my ($one, $two) = @alive[ 80, 81 ];
	mirror('strict', "$narrow, CONSTRAINT no_bang CHECK (notes <> 'bang')", quiet => 1);
	change({ kind => 'change', id => $one, fields => { notes => 'bang' } });
	like(sync('strict'), qr/^23514 new row for relation "strict" violates check constraint "no_bang"/, 'a constraint is one');
	is($client->query('SELECT count(*) FROM strict'), 0, '... for all that is applied with it');
	change({ kind => 'change', id => $one, fields => { notes => 'same' } }, { kind => 'change', id => $two, fields => { notes => 'same' } });
	$client->query('CREATE UNIQUE INDEX ON strict (notes)');
	like(sync('strict'), qr/^23505 duplicate key value violates unique constraint "strict_notes_idx"\nKey \(notes\)=\(same\) already exists\./, 'so is a unique index of one\'s own');
	is($client->query('SELECT count(*) FROM strict'), 0, '... and no row is left out for it');
	$client->query('DROP INDEX strict_notes_idx');
	like(sync('strict'), qr/^${\ scalar @alive} 0 0 /, '... and without it all is well');

	# another inserts what is about to be inserted
	mirror('raced', $narrow, quiet => 1);
	my $other = Hubex::Client->new($node);
	my $racer = Hubex::Client->new($node);
	for my $watched (0, 1)
	{
		$client->query('TRUNCATE raced, log');
		watch('raced') if $watched;
		$other->query("BEGIN; INSERT INTO raced (id, notes) VALUES ($one, 'theirs'), ($two, 'theirs')");
		$racer->send(q(CALL hubex_sync('raced', 'full')));
		eventually { $client->query(q(SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'spectoken'))) == 1 }
			'a row is waited for that another inserts, ' . ($watched ? 'with triggers' : 'in bulk');
		$other->query('COMMIT');
		like(told($racer->answer), qr/^${\ (@alive - 2)} 2 0 /, '... and then updated');
		in_step('raced', '... to what it is');
		is($client->query(q(SELECT string_agg(op || ' ' || n, ', ' ORDER BY op) FROM (SELECT op, count(*) n FROM log WHERE mirror = 'raced' AND level = 'ROW' AND syncing GROUP BY op) l)),
			'INSERT ' . (@alive - 2) . ', UPDATE 2', '... with a trigger for each') if $watched;
	}

	# another changes, or deletes, what is about to be changed
	for my $case ([ 'changes to the same', "UPDATE raced SET notes = 'mine' WHERE id = $one", qr/^0 1 0 / ],
		[ 'changes otherwise', "UPDATE raced SET notes = 'theirs', synced_at = '2020-01-01' WHERE id = $one", qr/^0 2 0 / ],
		[ 'has from a newer answer', "UPDATE raced SET notes = 'newer', last_modified = now() + '1 day' WHERE id = $one", qr/^0 1 0 /,
			"UPDATE raced SET synced_at = clock_timestamp() WHERE id = $one" ],
		[ 'deletes', "DELETE FROM raced WHERE id = $one", qr/^1 1 0 / ])
	{
		my ($what, $sql, $counts, $then) = @$case;
		change(map { { kind => 'change', id => $_, fields => { notes => $what } } } $one, $two);
		$sql =~ s/'mine'/'$what', last_modified = (SELECT last_modified FROM fsm.tasks WHERE id = $one)/;
		$other->query("BEGIN; $sql");
		$racer->send(q(CALL hubex_sync('raced', 'incremental')));
		eventually { $client->query(q(SELECT count(*) FROM pg_locks WHERE NOT granted)) == 1 } "a row is waited for that another $what";
		$other->query(($then // '') . ';COMMIT');
		like(told($racer->answer), $counts, '... and judged again');
		is($client->query("SELECT string_agg(notes, ', ' ORDER BY id) FROM raced WHERE id IN ($one, $two)"), $what =~ /newer/ ? "newer, $what" : "$what, $what", '... as it then is');
		$client->query("UPDATE raced SET last_modified = '2020-01-01', synced_at = '2020-01-01' WHERE id = $one");
	}

	# a row of the future is none
	$client->query("UPDATE raced SET notes = 'of the future', last_modified = '2100-01-01', synced_at = now() + interval '1 day' WHERE id = $two");
	like(sync('raced', 'full'), qr/^0 2 0 /, 'what was written in the future counts as old');
	in_step('raced', '... and is put right');

	# a lock is not waited for for ever
	$other->query("BEGIN; SELECT FROM raced WHERE id = $one FOR UPDATE");
	change(map { { kind => 'change', id => $_, fields => { notes => 'locked' } } } $one, $two);
	my $answer = $client->try(q(CALL hubex_sync('raced', 'incremental')));
	is($answer->{sqlstate}, '55P03', 'a lock is not waited for for ever');
	cmp_ok($answer->{took}, '<', 15, '... but a few seconds');
	is($client->query("SELECT notes = 'locked' FROM raced WHERE id = $two"), 'f', '... and nothing is applied');
	$other->query('COMMIT');
	like(sync('raced', 'incremental'), qr/^0 2 0 /, '... until it is free');
	$_->end for $other, $racer;
}

# The triggers of somebody's table run as him, whoever subscribed with it.
$client->query(q(CREATE ROLE mallory; CREATE SCHEMA mallory AUTHORIZATION mallory; SET ROLE mallory;
	CREATE TABLE mallory.seen (role name, problem text);
	CREATE FUNCTION mallory.grow() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			ALTER ROLE mallory SUPERUSER;
			RETURN NULL;
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO mallory.seen VALUES (current_user, SQLSTATE);
			RETURN NULL;
		END $$;
	CREATE TABLE mallory.tasks (id bigint PRIMARY KEY, number text, synced_at timestamptz);
	CREATE TRIGGER grow AFTER INSERT ON mallory.tasks FOR EACH STATEMENT EXECUTE FUNCTION mallory.grow();
	RESET ROLE;
	SELECT hubex_subscribe('trap', 'fsm.tasks', 'mallory.tasks', every => NULL)));
like(sync('trap', 'full'), qr/^[1-9]\d* 0 0 /, 'a table of another role is filled');
is($client->query("SELECT count(*) > 0, string_agg(DISTINCT role || ' ' || problem, ', ') FROM mallory.seen"), 't|mallory 42501', '... and its triggers run as that role');
is($client->query("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"), 'f', '... which does not become a mightier one');

$client->end;
$node->stop('fast');
done_testing;
