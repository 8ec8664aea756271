# The verbs: what is asked for of a task happens to it, once, whichever of its names is used; what can go together does.
#
# What happened is read from the sandbox, by its own account of its tasks, by its API, and by its journal.

use strict;
use utf8;
use warnings;

use Digest::MD5 qw(md5_hex);
use Encode qw(decode encode);
use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use Test::More;

my $sandbox = Hubex::Sandbox->new(seed => 3);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->safe_psql('postgres', q(
	UPDATE hubex.connector SET manifest = jsonb_set(jsonb_set(manifest, '{retry,base}', '0.1'), '{retry,cap}', '0.5')));
$node->wait_for('SELECT state FROM hubex.worker_state()', 'running', 'the worker runs');

my ($user, $other_user) = sort { $a <=> $b } keys %{ api('/ADM/Users') };
my ($attribute) = sort { $a <=> $b } keys %{ api('/COMMON/Attributes') };
my $made = 0;

subtest 'every verb, by each name of a task' => \&every_verb;
subtest 'answers that are lost' => \&lost_answers;
subtest 'the same twice is two' => \&same_twice;
subtest 'refusals' => \&refusals;
subtest 'who is meant' => \&who_is_meant;
subtest 'changes of one task go as one' => \&merges;
subtest 'one verb on many tasks goes as one' => \&batches;
subtest 'files' => \&files;
subtest 'other resources' => \&other_resources;
subtest 'who may' => \&rights;
done_testing;

# ---- tools ----

sub value
{
	my ($sql) = @_;
	my $answer = $node->safe_psql('postgres', encode('UTF-8', $sql));
	return utf8::is_utf8($answer) ? $answer : decode('UTF-8', $answer);
}

