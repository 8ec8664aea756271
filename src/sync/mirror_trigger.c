/*-------------------------------------------------------------------------
 *
 * mirror_trigger.c
 *	  hubex_mirror_trigger: changes made in a mirror, on their way out.
 *
 * The trigger is put on the mirror by its owner, as any other:
 *
 *	  BEFORE INSERT				a row becomes the creation of a record, and is not stored: the
 *								mirror shows it when the remote side has it
 *	  AFTER UPDATE				of columns that are not the remote side's alone: a change of
 *								the record
 *	  AFTER DELETE				its deletion
 *	  BEFORE TRUNCATE			refused
 *
 * The request is put in by the role that changes the mirror, in its
 * transaction: it is sent if and only if the change is committed.  What the
 * change was is noted beside it, so that what the remote side still shows is not
 * taken for news (two_way.c).
 *
 * What sync itself writes is none of this; what a trigger of others does when
 * sync writes is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "sync/mirror_plan.h"

PG_FUNCTION_INFO_V1(hubex_mirror_trigger);

/* What a trigger keeps for the length of a statement. */
typedef struct Firing
{
	HxMirrorPlan *plan;
	MemoryContext row_cxt;
} Firing;

/* A use of the function that is not meant, with how it is. */
static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("%s is used in a way it does not support", "hubex_mirror_trigger"),
			 errdetail("%s", detail),
			 errhint("CREATE TRIGGER ... AFTER UPDATE OR DELETE ON ... FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger('subscription'), "
					 "and BEFORE INSERT the same.")));
}

/* ---- making ready ---- */

static void
check_event(const TriggerData *trigger)
{
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate mirror \"%s\"", RelationGetRelationName(trigger->tg_relation)),
				 errdetail("TRUNCATE does not say which rows it takes away, so nothing of it could be sent."),
				 errhint("DELETE deletes the records in the remote system. To have the mirror filled anew, disable the trigger, truncate, and CALL hubex_sync(..., 'full').")));
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		refuse("It must be fired for each row.");
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? !TRIGGER_FIRED_BEFORE(trigger->tg_event) :
		!TRIGGER_FIRED_AFTER(trigger->tg_event))
		refuse(TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ?
			   "For INSERT it must be fired before the event: the row is not stored." :
			   "For UPDATE and DELETE it must be fired after the event.");
	if (trigger->tg_trigger->tgnargs != 1)
		refuse("It takes one argument, the name of the subscription.");
}

static Firing *
begin_firing(FunctionCallInfo fcinfo)
{
	Firing	   *firing;

	check_event((TriggerData *) fcinfo->context);
	firing = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Firing));
	firing->row_cxt = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "hubex mirror row", ALLOCSET_DEFAULT_SIZES);
	fcinfo->flinfo->fn_extra = firing;
	return firing;
}

/* ---- rows ---- */

/* A row as the mirror's columns. */
typedef struct Row
{
	Datum	   *values;
	bool	   *nulls;
} Row;

static Row
take_row(const HxMirrorPlan *plan, TupleTableSlot *slot)
{
	int			n = plan->mirror->ncolumns;
	Row			row = {palloc0(sizeof(Datum) * n), palloc(sizeof(bool) * n)};

	slot_getsomeattrs(slot, plan->last_attribute);
	for (int i = 0; i < n; i++)
	{
		AttrNumber	number = plan->attributes[i];

		row.nulls[i] = number == InvalidAttrNumber || slot->tts_isnull[number - 1];
		if (!row.nulls[i])
			row.values[i] = slot->tts_values[number - 1];
	}
	return row;
}

/* The whole row as JSON, by the names of its columns. */
static Jsonb *
row_json(TupleTableSlot *slot, Relation relation)
{
	Datum		datum = heap_copy_tuple_as_datum(ExecFetchSlotHeapTuple(slot, false, NULL), RelationGetDescr(relation));

	return JsonbValueToJsonb(hx_convert_datum(datum, false, RelationGetForm(relation)->reltype));
}

static bool
differs(const HxMirrorPlan *plan, int column, const Row *one, const Row *other)
{
	return !hx_mirror_same_image(&plan->values[column], one->values[column], one->nulls[column],
								 other->values[column], other->nulls[column]);
}

