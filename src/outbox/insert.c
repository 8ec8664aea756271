/*-------------------------------------------------------------------------
 *
 * insert.c
 *	  Putting a row into the outbox.
 *
 * A trigger may do this for each row of a bulk load, so it goes straight to
 * the table and its indexes: what an executor sets up and tears down for each
 * statement (opening every index, reading its predicate, compiling it) is
 * kept for the session and made anew when the table's definition changes.
 *
 * The rows of a statement-level trigger are collected and written some
 * hundred at a time: the table fills a page with one record of the WAL, and each
 * index is opened once.  Their ids are taken as they are written, so that a
 * request is no longer than it has to be one that has an id and cannot be
 * seen (order.c).  Nothing of a batch outlives an error: its memory is the
 * caller's, what it opens is closed by the end of the (sub)transaction.
 *
 * What needs more than that goes the long way, through an INSERT statement
 * (outbox_store.c): a request with an idempotency key, which may be there
 * already, and a table to which somebody has added triggers or constraints.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/binding.h"
#include "base/hold.h"
#include "base/owner.h"
#include "base/shared.h"
#include "compat.h"
#include "outbox/outbox.h"

/* A batch is written when it has so many rows, or about so many bytes. */
#define BATCH_ROWS		256
#define BATCH_BYTES		(1024 * 1024)

/* The columns that a new row gives a value; the others are null. */
enum
{
	COLUMN_ID,
	COLUMN_SERVER,
	COLUMN_OWNER,
	COLUMN_RESOURCE,
	COLUMN_OPERATION,
	COLUMN_METHOD,
	COLUMN_PATH,
	COLUMN_QUERY,
	COLUMN_HEADERS,
	COLUMN_BODY,
	COLUMN_CONTENT,
	COLUMN_CONTENT_TYPE,
	COLUMN_STATE,
	COLUMN_ATTEMPTS,
	COLUMN_NEXT_ATTEMPT,
	COLUMN_TRIED_SINCE,
	COLUMN_EXPIRES,
	COLUMN_REMOTE_ID,
	COLUMN_ORDERING_KEY,
	COLUMN_NATURAL_KEY,
	COLUMN_STAMP,
	COLUMN_UNCERTAIN,
	COLUMN_BYTES,
	COLUMN_WRITE_BACK,
	COLUMN_UNWRITTEN,
	COLUMN_BINDING,
	COLUMN_CREATED,
	COLUMNS
};

static const char *const column_names[COLUMNS] = {
	[COLUMN_ID] = "id",
	[COLUMN_SERVER] = "server",
	[COLUMN_OWNER] = "owner",
	[COLUMN_RESOURCE] = "resource",
	[COLUMN_OPERATION] = "operation",
	[COLUMN_METHOD] = "method",
	[COLUMN_PATH] = "path",
	[COLUMN_QUERY] = "query",
	[COLUMN_HEADERS] = "headers",
	[COLUMN_BODY] = "body",
	[COLUMN_CONTENT] = "content",
	[COLUMN_CONTENT_TYPE] = "content_type",
	[COLUMN_STATE] = "state",
	[COLUMN_ATTEMPTS] = "attempts",
	[COLUMN_NEXT_ATTEMPT] = "next_attempt_at",
	[COLUMN_TRIED_SINCE] = "tried_since",
	[COLUMN_EXPIRES] = "expires_at",
	[COLUMN_REMOTE_ID] = "remote_id",
	[COLUMN_ORDERING_KEY] = "ordering_key",
	[COLUMN_NATURAL_KEY] = "natural_key",
	[COLUMN_STAMP] = "stamp",
	[COLUMN_UNCERTAIN] = "uncertain",
	[COLUMN_BYTES] = "bytes",
	[COLUMN_WRITE_BACK] = "write_back",
	[COLUMN_UNWRITTEN] = "unwritten",
	[COLUMN_BINDING] = "binding",
	[COLUMN_CREATED] = "created_at",
};

/* An index that a new row may have to be put into. */
typedef struct OutboxIndex
{
	Oid			oid;
	bool		unique;
	HxHold		hold;
	IndexInfo  *info;
	ExprState  *predicate;		/* NULL: every new row belongs in it */
} OutboxIndex;

