/*-------------------------------------------------------------------------
 *
 * read.c
 *	  Calls made now: hubex_request, hubex_get, hubex_list, hubex_tasks and the
 *	  probe of an account.
 *
 * They go past the outbox: nothing is kept, nothing is repeated but for a
 * renewed token, and what the remote system refuses is an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "base/settings.h"
#include "connector/reader.h"

PG_FUNCTION_INFO_V1(hubex_get);
PG_FUNCTION_INFO_V1(hubex_list);
PG_FUNCTION_INFO_V1(hubex_request);
PG_FUNCTION_INFO_V1(hubex_tasks);
PG_FUNCTION_INFO_V1(hubex_probe);

static char *
server_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : NameStr(*PG_GETARG_NAME(n));
}

/* The headers of an answer as an object; a repeated one keeps its last value. */
static Jsonb *
headers_object(const HxHttpResult *result)
{
	HxJsonBuilder builder;
	ListCell   *cell;

	hx_json_begin(&builder);
	foreach(cell, result->headers)
	{
		HxPair	   *header = lfirst(cell);

		/* A cookie is a credential; it has no place in a result. */
		if (strcmp(header->name, "set-cookie") != 0)
			hx_json_add_text(&builder, header->name, header->value);
	}
	return hx_json_end(&builder);
}

/*
 * hubex_request(method, path, body, query, headers, content, content_type,
 * server) -> (status, headers, body, content).  A status of 300 or more is an
 * error, as is an answer that says it is JSON and is not.
 */
Datum
hubex_request(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false, false, true, true};
	HxCall		call;
	HxAccount  *account;
	const HxHttpResult *result;
	const char *type;
	Jsonb	   *body = NULL;
	char	   *problem;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "hubex_request must return a row");
	hx_call_from_args(fcinfo, &call);
	account = hx_account_open(server_arg(fcinfo, 7), GetUserId(), true);
	hx_call_check(account, &call);

	result = hx_call_perform(account, &call);
	if (result->outcome != HX_HTTP_ANSWERED || result->status < 200 || result->status > 299)
	{
		if (result->body_len > 0)
			body = hx_json_try_parse(result->body, result->body_len, &problem);
		hx_http_report(ERROR, result, hx_call_problem(account, result, body));
	}

	type = hx_http_header(result, "content-type");
	if (result->body_len > 0)
	{
		if (type != NULL && strstr(type, "json") != NULL)
			body = hx_json_parse(result->body, result->body_len);
		if (body != NULL)
		{
			values[2] = JsonbPGetDatum(body);
			nulls[2] = false;
		}
		else
		{
			bytea	   *content = palloc(VARHDRSZ + result->body_len);

			SET_VARSIZE(content, VARHDRSZ + result->body_len);
			memcpy(VARDATA(content), result->body, result->body_len);
			values[3] = PointerGetDatum(content);
			nulls[3] = false;
		}
	}
	values[0] = Int32GetDatum(result->status);
	values[1] = JsonbPGetDatum(headers_object(result));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * hubex_get(resource, key, server) -> jsonb: one record by its id, now.  A
 * status of 300 or more is an error, so is one that is not there.
 */
Datum
hubex_get(PG_FUNCTION_ARGS)
{
	HxCall		call = {.method = "GET"};
	const HxHttpResult *result;
	HxAccount  *account;
	Jsonb	   *resource;
	Jsonb	   *body = NULL;
	char	   *key;
	char	   *problem;

	for (int i = 0; i < 2; i++)
		if (PG_ARGISNULL(i) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(i)) == 0)
			ereport(ERROR,
					(errcode(PG_ARGISNULL(i) ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" must not be %s", i == 0 ? "resource" : "key",
							PG_ARGISNULL(i) ? "null" : "empty")));
	account = hx_account_open(server_arg(fcinfo, 2), GetUserId(), true);
	resource = hx_manifest_resource(account->manifest, account->connector, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	key = hx_http_escape(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	call.path = psprintf("%s/%s", hx_json_text(resource, "path"), key);
	hx_call_check(account, &call);

	result = hx_call_perform(account, &call);
	if (result->outcome == HX_HTTP_ANSWERED && result->status >= 200 && result->status <= 299)
		PG_RETURN_JSONB_P(hx_json_parse(result->body, result->body_len));
	if (result->body_len > 0)
		body = hx_json_try_parse(result->body, result->body_len, &problem);
	hx_http_report(ERROR, result, hx_call_problem(account, result, body));
	PG_RETURN_NULL();
}

/* What is to be read: the list of a resource, all of it that a filter lets through. */
static void
list_order(HxReadOrder *order, const char *server, const char *resource, const Jsonb *filter)
{
	HxReadPart *part = palloc0(sizeof(HxReadPart));
	HxAccount  *account = hx_account_open(server, GetUserId(), true);

	memset(order, 0, sizeof(HxReadOrder));
	order->account = account;
	order->resource = hx_resource_read(account->manifest, account->connector, resource);
	part->path = order->resource->path;
	if (order->resource->parent != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("resource \"%s\" is a list of one parent", resource),
				 errhint("Read it as a foreign table, or with hubex_request.")));
	part->query = hx_resource_filter(order->resource, account->connector, filter, NULL, false);
	order->parts = list_make1(part);
	order->most = -1;
	order->all = true;
	order->priority = HX_PRIORITY_INTERACTIVE;
	order->budget = palloc0(sizeof(HxReadBudget));
	order->budget->most = hx_guc_max_requests_per_query;
}

