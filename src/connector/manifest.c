/*-------------------------------------------------------------------------
 *
 * manifest.c
 *	  What a connector's manifest may hold, and the check of one.
 *
 * A manifest names, by word, mechanisms that C implements once.  The table
 * below is the whole grammar; a manifest that strays from it is refused when
 * it is written, with the path of the mistake and the words that are known
 * there.  So the rest of the code may trust a manifest it has loaded.
 *
 * A path in the table is of member names; '*' stands for a name the author
 * chooses, '[]' for the elements of an array.
 *
 * A manifest of some hundred resources has some ten thousand members, so the
 * table is made a tree once, the manifest is walked where it lies, and the
 * path of a member is put together only when it is refused.  What a resource
 * must be beyond the grammar is in manifest_resource.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "connector/connector.h"
#include "connector/manifest.h"

PG_FUNCTION_INFO_V1(hubex_check_manifest);

typedef enum RuleKind
{
	RULE_OBJECT,
	RULE_ARRAY,
	RULE_TEXT,
	RULE_NUMBER,
	RULE_SHARE,					/* number from 0 to 1 */
	RULE_BOOL,
	RULE_RATE,					/* text that hx_rate_parse takes */
	RULE_FILL,					/* text with {names} of options and credentials */
	RULE_ANY					/* any JSON, with {names} in its strings */
} RuleKind;

typedef struct Rule
{
	const char *path;
	RuleKind	kind;
	bool		required;
	const char *choices;		/* words between blanks, for RULE_TEXT */
} Rule;