/*
 * What is known of the table; the session has one outbox, so one of these.
 * forget_table() empties it.
 */
static struct
{
	MemoryContext context;		/* of all below; NULL: nothing is known */
	bool		stale;
	bool		callback_registered;
	Oid			relation;
	HxHold		hold;
	Oid			sequence;
	bool		plain;			/* no triggers or constraints of others */
	AttrNumber	columns[COLUMNS];
	int			nindexes;
	OutboxIndex *indexes;
	EState	   *estate;			/* for predicates and expressions */
	TupleTableSlot *slot;
	Datum		waiting;		/* the text, made once */
}			table;

/* Rows that are put in together. */
struct HxBatch
{
	MemoryContext context;		/* of this, and of the rows */
	TupleDesc	desc;			/* of the rows: a copy, so that nothing of the catalog is held */
	TupleTableSlot *slots[BATCH_ROWS];
	int			made;			/* of the slots; they are used again */
	int			rows;
	int64		bytes;
	TimestampTz due_from;		/* the earliest of them */
};

static void
note_change(Datum arg, Oid relation)
{
	if (relation == InvalidOid || relation == table.relation)
		table.stale = true;
}

static void
forget_table(void)
{
	if (table.estate != NULL)
		FreeExecutorState(table.estate);
	table.estate = NULL;
	if (table.context != NULL)
		MemoryContextDelete(table.context);
	table.context = NULL;
}

/* ---- what is known of the table ---- */

static Var *
make_var(Relation outbox, const char *name)
{
	AttrNumber	number = get_attnum(RelationGetRelid(outbox), name);
	Form_pg_attribute attribute;

	if (number == InvalidAttrNumber)
		elog(ERROR, "hubex.outbox has no column \"%s\"", name);
	attribute = TupleDescAttr(RelationGetDescr(outbox), number - 1);
	return makeVar(1, number, attribute->atttypid, attribute->atttypmod, attribute->attcollation, 0);
}

/*
 * What is true of every new row, as the planner's prover takes it: most of the
 * indexes' predicates need not be asked of each row then.
 */
static List *
known_facts(Relation outbox)
{
	static const char *const empty[] = {"idempotency_key", "blocked_by", "claimed_by"};
	Var		   *state = make_var(outbox, "state");
	List	   *facts = NIL;

	facts = lappend(facts, make_opclause(TextEqualOperator, BOOLOID, false, (Expr *) state,
										 (Expr *) makeConst(TEXTOID, -1, state->varcollid, -1,
															CStringGetTextDatum("waiting"), false, false),
										 InvalidOid, state->varcollid));
	facts = lappend(facts, make_notclause((Expr *) make_var(outbox, "unwritten")));
	for (int i = 0; i < lengthof(empty); i++)
	{
		NullTest   *test = makeNode(NullTest);

		test->arg = (Expr *) make_var(outbox, empty[i]);
		test->nulltesttype = IS_NULL;
		test->location = -1;
		facts = lappend(facts, test);
	}
	set_opfuncid(linitial(facts));
	return facts;
}

/* Learns of an index, unless no new row ever belongs in it. */
static void
know_index(Relation index, List *facts)
{
	OutboxIndex *known = &table.indexes[table.nindexes];
	IndexInfo  *info = BuildIndexInfo(index);

	if (index->rd_index->indisunique && !index->rd_index->indimmediate)
		table.plain = false;
	if (info->ii_Predicate != NIL && predicate_refuted_by(info->ii_Predicate, facts, true))
		return;
	known->oid = RelationGetRelid(index);
	known->unique = index->rd_index->indisunique;
	known->info = info;
	if (info->ii_Predicate != NIL && !predicate_implied_by(info->ii_Predicate, facts, false))
		known->predicate = ExecPrepareQual(info->ii_Predicate, table.estate);
	table.nindexes++;
}

