/*-------------------------------------------------------------------------
 *
 * table_fields.c
 *	  Rows of a foreign table as fields of a record.
 *
 * A record is written by other names than it is read by: what is read at
 * taskType.id is written as taskTypeID.  The manifest's "fields" say so by the
 * names of columns.  A column of another name is known by the place in the
 * record that it shows; a place that is a field's name itself is that field.
 * All other columns can only be read: a value that is given them is an error,
 * because it would be lost.  The column that shows the whole record takes any
 * further fields by the API's names, so that nothing of the API is out of
 * reach.
 *
 * Null in a new row is left out, as no value.  Of a row that changes only what
 * differs is written, and what came to nothing as null.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "connector/table_fields.h"

/* ---- which columns can be written, and as what ---- */

static bool
shows(const HxColumn *column, const char *path)
{
	return column != NULL && strcmp(column->path, path) == 0;
}

/* The fields that an operation takes, as far as the manifest names them. */
struct HxOperationFields
{
	List	   *of_columns;		/* of HxPair *: a column's name and the field's; the first of a name counts */
	List	   *names;			/* of char *, the API's */
};

static void
add_column_field(const char *name, const JsonbValue *value, void *arg)
{
	HxOperationFields *fields = arg;
	char	   *field = hx_json_value_text(value);

	fields->of_columns = lappend(fields->of_columns, hx_http_pair(pstrdup(name), field));
	fields->names = lappend(fields->names, field);
}

static void
add_default_field(const char *name, const JsonbValue *value, void *arg)
{
	HxOperationFields *fields = arg;

	fields->names = lappend(fields->names, pstrdup(name));
}

static void
read_fields(const HxResource *resource, const Jsonb *operation, HxOperationFields *fields)
{
	ListCell   *cell;

	memset(fields, 0, sizeof(HxOperationFields));
	hx_json_each(hx_json_part(operation, "fields"), add_column_field, fields);
	hx_json_each(hx_json_part(resource->described, "fields"), add_column_field, fields);
	hx_json_each(hx_json_part(operation, "defaults"), add_default_field, fields);
	foreach(cell, hx_json_elements(hx_json_part(operation, "required")))
		fields->names = lappend(fields->names, hx_json_value_text(lfirst(cell)));
}

static bool
is_field(const HxOperationFields *fields, const char *name)
{
	ListCell   *cell;

	foreach(cell, fields->names)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

/* The field that the manifest gives a column of a name, or NULL. */
static const char *
field_of_name(const HxOperationFields *fields, const char *name)
{
	ListCell   *cell;

	foreach(cell, fields->of_columns)
		if (strcmp(((HxPair *) lfirst(cell))->name, name) == 0)
			return ((HxPair *) lfirst(cell))->value;
	return NULL;
}

/* The resource's own column that shows a place in the record, or NULL. */
static const HxColumn *
column_of_path(const HxResource *resource, const char *path)
{
	for (int i = 0; i < resource->ncolumns; i++)
		if (!resource->columns[i].present && shows(&resource->columns[i], path))
			return &resource->columns[i];
	return NULL;
}

/* The field that a column is written to; NULL: it cannot be written. */
static const char *
field_of_column(const HxTable *table, const HxOperationFields *fields, const HxColumn *column)
{
	const HxColumn *of_name = hx_resource_column(table->resource, column->name);
	const HxColumn *known = of_name == column ? column : NULL;
	const char *field;

	if (column->constant != NULL)
		return NULL;
	if (shows(column, HX_PATH_FILTER) && is_field(fields, column->filter.equal))
		return column->filter.equal;
	if (column->path[0] == '@' && !shows(column, HX_PATH_FILTER))
		return NULL;
	if (known == NULL && column->path[0] != '@')
		known = column_of_path(table->resource, column->path);
	if (known != NULL && (field = field_of_name(fields, known->name)) != NULL)
		return field;
	if (!column->present && is_field(fields, column->path))
		return column->path;
	/* A name that the resource has no column of; else the place was chosen for it to show something else. */
	return of_name == NULL ? field_of_name(fields, column->name) : NULL;
}

/* The columns of a foreign table as an operation that the connector knows writes them, palloc'd here. */
HxTableFields *
hx_table_fields(const HxTable *table, TupleDesc desc, const char *operation)
{
	HxTableFields *columns = palloc0(offsetof(HxTableFields, columns) + desc->natts * sizeof(HxTableField));

	columns->cxt = CurrentMemoryContext;
	columns->table = table;
	columns->desc = desc;
	columns->operation = operation;
	columns->raw = -1;
	columns->fields = palloc(sizeof(HxOperationFields));
	read_fields(table->resource, hx_manifest_operation(table->manifest, table->resource->name, operation),
				columns->fields);
	for (int i = 0; i < desc->natts; i++)
	{
		if (table->columns[i] == NULL)
			continue;
		columns->runs_code |= getBaseType(TupleDescAttr(desc, i)->atttypid) >= FirstNormalObjectId;
		if (shows(table->columns[i], HX_PATH_RECORD))
			columns->raw = i;
	}
	return columns;
}

/*
 * The column of attribute n + 1, which is not a dropped one.  What it is, is
 * found out when it is first asked for: most rows give few of them values.
 */
const HxTableField *
hx_table_field(HxTableFields *columns, int n)
{
	HxTableField *column = &columns->columns[n];
	const HxColumn *shown = columns->table->columns[n];
	Form_pg_attribute attribute = TupleDescAttr(columns->desc, n);
	MemoryContext old;

	if (column->known)
		return column;
	old = MemoryContextSwitchTo(columns->cxt);
	hx_converter_init(&column->converter, attribute->atttypid);
	column->has_constant = shown->constant != NULL;
	if (column->has_constant)
	{
		Oid			function;
		Oid			param;

		getTypeInputInfo(attribute->atttypid, &function, &param);
		column->constant = OidInputFunctionCall(function, unconstify(char *, shown->constant), param,
												attribute->atttypmod);
	}
	column->field.type = jbvString;
	column->field.val.string.val = unconstify(char *, field_of_column(columns->table, columns->fields, shown));
	column->writable = column->field.val.string.val != NULL;
	if (column->writable)
		column->field.val.string.len = strlen(column->field.val.string.val);
	column->known = true;
	MemoryContextSwitchTo(old);
	return column;
}

static const char *
name_of(const HxTableFields *columns, int n)
{
	return NameStr(TupleDescAttr(columns->desc, n)->attname);
}

/* Errors: 0A000, for a column that cannot be written. */
void
hx_table_refuse_field(HxTableFields *columns, int n)
{
	const HxTable *table = columns->table;
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < columns->desc->natts; i++)
		if (table->columns[i] != NULL && hx_table_field(columns, i)->writable)
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", name_of(columns, i));
	if (columns->raw >= 0)
		appendStringInfo(&names, "%s%s, which takes an object of any other fields by the API's names",
						 names.len ? ", and " : "", name_of(columns, columns->raw));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" of foreign table \"%s\" cannot be written", name_of(columns, n), table->name),
			 shows(table->columns[n], HX_PATH_KEY) ?
			 errdetail("It is the record's id, which the remote system gives it.") :
			 table->columns[n]->constant != NULL ?
			 errdetail("It is \"%s\" in all rows.", table->columns[n]->constant) :
			 errdetail("Operation \"%s\" of resource \"%s\" has no field for it.", columns->operation,
					   table->resource->name),
			 names.len ? errhint("What can be written is: %s.", names.data) : 0));
}

