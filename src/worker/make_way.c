/*-------------------------------------------------------------------------
 *
 * make_way.c
 *	  Commands that want a database for themselves get it from the workers.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE, ALTER DATABASE ... RENAME and
 * SET TABLESPACE refuse to run while anybody is connected to the database.
 * Its workers are asked to leave before such a command, by who may run it, and
 * come back after its transaction: before the commit a new database cannot
 * be seen yet, and a dropped one still can.  A peer that hangs does not
 * matter: what a worker has in flight is recovered later.
 *
 * COMMIT PREPARED is looked at here too: the backend that prepared the
 * transaction is not the one that makes it visible, so the workers are woken
 * by the latter.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/shared.h"
#include "compat.h"
#include "worker/worker.h"

#define MAKE_WAY_MS		5000	/* the longest wait for the workers to leave */
#define STAY_AWAY_MS	10000	/* and the longest they stay away if we vanish */

static ProcessUtility_hook_type previous_hook = NULL;

/* The databases this transaction asked for; reset at its end. */
static List *asked = NIL;
static bool registered = false;

/* The name of the database a command wants for itself, or NULL. */
static const char *
wanted_database(Node *statement)
{
	ListCell   *cell;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) statement)->options)
			{
				DefElem    *option = lfirst(cell);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					return defGetString(option);
			}
			return "template1";
		case T_RenameStmt:
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) statement)->subname : NULL;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		default:
			return NULL;
	}
}

/* Sets the slots of a database to make way, or free again. */
static void
set_make_way(Oid database, bool make_way)
{
	HxShared   *shared = hx_shared();

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (HxWorkerKind kind = 0; kind < HX_WORKER_KINDS; kind++)
	{
		HxWorkerSlot *slot = hx_shared_slot(database, kind, false);

		if (slot == NULL)
			continue;
		slot->make_way = make_way;
		slot->not_before = make_way ? TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STAY_AWAY_MS) : 0;
		if (slot->latch != NULL)
			SetLatch(slot->latch);
	}
	LWLockRelease(shared->lock);
}

static bool
has_workers(Oid database)
{
	HxShared   *shared = hx_shared();
	bool		any = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (HxWorkerKind kind = 0; kind < HX_WORKER_KINDS; kind++)
	{
		const HxWorkerSlot *slot = hx_shared_slot(database, kind, false);

		any = any || (slot != NULL && slot->pid != 0);
	}
	LWLockRelease(shared->lock);
	return any;
}

/* Asks the workers of a database to leave, and waits until they have. */
static void
clear_database(Oid database)
{
	static uint32 event = 0;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MAKE_WAY_MS);

	if (event == 0)
		event = hx_wait_event("HubexMakeWay");
	set_make_way(database, true);
	while (has_workers(database) && GetCurrentTimestamp() < deadline)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Could the caller run a command that needs the database for itself? */
static bool
may_ask(Node *statement, Oid database)
{
	HeapTuple	tuple;
	bool		is_template = false;

	if (hx_database_ownercheck(database, GetUserId()))
		return true;
	if (!IsA(statement, CreatedbStmt))
		return false;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (HeapTupleIsValid(tuple))
	{
		is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return is_template;
}

/* Lets the workers come back, and the launcher see what databases there are. */
static void
give_back(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (asked == NIL || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;
	foreach(cell, asked)
		set_make_way(lfirst_oid(cell), false);
	list_free(asked);
	asked = NIL;
	hx_shared_wake_launcher(true);
}

/* Asks the workers of a database to leave until this transaction ends. */
static void
ask_for(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (!registered)
		RegisterXactCallback(give_back, NULL);
	registered = true;
	asked = lappend_oid(asked, database);
	MemoryContextSwitchTo(old);
	clear_database(database);
}

static void
process_utility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Node	   *statement = planned->utilityStmt;
	const char *name = wanted_database(statement);
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	if (OidIsValid(database) && may_ask(statement, database))
		ask_for(database);
	(previous_hook ? previous_hook : standard_ProcessUtility)
		(planned, query, read_only_tree, context, params, environment, dest, completion);

	if (IsA(statement, TransactionStmt) &&
		(((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((TransactionStmt *) statement)->kind == TRANS_STMT_ROLLBACK_PREPARED))
		for (HxWorkerKind kind = 0; kind < HX_WORKER_KINDS; kind++)
			hx_shared_wake(kind, PG_INT64_MIN);
}

/* Installs the hook; called while the postmaster loads the library. */
void
hx_make_way_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
