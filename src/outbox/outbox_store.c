/*-------------------------------------------------------------------------
 *
 * outbox_store.c
 *	  Every SQL statement over the table hubex.outbox.
 *
 * Statements run as the owner of the table (base/owner.c) and are prepared
 * once per process.  None of them opens or ends a transaction: that is the
 * caller's affair.
 *
 * Who delivers has a number, its claimant number, and holds a lock on it for
 * as long as it lives.  A row in state sending names its claimant, so whether
 * it is in flight or was left behind by a dead process is known by trying the
 * lock, exactly and at once; no time-out guesses.  The locks are PostgreSQL's
 * own advisory ones in a class that SQL cannot reach, so this works for the
 * worker and for CALL hubex_deliver() alike, with and without shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "outbox/outbox.h"

/* SQL's own advisory locks have 1 or 2 in the fourth field. */
#define CLAIMANT_LOCK_CLASS		0x4842
#define CLAIM_LOCK_CLASS		0x4843

/* A statement, prepared on first use and kept. */
typedef struct Statement
{
	const char *sql;
	int			nargs;
	Oid			types[20];
	SPIPlanPtr	plan;
} Statement;

/* Runs a statement as the table's owner, within SPI_connect/SPI_finish. */
static void
run(Statement *statement, Datum *args, const char *nulls, bool read_only)
{
	int			result;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->sql, statement->nargs, statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a statement over the outbox: %s",
				 SPI_result_code_string(SPI_result));
		statement->plan = plan;
	}
	result = SPI_execute_plan(statement->plan, args, nulls, read_only, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement over the outbox: %s", SPI_result_code_string(result));
}