/* ---- values ---- */

/* A value of the column of attribute n + 1 as that of its field; it may point into the datum. */
void
hx_table_field_value(HxTableFields *columns, int n, Datum datum, bool isnull, JsonbValue *value)
{
	hx_converter_value(&hx_table_field(columns, n)->converter, datum, isnull, value);
}

static bool
same_image(const HxTableFields *columns, int n, Datum one, Datum other)
{
	Form_pg_attribute attribute = TupleDescAttr(columns->desc, n);

	return datum_image_eq(one, other, attribute->attbyval, attribute->attlen);
}

/* The further fields that the column of the whole record is given. */
static Jsonb *
further_fields(HxTableFields *columns, Datum datum, bool isnull)
{
	JsonbValue	value;
	Jsonb	   *object = NULL;

	hx_table_field_value(columns, columns->raw, datum, isnull, &value);
	if (value.type == jbvBinary || value.type == jbvObject)
		object = hx_json_value_part(&value);
	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" of foreign table \"%s\" must be a JSON object", name_of(columns, columns->raw),
						columns->table->name),
				 errdetail("When it is written, its members are further fields of the record."),
				 errhint("Write it like {\"notes\": \"a text\", \"companyID\": 17}.")));
	return object;
}

/*
 * The fields of a new row: returns how many there are, and what is given of
 * further fields in *more.  Values may point into the row.
 */
int
hx_table_new_fields(HxTableFields *columns, TupleTableSlot *row, HxField *fields, Jsonb **more)
{
	int			nfields = 0;

	*more = NULL;
	slot_getallattrs(row);
	for (int i = 0; i < columns->desc->natts; i++)
	{
		const HxTableField *column;

		if (row->tts_isnull[i] || columns->table->columns[i] == NULL)
			continue;
		column = hx_table_field(columns, i);
		if (i == columns->raw)
			*more = further_fields(columns, row->tts_values[i], false);
		else if (column->has_constant && same_image(columns, i, column->constant, row->tts_values[i]))
			continue;
		else if (!column->writable)
			hx_table_refuse_field(columns, i);
		else
		{
			fields[nfields].name = column->field;
			hx_table_field_value(columns, i, row->tts_values[i], false, &fields[nfields].value);
			nfields++;
		}
	}
	return nfields;
}

typedef struct Comparison
{
	const Jsonb *old;			/* the record as it was, or NULL */
	HxJsonBuilder *changed;
	bool	   *any;
} Comparison;

