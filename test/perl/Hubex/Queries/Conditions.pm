package Hubex::Queries::Conditions;

=head1 NAME

Hubex::Queries::Conditions - what stands in WHERE

=head1 DESCRIPTION

Comparisons a data source may take part in, the same in disguises in which it may not, and the ways SQL has of joining
them, with three truth values. A scope is a list of columns; each knows its name in the query, its type and some values.

=cut

use strict;
use utf8;
use warnings;

use parent 'Hubex::Queries::Values';

=head1 METHODS

=head2 condition(\@scope, $depth)

=cut

# Half of all are what people write: a few plain comparisons, all of which have to hold.

sub condition
{
	my ($self, $scope, $depth) = @_;
	return join ' AND ', map { $self->_plain($self->column($scope)) } 1 .. $self->weighted([ 5, 1 ], [ 4, 2 ], [ 1, 3 ]) if !$depth
		&& $self->chance(0.5);
	$depth //= $self->weighted([ 5, 0 ], [ 5, 1 ], [ 2, 2 ], [ 0.5, 3 ]);
	return $self->_atom($scope) if $depth == 0;

	my $one = $self->condition($scope, $depth - 1);
	my $other = $self->chance(0.05) ? $one : $self->condition($scope, $self->between(0, $depth - 1));
	return $self->weighted(
		[ 10, "($one AND $other)" ], [ 5, "($one OR $other)" ], [ 2, "NOT ($one)" ], [ 1, "($one) IS NOT TRUE" ], [ 1, "($one) IS TRUE" ],
			[ 0.7, "($one) IS FALSE" ],
		[ 0.7, "($one) IS NOT FALSE" ], [ 0.7, "($one) IS UNKNOWN" ], [ 0.7, "($one) IS NOT UNKNOWN" ],
			[ 0.5, "CASE WHEN $one THEN $other ELSE false END" ],
		[ 0.5, "($one) = ($other)" ], [ 0.4, "coalesce($one, $other)" ], [ 0.4, "(($one) IS TRUE OR $other)" ],
		[ 0.4, "($one AND " . $self->_constant . ')' ], [ 0.3, "($one OR " . $self->_constant . ')' ]);
}

# Columns that a remote side may filter by come more often.
sub column
{
	my ($self, $scope, $family) = @_;
	my @columns = grep { !defined $family || $_->{family} eq $family } @$scope;
	return undef unless @columns;
	return $self->weighted(map { [ $_->{weight}, $_ ] } @columns);
}

sub _constant
{
	my ($self) = @_;
	return $self->pick('true', 'false', 'NULL::boolean', '1 = 0', '1 = 1', '1 = NULL', "now() < '2000-01-01'", 'random() < 2',
		'random() > 2', '(SELECT false)', '(SELECT true)',
		$self->param('bool', sub { $self->pick('true', 'false') }), 'NOT true', "'a' = 'b'", 'EXISTS (SELECT 1)', 'EXISTS (SELECT 1 WHERE false)');
}

sub _atom
{
	my ($self, $scope) = @_;
	return $self->_constant if $self->chance(0.02);
	return $self->_of_two($scope) if $self->chance(0.08);
	return $self->_subquery($scope) if $self->chance(0.05);
	my $column = $self->column($scope);
	my $of = "_of_$column->{family}";
	return $self->chance(0.6) ? $self->_comparison($column) : $self->$of($column);
}

# What a remote side is most likely to be asked.
sub _plain
{
	my ($self, $column) = @_;
	my ($c, $family, $type) = @$column{qw(sql family type)};
	my $value = sub {
		return $self->literal($column) unless $self->{with_params} && $self->chance(0.7);
		return $self->param($self->chance(0.7) ? $column->{type} : $family eq 'number' ? 'int4' : $family eq 'moment' ? 'timestamptz'
			: $column->{type}, sub {
			my $literal = $self->literal($column);
			return $family eq 'number' && abs($literal) >= 2**31 ? 7 : $literal;
		});
	};
	return $c . ($self->chance(0.7) ? ' IS NOT NULL' : ' IS NULL') if $family eq 'json' || $self->chance(0.08);
	return $self->pick($c, "NOT $c", "$c = " . $value->()) if $family eq 'boolean';
	return $self->weighted([ 4, "$c >= " . $value->() ], [ 3, "$c < " . $value->() ], [ 3, "$c > " . $value->() ],
		[ 1, "$c BETWEEN " . $value->() . ' AND ' . $value->() ], [ 1, "$c = " . $value->() ]) if $family eq 'moment';
	return $self->weighted(
		[ 5, "$c = " . $value->() ], [ 3, "$c IN (" . join(', ', map { $value->() } 1 .. $self->between(1, 4)) . ')' ],
		[ 2, "$c = ANY (" . $self->param("${type}[]", sub { 'ARRAY[' . join(', ', map { $self->literal($column) } 1 .. $self->between(1, 5))
			. "]::${type}[]" }) . ')' ],
		[ 1, "$c IN (" . join(', ', map { $self->literal($column) } 1 .. 20) . ')' ]);
}

