/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  What is seen of runs under way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_PROGRESS_H
#define HX_PROGRESS_H

#include "http/limiter.h"
#include "sync/sync.h"

/* What a run is at. */
typedef enum HxSyncPhase
{
	HX_PHASE_INITIALIZING,		/* it finds out what there is to be done */
	HX_PHASE_READING,			/* it waits for records, or for the quota */
	HX_PHASE_APPLYING,
	HX_PHASE_COMPARING,			/* it looks for rows that the sweep has not found */
	HX_PHASE_CONFIRMING,		/* it asks for these by their keys */
	HX_PHASE_DELETING,
	HX_PHASE_FINALIZING
} HxSyncPhase;

/* How far a run is. */
typedef struct HxProgressFigures
{
	HxSyncKind	kind;
	HxSyncPhase phase;
	TimestampTz began_at;
	int64		done;			/* records of the list that are applied, by earlier runs of a sweep too */
	int64		total;			/* records of the list; -1: not known */
	HxApplied	applied;		/* by this run; without drift */
	HxReadStats reads;			/* by this run */
	int64		quota_us;		/* a request takes of the quota; 0: there is none */
} HxProgressFigures;

typedef struct HxProgress HxProgress;

/*
 * A run begins; it is seen by all until the current context goes.  Where
 * hubex is not preloaded nobody else sees it.  All of these take NULL, too.
 */
extern HxProgress *hx_progress_begin(const char *subscription, HxSyncKind kind);
extern void hx_progress_quota(HxProgress *progress, const HxRate *rate);
extern void hx_progress_phase(HxProgress *progress, HxSyncPhase phase);
extern void hx_progress_note(HxProgress *progress, int64 done, int64 total, const HxApplied *applied,
							 const HxReadStats *reads);

/* For who tells of it otherwise. */
extern const HxProgressFigures *hx_progress_figures(const HxProgress *progress);
extern const char *hx_progress_phase_name(HxSyncPhase phase);
extern int64 hx_progress_time_left(const HxProgressFigures *figures, TimestampTz now);

/* run.c */
extern const HxProgressFigures *hx_sync_run_figures(const HxSyncRun *run);

extern Size hx_progress_shmem_size(void);
extern void hx_progress_shmem_init(void *memory, bool found, LWLock *lock);

#endif							/* HX_PROGRESS_H */