static void
take_changed_member(const char *name, const JsonbValue *value, void *arg)
{
	Comparison *comparison = arg;
	JsonbValue	key = {.type = jbvString};
	JsonbValue *before = NULL;

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	if (comparison->old != NULL && JB_ROOT_IS_OBJECT(comparison->old))
		before = findJsonbValueFromContainer(&unconstify(Jsonb *, comparison->old)->root, JB_FOBJECT, &key);
	if (before != NULL && hx_json_same(before, unconstify(JsonbValue *, value)))
		return;
	hx_json_add(comparison->changed, name, unconstify(JsonbValue *, value));
	*comparison->any = true;
}

/*
 * The fields that a change of a row changes, or NULL where it changes none.  Of
 * further fields those are taken that the record does not have as they are.
 */
Jsonb *
hx_table_changed_fields(HxTableFields *columns, const Datum *old_values, const bool *old_nulls,
						TupleTableSlot *row)
{
	HxJsonBuilder changed;
	bool		any = false;
	bool		raw_changed = false;

	hx_json_begin(&changed);
	slot_getallattrs(row);
	for (int i = 0; i < columns->desc->natts; i++)
	{
		const HxTableField *column;
		JsonbValue	before;
		JsonbValue	after;

		if (columns->table->columns[i] == NULL || (old_nulls[i] && row->tts_isnull[i]) ||
			(!old_nulls[i] && !row->tts_isnull[i] && same_image(columns, i, old_values[i], row->tts_values[i])))
			continue;
		column = hx_table_field(columns, i);
		hx_table_field_value(columns, i, old_values[i], old_nulls[i], &before);
		hx_table_field_value(columns, i, row->tts_values[i], row->tts_isnull[i], &after);
		if (hx_json_same(&before, &after))
			continue;
		if (i == columns->raw)
			raw_changed = true;
		else if (!column->writable)
			hx_table_refuse_field(columns, i);
		else
		{
			hx_json_add(&changed, column->field.val.string.val, &after);
			any = true;
		}
	}
	if (raw_changed)
	{
		int			n = columns->raw;
		Comparison	comparison = {.changed = &changed,.any = &any};

		if (!old_nulls[n])
			comparison.old = further_fields(columns, old_values[n], false);
		hx_json_each(further_fields(columns, row->tts_values[n], row->tts_isnull[n]), take_changed_member, &comparison);
	}
	return any ? hx_json_end(&changed) : NULL;
}

/* ---- which record a row is ---- */

static void
prepare_output(HxTableKey *key, TupleDesc desc, int n, FmgrInfo *out)
{
	Oid			function;
	bool		varlena;

	if (n < 0)
		return;
	getTypeOutputInfo(TupleDescAttr(desc, n)->atttypid, &function, &varlena);
	fmgr_info(function, out);
	key->runs_code |= function >= FirstNormalObjectId;
}

/* How rows name their records, palloc'd here.  A table whose rows do not is an error. */
HxTableKey *
hx_table_key(const HxTable *table, TupleDesc desc)
{
	HxTableKey *key = palloc0(sizeof(HxTableKey));
	Jsonb	   *create = hx_manifest_operation(table->manifest, table->resource->name, "create");
	char	   *natural_key = hx_json_text(create, "natural_key_filter") ? hx_json_text(create, "natural_key") : NULL;
	HxOperationFields fields;

	read_fields(table->resource, create, &fields);
	key->table = table;
	key->id = key->natural_key = -1;
	for (int i = 0; i < table->natts; i++)
	{
		const HxColumn *column = table->columns[i];
		const char *field;

		if (column == NULL)
			continue;
		if (key->id < 0 && shows(column, HX_PATH_KEY))
			key->id = i;
		if (natural_key == NULL || key->natural_key >= 0 || shows(column, HX_PATH_FILTER))
			continue;
		field = field_of_column(table, &fields, column);
		if (field != NULL && strcmp(field, natural_key) == 0)
			key->natural_key = i;
	}
	if (key->id < 0 && key->natural_key < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("rows of foreign table \"%s\" can be neither updated nor deleted", table->name),
				 errdetail("No column of it tells which record a row is."),
				 errhint("ALTER FOREIGN TABLE %s ADD COLUMN id bigint OPTIONS (path '%s').",
						 quote_identifier(table->name), HX_PATH_KEY)));
	prepare_output(key, desc, key->id, &key->id_out);
	prepare_output(key, desc, key->natural_key, &key->natural_key_out);
	return key;
}

/* The record that a row, as it was, is; by its id, else by its natural key. */
void
hx_table_find_key(HxTableKey *key, const Datum *values, const bool *nulls, HxRecordKey *found)
{
	memset(found, 0, sizeof(HxRecordKey));
	if (key->id >= 0 && !nulls[key->id])
		found->remote_id = OutputFunctionCall(&key->id_out, values[key->id]);
	else if (key->natural_key >= 0 && !nulls[key->natural_key])
		found->natural_key = OutputFunctionCall(&key->natural_key_out, values[key->natural_key]);
	else
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a row of foreign table \"%s\" does not say which record it is", key->table->name),
				 errdetail("The columns that could are null.")));
}
