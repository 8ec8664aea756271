/*-------------------------------------------------------------------------
 *
 * apply.h
 *	  What the files that apply rows to a mirror share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_APPLY_H
#define HX_APPLY_H

#include "access/tupdesc.h"
#include "storage/itemptr.h"

#include "sync/sync.h"

/* What is known of a row. */
typedef struct HxRowState
{
	bool		found;			/* the target has one of this key */
	bool		changed;
	bool		newer;
	Oid			relation;		/* the one that was found */
	ItemPointerData tid;
	TransactionId xmin;
	bool		moved;			/* it is not the version that was looked at for changes made here */
	bool		settled;		/* nothing more is to be done about it */
} HxRowState;

/* A call's work. */
typedef struct HxApply
{
	const HxMirror *mirror;
	HxBatchRow *rows;
	TimestampTz asked_at;
	HxRowState *states;
	Bitmapset  *kept;			/* columns of which some row leaves the value alone */
	bool		by_key;			/* rows have nothing but their key, by which they are found */
	TupleDesc	whole;			/* of the named relation */
	TupleDesc	keys;			/* the same, of the columns by which rows are found */
	HxApplied	applied;
} HxApply;

/* Some of the rows, by their number. */
typedef struct HxSome
{
	int			n;
	int		   *numbers;
} HxSome;

static inline HxSome
hx_some_make(int most)
{
	HxSome		some = {0, palloc(Max(most, 1) * sizeof(int))};

	return some;
}

static inline void
hx_some_put(HxSome *some, int number)
{
	some->numbers[some->n++] = number;
}

/*
 * apply_statement_store.c: statements over some rows, within SPI_connect().
 * Those that write settle the rows they wrote, and return their number.
 */
extern void hx_apply_describe(HxApply *work);
extern bool hx_apply_writes(const HxMirror *mirror, int column);
extern void hx_apply_look(HxApply *work, const HxSome *some, bool keys_only);
extern void hx_apply_count_values(const HxApply *work, const HxSome *some, Bitmapset *columns, int64 *counts);
extern int64 hx_apply_update(HxApply *work, const HxSome *some);
extern int64 hx_apply_delete(HxApply *work, const HxSome *some);
extern int64 hx_apply_insert(HxApply *work, const HxSome *some);
extern int64 hx_apply_end(HxApply *work, const HxSome *some);

/* apply_bulk.c: the same, of many new rows */
extern bool hx_apply_can_bulk(const HxMirror *mirror);
extern void hx_apply_bulk(const HxMirror *mirror, HxBatchRow **rows, int nrows);

/* tombstone_store.c: rows that were deleted, as long as an answer of the time before may come */
extern char **hx_tombstones_read(const HxMirror *mirror, TimestampTz since, int *n);
extern bool hx_tombstones_have(char **keys, int n, const char *key);
extern void hx_tombstones_leave(const HxMirror *mirror, int nkeys, Datum *keys);

#endif							/* HX_APPLY_H */
