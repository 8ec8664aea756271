/*-------------------------------------------------------------------------
 *
 * schedule.c
 *	  The sync worker's loop: which run is due.
 *
 * One process, many runs: each is stepped in turn, does what can be done now
 * and leaves the waiting to the loop, which waits for all of them at once.
 * Runs of one subscription and one kind exclude each other by a lock, also of
 * other sessions (CALL hubex_sync()).  What is due is looked at again under it:
 * the other one may have done it.
 *
 * A run that fails harms no other: its transaction is aborted, the failure is
 * recorded in a new one, which also says when it is tried again, and the loop
 * goes on.  What cannot even be recorded is put off here for a while.
 *
 * What is due is looked up when a commit says that something may be, when the
 * time of the next one has come, when a run has ended, and now and then.  A run
 * that may not go on, as its subscription was dropped or its server is paused,
 * is ended there and then: between two steps it has no transaction, and what it
 * was waiting for might come late.
 * Sweeps take long, so they get a part of the places only: an incremental run,
 * of any subscription, never waits for one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/binding.h"
#include "base/owner.h"
#include "base/shared.h"
#include "sync/schedule.h"

#define MOST_RUNS			8	/* at a time */
#define MOST_SWEEPS			4	/* of them */
#define LOOK_EVERY_MS		5000	/* even if nobody wakes us */
#define ERROR_PAUSE_MS		1000	/* after a failed look */
#define WAIT_PAUSE_MS		1000	/* another session is at it, or it may not go on now, and nobody wakes us */
#define UNRECORDED_PAUSE_MS 60000	/* a failure that could not be recorded */

/* A run under way. */
typedef struct Running
{
	dlist_node	node;
	MemoryContext cxt;			/* this, the run and all it has */
	char	   *subscription;
	TimestampTz made_at;		/* the subscription */
	HxSyncKind	kind;
	HxSyncRun  *run;			/* NULL: it has not begun */
	HxLock		lock;
	MemoryContextCallback unlock;
	bool		failing;		/* its failure is being recorded */
	HxSyncStep	result;			/* of its last step */
} Running;

/* What had trouble is remembered until it had none. */
typedef struct Trouble
{
	dlist_node	node;
	MemoryContext cxt;
	char	   *subscription;
	HxSyncKind	kind;
	TimestampTz not_before;		/* it is not begun earlier, whatever its row says */
	bool		waits;			/* for somebody else, who may be done earlier */
	char	   *logged;			/* what the log was told last, or NULL */
} Trouble;

typedef struct Schedule
{
	MemoryContext cxt;
	const HxTransactions *transactions;
	dlist_head	running;
	int			nrunning;
	dlist_head	troubles;
	MemoryContext looked;		/* of what the last look saw */
	List	   *due;			/* HxDueRun *, then not begun */
	bool		look;
	TimestampTz next_look;
	char	   *held;			/* why nothing may be read */
	const char *over;			/* why there is nothing to do any more */
} Schedule;

static void *
create(const HxTransactions *transactions)
{
	Schedule   *schedule = palloc0(sizeof(Schedule));

	schedule->cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex sync", ALLOCSET_DEFAULT_SIZES);
	schedule->looked = AllocSetContextCreate(schedule->cxt, "hubex sync look", ALLOCSET_DEFAULT_SIZES);
	schedule->transactions = transactions;
	schedule->look = true;
	dlist_init(&schedule->running);
	dlist_init(&schedule->troubles);
	return schedule;
}

/* ---- trouble ---- */

static Trouble *
find_trouble(Schedule *schedule, const char *subscription, HxSyncKind kind)
{
	dlist_iter	iter;

	dlist_foreach(iter, &schedule->troubles)
	{
		Trouble    *trouble = dlist_container(Trouble, node, iter.cur);

		if (trouble->kind == kind && strcmp(trouble->subscription, subscription) == 0)
			return trouble;
	}
	return NULL;
}

/* Puts a run off. */
static Trouble *
put_off(Schedule *schedule, const char *subscription, HxSyncKind kind, int64 milliseconds)
{
	Trouble    *trouble = find_trouble(schedule, subscription, kind);

	if (trouble == NULL)
	{
		MemoryContext cxt = AllocSetContextCreate(schedule->cxt, "hubex sync trouble", ALLOCSET_SMALL_SIZES);

		trouble = MemoryContextAllocZero(cxt, sizeof(Trouble));
		trouble->cxt = cxt;
		trouble->subscription = MemoryContextStrdup(cxt, subscription);
		trouble->kind = kind;
		dlist_push_tail(&schedule->troubles, &trouble->node);
	}
	trouble->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
	trouble->waits = false;
	return trouble;
}

