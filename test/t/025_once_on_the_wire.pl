# A connection that was kept dies before a byte of the answer. libcurl takes it for one that had been idle too long and
# would send the request again by itself: over a new connection, or over another that was kept. What is not to be
# repeated goes to the wire once, whether there are such others or not; hubex then looks for what became of it.

use strict;
use warnings;

use Hubex::Node;
use Hubex::Sandbox;
use JSON::PP;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 0);
my $node = Hubex::Node->new('main');
$node->start_hubex($sandbox);
$node->safe_psql('postgres', q{UPDATE hubex.connector SET manifest = jsonb_set(manifest, '{retry,base}', '0.05')});

my %large = (small => 20, large => 300_000);
for my $size (sort keys %large)
{
	keep_connections(8);
	my $note = "$size of the worker";
	my $id = $node->safe_psql('postgres', create($note, $large{$size}));
	$node->wait_for("SELECT state FROM hubex.outbox WHERE id = $id", 'delivered', "$note: it is delivered");
	is(fired(), 1, '... though its connection died');
	is(sent($note), 1, '... having been sent once');
}

# A session has one connection, and would need a new one.
for my $size (sort keys %large)
{
	my $note = "$size of a session";
	my $post = sprintf q{SELECT status FROM hubex_request('POST', '/WORK/Tasks', jsonb_build_object(
		'taskTypeID', 2, 'requestMethodID', 1, 'notes', rpad('%s', %d, '.')))}, $note, $large{$size};
	my $get = q{SELECT status FROM hubex_request('GET', '/WORK/TaskTypes')};
	drop_one();
	my ($code, $out, $err) = $node->psql('postgres', "$get; $post; $get", on_error_stop => 0);
	is($out, "200\n200", "$note: the session goes on");
	like($err, qr/ERROR/, '... and the call has failed');
	is(fired(), 1, '... as its connection died');
	is(sent($note), 1, '... having been sent once');
}

# What may be repeated is repeated.
{
	my $get = q{SELECT status FROM hubex_request('GET', '/WORK/TaskTypes')};
	$sandbox->clear_faults;
	$sandbox->clear_journal;
	$sandbox->fault(method => 'GET', path => '/WORK/TaskTypes', fault => 'drop_before', after => 1);
	is($node->safe_psql('postgres', "$get; $get"), "200\n200", 'a GET succeeds');
	is(@{ $sandbox->journal(method => 'GET', path => '/WORK/TaskTypes') }, 3, '... being sent again');
}
done_testing;

sub create
{
	my ($note, $length) = @_;
	return sprintf q{SELECT hubex_create_task(2, rpad('%s', %d, '.'))}, $note, $length;
}

# So many requests at a time, after which the worker has as many connections, and the next one fails.
sub keep_connections
{
	my ($n) = @_;
	$sandbox->clear_faults;
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'delay_before', seconds => 0.3, times => $n);
	$node->safe_psql('postgres', join ';', map { create("kept $_", 20) } 1 .. $n);
	$node->wait_for(q{SELECT count(*) FROM hubex.outbox WHERE state <> 'delivered'}, 0, "$n connections are kept");
	drop_one();
	return;
}

sub drop_one
{
	$sandbox->clear_faults;
	$sandbox->fault(method => 'POST', path => '/WORK/Tasks', fault => 'drop_after');
	return;
}

sub fired { return $sandbox->faults->[0]{fired} }

sub sent
{
	my ($note) = @_;
	return scalar grep { index($_->{body} // '', $note) >= 0 } @{ $sandbox->journal(method => 'POST', path => '/WORK/Tasks') };
}
