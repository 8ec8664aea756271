/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  The end of an attempt that failed: once more later, or never again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "outbox/outbox.h"

/*
 * Ends the attempt: the request waits for its next one as the retry policy of
 * the account says, or is given up: after the last attempt, or where the next
 * one would come after the policy's total time or the request's own expiry.
 * retry_after_ms is -1 where the answer named no time.
 */
void
hx_outbox_try_again(const HxAccount *account, HxRequest *request, int64 retry_after_ms, char *error)
{
	const HxRetry *retry = &account->retry;
	HxOutcome  *outcome = &request->outcome;
	int64		wait_ms = hx_retry_wait_ms(retry, request->attempts, retry_after_ms,
										   pg_prng_double(&pg_global_prng_state));
	TimestampTz next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	const char *given_up = NULL;

	if (request->attempts >= retry->attempts)
		given_up = psprintf("given up after %d attempts", request->attempts);
	else if (retry->total > 0 && next - request->tried_since > retry->total * USECS_PER_SEC)
		given_up = psprintf("given up after %.0f seconds", (double) (GetCurrentTimestamp() - request->tried_since) / USECS_PER_SEC);
	else if (request->expires_at != 0 && next >= request->expires_at)
		given_up = "it expires before the next attempt";

	request->step = HX_STEP_DONE;
	outcome->verdict = given_up ? HX_DEAD : HX_RETRY;
	outcome->error = given_up ? psprintf("%s (%s)", error, given_up) : error;
	outcome->next_attempt_at = given_up ? 0 : next;
}
