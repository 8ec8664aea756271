# Mirrors kept in step by nobody who looks: by the worker, which comes and goes with the extension and is not in the way of
# who drops it; and by pg_cron itself, on a server that does not preload hubex.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 300, assets => 40);
my $import = q(CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm);

#
# The worker, and who ends what it is at
#
{
	my $node = Hubex::Node->new('main', deadlock_timeout => '100ms');
	$sandbox->fault(path => '/WORK/Tasks', fault => 'delay', seconds => 0.05, probability => 1);
	for my $time (1 .. 6)
	{
		$node->start_hubex($sandbox, page_size => 20);
		$node->safe_psql('postgres', $import . q(; SELECT hubex_subscribe('a', 'fsm.tasks', 'public.a', full_every => '1 second');
			SELECT hubex_subscribe('b', 'fsm.tasks', 'public.b', every => '1 second', mode => 'full');
			UPDATE hubex.subscription SET every = '100 ms', full_every = '100 ms'));
		$node->wait_for("SELECT bool_and(runs > $time) FROM hubex.subscription_state", 't', "time $time: the worker keeps two mirrors in step") if $time < 3;
		$node->wait_for('SELECT count(*) > 0 FROM hubex_stat_progress_sync', 't', '... and is at it');
		my ($status, undef, $errors) = $node->psql('postgres', $time % 2 ? q(DROP EXTENSION hubex CASCADE) : q(SELECT hubex_unsubscribe('a'), hubex_unsubscribe('b')));
		is(join(' ', $status, $errors =~ /(ERROR.*)/g), '0', $time % 2 ? '... while the extension is dropped' : '... while they are unsubscribed');
		$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS hubex CASCADE; DROP SCHEMA IF EXISTS fsm CASCADE; DROP TABLE a, b');
	}
	$node->stop;
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
	is(scalar(() = $log =~ /deadlock/g), 0, 'nobody waited for the other');
	is(join("\n", $log =~ /^(.*hubex sync of subscription .* failed.*)$/mg), '', 'and to end a subscription is no failure');
	$sandbox->clear_faults;
}

#
# pg_cron
#
{
	my $node = Hubex::Node->new('cron', shared_preload_libraries => 'pg_cron', 'cron.database_name' => 'postgres', 'cron.use_background_workers' => 'on',
		max_worker_processes => 16);
	$node->start_hubex($sandbox);
	my $client = Hubex::Client->new($node);
	$client->query($import . q(; SELECT hubex_subscribe('tasks', 'fsm.tasks', 'public.tasks', every => NULL)));
	my $answer = $client->try(q(CALL hubex_sync('tasks')));
	is($answer->{error}, undef, 'without preload a CALL does it all');
	is($client->query('SELECT count(*) FROM tasks'), $client->query('SELECT count(*) FROM fsm.tasks'), '... and fills a mirror');

	$client->query('CREATE EXTENSION pg_cron');
	my $often = $client->query(q(SELECT string_to_array(split_part(extversion, '-', 1), '.')::int[] >= '{1,5}' FROM pg_extension
		WHERE extname = 'pg_cron')) eq 't' ? '2 seconds' : '* * * * *';
	my $job = $client->query("SELECT cron.schedule('sync', '$often', \$\$CALL hubex_sync('tasks')\$\$)");
	$node->wait_for("SELECT count(*) > 0 FROM cron.job_run_details WHERE jobid = $job AND status = 'succeeded' AND return_message = 'CALL'", 't', 'pg_cron runs CALL hubex_sync()', 90);
	my $runs = $client->query('SELECT runs FROM hubex.subscription_state');
	my $id = $client->query('SELECT min(id) FROM tasks');
	$sandbox->orders({ list => 'tasks', kind => 'change', id => $id + 0, fields => { notes => 'by cron' } }, { list => 'tasks', kind => 'create' });
	$node->wait_for("SELECT notes FROM tasks WHERE id = $id", 'by cron', '... which brings what has changed', 90);
	$node->wait_for('SELECT count(*) FROM tasks', $client->query('SELECT count(*) FROM fsm.tasks'), '... all of it', 90);
	cmp_ok($client->query('SELECT runs FROM hubex.subscription_state'), '>', $runs, '... in runs of its own');

	$sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => 418, probability => 1);
	$node->wait_for("SELECT count(*) > 0 FROM cron.job_run_details WHERE jobid = $job AND status = 'failed' AND return_message LIKE '%418%'", 't',
		'a run that fails says why where users of pg_cron look', 90);
	cmp_ok($client->query('SELECT failures FROM hubex.subscription_state'), '>', 0, '... and where those of hubex do');
	$sandbox->clear_faults;
	$node->wait_for('SELECT failures FROM hubex.subscription_state', 0, '... until it goes well again', 90);
}
done_testing;
