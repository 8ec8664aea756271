# A backfill and the people: whoever waits for an answer waits no longer for the quota while mirrors are filled and kept in
# step than without them.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use List::Util qw(max sum0);
use Test::More;
use Time::HiRes qw(time usleep);

# A window is a second, so that the test sees many; a minute's window is the same with longer waits.
use constant { RATE => 30, AT_ONCE => 8, ROUNDS => 8 };

my $sandbox = Hubex::Sandbox->new(tasks => 6_000, assets => 6_000);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, rate_limit => RATE . '/s', page_size => 20);
$node->safe_psql('postgres', q(
	CREATE SCHEMA fsm; CREATE SCHEMA mirror;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm));
my $client = Hubex::Client->new($node);

# The measure is worth something: beside others who wait for answers, some wait.
my @others = map { Hubex::Client->new($node) } 1 .. 4;
$_->send("DO \$\$ BEGIN FOR i IN 1 .. 60 LOOP PERFORM hubex_request('GET', '/WORK/TaskTypes'); END LOOP; END \$\$") for @others;
my $beside_others = interactive();
$_->answer(60) for @others;
cmp_ok(sum0(@$beside_others), '>', 0, sprintf 'beside others who ask as much as they can, a client waits for the quota: %.0f ms at most', max(@$beside_others));

my $alone = interactive();
is(sum0(@$alone), 0, 'alone, a client never waits for the quota');

$node->safe_psql('postgres', q(
	SELECT hubex_subscribe('tasks', 'fsm.tasks', 'mirror.tasks', every => '1 second');
	SELECT hubex_subscribe('assets', 'fsm.assets', 'mirror.assets', every => '1 second')));
eventually { pages() >= RATE / 2 } 'the backfill is under way', 30;
my ($from, $began) = (pages(), time);
my $beside_backfill = interactive();
my ($read, $took) = (pages() - $from, time - $began);
is($node->safe_psql('postgres', 'SELECT count(*) FROM hubex.subscription_state WHERE filled_at IS NULL'), 2, 'all the while the backfill went on');
is(sum0(@$beside_backfill), 0, 'beside a backfill, a client never waits for the quota either') or diag "@$beside_backfill";
cmp_ok($read / $took, '>', RATE / 3, sprintf 'and the backfill has what is left: %.1f pages a second of a quota of %d', $read / $took, RATE);

# No window is overdrawn for it; a fifth of it is for the time that requests are on their way.
my @times = map { $_->{time} } @{ $sandbox->journal(fields => 'time') };
my $first = 0;
my $most = max map { my $last = $_; $first++ while $times[$last] - $times[$first] >= 0.8; $last - $first + 1 } 0 .. $#times;
cmp_ok($most, '<=', RATE, 'no second has more requests than the quota');
done_testing;

sub pages { return scalar grep { ($_->{range} // '') =~ /^items=/ } @{ $sandbox->journal(fields => 'range') } }

# Milliseconds that each query of a client waits for the quota: so many at once, then he reads what he got.
sub interactive
{
	my @waits;
	for my $round (1 .. ROUNDS)
	{
		my $began = time;
		for my $n (1 .. AT_ONCE)
		{
			my $id = 1001 + $round * AT_ONCE + $n;
			my $plan = decode_json($client->query("EXPLAIN (ANALYZE, FORMAT json) SELECT number FROM fsm.tasks WHERE id = $id"));
			push @waits, throttled($plan);
		}
		my $pause = $began + 1.02 - time;
		usleep 1e6 * $pause if $pause > 0;
	}
	return \@waits;
}

# Wherever in the plan it stands.
sub throttled
{
	my ($plan) = @_;
	return sum0 map { throttled($_) } @$plan if ref $plan eq 'ARRAY';
	return 0 unless ref $plan eq 'HASH';
	return sum0 map { /throttled/i && !ref $plan->{$_} ? $plan->{$_} =~ /([\d.]+)/ : throttled($plan->{$_}) } keys %$plan;
}