static const Rule rules[] = {
	{"connector", RULE_TEXT, true},
	{"version", RULE_NUMBER, true},
	{"title", RULE_TEXT, true},
	{"delivery", RULE_TEXT, true, " exactly_once at_least_once "},
	{"probe", RULE_TEXT},
	{"options", RULE_OBJECT},
	{"options.*", RULE_OBJECT},
	{"options.*.type", RULE_TEXT, true, " text integer boolean "},
	{"options.*.default", RULE_TEXT},
	{"options.*.description", RULE_TEXT},
	{"credentials", RULE_OBJECT},
	{"credentials.*", RULE_OBJECT},
	{"credentials.*.description", RULE_TEXT},
	{"headers", RULE_OBJECT},
	{"headers.*", RULE_FILL},
	{"sign_in", RULE_OBJECT, true},
	{"sign_in.mechanism", RULE_TEXT, true, " none header token_exchange "},
	{"sign_in.method", RULE_TEXT, false, " GET POST "},
	{"sign_in.path", RULE_TEXT},
	{"sign_in.body", RULE_ANY},
	{"sign_in.token", RULE_TEXT},
	{"sign_in.expires_in", RULE_TEXT},
	{"sign_in.life", RULE_NUMBER},
	{"sign_in.renew_before", RULE_NUMBER},
	{"sign_in.header", RULE_TEXT},
	{"sign_in.value", RULE_FILL},
	{"errors", RULE_OBJECT},
	{"errors.code", RULE_TEXT},
	{"errors.message", RULE_TEXT},
	{"errors.trace", RULE_TEXT},
	{"errors.refusal", RULE_TEXT},
	{"retry", RULE_OBJECT, true},
	{"retry.base", RULE_NUMBER, true},
	{"retry.factor", RULE_NUMBER, true},
	{"retry.cap", RULE_NUMBER, true},
	{"retry.jitter", RULE_SHARE},
	{"retry.attempts", RULE_NUMBER, true},
	{"retry.total", RULE_NUMBER},
	{"retry.circuit", RULE_NUMBER},
	{"retry.final", RULE_ARRAY, true},
	{"retry.final.[]", RULE_NUMBER},
	{"limits", RULE_OBJECT},
	{"limits.rate", RULE_RATE},
	{"limits.connections", RULE_NUMBER},
	{"limits.page_size", RULE_NUMBER},
	{"limits.unpaged", RULE_NUMBER},
	{"paging", RULE_OBJECT},
	{"paging.mechanism", RULE_TEXT, true, " range_header "},
	{"paging.unit", RULE_TEXT, true},
	{"paging.first", RULE_NUMBER, true},
	{"resources", RULE_OBJECT, true},
	{"resources.*", RULE_OBJECT},
	{"resources.*.schema", RULE_TEXT},
	{"resources.*.table", RULE_TEXT},
	{"resources.*.path", RULE_TEXT, true},
	{"resources.*.comment", RULE_TEXT},
	{"resources.*.envelope", RULE_TEXT, true, " object_by_id array "},
	{"resources.*.paged", RULE_BOOL},
	{"resources.*.rows", RULE_NUMBER},
	{"resources.*.count", RULE_BOOL},
	{"resources.*.no_content", RULE_BOOL},
	{"resources.*.count_ignores", RULE_ARRAY},
	{"resources.*.count_ignores.[]", RULE_TEXT},
	{"resources.*.one", RULE_OBJECT},
	{"resources.*.one.path", RULE_TEXT, true},
	{"resources.*.one.lacks", RULE_ARRAY},
	{"resources.*.one.lacks.[]", RULE_TEXT},
	{"resources.*.parent", RULE_TEXT},
	{"resources.*.dates", RULE_TEXT, false, " utc "},
	{"resources.*.columns", RULE_ARRAY, true},
	{"resources.*.columns.[]", RULE_OBJECT},
	{"resources.*.columns.[].name", RULE_TEXT, true},
	{"resources.*.columns.[].type", RULE_TEXT, true,
	" bigint integer smallint numeric boolean text date timestamptz uuid jsonb "},
	{"resources.*.columns.[].path", RULE_TEXT, true},
	{"resources.*.columns.[].present", RULE_BOOL},
	{"resources.*.columns.[].comment", RULE_TEXT},
	{"resources.*.columns.[].filter", RULE_OBJECT},
	{"resources.*.columns.[].filter.equal", RULE_TEXT},
	{"resources.*.columns.[].filter.several", RULE_BOOL},
	{"resources.*.columns.[].filter.from", RULE_TEXT},
	{"resources.*.columns.[].filter.till", RULE_TEXT},
	{"resources.*.columns.[].filter.present", RULE_TEXT},
	{"resources.*.columns.[].filter.exact", RULE_BOOL},
	{"resources.*.filters", RULE_OBJECT},
	{"resources.*.filters.*", RULE_TEXT, false, " integer number text boolean timestamp "},
	{"resources.*.filter_aliases", RULE_OBJECT},
	{"resources.*.filter_aliases.*", RULE_TEXT},
	{"resources.*.filter_defaults", RULE_OBJECT},
	{"resources.*.filter_defaults.*", RULE_TEXT},
	{"resources.*.order", RULE_OBJECT},
	{"resources.*.order.*", RULE_TEXT},
	{"resources.*.order_by", RULE_OBJECT},
	{"resources.*.order_by.*", RULE_OBJECT},
	{"resources.*.order_by.*.ascending", RULE_OBJECT},
	{"resources.*.order_by.*.ascending.*", RULE_TEXT},
	{"resources.*.order_by.*.descending", RULE_OBJECT},
	{"resources.*.order_by.*.descending.*", RULE_TEXT},
	{"resources.*.order_by.*.stable", RULE_BOOL},
	{"resources.*.fields", RULE_OBJECT},
	{"resources.*.fields.*", RULE_TEXT},
	{"resources.*.deleted", RULE_TEXT},
	{"resources.*.modified", RULE_TEXT},
	{"resources.*.operations", RULE_OBJECT},
	{"resources.*.operations.*", RULE_OBJECT},
	{"resources.*.operations.*.method", RULE_TEXT, true, " POST PUT PATCH DELETE "},
	{"resources.*.operations.*.path", RULE_TEXT},
	{"resources.*.operations.*.body", RULE_TEXT, false, " object array field_values form none "},
	{"resources.*.operations.*.id_field", RULE_TEXT},
	{"resources.*.operations.*.file", RULE_TEXT},
	{"resources.*.operations.*.file_name", RULE_TEXT},
	{"resources.*.operations.*.fields", RULE_OBJECT},
	{"resources.*.operations.*.fields.*", RULE_TEXT},
	{"resources.*.operations.*.required", RULE_ARRAY},
	{"resources.*.operations.*.required.[]", RULE_TEXT},
	{"resources.*.operations.*.defaults", RULE_OBJECT},
	{"resources.*.operations.*.defaults.*", RULE_ANY},
	{"resources.*.operations.*.pairs", RULE_OBJECT},
	{"resources.*.operations.*.pairs.field", RULE_TEXT, true},
	{"resources.*.operations.*.pairs.name", RULE_TEXT, true},
	{"resources.*.operations.*.pairs.value", RULE_TEXT, true},
	{"resources.*.operations.*.id", RULE_TEXT},
	{"resources.*.operations.*.number", RULE_TEXT},
	{"resources.*.operations.*.created", RULE_TEXT},
	{"resources.*.operations.*.refusal", RULE_TEXT},
	{"resources.*.operations.*.idempotency_header", RULE_TEXT},
	{"resources.*.operations.*.conflict", RULE_NUMBER},
	{"resources.*.operations.*.natural_key", RULE_TEXT},
	{"resources.*.operations.*.natural_key_filter", RULE_TEXT},
	{"resources.*.operations.*.repeat", RULE_TEXT, false, " safe "},
	{"resources.*.operations.*.merge", RULE_BOOL},
	{"resources.*.operations.*.gone", RULE_ARRAY},
	{"resources.*.operations.*.gone.[]", RULE_NUMBER},
	{"resources.*.operations.*.batch", RULE_OBJECT},
	{"resources.*.operations.*.batch.path", RULE_TEXT, true},
	{"resources.*.operations.*.batch.most", RULE_NUMBER, true},
	{"resources.*.operations.*.batch.succeeded", RULE_TEXT},
	{"resources.*.operations.*.batch.problem", RULE_TEXT},
	{"resources.*.operations.*.verify", RULE_OBJECT},
	{"resources.*.operations.*.verify.path", RULE_TEXT, true},
	{"resources.*.operations.*.verify.filter", RULE_TEXT},
	{"resources.*.operations.*.verify.equal", RULE_OBJECT},
	{"resources.*.operations.*.verify.equal.*", RULE_TEXT},
	{"resources.*.operations.*.verify.present", RULE_ARRAY},
	{"resources.*.operations.*.verify.present.[]", RULE_TEXT},
	{"resources.*.operations.*.verify.present_if", RULE_OBJECT},
	{"resources.*.operations.*.verify.present_if.*", RULE_TEXT},
	{"resources.*.operations.*.verify.md5", RULE_TEXT},
	{"resources.*.operations.*.verify.size", RULE_TEXT},
	{"resources.*.operations.*.verify.id", RULE_TEXT},
	{"resources.*.operations.*.verify.created", RULE_TEXT},
};

