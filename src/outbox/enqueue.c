/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *	  Putting requests into the outbox: hubex_create, hubex.change,
 *	  hubex_enqueue.
 *
 * What is put in of a record is its fields, by the API's names; what they look
 * like on the wire is decided when they are sent (wire.c).
 *
 * Everything that can be seen to be wrong is an error here, in the caller's
 * transaction, rather than a dead letter later.  What is put in holds no
 * credential: those are taken from the user mapping when the request is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/shared.h"
#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(hubex_create);
PG_FUNCTION_INFO_V1(hubex_change);
PG_FUNCTION_INFO_V1(hubex_enqueue);

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static char *
required_text_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	char	   *text = text_arg(fcinfo, n);

	if (text == NULL || *text == '\0')
		ereport(ERROR,
				(errcode(text ? ERRCODE_INVALID_PARAMETER_VALUE : ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", name, text ? "empty" : "null")));
	return text;
}

/* A key of the caller's; an empty one would be the same key for all. */
static char *
key_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	return PG_ARGISNULL(n) ? NULL : required_text_arg(fcinfo, n, name);
}

static char *
name_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : NameStr(*PG_GETARG_NAME(n));
}

/* What every function that enqueues takes last, from an argument on. */
static HxAccount *
delivery_args(FunctionCallInfo fcinfo, int n, HxNewRequest *request)
{
	request->idempotency_key = key_arg(fcinfo, n + 1, "idempotency_key");
	request->ordering_key = key_arg(fcinfo, n + 2, "ordering_key");
	request->has_deliver_after = !PG_ARGISNULL(n + 3);
	if (request->has_deliver_after)
		request->deliver_after = PG_GETARG_TIMESTAMPTZ(n + 3);
	request->has_expires_at = !PG_ARGISNULL(n + 4);
	if (request->has_expires_at)
		request->expires_at = PG_GETARG_TIMESTAMPTZ(n + 4);
	return hx_account_open(name_arg(fcinfo, n), GetUserId(), false);
}

/* How the fields of an operation are named and written. */
typedef struct Naming
{
	const Jsonb *own_names;		/* manifest: operation.fields */
	const Jsonb *short_names;	/* manifest: resource.fields */
	const Jsonb *required;		/* manifest: operation.required */
	const Jsonb *pairs;			/* manifest: operation.pairs */
} Naming;

typedef struct Fields
{
	Naming		naming;
	HxJsonBuilder out;
	List	   *names;
} Fields;

/* What the creation of a record takes, read from the manifest once. */
struct HxCreation
{
	const char *server;
	const char *resource;
	const char *method;
	const char *path;
	const char *key_field;		/* NULL: it has no natural key */
	Naming		naming;
	List	   *required;		/* of char * */
	List	   *defaults;		/* of HxField * */
};

static void
match_first_letter(const char *name, const JsonbValue *value, void *arg)
{
	char	  **given = arg;
	char	   *known = hx_json_value_text(value);

	if (pg_tolower((unsigned char) (*given)[0]) == known[0] && strcmp(*given + 1, known + 1) == 0)
		*given = known;
}

/*
 * The API's name of a field: from the short names, else as given.  HubEx takes
 * the first letter in either case; here it becomes small, so that what is
 * required or a key is recognised.
 */
static char *
api_name(const Naming *naming, const char *given)
{
	char	   *name = strchr(given, '.') ? NULL : hx_json_text(naming->own_names, given);
	ListCell   *cell;

	if (name == NULL && strchr(given, '.') == NULL)
		name = hx_json_text(naming->short_names, given);
	if (name == NULL)
	{
		name = pstrdup(given);
		hx_json_each(naming->own_names, match_first_letter, &name);
		hx_json_each(naming->short_names, match_first_letter, &name);
		foreach(cell, hx_json_elements(naming->required))
			match_first_letter(NULL, lfirst(cell), &name);
	}
	return name;
}

static void
refuse_pairs(const char *field, const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("field \"%s\" cannot be sent as it is", field),
			 errdetail("%s", detail),
			 errhint("It is an object of ids and values, like {\"8\": \"a text\", \"9\": null}, or an array of objects with \"%s\" and \"value\".", name)));
}

