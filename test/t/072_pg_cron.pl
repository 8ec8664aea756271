# CALL hubex_deliver() run by pg_cron itself, on a server that does not preload hubex: two jobs of the same minute, of
# which one belongs to a role that is no superuser, and CALLs by hand beside them deliver all that is there, nothing
# twice; what comes later goes with a later run; and a run that cannot deliver says why where pg_cron's users look.

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
my @posts = (method => 'POST', path => '/WORK/Tasks');
my $requests = 240;

$node->start_hubex($sandbox, max_connections => 2);
is($client->query('SELECT state FROM hubex.worker_state()'), 'not preloaded', 'nobody delivers by himself');
$client->query(q(CREATE EXTENSION pg_cron;
	CREATE ROLE deliverer LOGIN;
	SELECT hubex_grant('deliverer', 'admin');
	GRANT USAGE ON SCHEMA cron TO deliverer));

# The shortest there is: seconds since 1.5.
my $often = $client->query(q(SELECT string_to_array(split_part(extversion, '-', 1), '.')::int[] >= '{1,5}' FROM pg_extension
	WHERE extname = 'pg_cron')) eq 't' ? '2 seconds' : '* * * * *';
note "schedule: $often";

#
# Two jobs at once, and CALLs by hand
#
my $delay = $sandbox->fault(@posts, fault => 'delay', seconds => 0.1, probability => 1);
$client->query("SELECT count(hubex_create_task(1, 'cron ' || n)) FROM generate_series(1, $requests) n");
my $job = $client->query("SELECT cron.schedule('deliver', '$often', 'CALL hubex_deliver()')");
my $others = Hubex::Client->new($node, user => 'deliverer');
my $other_job = $others->query("SELECT cron.schedule('deliver as well', '$often', 'CALL hubex_deliver()')");
eventually { @{ $sandbox->journal(@posts, fields => 'n') } > 0 } 'pg_cron runs CALL hubex_deliver()', 90;
my @clients = map { Hubex::Client->new($node) } 1 .. 2;
$_->send('CALL hubex_deliver()') for @clients;
is_deeply([ map { $_->answer(120)->{error} } @clients ], [ undef, undef ], 'two CALLs by hand meanwhile');
$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, 'all is delivered', 120);
my %notes;
$notes{$_}++ for grep { /^cron / } map { $_->{request}{notes} // '' } @{ $sandbox->tasks };
is_deeply(\%notes, { map { ("cron $_" => 1) } 1 .. $requests }, '... and made once');
is(scalar @{ $sandbox->journal(@posts, fields => 'n') }, $requests, '... and sent once');
cmp_ok($sandbox->summary->{max_in_flight}, '>', 2, '... by more than one at once: ' . $sandbox->summary->{max_in_flight});
for my $each ([ $job, 'the job of a superuser' ], [ $other_job, 'the job of another role' ])
{
	my ($id, $whose) = @$each;
	$node->wait_for("SELECT DISTINCT status || ' ' || return_message FROM cron.job_run_details WHERE jobid = $id AND status = 'succeeded'",
		'succeeded CALL', "$whose has succeeded", 90);
}
is($client->query(q(SELECT count(*) FROM cron.job_run_details WHERE status = 'failed')), 0, 'no run has failed')
  or diag $client->query(q(SELECT return_message FROM cron.job_run_details WHERE status = 'failed'));
is($client->query(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), 0, '... or left a lock')
  if $often =~ /^\*/;    # else the next run may hold one just now

#
# Later, and by one job; the other is told why it cannot
#
$sandbox->clear_faults($delay);
$client->query('REVOKE EXECUTE ON PROCEDURE hubex_deliver FROM deliverer');
my $later = $client->query(q(SELECT hubex_create_task(1, 'cron, later')));
$node->wait_for("SELECT state FROM hubex.outbox WHERE id = $later", 'delivered', 'a later run delivers what came later', 90);
is(scalar(grep { ($_->{request}{notes} // '') eq 'cron, later' } @{ $sandbox->tasks }), 1, '... once');
$node->wait_for("SELECT count(*) > 0 FROM cron.job_run_details WHERE jobid = $other_job AND status = 'failed'"
	. q( AND return_message ~ 'permission denied for procedure hubex_deliver'), 't', 'who may not is told so in cron.job_run_details', 90);
done_testing;
