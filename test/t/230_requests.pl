# Requests: how many each shape of query makes, beside the least that the API permits, and what they are.
#
# The sandbox's journal counts. What was found stands in docs/requests.md, which this test writes when HUBEX_WRITE is
# set (HUBEX_WRITE=1 make check TESTS=230) and otherwise holds against what it finds. Rows are compared with those of a
# local copy.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use List::Util qw(uniq);
use Test::More;

my $document = 'docs/requests.md';
my $sandbox = Hubex::Sandbox->new(tasks => 29_400, assets => 1_500);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);

make_tables();
my $alive = $node->safe_psql('postgres', 'SELECT count(*) FROM copy.tasks');
is($alive, 29_400 * 17 / 20, 'the copy is whole');
my @ids = split /\n/, $node->safe_psql('postgres', 'SELECT id FROM erp.keys ORDER BY id');
my @talked = split /\n/, $node->safe_psql('postgres', 'SELECT id FROM erp.talks ORDER BY id');

# What stands for a value in a query: how the document shows it, and what is sent.
my %value = (
	':three' => [ join(', ', @ids[ 0 .. 2 ]) ],
	':many' => [ "$ids[0], $ids[1], … $ids[299]", join ', ', @ids ],
	':array' => [ "'{$ids[0],$ids[1],…,$ids[299]}'", "'{" . join(',', @ids) . "}'" ],
	':talked' => [ join(', ', @talked) ],
	':one_talked' => [ $talked[0] ],
	':id' => [ $ids[20] ],
	':erp_ids' => [ $node->safe_psql('postgres', "SELECT string_agg(quote_literal(erp_id), ', ' ORDER BY id) FROM erp.orders WHERE id < 4") ],
	':erp_id' => [ $node->safe_psql('postgres', 'SELECT quote_literal(erp_id) FROM erp.orders WHERE id = 7') ],
	':number' => [ $node->safe_psql('postgres', "SELECT quote_literal(number) FROM copy.tasks WHERE id = $ids[20]") ]);

