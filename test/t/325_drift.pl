# The remote side's records change their shape, and nobody says so: a new member is in raw and nothing else happens; one that
# is gone, or has values of another type, is an error that leaves the mirror as it is, or is NULL, or the mirror keeps what
# it has, as the subscription says; hubex_check() tells of it, for as long as it is so. A mirror that stops stops no other.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my @list = (method => 'GET', path => '/WORK/Tasks');
my $sandbox = Hubex::Sandbox->new;
my $node = Hubex::Node->new('main', preload => 0);
$node->start_hubex($sandbox);
my $client = Hubex::Client->new($node);
$client->query(q{
	CREATE SCHEMA fsm;
	CREATE FOREIGN TABLE fsm.tasks (id bigint, notes text, company_id bigint, company_name text, child_count bigint, deadline timestamptz, is_favourite boolean, last_modified timestamptz, raw jsonb) SERVER fsm OPTIONS (resource 'tasks');
	SELECT hubex_subscribe(p, 'fsm.tasks', 'public.on_' || p, on_drift => p) FROM unnest(ARRAY['error', 'ignore', 'null']) p});
my @columns = qw(id notes company_id company_name child_count deadline is_favourite last_modified raw);
sync($_) for qw(error ignore null);
same($_, @columns) for qw(error ignore null);
my $rows = $client->query('SELECT count(*) FROM on_error');
quiet();

