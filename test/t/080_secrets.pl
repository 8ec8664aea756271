# Secrets stay in user mappings and shared memory. A service token that stands out, and every access token, is looked
# for wherever something could show: the server's log at its most talkative, the outbox, pg_stat_statements,
# pg_stat_activity, EXPLAIN, what clients were told, a dump of hubex's tables - after everything was done once, well
# and badly: sign-ins refused, answers that repeat what they were sent, broken connections, TLS that fails, redirects.
#
# The service token reaches hubex_connect() as a parameter, as drivers do it, in a file, and at last in the text of the
# statement, which hubex then keeps out of the log. (Whoever writes it into CREATE USER MAPPING, or logs all statements
# with log_statement or log_min_duration_statement, has it in the log by his own doing.)

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $canary = 'CanaryServiceToken0123456789abcdefghijklmnopqrstuvwxyz';
my $folder = PostgreSQL::Test::Utils::tempdir();
my @told;                # what clients were told
my $accounts_used = 0;

my $sandbox = Hubex::Sandbox->new;
my $elsewhere = Hubex::Sandbox->new;
$sandbox->config(service_token => $canary);
my $hangs = Hubex::Sandbox->hang('body');
my $node = Hubex::Node->new(
	'main',
	shared_preload_libraries => 'hubex,pg_stat_statements',
	'pg_stat_statements.track' => 'all',
	'pg_stat_statements.track_utility' => 'on',
	log_min_messages => 'debug5',
	log_min_error_statement => 'debug5',
	log_min_duration_statement => -1);
my $client = Hubex::Client->new($node);
try_it('CREATE EXTENSION hubex; CREATE EXTENSION pg_stat_statements; CREATE SCHEMA fsm');

#
# hubex_connect
#
connect_to('fsm', $sandbox->url, rate_limit => 'none');
is($client->query('SELECT count(*) FROM pg_user_mappings WHERE srvname = \'fsm\''), 1, 'hubex_connect with the token as a parameter');
fails(qr/already exists/, 'for a server that is there', 'fsm', $sandbox->url);
fails(qr/unknown connector/, 'for an unknown connector', 'x', $sandbox->url, connector => 'nix');
fails(qr/plain http/, 'for an address that is not allowed', 'x', 'http://192.0.2.1/fsm');
fails(qr/not a URL/, 'for what is no URL', 'x', 'hello world');
fails(qr/invalid option/, 'for an unknown option', 'x', $sandbox->url, colour => 'blue');
fails(qr/invalid value/, 'for a bad option', 'x', $sandbox->url, timeout => 'long');
connect_to("account$_", $sandbox->url, rate_limit => 'none') for 1 .. 12;    # a failed sign-in makes its server pause
connect_to('hung', $hangs->url, timeout => '300ms');
connect_to('plain', $sandbox->url =~ s/^http:/https:/r);
connect_to('closed', 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . '/fsm');

#
# service_token_file
#
{
	my $file = "$folder/token";
	append_to_file($file, "$canary\n");
	try_it(qq{
		CREATE ROLE clerk LOGIN;
		GRANT USAGE ON FOREIGN DATA WRAPPER hubex_fdw TO clerk;
		GRANT USAGE ON FOREIGN SERVER fsm TO clerk;
		SELECT hubex_grant('clerk', 'admin');
		CREATE SERVER filed FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '@{[ $sandbox->url ]}', rate_limit 'none');
		CREATE USER MAPPING FOR PUBLIC SERVER filed OPTIONS (service_token_file '$file')});
	is(ask('GET', '/WORK/Tasks', server => 'filed')->{rows}, 200, 'a token can be in a file');
	my $clerk = Hubex::Client->new($node, user => 'clerk');
	$clerk->query("CREATE SERVER his FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '@{[ $sandbox->url ]}')");
	for my $sql (
		"CREATE USER MAPPING FOR clerk SERVER his OPTIONS (service_token_file '$file')",
		"CREATE USER MAPPING FOR clerk SERVER his OPTIONS (service_token 'x'); ALTER USER MAPPING FOR clerk SERVER his OPTIONS (ADD service_token_file '$file')",
		qq(SELECT * FROM hubex_connect('his2', url => '@{[ $sandbox->url ]}', credentials => '{"service_token_file": "$file"}')),
		"ALTER SERVER his OPTIONS (ADD ca_file '$file')")
	{
		my $answer = $clerk->try($sql);
		push @told, $answer->{notices};
		is($answer->{sqlstate}, '42501', 'which only a superuser may name: ' . ($sql =~ /^(\w+ \w+)/)[0]);
	}
	try_it("CREATE SERVER lost FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url '@{[ $sandbox->url ]}');
		CREATE USER MAPPING FOR PUBLIC SERVER lost OPTIONS (service_token_file '$folder/none')");
	is(ask('GET', '/WORK/Tasks', server => 'lost')->{sqlstate}, '58P01', 'a file that is not there is an error');
	chmod 0, $file;
	is(ask('GET', '/WORK/Tasks', server => 'filed')->{sqlstate}, '42501', 'so is one that cannot be read');
	chmod 0600, $file;
}

