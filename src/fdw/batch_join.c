/*-------------------------------------------------------------------------
 *
 * batch_join.c
 *	  The execution of a join that asks for many keys at once.
 *
 * A batch is a number of outer rows, kept in memory and hashed by their key.
 * Its different keys go to the scan of the foreign table, whose rows are not
 * kept: each meets its outer rows as it arrives, so that a key with a hundred
 * thousand rows costs no more memory than one with a single row.  A batch
 * ends when it has enough keys, or when its rows fill the memory that a hash
 * join may take.
 *
 * Where the order of the outer side is to be kept, what has been found goes,
 * with the number of its outer row, through a sort, which spills to disk by
 * itself; for semi and anti joins a mark at the outer row says all.
 *
 * Where all will be read, the first batch is as large as it may be, for a key
 * that comes again in a later batch is asked for again.  Else batches begin
 * small and double, so that what stops early has asked for little, and what
 * goes on soon asks in full requests: 300 keys are 100 and 200, three
 * requests in all.
 *
 * The children are real children, so that a recheck of a changed row
 * (EvalPlanQual), a rescan and a cancel need nothing special here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/tuplesort.h"

#include "compat.h"
#include "fdw/batch_join.h"

#define MOST_ROWS		1000000 /* of one batch */
#define ROWS_A_KEY		10		/* in a batch of which only some rows may be wanted, on the average */
#define NO_ROW			(-1)
#define FEWEST_KEYS		128		/* there is room for: a power of two */

/* Numbers of the rows found for one outer row stand in the lower bits of what a batch is sorted by. */
#define SORT_SHIFT		40

/* An outer row of a batch. */
typedef struct OuterRow
{
	MinimalTuple tuple;
	int			next;			/* the next row with the same key */
	bool		matched;
} OuterRow;

/* A key of a batch, and the first of its rows. */
typedef struct KeyEntry
{
	uint32		hash;
	char		status;
	Datum		key;
	int			first;
} KeyEntry;

/* What is done next. */
typedef enum BatchStep
{
	STEP_FILL,					/* collect outer rows */
	STEP_READ,					/* the next inner row */
	STEP_MATCH,					/* the next outer row that the inner row at hand belongs to */
	STEP_OUTER,					/* the next outer row, in their order, and what was found for it */
	STEP_END
} BatchStep;

struct keys_hash;

typedef struct HxBatchJoin
{
	CustomScanState css;
	HxBatchPlan plan;
	PlanState  *outer;
	PlanState  *inner;
	List	   *scans;			/* of ForeignScanState *: the inner side, or below it */
	ExprState  *outer_key;
	ExprState  *inner_key;
	ExprState  *joinqual;
	bool		shows_unmatched;	/* outer rows without a partner are wanted */
	bool		shows_matches;	/* rows are made of both sides */

	/* the key's type and functions */
	Oid			type;			/* of the outer key */
	int16		typlen;
	bool		typbyval;
	Oid			collation;
	FmgrInfo	outer_hash;
	FmgrInfo	inner_hash;
	FmgrInfo	outer_equal;	/* of two outer keys */
	FmgrInfo	clause_equal;	/* of the clause */

	/* slots */
	TupleTableSlot *row;		/* of an outer row that is kept */
	int			outer_natts;
	int			inner_natts;

	/* the batch */
	MemoryContext context;
	BatchStep	step;
	bool		outer_ended;
	MinimalTuple pending;		/* an outer row read too many; of the query's context */
	int			most_keys;		/* of this batch */
	OuterRow   *rows;
	int			nrows;
	int			space;			/* in rows */
	Size		bytes;			/* of the rows' tuples */
	int			unmatched;		/* rows with a key that nothing was found for yet */
	Datum	   *keys;
	int			nkeys;
	struct keys_hash *hash;
	bool		probing;		/* the hash is asked for an inner key */
	int			current;		/* outer row at hand */

	/* what was found, by outer row */
	Tuplesortstate *sort;
	TupleTableSlot *found;		/* what goes into it */
	TupleTableSlot *sort_slot;	/* what comes out of it */
	int64		nfound;
	bool		has_found;		/* sort_slot has the next of them */

	int64		nbatches;
	int64		nkeys_in_all;
} HxBatchJoin;