static void
push_key(JsonbParseState **state, char *name)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = name;
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
}

typedef struct Pairs
{
	JsonbParseState *state;
	char	   *field;
	char	   *name;
	char	   *value;
} Pairs;

/* Adds a pair of an id and its value, which the API takes as text or null. */
static void
add_pair(const char *id, const JsonbValue *value, void *arg)
{
	Pairs	   *pairs = arg;
	JsonbValue	number = {.type = jbvNumeric};
	JsonbValue	text = {.type = jbvString};

	if (*id == '\0' || strspn(id, "0123456789") != strlen(id) || strlen(id) > 18)
		refuse_pairs(pairs->field, pairs->name, psprintf("\"%s\" is not an id.", id));
	if (value->type == jbvBinary)
		refuse_pairs(pairs->field, pairs->name, psprintf("The value for %s is neither a text nor null.", id));
	number.val.numeric = int64_to_numeric(strtoll(id, NULL, 10));
	if (value->type == jbvNull)
		text.type = jbvNull;
	else
	{
		text.val.string.val = hx_json_value_text(value);
		text.val.string.len = strlen(text.val.string.val);
	}
	pushJsonbValue(&pairs->state, WJB_BEGIN_OBJECT, NULL);
	push_key(&pairs->state, pairs->name);
	pushJsonbValue(&pairs->state, WJB_VALUE, &number);
	push_key(&pairs->state, pairs->value);
	pushJsonbValue(&pairs->state, WJB_VALUE, &text);
	pushJsonbValue(&pairs->state, WJB_END_OBJECT, NULL);
}

/*
 * A field of pairs, {"8": "a", "9": null}, as the API takes it:
 * [{"attributeID": 8, "value": "a"}, ...], which may be given as well.
 */
static Jsonb *
expand_pairs(const Naming *naming, char *field, const JsonbValue *value)
{
	Pairs		pairs = {NULL, field, hx_json_text(naming->pairs, "name"), hx_json_text(naming->pairs, "value")};
	Jsonb	   *given = value->type == jbvBinary ? hx_json_value_part(value) : NULL;
	ListCell   *cell;

	if (given == NULL || JB_ROOT_COUNT(given) == 0)
		refuse_pairs(field, pairs.name, given ? "It is empty." : "It is neither an object nor an array.");
	pushJsonbValue(&pairs.state, WJB_BEGIN_ARRAY, NULL);
	if (JB_ROOT_IS_OBJECT(given))
		hx_json_each(given, add_pair, &pairs);
	foreach(cell, hx_json_elements(given))
	{
		JsonbValue *element = lfirst(cell);
		Jsonb	   *pair = element->type == jbvBinary ? hx_json_value_part(element) : NULL;
		char	   *id = pair ? hx_json_text(pair, pairs.name) : NULL;
		JsonbValue	found = {.type = jbvNull};

		if (id == NULL)
			refuse_pairs(field, pairs.name, "An element of the array names no id.");
		if (!hx_json_find(pair, pairs.value, &found))
			found.type = jbvNull;
		add_pair(id, &found, &pairs);
	}
	return JsonbValueToJsonb(pushJsonbValue(&pairs.state, WJB_END_ARRAY, NULL));
}

static bool
is_pairs(const Naming *naming, const char *field)
{
	return naming->pairs != NULL && strcmp(field, hx_json_text(naming->pairs, "field")) == 0;
}

static void
add_field(const char *name, const JsonbValue *value, void *arg)
{
	Fields	   *fields = arg;
	char	   *api = api_name(&fields->naming, name);

	if (is_pairs(&fields->naming, api))
		hx_json_add_part(&fields->out, api, expand_pairs(&fields->naming, api, value));
	else
		hx_json_add(&fields->out, api, unconstify(JsonbValue *, value));
	fields->names = lappend(fields->names, api);
}

static void
add_default(const char *name, const JsonbValue *value, void *arg)
{
	Fields	   *fields = arg;
	ListCell   *cell;

	foreach(cell, fields->names)
		if (strcmp(lfirst(cell), name) == 0)
			return;
	hx_json_add(&fields->out, name, unconstify(JsonbValue *, value));
	fields->names = lappend(fields->names, pstrdup(name));
}

