/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Reads a foreign table as its plan says.
 *
 * A pass evaluates the values of the conditions, makes of them the lists that
 * are to be read (one, or several where many keys are looked for), and gives
 * their records as rows as they arrive.  All that a pass needs lives in its
 * own memory context, so that a rescan is a new pass.
 *
 * A scan that is read again with nothing changed of what is asked for, as the
 * inner side of a plain nested loop is, keeps its rows, from the second pass on
 * if nobody said before that there would be one, and gives them from there:
 * memory and disk cost less than requests.
 *
 * An order the API promised is looked at as the rows come: a limit over a
 * wrong order would be a wrong answer that nobody sees.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/execAsync.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/settings.h"
#include "compat.h"
#include "fdw/scan.h"

#define WAIT_MS				100		/* of an asynchronous scan, before others get their turn */
#define LONGEST_VALUE		1000	/* bytes of a value in the address of a request */

/* The budget of a query: known by the memory of its executor, and gone with that. */
typedef struct QueryBudget
{
	HxReadBudget budget;
	MemoryContext query;
	MemoryContextCallback callback;
	struct QueryBudget *next;
} QueryBudget;

static QueryBudget *budgets = NULL;	/* of the queries that run now, innermost first */

/* A value that is looked for, and the part of the reading that looks for it. */
typedef struct PartValue
{
	char		text[NAMEDATALEN * 2];
	int			part;
} PartValue;

static void
forget_budget(void *arg)
{
	QueryBudget **link = &budgets;

	while (*link != arg)
		link = &(*link)->next;
	*link = (*link)->next;
}

/* The budget that all scans of a query share. */
static HxReadBudget *
budget_of(EState *estate)
{
	QueryBudget *budget;

	for (budget = budgets; budget != NULL; budget = budget->next)
		if (budget->query == estate->es_query_cxt)
			return &budget->budget;
	budget = MemoryContextAllocZero(estate->es_query_cxt, sizeof(QueryBudget));
	budget->query = estate->es_query_cxt;
	budget->budget.most = hx_guc_max_requests_per_query;
	budget->next = budgets;
	budget->callback.func = forget_budget;
	budget->callback.arg = budget;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &budget->callback);
	budgets = budget;
	return &budget->budget;
}

/* The foreign table a scan reads, also one that stands for more than the table. */
Oid
hx_scan_relation(ForeignScanState *node)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Index		rti = plan->scan.scanrelid > 0 ? plan->scan.scanrelid : bms_next_member(plan->fs_relids, -1);

	return exec_rt_fetch(rti, node->ss.ps.state)->relid;
}

/* The shape of the scan's tuples, by the attributes they are made of. */
static HxRecordShape *
make_shape(HxScan *scan, TupleDesc desc)
{
	HxTable    *table = scan->table;
	HxColumn  **columns = table->columns;
	Bitmapset  *needed = bms_make_singleton(desc->natts);	/* none of them is not all of them */
	bool		gets_one = false;
	HxRecordShape *shape;
	ListCell   *cell;

	if (scan->plan->attributes != NIL)
	{
		columns = palloc0(sizeof(HxColumn *) * desc->natts);
		foreach(cell, scan->plan->attributes)
		{
			int			i = foreach_current_index(cell);

			columns[i] = table->columns[lfirst_int(cell) - 1];
			needed = bms_add_member(needed, i);
		}
	}
	else
		foreach(cell, scan->plan->needed)
			needed = bms_add_member(needed, lfirst_int(cell) - 1);
	shape = hx_record_shape(table->resource, columns, desc, needed, table->null_on_error);
	foreach(cell, scan->plan->conditions)
		gets_one |= ((HxCondition *) lfirst(cell))->kind == HX_CONDITION_ONE;
	if (table->drops_deleted || (gets_one && !table->include_deleted && table->resource->deleted != NULL))
		hx_record_drop(shape, table->resource->deleted);
	return shape;
}

