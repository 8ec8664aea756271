# The remote side is who it says it is, or nothing is sent to it: certificates are verified, up to the name in them;
# plain http goes to this machine only, whatever a name resolves to; and which authorities and files are trusted is a
# superuser's affair.

use strict;
use warnings;

use Hubex::Client;
use Hubex::Node;
use Hubex::Sandbox;
use HTTP::Tiny;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Socket qw(getaddrinfo getnameinfo NI_NUMERICHOST NIx_NOSERV SOCK_STREAM);
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $servers = 0;
make_authority('ours');
make_authority('theirs');
my $sandbox = https_sandbox('right', 'ours', 'DNS:localhost,IP:127.0.0.1');
my $elsewhere = https_sandbox('wrong_name', 'ours', 'DNS:hubex.example');
# OpenSSL took a negative number of days until it had options for the very dates.
my @long_ago = `openssl x509 -help 2>&1` =~ /-not_after/ ? qw(-not_before 20200101000000Z -not_after 20200102000000Z) : qw(-days -1);
my $expired = https_sandbox('expired', 'ours', 'DNS:localhost,IP:127.0.0.1', @long_ago);
my $self_signed = Hubex::Sandbox->new(tls => 1);
my $plain = Hubex::Sandbox->new;

my $node = Hubex::Node->new('main');
$node->safe_psql('postgres', 'CREATE EXTENSION hubex; CREATE ROLE clerk LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER hubex_fdw TO clerk');
my $client = Hubex::Client->new($node);
my $clerk = Hubex::Client->new($node, user => 'clerk');

#
# Certificates
#
works('a certificate of an authority that ca_file names', $sandbox->url, ca_file => "$folder/ours.pem");
works('the same by its other name', $sandbox->url =~ s/127\.0\.0\.1/localhost/r, ca_file => "$folder/ours.pem");
works('a certificate that vouches for itself, named in ca_file', $self_signed->url, ca_file => $self_signed->ca_file);
refused('an authority that the system does not know', $sandbox->url);
refused('a certificate that vouches for itself', $self_signed->url);
refused('a certificate of another authority', $sandbox->url, ca_file => "$folder/theirs.pem");
refused('a certificate for another name', $elsewhere->url, ca_file => "$folder/ours.pem");
refused('a certificate that has expired', $expired->url, ca_file => "$folder/ours.pem");
refused('a ca_file that is not there', $sandbox->url, ca_file => "$folder/none.pem");
append_to_file("$folder/rubbish.pem", "rubbish\n");
refused('a ca_file that is none', $sandbox->url, ca_file => "$folder/rubbish.pem");
refused('https to a plain port', $plain->url =~ s/^http:/https:/r);
is_deeply(journal($_), [], 'none of those got a request') for $elsewhere, $expired;
# At a port with no kept connection: libcurl 8.14 would use one over TLS for http, which does no harm.
is(call('http to a TLS port', $elsewhere->url =~ s/^https:/http:/r)->{sqlstate} =~ /^08/, 1, 'http to a TLS port is refused');
is($client->query(q(SELECT count(*) FROM hubex_tasks(server => 's1') WHERE id > 0)) > 0, 1, 'a list comes over TLS');

