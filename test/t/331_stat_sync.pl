# hubex_stat_sync says in words how each subscription stands, and why; hubex_stat_progress_sync shows the runs under way,
# by the worker and by CALL hubex_sync(), with how far they are and how long the quota makes them last. Both are read by
# who may see the subscription, and are empty where nothing is.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 400, assets => 3000);
my $node = Hubex::Node->new('main', autovacuum => 'off', restart_after_crash => 'on');
$node->start_hubex($sandbox, page_size => 500, retry_base => '0.2', retry_cap => '0.5');
my $client = Hubex::Client->new($node);
$client->query(q(CREATE SCHEMA fsm; CREATE SCHEMA m; IMPORT FOREIGN SCHEMA "*" FROM SERVER fsm INTO fsm;
	CREATE ROLE clerk LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE boss LOGIN;
	SELECT hubex_grant('clerk', 'read'); SELECT hubex_grant('stranger', 'read'); SELECT hubex_grant('boss', 'admin');
	GRANT USAGE ON FOREIGN SERVER fsm TO clerk));
my ($clerk, $stranger, $boss) = map { Hubex::Client->new($node, user => $_) } qw(clerk stranger boss);

is($client->query('SELECT count(*) FROM hubex_stat_sync') . $client->query('SELECT count(*) FROM hubex_stat_progress_sync'), '00', 'nothing is seen of nothing');
is($client->query(q(SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'hubex_stat_progress_sync'::regclass AND attnum BETWEEN 1 AND 3)),
	$client->query(q(SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'pg_stat_progress_vacuum'::regclass AND attnum BETWEEN 1 AND 3)),
	"progress begins as in PostgreSQL's own views");

#
# Filling
#
my $from_third = $sandbox->fault(method => 'GET', path => '/ES/Assets', fault => 'delay_before', seconds => 600, after => 2, probability => 1);
$client->query(q(SELECT hubex_subscribe('assets', 'fsm.assets', 'm.assets', '1 hour', columns => '["name"]')));
is(row('assets', qw(server foreign_table target owner mode)), join('|', 'fsm', 'fsm.assets', 'm.assets', $client->query('SELECT current_user'), 'full'), 'what is mirrored where');
eventually { progress('assets', 'records_done') > 900 } 'a mirror is being filled: two of six pages are there', 20
  or diag $client->query('SELECT * FROM hubex_stat_progress_sync');
is(progress('assets', qw(mode phase records_total rows_updated rows_deleted pages), 'rows_inserted + rows_unchanged = records_done', 'records_done <= 1000'), 'full|reading|3000|0|0|2|t|t', '... which progress shows');
my ($inserted, $done) = split /\|/, progress('assets', qw(rows_inserted records_done));
is(progress('assets', 'pid = (SELECT pid FROM pg_stat_activity WHERE backend_type = \'hubex sync\')', 'datname', 'datid = (SELECT oid FROM pg_database WHERE datname = current_database())', 'bytes > 10000', 'requests >= 3', 'throttled_time = 0',
	"began_at BETWEEN now() - interval '1 minute' AND now()"), 't|postgres|t|t|t|t|t', '... with who does it and what it costs');
cmp_ok(progress('assets', q(extract(epoch FROM time_left))), '>', 0, '... and at the pace so far it will take a while');
is(row('assets', qw(state inserted sweep_done sweep_total filled_at in_step_at lag)), "filling|$inserted|$done|3000|||", '... and hubex_stat_sync: it is filling');
rows('assets', $inserted, '... so many rows');
is(row('assets', 'sweep_began_at IS NOT NULL', 'failures', 'last_error', 'to_confirm', 'runs'), 't|0|||0', '... without trouble');
$sandbox->clear_faults;
$client->query(q(SELECT pg_terminate_backend(pid) FROM hubex_stat_progress_sync));
stands('assets', 'in step', 'when it is filled it is in step', 20);
is(progress_count(), 0, '... and nothing is under way');
my $assets = $client->query('SELECT count(*) FROM m.assets');
rows('assets', $assets, '... with all its rows');
is(row('assets', 'inserted', 'sweep_began_at', 'runs', 'filled_at >= in_step_at', "lag < '1 minute'", "next_full_at - in_step_at", 'sweep_done'),
	"$assets||1|t|t|01:00:00|0", '... as of when it began, until the next');

