/*-------------------------------------------------------------------------
 *
 * sweep_store.c
 *	  What a sweep has found, and what it therefore did not find.
 *
 * Each batch that is applied leaves the keys of its records in
 * hubex.sweep_page, in its own transaction: whatever happens, what is in the
 * mirror and what is noted as found agree.  When the list is at its end, rows
 * whose key was not found are missing.  To tell them the keys are put into a
 * tuplestore, which goes to disk where it is long, and the target is joined to
 * it as the subscription's owner: a target may have types, and so code, of
 * that role's own.  A key is compared as what it became in the target.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/owner.h"
#include "base/restricted.h"
#include "base/statement_store.h"
#include "sync/sync.h"

#define KEYS_A_FETCH	50		/* pieces of keys a cursor gives at a time */
#define CLEAN_PAGES		100
#define CLEAN_TOMBSTONES 10000
#define SEEN			"hubex_seen"

/* ---- the keys that were found ---- */

static ArrayType *
text_array(int count, Datum *texts)
{
	return construct_array(texts, count, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Notes the keys of a batch's rows as found, in their order. */
void
hx_sweep_add_keys(const HxMirror *mirror, const HxBatchRow *rows, int nrows)
{
	static HxStatement insert = {
		"INSERT INTO hubex.sweep_page (subscription, position, keys)"
		" SELECT $1, COALESCE(max(position), 0) + 1, $2 FROM hubex.sweep_page WHERE subscription = $1",
		2, {TEXTOID, TEXTARRAYOID}
	};
	Datum	   *keys = palloc(sizeof(Datum) * Max(nrows, 1));
	int			count = 0;
	Datum		args[2];

	for (int i = 0; i < nrows; i++)
		if (rows[i].key != NULL)
			keys[count++] = CStringGetTextDatum(rows[i].key);
	if (count == 0)
		return;
	args[0] = CStringGetTextDatum(mirror->subscription->name);
	args[1] = PointerGetDatum(text_array(count, keys));
	(void) hx_statement_count(&insert, args, NULL);
}

static uint64
delete_some(HxStatement *statement, const char *name, int64 most)
{
	Datum		args[2] = {CStringGetTextDatum(name), Int64GetDatum(most)};

	return hx_statement_count(statement, args, NULL);
}

/* Deletes some of what a sweep has noted as found; false where that was the last. */
bool
hx_sweep_clean(const char *name)
{
	static HxStatement delete = {
		"DELETE FROM hubex.sweep_page WHERE subscription = $1"
		" AND position IN (SELECT position FROM hubex.sweep_page WHERE subscription = $1 ORDER BY position LIMIT $2)",
		2, {TEXTOID, INT8OID}
	};

	return delete_some(&delete, name, CLEAN_PAGES) >= CLEAN_PAGES;
}

/*
 * Forgets which rows were deleted, where no answer of the time before can
 * arrive any more.  Some of them at a time: an incremental run calls it at
 * each of its ends.
 */
void
hx_sweep_forget_tombstones(const char *name)
{
	static HxStatement delete = {
		"DELETE FROM hubex.tombstone WHERE subscription = $1"
		" AND key IN (SELECT key FROM hubex.tombstone WHERE subscription = $1 ORDER BY key LIMIT $2)",
		2, {TEXTOID, INT8OID}
	};

	(void) delete_some(&delete, name, CLEAN_TOMBSTONES);
}

/* ---- what was not found ---- */

static TupleDesc
seen_desc(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(1);

	TupleDescInitEntry(desc, 1, "key", TEXTOID, -1, 0);
	return desc;
}

/*
 * All keys that were found, and those that are protected by a change made
 * here, as a tuplestore of the current context.
 */
static Tuplestorestate *
collect_seen(const char *name, TupleDesc desc, int64 *count)
{
	static HxStatement pages = {
		"SELECT keys FROM hubex.sweep_page WHERE subscription = $1"
		" UNION ALL SELECT array_agg(key) FROM hubex.local_change"
		"            WHERE subscription = $1 AND kind = 'update' AND state = 'open' HAVING count(*) > 0",
		1, {TEXTOID}
	};
	Datum		arg = CStringGetTextDatum(name);
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext page = AllocSetContextCreate(CurrentMemoryContext, "hubex keys seen", ALLOCSET_DEFAULT_SIZES);
	HxOwner		saved;
	Portal		portal;

	*count = 0;
	hx_owner_enter(&saved);
	SPI_connect();
	portal = hx_statement_open(&pages, &arg, NULL);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, KEYS_A_FETCH);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(page);
			bool		isnull;
			ArrayType  *keys = DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
			Datum	   *values;
			bool	   *nulls;
			int			n;

			deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
			for (int k = 0; k < n; k++)
				tuplestore_putvalues(store, desc, &values[k], &nulls[k]);
			*count += n;
			MemoryContextSwitchTo(old);
			MemoryContextReset(page);
			CHECK_FOR_INTERRUPTS();
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	hx_owner_leave(&saved);
	MemoryContextDelete(page);
	return store;
}

/* A type's name for a cast that changes nothing: of char(n), without its length, that is not char, which has one. */
static const char *
type_name(Oid type)
{
	return format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* The rows of the target that are the mirror's: its constants are in the key, and they are not marked as deleted. */
static void
append_rows(StringInfo sql, const HxMirror *mirror)
{
	appendStringInfo(sql, " FROM %s t WHERE true", mirror->target_name);
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const HxMirrorColumn *column = &mirror->columns[i];

		if (column->attno != 0 && column->column != NULL && column->column->constant != NULL)
			appendStringInfo(sql, " AND t.%s = CAST(CAST(%s AS %s) AS %s)", quote_identifier(column->name),
							 quote_literal_cstr(column->column->constant),
							 type_name(column->type), type_name(column->target_type));
	}
	if (mirror->marked != NULL)
		appendStringInfo(sql, " AND t.%s IS NULL", quote_identifier(mirror->marked));
}

static const HxMirrorColumn *
record_key(const HxMirror *mirror)
{
	return &mirror->columns[mirror->record_key];
}

/* Those of them that were not found, and not written since the sweep began ($1). */
static void
append_missing(StringInfo sql, const HxMirror *mirror)
{
	append_rows(sql, mirror);
	if (mirror->synced_at != NULL)
	{
		const char *synced_at = quote_identifier(mirror->synced_at);

		appendStringInfo(sql, " AND (t.%s IS NULL OR t.%s < $1)", synced_at, synced_at);
	}
	appendStringInfoString(sql, " AND NOT EXISTS (SELECT FROM " SEEN " k WHERE ");
	appendStringInfo(sql, "CAST(k.key AS %s) = t.%s)", type_name(record_key(mirror)->target_type),
					 quote_identifier(record_key(mirror)->name));
}

/*
 * Runs a query over the target, as the subscription's owner and within
 * SPI_connect(); with the keys that were found, where they are given.
 */
static void
read_target(const HxMirror *mirror, const char *sql, Tuplestorestate *seen, TupleDesc desc, int64 count,
			const char *after, long most)
{
	Oid			types[2] = {TIMESTAMPTZOID, TEXTOID};
	Datum		args[2];
	char		nulls[3] = "  ";
	int			result;

	if (seen != NULL)
	{
		EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

		relation->md.name = pstrdup(SEEN);
		relation->md.reliddesc = InvalidOid;
		relation->md.tupdesc = desc;
		relation->md.enrtype = ENR_NAMED_TUPLESTORE;
		relation->md.enrtuples = (double) count;
		relation->reldata = seen;
		if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
			elog(ERROR, "could not show the keys of a sweep to a statement");

		/* a wrong guess at the number of keys must not cost more than a hash */
		(void) set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	args[0] = TimestampTzGetDatum(mirror->subscription->sweep_began_at);
	args[1] = hx_text_or_null(after, &nulls[1]);

	/* with a snapshot of now: the lock on the state may have been waited for */
	result = SPI_execute_with_args(sql, lengthof(types), types, args, nulls, false, most);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not read the target of a subscription: %s", SPI_result_code_string(result));
}

static int64
count_rows(const HxMirror *mirror, const char *sql, Tuplestorestate *seen, TupleDesc desc, int64 nseen)
{
	HxRestricted saved;
	bool		isnull;
	int64		count;

	hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
	SPI_connect();
	read_target(mirror, sql, seen, desc, nseen, NULL, 0);
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_restricted_leave(&saved);
	return count;
}

/* The number of rows that the mirror has. */
int64
hx_sweep_count_rows(const HxMirror *mirror)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT count(*)");
	append_rows(&sql, mirror);
	return count_rows(mirror, sql.data, NULL, NULL, 0);
}

/* The number of rows that the sweep, which has read the whole list, did not find. */
int64
hx_sweep_count_missing(const HxMirror *mirror)
{
	TupleDesc	desc = seen_desc();
	int64		nseen;
	Tuplestorestate *seen = collect_seen(mirror->subscription->name, desc, &nseen);
	StringInfoData sql;
	int64		count;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT count(*)");
	append_missing(&sql, mirror);
	count = count_rows(mirror, sql.data, seen, desc, nseen);
	tuplestore_end(seen);
	return count;
}

/*
 * Rows that were not found, in the order of their keys: those behind one (NULL:
 * from the first), no more than so many; of HxMissing *, palloc'd.
 */
List *
hx_sweep_missing(const HxMirror *mirror, const char *after, int most)
{
	MemoryContext here = CurrentMemoryContext;
	const HxMirrorColumn *key = record_key(mirror);
	const char *name = quote_identifier(key->name);
	TupleDesc	desc = seen_desc();
	int64		nseen;
	Tuplestorestate *seen = collect_seen(mirror->subscription->name, desc, &nseen);
	List	   *rows = NIL;
	StringInfoData sql;
	HxRestricted saved;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT t.%s, CAST(t.%s AS pg_catalog.text)", name, name);
	append_missing(&sql, mirror);
	appendStringInfo(&sql, " AND ($2 IS NULL OR CAST($2 AS %s) < t.%s) ORDER BY t.%s",
					 type_name(key->target_type), name, name);

	hx_restricted_enter(&saved, mirror->writer, HX_SYNC_LOCK_MS);
	SPI_connect();
	read_target(mirror, sql.data, seen, desc, nseen, after, most);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(here);
		HxMissing  *row = palloc(sizeof(HxMissing));

		row->key = hx_column_text(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, here);
		row->asked = hx_column_text(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, here);
		if (row->key != NULL)
			rows = lappend(rows, row);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_restricted_leave(&saved);
	tuplestore_end(seen);
	return rows;
}

/* Those of some keys whose rows have no change of this side's that is still to be settled. */
List *
hx_sweep_drop_protected(const HxMirror *mirror, List *keys)
{
	static HxStatement select = {
		"SELECT DISTINCT key FROM hubex.local_change"
		" WHERE subscription = $1 AND key = ANY ($2) AND kind = 'update' AND state = 'open'",
		2, {TEXTOID, TEXTARRAYOID}
	};
	int			n = list_length(keys);
	Datum	   *texts = palloc(sizeof(Datum) * Max(n, 1));
	Datum		args[2];
	HxOwner		saved;

	if (!mirror->two_way || n == 0)
		return keys;
	for (int i = 0; i < n; i++)
		texts[i] = CStringGetTextDatum((char *) list_nth(keys, i));
	args[0] = CStringGetTextDatum(mirror->subscription->name);
	args[1] = PointerGetDatum(text_array(n, texts));
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&select, args, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *key = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		for (int k = list_length(keys) - 1; k >= 0; k--)
			if (strcmp(list_nth(keys, k), key) == 0)
				keys = list_delete_nth_cell(keys, k);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return keys;
}
