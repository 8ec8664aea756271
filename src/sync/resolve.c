/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  Records that meet rows which were changed here.
 *
 * Before a batch is applied, each of its records is looked at beside the row
 * of the mirror and what is known of its changes (two_way.c says whose value
 * stays).  Values that stay are marked as kept; what is sent again is sent;
 * what was found out is written.
 *
 * A row could be changed here between this look and the UPDATE that follows.
 * So rows with changes are locked before their changes are read, and of all
 * others the version is noted that was seen: whoever applies the batch
 * writes no other, but comes here again with what has moved meanwhile.  The
 * order in which things are read matters: the version first, the changes then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/restricted.h"
#include "connector/writer.h"
#include "sync/outgoing.h"
#include "sync/two_way.h"

/* One record, with all that is known of it here. */
typedef struct Meeting
{
	HxBatchRow *row;
	HxTargetRow *target;
	bool		locked;
	List	   *changes;		/* of HxLocalChange * */
} Meeting;

/* A batch. */
typedef struct Resolution
{
	const HxMirror *mirror;
	const char *name;			/* of the subscription */
	TimestampTz asked_at;
	HxMirrorValues **values;	/* of the mirror's columns; NULL: not needed yet */
	Bitmapset  *local;			/* columns that are this side's own */
	Bitmapset  *looked_at;		/* what has to be known of rows that are not locked */
	Bitmapset  *all;
	int			n;
	Meeting    *meetings;
	HxOutgoing *outgoing;		/* NULL: nothing was sent again yet */
	HxChangeNotes notes;
} Resolution;

static HxMirrorValues *
values_of(Resolution *resolution, int column)
{
	const HxMirrorColumn *shown = &resolution->mirror->columns[column];

	if (resolution->values[column] == NULL)
	{
		resolution->values[column] = palloc(sizeof(HxMirrorValues));
		hx_mirror_values_init(resolution->values[column], shown->target_type, shown->target_typmod);
	}
	return resolution->values[column];
}

static int
column_of_name(const HxMirror *mirror, const char *name)
{
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno != InvalidAttrNumber && strcmp(mirror->columns[i].name, name) == 0)
			return i;
	return -1;
}

/* ---- finding out ---- */

/*
 * Is a record newer than the row?  As apply_store.c sees it.  A row that does
 * not say when it was written is older than anything.
 */
static bool
is_newer(const Resolution *resolution, const Meeting *meeting)
{
	const HxMirror *mirror = resolution->mirror;
	const HxTargetRow *target = meeting->target;
	int			modified = mirror->modified;

	if (!target->found || mirror->synced_at == NULL || !target->has_synced ||
		resolution->asked_at > target->synced)
		return true;
	return modified >= 0 && mirror->columns[modified].attno != InvalidAttrNumber && meeting->row->has_modified &&
		mirror->columns[modified].target_type == TIMESTAMPTZOID && !target->nulls[modified] &&
		meeting->row->modified > DatumGetTimestampTz(target->values[modified]);
}

/* Does a record differ from the row where that is this side's own? */
static bool
differs_in_own(Resolution *resolution, const Meeting *meeting)
{
	int			column = -1;

	if (!meeting->target->found || !is_newer(resolution, meeting))
		return false;
	while ((column = bms_next_member(resolution->local, column)) >= 0)
		if (!hx_mirror_same(values_of(resolution, column), meeting->row->values[column], meeting->row->nulls[column],
							meeting->target->values[column], meeting->target->nulls[column]))
			return true;
	return false;
}

/* The keys of all meetings, or of those that are (not) locked. */
static const char **
keys_of(const Resolution *resolution, bool only, bool locked, int *n)
{
	const char **keys = palloc(sizeof(char *) * Max(resolution->n, 1));

	*n = 0;
	for (int i = 0; i < resolution->n; i++)
		if (!only || resolution->meetings[i].locked == locked)
			keys[(*n)++] = resolution->meetings[i].row->key;
	return keys;
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(((const Meeting *) a)->row->key, ((const Meeting *) b)->row->key);
}