/* Is a row one of this subscription's, where others share the table? */
static bool
is_own(const HxMirrorPlan *plan, const Row *row)
{
	for (int i = 0; plan->has_constants && i < plan->mirror->ncolumns; i++)
		if (plan->mirror->columns[i].column->constant != NULL && plan->attributes[i] != InvalidAttrNumber &&
			!hx_mirror_same(&plan->values[i], row->values[i], row->nulls[i], plan->constants[i], false))
			return false;
	return true;
}

static char *
key_text(HxMirrorPlan *plan, const Row *row)
{
	int			n = plan->mirror->record_key;

	if (row->nulls[n])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a row of mirror %s does not say which record it is", plan->mirror->target_name),
				 errdetail("Its column \"%s\" is null.", plan->mirror->columns[n].name)));
	return OutputFunctionCall(&plan->key_out, row->values[n]);
}

static void
note(const HxMirrorPlan *plan, const HxLocalChange *change)
{
	hx_local_change_put(plan->mirror->subscription->name, change);
}

/* ---- INSERT ---- */

/*
 * A row that is there already passes: the statement is to fail of it, or has
 * an ON CONFLICT that makes an update of it.
 */
static bool
insert_passes(HxMirrorPlan *plan, const Row *row)
{
	const HxMirror *mirror = plan->mirror;

	if (row->nulls[mirror->record_key])
		return false;
	if (hx_target_holds(mirror, key_text(plan, row)))
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a row with a key of its own cannot be put into mirror %s", mirror->target_name),
			 errdetail("A new record gets its key (column \"%s\") from the remote system; nor can a row be moved to another partition.",
					   mirror->columns[mirror->record_key].name),
			 errhint("Leave the column out. The row is shown when the remote system has it; hubex_pending_view() shows what is on its way.")));
	return false;
}

/* True where the row is to be stored. */
static bool
inserted(HxMirrorPlan *plan, TriggerData *trigger)
{
	Row			row = take_row(plan, trigger->tg_trigslot);
	HxLocalChange change = {.kind = HX_CHANGE_CREATE,.column = ""};

	if (!is_own(plan, &row) || insert_passes(plan, &row))
		return true;
	change.request = hx_outgoing_create(plan->outgoing, row.values, row.nulls);
	change.key = psprintf(INT64_FORMAT, change.request);
	change.local = row_json(trigger->tg_trigslot, trigger->tg_relation);
	change.changed_at = GetCurrentStatementStartTimestamp();
	note(plan, &change);
	return false;
}

/* ---- UPDATE ---- */

static void
refuse_change(const HxMirrorPlan *plan, const char *column, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" of mirror %s cannot be changed", column, plan->mirror->target_name),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/* Columns that say something of the row itself are hubex's. */
static void
check_own_columns(const HxMirrorPlan *plan, TupleTableSlot *old, TupleTableSlot *new)
{
	const AttrNumber numbers[] = {plan->synced_at, plan->marked};
	TupleDesc	desc = old->tts_tupleDescriptor;

	for (int i = 0; i < lengthof(numbers); i++)
	{
		int			n = numbers[i] - 1;

		if (numbers[i] != InvalidAttrNumber &&
			(old->tts_isnull[n] != new->tts_isnull[n] ||
			 (!old->tts_isnull[n] && old->tts_values[n] != new->tts_values[n])))
			refuse_change(plan, NameStr(TupleDescAttr(desc, n)->attname), "hubex notes in it what it does.", NULL);
	}
}

/* Is a column changed, so that something is to be sent?  One that must not be is an error. */
static bool
is_changed(HxMirrorPlan *plan, int column, const Row *old, const Row *new)
{
	const HxMirrorColumn *shown = &plan->mirror->columns[column];

	if (plan->attributes[column] == InvalidAttrNumber || !differs(plan, column, old, new))
		return false;
	if (shown->key || column == plan->mirror->record_key || shown->column->constant != NULL)
		refuse_change(plan, shown->name, "It tells which record a row is.", NULL);
	if (hx_outgoing_same(plan->outgoing, column, old->values[column], old->nulls[column], new->values[column],
						 new->nulls[column]))
		return false;
	if (shown->owner == HX_OWNER_REMOTE)
		refuse_change(plan, shown->name, "It is the remote side's: the value would be overwritten, and is sent nowhere.",
					  psprintf("Let the column have another owner: hubex_subscribe(..., owners => '{\"%s\": \"newest\"}').",
							   shown->name));
	return true;
}