/* The table as a tree: the first rule below one, and the next of the same parent; -1: none. */
#define RULES	lengthof(rules)
#define TOP		((int) RULES)

static int	first_below[RULES + 1];
static int	next_beside[RULES];
static bool tree_made = false;

/* Where a value stands: the way up to the top. */
typedef struct Place
{
	const struct Place *above;
	const char *name;			/* of a member; NULL: an element */
	int			len;
	int			element;
} Place;

static void check_value(const Jsonb *manifest, int rule, const Place *place, const JsonbValue *value);

/* Refuses the manifest for what stands at a path. */
void
hx_manifest_refuse(const char *path, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid connector manifest"),
			 errdetail("At \"%s\": %s.", *path ? path : "the top", problem),
			 hint ? errhint("%s", hint) : 0));
}

static char *
place_text(const Place *place)
{
	char	   *above;

	if (place == NULL)
		return pstrdup("");
	above = place_text(place->above);
	if (place->name == NULL)
		return psprintf("%s[%d]", above, place->element);
	return psprintf("%s%s%.*s", above, *above ? "." : "", place->len, place->name);
}

static void
refuse(const Place *place, const char *problem, const char *hint)
{
	hx_manifest_refuse(place_text(place), problem, hint);
}

/* The last name of a rule's path. */
static const char *
rule_name(int rule)
{
	const char *dot = strrchr(rules[rule].path, '.');

	return dot ? dot + 1 : rules[rule].path;
}

