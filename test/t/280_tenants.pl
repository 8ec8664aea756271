# One account a tenant, and all tenants one table: partitions over several servers, read side by side.

use strict;
use utf8;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my @tenants = qw(north south east);
my %sandbox = map { $tenants[$_] => Hubex::Sandbox->new(tasks => 60, seed => $_ + 1) } 0 .. $#tenants;
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox{north});

$node->safe_psql('postgres', q{
	CREATE TABLE tasks (tenant text, id bigint, number text, task_type_id bigint, created timestamptz, notes text) PARTITION BY LIST (tenant)});
for my $tenant (@tenants)
{
	my $url = $sandbox{$tenant}->url;
	$node->safe_psql('postgres', qq{
		CREATE SERVER $tenant FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '$url', rate_limit 'none');
		CREATE USER MAPPING FOR PUBLIC SERVER $tenant OPTIONS (service_token 'sandbox-service-token');
		CREATE FOREIGN TABLE tasks_$tenant (tenant text OPTIONS (constant '$tenant'), id bigint, number text,
			task_type_id bigint, created timestamptz, notes text) SERVER $tenant OPTIONS (resource 'tasks');
		ALTER TABLE tasks ATTACH PARTITION tasks_$tenant FOR VALUES IN ('$tenant')});
}

sub value { return $node->safe_psql('postgres', $_[0]) }

# What the sandboxes themselves hold, as "tenant|id" and so on.
sub wanted
{
	my ($row) = @_;
	return join "\n", sort map { my $tenant = $_; map { "$tenant|" . $row->($_) } grep { !$_->{deleted} } @{ $sandbox{$tenant}->tasks } } @tenants;
}

# The requests for tasks that a tenant's sandbox saw, as "METHOD?query".
sub requests
{
	my ($tenant) = @_;
	return map { "$_->{method} " . join '&', map { "$_->[0]=$_->[1]" } @{ $_->{query} } }
	  grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox{$tenant}->journal };
}

sub forget { $_->clear_journal for values %sandbox }

like(value('EXPLAIN (COSTS OFF) SELECT * FROM tasks'), qr/(?:Async Foreign Scan.*){3}/s, 'the partitions are read asynchronously');
is(join("\n", sort split /\n/, value('SELECT tenant, id FROM tasks')), wanted(sub { $_[0]{id} }), 'all rows of all tenants');
is(join("\n", sort split /\n/, value('SET enable_async_append = off; SELECT tenant, id FROM tasks')), wanted(sub { $_[0]{id} }), 'the same one after another');

# Side by side: all have been asked before the first answer came.
forget();
$_->fault(method => 'GET', path => '/WORK/Tasks', fault => 'delay', seconds => 2) for values %sandbox;
value('SELECT count(*), max(notes) FROM tasks');
my @span = map { my ($seen) = grep { $_->{path} eq '/WORK/Tasks' } @{ $sandbox{$_}->journal }; $seen } @tenants;
is(scalar(grep { $_ } @span), 3, 'each tenant was asked');
my ($latest) = sort { $b <=> $a } map { $_->{time} } @span;
my ($first_end) = sort { $a <=> $b } map { $_->{finished} } @span;
cmp_ok($latest, '<', $first_end, 'the last of them before the first had answered');

forget();
is(value(q(SELECT count(*) FROM tasks WHERE tenant = 'south')), scalar(grep { !$_->{deleted} } @{ $sandbox{south}->tasks }), 'one tenant is counted');
is_deeply([ map { scalar requests($_) } @tenants ], [ 0, 1, 0 ], '... where it is, nobody else is asked');
forget();
is(value(q(SELECT count(*) FROM tasks_south WHERE tenant = 'south')), scalar(grep { !$_->{deleted} } @{ $sandbox{south}->tasks }), 'its partition is counted');
is_deeply([ requests('south') ], ['HEAD isDeleted=false'], '... by HEAD, for its key is the same in all rows');

forget();
my $first = value('SELECT tenant, id FROM tasks ORDER BY created, tenant, id LIMIT 4');
my @ordered = sort { $a->[1]{created} cmp $b->[1]{created} || $a->[0] cmp $b->[0] || $a->[1]{id} <=> $b->[1]{id} }
	map { my $tenant = $_; map { [ $tenant, $_ ] } grep { !$_->{deleted} } @{ $sandbox{$tenant}->tasks } } @tenants;
is($first, join("\n", map { "$_->[0]|$_->[1]{id}" } @ordered[ 0 .. 3 ]), 'in one order over all tenants');

# One tenant that does not answer is an error of the whole, never the others alone.
$sandbox{east}->fault(method => 'GET', path => '/WORK/Tasks', fault => 'status', status => 403);
my ($code, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT count(notes) FROM tasks", on_error_stop => 1);
like($stderr, qr/42501/, 'what one tenant refuses is an error');
is($stdout, '', '... and no rows');

# Rows go to the tenant they name.
$node->safe_psql('postgres', q{INSERT INTO tasks (tenant, task_type_id, notes) VALUES ('south', 1, 'юг'), ('north', 2, 'север')});
Hubex::Node::eventually { value(q(SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered')) eq '0' } 'both are delivered';
is(join(',', map { my $tenant = $_; map { "$tenant:$_->{notes}" } grep { ($_->{notes} // '') =~ /^(?:юг|север)$/ } @{ $sandbox{$tenant}->tasks } } @tenants),
	'north:север,south:юг', 'each made where it belongs');
done_testing;