/* It waits for somebody else. */
static void
put_off_waiting(Schedule *schedule, const char *subscription, HxSyncKind kind)
{
	put_off(schedule, subscription, kind, WAIT_PAUSE_MS)->waits = true;
}

static void
forget_trouble(Trouble *trouble)
{
	dlist_delete(&trouble->node);
	MemoryContextDelete(trouble->cxt);
}

/* A run came to its end. */
static void
end_trouble(Schedule *schedule, const char *subscription, HxSyncKind kind)
{
	Trouble    *trouble = find_trouble(schedule, subscription, kind);

	if (trouble == NULL)
		return;
	if (trouble->logged != NULL)
		ereport(LOG,
				(errmsg("hubex sync of subscription \"%s\" goes on (%s)", subscription,
						kind == HX_SYNC_SWEEP ? "full" : "incremental")));
	forget_trouble(trouble);
}

/* Whoever waits for somebody else, of one subscription or of any (NULL), may try again. */
static void
end_waiting(Schedule *schedule, const char *subscription)
{
	dlist_iter	iter;

	dlist_foreach(iter, &schedule->troubles)
	{
		Trouble    *trouble = dlist_container(Trouble, node, iter.cur);

		if (trouble->waits && (subscription == NULL || strcmp(trouble->subscription, subscription) == 0))
			trouble->not_before = 0;
	}
}

/* Tells the log of a failure, unless it was told of the same before. */
static void
log_failure(Schedule *schedule, const Running *running, const ErrorData *error)
{
	Trouble    *trouble = put_off(schedule, running->subscription, running->kind, UNRECORDED_PAUSE_MS);

	if (trouble->logged != NULL && strcmp(trouble->logged, error->message) == 0)
		return;
	if (trouble->logged != NULL)
		pfree(trouble->logged);
	trouble->logged = MemoryContextStrdup(trouble->cxt, error->message);
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("hubex sync of subscription \"%s\" failed (%s): %s", running->subscription,
					running->kind == HX_SYNC_SWEEP ? "full" : "incremental", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
}

/* ---- runs ---- */

static void
release_lock(void *arg)
{
	hx_lock_release(&((Running *) arg)->lock);
}

static bool
is_running(Schedule *schedule, const char *subscription, HxSyncKind kind)
{
	dlist_iter	iter;

	dlist_foreach(iter, &schedule->running)
	{
		const Running *running = dlist_container(Running, node, iter.cur);

		if (running->kind == kind && strcmp(running->subscription, subscription) == 0)
			return true;
	}
	return false;
}

static int
count_sweeps(Schedule *schedule)
{
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &schedule->running)
		n += dlist_container(Running, node, iter.cur)->kind == HX_SYNC_SWEEP;
	return n;
}

/* A run leaves the loop, with all it has. */
static void
drop(Schedule *schedule, Running *running)
{
	dlist_delete(&running->node);
	schedule->nrunning--;
	schedule->look = true;
	MemoryContextDelete(running->cxt);
}

/* Takes a run into the loop; it begins with its first step. */
static void
take_in(Schedule *schedule, const HxDueRun *due)
{
	MemoryContext cxt = AllocSetContextCreate(schedule->cxt, "hubex sync run", ALLOCSET_DEFAULT_SIZES);
	Running    *running = MemoryContextAllocZero(cxt, sizeof(Running));

	running->cxt = cxt;
	running->subscription = MemoryContextStrdup(cxt, due->subscription);
	running->made_at = due->made_at;
	running->kind = due->kind;
	hx_sync_run_lock(due->subscription, due->kind, &running->lock);
	if (!hx_lock_try(&running->lock))
	{
		put_off_waiting(schedule, due->subscription, due->kind);
		MemoryContextDelete(cxt);
		return;
	}
	running->unlock.func = release_lock;
	running->unlock.arg = running;
	MemoryContextRegisterResetCallback(cxt, &running->unlock);
	dlist_push_tail(&schedule->running, &running->node);
	schedule->nrunning++;
}

/* One step of a run; the first one begins it. */
static void
step_run(Schedule *schedule, Running *running)
{
	if (running->run == NULL)
	{
		running->run = hx_sync_run_begin(schedule->transactions, running->subscription, running->kind);
		running->result = HX_SYNC_GOES_ON;
	}
	else
		running->result = hx_sync_run_step(running->run);
}

/*
 * The transaction of a step is aborted; the error is copied.  The worker's own
 * death is none that could be caught, and a cancel ends just the run it meets.
 */
