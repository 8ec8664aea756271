# Reading long lists: pages side by side, put together so that nothing is doubled or lost while the list changes, begun
# again where they break off, waited for where that helps; and all of it with the memory of one page.
#
# What was asked for is seen in the sandbox's journal, what is right in what the sandbox holds.

use strict;
use utf8;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use List::Util qw(max min);
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 1500);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 100);
add_server('alone', $sandbox->url, page_size => 100, max_connections => 1);
add_server('whole', $sandbox->url, page_size => 10000, timeout => '1s');
for my $server (qw(fsm alone whole))
{
	$node->safe_psql('postgres', qq(CREATE SCHEMA $server; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER $server INTO $server));
}
my $session = Hubex::Client->new($node);
my $ids = 'SELECT string_agg(id::text, \',\' ORDER BY id) FROM (SELECT id FROM %s.tasks) t';

sub add_server
{
	my ($name, $url, %option) = @_;
	%option = (connector => 'hubex', url => $url, rate_limit => 'none', %option);
	my $options = join ', ', map { "$_ '$option{$_}'" } sort keys %option;
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (service_token 'sandbox-service-token');});
}

# the same after each reset: oldest first
my (@alive, @gone);
for my $task (sort { $a->{created} cmp $b->{created} || $a->{id} <=> $b->{id} } @{ $sandbox->tasks })
{
	push @{ $task->{deleted} ? \@gone : \@alive }, $task->{id};
}
my $expected = join ',', sort { $a <=> $b } @alive;

# The pages asked for since the journal was emptied: [from, till], in order of their arrival.
sub pages
{
	return map { [ $_->{headers}{range} =~ /^items=(\d+)-(\d+)$/ ] }
	  grep { $_->{method} eq 'GET' && $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal };
}

# What the journal and the rows of a reading say, from an empty journal.
sub reading
{
	my ($sql, $who) = @_;
	$sandbox->clear_journal;
	my $answer = ($who // $session)->try($sql);
	$answer->{pages} = [ pages() ];
	$answer->{most} = max 0, map { $_->{in_flight} } grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal };
	return $answer;
}

sub fault { return $sandbox->fault(method => 'GET', path => '/WORK/Tasks', @_) }

