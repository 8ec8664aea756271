# A database with hubex can be dumped and restored with PostgreSQL's own tools and no error: the extension, its servers
# and user mappings, connectors of the user's own and the servers that speak them, foreign tables, triggers and rights.
# A dump of the restored database is the same again, and the restored database works.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main');
$node->safe_psql('postgres', 'CREATE DATABASE erp');
$node->start_hubex($sandbox, database => 'erp');
$node->safe_psql('erp', q{
	CREATE ROLE clerk; CREATE ROLE manager; CREATE ROLE chief;
	INSERT INTO hubex.connector (name, manifest)
		SELECT 'ours', jsonb_set(manifest, '{connector}', '"ours"') FROM hubex.connector WHERE name = 'hubex';
	CREATE SERVER mine FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'ours', url 'https://mine.example/fsm',
		application_id '7', rate_limit '2/s burst 50', timeout '30s');
	CREATE USER MAPPING FOR clerk SERVER mine OPTIONS (service_token 'secret');
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO fsm;
	CREATE TABLE orders (id int PRIMARY KEY, what text);
	CREATE TRIGGER to_hubex AFTER INSERT ON orders FOR EACH ROW
		EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 1, "notes": "{what}", "erp_id": "order-{id}"}');
	SELECT hubex_grant('clerk', 'read'); SELECT hubex_grant('manager', 'enqueue'); SELECT hubex_grant('chief', 'admin');
	GRANT USAGE ON FOREIGN SERVER fsm TO clerk, manager;
	INSERT INTO orders VALUES (1, 'before the dump');
});
eventually { tasks('before the dump') == 1 } 'a row is delivered before the dump', 10;
$node->safe_psql('erp', q{
	SELECT hubex_pause('mine', 'for good');
	SELECT hubex_create_task(1, 'in the dump', server => 'fsm', deliver_after => now() + interval '1 hour', fields => jsonb_build_object('contactPerson', 'Ё' || chr(34) || chr(92) || chr(9)));
	SELECT hubex_enqueue('POST', '/WORK/Tasks', content => '\\x00ff', content_type => 'application/octet-stream',
		server => 'fsm', idempotency_key => 'x', deliver_after => now() + interval '1 hour');
});

my $folder = PostgreSQL::Test::Utils::tempdir();
my @no_statistics = $node->pg_version >= 18 ? '--no-statistics' : ();    # they change with every restore
for my $format (qw(custom directory plain))
{
	my $dump = "$folder/$format";
	my $copy = "erp_$format";
	$node->safe_psql('postgres', "CREATE DATABASE $copy TEMPLATE template0");
	succeeds("pg_dump --format=$format", 'pg_dump', "--format=$format", @no_statistics, '-f', $dump, $node->connstr('erp'));
	succeeds('... is restored without an error', $format eq 'plain'
		? ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($copy), '-f', $dump)
		: ('pg_restore', '--exit-on-error', ($format eq 'custom' ? '--single-transaction' : '--jobs=2'),
			'-d', $node->connstr($copy), $dump));
	is_deeply(catalog($copy), catalog('erp'), '... to what it was');
	succeeds('... and dumped again', 'pg_dump', @no_statistics, '-f', "$dump.again", $node->connstr($copy));
	is(text("$dump.again"), text("$folder/plain"), '... to the same') if $format eq 'plain';

	is($node->safe_psql($copy, 'SELECT max(id) FROM hubex.outbox'), 3, '... with the outbox');
	$node->safe_psql($copy, "INSERT INTO orders VALUES (2, 'of $copy')");
	is($node->safe_psql($copy, 'SELECT max(id) FROM hubex.outbox'), 4, '... whose ids go on');
	eventually { tasks("of $copy") == 1 } '... and its rows are delivered', 10;
	is($node->safe_psql($copy, q(SELECT count(*) > 0 FROM fsm.tasks)), 't', '... its foreign tables read');
}
is(tasks('before the dump'), 1, 'nothing is sent again by a copy');
is(tasks('in the dump'), 0, '... and nothing that its original still has to send');

#
# Parts of it
#
$node->safe_psql('postgres', 'CREATE DATABASE parts TEMPLATE template0');
for my $section (qw(pre-data data post-data))
{
	succeeds("section $section", 'pg_dump', '--format=custom', "--section=$section", '-f', "$folder/$section",
		$node->connstr('erp'));
	succeeds('... is restored', 'pg_restore', '--exit-on-error', '-d', $node->connstr('parts'), "$folder/$section");
}
is_deeply(catalog('parts'), catalog('erp'), 'the sections make the whole');

succeeds('pg_dumpall', 'pg_dumpall', '-f', "$folder/all", '-d', $node->connstr('postgres'));
my $second = Hubex::Node->new('second');
succeeds('... is restored into another server', 'psql', '-XAtq', '-d', $second->connstr('postgres'), '-f', "$folder/all");
is_deeply(catalog('erp', $second), catalog('erp'), '... to what it was');
eventually { $second->safe_psql('erp', 'SELECT state FROM hubex.worker_state()') eq 'running' } 'a worker runs there', 10;
done_testing;

sub tasks { my ($notes) = @_; return scalar grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks } }

sub succeeds
{
	my ($what, @command) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = "$folder/log";
	my $done = PostgreSQL::Test::Utils::run_log(\@command, '>', $log, '2>&1');
	ok($done && text($log) !~ /ERROR:.*(?<!already exists)$/m, $what) or diag text($log);
}

sub text
{
	my ($file) = @_;
	# what differs from dump to dump: the random key of \restrict
	return PostgreSQL::Test::Utils::slurp_file($file) =~ s/^\\(?:un)?restrict .*//mgr;
}

# All that the dump is to bring back.
sub catalog
{
	my ($database, $server) = @_;
	return [ split /\n/, ($server // $node)->safe_psql($database, q{
		SELECT 'server', srvname, (SELECT array_agg(o ORDER BY o) FROM unnest(srvoptions) o), srvacl FROM pg_foreign_server ORDER BY 2;
		SELECT 'mapping', srvname, usename, umoptions FROM pg_user_mappings ORDER BY 2, 3;
		SELECT 'connector', name, md5(manifest::text), builtin FROM hubex.connector ORDER BY 2;
		SELECT 'policy', polname, polroles::regrole[], pg_get_expr(polqual, polrelid), polcmd FROM pg_policy ORDER BY 2;
		SELECT 'relation', oid::regclass::text, relkind, relrowsecurity, relacl FROM pg_class
			WHERE relnamespace IN ('hubex'::regnamespace, 'public'::regnamespace, 'fsm'::regnamespace) ORDER BY 2;
		SELECT 'function', oid::regprocedure::text, proacl FROM pg_proc
			WHERE pronamespace IN ('hubex'::regnamespace, 'public'::regnamespace) ORDER BY 2;
		SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 2;
		SELECT 'foreign table', ftrelid::regclass::text, ftoptions FROM pg_foreign_table ORDER BY 2;
		SELECT 'row', * FROM orders WHERE id = 1;
		SELECT 'request', o.* FROM hubex.outbox o WHERE id < 4 ORDER BY id;
		SELECT 'state', * FROM hubex.server_state;
	}) ];
}