/* Learns the table's columns and indexes, unless they are known. */
static void
know_table(Relation outbox)
{
	MemoryContext old;
	MemoryContext context;
	List	   *oids;
	List	   *facts;
	ListCell   *cell;

	if (table.context != NULL && !table.stale && table.relation == RelationGetRelid(outbox))
		return;
	if (!table.callback_registered)
		CacheRegisterRelcacheCallback(note_change, (Datum) 0);
	table.callback_registered = true;
	forget_table();

	context = AllocSetContextCreate(CacheMemoryContext, "hubex outbox table", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	table.stale = false;
	table.relation = RelationGetRelid(outbox);
	table.sequence = get_relname_relid("outbox_id_seq", RelationGetNamespace(outbox));
	table.plain = outbox->trigdesc == NULL &&
		(outbox->rd_att->constr == NULL || outbox->rd_att->constr->num_check <= 1);
	for (int i = 0; i < COLUMNS; i++)
	{
		table.columns[i] = get_attnum(table.relation, column_names[i]);
		if (table.columns[i] == InvalidAttrNumber)
			elog(ERROR, "hubex.outbox has no column \"%s\"", column_names[i]);
	}
	table.estate = CreateExecutorState();
	table.slot = MakeSingleTupleTableSlot(CreateTupleDescCopyConstr(RelationGetDescr(outbox)), &TTSOpsVirtual);
	table.waiting = CStringGetTextDatum("waiting");

	facts = known_facts(outbox);
	oids = RelationGetIndexList(outbox);
	table.indexes = palloc0(sizeof(OutboxIndex) * list_length(oids));
	table.nindexes = 0;
	foreach(cell, oids)
	{
		Relation	index = index_open(lfirst_oid(cell), RowExclusiveLock);

		if (index->rd_index->indisready)
			know_index(index, facts);
		index_close(index, NoLock);
	}
	MemoryContextSwitchTo(old);
	table.context = context;
}

/*
 * Opens the table, known.  Where it is known already it is not looked up by
 * its name: PostgreSQL tells us when it is dropped.
 */
static Relation
open_outbox(void)
{
	Oid			relation = table.relation;
	Oid			owner;
	Relation	outbox;

	if ((table.context == NULL || table.stale) && !hx_owner_table("outbox", &relation, &owner))
		hx_owner_report_missing();
	if (relation != table.relation)
		memset(&table.hold, 0, sizeof(HxHold));
	outbox = table_open(relation, hx_hold(&table.hold, RowExclusiveLock));
	PreventCommandIfReadOnly("INSERT");
	know_table(outbox);
	return outbox;
}

/* ---- writing rows ---- */

static void
fill(TupleTableSlot *row, int column, Datum value)
{
	row->tts_values[table.columns[column] - 1] = value;
	row->tts_isnull[table.columns[column] - 1] = false;
}

static void
fill_text(TupleTableSlot *row, int column, const char *text)
{
	if (text != NULL)
		fill(row, column, CStringGetTextDatum(text));
}

static void
fill_pointer(TupleTableSlot *row, int column, const void *pointer)
{
	if (pointer != NULL)
		fill(row, column, PointerGetDatum(pointer));
}

/* Makes a request a row, all of it but the id; the row points into the request. */
static void
fill_row(TupleTableSlot *row, const HxNewRequest *request, int64 bytes)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	ExecClearTuple(row);
	memset(row->tts_isnull, true, row->tts_tupleDescriptor->natts);
	fill_text(row, COLUMN_SERVER, request->server);
	fill_text(row, COLUMN_OWNER, GetUserNameFromId(GetUserId(), false));
	fill_text(row, COLUMN_RESOURCE, request->resource);
	fill_text(row, COLUMN_OPERATION, request->operation);
	fill_text(row, COLUMN_METHOD, request->method);
	fill_text(row, COLUMN_PATH, request->path);
	fill_pointer(row, COLUMN_QUERY, request->query);
	fill_pointer(row, COLUMN_HEADERS, request->headers);
	fill_pointer(row, COLUMN_BODY, request->body);
	fill_pointer(row, COLUMN_CONTENT, request->content);
	fill_text(row, COLUMN_CONTENT_TYPE, request->content_type);
	fill(row, COLUMN_STATE, table.waiting);
	fill(row, COLUMN_ATTEMPTS, Int32GetDatum(0));
	fill(row, COLUMN_NEXT_ATTEMPT, TimestampTzGetDatum(request->has_deliver_after ? request->deliver_after : now));
	if (request->has_deliver_after)
		fill(row, COLUMN_TRIED_SINCE, TimestampTzGetDatum(request->deliver_after));
	if (request->has_expires_at)
		fill(row, COLUMN_EXPIRES, TimestampTzGetDatum(request->expires_at));
	fill_text(row, COLUMN_REMOTE_ID, request->remote_id);
	fill_text(row, COLUMN_ORDERING_KEY, request->ordering_key);
	fill_text(row, COLUMN_NATURAL_KEY, request->natural_key);
	fill(row, COLUMN_STAMP, UUIDPGetDatum(request->stamp));
	fill(row, COLUMN_UNCERTAIN, BoolGetDatum(false));
	fill(row, COLUMN_BYTES, Int64GetDatum(bytes));
	fill_pointer(row, COLUMN_WRITE_BACK, request->write_back);
	fill(row, COLUMN_UNWRITTEN, BoolGetDatum(false));
	fill(row, COLUMN_BINDING, UUIDPGetDatum(&request->binding));
	fill(row, COLUMN_CREATED, TimestampTzGetDatum(now));
	fill(row, COLUMN_ID, Int64GetDatum(0));
	ExecStoreVirtualTuple(row);
}