# the worker, with the same certificates
$client->query(q(SELECT hubex_create_task(1, 'over TLS', server => 's1')));
$client->query(q(SELECT hubex_create_task(1, 'over bad TLS', server => 's4')));
$node->wait_for(q(SELECT state FROM hubex.outbox WHERE server = 's1'), 'delivered', 'the worker delivers over TLS', 10);
is((grep { ($_->{request}{notes} // '') eq 'over TLS' } @{ $sandbox->tasks }), 1, '... as the sandbox says');
$node->wait_for(q(SELECT state || ' ' || uncertain || ' ' || (last_error ~ 'certificate') FROM hubex.outbox WHERE server = 's4'),
	'waiting false true', 'and waits where it cannot be sure', 10);

# a file that comes to be right
$client->query("ALTER SERVER s4 OPTIONS (ADD ca_file '$folder/ours.pem')");
$node->wait_for(q(SELECT state FROM hubex.outbox WHERE server = 's4'), 'delivered', '... until it can', 15);

#
# Plain http
#
my $hint = qr/allow_http/;
for my $url ('http://192.0.2.1/fsm', 'http://hubex.example/fsm', 'http://[2001:db8::1]/fsm', 'http://0x7f000001.example/',
	'http://127.0.0.1.example/fsm', 'http://3221225985/fsm', 'http://0xc0000201/fsm', 'http://10.1/fsm', 'http://[::ffff:192.0.2.1]/fsm',
	'HTTP://192.0.2.1/fsm', 'http://0.0.0.0/fsm', 'http://[::]/fsm')
{
	my $answer = create('s', $url);
	is($answer->{sqlstate}, '22023', "CREATE SERVER refuses $url");
	like($answer->{detail} . $answer->{hint}, $hint, '... and names the option') if $url =~ /^http:..192/;
}
for my $url ('ftp://127.0.0.1/', 'file:///etc/passwd', 'gopher://127.0.0.1/', 'https://user:p4ssw0rd@hubex.example/', 'https://hubex.example/?a=b',
	'https://hubex.example/#a', '//hubex.example/', '', 'hubex.example', "https://hubex.example/\n", 'https://')
{
	my $answer = create('s', $url);
	is($answer->{sqlstate}, '22023', 'CREATE SERVER refuses ' . $url =~ s/\n/\\n/r);
	unlike($answer->{error}, qr/p4ssw0rd/, '... and keeps the password to itself') if $url =~ /p4ssw0rd/;
}
for my $url ('http://localhost:1/fsm', 'http://127.0.0.1:1/fsm', 'http://127.1.2.3:1/fsm', 'http://[::1]:1/fsm', 'http://[::ffff:127.0.0.1]:1/fsm')
{
	is(create('loop', $url)->{error}, undef, "CREATE SERVER takes $url");
	$client->query('DROP SERVER loop');
}
is(create('s', 'http://192.0.2.1/fsm', allow_http => 'true')->{error}, undef, 'with allow_http it takes any');
is($client->try('ALTER SERVER s OPTIONS (DROP allow_http)')->{sqlstate}, '22023', '... which cannot be taken away then');
is($client->try(q(ALTER SERVER s OPTIONS (SET allow_http 'off')))->{sqlstate}, '22023', '... nor switched off');
is($client->try(q(ALTER SERVER s1 OPTIONS (SET url 'http://192.0.2.1/fsm')))->{sqlstate}, '22023', 'ALTER SERVER is as strict');
$client->query('DROP SERVER s');

# a name that is of this machine when the server is made and of another when it is used: the check is of the address
my ($name) = grep { resolves_elsewhere($_) } PostgreSQL::Test::Utils::slurp_file('/proc/sys/kernel/hostname') =~ s/\s//gr,
  qw(ip6-allnodes ip6-allrouters), '192.0.2.1';
create('moved', 'http://localhost:80/fsm');
mapping('moved');
$client->query("UPDATE pg_foreign_server SET srvoptions = array_replace(srvoptions, 'url=http://localhost:80/fsm', 'url=http://$name/fsm')");
my $answer = $client->try(request('moved'));
is($answer->{sqlstate}, '08001', "plain http to $name, which is not this machine, is refused");
like($answer->{message}, qr/plain http is not allowed/, '... for what it is');
like($answer->{detail}, qr/step was "connect"/, '... at connect');
$client->query(q(SELECT hubex_create_task(1, 'not to be read by all', server => 'moved')));
$node->wait_for(q(SELECT state || ' ' || (last_error ~ 'plain http') FROM hubex.outbox WHERE server = 'moved'), 'waiting true',
	'... by the worker too', 10);

#
# Who may
#
for my $option (qw(ca_file))
{
	my $sql = "CREATE SERVER his FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://hubex.example'";
	is($clerk->try("$sql, $option '/etc/passwd')")->{sqlstate}, '42501', "$option is for superusers");
	$clerk->query("$sql)");
	is($clerk->try("ALTER SERVER his OPTIONS (ADD $option '/etc/passwd')")->{sqlstate}, '42501', '... also later');
	is($clerk->try(q(ALTER SERVER his OPTIONS (ADD timeout '5s')))->{error}, undef, 'other options are for the owner');
	$client->query("ALTER SERVER his OPTIONS (ADD $option '$folder/ours.pem')");
	is($clerk->try("ALTER SERVER his OPTIONS (SET $option '/etc/passwd')")->{sqlstate}, '42501', '... but what a superuser set is kept');
	$client->query('DROP SERVER his');
}

#
# Proxy
#
for my $proxy ('ftp://127.0.0.1/', 'socks5://127.0.0.1:1080', 'http://user:p4ssw0rd@127.0.0.1:3128', 'nonsense', '', 'http://127.0.0.1:3128/?a=b')
{
	my $answer = create('s', 'https://hubex.example/fsm', proxy => $proxy);
	is($answer->{sqlstate}, '22023', "proxy $proxy is refused");
	like($answer->{message}, qr/"proxy"/, '... by its name');
	unlike($answer->{error}, qr/p4ssw0rd/, '... and the password is not repeated') if $proxy =~ /p4ssw0rd/;
}
{
	# a proxy that answers everything itself: it is asked, and nothing goes past it
	works('a proxy that is one to this machine', $plain->url, proxy => $plain->url =~ s{/fsm$}{}r);
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $requests = @{ $plain->journal };
	my $answer = call('a proxy that is not there', $plain->url, proxy => "http://127.0.0.1:$port");
	is($answer->{sqlstate}, '08001', 'without its proxy nothing is sent');
	is(scalar @{ $plain->journal }, $requests, '... nor past it');

	local $ENV{http_proxy} = local $ENV{https_proxy} = local $ENV{ALL_PROXY} = "http://127.0.0.1:$port";
	$node->restart;
	$client = Hubex::Client->new($node);
	works('a proxy of the environment, which counts for nothing,', $plain->url);
}
done_testing;

sub create
{
	my ($name, $url, %option) = @_;
	%option = (connector => 'hubex', url => $url, rate_limit => 'none', %option);
	my $options = join ', ', map { "$_ " . quoted($option{$_}) } sort keys %option;
	return $client->try("CREATE SERVER $name FOREIGN DATA WRAPPER hubex_fdw OPTIONS ($options)");
}

sub quoted { my ($text) = @_; return "E'" . ($text =~ s/\n/\\n/gr) . "'" }

sub mapping
{
	my ($name) = @_;
	return $client->query("CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (service_token 'sandbox-service-token')");
}

sub request { return "SELECT status FROM hubex_request('GET', '/WORK/Tasks', server => '$_[0]')" }

# Makes a server and calls it.
sub call
{
	my ($what, $url, %option) = @_;
	my $name = 's' . ++$servers;
	my $created = create($name, $url, %option);
	die "$what: $created->{error}\n" if defined $created->{error};
	mapping($name);
	return $client->try(request($name));
}

sub works
{
	my ($what) = @_;
	my $answer = call(@_);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($answer->{rows}, 200, "$what works") or diag $answer->{error};
}

sub refused
{
	my ($what) = @_;
	my $answer = call(@_);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($answer->{sqlstate}, '08001', "$what is refused") or diag explain $answer;
	like($answer->{hint}, qr/"ca_file"/, '... and the hint names ca_file') or diag explain $answer;
	like($answer->{detail}, qr/step was "TLS"/, '... and the detail the step') or diag explain $answer;
}

# What a sandbox saw that a test could not trust either.
sub journal
{
	my ($sandbox) = @_;
	my $answer = HTTP::Tiny->new(verify_SSL => 0)->get($sandbox->control . '/journal');
	die "$answer->{status} $answer->{content}" unless $answer->{success};
	return decode_json($answer->{content});
}

sub openssl
{
	my (@command) = @_;
	my $log = `openssl @command 2>&1`;
	die "openssl @command: $log" if $?;
}

sub make_authority
{
	my ($name) = @_;
	openssl("req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=$name' -keyout $folder/$name.key -out $folder/$name.pem"
		. ' -addext basicConstraints=critical,CA:TRUE');
}

sub https_sandbox
{
	my ($name, $authority, $names, @days) = @_;
	@days = ('-days', 10) unless @days;
	openssl("req -newkey rsa:2048 -nodes -subj '/CN=sandbox' -keyout $folder/$name.key -out $folder/$name.csr");
	append_to_file("$folder/$name.ext", "subjectAltName=$names\n");
	openssl("x509 -req -in $folder/$name.csr -CA $folder/$authority.pem -CAkey $folder/$authority.key -CAcreateserial"
		. " @days -extfile $folder/$name.ext -out $folder/$name.pem");
	my $sandbox = Hubex::Sandbox->new(tls_cert => "$folder/$name.pem", tls_key => "$folder/$name.key");
	$sandbox->{ca_file} = "$folder/$authority.pem";
	return $sandbox;
}

sub resolves_elsewhere
{
	my ($name) = @_;
	my ($error, @addresses) = getaddrinfo($name, 80, { socktype => SOCK_STREAM });
	return if $error || !@addresses;
	my @numbers = map { (getnameinfo($_->{addr}, NI_NUMERICHOST, NIx_NOSERV))[1] } @addresses;
	return !grep { /^127\.|^::1$/ } @numbers;
}
