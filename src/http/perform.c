/*-------------------------------------------------------------------------
 *
 * perform.c
 *	  One transfer, waited for: what a backend does during a query.
 *
 * The pool lives as long as the process, so that a connection, and the TLS
 * handshake it cost, serves the next call too.  The wait is on the latch:
 * a cancel, a timeout of the statement or a shutdown ends it at once, and the
 * transfer with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "http/http_internal.h"

/*
 * The process's own pool and wait event: made once, used until it exits.  A
 * backend performs one transfer at a time.
 */
static struct
{
	HxHttpPool *pool;
	uint32		wait_event;
}			process;

/*
 * Sends a request and waits for its end.  The result is in the caller's
 * memory context.  Throws only for interrupts and for lack of memory; the
 * transfer is then cut off, and the pool goes on to be used.
 */
const HxHttpResult *
hx_http_perform(const HxHttpRequest *request)
{
	HxTransfer *transfer;
	HxHttpResult *volatile result = NULL;

	CHECK_FOR_INTERRUPTS();
	if (process.pool == NULL)
		process.pool = hx_http_pool_create(TopMemoryContext);
	if (process.wait_event == 0)
		process.wait_event = hx_wait_event("HubexHttp");

	transfer = hx_http_start(process.pool, request, NULL);
	PG_TRY();
	{
		while (transfer->state != HX_TRANSFER_DONE)
		{
			CHECK_FOR_INTERRUPTS();
			(void) hx_http_wait(process.pool, -1, process.wait_event);
		}
		result = hx_transfer_make_result(transfer, CurrentMemoryContext);
	}
	PG_FINALLY();
	{
		hx_http_release(transfer);
	}
	PG_END_TRY();
	return result;
}
