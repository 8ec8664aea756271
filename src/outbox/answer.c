/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  What is sent for a request of the outbox, and what its answer means.
 *
 * The heart of "one effect".  A request that makes a record carries its stamp
 * in the connector's idempotency header and a natural key in its body.  When
 * it cannot be known whether the remote system did the work (the connection
 * broke, the answer was cut off, a gateway answered 502), the record is
 * looked up by the natural key, and the request is sent again only if it is
 * not there.  A conflict (409) is looked up too: it means "already made" if
 * the record is there, and a business refusal if not.
 *
 * Nothing here touches the database or the network; it can run anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "outbox/outbox.h"

#define LOOKUP_MAX_RECORDS	100
#define ERROR_MAX_BYTES		2000

static Jsonb *
create_of(const HxAccount *account, const HxRequest *request)
{
	if (!request->creates)
		return NULL;
	return hx_json_part(hx_manifest_resource(account->manifest, account->connector, request->resource), "create");
}

/* The call that a request makes. */
HxCall *
hx_outbox_call(const HxAccount *account, const HxRequest *request)
{
	HxCall	   *call = palloc0(sizeof(HxCall));
	Jsonb	   *create = create_of(account, request);
	char	   *stamp_header = create ? hx_json_text(create, "idempotency_header") : NULL;

	call->method = request->method;
	call->path = request->path;
	call->query = hx_call_query(request->query);
	call->headers = hx_call_headers(request->headers);
	if (stamp_header != NULL)
		call->headers = lappend(call->headers, hx_http_pair(stamp_header, request->stamp));
	if (request->text != NULL)
	{
		call->body = pg_server_to_any(request->text, strlen(request->text), PG_UTF8);
		call->body_len = strlen(call->body);
		call->content_type = request->content_type;
	}
	if (request->has_content)
	{
		call->body = request->body;
		call->body_len = request->body_len;
		call->content_type = request->content_type;
	}
	return call;
}

/* Does the connector (still) say how a record of the request's resource is created? */
bool
hx_outbox_can_create(const HxAccount *account, const HxRequest *request)
{
	Jsonb	   *resource = hx_json_part(account->manifest, "resources");

	return hx_json_part(hx_json_part(resource, request->resource), "create") != NULL;
}

/* Can it be found out whether the record is there? */
bool
hx_outbox_can_look_up(const HxAccount *account, const HxRequest *request)
{
	Jsonb	   *create = create_of(account, request);

	return create != NULL && request->natural_key != NULL &&
		hx_json_text(create, "natural_key_filter") != NULL;
}

/* The call that looks the record up by its natural key. */
HxCall *
hx_outbox_lookup_call(const HxAccount *account, const HxRequest *request)
{
	HxCall	   *call = palloc0(sizeof(HxCall));
	Jsonb	   *create = create_of(account, request);
	int64		first = hx_json_int(account->manifest, "paging.first", 1);

	call->method = "GET";
	call->path = hx_json_text(hx_manifest_resource(account->manifest, account->connector, request->resource), "path");
	call->query = lappend(call->query, hx_http_pair(hx_json_text(create, "natural_key_filter"),
												  request->natural_key));
	call->headers = lappend(call->headers,
							hx_http_pair("Range", psprintf("%s=" INT64_FORMAT "-" INT64_FORMAT,
														   hx_json_text(account->manifest, "paging.unit"),
														   first, first + LOOKUP_MAX_RECORDS - 1)));
	return call;
}

