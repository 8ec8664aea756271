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
 * What is used again.  To make a handle of libcurl and to set its options
 * costs a good part of what a small request costs.  So a transfer that came to
 * a good end, and that left nothing behind which the next one would not set
 * itself, is put aside with its handle.  A transfer of which anything is out
 * of the ordinary has a handle of its own; and what came to another end takes
 * its handle with it.
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
#define MAX_SPARES			128 /* as many as are in flight at once */
#define MAX_SPARE_HEADER	16384	/* bytes; a handle keeps its last answer's */

static bool is_special(const HxCurlRequest *request);
static HxCurlTransfer *take_spare(HxCurl *curl);
static void refuse(HxCurlTransfer *t, HxHttpFault fault, const char *problem);
static bool check_request(HxCurlTransfer *t, const HxCurlRequest *request);
static bool make_handle(HxCurlTransfer *t);
static bool set_request(HxCurlTransfer *t, const HxCurlRequest *request);
static bool set_method(HxCurlTransfer *t, const HxCurlRequest *request);
static bool append_header(HxCurlTransfer *t, const char *line);
static void stop_counting(HxCurlTransfer *t);
static bool may_be_spare(HxCurlTransfer *t);
static void scrub(void *memory, size_t len);

/*
 * Makes a transfer that has not begun.  NULL: out of memory.  A request that
 * is refused makes a transfer that has ended already.
 */
HxCurlTransfer *
hx_curl_transfer_new(HxCurl *curl, const HxCurlRequest *request, void *user)
{
	bool		special = is_special(request);
	HxCurlTransfer *t = special ? NULL : take_spare(curl);

	if (t == NULL)
		t = calloc(1, sizeof(HxCurlTransfer));
	if (t == NULL)
		return NULL;
	t->special = special;
	t->curl = curl;
	curl->users++;
	t->user = user;
	t->max_body = request->max_body;
	t->window = request->window;
	t->repeatable = !request->once && hx_guard_repeatable(request->method);

	if (!check_request(t, request))
		return t;
	if ((t->easy == NULL && !make_handle(t)) || !set_request(t, request) || !set_method(t, request))
		refuse(t, t->code == CURLE_OUT_OF_MEMORY ? HX_HTTP_MEMORY : HX_HTTP_OTHER,
			   curl_easy_strerror(t->code));
	return t;
}

/* Does a request need options that others do not set? */
static bool
is_special(const HxCurlRequest *request)
{
	return request->proxy != NULL || request->ca_file != NULL || strcmp(request->method, "HEAD") == 0;
}

/* One that was put aside: nothing but its handle is left of it.  Or NULL. */
static HxCurlTransfer *
take_spare(HxCurl *curl)
{
	HxCurlTransfer *t = curl->spare;

	if (t == NULL)
		return NULL;
	curl->spare = t->next;
	curl->spare_count--;
	t->next = NULL;
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

/* Looks at what can be seen before libcurl does; notes where it goes to. */
static bool
check_request(HxCurlTransfer *t, const HxCurlRequest *request)
{
	const char *problem;

	if (!hx_guard_method(request->method))
	{
		refuse(t, HX_HTTP_OTHER, "the method is not one that HTTP allows");
		return false;
	}
	t->host = hx_curl_host(t->curl, request->url, &problem);
	if (t->host == NULL)
	{
		refuse(t, problem != NULL ? HX_HTTP_FORBIDDEN_URL : HX_HTTP_MEMORY,
			   problem != NULL ? problem : "out of memory");
		return false;
	}
	t->loopback_only = !t->host->is_https && !request->allow_http;
	return true;
}

/* Makes a handle, and sets what is the same for all transfers. */
static bool
make_handle(HxCurlTransfer *t)
{
	t->easy = curl_easy_init();
	if (t->easy == NULL)
	{
		t->code = CURLE_OUT_OF_MEMORY;
		return false;
	}
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_ERRORBUFFER, t->error);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);

	/* nothing that the environment or the answer could change */
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);

	/* the connection */
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, KEEPALIVE_SECONDS);
	SET(CURLOPT_TCP_KEEPINTVL, KEEPALIVE_SECONDS);

	/* TLS */
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);

	/* the answer */
	SET(CURLOPT_ACCEPT_ENCODING, "");
	SET(CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	SET(CURLOPT_USERAGENT, "hubex");
	return hx_curl_set_callbacks(t);
}

/* Sets what each transfer has of its own: all of it, unless it is special. */
static bool
set_request(HxCurlTransfer *t, const HxCurlRequest *request)
{
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_CONNECTTIMEOUT_MS, request->connect_timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, request->timeout_ms);
	SET(CURLOPT_FRESH_CONNECT, 0L);
	if (request->proxy != NULL)
		SET(CURLOPT_PROXY, request->proxy);
	if (request->ca_file != NULL)
	{
		/* it replaces all of the system's certificates */
		SET(CURLOPT_CAINFO, request->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	return true;
}

/*
 * The method and the body, which is copied.  It goes out together with the
 * head that way, if it is small; see curl_callbacks.c for what keeps it from
 * going out twice.
 */
static bool
set_method(HxCurlTransfer *t, const HxCurlRequest *request)
{
	const char *method = request->method;

	if (strcmp(method, "HEAD") == 0)
	{
		SET(CURLOPT_NOBODY, 1L);
		return true;
	}
	/* what is taken while it arrives has no size; the rest is looked at as it comes */
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) (request->window > 0 ? 0 : request->max_body));

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
		SET(CURLOPT_POSTFIELDS, t->body);
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

