/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  The shared memory of hubex, and the wake-ups that go through it.
 *
 * A commit wakes the delivery worker of its database by the worker's latch.
 * LISTEN/NOTIFY would do the same under a lock that serialises all commits
 * of the cluster, so it is not used.  One transaction callback per process
 * serves all of hubex; it is registered when first needed.
 *
 * Rooms that keep state of their own there hand in a size and a function that
 * sets it up (HxSharedPart), so that this file knows none of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "base/shared.h"

static HxShared *shared = NULL;
static const HxSharedPart *parts = NULL;	/* ends with a NULL name */

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* What this transaction is to do at its commit; reset at its end. */
static struct
{
	bool		registered;
	bool		wake;
	TimestampTz due_from;
	bool		announce;
}			at_commit;

static void
request_memory(void)
{
	int			locks = 1;

	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(HxShared)));
	for (const HxSharedPart *part = parts; part->name != NULL; part++)
	{
		RequestAddinShmemSpace(MAXALIGN(part->size()));
		locks++;
	}
	RequestNamedLWLockTranche("hubex", locks);
}

static void
set_up_memory(void)
{
	LWLockPadded *locks = GetNamedLWLockTranche("hubex");
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("hubex", sizeof(HxShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(HxShared));
		shared->lock = &locks[0].lock;
		ConditionVariableInit(&shared->delivered);
	}
	for (const HxSharedPart *part = parts; part->name != NULL; part++)
	{
		void	   *memory = ShmemInitStruct(part->name, part->size(), &found);

		part->init(memory, found, &locks[1 + (part - parts)].lock);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Asks for shared memory; called while the postmaster loads the library. */
void
hx_shared_request(const HxSharedPart *all_parts)
{
	parts = all_parts;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = set_up_memory;
}

/* The shared memory, or NULL where hubex was not preloaded. */
HxShared *
hx_shared(void)
{
	return shared;
}

/*
 * The slot of a database, made if asked for.  NULL where there is none.  The
 * caller holds shared->lock, exclusively if a slot may be made.
 */
HxWorkerSlot *
hx_shared_slot(Oid database, bool add)
{
	HxWorkerSlot *unused = NULL;

	for (int i = 0; i < HX_MAX_DATABASES; i++)
	{
		HxWorkerSlot *slot = &shared->slots[i];

		if (slot->state == HX_WORKER_FREE)
		{
			if (unused == NULL)
				unused = slot;
		}
		else if (slot->database == database)
			return slot;
	}
	if (!add || unused == NULL)
		return NULL;

	unused->database = database;
	unused->state = HX_WORKER_WANTED;
	unused->pid = 0;
	unused->latch = NULL;
	unused->failures = 0;
	unused->not_before = 0;
	unused->make_way = false;
	unused->left = false;
	unused->announced = false;
	unused->due_from = PG_INT64_MIN;
	return unused;
}

/*
 * Wakes the delivery worker of this database, if there is one.  due_from is
 * the time from which on something may have become due, PG_INT64_MIN where
 * that is not known.
 */
void
hx_shared_wake_delivery(TimestampTz due_from)
{
	HxWorkerSlot *slot;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, false);
	if (slot != NULL)
		slot->due_from = Min(slot->due_from, due_from);
	if (slot != NULL && slot->latch != NULL)
		SetLatch(slot->latch);
	LWLockRelease(shared->lock);
}

/*
 * The earliest time at which something became due that was committed since
 * this was asked last.  Whoever asks sees those rows in any snapshot taken
 * afterwards.  PG_INT64_MIN: not known; PG_INT64_MAX: nothing.
 */
TimestampTz
hx_shared_take_due_from(void)
{
	TimestampTz due_from = PG_INT64_MIN;
	HxWorkerSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, false);
	if (slot != NULL)
	{
		due_from = slot->due_from;
		slot->due_from = PG_INT64_MAX;
	}
	LWLockRelease(shared->lock);
	return due_from;
}

/* Wakes the launcher; with rescan it looks for databases it does not know. */
void
hx_shared_wake_launcher(bool rescan)
{
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (rescan)
		shared->rescan = true;
	if (shared->launcher != NULL)
		SetLatch(shared->launcher);
	LWLockRelease(shared->lock);
}

/* The database has the extension now: a worker is wanted there. */
static void
announce(void)
{
	HxWorkerSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, true);
	if (slot != NULL)
		slot->announced = true; /* a worker about to be ABSENT sees it */
	if (slot != NULL && slot->state == HX_WORKER_ABSENT)
	{
		slot->state = HX_WORKER_WANTED;
		slot->failures = 0;
		slot->not_before = 0;
	}
	if (slot != NULL && slot->latch != NULL)
		SetLatch(slot->latch);
	if (shared->launcher != NULL)
		SetLatch(shared->launcher);
	LWLockRelease(shared->lock);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!at_commit.wake && !at_commit.announce)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (at_commit.announce)
				announce();
			if (at_commit.wake)
				hx_shared_wake_delivery(at_commit.due_from);
			break;
		case XACT_EVENT_ABORT:
			/* requests of others may have waited for the end of ours */
			if (at_commit.wake)
				hx_shared_wake_delivery(at_commit.due_from);
			break;
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	at_commit.wake = at_commit.announce = false;
}

static void
register_callback(void)
{
	if (!at_commit.registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		at_commit.registered = true;
	}
}

/*
 * Wakes the delivery worker when this transaction commits, for what becomes
 * due at a time, or when it aborts.  A prepared
 * transaction wakes nobody here; its COMMIT PREPARED does, see
 * worker/make_way.c.
 */
void
hx_shared_wake_at_commit(TimestampTz due_from)
{
	if (shared == NULL)
		return;
	register_callback();
	at_commit.due_from = at_commit.wake ? Min(at_commit.due_from, due_from) : due_from;
	at_commit.wake = true;
}

/* Tells the launcher, when this transaction commits, of the extension here. */
void
hx_shared_announce_at_commit(void)
{
	if (shared == NULL)
		return;
	register_callback();
	at_commit.announce = true;
}
