/*-------------------------------------------------------------------------
 *
 * schedule_store.c
 *	  Which runs are due.
 *
 * A subscription with neither every nor full_every is for hubex_sync() alone.
 * One of another place, or of a server that is paused, has nothing due; its
 * time stays as it is, so that it is the first when it may go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/statement_store.h"
#include "sync/schedule.h"

/*
 * Does any subscription of this database ask for a worker?  In a transaction
 * that holds the extension.
 */
bool
hx_schedule_wanted(void)
{
	static HxStatement any = {
		"SELECT FROM hubex.subscription s WHERE s.every IS NOT NULL OR s.full_every IS NOT NULL LIMIT 1", 0
	};

	return hx_statement_count(&any, NULL, NULL) > 0;
}

/*
 * The runs that the worker may do, those that are due now, or later, or not
 * any more, the earliest first: a List of HxDueRun *, palloc'd.
 */
List *
hx_schedule_due(const pg_uuid_t *binding)
{
	static HxStatement list = {
		"SELECT s.name, k.sweep, k.at, s.created_at"
		"  FROM hubex.subscription s"
		"  JOIN hubex.subscription_state t ON t.subscription = s.name"
		" CROSS JOIN LATERAL (VALUES (false, CASE WHEN s.mode <> 'full' AND s.every IS NOT NULL AND t.\"cursor\" IS NOT NULL"
		"                                        THEN t.next_at END),"
		"                           (true, COALESCE(t.next_full_at, t.filled_at + s.full_every))) AS k (sweep, at)"
		"  LEFT JOIN pg_foreign_table f ON f.ftrelid = s.foreign_table"
		"  LEFT JOIN pg_foreign_server r ON r.oid = f.ftserver"
		" WHERE s.binding = $1 AND (s.every IS NOT NULL OR s.full_every IS NOT NULL)"
		"   AND NOT EXISTS (SELECT FROM hubex.server_state p WHERE p.server = r.srvname AND p.paused_at IS NOT NULL)"
		" ORDER BY k.at, s.name, k.sweep",
		1, {UUIDOID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum		arg = UUIDPGetDatum(binding);
	List	   *runs = NIL;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&list, &arg, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(here);
		HxDueRun   *run = palloc(sizeof(HxDueRun));
		bool		isnull;

		run->subscription = hx_column_text(row, desc, 1, here);
		run->kind = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull)) ? HX_SYNC_SWEEP : HX_SYNC_INCREMENTAL;
		run->at = DatumGetTimestampTz(SPI_getbinval(row, desc, 3, &isnull));
		if (isnull)
			run->at = PG_INT64_MAX;
		run->made_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 4, &isnull));
		runs = lappend(runs, run);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return runs;
}
