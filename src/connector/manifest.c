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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "connector/connector.h"

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
	{"paging", RULE_OBJECT},
	{"paging.mechanism", RULE_TEXT, true, " range_header "},
	{"paging.unit", RULE_TEXT, true},
	{"paging.first", RULE_NUMBER, true},
	{"resources", RULE_OBJECT, true},
	{"resources.*", RULE_OBJECT},
	{"resources.*.path", RULE_TEXT, true},
	{"resources.*.envelope", RULE_TEXT, true, " object_by_id array "},
	{"resources.*.dates", RULE_TEXT, false, " utc "},
	{"resources.*.columns", RULE_ARRAY, true},
	{"resources.*.columns.[]", RULE_OBJECT},
	{"resources.*.columns.[].name", RULE_TEXT, true},
	{"resources.*.columns.[].type", RULE_TEXT, true,
	" bigint integer smallint numeric boolean text date timestamptz uuid jsonb "},
	{"resources.*.columns.[].path", RULE_TEXT, true},
	{"resources.*.filters", RULE_OBJECT},
	{"resources.*.filters.*", RULE_TEXT, false, " integer text boolean timestamp "},
	{"resources.*.filter_aliases", RULE_OBJECT},
	{"resources.*.filter_aliases.*", RULE_TEXT},
	{"resources.*.filter_defaults", RULE_OBJECT},
	{"resources.*.filter_defaults.*", RULE_TEXT},
	{"resources.*.order", RULE_OBJECT},
	{"resources.*.order.*", RULE_TEXT},
	{"resources.*.fields", RULE_OBJECT},
	{"resources.*.fields.*", RULE_TEXT},
	{"resources.*.deleted", RULE_TEXT},
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

typedef struct Check
{
	const Jsonb *manifest;
	const char *pattern;		/* of the object or array at hand */
	const char *path;
} Check;

static void check_value(const Jsonb *manifest, const Rule *rule, const char *path, const JsonbValue *value);

/* Refuses the manifest for what stands at a path. */
static void
refuse(const char *path, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid connector manifest"),
			 errdetail("At \"%s\": %s.", *path ? path : "the top", problem),
			 hint ? errhint("%s", hint) : 0));
}

/* The rules' names directly below a pattern, for a hint. */
static char *
names_below(const char *pattern)
{
	StringInfoData names;
	size_t		len = strlen(pattern);

	initStringInfo(&names);
	for (int i = 0; i < lengthof(rules); i++)
	{
		const char *rest = rules[i].path;

		if (len > 0)
		{
			if (strncmp(rest, pattern, len) != 0 || rest[len] != '.')
				continue;
			rest += len + 1;
		}
		if (strchr(rest, '.') == NULL)
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", rest);
	}
	return psprintf("Known there: %s.", names.data);
}

static char *
join_path(const char *parent, const char *name)
{
	return *parent ? psprintf("%s.%s", parent, name) : pstrdup(name);
}

static const Rule *
find_rule(const char *parent, const char *name)
{
	char	   *path = join_path(parent, name);

	for (int i = 0; i < lengthof(rules); i++)
		if (strcmp(rules[i].path, path) == 0)
			return &rules[i];
	return NULL;
}

static void
check_member(const char *name, const JsonbValue *value, void *arg)
{
	Check	   *at = arg;
	const Rule *rule = find_rule(at->pattern, name);

	if (rule == NULL)
		rule = find_rule(at->pattern, "*");
	if (rule == NULL)
		refuse(join_path(at->path, name), "unknown member", names_below(at->pattern));
	check_value(at->manifest, rule, join_path(at->path, name), value);
}

