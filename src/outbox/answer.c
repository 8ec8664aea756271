/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  What the answer to a request of the outbox means.
 *
 * The heart of "one effect".  A request that makes a record carries its stamp
 * in the connector's idempotency header and a natural key in its body.  When
 * it cannot be known whether the remote system did the work (the connection
 * broke, the answer was cut off, a gateway answered 502), it is looked up
 * (reconcile.c), and the request is sent again only if it is not done.  What
 * may be repeated without harm is just sent again.  A conflict (409) of a
 * creation is looked up too: it means "already made" if the record is there,
 * and a business refusal if not.
 *
 * Of several requests in one call each gets an end of its own.  A call that is
 * refused as a whole is halved until the one it is refused for stands alone;
 * where the answer only says that not all of it was done, each is looked up.
 *
 * Nothing here touches the database or the network; it can run anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "outbox/answer.h"

#define ERROR_MAX_BYTES		2000

/* ---- reading ---- */

/* Adds the texts at a place below a value; of an array, those of all its elements. */
static void
collect_texts(const JsonbValue *value, const char *place, List **texts)
{
	JsonbContainer *container = value->type == jbvBinary ? value->val.binary.data : NULL;
	char	   *text;

	if (container != NULL && JsonContainerIsArray(container))
	{
		ListCell   *cell;

		foreach(cell, hx_json_elements(hx_json_value_part(value)))
			collect_texts(lfirst(cell), place, texts);
	}
	else if (place == NULL)
	{
		text = hx_json_value_text(value);
		if (text != NULL)
			*texts = lappend(*texts, text);
	}
	else if (container != NULL && JsonContainerIsObject(container))
	{
		const char *dot = strchr(place, '.');
		JsonbValue	member;

		if (getKeyJsonValueFromContainer(container, place, dot ? dot - place : strlen(place), &member) != NULL)
			collect_texts(&member, dot ? dot + 1 : NULL, texts);
	}
}

/*
 * The texts at a place of a document, a List of char *.  A place is a path of
 * members that goes through arrays; "@record" is the document itself.
 */
List *
hx_answer_texts(const Jsonb *document, const char *place)
{
	List	   *texts = NIL;
	JsonbValue	value;

	if (document == NULL || place == NULL)
		return NIL;
	JsonbToJsonbValue(unconstify(Jsonb *, document), &value);
	if (JB_ROOT_IS_SCALAR(document))
		(void) JsonbExtractScalar(unconstify(JsonbContainer *, &document->root), &value);
	collect_texts(&value, strcmp(place, "@record") == 0 ? NULL : place, &texts);
	return texts;
}

