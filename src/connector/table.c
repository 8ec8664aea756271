/*-------------------------------------------------------------------------
 *
 * table.c
 *	  A foreign table, as its options and its connector's manifest describe it.
 *
 * A column is one of the resource's by its name.  The column's option path
 * takes another place in the record, its option filter makes a column of a
 * filter that records do not show, its option constant gives all rows a value.
 * All of it is read anew for each plan and each scan, so that nothing here can
 * be stale.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "connector/options.h"
#include "connector/table.h"

/* The value of a boolean option; it was checked when it was written. */
static bool
bool_option(List *options, const char *name, bool otherwise)
{
	const char *text = hx_option_get(options, name);
	bool		value = otherwise;

	if (text != NULL)
		(void) parse_bool(text, &value);
	return value;
}

/* Has a filter of the API the type that a column of this type can be compared with? */
static bool
filter_fits(const char *filter_type, Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return strcmp(filter_type, "integer") == 0;
		case BOOLOID:
			return strcmp(filter_type, "boolean") == 0;
		case TEXTOID:
		case VARCHAROID:
			return strcmp(filter_type, "text") == 0;
		case TIMESTAMPTZOID:
			return strcmp(filter_type, "timestamp") == 0;
		default:
			return false;
	}
}

/* The column that an option filter makes: its value is what was asked for. */
static HxColumn *
filter_column(const HxTable *table, const char *filter, const char *name, Oid type)
{
	HxColumn   *column = palloc0(sizeof(HxColumn));
	char	   *filter_type = strchr(filter, '.') ? NULL :
		hx_json_text(table->resource->described, psprintf("filters.%s", filter));

	if (filter_type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
				 errmsg("resource \"%s\" of connector \"%s\" has no filter \"%s\"",
						table->resource->name, table->connector, filter),
				 errcontext("option filter of column \"%s\" of foreign table \"%s\"", name, table->name)));
	if (!filter_fits(filter_type, type))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("column \"%s\" of foreign table \"%s\" has a type that filter \"%s\" does not take",
						name, table->name, filter),
				 errdetail("The filter takes values of type %s.", filter_type)));
	column->name = name;
	column->type = filter_type;
	column->path = HX_PATH_FILTER;
	column->filter.equal = filter;
	column->filter.exact = true;
	return column;
}

static HxColumn *
resolve_column(const HxTable *table, Form_pg_attribute attribute)
{
	List	   *options = GetForeignColumnOptions(table->relid, attribute->attnum);
	const char *path = hx_option_get(options, "path");
	const char *filter = hx_option_get(options, "filter");
	const char *constant = hx_option_get(options, "constant");
	char	   *name = pstrdup(NameStr(attribute->attname));
	HxColumn   *known = hx_resource_column(table->resource, name);
	HxColumn   *column;

	if (constant != NULL)
	{
		/* As a partition's key, say, where each server is a partition. */
		column = palloc0(sizeof(HxColumn));
		column->name = name;
		column->path = HX_PATH_FILTER;
		column->constant = constant;
		return column;
	}
	if (filter != NULL)
		return filter_column(table, filter, name, attribute->atttypid);
	if (path == NULL && known != NULL)
		return known;
	if (path == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_COLUMN_NAME_NOT_FOUND),
				 errmsg("resource \"%s\" of connector \"%s\" has no column \"%s\"",
						table->resource->name, table->connector, name),
				 errhint("The column's option path can say where its value stands in a record, "
						 "its option filter which filter of the API it is.")));

	/* A place of the user's own choice: what the API filters by is not known of it. */
	column = palloc0(sizeof(HxColumn));
	column->name = name;
	column->path = path;
	return column;
}

