/*-------------------------------------------------------------------------
 *
 * pool.c
 *	  Many transfers, one wait.
 *
 * libcurl says which sockets it waits for; this file waits for them together
 * with the process's latch and the postmaster's death, in a WaitEventSet, so
 * that a process is never deaf while it talks to the network.  No error can
 * come out of libcurl; one can come out of PostgreSQL between two calls (an
 * interrupt, no memory), and then everything is where the next call expects
 * it, or is freed with the pool's memory context.
 *
 * A socket that was closed cannot be taken out of a WaitEventSet, and its
 * number may come back as another socket at once; so the set is made anew
 * then.  That costs as many system calls as there are sockets: kept
 * connections therefore stay in the set between two transfers, and one that is
 * heard of in between, because its other side closed it, leaves with the set.
 *
 * The limit of connections to a host is counted here and not by libcurl, whose
 * limit is one for the whole pool while each request brings its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "http/http_internal.h"

#define POOL_OWN_FDS	2		/* what libcurl opens for a pool itself */
#define SPARE_FDS		4
#define EVENTS_A_WAIT	128
#define SPARE_EVENTS	14

static void pool_release(void *arg);
static void pool_drop_library(HxHttpPool *pool);
static void pool_admit(HxHttpPool *pool);
static void pool_prepare_set(HxHttpPool *pool);
static void pool_drop_set(HxHttpPool *pool);
static bool pool_drive(HxHttpPool *pool, const WaitEvent *events, int count);
static void pool_fail(HxHttpPool *pool);
static bool pool_has_fds(void);
static void pool_account_fds(HxHttpPool *pool);

/* Makes an empty pool below a memory context. */
HxHttpPool *
hx_http_pool_create(MemoryContext parent)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "hubex http pool", ALLOCSET_SMALL_SIZES);
	HxHttpPool *pool = MemoryContextAllocZero(cxt, sizeof(HxHttpPool));

	pool->cxt = cxt;
	dlist_init(&pool->waiting);
	dlist_init(&pool->running);
	dlist_init(&pool->done);
	pool->callback.func = pool_release;
	pool->callback.arg = pool;
	MemoryContextRegisterResetCallback(cxt, &pool->callback);
	return pool;
}

/* Ends a pool, its transfers and its connections. */
void
hx_http_pool_destroy(HxHttpPool *pool)
{
	MemoryContextDelete(pool->cxt);
}

/* The transfers, in contexts below the pool's, are gone when this runs. */
static void
pool_release(void *arg)
{
	HxHttpPool *pool = arg;

	pool_drop_set(pool);
	pool_drop_library(pool);
}

/* Closes all connections. */
static void
pool_drop_library(HxHttpPool *pool)
{
	sigset_t	saved;

	hx_curl_enter(&saved);
	hx_curl_free(pool->curl);
	pool->curl = NULL;
	hx_curl_leave(&saved);
	pool_account_fds(pool);
}

/* Makes sure that there is a libcurl to work with; false and why if not. */
bool
hx_pool_library(HxHttpPool *pool, const char **problem)
{
	sigset_t	saved;

	/* what libcurl sets up must not be inherited by all later processes */
	if (IsPostmasterEnvironment && !IsUnderPostmaster)
	{
		*problem = "the postmaster itself makes no requests";
		return false;
	}
	if (pool->curl == NULL)
	{
		hx_curl_enter(&saved);
		pool->curl = hx_curl_new(problem);
		hx_curl_leave(&saved);
	}
	return pool->curl != NULL;
}

/* Takes a new transfer in, for the next hx_http_wait to start. */
void
hx_pool_enqueue(HxHttpPool *pool, HxTransfer *transfer)
{
	transfer->state = HX_TRANSFER_WAITING;
	dlist_push_tail(&pool->waiting, &transfer->node);
	pool->in_flight++;
	pool->streams += transfer->stream;
	if (transfer->curl == NULL || hx_curl_transfer_running(transfer->curl) < 0)
		hx_pool_finish(pool, transfer);
}

/* Strikes a transfer off the pool's lists; libcurl's side of it may remain. */
void
hx_pool_forget(HxTransfer *transfer)
{
	if (transfer->state == HX_TRANSFER_FETCHED)
		return;
	if (transfer->state != HX_TRANSFER_DONE)
	{
		transfer->pool->in_flight--;
		transfer->pool->streams -= transfer->stream;
	}
	if (transfer->state == HX_TRANSFER_RUNNING)
		transfer->pool->in_progress--;
	dlist_delete(&transfer->node);
	transfer->state = HX_TRANSFER_FETCHED;
}

/* Moves a transfer to the end of the list of those that are done. */
void
hx_pool_finish(HxHttpPool *pool, HxTransfer *transfer)
{
	hx_pool_forget(transfer);
	transfer->state = HX_TRANSFER_DONE;
	dlist_push_tail(&pool->done, &transfer->node);
}

