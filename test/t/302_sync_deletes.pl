# What of a mirror is deleted, and what is not: by the flag of a deleted record; by a list that was read to its end and has a
# record no more, nor knows it when asked; never by a list that is cut off, empty for a moment, or hides what it has; and not
# more than a share of the rows without somebody's word.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 400, assets => 300);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 150);
$node->safe_psql('postgres', q(
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
));
my $client = Hubex::Client->new($node);
my %path = (tasks => '/WORK/Tasks', assets => '/ES/Assets');

sub subscribe
{
	my ($name, $list, %option) = @_;
	my $arguments = join '', map { ", \"$_\" => '$option{$_}'" } sort keys %option;
	$client->query("SELECT hubex_subscribe('$name', 'fsm.$list', 'public.$name', every => NULL$arguments); CALL hubex_sync('$name')");
	return;
}

# What a CALL says, and what it asks for besides lists by their pages.
sub sync
{
	my ($name, $mode) = @_;
	$sandbox->clear_journal;
	my $answer = $client->try("CALL hubex_sync('$name'" . (defined $mode ? ", '$mode'" : '') . ')');
	($answer->{deleted}) = $answer->{notices} =~ /full: .* (\d+) deleted/;
	my @journal = grep { $_->{path} ne '/AUTHZ/AccessTokens' } @{ $sandbox->journal };
	$answer->{by_list} = [ map { my @ids = map { $_->[0] eq 'taskID' ? $_->[1] : () } @{ $_->{query} }; @ids ? scalar @ids : () } @journal ];
	$answer->{singly} = grep { $_->{path} =~ m{/\d+$} } @journal;
	return $answer;
}

