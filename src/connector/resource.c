/*-------------------------------------------------------------------------
 *
 * resource.c
 *	  Reads the description of a resource from a connector's manifest.
 *
 * The manifest was checked when it was written (manifest.c), so nothing here
 * doubts its form.  What it says of a column's filter is a promise about the
 * remote API: that an equality means there what SQL means by it, or at least
 * never gives too little.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "connector/resource.h"

#define ASSUMED_ROWS	1000

static void
add_pair(const char *name, const JsonbValue *value, void *arg)
{
	List	  **pairs = arg;

	*pairs = lappend(*pairs, hx_http_pair(pstrdup(name), hx_json_value_text(value)));
}

/* The members of an object as pairs, in its order. */
static List *
pairs_of(const Jsonb *object)
{
	List	   *pairs = NIL;

	hx_json_each(object, add_pair, &pairs);
	return pairs;
}

static void
read_column(HxColumn *column, const Jsonb *described)
{
	column->name = hx_json_text(described, "name");
	column->type = hx_json_text(described, "type");
	column->path = hx_json_text(described, "path");
	column->present = hx_json_bool(described, "present", false);
	column->comment = hx_json_text(described, "comment");
	column->filter.equal = hx_json_text(described, "filter.equal");
	column->filter.several = hx_json_bool(described, "filter.several", false);
	column->filter.from = hx_json_text(described, "filter.from");
	column->filter.till = hx_json_text(described, "filter.till");
	column->filter.present = hx_json_text(described, "filter.present");
	column->filter.exact = hx_json_bool(described, "filter.exact", false);
}

static void
add_order(const char *name, const JsonbValue *value, void *arg)
{
	List	  **orders = arg;
	HxColumnOrder *order = palloc0(sizeof(HxColumnOrder));
	Jsonb	   *described = hx_json_value_part(value);

	order->column = pstrdup(name);
	order->ascending = pairs_of(hx_json_part(described, "ascending"));
	order->descending = pairs_of(hx_json_part(described, "descending"));
	order->stable = hx_json_bool(described, "stable", false);
	*orders = lappend(*orders, order);
}

static void
add_text(List **texts, const Jsonb *array)
{
	ListCell   *cell;

	foreach(cell, hx_json_elements(array))
		*texts = lappend(*texts, hx_json_value_text(lfirst(cell)));
}

/* The first part of a path: WORK of /WORK/Tasks. */
static char *
service_of(const char *path)
{
	const char *begin = path + (*path == '/');

	return pnstrdup(begin, strcspn(begin, "/"));
}

/* Reads where a resource stands, remotely and as a table; its name is there. */
void
hx_resource_read_name(const Jsonb *described, HxResource *resource)
{
	resource->path = hx_json_text(described, "path");
	resource->schema = hx_json_text(described, "schema");
	if (resource->schema == NULL)
		resource->schema = service_of(resource->path);
	resource->table = hx_json_text(described, "table");
	if (resource->table == NULL)
		resource->table = resource->name;
}

/*
 * Reads a resource, palloc'd here; an unknown name is an error (HV00R) that
 * lists those there are.
 */
HxResource *
hx_resource_read(const Jsonb *manifest, const char *connector, const char *name)
{
	HxResource *resource = palloc0(sizeof(HxResource));
	Jsonb	   *described = hx_manifest_resource(manifest, connector, name);
	List	   *columns = hx_json_elements(hx_json_part(described, "columns"));
	char	   *dates = hx_json_text(described, "dates");
	ListCell   *cell;

	resource->described = described;
	resource->name = pstrdup(name);
	hx_resource_read_name(described, resource);
	resource->comment = hx_json_text(described, "comment");
	resource->by_key = strcmp(hx_json_text(described, "envelope"), "object_by_id") == 0;
	resource->paged = hx_json_bool(described, "paged", true);
	resource->no_content = hx_json_bool(described, "no_content", false);
	resource->countable = hx_json_bool(described, "count", false);
	add_text(&resource->count_ignores, hx_json_part(described, "count_ignores"));
	resource->one = hx_json_text(described, "one.path");
	add_text(&resource->one_lacks, hx_json_part(described, "one.lacks"));
	resource->parent = hx_json_text(described, "parent");
	resource->deleted = hx_json_text(described, "deleted");
	resource->modified = hx_json_text(described, "modified");
	resource->drops_deleted = resource->deleted != NULL && hx_json_part(described, "filter_defaults") == NULL;
	resource->utc = dates != NULL && strcmp(dates, "utc") == 0;
	resource->rows = hx_json_double(described, "rows", ASSUMED_ROWS);
	resource->order = pairs_of(hx_json_part(described, "order"));

	resource->columns = palloc0(sizeof(HxColumn) * Max(list_length(columns), 1));
	foreach(cell, columns)
		read_column(&resource->columns[resource->ncolumns++], hx_json_value_part(lfirst(cell)));
	hx_json_each(hx_json_part(described, "order_by"), add_order, &resource->orders);
	return resource;
}

