/*-------------------------------------------------------------------------
 *
 * curl_boundary.c
 *	  The library, and the pool of connections.
 *
 * The multi-socket interface: libcurl says which sockets it waits for and
 * when it wants to be called, this file notes it, and pool.c waits.  Nothing
 * here waits, and nothing here decides what a transfer means.
 *
 *-------------------------------------------------------------------------
 */
#include <limits.h>
#include <stdlib.h>
#include <time.h>

#include "http/curl_private.h"

/*
 * libcurl closes an idle connection when one goes idle while more than these
 * are open, to all hosts, those in use included: so it has to be more than are
 * ever in use at once, which is the 128 calls of a delivery.  It is also less
 * than the descriptors that PostgreSQL lets a process have beside its files
 * (a third of max_files_per_process), or idle connections would keep those
 * from being made that are needed.
 */
#define MAX_CACHED_CONNECTIONS	256L

/*
 * CURLMOPT_QUICK_EXIT, by its number for headers that do not know it.  From
 * 8.20 on the threads that look up names belong to the pool, and without this
 * its end waits for the slowest of them.
 */
#define POOL_QUICK_EXIT			((CURLMoption) (CURLOPTTYPE_LONG + 21))
#define POOL_QUICK_EXIT_SINCE	0x081400

static bool library_ready(const char **problem);
static int64_t now_us(void);
static bool begin_again(HxCurlTransfer *t);
static int	find_socket(const HxCurl *curl, int fd);
static bool is_connection(const HxCurl *curl, int fd);
static void drop_socket(HxCurl *curl, int i);
static int	on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *unused);
static int	on_timer(CURLM *multi, long timeout_ms, void *user);

/*
 * Initialises libcurl once for this process and checks that the library that
 * was loaded can do what hubex relies on.  The postmaster must not get here:
 * what libcurl and its TLS library set up does not survive a fork.
 */
static bool
library_ready(const char **problem)
{
	static bool initialised = false;	/* libcurl itself is per process */
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	if (info->version_num < OLDEST_LIBCURL)
		*problem = "the libcurl that was loaded is older than 7.88";
	else if ((info->features & CURL_VERSION_SSL) == 0)
		*problem = "the libcurl that was loaded cannot do TLS";
	else if ((info->features & CURL_VERSION_ASYNCHDNS) == 0)
		*problem = "the libcurl that was loaded cannot look up names without blocking";
	else if (!initialised && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		*problem = "libcurl could not be initialised";
	else
		initialised = true;
	return *problem == NULL;
}

const char *
hx_curl_version(void)
{
	return curl_version();
}

static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Makes a pool of connections; NULL and the reason if that fails. */
HxCurl *
hx_curl_new(const char **problem)
{
	HxCurl	   *curl;

	*problem = NULL;
	if (!library_ready(problem))
		return NULL;

	curl = calloc(1, sizeof(HxCurl));
	if (curl != NULL)
	{
		curl->users = 1;
		curl->multi = curl_multi_init();
	}
	if (curl == NULL || curl->multi == NULL ||
		curl_multi_setopt(curl->multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
		curl_multi_setopt(curl->multi, CURLMOPT_SOCKETDATA, curl) != CURLM_OK ||
		curl_multi_setopt(curl->multi, CURLMOPT_TIMERFUNCTION, on_timer) != CURLM_OK ||
		curl_multi_setopt(curl->multi, CURLMOPT_TIMERDATA, curl) != CURLM_OK ||
		curl_multi_setopt(curl->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING) != CURLM_OK ||
		curl_multi_setopt(curl->multi, CURLMOPT_MAXCONNECTS, MAX_CACHED_CONNECTIONS) != CURLM_OK ||
		(curl_version_info(CURLVERSION_NOW)->version_num >= POOL_QUICK_EXIT_SINCE &&
		 curl_multi_setopt(curl->multi, POOL_QUICK_EXIT, 1L) != CURLM_OK))
	{
		*problem = "out of memory";
		hx_curl_free(curl);
		return NULL;
	}
	return curl;
}

/* Closes all connections.  The transfers need to have ended, or to be gone. */
void
hx_curl_free(HxCurl *curl)
{
	if (curl == NULL)
		return;
	hx_curl_spares_free(curl);
	if (curl->multi != NULL)
		curl_multi_cleanup(curl->multi);
	curl->multi = NULL;
	free(curl->sockets);
	curl->sockets = NULL;
	curl->count = curl->allocated = 0;
	hx_curl_leave_pool(curl);
}

/* The last who knows a pool frees it: the pool itself or one of its transfers. */
void
hx_curl_leave_pool(HxCurl *curl)
{
	if (--curl->users > 0)
		return;
	hx_curl_hosts_free(curl);
	free(curl->open);
	free(curl);
}

/* The sockets to wait for, until the next call that drives or frees. */
HxCurlSocket *
hx_curl_sockets(HxCurl *curl, int *count)
{
	*count = curl->count;
	return curl->sockets;
}

/* The positions of all sockets are no longer: those that rest are struck off. */
void
hx_curl_forget_positions(HxCurl *curl)
{
	for (int i = curl->count - 1; i >= 0; i--)
	{
		curl->sockets[i].position = -1;
		if (curl->sockets[i].want == 0)
			drop_socket(curl, i);
	}
}

/*
 * Tells, once, whether a socket that had a position was taken off the list
 * since the last time; its number may already belong to another one.
 */
bool
hx_curl_take_removed(HxCurl *curl)
{
	bool		removed = curl->removed;

	curl->removed = false;
	return removed;
}

int
hx_curl_open_sockets(const HxCurl *curl)
{
	return curl->open_count;
}

/* Milliseconds until libcurl wants hx_curl_drive_timer; -1: it does not. */
long
hx_curl_timer_ms(const HxCurl *curl)
{
	int64_t		left;

	if (curl->timer_us == 0)
		return -1;
	left = curl->timer_us - now_us();
	if (left <= 0)
		return 0;
	left = (left + 999) / 1000;
	return left > INT_MAX ? INT_MAX : (long) left;
}

/* Goes on with a socket that is ready.  False: the pool is beyond use. */
bool
hx_curl_drive_socket(HxCurl *curl, int fd, int ready)
{
	int			running;
	int			i = find_socket(curl, fd);

	if (i == curl->count)
		return true;
	if (curl->sockets[i].want == 0)
	{
		/* the other side closed it, or else it would be ready for ever */
		drop_socket(curl, i);
		return true;
	}
	return curl_multi_socket_action(curl->multi, fd,
									((ready & HX_CURL_READ) ? CURL_CSELECT_IN : 0) |
									((ready & HX_CURL_WRITE) ? CURL_CSELECT_OUT : 0),
									&running) == CURLM_OK;
}

/* Goes on with what waited for the time.  The call sets the next timer. */
bool
hx_curl_drive_timer(HxCurl *curl)
{
	int			running;

	curl->timer_us = 0;
	return curl_multi_socket_action(curl->multi, CURL_SOCKET_TIMEOUT, 0, &running) == CURLM_OK;
}

/*
 * Takes one transfer that has ended off the pool, so that its connection is
 * free for others, and returns the user pointer it was made with.
 */
void *
hx_curl_next_finished(HxCurl *curl)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(curl->multi, &left)) != NULL)
	{
		HxCurlTransfer *t = NULL;
		CURLcode	code = message->data.result;

		if (message->msg != CURLMSG_DONE ||
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &t) != CURLE_OK)
			continue;
		curl_multi_remove_handle(curl->multi, t->easy);
		t->added = false;
		if (begin_again(t))
			continue;
		hx_curl_transfer_ended(t);
		t->code = code;
		return t->user;
	}
	return NULL;
}

