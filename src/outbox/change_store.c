/*-------------------------------------------------------------------------
 *
 * change_store.c
 *	  Every change of a request's state, in one function.
 *
 * The state machine is the table below; docs/architecture.md draws it.
 * hx_outbox_change() makes any change of any number of requests, and only of
 * those that are in the state the change begins in: who comes too late (a cancel
 * after the claim, a result after a recovery) changes nothing and is told so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/statement_store.h"
#include "outbox/change.h"

static const struct
{
	const char *from;
	const char *to;
}			machine[] = {
	[HX_EVENT_CLAIM] = {"waiting", "sending"},
	[HX_EVENT_DELIVER] = {"sending", "delivered"},
	[HX_EVENT_GIVE_UP] = {"sending", "dead"},
	[HX_EVENT_PUT_BACK] = {"sending", "waiting"},
	[HX_EVENT_RECOVER] = {"sending", "waiting"},
	[HX_EVENT_EXPIRE] = {"waiting", "dead"},
	[HX_EVENT_CANCEL] = {"waiting", "cancelled"},
	[HX_EVENT_DISCARD] = {"dead", "cancelled"},
	[HX_EVENT_REVIVE] = {"dead", "waiting"},
	[HX_EVENT_RESTORE] = {"cancelled", "waiting"},
};

/* The columns of an outcome, in the order of the statement's arguments. */
enum
{
	OUTCOME_ID,
	OUTCOME_TO,
	OUTCOME_UNCERTAIN,
	OUTCOME_ATTEMPTS,			/* to add */
	OUTCOME_NEXT_ATTEMPT,
	OUTCOME_STATUS,
	OUTCOME_ERROR,
	OUTCOME_REMOTE_ID,
	OUTCOME_REMOTE_NUMBER,
	OUTCOME_RESPONSE,
	OUTCOME_MERGED_INTO,
	OUTCOME_COLUMNS
};

