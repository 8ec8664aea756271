/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Records that were read and are to be applied together.
 *
 * What is read arrives while no transaction is open, so it is kept as it
 * came, until there is enough for a transaction to be worth it.  Then it is
 * made into rows at once: each value is read as the foreign table's type, as a
 * scan of it would, and cast to the target's as an assignment would.
 *
 * Types, domains and casts may be anybody's, so their functions run as the
 * subscription's owner, restricted; and under settings of their own, for a
 * row must not depend on who synchronises.
 *
 * What does not fit is an error or, by the subscription's policy, null, or
 * leaves the value alone that the mirror has; then it is counted by column.
 * A record's key has to fit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "base/restricted.h"
#include "compat.h"
#include "connector/value.h"
#include "sync/sync.h"

/* A batch is full when it has so many records, or so many bytes. */
#define FULL_RECORDS	5000
#define FULL_BYTES		(4 * 1024 * 1024)

typedef struct KeptRecord
{
	HxRecord	record;
	bool		single;			/* it was asked for by its id */
} KeptRecord;

struct HxBatch
{
	MemoryContext context;		/* of the records, emptied with them */
	int			n;
	KeptRecord *records;		/* room for FULL_RECORDS */
	size_t		bytes;
	TimestampTz asked_at;
};

/* ---- keeping records ---- */

HxBatch *
hx_batch_make(void)
{
	HxBatch    *batch = palloc0(sizeof(HxBatch));

	batch->records = palloc(FULL_RECORDS * sizeof(KeptRecord));
	batch->context = AllocSetContextCreate(CurrentMemoryContext, "hubex batch", ALLOCSET_DEFAULT_SIZES);
	return batch;
}

static void
add(HxBatch *batch, const HxRecord *record, TimestampTz asked_at, bool single)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	KeptRecord *kept = &batch->records[batch->n];
	char	   *bytes = MemoryContextAllocHuge(batch->context, record->len + 1);

	if (batch->n == FULL_RECORDS)
		elog(ERROR, "a batch of records is full");
	memcpy(bytes, record->bytes, record->len);
	bytes[record->len] = '\0';
	kept->record = *record;
	kept->record.bytes = bytes;
	kept->record.key = record->key ? pstrdup(record->key) : NULL;
	kept->record.parent = record->parent ? pstrdup(record->parent) : NULL;
	kept->record.outline = NULL;	/* it is made again, which is cheaper than to copy it */
	kept->single = single;
	if (batch->n == 0 || asked_at < batch->asked_at)
		batch->asked_at = asked_at;
	batch->bytes += record->len;
	batch->n++;
	MemoryContextSwitchTo(old);
}

/* Keeps a copy of a record, of a request that was sent at a time by the local clock. */
void
hx_batch_add(HxBatch *batch, const HxRecord *record, TimestampTz asked_at)
{
	add(batch, record, asked_at, false);
}

void
hx_batch_add_single(HxBatch *batch, const HxRecord *record, TimestampTz asked_at)
{
	add(batch, record, asked_at, true);
}

int
hx_batch_count(const HxBatch *batch)
{
	return batch->n;
}

bool
hx_batch_is_full(const HxBatch *batch)
{
	return batch->n == FULL_RECORDS || batch->bytes >= FULL_BYTES;
}

TimestampTz
hx_batch_asked_at(const HxBatch *batch)
{
	return batch->asked_at;
}

/* Forgets the records. */
void
hx_batch_reset(HxBatch *batch)
{
	MemoryContextReset(batch->context);
	batch->n = 0;
	batch->bytes = 0;
}

/* ---- what did not fit ---- */

typedef struct NewNote
{
	HxJsonBuilder builder;
	const char *column;
	char	   *problem;
	int64		count;
} NewNote;

static void
add_number(HxJsonBuilder *builder, const char *name, int64 number)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(number)));
	hx_json_add(builder, name, &value);
}

