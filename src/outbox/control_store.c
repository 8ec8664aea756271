/*-------------------------------------------------------------------------
 *
 * control_store.c
 *	  What people do to requests: hubex_cancel, hubex_retry, hubex_retry_all.
 *
 * A role may do so to its own requests, an administrator to all, as the
 * policy of the table says.  What is being sent is out of reach until its
 * attempt has ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/binding.h"
#include "base/owner.h"
#include "base/shared.h"
#include "base/statement_store.h"
#include "outbox/change.h"

PG_FUNCTION_INFO_V1(hubex_cancel);
PG_FUNCTION_INFO_V1(hubex_retry);
PG_FUNCTION_INFO_V1(hubex_retry_all);

/* The columns a filter may name. */
static const char *const filter_columns[] = {
	"server", "owner", "resource", "operation", "method", "path", "last_status", "remote_id", "ordering_key",
	"natural_key", "idempotency_key"
};

/* Whose requests the caller may touch: its own, or with *all everybody's. */
static Datum
caller(bool *all)
{
	Oid			connectors;
	Oid			owner;

	*all = hx_owner_table("connector", &connectors, &owner) &&
		pg_class_aclcheck(connectors, GetUserId(), ACL_INSERT) == ACLCHECK_OK;
	return CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
}

/*
 * Locks a request of the caller's, or of anybody's, if it is in one of the
 * states, and tells its state; NULL where there is none.  No other is left
 * locked: the one who records what became of it would wait for the caller's
 * transaction, and with him all deliveries.  So it is looked at in a
 * subtransaction, whose locks go with it.  (SKIP LOCKED would not do: a claim
 * locks what it walks over, and a request that waits would be told to be sent.)
 */
static char *
lock_request(int64 id, bool anybody, const char *const *states, int nstates, HxRequest *request)
{
	static HxStatement lock = {
		"SELECT state, server, ordering_key FROM hubex.outbox WHERE id = $1 AND (owner = $2 OR $3) FOR UPDATE",
		3, {INT8OID, TEXTOID, BOOLOID}
	};
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	HxOwner		saved;
	bool		all;
	bool		found;
	bool		wanted = false;
	char	   *state = NULL;
	Datum		args[3];

	args[0] = Int64GetDatum(id);
	args[1] = caller(&all);
	args[2] = BoolGetDatum(all || anybody);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&lock, args, NULL);
	found = SPI_processed > 0;
	if (found)
	{
		state = hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, cxt);
		request->id = id;
		request->server = hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, cxt);
		request->ordering_key = hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, cxt);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	for (int i = 0; found && i < nstates; i++)
		wanted = wanted || strcmp(state, states[i]) == 0;
	if (wanted)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = resources;
	return state;
}

/* The same of the caller's requests; an error where there is none. */
static char *
lock_own_request(int64 id, const char *const *states, int nstates, HxRequest *request)
{
	char	   *state = lock_request(id, false, states, nstates, request);

	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("request " INT64_FORMAT " does not exist", id),
				 errdetail("There is none of that id, or it is another role's.")));
	return state;
}

/* Cancels what is locked, by an event; false where it is too late. */
static bool
cancel(HxRequest *request, HxEvent event)
{
	HxChange	change = {.id = request->id,.event = event};

	if (hx_outbox_change(list_make1(&change)) == 0)
		return false;
	(void) hx_outbox_release_blocked(list_make1(request));
	hx_shared_wake_at_commit(HX_WORKER_DELIVERY, PG_INT64_MIN);
	return true;
}

/* Cancels a request that waits, whoever's it is; false where it does not, or is gone. */
bool
hx_outbox_cancel(int64 id)
{
	static const char *const states[] = {"waiting"};
	HxRequest	request = {0};
	char	   *state = lock_request(id, true, states, lengthof(states), &request);

	return state != NULL && strcmp(state, states[0]) == 0 && cancel(&request, HX_EVENT_CANCEL);
}

/*
 * hubex_cancel(request_id) -> boolean: a request that waits or was given up
 * will not be sent.  False: it is being sent, or has reached its end.  Errors:
 * no such request of this role (42704).
 */
Datum
hubex_cancel(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {"waiting", "dead"};
	HxRequest	request = {0};
	char	   *state = lock_own_request(PG_GETARG_INT64(0), states, lengthof(states), &request);

	if (strcmp(state, "waiting") == 0)
		PG_RETURN_BOOL(cancel(&request, HX_EVENT_CANCEL));
	if (strcmp(state, "dead") == 0)
		PG_RETURN_BOOL(cancel(&request, HX_EVENT_DISCARD));
	PG_RETURN_BOOL(false);
}

