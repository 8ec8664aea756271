/*-------------------------------------------------------------------------
 *
 * condition.c
 *	  Which clauses of a query the API can answer.
 *
 * A clause goes out only if the manifest says which parameter asks for it,
 * and only in the few forms whose meaning is certain: a column of the type
 * the API has, compared by an operator of PostgreSQL's own with a value that
 * does not depend on the row.  Everything else stays, for the API ignores
 * what it does not know and would return everything.
 *
 * What is exact is trusted.  What is not is sent to save traffic and looked
 * at again here, and then neither a limit nor a count can be left to the
 * API.  A parameter is asked for once only: twice would mean "any of them"
 * there and "all of them" here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/settings.h"
#include "fdw/fdw.h"

/* Elements that an array has whose length is not known. */
#define ASSUMED_ELEMENTS	10

/* The table's column that an expression is, or NULL. */
static Var *
column_of(const RelOptInfo *rel, Node *node)
{
	Var		   *var;

	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL || !IsA(node, Var))
		return NULL;
	var = (Var *) node;
	return var->varno == rel->relid && var->varlevelsup == 0 && var->varattno > 0 ? var : NULL;
}

/* Can an expression be evaluated before a row of the table is there? */
static bool
is_value(PlannerInfo *root, const RelOptInfo *rel, Node *node)
{
	return !bms_overlap(pull_varnos(root, node), rel->relids) &&
		!contain_volatile_functions(node) && !contain_subplans(node);
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* Is a column's type the one that the API compares, with values of another type? */
static bool
types_fit(const HxColumn *column, Oid type, Oid value_type)
{
	const char *remote = column->type;

	if (remote == NULL)
		return false;
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return is_integer(value_type) &&
				(strcmp(remote, "bigint") == 0 || strcmp(remote, "integer") == 0 || strcmp(remote, "smallint") == 0);
		case TEXTOID:
		case VARCHAROID:
			return value_type == TEXTOID && strcmp(remote, "text") == 0;
		case BOOLOID:
			return value_type == BOOLOID && strcmp(remote, "boolean") == 0;
		case UUIDOID:
			return value_type == UUIDOID && strcmp(remote, "uuid") == 0;
		case TIMESTAMPTZOID:
			return (value_type == TIMESTAMPTZOID || value_type == TIMESTAMPOID || value_type == DATEOID) &&
				(strcmp(remote, "timestamptz") == 0 || strcmp(remote, "timestamp") == 0);
		default:
			return false;
	}
}

/* What an operator of PostgreSQL's own compares: its B-tree strategy, 0 for none. */
static int
strategy_of(Oid operator, Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type == VARCHAROID ? TEXTOID : type, TYPECACHE_BTREE_OPFAMILY);

	if (operator >= FirstGenbkiObjectId || !OidIsValid(entry->btree_opf))
		return 0;
	return get_op_opfamily_strategy(operator, entry->btree_opf);
}

/* An equality of a column with a value, in the way the API has for it. */
static bool
match_equality(const HxTable *table, AttrNumber attno, Expr *value, const char *constant, bool array,
			   HxCondition *condition)
{
	const HxColumn *column = table->columns[attno - 1];
	const HxResource *resource = table->resource;
	Oid			type = table->types[attno - 1];

	condition->attno = attno;
	condition->value = value;
	condition->constant = constant;
	condition->array = array;
	if (column->path == NULL)
		return false;
	if (strcmp(column->path, HX_PATH_PARENT) == 0)
	{
		condition->kind = HX_CONDITION_PARENT;
		condition->exact = true;
		return true;
	}
	if (column->filter.equal != NULL)
	{
		/* A column without a value of its own can be equal to one value only. */
		if (array && strcmp(column->path, HX_PATH_FILTER) == 0)
			return false;
		condition->kind = HX_CONDITION_EQUAL;
		condition->parameter = column->filter.equal;
		condition->several = column->filter.several;
		condition->exact = column->filter.exact;

		/* The API says "no" of what is not there, SQL says nothing of it. */
		if (type == BOOLOID && !column->present && (constant == NULL || strcmp(constant, "true") != 0))
			condition->exact = strcmp(column->path, HX_PATH_FILTER) == 0;
		return true;
	}
	if (strcmp(column->path, HX_PATH_KEY) == 0 && resource->one != NULL && resource->parent == NULL)
	{
		condition->kind = HX_CONDITION_ONE;
		condition->exact = is_integer(type) || type == UUIDOID;
		return true;
	}
	return false;
}