/* Takes over what was noted before; of the same column, its number, and the problem that came first. */
static void
add_note(const char *column, const JsonbValue *value, void *arg)
{
	NewNote    *note = arg;
	Jsonb	   *noted = hx_json_value_part(value);

	if (strcmp(column, note->column) != 0)
		hx_json_add_part(&note->builder, column, noted);
	else
	{
		note->problem = hx_json_text(noted, "problem");
		note->count += hx_json_int(noted, "count", 0);
	}
}

Jsonb *
hx_batch_note(const Jsonb *drift, const char *column, const char *problem, int64 count)
{
	NewNote		note = {.column = column,.problem = pstrdup(problem),.count = count};
	HxJsonBuilder entry;

	hx_json_begin(&note.builder);
	hx_json_each(drift, add_note, &note);
	hx_json_begin(&entry);
	hx_json_add_text(&entry, "problem", note.problem);
	add_number(&entry, "count", note.count);
	hx_json_add_part(&note.builder, column, hx_json_end(&entry));
	return hx_json_end(&note.builder);
}

/* ---- rows ---- */

/* The attributes behind the mirror's columns. */
enum
{
	EXTRA_DELETED,
	EXTRA_MODIFIED,
	EXTRAS
};

/* A column whose values are cast. */
typedef struct Cast
{
	int			column;
	ExprState  *state;			/* or NULL */
	Oid			domain;			/* that may refuse NULL, too; or InvalidOid */
	void	   *domain_state;
	FmgrInfo	output;			/* of what is cast, for errors */
} Cast;

/* What a row leaves over is most often less. */
#define SCRATCH_BYTES	(32 * 1024)

/* What rows are made with. */
typedef struct Maker
{
	MemoryContext context;		/* it lives in, with the rows */
	MemoryContext scratch;		/* what is left over from making a row */
	const HxMirror *mirror;
	HxRecordShape *shape;		/* of the mirror's columns and the extra ones */
	FmgrInfo	key_output;
	ExprContext *econtext;
	int			ncasts;
	Cast	   *casts;
	bool		lacks;			/* a single record does not show all that the mirror does */

	/* of the columns' types, as they are stored */
	int16	   *lengths;
	bool	   *by_value;

	/* what did not fit, by column */
	int64	   *counts;
	char	  **problems;

	/* the row at hand */
	HxBatchRow *row;
	int			cast;
} Maker;

static void
note(Maker *maker, int column, const char *record, const char *problem)
{
	if (column >= maker->mirror->ncolumns)
		column = maker->mirror->modified;
	if (column >= 0 && maker->counts[column]++ == 0)
		maker->problems[column] = MemoryContextStrdup(maker->context, psprintf("%s (record %s)", problem,
																				 record ? record : "without an id"));
}

/* A value of the row at hand does not fit. */
static void
drop_value(Maker *maker, int column, const char *record, const char *problem)
{
	const HxMirror *mirror = maker->mirror;

	if (column < mirror->ncolumns && mirror->columns[column].indexed)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("the key of a record does not fit the mirror"),
				 errdetail("Column \"%s\" of record %s: %s.", mirror->columns[column].name,
						   record ? record : "without an id", problem)));
	note(maker, column, record, problem);
	if (mirror->subscription->on_drift == HX_DRIFT_IGNORE && column < mirror->ncolumns)
		maker->row->kept = bms_add_member(maker->row->kept, column);
}

/* HxRecordWatch */
static void
watch(void *arg, int column, const char *record, const char *problem, bool fits)
{
	if (fits)
		note(arg, column, record, problem);
	else
		drop_value(arg, column, record, problem);
}

/* ---- casts ---- */

static void
prepare_casts(Maker *maker)
{
	const HxMirror *mirror = maker->mirror;

	maker->econtext = CreateStandaloneExprContext();
	maker->casts = palloc0(mirror->ncolumns * sizeof(Cast));
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const HxMirrorColumn *column = &mirror->columns[i];
		Cast	   *cast = &maker->casts[maker->ncasts];
		Oid			output;
		bool		varlena;

		if (get_typtype(column->target_type) == TYPTYPE_DOMAIN)
			cast->domain = column->target_type;
		if (column->cast == NULL && !OidIsValid(cast->domain))
			continue;
		getTypeOutputInfo(column->type, &output, &varlena);
		fmgr_info(output, &cast->output);
		cast->column = i;
		cast->state = column->cast ? ExecInitExpr((Expr *) column->cast, NULL) : NULL;
		maker->ncasts++;
	}
}

