# The contract of the SQL surface: each file of test/pgtap is a subtest, its pgTAP tests the tests of it.

use strict;
use warnings;

use Hubex::Node;
use TAP::Parser;
use Test::More;

my @files = sort glob 'test/pgtap/*.sql';
plan skip_all => 'test/pgtap is empty' unless @files;

my $node = Hubex::Node->new('pgtap');
$node->safe_psql('postgres', 'CREATE EXTENSION pgtap; CREATE EXTENSION hubex;');

for my $file (@files)
{
	my ($status, $tap, $errors) = $node->psql('postgres', "\\i $file");
	subtest $file => sub { pass_through($tap, $status, $errors) };
}
done_testing;

sub pass_through
{
	my ($tap, $status, $errors) = @_;
	my $parser = TAP::Parser->new({ tap => "$tap\n" });
	my $test;

	while (my $result = $parser->next)
	{
		if ($result->is_test)
		{
			if ($result->has_skip) { SKIP: { skip $result->explanation, 1 } }
			else { ok($result->is_ok, $result->description =~ s/^- //r) }
		}
		elsif (!$result->is_plan && !$result->is_version)
		{
			diag $result->raw;
		}
	}
	ok($status == 0, 'psql is content') or diag $errors;
	is_deeply([ $parser->parse_errors ], [], 'the plan was kept');
}
