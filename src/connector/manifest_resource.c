/*-------------------------------------------------------------------------
 *
 * manifest_resource.c
 *	  What a resource of a manifest must be beyond the grammar.
 *
 * The parts of a resource name one another: a column its filters, an order
 * its column, a path the column of the parent's id.  A name that leads nowhere
 * would only be found when a query needs it, and a filter that the remote API
 * does not know is ignored there and returns everything; so all of them are
 * looked up when the manifest is written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "connector/connector.h"
#include "connector/manifest.h"
#include "connector/resource.h"

/* A resource that is checked, and its names in the order in which they stand. */
typedef struct Checked
{
	const char *name;
	char	   *path;			/* in the manifest */
	Jsonb	   *described;
	Jsonb	   *filters;
	List	   *columns;		/* of Jsonb * */
	List	   *column_names;	/* of char * */
} Checked;

/* What all resources of a manifest have together. */
typedef struct Tables
{
	const Jsonb *manifest;
	List	   *names;			/* of char *: schema and table, as one text */
} Tables;

static char *
below(const Checked *checked, const char *path)
{
	return psprintf("%s.%s", checked->path, path);
}

static bool
has_text(List *texts, const char *text)
{
	ListCell   *cell;

	foreach(cell, texts)
		if (strcmp(lfirst(cell), text) == 0)
			return true;
	return false;
}

static bool
has_column(const Checked *checked, const char *name)
{
	return has_text(checked->column_names, name);
}

/* The type the manifest gives a filter, or NULL; the name may be anything. */
static char *
filter_type(const Checked *checked, const char *name)
{
	return strchr(name, '.') ? NULL : hx_json_text(checked->filters, name);
}

static void
require_filter(const Checked *checked, const char *path, const char *name)
{
	if (filter_type(checked, name) == NULL)
		hx_manifest_refuse(path, psprintf("\"%s\" is not in \"filters\"", name), NULL);
}

static void
require_column(const Checked *checked, const char *path, const char *name)
{
	if (!has_column(checked, name))
		hx_manifest_refuse(path, psprintf("\"%s\" is not a column", name), NULL);
}

/*
 * What an operation needs beyond the grammar: a creation the place of the id
 * in its answer, any other a way to name the record it is about; a form its
 * file's part.  A call of its own for many has a body that can hold many.
 */
static void
check_operation(const char *name, const JsonbValue *value, void *arg)
{
	Checked    *checked = arg;
	Jsonb	   *operation = hx_json_value_part(value);
	char	   *path = below(checked, psprintf("operations.%s", name));
	char	   *call = hx_json_text(operation, "path");
	char	   *body = hx_json_text(operation, "body");
	bool		creates = strcmp(name, "create") == 0;

	if (strcmp(name, "call") == 0 || strchr(name, '.') != NULL)
		hx_manifest_refuse(path, "cannot be the name of an operation", NULL);
	if (creates && hx_json_text(operation, "id") == NULL)
		hx_manifest_refuse(psprintf("%s.id", path), "missing", NULL);
	if (!creates && call == NULL)
		hx_manifest_refuse(psprintf("%s.path", path), "missing", NULL);
	if (!creates && strstr(call, "{id}") == NULL && hx_json_text(operation, "id_field") == NULL)
		hx_manifest_refuse(path, "does not name the record",
						   "Put {id} into the path, or name the body's member in id_field.");
	if (body != NULL && strcmp(body, "form") == 0 && hx_json_text(operation, "file") == NULL)
		hx_manifest_refuse(psprintf("%s.file", path), "missing", NULL);
	if (hx_json_part(operation, "batch") != NULL &&
		(creates || hx_json_text(operation, "id_field") == NULL || hx_json_int(operation, "batch.most", 0) < 1))
		hx_manifest_refuse(psprintf("%s.batch", path), "needs id_field, and most of at least 1", NULL);
}

static void
check_column_filter(const Checked *checked, const char *path, const Jsonb *filter, const char *type, bool of_filter)
{
	static const char *const names[] = {"equal", "from", "till", "present"};
	int			given = 0;

	for (int i = 0; i < lengthof(names); i++)
	{
		char	   *name = hx_json_text(filter, names[i]);

		if (name == NULL)
			continue;
		given++;
		require_filter(checked, psprintf("%s.%s", path, names[i]), name);
		if (strcmp(names[i], "present") == 0 && strcmp(filter_type(checked, name), "boolean") != 0)
			hx_manifest_refuse(psprintf("%s.present", path), psprintf("\"%s\" is not a boolean filter", name), NULL);
	}
	if (given == 0)
		hx_manifest_refuse(path, "names no filter", "It is equal, from, till or present.");
	if (hx_json_text(filter, "equal") == NULL && (hx_json_bool(filter, "several", false) || of_filter))
		hx_manifest_refuse(psprintf("%s.equal", path), "missing", NULL);
	if (strcmp(type, "jsonb") == 0)
		hx_manifest_refuse(path, "cannot be that of a jsonb column", NULL);
}

