/*-------------------------------------------------------------------------
 *
 * batch_join.h
 *	  What the plan of a batched join says to its execution.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_FDW_BATCH_JOIN_H
#define HX_FDW_BATCH_JOIN_H

#include "nodes/extensible.h"

#include "fdw/fdw.h"

#define HX_BATCH_JOIN_NAME	"HubEx Batch Join"

/* Different keys in one batch at most: as many as the default of hubex.max_requests_per_query can ask for. */
#define HX_BATCH_MOST_KEYS	10000

/*
 * In custom_private as integers, in this order.  The first of custom_exprs is
 * the clause that says the keys, the outer side's on the left; the rest are
 * the join's other conditions.
 */
typedef struct HxBatchPlan
{
	JoinType	jointype;		/* INNER, LEFT, SEMI or ANTI */
	bool		ordered;		/* rows come in the outer side's order */
	bool		all;			/* everything will be read */
	bool		several;		/* one request takes many keys */
	int			first;			/* keys of the first batch */
} HxBatchPlan;

/* batch_join.c */
extern const CustomScanMethods hx_batch_join_scan_methods;

#endif							/* HX_FDW_BATCH_JOIN_H */