static ErrorData *
abort_step(MemoryContext cxt)
{
	ErrorData  *error;

	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	HOLD_INTERRUPTS();
	if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR)
		EmitErrorReport();		/* with where it comes from */
	AbortOutOfAnyTransaction();
	FlushErrorState();
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(cxt);
	return error;
}

/* A step failed: records that, unless the extension has gone. */
static void
fail(Schedule *schedule, Running *running, const ErrorData *error)
{
	bool		installed;

	running->failing = true;
	schedule->transactions->begin();
	installed = hx_owner_hold_extension();
	schedule->transactions->commit();
	MemoryContextSwitchTo(running->cxt);
	if (installed)
	{
		log_failure(schedule, running, error);
		hx_sync_run_failed(schedule->transactions, running->subscription, running->kind, running->run, error);

		/* it is recorded when to try again */
		(void) put_off(schedule, running->subscription, running->kind, 0);
	}
	drop(schedule, running);
}

/* One step, whose error is the run's alone. */
static void
guarded_step(Schedule *schedule, Running *running)
{
	ErrorData  *volatile error = NULL;

	MemoryContextSwitchTo(running->cxt);
	PG_TRY();
	{
		step_run(schedule, running);
	}
	PG_CATCH();
	{
		error = abort_step(running->cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(running->cxt);

	if (error != NULL)
		fail(schedule, running, error);
	else if (running->result == HX_SYNC_DONE || running->result == HX_SYNC_OVERTAKEN)
	{
		end_trouble(schedule, running->subscription, running->kind);
		end_waiting(schedule, running->subscription);
		hx_sync_run_end(running->run);
		drop(schedule, running);
	}
	else if (running->result == HX_SYNC_DROPPED)
	{
		ereport(DEBUG1,
				(errmsg("hubex sync of subscription \"%s\" ends: it was dropped", running->subscription)));
		hx_sync_run_end(running->run);
		drop(schedule, running);
	}
	else if (running->result == HX_SYNC_HELD || running->result == HX_SYNC_STOPPED)
	{
		put_off_waiting(schedule, running->subscription, running->kind);
		hx_sync_run_end(running->run);
		drop(schedule, running);
	}
}

/* ---- what is due ---- */

static const HxDueRun *
find_due(const Schedule *schedule, const char *subscription, HxSyncKind kind)
{
	ListCell   *cell;

	foreach(cell, schedule->due)
	{
		const HxDueRun *due = lfirst(cell);

		if (due->kind == kind && strcmp(due->subscription, subscription) == 0)
			return due;
	}
	return NULL;
}

/* Ends the runs that may not go on, and those not begun that are due no more; forgets the trouble of what is gone. */
static void
end_others(Schedule *schedule, TimestampTz now)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &schedule->running)
	{
		Running    *running = dlist_container(Running, node, iter.cur);
		const HxDueRun *due = find_due(schedule, running->subscription, running->kind);

		if (due == NULL || due->made_at != running->made_at || (running->run == NULL && due->at > now))
			drop(schedule, running);
	}
	dlist_foreach_modify(iter, &schedule->troubles)
	{
		Trouble    *trouble = dlist_container(Trouble, node, iter.cur);

		if (find_due(schedule, trouble->subscription, trouble->kind) == NULL)
			forget_trouble(trouble);
	}
}

/*
 * Sees what is due now and when the next one is.  An announcement, or a wake,
 * that comes before is in what is seen; one that comes later leads here again.
 */
static void
look(Schedule *schedule, TimestampTz now)
{
	pg_uuid_t	binding;
	char	   *held = NULL;

	(void) hx_shared_take_announcement(HX_WORKER_SYNC);
	if (hx_shared_take_due_from(HX_WORKER_SYNC) != PG_INT64_MAX)
		end_waiting(schedule, NULL);
	schedule->due = NIL;
	schedule->held = NULL;
	MemoryContextReset(schedule->looked);
	schedule->next_look = TimestampTzPlusMilliseconds(now, LOOK_EVERY_MS);

	schedule->transactions->begin();
	MemoryContextSwitchTo(schedule->looked);
	if (!hx_owner_hold_extension())
		schedule->over = "the extension is gone";
	else if (!hx_schedule_wanted())
		schedule->over = "no subscription asks for it";
	else if (!hx_binding_holds(&binding, &held))
		schedule->due = hx_schedule_due(&binding);
	schedule->held = held;
	schedule->transactions->commit();
	MemoryContextSwitchTo(schedule->looked);
	end_others(schedule, now);
	schedule->look = false;
}