static void
check_column(Checked *checked, int number, const Jsonb *column)
{
	static const char *const places[] = {HX_PATH_KEY, HX_PATH_RECORD, HX_PATH_VALUE, HX_PATH_PARENT, HX_PATH_FILTER};
	char	   *path = below(checked, psprintf("columns[%d]", number));
	char	   *name = hx_json_text(column, "name");
	char	   *place = hx_json_text(column, "path");
	char	   *type = hx_json_text(column, "type");
	Jsonb	   *filter = hx_json_part(column, "filter");
	bool		known = place[0] != '@';

	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		hx_manifest_refuse(psprintf("%s.name", path), "cannot be the name of a column", NULL);
	if (has_column(checked, name))
		hx_manifest_refuse(psprintf("%s.name", path), psprintf("\"%s\" is there twice", name), NULL);
	for (int i = 0; i < lengthof(places); i++)
		known |= strcmp(place, places[i]) == 0;
	if (!known)
		hx_manifest_refuse(psprintf("%s.path", path), psprintf("\"%s\" is not known", place),
						   "Known there: @key, @record, @value, @parent, @filter, or the names of members joined by dots.");
	if (hx_json_bool(column, "present", false) && strcmp(type, "boolean") != 0)
		hx_manifest_refuse(psprintf("%s.present", path), "is for boolean columns", NULL);
	if (filter != NULL)
		check_column_filter(checked, psprintf("%s.filter", path), filter, type, strcmp(place, HX_PATH_FILTER) == 0);
	else if (strcmp(place, HX_PATH_FILTER) == 0)
		hx_manifest_refuse(psprintf("%s.filter", path), "missing", NULL);
	checked->columns = lappend(checked->columns, unconstify(Jsonb *, column));
	checked->column_names = lappend(checked->column_names, name);
}

/* The names of a list's array are columns, or filters. */
static void
check_names(const Checked *checked, const char *path, bool columns)
{
	int			number = 0;
	ListCell   *cell;

	foreach(cell, hx_json_elements(hx_json_part(checked->described, path)))
	{
		char	   *at = below(checked, psprintf("%s[%d]", path, number++));

		(columns ? require_column : require_filter) (checked, at, hx_json_value_text(lfirst(cell)));
	}
}

static void
check_default(const char *name, const JsonbValue *value, void *arg)
{
	require_filter(arg, below(arg, psprintf("filter_defaults.%s", name)), name);
}

static void
check_alias(const char *name, const JsonbValue *value, void *arg)
{
	require_filter(arg, below(arg, psprintf("filter_aliases.%s", name)), hx_json_value_text(value));
}

static void
check_order(const char *name, const JsonbValue *value, void *arg)
{
	char	   *path = below(arg, psprintf("order_by.%s", name));
	Jsonb	   *order = hx_json_value_part(value);

	require_column(arg, path, name);
	if (hx_json_part(order, "ascending") == NULL && hx_json_part(order, "descending") == NULL)
		hx_manifest_refuse(path, "names no parameter", "It is ascending, descending or both.");
}

/* What changed can be asked for only where the column with the time of that has a lower bound. */
static void
check_modified(const Checked *checked)
{
	char	   *modified = hx_json_text(checked->described, "modified");
	char	   *path = below(checked, "modified");
	int			number = 0;
	ListCell   *cell;

	if (modified == NULL)
		return;
	require_column(checked, path, modified);
	foreach(cell, checked->column_names)
	{
		if (strcmp(lfirst(cell), modified) == 0)
			break;
		number++;
	}
	if (strcmp(hx_json_text(list_nth(checked->columns, number), "type"), "timestamptz") != 0)
		hx_manifest_refuse(path, psprintf("column \"%s\" is no timestamptz", modified), NULL);
	if (hx_json_text(list_nth(checked->columns, number), "filter.from") == NULL)
		hx_manifest_refuse(path, psprintf("column \"%s\" has no filter \"from\"", modified), NULL);
}