static void
cast_value(Maker *maker)
{
	Cast	   *cast = &maker->casts[maker->cast];
	Datum	   *value = &maker->row->values[cast->column];
	bool	   *isnull = &maker->row->nulls[cast->column];

	if (!*isnull && cast->state != NULL)
	{
		maker->econtext->caseValue_datum = *value;
		maker->econtext->caseValue_isNull = false;
		*value = ExecEvalExpr(cast->state, maker->econtext, isnull);
	}
	if (*isnull && OidIsValid(cast->domain))
		domain_check((Datum) 0, true, cast->domain, &cast->domain_state, maker->context);
}

static void
cast_values(Maker *maker)
{
	for (maker->cast = 0; maker->cast < maker->ncasts; maker->cast++)
		cast_value(maker);
}

/* Adds to the error of a cast what was cast, and raises it again. */
HX_NORETURN static void
raise_again(Maker *maker, MemoryContext cxt)
{
	const Cast *cast = &maker->casts[maker->cast];
	const HxMirrorColumn *column = &maker->mirror->columns[cast->column];
	ErrorData  *error;

	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	FlushErrorState();
	error->detail = psprintf("Column \"%s\" of record %s: %s%s%s%s", column->name, maker->row->key,
							 maker->row->nulls[cast->column] ? "null" : "\"",
							 maker->row->nulls[cast->column] ? "" :
							 OutputFunctionCall((FmgrInfo *) &cast->output, maker->row->values[cast->column]),
							 maker->row->nulls[cast->column] ? "." : "\".",
							 error->detail ? psprintf(" %s", error->detail) : "");
	ReThrowError(error);
}

typedef struct Attempt
{
	Maker	   *maker;
	Datum	   *values;			/* before */
	bool	   *nulls;
} Attempt;

static void
attempt_all(void *arg)
{
	cast_values(((Attempt *) arg)->maker);
}

static void
attempt_one(void *arg)
{
	cast_value(((Attempt *) arg)->maker);
}

/* Casts what can be cast; what cannot is dropped. */
static void
cast_what_fits(Maker *maker)
{
	HxBatchRow *row = maker->row;
	size_t		n = maker->mirror->ncolumns;
	Attempt		attempt = {.maker = maker};
	char	   *problem;

	attempt.values = palloc(n * sizeof(Datum));
	attempt.nulls = palloc(n * sizeof(bool));
	memcpy(attempt.values, row->values, n * sizeof(Datum));
	memcpy(attempt.nulls, row->nulls, n * sizeof(bool));
	if (hx_attempt_in_database(attempt_all, &attempt, &problem))
		return;

	memcpy(row->values, attempt.values, n * sizeof(Datum));
	memcpy(row->nulls, attempt.nulls, n * sizeof(bool));
	for (maker->cast = 0; maker->cast < maker->ncasts; maker->cast++)
	{
		int			column = maker->casts[maker->cast].column;

		if (hx_attempt_in_database(attempt_one, &attempt, &problem))
			continue;
		row->nulls[column] = true;
		drop_value(maker, column, row->key, problem);
	}
}

static void
cast_row(Maker *maker)
{
	MemoryContext cxt = CurrentMemoryContext;

	if (maker->ncasts == 0)
		return;
	if (maker->mirror->subscription->on_drift != HX_DRIFT_ERROR)
	{
		cast_what_fits(maker);
		return;
	}
	PG_TRY();
	{
		cast_values(maker);
	}
	PG_CATCH();
	{
		raise_again(maker, cxt);
	}
	PG_END_TRY();
}

/* ---- the maker ---- */

