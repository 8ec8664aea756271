/*-------------------------------------------------------------------------
 *
 * wire.c
 *	  What a request of the outbox goes out as.
 *
 * The outbox holds the fields of a record; the connector says how an operation
 * sends them: as an object, in an array, as pairs of field and value, as a
 * form.  One call may carry several requests: changes of one record that
 * follow each other are merged into one, and one operation on several records
 * goes as a batch where the remote system takes one.
 *
 * A call is also made to find something out: the id of a record that is named
 * by its natural key, or whether the work of a request is done already.
 *
 * Nothing here touches the database or the network; it can run anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "outbox/answer.h"

/* With how many a question goes out that can be asked about many records. */
#define LOOK_UP_MOST	100

/* How the connector does a request's operation; NULL for a plain call, or where it does not say (any more). */
Jsonb *
hx_wire_operation(const HxAccount *account, const HxRequest *request)
{
	return hx_manifest_operation(account->manifest, request->resource, request->operation);
}

/* Does the connector (still) say how the request is made? */
bool
hx_outbox_can_send(const HxAccount *account, const HxRequest *request)
{
	return request->resource == NULL || hx_wire_operation(account, request) != NULL;
}

static bool
repeats_safely(const Jsonb *operation)
{
	return operation == NULL || hx_json_text(operation, "repeat") != NULL;
}

/*
 * Does it no harm to send the request once more?  Of a plain call nobody knows:
 * what its caller asked for is at least one.
 */
bool
hx_outbox_repeats_safely(const HxAccount *account, const HxRequest *request)
{
	return repeats_safely(hx_wire_operation(account, request));
}

/* Can it be found out whether the request has done its work? */
bool
hx_wire_can_look_up(const HxAccount *account, const HxRequest *request)
{
	Jsonb	   *operation = hx_wire_operation(account, request);

	if (operation == NULL)
		return false;
	if (request->creates)
		return request->natural_key != NULL && hx_json_text(operation, "natural_key_filter") != NULL;
	return request->remote_id != NULL && hx_json_part(operation, "verify") != NULL;
}

/* Where the delivery of a request begins. */
HxStep
hx_outbox_first_step(const HxAccount *account, const HxRequest *request)
{
	Jsonb	   *operation = hx_wire_operation(account, request);

	if (operation == NULL)
		return HX_STEP_SEND;
	if (!request->creates && request->remote_id == NULL && request->natural_key != NULL)
		return HX_STEP_RESOLVE;
	if (request->uncertain && !repeats_safely(operation) && hx_wire_can_look_up(account, request))
		return HX_STEP_LOOK_UP;
	return HX_STEP_SEND;
}

/* How many requests, of different records, may go as one call in the request's step; at least 1. */
int
hx_outbox_most_a_call(const HxAccount *account, const HxRequest *request)
{
	Jsonb	   *operation = hx_wire_operation(account, request);
	int			most = 1;

	if (operation != NULL && request->step == HX_STEP_SEND)
		most = (int) hx_json_int(operation, "batch.most", 1);
	else if (operation != NULL && request->step == HX_STEP_LOOK_UP && hx_json_text(operation, "verify.filter") != NULL)
		most = LOOK_UP_MOST;
	return request->most > 0 ? Min(most, request->most) : most;
}

/* Can requests about one record that follow each other go as one? */
bool
hx_outbox_merges(const HxAccount *account, const HxRequest *request)
{
	return hx_json_bool(hx_wire_operation(account, request), "merge", false);
}

/* ---- bodies ---- */

/* An id as JSON: a number where it is one. */
static void
id_value(const char *id, JsonbValue *value)
{
	size_t		len = strlen(id);

	if (len > 0 && len <= 18 && strspn(id, "0123456789") == len)
	{
		value->type = jbvNumeric;
		value->val.numeric = int64_to_numeric(strtoll(id, NULL, 10));
	}
	else
	{
		value->type = jbvString;
		value->val.string.val = pstrdup(id);
		value->val.string.len = len;
	}
}

static void
push_member(const char *name, const JsonbValue *value, void *arg)
{
	hx_json_add(arg, name, unconstify(JsonbValue *, value));
}

