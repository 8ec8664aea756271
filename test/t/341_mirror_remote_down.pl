# The remote side is down for long: nothing grows, nothing is deleted, and once it is back mirrors catch up by asking what
# has changed, without reading whole lists again.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Mirror;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

use constant { TASKS => 400, ASSETS => 60, TRIES => 200 };

my $state = PostgreSQL::Test::Utils::tempdir() . '/sandbox';
my $sandbox = Hubex::Sandbox->new(tasks => TASKS, assets => ASSETS, state => $state);
my $node = Hubex::Node->new('main', autovacuum => 'off');
$node->start_hubex($sandbox, timeout => '1s', connect_timeout => '1s', retry_base => '1ms', retry_cap => '1ms');
$node->safe_psql('postgres', q(
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
) . Hubex::Mirror::prepare());

# Whole lists are read once a day; assets, of which the API does not tell what has changed, with them.
my @mirrors = (
	(map { Hubex::Mirror->new($_, $_, every => '1 second', full_every => '1 day') } qw(tasks tasks_marked tasks_mapped tasks_filtered)),
	Hubex::Mirror->new('tasks_incremental', 'tasks_incremental', every => '1 second'), Hubex::Mirror->new('assets', 'assets', every => '1 day'));
$sandbox->keep_versions;
$node->safe_psql('postgres', $_->begin) for @mirrors;
$node->wait_for('SELECT count(*) FROM hubex.subscription_state WHERE filled_at IS NOT NULL AND sweep_began_at IS NULL', scalar @mirrors, 'mirrors are filled', 60);
in_step('before');
my ($sizes, $rows) = (sizes(), rows());
my $day = 0;

for my $down (
	[ 'it answers with errors', sub { $sandbox->fault(fault => 'status', status => 503, probability => 1) }, sub { $sandbox->clear_faults } ],
	[ 'it drops connections', sub { $sandbox->fault(fault => 'drop_before', probability => 1) }, sub { $sandbox->clear_faults } ],
	[ 'it sends a page that is none', sub { $sandbox->fault(fault => 'not_json', path => '/WORK/*', probability => 1) }, sub { $sandbox->clear_faults } ],
	[ 'nobody is there', sub { $sandbox->stop }, sub { $sandbox->restart; $sandbox->keep_versions } ])
{
	my ($what, $begin, $end) = @$down;
	subtest $what => sub {
		my $events = $node->safe_psql('postgres', 'SELECT count(*) FROM mirror.event');
		$begin->();

		# As much time as that many tries take, in a moment.
		my $before = failures();
		my $tries = 0;
		eventually {
			my $failed = failures() - $before;
			$tries = $failed;
			$node->safe_psql('postgres', q(UPDATE hubex.subscription_state SET next_at = now() WHERE failures > 0)) if $failed > 0;
			return $failed >= TRIES;
		} TRIES . ' runs fail', 120;
		my $answer = Hubex::Client->new($node)->try(q(CALL hubex_sync('tasks')), 30);
		like($answer->{sqlstate}, qr/^(?:08|HV|53|22)/, 'CALL hubex_sync() says what is wrong') or diag $answer->{error} // 'nothing';

		is(rows(), $rows, 'nothing was deleted, and what hubex keeps has no more rows') if $what ne 'nobody is there';
		is($node->safe_psql('postgres', 'SELECT count(*) FROM mirror.event'), $events, 'nothing was written into mirrors');
		my %now = %{ sizes() };
		# Each failure is written into one row; what was there before is cleared away as it goes.
		is(join(' ', grep { $now{$_} > $sizes->{$_} + 20 * 8192 } sort keys %now), '', 'no table of hubex has grown')
			or diag explain \%now, $sizes;

		# Meanwhile days went by over there: what changed then is of those days.
		unless ($what eq 'nobody is there')
		{
			for (1 .. 4)
			{
				$sandbox->config(clock_skew => ++$day * 86400);
				$sandbox->change(count => 60, seed => "$what $day", lists => ['tasks']);
			}
		}
		$sandbox->clear_journal unless $what eq 'nobody is there';
		$end->();
		$node->safe_psql('postgres', q(UPDATE hubex.subscription_state SET next_at = now()));
		$node->wait_for('SELECT count(*) FROM hubex.subscription_state WHERE failures > 0', 0, 'runs succeed again', 60);
		in_step('after');
		my @lists = grep { $_->{path} =~ m{^/(?:WORK|ES)/} && $_->{status} && $_->{status} == 206 } @{ $sandbox->journal(fields => 'path,query,status,range') };
		my @sweeps = grep { !grep { $_->[0] eq 'lastModifiedFrom' } @{ $_->{query} } } @lists;
		cmp_ok(scalar @lists, '>', 0, 'lists were asked for');
		is_deeply(\@sweeps, [], 'none of them whole');
		$rows = rows();
	};
}
done_testing;

# Mirrors hold what the sandbox holds, once another incremental run of each has begun and ended.
sub in_step
{
	my ($when) = @_;
	my $client = Hubex::Client->new($node);
	$client->query("CALL hubex_sync('" . $_->name . "', 'incremental')") for grep { $_->list eq 'tasks' } @mirrors;
	$node->safe_psql('postgres', Hubex::Mirror->remote($sandbox));
	my @problems = grep { !/filtered.*is in the mirror|: event \d|the last event/ } map { $_->problems($node, 'postgres') } @mirrors;
	is("@problems", '', "mirrors are in step $when");
	return;
}

sub failures { return $node->safe_psql('postgres', 'SELECT coalesce(sum(failures + sweep_failures), 0) FROM hubex.subscription_state') }

# Of all that hubex keeps, by table.
sub sizes
{
	return { map { split /\|/ } split /\n/, $node->safe_psql('postgres', q(
		SELECT c.oid::regclass, pg_total_relation_size(c.oid) FROM pg_class c WHERE relnamespace = 'hubex'::regnamespace AND relkind = 'r')) };
}

sub rows
{
	return $node->safe_psql('postgres', q(
		SELECT string_agg(c.oid::regclass || ' ' || (xpath('/row/count/text()', query_to_xml('SELECT count(*) FROM ' || c.oid::regclass, true, true, '')))[1]::text, ', ' ORDER BY c.oid::regclass::text)
		  FROM pg_class c WHERE relkind = 'r' AND (relnamespace = 'hubex'::regnamespace AND relname <> 'integration_log' OR relname IN ('tasks', 'tasks_marked', 'assets') AND relnamespace = 'mirror'::regnamespace)));
}
