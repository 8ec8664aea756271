# The quota of an account is one for all who draw from it: sessions that read, the worker that delivers, and their
# sign-ins. A window is never overdrawn, wherever it begins, as the remote side's own clock sees it; who waits for an
# answer goes ahead of what is delivered; and hubex_stat_server shows what it costs.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use List::Util qw(max);
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
my $client = Hubex::Client->new($node);
$node->start_hubex($sandbox, rate_limit => '60/min');
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');

subtest 'a window' => \&window;
subtest 'a bucket that leaks' => \&bucket;
subtest 'servers of one account' => \&one_account;
done_testing;

# ---- tools ----

# When requests have arrived, in order; a fault aside that nobody asked for.
sub arrivals
{
	my (%filter) = @_;
	return map { $_->{time} } sort { $a->{n} <=> $b->{n} } @{ $sandbox->journal(%filter, fields => 'n,time') };
}

# The most that arrived within so many seconds, wherever these begin; the end does not belong to them.
sub most_within
{
	my ($seconds, @times) = @_;
	my $first = 0;
	return max map { my $last = $_; $first++ while $times[$last] - $times[$first] >= $seconds; $last - $first + 1 } 0 .. $#times;
}

sub server { return $client->query("SELECT $_[0] FROM hubex_stat_server WHERE server = 'fsm'") }

sub waiting { return $client->query(q(SELECT count(*) FROM hubex.outbox WHERE state IN ('waiting', 'sending'))) }

# The rest of a backlog, given up so that the next subtest has the quota.
sub drop_backlog
{
	$client->query(q(SELECT hubex_pause('fsm')));
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state = 'sending'), 0, 'nothing is in flight any more', 90);
	$client->query(q(DELETE FROM hubex.outbox; SELECT hubex_resume('fsm')));
}

# ---- the tests ----

# The backlog takes the first minute's quota; then eight sessions come to read.
sub window
{
	my $backlog = 200;
	my $reads = 3;
	my @clients = map { Hubex::Client->new($node) } 1 .. 8;

	$client->query("SELECT count(hubex_create_task(1, 'window ' || n)) FROM generate_series(1, $backlog) n");
	eventually { arrivals() >= 60 } 'a backlog takes a whole window', 120;
	eventually { server('quota_taken = 60 AND throttled > 0 AND throttled_time > 0') eq 't' } 'hubex_stat_server shows it', 30;
	$_->send("DO \$\$ BEGIN FOR i IN 1 .. $reads LOOP PERFORM hubex_request('GET', '/WORK/TaskTypes'); END LOOP; END \$\$")
	  for @clients;
	my @answers = map { $_->answer(180) } @clients;
	my $left = waiting();
	is_deeply([ map { $_->{error} } @answers ], [ (undef) x @clients ], 'eight sessions read in a loop, and none is refused');
	cmp_ok($left, '>', $backlog / 4, "they go ahead of the backlog: $left of $backlog wait still");
	eventually { arrivals() > 110 } 'deliveries go on', 180;
	my @times = arrivals();
	is(scalar(() = arrivals(path => '/WORK/TaskTypes')), $reads * @clients, 'every read was made');
	is(most_within(60, @times), 60, sprintf 'of %d requests in %.1f s, no window of a minute has more than 60, sign-ins included',
		scalar @times, $times[-1] - $times[0]);
	is($sandbox->summary->{sign_ins}, 1, '... of which there was one');
	is(server('rate_limit'), '60/min', 'hubex_stat_server says which quota it is');
	my ($throttled, $time) = split /\|/, server('throttled, throttled_time');
	ok($throttled >= 1 && $time > 0, "... and how often and how long it was waited for: $throttled, $time");
}

# Five at once, then two in a second: in no span of s seconds more than 5 + 2 s.
sub bucket
{
	my $backlog = 30;
	my @clients = map { Hubex::Client->new($node) } 1 .. 4;

	drop_backlog();
	$sandbox->clear_journal;
	$client->query("SELECT count(hubex_create_task(1, 'bucket ' || n)) FROM generate_series(1, $backlog) n");
	$client->query(q(ALTER SERVER fsm OPTIONS (SET rate_limit '2/s burst 5')));
	eventually { arrivals() >= 5 } 'a new quota counts at once, whatever the old one was waited for', 30;
	$_->send(q(DO $$ BEGIN FOR i IN 1 .. 2 LOOP PERFORM hubex_request('GET', '/WORK/TaskTypes'); END LOOP; END $$)) for @clients;
	my @answers = map { $_->answer(120) } @clients;
	my $left = waiting();
	is_deeply([ map { $_->{error} } @answers ], [ (undef) x @clients ], 'four sessions read, and none is refused');
	cmp_ok($left, '>', 0, "they go ahead of the backlog: $left of $backlog wait still");
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, 'and all is delivered', 120);
	my @times = arrivals();
	cmp_ok(scalar @times, '>=', $backlog + 8, 'each was a request');

	# What one permit takes longer to arrive than the next is no overdraft: a second of it is allowed for.
	my @over = grep { my $seconds = $_; most_within($seconds, @times) > 5 + 2 * ($seconds + 1) } 1 .. 15;
	is_deeply(\@over, [], 'in no span of time more than it may let through');
	cmp_ok($times[-1] - $times[0], '>', (@times - 5) / 2 - 1.5, 'all of them take as long as they have to');
}

# A second server with the same address and credentials is the same account there.
sub one_account
{
	$client->query(q(ALTER SERVER fsm OPTIONS (SET rate_limit '10/s')));
	$node->start_hubex($sandbox, server => 'twin', rate_limit => '10/s');
	$sandbox->clear_journal;
	$client->query(q(SELECT count(hubex_create_task(1, s || n, server => s)) FROM generate_series(1, 20) n, unnest('{fsm,twin}'::name[]) s));
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'), 0, 'two servers deliver', 120);
	my @times = arrivals();
	cmp_ok(scalar @times, '>=', 40, 'each was a request');
	cmp_ok($times[-1] - $times[0], '>', 3, sprintf 'they share one quota: 40 requests of 10 a second took %.1f s', $times[-1] - $times[0]);
}
