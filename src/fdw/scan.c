/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  The foreign data wrapper: a resource as a table, read page by page.
 *
 * Every scan reads the whole resource, within the filter the table's options
 * give, and PostgreSQL does the rest: no condition of the query is sent, so
 * none can be misunderstood.  A rescan reads from the start.  fdw_private is
 * empty and all state is made when the scan begins, so a cached or generic
 * plan has nothing that could be stale.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "connector/connector.h"
#include "connector/options.h"

PG_FUNCTION_INFO_V1(hubex_fdw_handler);

/* Guesses for the planner: a remote list is long and slow to start. */
#define ASSUMED_ROWS	1000
#define REQUEST_COST	10000.0

typedef struct ResourceScan
{
	MemoryContext context;		/* of one pass over the list */
	HxAccount  *account;
	char	   *resource;
	Jsonb	   *filter;
	HxRecordShape *shape;
	HxList	   *list;			/* NULL before the first row */
} ResourceScan;

/* The value of a table's option resource; an error where it has none. */
static char *
table_resource(ForeignTable *table, Relation relation)
{
	const char *resource = hx_option_get(table->options, "resource");

	if (resource == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("foreign table \"%s\" has no option \"%s\"", RelationGetRelationName(relation), "resource"),
				 errhint("ALTER FOREIGN TABLE ... OPTIONS (ADD resource 'tasks').")));
	return pstrdup(resource);
}

static void
hxGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	rel->rows = ASSUMED_ROWS;
}

static void
hxGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	add_path(rel, (Path *) hx_create_foreignscan_path(root, rel, rel->rows, REQUEST_COST,
													  REQUEST_COST + rel->rows * cpu_tuple_cost,
													  rel->lateral_relids));
}

static ForeignScan *
hxGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid table, ForeignPath *path,
				 List *tlist, List *clauses, Plan *outer)
{
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), rel->relid,
							NIL, NIL, NIL, NIL, outer);
}

static void
hxBeginForeignScan(ForeignScanState *node, int flags)
{
	Relation	relation = node->ss.ss_currentRelation;
	ForeignTable *table = GetForeignTable(RelationGetRelid(relation));
	ForeignServer *server = GetForeignServer(table->serverid);
	Oid			user = hx_scan_check_as_user(node);
	ResourceScan  *state;
	const char *filter;

	if (flags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	state = palloc0(sizeof(ResourceScan));
	state->resource = table_resource(table, relation);
	state->account = hx_account_open(server->servername, OidIsValid(user) ? user : GetUserId(), true);
	state->shape = hx_record_shape(state->account, state->resource, RelationGetDescr(relation),
								   RelationGetRelid(relation));
	filter = hx_option_get(table->options, "filter");
	if (filter != NULL)
		state->filter = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(filter)));
	state->context = AllocSetContextCreate(CurrentMemoryContext, "hubex scan", ALLOCSET_DEFAULT_SIZES);
	node->fdw_state = state;
}

static TupleTableSlot *
hxIterateForeignScan(ForeignScanState *node)
{
	ResourceScan  *state = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	MemoryContext old;
	char	   *key;
	Jsonb	   *record;
	bool		found;

	ExecClearTuple(slot);
	old = MemoryContextSwitchTo(state->context);
	if (state->list == NULL)
		state->list = hx_list_begin(state->account, state->resource, state->filter);
	found = hx_list_next(state->list, &key, &record);
	MemoryContextSwitchTo(old);
	if (!found)
		return slot;

	/* The record's memory lives until the next call; so do values in it. */
	old = MemoryContextSwitchTo(node->ss.ps.ps_ExprContext->ecxt_per_tuple_memory);
	hx_record_values(state->shape, key, record, slot->tts_values, slot->tts_isnull);
	MemoryContextSwitchTo(old);
	return ExecStoreVirtualTuple(slot);
}

