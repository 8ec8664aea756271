/*-------------------------------------------------------------------------
 *
 * hold.h
 *	  A relation's lock that is taken once and kept to the end of the
 *	  transaction.
 *
 * To ask for a lock that is held already costs about as much as what a row is
 * locked for; who opens the same relations for row after row asks once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_HOLD_H
#define HX_HOLD_H

#include "storage/lock.h"

/* In which (sub)transaction the relation was locked; zeros: in none. */
typedef struct HxHold
{
	LocalTransactionId transaction;
	SubTransactionId subtransaction;
} HxHold;

extern LOCKMODE hx_hold(HxHold *hold, LOCKMODE mode);

#endif							/* HX_HOLD_H */
