package Hubex::MirrorRun;

=head1 NAME

Hubex::MirrorRun - carries out the plans of the mirrors' property test, and judges them

=head1 SYNOPSIS

	my $run = Hubex::MirrorRun->new;
	my @problems = $run->carry_out(Hubex::MirrorSteps::plan(7));
	diag $run->story if @problems;

=head1 DESCRIPTION

One server and one sandbox serve all plans, one after another; crashes are crashes of the server, which comes back. After the
steps all is quiet: faults are over, and one CALL brings each mirror in step, an incremental one where the plan is gentle (see
L<Hubex::MirrorSteps>). Then L<Hubex::Mirror> judges. At last a full sweep of each must write nothing at all.

Nothing sleeps: a step that waits does so for a number of requests, though not for long, since there may be nothing to do.

=cut

use strict;
use warnings;

use Carp qw(croak);
use Hubex::Client;
use Hubex::Mirror;
use Hubex::MirrorSteps;
use Hubex::Node;
use Hubex::Sandbox;
use POSIX ();
use Time::HiRes qw(time usleep);

use constant { DATABASE => 'postgres', QUIET => 30, GLANCE => 0.4 };

# What a CALL or a run may fail with while things go wrong; all else is a bug.
my $expected = qr/^(?:08\w{3}|HV00\w|53\w{3}|57014|57P0\w|55P03|55000|55006|22032|22030|28000|40001|54000|40P01)$/;

=head1 METHODS

=head2 new

Starts the server and the sandbox.

=head2 carry_out($plan, %option)

Does it all; gives what is wrong, as texts. C<skip> is a hash of the numbers of steps to leave out.

=head2 story

What was done in the last plan, and when.

=head2 node, sandbox

=cut

sub new
{
	my ($class) = @_;
	my $self = bless { sandbox => Hubex::Sandbox->new(tasks => 0, assets => 0) }, $class;
	$self->{node} = Hubex::Node->new('mirror', restart_after_crash => 'on', log_error_verbosity => 'verbose', autovacuum => 'off');
	$self->{node}->start_hubex($self->{sandbox}, page_size => 10, timeout => '1500ms', connect_timeout => '1s', retry_base => '20ms',
		retry_cap => '300ms');
	$self->{node}->safe_psql(DATABASE, q(
		CREATE SCHEMA fsm;
		IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
		IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
	) . Hubex::Mirror::prepare());
	return $self;
}

sub node { return $_[0]{node} }
sub sandbox { return $_[0]{sandbox} }
sub story { return join "\n", @{ $_[0]{story} } }

sub carry_out
{
	my ($self, $plan, %option) = @_;
	@$self{qw(plan story problems demands clients background lockers began)} = ($plan, [], [], {}, [], [], {}, time);
	$self->{log_from} = -s $self->{node}->logfile;
	# What a plan that failed may have left.
	$self->_sql($_) for split /\n/, $self->_sql(q(SELECT format('SELECT hubex_unsubscribe(%L); DROP TABLE IF EXISTS mirror.%I CASCADE', name, name) FROM hubex.subscription));
	$self->_sql('DROP TABLE IF EXISTS mirror.m1, mirror.m2, mirror.m3, mirror.m4 CASCADE; DELETE FROM hubex.outbox');
	my @mirrors = map { my %of = %$_; Hubex::Mirror->new(delete $of{name}, delete $of{kind}, %of, $plan->{worker} ? () : (every => undef, full_every => undef)) }
		@{ $plan->{mirrors} };
	$self->{mirrors} = { map { $_->name => $_ } @mirrors };

	$self->{sandbox}->reset(seed => $plan->{seed}, tasks => $plan->{tasks}, assets => $plan->{assets});
	$self->{sandbox}->keep_versions;
	$self->_sql("ALTER SERVER fsm OPTIONS (SET page_size '$plan->{page}'); TRUNCATE mirror.event, mirror.statement;");
	$self->_sql($_->begin) for @mirrors;
	# More often than anybody may ask for.
	$self->_sql("UPDATE hubex.subscription SET every = '150 ms', full_every = CASE full_every WHEN '1 second' THEN '400 ms' ELSE full_every END") if $plan->{worker};

	my $n = 0;
	for my $step (@{ $plan->{steps} })
	{
		$n++;
		next if $option{skip}{$n};
		my $method = "_step_$step->{do}";
		$self->_tell("$n $step->{do}");
		eval { $self->$method($step); 1 } or push @{ $self->{problems} }, "step $n, $step->{do}: $@";
	}
	eval { $self->_come_to_rest(@mirrors); 1 } or push @{ $self->{problems} }, "at rest: $@";
	$self->_read_log;
	my @problems = @{ $self->{problems} };
	for my $mirror (@mirrors)
	{
		eval { $self->_sql($mirror->end); 1 } or push @problems, 'at the end of ' . $mirror->name . ": $@";
	}
	$self->_end_clients;
	return @problems;
}

