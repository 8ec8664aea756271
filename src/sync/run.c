/*-------------------------------------------------------------------------
 *
 * run.c
 *	  One run, step by step.
 *
 * A step reads as much as is here, or applies a batch; it never waits for the
 * network, and holds no transaction when it returns.  Each transaction begins
 * with the lock on the row of the subscription's state and opens the mirror
 * anew, so that whatever was altered, dropped or paused meanwhile is seen
 * before anything is written.  Everything that tells how far a run came is
 * written in the transaction of the rows it tells of.
 *
 * A sweep reads the whole list:
 *
 *	CLEAN -> NEWEST -> READ -> JUDGE -> ASK -> END -> TIDY -> DONE
 *				 ^		 ^		 |		 ^
 *			 (first)  (resumed)	 \-> HELD (confirmed)
 *
 * CLEAN removes what an earlier one may have left.  NEWEST asks, before the
 * first of all, for the newest modification, so that incremental runs can
 * begin at once; what changes from then on is theirs.  READ applies the list's
 * records and notes their keys.  JUDGE looks at how many rows were not found;
 * if they are too many, the sweep is HELD.  ASK asks for them by their keys,
 * where the API can be asked so, and deletes what is really gone; a list that
 * hid a record costs no row.  TIDY removes the keys.  After a crash a sweep
 * goes on in READ or JUDGE with what was committed.
 *
 * An incremental run asks for what was modified since the cursor, less the
 * overlap, in the order of modification, a page at a time.  The cursor is the
 * remote side's own time and moves with the page it stands for.  Where a page
 * is full, the next begins at the newest time of it, inclusive; where more
 * records than a page have one and the same time, all that is behind those that
 * were read is read as any list is.
 * A page that is not full is the last.  So a run with nothing new is one
 * request and one transaction that writes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "sync/run_internal.h"

static void add_context(void *arg);
static HxSyncStep take_step(HxSyncRun *run);

/* ---- transactions ---- */

void
hx_run_begin_transaction(HxSyncRun *run)
{
	MemoryContextReset(run->scratch);
	run->transactions->begin();
	MemoryContextSwitchTo(run->scratch);

	/* before anything else is locked, or DROP EXTENSION and a run could wait for each other */
	if (!hx_owner_hold_extension())
		hx_owner_report_missing();
}

void
hx_run_commit(HxSyncRun *run)
{
	run->transactions->commit();
	MemoryContextSwitchTo(run->cxt);
	MemoryContextReset(run->scratch);
}

/* Opens the mirror for hx_run_begin_applying(), which see. */
static HxMirror *
open_mirror(HxSyncRun *run)
{
	HxSubscription *subscription = hx_subscription_load(run->name, true);

	if (subscription == NULL)
	{
		run->phase = PHASE_DROPPED;
		return NULL;
	}
	if (subscription->definition != run->definition ||
		(run->kind == HX_SYNC_SWEEP && run->phase > PHASE_CLEAN && run->phase < PHASE_TIDY &&
		 (!subscription->sweeping || subscription->sweep_began_at != run->began_at)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" was changed while it was being synchronised", run->name),
				 errhint("The next run takes it as it is now.")));
	if (subscription->held != NULL)
	{
		run->held = MemoryContextStrdup(run->cxt, subscription->held);
		run->phase = PHASE_STOPPED;
		return NULL;
	}
	return hx_mirror_open(subscription);
}

/*
 * Begins a transaction that applies something: the subscription is locked and
 * is still the one that the run is about.  NULL where it is held by now, or
 * dropped; then the transaction has ended, and hx_run_result() says how the
 * run ends.
 */
HxMirror *
hx_run_begin_applying(HxSyncRun *run)
{
	HxMirror   *mirror;

	hx_run_begin_transaction(run);
	mirror = open_mirror(run);
	if (mirror == NULL)
		hx_run_commit(run);
	return mirror;
}

/* ---- beginning ---- */

/* The list that is read, below a constant parent where it has one. */
static HxReadPart *
make_part(const HxTable *table)
{
	HxReadPart *part = palloc0(sizeof(HxReadPart));
	const HxResource *resource = table->resource;

	part->path = resource->path;
	part->query = table->query;
	if (resource->parent == NULL)
		return part;
	for (int i = 0; i < table->natts; i++)
		if (table->columns[i] != NULL && table->columns[i]->constant != NULL &&
			strcmp(table->columns[i]->name, resource->parent) == 0)
			part->parent = table->columns[i]->constant;
	if (part->parent == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
				 errmsg("foreign table \"%s\" can be read only for a given \"%s\"", table->name, resource->parent),
				 errhint("Give the column the option constant.")));
	part->path = hx_table_fill_path(resource->path, hx_http_escape(part->parent));
	return part;
}

/* What the owner may not read any more is not brought to him, either; the server is looked at by hx_account_open(). */
static void
check_rights(const HxSubscription *subscription)
{
	if (pg_class_aclcheck(subscription->foreign_table, subscription->owner, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign table %s", get_rel_name(subscription->foreign_table)),
				 errdetail("Subscription \"%s\" reads it as its owner, role \"%s\".", subscription->name,
						   GetUserNameFromId(subscription->owner, false))));
}