# What all types have.
sub _comparison
{
	my ($self, $column) = @_;
	my $c = $column->{sql};
	return $self->_of_json($column) if $column->{family} eq 'json';
	my $v = $self->value($column);
	my @shapes = (
		[ 10, sub { "$c = $v" } ],
		[ 2, sub { "$v = $c" } ],
		[ 2, sub { "$c <> $v" } ],
		[ 6, sub { "$c " . $self->pick('<', '<=', '>', '>=') . " $v" } ],
		[ 1, sub { "$v " . $self->pick('<', '<=', '>', '>=') . " $c" } ],
		[ 3, sub { "($c >= $v AND $c " . $self->pick('<', '<=') . ' ' . $self->value($column) . ')' } ],
		[ 2, sub { "$c " . $self->pick('', 'NOT ') . "BETWEEN " . $self->pick('', 'SYMMETRIC ') . "$v AND " . $self->value($column) } ],
		[ 6, sub { "$c IN (" . join(', ', $self->list($column, $self->weighted([ 10, $self->between(1, 5) ], [ 1, 30 ], [ 0.3, 300 ]))) . ')' } ],
		[ 2, sub { "$c NOT IN (" . join(', ', $self->list($column, $self->between(1, 4))) . ')' } ],
		[ 5, sub { "$c = " . $self->pick('ANY', 'ANY', 'ANY', 'SOME') . ' (' . $self->array($column) . ')' } ],
		[ 0.5, sub { "$c = ALL (" . $self->array($column) . ')' } ],
		[ 0.7, sub { "$c <> ALL (" . $self->array($column) . ')' } ],
		[ 0.4, sub { "$c " . $self->pick('<', '>', '>=', '<>') . ' ANY (' . $self->array($column) . ')' } ],
		[ 4, sub { "$c IS NULL" } ],
		[ 4, sub { "$c IS NOT NULL" } ],
		[ 1, sub { "$c IS DISTINCT FROM $v" } ],
		[ 1.5, sub { "$c IS NOT DISTINCT FROM $v" } ],
		[ 2, sub { "($c = $v) IS " . $self->pick('TRUE', 'NOT TRUE', 'FALSE', 'NOT FALSE', 'UNKNOWN', 'NOT UNKNOWN', 'NULL') } ],
		[ 1.5, sub { "NOT ($c = $v)" } ],
		[ 1.5, sub { "($c = $v OR $c IS NULL)" } ],
		[ 1.5, sub { "($c = $v OR $c = " . $self->value($column) . ')' } ],
		[ 2, sub { "($c = $v AND $c = " . $self->value($column) . ')' } ],
		[ 1, sub { "($c = $v AND $c IN (" . join(', ', $self->list($column, 3)) . '))' } ],
		[ 1, sub { "($c = ANY (" . $self->array($column) . ") AND $c = ANY (" . $self->array($column) . '))' } ],
		[ 1, sub { "($c IS NULL AND $c = $v)" } ],
		[ 0.7, sub { "($c IS NULL AND $c IS NOT NULL)" } ],
		[ 1, sub { "($c > $v AND $c < $v)" } ],
		[ 0.5, sub { "$c = $c" } ],
		[ 0.5, sub { "coalesce($c, " . $self->literal($column) . ") = $v" } ],
		[ 0.4, sub { "nullif($c, " . $self->literal($column) . ') IS NULL' } ],
		[ 0.4, sub { "CASE WHEN $c = $v THEN true END" } ],
		[ 0.4, sub { "CASE $c WHEN " . $self->literal($column) . ' THEN 1 ELSE 2 END = 1' } ],
		[ 0.4, sub { "ROW($c) IS NOT NULL" } ],
		[ 0.5, sub { "num_nulls($c) = 1" } ]);
	return $self->weighted(@shapes)->();
}

