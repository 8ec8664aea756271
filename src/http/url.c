/*-------------------------------------------------------------------------
 *
 * url.c
 *	  URLs, put together from a base, a path and a query.
 *
 * Text comes in the server's encoding; URLs carry UTF-8.
 *
 * A path may come from a manifest with keys of rows put into it.  What would
 * change which part of the URL a piece of it belongs to is refused, not
 * escaped, since it is a mistake or an attack: '?', '#', control characters,
 * and the segments "." and "..", also spelled with %2e.  (A key that may hold
 * such characters is to go through hx_http_escape first.  That leaves "..",
 * which no escape can carry, and which is therefore refused.)  Everything else
 * that a path cannot hold is escaped; %XX stays as it is.
 *
 * No message here shows a URL or a path: some systems put a secret there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "http/curl_boundary.h"
#include "http/guard.h"
#include "http/http.h"

/* A base, taken apart; one allocation. */
typedef struct HxBase
{
	const char *prefix;			/* scheme, host and port */
	const char *path;
	const char *query;			/* NULL: none */
	bool		has_user;
	char		text[FLEXIBLE_ARRAY_MEMBER];	/* the base, then the above */
} HxBase;

/*
 * The last base that was taken apart, if it was a plain one.  A process makes its
 * URLs from few bases, which are the addresses of servers; libcurl takes
 * longer to take one apart than all else takes.
 */
static HxBase *last_base = NULL;

static const char has_query_or_fragment[] = "has a query or fragment";

static const HxBase *take_apart(const char *base);
static char *put_string(char **to, const char *string);
static void append_path(StringInfo url, const char *path);
static void check_segments(const char *path);
static bool is_dot_segment(const char *segment, size_t len);
static void append_escaped(StringInfo url, const char *piece);
static void append_query(StringInfo url, List *query, bool first);
static char *to_utf8(const char *text);
static bool is_ascii(const char *text);
static char *take_string(char *string);
static char *copy_string(const char *string);
static void out_of_memory(void);
static void bad_url(const char *problem);
static void bad_path(const char *problem);

/*
 * Makes a URL: the base, the path below the base's path, the query (of
 * HxPair *, a NULL value for a bare name).  The path may begin with a slash or
 * not and the base end with one or not; one stands between them.  A base with
 * a query of its own (the link to a next page) takes no path but more query.
 * Throws 22023 for what cannot be part of a URL.
 */
char *
hx_http_url(const char *base, const char *path, List *query)
{
	const HxBase *parts = take_apart(to_utf8(base));
	StringInfoData url;
	bool		has_path = path != NULL && path[0] != '\0';
	bool		has_query = parts->query != NULL;

	if (parts->has_user)
		bad_url("user name or password in it");
	if (has_query && has_path)
		bad_url(has_query_or_fragment);

	initStringInfo(&url);
	appendStringInfoString(&url, parts->prefix);
	append_path(&url, parts->path);
	if (has_query)
	{
		appendStringInfoChar(&url, '?');
		append_escaped(&url, parts->query);
	}
	if (has_path)
	{
		path = to_utf8(path);
		check_segments(path);
		if (url.data[url.len - 1] == '/')
			url.data[--url.len] = '\0';
		if (path[0] != '/')
			appendStringInfoChar(&url, '/');
		append_path(&url, path);
	}
	append_query(&url, query, !has_query);
	return url.data;
}

/* Takes a base apart; the result lasts until the next call. */
static const HxBase *
take_apart(const char *text)
{
	HxCurlUrl	parts;
	HxBase	   *base;
	Size		size;
	bool		keep;

	if (last_base != NULL && strcmp(last_base->text, text) == 0)
		return last_base;

	/* nothing throws while libcurl's strings are in hand */
	if (!hx_curl_url_parse(text, &parts))
		bad_url("not a URL");
	size = offsetof(HxBase, text) + strlen(text) + strlen(parts.prefix) + strlen(parts.path) + 3 +
		(parts.query != NULL ? strlen(parts.query) + 1 : 0);
	keep = parts.query == NULL && !parts.has_user;
	base = MemoryContextAllocExtended(keep ? TopMemoryContext : CurrentMemoryContext, size, MCXT_ALLOC_NO_OOM);
	if (base != NULL)
	{
		char	   *to = base->text;

		(void) put_string(&to, text);
		base->prefix = put_string(&to, parts.prefix);
		base->path = put_string(&to, parts.path);
		base->query = parts.query != NULL ? put_string(&to, parts.query) : NULL;
		base->has_user = parts.has_user;
	}
	hx_curl_url_free(&parts);
	if (base == NULL)
		out_of_memory();
	if (keep)
	{
		if (last_base != NULL)
			pfree(last_base);
		last_base = base;
	}
	return base;
}

/* Puts a string where there is room for it, and goes behind it. */
static char *
put_string(char **to, const char *string)
{
	char	   *put = *to;
	size_t		size = strlen(string) + 1;

	memcpy(put, string, size);
	*to += size;
	return put;
}

/* Appends a path: what it can hold as it is, the rest escaped. */
static void
append_path(StringInfo url, const char *path)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		"-._~!$&'()*+,;=:@/";

	for (const char *c = path; *c != '\0'; c++)
	{
		unsigned char byte = (unsigned char) *c;

		if (byte < 0x20 || byte == 0x7f)
			bad_path("It holds a control character.");
		if (byte == '?' || byte == '#')
			bad_path("It holds a \"?\" or a \"#\"; a query is given apart.");
		if (strchr(plain, byte) != NULL ||
			(byte == '%' && isxdigit((unsigned char) c[1]) && isxdigit((unsigned char) c[2])))
			appendStringInfoChar(url, *c);
		else
			appendStringInfo(url, "%%%02X", byte);
	}
}

