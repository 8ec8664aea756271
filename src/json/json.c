/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Reading and building JSON with PostgreSQL's own jsonb.
 *
 * hubex has no JSON parser.  This file is the thin layer that lets the rest
 * say "the text at errors.message" or "an object with these members" without
 * walking containers, and the one place that knows that remote JSON is UTF-8
 * while the database may have another encoding.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "base/attempt.h"
#include "json/json.h"

/*
 * Finds the value at a path below a document.  Returns false where a member
 * is missing, null, or not an object on the way.  What is found points into
 * the document.
 */
bool
hx_json_find(const Jsonb *document, const char *path, JsonbValue *found)
{
	JsonbContainer *container;
	const char *name = path;

	if (document == NULL || !JB_ROOT_IS_OBJECT(document))
		return false;
	container = (JsonbContainer *) &document->root;

	for (;;)
	{
		const char *dot = strchr(name, '.');
		int			len = dot ? (int) (dot - name) : (int) strlen(name);

		if (!JsonContainerIsObject(container) ||
			getKeyJsonValueFromContainer(container, name, len, found) == NULL)
			return false;
		if (dot == NULL)
			return found->type != jbvNull;
		if (found->type != jbvBinary)
			return false;
		container = found->val.binary.data;
		name = dot + 1;
	}
}

/*
 * Gives a value as text: strings without quotes, everything else as JSON
 * writes it.  Null gives NULL.
 */
char *
hx_json_value_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return hx_json_out(JsonbValueToJsonb((JsonbValue *) value));
	}
}

/* Gives a value as a document of its own, palloc'd here. */
Jsonb *
hx_json_value_part(const JsonbValue *value)
{
	return JsonbValueToJsonb((JsonbValue *) value);
}

/* Are two values the same, as jsonb compares? */
bool
hx_json_same(JsonbValue *a, JsonbValue *b)
{
	Jsonb	   *one;
	Jsonb	   *other;

	if (a->type == jbvString && b->type == jbvString)
		return a->val.string.len == b->val.string.len &&
			memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
	one = JsonbValueToJsonb(a);
	other = JsonbValueToJsonb(b);
	return compareJsonbContainers(&one->root, &other->root) == 0;
}

/* Gives the JSON text of a document, in the database's encoding. */
char *
hx_json_out(const Jsonb *document)
{
	return JsonbToCString(NULL, (JsonbContainer *) &document->root, VARSIZE(document));
}

/* The text at a path, or NULL. */
char *
hx_json_text(const Jsonb *document, const char *path)
{
	JsonbValue	value;

	return hx_json_find(document, path, &value) ? hx_json_value_text(&value) : NULL;
}

/*
 * The number at a path.  Some systems write numbers as strings, so a string
 * that holds one counts too.
 */
double
hx_json_double(const Jsonb *document, const char *path, double otherwise)
{
	char	   *text = hx_json_text(document, path);
	char	   *end;
	double		number;

	if (text == NULL)
		return otherwise;
	number = strtod(text, &end);
	return (end == text || *end != '\0') ? otherwise : number;
}

/* The whole number at a path; what does not fit an int64 counts as absent. */
int64
hx_json_int(const Jsonb *document, const char *path, int64 otherwise)
{
	double		number = hx_json_double(document, path, (double) otherwise);

	return (number < -9e15 || number > 9e15) ? otherwise : (int64) number;
}

/* The truth value at a path. */
bool
hx_json_bool(const Jsonb *document, const char *path, bool otherwise)
{
	JsonbValue	value;

	if (!hx_json_find(document, path, &value) || value.type != jbvBool)
		return otherwise;
	return value.val.boolean;
}

/* The object or array at a path, as a document of its own, or NULL. */
Jsonb *
hx_json_part(const Jsonb *document, const char *path)
{
	JsonbValue	value;

	if (!hx_json_find(document, path, &value) || value.type != jbvBinary)
		return NULL;
	return JsonbValueToJsonb(&value);
}

/* The elements of an array, a List of JsonbValue *; NIL for anything else. */
List *
hx_json_elements(const Jsonb *array)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	List	   *elements = NIL;

	if (array == NULL || !JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		return NIL;
	it = JsonbIteratorInit((JsonbContainer *) &array->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM)
		{
			JsonbValue *element = palloc(sizeof(JsonbValue));

			*element = value;
			elements = lappend(elements, element);
		}
	}
	return elements;
}

/* Does an array of scalars hold this text (or a number written like it)? */
bool
hx_json_has(const Jsonb *array, const char *text)
{
	ListCell   *cell;

	foreach(cell, hx_json_elements(array))
	{
		char	   *element = hx_json_value_text(lfirst(cell));

		if (element != NULL && strcmp(element, text) == 0)
			return true;
	}
	return false;
}