static void
report_required(const char *name, const char *resource, const char *operation)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("field \"%s\" is required to %s a record of \"%s\"", name, operation, resource),
			 errdetail("It is not given, or null or empty."),
			 errhint("Fields are named as the API does, or by the short names of the connector's manifest.")));
}

static bool
is_nothing(const JsonbValue *value)
{
	return value->type == jbvNull || (value->type == jbvString && value->val.string.len == 0);
}

static void
require_fields(const Jsonb *described, const Jsonb *body, const char *resource, const char *operation)
{
	JsonbValue	found;
	ListCell   *cell;

	foreach(cell, hx_json_elements(hx_json_part(described, "required")))
	{
		char	   *name = hx_json_value_text(lfirst(cell));

		if (!hx_json_find(body, name, &found) || is_nothing(&found))
			report_required(name, resource, operation);
	}
}

static void
read_naming(const HxAccount *account, const char *resource, const Jsonb *described, Naming *naming)
{
	naming->own_names = hx_json_part(described, "fields");
	naming->short_names = hx_json_part(account->manifest, psprintf("resources.%s.fields", resource));
	naming->required = hx_json_part(described, "required");
	naming->pairs = hx_json_part(described, "pairs");
}

static void
check_object(const Jsonb *given)
{
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the fields of a record must be a JSON object"),
				 errdetail("They are %s.", JB_ROOT_IS_SCALAR(given) ? "a single value" : "an array"),
				 errhint("Write them like {\"notes\": \"a text\", \"companyID\": 17}.")));
}

/* The fields given, by the API's names and with the operation's defaults. */
static Jsonb *
make_fields(const HxAccount *account, const char *resource, const char *operation, const Jsonb *described,
			const Jsonb *given)
{
	Fields		fields = {{NULL}};
	Jsonb	   *body;

	check_object(given);
	read_naming(account, resource, described, &fields.naming);
	hx_json_begin(&fields.out);
	hx_json_each(given, add_field, &fields);
	hx_json_each(hx_json_part(described, "defaults"), add_default, &fields);
	body = hx_json_end(&fields.out);
	require_fields(described, body, resource, operation);
	return body;
}

/* How the connector does an operation; what it does not know is an error. */
static Jsonb *
described_operation(const HxAccount *account, const char *resource, const char *operation)
{
	Jsonb	   *described = hx_manifest_operation(account->manifest, resource, operation);
	StringInfoData names;
	ListCell   *cell;

	if (described != NULL)
		return described;
	initStringInfo(&names);
	foreach(cell, hx_json_names(hx_json_part(hx_manifest_resource(account->manifest, account->connector, resource),
											 "operations")))
		appendStringInfo(&names, "%s%s", names.len ? ", " : "", (char *) lfirst(cell));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("connector \"%s\" has no operation \"%s\" of resource \"%s\"",
					account->connector, operation, resource),
			 names.len ? errdetail("Its operations are: %s.", names.data)
			 : errdetail("It can only be read."),
			 errhint("hubex_enqueue() makes any other call of the API.")));
}

static void
check_natural_key(const char *key, const char *field)
{
	if (strlen(key) > HX_NATURAL_KEY_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("field \"%s\" is too long", field),
				 errdetail("It is the key by which the record is found again; the limit is %d bytes.",
						   HX_NATURAL_KEY_MAX_BYTES)));
}

static void
set_text(JsonbValue *value, char *text)
{
	value->type = jbvString;
	value->val.string.val = text;
	value->val.string.len = strlen(text);
}

static void
keep_default(const char *name, const JsonbValue *value, void *arg)
{
	List	  **defaults = arg;
	HxField    *field = palloc(sizeof(HxField));

	set_text(&field->name, pstrdup(name));
	field->value = *value;
	*defaults = lappend(*defaults, field);
}

/*
 * Reads what the creation of a record takes, in the current context; it is good
 * for as long as the account.  A resource that cannot be created is an error.
 */
