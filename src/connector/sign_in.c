/*-------------------------------------------------------------------------
 *
 * sign_in.c
 *	  The sign-in by token exchange: its request and its answer.
 *
 * Credentials go out in the body of one request and nowhere else; the answer
 * goes into the token store and nowhere else.  What is said about a failed
 * sign-in is the status and the remote system's message, never the answer's
 * body, which might echo what was sent.
 *
 * For the calls of a query there is HxSignIn, a sign-in under way, which goes
 * on over the pool of streams whenever somebody of this process waits for it.
 * A query may have several scans of one account; the one that began to sign in
 * may not be looked at again before another, which waits for the token, has
 * given its rows.  So each of them drives the sign-ins of all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "connector/connector.h"
#include "connector/token.h"

/* A sign-in under way; this process is the signer. */
struct HxSignIn
{
	dlist_node	node;
	MemoryContext cxt;
	MemoryContextCallback callback;
	const HxAccount *account;
	HxPriority	priority;
	TimestampTz began;
	TimestampTz ask_at;			/* for quota, not before */
	HxTransfer *transfer;		/* NULL: not sent yet */
	bool		ended;			/* then it is in the list no more */
	bool		accepted;
	char	   *problem;
};

/* The sign-ins under way in this process; each leaves with its memory. */
static dlist_head under_way = DLIST_STATIC_INIT(under_way);

/* Must a token be fetched before calls can be made? */
bool
hx_sign_in_needed(const HxAccount *account)
{
	return strcmp(hx_json_text(account->manifest, "sign_in.mechanism"), "token_exchange") == 0;
}

/* The request that signs in; it holds the credentials. */
HxHttpRequest *
hx_sign_in_request(const HxAccount *account)
{
	HxCall	   *call = palloc0(sizeof(HxCall));
	Jsonb	   *body = hx_json_part(account->manifest, "sign_in.body");

	call->method = hx_json_text(account->manifest, "sign_in.method");
	if (call->method == NULL)
		call->method = "POST";
	call->path = hx_json_text(account->manifest, "sign_in.path");
	if (body != NULL)
	{
		char	   *text = hx_json_out(hx_account_expand_document(account, body));

		call->body = pg_server_to_any(text, strlen(text), PG_UTF8);
		call->body_len = strlen(call->body);
	}
	return hx_call_request(account, call, NULL);
}

/*
 * Takes the answer of a sign-in: stores the token and returns true, or
 * returns false and says why, palloc'd.  In the second case the caller gives
 * up the signer's part.
 */
bool
hx_sign_in_accept(const HxAccount *account, const HxHttpResult *result, char **problem)
{
	Jsonb	   *body = NULL;
	char	   *text;

	*problem = NULL;
	if (result->outcome != HX_HTTP_ANSWERED)
	{
		*problem = psprintf("sign-in failed: %s", result->error ? result->error : result->stage);
		return false;
	}
	if (result->body_len > 0)
		body = hx_json_try_parse(result->body, result->body_len, problem);
	if (result->status < 200 || result->status > 299)
	{
		char	   *said = hx_call_problem(account, result, body);

		*problem = said ? psprintf("sign-in was answered with status %d: %s", result->status, said)
			: psprintf("sign-in was answered with status %d", result->status);
		return false;
	}
	text = body ? hx_json_text(body, hx_json_text(account->manifest, "sign_in.token")) : NULL;
	if (text == NULL || *text == '\0' || strlen(text) >= HX_TOKEN_MAX ||
		strpbrk(text, "\r\n") != NULL)
	{
		*problem = pstrdup("sign-in was answered without a usable token");
		return false;
	}
	{
		int64		life = hx_json_int(account->manifest, "sign_in.life", 1800);
		char	   *place = hx_json_text(account->manifest, "sign_in.expires_in");

		if (place != NULL)
			life = hx_json_int(body, place, life);
		hx_token_store(account->key, text, Max(life, 1),
					   hx_json_int(account->manifest, "sign_in.renew_before", 60));
	}
	explicit_bzero(text, strlen(text));
	*problem = NULL;
	return true;
}

