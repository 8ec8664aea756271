/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  Sizes, costs and paths of foreign tables, and the plans made of them.
 *
 * What is scarce is requests: HubEx allows sixty in a minute.  So a path
 * costs as many times REQUEST_COST as it makes requests, next to which the
 * CPU hardly counts, and the planner, comparing, looks for the plan with the
 * fewest.
 *
 * Paths of a table: its list, by all conditions that do not depend on other
 * tables; the same in an order the API can give; and for each set of other
 * tables whose columns it is joined with by a column the API can look for, a
 * parameterised one.  Above that, where it is all the query does: a limit
 * with its offset, and a count.
 *
 * A limit, an order and a count are left to the API only if every condition
 * is exact, or what is limited, sorted or counted there is not what is
 * wanted here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/sysattr.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "optimizer/tlist.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/settings.h"
#include "compat.h"
#include "fdw/fdw.h"

PG_FUNCTION_INFO_V1(hubex_forget_plans);

#define REQUEST_COST		300.0
#define SHORT_REQUEST_COST	240.0	/* of one for a few records: the remote side has less to gather */
#define RECORD_COST			0.03	/* to gather it there and to take it apart here */
#define MANY_REQUESTS		100		/* from here on another one counts a tenth */
#define IMPOSSIBLE_COST		1.0e12	/* of a list whose parent is not given */

/* What a path reads: the first of its fdw_private. */
typedef enum ReadKind
{
	READ_ROWS,
	READ_KEYS,					/* those of keys that a batched join gives */
	READ_LIMITED,				/* only as many as the query's limit and offset say */
	READ_COUNT
} ReadKind;

/* What is known of a relation while it is planned: rel->fdw_private. */
typedef struct HxRelation
{
	HxTable    *table;
	RelOptInfo *rel;			/* of the table, also where this hangs at an upper relation */
	Bitmapset  *needed;			/* attributes, less 1, that are used */
	List	   *keys;			/* of RestrictInfo *: clauses by which batched joins can read it */
	Bitmapset  *joined_filters; /* attributes that show what was asked for, and that joins ask for */
} HxRelation;

/* An order of the API that a query's sort begins with. */
typedef struct UsableOrder
{
	int			number;			/* in the resource's list, -1: none */
	bool		descending;
	bool		stable;
	bool		whole;			/* it is all the query sorts by */
} UsableOrder;

/* Adds the attributes of a table that expressions use; a whole row uses all. */
static Bitmapset *
add_attributes(Bitmapset *needed, Node *expressions, Index relid, int natts)
{
	Bitmapset  *used = NULL;
	int			member = -1;

	pull_varattnos(expressions, relid, &used);
	while ((member = bms_next_member(used, member)) >= 0)
	{
		AttrNumber	attno = member + FirstLowInvalidHeapAttributeNumber;

		if (attno == InvalidAttrNumber)
			needed = bms_add_range(needed, 0, natts - 1);
		else if (attno > 0)
			needed = bms_add_member(needed, attno - 1);
	}
	return needed;
}

/*
 * A column that shows what was asked for can only be asked for: anything else
 * that is said of it would be said of null, and let no row through.
 */
static void
check_filters(PlannerInfo *root, RelOptInfo *rel, const HxTable *table)
{
	ListCell   *cell;

	foreach(cell, rel->baserestrictinfo)
	{
		RestrictInfo *clause = lfirst_node(RestrictInfo, cell);
		Bitmapset  *used = add_attributes(NULL, (Node *) clause->clause, rel->relid, table->natts);
		HxCondition *condition;
		int			i = -1;

		if (hx_condition_match(root, rel, table, clause, &condition))
			continue;
		while ((i = bms_next_member(used, i)) >= 0)
			if (hx_table_is_filter(table, i + 1) && bms_num_members(used) < table->natts)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("column \"%s\" of foreign table \"%s\" can only be compared with one value by =",
								table->columns[i]->name, table->name),
						 errdetail("The remote API filters by it, but no record shows it.")));
	}
}

