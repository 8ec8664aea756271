package Hubex::Module;

=head1 NAME

Hubex::Module - parts of hubex that no SQL leads to

=head1 SYNOPSIS

	Hubex::Module->install($node);
	$node->safe_psql('postgres', q(SELECT hubex_test_take(1, '60/min', 0, 'backfill')));

=head1 DESCRIPTION

F<test/modules/hubex_test>, built beside the objects of hubex that were built for the test. Its functions go where they
are asked for; they use a copy of hubex of their own, with a limiter and tokens of the process's own.

=cut

use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname);

my $folder = abs_path(dirname(__FILE__) . '/../../modules/hubex_test');

sub install
{
	my ($class, $node, $database) = @_;
	open my $lock, '>', "$folder/.lock" or die "$folder/.lock: $!";
	flock $lock, LOCK_EX or die "$folder/.lock: $!";
	my $output = `make -s -C '$folder' COPT=-Werror 2>&1`;
	die "cannot build $folder: $output" if $?;
	close $lock;
	$node->safe_psql($database // 'postgres', qq{
		CREATE FUNCTION hubex_test_take(account integer, rate text, at bigint, priority text) RETURNS bigint
			LANGUAGE c STRICT AS '$folder/hubex_test';
		CREATE FUNCTION hubex_test_read(server name, resource text, stop bigint = -1, skip bigint = 0, known text[] = NULL,
				most bigint = -1, ahead boolean = false, total boolean = false, priority text = 'sync')
			RETURNS TABLE (key text, place bigint, asked_at timestamptz, list_total bigint)
			LANGUAGE c AS '$folder/hubex_test';});
	return;
}

1;
