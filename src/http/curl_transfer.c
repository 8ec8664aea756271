/*-------------------------------------------------------------------------
 *
 * curl_transfer.c
 *	  The life of a transfer on the side of libcurl.
 *
 * Every option is set here, and every one is checked.  What hubex never does
 * is switched off by name, not left to a default: redirects, cookies, netrc,
 * proxies of the environment, unverified TLS.
 *
 * What is cancelled.  CURLOPT_QUICK_EXIT lets a resolver thread that hangs in
 * getaddrinfo() be left behind; without it, removing the transfer would join
 * that thread and a cancel would wait for the name server.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http/curl_private.h"
#include "http/guard.h"

#define MAX_IDLE_SECONDS	60L /* shorter than what servers and NATs keep */
#define KEEPALIVE_SECONDS	60L
#define RECEIVE_BUFFER		65536L

static void refuse(HxCurlTransfer *t, HxHttpFault fault, const char *problem);
static bool check_request(HxCurlTransfer *t, const HxCurlRequest *request);
static bool set_options(HxCurlTransfer *t, const HxCurlRequest *request);
static bool set_method(HxCurlTransfer *t, const HxCurlRequest *request);
static bool append_header(HxCurlTransfer *t, const char *line);
static void scrub(void *memory, size_t len);

/*
 * Makes a transfer that has not begun.  NULL: out of memory.  A request that
 * is refused makes a transfer that has ended already.
 */
HxCurlTransfer *
hx_curl_transfer_new(HxCurl *curl, const HxCurlRequest *request, void *user)
{
	HxCurlTransfer *t = calloc(1, sizeof(HxCurlTransfer));

	if (t == NULL)
		return NULL;
	t->curl = curl;
	t->user = user;
	t->max_body = request->max_body;
	t->repeatable = hx_guard_repeatable(request->method);

	if (!check_request(t, request))
		return t;
	t->easy = curl_easy_init();
	if (t->easy == NULL)
		refuse(t, HX_HTTP_MEMORY, "out of memory");
	else if (!set_options(t, request) || !hx_curl_set_callbacks(t) ||
			 !set_method(t, request))
		refuse(t, t->code == CURLE_OUT_OF_MEMORY ? HX_HTTP_MEMORY : HX_HTTP_OTHER,
			   curl_easy_strerror(t->code));
	return t;
}

/* Ends a transfer before it began; the first reason stays. */
static void
refuse(HxCurlTransfer *t, HxHttpFault fault, const char *problem)
{
	if (t->finished)
		return;
	t->finished = true;
	t->refused = fault;
	t->problem = problem;
}

/* Looks at what can be seen before libcurl does; notes the origin. */
static bool
check_request(HxCurlTransfer *t, const HxCurlRequest *request)
{
	HxCurlUrl	url;

	if (!hx_guard_method(request->method))
		refuse(t, HX_HTTP_OTHER, "the method is not one that HTTP allows");
	else if (!hx_curl_url_parse(request->url, &url))
		refuse(t, HX_HTTP_FORBIDDEN_URL, "the address is not a URL");
	else
	{
		if (!url.is_http && !url.is_https)
			refuse(t, HX_HTTP_FORBIDDEN_URL, "the scheme is not http or https");
		else if (url.has_user)
			refuse(t, HX_HTTP_FORBIDDEN_URL, "the URL holds a user name or a password");
		t->is_https = url.is_https;
		t->loopback_only = url.is_http && !request->allow_http;
		t->origin = url.origin;
		url.origin = NULL;
		hx_curl_url_free(&url);
	}
	return !t->finished;
}

