/*-------------------------------------------------------------------------
 *
 * request.c
 *	  A call to an account as an HTTP request, and what its answer says.
 *
 * hx_call_request() and the two readers of answers serve both ways of
 * calling: hx_call_perform() below, which waits, and the outbox's delivery,
 * which has many under way.  Either way the token is taken from the common
 * store, and an answer 401 costs one renewal and one repetition.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "connector/connector.h"
#include "connector/token.h"

/* How long a backend waits for quota; two windows of a quota a minute. */
#define QUOTA_WAIT_MAX_S	INT64CONST(125)

typedef struct Headers
{
	const HxAccount *account;
	List	   *list;
} Headers;

static void
add_declared_header(const char *name, const JsonbValue *value, void *arg)
{
	Headers    *headers = arg;

	headers->list = lappend(headers->list,
							hx_http_pair(name, hx_account_expand(headers->account, hx_json_value_text(value))));
}

static JsonbValue *
resolve_token(const char *name, bool alone, void *arg)
{
	JsonbValue *value = palloc(sizeof(JsonbValue));

	if (strcmp(name, "token") != 0)
		return NULL;
	value->type = jbvString;
	value->val.string.val = arg;
	value->val.string.len = strlen(arg);
	return value;
}

/*
 * Makes the HTTP request of a call.  token is what the sign-in gave, or NULL
 * where the connector's sign-in needs none fetched.  The result is palloc'd
 * here and points into the call.
 */
HxHttpRequest *
hx_call_request(const HxAccount *account, const HxCall *call, const char *token)
{
	HxHttpRequest *request = palloc0(sizeof(HxHttpRequest));
	Headers		headers = {account, NIL};
	char	   *header = hx_json_text(account->manifest, "sign_in.header");
	char	   *value = hx_json_text(account->manifest, "sign_in.value");

	hx_json_each(hx_json_part(account->manifest, "headers"), add_declared_header, &headers);
	if (token != NULL)
	{
		value = hx_json_expand_text(value, resolve_token, unconstify(char *, token));
		headers.list = lappend(headers.list, hx_http_pair(header, value));
	}
	else if (strcmp(hx_json_text(account->manifest, "sign_in.mechanism"), "header") == 0)
		headers.list = lappend(headers.list, hx_http_pair(header, hx_account_expand(account, value)));
	if (call->body != NULL)
		headers.list = lappend(headers.list,
							   hx_http_pair("Content-Type", call->content_type ? call->content_type : "application/json"));
	headers.list = list_concat(headers.list, call->headers);

	request->method = call->method;
	request->url = hx_http_url(account->url, call->path, call->query);
	request->headers = headers.list;
	request->body = call->body;
	request->body_len = call->body_len;
	request->parts = call->parts;
	request->once = call->once;
	request->connect_timeout_ms = account->connect_timeout_ms;
	request->timeout_ms = account->timeout_ms;
	request->max_connections = account->max_connections;
	request->ca_file = account->ca_file;
	request->proxy = account->proxy;
	request->allow_http = account->allow_http;
	request->secrets = list_copy(account->secrets);
	if (token != NULL)
		request->secrets = lappend(request->secrets, unconstify(char *, token));
	return request;
}

/*
 * What the remote system says is wrong, from the places the connector names:
 * "Code: message (trace 123)".  NULL where it says nothing.
 */
char *
hx_call_problem(const HxAccount *account, const HxHttpResult *result, const Jsonb *body)
{
	static const char *const places[] = {"errors.code", "errors.message", "errors.trace"};
	char	   *said[lengthof(places)] = {NULL};

	if (body == NULL)
		return NULL;
	for (int i = 0; i < lengthof(places); i++)
	{
		char	   *place = hx_json_text(account->manifest, places[i]);

		if (place != NULL)
			said[i] = hx_json_text(body, place);
		if (said[i] != NULL && *said[i] == '\0')
			said[i] = NULL;
	}
	if (said[0] == NULL && said[1] == NULL)
		return NULL;
	return psprintf("%s%s%s%s%s%s",
					said[0] ? said[0] : "", said[0] && said[1] ? ": " : "", said[1] ? said[1] : "",
					said[2] ? " (trace " : "", said[2] ? said[2] : "", said[2] ? ")" : "");
}