/* The column of the scan's tuple that shows an attribute of the table; -1 where none does. */
static int
position_of(const HxScan *scan, AttrNumber attno)
{
	ListCell   *cell;

	if (scan->plan->attributes == NIL)
		return attno - 1;
	foreach(cell, scan->plan->attributes)
		if (lfirst_int(cell) == attno)
			return foreach_current_index(cell);
	return -1;
}

/* Collects the parameters that expressions depend on. */
static bool
collect_params(Node *node, void *params)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
		*(Bitmapset **) params = bms_add_member(*(Bitmapset **) params, ((Param *) node)->paramid);
	return expression_tree_walker(node, collect_params, params);
}

/* From now on the rows of the pass are kept, for the next one. */
static void
keep_rows(ForeignScanState *node)
{
	HxScan	   *scan = node->fdw_state;
	MemoryContext old = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);

	scan->store = tuplestore_begin_heap(false, false, work_mem);
	if (scan->stored_row == NULL)
		scan->stored_row = ExecInitExtraTupleSlot(node->ss.ps.state, node->ss.ss_ScanTupleSlot->tts_tupleDescriptor,
												  &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(old);
}

static void
hxBeginForeignScan(ForeignScanState *node, int flags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Oid			user = hx_scan_check_as_user(node);
	HxScan	   *scan = palloc0(sizeof(HxScan));

	scan->table = hx_table_open(hx_scan_relation(node));
	scan->plan = hx_scan_plan_unpack(plan->fdw_private, plan->fdw_exprs);
	scan->values = ExecInitExprList(plan->fdw_exprs, (PlanState *) node);
	(void) collect_params((Node *) plan->fdw_exprs, &scan->params);
	node->fdw_state = scan;
	if (flags & EXEC_FLAG_EXPLAIN_ONLY)
		return;

	scan->account = hx_account_open(scan->table->server->servername, OidIsValid(user) ? user : GetUserId(), true);
	scan->account->page_size = scan->table->page_size;
	scan->budget = budget_of(node->ss.ps.state);
	scan->pass = AllocSetContextCreate(CurrentMemoryContext, "hubex scan", ALLOCSET_DEFAULT_SIZES);
	scan->order_column = -1;
	if (scan->plan->count)
		return;
	scan->shape = make_shape(scan, node->ss.ss_ScanTupleSlot->tts_tupleDescriptor);
	if (flags & EXEC_FLAG_REWIND)
		keep_rows(node);
	if (scan->plan->order >= 0)
	{
		HxColumnOrder *order = list_nth(scan->table->resource->orders, scan->plan->order);

		scan->order_column = position_of(scan, hx_table_attribute(scan->table, order->column));
	}
}

/* A time in a request, that of a bound widened by a second; NULL where it would say nothing. */
char *
hx_scan_bound_text(HxConditionKind kind, Oid type, Datum value)
{
	TimestampTz time;
	int			overflow = 0;
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (type == DATEOID)
		time = date2timestamptz_opt_overflow(DatumGetDateADT(value), &overflow);
	else if (type == TIMESTAMPOID)
		time = timestamp2timestamptz_opt_overflow(DatumGetTimestamp(value), &overflow);
	else
		time = DatumGetTimestampTz(value);
	if (overflow != 0 || TIMESTAMP_NOT_FINITE(time))
		return NULL;
	if (kind == HX_CONDITION_FROM)
		time -= USECS_PER_SEC;
	else if (kind == HX_CONDITION_TILL)
		time += USECS_PER_SEC;
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0 || tm.tm_year < 1 || tm.tm_year > 9999)
		return NULL;
	EncodeDateTime(&tm, kind == HX_CONDITION_EQUAL ? fsec : 0, false, 0, NULL, USE_XSD_DATES, text);
	return pstrdup(text);
}

/*
 * A value as it stands in a request; NULL for one that no record can have.
 * Ids of the API are 32 bits wide, and it answers others with an error.
 */
