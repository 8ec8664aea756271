# A full reading that is cut off goes on where it stopped, whatever cut it off: a kill of the server between two batches, of
# the process, a cancel, an error of the remote side; while the list stays as it is, and while it does not. No page is read
# again that was applied, no row is lost, and none is doubled.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use Test::More;

my $sandbox = Hubex::Sandbox->new(tasks => 900, assets => 600);
my $node = Hubex::Node->new('main', restart_after_crash => 'on', fsync => 1);
$node->start_hubex($sandbox, page_size => 100, max_connections => 1);
$node->safe_psql('postgres', q(
	CREATE SCHEMA fsm;
	IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER fsm INTO fsm;
	IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets) FROM SERVER fsm INTO fsm;
	CREATE TABLE seen (op text, id bigint);
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.seen VALUES (TG_OP, COALESCE(NEW.id, OLD.id)); RETURN NULL; END $$;
));
my %path = (tasks => '/WORK/Tasks', assets => '/ES/Assets');
my $client = Hubex::Client->new($node);

sub begin
{
	my ($list) = @_;
	$client->query("SELECT hubex_subscribe('m', 'fsm.$list', 'public.m', every => NULL, mode => 'full'); TRUNCATE seen;
		CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON m FOR EACH ROW EXECUTE FUNCTION see()");
	$sandbox->clear_journal;
	return;
}

sub end { $client->query(q(SELECT hubex_unsubscribe('m'); DROP TABLE m)); return }

# The pages that were asked for, of which an answer came.
sub pages
{
	my ($list) = @_;
	return map { $_->{headers}{range} =~ /^items=(\d+)-(\d+)$/ ? [ $1, $2 ] : () }
	  grep { $_->{path} eq $path{$list} && ($_->{status} // 0) == 206 } @{ $sandbox->journal };
}

sub in_step
{
	my ($list, $what) = @_;
	my $columns = $client->query(q(SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'm'::regclass
		AND attnum > 0 AND NOT attisdropped AND attname <> 'synced_at'));
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($client->query("SELECT count(*) FROM ((SELECT $columns FROM m EXCEPT ALL SELECT $columns FROM fsm.$list) UNION ALL
		(SELECT $columns FROM fsm.$list EXCEPT ALL SELECT $columns FROM m)) d"), 0, $what);
	return;
}

sub reconnect
{
	my $up;
	eventually { $up = eval { Hubex::Client->new($node) } } 'the server is there again';
	$client = $up;
	return;
}

# What cuts a reading off, once it has got so far that the page from the position on is asked for.
my %cuts = (
	'kill -9 of the process' => sub { my ($pid) = @_; kill 'KILL', $pid; },
	'an immediate stop of the server' => sub { $node->stop('immediate'); $node->start },
	'a cancel' => sub { my ($pid) = @_; kill 'INT', $pid; },
	'a termination' => sub { my ($pid) = @_; kill 'TERM', $pid; },
);

for my $list (qw(tasks assets))
{
	for my $cut (sort keys %cuts)
	{
		begin($list);
		my $hang = $sandbox->fault(path => $path{$list}, range => 'items=397-*', fault => 'hang');
		$client->send(q(CALL hubex_sync('m')));
		my $other = Hubex::Client->new($node);
		eventually { grep { ($_->{headers}{range} // '') =~ /^items=397-/ } @{ $sandbox->journal(path => $path{$list}) } } "$list: four pages are read";
		eventually { $other->query(q(SELECT sweep_position FROM hubex.subscription_state WHERE subscription = 'm')) == 397 }
			'... and all of them are applied, though more is waited for', 2;
		my $rows = $other->query('SELECT count(*) FROM m');
		cmp_ok($rows, '>', 0, '... to be seen');
		$other->end;
		$cuts{$cut}->($client->pid);
		$sandbox->clear_faults;
		my $answer = eval { $client->answer } // { error => $@ };
		ok(defined $answer->{error}, "$list: $cut ends it");
		reconnect();
		is($client->query('SELECT count(*) FROM m'), $rows, '... and what was applied is there');
		$sandbox->clear_journal;
		$answer = $client->try(q(CALL hubex_sync('m')));
		is($answer->{error}, undef, '... another goes on');
		my @pages = pages($list);
		my ($again) = grep { $pages[$_][0] == 1 } 0 .. $#pages;
		ok(defined $again, '... reads all of it, as the CALL came after its beginning');
		splice @pages, $again if defined $again;
		is($pages[0][0], 397, '... where it stopped') or diag explain \@pages;
		cmp_ok(scalar @pages, '<=', $list eq 'tasks' ? 6 : 4, '... and first reads what is left') or diag explain \@pages;
		in_step($list, '... to the end');
		is($client->query('SELECT count(*) FROM (SELECT id FROM seen GROUP BY id HAVING count(*) > 1) d'), 0, '... and writes no row twice');
		is($client->query(q(SELECT count(*) FROM hubex.sweep_page)), 0, '... and leaves nothing behind');
		end();
	}
}

#
# Cut off again and again, while records come, go, and change; judged in the end
#
for my $list (qw(tasks assets))
{
	begin($list);
	for my $cut (1 .. 6)
	{
		$sandbox->fault(path => $path{$list}, after => 4, probability => 1, $cut % 2 ? (fault => 'drop_after') : (fault => 'status', status => 500));
		my $answer = $client->try(q(CALL hubex_sync('m')));
		ok(defined $answer->{error}, "$list: cut off after four pages, time $cut");
		$sandbox->clear_faults;
		$sandbox->change(count => 6, seed => $cut, lists => [$list], weights => { erase => 2, create => 4, delete => 2, change => 4 });
	}
	cmp_ok($client->query('SELECT runs FROM hubex.subscription_state'), '>', 0, '... meanwhile it has come to an end');
	is($client->try(q(CALL hubex_sync('m')))->{error}, undef, '... and once nothing cuts it off');
	in_step($list, '... all is as it is there');
	is($client->query(q(SELECT failures || ' ' || sweep_failures FROM hubex.subscription_state)), '0 0', '... and the failures are forgotten');
	end();
}

# The process dies right after the commit of the last batch, and in each step of deleting: points that no page marks.
{
	begin('assets');
	is($client->try(q(CALL hubex_sync('m')))->{error}, undef, 'a mirror');
	my @gone = split /\n/, $client->query('SELECT id FROM m ORDER BY id LIMIT 30');
	$sandbox->orders(map { { list => 'assets', kind => 'erase', id => $_ + 0, quietly => JSON::PP::true } } @gone);
	$client->query(q(CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN OLD; END $$;
		CREATE TRIGGER crash BEFORE DELETE ON m FOR EACH ROW EXECUTE FUNCTION crash()));
	ok(defined $client->try(q(CALL hubex_sync('m')))->{error}, 'a reading ends where it deletes');
	reconnect();
	$client->query('DROP TRIGGER crash ON m');
	is($client->query(q(SELECT sweep_read_at IS NOT NULL FROM hubex.subscription_state)), 't', '... with the list read');
	$sandbox->clear_journal;
	is($client->try(q(CALL hubex_sync('m')))->{error}, undef, '... the next ends it');
	my @pages = pages('assets');
	is(scalar(grep { $_->[0] == 1 } @pages), 1, '... and reads the list again but once, as the CALL came after');
	in_step('assets', '... and deletes what is gone');
	end();
}
done_testing;
