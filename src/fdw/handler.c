/*-------------------------------------------------------------------------
 *
 * handler.c
 *	  The routines of the foreign data wrapper, gathered from its files.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fdw/fdw.h"

PG_FUNCTION_INFO_V1(hubex_fdw_handler);

/* hubex_fdw_handler(): the routines of the foreign data wrapper. */
Datum
hubex_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	hx_plan_routines(routine);
	hx_scan_routines(routine);
	hx_explain_routines(routine);
	hx_modify_routines(routine);
	hx_analyze_routines(routine);
	routine->ImportForeignSchema = hxImportForeignSchema;
	PG_RETURN_POINTER(routine);
}
