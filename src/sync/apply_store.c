/*-------------------------------------------------------------------------
 *
 * apply_store.c
 *	  Rows applied to a mirror.
 *
 * Which answer is newer.  A sweep and an incremental run go on side by side,
 * and either may bring what is older than what the other wrote.  A row is
 * written over only if it differs and
 *
 *	- the record says that it was changed later than the row says, or
 *	- it was asked for after the row was written (synced_at).
 *
 * A request that was sent after the row was written says what is newer,
 * whatever the clock of the remote side says; of requests that overlap, that
 * clock decides.  Where it does not know either, the row stays: what it
 * lacks, if anything, comes with the next run's overlap.  A row that was
 * written in the future says that the local clock was wrong, and counts as
 * old.  A mirror that knows neither time takes what comes.
 *
 * How.  The rows are a named relation of SPI's, and one SELECT joins them with
 * the target: it tells which are new, the same, older, or changed.  Then each
 * kind is written by a statement of its own (apply_statement_store.c), if there is any: what stays the
 * same is not touched by anything, neither lock nor trigger.  A statement says
 * again what the SELECT looked for, so that a row which somebody changes
 * meanwhile is not overwritten by accident; what it left out is looked at
 * again.  What then stands as it stood was not wanted by a trigger of the
 * target, which has the last word.  Many new rows go another way
 * (apply_bulk.c), unless one is there already.
 *
 * Where changes are made here, too, it is found out first what of a row stays
 * (resolve.c), of the version of the row that there is then; another one is
 * written only when that was done for it again.
 *
 * All of this runs as mirror->writer, restricted (base/restricted.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/restricted.h"
#include "sync/apply.h"

/* How often rows are looked at that others change at the same time. */
#define MOST_PASSES		4

/* So many new rows are worth the way of COPY. */
#define BULK_ROWS		50

/*
 * A column that no record of a piece of a sweep has any more, of so many rows,
 * and of at least this share of them: one in five.
 */
#define VANISHED_ROWS	100
#define VANISHED_PART	5

/* What is told of it. */
#define VANISHED		"no record has it any more"

/* ---- looking ---- */

/* Looks what the target has of some rows; at first, when hardly any is there, for their keys only. */
static void
look(HxApply *work, const HxSome *some)
{
	HxSome		found;

	if (!work->mirror->subscription->filled && some->n >= BULK_ROWS)
	{
		hx_apply_look(work, some, true);
		found = hx_some_make(some->n);
		for (int i = 0; i < some->n; i++)
			if (work->states[some->numbers[i]].found)
				hx_some_put(&found, some->numbers[i]);
		some = &found;
	}
	if (some->n > 0)
		hx_apply_look(work, some, false);
}

/* ---- columns that no record has any more ---- */

static void
note_kept(HxApply *work)
{
	const HxMirror *mirror = work->mirror;

	/* an update leaves a column of the index alone in any case */
	for (int i = 0; i < mirror->ncolumns; i++)
		if (bms_is_member(i, work->kept) && !hx_apply_writes(mirror, i))
			work->kept = bms_del_member(work->kept, i);
	hx_apply_describe(work);
}

/* By the policy; true: it is to keep its values. */
static bool
drop_column(HxApply *work, int i, int64 n)
{
	const HxMirror *mirror = work->mirror;
	HxDrift		policy = mirror->subscription->on_drift;

	if (policy == HX_DRIFT_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_COLUMN_NAME_NOT_FOUND),
				 errmsg("no record has a value for column \"%s\" any more", mirror->columns[i].name),
				 errdetail("%lld rows of mirror %s have one that would be lost.", (long long) n, mirror->target_name),
				 errhint("Drop the column from the mirror, or subscribe with on_drift => 'ignore', which keeps its values, or 'null'.")));
	work->applied.drift = hx_batch_note(work->applied.drift, mirror->columns[i].name, VANISHED, n);
	return policy == HX_DRIFT_IGNORE;
}

/* The columns of which no record of some rows has a value. */
static Bitmapset *
empty_columns(const HxApply *work, const HxSome *some)
{
	const HxMirror *mirror = work->mirror;
	Bitmapset  *empty = NULL;

	for (int i = 0; i < mirror->ncolumns; i++)
	{
		bool		is_empty = hx_apply_writes(mirror, i) && i != mirror->mark &&
			mirror->columns[i].owner != HX_OWNER_LOCAL;

		for (int j = 0; is_empty && j < some->n; j++)
			is_empty = work->rows[some->numbers[j]].nulls[i];
		if (is_empty)
			empty = bms_add_member(empty, i);
	}
	return empty;
}