#
# At the quota
#
$node->start_hubex($sandbox, server => 'slow', rate_limit => '60/min', page_size => 100);
$client->query(q(CREATE FOREIGN TABLE fsm.slow (id bigint, name text) SERVER slow OPTIONS (resource 'assets');
	SELECT hubex_subscribe('slow', 'fsm.slow', 'm.slow', NULL)));
my $hold = $sandbox->fault(method => 'GET', path => '/ES/Assets', range => 'items=*', fault => 'delay_before', seconds => 600, after => 5, probability => 1);
my $caller = Hubex::Client->new($node);
$caller->send(q(CALL hubex_sync('slow')));
eventually { progress('slow', 'records_done') > 450 } 'a CALL is seen as well', 20 or diag $client->query('SELECT * FROM hubex_stat_progress_sync');
is(progress('slow', 'pid = ' . $caller->pid), 't', '... as that session');
my $left = progress('slow', q(extract(epoch FROM time_left)));
cmp_ok($left, '>=', 25, 'twenty-five pages at sixty a minute take twenty-five seconds, as they do');
cmp_ok($left, '<=', 60, '... and not much more');
$client->query('SELECT pg_cancel_backend(' . $caller->pid . ')');
is($caller->answer->{sqlstate}, '57014', '... or until it is cancelled');
is(progress_count(), 0, 'which ends it');
is($caller->query('SELECT 1'), 1, '... and not the session');
is(row('slow', 'state', 'sweep_done > 450', 'next_at'), 'filling|t|', 'what is done by hand has no next time');
$sandbox->clear_faults;
$client->query(q(SELECT hubex_unsubscribe('slow')));

#
# Who sees what
#
is($clerk->query('SELECT string_agg(name, \' \') FROM hubex_stat_sync'), 'assets', 'who may use the server sees its subscriptions');
is($boss->query('SELECT string_agg(name, \' \') FROM hubex_stat_sync'), 'assets', 'as an administrator does');
is($stranger->query('SELECT count(*) FROM hubex_stat_sync'), 0, 'others see none');
$sandbox->fault(method => 'GET', path => '/ES/Assets', fault => 'delay_before', seconds => 600, probability => 1);
$caller->send(q(CALL hubex_sync('assets', 'full')));
eventually { progress_count() == 1 } 'a run is under way', 10;
is($_->[1]->query('SELECT count(*) FROM hubex_stat_progress_sync'), $_->[0], "$_->[2] sees " . ($_->[0] ? 'it' : 'none'))
  for [ 1, $clerk, 'who may use the server' ], [ 1, $boss, 'an administrator' ], [ 0, $stranger, 'another' ];
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION hubex; SELECT hubex_grant(\'clerk\', \'read\'); SELECT hubex_grant(\'boss\', \'admin\')');
is(Hubex::Client->new($node, database => 'other', user => $_->[1])->query('SELECT count(*) FROM hubex_stat_progress_sync'), $_->[0], "... from another database $_->[1] sees $_->[0]")
  for [ 0, 'clerk' ], [ 1, 'boss' ];
kill 'KILL', $caller->pid;    # all of the server starts again
eventually { eval { $client = Hubex::Client->new($node); progress('assets', 'pid') > 0 } } 'after kill -9 the worker goes on with it', 20;
isnt(progress('assets', 'pid'), $caller->pid, '... and nothing is left of the session');
$sandbox->clear_faults;

