/*-------------------------------------------------------------------------
 *
 * pause_store.c
 *	  hubex_pause, hubex_resume: delivery to a server held by hand.
 *
 * A row of hubex.server_state says so, and a dump keeps it.  Claims look at
 * it (outbox_store.c); what is in flight is brought to its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/owner.h"
#include "base/shared.h"
#include "connector/connector.h"
#include "outbox/stats.h"

PG_FUNCTION_INFO_V1(hubex_pause);
PG_FUNCTION_INFO_V1(hubex_resume);

static char *
server_arg(FunctionCallInfo fcinfo)
{
	return hx_account_only_server(PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0)));
}

/* Runs a statement about a server as the tables' owner, and wakes the worker at the commit. */
static void
change_state(const char *sql, int nargs, Datum *args, const char *nulls)
{
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	if (SPI_execute_with_args(sql, nargs, types, args, nulls, false, 0) < 0)
		elog(ERROR, "could not change hubex.server_state");
	SPI_finish();
	hx_owner_leave(&saved);
	hx_shared_wake_at_commit(HX_WORKER_DELIVERY, PG_INT64_MIN);
	hx_shared_wake_at_commit(HX_WORKER_SYNC, PG_INT64_MIN);
}

/*
 * hubex_pause(server, reason): nothing more is delivered to the server until
 * hubex_resume(server).  One that is paused already gets the new reason.
 */
Datum
hubex_pause(PG_FUNCTION_ARGS)
{
	Datum		args[3];
	char		nulls[4] = "   ";

	args[0] = CStringGetTextDatum(server_arg(fcinfo));
	args[1] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	if (PG_ARGISNULL(1))
		nulls[2] = 'n';
	else
		args[2] = PG_GETARG_DATUM(1);
	change_state("INSERT INTO hubex.server_state AS s (server, paused_at, paused_by, reason)"
				 " VALUES ($1::name, clock_timestamp(), $2::name, $3)"
				 " ON CONFLICT (server) DO UPDATE SET paused_at = COALESCE(s.paused_at, excluded.paused_at),"
				 " paused_by = excluded.paused_by, reason = excluded.reason",
				 3, args, nulls);
	PG_RETURN_VOID();
}

/*
 * hubex_resume(server): its requests are delivered again, and its lists read
 * for mirrors, at once: also where the remote system had asked for a pause
 * (Retry-After), or each was to wait for its next attempt.
 */
Datum
hubex_resume(PG_FUNCTION_ARGS)
{
	char	   *server = server_arg(fcinfo);
	Datum		args[1] = {CStringGetTextDatum(server)};

	change_state("UPDATE hubex.server_state SET paused_at = NULL, paused_by = NULL, reason = NULL WHERE server = $1::name",
				 1, args, NULL);
	change_state("UPDATE hubex.outbox SET next_attempt_at = now()"
				 " WHERE server = $1 AND state = 'waiting' AND attempts > 0 AND next_attempt_at > now() AND blocked_by IS NULL",
				 1, args, NULL);
	change_state("UPDATE hubex.subscription_state t"
				 "   SET next_at = CASE WHEN t.failures > 0 THEN LEAST(t.next_at, now()) ELSE t.next_at END,"
				 "       next_full_at = CASE WHEN t.sweep_failures > 0 THEN LEAST(t.next_full_at, now()) ELSE t.next_full_at END"
				 "  FROM hubex.subscription s, pg_foreign_table f, pg_foreign_server v"
				 " WHERE v.srvname = $1::name AND f.ftserver = v.oid AND s.foreign_table = f.ftrelid AND t.subscription = s.name"
				 "   AND t.failures + t.sweep_failures > 0",
				 1, args, NULL);
	hx_stats_end_pause(get_foreign_server_oid(server, false));
	PG_RETURN_VOID();
}
