/*-------------------------------------------------------------------------
 *
 * call.c
 *	  CALL hubex_sync(): runs in the caller's session.
 *
 * For servers that do not preload hubex, by hand or from pg_cron, and for who
 * wants a mirror in step now.  It makes the very runs that the worker makes.
 * Where the worker, or another session, is at one of the kind, it waits for
 * that one's end and then makes its own, for that may have asked before the
 * CALL.
 *
 * Each transaction of a run has a subtransaction in it, so that an error in it
 * can be recorded in the same session: the subtransaction is undone, the error
 * written down and committed, and then it goes on its way to the caller.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/shared.h"
#include "sync/progress.h"

PG_FUNCTION_INFO_V1(hubex_sync);
PG_FUNCTION_INFO_V1(hubex_confirm_deletes);

#define TELL_EVERY_MS	1000

static void begin(void);
static void commit(void);
static HxSubscription *load(const char *name);
static bool must_sweep_first(const HxSubscription *subscription);
static bool take_turn(const char *name, HxSyncKind kind, MemoryContext context);
static HxSyncStep run_guarded(const char *name, HxSyncKind kind, MemoryContext context, TimestampTz *as_of);

static const HxTransactions transactions = {.begin = begin,.commit = commit};

static const char *
text_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", name, "null")));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/*
 * Reads the whole list.  One that was begun before is finished; where nothing
 * else brings what has changed since, all of it is read again.
 */
static void
sweep(const char *name, bool incremental_too, MemoryContext context)
{
	TimestampTz began_at = GetCurrentTimestamp();
	MemoryContext turn = AllocSetContextCreate(context, "hubex sync turn", ALLOCSET_DEFAULT_SIZES);
	bool		wanted = true;
	TimestampTz as_of;

	/* what was waited for may have done it */
	if (take_turn(name, HX_SYNC_SWEEP, turn) && incremental_too)
	{
		HxSubscription *subscription = load(name);

		wanted = subscription->sweep_due || must_sweep_first(subscription);
	}
	while (wanted)
		wanted = run_guarded(name, HX_SYNC_SWEEP, turn, &as_of) == HX_SYNC_DONE && as_of < began_at && !incremental_too;
	MemoryContextDelete(turn);
}

static HxSyncStep
run_incremental(const char *name, MemoryContext context)
{
	MemoryContext turn = AllocSetContextCreate(context, "hubex sync turn", ALLOCSET_DEFAULT_SIZES);
	TimestampTz as_of;
	HxSyncStep	result;

	(void) take_turn(name, HX_SYNC_INCREMENTAL, turn);
	result = run_guarded(name, HX_SYNC_INCREMENTAL, turn, &as_of);
	MemoryContextDelete(turn);
	return result;
}

/* Does what was asked for, or what is due and at least what brings the mirror in step. */
static void
sync_now(const char *name, bool incremental, bool full, MemoryContext context)
{
	bool		asked = incremental || full;
	HxSubscription *subscription = load(name);

	hx_subscription_check_right(subscription);
	if (incremental && !subscription->incremental)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" has no incremental runs", name),
				 errdetail("Its mode is full.")));

	if (!asked)
		full = subscription->sweep_due || !subscription->incremental;
	full |= must_sweep_first(subscription);
	incremental |= subscription->incremental && !asked;
	if (full)
		sweep(name, incremental, context);
	while (incremental && run_incremental(name, context) == HX_SYNC_OVERTAKEN)
		if (must_sweep_first(load(name)))
			sweep(name, true, context);
}

/*
 * hubex_sync(name, mode): makes an incremental run of a subscription or reads
 * its whole list; without a mode what is due, and at least what brings the
 * mirror in step.  Errors: called inside a transaction block (2D000), not the
 * subscription's owner nor an administrator (42501), none of the name (42704),
 * nothing may be read now (55000), and what the run says.
 */
Datum
hubex_sync(PG_FUNCTION_ARGS)
{
	CallContext *call = (CallContext *) fcinfo->context;
	const char *name;
	const char *mode;
	bool		incremental;
	bool		full;
	MemoryContext context;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("hubex_sync() cannot run inside a transaction block"),
				 errdetail("It commits what it has read as it goes.")));
	if (XactIsoLevel != XACT_READ_COMMITTED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("hubex_sync() needs the isolation level read committed"),
				 errhint("SET default_transaction_isolation = 'read committed'.")));

	/* A portal's memory: it outlives the commits and goes with an error. */
	context = AllocSetContextCreate(PortalContext, "hubex sync", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	name = text_arg(fcinfo, 0, "name");
	mode = PG_ARGISNULL(1) ? NULL : text_arg(fcinfo, 1, "mode");
	incremental = mode != NULL && strcmp(mode, "incremental") == 0;
	full = mode != NULL && strcmp(mode, "full") == 0;
	if (mode != NULL && !incremental && !full)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown mode \"%s\"", mode),
				 errhint("It is incremental or full; without one, what is due is done.")));

	hx_procedure_enter();
	MemoryContextSwitchTo(context);
	sync_now(name, incremental, full, context);
	MemoryContextDelete(context);
	hx_procedure_leave();
	PG_RETURN_VOID();
}