char *
hx_scan_value_text(Oid type, Datum value)
{
	int64		number;

	switch (type)
	{
		case INT2OID:
			return psprintf("%d", DatumGetInt16(value));
		case INT4OID:
			return psprintf("%d", DatumGetInt32(value));
		case INT8OID:
			number = DatumGetInt64(value);
			return number < PG_INT32_MIN || number > PG_INT32_MAX ? NULL : psprintf(INT64_FORMAT, number);
		case BOOLOID:
			return pstrdup(DatumGetBool(value) ? "true" : "false");
		case UUIDOID:
			return DatumGetCString(DirectFunctionCall1(uuid_out, value));
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
		case DATEOID:
			return hx_scan_bound_text(HX_CONDITION_EQUAL, type, value);
		default:
			return TextDatumGetCString(value);
	}
}

static int
compare_texts(const ListCell *a, const ListCell *b)
{
	const char *x = lfirst(a);
	const char *y = lfirst(b);
	size_t		nx = strlen(x);
	size_t		ny = strlen(y);

	/* numbers by their value, and everything without repetitions side by side */
	return nx != ny ? (nx < ny ? -1 : 1) : strcmp(x, y);
}

/* Adds a value's text, unless no record can have it. */
static List *
add_text(List *texts, Oid type, Datum value)
{
	char	   *text = hx_scan_value_text(type, value);

	return text ? lappend(texts, text) : texts;
}

/* The different values of a condition as texts; none means that nothing matches. */
static List *
condition_texts(HxScan *scan, ExprContext *econtext, const HxCondition *condition, int *expression)
{
	List	   *texts = NIL;
	Oid			type;
	Datum		value;
	bool		isnull;

	if (condition->constant != NULL)
		return list_make1(pstrdup(condition->constant));
	if (scan->plan->batch >= 0 && list_nth(scan->plan->conditions, scan->plan->batch) == condition)
	{
		for (int i = 0; i < scan->nkeys; i++)
			texts = add_text(texts, scan->key_type, scan->keys[i]);
	}
	else
	{
		type = exprType((Node *) condition->value);
		value = ExecEvalExpr(list_nth(scan->values, (*expression)++), econtext, &isnull);
		if (isnull)
			return NIL;
		if (condition->kind == HX_CONDITION_FROM || condition->kind == HX_CONDITION_TILL)
		{
			char	   *text = hx_scan_bound_text(condition->kind, type, value);

			return list_make1(text ? text : pstrdup(""));
		}
		if (!condition->array)
			return add_text(NIL, type, value);
		else
		{
			ArrayType  *array = DatumGetArrayTypeP(value);
			Oid			element = ARR_ELEMTYPE(array);
			Datum	   *values;
			bool	   *nulls;
			int			count;
			int16		len;
			bool		byval;
			char		align;

			get_typlenbyvalalign(element, &len, &byval, &align);
			deconstruct_array(array, element, len, byval, align, &values, &nulls, &count);
			for (int i = 0; i < count; i++)
				if (!nulls[i])
					texts = add_text(texts, element, values[i]);
		}
	}
	list_sort(texts, compare_texts);
	for (int i = list_length(texts) - 1; i > 0; i--)
		if (strcmp(list_nth(texts, i), list_nth(texts, i - 1)) == 0)
			texts = list_delete_nth_cell(texts, i);
	return texts;
}

