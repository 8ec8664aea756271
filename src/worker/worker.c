/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process of a worker.
 *
 * Attaches to its slot, connects to its database, and runs the loop of its
 * kind's job (base/job.h) until that is over, the database is to be dropped,
 * or the server stops.  hubex's own statements run as the owner of its tables
 * (base/owner.c).
 *
 * The delivery worker, which is wherever the extension is, also looks now and
 * then whether there is something to do for workers of other kinds that nobody
 * has told the launcher of: after a start of the server, a restored dump.
 *
 * An error of a step aborts the step's transaction and is reported; what was
 * in flight stays in flight.  Anything worse ends the process: the launcher
 * starts another, which recovers what this one left behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/shared.h"
#include "compat.h"
#include "worker/worker.h"

#define LOOK_FOR_OTHERS_MS	30000
#define IDLE_MS				500 /* who sleeps so long says before what he has done, for the statistics of tables */

typedef struct WorkerIdentity
{
	int			index;
	uint32		generation;
	HxWorkerKind kind;
	const HxJob *job;			/* what that does */
} WorkerIdentity;

/* This process's slot, set once when it attaches. */
static WorkerIdentity identity;

static HxWorkerSlot *
own_slot(void)
{
	return &hx_shared()->slots[identity.index];
}

/* Leaves the slot and tells the launcher. */
static void
detach(int code, Datum arg)
{
	LWLockAcquire(hx_shared()->lock, LW_EXCLUSIVE);
	if (own_slot()->generation == identity.generation)
	{
		own_slot()->pid = 0;
		own_slot()->latch = NULL;
		own_slot()->left = code == 0;
		if (hx_shared()->launcher != NULL)
			SetLatch(hx_shared()->launcher);
	}
	LWLockRelease(hx_shared()->lock);
}

/*
 * Takes the slot; returns the database, or InvalidOid where it is not ours,
 * or somebody wants the database for himself.
 */
static Oid
attach(Datum arg)
{
	Oid			database = InvalidOid;
	HxWorkerSlot *slot;

	identity.index = DatumGetInt32(arg);
	memcpy(&identity.generation, MyBgworkerEntry->bgw_extra, sizeof(identity.generation));
	slot = own_slot();

	LWLockAcquire(hx_shared()->lock, LW_EXCLUSIVE);
	if (slot->state == HX_WORKER_STARTING && slot->generation == identity.generation)
	{
		slot->left = slot->make_way;
		if (!slot->make_way)
		{
			slot->pid = MyProcPid;
			slot->latch = MyLatch;
			slot->started_at = GetCurrentTimestamp();
			slot->last_step_at = 0;
			slot->steps = 0;
			slot->in_flight = 0;
			slot->held = false;
			database = slot->database;
			identity.kind = slot->kind;
			identity.job = hx_worker_jobs[slot->kind];
		}
	}
	LWLockRelease(hx_shared()->lock);
	if (OidIsValid(database))
		before_shmem_exit(detach, (Datum) 0);
	return database;
}

/*
 * Writes the slot's state and lets the launcher go on.  An extension that was
 * made since this worker was started may be one that it has not seen.
 */
static void
set_state(HxWorkerState state)
{
	LWLockAcquire(hx_shared()->lock, LW_EXCLUSIVE);
	if (state == HX_WORKER_ABSENT && own_slot()->announced)
		state = HX_WORKER_WANTED;
	own_slot()->state = state;
	if (hx_shared()->launcher != NULL)
		SetLatch(hx_shared()->launcher);
	LWLockRelease(hx_shared()->lock);
}

/*
 * Tells of a step, and in the log of what holds the database.  The worker
 * works: what went wrong before it does not count any more.
 */
static void
note_step(const void *work)
{
	const char *why = identity.job->held(work);
	bool		was_held;

	LWLockAcquire(hx_shared()->lock, LW_EXCLUSIVE);
	was_held = own_slot()->held;
	own_slot()->failures = 0;
	own_slot()->last_step_at = GetCurrentTimestamp();
	own_slot()->steps++;
	own_slot()->in_flight = identity.job->in_flight(work);
	own_slot()->held = why != NULL;
	LWLockRelease(hx_shared()->lock);

	if (why != NULL && !was_held)
		ereport(LOG,
				(errmsg("hubex %s holds in database %u: %s", identity.job->name, MyDatabaseId, identity.job->held_text),
				 errdetail("%s.", why)));
	else if (why == NULL && was_held)
		ereport(LOG, (errmsg("hubex %s goes on in database %u", identity.job->name, MyDatabaseId)));
}

