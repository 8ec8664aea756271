/*-------------------------------------------------------------------------
 *
 * subscription_store.c
 *	  The rows of hubex.subscription, and of its state.
 *
 * The state says how far a subscription has come.  It is written in the
 * transactions whose work it tells of, so after any crash it is true.  Who
 * applies something locks the row of the state first: so a sweep and an
 * incremental run take turns, transaction by transaction, and a subscription
 * that is dropped or changed meanwhile is noticed before anything is written.
 *
 * When a run is due next is decided here, and nowhere else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/binding.h"
#include "base/owner.h"
#include "base/statement_store.h"
#include "compat.h"
#include "sync/sync.h"

enum
{
	S_NAME = 1, S_OWNER, S_BINDING, S_FOREIGN_TABLE, S_TARGET, S_INCREMENTAL, S_FULL, S_OVERLAP, S_DELETES, S_LIMIT,
	S_DRIFT, S_COLUMNS, S_OWNERS, S_FILTER, S_DEFINITION, S_PAUSED, S_CURSOR, S_FILLED, S_SWEEP_BEGAN,
	S_SWEEP_DEFINITION, S_SWEEP_CURSOR, S_SWEEP_POSITION, S_SWEEP_KEYS, S_SWEEP_READ, S_SWEEP_MISSING, S_SWEEP_CONFIRMED,
	S_INCREMENTAL_DUE, S_SWEEP_DUE, S_MISFITS, S_CHANGED_HERE, S_SWEEPS
};

/*
 * What is mirrored where is all that makes what was read of it useless when it
 * changes; of the foreign table that is its options, but for those that say
 * only how it is read.  Which tables these are is told by created_at: a name
 * may change, and an oid is another one where a dump is restored.
 */
#define LOAD \
	"SELECT s.name, s.owner::text, s.binding, s.foreign_table::oid, s.target::oid, s.mode <> 'full', s.mode <> 'incremental'," \
	"       (extract(epoch FROM s.\"overlap\") * 1000000)::bigint, s.deletes, s.delete_limit, s.on_drift, s.columns," \
	"       s.owners, s.filter," \
	"       hashtextextended(concat_ws(' ', extract(epoch FROM s.created_at), s.filter, r.srvname," \
	"                                  (SELECT string_agg(o, ' ') FROM unnest(f.ftoptions) o" \
	"                                    WHERE o !~ '^(page_size|on_error)=')), 0)," \
	"       CASE WHEN p.paused_at IS NOT NULL" \
	"            THEN format('Server \"%s\" is paused%s', p.server, COALESCE(': ' || p.reason, '')) END," \
	"       t.\"cursor\", t.filled_at, t.sweep_began_at, t.sweep_definition, t.sweep_cursor, t.sweep_position, t.sweep_keys," \
	"       t.sweep_read_at IS NOT NULL, COALESCE(t.sweep_missing, -1), t.sweep_confirmed," \
	"       s.mode <> 'full' AND t.next_at <= now(), t.next_full_at <= now(), t.drift," \
	"       EXISTS (SELECT FROM hubex.local_change c WHERE c.subscription = t.subscription), t.sweeps" \
	"  FROM hubex.subscription_state t" \
	"  JOIN hubex.subscription s ON s.name = t.subscription" \
	"  LEFT JOIN pg_foreign_table f ON f.ftrelid = s.foreign_table" \
	"  LEFT JOIN pg_foreign_server r ON r.oid = f.ftserver" \
	"  LEFT JOIN hubex.server_state p ON p.server = r.srvname" \
	" WHERE t.subscription = $1"

static Datum
column(int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, isnull);
}

static bool
column_bool(int number)
{
	bool		isnull;
	Datum		value = column(number, &isnull);

	return !isnull && DatumGetBool(value);
}

