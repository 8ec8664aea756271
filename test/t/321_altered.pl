# Tables of a subscription are somebody's own: they are altered, renamed, dropped and made anew, and so are roles and
# servers. What can go on goes on, with what there is now; what cannot stops with an error that is kept and told by
# hubex_check(), with what to do, which then helps. Other subscriptions never notice.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 3000);
my $node = Hubex::Node->new('main', preload => 0);
$node->start_hubex($sandbox, page_size => 500);
my $client = Hubex::Client->new($node);
$client->query(q{
	CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, task_types) FROM SERVER fsm INTO fsm;
	CREATE FOREIGN TABLE fsm.few (id bigint, notes text, number text, company_id bigint, created timestamptz, last_modified timestamptz) SERVER fsm OPTIONS (resource 'tasks');
	SELECT hubex_subscribe('a', 'fsm.few', 'a'); SELECT hubex_subscribe('bystander', 'fsm.few', 'b')});
my $changes = 0;
sync('a');
same('fsm.few', 'a', 'id, notes, number, company_id, created, last_modified');

#
# The target
#
altered('ALTER TABLE a ADD COLUMN mine text DEFAULT \'x\', ADD COLUMN loud text GENERATED ALWAYS AS (upper(notes)) STORED, ALTER company_id TYPE int, ALTER number TYPE varchar(100) COLLATE "C"',
	'columns of one\'s own, other types');
is($client->query(q(SELECT count(*) FILTER (WHERE mine <> 'x' OR loud IS DISTINCT FROM upper(notes)) || ' ' || (count(*) > 0) FROM a)), '0 true', '... which keep what they have');
altered('ALTER TABLE a ALTER id TYPE text', 'another type of the key', 'id::bigint, notes, number, company_id, created, last_modified');
altered('ALTER TABLE a DROP loud, DROP COLUMN number', 'a column fewer', 'id::bigint, notes, company_id, created, last_modified', 'id, notes, company_id, created, last_modified');
told('a', 't', qr/fsm\.few has columns that public\.a does not show: number/, qr/^(ALTER TABLE public\.a ADD COLUMN number text); then (CALL hubex_sync\('a', 'full'\))\.$/);
$client->query(told_hint('a', qr/does not show/) =~ s/^(.*); then .*/$1/r);
$client->query(q(CALL hubex_sync('a', 'full')));
same('fsm.few', 'a', 'id::bigint, notes, number, company_id, created, last_modified', 'id, notes, number, company_id, created, last_modified');
altered('ALTER TABLE a RENAME COLUMN notes TO remarks', 'a column renamed', 'id::bigint, number, company_id, created, last_modified', 'id, number, company_id, created, last_modified');
told('a', 't', qr/does not show: notes/);
altered('ALTER TABLE a RENAME COLUMN remarks TO notes', '... and back', 'id::bigint, notes, number, company_id, created, last_modified', 'id, notes, number, company_id, created, last_modified');
altered('ALTER TABLE a DROP CONSTRAINT a_pkey, ADD UNIQUE (id)', 'another unique index', 'id::bigint, notes', 'id, notes');
altered('ALTER TABLE a DROP COLUMN synced_at', 'without synced_at', 'id::bigint, notes', 'id, notes');
altered('ALTER TABLE a ADD COLUMN synced_at timestamptz', '... and with it', 'id::bigint, notes', 'id, notes');
altered('CREATE SCHEMA other; ALTER TABLE a SET SCHEMA other; ALTER TABLE other.a RENAME TO "A moved"', 'renamed, in another schema', 'id::bigint, notes', 'id, notes', 'other."A moved"');
altered('ALTER TABLE other."A moved" RENAME TO a; ALTER TABLE other.a SET SCHEMA public; DROP SCHEMA other', '... and back', 'id::bigint, notes', 'id, notes');