/*
 * A transaction that begins now: what was opened to wait for the network in is
 * of an earlier time than the answer, and now() tells when a row was written.
 */
static void
begin_alone(void)
{
	hx_procedure_transactions.commit();
	hx_procedure_transactions.begin();
}

/* The same, with a subtransaction; only run_guarded() may be in one, which undoes it. */
static void
begin(void)
{
	begin_alone();
	BeginInternalSubTransaction(NULL);
}

static void
commit(void)
{
	ReleaseCurrentSubTransaction();
	hx_procedure_transactions.commit();
}

/* Loads a subscription into the current context; an error where there is none. */
static HxSubscription *
load(const char *name)
{
	MemoryContext here = CurrentMemoryContext;
	HxSubscription *subscription;

	begin_alone();
	MemoryContextSwitchTo(here);
	subscription = hx_subscription_load(name, false);
	if (subscription == NULL)
		hx_subscription_report_missing(name);
	hx_procedure_transactions.commit();
	MemoryContextSwitchTo(here);
	return subscription;
}

/*
 * Has an incremental run to wait for a sweep?  Where none was ever begun, and
 * where one is under way of a mirror that only one may write at a time.
 */
static bool
must_sweep_first(const HxSubscription *subscription)
{
	MemoryContext here = CurrentMemoryContext;
	bool		alone = false;

	if (!subscription->incremental || !subscription->has_cursor || !subscription->filled)
		return true;
	if (subscription->sweeping)
	{
		begin_alone();
		MemoryContextSwitchTo(here);
		alone = !hx_mirror_open(subscription)->versioned;
		hx_procedure_transactions.commit();
		MemoryContextSwitchTo(here);
	}
	return alone;
}

/* ---- one at a time ---- */

typedef struct Turn
{
	HxLock		lock;
	MemoryContextCallback at_end;
} Turn;

static void
end_turn(void *arg)
{
	hx_lock_release(&((Turn *) arg)->lock);
}

/*
 * Waits until nobody makes a run of the kind, and keeps others from it until
 * the context goes.  Tells whether it had to wait.
 */
static bool
take_turn(const char *name, HxSyncKind kind, MemoryContext context)
{
	Turn	   *turn = MemoryContextAllocZero(context, sizeof(Turn));
	bool		waits;

	hx_sync_run_lock(name, kind, &turn->lock);
	waits = !hx_lock_try(&turn->lock);
	if (waits)
	{
		ereport(NOTICE,
				(errmsg("subscription \"%s\" is being synchronised already: waiting for that to end", name)));
		hx_lock_wait(&turn->lock);
	}
	turn->at_end.func = end_turn;
	turn->at_end.arg = turn;
	MemoryContextRegisterResetCallback(context, &turn->at_end);
	return waits;
}

/* ---- a run, and what is told of it ---- */

typedef struct Telling
{
	const char *name;
	TimestampTz at;				/* told last */
	int64		done;			/* what was told */
	int64		requests;
} Telling;

static const char *
kind_text(HxSyncKind kind)
{
	return kind == HX_SYNC_SWEEP ? "full" : "incremental";
}

/* Tells how far the run is, not more often than once in a while and not where it stands still. */
static void
tell(Telling *telling, const HxProgressFigures *figures)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		left_us = hx_progress_time_left(figures, now);
	char	   *share = figures->total > 0 ?
		psprintf(" of " INT64_FORMAT " records (%.1f %%)", figures->total,
				 Min(100.0 * figures->done / figures->total, 100.0)) : pstrdup(" records");
	char	   *left = left_us >= 0 ? psprintf(", about " INT64_FORMAT " s left", (left_us + USECS_PER_SEC - 1) / USECS_PER_SEC) : pstrdup("");

	if (now - telling->at < TELL_EVERY_MS * INT64CONST(1000) ||
		(figures->done == telling->done && figures->reads.requests == telling->requests))
		return;
	telling->at = now;
	telling->done = figures->done;
	telling->requests = figures->reads.requests;
	ereport(NOTICE,
			(errmsg("subscription \"%s\", %s: " INT64_FORMAT "%s, " INT64_FORMAT " requests%s", telling->name,
					kind_text(figures->kind), figures->done, share, figures->reads.requests, left)));
}

