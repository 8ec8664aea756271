# Pages and records of any shape: what is JSON is read as PostgreSQL's jsonb reads it, however its bytes arrive, and what
# is not is an error, never a part of it. A value that does not fit its column is an error that names it, or NULL.
#
# The peer answers with the bytes that the query asks for; jsonb, given the same bytes, is the judge.

use strict;
use utf8;
use warnings;

use Encode qw(decode encode);
use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use Test::More;

my $pages = Hubex::Sandbox->pages;
my $node = Hubex::Node->new('main');

sub value { return decode('UTF-8', $node->safe_psql('postgres', $_[0])) }

# What a query gives, and what is said about it.
sub run
{
	my ($sql) = @_;
	my (undef, $rows, $said) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);
	return (decode('UTF-8', $rows), decode('UTF-8', $said));
}

# A text as bytes for SQL.
sub bytea
{
	my ($text) = @_;
	utf8::encode($text);
	return "'\\x" . unpack('H*', $text) . "'::bytea";
}

# A page as the path of a request; without a flag it goes as UTF-8 and in one piece.
sub page
{
	my ($body, %option) = @_;
	utf8::encode($body) unless $option{bytes};
	return sprintf q('%d-%s'), $option{piece} // 0, unpack 'H*', $body;
}

my @types = ('bigint', 'integer', 'smallint', 'numeric', 'numeric(6,2)', 'boolean', 'text', 'varchar(5)', 'timestamptz',
	'timestamptz(0)', 'date', 'uuid', 'jsonb', 'json', 'bigint[]', 'text[]', 'float8', 'small', 'mood');
my %manifest = (
	connector => 'pages',
	version => 1,
	title => 'Pages',
	delivery => 'at_least_once',
	sign_in => { mechanism => 'none' },
	retry => { base => 1, factor => 2, cap => 10, attempts => 3, final => [] },
	paging => { mechanism => 'range_header', unit => 'items', first => 1 },
	resources => {
		map { $_->[0] => {
			path => "/$_->[0]/{page}/list",
			envelope => $_->[1],
			paged => JSON::PP::false,
			parent => 'page',
			dates => 'utc',
			columns => [
				{ name => 'page', type => 'text', path => '@parent' },
				{ name => 'id', type => 'text', path => '@key' },
				{ name => 'is_there', type => 'boolean', path => 'v', present => JSON::PP::true },
				{ name => 'raw', type => 'jsonb', path => '@record' },
				$_->[0] eq 'values' ? { name => 'value', type => 'text', path => '@value' } : ()
			] } } ([ 'things', 'object_by_id' ], [ 'array', 'array' ], [ 'values', 'object_by_id' ]) });
$manifest{resources}{fixed} = {
	path => '/fixed/0-' . unpack('H*', '{"1": {"v": "a\u0000"}, "2": {"v": "\ud800"}}') . '/list',
	envelope => 'object_by_id',
	paged => JSON::PP::false,
	columns => [ { name => 'id', type => 'text', path => '@key' } ] };
my $manifest = encode_json(\%manifest);
value(qq(CREATE EXTENSION hubex;
	INSERT INTO hubex.connector (name, manifest) VALUES ('pages', \$json\$$manifest\$json\$);
	CREATE SERVER pages FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'pages', url '@{[ $pages->url ]}', rate_limit 'none');
	CREATE USER MAPPING FOR PUBLIC SERVER pages;
	CREATE DOMAIN small AS integer CHECK (VALUE < 10);
	CREATE TYPE mood AS ENUM ('fine');));
my $columns = join ', ', map { qq("$_" $_ OPTIONS (path 'v')) } @types;
for my $table ([ strict => 'things', 'error' ], [ lenient => 'things', 'null' ], [ array => 'array', 'error' ], [ "values" => 'values', 'error' ])
{
	my ($name, $resource, $on_error) = @$table;
	my $value = $resource eq 'values' ? 'value text,' : '';
	value(qq(CREATE FOREIGN TABLE "$name" (page text, id text, is_there boolean, raw jsonb, $value $columns,
		inner_a text OPTIONS (path 'o.a'), inner_o jsonb OPTIONS (path 'o'), empty text OPTIONS (path 'o.'), "ключ" text OPTIONS (path 'ключ'))
		SERVER pages OPTIONS (resource '$resource', on_error '$on_error')));
}

