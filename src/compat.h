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
#include "common/jsonapi.h"
#include "fmgr.h"
#include "storage/latch.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#include "optimizer/paths.h"
#include "storage/waiteventset.h"
#endif
#include "utils/jsonfuncs.h"
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

/* What the parser of JSON calls says how it went from 16 on; before, it throws or returns. */
#if PG_VERSION_NUM >= 160000
#define HX_JSON_ACTION JsonParseErrorType
#define hx_json_action_done() return JSON_SUCCESS
#define hx_json_report(error, lex) json_errsave_error((error), (lex), NULL)
#else
#define HX_JSON_ACTION void
#define hx_json_action_done() return
#define hx_json_report(error, lex) json_ereport_error((error), (lex))
#endif

/*
 * Makes a lexer over bytes, in memory of the caller's, that copies no
 * strings; until 16 the server only has one that is allocated each time.
 */
#if PG_VERSION_NUM >= 170000
#define hx_json_lex_init(lex, bytes, len, encoding) \
	((void) makeJsonLexContextCstringLen((lex), (bytes), (len), (encoding), false))
#define hx_json_lex_strings(bytes, len, encoding) \
	makeJsonLexContextCstringLen(NULL, (bytes), (len), (encoding), true)
#else
#define hx_json_lex_init(lex, bytes, len, encoding) \
	(memset((lex), 0, sizeof(JsonLexContext)), \
	 (lex)->input = (lex)->token_terminator = (lex)->line_start = (char *) (bytes), \
	 (lex)->line_number = 1, (lex)->input_length = (len), (lex)->input_encoding = (encoding))
#define hx_json_lex_strings(bytes, len, encoding) \
	makeJsonLexContextCstringLen((char *) (bytes), (len), (encoding), true)
#endif

/* An input function that says what is wrong instead of throwing it, from 16 on. */
#if PG_VERSION_NUM >= 160000
#define HX_SOFT_ERRORS
static inline bool
hx_input_softly(FmgrInfo *input, char *text, Oid ioparam, int32 typmod, Datum *value, char **problem)
{
	ErrorSaveContext context = {.type = T_ErrorSaveContext,.details_wanted = true};

	if (InputFunctionCallSafe(input, text, ioparam, typmod, (Node *) &context, value))
		return true;
	*problem = pstrdup(context.error_data->message);
	return false;
}
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

/* Rights on a schema, under the name of before 16. */
#if PG_VERSION_NUM >= 160000
#define hx_namespace_aclcheck(schema, role, mode) \
	object_aclcheck(NamespaceRelationId, (schema), (role), (mode))
#else
#define hx_namespace_aclcheck(schema, role, mode) \
	pg_namespace_aclcheck((schema), (role), (mode))
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

/* The index of a table's primary key, which is not deferrable. */
#if PG_VERSION_NUM >= 180000
#define hx_primary_key_index(relation) RelationGetPrimaryKeyIndex((relation), false)
#else
#define hx_primary_key_index(relation) RelationGetPrimaryKeyIndex(relation)
#endif

/* Puts a tuple into an index, as one that is new. */
#define hx_index_insert(index, values, isnull, tid, heap, check, info) \
	index_insert((index), (values), (isnull), (tid), (heap), (check), false, (info))
#if PG_VERSION_NUM >= 170000
#define hx_index_insert_cleanup(index, info) index_insert_cleanup((index), (info))
#else
#define hx_index_insert_cleanup(index, info) ((void) 0)
#endif

/* Puts a new row into the indexes of its table, as the executor does. */
#if PG_VERSION_NUM >= 160000
#define hx_insert_index_tuples(rinfo, slot, estate) \
	ExecInsertIndexTuples((rinfo), (slot), (estate), false, false, NULL, NIL, false)
#else
#define hx_insert_index_tuples(rinfo, slot, estate) \
	ExecInsertIndexTuples((rinfo), (slot), (estate), false, false, NULL, NIL)
#endif

/* A foreign path of a table, without a plan of its own for rechecks. */
#if PG_VERSION_NUM >= 180000
#define hx_create_foreignscan_path(root, rel, target, rows, startup, total, pathkeys, outer, private) \
	create_foreignscan_path((root), (rel), (target), (rows), 0, (startup), (total), (pathkeys), (outer), NULL, NIL, (private))
