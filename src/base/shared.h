/*-------------------------------------------------------------------------
 *
 * shared.h
 *	  The shared memory of hubex, and the wake-ups that go through it.
 *
 * It exists only where hubex is in shared_preload_libraries.  Everything that
 * uses it asks hx_shared() first and works without it, but for the background.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_SHARED_H
#define HX_SHARED_H

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* What workers do.  The first is everywhere the extension is, the others where there is something for them. */
typedef enum HxWorkerKind
{
	HX_WORKER_DELIVERY,
	HX_WORKER_SYNC
} HxWorkerKind;

#define HX_WORKER_KINDS		2

/* Databases that can have workers.  Each takes a few hundred bytes. */
#define HX_MAX_DATABASES	256
#define HX_MAX_WORKERS		(HX_MAX_DATABASES * HX_WORKER_KINDS)

/*
 * One database's worker of a kind.  The launcher decides WANTED, STARTING and
 * back-off; the worker itself writes RUNNING and ABSENT.
 *
 *	 FREE -> WANTED -> STARTING -> RUNNING -> WANTED (died; after a back-off)
 *						   \          \-> ABSENT (nothing to do any more; until announced)
 *						    \-> ABSENT (no extension there; until announced)
 */
typedef enum HxWorkerState
{
	HX_WORKER_FREE,
	HX_WORKER_WANTED,
	HX_WORKER_STARTING,
	HX_WORKER_RUNNING,
	HX_WORKER_ABSENT
} HxWorkerState;

typedef struct HxWorkerSlot
{
	Oid			database;
	HxWorkerKind kind;
	HxWorkerState state;
	uint32		generation;		/* of the worker last started; defeats late detaching */
	int			pid;			/* 0: no process */
	Latch	   *latch;			/* of that process */
	int			failures;		/* starts that ended badly, in a row */
	TimestampTz not_before;		/* no start before: back-off, or making way */
	bool		make_way;		/* end, for a DROP DATABASE or the like */
	bool		left;			/* the worker ended by itself, not by a failure */
	bool		announced;		/* there is something to do, since the worker was started, or looked for it */
	TimestampTz due_from;		/* the earliest time at which what was committed since became due */

	/* what the worker tells of itself, for those who look */
	TimestampTz started_at;
	TimestampTz last_step_at;	/* 0: none yet */
	int64		steps;
	int			in_flight;
	bool		held;			/* it may do nothing */
} HxWorkerSlot;

typedef struct HxShared
{
	LWLock	   *lock;			/* protects all below but the condition variable */
	Latch	   *launcher;
	bool		rescan;			/* the launcher is to look for new databases */
	ConditionVariable delivered;	/* broadcast when requests reached their end */
	HxWorkerSlot slots[HX_MAX_WORKERS];
} HxShared;

/* A room's own piece of shared memory; it gets a lock with it. */
typedef struct HxSharedPart
{
	const char *name;
	Size		(*size) (void);
	void		(*init) (void *memory, bool found, LWLock *lock);
} HxSharedPart;

extern void hx_shared_request(const HxSharedPart *parts);
extern HxShared *hx_shared(void);

extern HxWorkerSlot *hx_shared_slot(Oid database, HxWorkerKind kind, bool add);
extern void hx_shared_wake(HxWorkerKind kind, TimestampTz due_from);
extern void hx_shared_wake_at_commit(HxWorkerKind kind, TimestampTz due_from);
extern TimestampTz hx_shared_take_due_from(HxWorkerKind kind);
extern bool hx_shared_is_woken(HxWorkerKind kind);
extern void hx_shared_announce(HxWorkerKind kind);
extern void hx_shared_announce_at_commit(HxWorkerKind kind);
extern bool hx_shared_take_announcement(HxWorkerKind kind);
extern void hx_shared_wake_launcher(bool rescan);

#endif							/* HX_SHARED_H */
