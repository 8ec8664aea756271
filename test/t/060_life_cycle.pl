# Delivery begins with CREATE EXTENSION, in any number of databases, without a restart or a setting, and ends with
# DROP EXTENSION. A peer that hangs holds nobody up: with requests in flight at four of them, one for each stage of a
# request, and a mirror of each being filled, whatever is done to the extension, the database or the server is done in
# three seconds, and the workers are back afterwards.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my %hang = map { $_ => Hubex::Sandbox->hang($_) } qw(connect tls headers body);
my $node = Hubex::Node->new('main', max_worker_processes => 32, allow_in_place_tablespaces => 'on');

my $limit = 3;

#
# CREATE EXTENSION, in several databases at once
#
{
	my @databases = map { "shop$_" } 1 .. 4;
	$node->safe_psql('postgres', "CREATE DATABASE $_") for @databases;
	my @clients = map { Hubex::Client->new($node, database => $_) } @databases;
	$_->send('CREATE EXTENSION hubex; ' . make_server('fsm', $sandbox->url)
		. q(; SELECT hubex_create_task(1, 'of ' || current_database()))) for @clients;
	$_->answer for @clients;
	delivers('each of four databases', map { "of $_" } @databases);
	is(running(@databases), 4, 'by a worker of its own');
	$_->end for @clients;
	$node->safe_psql('postgres', "DROP DATABASE $_") for @databases;
}

#
# DROP EXTENSION, and again
#
busy('erp');
in_time('DROP EXTENSION', erp => 'DROP EXTENSION hubex CASCADE');
$node->wait_for(q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'erp'), 0, 'the workers are gone with it', 10);
$node->safe_psql('erp', 'CREATE EXTENSION hubex; ' . make_server('fsm', $sandbox->url));
enqueue(erp => 'again');
delivers('the extension that was made again', 'again');

# in one transaction, which the worker cannot see
{
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 2, times => 1);
	my $before = @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
	enqueue(erp => 'of the old extension');
	eventually { @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') } > $before } 'a request is on its way';
	$node->safe_psql('erp', 'BEGIN; DROP EXTENSION hubex CASCADE; CREATE EXTENSION hubex; '
		. make_server('fsm', $sandbox->url) . '; COMMIT;');
	enqueue(erp => "of the new extension $_") for 1 .. 4;
	delivers('the extension made again within a transaction', map { "of the new extension $_" } 1 .. 4);
	my %id = map { $_->{request}{notes} // '' => $_->{id} } @{ $sandbox->tasks };
	eventually { $node->safe_psql('erp', q(SELECT string_agg(remote_id, ' ' ORDER BY id) FROM hubex.outbox)) eq
		  join ' ', map { $id{"of the new extension $_"} } 1 .. 4 } 'each request has the answer to itself';
	my $call = Hubex::Client->new($node, database => 'erp');
	$call->query("SET statement_timeout = '5s'");
	is($call->try('CALL hubex_deliver()')->{error}, undef, 'hubex_deliver runs beside the worker');
}

#
# The database
#
busy('erp');
my $worker = worker('erp');
in_time('CREATE DATABASE ... TEMPLATE', postgres => 'CREATE DATABASE copy TEMPLATE erp');
comes_back('erp');
comes_back('copy');
isnt(worker('erp'), $worker, 'the workers of the template made way');
$node->safe_psql('copy', 'SELECT hubex_take_over()');    # a copy is held until then
enqueue($_ => "after, in $_") for qw(erp copy);
delivers('the template and its copy', 'after, in erp', 'after, in copy');

# at once after one another, so that the worker is about to come back when it is to go
{
	my $client = Hubex::Client->new($node);
	in_time("copy $_", $client => "CREATE DATABASE copy$_ TEMPLATE erp") for 1 .. 8;
	comes_back('erp', 'copy8');
	in_time("DROP DATABASE, copy $_,", $client => "DROP DATABASE copy$_") for 1 .. 8;
}

in_time('ALTER DATABASE ... RENAME', postgres => 'ALTER DATABASE erp RENAME TO crm');
comes_back('crm');
$node->safe_psql('postgres', q(CREATE TABLESPACE elsewhere LOCATION ''));
in_flight('crm');
in_time('ALTER DATABASE ... SET TABLESPACE', postgres => 'ALTER DATABASE crm SET TABLESPACE elsewhere');
comes_back('crm');
enqueue(crm => 'moved');
delivers('the database with a new name in a new place', 'moved');

in_flight('crm');
in_time('DROP DATABASE', postgres => 'DROP DATABASE crm');
in_flight('copy');
in_time('DROP DATABASE ... WITH (FORCE)', postgres => 'DROP DATABASE copy WITH (FORCE)');

#
# The server
#
busy('erp');
$worker = worker('erp');
$node->append_conf('postgresql.conf', "log_min_messages = debug2");
in_time('a reload', postgres => 'SELECT pg_reload_conf()');
enqueue(erp => 'after the reload');
delivers('the worker', 'after the reload');
is(worker('erp'), $worker, 'which a reload does not end');
in_flight('erp');

my $since = time;
$node->stop('fast');
cmp_ok(time - $since, '<', $limit, 'a fast shutdown is not held up');
$node->start;
enqueue(erp => 'after the restart');
delivers('the worker after a restart', 'after the restart');
in_flight('erp');

my $log = slurp_log();
unlike($log, qr/(?:ERROR|FATAL|PANIC|WARNING): .*(?:cache lookup|could not open relation|does not exist)/,
	'nothing was looked for that is gone');
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$since = time;
$node->stop('fast');
cmp_ok(time - $since, '<', $limit, 'nor is the next shutdown');
done_testing;

sub slurp_log { return PostgreSQL::Test::Utils::slurp_file($node->logfile) }

sub make_server
{
	my ($name, $url, %option) = @_;
	%option = (connector => 'hubex', url => $url, rate_limit => 'none', %option);
	my $options = join ', ', map { "$_ '$option{$_}'" } sort keys %option;
	return qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (service_token 'sandbox-service-token')};
}

