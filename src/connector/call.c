/*-------------------------------------------------------------------------
 *
 * call.c
 *	  Calls as the user writes them: arguments, query, headers, content.
 *
 * hubex_request() and hubex_enqueue() take the same first seven arguments;
 * both check them here, so that what one refuses the other does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "connector/connector.h"

static void
add_pair(List **pairs, const char *name, const JsonbValue *value)
{
	if (value->type != jbvNull)
		*pairs = lappend(*pairs, hx_http_pair(name, hx_json_value_text(value)));
}

static void
add_query_member(const char *name, const JsonbValue *value, void *arg)
{
	if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data))
	{
		ListCell   *cell;

		foreach(cell, hx_json_elements(hx_json_value_part(value)))
			add_pair(arg, name, lfirst(cell));
	}
	else
		add_pair(arg, name, value);
}

/* The pairs of a query given as an object; an array repeats its name. */
List *
hx_call_query(const Jsonb *query)
{
	List	   *pairs = NIL;

	hx_json_each(query, add_query_member, &pairs);
	return pairs;
}

static void
add_header(const char *name, const JsonbValue *value, void *arg)
{
	add_pair(arg, name, value);
}

/* The headers given as an object. */
List *
hx_call_headers(const Jsonb *headers)
{
	List	   *pairs = NIL;

	hx_json_each(headers, add_header, &pairs);
	return pairs;
}

static void
check_header(const char *name, const char *value)
{
	static const char *const kept[] = {
		"authorization", "cookie", "proxy-authorization", "host", "content-length",
		"content-type", "transfer-encoding", "connection", "expect"
	};

	for (int i = 0; i < lengthof(kept); i++)
		if (pg_strcasecmp(name, kept[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("header \"%s\" cannot be given", name),
					 i < 3 ? errhint("Credentials belong into the user mapping of the server.")
					 : errhint("hubex writes it itself; content_type is an argument.")));
	if (*name == '\0' || strpbrk(name, " \t\r\n:\"(),/;<=>?@[\\]{}") != NULL || strpbrk(value, "\r\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("header \"%s\" is not a valid header", name)));
}

static Jsonb *
object_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	Jsonb	   *object;

	if (PG_ARGISNULL(n))
		return NULL;
	object = PG_GETARG_JSONB_P(n);
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON object", name)));
	return object;
}

/*
 * Reads method, path, body, query, headers, content and content_type from the
 * first seven arguments of an SQL function.
 */
void
hx_call_from_args(FunctionCallInfo fcinfo, HxCall *call)
{
	static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"};
	char	   *method = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	ListCell   *cell;

	memset(call, 0, sizeof(HxCall));
	for (int i = 0; method != NULL && i < lengthof(methods); i++)
		if (pg_strcasecmp(method, methods[i]) == 0)
			call->method = methods[i];
	if (call->method == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown method \"%s\"", method ? method : ""),
				 errhint("The methods are GET, HEAD, POST, PUT, PATCH and DELETE.")));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", "path", "null")));
	call->path = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(5))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("body and content exclude each other")));
	if (!PG_ARGISNULL(2))
	{
		char	   *text = hx_json_out(PG_GETARG_JSONB_P(2));

		call->body = pg_server_to_any(text, strlen(text), PG_UTF8);
		call->body_len = strlen(call->body);
	}
	if (!PG_ARGISNULL(5))
	{
		bytea	   *content = PG_GETARG_BYTEA_PP(5);

		call->body = VARDATA_ANY(content);
		call->body_len = VARSIZE_ANY_EXHDR(content);
		call->content_type = "application/octet-stream";
	}
	if (!PG_ARGISNULL(6))
		call->content_type = text_to_cstring(PG_GETARG_TEXT_PP(6));
	if (call->content_type != NULL && strpbrk(call->content_type, "\r\n") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid content type")));

	call->query = hx_call_query(object_arg(fcinfo, 3, "query"));
	call->headers = hx_call_headers(object_arg(fcinfo, 4, "headers"));
	foreach(cell, call->headers)
	{
		HxPair	   *header = lfirst(cell);

		check_header(header->name, header->value);
	}
}

/* Sees to it that the call makes a URL; an error where its path does not. */
void
hx_call_check(const HxAccount *account, const HxCall *call)
{
	(void) hx_http_url(account->url, call->path, call->query);
}