#
# Side by side
#
{
	my $pages = 1 + int((@alive - 100 + 98) / 99);
	fault(fault => 'delay', seconds => 0.3, probability => 1);

	my $answer = reading(sprintf $ids, 'fsm');
	is($answer->{rows}, $expected, 'all tasks of many pages, each once');
	is(scalar @{ $answer->{pages} }, $pages, 'in no more pages than it takes');
	cmp_ok($answer->{most}, '>=', min($pages - 1, 8), 'pages are asked for side by side');
	cmp_ok($answer->{most}, '<=', 16, '... over no more connections than allowed');
	my $took = $answer->{took};
	my @sorted = sort { $a->[0] <=> $b->[0] } @{ $answer->{pages} };
	is_deeply([ map { $sorted[$_][0] } 1 .. $#sorted ], [ map { $sorted[ $_ - 1 ][1] } 1 .. $#sorted ],
		'each page begins with the last record of the one before');

	$answer = reading(sprintf $ids, 'alone');
	is($answer->{rows}, $expected, 'the same with one connection');
	is($answer->{most}, 1, '... which is one');
	is(scalar @{ $answer->{pages} }, $pages, '... and as many pages');
	cmp_ok($took, '<', $answer->{took} * 0.6, '... which takes much longer');
	note sprintf '%d pages: %.2f s side by side, %.2f s one after another', $pages, $took, $answer->{took};
	$sandbox->clear_faults;

	# who does not read to the end asks for nothing ahead
	$sandbox->clear_journal;
	$session->query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks; FETCH 10 FROM c');
	is(scalar(pages()), 1, 'a cursor asks for the page it needs');
	$session->query('FETCH 100 FROM c');
	is(scalar(pages()), 2, '... and for the next when it needs that');
	$session->query('COMMIT');

	# several lists
	my @many = map { $alive[ $_ * 3 ] } 0 .. 299;
	$sandbox->clear_journal;
	fault(fault => 'delay', seconds => 0.15, probability => 1);
	is($session->query('SELECT count(*) FROM (SELECT * FROM fsm.tasks WHERE id IN (' . join(', ', @many) . ') OFFSET 0) t'), 300, '300 keys');
	is(scalar(pages()), 3, '... in three requests');
	is($sandbox->summary->{max_in_flight}, 3, '... side by side');
	$sandbox->clear_faults;
}

#
# A list that changes while it is read
#
sub changing
{
	my ($what, $server, %change) = @_;
	$sandbox->reset;
	$sandbox->expire_tokens;
	my @delete = @alive[ @{ $change{delete} } ];
	my %stay = map { $_ => 1 } @alive;
	delete @stay{@delete};
	fault(range => "items=$change{page}-*", fault => 'mutate', delete => \@delete, create => $change{create} // 0);

	my $answer = reading("SELECT string_agg(id::text, ',') FROM (SELECT id FROM $server.tasks) t");
	my %given;
	$given{$_}++ for split /,/, $answer->{rows};
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!defined $answer->{error}, "$what: no error") or diag $answer->{error};
	is(scalar(grep { !$given{$_} } keys %stay), 0, '... no task is lost that was there all the time');
	is(scalar(grep { $_ > 1 } values %given), 0, '... and none comes twice');
	cmp_ok(scalar(@{ $answer->{pages} }), '<=', 16 + ($change{more} // 0), '... and no page is read again for nothing') or diag join ' ', map { "$_->[0]-$_->[1]" } @{ $answer->{pages} };
	$sandbox->clear_faults;
	return;
}

for my $server (qw(alone fsm))
{
	my $more = $server eq 'fsm' ? 16 : 1;
	changing("$server: one task goes, others come", $server, page => 397, delete => [ 5 ], create => 3, more => 3 + $more);
	changing("$server: 40 tasks go that were read", $server, page => 397, delete => [ 10 .. 49 ], more => $more);
	changing("$server: the page before goes", $server, page => 397, delete => [ 290 .. 396 ], more => $more + 3);
	changing("$server: all goes that was read", $server, page => 199, delete => [ 0 .. 198 ], more => $more + 3);
	changing("$server: nearly all goes, and the page asked for is no more", $server,
		page => 496, delete => [ 250 .. 470, 472 .. 1200 ], more => $more);
}

# what cannot be found again is an error
{
	$sandbox->reset;
	fault(range => 'items=595-*', fault => 'mutate', delete => [ @alive[ 20 .. 700 ] ]);
	is($session->try(sprintf $ids, 'alone')->{sqlstate}, '40001', 'a list that loses all that was read last');
	$sandbox->clear_faults;
}

# what comes back stands in front of what was read
{
	$sandbox->reset;
	my %given;
	$session->query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks');
	$given{$_}++ for split /\n/, $session->query('FETCH 250 FROM c');
	$session->query("SELECT hubex_request('PUT', '/WORK/Tasks/restore', '[$gone[0], $gone[1], $gone[2]]', server => 'fsm')");
	$given{$_}++ for split /\n/, $session->query('FETCH ALL FROM c');
	$session->query('COMMIT');
	is(scalar(grep { !$given{$_} } @alive), 0, 'tasks come back while a cursor is open: none is lost');
	is(scalar(grep { $_ > 1 } values %given), 0, '... and none comes twice');
}

#
# Pages that are not what was asked for
#
{
	$sandbox->reset;
	$session->query('SELECT id FROM fsm.tasks LIMIT 1');
	$sandbox->config(page_limit => 70);
	my $answer = reading(sprintf $ids, 'fsm');
	is($answer->{rows}, $expected, 'an API that gives shorter pages than asked for');
	is(scalar(grep { $_->[1] - $_->[0] >= 70 } @{ $answer->{pages} }), 1, '... is asked for longer ones once');

	$sandbox->config(page_limit => 0);
	$session->query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks');
	my @rows = split /\n/, $session->query('FETCH 150 FROM c');
	$sandbox->config(page_limit => 60);
	push @rows, split /\n/, $session->query('FETCH ALL FROM c');
	$session->query('COMMIT');
	is(join(',', sort { $a <=> $b } @rows), $expected, '... also where it begins to in the middle');
	$sandbox->config(page_limit => 0);

	for my $server (qw(alone fsm))
	{
		for my $by (700, 100000)
		{
			fault(after => 1, fault => 'shrink', by => $by, times => 1000);
			is(reading(sprintf $ids, $server)->{rows}, $expected, "$server: a total that falls by $by is no end of the list");
			$sandbox->clear_faults;
		}
	}

	fault(range => 'items=199-*', fault => 'empty');
	is($session->try(sprintf $ids, 'alone')->{sqlstate}, '08P01', 'a page of nothing of a list of many is an error');
	$sandbox->clear_faults;

	fault(fault => 'no_content_range', times => 100);
	$answer = reading(sprintf $ids, 'fsm');
	is($answer->{rows}, $expected, 'a list that is too short to be cut comes without pages');
	is(scalar @{ $answer->{pages} }, 1, '... at once');
	$sandbox->clear_faults;

	fault(range => 'items=199-*', fault => 'no_content_range');
	$answer = $session->try(sprintf $ids, 'alone');
	is($answer->{sqlstate}, '08P01', 'but a page that may be cut is an error');
	like($answer->{detail}, qr/no Content-Range/, '... and says why');
	$sandbox->clear_faults;
}

#
# What breaks off is begun again
#
{
	for my $server (qw(alone fsm))
	{
		fault(range => 'items=199-*', fault => 'truncate');
		my $answer = reading(sprintf $ids, $server);
		is($answer->{rows}, $expected, "$server: a page that is cut off goes on");
		my @again = grep { $_->[0] > 199 && $_->[0] < 298 } @{ $answer->{pages} };
		is(scalar @again, 1, '... is asked for again, from where it was cut') or diag explain $answer->{pages};
		$sandbox->clear_faults;
	}
	for my $fault ([ fault => 'status', status => 502 ], [ fault => 'drop_after' ])
	{
		fault(@$fault, range => "items=$_-*") for 1, 298, 892;
		is(reading(sprintf $ids, 'fsm')->{rows}, $expected, "@$fault of some pages");
		$sandbox->clear_faults;
	}

	fault(fault => 'status', status => 500, probability => 1);
	my $answer = reading(sprintf $ids, 'fsm');
	is($answer->{sqlstate}, 'HV00M', 'a page that always fails is an error');
	is(scalar @{ $answer->{pages} }, 3, '... after three attempts');
	$sandbox->clear_faults;

	fault(fault => 'status', status => 403, probability => 1);
	$answer = reading(sprintf $ids, 'fsm');
	is("$answer->{sqlstate} " . @{ $answer->{pages} }, '42501 1', 'what will not pass is not repeated');
	$sandbox->clear_faults;

	# the token
	for my $server (qw(alone fsm))
	{
		my $tokens = $sandbox->tokens;
		fault(fault => 'expire', after => 4);
		is(reading(sprintf $ids, $server)->{rows}, $expected, "$server: the token ends in the middle of the list");
		is($sandbox->tokens - $tokens, 1, '... and is renewed once');
		$sandbox->clear_faults;
	}

	# pages that failed are not left until it is their turn
	fault(fault => 'delay', seconds => 0.15, probability => 1);
	fault(range => "items=$_-*", fault => 'status', status => 401) for map { 1 + 99 * $_ } 2 .. 9;
	$answer = reading(sprintf $ids, 'fsm');
	is($answer->{rows}, $expected, 'pages asked for side by side and refused');
	my @again = map { $_->{in_flight} } grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal };
	cmp_ok(max(@again[ -4 .. -1 ]), '>=', 3, '... are asked for again side by side') or diag "@again";
	$sandbox->clear_faults;

	# a count
	$sandbox->fault(method => 'HEAD', fault => 'status', status => 502);
	$sandbox->clear_journal;
	is($session->query('SELECT count(*) FROM fsm.tasks'), scalar @alive, 'a count that fails at first');
	is(join(' ', map { $_->{method} } @{ $sandbox->journal }), 'HEAD HEAD', '... is asked for again');

	# the quota of the remote side
	fault(range => 'items=199-*', fault => 'throttle', retry_after => 1);
	$answer = reading(sprintf $ids, 'alone');
	is($answer->{rows}, $expected, '429 is waited for');
	cmp_ok($answer->{took}, '>=', 1, '... as long as it asks for');
	$sandbox->clear_faults;
	fault(range => 'items=199-*', fault => 'throttle', retry_after => 600);
	$answer = reading(sprintf $ids, 'alone');
	is($answer->{sqlstate}, '53000', '... unless that is too long');
	cmp_ok($answer->{took}, '<', 1, '... which is told at once');
	$sandbox->clear_faults;

	# our own
	add_server('slow', $sandbox->url =~ s/127\.0\.0\.1/localhost/r, page_size => 400, rate_limit => '5/s');
	$session->query('CREATE SCHEMA slow; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER slow INTO slow');
	$session->query('SELECT id FROM slow.tasks LIMIT 1');
	is(reading(sprintf $ids, 'slow')->{rows}, $expected, 'pages wait for the quota');

	# what a query may cost
	$session->query('SET hubex.max_requests_per_query = 5');
	$answer = reading(sprintf $ids, 'fsm');
	is($answer->{sqlstate}, '53400', 'a query that needs too many requests');
	is(scalar @{ $answer->{pages} }, 1, '... is told after the first');
	$session->query('RESET hubex.max_requests_per_query');
}

#
# Slow is not the same as silent
#
{
	$sandbox->clear_journal;
	$session->query('BEGIN; DECLARE c CURSOR FOR SELECT id, raw FROM whole.tasks');
	$session->query('FETCH 10 FROM c');
	$session->query('SELECT pg_sleep(2.5)');
	my $rows = 10 + (() = $session->query('FETCH ALL FROM c') =~ /^\d+\|/mg);
	$session->query('COMMIT');
	is($rows, scalar @alive, 'a cursor that is fetched from later than the timeout');
	is(scalar(pages()), 1, '... goes on where it was');

	fault(fault => 'slow_body', bytes => 200_000, seconds => 0.3);
	my $answer = reading(sprintf $ids, 'whole');
	is($answer->{rows}, $expected, 'a page that comes slowly');
	cmp_ok($answer->{took}, '>', 1.5, '... takes its time');
	$sandbox->clear_faults;

	for my $case ([ 'body', fault => 'slow_body', bytes => 100_000, seconds => 30 ], [ 'answer', fault => 'hang' ])
	{
		my ($stage, @fault) = @$case;
		fault(@fault);
		$answer = $session->try(sprintf $ids, 'whole');
		is($answer->{sqlstate}, '08006', "what says nothing any more ($stage) is an error");
		like($answer->{detail}, qr/step was "$stage".*nothing came for 1000 ms/, '... and says where it was');
		cmp_ok($answer->{took}, '<', 5, '... after the timeout');
		$sandbox->clear_faults;
	}

	# rows are given while the page comes
	fault(fault => 'slow_body', bytes => 100_000, seconds => 2);
	$session->query('BEGIN; DECLARE c CURSOR FOR SELECT id FROM whole.tasks');
	$answer = $session->try('FETCH 10 FROM c');
	cmp_ok($answer->{took}, '<', 2, 'the first rows are there before the page is');
	$session->query('ROLLBACK');
	$sandbox->clear_faults;
}

#
# Two readings of one connection
#
{
	add_server('single', $sandbox->url, page_size => 10000, max_connections => 1);
	$session->query('CREATE SCHEMA single; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER single INTO single');
	$session->query('BEGIN; DECLARE a CURSOR FOR SELECT id, raw FROM single.tasks; DECLARE b CURSOR FOR SELECT id, raw FROM single.tasks');
	my %rows;
	for my $fetch (1, 1, 'ALL')
	{
		$rows{$_} += (() = $session->query("FETCH $fetch FROM $_", 20) =~ /^\d+\|/mg) for qw(a b);
	}
	is_deeply(\%rows, { a => scalar @alive, b => scalar @alive }, 'two cursors take turns on one connection');
	$session->query('COMMIT');
}

#
# Secrets
#
{
	fault(fault => 'status', status => 206, headers => { 'Content-Range' => 'items=1-1/1' },
		body => { 7 => { number => 'x', notes => 'you said sandbox-service-token', taskType => { id => 1, name => 'y' } } });
	is($session->query('SELECT notes FROM fsm.tasks'), 'you said ' . '*' x length 'sandbox-service-token',
		'a secret that an answer repeats is not shown');
	$sandbox->clear_faults;
}

#
# Cancelled: at once, and nothing is left behind
#
{
	my %hang = map { $_ => Hubex::Sandbox->hang($_) } qw(connect tls headers body);
	add_server("at_$_", $hang{$_}->url, page_size => 100) for sort keys %hang;
	my $watch = Hubex::Client->new($node);
	my @cases = ((map { "SELECT * FROM hubex_tasks(server => 'at_$_')" } sort keys %hang), sprintf($ids, 'fsm'), sprintf($ids, 'whole'));
	my $before;
	my @times;
	fault(range => 'items=100-*', fault => 'hang', probability => 1);
	fault(range => 'items=1-10000', fault => 'slow_body', bytes => 300_000, seconds => 30, probability => 1);
	for my $n (0 .. 102)
	{
		$session->query("SET statement_timeout = '80 ms'");
		my $answer = $session->try($cases[ $n % @cases ]);
		die explain $answer if ($answer->{sqlstate} // '') ne '57014';
		push @times, $answer->{took} - 0.08;
		$before = descriptors($session) if $n == 20;
	}
	$session->query('RESET statement_timeout');
	$sandbox->clear_faults;
	@times = sort { $a <=> $b } @times;
	cmp_ok($times[ $#times / 2 ], '<', 0.1, 'a reading is cancelled within 100 ms');
	cmp_ok($times[ $#times * 0.95 ], '<', 0.25, '... nearly always');
	# a connection that is kept, or a file of PostgreSQL's own, may be open now and was not then; a leak would leave more
	cmp_ok(descriptors($session), '<=', $before + 4, 'no descriptor is left of a hundred cancelled readings');
	is($session->query(sprintf $ids, 'fsm'), $expected, 'and the session reads on');
	note sprintf 'cancelled after %.1f ms, at most %.1f ms', map { 1000 * $_ } $times[ $#times / 2 ], $times[-1];
}

sub descriptors { return scalar(() = glob '/proc/' . $_[0]->pid . '/fd/*') }

#
# Memory
#
{
	my $large = Hubex::Sandbox->new(tasks => 20000);
	add_server('large', $large->url, page_size => 1000);
	add_server('larger', $large->url, page_size => 10000);
	for my $server (qw(large larger))
	{
		my $reader = Hubex::Client->new($node);
		$reader->query("CREATE SCHEMA $server; IMPORT FOREIGN SCHEMA \"WORK\" LIMIT TO (tasks) FROM SERVER $server INTO $server");
		$reader->query("SELECT count(notes) FROM (SELECT notes FROM $server.tasks LIMIT 100) t");
		my $before = peak($reader);
		my $since = time;
		my $rows = $reader->query("SELECT count(notes), sum(length(raw::text)) FROM $server.tasks");
		my $grown = (peak($reader) - $before) / 1024;
		cmp_ok($grown, '<', 40, "$server: memory stays flat") or diag $rows;
		note sprintf '%s: %s read in %.2f s, memory grew by %.1f MB', $server, $rows, time - $since, $grown;
	}
}

# Kilobytes of memory that a session ever had.
sub peak
{
	my ($who) = @_;
	open my $status, '<', '/proc/' . $who->pid . '/status' or die "$!";
	my ($peak) = join('', <$status>) =~ /^RssAnon:\s+(\d+)/m;
	return $peak;
}

done_testing;
