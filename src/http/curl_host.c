/*-------------------------------------------------------------------------
 *
 * curl_host.c
 *	  What transfers go to: a scheme, a host and a port.
 *
 * How many transfers run to each is counted here.  Most transfers of a pool go
 * to where the one before went, and to take their URL apart costs more than
 * anything else that is done to begin one; so it is not done for a URL that
 * begins as the last one did and has nothing in it that could change what that
 * means.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "http/curl_private.h"

#define MAX_UNUSED_HOSTS	64

static bool begins_as_last(const HxCurl *curl, const char *url);
static size_t plain_prefix(const char *url);
static HxCurlHost *find_host(HxCurl *curl, const HxCurlUrl *url);
static void drop_unused(HxCurl *curl);

/*
 * Where a URL leads, which counts as a transfer more.  NULL and why, where it
 * is none to be requested; NULL and no reason: out of memory.
 */
HxCurlHost *
hx_curl_host(HxCurl *curl, const char *text, const char **problem)
{
	HxCurlHost *host = NULL;
	HxCurlUrl	url;

	*problem = NULL;
	if (begins_as_last(curl, text))
	{
		curl->last_host->transfers++;
		return curl->last_host;
	}
	if (!hx_curl_url_parse(text, &url))
	{
		*problem = "the address is not a URL";
		return NULL;
	}
	if (!url.is_http && !url.is_https)
		*problem = "the scheme is not http or https";
	else if (url.has_user)
		*problem = "the URL holds a user name or a password";
	else
		host = find_host(curl, &url);
	hx_curl_url_free(&url);
	if (host == NULL)
		return NULL;

	host->transfers++;
	free(curl->last_prefix);
	curl->last_prefix = strndup(text, plain_prefix(text));
	curl->last_host = curl->last_prefix != NULL && curl->last_prefix[0] != '\0' ? host : NULL;
	return host;
}

static bool
begins_as_last(const HxCurl *curl, const char *url)
{
	size_t		len = plain_prefix(url);

	return curl->last_host != NULL && len > 0 &&
		strncmp(curl->last_prefix, url, len) == 0 && curl->last_prefix[len] == '\0';
}

/*
 * The length of a URL's scheme, host and port, where these can be told at
 * sight: http or https, letters, digits, dots, hyphens and a colon, then a
 * slash, and nothing behind it but what a URL may hold.  Else 0.
 */
static size_t
plain_prefix(const char *url)
{
	const char *c = url;

	if (strncmp(c, "https://", 8) == 0)
		c += 8;
	else if (strncmp(c, "http://", 7) == 0)
		c += 7;
	else
		return 0;
	c += strspn(c, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:");
	if (*c != '/')
		return 0;
	for (const char *rest = c; *rest != '\0'; rest++)
	{
		if (*rest <= 0x20 || *rest >= 0x7f)
			return 0;
	}
	return (size_t) (c - url);
}

/* Finds the entry of a URL that was taken apart, or makes it; NULL: no memory. */
static HxCurlHost *
find_host(HxCurl *curl, const HxCurlUrl *url)
{
	HxCurlHost *host;
	size_t		size = strlen(url->origin) + 1;

	for (host = curl->hosts; host != NULL; host = host->next)
	{
		if (strcmp(host->origin, url->origin) == 0)
			return host;
	}
	if (curl->host_count > MAX_UNUSED_HOSTS)
		drop_unused(curl);
	host = calloc(1, sizeof(HxCurlHost) + size);
	if (host == NULL)
		return NULL;
	memcpy(host->origin, url->origin, size);
	host->is_https = url->is_https;
	host->next = curl->hosts;
	curl->hosts = host;
	curl->host_count++;
	return host;
}

static void
drop_unused(HxCurl *curl)
{
	HxCurlHost **link = &curl->hosts;

	curl->last_host = NULL;
	while (*link != NULL)
	{
		HxCurlHost *host = *link;

		if (host->transfers == 0)
		{
			*link = host->next;
			free(host);
			curl->host_count--;
		}
		else
			link = &host->next;
	}
}

/* No transfer is left. */
void
hx_curl_hosts_free(HxCurl *curl)
{
	drop_unused(curl);
	free(curl->last_prefix);
	curl->last_prefix = NULL;
}
