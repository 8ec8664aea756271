# What a DBA sees and does: hubex_stat_server, hubex_stat_outbox and hubex_stat_worker tell what is going on, each to whom
# it concerns; hubex_pause() holds a server and hubex_resume() lets it go on at once; every function is at a level of
# hubex_grant().

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
my $super = Hubex::Client->new($node);
$super->query("CREATE ROLE $_ LOGIN") for qw(fresh reader writer chief);
$super->query("SELECT hubex_grant('$_->[0]', '$_->[1]')") for [ reader => 'read' ], [ writer => 'enqueue' ], [ chief => 'admin' ];
$super->query('GRANT USAGE ON FOREIGN SERVER fsm TO reader, writer');
my %client = (super => $super, map { $_ => Hubex::Client->new($node, user => $_) } qw(fresh reader writer chief));
my @posts = (method => 'POST', path => '/WORK/Tasks');

#
# hubex_stat_server
#
is(server('sent, delivered, failed, p50_time IS NULL, circuit, paused, rate_limit, stats_since'), '0|0|0|t|closed|f|none|',
	'a server of which nothing is known yet');
delivers('task ' . $_) for 1 .. 3;
eventually { server('sent, delivered, failed, dead, retried') eq '3|3|0|0|0' } 'deliveries are counted', 10;
is(outbox('super', 'delivered_last_hour, waiting'), '3|0', '... by the hour as well');
is(server('0 < p50_time AND p50_time <= p95_time AND p95_time <= p99_time AND p99_time < 10000'), 't', 'and timed');
$sandbox->fault(@posts, fault => 'delay', seconds => 0.5, times => 1);
delivers('slow');
eventually { server('delivered') == 4 } 'a slow delivery is counted', 10;
is(server('p99_time BETWEEN 470 AND 3000 AND p50_time < 400'), 't', 'one slow call in four shows in p99, not in p50')
  or diag server('p50_time, p95_time, p99_time');

$sandbox->fault(@posts, fault => 'status', status => 500, times => 1);
delivers('tried twice');
eventually { server('delivered, failed, retried, dead, last_error_at > stats_since') eq '5|1|1|0|t' } 'a failed attempt is counted', 10;
my $refused = $super->query(q(SELECT hubex_enqueue('POST', '/WORK/Nothing', '{}')));
is($super->query("SELECT hubex_wait($refused)"), 'dead', 'a request is refused');
eventually { server('delivered, failed, dead') eq '5|2|1' } '... and counted as dead', 10;
$sandbox->fault(@posts, fault => 'drop_after', times => 1);
delivers('done, unheard');
eventually { server('delivered, reconciled') eq '6|1' } 'what a look-up finds is reconciled', 10;

$super->query(q(ALTER SERVER fsm OPTIONS (SET rate_limit '2/s')));
$super->query(q(SELECT hubex_create_task(1, 'limited ' || i) FROM generate_series(1, 5) i));
eventually { server('throttled > 0 AND throttled_time > 0 AND rate_limit = \'2/s\' AND quota_taken BETWEEN 1 AND 2') eq 't' }
'what the quota costs is seen', 10;
eventually { server('delivered') == 11 } '... and what it lets through', 20;
$super->query(q(ALTER SERVER fsm OPTIONS (SET rate_limit 'none')));
$sandbox->fault(@posts, fault => 'throttle', retry_after => 2, times => 1);
my $asked = $super->query(q(SELECT hubex_create_task(1, 'asked to wait')));
eventually { server('quota_paused_until > now()') eq 't' } 'a pause that the service asked for is seen', 10;
is($super->query("SELECT hubex_wait($asked)"), 'delivered', '... and ends');

# A delivery is counted after the transaction that hubex_wait() sees.
eventually { server('delivered') == 12 } '... and is counted', 10;
$super->query('SELECT hubex_stat_reset()');
is(server('sent, delivered, failed, dead, throttled, throttled_time, p50_time, last_error_at'), '0|0|0|0|0|0||',
	'hubex_stat_reset() begins anew');