/* What was asked for by a filter's parameter; NULL: nothing, or more than one thing. */
static const char *
asked_for(const HxTable *table, const char *parameter)
{
	const char *value = NULL;
	ListCell   *cell;

	foreach(cell, table->query)
	{
		HxPair	   *pair = lfirst(cell);

		if (strcmp(pair->name, parameter) == 0 && value != NULL)
			return NULL;
		if (strcmp(pair->name, parameter) == 0)
			value = pair->value;
	}
	return value;
}

static HxColumn *
extra_column(const char *path, bool present)
{
	HxColumn   *column = palloc0(sizeof(HxColumn));

	column->name = path;
	column->path = path;
	column->present = present;
	return column;
}

static void
make_shape(Maker *maker)
{
	const HxMirror *mirror = maker->mirror;
	int			n = mirror->ncolumns;
	TupleDesc	desc = CreateTemplateTupleDesc(n + EXTRAS);
	HxColumn  **columns = palloc0((n + EXTRAS) * sizeof(HxColumn *));

	for (int i = 0; i < n; i++)
	{
		TupleDescInitEntry(desc, i + 1, mirror->columns[i].name, mirror->columns[i].type, mirror->columns[i].typmod, 0);
		columns[i] = mirror->columns[i].column;
	}
	TupleDescInitEntry(desc, n + EXTRA_DELETED + 1, "deleted", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, n + EXTRA_MODIFIED + 1, "modified", TIMESTAMPTZOID, -1, 0);
	if (mirror->deleted_path != NULL)
		columns[n + EXTRA_DELETED] = extra_column(mirror->deleted_path, true);
	if (mirror->modified >= 0)
		columns[n + EXTRA_MODIFIED] = extra_column(columns[mirror->modified]->path, false);

	maker->shape = hx_record_shape(mirror->table->resource, columns, desc, NULL,
								   mirror->subscription->on_drift != HX_DRIFT_ERROR);
	hx_record_watch(maker->shape, watch, maker);
	for (int i = 0; i < n; i++)
	{
		const HxColumn *column = columns[i];

		if (column->constant != NULL)
			hx_record_set_filter(maker->shape, i + 1, column->constant);
		else if (column->filter.equal != NULL && strcmp(column->path, HX_PATH_FILTER) == 0)
			hx_record_set_filter(maker->shape, i + 1, asked_for(mirror->table, column->filter.equal));
	}
}

/*
 * Does a record that was asked for by its id lack something that the mirror
 * shows, or show it differently, as the whole of it does?
 */
static bool
is_partial(const HxMirror *mirror)
{
	const HxResource *resource = mirror->table->resource;

	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const char *path = mirror->columns[i].column->path;
		ListCell   *cell;

		if (strcmp(path, HX_PATH_RECORD) == 0)
			return true;
		foreach(cell, resource->one_lacks)
		{
			const HxColumn *column = hx_resource_column(resource, lfirst(cell));

			if (column != NULL && strcmp(column->path, path) == 0)
				return true;
		}
	}
	return false;
}

