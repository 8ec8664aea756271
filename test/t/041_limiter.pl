# What the background leaves of a quota to those who wait for an answer, by a clock of the test's own: hours go by here in
# a moment. A backfill, or many, take what they get; others come at times that are made up, and their waits are
# compared with those they would have without.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Module;
use Hubex::Node;
use List::Util qw(max sum0);
use Test::More;

my $node = Hubex::Node->new('main', preload => 0);
Hubex::Module->install($node);
my $session = Hubex::Client->new($node);
my $account = 0;
my $second = 1_000_000;
my $minute = 60 * $second;
my $seed = $ENV{HUBEX_SEED} // int rand 1_000_000;
srand $seed;
note "HUBEX_SEED=$seed";

# Who runs in the background takes a permit whenever there is one, from time 0 on. Others come at their times. Says how
# long each of those had to wait, and at what times the background had its permits.
$session->query(<<'SQL');
CREATE FUNCTION simulate(account integer, rate text, arrivals bigint[], till bigint, background text[],
	OUT waits bigint[], OUT times bigint[], OUT takers text[]) LANGUAGE plpgsql AS $$
DECLARE
	waiting bigint[] := '{}';	-- indexes of arrivals that were refused
	again bigint[] := '{}';		-- ... and when each asks again
	asks bigint[] := array_fill(0::bigint, ARRAY[cardinality(background)]);
	coming integer := 1;
	at bigint;
	who integer;
	refused bigint;
BEGIN
	waits := array_fill(0::bigint, ARRAY[cardinality(arrivals)]);
	times := '{}';
	takers := '{}';
	LOOP
		-- the next to ask: one who was refused, one who comes, or the background
		at := till;
		who := 0;
		FOR i IN 1 .. cardinality(again) LOOP
			IF again[i] < at THEN at := again[i]; who := i; END IF;
		END LOOP;
		IF coming <= cardinality(arrivals) AND arrivals[coming] < at THEN
			at := arrivals[coming];
			who := -1;
		END IF;
		FOR i IN 1 .. cardinality(background) LOOP
			IF asks[i] < at THEN at := asks[i]; who := -1 - i; END IF;
		END LOOP;
		EXIT WHEN who = 0;
		IF who < -1 THEN
			refused := hubex_test_take(account, rate, at, background[-1 - who]);
			IF refused = 0 THEN
				times := times || at;
				takers := takers || background[-1 - who];
			END IF;
			asks[-1 - who] := at + greatest(refused, 1);
		ELSE
			refused := hubex_test_take(account, rate, at, 'interactive');
			IF who = -1 THEN
				IF refused > 0 THEN
					waiting := waiting || coming::bigint;
					again := again || at + refused;
				END IF;
				coming := coming + 1;
			ELSIF refused > 0 THEN
				again[who] := at + refused;
			ELSE
				waits[waiting[who]] := at - arrivals[waiting[who]];
				waiting := waiting[:who - 1] || waiting[who + 1:];
				again := again[:who - 1] || again[who + 1:];
			END IF;
		END IF;
	END LOOP;
END
$$
SQL

sub list { return "'{" . join(',', @_) . "}'" }

# Returns the waits and the background's times, both as lists, and who had each of these.
sub simulate
{
	my ($rate, $arrivals, $till, @background) = @_;
	$account++;
	my $row = $session->query("SELECT array_to_string(waits, ','), array_to_string(times, ','), array_to_string(takers, ',') FROM simulate($account, '$rate', "
		  . list(map { int } @$arrivals) . '::bigint[], ' . int($till) . '::bigint, ' . list(@background) . '::text[])');
	my ($waits, $times, $takers) = map { [ split /,/ ] } split /\|/, $row, -1;
	return { waits => $waits, times => $times, takers => $takers };
}

