/*-------------------------------------------------------------------------
 *
 * outbox_store.c
 *	  Who delivers, what there is to deliver, and to whom.
 *
 * Claims are in claim_store.c, changes of state in change_store.c.  All
 * statements run as the owner of the table (base/owner.c) and are prepared
 * once per process.  None of them opens or ends a transaction: that is the
 * caller's affair.
 *
 * Who delivers has a number, its claimant number, and holds a lock on it for
 * as long as it lives.  A row in state sending names its claimant, so whether
 * it is in flight or was left behind by a dead process is known by trying the
 * lock (base/lock.c), exactly and at once; no time-out guesses.  This works for
 * the worker and for CALL hubex_deliver() alike, with and without shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/lock.h"
#include "base/owner.h"
#include "base/statement_store.h"
#include "outbox/change.h"

#define SETTLE_MS	3000		/* longer than a request takes, as a rule */

/*
 * Puts a request into the outbox by an INSERT; see insert.c for when that is
 * needed.  With an idempotency key that this role has used for this server
 * before: the id of the request there is.
 */
int64
hx_outbox_insert_by_statement(const HxNewRequest *request, const char *owner, int64 bytes)
{
	static HxStatement insert = {
		"INSERT INTO hubex.outbox (server, owner, resource, operation, method, path, query, headers, body,"
		" content, content_type, idempotency_key, ordering_key, natural_key, stamp, next_attempt_at, bytes,"
		" remote_id, write_back, binding, expires_at, tried_since)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, COALESCE($16, now()), $17,"
		" $18, $19, $20, $21, $16)"
		" ON CONFLICT (server, owner, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
		" RETURNING id",
		21, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, JSONBOID,
			BYTEAOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID, TIMESTAMPTZOID, INT8OID, TEXTOID, JSONBOID, UUIDOID,
		TIMESTAMPTZOID}
	};
	static HxStatement find = {
		"SELECT id FROM hubex.outbox WHERE server = $1 AND owner = $2 AND idempotency_key = $3",
		3, {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		args[21];
	char		nulls[22] = "                     ";
	HxOwner		saved;
	bool		isnull;
	int64		id;

	args[0] = CStringGetTextDatum(request->server);
	args[1] = CStringGetTextDatum(owner);
	args[2] = hx_text_or_null(request->resource, &nulls[2]);
	args[3] = CStringGetTextDatum(request->operation);
	args[4] = CStringGetTextDatum(request->method);
	args[5] = CStringGetTextDatum(request->path);
	args[6] = hx_pointer_or_null(request->query, &nulls[6]);
	args[7] = hx_pointer_or_null(request->headers, &nulls[7]);
	args[8] = hx_pointer_or_null(request->body, &nulls[8]);
	args[9] = hx_pointer_or_null(request->content, &nulls[9]);
	args[10] = hx_text_or_null(request->content_type, &nulls[10]);
	args[11] = hx_text_or_null(request->idempotency_key, &nulls[11]);
	args[12] = hx_text_or_null(request->ordering_key, &nulls[12]);
	args[13] = hx_text_or_null(request->natural_key, &nulls[13]);
	args[14] = UUIDPGetDatum(request->stamp);
	args[15] = TimestampTzGetDatum(request->deliver_after);
	nulls[15] = request->has_deliver_after ? ' ' : 'n';
	args[16] = Int64GetDatum(bytes);
	args[17] = hx_text_or_null(request->remote_id, &nulls[17]);
	args[18] = hx_pointer_or_null(request->write_back, &nulls[18]);
	args[19] = UUIDPGetDatum(&request->binding);
	args[20] = TimestampTzGetDatum(request->expires_at);
	nulls[20] = request->has_expires_at ? ' ' : 'n';

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&insert, args, nulls);
	if (SPI_processed == 0)
	{
		Datum		key[3] = {args[0], args[1], args[11]};

		hx_statement_run(&find, key, NULL);
		if (SPI_processed == 0)
			elog(ERROR, "the request of idempotency key \"%s\" vanished", request->idempotency_key);
	}
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_owner_leave(&saved);
	return id;
}

/*
 * The state of a request the caller may see (its own, or any where a policy
 * says so), as of now even in a transaction with an older snapshot.  False
 * where there is none.  own_transaction tells of a request that this
 * transaction put in itself, which nobody can deliver before it commits.
 */
