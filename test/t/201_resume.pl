# Reading that goes on where an earlier reader ended: by a position, and by the keys of the records that one gave last.
# However the list has changed in between, no record that was there all the time is lost, and none comes twice as long as
# one of those keys is still there.
#
# What was asked for is seen in the sandbox's journal, what is right in what the sandbox holds.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Module;
use Hubex::Node;
use Hubex::Sandbox;
use List::Util qw(max min shuffle);
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 1000);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 50);
Hubex::Module->install($node);
my %page = (fsm => 50, long => 300, whole => 10000);
for my $server (grep { $_ ne 'fsm' } keys %page)
{
	$node->start_hubex($sandbox, server => $server, page_size => $page{$server});
}
my $session = Hubex::Client->new($node);
my $seed = $ENV{HUBEX_SEED} // int rand 1_000_000;
srand $seed;
note "HUBEX_SEED=$seed";

# the same after each reset: oldest first
my (@alive, @gone);
for my $task (sort { $a->{created} cmp $b->{created} || $a->{id} <=> $b->{id} } @{ $sandbox->tasks })
{
	push @{ $task->{deleted} ? \@gone : \@alive }, $task->{id};
}

# The pages asked for since the journal was emptied: [from, till], in order of their arrival.
sub pages
{
	return map { [ $_->{headers}{range} =~ /^items=(\d+)-(\d+)$/ ] }
	  grep { $_->{method} eq 'GET' && $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal };
}

sub fault { return $sandbox->fault(method => 'GET', path => '/WORK/Tasks', @_) }

sub literal { return "'{" . join(',', @_) . "}'" }

# Reads tasks: their ids, the place of the last one, and whether the list came to its end.
sub reading
{
	my ($server, %option) = @_;
	my $arguments = join ', ', map { "$_ => $option{$_}" } sort keys %option;
	my $answer = $session->try("SELECT key, place FROM hubex_test_read('$server', 'tasks', $arguments)");
	die "$answer->{error}\n" if defined $answer->{error};
	my @rows = map { [ split /\|/, $_, -1 ] } split /\n/, $answer->{rows};
	my $ended = @rows && $rows[-1][0] eq '' && pop @rows;
	return { keys => [ map { $_->[0] } @rows ], place => @rows ? $rows[-1][1] : 0, ended => $ended ? 1 : 0 };
}

