/*-------------------------------------------------------------------------
 *
 * apply_statement_store.c
 *	  The statements by which rows are applied to a mirror.
 *
 * The rows are a named relation of SPI's.  Each statement joins them with the
 * target, and says all that has to be true of a row it writes: one that
 * somebody else changes meanwhile is judged again, as it then is.
 *
 * The plans are made so that each row is looked for by the index, for nothing
 * is known of the target's statistics, and a scan of all of it would cost the
 * more the larger it is.  Only the plans are: what triggers run is planned as
 * ever.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "sync/apply.h"

PG_FUNCTION_INFO_V1(hubex_is_syncing);

/* The rows, as the statements know them. */
#define ROWS_NAME		"hubex_rows"
#define ROWS_MEMORY_KB	16384

/* Statements under way that write what came; see hx_apply_is_under_way(). */
static int	writing = 0;

/* The last of them, for triggers to know. */
static struct
{
	Oid			relation;
	int			depth;
}			firing = {InvalidOid, 0};

/* ---- the named relation ---- */

/* Are rows found by this column? */
static bool
finds(const HxApply *work, int i)
{
	return work->by_key ? work->mirror->columns[i].key : work->mirror->columns[i].indexed;
}

/* The columns behind the mirror's own. */
enum
{
	ROW_NUMBER = 1,
	ROW_ASKED,
	ROW_DELETED,
	ROW_VERSION,
	ROW_EXTRAS = ROW_VERSION
};

static void
describe_column(TupleDesc desc, AttrNumber attno, const HxMirror *mirror, TupleDesc target, int i)
{
	const HxMirrorColumn *column = &mirror->columns[i];
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "c%d", i);
	TupleDescInitEntry(desc, attno, name, column->target_type, column->target_typmod, 0);
	if (column->attno != InvalidAttrNumber)
		TupleDescInitEntryCollation(desc, attno, TupleDescAttr(target, column->attno - 1)->attcollation);
}

static void
describe_extras(TupleDesc desc, int behind)
{
	TupleDescInitEntry(desc, behind + ROW_NUMBER, "n", INT4OID, -1, 0);
	TupleDescInitEntry(desc, behind + ROW_ASKED, "asked", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, behind + ROW_DELETED, "deleted", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, behind + ROW_VERSION, "version", XIDOID, -1, 0);
}

/* Describes the named relation; again once some rows keep values. */
void
hx_apply_describe(HxApply *work)
{
	const HxMirror *mirror = work->mirror;
	Relation	target = table_open(mirror->target, NoLock);
	int			nkeys = 0;
	int			nkept = 0;

	work->whole = CreateTemplateTupleDesc(mirror->ncolumns + ROW_EXTRAS + bms_num_members(work->kept));
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		describe_column(work->whole, i + 1, mirror, RelationGetDescr(target), i);
		nkeys += finds(work, i) ? 1 : 0;
	}
	describe_extras(work->whole, mirror->ncolumns);
	for (int i = -1; (i = bms_next_member(work->kept, i)) >= 0;)
	{
		char		name[NAMEDATALEN];

		snprintf(name, sizeof(name), "k%d", i);
		TupleDescInitEntry(work->whole, mirror->ncolumns + ROW_EXTRAS + ++nkept, name, BOOLOID, -1, 0);
	}

	work->keys = CreateTemplateTupleDesc(nkeys + ROW_EXTRAS);
	nkeys = 0;
	for (int i = 0; i < mirror->ncolumns; i++)
		if (finds(work, i))
			describe_column(work->keys, ++nkeys, mirror, RelationGetDescr(target), i);
	describe_extras(work->keys, nkeys);
	table_close(target, NoLock);
}

/* A row of the named relation. */
static void
store_row(const HxApply *work, Tuplestorestate *store, int number, bool keys_only, Datum *values, bool *nulls)
{
	const HxMirror *mirror = work->mirror;
	const HxBatchRow *row = &work->rows[number];
	int			n = 0;

	for (int i = 0; i < mirror->ncolumns; i++)
		if (!keys_only || finds(work, i))
		{
			values[n] = row->values[i];
			nulls[n++] = row->nulls[i];
		}
	memset(nulls + n, false, ROW_EXTRAS);
	nulls[n + ROW_VERSION - 1] = !row->has_version;
	values[n++] = Int32GetDatum(number);
	values[n++] = TimestampTzGetDatum(work->asked_at);
	values[n++] = BoolGetDatum(row->deleted);
	values[n++] = TransactionIdGetDatum(row->version);
	if (!keys_only)
		for (int i = -1; (i = bms_next_member(work->kept, i)) >= 0;)
		{
			nulls[n] = false;
			values[n++] = BoolGetDatum(bms_is_member(i, row->kept));
		}
	tuplestore_putvalues(store, keys_only ? work->keys : work->whole, values, nulls);
}