/* Notes which part looks for a value, for conditions of which the API may give too much. */
static void
note_part(HxScan *scan, const char *text, int part)
{
	PartValue	key = {.part = 0};
	PartValue  *entry;
	bool		found;

	if (scan->part_values == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(key.text),.entrysize = sizeof(PartValue),.hcxt = scan->pass};

		scan->part_values = hash_create("hubex parts", 256, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	strlcpy(key.text, text, sizeof(key.text));
	entry = hash_search(scan->part_values, key.text, HASH_ENTER, &found);

	/* two values that begin alike: whichever part it came with */
	entry->part = found ? -1 : part;
}

/* How many values of a condition one request can ask for. */
static int
values_a_request(const HxCondition *condition)
{
	return condition->kind == HX_CONDITION_EQUAL && condition->several ? HX_KEYS_A_REQUEST : 1;
}

/* The parts of a pass: one list or many, by the condition that is shared out among them. */
static List *
make_parts(HxScan *scan, ExprContext *econtext)
{
	const HxResource *resource = scan->table->resource;
	List	   *query = list_copy(scan->table->query);
	List	   *parts = NIL;
	const HxCondition *split = NULL;
	List	   *split_texts = NIL;
	const char *parent = NULL;
	const char *path = resource->path;
	int			expression = 0;
	int			chunk;
	ListCell   *cell;

	foreach(cell, scan->plan->conditions)
	{
		HxCondition *condition = lfirst(cell);
		List	   *texts = condition_texts(scan, econtext, condition, &expression);
		ListCell   *text;

		if (texts == NIL)
			return NIL;
		if (condition->kind == HX_CONDITION_PARENT && !condition->split)
		{
			parent = linitial(texts);
			path = hx_table_fill_path(resource->path, hx_http_escape(parent));
			continue;
		}

		/* More requests than the list has pages: rather the list, of which all is looked at. */
		if (condition->array && !condition->exact && condition->kind != HX_CONDITION_PARENT &&
			list_length(texts) > scan->plan->pages * values_a_request(condition))
			continue;
		if (condition->split || condition->kind == HX_CONDITION_ONE)
		{
			split = condition;
			split_texts = texts;
			continue;
		}

		/* What cannot be said in one request is only looked at here. */
		if (list_length(texts) > values_a_request(condition))
			continue;
		foreach(text, texts)
		{
			const char *value = lfirst(text);

			if (*value == '\0' ? condition->exact : condition->exact || strlen(value) <= LONGEST_VALUE)
				query = lappend(query, hx_http_pair(condition->parameter, value));
		}
	}

	if (split == NULL)
	{
		HxReadPart *part = palloc0(sizeof(HxReadPart));

		if (resource->parent != NULL && parent == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
					 errmsg("foreign table \"%s\" can be read only for a given \"%s\"", scan->table->name,
							resource->parent),
					 errdetail("The remote API has this list for one parent at a time."),
					 errhint("Add a condition like %s = 5, or join the table by it.", resource->parent)));
		part->path = path;
		part->parent = parent;
		part->query = query;
		return list_make1(part);
	}

	chunk = values_a_request(split);
	for (int from = 0; from < list_length(split_texts); from += chunk)
	{
		HxReadPart *part = palloc0(sizeof(HxReadPart));

		part->path = path;
		part->parent = parent;
		part->query = list_copy(query);
		for (int i = from; i < Min(from + chunk, list_length(split_texts)); i++)
		{
			const char *text = list_nth(split_texts, i);

			if (split->kind == HX_CONDITION_ONE)
			{
				part->path = hx_table_fill_path(resource->one, hx_http_escape(text));
				part->one = text;
				part->query = NIL;
			}
			else if (split->kind == HX_CONDITION_PARENT)
			{
				part->path = hx_table_fill_path(resource->path, hx_http_escape(text));
				part->parent = text;
			}
			else if (split->exact || strlen(text) <= LONGEST_VALUE)
				part->query = lappend(part->query, hx_http_pair(split->parameter, text));
			if (!split->exact && list_length(split_texts) > chunk)
				note_part(scan, text, list_length(parts));
		}
		parts = lappend(parts, part);
	}
	scan->split = split;
	return parts;
}

