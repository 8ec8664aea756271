/*-------------------------------------------------------------------------
 *
 * lock.h
 *	  Locks of hubex's own, on numbers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_LOCK_H
#define HX_LOCK_H

/* SQL's own advisory locks have 1 or 2 in the place of the class. */
typedef enum HxLockClass
{
	HX_LOCK_CLAIMANT = 0x4842,	/* who delivers is alive */
	HX_LOCK_CLAIM = 0x4843,		/* one claims at a time */
	HX_LOCK_SYNC = 0x4844		/* one run of a kind of a subscription at a time */
} HxLockClass;

/* What is locked: a class, and two numbers of its own. */
typedef struct HxLock
{
	HxLockClass class;
	uint32		first;
	uint32		second;
} HxLock;

extern bool hx_lock_try(const HxLock *lock);
extern void hx_lock_wait(const HxLock *lock);
extern void hx_lock_release(const HxLock *lock);

extern bool hx_lock_try_in_transaction(const HxLock *lock);
extern void hx_lock_wait_in_transaction(const HxLock *lock);

#endif							/* HX_LOCK_H */
