# A standby delivers nothing and has no worker, but can be read from; its promotion makes it deliver. What was
# delivered, was in flight or waited when the primary died reaches the remote side once, also where the standby did not
# hear the last of the primary.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my $primary = Hubex::Node->new('primary', allows_streaming => 1, restart_after_crash => 'on');
$primary->start_hubex($sandbox);
$primary->safe_psql('postgres', q(CREATE FOREIGN TABLE remote_tasks (id bigint, notes text) SERVER fsm OPTIONS (resource 'tasks');
	SELECT hubex_subscribe('mirror', 'remote_tasks', 'mirror', '1 s')));
$primary->wait_for(q(SELECT state FROM hubex_stat_sync), 'in step', 'the primary has a mirror', 20);
$primary->backup('base');
my $standby = Hubex::Node->new('standby', init => 0);
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

#
# Reading from a standby
#
my $id = enqueue('before');
my $client = Hubex::Client->new($standby);
catch_up();
is($client->query("SELECT hubex_wait($id, '20s')"), 'delivered', 'hubex_wait on the standby sees what the primary does');
is($client->query(q(SELECT status FROM hubex_request('GET', '/WORK/Tasks'))), 200, 'a call can be made there');
is($client->query('SELECT count(*) > 0 FROM hubex_tasks()'), 't', 'a list can be read');
is($client->try(q(SELECT hubex_create_task(1, 'on the standby')))->{sqlstate}, '25006', 'nothing can be enqueued');
is($client->try('CALL hubex_deliver()')->{sqlstate}, '25006', 'nor delivered');
is($client->query(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'hubex%')), 0, 'nothing of hubex runs');
is($client->query('SELECT count(*) > 0 FROM mirror'), 't', 'the mirror can be read');
is($client->query('SELECT name FROM hubex_stat_sync'), 'mirror', '... it is seen how it stands');
is($client->try(q(CALL hubex_sync('mirror')))->{sqlstate}, '25006', '... but nobody reads for it');
my $check = $client->query(q(SELECT message FROM hubex_check() WHERE subject = 'delivery'));
like($check, qr/standby/i, 'hubex_check says why');

#
# The primary dies with one request done whose answer is late, one that hangs, and some that wait
#
$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 30, times => 1);
my $before = @{ $sandbox->tasks };
enqueue('done, not answered', ordering_key => "'a'");
eventually { @{ $sandbox->tasks } > $before } 'the sandbox has done a request';
enqueue('behind it', ordering_key => "'a'");

$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'hang', times => 1);
my $journal = posts();
enqueue('not done', ordering_key => "'b'");
eventually { posts() > $journal } 'another hangs';
enqueue('behind that', ordering_key => "'b'");
my $lost = enqueue('the standby does not know', deliver_after => "now() + '2 s'");
my $created = $primary->safe_psql('postgres', q(SELECT count(*) FROM hubex.outbox));
catch_up();

# from here on the standby hears nothing
$client->end;
$standby->stop('immediate');
$primary->wait_for("SELECT state FROM hubex.outbox WHERE id = $lost", 'delivered', 'the primary delivers one more', 10);
$primary->stop('immediate');
$standby->start;
is($standby->safe_psql('postgres', "SELECT state FROM hubex.outbox WHERE id = $lost"), 'waiting',
	'which the standby does not know');
is($standby->safe_psql('postgres', q(SELECT count(*) FROM hubex.outbox WHERE state = 'sending')), 2,
	'it knows of two in flight');

my $since = time;
$standby->promote;
$standby->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state = 'delivered'), $created,
	'the promoted standby delivers all', 20);
note sprintf 'all delivered %.1f s after the promotion began', time - $since;
my %made;
$made{ $_->{request}{notes} }++ for grep { defined $_->{request}{notes} } @{ $sandbox->tasks };
delete $made{$_} for grep { /^seed/ } keys %made;
is_deeply(\%made, { map { $_ => 1 } 'before', 'done, not answered', 'behind it', 'not done', 'behind that',
	'the standby does not know' }, 'each request was done once');

my (%posts, %effects);
for my $entry (@{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') })
{
	my ($notes) = $entry->{body} =~ /"notes": ?"([^"]*)"/;
	$posts{$notes}++;
	$effects{$notes} += @{ $entry->{effect}{created} // [] };
}
is($posts{'done, not answered'}, 1, 'what was done was not sent again, but looked up');
is($posts{'before'}, 1, 'what was delivered was not sent again');
is_deeply([ grep { $effects{$_} != 1 } keys %effects ], [], 'no request had another effect');
is($standby->safe_psql('postgres', q(SELECT string_agg(DISTINCT state, ' ') FROM hubex.worker_state())), 'running',
	'its worker runs');
$sandbox->orders({ list => 'tasks', kind => 'change', id => 1001, fields => { notes => 'after the promotion' } });
$standby->wait_for(q(SELECT notes FROM mirror WHERE id = 1001), 'after the promotion', 'and its mirror goes on', 20);
is($standby->safe_psql('postgres', 'SELECT hubex_take_over()'), 0, 'it was no copy: there is nothing to take over');
like(PostgreSQL::Test::Utils::slurp_file($standby->logfile), qr/LOG:  hubex delivery goes on in database "postgres"/, 'the log tells of it');

# it knows that also when it has crashed before a database was looked at, and later without having been a standby
$standby->safe_psql('postgres', q(UPDATE hubex.binding SET place = '0'));
kill 'KILL', $standby->safe_psql('postgres', 'SELECT pid FROM hubex.worker_state()');
$standby->wait_for(q(SELECT place <> '0' FROM hubex.binding), 't', 'after a crash of a process it binds the database once more', 20);
$standby->restart;
$standby->wait_for(q(SELECT hubex.held() IS NULL AND state = 'running' FROM hubex.worker_state()), 't', 'after a restart it goes on', 20);
$standby->safe_psql('postgres', q(UPDATE hubex.binding SET place = '0'));
$standby->wait_for(q(SELECT state FROM hubex.worker_state()), 'held', 'it would not, had it not been bound before', 20);
done_testing;

sub enqueue
{
	my ($notes, %argument) = @_;
	my $arguments = join '', map { ", $_ => $argument{$_}" } sort keys %argument;
	return $primary->safe_psql('postgres', "SELECT hubex_create_task(1, '$notes'$arguments)");
}

sub posts { return scalar @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') } }

sub catch_up
{
	my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	return $standby->wait_for("SELECT pg_last_wal_replay_lsn() >= '$lsn'", 't', 'the standby has caught up', 20);
}
