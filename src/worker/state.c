/*-------------------------------------------------------------------------
 *
 * state.c
 *	  What SQL sees of the workers, and tells them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/shared.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(hubex_worker_state);
PG_FUNCTION_INFO_V1(hubex_workers);
PG_FUNCTION_INFO_V1(hubex_announce);

/* What a slot's worker is doing, in a word or a few. */
static const char *
slot_state(const HxWorkerSlot *slot)
{
	static const char *const names[] = {
		[HX_WORKER_FREE] = "unknown to the launcher",
		[HX_WORKER_WANTED] = "waiting to be started",
		[HX_WORKER_STARTING] = "starting",
		[HX_WORKER_RUNNING] = "running",
		[HX_WORKER_ABSENT] = "waiting to be announced"
	};

	if (slot == NULL)
		return names[HX_WORKER_FREE];
	if (slot->state == HX_WORKER_RUNNING && slot->pid == 0)
		return names[HX_WORKER_WANTED]; /* it has just ended */
	if (slot->state == HX_WORKER_RUNNING && slot->held)
		return "held";
	return names[slot->state];
}

/*
 * hubex.worker_state() -> (state, pid): of this database's delivery worker.
 */
Datum
hubex_worker_state(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, true};
	const char *state = "not preloaded";
	int			pid = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "hubex.worker_state must return a row");
	if (RecoveryInProgress())
		state = "standby";
	else if (hx_shared() != NULL)
	{
		HxWorkerSlot *slot;

		LWLockAcquire(hx_shared()->lock, LW_SHARED);
		slot = hx_shared_slot(MyDatabaseId, HX_WORKER_DELIVERY, false);
		state = slot_state(slot);
		pid = slot ? slot->pid : 0;
		LWLockRelease(hx_shared()->lock);
	}
	values[0] = CStringGetTextDatum(state);
	values[1] = Int32GetDatum(pid);
	nulls[1] = pid == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * hubex.workers() -> a row for each worker there is in a database of the
 * cluster, or that is waited for.
 */
Datum
hubex_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	HxWorkerSlot *slots;

	InitMaterializedSRF(fcinfo, 0);
	if (hx_shared() == NULL || RecoveryInProgress())
		return (Datum) 0;
	slots = palloc(sizeof(hx_shared()->slots));
	LWLockAcquire(hx_shared()->lock, LW_SHARED);
	memcpy(slots, hx_shared()->slots, sizeof(hx_shared()->slots));
	LWLockRelease(hx_shared()->lock);

	for (const HxWorkerSlot *slot = slots; slot < slots + HX_MAX_WORKERS; slot++)
	{
		bool		alive = slot->pid != 0;
		Datum		values[9] = {0};
		bool		nulls[9] = {false};

		if (slot->state == HX_WORKER_FREE || slot->state == HX_WORKER_ABSENT)
			continue;
		values[0] = ObjectIdGetDatum(slot->database);
		values[1] = CStringGetTextDatum(hx_worker_jobs[slot->kind]->name);
		values[2] = Int32GetDatum(slot->pid);
		values[3] = CStringGetTextDatum(slot_state(slot));
		values[4] = TimestampTzGetDatum(slot->started_at);
		values[5] = TimestampTzGetDatum(slot->last_step_at);
		values[6] = Int64GetDatum(slot->steps);
		values[7] = Int32GetDatum(slot->in_flight);
		values[8] = Int32GetDatum(slot->failures);
		nulls[2] = nulls[4] = nulls[6] = nulls[7] = !alive;
		nulls[5] = !alive || slot->last_step_at == 0;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* What hubex_announce has to say at the end of the transaction. */
static struct
{
	bool		registered;
	bool		wanted;
}			advice;

/* Says how to deliver, when the extension is about to be there. */
static void
give_advice(XactEvent event, void *arg)
{
	if (!advice.wanted || (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_ABORT))
		return;
	advice.wanted = false;
	if (event == XACT_EVENT_PRE_COMMIT)
		ereport(NOTICE,
				(errmsg("hubex is not in shared_preload_libraries, so nothing is delivered in the background"),
				 errhint("Add it and restart, or run CALL hubex_deliver(), by hand or from pg_cron.")));
}

/*
 * hubex.announce(): the extension's script calls it; at its commit the
 * launcher learns of this database.  Without preload it says how to deliver,
 * also at the commit, for a script's own notices are not shown.
 */
Datum
hubex_announce(PG_FUNCTION_ARGS)
{
	if (hx_shared() == NULL)
	{
		if (!advice.registered)
			RegisterXactCallback(give_advice, NULL);
		advice.registered = advice.wanted = true;
	}
	hx_shared_announce_at_commit(HX_WORKER_DELIVERY);
	PG_RETURN_VOID();
}
