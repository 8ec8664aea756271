# From a row of the ERP to a task of HubEx: what arrives is what the row holds, if it was committed, and once.
#
# What a row holds is asked of PostgreSQL, which knows nothing of hubex in that; what arrived is what the sandbox parsed
# and, letter for letter, the body it received. The two are compared by PostgreSQL's own JSON and by Perl's.

use strict;
use warnings;
use utf8;

use Encode qw(decode encode);
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use HTTP::Tiny;
use JSON::PP;
use List::Util qw(max min);
use Test::More;
use Time::HiRes qw(time);

my $ROWS = 500;
my $SOON = 2.5;    # seconds; nobody being woken, the worker looks after 5. The quickest counts, as the machine may be busy
my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main', max_prepared_transactions => 10);
$node->start_hubex($sandbox);
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');

subtest 'a row arrives as it is' => \&values_arrive;
subtest 'what JSON cannot say is an error of the statement' => \&values_refused;
subtest 'a database in WIN1251' => \&win1251;
subtest 'an answer with what a database cannot hold' => \&strange_answers;
subtest 'what is not committed is not sent' => \&not_committed;
subtest 'what is committed is sent once and at once' => \&committed;
subtest 'two phases' => \&two_phases;
subtest 'an idempotency key' => \&idempotency_key;
subtest 'an ordering key' => \&ordering_key;
done_testing;

# ---- values ----

