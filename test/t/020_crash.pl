# Exactly once, whatever breaks: a killed worker, a server that stops at once, answers that are lost, late or garbage,
# and all of it together. Every committed row of the ERP has one task in the end, and its request knows which.
#
# The judge is the sandbox: what tasks it holds. Half of the rows give their task an erpID, the other half leave it to
# hubex to find its tasks again; the notes tell whose a task is. HUBEX_SEED repeats a run.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use JSON::PP;
use List::Util qw(max shuffle);
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{HUBEX_SEED} // int(time * 1000) % 1_000_000_000;
srand $seed;
my $sandbox = Hubex::Sandbox->new(tasks => 0, seed => $seed);
my $node = Hubex::Node->new('main', restart_after_crash => 'on');
$node->start_hubex($sandbox, timeout => '5s');
$node->safe_psql('postgres', q{
	UPDATE hubex.connector SET manifest = jsonb_set(jsonb_set(manifest, '{retry,base}', '0.05'), '{retry,cap}', '0.4');
	CREATE TABLE keyed (id int PRIMARY KEY);
	CREATE TRIGGER t AFTER INSERT ON keyed FOR EACH ROW EXECUTE FUNCTION
		hubex_task_trigger('fsm', '{"task_type_id": 2, "erp_id": "K-{id}", "notes": "keyed {id}"}');
	CREATE TABLE bare (id int PRIMARY KEY);
	CREATE TRIGGER t AFTER INSERT ON bare FOR EACH ROW EXECUTE FUNCTION
		hubex_task_trigger('fsm', '{"task_type_id": 2, "notes": "bare {id}"}');
});
my ($session, $alone, $rows) = (undef, undef, 0);
diag "HUBEX_SEED=$seed" if $ENV{HUBEX_SEED};

subtest 'the worker is killed' => \&worker_killed;
subtest 'the server stops at once' => \&server_stopped;
subtest "every fault of an answer (HUBEX_SEED=$seed)" => \&lost_answers;
subtest 'one erpID for two requests' => \&same_key;
subtest 'a connector without stamps' => \&without_stamps;
subtest 'a commit that is not on disk yet' => \&asynchronous_commit;
subtest 'CALL hubex_deliver() is ended' => \&deliver_ended;
subtest "all of it (HUBEX_SEED=$seed)" => \&everything;
done_testing;

# ---- the parts of a test ----

# Everything anew, with a token: a refused one would use up a fault.
sub anew
{
	$sandbox->reset;
	$node->safe_psql('postgres', 'TRUNCATE keyed, bare, hubex.outbox');
	$rows = 0;
	$node->safe_psql('postgres', q{SELECT hubex_create_task(1, 'fence')});
	eventually { @{ $sandbox->tasks } == 1 } 'the worker works';
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state = 'delivered'}, 1, 'and is done');
	$node->safe_psql('postgres', 'TRUNCATE hubex.outbox');
	$sandbox->clear_journal;
}

