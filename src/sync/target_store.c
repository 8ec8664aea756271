/*-------------------------------------------------------------------------
 *
 * target_store.c
 *	  Rows of a target as they are now.
 *
 * They are looked up by the role that writes the target, mirror->writer; the
 * caller has become that role (base/restricted.h), except where it says otherwise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "sync/two_way.h"

/* The equality of a type, as SQL that means no other operator. */
static char *
equality(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(getBaseType(type), TYPECACHE_EQ_OPR);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(entry->eq_opr));
	Form_pg_operator equal;
	char	   *sql;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "type %s has no equality", format_type_be(type));
	equal = (Form_pg_operator) GETSTRUCT(tuple);
	sql = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(equal->oprnamespace)),
				   NameStr(equal->oprname));
	ReleaseSysCache(tuple);
	return sql;
}

/* Adds the condition that a row is that of a key, which stands in an expression of type text. */
static void
add_key_condition(StringInfo sql, const HxMirror *mirror, const char *key)
{
	const char *word = "";

	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const HxMirrorColumn *column = &mirror->columns[i];
		const char *value = i == mirror->record_key ? key : column->column->constant;

		if ((!column->key && i != mirror->record_key) || value == NULL)
			continue;
		appendStringInfo(sql, "%st.%s %s CAST(%s AS %s)", word, quote_identifier(column->name),
						 equality(column->target_type), i == mirror->record_key ? value : quote_literal_cstr(value),
						 format_type_be_qualified(column->target_type));
		word = " AND ";
	}
}

static void
run(const char *sql, int nargs, Oid *types, Datum *args)
{
	int			result = SPI_execute_with_args(sql, nargs, types, args, NULL, false, 0);

	if (result < 0)
		elog(ERROR, "could not look up rows of a mirror: %s", SPI_result_code_string(result));
}

/* The same of many keys: each is looked for by the index, however large the target is. */
static void
run_by_index(const char *sql, int nargs, Oid *types, Datum *args)
{
	static const char *const off[] = {"enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan", "jit"};
	int			guc_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(off); i++)
		(void) set_config_option(off[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	run(sql, nargs, types, args);
	AtEOXact_GUC(false, guc_level);
}

static Datum
column(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

/* Copies values of the mirror's columns, from a column of the result on; the others are null. */
static void
take_values(const HxMirror *mirror, uint64 row, int number, const Bitmapset *columns, Datum *values, bool *nulls)
{
	memset(nulls, true, sizeof(bool) * mirror->ncolumns);
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		int16		len;
		bool		byval;

		if (mirror->columns[i].attno == InvalidAttrNumber || !bms_is_member(i, columns))
			continue;
		values[i] = column(row, number++, &nulls[i]);
		get_typlenbyval(mirror->columns[i].target_type, &len, &byval);
		if (!nulls[i])
			values[i] = len == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(values[i])) : datumCopy(values[i], byval, len);
	}
}

static void
take_row(const HxMirror *mirror, uint64 n, const Bitmapset *columns, HxTargetRow *row)
{
	bool		isnull;

	row->found = true;
	row->tid = *(ItemPointer) DatumGetPointer(column(n, 2, &isnull));
	row->relation = DatumGetObjectId(column(n, 3, &isnull));
	row->version = DatumGetTransactionId(column(n, 4, &isnull));
	row->synced = DatumGetTimestampTz(column(n, 5, &isnull));
	row->has_synced = !isnull;
	row->marked = DatumGetBool(column(n, 6, &isnull));
	row->values = palloc0(sizeof(Datum) * mirror->ncolumns);
	row->nulls = palloc(sizeof(bool) * mirror->ncolumns);
	take_values(mirror, n, 7, columns, row->values, row->nulls);
}

static void
add_columns(StringInfo sql, const HxMirror *mirror, const char *row, const Bitmapset *columns)
{
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno != InvalidAttrNumber && bms_is_member(i, columns))
			appendStringInfo(sql, ", %s.%s", row, quote_identifier(mirror->columns[i].name));
}

/*
 * The rows of the target that have these keys, in the order of the keys,
 * palloc'd, with the values of some of the mirror's columns, by index.  With
 * lock, they are locked as by an UPDATE.
 */
