/*-------------------------------------------------------------------------
 *
 * retry.c
 *	  The retry policy: when and how often what failed is tried again.
 *
 * It is data: the connector's manifest has it (retry), and the options
 * retry_... of a server come before it.  How long to wait is a pure function
 * of it, so that it can be tested by a table.  The wait grows from base by
 * factor to cap; a random part of it, jitter, keeps the requests of an outage
 * from coming back together.  What the remote system asks for with
 * Retry-After is the least, up to an hour.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "utils/guc.h"

#include "connector/connector.h"
#include "connector/options.h"

PG_FUNCTION_INFO_V1(hubex_backoff);

/* No remote system puts a request off for longer. */
#define RETRY_AFTER_MAX_MS	(60 * 60 * 1000)

static double
number(const Jsonb *manifest, const char *member, List *options, const char *option, double otherwise)
{
	const char *text = option ? hx_option_get(options, option) : NULL;
	double		value = hx_json_double(manifest, member, otherwise);

	if (text != NULL)
		(void) parse_real(text, &value, 0, NULL);
	return value;
}

static double
seconds(const Jsonb *manifest, const char *member, List *options, const char *option, double otherwise)
{
	const char *text = hx_option_get(options, option);
	double		value = hx_json_double(manifest, member, otherwise);

	if (text != NULL)
		(void) hx_option_long_seconds(text, &value);
	return value;
}

/* Reads the policy from a manifest and the options of a server, NIL for none. */
void
hx_retry_read(const Jsonb *manifest, List *server_options, HxRetry *retry)
{
	retry->attempts = (int) Min(number(manifest, "retry.attempts", server_options, "retry_attempts", PG_INT32_MAX), PG_INT32_MAX);
	retry->base = seconds(manifest, "retry.base", server_options, "retry_base", 1);
	retry->factor = number(manifest, "retry.factor", server_options, "retry_factor", 2);
	retry->cap = seconds(manifest, "retry.cap", server_options, "retry_cap", 300);
	retry->jitter = number(manifest, "retry.jitter", server_options, "retry_jitter", 0.5);
	retry->total = seconds(manifest, "retry.total", server_options, "retry_total", 0);
	retry->circuit_failures = (int) number(manifest, "retry.circuit", NIL, NULL, 8);
}

/*
 * Milliseconds to wait after attempt number attempts (1 is the first).
 * retry_after_ms is -1 where the answer named no time; random is in [0, 1).
 */
int64
hx_retry_wait_ms(const HxRetry *retry, int attempts, int64 retry_after_ms, double random)
{
	double		wait = Min(retry->cap, retry->base * pow(retry->factor, Min(Max(attempts, 1), 1000) - 1));
	int64		wait_ms = (int64) (wait * (1 - retry->jitter + retry->jitter * random) * 1000);

	return Max(wait_ms, Min(retry_after_ms, RETRY_AFTER_MAX_MS));
}

/* Does the connector say of a status that it will not be another next time? */
bool
hx_retry_is_final(const Jsonb *manifest, int status)
{
	if (status >= 300 && status < 400)
		return true;			/* redirects are not followed */
	return hx_json_has(hx_json_part(manifest, "retry.final"), psprintf("%d", status));
}

/*
 * hubex.backoff(manifest, attempts, retry_after, random): the same in SQL, in
 * seconds, to see and to test a policy.
 */
Datum
hubex_backoff(PG_FUNCTION_ARGS)
{
	int64		retry_after = PG_ARGISNULL(2) ? -1 : (int64) (PG_GETARG_FLOAT8(2) * 1000);
	HxRetry		retry;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	hx_retry_read(PG_GETARG_JSONB_P(0), NIL, &retry);
	PG_RETURN_FLOAT8(hx_retry_wait_ms(&retry, PG_GETARG_INT32(1), retry_after, PG_GETARG_FLOAT8(3)) / 1000.0);
}
