/*-------------------------------------------------------------------------
 *
 * outgoing.c
 *	  Rows of a mirror as requests.
 *
 * A value is cast from the type of the target's column to that of the foreign
 * table's, the opposite of what it went through when it came, and then sent
 * as the foreign table would send it.  What the remote side has no field for is an
 * error, as it is there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/primnodes.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "connector/table_fields.h"
#include "sync/outgoing.h"

struct HxOutgoing
{
	const HxMirror *mirror;
	Oid			role;
	MemoryContext cxt;
	HxAccount  *account;
	TupleDesc	foreign;		/* of the foreign table */
	int		   *sources;		/* of the mirror's columns: attribute number there - 1 */
	EState	   *estate;			/* for the casts */
	ExprState **casts;			/* of the mirror's columns; NULL: none, or not asked for yet */
	bool	   *known;			/* it was */

	/* NULL until they are needed. */
	HxWriter   *create;
	HxWriter   *update;
	HxWriter   *delete;
	HxTableFields *new_fields;
	HxTableFields *changed_fields;
	TupleTableSlot *new_row;	/* of the foreign table */
	HxField    *fields;
};

/* The attribute of the foreign table that a column of the mirror shows, less one. */
static int
source_of(const HxMirror *mirror, const HxMirrorColumn *column)
{
	for (int i = 0; i < mirror->table->natts; i++)
		if (mirror->table->columns[i] == column->column)
			return i;
	return -1;
}

/*
 * Makes ready, in the current context.  Errors: those of hx_account_open(), of
 * a role that may not use the server (42501), say.
 */
HxOutgoing *
hx_outgoing_begin(const HxMirror *mirror, Oid role)
{
	HxOutgoing *outgoing = palloc0(sizeof(HxOutgoing));
	Relation	foreign = relation_open(mirror->table->relid, AccessShareLock);

	outgoing->mirror = mirror;
	outgoing->role = role;
	outgoing->cxt = CurrentMemoryContext;
	outgoing->account = hx_account_open(mirror->table->server->servername, role, false);
	outgoing->foreign = CreateTupleDescCopyConstr(RelationGetDescr(foreign));
	relation_close(foreign, NoLock);
	outgoing->sources = palloc(sizeof(int) * mirror->ncolumns);
	for (int i = 0; i < mirror->ncolumns; i++)
		outgoing->sources[i] = source_of(mirror, &mirror->columns[i]);
	outgoing->casts = palloc0(sizeof(ExprState *) * mirror->ncolumns);
	outgoing->known = palloc0(sizeof(bool) * mirror->ncolumns);
	outgoing->estate = CreateExecutorState();
	return outgoing;
}

/* Frees what the casts of the row before left. */
void
hx_outgoing_next_row(HxOutgoing *outgoing)
{
	ResetPerTupleExprContext(outgoing->estate);
}

/* ---- values ---- */

/* Learns the cast of a column's values to what is sent. */
static void
know_cast(HxOutgoing *outgoing, int n)
{
	const HxMirrorColumn *column = &outgoing->mirror->columns[n];
	MemoryContext old = MemoryContextSwitchTo(outgoing->cxt);
	CaseTestExpr *value = makeNode(CaseTestExpr);
	Node	   *cast;

	value->typeId = column->target_type;
	value->typeMod = column->target_typmod;
	value->collation = get_typcollation(column->target_type);
	cast = coerce_to_target_type(NULL, (Node *) value, column->target_type, column->type, column->typmod,
								 COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	if (cast == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of the mirror is of type %s, which cannot be cast to type %s", column->name,
						format_type_be(column->target_type), format_type_be(column->type)),
				 errdetail("It would have to be sent as the foreign table's column is."),
				 errhint("Change the column, or CREATE CAST.")));
	if (cast != (Node *) value && !(IsA(cast, RelabelType) && ((RelabelType *) cast)->arg == (Expr *) value))
		outgoing->casts[n] = ExecPrepareExpr((Expr *) cast, outgoing->estate);
	outgoing->known[n] = true;
	MemoryContextSwitchTo(old);
}

/* A value of a column as the foreign table has it; good until the next row. */
static Datum
outgoing_value(HxOutgoing *outgoing, int n, Datum value, bool *isnull)
{
	ExprContext *econtext;

	if (*isnull)
		return value;
	if (!outgoing->known[n])
		know_cast(outgoing, n);
	if (outgoing->casts[n] == NULL)
		return value;
	econtext = GetPerTupleExprContext(outgoing->estate);
	econtext->caseValue_datum = value;
	econtext->caseValue_isNull = false;
	return ExecEvalExprSwitchContext(outgoing->casts[n], econtext, isnull);
}