static bool
match_comparison(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, OpExpr *op, HxCondition *condition)
{
	Oid			operator = op->opno;
	Node	   *left;
	Node	   *right;
	Var		   *var;
	Oid			left_type;
	Oid			right_type;
	const HxColumn *column;
	int			strategy;

	if (list_length(op->args) != 2)
		return false;
	left = linitial(op->args);
	right = lsecond(op->args);
	var = column_of(rel, left);
	if (var == NULL || !is_value(root, rel, right))
	{
		var = column_of(rel, right);
		operator = get_commutator(operator);
		right = left;
		if (var == NULL || !OidIsValid(operator) || !is_value(root, rel, right))
			return false;
	}
	column = table->columns[var->varattno - 1];
	if (column == NULL)
		return false;
	op_input_types(operator, &left_type, &right_type);
	if (!types_fit(column, var->vartype, right_type) ||
		(OidIsValid(op->inputcollid) && !get_collation_isdeterministic(op->inputcollid)))
		return false;

	strategy = strategy_of(operator, var->vartype);
	if (strategy == BTEqualStrategyNumber && match_equality(table, var->varattno, (Expr *) right, NULL, false, condition))
		return true;

	/* Times: bounds, of which nobody knows whether they are part of the range. */
	if (var->vartype != TIMESTAMPTZOID || strategy == 0)
		return false;
	condition->kind = strategy == BTLessStrategyNumber || strategy == BTLessEqualStrategyNumber ?
		HX_CONDITION_TILL : HX_CONDITION_FROM;
	condition->parameter = condition->kind == HX_CONDITION_TILL ? column->filter.till : column->filter.from;
	condition->attno = var->varattno;
	condition->value = (Expr *) right;
	condition->exact = false;
	return condition->parameter != NULL;
}

/* column = ANY (array) */
static bool
match_any(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, ScalarArrayOpExpr *any, HxCondition *condition)
{
	Var		   *var = column_of(rel, linitial(any->args));
	Node	   *array = lsecond(any->args);
	Oid			left_type;
	Oid			right_type;

	if (!any->useOr || var == NULL || table->columns[var->varattno - 1] == NULL || !is_value(root, rel, array))
		return false;
	op_input_types(any->opno, &left_type, &right_type);
	return types_fit(table->columns[var->varattno - 1], var->vartype, right_type) &&
		var->vartype != TIMESTAMPTZOID && var->vartype != BOOLOID &&
		(!OidIsValid(any->inputcollid) || get_collation_isdeterministic(any->inputcollid)) &&
		strategy_of(any->opno, var->vartype) == BTEqualStrategyNumber &&
		match_equality(table, var->varattno, (Expr *) array, NULL, true, condition);
}

/* A boolean column that is said to be true or false. */
static bool
match_boolean(const HxTable *table, Var *var, bool wanted, HxCondition *condition)
{
	HxColumn   *column = var ? table->columns[var->varattno - 1] : NULL;

	return column != NULL && var->vartype == BOOLOID && types_fit(column, BOOLOID, BOOLOID) &&
		match_equality(table, var->varattno, NULL, wanted ? "true" : "false", false, condition);
}

/* column IS [NOT] NULL, where a parameter asks whether there is a value */
static bool
match_null_test(RelOptInfo *rel, const HxTable *table, NullTest *test, HxCondition *condition)
{
	Var		   *var = column_of(rel, (Node *) test->arg);
	HxColumn   *column = var ? table->columns[var->varattno - 1] : NULL;

	if (column == NULL || column->filter.present == NULL || test->argisrow)
		return false;
	condition->kind = HX_CONDITION_EQUAL;
	condition->parameter = column->filter.present;
	condition->attno = var->varattno;
	condition->constant = test->nulltesttype == IS_NULL ? "false" : "true";
	condition->exact = true;
	return true;
}