sub failure
{
	my ($sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', encode('UTF-8', "\\set VERBOSITY verbose\n$sql"), on_error_stop => 0);
	return $stderr;
}

# The state of a request when it has ended, and why.
sub outcome
{
	my ($id) = @_;
	value("SELECT hubex_wait($_)") for split /\s+/, $id;
	return value("SELECT concat_ws(': ', state, last_error) FROM hubex.outbox WHERE id = ANY (string_to_array('" . join(',', split /\s+/, $id)
		  . "', ',')::bigint[]) ORDER BY id");
}

sub api
{
	my ($path) = @_;
	return decode_json($node->safe_psql('postgres', "SELECT encode(convert_to(body::text, 'UTF8'), 'hex') FROM hubex_request('GET', '$path')") =~ s/(..)/chr hex $1/ger);
}

sub task
{
	my ($id) = @_;
	return (grep { $_->{id} == $id } @{ $sandbox->tasks })[0];
}

sub by_erp
{
	my ($erp) = @_;
	return (grep { ($_->{erpID} // '') eq $erp && !$_->{deleted} } @{ $sandbox->tasks })[0];
}

# A task that the outbox knows nothing of; returns its id.
sub foreign_task
{
	my ($erp, $type) = @_;
	$type //= 1;
	return value("SELECT body ->> 'id' FROM hubex_request('POST', '/WORK/Tasks', '{\"taskTypeID\": $type, \"requestMethodID\": 4, \"erpID\": \"$erp\"}')");
}

sub sent
{
	my ($method, $path) = @_;
	return grep { $_->{path} =~ $path } @{ $sandbox->journal(method => $method) };
}

sub lookups { return grep { ($_->{query} // '') ne '' || $_->{path} =~ m{/(conversations|attachments)$} } @{ $sandbox->journal(method => 'GET') } }

sub messages { return map { $_->{message} } @{ api("/WORK/Tasks/$_[0]/conversations") } }

# ---- the tests ----

sub every_verb
{
	my %name = (
		'task_id' => sub { my $erp = shift; return (foreign_task($erp), '') },
		'erp_id' => sub { my $erp = shift; foreign_task($erp); return ("erp_id => '$erp'", '') },
		'erp_id of a task still to be made' => sub { my $erp = shift; return ("erp_id => '$erp'", "SELECT hubex_create_task(1, 'новая', erp_id => '$erp');") },
	);
	for my $how (sort keys %name)
	{
		my $erp = 'every-' . ++$made;
		my ($name, $before) = $name{$how}->($erp);
		$name = "task_id => $name" if $name =~ /^\d+$/;
		$sandbox->clear_journal;
		my $ids = value(qq{
			BEGIN;
			$before
			SELECT hubex_update_task('{"notes": "изменена", "contactPerson": "Пётр «П»"}', $name);
			SELECT hubex_assign_task($user, $name, scheduled_start => '2030-01-01 10:00+03');
			SELECT hubex_comment_task('Еду\n"скоро"', external => true, $name);
			SELECT hubex_attach_file('\\x00ff80', 'акт.pdf', 'application/pdf', $name, public => true);
			SELECT hubex_set_task_attributes('{"$attribute": "значение"}', $name);
			SELECT hubex_move_task(2, $name, notes => 'назначена');
			SELECT hubex_complete_task($name, fields => '{"acceptedPerson": "Иванов"}');
			COMMIT});
		is(outcome($ids), join("\n", ('delivered') x (split /\s+/, $ids)), "$how: all delivered");
		my $task = by_erp($erp);
		is($task->{notes}, 'изменена', ' update: notes');
		is($task->{contactPerson}, 'Пётр «П»', ' update: another field');
		is_deeply($task->{assignees}, [$user], ' assign');
		is($task->{scheduledStart}, '2030-01-01T07:00:00', ' assign: the start, in UTC');
		my $messages = api("/WORK/Tasks/$task->{id}/conversations");
		is(join('|', map { "$_->{isExternal} $_->{message}" } @$messages), qq{1 Еду\n"скоро"}, ' comment');
		is(join('|', map { "$_->{fileName} $_->{size} " . ($_->{isProtected} ? 'protected' : 'public') } values %{ api("/WORK/Tasks/$task->{id}/attachments") }),
			'акт.pdf 3 public', ' attach');
		is($task->{attributes}{$attribute}, 'значение', ' attributes');
		is_deeply([ map { $_->{taskStageID} } @{ $task->{stages} } ], [ 1, 2, 12 ], ' move, then complete');
		is($task->{stages}[1]{notes}, 'назначена', ' move: notes');
		is($task->{acceptedPerson}, 'Иванов', ' complete');
		is(outcome(value("SELECT hubex_delete_task($name)")), 'delivered', ' delete');
		ok(task($task->{id})->{deleted}, ' it is deleted');
		is(value("SELECT count(*) FROM hubex.outbox WHERE natural_key = '$erp' AND remote_id IS DISTINCT FROM '$task->{id}'"), 0, ' every request knows the id');
		my @resolved = grep { ($_->{query} // '') =~ /erpID/ } @{ $sandbox->journal(method => 'GET') };
		is(scalar @resolved, 0, ' which nobody had to ask for') if $how ne 'erp_id';
	}
	is(value("SELECT count(*) FROM hubex.outbox WHERE operation IN ('comment', 'attach') AND remote_number IS NULL"), 0, 'what was made has its id');
	is(value("SELECT hubex_get('tasks', '" . foreign_task('read') . "') ->> 'erpID'"), 'read', 'hubex_get reads one');
	like(failure("SELECT hubex_get('tasks', '999999999')"), qr/HV00R/, 'and one that is not there is an error');
}

sub lost_answers
{
	my %verb = (
		comment => [ 'POST', '/WORK/Tasks/*/conversation', sub { "hubex_comment_task('слышно?', task_id => $_[0])" }, sub { scalar messages($_[0]) } ],
		attach => [ 'POST', '/WORK/TaskAttachments/upload/fromForm', sub { "hubex_attach_file('\\x0102', 'а.bin', task_id => $_[0])" },
			sub { scalar keys %{ api("/WORK/Tasks/$_[0]/attachments") } } ],
		move => [ 'POST', '/WORK/TaskStagingHistory', sub { "hubex_move_task(2, $_[0])" }, sub { @{ task($_[0])->{stages} } - 1 } ],
		assign => [ 'POST', '/WORK/TaskAssignmentHistory', sub { "hubex_assign_task($user, $_[0])" }, sub { scalar @{ task($_[0])->{assignees} // [] } } ],
		complete => [ 'PUT', '/WORK/Tasks/*/complete', sub { "hubex_complete_task($_[0])" }, sub { @{ task($_[0])->{stages} } - 1 } ],
		update => [ 'PATCH', '/WORK/Tasks/*', sub { "hubex_update_task('{\"notes\": \"да\"}', $_[0])" }, sub { task($_[0])->{notes} eq 'да' ? 1 : 0 } ],
		delete => [ 'DELETE', '/WORK/Tasks/*', sub { "hubex_delete_task($_[0])" }, sub { task($_[0])->{deleted} ? 1 : 0 } ],
	);
	for my $verb (sort keys %verb)
	{
		my ($method, $path, $call, $effects) = @{ $verb{$verb} };
		my $once = $verb !~ /update|delete/;    # sent once; the others may be repeated
		for my $fault (qw(drop_after truncate not_json bad_json drop_before), 'status_after')
		{
			my $id = foreign_task('lost-' . ++$made);
			$sandbox->clear_journal;
			$sandbox->fault(method => $method, path => $path, fault => $fault, $fault eq 'status_after' ? (status => 502) : ());
			is(outcome(value('SELECT ' . $call->($id))) =~ s/: .*//r, 'delivered', "$verb, $fault: delivered");
			is($effects->($id), 1, ' done once');
			my $regex = join '.*', map { quotemeta } split /\*/, $path, -1;
			my @sent = sent($method, qr/^$regex$/i);
			is(scalar @sent, $fault eq 'drop_before' ? 2 : 1, ' sent as often as needed') if $once;
			$sandbox->clear_faults;
		}
	}
	is(value("SELECT count(*) FROM hubex.outbox WHERE operation IN ('comment', 'attach') AND (remote_number IS NULL OR uncertain)"), 0, 'what was made has its id still');
	is(value("SELECT count(*) FROM (SELECT FROM hubex.outbox WHERE operation = 'comment' GROUP BY remote_number HAVING count(*) > 1) d"), 0, 'and no two share one');
}

sub same_twice
{
	my $id = foreign_task('twice');
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks/*/conversation', fault => 'drop_after', times => 2);
	my $ids = value("SELECT hubex_comment_task('ещё раз', task_id => $id) FROM generate_series(1, 3)");
	is(outcome($ids), "delivered\ndelivered\ndelivered", 'three equal messages, two of them with lost answers');
	is(scalar messages($id), 3, 'are three messages');
	$sandbox->clear_faults;

	$sandbox->fault(method => 'POST', path => '/WORK/Tasks/*/conversation', fault => 'drop_before');
	$ids = value("SELECT hubex_comment_task('ещё раз', task_id => $id)");
	is(outcome($ids), 'delivered', 'one that did not arrive is not taken for one of them');
	is(scalar messages($id), 4, 'and sent');
	$sandbox->clear_faults;
}

sub refusals
{
	my $id = foreign_task('refused');
	is(outcome(value("SELECT hubex_move_task(15, $id)")), 'dead: refused with HTTP 201: ["Переход на эту стадию не предусмотрен маршрутом"]', 'a refusal inside 201');
	is(task($id)->{taskStageID}, 1, 'the task did not move');
	is(outcome(value("SELECT hubex_assign_task(999999, $id)")), 'dead: refused with HTTP 201: Исполнитель не найден', 'a refusal of an element');
	like(outcome(value("SELECT hubex_update_task('{\"companyID\": 999999}', $id)")), qr/^dead: HTTP 409: EntityNotFound: Связанный объект не найден/, 'a refused update');
	like(outcome(value("SELECT hubex_update_task('{\"colour\": 1}', $id)")), qr/^dead: HTTP 409: InvalidData/, 'an unknown field');
	like(outcome(value("SELECT hubex_move_task(2, 999999999)")), qr/^dead: HTTP 404/, 'a task that is not there');
	like(outcome(value("SELECT hubex_comment_task('a', task_id => 999999999)")), qr/^dead: HTTP 404/, 'nor has it a chat');
	is(outcome(value('SELECT hubex_delete_task(999999999)')), 'delivered', 'what is to be deleted and is not there is done');
	is(value("SELECT last_status FROM hubex.outbox WHERE operation = 'delete' ORDER BY id DESC LIMIT 1"), 404, 'as the answer said');
	is(outcome(value("SELECT hubex_complete_task($id)")), 'delivered', 'a completion');
	like(outcome(value("SELECT hubex_complete_task($id)")), qr/^dead: HTTP 409: TaskAlreadyCompleted: Заявка уже выполнена/, 'is refused the second time');
}

sub who_is_meant
{
	like(outcome(value(q(SELECT hubex_move_task(2, erp_id => 'nobody')))), qr/^dead: no record of "tasks" has erpID "nobody"$/, 'no record');
	my @ids = map { foreign_task('both') } 1, 2;
	like(outcome(value(q(SELECT hubex_move_task(2, erp_id => 'both')))), qr/^dead: 2 records of "tasks" have erpID "both": ($ids[0], $ids[1]|$ids[1], $ids[0])/, 'two records, which are named');
	is(outcome(value("SELECT hubex_delete_task($ids[0])")), 'delivered', 'one is deleted');
	is(outcome(value(q(SELECT hubex_move_task(2, erp_id => 'both')))), 'delivered', 'the one that lives is meant');
	is(task($ids[1])->{taskStageID}, 2, 'and moved');
	is(outcome(value(q(SELECT hubex_delete_task(erp_id => 'both')))), 'delivered', 'it is deleted by its key');
	is(outcome(value(q(SELECT hubex_delete_task(erp_id => 'both')))), 'delivered', 'which may be said twice');
	like(outcome(value(q(SELECT hubex_move_task(2, erp_id => 'both')))), qr/^dead: the record of "tasks" with erpID "both", \d+, is deleted$/, 'but it does not move any more');
	foreign_task("key & = % ключ '' #");
	is(outcome(value(q(SELECT hubex_move_task(2, erp_id => 'key & = % ключ '' #')))) =~ s/: .*//r, 'delivered', 'a key of any letters')
	  or diag explain [ map { $_->{erpID} } grep { ($_->{erpID} // '') =~ /^key/ } @{ $sandbox->tasks } ];

	# The creation stands in another line, and is late.
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'status', status => 503, times => 3);
	my $ids = value(q(SELECT hubex_create_task(1, erp_id => 'late', ordering_key => 'another line');
		SELECT hubex_comment_task('пришло', erp_id => 'late', ordering_key => 'my line')));
	is(outcome($ids), "delivered\ndelivered", 'a task that is late is waited for');
	is(join('|', messages(by_erp('late')->{id})), 'пришло', 'whatever the order');
	$sandbox->clear_faults;

	# The list cannot be read.
	foreign_task('unread');
	$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'not_json', times => 2);
	is(outcome(value(q(SELECT hubex_move_task(2, erp_id => 'unread')))), 'delivered', 'what could not be looked up is looked up again');
	is(by_erp('unread')->{taskStageID}, 2, 'and done');
	$sandbox->clear_faults;
}

sub merges
{
	$sandbox->clear_journal;
	my $ids = value(q(BEGIN; SELECT hubex_create_task(1, 'v0', erp_id => 'merged');
		SELECT hubex_update_task(jsonb_build_object('notes', 'v' || n, CASE n % 2 WHEN 0 THEN 'contactPerson' ELSE 'contactPhone' END, n::text), erp_id => 'merged')
		  FROM generate_series(1, 100) n; COMMIT));
	is(outcome($ids), join("\n", ('delivered') x 101), '100 changes of a task that waits');
	my $task = by_erp('merged');
	is("$task->{notes} $task->{contactPerson} $task->{contactPhone}", 'v100 100 99', 'the last value of each field counts');
	is(scalar sent(PATCH => qr/./), 1, 'one request');
	is(value("SELECT count(*) FROM hubex.outbox WHERE merged_into = (SELECT min(id) FROM hubex.outbox WHERE natural_key = 'merged' AND operation = 'update')"), 99, 'the others say with which they went');

	# A change that is refused takes no other with it.
	my $id = $task->{id};
	$ids = value(qq(SELECT hubex_update_task(CASE n WHEN 13 THEN '{"companyID": 999999}' ELSE jsonb_build_object('notes', 'w' || n) END, $id) FROM generate_series(1, 20) n));
	my @outcomes = split /\n/, outcome($ids);
	is(scalar(grep { $_ eq 'delivered' } @outcomes), 19, 'one bad change among 20: the others are done');
	like($outcomes[12], qr/^dead: HTTP 409: EntityNotFound/, 'the bad one is refused by itself');
	is(task($id)->{notes}, 'w20', 'in order');

	# What stands between is not passed over.
	$sandbox->clear_journal;
	$ids = value(qq(BEGIN; SELECT hubex_update_task('{"notes": "before"}', $id); SELECT hubex_move_task(2, $id); SELECT hubex_update_task('{"notes": "after"}', $id); COMMIT));
	is(outcome($ids), "delivered\ndelivered\ndelivered", 'a move between two changes');
	is(join(' ', map { $_->{method} } sort { $a->{n} <=> $b->{n} } grep { $_->{method} ne 'GET' } @{ $sandbox->journal }), 'PATCH POST PATCH', 'keeps its place');

	$sandbox->fault(method => 'PATCH', path => '*', fault => 'drop_after');
	$ids = value(qq(SELECT hubex_update_task(jsonb_build_object('notes', 'x' || n), $id) FROM generate_series(1, 5) n));
	is(outcome($ids), join("\n", ('delivered') x 5), 'merged, and the answer lost');
	is(task($id)->{notes}, 'x5', 'the last one counts');
	$sandbox->clear_faults;
}

sub batches
{
	my @ids = split /\n/, value(q(SELECT (hubex_request('POST', '/WORK/Tasks', jsonb_build_object('taskTypeID', 1, 'requestMethodID', 4))).body ->> 'id' FROM generate_series(1, 100)));
	my $array = 'ARRAY[' . join(',', @ids) . ']';

	$sandbox->clear_journal;
	my $requests = value("SELECT hubex_move_task(2, id) FROM unnest($array) id");
	is(outcome($requests), join("\n", ('delivered') x 100), '100 moves of 100 tasks');
	is(scalar(grep { $_->{taskStageID} != 2 } map { task($_) } @ids[ 0, 50, 99 ]), 0, 'are done');
	is(join(' ', map { scalar @{ decode_json(encode('UTF-8', $_->{body})) } } sent(POST => qr{/TaskStagingHistory})), '100', 'in one request');

	# One of them is not possible.
	my @some = @ids[ 0 .. 19 ];
	$sandbox->clear_journal;
	$requests = value("SELECT hubex_move_task(CASE WHEN id = $some[7] THEN 15 ELSE 3 END, id) FROM unnest(ARRAY[" . join(',', @some) . ']) id');
	my @outcomes = split /\n/, outcome($requests);
	is(scalar(grep { $_ eq 'delivered' } @outcomes), 19, 'one bad move among 20: the others are done');
	is($outcomes[7], 'dead: refused with HTTP 201: ["Переход на эту стадию не предусмотрен маршрутом"]', 'and it has a refusal of its own');
	is(join(' ', map { "$_->{method} $_->{path}" } grep { $_->{path} =~ m{^/WORK} } sort { $a->{n} <=> $b->{n} } @{ $sandbox->journal }),
		'POST /WORK/TaskStagingHistory/multiple GET /WORK/Tasks POST /WORK/TaskStagingHistory', 'in three requests');
	my %stage = map { $_->{id} => $_ } @{ $sandbox->tasks };
	is_deeply([ map { $stage{$_}{taskStageID} } @some ], [ map { $_ == 7 ? 2 : 3 } 0 .. 19 ], 'as the sandbox says');
	is(scalar(grep { @{ $stage{$_}{stages} } != 3 } @some[ 0 .. 6, 8 .. 19 ]), 0, 'each once');

	# One of them is refused with all.
	$requests = value("SELECT hubex_move_task(CASE WHEN id = $some[5] THEN 999 ELSE 5 END, id) FROM unnest(ARRAY[" . join(',', @some[ 0 .. 6, 8 .. 19 ]) . ']) id');
	@outcomes = split /\n/, outcome($requests);
	is(scalar(grep { $_ eq 'delivered' } @outcomes), 18, 'a stage that is not there: the others are done');
	like($outcomes[5], qr/^dead: HTTP 409: EntityNotFound/, 'and it is found by halving');

	# The answer is lost.
	$sandbox->clear_journal;
	$sandbox->fault(method => 'POST', path => '/WORK/TaskStagingHistory/multiple', fault => 'drop_after');
	my @rest = @ids[ 20 .. 59 ];
	$requests = value("SELECT hubex_move_task(3, id) FROM unnest(ARRAY[" . join(',', @rest) . ']) id');
	is(outcome($requests), join("\n", ('delivered') x 40), '40 moves, and the answer lost');
	%stage = map { $_->{id} => $_ } @{ $sandbox->tasks };
	is(scalar(grep { @{ $stage{$_}{stages} } != 3 } @rest), 0, 'each once');
	is(scalar sent(POST => qr{/TaskStagingHistory}), 1, 'sent once');
	$sandbox->clear_faults;

	# Attributes.
	$sandbox->clear_journal;
	$requests = value("SELECT hubex_set_task_attributes(jsonb_build_object('$attribute', 'a' || id), id) FROM unnest(ARRAY[" . join(',', @some) . ']) id');
	is(outcome($requests), join("\n", ('delivered') x 20), 'attributes of 20 tasks');
	is(task($some[3])->{attributes}{$attribute}, "a$some[3]", 'each its own');
	is(scalar sent(POST => qr{/TaskAttributes}), 1, 'in one request');
	$requests = value("SELECT hubex_set_task_attributes(CASE WHEN id = $some[11] THEN '{\"30000\": \"x\"}' ELSE jsonb_build_object('$attribute', 'b' || id) END, id) FROM unnest(ARRAY["
		  . join(',', @some) . ']) id');
	@outcomes = split /\n/, outcome($requests);
	is(scalar(grep { $_ eq 'delivered' } @outcomes), 19, 'one unknown attribute among 20: the others are done');
	like($outcomes[11], qr/^dead: HTTP 409: EntityNotFound/, 'and it is refused');
}

sub files
{
	my $id = foreign_task('files');
	my $bytes = join '', map { chr } 0 .. 255, 13, 10, 45, 45;
	my $name = 'Акт «приёмки» "№ 5" \\ 100%.pdf';
	$sandbox->clear_journal;
	is(outcome(value("SELECT hubex_attach_file('\\x" . unpack('H*', $bytes) . "', '$name', 'application/pdf', $id)")), 'delivered', 'a file of every byte');
	my ($sent) = sent(POST => qr/fromForm/);
	my $body = $sent->{body_base64} ? decode_base64($sent->{body_base64}) : encode('UTF-8', $sent->{body});
	like($sent->{headers}{'content-type'}, qr{^multipart/form-data; boundary=}, 'goes as a form');
	ok(index($body, "\r\n\r\n$bytes\r\n--") > 0, 'byte for byte');
	my $quoted = encode('UTF-8', $name =~ s/([\\"])/\\$1/gr);
	ok(index($body, "filename=\"$quoted\"") > 0, 'under its name');
	like($body, qr{Content-Type: application/pdf\r\n}, 'with its type');
	is(value('SELECT response ->> \'md5Hash\' FROM hubex.outbox ORDER BY id DESC LIMIT 1'), md5_hex($bytes), 'arrives byte for byte');
	my ($file) = values %{ api("/WORK/Tasks/$id/attachments") };
	is("$file->{fileName} $file->{size}", $name . ' ' . length $bytes, 'with its name') or diag explain $file;

	is(outcome(value("SELECT hubex_attach_file(convert_to(repeat('0123456789abcdef', 200000), 'UTF8'), 'large', task_id => $id)")), 'delivered', 'one of three megabytes');
	is(value('SELECT response ->> \'md5Hash\' FROM hubex.outbox ORDER BY id DESC LIMIT 1'), md5_hex('0123456789abcdef' x 200000), 'arrives whole');
	is(outcome(value("SELECT hubex_attach_file('', 'empty', task_id => $id)")), 'delivered', 'an empty one');
	is((grep { $_->{fileName} eq 'empty' } values %{ api("/WORK/Tasks/$id/attachments") })[0]{size}, 0, 'too');
	like(outcome(value("SELECT hubex_attach_file('', 'empty', task_id => $id)")), qr/^dead: HTTP 409: PossibleDuplication/, 'the same again is refused there');
	is(outcome(value("SELECT hubex_attach_file('', 'empty', task_id => $id, fields => '{\"isIgnorePossibleDuplication\": true}')")), 'delivered', 'unless it is meant');
}

sub other_resources
{
	$sandbox->fault(method => 'POST', path => '/ES/Assets', fault => 'drop_after');
	my $assets = $sandbox->state->{assets};
	is(outcome(value(q(SELECT hubex_create('assets', '{"name": "Лифт Л-5", "erp_id": "лифт-5"}')))), 'delivered', 'an asset, and the answer lost');
	my $asset = value('SELECT remote_id FROM hubex.outbox ORDER BY id DESC LIMIT 1');
	is(api("/ES/Assets/$asset")->{erpID}, 'лифт-5', 'it is there, under its id');
	is($sandbox->state->{assets}, $assets + 1, 'once');
	is(outcome(value(q(SELECT hubex_delete('assets', erp_id => 'лифт-5')))), 'delivered', 'and is deleted by its key');
	ok(api("/ES/Assets/$asset")->{deleted}, 'as the sandbox says');
	is(outcome(value(q(SELECT hubex_create('companies', '{"name": "ООО «Ромашка»", "fullName": "Ромашка"}')))), 'delivered', 'a company');
	is(api('/ES/Companies/' . value('SELECT remote_id FROM hubex.outbox ORDER BY id DESC LIMIT 1'))->{name}, 'ООО «Ромашка»', 'has the id that was answered');
	$sandbox->clear_faults;
}

sub rights
{
	value(q(CREATE ROLE clerk; CREATE ROLE reader; SELECT hubex_grant('clerk', 'enqueue'); SELECT hubex_grant('reader', 'read');
		GRANT USAGE ON FOREIGN SERVER fsm TO clerk, reader));
	my $id = foreign_task('rights');
	for my $call ("hubex_update_task('{\"notes\": \"a\"}', $id)", "hubex_move_task(2, $id)", "hubex_assign_task($user, $id)",
		"hubex_comment_task('a', task_id => $id)", "hubex_attach_file('\\x01', 'a', task_id => $id)",
		"hubex_set_task_attributes('{\"$attribute\": \"a\"}', $id)", "hubex_complete_task($id)",
		"hubex_update('tasks', '$id', '{\"notes\": \"b\"}')", "hubex_delete('tasks', '$id')", "hubex_delete_task($id)", q(hubex_create('companies', '{"name": "x"}')))
	{
		my ($name) = $call =~ /^(\w+)/;
		like(value("SET ROLE clerk; SELECT $call"), qr/^\d+$/, "$name: a clerk may");
		like(failure("SET ROLE reader; SELECT $call"), qr/42501/, ' a reader may not');
	}
	is(value("SET ROLE reader; SELECT hubex_get('tasks', '$id') ->> 'erpID'"), 'rights', 'hubex_get: a reader may');
	$node->wait_for(q(SELECT count(*) FROM hubex.outbox WHERE owner = 'clerk' AND state <> 'delivered'), '0', 'and what the clerk asked for is done');
}
