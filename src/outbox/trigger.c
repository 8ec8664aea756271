/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  hubex_task_trigger, hubex_create_trigger: rows of any table become
 *	  requests of the outbox.
 *
 * The trigger's arguments are a server (which may be left out where a call
 * may leave it out), the resource unless it is tasks, a template and options.
 * {column} in the template stands for the row's value, with its type where it
 * stands alone.  The request is put in by the role that changes the row, in
 * its transaction: it is sent if and only if the row is committed.
 *
 * How little is done for a row is what matters here: what the arguments say is
 * kept by trigger_plan.c, what the columns are by row_template.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "outbox/trigger.h"

PG_FUNCTION_INFO_V1(hubex_task_trigger);
PG_FUNCTION_INFO_V1(hubex_create_trigger);

/* What a trigger keeps for the length of a statement. */
typedef struct Firing
{
	const char *function;
	HxTriggerPlan *plan;
	MemoryContext row_context;
} Firing;

static Firing *
begin_firing(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Firing	   *firing;

	if (!CALLED_AS_TRIGGER(fcinfo))
		hx_trigger_refuse(function, "It was not called as a trigger.");
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event))
		hx_trigger_refuse(function, "It must be fired after the event.");
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		hx_trigger_refuse(function, "TRUNCATE does not say which rows it takes away.");
	firing = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Firing));
	firing->function = function;
	firing->row_context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "hubex trigger row", ALLOCSET_DEFAULT_SIZES);
	fcinfo->flinfo->fn_extra = firing;
	return firing;
}

static void
fire_for_row(const HxTriggerPlan *plan, TriggerData *trigger)
{
	TupleTableSlot *row = trigger->tg_trigslot;
	TupleTableSlot *new = trigger->tg_newslot;

	slot_getsomeattrs(row, plan->last_attribute);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		hx_row_inserted(plan, row, NULL);
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		hx_row_deleted(plan, row, NULL);
	else
	{
		slot_getsomeattrs(new, plan->last_attribute);
		hx_row_updated(plan, row, new, NULL);
	}
}

static void
fire(FunctionCallInfo fcinfo, const char *function, bool tasks_only)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Firing	   *firing = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (firing == NULL)
		firing = begin_firing(fcinfo, function);
	if (hx_write_back_fires(RelationGetRelid(trigger->tg_relation)))
		return;
	old = MemoryContextSwitchTo(firing->row_context);
	firing->plan = hx_trigger_plan(trigger, function, tasks_only, firing->plan);
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		fire_for_row(firing->plan, trigger);
	else
		hx_transition_rows(firing->plan, trigger, function);
	MemoryContextSwitchTo(old);
	MemoryContextReset(firing->row_context);
}

/* hubex_task_trigger([server,] template [, options]): rows are tasks. */
Datum
hubex_task_trigger(PG_FUNCTION_ARGS)
{
	fire(fcinfo, "hubex_task_trigger", true);
	PG_RETURN_POINTER(NULL);
}

/* hubex_create_trigger([server,] resource, template [, options]). */
Datum
hubex_create_trigger(PG_FUNCTION_ARGS)
{
	fire(fcinfo, "hubex_create_trigger", false);
	PG_RETURN_POINTER(NULL);
}