static void
hxGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	HxRelation *relation = palloc0(sizeof(HxRelation));
	HxConditions conditions;
	ListCell   *cell;

	relation->table = hx_table_open(relid);
	relation->rel = rel;
	relation->needed = add_attributes(NULL, (Node *) rel->reltarget->exprs, rel->relid, relation->table->natts);
	rel->fdw_private = relation;

	/* Never analysed: what the manifest assumes. */
	if (rel->tuples <= 0)
		rel->tuples = relation->table->resource->rows;
	set_baserel_size_estimates(root, rel);

	/* What the API does not answer itself is looked at here, and needed for that. */
	check_filters(root, rel, relation->table);
	hx_conditions_find(root, rel, relation->table, rel->baserestrictinfo, relation->needed, &conditions);
	if (hx_conditions_most(relation->table, &conditions) >= 0)
		rel->rows = clamp_row_est(Min(rel->rows, hx_conditions_most(relation->table, &conditions)));
	foreach(cell, rel->baserestrictinfo)
		relation->needed = add_attributes(relation->needed, (Node *) lfirst_node(RestrictInfo, cell)->clause,
										  rel->relid, relation->table->natts);
}

/* How many records come, and in how many requests. */
static double
estimate_requests(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, const HxConditions *conditions,
				  double *records)
{
	double		share = clauselist_selectivity(root, conditions->clauses, rel->relid, JOIN_INNER, NULL);
	double		parts = hx_conditions_parts(conditions);
	double		most = hx_conditions_most(table, conditions);

	*records = clamp_row_est(rel->tuples * share);
	if (most >= 0)
	{
		*records = Min(*records, most);
		return parts;
	}
	return Max(parts, ceil(*records / Max(table->page_size, 1)));
}

/*
 * What so many requests cost.  Beyond what a query may make anyway the cost
 * grows slowly, or PostgreSQL would take the waiting for work that is worth a
 * compiler's (jit_above_cost).
 */
static Cost
requests_cost(double requests, Cost each)
{
	return each * (requests <= MANY_REQUESTS ? requests : MANY_REQUESTS + (requests - MANY_REQUESTS) / 10);
}

/* Are all of these attributes asked for? */
static bool
asks_for(const HxConditions *conditions, Bitmapset *attributes)
{
	int			attno = -1;

	while ((attno = bms_next_member(attributes, attno)) >= 0)
	{
		bool		asked = false;
		ListCell   *cell;

		foreach(cell, conditions->sent)
			asked |= ((HxCondition *) lfirst(cell))->attno == attno;
		if (!asked)
			return false;
	}
	return true;
}

static void
add_scan_path(PlannerInfo *root, RelOptInfo *rel, const HxConditions *conditions, double rows, List *pathkeys,
			  const UsableOrder *order, Relids required_outer)
{
	HxRelation *relation = rel->fdw_private;
	double		records;
	double		requests = estimate_requests(root, rel, relation->table, conditions, &records);
	Cost		startup = REQUEST_COST;
	Cost		total = requests_cost(requests, REQUEST_COST) + records * (RECORD_COST + cpu_tuple_cost);

	startup += rel->baserestrictcost.startup + rel->reltarget->cost.startup;
	total += startup - REQUEST_COST + records * rel->baserestrictcost.per_tuple +
		rows * rel->reltarget->cost.per_tuple;
	if (conditions->no_parent || !asks_for(conditions, relation->joined_filters))
		total += IMPOSSIBLE_COST;
	rows = Min(rows, records);
	add_path(rel, (Path *) hx_create_foreignscan_path(root, rel, NULL, rows, startup, total, pathkeys, required_outer,
													  list_make4_int(READ_ROWS, order ? order->number : -1,
																	 order ? order->descending : false,
																	 (int) Min(requests, 1000000))));
}

/*
 * The order of the API that gives what the query's first sort key wants; what
 * comes after it PostgreSQL sorts by itself, incrementally.
 */