HxCreation *
hx_outbox_creation(const HxAccount *account, const char *resource)
{
	HxCreation *creation = palloc0(sizeof(HxCreation));
	Jsonb	   *described = described_operation(account, resource, "create");
	ListCell   *cell;

	creation->server = account->server;
	creation->resource = resource;
	creation->method = hx_json_text(described, "method");
	creation->path = hx_json_text(described, "path");
	if (creation->path == NULL)
		creation->path = hx_json_text(account->manifest, psprintf("resources.%s.path", resource));
	creation->key_field = hx_json_text(described, "natural_key");
	read_naming(account, resource, described, &creation->naming);
	foreach(cell, hx_json_elements(hx_json_part(described, "required")))
		creation->required = lappend(creation->required, hx_json_value_text(lfirst(cell)));
	hx_json_each(hx_json_part(described, "defaults"), keep_default, &creation->defaults);
	return creation;
}

/* The name of a field by the API's name for it; *is_key: it is the natural key. */
char *
hx_outbox_field_name(const HxCreation *creation, const char *given, bool *is_key)
{
	char	   *name = api_name(&creation->naming, given);

	*is_key = creation->key_field != NULL && strcmp(name, creation->key_field) == 0;
	return name;
}

static bool
has_default(const HxCreation *creation, const char *name)
{
	ListCell   *cell;

	foreach(cell, creation->defaults)
		if (strcmp(((HxField *) lfirst(cell))->name.val.string.val, name) == 0)
			return true;
	return false;
}

/* The value of a field, the last of that name, or NULL. */
static const JsonbValue *
find_field(const HxField *fields, int nfields, const char *name, int len)
{
	for (int i = nfields - 1; i >= 0; i--)
		if (fields[i].name.val.string.len == len && memcmp(fields[i].name.val.string.val, name, len) == 0)
			return &fields[i].value;
	return NULL;
}

static void
push_field(JsonbParseState **state, const HxField *field)
{
	pushJsonbValue(state, WJB_KEY, unconstify(JsonbValue *, &field->name));
	pushJsonbValue(state, WJB_VALUE, unconstify(JsonbValue *, &field->value));
}

/* The natural key of a record, which is made where its fields hold none. */
static void
take_natural_key(const HxCreation *creation, const HxField *fields, int nfields, HxNewRequest *request,
				 JsonbParseState **state)
{
	const JsonbValue *key = find_field(fields, nfields, creation->key_field, strlen(creation->key_field));
	HxField		made;

	if (key != NULL && !is_nothing(key))
	{
		request->natural_key = hx_json_value_text(key);
		check_natural_key(request->natural_key, creation->key_field);
		if (request->ordering_key == NULL)
			request->ordering_key = psprintf("%s:%s", creation->resource, request->natural_key);
		return;
	}
	request->stamp = hx_outbox_new_stamp();
	request->natural_key = psprintf("hubex-%s",
									DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(request->stamp))));
	set_text(&made.name, unconstify(char *, creation->key_field));
	set_text(&made.value, unconstify(char *, request->natural_key));
	push_field(state, &made);
}

/*
 * Puts the creation of a record into the outbox and returns the request's id.
 * The fields are by the API's names; a natural key is made where they hold none,
 * so that the record can be found again; requests about one record share an
 * ordering key.  A trigger does this for every row.
 */
int64
hx_outbox_enqueue_creation(const HxCreation *creation, const HxField *fields, int nfields, HxNewRequest *request)
{
	JsonbParseState *state = NULL;
	ListCell   *cell;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < nfields; i++)
		push_field(&state, &fields[i]);
	foreach(cell, creation->defaults)
	{
		const HxField *field = lfirst(cell);

		if (find_field(fields, nfields, field->name.val.string.val, field->name.val.string.len) == NULL)
			push_field(&state, field);
	}
	foreach(cell, creation->required)
	{
		const char *name = lfirst(cell);
		const JsonbValue *value = find_field(fields, nfields, name, strlen(name));

		if (value == NULL ? !has_default(creation, name) : is_nothing(value))
			report_required(name, creation->resource, "create");
	}
	if (creation->key_field != NULL)
		take_natural_key(creation, fields, nfields, request, &state);

	request->body = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	request->server = creation->server;
	request->resource = creation->resource;
	request->operation = "create";
	request->method = creation->method;
	request->path = creation->path;
	return hx_outbox_insert(request);
}

