/*-------------------------------------------------------------------------
 *
 * resource.h
 *	  A resource of a connector, as its manifest describes it.
 *
 * The manifest's part "resources.NAME", read once into a struct: where the
 * list stands, how its pages come, which columns a record has, and what the
 * API can do with each of them.  It is read anew for every plan and every
 * scan, so that a change of the manifest is never missed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_RESOURCE_H
#define HX_RESOURCE_H

#include "connector/connector.h"
#include "json/record.h"
#include "nodes/bitmapset.h"

/* Where a column's value stands: a path in the record, or one of these. */
#define HX_PATH_KEY		"@key"		/* the record's id: the member's name, else its id */
#define HX_PATH_RECORD	"@record"	/* the whole record */
#define HX_PATH_VALUE	"@value"	/* the same of a record that is no object: a text without its quotes */
#define HX_PATH_PARENT	"@parent"	/* the record the list belongs to */
#define HX_PATH_FILTER	"@filter"	/* what was asked for: the value of its equality */

/* What the API can do with a column; NULL where it cannot. */
typedef struct HxColumnFilter
{
	const char *equal;			/* query parameter of an equality */
	bool		several;		/* it may be repeated: any of the values */
	const char *from;			/* of a lower bound */
	const char *till;			/* of an upper bound */
	const char *present;		/* boolean: is there a value at all? */
	bool		exact;			/* means just what SQL means; else it gives too much, never too little */
} HxColumnFilter;

typedef struct HxColumn
{
	const char *name;
	const char *type;			/* of PostgreSQL, one of those the manifest's grammar knows */
	const char *path;
	bool		present;		/* boolean: is there anything at the path? */
	const char *comment;		/* or NULL */
	const char *constant;		/* the value of all rows, by the column's option; or NULL */
	HxColumnFilter filter;
} HxColumn;

/* An order the API can give: by one column whose values are never absent. */
typedef struct HxColumnOrder
{
	const char *column;
	List	   *ascending;		/* of HxPair *: query parameters */
	List	   *descending;
	bool		stable;			/* a record's value never changes, so pages can be put together */
} HxColumnOrder;

typedef struct HxResource
{
	const char *name;			/* in the manifest */
	const char *schema;			/* the service: WORK */
	const char *table;			/* its name as a table of that schema */
	const char *path;			/* of the list; {column} is the parent's id */
	const char *comment;
	bool		by_key;			/* an object keyed by id, else an array */
	bool		paged;			/* pages can be asked for */
	bool		no_content;		/* an empty list may be answered with 204 */
	bool		countable;		/* HEAD tells the number of records */
	List	   *count_ignores;	/* of char *: parameters of the list that HEAD does not know */
	const char *one;			/* path of one record, with {id}; or NULL */
	List	   *one_lacks;		/* of char *: columns a single record does not show */
	const char *parent;			/* column of the parent's id, or NULL */
	const char *deleted;		/* path of the mark of a deleted record, or NULL */
	const char *modified;		/* column of the time at which a record was changed last, or NULL */
	bool		drops_deleted;	/* no filter of the API leaves those out: hubex does */
	bool		utc;			/* times without a zone are UTC */
	double		rows;			/* so many are assumed where nothing is known */
	List	   *order;			/* of HxPair *: parameters of the order pages are read in */
	int			ncolumns;
	HxColumn   *columns;
	List	   *orders;			/* of HxColumnOrder * */
	Jsonb	   *described;		/* the part of the manifest itself */
} HxResource;

extern HxResource *hx_resource_read(const Jsonb *manifest, const char *connector, const char *name);
extern void hx_resource_read_name(const Jsonb *described, HxResource *resource);
extern HxColumn *hx_resource_column(const HxResource *resource, const char *name);

/* A filter as an object of the manifest's names into query parameters, with the defaults the manifest adds. */
extern List *hx_resource_filter(const HxResource *resource, const char *connector, const Jsonb *filter,
								const Jsonb *further, bool include_deleted);

/* record.c: a record's values as columns */
typedef struct HxRecordShape HxRecordShape;
extern HxRecordShape *hx_record_shape(const HxResource *resource, HxColumn **columns, TupleDesc desc,
									  Bitmapset *needed, bool null_on_error);
extern HxColumn **hx_record_columns(const HxResource *resource, TupleDesc desc);
typedef void (*HxRecordWatch) (void *arg, int column, const char *record, const char *problem, bool fits);
extern void hx_record_watch(HxRecordShape *shape, HxRecordWatch watch, void *arg);
extern void hx_record_drop(HxRecordShape *shape, const char *path);
extern void hx_record_set_filter(HxRecordShape *shape, AttrNumber attno, const char *text);
extern bool hx_record_values(HxRecordShape *shape, const HxRecord *record, Datum *values, bool *nulls);

#endif							/* HX_RESOURCE_H */
