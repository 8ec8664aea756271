/*-------------------------------------------------------------------------
 *
 * hold.c
 *	  A relation's lock that is taken once and kept to the end of the
 *	  transaction.
 *
 * A lock goes with the subtransaction that took it, if that is rolled back.
 * So it counts as held for as long as that very subtransaction is the current
 * one; in any other the relation is locked again, which is only slower.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/proc.h"

#include "base/hold.h"
#include "compat.h"

/*
 * The mode to open a relation with: NoLock where that lock is held, else the
 * mode itself.  The caller opens it at once and does not give the lock back.
 */
LOCKMODE
hx_hold(HxHold *hold, LOCKMODE mode)
{
	LocalTransactionId transaction = hx_my_transaction();
	SubTransactionId subtransaction = GetCurrentSubTransactionId();

	if (hold->transaction == transaction && hold->subtransaction == subtransaction)
		return NoLock;
	hold->transaction = transaction;
	hold->subtransaction = subtransaction;
	return mode;
}