/* So that a value is the same whoever synchronises. */
static void
pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, MDY"},
		{"IntervalStyle", "postgres"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"}
	};

	for (int i = 0; i < lengthof(pinned); i++)
		(void) set_config_option(pinned[i][0], pinned[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
begin_making(Maker *maker, const HxMirror *mirror, HxRestricted *saved)
{
	Oid			output;
	bool		varlena;

	hx_restricted_enter(saved, mirror->writer, HX_SYNC_LOCK_MS);
	pin_settings();
	memset(maker, 0, sizeof(Maker));
	maker->context = CurrentMemoryContext;
	maker->mirror = mirror;
	maker->counts = palloc0(mirror->ncolumns * sizeof(int64));
	maker->problems = palloc0(mirror->ncolumns * sizeof(char *));
	maker->lengths = palloc(mirror->ncolumns * sizeof(int16));
	maker->by_value = palloc(mirror->ncolumns * sizeof(bool));
	for (int i = 0; i < mirror->ncolumns; i++)
		get_typlenbyval(mirror->columns[i].target_type, &maker->lengths[i], &maker->by_value[i]);
	getTypeOutputInfo(mirror->columns[mirror->record_key].target_type, &output, &varlena);
	fmgr_info(output, &maker->key_output);
	prepare_casts(maker);
	maker->scratch = AllocSetContextCreate(CurrentMemoryContext, "hubex row", 0, SCRATCH_BYTES, ALLOCSET_DEFAULT_MAXSIZE);
}

static void
end_making(Maker *maker, const HxRestricted *saved, Jsonb **drift)
{
	MemoryContextDelete(maker->scratch);
	FreeExprContext(maker->econtext, true);
	for (int i = 0; i < maker->mirror->ncolumns; i++)
		if (maker->counts[i] > 0)
			*drift = hx_batch_note(*drift, maker->mirror->columns[i].name, maker->problems[i], maker->counts[i]);
	hx_restricted_leave(saved);
}

/* The key of the row at hand, whose column has the value of the target. */
static void
set_key(Maker *maker)
{
	const HxMirror *mirror = maker->mirror;
	HxBatchRow *row = maker->row;

	for (int i = 0; i < mirror->ncolumns; i++)
		if (row->nulls[i] && mirror->columns[i].indexed)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a record has no value for column \"%s\", which is part of the mirror's key",
							mirror->columns[i].name),
					 errdetail("It is of resource \"%s\".", mirror->table->resource->name)));
	row->key = OutputFunctionCall(&maker->key_output, row->values[mirror->record_key]);
}

/*
 * Moves the row at hand from the scratch memory to that of the rows, of which
 * there is so much less.
 */
static void
keep_row(Maker *maker)
{
	HxBatchRow *row = maker->row;

	row->key = MemoryContextStrdup(maker->context, row->key);
	row->kept = bms_copy(row->kept);
	for (int i = 0; i < maker->mirror->ncolumns; i++)
		if (!row->nulls[i] && !maker->by_value[i])
			row->values[i] = datumCopy(row->values[i], false, maker->lengths[i]);
	MemoryContextReset(maker->scratch);
}

static void
make_row(Maker *maker, const KeptRecord *kept)
{
	const HxMirror *mirror = maker->mirror;
	HxBatchRow *row = maker->row;
	Datum	   *extra = row->values + mirror->ncolumns;
	bool	   *no_extra = row->nulls + mirror->ncolumns;

	row->key = kept->record.key ? kept->record.key : "without an id";
	(void) hx_record_values(maker->shape, &kept->record, row->values, row->nulls);
	row->deleted = !no_extra[EXTRA_DELETED] && DatumGetBool(extra[EXTRA_DELETED]);
	row->has_modified = !no_extra[EXTRA_MODIFIED];
	row->modified = row->has_modified ? DatumGetTimestampTz(extra[EXTRA_MODIFIED]) : 0;

	/* A part of a record only proves that it is there, or is deleted. */
	row->left_alone = kept->single && maker->lacks &&
		!(row->deleted && mirror->subscription->deletes == HX_DELETES_DELETE);

	/* The mark of a deleted record is no time, or one that does not fit. */
	if (row->deleted && mirror->mark >= 0 && row->nulls[mirror->mark])
	{
		row->values[mirror->mark] = TimestampTzGetDatum(row->has_modified ? row->modified :
														GetCurrentTransactionStartTimestamp());
		row->nulls[mirror->mark] = false;
		row->kept = bms_del_member(row->kept, mirror->mark);
	}
	cast_row(maker);
	set_key(maker);
}

/* ---- all of them ---- */

static int
compare_keys(const char *a, const char *b)
{
	size_t		na = strlen(a);
	size_t		nb = strlen(b);

	/* numbers by their value */
	return na != nb ? (na < nb ? -1 : 1) : strcmp(a, b);
}