# what cannot go on, until it is mended
fails('ALTER TABLE a DROP CONSTRAINT a_id_key', '42P10', qr/no unique index/, qr/CREATE UNIQUE INDEX ON public\.a \(id\)/, 'CREATE UNIQUE INDEX ON public.a (id)');
fails('ALTER TABLE a ADD COLUMN wanted int; UPDATE a SET wanted = 1; ALTER TABLE a ALTER wanted SET NOT NULL', undef, qr/"wanted" of table "a" would get no value/, qr/DROP NOT NULL/,
	'ALTER TABLE public.a ALTER COLUMN wanted DROP NOT NULL');
fails('ALTER TABLE a ALTER company_id TYPE bytea USING NULL', '42804', qr/is of type bytea/, undef, 'ALTER TABLE a ALTER company_id TYPE bigint USING NULL');
fails('ALTER TABLE a ALTER notes TYPE varchar(2) USING left(notes, 2)', '22001', undef, undef, 'ALTER TABLE a ALTER notes TYPE text');
fails('CREATE RULE nothing AS ON DELETE TO a DO INSTEAD NOTHING', '42809', qr/cannot be a mirror/, undef, 'DROP RULE nothing ON a');
fails('ALTER TABLE a DROP COLUMN id', 'HV00R', qr/shows the key/, undef, 'ALTER TABLE a ADD COLUMN id text UNIQUE; DELETE FROM a');
fails('ALTER TABLE a ADD CHECK (id <> \'1001\') NOT VALID; DELETE FROM a', '23514', undef, undef, 'ALTER TABLE a DROP CONSTRAINT a_id_check');
{
	my $other = Hubex::Client->new($node);
	$other->query('BEGIN; LOCK TABLE a');
	is($client->try(q(CALL hubex_sync('a')))->{sqlstate}, '55P03', 'a lock on the target is not waited for for long');
	bystander();
	told('a', 'f', qr/fails since 1 run/);
	$other->query('COMMIT');
	sync('a');
	is($client->query(q(SELECT state FROM hubex_stat_sync WHERE name = 'a')), 'in step', '... and is forgotten once it is gone');
}

# columns by name
$client->query(q(CREATE TABLE named (number_there int, key_there bigint PRIMARY KEY, text_there text); SELECT hubex_subscribe('named', 'fsm.few', 'named', columns => '{"key_there": "id", "text_there": "notes"}')));
sync('named');
same('fsm.few', 'named', 'key_there, text_there', 'id, notes');
$client->query('ALTER TABLE named RENAME text_there TO elsewhere');
sync('named');
told('named', 'f', qr/column "text_there" of relation "named" does not exist/);
$client->query('ALTER TABLE named RENAME elsewhere TO text_there');
$client->query(q(CALL hubex_sync('named', 'full')));
same('fsm.few', 'named', 'key_there, text_there', 'id, notes');
is($client->query(q(SELECT count(*) FROM hubex_check() WHERE subject = 'mirror' AND message LIKE '%"named"%' AND NOT ok)), 0, '... and all is well again');

#
# In the middle of a sweep
#
{
	$sandbox->clear_journal;
	my $hang = $sandbox->fault(method => 'GET', path => '/WORK/Tasks', query => 'orderBy=1&*', after => 3, fault => 'hang', probability => 1);
	my $other = Hubex::Client->new($node);
	$client->query(q(SELECT hubex_subscribe('middle', 'fsm.few', 'middle', every => NULL)));
	$other->send(q(CALL hubex_sync('middle')));
	eventually { $client->query(q(SELECT sweep_position > 0 FROM hubex.subscription_state WHERE subscription = 'middle')) eq 't' } 'a sweep is in the middle', 20;
	cmp_ok($client->query('SELECT count(*) FROM middle'), '>', 0, '... and has rows');
	$client->query('ALTER TABLE middle DROP COLUMN notes, ADD COLUMN mine int; ALTER TABLE middle ALTER COLUMN number TYPE varchar(50); ALTER FOREIGN TABLE fsm.few RENAME TO renamed_meanwhile');
	$sandbox->clear_faults($hang);
	$client->query('SELECT pg_terminate_backend(' . $other->pid . ')');
	$other->answer;
	sync('middle');
	same('fsm.renamed_meanwhile', 'middle', 'id, number, company_id, created, last_modified');
	$client->query(q(ALTER FOREIGN TABLE fsm.renamed_meanwhile RENAME TO few; SELECT hubex_unsubscribe('middle')));
}

