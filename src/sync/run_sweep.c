/*-------------------------------------------------------------------------
 *
 * run_sweep.c
 *	  The steps of a sweep.
 *
 * See run.c for their order, run_missing.c for what is not found.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "sync/run_internal.h"

HxSyncStep
hx_run_step_clean(HxSyncRun *run)
{
	HxMirror   *mirror;
	TimestampTz now;

	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);
	if (!hx_sweep_clean(run->name))
	{
		now = GetCurrentTimestamp();
		hx_sweep_begin(mirror->subscription, now);
		run->began_at = now;
		run->position = 0;
		run->phase = run->wants_newest ? PHASE_NEWEST : PHASE_READ;
	}
	hx_run_commit(run);
	return HX_SYNC_GOES_ON;
}

HxSyncStep
hx_run_step_newest(HxSyncRun *run)
{
	HxMirror   *mirror;
	HxApplied	applied = {0};
	HxSyncNote	what = {.position = -1,.total = -1};
	HxBatchRow *rows;
	int			nrows;

	if (run->reader == NULL)
	{
		MemoryContext old = hx_run_enter_reading(run);

		hx_run_begin_reading(run, list_make1(run->part), run->by_time->descending, 1, 0, NIL);
		MemoryContextSwitchTo(old);
	}
	if (hx_run_fill_batch(run) == HX_READ_WAIT)
		return HX_SYNC_WAITS;
	hx_run_end_reading(run);

	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);
	rows = hx_batch_rows(run->batch, mirror, &nrows, &applied);
	applied.drift = NULL;
	hx_sweep_set_newest(run->name, nrows > 0 && rows[0].has_modified ? rows[0].modified : HX_REMOTE_EPOCH);
	hx_run_note(run, &what, &applied);
	run->phase = PHASE_READ;
	hx_run_commit_noted(run, &what);
	hx_batch_reset(run->batch);
	return HX_SYNC_GOES_ON;
}

HxSyncStep
hx_run_step_read(HxSyncRun *run)
{
	HxMirror   *mirror;
	HxApplied	applied = {0};
	HxSyncNote	what = {0};
	HxReadState state;
	HxBatchRow *rows;
	int			nrows;

	if (run->reader == NULL)
	{
		MemoryContext old = hx_run_enter_reading(run);

		hx_run_begin_reading(run, list_make1(run->part), NIL, -1, run->position, run->known);
		MemoryContextSwitchTo(old);
	}
	state = hx_run_fill_batch(run);
	run->total = hx_reader_total(run->reader);
	if (state == HX_READ_WAIT)
	{
		hx_run_show(run, HX_PHASE_READING);
		return HX_SYNC_WAITS;
	}
	hx_run_show(run, HX_PHASE_APPLYING);

	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);
	rows = hx_batch_rows(run->batch, mirror, &nrows, &applied);
	if (nrows > 0)
		hx_apply_rows(mirror, rows, nrows, hx_batch_asked_at(run->batch), true, &applied);
	hx_sweep_add_keys(mirror, rows, nrows);
	what.position = run->place;
	what.total = run->total;
	what.keys = hx_run_last_keys(run);
	hx_run_note(run, &what, &applied);
	if (state == HX_READ_END)
	{
		hx_sweep_set_read(run->name, GetCurrentTimestamp());
		run->phase = PHASE_JUDGE;
	}
	hx_run_commit_noted(run, &what);
	run->position = run->place;
	hx_batch_reset(run->batch);
	run->lingers_since = 0;
	if (state == HX_READ_END)
		hx_run_end_reading(run);
	hx_run_show(run, HX_PHASE_READING);
	return HX_SYNC_GOES_ON;
}

HxSyncStep
hx_run_step_end(HxSyncRun *run)
{
	HxMirror   *mirror;
	HxApplied	applied = {0};
	HxSyncNote	what = {.position = -1,.total = -1};

	hx_run_show(run, HX_PHASE_FINALIZING);
	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);
	if (mirror->two_way)
		hx_two_way_settle(mirror, run->began_at, &applied);
	hx_run_note(run, &what, &applied);
	hx_sweep_end(run->name);

	/* an incremental run may still bring an answer of the time before; it forgets them at its own end */
	if (!mirror->subscription->incremental)
		hx_sweep_forget_tombstones(run->name);
	run->phase = PHASE_TIDY;
	hx_run_commit_noted(run, &what);
	return HX_SYNC_GOES_ON;
}

HxSyncStep
hx_run_step_tidy(HxSyncRun *run)
{
	hx_run_begin_transaction(run);
	if (!hx_sweep_clean(run->name))
		run->phase = PHASE_DONE;
	hx_run_commit(run);
	return hx_run_result(run);
}
