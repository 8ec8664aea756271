# CALL hubex_sync(): a target is filled, and brought in step by asking what has changed, in as few requests as that takes;
# what it says while it does so, and to whom; when it does nothing.
#
# What was asked for is seen in the sandbox's journal; a mirror is compared with the foreign table, row for row.

use strict;
use utf8;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 1200, assets => 300);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->safe_psql('postgres', q(
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, tasks_conversations) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ADM" FROM SERVER fsm INTO fsm;
));
my $client = Hubex::Client->new($node);
$client->query('SET hubex.max_requests_per_query = 0');

sub subscribe
{
	my ($name, $table, %option) = @_;
	my %argument = (every => undef, %option);
	my $arguments = join '', map { ", \"$_\" => " . (defined $argument{$_} ? "'$argument{$_}'" : 'NULL') } sort keys %argument;
	$client->query("SELECT hubex_subscribe('$name', '$table', 'public.$name'$arguments)");
	return;
}

# The lists that were asked for since the journal was emptied: [path, range, the time from which on changes were wanted].
sub asked
{
	return map {
		my %query = map { $_->[0] => $_->[1] } @{ $_->{query} };
		[ $_->{path}, $_->{headers}{range} // '', $query{lastModifiedFrom} ]
	} grep { $_->{path} ne '/AUTHZ/AccessTokens' } @{ $sandbox->journal };
}

# What one CALL says and asks for, from an empty journal.
sub sync
{
	my ($name, $mode) = @_;
	$sandbox->clear_journal;
	my $answer = $client->try("CALL hubex_sync('$name'" . (defined $mode ? ", '$mode'" : '') . ')');
	$answer->{asked} = [ asked() ];
	return $answer;
}

sub state_of
{
	my ($name, $columns) = @_;
	return $client->query("SELECT $columns FROM hubex.subscription_state WHERE subscription = '$name'");
}

# Rows of either that the other has not.
sub in_step
{
	my ($name, $table, $what) = @_;
	my $columns = $client->query("SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'public.$name'::regclass
		AND attnum > 0 AND NOT attisdropped AND attname <> 'synced_at'");
	my $here = "SELECT $columns FROM public.$name";
	my $there = "SELECT $columns FROM $table";
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("SELECT count(*) FROM (($here EXCEPT ALL $there) UNION ALL ($there EXCEPT ALL $here)) d"), 0, $what);
	return;
}

#
# Filling, and what has changed since
#
{
	subscribe('tasks', 'fsm.tasks');
	my $answer = sync('tasks');
	is($answer->{error}, undef, 'a target is filled');
	is_deeply($answer->{asked}, [ [ '/WORK/Tasks', 'items=1-1', undef ], [ '/WORK/Tasks', 'items=1-10000', undef ],
		[ '/WORK/Tasks', 'items=1-10000', $answer->{asked}[2][2] ] ], '... by asking for the newest change, for the list, and for what has changed');
	in_step('tasks', 'fsm.tasks', '... with what the list has');
	my $rows = $client->query('SELECT count(*) FROM tasks');
	like($answer->{notices}, qr/NOTICE:  00000: subscription "tasks", full: $rows inserted, 0 updated, 0 deleted, \d+ unchanged; 3 requests in /,
		'... and says what it did, sign-in included');
	is(state_of('tasks', 'inserted'), $rows, '... as the state does');
	is(state_of('tasks', 'filled_at IS NOT NULL AND sweep_began_at IS NULL'), 't', '... which says that it is filled');
	is($client->query('SELECT count(*) FROM hubex.sweep_page'), 0, '... and nothing is left of the keys');

	$client->query(q(CREATE TABLE touched (op text);
		CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.touched VALUES (TG_OP || ' ' || TG_LEVEL); RETURN NULL; END $$;
		CREATE TRIGGER row_touched AFTER INSERT OR UPDATE OR DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION touch();
		CREATE TRIGGER touched AFTER INSERT OR UPDATE OR DELETE ON tasks FOR EACH STATEMENT EXECUTE FUNCTION touch()));
	my $size = $client->query(q(SELECT pg_relation_size('tasks')));
	for my $time (1 .. 3)
	{
		$answer = sync('tasks');
		is(scalar @{ $answer->{asked} }, 1, "nothing new, run $time: one request");
	}
	is(state_of('tasks', 'in_step_at >= last_started_at AND last_ended_at > last_started_at AND failures = 0'), 't', '... which is a run like any other');
	is($client->query('SELECT count(*) FROM touched') . ' ' . $client->query(q(SELECT pg_relation_size('tasks'))), "0 $size",
		'... and writes no row and fires no trigger');

	my $cursor = state_of('tasks', '"cursor"');
	my @changed = map { $_->{id} } (sort { $a->{id} <=> $b->{id} } grep { !$_->{deleted} } @{ $sandbox->tasks })[ 100 .. 149 ];
	$sandbox->orders((map { { list => 'tasks', kind => 'change', id => $_, fields => { notes => "changed $_" } } } @changed[ 0 .. 39 ]),
		(map { { list => 'tasks', kind => 'delete', id => $_ } } @changed[ 40 .. 44 ]), map { { list => 'tasks', kind => 'create' } } 1 .. 5);
	$answer = sync('tasks');
	is(scalar @{ $answer->{asked} }, 1, '50 changed: one request');
	like($answer->{notices}, qr/incremental: 5 inserted, 4[0-9] updated, 5 deleted/, '... which tells them');
	in_step('tasks', 'fsm.tasks', '... and brings them');
	is($client->query(q(SELECT string_agg(op || ' ' || n, ', ' ORDER BY op) FROM (SELECT op, count(*) AS n FROM touched WHERE op NOT LIKE 'UPDATE%' GROUP BY op) t)),
		'DELETE ROW 5, DELETE STATEMENT 1, INSERT ROW 5, INSERT STATEMENT 1', '... firing the triggers of what it writes');
	is($client->query("SELECT \"cursor\" > '$cursor' FROM hubex.subscription_state WHERE subscription = 'tasks'"), 't', '... and the cursor has moved');
	is($client->query(q(SELECT "cursor" = (SELECT max(last_modified) FROM fsm.tasks WHERE last_modified < now() + '1 day') FROM hubex.subscription_state WHERE subscription = 'tasks')),
		't', '... to the newest change');

	# what was done here heals with the next full reading, which costs its pages
	$client->query(q(DELETE FROM tasks WHERE id % 7 = 0; UPDATE tasks SET notes = 'here' WHERE id % 7 = 1));
	$answer = sync('tasks', 'full');
	is_deeply($answer->{asked}, [ [ '/WORK/Tasks', 'items=1-10000', undef ] ], 'a full reading is the pages of the list');
	in_step('tasks', 'fsm.tasks', '... and rights what was changed here');
	$client->query('TRUNCATE tasks');
	is(scalar @{ sync('tasks', 'full')->{asked} }, 1, 'so it does where the target was emptied');
	in_step('tasks', 'fsm.tasks', '... which is filled again');
}

# more of one second than a page has, and pages that are full
{
	$node->safe_psql('postgres', q(ALTER SERVER fsm OPTIONS (ADD page_size '20')));
	my @some = map { $_->{id} } (sort { $a->{id} <=> $b->{id} } grep { !$_->{deleted} } @{ $sandbox->tasks })[ 300 .. 399 ];
	$sandbox->orders(map { { list => 'tasks', kind => 'change', id => $_, fields => { notes => "at once $_" } } } @some);
	my $answer = sync('tasks');
	is($answer->{error}, undef, 'a hundred changed in a second, twenty a page');
	in_step('tasks', 'fsm.tasks', '... are all brought');
	cmp_ok(scalar @{ $answer->{asked} }, '<=', 14, '... in little more requests than they have pages') or diag explain $answer->{asked};
	$answer = sync('tasks');
	cmp_ok(scalar @{ $answer->{asked} }, '<=', 11, '... and looked at again, as the overlap has it');
	$node->safe_psql('postgres', q(ALTER SERVER fsm OPTIONS (DROP page_size)));
}

# a filter
{
	subscribe('of_two', 'fsm.tasks', filter => '{"companyID": [2, 3]}');
	is(sync('of_two')->{error}, undef, 'a mirror with a filter');
	is($client->query('SELECT count(*) FROM of_two') . ' ' . $client->query('SELECT count(*) FROM of_two WHERE company_id NOT IN (2, 3)'),
		$client->query('SELECT count(*) FROM fsm.tasks WHERE company_id IN (2, 3)') . ' 0', '... has what it lets through');
}

#
# Lists of other shapes
#
{
	subscribe('assets', 'fsm.assets');
	my $answer = sync('assets');
	is_deeply($answer->{asked}, [ [ '/ES/Assets', 'items=1-10000', undef ] ], 'a list that cannot tell what has changed is read');
	in_step('assets', 'fsm.assets', '... whole');
	is(scalar @{ sync('assets')->{asked} }, 1, '... each time');
	is($client->try(q(CALL hubex_sync('assets', 'incremental')))->{sqlstate}, '55000', '... and has no other runs');

	my @lists = split /\n/, $client->query(q(SELECT t.ftrelid::regclass FROM pg_foreign_table t JOIN pg_class c ON c.oid = t.ftrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'fsm' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'id')
		  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname LIKE '%\_id' AND a.attnotnull) ORDER BY 1::text));
	my (%seen, @odd);
	for my $list (grep { !/tasks|assets/ } @lists)
	{
		my $name = $list =~ s/^fsm\.//r =~ tr/"//dr;
		my $subscribed = $client->try("SELECT hubex_subscribe('$name', '$list', 'public.\"m_$name\"', every => NULL)");
		next if defined $subscribed->{error};
		my $done = $client->try("CALL hubex_sync('$name')");
		push @odd, "$name: $done->{error}" if defined $done->{error};
		my $rows = $client->query("SELECT count(*) FROM \"m_$name\"");
		push @odd, "$name: $rows rows" if $rows != $client->query("SELECT count(*) FROM $list");
		$seen{ $rows ? 'some' : 'none' }++;
	}
	is("@odd", '', "other lists, $seen{some} with records and $seen{none} without") or diag explain \@odd;
	cmp_ok($seen{some}, '>', 3, '... some of each') && cmp_ok($seen{none}, '>=', 0);
}

