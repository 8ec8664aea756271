/*-------------------------------------------------------------------------
 *
 * echo.c
 *	  Writing what our own change made of a record, which is no change.
 *
 * When a change made here comes back, the record shows what the mirror has
 * already; only the remote side's time of it is another, and so is the record
 * as a whole, where the mirror has a column for that.  This is written, or the
 * mirror would not show what is there; but nothing has happened that a trigger
 * would have to know of, and an UPDATE would run them all.  So the row is
 * written the way the apply worker of logical replication writes one, with
 * indexes and constraints, and without triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "sync/two_way.h"

static void
set_column(Relation relation, TupleTableSlot *row, const char *name, Datum value, bool isnull)
{
	AttrNumber	number = get_attnum(RelationGetRelid(relation), name);

	if (number <= 0)
		elog(ERROR, "column \"%s\" of \"%s\" is not there", name, RelationGetRelationName(relation));
	row->tts_values[number - 1] = value;
	row->tts_isnull[number - 1] = isnull;
}

/* Makes the row as it is to be, of the one that is there. */
static void
fill_row(const HxMirror *mirror, Relation relation, TupleTableSlot *was, TupleTableSlot *row,
		 const HxBatchRow *values, const Bitmapset *columns)
{
	int			column = -1;

	slot_getallattrs(was);
	ExecClearTuple(row);
	memcpy(row->tts_values, was->tts_values, sizeof(Datum) * was->tts_tupleDescriptor->natts);
	memcpy(row->tts_isnull, was->tts_isnull, sizeof(bool) * was->tts_tupleDescriptor->natts);
	while ((column = bms_next_member(columns, column)) >= 0)
		set_column(relation, row, mirror->columns[column].name, values->values[column], values->nulls[column]);
	if (mirror->synced_at != NULL)
		set_column(relation, row, mirror->synced_at, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()), false);
	ExecStoreVirtualTuple(row);
}

/*
 * Writes some columns of a row of a batch, by index, to the row of the target,
 * which the transaction has locked.  False where it takes a statement, because
 * the row would go to another partition, or has columns that are computed of
 * others; then nothing is done.  The caller has become mirror->writer.
 */
bool
hx_echo_write(const HxMirror *mirror, const HxTargetRow *target, const HxBatchRow *row, const Bitmapset *columns)
{
	Relation	relation = table_open(target->relation, RowExclusiveLock);
	ItemPointerData tid = target->tid;
	EPQState	epq = {0};
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *was;
	TupleTableSlot *new;
	bool		fits;

	if (relation->rd_rel->relkind != RELKIND_RELATION ||
		(relation->rd_att->constr != NULL && relation->rd_att->constr->has_generated_stored))
	{
		table_close(relation, NoLock);
		return false;
	}
	estate = CreateExecutorState();
	PushActiveSnapshot(GetTransactionSnapshot());
	estate->es_snapshot = GetActiveSnapshot();
	estate->es_output_cid = GetCurrentCommandId(true);
	result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, relation, 0, NULL, 0);
	result->ri_TrigDesc = NULL;
	was = table_slot_create(relation, &estate->es_tupleTable);
	new = table_slot_create(relation, &estate->es_tupleTable);
	if (!table_tuple_fetch_row_version(relation, &tid, SnapshotAny, was))
		elog(ERROR, "a locked row of \"%s\" is gone", RelationGetRelationName(relation));
	fill_row(mirror, relation, was, new, row, columns);
	fits = !relation->rd_rel->relispartition || ExecPartitionCheck(result, new, estate, false);
	if (fits)
	{
		ExecOpenIndices(result, false);
		ExecSimpleRelationUpdate(result, estate, &epq, was, new);
		ExecCloseIndices(result);
	}
	ExecResetTupleTable(estate->es_tupleTable, false);
	PopActiveSnapshot();
	FreeExecutorState(estate);
	table_close(relation, NoLock);
	CommandCounterIncrement();
	return fits;
}
