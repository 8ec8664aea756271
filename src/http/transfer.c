/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  One transfer: begun, its result copied, released.
 *
 * A transfer owns memory of libcurl, which PostgreSQL's memory contexts do not
 * see.  So it has a context of its own with a reset callback, registered
 * before there is anything of libcurl to free: whatever way control takes out
 * of the code that uses it, the context's end is the transfer's end, in flight
 * or not.
 *
 * The answer is copied once, from libcurl's memory to PostgreSQL's, and the
 * former is given back at once: a large body is held twice only while copied.
 *
 * Some systems repeat in an answer what they were sent, credentials among it,
 * above all where they complain of it; and answers end in logs, errors and
 * tables.  So what was secret in the request is made unreadable in the copy.
 * The data of a successful answer is to stay what it is: there only secrets
 * count that are too long to be anything else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port.h"
#include "utils/memutils.h"

#include "http/http_internal.h"

#define SECRET_MIN		4		/* bytes; of a failure */
#define SECRET_MIN_DATA	16		/* of a success */

static void transfer_release(void *arg);
static void transfer_prepare(HxTransfer *transfer, const HxHttpRequest *request);
static char *lower_case(const char *text);

/*
 * Begins a transfer.  It proceeds in hx_http_wait only, and turns up in
 * hx_http_next_done when it has ended, also if it was refused here.  "owner"
 * is the caller's and not looked at.  A memory context that the request names
 * must not outlive the pool.  Throws only if memory is out.
 */
HxTransfer *
hx_http_start(HxHttpPool *pool, const HxHttpRequest *request, void *owner)
{
	MemoryContext cxt;
	HxTransfer *transfer;
	ListCell   *lc;

	cxt = AllocSetContextCreate(request->cxt != NULL ? request->cxt : pool->cxt,
								"hubex http transfer", ALLOCSET_SMALL_SIZES);
	transfer = MemoryContextAllocZero(cxt, sizeof(HxTransfer));
	transfer->pool = pool;
	transfer->cxt = cxt;
	transfer->owner = owner;
	transfer->state = HX_TRANSFER_FETCHED;
	transfer->max_connections = request->max_connections > 0 ?
		request->max_connections : HX_HTTP_MAX_CONNECTIONS;
	transfer->harmless = strcmp(request->method, "GET") == 0 ||
		strcmp(request->method, "HEAD") == 0;
	transfer->stream = request->stream;
	transfer->silence_ms = request->timeout_ms > 0 ? request->timeout_ms : HX_HTTP_TIMEOUT_MS;
	transfer->callback.func = transfer_release;
	transfer->callback.arg = transfer;
	MemoryContextRegisterResetCallback(cxt, &transfer->callback);
	foreach(lc, request->secrets)
	{
		MemoryContext before = MemoryContextSwitchTo(cxt);

		transfer->secrets = lappend(transfer->secrets, pstrdup(lfirst(lc)));
		MemoryContextSwitchTo(before);
	}

	if (hx_pool_library(pool, &transfer->problem))
		transfer_prepare(transfer, request);
	else
		transfer->fault = HX_HTTP_OTHER;
	hx_pool_enqueue(pool, transfer);
	return transfer;
}

/* Makes libcurl's side of a transfer; what goes wrong is noted in it. */
static void
transfer_prepare(HxTransfer *transfer, const HxHttpRequest *request)
{
	HxCurlRequest order = {
		.method = request->method,
		.url = request->url,
		.body = request->body,
		.body_len = request->body_len,
		.connect_timeout_ms = request->connect_timeout_ms > 0 ?
		request->connect_timeout_ms : HX_HTTP_CONNECT_TIMEOUT_MS,
		.timeout_ms = request->timeout_ms > 0 ? request->timeout_ms : HX_HTTP_TIMEOUT_MS,
		.max_body = request->max_body > 0 ? request->max_body : HX_HTTP_MAX_BODY,
		.ca_file = request->ca_file,
		.proxy = request->proxy,
		.allow_http = request->allow_http,
		.once = request->once,
	};
	bool		complete = true;
	ListCell   *lc;

	/* the copy needs to fit into one allocation, with its NUL */
	order.max_body = Min(order.max_body, MaxAllocSize - 1);
	if (request->stream)
	{
		order.window = Min(request->window > 0 ? request->window : HX_HTTP_WINDOW, order.max_body);
		order.timeout_ms = 0;
	}

	transfer->curl = hx_curl_transfer_new(transfer->pool->curl, &order, transfer);
	if (transfer->curl != NULL)
	{
		foreach(lc, request->headers)
		{
			const HxPair *header = lfirst(lc);

			complete = complete &&
				hx_curl_transfer_header(transfer->curl, header->name, header->value);
		}
		foreach(lc, request->parts)
		{
			const HxHttpPart *part = lfirst(lc);
			HxCurlPart	copy = {part->name, part->content, part->content_len, part->filename, part->content_type};

			complete = complete && hx_curl_transfer_part(transfer->curl, &copy);
		}
		if (!complete)
			hx_curl_transfer_free(transfer->curl);
	}
	if (transfer->curl == NULL || !complete)
	{
		transfer->curl = NULL;
		transfer->fault = HX_HTTP_MEMORY;
		transfer->problem = "out of memory";
	}
}

