/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  What EXPLAIN says of a foreign scan: the remote request, and what it
 *	  costs in requests.
 *
 * A value that the plan knows stands in the request as it will be sent, one
 * that only the execution knows as the expression that gives it, in braces.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "compat.h"
#include "connector/options.h"
#include "fdw/scan.h"

/* Elements of an array that are shown one by one. */
#define ELEMENTS_SHOWN	5

/*
 * A value in a request: as it is sent, or the expression that will give it;
 * without one, it is the keys of a batched join.
 */
static char *
show_value(Expr *value, List *context)
{
	if (value == NULL)
		return pstrdup("{keys}");
	if (IsA(value, Const) && !((Const *) value)->constisnull)
	{
		Const	   *known = (Const *) value;
		Oid			output;
		bool		is_varlena;

		getTypeOutputInfo(known->consttype, &output, &is_varlena);
		return OidOutputFunctionCall(output, known->constvalue);
	}
	return psprintf("{%s}", deparse_expression((Node *) value, context, false, false));
}

/* The parameters of one condition. */
static void
show_condition(StringInfo request, const HxCondition *condition, List *context)
{
	char		mark = strchr(request->data, '?') ? '&' : '?';
	Const	   *known = (Const *) condition->value;

	if (condition->kind >= HX_CONDITION_FROM && known != NULL && IsA(known, Const) && !known->constisnull)
	{
		char	   *bound = hx_scan_bound_text(condition->kind, known->consttype, known->constvalue);

		if (bound != NULL)
			appendStringInfo(request, "%c%s=%s", mark, condition->parameter, bound);
	}
	else if (condition->constant != NULL)
		appendStringInfo(request, "%c%s=%s", mark, condition->parameter, condition->constant);
	else if (!condition->array || known == NULL || !IsA(known, Const) || known->constisnull)
		appendStringInfo(request, "%c%s=%s", mark, condition->parameter, show_value(condition->value, context));
	else
	{
		ArrayType  *array = DatumGetArrayTypeP(known->constvalue);
		int			count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

		if (count > ELEMENTS_SHOWN || !condition->several)
			appendStringInfo(request, "%c%s={%d values}", mark, condition->parameter, count);
		else
		{
			Oid			output;
			bool		is_varlena;
			Datum	   *values;
			bool	   *nulls;
			int16		len;
			bool		byval;
			char		align;

			getTypeOutputInfo(ARR_ELEMTYPE(array), &output, &is_varlena);
			get_typlenbyvalalign(ARR_ELEMTYPE(array), &len, &byval, &align);
			deconstruct_array(array, ARR_ELEMTYPE(array), len, byval, align, &values, &nulls, &count);
			for (int i = 0; i < count; i++)
				if (!nulls[i])
				{
					appendStringInfo(request, "%c%s=%s", mark, condition->parameter,
									 OidOutputFunctionCall(output, values[i]));
					mark = '&';
				}
		}
	}
}

/* The value that stands in the path, or NULL where none does. */
static char *
path_value(const HxScanPlan *plan, HxConditionKind kind, List *context)
{
	ListCell   *cell;

	foreach(cell, plan->conditions)
	{
		HxCondition *condition = lfirst(cell);

		if (condition->kind == kind)
			return condition->array && condition->value ? psprintf("{%s}", deparse_expression((Node *) condition->value, context, false, false))
				: show_value(condition->value, context);
	}
	return NULL;
}

static void
add_pairs(StringInfo request, List *pairs)
{
	ListCell   *cell;

	foreach(cell, pairs)
	{
		HxPair	   *pair = lfirst(cell);

		appendStringInfo(request, "%c%s=%s", strchr(request->data, '?') ? '&' : '?', pair->name, pair->value);
	}
}

/* The request of a scan: the first of them, where there are several. */
static char *
show_request(HxScan *scan, List *context)
{
	const HxScanPlan *plan = scan->plan;
	const HxResource *resource = scan->table->resource;
	char	   *one = path_value(plan, HX_CONDITION_ONE, context);
	char	   *parent;
	StringInfoData request;
	ListCell   *cell;

	initStringInfo(&request);
	appendStringInfoString(&request, plan->count ? "HEAD " : "GET ");
	if (one != NULL)
	{
		appendStringInfoString(&request, hx_table_fill_path(resource->one, one));
		return request.data;
	}
	parent = path_value(plan, HX_CONDITION_PARENT, context);
	appendStringInfoString(&request, parent ? hx_table_fill_path(resource->path, parent) : resource->path);
	add_pairs(&request, scan->table->query);
	foreach(cell, plan->conditions)
		if (((HxCondition *) lfirst(cell))->parameter != NULL)
			show_condition(&request, lfirst(cell), context);
	if (!plan->count)
	{
		HxColumnOrder *order = plan->order >= 0 ? list_nth(resource->orders, plan->order) : NULL;

		add_pairs(&request, order == NULL ? resource->order : plan->descending ? order->descending : order->ascending);
	}
	return request.data;
}

/* Rows asked for by a pushed limit and offset. */
static void
explain_limit(HxScan *scan, ForeignScan *plan, List *context, ExplainState *es)
{
	int			n = list_length(plan->fdw_exprs);

	if (scan->plan->has_offset)
		ExplainPropertyText("Remote Offset", show_value(list_nth(plan->fdw_exprs, --n), context), es);
	if (scan->plan->has_limit)
		ExplainPropertyText("Remote Limit", show_value(list_nth(plan->fdw_exprs, --n), context), es);
}

static void
explain_costs(HxScan *scan, ExplainState *es)
{
	HxReadStats spent = scan->spent;

	if (scan->reader != NULL)
		hx_reader_add_stats(&spent, hx_reader_stats(scan->reader));
	ExplainPropertyInteger("Requests", NULL, spent.requests, es);
	ExplainPropertyInteger("Pages", NULL, spent.pages, es);
	ExplainPropertyInteger("Bytes", NULL, spent.bytes, es);
	ExplainPropertyInteger("Retries", NULL, spent.retries, es);
	if (es->timing)
		ExplainPropertyFloat("Throttled", "ms", spent.throttled_us / 1000.0, 3, es);
}

static void
hxExplainForeignScan(ForeignScanState *node, ExplainState *es)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	HxScan	   *scan = node->fdw_state;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, (Plan *) plan, NIL);
	const char *rate = hx_option_get(scan->table->server->options, "rate_limit");

	if (plan->scan.scanrelid == 0)
		ExplainPropertyText("Relations", scan->table->name, es);
	ExplainPropertyText("Remote Request", show_request(scan, context), es);
	explain_limit(scan, plan, context, es);
	if (rate == NULL)
		rate = hx_json_text(scan->table->manifest, "limits.rate");
	if (es->costs)
		ExplainPropertyInteger("Expected Requests", NULL, (int64) scan->plan->requests, es);
	ExplainPropertyText("Quota", rate ? rate : "none", es);
	if (es->analyze)
		explain_costs(scan, es);
}

/* Enters the routines of this file. */
void
hx_explain_routines(FdwRoutine *routine)
{
	routine->ExplainForeignScan = hxExplainForeignScan;
}