typedef struct Given
{
	const Naming *naming;
	HxField    *fields;
	int			nfields;
} Given;

static void
take_field(const char *name, const JsonbValue *value, void *arg)
{
	Given	   *given = arg;
	HxField    *field = &given->fields[given->nfields++];
	char	   *api = api_name(given->naming, name);

	set_text(&field->name, api);
	if (is_pairs(given->naming, api))
		JsonbToJsonbValue(expand_pairs(given->naming, api, value), &field->value);
	else
		field->value = *value;
}

/*
 * Adds the members of an object, by any of their names, to the fields of a
 * record, which have room for them; returns how many there are then.
 */
int
hx_outbox_take_fields(const HxCreation *creation, Jsonb *object, HxField *fields, int nfields)
{
	Given		given = {&creation->naming, fields, nfields};

	check_object(object);
	hx_json_each(object, take_field, &given);
	return given.nfields;
}

/* The same for fields by any of their names, in an object. */
int64
hx_outbox_enqueue_create(const HxAccount *account, const char *resource, Jsonb *fields, HxNewRequest *request)
{
	HxCreation *creation = hx_outbox_creation(account, resource);
	HxField    *given = palloc(sizeof(HxField) * Max(JB_ROOT_COUNT(fields), 1));
	int			ngiven = hx_outbox_take_fields(creation, fields, given, 0);

	return hx_outbox_enqueue_creation(creation, given, ngiven, request);
}

/* Is the id of a resource's records a number? */
static bool
id_is_number(const HxAccount *account, const char *resource)
{
	JsonbValue	columns;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	column;

	if (!hx_json_find(account->manifest, psprintf("resources.%s.columns", resource), &columns) ||
		columns.type != jbvBinary)
		return false;
	it = JsonbIteratorInit(columns.val.binary.data);
	while ((token = JsonbIteratorNext(&it, &column, true)) != WJB_DONE)
	{
		Jsonb	   *described;

		if (token != WJB_ELEM)
			continue;
		described = hx_json_value_part(&column);
		if (strcmp(hx_json_text(described, "path"), "@key") == 0)
			return strcmp(hx_json_text(described, "type"), "text") != 0;
	}
	return false;
}

/* Sees to it that a record is named, once, and by what it can be found by. */
static void
check_key(const HxAccount *account, const char *resource, const HxRecordKey *key)
{
	Jsonb	   *create = hx_manifest_operation(account->manifest, resource, "create");
	char	   *field = hx_json_text(create, "natural_key");

	if ((key->remote_id == NULL) == (key->natural_key == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a record must be named by its id or by its erp_id, and by one of the two"),
				 key->remote_id ? errdetail("Both are given.") : errdetail("Neither is given."),
				 errhint("The id is the argument task_id, or key where the resource is named. By erp_id a record can be meant that is not created yet.")));
	if (key->remote_id != NULL && id_is_number(account, resource) &&
		(*key->remote_id == '\0' || strspn(key->remote_id, "0123456789") != strlen(key->remote_id) ||
		 strspn(key->remote_id, "0") == strlen(key->remote_id)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not an id of \"%s\"", key->remote_id, resource),
				 errdetail("Ids are positive whole numbers."),
				 errhint("The key of the record in one's own system goes into erp_id.")));
	if (key->remote_id != NULL && (*key->remote_id == '\0' || strlen(key->remote_id) > HX_NATURAL_KEY_MAX_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an id of \"%s\" must not be empty or that long", resource)));
	if (key->natural_key != NULL && (field == NULL || hx_json_text(create, "natural_key_filter") == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("records of \"%s\" cannot be named by erp_id", resource),
				 errdetail("Connector \"%s\" knows no way to find one by it.", account->connector),
				 errhint("Name the record by its id.")));
	if (key->natural_key != NULL && *key->natural_key == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be %s", "erp_id", "empty")));
	if (key->natural_key != NULL)
		check_natural_key(key->natural_key, field);
}