typedef struct Known
{
	const HxMirror *mirror;
	Bitmapset  *columns;
} Known;

static void
add_known(const char *name, const JsonbValue *value, void *arg)
{
	Known	   *known = arg;
	char	   *problem = hx_json_text(hx_json_value_part(value), "problem");

	for (int i = 0; i < known->mirror->ncolumns; i++)
		if (problem != NULL && strcmp(problem, VANISHED) == 0 && strcmp(known->mirror->columns[i].name, name) == 0)
			known->columns = bms_add_member(known->columns, i);
}

/* Columns of which it is known that no record has them any more, so that they keep their values. */
static Bitmapset *
known_columns(const HxMirror *mirror)
{
	Known		known = {mirror, NULL};

	if (mirror->subscription->on_drift == HX_DRIFT_IGNORE)
		hx_json_each(mirror->subscription->drift, add_known, &known);
	return known.columns;
}

/* Of columns that are empty, those that go; which of these keep their values. */
static Bitmapset *
drop_columns(HxApply *work, const HxSome *changed, int there, Bitmapset *empty)
{
	int64	   *counts = palloc0(work->mirror->ncolumns * sizeof(int64));
	Bitmapset  *keep = NULL;

	hx_apply_count_values(work, changed, empty, counts);
	for (int i = -1; (i = bms_next_member(empty, i)) >= 0;)
		if (counts[i] * VANISHED_PART >= Max(there, VANISHED_ROWS) && drop_column(work, i, counts[i]))
			keep = bms_add_member(keep, i);
	return keep;
}

/*
 * Looks for columns that had values, and of which no record has one any more.
 * The API does not tell a column that is gone from one that is empty, so it
 * takes many rows to believe it, which only a sweep has; the rows that would
 * be changed are those in which there was a value.  Where values are kept, that
 * a sweep has found a column gone is believed until one finds it there.
 */
static void
find_vanished(HxApply *work, const HxSome *some, bool sweep)
{
	HxSome		there = hx_some_make(some->n);
	HxSome		changed = hx_some_make(some->n);
	Bitmapset  *keep = known_columns(work->mirror);
	Bitmapset  *empty;

	for (int i = 0; i < some->n; i++)
	{
		int			number = some->numbers[i];

		if (!work->rows[number].deleted)
			hx_some_put(&there, number);
		if (!work->rows[number].deleted && work->states[number].found && work->states[number].changed)
			hx_some_put(&changed, number);
	}
	sweep = sweep && changed.n * VANISHED_PART >= VANISHED_ROWS && there.n >= VANISHED_ROWS;
	if (changed.n == 0 || (!sweep && keep == NULL))
		return;
	empty = empty_columns(work, &there);
	keep = bms_int_members(keep, empty);
	if (sweep && !bms_is_empty(empty))
		keep = bms_add_members(keep, drop_columns(work, &changed, there.n, empty));
	if (bms_is_empty(keep))
		return;
	for (int i = 0; i < changed.n; i++)
		work->rows[changed.numbers[i]].kept = bms_add_members(work->rows[changed.numbers[i]].kept, keep);
	work->kept = bms_add_members(work->kept, keep);
	note_kept(work);
	hx_apply_look(work, &changed, false);
}

/* ---- writing ---- */

/* The way of COPY, for new rows; false where one turns out to be there, and nothing is done. */
static bool
insert_in_bulk(HxApply *work, const HxSome *some)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	HxBatchRow **rows = palloc(some->n * sizeof(HxBatchRow *));
	volatile bool done = false;

	for (int i = 0; i < some->n; i++)
		rows[i] = &work->rows[some->numbers[i]];
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		hx_apply_bulk(work->mirror, rows, some->n);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	if (!done)
		return false;
	for (int i = 0; i < some->n; i++)
		work->states[some->numbers[i]].settled = true;
	work->applied.inserted += some->n;
	return true;
}

static void
insert_new(HxApply *work, const HxSome *some)
{
	if (some->n < BULK_ROWS || !hx_apply_can_bulk(work->mirror) || !insert_in_bulk(work, some))
		work->applied.inserted += hx_apply_insert(work, some);
}

/* ---- changes made here ---- */

/* Sees to it that values stay which are to stay; rows that are left alone are none of these any more. */
static void
resolve(HxApply *work, HxSome *some)
{
	HxBatchRow **rows = palloc(Max(some->n, 1) * sizeof(HxBatchRow *));
	int			n = some->n;

	for (int i = 0; i < n; i++)
		rows[i] = &work->rows[some->numbers[i]];
	hx_two_way_resolve(work->mirror, rows, n, work->asked_at);
	some->n = 0;
	for (int i = 0; i < n; i++)
	{
		int			number = some->numbers[i];

		work->kept = bms_add_members(work->kept, work->rows[number].kept);
		if (!work->rows[number].left_alone)
			hx_some_put(some, number);
		else
		{
			work->states[number].settled = true;
			work->applied.unchanged++;
		}
	}
	note_kept(work);
}

