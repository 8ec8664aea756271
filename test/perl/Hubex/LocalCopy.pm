package Hubex::LocalCopy;

=head1 NAME

Hubex::LocalCopy - what the sandbox holds, as ordinary tables

=head1 SYNOPSIS

	my $copy = Hubex::LocalCopy->new($sandbox);
	$copy->create('/WORK/Tasks', { taskTypeID => 1, requestMethodID => 4, erpID => "O'Hara & Sons" });
	$node->safe_psql($database, $copy->load('near', 'tasks'));
	$node->safe_psql($database, $copy->table('near.open_tasks', 'tasks', q(NOT r ? 'deleted'), \@columns));

=head1 DESCRIPTION

The measure for what hubex reads, and therefore made without it: the lists come by plain HTTP, are kept as the JSON they
came as, and become columns by SQL written from the contract, not from the connector's manifest.

=cut

use strict;
use utf8;
use warnings;

use Carp qw(croak);
use HTTP::Tiny;
use JSON::PP;

# A page of the sandbox's lists; what a test holds fits into a few.
use constant PAGE => 1000;

# How the contract says a list is read: its path, and parameters that show all of it in one order.
my $asked = 'NULL::text';    # the column search_text: what the query asked for

my %lists = (
	tasks => { path => '/WORK/Tasks', query => '?orderBy=1&sortDirection=1' },
	assets => { path => '/ES/Assets', query => '' },
	companies => { path => '/ES/Companies', query => '' },
	users => { path => '/ADM/Users', query => '' },
	contacts => { path => '/COMMON/Contacts', query => '' },
	materials => { path => '/WH/Materials', query => '' },
	task_types => { path => '/WORK/TaskTypes', query => '' },
	tasks_conversations => { path => '/WORK/Tasks/{parent}/conversations', query => '', of => 'tasks' });

