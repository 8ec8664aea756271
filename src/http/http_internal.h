/*-------------------------------------------------------------------------
 *
 * http_internal.h
 *	  What the files of http/ on PostgreSQL's side share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_HTTP_INTERNAL_H
#define HX_HTTP_INTERNAL_H

#include <signal.h>

#include "lib/ilist.h"
#include "storage/latch.h"

#include "compat.h"
#include "http/curl_boundary.h"
#include "http/http.h"

/*
 * A pool: the connections, the transfers over them, and what they wait with.
 * It owns a memory context; deleting or resetting that is what frees it.
 */
struct HxHttpPool
{
	MemoryContext cxt;
	MemoryContextCallback callback;
	HxCurl	   *curl;			/* NULL: made when first needed */
	WaitEventSet *set;			/* NULL: made when next needed */
	Latch	   *latch;			/* the one in the set */
	int			capacity;		/* of the set */
	bool		set_broken;		/* an error left it half built */
	int			fds;			/* descriptors PostgreSQL was told of */
	dlist_head	waiting;		/* for a connection to their host */
	dlist_head	running;
	dlist_head	done;			/* not yet handed out by hx_http_next_done */
	int			in_flight;		/* waiting and running */
	int			streams;		/* of these */
	int			in_progress;	/* running */
};

typedef enum HxTransferState
{
	HX_TRANSFER_WAITING,
	HX_TRANSFER_RUNNING,
	HX_TRANSFER_DONE,
	HX_TRANSFER_FETCHED			/* in no list of the pool */
} HxTransferState;

/* A transfer; it lives in a context of its own below the pool's. */
struct HxTransfer
{
	HxHttpPool *pool;
	MemoryContext cxt;
	MemoryContextCallback callback;
	dlist_node	node;
	HxTransferState state;
	void	   *owner;
	HxCurlTransfer *curl;		/* NULL: refused, or the result was taken */
	int			max_connections;
	bool		harmless;
	bool		stream;
	long		silence_ms;		/* of a stream: nothing may come for so long */
	uint64		arrived;		/* when it was looked at last */
	int64		silent_us;		/* waited since then for more */
	List	   *secrets;		/* of char * */
	HxHttpFault fault;			/* where it was refused without libcurl */
	const char *problem;
	HxHttpResult *result;		/* made when first asked for */
};

/* pool.c */
extern void hx_pool_enqueue(HxHttpPool *pool, HxTransfer *transfer);
extern void hx_pool_forget(HxTransfer *transfer);
extern void hx_pool_finish(HxHttpPool *pool, HxTransfer *transfer);
extern bool hx_pool_library(HxHttpPool *pool, const char **problem);

/* stream.c */
extern long hx_streams_patience_ms(HxHttpPool *pool);
extern bool hx_streams_waited(HxHttpPool *pool, int64 us);
extern void hx_streams_hurry(HxHttpPool *pool, const HxTransfer *waiting);

/* transfer.c */
extern HxHttpResult *hx_transfer_make_result(HxTransfer *transfer, MemoryContext cxt);
extern void hx_transfer_hide_secrets(const HxTransfer *transfer, bool success, char *bytes, size_t len);

/*
 * Brackets calls into libcurl that may start a thread, which it does to look
 * up a name (curl_boundary.h says which).  Meanwhile no signal is taken: a
 * thread keeps the mask it was born with, and a handler of PostgreSQL's must
 * never run in a foreign thread.  Nothing in between may throw.  The signals
 * that a fault of the program itself raises stay open.
 */
static inline void
hx_curl_enter(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGSYS);
	sigdelset(&all, SIGTRAP);
	sigprocmask(SIG_SETMASK, &all, saved);
}

static inline void
hx_curl_leave(const sigset_t *saved)
{
	sigprocmask(SIG_SETMASK, saved, NULL);
}

#endif							/* HX_HTTP_INTERNAL_H */