#
# What it says of itself
#
{
	$node->safe_psql('postgres', q(ALTER SERVER fsm OPTIONS (ADD page_size '200', SET rate_limit '4/s')));
	subscribe('slow', 'fsm.tasks');
	my $answer = sync('slow', 'full');
	my @told = $answer->{notices} =~ /^NOTICE:  00000: (subscription "slow", full: \d+ of \d+ records .*)$/mg;
	cmp_ok(scalar @told, '>=', 1, 'a long run tells how far it is') or diag $answer->{notices};
	cmp_ok(scalar @told, '<=', $answer->{took} + 1, '... not more than once a second');
	is(scalar(grep { !/: \d+ of 12\d\d records \(\d+\.\d %\), \d+ requests, about \d+ s left$/ } @told), 0, '... records, share, requests and the time left') or diag explain \@told;
	is($client->query(q(SELECT count(*) FROM hubex_stat_progress_sync)), 0, 'no run is seen where there is none');
	$node->safe_psql('postgres', q(ALTER SERVER fsm OPTIONS (DROP page_size, SET rate_limit 'none')));
}

#
# Being interrupted
#
{
	my $other = Hubex::Client->new($node);
	$sandbox->fault(path => '/WORK/Tasks', fault => 'hang');
	$sandbox->clear_journal;
	$client->send(q(CALL hubex_sync('tasks')));
	eventually { @{ $sandbox->journal(path => '/WORK/Tasks') } == 1 } 'a run waits for an answer';
	is($other->query(q(SELECT mode || ' ' || phase FROM hubex_stat_progress_sync WHERE subscription = 'tasks')), 'incremental reading', '... and is seen');
	is($other->query('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $client->pid . ' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)'), 0,
		'... and holds no snapshot meanwhile');
	my $waiting = Hubex::Client->new($node);
	$waiting->send(q(CALL hubex_sync('tasks')));
	eventually { $other->query('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $waiting->pid) eq 'Lock' } 'another waits for it';
	is($other->query('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $waiting->pid . ' AND backend_xmin IS NOT NULL'), 0, '... without a snapshot, either');
	for my $who ([ $waiting, 'that waits for another' ], [ $client, 'that waits for an answer' ])
	{
		my $at = time;
		$other->query('SELECT pg_cancel_backend(' . $who->[0]->pid . ')');
		my $answer = $who->[0]->answer;
		is($answer->{sqlstate}, '57014', "a run $who->[1] is cancelled");
		cmp_ok($answer->{at} - $at, '<', 0.1, '... at once');
	}
	like($waiting->try(q(CALL hubex_sync('tasks')))->{notices}, qr/incremental: /, 'the lock went with the cancel');
	is(state_of('tasks', 'failures'), 0, 'a cancel is no failure');
	$sandbox->clear_faults;
	$sandbox->fault(path => '/WORK/Tasks', fault => 'hang');
	my $answer = $client->try(q(SET statement_timeout = '300ms'; CALL hubex_sync('tasks')));
	is($answer->{sqlstate}, '57014', 'so does statement_timeout');
	cmp_ok($answer->{took}, '<', 0.5, '... in time');
	$client->query('SET statement_timeout = 0');
	$sandbox->clear_faults;

	# one that waited makes its own run
	$sandbox->fault(path => '/WORK/Tasks', fault => 'delay_before', seconds => 1);
	$sandbox->clear_journal;
	$client->send(q(CALL hubex_sync('tasks')));
	eventually { @{ $sandbox->journal(path => '/WORK/Tasks') } == 1 } 'a run is under way';
	$waiting->send(q(CALL hubex_sync('tasks')));
	is($client->answer->{error}, undef, '... and comes to its end');
	my $waited = $waiting->answer;
	like($waited->{notices}, qr/is being synchronised already: waiting/, 'who waits for it says so');
	is(scalar @{ $sandbox->journal(path => '/WORK/Tasks') }, 2, '... and asks for itself');
}

#
# When nothing is to be read, and by whom
#
{
	$client->query(q(SELECT hubex_pause('fsm', 'for a while')));
	my $answer = sync('tasks');
	is($answer->{sqlstate}, '55000', 'a paused server is not asked');
	like($answer->{detail}, qr/Server "fsm" is paused: for a while\./, '... which is said');
	is_deeply($answer->{asked}, [], '... nothing');
	is(state_of('tasks', 'failures'), 0, '... which is no failure');
	$client->query(q(SELECT hubex_resume('fsm')));
	is(sync('tasks')->{error}, undef, 'until it is resumed');

	$client->query(q(UPDATE hubex.subscription SET binding = gen_random_uuid() WHERE name = 'tasks'));
	$answer = sync('tasks');
	is("$answer->{sqlstate} @{ $answer->{asked} }", '55000 ', 'nor is anything for a subscription of another database');
	$client->query(q(SELECT hubex_take_over()));
	is(sync('tasks')->{error}, undef, '... that was not taken over');

	$answer = $client->try(q(BEGIN; CALL hubex_sync('tasks')));
	is($answer->{sqlstate}, '2D000', 'not in a transaction block');
	$client->try('ROLLBACK');
	is($client->try(q(CALL hubex_sync('none')))->{sqlstate}, '42704', 'not of a subscription that is none');
	is($client->query('SELECT pg_current_xact_id_if_assigned() IS NULL AND now() = statement_timestamp()'), 't', '... which leaves no transaction behind');
	is($client->try(q(CALL hubex_sync('tasks', 'half')))->{sqlstate}, '22023', 'not in a mode that is none');
	is($client->try(q(CALL hubex_sync(NULL)))->{sqlstate}, '22004', 'not of nothing');

	$client->query(q(CREATE ROLE owner LOGIN; CREATE ROLE member LOGIN IN ROLE owner; CREATE ROLE other LOGIN; CREATE ROLE admin LOGIN;
		SELECT hubex_grant('owner', 'enqueue'), hubex_grant('other', 'enqueue'), hubex_grant('admin', 'admin');
		GRANT EXECUTE ON FUNCTION hubex_subscribe, hubex_confirm_deletes TO owner, other; GRANT EXECUTE ON PROCEDURE hubex_sync TO owner, other;
		CREATE SCHEMA theirs AUTHORIZATION owner; GRANT USAGE ON FOREIGN SERVER fsm TO owner; GRANT USAGE ON SCHEMA fsm TO owner; GRANT SELECT ON fsm.tasks TO owner));
	my %as = map { $_ => Hubex::Client->new($node, user => $_) } qw(owner member other admin);
	$as{owner}->query(q(SELECT hubex_subscribe('theirs', 'fsm.tasks', 'theirs.tasks', every => NULL)));
	is($as{other}->try(q(CALL hubex_sync('theirs')))->{sqlstate}, '42501', 'another role may not');
	is($as{other}->try(q(SELECT hubex_confirm_deletes('theirs')))->{sqlstate}, '42501', '... nor confirm deletes');
	is($as{$_}->try(q(CALL hubex_sync('theirs')))->{error}, undef, "... the role's $_ may") for qw(owner member);
	is($as{admin}->try(q(CALL hubex_sync('theirs')))->{error}, undef, '... and an administrator');
	is($client->query(q(SELECT count(*) FROM theirs.tasks)), $client->query('SELECT count(*) FROM fsm.tasks'), '... into the owner\'s table');
	$client->query(q(REVOKE USAGE ON FOREIGN SERVER fsm FROM owner));
	is($client->try(q(CALL hubex_sync('theirs')))->{sqlstate}, '42501', 'who may call does not matter where the owner may not read');
	$client->query(q(GRANT USAGE ON FOREIGN SERVER fsm TO owner; REVOKE SELECT ON fsm.tasks FROM owner));
	is($client->try(q(CALL hubex_sync('theirs')))->{message}, 'permission denied for foreign table tasks', '... be it the server or the table');
	is(state_of('theirs', "failures || ' ' || (last_error LIKE '%permission denied%')"), '2 true', '... which is on record');
}

#
# Errors of the remote side
#
{
	my $before = state_of('tasks', '"cursor"');
	my $rows = $client->query('SELECT count(*) FROM tasks');
	$sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => 500, probability => 1);
	$client->query(q(ALTER SERVER fsm OPTIONS (ADD retry_base '10ms', ADD retry_cap '10s')));
	for my $time (1 .. 3)
	{
		my $answer = sync('tasks');
		is($answer->{sqlstate}, 'HV00M', "an error of the remote side, $time");
		is(state_of('tasks', 'failures'), $time, '... is counted');
	}
	$client->query(q(UPDATE hubex.subscription SET every = '1 hour' WHERE name = 'tasks'));
	sync('tasks') for 4 .. 6;
	is(state_of('tasks', q(next_at > now() AND next_at < now() + '1 minute')), 't', '... and says when it is tried again');
	like(state_of('tasks', 'last_error'), qr/500/, '... and what it was');
	is($client->query('SELECT count(*) FROM tasks') . ' ' . state_of('tasks', '"cursor"'), "$rows $before", '... while nothing changes');
	is(sync('assets')->{error}, undef, 'of another list, nothing');
	$sandbox->clear_faults;
	$sandbox->orders({ list => 'tasks', kind => 'create' });
	is(scalar @{ sync('tasks')->{asked} }, 1, 'once it is well again, one request brings what has changed');
	in_step('tasks', 'fsm.tasks', '... and the mirror is in step');
	is(state_of('tasks', q(failures || ' ' || (next_at > now() + '50 minutes'))), '0 true', '... as if nothing had been');
	$client->query(q(UPDATE hubex.subscription SET every = NULL WHERE name = 'tasks'));
}
done_testing;