/* A limit or an offset: a number of rows, -1 where it is NULL. */
static int64
rows_of(HxScan *scan, ExprContext *econtext, int expression, bool is_limit)
{
	bool		isnull;
	int64		rows = DatumGetInt64(ExecEvalExpr(list_nth(scan->values, expression), econtext, &isnull));

	if (isnull)
		return -1;
	if (rows < 0)
		ereport(ERROR,
				(errcode(is_limit ? ERRCODE_INVALID_ROW_COUNT_IN_LIMIT_CLAUSE :
						 ERRCODE_INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE),
				 errmsg(is_limit ? "LIMIT must not be negative" : "OFFSET must not be negative")));
	return rows;
}

/* The values of "@filter" columns are what this pass asks for, or what their options say. */
static void
show_filters(HxScan *scan, const List *parts)
{
	const HxReadPart *part = linitial(parts);
	ListCell   *cell;

	for (int i = 0; i < scan->table->natts; i++)
	{
		const HxColumn *column = scan->table->columns[i];

		if (column != NULL && column->constant != NULL && position_of(scan, i + 1) >= 0)
			hx_record_set_filter(scan->shape, position_of(scan, i + 1) + 1, column->constant);
	}
	foreach(cell, scan->plan->conditions)
	{
		HxCondition *condition = lfirst(cell);
		ListCell   *pair;

		if (condition->kind != HX_CONDITION_EQUAL || scan->table->columns[condition->attno - 1] == NULL ||
			strcmp(scan->table->columns[condition->attno - 1]->path, HX_PATH_FILTER) != 0)
			continue;
		foreach(pair, part->query)
			if (strcmp(((HxPair *) lfirst(pair))->name, condition->parameter) == 0 &&
				position_of(scan, condition->attno) >= 0)
				hx_record_set_filter(scan->shape, position_of(scan, condition->attno) + 1,
									 ((HxPair *) lfirst(pair))->value);
	}
}

/* Begins a pass; nothing is sent yet.  False where nothing can match. */
static bool
begin_pass(ForeignScanState *node, HxReadOrder *order)
{
	HxScan	   *scan = node->fdw_state;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	int			expressions = list_length(scan->values);

	memset(order, 0, sizeof(HxReadOrder));
	scan->part_values = NULL;
	scan->split = NULL;
	order->parts = make_parts(scan, econtext);
	order->account = scan->account;
	order->resource = scan->table->resource;
	order->most = -1;
	order->all = scan->plan->all;
	order->priority = HX_PRIORITY_INTERACTIVE;
	order->budget = scan->budget;
	if (scan->plan->has_offset)
		order->skip = rows_of(scan, econtext, --expressions, false);
	if (scan->plan->has_limit)
		order->most = rows_of(scan, econtext, --expressions, true);
	order->skip = Max(order->skip, 0);
	if (scan->plan->order >= 0)
	{
		HxColumnOrder *offered = list_nth(scan->table->resource->orders, scan->plan->order);

		order->order = scan->plan->descending ? offered->descending : offered->ascending;
	}
	scan->has_last = false;
	scan->passes++;
	if (order->parts == NIL || order->most == 0)
		return false;
	if (scan->shape != NULL)
		show_filters(scan, order->parts);
	return true;
}

/* Did a record come with the part that looks for it?  With others it comes by their excess. */
static bool
came_with_its_part(const HxScan *scan, const TupleTableSlot *slot, int part)
{
	int			column;
	char	   *text;
	char		key[sizeof(((PartValue *) 0)->text)];
	PartValue  *entry;

	if (scan->part_values == NULL)
		return true;
	column = position_of(scan, scan->split->attno);
	if (column < 0 || slot->tts_isnull[column])
		return false;
	text = hx_scan_value_text(scan->table->types[scan->split->attno - 1], slot->tts_values[column]);
	if (text == NULL)
		return false;
	strlcpy(key, text, sizeof(key));
	entry = hash_search(scan->part_values, key, HASH_FIND, NULL);
	return entry != NULL && (entry->part < 0 || entry->part == part);
}