static int
compare_rows(const void *a, const void *b)
{
	const HxBatchRow *x = a;
	const HxBatchRow *y = b;
	int			order = compare_keys(x->key, y->key);

	/* those of one key as they came; their values lie in that order */
	return order != 0 ? order : (x->values < y->values ? -1 : 1);
}

/* One row of each key: the one that was changed last, as far as that is known, else the last. */
static int
keep_one_of_each(HxBatchRow *rows, int n)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		HxBatchRow *last = kept > 0 ? &rows[kept - 1] : NULL;

		if (last == NULL || strcmp(last->key, rows[i].key) != 0)
			rows[kept++] = rows[i];
		else if (!last->has_modified || !rows[i].has_modified || last->modified <= rows[i].modified)
			*last = rows[i];
	}
	return kept;
}

static HxBatchRow *
make_rows(int n, int width)
{
	HxBatchRow *rows = palloc0(Max(n, 1) * sizeof(HxBatchRow));
	Datum	   *values = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * width * sizeof(Datum));
	bool	   *nulls = MemoryContextAllocHuge(CurrentMemoryContext, Max(n, 1) * width * sizeof(bool));

	memset(nulls, true, Max(n, 1) * width * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		rows[i].values = values + (size_t) i * width;
		rows[i].nulls = nulls + (size_t) i * width;
	}
	return rows;
}

HxBatchRow *
hx_batch_rows(const HxBatch *batch, const HxMirror *mirror, int *nrows, HxApplied *applied)
{
	HxBatchRow *rows = make_rows(batch->n, mirror->ncolumns + EXTRAS);
	HxRestricted saved;
	Maker		maker;

	begin_making(&maker, mirror, &saved);
	make_shape(&maker);
	maker.lacks = is_partial(mirror);
	for (int i = 0; i < batch->n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(maker.scratch);

		CHECK_FOR_INTERRUPTS();
		maker.row = &rows[i];
		make_row(&maker, &batch->records[i]);
		MemoryContextSwitchTo(old);
		keep_row(&maker);
	}
	end_making(&maker, &saved, &applied->drift);
	qsort(rows, batch->n, sizeof(HxBatchRow), compare_rows);
	*nrows = keep_one_of_each(rows, batch->n);
	return rows;
}

static void
make_key_row(Maker *maker, char *key)
{
	const HxMirror *mirror = maker->mirror;
	const HxMirrorColumn *column = &mirror->columns[mirror->record_key];
	HxBatchRow *row = maker->row;
	Oid			input;
	Oid			ioparam;

	/* what else such a row has is nothing, whatever a domain says of that */
	for (int i = 0; i < maker->ncasts; i++)
		maker->casts[i].domain = InvalidOid;
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		HxValueType type;

		if (!mirror->columns[i].key || mirror->columns[i].column->constant == NULL)
			continue;
		hx_value_type_init(&type, mirror->columns[i].type, mirror->columns[i].typmod, mirror->table->resource->utc);
		row->values[i] = hx_value_read_text(&type, mirror->columns[i].column->constant,
											strlen(mirror->columns[i].column->constant));
		row->nulls[i] = false;
	}
	cast_row(maker);
	getTypeInputInfo(column->target_type, &input, &ioparam);
	row->values[mirror->record_key] = OidInputFunctionCall(input, key, ioparam, column->target_typmod);
	row->nulls[mirror->record_key] = false;
	row->key = key;
}

HxBatchRow *
hx_batch_key_rows(const HxMirror *mirror, int nkeys, char **keys)
{
	HxBatchRow *rows = make_rows(nkeys, mirror->ncolumns);
	HxRestricted saved;
	Maker		maker;
	Jsonb	   *drift = NULL;

	begin_making(&maker, mirror, &saved);
	for (int i = 0; i < nkeys; i++)
	{
		CHECK_FOR_INTERRUPTS();
		maker.row = &rows[i];
		rows[i].key = keys[i];
		make_key_row(&maker, keys[i]);
	}
	end_making(&maker, &saved, &drift);
	qsort(rows, nkeys, sizeof(HxBatchRow), compare_rows);
	return rows;
}
