# Whatever ends a worker or the launcher - an administrator, a cancel, the OOM killer - they are back within seconds,
# again and again, and no request is lost or sent twice by it, and no mirror left behind. Where no background worker slot
# is free the server is healthy, says what to do, and delivery starts when one is. A database that takes no connections is
# left alone.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', restart_after_crash => 'on');
$node->start_hubex($sandbox);
my $sent = 0;
delivers('the worker');
mirror($node);
mirrors('its neighbour');

#
# The workers
#
for my $round (1 .. 5)
{
	my $how = $round % 2 ? 'TERM' : 'INT';
	my $sql = $how eq 'TERM' ? 'pg_terminate_backend' : 'pg_cancel_backend';
	for my $kind (qw(delivery sync))
	{
		my $worker = worker($kind);
		my $took = ends_and_returns($kind, "$sql, round $round,", sub { $node->safe_psql('postgres', "SELECT $sql($worker)") });
		cmp_ok($took, '<', 15, '... and is not made to wait for the times before');
	}
	delivers("the worker after $sql");
	mirrors("the worker after $sql");
}

#
# The launcher
#
{
	my $launcher = launcher();
	kill 'TERM', $launcher;
	$node->safe_psql('postgres', 'CREATE DATABASE meanwhile');
	$node->start_hubex($sandbox, database => 'meanwhile');
	eventually { my $now = launcher(); $now && $now != $launcher } 'the launcher returns after SIGTERM', 10;
	delivers('the worker that it left behind');
	mirrors('the other one');
	delivers('the database that was made meanwhile', 'meanwhile');
	is($node->safe_psql('postgres', q(SELECT string_agg(backend_type || ' ' || datname, ', ' ORDER BY backend_type, datname) FROM pg_stat_activity WHERE backend_type LIKE 'hubex %' AND datname <> '')),
		'hubex delivery meanwhile, hubex delivery postgres, hubex sync postgres', 'no database has two of a kind');
}

#
# kill -9: the postmaster starts over
#
for my $who ('hubex delivery', 'hubex launcher', 'hubex sync')
{
	# one request in flight, and done by the sandbox; one that waits behind it
	my $before = @{ $sandbox->tasks };
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 3, times => 1);
	enqueue("in flight when $who dies", ordering_key => "'a'");
	eventually { @{ $sandbox->tasks } > $before } 'the sandbox works on a request';
	enqueue("waits when $who dies", ordering_key => "'a'");

	my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = '$who' AND
		(datname = 'postgres' OR datname IS NULL)");
	my $since = time;
	kill 'KILL', $pid;
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0,
		"all is delivered after kill -9 of $who", 20);
	note sprintf 'kill -9 of %s: delivered again after %.1f s', $who, time - $since;
	is_deeply([ sort grep { /when $who/ } map { $_->{request}{notes} // '' } @{ $sandbox->tasks } ],
		[ "in flight when $who dies", "waits when $who dies" ], '... each request once');
	$sandbox->clear_faults;
	delivers("the worker after kill -9 of $who");
	mirrors("the worker after kill -9 of $who");
}

#
# Settings that a database or a role makes for its own sessions
#
{
	my %setting = (
		statement_timeout => '1ms', lock_timeout => '1ms', idle_in_transaction_session_timeout => '1ms', idle_session_timeout => '1ms',
		search_path => 'nowhere', default_transaction_read_only => 'on', default_transaction_isolation => 'serializable',
		default_transaction_deferrable => 'on', synchronous_commit => 'off', role => 'nobody', session_replication_role => 'replica',
		client_encoding => 'sql_ascii', DateStyle => 'German, DMY', TimeZone => 'Asia/Kamchatka', IntervalStyle => 'sql_standard',
		bytea_output => 'escape', standard_conforming_strings => 'off', quote_all_identifiers => 'on', row_security => 'off',
		'hubex.default_server' => 'none_such', enable_indexscan => 'off', client_min_messages => 'error', array_nulls => 'off');
	$setting{transaction_timeout} = '1ms' if $node->pg_version >= 17;
	$node->safe_psql('postgres', 'CREATE ROLE nobody');
	$node->safe_psql('postgres', "ALTER DATABASE meanwhile SET $_ = '$setting{$_}'") for sort keys %setting;
	my $old = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'hubex delivery' AND datname = 'meanwhile'));
	my $session = Hubex::Client->new($node);
	$session->query("SELECT pg_terminate_backend($old)");
	$node->wait_for(qq(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'hubex delivery' AND datname = 'meanwhile' AND pid <> $old), 1,
		'the worker of a database with settings of its own', 60);

	local $ENV{PGOPTIONS} = '-c statement_timeout=0 -c idle_session_timeout=0 -c lock_timeout=0 -c role=none -c default_transaction_read_only=off -c search_path=public -c hubex.default_server='
	  . ' -c transaction_timeout=0' x ($node->pg_version >= 17);
	delivers('... as ever', 'meanwhile');
	$node->safe_psql('postgres', 'ALTER DATABASE meanwhile RESET ALL');
}

#
# A database that takes no connections
#
$node->safe_psql('postgres', 'ALTER DATABASE meanwhile ALLOW_CONNECTIONS false');
$node->restart;
delivers('the worker after a restart');
mirrors('the other after a restart');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/not currently accepting connections/, 'a closed database is left alone');
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'meanwhile')), 0, '... by all');
$node->safe_psql('postgres', 'ALTER DATABASE meanwhile ALLOW_CONNECTIONS true');
$node->safe_psql('postgres', 'CREATE DATABASE wakes_the_launcher');
delivers('the database that is open again', 'meanwhile');
$node->stop;

