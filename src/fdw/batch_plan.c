/*-------------------------------------------------------------------------
 *
 * batch_plan.c
 *	  Paths and plans of a join that asks for many keys at once.
 *
 * A parameterised path of a foreign table makes a request for every row of
 * the outer side.  Where a join compares a column that the API can look for
 * with a value of the outer side, such a join collects the values of many
 * outer rows and asks for up to HX_KEYS_A_REQUEST of them in one request; or,
 * where the API takes one value a request, it at least knows all of them
 * before it asks.
 *
 * The join is a custom path with two children: any path of the outer side,
 * and a reading of the foreign table by keys (hx_plan_keys_path), which is
 * none of the table's own paths because nothing else could give it the keys.
 * It costs what its requests cost, and so competes with a hash join over the
 * whole list and with a nested loop that asks for each row alone.  Of a
 * partitioned table, one server per tenant, each partition is asked.
 *
 * There are two ways to do it.  One gives rows as the answers arrive, in
 * their order.  The other keeps the order of the outer side, for an ORDER BY
 * ... LIMIT above, and sorts each batch for that.
 *
 * The tuple that conditions and the target list look at has the columns of
 * the outer side, then those of the inner side.  The planner tells a column
 * apart from the same column after an outer join has made it nullable, and
 * accepts one of them only; as a tuple has no such difference, all that the
 * join looks at is written as what stands above it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/appendinfo.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "optimizer/tlist.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"

#include "compat.h"
#include "fdw/batch_join.h"

/* Places in the custom_private of a path. */
enum
{
	PATH_NUMBERS,
	PATH_CLAUSES,
	PATH_KEYS
};

static set_join_pathlist_hook_type previous_hook = NULL;

static Plan *plan_batch_join(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
							 List *children);

static const CustomPathMethods path_methods = {
	.CustomName = HX_BATCH_JOIN_NAME,
	.PlanCustomPath = plan_batch_join,
};

/* Does a clause have its outer side on the left? */
static bool
is_outer_left(const RelOptInfo *outer, const RestrictInfo *clause)
{
	return bms_is_subset(clause->left_relids, outer->relids);
}

/* Does a clause compare the two sides in a way that can be hashed? */
static bool
is_key_clause(RelOptInfo *outer, RelOptInfo *inner, RestrictInfo *clause)
{
	Oid			left;
	Oid			right;

	if (!clause->can_join || !OidIsValid(clause->hashjoinoperator) ||
		!get_op_hash_functions(clause->hashjoinoperator, &left, &right) ||
		!get_compatible_hash_operators(clause->hashjoinoperator, &left, &right))
		return false;
	return is_outer_left(outer, clause) ? bms_is_subset(clause->right_relids, inner->relids) :
		bms_is_subset(clause->right_relids, outer->relids) && bms_is_subset(clause->left_relids, inner->relids);
}

/*
 * How many keys the first batch should have.  Where all will be read, as many
 * as there are, so that repeated keys are asked for once.  Else as few as
 * make a whole request; the batches grow from there.
 */
static int
first_keys(PlannerInfo *root, RelOptInfo *joinrel, const Path *outer, const HxBatchPlan *plan)
{
	double		rows_a_key = Max(joinrel->rows / Max(outer->rows, 1), 1);

	if (plan->all)
		return HX_BATCH_MOST_KEYS;

	/* In no order, requests are made one by one, until enough rows have come. */
	if (plan->several || !plan->ordered)
		return HX_KEYS_A_REQUEST;
	return root->limit_tuples > 0 ? (int) Min(ceil(root->limit_tuples / rows_a_key), HX_KEYS_A_REQUEST) : 1;
}

static void
set_costs(PlannerInfo *root, CustomPath *custom, const Path *outer, const Path *inner, const HxBatchPlan *plan,
		  List *clauses, double nkeys)
{
	Path	   *path = &custom->path;
	double		share = Min(1.0, plan->first / Max(nkeys, 1));
	QualCost	quals;

	/* What must be read of both sides before the first row comes. */
	path->startup_cost = outer->startup_cost + share * (outer->total_cost - outer->startup_cost) +
		(plan->ordered ? Max(inner->startup_cost, share * inner->total_cost) : inner->startup_cost);

	cost_qual_eval(&quals, clauses, root);
	path->startup_cost += quals.startup + path->pathtarget->cost.startup;
	path->total_cost = outer->total_cost + inner->total_cost + quals.startup + path->pathtarget->cost.startup +
		2 * cpu_operator_cost * (outer->rows + inner->rows) +
		(cpu_tuple_cost + quals.per_tuple + path->pathtarget->cost.per_tuple) * path->rows;
	if (plan->ordered)
		path->total_cost += 2 * cpu_operator_cost * path->rows * log2(Max(path->rows, 2));
	path->total_cost = Max(path->total_cost, path->startup_cost);
}