/* Puts rows into an index, as far as they belong in it. */
static void
insert_into_index(Relation outbox, OutboxIndex *known, TupleTableSlot **rows, int n)
{
	ExprContext *econtext = GetPerTupleExprContext(table.estate);
	Relation	index = NULL;

	for (int i = 0; i < n; i++)
	{
		Datum		values[INDEX_MAX_KEYS];
		bool		isnull[INDEX_MAX_KEYS];

		econtext->ecxt_scantuple = rows[i];
		if (known->predicate != NULL && !ExecQual(known->predicate, econtext))
			continue;
		if (index == NULL)
			index = index_open(known->oid, hx_hold(&known->hold, RowExclusiveLock));
		FormIndexDatum(known->info, rows[i], table.estate, values, isnull);
		(void) hx_index_insert(index, values, isnull, &rows[i]->tts_tid, outbox,
							   known->unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, known->info);
		if (n > 1)
			ResetPerTupleExprContext(table.estate);
	}
	if (index == NULL)
		return;
	hx_index_insert_cleanup(index, known->info);
	index_close(index, NoLock);
}

/* Writes rows, the short way; gives them their ids. */
static void
write_rows(Relation outbox, TupleTableSlot **rows, int n)
{
	CommandId	command = GetCurrentCommandId(true);

	for (int i = 0; i < n; i++)
		fill(rows[i], COLUMN_ID, Int64GetDatum(nextval_internal(table.sequence, false)));

	/*
	 * Without a BulkInsertState: that would have this session write out what
	 * the worker is about to read.
	 */
	if (n == 1)
		table_tuple_insert(outbox, rows[0], command, 0, NULL);
	else
		table_multi_insert(outbox, rows, n, command, 0, NULL);
	for (int i = 0; i < table.nindexes; i++)
		insert_into_index(outbox, &table.indexes[i], rows, n);
	ResetPerTupleExprContext(table.estate);
}

/* ---- batches ---- */

/* Begins a batch, in the current context. */
HxBatch *
hx_outbox_batch_begin(void)
{
	HxBatch    *batch = palloc(sizeof(HxBatch));

	batch->context = CurrentMemoryContext;
	batch->desc = NULL;
	batch->made = 0;
	batch->rows = 0;
	batch->bytes = 0;
	return batch;
}

/* Writes what a batch holds; it can take more then.  Leaves some memory to the current context. */
void
hx_outbox_batch_write(HxBatch *batch)
{
	Relation	outbox;

	if (batch->rows == 0)
		return;
	outbox = open_outbox();
	write_rows(outbox, batch->slots, batch->rows);
	table_close(outbox, NoLock);
	for (int i = 0; i < batch->rows; i++)
		ExecClearTuple(batch->slots[i]);
	batch->rows = 0;
	batch->bytes = 0;
	hx_shared_wake_at_commit(HX_WORKER_DELIVERY, batch->due_from);
}

/* Writes what a batch still holds, and frees it. */
void
hx_outbox_batch_end(HxBatch *batch)
{
	hx_outbox_batch_write(batch);
	while (batch->made > 0)
		ExecDropSingleTupleTableSlot(batch->slots[--batch->made]);
	if (batch->desc != NULL)
		FreeTupleDesc(batch->desc);
	pfree(batch);
}