# Inserts so many rows, each in a transaction of its own and in either table in turn, through crashes: what cannot be
# known to be committed is inserted again.
sub insert_rows
{
	my ($count) = @_;
	while ($count-- > 0)
	{
		my ($id, $table) = (++$rows, $rows % 2 ? 'keyed' : 'bare');
		for (my $deadline = time + 30;; usleep 20_000)
		{
			$session //= Hubex::Session->new($node);
			my $answer = $session->query("INSERT INTO $table VALUES ($id) ON CONFLICT DO NOTHING");
			last if defined $answer && $answer eq '';
			undef $session;
			die "row $id cannot be inserted: " . ($answer // 'gone') if time > $deadline;
		}
	}
}

# The requests that the sandbox is working on.
sub in_flight { return scalar grep { !defined $_->{finished} } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') } }

sub worker_pid { return $node->safe_psql('postgres', 'SELECT pid FROM hubex.worker_state()') }

# The moment at which the server took its first connection.
sub accepting
{
	my $up;
	eventually { $up = time; 0 == system 'pg_isready', '-q', '-d', $node->connstr('postgres') } 'the server accepts connections';
	return $up;
}

# Recovery of what was in flight begins within 5 seconds.
sub recovers
{
	my ($since, $up) = @_;
	my $first;
	eventually { ($first) = map { $_->{time} } @{ $sandbox->journal(since => $since) } } 'recovery begins';
	cmp_ok($first - $up, '<', 5, sprintf 'within 5 s: %.2f s after the server accepts connections', $first - $up);
}

sub last_entry { return max 0, map { $_->{n} } @{ $sandbox->journal } }

# Exactly once: the rows that are committed against the tasks that were made, and the requests against their tasks.
sub judge
{
	my ($seconds) = @_;
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'all requests are delivered', $seconds)
	  or diag $node->safe_psql('postgres', q{SELECT state, attempts, uncertain, last_status, last_error FROM hubex.outbox WHERE state <> 'delivered' LIMIT 5});
	my @committed = split /\n/, $node->safe_psql('postgres', q{SELECT 'keyed ' || id FROM keyed UNION ALL SELECT 'bare ' || id FROM bare});
	my (%task, %committed);
	push @{ $task{ $_->{request}{notes} } }, $_ for grep { $_->{request}{notes} ne 'fence' } @{ $sandbox->tasks };
	@committed{@committed} = ();
	my $posts = grep { defined $_->{body} } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
	my $gets = @{ $sandbox->journal(method => 'GET', path => '/WORK/Tasks') };

	is(@committed, $rows, "$rows rows are committed");
	is_deeply([ grep { !$task{$_} } @committed ], [], 'none is lost');
	is_deeply([ grep { @{ $task{$_} } > 1 } sort keys %task ], [], "none is doubled ($posts creates sent, $gets look-ups)");
	is_deeply([ grep { !exists $committed{$_} } sort keys %task ], [], 'none comes from nowhere');
	is_deeply(
		[ sort split /\n/, $node->safe_psql('postgres', q{SELECT concat_ws('|', body ->> 'notes', remote_id, remote_number, body ->> 'erpID') FROM hubex.outbox}) ],
		[ sort map { join '|', $_->{request}{notes}, @$_{qw(id number erpID)} } map { @$_ } values %task ], 'each request knows its task');
}

# ---- crashes ----

sub worker_killed
{
	anew();
	for my $round (1 .. 5)
	{
		insert_rows(50);
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => $_, seconds => 8, times => 3) for qw(delay delay_before);
		insert_rows(10);
		eventually { in_flight() >= 4 } 'requests are in flight';
		my $since = last_entry();
		ok(kill('KILL', worker_pid()), "kill -9, round $round");
		undef $session;
		my $up = accepting();
		recovers($since, $up);
	}
	judge();
}

sub server_stopped
{
	anew();
	$node->append_conf('postgresql.conf', 'fsync = on');
	$node->reload;
	for my $round (1 .. 3)
	{
		insert_rows(20);
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => $_, seconds => 8, times => 3) for qw(delay delay_before);
		insert_rows(10);
		eventually { in_flight() >= 4 } 'requests are in flight';
		my $since = last_entry();
		$node->stop('immediate');
		undef $session;
		$node->start;
		recovers($since, time);
	}
	judge();
	$node->append_conf('postgresql.conf', 'fsync = off');
	$node->reload;
}

# ---- faults ----

sub lost_answers
{
	# What hangs is given up soon.
	$node->safe_psql('postgres', q{ALTER SERVER fsm OPTIONS (SET timeout '400ms')});
	for my $fault (
		{ fault => 'drop_after' }, { fault => 'drop_before' }, { fault => 'status_after', status => 500 },
		{ fault => 'status_after', status => 502, body => '<html>Шлюз</html>', headers => { 'Content-Type' => 'text/html' } },
		{ fault => 'status_after', status => 408 }, { fault => 'truncate' }, { fault => 'bad_json' }, { fault => 'not_json' },
		{ fault => 'hang_after' }, { fault => 'hang' }, { fault => 'delay', seconds => 0.8 }, { fault => 'delay_before', seconds => 0.8 }, { fault => 'expire' })
	{
		my $name = join ' ', $fault->{fault}, $fault->{status} // ();
		subtest $name => sub {
			anew();
			$sandbox->fault(%$fault, method => 'POST', path => '/WORK/Tasks', probability => 0.5);
			$sandbox->fault(%$fault, method => 'GET', path => '/WORK/Tasks', probability => 0.25);
			insert_rows($fault->{fault} =~ /hang|delay/ ? 16 : 24);
			judge();
			my ($fired) = map { $_->{fired} } grep { $_->{method} eq 'POST' } @{ $sandbox->faults };
			cmp_ok($fired, '>=', 4, "it happened $fired times");
		};
	}
	$node->safe_psql('postgres', q{ALTER SERVER fsm OPTIONS (SET timeout '5s')});
}

