# Updates of one record that went as one call stay together when it is not known whether that call did its work: sent
# again in pieces, the first of them would take the record back to an older version.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my ($rows, $last) = (10, 6);
my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox, timeout => '1s', retry_base => '300ms', retry_cap => '1s');
$node->safe_psql('postgres', q{
	CREATE TABLE job (id int PRIMARY KEY, version int);
	CREATE TRIGGER t AFTER INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION
		hubex_task_trigger('fsm', '{"task_type_id": 2, "erp_id": "JOB-{id}", "notes": "version {version}"}')});

for my $fault ({ fault => 'drop_after' }, { fault => 'hang_after' }, { fault => 'status_after', status => 500 })
{
	subtest $fault->{fault} => sub {
		$sandbox->reset;
		$node->safe_psql('postgres', "TRUNCATE job, hubex.outbox; INSERT INTO job SELECT g, 1 FROM generate_series(1, $rows) g");
		is_delivered();
		$node->safe_psql('postgres', q{SELECT hubex_pause('fsm')});
		$node->safe_psql('postgres', join ';', map { "UPDATE job SET version = $_" } 2 .. $last);
		$sandbox->fault(%$fault, method => 'PATCH', path => '/WORK/Tasks/*', times => $rows);
		$node->safe_psql('postgres', q{SELECT hubex_resume('fsm')});
		is_delivered();

		my (%versions, @back);
		for my $write (sort { $a->{write} <=> $b->{write} } grep { defined $_->{write} } @{ $sandbox->journal(method => 'PATCH') })
		{
			my ($version) = $write->{body} =~ /version (\d+)/;
			my $before = $versions{ $write->{path} };
			push @back, "$write->{path}: $version after $before" if defined $before && $version < $before;
			$versions{ $write->{path} } = $version;
		}
		is_deeply(\@back, [], 'no task goes back to an older version');
		is_deeply([ values %versions ], [ ($last) x $rows ], 'each has the last one');
	};
}
done_testing;

sub is_delivered { return $node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, 'all is delivered') }