/* Reads how the list is to be read into the run's own memory; in a transaction. */
static void
open_list(HxSyncRun *run, const HxSubscription *subscription, const HxMirror *mirror)
{
	MemoryContext old = MemoryContextSwitchTo(run->cxt);
	const char *modified = hx_mirror_cursor_column(mirror);
	ListCell   *cell;

	check_rights(subscription);
	run->definition = subscription->definition;
	run->table = hx_table_open_whole(subscription->foreign_table, subscription->filter);
	run->account = hx_account_open(run->table->server->servername, subscription->owner, true);
	run->account->page_size = run->table->page_size;
	run->part = make_part(run->table);
	if (modified != NULL)
		run->modified = hx_resource_column(run->table->resource, modified);
	foreach(cell, run->table->resource->orders)
	{
		HxColumnOrder *order = lfirst(cell);

		if (run->modified != NULL && strcmp(order->column, modified) == 0)
			run->by_time = order;
	}
	if (run->by_time == NULL)
		run->modified = NULL;
	hx_progress_quota(run->progress, &run->account->rate);
	MemoryContextSwitchTo(old);
}

/* A sweep goes on, or begins anew; in a transaction. */
static void
begin_sweep(HxSyncRun *run, const HxSubscription *subscription)
{
	MemoryContext old;
	ListCell   *cell;

	run->wants_newest = subscription->incremental && !subscription->has_cursor && run->modified != NULL;
	if (!subscription->sweeping || subscription->sweep_definition != subscription->definition)
	{
		if (subscription->sweeping || subscription->sweep_held)
			hx_sweep_give_up(run->name);
		run->phase = PHASE_CLEAN;
		return;
	}
	run->began_at = subscription->sweep_began_at;
	run->position = subscription->sweep_position;
	old = MemoryContextSwitchTo(run->cxt);
	foreach(cell, subscription->sweep_keys)
		run->known = lappend(run->known, pstrdup(lfirst(cell)));
	MemoryContextSwitchTo(old);

	/* changes since it began are to be asked for from before it began */
	run->wants_newest = run->wants_newest && run->position == 0 && !subscription->sweep_read;
	run->phase = subscription->sweep_read ? PHASE_JUDGE : run->wants_newest ? PHASE_NEWEST : PHASE_READ;
}

static void
begin_incremental(HxSyncRun *run, const HxSubscription *subscription, const HxMirror *mirror)
{
	if (run->modified == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("resource \"%s\" of connector \"%s\" cannot tell what was changed",
						run->table->resource->name, run->table->connector),
				 errhint("Its manifest has to say which column does (modified), with a filter from and an order.")));
	if (!subscription->has_cursor)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mirror of subscription \"%s\" was never filled", run->name),
				 errhint("CALL hubex_sync(%s, 'full').", quote_literal_cstr(run->name))));
	run->began_at = GetCurrentTimestamp();
	run->from = subscription->cursor - subscription->overlap_us;
	run->sweeps = subscription->sweeps;
	run->phase = PHASE_CHANGES;

	/* a mirror that cannot tell which answer is newer is written by one at a time */
	if (!mirror->versioned && subscription->sweeping)
	{
		hx_incremental_put_off(run->name);
		run->phase = PHASE_OVERTAKEN;
	}
}

/*
 * Begins a run of a subscription.  Errors: its owner may not read the foreign
 * table (42501), what hx_mirror_open() and hx_account_open() say, an incremental run of what
 * cannot tell changes (0A000) or was never filled (55000).
 */
HxSyncRun *
hx_sync_run_begin(const HxTransactions *transactions, const char *subscription, HxSyncKind kind)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex sync run", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	HxSyncRun  *run = palloc0(sizeof(HxSyncRun));
	ErrorContextCallback context = {.callback = add_context,.arg = run,.previous = error_context_stack};
	HxSubscription *loaded;

	run->cxt = cxt;
	run->scratch = AllocSetContextCreate(cxt, "hubex sync transaction", ALLOCSET_DEFAULT_SIZES);
	run->missing_cxt = AllocSetContextCreate(cxt, "hubex missing rows", ALLOCSET_DEFAULT_SIZES);
	run->transactions = transactions;
	run->name = pstrdup(subscription);
	run->kind = kind;
	run->total = -1;
	run->batch = hx_batch_make();
	run->progress = hx_progress_begin(subscription, kind);
	error_context_stack = &context;

	hx_run_begin_transaction(run);
	loaded = hx_subscription_load(subscription, true);
	if (loaded == NULL)
		run->phase = PHASE_DROPPED;
	else if (loaded->held != NULL)
	{
		run->held = MemoryContextStrdup(cxt, loaded->held);
		run->phase = PHASE_STOPPED;
	}
	else
	{
		HxMirror   *mirror = hx_mirror_open(loaded);

		open_list(run, loaded, mirror);
		if (kind == HX_SYNC_SWEEP)
			begin_sweep(run, loaded);
		else
			begin_incremental(run, loaded, mirror);
	}
	hx_run_commit(run);
	error_context_stack = context.previous;
	MemoryContextSwitchTo(old);
	return run;
}

