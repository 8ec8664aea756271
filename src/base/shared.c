/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  The shared memory of hubex, and the wake-ups that go through it.
 *
 * A commit wakes a worker of its database by the worker's latch.
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
	bool		anything;
	struct
	{
		bool		wake;
		TimestampTz due_from;
		bool		announce;
	}			kinds[HX_WORKER_KINDS];
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
 * The slot of a database's worker of a kind, made if asked for.  NULL where
 * there is none.  The caller holds shared->lock, exclusively if a slot may be
 * made.
 */
HxWorkerSlot *
hx_shared_slot(Oid database, HxWorkerKind kind, bool add)
{
	HxWorkerSlot *unused = NULL;

	for (int i = 0; i < HX_MAX_WORKERS; i++)
	{
		HxWorkerSlot *slot = &shared->slots[i];

		if (slot->state == HX_WORKER_FREE)
		{
			if (unused == NULL)
				unused = slot;
		}
		else if (slot->database == database && slot->kind == kind)
			return slot;
	}
	if (!add || unused == NULL)
		return NULL;

	unused->database = database;
	unused->kind = kind;
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
 * Wakes the worker of a kind of this database, if there is one.  due_from is
 * the time from which on something may have become due, PG_INT64_MIN where
 * that is not known.
 */
void
hx_shared_wake(HxWorkerKind kind, TimestampTz due_from)
{
	HxWorkerSlot *slot;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, kind, false);
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
hx_shared_take_due_from(HxWorkerKind kind)
{
	TimestampTz due_from = PG_INT64_MIN;
	HxWorkerSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, kind, false);
	if (slot != NULL)
	{
		due_from = slot->due_from;
		slot->due_from = PG_INT64_MAX;
	}
	LWLockRelease(shared->lock);
	return due_from;
}

/* Would hx_shared_take_due_from() tell of anything? */
bool
hx_shared_is_woken(HxWorkerKind kind)
{
	const HxWorkerSlot *slot;
	bool		woken;

	LWLockAcquire(shared->lock, LW_SHARED);
	slot = hx_shared_slot(MyDatabaseId, kind, false);
	woken = slot == NULL || slot->due_from != PG_INT64_MAX;
	LWLockRelease(shared->lock);
	return woken;
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

/* Tells the launcher that there is something to do for a worker of a kind in this database. */
void
hx_shared_announce(HxWorkerKind kind)
{
	HxWorkerSlot *slot;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, kind, true);
	if (slot != NULL)
		slot->announced = true; /* a worker about to be ABSENT sees it */
	if (slot != NULL && slot->state == HX_WORKER_ABSENT)
	{
		slot->state = HX_WORKER_WANTED;
		slot->failures = 0;
		slot->not_before = 0;
	}
	if (slot != NULL)
		slot->due_from = PG_INT64_MIN;
	if (slot != NULL && slot->latch != NULL)
		SetLatch(slot->latch);
	if (shared->launcher != NULL)
		SetLatch(shared->launcher);
	LWLockRelease(shared->lock);
}

/*
 * Was there an announcement since this was asked last?  A worker asks before
 * it looks whether there is anything left for it: what was announced before
 * is seen then, and what is announced afterwards starts it again.
 */
bool
hx_shared_take_announcement(HxWorkerKind kind)
{
	HxWorkerSlot *slot;
	bool		announced = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = hx_shared_slot(MyDatabaseId, kind, false);
	if (slot != NULL)
	{
		announced = slot->announced;
		slot->announced = false;
	}
	LWLockRelease(shared->lock);
	return announced;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!at_commit.anything)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			for (HxWorkerKind kind = 0; kind < HX_WORKER_KINDS; kind++)
			{
				if (at_commit.kinds[kind].announce && event == XACT_EVENT_COMMIT)
					hx_shared_announce(kind);
				/* after an abort too: requests of others may have waited for the end of ours */
				if (at_commit.kinds[kind].wake)
					hx_shared_wake(kind, at_commit.kinds[kind].due_from);
			}
			break;
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	at_commit.anything = false;
	memset(at_commit.kinds, 0, sizeof(at_commit.kinds));
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
 * Wakes the worker of a kind when this transaction commits, for what becomes
 * due at a time, or when it aborts.  A prepared transaction wakes nobody here;
 * its COMMIT PREPARED does, see worker/make_way.c.
 */
void
hx_shared_wake_at_commit(HxWorkerKind kind, TimestampTz due_from)
{
	if (shared == NULL)
		return;
	register_callback();
	at_commit.kinds[kind].due_from = at_commit.kinds[kind].wake ? Min(at_commit.kinds[kind].due_from, due_from) : due_from;
	at_commit.kinds[kind].wake = true;
	at_commit.anything = true;
}

/*
 * hx_shared_announce() when this transaction commits.  What a prepared
 * transaction would have announced, the delivery worker finds after a while.
 */
void
hx_shared_announce_at_commit(HxWorkerKind kind)
{
	if (shared == NULL)
		return;
	register_callback();
	at_commit.kinds[kind].announce = true;
	at_commit.anything = true;
}
