/*-------------------------------------------------------------------------
 *
 * kept_plan.c
 *	  What a trigger has to know, kept for the session.
 *
 * To find it out opens an account, parses JSON and looks into the catalogs,
 * which is many times the work of a row.  So a plan is kept for each trigger
 * and role, and made anew when PostgreSQL says that any of what it is made from
 * has changed: a table, a server, a user mapping, a role, a schema, and where
 * the plan uses them a function or a cast.  What PostgreSQL says nothing about,
 * the connector's manifest, is compared at each statement.  A plan that was
 * replaced may still be in use further up in the same transaction, so it lives
 * as long as that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "connector/kept_plan.h"

typedef struct PlanEntry
{
	HxKeptPlanKey key;
	HxKeptPlan *plan;
} PlanEntry;

/* The session's plans, and how often something they are made from changed. */
static HTAB *plans = NULL;
static uint64 changes = 0;

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
		HxKeptPlan *plan = entry->plan;

		if (!OidIsValid(relation) || relation == plan->relation || relation == plan->connector_version.table ||
			list_member_oid(plan->relations, relation))
			plan->valid = false;
	}
}

/* Something in a catalog changed; functions and casts do not matter to all. */
static void
catalog_changed(Datum arg, int cache, uint32 hash)
{
	HASH_SEQ_STATUS scan;
	PlanEntry  *entry;

	changes++;
	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->plan->uses_functions || (cache != PROCOID && cache != CASTSOURCETARGET))
			entry->plan->valid = false;
}

static void
begin_keeping(void)
{
	static const int caches[] = {FOREIGNSERVEROID, USERMAPPINGOID, FOREIGNTABLEREL, AUTHOID, AUTHMEMROLEMEM, NAMESPACEOID,
	PROCOID, CASTSOURCETARGET};
	HASHCTL		control = {.keysize = sizeof(HxKeptPlanKey),.entrysize = sizeof(PlanEntry),.hcxt = TopMemoryContext};

	plans = hash_create("hubex kept plans", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
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

static HxKeptPlanKey
key_of(const TriggerData *trigger)
{
	HxKeptPlanKey key = {trigger->tg_trigger->tgoid, trigger->tg_trigger->tgfoid, GetUserId()};

	return key;
}

/*
 * The plan kept of a trigger that fires, good until the transaction ends; NULL
 * where there is none, it is not good any more, or it is busy.  Whoever knows
 * more of why it may not be good sets "valid" to false.
 */
HxKeptPlan *
hx_kept_plan_find(const TriggerData *trigger)
{
	HxKeptPlanKey key = key_of(trigger);
	PlanEntry  *entry = plans ? hash_search(plans, &key, HASH_FIND, NULL) : NULL;

	if (entry == NULL || entry->plan->busy)
		return NULL;
	if (entry->plan->valid && hx_connector_is_version(&entry->plan->connector_version))
		return entry->plan;
	entry->plan->valid = false;
	return NULL;
}

/*
 * Begins another plan, a struct of that size that begins with HxKeptPlan.  It
 * is filled in its own context, which goes with the current one until it is
 * kept, so that of an attempt that fails nothing stays.
 */
void *
hx_kept_plan_begin(const TriggerData *trigger, Size size)
{
	MemoryContext cxt;
	HxKeptPlan *plan;

	if (plans == NULL)
		begin_keeping();
	forget_stale();
	cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex kept plan", ALLOCSET_DEFAULT_SIZES);
	plan = MemoryContextAllocZero(cxt, size);
	plan->key = key_of(trigger);
	plan->cxt = cxt;
	plan->relation = RelationGetRelid(trigger->tg_relation);
	plan->changes = changes;
	return plan;
}

/*
 * Keeps a plan that was filled: for the session, unless another of the same
 * trigger and role is there, which is at work further up (in a function of a
 * cast's, say).  Then this one is for the statement only; nobody tells it of
 * changes, so it is not valid for more than it is used for.
 */
void
hx_kept_plan_keep(HxKeptPlan *plan)
{
	bool		found;
	PlanEntry  *entry = hash_search(plans, &plan->key, HASH_ENTER, &found);

	MemoryContextSetParent(plan->cxt, found ? TopTransactionContext : TopMemoryContext);
	if (found)
		return;
	entry->plan = plan;
	plan->valid = plan->changes == changes;
}