/* Starts what waits for a connection and may have one, in order of arrival. */
static void
pool_admit(HxHttpPool *pool)
{
	dlist_mutable_iter iter;
	sigset_t	saved;

	pool_account_fds(pool);
	if (dlist_is_empty(&pool->waiting))
		return;

	/* nothing in here throws */
	hx_curl_enter(&saved);
	dlist_foreach_modify(iter, &pool->waiting)
	{
		HxTransfer *transfer = dlist_container(HxTransfer, node, iter.cur);

		if (hx_curl_transfer_running(transfer->curl) >= transfer->max_connections)
		{
			if (pool->streams > 0)
				hx_streams_hurry(pool, transfer);
			continue;
		}

		/*
		 * At the limit of descriptors wait for a transfer to end.  If none
		 * runs, go on if there are idle connections, which can be used again.
		 */
		if (!pool_has_fds() && pool->in_progress > 0)
		{
			if (pool->streams > 0)
				hx_streams_hurry(pool, NULL);
			break;
		}
		if (!pool_has_fds() && hx_curl_open_sockets(pool->curl) == 0)
		{
			transfer->fault = HX_HTTP_OTHER;
			transfer->problem = "too many open files";
			hx_curl_transfer_free(transfer->curl);
			transfer->curl = NULL;
			hx_pool_finish(pool, transfer);
			continue;
		}

		if (!hx_curl_transfer_start(transfer->curl))
		{
			hx_pool_finish(pool, transfer);
			continue;
		}
		dlist_delete(&transfer->node);
		dlist_push_tail(&pool->running, &transfer->node);
		transfer->state = HX_TRANSFER_RUNNING;
		pool->in_progress++;
		pool_account_fds(pool);
	}
	hx_curl_leave(&saved);
}

/*
 * Waits at most once, for the latch, the sockets of the transfers, libcurl's
 * timer or the end of the time (-1: no end), and goes on with what can go on.
 * Does not wait at all while a transfer that is done has not been fetched.
 * Resets the latch if it was set, and then handles interrupts; may throw
 * there.  Returns what happened as WL_LATCH_SET, WL_SOCKET_READABLE (some
 * transfer was driven, or one is done) and WL_TIMEOUT, the caller's time; 0 if
 * it woke up for nothing.
 */
int
hx_http_wait(HxHttpPool *pool, long timeout_ms, uint32 wait_event)
{
	WaitEvent	events[EVENTS_A_WAIT];
	long		wait_ms = timeout_ms;
	long		patience_ms = -1;
	instr_time	begin;
	instr_time	end;
	int			happened = 0;
	bool		done;
	int			count;

	/* a release may have made room */
	pool_admit(pool);
	done = !dlist_is_empty(&pool->done);
	if (done)
		wait_ms = 0;
	else if (pool->curl != NULL)
	{
		long		timer_ms = hx_curl_timer_ms(pool->curl);

		if (timer_ms >= 0 && (wait_ms < 0 || timer_ms < wait_ms))
			wait_ms = timer_ms;
	}

	if (pool->streams > 0)
	{
		patience_ms = hx_streams_patience_ms(pool);
		if (patience_ms >= 0 && (wait_ms < 0 || patience_ms < wait_ms))
			wait_ms = patience_ms;
		INSTR_TIME_SET_CURRENT(begin);
	}

	pool_prepare_set(pool);
	count = WaitEventSetWait(pool->set, wait_ms, events, EVENTS_A_WAIT, wait_event);

	for (int i = 0; i < count; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			happened |= WL_LATCH_SET;
		}
	}
	if (pool_drive(pool, events, count) || done)
		happened |= WL_SOCKET_READABLE;
	if (patience_ms >= 0)
	{
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, begin);
		if (hx_streams_waited(pool, INSTR_TIME_GET_MICROSEC(end)))
			happened |= WL_SOCKET_READABLE;
	}
	if (happened == 0 && timeout_ms >= 0 && wait_ms == timeout_ms)
		happened = WL_TIMEOUT;

	if (happened & WL_LATCH_SET)
		CHECK_FOR_INTERRUPTS();
	return happened;
}

