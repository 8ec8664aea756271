/*-------------------------------------------------------------------------
 *
 * retention_store.c
 *	  Requests that ended long ago leave the outbox.
 *
 * What was delivered or cancelled longer ago than hubex.retention is deleted;
 * dead letters stay until somebody decides about them, and so does what is
 * delivered but not yet written back.
 *
 * The ids are walked in their order, a page at a time, each in a transaction
 * of its own, with a pause between them: no lock and no snapshot is held for
 * longer than a page takes, and rows somebody has locked are left to the next
 * walk.  Nothing needs an index but the primary key.  A request ends after it
 * was made, so a walk is over at the first page of which every request is
 * younger than the retention: it reads what is to go and what was left behind
 * by earlier walks, not the whole outbox.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/settings.h"
#include "outbox/outbox.h"

#define PAGE_REQUESTS		1000
#define PAGE_PAUSE_MS		50
#define WALK_EVERY_MS		60000

/*
 * Deletes what is to go of the page of requests after *id.  Returns true and
 * the last id of the page where there may be more, false at the walk's end.
 */
static bool
delete_page(TimestampTz before, int64 *id)
{
	static const char *const sql =
		"WITH page AS MATERIALIZED ("
		"  SELECT o.id, o.created_at FROM hubex.outbox o WHERE o.id > $1 ORDER BY o.id LIMIT $3),"
		" gone AS ("
		"  DELETE FROM hubex.outbox d WHERE d.id IN ("
		"    SELECT o.id FROM hubex.outbox o WHERE o.id IN (SELECT p.id FROM page p)"
		"       AND o.state IN ('delivered', 'cancelled') AND o.ended_at < $2 AND NOT o.unwritten"
		"       FOR UPDATE OF o SKIP LOCKED))"
		" SELECT max(p.id), min(p.created_at) < $2 AND count(*) = $3 FROM page p";
	static SPIPlanPtr plan = NULL;	/* kept for the life of the process */
	Oid			types[3] = {INT8OID, TIMESTAMPTZOID, INT8OID};
	Datum		args[3];
	HxOwner		saved;
	Datum		last;
	bool		isnull;
	bool		more;

	args[0] = Int64GetDatum(*id);
	args[1] = TimestampTzGetDatum(before);
	args[2] = Int64GetDatum(PAGE_REQUESTS);
	hx_owner_enter(&saved);
	SPI_connect();
	if (plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(sql, 3, types);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare the deletion of old requests");
		plan = prepared;
	}
	if (SPI_execute_plan(plan, args, NULL, false, 0) < 0 || SPI_processed != 1)
		elog(ERROR, "could not delete old requests");
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	more = !isnull && DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)) && !isnull;
	if (more)
		*id = DatumGetInt64(last);
	SPI_finish();
	hx_owner_leave(&saved);
	return more;
}

/*
 * Deletes a page, if it is time to.  Returns the milliseconds until it wants
 * to be called again.  An error is the caller's, as of any step; the walk goes
 * on where it was.
 */
int64
hx_retention_step(HxRetention *retention, const HxTransactions *transactions)
{
	MemoryContext here = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	bool		more = false;
	Oid			relation;
	Oid			owner;

	if (hx_guc_retention == 0)
		return WALK_EVERY_MS;
	if (now < retention->next)
		return Max(TimestampDifferenceMilliseconds(now, retention->next), 1);

	retention->next = TimestampTzPlusMilliseconds(now, WALK_EVERY_MS);	/* should it fail */
	transactions->begin();
	if (hx_owner_hold_extension() && hx_owner_table("outbox", &relation, &owner))
		more = delete_page(now - hx_guc_retention * USECS_PER_MINUTE, &retention->walked);
	transactions->commit();
	MemoryContextSwitchTo(here);

	if (more)
		retention->next = TimestampTzPlusMilliseconds(now, PAGE_PAUSE_MS);
	else
		retention->walked = 0;
	return Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), retention->next), 1);
}

/* A whole walk, without pauses, for as long as a time allows. */
void
hx_retention_walk(const HxTransactions *transactions, TimestampTz deadline)
{
	HxRetention retention = {0};

	do
	{
		CHECK_FOR_INTERRUPTS();
		retention.next = 0;
		(void) hx_retention_step(&retention, transactions);
	} while (retention.walked != 0 && GetCurrentTimestamp() < deadline);
}