#
# All goes well
#
is(ask('GET', '/WORK/Tasks')->{rows}, 200, 'a call');
my $token = access_token();
my $jwt = substr $token, 0, 40;    # so all access tokens of the sandbox begin
like($jwt, qr/^eyJ\w+$/, 'its access token is known');
try_it(q(IMPORT FOREIGN SCHEMA "WORK" FROM SERVER fsm INTO fsm));
my $plans = join "\n", map { $client->query("EXPLAIN $_") }
  '(ANALYZE, VERBOSE, SETTINGS) SELECT * FROM fsm.tasks', '(VERBOSE) SELECT * FROM fsm.tasks',
  q{(ANALYZE, VERBOSE) SELECT * FROM hubex_tasks(server => 'fsm')},
  q{(ANALYZE, VERBOSE) SELECT * FROM hubex_request('GET', '/WORK/Tasks', server => 'fsm')},
  q{(ANALYZE, VERBOSE) SELECT hubex_create_task(1, 'x', server => 'fsm')},
  q{(ANALYZE, VERBOSE, FORMAT JSON) SELECT * FROM fsm.tasks};
like($plans, qr{Remote Request: GET /WORK/Tasks}, 'plans are shown');
try_it(q{SELECT * FROM hubex_check('fsm')});
enqueue('POST', '/WORK/Tasks', body => '{"taskTypeID": 1, "notes": "fine"}');

#
# What may not be given
#
for my $name ('Authorization', 'authorization', 'COOKIE', 'Proxy-Authorization')
{
	my $arguments = qq('GET', '/WORK/Tasks', headers => '{"$name": "Bearer x"}', server => 'fsm');
	for my $sql ("SELECT hubex_enqueue($arguments)", "SELECT * FROM hubex_request($arguments)")
	{
		my $answer = $client->try($sql);
		push @told, $answer->{notices};
		is($answer->{sqlstate}, '22023', "$name is refused in " . ($sql =~ /(hubex_\w+)/)[0]);
	}
}

#
# The sign-in goes wrong
#
my %echo = (
	'in its message' => { code => 'InvalidServiceToken', message => "what is $canary?" },
	'in its code' => { code => $canary, message => 'no' },
	'in its trace' => { code => 'X', message => 'no', traceIdentifier => $canary },
	'elsewhere' => { you => { sent => { serviceToken => $canary } } },
	'in a text' => "{\"serviceToken\": \"$canary\"} was not understood");
for my $where (sort keys %echo)
{
	for my $status (400, 401, 403, 500)
	{
		my $fault = $sandbox->fault(path => '/AUTHZ/AccessTokens', fault => 'status', status => $status,
			body => $echo{$where}, probability => 1);
		goes_wrong("a sign-in answered with $status that repeats the token $where", sign_in => 1, quick => $status != 401);
		$sandbox->clear_faults($fault);
	}
}
for my $fault (qw(drop_before drop_after truncate not_json bad_json))
{
	my $number = $sandbox->fault(path => '/AUTHZ/AccessTokens', fault => $fault, probability => 1);
	goes_wrong("a sign-in with fault $fault", sign_in => 1);
	$sandbox->clear_faults($number);
}