/*
 * Adds a part to the request's form, whose content is copied.  False: out of
 * memory.  A bad one ends the transfer.
 */
bool
hx_curl_transfer_part(HxCurlTransfer *t, const HxCurlPart *part)
{
	const char *const texts[] = {part->name, part->filename, part->content_type};
	curl_mimepart *added;

	if (t->finished)
		return true;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		if (texts[i] != NULL && hx_guard_part_problem(texts[i]) != NULL)
		{
			refuse(t, HX_HTTP_OTHER, hx_guard_part_problem(texts[i]));
			return true;
		}
	}
	t->special = true;
	if (t->form == NULL)
		t->form = curl_mime_init(t->easy);
	added = t->form != NULL ? curl_mime_addpart(t->form) : NULL;
	return added != NULL &&
		curl_mime_name(added, part->name) == CURLE_OK &&
		curl_mime_data(added, part->content, part->content_len) == CURLE_OK &&
		(part->filename == NULL || curl_mime_filename(added, part->filename) == CURLE_OK) &&
		(part->content_type == NULL || curl_mime_type(added, part->content_type) == CURLE_OK);
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
	if (t->form != NULL &&
		(curl_easy_setopt(t->easy, CURLOPT_MIME_OPTIONS, CURLMIMEOPT_FORMESCAPE) != CURLE_OK ||
		 curl_easy_setopt(t->easy, CURLOPT_MIMEPOST, t->form) != CURLE_OK))
	{
		refuse(t, HX_HTTP_MEMORY, "out of memory");
		return false;
	}
	if (!append_header(t, "Expect:") ||
		(!t->has_content_type && t->form == NULL && !append_header(t, "Content-Type:")) ||
		curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) != CURLE_OK ||
		curl_multi_add_handle(t->curl->multi, t->easy) != CURLM_OK)
	{
		refuse(t, HX_HTTP_MEMORY, "out of memory");
		return false;
	}
	t->added = t->running = true;
	t->host->running++;
	return true;
}

/* A transfer is at its end, and off libcurl's list. */
void
hx_curl_transfer_ended(HxCurlTransfer *t)
{
	stop_counting(t);
	t->finished = true;
}

static void
stop_counting(HxCurlTransfer *t)
{
	if (t->running)
		t->host->running--;
	t->running = false;
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
		hx_curl_transfer_ended(t);
		t->code = CURLE_OUT_OF_MEMORY;
		t->problem = "out of memory while waiting for sockets";
	}
}

/* Frees a transfer at any time; one in flight loses its connection. */
void
hx_curl_transfer_free(HxCurlTransfer *t)
{
	HxCurl	   *curl;
	CURL	   *kept = NULL;

	if (t == NULL)
		return;
	curl = t->curl;
	if (t->added)
		curl_multi_remove_handle(curl->multi, t->easy);
	stop_counting(t);
	if (t->host != NULL)
		t->host->transfers--;
	if (may_be_spare(t))
		kept = t->easy;
	else if (t->easy != NULL)
		curl_easy_cleanup(t->easy);
	curl_mime_free(t->form);
	for (struct curl_slist *h = t->headers; h != NULL; h = h->next)
		scrub(h->data, strlen(h->data));
	curl_slist_free_all(t->headers);
	if (t->body != NULL)
		scrub(t->body, t->body_len);
	free(t->body);
	free(t->answer);
	if (kept != NULL)
	{
		memset(t, 0, sizeof(*t));
		t->easy = kept;
		t->next = curl->spare;
		curl->spare = t;
		curl->spare_count++;
	}
	else
		free(t);
	hx_curl_leave_pool(curl);
}

/*
 * Tells whether a transfer's handle may be used again; if so, it points to
 * nothing of the transfer's any more but to what is used again with it.  One
 * that was sent more than once remembers how often.
 */
static bool
may_be_spare(HxCurlTransfer *t)
{
	return t->finished && t->refused == HX_HTTP_OK && t->problem == NULL && t->code == CURLE_OK &&
		t->times_sent == 1 && !t->begun_again && !t->special && !t->added &&
		t->header_bytes <= MAX_SPARE_HEADER &&
		t->curl->multi != NULL && t->curl->spare_count < MAX_SPARES &&
		curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, NULL) == CURLE_OK &&
		curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, NULL) == CURLE_OK;
}

/* Frees what was put aside. */
void
hx_curl_spares_free(HxCurl *curl)
{
	HxCurlTransfer *t;

	while ((t = take_spare(curl)) != NULL)
	{
		curl_easy_cleanup(t->easy);
		free(t);
	}
}

/* How many transfers run to where this one goes; -1 if it was refused. */
int
hx_curl_transfer_running(const HxCurlTransfer *t)
{
	return t->host != NULL ? t->host->running : -1;
}

/* Overwrites what may be a secret, in a way the compiler has to keep. */
static void
scrub(void *memory, size_t len)
{
	volatile char *byte = memory;

	while (len-- > 0)
		*byte++ = 0;
}