static UsableOrder
find_order(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, List *pathkeys)
{
	UsableOrder order = {.number = -1};
	PathKey    *key;
	ListCell   *cell;

	if (pathkeys == NIL || !hx_guc_pushdown)
		return order;
	key = linitial_node(PathKey, pathkeys);
	if (key->pk_eclass->ec_has_volatile ||
		key->pk_opfamily != lookup_type_cache(TIMESTAMPTZOID, TYPECACHE_BTREE_OPFAMILY)->btree_opf)
		return order;
	foreach(cell, hx_eclass_members(key->pk_eclass, rel->relids))
	{
		EquivalenceMember *member = lfirst_node(EquivalenceMember, cell);
		Node	   *node = (Node *) member->em_expr;
		ListCell   *other;

		if (!IsA(node, Var) || ((Var *) node)->varno != rel->relid || ((Var *) node)->varattno <= 0 ||
			((Var *) node)->vartype != TIMESTAMPTZOID)
			continue;
		foreach(other, table->resource->orders)
		{
			HxColumnOrder *offered = lfirst(other);

			if (hx_table_attribute(table, offered->column) != ((Var *) node)->varattno)
				continue;
			order.number = foreach_current_index(other);
			order.descending = hx_pathkey_descends(key);
			order.stable = offered->stable;
			order.whole = list_length(pathkeys) == 1;
			return order;
		}
	}
	return order;
}

typedef struct JoinColumn
{
	const HxTable *table;
	AttrNumber	attno;
	Relids		seen;
} JoinColumn;

/* Is a member of an equivalence class the column in hand? */
static bool
is_join_column(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec, EquivalenceMember *em, void *arg)
{
	JoinColumn *column = arg;
	Node	   *node = (Node *) em->em_expr;

	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node != NULL && IsA(node, Var) && ((Var *) node)->varno == rel->relid &&
		((Var *) node)->varattno == column->attno;
}

/* The other tables that must be read before a clause says what to look for; NULL where it never does. */
static Relids
outer_of_clause(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, RestrictInfo *clause)
{
	HxCondition *condition;
	Relids		outer;

	if (!join_clause_is_movable_to(clause, rel) || !hx_condition_match(root, rel, table, clause, &condition) ||
		condition->kind > HX_CONDITION_EQUAL)
		return NULL;
	if (hx_condition_is_filter(table, condition))
		((HxRelation *) rel->fdw_private)->joined_filters =
			bms_add_member(((HxRelation *) rel->fdw_private)->joined_filters, condition->attno);
	else if (!hx_guc_pushdown && condition->kind != HX_CONDITION_PARENT)
		return NULL;
	outer = bms_union(clause->clause_relids, rel->lateral_relids);
	return bms_del_members(outer, rel->relids);
}

static List *
add_outer(List *outers, Relids outer)
{
	ListCell   *cell;

	if (bms_is_empty(outer))
		return outers;
	foreach(cell, outers)
		if (bms_equal(lfirst(cell), outer))
			return outers;
	return lappend(outers, outer);
}

/* The sets of other tables whose columns can say what is to be looked for. */
static List *
find_outers(PlannerInfo *root, RelOptInfo *rel, const HxTable *table)
{
	List	   *outers = NIL;
	ListCell   *cell;

	foreach(cell, rel->joininfo)
		outers = add_outer(outers, outer_of_clause(root, rel, table, lfirst(cell)));
	for (int i = 0; rel->has_eclass_joins && i < table->natts; i++)
	{
		JoinColumn	column = {table, i + 1};
		const HxColumn *known = table->columns[i];
		List	   *clauses;

		if (known == NULL || known->path == NULL ||
			(known->filter.equal == NULL && strcmp(known->path, HX_PATH_PARENT) != 0 &&
			 strcmp(known->path, HX_PATH_KEY) != 0))
			continue;
		clauses = generate_implied_equalities_for_column(root, rel, is_join_column, &column,
														 rel->lateral_referencers);
		foreach(cell, clauses)
			outers = add_outer(outers, outer_of_clause(root, rel, table, lfirst(cell)));
	}
	return outers;
}