static void
tell_end(const Telling *telling, const HxProgressFigures *figures)
{
	const HxApplied *applied = &figures->applied;

	ereport(NOTICE,
			(errmsg("subscription \"%s\", %s: " INT64_FORMAT " inserted, " INT64_FORMAT " updated, " INT64_FORMAT " deleted, "
					INT64_FORMAT " unchanged; " INT64_FORMAT " requests in %.1f s",
					telling->name, kind_text(figures->kind), applied->inserted, applied->updated, applied->deleted,
					applied->unchanged + applied->older, figures->reads.requests,
					(GetCurrentTimestamp() - figures->began_at) / (double) USECS_PER_SEC)));
}

static void
report_stopped(const char *name, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("subscription \"%s\" is held: nothing is read for it", name),
			 errdetail("%s.", why),
			 errhint("hubex_check() says what can be done.")));
}

/* Milliseconds. */
static long
time_to_wait(const HxSyncRun *run)
{
	TimestampTz wake_at = hx_sync_run_wake_at(run);

	if (wake_at == 0)
		return TELL_EVERY_MS;
	return Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at), TELL_EVERY_MS);
}

/* Steps a run to its end; what the last step came to. */
static HxSyncStep
drive(HxSyncRun *run, const char *name, MemoryContext context)
{
	const HxProgressFigures *figures = hx_sync_run_figures(run);
	Telling		telling = {.name = name,.at = GetCurrentTimestamp()};
	MemoryContext step_cxt = AllocSetContextCreate(context, "hubex sync step", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(step_cxt);
	HxSyncStep	step;

	for (;;)
	{
		step = hx_sync_run_step(run);
		MemoryContextReset(step_cxt);
		if (step == HX_SYNC_DONE || step == HX_SYNC_OVERTAKEN)
			break;
		if (step == HX_SYNC_HELD)
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("subscription \"%s\" waits for a confirmation", name),
					 errdetail("%s.", hx_sync_run_held(run)),
					 errhint("If that is right, SELECT hubex_confirm_deletes(%s).", quote_literal_cstr(name))));
		if (step == HX_SYNC_HELD || step == HX_SYNC_STOPPED || step == HX_SYNC_DROPPED)
			break;
		if (step == HX_SYNC_WAITS)
			hx_reader_wait(time_to_wait(run));
		tell(&telling, figures);
	}
	if (step != HX_SYNC_DROPPED && (hx_sync_run_held(run) == NULL || figures->reads.requests > 0))
		tell_end(&telling, figures);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(step_cxt);
	return step;
}

/* Did somebody ask this session to stop? */
static bool
is_cancel(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;
}

/* What fails here, too, is not more than the error that is on its way. */
static void
record_failure(const char *name, HxSyncKind kind, HxSyncRun *run, const ErrorData *error)
{
	MemoryContext here = CurrentMemoryContext;

	PG_TRY();
	{
		hx_sync_run_failed(&transactions, name, kind, run, error);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(here);
		FlushErrorState();
		while (IsSubTransaction())
			RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(here);
	}
	PG_END_TRY();
}

/*
 * Makes a run; where it fails, that is recorded before the error goes on.  What
 * came of it: done, and the mirror is in step as of a time; held, for it waits
 * for a confirmation; overtaken.
 */
static HxSyncStep
run_guarded(const char *name, HxSyncKind kind, MemoryContext context, TimestampTz *as_of)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	HxSyncRun  *volatile run = NULL;
	volatile HxSyncStep step = HX_SYNC_DONE;

	PG_TRY();
	{
		run = hx_sync_run_begin(&transactions, name, kind);
		step = drive(run, name, context);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		while (IsSubTransaction())
			RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		if (!is_cancel(error))
			record_failure(name, kind, run, error);
		ReThrowError(error);
	}
	PG_END_TRY();

	/* that it must not is no failure of the run */
	if (step == HX_SYNC_STOPPED)
		report_stopped(name, hx_sync_run_held(run));
	if (step == HX_SYNC_DROPPED)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" was dropped while it was being synchronised", name)));
	*as_of = hx_sync_run_as_of(run);
	hx_sync_run_end(run);
	MemoryContextSwitchTo(old);
	return step;
}

/*
 * hubex_confirm_deletes(name) -> the number of rows: a sweep that would delete
 * more than delete_limit allows may do so.  It does when the worker makes the
 * next run, or CALL hubex_sync() does.  Errors: 42501, 42704.
 */
Datum
hubex_confirm_deletes(PG_FUNCTION_ARGS)
{
	const char *name = text_arg(fcinfo, 0, "name");
	HxSubscription *subscription = hx_subscription_load(name, false);
	int64		missing = 0;

	if (subscription == NULL)
		hx_subscription_report_missing(name);
	hx_subscription_check_right(subscription);
	if (!hx_subscription_confirm(name, &missing))
		ereport(NOTICE,
				(errmsg("subscription \"%s\" waits for no confirmation", name)));
	else
		hx_shared_wake_at_commit(HX_WORKER_SYNC, PG_INT64_MIN);
	PG_RETURN_INT64(missing);
}
