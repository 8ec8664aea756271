# A server's circuit opens while a call to it still hangs, and all that is due has to wait for that call: nothing is
# there to try the server with until it ends, and it must be let end.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, timeout => '2s', retry_attempts => 1, retry_base => '50ms', retry_cap => '100ms');
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');

# signed in before anything goes wrong
$node->safe_psql('postgres', q(SELECT count(*) FROM hubex_tasks()));
$sandbox->fault(method => 'PUT', path => '/WORK/Hangs', fault => 'hang');
$sandbox->fault(method => 'PUT', path => '/WORK/Fails*', fault => 'drop_before', times => 100);

$node->safe_psql('postgres', q(SELECT hubex_enqueue('PUT', '/WORK/Hangs', '{}', ordering_key => 'k')));
Hubex::Node::eventually { grep { $_->{path} eq '/WORK/Hangs' } @{ $sandbox->journal } } 'a call hangs';
my $behind = $node->safe_psql('postgres', q(SELECT hubex_create_task(1, 'стоит за ним', ordering_key => 'k')));
$node->safe_psql('postgres', q(SELECT hubex_enqueue('PUT', '/WORK/Fails' || i, '{}') FROM generate_series(1, 8) i));
$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE path LIKE '/WORK/Fails%' AND state = 'dead'), 8, 'eight others fail');
is($node->safe_psql('postgres', q(SELECT state FROM hubex.outbox WHERE path = '/WORK/Hangs')), 'sending', 'it hangs still');
$node->wait_for("SELECT state FROM hubex.outbox WHERE id = $behind", 'delivered', 'what stood behind it is delivered', 20);
is(scalar(grep { ($_->{notes} // '') eq 'стоит за ним' } @{ $sandbox->tasks }), 1, 'once');
done_testing;