bool
hx_outbox_state(int64 id, char **state, bool *own_transaction)
{
	static HxStatement select = {
		"SELECT state, xmin FROM hubex.outbox WHERE id = $1 AND (owner = $2 OR $3)", 3, {INT8OID, TEXTOID, BOOLOID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum		args[3];
	HxOwner		saved;
	Oid			connectors;
	Oid			owner;
	bool		found;
	bool		isnull;

	/* as the policy of the table says */
	args[0] = Int64GetDatum(id);
	args[1] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	args[2] = BoolGetDatum(hx_owner_table("connector", &connectors, &owner) &&
						   pg_class_aclcheck(connectors, GetUserId(), ACL_INSERT) == ACLCHECK_OK);
	hx_owner_enter(&saved);
	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	hx_statement_read(&select, args, NULL);
	PopActiveSnapshot();
	found = SPI_processed > 0;
	if (found)
	{
		HeapTuple	row = SPI_tuptable->vals[0];

		*state = hx_column_text(row, SPI_tuptable->tupdesc, 1, here);
		*own_transaction = TransactionIdIsCurrentTransactionId(
			DatumGetTransactionId(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)));
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return found;
}

/* The numbers are an outbox's own: one made anew begins with 1 again. */
static HxLock
claimant_lock(Oid outbox, int64 claimant)
{
	return (HxLock) {HX_LOCK_CLAIMANT, outbox, (uint32) claimant};
}

/* A new claimant number, locked for as long as this process lives. */
int64
hx_outbox_new_claimant(Oid outbox)
{
	static HxStatement next = {"SELECT nextval('hubex.claimant')", 0};
	HxOwner		saved;
	HxLock		lock;
	bool		isnull;
	int64		claimant;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&next, NULL, NULL);
	claimant = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_owner_leave(&saved);

	lock = claimant_lock(outbox, claimant);
	hx_lock_wait(&lock);
	return claimant;
}

/* Gives the number up: what it has in flight is then up for recovery. */
void
hx_outbox_end_claimant(Oid outbox, int64 claimant)
{
	HxLock		lock = claimant_lock(outbox, claimant);

	hx_lock_release(&lock);
}

/*
 * Puts what a dead claimant left in flight back to waiting, marked uncertain.
 * The remote system may still be at it, and only a creation has a stamp that
 * keeps the second from being done as well; a change sent now could be
 * overtaken by its own first attempt.  So changes wait a moment.
 */
static int64
recover_from(int64 claimant, const pg_uuid_t *binding)
{
	static HxStatement list = {
		"SELECT id, operation = 'create' FROM hubex.outbox WHERE state = 'sending' AND claimed_by = $1 AND binding = $2",
		2, {INT8OID, UUIDOID}
	};
	Datum		args[2] = {Int64GetDatum(claimant), UUIDPGetDatum(binding)};
	TimestampTz now = GetCurrentTimestamp();
	List	   *changes = NIL;

	hx_statement_run(&list, args, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HxChange   *change = palloc0(sizeof(HxChange));
		bool		isnull;

		change->event = HX_EVENT_RECOVER;
		change->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		change->claimant = claimant;
		change->next_attempt_at = now;
		if (!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull)))
			change->next_attempt_at = TimestampTzPlusMilliseconds(now, SETTLE_MS);
		change->error = "the process that was sending it ended before the answer was recorded";
		changes = lappend(changes, change);
	}
	return hx_outbox_change(changes);
}

/*
 * Finds the claimants that died with requests in flight, by their locks, and
 * puts those back.  Returns how many requests that were.
 */