static int64
column_int(int number)
{
	bool		isnull;
	Datum		value = column(number, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static char *
column_text(int number, MemoryContext cxt)
{
	return hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, cxt);
}

/* The texts of an array, none where there is none. */
static List *
column_texts(int number, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	bool		isnull;
	Datum		value = column(number, &isnull);
	List	   *texts = NIL;

	if (!isnull)
	{
		Datum	   *values;
		bool	   *nulls;
		int			n;

		deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
		for (int i = 0; i < n; i++)
			texts = lappend(texts, TextDatumGetCString(values[i]));
	}
	MemoryContextSwitchTo(old);
	return texts;
}

/* False where there is none. */
static bool
column_time(int number, TimestampTz *time)
{
	bool		isnull;
	Datum		value = column(number, &isnull);

	*time = isnull ? 0 : DatumGetTimestampTz(value);
	return !isnull;
}

static Jsonb *
column_json(int number, MemoryContext cxt)
{
	return hx_column_jsonb(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, cxt);
}

/* May anything be read?  The reason why not; NULL: it may. */
static const char *
why_held(HxSubscription *subscription, MemoryContext cxt)
{
	bool		isnull;
	pg_uuid_t	binding = *DatumGetUUIDP(column(S_BINDING, &isnull));
	MemoryContext old = MemoryContextSwitchTo(cxt);
	pg_uuid_t	here;
	char	   *why;

	if (!hx_binding_holds(&here, &why) && memcmp(&binding, &here, sizeof(pg_uuid_t)) != 0)
	{
		subscription->foreign = true;
		why = pstrdup("It came here with a copy of another database, which has it too");
	}
	MemoryContextSwitchTo(old);
	return why ? why : column_text(S_PAUSED, cxt);
}

/* The role it acts as; InvalidOid where it is gone, which is an error for who would act. */
static Oid
find_owner(const char *role, const char *subscription, bool must_exist)
{
	Oid			owner = get_role_oid(role, true);

	if (!OidIsValid(owner) && must_exist)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist any more", role),
				 errdetail("It is who subscription \"%s\" acts as.", subscription),
				 errhint("hubex_unsubscribe() ends the subscription; another role can then subscribe with the same table.")));
	return owner;
}

static void
fill(HxSubscription *subscription, bool acts, MemoryContext cxt)
{
	static const char *const deletes[] = {[HX_DELETES_DELETE] = "delete",[HX_DELETES_MARK] = "mark",[HX_DELETES_IGNORE] = "ignore"};
	static const char *const drifts[] = {[HX_DRIFT_ERROR] = "error",[HX_DRIFT_NULL] = "null",[HX_DRIFT_IGNORE] = "ignore"};
	char	   *text;
	bool		isnull;
	TimestampTz time;

	subscription->name = column_text(S_NAME, cxt);
	subscription->owner = find_owner(column_text(S_OWNER, cxt), subscription->name, acts);
	subscription->held = why_held(subscription, cxt);
	subscription->definition = column_int(S_DEFINITION);
	subscription->foreign_table = DatumGetObjectId(column(S_FOREIGN_TABLE, &isnull));
	subscription->target = DatumGetObjectId(column(S_TARGET, &isnull));
	subscription->incremental = column_bool(S_INCREMENTAL);
	subscription->full = column_bool(S_FULL);
	subscription->overlap_us = column_int(S_OVERLAP);
	text = column_text(S_DELETES, cxt);
	for (int i = 0; i < lengthof(deletes); i++)
		if (strcmp(text, deletes[i]) == 0)
			subscription->deletes = i;
	text = column_text(S_DRIFT, cxt);
	for (int i = 0; i < lengthof(drifts); i++)
		if (strcmp(text, drifts[i]) == 0)
			subscription->on_drift = i;
	subscription->delete_limit = DatumGetFloat8(column(S_LIMIT, &isnull));
	subscription->columns = column_json(S_COLUMNS, cxt);
	subscription->owners = column_json(S_OWNERS, cxt);
	subscription->filter = column_json(S_FILTER, cxt);

	subscription->has_cursor = column_time(S_CURSOR, &subscription->cursor);
	subscription->filled = column_time(S_FILLED, &time);
	subscription->has_sweep_cursor = column_time(S_SWEEP_CURSOR, &subscription->sweep_cursor);
	subscription->sweeping = column_time(S_SWEEP_BEGAN, &subscription->sweep_began_at);
	subscription->sweeps = column_int(S_SWEEPS);
	subscription->sweep_definition = column_int(S_SWEEP_DEFINITION);
	subscription->sweep_position = column_int(S_SWEEP_POSITION);
	subscription->sweep_keys = column_texts(S_SWEEP_KEYS, cxt);
	subscription->sweep_read = column_bool(S_SWEEP_READ);
	subscription->sweep_missing = column_int(S_SWEEP_MISSING);
	subscription->sweep_confirmed = column_bool(S_SWEEP_CONFIRMED);
	subscription->sweep_held = subscription->sweeping && subscription->sweep_missing >= 0 && !subscription->sweep_confirmed;
	if (subscription->sweep_held)
		subscription->sweeping = false;
	subscription->incremental_due = column_bool(S_INCREMENTAL_DUE);
	subscription->sweep_due = column_bool(S_SWEEP_DUE);
	subscription->drift = column_json(S_MISFITS, cxt);
	subscription->changed_here = column_bool(S_CHANGED_HERE);
}

