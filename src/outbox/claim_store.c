/*-------------------------------------------------------------------------
 *
 * claim_store.c
 *	  Taking requests up for sending.
 *
 * A claim walks what is due in the order in which it became due, takes what
 * stands first of its keys (order.c) and makes it `sending`, with the attempt
 * counted; that must be committed before the first byte is sent.
 *
 * Two things keep a claim as cheap in a long queue as in a short one.  It
 * begins where the one before found nothing left (due_from), so it does not
 * walk the dead index entries of what has been delivered, which nobody can
 * remove while an old snapshot is held.  And requests that wait behind others
 * of their key are put off when there are many of them, until the one they
 * wait for ends (blocked_by); should that end go unnoticed, until a time that
 * grows with their age.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/lock.h"
#include "base/owner.h"
#include "base/statement_store.h"
#include "outbox/change.h"
#include "outbox/order.h"

#define PORTION				64	/* rows of a cursor at a time */
#define BLOCKED_IN_PLACE	64	/* so many blocked ones may be walked over by each claim */
#define LARGE_IN_PLACE		256 /* and so many large ones without room */

#define CLAIM_COLUMNS \
	"o.id, o.server, o.owner, o.resource, o.operation, o.method, o.path, o.query, o.headers, o.body, o.content," \
	" o.content_type, o.attempts, o.ordering_key, o.natural_key, o.remote_id, o.stamp, o.uncertain, o.bytes," \
	" o.created_at, o.tried_since, o.expires_at, o.write_back, o.next_attempt_at, o.blocked_by"
enum
{
	C_ID = 1, C_SERVER, C_OWNER, C_RESOURCE, C_OPERATION, C_METHOD, C_PATH, C_QUERY, C_HEADERS, C_BODY, C_CONTENT,
	C_CONTENT_TYPE, C_ATTEMPTS, C_ORDERING_KEY, C_NATURAL_KEY, C_REMOTE_ID, C_STAMP, C_UNCERTAIN, C_BYTES,
	C_CREATED, C_TRIED, C_EXPIRES, C_WRITE_BACK, C_NEXT_ATTEMPT, C_BLOCKED_BY
};

/* One claims at a time, until the transaction ends: which of two requests goes first is decided by looking at both. */
void
hx_outbox_begin_claiming(void)
{
	static const HxLock lock = {HX_LOCK_CLAIM};

	hx_lock_wait_in_transaction(&lock);

	/* On disk before the first byte is sent, and so is what it sends. */
	ForceSyncCommit();
}

static Datum
column(HeapTuple row, TupleDesc desc, int number, bool *isnull)
{
	return SPI_getbinval(row, desc, number, isnull);
}

