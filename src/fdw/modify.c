/*-------------------------------------------------------------------------
 *
 * modify.c
 *	  INSERT, UPDATE, DELETE and COPY on foreign tables: requests in the outbox.
 *
 * Nothing is sent here.  Each row becomes a request in the statement's own
 * transaction, as hubex_create(), hubex_update() and hubex_delete() make it, and
 * the delivery worker sends it once that has committed.  So a foreign table
 * does not show what is written to it before it is delivered, and the id of a
 * new row is not known.
 *
 * The rows of an UPDATE or DELETE are read from the remote system; which
 * record a row is, and what it was like before, are taken from its old version,
 * which the executor carries along as a whole.
 *
 * Requests are put in some hundred at a time, as those of a statement-level
 * trigger are, where nobody can tell: where no code of others runs from the
 * first row to the end of the statement, that could look into the outbox or put
 * something in there.  The executor's own way of giving rows in batches copies
 * each row twice, which costs more than it would save.
 *
 * The manifest is read anew for each plan and each execution, and a plan holds
 * nothing of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "optimizer/appendinfo.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "connector/options.h"
#include "connector/table_fields.h"
#include "fdw/fdw.h"

/* The state of a foreign table that is being changed; of one that rows are also moved into, for both. */
typedef struct Modification
{
	HxTable    *table;
	HxAccount  *account;
	Oid			role;
	MemoryContext row_cxt;
	int64		requests;
	bool		holds;			/* the writers put in many at a time */

	/* By operation; NULL: it is not done. */
	HxWriter   *create;
	HxWriter   *update;
	HxWriter   *delete;
	HxTableFields *new_columns;
	HxTableFields *changed_columns;
	HxTableKey *key;
	HxField    *fields;			/* of a new row */
	Datum	   *old_values;
	bool	   *old_nulls;
} Modification;

/* The name of the operation that a command is. */
static const char *
operation_of(CmdType command)
{
	switch (command)
	{
		case CMD_INSERT:
			return "create";
		case CMD_UPDATE:
			return "update";
		case CMD_DELETE:
			return "delete";
		default:
			elog(ERROR, "unexpected command %d on a foreign table", (int) command);
			return NULL;
	}
}

/* ---- what can be done ---- */

/* What the manifest says of a foreign table's resource; NULL parts where it says nothing. */
typedef struct Described
{
	const char *connector;
	const char *resource;
	Jsonb	   *manifest;
} Described;

static void
describe(Oid relid, Described *described)
{
	ForeignTable *table = GetForeignTable(relid);

	described->resource = hx_option_get(table->options, "resource");
	described->connector = hx_option_get(GetForeignServer(table->serverid)->options, "connector");
	described->manifest = described->connector ? hx_connector_load(described->connector) : NULL;
}

static bool
is_known(const Described *described, CmdType command)
{
	return described->manifest != NULL && described->resource != NULL &&
		hx_manifest_operation(described->manifest, described->resource, operation_of(command)) != NULL;
}

/* Which commands are possible; asked by the executor, and by those who only want to know. */
static int
hxIsForeignRelUpdatable(Relation relation)
{
	static const CmdType commands[] = {CMD_INSERT, CMD_UPDATE, CMD_DELETE};
	Described	described;
	int			possible = 0;

	describe(RelationGetRelid(relation), &described);
	for (int i = 0; i < lengthof(commands); i++)
		if (is_known(&described, commands[i]))
			possible |= 1 << commands[i];
	return possible;
}

static void
refuse_command(Oid relid, const Described *described, CmdType command)
{
	List	   *operations = NIL;
	StringInfoData names;
	ListCell   *cell;

	if (described->manifest != NULL && described->resource != NULL)
		operations = hx_json_names(hx_json_part(hx_manifest_resource(described->manifest, described->connector,
																	 described->resource), "operations"));
	initStringInfo(&names);
	foreach(cell, operations)
		appendStringInfo(&names, "%s%s", names.len ? ", " : "", (char *) lfirst(cell));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 command == CMD_INSERT ? errmsg("cannot insert into foreign table \"%s\"", get_rel_name(relid)) :
			 command == CMD_UPDATE ? errmsg("cannot update foreign table \"%s\"", get_rel_name(relid)) :
			 errmsg("cannot delete from foreign table \"%s\"", get_rel_name(relid)),
			 names.len ? errdetail("Of resource \"%s\" connector \"%s\" knows the operations: %s.",
								   described->resource, described->connector, names.data) :
			 errdetail("Connector \"%s\" can only read resource \"%s\".",
					   described->connector ? described->connector : "", described->resource ? described->resource : ""),
			 errhint("hubex_enqueue() makes any other call of the API.")));
}