/* Is there something the API can be asked for in a clause?  The condition is palloc'd. */
bool
hx_condition_match(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, RestrictInfo *clause,
				   HxCondition **condition)
{
	Node	   *node = (Node *) clause->clause;
	HxCondition *found = palloc0(sizeof(HxCondition));
	bool		matches = false;

	*condition = found;
	if (clause->pseudoconstant)
		return false;
	switch (nodeTag(node))
	{
		case T_OpExpr:
			matches = match_comparison(root, rel, table, (OpExpr *) node, found);
			break;
		case T_ScalarArrayOpExpr:
			matches = match_any(root, rel, table, (ScalarArrayOpExpr *) node, found);
			break;
		case T_Var:
			matches = match_boolean(table, column_of(rel, node), true, found);
			break;
		case T_BoolExpr:
			if (((BoolExpr *) node)->boolop == NOT_EXPR)
				matches = match_boolean(table, column_of(rel, linitial(((BoolExpr *) node)->args)), false, found);
			break;
		case T_BooleanTest:
			{
				BooleanTest *test = (BooleanTest *) node;

				if (test->booltesttype == IS_TRUE || test->booltesttype == IS_FALSE)
					matches = match_boolean(table, column_of(rel, (Node *) test->arg),
											test->booltesttype == IS_TRUE, found);
			}
			break;
		case T_NullTest:
			matches = match_null_test(rel, table, (NullTest *) node, found);
			break;
		default:
			break;
	}
	return matches;
}

/* How many elements an array has; -1 where only the execution knows. */
static int
known_length(Expr *array)
{
	if (array != NULL && IsA(array, Const) && !((Const *) array)->constisnull)
	{
		ArrayType  *value = DatumGetArrayTypeP(((Const *) array)->constvalue);

		return ArrayGetNItems(ARR_NDIM(value), ARR_DIMS(value));
	}
	if (array != NULL && IsA(array, ArrayExpr) && !((ArrayExpr *) array)->multidims)
		return list_length(((ArrayExpr *) array)->elements);
	return -1;
}

static int
array_length(Expr *array)
{
	int			known = known_length(array);

	return known >= 0 ? known : ASSUMED_ELEMENTS;
}

/* Is a parameter asked for already, by the table itself or by another clause? */
static bool
is_taken(const HxTable *table, const HxConditions *found, const HxCondition *condition)
{
	ListCell   *cell;

	foreach(cell, found->sent)
	{
		HxCondition *other = lfirst(cell);

		if (condition->parameter == NULL ? other->kind == condition->kind :
			other->parameter != NULL && strcmp(other->parameter, condition->parameter) == 0)
			return true;
	}
	foreach(cell, condition->parameter ? table->query : NIL)
		if (strcmp(((HxPair *) lfirst(cell))->name, condition->parameter) == 0)
			return true;
	return false;
}

/*
 * Does a single record, asked for by its path, show all columns that are
 * needed?  The whole record it shows as it is alone, with more in it than in
 * the list; so where the list is one request as well, it is the list.
 */
static bool
one_suffices(const HxTable *table, Bitmapset *needed, double records)
{
	int			i = -1;

	/* It is not filtered; that it is deleted can be seen, if the record says so. */
	if (table->has_filter || list_length(table->query) > (table->resource->deleted ? 1 : 0))
		return false;
	while ((i = bms_next_member(needed, i)) >= 0)
	{
		ListCell   *cell;

		if (table->columns[i] != NULL && strcmp(table->columns[i]->path, HX_PATH_RECORD) == 0 &&
			hx_table_pages(table, records) <= 1)
			return false;
		foreach(cell, table->columns[i] ? table->resource->one_lacks : NIL)
			if (strcmp(table->columns[i]->name, lfirst(cell)) == 0)
				return false;
	}
	return true;
}

/* Is it about a column that only shows what was asked for? */
bool
hx_condition_is_filter(const HxTable *table, const HxCondition *condition)
{
	return hx_table_is_filter(table, condition->attno);
}

