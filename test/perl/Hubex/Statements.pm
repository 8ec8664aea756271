package Hubex::Statements;

=head1 NAME

Hubex::Statements - tests of what statements put into the outbox

=head1 SYNOPSIS

	use Hubex::Statements;
	statements_of($node, $session, $client);
	makes('INSERT INTO ...', ['create ? {"notes": "x"}'], 'a row');
	refused('INSERT INTO ...', '42501', qr/GRANT/, 'without the right');
	run('INSERT INTO ...');
	settled('all is sent');

=cut

use strict;
use warnings;

use Encode qw(encode);
use Exporter 'import';
use Test::More;

our @EXPORT = qw($LOOK statements_of makes refused run settled);

# The requests of a transaction: operation, the record's name and the fields, one a line.
our $LOOK = q{SELECT o.operation || ' ' || coalesce('#' || o.remote_id, o.natural_key, '?') || coalesce(' ' || o.body::text, '')
	FROM hubex.outbox o WHERE o.created_at = now() ORDER BY o.id};

# The server and two connections to it, a Hubex::Session and a Hubex::Client.
my ($node, $session, $client);

sub statements_of
{
	($node, $session, $client) = @_;
	return;
}

=head2 makes($sql, \@requests, $what)

The statements make these requests, each as operation, the record's name and the fields; all is rolled back.

=cut

sub makes
{
	my ($sql, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $session->query("BEGIN; $sql; $LOOK; ROLLBACK");
	is($answer, join("\n", map { encode('UTF-8', $_) } @$expected), $what);
	return;
}

=head2 refused($sql, $sqlstate, $pattern, $what)

The statement fails with that state, and says so: its message or its hint is like the pattern.

=cut

sub refused
{
	my ($sql, $state, $pattern, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$client->query('BEGIN');
	my $answer = $client->try($sql);
	$client->query('ROLLBACK');
	is($answer->{sqlstate}, $state, $what) or diag explain $answer;
	like(join("\n", map { $_ // '' } @{$answer}{qw(error hint)}), $pattern, '... and says it');
	return $answer;
}

=head2 run($sql)

The statements work, and give nothing.

=cut

sub run
{
	my ($sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query($sql), '', $sql =~ s/\s+/ /gr =~ s/^\s*(.{0,60}).*/$1/r);
	return;
}

=head2 settled($what)

All that is in the outbox has been delivered.

=cut

sub settled
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_for(q{SELECT coalesce(string_agg(DISTINCT state, ', '), 'delivered') FROM hubex.outbox}, 'delivered', $what, 120);
}

1;