static void
hxGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	HxRelation *relation = rel->fdw_private;
	HxTable    *table = relation->table;
	HxConditions conditions;
	UsableOrder order;
	List	   *outers;
	ListCell   *cell;

	outers = find_outers(root, rel, table);
	hx_conditions_find(root, rel, table, rel->baserestrictinfo, relation->needed, &conditions);
	add_scan_path(root, rel, &conditions, rel->rows, NIL, NULL, rel->lateral_relids);

	order = find_order(root, rel, table, root->query_pathkeys);
	if (order.number >= 0 && order.stable && !conditions.one && hx_conditions_single(&conditions))
		add_scan_path(root, rel, &conditions, rel->rows, list_make1(linitial(root->query_pathkeys)), &order,
					  rel->lateral_relids);

	foreach(cell, outers)
	{
		Relids		outer = lfirst(cell);
		ParamPathInfo *info = get_baserel_parampathinfo(root, rel, outer);

		hx_conditions_find(root, rel, table, list_concat_copy(info->ppi_clauses, rel->baserestrictinfo),
						   relation->needed, &conditions);
		add_scan_path(root, rel, &conditions, info->ppi_rows, NIL, NULL, outer);
	}
}

/* Our table that a relation is; NULL also where the planner knows that it need not be read. */
const HxTable *
hx_plan_table(RelOptInfo *rel)
{
	return IS_SIMPLE_REL(rel) && rel->fdwroutine != NULL && rel->fdwroutine->GetForeignPaths == hxGetForeignPaths &&
		rel->fdw_private != NULL && !IS_DUMMY_REL(rel) ? ((HxRelation *) rel->fdw_private)->table : NULL;
}

/* Will a query be read to its end, as far as can be known? */
bool
hx_plan_reads_all(PlannerInfo *root)
{
	return root->tuple_fraction == 0 && root->limit_tuples < 0;
}

/*
 * The reading of a table by keys that a batched join gives it: nkeys in all,
 * in so many passes.  It can stand only below such a join, and so is none of
 * the relation's own paths.  NULL where the clause names no key the API can
 * be asked for; several: one request takes many.
 */
Path *
hx_plan_keys_path(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *keys, double nkeys, double passes, bool all,
				  bool *several)
{
	HxRelation *relation = rel->fdw_private;
	const HxTable *table = relation->table;
	HxConditions conditions;
	HxCondition *condition;
	int			batch = hx_conditions_find_keys(root, rel, table, keys, rel->baserestrictinfo, relation->needed,
												&conditions);
	List	   *others;
	double		parts;
	double		records;
	double		requests;
	MemoryContext old;

	if (batch < 0 || !asks_for(&conditions, relation->joined_filters))
		return NULL;
	condition = list_nth(conditions.sent, batch);
	*several = condition->kind == HX_CONDITION_EQUAL && condition->several;
	others = list_delete_ptr(list_copy(conditions.clauses), keys);
	records = rel->tuples * clauselist_selectivity(root, others, rel->relid, JOIN_INNER, NULL);
	if (strcmp(table->columns[condition->attno - 1]->path, HX_PATH_KEY) == 0)
		records = Min(records, nkeys);
	else
		records *= Min(1.0, nkeys * clause_selectivity(root, (Node *) keys, rel->relid, JOIN_INNER, NULL));
	records = clamp_row_est(records);
	parts = passes * ceil(Max(nkeys / passes, 1) / (*several ? HX_KEYS_A_REQUEST : 1));
	requests = parts * ceil(records / parts / Max(table->page_size, 1));

	/* The list must live as long as the relation; what is planned at the moment may be forgotten. */
	if (!list_member_ptr(relation->keys, keys))
	{
		old = MemoryContextSwitchTo(GetMemoryChunkContext(rel));
		relation->keys = lappend(relation->keys, keys);
		MemoryContextSwitchTo(old);
	}
	for (batch = 0; list_nth(relation->keys, batch) != keys;)
		batch++;

	/* All of them are known before the first is made, so that they can run side by side. */
	return (Path *) hx_create_foreignscan_path(root, rel, NULL, records, SHORT_REQUEST_COST,
											   requests_cost(requests, SHORT_REQUEST_COST) + rel->baserestrictcost.startup +
											   records * (RECORD_COST + cpu_tuple_cost + rel->baserestrictcost.per_tuple),
											   NIL, NULL,
											   lappend_int(list_make5_int(READ_KEYS, -1, false, (int) Min(requests, 1000000),
																		  batch), all));
}