/* A rule's parent stands before it in the table. */
static int
parent_of(int rule)
{
	const char *path = rules[rule].path;
	const char *dot = strrchr(path, '.');

	if (dot == NULL)
		return TOP;
	for (int i = rule - 1; i >= 0; i--)
		if (strncmp(rules[i].path, path, dot - path) == 0 && rules[i].path[dot - path] == '\0')
			return i;
	elog(ERROR, "no rule above \"%s\"", path);
	return TOP;
}

static void
make_tree(void)
{
	if (tree_made)
		return;
	for (int i = 0; i <= TOP; i++)
		first_below[i] = -1;
	for (int i = TOP - 1; i >= 0; i--)
	{
		int			parent = parent_of(i);

		next_beside[i] = first_below[parent];
		first_below[parent] = i;
	}
	tree_made = true;
}

/* The rule for a member, by its name or by '*'; -1: none. */
static int
find_rule(int parent, const char *name, int len)
{
	int			any = -1;

	for (int i = first_below[parent]; i >= 0; i = next_beside[i])
	{
		const char *its_name = rule_name(i);

		if (strlen(its_name) == len && strncmp(its_name, name, len) == 0)
			return i;
		if (strcmp(its_name, "*") == 0)
			any = i;
	}
	return any;
}

/* The names directly below a rule, for a hint. */
static char *
names_below(int parent)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = first_below[parent]; i >= 0; i = next_beside[i])
		appendStringInfo(&names, "%s%s", names.len ? ", " : "", rule_name(i));
	return psprintf("Known there: %s.", names.data);
}

static const JsonbContainer *
container_of(const JsonbValue *value)
{
	return value->type == jbvBinary ? value->val.binary.data : NULL;
}

/* Checks an object: members known, none missing. */
static void
check_object(const Jsonb *manifest, int parent, const Place *place, const JsonbContainer *object)
{
	JsonbIterator *it = JsonbIteratorInit(unconstify(JsonbContainer *, object));
	JsonbIteratorToken token;
	JsonbValue	value;
	Place		member = {place};
	int			rule = -1;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			member.name = value.val.string.val;
			member.len = value.val.string.len;
			rule = find_rule(parent, member.name, member.len);
			if (rule < 0)
				refuse(&member, "unknown member", names_below(parent));
		}
		else if (token == WJB_VALUE)
			check_value(manifest, rule, &member, &value);
	}
	for (int i = first_below[parent]; i >= 0; i = next_beside[i])
	{
		member.name = rule_name(i);
		member.len = strlen(member.name);
		if (rules[i].required && getKeyJsonValueFromContainer(unconstify(JsonbContainer *, object), member.name,
															  member.len, &value) == NULL)
			refuse(&member, "missing", NULL);
	}
}

static void
check_array(const Jsonb *manifest, int parent, const Place *place, const JsonbContainer *array)
{
	JsonbIterator *it = JsonbIteratorInit(unconstify(JsonbContainer *, array));
	JsonbIteratorToken token;
	JsonbValue	value;
	Place		element = {place};

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		check_value(manifest, first_below[parent], &element, &value);
		element.element++;
	}
}

typedef struct Fill
{
	const Jsonb *manifest;
	const char *path;
} Fill;

/* Resolves a {name} of a manifest only to see whether it is declared. */
static JsonbValue *
declared_name(const char *name, bool alone, void *arg)
{
	Fill	   *fill = arg;

	if (strncmp(fill->path, "sign_in.", 8) == 0 && strcmp(name, "token") == 0)
		return NULL;
	for (int i = 0; i < 2; i++)
	{
		Jsonb	   *declared = hx_json_part(fill->manifest, i == 0 ? "options" : "credentials");
		ListCell   *cell;

		foreach(cell, hx_json_names(declared))
			if (strcmp(lfirst(cell), name) == 0)
				return NULL;
	}
	hx_manifest_refuse(fill->path, psprintf("{%s} is neither an option nor a credential", name), NULL);
	return NULL;
}

