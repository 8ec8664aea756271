/*-------------------------------------------------------------------------
 *
 * record.c
 *	  Remote records as rows: JSON members into typed columns.
 *
 * The resource says where each column's value stands in a record.  All that a
 * query needs is found in one run of the parser over the record (finder.c),
 * and only that is made into values (value.c).  Absent members are NULL.
 *
 * A value that does not fit its column is the type's own error, with a
 * context that names column, record, resource and value; or, where the table
 * wishes so, NULL and a warning that names them.  Who watches a shape is told
 * instead of warned, and has the names in the error's detail.  A record that is
 * not JSON is an error always, since nothing tells what else of the page is
 * true.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "connector/connector.h"
#include "connector/resource.h"
#include "connector/value.h"
#include "json/record.h"

/* So many bytes of a value are shown in an error. */
#define SHOWN_VALUE		100

typedef enum ColumnSource
{
	SOURCE_NOTHING,				/* always NULL, or not needed */
	SOURCE_MEMBER,
	SOURCE_PRESENCE,			/* whether there is a member */
	SOURCE_KEY,
	SOURCE_RECORD,
	SOURCE_VALUE,				/* a record that is no object */
	SOURCE_PARENT,
	SOURCE_FILTER
} ColumnSource;

typedef struct ShapeColumn
{
	const char *name;
	ColumnSource source;
	int			path;			/* of the member, in the shape's paths */
	HxValueType type;
	Datum		filter;			/* what was asked for */
	bool		filter_is_null;
	bool		replaced;		/* it was warned that letters were replaced */
} ShapeColumn;

struct HxRecordShape
{
	MemoryContext context;		/* it lives in */
	const char *resource;
	bool		takes_values;	/* records may be no objects */
	bool		null_on_error;
	HxRecordWatch watch;		/* or NULL */
	void	   *watch_arg;
	int			npaths;
	const char **paths;
	int			id_path;		/* of the record's id within it, or -1 */
	int			drop_path;		/* of the mark of what is not wanted, or -1 */
	bool		whole;			/* nothing is wanted of a record but its key
								 * and the document it is */
	HxRecordFinder *finder;		/* NULL until the paths are known */
	HxFound    *found;

	/* What is at hand, for the error context. */
	const HxRecord *record;
	const char *id;
	const char *column;
	const char *value;			/* as it came, in UTF-8; or NULL */
	size_t		value_len;

	int			ncolumns;
	int			nmade;
	int		   *made;			/* the columns that have a value */
	ShapeColumn columns[FLEXIBLE_ARRAY_MEMBER];
};

/* The columns of a descriptor by their names in the resource; NULL where it knows none. */
HxColumn **
hx_record_columns(const HxResource *resource, TupleDesc desc)
{
	HxColumn  **columns = palloc0(Max(desc->natts, 1) * sizeof(HxColumn *));

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			columns[i] = hx_resource_column(resource, NameStr(TupleDescAttr(desc, i)->attname));
	return columns;
}

static int
add_path(HxRecordShape *shape, const char *path)
{
	shape->paths = shape->paths ? repalloc(shape->paths, (shape->npaths + 1) * sizeof(char *)) : palloc(sizeof(char *));
	shape->paths[shape->npaths] = pstrdup(path);
	return shape->npaths++;
}

static ColumnSource
source_of(const HxColumn *column)
{
	static const struct
	{
		const char *path;
		ColumnSource source;
	}			named[] = {
		{HX_PATH_KEY, SOURCE_KEY},
		{HX_PATH_RECORD, SOURCE_RECORD},
		{HX_PATH_VALUE, SOURCE_VALUE},
		{HX_PATH_PARENT, SOURCE_PARENT},
		{HX_PATH_FILTER, SOURCE_FILTER}
	};

	for (int i = 0; i < lengthof(named); i++)
		if (strcmp(column->path, named[i].path) == 0)
			return named[i].source;
	return column->present ? SOURCE_PRESENCE : SOURCE_MEMBER;
}

/*
 * Prepares to make a resource's records into rows of a descriptor.  columns
 * has one element an attribute; where it is NULL, or where the attribute's
 * number less one is not in needed (unless that is NULL, which is all), the
 * value is not made and NULL is given.  With null_on_error a value that does
 * not fit is NULL, and a warning.
 */
