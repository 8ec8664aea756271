# sql/*.sql against expected/*.out, as `make installcheck` does it: each file is one test. Without workers, so that
# the outbox stays as the scripts leave it.

use strict;
use warnings;

use File::Basename qw(basename);
use Hubex::Node;
use PostgreSQL::Test::Utils;
use Test::More;

my @tests = map { basename($_, '.sql') } sort glob 'sql/*.sql';
plan skip_all => 'sql is empty' unless @tests;

my $node = Hubex::Node->new('regress', preload => 0);
my $output = PostgreSQL::Test::Utils::tempdir();
my @command = (
	$ENV{PG_REGRESS}, '--bindir=', '--inputdir=.', "--outputdir=$output",
	'--host=' . $node->host, '--port=' . $node->port, '--dbname=contrib_regression', @tests);

# PostgreSQL 15 reports "test name ... ok", later versions speak TAP.
my (%state, @told);
open my $regress, '-|', join(' ', map { "'$_'" } @command) . ' 2>&1' or die "$command[0]: $!";
while (my $line = <$regress>)
{
	push @told, $line;
	$state{$1} = $2 eq 'ok' if $line =~ /^test (\S+)\s+\.\.\. (\w+)/;
	$state{$2} = !$1 if $line =~ /^(not )?ok \d+\s+[-+] (\S+)/;
}
close $regress;
my $status = $?;

ok($state{$_}, "sql/$_.sql") for @tests;
if (!Test::More->builder->is_passing)
{
	diag -e "$output/regression.diffs" ? slurp_file("$output/regression.diffs") : @told;
}
elsif ($status)
{
	fail('pg_regress is content');
	diag @told;
}
done_testing;
