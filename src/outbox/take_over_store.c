/*-------------------------------------------------------------------------
 *
 * take_over_store.c
 *	  hubex_take_over(): what came with a copy is this database's from now on.
 *
 * See base/binding_store.c for what keeps a copy silent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/binding.h"
#include "base/owner.h"
#include "base/shared.h"
#include "base/statement_store.h"
#include "outbox/change.h"

PG_FUNCTION_INFO_V1(hubex_take_over);

/* What was being sent when the copy was made is not: its sender is not here. */
static void
recover_copied(Datum token)
{
	static HxStatement list = {
		"SELECT o.id FROM hubex.outbox o WHERE o.state = 'sending' AND o.binding <> $1", 1, {UUIDOID}
	};
	List	   *changes = NIL;

	hx_statement_run(&list, &token, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HxChange   *change = palloc0(sizeof(HxChange));
		bool		isnull;

		change->event = HX_EVENT_RECOVER;
		change->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		change->next_attempt_at = GetCurrentTimestamp();
		change->error = "it was being sent when this database was copied from its original";
		changes = lappend(changes, change);
	}
	(void) hx_outbox_change(changes);
}

/*
 * hubex_take_over() -> how many requests are sent from here from now on that
 * were not before: all that are not ended and were another's.  Their original
 * may have sent them since they were copied, so each is looked up before it is
 * sent again.  Subscriptions that came with the copy go on, too.
 */
Datum
hubex_take_over(PG_FUNCTION_ARGS)
{
	static HxStatement take = {
		"UPDATE hubex.outbox SET binding = $1, uncertain = true"
		" WHERE state IN ('waiting', 'dead') AND binding <> $1",
		1, {UUIDOID}
	};
	static HxStatement take_unwritten = {
		"UPDATE hubex.outbox SET binding = $1 WHERE unwritten AND binding <> $1", 1, {UUIDOID}
	};
	static HxStatement take_subscriptions = {
		"UPDATE hubex.subscription SET binding = $1 WHERE binding <> $1", 1, {UUIDOID}
	};
	Datum		arg;
	pg_uuid_t	token;
	HxOwner		saved;
	int64		taken;

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("hubex_take_over() needs the isolation level read committed"),
				 errdetail("It has to see every request that is enqueued.")));
	hx_binding_take(&token);

	hx_owner_enter(&saved);
	SPI_connect();
	arg = UUIDPGetDatum(&token);
	recover_copied(arg);
	hx_statement_run(&take, &arg, NULL);
	taken = (int64) SPI_processed;
	hx_statement_run(&take_unwritten, &arg, NULL);
	hx_statement_run(&take_subscriptions, &arg, NULL);
	SPI_finish();
	hx_owner_leave(&saved);
	hx_shared_wake_at_commit(HX_WORKER_DELIVERY, PG_INT64_MIN);
	hx_shared_announce_at_commit(HX_WORKER_SYNC);
	PG_RETURN_INT64(taken);
}