/* The end of a transfer's memory context is the end of the transfer. */
static void
transfer_release(void *arg)
{
	HxTransfer *transfer = arg;
	sigset_t	saved;

	hx_pool_forget(transfer);
	if (transfer->curl == NULL)
		return;
	hx_curl_enter(&saved);
	hx_curl_transfer_free(transfer->curl);
	hx_curl_leave(&saved);
	transfer->curl = NULL;
}

/*
 * Frees a transfer and its result.  One in flight is cut off: the remote side
 * may or may not have acted on it.
 */
void
hx_http_release(HxTransfer *transfer)
{
	MemoryContextDelete(transfer->cxt);
}

void *
hx_http_owner(HxTransfer *transfer)
{
	return transfer->owner;
}

/*
 * The result of a transfer that has ended; it lives as long as the transfer.
 * Of one that has not, only that it is pending.
 */
const HxHttpResult *
hx_http_result(HxTransfer *transfer)
{
	static const HxHttpResult pending = {
		.outcome = HX_HTTP_PENDING,
		.body = "",
		.stage = "request",
		.retry_after_ms = -1,
	};

	if (transfer->state == HX_TRANSFER_WAITING || transfer->state == HX_TRANSFER_RUNNING)
		return &pending;
	if (transfer->result == NULL)
		transfer->result = hx_transfer_make_result(transfer, transfer->cxt);
	return transfer->result;
}

/*
 * Copies what came of a transfer that has ended into a memory context, and
 * gives libcurl's memory back, but for the body of a stream, which is not in
 * the result.  To be called once.
 */
HxHttpResult *
hx_transfer_make_result(HxTransfer *transfer, MemoryContext cxt)
{
	MemoryContext before = MemoryContextSwitchTo(cxt);
	HxHttpResult *result = palloc0(sizeof(HxHttpResult));
	HxCurlResult raw = {
		.outcome = HX_HTTP_NOT_SENT,
		.fault = transfer->fault,
		.stage = "name lookup",
		.error = transfer->problem,
		.retry_after_ms = -1,
	};

	bool		success;

	if (transfer->curl != NULL)
		hx_curl_transfer_result(transfer->curl, &raw);
	success = raw.fault == HX_HTTP_OK && raw.status >= 200 && raw.status <= 299;
	result->outcome = raw.outcome;
	result->fault = raw.fault;
	result->harmless = transfer->harmless;
	result->status = raw.status;
	result->stage = raw.stage;
	result->retry_after_ms = raw.retry_after_ms;
	result->total_us = raw.total_us;
	if (raw.error != NULL)
	{
		result->error = hx_http_safe_text(raw.error, strlen(raw.error));
		hx_transfer_hide_secrets(transfer, success, result->error, strlen(result->error));
	}

	result->body = palloc(raw.body_len + 1);
	if (raw.body_len > 0)
		memcpy(result->body, raw.body, raw.body_len);
	result->body[raw.body_len] = '\0';
	result->body_len = raw.body_len;
	hx_transfer_hide_secrets(transfer, success, result->body, result->body_len);

	if (transfer->curl != NULL)
	{
		void	   *cursor = NULL;
		const char *name;
		const char *value;

		while (hx_curl_transfer_next_header(transfer->curl, &cursor, &name, &value))
		{
			HxPair	   *header = palloc(sizeof(HxPair));

			char	   *copy = pstrdup(value);

			header->name = lower_case(name);
			header->value = copy;
			result->headers = lappend(result->headers, header);
			hx_transfer_hide_secrets(transfer, success, copy, strlen(copy));
		}

		/*
		 * What a stream still holds is for its reader.  Else: it has ended, so
		 * no thread is started and no signals need to be blocked.
		 */
		if (!hx_curl_transfer_streams(transfer->curl))
		{
			hx_curl_transfer_free(transfer->curl);
			transfer->curl = NULL;
		}
	}
	MemoryContextSwitchTo(before);
	return result;
}

/* Overwrites what was secret in the request, in a part of its answer. */
void
hx_transfer_hide_secrets(const HxTransfer *transfer, bool success, char *bytes, size_t len)
{
	ListCell   *lc;

	foreach(lc, transfer->secrets)
	{
		const char *secret = lfirst(lc);
		size_t		secret_len = strlen(secret);
		char	   *from = bytes;

		if (secret_len < (success ? SECRET_MIN_DATA : SECRET_MIN))
			continue;
		while ((from = memmem(from, bytes + len - from, secret, secret_len)) != NULL)
		{
			memset(from, '*', secret_len);
			from += secret_len;
		}
	}
}

/* A copy in lower case, of ASCII only, whatever the locale says. */
static char *
lower_case(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *c = copy; *c != '\0'; c++)
		*c = pg_ascii_tolower((unsigned char) *c);
	return copy;
}

/*
 * The value of an answer's header, NULL if it has none of that name; the case
 * of the name does not matter.  Of several the first.
 */
const char *
hx_http_header(const HxHttpResult *result, const char *name)
{
	ListCell   *lc;

	foreach(lc, result->headers)
	{
		const HxPair *header = lfirst(lc);

		if (pg_strcasecmp(header->name, name) == 0)
			return header->value;
	}
	return NULL;
}

/* A name and a value, both copied. */
HxPair *
hx_http_pair(const char *name, const char *value)
{
	HxPair	   *pair = palloc(sizeof(HxPair));

	pair->name = pstrdup(name);
	pair->value = pstrdup(value);
	return pair;
}