sub _of_number
{
	my ($self, $column) = @_;
	my ($c, $n) = ($column->{sql}, $self->literal($column));
	return $self->pick(
		"$c % 2 = 0", "abs($c) = $n", "$c + 0 = $n", "-$c < -(($n)::numeric)", "$c\::text = '$n'", "$c\::numeric = $n", "$c * 1.0 >= $n",
			"here.immutable($c) = $n", "here.volatile($c) = $n",
		"$c OPERATOR(here.=) ($n)::int8", "$c OPERATOR(pg_catalog.=) $n", "$c\::float8 = $n",
			"int8range($c\::int8, NULL) \@> ($n)::numeric::int8", "$c IN (SELECT k FROM keys)",
		"$c NOT IN (SELECT k FROM keys WHERE k IS NOT NULL)", "$c = (SELECT max(k) FROM keys)", "$c = ANY (ARRAY(SELECT k FROM keys))",
			"$c = ANY ((SELECT array_agg(k) FROM keys)::int8[])",
		"$c > (SELECT avg(k) FROM keys)", "length($c\::text) = 1", "$c\::text LIKE '1%'", "to_char($c, 'FM9999') = '$n'", "$c & 1 = 1",
			"$c = ANY (ARRAY[$n, $c]::int8[])");
}

sub _of_text
{
	my ($self, $column) = @_;
	my ($c, $t) = ($column->{sql}, $self->literal($column));
	my $pattern = $self->quote($self->pick('%', '_', 'ORD-%', '%ё%', '%Лифт%', '%\\%%', "o'hara%", '%"%', '%&%', '', '%й',
		'ORD-2025-00000_', "%\n%", '№'));
	return $self->pick(
		"$c LIKE $pattern", "$c NOT LIKE $pattern", "$c ILIKE $pattern", "$c LIKE " . $t =~ s/\\/\\\\/gr, "$c ~ '^O'", "$c ~* 'лифт'",
			"$c ~~ $pattern", "$c ^@ 'ORD'", "starts_with($c, 'ORD')",
		"lower($c) = lower($t)", "upper($c) = upper($t)", "$c || '' = $t", "trim($c) = $t", "length($c) > 5", "$c = $t COLLATE \"C\"",
			"$c COLLATE \"C\" < $t", "$c = $t COLLATE here.nocase",
		"$c COLLATE here.nocase = $t", "$c IN ($t COLLATE here.nocase)", "$c\::bpchar = $t\::bpchar", "$c\::bpchar = ($t || '  ')::bpchar",
			"$c\::name = $t", "md5($c) = md5($t)",
		"position($t in $c) > 0", "$c SIMILAR TO '(ORD|EQ)%'", "$c = any (string_to_array($t, ','))",
			"convert_to($c, 'UTF8') = convert_to($t, 'UTF8')", "substr($c, 1, 3) = left($t, 3)", "$c > 'М' COLLATE \"C\"",
		"$c IN (SELECT erp_id FROM orders)", "$c NOT IN (SELECT erp_id FROM orders WHERE erp_id IS NOT NULL)",
			"$c = (SELECT min(erp_id) FROM orders)", "$c OPERATOR(here.=) $t",
		"here.immutable($c) = $t", "$c = repeat('x', 9000)", "concat($c) = $t", "$c\::varchar(5) = $t") unless $c =~ /nothing/;
}

sub _of_moment
{
	my ($self, $column) = @_;
	my ($c, $m) = ($column->{sql}, $self->literal($column));
	my $near = $m =~ /infinity|BC|29\d{4}/ ? q('2025-05-01 10:00:00+00') : $m;
	return $self->pick(
		"date_trunc('day', $c) = date_trunc('day', $near\::timestamptz)", "$c\::date = $near\::date", "extract(month FROM $c) = 5",
			"$c > now() - interval '3 years'", "$c < now() - interval '400 days'",
		"$c + interval '1 day' > $near", "$c - interval '1 hour' < $near\::timestamptz", "isfinite($c)", "date_trunc('second', $c) = $c",
			"$c > (SELECT min(placed) FROM orders)", "$c IN (SELECT placed FROM orders)",
		"to_char($c, 'YYYY-MM') = '2025-05'", "$c <> $near",
			"($c, interval '10 days') OVERLAPS ($near\::$column->{type}, interval '5 days')",
			"tstzrange('2025-03-01', '2025-05-01') \@> $c\::timestamptz",
		"$c >= '2025-03-01' AND $c < '2025-04-01'", "$c BETWEEN '2025-05-01' AND '2025-05-31 23:59:59'",
			"$c > $near\::timestamptz AND $c <= $near\::timestamptz + interval '1 month'", "$c\::text LIKE '2025-0%'",
		"$c > '-infinity'", "$c < 'infinity'", "age($c) IS NOT NULL", "here.immutable($c) >= $near", "$c >= $near AND $c <= $near",
			"$c = ANY (ARRAY[$m, $near]::timestamptz[])");
}

