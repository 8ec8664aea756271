# The sync worker is there from the commit of the first subscription that asks for it until the last one goes, and after
# any start of the server. It makes each run when it is due, at most eight at a time, none twice at once, CALL
# hubex_sync() included; a list that fails, hangs or is held keeps no other from its time. Judged by what the remote side
# was asked for.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', max_worker_processes => 24, restart_after_crash => 'on');
$node->start_hubex($sandbox, retry_base => '0.2', retry_cap => '1');
my $client = Hubex::Client->new($node);
$client->query('CREATE SCHEMA fsm; CREATE SCHEMA m; IMPORT FOREIGN SCHEMA "*" FROM SERVER fsm INTO fsm');
my %path = (tasks => '/WORK/Tasks', assets => '/ES/Assets', companies => '/ES/Companies');

#
# There and gone
#
is(worker(), '', 'without subscriptions there is no sync worker');
$client->query(q(BEGIN; SELECT hubex_subscribe('tasks', 'fsm.tasks', 'm.tasks', '1 s'); ROLLBACK));
$client->query(q(SELECT hubex_subscribe('by hand', 'fsm.tasks', 'm.by_hand', NULL)));
$client->query(q(BEGIN; SELECT hubex_subscribe('tasks', 'fsm.tasks', 'm.tasks', '1 s')));
is(worker(), '', 'nor for one that was rolled back, is done by hand, or is not committed');
is(reads('tasks'), 0, '... and nothing is read');
$client->query('COMMIT');
in_step('tasks', 'the commit of a subscription starts it: its mirror is filled', 10);
is($client->query('SELECT count(*) FROM m.by_hand'), 0, '... and no other');

my $since = time;
my $from = reads('tasks');
change('tasks', 'seen by itself');
shows('tasks', 'seen by itself', 'what changes is seen', 10);
eventually { reads('tasks') >= $from + 3 } 'it is asked again and again', 15;
my $most = int(time - $since) + 2;
cmp_ok(reads('tasks') - $from, '<=', $most, '... once each time') or diag reads('tasks') - $from;

$client->query(q(SELECT hubex_unsubscribe('tasks')));
eventually { worker() eq '' } 'it ends with the last subscription that asks for it', 10;
like(slurp_log(), qr/LOG:  hubex sync ends in database \d+: no subscription asks for it/, '... and the log says why');
is($client->query(q(SELECT count(*) FROM hubex_stat_worker WHERE kind = 'sync')), 0, '... nobody waits for it');
$client->query(q(SELECT hubex_subscribe('tasks', 'fsm.tasks', 'm.tasks', '1 s')));
in_step('tasks', 'it is back with the next', 10);
my $pid = worker();
$client->query(q(SELECT hubex_unsubscribe('tasks'); SELECT hubex_subscribe('tasks', 'fsm.tasks', 'm.tasks', '1 s')));
in_step('tasks', 'one goes, another comes', 10);

#
# Found without being told
#
$node->restart;
$client = Hubex::Client->new($node);
change('tasks', 'after a restart');
shows('tasks', 'after a restart', 'after a restart of the server it is there by itself', 20);

# a row that no function of hubex put there
$client->query(q(UPDATE hubex.subscription SET every = NULL, full_every = NULL));
$client->query('SELECT pg_terminate_backend(' . worker() . ')');
eventually { worker() eq '' && $client->query(q(SELECT count(*) FROM hubex_stat_worker WHERE kind = 'sync')) eq '0' } 'an UPDATE of hubex.subscription ends it, too', 20;
$client->query(q(UPDATE hubex.subscription SET every = '1 s' WHERE name = 'tasks'));
change('tasks', 'after an update');
shows('tasks', 'after an update', '... and begins it', 45);

#
# One that fails
#
my $fault = $sandbox->fault(path => $path{assets}, fault => 'status', status => 500, probability => 1);
$client->query(q(SELECT hubex_subscribe('assets', 'fsm.assets', 'm.assets', '1 s')));
eventually { state('assets') eq 'failing' } 'a list that answers with errors is failing', 20;
like($client->query(q(SELECT reason FROM hubex_stat_sync WHERE name = 'assets')), qr/500/, '... with the error');
eventually { $client->query(q(SELECT failures FROM hubex_stat_sync WHERE name = 'assets')) >= 3 } '... is tried again', 20;
change('tasks', 'beside one that fails');
shows('tasks', 'beside one that fails', '... and keeps no other from its time', 10);
is(() = slurp_log() =~ /LOG:  .*hubex sync of subscription "assets" failed/g, 1, '... the log is told once');
$client->query(q(UPDATE hubex.subscription_state SET next_at = 'infinity', next_full_at = now() + '1 hour' WHERE subscription = 'assets'));
$sandbox->clear_faults($fault);
$client->query(q(SELECT hubex_resume('fsm')));
in_step('assets', 'hubex_resume() has it tried at once', 10);
like(slurp_log(), qr/LOG:  .*hubex sync of subscription "assets" goes on/, '... and the log is told that it goes on');