static Datum
text_or_null(const char *text, char *null)
{
	*null = text ? ' ' : 'n';
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

static Datum
pointer_or_null(const void *pointer, char *null)
{
	*null = pointer ? ' ' : 'n';
	return PointerGetDatum(pointer);
}

static Datum
name_datum(const char *name)
{
	return DirectFunctionCall1(namein, CStringGetDatum(name));
}

/* A column of the current row as text copied to cxt, or NULL. */
static char *
column_text(HeapTuple tuple, int column, MemoryContext cxt)
{
	char	   *text = SPI_getvalue(tuple, SPI_tuptable->tupdesc, column);

	return text ? MemoryContextStrdup(cxt, text) : NULL;
}

/*
 * Puts a request into the outbox and returns its id; with an idempotency key
 * that this role has used for this server before, the id of that request.
 */
int64
hx_outbox_insert(const HxNewRequest *request)
{
	static Statement insert = {
		"INSERT INTO hubex.outbox (server, owner, resource, operation, method, path, query, headers, body,"
		" content, content_type, idempotency_key, ordering_key, natural_key, stamp, next_attempt_at, bytes)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, COALESCE($16, now()), $17)"
		" ON CONFLICT (server, owner, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
		" RETURNING id",
		17, {NAMEOID, NAMEOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, JSONBOID,
		BYTEAOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID, TIMESTAMPTZOID, INT8OID}
	};
	static Statement find = {
		"SELECT id FROM hubex.outbox WHERE server = $1 AND owner = $2 AND idempotency_key = $3",
		3, {NAMEOID, NAMEOID, TEXTOID}
	};
	char	   *owner = GetUserNameFromId(GetUserId(), false);
	int64		bytes = (request->body ? VARSIZE_ANY_EXHDR(request->body) : 0) +
		(request->content ? VARSIZE_ANY_EXHDR(request->content) : 0);
	Datum		args[17];
	char		nulls[18] = "                 ";
	HxOwner		saved;
	bool		isnull;
	int64		id;

	args[0] = name_datum(request->server);
	args[1] = name_datum(owner);
	args[2] = text_or_null(request->resource, &nulls[2]);
	args[3] = CStringGetTextDatum(request->operation);
	args[4] = CStringGetTextDatum(request->method);
	args[5] = CStringGetTextDatum(request->path);
	args[6] = pointer_or_null(request->query, &nulls[6]);
	args[7] = pointer_or_null(request->headers, &nulls[7]);
	args[8] = pointer_or_null(request->body, &nulls[8]);
	args[9] = pointer_or_null(request->content, &nulls[9]);
	args[10] = text_or_null(request->content_type, &nulls[10]);
	args[11] = text_or_null(request->idempotency_key, &nulls[11]);
	args[12] = text_or_null(request->ordering_key, &nulls[12]);
	args[13] = text_or_null(request->natural_key, &nulls[13]);
	args[14] = UUIDPGetDatum(request->stamp);
	args[15] = TimestampTzGetDatum(request->deliver_after);
	nulls[15] = request->has_deliver_after ? ' ' : 'n';
	args[16] = Int64GetDatum(bytes);
	if (request->body != NULL && GetDatabaseEncoding() != PG_UTF8)
	{
		char	   *text = hx_json_out(request->body);

		(void) pg_server_to_any(text, strlen(text), PG_UTF8);	/* or an error, now */
	}
	if (bytes > HX_REQUEST_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("request is too large"),
				 errdetail("Its body has %lld bytes; the limit is %d.", (long long) bytes, HX_REQUEST_MAX_BYTES)));

	hx_owner_enter(&saved);
	SPI_connect();
	run(&insert, args, nulls, false);
	if (SPI_processed == 0)
	{
		Datum		key[3] = {args[0], args[1], args[11]};

		run(&find, key, NULL, false);
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
	static Statement select = {
		"SELECT state, xmin FROM hubex.outbox WHERE id = $1 AND (owner = $2 OR $3)", 3, {INT8OID, NAMEOID, BOOLOID}
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
	args[1] = name_datum(GetUserNameFromId(GetUserId(), false));
	args[2] = BoolGetDatum(hx_owner_table("connector", &connectors, &owner) &&
						   pg_class_aclcheck(connectors, GetUserId(), ACL_INSERT) == ACLCHECK_OK);
	hx_owner_enter(&saved);
	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	run(&select, args, NULL, true);
	PopActiveSnapshot();
	found = SPI_processed > 0;
	if (found)
	{
		HeapTuple	row = SPI_tuptable->vals[0];

		*state = column_text(row, 1, here);
		*own_transaction = TransactionIdIsCurrentTransactionId(
			DatumGetTransactionId(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)));
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return found;
}

/* The numbers are an outbox's own: one made anew begins with 1 again. */
static void
claimant_tag(LOCKTAG *tag, Oid outbox, int64 claimant)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, outbox, (uint32) claimant, CLAIMANT_LOCK_CLASS);
}

/* A new claimant number, locked for as long as this process lives. */
int64
hx_outbox_new_claimant(Oid outbox)
{
	static Statement next = {"SELECT nextval('hubex.claimant')", 0};
	HxOwner		saved;
	LOCKTAG		tag;
	bool		isnull;
	int64		claimant;

	hx_owner_enter(&saved);
	SPI_connect();
	run(&next, NULL, NULL, false);
	claimant = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_owner_leave(&saved);

	claimant_tag(&tag, outbox, claimant);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
	return claimant;
}

