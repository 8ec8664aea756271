/*-------------------------------------------------------------------------
 *
 * curl_stream.c
 *	  The body of a transfer, taken while it arrives.
 *
 * A stream keeps no more of a success's body than its window: a full one
 * pauses the transfer, libcurl stops to read its socket, and the other side
 * has to wait.  It goes on when half of the window is free again, so that a
 * reader that takes little at a time does not make libcurl stop and go for
 * each of it.
 *
 * A stream has no time limit of libcurl's but that of its connect: whether
 * it is the remote side or the reader that is slow, only who waits can tell.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "http/curl_private.h"

static bool go_on(HxCurlTransfer *t);

/* The status of the last head, if that is whole and a final one; else 0. */
int
hx_curl_transfer_head(const HxCurlTransfer *t)
{
	return t->header_done ? t->status : 0;
}

/* Is this a transfer whose body is taken while it arrives? */
bool
hx_curl_transfer_streams(const HxCurlTransfer *t)
{
	return t->streaming;
}

/* What has arrived and was not taken; good until the transfer is driven. */
size_t
hx_curl_transfer_unread(const HxCurlTransfer *t, const char **bytes)
{
	*bytes = t->answer + t->taken;
	return t->answer_len - t->taken;
}

/* Takes some of it.  False: the transfer cannot go on, and is to be ended. */
bool
hx_curl_transfer_take(HxCurlTransfer *t, size_t len)
{
	t->taken += len;
	if (t->taken == t->answer_len)
		t->taken = t->answer_len = 0;
	if (t->paused && t->answer_len - t->taken <= t->window / 2)
		return go_on(t);
	return true;
}

/* What it has is to be kept, however much.  False: as above. */
bool
hx_curl_transfer_open_window(HxCurlTransfer *t)
{
	t->window = t->max_body;
	return !t->paused || go_on(t);
}

/* libcurl hands over what it has kept back meanwhile, and may pause again. */
static bool
go_on(HxCurlTransfer *t)
{
	t->paused = false;
	if (!t->added)
		return true;
	t->code = curl_easy_pause(t->easy, CURLPAUSE_CONT);
	return t->code == CURLE_OK;
}

bool
hx_curl_transfer_paused(const HxCurlTransfer *t)
{
	return t->paused;
}

/* A number that grows with each byte that arrives. */
uint64_t
hx_curl_transfer_arrived(const HxCurlTransfer *t)
{
	return t->header_bytes + t->body_bytes;
}

/* Do two transfers go to the same scheme, host and port? */
bool
hx_curl_transfer_same_host(const HxCurlTransfer *t, const HxCurlTransfer *other)
{
	return t->host == other->host;
}

/* Ends a transfer that cannot go on. */
void
hx_curl_transfer_break(HxCurlTransfer *t)
{
	if (t->added)
		curl_multi_remove_handle(t->curl->multi, t->easy);
	t->added = false;
	hx_curl_transfer_ended(t);
}

/* Ends a transfer of which nothing came for so long. */
void
hx_curl_transfer_time_out(HxCurlTransfer *t, long silent_ms)
{
	snprintf(t->error, sizeof(t->error), "nothing came for %ld ms", silent_ms);
	t->code = CURLE_OPERATION_TIMEDOUT;
	hx_curl_transfer_break(t);
}

/* A header of the last answer, the first of its name; NULL: none. */
const char *
hx_curl_transfer_find_header(HxCurlTransfer *t, const char *name)
{
	struct curl_header *header;

	if (t->times_sent == 0 || curl_easy_header(t->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	return header->value;
}