# And where each column stands, as SQL over key (the member's name) and r (the record).
my %columns = (
	tasks => {
		id => 'key::bigint',
		(map { $_->[0] => "r ->> '$_->[1]'" } [ number => 'number' ], [ notes => 'notes' ], [ erp_id => 'erpID' ],
			[ contact_person => 'contactPerson' ], [ contact_phone => 'contactPhone' ], [ contact_email => 'contactEmail' ]),
		(map { ("$_->[0]_id" => "(r #>> '{$_->[1],id}')::bigint", "$_->[0]_name" => "r #>> '{$_->[1],name}'") }
			[ task_type => 'taskType' ], [ work_type => 'workType' ], [ task_stage => 'taskStage' ],
			[ task_status => 'taskStatus' ], [ criticality => 'actualCriticality' ],
			[ actual_criticality => 'actualCriticality' ], [ company => 'company' ], [ asset => 'asset' ],
			[ requested_by => 'requestedBy' ], [ assigned_to => 'assignedTo' ], [ escalated_to => 'escalatedTo' ],
			[ approval_with => 'approvalWith' ], [ parent => 'parent' ],
			[ service_level_agreement => 'serviceLevelAgreement' ], [ task_actuality => 'taskActuality' ]),
		location_id => q((r #>> '{location,id}')::bigint),
		(map { ("location_$_" => "r #>> '{location,$_}'") } qw(address coordinate)),
		(map { ($_ => _moment("r #>> '{timesheet,$_}'")) }
			qw(created requested assigned deadline completed closed accepted signed outdated escalated)),
		fault_timestamp => _moment(q(r #>> '{timesheet,faultTimestamp}')),
		requested_start => _moment(q(r #>> '{timesheet,requestedStart}')),
		requested_finish => _moment(q(r #>> '{timesheet,requestedFinish}')),
		last_updated => _moment(q(r #>> '{timesheet,lastUpdated}')),
		last_modified => _moment(q(r ->> 'lastModified')),
		deleted => _moment(q(r ->> 'deleted')),
		(map { ("is_$_" => "r #> '{timesheet,$_}' IS NOT NULL") } qw(closed completed)),
		is_deleted => q(r ? 'deleted'),
		child_count => q((r ->> 'childCount')::bigint),
		average_rating => q((r ->> 'averageRating')::numeric),
		is_assigned => q(r ? 'assignedTo'),
		list_assigned_to => q(r -> 'listAssignedTo'),
		(map { ("$_->[0]_first_name" => "r #>> '{$_->[1],firstName}'",
			"$_->[0]_last_name" => "r #>> '{$_->[1],lastName}'") } [ requested_by => 'requestedBy' ], [ assigned_to => 'assignedTo' ]),
		(map { ("$_->[0]_color" => "r #>> '{$_->[1],color}'") } [ task_stage => 'taskStage' ], [ task_status => 'taskStatus' ],
			[ criticality => 'actualCriticality' ]),
		asset_parent_id => q((r #>> '{asset,parentID}')::bigint),
		asset_company_id => q((r #>> '{asset,company,id}')::bigint),
		is_available => q((r ->> 'isAvailable')::boolean),
		is_rated => q((r ->> 'isRated')::boolean),
		is_favourite => q((r ->> 'isFavourite')::boolean),
		search_text => $asked,
		raw => 'r' },
	assets => {
		id => 'key::bigint',
		(map { $_->[0] => "r ->> '$_->[1]'" } [ name => 'name' ], [ erp_id => 'erpID' ], [ serial_number => 'serialNumber' ]),
		(map { ("$_->[0]_id" => "(r #>> '{$_->[1],id}')::bigint", "$_->[0]_name" => "r #>> '{$_->[1],name}'") }
			[ company => 'company' ]),
		location_id => q((r #>> '{location,id}')::bigint),
		(map { ("location_$_" => "r #>> '{location,$_}'") } qw(address coordinate)),
		parent_id => q((r ->> 'parentID')::bigint),
		has_children => q((r ->> 'hasChildren')::boolean),
		use_all_work_types => q((r ->> 'useAllWorkTypes')::boolean),
		(map { $_->[0] => _moment("r ->> '$_->[1]'") } [ published => 'published' ], [ deleted => 'deleted' ],
			[ warranty_till => 'warrantyTill' ]),
		search_text => $asked,
		raw => 'r' },
	users => {
		id => 'key::bigint', user_id => q((r ->> 'userID')::bigint),
		(map { $_->[0] => "r ->> '$_->[1]'" } [ first_name => 'firstName' ], [ middle_name => 'middleName' ], [ last_name => 'lastName' ],
			[ email => 'email' ],
			[ mobile_phone => 'mobilePhone' ]),
		(map { $_->[0] => "(r ->> '$_->[1]')::boolean" } [ is_customer => 'isCustomer' ], [ is_technician => 'isTechnician' ],
			[ is_team => 'isTeam' ],
			[ is_email_verified => 'isEmailVerified' ]),
		deleted => _moment(q(r ->> 'deleted')),
		search_text => $asked,
		raw => 'r' },
	contacts => {
		id => 'key::bigint',
		(map { $_->[0] => "r ->> '$_->[1]'" } [ full_name => 'fullName' ], [ email => 'email' ], [ phone => 'phone' ], [ position => 'position' ],
			[ description => 'description' ]),
		is_used => q((r ->> 'isUsed')::boolean),
		deleted => _moment(q(r ->> 'deleted')),
		search_text => $asked,
		raw => 'r' },
	materials => {
		id => q((r ->> 'id')::bigint),
		(map { $_->[0] => "r ->> '$_->[1]'" } [ name => 'name' ], [ erp_id => 'erpID' ], [ vendor_code => 'vendorCode' ],
			[ description => 'description' ]),
		cost => q((r ->> 'cost')::numeric),
		measurement_unit_id => q((r #>> '{measurementUnit,id}')::bigint),
		measurement_unit_name => q(r #>> '{measurementUnit,name}'),
		search_text => $asked,
		raw => 'r' },
	task_types => {
		id => 'key::bigint', name => q(r ->> 'name'), number_mask => q(r ->> 'numberMask'), close_minutes => q((r ->> 'closeMinutes')::bigint),
		is_default => q((r ->> 'isDefault')::boolean),
		raw => 'r' },
	tasks_conversations => {
		task_id => 'parent::bigint', id => q((r ->> 'id')::bigint), message => q(r ->> 'message'), is_external => q((r ->> 'isExternal')::boolean),
		created => _moment(q(r ->> 'created')), author_id => q((r #>> '{author,id}')::bigint), author_last_name => q(r #>> '{author,lastName}'),
		search_text => $asked,
		raw => 'r' },
	companies => {
		id => 'key::bigint',
		(map { $_->[0] => "r ->> '$_->[1]'" } [ name => 'name' ], [ erp_id => 'erpID' ], [ code => 'code' ], [ tin => 'tin' ]),
		is_our_company => q((r ->> 'isOurCompany')::boolean),
		is_contractor_holder => q((r ->> 'isContractorHolder')::boolean),
		registration_type_id => q((r ->> 'registrationTypeID')::bigint),
		deleted => _moment(q(r ->> 'deleted')),
		search_text => $asked,
		raw => 'r' });

# A time without a zone is UTC.
sub _moment
{
	my ($text) = @_;
	return "($text || CASE WHEN $text ~ '(Z|[+-]\\d\\d(:?\\d\\d)?)\$' THEN '' ELSE 'Z' END)::timestamptz";
}

=head1 METHODS

=head2 new($sandbox)

=head2 create($path, $body), remove($path)

Writes to the sandbox, as any client could.

=head2 load($schema, @resources)

SQL that makes a table C<_RESOURCE (key, r)> of each resource's records, deleted ones too.

=head2 table($name, $resource, $condition, \@columns)

SQL that makes a table of them: the columns asked for, of the records that meet the condition, an expression over C<r>.
A column may be a name, a type and an expression of its own; then all are.

=head2 knows($resource, $column)

Does the contract say where that column stands?

=head2 expression($resource, $column)

How: SQL over C<key> and C<r>, or undef.

=cut

sub new
{
	my ($class, $sandbox) = @_;
	my $self = bless {
		url => $sandbox->url,
		http => HTTP::Tiny->new(
			timeout => 60,
			keep_alive => 0,    # or each answer waits for an acknowledgement that is put off
			verify_SSL => 1,
			SSL_options => { SSL_ca_file => $sandbox->ca_file },
			default_headers => { 'X-Application-ID' => $sandbox->application_id }) }, $class;
	my $token = $self->_call('POST', '/AUTHZ/AccessTokens', { serviceToken => $sandbox->service_token });
	$self->{http}{default_headers}{Authorization} = 'Bearer ' . decode_json($token->{content})->{access_token};
	return $self;
}

sub create { return decode_json($_[0]->_call('POST', $_[1], $_[2])->{content}) }
sub change { return $_[0]->_call('PATCH', $_[1], $_[2]) }
sub remove { return $_[0]->_call('DELETE', $_[1]) }

sub load
{
	my ($self, $schema, @resources) = @_;
	my $sql = "CREATE SCHEMA IF NOT EXISTS $schema;\n";
	for my $resource (@resources)
	{
		my ($path, $query, $of) = @{ $lists{$resource} }{qw(path query of)};
		my @parents = $of ? @{ $self->{keys}{$of} } : undef;
		my @pages;
		for my $parent (@parents)
		{
			my $filled = defined $parent ? $path =~ s/\{parent\}/$parent/r : $path;
			push @pages, map { [ $parent, $_ ] } $self->_pages($resource, $filled, $query);
		}
		$sql .= "CREATE TABLE $schema._$resource (parent text, key text, r jsonb);\n"
		  . "INSERT INTO $schema._$resource SELECT parent, key, r FROM (VALUES "
		  . join(', ', map { '(' . (defined $_->[0] ? _quote($_->[0]) : 'NULL') . ', ' . _quote($_->[1]) . '::jsonb)' } @pages)
			. ") v (parent, page),\n"
		  . "LATERAL (SELECT key, value FROM jsonb_each(CASE WHEN jsonb_typeof(page) = 'object' THEN page ELSE '{}' END)\n"
		  . "UNION ALL SELECT NULL, value FROM jsonb_array_elements(CASE WHEN jsonb_typeof(page) = 'array' THEN page ELSE '[]' END)) l (key, r);\n";
	}
	return $sql;
}

sub table
{
	my ($self, $name, $resource, $condition, $wanted) = @_;
	my ($schema) = $name =~ /^(\w+)\./;
	my @list = map { ref $_ ? "($_->[2])::$_->[1] AS $_->[0]" : "$columns{$resource}{$_} AS $_" } @$wanted;
	my $select = 'SELECT ' . join(', ', @list) . " FROM $schema._$resource WHERE $condition;\nANALYZE $name;\n";
	return "CREATE TABLE $name AS $select" unless ref $wanted->[0];
	return "CREATE TABLE $name (" . join(', ', map { "$_->[0] $_->[1]" } @$wanted) . "); INSERT INTO $name $select";
}

sub knows { return defined $columns{ $_[1] }{ $_[2] } }

sub expression { return $columns{ $_[1] }{ $_[2] } }

# The bodies of all pages of a list. Lists without pages answer 200, empty ones 204.
sub _pages
{
	my ($self, $resource, $path, $query) = @_;
	my ($from, $total, @pages) = (1, 1);
	while ($from <= $total)
	{
		my $answer = $self->_call('GET', "$path$query", undef, { Range => sprintf 'items=%d-%d', $from, $from + PAGE - 1 });
		last if $answer->{status} == 204;
		push @pages, $answer->{content};
		last if $answer->{status} == 200;
		($total) = $answer->{headers}{'content-range'} =~ m{/(\d+)$} or croak "$path: no Content-Range";
		$from += PAGE;
	}
	push @{ $self->{keys}{$resource} }, map { my $page = decode_json($_); ref $page eq 'HASH' ? keys %$page : () } @pages;
	return @pages;
}

sub _call
{
	my ($self, $method, $path, $body, $headers) = @_;
	my $answer = $self->{http}->request($method, "$self->{url}$path", {
		headers => { $headers ? %$headers : (), defined $body ? ('Content-Type' => 'application/json') : () },
		defined $body ? (content => encode_json($body)) : () });
	croak "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $answer;
}

sub _quote
{
	my ($text) = @_;
	return "'" . $text =~ s/'/''/gr . "'";
}

1;
