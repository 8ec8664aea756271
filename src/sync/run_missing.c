/*-------------------------------------------------------------------------
 *
 * run_missing.c
 *	  What a sweep has not found: judged, asked for, deleted.
 *
 * A row is deleted only if the list was read to its end and did not have it,
 * and a question for it by its key was not answered with it either, where the
 * API takes such questions.  Rows that were written since the sweep began, or
 * have a change of this side's that is still to be settled, are not missing.
 *
 * The rows are looked for some thousands at a time, in the order of their keys,
 * and never twice: one that a trigger of the target does not let go stays.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "sync/run_internal.h"

#define MISSING_A_LOOK		10000	/* rows that were not found, looked for at a time */
#define MISSING_A_BATCH		1000	/* and deleted, where nobody can be asked about them */
#define MISSING_FEW			10	/* never too many to be deleted */
#define MOST_ASKED_SINGLY	100

/* The sweep has read the list: may what it has not found be deleted? */
HxSyncStep
hx_run_step_judge(HxSyncRun *run)
{
	HxMirror   *mirror;
	const HxSubscription *subscription;
	int64		missing = 0;
	int64		rows;

	hx_run_show(run, HX_PHASE_COMPARING);
	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);
	subscription = mirror->subscription;
	run->phase = PHASE_ASK;
	if (subscription->deletes != HX_DELETES_IGNORE)
		missing = hx_sweep_count_missing(mirror);
	if (missing == 0)
		run->phase = PHASE_END;
	else if (missing > MISSING_FEW && !(subscription->sweep_confirmed && missing <= subscription->sweep_missing))
	{
		rows = hx_sweep_count_rows(mirror);
		if (missing > subscription->delete_limit * rows)
		{
			hx_sweep_hold(run->name, missing);
			run->held = MemoryContextStrdup(run->cxt,
											psprintf("It would delete " INT64_FORMAT " of " INT64_FORMAT " rows, which is more than delete_limit allows",
													 missing, rows));
			run->phase = PHASE_HELD;
		}
	}
	hx_run_commit(run);
	return hx_run_result(run);
}

/* How can it be asked for rows that were not found? */
static Asking
asking(const HxSyncRun *run, const HxMirror *mirror)
{
	const HxColumnFilter *filter = &mirror->columns[mirror->record_key].column->filter;

	if (filter->equal != NULL && filter->several && filter->exact)
		return ASK_BY_LIST;

	/* alone a record does not say whether a filter lets it through */
	if (run->table->resource->one != NULL && run->table->resource->parent == NULL && !run->table->has_filter &&
		run->last_missing == NULL && list_length(run->missing) <= MOST_ASKED_SINGLY)
		return ASK_SINGLY;
	return ASK_NOBODY;
}

/* Can a record have this key?  Ids of the API have 32 bits; it answers others with an error. */
static bool
can_be(const HxMirror *mirror, const char *key)
{
	const HxColumn *column = mirror->columns[mirror->record_key].column;
	char	   *end;
	long		number;

	if (column->type == NULL || (strcmp(column->type, "bigint") != 0 && strcmp(column->type, "integer") != 0))
		return true;
	errno = 0;
	number = strtol(key, &end, 10);
	return errno == 0 && *end == '\0' && number >= PG_INT32_MIN && number <= PG_INT32_MAX;
}

/* Looks for rows that were not found, where those of the look before are done; false where there are none. */
static bool
look_for_missing(HxSyncRun *run, const HxMirror *mirror)
{
	List	   *missing;
	MemoryContext old;
	ListCell   *cell;

	if (run->next_missing < list_length(run->missing))
		return true;
	missing = hx_sweep_missing(mirror, run->last_missing, MISSING_A_LOOK);
	MemoryContextReset(run->missing_cxt);
	old = MemoryContextSwitchTo(run->missing_cxt);
	run->missing = NIL;
	run->next_missing = 0;
	foreach(cell, missing)
	{
		const HxMissing *row = lfirst(cell);
		HxMissing  *kept = palloc(sizeof(HxMissing));

		kept->key = pstrdup(row->key);
		kept->asked = pstrdup(row->asked);
		run->missing = lappend(run->missing, kept);
	}
	MemoryContextSwitchTo(old);
	return run->missing != NIL;
}

/* Takes the next rows that were not found; their keys are good until the next look. */
static void
take_missing(HxSyncRun *run, const HxMirror *mirror)
{
	MemoryContext old = MemoryContextSwitchTo(run->missing_cxt);
	int			most;

	run->asks = asking(run, mirror);
	most = run->asks == ASK_NOBODY ? MISSING_A_BATCH : HX_KEYS_A_REQUEST;
	while (run->next_missing < list_length(run->missing) && list_length(run->asked) < most)
		run->asked = lappend(run->asked, list_nth(run->missing, run->next_missing++));
	MemoryContextSwitchTo(old);
}