/* Ends a run, its requests too; it ends with its memory anyway. */
void
hx_sync_run_end(HxSyncRun *run)
{
	MemoryContextDelete(run->cxt);
}

const char *
hx_sync_run_held(const HxSyncRun *run)
{
	return run->held;
}

TimestampTz
hx_sync_run_as_of(const HxSyncRun *run)
{
	return run->began_at;
}

const HxProgressFigures *
hx_sync_run_figures(const HxSyncRun *run)
{
	return hx_progress_figures(run->progress);
}

/* The lock that whoever makes a run of a kind of a subscription has. */
void
hx_sync_run_lock(const char *subscription, HxSyncKind kind, HxLock *lock)
{
	lock->class = HX_LOCK_SYNC;
	lock->first = DatumGetUInt32(hash_any((const unsigned char *) subscription, (int) strlen(subscription)));
	lock->second = (uint32) kind;
}

/* ---- all of it ---- */

/* How a run stands after a step that has nothing to wait for. */
HxSyncStep
hx_run_result(const HxSyncRun *run)
{
	switch (run->phase)
	{
		case PHASE_DONE:
			return HX_SYNC_DONE;
		case PHASE_OVERTAKEN:
			return HX_SYNC_OVERTAKEN;
		case PHASE_HELD:
			return HX_SYNC_HELD;
		case PHASE_STOPPED:
			return HX_SYNC_STOPPED;
		case PHASE_DROPPED:
			return HX_SYNC_DROPPED;
		default:
			return HX_SYNC_GOES_ON;
	}
}

static HxSyncStep
take_step(HxSyncRun *run)
{
	switch (run->phase)
	{
		case PHASE_CLEAN:
			return hx_run_step_clean(run);
		case PHASE_NEWEST:
			return hx_run_step_newest(run);
		case PHASE_READ:
			return hx_run_step_read(run);
		case PHASE_JUDGE:
			return hx_run_step_judge(run);
		case PHASE_ASK:
			return hx_run_step_ask(run);
		case PHASE_END:
			return hx_run_step_end(run);
		case PHASE_TIDY:
			return hx_run_step_tidy(run);
		case PHASE_CHANGES:
			return hx_run_step_changes(run);
		case PHASE_DONE:
		case PHASE_OVERTAKEN:
		case PHASE_HELD:
		case PHASE_STOPPED:
		case PHASE_DROPPED:
			break;
	}
	return hx_run_result(run);
}

static void
add_context(void *arg)
{
	const HxSyncRun *run = arg;

	errcontext("synchronising subscription \"%s\"", run->name);
}

/*
 * Does what can be done at once, up to a batch.  Errors: what reading,
 * converting and applying say; 55000 where the subscription was changed.
 */
HxSyncStep
hx_sync_run_step(HxSyncRun *run)
{
	ErrorContextCallback context = {.callback = add_context,.arg = run,.previous = error_context_stack};
	MemoryContext old = MemoryContextSwitchTo(run->cxt);
	HxSyncStep	step;

	CHECK_FOR_INTERRUPTS();
	error_context_stack = &context;
	step = take_step(run);
	error_context_stack = context.previous;
	MemoryContextSwitchTo(old);
	return step;
}

/*
 * Records that a run ended in an error, in a transaction of its own.  A list
 * that could not be put together is begun anew, for the place is lost.
 */
void
hx_sync_run_failed(const HxTransactions *transactions, const char *subscription, HxSyncKind kind, HxSyncRun *run,
				   const ErrorData *error)
{
	static const HxRetry otherwise = {.base = 1,.factor = 2,.cap = 300,.jitter = 0.5};
	MemoryContext here = CurrentMemoryContext;
	const HxRetry *retry = run != NULL && run->account != NULL ? &run->account->retry : &otherwise;
	int64		requests = run != NULL ? hx_run_reads(run).requests - run->requests_noted : 0;
	char	   *problem = psprintf("%s%s%s%s%s", error->message,
								   error->detail ? ". " : "", error->detail ? error->detail : "",
								   error->hint ? " Hint: " : "", error->hint ? error->hint : "");

	transactions->begin();
	MemoryContextSwitchTo(here);
	if (!hx_owner_hold_extension())
	{
		transactions->commit();
		MemoryContextSwitchTo(here);
		return;
	}
	if (kind == HX_SYNC_SWEEP && run != NULL && run->in_reader && run->phase == PHASE_READ &&
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		hx_sweep_give_up(subscription);
	hx_subscription_failed(subscription, kind == HX_SYNC_SWEEP, problem, retry, requests);
	transactions->commit();
	MemoryContextSwitchTo(here);
	if (run != NULL)
		run->requests_noted += requests;
}
