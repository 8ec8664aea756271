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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "connector/connector.h"
#include "connector/token.h"

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