/* Begins to ask for what was taken, as far as it can be asked for. */
static void
begin_asking(HxSyncRun *run, const HxMirror *mirror)
{
	MemoryContext old = hx_run_enter_reading(run);
	const char *parameter = mirror->columns[mirror->record_key].column->filter.equal;
	HxReadPart *list = NULL;
	List	   *parts = NIL;
	ListCell   *cell;

	foreach(cell, run->asked)
	{
		const char *key = ((const HxMissing *) lfirst(cell))->asked;

		if (!can_be(mirror, key))
			continue;
		if (run->asks == ASK_SINGLY)
		{
			HxReadPart *part = palloc0(sizeof(HxReadPart));

			part->path = hx_table_fill_path(run->table->resource->one, hx_http_escape(key));
			part->one = key;
			parts = lappend(parts, part);
			continue;
		}
		if (list == NULL)
		{
			list = palloc(sizeof(HxReadPart));
			*list = *run->part;
			list->query = list_copy(list->query);
			parts = list_make1(list);
		}
		list->query = lappend(list->query, hx_http_pair(parameter, key));
	}
	if (parts != NIL)
		hx_run_begin_reading(run, parts, NIL, -1, 0, NIL);
	MemoryContextSwitchTo(old);
}

static bool
is_among(const HxBatchRow *rows, int nrows, const char *key)
{
	for (int i = 0; i < nrows; i++)
		if (strcmp(rows[i].key, key) == 0)
			return true;
	return false;
}

/* A record that was asked for alone and does not show all that the list would has proved that it is there, no more. */
static void
leave_halves_alone(HxBatchRow *rows, int nrows)
{
	for (int i = 0; i < nrows; i++)
		rows[i].left_alone |= !rows[i].deleted && !bms_is_empty(rows[i].kept);
}

/* What was asked for is here: applies that, and deletes the rest. */
static HxSyncStep
apply_asked(HxSyncRun *run)
{
	HxMirror   *mirror;
	HxApplied	applied = {0};
	HxSyncNote	what = {.position = -1,.total = -1};
	HxBatchRow *rows;
	List	   *gone = NIL;
	ListCell   *cell;
	char	  **keys;
	int			nrows;

	mirror = hx_run_begin_applying(run);
	if (mirror == NULL)
		return hx_run_result(run);
	rows = hx_batch_rows(run->batch, mirror, &nrows, &applied);
	if (run->asks == ASK_SINGLY)
		leave_halves_alone(rows, nrows);
	if (nrows > 0)
		hx_apply_rows(mirror, rows, nrows, hx_batch_asked_at(run->batch), false, &applied);
	hx_sweep_add_keys(mirror, rows, nrows);
	foreach(cell, run->asked)
	{
		const HxMissing *row = lfirst(cell);

		if (!is_among(rows, nrows, row->key))
			gone = lappend(gone, (char *) row->key);
	}
	gone = hx_sweep_drop_protected(mirror, gone);
	keys = palloc(sizeof(char *) * Max(list_length(gone), 1));
	foreach(cell, gone)
		keys[foreach_current_index(cell)] = lfirst(cell);
	if (gone != NIL)
		hx_apply_missing(mirror, list_length(gone), keys, run->began_at, &applied);
	hx_run_note(run, &what, &applied);
	hx_run_commit_noted(run, &what);

	hx_batch_reset(run->batch);
	if (run->last_missing != NULL)
		pfree(run->last_missing);
	run->last_missing = pstrdup(((const HxMissing *) llast(run->asked))->key);
	list_free(run->asked);
	run->asked = NIL;
	return HX_SYNC_GOES_ON;
}

HxSyncStep
hx_run_step_ask(HxSyncRun *run)
{
	HxMirror   *mirror;

	if (run->asked == NIL)
	{
		mirror = hx_run_begin_applying(run);
		if (mirror == NULL)
			return hx_run_result(run);
		if (!look_for_missing(run, mirror))
			run->phase = PHASE_END;
		else
		{
			take_missing(run, mirror);
			if (run->asks != ASK_NOBODY)
				begin_asking(run, mirror);
		}
		hx_run_commit(run);
		if (run->phase != PHASE_ASK)
			return hx_run_result(run);
	}
	if (run->reader != NULL)
	{
		hx_run_show(run, HX_PHASE_CONFIRMING);
		if (hx_run_fill_batch(run) == HX_READ_WAIT)
			return HX_SYNC_WAITS;
		hx_run_end_reading(run);
	}
	hx_run_show(run, HX_PHASE_DELETING);
	return apply_asked(run);
}