static const struct
{
	Oid			type;
	Oid			array;
	int			len;
	bool		byval;
	char		align;
}			columns[OUTCOME_COLUMNS] = {
	[OUTCOME_ID] = {INT8OID, INT8ARRAYOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
	[OUTCOME_TO] = {TEXTOID, TEXTARRAYOID, -1, false, TYPALIGN_INT},
	[OUTCOME_UNCERTAIN] = {BOOLOID, BOOLARRAYOID, 1, true, TYPALIGN_CHAR},
	[OUTCOME_ATTEMPTS] = {INT4OID, INT4ARRAYOID, 4, true, TYPALIGN_INT},
	[OUTCOME_NEXT_ATTEMPT] = {TIMESTAMPTZOID, TIMESTAMPTZARRAYOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
	[OUTCOME_STATUS] = {INT4OID, INT4ARRAYOID, 4, true, TYPALIGN_INT},
	[OUTCOME_ERROR] = {TEXTOID, TEXTARRAYOID, -1, false, TYPALIGN_INT},
	[OUTCOME_REMOTE_ID] = {TEXTOID, TEXTARRAYOID, -1, false, TYPALIGN_INT},
	[OUTCOME_REMOTE_NUMBER] = {TEXTOID, TEXTARRAYOID, -1, false, TYPALIGN_INT},
	[OUTCOME_RESPONSE] = {JSONBOID, JSONBARRAYOID, -1, false, TYPALIGN_INT},
	[OUTCOME_MERGED_INTO] = {INT8OID, INT8ARRAYOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
};

static void
set(Datum *values, bool *nulls, int column, Datum value, bool null)
{
	values[column] = value;
	nulls[column] = null;
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	set(values, nulls, column, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

/* One outcome as a row; what is null stays as it is in the outbox. */
static void
fill_row(const HxChange *change, Datum *values, bool *nulls)
{
	const HxOutcome *outcome = change->outcome;

	set(values, nulls, OUTCOME_ID, Int64GetDatum(change->id), false);
	set_text(values, nulls, OUTCOME_TO, machine[change->event].to);
	set(values, nulls, OUTCOME_UNCERTAIN, BoolGetDatum(outcome->uncertain), false);
	set(values, nulls, OUTCOME_ATTEMPTS, Int32GetDatum(change->attempts), false);
	set(values, nulls, OUTCOME_NEXT_ATTEMPT, TimestampTzGetDatum(change->next_attempt_at), change->next_attempt_at == 0);
	set(values, nulls, OUTCOME_STATUS, Int32GetDatum(outcome->status), outcome->status == 0);
	set_text(values, nulls, OUTCOME_ERROR, change->error);
	set_text(values, nulls, OUTCOME_REMOTE_ID, outcome->remote_id);
	set_text(values, nulls, OUTCOME_REMOTE_NUMBER, outcome->remote_number);
	set(values, nulls, OUTCOME_RESPONSE, PointerGetDatum(outcome->response), outcome->response == NULL);
	set(values, nulls, OUTCOME_MERGED_INTO, Int64GetDatum(outcome->merged_into), outcome->merged_into == 0);
}

/* The ends of attempts, all of one claimant.  Returns how many it still had. */
static int64
change_by_outcome(List *changes, TimestampTz now)
{
	static HxStatement change = {
		"UPDATE hubex.outbox o"
		"   SET state = c.to_state, claimed_by = NULL, sending_since = NULL, uncertain = c.uncertain,"
		"       attempts = o.attempts + c.attempts,"
		"       next_attempt_at = COALESCE(c.next_attempt_at, o.next_attempt_at),"
		"       last_status = COALESCE(c.status, o.last_status),"
		"       last_error = CASE WHEN c.to_state = 'delivered' THEN c.error ELSE COALESCE(c.error, o.last_error) END,"
		"       remote_id = COALESCE(c.remote_id, o.remote_id),"
		"       remote_number = COALESCE(c.remote_number, o.remote_number),"
		"       response = COALESCE(c.response, o.response), merged_into = c.merged_into,"
		"       ended_at = CASE WHEN c.to_state <> 'waiting' THEN $12 END,"
		"       delivered_at = CASE WHEN c.to_state = 'delivered' THEN $12 END"
		"  FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
		"       AS c (id, to_state, uncertain, attempts, next_attempt_at, status, error, remote_id, remote_number,"
		"             response, merged_into)"
		/* twice by id, so that no plan looks at other rows, whatever the planner thinks of the table's size */
		" WHERE o.id = ANY ($1) AND o.id = c.id AND o.state = $14 AND o.claimed_by = $13",
		OUTCOME_COLUMNS + 3
	};
	int			n = list_length(changes);
	Datum	   *values[OUTCOME_COLUMNS];
	bool	   *nulls[OUTCOME_COLUMNS];
	Datum		args[OUTCOME_COLUMNS + 3];
	ListCell   *cell;
	int			row = 0;

	for (int c = 0; c < OUTCOME_COLUMNS; c++)
	{
		change.types[c] = columns[c].array;
		values[c] = palloc(sizeof(Datum) * n);
		nulls[c] = palloc(sizeof(bool) * n);
	}
	change.types[OUTCOME_COLUMNS] = TIMESTAMPTZOID;
	change.types[OUTCOME_COLUMNS + 1] = INT8OID;
	change.types[OUTCOME_COLUMNS + 2] = TEXTOID;
	foreach(cell, changes)
	{
		Datum		row_values[OUTCOME_COLUMNS];
		bool		row_nulls[OUTCOME_COLUMNS];

		fill_row(lfirst(cell), row_values, row_nulls);
		for (int c = 0; c < OUTCOME_COLUMNS; c++)
		{
			values[c][row] = row_values[c];
			nulls[c][row] = row_nulls[c];
		}
		row++;
	}
	for (int c = 0; c < OUTCOME_COLUMNS; c++)
	{
		int			dims[1] = {n};
		int			lbs[1] = {1};

		args[c] = PointerGetDatum(construct_md_array(values[c], nulls[c], 1, dims, lbs, columns[c].type,
													 columns[c].len, columns[c].byval, columns[c].align));
	}
	args[OUTCOME_COLUMNS] = TimestampTzGetDatum(now);
	args[OUTCOME_COLUMNS + 1] = Int64GetDatum(((HxChange *) linitial(changes))->claimant);
	/* not a constant, or the planner would look through all that is being sent for each of them */
	args[OUTCOME_COLUMNS + 2] = CStringGetTextDatum(machine[HX_EVENT_DELIVER].from);

	return hx_statement_count(&change, args, NULL);
}

/* Do two changes without an outcome differ in nothing but whose they are? */
static bool
are_alike(const HxChange *change, const HxChange *other)
{
	return change->outcome == NULL && change->event == other->event && change->claimant == other->claimant &&
		change->attempts == other->attempts && change->next_attempt_at == other->next_attempt_at &&
		change->error == other->error;
}

/* The same change of many requests.  Returns how many were in the state it begins in. */
static int64
change_alike(List *changes, TimestampTz now)
{
	static HxStatement change = {
		"UPDATE hubex.outbox o"
		"   SET state = $3, claimed_by = $5, sending_since = CASE WHEN $5 IS NOT NULL THEN $8 END,"
		"       uncertain = o.uncertain OR $6,"
		"       attempts = CASE WHEN $7 < -1 THEN 0 ELSE o.attempts + $7 END,"
		"       next_attempt_at = COALESCE($9, o.next_attempt_at), last_error = COALESCE($10, o.last_error),"
		"       merged_into = NULL, blocked_by = NULL, ended_at = $11,"
		"       expires_at = CASE WHEN $7 < -1 THEN NULL ELSE o.expires_at END,"
		"       tried_since = CASE WHEN $7 < -1 THEN $8 ELSE o.tried_since END"
		" WHERE o.id = ANY ($1) AND o.state = $2 AND ($4 IS NULL OR o.claimed_by = $4)",
		11, {INT8ARRAYOID, TEXTOID, TEXTOID, INT8OID, INT8OID, BOOLOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TEXTOID, TIMESTAMPTZOID}
	};
	const HxChange *first = linitial(changes);
	int			n = list_length(changes);
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		args[11];
	char		nulls[12] = "           ";
	bool		claims = first->event == HX_EVENT_CLAIM;
	bool		ends = !claims && strcmp(machine[first->event].to, "waiting") != 0;
	ListCell   *cell;
	int			i = 0;

	foreach(cell, changes)
		ids[i++] = Int64GetDatum(((HxChange *) lfirst(cell))->id);
	args[0] = PointerGetDatum(construct_array(ids, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	args[1] = CStringGetTextDatum(machine[first->event].from);
	args[2] = CStringGetTextDatum(machine[first->event].to);
	args[3] = args[4] = Int64GetDatum(first->claimant);
	nulls[3] = claims || first->claimant == 0 ? 'n' : ' ';
	nulls[4] = claims ? ' ' : 'n';
	args[5] = BoolGetDatum(first->event == HX_EVENT_RECOVER);
	args[6] = Int32GetDatum(first->attempts);
	args[7] = TimestampTzGetDatum(now);
	args[8] = TimestampTzGetDatum(first->next_attempt_at);
	nulls[8] = first->next_attempt_at == 0 ? 'n' : ' ';
	args[9] = hx_text_or_null(first->error, &nulls[9]);
	args[10] = TimestampTzGetDatum(now);
	nulls[10] = ends ? ' ' : 'n';

	return hx_statement_count(&change, args, nulls);
}

/*
 * Changes the state of requests, a List of HxChange *, in the open
 * transaction.  Returns how many were in the state that their change begins
 * in; the others stay as they are.
 */
int64
hx_outbox_change(List *changes)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *outcomes = NIL;
	List	   *rest = NIL;
	int64		changed = 0;
	ListCell   *cell;

	foreach(cell, changes)
	{
		HxChange   *change = lfirst(cell);

		if (change->outcome != NULL)
			outcomes = lappend(outcomes, change);
		else
			rest = lappend(rest, change);
	}
	if (outcomes != NIL)
		changed += change_by_outcome(outcomes, now);
	while (rest != NIL)
	{
		HxChange   *first = linitial(rest);
		List	   *alike = NIL;
		List	   *others = NIL;

		foreach(cell, rest)
		{
			if (are_alike(lfirst(cell), first))
				alike = lappend(alike, lfirst(cell));
			else
				others = lappend(others, lfirst(cell));
		}
		changed += change_alike(alike, now);
		rest = others;
	}
	return changed;
}