sub values_arrive
{
	my @texts = texts();
	my @chunks = (
		q(SET TimeZone = 'UTC'),
		q(SET TimeZone = 'Asia/Vladivostok'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'),
		q(SET TimeZone = 'America/St_Johns'; SET DateStyle = 'SQL, DMY'; SET bytea_output = 'escape'),
		q(SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'Postgres, MDY'; SET IntervalStyle = 'sql_standard'),
		q(SET TimeZone = 'Pacific/Apia'; SET extra_float_digits = -15; SET xmloption = 'document'));

	$node->safe_psql('postgres', q{
		CREATE TYPE mood AS ENUM ('хорошо', 'плохо');
		CREATE DOMAIN moment AS timestamptz;
		CREATE TYPE point3 AS (x int, label text);
		CREATE TABLE erp (
			id int PRIMARY KEY, note text, person text, code varchar(40), big bigint, small smallint, price numeric,
			ratio float8, single float4, flag boolean, day date, at timestamptz, domained moment, local timestamp,
			clock time, span interval, due timestamptz, extra jsonb, plain json, tags text[], ints int[], grid int[],
			uid uuid, bytes bytea, mood mood, pair point3);
		CREATE TRIGGER to_hubex AFTER INSERT ON erp FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fsm', '{
			"task_type_id": 2, "erp_id": "ERP-{id}", "notes": "{note}", "contact_person": "{person}", "deadline": "{due}",
			"mixed": "<{person}> {{note}} «{note}» {flag} {big}", "constant": [1.50, true, null, "x\\"y\\\\z\\n{{}}"],
			"code": "{code}", "big": "{big}", "small": "{small}", "price": "{price}", "ratio": "{ratio}", "single": "{single}",
			"flag": "{flag}", "day": "{day}", "at": "{at}", "domained": "{domained}", "local": "{local}",
			"clock": "{clock}", "span": "{span}", "extra": "{extra}", "plain": "{plain}", "tags": "{tags}",
			"ints": "{ints}", "grid": "{grid}", "uid": "{uid}", "bytes": "{bytes}", "mood": "{mood}", "pair": "{pair}",
			"nested": {"list": ["{big}", "{note}", {"deep": "{price}"}]}}');
		ALTER TABLE erp ADD gone int; ALTER TABLE erp DROP gone;
	});

	my $session = Hubex::Session->new($node);
	for my $chunk (0 .. $#chunks)
	{
		my $from = $ROWS / @chunks * $chunk;
		is($session->query("RESET ALL; $chunks[$chunk]"), '', "a session: $chunks[$chunk]");
		my $sql = join '', map { row_sql($_, \@texts) } $from .. $from + $ROWS / @chunks - 1;
		is($session->query("BEGIN; $sql; COMMIT"), '', ' its rows are inserted');
	}
	eventually { $sandbox->state->{tasks} >= $ROWS } 'all arrive', 30;
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, '0', 'all are delivered');

	my $tasks = $sandbox->tasks;
	my %task = map { $_->{erpID} => $_ } @$tasks;
	is(@$tasks, $ROWS, 'as many tasks as rows');
	is(keys %task, $ROWS, 'a task for each row');

	# As Python's and Perl's JSON read it: every text, in bytes.
	my %row = map { my @columns = split /\|/, $_, -1; ("ERP-$columns[0]" => \@columns) }
	  split /\n/, $node->safe_psql('postgres', q{
		SELECT id, coalesce(encode(convert_to(note, 'UTF8'), 'hex'), 'null'), coalesce(encode(convert_to(person, 'UTF8'), 'hex'), 'null'),
		       encode(convert_to(format('<%s> {note} «%s» %s %s', person, note,
		              CASE flag WHEN true THEN 'true' WHEN false THEN 'false' END, big), 'UTF8'), 'hex'),
		       coalesce(to_char(due AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'), 'null')
		  FROM erp});
	is_deeply([ grep { hex_of($task{$_}{request}{notes}) ne $row{$_}[1] } sort keys %row ], [], 'notes as the sandbox parsed them');
	is_deeply([ grep { hex_of($task{$_}{request}{contactPerson}) ne $row{$_}[2] } sort keys %row ], [],
		'contactPerson as the sandbox parsed it');
	is_deeply([ grep { hex_of($task{$_}{request}{mixed}) ne $row{$_}[3] } sort keys %row ], [],
		'a text with several columns in it');
	is_deeply([ grep { ($task{$_}{deadline} // 'null') =~ s/\.\d+$//r ne $row{$_}[4] } sort keys %row ], [],
		'a deadline, as the sandbox understood it');
	is_deeply([ grep { exists $task{$_}{request}{notes} && !defined $task{$_}{request}{notes} } sort keys %row ], [],
		'NULL is left out');

	# As PostgreSQL's own JSON reads the very bytes, which its type json keeps.
	my $journal = $sandbox->journal(method => 'POST', path => '/WORK/Tasks');
	is(scalar @$journal, $ROWS, 'each was sent once');
	is_deeply([ grep { $_->{headers}{'content-type'} !~ m{^application/json} } @$journal ], [], 'as JSON');
	$node->safe_psql('postgres', join '', 'CREATE TABLE arrived (body json);', map {
		sprintf q{INSERT INTO arrived VALUES (convert_from('\x%s', 'UTF8')::json);}, hex_of($_->{body}) } @$journal);
	my %same = (
		notes => q(body ->> 'notes' IS NOT DISTINCT FROM note),
		contact_person => q(body ->> 'contactPerson' IS NOT DISTINCT FROM person),
		code => q(body ->> 'code' IS NOT DISTINCT FROM code),
		bigint => q(body ->> 'big' IS NOT DISTINCT FROM big::text AND coalesce(json_typeof(body -> 'big'), 'number') = 'number'),
		smallint => q(body ->> 'small' IS NOT DISTINCT FROM small::text AND coalesce(json_typeof(body -> 'small'), 'number') = 'number'),
		numeric => q(body ->> 'price' IS NOT DISTINCT FROM price::text AND coalesce(json_typeof(body -> 'price'), 'number') = 'number'),
		float8 => q((body ->> 'ratio')::numeric IS NOT DISTINCT FROM ratio::text::numeric AND coalesce(json_typeof(body -> 'ratio'), 'number') = 'number'),
		float4 => q((body ->> 'single')::numeric IS NOT DISTINCT FROM single::text::numeric),
		boolean => q(body ->> 'flag' IS NOT DISTINCT FROM CASE flag WHEN true THEN 'true' WHEN false THEN 'false' END
			AND coalesce(json_typeof(body -> 'flag'), 'boolean') = 'boolean'),
		date => q((body ->> 'day' ~ '^\d{4,}-\d\d-\d\d( BC)?$') IS NOT FALSE AND (body ->> 'day')::date IS NOT DISTINCT FROM day),
		timestamptz => q((body ->> 'at' ~ '^\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?( BC)?$') IS NOT FALSE
			AND (body ->> 'at')::timestamp IS NOT DISTINCT FROM at AT TIME ZONE 'UTC'),
		'domain over timestamptz' => q((body ->> 'domained')::timestamp IS NOT DISTINCT FROM domained AT TIME ZONE 'UTC'),
		timestamp => q((body ->> 'local')::timestamp IS NOT DISTINCT FROM local AND coalesce(body ->> 'local', 'T') LIKE '%T%'),
		time => q((body ->> 'clock')::time IS NOT DISTINCT FROM clock),
		interval => q((body ->> 'span')::interval IS NOT DISTINCT FROM span),
		jsonb => q((body -> 'extra')::text::jsonb IS NOT DISTINCT FROM nullif(extra, 'null')),
		'jsonb, its text' => q((body -> 'extra')::text IS NOT DISTINCT FROM nullif(extra, 'null')::text),
		json => q((body -> 'plain')::text::jsonb IS NOT DISTINCT FROM nullif(plain::jsonb, 'null')),
		'array of text' => q((body -> 'tags')::text::jsonb IS NOT DISTINCT FROM to_jsonb(tags)),
		'array of int' => q((body -> 'ints')::text::jsonb IS NOT DISTINCT FROM to_jsonb(ints)),
		'array of two dimensions' => q((body -> 'grid')::text::jsonb IS NOT DISTINCT FROM to_jsonb(grid)),
		uuid => q(body ->> 'uid' IS NOT DISTINCT FROM uid::text),
		bytea => q((body ->> 'bytes')::bytea IS NOT DISTINCT FROM bytes),
		enum => q(body ->> 'mood' IS NOT DISTINCT FROM mood::text),
		composite => q((body -> 'pair')::text::jsonb IS NOT DISTINCT FROM to_jsonb(pair)),
		'a constant' => q((body -> 'constant')::text = '[1.50, true, null, "x\"y\\\\z\n{}"]'),
		'inside a document' => q(body #>> '{nested,list,0}' IS NOT DISTINCT FROM big::text AND body #>> '{nested,list,1}' IS NOT DISTINCT FROM note
			AND body #>> '{nested,list,2,deep}' IS NOT DISTINCT FROM price::text),
		defaults => q((body ->> 'requestMethodID') = '4' AND (body ->> 'taskTypeID') = '2'));
	for my $what (sort keys %same)
	{
		is($node->safe_psql('postgres', qq{
			SELECT count(*) || ' of ' || (SELECT count(*) FROM arrived) || coalesce(', not: ' || min(id) FILTER (WHERE NOT ($same{$what})), '')
			  FROM (SELECT count(*) OVER (), * FROM arrived JOIN erp ON body ->> 'erpID' = 'ERP-' || id) AS j
			 WHERE $same{$what}}), "$ROWS of $ROWS", $what);
	}

	# And back.
	is($node->safe_psql('postgres', q{
		SELECT count(*) FROM hubex_tasks() t JOIN erp e ON t.erp_id = 'ERP-' || e.id
		 WHERE coalesce(t.notes, '') = coalesce(e.note, '') AND coalesce(t.contact_person, '') = coalesce(e.person, '')
		   AND t.deadline IS NOT DISTINCT FROM e.due}), $ROWS, 'hubex_tasks shows the same texts and times');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM hubex.outbox WHERE remote_id IS NULL OR remote_number IS NULL'), 0,
		'every request knows its task');
	is_deeply(
		[ sort split /\n/, $node->safe_psql('postgres', q{SELECT natural_key || ' ' || remote_id || ' ' || remote_number FROM hubex.outbox}) ],
		[ sort map { "$_->{erpID} $_->{id} $_->{number}" } @$tasks ], 'and it is the right one');
}

# Texts that have broken something somewhere before.
sub texts
{
	return (
		'Не работает лифт № 5 — «дверь» не закрывается', q(O'Hara says "stop" ''""), 'C:\\temp\\new\\', "a\nb\r\nc\rd",
		"tab\there\x{0b}\x{0c}", "🛗 👩‍🔧 🇷🇺 𝄞", '<b>жирно</b> &amp; <script>alert("x")</script>', '{note} {{x}} }} {', '%s %n %1$s \\u0041 \\x00',
		"\x01\x02\x1f\x7f\x{80}\x{9f}", "\x{2028}\x{2029}\x{feff}\x{fffd}\x{ffff}", "e\x{301} \x{202e}rtl\x{202c} \x{200b}", 'null', 'true', '[]', '{}', '0',
		'$1 $$', q('; DROP TABLE erp; --), '  spaces  ', ' ', '', undef, "\n", '"', '\\', "'", '{', 'я' x 3000, ('"\\' x 500), "\x{10ffff}\x{10000}",
		"строка\nс переводом\tи «кавычками» \"'\\ и 🛠", '/* -- */', 'https://example.com/?a=1&b=2#c');
}

sub hex_of
{
	my ($text) = @_;
	return defined $text ? unpack('H*', encode('UTF-8', $text)) : 'null';
}

# The statement that inserts row number n. Every column has its own cycle, so that the combinations vary.
sub row_sql
{
	my ($n, $texts) = @_;
	my $pick = sub { $_[ $n % @_ ] };
	my $text = sub { my ($t) = @_; defined $t ? q{convert_from('\x} . unpack('H*', encode('UTF-8', $t)) . q{', 'UTF8')} : 'NULL' };
	my $second = $texts->[ ($n * 7 + 3) % @$texts ];
	my @values = (
		$n, $text->($texts->[ $n % @$texts ]), $text->($second), $text->(defined $second ? substr($second, 0, 40) : undef),
		$pick->(qw(9223372036854775807 -9223372036854775808 0 -1 9007199254740993 NULL 1000000000000000000)),
		$pick->(qw(32767 -32768 0 NULL)),
		$pick->('12345678901234567890123456789012345.678900', '0.10', '-0.000000000000000000000000000000000001', '1.000', '0', '-0.00',
			'1e30', '99999999999999999999999999999999999999', 'NULL', '3.14159265358979323846264338327950288', '100'),
		$pick->(qw(0.1 1e308 5e-324 -1.7976931348623157e308 2.2250738585072014e-308 3 NULL 0.30000000000000004 1e15 123456789.123456789 -0.0 1e22), '1/3::float8'),
		$pick->(qw(0.1 3.4028235e38 1e-45 NULL 16777217 -1.5)),
		$pick->(qw(true false NULL)),
		$pick->(qw('2024-02-29' '0001-01-01' '9999-12-31' NULL '1970-01-01' '0044-03-15BC' '12024-01-01')),
		$pick->(qw('2024-02-29T23:59:59.999999+03' '1970-01-01T00:00:00Z' '1582-10-15T12:00:00+02:30' '9999-12-31T23:59:59-11' NULL),
			q('2025-03-30 02:30:00 Europe/Berlin'), q('2011-12-30 00:00:00+00'), q('0044-03-15 12:00 BC'), q('12024-06-01 00:00+00'), q('2025-11-02 01:30:00.5-04')),
		$pick->(qw('2024-07-01T00:00:00.1+05:45' NULL '1900-01-01T00:00:00Z')),
		$pick->(qw('2024-02-29T23:59:59.999999' NULL '2011-12-30T12:00:00' '0001-01-01T00:00:00.000001')),
		$pick->(qw('23:59:59.999999' '00:00' NULL)), $pick->(q('1 year -2 mons 3 days 04:05:06.789'), q('-00:00:01'), 'NULL', q('0')),
		$pick->(q('2026-08-31 18:00:00+03'), q('2026-01-01 00:00:00+14'), 'NULL', q('2030-06-15 12:34:56-09:30')),
		$pick->(q('{"a": [1, 2.50, {"б": null}], "q\\"": "\\\\ \\u0001 \\n"}'), q('[]'), q('{}'), q('"текст"'), q('12.3400'), q('null'), 'NULL', q('true'),
			q('[[], {}, [[{"x": {}}]]]'), q('123456789012345678901234567890.10')),
		$pick->(q('{"b": 1, "a":  [ 2 ]}'), 'NULL', q('"x"'), q('[1,null]')),
		$pick->(q(ARRAY['а"б', 'c\\d', NULL, '', '{}', 'x,y']), q('{}'), 'NULL', q(ARRAY['NULL', 'null'])), $pick->(q('{1,NULL,-2147483648}'), 'NULL', q('{}')),
		$pick->(q('{{1,2},{3,4}}'), 'NULL', q('[5:6]={7,8}')), $pick->(q('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), 'NULL'),
		$pick->(q('\\x00ff5c27'), 'NULL', q('\\x')), $pick->(q('хорошо'), 'NULL', q('плохо')), $pick->(q((1, 'a"b')), 'NULL', q((NULL, NULL)::point3)));
	return 'INSERT INTO erp VALUES (' . join(', ', @values) . ");\n";
}

sub values_refused
{
	my $before = $sandbox->state->{tasks};
	for my $case ([ ratio => q('NaN') ], [ ratio => q('-Infinity') ], [ price => q('NaN') ], [ price => q('Infinity') ], [ day => q('infinity') ],
		[ at => q('-infinity') ], [ local => q('infinity') ])
	{
		my ($column, $value) = @$case;
		my ($status, undef, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\nINSERT INTO erp (id, note, $column) VALUES (-1, 'x', $value)");
		like($error, qr/ERROR:  22023: .* cannot be sent\n/, "$column = $value");
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM erp WHERE id = -1'), 0, 'the statement did nothing');
	fence();
	is($sandbox->state->{tasks}, $before + 1, 'and nothing was sent');
}

sub win1251
{
	$sandbox->reset;
	$node->safe_psql('postgres', q{CREATE DATABASE win ENCODING 'WIN1251' TEMPLATE template0 LOCALE 'C'});
	$node->start_hubex($sandbox, database => 'win');
	my $text = "Съешь ещё этих мягких французских булок № 1 — «да» €\n\\\"'\t<b>Ы</b>";
	my $session = Hubex::Session->new($node, database => 'win');
	is($session->query('SHOW server_encoding'), 'WIN1251', 'the encoding');
	is($session->query(q{
		CREATE TABLE заявки (id int, "текст" text);
		CREATE TRIGGER t AFTER INSERT ON заявки FOR EACH ROW EXECUTE FUNCTION
			hubex_task_trigger('fsm', '{"task_type_id": 1, "erp_id": "Ы-{id}", "notes": "{текст}", "поле": "Ж {текст}"}');
		}), '', 'a trigger with Cyrillic names');
	is($session->query("INSERT INTO заявки VALUES (1, '" . $text =~ s/'/''/gr . "')"), '', 'a row');
	eventually { $sandbox->state->{tasks} == 1 } 'it arrives';
	my $task = $sandbox->tasks->[0];
	is($task->{request}{notes}, $text, 'in UTF-8');
	is($task->{request}{'поле'}, "Ж $text", 'the name of the field and the text of the template too');
	is($task->{erpID}, 'Ы-1', 'and its erpID');
	eventually { $session->query('SELECT state FROM hubex.outbox') eq 'delivered' } 'delivered';
	is($session->query(q{SELECT remote_id FROM hubex.outbox}), $task->{id}, 'with its id');
	is(decode('UTF-8', $session->query(q{SELECT notes FROM hubex_tasks('{"erpID": "Ы-1"}')})), $text, 'hubex_tasks brings it back');
	is($session->query(q{SELECT notes = "текст" FROM hubex_tasks() JOIN заявки ON erp_id = 'Ы-' || заявки.id}), 't', 'the same bytes in the database');

	is_found($session, 'Ы-2', q{INSERT INTO заявки VALUES (2, 'второй')}, '"Émile 🛗"');
	$session->quit;
	$node->safe_psql('postgres', 'DROP DATABASE win');
}

sub strange_answers
{
	$sandbox->reset;
	fence();    # with a new token
	my $session = Hubex::Session->new($node);
	my $create = sub { "SELECT hubex_create_task(1, 'x', erp_id => '$_[0]')" };
	is_found($session, 'odd-1', $create->('odd-1'), '"nul \\u0000"');
	is_found($session, 'odd-2', $create->('odd-2'), '"half a pair \\ud83d"');
	is_found($session, 'odd-3', $create->('odd-3'), '"the other \\udd27\\\\u0000"');
}

# A request whose answer is lost finds its task, though that holds by now what the database could not.
sub is_found
{
	my ($session, $key, $sql, $person) = @_;
	my $tasks = $sandbox->state->{tasks};
	my $fault = $sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status_after', status => 502);
	my $late = $sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'status', status => 503, times => 1000);
	$session->query($sql);
	eventually { $sandbox->state->{tasks} == $tasks + 1 } 'one is made, its answer lost';
	my ($made) = grep { $_->{erpID} eq $key } @{ $sandbox->tasks };
	foreign_patch($made->{id}, contact_person($person));
	$sandbox->clear_faults($late);
	my $look = "SELECT state || ' ' || coalesce(remote_id, '') FROM hubex.outbox WHERE natural_key = '$key'";
	eventually { $session->query($look) eq "delivered $made->{id}" } 'it is found in spite of what somebody wrote there'
	  or diag $session->query('SELECT state, attempts, last_error FROM hubex.outbox ORDER BY id DESC LIMIT 1');
	is($sandbox->state->{tasks}, $tasks + 1, 'and not made again');
	$sandbox->clear_faults($fault);
	foreign_patch($made->{id}, contact_person('"x"'));    # Perl's JSON cannot hold it either
}

sub contact_person { return "[{\"field\": \"contactPerson\", \"value\": $_[0]}]" }

# Somebody else changes a task.
sub foreign_patch
{
	my ($id, $json) = @_;
	my $http = HTTP::Tiny->new;
	my %headers = ('X-Application-ID' => 3, 'Content-Type' => 'application/json');
	my $answer = $http->post($sandbox->url . '/AUTHZ/AccessTokens',
		{ headers => \%headers, content => encode_json({ serviceToken => $sandbox->service_token }) });
	$headers{Authorization} = 'Bearer ' . decode_json($answer->{content})->{access_token};
	$answer = $http->request(PATCH => $sandbox->url . "/WORK/Tasks/$id", { headers => \%headers, content => encode('UTF-8', $json) });
	is($answer->{status}, 202, 'somebody changes it');
}

# ---- transactions ----

my $fences;

# Commits a request and waits until its task is there: what was committed before is then sent as well.
sub fence
{
	my $mark = 'fence-' . ++$fences;
	$node->safe_psql('postgres', "SELECT hubex_create_task(1, 'fence', erp_id => '$mark')");
	my $found;
	eventually { ($found) = grep { ($_->{erpID} // '') eq $mark } @{ $sandbox->tasks } } "$mark arrives", 60;
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending')}, 0, 'nothing is under way', 60);
}

# The erpIDs there are, fences aside.
sub arrived { return [ sort grep { !/^fence/ } map { $_->{erpID} // '' } @{ $sandbox->tasks } ] }

sub not_committed
{
	$sandbox->reset;
	$node->safe_psql('postgres', q{
		CREATE TABLE job (id int PRIMARY KEY, note text, twin int UNIQUE DEFERRABLE INITIALLY DEFERRED, CHECK (note <> 'bad'));
		CREATE TRIGGER to_hubex AFTER INSERT ON job FOR EACH ROW
			EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 2, "erp_id": "JOB-{id}", "notes": "{note}"}');
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
		CREATE TABLE late (id int);
		CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
	});
	my $session = Hubex::Session->new($node);

	$session->query(q{BEGIN; INSERT INTO job VALUES (1); ROLLBACK});
	like($session->query(q{BEGIN; INSERT INTO job VALUES (2); SELECT 1 / 0; COMMIT}), qr/22012/, 'an error after the call');
	like($session->query(q{INSERT INTO job VALUES (3), (4), (4)}), qr/23505/, 'an error in the statement');
	like($session->query(q{INSERT INTO job VALUES (5, 'good'), (6, 'bad')}), qr/23514/, 'a check of a later row');
	like($session->query(q{BEGIN; INSERT INTO job VALUES (7, 'x', 1), (8, 'x', 1); COMMIT}), qr/23505/, 'a deferred constraint');
	like($session->query(q{BEGIN; INSERT INTO job VALUES (9); INSERT INTO late VALUES (1); COMMIT}), qr/P0001/, 'a deferred trigger');
	is($session->query(q{BEGIN; SAVEPOINT a; INSERT INTO job VALUES (10); ROLLBACK TO a; INSERT INTO job VALUES (11); SAVEPOINT b;
		INSERT INTO job VALUES (12); SAVEPOINT c; INSERT INTO job VALUES (13); ROLLBACK TO b; RELEASE b; COMMIT}), '', 'savepoints');
	is($session->query(q{DO $$ BEGIN
			INSERT INTO job VALUES (14);
			BEGIN INSERT INTO job VALUES (15); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN INSERT INTO job VALUES (16); END;
		END $$}), '', 'an exception caught');
	$session->query(q{INSERT INTO job VALUES (14) ON CONFLICT DO NOTHING});
	$session->query(q{BEGIN; INSERT INTO job VALUES (17)});
	$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $session->query('SELECT pg_backend_pid()') . ')');
	fence();
	is_deeply(arrived(), [qw(JOB-11 JOB-14 JOB-16)], 'only what was committed is sent');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM hubex.outbox WHERE natural_key LIKE 'JOB-%'}), 3, 'and is in the outbox');
}

sub committed
{
	$sandbox->reset;
	my $session = Hubex::Session->new($node);
	my @late;

	for my $id (101 .. 105)
	{
		$session->query("BEGIN; INSERT INTO job VALUES ($id)");
		fence() if $id == 101;
		is_deeply([ grep { $_ eq "JOB-$id" } @{ arrived() } ], [], 'nothing is sent while the transaction is open');
		my $committed = time;
		$session->query('COMMIT');
		eventually { grep { $_ eq "JOB-$id" } @{ arrived() } } 'it is sent after COMMIT', 10;
		my ($entry) = grep { $_->{body} =~ /JOB-$id"/ } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
		push @late, $entry->{time} - $committed;
		cmp_ok($entry->{time}, '>', $committed, 'not before');
	}
	cmp_ok(min(@late), '<', $SOON, sprintf 'at once: %.1f to %.1f ms after the client said COMMIT', map { $_ * 1000 } min(@late), max(@late));

	$node->safe_psql('postgres', "COPY job (id, note) FROM STDIN;\n106\tраз\n107\tдва\n\\.\n");
	$node->safe_psql('postgres', q{INSERT INTO job SELECT g, 'many' FROM generate_series(108, 150) g});
	$node->safe_psql('postgres', q{MERGE INTO job USING (VALUES (150), (151)) v (id) ON job.id = v.id WHEN NOT MATCHED THEN INSERT VALUES (v.id)});
	fence();
	is_deeply(arrived(), [ sort map { "JOB-$_" } 101 .. 151 ], 'COPY, INSERT ... SELECT and MERGE: each row once');
}

sub two_phases
{
	$sandbox->reset;
	my @late;
	my $arrives = sub {
		my ($id, $since) = @_;
		eventually { grep { $_ eq "JOB-$id" } @{ arrived() } } "JOB-$id is sent", 60;
		my ($entry) = grep { $_->{body} =~ /JOB-$id"/ } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
		push @late, $entry->{time} - $since;
	};

	$node->safe_psql('postgres', q{BEGIN; INSERT INTO job VALUES (201); PREPARE TRANSACTION 'a'});
	$node->safe_psql('postgres', q{BEGIN; INSERT INTO job VALUES (202); PREPARE TRANSACTION 'b'});
	$node->safe_psql('postgres', q{BEGIN; INSERT INTO job VALUES (203); SAVEPOINT s; INSERT INTO job VALUES (204); ROLLBACK TO s; PREPARE TRANSACTION 'c'});
	fence();
	is_deeply(arrived(), [], 'PREPARE TRANSACTION sends nothing');
	my $now = time;
	$node->safe_psql('postgres', q{COMMIT PREPARED 'a'});
	$arrives->(201, $now);
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'b'});
	$node->restart;
	$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'after a restart');
	fence();
	$now = time;
	$node->safe_psql('postgres', q{COMMIT PREPARED 'c'});
	$arrives->(203, $now);
	fence();
	is_deeply(arrived(), [qw(JOB-201 JOB-203)], 'each once, and nothing else');
	cmp_ok(min(@late), '<', $SOON, sprintf 'promptly: %.1f and %.1f ms after COMMIT PREPARED', map { $_ * 1000 } @late);
}

# ---- keys ----

sub idempotency_key
{
	$sandbox->reset;
	my ($one, $two) = map { Hubex::Session->new($node) } 1 .. 2;
	my $create = sub { my ($key, $note) = @_; return "SELECT hubex_create_task(1, '$note', erp_id => 'KEY-$key', idempotency_key => '$key')" };

	my $first = $one->query($create->('a', 1));
	is($one->query($create->('a', 2)), $first, 'the same key again: the same request');
	$one->query('BEGIN');
	my $id = $one->query($create->('b', 1));
	is($one->query($create->('b', 2)), $id, 'in one transaction too');
	$one->query('COMMIT');
	is($two->query($create->('b', 3)), $id, 'and in another session');

	$one->query('BEGIN');
	$id = $one->query($create->('c', 1));
	$two->send($create->('c', 2));
	$node->wait_for('SELECT count(*) FROM pg_locks WHERE NOT granted', 1, 'a second session waits for the first');
	$one->query('COMMIT');
	is($two->finish, $id, 'both have the same request when the first commits');

	$one->query('BEGIN');
	$id = $one->query($create->('d', 1));
	$two->send($create->('d', 2));
	$node->wait_for('SELECT count(*) FROM pg_locks WHERE NOT granted', 1, 'a second session waits for the first');
	$one->query('ROLLBACK');
	my $other = $two->finish;
	like($other, qr/^\d+$/, 'the second makes it when the first rolls back');
	isnt($other, $id, 'and it is another one');

	$two->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job');
	$id = $one->query($create->('e', 1));
	like($two->query($create->('e', 2)), qr/ERROR:  40001:/, 'a request that an older snapshot does not see: serialization failure');
	$two->query('ROLLBACK');

	$one->query(q{SAVEPOINT x});
	$one->query('BEGIN; SAVEPOINT x');
	$id = $one->query($create->('f', 1));
	$one->query('ROLLBACK TO x');
	like($one->query($create->('f', 2)), qr/^\d+$/, 'after ROLLBACK TO SAVEPOINT the key is free');
	$one->query('COMMIT');

	# Many at once.
	my @sessions = map { Hubex::Session->new($node) } 1 .. 6;
	$_->send(join '; ', map { $create->("many-$_", 'x') } 1 .. 20) for @sessions;
	my %answer = map { ($_->finish => 1) } @sessions;
	is(keys %answer, 1, 'six sessions with twenty keys each get the same ids');
	is((my @ids = (keys %answer)[0] =~ /^\d+$/mg), 20, 'twenty of them');

	is($one->query(q{SELECT hubex_enqueue('POST', '/WORK/Tasks/1/conversation', '{"message": "x"}', idempotency_key => 'g')}),
		$two->query(q{SELECT hubex_enqueue('POST', '/WORK/Tasks/1/conversation', '{"message": "y"}', idempotency_key => 'g')}), 'hubex_enqueue too');
	fence();
	is_deeply(arrived(), [ sort map { "KEY-$_" } qw(a b c d e f), map { "many-$_" } 1 .. 20 ], 'each key made one task');
	is_deeply({ map { $_->{erpID} => $_->{request}{notes} } grep { $_->{erpID} =~ /^KEY-.$/ } @{ $sandbox->tasks } },
		{ 'KEY-a' => 1, 'KEY-b' => 1, 'KEY-c' => 1, 'KEY-d' => 2, 'KEY-e' => 1, 'KEY-f' => 2 }, 'that of the first that was committed');
	is(scalar @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks/1/conversation') }, 1, 'and one call');
}

sub ordering_key
{
	$sandbox->reset;

	# The way back takes its time, a random one, so that order cannot be luck.
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay_before', seconds => 0.06, probability => 0.4);
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 0.03, probability => 0.4);
	my ($keys, $each) = (8, 8);
	$node->safe_psql('postgres', qq{
		SELECT hubex_create_task(1, k || ':' || n, ordering_key => 'key ' || k) FROM generate_series(1, $each) n, generate_series(1, $keys) k ORDER BY n, k;
		SELECT hubex_create_task(1, 'free') FROM generate_series(1, 8)});
	eventually { $sandbox->state->{tasks} == $keys * $each + 8 } 'all arrive';
	$sandbox->clear_faults;
	my %of;
	for my $entry (grep { $_->{status} == 201 } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') })
	{
		my ($key, $number) = decode_json($entry->{body})->{notes} =~ /^(\d+):(\d+)$/ or next;
		push @{ $of{$key} }, [ $number, $entry->{time}, $entry->{finished} ];
	}
	is_deeply([ map { join ' ', map { $_->[0] } @{ $of{$_} } } 1 .. $keys ], [ (join ' ', 1 .. $each) x $keys ], 'of each key in the order of its ids');
	is_deeply([ grep { my $o = $of{$_}; grep { $o->[$_][1] < $o->[ $_ - 1 ][2] } 1 .. $#$o } 1 .. $keys ], [], 'the next after the answer to the one before');
	cmp_ok($sandbox->summary->{max_in_flight}, '>=', 6, 'keys beside each other: ' . $sandbox->summary->{max_in_flight} . ' in flight');

	# A failing one holds its own key only.
	$sandbox->clear_journal;
	my $fault = $sandbox->fault(method => 'PUT', path => '/WORK/Tasks/restore', fault => 'status', status => 503, times => 1000);
	my ($first) = split /\n/, $node->safe_psql('postgres', q{
		SELECT hubex_enqueue('PUT', '/WORK/Tasks/restore', '[]', ordering_key => 'stuck');
		SELECT hubex_create_task(1, 'behind ' || n, ordering_key => 'stuck', erp_id => 'behind-' || n) FROM generate_series(1, 3) n;
		SELECT hubex_create_task(1, 'beside ' || n, ordering_key => 'loose', erp_id => 'beside-' || n) FROM generate_series(1, 3) n});
	eventually { @{ $sandbox->journal(path => '/WORK/Tasks/restore') } >= 2 } 'the first one fails again and again';
	is_deeply([ grep { /side|hind/ } @{ arrived() } ], [ map { "beside-$_" } 1 .. 3 ], 'what stands behind it waits, what stands beside it does not');
	$sandbox->clear_faults($fault);
	eventually { grep { /behind-3/ } @{ arrived() } } 'when it succeeds the others follow';
	my @order = map { $_->{path} =~ /restore/ ? 'first' : decode_json($_->{body})->{erpID} } grep { $_->{status} < 400 && ($_->{body} // '') !~ /beside/ }
	  @{ $sandbox->journal };
	is_deeply(\@order, [ 'first', map { "behind-$_" } 1 .. 3 ], 'in their order');

	# A dead one lets them pass.
	$node->safe_psql('postgres', q{
		SELECT hubex_create_task(99, 'refused', ordering_key => 'dead', erp_id => 'dead-1');
		SELECT hubex_create_task(1, 'goes on', ordering_key => 'dead', erp_id => 'dead-2')});
	eventually { grep { $_ eq 'dead-2' } @{ arrived() } } 'one that was given up holds nobody';
	$node->wait_for(q{SELECT string_agg(state, ' ' ORDER BY id) FROM hubex.outbox WHERE ordering_key = 'dead'}, 'dead delivered', 'as it says');

	# Ids are given out before COMMIT: who has a lower one and the same key, and may still commit, is waited for.
	my ($slow, $quick) = map { Hubex::Session->new($node) } 1 .. 2;
	$slow->query(q{BEGIN; SELECT hubex_create_task(1, 'low', ordering_key => 'race', erp_id => 'race-low')});
	$quick->send(q{SELECT hubex_create_task(1, 'high', ordering_key => 'race', erp_id => 'race-high')});
	fence_beside();
	$slow->query('COMMIT');
	$quick->finish;
	eventually { 2 == grep { /^race-/ } @{ arrived() } } 'two transactions with one key, the first to commit last';
	is_deeply([ map { $_->{erpID} } sort { $a->{id} <=> $b->{id} } grep { $_->{erpID} =~ /^race-/ } @{ $sandbox->tasks } ],
		[ 'race-low', 'race-high' ], 'are delivered in the order of their ids');
	$slow->query(q{BEGIN; SELECT hubex_create_task(1, 'never', ordering_key => 'race', erp_id => 'race-never')});
	$node->safe_psql('postgres', q{SELECT hubex_create_task(1, 'after', ordering_key => 'race', erp_id => 'race-after')});
	fence_beside();
	is_deeply([ grep { /race-(?:never|after)/ } @{ arrived() } ], [], 'what waits for one that is not committed waits');
	$slow->query('ROLLBACK');
	eventually { grep { $_ eq 'race-after' } @{ arrived() } } 'and no longer than to its end';
}

# As fence(), where something else may rightly be under way.
sub fence_beside
{
	my $mark = 'fence-' . ++$fences;
	$node->safe_psql('postgres', "SELECT hubex_create_task(1, 'fence', erp_id => '$mark')");
	eventually { grep { ($_->{erpID} // '') eq $mark } @{ $sandbox->tasks } } "$mark arrives", 60;
}
