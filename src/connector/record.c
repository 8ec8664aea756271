/*-------------------------------------------------------------------------
 *
 * record.c
 *	  Remote records as rows: JSON members into typed columns.
 *
 * The manifest says where each column's value stands in a record; the
 * column's own input function converts it, so a value that does not fit is
 * the type's own error, with a context that names record and column.  Absent
 * members are NULL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "connector/connector.h"
#include "connector/options.h"

typedef struct ShapeColumn
{
	const char *name;
	const char *path;			/* NULL: always null */
	Oid			type;
	int32		typmod;
	Oid			ioparam;
	FmgrInfo	input;
} ShapeColumn;

struct HxRecordShape
{
	int			ncolumns;
	bool		naive_is_utc;
	const char *resource;
	const char *key;			/* of the record at hand, for the error context */
	const char *column;
	ShapeColumn columns[FLEXIBLE_ARRAY_MEMBER];
};

/* The path the manifest gives a column; NULL where it knows none of the name. */
static char *
column_path(const Jsonb *columns, const char *name)
{
	ListCell   *cell;

	foreach(cell, hx_json_elements(columns))
	{
		Jsonb	   *column = hx_json_value_part(lfirst(cell));

		if (strcmp(hx_json_text(column, "name"), name) == 0)
			return hx_json_text(column, "path");
	}
	return NULL;
}

/*
 * Prepares the conversion of a resource's records to rows of a descriptor,
 * by the names of its columns; for a foreign table (else InvalidOid) a
 * column's option path goes before the manifest's.  A column that neither
 * knows is an error (HV005).
 */
HxRecordShape *
hx_record_shape(const HxAccount *account, const char *resource, TupleDesc desc, Oid foreign_table)
{
	Jsonb	   *described = hx_manifest_resource(account->manifest, account->connector, resource);
	Jsonb	   *columns = hx_json_part(described, "columns");
	HxRecordShape *shape = palloc0(offsetof(HxRecordShape, columns) + desc->natts * sizeof(ShapeColumn));
	char	   *dates = hx_json_text(described, "dates");

	shape->ncolumns = desc->natts;
	shape->naive_is_utc = dates != NULL && strcmp(dates, "utc") == 0;
	shape->resource = pstrdup(resource);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		ShapeColumn *column = &shape->columns[i];
		Oid			input;

		if (attribute->attisdropped)
			continue;
		column->name = pstrdup(NameStr(attribute->attname));
		if (OidIsValid(foreign_table))
			column->path = hx_option_get(GetForeignColumnOptions(foreign_table, i + 1), "path");
		if (column->path == NULL)
			column->path = column_path(columns, column->name);
		if (column->path == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_COLUMN_NAME_NOT_FOUND),
					 errmsg("resource \"%s\" of connector \"%s\" has no column \"%s\"",
							resource, account->connector, column->name),
					 OidIsValid(foreign_table) ?
					 errhint("The column's option path can say where its value stands in a record.") : 0));
		column->type = attribute->atttypid;
		column->typmod = attribute->atttypmod;
		getTypeInputInfo(column->type, &input, &column->ioparam);
		fmgr_info(input, &column->input);
	}
	return shape;
}

/*
 * A time without a zone is UTC in HubEx, so it gets the zone it lacks.  The
 * time's own form is left to the input function.
 */
static char *
name_the_zone(char *text)
{
	const char *time = strchr(text, 'T');

	if (time == NULL || strpbrk(time, "Zz+-") != NULL)
		return text;
	return psprintf("%sZ", text);
}

typedef struct TimeText
{
	char	   *text;
	TimestampTz time;
} TimeText;

static void
read_time(void *arg)
{
	TimeText   *time = arg;

	time->time = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(time->text),
														 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* Reads a time of a resource's record; false where it is none. */
bool
hx_record_time(const Jsonb *resource, const char *text, TimestampTz *time)
{
	char	   *dates = hx_json_text(resource, "dates");
	TimeText	reading = {pstrdup(text), 0};
	char	   *problem;

	if (dates != NULL && strcmp(dates, "utc") == 0)
		reading.text = name_the_zone(reading.text);
	if (!hx_attempt(read_time, &reading, &problem))
		return false;
	*time = reading.time;
	return true;
}

static void
add_context(void *arg)
{
	HxRecordShape *shape = arg;

	errcontext("column \"%s\" of record %s of resource \"%s\"",
			   shape->column, shape->key, shape->resource);
}

/*
 * Converts one record; values are palloc'd here.  Errors are those of the
 * columns' input functions.
 */
void
hx_record_values(HxRecordShape *shape, const char *key, const Jsonb *record, Datum *values, bool *nulls)
{
	ErrorContextCallback context = {.callback = add_context,.arg = shape,.previous = error_context_stack};

	shape->key = key;
	error_context_stack = &context;
	for (int i = 0; i < shape->ncolumns; i++)
	{
		ShapeColumn *column = &shape->columns[i];
		JsonbValue	value;
		char	   *text;

		nulls[i] = true;
		values[i] = (Datum) 0;
		if (column->path == NULL)
			continue;
		shape->column = column->name;

		if (strcmp(column->path, "@key") == 0)
			text = pstrdup(key);
		else if (strcmp(column->path, "@record") == 0)
			text = NULL;
		else if (!hx_json_find(record, column->path, &value))
			continue;
		else
			text = column->type == JSONBOID ? NULL : hx_json_value_text(&value);

		nulls[i] = false;
		if (text == NULL && column->type == JSONBOID)
		{
			values[i] = strcmp(column->path, "@record") == 0 ? JsonbPGetDatum(record)
				: JsonbPGetDatum(hx_json_value_part(&value));
			continue;
		}
		if (text == NULL)
			text = hx_json_out(record);
		if (column->type == TIMESTAMPTZOID && shape->naive_is_utc)
			text = name_the_zone(text);
		values[i] = InputFunctionCall(&column->input, text, column->ioparam, column->typmod);
	}
	error_context_stack = context.previous;
}