/*
 * Loads a subscription with its state as they are now, palloc'd; NULL: there is
 * none of that name.  With lock, nobody else applies anything for it before the
 * transaction ends, and it is not dropped; then its owner must be a role still
 * (42704).
 */
HxSubscription *
hx_subscription_load(const char *name, bool lock)
{
	static HxStatement load = {LOAD, 1, {TEXTOID}};
	static HxStatement load_locked = {LOAD " FOR NO KEY UPDATE OF t", 1, {TEXTOID}};
	MemoryContext here = CurrentMemoryContext;
	HxSubscription *subscription = NULL;
	Datum		arg = CStringGetTextDatum(name);
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(lock ? &load_locked : &load, &arg, NULL);
	if (SPI_processed > 0)
	{
		subscription = MemoryContextAllocZero(here, sizeof(HxSubscription));
		fill(subscription, lock, here);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return subscription;
}

/* Says that there is no subscription of a name. */
void
hx_subscription_report_missing(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("subscription \"%s\" does not exist", name),
			 errhint("hubex_subscribe() makes one; hubex.subscription lists those there are.")));
}

/* Only who may act as its owner may touch a subscription, or an administrator of hubex; else an error (42501). */
void
hx_subscription_check_right(const HxSubscription *subscription)
{
	Oid			connectors;
	Oid			owner;

	if (OidIsValid(subscription->owner) && has_privs_of_role(GetUserId(), subscription->owner))
		return;
	if (hx_owner_table("connector", &connectors, &owner) &&
		pg_class_aclcheck(connectors, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for subscription \"%s\"", subscription->name),
			 OidIsValid(subscription->owner)
			 ? errdetail("It belongs to role \"%s\".", GetUserNameFromId(subscription->owner, false))
			 : errdetail("It belongs to a role that does not exist any more.")));
}

static uint64
change_by_name(HxStatement *statement, const char *name)
{
	Datum		arg = CStringGetTextDatum(name);

	return hx_statement_count(statement, &arg, NULL);
}

static ArrayType *
text_array(List *texts)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(list_length(texts), 1));
	int			n = 0;
	ListCell   *cell;

	foreach(cell, texts)
		values[n++] = CStringGetTextDatum((char *) lfirst(cell));
	return construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Adds what a step came to; the drift of a column is counted from when it was first seen. */
void
hx_subscription_note(const char *name, const HxSyncNote *note)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state SET \"cursor\" = GREATEST(\"cursor\", $2),"
		"       sweep_position = COALESCE($3, sweep_position), sweep_total = COALESCE($4, sweep_total),"
		"       sweep_keys = COALESCE($11, sweep_keys),"
		"       requests = requests + $5, inserted = inserted + $6, updated = updated + $7, deleted = deleted + $8,"
		"       unchanged = unchanged + $9,"
		"       drift = CASE WHEN $10 IS NULL THEN drift ELSE"
		"           (SELECT jsonb_object_agg(column_name, COALESCE(n.value, o.value) || jsonb_build_object("
		"                       'since', COALESCE(o.value -> 'since', to_jsonb(now())),"
		"                       'count', COALESCE((o.value ->> 'count')::bigint, 0) + COALESCE((n.value ->> 'count')::bigint, 0)))"
		"              FROM jsonb_each(drift) AS o (column_name, value)"
		"              FULL JOIN jsonb_each($10) AS n (column_name, value) USING (column_name)) END"
		" WHERE subscription = $1",
		11, {TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, JSONBOID, TEXTARRAYOID}
	};
	static const HxApplied nothing;
	const HxApplied *applied = note->applied ? note->applied : &nothing;
	Datum		args[11];
	char		nulls[12] = "           ";

	args[0] = CStringGetTextDatum(name);
	args[1] = TimestampTzGetDatum(note->cursor);
	nulls[1] = note->has_cursor ? ' ' : 'n';
	args[2] = Int64GetDatum(note->position);
	nulls[2] = note->position < 0 ? 'n' : ' ';
	args[3] = Int64GetDatum(note->total);
	nulls[3] = note->total < 0 ? 'n' : ' ';
	args[4] = Int64GetDatum(note->requests);
	args[5] = Int64GetDatum(applied->inserted);
	args[6] = Int64GetDatum(applied->updated);
	args[7] = Int64GetDatum(applied->deleted);
	args[8] = Int64GetDatum(applied->unchanged + applied->older);
	args[9] = hx_pointer_or_null(applied->drift, &nulls[9]);
	args[10] = PointerGetDatum(text_array(note->keys));
	nulls[10] = note->keys == NIL ? 'n' : ' ';
	(void) hx_statement_count(&update, args, nulls);
}

