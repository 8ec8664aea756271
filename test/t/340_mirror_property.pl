# Mirrors are what the remote side is, whatever goes on: seeds draw what the remote side does, what its clock shows, what
# fails, who is killed; after quiet each mirror is compared with what the sandbox holds, and what its triggers saw with what
# the sandbox held.
#
#	HUBEX_SEEDS=300       how many seeds, 1 and on; else as many as a minute has room for
#	HUBEX_SEED=7          only this one; several: 7,9,12
#	HUBEX_SKIP=3,4,10     without these steps of it, to find the few that matter
#	HUBEX_LAST=20         only the steps up to this one
#	HUBEX_SHOW=1          prints the plans

use strict;
use warnings;

use Hubex::Mirror;
use Hubex::MirrorRun;
use Hubex::MirrorSteps;
use Test::More;
use Time::HiRes qw(time);

use constant MINUTE => 50;

my @seeds = defined $ENV{HUBEX_SEED} ? split(/,/, $ENV{HUBEX_SEED}) : 1 .. $ENV{HUBEX_SEEDS} // 1000;
my $limited = !defined $ENV{HUBEX_SEED} && !$ENV{HUBEX_SEEDS};
my $began = time;
my $run = Hubex::MirrorRun->new;

subtest 'what is wrong is found' => \&judge_the_judge unless defined $ENV{HUBEX_SEED};

