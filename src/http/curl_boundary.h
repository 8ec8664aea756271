/*-------------------------------------------------------------------------
 *
 * curl_boundary.h
 *	  libcurl, as the rest of http/ sees it.
 *
 * Everything here is malloc'd and nothing throws.  The caller needs to block
 * signals around each call that is marked with "threads": libcurl starts some
 * to look up names, and a thread keeps the signal mask it was born with.  What
 * is not marked does not get to the library's pool of connections.
 *
 * A HxCurl owns the connections.  It does not own transfers: each of them is
 * freed by its maker, and all that have not ended before their HxCurl.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_CURL_BOUNDARY_H
#define HX_CURL_BOUNDARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/outcome.h"

/* What a socket waits for; a mask. */
#define HX_CURL_READ	1
#define HX_CURL_WRITE	2

typedef struct HxCurl HxCurl;
typedef struct HxCurlTransfer HxCurlTransfer;

/*
 * A socket that is to be waited for.  The waiting side keeps its own notes in
 * the last two fields; a new entry has position -1.  One that rests (it wants
 * nothing) stays as it is registered, and is not registered anew.
 */
typedef struct HxCurlSocket
{
	int			fd;
	int			want;
	int			position;
	int			registered;
} HxCurlSocket;

/* A part of a form, as HxHttpPart. */
typedef struct HxCurlPart
{
	const char *name;
	const char *content;
	size_t		content_len;
	const char *filename;
	const char *content_type;
} HxCurlPart;

/* As HxHttpRequest, without its headers and parts; nothing here is a default. */
typedef struct HxCurlRequest
{
	const char *method;
	const char *url;
	const char *body;
	size_t		body_len;
	long		connect_timeout_ms;
	long		timeout_ms;		/* 0: no end */
	size_t		max_body;
	const char *ca_file;
	const char *proxy;
	bool		allow_http;
	bool		once;
	size_t		window;			/* of a stream; 0: it is none */
} HxCurlRequest;

/* How a transfer ended.  The pointers last as long as the transfer. */
typedef struct HxCurlResult
{
	HxHttpOutcome outcome;
	HxHttpFault fault;
	int			status;
	const char *stage;
	const char *error;
	const char *body;
	size_t		body_len;
	int64_t		retry_after_ms;
	int64_t		total_us;
} HxCurlResult;

/* The parts of a URL that hubex looks at. */
typedef struct HxCurlUrl
{
	bool		is_http;
	bool		is_https;
	bool		has_user;
	bool		has_fragment;
	char	   *host;
	char	   *prefix;			/* scheme, host and port as they were given */
	char	   *path;			/* as it was given; at least "/" */
	char	   *query;			/* as it was given; NULL: none */
	char	   *origin;			/* those three, always in one spelling */
} HxCurlUrl;

/* the pool's side */
extern HxCurl *hx_curl_new(const char **problem);	/* threads */
extern void hx_curl_free(HxCurl *curl); /* threads */
extern HxCurlSocket *hx_curl_sockets(HxCurl *curl, int *count);
extern bool hx_curl_take_removed(HxCurl *curl);
extern void hx_curl_forget_positions(HxCurl *curl);
extern int	hx_curl_open_sockets(const HxCurl *curl);
extern long hx_curl_timer_ms(const HxCurl *curl);
extern bool hx_curl_drive_socket(HxCurl *curl, int fd, int ready);	/* threads */
extern bool hx_curl_drive_timer(HxCurl *curl);	/* threads */
extern void *hx_curl_next_finished(HxCurl *curl);	/* threads */

/* a transfer */
extern HxCurlTransfer *hx_curl_transfer_new(HxCurl *curl, const HxCurlRequest *request, void *user);
extern bool hx_curl_transfer_header(HxCurlTransfer *t, const char *name, const char *value);
extern bool hx_curl_transfer_part(HxCurlTransfer *t, const HxCurlPart *part);
extern bool hx_curl_transfer_start(HxCurlTransfer *t);	/* threads */
extern void hx_curl_transfer_abandon(HxCurlTransfer *t);	/* threads */
extern void hx_curl_transfer_free(HxCurlTransfer *t);	/* threads, if it runs */
extern int	hx_curl_transfer_running(const HxCurlTransfer *t);
extern void hx_curl_transfer_result(HxCurlTransfer *t, HxCurlResult *result);
extern bool hx_curl_transfer_next_header(HxCurlTransfer *t, void **cursor,
										 const char **name, const char **value);

/* a transfer whose body is taken while it arrives: curl_stream.c */
extern int	hx_curl_transfer_head(const HxCurlTransfer *t);
extern bool hx_curl_transfer_streams(const HxCurlTransfer *t);
extern size_t hx_curl_transfer_unread(const HxCurlTransfer *t, const char **bytes);
extern bool hx_curl_transfer_take(HxCurlTransfer *t, size_t len);	/* threads */
extern bool hx_curl_transfer_open_window(HxCurlTransfer *t);	/* threads */
extern bool hx_curl_transfer_paused(const HxCurlTransfer *t);
extern uint64_t hx_curl_transfer_arrived(const HxCurlTransfer *t);
extern bool hx_curl_transfer_same_host(const HxCurlTransfer *t, const HxCurlTransfer *other);
extern void hx_curl_transfer_break(HxCurlTransfer *t);	/* threads */
extern void hx_curl_transfer_time_out(HxCurlTransfer *t, long silent_ms);	/* threads */
extern const char *hx_curl_transfer_find_header(HxCurlTransfer *t, const char *name);

/* URLs; strings are freed with hx_curl_string_free */
extern bool hx_curl_url_parse(const char *url, HxCurlUrl *parts);
extern void hx_curl_url_free(HxCurlUrl *parts);
extern char *hx_curl_url_resolve(const char *base, const char *reference);
extern char *hx_curl_escape(const char *text);
extern void hx_curl_string_free(char *string);
extern const char *hx_curl_version(void);

#endif							/* HX_CURL_BOUNDARY_H */