static void
check_segments(const char *path)
{
	while (*path != '\0')
	{
		size_t		len = strcspn(path, "/");

		if (is_dot_segment(path, len))
			bad_path("It has a segment \".\" or \"..\".");
		path += len;
		if (*path == '/')
			path++;
	}
}

/* Tells whether a segment is one or two dots, in any spelling. */
static bool
is_dot_segment(const char *segment, size_t len)
{
	int			dots = 0;

	while (len > 0)
	{
		size_t		step = 1;

		if (len >= 3 && pg_strncasecmp(segment, "%2e", 3) == 0)
			step = 3;
		else if (*segment != '.')
			return false;
		segment += step;
		len -= step;
		dots++;
	}
	return dots == 1 || dots == 2;
}

/* Appends a piece of a URL that is one already, but for what no URL can hold. */
static void
append_escaped(StringInfo url, const char *piece)
{
	for (const char *c = piece; *c != '\0'; c++)
	{
		unsigned char byte = (unsigned char) *c;

		if (byte <= 0x20 || byte >= 0x7f)
			appendStringInfo(url, "%%%02X", byte);
		else
			appendStringInfoChar(url, *c);
	}
}

/* Appends the pairs of a query, escaped. */
static void
append_query(StringInfo url, List *query, bool first)
{
	ListCell   *lc;

	foreach(lc, query)
	{
		const HxPair *pair = lfirst(lc);

		appendStringInfoChar(url, first ? '?' : '&');
		appendStringInfoString(url, hx_http_escape(pair->name));
		if (pair->value != NULL)
		{
			appendStringInfoChar(url, '=');
			appendStringInfoString(url, hx_http_escape(pair->value));
		}
		first = false;
	}
}

/* Escapes all but letters, digits and "-._~" for any part of a URL. */
char *
hx_http_escape(const char *text)
{
	return take_string(hx_curl_escape(to_utf8(text)));
}

/*
 * Says what keeps a URL from being the address of a remote service, in one of
 * these words, or NULL.
 */
const char *
hx_http_url_problem(const char *url, bool allow_http)
{
	HxCurlUrl	parts;
	const char *problem = NULL;

	if (!hx_curl_url_parse(url, &parts))
		return "not a URL";
	if (!parts.is_http && !parts.is_https)
		problem = "scheme is not http or https";
	else if (parts.has_user)
		problem = "user name or password in it";
	else if (parts.query != NULL || parts.has_fragment)
		problem = has_query_or_fragment;
	else if (!is_ascii(parts.host))
		problem = "host name is not ASCII";
	else if (parts.is_http && !allow_http && !hx_guard_loopback_host(parts.host))
		problem = "plain http to a host that is not loopback";
	hx_curl_url_free(&parts);
	return problem;
}

/*
 * The whole URL that a link found at base means, NULL if that is not one that
 * could be requested.  The link may lead anywhere: see hx_http_same_origin
 * before sending a secret.
 */
char *
hx_http_url_resolve(const char *base, const char *reference)
{
	StringInfoData escaped;
	char	   *url;
	const char *problem;

	if (reference[0] == '\0')
		return NULL;
	initStringInfo(&escaped);
	append_escaped(&escaped, to_utf8(reference));
	base = to_utf8(base);
	url = hx_curl_url_resolve(base, escaped.data);
	if (url == NULL)
		return NULL;
	url = take_string(url);
	problem = hx_http_url_problem(url, true);
	if (problem != NULL && strcmp(problem, has_query_or_fragment) != 0)
		return NULL;
	return hx_http_url(url, NULL, NIL);
}

/* Tells whether two URLs have scheme, host and port in common. */
bool
hx_http_same_origin(const char *url, const char *other)
{
	HxCurlUrl	a;
	HxCurlUrl	b;
	bool		same = false;

	if (!hx_curl_url_parse(url, &a))
		return false;
	if (hx_curl_url_parse(other, &b))
	{
		same = strcmp(a.origin, b.origin) == 0;
		hx_curl_url_free(&b);
	}
	hx_curl_url_free(&a);
	return same;
}

/* What libcurl says of itself and its libraries. */
const char *
hx_http_library_version(void)
{
	return hx_curl_version();
}

/* ASCII needs no conversion, and thus no transaction. */
static char *
to_utf8(const char *text)
{
	if (is_ascii(text))
		return unconstify(char *, text);
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

static bool
is_ascii(const char *c)
{
	for (; *c != '\0'; c++)
	{
		if ((unsigned char) *c >= 0x80)
			return false;
	}
	return true;
}

/* Moves a string of libcurl's into PostgreSQL's memory. */
static char *
take_string(char *string)
{
	char	   *copy = copy_string(string);

	hx_curl_string_free(string);
	if (copy == NULL)
		out_of_memory();
	return copy;
}

/* A copy in PostgreSQL's memory, NULL instead of an error. */
static char *
copy_string(const char *string)
{
	char	   *copy;
	size_t		size;

	if (string == NULL)
		return NULL;
	size = strlen(string) + 1;
	copy = palloc_extended(size, MCXT_ALLOC_NO_OOM);
	if (copy != NULL)
		memcpy(copy, string, size);
	return copy;
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

static void
bad_url(const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid URL of a remote service"),
			 errdetail("The URL is not usable: %s.", problem)));
}

static void
bad_path(const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid path of a request"),
			 errdetail("%s", problem)));
}
