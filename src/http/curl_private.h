/*-------------------------------------------------------------------------
 *
 * curl_private.h
 *	  The one file that includes curl.h, for the files curl_*.c only.
 *
 * None of them sees PostgreSQL, so nothing in them can throw: no longjmp can
 * ever cross a frame of libcurl.  Callbacks check a limit, note something
 * down and return; what they allocate is malloc'd.
 *
 *	curl_boundary.c		the library, the pool of connections
 *	curl_transfer.c		the life of a transfer
 *	curl_callbacks.c	what libcurl asks and tells while it runs
 *	curl_stream.c		its body, taken while it arrives
 *	curl_result.c		how it ended
 *	curl_url.c			URLs
 *	curl_host.c			where they lead
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_CURL_PRIVATE_H
#define HX_CURL_PRIVATE_H

#include <curl/curl.h>

#include "http/curl_boundary.h"

/* curl_easy_nextheader, CURLOPT_PROTOCOLS_STR and CURLOPT_QUICK_EXIT */
#define OLDEST_LIBCURL			0x075800
#if LIBCURL_VERSION_NUM < OLDEST_LIBCURL
#error "hubex needs libcurl 7.88 or newer"
#endif

#define SOCKETS_REMEMBERED		4	/* more than are tried side by side */

/* A connection.  Its ports are asked for once, when it has both. */
typedef struct HxCurlOpen
{
	int			fd;
	int			local_port;		/* 0: not asked yet */
	int			remote_port;
} HxCurlOpen;

/* What transfers go to: a scheme, a host and a port. */
typedef struct HxCurlHost
{
	struct HxCurlHost *next;
	int			transfers;		/* that point to it */
	int			running;		/* of these */
	bool		is_https;
	char		origin[];
} HxCurlHost;

struct HxCurl
{
	CURLM	   *multi;			/* NULL: gone, and transfers are left */
	int			users;			/* the pool, and each transfer */
	HxCurlTransfer *spare;		/* that have ended and are to be used again */
	int			spare_count;
	HxCurlHost *hosts;
	int			host_count;
	HxCurlHost *last_host;		/* what a URL that begins so goes to; or NULL */
	char	   *last_prefix;
	HxCurlSocket *sockets;
	int			count;
	int			allocated;
	bool		removed;		/* a socket went that the waiting side knows */
	HxCurlOpen *open;			/* all connections, idle ones too */
	int			open_count;
	int			open_allocated;
	int64_t		timer_us;		/* absolute, 0: none */
};

struct HxCurlTransfer
{
	HxCurl	   *curl;
	CURL	   *easy;
	HxCurlTransfer *next;		/* while it is spare */
	bool		special;		/* its handle is for itself only */
	void	   *user;
	bool		added;			/* the multi handle knows it */
	bool		running;		/* its host counts it */
	bool		finished;
	CURLcode	code;
	const char *problem;		/* own words instead of libcurl's */
	HxHttpFault refused;		/* not even started; else HX_HTTP_OK */

	/* the request */
	HxCurlHost *host;			/* NULL: refused */
	struct curl_slist *headers;
	curl_mime  *form;			/* NULL: none */
	char	   *body;
	size_t		body_len;
	bool		loopback_only;
	bool		repeatable;
	bool		has_content_type;

	/* what happened */
	int			opened[SOCKETS_REMEMBERED]; /* the latest; 0: none */
	bool		connected;		/* a socket of it is past connect() */
	int			sockets_tried;
	int			sockets_refused;
	int			times_sent;		/* requests handed to the wire */
	bool		resend_refused;
	bool		found_closed;	/* a kept connection, before anything was sent */
	bool		begun_again;	/* because of that, once */
	bool		too_large;
	bool		no_memory;
	size_t		header_bytes;
	bool		interim;		/* the header in hand is of a 1xx answer */
	bool		header_done;

	/* the answer */
	char	   *answer;
	size_t		answer_len;
	size_t		answer_allocated;
	size_t		max_body;
	int			status;			/* of the last head that is whole and final */
	uint64_t	body_bytes;		/* that arrived, decoded */

	/* a stream, which the request asks for and a success becomes */
	size_t		window;			/* most bytes held unread; 0: not asked for */
	bool		streaming;
	bool		paused;			/* the window is full */
	size_t		taken;			/* of the answer's bytes */

	char		error[CURL_ERROR_SIZE];
};

/* curl_boundary.c */
extern void hx_curl_forget_socket(HxCurl *curl, int fd);
extern void hx_curl_leave_pool(HxCurl *curl);

/* curl_host.c */
extern HxCurlHost *hx_curl_host(HxCurl *curl, const char *url, const char **problem);
extern void hx_curl_hosts_free(HxCurl *curl);

/* curl_transfer.c */
extern void hx_curl_transfer_ended(HxCurlTransfer *t);
extern void hx_curl_spares_free(HxCurl *curl);

/* curl_callbacks.c */
extern bool hx_curl_set_callbacks(HxCurlTransfer *t);

/*
 * Sets one option; leaves the function it stands in if libcurl refuses.  An
 * option that silently did not take would be a safety rule that is not there.
 */
#define SET(option, value) \
	do { \
		t->code = curl_easy_setopt(t->easy, option, value); \
		if (t->code != CURLE_OK) \
			return false; \
	} while (0)

#endif							/* HX_CURL_PRIVATE_H */
