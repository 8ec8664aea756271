/*-------------------------------------------------------------------------
 *
 * reader.h
 *	  Records of a list, as they arrive.
 *
 * A reader makes the requests that an order needs, no more, and gives the
 * records one by one.  An order has parts, each a list or one record: chunks
 * of many ids, children of several parents.  Parts come one after another,
 * records of a part in the order the API gives.
 *
 * A reader and all it holds live in a context below the one it was made in;
 * what the order points to has to live as long.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_READER_H
#define HX_READER_H

#include "connector/resource.h"
#include "json/record.h"

/* One list, or one record, that is to be read. */
typedef struct HxReadPart
{
	const char *path;			/* below the server's url, ready */
	List	   *query;			/* of HxPair *: filters */
	const char *parent;			/* id of the parent in the path, or NULL */
	const char *one;			/* id of the one record the path names, or NULL; absent (404) is no record */
} HxReadPart;

/* What queries spend; shared by the scans of one query. */
typedef struct HxReadBudget
{
	int			requests;
	int			most;			/* 0: no end */
} HxReadBudget;

typedef struct HxReadOrder
{
	const HxAccount *account;
	const HxResource *resource;
	List	   *parts;			/* of HxReadPart * */
	List	   *order;			/* of HxPair *: parameters of the sort; NIL: the resource's own */
	int64		skip;			/* records of the list not wanted at its start; of one part only */
	List	   *known;			/* of char *: keys of the last records before these that an earlier reader gave;
								 * see reader.c */
	int64		most;			/* records wanted; -1: all */
	bool		all;			/* everything will be read: pages may be asked for ahead */
	bool		total;			/* hx_reader_total() is wanted at the end, also where "most" comes first */
	HxPriority	priority;
	HxReadBudget *budget;		/* or NULL */
} HxReadOrder;

/* What it cost. */
typedef struct HxReadStats
{
	int64		requests;		/* all that went out, sign-ins too */
	int64		pages;
	int64		bytes;			/* of bodies, decoded */
	int64		retries;
	int64		throttled_us;	/* waited for the quota */
	int64		records;		/* given */
} HxReadStats;

typedef enum HxReadState
{
	HX_READ_RECORD,
	HX_READ_END,
	HX_READ_WAIT				/* nothing here yet */
} HxReadState;

typedef struct HxReader HxReader;

extern HxReader *hx_reader_begin(const HxReadOrder *order);
extern HxReadState hx_reader_next(HxReader *reader, bool wait, HxRecord *record);
extern void hx_reader_wait(long timeout_ms);
extern void hx_reader_end(HxReader *reader);
extern int64 hx_reader_total(const HxReader *reader);
extern void hx_reader_place(const HxReader *reader, int64 *position, TimestampTz *asked_at);
extern char *hx_reader_key(const HxReader *reader);
extern const HxReadStats *hx_reader_stats(const HxReader *reader);
extern void hx_reader_add_stats(HxReadStats *sum, const HxReadStats *more);

extern int64 hx_reader_count(const HxReadOrder *order, HxReadStats *stats);

#endif							/* HX_READER_H */
