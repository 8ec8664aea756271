/*-------------------------------------------------------------------------
 *
 * outcome.h
 *	  How a transfer can end, and the limits it is held to.
 *
 * Shared by the two sides of the room http/: the one that sees PostgreSQL and
 * the one that sees libcurl.  It therefore includes nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_HTTP_OUTCOME_H
#define HX_HTTP_OUTCOME_H

/* Limits and defaults; the server's options can lower or raise the times. */
#define HX_HTTP_CONNECT_TIMEOUT_MS	10000
#define HX_HTTP_TIMEOUT_MS			60000
#define HX_HTTP_MAX_BODY			(256 * 1024 * 1024)
#define HX_HTTP_WINDOW				(1024 * 1024)
#define HX_HTTP_MAX_HEADERS			(256 * 1024)
#define HX_HTTP_MAX_CONNECTIONS		16

/* How a transfer ended, as far as the remote side may have acted. */
typedef enum HxHttpOutcome
{
	HX_HTTP_PENDING,
	HX_HTTP_ANSWERED,			/* a whole answer is here, whatever its status */
	HX_HTTP_NOT_SENT,			/* no byte left: nothing happened there */
	HX_HTTP_UNKNOWN				/* sent at least partly; no whole answer came */
} HxHttpOutcome;

/* Why there is no whole answer. */
typedef enum HxHttpFault
{
	HX_HTTP_OK,
	HX_HTTP_DNS,
	HX_HTTP_CONNECT,
	HX_HTTP_TLS,				/* certificate refused or handshake failed */
	HX_HTTP_TIMEOUT,
	HX_HTTP_CLOSED,				/* reset or closed, also in mid-body */
	HX_HTTP_TOO_LARGE,			/* over max_body or the header limit */
	HX_HTTP_PROTOCOL,			/* not HTTP */
	HX_HTTP_FORBIDDEN_ADDRESS,	/* plain http to more than loopback */
	HX_HTTP_FORBIDDEN_URL,		/* scheme or form, before anything was done */
	HX_HTTP_MEMORY,
	HX_HTTP_OTHER
} HxHttpFault;

#endif							/* HX_HTTP_OUTCOME_H */