/* Sees to it that there is a file where the operation sends one, and only there. */
static void
check_content(const Jsonb *described, const char *operation, HxNewRequest *request)
{
	char	   *name_field = hx_json_text(described, "file_name");
	char	   *name = name_field ? hx_json_text(request->body, name_field) : NULL;
	bool		takes_file = hx_json_text(described, "file") != NULL;

	if (takes_file != (request->content != NULL))
		ereport(ERROR,
				(errcode(takes_file ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
				 takes_file ? errmsg("argument \"%s\" must not be %s", "content", "null")
				 : errmsg("operation \"%s\" takes no content", operation),
				 takes_file ? errhint("An empty file is an empty bytea.") : 0));
	if (!takes_file)
		return;
	if (VARSIZE_ANY_EXHDR(request->content) > HX_REQUEST_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("attachment is too large"),
				 errdetail("It has %lld bytes; the limit is %d.",
						   (long long) VARSIZE_ANY_EXHDR(request->content), HX_REQUEST_MAX_BYTES),
				 errhint("Attach it in parts, or put it where a link can lead to it.")));
	if (request->content_type == NULL)
		request->content_type = "application/octet-stream";
	for (int i = 0; i < 2; i++)
		for (const char *c = i == 0 ? request->content_type : name ? name : ""; *c; c++)
			if ((unsigned char) *c < 0x20 || *c == 0x7f)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 i == 0 ? errmsg("invalid content type") : errmsg("invalid file name"),
						 errdetail("It holds a line break or another control character."),
						 errhint("It is sent in a header, which is one line.")));
}

/*
 * Puts any operation but create on one record into the outbox and returns the
 * request's id.  The record is named by its id or by its natural key, and then
 * it may be one that an earlier request is still to create.  Requests about one
 * record share an ordering key, whichever of its names they use.
 */
int64
hx_outbox_enqueue_change(const HxAccount *account, const char *resource, const char *operation,
						 const HxRecordKey *given_key, Jsonb *given, HxNewRequest *request)
{
	Jsonb	   *described = described_operation(account, resource, operation);
	char	   *encoding = hx_json_text(described, "body");
	HxRecordKey key = *given_key;
	const char *known_order = NULL;

	if (strcmp(operation, "create") == 0)
		elog(ERROR, "hx_outbox_enqueue_change does not create");
	check_key(account, resource, &key);
	if (given == NULL)
	{
		HxJsonBuilder nothing;

		hx_json_begin(&nothing);
		given = hx_json_end(&nothing);
	}
	request->body = make_fields(account, resource, operation, described, given);
	if (encoding != NULL && strcmp(encoding, "none") == 0)
	{
		if (JB_ROOT_COUNT(request->body) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("operation \"%s\" takes no fields", operation),
					 errhint("It needs no more than the name of the record.")));
		request->body = NULL;
	}
	else if (encoding != NULL && strcmp(encoding, "field_values") == 0 && JB_ROOT_COUNT(request->body) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is nothing to change"),
				 errdetail("The fields are empty."),
				 errhint("A field that is to be emptied is given as null.")));
	check_content(described, operation, request);

	hx_outbox_complete_key(account->server, resource, &key, &known_order);
	request->remote_id = key.remote_id;
	request->natural_key = key.natural_key;
	if (request->ordering_key == NULL)
		request->ordering_key = known_order ? known_order
			: key.natural_key ? psprintf("%s:%s", resource, key.natural_key)
			: psprintf("%s:#%s", resource, key.remote_id);
	request->resource = resource;
	request->operation = operation;
	request->method = hx_json_text(described, "method");
	request->path = hx_json_text(described, "path");
	request->server = account->server;
	return hx_outbox_insert(request);
}

/*
 * hubex_create(resource, fields, server, idempotency_key, ordering_key,
 * deliver_after, expires_at) -> request id.
 */
Datum
hubex_create(PG_FUNCTION_ARGS)
{
	char	   *resource = required_text_arg(fcinfo, 0, "resource");
	HxNewRequest request = {0};
	HxAccount  *account;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", "fields", "null")));
	account = delivery_args(fcinfo, 2, &request);
	PG_RETURN_INT64(hx_outbox_enqueue_create(account, resource, PG_GETARG_JSONB_P(1), &request));
}