static void
hxReScanForeignScan(ForeignScanState *node)
{
	ResourceScan  *state = node->fdw_state;

	state->list = NULL;
	MemoryContextReset(state->context);
}

static void
hxEndForeignScan(ForeignScanState *node)
{
	/* All memory is the executor's and goes with it. */
}

static void
hxExplainForeignScan(ForeignScanState *node, ExplainState *es)
{
	ForeignTable *table = GetForeignTable(RelationGetRelid(node->ss.ss_currentRelation));
	const char *resource = hx_option_get(table->options, "resource");

	ExplainPropertyText("Remote Resource", resource ? resource : "", es);
}

/* The statement that makes a resource's table. */
static char *
create_statement(const char *server, const char *local_schema, const char *resource, const Jsonb *described)
{
	StringInfoData sql;
	bool		first = true;
	ListCell   *cell;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE %s (", quote_qualified_identifier(local_schema, resource));
	foreach(cell, hx_json_elements(hx_json_part(described, "columns")))
	{
		Jsonb	   *column = hx_json_value_part(lfirst(cell));
		Oid			type;

		type = DatumGetObjectId(DirectFunctionCall1(to_regtype, CStringGetTextDatum(hx_json_text(column, "type"))));
		appendStringInfo(&sql, "%s%s %s", first ? "" : ", ", quote_identifier(hx_json_text(column, "name")),
						 format_type_be_qualified(type));
		first = false;
	}
	appendStringInfo(&sql, ") SERVER %s OPTIONS (resource %s)", quote_identifier(server), quote_literal_cstr(resource));
	return sql.data;
}

/* The remote schema of a resource: the first part of its path, WORK of /WORK/Tasks. */
static bool
in_schema(const Jsonb *described, const char *schema)
{
	char	   *path = hx_json_text(described, "path");
	size_t		len = strlen(schema);

	if (strcmp(schema, "*") == 0)
		return true;
	return path[0] == '/' && pg_strncasecmp(path + 1, schema, len) == 0 && (path[1 + len] == '/' || path[1 + len] == '\0');
}

static List *
hxImportForeignSchema(ImportForeignSchemaStmt *stmt, Oid server_oid)
{
	ForeignServer *server = GetForeignServer(server_oid);
	Jsonb	   *manifest = hx_connector_load(hx_option_get(server->options, "connector"));
	Jsonb	   *resources;
	List	   *statements = NIL;
	bool		known = false;
	ListCell   *cell;

	if (manifest == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector \"%s\" of server \"%s\" does not exist",
						hx_option_get(server->options, "connector"), server->servername)));
	resources = hx_json_part(manifest, "resources");
	foreach(cell, hx_json_names(resources))
	{
		Jsonb	   *described = hx_json_part(resources, lfirst(cell));

		if (!in_schema(described, stmt->remote_schema))
			continue;
		known = true;
		if (IsImportableForeignTable(lfirst(cell), stmt))
			statements = lappend(statements,
								 create_statement(server->servername, stmt->local_schema, lfirst(cell), described));
	}
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_SCHEMA_NOT_FOUND),
				 errmsg("server \"%s\" has no schema \"%s\"", server->servername, stmt->remote_schema),
				 errhint("A schema is a service of the API, such as \"WORK\"; \"*\" is all of them.")));
	return statements;
}

/* hubex_fdw_handler(): the routines of the foreign data wrapper. */
Datum
hubex_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = hxGetForeignRelSize;
	routine->GetForeignPaths = hxGetForeignPaths;
	routine->GetForeignPlan = hxGetForeignPlan;
	routine->BeginForeignScan = hxBeginForeignScan;
	routine->IterateForeignScan = hxIterateForeignScan;
	routine->ReScanForeignScan = hxReScanForeignScan;
	routine->EndForeignScan = hxEndForeignScan;
	routine->ExplainForeignScan = hxExplainForeignScan;
	routine->ImportForeignSchema = hxImportForeignSchema;
	PG_RETURN_POINTER(routine);
}