HxRecordShape *
hx_record_shape(const HxResource *resource, HxColumn **columns, TupleDesc desc,
				Bitmapset *needed, bool null_on_error)
{
	HxRecordShape *shape = palloc0(offsetof(HxRecordShape, columns) + desc->natts * sizeof(ShapeColumn));

	shape->context = CurrentMemoryContext;
	shape->resource = pstrdup(resource->name);
	shape->null_on_error = null_on_error;
	shape->id_path = -1;
	shape->drop_path = -1;
	shape->ncolumns = desc->natts;
	shape->made = palloc(Max(desc->natts, 1) * sizeof(int));
	for (int i = 0; i < resource->ncolumns; i++)
		if (source_of(&resource->columns[i]) == SOURCE_VALUE)
			shape->takes_values = true;
	if (!resource->by_key || resource->one != NULL)
		shape->id_path = add_path(shape, "id");

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		ShapeColumn *column = &shape->columns[i];

		if (attribute->attisdropped || columns[i] == NULL)
			continue;
		if (needed != NULL && !bms_is_member(i, needed))
			continue;
		column->name = columns[i]->name;
		shape->made[shape->nmade++] = i;
		column->source = source_of(columns[i]);
		column->filter_is_null = true;
		if (column->source == SOURCE_MEMBER || column->source == SOURCE_PRESENCE)
			column->path = add_path(shape, columns[i]->path);
		else if (column->source == SOURCE_VALUE)
			shape->takes_values = true;
		hx_value_type_init(&column->type, attribute->atttypid, attribute->atttypmod, resource->utc);
	}
	return shape;
}

/* Records in which there is something at this path are not wanted. */
void
hx_record_drop(HxRecordShape *shape, const char *path)
{
	MemoryContext old = MemoryContextSwitchTo(shape->context);

	Assert(shape->finder == NULL);
	shape->drop_path = add_path(shape, path);
	MemoryContextSwitchTo(old);
}

/*
 * Has a function called, instead of a warning, for each value that does not fit
 * (fits is false; with null_on_error) or in which letters were replaced (fits
 * is true).  It is told the column, an attribute's number less one, the record
 * and the problem.
 */
void
hx_record_watch(HxRecordShape *shape, HxRecordWatch watch, void *arg)
{
	shape->watch = watch;
	shape->watch_arg = arg;
}

/*
 * Says what the column of a number has, whose value no record tells: what was
 * asked for; NULL is nothing.  It may be said anew for every pass.
 */
void
hx_record_set_filter(HxRecordShape *shape, AttrNumber attnum, const char *text)
{
	ShapeColumn *column = &shape->columns[attnum - 1];
	MemoryContext old;

	if (column->source != SOURCE_FILTER)
		return;
	old = MemoryContextSwitchTo(shape->context);
	column->filter_is_null = text == NULL;
	if (text != NULL)
		column->filter = hx_value_read_text(&column->type, text, strlen(text));
	MemoryContextSwitchTo(old);
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
		reading.text = hx_value_name_zone(reading.text);
	if (!hx_attempt(read_time, &reading, &problem))
		return false;
	*time = reading.time;
	return true;
}

/*
 * So much of some bytes as an error shows.  It is called while an error is
 * made, when nothing may fail: what is not ASCII is shown only where it is
 * sure to be text of this database.
 */
static char *
show(const char *bytes, size_t len)
{
	size_t		shown = len > SHOWN_VALUE ? pg_encoding_mbcliplen(PG_UTF8, bytes, SHOWN_VALUE, SHOWN_VALUE) : len;
	char	   *text = pnstrdup(bytes, shown);

	if (GetDatabaseEncoding() != PG_UTF8 || !pg_verify_mbstr(PG_UTF8, bytes, (int) shown, true))
		for (size_t i = 0; i < shown; i++)
			if (IS_HIGHBIT_SET(text[i]) || text[i] == '\0')
				text[i] = '?';
	return shown < len ? psprintf("%s...", text) : text;
}

static void
add_context(void *arg)
{
	HxRecordShape *shape = arg;
	const char *id = shape->id ? shape->id : "without an id";

	if (shape->column == NULL && shape->id == NULL)
		errcontext("a record of resource \"%s\"", shape->resource);
	else if (shape->column == NULL)
		errcontext("record %s of resource \"%s\"", id, shape->resource);
	else if (shape->watch != NULL && !shape->null_on_error && shape->value != NULL)
		errdetail("Column \"%s\" of record %s of resource \"%s\": \"%s\".", shape->column, id, shape->resource,
				  show(shape->value, shape->value_len));
	else if (shape->value == NULL)
		errcontext("column \"%s\" of record %s of resource \"%s\"", shape->column, id, shape->resource);
	else
		errcontext("column \"%s\" of record %s of resource \"%s\": \"%s\"", shape->column, id, shape->resource,
				   show(shape->value, shape->value_len));
}

/* Makes the finder, now that all paths are known. */
static void
make_finder(HxRecordShape *shape)
{
	MemoryContext old = MemoryContextSwitchTo(shape->context);

	if (!shape->null_on_error && shape->npaths == (shape->id_path >= 0 ? 1 : 0))
		for (int i = 0; i < shape->ncolumns; i++)
			if (shape->columns[i].source == SOURCE_RECORD && shape->columns[i].type.kind == HX_VALUE_JSONB)
				shape->whole = true;
	shape->finder = hx_finder_make(shape->npaths, shape->paths);
	shape->found = palloc0(Max(shape->npaths, 1) * sizeof(HxFound));
	MemoryContextSwitchTo(old);
}

