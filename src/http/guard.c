/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  What a request may not do: addresses, header names, header values.
 *
 * Plain http shows every header and body to whoever listens on the way, so
 * hubex takes it only to the machine itself unless the administrator says
 * otherwise.  The name in a URL proves nothing (it may resolve to anything),
 * so the check that counts is made on the address of the socket, just before
 * it is opened, and again on the address of a connection that is reused.  The
 * check of the name exists to refuse a bad setting early.
 *
 * Header values often come from table rows.  A line break in one would let a
 * row's author write headers, or a whole second request, of his own.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "http/guard.h"

static bool loopback_v4(const unsigned char *bytes);
static bool loopback_v6(const unsigned char *bytes);
static bool is_token(const char *text);

/*
 * Tells whether a socket address leads to this machine only: 127.0.0.0/8,
 * ::1, and the IPv6 spelling of the former.
 */
bool
hx_guard_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return loopback_v4((const unsigned char *)
						   &((const struct sockaddr_in *) address)->sin_addr);
	if (address->sa_family == AF_INET6)
		return loopback_v6((const unsigned char *)
						   &((const struct sockaddr_in6 *) address)->sin6_addr);
	return false;
}

/*
 * The same for the text of a host: "localhost" or an address, an IPv6 address
 * with or without its brackets.
 */
bool
hx_guard_loopback_host(const char *host)
{
	unsigned char bytes[16];
	char		bare[INET6_ADDRSTRLEN];
	size_t		len = strlen(host);

	if (strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, bytes) == 1)
		return loopback_v4(bytes);

	if (len > 2 && host[0] == '[' && host[len - 1] == ']')
	{
		host++;
		len -= 2;
	}
	if (len >= sizeof(bare))
		return false;
	memcpy(bare, host, len);
	bare[len] = '\0';
	return inet_pton(AF_INET6, bare, bytes) == 1 && loopback_v6(bytes);
}

/* Tells whether a method is a word that HTTP allows as one. */
bool
hx_guard_method(const char *method)
{
	return is_token(method) && strlen(method) < 32;
}

/*
 * Tells whether a request may reach the server twice and have the effect of
 * one (RFC 9110, 9.2.2).  What is not known is taken as not repeatable.
 */
bool
hx_guard_repeatable(const char *method)
{
	static const char *const repeatable[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};

	for (size_t i = 0; i < sizeof(repeatable) / sizeof(repeatable[0]); i++)
	{
		if (strcmp(method, repeatable[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Says what is wrong with a header to be sent, or NULL.  The three refused by
 * name decide where a request ends on the wire; libcurl writes them.
 */
const char *
hx_guard_header_problem(const char *name, const char *value)
{
	static const char *const reserved[] = {"Content-Length", "Transfer-Encoding", "Expect"};

	if (!is_token(name))
		return "a header's name is not one that HTTP allows";
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
	{
		if (strcasecmp(name, reserved[i]) == 0)
			return "the headers Content-Length, Transfer-Encoding and Expect cannot be set";
	}
	for (const unsigned char *c = (const unsigned char *) value; *c != '\0'; c++)
	{
		if ((*c < 0x20 && *c != '\t') || *c == 0x7f)
			return "a header's value holds a line break or another control character";
	}
	return NULL;
}

/*
 * What keeps a text from being the name of a form's part, of its file or its
 * type: they are written into the part's own headers.
 */
const char *
hx_guard_part_problem(const char *text)
{
	for (const unsigned char *c = (const unsigned char *) text; *c != '\0'; c++)
	{
		if (*c < 0x20 || *c == 0x7f)
			return "a name or type in a form holds a line break or another control character";
	}
	return NULL;
}

static bool
loopback_v4(const unsigned char *bytes)
{
	return bytes[0] == 127;
}

static bool
loopback_v6(const unsigned char *bytes)
{
	static const unsigned char one[16] = {[15] = 1};
	static const unsigned char mapped[12] = {[10] = 0xff,[11] = 0xff};

	if (memcmp(bytes, one, sizeof(one)) == 0)
		return true;
	return memcmp(bytes, mapped, sizeof(mapped)) == 0 && loopback_v4(bytes + sizeof(mapped));
}

/* A "token" of RFC 9110, 5.6.2. */
static bool
is_token(const char *text)
{
	static const char allowed[] =
		"!#$%&'*+-.^_`|~0123456789"
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	return text[0] != '\0' && text[strspn(text, allowed)] == '\0';
}