sub enqueue
{
	my ($database, $notes, $server) = @_;
	$server //= 'fsm';
	return $node->safe_psql($database, "SELECT hubex_create_task(1, '$notes', server => '$server')");
}

# A database, made unless it is there, with a request in flight at each of the peers that hang.
sub busy
{
	my ($database) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database")
	  unless $node->safe_psql('postgres', "SELECT 1 FROM pg_database WHERE datname = '$database'");
	$node->safe_psql($database, 'CREATE EXTENSION IF NOT EXISTS hubex');
	$node->safe_psql($database, make_server('fsm', $sandbox->url))
	  unless $node->safe_psql($database, "SELECT 1 FROM pg_foreign_server WHERE srvname = 'fsm'");
	for my $mode (sort keys %hang)
	{
		$node->safe_psql($database, make_server("at_$mode", $hang{$mode}->url));
		enqueue($database, 'hangs', "at_$mode");
		$node->safe_psql($database, qq{CREATE FOREIGN TABLE tasks_at_$mode (id bigint) SERVER at_$mode OPTIONS (resource 'tasks');
			SELECT hubex_subscribe('$mode', 'tasks_at_$mode', 'mirror_of_$mode', '1 s')});
	}
	in_flight($database);
}

sub in_flight
{
	my ($database) = @_;
	my $modes = keys %hang;
	local $Test::Builder::Level = $Test::Builder::Level + 2;
	eventually { $node->safe_psql($database, q(SELECT count(*) FROM hubex.outbox WHERE state = 'sending')) eq $modes }
	"requests of $database hang at all stages", 15;
	eventually { $node->safe_psql($database, q(SELECT in_flight FROM hubex_stat_worker WHERE kind = 'sync' AND database = current_database())) eq $modes }
	'... and so do mirrors', 15;
}

sub in_time
{
	my ($what, $database, $sql) = @_;
	my $client = ref $database ? $database : Hubex::Client->new($node, database => $database);
	my $answer = $client->try($sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!defined $answer->{error} && $answer->{took} < $limit, "$what is not held up")
	  or diag $answer->{error} // "it took $answer->{took} s";
	note sprintf '%s took %.3f s', $what, $answer->{took};
}

sub delivers
{
	my ($who, @notes) = @_;
	my %wanted = map { $_ => 1 } @notes;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { (grep { $wanted{ $_->{request}{notes} // '' } } @{ $sandbox->tasks }) >= @notes } "$who delivers", 60;
	is_deeply([ sort map { $_->{request}{notes} } grep { $wanted{ $_->{request}{notes} // '' } } @{ $sandbox->tasks } ],
		[ sort @notes ], '... each request once');
}

sub running
{
	my $databases = join ', ', map { "'$_'" } @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'hubex delivery' AND datname IN ($databases)");
}

sub worker
{
	my ($database) = @_;
	return $node->safe_psql($database, 'SELECT pid FROM hubex.worker_state()');
}

sub comes_back
{
	my (@databases) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 2;
	for my $database (@databases)
	{
		eventually { $node->safe_psql($database, q(SELECT count(*) FROM hubex_stat_worker WHERE database = current_database() AND state IN ('running', 'held'))) == 2 }
		"the workers of $database are there", 10;
	}
}
