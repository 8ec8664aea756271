/*-------------------------------------------------------------------------
 *
 * mirror_plan.c
 *	  What a trigger of a mirror has to know, kept for the session.
 *
 * To find it out takes the subscription, both tables, the connector's manifest
 * and an account; how it is kept is in kept_plan.c.  A change of
 * hubex.subscription is told as one of all tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "sync/mirror_plan.h"

static AttrNumber
attribute_of(Relation relation, const char *name)
{
	return name ? get_attnum(RelationGetRelid(relation), name) : InvalidAttrNumber;
}

/* Is a relation the subscription's target, or a part of it? */
static bool
is_target(Relation relation, Oid target)
{
	return RelationGetRelid(relation) == target ||
		(relation->rd_rel->relispartition &&
		 list_member_oid(get_partition_ancestors(RelationGetRelid(relation)), target));
}

static void
know_columns(HxMirrorPlan *plan, Relation relation)
{
	HxMirror   *mirror = plan->mirror;
	Oid			function;
	bool		varlena;

	plan->values = palloc(sizeof(HxMirrorValues) * mirror->ncolumns);
	plan->attributes = palloc0(sizeof(AttrNumber) * mirror->ncolumns);
	plan->constants = palloc0(sizeof(Datum) * mirror->ncolumns);
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const HxMirrorColumn *column = &mirror->columns[i];
		Oid			input;
		Oid			param;

		hx_mirror_values_init(&plan->values[i], column->target_type, column->target_typmod);
		if (column->attno == InvalidAttrNumber)
			continue;
		plan->attributes[i] = attribute_of(relation, column->name);
		plan->last_attribute = Max(plan->last_attribute, plan->attributes[i]);
		if (column->column->constant == NULL)
			continue;
		plan->has_constants = true;
		getTypeInputInfo(column->target_type, &input, &param);
		plan->constants[i] = OidInputFunctionCall(input, unconstify(char *, column->column->constant), param,
													column->target_typmod);
	}
	plan->synced_at = attribute_of(relation, mirror->synced_at);
	plan->marked = attribute_of(relation, mirror->marked);
	plan->last_attribute = Max(plan->last_attribute, Max(plan->synced_at, plan->marked));
	getTypeOutputInfo(mirror->columns[mirror->record_key].target_type, &function, &varlena);
	fmgr_info(function, &plan->key_out);
}

/* Fills a plan, in its own context. */
static void
fill_plan(HxMirrorPlan *plan, const TriggerData *trigger)
{
	const char *name = trigger->tg_trigger->tgargs[0];
	HxSubscription *subscription = hx_subscription_load(name, false);

	if (subscription == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name),
				 errdetail("Trigger \"%s\" of table \"%s\" names it.", trigger->tg_trigger->tgname,
						   RelationGetRelationName(trigger->tg_relation)),
				 errhint("DROP TRIGGER %s ON %s, if the table is no mirror any more.",
						 quote_identifier(trigger->tg_trigger->tgname),
						 quote_identifier(RelationGetRelationName(trigger->tg_relation)))));
	if (!is_target(trigger->tg_relation, subscription->target))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not the mirror of subscription \"%s\"",
						RelationGetRelationName(trigger->tg_relation), name),
				 errhint("Put the trigger on the table that the subscription writes.")));
	plan->mirror = hx_mirror_open(subscription);
	plan->kept.relations = list_make2_oid(plan->mirror->target, plan->mirror->table->relid);
	plan->kept.uses_functions = true;
	hx_connector_version(plan->mirror->table->connector, &plan->kept.connector_version);
	plan->outgoing = hx_outgoing_begin(plan->mirror, plan->kept.key.role);
	know_columns(plan, trigger->tg_relation);
}

/*
 * The plan of a trigger that fires.  "last" is what this gave for the
 * statement's row before, or NULL.  The plan is good until the transaction
 * ends.  Errors: no such subscription (42704), another table (55000), those of
 * hx_mirror_open() and hx_outgoing_begin().
 */
HxMirrorPlan *
hx_mirror_plan(const TriggerData *trigger, HxMirrorPlan *last)
{
	HxMirrorPlan *plan;
	MemoryContext old;

	if (last != NULL && last->kept.key.role == GetUserId())
		return last;
	plan = (HxMirrorPlan *) hx_kept_plan_find(trigger);
	if (plan != NULL)
		return plan;
	plan = hx_kept_plan_begin(trigger, sizeof(HxMirrorPlan));
	old = MemoryContextSwitchTo(plan->kept.cxt);
	fill_plan(plan, trigger);
	MemoryContextSwitchTo(old);
	hx_kept_plan_keep(&plan->kept);
	return plan;
}
