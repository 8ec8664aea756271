/*-------------------------------------------------------------------------
 *
 * http.h
 *	  One HTTP transfer, and the pool that runs many of them.
 *
 * The interface of the room http/ for the rest of hubex.  Nothing here shows
 * libcurl: curl_boundary.c is the only file that sees it, and that file does
 * not see PostgreSQL, so no error can ever jump through a libcurl frame.
 *
 * A transfer is waited for to its end, or, as a stream, looked at while it
 * runs; it always ends in a result, never in an ereport: what is an error
 * is for the caller to decide.  hx_http_report() turns a result into the
 * SQLSTATE, DETAIL and HINT that docs/errors.md lists.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_HTTP_H
#define HX_HTTP_H

#include "nodes/pg_list.h"

#include "http/outcome.h"

typedef struct HxPair
{
	const char *name;
	const char *value;
} HxPair;

/* A part of a form (multipart/form-data); all texts are UTF-8. */
typedef struct HxHttpPart
{
	const char *name;
	const char *content;
	size_t		content_len;
	const char *filename;		/* NULL: no file */
	const char *content_type;	/* NULL: none said */
} HxHttpPart;

/* What is to be sent.  All pointers need to live until hx_http_start returns. */
typedef struct HxHttpRequest
{
	const char *method;			/* "GET", "POST", ... */
	const char *url;			/* whole, as hx_http_url() makes it */
	List	   *headers;		/* of HxPair *; a value may hold a secret */
	const char *body;			/* NULL: none */
	size_t		body_len;
	List	   *parts;			/* of HxHttpPart *: a form, instead of a body */
	int			connect_timeout_ms; /* 0: the default */
	int			timeout_ms;		/* whole transfer; 0: the default */
	size_t		max_body;		/* bytes of an answer's body; 0: the default */
	int			max_connections;	/* to this host; 0: the default */
	const char *ca_file;		/* NULL: the system's certificates */
	const char *proxy;			/* NULL: none; the environment is ignored */
	bool		allow_http;		/* plain http to more than loopback */
	bool		once;			/* never twice on the wire, whatever the method */
	List	   *secrets;		/* of char *: made unreadable where the answer repeats them */

	/*
	 * The body of a success is taken while it arrives, see stream.c.  Then
	 * timeout_ms is how long nothing may come while the pool is waited for.
	 */
	bool		stream;
	size_t		window;			/* most of it that is held unread; 0: the default */
	MemoryContext cxt;			/* the transfer ends with it, if not before; NULL:
								 * with its pool */
} HxHttpRequest;

typedef struct HxHttpResult
{
	HxHttpOutcome outcome;
	HxHttpFault fault;
	bool		harmless;		/* GET or HEAD: no effect, whatever came of it */
	int			status;			/* also where the body was cut; 0: none seen */
	char	   *body;			/* as received, NUL-terminated, never NULL; of
								 * an answer that is not whole only the start */
	size_t		body_len;
	List	   *headers;		/* of HxPair *, of the last response, names in
								 * lower case */
	const char *stage;			/* "name lookup", "connect", "TLS", "request",
								 * "answer" or "body" */
	char	   *error;			/* one line, no secret; NULL when answered */
	int64		retry_after_ms; /* Retry-After (seconds or date), -1: none */
	int64		total_us;		/* whole time */
} HxHttpResult;

typedef struct HxHttpPool HxHttpPool;
typedef struct HxTransfer HxTransfer;

/* pool.c */
extern HxHttpPool *hx_http_pool_create(MemoryContext parent);
extern void hx_http_pool_destroy(HxHttpPool *pool);
extern HxTransfer *hx_http_start(HxHttpPool *pool, const HxHttpRequest *request, void *owner);
extern int	hx_http_wait(HxHttpPool *pool, long timeout_ms, uint32 wait_event);
extern HxTransfer *hx_http_next_done(HxHttpPool *pool);
extern int	hx_http_in_flight(HxHttpPool *pool);

/* transfer.c */
extern const HxHttpResult *hx_http_result(HxTransfer *transfer);
extern void *hx_http_owner(HxTransfer *transfer);
extern void hx_http_release(HxTransfer *transfer);
extern const char *hx_http_header(const HxHttpResult *result, const char *name);

/* stream.c */
extern bool hx_http_ended(const HxTransfer *transfer);
extern bool hx_http_head(const HxTransfer *transfer, int *status);
extern char *hx_http_arrived_header(const HxTransfer *transfer, const char *name);
extern bool hx_http_arrived(const HxTransfer *transfer, const char **bytes, size_t *len);
extern void hx_http_take(HxTransfer *transfer, size_t len);
extern void hx_http_hide_secrets(const HxTransfer *transfer, char *bytes, size_t len);
extern HxHttpPool *hx_http_streams(void);
extern bool hx_http_streams_wait(long timeout_ms);

/* perform.c */
extern const HxHttpResult *hx_http_perform(const HxHttpRequest *request);

extern HxPair *hx_http_pair(const char *name, const char *value);

/* url.c */
extern char *hx_http_url(const char *base, const char *path, List *query);
extern char *hx_http_escape(const char *text);
extern const char *hx_http_url_problem(const char *url, bool allow_http);
extern char *hx_http_url_resolve(const char *base, const char *reference);
extern bool hx_http_same_origin(const char *url, const char *other);
extern const char *hx_http_library_version(void);

/* report.c */
extern void hx_http_report(int elevel, const HxHttpResult *result, const char *remote_message);
extern char *hx_http_safe_text(const char *bytes, size_t len);

#endif							/* HX_HTTP_H */