/* Has requests that were retried sent from here and at once, whatever they waited for. */
static void
make_due(List *changes)
{
	static HxStatement due = {
		/* one that came with a copy may have been sent by the original */
		"UPDATE hubex.outbox SET next_attempt_at = now(), blocked_by = NULL, uncertain = uncertain OR binding <> $2, binding = $2"
		" WHERE id = ANY ($1) AND state = 'waiting'",
		2, {INT8ARRAYOID, UUIDOID}
	};
	Datum	   *ids = palloc(sizeof(Datum) * list_length(changes));
	Datum		args[2];
	pg_uuid_t	binding;
	ListCell   *cell;
	int			n = 0;

	(void) hx_binding_token(&binding);
	foreach(cell, changes)
		ids[n++] = Int64GetDatum(((HxChange *) lfirst(cell))->id);
	args[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[1] = UUIDPGetDatum(&binding);
	(void) hx_statement_count(&due, args, NULL);
	hx_shared_wake_at_commit(HX_WORKER_DELIVERY, PG_INT64_MIN);
}

/*
 * hubex_retry(request_id) -> boolean: a request that was given up or
 * cancelled waits again, with all its attempts; one that waits for its next
 * attempt has it at once.  False: it is being sent, or delivered.  Errors: no
 * such request of this role (42704).
 */
Datum
hubex_retry(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {"waiting", "dead", "cancelled"};
	HxRequest	request = {0};
	char	   *state = lock_own_request(PG_GETARG_INT64(0), states, lengthof(states), &request);
	HxChange	change = {.id = request.id,.attempts = HX_ATTEMPTS_FORGET};

	if (strcmp(state, "dead") == 0)
		change.event = HX_EVENT_REVIVE;
	else if (strcmp(state, "cancelled") == 0)
		change.event = HX_EVENT_RESTORE;
	else if (strcmp(state, "waiting") != 0)
		PG_RETURN_BOOL(false);
	if (strcmp(state, "waiting") != 0 && hx_outbox_change(list_make1(&change)) == 0)
		PG_RETURN_BOOL(false);
	make_due(list_make1(&change));
	PG_RETURN_BOOL(true);
}

static void
check_filter_column(const char *name, const JsonbValue *value, void *arg)
{
	StringInfoData names;

	for (int i = 0; i < lengthof(filter_columns); i++)
		if (strcmp(filter_columns[i], name) == 0)
			return;
	initStringInfo(&names);
	for (int i = 0; i < lengthof(filter_columns); i++)
		appendStringInfo(&names, "%s%s", i ? ", " : "", filter_columns[i]);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("\"%s\" is no column to filter requests by", name),
			 errhint("The columns are: %s.", names.data)));
}

/*
 * hubex_retry_all(filter, since, server) -> bigint: the same for all dead
 * letters that a filter by columns matches, that were given up since a time,
 * and go to a server, where these are given.  Returns how many.
 */
Datum
hubex_retry_all(PG_FUNCTION_ARGS)
{
	static HxStatement list = {
		"SELECT id FROM hubex.outbox o"
		" WHERE o.state = 'dead' AND (o.owner = $1 OR $2) AND ($4 IS NULL OR o.ended_at >= $4)"
		"   AND ($5 IS NULL OR o.server = $5)"
		"   AND ($3 IS NULL OR jsonb_build_object('server', o.server, 'owner', o.owner, 'resource', o.resource,"
		"        'operation', o.operation, 'method', o.method, 'path', o.path, 'last_status', o.last_status,"
		"        'remote_id', o.remote_id, 'ordering_key', o.ordering_key, 'natural_key', o.natural_key,"
		"        'idempotency_key', o.idempotency_key) @> $3)"
		" ORDER BY o.id FOR UPDATE",
		5, {TEXTOID, BOOLOID, JSONBOID, TIMESTAMPTZOID, TEXTOID}
	};
	MemoryContext here = CurrentMemoryContext;
	List	   *changes = NIL;
	Datum		args[5];
	char		nulls[6] = "     ";
	HxOwner		saved;
	bool		all;

	if (!PG_ARGISNULL(0))
	{
		Jsonb	   *filter = PG_GETARG_JSONB_P(0);

		if (!JB_ROOT_IS_OBJECT(filter))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" must be a JSON object", "filter")));
		hx_json_each(filter, check_filter_column, NULL);
	}
	args[0] = caller(&all);
	args[1] = BoolGetDatum(all);
	for (int i = 0; i < 2; i++)
	{
		args[2 + i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[2 + i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	args[4] = hx_text_or_null(PG_ARGISNULL(2) ? NULL : NameStr(*PG_GETARG_NAME(2)), &nulls[4]);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&list, args, nulls);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HxChange   *change = MemoryContextAllocZero(here, sizeof(HxChange));
		MemoryContext old = MemoryContextSwitchTo(here);
		bool		isnull;

		change->event = HX_EVENT_REVIVE;
		change->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		change->attempts = HX_ATTEMPTS_FORGET;
		changes = lappend(changes, change);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	if (changes != NIL)
	{
		(void) hx_outbox_change(changes);
		make_due(changes);
	}
	PG_RETURN_INT64(list_length(changes));
}
