# What the README says is so. Its cookbook is run as it stands, statement by statement, and the sandbox says what came
# of it; what its tables name is known to the server, and what the server offers is named in both languages. The
# Russian README shows the same code, and no link leads nowhere. docs/foreign-tables.md is held to the same; of docs/mirrors.md
# only that both languages agree, as 350 runs it.
#
# The texts are read from the files, and stay bytes here. Only what the reader has to fill in is replaced.

use strict;
use warnings;

use Encode qw(decode encode_utf8);
use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;

my %readme = map { $_ => read_readme($_) } qw(README.md README.ru.md);
my $english = $readme{'README.md'};

my $sandbox = Hubex::Sandbox->new(tasks => 40);
my $node = Hubex::Node->new('main');

#
# The cookbook: statements by the number of their step, 0 being what stands before the first
#
my ($cookbook) = map { $_->{code} } grep { $_->{language} eq 'sql' } @{ $english->{blocks} };
replace('https://api.hubex.ru/fsm', $sandbox->url);
replace('"service_token": "..."', '"service_token": "' . $sandbox->service_token . '"');

my @steps = split /^(?=-- \d+\. )/m, $cookbook;
is(scalar @steps, 10, 'the cookbook has its steps');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE orders (id bigint PRIMARY KEY, customer text, problem text, phone text, wanted_by timestamptz);
	CREATE ROLE clerk;
	CREATE ROLE visitor;
});

run_step(0);

my ($connected) = run_step(1);
my %checked = map { (split /\|/)[ 0, 1 ] } split /\n/, $connected;
is_deeply([ sort keys %checked ], [qw(account delivery outbox server version)],
	'hubex_connect checks what it has made');
is($checked{account}, 't', 'the account works');

run_step(2);

replace('stage_id => 7', 'stage_id => 2', \$steps[3]);
is(join(' ', run_step(3)), '1 2 3', 'the verbs return the ids of their requests');
eventually { @{ tasks_of('ORDER-17') } == 1 } 'a task arrives';
is(encode_utf8(tasks_of('ORDER-17')->[0]{notes}), 'Не работает кондиционер', 'with its notes');

