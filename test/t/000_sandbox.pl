# The sandbox's own tests: each of its Python tests is one here.

use strict;
use warnings;

use Test::More;

plan skip_all => 'no tests of the sandbox' unless glob 'test/sandbox/tests/test_*.py';

$ENV{PYTHONDONTWRITEBYTECODE} = 1;
open my $python, '-|', '/usr/bin/python3 -m unittest discover -s test/sandbox/tests -v 2>&1' or die "python3: $!";

my ($name, $count, $ran, @told);
while (my $line = <$python>)
{
	# "test_name (module.Class.test_name) ... ok", or with a line for its docstring, or with output before the "ok"
	$name = "$1" if $line =~ /^(test\w* \(\S+\))/;
	if (defined $name && $line =~ /(?:\.\.\. |^)(ok|FAIL|ERROR|expected failure|unexpected success|skipped .*)$/)
	{
		my $state = $1;
		if ($state =~ /^skipped (.*)/) { SKIP: { skip "$name: $1", 1 } }
		else { ok($state =~ /^(ok|expected failure)$/, $name) }
		undef $name;
		$count++;
		next;
	}
	push @told, $line;
	$ran = $1 if $line =~ /^Ran (\d+) tests?\b/;
}
close $python;
my $status = $?;

cmp_ok($count // 0, '>=', $ran // 1, 'all tests were seen');
ok($status == 0, 'unittest is content') or diag @told;
done_testing;