/* Reads the changes of all records; true where one has some that is not locked. */
static bool
read_changes(Resolution *resolution)
{
	int			n;
	const char **keys = keys_of(resolution, false, false, &n);
	List	   *changes = hx_local_changes_of(resolution->name, n, keys);
	bool		unlocked = false;
	ListCell   *cell;

	for (int i = 0; i < resolution->n; i++)
		resolution->meetings[i].changes = NIL;
	foreach(cell, changes)
	{
		HxLocalChange *change = lfirst(cell);
		HxBatchRow	row = {.key = change->key};
		Meeting		wanted = {.row = &row};
		Meeting    *meeting = bsearch(&wanted, resolution->meetings, resolution->n, sizeof(Meeting), compare_keys);

		if (meeting == NULL)
			elog(ERROR, "a change of a record that was not asked for");
		meeting->changes = lappend(meeting->changes, change);
		unlocked |= !meeting->locked;
	}
	return unlocked;
}

/* Locks the rows that have changes, or are to be changed by what this finds, and takes them as they are then. */
static bool
lock_rows(Resolution *resolution)
{
	Meeting   **chosen = palloc(sizeof(Meeting *) * Max(resolution->n, 1));
	const char **keys = palloc(sizeof(char *) * Max(resolution->n, 1));
	HxTargetRow *rows;
	int			n = 0;

	for (int i = 0; i < resolution->n; i++)
	{
		Meeting    *meeting = &resolution->meetings[i];

		if (meeting->locked || (meeting->changes == NIL && !differs_in_own(resolution, meeting)))
			continue;
		meeting->locked = true;
		chosen[n] = meeting;
		keys[n++] = meeting->row->key;
	}
	if (n == 0)
		return false;
	rows = hx_target_rows(resolution->mirror, n, keys, resolution->all, true);
	for (int i = 0; i < n; i++)
		chosen[i]->target = &rows[i];
	return true;
}

static void
find_out(Resolution *resolution)
{
	int			n;
	const char **keys = keys_of(resolution, false, false, &n);
	HxTargetRow *rows = hx_target_rows(resolution->mirror, n, keys, resolution->looked_at, false);

	for (int i = 0; i < resolution->n; i++)
		resolution->meetings[i].target = &rows[i];
	(void) read_changes(resolution);
	while (lock_rows(resolution))
		(void) read_changes(resolution);
	for (int i = 0; i < resolution->n; i++)
	{
		Meeting    *meeting = &resolution->meetings[i];

		meeting->row->has_version = meeting->target->found;
		meeting->row->version = meeting->target->version;
	}
}

/* ---- judging ---- */

static HxLocalChange *
change_of(const Meeting *meeting, HxChangeKind kind, const char *column)
{
	ListCell   *cell;

	foreach(cell, meeting->changes)
	{
		HxLocalChange *change = lfirst(cell);

		if (change->kind == kind && strcmp(change->column, column) == 0)
			return change;
	}
	return NULL;
}

static void
forget(Resolution *resolution, Meeting *meeting, HxLocalChange *change)
{
	resolution->notes.forget = lappend(resolution->notes.forget, change);
	meeting->changes = list_delete_ptr(meeting->changes, change);
}

static HxConflict *
note_conflict(Resolution *resolution, const Meeting *meeting, const char *column, const HxLocalChange *change,
			  const char *reason, bool kept_local)
{
	HxConflict *conflict = palloc0(sizeof(HxConflict));

	conflict->key = meeting->row->key;
	conflict->column = column;
	conflict->reason = reason;
	conflict->kept_local = kept_local;
	if (change != NULL)
	{
		conflict->base = change->remote;
		conflict->local = change->local;
		conflict->request = change->request;
		if (change->request_state == HX_REQUEST_GIVEN_UP)
			conflict->message = change->message;
	}
	resolution->notes.conflicts = lappend(resolution->notes.conflicts, conflict);
	return conflict;
}