#
# The foreign table
#
$client->query(q(SELECT hubex_subscribe('f', 'fsm.tasks', 'f')));
my @all = split /,/, $client->query(q(SELECT string_agg(quote_ident(attname), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'f'::regclass AND attnum > 0 AND attname <> 'synced_at'));
my $all = sub { my %without = map { $_ => 1 } @_; return join ',', grep { !$without{$_} } @all };
sync('f');
same('fsm.tasks', 'f', $all->());
$client->query('ALTER FOREIGN TABLE fsm.tasks DROP COLUMN contact_email');
sync('f');
same('fsm.tasks', 'f', $all->('contact_email'));
told('f', 'f', qr/filled no more.*: contact_email/, qr/ALTER FOREIGN TABLE fsm\.tasks ADD COLUMN contact_email text/);
$client->query(told_hint('f', qr/filled no more/) =~ s/;.*//r);
$client->query(q(CALL hubex_sync('f', 'full')));
same('fsm.tasks', 'f', $all->());
$client->query(q(ALTER FOREIGN TABLE fsm.tasks ADD COLUMN payee int OPTIONS (path 'workType.normalWorkingHours'), ALTER COLUMN child_count TYPE int));
sync('f');
$client->query(told_hint('f', qr/does not show: payee/) =~ s/;.*//r);
$client->query(q(CALL hubex_sync('f', 'full')));
same('fsm.tasks', 'f', $all->() . ',payee');
is($client->query('SELECT count(payee) > 0 FROM f'), 't', '... and it is filled');
fails_with('f', 'ALTER FOREIGN TABLE fsm.tasks RENAME COLUMN notes TO remarks', 'HV005', qr/no column "remarks"/, q(ALTER FOREIGN TABLE fsm.tasks RENAME COLUMN remarks TO notes));
fails_with('f', q(ALTER FOREIGN TABLE fsm.tasks OPTIONS (SET resource 'nothing')), 'HV00R', qr/nothing/, q(ALTER FOREIGN TABLE fsm.tasks OPTIONS (SET resource 'tasks')));
fails_with('f', q(ALTER FOREIGN TABLE fsm.tasks DROP COLUMN id), 'HV00R', qr/key/, q(ALTER FOREIGN TABLE fsm.tasks ADD COLUMN id bigint));
fails_with('f', q(DROP USER MAPPING FOR PUBLIC SERVER fsm), '28000', qr/no credentials/, qq(CREATE USER MAPPING FOR PUBLIC SERVER fsm OPTIONS (service_token '@{[ $sandbox->service_token ]}')), 1);
# another filter: what it leaves out goes with the next reading of the list
$client->query(q(UPDATE hubex.subscription SET delete_limit = 1 WHERE name = 'f'; ALTER FOREIGN TABLE fsm.tasks OPTIONS (ADD filter '{"taskTypeID": 6}')));
$client->query(q(CALL hubex_sync('f', 'full')));
same('fsm.tasks', 'f', $all->() . ',payee');
is($client->query('SELECT string_agg(DISTINCT task_type_id::text, \',\') FROM f'), '6', '... and no others');

#
# Gone
#
$client->query(q{
	CREATE ROLE keeper LOGIN; GRANT ALL ON SCHEMA public, fsm TO keeper; GRANT USAGE ON FOREIGN SERVER fsm TO keeper; GRANT SELECT ON ALL TABLES IN SCHEMA fsm TO keeper;
	SELECT hubex_grant('keeper', 'admin'); SET ROLE keeper; SELECT hubex_subscribe('kept', 'fsm.few', 'kept'); CREATE TABLE public.holds (id bigint PRIMARY KEY, notes text);
	SELECT hubex_subscribe('held', 'fsm.few', 'holds'); RESET ROLE});
sync($_) for qw(kept held);
same('fsm.few', 'holds', 'id, notes');
# rights that are taken away
fails_with('held', 'REVOKE ALL ON holds FROM keeper', '42501', qr/permission denied|does not allow/, 'GRANT ALL ON holds TO keeper');
fails_with('held', 'REVOKE SELECT ON fsm.few FROM keeper', undef, qr/permission denied for foreign table few/, 'GRANT SELECT ON fsm.few TO keeper');
fails_with('held', 'REVOKE USAGE ON FOREIGN SERVER fsm FROM keeper', '42501', qr/permission denied for foreign server/, 'GRANT USAGE ON FOREIGN SERVER fsm TO keeper');
# the role: what it owns goes to another first, the subscription does not
$client->query('REASSIGN OWNED BY keeper TO CURRENT_USER; DROP OWNED BY keeper; DROP ROLE keeper');
gone('held', '42704', qr/role "keeper"/);
gone('kept', '42704', qr/role "keeper"/);
$client->query(q(SELECT hubex_unsubscribe('held'); SELECT hubex_subscribe('held', 'fsm.few', 'holds')));
sync('held');
same('fsm.few', 'holds', 'id, notes');
# the tables
$client->query('DROP TABLE named');
gone('named', '42P01', qr/target of subscription "named" does not exist any more/);
$client->query('CREATE TABLE named (key_there bigint PRIMARY KEY, text_there text)');
gone('named', '42P01', qr/target of subscription "named" does not exist any more/);
is($client->query('SELECT count(*) FROM named'), 0, '... another of its name is not taken for it');
$client->query(q(SELECT hubex_unsubscribe('named')));
$client->query('DROP FOREIGN TABLE fsm.tasks');
gone('f', '42P01', qr/foreign table/);
is($client->query('SELECT count(*) > 0 FROM f'), 't', '... the mirror stays as it is');
# both servers and what depends on it
$client->query('DROP SERVER fsm CASCADE');
gone($_, '42P01', qr/foreign table/) for qw(a f held);
is($client->query(q(SELECT count(*) FROM hubex_check() WHERE subject = 'mirror' AND ok)), 0, 'hubex_check() without a server tells of all of them');
is($client->query('SELECT count(*) > 0 FROM a'), 't', '... mirrors stay');
$client->query(q(SELECT hubex_unsubscribe(name) FROM hubex.subscription WHERE name <> 'a'));
$client->query('DROP EXTENSION hubex CASCADE');
is($client->query('SELECT count(*) > 0 FROM a'), 't', '... and do without the extension');
done_testing;

sub sync
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->try("CALL hubex_sync('$name')")->{error}, undef, "$name is synchronised");
}

# A change of the remote side comes to both mirrors.
sub change
{
	$changes++;
	my @ids = split /,/, $client->query(q(SELECT string_agg(id::text, ',') FROM (SELECT id FROM fsm.few ORDER BY id LIMIT 3) s));
	$sandbox->orders(map { { list => 'tasks', kind => 'change', id => $_ + 0, fields => { notes => "change $changes of $_" } } } @ids);
	return $changes;
}

sub same
{
	my ($foreign, $target, $columns, $theirs) = @_;
	$theirs //= $columns;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("WITH r AS MATERIALIZED (SELECT $theirs FROM $foreign), m AS MATERIALIZED (SELECT $columns FROM $target)
		SELECT (SELECT count(*) FROM (TABLE m EXCEPT TABLE r) x) || ' ' || (SELECT count(*) FROM (TABLE r EXCEPT TABLE m) x) || ' '
			|| (SELECT count(*) FROM r) - (SELECT count(*) FROM m) || ' ' || (SELECT count(*) > 0 FROM m)"), '0 0 0 true', "... $target is what $foreign is");
}

sub bystander
{
	my $change = change();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->try(q(CALL hubex_sync('bystander')))->{error}, undef, '... the other subscription goes on');
	is($client->query("SELECT count(*) FROM b WHERE notes LIKE 'change $change of %'"), 3, '... and has what changed');
}