static bool
set_options(HxCurlTransfer *t, const HxCurlRequest *request)
{
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_ERRORBUFFER, t->error);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);

	/* where to, and nothing that the environment or the answer could change */
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_PROXY, request->proxy != NULL ? request->proxy : "");
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);

	/* the connection */
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_CONNECTTIMEOUT_MS, request->connect_timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, request->timeout_ms);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, KEEPALIVE_SECONDS);
	SET(CURLOPT_TCP_KEEPINTVL, KEEPALIVE_SECONDS);

	/* TLS; a file of one's own replaces all of the system's certificates */
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (request->ca_file != NULL)
	{
		SET(CURLOPT_CAINFO, request->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}

	/* the answer */
	SET(CURLOPT_ACCEPT_ENCODING, "");
	SET(CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	SET(CURLOPT_USERAGENT, "hubex");
	return true;
}

/* The method and the body, which is copied. */
static bool
set_method(HxCurlTransfer *t, const HxCurlRequest *request)
{
	const char *method = request->method;

	if (strcmp(method, "HEAD") == 0)
	{
		SET(CURLOPT_NOBODY, 1L);
		return true;
	}
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) request->max_body);

	if (request->body != NULL && request->body_len > 0)
	{
		t->body = malloc(request->body_len);
		if (t->body == NULL)
		{
			t->code = CURLE_OUT_OF_MEMORY;
			return false;
		}
		memcpy(t->body, request->body, request->body_len);
		t->body_len = request->body_len;
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
	}
	else if (request->body != NULL || strcmp(method, "POST") == 0 ||
			 strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0)
	{
		SET(CURLOPT_POST, 1L);	/* with a Content-Length of 0 */
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) 0);
		SET(CURLOPT_POSTFIELDS, "");
	}
	else
		SET(CURLOPT_HTTPGET, 1L);
	SET(CURLOPT_CUSTOMREQUEST, method);
	return true;
}

/*
 * Adds a header.  False: out of memory.  A bad one ends the transfer.
 */
bool
hx_curl_transfer_header(HxCurlTransfer *t, const char *name, const char *value)
{
	const char *problem = hx_guard_header_problem(name, value);
	size_t		len = strlen(name) + strlen(value) + 3;
	char	   *line;
	bool		appended;

	if (problem != NULL)
	{
		refuse(t, HX_HTTP_OTHER, problem);
		return true;
	}
	if (strcasecmp(name, "Content-Type") == 0)
		t->has_content_type = true;

	/* "name:" would take a header away, "name;" sends it empty */
	line = malloc(len);
	if (line == NULL)
		return false;
	if (value[strspn(value, " \t")] == '\0')
		snprintf(line, len, "%s;", name);
	else
		snprintf(line, len, "%s: %s", name, value);
	appended = append_header(t, line);
	scrub(line, len);
	free(line);
	return appended;
}

static bool
append_header(HxCurlTransfer *t, const char *line)
{
	struct curl_slist *headers = curl_slist_append(t->headers, line);

	if (headers == NULL)
		return false;
	t->headers = headers;
	return true;
}

/* Lets a transfer begin.  False: it has ended. */
bool
hx_curl_transfer_start(HxCurlTransfer *t)
{
	if (t->finished)
		return false;
	if (!append_header(t, "Expect:") ||
		(!t->has_content_type && !append_header(t, "Content-Type:")) ||
		curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) != CURLE_OK ||
		curl_multi_add_handle(t->curl->multi, t->easy) != CURLM_OK)
	{
		refuse(t, HX_HTTP_MEMORY, "out of memory");
		return false;
	}
	t->added = true;
	return true;
}

/* Ends a transfer of a pool that is beyond use. */
void
hx_curl_transfer_abandon(HxCurlTransfer *t)
{
	if (t->added)
		curl_multi_remove_handle(t->curl->multi, t->easy);
	t->added = false;
	if (!t->finished)
	{
		t->finished = true;
		t->code = CURLE_OUT_OF_MEMORY;
		t->problem = "out of memory while waiting for sockets";
	}
}

/* Frees a transfer at any time; one in flight loses its connection. */
void
hx_curl_transfer_free(HxCurlTransfer *t)
{
	if (t == NULL)
		return;
	if (t->added)
		curl_multi_remove_handle(t->curl->multi, t->easy);
	if (t->easy != NULL)
		curl_easy_cleanup(t->easy);
	for (struct curl_slist *h = t->headers; h != NULL; h = h->next)
		scrub(h->data, strlen(h->data));
	curl_slist_free_all(t->headers);
	if (t->body != NULL)
		scrub(t->body, t->body_len);
	free(t->body);
	free(t->answer);
	free(t->origin);
	free(t);
}

/* Where the transfer goes to; NULL if it was refused. */
const char *
hx_curl_transfer_origin(const HxCurlTransfer *t)
{
	return t->origin;
}

/* Overwrites what may be a secret, in a way the compiler has to keep. */
static void
scrub(void *memory, size_t len)
{
	volatile char *byte = memory;

	while (len-- > 0)
		*byte++ = 0;
}