/* A sweep begins, at its beginning.  It is due until it ends, so that who finds it left behind goes on with it. */
void
hx_sweep_begin(const HxSubscription *subscription, TimestampTz now)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state SET sweeps = sweeps + 1, sweep_began_at = $2, sweep_definition = $3, sweep_position = 0,"
		"       sweep_keys = NULL, sweep_total = NULL, sweep_read_at = NULL, sweep_missing = NULL, sweep_confirmed = false, drift = NULL,"
		"       last_started_at = $2, next_full_at = $2"
		" WHERE subscription = $1",
		3, {TEXTOID, TIMESTAMPTZOID, INT8OID}
	};
	Datum		args[3];

	args[0] = CStringGetTextDatum(subscription->name);
	args[1] = TimestampTzGetDatum(now);
	args[2] = Int64GetDatum(subscription->definition);
	(void) hx_statement_count(&update, args, NULL);
}

/* The newest remote change before the first sweep: incremental runs begin there. */
void
hx_sweep_set_newest(const char *name, TimestampTz newest)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state SET sweep_cursor = $2, \"cursor\" = COALESCE(\"cursor\", $2)"
		" WHERE subscription = $1",
		2, {TEXTOID, TIMESTAMPTZOID}
	};
	Datum		args[2] = {CStringGetTextDatum(name), TimestampTzGetDatum(newest)};

	(void) hx_statement_count(&update, args, NULL);
}

/* No sweep is under way any more: what one has read so far is of no use. */
void
hx_sweep_give_up(const char *name)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state SET sweep_began_at = NULL, sweep_definition = NULL, sweep_position = 0,"
		"       sweep_keys = NULL, sweep_total = NULL, sweep_read_at = NULL, sweep_missing = NULL, sweep_confirmed = false"
		" WHERE subscription = $1",
		1, {TEXTOID}
	};

	(void) change_by_name(&update, name);
}

/* The sweep has read the whole list. */
void
hx_sweep_set_read(const char *name, TimestampTz now)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state SET sweep_read_at = $2 WHERE subscription = $1", 2, {TEXTOID, TIMESTAMPTZOID}
	};
	Datum		args[2] = {CStringGetTextDatum(name), TimestampTzGetDatum(now)};

	(void) hx_statement_count(&update, args, NULL);
}

/*
 * The time of the next sweep.  Where it is done at a time of day, that is one
 * of log_timezone, the only time zone that no session changes: on the day on
 * which it is due, and later than now.
 */
#define NEXT_FULL_AT \
	"(SELECT CASE WHEN s.full_every IS NULL THEN NULL" \
	"             WHEN s.full_at IS NULL OR s.full_every < interval '1 day' AND d.due::time >= s.full_at" \
	"             THEN GREATEST(t.sweep_began_at + s.full_every, now())" \
	"             WHEN (d.due::date + s.full_at) AT TIME ZONE z.name > now()" \
	"             THEN (d.due::date + s.full_at) AT TIME ZONE z.name" \
	"             WHEN (d.today + s.full_at) AT TIME ZONE z.name > now()" \
	"             THEN (d.today + s.full_at) AT TIME ZONE z.name" \
	"             ELSE (d.today + 1 + s.full_at) AT TIME ZONE z.name END" \
	"   FROM current_setting('log_timezone') AS z (name)," \
	"LATERAL (SELECT (t.sweep_began_at + s.full_every) AT TIME ZONE z.name, (now() AT TIME ZONE z.name)::date) AS d (due, today))"

/* A sweep would delete so many rows, which is too much: it waits for hubex_confirm_deletes(), or for the next sweep. */
void
hx_sweep_hold(const char *name, int64 missing)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state t SET sweep_missing = $2, sweep_confirmed = false, sweep_failures = 0,"
		"       next_full_at = " NEXT_FULL_AT ", last_ended_at = clock_timestamp()"
		"  FROM hubex.subscription s WHERE t.subscription = $1 AND s.name = $1",
		2, {TEXTOID, INT8OID}
	};
	Datum		args[2] = {CStringGetTextDatum(name), Int64GetDatum(missing)};

	(void) hx_statement_count(&update, args, NULL);
}

