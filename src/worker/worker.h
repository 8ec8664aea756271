/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background: a launcher, and a delivery worker for every database
 *	  that has the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_WORKER_H
#define HX_WORKER_H

extern void hx_launcher_register(void);
extern void hx_make_way_install(void);

extern PGDLLEXPORT void hx_launcher_main(Datum arg);
extern PGDLLEXPORT void hx_worker_main(Datum arg);

#endif							/* HX_WORKER_H */
