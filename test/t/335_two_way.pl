# Mirrors that are changed here: a change flows to the remote side, its echo is no change, and where both sides changed a
# value the column's owner decides.
#
# The worker delivers; when the mirror is read is decided here, by CALL hubex_sync(). A change whose delivery must not come
# too early is put off in its own transaction.

use strict;
use utf8;
use warnings;

use Encode qw(decode encode);
use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Hubex::Session;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 80, seed => 11);
my $node = Hubex::Node->new('main', autovacuum => 'off');
$node->start_hubex($sandbox, retry_base => '10ms', retry_cap => '50ms');
my $session = Hubex::Session->new($node);
my $client = Hubex::Client->new($node);
my @owners = (notes => 'local', contact_email => 'local', contact_person => 'newest', contact_phone => 'newest', deadline => 'newest');

run(q(CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm));
subscribe('t', 'm');
run(q(CREATE TABLE event (operation text, id bigint, old jsonb, new jsonb, syncing boolean);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$BEGIN
		INSERT INTO event VALUES (tg_op, coalesce(new.id, old.id), to_jsonb(old), to_jsonb(new), hubex_is_syncing()); RETURN NULL; END$$;
	CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON m FOR EACH ROW EXECUTE FUNCTION note();
	SELECT hubex_pending_view('t', 'mv')));

my @alive = map { $_->{id} } grep { !$_->{deleted} } @{ $sandbox->tasks };

subtest 'a change flows, and its echo is none' => \&flows;
subtest 'an answer that was asked for before' => \&asked_before;
subtest 'an old answer of a sweep' => \&old_sweep;
subtest 'several changes of a column on their way' => \&several;
subtest 'both sides changed' => \&conflicts;
subtest 'the remote side changes what is local\'s' => \&overruled;
subtest 'the remote side makes another value of it' => \&normalised;
subtest 'refused, cancelled, retried' => \&refused;
subtest 'deleted here' => \&deletes;
subtest 'deleted there' => \&deleted_there;
subtest 'new rows' => \&inserts;
subtest 'at the same time' => \&at_the_same_time;
subtest 'what is refused' => \&refusals;
subtest 'rights' => \&rights;
subtest 'an ordinary role, and the worker' => \&ordinary;
subtest 'rows come and go, and no column is owned here' => \&no_owners;
subtest 'partitions' => \&partitions;
subtest 'other names and types' => \&mapped;
subtest 'a table that several lists share' => \&shared;
subtest 'the view, after the mirror was altered' => \&view;
subtest 'a trigger that is replaced while it is yet to fire' => \&replaced;
subtest 'at random' => \&at_random for 1 .. $ENV{HUBEX_SEEDS} // 1;
done_testing;

# ---- means ----

