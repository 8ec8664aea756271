/*-------------------------------------------------------------------------
 *
 * apply_bulk.c
 *	  Many new rows put into a mirror at once, the way COPY does.
 *
 * A backfill inserts hundreds of thousands of rows that are made already.  An
 * INSERT would copy each of them three times on its way, look for its key in
 * the index before putting it there, and write a record of the WAL for each;
 * COPY fills a page and writes one.  COPY itself takes texts, and would read
 * again what has been read.  So this does what it does behind that: rows go to
 * the table some hundred at a time, and then to its indexes.
 *
 * Only what this can do rightly is left to it: a plain table without triggers
 * for INSERT (foreign keys are such) and generated columns.  All else is the
 * statement's business (apply_store.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sync/apply.h"

/* As COPY: so many rows at a time, or so many bytes. */
#define MOST_ROWS		1000
#define MOST_BYTES		65535

/* Where an attribute of a row comes from. */
typedef enum SourceKind
{
	SOURCE_NULL,
	SOURCE_COLUMN,				/* of the mirror */
	SOURCE_NOW,
	SOURCE_MARK,				/* now, if the record is deleted */
	SOURCE_DEFAULT
} SourceKind;

typedef struct Source
{
	SourceKind	kind;
	int			column;
	ExprState  *value;			/* of a DEFAULT */
} Source;

typedef struct Bulk
{
	const HxMirror *mirror;
	Relation	target;
	EState	   *estate;
	ResultRelInfo *info;
	BulkInsertState state;
	CommandId	command;
	Source	   *sources;		/* by attribute number - 1 */
	int			n;
	Size		bytes;
	TupleTableSlot *slots[MOST_ROWS];
} Bulk;

static int
column_of(const HxMirror *mirror, AttrNumber attno)
{
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno == attno)
			return i;
	return -1;
}

/* ---- can it be done? ---- */

static bool
has_insert_triggers(const TriggerDesc *triggers)
{
	return triggers != NULL &&
		(triggers->trig_insert_before_row || triggers->trig_insert_after_row || triggers->trig_insert_instead_row ||
		 triggers->trig_insert_before_statement || triggers->trig_insert_after_statement ||
		 triggers->trig_insert_new_table);
}

/* Is a column plainly filled with a time, a default or nothing? */
static bool
is_plain_column(const HxMirror *mirror, Form_pg_attribute attribute)
{
	const char *name = NameStr(attribute->attname);
	bool		is_time = (mirror->synced_at != NULL && strcmp(name, mirror->synced_at) == 0) ||
		(mirror->marked != NULL && strcmp(name, mirror->marked) == 0);

	if (attribute->attisdropped || column_of(mirror, attribute->attnum) >= 0)
		return true;
	if (attribute->attgenerated)
		return false;
	return is_time ? attribute->atttypid == TIMESTAMPTZOID && attribute->atttypmod < 0
		: get_typtype(attribute->atttypid) != TYPTYPE_DOMAIN;
}

/* Is there nothing about the target, or the current role's rights on it, that asks for an INSERT? */
bool
hx_apply_can_bulk(const HxMirror *mirror)
{
	Relation	target = table_open(mirror->target, NoLock);
	TupleDesc	desc = RelationGetDescr(target);
	bool		can = target->rd_rel->relkind == RELKIND_RELATION && !target->rd_rel->relispartition &&
		!has_insert_triggers(target->trigdesc) &&
		pg_class_aclcheck(mirror->target, GetUserId(), ACL_INSERT) == ACLCHECK_OK;

	for (int i = 0; can && i < desc->natts; i++)
		can = is_plain_column(mirror, TupleDescAttr(desc, i));
	table_close(target, NoLock);
	return can;
}

/* ---- the rows ---- */

static void
find_source(Bulk *bulk, Form_pg_attribute attribute, Source *source)
{
	const HxMirror *mirror = bulk->mirror;
	const char *name = NameStr(attribute->attname);
	Node	   *value;

	source->column = column_of(mirror, attribute->attnum);
	if (attribute->attisdropped)
		source->kind = SOURCE_NULL;
	else if (source->column >= 0)
		source->kind = SOURCE_COLUMN;
	else if (mirror->synced_at != NULL && strcmp(name, mirror->synced_at) == 0)
		source->kind = SOURCE_NOW;
	else if (mirror->marked != NULL && strcmp(name, mirror->marked) == 0)
		source->kind = SOURCE_MARK;
	else if ((value = build_column_default(bulk->target, attribute->attnum)) != NULL)
	{
		source->kind = SOURCE_DEFAULT;
		source->value = ExecInitExpr(expression_planner((Expr *) value), NULL);
	}
}

