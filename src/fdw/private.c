/*-------------------------------------------------------------------------
 *
 * private.c
 *	  What a plan carries to the executor.
 *
 * fdw_private may hold only what copyObject() copies, or a cached plan loses
 * it; so the plan of a scan is packed into lists of integers and strings.
 * The expressions go into fdw_exprs, which PostgreSQL itself adapts to where
 * they stand in the plan: the values of the conditions that have one, then
 * the limit, then the offset.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/value.h"

#include "fdw/fdw.h"

/* Places in the packed list, and in that of a condition. */
enum
{
	PLAN_CONDITIONS,
	PLAN_NUMBERS,
	PLAN_ATTRIBUTES,
	PLAN_NEEDED
};

enum
{
	CONDITION_TEXTS,
	CONDITION_NUMBERS
};

static Node *
text_node(const char *text)
{
	return (Node *) makeString(text ? pstrdup(text) : "");
}

static const char *
text_of(List *texts, int n)
{
	char	   *text = strVal(list_nth(texts, n));

	return *text ? text : NULL;
}

/* Packs a plan; its expressions are appended to the list. */
List *
hx_scan_plan_pack(const HxScanPlan *plan, List **expressions)
{
	List	   *conditions = NIL;
	List	   *numbers = NIL;
	ListCell   *cell;

	foreach(cell, plan->conditions)
	{
		HxCondition *condition = lfirst(cell);
		List	   *packed = list_make5_int(condition->kind, condition->attno, condition->array,
											condition->several, condition->split);

		packed = lappend_int(packed, condition->exact);
		packed = lappend_int(packed, condition->value != NULL);
		conditions = lappend(conditions, list_make2(list_make2(text_node(condition->parameter),
															   text_node(condition->constant)), packed));
		if (condition->value != NULL)
			*expressions = lappend(*expressions, condition->value);
	}
	numbers = list_make5_int(plan->order, plan->descending, plan->count, plan->all, plan->has_limit);
	numbers = lappend_int(numbers, plan->has_offset);
	numbers = lappend_int(numbers, (int) Min(plan->requests, 1000000));
	numbers = lappend_int(numbers, plan->batch);
	numbers = lappend_int(numbers, plan->pages);
	return list_make4(conditions, numbers, plan->attributes, plan->needed);
}

/* The plan that was packed; its expressions are taken from their list. */
HxScanPlan *
hx_scan_plan_unpack(List *packed, List *expressions)
{
	HxScanPlan *plan = palloc0(sizeof(HxScanPlan));
	List	   *numbers = list_nth(packed, PLAN_NUMBERS);
	int			expression = 0;
	ListCell   *cell;

	foreach(cell, list_nth(packed, PLAN_CONDITIONS))
	{
		HxCondition *condition = palloc0(sizeof(HxCondition));
		List	   *texts = list_nth(lfirst(cell), CONDITION_TEXTS);
		List	   *values = list_nth(lfirst(cell), CONDITION_NUMBERS);

		condition->parameter = text_of(texts, 0);
		condition->constant = text_of(texts, 1);
		condition->kind = list_nth_int(values, 0);
		condition->attno = list_nth_int(values, 1);
		condition->array = list_nth_int(values, 2);
		condition->several = list_nth_int(values, 3);
		condition->split = list_nth_int(values, 4);
		condition->exact = list_nth_int(values, 5);
		if (list_nth_int(values, 6))
			condition->value = list_nth(expressions, expression++);
		plan->conditions = lappend(plan->conditions, condition);
	}
	plan->order = list_nth_int(numbers, 0);
	plan->descending = list_nth_int(numbers, 1);
	plan->count = list_nth_int(numbers, 2);
	plan->all = list_nth_int(numbers, 3);
	plan->has_limit = list_nth_int(numbers, 4);
	plan->has_offset = list_nth_int(numbers, 5);
	plan->requests = list_nth_int(numbers, 6);
	plan->batch = list_nth_int(numbers, 7);
	plan->pages = list_nth_int(numbers, 8);
	plan->attributes = list_nth(packed, PLAN_ATTRIBUTES);
	plan->needed = list_nth(packed, PLAN_NEEDED);
	return plan;
}