/*
 * Takes what is asked for by clauses of one kind, where EQUAL stands for all
 * that are parameters.  The rest is to be looked at.  keys is the clause
 * whose values a batched join gives, or NULL.
 */
static void
take_matching(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, const RestrictInfo *keys, List *clauses,
			  Bitmapset *needed, HxConditionKind kind, HxConditions *found)
{
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *clause = lfirst(cell);
		HxCondition *condition;
		bool		splits = true;
		ListCell   *other;

		if (list_member_ptr(found->clauses, clause) ||
			!hx_condition_match(root, rel, table, clause, &condition) ||
			Min(condition->kind, HX_CONDITION_EQUAL) != kind ||
			(!hx_guc_pushdown && condition->kind != HX_CONDITION_PARENT && !hx_condition_is_filter(table, condition)) ||
			is_taken(table, found, condition))
			continue;
		if (condition->kind == HX_CONDITION_ONE && !one_suffices(table, needed, rel->tuples))
			continue;
		foreach(other, found->sent)
			splits &= !((HxCondition *) lfirst(other))->split;
		if (clause == keys)
		{
			if (!splits)
				continue;
			condition->array = condition->split = true;
		}
		else if (condition->array && condition->kind != HX_CONDITION_PARENT)
		{
			int			known = known_length(condition->value);

			/*
			 * One request a value pays only if there are fewer values than
			 * pages.  Where that is not known yet, the execution decides, and
			 * what comes is looked at.
			 */
			if (!condition->several && (!splits || known > hx_table_pages(table, rel->tuples)))
				continue;
			condition->split = splits;
			condition->exact &= splits && known >= 0;
		}
		else
			condition->split = condition->array;
		found->sent = lappend(found->sent, condition);
		found->clauses = lappend(found->clauses, clause);
	}
}

/* Is there a condition on a column that only shows what was asked for? */
static bool
asks_for_filters(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, List *clauses)
{
	ListCell   *cell;

	foreach(cell, clauses)
	{
		HxCondition *condition;

		if (hx_condition_match(root, rel, table, lfirst(cell), &condition) &&
			hx_condition_is_filter(table, condition))
			return true;
	}
	return false;
}

/* Does a clause ask for what the table always asks for: that a record is not deleted, say? */
static bool
is_implied(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, RestrictInfo *clause)
{
	HxCondition *condition;
	ListCell   *cell;

	if (!hx_condition_match(root, rel, table, clause, &condition) || condition->constant == NULL || !condition->exact)
		return false;
	foreach(cell, table->query)
	{
		HxPair	   *asked = lfirst(cell);

		if (strcmp(asked->name, condition->parameter) == 0 && strcmp(asked->value, condition->constant) == 0)
			return true;
	}
	return false;
}

/*
 * Does a clause compare a column of one value with just that value?  Then it
 * is true of every row.  A partition's key is such a column.
 */
static bool
is_constant_true(RelOptInfo *rel, const HxTable *table, RestrictInfo *clause)
{
	OpExpr	   *op = (OpExpr *) clause->clause;
	Var		   *var;
	Const	   *value;
	Oid			output;
	bool		is_varlena;

	if (!IsA(op, OpExpr) || list_length(op->args) != 2 || !IsA(lsecond(op->args), Const))
		return false;
	var = column_of(rel, linitial(op->args));
	value = lsecond(op->args);
	if (var == NULL || value->constisnull || table->columns[var->varattno - 1] == NULL ||
		table->columns[var->varattno - 1]->constant == NULL ||
		strategy_of(op->opno, var->vartype) != BTEqualStrategyNumber)
		return false;
	getTypeOutputInfo(value->consttype, &output, &is_varlena);
	return strcmp(OidOutputFunctionCall(output, value->constvalue), table->columns[var->varattno - 1]->constant) == 0;
}