static void
updated(HxMirrorPlan *plan, TupleTableSlot *old_slot, TupleTableSlot *new_slot)
{
	const HxMirror *mirror = plan->mirror;
	Row			old = take_row(plan, old_slot);
	Row			new = take_row(plan, new_slot);
	HxLocalChange change = {.kind = HX_CHANGE_UPDATE};
	Bitmapset  *changed = NULL;
	int			column = -1;

	if (!is_own(plan, &old))
		return;
	check_own_columns(plan, old_slot, new_slot);
	for (int i = 0; i < mirror->ncolumns; i++)
		if (is_changed(plan, i, &old, &new))
			changed = bms_add_member(changed, i);
	if (changed == NULL)
		return;
	change.key = key_text(plan, &old);
	change.changed_at = GetCurrentStatementStartTimestamp();
	change.request = hx_outgoing_update(plan->outgoing, old.values[mirror->record_key], changed, new.values, new.nulls);
	while ((column = bms_next_member(changed, column)) >= 0)
	{
		change.column = mirror->columns[column].name;
		change.local = hx_mirror_value_json(&plan->values[column], new.values[column], new.nulls[column]);
		change.remote = hx_mirror_value_json(&plan->values[column], old.values[column], old.nulls[column]);
		note(plan, &change);
	}
}

/* ---- DELETE ---- */

static void
deleted(HxMirrorPlan *plan, TriggerData *trigger)
{
	TupleTableSlot *slot = trigger->tg_trigslot;
	Row			row = take_row(plan, slot);
	HxLocalChange change = {.kind = HX_CHANGE_DELETE,.column = ""};

	if (!is_own(plan, &row))
		return;
	/* It is marked as deleted over there already: this only tidies up. */
	if (plan->marked != InvalidAttrNumber && !slot->tts_isnull[plan->marked - 1])
		return;
	change.key = key_text(plan, &row);
	change.request = hx_outgoing_delete(plan->outgoing, row.values[plan->mirror->record_key]);
	change.remote = row_json(slot, trigger->tg_relation);
	change.changed_at = GetCurrentStatementStartTimestamp();
	note(plan, &change);
}

/* True where a new row is to be stored. */
static bool
fire_for_row(HxMirrorPlan *plan, TriggerData *trigger)
{
	volatile bool stored = false;

	plan->kept.busy = true;
	PG_TRY();
	{
		if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
			stored = inserted(plan, trigger);
		else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
			deleted(plan, trigger);
		else
			updated(plan, trigger->tg_trigslot, trigger->tg_newslot);
	}
	PG_FINALLY();
	{
		plan->kept.busy = false;
	}
	PG_END_TRY();
	return stored;
}

/*
 * hubex_mirror_trigger(subscription): a trigger function of a mirror.
 * Errors: a column that is the remote side's alone, or the key (0A000); a role
 * that may not use the server, or not call hubex_update() and the like
 * (42501); and what the remote side can be seen not to take.
 */
Datum
hubex_mirror_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		is_insert;
	bool		stored;
	Firing	   *firing = fcinfo->flinfo->fn_extra;
	HxMirrorPlan *plan;
	MemoryContext old;

	if (!CALLED_AS_TRIGGER(fcinfo))
		refuse("It was not called as a trigger.");
	is_insert = TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
	if (hx_apply_fires(RelationGetRelid(trigger->tg_relation)))
		return PointerGetDatum(is_insert ? trigger->tg_trigtuple : NULL);
	if (firing == NULL)
		firing = begin_firing(fcinfo);
	old = MemoryContextSwitchTo(firing->row_cxt);
	firing->plan = plan = hx_mirror_plan(trigger, firing->plan);
	hx_outgoing_next_row(plan->outgoing);
	stored = fire_for_row(plan, trigger);
	MemoryContextSwitchTo(old);
	MemoryContextReset(firing->row_cxt);
	return PointerGetDatum(stored ? trigger->tg_trigtuple : NULL);
}
