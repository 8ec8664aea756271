/*-------------------------------------------------------------------------
 *
 * statement_store.h
 *	  SQL statements that are prepared once per process and kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_STATEMENT_STORE_H
#define HX_STATEMENT_STORE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "executor/spi.h"
#include "utils/jsonb.h"

#define HX_STATEMENT_MAX_ARGS	24

/* A statement; a static one per place that runs it. */
typedef struct HxStatement
{
	const char *sql;
	int			nargs;
	Oid			types[HX_STATEMENT_MAX_ARGS];
	SPIPlanPtr	plan;
} HxStatement;

extern uint64 hx_statement_count(HxStatement *statement, Datum *args, const char *nulls);
extern void hx_statement_run(HxStatement *statement, Datum *args, const char *nulls);
extern void hx_statement_read(HxStatement *statement, Datum *args, const char *nulls);
extern Portal hx_statement_open(HxStatement *statement, Datum *args, const char *nulls);

extern Datum hx_text_or_null(const char *text, char *null);
extern Datum hx_pointer_or_null(const void *pointer, char *null);
extern char *hx_column_text(HeapTuple row, TupleDesc desc, int column, MemoryContext cxt);
extern Jsonb *hx_column_jsonb(HeapTuple row, TupleDesc desc, int column, MemoryContext cxt);

#endif							/* HX_STATEMENT_STORE_H */