/* Gives the number up: what it has in flight is then up for recovery. */
void
hx_outbox_end_claimant(Oid outbox, int64 claimant)
{
	LOCKTAG		tag;

	claimant_tag(&tag, outbox, claimant);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/*
 * Puts what dead claimants left in flight back to waiting, marked uncertain.
 * Returns how many requests that were.
 */
int64
hx_outbox_recover(Oid outbox, int64 claimant)
{
	static Statement list = {
		"SELECT DISTINCT claimed_by FROM hubex.outbox WHERE state = 'sending' AND claimed_by <> $1",
		1, {INT8OID}
	};
	static Statement reset = {
		"UPDATE hubex.outbox SET state = 'waiting', uncertain = true, claimed_by = NULL, sending_since = NULL,"
		" next_attempt_at = clock_timestamp(),"
		" last_error = 'the process that was sending it ended before the answer was recorded'"
		" WHERE state = 'sending' AND claimed_by = $1",
		1, {INT8OID}
	};
	Datum		arg = Int64GetDatum(claimant);
	HxOwner		saved;
	int64	   *others;
	int			nothers;
	int64		recovered = 0;

	hx_owner_enter(&saved);
	SPI_connect();
	run(&list, &arg, NULL, false);
	nothers = (int) SPI_processed;
	others = palloc(sizeof(int64) * Max(nothers, 1));
	for (int i = 0; i < nothers; i++)
	{
		bool		isnull;

		others[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	for (int i = 0; i < nothers; i++)
	{
		LOCKTAG		tag;

		claimant_tag(&tag, outbox, others[i]);
		if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
			continue;			/* alive */
		arg = Int64GetDatum(others[i]);
		run(&reset, &arg, NULL, false);
		recovered += SPI_processed;
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return recovered;
}

/*
 * The servers of hubex_fdw with the number of connections each allows, a List
 * of HxRoom *.
 */
List *
hx_outbox_servers(void)
{
	static Statement list = {
		"SELECT s.srvname::text, COALESCE(o.option_value::int, (c.manifest #>> '{limits,connections}')::int, 16)"
		"  FROM pg_foreign_server s"
		"  JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'hubex_fdw'"
		"  LEFT JOIN LATERAL pg_options_to_table(s.srvoptions) o ON o.option_name = 'max_connections'"
		"  LEFT JOIN LATERAL pg_options_to_table(s.srvoptions) n ON n.option_name = 'connector'"
		"  LEFT JOIN hubex.connector c ON c.name = n.option_value",
		0
	};
	MemoryContext here = CurrentMemoryContext;
	List	   *rooms = NIL;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	run(&list, NULL, NULL, false);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(here);
		HxRoom	   *room = palloc(sizeof(HxRoom));
		bool		isnull;

		room->server = column_text(SPI_tuptable->vals[i], 1, here);
		room->free = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		rooms = lappend(rooms, room);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return rooms;
}

/*
 * Reads a claimed row into a request, in the context given.  Nothing that could
 * fail for what a row holds is done here: it would undo the whole claim.
 */
static HxRequest *
read_request(HeapTuple row, TupleDesc desc, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	HxRequest  *request = palloc0(sizeof(HxRequest));
	bool		isnull;
	Datum		datum;

	request->id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	request->server = column_text(row, 2, cxt);
	request->owner = column_text(row, 3, cxt);
	request->resource = column_text(row, 4, cxt);
	request->creates = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
	request->method = column_text(row, 6, cxt);
	request->path = column_text(row, 7, cxt);
	datum = SPI_getbinval(row, desc, 8, &isnull);
	request->query = isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(datum);
	datum = SPI_getbinval(row, desc, 9, &isnull);
	request->headers = isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(datum);
	datum = SPI_getbinval(row, desc, 10, &isnull);
	if (!isnull)
	{
		Jsonb	   *body = (Jsonb *) PG_DETOAST_DATUM(datum);

		request->text = hx_json_out(body);
		if (body != (Jsonb *) DatumGetPointer(datum))
			pfree(body);
	}
	datum = SPI_getbinval(row, desc, 11, &isnull);
	if (!isnull)
	{
		bytea	   *content = (bytea *) PG_DETOAST_DATUM_COPY(datum);

		request->body = VARDATA(content);
		request->body_len = VARSIZE(content) - VARHDRSZ;
		request->has_content = true;
	}
	request->content_type = column_text(row, 12, cxt);
	request->attempts = DatumGetInt32(SPI_getbinval(row, desc, 13, &isnull));
	request->natural_key = column_text(row, 14, cxt);
	request->stamp = column_text(row, 15, cxt);
	request->uncertain = DatumGetBool(SPI_getbinval(row, desc, 16, &isnull));
	request->bytes = DatumGetInt64(SPI_getbinval(row, desc, 17, &isnull));
	request->created_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 18, &isnull));
	MemoryContextSwitchTo(old);
	return request;
}

/*
 * One claims at a time, until the transaction ends: which of two requests goes
 * first is decided by looking at both.
 */
static void
lock_claiming(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, CLAIM_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * What stands before a request of the same key: what is in flight; then what
 * may have done its work unseen, which has to be looked up first; then what
 * has the smaller id.
 */
#define STANDS_BEFORE \
	" AND e.id <> o.id AND (e.state = 'sending' OR (e.state = 'waiting' AND" \
	" (e.uncertain, -e.id) > (o.uncertain, -o.id)))"

/*
 * Claims what is due: up to rooms[i].free requests of each server and in_all
 * of all, in the order they became due, and while there is room for large
 * bodies (the last may exceed it).  Of one ordering key only one at a time is
 * in flight, and of one natural key too: what a look-up finds must be the
 * request's own.  They are in state sending, with the attempt counted, once
 * the transaction commits, and must not be sent before.  Returns a List of
 * HxRequest *.
 */
List *
hx_outbox_claim(int64 claimant, const HxRoom *rooms, int nrooms, int in_all)
{
	static Statement claim = {
		"WITH due AS MATERIALIZED ("
		"  SELECT c.id, c.large, room.bytes,"
		"         sum(c.large) OVER (PARTITION BY room.server ORDER BY c.next_attempt_at, c.id) - c.large AS before,"
		"         row_number() OVER (ORDER BY c.next_attempt_at, c.id) AS place"
		"    FROM unnest($2, $3, $5) AS room (server, free, bytes),"
		"    LATERAL (SELECT o.id, o.next_attempt_at, CASE WHEN o.bytes > $7 THEN o.bytes ELSE 0 END AS large"
		"               FROM hubex.outbox o"
		"              WHERE o.server = room.server AND o.state = 'waiting' AND o.next_attempt_at <= $4"
		"                AND (o.ordering_key IS NULL OR NOT EXISTS ("
		"                     SELECT FROM hubex.outbox e"
		"                      WHERE e.server = o.server AND e.ordering_key = o.ordering_key"
		"                        AND e.state IN ('waiting', 'sending')" STANDS_BEFORE "))"
		"                AND (o.natural_key IS NULL OR NOT EXISTS ("
		"                     SELECT FROM hubex.outbox e"
		"                      WHERE e.server = o.server AND e.resource = o.resource"
		"                        AND e.natural_key = o.natural_key" STANDS_BEFORE "))"
		"              ORDER BY o.next_attempt_at, o.id LIMIT room.free FOR UPDATE OF o SKIP LOCKED) c)"
		" UPDATE hubex.outbox o"
		"    SET state = 'sending', attempts = o.attempts + 1, claimed_by = $1, sending_since = $4"
		"   FROM due WHERE o.id = due.id AND (due.large = 0 OR due.before < due.bytes) AND due.place <= $6"
		" RETURNING o.id, o.server, o.owner, o.resource, o.operation = 'create', o.method, o.path, o.query,"
		"           o.headers, o.body, o.content, o.content_type, o.attempts, o.natural_key, o.stamp, o.uncertain, o.bytes, o.created_at",
		7, {INT8OID, NAMEARRAYOID, INT4ARRAYOID, TIMESTAMPTZOID, INT8ARRAYOID, INT8OID, INT8OID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum	   *servers = palloc(sizeof(Datum) * nrooms);
	Datum	   *frees = palloc(sizeof(Datum) * nrooms);
	Datum	   *bytes = palloc(sizeof(Datum) * nrooms);
	Datum		args[7];
	List	   *claimed = NIL;
	HxOwner		saved;

	for (int i = 0; i < nrooms; i++)
	{
		servers[i] = name_datum(rooms[i].server);
		frees[i] = Int32GetDatum(rooms[i].free);
		bytes[i] = Int64GetDatum(rooms[i].bytes);
	}
	args[0] = Int64GetDatum(claimant);
	args[1] = PointerGetDatum(construct_array(servers, nrooms, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR));
	args[2] = PointerGetDatum(construct_array(frees, nrooms, INT4OID, 4, true, TYPALIGN_INT));
	lock_claiming();
	args[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	args[4] = PointerGetDatum(construct_array(bytes, nrooms, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[5] = Int64GetDatum(in_all);
	args[6] = Int64GetDatum(HX_REQUEST_SMALL_BYTES);

	/* On disk before the first byte is sent, and so is what it sends. */
	ForceSyncCommit();
	hx_owner_enter(&saved);
	SPI_connect();
	run(&claim, args, NULL, false);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HxRequest  *request = read_request(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, here);
		MemoryContext old = MemoryContextSwitchTo(here);

		claimed = lappend(claimed, request);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return claimed;
}

/* The state of the table that a verdict leads to. */
static const char *
verdict_state(HxVerdict verdict)
{
	switch (verdict)
	{
		case HX_DELIVERED:
			return "delivered";
		case HX_DEAD:
			return "dead";
		case HX_RETRY:
		case HX_RETURNED:
			return "waiting";
	}
	return NULL;
}

/*
 * Records what became of requests this claimant has in flight, a List of
 * HxOutcome *, in one statement.
 */
void
hx_outbox_record(int64 claimant, List *outcomes)
{
	static Statement record = {
		"UPDATE hubex.outbox o"
		"   SET state = r.state, uncertain = r.uncertain, last_status = COALESCE(r.status, o.last_status),"
		"       last_error = CASE WHEN r.state = 'waiting' THEN COALESCE(r.error, o.last_error) ELSE r.error END,"
		"       remote_id = COALESCE(r.remote_id, o.remote_id),"
		"       remote_number = COALESCE(r.remote_number, o.remote_number),"
		"       response = COALESCE(r.response, o.response),"
		"       next_attempt_at = COALESCE(r.next_attempt_at, o.next_attempt_at),"
		"       attempts = o.attempts - r.returned::int,"
		"       delivered_at = CASE WHEN r.state = 'delivered' THEN clock_timestamp() END,"
		"       claimed_by = NULL, sending_since = NULL"
		"  FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
		"       AS r (id, state, uncertain, status, error, remote_id, remote_number, response, next_attempt_at, returned)"
		" WHERE o.id = r.id AND o.state = 'sending' AND o.claimed_by = $1",
		11, {INT8OID, INT8ARRAYOID, TEXTARRAYOID, BOOLARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		TEXTARRAYOID, JSONBARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID}
	};
	enum
	{
		COLUMNS = 10
	};
	static const struct
	{
		Oid			type;
		int			len;
		bool		byval;
		char		align;
	}			element[COLUMNS] = {
		{INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TEXTOID, -1, false, TYPALIGN_INT},
		{BOOLOID, 1, true, TYPALIGN_CHAR},
		{INT4OID, 4, true, TYPALIGN_INT},
		{TEXTOID, -1, false, TYPALIGN_INT},
		{TEXTOID, -1, false, TYPALIGN_INT},
		{TEXTOID, -1, false, TYPALIGN_INT},
		{JSONBOID, -1, false, TYPALIGN_INT},
		{TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{BOOLOID, 1, true, TYPALIGN_CHAR}
	};
	int			n = list_length(outcomes);
	Datum	   *values[COLUMNS];
	bool	   *nulls[COLUMNS];
	Datum		args[1 + COLUMNS];
	HxOwner		saved;
	ListCell   *cell;
	int			row = 0;

	for (int c = 0; c < COLUMNS; c++)
	{
		values[c] = palloc0(sizeof(Datum) * n);
		nulls[c] = palloc0(sizeof(bool) * n);
	}
	foreach(cell, outcomes)
	{
		HxOutcome  *outcome = lfirst(cell);
		char		null = ' ';

		values[0][row] = Int64GetDatum(outcome->id);
		values[1][row] = CStringGetTextDatum(verdict_state(outcome->verdict));
		values[2][row] = BoolGetDatum(outcome->uncertain);
		values[3][row] = Int32GetDatum(outcome->status);
		nulls[3][row] = outcome->status == 0;
		values[4][row] = text_or_null(outcome->error, &null);
		nulls[4][row] = null == 'n';
		values[5][row] = text_or_null(outcome->remote_id, &null);
		nulls[5][row] = null == 'n';
		values[6][row] = text_or_null(outcome->remote_number, &null);
		nulls[6][row] = null == 'n';
		values[7][row] = pointer_or_null(outcome->response, &null);
		nulls[7][row] = null == 'n';
		values[8][row] = TimestampTzGetDatum(outcome->next_attempt_at);
		nulls[8][row] = outcome->next_attempt_at == 0;
		values[9][row] = BoolGetDatum(outcome->verdict == HX_RETURNED);
		row++;
	}
	args[0] = Int64GetDatum(claimant);
	for (int c = 0; c < COLUMNS; c++)
	{
		int			dims[1] = {n};
		int			lbs[1] = {1};

		args[1 + c] = PointerGetDatum(construct_md_array(values[c], nulls[c], 1, dims, lbs, element[c].type,
														 element[c].len, element[c].byval, element[c].align));
	}

	hx_owner_enter(&saved);
	SPI_connect();
	run(&record, args, NULL, false);
	SPI_finish();
	hx_owner_leave(&saved);
}

/*
 * When the next request becomes due that is not due yet, of one server or of
 * all.  False where none waits for a time.
 */
bool
hx_outbox_next_due(const char *only_server, TimestampTz *due)
{
	static Statement next = {
		"SELECT min(n.next_attempt_at) FROM pg_foreign_server s,"
		" LATERAL (SELECT o.next_attempt_at FROM hubex.outbox o"
		"           WHERE o.server = s.srvname AND o.state = 'waiting' AND o.next_attempt_at > $2"
		"           ORDER BY o.next_attempt_at LIMIT 1) n"
		" WHERE $1 IS NULL OR s.srvname = $1",
		2, {NAMEOID, TIMESTAMPTZOID}
	};
	Datum		args[2];
	char		nulls[3] = "  ";
	HxOwner		saved;
	bool		isnull = true;

	if (only_server != NULL)
		args[0] = name_datum(only_server);
	else
		nulls[0] = 'n';
	args[1] = TimestampTzGetDatum(GetCurrentTimestamp());

	hx_owner_enter(&saved);
	SPI_connect();
	run(&next, args, nulls, false);
	if (SPI_processed > 0)
		*due = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_owner_leave(&saved);
	return !isnull;
}

/*
 * The remote ids that other requests with the same natural key are known to
 * have made, a List of char *: a record of theirs proves nothing for this one.
 */
List *
hx_outbox_known_ids(const char *server, const char *resource, const char *natural_key, int64 except)
{
	static Statement list = {
		"SELECT remote_id FROM hubex.outbox"
		" WHERE server = $1 AND resource = $2 AND natural_key = $3 AND id <> $4 AND remote_id IS NOT NULL",
		4, {NAMEOID, TEXTOID, TEXTOID, INT8OID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum		args[4];
	List	   *ids = NIL;
	HxOwner		saved;

	args[0] = name_datum(server);
	args[1] = CStringGetTextDatum(resource);
	args[2] = CStringGetTextDatum(natural_key);
	args[3] = Int64GetDatum(except);
	hx_owner_enter(&saved);
	SPI_connect();
	run(&list, args, NULL, false);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *id = column_text(SPI_tuptable->vals[i], 1, here);
		MemoryContext old = MemoryContextSwitchTo(here);

		ids = lappend(ids, id);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return ids;
}

/*
 * The transactions of a procedure: there is always one open, which holds
 * neither snapshot nor lock between commit and the next statement.
 */
void
hx_outbox_procedure_begin(void)
{
	EnsurePortalSnapshotExists();
}

void
hx_outbox_procedure_commit(void)
{
	SPI_commit();
}

/* Enters and leaves the state in which a procedure may commit. */
void
hx_outbox_procedure_enter(void)
{
	SPI_connect_ext(SPI_OPT_NONATOMIC);
}

void
hx_outbox_procedure_leave(void)
{
	SPI_finish();
}