static bool keys_are_equal(HxBatchJoin *join, Datum kept, Datum key);

#define SH_PREFIX keys
#define SH_ELEMENT_TYPE KeyEntry
#define SH_KEY_TYPE Datum
#define SH_KEY key
#define SH_HASH_KEY(tb, key) DatumGetUInt32(FunctionCall1Coll(&((HxBatchJoin *) (tb)->private_data)->outer_hash, \
	((HxBatchJoin *) (tb)->private_data)->collation, (key)))
#define SH_EQUAL(tb, a, b) keys_are_equal((HxBatchJoin *) (tb)->private_data, (a), (b))
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) ((a)->hash)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Is a key of the batch the same as another of the outer side, or, while probing, of the inner side? */
static bool
keys_are_equal(HxBatchJoin *join, Datum kept, Datum key)
{
	if (!join->probing)
		return DatumGetBool(FunctionCall2Coll(&join->outer_equal, join->collation, kept, key));
	return DatumGetBool(FunctionCall2Coll(&join->clause_equal, join->collation, kept, key));
}

/* Puts the columns of a row into the tuple that expressions look at, nulls where there is no row. */
static void
show_columns(HxBatchJoin *join, int from, int natts, TupleTableSlot *row)
{
	TupleTableSlot *tuple = join->css.ss.ss_ScanTupleSlot;

	if (row == NULL)
		memset(tuple->tts_isnull + from, true, sizeof(bool) * natts);
	else
	{
		slot_getallattrs(row);
		memcpy(tuple->tts_values + from, row->tts_values, sizeof(Datum) * natts);
		memcpy(tuple->tts_isnull + from, row->tts_isnull, sizeof(bool) * natts);
	}
}

static void
show_outer(HxBatchJoin *join, TupleTableSlot *row)
{
	ExecClearTuple(join->css.ss.ss_ScanTupleSlot);
	show_columns(join, 0, join->outer_natts, row);
	ExecStoreVirtualTuple(join->css.ss.ss_ScanTupleSlot);
}

static void
show_inner(HxBatchJoin *join, TupleTableSlot *row)
{
	ExecClearTuple(join->css.ss.ss_ScanTupleSlot);
	show_columns(join, join->outer_natts, join->inner_natts, row);
	ExecStoreVirtualTuple(join->css.ss.ss_ScanTupleSlot);
}

/* The row that the node gives for the tuple at hand, or NULL where a condition lets it fall. */
static TupleTableSlot *
joined_row(HxBatchJoin *join)
{
	PlanState  *ps = &join->css.ss.ps;

	if (!ExecQual(ps->qual, ps->ps_ExprContext))
	{
		InstrCountFiltered1(ps, 1);
		return NULL;
	}
	return ps->ps_ProjInfo ? ExecProject(ps->ps_ProjInfo) : join->css.ss.ss_ScanTupleSlot;
}

/* The entry of a key that is in no batch yet. */
static KeyEntry *
add_key(HxBatchJoin *join, Datum key)
{
	MemoryContext old = MemoryContextSwitchTo(join->context);
	KeyEntry   *entry;
	bool		found;

	key = datumCopy(key, join->typbyval, join->typlen);
	if (join->keys == NULL)
		join->keys = palloc(sizeof(Datum) * FEWEST_KEYS);
	else if (join->nkeys >= FEWEST_KEYS && (join->nkeys & (join->nkeys - 1)) == 0)
		join->keys = repalloc(join->keys, sizeof(Datum) * join->nkeys * 2);
	join->keys[join->nkeys++] = key;
	entry = keys_insert(join->hash, key, &found);
	entry->first = NO_ROW;
	MemoryContextSwitchTo(old);
	return entry;
}

