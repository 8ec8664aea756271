/*-------------------------------------------------------------------------
 *
 * run_internal.h
 *	  What the files of a run share.
 *
 *	run.c			a run: its beginning, its transactions, which step is next
 *	run_reading.c	reading into a batch; applying it, and noting what came of it
 *	run_sweep.c		the steps of a sweep
 *	run_missing.c	those with what it has not found
 *	run_changes.c	the steps of an incremental run
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_RUN_INTERNAL_H
#define HX_RUN_INTERNAL_H

#include "sync/progress.h"

#define HX_RUN_KNOWN_KEYS	10	/* the reader wants no more to find the place again */

/* The first of all times for the remote side. */
#define HX_REMOTE_EPOCH		((TimestampTz) ((UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY))

typedef enum Phase
{
	PHASE_CLEAN,
	PHASE_NEWEST,
	PHASE_READ,
	PHASE_JUDGE,
	PHASE_ASK,
	PHASE_END,
	PHASE_TIDY,
	PHASE_CHANGES,				/* all of an incremental run */
	PHASE_DONE,
	PHASE_OVERTAKEN,			/* by a sweep, whose answers are newer */
	PHASE_HELD,					/* somebody has to confirm what it would delete */
	PHASE_STOPPED,				/* nothing is to be read now */
	PHASE_DROPPED				/* there is no such subscription any more */
} Phase;

/* How it can be asked whether records are still there. */
typedef enum Asking
{
	ASK_BY_LIST,				/* many keys a request */
	ASK_SINGLY,
	ASK_NOBODY
} Asking;

struct HxSyncRun
{
	MemoryContext cxt;
	MemoryContext scratch;		/* of a transaction */
	MemoryContext reading;		/* of the reader and its order; NULL: none is under way */
	const HxTransactions *transactions;
	char	   *name;
	HxSyncKind	kind;
	Phase		phase;
	const char *held;			/* why, where it is */
	HxProgress *progress;

	/* what is read, as it was when the run began */
	int64		definition;
	HxTable    *table;
	HxAccount  *account;
	HxReadPart *part;			/* the list */
	const HxColumn *modified;	/* the resource's, if changes can be asked for; or NULL */
	const HxColumnOrder *by_time;	/* its order */

	/* a reading */
	HxReader   *reader;
	bool		in_reader;		/* an error now is one of reading */
	int64		place;			/* in the list, of the record read last */
	HxBatch    *batch;
	TimestampTz lingers_since;	/* records are here, and more is waited for; 0: not so */
	char	   *keys[HX_RUN_KNOWN_KEYS];	/* a ring of the keys read last */
	int64		nkeys;			/* read at all */
	HxReadStats reads;			/* of the readers before */
	int64		requests_noted;
	HxApplied	applied;		/* by the run, without drift */

	/* a sweep */
	TimestampTz began_at;		/* the sweep's; of an incremental run its own */
	bool		wants_newest;
	int64		position;
	int64		total;
	List	   *known;			/* of char * */
	MemoryContext missing_cxt;
	List	   *missing;		/* of HxMissing *: rows that were not found, of this look */
	int			next_missing;
	char	   *last_missing;	/* the key of the last that is done; NULL: none is */
	Asking		asks;			/* how */
	List	   *asked;			/* of HxMissing *: what is being asked for, or is to be deleted */

	/* an incremental run */
	int64		sweeps;			/* the subscription's, when it began */
	TimestampTz from;
	int64		skip;			/* records with that time or later that were read */
	bool		in_order;		/* the page is in the order that was asked for, so far */
	bool		page_dated;
	TimestampTz page_newest;
	bool		dated;			/* any record of the run was */
	TimestampTz newest;
};

/* run.c */
extern void hx_run_begin_transaction(HxSyncRun *run);
extern void hx_run_commit(HxSyncRun *run);
extern HxMirror *hx_run_begin_applying(HxSyncRun *run);
extern HxSyncStep hx_run_result(const HxSyncRun *run);

/* run_reading.c */
extern MemoryContext hx_run_enter_reading(HxSyncRun *run);
extern void hx_run_begin_reading(HxSyncRun *run, List *parts, List *order, int64 most, int64 skip, List *known);
extern HxReadState hx_run_fill_batch(HxSyncRun *run);
extern void hx_run_end_reading(HxSyncRun *run);
extern HxReadStats hx_run_reads(const HxSyncRun *run);
extern List *hx_run_last_keys(const HxSyncRun *run);
extern void hx_run_note(HxSyncRun *run, HxSyncNote *what, const HxApplied *applied);
extern void hx_run_commit_noted(HxSyncRun *run, const HxSyncNote *what);
extern void hx_run_show(HxSyncRun *run, HxSyncPhase phase);

/* run_sweep.c */
extern HxSyncStep hx_run_step_clean(HxSyncRun *run);
extern HxSyncStep hx_run_step_newest(HxSyncRun *run);
extern HxSyncStep hx_run_step_read(HxSyncRun *run);
extern HxSyncStep hx_run_step_end(HxSyncRun *run);
extern HxSyncStep hx_run_step_tidy(HxSyncRun *run);

/* run_missing.c */
extern HxSyncStep hx_run_step_judge(HxSyncRun *run);
extern HxSyncStep hx_run_step_ask(HxSyncRun *run);

/* run_changes.c */
extern HxSyncStep hx_run_step_changes(HxSyncRun *run);

#endif							/* HX_RUN_INTERNAL_H */
