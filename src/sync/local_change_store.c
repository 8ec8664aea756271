/*-------------------------------------------------------------------------
 *
 * local_change_store.c
 *	  The rows of hubex.local_change, with what became of their requests, and
 *	  those of hubex.conflict.
 *
 * A change is written in the transaction that makes it, by whoever changes the
 * mirror, while the row of the mirror is locked by that.  Sync locks the row
 * before it looks at its changes, so none is made meanwhile; that order, the
 * row, its changes, their requests, is that of all who lock any of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/settings.h"
#include "base/statement_store.h"
#include "compat.h"
#include "sync/two_way.h"

/* So many changes of a column before the last are remembered while they are under way. */
#define MOST_EARLIER	"32"

/* Old conflicts go so many at a time. */
#define FORGET_AT_ONCE	1000

static const char *const kinds[] = {
	[HX_CHANGE_CREATE] = "create",
	[HX_CHANGE_UPDATE] = "update",
	[HX_CHANGE_DELETE] = "delete",
};

static const char *const states[] = {
	[HX_CHANGE_OPEN] = "open",
	[HX_CHANGE_ACCEPTED] = "accepted",
	[HX_CHANGE_REFUSED] = "refused",
};

/* The columns of the table, in order. */
enum
{
	L_SUBSCRIPTION = 1,
	L_KEY,
	L_KIND,
	L_COLUMN,
	L_STATE,
	L_LOCAL,
	L_REMOTE,
	L_EARLIER,
	L_ANSWERED,
	L_CHANGED,
	L_REQUEST,
	L_ENDED,
	L_COLUMNS = L_ENDED
};

/* ---- reading ---- */

#define READ \
	"SELECT l.key, l.kind, l.column_name::text, l.state, l.local, l.remote, l.earlier, l.answered, l.changed_at," \
	"       l.request_id, o.state, COALESCE(o.ended_at, l.ended_at), o.last_error, o.remote_id" \
	"  FROM hubex.local_change l LEFT JOIN hubex.outbox o ON o.id = l.request_id"

static Datum
column(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

static char *
column_text(uint64 row, int number, MemoryContext cxt)
{
	return hx_column_text(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, cxt);
}

static Jsonb *
column_json(uint64 row, int number, MemoryContext cxt)
{
	return hx_column_jsonb(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, cxt);
}

static int
index_of(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	elog(ERROR, "\"%s\" is unknown in hubex.local_change", name);
	return -1;
}

static HxRequestState
request_state(const char *state)
{
	if (state == NULL)
		return HX_REQUEST_GONE;
	if (strcmp(state, "delivered") == 0)
		return HX_REQUEST_DELIVERED;
	if (strcmp(state, "dead") == 0 || strcmp(state, "cancelled") == 0)
		return HX_REQUEST_GIVEN_UP;
	return HX_REQUEST_UNDER_WAY;
}

/* Takes the rows that READ gave, in a context. */
static List *
take_rows(MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	List	   *changes = NIL;

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HxLocalChange *change = palloc0(sizeof(HxLocalChange));
		bool		isnull;

		change->key = column_text(row, 1, cxt);
		change->kind = index_of(kinds, lengthof(kinds), column_text(row, 2, cxt));
		change->column = column_text(row, 3, cxt);
		change->state = index_of(states, lengthof(states), column_text(row, 4, cxt));
		change->local = column_json(row, 5, cxt);
		change->remote = column_json(row, 6, cxt);
		change->earlier = column_json(row, 7, cxt);
		change->answered = column_json(row, 8, cxt);
		change->changed_at = DatumGetTimestampTz(column(row, 9, &isnull));
		change->request = DatumGetInt64(column(row, 10, &isnull));
		change->request_state = request_state(column_text(row, 11, cxt));
		change->ended_at = DatumGetTimestampTz(column(row, 12, &isnull));
		change->has_ended = !isnull;
		change->message = column_text(row, 13, cxt);
		change->remote_id = column_text(row, 14, cxt);
		changes = lappend(changes, change);
	}
	MemoryContextSwitchTo(old);
	return changes;
}

