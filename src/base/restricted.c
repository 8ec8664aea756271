/*-------------------------------------------------------------------------
 *
 * restricted.c
 *	  Acting as a role, for what that role may have written itself.
 *
 * Writing to a table runs its triggers, defaults and index expressions, which
 * are the table's owner's.  They run as that role, restricted as an index
 * expression is, with nothing of the caller's rights.  Everything they name
 * is named in full, since search_path is pinned.  Constraints are immediate,
 * or deferred triggers would run at COMMIT as somebody else.  What is set is
 * set back.  A lock is waited for a short time only, for others wait for the
 * end of the transaction.
 *
 * How long it may run is another matter: base/attempt.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "utils/guc.h"

#include "base/restricted.h"

/*
 * Becomes a role, that waits for a lock so many milliseconds; 0: without end.
 * hx_restricted_leave() undoes it, as does the end of the (sub)transaction in
 * an error's case.  That constraints are immediate stays so to the end of the
 * (sub)transaction.
 */
void
hx_restricted_enter(HxRestricted *saved, Oid role, int lock_ms)
{
	AfterTriggerSetState(makeNode(ConstraintsSetStmt));	/* all of them, IMMEDIATE */

	GetUserIdAndSecContext(&saved->caller, &saved->sec_context);
	saved->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("lock_timeout", psprintf("%d", lock_ms),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(role, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

/* Becomes the caller again; what was set meanwhile is set back. */
void
hx_restricted_leave(const HxRestricted *saved)
{
	SetUserIdAndSecContext(saved->caller, saved->sec_context);
	AtEOXact_GUC(false, saved->guc_level);
}
