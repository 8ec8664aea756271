/*-------------------------------------------------------------------------
 *
 * sync.h
 *	  What the files of the synchronisation share.
 *
 * A subscription keeps a local table, its mirror, in step with a list of a
 * remote system.  It is done by runs of two kinds: a sweep reads the whole
 * list (the first one fills the target), an incremental run asks for what has
 * changed.  A run reads without a transaction; what it read it applies in
 * batches, each in a transaction of its own that also records how far it came.
 *
 *	subscription_store.c	the rows of hubex.subscription and of its state
 *	subscribe_store.c		hubex_subscribe(), hubex_unsubscribe()
 *	mirror.c				which column of a target shows what of a record
 *	batch.c					records that were read and are to be applied together
 *	apply_store.c			... applied to the target (with apply_statement_store.c,
 *							apply_bulk.c and tombstone_store.c, see apply.h)
 *	sweep_store.c			what a sweep found, and what it therefore deletes
 *	two_way.h				changes made here: the trigger, whose value stays
 *	run.c					one run, step by step
 *	schedule.c				the worker's loop: which run is due
 *	call.c					CALL hubex_sync()
 *	progress.c				what is seen of runs under way
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_SYNC_H
#define HX_SYNC_H

#include "base/job.h"
#include "base/lock.h"
#include "base/transactions.h"
#include "connector/reader.h"
#include "connector/table.h"

/* To wait for a lock on a mirror or its rows, in milliseconds. */
#define HX_SYNC_LOCK_MS		5000

typedef enum HxSyncKind
{
	HX_SYNC_INCREMENTAL,
	HX_SYNC_SWEEP
} HxSyncKind;

typedef enum HxSyncDeletes
{
	HX_DELETES_DELETE,			/* the mirror's row goes */
	HX_DELETES_MARK,			/* its column deleted says when */
	HX_DELETES_IGNORE			/* it stays as it was */
} HxSyncDeletes;

/* What becomes of a value that does not fit, or that no record has any more. */
typedef enum HxDrift
{
	HX_DRIFT_ERROR,				/* the run ends with an error */
	HX_DRIFT_NULL,				/* the column is NULL */
	HX_DRIFT_IGNORE				/* the column keeps what it has */
} HxDrift;

/* Whose value a column of the mirror shows where the two sides differ. */
typedef enum HxColumnOwner
{
	HX_OWNER_REMOTE,
	HX_OWNER_LOCAL,
	HX_OWNER_NEWEST
} HxColumnOwner;

/* A row of hubex.subscription with its state, as it was when it was read. */
typedef struct HxSubscription
{
	char	   *name;
	Oid			owner;			/* the role */
	bool		foreign;		/* it belongs to another place: hold */
	const char *held;			/* why nothing is to be read now, as a sentence without its full stop; or NULL */
	int64		definition;		/* another one where another list is mirrored, or into another table */
	Oid			foreign_table;
	Oid			target;
	bool		incremental;	/* by its mode */
	bool		full;			/* sweeps are repeated */
	int64		overlap_us;
	HxSyncDeletes deletes;
	double		delete_limit;
	HxDrift		on_drift;
	Jsonb	   *columns;		/* or NULL */
	Jsonb	   *owners;			/* or NULL */
	Jsonb	   *filter;			/* or NULL */

	/* the state */
	bool		has_cursor;
	TimestampTz cursor;
	bool		filled;			/* a sweep was completed */
	bool		sweeping;		/* one is under way, be it that nobody works on it now; not where it is held */
	bool		sweep_held;		/* it is read, would delete too much, and waits for a confirmation */
	int64		sweeps;			/* how often one began, or went on after a confirmation */
	TimestampTz sweep_began_at;
	int64		sweep_definition;	/* the definition that it began with */
	bool		has_sweep_cursor;
	TimestampTz sweep_cursor;
	int64		sweep_position;
	List	   *sweep_keys;		/* of char *: of the last records before it */
	bool		sweep_read;		/* all of the list was */
	int64		sweep_missing;	/* what it was held for; -1: it was not */
	bool		sweep_confirmed;

	/* what is due, by the clock of the transaction */
	bool		incremental_due;
	bool		sweep_due;
	Jsonb	   *drift;			/* what did not fit since a sweep began; or NULL */
	bool		changed_here;	/* changes made in the mirror are still to be settled */
} HxSubscription;