#
# The call goes wrong
#
$sandbox->expire_tokens;
is(ask('GET', '/WORK/Tasks')->{rows}, 200, 'a new access token');
$token = access_token();
my %answer = (
	'in its message' => { code => 'X', message => "what is $token?" },
	'elsewhere' => { headers => { Authorization => "Bearer $token" } },
	'in a text' => "Authorization: Bearer $token",
	'of the sign-in, the service token,' => { code => 'X', message => "what is $canary?" });
for my $where (sort keys %answer)
{
	for my $status (400, 403, 503)
	{
		my $fault = $sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => $status, body => $answer{$where}, probability => 1);
		goes_wrong("a call answered with $status that repeats the token $where", quick => $status != 400);
		$sandbox->clear_faults($fault);
	}
}
{
	# the second access token is refused like the first
	my $fault = $sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => 401,
		body => $answer{'of the sign-in, the service token,'}, probability => 1);
	goes_wrong('a call that no token is good for');
	$sandbox->clear_faults($fault);
}
for my $fault (qw(drop_before drop_after truncate not_json bad_json))
{
	my $number = $sandbox->fault(path => '/WORK/Tasks', fault => $fault, probability => 1);
	goes_wrong("a call with fault $fault", may_succeed => $fault eq 'not_json');
	$sandbox->clear_faults($number);
}
{
	# a success that repeats the token; its body is kept in the outbox
	is(ask('GET', '/WORK/Tasks')->{rows}, 200, 'all is well in between');
	$answer{elsewhere}{headers}{Authorization} = 'Bearer ' . access_token();
	my $fault = $sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => 200, body => $answer{elsewhere}, probability => 1);
	enqueue('GET', '/WORK/Tasks');
	$sandbox->clear_faults($fault);
}
goes_wrong('a peer that hangs', server => 'hung', observed => 1);
goes_wrong('TLS that fails', server => 'plain');
goes_wrong('a closed port', server => 'closed');

#
# A redirect
#
for my $status (301, 302, 303, 307, 308)
{
	my $there = $elsewhere->url . '/WORK/Tasks';
	my $fault = $sandbox->fault(path => '/WORK/Tasks', fault => 'status', status => $status, headers => { Location => $there }, probability => 1);
	my $answer = ask('GET', '/WORK/Tasks');
	is($answer->{sqlstate}, '08P01', "a redirect, $status, is an error");
	like($answer->{message}, qr/redirect/, '... that says so');
	is(enqueue('POST', '/WORK/Tasks', body => '{"taskTypeID": 1}'), 'dead', '... and ends a request') if $status < 303;
	$sandbox->clear_faults($fault);
}
{
	my $fault = $sandbox->fault(path => '/AUTHZ/AccessTokens', fault => 'status', status => 307,
		headers => { Location => $elsewhere->url . '/AUTHZ/AccessTokens' }, probability => 1);
	goes_wrong('a sign-in that is redirected', sign_in => 1);
	$sandbox->clear_faults($fault);
}
is_deeply($elsewhere->journal, [], 'nothing ever went to where the redirects pointed');
$sandbox->expire_tokens;
is(ask('GET', '/WORK/Tasks')->{rows}, 200, 'after all that, a call');

#
# The search
#
my %place = (
	'what clients were told' => join("\n", @told),
	'plans' => $plans,
	'the outbox' => everything_in('hubex.outbox'),
	'pg_stat_statements' => everything_in('pg_stat_statements'),
	'pg_stat_activity' => everything_in('pg_stat_activity'),
	'connectors' => everything_in('hubex.connector'),
	'function comments and settings' => everything_in('pg_settings'));