# what, SQL, the least, and where there are more: why
my @shapes = (
	'Numbers',
	[ 'count(*)', 'SELECT count(*) FROM fsm.tasks', 1 ],
	[ 'count(*), filtered', 'SELECT count(*) FROM fsm.tasks WHERE task_type_id = 3 AND NOT is_closed', 1 ],
	[ 'count(*) of what HEAD cannot count', "SELECT count(*) FROM fsm.tasks WHERE last_modified >= '2025-07-20' AND last_modified < '2025-07-21'", 1 ],
	[ 'count(*) by what the API cannot filter', "SELECT count(*) FROM fsm.tasks WHERE task_type_id = 3 AND notes LIKE '%ТО%'", 1 ],
	[ 'count(*) of assets, deleted ones too', 'SELECT count(*) FROM fsm.all_assets', 1 ],
	[ 'count(*) of assets', 'SELECT count(*) FROM fsm.assets', 1 ],
	[ 'numbers by column', 'SELECT task_type_id, count(*) FROM fsm.tasks GROUP BY 1', 3 ],
	[ 'is there one?', 'SELECT EXISTS (SELECT FROM fsm.tasks WHERE company_id = 5)', 1 ],
	[ 'the latest', 'SELECT max(created) FROM fsm.tasks', 1 ],

	'One record, several records',
	[ 'by id', 'SELECT number, notes FROM fsm.tasks WHERE id = :id', 1 ],
	[ 'by erp_id', 'SELECT id, number FROM fsm.tasks WHERE erp_id = :erp_id', 1 ],
	[ 'by number', 'SELECT id FROM fsm.tasks WHERE number = :number', 1 ],
	[ 'by 3 ids', 'SELECT id, number FROM fsm.tasks WHERE id IN (:three)', 1 ],
	[ 'by 300 ids', 'SELECT id, number FROM fsm.tasks WHERE id IN (:many)', 3 ],
	[ 'by 3 erp_ids', "SELECT id, number FROM fsm.tasks WHERE erp_id IN (:erp_ids)", 3 ],
	[ 'by an array of 300 ids', 'PREPARE p(bigint[]) AS SELECT id, number FROM fsm.tasks WHERE id = ANY ($1); EXECUTE p(:array)', 3 ],
	[ 'by id, prepared, a generic plan', 'SET plan_cache_mode = force_generic_plan; PREPARE p(bigint) AS SELECT number FROM fsm.tasks WHERE id = $1; EXECUTE p(:id)', 1 ],
	[ 'asset by id', 'SELECT name, serial_number FROM fsm.assets WHERE id = 77', 1 ],
	[ 'nothing', 'SELECT id FROM fsm.tasks WHERE id = NULL OR false', 0 ],
	[ 'by an id that is null', 'PREPARE p(bigint) AS SELECT number FROM fsm.tasks WHERE id = $1; EXECUTE p(NULL)', 0 ],

	'Lists',
	[ 'the whole list', 'SELECT id, number FROM fsm.tasks', 3 ],
	[ 'a period', "SELECT id FROM fsm.tasks WHERE created >= '2025-03-01' AND created < '2025-03-08'", 1 ],
	[ 'a flag', 'SELECT id FROM fsm.tasks WHERE NOT is_closed AND task_type_id = 7', 1 ],
	[ 'IS NULL', 'SELECT id FROM fsm.tasks WHERE closed IS NULL AND task_type_id = 7', 1 ],
	[ 'several values of two columns', 'SELECT id FROM fsm.tasks WHERE task_type_id IN (3, 7) AND company_id IN (2, 5)', 1 ],
	[ 'what is asked for anyway', 'SELECT count(*) FROM fsm.tasks WHERE deleted IS NULL AND company_id = 5', 1 ],
	[ 'OR', 'SELECT id FROM fsm.tasks WHERE task_type_id = 3 OR task_type_id = 7', 1, 'PostgreSQL hands OR on as it is; IN says the same' ],
	[ 'a range of what the API has no range of', "SELECT id FROM fsm.tasks WHERE id > 30000", 3 ],
	[ 'DISTINCT', 'SELECT DISTINCT company_id FROM fsm.tasks', 3 ],
	[ 'search', "SELECT id FROM fsm.tasks WHERE search_text = 'фреон' AND task_type_id = 2", 1 ],
	[ 'UNION ALL', 'SELECT id FROM fsm.tasks WHERE company_id = 3 UNION ALL SELECT id FROM fsm.tasks WHERE company_id = 4', 2 ],

	'The first of a list',
	[ 'ORDER BY, LIMIT', 'SELECT id, created FROM fsm.tasks ORDER BY created DESC LIMIT 20', 1 ],
	[ 'ORDER BY, LIMIT, deep OFFSET', 'SELECT id FROM fsm.tasks ORDER BY created LIMIT 20 OFFSET 5000', 1 ],
	[ 'LIMIT alone', 'SELECT id IS NULL FROM fsm.tasks LIMIT 20', 1 ],
	[ 'LIMIT 0', 'SELECT id FROM fsm.tasks LIMIT 0', 0 ],
	[ 'LIMIT after a filter that is looked at again', 'SELECT id FROM fsm.tasks WHERE assigned_to_id = 21 ORDER BY created DESC LIMIT 5', 1 ],
	[ 'LIMIT after a filter the API has not', "SELECT id FROM fsm.tasks WHERE number LIKE '03%' ORDER BY created DESC LIMIT 5", 1 ],
	[ 'cursor, FETCH 5', 'BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks ORDER BY created DESC; FETCH 5 FROM c; CLOSE c; COMMIT', 1 ],

	'Joins',
	[ '20 local orders with their tasks',
		'SELECT t.number, o.customer FROM fsm.tasks t JOIN erp.orders o ON o.erp_id = t.erp_id WHERE t.task_type_id = 3 AND NOT t.is_closed ORDER BY t.created DESC LIMIT 20', 1 ],
	[ '300 local keys', 'SELECT k.id, t.number FROM erp.keys k JOIN fsm.tasks t ON t.id = k.id', 3 ],
	[ 'LEFT JOIN', 'SELECT o.id, t.number FROM erp.orders o LEFT JOIN fsm.tasks t ON t.id = o.task_id', 1 ],
	[ 'EXISTS', 'SELECT o.id FROM erp.orders o WHERE EXISTS (SELECT FROM fsm.tasks t WHERE t.id = o.task_id AND t.task_type_id = 3)', 1 ],
	[ 'NOT EXISTS', 'SELECT o.id FROM erp.orders o WHERE NOT EXISTS (SELECT FROM fsm.tasks t WHERE t.id = o.task_id AND t.task_type_id = 3)', 1 ],
	[ 'self join', 'SELECT c.id, p.number FROM fsm.tasks c JOIN fsm.tasks p ON p.id = c.parent_id WHERE c.task_type_id = 7 AND c.company_id = 5', 2 ],
	[ 'tasks with their assets', 'SELECT t.number, a.serial_number FROM fsm.tasks t JOIN fsm.assets a ON a.id = t.asset_id WHERE t.task_type_id = 7 AND t.company_id = 5', 2,
		'nothing is analysed: half a million assets are assumed, which would be 50 pages' ],
	[ 'ANALYZE', 'ANALYZE fsm.assets', 1 ],
	[ 'and again, with what is known now', 'SELECT t.number, a.serial_number FROM fsm.tasks t JOIN fsm.assets a ON a.id = t.asset_id WHERE t.task_type_id = 7 AND t.company_id = 5', 2 ],
	[ 'the first of a join', 'SELECT k.id, t.number FROM erp.keys k JOIN fsm.tasks t ON t.id = k.id ORDER BY k.id LIMIT 5', 1 ],
	[ 'rescans: a correlated subquery for 5 orders', 'SELECT o.id, (SELECT t.number FROM fsm.tasks t WHERE t.id = o.task_id) FROM erp.orders o WHERE o.id <= 5', 1,
		'PostgreSQL runs such a subquery once for each row; the LEFT JOIN above says the same' ],
	[ 'rescans: a list that does not depend on the row', 'SELECT o.id, (SELECT count(*) FROM fsm.tasks t WHERE t.company_id = 5) FROM erp.orders o WHERE o.id <= 5', 1 ],

	'Lists of one parent',
	[ 'conversations of a task', 'SELECT message FROM fsm.tasks_conversations WHERE task_id = :one_talked', 1 ],
	[ 'conversations of 5 tasks', 'SELECT task_id, message FROM fsm.tasks_conversations WHERE task_id IN (:talked)', 5 ],
	[ 'LATERAL, the last message of 5 tasks',
		'SELECT t.id, c.message FROM erp.talks t, LATERAL (SELECT message FROM fsm.tasks_conversations c WHERE c.task_id = t.id ORDER BY c.id DESC LIMIT 1) c', 5 ],
	[ 'join of 5 tasks with their conversations', 'SELECT t.id, c.message FROM erp.talks t JOIN fsm.tasks_conversations c ON c.task_id = t.id', 5 ]);