sub same_key
{
	my $two = sub {
		my ($what, $sql, @faults) = @_;
		anew();
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', %$_) for @faults;
		$node->safe_psql('postgres', $sql);
		$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, "$what: delivered");
		my @made = grep { ($_->{erpID} // '') eq 'SAME' } @{ $sandbox->tasks };
		is_deeply([ sort map { $_->{request}{notes} } @made ], [qw(one two)], "$what: both are made");

		# Which is whose is known where they do not run side by side.
		my @known = split /\n/, $node->safe_psql('postgres', q{SELECT concat_ws(' ', body ->> 'notes', remote_id, remote_number) FROM hubex.outbox WHERE natural_key = 'SAME'});
		my @are = map { join ' ', $_->{request}{notes}, $_->{id}, $_->{number} } @made;
		s/^\w+ // for $sql =~ /ordering_key/ ? (@known, @are) : ();
		is_deeply([ sort @known ], [ sort @are ], "$what: each knows one of its own");
	};
	my $create = sub {
		my ($note, $key) = @_;
		return "SELECT hubex_create_task(2, '$note', erp_id => 'SAME'" . (defined $key ? ", ordering_key => '$key'" : '') . ');';
	};
	my $both = $create->('one') . $create->('two');
	$two->('no fault', $both);
	$two->('the second answer is lost', $both, { fault => 'drop_after', after => 1 });
	$two->('the second request is lost', $both, { fault => 'drop_before', after => 1 });
	$two->('the first answer is lost', $both, { fault => 'drop_after' });
	$two->('both answers are lost', $both, { fault => 'drop_after', times => 2 });
	$two->('the second answer is not JSON', $both, { fault => 'not_json', after => 1 });

	# Side by side, as their ordering keys are not the same.
	my $beside = $create->('one', 'a') . $create->('two', 'b');
	my @late = { method => 'GET', fault => 'delay', seconds => 0.2, times => 2 };
	$two->('side by side, both answers are lost', "BEGIN; $beside COMMIT;", { fault => 'drop_after', times => 2 }, @late);
	$two->('side by side, one answer and one request are lost', "BEGIN; $beside COMMIT;", { fault => 'drop_after' }, { fault => 'drop_before' }, @late);
	$two->('side by side, one request and one answer are lost', "BEGIN; $beside COMMIT;", { fault => 'drop_before' }, { fault => 'drop_after' }, @late);

	# One that hubex did not make stands there already.
	anew();
	$node->safe_psql('postgres', q{SELECT hubex_request('POST', '/WORK/Tasks', '{"taskTypeID": 2, "requestMethodID": 1, "erpID": "SAME", "notes": "before"}')});
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'drop_after');
	$node->safe_psql('postgres', $create->('one'));
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'a stranger of that erpID: delivered');
	my ($one) = grep { $_->{request}{notes} eq 'one' } @{ $sandbox->tasks };
	is($node->safe_psql('postgres', 'SELECT remote_id FROM hubex.outbox'), $one->{id}, 'the answer is lost: it is not taken for ours');
	anew();
	$node->safe_psql('postgres', q{SELECT hubex_request('POST', '/WORK/Tasks', '{"taskTypeID": 2, "requestMethodID": 1, "erpID": "SAME", "notes": "before"}')});
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'drop_before');
	$node->safe_psql('postgres', q{
		SELECT hubex_create_task(2, 'one', erp_id => 'SAME', deliver_after => '2200-01-01');
		-- a minute passes between the two
		UPDATE hubex.outbox SET created_at = created_at + interval '1 minute', next_attempt_at = now()});
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'a stranger of that erpID, a minute old: delivered');
	is(scalar(grep { $_->{request}{notes} eq 'one' } @{ $sandbox->tasks }), 1, 'the request is lost: ours is made');
}