/* Is the worker asked to leave its database? */
static bool
must_make_way(void)
{
	bool		make_way;

	LWLockAcquire(hx_shared()->lock, LW_SHARED);
	make_way = own_slot()->make_way;
	LWLockRelease(hx_shared()->lock);
	return make_way;
}

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, MyBgworkerEntry->bgw_type);
}

static void
commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static const HxTransactions worker_transactions = {.begin = begin,.commit = commit,.takes_announcements = true};

/* Is there a worker of a kind in this database, or will there be one? */
static bool
is_announced(HxWorkerKind kind)
{
	const HxWorkerSlot *slot;
	bool		announced;

	LWLockAcquire(hx_shared()->lock, LW_SHARED);
	slot = hx_shared_slot(MyDatabaseId, kind, false);
	announced = slot != NULL && slot->state != HX_WORKER_ABSENT;
	LWLockRelease(hx_shared()->lock);
	return announced;
}

/* Announces the kinds of workers that have something to do here. */
static void
look_for_others(void)
{
	static TimestampTz next = 0;

	if (identity.kind != HX_WORKER_DELIVERY || GetCurrentTimestamp() < next)
		return;
	next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_FOR_OTHERS_MS);
	for (HxWorkerKind kind = 0; kind < HX_WORKER_KINDS; kind++)
	{
		const HxJob *job = hx_worker_jobs[kind];

		if (job->wanted == NULL || is_announced(kind))
			continue;
		begin();
		if (hx_owner_hold_extension() && job->wanted())
			hx_shared_announce(kind);
		commit();
	}
}

/*
 * One step, whose error is reported and survived.  A cancel or a shutdown
 * passes on.
 */
static int64
guarded_step(void *work, MemoryContext cycle)
{
	volatile int64 wish = 0;

	PG_TRY();
	{
		wish = identity.job->step(work);
		if (wish >= 0)
			look_for_others();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cycle);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		pgstat_report_activity(STATE_IDLE, NULL);
		RESUME_INTERRUPTS();
		wish = identity.job->after_error(work);
	}
	PG_END_TRY();
	return wish;
}

static void
apply_settings(const char *const (*settings)[2])
{
	for (; (*settings)[0] != NULL; settings++)
		if (GetConfigOption((*settings)[0], true, false) != NULL)
			SetConfigOption((*settings)[0], (*settings)[1], PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * A worker writes for everybody, so what a role or database sets for itself
 * must not reach it.
 */
static void
settle(void)
{
	static const char *const common[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},	/* from 17 on */
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"jit", "off"},			/* the statements are small, and wait for nobody */
		{NULL}
	};

	apply_settings(common);
	apply_settings(identity.job->settings);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_type, PGC_SUSET, PGC_S_OVERRIDE);
}

/* The worker's process. */
void
hx_worker_main(Datum arg)
{
	Oid			database;
	MemoryContext process;
	MemoryContext cycle;
	void	   *work;
	bool		installed;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	database = attach(arg);
	if (!OidIsValid(database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	settle();

	StartTransactionCommand();
	SetConfigOption("client_encoding", "UTF8", PGC_SUSET, PGC_S_OVERRIDE);	/* converts outside transactions too */
	installed = OidIsValid(get_extension_oid("hubex", true));
	CommitTransactionCommand();
	if (!installed)
	{
		set_state(HX_WORKER_ABSENT);
		proc_exit(0);
	}
	set_state(HX_WORKER_RUNNING);
	ereport(LOG, (errmsg("hubex %s started in database %u", identity.job->name, database)));

	process = AllocSetContextCreate(TopMemoryContext, "hubex worker", ALLOCSET_DEFAULT_SIZES);
	cycle = AllocSetContextCreate(process, "hubex cycle", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(process);
	work = identity.job->create(&worker_transactions);
	MemoryContextSwitchTo(cycle);

	for (;;)
	{
		int64		wish;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (must_make_way())
			proc_exit(0);

		wish = guarded_step(work, cycle);
		if (wish < 0)
		{
			ereport(LOG, (errmsg("hubex %s ends in database %u: %s", identity.job->name, database, identity.job->over(work))));
			set_state(HX_WORKER_ABSENT);
			proc_exit(0);
		}
		note_step(work);
		if (wish >= IDLE_MS)
			pgstat_report_stat(true);
		MemoryContextSwitchTo(cycle);
		MemoryContextReset(cycle);

		identity.job->wait(work, wish);
	}
}