/*
 * Begins a transfer again that found its kept connection closed before it had
 * sent anything; on a new connection now, and once.
 */
static bool
begin_again(HxCurlTransfer *t)
{
	if (!t->found_closed || t->begun_again || t->times_sent > 0)
		return false;
	t->begun_again = true;
	t->found_closed = false;
	t->error[0] = '\0';
	t->added = curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK &&
		curl_multi_add_handle(t->curl->multi, t->easy) == CURLM_OK;
	return t->added;
}

/*
 * libcurl says what to wait for on a socket.  A kept connection is taken off
 * at the end of each transfer, to be put on by the next: it stays in the list
 * meanwhile, and in what the waiting side waits for, and rests.
 */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *unused)
{
	HxCurl	   *curl = user;
	HxCurlTransfer *t = NULL;
	int			want = 0;
	int			i;

	(void) unused;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		want |= HX_CURL_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		want |= HX_CURL_WRITE;

	/* while a socket connects it is writing that libcurl waits for */
	if ((want & HX_CURL_READ) != 0 &&
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &t) == CURLE_OK && t != NULL)
	{
		for (i = 0; i < SOCKETS_REMEMBERED; i++)
			t->connected = t->connected || t->opened[i] == fd;
	}

	i = find_socket(curl, fd);
	if (want == 0)
	{
		if (i == curl->count)
			return 0;
		if (curl->sockets[i].registered == HX_CURL_READ && is_connection(curl, fd))
			curl->sockets[i].want = 0;
		else
			drop_socket(curl, i);
		return 0;
	}
	if (i == curl->count)
	{
		if (curl->count == curl->allocated)
		{
			int			allocated = curl->allocated == 0 ? 16 : 2 * curl->allocated;
			HxCurlSocket *sockets = realloc(curl->sockets, allocated * sizeof(HxCurlSocket));

			if (sockets == NULL)
				return -1;		/* the pool is beyond use */
			curl->sockets = sockets;
			curl->allocated = allocated;
		}
		curl->sockets[i].fd = fd;
		curl->sockets[i].position = -1;
		curl->sockets[i].registered = 0;
		curl->count++;
	}
	curl->sockets[i].want = want;
	return 0;
}

/* Where a socket is in the list; behind its end if it is not. */
static int
find_socket(const HxCurl *curl, int fd)
{
	int			i = 0;

	while (i < curl->count && curl->sockets[i].fd != fd)
		i++;
	return i;
}

/* Only of these it is told when they are closed. */
static bool
is_connection(const HxCurl *curl, int fd)
{
	for (int i = 0; i < curl->open_count; i++)
	{
		if (curl->open[i].fd == fd)
			return true;
	}
	return false;
}

static void
drop_socket(HxCurl *curl, int i)
{
	if (curl->sockets[i].position >= 0)
		curl->removed = true;
	curl->sockets[i] = curl->sockets[--curl->count];
}

/* A connection is about to be closed. */
void
hx_curl_forget_socket(HxCurl *curl, int fd)
{
	int			i = find_socket(curl, fd);

	if (i < curl->count)
		drop_socket(curl, i);
}

/* libcurl says when it wants to be called without a socket being ready. */
static int
on_timer(CURLM *multi, long timeout_ms, void *user)
{
	HxCurl	   *curl = user;

	(void) multi;
	curl->timer_us = timeout_ms < 0 ? 0 : now_us() + (int64_t) timeout_ms * 1000;
	return 0;
}