/* What came of rows that were to be applied. */
typedef struct HxApplied
{
	int64		inserted;
	int64		updated;		/* marked ones too */
	int64		deleted;
	int64		unchanged;
	int64		older;			/* the mirror had something newer */
	Jsonb	   *drift;			/* what did not fit, {"column": {"problem", "count"}}; NULL: nothing */
} HxApplied;

/* ---- subscription_store.c ---- */

extern HxSubscription *hx_subscription_load(const char *name, bool lock);
extern void hx_subscription_report_missing(const char *name);
extern void hx_subscription_check_right(const HxSubscription *subscription);
extern bool hx_subscription_confirm(const char *name, int64 *missing);

/* What a step of a run came to; written in the transaction of the step. */
typedef struct HxSyncNote
{
	bool		has_cursor;
	TimestampTz cursor;			/* it never goes back */
	int64		position;		/* of the list, applied; -1: as it was */
	List	   *keys;			/* of char *: of the last records before the position; NIL: as they were */
	int64		total;			/* of the list; -1: as it was */
	int64		requests;		/* since the last note */
	const HxApplied *applied;	/* or NULL */
} HxSyncNote;

extern void hx_subscription_note(const char *name, const HxSyncNote *note);

/* The life of a sweep.  What they do besides setting the state stands at each. */
extern void hx_sweep_begin(const HxSubscription *subscription, TimestampTz now);
extern void hx_sweep_set_newest(const char *name, TimestampTz newest);
extern void hx_sweep_give_up(const char *name);
extern void hx_sweep_set_read(const char *name, TimestampTz now);
extern void hx_sweep_hold(const char *name, int64 missing);
extern void hx_sweep_end(const char *name);
extern void hx_incremental_put_off(const char *name);
extern void hx_incremental_end(const char *name, TimestampTz began_at);
extern void hx_subscription_failed(const char *name, bool sweep, const char *problem, const HxRetry *retry,
								   int64 requests);

/* ---- mirror.c ---- */

typedef struct HxMirrorColumn
{
	const char *name;			/* of the target's column */
	AttrNumber	attno;			/* in the target; 0: it is only looked at, not written */
	HxColumn   *column;			/* where its value stands in a record */
	Oid			type;			/* as which it is read: that of the foreign table's column */
	int32		typmod;
	Oid			target_type;	/* which rows have, see batch.c */
	int32		target_typmod;
	Node	   *cast;				/* to it, of the value in a CaseTestExpr; NULL: there is nothing to be done */
	bool		key;			/* with the other such ones it tells rows apart */
	bool		indexed;		/* of the unique index over these, which may have columns besides that never change */
	Oid			equal;			/* the operator by which that compares, of an indexed column */
	HxColumnOwner owner;
} HxMirrorColumn;

/*
 * A subscription's tables as they are in this transaction.  Rows of a batch
 * have the mirror's columns in order, and with them columns that the target
 * need not have: see batch.c.
 */
typedef struct HxMirror
{
	const HxSubscription *subscription;
	HxTable    *table;			/* the foreign table, deleted records included */
	const char *deleted_path;	/* where a record is marked as deleted; NULL: that is not looked at */
	Oid			target;
	Oid			writer;			/* the role that writes it */
	char	   *target_name;	/* qualified and quoted */
	int			ncolumns;
	HxMirrorColumn *columns;
	int			record_key;		/* index of the column with the record's key */
	int			modified;		/* index of that with the remote's time of the last change; -1: none */
	const char *synced_at;		/* the target's column for when a row was written, or NULL */
	const char *marked;			/* the target's column that says when a row was deleted; NULL: deletes are not marked */
	int			mark;			/* index of that column where it shows the record's own time; -1: it does not */
	bool		versioned;		/* which of two answers is newer can be told: a sweep and an incremental
								 * run may go on side by side */
	bool		two_way;		/* changes are made here, too: in columns that are not the remote side's alone,
								 * or of whole rows */
} HxMirror;