/* ---- planning ---- */

/*
 * An UPDATE has the old row with it in any case, as the column "wholerow"; a
 * DELETE gets it in the same way here.
 */
static void
hxAddForeignUpdateTargets(PlannerInfo *root, Index rtindex, RangeTblEntry *entry, Relation relation)
{
	if (root->parse->commandType == CMD_DELETE)
		add_row_identity_var(root, makeVar(rtindex, InvalidAttrNumber, RECORDOID, -1, InvalidOid, 0), rtindex,
							 "wholerow");
}

static void
refuse_on_conflict(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("INSERT ... ON CONFLICT is not supported for foreign table \"%s\"", get_rel_name(relid)),
			 errdetail("Whether the remote system has such a record is not known before the request is sent.")));
}

/*
 * What cannot be done is said before anything of it is.  The plan says whether
 * the statement runs no code but PostgreSQL's: volatile functions may be
 * anybody's.
 */
static List *
hxPlanForeignModify(PlannerInfo *root, ModifyTable *plan, Index relation, int n)
{
	Oid			relid = planner_rt_fetch(relation, root)->relid;
	Described	described;

	describe(relid, &described);
	if (!is_known(&described, plan->operation))
		refuse_command(relid, &described, plan->operation);
	if (plan->onConflictAction != ONCONFLICT_NONE)
		refuse_on_conflict(relid);
	return list_make1(makeInteger(!contain_volatile_functions_not_nextval((Node *) root->parse)));
}

/* ---- beginning ---- */

/* Are there triggers that run from the first row on, before the requests are put in? */
static bool
has_triggers(const TriggerDesc *triggers, CmdType command)
{
	if (triggers == NULL)
		return false;
	switch (command)
	{
		case CMD_INSERT:
			return triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
				triggers->trig_insert_after_statement;
		case CMD_UPDATE:
			return triggers->trig_update_before_row || triggers->trig_update_after_row ||
				triggers->trig_update_after_statement;
		default:
			return triggers->trig_delete_before_row || triggers->trig_delete_after_row ||
				triggers->trig_delete_after_statement;
	}
}

/* May a column's default run code of others?  COPY computes those; a statement has them in its plan. */
static bool
has_volatile_default(TupleDesc desc)
{
	TupleConstr *constraints = desc->constr;

	for (int i = 0; constraints != NULL && i < constraints->num_defval; i++)
		if (contain_volatile_functions_not_nextval(stringToNode(constraints->defval[i].adbin)))
			return true;
	return false;
}

/*
 * May requests be held back to the end of the statement?  Other tables that it
 * changes, such as the other partitions, may have triggers.  What COPY's WHERE
 * calls cannot be known.
 */
static bool
may_hold(const ModifyTableState *node, const ResultRelInfo *result, const List *private,
		 bool runs_code, CmdType command)
{
	const PlannedStmt *statement = node->ps.state->es_plannedstmt;

	if (runs_code || result->ri_RootResultRelInfo != NULL || has_triggers(result->ri_TrigDesc, command))
		return false;
	if (statement == NULL)
		return !has_volatile_default(RelationGetDescr(result->ri_RelationDesc));
	return !statement->hasModifyingCTE && private != NIL && intVal(linitial(private)) != 0;
}

