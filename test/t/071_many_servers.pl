# One worker serves all servers of its database, however many they are, and those that hang do not hold the others up.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new;
my $hangs = Hubex::Sandbox->hang('headers');
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, server => "good$_") for 1 .. 6;
$node->start_hubex($sandbox, server => "bad$_", url => $hangs->url) for 1 .. 7;
$node->start_hubex($sandbox, server => "good$_") for 7 .. 12;

$node->safe_psql('postgres', q{SELECT count(hubex_create_task(1, 'of good' || n, server => ('good' || n)::name)) FROM generate_series(1, 12) n});
eventually { made() == 12 } 'twelve servers are delivered to', 10;

# each of the bad ones has more to do than it may have in flight
$node->safe_psql('postgres', q{SELECT count(hubex_create_task(1, 'hangs', server => ('bad' || n % 7 + 1)::name)) FROM generate_series(1, 210) n});
$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state = 'sending'), 7 * 16, 'seven others hang', 10);
my $since = time;
$node->safe_psql('postgres', q{SELECT count(hubex_create_task(1, 'of good' || n, server => ('good' || n % 12 + 1)::name)) FROM generate_series(1, 120) n});
eventually { made() == 132 } 'the twelve are delivered to all the same', 10;
cmp_ok(time - $since, '<', 3, '... without waiting for the seven');
note sprintf '%.2f s', time - $since;
$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE server LIKE 'good%' AND state = 'delivered'), 132,
	'... as the outbox says', 5);
done_testing;

sub made { return scalar grep { ($_->{request}{notes} // '') =~ /^of good/ } @{ $sandbox->tasks } }
