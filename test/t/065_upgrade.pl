# pg_upgrade takes hubex along, with its servers, what it delivered and what waits. The upgraded cluster is another one
# than the old, whose files may still be there: it holds what waits until hubex_take_over().

use strict;
use warnings;

use Cwd ();

use Hubex::Node;
use Hubex::Sandbox;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = Hubex::Sandbox->new;
my $old = Hubex::Node->new('old');
$old->start_hubex($sandbox);
$old->safe_psql('postgres', q{
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO fsm;
	CREATE TABLE orders (id int PRIMARY KEY, what text);
	CREATE TRIGGER to_hubex AFTER INSERT ON orders FOR EACH ROW
		EXECUTE FUNCTION hubex_task_trigger('fsm', '{"task_type_id": 1, "notes": "{what}"}');
	INSERT INTO orders VALUES (1, 'before');
	SELECT hubex_grant('pg_monitor', 'read');
});
eventually { made('before') == 1 } 'a request is delivered';
$old->safe_psql('postgres', q(SELECT hubex_create_task(1, 'waits', deliver_after => now() + interval '1 hour')));
$old->stop;

my $new = Hubex::Node->new('new', start => 0);
my $bindir = $old->config_data('--bindir');
my $here = Cwd::getcwd();
chdir PostgreSQL::Test::Utils::tempdir();    # it writes there
ok(PostgreSQL::Test::Utils::run_log([ 'pg_upgrade', '-b', $bindir, '-B', $bindir, '-d', $old->data_dir, '-D', $new->data_dir,
	'-s', $new->host, '-p', $old->port, '-P', $new->port ]), 'pg_upgrade');
chdir $here;

$new->start;
$new->wait_for(q(SELECT state FROM hubex.worker_state()), 'held', 'the upgraded cluster holds', 10);
like($new->safe_psql('postgres', q(SELECT message FROM hubex_check() WHERE subject = 'binding')), qr/pg_upgrade/, '... and says why');
$new->safe_psql('postgres', q(UPDATE hubex.outbox SET next_attempt_at = now() WHERE state = 'waiting'; INSERT INTO orders VALUES (2, 'after')));
is($new->safe_psql('postgres', 'SELECT hubex_take_over()'), 2, 'it takes over');
eventually { made('waits') == 1 && made('after') == 1 } '... and delivers';
is(made('before'), 1, '... not what the old one had delivered');
is($new->safe_psql('postgres', 'SELECT count(*) > 0 FROM fsm.tasks'), 't', 'foreign tables can be read');
done_testing;

sub made { my ($notes) = @_; return scalar grep { ($_->{request}{notes} // '') eq $notes } @{ $sandbox->tasks } }
