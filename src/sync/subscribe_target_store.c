/*-------------------------------------------------------------------------
 *
 * subscribe_target_store.c
 *	  The target of a subscription that is being made.
 *
 * Where it does not exist it is made by an ordinary CREATE TABLE of the
 * caller's, so that it belongs to the caller and needs the caller's rights.  It
 * has the columns of the foreign table, with their comments, and is NOT NULL
 * only where a row has to be known by a column: what the remote system leaves
 * out one day must not stop a run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "sync/subscribe.h"

/* The first schema of search_path in which the caller can make a table. */
static char *
creation_schema(const char *table)
{
	ListCell   *cell;

	foreach(cell, fetch_search_path(false))
	{
		Oid			schema = lfirst_oid(cell);

		if (!isTempNamespace(schema) && schema != PG_CATALOG_NAMESPACE &&
			hx_namespace_aclcheck(schema, GetUserId(), ACL_CREATE) == ACLCHECK_OK)
			return get_namespace_name(schema);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_SCHEMA),
			 errmsg("no schema of search_path can take table \"%s\"", table),
			 errdetail("The target does not exist, and role \"%s\" may create tables in none of them.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("Name it with its schema.")));
}

static const char *
type_name(Oid type, int32 typmod)
{
	return format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static void
add_collation(StringInfo sql, Form_pg_attribute attribute)
{
	char	   *name;

	if (!OidIsValid(attribute->attcollation) || attribute->attcollation == get_typcollation(attribute->atttypid))
		return;
	name = get_collation_name(attribute->attcollation);
	if (name != NULL)
	{
		HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(attribute->attcollation));

		appendStringInfo(sql, " COLLATE %s",
						 quote_qualified_identifier(get_namespace_name(((Form_pg_collation) GETSTRUCT(tuple))->collnamespace),
													name));
		ReleaseSysCache(tuple);
	}
}

static bool
has_name(List *columns, const char *name)
{
	ListCell   *cell;

	foreach(cell, columns)
		if (strcmp(((HxShown *) lfirst(cell))->name, name) == 0)
			return true;
	return false;
}

/* Does the list itself show when a record was deleted? */
static bool
shows_deleted(const HxSource *source, List *columns)
{
	const char *place = source->table->resource->deleted;
	ListCell   *cell;

	foreach(cell, columns)
	{
		int			n = ((HxShown *) lfirst(cell))->source;
		const HxColumn *column = source->table->columns[n];

		if (place != NULL && strcmp(column->path, place) == 0 && !column->present &&
			source->table->types[n] == TIMESTAMPTZOID)
			return true;
	}
	return false;
}

/* The text of CREATE TABLE. */
static char *
definition(const HxSubscription *subscription, const HxSource *source, List *columns, const char *name)
{
	StringInfoData sql;
	const char *separator = "";
	ListCell   *cell;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (", name);
	foreach(cell, columns)
	{
		const HxShown *shown = lfirst(cell);
		Form_pg_attribute attribute = TupleDescAttr(source->desc, shown->source);

		appendStringInfo(&sql, "%s%s %s", separator, quote_identifier(shown->name),
						 type_name(attribute->atttypid, attribute->atttypmod));
		add_collation(&sql, attribute);
		if (shown->key)
			appendStringInfoString(&sql, " NOT NULL");
		separator = ", ";
	}
	if (!has_name(columns, "synced_at"))
		appendStringInfoString(&sql, ", synced_at pg_catalog.timestamptz");
	if (subscription->deletes == HX_DELETES_MARK && !shows_deleted(source, columns) && !has_name(columns, "deleted"))
		appendStringInfoString(&sql, ", deleted pg_catalog.timestamptz");

	separator = ", PRIMARY KEY (";
	for (int constants = 1; constants >= 0; constants--)
		foreach(cell, columns)
		{
			const HxShown *shown = lfirst(cell);

			if (!shown->key || constants != (shown->source != source->key))
				continue;
			appendStringInfo(&sql, "%s%s", separator, quote_identifier(shown->name));
			separator = ", ";
		}
	appendStringInfoString(&sql, "))");
	return sql.data;
}

/* Runs a command of the caller's. */
static void
run_command(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "could not make the target: %s", SPI_result_code_string(result));
}

static void
comment_on(const char *what, const char *name, const char *comment)
{
	run_command(psprintf("COMMENT ON %s %s IS %s", what, name, quote_literal_cstr(comment)));
}

/* Makes the target, and gives its oid. */
static Oid
make_target(const HxSubscription *subscription, const HxSource *source, const RangeVar *range)
{
	const HxTable *table = source->table;
	char	   *schema = range->schemaname ? range->schemaname : creation_schema(range->relname);
	Oid			schema_oid = get_namespace_oid(schema, false);
	char	   *name = quote_qualified_identifier(schema, range->relname);
	List	   *columns = hx_subscribe_columns(subscription, source, NULL);
	ListCell   *cell;

	SPI_connect();
	run_command(definition(subscription, source, columns, name));
	comment_on("TABLE", name,
			   psprintf("Mirror of resource %s of server %s, kept in step by the subscription %s of hubex",
						table->resource->name, table->server->servername, quote_identifier(subscription->name)));
	foreach(cell, columns)
	{
		const HxShown *shown = lfirst(cell);
		char	   *comment = GetComment(table->relid, RelationRelationId, shown->source + 1);

		if (comment != NULL)
			comment_on("COLUMN", psprintf("%s.%s", name, quote_identifier(shown->name)), comment);
	}
	if (!has_name(columns, "synced_at"))
		comment_on("COLUMN", psprintf("%s.synced_at", name), "when hubex wrote the row last");
	SPI_finish();
	return get_relname_relid(range->relname, schema_oid);
}

/*
 * Finds the table of a name, or makes it, locked to the end of the
 * transaction.  Errors: a name that is none (42602), no schema that takes the
 * table (3F000), and those of CREATE TABLE.
 */
Oid
hx_subscribe_target(const HxSubscription *subscription, const HxSource *source, text *name)
{
	RangeVar   *range = makeRangeVarFromNameList(textToQualifiedNameList(name));
	Oid			relid = RangeVarGetRelid(range, AccessShareLock, true);

	return OidIsValid(relid) ? relid : make_target(subscription, source, range);
}
