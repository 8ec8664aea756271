/*-------------------------------------------------------------------------
 *
 * run_changes.c
 *	  The steps of an incremental run.
 *
 * It asks for what was modified since a time, in the order of modification, a
 * page at a time; see run.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "sync/run_internal.h"

/* A time as a filter takes it, in whole seconds, never later; palloc'd. */
static char *
time_text(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (time < HX_REMOTE_EPOCH)
		time = HX_REMOTE_EPOCH;
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	EncodeDateTime(&tm, 0, false, 0, NULL, USE_XSD_DATES, text);
	return pstrdup(text);
}

/* The time itself, as the filter understands it. */
static TimestampTz
whole_second(TimestampTz time)
{
	TimestampTz rest = time % USECS_PER_SEC;

	return time - (rest < 0 ? rest + USECS_PER_SEC : rest);
}

static void
begin_page(HxSyncRun *run)
{
	MemoryContext old = hx_run_enter_reading(run);
	HxReadPart *part = palloc(sizeof(HxReadPart));

	*part = *run->part;
	part->query = lappend(list_copy(part->query), hx_http_pair(run->modified->filter.from, time_text(run->from)));
	hx_run_begin_reading(run, list_make1(part), run->by_time->ascending, run->skip > 0 ? -1 : run->account->page_size,
						 run->skip, run->known);
	run->in_order = true;
	run->page_dated = false;
	MemoryContextSwitchTo(old);
}

static int
compare_arrival(const void *a, const void *b)
{
	const HxBatchRow *x = *(HxBatchRow *const *) a;
	const HxBatchRow *y = *(HxBatchRow *const *) b;

	return x->values < y->values ? -1 : x->values > y->values;
}

/* Looks at the times of rows, in the order in which they came: their values still lie in it. */
static void
note_times(HxSyncRun *run, HxBatchRow *rows, int nrows)
{
	HxBatchRow **arrived = palloc(sizeof(HxBatchRow *) * Max(nrows, 1));

	for (int i = 0; i < nrows; i++)
		arrived[i] = &rows[i];
	qsort(arrived, nrows, sizeof(HxBatchRow *), compare_arrival);
	for (int i = 0; i < nrows; i++)
	{
		TimestampTz modified = arrived[i]->modified;

		if (!arrived[i]->has_modified)
			continue;
		if (run->page_dated && modified < run->page_newest)
			run->in_order = false;
		run->page_newest = run->page_dated ? Max(run->page_newest, modified) : modified;
		run->page_dated = true;
		run->newest = run->dated ? Max(run->newest, modified) : modified;
		run->dated = true;
	}
}

/* A page was full: where does the next one begin? */
static void
next_page(HxSyncRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->cxt);
	TimestampTz next = run->page_dated ? whole_second(run->page_newest) : run->from;
	ListCell   *cell;

	if (run->in_order && next > whole_second(run->from))
	{
		run->from = next;
		run->skip = 0;
		run->known = NIL;
	}
	else
	{
		List	   *keys = hx_run_last_keys(run);

		run->skip = run->place;
		run->known = NIL;
		foreach(cell, keys)
			run->known = lappend(run->known, pstrdup(lfirst(cell)));
	}
	MemoryContextSwitchTo(old);
}

HxSyncStep
hx_run_step_changes(HxSyncRun *run)
{
	HxMirror   *mirror;
	HxApplied	applied = {0};
	HxSyncNote	what = {.position = -1,.total = -1};
	HxReadState state;
	HxBatchRow *rows;
	int64		records;
	int			nrows;
	bool		last;

	if (run->reader == NULL)
		begin_page(run);
	state = hx_run_fill_batch(run);
	run->total = hx_reader_total(run->reader);
	if (state == HX_READ_WAIT)
	{
		hx_run_show(run, HX_PHASE_READING);
		return HX_SYNC_WAITS;
	}
	hx_run_show(run, HX_PHASE_APPLYING);
	records = hx_reader_stats(run->reader)->records;
	last = state == HX_READ_END && (run->skip > 0 || records < run->account->page_size);

	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);

	/* A sweep began meanwhile: what that was told is newer, which a mirror that is not versioned cannot tell. */
	if (!mirror->versioned && mirror->subscription->sweeps != run->sweeps)
	{
		hx_incremental_put_off(run->name);
		hx_run_note(run, &what, &applied);
		run->phase = PHASE_OVERTAKEN;
		hx_run_commit_noted(run, &what);
		hx_batch_reset(run->batch);
		hx_run_end_reading(run);
		return hx_run_result(run);
	}

	rows = hx_batch_rows(run->batch, mirror, &nrows, &applied);
	if (nrows > 0)
		hx_apply_rows(mirror, rows, nrows, hx_batch_asked_at(run->batch), false, &applied);
	note_times(run, rows, nrows);
	if (last)
	{
		what.has_cursor = run->dated;
		what.cursor = run->newest;
		if (mirror->two_way)
			hx_two_way_settle(mirror, run->began_at, &applied);
	}
	else if (state == HX_READ_END && run->in_order)
	{
		what.has_cursor = run->page_dated;
		what.cursor = run->page_newest;
	}
	hx_run_note(run, &what, &applied);
	if (last)
	{
		hx_incremental_end(run->name, run->began_at);
		if (!mirror->subscription->sweeping)
			hx_sweep_forget_tombstones(run->name);
		run->phase = PHASE_DONE;
	}
	hx_run_commit_noted(run, &what);
	hx_batch_reset(run->batch);
	run->lingers_since = 0;
	if (state == HX_READ_END)
	{
		if (!last)
			next_page(run);
		hx_run_end_reading(run);
	}
	hx_run_show(run, HX_PHASE_READING);
	return last ? HX_SYNC_DONE : HX_SYNC_GOES_ON;
}