/* Checks an object: members known, none missing. */
static void
check_object(const Jsonb *manifest, const char *pattern, const char *path, const Jsonb *object)
{
	Check		at = {manifest, pattern, path};
	size_t		len = strlen(pattern);

	hx_json_each(object, check_member, &at);
	for (int i = 0; i < lengthof(rules); i++)
	{
		const char *name = rules[i].path;
		JsonbValue	found;

		if (!rules[i].required)
			continue;
		if (len > 0)
		{
			if (strncmp(name, pattern, len) != 0 || name[len] != '.')
				continue;
			name += len + 1;
		}
		if (strchr(name, '.') == NULL && !hx_json_find(object, name, &found))
			refuse(join_path(path, name), "missing", NULL);
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
	refuse(fill->path, psprintf("{%s} is neither an option nor a credential", name), NULL);
	return NULL;
}

static void
check_value(const Jsonb *manifest, const Rule *rule, const char *path, const JsonbValue *value)
{
	Jsonb	   *part = hx_json_value_part(value);
	Fill		fill = {manifest, path};
	HxRate		rate;

	switch (rule->kind)
	{
		case RULE_OBJECT:
			if (!JB_ROOT_IS_OBJECT(part))
				refuse(path, "must be an object", NULL);
			check_object(manifest, rule->path, path, part);
			break;
		case RULE_ARRAY:
			{
				const Rule *element = find_rule(rule->path, "[]");
				ListCell   *cell;
				int			n = 0;

				if (!JB_ROOT_IS_ARRAY(part) || JB_ROOT_IS_SCALAR(part))
					refuse(path, "must be an array", NULL);
				foreach(cell, hx_json_elements(part))
					check_value(manifest, element, psprintf("%s[%d]", path, n++), lfirst(cell));
			}
			break;
		case RULE_NUMBER:
			if (value->type != jbvNumeric)
				refuse(path, "must be a number", NULL);
			break;
		case RULE_SHARE:
			if (value->type != jbvNumeric)
				refuse(path, "must be a number", NULL);
			if (strspn(hx_json_value_text(value), "0123456789.") != strlen(hx_json_value_text(value)) ||
				strtod(hx_json_value_text(value), NULL) > 1)
				refuse(path, "must be from 0 to 1", NULL);
			break;
		case RULE_BOOL:
			if (value->type != jbvBool)
				refuse(path, "must be true or false", NULL);
			break;
		case RULE_ANY:
			if (value->type == jbvBinary)
				(void) hx_json_expand(part, declared_name, &fill);
			break;
		case RULE_TEXT:
		case RULE_RATE:
		case RULE_FILL:
			if (value->type != jbvString)
				refuse(path, "must be a text", NULL);
			if (rule->choices != NULL &&
				strstr(rule->choices, psprintf(" %s ", hx_json_value_text(value))) == NULL)
				refuse(path, psprintf("\"%s\" is not known", hx_json_value_text(value)),
					   psprintf("Known there:%s.", pnstrdup(rule->choices, strlen(rule->choices) - 1)));
			if (rule->kind == RULE_RATE && !hx_rate_parse(hx_json_value_text(value), &rate))
				refuse(path, "is not a rate", "A rate is like 60/min, 10/s, 2/s burst 50 or none.");
			if (rule->kind == RULE_FILL)
				(void) hx_json_expand_text(hx_json_value_text(value), declared_name, &fill);
			break;
	}
}

/*
 * What an operation needs beyond the grammar: a creation the place of the id
 * in its answer, any other a way to name the record it is about; a form its
 * file's part.  A call of its own for many has a body that can hold many.
 */
static void
check_operation(const char *resource, const char *name, const Jsonb *operation)
{
	char	   *path = psprintf("resources.%s.operations.%s", resource, name);
	char	   *call = hx_json_text(operation, "path");
	char	   *body = hx_json_text(operation, "body");
	bool		creates = strcmp(name, "create") == 0;

	if (strcmp(name, "call") == 0 || strchr(name, '.') != NULL)
		refuse(path, "cannot be the name of an operation", NULL);
	if (creates && hx_json_text(operation, "id") == NULL)
		refuse(join_path(path, "id"), "missing", NULL);
	if (!creates && call == NULL)
		refuse(join_path(path, "path"), "missing", NULL);
	if (!creates && strstr(call, "{id}") == NULL && hx_json_text(operation, "id_field") == NULL)
		refuse(path, "does not name the record", "Put {id} into the path, or name the body's member in id_field.");
	if (body != NULL && strcmp(body, "form") == 0 && hx_json_text(operation, "file") == NULL)
		refuse(join_path(path, "file"), "missing", NULL);
	if (hx_json_part(operation, "batch") != NULL &&
		(creates || hx_json_text(operation, "id_field") == NULL || hx_json_int(operation, "batch.most", 0) < 1))
		refuse(join_path(path, "batch"), "needs id_field, and most of at least 1", NULL);
}

/*
 * hubex.check_manifest(jsonb): true for a valid manifest, else ERROR 22023
 * with the path of the mistake in its DETAIL.
 */
Datum
hubex_check_manifest(PG_FUNCTION_ARGS)
{
	Jsonb	   *manifest = PG_GETARG_JSONB_P(0);
	Jsonb	   *resources;
	ListCell   *resource;
	char	   *mechanism;

	if (!JB_ROOT_IS_OBJECT(manifest))
		refuse("", "must be an object", NULL);
	check_object(manifest, "", "", manifest);

	/* What a sign-in mechanism needs. */
	mechanism = hx_json_text(manifest, "sign_in.mechanism");
	if (strcmp(mechanism, "none") != 0)
	{
		static const char *const needed[] = {"header", "value", "path", "token"};
		int			n = strcmp(mechanism, "header") == 0 ? 2 : lengthof(needed);

		for (int i = 0; i < n; i++)
			if (hx_json_text(manifest, psprintf("sign_in.%s", needed[i])) == NULL)
				refuse(psprintf("sign_in.%s", needed[i]), "missing", NULL);
	}

	resources = hx_json_part(manifest, "resources");
	foreach(resource, hx_json_names(resources))
	{
		Jsonb	   *operations;
		ListCell   *operation;

		if (strchr(lfirst(resource), '.') != NULL)
			refuse(psprintf("resources.%s", (char *) lfirst(resource)), "cannot be the name of a resource", NULL);
		operations = hx_json_part(resources, psprintf("%s.operations", (char *) lfirst(resource)));
		foreach(operation, hx_json_names(operations))
			check_operation(lfirst(resource), lfirst(operation), hx_json_part(operations, lfirst(operation)));
	}
	PG_RETURN_BOOL(true);
}

/* The part of a manifest that describes a resource; an unknown one is an error. */
Jsonb *
hx_manifest_resource(const Jsonb *manifest, const char *connector, const char *resource)
{
	Jsonb	   *resources = hx_json_part(manifest, "resources");
	Jsonb	   *found = strchr(resource, '.') ? NULL : hx_json_part(resources, resource);

	if (found == NULL)
	{
		StringInfoData names;
		ListCell   *cell;

		initStringInfo(&names);
		foreach(cell, hx_json_names(resources))
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", (char *) lfirst(cell));
		ereport(ERROR,
				(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
				 errmsg("connector \"%s\" has no resource \"%s\"", connector, resource),
				 errhint("Its resources are: %s.", names.data)));
	}
	return found;
}

/* The part that describes an operation of a resource, or NULL; the names may be anything. */
Jsonb *
hx_manifest_operation(const Jsonb *manifest, const char *resource, const char *operation)
{
	if (resource == NULL || operation == NULL || strchr(resource, '.') != NULL || strchr(operation, '.') != NULL)
		return NULL;
	return hx_json_part(manifest, psprintf("resources.%s.operations.%s", resource, operation));
}