#elif PG_VERSION_NUM >= 170000
#define hx_create_foreignscan_path(root, rel, target, rows, startup, total, pathkeys, outer, private) \
	create_foreignscan_path((root), (rel), (target), (rows), (startup), (total), (pathkeys), (outer), NULL, NIL, (private))
#else
#define hx_create_foreignscan_path(root, rel, target, rows, startup, total, pathkeys, outer, private) \
	create_foreignscan_path((root), (rel), (target), (rows), (startup), (total), (pathkeys), (outer), NULL, (private))
#endif

/* A foreign path that also does what stands above the table. */
#if PG_VERSION_NUM >= 180000
#define hx_create_foreign_upper_path(root, rel, target, rows, startup, total, pathkeys, private) \
	create_foreign_upper_path((root), (rel), (target), (rows), 0, (startup), (total), (pathkeys), NULL, NIL, (private))
#elif PG_VERSION_NUM >= 170000
#define hx_create_foreign_upper_path(root, rel, target, rows, startup, total, pathkeys, private) \
	create_foreign_upper_path((root), (rel), (target), (rows), (startup), (total), (pathkeys), NULL, NIL, (private))
#else
#define hx_create_foreign_upper_path(root, rel, target, rows, startup, total, pathkeys, private) \
	create_foreign_upper_path((root), (rel), (target), (rows), (startup), (total), (pathkeys), NULL, (private))
#endif

/* The role that a change of a table is checked as; a partition's is that of the table the statement names. */
#if PG_VERSION_NUM >= 160000
#define hx_result_check_as_user(rinfo, estate) ExecGetResultRelCheckAsUser((rinfo), (estate))
#else
#define hx_result_entry(rinfo, estate) \
	exec_rt_fetch((rinfo)->ri_RangeTableIndex != 0 ? (rinfo)->ri_RangeTableIndex \
				  : (rinfo)->ri_RootResultRelInfo->ri_RangeTableIndex, (estate))
#define hx_result_check_as_user(rinfo, estate) \
	(OidIsValid(hx_result_entry((rinfo), (estate))->checkAsUser) ? \
	 hx_result_entry((rinfo), (estate))->checkAsUser : GetUserId())
#endif

/* Of a function that does not return; stands before its declaration. */
#if PG_VERSION_NUM >= 180000
#define HX_NORETURN pg_noreturn
#else
#define HX_NORETURN pg_attribute_noreturn()
#endif

/* Does a sort key begin with the greatest value? */
#if PG_VERSION_NUM >= 180000
#define hx_pathkey_descends(key) ((key)->pk_cmptype == COMPARE_GT)
#else
#define hx_pathkey_descends(key) ((key)->pk_strategy == BTGreaterStrategyNumber)
#endif

/* The members of an equivalence class, with those of a partition where it is one: kept apart from 18 on. */
#if PG_VERSION_NUM >= 180000
static inline List *
hx_eclass_members(EquivalenceClass *ec, Relids relids)
{
	EquivalenceMemberIterator it;
	EquivalenceMember *member;
	List	   *members = NIL;

	setup_eclass_member_iterator(&it, ec, relids);
	while ((member = eclass_member_iterator_next(&it)) != NULL)
		members = lappend(members, member);
	return members;
}
#else
#define hx_eclass_members(ec, relids) ((ec)->ec_members)
#endif

/* Switched-off nodes below a path count for it, too, where paths know them; earlier their costs said so. */
#if PG_VERSION_NUM >= 180000
#define hx_path_add_disabled(path, child) ((path)->disabled_nodes += (child)->disabled_nodes)
#else
#define hx_path_add_disabled(path, child) ((void) 0)
#endif

/* The role a scan is checked as; InvalidOid for the current one. */
#if PG_VERSION_NUM >= 160000
#define hx_scan_check_as_user(node) \
	(((ForeignScan *) (node)->ss.ps.plan)->checkAsUser)
#else
#define hx_scan_check_as_user(node) \
	(exec_rt_fetch(bms_next_member(((ForeignScan *) (node)->ss.ps.plan)->fs_relids, -1), (node)->ss.ps.state)->checkAsUser)
#endif

#endif							/* HX_COMPAT_H */