static void
sign_in_release(void *arg)
{
	HxSignIn   *sign_in = arg;

	if (sign_in->ended)
		return;
	sign_in->ended = true;
	dlist_delete(&sign_in->node);
	hx_token_give_up(sign_in->account->key);
}

/*
 * Begins to sign in, after hx_token_take() has made this process the signer.
 * The sign-in lives here, and gives the part of the signer up with its memory.
 */
HxSignIn *
hx_sign_in_begin(const HxAccount *account, HxPriority priority)
{
	HxSignIn   *sign_in = NULL;

	PG_TRY();
	{
		MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex sign-in", ALLOCSET_SMALL_SIZES);

		sign_in = MemoryContextAllocZero(cxt, sizeof(HxSignIn));
		sign_in->cxt = cxt;
	}
	PG_CATCH();
	{
		hx_token_give_up(account->key);
		PG_RE_THROW();
	}
	PG_END_TRY();
	sign_in->account = account;
	sign_in->priority = priority;
	sign_in->began = GetCurrentTimestamp();
	sign_in->callback.func = sign_in_release;
	sign_in->callback.arg = sign_in;
	dlist_push_tail(&under_way, &sign_in->node);
	MemoryContextRegisterResetCallback(sign_in->cxt, &sign_in->callback);
	return sign_in;
}

/*
 * Asks for room in the quota for a sign-in.  Anybody may be waiting for the
 * token, so it goes ahead of all that the background does, whoever the signer is.
 */
static int64
take_permit(const HxSignIn *sign_in)
{
	const HxAccount *account = sign_in->account;

	if (sign_in->priority >= HX_PRIORITY_SYNC)
		return hx_limiter_take(account->key, &account->rate, GetCurrentTimestamp(), HX_PRIORITY_INTERACTIVE);
	return hx_call_permit(account, sign_in->priority, sign_in->began);
}

/* Goes on with a sign-in where it can; true if it has ended. */
bool
hx_sign_in_step(HxSignIn *sign_in)
{
	MemoryContext old;

	if (sign_in->ended)
		return true;
	old = MemoryContextSwitchTo(sign_in->cxt);
	if (sign_in->transfer == NULL && sign_in->ask_at <= GetCurrentTimestamp())
	{
		int64		wait_us = take_permit(sign_in);

		if (wait_us > 0)
			sign_in->ask_at = GetCurrentTimestamp() + wait_us;
		else
		{
			HxHttpRequest *request = hx_sign_in_request(sign_in->account);

			request->cxt = sign_in->cxt;
			sign_in->transfer = hx_http_start(hx_http_streams(), request, NULL);
		}
	}
	if (sign_in->transfer != NULL && hx_http_ended(sign_in->transfer))
	{
		sign_in->accepted = hx_sign_in_accept(sign_in->account, hx_http_result(sign_in->transfer), &sign_in->problem);
		if (!sign_in->accepted)
			hx_token_give_up(sign_in->account->key);
		dlist_delete(&sign_in->node);
		sign_in->ended = true;
	}
	MemoryContextSwitchTo(old);
	return sign_in->ended;
}

/* The same for all sign-ins of this process. */
void
hx_sign_in_step_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &under_way)
		(void) hx_sign_in_step(dlist_container(HxSignIn, node, iter.cur));
}

/* When a sign-in has to be asked about again at the latest; 0: when its transfer ends. */
TimestampTz
hx_sign_in_ask_at(const HxSignIn *sign_in)
{
	return sign_in->transfer == NULL ? sign_in->ask_at : 0;
}

/* Ends a sign-in that has ended: frees it, or is an error where it failed. */
void
hx_sign_in_end(HxSignIn *sign_in)
{
	const HxHttpResult *result = hx_http_result(sign_in->transfer);

	if (!sign_in->accepted)
	{
		if (result->outcome == HX_HTTP_ANSWERED && result->status < 500 && result->status != 429)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					 errmsg("server \"%s\" refused the sign-in", sign_in->account->server),
					 errdetail("%s", sign_in->problem),
					 errhint("Check the user mapping's credentials and the server's options.")));
		hx_http_report(ERROR, result, sign_in->problem);
	}
	MemoryContextDelete(sign_in->cxt);
}