static Tuplestorestate *
register_rows(const HxApply *work, const HxSome *some, bool keys_only)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	Tuplestorestate *store = tuplestore_begin_heap(false, false, Max(work_mem, ROWS_MEMORY_KB));
	TupleDesc	desc = keys_only ? work->keys : work->whole;
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	int			result;

	for (int i = 0; i < some->n; i++)
		store_row(work, store, some->numbers[i], keys_only, values, nulls);
	relation->md.name = ROWS_NAME;
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = some->n;
	relation->reldata = store;
	if ((result = SPI_register_relation(relation)) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the rows of a mirror: %s", SPI_result_code_string(result));
	return store;
}

/* ---- statements ---- */

/* Each row is to be looked for by the index. */
static void
pin_planner(void)
{
	static const char *const pinned[][2] = {
		{"enable_nestloop", "on"},
		{"enable_indexscan", "on"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"enable_seqscan", "off"},
		{"enable_bitmapscan", "off"},
		{"enable_memoize", "off"},
		{"jit", "off"}
	};

	for (int i = 0; i < lengthof(pinned); i++)
		(void) set_config_option(pinned[i][0], pinned[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static int
trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/*
 * Runs a statement over some rows; what it returns is in SPI_tuptable.  Only
 * its plan is made under other settings: triggers are to find those they know.
 */
static void
run(const HxApply *work, const HxSome *some, bool keys_only, const char *sql, int expected)
{
	Tuplestorestate *store = register_rows(work, some, keys_only);
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, 0, NULL, CURSOR_OPT_GENERIC_PLAN);
	int			guc_level = NewGUCNestLevel();
	Oid			firing_relation = firing.relation;
	int			firing_depth = firing.depth;
	int			result;

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	pin_planner();
	ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), NULL);
	AtEOXact_GUC(false, guc_level);

	writing += expected != SPI_OK_SELECT ? 1 : 0;
	firing.relation = expected != SPI_OK_SELECT ? work->mirror->target : InvalidOid;
	firing.depth = trigger_depth() + 1;
	PG_TRY();
	{
		result = SPI_execute_plan(plan, NULL, NULL, false, 0);
	}
	PG_FINALLY();
	{
		writing -= expected != SPI_OK_SELECT ? 1 : 0;
		firing.relation = firing_relation;
		firing.depth = firing_depth;
	}
	PG_END_TRY();
	if (result != expected)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	SPI_freeplan(plan);
	SPI_unregister_relation(ROWS_NAME);
	tuplestore_end(store);
}

bool
hx_apply_is_under_way(void)
{
	return writing > 0;
}

bool
hx_apply_fires(Oid relation)
{
	if (!OidIsValid(firing.relation) || trigger_depth() != firing.depth)
		return false;
	return relation == firing.relation || list_member_oid(get_partition_ancestors(relation), firing.relation);
}

/* hubex_is_syncing() -> boolean: does this statement, or one it was fired by, write what came from a remote side? */
Datum
hubex_is_syncing(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(hx_apply_is_under_way());
}

static void
add_operator(StringInfo sql, Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(sql, " OPERATOR(%s.%s) ", quote_identifier(get_namespace_name(form->oprnamespace)),
					 NameStr(form->oprname));
	ReleaseSysCache(tuple);
}

/* "ONLY schema.table", unless it has partitions. */
static const char *
target_of(const HxMirror *mirror)
{
	return get_rel_relkind(mirror->target) == RELKIND_PARTITIONED_TABLE ? mirror->target_name :
		psprintf("ONLY %s", mirror->target_name);
}