/* Cancels a change's requests, as far as they wait; returns those that are, with some more. */
static List *
cancel(const HxLocalChange *change, List *cancelled)
{
	ListCell   *cell;

	foreach(cell, hx_json_elements(change->earlier))
	{
		JsonbValue *id = linitial(hx_json_elements(hx_json_value_part(lfirst(cell))));
		int64		request = strtoll(hx_json_value_text(id), NULL, 10);

		if (hx_writer()->cancel(request))
			cancelled = lappend(cancelled, psprintf(INT64_FORMAT, request));
	}
	if (hx_writer()->cancel(change->request))
		cancelled = lappend(cancelled, psprintf(INT64_FORMAT, change->request));
	return cancelled;
}

static bool
is_among(List *requests, int64 request)
{
	ListCell   *cell;

	foreach(cell, requests)
		if (strtoll(lfirst(cell), NULL, 10) == request)
			return true;
	return false;
}

/* The value of the mirror's row, or where there is none that of the change, is that of the record from here on. */
static void
keep(Resolution *resolution, Meeting *meeting, int column, const HxLocalChange *change)
{
	HxBatchRow *row = meeting->row;
	Datum		value;
	bool		isnull;

	row->kept = bms_add_member(row->kept, column);
	if (meeting->target->found)
	{
		row->values[column] = meeting->target->values[column];
		row->nulls[column] = meeting->target->nulls[column];
	}
	else if (change != NULL && hx_mirror_json_value(values_of(resolution, column), change->local, &value, &isnull))
	{
		row->values[column] = value;
		row->nulls[column] = isnull;
	}
}