static void
fill(Bulk *bulk, TupleTableSlot *slot, const HxBatchRow *row)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	int			natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	for (int i = 0; i < natts; i++)
	{
		const Source *source = &bulk->sources[i];

		slot->tts_isnull[i] = source->kind == SOURCE_NULL || (source->kind == SOURCE_MARK && !row->deleted);
		switch (source->kind)
		{
			case SOURCE_NULL:
				slot->tts_values[i] = (Datum) 0;
				break;
			case SOURCE_COLUMN:
				slot->tts_values[i] = row->values[source->column];
				slot->tts_isnull[i] = row->nulls[source->column];
				break;
			case SOURCE_NOW:
			case SOURCE_MARK:
				slot->tts_values[i] = TimestampTzGetDatum(now);
				break;
			case SOURCE_DEFAULT:
				slot->tts_values[i] = ExecEvalExpr(source->value, GetPerTupleExprContext(bulk->estate),
												   &slot->tts_isnull[i]);
				break;
		}
	}
	ExecStoreVirtualTuple(slot);

	/* as the tables of the executor do, for constraints and indexes that look at it */
	slot->tts_tableOid = bulk->mirror->target;
}

static void
write_rows(Bulk *bulk)
{
	MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(bulk->estate));

	table_multi_insert(bulk->target, bulk->slots, bulk->n, bulk->command, 0, bulk->state);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < bulk->n; i++)
	{
		if (bulk->info->ri_NumIndices > 0)
			list_free(hx_insert_index_tuples(bulk->info, bulk->slots[i], bulk->estate));
		ExecClearTuple(bulk->slots[i]);
		ResetPerTupleExprContext(bulk->estate);
	}
	bulk->n = 0;
	bulk->bytes = 0;
}

static void
add_row(Bulk *bulk, const HxBatchRow *row)
{
	TupleTableSlot *slot = bulk->slots[bulk->n];
	MemoryContext old;

	if (slot == NULL)
		slot = bulk->slots[bulk->n] = table_slot_create(bulk->target, NULL);

	/* what a default makes has to last until the row is in the slot as its own */
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(bulk->estate));
	fill(bulk, slot, row);
	if (bulk->target->rd_att->constr != NULL)
		ExecConstraints(bulk->info, slot, bulk->estate);
	ExecMaterializeSlot(slot);
	MemoryContextSwitchTo(old);
	ResetPerTupleExprContext(bulk->estate);

	bulk->bytes += ExecFetchSlotHeapTuple(slot, false, NULL)->t_len;
	if (++bulk->n == MOST_ROWS || bulk->bytes >= MOST_BYTES)
		write_rows(bulk);
}

/* Inserts rows, where that can be done.  Errors: as an INSERT; 23505 if one is there already. */
void
hx_apply_bulk(const HxMirror *mirror, HxBatchRow **rows, int nrows)
{
	Bulk	   *bulk = palloc0(sizeof(Bulk));
	TupleDesc	desc;
	MemoryContext old;

	PreventCommandIfReadOnly("INSERT");
	bulk->mirror = mirror;
	bulk->target = table_open(mirror->target, NoLock);
	bulk->estate = CreateExecutorState();
	bulk->command = GetCurrentCommandId(true);
	PushActiveSnapshot(GetTransactionSnapshot());

	old = MemoryContextSwitchTo(bulk->estate->es_query_cxt);
	desc = RelationGetDescr(bulk->target);
	bulk->info = makeNode(ResultRelInfo);
	InitResultRelInfo(bulk->info, bulk->target, 0, NULL, 0);
	ExecOpenIndices(bulk->info, false);
	bulk->sources = palloc0(Max(desc->natts, 1) * sizeof(Source));
	for (int i = 0; i < desc->natts; i++)
		find_source(bulk, TupleDescAttr(desc, i), &bulk->sources[i]);
	bulk->state = GetBulkInsertState();
	for (int i = 0; i < nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_row(bulk, rows[i]);
	}
	if (bulk->n > 0)
		write_rows(bulk);
	MemoryContextSwitchTo(old);

	FreeBulkInsertState(bulk->state);
	table_finish_bulk_insert(bulk->target, 0);
	for (int i = 0; i < MOST_ROWS && bulk->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(bulk->slots[i]);
	ExecCloseIndices(bulk->info);
	PopActiveSnapshot();
	FreeExecutorState(bulk->estate);
	table_close(bulk->target, NoLock);
	CommandCounterIncrement();
	pfree(bulk);
}
