#!/usr/bin/perl
# What a trigger of hubex costs the ERP's own INSERT, and what an INSERT into a foreign table costs, beside the least that
# a trigger written in PL/pgSQL could do: one row into a log table. That has a primary key, as a log has that somebody is to read and to clear: without one,
# what was read could not be told from what was not. The worker is held meanwhile: it is woken by commits, and
# delivers nothing.

use strict;
use warnings;

use Bench;
use Test::More;

my $rows = option('ROWS');
my $bench = Bench->new;
my $peer = Bench::Peer->slow(0);
$bench->server('fast', $peer);
$bench->query(
	q(CREATE TABLE log (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), data jsonb);
	CREATE FUNCTION write_log() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO log (data) VALUES (to_jsonb(NEW));
		RETURN NEW;
	END $$;
	CREATE SEQUENCE number;));

my $template = '{"task_type_id": 1, "erp_id": "{number}", "notes": "{notes}", "contact_phone": "{phone}"}';
my %trigger = (
	none => undef,
	plpgsql => 'FOR EACH ROW EXECUTE FUNCTION write_log()',
	row => "FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fast', '$template')",
	statement =>
	  "REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION hubex_task_trigger('fast', '$template')");
for my $name (sort keys %trigger)
{
	$bench->query("CREATE TABLE order_$name (number bigint, notes text, phone text, created timestamptz DEFAULT now())");
	$bench->query("CREATE TRIGGER enqueue AFTER INSERT ON order_$name $trigger{$name}") if $trigger{$name};
}
$bench->query(q(CREATE FOREIGN TABLE order_foreign (number bigint OPTIONS (path 'erpID'), notes text,
	phone text OPTIONS (path 'contactPhone'), task_type_id bigint DEFAULT 1) SERVER fast OPTIONS (resource 'tasks')));
my $values = q(nextval('number'), 'Refrigerator does not cool, customer asks for a call', '+7 900 000-00-00');

report('## An INSERT with a trigger');
report('');
report(sprintf 'Microseconds a row; medians of %d alternating rounds. PL/pgSQL: a row trigger that writes to_jsonb(NEW) to a log with a '
	  . 'primary key. The ratio is to that one.', option('ROUNDS'));
report('');
report('| rows | no trigger | PL/pgSQL | hubex, row | ratio | hubex, statement | ratio | foreign table | ratio |');
report('| --- | --- | --- | --- | --- | --- | --- | --- | --- |');

$bench->hold;
measure('one a transaction', \&one_a_transaction);
measure('one a statement, one transaction', \&one_a_statement);
measure(thousands($rows) . ' in one statement', \&one_statement);
report('');
$bench->release;
$bench->end;
ok(1, 'measured');
done_testing;

sub measure
{
	my ($what, $insert) = @_;
	my $got = alternate(
		map
		{
			my $trigger = $_;
			($trigger => sub {
				$bench->query($trigger eq 'foreign' ? 'TRUNCATE log' : "TRUNCATE order_$trigger, log");
				$bench->reset;
				return sprintf '%.2f', $insert->("order_$trigger");
			})
		} qw(none plpgsql row statement foreign));
	my %us = map { $_ => median(@{ $got->{$_} }) } keys %$got;
	report(sprintf '| %s | %.1f | %.1f | %.1f | %s | %.1f | %s | %.1f | %s |', $what, @us{qw(none plpgsql)},
		map { ($us{$_}, ratio($us{$_}, $us{plpgsql})) } qw(row statement foreign));
	return;
}

sub one_a_transaction
{
	my ($table) = @_;
	my $printed = $bench->pgbench("INSERT INTO $table VALUES ($values);", transactions => $rows / 5);
	my ($milliseconds) = $printed =~ /latency average = ([\d.]+) ms/;
	return 1000 * $milliseconds;
}

sub one_a_statement
{
	my ($table) = @_;
	return timed("FOR i IN 1 .. $rows LOOP INSERT INTO $table VALUES ($values); END LOOP");
}

sub one_statement
{
	my ($table) = @_;
	return timed("INSERT INTO $table SELECT $values FROM generate_series(1, $rows)");
}

# From before the statement to after its commit, which is a part of what the ERP waits for.
sub timed
{
	my ($statement) = @_;
	my $seconds = $bench->seconds("DO \$\$ BEGIN $statement; END \$\$");
	return 1e6 * $seconds / $rows;
}