/* Confirms what a sweep waits to delete; false where none waits. */
bool
hx_subscription_confirm(const char *name, int64 *missing)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state SET sweep_confirmed = true, sweeps = sweeps + 1, next_full_at = now()"
		" WHERE subscription = $1 AND sweep_began_at IS NOT NULL AND sweep_missing IS NOT NULL RETURNING sweep_missing",
		1, {TEXTOID}
	};
	Datum		arg = CStringGetTextDatum(name);
	HxOwner		saved;
	bool		found;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&update, &arg, NULL);
	found = SPI_processed > 0;
	if (found)
		*missing = column_int(1);
	SPI_finish();
	hx_owner_leave(&saved);
	return found;
}

/* A sweep has come to its end. */
void
hx_sweep_end(const char *name)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state t SET filled_at = clock_timestamp(), next_full_at = " NEXT_FULL_AT ","
		"       sweep_began_at = NULL, sweep_definition = NULL, sweep_position = 0, sweep_keys = NULL,"
		"       sweep_read_at = NULL,"
		"       sweep_missing = NULL, sweep_confirmed = false, sweep_failures = 0, runs = runs + 1,"
		"       in_step_at = GREATEST(in_step_at, t.sweep_began_at),"
		"       last_ended_at = clock_timestamp()"
		"  FROM hubex.subscription s WHERE t.subscription = $1 AND s.name = $1",
		1, {TEXTOID}
	};

	(void) change_by_name(&update, name);
}

/* Where it is asked by hand only, that is no time to wait for, should somebody UPDATE every. */
#define NEXT_AT(since) "GREATEST(" since " + s.every, now())"

/* An incremental run was overtaken by a sweep: there is time until the next one. */
void
hx_incremental_put_off(const char *name)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state t SET next_at = " NEXT_AT("now()")
		"  FROM hubex.subscription s WHERE t.subscription = $1 AND s.name = $1",
		1, {TEXTOID}
	};

	(void) change_by_name(&update, name);
}

/* An incremental run that began at a time has come to its end. */
void
hx_incremental_end(const char *name, TimestampTz began_at)
{
	static HxStatement update = {
		"UPDATE hubex.subscription_state t SET failures = 0, runs = runs + 1,"
		"       next_at = " NEXT_AT("$2") ","
		"       last_started_at = $2, last_ended_at = clock_timestamp(), in_step_at = GREATEST(in_step_at, $2)"
		"  FROM hubex.subscription s WHERE t.subscription = $1 AND s.name = $1",
		2, {TEXTOID, TIMESTAMPTZOID}
	};
	Datum		args[2] = {CStringGetTextDatum(name), TimestampTzGetDatum(began_at)};

	(void) hx_statement_count(&update, args, NULL);
}

/*
 * A run ended in an error: the next one waits the longer the more have done so
 * in a row.  The two kinds are counted apart: what one of them cannot do may
 * well be what the other does every minute.
 */
void
hx_subscription_failed(const char *name, bool sweep, const char *problem, const HxRetry *retry, int64 requests)
{
	static HxStatement count = {
		"UPDATE hubex.subscription_state SET failures = failures + CASE WHEN $2 THEN 0 ELSE 1 END,"
		"       sweep_failures = sweep_failures + CASE WHEN $2 THEN 1 ELSE 0 END, requests = requests + $4,"
		"       last_error = $3, last_error_at = clock_timestamp(), last_ended_at = clock_timestamp()"
		" WHERE subscription = $1 RETURNING (CASE WHEN $2 THEN sweep_failures ELSE failures END)::bigint",
		4, {TEXTOID, BOOLOID, TEXTOID, INT8OID}
	};
	static HxStatement wait = {
		"UPDATE hubex.subscription_state t"
		"   SET next_at = CASE WHEN $2 OR s.every IS NULL THEN next_at ELSE clock_timestamp() + $3 * interval '1 ms' END,"
		"       next_full_at = CASE WHEN $2 THEN clock_timestamp() + $3 * interval '1 ms' ELSE next_full_at END"
		"  FROM hubex.subscription s WHERE t.subscription = $1 AND s.name = $1",
		3, {TEXTOID, BOOLOID, INT8OID}
	};
	Datum		args[4];
	HxOwner		saved;

	args[0] = CStringGetTextDatum(name);
	args[1] = BoolGetDatum(sweep);
	args[2] = CStringGetTextDatum(problem);
	args[3] = Int64GetDatum(requests);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&count, args, NULL);
	if (SPI_processed > 0)
	{
		int64		failures = column_int(1);

		args[2] = Int64GetDatum(hx_retry_wait_ms(retry, (int) Min(failures, PG_INT32_MAX), -1,
												 pg_prng_double(&pg_global_prng_state)));
		hx_statement_run(&wait, args, NULL);
	}
	SPI_finish();
	hx_owner_leave(&saved);
}