# Reads so many tasks, then changes the list, then reads the rest. Returns what was given, in both.
sub resuming
{
	my ($server, $count, %change) = @_;
	$sandbox->reset;
	$sandbox->expire_tokens;
	$sandbox->clear_faults;
	my $first = reading($server, stop => $count, ahead => $change{ahead} ? 'true' : 'false');
	my @known = @{ $first->{keys} }[ max(0, $count - ($change{known} // 10)) .. $count - 1 ];

	$session->query("SELECT hubex_request('PUT', '/WORK/Tasks/restore', '[" . join(',', @{ $change{restore} }) . "]', server => '$server')")
	  if @{ $change{restore} // [] };
	fault(fault => 'mutate', delete => $change{delete} // [], create => $change{create} // 0)
	  if @{ $change{delete} // [] } || $change{create};
	$sandbox->clear_journal;
	my $second = reading($server, skip => $first->{place}, known => literal(@known), ahead => $change{ahead} ? 'true' : 'false');
	$sandbox->clear_faults;
	my %gone = map { $_ => 1 } @{ $change{delete} // [] };
	return { first => $first, second => $second, known => \@known, pages => [ pages() ],
		stay => [ grep { !$gone{$_} } @alive ], lost_known => !grep { !$gone{$_} } @known };
}

# Says of such a reading what is wrong with it; the empty text: nothing.
sub some { return @_ > 20 ? "@_[0 .. 9] ... (" . @_ . ')' : "@_" }

sub wrong
{
	my ($read) = @_;
	my %given;
	$given{$_}++ for @{ $read->{first}{keys} }, @{ $read->{second}{keys} };
	my %second;
	$second{$_}++ for @{ $read->{second}{keys} };
	my @lost = grep { !$given{$_} } @{ $read->{stay} };
	my @twice = grep { $read->{lost_known} ? ($second{$_} // 0) > 1 : $given{$_} > 1 } keys %given;
	my @wrong;
	push @wrong, "lost: " . some(@lost) if @lost;
	push @wrong, "twice: " . some(@twice) if @twice;
	push @wrong, 'it has no end' unless $read->{second}{ended};
	return join '; ', @wrong;
}

#
# A list that stays as it is
#
for my $server (sort keys %page)
{
	my $size = $page{$server};
	my $overlap = max 1, min 10, int($size / 100);
	for my $count (1, 250, scalar @alive)
	{
		my $read = resuming($server, $count);
		is($read->{first}{place}, $count, "$server: after $count records the place is theirs");
		is(wrong($read), '', '... and the rest is given behind it, once');
		is($read->{pages}[0][0], $count - min($count, $overlap) + 1, '... from some records before');
		my $rest = @alive - $count;
		is(scalar @{ $read->{pages} }, max(2, 1 + int(($rest + min($count, $overlap) - $overlap - 1) / ($size - $overlap))),
			'... in no more pages than it takes, two at least: that the first is the last one has to be said twice');
		is($read->{second}{place}, $rest ? scalar @alive : 0, '... up to its end');
	}
}

#
# A list that has changed
#
sub changed
{
	my ($what, $server, $count, %change) = @_;
	my $most = delete $change{pages};
	my $read = resuming($server, $count, %change);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(wrong($read), '', "$server: $what");
	my $size = $page{$server};
	my $needed = max 2, 1 + int(@{ $read->{second}{keys} } / ($size - max 1, min 10, int($size / 100)));
	cmp_ok(scalar @{ $read->{pages} }, '<=', $needed + $most, "... with $most pages more than it takes") or diag join ' ', map { "$_->[0]-$_->[1]" } @{ $read->{pages} }
	  if defined $most;
	return $read;
}

for my $server (qw(fsm long))
{
	my $size = $page{$server};
	my $n = 2 * $size + 37;
	changed('records were added behind it', $server, $n, create => 7, pages => 0);
	changed('records were deleted behind it', $server, $n, delete => [ @alive[ $n .. $n + 20 ] ], pages => 0);
	changed('records came back before it', $server, $n, restore => [ @gone[ 0 .. 9 ] ], pages => 0);
	changed('a few were deleted before it', $server, $n, delete => [ @alive[ 3 .. 5 ] ], pages => 2);
	changed('more than the overlap were deleted before it', $server, $n, delete => [ @alive[ 20 .. 49 ] ], pages => 2);
	changed('a page was deleted before it', $server, $n, delete => [ @alive[ 20 .. 20 + $size ] ], pages => 5);
	changed('nearly all was deleted before it', $server, $n, delete => [ @alive[ 0 .. $n - 8 ] ]);
	changed('half of those given last were deleted', $server, $n, delete => [ @alive[ $n - 5 .. $n - 1 ] ], pages => 2);
	changed('all of those given last but the first', $server, $n, delete => [ @alive[ $n - 9 .. $n - 1 ] ], pages => 2);
	changed('the list ends before the place now', $server, $n, delete => [ @alive[ 0 .. $n - 60, $n + 1 .. $#alive ] ]);
	changed('nothing is behind it any more', $server, $n, delete => [ @alive[ $n .. $#alive ] ], pages => 0);

	my $read = changed('all of those given last were deleted', $server, $n, delete => [ @alive[ $n - 10 .. $n - 1 ] ]);
	ok($read->{lost_known} && $read->{second}{keys}[0] == $alive[0], '... so it is read from its start');
	changed('all that was given was deleted', $server, $n, delete => [ @alive[ 0 .. $n - 1 ] ]);
	$read = changed('everything was deleted', $server, $n, delete => [@alive]);
	is(scalar @{ $read->{second}{keys} }, 0, '... and nothing comes');
	changed('with pages side by side', $server, $n, ahead => 1, delete => [ @alive[ 3 .. 33, $n + 40 .. $n + 60 ] ], create => 5);
	changed('known is the last one only', $server, $n, known => 1, delete => [ @alive[ 3 .. 33 ] ]);
}

# whatever happens, wherever
subtest 'changes left to chance' => sub {
	my ($anew, $again) = (0, 0);
	for my $n (1 .. $ENV{HUBEX_SEEDS} // 60)
	{
		my $server = (qw(fsm fsm long whole))[ rand 4 ];
		my $count = 1 + int rand @alive;
		my %delete;
		for (1 .. rand 4)
		{
			# near the place, or anywhere
			my $at = rand() < 0.5 ? $count - int rand 30 : int rand @alive;
			$delete{$_} = 1 for grep { $_ >= 0 && $_ < @alive } $at .. $at + int rand((10, 50, 300)[ rand 3 ]);
		}
		my %change = (
			delete => [ @alive[ sort { $a <=> $b } keys %delete ] ],
			restore => [ rand() < 0.5 ? () : (shuffle @gone)[ 0 .. rand(@gone) - 1 ] ],
			create => int rand 4,
			known => 1 + int rand 10,
			ahead => int rand 2);
		my $read = resuming($server, $count, %change);
		is(wrong($read), '', "$n: $server, $count, deleted " . keys(%delete) . ', restored ' . @{ $change{restore} });
		$anew += $read->{lost_known};
		$again += grep { $_->[0] < $count - 10 } @{ $read->{pages} };
	}
	note "$anew times nothing that was known was left, and $again pages were read again";
};

#
# Lists whose pages say nothing
#
{
	# all at once, and in no order that is known
	$sandbox->reset;
	reading('fsm', stop => 1);
	fault(fault => 'no_content_range');
	my $read = reading('fsm', skip => 300, known => literal(@alive[ 290 .. 299 ]));
	is(some(@{ $read->{keys} }), some(@alive), 'a list that comes without pages is given from its start');
	is($read->{place}, scalar @alive, '... and the place is that of its last record');

	# a total that is lower for once
	fault(fault => 'shrink', by => 100000, times => 1);
	$read = reading('fsm', skip => 300, known => literal(@alive[ 290 .. 299 ]));
	is(some(@{ $read->{keys} }), some(@alive[ 300 .. $#alive ]), 'a total that is too low ends nothing');
	$sandbox->clear_faults;

	# nothing, where a reader has been
	for my $answer ([ status => 206, headers => { 'Content-Range' => 'items=0-0/0' }, body => {} ], [ status => 204 ])
	{
		$sandbox->clear_journal;
		fault(fault => 'status', @$answer);
		my $try = $session->try("SELECT count(key) FROM hubex_test_read('fsm', 'tasks', skip => 300, known => " . literal(@alive[ 290 .. 299 ]) . ')');
		is($try->{sqlstate} // $try->{rows}, $answer->[1] == 204 ? '08P01' : scalar @alive,
			"an answer of nothing ($answer->[1]) to one page is no empty list");
		$sandbox->clear_faults;
	}
}

#
# Lists of other kinds: by key with no content where it is empty, an array of records with ids
#
for my $resource (qw(contacts task_stage_links tenant_members issues))
{
	my @all = split /\n/, $session->query("SELECT key FROM hubex_test_read('fsm', '$resource') WHERE key IS NOT NULL");
	cmp_ok(scalar @all, '>', 5, "$resource has records: " . @all);
	my $resume = sub {
		return $session->query("SELECT string_agg(key, ',') FROM hubex_test_read('fsm', '$resource', skip => 4, known => " . literal(@all[ 0 .. 3 ]) . ')');
	};
	is($resume->(), join(',', @all[ 4 .. $#all ]), '... of which the rest is given');
	$sandbox->fault(method => 'GET', path => '*', fault => 'status', status => 204);
	is($resume->(), join(',', @all[ 4 .. $#all ]), '... also where it says for once that there is nothing');
	$sandbox->fault(method => 'GET', path => '*', fault => 'status', status => 204, probability => 1);
	is($resume->(), '', '... but not if it always does');
	$sandbox->clear_faults;
}

#
# When it was asked
#
{
	$sandbox->clear_journal;
	fault(range => 'items=50-*', fault => 'status', status => 502);
	fault(range => 'items=99-*', fault => 'delay', seconds => 0.4);
	my %asked = map { split /\|/ } split /\n/,
	  $session->query(q(SELECT place, extract(epoch FROM asked_at) FROM hubex_test_read('fsm', 'tasks', stop => 120) WHERE place IN (1, 50, 51, 99, 100)));
	my %sent;
	push @{ $sent{ $_->{headers}{range} } }, $_->{time}
	  for grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal };
	my @failed = @{ $sent{'items=50-99'} };
	is(scalar @failed, 2, 'a page that failed was asked for again');
	cmp_ok($asked{51}, '>', $failed[0], 'a record was asked for by the request that brought it');
	cmp_ok($asked{51}, '<=', $failed[1], '... before that arrived');
	is($asked{51}, $asked{99}, 'all records of a page were asked for at once');
	cmp_ok($asked{100}, '<=', $sent{'items=99-148'}[0], 'what comes late was asked for early');
	cmp_ok($asked{50}, '<', $asked{51}, '... and each page on its own');
	$sandbox->clear_faults;
}

#
# How many there are
#
{
	my $total = sub { return $session->query("SELECT list_total FROM hubex_test_read('fsm', 'tasks', $_[0]) WHERE key IS NULL") };
	is($total->('most => 30'), scalar @alive, 'the total is known at the end of what was wanted');
	is($total->('most => 30, total => true'), scalar @alive, '... also where that is asked for');
	is($total->('most => 50, total => true'), scalar @alive, '... which a page ends with');
	is($total->('most => 3000, total => true'), scalar @alive, '... and where all is less than was wanted');
	fault(fault => 'no_content_range', times => 2);
	is($total->('most => 30, total => true'), scalar @alive, 'a list that comes at once is counted to its end');
	is($total->('most => 30'), -1, '... if that is wanted');
	$sandbox->clear_faults;
	$sandbox->clear_journal;
	is($session->query(q(SELECT count(key) FROM hubex_test_read('fsm', 'tasks', most => 50, total => true))), 50, 'one page of records');
	is(scalar(pages()), 1, '... is one request');
}

#
# The quota of the remote side
#
{
	fault(fault => 'throttle', retry_after => 1, times => 4);
	is($session->query(q(SELECT count(key) FROM hubex_test_read('whole', 'tasks'))), scalar @alive, 'what nobody waits for waits for the quota');
	fault(fault => 'throttle', retry_after => 1, times => 4);
	is($session->try(q(SELECT count(key) FROM hubex_test_read('whole', 'tasks', priority => 'interactive')))->{sqlstate}, '53000',
		'... and what somebody waits for is given up at some time');
	$sandbox->clear_faults;
}

done_testing;