static char *
first_text(const Jsonb *document, const char *place)
{
	List	   *texts = hx_answer_texts(document, place);

	return texts == NIL ? NULL : linitial(texts);
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

/* The answer in one line: the status and what the remote system says. */
char *
hx_answer_describe(const HxAccount *account, const HxHttpResult *result, const Jsonb *body)
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
bool
hx_answer_is_final(const HxAccount *account, int status)
{
	return hx_retry_is_final(account->manifest, status);
}

/* A refusal inside an answer of success, in the remote system's words; NULL: none. */
static char *
refusal_inside(const HxAccount *account, const Jsonb *operation, const Jsonb *body)
{
	Jsonb	   *refusal = hx_call_refusal(account, body);
	StringInfoData words;
	ListCell   *cell;

	if (refusal != NULL)
		return hx_json_out(refusal);
	initStringInfo(&words);
	foreach(cell, hx_answer_texts(body, operation ? hx_json_text(operation, "refusal") : NULL))
		if (*(char *) lfirst(cell) != '\0')
			appendStringInfo(&words, "%s%s", words.len ? "; " : "", (char *) lfirst(cell));
	return words.len ? words.data : NULL;
}

/* ---- ends ---- */

/* Ends the attempt: the request waits for its next one, or is given up. */
void
hx_answer_try_again(const HxAccount *account, HxRequest *request, const HxHttpResult *result, char *error)
{
	hx_outbox_try_again(account, request, result ? result->retry_after_ms : -1, tidy(error));
}

void
hx_answer_give_up(HxRequest *request, char *error)
{
	request->step = HX_STEP_DONE;
	request->outcome.verdict = HX_DEAD;
	request->outcome.error = tidy(error);
}

/* The work is done; of a change the record is the one it is about. */
void
hx_answer_deliver(HxRequest *request)
{
	request->step = HX_STEP_DONE;
	request->outcome.verdict = HX_DELIVERED;
	request->outcome.uncertain = false;
	request->outcome.error = NULL;
	if (!request->creates)
		request->outcome.remote_id = request->remote_id;
}

/* ---- what was sent ---- */

typedef struct Answer
{
	const HxAccount *account;
	const HxHttpResult *result;
	Jsonb	   *operation;		/* NULL: a plain call */
	bool		success;		/* by its status */
	bool		whole;
	Jsonb	   *body;			/* NULL: none, or not JSON */
	char	   *not_json;		/* why it is not */
	int			together;		/* so many requests went as this call */
	bool		batch;			/* of several records */
} Answer;

/* The call's requests go once more, in calls of half as many. */
static void
halve(const Answer *answer, HxRequest *request)
{
	request->step = HX_STEP_SEND;
	request->most = Max(answer->together / 2, 1);
	request->outcome.error = NULL;
}

/* The work may have been done: find out where that can be, else try again later. */
static void
judge_unknown(const Answer *answer, HxRequest *request)
{
	const HxHttpResult *result = answer->result;
	char	   *error = psprintf("no whole answer (%s): %s", result->stage, result->error);
	HxOutcome  *outcome = &request->outcome;

	if (!hx_outbox_repeats_safely(answer->account, request))
	{
		outcome->uncertain = true;
		if (answer->success && hx_wire_can_look_up(answer->account, request))
		{
			outcome->error = tidy(error);
			request->step = HX_STEP_LOOK_UP;	/* only its answer is missing */
			return;
		}
	}
	else if (answer->success)
	{
		hx_answer_deliver(request);
		outcome->error = tidy(psprintf("done, but the answer broke off: %s", result->error));
		return;
	}
	hx_answer_try_again(answer->account, request, result, error);
}

/* It was made; what is it there? */
static void
judge_made(const Answer *answer, HxRequest *request)
{
	HxOutcome  *outcome = &request->outcome;

	hx_answer_deliver(request);
	outcome->remote_id = first_text(answer->body, hx_json_text(answer->operation, "id"));
	outcome->remote_number = first_text(answer->body, hx_json_text(answer->operation, "number"));
	if (outcome->remote_id != NULL)
		return;
	outcome->error = tidy(psprintf("made, but the answer has no id%s%s",
								   answer->not_json ? ": " : "", answer->not_json ? answer->not_json : ""));
	if (hx_wire_can_look_up(answer->account, request))
	{
		outcome->uncertain = true;
		request->step = HX_STEP_LOOK_UP;
	}
}

/*
 * A batch of which not all was done.  The answer does not say which: each is
 * looked up, and what is not done is sent alone, to get a refusal of its own.
 */
static void
judge_some_refused(const Answer *answer, HxRequest *request)
{
	if (!hx_wire_can_look_up(answer->account, request))
	{
		halve(answer, request);
		return;
	}
	request->outcome.uncertain = true;
	request->step = HX_STEP_LOOK_UP;
}

static void
judge_success(const Answer *answer, HxRequest *request)
{
	char	   *succeeded = answer->batch ? hx_json_text(answer->operation, "batch.succeeded") : NULL;
	char	   *refusal = refusal_inside(answer->account, answer->operation, answer->body);
	HxOutcome  *outcome = &request->outcome;

	if (answer->batch && (refusal != NULL || (succeeded != NULL && !hx_json_bool(answer->body, succeeded, true))))
		judge_some_refused(answer, request);
	else if (refusal != NULL && answer->together > 1)
		halve(answer, request);
	else if (refusal != NULL)
	{
		hx_answer_give_up(request, psprintf("refused with HTTP %d: %s", answer->result->status, refusal));
		outcome->response = answer->body;
	}
	else if (request->creates && answer->operation != NULL)
	{
		judge_made(answer, request);
		outcome->response = answer->body;
	}
	else if (answer->not_json != NULL && !hx_outbox_repeats_safely(answer->account, request) &&
			 hx_wire_can_look_up(answer->account, request))
	{
		/* A refusal may be in what cannot be read. */
		outcome->error = tidy(psprintf("the answer cannot be read: %s", answer->not_json));
		outcome->uncertain = true;
		request->step = HX_STEP_LOOK_UP;
	}
	else
	{
		hx_answer_deliver(request);
		outcome->response = answer->body;
		if (answer->operation != NULL)
			outcome->remote_number = first_text(answer->body, hx_json_text(answer->operation, "number"));
	}
}

static void
judge_failure(const Answer *answer, HxRequest *request)
{
	const HxHttpResult *result = answer->result;
	HxOutcome  *outcome = &request->outcome;
	char	   *said = hx_answer_describe(answer->account, result, answer->body);

	if (request->creates && answer->operation != NULL &&
		result->status == hx_json_int(answer->operation, "conflict", -1) &&
		hx_wire_can_look_up(answer->account, request))
	{
		outcome->error = tidy(said);
		outcome->response = answer->body;
		request->step = HX_STEP_LOOK_UP;
	}
	else if (answer->operation != NULL &&
			 hx_json_has(hx_json_part(answer->operation, "gone"), psprintf("%d", result->status)))
	{
		hx_answer_deliver(request);
		outcome->response = answer->body;
	}
	else if (hx_answer_is_final(answer->account, result->status) && answer->together > 1)
		halve(answer, request);
	else if (hx_answer_is_final(answer->account, result->status))
	{
		hx_answer_give_up(request, said);
		outcome->response = answer->body;
	}
	else
	{
		/* A gateway's or server's failure may hide that the work was done. */
		if ((result->status >= 500 || result->status == 408) &&
			!hx_outbox_repeats_safely(answer->account, request))
			outcome->uncertain = true;
		hx_answer_try_again(answer->account, request, result, said);
	}
}

static void
judge_sent(const HxAccount *account, List *requests, const HxHttpResult *result)
{
	HxRequest  *first = linitial(requests);
	Answer		answer = {account, result};
	ListCell   *cell;

	answer.operation = hx_wire_operation(account, first);
	answer.success = result->status >= 200 && result->status < 300;
	answer.whole = result->outcome == HX_HTTP_ANSWERED;
	answer.together = list_length(requests);
	answer.batch = answer.together > 1 && !hx_outbox_merges(account, first);
	if (answer.whole && result->body_len > 0)
		answer.body = hx_json_try_parse(result->body, result->body_len, &answer.not_json);
	if (answer.body != NULL)
		answer.not_json = NULL;

	foreach(cell, requests)
	{
		HxRequest  *request = lfirst(cell);
		HxOutcome  *outcome = &request->outcome;

		outcome->status = result->status;
		outcome->error = NULL;
		outcome->response = NULL;
		outcome->next_attempt_at = 0;
		outcome->uncertain |= request->uncertain;
		if (result->outcome == HX_HTTP_NOT_SENT)
			hx_answer_try_again(account, request, result,
								psprintf("not sent, %s failed: %s", result->stage, result->error));
		else if (!answer.whole)
			judge_unknown(&answer, request);
		else if (answer.success)
			judge_success(&answer, request);
		else
			judge_failure(&answer, request);
	}
}

/*
 * Judges how a call for a step went: each of its requests gets its next step,
 * and with the last its outcome, which comes with what is known already.
 * known_ids is what hx_outbox_known_ids() says of the request where something
 * was looked for.  Error texts are the remote system's own words.
 */
void
hx_outbox_judge(const HxAccount *account, List *requests, const HxHttpResult *result, List *known_ids)
{
	switch (((HxRequest *) linitial(requests))->step)
	{
		case HX_STEP_RESOLVE:
			hx_reconcile_resolved(account, linitial(requests), result, known_ids);
			break;
		case HX_STEP_LOOK_UP:
			hx_reconcile_looked_up(account, requests, result, known_ids);
			break;
		case HX_STEP_SEND:
			judge_sent(account, requests, result);
			break;
		case HX_STEP_DONE:
			break;
	}
}