my @lines = header();
my $shapes = 0;
for my $shape (@shapes)
{
	push @lines, ref $shape ? line_of(@$shape) : ('', "## $shape", '', '| | SQL | requests | least | of them, the first | |', '| --- | --- | --- | --- | --- | --- |');
	$shapes += ref $shape ? 1 : 0;
}
cmp_ok($shapes, '>=', 25, "$shapes shapes");
push @lines, mirrors(), large_mirror();
keep_document(join "\n", @lines, '');
done_testing;

# Runs a shape and tests it -> its line of the document.
sub line_of
{
	my ($what, $sql, $least, $why) = @_;
	my $sent = $sql =~ s/(:\w+)/exists $value{$1} ? $value{$1}[-1] : $1/ger;
	my $shown = $sql =~ s/(:\w+)/exists $value{$1} ? $value{$1}[0] : $1/ger;

	$sandbox->clear_journal;
	my $rows = rows($sent);
	my @requests = grep { $_->{path} !~ /^\/AUTHZ/ } @{ $sandbox->journal(fields => 'method,path,query,headers') };
	my $number = @requests;

	is($rows, rows($sent =~ s/\bfsm\./copy./gr), "$what: the rows");
	if (defined $why)
	{
		cmp_ok($number, '>', $least, "$what: more requests than the least, as the document says") or diag "$number, not more than $least: the reason is out of date";
	}
	else
	{
		is($number, $least, "$what: requests") or diag join "\n", "$shown", (map { asked($_) } @requests[ 0 .. ($number > 5 ? 4 : $number - 1) ]), plan($sent);
	}
	my ($first) = sort map { asked($_) } @requests;
	my %methods;
	$methods{ $_->{method} }++ for @requests;
	return sprintf '| %s | `%s` | %d%s | %d | %s | %s |', $what, $shown =~ s/\|/\\|/gr, $number,
	  (join '', map { " $_" } sort keys %methods), $least, (defined $first ? "`$first`" : ''), $why // '';
}