/* A text that fits a row: valid in the database's encoding, and not huge. */
static char *
tidy(const char *text)
{
	char	   *copy;
	int			len = strlen(text);

	if (len > ERROR_MAX_BYTES)
		len = pg_mbcliplen(text, len, ERROR_MAX_BYTES);
	copy = pnstrdup(text, len);
	if (!pg_verify_mbstr(GetDatabaseEncoding(), copy, len, true))
		for (char *c = copy; *c; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return copy;
}

/* Ends the attempt: the request waits for its next one, or is given up. */
static void
try_again(const HxAccount *account, const HxRequest *request, const HxHttpResult *result,
		  HxOutcome *outcome, char *error)
{
	int64		wait_ms = hx_outbox_backoff_ms(account->manifest, request->attempts,
											   result ? result->retry_after_ms : -1,
											   pg_prng_double(&pg_global_prng_state));

	outcome->error = tidy(error);
	outcome->verdict = HX_RETRY;
	outcome->next_attempt_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	if (request->attempts >= hx_json_int(account->manifest, "retry.attempts", PG_INT32_MAX))
	{
		outcome->verdict = HX_DEAD;
		outcome->next_attempt_at = 0;
	}
}

static void
give_up(HxOutcome *outcome, char *error)
{
	outcome->verdict = HX_DEAD;
	outcome->error = tidy(error);
}

/* The answer in one line: the status and what the remote system says. */
static char *
describe(const HxAccount *account, const HxHttpResult *result, const Jsonb *body)
{
	char	   *said = hx_call_problem(account, result, body);

	if (said == NULL && result->body_len > 0 && body == NULL)
		said = hx_http_safe_text(result->body, result->body_len);
	else if (said == NULL && body != NULL)
	{
		said = hx_json_out(body);
		if (strlen(said) > 300)
			said = pnstrdup(said, pg_mbcliplen(said, strlen(said), 300));
	}
	return said ? psprintf("HTTP %d: %s", result->status, said) : psprintf("HTTP %d", result->status);
}

/* Does the connector say that a status is final? */
static bool
is_final(const HxAccount *account, int status)
{
	if (status >= 300 && status < 400)
		return true;			/* redirects are not followed */
	return hx_json_has(hx_json_part(account->manifest, "retry.final"), psprintf("%d", status));
}

/*
 * Judges how a request went.  The outcome comes with id and the request's
 * uncertainty filled in.  Error texts are the remote system's own words.
 */
HxNextStep
hx_outbox_judge(const HxAccount *account, const HxRequest *request,
				const HxHttpResult *result, HxOutcome *outcome)
{
	Jsonb	   *create = create_of(account, request);
	bool		success = result->status >= 200 && result->status < 300;
	Jsonb	   *body = NULL;
	char	   *not_json = NULL;

	outcome->status = result->status;
	outcome->error = NULL;
	outcome->next_attempt_at = 0;

	if (result->outcome == HX_HTTP_NOT_SENT)
	{
		try_again(account, request, result, outcome, psprintf("not sent, %s failed: %s", result->stage, result->error));
		return HX_STEP_DONE;
	}
	if (result->outcome != HX_HTTP_ANSWERED && !(success && !request->creates))
	{
		char	   *error = psprintf("no whole answer (%s): %s", result->stage, result->error);

		if (create != NULL)
			outcome->uncertain = true;
		if (create != NULL && success && hx_outbox_can_look_up(account, request))
		{
			outcome->error = tidy(error);
			return HX_STEP_LOOK_UP; /* it was made; only its id is missing */
		}
		try_again(account, request, result, outcome, error);
		return HX_STEP_DONE;
	}

	if (result->outcome == HX_HTTP_ANSWERED && result->body_len > 0)
		body = hx_json_try_parse(result->body, result->body_len, &not_json);

	if (success)
	{
		Jsonb	   *refusal = hx_call_refusal(account, body);

		if (refusal != NULL)
		{
			give_up(outcome, psprintf("refused with HTTP %d: %s", result->status, hx_json_out(refusal)));
			outcome->response = body;
			return HX_STEP_DONE;
		}
		outcome->verdict = HX_DELIVERED;
		outcome->response = body;
		outcome->uncertain = false;
		if (result->outcome != HX_HTTP_ANSWERED)
			outcome->error = tidy(psprintf("done, but the answer broke off: %s", result->error));
		if (create != NULL)
		{
			char	   *number = hx_json_text(create, "number");

			outcome->remote_id = body ? hx_json_text(body, hx_json_text(create, "id")) : NULL;
			outcome->remote_number = (body && number) ? hx_json_text(body, number) : NULL;
			if (outcome->remote_id == NULL)
			{
				outcome->error = tidy(psprintf("made, but the answer has no id%s%s",
											   not_json ? ": " : "", not_json ? not_json : ""));
				outcome->uncertain = true;
				if (hx_outbox_can_look_up(account, request))
					return HX_STEP_LOOK_UP;
				outcome->uncertain = false;
			}
		}
		return HX_STEP_DONE;
	}

	if (create != NULL && result->status == hx_json_int(create, "conflict", -1) &&
		hx_outbox_can_look_up(account, request))
	{
		outcome->error = tidy(describe(account, result, body));
		outcome->response = body;
		return HX_STEP_LOOK_UP;
	}
	if (is_final(account, result->status))
	{
		give_up(outcome, describe(account, result, body));
		outcome->response = body;
		return HX_STEP_DONE;
	}

	/* A gateway's or server's failure may hide that the work was done. */
	if (create != NULL && (result->status >= 500 || result->status == 408))
		outcome->uncertain = true;
	try_again(account, request, result, outcome, describe(account, result, body));
	return HX_STEP_DONE;
}

/*
 * Clocks differ; a record that is older than its request by more is another's.
 * Where a stamp can tell the truth after that, a mistake costs two requests;
 * where none can, it would cost a second record.
 */
#define CLOCKS_DIFFER_MS		(10 * 1000)
#define CLOCKS_DIFFER_NO_STAMP_MS	(10 * 60 * 1000)

/* The records a look-up found: which is the request's own? */
typedef struct Candidates
{
	const HxRequest *request;
	Jsonb	   *resource;
	List	   *known_ids;		/* of records that other requests made */
	bool		take_older;		/* records from before the request, too */
	char	   *id;				/* of the newest one so far; NULL: none */
	char	   *number;
} Candidates;

/* Was a record made before the request was? */
static bool
is_older(const Candidates *candidates, const Jsonb *record)
{
	char	   *place = hx_json_text(candidates->resource, "create.created");
	bool		has_stamp = hx_json_text(candidates->resource, "create.idempotency_header") != NULL;
	char	   *text = place ? hx_json_text(record, place) : NULL;
	TimestampTz created;

	return text != NULL && hx_record_time(candidates->resource, text, &created) &&
		TimestampDifferenceMilliseconds(created, candidates->request->created_at) >
		(has_stamp ? CLOCKS_DIFFER_MS : CLOCKS_DIFFER_NO_STAMP_MS);
}

/*
 * Considers one record.  The natural key is not unique there, and somebody
 * else may have used it: what other requests made and what is older than the
 * request is not its own, and of the rest the newest is, by its id.
 */
static void
consider(const char *id, const JsonbValue *value, void *arg)
{
	Candidates *candidates = arg;
	Jsonb	   *record = value->type == jbvBinary ? hx_json_value_part(value) : NULL;
	char	   *field = hx_json_text(candidates->resource, "create.natural_key");
	char	   *key = record ? hx_json_text(record, field) : NULL;
	char	   *number = hx_json_text(candidates->resource, "create.number");
	ListCell   *cell;

	/* The filter is only trusted to save traffic. */
	if (key == NULL || strcmp(key, candidates->request->natural_key) != 0)
		return;
	foreach(cell, candidates->known_ids)
		if (strcmp(lfirst(cell), id) == 0)
			return;
	if (!candidates->take_older && is_older(candidates, record))
		return;
	if (candidates->id != NULL &&
		(strlen(id) < strlen(candidates->id) ||
		 (strlen(id) == strlen(candidates->id) && strcmp(id, candidates->id) < 0)))
		return;
	candidates->id = pstrdup(id);
	candidates->number = number ? hx_json_text(record, number) : NULL;
}

/*
 * Judges the answer of a look-up.  outcome->error, where set, says what led
 * here; outcome->status is still that of the request itself, 0 if it has not
 * been sent since.  known_ids are records that other requests made.
 */
HxNextStep
hx_outbox_judge_lookup(const HxAccount *account, const HxRequest *request,
					   const HxHttpResult *result, List *known_ids, HxOutcome *outcome)
{
	Jsonb	   *create = create_of(account, request);
	Candidates	candidates = {.request = request,.known_ids = known_ids};
	bool		refused = outcome->status == hx_json_int(create, "conflict", -1);
	Jsonb	   *body = NULL;
	char	   *problem = NULL;

	if (result->outcome == HX_HTTP_ANSWERED && result->status != 204 && result->body_len > 0)
		body = hx_json_try_parse(result->body, result->body_len, &problem);
	if (result->outcome != HX_HTTP_ANSWERED || result->status < 200 || result->status > 299 ||
		(result->status != 204 && (body == NULL || !JB_ROOT_IS_OBJECT(body) ||
								   JB_ROOT_COUNT(body) >= LOOKUP_MAX_RECORDS)))
	{
		outcome->uncertain = true;
		outcome->remote_id = NULL;
		try_again(account, request, result, outcome,
				  psprintf("%s%scould not be looked up by %s: %s",
						   outcome->error ? outcome->error : "", outcome->error ? "; " : "",
						   hx_json_text(create, "natural_key"),
						   result->outcome == HX_HTTP_ANSWERED ? describe(account, result, body) : result->error));
		return HX_STEP_DONE;
	}

	/*
	 * A stamp that was refused after an attempt of unknown outcome speaks for
	 * a record of ours, whatever the clocks say.
	 */
	candidates.resource = hx_manifest_resource(account->manifest, account->connector, request->resource);
	candidates.take_older = refused && request->uncertain;
	hx_json_each(body, consider, &candidates);
	if (candidates.id != NULL)
	{
		outcome->remote_id = candidates.id;
		outcome->remote_number = candidates.number;
		outcome->verdict = HX_DELIVERED;
		outcome->uncertain = false;
		outcome->error = NULL;
		outcome->response = NULL;
		return HX_STEP_DONE;
	}
	if (refused)
	{
		outcome->verdict = HX_DEAD;
		outcome->uncertain = false;
		return HX_STEP_DONE;
	}
	if (outcome->status >= 200 && outcome->status < 300)
	{
		/* It said it was made, so give the list time to show it. */
		outcome->uncertain = true;
		try_again(account, request, result, outcome, psprintf("%s; not to be found yet", outcome->error));
		return HX_STEP_DONE;
	}
	outcome->error = NULL;
	return HX_STEP_SEND;
}