HxTargetRow *
hx_target_rows(const HxMirror *mirror, int nkeys, const char *const *keys, const Bitmapset *columns, bool lock)
{
	MemoryContext here = CurrentMemoryContext;
	MemoryContext old;
	HxTargetRow *rows = palloc0(sizeof(HxTargetRow) * Max(nkeys, 1));
	Oid			types[1] = {TEXTARRAYOID};
	Datum	   *texts = palloc(sizeof(Datum) * Max(nkeys, 1));
	Datum		args[1];
	StringInfoData sql;

	if (nkeys == 0)
		return rows;
	for (int i = 0; i < nkeys; i++)
		texts[i] = CStringGetTextDatum(keys[i]);
	args[0] = PointerGetDatum(construct_array(texts, nkeys, TEXTOID, -1, false, TYPALIGN_INT));

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT k.n, t.ctid, t.tableoid, t.xmin, %s, %s",
					 mirror->synced_at ? psprintf("t.%s", quote_identifier(mirror->synced_at)) : "NULL::timestamptz",
					 mirror->marked ? psprintf("t.%s IS NOT NULL", quote_identifier(mirror->marked)) : "false");
	add_columns(&sql, mirror, "t", columns);
	appendStringInfo(&sql, " FROM unnest($1) WITH ORDINALITY AS k (k, n) JOIN %s AS t ON ", mirror->target_name);
	add_key_condition(&sql, mirror, "k.k");
	if (lock)
		appendStringInfoString(&sql, " ORDER BY k.n FOR NO KEY UPDATE OF t");

	SPI_connect();
	run_by_index(sql.data, 1, types, args);
	old = MemoryContextSwitchTo(here);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		int64		n = DatumGetInt64(column(i, 1, &isnull));

		take_row(mirror, i, columns, &rows[n - 1]);
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	return rows;
}

/*
 * Has the target a row of that key?  It is kept there until the transaction
 * ends.  Whoever asks, it is looked for as mirror->writer; in the transaction of
 * a user, whose deferred constraints are left alone.
 */
bool
hx_target_holds(const HxMirror *mirror, const char *key)
{
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {CStringGetTextDatum(key)};
	StringInfoData sql;
	int			guc_level = NewGUCNestLevel();
	Oid			caller;
	int			sec_context;
	bool		holds;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT FROM %s AS t WHERE ", mirror->target_name);
	add_key_condition(&sql, mirror, "$1");
	appendStringInfoString(&sql, " FOR KEY SHARE");
	GetUserIdAndSecContext(&caller, &sec_context);
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(mirror->writer,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	run(sql.data, 1, types, args);
	holds = SPI_processed > 0;
	SPI_finish();
	SetUserIdAndSecContext(caller, sec_context);
	AtEOXact_GUC(false, guc_level);
	return holds;
}

/* A whole row of the target, kept as JSON, as a row of a batch. */
HxBatchRow *
hx_target_row_of_json(const HxMirror *mirror, const char *key, const Jsonb *json)
{
	MemoryContext here = CurrentMemoryContext;
	MemoryContext old;
	HxBatchRow *row = palloc0(sizeof(HxBatchRow));
	Oid			types[1] = {JSONBOID};
	Datum		args[1] = {JsonbPGetDatum(json)};
	Bitmapset  *all = bms_add_range(NULL, 0, mirror->ncolumns - 1);
	StringInfoData sql;

	row->key = pstrdup(key);
	row->values = palloc0(sizeof(Datum) * mirror->ncolumns);
	row->nulls = palloc(sizeof(bool) * mirror->ncolumns);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT NULL");
	add_columns(&sql, mirror, "r", all);
	appendStringInfo(&sql, " FROM jsonb_populate_record(NULL::%s, $1) AS r", mirror->target_name);
	SPI_connect();
	run(sql.data, 1, types, args);
	old = MemoryContextSwitchTo(here);
	take_values(mirror, 0, 2, all, row->values, row->nulls);
	MemoryContextSwitchTo(old);
	SPI_finish();
	return row;
}

static bool
is_of_mirror(const HxMirror *mirror, const char *name)
{
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno != InvalidAttrNumber && strcmp(mirror->columns[i].name, name) == 0)
			return true;
	return (mirror->synced_at != NULL && strcmp(mirror->synced_at, name) == 0) ||
		(mirror->marked != NULL && strcmp(mirror->marked, name) == 0);
}

/* Gives a row that is there again what it had in columns that show nothing of the record. */
void
hx_target_give_back(const HxMirror *mirror, const char *key, const Jsonb *json)
{
	Relation	target = table_open(mirror->target, NoLock);
	TupleDesc	desc = RelationGetDescr(target);
	Oid			types[2] = {JSONBOID, TEXTOID};
	Datum		args[2] = {JsonbPGetDatum(json), CStringGetTextDatum(key)};
	const char *word = "SET";
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s AS t", mirror->target_name);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		char	   *name = NameStr(attribute->attname);

		if (attribute->attisdropped || attribute->attgenerated || attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS ||
			is_of_mirror(mirror, name))
			continue;
		appendStringInfo(&sql, " %s %s = r.%s", word, quote_identifier(name), quote_identifier(name));
		word = ",";
	}
	appendStringInfo(&sql, " FROM jsonb_populate_record(NULL::%s, $1) AS r WHERE ", mirror->target_name);
	add_key_condition(&sql, mirror, "$2");
	table_close(target, NoLock);
	if (strcmp(word, "SET") == 0)
		return;
	SPI_connect();
	run(sql.data, 2, types, args);
	SPI_finish();
}