/* The columns of an upper relation's tuple are Vars of the table; their attributes, or false for others. */
static bool
attributes_of(List *tlist, List **attributes)
{
	ListCell   *cell;

	*attributes = NIL;
	foreach(cell, tlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!IsA(entry->expr, Var) || ((Var *) entry->expr)->varattno <= 0)
			return false;
		*attributes = lappend_int(*attributes, ((Var *) entry->expr)->varattno);
	}
	return true;
}

static ForeignScan *
hxGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path, List *tlist, List *clauses,
				 Plan *outer)
{
	HxRelation *relation = rel->fdw_private;
	HxTable    *table = relation->table;
	RelOptInfo *base = relation->rel;
	ReadKind	kind = linitial_int(path->fdw_private);
	HxScanPlan	plan = {.batch = -1};
	HxConditions conditions;
	Bitmapset  *needed = relation->needed;
	List	   *expressions = NIL;
	List	   *recheck = NIL;
	List	   *local;
	List	   *scan_tlist = NIL;
	List	   *packed;
	ListCell   *cell;
	int			i = -1;

	if (kind == READ_KEYS)
	{
		plan.batch = hx_conditions_find_keys(root, base, table, list_nth(relation->keys, list_nth_int(path->fdw_private, 4)),
											 clauses, needed, &conditions);
		((HxCondition *) list_nth(conditions.sent, plan.batch))->value = NULL;
	}
	else
	{
		if (kind != READ_ROWS)
			clauses = base->baserestrictinfo;
		hx_conditions_find(root, base, table, clauses, needed, &conditions);
	}
	local = extract_actual_clauses(conditions.checked, false);
	foreach(cell, conditions.clauses)
		if (!list_member_ptr(conditions.checked, lfirst(cell)) && foreach_current_index(cell) != plan.batch)
			recheck = lappend(recheck, lfirst_node(RestrictInfo, cell)->clause);

	plan.conditions = conditions.sent;
	plan.order = list_nth_int(path->fdw_private, 1);
	plan.descending = list_nth_int(path->fdw_private, 2);
	plan.requests = list_nth_int(path->fdw_private, 3);
	plan.count = kind == READ_COUNT;
	plan.pages = (int) Min(hx_table_pages(table, base->tuples), 1000000);

	/* Pages may be asked for ahead only where nothing above may stop before the end. */
	plan.all = kind == READ_LIMITED || hx_plan_reads_all(root) ||
		(kind == READ_KEYS && list_nth_int(path->fdw_private, 5));

	if (kind <= READ_KEYS)
	{
		foreach(cell, clauses)
			needed = add_attributes(needed, (Node *) lfirst_node(RestrictInfo, cell)->clause, base->relid, table->natts);
		needed = add_attributes(needed, (Node *) rel->reltarget->exprs, base->relid, table->natts);
	}
	else
	{
		/* The tuple is what the expressions above are made of. */
		scan_tlist = add_to_flat_tlist(NIL, pull_var_clause((Node *) path->path.pathtarget->exprs,
															PVC_INCLUDE_AGGREGATES | PVC_RECURSE_PLACEHOLDERS));
		if (kind == READ_LIMITED && !attributes_of(scan_tlist, &plan.attributes))
			elog(ERROR, "a limited scan of \"%s\" needs more than its columns", table->name);
		needed = NULL;
		foreach(cell, plan.attributes)
			needed = bms_add_member(needed, lfirst_int(cell) - 1);
		recheck = NIL;
	}
	if (plan.order >= 0)
		needed = bms_add_member(needed, hx_table_attribute(table, ((HxColumnOrder *) list_nth(table->resource->orders,
																							  plan.order))->column) - 1);
	foreach(cell, plan.conditions)
		if (((HxCondition *) lfirst(cell))->split && !plan.count)
			needed = bms_add_member(needed, ((HxCondition *) lfirst(cell))->attno - 1);
	while ((i = bms_next_member(needed, i)) >= 0)
		plan.needed = lappend_int(plan.needed, i + 1);

	plan.has_limit = kind == READ_LIMITED && root->parse->limitCount != NULL;
	plan.has_offset = kind == READ_LIMITED && root->parse->limitOffset != NULL;
	packed = hx_scan_plan_pack(&plan, &expressions);
	if (plan.has_limit)
		expressions = lappend(expressions, root->parse->limitCount);
	if (plan.has_offset)
		expressions = lappend(expressions, root->parse->limitOffset);
	return make_foreignscan(tlist, local, kind <= READ_KEYS ? base->relid : 0, expressions, packed, scan_tlist,
							recheck, outer);
}

