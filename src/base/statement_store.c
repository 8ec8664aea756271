/*-------------------------------------------------------------------------
 *
 * statement_store.c
 *	  SQL statements that are prepared once per process and kept.
 *
 * For hubex's own statements over hubex's own tables.  But for
 * hx_statement_count(), the caller is within SPI_connect() and has become the
 * owner of the tables (base/owner.c).  None
 * of this opens or ends a transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/owner.h"
#include "base/statement_store.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static void
prepare(HxStatement *statement)
{
	SPIPlanPtr	plan;

	if (statement->plan != NULL)
		return;

	/* one plan for good: arrays as arguments would have it planned anew each time */
	plan = SPI_prepare_cursor(statement->sql, statement->nargs, statement->types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare a statement of hubex: %s", SPI_result_code_string(SPI_result));
	statement->plan = plan;
}

static void
run(HxStatement *statement, Datum *args, const char *nulls, bool read_only)
{
	int			result;

	prepare(statement);
	result = SPI_execute_plan(statement->plan, args, nulls, read_only, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement of hubex: %s", SPI_result_code_string(result));
}

/* Runs a statement; the result is in SPI_processed and SPI_tuptable. */
void
hx_statement_run(HxStatement *statement, Datum *args, const char *nulls)
{
	run(statement, args, nulls, false);
}

/* Runs a query with the active snapshot, whatever the transaction's is. */
void
hx_statement_read(HxStatement *statement, Datum *args, const char *nulls)
{
	run(statement, args, nulls, true);
}

/* Runs a statement as the tables' owner, by itself; tells for how many rows it was. */
uint64
hx_statement_count(HxStatement *statement, Datum *args, const char *nulls)
{
	HxOwner		saved;
	uint64		rows;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(statement, args, nulls);
	rows = SPI_processed;
	SPI_finish();
	hx_owner_leave(&saved);
	return rows;
}

/* Opens a cursor over a statement, for SPI_cursor_fetch(). */
Portal
hx_statement_open(HxStatement *statement, Datum *args, const char *nulls)
{
	prepare(statement);
	return SPI_cursor_open(NULL, statement->plan, args, nulls, false);
}

/* A text argument, and what its place in the nulls is to be. */
Datum
hx_text_or_null(const char *text, char *null)
{
	*null = text ? ' ' : 'n';
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/* The same for a value that is a pointer. */
Datum
hx_pointer_or_null(const void *pointer, char *null)
{
	*null = pointer ? ' ' : 'n';
	return PointerGetDatum(pointer);
}

/* A column of a row as text copied to cxt, or NULL. */
char *
hx_column_text(HeapTuple row, TupleDesc desc, int column, MemoryContext cxt)
{
	char	   *text = SPI_getvalue(row, desc, column);

	return text ? MemoryContextStrdup(cxt, text) : NULL;
}

/* The same of a jsonb. */
Jsonb *
hx_column_jsonb(HeapTuple row, TupleDesc desc, int column, MemoryContext cxt)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Jsonb	   *json = isnull ? NULL : DatumGetJsonbPCopy(value);

	MemoryContextSwitchTo(old);
	return json;
}
