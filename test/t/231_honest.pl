# Honesty: whatever goes wrong while a table is read, the rows are right or there is an error that says what is wrong.
#
# Never fewer rows. What passes by itself (a page lost on its way, a server that is busy for a moment) is waited for and
# asked for again; the rest are errors whose SQLSTATE is that of docs/errors.md. Each fault meets a plain scan, a cursor,
# a count, a record by its id and a join.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $sandbox = Hubex::Sandbox->new(tasks => 2_345);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, page_size => 400, timeout => 2);
$node->safe_psql('postgres', q{
	CREATE SCHEMA fsm; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	CREATE TABLE keys AS SELECT id, number FROM fsm.tasks WHERE id % 7 = 0;
	CREATE TABLE copy AS SELECT id, number FROM fsm.tasks;
	ANALYZE keys; ANALYZE copy;
});
my @alive = sort { $a <=> $b } map { $_->{id} } grep { !$_->{deleted} } @{ $sandbox->tasks };
my $one = $alive[5];
is(answer('SELECT id FROM copy ORDER BY id'), join("\n", @alive), 'all is there when nothing is wrong');

# The statements: the method and the requests that a fault is for, and what is right. The fault of a list meets its
# second page, in whatever order they are asked for; that of a join its second lot of keys.
my %statement = (
	scan => { sql => 'SELECT id FROM fsm.tasks', right => \@alive, method => 'GET', range => 'items=[2-9]*', lists => 1 },
	cursor => {
		sql => 'BEGIN; DECLARE c CURSOR FOR SELECT id FROM fsm.tasks; FETCH 50 FROM c; FETCH ALL FROM c',
		right => \@alive, method => 'GET', lists => 1 },
	count => { sql => 'SELECT count(*) FROM fsm.tasks', right => [ scalar @alive ], method => 'HEAD' },
	one => { sql => "SELECT id FROM fsm.tasks WHERE id = $one", right => [$one], method => 'GET' },
	join => {
		sql => 'SELECT t.id FROM keys k JOIN fsm.tasks t ON t.id = k.id WHERE k.id < 3000', method => 'GET',
		right => [ grep { $_ % 7 == 0 && $_ < 3000 } @alive ] });
$statement{$_}{after} = 1 for qw(scan cursor join);
delete $statement{scan}{range};

my $html = '<html><body>Bad Gateway</body></html>';
my @every = sort keys %statement;
my @bodies = grep { $_ ne 'count' } @every;
my @lists = qw(cursor scan);
my @few = qw(cursor one);     # of what takes seconds each time

