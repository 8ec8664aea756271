#!/usr/bin/perl
# The long form of the chaos run, which tools/chaos starts: prints its seed, runs, and writes docs/chaos.md.
# SEED, REQUESTS and CLIENTS are its environment.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;

use Hubex::Node;
use Test::More;
use Time::HiRes qw(time);

use Chaos::Report;
use Chaos::Run;

my $seed = $ENV{SEED} || int(time * 1000) % 1_000_000;
my $requests = $ENV{REQUESTS} || 20_000;
my $clients = $ENV{CLIENTS} || 4;
my $page = "$FindBin::Bin/../../docs/chaos.md";

note "SEED=$seed REQUESTS=$requests CLIENTS=$clients";
my $run = eval { Chaos::Run->new(seed => $seed, requests => $requests, clients => $clients, rest => 180) };
my $findings = $run && eval { $run->go };
BAIL_OUT("SEED=$seed: $@") unless $findings;

my $curl = qx(\$CURL_CONFIG --version 2>&1) =~ s/\s+\z//r;
my $server = $run->node->safe_psql('postgres', 'SHOW server_version') =~ s/ .*//sr;
chomp(my $kernel = qx(uname -sr), my $cores = qx(nproc));
my $text = Chaos::Report::markdown($findings,
	seed => $seed,
	requests => $requests,
	clients => $clients,
	about => [
		[ 'commit', $ENV{HUBEX_COMMIT} // 'unknown' ],
		[ 'seed', $seed ],
		[ 'versions', "PostgreSQL $server, $curl" ],
		[ 'machine', "$cores cores, $kernel" ] ]);
open my $file, '>:encoding(UTF-8)', $page or die "$page: $!";
print $file $text;
close $file;
note $text;

my @culprits = Chaos::Report::culprits($findings);
is(scalar @culprits, 0, 'every committed change arrived, once and in order') or diag join "\n", "SEED=$seed", @culprits;
done_testing;