/* An array with one more value. */
static Jsonb *
append(const Jsonb *array, const Jsonb *value)
{
	JsonbParseState *state = NULL;
	JsonbValue	element;
	ListCell   *cell;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(cell, hx_json_elements(array))
		pushJsonbValue(&state, WJB_ELEM, lfirst(cell));
	if (JB_ROOT_IS_SCALAR(value))
		(void) JsonbExtractScalar(&unconstify(Jsonb *, value)->root, &element);
	else
		JsonbToJsonbValue(unconstify(Jsonb *, value), &element);
	pushJsonbValue(&state, WJB_ELEM, &element);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* A change as it is from now on; one that there was not before is made. */
static HxLocalChange *
change_to_write(Resolution *resolution, Meeting *meeting, int column, HxLocalChange *change)
{
	if (change == NULL)
	{
		change = palloc0(sizeof(HxLocalChange));
		change->key = meeting->row->key;
		change->kind = HX_CHANGE_UPDATE;
		change->column = resolution->mirror->columns[column].name;
		meeting->changes = lappend(meeting->changes, change);
	}
	resolution->notes.update = list_append_unique_ptr(resolution->notes.update, change);
	return change;
}

/* What is to be sent again of one record. */
typedef struct Again
{
	Bitmapset  *columns;
	List	   *conflicts;		/* of HxConflict *, to be told the request */
} Again;

/* Looks at one column; what is to be done for the whole record is added to *again and *cancelled. */
static bool
settle_column(Resolution *resolution, Meeting *meeting, int column, Again *again, List **cancelled)
{
	const HxMirrorColumn *shown = &resolution->mirror->columns[column];
	HxLocalChange *change = change_of(meeting, HX_CHANGE_UPDATE, shown->name);
	HxBatchRow *row = meeting->row;
	HxDispute	dispute = {
		.change = change,
		.owner = shown->owner,
		.values = values_of(resolution, column),
		.remote = row->values[column],
		.remote_null = row->nulls[column],
		.has_row = meeting->target->found,
		.filled = resolution->mirror->subscription->filled,
		.asked_at = resolution->asked_at,
		.has_modified = row->has_modified,
		.modified = row->modified
	};
	HxSettlement settlement;
	Jsonb	   *remote;
	HxConflict *conflict = NULL;

	if (meeting->target->found)
	{
		dispute.current = meeting->target->values[column];
		dispute.current_null = meeting->target->nulls[column];
	}
	settlement = hx_two_way_judge(&dispute);
	remote = hx_mirror_value_json(dispute.values, dispute.remote, dispute.remote_null);
	if (settlement.conflict != NULL)
	{
		conflict = note_conflict(resolution, meeting, shown->name, change, settlement.conflict, settlement.keeps);
		conflict->remote = remote;
		if (settlement.keeps && dispute.has_row)
			conflict->local = hx_mirror_value_json(dispute.values, dispute.current, dispute.current_null);
	}
	if (settlement.keeps)
		keep(resolution, meeting, column, change);

	switch (settlement.then)
	{
		case HX_THEN_NOTHING:
			break;
		case HX_THEN_CANCEL:
			*cancelled = cancel(change, *cancelled);
			forget(resolution, meeting, change);
			break;
		case HX_THEN_FORGET:
			forget(resolution, meeting, change);
			break;
		case HX_THEN_REMEMBER:
			change = change_to_write(resolution, meeting, column, change);
			change->remote = remote;
			break;
		case HX_THEN_ACCEPT:
		case HX_THEN_REFUSE:
			change = change_to_write(resolution, meeting, column, change);
			change->state = settlement.then == HX_THEN_ACCEPT ? HX_CHANGE_ACCEPTED : HX_CHANGE_REFUSED;
			change->remote = remote;
			change->earlier = change->answered = NULL;
			break;
		case HX_THEN_SEND:
			change = change_to_write(resolution, meeting, column, change);
			if (change->state == HX_CHANGE_ACCEPTED)
				change->answered = append(NULL, change->remote);
			change->answered = append(change->answered, remote);
			change->remote = remote;
			change->earlier = NULL;
			change->state = HX_CHANGE_OPEN;
			again->columns = bms_add_member(again->columns, column);
			again->conflicts = lappend(again->conflicts, conflict);
			break;
	}
	return settlement.echo;
}

/* Sends values of the mirror's row again, as the subscription's owner. */
static void
send_again(Resolution *resolution, Meeting *meeting, const Again *again)
{
	const HxMirror *mirror = resolution->mirror;
	HxTargetRow *target = meeting->target;
	int64		request;
	int			column = -1;
	ListCell   *cell;

	if (resolution->outgoing == NULL)
		resolution->outgoing = hx_outgoing_begin(mirror, mirror->subscription->owner);
	hx_outgoing_next_row(resolution->outgoing);
	request = hx_outgoing_update(resolution->outgoing, target->values[mirror->record_key], again->columns,
								 target->values, target->nulls);
	while ((column = bms_next_member(again->columns, column)) >= 0)
	{
		HxLocalChange *change = change_of(meeting, HX_CHANGE_UPDATE, mirror->columns[column].name);

		change = change_to_write(resolution, meeting, column, change);
		change->local = hx_mirror_value_json(values_of(resolution, column), target->values[column],
											 target->nulls[column]);
		change->request = request;
		if (change->changed_at == 0)
			change->changed_at = GetCurrentTimestamp();
	}
	foreach(cell, again->conflicts)
		((HxConflict *) lfirst(cell))->request = request;
}

/* A request that was cancelled for one column may have had others: they go out again. */
static void
add_cancelled(Resolution *resolution, const Meeting *meeting, List *cancelled, Again *again)
{
	ListCell   *cell;

	foreach(cell, meeting->changes)
	{
		const HxLocalChange *change = lfirst(cell);
		int			column = column_of_name(resolution->mirror, change->column);

		if (change->kind == HX_CHANGE_UPDATE && change->state == HX_CHANGE_OPEN && column >= 0 &&
			is_among(cancelled, change->request))
			again->columns = bms_add_member(again->columns, column);
	}
}

/* Two versions of a whole record. */
typedef struct Versions
{
	const HxMirror *mirror;
	const Jsonb *other;
	bool		same;			/* so far, but for what columns show */
} Versions;

static bool
is_shown(const HxMirror *mirror, const char *member)
{
	size_t		len = strlen(member);

	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const char *path = mirror->columns[i].column->path;

		if (strncmp(path, member, len) == 0 && (path[len] == '\0' || path[len] == '.'))
			return true;
	}
	return false;
}

