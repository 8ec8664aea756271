# A copy stays silent. Whatever a copy of a database is made with (a dump, CREATE DATABASE ... TEMPLATE, a copy of the
# files, pg_basebackup), it sends nothing of what it came with and says so, until hubex_take_over(); then each request is
# delivered, and not a second time where the original has delivered it since. The original goes on all the while. A
# promoted standby is no copy.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', allows_streaming => 1);
my $folder = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', 'CREATE DATABASE erp');
$node->start_hubex($sandbox, database => 'erp', timeout => '5min');

# What every copy gets: a request done whose answer does not come, two behind it, one for later, one delivered.
my $original = Hubex::Client->new($node, database => 'erp');
my $delivered = enqueue($original, 'delivered');
is($original->query("SELECT hubex_wait($delivered)"), 'delivered', 'the original delivers');
$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'hang_after', times => 1);
enqueue($original, $_, ordering_key => "'a'") for 'first', 'second', 'third';
enqueue($original, 'later', deliver_after => "now() + '1 hour'");
my @open = ('first', 'second', 'third', 'later');
eventually { made('first') == 1 } 'it is in the middle of something';

#
# Dumps
#
succeeds('pg_dump', 'pg_dump', '--format=custom', '-f', "$folder/custom", $node->connstr('erp'));
succeeds('pg_dump, a directory', 'pg_dump', '--format=directory', '-f', "$folder/directory", $node->connstr('erp'));
succeeds('pg_dump, data only', 'pg_dump', '--format=custom', '--data-only', '-f', "$folder/data", $node->connstr('erp'));
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE template0") for qw(serial parallel used);
succeeds('pg_restore', 'pg_restore', '--exit-on-error', '-d', $node->connstr('serial'), "$folder/custom");
succeeds('pg_restore, two at once', 'pg_restore', '--exit-on-error', '--jobs=2', '-d', $node->connstr('parallel'), "$folder/directory");

# a database that has sent something of its own
$node->start_hubex($sandbox, database => 'used');
$node->safe_psql('used', q(SELECT setval('hubex.outbox_id_seq', 1000)));
my $used = Hubex::Client->new($node, database => 'used');
my $own = enqueue($used, 'used has its own');
is($used->query("SELECT hubex_wait($own)"), 'delivered', 'a database in use delivers');
succeeds('pg_restore, data only', 'pg_restore', '--exit-on-error', '--data-only', '-d', $node->connstr('used'), "$folder/data");

for my $database (qw(serial parallel used))
{
	my $copy = Hubex::Client->new($node, database => $database);
	is($copy->query(q(SELECT string_agg(body ->> 'notes' || ' ' || state, ', ' ORDER BY id) FROM hubex.outbox WHERE id < 1000)),
		'delivered delivered, first sending, second waiting, third waiting, later waiting', "$database: all is there");
	make_due($copy);
	my $answer = $copy->try(q(SELECT hubex_create_task(1, 'of %')) =~ s/%/$database/r);
	is($answer->{notices}, '', '... what is enqueued gives no warning');
	is($copy->query("SELECT hubex_wait($answer->{rows})"), 'delivered', '... and is delivered');
	is($copy->query('SELECT count(*) FROM hubex.outbox WHERE binding <> hubex.binding() AND state IN (\'waiting\', \'sending\')'), 4,
		'... what came with the dump is held');
	is($copy->query('SELECT held FROM hubex_stat_outbox'), 3, '... hubex_stat_outbox counts it');
	like($copy->query(q(SELECT ok || ' ' || message || ' ' || hint FROM hubex_check() WHERE subject = 'binding')),
		qr/^false 3 of those .* came with a dump.*hubex_take_over\(\)/, '... hubex_check says so');
	is($copy->query('SELECT state FROM hubex_stat_worker WHERE database = current_database()'), 'running', '... the worker runs');
}
goes_on('beside dumps');