/* The key of the row t of the target is that of the row b. */
static void
add_key_condition(StringInfo sql, const HxApply *work)
{
	const HxMirror *mirror = work->mirror;
	const char *word = "";

	for (int i = 0; i < mirror->ncolumns; i++)
	{
		if (!finds(work, i))
			continue;
		appendStringInfo(sql, "%st.%s", word, quote_identifier(mirror->columns[i].name));
		add_operator(sql, mirror->columns[i].equal);
		appendStringInfo(sql, "b.c%d", i);
		word = " AND ";
	}
}

/* Does an update write this column? */
bool
hx_apply_writes(const HxMirror *mirror, int i)
{
	const HxMirrorColumn *column = &mirror->columns[i];

	return column->attno != InvalidAttrNumber && !column->indexed;
}

/* The value that a column of the target is to have. */
static void
add_value(StringInfo sql, const HxApply *work, int i)
{
	if (bms_is_member(i, work->kept))
		appendStringInfo(sql, "CASE WHEN b.k%d THEN t.%s ELSE b.c%d END", i,
						 quote_identifier(work->mirror->columns[i].name), i);
	else
		appendStringInfo(sql, "b.c%d", i);
}

/* Is the mark a column of its own, which shows nothing of the record? */
static bool
marks_apart(const HxMirror *mirror)
{
	return mirror->marked != NULL && mirror->mark < 0;
}

/* The target's row is not what the record says. */
static void
add_changed(StringInfo sql, const HxApply *work)
{
	const HxMirror *mirror = work->mirror;
	StringInfoData theirs;
	StringInfoData ours;

	initStringInfo(&theirs);
	initStringInfo(&ours);
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		if (!hx_apply_writes(mirror, i))
			continue;
		appendStringInfo(&ours, "%st.%s", ours.len > 0 ? ", " : "", quote_identifier(mirror->columns[i].name));
		appendStringInfoString(&theirs, theirs.len > 0 ? ", " : "");
		add_value(&theirs, work, i);
	}
	appendStringInfoChar(sql, '(');
	if (ours.len > 0)
		appendStringInfo(sql, "ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record", ours.data, theirs.data);
	else
		appendStringInfoString(sql, "false");
	if (marks_apart(mirror))
		appendStringInfo(sql, " OR (t.%s IS NOT NULL) <> b.deleted", quote_identifier(mirror->marked));
	appendStringInfoChar(sql, ')');
}

/* It is the version that was looked at for changes made here. */
static void
add_version(StringInfo sql, const HxMirror *mirror)
{
	if (mirror->two_way)
		appendStringInfoString(sql, " AND (b.version IS NULL OR t.xmin OPERATOR(pg_catalog.=) b.version)");
}

/* The operator by which one time is greater than another, or equal, in the type of the target's column. */
static Oid
later(const HxMirror *mirror, bool or_equal)
{
	TypeCacheEntry *type = lookup_type_cache(getBaseType(mirror->columns[mirror->modified].target_type),
											 TYPECACHE_BTREE_OPFAMILY);

	return OidIsValid(type->btree_opf) ?
		get_opfamily_member(type->btree_opf, type->btree_opintype, type->btree_opintype,
							or_equal ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber) : InvalidOid;
}

/*
 * The record is newer than the target's row: see apply_store.c.  The time of
 * a mark is not the remote side's, so of a marked row only the local clock
 * tells what was known before it.
 */
static void
add_newer(StringInfo sql, const HxMirror *mirror)
{
	const char *asked = mirror->synced_at ? quote_identifier(mirror->synced_at) : NULL;
	bool		has_modified = mirror->modified >= 0 && mirror->columns[mirror->modified].attno != InvalidAttrNumber;
	Oid			operator = has_modified ? later(mirror, asked == NULL) : InvalidOid;
	const char *modified = has_modified ? quote_identifier(mirror->columns[mirror->modified].name) : NULL;

	if (asked == NULL && !OidIsValid(operator))
	{
		appendStringInfoString(sql, "true");
		return;
	}
	appendStringInfoChar(sql, '(');
	if (asked != NULL)
		appendStringInfo(sql, "t.%s IS NULL OR b.asked > t.%s OR t.%s > pg_catalog.clock_timestamp()", asked, asked, asked);
	else
		appendStringInfo(sql, "t.%s IS NULL OR b.c%d IS NULL", modified, mirror->modified);
	if (OidIsValid(operator))
	{
		appendStringInfo(sql, " OR b.c%d", mirror->modified);
		add_operator(sql, operator);
		appendStringInfo(sql, "t.%s", modified);
		if (asked != NULL && mirror->marked != NULL)
			appendStringInfo(sql, " AND (b.deleted OR t.%s IS NULL)", quote_identifier(mirror->marked));
	}
	appendStringInfoChar(sql, ')');
}