# A system that knows no stamp: all depends on looking up before sending again, also when the quota comes in between.
sub without_stamps
{
	anew();
	$node->safe_psql('postgres', q{
		INSERT INTO hubex.connector
			SELECT 'stampless', jsonb_set(manifest #- '{resources,tasks,operations,create,idempotency_header}', '{connector}', '"stampless"') FROM hubex.connector WHERE name = 'hubex';
		CREATE SERVER other FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'stampless', url '} . $sandbox->url . q{', rate_limit '10/s', timeout '5s');
		CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (service_token '} . $sandbox->service_token . q{');
		SELECT hubex_request('GET', '/WORK/TaskTypes', server => 'other');
	});
	for my $fault (qw(not_json bad_json truncate drop_after))
	{
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => $fault, times => 3);
	}
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status_after', status => 500, times => 3);
	$node->safe_psql('postgres', q{SELECT hubex_create_task(2, 'stampless ' || n, server => 'other') FROM generate_series(1, 20) n});
	my $each_once = sub {
		my ($count) = @_;
		$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'all are delivered');
		my @tasks = grep { $_->{request}{notes} =~ /^stampless/ } @{ $sandbox->tasks };
		my %made;
		$made{ $_->{request}{notes} }++ for @tasks;
		is_deeply(\%made, { map { ("stampless $_" => 1) } 1 .. $count }, 'each is made once');
		is_deeply([ sort split /\n/, $node->safe_psql('postgres', q{SELECT body ->> 'notes' || ' ' || remote_id FROM hubex.outbox}) ],
			[ sort map { "$_->{request}{notes} $_->{id}" } @tasks ], 'each request knows its task');
	};
	$each_once->(20);

	# The same after a crash: what was in flight is done, and nobody has heard of it.
	$sandbox->clear_journal;
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 3, times => 4);
	$node->safe_psql('postgres', q{SELECT hubex_create_task(2, 'stampless ' || n, server => 'other') FROM generate_series(21, 28) n});
	eventually { in_flight() >= 4 } 'requests are in flight';
	ok(kill('KILL', worker_pid()), 'kill -9');
	undef $session;
	accepting();
	$each_once->(28);
	is_deeply([ grep { exists $_->{headers}{'x-concurrency-stamp'} && $_->{body} =~ /stampless/ } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') } ],
		[], 'no stamp was sent');
	$node->safe_psql('postgres', 'DROP SERVER other CASCADE');
}

# ---- durability ----

# synchronous_commit = off lets a crash lose a commit: then the task must not have been made either.
sub asynchronous_commit
{
	my $tasks;
	my $lost = sub {
		my ($server, $what) = @_;
		eventually { $sandbox->state->{tasks} > $tasks } "$what: a task is made";
		$server->stop('immediate');
		$server->start;
		is($server->safe_psql('postgres', 'SELECT count(*) FROM job'), 1, "$what: its row is there after a crash");
	};
	my $job = q{CREATE TABLE job (id int);
		CREATE TRIGGER t AFTER INSERT ON job FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 2, "notes": "job"}');};

	anew();
	$node->append_conf('postgresql.conf', 'wal_writer_delay = 10s');
	$node->reload;
	$node->safe_psql('postgres', $job);
	my $one = Hubex::Session->new($node);
	$one->query('SET synchronous_commit = off');
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 3);
	$tasks = $sandbox->state->{tasks};
	$one->query('INSERT INTO job VALUES (1)');
	$lost->($node, 'the worker');

	$alone = Hubex::Node->new('alone', preload => 0, fsync => 1, wal_writer_delay => '10s');
	$alone->start_hubex($sandbox);
	$alone->safe_psql('postgres', $job);
	$one = Hubex::Session->new($alone);
	$one->query('SET synchronous_commit = off');
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 3);
	$tasks = $sandbox->state->{tasks};
	$one->query('INSERT INTO job VALUES (1)');
	$one->send('CALL hubex_deliver()');
	$lost->($alone, 'CALL hubex_deliver()');
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'the worker goes on');
	$alone->safe_psql('postgres', 'CALL hubex_deliver()');
	is($alone->safe_psql('postgres', q{SELECT state FROM hubex.outbox}), 'delivered', 'CALL hubex_deliver() goes on');
}

