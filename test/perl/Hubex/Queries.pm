package Hubex::Queries;

=head1 NAME

Hubex::Queries - queries as a planner meets them, made up by chance

=head1 SYNOPSIS

	my $queries = Hubex::Queries->new(seed => 7, tables => \%tables);
	my $query = $queries->query(1234);    # the same for the same seed, number and tables
	say $query->{sql};

=head1 DESCRIPTION

C<tables> has, by name, a hash of C<columns>, a list of pairs of a name and a type; C<values>, by column, some it has;
C<foreign>, whether there is anything to find out about it; C<key>, a column whose values differ, if any; C<rows>.

A query is what L<Hubex::Differential> takes: C<number>, C<sql>, what of its result is fixed (C<total>, C<keys>,
C<all>), how it shall be run (C<way>, C<fetch>, C<settings>), and with which parameters (C<types>, C<arguments>).
C<shape> names the method that made it.

=cut

use strict;
use utf8;
use warnings;

use parent 'Hubex::Queries::Conditions';

use Digest::MD5 qw(md5);

# What the test wants to know about comes more often.
my %hot = map { $_ => 6 } qw(
	id number erp_id task_type_id work_type_id task_stage_id task_status_id criticality_id company_id asset_id requested_by_id assigned_to_id parent_id
	created assigned completed closed deadline last_modified is_closed is_completed deleted);
$hot{id} = $hot{created} = $hot{erp_id} = 14;

# Each with its weight.
my @shapes = (
	[ 30, '_simple' ], [ 13, '_aggregate' ], [ 16, '_join' ], [ 5, '_semi' ], [ 5, '_set' ], [ 5, '_cte' ], [ 4, '_window' ],
		[ 5, '_distinct' ], [ 4, '_lateral' ], [ 4, '_nested' ],
	[ 2, '_correlated' ], [ 2, '_recursive' ], [ 5, '_count' ], [ 4, '_whole' ], [ 1.5, '_failing' ], [ 2, '_locking' ], [ 3, '_children' ],
		[ 3, '_batches' ]);

my @ways = ([ 52, 'plain' ], [ 8, 'subquery' ], [ 8, 'prepared' ], [ 5, 'generic' ], [ 6, 'function' ], [ 5, 'cursor' ], [ 2, 'scroll' ],
	[ 3, 'pair' ], [ 3, 'hold' ], [ 3, 'explained' ]);

my @switches = map { "enable_$_" } qw(hashjoin mergejoin nestloop material memoize sort hashagg incremental_sort);

