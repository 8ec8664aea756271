/*-------------------------------------------------------------------------
 *
 * value.h
 *	  Members of records as values of PostgreSQL's types.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_VALUE_H
#define HX_VALUE_H

#include "fmgr.h"
#include "json/record.h"

/* The types that are read without their input function where the value is of the common form. */
typedef enum HxValueKind
{
	HX_VALUE_OTHER,
	HX_VALUE_SMALLINT,
	HX_VALUE_INTEGER,
	HX_VALUE_BIGINT,
	HX_VALUE_BOOLEAN,
	HX_VALUE_TEXT,
	HX_VALUE_TIME,				/* timestamptz */
	HX_VALUE_JSON,
	HX_VALUE_JSONB,
	HX_VALUE_ARRAY
} HxValueKind;

/* How values of one type are made; prepared once, used for many. */
typedef struct HxValueType
{
	HxValueKind kind;
	Oid			type;
	int32		typmod;
	Oid			ioparam;
	FmgrInfo	input;
	bool		naive_is_utc;	/* a time without a zone */
	bool		pure;			/* its input function reads nothing of the
								 * database */
	struct HxValueType *element;	/* of an array */
	int16		element_len;
	bool		element_byval;
	char		element_align;
} HxValueType;

extern void hx_value_type_init(HxValueType *type, Oid oid, int32 typmod, bool naive_is_utc);
extern Datum hx_value_read(HxValueType *type, const HxFound *found, bool *replaced);
extern bool hx_value_try(HxValueType *type, const HxFound *found, Datum *value, bool *replaced, char **problem);
extern Datum hx_value_read_text(HxValueType *type, const char *text, size_t len);
extern bool hx_value_try_text(HxValueType *type, const char *text, size_t len, Datum *value, char **problem);

/* A time without a zone is UTC in HubEx, so it gets the zone it lacks. */
extern char *hx_value_name_zone(char *text);

#endif							/* HX_VALUE_H */