command_ok([ 'pg_dump', '-n', 'hubex', '-n', 'fsm', '-f', "$folder/dump", $node->connstr('postgres') ], 'a dump of the schemas');
$place{'a dump of the schemas'} = slurp_file("$folder/dump");
$node->stop;
$place{'the server log'} = slurp_file($node->logfile);
like($place{'the server log'}, qr/DEBUG:.*CommitTransaction/, 'the log is talkative');
like($place{'the outbox'}, qr/InvalidServiceToken/, 'the outbox is full');
like($place{'what clients were told'}, qr/DETAIL/, 'clients were told much');
secret_in_none();

#
# In the text of a statement
#
unlink $node->logfile;
$node->start;
$client = Hubex::Client->new($node);
@told = ();
my $credentials = qq(credentials => '{"service_token": "$canary"}');
my $url = $sandbox->url;
for my $case (
	[ 'well',               "hubex_connect('good', url => '$url', $credentials)" ],
	[ 'a server that is there', "hubex_connect('fsm', url => '$url', $credentials)" ],
	[ 'an unknown connector', "hubex_connect('x', 'nix', url => '$url', $credentials)" ],
	[ 'a bad address',      "hubex_connect('x', url => 'ftp://127.0.0.1', $credentials)" ],
	[ 'an unknown credential', qq(hubex_connect('x', url => '$url', credentials => '{"token": "$canary"}')) ],
	[ 'a credential of a wrong type', qq(hubex_connect('x', url => '$url', credentials => '["$canary"]')) ],
	[ 'a schema that cannot be', "hubex_connect('x', url => '$url', $credentials, schema => 'pg_temp_9')" ],
	[ 'a schema with such a table', "hubex_connect('x', url => '$url', $credentials, schema => 'fsm')" ],
	[ 'an unknown argument', "hubex_connect('x', url => '$url', $credentials, colour => 'blue')" ])
{
	my ($what, $call) = @$case;
	my $answer = $client->try("SELECT count(*) FROM $call");
	ok(defined $answer->{error} == ($what ne 'well'), "hubex_connect: $what") or diag $answer->{error};
	push @told, $answer->{notices} unless $what =~ /argument/;    # whose text psql shows itself

	$client->try("DO \$do\$ BEGIN PERFORM * FROM $call; END \$do\$");
	$client->try("PREPARE p AS SELECT * FROM $call; EXECUTE p; DEALLOCATE p");
	$client->try("EXPLAIN ANALYZE SELECT * FROM $call");
}
%place = (
	'what clients were told' => join("\n", @told),
	'pg_stat_statements' => everything_in('pg_stat_statements'));
$node->stop;
$place{'the server log'} = slurp_file($node->logfile);
like($place{'the server log'}, qr/ERROR:  unknown connector/, 'the errors are in the log');
like($place{'the server log'}, qr/ERROR:.*\n.*(?:.*\n){0,3}.*CONTEXT:  PL\/pgSQL function/, '... with their context');
like($place{'the server log'}, qr/STATEMENT:  SELECT r::text/, '... and so are other statements');
secret_in_none();
done_testing;

