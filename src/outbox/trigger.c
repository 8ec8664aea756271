/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  hubex_task_trigger: rows of any table become requests of the outbox.
 *
 * The trigger's arguments are a server (which may be left out where a call
 * may leave it out) and a template; {column} stands for the row's value, with
 * its type where it stands alone.  The request is put
 * in by the role that changes the row, in its transaction: it is sent if and
 * only if the row is committed.
 *
 * Server, template and account are read once per statement, not per row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(hubex_task_trigger);

/* What a trigger keeps for the length of a statement. */
typedef struct TriggerState
{
	HxAccount  *account;
	Jsonb	   *tmpl;
	MemoryContext row_context;
} TriggerState;

typedef struct Row
{
	HeapTuple	tuple;
	TupleDesc	desc;
	const char *relation;
} Row;

/* The value of a column for {column}; an unknown one is an error. */
static JsonbValue *
column_value(const char *name, bool alone, void *arg)
{
	Row		   *row = arg;
	StringInfoData names;

	for (int i = 0; i < row->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(row->desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
		{
			bool		isnull;
			Datum		datum = heap_getattr(row->tuple, i + 1, row->desc, &isnull);

			return hx_convert_datum(datum, isnull, attribute->atttypid);
		}
	}

	initStringInfo(&names);
	for (int i = 0; i < row->desc->natts; i++)
		if (!TupleDescAttr(row->desc, i)->attisdropped)
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", NameStr(TupleDescAttr(row->desc, i)->attname));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation \"%s\" does not exist", name, row->relation),
			 errdetail("The trigger's template names it."),
			 errhint("The columns are: %s. Write {{ for a brace that is meant as one.", names.data)));
}

static void
refuse_use(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("hubex_task_trigger is used in a way it does not support"),
			 errdetail("%s", detail),
			 errhint("CREATE TRIGGER ... AFTER INSERT ON ... FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('server', '{\"task_type_id\": 1, \"notes\": \"{column}\"}').")));
}

static void
add_template_context(void *arg)
{
	errcontext("template of trigger \"%s\"", (char *) arg);
}

/* Reads the trigger's arguments, once per statement. */
static TriggerState *
trigger_state(FunctionCallInfo fcinfo, TriggerData *trigger)
{
	TriggerState *state = fcinfo->flinfo->fn_extra;
	int			nargs = trigger->tg_trigger->tgnargs;
	char	  **args = trigger->tg_trigger->tgargs;
	MemoryContext old;
	ErrorContextCallback context = {.callback = add_template_context,.arg = trigger->tg_trigger->tgname,
	.previous = error_context_stack};

	if (state != NULL)
		return state;
	if (nargs != 1 && nargs != 2)
		refuse_use("It takes the server and the template, or the template alone.");

	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	state = palloc0(sizeof(TriggerState));
	state->account = hx_account_open(nargs == 2 ? args[0] : NULL, GetUserId(), false);
	error_context_stack = &context;
	state->tmpl = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(args[nargs - 1])));
	error_context_stack = context.previous;
	if (!JB_ROOT_IS_OBJECT(state->tmpl))
		refuse_use("The template is not a JSON object.");
	state->row_context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "hubex trigger row", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	fcinfo->flinfo->fn_extra = state;
	return state;
}

/*
 * hubex_task_trigger(server, template): AFTER INSERT FOR EACH ROW; enqueues
 * POST /WORK/Tasks for the row.
 */
Datum
hubex_task_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HxNewRequest request = {0};
	TriggerState *state;
	MemoryContext old;
	Row			row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		refuse_use("It was not called as a trigger.");
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		refuse_use("It must be fired after the event, for each row.");
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		refuse_use("It must be fired by INSERT.");

	state = trigger_state(fcinfo, trigger);
	row.tuple = trigger->tg_trigtuple;
	row.desc = RelationGetDescr(trigger->tg_relation);
	row.relation = RelationGetRelationName(trigger->tg_relation);

	old = MemoryContextSwitchTo(state->row_context);
	(void) hx_outbox_enqueue_create(state->account, "tasks", hx_json_expand(state->tmpl, column_value, &row), &request);
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->row_context);
	PG_RETURN_POINTER(NULL);
}