static Modification *
open_modification(ModifyTableState *node, ResultRelInfo *result)
{
	EState	   *estate = node->ps.state;
	Modification *modification = result->ri_FdwState;

	if (modification != NULL)
		return modification;
	modification = palloc0(sizeof(Modification));
	modification->role = hx_result_check_as_user(result, estate);
	modification->table = hx_table_open(RelationGetRelid(result->ri_RelationDesc));
	modification->account = hx_account_open(modification->table->server->servername, modification->role, false);
	modification->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex row", ALLOCSET_DEFAULT_SIZES);
	result->ri_FdwState = modification;
	return modification;
}

static void
begin_command(ModifyTableState *node, ResultRelInfo *result, List *private, CmdType command)
{
	MemoryContext old = MemoryContextSwitchTo(node->ps.state->es_query_cxt);
	Modification *modification = open_modification(node, result);
	HxWriter   *writer = hx_writer()->begin(modification->account, modification->table->resource->name,
											operation_of(command), modification->role);
	TupleDesc	desc = RelationGetDescr(result->ri_RelationDesc);
	HxTableFields *columns = NULL;

	if (command != CMD_DELETE)
		columns = hx_table_fields(modification->table, desc, operation_of(command));
	if (command == CMD_INSERT)
	{
		modification->create = writer;
		modification->new_columns = columns;
		modification->fields = palloc(sizeof(HxField) * Max(desc->natts, 1));
	}
	else
	{
		if (command == CMD_UPDATE)
			modification->update = writer;
		else
			modification->delete = writer;
		modification->changed_columns = columns;
		modification->key = hx_table_key(modification->table, desc);
		modification->old_values = palloc(sizeof(Datum) * Max(desc->natts, 1));
		modification->old_nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
	}
	if (may_hold(node, result, private, columns ? columns->runs_code : modification->key->runs_code, command))
	{
		hx_writer()->hold(writer);
		modification->holds = true;
	}
	MemoryContextSwitchTo(old);
}

static void
hxBeginForeignModify(ModifyTableState *node, ResultRelInfo *result, List *private, int n, int flags)
{
	if (!(flags & EXEC_FLAG_EXPLAIN_ONLY))
		begin_command(node, result, private, node->operation);
}

/* COPY, and rows that a partitioned table hands on. */
static void
hxBeginForeignInsert(ModifyTableState *node, ResultRelInfo *result)
{
	ModifyTable *plan = castNode(ModifyTable, node->ps.plan);

	if (plan != NULL && plan->onConflictAction != ONCONFLICT_NONE)
		refuse_on_conflict(RelationGetRelid(result->ri_RelationDesc));
	begin_command(node, result, NIL, CMD_INSERT);
}

/* ---- rows ---- */

/* What is palloc'd for a row lives until the next one: what is returned of it may point there. */
static MemoryContext
begin_row(const Modification *modification)
{
	MemoryContextReset(modification->row_cxt);
	return MemoryContextSwitchTo(modification->row_cxt);
}

static void
insert_row(Modification *modification, TupleTableSlot *row)
{
	MemoryContext old = begin_row(modification);
	Jsonb	   *more;
	int			nfields = hx_table_new_fields(modification->new_columns, row, modification->fields, &more);

	hx_writer()->create(modification->create, modification->fields, nfields, more);
	modification->requests++;
	MemoryContextSwitchTo(old);
}

static TupleTableSlot *
hxExecForeignInsert(EState *estate, ResultRelInfo *result, TupleTableSlot *row, TupleTableSlot *plan_row)
{
	insert_row(result->ri_FdwState, row);
	return row;
}

/* Takes the old row apart; the values point into the plan's row. */
static void
old_row(Modification *modification, ResultRelInfo *result, TupleTableSlot *plan_row)
{
	HeapTupleData tuple;
	HeapTupleHeader header;
	Datum		datum;
	bool		isnull = true;

	if (AttributeNumberIsValid(result->ri_RowIdAttNo))
		datum = ExecGetJunkAttribute(plan_row, result->ri_RowIdAttNo, &isnull);
	if (isnull)
		elog(ERROR, "the old row of foreign table \"%s\" is missing", modification->table->name);
	header = DatumGetHeapTupleHeader(datum);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, RelationGetDescr(result->ri_RelationDesc), modification->old_values,
					  modification->old_nulls);
}