sub secret_in_none
{
	my %forms = (
		'the service token' => $canary,
		'the service token in base64' => substr(encode_base64($canary, ''), 0, 40),
		'an access token' => $jwt,
		'half an access token' => substr($token, 300, 100));
	for my $place (sort keys %place)
	{
		for my $what (sort keys %forms)
		{
			my @lines = grep { index($_, $forms{$what}) >= 0 } split /\n/, $place{$place};
			ok(!@lines, "$what is not in $place") or diag scalar(@lines) . " lines, of them:\n", map { substr($_, 0, 300) . "\n" } @lines[ 0 .. ($#lines < 5 ? $#lines : 5) ];
		}
	}
}

# A statement with parameters, as a driver sends it; psql learned that later.
sub connect_to
{
	my ($server, $url, %option) = @_;
	my $connector = delete $option{connector} // 'hubex';
	my $options = join ', ', map { "'$_', '$option{$_}'" } sort keys %option;
	my $script = "$folder/connect.sql";
	unlink $script;
	append_to_file($script, "SELECT count(*) FROM hubex_connect(:server, :connector, :url,"
		. " jsonb_build_object('service_token', :token::text), NULL, jsonb_build_object($options));\n");
	local $ENV{PGOPTIONS} = '';
	my $log = "$folder/connect.log";
	my $done = PostgreSQL::Test::Utils::run_log([
		'pgbench', '-n', '-t', '1', '-M', 'extended', '-f', $script, '-D', "server=$server", '-D', "connector=$connector",
		'-D', "url=$url", '-D', "token=$canary", $node->connstr('postgres') ], '>', $log, '2>&1');
	my $said = slurp_file($log);
	push @told, $said;
	return $said;
}

sub fails
{
	my ($pattern, $what, @arguments) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(connect_to(@arguments), qr/ERROR:.*$pattern/s, "hubex_connect fails $what");
}

sub try_it
{
	my ($sql) = @_;
	my $answer = $client->try($sql);
	push @told, $answer->{notices}, $answer->{rows};
	die $answer->{error} if defined $answer->{error};
}

sub arguments
{
	my ($method, $path, %argument) = @_;
	$argument{server} //= 'fsm';
	return join ', ', "'$method'", "'$path'", map { "$_ => '$argument{$_}'" } sort keys %argument;
}

# Calls at once, and keeps what the client is told if it is an error.
sub ask
{
	my $arguments = arguments(@_);
	my $answer = $client->try("SELECT status FROM hubex_request($arguments)");
	push @told, $answer->{notices};
	return $answer;
}

# Enqueues calls at once and waits until each was tried; gives their states.
sub enqueue_all
{
	my $ids = $client->query('SELECT ' . join ' || \',\' || ', map { 'hubex_enqueue(' . arguments(@$_) . ')' } @_);
	my $deadline = time + 20;
	while ($client->query("SELECT count(*) FROM hubex.outbox WHERE id IN ($ids)
		AND (state = 'sending' OR (state = 'waiting' AND last_error IS NULL))"))
	{
		die "request $ids was not tried: " . everything_in("hubex.outbox") if time > $deadline;
		usleep 5_000;
	}
	my $states = $client->query("SELECT string_agg(state, ' ' ORDER BY id) FROM hubex.outbox WHERE id IN ($ids)");

	# they have been seen, and need not come again
	$client->query("UPDATE hubex.outbox SET state = 'cancelled' WHERE id IN ($ids) AND state = 'waiting'");
	return $states;
}

sub enqueue { return enqueue_all([@_]) }

# The same call by a client, by the worker, as a list and as a foreign table.
sub goes_wrong
{
	my ($what, %option) = @_;
	my $server = $option{server} // 'fsm';
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	if ($option{sign_in})
	{
		$sandbox->expire_tokens;
		$server = 'account' . ++$accounts_used unless $option{quick};
	}
	my $answer = ask('GET', '/WORK/Tasks', server => $server);
	ok(defined $answer->{error} || $option{may_succeed}, "$what is an error") or diag $answer->{rows};
	return if $option{quick};
	for my $sql ("SELECT count(*) FROM hubex_tasks(server => '$server')", "SELECT * FROM hubex_check('$server')",
		$server eq 'fsm' ? 'SELECT count(*) FROM fsm.tasks' : ())
	{
		my $answer = $client->try($sql);
		push @told, $answer->{notices}, $answer->{rows};
	}
	if ($option{observed})
	{
		$client->send("SELECT status FROM hubex_request('GET', '/WORK/Tasks', server => '$server')");
		push @told, Hubex::Client->new($node)->query('SELECT a::text FROM pg_stat_activity a');
		push @told, $client->answer->{notices};
	}
	enqueue_all([ 'POST', '/WORK/Tasks', body => '{"taskTypeID": 1, "notes": "x"}', server => $server ],
		[ 'GET', '/WORK/Tasks', server => $server ]);
}

# The last access token that the sandbox saw.
sub access_token
{
	my ($token) = ($sandbox->journal(path => '/WORK/Tasks')->[-1]{headers}{authorization} // '') =~ /^Bearer (.*)/;
	return $token;
}

sub everything_in { my ($relation) = @_; return $client->query("SELECT r::text FROM $relation r") }
