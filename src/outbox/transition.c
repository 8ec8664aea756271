/*-------------------------------------------------------------------------
 *
 * transition.c
 *	  Statement-level triggers: all rows of a statement, from its transition
 *	  tables.
 *
 * The tables are read where the executor keeps them, without a query: with a
 * read pointer of our own, since other triggers read the same tables.  The
 * old and the new rows of an UPDATE are kept in the same order.
 *
 * The requests are collected and put in many at a time.  Nobody can look in
 * between, or put in a request that would get a smaller id than one that is
 * already collected, because nobody else's code runs; where it might, to write
 * the value of a type of others, each is put in at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "outbox/trigger.h"

typedef struct Transition
{
	Tuplestorestate *table;
	int			pointer;
	TupleTableSlot *row;
} Transition;

static void
open_transition(Transition *transition, Tuplestorestate *table, TupleDesc desc)
{
	transition->table = table;
	transition->row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	transition->pointer = tuplestore_alloc_read_pointer(table, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(table, transition->pointer);
	tuplestore_rescan(table);
}

/* Takes the next row with its columns; false at the end. */
static bool
next_row(Transition *transition, int columns)
{
	tuplestore_select_read_pointer(transition->table, transition->pointer);
	if (!tuplestore_gettupleslot(transition->table, true, false, transition->row))
		return false;
	slot_getsomeattrs(transition->row, columns);
	return true;
}

static void
close_transition(Transition *transition)
{
	ExecDropSingleTupleTableSlot(transition->row);
	tuplestore_select_read_pointer(transition->table, 0);
}

static void
require_table(Tuplestorestate *table, const char *function, const char *detail)
{
	if (table == NULL)
		hx_trigger_refuse(function, detail);
}

/* Makes the requests for all rows of the statement. */
void
hx_transition_rows(const HxTriggerPlan *plan, TriggerData *trigger, const char *function)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		needs_new = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	bool		needs_old = TRIGGER_FIRED_BY_DELETE(trigger->tg_event) || TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex trigger row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	HxBatch    *batch;
	Transition	new = {0};
	Transition	old = {0};

	if (needs_new)
		require_table(trigger->tg_newtable, function,
					  "FOR EACH STATEMENT it reads the new rows of INSERT and UPDATE, so it needs REFERENCING NEW TABLE AS ....");
	if (needs_old)
		require_table(trigger->tg_oldtable, function,
					  "FOR EACH STATEMENT it reads the old rows of UPDATE and DELETE, so it needs REFERENCING OLD TABLE AS ....");
	if (needs_new)
		open_transition(&new, trigger->tg_newtable, desc);
	if (needs_old)
		open_transition(&old, trigger->tg_oldtable, desc);
	batch = plan->runs_code ? NULL : hx_outbox_batch_begin();

	for (;;)
	{
		bool		has_new = needs_new && next_row(&new, plan->last_attribute);
		bool		has_old = needs_old && next_row(&old, plan->last_attribute);

		if (needs_new && needs_old && has_new != has_old)
			ereport(ERROR,
					(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("the statement has not as many new rows as old ones"),
					 errdetail("Something kept a row from being moved to another partition of \"%s\", so that it is not known which belong together.",
							   RelationGetRelationName(trigger->tg_relation)),
					 errhint("Use the trigger FOR EACH ROW.")));
		if (!has_new && !has_old)
			break;
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(cxt);
		if (has_new && has_old)
			hx_row_updated(plan, old.row, new.row, batch);
		else if (has_new)
			hx_row_inserted(plan, new.row, batch);
		else
			hx_row_deleted(plan, old.row, batch);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(cxt);
	}
	if (batch != NULL)
		hx_outbox_batch_end(batch);
	if (needs_new)
		close_transition(&new);
	if (needs_old)
		close_transition(&old);
	MemoryContextDelete(cxt);
}