/* Adds an outer row to the batch; false where it must begin the next one. */
static bool
add_outer_row(HxBatchJoin *join, TupleTableSlot *slot)
{
	ExprContext *econtext = join->css.ss.ps.ps_ExprContext;
	KeyEntry   *entry = NULL;
	OuterRow   *row;
	MemoryContext old;
	Datum		key;
	bool		isnull;

	ResetExprContext(econtext);
	show_outer(join, slot);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	key = ExecEvalExpr(join->outer_key, econtext, &isnull);
	if (!isnull)
	{
		entry = keys_lookup(join->hash, key);
		if (entry == NULL && join->nkeys >= join->most_keys)
		{
			MemoryContextSwitchTo(join->css.ss.ps.state->es_query_cxt);
			join->pending = ExecCopySlotMinimalTuple(slot);
			MemoryContextSwitchTo(old);
			return false;
		}
		if (entry == NULL)
			entry = add_key(join, key);
	}
	MemoryContextSwitchTo(join->context);
	if (!isnull || join->shows_unmatched)
	{
		if (join->nrows == join->space)
		{
			join->space = join->space ? join->space * 2 : 64;
			join->rows = join->rows ? repalloc_huge(join->rows, sizeof(OuterRow) * join->space) :
				palloc(sizeof(OuterRow) * join->space);
		}
		row = &join->rows[join->nrows];
		row->tuple = ExecCopySlotMinimalTuple(slot);
		row->matched = false;
		row->next = entry ? entry->first : NO_ROW;
		if (entry != NULL)
		{
			entry->first = join->nrows;
			join->unmatched++;
		}
		join->nrows++;
		join->bytes += row->tuple->t_len + sizeof(OuterRow);
	}
	MemoryContextSwitchTo(old);
	return true;
}

static void
end_sort(HxBatchJoin *join)
{
	if (join->sort != NULL)
	{
		ExecClearTuple(join->sort_slot);
		tuplesort_end(join->sort);
	}
	join->sort = NULL;
	join->has_found = false;
}

static void
begin_sort(HxBatchJoin *join)
{
	MemoryContext old = MemoryContextSwitchTo(join->css.ss.ps.state->es_query_cxt);
	AttrNumber	column = 1;
	Oid			operator = Int8LessOperator;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;

	join->sort = tuplesort_begin_heap(join->sort_slot->tts_tupleDescriptor, 1, &column, &operator, &collation,
									  &nulls_first, work_mem, NULL, TUPLESORT_NONE);
	join->nfound = 0;
	MemoryContextSwitchTo(old);
}

/* Forgets a batch. */
static void
drop_batch(HxBatchJoin *join)
{
	end_sort(join);
	ExecClearTuple(join->row);
	MemoryContextReset(join->context);
	join->hash = NULL;
	join->rows = NULL;
	join->keys = NULL;
	join->nrows = join->space = join->nkeys = join->unmatched = 0;
	join->bytes = 0;
}

/* Collects outer rows, and sends their keys on their way. */
static BatchStep
fill_batch(HxBatchJoin *join)
{
	int			most_rows = join->plan.all ? MOST_ROWS : Min(MOST_ROWS, join->most_keys * ROWS_A_KEY);
	ListCell   *cell;

	drop_batch(join);
	join->hash = keys_create(join->context, FEWEST_KEYS, join);
	join->probing = false;
	while (!join->outer_ended && join->nrows < most_rows && join->bytes < get_hash_memory_limit())
	{
		TupleTableSlot *slot = join->row;

		if (join->pending != NULL)
		{
			ExecStoreMinimalTuple(join->pending, slot, true);
			join->pending = NULL;
		}
		else
			slot = ExecProcNode(join->outer);
		if (TupIsNull(slot))
			join->outer_ended = true;
		else if (!add_outer_row(join, slot))
			break;
	}
	if (join->nrows == 0)
		return join->outer_ended ? STEP_END : STEP_FILL;
	join->most_keys = Min(join->most_keys * 2, HX_BATCH_MOST_KEYS);
	join->current = 0;
	if (join->nkeys == 0)
		return STEP_OUTER;

	join->nbatches++;
	join->nkeys_in_all += join->nkeys;
	foreach(cell, join->scans)
		hx_scan_set_keys(lfirst(cell), join->nkeys, join->keys, join->type);
	ExecReScan(join->inner);
	join->probing = true;
	if (join->plan.ordered && join->shows_matches)
		begin_sort(join);
	return STEP_READ;
}