# one whose table was dropped
$client->query(q(CREATE FOREIGN TABLE fsm.short_lived (id bigint) SERVER fsm OPTIONS (resource 'companies');
	SELECT hubex_subscribe('short-lived', 'fsm.short_lived', 'm.short_lived', '1 s');));
in_step('short-lived', 'another', 10);
$client->query(q(DROP TABLE m.short_lived));
eventually { state('short-lived') eq 'failing' } 'one whose table was dropped fails', 20;
change('tasks', 'beside a dropped one');
shows('tasks', 'beside a dropped one', '... alone', 10);
$client->query(q(SELECT hubex_unsubscribe('short-lived')));

#
# Held
#
my $late = $sandbox->fault(method => 'GET', path => $path{tasks}, fault => 'delay_before', seconds => 600, probability => 1);
eventually { $client->query(q(SELECT count(*) FROM hubex_stat_progress_sync WHERE subscription = 'tasks')) } 'a run hangs', 5;
$client->query(q(SELECT hubex_pause('fsm', 'for a test')));
eventually { state('tasks') eq 'paused' } 'a server is paused', 5;
eventually { $client->query(q(SELECT count(*) FROM hubex_stat_progress_sync)) eq '0' } 'which ends what hangs there', 5;
$sandbox->clear_faults($late);
my $asked = asked();
change('tasks', 'in the pause');
$client->query(q(SELECT hubex_subscribe('more', 'fsm.companies', 'm.more', '1 s')));
$client->query('SELECT pg_terminate_backend(' . worker() . ')');
eventually { worker() } 'with a new worker', 30;
eventually { $client->query(q(SELECT steps FROM hubex_stat_worker WHERE kind = 'sync')) >= 2 } '... that has looked around', 30;
is(asked(), $asked, '... nothing is read');
$sandbox->clear_faults;
$client->query(q(SELECT hubex_resume('fsm')));
shows('tasks', 'in the pause', '... and after it what was missed', 10);
in_step('more', '... and begins what waited', 10);

$client->query(q(UPDATE hubex.subscription SET every = NULL, full_every = NULL));
eventually { worker() eq '' } 'nobody asks any more', 20;
$client->query(q(UPDATE hubex.subscription SET every = '1 s' WHERE name = 'tasks'));
$client->end;
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
my $copy = Hubex::Client->new($node, database => 'copy');
$client = Hubex::Client->new($node);
$client->query('DROP EXTENSION hubex CASCADE');
eventually { worker('copy') } 'a copy of the database has a worker', 45;
eventually { $copy->query(q(SELECT state FROM hubex_stat_worker WHERE kind = 'sync' AND database = 'copy')) eq 'held' } '... which is held', 10;
is($copy->query(q(SELECT state FROM hubex_stat_sync WHERE name = 'tasks')), 'held', '... as the subscription is');
$sandbox->clear_journal;
change('tasks', 'in the copy');
eventually { $copy->query(q(SELECT steps FROM hubex_stat_worker WHERE kind = 'sync' AND database = 'copy')) >= 3 } '... it looks', 30;
is(asked(), 0, '... and reads nothing');
$copy->query('SELECT hubex_take_over()');
eventually { $copy->query(q(SELECT count(*) FROM m.tasks WHERE notes = 'in the copy')) } 'until hubex_take_over()', 20 or diag $copy->query('SELECT * FROM hubex_stat_sync');
$copy->end;
$node->safe_psql('postgres', 'DROP DATABASE copy');