/* Was a row looked at that is another by now? */
static bool
is_outdated(const HxBatchRow *row, const HxRowState *state)
{
	return row->has_version && !(state->found && TransactionIdEquals(state->xmin, row->version));
}

/* ---- tombstones ---- */

/* Leaves those rows alone that were deleted since they were asked for. */
static void
heed_tombstones(HxApply *work, int nrows)
{
	char	  **keys;
	int			n;

	if (work->mirror->subscription->deletes != HX_DELETES_DELETE)
		return;
	keys = hx_tombstones_read(work->mirror, work->asked_at, &n);
	for (int i = 0; n > 0 && i < nrows; i++)
		if (!work->rows[i].left_alone && !work->rows[i].deleted &&
			hx_tombstones_have(keys, n, work->rows[i].key))
		{
			work->states[i].settled = true;
			work->applied.older++;
		}
}

static void
leave_tombstones(HxApply *work, const HxSome *some)
{
	Datum	   *keys = palloc(Max(some->n, 1) * sizeof(Datum));

	for (int i = 0; i < some->n; i++)
		keys[i] = CStringGetTextDatum(work->rows[some->numbers[i]].key);
	if (some->n > 0)
		hx_tombstones_leave(work->mirror, some->n, keys);
}

/* Remembers rows that were deleted, those too that were not there yet: a sweep may be about to bring them. */
static void
note_deleted(HxApply *work, int nrows)
{
	HxSome		deleted = hx_some_make(nrows);

	if (!work->mirror->subscription->sweeping || work->mirror->subscription->deletes != HX_DELETES_DELETE)
		return;
	for (int i = 0; i < nrows; i++)
		if (work->rows[i].deleted && !work->rows[i].left_alone)
			hx_some_put(&deleted, i);
	leave_tombstones(work, &deleted);
}

/* Remembers rows that were missing, and are deleted: an incremental run may be about to bring them. */
static void
note_missing(HxApply *work, const HxSome *some)
{
	HxSome		deleted = hx_some_make(some->n);

	if (!work->mirror->subscription->incremental || work->mirror->subscription->deletes != HX_DELETES_DELETE)
		return;
	for (int i = 0; i < some->n; i++)
		if (work->states[some->numbers[i]].settled)
			hx_some_put(&deleted, some->numbers[i]);
	leave_tombstones(work, &deleted);
}

/* ---- all of it ---- */

static void
add_context(void *arg)
{
	const HxMirror *mirror = arg;

	errcontext("applying records of subscription \"%s\" to mirror %s", mirror->subscription->name, mirror->target_name);
}

/*
 * A row was not written though it was to be, and stands as it stood, or as
 * this transaction itself made it: a trigger saw to that.
 */
static bool
stands_still(const HxRowState *before, const HxRowState *after)
{
	if (!before->found && !after->found)
		return true;
	if (!after->found)
		return false;
	if (TransactionIdIsCurrentTransactionId(after->xmin))
		return true;
	return before->found && before->relation == after->relation && ItemPointerEquals((ItemPointer) &before->tid,
																					  (ItemPointer) &after->tid);
}

/* What is to be done about a row; that which needs nothing is settled. */
static void
sort_out(HxApply *work, int number, HxSome *new, HxSome *changed, HxSome *gone)
{
	const HxBatchRow *row = &work->rows[number];
	HxRowState   *state = &work->states[number];
	bool		delete = row->deleted && work->mirror->subscription->deletes == HX_DELETES_DELETE;

	if (!state->found && !delete)
		hx_some_put(new, number);
	else if (!state->found || (!delete && !state->changed))
	{
		state->settled = true;
		work->applied.unchanged++;
	}
	else if (!state->newer)
	{
		state->settled = true;
		work->applied.older++;
	}
	else
		hx_some_put(delete ? gone : changed, number);
}