# The most times within a span, wherever that begins.
sub most_within
{
	my ($span, @times) = @_;
	my $first = 0;
	return max 0, map { my $last = $_; $first++ while $times[$last] - $times[$first] >= $span; $last - $first + 1 } 0 .. $#times;
}

sub every { my ($interval, $from, $till) = @_; my @at; for (my $t = $from; $t < $till; $t += $interval) { push @at, $t } return @at }

#
# A backfill, and nobody else
#
{
	my $alone = simulate('60/min', [], 20 * $minute, 'backfill');
	is(most_within(60 * $second, @{ $alone->{times} }), 40, 'a backfill takes two thirds of a window');
	cmp_ok(scalar @{ $alone->{times} }, '>=', 780, '... and all of these: ' . @{ $alone->{times} } . ' in 20 minutes');
	my $sync = simulate('60/min', [], 20 * $minute, 'sync', 'sync');
	is(most_within(60 * $second, @{ $sync->{times} }), 50, 'what stays in step takes five sixths');
	my $many = simulate('60/min', [], 20 * $minute, ('backfill') x 5);
	is(most_within(60 * $second, @{ $many->{times} }), 40, 'five backfills take no more than one');
	my $both = simulate('60/min', [], 20 * $minute, 'backfill', 'sync');
	my $of_sync = grep { $_ eq 'sync' } @{ $both->{takers} };
	cmp_ok($of_sync, '>', 0.9 * @{ $both->{takers} }, 'what stays in step goes before a backfill');
	my $delivery = simulate('60/min', [], 20 * $minute, 'delivery', 'backfill');
	is(scalar(grep { $_ eq 'backfill' } @{ $delivery->{takers} }[ 20 .. $#{ $delivery->{takers} } ]), 0, '... and what is delivered before both');
}

#
# Someone who asks evenly
#
for my $case ([ '60/min', $minute, 0.9 ], [ '12/s', $second, 0.8 ], [ '1000/h', 60 * $minute, 0.9 ], [ '6/min', $minute, 0.65 ])
{
	my ($rate, $window, $most) = @$case;
	my ($count) = $rate =~ /^(\d+)/;
	my ($waited, $tried, $got) = (0, 0, 0);
	for my $share (0.1, 0.3, 0.5, 0.65, $most)
	{
		# the window is held a little longer than it is
		my $interval = 1.1 * $window / $count / $share;
		for (1 .. 6)
		{
			my $from = rand 3 * $window;
			my $with = simulate($rate, [ every($interval, $from, $from + 4 * $window) ], 8 * $window, 'backfill', 'backfill');
			$waited = max $waited, @{ $with->{waits} };
			$tried += @{ $with->{waits} };
			$got += @{ $with->{times} };
		}
	}
	is($waited, 0, sprintf "$rate: who asks evenly for up to %d%% of it never waits for a backfill, whenever he begins ($tried requests)", 100 * $most);
	cmp_ok($got, '>', 30 * 8 * $count / 4, "... and the backfill comes forward: $got requests");
}

#
# Someone who asks for much at once
#
for my $case ([ '60/min', $minute, 20 ], [ '12/s', $second, 4 ], [ '3/min', $minute, 1 ], [ '2/min', $minute, 1 ],
	[ '2/s burst 50', 25 * $second, 16 ], [ '1/s burst 2', 2 * $second, 1 ])
{
	my ($rate, $window, $reserve) = @$case;
	my $waited = 0;
	for (1 .. 10)
	{
		my $from = rand 3 * $window;
		my @arrivals = map { ($_) x $reserve } every(2.2 * $window, $from, 12 * $window);
		my $with = simulate($rate, \@arrivals, 12 * $window, 'backfill', 'backfill');
		$waited = max $waited, @{ $with->{waits} };
	}
	is($waited, 0, "$rate: who asks for $reserve at once never waits for a backfill");
}

# ... and for more than is left: it comes evenly, not after a window
{
	my $from = 5 * $minute + 7 * $second;
	my $with = simulate('60/min', [ ($from) x 40 ], 10 * $minute, 'backfill', 'backfill');
	my @waits = sort { $a <=> $b } @{ $with->{waits} };
	is($waits[19], 0, 'of 40 requests at once 20 are not kept waiting');
	cmp_ok($waits[29] / $second, '<', 22, sprintf '... the next come one by one: %.1f s for the 30th, %.1f s for the last', map { $_ / $second } @waits[ 29, 39 ]);
	cmp_ok($waits[39] / $second, '<', 40, '... and none waits for all of the window');
	my ($after) = grep { $_ > $from } @{ $with->{times} };
	cmp_ok($after, '>', $from + $waits[39], '... while the backfill has nothing');
}

#
# Someone who asks at any times: what a backfill costs him
#
for my $share (0.3, 0.6)
{
	my (@with, @without);
	for (1 .. 5)
	{
		my ($t, @arrivals) = (5 * $minute);
		while (($t += -log(1 - rand) * $minute / 60 / $share) < 25 * $minute) { push @arrivals, $t }
		push @with, @{ simulate('60/min', \@arrivals, 30 * $minute, 'backfill', 'backfill')->{waits} };
		push @without, @{ simulate('60/min', \@arrivals, 30 * $minute)->{waits} };
	}
	cmp_ok(sum0(@with), '<=', sum0(@without) + 0.02 * $second * @with,
		sprintf 'requests by chance, %d%% of the quota: on average they wait %.3f s with a backfill, %.3f s without, the longest %.1f and %.1f s',
		100 * $share, (map { sum0(@$_) / @$_ / $second } \@with, \@without), map { max(@$_) / $second } \@with, \@without);
}

#
# Quotas of next to nothing
#
for my $case ([ '1/min', 20 ], [ '2/min', 20 ], [ '1/min burst 1', 20 ], [ '2/min burst 2', 20 ])
{
	my ($rate, $minutes) = @$case;
	my $alone = simulate($rate, [], $minutes * $minute, 'backfill', 'backfill', 'sync');
	cmp_ok(scalar @{ $alone->{times} }, '>=', $minutes - 1, "$rate: the background comes forward where nobody else asks");
}
{
	# two permits a minute: one of them is left
	my $with = simulate('2/min', [ every(62 * $second, 30 * $second, 30 * $minute) ], 30 * $minute, 'backfill');
	is(max(@{ $with->{waits} }), 0, '2/min: who asks once a minute never waits');

	# one: whoever waits is the next
	$with = simulate('1/min', [ every(150 * $second, 20 * $second, 30 * $minute) ], 30 * $minute, 'backfill');
	cmp_ok(max(@{ $with->{waits} }), '<=', 61 * $second, '1/min: nobody waits for more than one request of a backfill');
	cmp_ok(scalar @{ $with->{times} }, '>', 8, '... which goes on in between');
}

#
# Quotas and clocks that change
#
{
	my $take = sub { my ($rate, $at, $priority) = @_; return $session->query(sprintf "SELECT hubex_test_take(1000, '%s', %d, '%s')", $rate, $at, $priority) };
	is($take->('3/day', 0, 'backfill'), 0, 'a backfill has its permit');
	cmp_ok($take->('3/day', $second, 'backfill'), '>', 3600 * $second, '... and would have to wait for hours');
	cmp_ok($take->('60/min', 2 * $second, 'backfill'), '<=', 8 * $second, '... unless the quota is another');
	is($take->('60/min', 10 * $second, 'backfill'), 0, '... which counts soon');
	$take->('60/min', 10 * $second + $_, 'backfill') for 1 .. 10;
	my $wait = $take->('60/min', 11 * $second, 'backfill');
	cmp_ok($wait, '>', 0, 'a clock that is set back');
	cmp_ok($take->('60/min', 11 * $second - 3600 * $second, 'backfill'), '<=', $wait, '... does not make anybody wait longer');
}

done_testing;