/* ---- looking ---- */

/* Looks what the target has of some rows; whether that differs, unless it is only asked what there is. */
void
hx_apply_look(HxApply *work, const HxSome *some, bool keys_only)
{
	StringInfoData sql;

	for (int i = 0; i < some->n; i++)
		work->states[some->numbers[i]].found = false;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT b.n, t.tableoid, t.ctid, t.xmin");
	if (!keys_only)
	{
		appendStringInfoString(&sql, ", ");
		add_changed(&sql, work);
		appendStringInfoString(&sql, ", ");
		add_newer(&sql, work->mirror);
	}
	appendStringInfo(&sql, " FROM " ROWS_NAME " b JOIN %s t ON ", target_of(work->mirror));
	add_key_condition(&sql, work);
	run(work, some, keys_only, sql.data, SPI_OK_SELECT);

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		HxRowState   *state = &work->states[DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull))];
		Datum		value;

		state->found = true;
		state->relation = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		state->tid = *(ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, 3, &isnull));
		state->xmin = DatumGetTransactionId(SPI_getbinval(tuple, desc, 4, &isnull));
		if (keys_only)
			continue;
		value = SPI_getbinval(tuple, desc, 5, &isnull);
		state->changed = !isnull && DatumGetBool(value);
		value = SPI_getbinval(tuple, desc, 6, &isnull);
		state->newer = !isnull && DatumGetBool(value);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Counts the values that some rows of the target have in columns. */
void
hx_apply_count_values(const HxApply *work, const HxSome *some, Bitmapset *columns, int64 *counts)
{
	StringInfoData sql;
	int			n = 0;

	initStringInfo(&sql);
	for (int i = -1; (i = bms_next_member(columns, i)) >= 0;)
		appendStringInfo(&sql, "%spg_catalog.count(t.%s)", sql.len == 0 ? "SELECT " : ", ",
						 quote_identifier(work->mirror->columns[i].name));
	appendStringInfo(&sql, " FROM " ROWS_NAME " b JOIN %s t ON ", target_of(work->mirror));
	add_key_condition(&sql, work);
	run(work, some, true, sql.data, SPI_OK_SELECT);
	for (int i = -1; (i = bms_next_member(columns, i)) >= 0;)
	{
		bool		isnull;

		counts[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, ++n, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
}

/* ---- writing ---- */

/* Notes what a statement returned, the numbers of rows. */
static int64
settle_returned(HxApply *work)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		work->states[DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull))].settled = true;
	}
	SPI_freetuptable(SPI_tuptable);
	return (int64) SPI_processed;
}

int64
hx_apply_update(HxApply *work, const HxSome *some)
{
	const HxMirror *mirror = work->mirror;
	StringInfoData sql;
	const char *word = " SET ";

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s AS t", target_of(mirror));
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		if (!hx_apply_writes(mirror, i))
			continue;
		appendStringInfo(&sql, "%s%s = ", word, quote_identifier(mirror->columns[i].name));
		add_value(&sql, work, i);
		word = ", ";
	}
	if (marks_apart(mirror))
	{
		const char *marked = quote_identifier(mirror->marked);

		appendStringInfo(&sql, "%s%s = CASE WHEN b.deleted THEN COALESCE(t.%s, pg_catalog.now()) END", word, marked,
						 marked);
		word = ", ";
	}
	if (mirror->synced_at != NULL)
		appendStringInfo(&sql, "%s%s = pg_catalog.now()", word, quote_identifier(mirror->synced_at));
	appendStringInfoString(&sql, " FROM " ROWS_NAME " b WHERE ");
	add_key_condition(&sql, work);
	appendStringInfoString(&sql, " AND ");
	add_changed(&sql, work);
	appendStringInfoString(&sql, " AND ");
	add_newer(&sql, mirror);
	add_version(&sql, mirror);
	appendStringInfoString(&sql, " RETURNING b.n");
	run(work, some, false, sql.data, SPI_OK_UPDATE_RETURNING);
	return settle_returned(work);
}

