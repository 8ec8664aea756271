/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher: keeps workers running in every database that has hubex.
 *
 * A static background worker without a database.  Which databases have the
 * extension cannot be seen from outside them, so a delivery worker is started
 * in each, one after another, and ends at once where there is none; the slot
 * remembers that.  Workers of other kinds are started where they are announced,
 * by a commit that gives them something to do or by the delivery worker that
 * finds some.  CREATE EXTENSION announces itself at its commit (base/shared.c), so
 * neither a restart nor a setting is needed; databases that appear otherwise
 * (copies of a template) are found by looking at pg_database now and then.
 *
 * The launcher owns the restart policy: a worker that dies is started again
 * after a pause that doubles with each failure in a row.
 *
 * On a standby the launcher does not run; it starts with the promotion.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/shared.h"
#include "compat.h"
#include "worker/worker.h"

#define SCAN_EVERY_MS		30000	/* databases nobody announced */
#define FIRST_PAUSE_MS		1000	/* after a worker died */
#define LONGEST_PAUSE_MS	60000
#define NO_SLOT_PAUSE_MS	5000	/* no background worker slot is free */

/* The handle of the worker last started for each slot; the launcher's own. */
static BackgroundWorkerHandle *handles[HX_MAX_WORKERS];

static void
forget_launcher(int code, Datum arg)
{
	LWLockAcquire(hx_shared()->lock, LW_EXCLUSIVE);
	hx_shared()->launcher = NULL;
	LWLockRelease(hx_shared()->lock);
}

/* Notes every database that takes connections, and frees the slots of others. */
static void
scan_databases(void)
{
	HxShared   *shared = hx_shared();
	Relation	catalog;
	TableScanDesc scan;
	HeapTuple	tuple;
	List	   *databases = NIL;
	ListCell   *cell;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	catalog = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(catalog, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && database->datconnlimit != -2)
			databases = lappend_oid(databases, database->oid);
	}
	table_endscan(scan);
	table_close(catalog, AccessShareLock);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	foreach(cell, databases)
		(void) hx_shared_slot(lfirst_oid(cell), HX_WORKER_DELIVERY, true);
	for (int i = 0; i < HX_MAX_WORKERS; i++)
	{
		HxWorkerSlot *slot = &shared->slots[i];

		if (!list_member_oid(databases, slot->database) && slot->state != HX_WORKER_FREE && slot->pid == 0 && slot->state != HX_WORKER_STARTING)
			slot->state = HX_WORKER_FREE;
	}
	LWLockRelease(shared->lock);
	CommitTransactionCommand();
}

/* Registers the worker of a slot; false where no background worker slot is free. */
static bool
start_worker(int index, HxWorkerKind kind, Oid database, uint32 generation)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "hubex");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "hx_worker_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "hubex %s for database %u",
			 hx_worker_jobs[kind]->name, database);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "hubex %s", hx_worker_jobs[kind]->name);
	worker.bgw_main_arg = Int32GetDatum(index);
	memcpy(worker.bgw_extra, &generation, sizeof(generation));
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, &handles[index]);
}

/*
 * Has the process of a slot ended?  Workers that a launcher before this one
 * started are known by their process id only, which they clear as they go.
 * The caller holds the lock.
 */
static bool
has_ended(int index)
{
	pid_t		pid;

	if (handles[index] == NULL)
		return hx_shared()->slots[index].pid == 0;
	return GetBackgroundWorkerPid(handles[index], &pid) == BGWH_STOPPED;
}

/*
 * Looks at one slot: notices a worker that ended, starts one that is wanted.
 * At most one worker is starting at a time, so that looking into a hundred
 * databases takes one background worker slot.  Returns the milliseconds after
 * which this slot wants to be looked at again.
 */
static int64
tend_slot(int index, bool *starting)
{
	HxShared   *shared = hx_shared();
	HxWorkerSlot *slot = &shared->slots[index];
	TimestampTz now = GetCurrentTimestamp();
	Oid			database;
	HxWorkerKind kind;
	uint32		generation;
	bool		start = false;
	int64		wish = SCAN_EVERY_MS;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((slot->state == HX_WORKER_STARTING || slot->state == HX_WORKER_RUNNING) && has_ended(index))
	{
		slot->state = HX_WORKER_WANTED;
		slot->pid = 0;
		slot->latch = NULL;
		if (!slot->left)
		{
			int64		pause = (int64) FIRST_PAUSE_MS << Min(slot->failures, 6);

			slot->failures++;
			slot->not_before = TimestampTzPlusMilliseconds(now, Min(pause, LONGEST_PAUSE_MS));
		}
	}
	if (slot->state == HX_WORKER_STARTING)
		*starting = true;
	if (slot->state == HX_WORKER_WANTED)
	{
		wish = Max(TimestampDifferenceMilliseconds(now, slot->not_before), 0);
		if (slot->not_before <= now && !*starting)
		{
			slot->state = HX_WORKER_STARTING;
			slot->make_way = false;
			slot->left = false;
			slot->announced = false;
			slot->generation++;
			start = true;
		}
	}
	database = slot->database;
	kind = slot->kind;
	generation = slot->generation;
	LWLockRelease(shared->lock);

	if (start)
	{
		if (handles[index] != NULL)
			pfree(handles[index]);
		handles[index] = NULL;
		if (start_worker(index, kind, database, generation))
			*starting = true;
		else
		{
			static TimestampTz complained[HX_WORKER_KINDS] = {0};

			LWLockAcquire(shared->lock, LW_EXCLUSIVE);
			slot->state = HX_WORKER_WANTED;
			slot->not_before = TimestampTzPlusMilliseconds(now, NO_SLOT_PAUSE_MS);
			LWLockRelease(shared->lock);
			wish = NO_SLOT_PAUSE_MS;
			if (TimestampDifferenceExceeds(complained[kind], now, 600 * 1000))
			{
				complained[kind] = now;
				ereport(LOG,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("hubex found no free background worker slot for %s in database %u", hx_worker_jobs[kind]->name, database),
						 errhint("Raise max_worker_processes.")));
			}
		}
	}
	return wish;
}

/* The launcher's process. */
void
hx_launcher_main(Datum arg)
{
	HxShared   *shared = hx_shared();
	TimestampTz next_scan = 0;
	uint32		event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	event = hx_wait_event("HubexLauncher");

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = MyLatch;
	LWLockRelease(shared->lock);
	before_shmem_exit(forget_launcher, (Datum) 0);

	for (;;)
	{
		int64		wish = SCAN_EVERY_MS;
		bool		starting = false;
		bool		rescan;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		rescan = shared->rescan;
		shared->rescan = false;
		LWLockRelease(shared->lock);
		if (rescan || GetCurrentTimestamp() >= next_scan)
		{
			scan_databases();
			next_scan = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SCAN_EVERY_MS);
		}

		for (int i = 0; i < HX_MAX_WORKERS; i++)
			if (shared->slots[i].state != HX_WORKER_FREE)
				wish = Min(wish, tend_slot(i, &starting));
		pgstat_report_stat(true);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 starting ? SCAN_EVERY_MS : Max(wish, 10), event);
		ResetLatch(MyLatch);
	}
}

/* Registers the launcher; called while the postmaster loads the library. */
void
hx_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "hubex");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "hx_launcher_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "hubex launcher");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "hubex launcher");
	RegisterBackgroundWorker(&worker);
}