static void
find_conditions(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, const RestrictInfo *keys, List *clauses,
				Bitmapset *needed, HxConditions *found)
{
	ListCell   *cell;

	memset(found, 0, sizeof(HxConditions));

	/*
	 * Who asks for one record by its path cannot ask for anything else; what
	 * only the API can decide must go to the list.
	 */
	if (!asks_for_filters(root, rel, table, clauses))
		take_matching(root, rel, table, keys, clauses, needed, HX_CONDITION_ONE, found);
	found->one = found->sent != NIL;
	if (!found->one)
	{
		take_matching(root, rel, table, keys, clauses, needed, HX_CONDITION_PARENT, found);
		take_matching(root, rel, table, keys, clauses, needed, HX_CONDITION_EQUAL, found);
	}

	found->no_parent = table->resource->parent != NULL;
	foreach(cell, found->sent)
		if (((HxCondition *) lfirst(cell))->kind == HX_CONDITION_PARENT)
			found->no_parent = false;
	foreach(cell, clauses)
	{
		RestrictInfo *clause = lfirst(cell);
		ListCell   *sent;
		ListCell   *condition;
		bool		exact = false;

		forboth(sent, found->clauses, condition, found->sent)
			if (lfirst(sent) == clause)
				exact = ((HxCondition *) lfirst(condition))->exact;
		if (!exact && !is_constant_true(rel, table, clause) && !is_implied(root, rel, table, clause))
			found->checked = lappend(found->checked, clause);
	}
}

/*
 * Finds what of a list of RestrictInfos the API can be asked for.  needed is
 * the set of attributes (less 1) that the scan has to give.
 */
void
hx_conditions_find(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, List *clauses, Bitmapset *needed,
				   HxConditions *found)
{
	find_conditions(root, rel, table, NULL, clauses, needed, found);
}

/*
 * The same, with a join clause for whose column many values will be given at
 * once.  Returns the condition's index among those sent, -1 where the API
 * cannot be asked that way.  The clause itself is left to the join.
 */
int
hx_conditions_find_keys(PlannerInfo *root, RelOptInfo *rel, const HxTable *table, RestrictInfo *keys, List *clauses,
						Bitmapset *needed, HxConditions *found)
{
	HxCondition *condition;
	ListCell   *cell;

	memset(found, 0, sizeof(HxConditions));

	/* A column that shows what was asked for has one value only. */
	if (!IsA(keys->clause, OpExpr) || !hx_condition_match(root, rel, table, keys, &condition) ||
		condition->kind > HX_CONDITION_EQUAL ||
		strcmp(table->columns[condition->attno - 1]->path, HX_PATH_FILTER) == 0)
		return -1;
	find_conditions(root, rel, table, keys, lcons(keys, list_copy(clauses)), needed, found);
	found->checked = list_delete_ptr(found->checked, keys);
	foreach(cell, found->clauses)
		if (lfirst(cell) == keys && !found->no_parent)
			return foreach_current_index(cell);
	return -1;
}

/* Is what comes just what the clauses let through? */
bool
hx_conditions_exact(const HxTable *table, const HxConditions *conditions)
{
	return conditions->checked == NIL && !conditions->no_parent && !conditions->one && !table->drops_deleted;
}

/* Is it one list that is read, not several one after another? */
bool
hx_conditions_single(const HxConditions *conditions)
{
	ListCell   *cell;

	foreach(cell, conditions->sent)
	{
		HxCondition *condition = lfirst(cell);

		if (condition->split && !(condition->several && IsA(condition->value, Const) &&
								  array_length(condition->value) <= HX_KEYS_A_REQUEST))
			return false;
	}
	return true;
}

/* The most records there can be, where they are looked for by their ids; else a negative number. */
double
hx_conditions_most(const HxTable *table, const HxConditions *conditions)
{
	ListCell   *cell;

	foreach(cell, conditions->sent)
	{
		HxCondition *condition = lfirst(cell);

		if (strcmp(table->columns[condition->attno - 1]->path, HX_PATH_KEY) == 0)
			return condition->array ? array_length(condition->value) : 1;
	}
	return -1;
}

/* How many requests the values of the conditions make, at least, where each answer is one page. */
double
hx_conditions_parts(const HxConditions *conditions)
{
	ListCell   *cell;

	foreach(cell, conditions->sent)
	{
		HxCondition *condition = lfirst(cell);

		if (condition->split)
			return ceil((double) array_length(condition->value) / (condition->several ? HX_KEYS_A_REQUEST : 1));
	}
	return 1;
}