/* The key of a record as the remote side knows it, palloc'd. */
char *
hx_outgoing_key(HxOutgoing *outgoing, Datum key)
{
	int			n = outgoing->mirror->record_key;
	bool		isnull = false;
	Oid			function;
	bool		varlena;

	key = outgoing_value(outgoing, n, key, &isnull);
	if (isnull)
		elog(ERROR, "the key of a mirror's row came to nothing");
	getTypeOutputInfo(outgoing->mirror->columns[n].type, &function, &varlena);
	return OidOutputFunctionCall(function, key);
}

/* ---- requests ---- */

static HxWriter *
writer(HxOutgoing *outgoing, HxWriter **writer, const char *operation)
{
	if (*writer == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(outgoing->cxt);

		*writer = hx_writer()->begin(outgoing->account, outgoing->mirror->table->resource->name, operation,
									 outgoing->role);
		MemoryContextSwitchTo(old);
	}
	return *writer;
}

static HxTableFields *
table_fields(HxOutgoing *outgoing, HxTableFields **fields, const char *operation)
{
	if (*fields == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(outgoing->cxt);

		*fields = hx_table_fields(outgoing->mirror->table, outgoing->foreign, operation);
		MemoryContextSwitchTo(old);
	}
	return *fields;
}

/* Would two values of a column be sent as the same? */
bool
hx_outgoing_same(HxOutgoing *outgoing, int column, Datum a, bool a_null, Datum b, bool b_null)
{
	HxTableFields *fields = table_fields(outgoing, &outgoing->changed_fields, "update");
	int			n = outgoing->sources[column];
	JsonbValue	one;
	JsonbValue	other;

	a = outgoing_value(outgoing, column, a, &a_null);
	b = outgoing_value(outgoing, column, b, &b_null);
	hx_table_field_value(fields, n, a, a_null, &one);
	hx_table_field_value(fields, n, b, b_null, &other);
	return hx_json_same(&one, &other);
}

/*
 * Asks for a new record, of the values of the mirror's columns; returns the
 * request's id.  Errors: a value that no field of the record takes, an
 * operation that the connector does not know (0A000), a role without the right
 * (42501), values that a record cannot be without (22004).
 */
int64
hx_outgoing_create(HxOutgoing *outgoing, const Datum *values, const bool *nulls)
{
	HxWriter   *create = writer(outgoing, &outgoing->create, "create");
	HxTableFields *columns = table_fields(outgoing, &outgoing->new_fields, "create");
	TupleTableSlot *row;
	Jsonb	   *more;
	int			nfields;

	if (outgoing->new_row == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(outgoing->cxt);

		outgoing->new_row = MakeSingleTupleTableSlot(outgoing->foreign, &TTSOpsVirtual);
		outgoing->fields = palloc(sizeof(HxField) * Max(outgoing->foreign->natts, 1));
		MemoryContextSwitchTo(old);
	}
	row = ExecClearTuple(outgoing->new_row);
	memset(row->tts_isnull, true, sizeof(bool) * outgoing->foreign->natts);
	for (int i = 0; i < outgoing->mirror->ncolumns; i++)
	{
		int			n = outgoing->sources[i];

		if (n < 0 || outgoing->mirror->columns[i].attno == InvalidAttrNumber)
			continue;
		row->tts_isnull[n] = nulls[i];
		row->tts_values[n] = outgoing_value(outgoing, i, values[i], &row->tts_isnull[n]);
	}
	ExecStoreVirtualTuple(row);
	nfields = hx_table_new_fields(columns, row, outgoing->fields, &more);
	return hx_writer()->create(create, outgoing->fields, nfields, more);
}

/* Asks for a change of some columns of a record; the same. */
int64
hx_outgoing_update(HxOutgoing *outgoing, Datum key, const Bitmapset *columns, const Datum *values, const bool *nulls)
{
	HxWriter   *update = writer(outgoing, &outgoing->update, "update");
	HxTableFields *fields = table_fields(outgoing, &outgoing->changed_fields, "update");
	HxRecordKey record = {hx_outgoing_key(outgoing, key), NULL};
	HxJsonBuilder changed;
	int			column = -1;

	hx_json_begin(&changed);
	while ((column = bms_next_member(columns, column)) >= 0)
	{
		int			n = outgoing->sources[column];
		bool		isnull = nulls[column];
		Datum		datum = outgoing_value(outgoing, column, values[column], &isnull);
		JsonbValue	value;

		if (!hx_table_field(fields, n)->writable)
			hx_table_refuse_field(fields, n);
		hx_table_field_value(fields, n, datum, isnull, &value);
		hx_json_add(&changed, hx_table_field(fields, n)->field.val.string.val, &value);
	}
	return hx_writer()->change(update, &record, hx_json_end(&changed));
}

/* Asks for the deletion of a record; the same. */
int64
hx_outgoing_delete(HxOutgoing *outgoing, Datum key)
{
	HxRecordKey record = {hx_outgoing_key(outgoing, key), NULL};

	return hx_writer()->change(writer(outgoing, &outgoing->delete, "delete"), &record, NULL);
}
