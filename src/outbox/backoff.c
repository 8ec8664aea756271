/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  How long a failed request waits before it is tried again.
 *
 * A pure function of the connector's policy, so that it can be tested by a
 * table.  The wait doubles (or as the policy says) up to the longest, and a
 * random half of it keeps the requests of an outage from coming back
 * together.  What the remote system asks for with Retry-After is the least,
 * up to an hour.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "utils/builtins.h"

#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(hubex_backoff);

/* No remote system puts a request off for longer. */
#define RETRY_AFTER_MAX_MS	(60 * 60 * 1000)

/*
 * Milliseconds to wait after attempt number attempts (1 is the first).
 * retry_after_ms is -1 where the answer named no time; random is in [0, 1).
 */
int64
hx_outbox_backoff_ms(const Jsonb *manifest, int attempts, int64 retry_after_ms, double random)
{
	double		first = hx_json_double(manifest, "retry.first", 1);
	double		factor = hx_json_double(manifest, "retry.factor", 2);
	double		longest = hx_json_double(manifest, "retry.longest", 300);
	double		seconds = Min(longest, first * pow(factor, Min(attempts, 1000) - 1));
	int64		wait_ms = (int64) (seconds * (0.5 + random / 2) * 1000);

	return Max(wait_ms, Min(retry_after_ms, RETRY_AFTER_MAX_MS));
}

/*
 * hubex.backoff(manifest, attempts, retry_after, random): the same in SQL, in
 * seconds, to see and to test a policy.
 */
Datum
hubex_backoff(PG_FUNCTION_ARGS)
{
	int64		retry_after = PG_ARGISNULL(2) ? -1 : (int64) (PG_GETARG_FLOAT8(2) * 1000);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(hx_outbox_backoff_ms(PG_GETARG_JSONB_P(0), PG_GETARG_INT32(1),
										  retry_after, PG_GETARG_FLOAT8(3)) / 1000.0);
}