# pieces
my $odd = qq( {"10": {"v": "a\\"}]\\\\", "o": {"a": [1, {"v": 2}], "": "nothing"}, "ключ": "Ж\\u00e9\\n\\/"},
	"2\\u0030":{}, "thirty":{"v":-1.50e+2,"x":[[],{},[[null]],true,false]}\t, "4\\"0" :\r\n{"v":null,"long":"LONG"}} \n) =~ s/LONG/'щит ' x 30/er;
my $expected = value('SELECT jsonb_object_agg(key, value) FROM jsonb_each(convert_from(' . bytea($odd) . ", 'UTF8')::jsonb)");
for my $piece (0, 1, 2, 3, 5, 11, 64)
{
	is(value('SELECT jsonb_object_agg(id, raw) FROM strict WHERE page = ' . page($odd, piece => $piece)), $expected,
		$piece ? "a page in pieces of $piece bytes" : 'a page at once');
}
is(value('SELECT id, "text", inner_a, empty, "ключ" FROM strict WHERE id = \'10\' AND page = ' . page($odd, piece => 7)),
	'10|a"}]\\|[1, {"v": 2}]|nothing|Жé' . "\n/", 'members by their paths');

# each byte of a page left out, doubled, or replaced; and the page cut off behind it
$odd = q({"10":{"v":"x\"\\\\","o":{"a":[1,{"v":-2.5e1}]},"n":null,"ключ":"Ж\n\u00e9"}, "20":{"v":true}});
my $bytea = bytea($odd);
my ($tried, $accepted, $wrong) = split /\|/, value(qq(
	CREATE TABLE tried (bytes bytea, ours jsonb, theirs jsonb);
	DO \$\$
	DECLARE
		page CONSTANT bytea = $bytea;
		tries bytea[];
		bytes bytea;
		ours jsonb;
		theirs jsonb;
	BEGIN
		FOR at IN 0 .. length(page) - 1 LOOP
			tries = ARRAY[substr(page, 1, at), substr(page, 1, at) || substr(page, at + 2), substr(page, 1, at + 1) || substr(page, at + 1)];
			FOREACH bytes IN ARRAY ARRAY['{', '}', '[', ']', '"', ',', ':', '\\\\', '0', ' ', '-', '\\x00', '\\x0a', '\\xff']::bytea[] LOOP
				tries = tries || (substr(page, 1, at) || bytes || substr(page, at + 2));
			END LOOP;
			FOREACH bytes IN ARRAY tries LOOP
				BEGIN
					SELECT jsonb_object_agg(id, raw) INTO ours FROM strict s WHERE s.page = '0-' || encode(bytes, 'hex');
				EXCEPTION WHEN OTHERS THEN
					ours = NULL;
				END;
				BEGIN
					SELECT jsonb_object_agg(key, value) INTO theirs FROM jsonb_each(convert_from(bytes, 'UTF8')::jsonb);
					IF EXISTS (SELECT FROM jsonb_each(theirs) e WHERE jsonb_typeof(value) <> 'object') THEN
						theirs = NULL;
					END IF;
				EXCEPTION WHEN OTHERS THEN
					theirs = NULL;
				END;
				INSERT INTO tried VALUES (bytes, ours, theirs);
			END LOOP;
		END LOOP;
	END \$\$;
	SELECT count(*), count(ours), count(*) FILTER (WHERE ours IS DISTINCT FROM theirs) FROM tried));
is($wrong, 0, "of $tried damaged pages $accepted are still pages, the same ones as for jsonb")
  or diag value(q(SELECT encode(bytes, 'escape'), ours, theirs FROM tried WHERE ours IS DISTINCT FROM theirs LIMIT 20));
cmp_ok($accepted, '>', 100, 'and some are');

# what is not a page
for my $case (
	[ 'an array where records have names', '[{"v": 1}]', '08P01' ],
	[ 'a number', '17', '08P01' ],
	[ 'nothing at all', '', '08P01' ],
	[ 'two pages', '{"1": {}}{"2": {}}', '08P01' ],
	[ 'no comma', '{"1": {} "2": {}}', '08P01' ],
	[ 'a comma too many', '{"1": {},, "2": {}}', '08P01' ],
	[ 'a comma at the end', '{"1": {},}', '08P01' ],
	[ 'a name without a record', '{"1"}', '08P01' ],
	[ 'a record without a name', '{{}}', '08P01' ],
	[ 'brackets of the wrong kind', '{"1": {"v": [}}}', '22P02' ],
	[ 'a name with a control character', qq({"1\x01": {}}), '22P02' ],
	[ 'a name with half an escape', '{"1\u00": {}}', '22P02' ],
	[ 'HTML', '<html><body>Service page</body></html>', '08P01' ],
	[ 'single quotes', q({'1': {}}), '08P01' ],
	[ 'a text as a record', '{"1": "x"}', '08P01' ],
	[ 'null as a record', '{"1": null}', '08P01' ],
	[ 'no word of JSON', '{"1": {"v": True}}', '22P02.*record 1 of resource "things"' ],
	[ 'a number that is none', '{"1": {"v": 01}}', '22P02' ],
	[ 'more nesting than is taken', '{"1": {"v": ' . '[' x 300 . ']' x 300 . '}}', '54000' ],
	[ 'more nesting than a stack holds', '{"1": ' . '{"v":' x 50_000 . '1' . '}' x 50_000 . '}', '54000' ],
	[ 'a page that is a surrogate short of UTF-8', qq({"1": {"v": "\xED\xA0\x80"}}), '22021', bytes => 1 ],
	[ 'Latin-1', qq({"1": {"v": "caf\xE9"}}), '22021', bytes => 1 ],
	[ 'a byte of zero', qq({"1": {"v": "a\0b"}}), '22021' ],
  )
{
	my ($name, $body, $expected, %option) = @$case;
	my ($rows, $said) = run('SELECT "text" FROM strict WHERE page = ' . page($body, %option));
	like($said, qr/ERROR:\s+$expected/s, "an error: $name");
	is($rows, '', '... and no row') if $rows ne '';
}
for my $case (
	[ 'an empty page', '{}', '' ],
	[ 'a byte order mark', "\x{FEFF}{\"1\": {\"v\": 1}}", '1' ],
	[ 'blanks all over', " \n\t{ \"1\" : { \"v\" : 1 } \r\n} \n", '1' ],
	[ 'nesting that is taken', '{"1": {"v": 1, "x": ' . '[' x 200 . ']' x 200 . '}}', '1' ],
	[ 'a name that appears twice', '{"1": {"v": 1, "v": "last"}}', 'last' ],
	[ 'a name that appears twice, and then is null', '{"1": {"v": 1, "v": null}}', '' ],
	[ 'a name in escapes', '{"1": {"\u0076": "e"}}', 'e' ],
	[ 'names that look like it', '{"1": {"\"v": 2, "V": 3, "v ": 4, "x\"v": 5, "v\\\\": 6, "v": "right"}}', 'right' ],
	[ 'a text with a pair of surrogates', '{"1": {"v": "\ud83d\ude00"}}', "\x{1F600}" ],
	[ 'a number with an exponent', '{"1": {"v": 1.5e3}}', '1500' ],
	[ 'minus zero', '{"1": {"v": -0}}', '0' ],
	[ 'an object as text', '{"1": {"v": {"b": 1, "a": [ ]}}}', '{"a": [], "b": 1}' ],
	[ 'what is absent', '{"1": {"w": 1}}', '' ],
  )
{
	my ($name, $body, $expected) = @$case;
	is(value('SELECT "text" FROM strict WHERE page = ' . page($body)), $expected, $name);
}
is(value('SELECT inner_a, inner_o, is_there FROM strict WHERE page = ' . page('{"1": {"o": {"a": 1}, "o": {"b": 2}, "v": false}}')),
	'|{"b": 2}|t', 'the last member of a name counts, with all below it');
is(value('SELECT inner_a, is_there FROM strict WHERE page = ' . page('{"1": {"o": [{"a": 1}], "v": null}}')),
	'|f', 'an array on the way leads nowhere; null is not there');
is(value('SELECT id, "text" FROM "array" WHERE page = ' . page('[{"id": 7, "v": "x"}, {"id": "b"}]', piece => 1)), "7|x\nb|", 'an array, by its ids');
is(value('SELECT id, value FROM "values" WHERE page = ' . page('{"a": "x\ty", "b": 1.0, "c": true, "d": [1, 2], "e": null, "f": {}}', piece => 1)),
	"a|x\ty\nb|1.0\nc|true\nd|[1, 2]\ne|\nf|", 'records that are no objects');
is(value('SELECT count(*) FROM strict WHERE page = ' . page('{"1": {}, "2": {}}')), 2, 'rows without any column');

# letters that no database holds
for my $letter ('\u0000', '\ud800', '\udc00x', '\ud800\ud800')
{
	my ($rows, $said) = run('SELECT "text", raw ->> \'v\' FROM strict WHERE page = ' . page(qq({"1": {"v": "a$letter"}})));
	like($rows, qr/^(a\?[?x]*)\|\1$/, "$letter becomes a question mark");
	like($said, qr/WARNING:\s+22P05.*Record 1 of resource "things" is the first that has some in column "text"/s, '... and a warning says so');
}

my ($listed, $said_of_list) = run(q(SELECT d ->> 'id', d ->> 'v' FROM hubex_list('fixed', server => 'pages') d));
is($listed, "1|a?\n2|?", 'so it is in a list as documents');
like($said_of_list, qr/^psql:\S+ WARNING:\s+22P05.*Record 1 is the first[^\n]*\n(?!.*WARNING)/s, '... which says so once');

# values and types: what the input function says of the text
my $uuid = '8c4a53b0-4b1c-4a9e-8a5e-111111111111';
for my $case (
	[ 'bigint', '9223372036854775807', '9223372036854775807' ],
	[ 'bigint', '9223372036854775808', undef, '22003' ],
	[ 'bigint', '-9223372036854775808', '-9223372036854775808' ],
	[ 'bigint', '"17"', '17' ], [ 'bigint', '" 17 "', '17' ], [ 'bigint', '1e3', '1000' ],
	[ 'bigint', '1.5', undef, '22P02' ], [ 'bigint', '""', undef, '22P02' ], [ 'bigint', '{"a": 1}', undef, '22P02' ],
	[ 'bigint', '1e400', undef, '22003' ], [ 'bigint', 'true', undef, '22P02' ],
	[ 'integer', '2147483648', undef, '22003' ], [ 'integer', '-2147483648', '-2147483648' ],
	[ 'smallint', '32768', undef, '22003' ], [ 'smallint', '32767', '32767' ],
	[ 'numeric', '1e999', '1' . '0' x 999 ], [ 'numeric', '1e999999', undef, '22003' ], [ 'numeric', '0.10', '0.10' ],
	[ 'numeric(6,2)', '1.005', '1.01' ], [ 'numeric(6,2)', '12345', undef, '22003' ],
	[ 'float8', '1e999', undef, '22003' ], [ 'float8', '0.5', '0.5' ],
	[ 'boolean', 'true', 'true' ], [ 'boolean', '"false"', 'false' ], [ 'boolean', '1', 'true' ], [ 'boolean', '"yes"', 'true' ], [ 'boolean', '2', undef, '22P02' ],
	[ 'text', '1.50', '1.50' ], [ 'text', 'false', 'false' ],
	[ 'varchar(5)', '"abcde"', 'abcde' ], [ 'varchar(5)', '"abcdef"', undef, '22001' ],
	[ 'timestamptz', '"2025-07-24T11:31:25"', '2025-07-24 20:31:25+09' ],
	[ 'timestamptz', '"2025-07-24T11:31:25.123456Z"', '2025-07-24 20:31:25.123456+09' ],
	[ 'timestamptz', '"2025-07-24T11:31:25.1234567"', '2025-07-24 20:31:25.123457+09' ],
	[ 'timestamptz', '"2025-07-24T11:31:25+03:00"', '2025-07-24 17:31:25+09' ],
	[ 'timestamptz', '"0001-01-01T00:00:00"', value("SET TimeZone = 'Asia/Tokyo'; SELECT '0001-01-01T00:00:00Z'::timestamptz") ],
	[ 'timestamptz', '"2025-02-29T00:00:00"', undef, '22008' ], [ 'timestamptz', '"tomorrowish"', undef, '22007' ],
	[ 'timestamptz', '1721820685', undef, '22008' ],
	[ 'timestamptz(0)', '"2025-07-24T11:31:25.6"', '2025-07-24 20:31:26+09' ],
	[ 'date', '"2025-07-24"', '2025-07-24' ], [ 'date', '"2025-07-24T11:31:25"', '2025-07-24' ],
	[ 'uuid', qq("$uuid"), $uuid ], [ 'uuid', '"x"', undef, '22P02' ],
	[ 'jsonb', '{"b": 1, "a": 1e2}', '{"a": 100, "b": 1}' ], [ 'jsonb', '"x"', '"x"' ], [ 'jsonb', '1e999999', undef, '22003' ],
	[ 'json', '{"b": 1, "a":1e2}', '{"b": 1, "a":1e2}' ],
	[ 'bigint[]', '[1, "2", null]', '{1,2,NULL}' ], [ 'bigint[]', '[]', '{}' ], [ 'bigint[]', '[1, "x"]', undef, '22P02' ], [ 'bigint[]', '7', undef, '22P02' ],
	[ 'text[]', '["a b", 1, {"x": null}]', '{"a b",1,"{\"x\": null}"}' ],
	[ 'small', '9', '9' ], [ 'small', '10', undef, '23514' ], [ 'small', '"x"', undef, '22P02' ],
	[ 'mood', '"fine"', 'fine' ], [ 'mood', '"sad"', undef, '22P02' ],
  )
{
	my ($type, $json, $expected, $code) = @$case;
	my $page = page(qq({"17": {"v": $json}, "18": {}}));
	my $what = "$json as $type";

	for my $table ('strict', 'lenient')
	{
		my ($rows, $said) = run(qq(SET TimeZone = 'Asia/Tokyo'; SELECT coalesce("$type"::text, 'NULL') FROM $table WHERE page = $page));
		if (defined $expected)
		{
			is($rows, "$expected\nNULL", "$what, $table");
			is($said, '', '... without a word') if $said ne '';
		}
		elsif ($table eq 'strict')
		{
			is($rows, '', "$what is an error");
			like($said, qr/ERROR:\s+$code.*column "\Q$type\E" of record 17 of resource "things": /s, '... that names it');
		}
		else
		{
			is($rows, "NULL\nNULL", "$what is null, where that is wished");
			like($said, qr/WARNING:\s+22000: a value does not fit column "\Q$type\E" and is null instead\nDETAIL:\s+Record 17 of resource "things", value "/,
				'... and a warning names it');
		}
	}
}

# what an error shows of a value
my ($rows, $said) = run('SELECT "bigint" FROM strict WHERE page = ' . page('{"1": {"v": "' . 'Ж' x 2000 . '"}}'));
like($said, qr/resource "things": "Ж{50}\.\.\."/, 'the beginning of a long value');
(undef, $said) = run('SELECT "bigint", "text" FROM strict WHERE "text" = \'x\' AND page = ' . page('{"1": {"v": "x"}}'));
like($said, qr/22P02.*column "bigint" of record 1 of resource "things": "x"/s, 'a value that does not fit and is asked for');
is(value('SELECT "text" FROM strict WHERE "text" = \'x\' AND page = ' . page('{"1": {"v": "x"}}')), 'x', 'and one that nobody asks for');

# a database of another encoding
value(q(CREATE DATABASE cyrillic ENCODING 'WIN1251' LOCALE 'C' TEMPLATE template0));
my $in_cyrillic = sub {
	my ($sql) = @_;
	my (undef, $rows, $said) = $node->psql('cyrillic', "\\set VERBOSITY verbose\nSET client_encoding = 'UTF8';\n$sql", on_error_stop => 0);
	return (decode('UTF-8', $rows), decode('UTF-8', $said));
};
my (undef, $trouble) = $in_cyrillic->(encode('UTF-8', qq(CREATE EXTENSION hubex;
	INSERT INTO hubex.connector (name, manifest) VALUES ('pages', \$json\$$manifest\$json\$);
	CREATE SERVER pages FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'pages', url '@{[ $pages->url ]}', rate_limit 'none');
	CREATE USER MAPPING FOR PUBLIC SERVER pages;
	CREATE FOREIGN TABLE things (page text, id text, raw jsonb, number bigint OPTIONS (path 'v'), text text OPTIONS (path 'v'), "ключ" text OPTIONS (path 'ключ'))
		SERVER pages OPTIONS (resource 'things'))));
is($trouble, '', 'a database in WIN1251');
for my $piece (0, 1)
{
	my ($rows, $said) = $in_cyrillic->(encode('UTF-8', 'SELECT id, text, "ключ" FROM things WHERE page = ')
		. page(qq({"Ж": {"v": "щит \\u0449\x{1F600}", "ключ": "\\"да\\""}, "é": {"ключ": "\x{1F600}é"}}), piece => $piece));
	is($rows, qq(Ж|щит щ?|"да"\n?||??), 'has its own letters, and question marks for others');
	like($said, qr/WARNING:\s+22P05/, '... which a warning says');
}
($rows, $said) = $in_cyrillic->('SELECT number FROM things WHERE page = ' . page('{"1": {"v": "Ж7"}}'));
like($said, qr/22P02.*column "number" of record 1 of resource "things": "\?+7"/s, 'an error shows what is sure to be text');
like(($in_cyrillic->('SELECT text FROM things WHERE page = ' . page(qq({"1": {"v": "caf\xE9"}}), bytes => 1)))[1], qr/22021/, 'what is not UTF-8 is an error');

done_testing;