/* Takes the next inner row, and finds the outer rows it may belong to. */
static BatchStep
read_inner(HxBatchJoin *join)
{
	ExprContext *econtext = join->css.ss.ps.ps_ExprContext;
	TupleTableSlot *slot = NULL;
	KeyEntry   *entry = NULL;
	MemoryContext old;
	Datum		key;
	bool		isnull;

	/* Once every row has found a partner, semi and anti joins know all. */
	if (join->shows_matches || join->unmatched > 0)
		slot = ExecProcNode(join->inner);
	if (TupIsNull(slot))
	{
		if (join->sort != NULL)
			tuplesort_performsort(join->sort);
		join->current = 0;
		return join->plan.ordered || join->shows_unmatched ? STEP_OUTER : STEP_FILL;
	}
	ResetExprContext(econtext);
	show_inner(join, slot);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	key = ExecEvalExpr(join->inner_key, econtext, &isnull);
	if (!isnull)
		entry = keys_lookup_hash(join->hash, key,
								 DatumGetUInt32(FunctionCall1Coll(&join->inner_hash, join->collation, key)));
	MemoryContextSwitchTo(old);
	if (entry == NULL)
		return STEP_READ;
	join->current = entry->first;
	return STEP_MATCH;
}

/* Keeps a pair for when its outer row has its turn. */
static void
keep_found(HxBatchJoin *join, int row)
{
	TupleTableSlot *tuple = join->css.ss.ss_ScanTupleSlot;
	TupleTableSlot *found = join->found;

	ExecClearTuple(found);
	found->tts_values[0] = Int64GetDatum(((int64) row << SORT_SHIFT) | join->nfound++);
	found->tts_isnull[0] = false;
	memcpy(found->tts_values + 1, tuple->tts_values + join->outer_natts, sizeof(Datum) * join->inner_natts);
	memcpy(found->tts_isnull + 1, tuple->tts_isnull + join->outer_natts, sizeof(bool) * join->inner_natts);
	ExecStoreVirtualTuple(found);
	tuplesort_puttupleslot(join->sort, found);
}

/* Joins the inner row at hand with the next of its outer rows; NULL where that gives no row now. */
static TupleTableSlot *
match_outer(HxBatchJoin *join)
{
	ExprContext *econtext = join->css.ss.ps.ps_ExprContext;
	int			number = join->current;
	OuterRow   *row = &join->rows[number];

	CHECK_FOR_INTERRUPTS();
	join->current = row->next;
	if (row->matched && !join->shows_matches)
		return NULL;
	ResetExprContext(econtext);
	ExecStoreMinimalTuple(row->tuple, join->row, false);
	show_outer(join, join->row);
	if (!ExecQual(join->joinqual, econtext))
	{
		InstrCountFiltered2(&join->css.ss.ps, 1);
		return NULL;
	}
	if (!row->matched)
		join->unmatched--;
	row->matched = true;
	if (join->plan.jointype == JOIN_ANTI)
		return NULL;
	if (!join->plan.ordered)
		return joined_row(join);
	if (join->sort != NULL)
		keep_found(join, number);
	return NULL;
}

/* The next pair that was kept for an outer row, in the inner part of the tuple at hand; false if there is none. */
static bool
next_found(HxBatchJoin *join, int row)
{
	TupleTableSlot *tuple = join->css.ss.ss_ScanTupleSlot;
	TupleTableSlot *found = join->sort_slot;

	if (join->sort == NULL)
		return false;
	if (!join->has_found)
		join->has_found = tuplesort_gettupleslot(join->sort, true, false, found, NULL);
	if (!join->has_found)
		return false;
	slot_getallattrs(found);
	if (DatumGetInt64(found->tts_values[0]) >> SORT_SHIFT != row)
		return false;
	memcpy(tuple->tts_values + join->outer_natts, found->tts_values + 1, sizeof(Datum) * join->inner_natts);
	memcpy(tuple->tts_isnull + join->outer_natts, found->tts_isnull + 1, sizeof(bool) * join->inner_natts);
	join->has_found = false;
	return true;
}

/* What is left to be said of the outer row at hand, after which comes the next; NULL where that is nothing. */
static TupleTableSlot *
finish_outer(HxBatchJoin *join)
{
	OuterRow   *row = &join->rows[join->current];

	CHECK_FOR_INTERRUPTS();
	ResetExprContext(join->css.ss.ps.ps_ExprContext);
	ExecStoreMinimalTuple(row->tuple, join->row, false);
	show_outer(join, join->row);
	if (next_found(join, join->current))
		return joined_row(join);
	join->current++;
	if (row->matched ? join->plan.jointype != JOIN_SEMI : !join->shows_unmatched)
		return NULL;
	show_inner(join, NULL);
	return joined_row(join);
}