# The target is altered; the next run goes on with what there is.
sub altered
{
	my ($sql, $what, $columns, $theirs, $target) = @_;
	$client->query($sql);
	my $change = change();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->try(q(CALL hubex_sync('a')))->{error}, undef, "$what: it goes on");
	same('fsm.few', $target // 'a', $columns // 'id, notes, number, company_id, created, last_modified', $theirs);
}

sub fails
{
	my ($sql, $sqlstate, $check, $hint, $mend) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$client->query($sql);
	change();
	my $answer = $client->try(q(CALL hubex_sync('a', 'full')));
	is($answer->{sqlstate}, $sqlstate, "$sql: " . ($answer->{error} // 'goes on as yet')) if defined $sqlstate;
	told('a', 'f', qr/fails since 1 run/) if defined $sqlstate;
	told('a', 'f', $check, $hint) if defined $check;
	bystander();
	$client->query($mend);
	is($client->try(q(CALL hubex_sync('a', 'full')))->{error}, undef, "... $mend helps");
	same('fsm.few', 'a', 'id::bigint, notes, number, company_id, created, last_modified', 'id, notes, number, company_id, created, last_modified');
	is($client->query(q(SELECT state || COALESCE(reason, '') FROM hubex_stat_sync WHERE name = 'a')), 'in step', '... all is well again');
}

sub fails_with
{
	my ($name, $sql, $sqlstate, $like, $mend, $lonely) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$client->query($sql);
	my $answer = $client->try("CALL hubex_sync('$name')");
	is($answer->{sqlstate}, $sqlstate, "$sql: " . ($answer->{error} // 'no error')) if defined $sqlstate;
	like($answer->{error} // '', $like, '... which says what is wrong') if defined $sqlstate;
	told($name, 'f', $like);
	bystander() unless $lonely;
	$client->query($mend);
	is($client->try("CALL hubex_sync('$name')")->{error}, undef, "... $mend helps");
}

# A part of it is gone: its runs fail, hubex_check says so in a line, what there was stays to be seen.
sub gone
{
	my ($name, $sqlstate, $like) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $client->try("CALL hubex_sync('$name')");
	is($answer->{sqlstate}, $sqlstate, "$name: " . ($answer->{error} // 'no error'));
	like($answer->{error} // '', $like, '... which says what is gone');
	told($name, 'f', $like, qr/hubex_unsubscribe/);
	like($client->query("SELECT last_error FROM hubex_stat_sync WHERE name = '$name'"), $like, '... and hubex_stat_sync');
	bystander() if $client->query(q(SELECT count(*) FROM pg_foreign_server WHERE srvname = 'fsm'));
}

sub lines { my ($name) = @_; return map { [ split /\x01/ ] } split /\x02\n?/, $client->query("SELECT string_agg(concat_ws(E'\\x01', ok, message, hint), E'\\x02') FROM hubex_check() WHERE subject = 'mirror' AND message LIKE '%Subscription \"$name\"%'") }

# hubex_check has a line for it.
sub told
{
	my ($name, $ok, $message, $hint) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @lines = lines($name);
	my ($line) = sort { (($b->[2] // '') =~ ($hint // '')) <=> (($a->[2] // '') =~ ($hint // '')) } grep { $_->[1] =~ $message } @lines;
	ok(defined $line && $line->[0] eq $ok, "... hubex_check() says so: " . ($line ? $line->[1] : '')) or return diag join "\n", $message, map { join ' | ', @$_ } @lines;
	like($line->[2] // '', $hint, '... and what to do') if defined $hint;
}

sub told_hint { my ($name, $message) = @_; return (map { $_->[2] } grep { $_->[1] =~ $message } lines($name))[0] }
