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

#include "base/shared.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(hubex_worker_state);
PG_FUNCTION_INFO_V1(hubex_announce);

/*
 * hubex.worker_state() -> (state, pid): of this database's delivery worker.
 */
Datum
hubex_worker_state(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[HX_WORKER_FREE] = "unknown to the launcher",
		[HX_WORKER_WANTED] = "waiting to be started",
		[HX_WORKER_STARTING] = "starting",
		[HX_WORKER_RUNNING] = "running",
		[HX_WORKER_ABSENT] = "waiting to be announced"
	};
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
		slot = hx_shared_slot(MyDatabaseId, false);
		state = names[slot ? slot->state : HX_WORKER_FREE];
		pid = slot ? slot->pid : 0;
		if (slot && slot->state == HX_WORKER_RUNNING && pid == 0)
			state = names[HX_WORKER_WANTED];	/* it has just ended */
		LWLockRelease(hx_shared()->lock);
	}
	values[0] = CStringGetTextDatum(state);
	values[1] = Int32GetDatum(pid);
	nulls[1] = pid == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
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
	hx_shared_announce_at_commit();
	PG_RETURN_VOID();
}
