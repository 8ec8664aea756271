/*-------------------------------------------------------------------------
 *
 * row_request.c
 *	  What a row that was inserted, updated or deleted becomes.
 *
 * INSERT creates a record.  UPDATE sends the members of the template that came
 * to something else than before, one that came to nothing as null, and
 * nothing at all where none did.  DELETE deletes.  Which record an UPDATE or a
 * DELETE means is known by its id, where write-back has put it into the row,
 * else by the natural key that the template makes.
 *
 * Slots come with their columns taken out.  What is palloc'd here is the
 * caller's to reset, after each row.  With a batch the requests go in when the
 * caller ends that, at the latest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "outbox/trigger.h"

static void
add_member(JsonbParseState **state, char *name, JsonbValue *value)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = name;
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_VALUE, value);
}

static void
add_text(JsonbParseState **state, char *name, char *text)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = text;
	value.val.string.len = strlen(text);
	add_member(state, name, &value);
}

/*
 * Makes what a column's output function writes independent of the session,
 * so that any other reads the same value from it.
 */
static int
write_neutrally(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("DateStyle", "ISO", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("IntervalStyle", "postgres", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("extra_float_digits", "3", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* The row's primary key, with its values as text. */
static void
add_key(JsonbParseState **state, const HxTriggerPlan *plan, TupleTableSlot *row)
{
	int			level = plan->plain_key ? 0 : write_neutrally();
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = "key";
	value.val.string.len = 3;
	pushJsonbValue(state, WJB_KEY, &value);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < plan->nkey; i++)
	{
		HxKeyColumn *column = &plan->key[i];

		pushJsonbValue(state, WJB_KEY, &column->name);
		value.val.string.val = OutputFunctionCall(&column->out, row->tts_values[column->number - 1]);
		value.val.string.len = strlen(value.val.string.val);
		pushJsonbValue(state, WJB_VALUE, &value);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
	if (level > 0)
		AtEOXact_GUC(true, level);
}

static bool
wants(const HxTarget *target, TupleTableSlot *row, bool only_empty)
{
	return target->number != 0 && (!only_empty || row->tts_isnull[target->number - 1]);
}

/*
 * What is to be done in this database when the request is delivered, or NULL.
 * The row is NULL where it is gone by then.
 */
static Jsonb *
make_write_back(const HxTriggerPlan *plan, TupleTableSlot *row, bool only_empty)
{
	bool		id = row != NULL && wants(&plan->id, row, only_empty);
	bool		number = row != NULL && wants(&plan->record_number, row, only_empty);
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!plan->writes_back || (!id && !number && !plan->calls_function))
		return NULL;
	if (!id && !number)
		return plan->home;

	it = JsonbIteratorInit(&plan->home->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
		pushJsonbValue(&state, token, token == WJB_BEGIN_OBJECT ? NULL : &value);
	add_key(&state, plan, row);
	if (id)
		add_text(&state, "id", plan->id.name);
	if (number)
		add_text(&state, "number", plan->record_number.name);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The row is a new one: its record is created. */
void
hx_row_inserted(const HxTriggerPlan *plan, TupleTableSlot *row, HxBatch *batch)
{
	HxField    *fields = palloc(sizeof(HxField) * (plan->tmpl->nparts + 1));
	int			nfields = 0;
	HxNewRequest request = {.within_command = true,.batch = batch};

	for (int i = 0; i < plan->tmpl->nparts; i++)
	{
		if (!hx_template_value(plan, plan->tmpl->parts[i], row, &fields[nfields].value))
			continue;
		fields[nfields++].name = plan->tmpl->names[i];
	}
	if (plan->ordering_key != NULL)
		request.ordering_key = hx_template_text(plan, plan->ordering_key, row);
	request.write_back = make_write_back(plan, row, false);
	(void) hx_outbox_enqueue_creation(plan->creation, fields, nfields, &request);
}

/* The record that a row, as it was, stands for. */
static void
find_key(const HxTriggerPlan *plan, TupleTableSlot *old, HxRecordKey *key)
{
	memset(key, 0, sizeof(HxRecordKey));
	if (plan->id.number != 0 && !old->tts_isnull[plan->id.number - 1])
		key->remote_id = OutputFunctionCall(unconstify(FmgrInfo *, &plan->id_out),
											old->tts_values[plan->id.number - 1]);
	else if (plan->natural_key >= 0)
		key->natural_key = hx_template_text(plan, plan->tmpl->parts[plan->natural_key], old);

	if (key->remote_id == NULL && key->natural_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the record of \"%s\" that a row of \"%s\" stands for is not known", plan->resource,
						get_rel_name(plan->kept.relation)),
				 plan->id.number != 0 ?
				 errdetail("Column \"%s\", which its id is written back to, is empty, and the template makes no natural key.",
						   plan->id.name) :
				 errdetail("No column holds its id, and the template makes no natural key."),
				 errhint("Give the record a key of its own in the template, \"erp_id\": \"{column}\", or let its id be written back with the option {\"write_back\": {\"id\": \"column\"}}; it is there once the creation is delivered.")));
}

/* The members that differ, or NULL where none does. */
static Jsonb *
changed_fields(const HxTriggerPlan *plan, TupleTableSlot *old, TupleTableSlot *new)
{
	JsonbParseState *state = NULL;
	JsonbValue *changed = NULL;

	for (int i = 0; i < plan->tmpl->nparts; i++)
	{
		const HxPart *part = plan->tmpl->parts[i];
		JsonbValue	before;
		JsonbValue	after;
		bool		was;
		bool		is;

		if (part->kind == HX_PART_CONSTANT)
			continue;
		was = hx_template_value(plan, part, old, &before);
		is = hx_template_value(plan, part, new, &after);
		if (was == is && (!is || hx_json_same(&before, &after)))
			continue;
		if (!is)
			after.type = jbvNull;
		if (state == NULL)
			pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(&state, WJB_KEY, &plan->tmpl->names[i]);
		changed = pushJsonbValue(&state, WJB_VALUE, &after);
	}
	if (state == NULL)
		return NULL;
	changed = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(changed);
}

/* The row was changed: so is its record, where the template shows it. */
void
hx_row_updated(const HxTriggerPlan *plan, TupleTableSlot *old, TupleTableSlot *new, HxBatch *batch)
{
	HxNewRequest request = {.within_command = true,.batch = batch};
	HxRecordKey key;
	Jsonb	   *fields;

	if (hx_template_same_columns(plan, old, new))
		return;
	fields = changed_fields(plan, old, new);
	if (fields == NULL)
		return;
	find_key(plan, old, &key);
	if (plan->ordering_key != NULL)
		request.ordering_key = hx_template_text(plan, plan->ordering_key, new);
	request.write_back = make_write_back(plan, new, true);
	(void) hx_outbox_enqueue_change(plan->account, plan->resource, "update", &key, fields, &request);
}

/* The row is gone: so is its record, unless the trigger lets it be. */
void
hx_row_deleted(const HxTriggerPlan *plan, TupleTableSlot *row, HxBatch *batch)
{
	HxNewRequest request = {.within_command = true,.batch = batch};
	HxRecordKey key;

	if (plan->ignores_delete)
		return;
	find_key(plan, row, &key);
	if (plan->ordering_key != NULL)
		request.ordering_key = hx_template_text(plan, plan->ordering_key, row);
	request.write_back = make_write_back(plan, NULL, false);
	(void) hx_outbox_enqueue_change(plan->account, plan->resource, "delete", &key, NULL, &request);
}