sub _tell
{
	my ($self, $what) = @_;
	my ($seconds, $fraction) = sprintf('%.3f', time) =~ /(\d+)(\.\d+)/;
	push @{ $self->{story} }, POSIX::strftime('%H:%M:%S', gmtime $seconds) . "$fraction $what";
	return;
}

sub _sql { return $_[0]{node}->safe_psql(DATABASE, "SET client_min_messages = warning; SET lock_timeout = '8s'; $_[1]") }

sub _mirror { return $_[0]{mirrors}{ $_[1]{mirror} } }

# What incremental runs cannot see has happened to a mirror, or to all of a list, or to all.
sub _demand_full
{
	my ($self, $why, $of) = @_;
	for my $mirror (values %{ $self->{mirrors} })
	{
		next if defined $of && $of ne $mirror->name && $of ne $mirror->list;
		push @{ $self->{demands}{ $mirror->name } }, $why;
	}
	return;
}

#### What the remote side does

sub _step_changes
{
	my ($self, $step) = @_;
	my %changes = %$step;
	delete $changes{do};
	$self->_note_done($self->{sandbox}->change(%changes));
	return;
}

sub _step_same_second { return $_[0]->_step_changes($_[1]) }
sub _step_mass_erase { return $_[0]->_step_changes($_[1]) }

sub _note_done
{
	my ($self, $done) = @_;
	$self->_tell(sprintf '  %s %s %d%s', @$_{qw(kind list id)}, defined $_->{lastModified} ? " at $_->{lastModified}" : '') for @$done;
	return;
}

sub _step_skew { return $_[0]{sandbox}->config(clock_skew => $_[1]{seconds}) }
sub _step_fault { return $_[0]{sandbox}->fault(%{ $_[1]{fault} }) }
sub _step_expire_tokens { return $_[0]{sandbox}->expire_tokens }

#### What goes on here

sub _step_wait
{
	my ($self, $step) = @_;
	my $wanted = $self->_requests + $step->{requests};
	my $deadline = time + GLANCE;
	until ($self->_requests >= $wanted || time > $deadline)
	{
		usleep 5_000;
	}
	return;
}

sub _requests { return $_[0]{sandbox}->summary->{requests} }

sub _call
{
	my ($self, $step) = @_;
	return sprintf "CALL hubex_sync('%s'%s)", $step->{mirror}, defined $step->{mode} && $self->_can($step) ? ", '$step->{mode}'" : '';
}

# Can the mirror be brought in step in that way at all?
sub _can
{
	my ($self, $step) = @_;
	my $mode = $self->_mirror($step)->mode;
	return $step->{mode} ne 'incremental' || $mode ne 'full';
}

sub _step_call
{
	my ($self, $step) = @_;
	$self->_step_unlock;
	my $client = $self->_client;
	$client->try("SET statement_timeout = '2s'");
	$self->_judge_answer($client->try($self->_call($step)), $self->_call($step));
	$client->try('RESET statement_timeout') or return;
	return;
}

sub _step_background_call
{
	my ($self, $step) = @_;
	my $client = $self->_client;
	push @{ $self->{background} }, { client => $client->send($self->_call($step)), what => $self->_call($step) };
	return;
}