/* The fields of requests as one object, later ones over earlier ones, and the record's id. */
static Jsonb *
make_object(const Jsonb *operation, List *requests)
{
	char	   *id_field = hx_json_text(operation, "id_field");
	HxJsonBuilder object;
	ListCell   *cell;

	hx_json_begin(&object);
	foreach(cell, requests)
	{
		HxRequest  *request = lfirst(cell);

		hx_json_each(request->body, push_member, &object);
		if (id_field != NULL)
		{
			JsonbValue	id;

			id_value(request->remote_id, &id);
			hx_json_add(&object, id_field, &id);
		}
	}
	return hx_json_end(&object);
}

static void
push_text(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = pstrdup(text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, token, &value);
}

static void
push_field_value(const char *name, const JsonbValue *value, void *arg)
{
	JsonbParseState **state = arg;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_text(state, WJB_KEY, "field");
	push_text(state, WJB_VALUE, name);
	push_text(state, WJB_KEY, "value");
	pushJsonbValue(state, WJB_VALUE, unconstify(JsonbValue *, value));
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* [{"field": ..., "value": ...}, ...] */
static Jsonb *
make_field_values(const Jsonb *object)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	hx_json_each(object, push_field_value, &state);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* An array of the objects of requests. */
static Jsonb *
make_array(const Jsonb *operation, List *requests)
{
	JsonbParseState *state = NULL;
	ListCell   *cell;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(cell, requests)
	{
		JsonbValue	value;

		JsonbToJsonbValue(make_object(operation, list_make1(lfirst(cell))), &value);
		pushJsonbValue(&state, WJB_ELEM, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

static char *
to_utf8(const char *text)
{
	char	   *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);

	return utf8 == text ? pstrdup(text) : utf8;
}

static void
set_json(HxCall *call, const Jsonb *document)
{
	call->body = to_utf8(hx_json_out(document));
	call->body_len = strlen(call->body);
}

static void
add_part(const char *name, const JsonbValue *value, void *arg)
{
	List	  **parts = arg;
	char	   *text = hx_json_value_text(value);
	HxHttpPart *part;

	if (text == NULL)
		return;
	part = palloc0(sizeof(HxHttpPart));
	part->name = to_utf8(name);
	part->content = to_utf8(text);
	part->content_len = strlen(part->content);
	*parts = lappend(*parts, part);
}

/* The fields as parts of a form, and the file as the last of them. */
static void
set_form(HxCall *call, const Jsonb *operation, const HxRequest *request, const Jsonb *object)
{
	char	   *name_field = hx_json_text(operation, "file_name");
	char	   *name = name_field ? hx_json_text(request->body, name_field) : NULL;
	HxHttpPart *file = palloc0(sizeof(HxHttpPart));

	hx_json_each(object, add_part, &call->parts);
	file->name = to_utf8(hx_json_text(operation, "file"));
	file->content = request->content;
	file->content_len = request->content_len;
	file->filename = to_utf8(name ? name : "file");
	file->content_type = request->content_type ? to_utf8(request->content_type) : NULL;
	call->parts = lappend(call->parts, file);
}

/* ---- calls ---- */

/* A path with the id of the record in it. */
static char *
fill_path(const char *path, const char *id)
{
	const char *mark = strstr(path, "{id}");

	if (mark == NULL)
		return pstrdup(path);
	if (id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("the id of the record is not known")));
	return psprintf("%.*s%s%s", (int) (mark - path), path, hx_http_escape(id), fill_path(mark + 4, id));
}

static char *
resource_path(const HxAccount *account, const HxRequest *request)
{
	return hx_json_text(hx_manifest_resource(account->manifest, account->connector, request->resource), "path");
}

/* Asks for the first records of a list, which without it is cut where the remote system likes. */
static void
add_range(const HxAccount *account, HxCall *call, int count)
{
	char	   *unit = hx_json_text(account->manifest, "paging.unit");
	int64		first = hx_json_int(account->manifest, "paging.first", 1);

	if (unit != NULL)
		call->headers = lappend(call->headers,
								hx_http_pair("Range", psprintf("%s=" INT64_FORMAT "-" INT64_FORMAT,
															   unit, first, first + count - 1)));
}

/* The call that finds records by the natural key of a request. */
static void
make_natural_key_call(const HxAccount *account, const HxRequest *request, HxCall *call)
{
	Jsonb	   *create = hx_manifest_operation(account->manifest, request->resource, "create");
	char	   *filter = create ? hx_json_text(create, "natural_key_filter") : NULL;

	if (filter == NULL || request->natural_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("records of \"%s\" cannot be found by their natural key", request->resource)));
	call->method = "GET";
	call->path = resource_path(account, request);
	call->query = lappend(call->query, hx_http_pair(filter, request->natural_key));
	add_range(account, call, HX_LOOK_UP_MAX_RECORDS);
}

/* The call that tells whether what the requests ask for is done. */
static void
make_verify_call(const Jsonb *verify, const HxAccount *account, List *requests, HxCall *call)
{
	char	   *filter = hx_json_text(verify, "filter");
	ListCell   *cell;

	call->method = "GET";
	call->path = fill_path(hx_json_text(verify, "path"), ((HxRequest *) linitial(requests))->remote_id);
	if (filter == NULL)
		return;
	foreach(cell, requests)
		call->query = lappend(call->query, hx_http_pair(filter, ((HxRequest *) lfirst(cell))->remote_id));
	add_range(account, call, list_length(requests));
}

/* The call that does the work of requests. */
static void
make_work_call(const HxAccount *account, List *requests, HxCall *call)
{
	HxRequest  *request = linitial(requests);
	Jsonb	   *operation = hx_wire_operation(account, request);
	bool		batch = list_length(requests) > 1 && !hx_outbox_merges(account, request);
	char	   *body = operation ? hx_json_text(operation, "body") : NULL;
	char	   *stamp_header = request->creates ? hx_json_text(operation, "idempotency_header") : NULL;
	Jsonb	   *object;

	if (!hx_outbox_can_send(account, request))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the connector does not say any more how operation \"%s\" of \"%s\" is done",
						request->operation, request->resource)));
	call->method = request->method;
	call->path = request->path;
	call->query = hx_call_query(request->query);
	call->headers = hx_call_headers(request->headers);
	call->content_type = request->content_type;
	if (stamp_header != NULL)
		call->headers = lappend(call->headers, hx_http_pair(stamp_header, request->stamp));

	if (operation == NULL)
	{
		if (request->body != NULL)
			set_json(call, request->body);
		if (request->has_content)
		{
			call->body = request->content;
			call->body_len = request->content_len;
		}
		return;
	}

	call->once = !repeats_safely(operation);
	if (!request->creates && request->remote_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("the id of the record is not known")));
	if (batch)
	{
		call->path = hx_json_text(operation, "batch.path");
		set_json(call, make_array(operation, requests));
		return;
	}
	if (!request->creates)
		call->path = fill_path(request->path, request->remote_id);
	if (body != NULL && strcmp(body, "none") == 0)
		return;
	object = make_object(operation, requests);
	if (body == NULL || strcmp(body, "object") == 0)
		set_json(call, object);
	else if (strcmp(body, "array") == 0)
		set_json(call, make_array(operation, requests));
	else if (strcmp(body, "field_values") == 0)
		set_json(call, make_field_values(object));
	else
		set_form(call, operation, request, object);
}

/*
 * The one call for the step of a list of requests.  What cannot be made into a
 * call (a path that makes no URL, say) is an error here or when it is signed.
 */
HxCall *
hx_outbox_call(const HxAccount *account, List *requests)
{
	HxCall	   *call = palloc0(sizeof(HxCall));
	HxRequest  *request = linitial(requests);

	switch (request->step)
	{
		case HX_STEP_RESOLVE:
			make_natural_key_call(account, request, call);
			break;
		case HX_STEP_LOOK_UP:
			if (request->creates)
				make_natural_key_call(account, request, call);
			else
				make_verify_call(hx_json_part(hx_wire_operation(account, request), "verify"), account, requests, call);
			break;
		case HX_STEP_SEND:
			make_work_call(account, requests, call);
			break;
		case HX_STEP_DONE:
			elog(ERROR, "a request that is done makes no call");
	}
	return call;
}
