/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  Changes made here that no record will tell of any more.
 *
 * A request that was given up has changed nothing over there, so no answer
 * will come that shows what the record has instead: the mirror is given back what
 * the remote side had as last seen, and the row that was deleted here comes
 * back.  If the request is retried later and goes through, the record comes as
 * any other that has changed.
 *
 * A change that was delivered before the run began, and is not settled by what
 * the run has read, made no difference there: the record had the value already, or
 * does not belong to the list any more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/restricted.h"
#include "sync/two_way.h"

typedef struct Settling
{
	const HxMirror *mirror;
	const char *name;			/* of the subscription */
	TimestampTz began_at;
	Bitmapset  *all;			/* columns of the mirror that the target has */
	HxChangeNotes notes;
	List	   *rows;			/* of HxBatchRow *: to be applied */
	List	   *revived;		/* of HxLocalChange *: deletes whose rows are among them */
} Settling;

static void
forget(Settling *settling, HxLocalChange *change)
{
	settling->notes.forget = lappend(settling->notes.forget, change);
}

static void
note_refusal(Settling *settling, const HxLocalChange *change)
{
	HxConflict *conflict = palloc0(sizeof(HxConflict));

	conflict->key = change->kind == HX_CHANGE_CREATE ? "" : change->key;
	conflict->column = change->column;
	conflict->reason = "refused";
	conflict->message = change->message;
	conflict->base = change->remote;
	conflict->local = change->local;
	conflict->remote = change->kind == HX_CHANGE_UPDATE ? change->remote : NULL;
	conflict->request = change->request;
	settling->notes.conflicts = lappend(settling->notes.conflicts, conflict);
}

static int
column_of_name(const HxMirror *mirror, const char *name)
{
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno != InvalidAttrNumber && strcmp(mirror->columns[i].name, name) == 0)
			return i;
	return -1;
}

static HxBatchRow *
row_of_target(const HxMirror *mirror, const char *key, const HxTargetRow *target)
{
	HxBatchRow *row = palloc0(sizeof(HxBatchRow));

	row->key = key;
	row->values = target->values;
	row->nulls = target->nulls;
	return row;
}

/* An update was given up: its column is what the remote side has. */
static void
take_back(Settling *settling, HxLocalChange *change, HxBatchRow *row)
{
	const HxMirror *mirror = settling->mirror;
	int			column = column_of_name(mirror, change->column);
	HxMirrorValues values;
	Datum		value;
	bool		isnull;

	note_refusal(settling, change);
	if (column < 0 || row == NULL)
	{
		forget(settling, change);
		return;
	}
	hx_mirror_values_init(&values, mirror->columns[column].target_type, mirror->columns[column].target_typmod);
	if (hx_mirror_json_value(&values, change->remote, &value, &isnull))
	{
		row->values[column] = value;
		row->nulls[column] = isnull;
	}
	if (mirror->columns[column].owner != HX_OWNER_LOCAL)
	{
		forget(settling, change);
		return;
	}
	change->state = HX_CHANGE_REFUSED;
	change->earlier = change->answered = NULL;
	settling->notes.update = lappend(settling->notes.update, change);
}

/* A row was deleted here, and its record is there: all that it had comes back. */
static void
revive(Settling *settling, HxLocalChange *change)
{
	note_refusal(settling, change);
	forget(settling, change);
	if (change->remote == NULL)
		return;
	settling->rows = lappend(settling->rows, hx_target_row_of_json(settling->mirror, change->key, change->remote));
	settling->revived = lappend(settling->revived, change);
}

/* The changes of one record, as they are now that its row is locked. */
static void
settle_record(Settling *settling, const char *key, const HxTargetRow *target, List *changes)
{
	HxBatchRow *row = target->found ? row_of_target(settling->mirror, key, target) : NULL;
	bool		deleted = false;
	bool		changed = false;
	ListCell   *cell;

	foreach(cell, changes)
	{
		HxLocalChange *change = lfirst(cell);
		bool		settled = change->state == HX_CHANGE_OPEN && hx_two_way_is_settled(change, settling->began_at);
		bool		given_up = change->state == HX_CHANGE_OPEN && change->request_state == HX_REQUEST_GIVEN_UP;

		if (change->kind == HX_CHANGE_DELETE && target->found)
		{
			/* It is back already; as one that was refused, or because it was restored. */
			if (change->state == HX_CHANGE_REFUSED && change->remote != NULL)
				settling->revived = lappend(settling->revived, change);
			forget(settling, change);
		}
		else if (change->kind == HX_CHANGE_DELETE && change->state == HX_CHANGE_REFUSED)
			forget(settling, change);
		else if (change->kind == HX_CHANGE_DELETE && settled)
		{
			forget(settling, change);
			deleted = true;
		}
		else if (change->kind == HX_CHANGE_DELETE && given_up)
			revive(settling, change);
		else if (settled)
			forget(settling, change);
		else if (given_up)
		{
			take_back(settling, change, row);
			changed = row != NULL;
		}
	}
	if (changed)
		settling->rows = lappend(settling->rows, row);
	foreach(cell, changes)
		if (deleted && ((HxLocalChange *) lfirst(cell))->kind == HX_CHANGE_UPDATE)
			forget(settling, lfirst(cell));
}