static List *
read_changes(HxStatement *statement, Datum *args)
{
	MemoryContext here = CurrentMemoryContext;
	List	   *changes;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(statement, args, NULL);
	changes = take_rows(here);
	SPI_finish();
	hx_owner_leave(&saved);
	return changes;
}

static Datum
text_array(int n, const char *const *texts)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		values[i] = CStringGetTextDatum(texts[i]);
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* The changes of records given by key, a List of HxLocalChange *, those of a record together; creates are none. */
List *
hx_local_changes_of(const char *subscription, int nkeys, const char *const *keys)
{
	static HxStatement read = {
		READ " WHERE l.subscription = $1 AND l.key = ANY ($2) AND l.kind <> 'create' ORDER BY l.key",
		2, {TEXTOID, TEXTARRAYOID}
	};
	Datum		args[2] = {CStringGetTextDatum(subscription), text_array(nkeys, keys)};

	return read_changes(&read, args);
}

/*
 * The open changes whose request has come to its end, by key, and deletes that
 * were refused.  Of one that is in the outbox no more, it is remembered since when that is known: what is asked
 * for from then on knows of it, if it was delivered.
 */
List *
hx_local_changes_ended(const char *subscription)
{
	static HxStatement note = {
		"UPDATE hubex.local_change l SET ended_at = clock_timestamp()"
		" WHERE l.subscription = $1 AND l.state = 'open' AND l.ended_at IS NULL"
		"   AND NOT EXISTS (SELECT FROM hubex.outbox o WHERE o.id = l.request_id)",
		1, {TEXTOID}
	};
	static HxStatement read = {
		READ " WHERE l.subscription = $1 AND (l.state = 'open' OR l.kind = 'delete')"
		"   AND (o.id IS NULL OR o.state NOT IN ('waiting', 'sending'))"
		" ORDER BY l.key",
		1, {TEXTOID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum		arg = CStringGetTextDatum(subscription);
	List	   *changes;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&note, &arg, NULL);
	hx_statement_run(&read, &arg, NULL);
	changes = take_rows(here);
	SPI_finish();
	hx_owner_leave(&saved);
	return changes;
}

/* The changes that are not open, by key. */
List *
hx_local_changes_at_rest(const char *subscription)
{
	static HxStatement read = {
		READ " WHERE l.subscription = $1 AND l.state <> 'open' ORDER BY l.key", 1, {TEXTOID}
	};
	Datum		arg = CStringGetTextDatum(subscription);

	return read_changes(&read, &arg);
}

/* ---- writing ---- */

/* The long way, for a change of what has one already. */
static void
put_by_statement(const char *subscription, const HxLocalChange *change)
{
	static HxStatement put = {
		"INSERT INTO hubex.local_change AS l"
		" (subscription, key, kind, column_name, local, remote, changed_at, request_id)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
		" ON CONFLICT (subscription, key, kind, column_name) DO UPDATE"
		"   SET state = 'open', local = excluded.local,"
		"       remote = CASE WHEN l.state = 'refused' OR l.kind = 'delete' THEN excluded.remote ELSE l.remote END,"
		"       earlier = CASE WHEN l.state = 'open' AND l.kind = 'update' THEN"
		"           CASE WHEN jsonb_array_length(l.earlier) >= " MOST_EARLIER " THEN l.earlier - 0"
		"                ELSE COALESCE(l.earlier, '[]') END"
		"           || jsonb_build_array(jsonb_build_array(l.request_id, l.local)) END,"
		"       answered = NULL, changed_at = excluded.changed_at, request_id = excluded.request_id, ended_at = NULL",
		8, {TEXTOID, TEXTOID, TEXTOID, NAMEOID, JSONBOID, JSONBOID, TIMESTAMPTZOID, INT8OID}
	};
	Datum		args[8];
	char		nulls[9] = "        ";
	NameData	name;

	namestrcpy(&name, change->column);
	args[0] = CStringGetTextDatum(subscription);
	args[1] = CStringGetTextDatum(change->key);
	args[2] = CStringGetTextDatum(kinds[change->kind]);
	args[3] = NameGetDatum(&name);
	args[4] = hx_pointer_or_null(change->local, &nulls[4]);
	args[5] = hx_pointer_or_null(change->remote, &nulls[5]);
	args[6] = TimestampTzGetDatum(change->changed_at);
	args[7] = Int64GetDatum(change->request);
	(void) hx_statement_count(&put, args, nulls);
}

static void
fill(Datum *values, bool *nulls, AttrNumber number, Datum value)
{
	values[number - 1] = value;
	nulls[number - 1] = false;
}

/* Is there a change already of what this one is of?  Of others none is under way: they would have the row locked. */
static bool
is_known(Relation changes, Oid index, const Datum *values)
{
	static const struct
	{
		AttrNumber	number;
		RegProcedure equal;
	}			columns[] = {{L_SUBSCRIPTION, F_TEXTEQ}, {L_KEY, F_TEXTEQ}, {L_KIND, F_TEXTEQ}, {L_COLUMN, F_NAMEEQ}};
	ScanKeyData keys[lengthof(columns)];
	SysScanDesc scan;
	bool		found;

	for (int i = 0; i < lengthof(columns); i++)
		ScanKeyEntryInitialize(&keys[i], 0, columns[i].number, BTEqualStrategyNumber, InvalidOid,
							   TupleDescAttr(RelationGetDescr(changes), columns[i].number - 1)->attcollation,
							   columns[i].equal, values[columns[i].number - 1]);
	scan = systable_beginscan(changes, index, true, SnapshotSelf, lengthof(keys), keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return found;
}

/*
 * Notes a change whose request was just put in.  A column that is changed again
 * keeps what the remote side had; what it was changed to before may still show
 * up there, so that is kept, too.
 *
 * A trigger does this for each value of a bulk change, and nearly always there
 * was none before; then it goes straight to the table.
 */
void
hx_local_change_put(const char *subscription, const HxLocalChange *change)
{
	Datum		values[L_COLUMNS];
	bool		nulls[L_COLUMNS];
	NameData	name;
	Oid			relation;
	Oid			owner;
	Oid			index;
	Relation	changes;
	bool		known;

	if (!hx_owner_table("local_change", &relation, &owner))
		hx_owner_report_missing();
	changes = table_open(relation, RowExclusiveLock);
	index = hx_primary_key_index(changes);
	namestrcpy(&name, change->column);
	memset(nulls, true, sizeof(nulls));
	fill(values, nulls, L_SUBSCRIPTION, CStringGetTextDatum(subscription));
	fill(values, nulls, L_KEY, CStringGetTextDatum(change->key));
	fill(values, nulls, L_KIND, CStringGetTextDatum(kinds[change->kind]));
	fill(values, nulls, L_COLUMN, NameGetDatum(&name));
	fill(values, nulls, L_STATE, CStringGetTextDatum(states[HX_CHANGE_OPEN]));
	fill(values, nulls, L_CHANGED, TimestampTzGetDatum(change->changed_at));
	fill(values, nulls, L_REQUEST, Int64GetDatum(change->request));
	if (change->local != NULL)
		fill(values, nulls, L_LOCAL, JsonbPGetDatum(change->local));
	if (change->remote != NULL)
		fill(values, nulls, L_REMOTE, JsonbPGetDatum(change->remote));

	/* With triggers or other indexes of somebody's it takes a statement. */
	known = changes->trigdesc != NULL || list_length(RelationGetIndexList(changes)) != 1 ||
		RelationGetDescr(changes)->natts != L_COLUMNS || is_known(changes, index, values);
	if (!known)
	{
		PreventCommandIfReadOnly("INSERT");
		CatalogTupleInsert(changes, heap_form_tuple(RelationGetDescr(changes), values, nulls));
	}
	table_close(changes, NoLock);
	if (known)
		put_by_statement(subscription, change);
}

/* Columns of rows that are written together, as arrays. */
typedef struct Arrays
{
	int			rows;
	int			room;
	int			ncolumns;
	Datum	  **values;
	bool	  **nulls;
} Arrays;

static Arrays *
make_arrays(int ncolumns, int room)
{
	Arrays	   *arrays = palloc0(sizeof(Arrays));

	arrays->ncolumns = ncolumns;
	arrays->room = room;
	arrays->values = palloc(sizeof(Datum *) * ncolumns);
	arrays->nulls = palloc(sizeof(bool *) * ncolumns);
	for (int i = 0; i < ncolumns; i++)
	{
		arrays->values[i] = palloc(sizeof(Datum) * room);
		arrays->nulls[i] = palloc(sizeof(bool) * room);
	}
	return arrays;
}

static void
set(Arrays *arrays, int column, Datum value, bool isnull)
{
	arrays->values[column][arrays->rows] = value;
	arrays->nulls[column][arrays->rows] = isnull;
}

static void
set_text(Arrays *arrays, int column, const char *text)
{
	set(arrays, column, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static void
set_json(Arrays *arrays, int column, const Jsonb *json)
{
	set(arrays, column, PointerGetDatum(json), json == NULL);
}

/* The array of a column; of texts, documents or int8. */
static Datum
array_of(const Arrays *arrays, int column, Oid type)
{
	bool		is_int = type == INT8OID;
	int			dims[1] = {arrays->rows};
	int			lbs[1] = {1};

	if (arrays->rows == 0)
		return PointerGetDatum(construct_empty_array(type));
	return PointerGetDatum(construct_md_array(arrays->values[column], arrays->nulls[column], 1, dims, lbs, type,
											  is_int ? 8 : -1, is_int && FLOAT8PASSBYVAL,
											  is_int ? TYPALIGN_DOUBLE : TYPALIGN_INT));
}

/* Which change it is. */
static void
set_change(Arrays *arrays, const HxLocalChange *change)
{
	set_text(arrays, 0, change->key);
	set_text(arrays, 1, kinds[change->kind]);
	set_text(arrays, 2, change->column);
	set(arrays, 3, Int64GetDatum(change->request), false);
}

#define IS_CHANGE \
	" l.subscription = $1 AND l.key = c.key AND l.kind = c.kind AND l.column_name = c.column_name::name"

static void
forget(const char *subscription, List *changes)
{
	static HxStatement delete = {
		"DELETE FROM hubex.local_change l USING unnest($2, $3, $4, $5) AS c (key, kind, column_name, request)"
		" WHERE" IS_CHANGE " AND l.request_id = c.request",
		5, {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID}
	};
	Arrays	   *arrays = make_arrays(4, list_length(changes));
	Datum		args[5];
	ListCell   *cell;

	for (cell = list_head(changes); cell != NULL; cell = lnext(changes, cell), arrays->rows++)
		set_change(arrays, lfirst(cell));
	args[0] = CStringGetTextDatum(subscription);
	for (int i = 0; i < 4; i++)
		args[1 + i] = array_of(arrays, i, i == 3 ? INT8OID : TEXTOID);
	hx_statement_run(&delete, args, NULL);
}

/*
 * Writes what became of changes; one that was not there is there then.  Their
 * rows are locked, so nobody has changed them since they were looked at.
 */
static void
update(const char *subscription, List *changes)
{
	static HxStatement put = {
		"INSERT INTO hubex.local_change AS l (subscription, key, kind, column_name, request_id, state, local, remote,"
		"                                     earlier, answered, changed_at)"
		" SELECT $1, c.key, c.kind, c.column_name::name, c.request, c.state, c.local, c.remote, c.earlier, c.answered,"
		"        clock_timestamp()"
		"   FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)"
		"        AS c (key, kind, column_name, request, state, local, remote, earlier, answered)"
		" ON CONFLICT (subscription, key, kind, column_name) DO UPDATE"
		"   SET request_id = excluded.request_id, state = excluded.state, local = excluded.local,"
		"       remote = excluded.remote, earlier = excluded.earlier, answered = excluded.answered,"
		"       changed_at = CASE WHEN l.request_id = excluded.request_id THEN l.changed_at ELSE excluded.changed_at END,"
		"       ended_at = CASE WHEN l.request_id = excluded.request_id THEN l.ended_at END",
		10, {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID,
		JSONBARRAYOID, JSONBARRAYOID}
	};
	static const Oid types[] = {TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID, JSONBOID, JSONBOID, JSONBOID, JSONBOID};
	Arrays	   *arrays = make_arrays(lengthof(types), list_length(changes));
	Datum		args[lengthof(types) + 1];
	ListCell   *cell;

	for (cell = list_head(changes); cell != NULL; cell = lnext(changes, cell), arrays->rows++)
	{
		const HxLocalChange *change = lfirst(cell);

		set_change(arrays, change);
		set_text(arrays, 4, states[change->state]);
		set_json(arrays, 5, change->local);
		set_json(arrays, 6, change->remote);
		set_json(arrays, 7, change->earlier);
		set_json(arrays, 8, change->answered);
	}
	args[0] = CStringGetTextDatum(subscription);
	for (int i = 0; i < lengthof(types); i++)
		args[1 + i] = array_of(arrays, i, types[i]);
	hx_statement_run(&put, args, NULL);
}

static void
record_conflicts(const char *subscription, List *conflicts)
{
	static HxStatement insert = {
		"INSERT INTO hubex.conflict (subscription, key, column_name, base, local, remote, kept, reason, message, request_id)"
		" SELECT $1, c.key, c.column_name::name, c.base, c.local, c.remote, c.kept, c.reason, c.message, c.request"
		"   FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)"
		"        AS c (key, column_name, base, local, remote, kept, reason, message, request)",
		10, {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID, JSONBARRAYOID, TEXTARRAYOID,
		TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID}
	};
	static const Oid types[] = {TEXTOID, TEXTOID, JSONBOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID, TEXTOID, INT8OID};
	Arrays	   *arrays = make_arrays(lengthof(types), list_length(conflicts));
	Datum		args[lengthof(types) + 1];
	ListCell   *cell;

	for (cell = list_head(conflicts); cell != NULL; cell = lnext(conflicts, cell), arrays->rows++)
	{
		const HxConflict *conflict = lfirst(cell);

		set_text(arrays, 0, conflict->key);
		set_text(arrays, 1, conflict->column);
		set_json(arrays, 2, conflict->base);
		set_json(arrays, 3, conflict->local);
		set_json(arrays, 4, conflict->remote);
		set_text(arrays, 5, conflict->kept_local ? "local" : "remote");
		set_text(arrays, 6, conflict->reason);
		set_text(arrays, 7, conflict->message);
		set(arrays, 8, Int64GetDatum(conflict->request), conflict->request == 0);
	}
	args[0] = CStringGetTextDatum(subscription);
	for (int i = 0; i < lengthof(types); i++)
		args[1 + i] = array_of(arrays, i, types[i]);
	hx_statement_run(&insert, args, NULL);
}

/* Writes all that was collected.  The rows of the mirror that it is about are locked, or have none. */
void
hx_local_changes_write(const char *subscription, const HxChangeNotes *notes)
{
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	if (notes->forget != NIL)
		forget(subscription, notes->forget);
	if (notes->update != NIL)
		update(subscription, notes->update);
	if (notes->conflicts != NIL)
		record_conflicts(subscription, notes->conflicts);
	SPI_finish();
	hx_owner_leave(&saved);
}

/* Deletes conflicts older than hubex.retention, some at a time. */
void
hx_conflicts_forget_old(void)
{
	static HxStatement delete = {
		"DELETE FROM hubex.conflict c WHERE c.occurred_at < now() - $1 * interval '1 min'"
		"   AND c.id = ANY (ARRAY(SELECT o.id FROM hubex.conflict o ORDER BY o.id LIMIT $2))",
		2, {INT8OID, INT8OID}
	};
	Datum		args[2] = {Int64GetDatum(hx_guc_retention), Int64GetDatum(FORGET_AT_ONCE)};

	if (hx_guc_retention == 0)
		return;
	(void) hx_statement_count(&delete, args, NULL);
}
