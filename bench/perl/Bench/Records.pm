package Bench::Records;

=head1 NAME

Bench::Records - records as HubEx shows them, made up

=head1 SYNOPSIS

	use Bench::Records;

	srand 7;
	my $task = task(1);      # what GET /WORK/Tasks shows of it, without its id
	my $asset = asset(1);    # the same of GET /ES/Assets

=cut

use strict;
use utf8;
use warnings;

use parent 'Exporter';

use JSON::PP;

our @EXPORT = qw(asset moment sample task);

=head1 FUNCTIONS

=head2 task($n), asset($n)

What is empty is absent, times have no zone.

=head2 moment

A time of the year 2025.

=head2 sample($file, @records)

Writes a file with these, one a line, for L<Bench::Peer/list>; gives its name.

=cut

sub task
{
	my ($n) = @_;
	my $person = sub { my $i = int rand 50; return { id => 100 + $i, name => (qw(Иванов Петров Сидоров Кузнецов Смирнова))[ $i % 5 ] . ' И. И.' } };
	my $named = sub { my ($most, @words) = @_; my $i = 1 + int rand $most; return { id => $i, name => ucfirst words(@words) } };
	my $colored = sub { return { %{ $named->(@_) }, color => sprintf('#%06x', int rand 1 << 24) } };
	my $customer = $person->();
	my %task = (
		number => sprintf('02070000%05d', $n),
		notes => words(5, 16) . (rand() < 0.2 ? ". \"Срочно\"\n" . words(3, 6) : ''),
		lastModified => moment(),
		isAvailable => rand() < 0.9 ? JSON::PP::true : JSON::PP::false,
		isRated => JSON::PP::false,
		isFavourite => rand() < 0.1 ? JSON::PP::true : JSON::PP::false,
		childCount => int rand 4,
		taskType => $named->(8, 1, 2),
		taskStage => $colored->(11, 1, 1),
		taskStatus => $colored->(5, 1, 1),
		actualCriticality => $colored->(3, 1, 1),
		requestedBy => $person->(),
		company => { id => 1 + int rand 500, name => 'ООО «' . ucfirst(words(1, 2)) . '»' },
		asset => $named->(9000, 2, 4),
		location => {
			id => 1 + int rand 900,
			address => 'г. Москва, ул. ' . ucfirst(words(1, 2)) . ', д. ' . (1 + int rand 99),
			coordinate => sprintf('55.%06d:37.%06d', rand 1_000_000, rand 1_000_000)
		},
		taskActuality => { id => 1, name => 'Актуальна' });
	$task{erpID} = sprintf 'ERP-%07d', $n if rand() < 0.7;
	$task{workType} = $named->(40, 1, 3) if rand() < 0.3;
	if (rand() < 0.6)
	{
		$task{assignedTo} = $person->();
		$task{listAssignedTo} = [ $task{assignedTo}, rand() < 0.3 ? $person->() : () ];
	}
	@task{qw(contactPerson contactPhone)} = ($customer->{name}, sprintf '+7 (495) %03d-%02d-%02d', rand 1000, rand 100, rand 100) if rand() < 0.5;
	$task{contactEmail} = "user$customer->{id}\@example.org" if rand() < 0.4;
	my %share = (created => 1, requested => 1, lastUpdated => 1, assigned => 0.6, deadline => 0.6, completed => 0.4, closed => 0.3,
		accepted => 0.2, requestedStart => 0.2, requestedFinish => 0.2);
	$task{timesheet} = { map { rand() < $share{$_} ? ($_ => moment()) : () } sort keys %share };
	return \%task;
}

sub words
{
	my ($least, $most) = @_;
	my @words = qw(заявка насос кран утечка ремонт замена фильтр двигатель щит панель проверка монтаж лифт котёл труба датчик клапан
		кабель шкаф блок узел цех этаж вентиляция холодильник компрессор плановое обслуживание аварийная остановка);
	return join ' ', map { $words[ rand @words ] } 1 .. $least + int rand($most - $least + 1);
}

sub moment
{
	return sprintf '2025-%02d-%02dT%02d:%02d:%02d', 1 + rand 12, 1 + rand 28, rand 24, rand 60, rand 60;
}

sub asset
{
	my ($n) = @_;
	my %asset = (
		name => ucfirst(words(2, 4)) . " № $n",
		erpID => sprintf('EQ-%06d', $n),
		published => moment(),
		useAllWorkTypes => JSON::PP::true,
		hasChildren => rand() < 0.1 ? JSON::PP::true : JSON::PP::false,
		company => { id => 1 + int rand 500, name => 'ООО «' . ucfirst(words(1, 2)) . '»' },
		location => {
			id => 1 + int rand 900,
			address => 'г. Москва, ул. ' . ucfirst(words(1, 2)) . ', д. ' . (1 + int rand 99),
			coordinate => sprintf('55.%06d:37.%06d', rand 1_000_000, rand 1_000_000)
		});
	$asset{parentID} = 1 + int rand 9000 if rand() < 0.9;
	$asset{serialNumber} = sprintf 'SN%08d', rand 1e8 if rand() < 0.8;
	$asset{warrantyTill} = moment() if rand() < 0.3;
	return \%asset;
}

sub sample
{
	my ($file, @records) = @_;
	my $json = JSON::PP->new->canonical;
	open my $handle, '>:utf8', $file or die "$file: $!";
	print $handle map { $json->encode($_) . "\n" } @records;
	close $handle or die "$file: $!";
	return $file;
}

1;
