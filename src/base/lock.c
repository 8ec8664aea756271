/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  Locks of hubex's own, on numbers.
 *
 * They are PostgreSQL's advisory locks, of this database, in classes that SQL
 * cannot reach: nobody outside hubex can take one, or wait for one, by
 * accident or on purpose.  The server releases them with the process, however
 * it ends, so they tell exactly and at once who is alive; no time-out guesses.
 * They need no shared memory of hubex.
 *
 * A lock of the session outlives transactions, and also errors: who takes one
 * releases it in something that an error reaches too, such as a memory
 * context's reset callback.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"

#include "base/lock.h"

static void
make_tag(LOCKTAG *tag, const HxLock *lock)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, lock->first, lock->second, lock->class);
}

static bool
take(const HxLock *lock, bool session, bool wait)
{
	LOCKTAG		tag;

	make_tag(&tag, lock);
	return LockAcquire(&tag, ExclusiveLock, session, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Takes a lock for the session; false where another process has it.  One that
 * this process has already is taken once more, and has to be released as often.
 */
bool
hx_lock_try(const HxLock *lock)
{
	return take(lock, true, false);
}

/*
 * The same, but waits for it, which a cancel and lock_timeout end.  In a
 * transaction, which best holds no snapshot meanwhile.
 */
void
hx_lock_wait(const HxLock *lock)
{
	(void) take(lock, true, true);
}

/* Releases a lock of the session; at the end of the process, when the server has done so, nothing. */
void
hx_lock_release(const HxLock *lock)
{
	LOCKTAG		tag;

	if (MyProc == NULL)
		return;
	make_tag(&tag, lock);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/* Takes a lock to the end of the transaction; false where another process has it. */
bool
hx_lock_try_in_transaction(const HxLock *lock)
{
	return take(lock, false, false);
}

/* The same, but waits for it. */
void
hx_lock_wait_in_transaction(const HxLock *lock)
{
	(void) take(lock, false, true);
}