sub rows { return $client->query("SELECT count(*) FROM $_[0]") }
sub some { my ($name, $n, $from) = @_; return map { $_ + 0 } split /\n/, $client->query("SELECT id FROM $name ORDER BY id OFFSET " . ($from // 0) . " LIMIT $n") }
sub has { my ($name, @ids) = @_; return $client->query("SELECT count(*) FROM $name WHERE id IN (" . join(',', @ids) . ')') }
sub order { my ($list, $kind, @ids) = @_; $sandbox->orders(map { { list => $list, kind => $kind, id => $_, quietly => JSON::PP::true } } @ids); return }
sub held { return $client->query("SELECT coalesce(sweep_missing::text, '') || ' ' || sweep_confirmed FROM hubex.subscription_state WHERE subscription = '$_[0]'") }

#
# By the flag
#
{
	subscribe('tasks', 'tasks');
	my $rows = rows('tasks');
	my @ids = some('tasks', 20);
	order('tasks', 'delete', @ids);
	sync('tasks', 'incremental');
	is(has('tasks', @ids), 0, 'records that are flagged as deleted go with an incremental run, however many they are');
	is(rows('tasks'), $rows - 20, '... and no others');
	order('tasks', 'restore', @ids);
	sync('tasks', 'incremental');
	is(has('tasks', @ids), 20, '... and come back');
}

#
# What the list has no more
#
{
	my $rows = rows('tasks');
	my @ids = some('tasks', 12);
	order('tasks', 'erase', @ids);
	is(sync('tasks', 'incremental')->{error}, undef, 'records that are gone without a trace');
	is(has('tasks', @ids), 12, '... are not noticed by an incremental run');
	my $answer = sync('tasks', 'full');
	is_deeply($answer->{by_list}, [12], '... but by a full one, which asks for them, all in one request');
	is("$answer->{deleted} " . has('tasks', @ids), '12 0', '... and deletes them');
	is(rows('tasks'), $rows - 12, '... and no others');

	# a list that hides what it has
	@ids = some('tasks', 15);
	order('tasks', 'hide', @ids[ 0 .. 9 ]);
	order('tasks', 'erase', @ids[ 10 .. 14 ]);
	$sandbox->orders({ list => 'tasks', kind => 'change', id => $ids[0], fields => { notes => 'seen all the same' } });
	$answer = sync('tasks', 'full');
	is($answer->{deleted} . ' ' . has('tasks', @ids[ 0 .. 9 ]), '5 10', 'what a list hides is not deleted, if it is there when asked for');
	is($client->query("SELECT notes FROM tasks WHERE id = $ids[0]"), 'seen all the same', '... and is taken as it is');
	order('tasks', 'show', @ids[ 0 .. 9 ]);

	# more than one request can ask for
	my @many = some('tasks', 130);
	$client->query(q(UPDATE hubex.subscription SET delete_limit = 1 WHERE name = 'tasks'));
	order('tasks', 'erase', @many);
	$answer = sync('tasks', 'full');
	is_deeply($answer->{by_list}, [ 100, 30 ], '130 are asked for in two requests');
	is("$answer->{deleted} " . has('tasks', @many), '130 0', '... and deleted');
	$client->query(q(UPDATE hubex.subscription SET delete_limit = 0.1 WHERE name = 'tasks'));

	# rows that no record can have, and one written since the reading began
	$client->query(q(INSERT INTO tasks (id, notes, synced_at) VALUES (99999999999, 'ours', NULL), (-5, 'ours', '2020-01-01'), (777777, 'new', now() + '1 hour')));
	$answer = sync('tasks', 'full');
	is($answer->{error}, undef, 'an id that the API does not take is not asked for');
	is($client->query(q(SELECT string_agg(id::text, ' ') FROM tasks WHERE notes IN ('ours', 'new'))), '777777', '... and goes; what was written since the reading began stays');
	$client->query('DELETE FROM tasks WHERE id = 777777');
}

#
# Lists that are cut off, or empty for a moment
#
{
	my $rows = rows('tasks');
	for my $fault ([ 'a page that is empty', fault => 'empty', range => 'items=150-*' ], [ 'a number of records that is too low', fault => 'shrink', by => 100 ],
		[ 'a first page that is empty', fault => 'empty' ])
	{
		my ($what, %fault) = @$fault;
		$sandbox->fault(path => $path{tasks}, times => 20, %fault);
		my $answer = sync('tasks', 'full');
		$sandbox->clear_faults;
		is(rows('tasks'), $rows, "$what: nothing is deleted" . (defined $answer->{error} ? ', it is an error' : ''));
	}
	$sandbox->fault(path => $path{tasks}, range => 'items=150-*', fault => 'truncate', bytes => 10, probability => 1);
	like(sync('tasks', 'full')->{sqlstate}, qr/^08/, 'a list that breaks off is an error');
	$sandbox->clear_faults;
	is(rows('tasks'), $rows, '... and nothing is deleted');
	is(sync('tasks', 'full')->{deleted}, 0, '... nor by the next');
}

#
# Too much at once
#
{
	my $rows = rows('tasks');
	my $many = int($rows / 10) + 5;
	my @ids = some('tasks', $many);
	order('tasks', 'erase', @ids);
	my $answer = sync('tasks', 'full');
	is($answer->{error}, undef, 'more than a tenth of the rows is gone');
	like($answer->{notices}, qr/WARNING:  01000: subscription "tasks" waits for a confirmation\nDETAIL:  It would delete $many of $rows rows, which is more than delete_limit allows\.\nHINT:  If that is right, SELECT hubex_confirm_deletes\('tasks'\)\./,
		'... which is said, with what to do');
	is_deeply([ $answer->{by_list}, has('tasks', @ids), held('tasks') ], [ [], $many, "$many false" ], '... and nothing is asked or deleted');
	is(sync('tasks')->{error}, undef, '... while incremental runs go on');
	is(held('tasks'), "$many false", '... and it goes on waiting');
	order('tasks', 'delete', (some('tasks', 1, $many + 3))[0]);
	is(sync('tasks')->{error}, undef, 'what is deleted meanwhile by its flag');
	is($client->query('SELECT count(*) FROM hubex.tombstone'), 0, '... is not remembered for ever');

	is($client->query(q(SELECT hubex_confirm_deletes('tasks'))), $many, 'it is confirmed');
	is(held('tasks'), "$many true", '... on record');
	$answer = sync('tasks');
	is("$answer->{deleted} " . has('tasks', @ids), "$many 0", '... and done by the next run');
	is(scalar(grep { $_->{path} eq $path{tasks} && !grep { $_->[0] =~ /^(?:taskID|lastModifiedFrom)$/ } @{ $_->{query} } } @{ $sandbox->journal }), 0, '... which does not read the list again');
	is(held('tasks'), ' false', '... and is over');
	$answer = $client->try(q(SELECT hubex_confirm_deletes('tasks')));
	is($answer->{rows}, 0, 'there is nothing more to confirm');
	like($answer->{notices}, qr/waits for no confirmation/, '... which is said');

	# a new reading takes the place of one that waits
	@ids = some('tasks', int(rows('tasks') / 8) + 10);
	order('tasks', 'erase', @ids);
	sync('tasks', 'full');
	is(held('tasks'), scalar(@ids) . ' false', 'one waits again');
	$client->query(q(SELECT hubex_confirm_deletes('tasks'); UPDATE hubex.subscription_state SET sweep_missing = sweep_missing - 1));
	$answer = sync('tasks', 'full');
	is(has('tasks', @ids), scalar @ids, 'a confirmation is for no more rows than it was given for');
	sync('tasks', 'full');
	is(held('tasks'), scalar(@ids) . ' false', 'the next reading takes the place of one that waits');
	$client->query(q(UPDATE hubex.subscription SET delete_limit = 0.9 WHERE name = 'tasks'));
	sync('tasks', 'full');
	is(has('tasks', @ids), 0, '... and goes by what is allowed then');

	# few rows are never too many
	$client->query(q(UPDATE hubex.subscription SET delete_limit = 0 WHERE name = 'tasks'));
	@ids = some('tasks', 10);
	order('tasks', 'erase', @ids);
	is(sync('tasks', 'full')->{deleted}, 10, 'ten rows need no confirmation');
}

#
# Where the API cannot be asked for many
#
{
	subscribe('assets', 'assets');
	my @ids = some('assets', 8);
	order('assets', 'erase', @ids[ 0 .. 5 ]);
	order('assets', 'hide', @ids[ 6, 7 ]);
	my $raw = $client->query("SELECT md5(string_agg(assets::text, ',' ORDER BY id)) FROM assets WHERE id IN ($ids[6], $ids[7])");
	my $answer = sync('assets');
	is($answer->{singly}, 8, 'assets are asked for one by one');
	is("$answer->{deleted} " . has('assets', @ids[ 6, 7 ]), '6 2', '... and those that are there stay');
	is($client->query("SELECT md5(string_agg(assets::text, ',' ORDER BY id)) FROM assets WHERE id IN ($ids[6], $ids[7])"), $raw, '... as they are');
	order('assets', 'show', @ids[ 6, 7 ]);
	order('assets', 'delete', $ids[6]);
	is(sync('assets')->{deleted}, 1, 'a flag counts, too');

	$client->query(q(UPDATE hubex.subscription SET delete_limit = 1 WHERE name = 'assets'));
	@ids = some('assets', 120);
	order('assets', 'erase', @ids);
	$answer = sync('assets');
	is("$answer->{singly} $answer->{deleted}", '0 120', 'more than a hundred are not: the list is the proof');
}

#
# Other ways to delete
#
{
	subscribe('marked', 'tasks', deletes => 'mark');
	my $rows = rows('marked');
	my @ids = map { $_ + 0 } split /\n/, $client->query('SELECT id FROM marked WHERE deleted IS NULL ORDER BY id OFFSET 30 LIMIT 6');
	order('tasks', 'erase', @ids[ 0 .. 2 ]);
	order('tasks', 'delete', @ids[ 3 .. 5 ]);
	sync('marked', 'full');
	is(rows('marked'), $rows, 'rows that are to be marked stay');
	is($client->query('SELECT count(*) FROM marked WHERE deleted IS NOT NULL AND id IN (' . join(',', @ids) . ')'), 6, '... with the time');
	my $answer = sync('marked', 'full');
	is_deeply($answer->{by_list}, [], '... and are not looked for again');
	like($answer->{notices}, qr/full: 0 inserted, 0 updated, 0 deleted/, '... nor written');

	subscribe('ignored', 'tasks', deletes => 'ignore');
	$rows = rows('ignored');
	@ids = some('ignored', 6, 30);
	order('tasks', 'erase', @ids[ 0 .. 2 ]);
	order('tasks', 'delete', @ids[ 3 .. 5 ]);
	$answer = sync('ignored', 'full');
	is(rows('ignored') . " @{ $answer->{by_list} }", "$rows ", 'where deletes are ignored nothing is asked for or deleted');

	# a filter: what it does not let through any more is no part of the mirror
	subscribe('of_some', 'tasks', filter => '{"companyID": [2, 3, 5, 7, 8]}', delete_limit => 1);
	@ids = some('of_some', 3);
	$client->query(q(UPDATE of_some SET company_id = company_id));
	$sandbox->orders({ list => 'tasks', kind => 'change', id => $ids[0], fields => { companyID => 4 } });
	$answer = sync('of_some', 'incremental');
	is(has('of_some', $ids[0]), 1, 'a record that leaves what the filter lets through is not seen by an incremental run');
	$answer = sync('of_some', 'full');
	is_deeply([ $answer->{by_list}, has('of_some', $ids[0]), has('of_some', @ids) ], [ [1], 0, 2 ], '... but by a full one, which asks with the filter');

	# keys whose text is not that of the record's
	for my $type ('char(10)', 'numeric(12,2)', 'varchar(20)', 'smallint', 'text')
	{
		$client->query("CREATE TABLE odd (id $type PRIMARY KEY, name text, synced_at timestamptz); SELECT hubex_subscribe('odd', 'fsm.assets', 'public.odd', every => NULL, delete_limit => 1);
			CALL hubex_sync('odd')");
		my $rows = rows('odd');
		my ($id) = split /\n/, $client->query('SELECT trim(id::text)::numeric::int FROM odd ORDER BY 1 LIMIT 1');
		order('assets', 'erase', $id + 0);
		$answer = sync('odd', 'full');
		is($answer->{deleted} . ' ' . rows('odd'), '1 ' . ($rows - 1), "a key of type $type: what is gone is deleted, and nothing else");
		$client->query(q(SELECT hubex_unsubscribe('odd'); DROP TABLE odd));
		next if $type eq 'numeric(12,2)' || $type eq 'smallint';
		$client->query("CREATE TABLE odd (id $type PRIMARY KEY, notes text, synced_at timestamptz); SELECT hubex_subscribe('odd', 'fsm.tasks', 'public.odd', every => NULL, delete_limit => 1);
			CALL hubex_sync('odd')");
		@ids = map { $_ + 0 } split /\n/, $client->query('SELECT id FROM odd ORDER BY id LIMIT 4');
		order('tasks', 'erase', $ids[0]);
		order('tasks', 'hide', @ids[ 1 .. 3 ]);
		$answer = sync('odd', 'full');
		is_deeply([ $answer->{by_list}, $answer->{deleted} ], [ [4], 1 ], '... and it is asked for as the record has it');
		order('tasks', 'show', @ids[ 1 .. 3 ]);
		$client->query(q(SELECT hubex_unsubscribe('odd'); DROP TABLE odd));
	}

	# a trigger of the target has the last word, and is asked but once
	sync('tasks', 'full');
	$client->query(q(CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER keep BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION keep()));
	@ids = some('tasks', 5);
	order('tasks', 'erase', @ids);
	$answer = sync('tasks', 'full');
	is($answer->{error} // '', '', 'a trigger that keeps rows');
	is("$answer->{deleted} " . has('tasks', @ids), '0 5', '... keeps them, and the run ends');
}
done_testing;
