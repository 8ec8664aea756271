/*-------------------------------------------------------------------------
 *
 * table_fields.h
 *	  Rows of a foreign table as fields of a record.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_TABLE_FIELDS_H
#define HX_TABLE_FIELDS_H

#include "executor/tuptable.h"

#include "connector/table.h"
#include "connector/writer.h"

/* The fields that an operation takes. */
typedef struct HxOperationFields HxOperationFields;

/* A column of a foreign table, as an operation writes it. */
typedef struct HxTableField
{
	bool		known;			/* the rest is filled */
	bool		writable;
	bool		has_constant;
	Datum		constant;		/* what all rows have in it */
	JsonbValue	field;			/* name of the field it is written to */
	HxConverter converter;
} HxTableField;

/* All of them, by attribute number - 1. */
typedef struct HxTableFields
{
	MemoryContext cxt;
	const HxTable *table;
	TupleDesc	desc;
	const char *operation;
	HxOperationFields *fields;
	int			raw;			/* the one that takes any further fields; -1: none */
	bool		runs_code;		/* to convert the values functions of others may be called */
	HxTableField columns[FLEXIBLE_ARRAY_MEMBER];
} HxTableFields;

/* How the rows of a foreign table name their records; -1 where no column does. */
typedef struct HxTableKey
{
	const HxTable *table;
	int			id;				/* attribute number - 1 */
	int			natural_key;
	bool		runs_code;		/* to write them as text functions of others may be called */
	FmgrInfo	id_out;
	FmgrInfo	natural_key_out;
} HxTableKey;

extern HxTableFields *hx_table_fields(const HxTable *table, TupleDesc desc, const char *operation);
extern const HxTableField *hx_table_field(HxTableFields *fields, int n);
extern void hx_table_field_value(HxTableFields *fields, int n, Datum datum, bool isnull, JsonbValue *value);
extern void hx_table_refuse_field(HxTableFields *fields, int n);
extern int	hx_table_new_fields(HxTableFields *columns, TupleTableSlot *row, HxField *fields, Jsonb **more);
extern Jsonb *hx_table_changed_fields(HxTableFields *columns, const Datum *old_values, const bool *old_nulls,
									  TupleTableSlot *row);
extern HxTableKey *hx_table_key(const HxTable *table, TupleDesc desc);
extern void hx_table_find_key(HxTableKey *key, const Datum *values, const bool *nulls, HxRecordKey *found);

#endif							/* HX_TABLE_FIELDS_H */