static void
compare_member(const char *name, const JsonbValue *value, void *arg)
{
	Versions   *versions = arg;
	JsonbValue	key = {.type = jbvString};
	JsonbValue *other;

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	other = findJsonbValueFromContainer(&unconstify(Jsonb *, versions->other)->root, JB_FOBJECT, &key);
	if ((other == NULL || !hx_json_same(other, unconstify(JsonbValue *, value))) && !is_shown(versions->mirror, name))
		versions->same = false;
}

/* Do two versions of a record differ in nothing but what the mirror's columns show of it? */
static bool
differ_in_columns(const HxMirror *mirror, int column, const Meeting *meeting)
{
	Versions	versions = {mirror, NULL, true};
	Jsonb	   *ours;
	Jsonb	   *theirs;

	if (mirror->columns[column].target_type != JSONBOID || meeting->row->nulls[column] || meeting->target->nulls[column])
		return false;
	theirs = DatumGetJsonbP(meeting->row->values[column]);
	ours = DatumGetJsonbP(meeting->target->values[column]);
	if (!JB_ROOT_IS_OBJECT(theirs) || !JB_ROOT_IS_OBJECT(ours))
		return false;
	versions.other = ours;
	hx_json_each(theirs, compare_member, &versions);
	versions.other = theirs;
	hx_json_each(ours, compare_member, &versions);
	return versions.same;
}

/* Does a column tell no more than that the record was changed? */
static bool
tells_of_change(const Resolution *resolution, const Meeting *meeting, int column)
{
	const HxMirror *mirror = resolution->mirror;
	const HxMirrorColumn *shown = &mirror->columns[column];
	const HxBatchRow *row = meeting->row;

	if (column == mirror->modified)
		return true;
	if (strcmp(shown->column->path, HX_PATH_RECORD) == 0)
		return differ_in_columns(mirror, column, meeting);
	return shown->target_type == TIMESTAMPTZOID && row->has_modified && !row->nulls[column] &&
		DatumGetTimestampTz(row->values[column]) == row->modified;
}

/*
 * Where all that a record shows is known, but for when it was changed, and our
 * own change the cause of it, the row is written without any trigger being
 * told, and left alone then.
 */
static void
take_echo(Resolution *resolution, Meeting *meeting)
{
	const HxMirror *mirror = resolution->mirror;
	Bitmapset  *columns = NULL;

	if (meeting->target->marked)
		return;
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		if (mirror->columns[i].attno == InvalidAttrNumber || bms_is_member(i, meeting->row->kept) ||
			hx_mirror_same_image(values_of(resolution, i), meeting->row->values[i], meeting->row->nulls[i],
								 meeting->target->values[i], meeting->target->nulls[i]))
			continue;
		if (!tells_of_change(resolution, meeting, i))
			return;
		columns = bms_add_member(columns, i);
	}
	if (columns == NULL || hx_echo_write(mirror, meeting->target, meeting->row, columns))
		meeting->row->left_alone = true;
}

/* The row was deleted here.  True where nothing more is to be done about the record. */
static bool
settle_delete(Resolution *resolution, Meeting *meeting, HxLocalChange *change)
{
	if (change->request_state == HX_REQUEST_GIVEN_UP)
	{
		/* What the row had of its own is given back once it is there. */
		if (change->state == HX_CHANGE_OPEN)
			(void) note_conflict(resolution, meeting, "", change, "refused", false);
		change->state = HX_CHANGE_REFUSED;
		resolution->notes.update = lappend(resolution->notes.update, change);
		return false;
	}
	if (hx_two_way_is_settled(change, resolution->asked_at) || meeting->row->deleted)
	{
		/* It is deleted there, too; or it was restored since. */
		if (meeting->row->deleted && change->request_state == HX_REQUEST_UNDER_WAY)
			(void) cancel(change, NIL);
		while (meeting->changes != NIL)
			forget(resolution, meeting, linitial(meeting->changes));
		return meeting->row->deleted;
	}
	meeting->row->left_alone = true;
	return true;
}

