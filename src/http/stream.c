/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Transfers whose body is taken while it arrives.
 *
 * What a query reads may be large, and its first rows are wanted before the
 * last byte is there.  So a stream can be looked at while it runs: its head,
 * then of a success the bytes that arrived.  Who reads says what he took; what
 * he did not take is held up to the window, and then the remote side has to
 * wait.  An answer that is no success is kept whole, as that of any transfer.
 *
 * Who is slow.  The reader of a stream may be a cursor that is fetched from
 * once a minute; that is no fault of the remote side's.  So time counts
 * against a stream only while the pool is waited for and the stream may go on;
 * and each byte that comes begins the count anew.
 *
 * Who has to wait.  A stream that is paused keeps its connection.  Where
 * another transfer waits for one, and only paused streams have them, both
 * might wait for ever: the reader of the first may be the one that waits for
 * the second.  Then one that is paused is given room for all that is left.
 *
 * The streams of a process share one pool.  It is not the one of perform.c,
 * which waits for a transfer of its own and for no other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "http/http_internal.h"

/* The process's streams: made once, used until it exits. */
static struct
{
	HxHttpPool *pool;
	uint32		wait_event;
}			process;

static void stream_break(HxTransfer *transfer);
static bool collect_done(void);

/* Has a transfer ended?  Then hx_http_result() says how. */
bool
hx_http_ended(const HxTransfer *transfer)
{
	return transfer->state != HX_TRANSFER_WAITING && transfer->state != HX_TRANSFER_RUNNING;
}

/* The status of the answer, if its head is here; of a transfer that has ended too. */
bool
hx_http_head(const HxTransfer *transfer, int *status)
{
	if (transfer->curl != NULL)
		*status = hx_curl_transfer_head(transfer->curl);
	else
		*status = transfer->result != NULL ? transfer->result->status : 0;
	return *status != 0;
}

/* A header of the head that is here, palloc'd; NULL where it has none of that name. */
char *
hx_http_arrived_header(const HxTransfer *transfer, const char *name)
{
	const char *value = NULL;
	char	   *copy;
	int			status;

	if (!hx_http_head(transfer, &status))
		return NULL;
	if (transfer->curl != NULL)
		value = hx_curl_transfer_find_header(transfer->curl, name);
	else if (transfer->result != NULL)
		value = hx_http_header(transfer->result, name);
	if (value == NULL)
		return NULL;
	copy = pstrdup(value);
	hx_transfer_hide_secrets(transfer, status >= 200 && status <= 299, copy, strlen(copy));
	return copy;
}

/*
 * The bytes of a success that have arrived and were not taken, good until the
 * pool is waited for or some are taken.  False where there are none now.
 */
bool
hx_http_arrived(const HxTransfer *transfer, const char **bytes, size_t *len)
{
	*bytes = NULL;
	*len = 0;
	if (transfer->curl != NULL && hx_curl_transfer_streams(transfer->curl))
		*len = hx_curl_transfer_unread(transfer->curl, bytes);
	return *len > 0;
}

/* Takes some of these bytes; a stream that was paused may go on thereby. */
void
hx_http_take(HxTransfer *transfer, size_t len)
{
	sigset_t	saved;
	bool		usable;

	hx_curl_enter(&saved);
	usable = hx_curl_transfer_take(transfer->curl, len);
	hx_curl_leave(&saved);
	if (!usable)
		stream_break(transfer);
}

/*
 * Makes unreadable what was secret in the request, in bytes of a success.  To
 * be called with what belongs together, for it looks for whole secrets.
 */
void
hx_http_hide_secrets(const HxTransfer *transfer, char *bytes, size_t len)
{
	hx_transfer_hide_secrets(transfer, true, bytes, len);
}

static void
stream_break(HxTransfer *transfer)
{
	sigset_t	saved;

	if (hx_http_ended(transfer))
		return;
	hx_curl_enter(&saved);
	hx_curl_transfer_break(transfer->curl);
	hx_curl_leave(&saved);
	hx_pool_finish(transfer->pool, transfer);
}

