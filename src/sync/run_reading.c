/*-------------------------------------------------------------------------
 *
 * run_reading.c
 *	  Reading into a batch; applying it, and noting what came of it.
 *
 * Records are read until a batch is full, and a batch is applied in one
 * transaction.  Where more is waited for, what is here is not left lying for
 * long.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "sync/run_internal.h"

#define LINGER_US			(200 * INT64CONST(1000))	/* records that are here are not left lying longer */

/* ---- reading ---- */

/* The memory of a reading; what it is to read is put there, too. */
MemoryContext
hx_run_enter_reading(HxSyncRun *run)
{
	run->reading = AllocSetContextCreate(run->cxt, "hubex reading", ALLOCSET_DEFAULT_SIZES);
	return MemoryContextSwitchTo(run->reading);
}

static void
remember_key(HxSyncRun *run, char *key)
{
	char	  **place = &run->keys[run->nkeys++ % HX_RUN_KNOWN_KEYS];

	if (key == NULL)
		return;
	if (*place != NULL)
		pfree(*place);
	*place = key;
}

/* Begins to read, in that memory; of the list behind so many records, the last of which are known. */
void
hx_run_begin_reading(HxSyncRun *run, List *parts, List *order, int64 most, int64 skip, List *known)
{
	HxReadOrder wanted = {.account = run->account,.resource = run->table->resource};
	ListCell   *cell;

	wanted.parts = parts;
	wanted.order = order;
	wanted.most = most;
	wanted.all = most < 0;
	wanted.skip = skip;
	wanted.known = known;
	wanted.priority = run->kind == HX_SYNC_SWEEP ? HX_PRIORITY_BACKFILL : HX_PRIORITY_SYNC;
	run->reader = hx_reader_begin(&wanted);
	run->place = skip;
	run->nkeys = 0;
	foreach(cell, known)
		remember_key(run, MemoryContextStrdup(run->cxt, lfirst(cell)));
}

void
hx_run_end_reading(HxSyncRun *run)
{
	hx_reader_add_stats(&run->reads, hx_reader_stats(run->reader));
	MemoryContextDelete(run->reading);
	run->reading = NULL;
	run->reader = NULL;
	run->lingers_since = 0;
}

HxReadStats
hx_run_reads(const HxSyncRun *run)
{
	HxReadStats reads = run->reads;

	if (run->reader != NULL)
		hx_reader_add_stats(&reads, hx_reader_stats(run->reader));
	return reads;
}

/* The keys of the records read last, in their order; palloc'd, but for the keys. */
List *
hx_run_last_keys(const HxSyncRun *run)
{
	List	   *keys = NIL;

	for (int64 i = Max(run->nkeys - HX_RUN_KNOWN_KEYS, 0); i < run->nkeys; i++)
		if (run->keys[i % HX_RUN_KNOWN_KEYS] != NULL)
			keys = lappend(keys, run->keys[i % HX_RUN_KNOWN_KEYS]);
	return keys;
}

/*
 * Takes in what is here.  HX_READ_RECORD: the batch is full, or has waited for
 * long enough; HX_READ_END: the reading is at its end.
 */
HxReadState
hx_run_fill_batch(HxSyncRun *run)
{
	bool		in_pieces = run->phase == PHASE_READ || run->phase == PHASE_CHANGES;
	HxRecord	record;

	while (!in_pieces || !hx_batch_is_full(run->batch))
	{
		HxReadState state;
		TimestampTz asked_at;

		run->in_reader = true;
		state = hx_reader_next(run->reader, false, &record);
		run->in_reader = false;
		if (state == HX_READ_WAIT && in_pieces && hx_batch_count(run->batch) > 0)
		{
			TimestampTz now = GetCurrentTimestamp();

			if (run->lingers_since == 0)
				run->lingers_since = now;
			if (now - run->lingers_since >= LINGER_US)
				return HX_READ_RECORD;
		}
		if (state != HX_READ_RECORD)
			return state;
		hx_reader_place(run->reader, &run->place, &asked_at);
		remember_key(run, hx_reader_key(run->reader));
		if (run->phase == PHASE_ASK && hx_batch_count(run->batch) >= 2 * HX_KEYS_A_REQUEST)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_ERROR),
					 errmsg("resource \"%s\" of server \"%s\" was asked for a few records and gives many",
							run->table->resource->name, run->account->server),
					 errhint("Its manifest says that it can be asked for several keys at once.")));
		if (run->phase == PHASE_ASK && run->asks == ASK_SINGLY)
			hx_batch_add_single(run->batch, &record, asked_at);
		else
			hx_batch_add(run->batch, &record, asked_at);
	}
	return HX_READ_RECORD;
}

TimestampTz
hx_sync_run_wake_at(const HxSyncRun *run)
{
	return run->lingers_since != 0 ? run->lingers_since + LINGER_US : 0;
}

/* ---- applying ---- */

static void
add_applied(HxApplied *sum, const HxApplied *more)
{
	sum->inserted += more->inserted;
	sum->updated += more->updated;
	sum->deleted += more->deleted;
	sum->unchanged += more->unchanged;
	sum->older += more->older;
}

void
hx_run_show(HxSyncRun *run, HxSyncPhase phase)
{
	HxReadStats reads = hx_run_reads(run);

	hx_progress_phase(run->progress, phase);
	hx_progress_note(run->progress, run->kind == HX_SYNC_SWEEP ? run->position : reads.records, run->total,
					 &run->applied, &reads);
}

/* Writes what a transaction did and cost into the state. */
void
hx_run_note(HxSyncRun *run, HxSyncNote *what, const HxApplied *applied)
{
	int64		requests = hx_run_reads(run).requests;

	what->requests = requests - run->requests_noted;
	what->applied = applied;
	hx_subscription_note(run->name, what);
}

/* Commits a transaction that hx_run_note() wrote of: what it did counts from now on. */
void
hx_run_commit_noted(HxSyncRun *run, const HxSyncNote *what)
{
	hx_run_commit(run);
	add_applied(&run->applied, what->applied);
	run->requests_noted += what->requests;
}
