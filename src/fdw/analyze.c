/*-------------------------------------------------------------------------
 *
 * analyze.c
 *	  ANALYZE of a foreign table: a few pages of its list, spread over it.
 *
 * The API has no sample to give, and a list may have more records than a
 * minute's quota has pages.  So the number of records is taken from what the
 * first page says of it, and of the list a bounded number of pages is read, at
 * equal distances from its beginning to its end: what changes with the age of
 * records is seen as it is on the whole.  Of the records read the rows of the
 * sample are drawn at random.
 *
 * Deliveries and queries go first where the quota is short.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_inherits.h"
#include "commands/progress.h"
#include "commands/vacuum.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/sampling.h"

#include "compat.h"
#include "fdw/fdw.h"

/* As many requests for pages, at most, whatever the length of the list. */
#define REQUESTS_MOST	5
#define RECORDS_LEAST	100			/* of a page: fewer cost as much */

/* The rows of the sample, and what they are drawn from. */
typedef struct Sample
{
	HeapTuple  *rows;
	int			wanted;
	int			nrows;
	ReservoirStateData reservoir;
	double		to_skip;		/* records until the next one is taken; below 0: not drawn yet */
	double		seen;			/* rows that could have been taken */
} Sample;

/* The reading of the list. */
typedef struct Reading
{
	HxTable    *table;
	HxReadOrder order;
	HxReadPart	part;
	HxRecordShape *shape;
	TupleDesc	desc;
	MemoryContext row_cxt;
	Datum	   *values;
	bool	   *nulls;
	int64		page;			/* records to a page */
	int64		total;			/* of the list; -1: it does not say */
	int64		records;		/* that were read */
	int			requests;
} Reading;

static void
begin_reading(Relation relation, Reading *reading)
{
	HxTable    *table = hx_table_open(RelationGetRelid(relation));
	HxAccount  *account = hx_account_open(table->server->servername, relation->rd_rel->relowner, true);

	memset(reading, 0, sizeof(Reading));
	reading->table = table;
	reading->page = account->page_size = table->page_size;
	reading->total = -1;
	reading->part.path = table->resource->path;
	reading->part.query = table->query;
	reading->order.account = account;
	reading->order.resource = table->resource;
	reading->order.parts = list_make1(&reading->part);
	reading->order.most = -1;
	reading->order.priority = HX_PRIORITY_BACKFILL;
}

/* Does HEAD count just what the table shows?  It does not know all of the list's filters. */
static bool
can_count(const HxTable *table)
{
	ListCell   *cell;
	ListCell   *pair;

	if (!table->resource->countable)
		return false;
	foreach(cell, table->resource->count_ignores)
		foreach(pair, table->query)
			if (strcmp(((HxPair *) lfirst(pair))->name, lfirst(cell)) == 0)
				return false;
	return true;
}

static void
begin_rows(Relation relation, Reading *reading)
{
	HxTable    *table = reading->table;

	reading->desc = RelationGetDescr(relation);
	reading->shape = hx_record_shape(table->resource, table->columns, reading->desc, NULL, table->null_on_error);
	if (table->drops_deleted)
		hx_record_drop(reading->shape, table->resource->deleted);
	for (int i = 0; i < table->natts; i++)
		if (table->columns[i] != NULL && table->columns[i]->constant != NULL)
			hx_record_set_filter(reading->shape, i + 1, table->columns[i]->constant);
	reading->values = palloc(sizeof(Datum) * Max(reading->desc->natts, 1));
	reading->nulls = palloc(sizeof(bool) * Max(reading->desc->natts, 1));
	reading->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex row", ALLOCSET_DEFAULT_SIZES);
}

/* Which place of the sample the next row takes; -1: none. */
static int
draw(Sample *sample)
{
	int			place = -1;

	if (sample->nrows < sample->wanted)
		place = sample->nrows++;
	else
	{
		if (sample->to_skip < 0)
			sample->to_skip = reservoir_get_next_S(&sample->reservoir, sample->seen, sample->wanted);
		if (sample->to_skip <= 0)
		{
			place = (int) (sample->wanted * sampler_random_fract(&sample->reservoir.randstate));
			heap_freetuple(sample->rows[place]);
		}
		sample->to_skip -= 1;
	}
	sample->seen += 1;
	return place;
}