/* The column of a name, or NULL. */
HxColumn *
hx_resource_column(const HxResource *resource, const char *name)
{
	for (int i = 0; i < resource->ncolumns; i++)
		if (strcmp(resource->columns[i].name, name) == 0)
			return &resource->columns[i];
	return NULL;
}

typedef struct FilterArg
{
	const HxResource *resource;
	const char *connector;
	Jsonb	   *filters;
	Jsonb	   *aliases;
	Jsonb	   *defaults;
	List	   *query;			/* of HxPair * */
	List	   *seen;			/* of char * */
	int			taken;			/* so many of these another filter has named */
} FilterArg;

static void
refuse_filter(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for filter \"%s\"", name),
			 errdetail("%s", detail)));
}

/* Adds one value of a filter, checked by the type the manifest gives it. */
static void
add_filter_value(FilterArg *arg, const char *name, const char *type, const JsonbValue *value)
{
	char	   *text = hx_json_value_text(value);

	if (text == NULL)
		refuse_filter(name, "The remote API cannot filter for null.");
	if (value->type == jbvBinary)
		refuse_filter(name, "It takes a value or an array of values.");

	/*
	 * The remote API takes a boolean of the wrong form as no filter at all,
	 * and a number of the wrong form as an error.
	 */
	if (strcmp(type, "boolean") == 0 && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		refuse_filter(name, "It takes true or false.");
	if (strcmp(type, "integer") == 0 && strspn(text, "-0123456789") != strlen(text))
		refuse_filter(name, "It takes a whole number.");
	arg->query = lappend(arg->query, hx_http_pair(name, text));
}

/*
 * Adds one filter.  An unknown name is an error here because it is none
 * there: the API ignores it and returns everything.
 */
static void
add_filter(const char *given_name, const JsonbValue *value, void *argument)
{
	FilterArg  *arg = argument;
	char	   *alias = strchr(given_name, '.') ? NULL : hx_json_text(arg->aliases, given_name);
	const char *name = alias ? alias : pstrdup(given_name);
	char	   *type = strchr(name, '.') ? NULL : hx_json_text(arg->filters, name);

	if (type == NULL)
	{
		StringInfoData names;
		ListCell   *cell;

		initStringInfo(&names);
		foreach(cell, hx_json_names(arg->filters))
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", (char *) lfirst(cell));
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
				 errmsg("resource \"%s\" of connector \"%s\" has no filter \"%s\"",
						arg->resource->name, arg->connector, given_name),
				 errhint("Its filters are: %s.", names.data)));
	}
	for (int i = 0; i < arg->taken; i++)
		if (strcmp(list_nth(arg->seen, i), name) == 0)
			refuse_filter(given_name, "The foreign table's own filter names it already.");
	arg->seen = lappend(arg->seen, pstrdup(name));

	/* Null takes back what the manifest would filter for by itself. */
	if (value->type == jbvNull && hx_json_text(arg->defaults, name) != NULL)
		return;

	if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data))
	{
		ListCell   *cell;

		if (JsonContainerSize(value->val.binary.data) == 0)
			refuse_filter(given_name, "An empty array would filter nothing.");
		if (JsonContainerSize(value->val.binary.data) > 1 && strcmp(type, "integer") != 0)
			refuse_filter(given_name, "The remote API takes several values for ids only.");
		foreach(cell, hx_json_elements(hx_json_value_part(value)))
			add_filter_value(arg, name, type, lfirst(cell));
	}
	else
		add_filter_value(arg, name, type, value);
}

static void
add_filter_default(const char *name, const JsonbValue *value, void *argument)
{
	FilterArg  *arg = argument;
	ListCell   *cell;

	foreach(cell, arg->seen)
		if (strcmp(lfirst(cell), name) == 0)
			return;
	arg->query = lappend(arg->query, hx_http_pair(pstrdup(name), hx_json_value_text(value)));
}

/*
 * The query parameters (a List of HxPair *) of a filter: an object of the
 * manifest's filter names, or NULL; and of a further one that narrows it, which
 * names none of the same.  Unless deleted records are wanted, what the manifest
 * leaves out by itself is added.
 * Errors: ERROR HV007 for an unknown filter, 22023 for a bad value.
 */
List *
hx_resource_filter(const HxResource *resource, const char *connector, const Jsonb *filter, const Jsonb *further,
				   bool include_deleted)
{
	FilterArg	arg = {.resource = resource,.connector = connector};

	if ((filter != NULL && !JB_ROOT_IS_OBJECT(filter)) || (further != NULL && !JB_ROOT_IS_OBJECT(further)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a filter must be a JSON object"),
				 errhint("Like {\"taskTypeID\": 3, \"isClosed\": false}.")));
	arg.filters = hx_json_part(resource->described, "filters");
	arg.aliases = hx_json_part(resource->described, "filter_aliases");
	arg.defaults = hx_json_part(resource->described, "filter_defaults");
	hx_json_each(filter, add_filter, &arg);
	arg.taken = list_length(arg.seen);
	hx_json_each(further, add_filter, &arg);
	if (!include_deleted || resource->deleted == NULL)
		hx_json_each(arg.defaults, add_filter_default, &arg);
	return arg.query;
}