/* Is an expression made of counts of all rows only? */
static bool
counts_rows(Node *node, const HxRelation *relation)
{
	ListCell   *cell;
	List	   *parts = pull_var_clause(node, PVC_INCLUDE_AGGREGATES | PVC_RECURSE_PLACEHOLDERS);

	foreach(cell, parts)
	{
		Aggref	   *aggregate = lfirst(cell);
		Var		   *counted;

		if (!IsA(aggregate, Aggref) || aggregate->aggfilter != NULL || aggregate->aggdistinct != NIL ||
			aggregate->aggorder != NIL || aggregate->agglevelsup > 0)
			return false;
		if (aggregate->aggfnoid == F_COUNT_)
			continue;
		if (aggregate->aggfnoid != F_COUNT_ANY)
			return false;

		/* A record always has its id, and a constant is always one. */
		counted = (Var *) linitial_node(TargetEntry, aggregate->args)->expr;
		if (IsA(counted, Const) && !((Const *) counted)->constisnull)
			continue;
		if (!IsA(counted, Var) || counted->varno != relation->rel->relid || counted->varattno <= 0 ||
			relation->table->columns[counted->varattno - 1] == NULL ||
			strcmp(relation->table->columns[counted->varattno - 1]->path, HX_PATH_KEY) != 0)
			return false;
	}
	return true;
}

/* Does HEAD know all that the list is asked for? */
static bool
head_knows(const HxTable *table, const HxConditions *conditions)
{
	ListCell   *cell;

	foreach(cell, table->resource->count_ignores)
	{
		const char *ignored = lfirst(cell);
		ListCell   *asked;

		foreach(asked, table->query)
			if (strcmp(((HxPair *) lfirst(asked))->name, ignored) == 0)
				return false;
		foreach(asked, conditions->sent)
		{
			HxCondition *condition = lfirst(asked);

			if (condition->parameter != NULL && strcmp(condition->parameter, ignored) == 0)
				return false;
		}
	}
	return true;
}

/* A count of all that the conditions let through, by HEAD. */
static void
add_count_path(PlannerInfo *root, RelOptInfo *input, RelOptInfo *grouped, GroupPathExtraData *extra)
{
	HxRelation *relation = input->fdw_private;
	Query	   *query = root->parse;
	PathTarget *target = root->upper_targets[UPPERREL_GROUP_AGG];
	HxConditions conditions;

	if (!hx_guc_pushdown || !relation->table->resource->countable || query->groupClause != NIL ||
		query->groupingSets != NIL || query->havingQual != NULL || query->hasTargetSRFs ||
		extra->havingQual != NULL || !bms_equal(input->relids, relation->rel->relids) ||
		!counts_rows((Node *) target->exprs, relation))
		return;
	hx_conditions_find(root, relation->rel, relation->table, relation->rel->baserestrictinfo, relation->needed,
					   &conditions);
	if (!hx_conditions_exact(relation->table, &conditions) || !head_knows(relation->table, &conditions))
		return;
	grouped->fdw_private = relation;
	add_path(grouped, (Path *) hx_create_foreign_upper_path(root, grouped, target, 1,
															SHORT_REQUEST_COST,
															requests_cost(hx_conditions_parts(&conditions),
																		  SHORT_REQUEST_COST), NIL,
															list_make4_int(READ_COUNT, -1, false,
																		   (int) hx_conditions_parts(&conditions))));
}