#
# In step, late, failing, paused, waiting
#
$client->query(q(SELECT hubex_subscribe('tasks', 'fsm.tasks', 'm.tasks', '1 s')));
stands('tasks', 'in step', 'a mirror of what tells changes', 20);
my $newest = (sort map { $_->{lastModified} } @{ $sandbox->tasks })[-1] =~ s/\.\d+//r;
is(row('tasks', q(to_char("cursor" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'))), $newest =~ s/Z$//r, '... up to the newest change');
eventually { row('tasks', 'runs') >= 3 } 'it is asked again and again', 15;
is(row('tasks', 'requests - runs <= 4', 'inserted', 'updated'), 't|' . $client->query('SELECT count(*) FROM m.tasks') . '|0', '... each for one request, and nothing is written again');

my $down = $sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => 500, probability => 1);
stands('tasks', 'failing', 'a remote side that answers with errors', 20);
like(row('tasks', 'reason'), qr/500/, '... with its answer');
is(row('tasks', 'reason = last_error', "last_error_at > now() - interval '1 minute'", 'failures > 0', 'next_at > last_error_at'), 't|t|t|t', '... and when it is tried again');
$sandbox->clear_faults;
stands('tasks', 'in step', '... until it answers again', 20);
is(row('tasks', 'failures', 'reason', 'last_error IS NOT NULL'), '0||t', '... the last error stays to be read');

my $hangs = $sandbox->fault(path => '/WORK/Tasks', fault => 'delay_before', seconds => 600, probability => 1);
stands('tasks', 'late', 'one that does not answer makes it late', 20);
cmp_ok(row('tasks', 'extract(epoch FROM lag)'), '>', 1, '... lag tells by how much');
$sandbox->clear_faults;
$client->query(q(SELECT pg_terminate_backend(pid) FROM hubex_stat_progress_sync));
stands('tasks', 'in step', '... until it does', 20);

$client->query(q(SELECT hubex_pause('fsm', 'a test')));
stands('tasks', 'paused', 'a paused server', 5);
like(row('tasks', 'reason'), qr/hubex_resume/, '... and how it ends');
$client->query(q(SELECT hubex_resume('fsm')));
stands('tasks', 'in step', '... until it is resumed', 20);

# most of the list is gone at once
my @ids = map { $_->{id} } @{ $sandbox->tasks };
$sandbox->orders(map { +{ list => 'tasks', kind => 'erase', id => $_ } } @ids[ 0 .. 199 ]);
$client->query(q(UPDATE hubex.subscription_state SET next_full_at = now() WHERE subscription = 'tasks'));
stands('tasks', 'waits for confirmation', 'half of the rows gone at once', 20);
cmp_ok(row('tasks', 'to_confirm'), '>', 100, '... so many rows');
like(row('tasks', 'reason'), qr/^\d+ rows would be deleted; see hubex_confirm_deletes\(\)$/, '... and who lets them go');
my $rows = $client->query('SELECT count(*) FROM m.tasks');
my $confirmed = $client->query(q(SELECT hubex_confirm_deletes('tasks')));
stands('tasks', 'in step', '... when it is confirmed', 30);
eventually { row('tasks', 'deleted', 'to_confirm') eq "$confirmed|" } '... they are deleted', 20;
rows('tasks', $rows - $confirmed, '... from the mirror');

#
# A partitioned mirror, and one whose table is gone
#
$client->query(q(CREATE TABLE m.parts (id bigint PRIMARY KEY, name text) PARTITION BY HASH (id);
	CREATE TABLE m.part0 PARTITION OF m.parts FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE m.part1 PARTITION OF m.parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
	SELECT hubex_subscribe('parts', 'fsm.assets', 'm.parts', '1 hour')));
stands('parts', 'in step', 'a partitioned mirror', 20);
rows('parts', $client->query('SELECT count(*) FROM m.parts'), '... its rows are those of its parts');
$client->query('DROP TABLE m.parts');
is(row('parts', 'rows', 'state'), '0|in step', 'a table that is gone is no error of the view');
$client->query(q(UPDATE hubex.subscription_state SET next_full_at = now() WHERE subscription = 'parts'; SELECT hubex_resume('fsm')));
stands('parts', 'failing', '... but of the next run', 20);
done_testing;

sub row
{
	my ($name, @columns) = @_;
	$client->query('SELECT pg_stat_clear_snapshot()');
	return $client->query('SELECT ' . join(', ', @columns) . " FROM hubex_stat_sync WHERE name = '$name'");
}

sub progress
{
	my ($name, @columns) = @_;
	my $row = $client->query('SELECT ' . join(', ', @columns) . " FROM hubex_stat_progress_sync WHERE subscription = '$name'");
	return $row eq '' && @columns == 1 ? -1 : $row;
}

# The statistics of tables come a moment later.
sub rows
{
	my ($name, $rows, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { row($name, 'rows') eq $rows } $what, 5;
}

sub progress_count { return $client->query('SELECT count(*) FROM hubex_stat_progress_sync') }

sub stands
{
	my ($name, $state, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { row($name, 'state') eq $state } $what, $seconds or diag $client->query("SELECT * FROM hubex_stat_sync WHERE name = '$name'");
}