/* Is it one of the words between blanks? */
static bool
is_choice(const char *choices, const JsonbValue *value)
{
	int			len = value->val.string.len;

	for (const char *word = choices + 1; *word; word = strchr(word, ' ') + 1)
		if (strncmp(word, value->val.string.val, len) == 0 && word[len] == ' ')
			return len > 0;
	return false;
}

static void
check_text(const Jsonb *manifest, const Rule *rule, const Place *place, const JsonbValue *value)
{
	HxRate		rate;

	if (value->type != jbvString)
		refuse(place, "must be a text", NULL);
	if (rule->choices != NULL && !is_choice(rule->choices, value))
		refuse(place, psprintf("\"%s\" is not known", hx_json_value_text(value)),
			   psprintf("Known there:%s.", pnstrdup(rule->choices, strlen(rule->choices) - 1)));
	if (rule->kind == RULE_RATE && !hx_rate_parse(hx_json_value_text(value), &rate))
		refuse(place, "is not a rate", "A rate is like 60/min, 10/s, 2/s burst 50 or none.");
	if (rule->kind == RULE_FILL)
	{
		Fill		fill = {manifest, place_text(place)};

		(void) hx_json_expand_text(hx_json_value_text(value), declared_name, &fill);
	}
}

static void
check_value(const Jsonb *manifest, int number, const Place *place, const JsonbValue *value)
{
	const Rule *rule = &rules[number];
	const JsonbContainer *container = container_of(value);

	switch (rule->kind)
	{
		case RULE_OBJECT:
			if (container == NULL || !JsonContainerIsObject(container))
				refuse(place, "must be an object", NULL);
			check_object(manifest, number, place, container);
			break;
		case RULE_ARRAY:
			if (container == NULL || !JsonContainerIsArray(container))
				refuse(place, "must be an array", NULL);
			check_array(manifest, number, place, container);
			break;
		case RULE_NUMBER:
			if (value->type != jbvNumeric)
				refuse(place, "must be a number", NULL);
			break;
		case RULE_SHARE:
			if (value->type != jbvNumeric)
				refuse(place, "must be a number", NULL);
			if (strspn(hx_json_value_text(value), "0123456789.") != strlen(hx_json_value_text(value)) ||
				strtod(hx_json_value_text(value), NULL) > 1)
				refuse(place, "must be from 0 to 1", NULL);
			break;
		case RULE_BOOL:
			if (value->type != jbvBool)
				refuse(place, "must be true or false", NULL);
			break;
		case RULE_ANY:
			if (container != NULL)
			{
				Fill		fill = {manifest, place_text(place)};

				(void) hx_json_expand(hx_json_value_part(value), declared_name, &fill);
			}
			break;
		case RULE_TEXT:
		case RULE_RATE:
		case RULE_FILL:
			check_text(manifest, rule, place, value);
			break;
	}
}

/*
 * hubex.check_manifest(jsonb): true for a valid manifest, else ERROR 22023
 * with the path of the mistake in its DETAIL.
 */
Datum
hubex_check_manifest(PG_FUNCTION_ARGS)
{
	Jsonb	   *manifest = PG_GETARG_JSONB_P(0);
	char	   *mechanism;

	if (!JB_ROOT_IS_OBJECT(manifest))
		hx_manifest_refuse("", "must be an object", NULL);
	make_tree();
	check_object(manifest, TOP, NULL, &manifest->root);

	/* What a sign-in mechanism needs. */
	mechanism = hx_json_text(manifest, "sign_in.mechanism");
	if (strcmp(mechanism, "none") != 0)
	{
		static const char *const needed[] = {"header", "value", "path", "token"};
		int			n = strcmp(mechanism, "header") == 0 ? 2 : lengthof(needed);

		for (int i = 0; i < n; i++)
			if (hx_json_text(manifest, psprintf("sign_in.%s", needed[i])) == NULL)
				hx_manifest_refuse(psprintf("sign_in.%s", needed[i]), "missing", NULL);
	}
	hx_manifest_check_resources(manifest);
	PG_RETURN_BOOL(true);
}