static TimestampTz
column_time(HeapTuple row, TupleDesc desc, int number)
{
	bool		isnull;
	Datum		datum = column(row, desc, number, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(datum);
}

/* What the order and the merging of requests go by, in cxt. */
static HxRequest *
read_keys(HeapTuple row, TupleDesc desc, MemoryContext cxt)
{
	HxRequest  *request = MemoryContextAllocZero(cxt, sizeof(HxRequest));
	bool		isnull;

	request->id = DatumGetInt64(column(row, desc, C_ID, &isnull));
	request->server = hx_column_text(row, desc, C_SERVER, cxt);
	request->owner = hx_column_text(row, desc, C_OWNER, cxt);
	request->resource = hx_column_text(row, desc, C_RESOURCE, cxt);
	request->operation = hx_column_text(row, desc, C_OPERATION, cxt);
	request->creates = strcmp(request->operation, "create") == 0;
	request->ordering_key = hx_column_text(row, desc, C_ORDERING_KEY, cxt);
	request->natural_key = hx_column_text(row, desc, C_NATURAL_KEY, cxt);
	request->remote_id = hx_column_text(row, desc, C_REMOTE_ID, cxt);
	request->stamp = hx_column_text(row, desc, C_STAMP, cxt);
	request->uncertain = DatumGetBool(column(row, desc, C_UNCERTAIN, &isnull));
	request->bytes = DatumGetInt64(column(row, desc, C_BYTES, &isnull));
	request->expires_at = column_time(row, desc, C_EXPIRES);
	return request;
}

/*
 * What it takes to send one.  Nothing that could fail for what a row holds is
 * done here: it would undo the whole claim.
 */
static void
read_rest(HxRequest *request, HeapTuple row, TupleDesc desc, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	bool		isnull;
	Datum		datum;

	request->method = hx_column_text(row, desc, C_METHOD, cxt);
	request->path = hx_column_text(row, desc, C_PATH, cxt);
	request->query = hx_column_jsonb(row, desc, C_QUERY, cxt);
	request->headers = hx_column_jsonb(row, desc, C_HEADERS, cxt);
	request->body = hx_column_jsonb(row, desc, C_BODY, cxt);
	datum = column(row, desc, C_CONTENT, &isnull);
	if (!isnull)
	{
		bytea	   *content = (bytea *) PG_DETOAST_DATUM_COPY(datum);

		request->content = VARDATA(content);
		request->content_len = VARSIZE(content) - VARHDRSZ;
		request->has_content = true;
	}
	request->content_type = hx_column_text(row, desc, C_CONTENT_TYPE, cxt);
	request->attempts = DatumGetInt32(column(row, desc, C_ATTEMPTS, &isnull)) + 1;
	request->created_at = column_time(row, desc, C_CREATED);
	request->tried_since = column_time(row, desc, C_TRIED);
	if (request->tried_since == 0)
		request->tried_since = request->created_at;
	request->write_back = hx_column_jsonb(row, desc, C_WRITE_BACK, cxt);
	request->outcome.uncertain = request->uncertain;
	request->outcome.remote_id = NULL;
	MemoryContextSwitchTo(old);
}

static List *
add_change(List *changes, HxEvent event, const HxRequest *request, int64 claimant)
{
	HxChange   *change = palloc0(sizeof(HxChange));

	change->event = event;
	change->id = request->id;
	change->claimant = claimant;
	if (event == HX_EVENT_CLAIM)
		change->attempts = 1;
	else
		change->error = "expired before it was delivered";
	return lappend(changes, change);
}

/* Puts requests off that wait behind others of their key. */
static void
put_off(List *blocked, TimestampTz now)
{
	static HxStatement put = {
		"UPDATE hubex.outbox o SET blocked_by = b.by,"
		"       next_attempt_at = $3 + GREATEST(interval '10 s', LEAST($3 - o.created_at, interval '1 h'))"
		"  FROM unnest($1, $2) AS b (id, by) WHERE o.id = ANY ($1) AND o.id = b.id AND o.state = 'waiting'",
		3, {INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID}
	};
	int			n = list_length(blocked);
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum	   *by = palloc(sizeof(Datum) * n);
	Datum		args[3];
	ListCell   *cell;
	int			i = 0;

	foreach(cell, blocked)
	{
		int64	   *pair = lfirst(cell);

		ids[i] = Int64GetDatum(pair[0]);
		by[i++] = Int64GetDatum(pair[1]);
	}
	args[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[1] = PointerGetDatum(construct_array(by, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[2] = TimestampTzGetDatum(now);
	hx_statement_run(&put, args, NULL);
}

/*
 * Lets those go that others wait for though they are put off themselves: what
 * stands first has nothing to wait for.  (Its release was missed while
 * somebody had it locked.)  Returns how many that are.
 */
static int64
release_firsts(List *blocked)
{
	static HxStatement release = {
		"UPDATE hubex.outbox o SET next_attempt_at = clock_timestamp(), blocked_by = NULL"
		"  FROM (SELECT f.id FROM hubex.outbox f"
		"         WHERE f.id = ANY ($1) AND f.state = 'waiting' AND f.blocked_by IS NOT NULL"
		"           FOR UPDATE SKIP LOCKED) n"
		" WHERE o.id = n.id",
		1, {INT8ARRAYOID}
	};
	Datum	   *ids = palloc(sizeof(Datum) * Max(list_length(blocked), 1));
	int64		last = 0;
	int			n = 0;
	ListCell   *cell;
	Datum		arg;

	foreach(cell, blocked)
	{
		int64		first = ((int64 *) lfirst(cell))[1];

		if (first != last)
			ids[n++] = Int64GetDatum(first);
		last = first;
	}
	if (n == 0)
		return 0;
	arg = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	hx_statement_run(&release, &arg, NULL);
	return SPI_processed;
}

/* Remembers the first that is left. */
#define NOTE_LEFT(time, id) \
	do { if ((time) == 0) { (time) = last; (id) = last_id; } } while (0)

/* What is due of a server from a place in the order of times and ids on; hashtext() is a column of the index. */
#define DUE_REQUESTS \
	"SELECT " CLAIM_COLUMNS \
	"  FROM hubex.outbox o" \
	" WHERE o.server = $1 AND hashtext(o.server) = hashtext($1) AND o.state = 'waiting' AND o.binding = $4" \
	"   AND (o.next_attempt_at, o.id) >= ($2, $7) AND o.next_attempt_at <= $3" \
	"   AND ($5 IS NULL OR (o.operation = $5 AND o.resource = $6))"

/*
 * Claims what is due of one server, as far as the room goes.  The result, a
 * List of HxRequest *, is in the current context.
 */
List *
hx_outbox_claim(int64 claimant, const pg_uuid_t *binding, HxRoom *room)
{
	static HxStatement due = {
		DUE_REQUESTS " ORDER BY o.next_attempt_at, o.id FOR UPDATE OF o SKIP LOCKED",
		7, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, UUIDOID, TEXTOID, TEXTOID, INT8OID}
	};
	static HxStatement untried = {
		DUE_REQUESTS " AND o.attempts = 0 ORDER BY o.next_attempt_at DESC, o.id DESC FOR UPDATE OF o SKIP LOCKED",
		7, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, UUIDOID, TEXTOID, TEXTOID, INT8OID}
	};
	MemoryContext here = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz left = 0;		/* of the first that is due and not taken */
	TimestampTz left_in_place = 0;	/* and of the first that is not put off either */
	int64		left_id = 0;
	int64		left_in_place_id = 0;
	int64		last_id = room->due_from_id;
	TimestampTz last = room->due_from;
	List	   *claimed = NIL;
	List	   *changes = NIL;
	List	   *blocked = NIL;	/* of int64[2]: id, by whom */
	List	   *expired = NIL;
	int64		bytes = 0;
	int			large_left = 0;
	bool		full = false;
	int64		released;
	Datum		args[7];
	char		nulls[8] = "       ";
	HxOwner		saved;
	HxOrder    *order;
	Portal		cursor;

	args[0] = CStringGetTextDatum(room->server);
	args[1] = TimestampTzGetDatum(room->due_from);
	args[2] = TimestampTzGetDatum(now);
	args[3] = UUIDPGetDatum(binding);
	args[4] = hx_text_or_null(room->operation, &nulls[4]);
	args[5] = hx_text_or_null(room->resource, &nulls[5]);
	args[6] = Int64GetDatum(room->due_from_id);

	hx_owner_enter(&saved);
	SPI_connect();
	order = hx_order_begin();
	cursor = hx_statement_open(room->untried ? &untried : &due, args, nulls);
	while (!full)
	{
		SPI_cursor_fetch(cursor, true, PORTION);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed && !full; i++)
		{
			HeapTuple	row = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			HxRequest  *request = read_keys(row, desc, here);
			int64		before;
			bool		by_key;

			last = column_time(row, desc, C_NEXT_ATTEMPT);
			last_id = request->id;
			if (list_length(claimed) >= room->free || large_left > LARGE_IN_PLACE)
				full = true;
			else if (request->bytes > HX_REQUEST_SMALL_BYTES && bytes >= room->bytes)
			{
				/* small ones pass it */
				large_left++;
				NOTE_LEFT(left, left_id);
				NOTE_LEFT(left_in_place, left_in_place_id);
			}
			else if (request->expires_at != 0 && request->expires_at <= now)
			{
				changes = add_change(changes, HX_EVENT_EXPIRE, request, 0);
				expired = lappend(expired, request);
			}
			else if ((before = hx_order_before(order, request, &by_key)) == 0)
			{
				MemoryContext old = MemoryContextSwitchTo(here);

				read_rest(request, row, desc, here);
				claimed = lappend(claimed, request);
				MemoryContextSwitchTo(old);
				changes = add_change(changes, HX_EVENT_CLAIM, request, claimant);
				if (request->bytes > HX_REQUEST_SMALL_BYTES)
					bytes += request->bytes;
			}
			else
			{
				int64	   *pair = palloc(sizeof(int64) * 2);

				pair[0] = request->id;
				pair[1] = before;
				if (by_key)
					blocked = lappend(blocked, pair);
				NOTE_LEFT(left, left_id);
				if (!by_key)
					NOTE_LEFT(left_in_place, left_in_place_id);
			}
		}
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(cursor);
	hx_order_end(order);
	if (list_length(blocked) > BLOCKED_IN_PLACE)
	{
		put_off(blocked, now);
		left = left_in_place;
		left_id = left_in_place_id;
	}
	if (hx_outbox_change(changes) != list_length(changes))
		elog(ERROR, "requests changed while they were claimed");
	released = release_firsts(blocked) + hx_outbox_release_blocked(expired);
	SPI_finish();
	hx_owner_leave(&saved);

	/* Before the first that was left, or where the walk ended, or now: nothing is due. */
	if (room->operation == NULL && !room->untried)
	{
		room->due_from = left != 0 ? left : full ? last : now;
		room->due_from_id = left != 0 ? left_id : full ? last_id : 0;
	}
	room->more = full || left != 0 || released > 0;
	return claimed;
}

/* Does a request continue the one before, so that both may go as one call? */
static bool
continues(const HxRequest *before, const HxRequest *request)
{
	return strcmp(before->owner, request->owner) == 0 && strcmp(before->operation, request->operation) == 0 &&
		before->resource != NULL && request->resource != NULL && strcmp(before->resource, request->resource) == 0 &&
		(before->remote_id != NULL && request->remote_id != NULL ? strcmp(before->remote_id, request->remote_id) == 0 :
		 before->natural_key != NULL && request->natural_key != NULL &&
		 strcmp(before->natural_key, request->natural_key) == 0);
}

/*
 * Claims the waiting requests right behind one that was claimed in this
 * transaction, as far as they are of the same operation on the same record.
 * Those that went with an earlier one before go with it again, whatever pause
 * each was given: their call may have done its work, and the first alone would
 * take it back.
 */
List *
hx_outbox_claim_followers(int64 claimant, const pg_uuid_t *binding, const HxRequest *request, int most)
{
	static HxStatement these = {
		"SELECT " CLAIM_COLUMNS " FROM hubex.outbox o"
		" WHERE o.id = ANY ($1) AND o.state = 'waiting' AND o.binding = $2"
		"   AND (o.next_attempt_at <= $3 OR o.blocked_by IS NOT NULL OR o.merged_into IS NOT NULL)"
		" ORDER BY o.id FOR UPDATE OF o SKIP LOCKED",
		3, {INT8ARRAYOID, UUIDOID, TIMESTAMPTZOID}
	};
	MemoryContext here = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	const HxRequest *before = request;
	int64	   *ids = palloc(sizeof(int64) * most);
	List	   *claimed = NIL;
	List	   *changes = NIL;
	HxOwner		saved;
	HxOrder    *order;
	int			n;

	if (request->ordering_key == NULL)
		return NIL;
	hx_owner_enter(&saved);
	SPI_connect();
	order = hx_order_begin();
	n = hx_order_followers(order, request, ids, most);
	hx_order_end(order);
	if (n > 0)
	{
		Datum	   *datums = palloc(sizeof(Datum) * n);
		Datum		args[3];

		for (int i = 0; i < n; i++)
			datums[i] = Int64GetDatum(ids[i]);
		args[0] = PointerGetDatum(construct_array(datums, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		args[1] = UUIDPGetDatum(binding);
		args[2] = TimestampTzGetDatum(now);
		hx_statement_run(&these, args, NULL);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	row = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			HxRequest  *follower = read_keys(row, desc, here);
			MemoryContext old;

			/* one that is missing is locked or not due: what is behind it has to wait */
			if (follower->id != ids[i] || !continues(before, follower) || follower->bytes > HX_REQUEST_SMALL_BYTES ||
				(follower->expires_at != 0 && follower->expires_at <= now))
				break;
			old = MemoryContextSwitchTo(here);
			read_rest(follower, row, desc, here);
			claimed = lappend(claimed, follower);
			MemoryContextSwitchTo(old);
			changes = add_change(changes, HX_EVENT_CLAIM, follower, claimant);
			before = follower;
		}
	}
	if (hx_outbox_change(changes) != list_length(changes))
		elog(ERROR, "requests changed while they were claimed");
	SPI_finish();
	hx_owner_leave(&saved);
	pfree(ids);
	return claimed;
}

/*
 * Lets the next of each key go that was put off behind one of these, which
 * have reached their end.  One that somebody else is about to change is passed
 * over, for that may take long: when the one behind it is looked at, the claim
 * finds out which stands first.  Returns how many that are.
 */
int64
hx_outbox_release_blocked(List *requests)
{
	static HxStatement release = {
		"UPDATE hubex.outbox o SET next_attempt_at = clock_timestamp(), blocked_by = NULL"
		"  FROM (SELECT DISTINCT f.id"
		"          FROM unnest($1, $2) AS k (server, ordering_key),"
		"          LATERAL (SELECT n.id FROM hubex.outbox n"
		"                    WHERE n.server = k.server AND n.ordering_key = k.ordering_key AND n.blocked_by IS NOT NULL"
		"                    ORDER BY n.id LIMIT 1 FOR UPDATE SKIP LOCKED) f) n"
		" WHERE o.id = n.id AND o.state = 'waiting'",
		2, {TEXTARRAYOID, TEXTARRAYOID}
	};
	int			n = 0;
	Datum	   *servers = palloc(sizeof(Datum) * Max(list_length(requests), 1));
	Datum	   *keys = palloc(sizeof(Datum) * Max(list_length(requests), 1));
	Datum		args[2];
	ListCell   *cell;

	foreach(cell, requests)
	{
		HxRequest  *request = lfirst(cell);

		if (request->ordering_key == NULL)
			continue;
		servers[n] = CStringGetTextDatum(request->server);
		keys[n++] = CStringGetTextDatum(request->ordering_key);
	}
	if (n == 0)
		return 0;
	args[0] = PointerGetDatum(construct_array(servers, n, TEXTOID, -1, false, TYPALIGN_INT));
	args[1] = PointerGetDatum(construct_array(keys, n, TEXTOID, -1, false, TYPALIGN_INT));
	return hx_statement_count(&release, args, NULL);
}

/* Notes that the write-back of requests that were delivered is still to be done. */
void
hx_outbox_mark_unwritten(List *requests)
{
	static HxStatement mark = {
		"UPDATE hubex.outbox o SET unwritten = true, last_error = r.error,"
		"       next_attempt_at = clock_timestamp() + LEAST(GREATEST(clock_timestamp() - o.ended_at, interval '5 s'), interval '5 min')"
		"  FROM unnest($1, $2) AS r (id, error) WHERE o.id = ANY ($1) AND o.id = r.id",
		2, {INT8ARRAYOID, TEXTARRAYOID}
	};
	int			n = list_length(requests);
	Datum	   *ids = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *errors = palloc(sizeof(Datum) * Max(n, 1));
	Datum		args[2];
	ListCell   *cell;
	int			i = 0;

	if (n == 0)
		return;
	foreach(cell, requests)
	{
		HxRequest  *request = lfirst(cell);

		ids[i] = Int64GetDatum(request->id);
		errors[i++] = CStringGetTextDatum(psprintf("delivered, but not written back: %s", request->outcome.error));
	}
	args[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[1] = PointerGetDatum(construct_array(errors, n, TEXTOID, -1, false, TYPALIGN_INT));
	(void) hx_statement_count(&mark, args, NULL);
}

/* Tries again to write back what could not be written when it was delivered, some at a time. */
void
hx_outbox_write_back_again(const pg_uuid_t *binding)
{
	static HxStatement list = {
		"SELECT " CLAIM_COLUMNS ", o.remote_number, o.response FROM hubex.outbox o"
		" WHERE o.unwritten AND o.next_attempt_at <= now() AND o.binding = $1 ORDER BY o.next_attempt_at LIMIT 10"
		" FOR UPDATE OF o SKIP LOCKED",
		1, {UUIDOID}
	};
	static HxStatement written = {
		"UPDATE hubex.outbox SET unwritten = false, last_error = NULL WHERE id = $1", 1, {INT8OID}
	};
	MemoryContext here = CurrentMemoryContext;
	List	   *requests = NIL;
	List	   *unwritten = NIL;
	Datum		arg = UUIDPGetDatum(binding);
	HxOwner		saved;
	ListCell   *cell;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&list, &arg, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		HxRequest  *request = read_keys(row, desc, here);
		MemoryContext old = MemoryContextSwitchTo(here);

		read_rest(request, row, desc, here);
		request->outcome.verdict = HX_DELIVERED;
		request->outcome.remote_id = request->remote_id;
		request->outcome.remote_number = hx_column_text(row, desc, C_BLOCKED_BY + 1, here);
		request->outcome.response = hx_column_jsonb(row, desc, C_BLOCKED_BY + 2, here);
		requests = lappend(requests, request);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	MemoryContextSwitchTo(here);

	foreach(cell, requests)
	{
		HxRequest  *request = lfirst(cell);
		Datum		id = Int64GetDatum(request->id);

		if (!hx_write_back_has_time())
			break;				/* the rest goes first the next time */
		if (request->write_back != NULL && !hx_write_back(request, &request->outcome.error))
		{
			unwritten = lappend(unwritten, request);
			continue;
		}
		hx_owner_enter(&saved);
		SPI_connect();
		hx_statement_run(&written, &id, NULL);
		SPI_finish();
		hx_owner_leave(&saved);
	}
	hx_outbox_mark_unwritten(unwritten);
}