/* Refuses rows that do not come in the order that was asked for. */
static void
check_order(HxScan *scan, const TupleTableSlot *slot)
{
	TimestampTz time = DatumGetTimestampTz(slot->tts_values[scan->order_column]);

	if (slot->tts_isnull[scan->order_column] ||
		(scan->has_last && (scan->plan->descending ? time > scan->last : time < scan->last)))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_REPLY_HANDLE),
				 errmsg("server \"%s\" did not sort resource \"%s\" as it was asked to", scan->table->server->servername,
						scan->table->resource->name),
				 errhint("SET hubex.pushdown = off lets PostgreSQL sort.")));
	scan->last = time;
	scan->has_last = true;
}

/* Gives the next row into the slot; may not wait where the scan is asynchronous. */
static HxReadState
next_row(ForeignScanState *node, TupleTableSlot *slot)
{
	HxScan	   *scan = node->fdw_state;

	if (scan->reader == NULL && !scan->ended)
	{
		MemoryContext old = MemoryContextSwitchTo(scan->pass);
		HxReadOrder order;

		if (begin_pass(node, &order))
			scan->reader = hx_reader_begin(&order);
		else
			scan->ended = true;
		MemoryContextSwitchTo(old);
	}
	while (!scan->ended)
	{
		HxRecord	record;
		HxReadState state = hx_reader_next(scan->reader, !scan->must_not_wait, &record);

		if (state == HX_READ_WAIT)
			return state;
		if (state == HX_READ_END)
		{
			scan->ended = true;
			break;
		}
		if (!hx_record_values(scan->shape, &record, slot->tts_values, slot->tts_isnull) ||
			!came_with_its_part(scan, slot, record.part))
			continue;
		if (scan->order_column >= 0)
			check_order(scan, slot);
		ExecStoreVirtualTuple(slot);
		if (scan->store != NULL)
			tuplestore_puttupleslot(scan->store, slot);
		return HX_READ_RECORD;
	}
	scan->stored = scan->store != NULL;
	return HX_READ_END;
}

/* The count, as the one row there is: each column of it is the same number. */
static void
count_row(ForeignScanState *node, TupleTableSlot *slot)
{
	HxScan	   *scan = node->fdw_state;
	MemoryContext old = MemoryContextSwitchTo(scan->pass);
	HxReadOrder order;
	int64		count = 0;

	if (begin_pass(node, &order))
		count = hx_reader_count(&order, &scan->spent);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_values[i] = Int64GetDatum(count);
		slot->tts_isnull[i] = false;
	}
	MemoryContextSwitchTo(old);
	ExecStoreVirtualTuple(slot);
	scan->ended = true;
}

/* Makes a tuple of a row: system columns are those of one that nobody wrote. */
static void
give_header(TupleTableSlot *slot)
{
	HeapTupleHeader header = ExecFetchSlotHeapTuple(slot, true, NULL)->t_data;

	HeapTupleHeaderSetXmin(header, InvalidTransactionId);
	HeapTupleHeaderSetXmax(header, InvalidTransactionId);
	HeapTupleHeaderSetCmin(header, InvalidTransactionId);
}

static TupleTableSlot *
hxIterateForeignScan(ForeignScanState *node)
{
	HxScan	   *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	ExecClearTuple(slot);
	scan->waits = false;
	if (scan->stored)
	{
		/* what comes from disk stays in the slot until the next, longer than one row's memory */
		MemoryContext old = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
		bool		found = tuplestore_gettupleslot(scan->store, true, false, scan->stored_row);

		MemoryContextSwitchTo(old);
		if (found)
			ExecCopySlot(slot, scan->stored_row);
	}
	else if (scan->plan->count)
	{
		if (!scan->ended)
			count_row(node, slot);
	}
	else
		scan->waits = next_row(node, slot) == HX_READ_WAIT;

	if (((ForeignScan *) node->ss.ps.plan)->fsSystemCol && !TupIsNull(slot))
		give_header(slot);
	return slot;
}