sub _of_boolean
{
	my ($self, $column) = @_;
	my $c = $column->{sql};
	return $self->pick($c, "NOT $c", "$c IS TRUE", "$c IS NOT TRUE", "$c IS FALSE", "$c IS NOT FALSE", "$c = true", "$c = false",
		"$c <> true", "$c IS UNKNOWN", "$c IN (true)", "$c IN (true, false)", "$c AND NOT $c",
		"$c OR NOT $c", "$c = (1 = 1)", "$c\::int = 1", "$c\::text = 'true'", "coalesce($c, false)", "$c = (now() > '2000-01-01')",
			"$c > false", "$c >= true");
}

sub _of_json
{
	my ($self, $column) = @_;
	my $c = $column->{sql};
	return $self->pick("$c ? 'erpID'", "NOT $c ? 'erpID'", "$c ->> 'number' LIKE '0%'", "$c \@> '{\"taskType\": {\"id\": 2}}'",
		"jsonb_typeof($c) = 'object'", "$c #>> '{company,id}' = '3'", "$c -> 'asset' IS NULL",
		"$c \@? '\$.company ? (\@.id > 5)'", "($c #>> '{timesheet,created}') > '2025-05'", "$c <> '{}'", "$c IS NOT NULL");
}

# Two columns, of one table or two.
sub _of_two
{
	my ($self, $scope) = @_;
	my $one = $self->column($scope);
	my $other = $self->column([ grep { $_ != $one } @$scope ], $one->{family}) // $one;
	my ($c, $d, $v, $w) = ($one->{sql}, $other->{sql}, $self->value($one), $self->value($other));
	return "$c = $d" if $one->{family} eq 'json';
	return $self->pick("$c = $d", "$c <> $d", "$c < $d", "$c IS DISTINCT FROM $d", "$c IS NOT DISTINCT FROM $d", "($c, $d) = ($v, $w)",
		"($c, $d) IN (($v, $w), (" . $self->value($one) . ', ' . $self->value($other) . '))',
		"($c, $d) < ($v, $w)", "($c = $v AND $d = $w)", "($c = $v OR $d = $w)", "coalesce($c, $d) = $v", "($c = $v AND $d IS NULL)",
			"($c IS NULL OR $d IS NOT NULL)", "$v IN ($c, $d)", "greatest($c, $d) = $v", "ROW($c, $d) IS NULL",
		"ROW($c, $d) IS NOT NULL", "($c = $d AND $c = $v)");
}

# Other tables, correlated or not.
sub _subquery
{
	my ($self, $scope) = @_;
	my $column = $self->column($scope, 'number') // return 'true';
	my $c = $column->{sql};
	my $inner = $self->relation(foreign => 1, quick => 1);
	my $n = $self->column($inner->{columns}, 'number');
	my $where = $self->chance(0.5) ? ' AND ' . $self->condition($inner->{columns}, 0) : '';
	$where =~ s/here\.volatile/here.stable/g;    # or it is run once for each row
	$where =~ s/random\(\)/0/g;
	return $self->pick(
		"EXISTS (SELECT 1 FROM $inner->{sql} WHERE $n->{sql} = $c$where)",
			"NOT EXISTS (SELECT FROM $inner->{sql} WHERE $n->{sql} = $c$where)",
			"(SELECT count(*) FROM $inner->{sql} WHERE $n->{sql} = $c$where) > 0",
		"EXISTS (SELECT 1 FROM keys WHERE k = $c)") if $self->chance(0.4);
	return $self->pick(
		"$c IN (SELECT $n->{sql} FROM $inner->{sql} WHERE true$where)",
			"$c NOT IN (SELECT $n->{sql} FROM $inner->{sql} WHERE $n->{sql} IS NOT NULL$where)",
		"$c = (SELECT max($n->{sql}) FROM $inner->{sql} WHERE true$where)", "$c = ANY (ARRAY(SELECT $n->{sql} FROM $inner->{sql} WHERE true$where))",
		"$c IN (SELECT k FROM keys WHERE k < 100 OR k > 1050)");
}

1;