/* The pool of all streams of this process. */
HxHttpPool *
hx_http_streams(void)
{
	if (process.pool == NULL)
		process.pool = hx_http_pool_create(TopMemoryContext);
	return process.pool;
}

/*
 * Waits at most once for the streams of this process (timeout_ms as in
 * hx_http_wait), and tells whether anything happened.  Whose stream that was
 * is for each reader to see.  Throws for interrupts.
 */
bool
hx_http_streams_wait(long timeout_ms)
{
	HxHttpPool *pool = hx_http_streams();
	int			happened;

	if (process.wait_event == 0)
		process.wait_event = hx_wait_event("HubexHttp");
	CHECK_FOR_INTERRUPTS();

	/* who started what was refused at once may not have looked at it yet */
	if (collect_done())
		timeout_ms = 0;
	happened = hx_http_wait(pool, timeout_ms, process.wait_event);
	return collect_done() || (happened & WL_SOCKET_READABLE) != 0;
}

/* Nobody fetches from this pool: each reader knows its own transfers. */
static bool
collect_done(void)
{
	bool		any = false;

	while (hx_http_next_done(process.pool) != NULL)
		any = true;
	return any;
}

/* How long the pool may be waited for until a stream is out of time; -1: no end. */
long
hx_streams_patience_ms(HxHttpPool *pool)
{
	dlist_iter	iter;
	int64		left_us = PG_INT64_MAX;

	dlist_foreach(iter, &pool->running)
	{
		const HxTransfer *transfer = dlist_container(HxTransfer, node, iter.cur);

		if (transfer->stream && !hx_curl_transfer_paused(transfer->curl))
			left_us = Min(left_us, transfer->silence_ms * INT64CONST(1000) - transfer->silent_us);
	}
	if (left_us == PG_INT64_MAX)
		return -1;
	return (long) Max((left_us + 999) / 1000, 0);
}

/*
 * The pool was waited for so long: ends the streams of which nothing came for
 * too long.  Tells whether any did.
 */
bool
hx_streams_waited(HxHttpPool *pool, int64 us)
{
	dlist_mutable_iter iter;
	bool		any = false;
	sigset_t	saved;

	dlist_foreach_modify(iter, &pool->running)
	{
		HxTransfer *transfer = dlist_container(HxTransfer, node, iter.cur);
		uint64		arrived = hx_curl_transfer_arrived(transfer->curl);

		if (!transfer->stream)
			continue;
		if (arrived != transfer->arrived || hx_curl_transfer_paused(transfer->curl))
		{
			transfer->arrived = arrived;
			transfer->silent_us = 0;
			continue;
		}
		transfer->silent_us += us;
		if (transfer->silent_us < transfer->silence_ms * INT64CONST(1000))
			continue;
		hx_curl_enter(&saved);
		hx_curl_transfer_time_out(transfer->curl, transfer->silence_ms);
		hx_curl_leave(&saved);
		hx_pool_finish(pool, transfer);
		any = true;
	}
	return any;
}

/*
 * A transfer waits for a connection to its host (NULL: for a descriptor): lets
 * one of the streams that are paused there run to its end, if none does yet.
 * In the order of their start, in which they will be read.
 */
void
hx_streams_hurry(HxHttpPool *pool, const HxTransfer *waiting)
{
	dlist_iter	iter;
	HxTransfer *paused = NULL;

	dlist_foreach(iter, &pool->running)
	{
		HxTransfer *transfer = dlist_container(HxTransfer, node, iter.cur);

		if (waiting != NULL && !hx_curl_transfer_same_host(transfer->curl, waiting->curl))
			continue;
		if (!hx_curl_transfer_paused(transfer->curl))
			return;				/* it goes on by itself */
		if (paused == NULL)
			paused = transfer;
	}

	/* one that cannot go on is found out by its reader, or by the silence */
	if (paused != NULL)
		(void) hx_curl_transfer_open_window(paused->curl);
}
