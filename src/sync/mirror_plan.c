/*-------------------------------------------------------------------------
 *
 * mirror_plan.c
 *	  What a trigger of a mirror has to know, kept for the session.
 *
 * To find it out takes the subscription, both tables, the connector's manifest
 * and an account, which is many times the work of a row.  So it is kept for
 * each trigger and role, and made anew when PostgreSQL says that any of it has
 * changed: a table, a server, a user mapping, a role, a schema, a function, a
 * cast; a change of hubex.subscription says it of all tables.  The connector's
 * manifest is compared at each statement.  A plan that was replaced may still be in use
 * further up in the same transaction, so it lives as long as that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "sync/mirror_plan.h"

typedef struct PlanKey
{
	Oid			trigger;
	Oid			role;
} PlanKey;

typedef struct PlanEntry
{
	PlanKey		key;
	HxMirrorPlan *plan;
} PlanEntry;

/* The session's plans, and how often something they are made from changed. */
static HTAB *plans = NULL;
static uint64 changes = 0;

/* ---- making a plan ---- */

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
	hx_connector_version(plan->mirror->table->connector, &plan->connector_version);
	plan->outgoing = hx_outgoing_begin(plan->mirror, plan->role);
	know_columns(plan, trigger->tg_relation);
}

static HxMirrorPlan *
make_plan(const TriggerData *trigger)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex mirror plan", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	HxMirrorPlan *plan = palloc0(sizeof(HxMirrorPlan));
	uint64		changes_before = changes;

	plan->cxt = cxt;
	plan->trigger = trigger->tg_trigger->tgoid;
	plan->role = GetUserId();
	plan->relation = RelationGetRelid(trigger->tg_relation);
	fill_plan(plan, trigger);
	plan->valid = changes == changes_before;
	MemoryContextSwitchTo(old);
	return plan;
}

/* ---- keeping plans ---- */

/* Something about a relation changed; InvalidOid: perhaps about any. */
static void
relation_changed(Datum arg, Oid relation)
{
	HASH_SEQ_STATUS scan;
	PlanEntry  *entry;

	changes++;
	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		HxMirrorPlan *plan = entry->plan;

		if (!OidIsValid(relation) || relation == plan->relation || relation == plan->mirror->target ||
			relation == plan->mirror->table->relid || relation == plan->connector_version.table)
			plan->valid = false;
	}
}

/* Something in a catalog changed. */
static void
catalog_changed(Datum arg, int cache, uint32 hash)
{
	HASH_SEQ_STATUS scan;
	PlanEntry  *entry;

	changes++;
	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
		entry->plan->valid = false;
}

static void
begin_keeping(void)
{
	static const int caches[] = {FOREIGNSERVEROID, USERMAPPINGOID, FOREIGNTABLEREL, AUTHOID, AUTHMEMROLEMEM, NAMESPACEOID,
	PROCOID, CASTSOURCETARGET};
	HASHCTL		control = {.keysize = sizeof(PlanKey),.entrysize = sizeof(PlanEntry),.hcxt = TopMemoryContext};

	plans = hash_create("hubex mirror plans", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], catalog_changed, (Datum) 0);
}

/* Forgets the plans that are not good any more; see the top of the file. */
static void
forget_stale(void)
{
	HASH_SEQ_STATUS scan;
	PlanEntry  *entry;

	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->plan->valid)
			continue;
		MemoryContextSetParent(entry->plan->cxt, TopTransactionContext);
		(void) hash_search(plans, &entry->key, HASH_REMOVE, NULL);
	}
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
	PlanKey		key = {trigger->tg_trigger->tgoid, GetUserId()};
	HxMirrorPlan *plan;
	PlanEntry  *entry;

	if (last != NULL && last->role == key.role)
		return last;
	if (plans == NULL)
		begin_keeping();
	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (entry->plan->valid && !entry->plan->busy && hx_connector_is_version(&entry->plan->connector_version))
			return entry->plan;
		if (!entry->plan->busy)
			entry->plan->valid = false;
	}
	forget_stale();
	plan = make_plan(trigger);
	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL)
	{
		/* The other is at work further up, in a function of a cast's: this one is for the statement only. */
		MemoryContextSetParent(plan->cxt, TopTransactionContext);
		return plan;
	}
	MemoryContextSetParent(plan->cxt, TopMemoryContext);
	entry = hash_search(plans, &key, HASH_ENTER, NULL);
	entry->plan = plan;
	return plan;
}