static TupleTableSlot *
exec_batch_join(CustomScanState *node)
{
	HxBatchJoin *join = (HxBatchJoin *) node;
	TupleTableSlot *result = NULL;

	while (result == NULL && join->step != STEP_END)
		switch (join->step)
		{
			case STEP_FILL:
				join->step = fill_batch(join);
				break;
			case STEP_READ:
				join->step = read_inner(join);
				break;
			case STEP_MATCH:
				if (join->current == NO_ROW)
					join->step = STEP_READ;
				else
					result = match_outer(join);
				break;
			case STEP_OUTER:
				if (join->current >= join->nrows)
					join->step = STEP_FILL;
				else
					result = finish_outer(join);
				break;
			case STEP_END:
				break;
		}
	return result;
}

/*
 * The scans that take the keys: that of the foreign table or those of its
 * partitions, which can stand below a condition that no row decides.
 */
static List *
find_scans(PlanState *ps)
{
	List	   *scans = NIL;

	if (IsA(ps, ForeignScanState))
		return list_make1(ps);
	if (IsA(ps, AppendState))
	{
		AppendState *append = (AppendState *) ps;

		for (int i = 0; i < append->as_nplans; i++)
			scans = list_concat(scans, find_scans(append->appendplans[i]));
	}
	else if (outerPlanState(ps) != NULL)
		scans = find_scans(outerPlanState(ps));
	return scans;
}

/* Looks up how keys of the two sides are hashed and compared. */
static void
find_functions(HxBatchJoin *join, const OpExpr *clause)
{
	Oid			left;
	Oid			right;

	op_input_types(clause->opno, &join->type, &right);
	join->collation = clause->inputcollid;
	get_typlenbyval(join->type, &join->typlen, &join->typbyval);
	if (!get_op_hash_functions(clause->opno, &left, &right))
		elog(ERROR, "operator %u has no hash functions", clause->opno);
	fmgr_info(left, &join->outer_hash);
	fmgr_info(right, &join->inner_hash);
	if (!get_compatible_hash_operators(clause->opno, &left, &right))
		elog(ERROR, "operator %u has no operators of its hash family", clause->opno);
	fmgr_info(get_opcode(left), &join->outer_equal);
	fmgr_info(get_opcode(clause->opno), &join->clause_equal);
}