/* Is it a partitioned table, all of whose partitions that are to be read are ours? */
static bool
is_partitioned(RelOptInfo *rel)
{
	int			i = -1;

	if (!IS_SIMPLE_REL(rel) || rel->nparts <= 0 || bms_is_empty(rel->live_parts))
		return false;
	while ((i = bms_next_member(rel->live_parts, i)) >= 0)
		if (hx_plan_table(rel->part_rels[i]) == NULL)
			return false;
	return true;
}

/* The reading of the inner side by keys: of a table, or of each partition of one.  NULL where the clause names no key. */
static Path *
keys_path(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *keys, double nkeys, double passes, bool all, bool *several)
{
	List	   *paths = NIL;
	int			i = -1;

	if (rel->nparts <= 0)
		return hx_plan_keys_path(root, rel, keys, nkeys, passes, all, several);
	*several = true;
	while ((i = bms_next_member(rel->live_parts, i)) >= 0)
	{
		RelOptInfo *part = rel->part_rels[i];
		int			count;
		AppendRelInfo **appinfos = find_appinfos_by_relids(root, part->relids, &count);
		bool		takes_several;
		Path	   *path = hx_plan_keys_path(root, part,
											 (RestrictInfo *) adjust_appendrel_attrs(root, (Node *) keys, count, appinfos),
											 nkeys, passes, all, &takes_several);

		if (path == NULL)
			return NULL;
		*several &= takes_several;
		paths = lappend(paths, path);
	}
	return (Path *) create_append_path(root, rel, paths, NIL, NIL, NULL, 0, false, -1);
}

/* Adds the join of one path of the outer side by one clause. */
static void
add_batch_path(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *innerrel, Path *outer, RestrictInfo *keys,
			   HxBatchPlan plan, JoinPathExtraData *extra)
{
	OpExpr	   *clause = (OpExpr *) keys->clause;
	Expr	   *key = is_outer_left(outer->parent, keys) ? linitial(clause->args) : lsecond(clause->args);
	double		bytes = outer->rows * (MAXALIGN(SizeofMinimalTupleHeader) + outer->pathtarget->width + sizeof(void *) * 2);
	double		passes = ceil(Max(bytes / get_hash_memory_limit(), 1));
	EstimationInfo known;
	double		nkeys = passes * estimate_num_groups(root, list_make1(key), clamp_row_est(outer->rows / passes), NULL,
													 &known);
	List	   *clauses = extra->restrictlist;
	Relids		required;
	CustomPath *custom;
	Path	   *inner;
	List	   *pathkeys = NIL;

	/* Of rows that nothing is known of, each may have a key of its own: rather too many than a budget used up. */
	if (known.flags & SELFLAG_USED_DEFAULT)
		nkeys = outer->rows;
	if (plan.ordered)
	{
		pathkeys = build_join_pathkeys(root, joinrel, plan.jointype, outer->pathkeys);
		if (pathkeys == NIL)
			return;
	}
	plan.all = hx_plan_reads_all(root);
	inner = keys_path(root, innerrel, keys, nkeys, passes, plan.ordered, &plan.several);
	if (inner == NULL)
		return;
	required = calc_non_nestloop_required_outer(outer, inner);
	if (required != NULL && !bms_overlap(required, extra->param_source_rels))
		return;
	plan.first = first_keys(root, joinrel, outer, &plan);

	custom = makeNode(CustomPath);
	custom->path.pathtype = T_CustomScan;
	custom->path.parent = joinrel;
	custom->path.pathtarget = joinrel->reltarget;
	custom->path.param_info = get_joinrel_parampathinfo(root, joinrel, outer, inner, extra->sjinfo, required, &clauses);
	custom->path.rows = custom->path.param_info ? custom->path.param_info->ppi_rows : joinrel->rows;
	custom->path.pathkeys = pathkeys;
	hx_path_add_disabled(&custom->path, outer);
	hx_path_add_disabled(&custom->path, inner);
	custom->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	custom->custom_paths = list_make2(outer, inner);
	custom->custom_private = list_make3(list_make5_int(plan.jointype, plan.ordered, plan.all, plan.several, plan.first),
										clauses, list_make1(keys));
	custom->methods = &path_methods;
	set_costs(root, custom, outer, inner, &plan, clauses, nkeys);
	add_path(joinrel, &custom->path);
}