static HxTable *
open_table(Oid relid, bool with_deleted, const Jsonb *further)
{
	HxTable    *table = palloc0(sizeof(HxTable));
	Relation	relation = table_open(relid, NoLock);
	TupleDesc	desc = RelationGetDescr(relation);
	ForeignTable *foreign = GetForeignTable(relid);
	const char *resource = hx_option_get(foreign->options, "resource");
	const char *filter = hx_option_get(foreign->options, "filter");
	const char *on_error = hx_option_get(foreign->options, "on_error");
	const char *page_size = hx_option_get(foreign->options, "page_size");
	bool		include_deleted = with_deleted || bool_option(foreign->options, "include_deleted", false);
	Jsonb	   *asked = NULL;

	table->relid = relid;
	table->name = pstrdup(RelationGetRelationName(relation));
	if (resource == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("foreign table \"%s\" has no option \"%s\"", table->name, "resource"),
				 errhint("ALTER FOREIGN TABLE ... OPTIONS (ADD resource 'tasks').")));
	table->server = GetForeignServer(foreign->serverid);
	table->connector = pstrdup(hx_option_get(table->server->options, "connector"));
	table->manifest = hx_connector_load(table->connector);
	if (table->manifest == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector \"%s\" of server \"%s\" does not exist", table->connector,
						table->server->servername),
				 errhint("Insert its manifest into hubex.connector.")));
	table->resource = hx_resource_read(table->manifest, table->connector, resource);

	if (filter != NULL)
		asked = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(filter)));
	table->has_filter = (asked != NULL && JB_ROOT_COUNT(asked) > 0) || (further != NULL && JB_ROOT_COUNT(further) > 0);
	table->query = hx_resource_filter(table->resource, table->connector, asked, further, include_deleted);
	table->include_deleted = include_deleted;
	table->drops_deleted = table->resource->drops_deleted && !include_deleted;
	table->null_on_error = on_error != NULL && strcmp(on_error, "null") == 0;
	if (page_size == NULL)
		page_size = hx_option_get(table->server->options, "page_size");
	table->page_size = hx_json_int(table->manifest, "limits.page_size", 1000);
	if (page_size != NULL)
		(void) parse_int(page_size, &table->page_size, 0, NULL);

	table->natts = desc->natts;
	table->columns = palloc0(sizeof(HxColumn *) * Max(desc->natts, 1));
	table->types = palloc0(sizeof(Oid) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped || attribute->attgenerated)
			continue;
		table->columns[i] = resolve_column(table, attribute);
		table->types[i] = attribute->atttypid;
	}
	table_close(relation, NoLock);
	return table;
}

/*
 * Opens the description of a foreign table, palloc'd here.  The caller holds
 * a lock on the table.  Errors: no resource named (HV00P), an unknown one
 * (HV00R), a column that nothing is known of (HV005), a bad filter (22023,
 * HV007).
 */
HxTable *
hx_table_open(Oid relid)
{
	return open_table(relid, false, NULL);
}

/*
 * As hx_table_open(), for one who wants deleted records too, whatever the
 * table's options say, and of all only those of a further filter: an object of
 * the manifest's filter names, or NULL.  The table's own filter stays; where
 * both name the same one, that is an error (22023).
 */
HxTable *
hx_table_open_whole(Oid relid, const Jsonb *further)
{
	return open_table(relid, true, further);
}

/* The attribute that shows a column of the resource; InvalidAttrNumber where none does. */
AttrNumber
hx_table_attribute(const HxTable *table, const char *name)
{
	HxColumn   *column = hx_resource_column(table->resource, name);

	for (int i = 0; i < table->natts; i++)
		if (column != NULL && table->columns[i] == column)
			return i + 1;
	return InvalidAttrNumber;
}

/* Is an attribute one that records do not show, but only what the API was asked for? */
bool
hx_table_is_filter(const HxTable *table, AttrNumber attno)
{
	const HxColumn *column = table->columns[attno - 1];

	return column != NULL && column->constant == NULL && strcmp(column->path, HX_PATH_FILTER) == 0;
}

/* The number of pages that a list of so many records has. */
double
hx_table_pages(const HxTable *table, double records)
{
	return Max(ceil(records / Max(table->page_size, 1)), 1);
}

/* A path with a value in the place of its {name}; as it is, where it has none. */
char *
hx_table_fill_path(const char *path, const char *value)
{
	const char *open = strchr(path, '{');
	const char *close = open ? strchr(open, '}') : NULL;

	if (close == NULL)
		return pstrdup(path);
	return psprintf("%.*s%s%s", (int) (open - path), path, value, close + 1);
}
