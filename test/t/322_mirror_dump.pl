# Mirrors in a dump, and in a copied database: subscriptions come with how far they are, and are held: nothing is read, and
# said so, while the mirrors can be queried, until hubex_take_over(); then they go on from there, the middle of a sweep
# too. A dump of what was restored is the same again. The original goes on all the while. DROP EXTENSION ends what runs.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;

my @list = (method => 'GET', path => '/WORK/Tasks');
my $sandbox = Hubex::Sandbox->new(tasks => 3000);
my $node = Hubex::Node->new('main', max_worker_processes => 32);
my $folder = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', 'CREATE DATABASE erp');
$node->start_hubex($sandbox, database => 'erp', page_size => 500);
my $original = Hubex::Client->new($node, database => 'erp');
$original->query(q{
	CREATE ROLE "keeper of mirrors" LOGIN;
	CREATE SCHEMA fsm; CREATE SCHEMA mirrors;
	IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO fsm;
	CREATE FOREIGN TABLE fsm.short (id bigint, notes text, last_modified timestamptz) SERVER fsm OPTIONS (resource 'tasks');
	SELECT hubex_subscribe('tasks', 'fsm.short', 'mirrors.tasks', every => '1 second', full_every => '1 day', full_at => '3:00');
	SELECT hubex_subscribe('half', 'fsm.tasks', 'mirrors."half of them"', every => NULL, deletes => 'mark', filter => '{"taskTypeID": [1, 2, 3, 4, 5, 6, 7, 8]}', on_drift => 'null');
	CREATE TABLE mirrors.lost (id bigint PRIMARY KEY);
	SELECT hubex_subscribe('lost', 'fsm.short', 'mirrors.lost', every => NULL);
	CREATE TABLE mirrors.by_type (id bigint, task_type_id bigint, created timestamptz, PRIMARY KEY (id, created)) PARTITION BY RANGE (created);
	CREATE TABLE mirrors.by_type_1 PARTITION OF mirrors.by_type FOR VALUES FROM (MINVALUE) TO ('2025-04-01'); CREATE TABLE mirrors.by_type_2 PARTITION OF mirrors.by_type DEFAULT;
	SELECT hubex_subscribe('parted', 'fsm.tasks', 'mirrors.by_type', every => NULL, columns => '{"id": "id", "task_type_id": "task_type_id", "created": "created"}')});
eventually { $original->query(q(SELECT filled_at IS NOT NULL FROM hubex.subscription_state WHERE subscription = 'tasks')) eq 't' } 'the worker fills a mirror', 60;
$original->query(q(CALL hubex_sync('parted')));
$original->query(q(SELECT hubex_pause('fsm')));    # all stands still
my $hang = $sandbox->fault(@list, query => 'taskTypeID=*orderBy=1&*', after => 3, fault => 'hang', probability => 1);
$original->query(q(SELECT hubex_resume('fsm')));
my $other = Hubex::Client->new($node, database => 'erp');
$other->send(q(CALL hubex_sync('half')));
eventually { $original->query(q(SELECT sweep_position FROM hubex.subscription_state WHERE subscription = 'half')) >= 1000 } 'another is in the middle of its first sweep', 60;
$original->query('SELECT pg_cancel_backend(' . $other->pid . ')');
$other->answer;
$original->query(q{
	SELECT hubex_pause('fsm');
	UPDATE hubex.subscription_state SET drift = '{"notes": {"problem": "said", "since": "2026-01-01", "count": 3}}', last_error = E'said "it"\n' WHERE subscription = 'half';
	INSERT INTO hubex.tombstone VALUES ('half', 'gone', now()); INSERT INTO hubex.conflict (subscription, key, column_name, kept, reason) VALUES ('half', '1', 'notes', 'local', 'newer');
	DROP TABLE mirrors.lost});
$original->query(q(UPDATE hubex.subscription SET owner = 'keeper of mirrors' WHERE name = 'parted'));
my $position = $original->query(q(SELECT sweep_position FROM hubex.subscription_state WHERE subscription = 'half'));
$sandbox->clear_faults($hang);