#
# Many, and some that hang
#
$node->start_hubex($sandbox, retry_base => '0.2', retry_cap => '1', max_connections => 32);
$client->query('IMPORT FOREIGN SCHEMA "*" FROM SERVER fsm INTO fsm');
$client->query(q(SELECT hubex_subscribe('lively', 'fsm.tasks', 'm.lively', '1 s')));
in_step('lively', 'a mirror is filled', 20);
my $hang = $sandbox->fault(method => 'GET', path => $path{assets}, fault => 'delay_before', seconds => 600, probability => 1);
$client->query("SELECT hubex_subscribe('sweep $_', 'fsm.assets', 'm.sweep_$_', '1 hour')") for 1 .. 10;
eventually { hanging('full') == 4 } 'of ten that hang while they are filled four are under way', 20;
change('lively', 'beside sweeps');
shows('lively', 'beside sweeps', '... others go on', 10);
is(hanging('full'), 4, '... it stays at four');
my @under_way = split ' ', $client->query(q(SELECT string_agg(substr(subscription, 7), ' ') FROM hubex_stat_progress_sync WHERE mode = 'full'));
$client->query("SELECT hubex_unsubscribe('sweep $_')") for @under_way;
my %left = map { $_ => 1 } 1 .. 10;
delete @left{@under_way};
eventually { hanging('full') == 4 && $client->query(q(SELECT count(*) FROM hubex_stat_progress_sync p WHERE mode = 'full' AND NOT EXISTS (SELECT FROM hubex.subscription s WHERE s.name = p.subscription))) == 0 }
'... who is unsubscribed leaves its place to the next', 10;
my ($again) = $client->query(q(SELECT subscription FROM hubex_stat_progress_sync WHERE mode = 'full' LIMIT 1));
$sandbox->clear_faults($hang);
my $target = 'm.' . $again =~ tr/ /_/r;
$client->query("SELECT hubex_unsubscribe('$again'); SELECT hubex_subscribe('$again', 'fsm.assets', '$target', '1 hour')");
in_step($again, '... and one that is subscribed again does not wait for what hung', 10);
$client->query('SELECT pg_terminate_backend(' . worker() . ')');
in_step("sweep $_", "... when they hang no more all are filled: $_", 60) for sort keys %left;

#
# CALL hubex_sync() and the worker
#
$client->query(q(SELECT hubex_unsubscribe(name) FROM hubex.subscription));
$client->query(q(SELECT hubex_subscribe('both', 'fsm.tasks', 'm.both', '1 s')));
in_step('both', 'one that is called for, too', 20);
my @callers = map { Hubex::Client->new($node) } 1 .. 4;
$sandbox->clear_journal;
$sandbox->fault(method => 'GET', path => $path{tasks}, fault => 'delay', seconds => 0.3, probability => 1);
for my $round (1 .. 3)
{
	$_->send(q(CALL hubex_sync('both', 'incremental'))) for @callers;
	is_deeply([ map { $_->answer(60)->{error} } @callers ], [ (undef) x 4 ], 'four CALLs at once');
}
my @entries = @{ $sandbox->journal(path => $path{tasks}) };
cmp_ok(scalar @entries, '>=', 12, 'each CALL read');
is_deeply([ grep { $_->{in_flight} > 1 } @entries ], [], '... and none beside another or beside the worker');
$sandbox->clear_faults;

#
# kill -9
#
for my $signal (qw(KILL TERM INT))
{
	my $before = worker();
	kill $signal, $before;
	eventually { my $now = eval { worker() }; $now && $now ne $before } "it is back after SIG$signal", 30;
	$client = Hubex::Client->new($node);
	change('both', "after $signal");
	shows('both', "after $signal", '... and goes on', 20);
}
unlike(slurp_log(), qr/(?:ERROR|FATAL|PANIC|WARNING): .*(?:cache lookup|could not open relation|relation "hubex\.\w+" does not exist|deadlock)/, 'nothing was looked for that is gone');
done_testing;

sub slurp_log { return PostgreSQL::Test::Utils::slurp_file($node->logfile) }

# The sync worker's process id, or nothing.
sub worker
{
	my ($database) = @_;
	$database //= 'postgres';
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'hubex sync' AND datname = '$database'");
}

sub state { return $client->query("SELECT state FROM hubex_stat_sync WHERE name = '$_[0]'") }

sub in_step
{
	my ($name, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { state($name) eq 'in step' } $what, $seconds
	  or diag $client->query("SELECT * FROM hubex_stat_sync WHERE name = '$name'");
}

sub hanging
{
	my ($mode) = @_;
	return $client->query("SELECT count(*) FROM hubex_stat_progress_sync WHERE subscription LIKE 'sweep%' AND mode = '$mode'");
}

# So many requests for a list so far; for anything.
sub reads { return scalar @{ $sandbox->journal(method => 'GET', path => $path{ $_[0] }, fields => 'n') } }
sub asked { return scalar @{ $sandbox->journal(fields => 'n') } }

# Somebody else changes a task; the mirror shows it.
sub change
{
	my ($mirror, $notes) = @_;
	$sandbox->orders({ list => 'tasks', kind => 'change', id => 1001, fields => { notes => $notes } });
}

sub shows
{
	my ($mirror, $notes, $what, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { $client->query("SELECT count(*) FROM m.$mirror WHERE id = 1001 AND notes = '$notes'") eq '1' } $what, $seconds;
}
