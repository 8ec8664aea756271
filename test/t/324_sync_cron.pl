# CALL hubex_sync() run by pg_cron itself, on a server that does not preload hubex: the first run fills a mirror, later ones
# bring what changed; two jobs for one mirror at the same time, of which one belongs to another role, and CALLs by hand
# beside them do no harm; a run that cannot says why where pg_cron's users look, and in hubex_check().

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main',
	shared_preload_libraries => 'pg_cron',
	'cron.database_name' => 'postgres',
	'cron.use_background_workers' => 'on',
	max_worker_processes => 16);
my $client = Hubex::Client->new($node);
my $changes = 0;

$node->start_hubex($sandbox);
$node->start_hubex($sandbox, server => 'fsm2');
$client->query(q{
	CREATE EXTENSION pg_cron; CREATE SCHEMA fsm;
	CREATE FOREIGN TABLE fsm.tasks (id bigint, notes text, company_id bigint, last_modified timestamptz, raw jsonb) SERVER fsm OPTIONS (resource 'tasks');
	CREATE FOREIGN TABLE fsm.tasks_2 (id bigint, notes text, company_id bigint, last_modified timestamptz, raw jsonb) SERVER fsm2 OPTIONS (resource 'tasks');
	CREATE ROLE keeper LOGIN; SELECT hubex_grant('keeper', 'admin'); GRANT USAGE ON SCHEMA cron, fsm TO keeper; GRANT USAGE ON FOREIGN SERVER fsm, fsm2 TO keeper;
	GRANT SELECT ON fsm.tasks, fsm.tasks_2 TO keeper; CREATE SCHEMA AUTHORIZATION keeper;
	SELECT hubex_subscribe('tasks', 'fsm.tasks', 'public.tasks', every => '1 second')});

# The shortest there is: seconds since 1.5.
my $often = $client->query(q(SELECT string_to_array(split_part(extversion, '-', 1), '.')::int[] >= '{1,5}' FROM pg_extension
	WHERE extname = 'pg_cron')) eq 't' ? '2 seconds' : '* * * * *';
note "schedule: $often";

# Nobody runs it as yet, which is said once it is late.
$client->query(q(UPDATE hubex.subscription_state SET next_at = now() - interval '2 minutes', next_full_at = now() - interval '2 minutes'));
is($client->query('SELECT count(*) FROM hubex_stat_worker'), 0, 'there is no worker');
like($client->query(q(SELECT message || ' ' || hint FROM hubex_check('fsm') WHERE subject = 'mirror' AND NOT ok)), qr/nobody who runs it.*pg_cron CALL hubex_sync\('tasks'\)/, '... hubex_check() says what to do');

#
# Three jobs of the same time, of which two are another role's, and two for one mirror; and CALLs by hand
#
my $keeper = Hubex::Client->new($node, user => 'keeper');
is($keeper->try(q(SELECT public.hubex_subscribe('own', 'fsm.tasks_2', 'own', every => '1 second')))->{error}, undef, 'another role has a mirror of its own');
my $delay = $sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'delay', seconds => 0.3, probability => 1);
my $job = $client->query("SELECT cron.schedule('tasks', '$often', \$\$CALL hubex_sync('tasks')\$\$)");
my $other_job = $keeper->query("SELECT cron.schedule('tasks as well', '$often', \$\$CALL public.hubex_sync('tasks')\$\$)");
my $own_job = $keeper->query("SELECT cron.schedule('own', '$often', \$\$CALL public.hubex_sync('own')\$\$)");
eventually { $client->query(q(SELECT sum(requests) FROM hubex.subscription_state)) > 0 } 'pg_cron runs CALL hubex_sync()', 90;
my @clients = map { Hubex::Client->new($node) } 1 .. 2;
$_->send(q(CALL hubex_sync('tasks'))) for @clients;
is_deeply([ map { $_->answer(60)->{error} } @clients ], [ undef, undef ], '... and two CALLs by hand meanwhile');
$node->wait_for("SELECT count(DISTINCT jobid) FROM cron.job_run_details WHERE status = 'succeeded' AND return_message = 'CALL'", 3, 'all jobs succeed', 120);
same($_) for qw(public.tasks keeper.own);
is($client->query(q(SELECT relowner::regrole FROM pg_class WHERE oid = 'keeper.own'::regclass)), 'keeper', '... each its role\'s');
is($client->query(q(SELECT count(*) FROM hubex_check('fsm') WHERE subject = 'mirror' AND NOT ok)), 0, '... hubex_check() has nothing to say')
  or diag $client->query(q(SELECT message FROM hubex_check('fsm') WHERE subject = 'mirror'));
is($client->query(q(SELECT count(*) FROM cron.job_run_details WHERE status = 'failed')), 0, 'no run has failed')
  or diag $client->query(q(SELECT return_message FROM cron.job_run_details WHERE status = 'failed'));
$sandbox->clear_faults($delay);

#
# What cannot be done is said
#
$keeper->query("SELECT cron.unschedule($other_job)");
$client->query(q(SELECT hubex_pause('fsm2'); ALTER TABLE tasks DROP CONSTRAINT tasks_pkey));
my $failed = sub { my ($id, $why) = @_; return "SELECT count(*) > 0 FROM cron.job_run_details WHERE jobid = $id AND status = 'failed' AND return_message ~ '$why'" };
$node->wait_for($failed->($own_job, 'is held: nothing is read for it'), 't', 'that a server is paused is told in cron.job_run_details', 90);
$node->wait_for($failed->($job, 'no unique index'), 't', '... that a target will not do, too', 90);
like($client->query(q(SELECT message FROM hubex_check('fsm') WHERE subject = 'mirror' AND message ~ 'fails since')), qr/"tasks" fails since \d+ run.*no unique index/, '... and in hubex_check()');
$client->query(q(SELECT hubex_resume('fsm2'); ALTER TABLE tasks ADD PRIMARY KEY (id)));
follows('then it goes on');
is($client->query(q(SELECT state FROM hubex_stat_sync WHERE name = 'tasks')), 'in step', '... as if nothing had been');
$client->query('SELECT cron.unschedule(jobid) FROM cron.job');
eventually { $client->query(q(SELECT count(*) FROM cron.job_run_details WHERE status = 'running')) == 0 } 'the jobs end', 60;
is($client->query(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), 0, '... and leave no lock');
same($_) for qw(public.tasks keeper.own);
done_testing;

sub same
{
	my ($mirror) = @_;
	my $columns = 'id, notes, company_id, last_modified, raw';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { $client->query("WITH r AS MATERIALIZED (SELECT $columns FROM fsm.tasks), m AS MATERIALIZED (SELECT $columns FROM $mirror)
		SELECT (SELECT count(*) FROM (TABLE m EXCEPT TABLE r) x) || ' ' || (SELECT count(*) FROM (TABLE r EXCEPT TABLE m) x) || ' ' || (SELECT count(*) > 0 FROM m)") eq '0 0 true' } "... $mirror is what the list is", 90;
}

sub follows
{
	my ($what) = @_;
	my $notes = 'change ' . ++$changes;
	my @ids = split /,/, $client->query("SELECT string_agg(id::text, ',') FROM (SELECT id FROM tasks ORDER BY id LIMIT 4) s");
	$sandbox->orders(map { { list => 'tasks', kind => 'change', id => $_ + 0, fields => { notes => $notes } } } @ids);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { $client->query("SELECT count(*) FROM tasks WHERE notes = '$notes'") == 4 } $what, 120;
}
