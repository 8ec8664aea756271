package Hubex::Queries::Values;

=head1 NAME

Hubex::Queries::Values - what the columns of a generated query are compared with

=head1 DESCRIPTION

Values come in all the forms SQL has for them: literals with and without a type, casts, expressions that are constant,
stable or volatile, subqueries, parameters of other types than the column's. Most are values the column has, so that
queries find something; the others are those that programs stumble over.

A parameter stands in the text as a mark until the query is finished, and becomes C<$1> or a literal then.

=cut

use strict;
use utf8;
use warnings;

# Texts that somebody has to quote, encode or fold, and mostly forgets to.
our @texts = (
	'', ' ', q(O'Hara & Sons), '100% "готово"', 'a+b c', 'x&erpID=y', '#1', '%41', '%', 'a%b_c', '\\', 'C:\\new\\table', "line\nend", "tab\there",
	"cr\r\nlf", '🚨🥶', 'Ёлка', 'ёлка', 'ЁЛКА', ' leading', 'trailing ', 'NULL', 'null', '0', '007', 'true', '1,2', '[1, 2]', '{"a": 1}',
		'"quoted"', 'a;b', '?',
	'/', '..', 'a|b', "e\x{301}t\x{e9}", 'straße', 'STRASSE', 'İstanbul', "\x{200b}", "\x{1f468}\x{200d}\x{1f467}", '<b>&amp;</b>', 'a=b',
		'$1', '${x}', ':name', q(''), '--',
	'/* */', 'é' x 40);

my @integers = (0, -1, 1, 2**31 - 1, 2**31, -2**31, 2**40, '9223372036854775807', '-9223372036854775808', '100', '1000', '1050');
my @moments = (
	'infinity', '-infinity', '0001-01-01 00:00:00+00', '10000-01-01 00:00:00+00', '9999-12-31 23:59:59.999999+00', '294276-12-31 23:59:59.999999+00',
	'4713-01-01 00:00:00+00 BC', '1970-01-01 00:00:00+00', '2025-03-30 02:30:00+00', '2025-04-01 00:00:00+00', '2025-07-20 03:00:00+00',
		'2025-05-15 12:34:56.789012+00');

my %literals = (
	number => sub {
		my ($self, $column) = @_;
		my $number = $self->chance(0.9) && @{ $column->{values} } ? $self->pick(@{ $column->{values} }) : $self->pick(@integers);
		return $column->{type} =~ /positive/ && $number <= 0 ? 5 : $number;
	},
	text => sub {
		my ($self, $column) = @_;
		return $self->quote($self->chance(0.75) && @{ $column->{values} } ? $self->pick(@{ $column->{values} }) : $self->pick(@texts));
	},
	moment => sub {
		my ($self, $column) = @_;
		return $self->quote($self->chance(0.7) && @{ $column->{values} } ? $self->pick(@{ $column->{values} }) : $self->pick(@moments));
	},
	boolean => sub { return $_[0]->pick('true', 'false') },
	json => sub { return $_[0]->pick(q('{}'), q('null'), q('{"isRated": false}')) });

sub chance { return rand() < $_[1] }
sub pick { return $_[ 1 + int rand(@_ - 1) ] }
sub between { return $_[1] + int rand($_[2] - $_[1] + 1) }

# So many of a list, each once, in any order.
sub some
{
	my ($self, $count, @list) = @_;
	my @chosen;
	push @chosen, splice @list, int rand(@list), 1 while @list && $count-- > 0;
	return @chosen;
}

# One of a list of pairs of a weight and a thing.
sub weighted
{
	my ($self, @pairs) = @_;
	my $sum = 0;
	$sum += $_->[0] for @pairs;
	my $at = rand($sum);
	for my $pair (@pairs)
	{
		$at -= $pair->[0];
		return $pair->[1] if $at < 0;
	}
	return $pairs[-1][1];
}

sub quote { return "'" . $_[1] =~ s/'/''/gr . "'" }

sub family
{
	my ($self, $type) = @_;
	return $type =~ /int|numeric/ ? 'number' : $type =~ /^timestamp|^date/ ? 'moment' : $type =~ /bool/ ? 'boolean' : $type =~ /json/
		? 'json' : 'text';
}

=head1 METHODS

=head2 param($type, sub { literal })

A parameter; the code gives a literal for each execution.

=head2 value($column)

An expression that the column can be compared with.

=head2 literal($column), null($column)

A bare literal of its family; NULL.

=head2 list($column, $count)

So many expressions, with NULLs now and then.

=head2 array($column)

An array of the column's type, as an expression.

=cut

sub param
{
	my ($self, $type, $literal) = @_;
	return 'CAST(' . $literal->() . " AS $type)" unless $self->{with_params} && @{ $self->{params} } < 6;
	push @{ $self->{params} }, { type => $type, values => [ map { $self->chance(0.06) ? 'NULL' : $literal->() } 1 .. 7 ] };
	return "\x{1}" . @{ $self->{params} } . "\x{2}";
}

sub value
{
	my ($self, $column) = @_;
	my $make = "_$column->{family}";
	return $self->$make($column);
}

sub literal
{
	my ($self, $column) = @_;
	return $literals{ $column->{family} }->($self, $column);
}

sub null { return $_[0]->pick('NULL', "NULL::$_[1]{type}", "nullif(1, 1)::text::$_[1]{type}") }

sub list
{
	my ($self, $column, $count) = @_;
	return map { $self->chance(0.03) ? 'NULL' : $self->chance(0.25) ? $self->value($column) : $self->literal($column) } 1 .. $count;
}

sub array
{
	my ($self, $column) = @_;
	my $type = $column->{type};
	my $count = $self->weighted([ 8, $self->between(1, 5) ], [ 1, 0 ], [ 0.4, 300 ], [ 0.3, 101 ]);
	my @literals = map { $self->literal($column) } 1 .. $count;
	return "ARRAY[" . join(', ', @literals) . "]::${type}[]" if $self->chance(0.4) || $count > 20;
	return $self->pick("'{}'::${type}[]", "NULL::${type}[]", "'{NULL}'::${type}[]", "ARRAY[NULL, " . $self->literal($column) . "]::${type}[]",
		"ARRAY[[" . $self->literal($column) . '], [' . $self->literal($column) . "]]::${type}[]") if $self->chance(0.15);
	return $self->param("${type}[]", sub { 'ARRAY[' . join(', ', map { $self->literal($column) } 1 .. $self->between(0, 4)) . "]::${type}[]" });
}

sub _number
{
	my ($self, $column) = @_;
	my $type = $column->{type};
	return $self->null($column) if $self->chance(0.03);
	my $number = $self->literal($column);
	my $small = abs($number) < 32768 ? 'int2' : abs($number) < 2**31 ? 'int4' : 'int8';
	return $number if $self->chance(0.4);
	if ($self->chance(0.4))
	{
		my $sent = $self->pick(qw(int8 int8 int4 int2 numeric text float8));
		my $most = { int2 => 32767, int4 => 2147483647 }->{$sent};
		my $param = $self->param($sent, sub {
			my $value = $self->literal($column);
			$value = $value % 100 if defined $most && abs($value) > $most;
			return $sent eq 'text' ? "'$value'" : $value;
		});
		return $sent eq 'text' ? "$param\::$type" : $param;
	}
	return $self->pick(
		"'$number'", "($number)::$small", "($number)::int8", "($number)::numeric", "$number.0", "$number.5", "($number)::float8",
			"($number + 0)", "'$number'::text::int8",
		"(SELECT $number)", "coalesce(NULL, $number)", "here.immutable($number)", "here.stable($number)", "here.volatile($number)",
			"(random() * 0 + $number)::int8",
		"greatest($number, 0)", "'NaN'::numeric", "'Infinity'::float8", "(CASE WHEN now() > '2000-01-01' THEN $number ELSE 0 END)", "1e3",
			"-($number)");
}

sub _text
{
	my ($self, $column) = @_;
	return $self->null($column) if $self->chance(0.03);
	my $text = $self->literal($column);
	return $text if $self->chance(0.5);
	return $self->param($self->pick('text', 'text', 'varchar', 'name', 'bpchar'), sub { $self->literal($column) }) if $self->chance(0.4);
	return $self->pick(
		"$text\::text", "$text\::varchar", "$text\::varchar(7)", "$text\::bpchar", "$text\::char(20)", "$text\::name", "($text || '')",
			"lower($text)", "upper($text)", "trim($text)",
		"(SELECT $text\::text)", "here.immutable($text\::text)", "here.stable($text\::text)", "here.volatile($text\::text)",
			"concat($text, '')", "left($text, 5)", "repeat($text, 2)",
		"($text COLLATE \"C\")", "current_setting('application_name')", "session_user");
}

sub _moment
{
	my ($self, $column) = @_;
	return $self->null($column) if $self->chance(0.03);
	my $text = $self->literal($column);
	return $text if $self->chance(0.4);
	return $self->param($self->pick('timestamptz', 'timestamptz', 'timestamp', 'date'), sub { $self->literal($column) }) if $self->chance(0.4);
	my $near = $text =~ /infinity|BC|29\d{4}/ ? q('2025-05-01 10:00:00+00') : $text;
	return $self->pick(
		"$text\::timestamptz", "$text\::timestamp", "$text\::date", "($near\::timestamptz + interval '1 microsecond')",
			"($near\::timestamptz - interval '1 microsecond')",
		"($near\::timestamptz + interval '1 second')", "($near\::timestamptz - interval '1 day')", "date_trunc('day', $near\::timestamptz)",
			"($near\::timestamp AT TIME ZONE 'Asia/Kamchatka')",
		'now()', 'current_date', "'5874897-12-31'::date", 'clock_timestamp()', "(now() - interval '300 days')", "'2025-04-01'",
			"make_timestamptz(2025, 4, 1, 0, 0, 0)", 'to_timestamp(1745000000.5)',
		"(SELECT $text\::timestamptz)", "'yesterday'::timestamptz", "'2025-03-30 02:30:00 Europe/Berlin'", "'2025-04-01T12:00:00.123456Z'",
			"here.stable($text\::timestamptz)");
}

sub _boolean
{
	my ($self, $column) = @_;
	return $self->pick('true', 'false', 'NULL', "'yes'", '(1 = 1)', $self->param('bool', sub { $self->pick('true', 'false') }),
		'(now() < now())', '(SELECT true)');
}

sub _json { return $_[0]->literal($_[1]) . '::jsonb' }

1;
