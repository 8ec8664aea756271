/*-------------------------------------------------------------------------
 *
 * import.c
 *	  IMPORT FOREIGN SCHEMA: the resources of a service as tables.
 *
 * A remote schema is a service of the API, WORK of /WORK/Tasks, in letters of
 * any case; "*" is all of them, and then tables have the names of resources,
 * which no two services share.  The manifest says it all: nothing is asked of
 * the remote system.
 *
 * A foreign data wrapper can only return the statements that make the tables.
 * What the manifest knows of tables and columns besides (what they mean, what
 * the API can filter by) becomes their COMMENT, so a hook looks at the
 * commands an IMPORT of ours runs and comments each table once it is there.
 * PostgreSQL asks for the hook at each command, so it is there in time even
 * where this very statement has loaded the library.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "connector/options.h"
#include "fdw/fdw.h"
#include "fdw/import.h"

/* A table that is about to be made. */
typedef struct Imported
{
	const char *schema;
	const char *table;
	HxResource *resource;
} Imported;

/*
 * The tables that the IMPORT that runs has still to make, a List of Imported *;
 * one list, as an IMPORT runs no other.  The memory is the statement's, and
 * when that goes, however it ends, forget_imported() sees to it that nothing
 * points there.
 */
static List *imported = NIL;

static ProcessUtility_hook_type previous_hook = NULL;

/* What an IMPORT FOREIGN SCHEMA asks for. */
typedef struct Import
{
	ImportForeignSchemaStmt *stmt;
	ForeignServer *server;
	Jsonb	   *manifest;
	bool		all;			/* of all services */
	bool		raw;			/* with the column raw */
	bool		include_deleted;
	bool		known;			/* there is such a service */
	List	   *services;		/* of char *, in the order of their names */
	List	   *statements;
	List	   *imported;
} Import;

/* ---- comments ---- */

static void
add_part(StringInfo text, const char *part)
{
	if (part != NULL)
		appendStringInfo(text, "%s%s", text->len ? "; " : "", part);
}

static char *
table_comment(const HxResource *resource)
{
	StringInfoData text;

	initStringInfo(&text);
	add_part(&text, resource->comment);
	add_part(&text, psprintf("GET %s", resource->path));
	if (resource->parent != NULL)
		add_part(&text, psprintf("a query must give %s", resource->parent));
	return text.data;
}

/* Where a column's value stands. */
static const char *
place_comment(const HxColumn *column)
{
	if (strcmp(column->path, HX_PATH_KEY) == 0)
		return "id of the record";
	if (strcmp(column->path, HX_PATH_PARENT) == 0)
		return "id of the record the list belongs to; a query must give it";
	if (strcmp(column->path, HX_PATH_FILTER) == 0)
		return "what a query asks for by =, and nothing else";
	if (strcmp(column->path, HX_PATH_RECORD) == 0)
		return "the whole record as the API gives it";
	if (strcmp(column->path, HX_PATH_VALUE) == 0)
		return "the record itself, which is no object";
	return column->present ? psprintf("is there %s?", column->path) : column->path;
}

/* What the API can filter a column by. */
static char *
filter_comment(const HxColumnFilter *filter)
{
	const char *const names[] = {filter->equal, filter->from, filter->till, filter->present};
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < lengthof(names); i++)
		if (names[i] != NULL)
			appendStringInfo(&text, "%s%s", text.len ? ", " : "the API filters by ", names[i]);
	return text.len ? text.data : NULL;
}

static char *
column_comment(const HxColumn *column)
{
	StringInfoData text;

	initStringInfo(&text);
	add_part(&text, column->comment);
	add_part(&text, place_comment(column));
	add_part(&text, filter_comment(&column->filter));
	return text.data;
}

static void
comment_table(const Imported *table)
{
	RangeVar   *name = makeRangeVar(unconstify(char *, table->schema), unconstify(char *, table->table), -1);
	Oid			relid;

	CommandCounterIncrement();
	relid = RangeVarGetRelid(name, NoLock, true);
	if (!OidIsValid(relid))
		return;
	CreateComments(relid, RelationRelationId, 0, table_comment(table->resource));
	for (int i = 0; i < table->resource->ncolumns; i++)
	{
		const HxColumn *column = &table->resource->columns[i];
		AttrNumber	attno = get_attnum(relid, column->name);

		if (attno != InvalidAttrNumber)
			CreateComments(relid, RelationRelationId, attno, column_comment(column));
	}
}

static void
forget_imported(void *arg)
{
	if (imported == arg)
		imported = NIL;
}

/* Runs a command, and comments the table it makes where that is one of ours. */
static void
run_utility(PlannedStmt *pstmt, const char *query, bool read_only, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	CreateForeignTableStmt *create = NULL;
	ListCell   *cell;

	if (imported != NIL && context == PROCESS_UTILITY_SUBCOMMAND && IsA(pstmt->utilityStmt, CreateForeignTableStmt))
		create = (CreateForeignTableStmt *) pstmt->utilityStmt;

	(previous_hook ? previous_hook : standard_ProcessUtility) (pstmt, query, read_only, context, params, environment,
															   dest, completion);
	if (create == NULL)
		return;
	foreach(cell, imported)
	{
		Imported   *table = lfirst(cell);

		if (strcmp(table->table, create->base.relation->relname) != 0 ||
			strcmp(table->schema, create->base.relation->schemaname) != 0)
			continue;
		imported = foreach_delete_current(imported, cell);
		comment_table(table);
		break;
	}
}