#
# Copies of the files
#
$node->backup('base');
my $clone = Hubex::Node->new('clone', init => 0);
$clone->init_from_backup($node, 'base');
$clone->start;
held($clone, 'erp', qr/files of this server are a copy/, 'pg_basebackup, started');
held($clone, 'used', qr/files of this server are a copy/, '... each database');
$clone->stop;
succeeds('mkdir', 'mkdir', '-p', $clone->backup_dir);
succeeds('cp -a', 'cp', '-a', $clone->data_dir, $clone->backup_dir . '/cold');
my $cold = Hubex::Node->new('cold', init => 0);
$cold->init_from_backup($clone, 'cold');
$cold->start;
held($cold, 'erp', qr/files of this server are a copy/, 'a copy of the files of a server that was stopped');
goes_on('beside clones');

#
# A copied database; its original's worker has to make way, so what hangs is looked up and goes on
#
$original->end;
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE erp');
$original = Hubex::Client->new($node, database => 'erp');
held($node, 'copied', qr/copy of database "erp"/, 'CREATE DATABASE ... TEMPLATE');
eventually { $original->query(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered')) == 1 } 'the original has gone on', 20;
is_deeply([ map { made($_) } @open ], [ 1, 1, 1, 0 ], '... with each request once, before anybody has taken over');
is(posted('first'), 1, '... and looked up what had been done');

like(PostgreSQL::Test::Utils::slurp_file($clone->logfile), qr/LOG:  hubex delivery holds in database.*\n.*DETAIL:  The files of this server/,
	'the log of a copy tells of it');

#
# Taking over
#
my %taken = (serial => 4, parallel => 4, used => 4, copied => 7, clone => 6, cold => 8);
for my $copy ([ $node, 'serial' ], [ $node, 'parallel' ], [ $node, 'used' ], [ $node, 'copied' ], [ $clone, 'erp', 'clone' ], [ $cold, 'erp', 'cold' ])
{
	my ($server, $database, $name) = (@$copy, $copy->[1]);
	$server->start if $name eq 'clone';
	my $client = Hubex::Client->new($server, database => $database);
	my $token = $client->query('SELECT hubex.binding()');
	make_due($client);
	if ($name eq 'copied')    # it waits for a transaction that enqueues with the old token
	{
		my $late = Hubex::Client->new($server, database => $database);
		$late->query(q(BEGIN; SELECT hubex_create_task(1, 'too late')));
		$client->send('SELECT hubex_take_over()');
		eventually { $late->query('SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = \'Lock\' AND pid = ' . $client->pid) == 1 }
		'hubex_take_over() waits for who enqueues', 10;
		$late->query('COMMIT');
		is($client->answer->{rows}, $taken{$name}, "$name takes over");
	}
	else
	{
		is($client->query('SELECT hubex_take_over()'), $taken{$name}, "$name takes over");
	}
	eventually { $client->query(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered')) == 0 } '... and delivers all', 20;
	is_deeply([ map { made($_) } @open ], [ 1, 1, 1, 1 ], '... what was not done yet, once');
	($name =~ /^(?:serial|parallel|used)$/ ? \&is : \&isnt)->($client->query('SELECT hubex.binding()'), $token,
		'... with a token of its own');
	is($client->query(q(SELECT count(*) FROM hubex_check() WHERE subject = 'binding')), 0, '... hubex_check has nothing more to say');
	is($client->query('SELECT hubex_take_over()'), 0, '... there is nothing left to take over');
	$client->end;
	$server->stop if $server != $node;
}
is_deeply([ map { posted($_) } @open ], [ 1, 1, 1, 1 ], 'nothing was sent twice');
is_deeply([ map { made("in the copy, $_") } qw(pg_basebackup CREATE) ], [ 1, 1 ], 'what was enqueued in copies was sent');
goes_on('after all');
is($original->query('SELECT hubex.held()'), '', 'the original was never held');

#
# hubex.deliver
#
$node->append_conf('postgresql.conf', 'hubex.deliver = off');
$node->reload;
eventually { $original->query('SELECT state FROM hubex.worker_state()') eq 'held' } 'hubex.deliver = off holds a server';
my $silent = enqueue($original, 'silenced');
like($original->try('CALL hubex_deliver()')->{hint}, qr/hubex\.deliver/, '... CALL hubex_deliver() says so');
like($original->query(q(SELECT hint FROM hubex_check() WHERE subject = 'binding')), qr/hubex\.deliver/, '... and hubex_check');
is($original->query("SELECT hubex_wait($silent, '0')"), 'waiting', '... all waits');
$node->append_conf('postgresql.conf', 'hubex.deliver = on');
$node->reload;
is($original->query("SELECT hubex_wait($silent, '20 s')"), 'delivered', '... and goes on with on');

#
# A standby that is promoted without hubex in shared_preload_libraries cannot be told from a copy
#
$node->backup('standby');
my $standby = Hubex::Node->new('standby', init => 0);
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->append_conf('postgresql.conf', q(shared_preload_libraries = ''));
$standby->start;
$node->safe_psql('erp', q(SELECT hubex_create_task(1, 'for the standby', deliver_after => now() + '1 hour')));
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
$original->end;
$node->stop('immediate');
$standby->promote;
my $promoted = Hubex::Client->new($standby, database => 'erp');
make_due($promoted);
my $refused = $promoted->try('CALL hubex_deliver()');
is($refused->{sqlstate}, '55000', 'a promoted standby without preload is held');
like($refused->{hint}, qr/hubex_take_over\(\)/, '... with a hint');
is($promoted->query('SELECT hubex_take_over()'), 2, '... until it takes over');
$promoted->query('CALL hubex_deliver()');
is(made('for the standby'), 1, '... and delivers');
done_testing;

sub enqueue
{
	my ($client, $notes, %argument) = @_;
	my $arguments = join '', map { ", $_ => $argument{$_}" } sort keys %argument;
	return $client->query("SELECT hubex_create_task(1, '$notes'$arguments)");
}

# How many tasks there are of a request, and how often it was sent.
sub made { my ($notes) = @_; return scalar grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks } }

sub posted
{
	my ($notes) = @_;
	return scalar grep { $_->{body} =~ /"notes": ?"\Q$notes\E"/ } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
}

# Nothing waits for its time any more.
sub make_due
{
	my ($client) = @_;
	$client->query(q(UPDATE hubex.outbox SET next_attempt_at = now() - interval '1 min' WHERE state = 'waiting'));
}

sub goes_on
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $id = enqueue($original, "original, $when");
	is($original->query("SELECT hubex_wait($id)"), 'delivered', "the original goes on $when");
}

# A database that is held as a whole.
sub held
{
	my ($server, $database, $why, $what) = @_;
	my ($word) = $what =~ /^(\w+)/;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually { $server->safe_psql($database, 'SELECT state FROM hubex_stat_worker WHERE database = current_database()') eq 'held' }
	"$what: the worker holds", 10;

	my $client = Hubex::Client->new($server, database => $database);
	like($client->query('SELECT hubex.held()'), $why, '... and says why');
	like($client->query(q(SELECT ok || ' ' || message || ' ' || hint FROM hubex_check() WHERE subject = 'binding')),
		qr/^false .*$why.*hubex_take_over\(\)/, '... so does hubex_check');
	my $call = $client->try('CALL hubex_deliver()');
	is($call->{sqlstate}, '55000', '... CALL hubex_deliver() refuses');
	like($call->{hint} // '', qr/hubex_take_over\(\)/, '... with a hint');

	my $steps = $client->query('SELECT steps FROM hubex_stat_worker WHERE database = current_database()');
	make_due($client);
	like($client->try("SELECT hubex_create_task(1, 'in the copy, $word')")->{notices}, qr/^WARNING:.*held.*hubex_take_over\(\)/s,
		'... enqueueing gives a warning');
	is($client->try("SELECT hubex_create_task(1, 'in the copy, again')")->{notices}, '', '... once a session');
	eventually { $client->query('SELECT steps FROM hubex_stat_worker WHERE database = current_database()') > $steps }
	'... the worker has looked', 15;
	is($client->query('SELECT waiting - held FROM hubex_stat_outbox'), 0, '... and all is held');
	is(posted("in the copy, $word"), 0, '... nothing is sent');
	$client->end;
}

sub succeeds
{
	my ($what, @command) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(PostgreSQL::Test::Utils::run_log(\@command), $what);
}