int64
hx_apply_delete(HxApply *work, const HxSome *some)
{
	const HxMirror *mirror = work->mirror;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s AS t USING " ROWS_NAME " b WHERE ", target_of(mirror));
	add_key_condition(&sql, work);
	appendStringInfoString(&sql, " AND ");
	add_newer(&sql, mirror);
	add_version(&sql, mirror);
	appendStringInfoString(&sql, " RETURNING b.n");
	run(work, some, false, sql.data, SPI_OK_DELETE_RETURNING);
	return settle_returned(work);
}

/* Notes which rows an INSERT returned, by their keys; not asked where it returned all. */
static int64
settle_inserted(HxApply *work, const HxSome *some)
{
	bool		all = SPI_processed == some->n;
	char	  **keys = palloc(Max(SPI_processed, 1) * sizeof(char *));
	int			n = 0;

	for (uint64 i = 0; !all && i < SPI_processed; i++)
		keys[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

	/* they come in the order in which they were given */
	for (int i = 0; i < some->n; i++)
	{
		bool		inserted = all ||
			(n < SPI_processed && keys[n] != NULL && strcmp(keys[n], work->rows[some->numbers[i]].key) == 0);

		work->states[some->numbers[i]].settled = inserted;
		n += inserted ? 1 : 0;
	}
	SPI_freetuptable(SPI_tuptable);
	return (int64) SPI_processed;
}

int64
hx_apply_insert(HxApply *work, const HxSome *some)
{
	const HxMirror *mirror = work->mirror;
	StringInfoData columns;
	StringInfoData values;
	StringInfoData keys;
	StringInfoData sql;

	initStringInfo(&columns);
	initStringInfo(&values);
	initStringInfo(&keys);
	initStringInfo(&sql);
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const char *name = quote_identifier(mirror->columns[i].name);

		if (mirror->columns[i].attno == InvalidAttrNumber)
			continue;
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "", name);
		appendStringInfo(&values, "%sb.c%d", values.len > 0 ? ", " : "", i);
		if (mirror->columns[i].indexed)
			appendStringInfo(&keys, "%s%s", keys.len > 0 ? ", " : "", name);
	}
	if (mirror->synced_at != NULL)
	{
		appendStringInfo(&columns, ", %s", quote_identifier(mirror->synced_at));
		appendStringInfoString(&values, ", pg_catalog.now()");
	}
	if (marks_apart(mirror))
	{
		appendStringInfo(&columns, ", %s", quote_identifier(mirror->marked));
		appendStringInfoString(&values, ", CASE WHEN b.deleted THEN pg_catalog.now() END");
	}

	/* the key may be an identity */
	appendStringInfo(&sql, "INSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM " ROWS_NAME
					 " b ON CONFLICT (%s) DO NOTHING RETURNING t.%s", mirror->target_name, columns.data, values.data,
					 keys.data, quote_identifier(mirror->columns[mirror->record_key].name));
	run(work, some, false, sql.data, SPI_OK_INSERT_RETURNING);
	return settle_inserted(work, some);
}

/* Deletes or marks rows that were written last before asked_at. */
int64
hx_apply_end(HxApply *work, const HxSome *some)
{
	const HxMirror *mirror = work->mirror;
	bool		marks = mirror->marked != NULL;
	const char *synced_at = mirror->synced_at ? quote_identifier(mirror->synced_at) : NULL;
	StringInfoData sql;

	initStringInfo(&sql);
	if (marks)
	{
		const char *marked = quote_identifier(mirror->marked);

		appendStringInfo(&sql, "UPDATE %s AS t SET %s = pg_catalog.now()", target_of(mirror), marked);
		if (synced_at != NULL)
			appendStringInfo(&sql, ", %s = pg_catalog.now()", synced_at);
		appendStringInfo(&sql, " FROM " ROWS_NAME " b WHERE t.%s IS NULL AND ", marked);
	}
	else
		appendStringInfo(&sql, "DELETE FROM %s AS t USING " ROWS_NAME " b WHERE ", target_of(mirror));
	add_key_condition(&sql, work);
	if (synced_at != NULL)
		appendStringInfo(&sql, " AND (t.%s IS NULL OR t.%s < b.asked)", synced_at, synced_at);
	appendStringInfoString(&sql, " RETURNING b.n");
	run(work, some, true, sql.data, marks ? SPI_OK_UPDATE_RETURNING : SPI_OK_DELETE_RETURNING);
	return settle_returned(work);
}