/* An object within a manifest; its members point into the manifest.  False: it is not there. */
static bool
find_object(const Jsonb *manifest, const char *path, JsonbValue *found)
{
	return hx_json_find(manifest, path, found) && found->type == jbvBinary &&
		JsonContainerIsObject(found->val.binary.data);
}

typedef struct Resemblance
{
	const char *name;
	StringInfo	names;			/* of all, as long as these are few */
	int			count;
	int			distance;
	char	   *nearest;
} Resemblance;

/* So many resources' names are listed; of more, the nearest only. */
#define NAMES_LISTED	20

static void
see_resource(const char *name, const JsonbValue *value, void *arg)
{
	Resemblance *seen = arg;
	int			most = Max((int) strlen(seen->name) / 2, 1);
	int			distance;

	if (++seen->count <= NAMES_LISTED)
		appendStringInfo(seen->names, "%s%s", seen->names->len ? ", " : "", name);
	if (strlen(seen->name) >= NAMEDATALEN || strlen(name) >= NAMEDATALEN)
		return;
	distance = varstr_levenshtein_less_equal(seen->name, strlen(seen->name), name, strlen(name), 1, 1, 1, most, true);
	if (distance <= most && (seen->nearest == NULL || distance < seen->distance))
	{
		seen->distance = distance;
		seen->nearest = pstrdup(name);
	}
}

/* A hint for who named a resource that there is none of. */
static char *
resources_hint(const Jsonb *manifest, const char *name)
{
	StringInfoData names;
	Resemblance seen = {.name = name,.names = &names};

	initStringInfo(&names);
	hx_manifest_each_resource(manifest, see_resource, &seen);
	if (seen.count <= NAMES_LISTED)
		return psprintf("Its resources are: %s.", names.data);
	if (seen.nearest != NULL)
		return psprintf("Perhaps you meant \"%s\". It has %d resources, which IMPORT FOREIGN SCHEMA \"*\" makes tables of.",
						seen.nearest, seen.count);
	return psprintf("It has %d resources, which IMPORT FOREIGN SCHEMA \"*\" makes tables of.", seen.count);
}

/* Calls fn for each resource, in the order of jsonb; nothing is copied. */
void
hx_manifest_each_resource(const Jsonb *manifest, HxJsonVisit fn, void *arg)
{
	JsonbValue	resources;

	if (find_object(manifest, "resources", &resources))
		hx_json_each_of(resources.val.binary.data, fn, arg);
}

/* The part of a manifest that describes a resource; an unknown one is an error. */
Jsonb *
hx_manifest_resource(const Jsonb *manifest, const char *connector, const char *resource)
{
	Jsonb	   *found = strchr(resource, '.') ? NULL : hx_json_part(manifest, psprintf("resources.%s", resource));

	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
				 errmsg("connector \"%s\" has no resource \"%s\"", connector, resource),
				 errhint("%s", resources_hint(manifest, resource))));
	return found;
}

/* The text at a path below a resource, or NULL; the resource's name may be anything. */
char *
hx_manifest_resource_text(const Jsonb *manifest, const char *resource, const char *path)
{
	if (strchr(resource, '.') != NULL)
		return NULL;
	return hx_json_text(manifest, psprintf("resources.%s.%s", resource, path));
}

/* The part that describes an operation of a resource, or NULL; the names may be anything. */
Jsonb *
hx_manifest_operation(const Jsonb *manifest, const char *resource, const char *operation)
{
	if (resource == NULL || operation == NULL || strchr(resource, '.') != NULL || strchr(operation, '.') != NULL)
		return NULL;
	return hx_json_part(manifest, psprintf("resources.%s.operations.%s", resource, operation));
}