#
# No slot. Of three, logical replication and the launcher have two, and a parallel query the third.
#
my $narrow = Hubex::Node->new('narrow', max_worker_processes => 3, max_parallel_workers_per_gather => 2,
	parallel_leader_participation => 'off', parallel_setup_cost => 0, parallel_tuple_cost => 0);
$narrow->safe_psql('postgres', q(CREATE TABLE t WITH (parallel_workers = 2) AS SELECT x FROM generate_series(1, 10000) x; ANALYZE t));
my $hog = Hubex::Client->new($narrow);
$hog->send('SELECT count(*) FROM t WHERE CASE WHEN x = 1 THEN pg_sleep(600) IS NULL END');
$narrow->wait_for(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'), 1,
	'a parallel query has the last slot', 10);

$narrow->start_hubex($sandbox);
my $notes = 'of the narrow server';
$narrow->safe_psql('postgres', "SELECT hubex_create_task(1, '$notes')");
eventually { PostgreSQL::Test::Utils::slurp_file($narrow->logfile) =~
	  /LOG:  hubex found no free background worker slot for delivery .*\n.*HINT:  Raise max_worker_processes\./ }
'the log says that no slot is free, and what to do', 10;
like($narrow->safe_psql('postgres', 'SELECT message, hint FROM hubex_check() WHERE NOT ok'),
	qr/not running yet.*max_worker_processes/, 'so does hubex_check');
is($narrow->safe_psql('postgres', 'SELECT state FROM hubex.outbox'), 'waiting', 'the request waits');

$narrow->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $hog->pid . ')');
$hog->answer;
$narrow->wait_for('SELECT state FROM hubex.outbox', 'delivered', 'it is delivered when a slot is free', 15);
is((grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks }), 1, '... once');

# one slot, and two that would have it
mirror($narrow);
eventually { PostgreSQL::Test::Utils::slurp_file($narrow->logfile) =~ /LOG:  hubex found no free background worker slot for sync / } 'the log says that the sync worker finds no slot', 20;
is($narrow->safe_psql('postgres', q(SELECT string_agg(kind || ': ' || state, ', ' ORDER BY kind) FROM hubex_stat_worker)),
	'delivery: running, sync: waiting to be started', '... it waits for one');
$narrow->safe_psql('postgres', "SELECT hubex_create_task(1, 'beside it')");
$narrow->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, '... others go on', 15);
$narrow->safe_psql('postgres', q(CALL hubex_sync('mirror')));
is($narrow->safe_psql('postgres', 'SELECT count(*) FROM mirror'), (grep { !defined $_->{deleted} } @{ $sandbox->tasks }), '... and hubex_sync() fills the mirror');
$narrow->stop;

# with no slot for the launcher
$narrow->append_conf('postgresql.conf', 'max_worker_processes = 1');
$narrow->start;
like($narrow->safe_psql('postgres', 'SELECT message, hint FROM hubex_check() WHERE NOT ok'),
	qr/not running yet.*max_worker_processes/, 'with no slot for the launcher hubex_check says what to do');
$narrow->safe_psql('postgres', "SELECT hubex_create_task(1, '$notes'); CALL hubex_deliver();");
is((grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks }), 2, 'and hubex_deliver delivers');
done_testing;

sub enqueue
{
	my ($notes, %argument) = @_;
	my $database = delete $argument{database} // 'postgres';
	my $arguments = join '', map { ", $_ => $argument{$_}" } sort keys %argument;
	return $node->safe_psql($database, "SELECT hubex_create_task(1, '$notes'$arguments)");
}

sub delivers
{
	my ($who, $database) = @_;
	my $notes = 'request ' . ++$sent;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	enqueue($notes, database => $database);
	eventually { (grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks }) == 1 } "$who delivers", 10;
}

# Makes a mirror of the tasks.
sub mirror
{
	my ($server) = @_;
	return $server->safe_psql('postgres', q(CREATE FOREIGN TABLE remote_tasks (id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks');
		SELECT hubex_subscribe('mirror', 'remote_tasks', 'mirror', '1 s')));
}

# The mirror shows what somebody else has just changed.
sub mirrors
{
	my ($who) = @_;
	my $notes = 'change ' . ++$sent;
	$sandbox->orders({ list => 'tasks', kind => 'change', id => 1001, fields => { notes => $notes } });
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_for(q(SELECT notes FROM mirror WHERE id = 1001), $notes, "$who mirrors", 20);
}

sub worker
{
	my ($kind) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'hubex $kind' AND datname = 'postgres'");
}

sub launcher
{
	return $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'hubex launcher'));
}

# Runs code that ends the worker; gives the seconds until there is another.
sub ends_and_returns
{
	my ($kind, $what, $code) = @_;
	my $old = worker($kind);
	my $since = time;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$code->();
	eventually { my ($state, $pid) = split /\|/, $node->safe_psql('postgres', "SELECT state, pid FROM hubex_stat_worker WHERE kind = '$kind' AND database = 'postgres'");
		$state eq 'running' && $pid && $pid != $old } "the worker ($kind) returns after $what", 20;
	note sprintf 'back after %.1f s', time - $since;
	return time - $since;
}
