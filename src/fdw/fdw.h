/*-------------------------------------------------------------------------
 *
 * fdw.h
 *	  What the files of the foreign data wrapper share.
 *
 *	condition.c		which clauses of a query the API can answer
 *	plan.c			paths, costs and plans
 *	unique.c		what the planner can know of ids
 *	private.c		what a plan carries to the executor
 *	scan.c			the executor
 *	explain.c		EXPLAIN
 *	import.c		IMPORT FOREIGN SCHEMA
 *	analyze.c		ANALYZE
 *	modify.c		INSERT, UPDATE, DELETE, COPY: requests for the outbox
 *	batch_plan.c	paths and plans of a join that asks for many keys at once
 *	batch_join.c	its execution
 *	handler.c		the routines of all these
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_FDW_H
#define HX_FDW_H

#include "commands/explain.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

#include "connector/reader.h"
#include "connector/table.h"

/* condition.c */

/* What a clause asks of the API. */
typedef enum HxConditionKind
{
	HX_CONDITION_ONE,			/* the value names the one record to get */
	HX_CONDITION_PARENT,		/* the value is part of the path */
	HX_CONDITION_EQUAL,			/* parameter=value */
	HX_CONDITION_FROM,			/* values not below */
	HX_CONDITION_TILL			/* values not above */
} HxConditionKind;

typedef struct HxCondition
{
	HxConditionKind kind;
	const char *parameter;		/* of the query; NULL for PARENT and ONE */
	AttrNumber	attno;
	bool		array;			/* the value is an array: any of its elements */
	bool		several;		/* one request may ask for several values */
	bool		split;			/* several requests may be needed: its values are shared out among them */
	bool		exact;			/* what comes needs no second look */
	const char *constant;		/* value that the clause itself says, or NULL */
	Expr	   *value;			/* else an expression without columns of the table */
} HxCondition;

/* What of a list of clauses goes out, and what stays. */
typedef struct HxConditions
{
	List	   *sent;			/* of HxCondition * */
	List	   *clauses;		/* of RestrictInfo *: the clause of each of them */
	List	   *checked;		/* of RestrictInfo *: all that is to be looked at here */
	bool		one;			/* a single record is asked for by its path */
	bool		no_parent;		/* the list cannot be asked for: its parent is not given */
} HxConditions;

extern bool hx_condition_match(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, RestrictInfo *clause,
							   HxCondition **condition);
extern bool hx_condition_is_filter(const HxTable *table, const HxCondition *condition);
extern void hx_conditions_find(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, List *clauses,
							   Bitmapset *needed, HxConditions *found);
extern int	hx_conditions_find_keys(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, RestrictInfo *keys,
									List *clauses, Bitmapset *needed, HxConditions *found);
extern bool hx_conditions_exact(const HxTable *table, const HxConditions *conditions);
extern bool hx_conditions_single(const HxConditions *conditions);
extern double hx_conditions_most(const HxTable *table, const HxConditions *conditions);
extern double hx_conditions_parts(const HxConditions *conditions);

/* private.c */

/* What a plan carries: only what copyObject() knows, so that cached plans are whole. */
typedef struct HxScanPlan
{
	List	   *conditions;		/* of HxCondition *; their values are fdw_exprs, in order */
	int			order;			/* index in the resource's orders, -1: its own order */
	bool		descending;
	bool		count;			/* the number of records is all that is wanted */
	bool		all;			/* everything will be read */
	bool		has_limit;		/* the next of fdw_exprs */
	bool		has_offset;		/* and the next */
	double		requests;		/* expected */
	int			pages;			/* of the whole list, as far as is known */
	List	   *attributes;		/* of int: attribute of each column of the scan's tuple; NIL: those of the table */
	List	   *needed;			/* of int: attributes that are used */
	int			batch;			/* index of the condition whose values a batched join gives, -1 */
} HxScanPlan;

extern List *hx_scan_plan_pack(const HxScanPlan *plan, List **expressions);
extern HxScanPlan *hx_scan_plan_unpack(List *packed, List *expressions);

/* plan.c */
extern void hx_plan_routines(FdwRoutine *routine);
extern const HxTable *hx_plan_table(RelOptInfo *rel);
extern bool hx_plan_reads_all(PlannerInfo *root);
extern Path *hx_plan_keys_path(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *keys, double nkeys, double passes,
							   bool all, bool *several);

/* scan.c */
extern void hx_scan_routines(FdwRoutine *routine);
extern void hx_scan_set_keys(ForeignScanState *node, int nkeys, Datum *keys, Oid type);

/* unique.c */
extern void hx_unique_install(void);

/* batch_plan.c */
extern void hx_batch_join_install(void);

/* explain.c */
extern void hx_explain_routines(FdwRoutine *routine);

/* analyze.c */
extern void hx_analyze_routines(FdwRoutine *routine);

/* modify.c */
extern void hx_modify_routines(FdwRoutine *routine);

/* import.c */
extern List *hxImportForeignSchema(ImportForeignSchemaStmt *stmt, Oid server);

#endif							/* HX_FDW_H */
