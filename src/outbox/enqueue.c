/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *	  Putting requests into the outbox: hubex_create, hubex_enqueue.
 *
 * Everything that can be seen to be wrong is an error here, in the caller's
 * transaction, rather than a dead letter later.  What is put in holds no
 * credential: those are taken from the user mapping when the request is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/shared.h"
#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(hubex_create);
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

typedef struct Fields
{
	const Jsonb *short_names;	/* manifest: resource.fields */
	HxJsonBuilder out;
	List	   *names;
} Fields;

static void
match_first_letter(const char *name, const JsonbValue *value, void *arg)
{
	char	  **given = arg;
	char	   *known = hx_json_value_text(value);

	if (pg_tolower((unsigned char) (*given)[0]) == known[0] && strcmp(*given + 1, known + 1) == 0)
		*given = known;
}

/*
 * The API's name of a field: from the resource's short names, else as given.
 * HubEx takes the first letter in either case; here it becomes small, so that
 * what is required or a key is recognised.
 */
static char *
api_name(const Jsonb *short_names, const char *given)
{
	char	   *name = strchr(given, '.') ? NULL : hx_json_text(short_names, given);

	if (name == NULL)
	{
		name = pstrdup(given);
		hx_json_each(short_names, match_first_letter, &name);
	}
	return name;
}

static void
add_field(const char *name, const JsonbValue *value, void *arg)
{
	Fields	   *fields = arg;
	char	   *api = api_name(fields->short_names, name);

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
require_fields(const Jsonb *required, const Jsonb *body, const Jsonb *short_names, const char *resource)
{
	JsonbValue	found;
	ListCell   *cell;

	foreach(cell, hx_json_elements(required))
	{
		char	   *name = hx_json_value_text(lfirst(cell));

		if (!hx_json_find(body, name, &found))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("field \"%s\" is required to create a record of \"%s\"", name, resource),
					 errhint("Fields are named as the API does, or by the short names of the connector's manifest.")));
	}
}

/*
 * Puts the creation of a record into the outbox and returns the request's id.
 * fields are by the API's names or the resource's short ones; a natural key is
 * made where they hold none, so that the record can be found again; requests
 * about one record share an ordering key.
 */
int64
hx_outbox_enqueue_create(const HxAccount *account, const char *resource, Jsonb *given, HxNewRequest *request)
{
	Jsonb	   *described = hx_manifest_resource(account->manifest, account->connector, resource);
	Jsonb	   *create = hx_json_part(described, "create");
	Fields		fields = {.short_names = hx_json_part(described, "fields")};
	char	   *key_field;
	int64		id;

	if (create == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("resource \"%s\" of connector \"%s\" cannot be created", resource, account->connector)));
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the fields of a record must be a JSON object")));

	request->stamp = DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	hx_json_begin(&fields.out);
	hx_json_each(given, add_field, &fields);
	hx_json_each(hx_json_part(create, "defaults"), add_default, &fields);
	request->body = hx_json_end(&fields.out);
	require_fields(hx_json_part(create, "required"), request->body, fields.short_names, resource);

	key_field = hx_json_text(create, "natural_key");
	if (key_field != NULL)
	{
		request->natural_key = hx_json_text(request->body, key_field);
		if (request->natural_key != NULL && *request->natural_key == '\0')
			request->natural_key = NULL;	/* nothing could be found by it */
		if (request->natural_key != NULL && strlen(request->natural_key) > HX_NATURAL_KEY_MAX_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
					 errmsg("field \"%s\" is too long", key_field),
					 errdetail("It is the key by which the record is found again; the limit is %d bytes.",
							   HX_NATURAL_KEY_MAX_BYTES)));
		if (request->natural_key != NULL && request->ordering_key == NULL)
			request->ordering_key = psprintf("%s:%s", resource, request->natural_key);
		if (request->natural_key == NULL)
		{
			request->natural_key = psprintf("hubex-%s",
											DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(request->stamp))));
			hx_json_begin(&fields.out);
			hx_json_each(request->body, add_field, &fields);
			hx_json_add_text(&fields.out, key_field, request->natural_key);
			request->body = hx_json_end(&fields.out);
		}
	}

	request->server = account->server;
	request->resource = resource;
	request->operation = "create";
	request->method = hx_json_text(create, "method");
	request->path = hx_json_text(described, "path");
	id = hx_outbox_insert(request);
	hx_shared_wake_at_commit();
	return id;
}

/*
 * hubex_create(resource, fields, server, idempotency_key, ordering_key,
 * deliver_after) -> request id.
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
	account = hx_account_open(name_arg(fcinfo, 2), GetUserId(), false);
	request.idempotency_key = key_arg(fcinfo, 3, "idempotency_key");
	request.ordering_key = key_arg(fcinfo, 4, "ordering_key");
	request.has_deliver_after = !PG_ARGISNULL(5);
	if (request.has_deliver_after)
		request.deliver_after = PG_GETARG_TIMESTAMPTZ(5);
	PG_RETURN_INT64(hx_outbox_enqueue_create(account, resource, PG_GETARG_JSONB_P(1), &request));
}

/* The resource that a plain call creates a record of, or NULL. */
static char *
created_resource(const HxAccount *account, const char *method, const char *path)
{
	Jsonb	   *resources = hx_json_part(account->manifest, "resources");
	size_t		len = strlen(path);
	ListCell   *cell;

	while (len > 1 && path[len - 1] == '/')
		len--;
	foreach(cell, hx_json_names(resources))
	{
		Jsonb	   *resource = hx_json_part(resources, lfirst(cell));
		char	   *its_method = hx_json_text(resource, "create.method");
		char	   *its_path = hx_json_text(resource, "path");

		if (its_method != NULL && strcmp(its_method, method) == 0 &&
			strlen(its_path) == len && pg_strncasecmp(its_path, path, len) == 0)
			return lfirst(cell);
	}
	return NULL;
}

/*
 * hubex_enqueue(method, path, body, query, headers, content, content_type,
 * server, idempotency_key, ordering_key, deliver_after) -> request id.
 * A call that the connector knows as the creation of a record is treated as
 * hubex_create treats it.
 */
Datum
hubex_enqueue(PG_FUNCTION_ARGS)
{
	HxNewRequest request = {0};
	HxCall		call;
	HxAccount  *account;
	char	   *resource;
	int64		id;

	hx_call_from_args(fcinfo, &call);
	account = hx_account_open(name_arg(fcinfo, 7), GetUserId(), false);
	hx_call_check(account, &call);

	request.idempotency_key = key_arg(fcinfo, 8, "idempotency_key");
	request.ordering_key = key_arg(fcinfo, 9, "ordering_key");
	request.has_deliver_after = !PG_ARGISNULL(10);
	if (request.has_deliver_after)
		request.deliver_after = PG_GETARG_TIMESTAMPTZ(10);
	request.query = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	request.headers = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);

	resource = created_resource(account, call.method, call.path);
	if (resource != NULL && !PG_ARGISNULL(2))
		PG_RETURN_INT64(hx_outbox_enqueue_create(account, resource, PG_GETARG_JSONB_P(2), &request));

	request.server = account->server;
	request.operation = "call";
	request.method = call.method;
	request.path = call.path;
	request.body = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	request.content = PG_ARGISNULL(5) ? NULL : PG_GETARG_BYTEA_PP(5);
	request.content_type = call.content_type;
	request.stamp = DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	id = hx_outbox_insert(&request);
	hx_shared_wake_at_commit();
	PG_RETURN_INT64(id);
}