# Of what is printed, errors have no place.
sub run
{
	my ($sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $session->query($sql);
	unlike($answer, qr/^(?:psql:.*?)?ERROR/m, $sql =~ s/\s+/ /gr =~ s/^\s*(.{0,60}).*/$1/r) or diag $answer;
	return $answer;
}

sub get { return decode('UTF-8', $session->query($_[0])) }

sub subscribe
{
	my ($name, $target, %option) = @_;
	my %owners = $option{owners} ? %{ $option{owners} } : @owners;
	my $owners = %owners ? ", owners => '{" . join(', ', map { qq("$_": "$owners{$_}") } sort keys %owners) . "}'" : '';
	my $more = $option{more} // '';
	run("SELECT hubex_subscribe('$name', '" . ($option{table} // 'fsm.tasks') . "', '$target', every => NULL$owners$more);
		CREATE TRIGGER out AFTER UPDATE OR DELETE ON $target FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('$name');
		CREATE TRIGGER new BEFORE INSERT ON $target FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('$name')");
	run("CALL hubex_sync('$name')");
	return;
}

sub sync
{
	my ($mode, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return run("CALL hubex_sync('" . ($name // 't') . "'" . ($mode ? ", '$mode'" : '') . ')');
}

# A value here, and there.
sub here { my ($id, $column) = @_; return get("SELECT $column FROM m WHERE id = $id") }

sub there
{
	my ($id, $field) = @_;
	my ($task) = grep { $_->{id} == $id } @{ $sandbox->tasks };
	return $task->{$field} // '';
}

sub order_there
{
	my ($id, $kind, %more) = @_;
	$sandbox->orders({ list => 'tasks', kind => $kind, id => $id + 0, %more });
	return;
}

sub change_there { my ($id, %fields) = @_; return order_there($id, 'change', fields => \%fields) }

# A change whose request is put off; release() has what was put off delivered.
sub change_held
{
	my ($sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return run("BEGIN; $sql; UPDATE hubex.outbox SET next_attempt_at = now() + interval '1 hour' WHERE state = 'waiting'; COMMIT");
}

sub release
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	get(q(SELECT count(hubex_retry(id)) FROM hubex.outbox WHERE state = 'waiting'));
	return settled();
}

sub settled
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending')), 0, 'nothing is on its way');
}

# What is known of changes; what disagreed since it was asked before; the events since.
sub known
{
	my $name = shift // 't';
	return get("SELECT string_agg(concat_ws(' ', kind, nullif(column_name, ''), state), ', ' ORDER BY key, column_name) FROM hubex.local_change WHERE subscription = '$name'");
}

sub disputes
{
	return get(q(WITH d AS (DELETE FROM hubex.conflict RETURNING *)
		SELECT string_agg(concat_ws(' ', nullif(column_name, ''), reason, kept), ', ' ORDER BY column_name, id) FROM d));
}

sub events { return get(q(WITH d AS (DELETE FROM event RETURNING *) SELECT string_agg(operation || CASE WHEN syncing THEN ' by sync' ELSE '' END, ', ') FROM d)) }

# What was done to another mirror of the same list this one has taken back, where it is local's.
sub settle_down
{
	for (1 .. 2) { sync(); settled() }
	sync();
	is(known(), '', 'the first mirror has settled');
	disputes();
	events();
	return;
}

sub requests { return scalar grep { $_->{method} ne 'GET' && $_->{method} ne 'HEAD' && $_->{path} !~ /^\/AUTHZ/ } @{ $sandbox->journal } }

# Both sides have the value, and nothing is left to be done.
sub in_step
{
	my ($id, $column, $field, $value, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(here($id, $column), $value, "$what: here");
	is(there($id, $field), $value, "$what: there");
	is(known(), '', "$what: nothing is on its way");
	return;
}

# ---- what is to hold ----

sub flows
{
	my $id = shift @alive;
	my $began = time;
	run("UPDATE m SET notes = 'one' WHERE id = $id");
	eventually { there($id, 'notes') eq 'one' } 'the remote side has it';
	cmp_ok(time - $began, '<', 1, 'within a second');
	is(known(), 'update notes open', 'it is not known that it has');
	is(events(), 'UPDATE', 'the trigger saw the change');
	settled();
	sync();
	is(known(), '', 'now it is');
	is(events(), '', 'the echo fired no trigger');
	is(here($id, q(to_char(last_modified AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'))), there($id, 'lastModified'), '... and is written');
	is(here($id, q(raw ->> 'notes')), 'one', '... all of it');
	sync();
	is(events(), '', 'once more, nothing happens');
	in_step($id, 'notes', 'notes', 'one', 'in the end');

	run("UPDATE m SET notes = notes, contact_person = contact_person WHERE id = $id");
	is(get("BEGIN; UPDATE m SET notes = 'no' WHERE id = $id; ROLLBACK; SELECT count(*) FROM hubex.local_change"), 0, 'what is rolled back is not sent');
	run("BEGIN; UPDATE m SET notes = 'two' WHERE id = $id; SAVEPOINT s; UPDATE m SET notes = 'three' WHERE id = $id; ROLLBACK TO s; COMMIT");
	settled();
	sync();
	in_step($id, 'notes', 'notes', 'two', 'a savepoint');
	is(disputes(), '', 'nobody disagreed');
	events();

	run("UPDATE m SET notes = 'both', contact_phone = '112', deadline = '2031-02-03 04:05:06+07' WHERE id = $id");
	settled();
	is_deeply([ map { there($id, $_) } qw(notes contactPhone deadline) ], [ 'both', '112', '2031-02-02T21:05:06' ], 'several columns');
	sync();
	run("UPDATE m SET notes = NULL WHERE id = $id");
	settled();
	sync();
	in_step($id, 'notes', 'notes', '', 'NULL');
	events();
	run("UPDATE m SET notes = 'back', contact_person = 'x' WHERE id = $id");
	settled();
	change_there($id, contactEmail => 'both@sides');
	change_there($id, contractID => undef);
	sync();
	is(disputes(), 'contact_email overruled local', 'what the remote side changed besides is seen');
	settled();
	sync();
	events();
	disputes();
	return;
}

sub asked_before
{
	my $id = shift @alive;
	for my $column ([ notes => 'notes' ], [ contact_person => 'contactPerson' ])
	{
		my ($name, $field) = @$column;
		my $old = here($id, $name);
		my $reader = Hubex::Session->new($node);
		change_there($id, contractID => undef);
		$sandbox->fault(method => 'GET', path => '/Work/tasks', fault => 'delay', seconds => 1.5);
		$sandbox->clear_journal;
		$reader->send("CALL hubex_sync('t')");
		eventually { scalar grep { $_->{method} eq 'GET' } @{ $sandbox->journal } } 'the mirror is being read';
		run("UPDATE m SET $name = 'newer' WHERE id = $id");
		settled();
		is(there($id, $field), 'newer', 'meanwhile a change is delivered');
		ok(!$reader->is_done, '... before the answer is here');
		unlike($reader->finish, qr/ERROR/, 'the answer is here');
		is(here($id, $name), 'newer', "$name: an answer that does not know of the change does not undo it");
		is(known(), "update $name open", '... nor settle it');
		sync();
		in_step($id, $name, $field, 'newer', 'the next one');
		is(disputes(), '', 'nobody disagreed');
	}
	events();
	return;
}

# A sweep and an incremental run go on side by side: what the one brings late, the other knows better.
sub old_sweep
{
	my ($id, $gone) = splice @alive, 0, 2;
	my $reader = Hubex::Session->new($node);
	$sandbox->fault(method => 'GET', path => '/Work/tasks', fault => 'delay', seconds => 3);
	$sandbox->clear_journal;
	$reader->send("CALL hubex_sync('t', 'full')");
	eventually { scalar grep { $_->{method} eq 'GET' } @{ $sandbox->journal } } 'the list is being read';
	run("UPDATE m SET notes = 'newer', contact_person = 'newer' WHERE id = $id; DELETE FROM m WHERE id = $gone");
	settled();
	sync('incremental');
	is(known(), '', 'meanwhile changes are delivered, and seen to be');
	ok(!$reader->is_done, '... before the list is here');
	$sandbox->clear_journal;
	unlike($reader->finish, qr/ERROR/, 'the list is here');
	in_step($id, 'notes', 'notes', 'newer', 'local');
	in_step($id, 'contact_person', 'contactPerson', 'newer', 'newest');
	is(get("SELECT count(*) FROM m WHERE id = $gone"), 0, 'a deleted row does not come back');
	is(disputes(), '', 'nobody disagreed');
	settled();
	is(requests(), 0, 'nothing is sent again');

	# What it shows of a column that is changed here is older than what is known to be over there.
	my $other = shift @alive;
	$sandbox->fault(method => 'GET', path => '/Work/tasks', fault => 'delay', seconds => 2);
	$sandbox->clear_journal;
	$reader->send("CALL hubex_sync('t', 'full')");
	eventually { scalar grep { $_->{method} eq 'GET' } @{ $sandbox->journal } } 'the list is being read';
	change_there($other, contactPerson => 'theirs');
	sync('incremental');
	change_held("UPDATE m SET contact_person = 'ours' WHERE id = $other");
	ok(!$reader->is_done, 'meanwhile the column is changed there, which is seen, and then here');
	unlike($reader->finish, qr/ERROR/, 'the list is here');
	is(here($other, 'contact_person'), 'ours', 'the value here stays');
	is(disputes(), '', '... and nobody disagreed');
	release();
	sync();
	in_step($other, 'contact_person', 'contactPerson', 'ours', 'in the end');
	events();
	return;
}

sub several
{
	my $id = shift @alive;
	my $old = here($id, 'notes');
	change_held("UPDATE m SET notes = 'a' WHERE id = $id; UPDATE m SET notes = 'b' WHERE id = $id; UPDATE m SET notes = 'c' WHERE id = $id");
	is(get(q(SELECT remote #>> '{}' FROM hubex.local_change)), $old, 'the base is what the remote side has');
	sync('full');
	is(here($id, 'notes'), 'c', 'read before it is delivered');

	# Only the first is delivered.
	get(q(SELECT hubex_retry(min(id)) FROM hubex.outbox WHERE state = 'waiting'));
	eventually { there($id, 'notes') eq 'a' } 'the first is there';
	sync();
	is(here($id, 'notes'), 'c', 'what the remote side shows of the first is no news');
	is(disputes(), '', 'nobody disagreed');
	release();
	sync();
	in_step($id, 'notes', 'notes', 'c', 'all of them');

	change_held("UPDATE m SET notes = 'd' WHERE id = $id; UPDATE m SET notes = 'c' WHERE id = $id");
	sync('full');
	is(known(), 'update notes open', 'changed back: two requests that do nothing');
	release();
	sync();
	in_step($id, 'notes', 'notes', 'c', 'changed back');
	is(disputes(), '', 'nobody disagreed');

	change_held("UPDATE m SET notes = 'e' WHERE id = $id");
	change_there($id, notes => 'e');
	sync();
	is(disputes(), '', 'both sides the same');
	release();
	sync();
	in_step($id, 'notes', 'notes', 'e', 'both sides the same');
	events();
	return;
}

sub conflicts
{
	my $id = shift @alive;
	change_held("UPDATE m SET notes = 'ours' WHERE id = $id");
	change_there($id, notes => 'theirs');
	sync();
	is(here($id, 'notes'), 'ours', 'local: the value here stays');
	is(disputes(), 'notes both changed local', '... which is recorded');
	sync('full');
	is(disputes(), '', '... once');
	change_there($id, notes => 'theirs again');
	sync();
	is(disputes(), 'notes both changed local', '... for each value');
	release();
	sync();
	in_step($id, 'notes', 'notes', 'ours', 'local');

	change_held("UPDATE m SET contact_person = 'ours', notes = 'more of ours' WHERE id = $id");
	$sandbox->config(modified_skew => 60);
	change_there($id, contactPerson => 'theirs');
	sync();
	is(here($id, 'contact_person'), 'theirs', 'newest: the remote side was later');
	is(disputes(), 'contact_person newer remote', '... which is recorded');
	release();
	is(get(q(SELECT string_agg(state || ' ' || (body::text), ', ' ORDER BY id) FROM (SELECT * FROM hubex.outbox ORDER BY id DESC LIMIT 2) o)),
		'cancelled {"notes": "more of ours", "contactPerson": "ours"}, delivered {"notes": "more of ours"}', 'its request is cancelled; what else was in it goes out again');
	$sandbox->config(modified_skew => 0);
	sync();
	in_step($id, 'contact_person', 'contactPerson', 'theirs', 'newest, there');
	in_step($id, 'notes', 'notes', 'more of ours', 'the other column');

	change_there($id, contactPerson => 'before');
	sync();
	$sandbox->config(modified_skew => -60);
	change_held("UPDATE m SET contact_person = 'ours' WHERE id = $id");
	change_there($id, contactPerson => 'earlier', notes => 'x');
	$sandbox->config(modified_skew => 0);
	sync('full');
	is(here($id, 'contact_person'), 'ours', 'newest: the remote side was earlier');
	like(disputes(), qr/contact_person both changed local/, '... which is recorded');
	release();
	sync();
	in_step($id, 'contact_person', 'contactPerson', 'ours', 'newest, here');
	disputes();

	change_there($id, contactPerson => 'theirs alone');
	sync();
	in_step($id, 'contact_person', 'contactPerson', 'theirs alone', 'newest: changed there alone');
	is(disputes(), '', '... is no conflict');
	events();
	return;
}

sub overruled
{
	my $id = shift @alive;
	run("UPDATE m SET notes = 'mine', contact_email = 'a\@b' WHERE id = $id");
	settled();
	sync();
	events();
	change_there($id, notes => 'yours', contactEmail => 'c@d', contactPhone => '1');
	sync();
	is(here($id, 'notes'), 'mine', 'the value here stays');
	is(disputes(), 'contact_email overruled local, notes overruled local', '... which is recorded');
	is(events(), 'UPDATE by sync', '... and the rest is applied');
	settled();
	is(there($id, 'notes'), 'mine', 'and is sent again');
	is(get(q(SELECT body::text FROM hubex.outbox ORDER BY id DESC LIMIT 1)), '{"notes": "mine", "contactEmail": "a@b"}', '... both in one request');
	sync();
	in_step($id, 'notes', 'notes', 'mine', 'in the end');
	is(events(), '', 'the echo of that fired no trigger');
	for my $again (1 .. 3)
	{
		change_there($id, notes => 'yours');
		sync();
		settled();
		sync();
		in_step($id, 'notes', 'notes', 'mine', "once more ($again)");
	}
	is(disputes(), join(', ', ('notes overruled local') x 3), 'each time it is a conflict');
	events();
	return;
}

sub normalised
{
	my $id = shift @alive;
	run("UPDATE m SET notes = ' text ' WHERE id = $id");
	settled();
	change_there($id, notes => 'text');
	sync();
	settled();
	is(there($id, 'notes'), ' text ', 'it is sent again');
	is(disputes(), 'notes overruled local', '... which is recorded');
	change_there($id, notes => 'text');
	$sandbox->clear_journal;
	sync();
	is(disputes(), 'notes not taken local', 'not a second time');
	is(known(), 'update notes accepted', 'what the remote side makes of it is known');
	sync('full') for 1 .. 2;
	is(disputes(), '', '... and no conflict any more');
	is(here($id, 'notes'), ' text ', 'the value here stays');
	is(requests(), 0, 'nothing is sent');
	is(events(), 'UPDATE, UPDATE by sync', 'a trigger has fired for the change, and for what was made of it');
	change_there($id, notes => 'another');
	sync();
	settled();
	is(disputes(), 'notes overruled local', 'another value is another matter');
	change_there($id, notes => 'text');
	sync();
	is(known(), 'update notes accepted', '... but not what is made of ours');
	is(disputes(), 'notes not taken local', '... which is recorded');
	run("UPDATE m SET notes = 'text' WHERE id = $id");
	settled();
	sync();
	in_step($id, 'notes', 'notes', 'text', 'in the end');

	# A remote side that makes something else of it each time is not fought for ever.
	run("UPDATE m SET notes = 'fixed' WHERE id = $id");
	settled();
	my $rounds = 0;
	while (known() eq 'update notes open' && $rounds < 20)
	{
		change_there($id, notes => 'round ' . $rounds++);
		sync();
		settled();
	}
	is(known(), 'update notes accepted', "after $rounds rounds that is accepted");
	cmp_ok($rounds, '<', 12, '... soon');
	change_there($id, notes => 'fixed');
	sync();
	in_step($id, 'notes', 'notes', 'fixed', 'in the end');

	# With an owner that is not local there is nothing to fight for.
	run("UPDATE m SET contact_person = ' name ' WHERE id = $id");
	settled();
	change_there($id, contactPerson => 'name');
	disputes();
	sync();
	in_step($id, 'contact_person', 'contactPerson', 'name', 'newest');
	is(disputes(), '', '... without a conflict');
	events();
	return;
}

sub refused
{
	my $id = shift @alive;
	for my $column ([ notes => 'notes', 'update notes refused' ], [ contact_person => 'contactPerson', '' ])
	{
		my ($name, $field, $left) = @$column;
		run("UPDATE m SET $name = 'before' WHERE id = $id");
		settled();
		sync();
		events();
		my $fault = $sandbox->fault(method => 'PATCH', fault => 'status', status => 400, body => { code => 'Bad', message => 'not so' });
		run("UPDATE m SET $name = 'wrong' WHERE id = $id");
		$node->wait_for(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1), 'dead', 'the request is given up');
		is(here($id, $name), 'wrong', 'so far the mirror shows it');
		is(get("SELECT hubex_pending || ' ' || hubex_state FROM mv WHERE id = $id"), 'update dead', '... and the view that it is given up');
		events();
		sync();
		is(here($id, $name), 'before', "$name: the remote side's value is back");
		is(events(), 'UPDATE by sync', '... and the trigger knows');
		is(get("SELECT hubex_pending FROM mv WHERE id = $id"), '', 'nothing is pending');
		is(get(q(SELECT concat_ws(' ', column_name, base, local, remote, kept, reason) FROM hubex.conflict)), qq($name "before" "wrong" "before" remote refused), 'the conflict is recorded');
		like(get('SELECT message FROM hubex.conflict'), qr/not so/, '... with the reason');
		disputes();
		is(known(), $left, 'what is left of it');
		sync('full');
		is(here($id, $name), 'before', 'a full reading says the same');
		is(disputes(), '', '... without a conflict');

		is(get(q(SELECT hubex_retry(id) FROM hubex.outbox ORDER BY id DESC LIMIT 1)), 't', 'later it is retried');
		settled();
		sync();
		in_step($id, $name, $field, 'wrong', 'and taken');
		is(disputes(), '', '... without a conflict');

		change_held("UPDATE m SET $name = 'cancelled' WHERE id = $id");
		is(get(q(SELECT hubex_cancel(id) FROM hubex.outbox ORDER BY id DESC LIMIT 1)), 't', 'a request is cancelled');
		sync();
		is(here($id, $name), 'wrong', "$name: the remote side's value is back");
		is(disputes(), "$name refused remote", '... which is recorded');
		run("UPDATE m SET $name = 'next' WHERE id = $id");
		settled();
		sync();
		in_step($id, $name, $field, 'next', 'the next change goes through');
		events();
	}

	# Given up, while the remote side has changed it.
	$sandbox->fault(method => 'PATCH', fault => 'status', status => 400);
	run("UPDATE m SET notes = 'wrong' WHERE id = $id");
	$node->wait_for(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1), 'dead', 'the request is given up');
	change_there($id, notes => 'theirs');
	sync();
	is(here($id, 'notes'), 'theirs', 'the remote side\'s new value is taken');
	is(disputes(), 'notes refused remote', '... and one conflict recorded');

	# The request is gone from the outbox before anybody has looked.
	run("UPDATE m SET notes = 'forgotten' WHERE id = $id");
	settled();
	run(q(DELETE FROM hubex.outbox WHERE state = 'delivered'));
	sync() for 1 .. 2;
	in_step($id, 'notes', 'notes', 'forgotten', 'a request that retention has removed');
	is(disputes(), '', '... without a conflict');
	events();
	return;
}

sub deletes
{
	my ($id, $other) = splice @alive, 0, 2;
	run('ALTER TABLE m ADD COLUMN own text');
	run("UPDATE m SET own = 'keep me' WHERE id = $id");
	is(get('SELECT count(*) FROM hubex.outbox WHERE state = \'waiting\''), 0, 'a column of the mirror\'s own is nobody else\'s affair');
	events();
	change_held("DELETE FROM m WHERE id = $id");
	is(known(), 'delete open', 'a row is deleted');
	sync('full');
	is(get("SELECT count(*) FROM m WHERE id = $id"), 0, 'read before it is delivered, it stays away');
	change_there($id, contactPhone => '7');
	sync();
	is(get("SELECT count(*) FROM m WHERE id = $id"), 0, 'whatever happens to it over there');
	is(get("SELECT hubex_pending || ' ' || hubex_state || ' ' || (notes IS NOT DISTINCT FROM raw ->> 'notes') FROM mv WHERE id = $id"), 'delete waiting true', 'the view shows it');
	release();
	isnt(there($id, 'deleted'), '', 'it is deleted over there');
	sync();
	is(known(), '', '... which is known then');
	is(get("SELECT count(*) FROM mv WHERE id = $id"), 0, 'nothing is left of it');
	sync('full');
	is(get("SELECT count(*) FROM m WHERE id = $id"), 0, 'a full reading says the same');
	is(events(), 'DELETE', 'the trigger saw it once');
	order_there($id, 'restore');
	sync();
	is(get("SELECT count(*) FROM m WHERE id = $id"), 1, 'restored over there, it is back');
	is(events(), 'INSERT by sync', '... as a new row');
	is(disputes(), '', 'nobody disagreed');

	# Refused.
	run("UPDATE m SET own = 'keep me' WHERE id = $id");
	run("UPDATE m SET notes = 'still on its way' WHERE id = $id");
	settled();
	events();
	my $before = get("SELECT m - 'synced_at' - 'last_modified' - 'last_updated' - 'raw' FROM (SELECT to_jsonb(m) m FROM m WHERE id = $id) x");
	$sandbox->fault(method => 'DELETE', path => '/WORK/*', fault => 'status', status => 409, body => { code => 'No', message => 'it is needed' });
	run("DELETE FROM m WHERE id = $id");
	$node->wait_for(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1), 'dead', 'a delete is refused');
	sync();
	is(get("SELECT m - 'synced_at' - 'last_modified' - 'last_updated' - 'raw' FROM (SELECT to_jsonb(m) m FROM m WHERE id = $id) x"), $before, 'the row is back, with what is its own');
	is(disputes(), 'refused remote', '... which is recorded');
	sync();
	is(known(), '', 'nothing is left to be done');
	like(events(), qr/^DELETE, INSERT by sync/, 'the trigger knows');

	# Deleted with changes on their way.
	change_held("UPDATE m SET notes = 'last words' WHERE id = $other; DELETE FROM m WHERE id = $other");
	is(get(q(SELECT string_agg(operation, ',') FROM hubex.pending('t'))), 'delete', 'of a row that is deleted only that is pending');
	sync('full');
	release();
	sync();
	is(known(), '', 'changed, then deleted: nothing is left');
	isnt(there($other, 'deleted'), '', '... and it is deleted');
	is(there($other, 'notes'), 'last words', '... after it was changed');
	is(disputes(), '', 'nobody disagreed');
	events();
	return;
}

sub deleted_there
{
	my ($id, $erased) = splice @alive, 0, 2;
	change_held("UPDATE m SET notes = 'too late', contact_person = 'x' WHERE id = $id");
	order_there($id, 'delete');
	sync();
	is(get("SELECT count(*) FROM m WHERE id = $id"), 0, 'the delete wins');
	is(disputes(), 'contact_person deleted remote, notes deleted remote', '... which is recorded');
	is(get(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1)), 'cancelled', 'the request is cancelled');
	is(known(), '', 'nothing is left');

	# Gone without a trace: only a full reading can tell, and does not as long as a change is on its way.
	change_held("UPDATE m SET notes = 'too late' WHERE id = $erased");
	order_there($erased, 'erase');
	sync('full');
	is(get("SELECT count(*) FROM m WHERE id = $erased"), 1, 'a row with changes on their way is not missed');
	get(q(SELECT count(hubex_retry(id)) FROM hubex.outbox WHERE state = 'waiting'));
	$node->wait_for(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1), 'dead', 'the change is refused');
	sync();
	is(disputes(), 'notes refused remote', '... which is recorded');
	sync('full');
	is(get("SELECT count(*) FROM m WHERE id = $erased"), 0, 'now it is gone');
	is(known(), '', 'nothing is left');
	events();
	return;
}

sub inserts
{
	my $rows = get('SELECT count(*) FROM m');
	change_held(q(INSERT INTO m (task_type_id, notes, erp_id, deadline) VALUES (1, 'a new one', 'NEW-1', '2031-01-01 00:00+00')));
	is(get('SELECT count(*) FROM m'), $rows, 'a new row is not stored');
	is(get(q(SELECT concat_ws('|', notes, erp_id, deadline AT TIME ZONE 'UTC', id, hubex_pending, hubex_state) FROM mv WHERE hubex_pending IS NOT NULL)),
		'a new one|NEW-1|2031-01-01 00:00:00|create|waiting', '... but pending');
	is(events(), '', 'no trigger fires');
	release();
	is(get(q(SELECT concat_ws('|', notes, id, hubex_pending, hubex_state) FROM mv WHERE hubex_pending IS NOT NULL)), 'a new one|create|delivered', 'delivered and not here, it still is');
	sync();
	is(get(q(SELECT concat_ws('|', notes, deadline AT TIME ZONE 'UTC', task_type_id, hubex_pending) FROM mv WHERE erp_id = 'NEW-1')), 'a new one|2031-01-01 00:00:00|1', 'now it is a row like others');
	is(known(), '', 'nothing is left to be done');
	is(events(), 'INSERT by sync', 'the trigger saw it');

	$node->safe_psql('postgres', "COPY m (task_type_id, notes, erp_id) FROM STDIN;\n1\tcopied\tC-1\n1\tcopied\tC-2\n\\.\n");
	settled();
	sync();
	is(get(q(SELECT string_agg(erp_id, ',' ORDER BY erp_id) FROM m WHERE notes = 'copied')), 'C-1,C-2', 'COPY');

	my $id = get(q(SELECT id FROM m WHERE erp_id = 'C-1'));
	run("INSERT INTO m (id, task_type_id, notes) VALUES ($id, 1, 'merged') ON CONFLICT (id) DO UPDATE SET notes = excluded.notes");
	settled();
	sync();
	in_step($id, 'notes', 'notes', 'merged', 'INSERT ... ON CONFLICT of a row that is there');
	is($client->try("INSERT INTO m (id, task_type_id) VALUES ($id, 1)")->{sqlstate}, '23505', '... without it fails as ever');
	my $error = $client->try('INSERT INTO m (id, task_type_id) VALUES (999999, 1)');
	is($error->{sqlstate}, '0A000', 'a key cannot be chosen');
	like($error->{detail}, qr/gets its key \(column "id"\) from the remote system/, '... and it is said why');
	is($client->try('INSERT INTO m (notes) VALUES (\'x\')')->{sqlstate}, '22004', 'what the remote side needs has to be there');
	is($client->try('INSERT INTO m (task_type_id, number, child_count) VALUES (1, NULL, 4)')->{sqlstate}, '0A000', 'what it does not take must not be');

	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 400, body => { code => 'Bad', message => 'not so' });
	run(q(INSERT INTO m (task_type_id, notes) VALUES (1, 'never')));
	$node->wait_for(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1), 'dead', 'a creation is refused');
	is(get(q(SELECT hubex_state FROM mv WHERE notes = 'never')), 'dead', 'the view shows it');
	sync();
	is(get(q(SELECT count(*) FROM mv WHERE notes = 'never')), 0, 'until that is settled');
	is(get(q(SELECT concat_ws(' ', local ->> 'notes', kept, reason) FROM hubex.conflict)), 'never remote refused', '... and recorded');
	disputes();
	events();
	return;
}

# The row is locked by somebody who changes it while an answer is applied to it.
sub at_the_same_time
{
	my $id = shift @alive;
	for my $column ([ notes => 'notes' ], [ contact_person => 'contactPerson' ])
	{
		my ($name, $field) = @$column;
		my $reader = Hubex::Session->new($node);
		my $backend = $reader->backend;
		change_there($id, contactPhone => "phone $name");
		run("BEGIN; UPDATE m SET $name = 'at the same time' WHERE id = $id");
		$reader->send("CALL hubex_sync('t')");
		$node->wait_for("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $backend", 'Lock', 'sync waits for the row');
		run('COMMIT');
		unlike($reader->finish, qr/ERROR/, '... and goes on');
		is(here($id, $name), 'at the same time', "$name: the change is not undone");
		is(here($id, 'contact_phone'), "phone $name", '... and the rest of the answer applied');
		settled();
		sync();
		in_step($id, $name, $field, 'at the same time', 'in the end');

		# The same where the row is deleted here.
		change_there($id, contactPhone => "more $name");
		run("BEGIN; DELETE FROM m WHERE id = $id");
		$reader->send("CALL hubex_sync('t')");
		$node->wait_for("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $backend", 'Lock', 'sync waits for the row');
		run('COMMIT');
		unlike($reader->finish, qr/ERROR/, '... and goes on');
		is(get("SELECT count(*) FROM m WHERE id = $id"), 0, 'a row that was deleted meanwhile stays away');
		settled();
		sync();
		is(known(), '', '... and nothing is left');
		order_there($id, 'restore');
		sync();
	}

	# What a handler changes in another row while sync applies is a change like any other.
	my $other = $alive[0];
	run("CREATE FUNCTION handle() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \$\$BEGIN
			IF hubex_is_syncing() AND new.contact_phone = 'handle it' THEN UPDATE m SET contact_person = 'handled' WHERE id = $other; END IF; RETURN NULL; END\$\$;
		CREATE TRIGGER handle AFTER UPDATE ON m FOR EACH ROW EXECUTE FUNCTION handle()");
	change_there($id, contactPhone => 'handle it');
	sync();
	settled();
	is(there($other, 'contactPerson'), 'handled', 'what a handler changes flows back');
	sync();
	in_step($other, 'contact_person', 'contactPerson', 'handled', 'a handler');
	run('DROP FUNCTION handle() CASCADE');
	disputes();
	events();
	return;
}

sub refused_here
{
	my ($sql, $state, $pattern, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $client->try("BEGIN; $sql");
	$client->query('ROLLBACK');
	is($answer->{sqlstate}, $state, $what) or diag explain $answer;
	like(join("\n", map { $_ // '' } @{$answer}{qw(error detail hint)}), $pattern, '... and says it');
	return;
}

sub refusals
{
	my $id = $alive[0];
	refused_here("UPDATE m SET task_type_name = 'x' WHERE id = $id", '0A000', qr/owners => '\{"task_type_name": "newest"\}'/, 'a column of the remote side');
	refused_here("UPDATE m SET id = 1 WHERE id = $id", '0A000', qr/which record a row is/, 'the key');
	refused_here("UPDATE m SET synced_at = now() WHERE id = $id", '0A000', qr/notes in it/, 'what hubex notes');
	refused_here("UPDATE m SET raw = '{}' WHERE id = $id", '0A000', qr/remote side's/, 'the whole record');
	is($client->try("UPDATE m SET task_type_name = task_type_name, average_rating = average_rating + 0 WHERE id = $id")->{error}, undef, 'what comes to the same is none');
	run('CREATE TRIGGER cut BEFORE TRUNCATE ON m EXECUTE FUNCTION hubex_mirror_trigger(\'t\')');
	refused_here('TRUNCATE m', '0A000', qr/which rows it takes away/, 'TRUNCATE');
	run('CREATE TABLE other (id bigint PRIMARY KEY, notes text); INSERT INTO other VALUES (1)');
	refused_here("CREATE TRIGGER x AFTER UPDATE ON other FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('t'); UPDATE other SET notes = 'x'", '55000', qr/is not the mirror/, 'another table');
	refused_here("CREATE TRIGGER x AFTER UPDATE ON other FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('none'); UPDATE other SET notes = 'x'", '42704', qr/DROP TRIGGER x ON other/, 'no subscription');
	refused_here("CREATE TRIGGER x $_->[0] ON other $_->[1] EXECUTE FUNCTION hubex_mirror_trigger($_->[2]); INSERT INTO other VALUES (2); UPDATE other SET notes = 'x'", '39P01', qr/BEFORE INSERT the same/, "as a trigger $_->[0] $_->[1]")
		for [ 'BEFORE UPDATE', 'FOR EACH ROW', "'t'" ], [ 'AFTER INSERT', 'FOR EACH ROW', "'t'" ], [ 'AFTER UPDATE', 'FOR EACH STATEMENT', "'t'" ], [ 'AFTER UPDATE', 'FOR EACH ROW', '' ];
	refused_here('SELECT hubex_mirror_trigger()', '39P01', qr/was not called as a trigger/, 'called');
	run('DROP TABLE other');

	# With another definition of the subscription.
	refused_here(q(UPDATE hubex.subscription SET owners = '{"notes": "newest"}' WHERE name = 't'; UPDATE m SET contact_person = 'x' WHERE id = ) . $id, '0A000', qr/remote side's/, 'owners that were changed, at once');
	refused_here("DELETE FROM hubex.subscription WHERE name = 't'; UPDATE m SET notes = 'x' WHERE id = $id", '42704', qr/does not exist/, 'a subscription that has ended');
	return;
}

sub rights
{
	my ($id, $other) = splice @alive, 0, 2;
	run('CREATE ROLE clerk LOGIN; GRANT SELECT, UPDATE, INSERT, DELETE ON m TO clerk; GRANT SELECT ON mv TO clerk');
	my $clerk = Hubex::Client->new($node, user => 'clerk');
	my $answer = $clerk->try("UPDATE m SET notes = 'by clerk' WHERE id = $id");
	is($answer->{sqlstate}, '42501', 'without any right');
	run("SELECT hubex_grant('clerk', 'read')");
	$answer = $clerk->try("UPDATE m SET notes = 'by clerk' WHERE id = $id");
	is($answer->{sqlstate}, '42501', 'without USAGE on the server');
	run('GRANT USAGE ON FOREIGN SERVER fsm TO clerk');
	$answer = $clerk->try("UPDATE m SET notes = 'by clerk' WHERE id = $id");
	is($answer->{sqlstate}, '42501', 'without the right to enqueue');
	like($answer->{hint}, qr/hubex_grant\('clerk', 'enqueue'\)/, '... which is said');
	is(here($id, q(notes = 'by clerk')), 'f', 'nothing is changed');
	run("SELECT hubex_grant('clerk', 'enqueue')");
	$clerk->query("BEGIN; UPDATE m SET notes = 'by clerk' WHERE id = $id; INSERT INTO m (task_type_id, notes) VALUES (1, 'from clerk'); COMMIT");
	is(get(q(SELECT string_agg(DISTINCT owner, ',') FROM (SELECT owner FROM hubex.outbox ORDER BY id DESC LIMIT 2) o)), 'clerk', 'the requests are the role\'s');
	settled();
	is($clerk->query(q(SELECT count(*) FROM mv WHERE hubex_pending IS NOT NULL)), 2, 'the view shows them');
	is($clerk->try('SELECT * FROM hubex.local_change')->{sqlstate}, '42501', 'the table behind it is nobody\'s');

	# What row-level security hides, the view does not show.
	change_held(q(INSERT INTO m (task_type_id, notes) VALUES (1, 'not by clerk')) . "; UPDATE m SET notes = 'not by clerk' WHERE id = $other");
	is($clerk->query(q(SELECT count(*) FROM mv WHERE notes = 'not by clerk')), 2, 'who may read the mirror sees what others have on their way');
	run("ALTER TABLE m ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON m TO clerk USING (id = $id)");
	is($clerk->query(q(SELECT string_agg(notes, ', ' ORDER BY notes) FROM mv WHERE hubex_pending IS NOT NULL)), 'by clerk, from clerk', 'under row-level security it is the role\'s own');
	is($clerk->query(q(SELECT count(*) FROM hubex.pending('t') WHERE fields ->> 'notes' = 'not by clerk')), 0, '... by the function, too');
	run('DROP POLICY mine ON m; ALTER TABLE m DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON m FROM clerk');
	is($clerk->try(q(SELECT * FROM hubex.pending('t')))->{sqlstate}, '42501', 'who may not read the mirror sees nothing');
	is($clerk->try(q(SELECT hubex_pending_view('t', 'cv')))->{sqlstate}, '42501', '... and makes no view');
	release();
	sync();

	# Conflicts are seen by those who may act as the subscription's owner.
	change_there($id, notes => 'overruled');
	sync();
	is($clerk->query('SELECT count(*) FROM hubex.conflict'), 0, 'conflicts of others are not seen');
	run('GRANT postgres TO clerk');
	is($clerk->query('SELECT count(*) FROM hubex.conflict'), 1, '... one\'s own are');
	is($clerk->query('WITH d AS (DELETE FROM hubex.conflict RETURNING 1) SELECT count(*) FROM d'), 1, '... and can be deleted');
	run('REVOKE postgres FROM clerk');
	settled();
	sync();
	in_step($id, 'notes', 'notes', 'by clerk', 'in the end');
	$clerk->end;
	events();
	return;
}

# All that sync does it does as the subscription's owner, who has no more rights than it takes.
sub ordinary
{
	my ($id, $other, $gone) = splice @alive, 0, 3;
	run("CREATE ROLE app LOGIN; SELECT hubex_grant('app', 'admin'); GRANT USAGE ON FOREIGN SERVER fsm TO app; CREATE SCHEMA app AUTHORIZATION app;
		GRANT USAGE ON SCHEMA fsm TO app; GRANT SELECT ON fsm.tasks TO app");
	my $app = Hubex::Client->new($node, user => 'app');
	$app->query(q(SET search_path = app, public;
		CREATE TABLE seen (what text);
		SELECT hubex_subscribe('a', 'fsm.tasks', 'app.m', every => '1 second', owners => '{"notes": "local", "contact_person": "newest"}');
		CREATE FUNCTION app.seen() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO app.seen VALUES (current_user || ' ' || tg_op || ' ' || public.hubex_is_syncing()); RETURN NULL; END$$;
		CREATE TRIGGER out AFTER UPDATE OR DELETE ON app.m FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('a');
		CREATE TRIGGER new BEFORE INSERT ON app.m FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('a');
		SELECT hubex_pending_view('a', 'app.v')));
	$node->wait_for(q(SELECT filled_at IS NOT NULL FROM hubex.subscription_state WHERE subscription = 'a'), 't', 'the mirror is filled');
	$app->query('CREATE TRIGGER seen AFTER UPDATE ON app.m FOR EACH ROW EXECUTE FUNCTION app.seen()');
	my $began = time;
	$app->query("UPDATE app.m SET notes = 'by app', contact_person = 'app' WHERE id = $id");
	eventually { there($id, 'notes') eq 'by app' } 'it flows';
	cmp_ok(time - $began, '<', 1, 'within a second');
	$node->wait_for(q(SELECT count(*) FROM hubex.local_change WHERE subscription = 'a'), 0, 'the worker sees the echo');
	is($app->query('SELECT string_agg(what, \', \') FROM app.seen'), 'app UPDATE false', '... which fires no trigger');
	change_there($id, notes => 'not by app', contactPerson => 'not by app');
	$node->wait_for("SELECT contact_person FROM app.m WHERE id = $id", 'not by app', 'the worker applies what changed');
	eventually { there($id, 'notes') eq 'by app' } 'and sends again what is local\'s';
	is(get(q(SELECT owner FROM hubex.outbox ORDER BY id DESC LIMIT 1)), 'app', '... as the subscription\'s owner');
	like($app->query('SELECT string_agg(what, \', \') FROM app.seen'), qr/^app UPDATE false, app UPDATE true$/, 'as whom triggers fire');
	is($app->query('SELECT string_agg(column_name || \' \' || reason, \', \') FROM hubex.conflict'), 'notes overruled', 'it sees its conflicts');

	$sandbox->fault(method => 'PATCH', fault => 'status', status => 400, times => 1);
	$app->query("UPDATE app.m SET contact_person = 'refused' WHERE id = $other");
	$node->wait_for("SELECT count(*) FROM hubex.conflict WHERE subscription = 'a' AND reason = 'refused'", 1, 'a change is refused');
	$node->wait_for("SELECT contact_person = 'refused' FROM app.m WHERE id = $other", '', '... and taken back') if here($other, 'contact_person') eq '';
	$sandbox->fault(method => 'DELETE', path => '/WORK/*', fault => 'status', status => 400, times => 1);
	$app->query("DELETE FROM app.m WHERE id = $other");
	$node->wait_for("SELECT count(*) FROM app.m WHERE id = $other", 1, 'a row whose delete is refused comes back');
	$app->query("DELETE FROM app.m WHERE id = $gone; INSERT INTO app.m (task_type_id, notes) VALUES (1, 'made by app')");
	$node->wait_for(q(SELECT count(*) FROM app.m WHERE notes = 'made by app'), 1, 'a new row arrives');
	eventually { there($gone, 'deleted') ne '' } 'a deleted one is deleted';
	$node->wait_for(q(SELECT count(*) FROM hubex.local_change WHERE subscription = 'a'), 0, 'nothing is left to be done');

	# A right that was taken is missed where it is needed, and said.
	run('REVOKE EXECUTE ON FUNCTION hubex_update FROM app');
	change_there($id, notes => 'who may answer this?');
	$node->wait_for(q(SELECT last_error LIKE '%permission denied for function hubex_update%' FROM hubex.subscription_state WHERE subscription = 'a'), 't', 'without the right to send it is said');
	run('GRANT EXECUTE ON FUNCTION hubex_update TO app');
	eventually { there($id, 'notes') eq 'by app' } 'with it, it goes on';
	$app->query(q(SELECT hubex_unsubscribe('a')));
	is(get(q(SELECT count(*) FROM hubex.local_change WHERE subscription = 'a')), 0, 'nothing stays of a subscription that ends');
	$app->end;
	settled();
	settle_down();
	return;
}

# Resources that know no change of a record have no columns to own; rows are sent all the same, and settled.
sub no_owners
{
	for my $mode ('both', 'full')
	{
		my ($id, $cancelled, $refused) = splice @alive, 0, 3;
		subscribe('o', 'o', owners => {}, more => ", mode => '$mode'" . ($mode eq 'full' ? ", full_every => '1 day'" : ''));
		run("SELECT hubex_pending_view('o', 'ov')");
		refused_here("UPDATE o SET notes = 'x' WHERE id = $id", '0A000', qr/remote side's/, "$mode: no column can be changed");
		change_held("DELETE FROM o WHERE id = $id");
		sync('full', 'o');
		is(get("SELECT count(*) FROM o WHERE id = $id"), 0, "$mode: a row whose delete is on its way stays away");
		release();
		sync('full', 'o') for 1 .. 2;
		is(get("SELECT count(*) FROM o WHERE id = $id"), 0, "$mode: ... and when it is delivered");
		is(known('o'), '', "$mode: ... which is known then");

		change_held("DELETE FROM o WHERE id = $cancelled");
		get(q(SELECT hubex_cancel(id) FROM hubex.outbox ORDER BY id DESC LIMIT 1));
		sync('full', 'o');
		is(get("SELECT count(*) FROM o WHERE id = $cancelled"), 1, "$mode: a row whose delete is cancelled comes back");
		is(disputes(), 'refused remote', "$mode: ... which is recorded");
		$sandbox->fault(method => 'DELETE', path => '/WORK/*', fault => 'status', status => 409, times => 1);
		run("DELETE FROM o WHERE id = $refused");
		$node->wait_for(q(SELECT state FROM hubex.outbox ORDER BY id DESC LIMIT 1), 'dead', "$mode: a delete is refused");
		sync('full', 'o');
		is(get("SELECT count(*) FROM o WHERE id = $refused"), 1, "$mode: ... and the row comes back");
		is(disputes(), 'refused remote', "$mode: ... which is recorded");
		is(known('o'), '', "$mode: nothing is left");

		run("INSERT INTO o (task_type_id, notes) VALUES (1, 'without owners, $mode')");
		settled();
		is(get(q(SELECT hubex_pending || ' ' || hubex_state FROM ov WHERE hubex_pending IS NOT NULL)), 'create delivered', "$mode: a new row is pending");
		sync('full', 'o') for 1 .. 2;
		is(get("SELECT count(*) FROM o WHERE notes = 'without owners, $mode'"), 1, "$mode: ... arrives");
		is(known('o'), '', "$mode: ... and is known to");
		is(get(q(SELECT count(*) FROM ov WHERE hubex_pending IS NOT NULL)), 0, "$mode: nothing is pending");
		is(get(q(SELECT pending FROM hubex_stat_sync WHERE name = 'o')), 0, "$mode: ... hubex_stat_sync says so, too");
		run(q(SELECT hubex_unsubscribe('o'); DROP TABLE o CASCADE));
	}
	settle_down();
	return;
}

sub partitions
{
	run('CREATE TABLE p (id bigint, notes text, contact_person text, created timestamptz, last_modified timestamptz, raw jsonb, synced_at timestamptz, PRIMARY KEY (id, created))
			PARTITION BY RANGE (created);
		CREATE TABLE p_old PARTITION OF p FOR VALUES FROM (MINVALUE) TO (\'2025-02-15\');
		CREATE TABLE p_new (dropped text, synced_at timestamptz, raw jsonb, contact_person text, notes text, last_modified timestamptz, created timestamptz NOT NULL, id bigint NOT NULL);
		ALTER TABLE p_new DROP COLUMN dropped;
		ALTER TABLE p ATTACH PARTITION p_new DEFAULT');
	subscribe('p', 'p', owners => { notes => 'local', contact_person => 'newest' });
	run("SELECT hubex_pending_view('p', 'pv')");
	for my $part ('p_old', 'p_new')
	{
		my $id = get("SELECT max(id) FROM $part");
		run("UPDATE p SET notes = 'in $part', contact_person = 'x' WHERE id = $id");
		is(get("SELECT hubex_pending FROM pv WHERE id = $id"), 'update', "$part: the view");
		settled();
		is(there($id, 'notes'), "in $part", "$part: it flows");
		sync(undef, 'p');
		is(get("SELECT notes FROM $part WHERE id = $id"), "in $part", "$part: here");
		is(get("SELECT raw ->> 'notes' FROM p WHERE id = $id"), "in $part", "$part: the echo is written");
		run("UPDATE $part SET notes = 'directly' WHERE id = $id");
		settled();
		is(there($id, 'notes'), 'directly', "$part: by its own name");
		change_there($id, notes => 'theirs', contactPerson => 'theirs');
		sync(undef, 'p');
		settled();
		sync(undef, 'p');
		is(get("SELECT notes || ' ' || contact_person FROM p WHERE id = $id"), 'directly theirs', "$part: owners");
		is(there($id, 'notes'), 'directly', "$part: owners, there");
		refused_here("UPDATE p SET created = created + interval '1 year' WHERE id = $id", '0A000', qr/key of its own|remote side's|record a row is/, "$part: a row is not moved");
		run("DELETE FROM p WHERE id = $id");
		settled();
		sync(undef, 'p');
		isnt(there($id, 'deleted'), '', "$part: DELETE");
		is(get("SELECT count(*) FROM p WHERE id = $id"), 0, "$part: DELETE, here");
	}
	is(known('p'), '', 'nothing is left');
	run(q(SELECT hubex_unsubscribe('p'); DROP TABLE p CASCADE));
	settle_down();
	return;
}

sub mapped
{
	my $id = shift @alive;
	run(q(CREATE TABLE n (nr integer PRIMARY KEY, "What is it?" varchar(400), who citish, due timestamp, own int GENERATED ALWAYS AS (nr + 1) STORED)) =~ s/citish/text COLLATE "C"/r);
	subscribe('n', 'n', owners => { 'What is it?' => 'local', due => 'newest', who => 'newest' }, more => q(, columns => '{"nr": "id", "What is it?": "notes", "who": "contact_person", "due": "deadline"}'));
	run(q(SELECT hubex_pending_view('n', '"The view"')));
	run(qq(UPDATE n SET "What is it?" = 'renamed', who = 'somebody', due = '2031-05-06 07:08:09' WHERE nr = $id));
	is(get(qq(SELECT hubex_pending FROM "The view" WHERE nr = $id)), 'update', 'the view');
	settled();
	my $zone = get(qq(SELECT to_char('2031-05-06 07:08:09'::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')));
	is_deeply([ map { there($id, $_) } qw(notes contactPerson deadline) ], [ 'renamed', 'somebody', $zone ], 'the values are the remote side\'s');
	sync(undef, 'n');
	is(known('n'), '', 'the echo is known');
	is(get(qq(SELECT concat_ws('|', "What is it?", who, due) FROM n WHERE nr = $id)), 'renamed|somebody|2031-05-06 07:08:09', 'and changes nothing');
	change_there($id, notes => 'overruled');
	sync(undef, 'n');
	is(disputes(), 'What is it? overruled local', 'conflicts are by the mirror\'s names');
	settled();
	is(there($id, 'notes'), 'renamed', 'sent again');
	sync('full', 'n');
	refused_here(q(INSERT INTO n ("What is it?") VALUES ('without a type')), '22004', qr/taskTypeID/, 'what a record needs and the mirror has not');
	change_held(qq(DELETE FROM n WHERE nr = $id));
	is(get(qq(SELECT concat_ws('|', "What is it?", due, hubex_pending) FROM "The view" WHERE nr = $id)), 'renamed|2031-05-06 07:08:09|delete', 'a deleted row in the view');
	get(q(SELECT count(hubex_cancel(id)) FROM hubex.outbox WHERE state = 'waiting'));
	sync(undef, 'n');
	is(get(qq(SELECT concat_ws('|', "What is it?", due) FROM n WHERE nr = $id)), 'renamed|2031-05-06 07:08:09', 'cancelled, it is back');
	is(known('n'), '', 'nothing is left');
	run(q(SELECT hubex_unsubscribe('n'); DROP TABLE n CASCADE));
	settle_down();
	return;
}

sub shared
{
	run('CREATE TABLE s (tenant text, id bigint, notes text, task_type_id bigint, last_modified timestamptz, synced_at timestamptz, PRIMARY KEY (tenant, id))');
	for my $type (1, 2)
	{
		run("CREATE FOREIGN TABLE fsm.s$type (tenant text OPTIONS (constant 'tenant $type'), id bigint, notes text, task_type_id bigint, last_modified timestamptz)
				SERVER fsm OPTIONS (resource 'tasks', filter '{\"taskTypeID\": $type}');
			SELECT hubex_subscribe('s$type', 'fsm.s$type', 's', every => NULL, owners => '{\"notes\": \"local\"}');
			CREATE TRIGGER out$type AFTER UPDATE OR DELETE ON s FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('s$type');
			CREATE TRIGGER new$type BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('s$type');
			SELECT hubex_pending_view('s$type', 'sv$type');
			CALL hubex_sync('s$type')");
	}
	my @ids = map { get("SELECT max(id) FROM s WHERE tenant = 'tenant $_'") } 1, 2;
	run("UPDATE s SET notes = 'shared' WHERE id IN ($ids[0], $ids[1])");
	is(get(q(SELECT count(*) FROM hubex.local_change WHERE subscription <> 't')), 2, 'each row is one list\'s');
	is(get(q(SELECT string_agg(subscription || ' ' || key, ', ' ORDER BY subscription) FROM hubex.local_change WHERE subscription <> 't')), "s1 $ids[0], s2 $ids[1]", '... its own');
	is(get("SELECT count(*) FROM sv$_ WHERE hubex_pending IS NOT NULL"), 1, "the view of one ($_)") for 1, 2;
	run(q(INSERT INTO s (tenant, task_type_id, notes) VALUES ('tenant 2', 2, 'new in s')));
	settled();
	sync(undef, "s$_") for 1, 2;
	is(get(q(SELECT count(*) FROM s WHERE notes = 'new in s' AND tenant = 'tenant 2')), 1, 'a new row is the list\'s that it names');
	is(there($ids[0], 'notes'), 'shared', 'there');
	refused_here("UPDATE s SET tenant = 'tenant 2' WHERE id = $ids[0]", '0A000', qr/which record a row is/, 'a row is not another list\'s');
	is(known("s$_"), '', "nothing is left ($_)") for 1, 2;
	run("SELECT hubex_unsubscribe('s1'); SELECT hubex_unsubscribe('s2'); DROP TABLE s CASCADE");
	settle_down();
	return;
}

sub view
{
	run('ALTER TABLE m ADD COLUMN later text DEFAULT clock_timestamp()::text');
	is(get(q(SELECT count(*) FROM pg_attribute WHERE attrelid = 'mv'::regclass AND attname = 'later')), 0, 'a new column is not shown by itself');
	run('CREATE VIEW upon AS SELECT * FROM mv');
	run(q(SELECT hubex_pending_view('t', 'mv')));
	is(get(q(SELECT string_agg(attname, ',' ORDER BY attnum) FROM (SELECT attname, attnum FROM pg_attribute WHERE attrelid = 'mv'::regclass ORDER BY attnum DESC LIMIT 5) a)),
		'hubex_pending,hubex_state,hubex_request,own,later', 'made again it is, and what stands upon the view stays');
	is(get('SELECT count(*) FROM upon'), get('SELECT count(*) FROM mv'), '... and works');
	run('DROP VIEW mv CASCADE; ALTER TABLE m DROP COLUMN later');
	run(q(SELECT hubex_pending_view('t', 'mv')));
	is(get(q(SELECT count(*) FROM m)), get(q(SELECT count(*) FROM mv)), 'as many rows');
	refused_here(q(SELECT hubex_pending_view('none', 'v')), '42704', qr/does not exist/, 'of no subscription');
	refused_here(q(SELECT hubex_pending_view('t', 'm')), '42809', qr/is not a view/, 'in the place of a table');
	return;
}

# The statement further up still fires the function from before, after the other one has made its plan of the same trigger.
sub replaced
{
	my ($outer, $inner) = @alive[0, 1];
	run(qq(BEGIN;
		CREATE FUNCTION replace() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN
			IF pg_trigger_depth() = 1 THEN
				CREATE OR REPLACE TRIGGER out AFTER UPDATE ON m FOR EACH ROW
					EXECUTE FUNCTION hubex_task_trigger('{"notes": "{notes}"}', '{"write_back": {"id": "id"}}');
				UPDATE m SET notes = 'inner' WHERE id = $inner;
			END IF;
			RETURN new; END\$\$;
		CREATE TRIGGER replace BEFORE UPDATE ON m FOR EACH ROW EXECUTE FUNCTION replace();
		UPDATE m SET notes = 'outer' WHERE id = $outer));
	is(get('SELECT string_agg(key, $$,$$) FROM hubex.local_change'), $outer, 'the change further up is one of the mirror');
	is(get(q(SELECT count(*) FROM hubex.outbox WHERE state = 'waiting')), 2, 'both are sent');
	run('ROLLBACK');
	return;
}

# Both sides change what they like while requests fail and answers are late; once it is quiet, both have the same.
sub at_random
{
	my $seed = $ENV{HUBEX_SEED} // int(time * 1000) % 1_000_000;
	srand $seed;
	my @columns = ([ notes => 'notes' ], [ contact_email => 'contactEmail' ], [ contact_person => 'contactPerson' ], [ contact_phone => 'contactPhone' ]);
	my @ids = grep { length } split /\n/, get('SELECT id FROM m ORDER BY id');
	my %local;    # of columns that are local's: the value that has to win
	for my $id (@ids) { $local{$id}{$_} = here($id, "coalesce($_, '')") for qw(notes contact_email) }
	run(q(UPDATE hubex.subscription SET every = '1 second' WHERE name = 't'; UPDATE hubex.subscription_state SET next_at = now() WHERE subscription = 't'));
	my %gone;
	my $made = 0;
	my $reader = Hubex::Session->new($node);
	for my $round (1 .. ($ENV{HUBEX_ROUNDS} // 250))
	{
		my $id = $ids[ rand @ids ];
		my ($name, $field) = @{ $columns[ rand @columns ] };
		my $what = rand;
		$reader->send(q(CALL hubex_sync('t', 'incremental'))) if $reader->is_done;
		if ($what < 0.45)
		{
			next if $gone{$id};
			my $answer = $client->try("UPDATE m SET $name = 'here $round' WHERE id = $id RETURNING 1");
			die "seed $seed: $answer->{error}" if defined $answer->{error} && $answer->{sqlstate} !~ /^40/;
			$local{$id}{$name} = "here $round" if exists $local{$id}{$name} && !defined $answer->{error} && $answer->{rows} eq '1';
		}
		elsif ($what < 0.80)
		{
			change_there($id, $field => "there $round");
		}
		elsif ($what < 0.83)
		{
			$client->try("DELETE FROM m WHERE id = $id");
			$gone{$id} = 1;
		}
		elsif ($what < 0.85)
		{
			order_there($id, 'delete') unless $gone{$id};
			$gone{$id} = 1;
		}
		elsif ($what < 0.88)
		{
			$client->query("INSERT INTO m (task_type_id, notes, erp_id) VALUES (1, 'made $seed', 'made $round')");
			$made++;
		}
		elsif ($what < 0.93)
		{
			my @faults = ([ fault => 'status', status => 503 ], [ fault => 'drop_after' ], [ fault => 'drop_before' ], [ fault => 'delay', seconds => 0.3 ]);
			$sandbox->fault(method => 'PATCH', times => 1 + int rand 3, @{ $faults[ rand @faults ] });
		}
		elsif ($what < 0.97)
		{
			$sandbox->fault(method => 'GET', path => '/Work/tasks', fault => 'delay', seconds => rand 1);
		}
		else
		{
			my $answer = Hubex::Client->new($node)->try(q(CALL hubex_sync('t', 'full')));
			die "seed $seed: $answer->{error}" if defined $answer->{error} && $answer->{sqlstate} !~ /^(?:40|55P03)/;
		}
	}
	$reader->finish;
	$sandbox->clear_faults;
	settled();
	for my $again (1 .. 12)
	{
		sync('full');
		settled();
		last if known() !~ /open/;
	}
	is(known(), '', "seed $seed: nothing is left to be done");
	my %there = map { $_->{id} => $_ } grep { !$_->{deleted} } @{ $sandbox->tasks };
	my @differ;
	for my $line (split /\n/, get(q(SELECT concat_ws('|', id, coalesce(notes, ''), coalesce(contact_email, ''), coalesce(contact_person, ''), coalesce(contact_phone, '')) FROM
		(SELECT id, replace(notes, E'\\n', ' ') notes, contact_email, contact_person, contact_phone FROM m) x ORDER BY id)))
	{
		my ($id, @here) = split /\|/, $line, -1;
		my $task = delete $there{$id};
		if (!$task) { push @differ, "$id is here only"; next }
		for my $i (0 .. 3)
		{
			my ($name, $field) = @{ $columns[$i] };
			my $value = ($task->{$field} // '') =~ tr/\n/ /r;
			push @differ, "$id $name: '$here[$i]' here, '$value' there" if $here[$i] ne $value;
			push @differ, "$id $name: '$here[$i]', and not '$local{$id}{$name}', which was set here" if exists $local{$id}{$name} && $here[$i] ne $local{$id}{$name} =~ tr/\n/ /r;
		}
	}
	push @differ, map { "$_ is there only" } sort keys %there;
	is(join("\n", @differ), '', "seed $seed: both sides have the same, by the rules") or diag get(q(SELECT string_agg(c::text, E'\n' ORDER BY id) FROM hubex.conflict c));
	is(get("SELECT count(*) FROM m WHERE notes = 'made $seed'"), $made, 'each new row is there once');
	is(scalar(grep { ($_->{notes} // '') eq "made $seed" } @{ $sandbox->tasks }), $made, '... over there, too');
	return;
}
