/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  hubex_wait: until a request has reached its end.
 *
 * Sleeps on a condition variable that the deliverers broadcast, and looks now
 * and then anyway.  Every look takes a snapshot of its own, so it sees the
 * end also in a transaction whose own snapshot is older.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/shared.h"
#include "compat.h"
#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(hubex_wait);

#define WAIT_LOOK_MS	1000

/*
 * hubex_wait(request_id, timeout) -> state.  Errors: no such request of this
 * role (42704), a request this transaction put in itself (55000), nobody to
 * deliver it (55000).
 */
Datum
hubex_wait(PG_FUNCTION_ARGS)
{
	static uint32 event = 0;
	int64		id = PG_GETARG_INT64(0);
	TimestampTz deadline;
	char	   *state;
	bool		own;

	if (event == 0)
		event = hx_wait_event("HubexDelivered");
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   PG_GETARG_DATUM(1)));
	if (hx_shared() != NULL)
		ConditionVariablePrepareToSleep(&hx_shared()->delivered);

	for (;;)
	{
		long		left;

		if (!hx_outbox_state(id, &state, &own))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("request " INT64_FORMAT " does not exist", id),
					 errdetail("There is none of that id, or it is another role's.")));
		if (strcmp(state, "waiting") != 0 && strcmp(state, "sending") != 0)
			break;
		if (own)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("request " INT64_FORMAT " was enqueued by this transaction", id),
					 errdetail("It is sent only after COMMIT."),
					 errhint("Commit first, then wait.")));
		if (hx_shared() == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("there is no delivery worker to wait for"),
					 errdetail("hubex is not in shared_preload_libraries."),
					 errhint("CALL hubex_deliver() delivers in this session, and pg_cron can run it; or add hubex to shared_preload_libraries and restart.")));
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (left <= 0)
			break;
		ConditionVariableTimedSleep(&hx_shared()->delivered, Min(left, WAIT_LOOK_MS), event);
		CHECK_FOR_INTERRUPTS();
	}
	ConditionVariableCancelSleep();
	PG_RETURN_TEXT_P(cstring_to_text(state));
}