/* A limit, which asks for no more records than are wanted, in an order of the API's or in none. */
static void
add_limit_path(PlannerInfo *root, RelOptInfo *input, RelOptInfo *final, FinalPathExtraData *extra)
{
	HxRelation *relation = input->fdw_private;
	Query	   *query = root->parse;
	PathTarget *target = root->upper_targets[UPPERREL_FINAL];
	HxConditions conditions;
	UsableOrder order;
	List	   *attributes;
	double		rows;

	if (!hx_guc_pushdown || !extra->limit_needed || query->commandType != CMD_SELECT ||
		query->limitOption == LIMIT_OPTION_WITH_TIES || query->rowMarks != NIL || query->hasAggs ||
		query->groupClause != NIL || query->groupingSets != NIL || query->havingQual != NULL ||
		query->distinctClause != NIL || query->hasWindowFuncs || query->setOperations != NULL ||
		query->hasTargetSRFs || !bms_equal(root->all_baserels, relation->rel->relids) ||
		relation->rel->lateral_relids != NULL)
		return;
	hx_conditions_find(root, relation->rel, relation->table, relation->rel->baserestrictinfo, relation->needed,
					   &conditions);
	order = find_order(root, relation->rel, relation->table, root->sort_pathkeys);
	if (!hx_conditions_exact(relation->table, &conditions) || !hx_conditions_single(&conditions) ||
		!relation->table->resource->paged || (root->sort_pathkeys != NIL && (order.number < 0 || !order.whole)) ||
		!attributes_of(add_to_flat_tlist(NIL, pull_var_clause((Node *) target->exprs,
															  PVC_INCLUDE_PLACEHOLDERS | PVC_INCLUDE_AGGREGATES)),
					   &attributes))
		return;

	/* What can change its place meanwhile must be here in one page. */
	if (order.number >= 0 && !order.stable &&
		(root->limit_tuples < 0 || root->limit_tuples > relation->table->page_size))
		return;

	rows = clamp_row_est(Min(relation->rel->rows, root->limit_tuples < 0 ? relation->rel->rows * 0.1 : root->limit_tuples));
	final->fdw_private = relation;
	add_path(final, (Path *) hx_create_foreign_upper_path(root, final, target, rows, SHORT_REQUEST_COST,
														  requests_cost(ceil(rows / Max(relation->table->page_size, 1)),
																	SHORT_REQUEST_COST) +
														  rows * (RECORD_COST + cpu_tuple_cost + target->cost.per_tuple),
														  root->sort_pathkeys,
														  list_make4_int(READ_LIMITED, order.number, order.descending,
																		 (int) ceil(rows / Max(relation->table->page_size, 1)))));
}

static void
hxGetForeignUpperPaths(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input, RelOptInfo *output, void *extra)
{
	HxRelation *relation = input->fdw_private;

	if (relation == NULL || output->fdw_private != NULL)
		return;
	if (stage == UPPERREL_GROUP_AGG && input == relation->rel)
		add_count_path(root, input, output, extra);
	else if (stage == UPPERREL_ORDERED && input == relation->rel)
		output->fdw_private = relation;	/* for the limit above it */
	else if (stage == UPPERREL_FINAL)
		add_limit_path(root, input, output, extra);
}

static bool
hxIsForeignPathAsyncCapable(ForeignPath *path)
{
	return linitial_int(path->fdw_private) <= READ_KEYS;
}

/*
 * hubex.forget_plans(): a trigger of hubex.connector; lets every session make
 * its kept plans anew.
 */
Datum
hubex_forget_plans(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheAll();
	PG_RETURN_POINTER(NULL);		/* a trigger must not return SQL null */
}

/* Enters the routines of this file. */
void
hx_plan_routines(FdwRoutine *routine)
{
	routine->GetForeignRelSize = hxGetForeignRelSize;
	routine->GetForeignPaths = hxGetForeignPaths;
	routine->GetForeignPlan = hxGetForeignPlan;
	routine->GetForeignUpperPaths = hxGetForeignUpperPaths;
	routine->IsForeignPathAsyncCapable = hxIsForeignPathAsyncCapable;
}