#
# hubex_stat_worker
#
my ($pid, $steps) = split /\|/, $super->query(q(SELECT pid, steps FROM hubex_stat_worker));
is($super->query('SELECT database, kind, state, in_flight, failures, pid = (SELECT pid FROM pg_stat_activity WHERE backend_type = \'hubex delivery\'),'
	. ' started_at < last_step_at FROM hubex_stat_worker'), 'postgres|delivery|running|0|0|t|t', 'hubex_stat_worker');
is($super->query("SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE pid = $pid"),
	'Extension ' . ($node->pg_version >= 17 ? 'HubexDelivery' : 'Extension'), 'what the worker waits for has a name');
delivers('a step');
cmp_ok($super->query('SELECT steps FROM hubex_stat_worker'), '>', $steps, 'its steps are counted');

#
# hubex_pause, hubex_resume
#
$sandbox->fault(@posts, fault => 'delay', seconds => 4, times => 1);
my $flying = $super->query(q(SELECT hubex_create_task(1, 'in flight')));
eventually { made('in flight') } 'a request is in flight', 10;
eventually { $super->query('SELECT in_flight FROM hubex_stat_worker') == 1 } '... and seen', 10;
is($client{chief}->try(q(SELECT hubex_pause(reason => 'they have a release')))->{error}, undef, 'an administrator pauses the only server');
my @held = map { $super->query("SELECT hubex_create_task(1, 'paused $_')") } 1 .. 3;
is($super->query("SELECT hubex_wait($flying)"), 'delivered', 'what is in flight is brought to its end');
is($super->query("SELECT hubex_wait($held[0], '200 ms')"), 'waiting', '... and nothing else is sent');
is(server('paused, paused_by, pause_reason, paused_at < now()'), 't|chief|they have a release|t', 'hubex_stat_server shows it');
like($super->query(q(SELECT message || ' ' || hint FROM hubex_check() WHERE subject = 'pause')),
	qr/paused since .*by chief: they have a release.*hubex_resume\('fsm'\)/, '... and hubex_check');
is($super->try('CALL hubex_deliver()')->{error}, undef, 'CALL hubex_deliver() runs');
is(scalar(grep { made("paused $_") } 1 .. 3), 0, '... and sends nothing either');
$node->restart;
$client{$_} = Hubex::Client->new($node, $_ eq 'super' ? () : (user => $_)) for keys %client;
$super = $client{super};
is($super->query(q(SELECT hubex_wait(min(id), '500 ms') FROM hubex.outbox WHERE state = 'waiting')), 'waiting', 'it stays so over a restart');
my $since = time;
$client{chief}->query(q(SELECT hubex_resume('fsm')));
is($super->query("SELECT hubex_wait($_)"), 'delivered', 'hubex_resume lets it go on') for @held;
cmp_ok(time - $since, '<', 3, '... at once');
is(server('paused, paused_by, pause_reason, paused_at'), 'f|||', '... and nothing is left of the pause');
is($super->try("SELECT $_")->{sqlstate}, '42704', "$_ is an error") for q(hubex_pause('none')), q(hubex_resume('none'));
$super->query(q(BEGIN; SELECT hubex_pause(); ROLLBACK));
delivers('after a pause that was rolled back');

#
# hubex_stat_outbox
#
$super->query(q(SELECT hubex_pause(); DELETE FROM hubex.outbox));
for my $role (qw(super writer))
{
	my $n = $role eq 'super' ? 3 : 1;
	$client{$role}->query("SELECT hubex_create_task(1, 'due') FROM generate_series(1, $n)");
	$client{$role}->query("SELECT hubex_create_task(1, 'ordered', ordering_key => 'of $role') FROM generate_series(1, 1 + $n)");
	$client{$role}->query("SELECT hubex_create_task(1, 'later', deliver_after => now() + interval '1 day')");
}
$super->query(q(INSERT INTO hubex.outbox (server, owner, operation, method, path, state, ended_at) VALUES
	('fsm', 'postgres', 'call', 'GET', '/', 'dead', now()), ('fsm', 'postgres', 'call', 'GET', '/', 'delivered', now())));