/* Looks at rows, and writes those that need it; the rest is settled later. */
static void
apply_once(HxApply *work, HxSome *some, bool first, bool sweep)
{
	HxRowState   *before = NULL;
	HxSome		new = hx_some_make(some->n);
	HxSome		changed = hx_some_make(some->n);
	HxSome		gone = hx_some_make(some->n);

	if (work->mirror->two_way)
		resolve(work, some);
	if (!first)
	{
		before = palloc(some->n * sizeof(HxRowState));
		for (int i = 0; i < some->n; i++)
			before[i] = work->states[some->numbers[i]];
	}
	look(work, some);
	if (first)
		find_vanished(work, some, sweep);
	for (int i = 0; i < some->n; i++)
	{
		HxRowState   *state = &work->states[some->numbers[i]];

		state->moved = is_outdated(&work->rows[some->numbers[i]], state);
		if (state->moved)
			continue;
		if (!first && !before[i].moved && stands_still(&before[i], state))
		{
			state->settled = true;
			work->applied.unchanged++;
		}
		else
			sort_out(work, some->numbers[i], &new, &changed, &gone);
	}
	if (gone.n > 0)
		work->applied.deleted += hx_apply_delete(work, &gone);
	if (changed.n > 0)
		work->applied.updated += hx_apply_update(work, &changed);
	if (new.n > 0)
		insert_new(work, &new);
}

static void
apply(HxApply *work, int nrows, bool sweep)
{
	HxSome		some = hx_some_make(nrows);
	int			pass = 0;

	for (int i = 0; i < nrows; i++)
	{
		const HxBatchRow *row = &work->rows[i];

		if (row->left_alone || (row->deleted && work->mirror->subscription->deletes == HX_DELETES_IGNORE))
		{
			work->states[i].settled = true;
			work->applied.unchanged++;
		}
		else if (!work->states[i].settled)
			hx_some_put(&some, i);
		work->kept = bms_add_members(work->kept, row->kept);
	}
	note_kept(work);
	while (some.n > 0)
	{
		int			n;

		if (pass == MOST_PASSES)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("rows of mirror %s are changed by others all the time", work->mirror->target_name)));
		apply_once(work, &some, pass++ == 0, sweep);
		n = some.n;
		some.n = 0;
		for (int i = 0; i < n; i++)
			if (!work->states[some.numbers[i]].settled)
				hx_some_put(&some, some.numbers[i]);
	}
}

static void
begin_work(HxApply *work, const HxMirror *mirror, HxBatchRow *rows, int nrows, TimestampTz asked_at)
{
	memset(work, 0, sizeof(HxApply));
	work->mirror = mirror;
	work->rows = rows;
	work->asked_at = asked_at;
	work->states = palloc0(Max(nrows, 1) * sizeof(HxRowState));
}

/* Adds what came of it, to what lives in the caller's memory. */
static void
add_applied(const HxApplied *more, HxApplied *applied)
{
	applied->inserted += more->inserted;
	applied->updated += more->updated;
	applied->deleted += more->deleted;
	applied->unchanged += more->unchanged;
	applied->older += more->older;
	applied->drift = more->drift;
}

void
hx_apply_rows(const HxMirror *mirror, HxBatchRow *rows, int nrows, TimestampTz asked_at, bool sweep, HxApplied *applied)
{
	ErrorContextCallback context = {.callback = add_context,.arg = (void *) mirror,.previous = error_context_stack};
	MemoryContext caller = CurrentMemoryContext;
	HxRestricted saved;
	HxApply		work;

	begin_work(&work, mirror, rows, nrows, asked_at);
	work.applied.drift = applied->drift;
	error_context_stack = &context;
	heed_tombstones(&work, nrows);
	hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
	SPI_connect();
	apply(&work, nrows, sweep);
	if (work.applied.drift != applied->drift)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		work.applied.drift = DatumGetJsonbPCopy(JsonbPGetDatum(work.applied.drift));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_restricted_leave(&saved);
	note_deleted(&work, nrows);
	error_context_stack = context.previous;
	add_applied(&work.applied, applied);
}

void
hx_apply_missing(const HxMirror *mirror, int nkeys, char **keys, TimestampTz before, HxApplied *applied)
{
	ErrorContextCallback context = {.callback = add_context,.arg = (void *) mirror,.previous = error_context_stack};
	HxRestricted saved;
	HxSome		some = hx_some_make(nkeys);
	HxApply		work;
	int64		n;

	if (nkeys == 0 || mirror->subscription->deletes == HX_DELETES_IGNORE)
		return;
	error_context_stack = &context;
	begin_work(&work, mirror, hx_batch_key_rows(mirror, nkeys, keys), nkeys, before);
	work.by_key = true;
	for (int i = 0; i < nkeys; i++)
		hx_some_put(&some, i);
	hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
	SPI_connect();
	hx_apply_describe(&work);
	n = hx_apply_end(&work, &some);
	SPI_finish();
	hx_restricted_leave(&saved);
	note_missing(&work, &some);
	error_context_stack = context.previous;
	if (mirror->marked != NULL)
		applied->updated += n;
	else
		applied->deleted += n;
}