my ($done, $failed, %steps) = (0, 0);
for my $seed (@seeds)
{
	last if $limited && $done >= 5 && time - $began > MINUTE;
	my $plan = Hubex::MirrorSteps::plan($seed);
	splice @{ $plan->{steps} }, $ENV{HUBEX_LAST} if defined $ENV{HUBEX_LAST};
	note map { "$_\n" } Hubex::MirrorSteps::lines($plan) if $ENV{HUBEX_SHOW};
	my $from = time;
	my @problems = eval { $run->carry_out($plan, skip => { map { $_ => 1 } split /,/, $ENV{HUBEX_SKIP} // '' }) };
	push @problems, "the test itself fails: $@" if $@;
	$done++;
	$steps{ $_->{do} }++ for @{ $plan->{steps} };
	note sprintf 'seed %d: %d steps, %.1f s%s', $seed, scalar @{ $plan->{steps} }, time - $from, @problems ? ', FAILED' : '';
	note $run->story if $ENV{HUBEX_SHOW};
	next unless @problems;
	fail "seed $seed";
	diag join "\n", "HUBEX_SEED=$seed", @problems > 30 ? (@problems[ 0 .. 29 ], scalar(@problems) . ' in all') : @problems,
		Hubex::MirrorSteps::lines($plan), 'what was done:', $run->story;
	last if ++$failed >= ($ENV{HUBEX_FAILURES} // 3);
}
ok(!$failed, sprintf '%d seeds of mirrors: they hold what the remote side holds, and triggers saw it once', $done);
note join ', ', map { "$_ $steps{$_}" } sort keys %steps;
done_testing;

# Mirrors filled by hand, right or with one thing wrong.
sub judge_the_judge
{
	my $node = $run->node;
	my $sandbox = $run->sandbox;
	my $sql = sub { $node->safe_psql('postgres', $_[0]) };
	$sandbox->reset(tasks => 40, assets => 5);
	$sandbox->keep_versions;
	my $old = $sandbox->orders({ list => 'tasks', kind => 'change', id => 1001, fields => { notes => 'first' } });
	$sql->(Hubex::Mirror->remote($sandbox) . 'CREATE TABLE mirror.older AS SELECT * FROM mirror.remote');
	$sandbox->orders({ list => 'tasks', kind => 'change', id => 1001, fields => { notes => 'second' } },
		{ list => 'tasks', kind => 'delete', id => 1002 }, { list => 'tasks', kind => 'erase', id => 1003 });
	$sql->(Hubex::Mirror->remote($sandbox));

	for my $kind (qw(tasks tasks_marked tasks_mapped tasks_ignored tasks_filtered))
	{
		my $mirror = Hubex::Mirror->new('hand', $kind);
		my %column = (key => $mirror->{key}, raw => $mirror->{raw}, notes => $kind eq 'tasks_mapped' ? 'what' : 'notes');
		my $fill = sub {
			my ($from) = @_;
			return sprintf 'SELECT %s FROM mirror.%s WHERE list = \'tasks\' AND NOT r ? \'deleted\' AND %s', join(', ', map { "$_->{sql} AS \"$_->{name}\"" } @{ $mirror->{shown} }),
				$from, $mirror->{matches};
		};
		my $put = sub {
			my ($from) = @_;
			my $names = join ', ', map { "\"$_->{name}\"" } @{ $mirror->{shown} };
			my $set = join ', ', map { "\"$_->{name}\" = s.\"$_->{name}\"" } @{ $mirror->{shown} };
			my $gone = $mirror->deletes eq 'delete' ? "DELETE FROM mirror.hand h WHERE NOT EXISTS (SELECT FROM s WHERE s.$column{key} = h.$column{key})"
				: $mirror->deletes eq 'mark' ? "UPDATE mirror.hand h SET $mirror->{marked} = coalesce((SELECT (r ->> 'deleted' || 'Z')::timestamptz FROM mirror.$from WHERE key = h.$column{key}::text), now())
					WHERE NOT EXISTS (SELECT FROM s WHERE s.$column{key} = h.$column{key})" : '';
			return "CREATE TEMP TABLE s AS " . $fill->($from) . ";
				INSERT INTO mirror.hand ($names) SELECT $names FROM s WHERE NOT EXISTS (SELECT FROM mirror.hand h WHERE h.$column{key} = s.$column{key});
				UPDATE mirror.hand h SET $set FROM s WHERE s.$column{key} = h.$column{key} AND s.$column{raw} <> h.$column{raw};
				$gone;";
		};
		my $begin = sub {
			my $table = $mirror->{table} // q(CREATE TABLE %s (LIKE fsm.tasks, PRIMARY KEY (id)));
			$sql->('DROP TABLE IF EXISTS mirror.hand; TRUNCATE mirror.event, mirror.statement; ' . sprintf($table, 'mirror.hand') . ';' . $mirror->watch);
			$mirror->_look_at_columns($node, 'postgres');
			$sql->($put->('older'));
		};
		my $judge = sub {
			my ($what, $wrong, $found) = @_;
			$begin->();
			$sql->($put->('remote') . 'DELETE FROM mirror.statement WHERE rows = 0');
			$sql->("$wrong; UPDATE mirror.event SET syncing = true; UPDATE mirror.statement SET syncing = true");
			my @problems = $mirror->problems($node, 'postgres');
			if (defined $found) { ok(scalar(grep { /$found/ } @problems), "$kind: $what") or diag "found only:\n@problems" }
			else { is("@problems", '', "$kind: $what") }
		};
		$judge->('a right one', 'SELECT 1');
		$judge->('a row is missing', "DELETE FROM mirror.hand WHERE $column{key} = 1005", qr/is not in the mirror: 1005|never was/) unless $mirror->is_filtered;
		$judge->('a column is old', "UPDATE mirror.hand SET $column{notes} = 'first' WHERE $column{key} IN (SELECT min($column{key}) FROM mirror.hand)", qr/differs: \d+, $column{notes}/);
		$judge->('a row is half of one version', "UPDATE mirror.hand SET $column{notes} = 'first' WHERE $column{key} IN (SELECT min($column{key}) FROM mirror.hand)", qr/is half of one version/);
		$judge->('an event for nothing', "UPDATE mirror.hand SET $column{notes} = $column{notes} WHERE $column{key} IN (SELECT min($column{key}) FROM mirror.hand)", qr/changed nothing/);
		$judge->('a statement for nothing', 'DELETE FROM mirror.hand WHERE false', qr/without rows/);
		$judge->('a write that no trigger saw', "SET session_replication_role = replica; UPDATE mirror.hand SET $column{notes} = 'x' WHERE $column{key} IN (SELECT min($column{key}) FROM mirror.hand)",
			qr/does not show the row/);
		$judge->('a row that the remote side has not', "INSERT INTO mirror.hand ($column{key}, $column{raw}) VALUES (5, '{}')", qr/is in the mirror: 5|never was/);
		my $twice = "CREATE TEMP TABLE k AS SELECT min($column{key}) AS k FROM mirror.hand WHERE $column{raw} ? 'number'; CREATE TEMP TABLE r AS SELECT h.* FROM mirror.hand h, k WHERE $column{key} = k;
			UPDATE mirror.hand SET $column{raw} = '{\"odd\": 1}' FROM k WHERE $column{key} = k; UPDATE mirror.hand SET $column{raw} = r.$column{raw} FROM k, r WHERE mirror.hand.$column{key} = k";
		$judge->('a version that never was, and one seen twice', $twice, qr/what it never was/);
		$judge->('a version seen twice', $twice, qr/had before, or twice/);
		next unless $kind eq 'tasks_ignored' || $kind eq 'tasks';
		$judge->('a row that went back', "UPDATE mirror.hand SET notes = 'first', raw = (SELECT r FROM mirror.older WHERE key = '1001') WHERE id = 1001", qr/1001 shows a version that it had before/);
	}
	$sql->('DROP TABLE mirror.older, mirror.hand');
	return;
}