/* Finds what is wanted of a record. */
static void
look_into(HxRecordShape *shape, const HxRecord *record)
{
	/* What is made a document is parsed for that, and need not be twice. */
	if (shape->whole && record->key != NULL && *record->bytes == '{')
		return;
	if (!hx_finder_find(shape->finder, record, shape->found) && !shape->takes_values)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("a record is not an object")));
}

/* The value of a column from what is found, or from a text where found is NULL; false for NULL. */
static bool
read_value(HxRecordShape *shape, ShapeColumn *column, const HxFound *found, const char *text, Datum *value)
{
	size_t		len = text ? strlen(text) : 0;
	char	   *problem;
	bool		replaced = false;

	if (found ? found->kind == HX_FOUND_NOTHING : text == NULL)
		return false;
	shape->column = column->name;
	shape->value = found ? found->bytes : text;
	shape->value_len = found ? found->len : len;
	if (!shape->null_on_error)
		*value = found ? hx_value_read(&column->type, found, &replaced)
			: hx_value_read_text(&column->type, text, len);
	else if (!(found ? hx_value_try(&column->type, found, value, &replaced, &problem)
			   : hx_value_try_text(&column->type, text, len, value, &problem)))
	{
		if (shape->watch != NULL)
		{
			shape->watch(shape->watch_arg, column - shape->columns, shape->id, problem, false);
			return false;
		}
		ereport(WARNING,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("a value does not fit column \"%s\" and is null instead", column->name),
				 errdetail("Record %s of resource \"%s\", value \"%s\": %s", shape->id ? shape->id : "without an id",
						   shape->resource, show(shape->value, shape->value_len), problem)));
		return false;
	}
	if (replaced && shape->watch != NULL)
		shape->watch(shape->watch_arg, column - shape->columns, shape->id,
					 "letters that this database cannot hold were replaced by question marks", true);
	else if (replaced && !column->replaced)
	{
		column->replaced = true;
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("letters that this database cannot hold were replaced by question marks"),
				 errdetail("Record %s of resource \"%s\" is the first that has some in column \"%s\".",
						   shape->id ? shape->id : "without an id", shape->resource, column->name)));
	}
	return true;
}

/*
 * Makes one record into a row; values are palloc'd here.  False where the
 * record is not wanted.
 */
bool
hx_record_values(HxRecordShape *shape, const HxRecord *record, Datum *values, bool *nulls)
{
	ErrorContextCallback context = {.callback = add_context,.arg = shape,.previous = error_context_stack};
	HxFound		whole;

	if (shape->finder == NULL)
		make_finder(shape);
	shape->record = record;
	shape->id = record->key;
	shape->column = NULL;
	shape->value = NULL;
	error_context_stack = &context;

	look_into(shape, record);
	if (shape->id == NULL && shape->id_path >= 0)
	{
		bool		replaced = false;
		size_t		len;

		shape->id = hx_found_text(&shape->found[shape->id_path], &len, &replaced);
	}
	if (shape->drop_path >= 0 && shape->found[shape->drop_path].kind != HX_FOUND_NOTHING)
	{
		error_context_stack = context.previous;
		return false;
	}

	memset(nulls, true, shape->ncolumns);
	for (int n = 0; n < shape->nmade; n++)
	{
		int			i = shape->made[n];
		ShapeColumn *column = &shape->columns[i];
		bool		there = false;

		switch (column->source)
		{
			case SOURCE_NOTHING:
				break;
			case SOURCE_MEMBER:
				there = read_value(shape, column, &shape->found[column->path], NULL, &values[i]);
				break;
			case SOURCE_PRESENCE:
				there = read_value(shape, column, NULL,
								   shape->found[column->path].kind != HX_FOUND_NOTHING ? "true" : "false", &values[i]);
				break;
			case SOURCE_KEY:
				there = read_value(shape, column, NULL, shape->id, &values[i]);
				break;
			case SOURCE_RECORD:
			case SOURCE_VALUE:
				hx_found_whole(record, &whole);
				if (column->source == SOURCE_RECORD || whole.kind != HX_FOUND_JSON || *whole.bytes != '{')
					there = read_value(shape, column, &whole, NULL, &values[i]);
				break;
			case SOURCE_PARENT:
				there = read_value(shape, column, NULL, record->parent, &values[i]);
				break;
			case SOURCE_FILTER:
				there = !column->filter_is_null;
				values[i] = column->filter;
				break;
		}
		nulls[i] = !there;
	}
	error_context_stack = context.previous;
	return true;
}