/*
 * Opens both tables, locked to the end of the transaction (the target with
 * RowExclusiveLock); palloc'd.  Columns that either table lost are left out.
 * Errors: a table is gone (42P01), the foreign table has no key column (HV00R),
 * no unique index of the target over the key columns (42P10), and what
 * hx_table_open() says.
 */
extern HxMirror *hx_mirror_open(const HxSubscription *subscription);

/* The name of the resource's column with the remote's time of the last change that can be asked for; NULL: there is none. */
extern const char *hx_mirror_cursor_column(const HxMirror *mirror);

/* ---- batch.c ---- */

/* A record as a row. */
typedef struct HxBatchRow
{
	const char *key;			/* the record's, as the target's column writes it */
	Datum	   *values;			/* of the mirror's columns, of their target_type */
	bool	   *nulls;
	Bitmapset  *kept;			/* of these columns, by index: the value in the mirror stays, where there is a row */
	bool		deleted;		/* the record is marked as deleted */
	bool		has_modified;
	TimestampTz modified;
	bool		left_alone;		/* nothing is to be done about it */
	bool		has_version;	/* the row of the mirror was looked at: */
	TransactionId version;		/* its xmin; of another version nothing is known */
} HxBatchRow;

typedef struct HxBatch HxBatch;

extern HxBatch *hx_batch_make(void);	/* in the current context */
extern void hx_batch_add(HxBatch *batch, const HxRecord *record, TimestampTz asked_at);

/* The same of one that was asked for by its id: where it shows less than the mirror does, its row is left alone. */
extern void hx_batch_add_single(HxBatch *batch, const HxRecord *record, TimestampTz asked_at);
extern int	hx_batch_count(const HxBatch *batch);
extern bool hx_batch_is_full(const HxBatch *batch);
extern TimestampTz hx_batch_asked_at(const HxBatch *batch);	/* when the earliest of its requests was sent */
extern void hx_batch_reset(HxBatch *batch);

/*
 * The rows of a batch, palloc'd, in the order of their keys; a record that came
 * twice counts once.  In a transaction, for input functions may look into
 * catalogs; they run as mirror->writer.  What did not fit is added to
 * applied->drift, or is the error of the input function, with a DETAIL that
 * names record, column and value.
 */
extern HxBatchRow *hx_batch_rows(const HxBatch *batch, const HxMirror *mirror, int *nrows, HxApplied *applied);

/* Rows that have nothing but their key, of keys as text. */
extern HxBatchRow *hx_batch_key_rows(const HxMirror *mirror, int nkeys, char **keys);

/* Adds something to what did not fit: NULL or what hx_batch_note() gave.  Both are palloc'd. */
extern Jsonb *hx_batch_note(const Jsonb *drift, const char *column, const char *problem, int64 count);

/* ---- apply_store.c ---- */

/*
 * Applies rows to the target, as mirror->writer, in the caller's
 * transaction; see apply_store.c for what counts as newer.  Of a sweep, columns
 * are looked for that no record has any more.  Adds to *applied.
 * Errors: those of the target's constraints and triggers; 55P03 where a lock is
 * not to be had; 40001 where rows do not stand still; HV005 for a column that
 * is no more.
 */
extern void hx_apply_rows(const HxMirror *mirror, HxBatchRow *rows, int nrows, TimestampTz asked_at, bool sweep,
						  HxApplied *applied);

/* Deletes or marks rows last written before a time that the remote side has no more, given by key. */
extern void hx_apply_missing(const HxMirror *mirror, int nkeys, char **keys, TimestampTz before, HxApplied *applied);

