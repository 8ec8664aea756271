/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  A scan of a foreign table, as the executor, EXPLAIN and a batched join see it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_FDW_SCAN_H
#define HX_FDW_SCAN_H

#include "utils/hsearch.h"
#include "utils/tuplestore.h"

#include "fdw/fdw.h"

typedef struct HxScan
{
	HxTable    *table;
	HxScanPlan *plan;
	List	   *values;			/* of ExprState *: as fdw_exprs */
	Bitmapset  *params;			/* of the executor, that these depend on */
	HxAccount  *account;		/* NULL: EXPLAIN only */
	HxReadBudget *budget;
	HxRecordShape *shape;

	/* the pass at hand */
	MemoryContext pass;
	HxReader   *reader;			/* NULL: not begun */
	bool		ended;
	const HxCondition *split;	/* whose values are shared out among parts, or NULL */
	HTAB	   *part_values;	/* of PartValue: which part looks for which value; NULL: not asked */
	bool		has_last;		/* the order of rows, so far */
	TimestampTz last;
	int			order_column;	/* -1: no order was asked for */

	/* keys of a batched join */
	int			nkeys;
	Datum	   *keys;
	Oid			key_type;
	bool		new_keys;

	/* rows kept for the next rescan */
	int			passes;
	Tuplestorestate *store;
	TupleTableSlot *stored_row;
	bool		stored;			/* all of them are in it */

	bool		must_not_wait;	/* asked by an asynchronous Append */
	bool		waits;			/* and there was nothing to give yet */
	HxReadStats spent;			/* by the passes that have ended */
} HxScan;

extern Oid	hx_scan_relation(ForeignScanState *node);
extern char *hx_scan_bound_text(HxConditionKind kind, Oid type, Datum value);
extern char *hx_scan_value_text(Oid type, Datum value);

#endif							/* HX_FDW_SCAN_H */
