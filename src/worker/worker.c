/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process of a delivery worker.
 *
 * Attaches to its slot, connects to its database, and runs the delivery's
 * loop (outbox/delivery.c) until the extension goes, the database is to be
 * dropped, or the server stops.  hubex's own statements run as the owner of
 * its tables (base/owner.c).
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

#include "base/shared.h"
#include "compat.h"
#include "outbox/outbox.h"
#include "worker/worker.h"

typedef struct WorkerIdentity
{
	int			index;
	uint32		generation;
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
note_step(const HxDelivery *delivery)
{
	const char *why = hx_delivery_held(delivery);
	bool		was_held;

	LWLockAcquire(hx_shared()->lock, LW_EXCLUSIVE);
	was_held = own_slot()->held;
	own_slot()->failures = 0;
	own_slot()->last_step_at = GetCurrentTimestamp();
	own_slot()->steps++;
	own_slot()->in_flight = hx_delivery_in_flight(delivery);
	own_slot()->held = why != NULL;
	LWLockRelease(hx_shared()->lock);

	if (why != NULL && !was_held)
		ereport(LOG,
				(errmsg("hubex delivery holds in database %u: nothing is sent from it", MyDatabaseId),
				 errdetail("%s.", why)));
	else if (why == NULL && was_held)
		ereport(LOG, (errmsg("hubex delivery goes on in database %u", MyDatabaseId)));
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
	pgstat_report_activity(STATE_RUNNING, "hubex delivery");
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

/*
 * One step, whose error is reported and survived.  A cancel or a shutdown
 * passes on.
 */
static int64
guarded_step(HxDelivery *delivery, HxRetention *retention, MemoryContext cycle)
{
	volatile int64 wish = 0;

	PG_TRY();
	{
		wish = hx_delivery_step(delivery);
		if (wish > 0 && hx_delivery_held(delivery) == NULL)
			wish = Min(wish, hx_retention_step(retention, &worker_transactions));
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
		wish = hx_delivery_after_error(delivery);
	}
	PG_END_TRY();
	return wish;
}

/*
 * A worker writes for everybody, so what a role or database sets for itself
 * must not reach it.
 */
static void
settle(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},	/* from 17 on */
		{"synchronous_commit", "on"},	/* sending must be on disk before the first byte */
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"enable_seqscan", "off"},	/* plans made over an empty queue must fit a long one: */
		{"enable_bitmapscan", "off"},	/* in the order of an index, and no further than asked for */
		{"enable_sort", "off"},
		{"enable_nestloop", "off"},	/* but where there is no other way: outcomes meet their rows by a hash */
		{"jit", "off"},			/* the statements are small, and wait for nobody */
		{"application_name", "hubex delivery"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* The worker's process. */
void
hx_worker_main(Datum arg)
{
	Oid			database;
	MemoryContext process;
	MemoryContext cycle;
	HxDelivery *delivery;
	HxRetention retention = {0};
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
	ereport(LOG, (errmsg("hubex delivery started in database %u", database)));

	process = AllocSetContextCreate(TopMemoryContext, "hubex worker", ALLOCSET_DEFAULT_SIZES);
	cycle = AllocSetContextCreate(process, "hubex cycle", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(process);
	delivery = hx_delivery_create(&worker_transactions, NULL);
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

		wish = guarded_step(delivery, &retention, cycle);
		if (wish < 0)
		{
			ereport(LOG, (errmsg("hubex delivery ends in database %u: the extension is gone", database)));
			set_state(HX_WORKER_ABSENT);
			proc_exit(0);
		}
		note_step(delivery);
		MemoryContextSwitchTo(cycle);
		MemoryContextReset(cycle);

		/* without a wish, too: what is on its way goes on only there */
		hx_delivery_wait(delivery, wish);
	}
}