/*
 * hubex.change(resource, operation, remote_id, natural_key, fields, content,
 * content_type, server, idempotency_key, ordering_key, deliver_after,
 * expires_at) -> request id: what the functions of one operation each call.
 */
Datum
hubex_change(PG_FUNCTION_ARGS)
{
	char	   *resource = required_text_arg(fcinfo, 0, "resource");
	char	   *operation = required_text_arg(fcinfo, 1, "operation");
	HxRecordKey key = {text_arg(fcinfo, 2), text_arg(fcinfo, 3)};
	HxNewRequest request = {0};
	HxAccount  *account = delivery_args(fcinfo, 7, &request);

	if (strcmp(operation, "create") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a record that is to be created has no name yet"),
				 errhint("Use hubex_create().")));
	request.content = PG_ARGISNULL(5) ? NULL : PG_GETARG_BYTEA_PP(5);
	request.content_type = text_arg(fcinfo, 6);
	PG_RETURN_INT64(hx_outbox_enqueue_change(account, resource, operation, &key,
											 PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4), &request));
}

/* What a plain call does, while the resources are gone through. */
typedef struct PlainCall
{
	const HxAccount *account;
	const char *method;
	const char *path;
	size_t		len;			/* of the path, without slashes at its end */
	char	   *creates;		/* the resource of a record it creates, or NULL */
} PlainCall;

static void
compare_creation(const char *resource, const JsonbValue *value, void *arg)
{
	PlainCall  *call = arg;
	JsonbValue	found;
	Jsonb	   *create;
	char	   *path;

	/* Most resources cannot be created, which is seen without a copy of anything. */
	if (call->creates != NULL ||
		getKeyJsonValueFromContainer(value->val.binary.data, "operations", 10, &found) == NULL ||
		getKeyJsonValueFromContainer(found.val.binary.data, "create", 6, &found) == NULL)
		return;
	create = hx_manifest_operation(call->account->manifest, resource, "create");
	path = create ? hx_json_text(create, "path") : NULL;
	if (create == NULL || strcmp(hx_json_text(create, "method"), call->method) != 0)
		return;
	if (hx_json_text(create, "body") != NULL && strcmp(hx_json_text(create, "body"), "object") != 0)
		return;					/* what is sent may be many records */
	if (path == NULL)
		path = hx_manifest_resource_text(call->account->manifest, resource, "path");
	if (strlen(path) == call->len && pg_strncasecmp(path, call->path, call->len) == 0)
		call->creates = pstrdup(resource);
}

/* The resource that a plain call creates a record of, or NULL. */
static char *
created_resource(const HxAccount *account, const char *method, const char *path)
{
	PlainCall	call = {account, method, path, strlen(path), NULL};

	while (call.len > 1 && path[call.len - 1] == '/')
		call.len--;
	hx_manifest_each_resource(account->manifest, compare_creation, &call);
	return call.creates;
}

/*
 * hubex_enqueue(method, path, body, query, headers, content, content_type,
 * server, idempotency_key, ordering_key, deliver_after, expires_at) -> request
 * id.  A call that the connector knows as the creation of a record is treated
 * as hubex_create treats it.
 */
Datum
hubex_enqueue(PG_FUNCTION_ARGS)
{
	HxNewRequest request = {0};
	HxCall		call;
	HxAccount  *account;
	char	   *resource = NULL;

	hx_call_from_args(fcinfo, &call);
	account = delivery_args(fcinfo, 7, &request);
	hx_call_check(account, &call);

	request.query = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	request.headers = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);
	request.body = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);

	if (request.body != NULL)
		resource = created_resource(account, call.method, call.path);
	if (resource != NULL)
		PG_RETURN_INT64(hx_outbox_enqueue_create(account, resource, request.body, &request));

	request.operation = "call";
	request.method = call.method;
	request.path = call.path;
	request.content = PG_ARGISNULL(5) ? NULL : PG_GETARG_BYTEA_PP(5);
	request.content_type = call.content_type;
	request.server = account->server;
	PG_RETURN_INT64(hx_outbox_insert(&request));
}