/* Is this process applying what came from the remote side? hubex_is_syncing() */
extern bool hx_apply_is_under_way(void);

/* Does a trigger on a relation fire for one of apply's own statements? What the row's other triggers do for it is not meant. */
extern bool hx_apply_fires(Oid relation);

/* ---- resolve.c ---- */

/*
 * Looks at rows that were changed here, or have columns that are not the
 * remote's alone, before they are applied: marks the values as kept that stay,
 * leaves rows alone, records conflicts, notes the version of the mirror's row.
 * Only where mirror->two_way; hx_apply_rows() calls it, again for what has
 * changed since.
 */
extern void hx_two_way_resolve(const HxMirror *mirror, HxBatchRow **rows, int nrows, TimestampTz asked_at);

/* ---- settle.c ---- */

/*
 * At the end of an incremental run, or of a sweep, whose first request was sent
 * at a time: changes that came to nothing, or that no record will tell of.
 */
extern void hx_two_way_settle(const HxMirror *mirror, TimestampTz began_at, HxApplied *applied);

/* ---- sweep_store.c ---- */

extern void hx_sweep_add_keys(const HxMirror *mirror, const HxBatchRow *rows, int nrows);
extern bool hx_sweep_clean(const char *name);
extern void hx_sweep_forget_tombstones(const char *name);
extern int64 hx_sweep_count_rows(const HxMirror *mirror);
extern int64 hx_sweep_count_missing(const HxMirror *mirror);

/* A row that was not found. */
typedef struct HxMissing
{
	const char *key;			/* as the target's column writes it */
	const char *asked;			/* as it is asked for */
} HxMissing;

extern List *hx_sweep_missing(const HxMirror *mirror, const char *after, int most);
extern List *hx_sweep_drop_protected(const HxMirror *mirror, List *keys);

/* ---- run.c ---- */

typedef struct HxSyncRun HxSyncRun;

typedef enum HxSyncStep
{
	HX_SYNC_GOES_ON,			/* step again at once */
	HX_SYNC_WAITS,				/* for the network or the quota: hx_reader_wait() */
	HX_SYNC_DONE,
	HX_SYNC_OVERTAKEN,			/* an incremental run that a sweep makes useless: nothing was done */
	HX_SYNC_HELD,				/* it would delete too much, and waits for a confirmation */
	HX_SYNC_STOPPED,			/* nothing is to be read now: a paused server, a copy of a database */
	HX_SYNC_DROPPED				/* there is no such subscription any more */
} HxSyncStep;

/*
 * A run, in a context below the current one.  Begin and step open transactions
 * by the table they are given, and close them before they return.  An error
 * leaves as an error; the caller then ends the transaction and records it with
 * hx_sync_run_failed(), which takes NULL where the run did not even begin.
 */
extern HxSyncRun *hx_sync_run_begin(const HxTransactions *transactions, const char *subscription, HxSyncKind kind);
extern HxSyncStep hx_sync_run_step(HxSyncRun *run);
/* When a run that waits is to be stepped all the same; 0: when something has arrived. */
extern TimestampTz hx_sync_run_wake_at(const HxSyncRun *run);

/* As of when the mirror is in step once it is done. */
extern TimestampTz hx_sync_run_as_of(const HxSyncRun *run);

/* Why it is held or stopped, as a sentence without its full stop. */
extern const char *hx_sync_run_held(const HxSyncRun *run);
extern void hx_sync_run_end(HxSyncRun *run);
extern void hx_sync_run_failed(const HxTransactions *transactions, const char *subscription, HxSyncKind kind,
							   HxSyncRun *run, const ErrorData *error);

/* One run of a kind at a time, of a subscription: whoever runs it has this lock of the session. */
extern void hx_sync_run_lock(const char *subscription, HxSyncKind kind, HxLock *lock);

/* ---- schedule.c ---- */

extern const HxJob hx_sync_job;

#endif							/* HX_SYNC_H */