/* The outer side in the query's order, as far as it can give that; NULL where it cannot, or has a path for it. */
static Path *
sorted_outer(PlannerInfo *root, RelOptInfo *outerrel)
{
	Path	   *cheapest = outerrel->cheapest_total_path;
	List	   *pathkeys = NIL;
	ListCell   *cell;

	foreach(cell, root->query_pathkeys)
	{
		if (!relation_can_be_sorted_early(root, outerrel, lfirst_node(PathKey, cell)->pk_eclass, false))
			break;
		pathkeys = lappend(pathkeys, lfirst(cell));
	}
	if (pathkeys == NIL || cheapest->param_info != NULL ||
		get_cheapest_path_for_pathkeys(outerrel->pathlist, pathkeys, NULL, TOTAL_COST, false) != NULL)
		return NULL;
	return (Path *) create_sort_path(root, outerrel, cheapest, pathkeys, -1.0);
}

/* Adds the joins by one clause. */
static void
add_paths_of_clause(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outerrel, RelOptInfo *innerrel,
					JoinType jointype, JoinPathExtraData *extra, RestrictInfo *clause)
{
	HxBatchPlan plan = {.jointype = jointype};
	ListCell   *cell;

	/* What an outer join only filters by does not say what belongs together. */
	if (IS_OUTER_JOIN(jointype) && RINFO_IS_PUSHED_DOWN(clause, joinrel->relids))
		return;
	if (!is_key_clause(outerrel, innerrel, clause))
		return;
	if (jointype == JOIN_UNIQUE_OUTER)
	{
		Path	   *unique = (Path *) create_unique_path(root, outerrel, outerrel->cheapest_total_path, extra->sjinfo);

		plan.jointype = JOIN_INNER;
		if (unique != NULL && unique->param_info == NULL)
			add_batch_path(root, joinrel, innerrel, unique, clause, plan, extra);
		return;
	}
	foreach(cell, outerrel->pathlist)
	{
		Path	   *outer = lfirst(cell);

		if (outer->param_info != NULL &&
			(outer != outerrel->cheapest_total_path || bms_overlap(PATH_REQ_OUTER(outer), innerrel->relids) ||
			 bms_overlap(PATH_REQ_OUTER(outer), innerrel->top_parent_relids)))
			continue;
		plan.ordered = false;
		if (outer == outerrel->cheapest_total_path || outer == outerrel->cheapest_startup_path)
			add_batch_path(root, joinrel, innerrel, outer, clause, plan, extra);
		plan.ordered = true;
		if (outer->pathkeys != NIL)
			add_batch_path(root, joinrel, innerrel, outer, clause, plan, extra);
	}

	/* A sort above would read the join to its end; one below does not, where only some rows are wanted. */
	if (!hx_plan_reads_all(root))
	{
		Path	   *outer = sorted_outer(root, outerrel);


		plan.ordered = true;
		if (outer != NULL)
			add_batch_path(root, joinrel, innerrel, outer, clause, plan, extra);
	}
}

/*
 * A hash join with a parameterised inner side builds its table anew whenever
 * the parameter changes.  The planner forgets that for a table of one batch,
 * which for us would be requests without a price.  It does not for two.
 */
static void
count_rebuilt_tables(RelOptInfo *joinrel, RelOptInfo *innerrel)
{
	ListCell   *cell;

	foreach(cell, joinrel->pathlist)
	{
		HashPath   *path = lfirst(cell);

		if (IsA(path, HashPath) && path->jpath.innerjoinpath->parent == innerrel &&
			path->jpath.innerjoinpath->param_info != NULL)
			path->num_batches = Max(path->num_batches, 2);
	}
}

/* set_join_pathlist_hook */
static void
add_join_paths(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outerrel, RelOptInfo *innerrel, JoinType jointype,
			   JoinPathExtraData *extra)
{
	ListCell   *cell;

	if (previous_hook != NULL)
		previous_hook(root, joinrel, outerrel, innerrel, jointype, extra);
	if (hx_plan_table(innerrel) == NULL && !is_partitioned(innerrel))
		return;
	count_rebuilt_tables(joinrel, innerrel);
	if (jointype != JOIN_INNER && jointype != JOIN_LEFT && jointype != JOIN_SEMI && jointype != JOIN_ANTI &&
		jointype != JOIN_UNIQUE_OUTER)
		return;
	if (IS_DUMMY_REL(outerrel) || innerrel->lateral_relids != NULL)
		return;

	/* A condition that no row decides needs a node of its own, which the planner makes for its own joins only. */
	foreach(cell, extra->restrictlist)
		if (lfirst_node(RestrictInfo, cell)->pseudoconstant)
			return;
	foreach(cell, extra->restrictlist)
		add_paths_of_clause(root, joinrel, outerrel, innerrel, jointype, extra, lfirst_node(RestrictInfo, cell));
}

