/*-------------------------------------------------------------------------
 *
 * curl_url.c
 *	  URLs: taken apart, put together, compared.
 *
 * libcurl's own parser is used for all of it, so that what is checked is what
 * is then connected to.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/curl_private.h"

static char *url_part(CURLU *url, CURLUPart part, unsigned int flags);
static bool has_part(CURLU *url, CURLUPart part);
static char *authority(const char *scheme, const char *host, const char *port);

/*
 * Takes a URL apart.  False: it is none (or memory is out).  Spaces in path
 * and query are let through for the caller to escape.
 */
bool
hx_curl_url_parse(const char *text, HxCurlUrl *parts)
{
	CURLU	   *url = curl_url();
	bool		whole = false;

	memset(parts, 0, sizeof(*parts));
	if (url != NULL &&
		curl_url_set(url, CURLUPART_URL, text,
					 CURLU_NON_SUPPORT_SCHEME | CURLU_ALLOW_SPACE) == CURLUE_OK)
	{
		char	   *scheme = url_part(url, CURLUPART_SCHEME, 0);
		char	   *given_port = url_part(url, CURLUPART_PORT, 0);
		char	   *port = url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);

		parts->host = url_part(url, CURLUPART_HOST, 0);
		parts->path = url_part(url, CURLUPART_PATH, 0);
		parts->query = url_part(url, CURLUPART_QUERY, 0);
		parts->has_user = has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD);
		parts->has_fragment = has_part(url, CURLUPART_FRAGMENT);
		if (scheme != NULL && parts->host != NULL && parts->host[0] != '\0' &&
			parts->path != NULL)
		{
			parts->is_http = strcmp(scheme, "http") == 0;
			parts->is_https = strcmp(scheme, "https") == 0;
			parts->prefix = authority(scheme, parts->host, given_port);
			parts->origin = authority(scheme, parts->host, port);
			for (char *c = parts->origin; c != NULL && *c != '\0'; c++)
			{
				if (*c >= 'A' && *c <= 'Z')
					*c += 'a' - 'A';
			}
			whole = parts->prefix != NULL && parts->origin != NULL;
		}
		curl_free(scheme);
		curl_free(given_port);
		curl_free(port);
	}
	curl_url_cleanup(url);
	if (!whole)
		hx_curl_url_free(parts);
	return whole;
}

static char *
url_part(CURLU *url, CURLUPart part, unsigned int flags)
{
	char	   *text = NULL;

	return curl_url_get(url, part, &text, flags) == CURLUE_OK ? text : NULL;
}

static bool
has_part(CURLU *url, CURLUPart part)
{
	char	   *value = url_part(url, part, 0);

	curl_free(value);
	return value != NULL;
}

/* Scheme, host and port as a URL has them; port NULL: without. */
static char *
authority(const char *scheme, const char *host, const char *port)
{
	size_t		len = strlen(scheme) + strlen(host) + 16;
	char	   *value = malloc(len);

	if (value != NULL)
		snprintf(value, len, "%s://%s%s%s", scheme, host,
				 port != NULL ? ":" : "", port != NULL ? port : "");
	return value;
}

void
hx_curl_url_free(HxCurlUrl *parts)
{
	curl_free(parts->host);
	curl_free(parts->path);
	curl_free(parts->query);
	free(parts->prefix);
	free(parts->origin);
	memset(parts, 0, sizeof(*parts));
}

/* The address that a reference found at base means (RFC 3986, 5). */
char *
hx_curl_url_resolve(const char *base, const char *reference)
{
	CURLU	   *url = curl_url();
	char	   *whole = NULL;

	if (url != NULL &&
		curl_url_set(url, CURLUPART_URL, base, CURLU_ALLOW_SPACE) == CURLUE_OK &&
		curl_url_set(url, CURLUPART_URL, reference, CURLU_ALLOW_SPACE) == CURLUE_OK &&
		curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK)
		whole = url_part(url, CURLUPART_URL, 0);
	curl_url_cleanup(url);
	return whole;
}

/* Everything but letters, digits and -._~ as %XX. */
char *
hx_curl_escape(const char *text)
{
	return curl_easy_escape(NULL, text, 0);
}

void
hx_curl_string_free(char *string)
{
	curl_free(string);
}