$node->safe_psql(
	'postgres', q{
	BEGIN;
	INSERT INTO orders VALUES (18, 'Никто', 'передумал');
	ROLLBACK;
	INSERT INTO orders VALUES
		(19, 'Пекарня №5', 'печь "E-17"', '+7 495 123-45-67', '2030-12-02 18:30+05'),
		(20, 'Café Łódź', 'freezer', NULL, NULL);
});
all_delivered('hubex_wait waits for all five requests');
my ($full, $sparse) = map { tasks_of("ORDER-$_")->[0] } 19, 20;
is_deeply(
	{ map { $_ => encode_utf8($full->{$_} // '') } qw(taskTypeID notes contactPhone deadline) },
	{   taskTypeID => 1,
		notes => 'Пекарня №5: печь "E-17"',
		contactPhone => '+7 495 123-45-67',
		deadline => '2030-12-02T13:30:00' },
	'a row becomes a task: its values where the template has them, its time in UTC');
is_deeply([ sort keys %{ $sparse->{request} } ], [qw(erpID notes requestMethodID taskTypeID)],
	'NULL leaves a field out');
is_deeply(tasks_of('ORDER-18'), [], 'a row that was rolled back is none');
is($node->safe_psql('postgres', 'SELECT id, hubex_id, hubex_number FROM orders ORDER BY id'),
	join("\n", "19|$full->{id}|$full->{number}", "20|$sparse->{id}|$sparse->{number}"),
	'the id and the number of its task are in each row');

my ($outbox, $waited, $retried) = run_step(4);
my @lines = split /\n/, $outbox;
is_deeply([ @lines[ 0, 1, 4 ] ], [ map { outbox_line(@$_) } [ 6, 20 ], [ 5, 19 ], [ 1, 17 ] ],
	'the outbox says what became of them; the id that was rolled back is lost');
my $talked = tasks_of('ORDER-17')->[0]{id};
like($lines[2], qr/^3\|move\|ORDER-17\|delivered\|1\|\|$talked\|$/, 'the move');
like($lines[3], qr/^2\|comment\|ORDER-17\|delivered\|1\|\|$talked\|\d+$/, 'the message');
is($waited, 'delivered', 'hubex_wait gives the state');
is($retried, 0, 'there is no dead letter to retry');
is(tasks_of('ORDER-17')->[0]{taskStageID}, 2, 'the task was moved');

my (undef, undef, $joined, $counted) = run_step(5);
is_deeply([ sort split /\n/, $joined ], [ sort "$full->{number}|Пекарня №5", "$sparse->{number}|Café Łódź" ],
	'tasks join with the ERP');
my ($count) = $steps[5] =~ /(SELECT count.*?);/;
is($counted, $node->safe_psql('postgres', "SET hubex.pushdown = off; $count"), 'HubEx counts what PostgreSQL would');
like($node->safe_psql('postgres', "EXPLAIN $count"), qr/Remote Request: HEAD /, 'and reads nothing for it');
eventually { encode_utf8(tasks_of('ORDER-17')->[0]{notes}) eq 'Перезвонить до выезда' } 'an UPDATE of a foreign table changes the task';

my ($explain) = grep { /\A=# EXPLAIN/ } map { $_->{code} } @{ $english->{blocks} };
my ($explained, $plan) = $explain =~ /\A=# (.*?;)\n(.*)\z/s;
is_deeply(plan_lines($node->safe_psql('postgres', $explained)), plan_lines($plan), 'EXPLAIN shows what the README shows');

$node->safe_psql('postgres', q{UPDATE orders SET phone = NULL, problem = 'печь' WHERE id = 19; DELETE FROM orders WHERE id = 20});
all_delivered('UPDATE and DELETE are delivered');
is_deeply([ map { encode_utf8($_ // '') } @{ tasks_of('ORDER-19')->[0] }{qw(notes contactPhone)} ], [ 'Пекарня №5: печь', '' ],
	'what has changed is sent, and what became NULL is emptied');
ok(tasks_of('ORDER-20')->[0]{deleted}, 'a row that is deleted takes its task along');

my @mirrored = run_step(6);
like($mirrored[-1], qr/^tasks\|in step\|[\d:.]+\|\d+\|$/, 'a mirror is in step');
is($node->safe_psql('postgres', 'SELECT id, notes FROM mirror.tasks ORDER BY id'), $node->safe_psql('postgres', 'SELECT id, notes FROM fsm.tasks ORDER BY id'),
	'and has what HubEx has');
is($node->safe_psql('postgres', q{SELECT (next_full_at AT TIME ZONE current_setting('log_timezone'))::time FROM hubex_stat_sync}), '03:00:00', 'at night it is read anew');
$sandbox->orders({ list => 'tasks', kind => 'change', id => tasks_of('ORDER-17')->[0]{id}, fields => { contactPerson => 'Ivanova' } });
$node->safe_psql('postgres', q{CALL hubex_sync('tasks')});
is($node->safe_psql('postgres', q{SELECT contact_person FROM mirror.tasks WHERE erp_id = 'ORDER-17'}), 'Ivanova', 'it is changed as HubEx is');

# A task that was deleted; the README's is of somebody else's account.
replace('5129', $sparse->{id}, \$steps[7]);
my ($types, $request) = run_step(7);
like($types, qr/Аварийный ремонт/, 'hubex_request gives the answer of the API');
is($node->safe_psql('postgres', "SELECT hubex_wait($request)"), 'delivered', 'hubex_enqueue: the call is delivered');
ok(!tasks_of('ORDER-20')->[0]{deleted}, 'and has done its work');

my ($checks, $figures) = run_step(8);
is_deeply([ map { (split /\|/)[1] } split /\n/, $checks ], [ ('t') x 6 ], 'hubex_check: all is well');
like($figures, qr/^fsm\|closed\|9\|0\|[\d.]+\|\d+$/, 'hubex_stat_server has the figures');

fails("SET ROLE clerk; SELECT hubex_create_task(1)", qr/permission denied/, 'before the last step others may not');
run_step(9);
my $own = $node->safe_psql('postgres', "SET ROLE clerk; SELECT hubex_create_task(1, 'Служебная', erp_id => 'CLERK-1')");
eventually { @{ tasks_of('CLERK-1') } == 1 } 'after it the clerk makes tasks';
is($node->safe_psql('postgres', 'SET ROLE clerk; SELECT id FROM hubex.outbox'), $own, 'and sees the own request only');
$node->safe_psql('postgres', 'GRANT INSERT ON orders TO visitor');
fails("SET ROLE visitor; INSERT INTO orders VALUES (21)", qr/permission denied for foreign server fsm/,
	'who inserts into a table with a trigger needs USAGE on the server');

#
# What the text says in passing
#
succeeds($_, "$_ in the text") for spans_like(qr/^(?:SELECT|CALL) .*\(\)$/);

my ($import) = spans_like(qr/^IMPORT FOREIGN SCHEMA/);
$import =~ s/\.\.\.$/remote/ or fail('IMPORT FOREIGN SCHEMA leaves the schema open');
succeeds("CREATE SCHEMA remote; $import", $import);
is(
	$node->safe_psql('postgres', 'SELECT count(*) FROM remote.tasks'),
	scalar(grep { !defined $_->{deleted} } @{ $sandbox->tasks }),
	'a foreign table has the tasks that are not deleted');
my ($without_raw) = spans_like(qr/^OPTIONS \(raw /);
succeeds("CREATE SCHEMA small; @{[ $import =~ s/remote$/small/r ]} $without_raw", $without_raw);
is($node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE table_schema = 'remote') > 0, count(*) FILTER (WHERE table_schema = 'small')
	FROM information_schema.columns WHERE column_name = 'raw'}), 't|0', 'without it the column raw is there');
my ($parent) = spans_like(qr/^task_id = \d+$/);
fails('SELECT FROM remote.tasks_conversations', qr/\Q$parent\E/, 'a list of one parent must be told which one');
succeeds('SELECT FROM remote.tasks_conversations WHERE task_id = ' . tasks_of('ORDER-17')->[0]{id}, $parent);
my ($search) = spans_like(qr/^search_text$/);
is($node->safe_psql('postgres', "SELECT $search, erp_id FROM remote.tasks WHERE $search = 'ORDER-17'"), 'ORDER-17|ORDER-17', 'HubEx searches');
my %lists = (tables => [ split /\|/, $node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE NOT r ? 'parent'), count(*) FILTER (WHERE r ? 'parent')
	FROM hubex.connector, jsonb_each(manifest -> 'resources') AS described (name, r) WHERE connector.name = 'hubex'}) ]);
like($readme{$_}{text}, qr/\b$lists{tables}[0] (?:lists|списк)\D*\b$lists{tables}[1]\b/, "$_: how many lists there are") for sort keys %readme;
fails(q(SELECT * FROM hubex_tasks('{"colour": 1}')), qr/colour/, 'a filter that does not exist is an error');
is($node->safe_psql('postgres', q(SELECT count(*) FROM hubex_list('tasks'))), $node->safe_psql('postgres', 'SELECT count(*) FROM remote.tasks'),
	'hubex_list has the same records');

# A dead letter: retried, which does not help it here, and cancelled.
my $dead = $node->safe_psql('postgres', q(SELECT hubex_create_task(999, 'no such type')));
$node->wait_for("SELECT hubex_wait($dead)", 'dead', 'what cannot succeed is a dead letter');
is($node->safe_psql('postgres', q(SELECT ok FROM hubex_check() WHERE subject = 'outbox')), 'f', 'hubex_check tells');
my ($filter) = map { /^(\{"operation": "\w+"\})$/ } @{ $english->{spans} };
is($node->safe_psql('postgres', "SELECT hubex_retry_all('$filter')"), 0, "no dead letter matches $filter");
is($node->safe_psql('postgres', "SELECT hubex_retry($dead)"), 't', 'it is retried');
$node->wait_for("SELECT state, attempts, tried_since IS NOT NULL FROM hubex.outbox WHERE id = $dead", 'dead|1|t', 'and its attempts count anew');
is($node->safe_psql('postgres', "SELECT hubex_cancel($dead)"), 't', 'it is cancelled');
is($node->safe_psql('postgres', 'SELECT bool_and(ok) FROM hubex_check()'), 't', 'all is well again');

for my $pause (spans_like(qr/^hubex_(?:pause|resume)\('/))
{
	succeeds("SELECT $pause", $pause);
}
is($node->safe_psql('postgres', q(SELECT paused FROM hubex_stat_server WHERE server = 'fsm')), 'f', 'paused and resumed');

# What is said of triggers: the options, and the statement form.
for my $option (map { first_cell_spans($_) } table_after('trigger option'))
{
	my (undef, undef, $errors) = $node->psql('postgres', q{BEGIN; CREATE TABLE t (id int PRIMARY KEY); CREATE TRIGGER t AFTER INSERT ON t
		FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('{"task_type_id": 1}', '{"no such": 1}'); INSERT INTO t VALUES (1)});
	like($errors, qr/The options are: .*"\Q$option\E"/, "$option is an option of a trigger");
}
my ($statement) = spans_like(qr/^AFTER INSERT .* FOR EACH STATEMENT$/);
$statement =~ s/ \.\.\. / ON orders /;
succeeds("BEGIN; CREATE TRIGGER bulk $statement EXECUTE FUNCTION hubex_create_trigger('tasks', '{\"task_type_id\": 1, \"erp_id\": \"{id}\"}');
	INSERT INTO orders VALUES (30); ROLLBACK", $statement);

# Two servers, the second with foreign tables.
succeeds(
	sprintf(
		q(SELECT hubex_connect(server => 'second', connector => 'hubex', url => '%s', schema => 'second',
		credentials => '{"service_token": "%s"}', options => '{"rate_limit": "none", "page_size": 7}')),
		$sandbox->url, $sandbox->service_token),
	'hubex_connect with a schema and options');
succeeds('SELECT id FROM second.tasks', 'makes foreign tables');
fails('SELECT hubex_create_task(1)', qr/there are several/, 'of two servers one must be named');
succeeds("SET hubex.default_server = 'second'; SELECT hubex_create_task(1)", 'hubex.default_server names it');

#
# Objects: what the table names, what there is
#
my %function = map { my ($name, @rest) = split /\|/; $name => \@rest } split /\n/, $node->safe_psql(
	'postgres', q{
	SELECT CASE WHEN pronamespace = 'hubex'::regnamespace THEN 'hubex.' ELSE '' END || proname, prokind,
	       array_to_string(proargnames[1:pronargs], ', '), prorettype::regtype, obj_description(oid, 'pg_proc')
	  FROM pg_proc JOIN pg_depend ON classid = 'pg_proc'::regclass AND objid = oid AND deptype = 'e'
	 WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'hubex')});

for my $object (map { first_cell_spans($_) } table_after('object'))
{
	if ($object =~ /^(CALL )?(\w+)\((.*)\)$/)
	{
		my ($call, $name, $arguments) = ($1, $2, $3);
		my ($kind, $known, $type, $comment) = @{ $function{$name} || [] };

		# a trigger function takes its arguments from CREATE TRIGGER; its comment names them
		$known = $comment =~ /\(([^()]*)\)/ ? $1 : '' if defined $type && $type eq 'trigger';
		is($known, $arguments, "$name and its arguments");
		is($kind, $call ? 'p' : 'f', "$name is " . ($call ? 'called' : 'selected'));
	}
	else
	{
		is($node->safe_psql('postgres', "SELECT count(*) FROM pg_foreign_data_wrapper WHERE fdwname = '$object'
			OR to_regclass('$object') IS NOT NULL"), 1, "$object is there");
	}
}

my @public = grep { $function{$_}[3] =~ /^Public:/ } sort keys %function;
push @public, split /\n/, $node->safe_psql(
	'postgres', q{SELECT oid::regclass FROM pg_class WHERE obj_description(oid, 'pg_class') LIKE 'Public:%'
	AND relkind IN ('r', 'v')});
cmp_ok(scalar @public, '>=', 14, 'public objects are found');
named_in_both("$_ is public", $_) for @public;

like($node->safe_psql('postgres', "SELECT pg_get_function_arguments('hubex_wait'::regproc)"),
	qr/timeout interval DEFAULT '00:00:30'/, 'hubex_wait waits for 30 seconds');
is($function{hubex_tasks}[2], 'hubex_task', 'hubex_tasks gives rows of hubex_task');
my $response = $node->safe_psql(
	'postgres', q{SELECT '(' || string_agg(attname, ', ' ORDER BY attnum) || ')' FROM pg_attribute
	WHERE attrelid = 'hubex_response'::regclass});
named_in_both('what hubex_request returns', $response);

my ($grant) = grep { /^\| `hubex_grant/ } table_after('object');
my (undef, @levels) = $grant =~ /`([^`]+)`/g;
is(scalar @levels, 3, 'hubex_grant has three levels');
succeeds("SELECT hubex_grant('visitor', '$_')", "level $_") for @levels;

#
# The outbox
#
my %column = map { $_ => 1 } split /\n/, $node->safe_psql(
	'postgres', q{SELECT attname FROM pg_attribute WHERE attrelid = 'hubex.outbox'::regclass AND attnum > 0});
ok($column{$_}, "column $_ of the outbox") for map { first_cell_spans($_) } table_after('column');

my ($state) = grep { /^\| `state`/ } table_after('column');
my (undef, @states) = $state =~ /`([^`]+)`/g;
my $constraints = $node->safe_psql(
	'postgres', q{SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'hubex.outbox'::regclass
	AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%waiting%'});
is_deeply([ sort @states ], [ sort $constraints =~ /'(\w+)'::text/g ], 'its states');

#
# Options and settings
#
my (%default, @named);
for my $row (table_after('option'))
{
	my ($names, $defaults) = (split / \| /, $row)[ 0, 1 ];
	my @names = $names =~ /`([^`]+)`/g;
	push @named, @names;
	@default{@names} = $defaults =~ /`([^`]+)`/g;
}
my @known = options_of(q(CREATE SERVER x FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex',
	url 'https://127.0.0.1', no_such '')));
is_deeply([ sort @named ], [ sort @known ], 'the table names every option of a server');

my %value = (%default, connector => 'hubex', url => $sandbox->url, ca_file => '/etc/ssl/ca.pem',
	proxy => 'http://127.0.0.1:3128', retry_total => '7d');
ok(defined $value{$_}, "$_ has a value to try") for @named;
my $all = join ', ', map { "$_ '$value{$_}'" } grep { defined $value{$_} } @named;
succeeds("CREATE SERVER full_of_options FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($all)", 'they are accepted');
my ($rate) = grep { /^\| `rate_limit`/ } table_after('option');
my (undef, @rates) = $rate =~ /`([^`]+)`/g;
succeeds("ALTER SERVER full_of_options OPTIONS (SET $_)", "SET $_")
  for (map { "rate_limit '$_'" } @rates), "timeout '90'";

my $attempts = $node->safe_psql(
	'postgres', q(SELECT manifest #>> '{retry,attempts}' FROM hubex.connector WHERE name = 'hubex'));
for my $file (sort keys %readme)
{
	my ($said) = $readme{$file}{text} =~ /(\d[\d,]*) (?:attempts|попыток)/;
	is($said && $said =~ tr/,//dr, $attempts, "$file: how many attempts there are");
}
is(
	$node->safe_psql(
		'postgres', q{SELECT m #>> '{limits,rate}', m #>> '{limits,connections}', m #>> '{limits,page_size}',
		m #>> '{options,application_id,default}', m #>> '{retry,attempts}', m #>> '{retry,base}' || 's', m #>> '{retry,factor}',
		(m #>> '{retry,cap}')::int / 60 || 'min', m #>> '{retry,jitter}' FROM hubex.connector c (n, m) WHERE n = 'hubex'}),
	join('|', @default{qw(rate_limit max_connections page_size application_id retry_attempts retry_base retry_factor retry_cap retry_jitter)}),
	'the defaults are those of the connector');

named_in_both("$_, an option of a server", $_) for @known;
named_in_both("$_, an option of a user mapping", $_)
  for options_of(q(CREATE USER MAPPING FOR visitor SERVER fsm OPTIONS (no_such '')));
my @of_tables = map { first_cell_spans($_) } table_after('table option');
is_deeply([ sort @of_tables ], [ sort(options_of(q(CREATE FOREIGN TABLE x () SERVER fsm OPTIONS (no_such '')))) ],
	'the table names every option of a foreign table');
my ($always) = map { /`(\{.*?\})`/ } grep { /^\| `filter` \| none/ } table_after('table option');
%value = (resource => 'tasks', filter => $always, include_deleted => 'true', on_error => 'null', page_size => 100);
succeeds('CREATE FOREIGN TABLE remote.full_of_options (id bigint, task_type_id bigint) SERVER fsm OPTIONS ('
	  . join(', ', map { "$_ '$value{$_}'" } @of_tables) . ')', 'they are accepted');
succeeds('SELECT id FROM remote.full_of_options', 'and read by');

my ($path) = spans_like(qr/^company\.id$/);
my ($column_filter) = map { /`(\w+)` *\|$/ } grep { /^\| `filter` \| the column/ } table_after('column option');
succeeds(
	"CREATE FOREIGN TABLE remote.own (id bigint, customer bigint OPTIONS (path '$path'),
	 asked bigint OPTIONS (filter '$column_filter'), tenant text OPTIONS (constant 'one'))
	 SERVER fsm OPTIONS (resource 'tasks')",
	"columns with path, filter and constant");
is($node->safe_psql('postgres', 'SELECT DISTINCT tenant, asked FROM remote.own'), 'one|', 'a constant and a filter');
is(
	$node->safe_psql('postgres', 'SELECT count(*) FROM remote.own JOIN remote.tasks USING (id) WHERE customer = company_id'),
	$node->safe_psql('postgres', 'SELECT count(company_id) FROM remote.tasks'),
	'has what stands there');
is_deeply([ sort map { first_cell_spans($_) } table_after('column option') ],
	[ sort(options_of(q(ALTER FOREIGN TABLE remote.own ALTER id OPTIONS (no_such '')))) ], 'the table names every option of a column');

my @settings = split /\n/, $node->safe_psql('postgres', q(SELECT name FROM pg_settings WHERE name LIKE 'hubex.%'));
named_in_both("the setting $_", $_) for @settings;
for my $row (table_after('setting'))
{
	my ($name, $default) = $row =~ /^\| `([^`]+)` \| (?:`([^`]+)`|empty) \|/;
	is($node->safe_psql('postgres', "SHOW $name"), $default // '', "$name and its default");
}
is($node->safe_psql('postgres', "SELECT to_regclass('$_') IS NOT NULL OR current_setting('$_', true) IS NOT NULL"),
	't', "$_ is a table or a setting")
  for spans_like(qr/^hubex\.\w+$/);

#
# The programs
#
my $help = qx(make -s help 2>&1);
my @goals = map { /\bmake(?: ([a-z][a-z-]*))?/g } map({ $_->{code} } @{ $english->{blocks} }), @{ $english->{spans} };
cmp_ok(scalar @goals, '>=', 6, 'the README names goals');
for my $goal (sort { $a cmp $b } keys %{ { map { ($_ // '') => 1 } @goals } })
{
	like($help, $goal eq '' ? qr/^make  / : qr/\bmake \Q$goal\E(?![\w-])/m, "make help has: make $goal");
}

#
# The statements of docs/foreign-tables.md, in a database of their own
#
my @tables = map { "docs/foreign-tables$_.md" } '', '.ru';
my @mirrors = map { "docs/mirrors$_.md" } '', '.ru';    # 350 runs what they say
$readme{$_} = read_readme($_) for @tables, @mirrors;
my $tenants = join ' ', map { sprintf q{CREATE SERVER %1$s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '%2$s', rate_limit 'none');
	CREATE USER MAPPING FOR PUBLIC SERVER %1$s OPTIONS (service_token '%3$s');}, $_, $sandbox->url, $sandbox->service_token } qw(fsm north south);
$node->safe_psql('postgres', 'CREATE DATABASE tables');
$node->safe_psql('tables', "CREATE EXTENSION hubex; $tenants
	CREATE SCHEMA erp; CREATE TABLE erp.orders (erp_id text, customer text); CREATE SCHEMA everything");
my $csv = $node->basedir . '/tasks.csv';
append_to_file($csv, "1,Из файла,CSV-1\n");
my $talked = tasks_of('ORDER-17')->[0]{id};
for my $block (map { $_->{code} } grep { $_->{language} eq 'sql' } @{ $readme{ $tables[0] }{blocks} })
{
	for my $statement (grep { /\S/ } split /;\s*\n/, without_comments($block))
	{
		$statement =~ s{/tmp/tasks\.csv}{$csv};
		$statement =~ s{\btask_id = \d+}{task_id = $talked};
		my ($status, undef, $errors) = $node->psql('tables', $statement);
		ok($status == 0, "$tables[0]: " . ($statement =~ /\A\s*([^\n]*)/)[0]) or diag "$statement\n$errors";
	}
}
is($node->safe_psql('tables', q{SELECT count(*) FROM pg_foreign_table t JOIN pg_class c ON c.oid = t.ftrelid
	WHERE relnamespace = 'everything'::regnamespace}), $lists{tables}[0] + $lists{tables}[1], 'all tables there are');
like($readme{$_}{text}, qr/\b@{[ $lists{tables}[0] + $lists{tables}[1] ]} (?:tables|таблиц)/, "$_: how many tables there are") for @tables;

#
# The two languages
#
same_in_both(qw(README.md README.ru.md));
same_in_both(@tables);
same_in_both(@mirrors);
done_testing;

sub same_in_both
{
	my @files = @_;
	my ($one, $other) = map { $readme{$_} } @files;
	is_deeply(
		[ map { [ $_->{language}, without_comments($_->{code}) ] } @{ $other->{blocks} } ],
		[ map { [ $_->{language}, without_comments($_->{code}) ] } @{ $one->{blocks} } ],
		"$files[1] has the same blocks of code");
	is_deeply($other->{outline}, $one->{outline}, 'and the same outline');
	for my $n (0 .. $#{ $one->{sections} })
	{
		is_deeply(
			[ spans_of($other->{sections}[$n] // '') ],
			[ spans_of($one->{sections}[$n]) ],
			'and the same code in: ' . ($one->{sections}[$n] =~ /\A#+ (.*)/ ? $1 : 'the text before'));
	}
	is_deeply(
		[ map { join ' ', first_cell_spans($_) } grep { /^\| `/ } split /\n/, $other->{text} ],
		[ map { join ' ', first_cell_spans($_) } grep { /^\| `/ } split /\n/, $one->{text} ],
		'and the same rows of tables');

	for my $file (@files)
	{
		my @links = @{ $readme{$file}{links} };
		is_deeply([ grep { !resolves($file, $_) } @links ], [], "$file: links lead somewhere") if @links;
		my ($translation) = map { s/.*\///r } grep { $_ ne $file } @files;
		ok((grep { $_ eq $translation } @links), "$file leads to $translation");
	}
	is_deeply([ links_without_language($other) ], [ links_without_language($one) ], 'and the same links');
}

sub links_without_language
{
	my ($text) = @_;
	return sort map { s/\.ru\.md/.md/r =~ s/#.*//r } grep { !/^#/ } @{ $text->{links} };
}

#
# The server
#

# Runs the statements of a step, each of which must succeed; returns what each printed.
sub run_step
{
	my ($number) = @_;
	my @statements = grep { without_comments($_) =~ /\S/ } split /(?<=;)[^\S\n]*(?:--[^\n]*)?\n/, $steps[$number];
	return map { succeeds($_, "step $number: " . (without_comments($_) =~ /(\S[^\n]*)/)[0]) } @statements;
}

# The lines of a plan, without what depends on the data, on the version, or on how it is shown.
sub plan_lines
{
	my ($plan) = @_;
	return [ map { s/^\s+|\s+$//gr =~ s/actual rows=\S+/actual rows=n/r =~ s/^Bytes: \K\d+/n/r } split /\n/, $plan ];
}

sub succeeds
{
	my ($sql, $what) = @_;
	my ($status, $out, $errors) = $node->psql('postgres', $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($status == 0, $what) or diag "$sql\n$errors";
	return $out;
}

sub fails
{
	my ($sql, $why, $what) = @_;
	my ($status, undef, $errors) = $node->psql('postgres', $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $status != 0 ? like($errors, $why, $what) : fail($what);
}

# The options that the answer to an unknown one lists.
sub options_of
{
	my ($statement) = @_;
	my (undef, undef, $errors) = $node->psql('postgres', $statement);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($errors, qr/Valid options in this context are: /, 'the valid options are listed');
	return split /, /, $errors =~ /Valid options in this context are: (.*)\.$/m ? $1 : '';
}

sub all_delivered
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_for(q(SELECT string_agg(DISTINCT hubex_wait(id), ',') FROM hubex.outbox), 'delivered', $what);
}

sub outbox_line
{
	my ($id, $order) = @_;
	my $task = tasks_of("ORDER-$order")->[0];
	return "$id|create|ORDER-$order|delivered|1||$task->{id}|$task->{number}";
}

sub tasks_of
{
	my ($erp_id) = @_;
	return [ grep { ($_->{erpID} // '') eq $erp_id } @{ $sandbox->tasks } ];
}

sub replace
{
	my ($from, $to, $text) = @_;
	$text //= \$cookbook;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($$text =~ s/\Q$from\E/$to/, "the cookbook has $from to fill in");
}

#
# The texts
#
sub read_readme
{
	my ($file) = @_;
	my $text = slurp_file($file);
	my @blocks;
	my $prose = $text =~ s{^```(\w*)\n(.*?)^```\n}{push @blocks, { language => $1, code => $2 }; ''}gmser;
	my @headings = $prose =~ /^(#+ .*)$/gm;
	return {
		text => $text,
		blocks => \@blocks,
		spans => [ spans_of($prose) ],
		sections => [ split /^(?=#)/m, $prose ],
		outline => [ map { /^(#+)/ } @headings ],
		anchors => { map { anchor($_) => 1 } @headings },
		links => [ $prose =~ /\]\(([^()\s]+)\)/g ] };
}

# What stands in backquotes in a text, each once, sorted.
sub spans_of
{
	my ($text) = @_;
	my %seen = map { s/\s+/ /gr => 1 } $text =~ /`([^`]+)`/g;
	return sort keys %seen;
}

sub spans_like
{
	my ($pattern) = @_;
	my @found = grep { $_ =~ $pattern } @{ $english->{spans} };
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(scalar @found, "the README has $pattern");
	return @found;
}

# The rows of the table whose first heading is this one.
sub table_after
{
	my ($heading) = @_;
	my ($rows) = $english->{text} =~ /^\| \Q$heading\E \|.*\n\| ---.*\n((?:\|.*\n)+)/m;
	return split /\n/, $rows // '';
}

sub first_cell { return ($_[0] =~ /^\| (.*?) \|/)[0] }
sub first_cell_spans { return first_cell($_[0]) =~ /`([^`]+)`/g }

sub without_comments { return $_[0] =~ s/[^\S\n]*(?:--|#) .*$//gmr }

# In what stands in backquotes, as a word of its own.
sub named_in_both
{
	my ($what, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @without = grep { !grep { /(?<![\w.])\Q$name\E(?!\w)/ } @{ $readme{$_}{spans} } } sort keys %readme;
	is_deeply(\@without, [], "$what: named in both READMEs");
}

# As GitHub makes it from a heading.
sub anchor
{
	my ($heading) = @_;
	my $text = lc decode('UTF-8', $heading =~ s/^#+ //r);
	return encode_utf8($text =~ s/[^\w\s-]//gr =~ s/\s/-/gr);
}

sub resolves
{
	my ($file, $link) = @_;
	my ($target, $anchor) = split /#/, $link, 2;
	return 1 if $link =~ /^https:/;
	my $place = $target eq '' ? $file : ($file =~ m{(.*/)} ? $1 : '') . $target;
	return -e $place && (!defined $anchor || read_readme($place)->{anchors}{$anchor});
}
