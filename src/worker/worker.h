/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background: a launcher, and for every database that has the
 *	  extension a worker of each kind that has something to do there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_WORKER_H
#define HX_WORKER_H

#include "base/job.h"
#include "base/shared.h"

extern const HxJob *const hx_worker_jobs[HX_WORKER_KINDS];

extern void hx_launcher_register(void);
extern void hx_make_way_install(void);

extern PGDLLEXPORT void hx_launcher_main(Datum arg);
extern PGDLLEXPORT void hx_worker_main(Datum arg);

#endif							/* HX_WORKER_H */