# An answer that is out of date when it comes: what it tells of has changed since, and another run has seen it.
sub _step_overtake
{
	my ($self, $step) = @_;
	my $mirror = $self->_mirror($step);
	return if $mirror->mode eq 'full';
	my ($slow, $fast) = $step->{mode} eq 'full' ? ('incremental', 'full') : ('full', 'incremental');
	my $list = $mirror->list;
	$self->_step_unlock;
	my @ids = split /\n/, $self->_sql("SELECT $mirror->{key} FROM $mirror->{target} WHERE $mirror->{key} < 100000 ORDER BY md5($mirror->{key}::text || '$step->{seed}') LIMIT 4");
	return unless @ids;
	$self->_note_done($self->{sandbox}->change(count => 4, seed => $step->{seed}, lists => [$list], ids => [ map { $_ + 0 } @ids ], weights => _only('change')));
	my %changes = (count => 4, seed => $step->{seed}, lists => [$list], ids => [ map { $_ + 0 } @ids ], weights => _only($self->{plan}{gentle} ? qw(change delete) : qw(change delete erase)));
	$self->{sandbox}->fault(fault => 'mutate_after', path => '/WORK/Tasks', query => $slow eq 'incremental' ? '*lastModifiedFrom*' : 'orderBy=1*', seconds => 0.7, changes => \%changes);
	my $was = $self->_requests;
	$self->_step_background_call({ mirror => $step->{mirror}, mode => $slow });
	$self->_step_wait({ requests => 1 });
	$self->_step_call({ mirror => $step->{mirror}, mode => $fast });
	return;
}

sub _only
{
	my (@kinds) = @_;
	return { map { my $kind = $_; $kind => (grep { $_ eq $kind } @kinds) ? 1 : 0 } qw(create change touch delete restore erase) };
}

sub _judge_answer
{
	my ($self, $answer, $what) = @_;
	my $state = $answer->{sqlstate};
	$self->_tell('  ' . $answer->{error} =~ s/\n/ | /gr) if defined $answer->{error};
	push @{ $self->{problems} }, "$what: $answer->{error}" if defined $answer->{error} && !$answer->{ended} && $state !~ $expected;
	return;
}

sub _step_cancel
{
	my ($self) = @_;
	$self->_try_sql(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL hubex_sync%' AND state = 'active' AND pid <> pg_backend_pid()));
	return;
}

sub _step_terminate_worker { return $_[0]->_try_sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'hubex sync')) }

sub _step_kill_worker { return $_[0]->_kill(q(backend_type = 'hubex sync')) }
sub _step_kill_caller { return $_[0]->_kill(q(query LIKE 'CALL hubex_sync%' AND state = 'active' AND pid <> pg_backend_pid())) }

sub _kill
{
	my ($self, $which) = @_;
	my $pid = $self->_try_sql("SELECT pid FROM pg_stat_activity WHERE $which LIMIT 1");
	return if !$pid;
	$self->_tell("  kill -9 $pid");
	kill 'KILL', $pid;
	$self->_wait_until_up($pid);
	return;
}

# The server takes every backend with one that was killed, and comes back by itself.
sub _wait_until_up
{
	my ($self, $killed) = @_;
	my $deadline = time + QUIET;
	while (1)
	{
		my $back = !kill(0, $killed) && eval { $self->{node}->safe_psql(DATABASE, 'SELECT 1') } // '';
		last if $back eq '1';
		croak 'the server does not come back' if time > $deadline;
		usleep 20_000;
	}
	$self->_lose_clients;
	return;
}

sub _step_immediate
{
	my ($self) = @_;
	$self->{node}->stop('immediate');
	$self->{node}->start;
	return $self->_lose_clients;
}

sub _step_restart
{
	my ($self) = @_;
	$self->{node}->restart;
	return $self->_lose_clients;
}

sub _step_pause { return $_[0]->_sql("SELECT hubex_pause('fsm')") }
sub _step_resume { return $_[0]->_sql("SELECT hubex_resume('fsm')") }

sub _step_confirm
{
	my ($self, $step) = @_;
	return $self->_sql("SELECT hubex_confirm_deletes(subscription) FROM hubex.subscription_state WHERE subscription = '$step->{mirror}' AND sweep_missing IS NOT NULL");
}