#
# New members
#
my $new = reshape(set => { brandNew => { a => 1 }, 'company.rating' => 5 });
sync($_, 'full') for qw(error ignore null);
is($client->query(qq(SELECT count(*) FROM on_$_ WHERE raw -> 'brandNew' = '{"a": 1}' AND raw #>> '{company,rating}' = '5')), $rows, "$_: new members are in raw") for qw(error ignore null);
quiet();
$client->query(q(ALTER FOREIGN TABLE fsm.tasks ADD COLUMN rating int OPTIONS (path 'company.rating'); ALTER TABLE on_error ADD COLUMN rating smallint));
sync($_, 'full') for qw(error ignore null);
is($client->query('SELECT count(*) FROM on_error WHERE rating = 5'), $rows, 'a column can be made of one');
like(told('null', 't'), qr/does not show: rating/, '... which is offered to the others');
$client->query('ALTER FOREIGN TABLE fsm.tasks DROP COLUMN rating; ALTER TABLE on_error DROP COLUMN rating');
$sandbox->clear_faults($new);
sync($_, 'full') for qw(error ignore null);
same($_, @columns) for qw(error ignore null);

#
# Members that are gone
#
my $before = digest('error');
my $gone = reshape(drop => ['company']);
my $answer = $client->try(q(CALL hubex_sync('error', 'full')));
is($answer->{sqlstate}, 'HV005', 'error: a column that no record has any more stops the run: ' . ($answer->{error} // ''));
like("$answer->{error} $answer->{detail} $answer->{hint}", qr/"company_(?:id|name)".*\d+ rows of mirror public\.on_error.*on_drift/s, '... it says which, of how many rows, and what to do');
is(digest('error'), $before, '... and leaves the mirror as it was');
like(told('error', 'f'), qr/fails since 1 run.*no record has a value for column "company_/, '... hubex_check() tells of it');
sync($_, 'full') for qw(ignore null);
same('null', grep { !/company|raw/ } @columns);
is($client->query('SELECT count(company_id) + count(company_name) FROM on_null'), 0, 'null: it is NULL');
same('ignore', grep { !/company|raw/ } @columns);
is($client->query('SELECT count(*) FROM on_ignore i JOIN on_error e USING (id) WHERE (i.company_id, i.company_name) IS NOT DISTINCT FROM (e.company_id, e.company_name)'), $rows, 'ignore: it keeps what it has');
is($client->query("SELECT count(*) FROM on_$_ WHERE raw ? 'company'"), 0, "... raw has what there is") for qw(ignore null);
for my $policy (qw(ignore null))
{
	like(told($policy, 'f'), qr/"$_" of the remote records has changed since .*no record has it any more/, "... hubex_check() tells of $_ of $policy") for qw(company_id company_name);
	is($client->query("SELECT string_agg(c, ',' ORDER BY c) FROM hubex_stat_sync, jsonb_object_keys(drift) c WHERE name = '$policy'"), 'company_id,company_name', '... and hubex_stat_sync');
}
$sandbox->clear_faults($gone);
sync($_, 'full') for qw(error ignore null);
same($_, @columns) for qw(error ignore null);
quiet();

#
# Values of another type
#
my %types = (
	child_count => { set => { childCount => 'many' }, sqlstate => '22P02', shown => 'many' },
	deadline => { set => { 'timesheet.deadline' => 'soon' }, sqlstate => '22007', shown => 'soon' },
	company_id => { set => { 'company.id' => { a => 1 } }, sqlstate => '22P02', shown => 'a' },
	is_favourite => { set => { isFavourite => 'perhaps' }, sqlstate => '22P02', shown => 'perhaps' });
for my $column (sort keys %types)
{
	my %type = %{ $types{$column} };
	my $fault = reshape(set => $type{set});
	$before = digest('error');
	my $answer = $client->try(q(CALL hubex_sync('error', 'full')));
	is($answer->{sqlstate}, $type{sqlstate}, "$column: another type is an error: " . ($answer->{error} // ''));
	like(join(' ', map { $_ // '' } @$answer{qw(error detail context)}), qr/$column.*\Q$type{shown}\E|\Q$type{shown}\E.*$column/s, '... which names column and value') or diag explain $answer;
	is(digest('error'), $before, '... the mirror is as it was');
	sync($_, 'full') for qw(ignore null);
	is($client->query("SELECT count($column) FROM on_null"), 0, '... null: NULL');
	is($client->query("SELECT count(*) FROM on_ignore i JOIN on_error e USING (id) WHERE i.$column IS NOT DISTINCT FROM e.$column"), $rows, '... ignore: what it has');
	same($_, grep { $_ ne $column && $_ ne 'raw' } @columns) for qw(ignore null);
	like(told($_, 'f'), qr/"$column" of the remote records has changed since /, "... hubex_check() tells of it ($_)") for qw(ignore null);
	$sandbox->clear_faults($fault);
	sync($_, 'full') for qw(error ignore null);
	same($_, @columns) for qw(error ignore null);
	quiet();
}

# what fits another type is no matter
my $fits = reshape(set => { notes => 5, childCount => '7', isFavourite => 'true' });
sync($_, 'full') for qw(error ignore null);
is($client->query("SELECT count(*) FROM on_$_ WHERE notes = '5' AND child_count = 7 AND is_favourite"), $rows, "$_: values that fit do") for qw(error ignore null);
$sandbox->clear_faults($fits);
sync($_, 'full') for qw(error ignore null);
quiet();

#
# An incremental run that stops on the way goes on from there, and loses nothing
#
my @ids = split /,/, $client->query(q(SELECT string_agg(id::text, ',') FROM (SELECT id FROM on_error ORDER BY id LIMIT 6) s));
my $cursor = $client->query(q(SELECT "cursor" FROM hubex.subscription_state WHERE subscription = 'error'));
my $odd = reshape(set => { childCount => 'many' });
$sandbox->orders(map { { list => 'tasks', kind => 'change', id => $_ + 0, fields => { notes => 'while it was odd' } } } @ids);
is($client->try(q(CALL hubex_sync('error', 'incremental')))->{sqlstate}, '22P02', 'an incremental run stops') for 1, 2;
is($client->query(q(SELECT "cursor" FROM hubex.subscription_state WHERE subscription = 'error')), $cursor, '... its cursor stays where it is');
like(told('error', 'f'), qr/fails since 2 run/, '... hubex_check() counts');
sync($_, 'incremental') for qw(ignore null);
is($client->query("SELECT count(*) FROM on_$_ WHERE notes = 'while it was odd'"), 6, "... $_ goes on") for qw(ignore null);
is($client->query(q(SELECT count(*) FROM on_ignore i JOIN on_error e USING (id) WHERE i.child_count IS NOT DISTINCT FROM e.child_count)), $rows, '... and keeps what it has');
$sandbox->clear_faults($odd);
sync('error', 'incremental');
is($client->query(q(SELECT count(*) FROM on_error WHERE notes = 'while it was odd')), 6, 'once that is mended what changed is there');
sync($_, 'full') for qw(error ignore null);
same($_, @columns) for qw(error ignore null);
quiet();

# the key of a record has no policy
$client->query(q(CREATE FOREIGN TABLE fsm.numbers (number bigint OPTIONS (path '@key'), notes text) SERVER fsm OPTIONS (resource 'tasks'); CREATE DOMAIN small AS bigint CHECK (value < 1100);
	CREATE TABLE public.numbers (number small PRIMARY KEY, notes text); SELECT hubex_subscribe('numbers', 'fsm.numbers', 'numbers', on_drift => 'null')));
is($client->try(q(CALL hubex_sync('numbers')))->{sqlstate}, '22000', 'a key that does not fit is an error, whatever the policy');
done_testing;

sub reshape { my (%how) = @_; return $sandbox->fault(@list, fault => 'reshape', probability => 1, %how) }

sub sync
{
	my ($name, $mode) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->try("CALL hubex_sync('$name'" . ($mode ? ", '$mode'" : '') . ')')->{error}, undef, "$name is synchronised");
}

sub same
{
	my ($name, @names) = @_;
	my $columns = join ', ', @names;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("WITH r AS MATERIALIZED (SELECT $columns FROM fsm.tasks), m AS MATERIALIZED (SELECT $columns FROM on_$name)
		SELECT (SELECT count(*) FROM (TABLE m EXCEPT TABLE r) x) || ' ' || (SELECT count(*) FROM (TABLE r EXCEPT TABLE m) x) || ' ' || (SELECT count(*) > 0 FROM m)"), '0 0 true', "... on_$name is what the list is");
}

sub digest { my ($name) = @_; return $client->query("SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM on_$name t") }

# What hubex_check says of a subscription.
sub told { my ($name, $ok) = @_; return join "\n", $client->query("SELECT message FROM hubex_check() WHERE subject = 'mirror' AND ok = '$ok' AND message LIKE '%Subscription \"$name\"%'") }

# It has nothing against any.
sub quiet
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query(q(SELECT message FROM hubex_check() WHERE subject = 'mirror' AND NOT ok)), '', '... hubex_check() has nothing against it');
	is($client->query(q(SELECT count(*) FROM hubex_stat_sync WHERE drift IS NOT NULL OR state <> 'in step')), 0, '... nor hubex_stat_sync');
}
