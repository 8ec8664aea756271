# What one row, one answer or one manifest can do to the others: nothing.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);

sub value { return $node->safe_psql('postgres', $_[0]) }

sub failure
{
	my ($sql, $database) = @_;
	my (undef, undef, $stderr) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);
	return $stderr;
}

sub posts { return grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal(method => 'POST') } }

# A plain call that succeeds has nothing to say.
value(q(SELECT hubex_enqueue('GET', '/WORK/TaskTypes')));
$node->wait_for(q(SELECT state, last_status, last_error IS NULL FROM hubex.outbox), 'delivered|200|t', 'a call without an error');

# Bytes that are no text in UTF-8, in a database that does not look.
value(q(CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0));
$node->start_hubex($sandbox, database => 'ascii');
like(failure(q(SELECT hubex_create_task(1, notes => E'\xe9caf')), 'ascii'), qr/22021/, 'bytes that are not UTF-8 are refused');
$node->safe_psql('ascii', q(SELECT hubex_create_task(1, notes => 'кафе', erp_id => 'ascii')));
eventually { grep { ($_->{erpID} // '') eq 'ascii' && $_->{notes} eq 'кафе' } @{ $sandbox->tasks } } 'and text goes through';

# A path that came into the table by another way and makes no URL.
value(q(INSERT INTO hubex.outbox (server, owner, operation, method, path) VALUES ('fsm', current_user, 'call', 'POST', '/../x')));
value(q(SELECT hubex_create_task(1, erp_id => 'beside')));
eventually { grep { ($_->{erpID} // '') eq 'beside' } @{ $sandbox->tasks } } 'what cannot be a request harms nobody';
$node->wait_for(q(SELECT state, last_error <> '' FROM hubex.outbox WHERE path = '/../x'), 'dead|t', 'and is given up');

# Large bodies that hang take the room of large ones only.
$sandbox->fault(method => 'POST', path => '/WORK/Large', fault => 'hang', times => 100);
value(q(SELECT hubex_enqueue('POST', '/WORK/Large', jsonb_build_object('a', repeat('a', 20000000))) FROM generate_series(1, 3)));
eventually { @{ $sandbox->journal(path => '/WORK/Large') } == 2 } 'large bodies are sent as there is room';
value(q(SELECT hubex_create_task(1, erp_id => 'small')));
eventually { grep { ($_->{erpID} // '') eq 'small' } @{ $sandbox->tasks } } 'a small one passes them', 15;
value(q(DELETE FROM hubex.outbox WHERE path = '/WORK/Large'));

# A pause without end.
$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'throttle', retry_after => 99999999999);
value(q(SELECT hubex_create_task(1, erp_id => 'patient')));
$node->wait_for(q(SELECT state, next_attempt_at - now() BETWEEN '50 min' AND '61 min' FROM hubex.outbox WHERE natural_key = 'patient' AND last_status = 429),
	'waiting|t', 'Retry-After counts up to an hour');
like(failure('SELECT count(*) FROM hubex_tasks()'), qr/53000.*There may be some in \d+ seconds/s, 'who waits for an answer is told');
is(value(q(SELECT ok, message ~ 'no room' FROM hubex_check() WHERE subject = 'account')), 'f|t', 'hubex_check says so too');
value(q(SELECT hubex_resume('fsm')));
eventually { value('SELECT count(*) FROM hubex_tasks()') > 0 } 'hubex_resume() ends a pause that the remote system asked for';
eventually { grep { ($_->{erpID} // '') eq 'patient' } @{ $sandbox->tasks } } '... and what waited for it is sent';

# One kind of request fails for all, and more of them than it takes to open the circuit: others get through.
my @ids = map { $_->{id} } (grep { !$_->{deleted} && !$_->{closed} } @{ $sandbox->tasks })[0 .. 19];
$sandbox->fault(method => 'POST', path => '*conversation', fault => 'status', status => 503, times => 100_000);
value("SELECT hubex_comment_task('fails', task_id => $_)") for @ids;
$node->wait_for(q(SELECT circuit <> 'closed' FROM hubex_stat_server), 't', 'failures in a row open the circuit');
value(q(SELECT hubex_create_task(1, erp_id => 'healthy')));
eventually { grep { ($_->{erpID} // '') eq 'healthy' } @{ $sandbox->tasks } } '... and what was never tried goes first when it is tried again', 60 or diag value(q(SELECT * FROM hubex_stat_server)), value(q(SELECT operation, state, attempts, count(*), min(next_attempt_at - now()), min(last_error) FROM hubex.outbox GROUP BY 1,2,3));
value(q(SELECT bool_and(hubex_cancel(id)) FROM hubex.outbox WHERE operation = 'comment' AND state = 'waiting'));
$sandbox->clear_faults;
$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending')), 0, 'and the circuit closes');

# A manifest that changes under what waits.
$sandbox->clear_journal;
value(q(SELECT hubex_pause('fsm')));
value(q(SELECT hubex_create_task(1, erp_id => 'unknown')));
value(q(UPDATE hubex.connector SET manifest = manifest #- '{resources,tasks,operations,create}'));
value(q(SELECT hubex_resume('fsm')));
$node->wait_for(q(SELECT state, last_error ~ 'does not say any more' FROM hubex.outbox WHERE natural_key = 'unknown' AND attempts > 0), 'waiting|t',
	'a record nobody says how to make waits');
is(scalar posts(), 0, 'and is not sent');

# Requests of a server that is gone.
value(q(ALTER SERVER fsm RENAME TO other; SELECT hubex_create_task(1, server => 'other') FROM hubex.connector WHERE false));
like(value(q(SELECT string_agg(message, ' ') FROM hubex_check('other') WHERE subject = 'outbox')), qr/1 requests wait for servers that do not exist: fsm/,
	'hubex_check shows what waits for a server that is gone');

# Letters that a database cannot hold.
value(q(CREATE DATABASE win ENCODING 'WIN1251' LOCALE 'C' TEMPLATE template0));
$node->start_hubex($sandbox, database => 'win');
my $all = () = grep { !$_->{deleted} } @{ $sandbox->tasks };
is($node->safe_psql('win', q(SET client_min_messages = error; SELECT count(*) FROM hubex_tasks())), $all, 'every task is there, in a database of less letters');

done_testing;