# What it costs to keep mirrors -> lines of the document. Nothing is asked for in the background here.
sub mirrors
{
	my $changes = sub { $sandbox->change(count => $_[1], seed => $_[0], lists => [ $_[2] // 'tasks' ], weights => { map { $_ => $_ eq $_[0] ? 1 : 0 } qw(create change touch delete restore erase) }) };
	my $why = 'what changes while the list is read is asked for by its time: one request before, for the newest there is, one after';
	my $missing = 'what is not in the list any more is asked for by id before it is deleted, up to 100 a request';
	my $touch = sub {
		my ($skew, $first, $last) = @_;
		$sandbox->config(clock_skew => $skew);
		$sandbox->orders(map { { list => 'tasks', kind => 'touch', id => $_ } } $first .. $last);
	};
	my @mirrors = (
		[ 'a new mirror of all tasks', 'tasks', undef, sub {}, 3, $why ],
		[ 'nothing has changed', 'tasks', 'incremental', sub {}, 1 ],
		[ '50 changed', 'tasks', 'incremental', sub { $changes->('change', 50) }, 1 ],
		[ '50 more created', 'tasks', 'incremental', sub { $changes->('create', 50) }, 1 ],
		[ '50 deleted, softly', 'tasks', 'incremental', sub { $changes->('delete', 50) }, 1 ],
		[ '50 restored', 'tasks', 'incremental', sub { $changes->('restore', 50) }, 1 ],
		[ '12,000 changed, a thousand a second', 'tasks', 'incremental', sub { $touch->(3600 + $_, $_ * 1000 + 1001, $_ * 1000 + 2000) for 0 .. 11 }, 2 ],
		[ '12,000 changed in one second', 'tasks', 'incremental', sub { $touch->(7200, 1001, 13_000) }, 2,
			'the next page is asked for by time, so what is of the last second of a page is asked for twice' ],
		[ 'the whole list again', 'tasks', 'full', sub {}, 3 ],
		[ '... of which 50 are gone', 'tasks', 'full', sub { $changes->('erase', 50) }, 3, $missing ],
		[ '... of which 250 are gone', 'tasks', 'full', sub { $changes->('erase', 250) }, 3, $missing ],
		[ 'a new mirror of all assets', 'assets', undef, sub {}, 1 ],
		[ 'the whole list again, 50 changed', 'assets', 'full', sub { $changes->('change', 50, 'assets') }, 1 ],
		[ '... of which 5 are gone', 'assets', 'full', sub { $changes->('erase', 5, 'assets') }, 1,
			'what is not in the list any more is asked for by id before it is deleted, one a request: the API has no filter for several' ],
		[ '... of which 120 are gone', 'assets', 'full', sub { $changes->('erase', 120, 'assets') }, 1 ]);

	$node->safe_psql('postgres', q(CREATE SCHEMA mirror;
		SELECT hubex_subscribe('tasks', 'fsm.tasks', 'mirror.tasks', every => NULL);
		SELECT hubex_subscribe('assets', 'fsm.assets', 'mirror.assets', every => NULL)));
	my @lines = ('', '## Mirrors', '',
		'Requests that keep a mirror in step. The overlap of 5 minutes is asked for anew each time.', '',
		'| | SQL | requests | least | of them, the first | |', '| --- | --- | --- | --- | --- | --- |');
	for my $mirror (@mirrors)
	{
		my ($what, $name, $mode, $before, $least, $reason) = @$mirror;
		my $sql = "CALL hubex_sync('$name'" . (defined $mode ? ", '$mode')" : ')');
		$before->();
		$sandbox->clear_journal;
		$node->safe_psql('postgres', $sql);
		my @requests = grep { $_->{path} !~ /^\/AUTHZ/ } @{ $sandbox->journal(fields => 'method,path,query,headers') };
		# Of the moments that are asked for, only those that do not depend on today.
		my @asked = map { asked($_) =~ s/(lastModifiedFrom=)(?!2025)[^&]*/$1…/r } @requests;
		my $number = @requests;
		my ($here, $there) = ($node->safe_psql('postgres', "SELECT count(*) FROM mirror.$name"), alive($name));
		is($here, $there, "$what: the mirror has as many rows");
		if (defined $reason) { cmp_ok($number, '>', $least, "$what: more requests than the least, as the document says") }
		else { is($number, $least, "$what: requests") or diag join "\n", @asked }
		push @lines, sprintf '| %s: %s | `%s` | %d GET | %d | `%s` | %s |', $name, $what, $sql, $number, $least, (sort @asked)[0], $reason // '';
	}
	return @lines;
}

# How many records of a list are not deleted, as the sandbox has it.
sub alive
{
	my ($list) = @_;
	# by HEAD, which the sandbox answers: 29,400 tasks take half a minute to be decoded here
	return $node->safe_psql('postgres', 'SELECT count(*) FROM fsm.tasks') if $list eq 'tasks';
	my $assets = decode_json($sandbox->export('/ES/Assets'));
	return scalar grep { !defined $_->{deleted} } values %$assets;
}

# As many assets as a tenant can hold, by the worker, whose memory stays what it is.
sub large_mirror
{
	my $assets = 577_953;
	my $large = Hubex::Sandbox->new(tasks => 0, assets => $assets);
	$node->start_hubex($large, server => 'large');
	$node->safe_psql('postgres', q(CREATE SCHEMA large; IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER large INTO large;
		SELECT hubex_subscribe('large', 'large.assets', 'mirror.large', every => '1 day')));
	my (@memory, $rows);
	my $count = q(SELECT greatest(n_live_tup, n_tup_ins) FROM pg_stat_user_tables WHERE relid = 'mirror.large'::regclass);
	eventually {
		my $pid = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'hubex sync'));
		push @memory, anonymous_memory($pid) if $pid;
		return $node->safe_psql('postgres', q(SELECT filled_at IS NOT NULL FROM hubex.subscription_state WHERE subscription = 'large')) eq 't';
	} 'a mirror of 577,953 assets is filled', 300;
	my @pages = grep { $_->{path} eq '/ES/Assets' } @{ $large->journal(fields => 'path,status,time') };
	my $number = @{ $large->journal(fields => 'n') } - $large->summary->{sign_ins};
	is($number, 58, '58 pages, and nothing else') or diag explain $large->summary;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM mirror.large'), $node->safe_psql('postgres', 'SELECT count(*) FROM large.assets'), 'all that is not deleted is there');
	my ($early) = sort { $b <=> $a } @memory[ 0 .. $#memory / 5 ];
	my ($late) = sort { $b <=> $a } @memory[ $#memory / 5 .. $#memory ];
	cmp_ok($late - $early, '<', 24 * 1024, sprintf 'the memory of the worker is flat: %d MB after a fifth, %d MB at most', $early / 1024, $late / 1024);
	return sprintf '| %s: %s | `%s` | %d GET | %d | `%s` | %s |', 'assets', 'a new mirror of 577,953', q(SELECT hubex_subscribe(...)), $number, 58,
		'GET /ES/Assets items=1-10000', '';
}

# Of a process, in kB: what is its own.
sub anonymous_memory
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or return 0;
	my ($kilobytes) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$status>;
	return $kilobytes // 0;
}

sub rows
{
	my ($sql) = @_;
	my ($status, $rows, $errors) = $node->psql('postgres', $sql, on_error_stop => 1);
	return $status ? "failed: $errors" : join "\n", sort split /\n/, $rows;
}

sub plan
{
	my ($sql) = @_;
	$sql =~ s/(?=\bEXECUTE\b)|^(?=SELECT\b)/EXPLAIN (COSTS OFF) / or return '';
	return $node->safe_psql('postgres', $sql);
}

# A request as the document shows it: what repeats is said once.
sub asked
{
	my ($request) = @_;
	my (%values, @names);
	for my $pair (@{ $request->{query} })
	{
		my ($name, $value) = @$pair;
		push @names, $name unless $values{$name};
		push @{ $values{$name} }, $value;
	}
	my $query = join '&', map {
		my ($name, @of) = ($_, @{ $values{$_} });
		@of > 3 ? "$name=$of[0]&… (" . @of . ')' : map { "$name=$_" } @of;
	} @names;
	my $range = $request->{headers}{range};
	return "$request->{method} $request->{path}" . ($query ne '' ? "?$query" : '') . (defined $range ? " $range" : '');
}

# The foreign tables, the local ones they are joined with, and a copy of all that is read.
sub make_tables
{
	$node->safe_psql('postgres', q{
		CREATE SCHEMA fsm; CREATE SCHEMA copy; CREATE SCHEMA erp;
		IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, tasks_conversations) FROM SERVER fsm INTO fsm;
		IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
		ALTER FOREIGN TABLE fsm.assets RENAME TO all_assets;
		ALTER FOREIGN TABLE fsm.all_assets OPTIONS (include_deleted 'true');
		IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
		SET hubex.pushdown = off;
		CREATE TABLE copy.tasks AS SELECT * FROM fsm.tasks;
		CREATE TABLE copy.assets AS SELECT * FROM fsm.assets;
		CREATE TABLE copy.all_assets AS SELECT * FROM fsm.all_assets;
		UPDATE copy.tasks SET search_text = 'фреон' WHERE notes ILIKE '%фреон%';

		CREATE TABLE erp.keys AS SELECT id FROM copy.tasks WHERE id % 77 = 0 ORDER BY id LIMIT 300;
		CREATE TABLE erp.orders AS SELECT row_number() OVER (ORDER BY id)::int AS id, erp_id, id AS task_id, company_name AS customer FROM copy.tasks
			WHERE task_type_id = 3 AND closed IS NULL AND erp_id IS NOT NULL ORDER BY task_id LIMIT 20;
		CREATE TABLE erp.talks AS SELECT k.id FROM erp.keys k, LATERAL (SELECT count(*) FROM fsm.tasks_conversations c WHERE c.task_id = k.id) c
			WHERE k.id < 3000 AND c.count > 1 ORDER BY k.id LIMIT 5;
		CREATE TABLE copy.tasks_conversations AS SELECT c.* FROM erp.talks t, LATERAL (SELECT * FROM fsm.tasks_conversations c WHERE c.task_id = t.id) c;
		ANALYZE copy.tasks, copy.assets, copy.all_assets, erp.talks, copy.tasks_conversations, erp.keys, erp.orders;
	});
}

sub header
{
	return split /\n/, sprintf <<'END', commas($alive), commas(29_400 - $alive);
# Requests

Made by `test/t/230_requests.pl`, which also checks it; do not edit. `HUBEX_WRITE=1 make check TESTS=230` writes it anew.

How many requests a query makes, as the journal of the sandbox has them (a sign-in every half an hour is not among them), and the
least that the API permits: a page holds up to 10,000 records, a request names up to 100 keys, and a list that belongs to one
record is asked for by that record. There are %s tasks, and %s more that are deleted. Nothing is analysed but where it says so:
the plans are those of a fresh import.
END
}

sub commas { return scalar reverse(reverse($_[0]) =~ s/(\d{3})(?=\d)/$1,/gr) }

sub keep_document
{
	my ($text) = @_;
	utf8::encode($text);
	if ($ENV{HUBEX_WRITE})
	{
		open my $file, '>', $document or die "$document: $!";
		print $file $text;
		close $file or die "$document: $!";
	}
	my $there = '';
	if (open my $file, '<', $document)
	{
		local $/;
		$there = <$file>;
	}
	ok($there eq $text, "$document tells what was found") or diag 'HUBEX_WRITE=1 make check TESTS=230 writes it anew';
}