#
# Dumps
#
my @no_statistics = $node->pg_version >= 18 ? '--no-statistics' : ();    # they change with every restore
succeeds('pg_dump', 'pg_dump', @no_statistics, '-f', "$folder/plain", $node->connstr('erp'));
succeeds('pg_dump --format=custom', 'pg_dump', '--format=custom', @no_statistics, '-f', "$folder/custom", $node->connstr('erp'));
succeeds('pg_dump --format=directory', 'pg_dump', '--format=directory', @no_statistics, '-f', "$folder/directory", $node->connstr('erp'));
my $rows = rows($original);
for my $format (qw(plain custom directory))
{
	$node->safe_psql('postgres', "CREATE DATABASE $format TEMPLATE template0");
	succeeds("$format is restored", $format eq 'plain'
		? ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($format), '-f', "$folder/plain")
		: ('pg_restore', '--exit-on-error', ($format eq 'custom' ? '--single-transaction' : '--jobs=2'), '-d', $node->connstr($format), "$folder/$format"));
	my $copy = Hubex::Client->new($node, database => $format);
	is(rows($copy), $rows, '... with its subscriptions and how far they are');
	is($copy->query(q(SELECT count(*) FROM hubex.subscription WHERE name = 'lost')), 0, '... but for one whose table is gone');
	succeeds('... and dumped again', 'pg_dump', @no_statistics, '-f', "$folder/again", $node->connstr($format));
	my @lines = map { [ split /\n/, text("$folder/$_") ] } qw(plain again);
	my @differ = grep { ($lines[0][$_] // '') ne ($lines[1][$_] // '') } 0 .. $#{ $lines[0] };
	is(scalar @differ, 0, '... to the same') or diag map { "$lines[0][$_]\n$lines[1][$_]\n" } grep { defined } @differ[ 0 .. 3 ];
}

# They are held.
$original->query(q(SELECT hubex_resume('fsm')));
my %there = map { $_ => Hubex::Client->new($node, database => $_) } qw(plain custom directory);
$_->query(q(SELECT hubex_resume('fsm'))) for values %there;
held($there{$_}, $_) for sort keys %there;
my $own = Hubex::Client->new($node, database => 'plain');
is($own->try(q(SELECT hubex_subscribe('own', 'fsm.short', 'mirrors.own', every => '1 second')))->{notices}, '', 'a mirror that is made in the copy');
eventually { $own->query(q(SELECT state FROM hubex_stat_sync WHERE name = 'own')) eq 'in step' } '... is filled', 60;
is($own->query(q(SELECT string_agg(DISTINCT state, ',') FROM hubex_stat_sync WHERE name <> 'own')), 'held', '... while the others are held');

# Taking over
my $changed = 0;
for my $database (qw(custom directory))
{
	my $copy = $there{$database};
	$sandbox->clear_journal;
	is($copy->query('SELECT hubex_take_over()'), 0, "$database takes over");
	is($copy->query(q(SELECT count(*) FROM hubex_check() WHERE subject = 'mirror' AND message LIKE '%held%')), 0, '... hubex_check() has nothing more to say of that')
	  or diag $copy->query(q(SELECT message FROM hubex_check()));
	changes($copy, 'tasks', $database);
	is($copy->try(q(CALL hubex_sync('half')))->{error}, undef, '... the sweep goes on');
	my @asked = map { $_->{headers}{range} } grep { my %names = map { $_->[0] => 1 } @{ $_->{query} }; $names{taskTypeID} && !$names{lastModifiedFrom} } @{ $sandbox->journal(@list) };
	my ($first) = map { /=(\d+)-/ } @asked;
	cmp_ok($first, '>', $position - 20, "... where it was: @asked") or diag "position $position";
	same($copy, 'fsm.tasks', 'mirrors."half of them"', 'id, notes, task_type_id, last_modified', 'deleted IS NULL', 'task_type_id <= 8');
	is($copy->query(q(SELECT owner FROM hubex.subscription WHERE name = 'parted')), 'keeper of mirrors', '... roles are known by their names');
}
changes($original, 'tasks', 'the original');
is($original->query('SELECT hubex.held()'), '', 'the original was never held');

#
# A copied database
#
$_->end for values %there, $original, $own, $other;
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE erp');
$original = Hubex::Client->new($node, database => 'erp');
my $copied = Hubex::Client->new($node, database => 'copied');
held($copied, 'CREATE DATABASE ... TEMPLATE', 'held');
changes($original, 'tasks', 'the original, whose worker made way');
is($copied->query('SELECT hubex_take_over()'), 0, 'the copy takes over');
changes($copied, 'tasks', 'the copy');
is($copied->try(q(CALL hubex_sync('half')))->{error}, undef, '... and its sweep goes on');
same($copied, 'fsm.tasks', 'mirrors."half of them"', 'id, notes, task_type_id, last_modified', 'deleted IS NULL', 'task_type_id <= 8');

#
# DROP EXTENSION, in the middle of a sweep and of an incremental run
#
$sandbox->fault(@list, fault => 'delay', seconds => 0.2, probability => 1);
$copied->query(q(SELECT hubex_subscribe('late', 'fsm.tasks', 'mirrors.late', every => '1 second')));
eventually { $copied->query(q(SELECT count(*) FROM hubex_stat_progress_sync WHERE subscription = 'late')) > 0 } 'a sweep is under way', 30;
is($copied->try('DROP EXTENSION hubex CASCADE', 60)->{error}, undef, 'DROP EXTENSION waits for nobody for long');
is($copied->query('SELECT count(*) > 0 FROM mirrors.tasks'), 't', '... the mirrors stay');
is($copied->query(q(SELECT count(*) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE c.relnamespace = 'mirrors'::regnamespace AND c.relkind = 'r' AND d.deptype = 'e')), 0, '... ordinary tables');
is($copied->try('CREATE EXTENSION hubex')->{error}, undef, '... and it can be made again');
eventually { $copied->query('SELECT state FROM hubex.worker_state()') eq 'running' } '... with its worker', 30;
my @log = grep { !/unknown connector|terminating|lost/ } grep { /ERROR|FATAL|PANIC|deadlock/ } grep { /hubex (?:sync|delivery)/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
is_deeply(\@log, [], 'no worker has complained');
done_testing;

# What a dump has of subscriptions.
sub rows
{
	my ($client) = @_;
	return $client->query(q{
		SELECT 'subscription', s.* FROM hubex.subscription s WHERE name <> 'lost' ORDER BY name;
		SELECT 'state', s.* FROM hubex.subscription_state s WHERE subscription <> 'lost' ORDER BY subscription;
		SELECT 'page', s.* FROM hubex.sweep_page s ORDER BY subscription, position;
		SELECT 'tombstone', s.* FROM hubex.tombstone s ORDER BY subscription, key;
		SELECT 'conflict', s.* FROM hubex.conflict s ORDER BY id});
}

# Nothing is read in a copy, which says so, and its mirrors are there.
sub held
{
	my ($copy, $what, $state) = (@_, 'running');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = $copy->query(q(SELECT string_agg(requests::text, ',' ORDER BY subscription) FROM hubex.subscription_state));
	is($copy->query(q(SELECT string_agg(DISTINCT state, ',') FROM hubex_stat_sync)), 'held', "$what: hubex_stat_sync says held");
	my $answer = $copy->try(q(CALL hubex_sync('tasks')));
	is($answer->{sqlstate}, '55000', "... CALL hubex_sync() refuses: " . ($answer->{error} // ''));
	like($copy->query(q(SELECT string_agg(message || ' ' || COALESCE(hint, ''), '; ') FROM hubex_check() WHERE subject IN ('mirror', 'binding') AND NOT ok)), qr/held.*hubex_take_over\(\)/, '... hubex_check() says what to do');
	is($copy->query('SELECT count(*) > 0 FROM mirrors.tasks'), 't', '... the mirror can be queried');
	eventually { $copy->query("SELECT count(*) FROM hubex_stat_worker WHERE kind = 'sync' AND state = '$state' AND database = current_database()") == 1 } "... a worker is there, $state", 60
	  or diag $copy->query('SELECT * FROM hubex_stat_worker');
	is($copy->query(q(SELECT string_agg(requests::text, ',' ORDER BY subscription) FROM hubex.subscription_state)), $before, '... and has asked for nothing');
}

# What changes remotely comes to a mirror, by the worker.
sub changes
{
	my ($client, $mirror, $what) = @_;
	my $notes = 'change ' . ++$changed;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @ids = split /,/, $client->query("SELECT string_agg(id::text, ',') FROM (SELECT id FROM mirrors.$mirror ORDER BY id LIMIT 4) s");
	$sandbox->orders(map { { list => 'tasks', kind => 'change', id => $_ + 0, fields => { notes => $notes } } } @ids);
	eventually { $client->query("SELECT count(*) FROM mirrors.$mirror WHERE notes = '$notes'") == 4 } "... $what: the mirror follows", 30;
}

sub same
{
	my ($client, $foreign, $target, $columns, $ours, $theirs) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("WITH r AS MATERIALIZED (SELECT $columns FROM $foreign WHERE $theirs), m AS MATERIALIZED (SELECT $columns FROM $target WHERE $ours)
		SELECT (SELECT count(*) FROM (TABLE m EXCEPT TABLE r) x) || ' ' || (SELECT count(*) FROM (TABLE r EXCEPT TABLE m) x) || ' ' || (SELECT count(*) > 0 FROM m)"), '0 0 true', "... $target is what $foreign is");
}

sub succeeds
{
	my ($what, @command) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = "$folder/log";
	my $done = PostgreSQL::Test::Utils::run_log(\@command, '>', $log, '2>&1');
	ok($done && text($log) !~ /ERROR:/, $what) or diag text($log);
}

sub text
{
	my ($file) = @_;
	# what differs from dump to dump: the random key of \restrict
	return PostgreSQL::Test::Utils::slurp_file($file) =~ s/^\\(?:un)?restrict .*//mgr;
}