/* Is it the same value but for what outer joins make of it? */
static bool
is_same_value(Node *a, Node *b)
{
	if (IsA(a, Var) && IsA(b, Var))
		return ((Var *) a)->varno == ((Var *) b)->varno && ((Var *) a)->varattno == ((Var *) b)->varattno;
	if (IsA(a, PlaceHolderVar) && IsA(b, PlaceHolderVar))
		return ((PlaceHolderVar *) a)->phid == ((PlaceHolderVar *) b)->phid;
	return false;
}

/* The tuple's column that gives a value, or NULL. */
static TargetEntry *
column_of_value(List *tuple, Node *value)
{
	ListCell   *cell;

	foreach(cell, IsA(value, Var) || IsA(value, PlaceHolderVar) ? tuple : NIL)
		if (is_same_value(value, (Node *) lfirst_node(TargetEntry, cell)->expr))
			return lfirst(cell);
	return NULL;
}

/* Names the tuple's columns as an expression above the join does. */
static bool
take_names(Node *node, List *tuple)
{
	TargetEntry *column;

	if (node == NULL)
		return false;
	column = column_of_value(tuple, node);
	if (column == NULL)
		return expression_tree_walker(node, take_names, tuple);
	column->expr = copyObject((Expr *) node);
	return false;
}

/* A copy of an expression that names columns as the tuple does. */
static Node *
use_names(Node *node, void *tuple)
{
	TargetEntry *column;

	if (node == NULL)
		return NULL;
	column = column_of_value(tuple, node);
	return column ? copyObject((Node *) column->expr) : expression_tree_mutator(node, use_names, tuple);
}

static List *
add_columns(List *tuple, List *tlist)
{
	ListCell   *cell;

	foreach(cell, tlist)
		tuple = lappend(tuple, makeTargetEntry(copyObject(lfirst_node(TargetEntry, cell)->expr), list_length(tuple) + 1,
											   NULL, false));
	return tuple;
}

static int
compare_security(const ListCell *a, const ListCell *b)
{
	return (int) ((RestrictInfo *) lfirst(a))->security_level - (int) ((RestrictInfo *) lfirst(b))->security_level;
}

/* PlanCustomPath; the clauses it is given are none, for they are the path's own. */
static Plan *
plan_batch_join(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *children)
{
	List	   *numbers = list_nth(path->custom_private, PATH_NUMBERS);
	List	   *restrictions = list_copy(list_nth(path->custom_private, PATH_CLAUSES));
	RestrictInfo *keys = linitial(list_nth(path->custom_private, PATH_KEYS));
	OpExpr	   *clause = copyObject((OpExpr *) keys->clause);
	CustomScan *scan = makeNode(CustomScan);
	List	   *tuple;
	List	   *join;
	List	   *others = NIL;

	list_sort(restrictions, compare_security);
	if (IS_OUTER_JOIN((JoinType) linitial_int(numbers)))
		extract_actual_join_clauses(restrictions, rel->relids, &join, &others);
	else
		join = extract_actual_clauses(restrictions, false);
	join = list_delete_ptr(join, keys->clause);
	if (!is_outer_left(((Path *) linitial(path->custom_paths))->parent, keys))
		CommuteOpExpr(clause);

	tuple = add_columns(NIL, ((Plan *) linitial(children))->targetlist);
	tuple = add_columns(tuple, ((Plan *) lsecond(children))->targetlist);
	take_names((Node *) others, tuple);

	/* The target list may yet be replaced by another one made of what the path gives. */
	take_names((Node *) path->path.pathtarget->exprs, tuple);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = (List *) use_names((Node *) others, tuple);
	scan->flags = path->flags;
	scan->custom_plans = children;
	scan->custom_exprs = (List *) use_names((Node *) lcons(clause, join), tuple);
	scan->custom_scan_tlist = tuple;
	scan->custom_private = numbers;
	scan->methods = &hx_batch_join_scan_methods;
	return &scan->scan.plan;
}

/* Called when the library is loaded. */
void
hx_batch_join_install(void)
{
	previous_hook = set_join_pathlist_hook;
	set_join_pathlist_hook = add_join_paths;
	RegisterCustomScanMethods(&hx_batch_join_scan_methods);
}