/* Locks the rows of some records, and looks at what has come of their changes; the keys are ordered as changes are. */
static void
settle_records(Settling *settling, int nkeys, const char **keys)
{
	HxTargetRow *targets = hx_target_rows(settling->mirror, nkeys, keys, settling->all, true);
	List	   *changes = hx_local_changes_of(settling->name, nkeys, keys);
	ListCell   *cell = list_head(changes);

	for (int i = 0; i < nkeys; i++)
	{
		List	   *own = NIL;

		for (; cell != NULL && strcmp(((HxLocalChange *) lfirst(cell))->key, keys[i]) == 0; cell = lnext(changes, cell))
			own = lappend(own, lfirst(cell));
		settle_record(settling, keys[i], &targets[i], own);
	}
}

/* A record that was to be created: it is there by now, or it never will be. */
static void
settle_create(Settling *settling, HxLocalChange *change)
{
	if (change->request_state == HX_REQUEST_GIVEN_UP)
	{
		note_refusal(settling, change);
		forget(settling, change);
	}
	else if (hx_two_way_is_settled(change, settling->began_at))
		forget(settling, change);
}

/* Does a change want to be looked at, as far as can be told without a lock? */
static bool
has_come_to_an_end(const Settling *settling, const HxLocalChange *change)
{
	return change->request_state == HX_REQUEST_GIVEN_UP || hx_two_way_is_settled(change, settling->began_at);
}

static void
settle_ended(Settling *settling, List *changes)
{
	const char **keys = palloc(sizeof(char *) * Max(list_length(changes), 1));
	int			nkeys = 0;
	ListCell   *cell;

	foreach(cell, changes)
	{
		HxLocalChange *change = lfirst(cell);

		if (change->kind == HX_CHANGE_CREATE)
			settle_create(settling, change);
		else if (has_come_to_an_end(settling, change) && (nkeys == 0 || strcmp(keys[nkeys - 1], change->key) != 0))
			keys[nkeys++] = change->key;
	}
	if (nkeys > 0)
		settle_records(settling, nkeys, keys);
}

/* What is known of rows that are gone is of no use; looked for at the end of a sweep only. */
static void
forget_orphans(Settling *settling)
{
	List	   *changes = hx_local_changes_at_rest(settling->name);
	const char **keys = palloc(sizeof(char *) * Max(list_length(changes), 1));
	HxTargetRow *targets;
	ListCell   *cell;
	int			n = 0;

	foreach(cell, changes)
		keys[n++] = ((HxLocalChange *) lfirst(cell))->key;
	targets = hx_target_rows(settling->mirror, n, keys, NULL, false);
	foreach(cell, changes)
		if (!targets[foreach_current_index(cell)].found)
			forget(settling, lfirst(cell));
}

void
hx_two_way_settle(const HxMirror *mirror, TimestampTz began_at, HxApplied *applied)
{
	const HxSubscription *subscription = mirror->subscription;
	Settling	settling = {.mirror = mirror,.name = subscription->name,.began_at = began_at};
	List	   *ended = hx_local_changes_ended(subscription->name);
	HxBatchRow *rows;
	HxRestricted saved;
	ListCell   *cell;
	int			n = 0;

	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno != InvalidAttrNumber)
			settling.all = bms_add_member(settling.all, i);

	hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
	settle_ended(&settling, ended);
	if (subscription->sweeping && began_at == subscription->sweep_began_at)
		forget_orphans(&settling);
	hx_restricted_leave(&saved);
	hx_local_changes_write(settling.name, &settling.notes);
	hx_conflicts_forget_old();

	rows = palloc(sizeof(HxBatchRow) * Max(list_length(settling.rows), 1));
	foreach(cell, settling.rows)
		rows[n++] = *(HxBatchRow *) lfirst(cell);
	if (n > 0)
		hx_apply_rows(mirror, rows, n, GetCurrentTimestamp(), false, applied);
	if (settling.revived != NIL)
	{
		hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
		foreach(cell, settling.revived)
		{
			const HxLocalChange *change = lfirst(cell);

			hx_target_give_back(mirror, change->key, change->remote);
		}
		hx_restricted_leave(&saved);
	}
}
