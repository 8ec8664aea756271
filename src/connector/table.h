/*-------------------------------------------------------------------------
 *
 * table.h
 *	  A foreign table, as its options and its connector's manifest describe it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_TABLE_H
#define HX_TABLE_H

#include "foreign/foreign.h"

#include "connector/resource.h"

/* Keys in one request: the address of a request must stay below 8 KB. */
#define HX_KEYS_A_REQUEST	100

/* A foreign table of hubex_fdw. */
typedef struct HxTable
{
	Oid			relid;
	char	   *name;			/* of the table */
	ForeignServer *server;
	char	   *connector;
	Jsonb	   *manifest;
	HxResource *resource;
	int			natts;
	HxColumn  **columns;		/* by attribute number - 1; NULL: dropped */
	Oid		   *types;			/* of the attributes */
	List	   *query;			/* of HxPair *: what the table always asks for */
	bool		has_filter;		/* a filter is part of that */
	bool		include_deleted;
	bool		drops_deleted;	/* of a list that comes, deleted records are left out here */
	bool		null_on_error;
	int			page_size;
} HxTable;

extern HxTable *hx_table_open(Oid relid);
extern HxTable *hx_table_open_whole(Oid relid, const Jsonb *further);
extern bool hx_table_is_filter(const HxTable *table, AttrNumber attno);
extern char *hx_table_fill_path(const char *path, const char *value);
extern double hx_table_pages(const HxTable *table, double records);
extern AttrNumber hx_table_attribute(const HxTable *table, const char *name);

#endif							/* HX_TABLE_H */