/* A slot for one more row of a batch. */
static TupleTableSlot *
batch_slot(HxBatch *batch, Relation outbox)
{
	if (batch->rows == batch->made)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->context);

		if (batch->desc == NULL)
			batch->desc = CreateTupleDescCopy(RelationGetDescr(outbox));
		batch->slots[batch->made++] = MakeSingleTupleTableSlot(batch->desc, &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	return batch->slots[batch->rows];
}

/* Takes a request into a batch, with all it points to. */
static void
add_to_batch(HxBatch *batch, Relation outbox, const HxNewRequest *request, int64 bytes, TimestampTz due_from)
{
	TupleTableSlot *row = batch_slot(batch, outbox);

	fill_row(row, request, bytes);
	ExecMaterializeSlot(row);
	batch->due_from = batch->rows == 0 ? due_from : Min(batch->due_from, due_from);
	batch->rows++;
	batch->bytes += bytes;
	if (batch->rows == BATCH_ROWS || batch->bytes > BATCH_BYTES)
		hx_outbox_batch_write(batch);
}

/* ---- requests ---- */

/*
 * A random UUID (version 4), palloc'd.  PostgreSQL's own function asks the
 * kernel or OpenSSL anew for each; here that is done for many at once.
 */
pg_uuid_t *
hx_outbox_new_stamp(void)
{
	static pg_uuid_t prepared[128];
	static int	left = 0;
	static int	pid = 0;		/* whose they are: never those of a parent process */
	pg_uuid_t  *stamp = palloc(sizeof(pg_uuid_t));

	if (left == 0 || pid != MyProcPid)
	{
		if (!pg_strong_random(prepared, sizeof(prepared)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = lengthof(prepared);
		pid = MyProcPid;
	}
	*stamp = prepared[--left];
	memset(&prepared[left], 0, sizeof(pg_uuid_t));
	stamp->data[6] = (stamp->data[6] & 0x0f) | 0x40;
	stamp->data[8] = (stamp->data[8] & 0x3f) | 0x80;
	return stamp;
}

/*
 * Puts a request into the outbox and returns its id; with an idempotency key
 * that this role has used for this server before, the id of that request.  Of
 * one that goes into a batch there is no id yet, so 0.  The delivery worker is
 * woken when the transaction commits.
 */
int64
hx_outbox_insert(HxNewRequest *request)
{
	int64		bytes = (request->body ? VARSIZE_ANY_EXHDR(request->body) : 0) +
		(request->content ? VARSIZE_ANY_EXHDR(request->content) : 0);
	TimestampTz due_from = request->has_deliver_after ? request->deliver_after : GetCurrentTransactionStartTimestamp();
	Relation	outbox;
	int64		id;

	if (request->body != NULL && GetDatabaseEncoding() != PG_UTF8)
	{
		char	   *text = hx_json_out(request->body);

		(void) pg_server_to_any(text, strlen(text), PG_UTF8);	/* or an error, now */
	}
	if (bytes > HX_REQUEST_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("request is too large"),
				 errdetail("Its body has %lld bytes; the limit is %d.", (long long) bytes, HX_REQUEST_MAX_BYTES)));
	if (request->stamp == NULL)
		request->stamp = hx_outbox_new_stamp();
	hx_binding_token(&request->binding);

	outbox = open_outbox();
	if (request->batch != NULL && table.plain)
	{
		add_to_batch(request->batch, outbox, request, bytes, due_from);
		table_close(outbox, NoLock);
		return 0;
	}
	if (request->idempotency_key == NULL && table.plain)
	{
		fill_row(table.slot, request, bytes);
		write_rows(outbox, &table.slot, 1);
		id = DatumGetInt64(table.slot->tts_values[table.columns[COLUMN_ID] - 1]);
		ExecClearTuple(table.slot);
	}
	else
		id = hx_outbox_insert_by_statement(request, GetUserNameFromId(GetUserId(), false), bytes);
	table_close(outbox, NoLock);
	if (!request->within_command)
		CommandCounterIncrement();	/* what this statement does next may look at it */
	hx_shared_wake_at_commit(HX_WORKER_DELIVERY, due_from);
	return id;
}