/*
 * Calls fn for each member of an object, in jsonb's order.  The values point
 * into the object.
 */
void
hx_json_each(const Jsonb *object, HxJsonVisit fn, void *arg)
{
	if (object != NULL && JB_ROOT_IS_OBJECT(object))
		hx_json_each_of(&object->root, fn, arg);
}

/* The same for an object within a document. */
void
hx_json_each_of(const JsonbContainer *object, HxJsonVisit fn, void *arg)
{
	JsonbIterator *it = JsonbIteratorInit(unconstify(JsonbContainer *, object));
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			fn(name, &value, arg);
	}
}

static void
collect_name(const char *name, const JsonbValue *value, void *arg)
{
	List	  **names = arg;

	*names = lappend(*names, pstrdup(name));
}

/* The names of an object's members, a List of char *. */
List *
hx_json_names(const Jsonb *object)
{
	List	   *names = NIL;

	hx_json_each(object, collect_name, &names);
	return names;
}

/*
 * Parses the bytes of an answer, which are UTF-8 whatever the database's
 * encoding.  Bytes that are not valid UTF-8 or not JSON are an error with
 * PostgreSQL's own SQLSTATE.
 */
Jsonb *
hx_json_parse(const char *bytes, size_t len)
{
	char	   *text;

	if (len > MaxAllocSize / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("JSON document is too large")));
	text = pg_any_to_server(bytes, (int) len, PG_UTF8); /* verifies them, too */
	if (text == bytes)
		text = pnstrdup(bytes, len);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

typedef struct Parsing
{
	const char *bytes;
	size_t		len;
	Jsonb	   *document;
} Parsing;

static void
parse(void *arg)
{
	Parsing    *parsing = arg;

	parsing->document = hx_json_parse(parsing->bytes, parsing->len);
}

/*
 * The same for callers that must go on: letters that this database cannot hold
 * become question marks, and *replaced says so; where the bytes are not JSON
 * it returns NULL and the reason.
 */
Jsonb *
hx_json_parse_leniently(const char *bytes, size_t len, bool *replaced, char **problem)
{
	Parsing		parsing = {bytes, len, NULL};
	char	   *second;

	*replaced = false;
	if (hx_attempt(parse, &parsing, problem))
		return parsing.document;
	if (len > MaxAllocSize / 2)
		return NULL;
	parsing.bytes = hx_json_make_fit(bytes, len, &parsing.len);
	*replaced = true;
	return hx_attempt(parse, &parsing, &second) ? parsing.document : NULL;
}

/* The same for callers to whom a letter does not matter. */
Jsonb *
hx_json_try_parse(const char *bytes, size_t len, char **problem)
{
	bool		replaced;

	return hx_json_parse_leniently(bytes, len, &replaced, problem);
}

/* Begins an object. */
void
hx_json_begin(HxJsonBuilder *builder)
{
	builder->state = NULL;
	pushJsonbValue(&builder->state, WJB_BEGIN_OBJECT, NULL);
}

/* Adds a member; value may be scalar or a container's binary value. */
void
hx_json_add(HxJsonBuilder *builder, const char *name, JsonbValue *value)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = pstrdup(name);
	key.val.string.len = strlen(name);
	pushJsonbValue(&builder->state, WJB_KEY, &key);
	pushJsonbValue(&builder->state, WJB_VALUE, value);
}

/* Adds a member that is a string; NULL adds nothing. */
void
hx_json_add_text(HxJsonBuilder *builder, const char *name, const char *text)
{
	JsonbValue	value;

	if (text == NULL)
		return;
	value.type = jbvString;
	value.val.string.val = pstrdup(text);
	value.val.string.len = strlen(text);
	hx_json_add(builder, name, &value);
}

/* Adds a member that is a document; NULL adds nothing. */
void
hx_json_add_part(HxJsonBuilder *builder, const char *name, const Jsonb *part)
{
	JsonbValue	value;

	if (part == NULL)
		return;
	JsonbToJsonbValue((Jsonb *) part, &value);
	if (JB_ROOT_IS_SCALAR(part))
		JsonbExtractScalar((JsonbContainer *) &part->root, &value);
	hx_json_add(builder, name, &value);
}

/* Ends the object and gives it as a document. */
Jsonb *
hx_json_end(HxJsonBuilder *builder)
{
	return JsonbValueToJsonb(pushJsonbValue(&builder->state, WJB_END_OBJECT, NULL));
}