sub new
{
	my ($class, %option) = @_;
	return bless { seed => $option{seed}, tables => $option{tables}, has => $option{has} // {} }, $class;
}

sub query
{
	my ($self, $number) = @_;
	srand(unpack 'N', md5("$self->{seed} $number"));
	my $way = $self->weighted(@ways);
	my $generic = $way eq 'generic';
	$way = 'prepared' if $generic;
	@$self{qw(with_params params aliases way)} = ($way eq 'prepared' || $way eq 'function', [], 0, $way);

	my $shape = $self->weighted(@shapes);
	my $made = $self->$shape;
	$way = 'plain' if $made->{plain};

	my @params = @{ $self->{params} };
	my $executions = !@params ? 2 : $generic ? 3 : 7;
	my $query = {
		number => $number, shape => $shape, way => $way, keys => $made->{keys} // 0, total => $made->{total},
		types => [ map { $_->{type} } @params ],
		arguments => [ map { my $n = $_; join ', ', map { "CAST($_->{values}[$n] AS $_->{type})" } @params } 0 .. $executions - 1 ],
		fetch => $self->pick(1, 2, 5, 7, 50), settings => $self->_settings($generic) };
	for my $part (grep { defined $made->{$_} } qw(sql all))
	{
		$query->{$part} = $made->{$part} =~ s/\x{1}(\d+)\x{2}/\$$1/gr;
	}
	return $query;
}

# Of the session.
sub _settings
{
	my ($self, $generic) = @_;
	my @settings = map { "$_ = off" } grep { $self->chance(0.12) } @switches;
	push @settings, 'plan_cache_mode = force_generic_plan' if $generic;
	push @settings, "TimeZone = '" . $self->pick('Asia/Vladivostok', 'America/St_Johns', 'Europe/Berlin', 'Asia/Kathmandu', 'UTC')
		. "'" if $self->chance(0.4);
	push @settings, 'random_page_cost = ' . $self->pick(0.01, 1, 100) if $self->chance(0.1);
	push @settings, 'work_mem = 64' if $self->chance(0.1);
	push @settings, "DateStyle = '" . $self->pick('SQL, DMY', 'German', 'ISO, YMD', 'Postgres') . "'" if $self->chance(0.1);
	push @settings, 'cursor_tuple_fraction = ' . $self->pick('1.0', '0.001') if $self->chance(0.1);
	push @settings, 'from_collapse_limit = 1' if $self->chance(0.04);
	push @settings, 'join_collapse_limit = 1' if $self->chance(0.04);
	push @settings, 'geqo_threshold = 2' if $self->chance(0.04);
	push @settings, 'enable_partitionwise_join = on', 'enable_partitionwise_aggregate = on' if $self->chance(0.08);
	push @settings, 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0' if $self->chance(0.04);
	push @settings, 'enable_seqscan = off' if $self->chance(0.04);
	push @settings, 'extra_float_digits = 0' if $self->chance(0.02);
	push @settings, 'jit = on', 'jit_above_cost = 0' if $self->{way} eq 'plain' && $self->chance(0.01);
	return \@settings;
}

=head2 relation(foreign => 1, of => 'tasks', needs => 0, quick => 0)

A table with an alias of its own, as it stands in FROM, with the columns it brings into scope: a foreign one, of that
resource, one that needs an equality, one that can be read many times.

=cut

sub relation
{
	my ($self, %want) = @_;
	my @names = grep { my $table = $self->{tables}{$_}; (!$want{foreign} || $table->{foreign})
		&& (!$want{of} || ($table->{of} // '') eq $want{of}) && !$table->{needs} == !$want{needs}
		&& !($want{quick} && $table->{slow}) } sort keys %{ $self->{tables} };
	return undef unless @names;
	my $name = $self->weighted(map { [ $self->{tables}{$_}{weight}, $_ ] } @names);
	my $alias = 't' . ++$self->{aliases};
	return { $self->_scope($name, $alias), sql => "$name $alias" };
}

sub _scope
{
	my ($self, $name, $alias) = @_;
	my $table = $self->{tables}{$name};
	my @columns = map { {
		sql => "$alias.$_->[0]", name => $_->[0], type => $_->[1], family => $self->family($_->[1]),
		values => $table->{values}{ $_->[0] } // [], weight => $hot{ $_->[0] } // 1, plain => $table->{view} } }
	  @{ $table->{columns} };
	return (name => $name, alias => $alias, columns => \@columns, of => $table->{of} // '', rows => $table->{rows},
		key => defined $table->{key} ? "$alias.$table->{key}" : undef);
}

# The parts of a SELECT put together; ORDER BY and LIMIT decide what of the result is fixed.
sub _finish
{
	my ($self, %part) = @_;
	my @items = @{ $part{items} };
	my @order = @{ $part{order} // [] };
	my $n = 0;
	my @list = ((map { "$items[$_] AS c$_" } 0 .. $#items), $part{total} ? () : map { "$_->[0] AS k" . ++$n } @order);
	@list = @items if $part{bare};
	my $sql = ($part{with} // '') . 'SELECT ' . ($part{distinct} // '') . join(', ', @list) . " FROM $part{from}";
	$sql .= " WHERE $part{where}" if defined $part{where};
	$sql .= " GROUP BY $part{group}" if defined $part{group};
	$sql .= " HAVING $part{having}" if defined $part{having};
	$sql .= ' ORDER BY ' . join(', ', map { "$_->[0]$_->[1]" } @order) if @order;
	my $all = $sql;
	my $limit = $part{limit} // '';
	my $lock = $part{lock} // '';
	my $ties = $limit =~ /WITH TIES/ || $limit eq '';
	my $total = $part{total} && @order > 0;
	return { sql => "$sql$limit$lock", plain => $part{plain}, keys => $n, total => $total, $ties || $total ? () : (all => "$all$lock") };
}

# Items of a select list.
sub _items
{
	my ($self, $scope, $count) = @_;
	return map { $self->_item($scope) } 1 .. ($count // $self->between(1, 4));
}

sub _item
{
	my ($self, $scope) = @_;
	my $column = $self->column($scope);
	my $c = $column->{sql};
	my ($alias) = $c =~ /^(\w+)\./;
	return $self->weighted(
		[ 12, $c ], [ $column->{plain} ? 0 : 0.4, "$alias.tableoid::regclass" ], [ 0.4, "coalesce($c\::text, '-')" ], [ 0.3, "$c IS NULL" ],
			[ 0.3, "$c = " . $self->literal($column) . ($column->{family} eq 'json' ? '::jsonb' : '') ],
		[ 0.2, '7' ], [ 0.3, "(SELECT count(*) FROM keys WHERE k > 1000)" ], [ 0.3, "row($c, 1)" ], [ 0.2, "md5($c\::text)" ],
			[ 0.3, "length($c\::text)" ]);
}

# An order: by some keys, or by all it takes to be total.
sub _order
{
	my ($self, $scope, @unique) = @_;
	return ([], 0) if $self->chance(0.3);
	my @columns = grep { $_->{family} ne 'json' } @$scope;
	my @keys;
	for (1 .. $self->weighted([ 5, 1 ], [ 3, 2 ], [ 1, 3 ]))
	{
		my @usual = grep { $_->{name} =~ /^(?:created|last_modified|id)$/ } @columns;
		my $column = @usual && $self->chance(0.5) ? $self->pick(@usual) : $self->column(\@columns);
		my $c = $column->{sql};
		$c = $self->pick("lower($c)", "$c COLLATE \"C\"", "length($c)") if $column->{family} eq 'text' && $self->chance(0.2);
		$c = $self->pick("-$c", "$c % 7", "abs($c)") if $column->{family} eq 'number' && $self->chance(0.1);
		push @keys, [ $c, $self->_direction ];
	}
	my $total = @unique && !grep { !defined } @unique;
	return (\@keys, 0) unless $total && $self->chance(0.6);
	return ([ @keys, map { [ $_, $self->_direction ] } @unique ], 1);
}

sub _direction { return $_[0]->weighted([ 6, '' ], [ 4, ' DESC' ], [ 1, ' ASC' ], [ 1, ' NULLS FIRST' ], [ 1, ' NULLS LAST' ],
	[ 1, ' DESC NULLS LAST' ], [ 1, ' DESC NULLS FIRST' ]) }

sub _limit
{
	my ($self, $has_order) = @_;
	my $count = sub { $self->pick(0, 1, 1, 2, 3, 5, 10, 20, 50, 100, 1000) };
	my $number = sub {
		my $n = $count->();
		return $self->weighted([ 10, $n ], [ 1, 'NULL' ], [ 1, "($n + 1)" ], [ 1, "(SELECT $n)" ],
			[ 3, $self->param($self->pick(qw(int8 int4 int2 numeric)), $count) ], [ 0.5, "$n\::int2" ], [ 0.3, "$n.4" ],
			[ 0.3, "(SELECT count(*) FROM keys)" ], [ 0.3, "here.volatile($n)" ]);
	};
	return ' FETCH FIRST ' . $count->() . ' ROWS WITH TIES' if $has_order && $self->chance(0.06);
	return ' OFFSET ' . $number->() if $self->chance(0.07);
	return ' LIMIT ALL' if $self->chance(0.02);
	return ' LIMIT ' . $number->() . ($self->chance(0.3) ? ' OFFSET ' . $number->() : '');
}

sub _where { return $_[0]->chance(0.85) ? $_[0]->condition($_[1]) : undef }

# SHAPES. Of one table.

sub _simple
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my ($order, $total) = $self->_order($relation->{columns}, $relation->{key});
	return $self->_finish(
		items => [ $self->_items($relation->{columns}) ], from => $relation->{sql}, where => $self->_where($relation->{columns}),
			order => $order, total => $total,
		limit => $self->chance(0.45) ? $self->_limit(scalar @$order) : '');
}

# Whole rows, no columns, all columns.
sub _whole
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my $a = $relation->{alias};
	my ($order, $total) = $self->_order($relation->{columns}, $relation->{key});
	($order, $total) = ([], 0) unless $total;
	my $item = $self->pick("$a.*", '*', '', $a, "$a\::text", "to_jsonb($a)", "$a IS NULL, $a IS NOT NULL", "row($a.*)", "($a).id",
		"num_nonnulls($a.*)", $self->{tables}{ $relation->{name} }{view} ? "$a.id" : ("$a.*, $a.tableoid::regclass", "$a.tableoid = 0"));
	return $self->_finish(
		bare => 1, items => [$item], from => $relation->{sql}, where => $self->_where($relation->{columns}), order => $order, total => $total,
		limit => $self->chance(0.3) ? $self->_limit(0) : '');
}

sub _count
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my $c = $self->column($relation->{columns})->{sql};
	my $where = $self->_where($relation->{columns});
	my $item = $self->pick('count(*)', 'count(*)', 'count(*)', 'count(1)', "count($relation->{columns}[0]{sql})", "count($c)",
		'count(*) > 5', "count($relation->{alias})", 'count(*), 1', 'count(*) + count(*)',
		"count(*) FILTER (WHERE $c IS NOT NULL)", 'count(*), count(*)', "count(NULL)", "count(DISTINCT $c\::text)");
	return $self->_finish(
		items => [$item], from => $relation->{sql}, where => $where,
		having => $self->chance(0.1) ? $self->pick('count(*) > 3', 'count(*) = 0', 'false', "max($relation->{columns}[0]{sql}) IS NOT NULL") : undef,
		limit => $self->chance(0.1) ? $self->pick(' LIMIT 1', ' LIMIT 0', ' OFFSET 1', ' LIMIT 5') : '', total => 1,
			order => []) unless $self->chance(0.2);
	return { sql => "SELECT (SELECT $item FROM $relation->{sql}" . (defined $where ? " WHERE $where" : '') . ') AS n, k FROM keys' } if $item !~ /,/;
	return { sql => "SELECT * FROM (SELECT $item FROM $relation->{sql}" . (defined $where ? " WHERE $where" : '') . ') s (n, m)' };
}

sub _aggregates
{
	my ($self, $relation, $count) = @_;
	my @list;
	for (1 .. $count)
	{
		my $column = $self->column($relation->{columns});
		my ($c, $f) = @$column{qw(sql family)};
		my $call = $self->pick('count(*)', "count($c)",
			$f eq 'number' ? ("sum($c)", "min($c)", "max($c)", "round(avg($c), 4)", "count(DISTINCT $c)", "array_agg($c ORDER BY $c)",
				"bit_and($c\::int8)", "every($c > 2)")
			: $f eq 'json' ? "count($c -> 'erpID')"
			: $f eq 'boolean' ? ("bool_or($c)", "every($c)")
			: ("min($c)", "max($c)", "count(DISTINCT $c)", "string_agg($c\::text, ',' ORDER BY $c)", "max(DISTINCT $c)"));
		$call .= ' FILTER (WHERE ' . $self->condition($relation->{columns}, 0) . ')' if $call !~ /^round/ && $self->chance(0.1);
		push @list, $call;
	}
	return @list;
}

sub _aggregate
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my @columns = grep { $_->{family} ne 'json' } @{ $relation->{columns} };
	my @group = $self->chance(0.6) ? map { $self->column(\@columns)->{sql} } 1 .. $self->between(1, 2) : ();
	@group = map { $self->chance(0.1) ? "length($_\::text)" : $_ } @group;
	my @items = (@group, $self->_aggregates($relation, $self->between(1, 3)));
	my $having = $self->chance(0.2) ? $self->pick('count(*) > 1', 'count(*) < 3', "max($columns[0]{sql}) IS NOT NULL", @group
		? "$group[0] IS NOT NULL" : 'true') : undef;
	my %grouping = %{ $self->weighted([ 12, { group => join ', ', @group } ],
		[ 1, { group => 'ROLLUP (' . join(', ', @group) . ')', sets => 1 } ],
		[ 1, { group => 'GROUPING SETS ((' . join(', ', @group) . '), ())', sets => 1 } ]) };
	my $ordered = @group && !$grouping{sets} && $self->chance(0.3);
	return $self->_finish(
		items => \@items, from => $relation->{sql}, where => $self->_where($relation->{columns}), having => $having, @group
			? (group => $grouping{group}) : (),
		order => $ordered ? [ map { [ $_, $self->_direction ] } @group ] : [], total => $ordered, limit => $ordered && $self->chance(0.4)
			? $self->_limit(1) : '');
}

sub _distinct
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my @columns = grep { $_->{family} ne 'json' } @{ $relation->{columns} };
	my $where = $self->_where($relation->{columns});
	if ($self->chance(0.4) && defined $relation->{key})
	{
		my $c = $self->column(\@columns)->{sql};
		my $d = $self->column(\@columns)->{sql};
		return $self->_finish(
			distinct => "DISTINCT ON ($c) ", items => [ $c, $relation->{key}, $d ], from => $relation->{sql}, where => $where,
				order => [ [ $c, $self->_direction ], [ $d, $self->_direction ], [ $relation->{key}, '' ] ],
			total => 1, limit => $self->chance(0.3) ? $self->_limit(0) : '');
	}
	my @items = map { $self->column(\@columns)->{sql} } 1 .. $self->between(1, 2);
	my $ordered = $self->chance(0.5);
	return $self->_finish(
		distinct => 'DISTINCT ', items => \@items, from => $relation->{sql}, where => $where, order => $ordered
			? [ map { [ $_, $self->_direction ] } @items ] : [], total => $ordered,
		limit => $self->chance(0.4) ? $self->_limit($ordered) : '');
}

sub _window
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my @columns = grep { $_->{family} ne 'json' } @{ $relation->{columns} };
	my ($c, $d) = map { $self->column(\@columns)->{sql} } 1 .. 2;
	my $where = $self->_where($relation->{columns});
	my $id = $relation->{key};
	my @calls = (
		"rank() OVER (ORDER BY $c" . $self->_direction . ')', "count(*) OVER ()", "count(*) OVER (PARTITION BY $c)",
			"dense_rank() OVER (PARTITION BY $d ORDER BY $c)", "max($c) OVER (PARTITION BY $d)",
		defined $id ? ("row_number() OVER (ORDER BY $c" . $self->_direction . ", $id)", "lag($d) OVER (PARTITION BY $c ORDER BY $id)",
			"count(*) OVER (ORDER BY $id ROWS 2 PRECEDING)",
			"first_value($c) OVER (ORDER BY $d, $id)", "ntile(3) OVER (ORDER BY $id DESC)") : ());
	my @items = ($c, $self->some($self->between(1, 2), @calls));
	if (defined $id && $self->chance(0.4))
	{
		my $sql = "SELECT * FROM (SELECT $id, $c AS c, $d AS d, row_number() OVER (" . ($self->chance(0.5) ? "PARTITION BY $d " : '')
			. "ORDER BY $c" . $self->_direction . ", $id) AS n FROM $relation->{sql}"
		  . (defined $where ? " WHERE $where" : '') . ') s WHERE n <= ' . $self->param('int4', sub { $self->pick(0, 1, 3, 10) });
		return { sql => $sql };
	}
	return $self->_finish(items => [ $id // '1', @items ], from => $relation->{sql}, where => $where);
}

# Divides by nought where a row has a certain id: an error, or none, on all sides.
sub _failing
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my ($column) = grep { $_->{name} eq 'id' } @{ $relation->{columns} };
	return $self->_simple unless $column;
	return {
		plain => 1,
		sql => "SELECT 1 / ($column->{sql} - " . $self->literal($column) . ") AS c FROM $relation->{sql} WHERE "
			. $self->condition($relation->{columns}, 0) } if $self->chance(0.6);
	my $limit = $self->pick(' LIMIT -1', ' OFFSET -2', ' LIMIT ' . $self->param('int8', sub { $self->pick(-1, 1) }), ' LIMIT (SELECT -3)',
		' LIMIT 2 OFFSET (SELECT k FROM keys)');
	return { sql => "SELECT $column->{sql} FROM $relation->{sql} ORDER BY $column->{sql}$limit", total => 1, plain => $self->{way} eq 'hold' };
}

sub _locking
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	return $self->_simple unless $relation->{of} eq 'tasks' && $relation->{name} !~ /view|every/;
	my $no_cursor = $self->{way} =~ /hold|scroll/;    # those cannot be locked
	my $lock = $self->pick(' FOR UPDATE', ' FOR SHARE', ' FOR NO KEY UPDATE', " FOR UPDATE OF $relation->{alias}",
		' FOR UPDATE SKIP LOCKED', ' FOR KEY SHARE NOWAIT');
	return $self->_finish(items => [ $self->_items($relation->{columns}) ], from => $relation->{sql},
		where => $self->_where($relation->{columns}), lock => $lock, plain => $no_cursor) if $self->chance(0.5);
	my ($order, $total) = ([ [ $relation->{key}, '' ] ], 1);
	return $self->_finish(
		items => [ "o.id", "o.customer", $self->_items($relation->{columns}, 2) ],
			from => "orders o JOIN $relation->{sql} ON $relation->{alias}.erp_id = o.erp_id",
			where => $self->condition($relation->{columns}, 0),
		lock => $self->pick(' FOR UPDATE OF o', ' FOR UPDATE', ' FOR SHARE'), plain => $no_cursor);
}

# The list of a parent, which has to be named; one that is not there is an error of the API, and so of the query.
sub _children
{
	my ($self) = @_;
	my $child = $self->relation(needs => 1) // return $self->_simple;
	my ($parent) = grep { $_->{name} eq $self->{tables}{ $child->{name} }{needs} } @{ $child->{columns} };
	my ($p, @ids) = ($parent->{sql}, @{ $parent->{values} });
	my $some = sub { join ', ', map { $self->chance(0.05) ? 'NULL' : $self->pick(@ids) } 1 .. $_[0] };
	my $value = $self->param($self->pick(qw(int8 int4 int2)), sub { $self->pick(@ids) });
	my $array = $self->param('int8[]', sub { 'ARRAY[' . $some->($self->between(0, 5)) . ']::int8[]' });
	my $test = $self->pick(
		"$p = " . $some->(1), "$p = $value", "$value = $p", "$p IN (" . $some->(3) . ')', "$p IN ($value, " . $some->(2) . ')',
			"$p = ANY ($array)", "$p = here.stable(" . $self->pick(@ids) . ')',
		"($p = " . $self->pick(@ids) . " AND $p = $value)", "$p = ANY (ARRAY(SELECT task_id FROM orders WHERE id < 9))",
			"$p = (SELECT max(k) FROM keys WHERE k < 1100)", "$p = (SELECT " . $self->pick(@ids) . ')');
	my $also = sub { $self->chance(0.4) ? ' AND ' . $self->condition([ grep { $_ != $parent } @{ $child->{columns} } ], 0) : '' };
	return $self->_finish(
		items => [ $self->pick("count(*)", "max($p)") ], from => $child->{sql}, where => $test . $also->()) if $self->chance(0.2);
	if ($self->chance(0.5))
	{
		my ($order, $total) = $self->_order($child->{columns}, $p, $child->{key});
		return $self->_finish(
			items => [ $self->_items($child->{columns}) ], from => $child->{sql}, where => $test . $also->(), order => $order,
				total => $total, limit => $self->chance(0.4) ? $self->_limit(scalar @$order) : '');
	}
	my $one = $self->relation(foreign => 1, of => 'tasks', quick => 1);
	return $self->_simple if $one->{name} eq 'typed_tasks';
	my ($id) = map { $_->{sql} } grep { $_->{name} eq 'id' } @{ $one->{columns} };
	my $where = $self->condition($one->{columns}, 0) . $also->();
	return $self->_finish(items => [ $self->_items([ @{ $one->{columns} }, @{ $child->{columns} } ]) ], from => "$one->{sql} "
		. $self->pick('JOIN', 'LEFT JOIN') . " $child->{sql} ON $p = $id", where => $where) if $self->chance(0.4);
	return $self->_finish(items => [ $id, "(SELECT count(*) FROM $child->{sql} WHERE $p = $id)" ], from => $one->{sql},
		where => $self->condition($one->{columns}, 0)) if $self->chance(0.5);
	return $self->_finish(items => [ 'o.id', $self->_items($child->{columns}) ], from => "orders o JOIN $child->{sql} ON $p = o.task_id",
		where => 'o.id < 20' . $also->());
}

# Joins by keys inside of what is run again and again.
sub _batches
{
	my ($self) = @_;
	my $one = $self->relation(foreign => $self->chance(0.3), quick => 1);
	my $other = $self->relation(foreign => 1, quick => 1);
	my $third = $self->relation(foreign => $self->chance(0.3), quick => 1);
	my $kind = $self->pick('JOIN', 'LEFT JOIN');
	my $inner = "$one->{sql} $kind $other->{sql} ON " . $self->_link($one, $other, 1)
		. ($self->chance(0.3) ? ' AND ' . $self->condition($other->{columns}, 0) : '');
	my $where = ($self->_link($third, $one, 1) . ($self->chance(0.3) ? ' AND '
		. $self->condition([ @{ $one->{columns} }, @{ $other->{columns} } ], 0)
		: '')) =~ s/here\.volatile/here.stable/gr =~ s/random\(\)/0/gr;
	my $first = $third->{columns}[0]{sql};
	my $few = $third->{of} eq '' ? 'true' : $self->condition($third->{columns}, 0) . " AND $first % 7 < 2";
	my $test = $self->pick("EXISTS (SELECT FROM $inner WHERE $where)", "NOT EXISTS (SELECT FROM $inner WHERE $where)",
		"(SELECT count(*) FROM $inner WHERE $where) > 1");
	return $self->_finish(items => [ $self->_items($third->{columns}) ], from => $third->{sql}, where => "$few AND $test") if $self->chance(0.5);
	return $self->_finish(items => [ $first, 's.a', 's.b' ], from => "$third->{sql} " . $self->pick('JOIN LATERAL', 'LEFT JOIN LATERAL')
		. " (SELECT $one->{columns}[0]{sql} AS a, $other->{columns}[0]{sql} AS b FROM $inner WHERE $where) s ON true", where => $few);
}

# SHAPES. Of several.

# What joins two relations: an equality, by what they have in common.
sub _link
{
	my ($self, $one, $other, $tight) = @_;
	my %of = map { $_->{name} => $_ } @{ $one->{columns} };
	my %with = map { $_->{name} => $_ } @{ $other->{columns} };
	my @pairs;
	my $pair = sub { my ($weight, $c, $d) = @_; push @pairs, [ $weight, "$of{$c}{sql} = $with{$d}{sql}" ] if $of{$c} && $with{$d}
		&& $of{$c}{family} eq $with{$d}{family} };
	$pair->(6, 'erp_id', 'erp_id');
	$pair->(2, 'id', 'id') if $one->{of} eq $other->{of};
	if ($one->{of} eq 'tasks' && $other->{of} eq 'tasks')
	{
		$pair->(6, 'parent_id', 'id');
		$pair->(6, 'id', 'parent_id');
		$pair->(2, 'asset_id', 'asset_id');
		$pair->(1, 'company_id', 'company_id') unless $tight;
		$pair->(1, 'created', 'last_modified');
	}
	$pair->(9, "company_id", 'id') if $other->{of} eq 'companies';
	$pair->(9, 'id', 'company_id') if $one->{of} eq 'companies';
	$pair->(9, 'asset_id', 'id') if $other->{of} eq 'assets' && $one->{of} ne 'assets';
	$pair->(9, 'id', 'asset_id') if $one->{of} eq 'assets' && $other->{of} ne 'assets';
	$pair->(9, 'id', 'task_id') if $one->{of} eq 'tasks';
	$pair->(9, 'task_id', 'id') if $other->{of} eq 'tasks';
	$pair->(4, 'id', 'k');
	$pair->(4, 'k', 'id');
	$pair->(2, 'company_id', 'company_id') if !$tight && ($one->{name} eq 'orders' || $other->{name} eq 'orders');
	return @pairs ? $self->weighted(@pairs) : "$one->{columns}[0]{sql} = $other->{columns}[0]{sql}";
}

sub _join
{
	my ($self) = @_;
	my $many = $self->chance(0.25);
	my $one = $self->relation(foreign => $self->chance(0.6));
	my $other = $self->relation(foreign => 1);
	my $type = sub { $self->weighted([ 8, 'JOIN' ], [ 5, 'LEFT JOIN' ], [ 2, 'RIGHT JOIN' ], [ 2, 'FULL JOIN' ]) };
	my $further = sub { my ($kind, @scope) = @_; $kind !~ /FULL/ && $self->chance(0.25) ? ' AND ' . $self->condition(\@scope, 0) : '' };

	my @scope = (@{ $one->{columns} }, @{ $other->{columns} });
	my $kind = $type->();
	my $from = "$one->{sql} $kind $other->{sql} ON " . $self->_link($one, $other, $many) . $further->($kind, @scope);
	my @unique = map { $_->{key} } $one, $other;
	if ($many)
	{
		my $third = $self->relation(foreign => $self->chance(0.5));
		my $third_kind = $type->();
		push @scope, @{ $third->{columns} };
		$from .= " $third_kind $third->{sql} ON " . $self->_link($self->chance(0.5) ? $one : $other, $third, 1) . $further->($third_kind, @scope);
		push @unique, $third->{key};
	}
	my ($order, $total) = $self->_order(\@scope, @unique);
	my $where = $self->chance(0.7) ? $self->condition(\@scope, $self->between(0, 1)) : undef;
	if ($self->chance(0.15))
	{
		my @group = map { $_->{sql} } $self->column([ grep { $_->{family} ne 'json' } @{ $one->{columns} } ]);
		return $self->_finish(items => [ @group, 'count(*)', $self->_aggregates($other, 1) ], from => $from, where => $where, group => $group[0]);
	}
	return $self->_finish(
		items => [ $self->_items(\@scope) ], from => $from, where => $where, order => $order, total => $total, limit => $self->chance(0.4)
			? $self->_limit(scalar @$order) : '');
}

sub _semi
{
	my ($self) = @_;
	my $one = $self->relation(foreign => $self->chance(0.6));
	my $other = $self->relation(foreign => 1);
	my $link = $self->_link($one, $other);
	my $inner = $self->chance(0.5) ? ' AND ' . $self->condition($other->{columns}, 0) : '';
	my ($left, $right) = split / = /, $link;
	my $test = $self->pick("EXISTS (SELECT 1 FROM $other->{sql} WHERE $link$inner)",
		"NOT EXISTS (SELECT 1 FROM $other->{sql} WHERE $link$inner)", "$left IN (SELECT $right FROM $other->{sql} WHERE true$inner)",
		"$left NOT IN (SELECT $right FROM $other->{sql} WHERE $right IS NOT NULL$inner)",
			"$left NOT IN (SELECT $right FROM $other->{sql} WHERE true$inner)",
			"$left = ANY (ARRAY(SELECT $right FROM $other->{sql} WHERE true$inner))",
		"$left IN (SELECT $right FROM $other->{sql} WHERE $right IS NOT NULL$inner ORDER BY $right LIMIT 3)",
			"($left = (SELECT min($right) FROM $other->{sql} WHERE true$inner))");
	my ($order, $total) = $self->_order($one->{columns}, $one->{key});
	return $self->_finish(
		items => [ $self->_items($one->{columns}) ], from => $one->{sql}, where => $test
			. ($self->chance(0.5) ? ' AND ' . $self->condition($one->{columns}, 0) : ''), order => $order, total => $total,
		limit => $self->chance(0.3) ? $self->_limit(scalar @$order) : '');
}

sub _lateral
{
	my ($self) = @_;
	my $one = $self->relation(foreign => $self->chance(0.3));
	my $other = $self->relation(foreign => 1);
	my $link = $self->_link($one, $other);
	my $where = $self->chance(0.4) ? ' AND ' . $self->condition($other->{columns}, 0) : '';
	my $first = $other->{columns}[0]{sql};
	my $inner = $self->weighted(
		[ 3, defined $other->{key} ? "SELECT $other->{alias}.* FROM $other->{sql} WHERE $link$where ORDER BY "
			. $self->pick('', $self->column($other->{columns}, 'moment') ? $self->column($other->{columns}, 'moment')->{sql}
			. $self->_direction . ', ' : '')
			. "$other->{key}" . $self->_direction . $self->pick(' LIMIT 2', ' LIMIT 1', ' OFFSET 1', ' LIMIT 1 OFFSET 1')
				: "SELECT $other->{alias}.* FROM $other->{sql} WHERE $link$where" ],
		[ 2, "SELECT count(*) AS id, max($first) AS m FROM $other->{sql} WHERE $link$where" ],
		[ 1, "SELECT $other->{alias}.* FROM $other->{sql} WHERE $link$where" ]);
	my $from = "$one->{sql} " . $self->pick("CROSS JOIN LATERAL ($inner) s", "LEFT JOIN LATERAL ($inner) s ON true",
		"JOIN LATERAL ($inner) s ON " . $self->condition($one->{columns}, 0));
	return $self->_finish(
		items => [ $self->_items($one->{columns}, 2), 's.id' ], from => $from,
		where => $one->{name} eq 'keys' || $one->{name} eq 'orders' ? undef : $self->condition($one->{columns}, 0)
			. " AND $one->{columns}[0]{sql} % 7 < 2");
}

# A part that can stand by itself: some columns of one table.
sub _part
{
	my ($self, @names) = @_;
	my $relation = $self->relation(foreign => 1, of => 'tasks');
	my $where = $self->_where($relation->{columns});
	return "SELECT " . join(', ', map { "$relation->{alias}.$_" } @names) . " FROM $relation->{sql}" . (defined $where ? " WHERE $where" : '');
}

sub _set
{
	my ($self) = @_;
	my @names = @{ $self->pick([qw(id)], [qw(id erp_id)], [qw(company_id)], [qw(erp_id)],
		[qw(id created parent_id)]) };    # not of types whose equals look different
	my $part = sub {
		my $sql = $self->_part(@names);
		my ($alias) = $sql =~ /SELECT (\w+)\./;
		return $self->chance(0.2) && $sql !~ / every / ? "($sql ORDER BY $alias.id" . $self->_direction
			. $self->pick(' LIMIT 10', ' LIMIT 3', ' OFFSET 100', ' LIMIT 20 OFFSET 5') . ')' : "($sql)";
	};
	my $kind = sub { $self->pick('UNION', 'UNION ALL', 'UNION ALL', 'INTERSECT', 'INTERSECT ALL', 'EXCEPT', 'EXCEPT ALL') };
	my $sql = $part->() . ' ' . $kind->() . ' ' . $part->() . ($self->chance(0.2) ? ' ' . $kind->() . ' ' . $part->() : '');
	return { sql => $sql } if $self->chance(0.5);
	return { sql => "SELECT * FROM ($sql) s ORDER BY " . join(', ', 1 .. @names) . $self->pick('', ' LIMIT 5', ' OFFSET 3', ' LIMIT 30'),
		total => 1 };
}

sub _cte
{
	my ($self) = @_;
	my $how = $self->pick('', 'MATERIALIZED ', 'NOT MATERIALIZED ');
	my $part = $self->_part(qw(id erp_id company_id created parent_id));
	my ($alias) = $part =~ /SELECT (\w+)\./;
	$part .= " ORDER BY $alias.created, $alias.id LIMIT " . $self->pick(1, 5, 40) if $self->chance(0.3) && $part !~ / every /;
	my %scope = $self->_scope('tasks', 'x');
	my @columns = grep { $_->{name} =~ /^(?:id|erp_id|company_id|created|parent_id)$/ } @{ $scope{columns} };
	my $where = $self->condition(\@columns, 0);
	my $other = $self->relation(foreign => 1);
	return { sql => "WITH x AS $how($part) " . $self->pick(
		"SELECT * FROM x WHERE $where", "SELECT count(*), min(created) FROM x WHERE $where",
			"SELECT x.id, y.id FROM x JOIN x y ON x.parent_id = y.id",
			"SELECT x.id AS a, y.id AS b FROM x LEFT JOIN x y ON y.company_id = x.company_id AND y.id < x.id WHERE $where",
		"SELECT (SELECT count(*) FROM x), (SELECT max(id) FROM x WHERE $where)",
			"SELECT x.id AS a, $other->{columns}[0]{sql} AS b FROM x JOIN $other->{sql} ON "
			. $self->_link({ of => 'tasks', name => 'x', columns => \@columns }, $other),
		"SELECT * FROM x UNION ALL SELECT * FROM x WHERE $where", "SELECT id FROM x WHERE EXISTS (SELECT 1 FROM x y WHERE y.parent_id = x.id)") };
}

sub _recursive
{
	my ($self) = @_;
	my $part = $self->_part(qw(id parent_id));
	my $table = $self->relation(foreign => 1, of => 'tasks');
	my $link = $self->pick("$table->{alias}.id = x.parent_id", "$table->{alias}.parent_id = x.id");
	return { sql => 'WITH RECURSIVE x (id, parent_id, level) AS ('
		. "SELECT s.id::int8, s.parent_id::int8, 1 FROM ($part) s UNION "
		. "SELECT $table->{alias}.id::int8, $table->{alias}.parent_id::int8, level + 1 FROM x JOIN $table->{sql} ON $link WHERE level < 4"
		. ') SELECT * FROM x' };
}

sub _nested
{
	my ($self) = @_;
	my $relation = $self->relation(foreign => 1);
	my $where = $self->_where($relation->{columns});
	my $inner = "SELECT $relation->{alias}.* FROM $relation->{sql}" . (defined $where ? " WHERE $where" : '');
	if (defined $relation->{key} && $self->chance(0.6))
	{
		my $moment = $self->column($relation->{columns}, 'moment');
		$inner .= ' ORDER BY ' . ($moment && $self->chance(0.5) ? "$moment->{sql}" . $self->_direction . ', ' : '') . $relation->{key}
			. $self->_direction . $self->_limit(0);
		$inner =~ s/here\.volatile\((\d+)\)/$1/g;
	}
	$inner .= ' OFFSET 0' if $inner !~ /LIMIT|OFFSET|FETCH/ && $self->chance(0.3);
	my %outer = $self->_scope($relation->{name}, 's');
	my ($order, $total) = $self->_order($outer{columns}, $outer{key});
	return $self->_finish(
		items => [ $self->chance(0.3) ? 'count(*)' : $self->_items($outer{columns}) ], from => "($inner) s",
			where => $self->_where($outer{columns})) if $self->chance(0.3);
	return $self->_finish(
		items => [ grep { !/tableoid/ } $self->_items($outer{columns}), '1' ], from => "($inner) s",
			where => $self->_where($outer{columns}), order => $order, total => $total, limit => $self->chance(0.4)
			? $self->_limit(scalar @$order) : '');
}

sub _correlated
{
	my ($self) = @_;
	my $one = $self->relation(foreign => $self->chance(0.3));
	my $other = $self->relation(foreign => 1);
	my $link = $self->_link($one, $other);
	my $first = $other->{columns}[0]{sql};
	my $scalar = $self->pick("(SELECT count(*) FROM $other->{sql} WHERE $link)", "(SELECT max($first) FROM $other->{sql} WHERE $link AND "
		. $self->condition($other->{columns}, 0) . ')',
		"(SELECT $first FROM $other->{sql} WHERE $link ORDER BY $first LIMIT 1)",
			"ARRAY(SELECT $first FROM $other->{sql} WHERE $link ORDER BY $first)", "EXISTS (SELECT FROM $other->{sql} WHERE $link)");
	return $self->_finish(
		items => [ $one->{columns}[0]{sql}, $scalar ], from => $one->{sql}, where => $one->{name} eq 'keys' || $one->{name} eq 'orders'
			? undef : $self->condition($one->{columns}, 0) . " AND $one->{columns}[0]{sql} % 7 < 2");
}

1;
