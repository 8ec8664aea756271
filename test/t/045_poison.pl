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
$node->restart;
eventually { value('SELECT count(*) FROM hubex_tasks()') > 0 } 'a pause ends with the server';

# A manifest that changes under what waits.
$sandbox->clear_journal;
value(q(UPDATE hubex.connector SET manifest = manifest #- '{resources,tasks,create}';
	UPDATE hubex.outbox SET next_attempt_at = now() WHERE natural_key = 'patient'));
$node->wait_for(q(SELECT state, last_error ~ 'does not say any more' FROM hubex.outbox WHERE natural_key = 'patient' AND attempts > 1), 'waiting|t',
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