/* Adds what a reader cost to what the scan has cost, and ends it. */
static void
end_pass(HxScan *scan)
{
	if (scan->reader != NULL)
	{
		hx_reader_add_stats(&scan->spent, hx_reader_stats(scan->reader));
		hx_reader_end(scan->reader);
	}
	scan->reader = NULL;
	scan->ended = false;
	MemoryContextReset(scan->pass);
}

static void
drop_store(HxScan *scan)
{
	if (scan->store != NULL)
		tuplestore_end(scan->store);
	scan->store = NULL;
	scan->stored = false;
}

static void
hxReScanForeignScan(ForeignScanState *node)
{
	HxScan	   *scan = node->fdw_state;
	bool		same = !bms_overlap(node->ss.ps.chgParam, scan->params) && !scan->new_keys;

	scan->new_keys = false;
	if (same && scan->stored)
	{
		tuplestore_rescan(scan->store);
		return;
	}
	if (scan->passes == 0 && scan->reader == NULL && !scan->ended)
		return;
	end_pass(scan);
	drop_store(scan);
	if (same && !scan->plan->count)
		keep_rows(node);
}

/* The values of the condition that a batched join gives, from the next rescan on. */
void
hx_scan_set_keys(ForeignScanState *node, int nkeys, Datum *keys, Oid type)
{
	HxScan	   *scan = node->fdw_state;

	scan->nkeys = nkeys;
	scan->keys = keys;
	scan->key_type = type;
	scan->new_keys = true;
}

static void
hxEndForeignScan(ForeignScanState *node)
{
	HxScan	   *scan = node->fdw_state;

	if (scan == NULL || scan->pass == NULL)
		return;
	end_pass(scan);
	drop_store(scan);
}

/* Tries to give an asynchronous Append its next tuple, without waiting. */
static void
try_async(AsyncRequest *areq)
{
	ForeignScanState *node = (ForeignScanState *) areq->requestee;
	HxScan	   *scan = node->fdw_state;
	TupleTableSlot *result;

	scan->must_not_wait = true;
	result = areq->requestee->ExecProcNodeReal(areq->requestee);
	scan->must_not_wait = false;
	if (TupIsNull(result) && scan->waits)
		ExecAsyncRequestPending(areq);
	else
		ExecAsyncRequestDone(areq, result);
}

static void
hxForeignAsyncRequest(AsyncRequest *areq)
{
	try_async(areq);
}

/*
 * All scans of this process share their connections' wait set, so the wait
 * for one of them drives all.  No event is given to the Append: it asks again.
 */
static void
hxForeignAsyncConfigureWait(AsyncRequest *areq)
{
	areq->callback_pending = false;
	try_async(areq);
	if (areq->callback_pending)
	{
		hx_reader_wait(WAIT_MS);
		areq->callback_pending = false;
		try_async(areq);
	}
	if (areq->callback_pending)
		return;
	ExecAsyncResponse(areq);
	if (areq->requestee->instrument)
		InstrUpdateTupleCount(areq->requestee->instrument, TupIsNull(areq->result) ? 0.0 : 1.0);
}

static void
hxForeignAsyncNotify(AsyncRequest *areq)
{
	try_async(areq);
}

/* Enters the routines of this file. */
void
hx_scan_routines(FdwRoutine *routine)
{
	routine->BeginForeignScan = hxBeginForeignScan;
	routine->IterateForeignScan = hxIterateForeignScan;
	routine->ReScanForeignScan = hxReScanForeignScan;
	routine->EndForeignScan = hxEndForeignScan;
	routine->ForeignAsyncRequest = hxForeignAsyncRequest;
	routine->ForeignAsyncConfigureWait = hxForeignAsyncConfigureWait;
	routine->ForeignAsyncNotify = hxForeignAsyncNotify;
}