/* Takes in what is due, as far as there is room; tells whether there was anything. */
static bool
take_in_due(Schedule *schedule, TimestampTz now)
{
	int			sweeps = count_sweeps(schedule);
	int			before = schedule->nrunning;
	ListCell   *cell;

	foreach(cell, schedule->due)
	{
		const HxDueRun *due = lfirst(cell);
		const Trouble *trouble;

		if (due->at > now || schedule->nrunning >= MOST_RUNS)
			break;
		if (due->kind == HX_SYNC_SWEEP && sweeps >= MOST_SWEEPS)
			continue;
		trouble = find_trouble(schedule, due->subscription, due->kind);
		if ((trouble != NULL && trouble->not_before > now) || is_running(schedule, due->subscription, due->kind))
			continue;
		take_in(schedule, due);
		sweeps += due->kind == HX_SYNC_SWEEP;
	}
	return schedule->nrunning > before;
}

/* The milliseconds until something is to be begun or looked at. */
static int64
time_left(Schedule *schedule, TimestampTz now)
{
	TimestampTz next = schedule->next_look;
	ListCell   *cell;
	dlist_iter	iter;

	foreach(cell, schedule->due)
	{
		const HxDueRun *due = lfirst(cell);

		/* what is due and was not begun waits for its turn, which is the end of another, or its trouble's */
		if (due->at > now && due->at != PG_INT64_MAX)
		{
			next = Min(next, due->at);
			break;
		}
	}
	dlist_foreach(iter, &schedule->troubles)
	{
		const Trouble *trouble = dlist_container(Trouble, node, iter.cur);

		if (trouble->not_before > now)
			next = Min(next, trouble->not_before);
	}
	dlist_foreach(iter, &schedule->running)
	{
		const Running *running = dlist_container(Running, node, iter.cur);
		TimestampTz wake_at = running->run != NULL ? hx_sync_run_wake_at(running->run) : 0;

		if (wake_at != 0)
			next = Min(next, wake_at);
	}
	return Max(TimestampDifferenceMilliseconds(now, next), 1);
}

static int64
step(void *arg)
{
	Schedule   *schedule = arg;
	TimestampTz now = GetCurrentTimestamp();
	dlist_mutable_iter iter;
	bool		goes_on = false;

	if (schedule->look || now >= schedule->next_look || hx_shared_is_woken(HX_WORKER_SYNC))
		look(schedule, now);
	if (schedule->over == NULL && take_in_due(schedule, now))
		look(schedule, now);
	if (schedule->over != NULL)
		return -1;

	dlist_foreach_modify(iter, &schedule->running)
	{
		CHECK_FOR_INTERRUPTS();
		guarded_step(schedule, dlist_container(Running, node, iter.cur));
	}
	dlist_foreach_modify(iter, &schedule->running)
		goes_on |= dlist_container(Running, node, iter.cur)->result == HX_SYNC_GOES_ON;
	return goes_on || schedule->look ? 0 : time_left(schedule, GetCurrentTimestamp());
}

/* A look failed, or the recording of a failure. */
static int64
after_error(void *arg)
{
	Schedule   *schedule = arg;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &schedule->running)
	{
		Running    *running = dlist_container(Running, node, iter.cur);

		if (running->failing)
			drop(schedule, running);
	}
	schedule->due = NIL;
	schedule->look = false;
	schedule->next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ERROR_PAUSE_MS);
	return schedule->nrunning > 0 ? 0 : ERROR_PAUSE_MS;
}

static void
wait(void *arg, int64 milliseconds)
{
	if (milliseconds > 0)
		hx_reader_wait((long) milliseconds);
}

static int
in_flight(const void *arg)
{
	return ((const Schedule *) arg)->nrunning;
}

static const char *
held(const void *arg)
{
	return ((const Schedule *) arg)->held;
}

static const char *
over(const void *arg)
{
	return ((const Schedule *) arg)->over;
}

/* Plans of the sync's own statements are made for what they are run with: see apply_store.c and sweep_store.c. */
static const char *const settings[][2] = {
	{"synchronous_commit", "off"},	/* what a crash loses is read again: rows and how far they go are one */
	{"max_parallel_workers_per_gather", "0"},	/* it has time, and others may not */
	{NULL}
};

const HxJob hx_sync_job = {
	.name = "sync",
	.held_text = "nothing is read for its mirrors",
	.settings = settings,
	.wanted = hx_schedule_wanted,
	.create = create,
	.step = step,
	.after_error = after_error,
	.wait = wait,
	.in_flight = in_flight,
	.held = held,
	.over = over
};
