# Reading: all pages and nothing but what Content-Range confirms; filters that mean what they say; one connection.
#
# A list that is cut must be an error, never a short list. What the sandbox holds is the measure.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 2345);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 500);

my @all = @{ $sandbox->tasks };
my @alive = grep { !$_->{deleted} } @all;

sub value { return $node->safe_psql('postgres', $_[0]) }

sub failure
{
	my ($sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT never\n$sql", on_error_stop => 0);
	return $stderr =~ s/^psql:<stdin>:\d+: //mgr;
}

sub requests { return grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox->journal } }

# pages
$sandbox->clear_journal;
is(value('SELECT string_agg(id::text, \',\' ORDER BY id) FROM hubex_tasks()'),
	join(',', sort { $a <=> $b } map { $_->{id} } @alive), 'every task that is not deleted, each once');
my @pages = requests();
is(scalar @pages, 1 + int((@alive - 500 + 494) / 495), 'in as few pages as there are, where each begins with the last five of the one before');
is(scalar(grep { ($_->{headers}{range} // '') !~ /^items=\d+-\d+$/ } @pages), 0, 'each page is asked for by Range');
is(value(q(SELECT count(*) FROM hubex_tasks('{"isDeleted": true}'))), @all - @alive, 'the deleted ones, when asked for');
is(value(q(SELECT count(*), count(DISTINCT id) FROM hubex_tasks('{"isDeleted": null}'))), @all . '|' . @all, 'and all of them');
like(failure(q(SELECT hubex_tasks('{"isDeleted": [true, false]}'))), qr/22023/, 'what HubEx would take one value of is an error');

# values
my $deadline = (grep { $_->{deadline} } @alive)[0];
is(value("SET TimeZone = 'Asia/Vladivostok'; SELECT deadline AT TIME ZONE 'UTC' FROM hubex_tasks('{\"taskID\": $deadline->{id}}')"),
	($deadline->{deadline} =~ s/T/ /r), 'times are UTC, whatever the session has') or diag explain $deadline;
is(value(q(SELECT count(*) FROM hubex_tasks() WHERE id IS NULL OR number IS NULL OR raw IS NULL OR task_type_name IS NULL)),
	0, 'id from the key, nested names and the whole record are there');

# filters
my @open = grep { $_->{taskTypeID} == 1 } @alive;
for my $filter ('{"taskTypeID": 1}', '{"task_type_id": 1}', '{"taskTypeID": [1]}', '{"taskTypeID": "1"}')
{
	is(value("SELECT count(*) FROM hubex_tasks('$filter')"), scalar @open, "filter $filter");
}
my ($one, $two) = map { $alive[$_]{id} } 3, 7;
is(value("SELECT string_agg(id::text, ',' ORDER BY id) FROM hubex_tasks('{\"id\": [$two, $one]}')"), "$one,$two", 'an array means any of its values');
is(value(q(SELECT count(*) FROM hubex_tasks('{"erpID": "no such & = % ключ"}'))), 0, 'no rows is no rows');
$sandbox->clear_journal;
like(failure(q(SELECT hubex_tasks('{"taskTypeId": 1}'))), qr/HV007/, 'a misspelt filter, which HubEx ignores, is an error');
is(scalar requests(), 0, 'and asks for nothing');

# plans and loops: rows never go missing
is(value(q(
	SET plan_cache_mode = force_generic_plan;
	PREPARE p(jsonb) AS SELECT count(*) FROM hubex_tasks($1);
	EXECUTE p('{"taskTypeID": 1}'); EXECUTE p('{"taskTypeID": 1}'); EXECUTE p('{"taskTypeID": 1}'); EXECUTE p('{"taskTypeID": 1}');
	EXECUTE p('{"taskTypeID": 1}'); EXECUTE p('{"taskTypeID": 1}'); EXECUTE p('{"taskTypeID": 1}'))),
	join("\n", (scalar @open) x 7), 'seven executions of a prepared statement');
value('CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO fsm');
value('ALTER FOREIGN TABLE fsm.tasks ADD COLUMN stage_color text OPTIONS (path \'taskStage.color\')');
is(value('SELECT count(*), count(stage_color) FROM fsm.tasks'), @alive . '|' . @alive, 'a foreign table, with a column of one\'s own');
is(value('SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off;'
	. " SELECT count(*) FROM (VALUES ($one), ($two), (0)) v (id) JOIN fsm.tasks t ON t.id = v.id"), 2, 'a rescan reads from the start');
is(value("BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks ORDER BY id; MOVE 700 FROM c; FETCH 1 FROM c"),
	(sort { $a <=> $b } map { $_->{id} } @alive)[700], 'a cursor over several pages');
like(value('EXPLAIN (COSTS OFF) SELECT * FROM fsm.tasks'), qr{Remote Request: GET /WORK/Tasks}, 'EXPLAIN shows the request');

# a cut or lying answer is an error
for my $case (
	[ 'truncate', qr/08006/ ], [ 'drop_after', qr/08006/ ], [ 'not_json', qr/08P01/ ], [ 'bad_json', qr/08P01.*ends too early/s ],
	[ 'status', qr/HV00M/, status => 500 ], [ 'throttle', qr/53000/ ], [ 'status', qr/42501/, status => 403 ],
	[ 'status', qr/HV00R/, status => 404 ],
	[ 'status', qr/08P01.*no Content-Range/s, status => 200, body => { 1 => { number => 'x' } }, headers => { 'Content-Type' => 'application/json' } ],
	[ 'status', qr/08P01.*does not fit/s, status => 206, body => { 1 => { number => 'x' } }, headers => { 'Content-Range' => 'items=501-1000/2345' } ],
	[ 'status', qr/08P01.*does not fit/s, status => 206, body => {}, headers => { 'Content-Range' => 'items=501-1000/2345' } ],
	[ 'status', qr/08P01.*cannot be read/s, status => 206, body => { 1 => {} }, headers => { 'Content-Range' => 'items 501..1000' } ],
	[ 'status', qr/08P01.*not an object/s, status => 206, body => [ {} ], headers => { 'Content-Range' => 'items=496-496/2345' } ],
	[ 'status', qr/08P01.*not an object/s, status => 206, body => { 1 => 7 }, headers => { 'Content-Range' => 'items=496-496/2345' } ],
	[ 'status', qr/08P01/, status => 204 ],
	[ 'status', qr/22P02.*column "id" of record x/s, after => 0, status => 206, body => { x => {} }, headers => { 'Content-Range' => 'items=1-1/1' } ],
  )
{
	my ($fault, $expected, %parameter) = @$case;
	my $name = "a page: $fault " . ($parameter{status} // '') . ' ' . (($parameter{headers} // {})->{'Content-Range'} // '');

	# libcurl may repeat a GET whose connection died, so these happen more than once
	$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => $fault, after => 1, times => 10, %parameter);
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT count(*) FROM hubex_tasks()", on_error_stop => 0);
	like($stderr, $expected, $name);
	$sandbox->clear_faults;
}
is(value('SELECT count(*) FROM hubex_tasks()'), scalar @alive, 'and then all is well again');

# hubex_request
is(value("SELECT status, body ->> 'number' FROM hubex_request('GET', '/WORK/Tasks/$one')"),
	'200|' . (grep { $_->{id} == $one } @all)[0]{number}, 'hubex_request: one task');
is(value(q(SELECT status, headers ->> 'content-range', body IS NULL, content IS NULL FROM hubex_request('HEAD', '/WORK/Tasks', query => '{"isDeleted": false}'))),
	'200|items=0-0/' . @alive . '|t|t', 'hubex_request: HEAD counts');
like(failure(qq(SELECT hubex_request('PATCH', '/WORK/Tasks/$one', '{"notes": "x"}'))), qr/HV00L/, 'hubex_request: a refusal is an error');
is(value(qq(SELECT status, body IS NULL FROM hubex_request('PATCH', '/Work/tasks/$one', '[{"field": "notes", "value": "Ж"}]'))), '202|t', 'hubex_request: a change');
is((grep { $_->{id} == $one } @{ $sandbox->tasks })[0]{notes}, 'Ж', 'which is made');

# one connection serves a session's calls
$sandbox->clear_journal;
value(q(SELECT count(*) FROM generate_series(1, 20), LATERAL hubex_request('GET', '/WORK/TaskTypes')));
my %connections = map { $_->{connection} => 1 } grep { $_->{path} eq '/WORK/TaskTypes' } @{ $sandbox->journal };
is(scalar keys %connections, 1, 'twenty calls, one connection');
is(scalar @{ $sandbox->journal(path => '/AUTHZ/AccessTokens') }, 0, 'and no sign-in, for there is a token');

done_testing;