sub _step_alter
{
	my ($self, $step) = @_;
	$self->_step_unlock;
	my $target = $self->_mirror($step)->target;
	my ($column) = split /\n/, $self->_sql("SELECT attname FROM pg_attribute WHERE attrelid = '$target'::regclass AND NOT attisdropped
		AND attname IN ('contact_phone', 'erp_id', 'serial_number', 'closed_already', 'title', 'notes') ORDER BY attname LIMIT 1");
	my $extra = 'extra_' . ++$self->{extra};
	my $has = defined $column && $column ne '';
	my $sql = $step->{what} eq 'drop' && $has ? "ALTER TABLE $target DROP COLUMN $column"
		: $step->{what} eq 'type' && $has && $column ne 'closed_already' ? "ALTER TABLE $target ALTER COLUMN $column TYPE varchar(1000)"
		: $step->{what} eq 'index' ? "CREATE INDEX ON $target (" . $self->_mirror($step)->{key} . ')'
		: $step->{what} eq 'comment' ? "COMMENT ON TABLE $target IS 'ours'"
		: "ALTER TABLE $target ADD COLUMN $extra text DEFAULT 'ours'";
	$self->_tell("  $sql");
	# PostgreSQL does not drop, or change the type of, what a view shows.
	$sql = "SELECT 'a view shows it'" if $self->_mirror($step)->owned && $step->{what} =~ /drop|type/;
	$self->_try_sql("SET lock_timeout = '1s'; $sql");
	return;
}

sub _step_lock
{
	my ($self, $step) = @_;
	my $target = $self->_mirror($step)->target;
	return if $self->{lockers}{$target};
	my $client = $self->_client;
	$self->{lockers}{$target} = $client;
	my $answer = $client->try("BEGIN; SET LOCAL statement_timeout = '1s'; " . ($step->{what} eq 'rows' ? "SELECT FROM (SELECT FROM $target FOR UPDATE) r LIMIT 3" : "LOCK TABLE $target"));
	return;
}

sub _step_unlock
{
	my ($self) = @_;
	for my $client (values %{ $self->{lockers} })
	{
		$client->try('ROLLBACK');
		push @{ $self->{clients} }, $client;
	}
	$self->{lockers} = {};
	return;
}

sub _step_local_change
{
	my ($self, $step) = @_;
	my $mirror = $self->_mirror($step);
	my ($target, $key) = ($mirror->target, $mirror->{key});
	$self->_step_unlock;
	my $which = "WHERE $key = (SELECT $key FROM $target ORDER BY md5(${key}::text || '$self->{plan}{seed}') LIMIT 1)";
	my ($column) = split /\n/, $self->_sql("SELECT attname FROM pg_attribute WHERE attrelid = '$target'::regclass AND NOT attisdropped
		AND attname IN ('notes', 'what', 'name', 'title') ORDER BY attname LIMIT 1");
	$self->_try_sql("SET lock_timeout = '1s'; " . ($step->{what} eq 'insert' ? "INSERT INTO $target ($key) VALUES (999999) ON CONFLICT DO NOTHING"
		: $step->{what} eq 'delete' || !defined $column ? "DELETE FROM $target $which" : "UPDATE $target SET $column = 'here' $which"));
	return $self->_demand_full('a change here', $mirror->name);
}

# What flows back. A row that somebody else has changed, or deleted, is none of the error's concern.
sub _step_write_here
{
	my ($self, $step) = @_;
	my $mirror = $self->_mirror($step);
	my ($target, $seed) = ($mirror->target, $step->{seed});
	my @owned = grep { my $column = $_; $self->_sql("SELECT count(*) FROM pg_attribute WHERE attrelid = '$target'::regclass AND attname = '$column' AND NOT attisdropped") } $mirror->owned;
	return unless @owned;
	$self->_step_unlock;
	my $rows = "id IN (SELECT id FROM $target" . ($mirror->deletes eq 'mark' ? ' WHERE deleted IS NULL' : '') . " ORDER BY md5(id::text || '$seed') LIMIT $step->{rows})";
	my $column = $owned[ $seed % @owned ];
	my $value = $seed % 11 == 0 ? 'NULL' : "'here $seed'";
	my $update = "UPDATE $target SET $column = $value" . ($seed % 3 || @owned < 2 ? '' : ", $owned[($seed + 1) % @owned] = 'too $seed'") . " WHERE $rows";
	my $sql = $step->{what} eq 'update' ? $update : $step->{what} eq 'rollback' ? "BEGIN; $update; ROLLBACK"
		: $step->{what} eq 'delete' ? "DELETE FROM $target WHERE $rows" : "INSERT INTO $target (task_type_id, number, notes) VALUES (2, 'HERE-$seed', 'made here')";
	$self->_tell("  $sql");
	$self->_try_sql("SET lock_timeout = '1s'; $sql");
	$self->_sql("SELECT count(*) FROM ${target}_pending");
	return;
}

sub _try_sql
{
	my ($self, $sql) = @_;
	my ($status, $out, $error) = $self->{node}->psql(DATABASE, $sql);
	$self->_tell('  ' . $error =~ s/\n/ | /gr) if $error ne '';
	return $status ? '' : $out;
}

#### Clients

sub _client
{
	my ($self) = @_;
	$self->_take_answers;
	return pop @{ $self->{clients} } if @{ $self->{clients} };
	return Hubex::Client->new($self->{node}, database => DATABASE);
}

# CALLs that have ended.
sub _take_answers
{
	my ($self, $seconds) = @_;
	my @left;
	for my $call (@{ $self->{background} })
	{
		if (!defined $seconds && !$call->{client}->is_done)
		{
			push @left, $call;
			next;
		}
		my $answer = $call->{client}->answer($seconds // 1);
		$self->_judge_answer($answer, $call->{what});
		push @{ $self->{clients} }, $call->{client} unless $answer->{ended};
	}
	$self->{background} = \@left;
	return;
}

sub _lose_clients
{
	my ($self) = @_;
	$self->_end_clients;
	$self->{lockers} = {};
	return;
}

sub _end_clients
{
	my ($self) = @_;
	$_->end for @{ $self->{clients} }, (map { $_->{client} } @{ $self->{background} }), values %{ $self->{lockers} };
	@$self{qw(clients background)} = ([], []);
	return;
}

#### At rest

sub _come_to_rest
{
	my ($self, @mirrors) = @_;
	my ($sandbox, $plan) = @$self{qw(sandbox plan)};
	$self->_tell('rest');
	$sandbox->clear_faults;
	$sandbox->orders(map { { list => $_, kind => 'show' } } qw(tasks assets));
	$self->_step_unlock;
	$self->_step_resume;
	$self->_take_answers(QUIET);
	$self->_demand_full('the plan is rough') unless $plan->{gentle};
	for my $mirror (@mirrors)
	{
		my $name = $mirror->name;
		$self->_demand_full('what leaves the filter is not in the list', $name) if $mirror->is_filtered;
		$self->_demand_full('it had rows', $name) if $mirror->had_rows;
		$self->_demand_full('it has nothing else', $name) if $mirror->mode eq 'full';
	}
	my $mode = sub { $self->{demands}{ $_[0]->name } ? 'full' : undef };
	# Quiet is when no answer of the time before is on its way any more, either: of two that overlap, while the clock there is
	# set back, nobody can say which is newer. A CALL waits for the run that is under way.
	$self->_bring_in_step($_, 'incremental') for grep { $_->mode ne 'full' && $mode->($_) } @mirrors;
	$self->_settle($_, $mode->($_)) for grep { $_->owned } @mirrors;
	$self->_bring_in_step($_, $mode->($_)) for @mirrors;
	return if @{ $self->{problems} };

	# The clocks go on: what is exported is what there was.
	$self->_sql(Hubex::Mirror->remote($sandbox));
	for my $mirror (@mirrors)
	{
		my @found = $mirror->problems($self->{node}, DATABASE);
		my %keys = map { $_ => 1 } map { /(?:of|:) (\d+)/ ? $1 : () } @found;
		push @{ $self->{problems} }, @found, map { $mirror->trail($self->{node}, DATABASE, $_) } (sort keys %keys)[ 0 .. (keys %keys > 3 ? 2 : keys(%keys) - 1) ];
	}
	$self->_tell('judged');
	return if @{ $self->{problems} };

	my $before = $self->_written(@mirrors);
	$self->_bring_in_step($_, 'full') for @mirrors;
	push @{ $self->{problems} }, 'a sweep of a mirror that is in step wrote something' if $self->_written(@mirrors) ne $before;
	for my $mirror (grep { $_->mode ne 'full' } @mirrors)
	{
		$self->_bring_in_step($mirror, 'incremental');
	}
	# The worker may be at clearing up.
	my $left;
	for (my $deadline = time + QUIET; ; usleep 50_000)
	{
		$left = $self->_sql(q(SELECT 'sweep_page ' || subscription FROM hubex.sweep_page WHERE subscription NOT IN (SELECT subscription FROM hubex.subscription_state WHERE sweep_began_at IS NOT NULL)
		UNION SELECT 'tombstone ' || subscription FROM hubex.tombstone WHERE subscription NOT IN (SELECT subscription FROM hubex.subscription_state WHERE sweep_began_at IS NOT NULL)
			UNION SELECT 'local_change ' || subscription FROM hubex.local_change WHERE state = 'open'));
		last if $left eq '' || time > $deadline;
	}
	push @{ $self->{problems} }, "left behind: $left" if $left ne '';
	return;
}

# Until nothing is on its way any more: what is read may have to be answered.
sub _settle
{
	my ($self, $mirror, $mode) = @_;
	for my $time (1 .. 12)
	{
		$self->_bring_in_step($mirror, $mode);
		for (my $deadline = time + QUIET; ; usleep 20_000)
		{
			last if $self->_sql(q(SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending'))) eq '0';
			croak 'requests are not delivered' if time > $deadline;
		}
		return if $self->_sql(q(SELECT (SELECT count(*) FROM hubex.local_change WHERE state = 'open') + (SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending')))) eq '0';
	}
	croak 'changes made here do not come to rest: ' . $self->_sql('SELECT string_agg(l::text, E\'\\n\') FROM hubex.local_change l');
}

# Where each row stands, and by whom it was written.
sub _written
{
	my ($self, @mirrors) = @_;
	return $self->_sql(join ' UNION ALL ', 'SELECT max(n)::text FROM mirror.event', map { sprintf "SELECT md5(string_agg(concat_ws(' ', tableoid, ctid, xmin), ',' ORDER BY tableoid, ctid)) FROM %s", $_->target } @mirrors);
}

sub _bring_in_step
{
	my ($self, $mirror, $mode) = @_;
	my $name = $mirror->name;
	my $call = "CALL hubex_sync('$name'" . (defined $mode ? ", '$mode'" : '') . ')';
	for my $time (1 .. 2)
	{
		my $client = $self->_client;
		my $answer = $client->try($call, QUIET);
		$self->_tell("$call: " . ($answer->{error} // 'done'));
		croak "$call: $answer->{error}" if defined $answer->{error};
		push @{ $self->{clients} }, $client;
		my $held = $self->_sql("SELECT sweep_missing FROM hubex.subscription_state WHERE subscription = '$name' AND sweep_missing IS NOT NULL");
		return if $held eq '';
		croak "$name is held although it may delete $held" if ($mirror->{option}{delete_limit} // 0.1) >= 1 || $held <= 10;
		$self->_tell("  confirms $held");
		$self->_sql("SELECT hubex_confirm_deletes('$name')");
	}
	croak "$name is still held";
}

# What the server said since the plan began that it never should say.
sub _read_log
{
	my ($self) = @_;
	open my $log, '<', $self->{node}->logfile or croak "the log: $!";
	seek $log, $self->{log_from}, 0;
	my %said;
	while (my $line = <$log>)
	{
		my ($state) = $line =~ /(?:ERROR|FATAL|PANIC|WARNING|LOG):  (\w{5}): /;
		next unless $line =~ /TRAP:|PANIC:|was terminated by signal (?!9)/ || (defined $state && $line =~ /(?:ERROR|FATAL):/ && $state !~ $expected);
		next if $line =~ /canceling statement|terminating connection|the database system is|with a key of its own cannot be put into/;
		push @{ $self->{problems} }, "the log says: $line" if !$said{ $line =~ s/^.*?(?=ERROR|FATAL|PANIC|TRAP)//r }++;
	}
	close $log;
	return;
}

1;