static void
begin_batch_join(CustomScanState *node, EState *estate, int eflags)
{
	HxBatchJoin *join = (HxBatchJoin *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	OpExpr	   *clause = linitial_node(OpExpr, scan->custom_exprs);
	TupleDesc	inner;

	join->outer = ExecInitNode(linitial(scan->custom_plans), estate, eflags);
	join->inner = ExecInitNode(lsecond(scan->custom_plans), estate, eflags);
	node->custom_ps = list_make2(join->outer, join->inner);
	join->scans = find_scans(join->inner);
	inner = ExecGetResultType(join->inner);
	join->outer_natts = ExecGetResultType(join->outer)->natts;
	join->inner_natts = inner->natts;
	join->outer_key = ExecInitExpr(linitial(clause->args), &node->ss.ps);
	join->inner_key = ExecInitExpr(lsecond(clause->args), &node->ss.ps);
	join->joinqual = ExecInitQual(list_copy_tail(scan->custom_exprs, 1), &node->ss.ps);
	join->shows_unmatched = join->plan.jointype == JOIN_LEFT || join->plan.jointype == JOIN_ANTI;
	join->shows_matches = join->plan.jointype == JOIN_LEFT || join->plan.jointype == JOIN_INNER;
	find_functions(join, clause);

	join->row = ExecInitExtraTupleSlot(estate, ExecGetResultType(join->outer), &TTSOpsMinimalTuple);
	if (join->plan.ordered && join->shows_matches)
	{
		TupleDesc	desc = CreateTemplateTupleDesc(inner->natts + 1);

		TupleDescInitEntry(desc, 1, "row", INT8OID, -1, 0);
		for (int i = 1; i <= inner->natts; i++)
			TupleDescCopyEntry(desc, i + 1, inner, i);
		join->found = ExecInitExtraTupleSlot(estate, desc, &TTSOpsVirtual);
		join->sort_slot = ExecInitExtraTupleSlot(estate, desc, &TTSOpsMinimalTuple);
	}
	node->ss.ps.ps_ExprContext->ecxt_scantuple = node->ss.ss_ScanTupleSlot;
	join->context = AllocSetContextCreate(CurrentMemoryContext, "hubex batch", ALLOCSET_DEFAULT_SIZES);
	join->most_keys = join->plan.first;
	join->step = STEP_FILL;
}

static void
rescan_batch_join(CustomScanState *node)
{
	HxBatchJoin *join = (HxBatchJoin *) node;

	drop_batch(join);
	if (join->pending != NULL)
		pfree(join->pending);
	join->pending = NULL;
	join->outer_ended = false;
	join->most_keys = join->plan.first;
	join->step = STEP_FILL;

	/* The inner side is begun anew by each batch anyway. */
	if (node->ss.ps.chgParam != NULL)
	{
		UpdateChangedParamSet(join->outer, node->ss.ps.chgParam);
		UpdateChangedParamSet(join->inner, node->ss.ps.chgParam);
	}
	if (join->outer->chgParam == NULL)
		ExecReScan(join->outer);
}

static void
end_batch_join(CustomScanState *node)
{
	HxBatchJoin *join = (HxBatchJoin *) node;

	end_sort(join);
	ExecEndNode(join->outer);
	ExecEndNode(join->inner);
}

static const char *
join_name(JoinType type)
{
	return type == JOIN_LEFT ? "Left" : type == JOIN_SEMI ? "Semi" : type == JOIN_ANTI ? "Anti" : "Inner";
}

static void
explain_batch_join(CustomScanState *node, List *ancestors, ExplainState *es)
{
	HxBatchJoin *join = (HxBatchJoin *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, (Plan *) scan, ancestors);
	List	   *filter = list_copy_tail(scan->custom_exprs, 1);

	ExplainPropertyText("Join Type", join_name(join->plan.jointype), es);
	ExplainPropertyText("Join Cond", deparse_expression(linitial(scan->custom_exprs), context, true, false), es);
	if (filter != NIL)
	{
		ExplainPropertyText("Join Filter", deparse_expression((Node *) make_ands_explicit(filter), context, true, false), es);
		if (es->analyze && node->ss.ps.instrument && node->ss.ps.instrument->nfiltered2 > 0)
			ExplainPropertyFloat("Rows Removed by Join Filter", NULL,
								 node->ss.ps.instrument->nfiltered2 / Max(node->ss.ps.instrument->nloops, 1), 0, es);
	}
	ExplainPropertyText("Batch", psprintf(join->plan.several ? "up to %d keys a request%s" : "%d key a request%s",
										  join->plan.several ? HX_KEYS_A_REQUEST : 1,
										  join->plan.ordered ? ", order kept" : ""), es);
	if (es->analyze)
	{
		ExplainPropertyInteger("Batches", NULL, join->nbatches, es);
		ExplainPropertyInteger("Keys", NULL, join->nkeys_in_all, es);
	}
}

static const CustomExecMethods exec_methods = {
	.CustomName = HX_BATCH_JOIN_NAME,
	.BeginCustomScan = begin_batch_join,
	.ExecCustomScan = exec_batch_join,
	.EndCustomScan = end_batch_join,
	.ReScanCustomScan = rescan_batch_join,
	.ExplainCustomScan = explain_batch_join,
};

static Node *
create_state(CustomScan *scan)
{
	HxBatchJoin *join = palloc0(sizeof(HxBatchJoin));
	List	   *numbers = scan->custom_private;

	NodeSetTag(join, T_CustomScanState);
	join->css.methods = &exec_methods;
	join->plan.jointype = list_nth_int(numbers, 0);
	join->plan.ordered = list_nth_int(numbers, 1);
	join->plan.all = list_nth_int(numbers, 2);
	join->plan.several = list_nth_int(numbers, 3);
	join->plan.first = list_nth_int(numbers, 4);
	return (Node *) join;
}

const CustomScanMethods hx_batch_join_scan_methods = {
	.CustomName = HX_BATCH_JOIN_NAME,
	.CreateCustomScanState = create_state,
};