/* Makes the wait event set say what libcurl waits for now. */
static void
pool_prepare_set(HxHttpPool *pool)
{
	HxCurlSocket *sockets = NULL;
	int			count = 0;

	if (pool->curl != NULL)
	{
		sockets = hx_curl_sockets(pool->curl, &count);
		if (hx_curl_take_removed(pool->curl))
			pool->set_broken = true;
	}
	if (pool->set_broken || pool->latch != MyLatch || count + 2 > pool->capacity)
		pool_drop_set(pool);
	if (pool->set == NULL && pool->curl != NULL)
	{
		hx_curl_forget_positions(pool->curl);
		sockets = hx_curl_sockets(pool->curl, &count);
	}

	/* an error from here on leaves a set that is not used again */
	pool->set_broken = true;
	if (pool->set == NULL)
	{
		pool->capacity = count + 2 + SPARE_EVENTS;
		pool->set = hx_create_wait_event_set(pool->cxt, pool->capacity);
		AddWaitEventToSet(pool->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		if (IsUnderPostmaster)
			AddWaitEventToSet(pool->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		pool->latch = MyLatch;
	}
	for (int i = 0; i < count; i++)
	{
		HxCurlSocket *s = &sockets[i];
		uint32		mask = ((s->want & HX_CURL_READ) ? WL_SOCKET_READABLE : 0) |
			((s->want & HX_CURL_WRITE) ? WL_SOCKET_WRITEABLE : 0);

		if (s->want == 0)
			continue;
		if (s->position < 0)
			s->position = AddWaitEventToSet(pool->set, mask, s->fd, NULL, NULL);
		else if (s->registered != s->want)
			ModifyWaitEvent(pool->set, s->position, mask, NULL);
		s->registered = s->want;
	}
	pool->set_broken = false;
}

static void
pool_drop_set(HxHttpPool *pool)
{
	if (pool->set != NULL)
		FreeWaitEventSet(pool->set);
	pool->set = NULL;
}

/*
 * Lets libcurl go on with the sockets that are ready and the time that has
 * passed; collects the transfers that ended thereby.  Tells whether there was
 * anything to do.
 */
static bool
pool_drive(HxHttpPool *pool, const WaitEvent *events, int count)
{
	bool		driven = false;
	bool		usable = true;
	HxTransfer *transfer;
	sigset_t	saved;

	if (pool->curl == NULL)
		return false;

	hx_curl_enter(&saved);
	for (int i = 0; i < count && usable; i++)
	{
		uint32		ready = events[i].events;

		if ((ready & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) == 0)
			continue;
		driven = true;
		usable = hx_curl_drive_socket(pool->curl, events[i].fd,
									  ((ready & WL_SOCKET_READABLE) ? HX_CURL_READ : 0) |
									  ((ready & WL_SOCKET_WRITEABLE) ? HX_CURL_WRITE : 0));
	}
	if (usable && hx_curl_timer_ms(pool->curl) == 0)
	{
		driven = true;
		usable = hx_curl_drive_timer(pool->curl);
	}
	while (driven && (transfer = hx_curl_next_finished(pool->curl)) != NULL)
		hx_pool_finish(pool, transfer);
	hx_curl_leave(&saved);

	if (!usable)
		pool_fail(pool);
	else if (driven)
		pool_admit(pool);
	return driven;
}

/*
 * Gives up a libcurl that ran out of memory in the middle of its book-keeping:
 * its transfers end, and the next one gets a new libcurl.
 */
static void
pool_fail(HxHttpPool *pool)
{
	dlist_head *lists[] = {&pool->running, &pool->waiting};
	sigset_t	saved;

	for (int i = 0; i < lengthof(lists); i++)
	{
		while (!dlist_is_empty(lists[i]))
		{
			HxTransfer *transfer = dlist_head_element(HxTransfer, node, lists[i]);

			hx_curl_enter(&saved);
			hx_curl_transfer_abandon(transfer->curl);
			hx_curl_leave(&saved);
			hx_pool_finish(pool, transfer);
		}
	}
	pool_drop_set(pool);
	pool_drop_library(pool);
}

/* The next transfer that has ended and was not handed out yet, or NULL. */
HxTransfer *
hx_http_next_done(HxHttpPool *pool)
{
	HxTransfer *transfer;

	if (dlist_is_empty(&pool->done))
		return NULL;
	transfer = dlist_head_element(HxTransfer, node, &pool->done);
	hx_pool_forget(transfer);
	return transfer;
}

/* How many transfers have not ended, those that wait for a connection too. */
int
hx_http_in_flight(HxHttpPool *pool)
{
	return pool->in_flight;
}

/*
 * Tells whether there are descriptors for one more connection, with some to
 * spare: a host with several addresses is tried at two at once, and the wait
 * event set, made anew, must never be what finds none left.
 */
static bool
pool_has_fds(void)
{
	int			got = 0;
	bool		enough;

	while (got < SPARE_FDS && AcquireExternalFD())
		got++;
	enough = got == SPARE_FDS;
	while (got-- > 0)
		ReleaseExternalFD();
	return enough;
}

/*
 * Tells PostgreSQL how many descriptors libcurl holds or will hold at once, so
 * that its own files give way.
 */
static void
pool_account_fds(HxHttpPool *pool)
{
	int			wanted = 0;

	if (pool->curl != NULL)
		wanted = POOL_OWN_FDS + Max(hx_curl_open_sockets(pool->curl), pool->in_progress);
	for (; pool->fds < wanted; pool->fds++)
		ReserveExternalFD();
	for (; pool->fds > wanted; pool->fds--)
		ReleaseExternalFD();
}