/*
 * hubex_tasks(filter, server) -> SETOF hubex_task: all pages of GET
 * /WORK/Tasks, or an error; never a part.
 */
Datum
hubex_tasks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context;
	HxReadOrder order;
	HxReader   *reader;
	HxRecordShape *shape;
	HxRecord	record;
	Datum	   *values;
	bool	   *nulls;

	InitMaterializedSRF(fcinfo, 0);
	list_order(&order, server_arg(fcinfo, 1), "tasks", PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0));
	shape = hx_record_shape(order.resource, hx_record_columns(order.resource, rsinfo->setDesc), rsinfo->setDesc,
							NULL, false);
	reader = hx_reader_begin(&order);
	values = palloc(sizeof(Datum) * rsinfo->setDesc->natts);
	nulls = palloc(sizeof(bool) * rsinfo->setDesc->natts);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "hubex row", ALLOCSET_DEFAULT_SIZES);

	while (hx_reader_next(reader, true, &record) == HX_READ_RECORD)
	{
		MemoryContext old = MemoryContextSwitchTo(row_context);

		if (hx_record_values(shape, &record, values, nulls))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	hx_reader_end(reader);
	return (Datum) 0;
}

/* A record as a document, its id in it also where that stands outside of it. */
static Jsonb *
record_document(const HxRecord *record, bool *warned)
{
	bool		replaced;
	char	   *problem;
	Jsonb	   *document = hx_json_parse_leniently(record->bytes, record->len, &replaced, &problem);
	HxJsonBuilder builder;
	JsonbValue	id;

	if (document == NULL)
		document = hx_json_parse(record->bytes, record->len);	/* says why */
	if (replaced && !*warned)
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("letters that this database cannot hold were replaced by question marks"),
				 errdetail("Record %s is the first that has some.", record->key ? record->key : "without a name")));
	*warned |= replaced;
	if (record->key == NULL || !JB_ROOT_IS_OBJECT(document) || hx_json_find(document, "id", &id))
		return document;
	hx_json_begin(&builder);
	hx_json_add_text(&builder, "id", record->key);
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(hx_json_end(&builder)),
											  JsonbPGetDatum(document)));
}

/*
 * hubex_list(resource, filter, server) -> SETOF jsonb: all pages of a
 * resource's list, or an error; never a part.
 */
Datum
hubex_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context;
	HxReadOrder order;
	HxReader   *reader;
	HxRecord	record;
	bool		warned = false;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", "resource", "null")));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	list_order(&order, server_arg(fcinfo, 2), text_to_cstring(PG_GETARG_TEXT_PP(0)),
			   PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1));
	reader = hx_reader_begin(&order);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "hubex row", ALLOCSET_DEFAULT_SIZES);

	while (hx_reader_next(reader, true, &record) == HX_READ_RECORD)
	{
		MemoryContext old = MemoryContextSwitchTo(row_context);
		Datum		value = JsonbPGetDatum(record_document(&record, &warned));
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	hx_reader_end(reader);
	return (Datum) 0;
}

static void
take_first(const char *name, const JsonbValue *value, void *arg)
{
	char	  **first = arg;

	if (*first == NULL)
		*first = pstrdup(name);
}

/*
 * hubex.probe(server): signs in and counts the records of the resource that
 * the connector says, or its first; returns a sentence about it, or fails as
 * any call would.
 */
Datum
hubex_probe(PG_FUNCTION_ARGS)
{
	HxAccount  *account = hx_account_open(server_arg(fcinfo, 0), GetUserId(), true);
	char	   *resource = hx_json_text(account->manifest, "probe");
	HxReadOrder order;
	HxReader   *reader;
	HxRecord	record;

	if (resource == NULL)
		hx_manifest_each_resource(account->manifest, take_first, &resource);
	if (resource == NULL)
		PG_RETURN_TEXT_P(cstring_to_text("The connector has no resource to ask for."));
	list_order(&order, server_arg(fcinfo, 0), resource, NULL);
	order.most = 1;
	order.all = false;
	reader = hx_reader_begin(&order);
	(void) hx_reader_next(reader, true, &record);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("The remote system answers; it shows " INT64_FORMAT " %s.",
											  hx_reader_total(reader), resource)));
}
