/*-------------------------------------------------------------------------
 *
 * jobs.c
 *	  What the workers of each kind do.
 *
 * All that the background knows of the jobs is in this table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/outbox.h"
#include "sync/sync.h"
#include "worker/worker.h"

const HxJob *const hx_worker_jobs[HX_WORKER_KINDS] = {
	[HX_WORKER_DELIVERY] = &hx_delivery_job,
	[HX_WORKER_SYNC] = &hx_sync_job
};