static void
change_row(Modification *modification, HxWriter *writer, Jsonb *fields)
{
	HxRecordKey key;

	hx_table_find_key(modification->key, modification->old_values, modification->old_nulls, &key);
	hx_writer()->change(writer, &key, fields);
	modification->requests++;
}

static TupleTableSlot *
hxExecForeignUpdate(EState *estate, ResultRelInfo *result, TupleTableSlot *row, TupleTableSlot *plan_row)
{
	Modification *modification = result->ri_FdwState;
	MemoryContext old = begin_row(modification);
	Jsonb	   *fields;

	old_row(modification, result, plan_row);
	fields = hx_table_changed_fields(modification->changed_columns, modification->old_values,
									  modification->old_nulls, row);
	if (fields != NULL)
		change_row(modification, modification->update, fields);
	MemoryContextSwitchTo(old);
	return row;
}

static TupleTableSlot *
hxExecForeignDelete(EState *estate, ResultRelInfo *result, TupleTableSlot *row, TupleTableSlot *plan_row)
{
	Modification *modification = result->ri_FdwState;
	MemoryContext old = begin_row(modification);
	int			natts = RelationGetDescr(result->ri_RelationDesc)->natts;

	old_row(modification, result, plan_row);
	change_row(modification, modification->delete, NULL);

	/* What RETURNING shows. */
	ExecClearTuple(row);
	memcpy(row->tts_values, modification->old_values, sizeof(Datum) * natts);
	memcpy(row->tts_isnull, modification->old_nulls, sizeof(bool) * natts);
	ExecStoreVirtualTuple(row);
	MemoryContextSwitchTo(old);
	return row;
}

/* ---- ending ---- */

static void
put_in(Modification *modification, HxWriter *writer)
{
	MemoryContext old;

	if (writer == NULL)
		return;
	old = begin_row(modification);
	hx_writer()->release(writer);
	MemoryContextSwitchTo(old);
}

/* The end of what went well; of anything else nothing is to be put in. */
static void
hxEndForeignModify(EState *estate, ResultRelInfo *result)
{
	Modification *modification = result->ri_FdwState;

	if (modification == NULL || !modification->holds)
		return;
	modification->holds = false;
	put_in(modification, modification->create);
	put_in(modification, modification->update);
	put_in(modification, modification->delete);
}

/* ---- EXPLAIN ---- */

/* Says the call that each row becomes; with ANALYZE, how many there are. */
static void
hxExplainForeignModify(ModifyTableState *node, ResultRelInfo *result, List *private, int n, ExplainState *es)
{
	Modification *modification = result->ri_FdwState;
	Described	described;
	Jsonb	   *operation;
	const char *path;

	describe(RelationGetRelid(result->ri_RelationDesc), &described);
	if (!is_known(&described, node->operation))
		return;
	operation = hx_manifest_operation(described.manifest, described.resource, operation_of(node->operation));
	path = hx_json_text(operation, "path");
	if (path == NULL)
		path = hx_json_text(hx_manifest_resource(described.manifest, described.connector, described.resource), "path");
	ExplainPropertyText("Remote Operation",
						psprintf("%s %s through the outbox", hx_json_text(operation, "method"), path), es);
	if (es->analyze && modification != NULL)
		ExplainPropertyInteger("Requests Enqueued", NULL, modification->requests, es);
}

void
hx_modify_routines(FdwRoutine *routine)
{
	routine->IsForeignRelUpdatable = hxIsForeignRelUpdatable;
	routine->AddForeignUpdateTargets = hxAddForeignUpdateTargets;
	routine->PlanForeignModify = hxPlanForeignModify;
	routine->BeginForeignModify = hxBeginForeignModify;
	routine->BeginForeignInsert = hxBeginForeignInsert;
	routine->ExecForeignInsert = hxExecForeignInsert;
	routine->ExecForeignUpdate = hxExecForeignUpdate;
	routine->ExecForeignDelete = hxExecForeignDelete;
	routine->EndForeignModify = hxEndForeignModify;
	routine->EndForeignInsert = hxEndForeignModify;
	routine->ExplainForeignModify = hxExplainForeignModify;
}