/* The record is deleted there, which goes before any change of it here. */
static void
settle_deleted(Resolution *resolution, Meeting *meeting)
{
	while (meeting->changes != NIL)
	{
		HxLocalChange *change = linitial(meeting->changes);

		if (change->state == HX_CHANGE_OPEN)
		{
			(void) note_conflict(resolution, meeting, change->column, change, "deleted", false);
			(void) cancel(change, NIL);
		}
		forget(resolution, meeting, change);
	}
}

static void
settle_record(Resolution *resolution, Meeting *meeting)
{
	const HxMirror *mirror = resolution->mirror;
	HxLocalChange *deletion = change_of(meeting, HX_CHANGE_DELETE, "");
	List	   *cancelled = NIL;
	Again		again = {NULL, NIL};
	bool		echo = false;

	if (meeting->target->found && !is_newer(resolution, meeting))
	{
		meeting->row->left_alone = true;
		return;
	}
	if (deletion != NULL && !meeting->target->found && settle_delete(resolution, meeting, deletion))
		return;
	if (meeting->row->deleted)
	{
		if (mirror->subscription->deletes != HX_DELETES_IGNORE)
			settle_deleted(resolution, meeting);
		return;
	}
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno != InvalidAttrNumber &&
			(bms_is_member(i, resolution->local) || change_of(meeting, HX_CHANGE_UPDATE, mirror->columns[i].name)))
			echo |= settle_column(resolution, meeting, i, &again, &cancelled);
	if (cancelled != NIL)
		add_cancelled(resolution, meeting, cancelled, &again);
	if (again.columns != NULL && meeting->target->found)
		send_again(resolution, meeting, &again);
	if (echo && meeting->target->found)
		take_echo(resolution, meeting);
}

/* ---- all of it ---- */

static void
begin(Resolution *resolution, const HxMirror *mirror, HxBatchRow **rows, int nrows, TimestampTz asked_at)
{
	memset(resolution, 0, sizeof(Resolution));
	resolution->mirror = mirror;
	resolution->name = mirror->subscription->name;
	resolution->asked_at = asked_at;
	resolution->values = palloc0(sizeof(HxMirrorValues *) * mirror->ncolumns);
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		if (mirror->columns[i].attno == InvalidAttrNumber)
			continue;
		resolution->all = bms_add_member(resolution->all, i);
		if (mirror->columns[i].owner == HX_OWNER_LOCAL)
			resolution->local = bms_add_member(resolution->local, i);
	}
	resolution->looked_at = bms_copy(resolution->local);
	if (mirror->modified >= 0)
		resolution->looked_at = bms_add_member(resolution->looked_at, mirror->modified);
	resolution->meetings = palloc0(sizeof(Meeting) * Max(nrows, 1));
	for (int i = 0; i < nrows; i++)
		resolution->meetings[resolution->n++].row = rows[i];
	qsort(resolution->meetings, resolution->n, sizeof(Meeting), compare_keys);
}

void
hx_two_way_resolve(const HxMirror *mirror, HxBatchRow **rows, int nrows, TimestampTz asked_at)
{
	Resolution	resolution;
	HxRestricted saved;

	begin(&resolution, mirror, rows, nrows, asked_at);
	if (resolution.n == 0)
		return;
	hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
	find_out(&resolution);
	for (int i = 0; i < resolution.n; i++)
	{
		Meeting    *meeting = &resolution.meetings[i];

		if (meeting->locked || meeting->changes != NIL)
			settle_record(&resolution, meeting);
		else
		{
			/* Nothing differs that is this side's own; but values may differ in what the type does not see. */
			meeting->row->kept = bms_add_members(meeting->row->kept, meeting->target->found ? resolution.local : NULL);
		}
	}
	hx_restricted_leave(&saved);
	hx_local_changes_write(resolution.name, &resolution.notes);
}
