/*-------------------------------------------------------------------------
 *
 * deliver.c
 *	  CALL hubex_deliver(): delivery in the caller's session.
 *
 * For servers that do not preload hubex: by hand, or from pg_cron.  It runs
 * the very loop of the worker and may run beside it, and beside itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/binding.h"
#include "base/shared.h"
#include "outbox/outbox.h"

#define RETENTION_MS	1000	/* to delete old requests in, at the end */

PG_FUNCTION_INFO_V1(hubex_deliver);

/*
 * hubex_deliver(server, timeout): delivers what is due, of one server or of
 * all, until nothing is or the timeout passes; what is in flight then is
 * waited for.  Errors: called inside a transaction block (2D000), a copy of
 * another database (55000).
 */
Datum
hubex_deliver(PG_FUNCTION_ARGS)
{
	CallContext *call = (CallContext *) fcinfo->context;
	TimestampTz deadline;
	MemoryContext context;
	HxDelivery *delivery;
	char	   *server = NULL;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("hubex_deliver() cannot run inside a transaction block"),
				 errdetail("It commits before it sends.")));
	if (XactIsoLevel != XACT_READ_COMMITTED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("hubex_deliver() needs the isolation level read committed"),
				 errhint("SET default_transaction_isolation = 'read committed'.")));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", "timeout", "null")));
	if (!PG_ARGISNULL(0))
		server = hx_account_only_server(NameStr(*PG_GETARG_NAME(0)));
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   PG_GETARG_DATUM(1)));

	/* A portal's memory: it outlives the commits and goes with an error. */
	context = AllocSetContextCreate(PortalContext, "hubex deliver", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	hx_procedure_enter();
	MemoryContextSwitchTo(context);
	delivery = hx_delivery_create(&hx_procedure_transactions, server);

	for (;;)
	{
		MemoryContext step = AllocSetContextCreate(context, "hubex deliver step", ALLOCSET_DEFAULT_SIZES);
		int64		wish;

		MemoryContextSwitchTo(step);
		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= deadline)
			hx_delivery_stop_claiming(delivery);
		wish = hx_delivery_step(delivery);
		if (hx_delivery_held(delivery) != NULL && hx_delivery_idle(delivery))
			hx_binding_report_held(ERROR, hx_delivery_held(delivery));
		MemoryContextSwitchTo(context);
		MemoryContextDelete(step);
		if (wish < 0 || (wish > 0 && hx_delivery_idle(delivery)))
			break;
		hx_delivery_wait(delivery, wish);
	}

	/* The worker, where there is one, does this by the way. */
	if (hx_shared() == NULL && !hx_delivery_gone(delivery))
		hx_retention_walk(&hx_procedure_transactions, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETENTION_MS));

	MemoryContextDelete(context);
	hx_procedure_leave();
	PG_RETURN_VOID();
}
