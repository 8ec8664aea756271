# What was delivered or cancelled longer ago than hubex.retention leaves the outbox, a page at a time; dead letters, what
# waits and what is not written back yet stay, whatever their age. It holds no lock that anybody waits for, and the queue
# goes on meanwhile. The worker does it; without preload CALL hubex_deliver().

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
my $client = Hubex::Client->new($node);
is($client->query('SHOW hubex.retention'), '30d', 'requests stay for 30 days');
is($client->try('SET hubex.retention = 1')->{sqlstate}, '55P02', '... and no session can change that');

fill();
my $young = $client->query(q(SELECT hubex_create_task(1, 'young')));
is($client->query("SELECT hubex_wait($young)"), 'delivered', 'a request is delivered');

# Half of what is to go is locked, by a transaction that stays.
my $locker = Hubex::Client->new($node);
$locker->query(q(BEGIN; SELECT count(*) FROM (SELECT id FROM hubex.outbox WHERE path = '/old' AND id % 2 = 0 FOR UPDATE) s));
restart_worker();
eventually { count("path = '/old'") == 1500 } 'what is old and not locked goes', 30;
is_deeply(kept(), [ map({ "$_ 10" } qw(dead recent sending unwritten waiting)) ], '... and nothing else');
is(count('id = ' . $young), 1, '... not what has just been delivered');
is($client->query(q(SELECT count(*) FROM pg_stat_activity a WHERE backend_type = 'hubex delivery'
	AND (wait_event_type = 'Lock' OR xact_start < clock_timestamp() - interval '5 s'))), 0, 'the worker waits for no lock');
my $next = $client->query(q(SELECT hubex_create_task(1, 'meanwhile')));
is($client->query("SELECT hubex_wait($next)"), 'delivered', 'the queue goes on');
$locker->query('COMMIT');
restart_worker();
eventually { count("path = '/old'") == 0 } 'what was locked goes with a later walk', 30;

$node->append_conf('postgresql.conf', 'hubex.retention = 0');
$node->reload;
eventually { $client->query('SHOW hubex.retention') eq '0' } 'it can be turned off', 10;
fill();
restart_worker();
$next = $client->query(q(SELECT hubex_create_task(1, 'without retention')));
is($client->query("SELECT hubex_wait($next)"), 'delivered', '... the worker is at work');
is(count("path = '/old'"), 3000, '... and everything stays');

#
# Without preload
#
$node->append_conf('postgresql.conf', "hubex.retention = '1h'\nshared_preload_libraries = ''");
$client->end;
$node->restart;
$client = Hubex::Client->new($node);
is($client->try('CALL hubex_deliver()')->{error}, undef, 'CALL hubex_deliver() without preload');
is(count("path = '/old'"), 0, '... deletes as well');
is_deeply(kept(), [ map({ "$_ 20" } qw(dead)), 'recent 20', 'sending 20', 'unwritten 20', 'waiting 20' ], '... the same')
  or diag explain kept();
done_testing;

# Requests of all kinds; those of path /old are to go. Nothing is sent of them: their server is none.
sub fill
{
	$client->query(q{
		INSERT INTO hubex.outbox (server, owner, operation, method, path, state, created_at, ended_at, next_attempt_at, unwritten, binding)
		SELECT 'none', current_user, 'call', 'POST', k.path, k.state, now() - interval '40 days', now() - k.ended, 'infinity', k.path = '/unwritten',
			CASE WHEN k.state = 'sending' THEN gen_random_uuid() ELSE hubex.binding() END
		  FROM (VALUES ('/old', 'delivered', interval '31 days', 2000), ('/old', 'cancelled', '31 days', 1000),
			('/dead', 'dead', '31 days', 10), ('/recent', 'delivered', '10 min', 10), ('/unwritten', 'delivered', '31 days', 10),
			('/waiting', 'waiting', NULL, 10), ('/sending', 'sending', NULL, 10)) AS k (path, state, ended, n), generate_series(1, k.n)
	});
	return;
}

# A new worker begins with a walk; otherwise there is one a minute.
sub restart_worker
{
	my $pid = $client->query('SELECT pid FROM hubex_stat_worker');
	$client->query("SELECT pg_terminate_backend($pid)");
	eventually { $client->query(q(SELECT count(*) FROM hubex_stat_worker WHERE state = 'running' AND pid <> ) . $pid) == 1 } 'another worker', 20;
	return;
}

sub count { my ($condition) = @_; return $client->query("SELECT count(*) FROM hubex.outbox WHERE $condition") }

sub kept
{
	return [ split /\n/, $client->query(q(SELECT substr(path, 2), count(*) FROM hubex.outbox WHERE server = 'none' AND path <> '/old'
		GROUP BY 1 ORDER BY 1)) =~ tr/|/ /r ];
}