/* Installs the hook; called when the library is loaded. */
void
hx_import_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = run_utility;
}

/* ---- statements ---- */

/* A type of the manifest's grammar, whatever the search_path has. */
static char *
type_name(const char *type)
{
	static const char *const keywords[] = {"bigint", "integer", "smallint", "numeric", "boolean"};

	for (int i = 0; i < lengthof(keywords); i++)
		if (strcmp(type, keywords[i]) == 0)
			return pstrdup(type);
	return psprintf("pg_catalog.%s", type);
}

/* raw repeats what other columns show, so who does not need it need not have it. */
static bool
is_raw(const HxColumn *column)
{
	return strcmp(column->path, HX_PATH_RECORD) == 0 && strcmp(column->name, "raw") == 0;
}

/* The statement that makes a resource's table. */
static char *
create_statement(const Import *import, const HxResource *resource, const char *table)
{
	StringInfoData sql;
	bool		first = true;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE %s (", quote_qualified_identifier(import->stmt->local_schema, table));
	for (int i = 0; i < resource->ncolumns; i++)
	{
		const HxColumn *column = &resource->columns[i];

		if (!import->raw && is_raw(column))
			continue;
		appendStringInfo(&sql, "%s%s %s", first ? "" : ", ", quote_identifier(column->name), type_name(column->type));
		first = false;
	}
	appendStringInfo(&sql, ") SERVER %s OPTIONS (resource %s%s)", quote_identifier(import->server->servername),
					 quote_literal_cstr(resource->name), import->include_deleted ? ", include_deleted 'true'" : "");
	return sql.data;
}

static void
add_service(List **services, const char *service)
{
	ListCell   *cell;

	foreach(cell, *services)
		if (pg_strcasecmp(lfirst(cell), service) == 0)
			return;
	*services = lappend(*services, pstrdup(service));
}

static void
import_resource(const char *name, const JsonbValue *value, void *arg)
{
	Import	   *import = arg;
	HxResource	where = {.name = name};
	const char *table;
	Imported   *made;

	hx_resource_read_name(hx_json_value_part(value), &where);
	add_service(&import->services, where.schema);
	if (!import->all && pg_strcasecmp(where.schema, import->stmt->remote_schema) != 0)
		return;
	import->known = true;
	table = pstrdup(import->all ? name : where.table);
	if (!IsImportableForeignTable(table, import->stmt))
		return;
	made = palloc(sizeof(Imported));
	made->schema = import->stmt->local_schema;
	made->table = table;
	made->resource = hx_resource_read(import->manifest, hx_option_get(import->server->options, "connector"), name);
	import->statements = lappend(import->statements, create_statement(import, made->resource, table));
	import->imported = lappend(import->imported, made);
}

/* Reads the options of the statement. */
static void
read_options(Import *import)
{
	ListCell   *cell;

	import->raw = true;
	foreach(cell, import->stmt->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "raw") == 0)
			import->raw = defGetBoolean(option);
		else if (strcmp(option->defname, "include_deleted") == 0)
			import->include_deleted = defGetBoolean(option);
		else
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", option->defname),
					 errhint("Valid options in this context are: %s.", "raw, include_deleted")));
	}
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static void
report_unknown_service(Import *import)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	list_sort(import->services, compare_names);
	foreach(cell, import->services)
		appendStringInfo(&names, "%s\"%s\"", names.len ? ", " : "", (char *) lfirst(cell));
	ereport(ERROR,
			(errcode(ERRCODE_FDW_SCHEMA_NOT_FOUND),
			 errmsg("server \"%s\" has no schema \"%s\"", import->server->servername, import->stmt->remote_schema),
			 errhint("A schema is a service of the API; \"*\" is all of them. Its services are: %s.", names.data)));
}

/* The statements that make the tables of a service. */
List *
hxImportForeignSchema(ImportForeignSchemaStmt *stmt, Oid server_oid)
{
	Import		import = {.stmt = stmt,.server = GetForeignServer(server_oid)};
	const char *connector = hx_option_get(import.server->options, "connector");
	MemoryContextCallback *callback;

	import.all = strcmp(stmt->remote_schema, "*") == 0;
	import.manifest = hx_connector_load(connector);
	if (import.manifest == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector \"%s\" of server \"%s\" does not exist", connector, import.server->servername)));
	read_options(&import);
	hx_manifest_each_resource(import.manifest, import_resource, &import);
	if (!import.known && !import.all)
		report_unknown_service(&import);

	imported = import.imported;
	callback = palloc(sizeof(MemoryContextCallback));
	callback->func = forget_imported;
	callback->arg = imported;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	return import.statements;
}
