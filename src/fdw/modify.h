/*-------------------------------------------------------------------------
 *
 * modify.h
 *	  What the files of changing a foreign table share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_MODIFY_H
#define HX_MODIFY_H

#include "executor/tuptable.h"

#include "connector/writer.h"
#include "fdw/fdw.h"

/* The fields that an operation takes (modify_columns.c). */
typedef struct HxModifyFields HxModifyFields;

/* A column of a foreign table, as an operation writes it. */
typedef struct HxModifyColumn
{
	bool		known;			/* the rest is filled */
	bool		writable;
	bool		has_constant;
	Datum		constant;		/* what all rows have in it */
	JsonbValue	field;			/* name of the field it is written to */
	HxConverter converter;
} HxModifyColumn;

/* All of them, by attribute number - 1. */
typedef struct HxModifyColumns
{
	MemoryContext cxt;
	const HxTable *table;
	TupleDesc	desc;
	const char *operation;
	HxModifyFields *fields;
	int			raw;			/* the one that takes any further fields; -1: none */
	bool		runs_code;		/* to convert the values functions of others may be called */
	HxModifyColumn columns[FLEXIBLE_ARRAY_MEMBER];
} HxModifyColumns;

/* How the rows of a foreign table name their records; -1 where no column does. */
typedef struct HxModifyKey
{
	const HxTable *table;
	int			id;				/* attribute number - 1 */
	int			natural_key;
	bool		runs_code;		/* to write them as text functions of others may be called */
	FmgrInfo	id_out;
	FmgrInfo	natural_key_out;
} HxModifyKey;

/* modify_columns.c */
extern HxModifyColumns *hx_modify_columns(const HxTable *table, TupleDesc desc, const char *operation);
extern int	hx_modify_new_fields(HxModifyColumns *columns, TupleTableSlot *row, HxField *fields, Jsonb **more);
extern Jsonb *hx_modify_changed_fields(HxModifyColumns *columns, const Datum *old_values, const bool *old_nulls,
									   TupleTableSlot *row);
extern HxModifyKey *hx_modify_key(const HxTable *table, TupleDesc desc);
extern void hx_modify_find_key(HxModifyKey *key, const Datum *values, const bool *nulls, HxRecordKey *found);

#endif							/* HX_MODIFY_H */