static void
take_record(Reading *reading, Sample *sample, const HxRecord *record)
{
	MemoryContext old = MemoryContextSwitchTo(reading->row_cxt);
	int			place;

	reading->records++;
	if (hx_record_values(reading->shape, record, reading->values, reading->nulls))
	{
		place = draw(sample);
		MemoryContextSwitchTo(old);
		if (place >= 0)
			sample->rows[place] = heap_form_tuple(reading->desc, reading->values, reading->nulls);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(reading->row_cxt);
}

/*
 * Reads one page of the list, from a record on.  Where the API gives shorter
 * pages than it was asked for, the next one may be asked for before that is
 * seen; all others are of the length it gives.
 */
static void
read_page(Reading *reading, int64 skip, Sample *sample)
{
	HxReader   *reader;
	HxRecord	record;
	int64		before = reading->records;

	reading->order.skip = skip;
	if (reading->table->resource->paged)
		reading->order.most = reading->page;
	reader = hx_reader_begin(&reading->order);
	while (hx_reader_next(reader, true, &record) == HX_READ_RECORD)
	{
		if (hx_reader_stats(reader)->pages > 1)
		{
			reading->page = Max(reading->records - before, 1);
			break;
		}
		take_record(reading, sample, &record);
	}
	if (reading->table->resource->paged)
		reading->total = hx_reader_total(reader);
	reading->requests += hx_reader_stats(reader)->pages;
	hx_reader_end(reader);
}

/* Reads the list, or pages at equal distances of one that is too long for that. */
static void
read_list(Reading *reading, Sample *sample)
{
	int			pages;

	read_page(reading, 0, sample);
	pgstat_progress_update_param(PROGRESS_ANALYZE_BLOCKS_DONE, 1);
	if (reading->total < 0)
		reading->total = reading->records;
	if (reading->total <= reading->records)
		return;

	/* The first page is read; so many follow. */
	pages = (int) Min((reading->total - 1) / reading->page, REQUESTS_MOST - reading->requests);
	pgstat_progress_update_param(PROGRESS_ANALYZE_BLOCKS_TOTAL, pages + 1);
	for (int i = 1; i <= pages && reading->requests < REQUESTS_MOST; i++)
	{
		int64		skip = i * reading->page;

		if ((pages + 1) * reading->page < reading->total)
			skip = (int64) ((double) (reading->total - reading->page) * i / pages);
		read_page(reading, skip, sample);
		pgstat_progress_update_param(PROGRESS_ANALYZE_BLOCKS_DONE, i + 1);
	}
}

/* Fills the sample; returns how many rows it has.  See AnalyzeForeignTable in the manual. */
static int
acquire_rows(Relation relation, int elevel, HeapTuple *rows, int wanted, double *total, double *dead)
{
	Sample		sample = {.rows = rows,.wanted = wanted,.to_skip = -1};
	Reading		reading;

	begin_reading(relation, &reading);
	begin_rows(relation, &reading);
	reservoir_init_selection_state(&sample.reservoir, wanted);
	if (reading.table->resource->paged)
		reading.page = Min(reading.page, Max((wanted + REQUESTS_MOST - 1) / REQUESTS_MOST, RECORDS_LEAST));
	pgstat_progress_update_param(PROGRESS_ANALYZE_BLOCKS_TOTAL, 1);
	read_list(&reading, &sample);
	MemoryContextDelete(reading.row_cxt);

	/* Deleted records may be counted, and are none of the table's rows. */
	*total = reading.records > 0 ? floor(reading.total * (sample.seen / reading.records) + 0.5) : 0;
	*dead = 0;
	ereport(elevel,
			(errmsg("\"%s\": the list has " INT64_FORMAT " records, " INT64_FORMAT " of them read with %d requests; %d rows in sample, %.0f estimated total rows",
					RelationGetRelationName(relation), reading.total, reading.records, reading.requests,
					sample.nrows, *total)));
	return sample.nrows;
}

/* How many pages of this server a table of so many rows would have. */
static BlockNumber
local_pages(Relation relation, double rows)
{
	double		width = get_relation_data_width(RelationGetRelid(relation), NULL) + SizeofHeapTupleHeader;

	return (BlockNumber) Max(Min(ceil(Max(rows, 0) * width / BLCKSZ), MaxBlockNumber), 1);
}

/*
 * May the table be analyzed, and by what?  Its length has to be known here
 * where it is sampled together with the other partitions of a table, each by
 * its share; else it is found out on the way.
 */
static bool
hxAnalyzeForeignTable(Relation relation, AcquireSampleRowsFunc *acquire, BlockNumber *pages)
{
	Reading		reading;
	double		rows;

	begin_reading(relation, &reading);
	if (reading.table->resource->parent != NULL)
	{
		ereport(WARNING,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign table \"%s\" can be read only for a given \"%s\"", reading.table->name,
						reading.table->resource->parent),
				 errdetail("The remote API has this list for one parent at a time, so there is nothing to take a sample of.")));
		return false;
	}
	if (has_superclass(RelationGetRelid(relation)) && can_count(reading.table))
	{
		HxReadStats stats = {0};

		rows = hx_reader_count(&reading.order, &stats);
	}
	else
		rows = relation->rd_rel->reltuples > 0 ? relation->rd_rel->reltuples : reading.table->resource->rows;
	*acquire = acquire_rows;
	*pages = local_pages(relation, rows);
	return true;
}

void
hx_analyze_routines(FdwRoutine *routine)
{
	routine->AnalyzeForeignTable = hxAnalyzeForeignTable;
}