# What passes: the rows are right, after a while.
for my $case (
	[ 'the token has expired', { fault => 'expire' } ],
	[ '500 once', { fault => 'status', status => 500, body => { code => 'x', message => 'oops' } } ],
	[ '502 once', { fault => 'status', status => 502, body => $html } ],
	[ '503 twice', { fault => 'status', status => 503, times => 2 } ],
	[ '503 with Retry-After', { fault => 'status', status => 503, headers => { 'Retry-After' => '1' } } ],
	[ '429 with Retry-After', { fault => 'throttle', retry_after => 1 } ],
	[ '429 without', { fault => 'status', status => 429 } ],
	[ 'the connection is lost before the answer', { fault => 'drop_after' } ],
	[ 'the connection is lost in the middle of a page', { fault => 'truncate' }, \@bodies ],
	[ 'the connection is lost after 10 bytes', { fault => 'truncate', bytes => 10 }, \@bodies ],
	[ 'each page fails once', { fault => 'status', status => 503, each => JSON::PP::true } ],
	[ 'late', { fault => 'delay', seconds => 1 } ],
	[ 'a slow body', { fault => 'slow_body', bytes => 100_000, seconds => 0.1 }, \@bodies ])
{
	my ($what, $fault, $statements) = @$case;
	met($what, $fault, $statements // \@every, qr/^$/);
}

# What does not pass: an error that says so, and never fewer rows.
for my $case (
	[ '401 again and again', { fault => 'status', status => 401 }, \@every, qr/28000/ ],
	[ '403', { fault => 'status', status => 403 }, \@every, qr/42501/ ],
	[ '404', { fault => 'status', status => 404 }, [ grep { $_ ne 'one' } @every ], qr/HV00R/ ],
	[ '409', { fault => 'status', status => 409, body => { code => 'InvalidData', message => 'Недопустимо' } }, \@every, qr/HV00L/ ],
	[ '429 again and again', { fault => 'throttle', retry_after => 1 }, \@few, qr/53000/ ],
	[ '429, come again in an hour', { fault => 'throttle', retry_after => 3600 }, \@every, qr/53000/ ],
	[ '500 again and again', { fault => 'status', status => 500 }, \@few, qr/HV00M/ ],
	[ '502 again and again', { fault => 'status', status => 502, body => $html }, \@few, qr/HV00M/ ],
	[ '503 again and again', { fault => 'status', status => 503 }, \@few, qr/HV00M|53000/ ],
	[ 'lost again and again', { fault => 'drop_before' }, \@few, qr/08006/ ],
	[ 'cut again and again', { fault => 'truncate' }, \@few, qr/08006/ ],
	[ 'no answer', { fault => 'hang' }, \@few, qr/08006/ ],
	[ 'HTML', { fault => 'not_json' }, \@bodies, qr/22P02|08P01/ ],
	[ 'half of the JSON', { fault => 'bad_json' }, \@bodies, qr/22P02|22021|08P01/ ],
	[ 'a list where a map should be', { fault => 'status', status => 206, body => [ {} ], headers => { 'Content-Range' => 'items=1-1/1' } },
		\@lists, qr/08P01/ ],
	[ 'records that are no objects', { fault => 'status', status => 206, body => { 1 => 7, 2 => 'x' }, headers => { 'Content-Range' => 'items=1-2/2' } },
		\@lists, qr/08P01|22P02/ ],
	[ 'null', { fault => 'status', status => 200, body => 'null', headers => { 'Content-Type' => 'application/json' } }, \@bodies, qr/08P01|22P02/ ],
	[ 'a redirect', { fault => 'status', status => 302, headers => { Location => '/fsm/WORK/Tasks' } }, \@every, qr/08P01/ ],
	[ '204 where there are records', { fault => 'status', status => 204 }, [ @lists, 'count' ], qr/08P01/ ],
	[ '200 without a body', { fault => 'status', status => 200 }, \@every, qr/08P01|22P02/ ],
	[ 'a page of nothing', { fault => 'empty' }, \@lists, qr/08P01/ ],
	[ 'Content-Range that cannot be read', { fault => 'content_range', value => 'items 1..400' }, [ @lists, 'count' ], qr/08P01/ ],
	[ 'Content-Range of another page', { fault => 'content_range', value => 'items=2000-2399/9999' }, \@lists, qr/08P01/ ],
	[ 'Content-Range of more records than came', { fault => 'content_range', value => 'items=401-9000/9000' }, \@lists, qr/08P01/ ])
{
	my ($what, $fault, $statements, $error) = @$case;
	met($what, { %$fault, times => 1000 }, $statements, $error);
}

# What may be either: the rows are right, or it is an error.
for my $case (
	[ 'the total shrinks', { fault => 'shrink', by => 700 }, [ @lists, 'join' ] ],
	[ 'the total shrinks to this page', { fault => 'shrink', by => 100_000 }, [ @lists, 'join' ] ],
	[ 'the total shrinks once', { fault => 'shrink', by => 700, times => 1 }, [ @lists, 'join' ] ],
	[ 'an empty page, once', { fault => 'empty', times => 1 }, [ @lists, 'join', 'one' ] ],
	[ '200 and everything, on the second page', { fault => 'no_content_range', times => 1 }, [ @lists, 'join' ] ],
	[ '204, once', { fault => 'status', status => 204, times => 1 }, [ @lists, 'count' ] ])
{
	my ($what, $fault, $statements) = @$case;
	met($what, { times => 1000, %$fault }, $statements, qr/^$|08P01/);
}

# The first page is no better.
for my $case (
	[ 'HTML', { fault => 'not_json' }, qr/22P02|08P01/ ],
	[ 'a page of nothing', { fault => 'empty' }, qr/08P01/ ],
	[ '204 where there are records', { fault => 'status', status => 204 }, qr/^$|08P01/, [] ],
	[ 'the total shrinks to this page', { fault => 'shrink', by => 100_000 }, qr/^$|08P01/, [ (sort { $a <=> $b } @alive)[ 0 .. 399 ] ] ])
{
	my ($what, $fault, $error, $believed) = @$case;
	$sandbox->fault(method => 'GET', path => '/WORK/Tasks', %$fault, times => 1);
	my ($rows, $state) = outcome($statement{scan}{sql});
	# a list that says from its very beginning that it is so short cannot be told from one that is
	my $honest = $state =~ /08P01|22P02/ || $rows eq join("\n", @alive) || ($believed && $rows eq join "\n", @$believed);
	ok($honest && "$state" =~ $error, "scan, first page: $what") or diag "SQLSTATE '$state', " . ($rows =~ tr/\n// + 1) . ' rows';
	$sandbox->clear_faults;
}

# Fewer records a page than were asked for: the rest is asked for.
$sandbox->config(page_limit => 100);
is((outcome($statement{$_}{sql}))[0], join("\n", @{ $statement{$_}{right} }), "$_: pages of 100, though 400 are asked for") for @every;
$sandbox->config(page_limit => 0);

# What is asked to be waited for is waited for.
my $began = time;
$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'throttle', retry_after => 2, times => 1);
is((outcome($statement{scan}{sql}))[0], join("\n", @alive), 'Retry-After: 2');
cmp_ok(time - $began, '>=', 2, 'is waited for');

# 200 without Content-Range: everything, unless it may have been cut.
my $large = Hubex::Sandbox->new(tasks => 12_000, assets => 20);
$node->start_hubex($large, server => 'large');
$node->safe_psql('postgres', 'CREATE SCHEMA large; IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER large INTO large');
$large->fault(method => 'GET', path => '/WORK/Tasks', fault => 'no_content_range', times => 1000);
is((outcome('SELECT count(id + 0) FROM large.tasks'))[1], '54000', '10,000 records without Content-Range may be a part of them');
is((outcome('SELECT count(id + 0) FROM large.tasks WHERE task_type_id = 3'))[0],
	(outcome('SELECT count(*) FROM large.tasks WHERE task_type_id = 3'))[0], 'fewer are all');

is((outcome($statement{$_}{sql}))[0], join("\n", @{ $statement{$_}{right} }), "$_: and then all is well again") for @every;

# A wait ends when it is told to.
$sandbox->fault(method => 'GET', path => '/WORK/Tasks', fault => 'throttle', retry_after => 30, times => 1);
$began = time;
is((outcome("SET statement_timeout = '500ms'; $statement{scan}{sql}"))[1], '57014', 'statement_timeout ends a wait');
cmp_ok(time - $began, '<', 5, 'at once');
done_testing;

# A fault meets statements: each is right, where the SQLSTATE '' is among those expected, or fails with one of them.
sub met
{
	my ($what, $fault, $statements, $expected) = @_;
	for my $name (@$statements)
	{
		my $statement = $statement{$name};
		$sandbox->fault(method => $statement->{method}, path => '/WORK/Tasks*', after => $statement->{after} // 0, %$fault);
		my ($rows, $state) = outcome($statement->{sql});
		my ($fault_now) = @{ $sandbox->faults };
		my $right = $rows eq join "\n", @{ $statement->{right} };

		ok($state =~ /$expected/ && ($state ne '' || $right), "$name: $what")
		  or diag "SQLSTATE '$state', " . ($rows eq '' ? 0 : $rows =~ tr/\n// + 1) . ' rows of ' . @{ $statement->{right} }
		  . ", the fault has met $fault_now->{fired} requests of $fault_now->{seen}";
		cmp_ok($fault_now->{fired}, '>', 0, "$name: $what: it happened") if $state eq '';
		$sandbox->clear_faults;
	}
}

# -> the rows, sorted by number, and the SQLSTATE of the error or ''
sub outcome
{
	my ($sql) = @_;
	my (undef, $rows, $errors) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", on_error_stop => 1);
	my ($state) = $errors =~ /ERROR:\s+(\w{5})/;
	return (join("\n", sort { $a <=> $b } split /\n/, $rows), $state // '');
}

sub answer { return $node->safe_psql('postgres', $_[0]) }