/* A list of a parent has the parent's id in its path, as the value of a column. */
static void
check_parent(const Checked *checked)
{
	char	   *parent = hx_json_text(checked->described, "parent");
	char	   *path = hx_json_text(checked->described, "path");
	char	   *brace = strchr(path, '{');
	int			number = 0;
	ListCell   *cell;

	if (parent != NULL)
	{
		char	   *mark = psprintf("{%s}", parent);

		require_column(checked, below(checked, "parent"), parent);
		if (brace == NULL || strncmp(brace, mark, strlen(mark)) != 0 || strchr(brace + 1, '{') != NULL)
			hx_manifest_refuse(below(checked, "path"), psprintf("must hold %s, once", mark), NULL);
	}
	else if (brace != NULL)
		hx_manifest_refuse(below(checked, "parent"), "missing",
						   "It is the column whose value stands in the path in braces.");
	foreach(cell, checked->columns)
	{
		bool		is_parent = strcmp(hx_json_text(lfirst(cell), "path"), HX_PATH_PARENT) == 0;
		char	   *name = list_nth(checked->column_names, number);

		if (is_parent != (parent != NULL && strcmp(name, parent) == 0))
			hx_manifest_refuse(below(checked, psprintf("columns[%d].path", number)),
							   is_parent ? "is for the parent's id only" : "must be @parent", NULL);
		number++;
	}
}

static void
check_one(const Checked *checked)
{
	char	   *path = hx_json_text(checked->described, "one.path");

	if (path == NULL)
		return;
	if (strstr(path, "{id}") == NULL)
		hx_manifest_refuse(below(checked, "one.path"), "must hold {id}", NULL);
	if (!has_column(checked, "id"))
		hx_manifest_refuse(below(checked, "one"), "needs a column \"id\"", NULL);
	check_names(checked, "one.lacks", true);
}

/* A table of a schema is of one resource. */
static void
check_table(const Checked *checked, Tables *tables)
{
	HxResource	resource = {.name = checked->name};
	char	   *table;

	hx_resource_read_name(checked->described, &resource);
	if (resource.schema[0] == '\0' || strlen(resource.schema) >= NAMEDATALEN)
		hx_manifest_refuse(below(checked, "schema"), "cannot be the name of a schema", NULL);
	if (resource.table[0] == '\0' || strlen(resource.table) >= NAMEDATALEN)
		hx_manifest_refuse(below(checked, "table"), "cannot be the name of a table", NULL);
	table = psprintf("%s.%s", quote_identifier(resource.schema), quote_identifier(resource.table));
	if (has_text(tables->names, table))
		hx_manifest_refuse(below(checked, "table"), psprintf("another resource is %s", table), NULL);
	tables->names = lappend(tables->names, table);
}

static void
check_resource(const char *name, const JsonbValue *value, void *arg)
{
	Tables	   *tables = arg;
	Checked		checked = {.name = name};
	int			number = 0;
	ListCell   *cell;

	checked.path = psprintf("resources.%s", name);
	checked.described = hx_json_value_part(value);
	checked.filters = hx_json_part(checked.described, "filters");
	if (name[0] == '\0' || strchr(name, '.') != NULL || strlen(name) >= NAMEDATALEN)
		hx_manifest_refuse(checked.path, "cannot be the name of a resource", NULL);
	check_table(&checked, tables);
	foreach(cell, hx_json_elements(hx_json_part(checked.described, "columns")))
		check_column(&checked, number++, hx_json_value_part(lfirst(cell)));
	check_parent(&checked);
	check_one(&checked);
	check_modified(&checked);
	check_names(&checked, "count_ignores", false);
	hx_json_each(hx_json_part(checked.described, "filter_defaults"), check_default, &checked);
	hx_json_each(hx_json_part(checked.described, "filter_aliases"), check_alias, &checked);
	hx_json_each(hx_json_part(checked.described, "order_by"), check_order, &checked);
	hx_json_each(hx_json_part(checked.described, "operations"), check_operation, &checked);
}

/* Checks the resources of a manifest that is right by the grammar. */
void
hx_manifest_check_resources(const Jsonb *manifest)
{
	Tables		tables = {manifest};
	char	   *probe = hx_json_text(manifest, "probe");

	hx_manifest_each_resource(manifest, check_resource, &tables);
	if (probe != NULL && hx_manifest_resource_text(manifest, probe, "path") == NULL)
		hx_manifest_refuse("probe", psprintf("\"%s\" is not a resource", probe), NULL);
}
