/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the supported PostgreSQL versions, 15 to 18.
 *
 * This is the one file that looks at PG_VERSION_NUM.  The rest of hubex is
 * written against the newest form of an interface; this header gives older
 * servers that form.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_COMPAT_H
#define HX_COMPAT_H

#include "commands/explain.h"
#include "storage/latch.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#include "storage/waiteventset.h"
#endif
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "hubex needs PostgreSQL 15 or newer"
#endif

/*
 * A wait event set that belongs to a memory context until 16 and to a
 * resource owner from 17 on.  hubex frees its sets itself in a reset
 * callback, so that both are the same: no resource owner.
 */
#if PG_VERSION_NUM >= 170000
#define hx_create_wait_event_set(cxt, n) CreateWaitEventSet(NULL, (n))
#else
#define hx_create_wait_event_set(cxt, n) CreateWaitEventSet((cxt), (n))
#endif

/*
 * A wait event with a name of its own; servers older than 17 know one event
 * for all extensions.
 */
#if PG_VERSION_NUM >= 170000
#define hx_wait_event(name) WaitEventExtensionNew(name)
#else
#define hx_wait_event(name) PG_WAIT_EXTENSION
#endif

/* The number of this process's transaction, also of one that has written nothing; of storage/proc.h. */
#if PG_VERSION_NUM >= 170000
#define hx_my_transaction() (MyProc->vxid.lxid)
#else
#define hx_my_transaction() (MyProc->lxid)
#endif

/* Rights on a foreign server, under the name of before 16. */
#if PG_VERSION_NUM >= 160000
#define hx_server_aclcheck(server, role, mode) \
	object_aclcheck(ForeignServerRelationId, (server), (role), (mode))
#else
#define hx_server_aclcheck(server, role, mode) \
	pg_foreign_server_aclcheck((server), (role), (mode))
#endif

/* Rights on a function, under the name of before 16. */
#if PG_VERSION_NUM >= 160000
#define hx_function_aclcheck(function, role, mode) \
	object_aclcheck(ProcedureRelationId, (function), (role), (mode))
#else
#define hx_function_aclcheck(function, role, mode) \
	pg_proc_aclcheck((function), (role), (mode))
#endif

/* Does a database belong to a role, under the name of before 16? */
#if PG_VERSION_NUM >= 160000
#define hx_database_ownercheck(database, role) \
	object_ownercheck(DatabaseRelationId, (database), (role))
#else
#define hx_database_ownercheck(database, role) \
	pg_database_ownercheck((database), (role))
#endif

/* An index scan without ordering operators and instruments. */
#if PG_VERSION_NUM >= 180000
#define hx_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define hx_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/* Puts a tuple into an index, as one that is new. */
#define hx_index_insert(index, values, isnull, tid, heap, check, info) \
	index_insert((index), (values), (isnull), (tid), (heap), (check), false, (info))
#if PG_VERSION_NUM >= 170000
#define hx_index_insert_cleanup(index, info) index_insert_cleanup((index), (info))
#else
#define hx_index_insert_cleanup(index, info) ((void) 0)
#endif

/* A foreign path without remote joins, sorts or private lists. */
#if PG_VERSION_NUM >= 180000
#define hx_create_foreignscan_path(root, rel, rows, startup, total, outer) \
	create_foreignscan_path((root), (rel), NULL, (rows), 0, (startup), (total), NIL, (outer), NULL, NIL, NIL)
#elif PG_VERSION_NUM >= 170000
#define hx_create_foreignscan_path(root, rel, rows, startup, total, outer) \
	create_foreignscan_path((root), (rel), NULL, (rows), (startup), (total), NIL, (outer), NULL, NIL, NIL)
#else
#define hx_create_foreignscan_path(root, rel, rows, startup, total, outer) \
	create_foreignscan_path((root), (rel), NULL, (rows), (startup), (total), NIL, (outer), NULL, NIL)
#endif

/* The role a scan is checked as; InvalidOid for the current one. */
#if PG_VERSION_NUM >= 160000
#define hx_scan_check_as_user(node) \
	(((ForeignScan *) (node)->ss.ps.plan)->checkAsUser)
#else
#define hx_scan_check_as_user(node) \
	(exec_rt_fetch(((ForeignScan *) (node)->ss.ps.plan)->scan.scanrelid, (node)->ss.ps.state)->checkAsUser)
#endif

#endif							/* HX_COMPAT_H */