$super->query(q(UPDATE hubex.outbox SET created_at = now() - interval '1 hour' WHERE id = (SELECT min(id) FROM hubex.outbox)));
my $columns = q(waiting, due, blocked, sending, held, dead, oldest_waiting BETWEEN '59 min' AND '61 min');
is(outbox('super', $columns), '12|10|4|0|0|1|t', 'hubex_stat_outbox counts');
is(outbox('chief', $columns), '12|10|4|0|0|1|t', '... for an administrator');
is(outbox('writer', $columns), '4|3|1|0|0|0|f', '... the own requests for a role');
is($client{reader}->try('TABLE hubex_stat_outbox')->{sqlstate}, '42501', '... not for a reader, who has none');
$super->query(q(SELECT hubex_create_task(1, 'many') FROM generate_series(1, 20000)));
$super->query(q(INSERT INTO hubex.outbox (server, owner, operation, method, path, state, ended_at)
	SELECT 'fsm', 'postgres', 'call', 'GET', '/', 'delivered', now() FROM generate_series(1, 200000)));
$super->query('VACUUM ANALYZE hubex.outbox');
my $plan = $super->query(q(EXPLAIN TABLE hubex_stat_outbox));
unlike($plan, qr/Seq Scan on outbox/, '... without reading what is delivered') or diag $plan;

#
# Who sees what
#
for my $view (qw(hubex_stat_server hubex_stat_outbox hubex_stat_worker))
{
	is($client{fresh}->try("TABLE $view")->{sqlstate}, '42501', "$view is not for everybody");
	is($client{chief}->query("SELECT count(*) FROM $view"), 1, '... but for an administrator');
}
is($client{reader}->query("SELECT count(*) FROM hubex_stat_$_"), 1, "a reader sees hubex_stat_$_") for qw(server worker);
$super->query('REVOKE USAGE ON FOREIGN SERVER fsm FROM reader');
is($client{reader}->query('SELECT count(*) FROM hubex_stat_server'), 0, '... of servers it may use');
for my $call (qw(hubex_pause() hubex_resume() hubex_stat_reset() hubex_take_over()))
{
	is($client{$_}->try("SELECT $call")->{sqlstate}, '42501', "$call is not for $_") for qw(fresh reader writer);
}
is($client{chief}->try('SELECT hubex_take_over()')->{rows}, 0, 'an administrator may take over');
is($client{chief}->try('SELECT hubex_stat_reset()')->{error}, undef, '... and reset figures');

$super->query('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION hubex');
eventually { $client{chief}->query('SELECT string_agg(database, \' \' ORDER BY database) FROM hubex_stat_worker') eq 'other postgres' }
'an administrator sees the workers of all databases', 10;
is($client{reader}->query('SELECT database FROM hubex_stat_worker'), 'postgres', '... others that of theirs');

is($super->query(q(SELECT p.oid::regproc FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'hubex'
	WHERE obj_description(p.oid, 'pg_proc') LIKE 'Public%' AND NOT has_function_privilege('chief', p.oid, 'EXECUTE'))), 'hubex_grant',
	'hubex_grant() gives an administrator every function but itself');

#
# Without preload
#
$_->end for values %client;
$node->append_conf('postgresql.conf', q(shared_preload_libraries = ''));
$node->restart;
$super = Hubex::Client->new($node);
is($super->query('SELECT count(*) FROM hubex_stat_worker'), 0, 'without preload there is no worker');
$super->query(q(DELETE FROM hubex.outbox; SELECT hubex_resume(); SELECT hubex_create_task(1, 'by a CALL')));
$super->query('CALL hubex_deliver()');
is($super->query('SELECT sent, delivered FROM hubex_stat_server'), '1|1', '... and a session sees what it counted itself');
done_testing;

sub server { my ($columns) = @_; return $super->query("SELECT $columns FROM hubex_stat_server WHERE server = 'fsm'") }
sub outbox { my ($role, $columns) = @_; return $client{$role}->query("SELECT $columns FROM hubex_stat_outbox WHERE server = 'fsm'") }
sub made { my ($notes) = @_; return scalar grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks } }

sub delivers
{
	my ($notes) = @_;
	my $id = $super->query("SELECT hubex_create_task(1, '$notes')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($super->query("SELECT hubex_wait($id)"), 'delivered', "$notes: delivered");
}
