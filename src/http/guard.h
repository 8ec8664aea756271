/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  What a request may not do: addresses, header names, header values.
 *
 * Pure functions over text and socket addresses; neither PostgreSQL nor
 * libcurl is seen here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_HTTP_GUARD_H
#define HX_HTTP_GUARD_H

#include <stdbool.h>
#include <sys/socket.h>

extern bool hx_guard_loopback(const struct sockaddr *address);
extern bool hx_guard_loopback_host(const char *host);
extern bool hx_guard_method(const char *method);
extern bool hx_guard_repeatable(const char *method);
extern const char *hx_guard_header_problem(const char *name, const char *value);
extern const char *hx_guard_part_problem(const char *text);

#endif							/* HX_HTTP_GUARD_H */