# The session that delivers is ended or cancelled, or gives up: the next one goes on, at once.
sub deliver_ended
{
	for my $end (qw(pg_terminate_backend pg_cancel_backend))
	{
		$sandbox->reset;
		$alone->safe_psql('postgres', 'TRUNCATE hubex.outbox, job; CALL hubex_deliver()');
		$alone->safe_psql('postgres', q{INSERT INTO job SELECT g FROM generate_series(1, 20) g});
		$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => $_, seconds => 20, times => 3) for qw(delay delay_before);
		my $one = Hubex::Session->new($alone);
		my $pid = $one->backend;
		$one->send('CALL hubex_deliver()');
		eventually { in_flight() >= 6 } 'requests are in flight';
		is($alone->safe_psql('postgres', "SELECT $end($pid)"), 't', $end);
		my $said = $one->finish;
		ok(!defined $said || $said =~ /ERROR:  57014:/, 'it ends');
		my $since = time;
		$alone->safe_psql('postgres', 'CALL hubex_deliver()');
		cmp_ok(time - $since, '<', 15, sprintf 'another goes on, for %.2f s', time - $since);
		is($alone->safe_psql('postgres', q{SELECT string_agg(DISTINCT state, ' ') FROM hubex.outbox}), 'delivered', 'all is delivered');
		my %made;
		$made{ $_->{id} }++ for @{ $sandbox->tasks };
		is(keys %made, 20, 'each once');
	}

	# Several at once share the work.
	$sandbox->reset;
	$alone->safe_psql('postgres', 'TRUNCATE hubex.outbox, job');
	$alone->safe_psql('postgres', q{INSERT INTO job SELECT g FROM generate_series(1, 60) g});
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay', seconds => 0.03, probability => 0.5);
	my @sessions = map { Hubex::Session->new($alone) } 1 .. 3;
	$_->send('CALL hubex_deliver()') for @sessions;
	is_deeply([ map { $_->finish } @sessions ], [ ('') x 3 ], 'three at once');
	is($alone->safe_psql('postgres', q{SELECT string_agg(DISTINCT state, ' ') FROM hubex.outbox}), 'delivered', 'all is delivered');
	is(@{ $sandbox->tasks }, 60, 'each once');
	$alone->stop;
}

# ---- all of it ----

sub everything
{
	anew();
	$node->safe_psql('postgres', q{ALTER SERVER fsm OPTIONS (SET timeout '700ms')});
	my @kinds = (
		(map { { fault => $_ } } qw(drop_after drop_before truncate bad_json not_json hang hang_after expire)),
		(map { { fault => 'status_after', status => $_ } } 500, 502, 503, 504), (map { { fault => 'status', status => $_ } } 500, 503, 429),
		(map { { fault => $_, seconds => 0.1 + rand } } qw(delay delay_before delay delay_before)), { fault => 'throttle', retry_after => 1 });
	my %did;
	my @deeds = shuffle(('insert') x 24, ('fault') x 16, ('beside') x 3, ('kill') x 3, ('stop') x 2, ('expire') x 2);
	my $beside;
	for my $deed (@deeds)
	{
		$did{$deed}++;
		insert_rows(2 + int rand 14) if $deed eq 'insert';
		$sandbox->fault(%{ $kinds[ rand @kinds ] }, method => (qw(POST POST GET))[ rand 3 ], path => '/WORK/Tasks', times => 1 + int rand 6) if $deed eq 'fault';
		if ($deed eq 'beside')
		{
			$beside = Hubex::Session->new($node);
			$beside->send(q{CALL hubex_deliver(timeout => '3 s')});
		}
		$sandbox->expire_tokens if $deed eq 'expire';
		if ($deed eq 'kill' || $deed eq 'stop')
		{
			# in mid-flight, if anything flies
			my $deadline = time + 0.5;
			usleep 10_000 until in_flight() || time > $deadline;
		}
		if ($deed eq 'kill')
		{
			my (undef, $pid) = $node->psql('postgres', 'SELECT pid FROM hubex.worker_state()');
			kill 'KILL', $pid if $pid;
			accepting();
		}
		if ($deed eq 'stop')
		{
			$node->stop('immediate');
			$node->start;
		}
		undef $session if $deed =~ /kill|stop/;
	}
	judge(30);
	ok($did{kill} && $did{stop}, join ', ', map { "$did{$_} x $_" } sort keys %did);
	undef $beside;
	$node->safe_psql('postgres', q{ALTER SERVER fsm OPTIONS (SET timeout '5s')});
}