/*
 * A refusal inside an answer of success, such as HubEx's non-empty "errors";
 * NULL where there is none.
 */
Jsonb *
hx_call_refusal(const HxAccount *account, const Jsonb *body)
{
	char	   *place = hx_json_text(account->manifest, "errors.refusal");
	Jsonb	   *refusal = (place && body) ? hx_json_part(body, place) : NULL;

	return (refusal != NULL && JB_ROOT_COUNT(refusal) > 0) ? refusal : NULL;
}

/* Waits a moment, interruptibly. */
static void
nap(long milliseconds)
{
	static uint32 event = 0;

	if (event == 0)
		event = hx_wait_event("HubexQuota");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds, event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Asks for room in the account's quota for one more request: 0 takes it, else
 * so many microseconds later it makes sense to ask again.  Where somebody waits
 * for an answer, since some time, he is told when that would take too long;
 * what goes on in the background waits as long as it takes.
 */
int64
hx_call_permit(const HxAccount *account, HxPriority priority, TimestampTz since)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		wait_us = hx_limiter_take(account->key, &account->rate, now, priority);

	if (priority < HX_PRIORITY_SYNC && wait_us > 0 && now - since + wait_us > QUOTA_WAIT_MAX_S * USECS_PER_SEC)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("the quota of server \"%s\" has no room", account->server),
				 errdetail("There may be some in %lld seconds.", (long long) (wait_us / USECS_PER_SEC + 1)),
				 errhint("The remote system asked for a pause (Retry-After), or rate_limit is used up.")));
	return Max(wait_us, 0);
}

/* Waits for such room. */
static void
take_permit(const HxAccount *account)
{
	TimestampTz begin = GetCurrentTimestamp();
	int64		wait_us;

	while ((wait_us = hx_call_permit(account, HX_PRIORITY_INTERACTIVE, begin)) > 0)
		nap(Min(wait_us / 1000 + 1, 1000));
}

/* Signs in; an error where that fails.  This process is the signer. */
static void
sign_in(const HxAccount *account)
{
	HxSignIn   *under_way = hx_sign_in_begin(account, HX_PRIORITY_INTERACTIVE);

	while (!hx_sign_in_step(under_way))
	{
		TimestampTz ask_at = hx_sign_in_ask_at(under_way);

		(void) hx_http_streams_wait(ask_at == 0 ? -1 : TimestampDifferenceMilliseconds(GetCurrentTimestamp(), ask_at));
	}
	hx_sign_in_end(under_way);
}

/* The account's token, signing in or waiting for who does. */
static void
obtain_token(const HxAccount *account, HxToken *token)
{
	for (;;)
	{
		switch (hx_token_take(account->key, token))
		{
			case HX_TOKEN_READY:
				return;
			case HX_TOKEN_SIGN_IN:
				sign_in(account);
				break;
			case HX_TOKEN_WAIT:
				/* it may be another part of this query that signs in */
				hx_sign_in_step_all();
				(void) hx_http_streams_wait(HX_TOKEN_POLL_MS);
				break;
		}
	}
}

/*
 * Makes a call now and waits for its answer, interruptibly: signs in where
 * needed, respects the quota, repeats once after a 401 with a new token.  The
 * result, whatever it is, is palloc'd here.
 */
const HxHttpResult *
hx_call_perform(const HxAccount *account, const HxCall *call)
{
	bool		signs_in = hx_sign_in_needed(account);

	for (bool repeated = false;; repeated = true)
	{
		HxToken		token = {0, NULL};
		const HxHttpResult *result;

		if (signs_in)
			obtain_token(account, &token);
		take_permit(account);
		result = hx_http_perform(hx_call_request(account, call, token.text));
		if (!signs_in || repeated || result->outcome != HX_HTTP_ANSWERED || result->status != 401)
			return result;
		hx_token_refuse(account->key, token.version);
	}
}