int64
hx_outbox_recover(Oid outbox, int64 claimant, const pg_uuid_t *binding)
{
	static HxStatement list = {
		"SELECT DISTINCT claimed_by FROM hubex.outbox WHERE state = 'sending' AND claimed_by <> $1",
		1, {INT8OID}
	};
	Datum		arg = Int64GetDatum(claimant);
	HxOwner		saved;
	int64	   *others;
	int			nothers;
	int64		recovered = 0;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&list, &arg, NULL);
	nothers = (int) SPI_processed;
	others = palloc(sizeof(int64) * Max(nothers, 1));
	for (int i = 0; i < nothers; i++)
	{
		bool		isnull;

		others[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	for (int i = 0; i < nothers; i++)
	{
		HxLock		lock = claimant_lock(outbox, others[i]);

		if (!hx_lock_try_in_transaction(&lock))
			continue;			/* alive */
		recovered += recover_from(others[i], binding);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return recovered;
}

/*
 * Gives up what has expired while it waited, some at a time.  Returns how many
 * that waited for one of them may go on.
 */
int64
hx_outbox_expire(const pg_uuid_t *binding)
{
	static HxStatement list = {
		"SELECT id, server, ordering_key FROM hubex.outbox WHERE state = 'waiting' AND expires_at <= now() AND binding = $1"
		" ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED",
		1, {UUIDOID}
	};
	Datum		arg = UUIDPGetDatum(binding);
	List	   *changes = NIL;
	List	   *requests = NIL;
	HxOwner		saved;
	int64		released;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&list, &arg, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		HxChange   *change = palloc0(sizeof(HxChange));
		HxRequest  *request = palloc0(sizeof(HxRequest));
		bool		isnull;

		change->event = HX_EVENT_EXPIRE;
		change->id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		change->error = "expired before it was delivered";
		changes = lappend(changes, change);
		request->server = hx_column_text(row, desc, 2, CurrentMemoryContext);
		request->ordering_key = hx_column_text(row, desc, 3, CurrentMemoryContext);
		requests = lappend(requests, request);
	}
	(void) hx_outbox_change(changes);
	released = hx_outbox_release_blocked(requests);
	SPI_finish();
	hx_owner_leave(&saved);
	return released;
}

/* The servers of hubex_fdw, a List of HxOutboxServer *. */
List *
hx_outbox_servers(void)
{
	static HxStatement list = {
		"SELECT s.srvname::text, COALESCE(o.option_value::int, (c.manifest #>> '{limits,connections}')::int, 16), s.oid,"
		"       EXISTS (SELECT FROM hubex.server_state p WHERE p.server = s.srvname AND p.paused_at IS NOT NULL)"
		"  FROM pg_foreign_server s"
		"  JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'hubex_fdw'"
		"  LEFT JOIN LATERAL pg_options_to_table(s.srvoptions) o ON o.option_name = 'max_connections'"
		"  LEFT JOIN LATERAL pg_options_to_table(s.srvoptions) n ON n.option_name = 'connector'"
		"  LEFT JOIN hubex.connector c ON c.name = n.option_value",
		0
	};
	MemoryContext here = CurrentMemoryContext;
	List	   *servers = NIL;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&list, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(here);
		HxOutboxServer *server = palloc(sizeof(HxOutboxServer));
		bool		isnull;

		server->name = hx_column_text(row, desc, 1, here);
		server->connections = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
		server->oid = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
		server->paused = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
		servers = lappend(servers, server);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return servers;
}

/*
 * When the next request becomes due that is not due yet, of one server or of
 * all.  False where none waits for a time.
 */
bool
hx_outbox_next_due(const char *only_server, const pg_uuid_t *binding, TimestampTz *due)
{
	static HxStatement next = {
		"SELECT min(n.next_attempt_at) FROM pg_foreign_server s,"
		" LATERAL (SELECT o.next_attempt_at FROM hubex.outbox o"
		"           WHERE o.server = s.srvname AND hashtext(o.server) = hashtext(s.srvname::text)"
		"             AND o.binding = $3 AND o.state = 'waiting' AND o.next_attempt_at > $2"
		"           ORDER BY o.next_attempt_at LIMIT 1) n"
		" WHERE $1 IS NULL OR s.srvname = $1",
		3, {TEXTOID, TIMESTAMPTZOID, UUIDOID}
	};
	Datum		args[3];
	char		nulls[4] = "   ";
	HxOwner		saved;
	bool		isnull = true;

	if (only_server != NULL)
		args[0] = CStringGetTextDatum(only_server);
	else
		nulls[0] = 'n';
	args[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	args[2] = UUIDPGetDatum(binding);

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&next, args, nulls);
	if (SPI_processed > 0)
		*due = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_owner_leave(&saved);
	return !isnull;
}
