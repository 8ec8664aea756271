/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  What is seen of runs under way.
 *
 * Shared memory has a slot for each, which the run's process writes and
 * hubex_stat_progress_sync reads.  A run that finds none free is done all the
 * same, unseen.
 *
 * A slot goes with the run's memory; at the end of the process, by whatever
 * way it gets there, with all that the process had.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "sync/progress.h"

PG_FUNCTION_INFO_V1(hubex_sync_progress);

#define MAX_RUNS	128			/* of all databases together */
#define NAME_BYTES	256			/* a longer name is cut off */

typedef struct Run
{
	int			pid;			/* 0: free */
	Oid			database;
	char		subscription[NAME_BYTES];
	HxProgressFigures figures;
} Run;

struct HxProgress
{
	HxProgressFigures figures;
	Run		   *run;			/* NULL: nobody sees it */
	MemoryContextCallback at_end;
};

/* Where the runs are; NULL without preload. */
static struct
{
	Run		   *runs;			/* MAX_RUNS of them */
	LWLock	   *lock;
	bool		registered;		/* this process clears its own as it goes */
}			attached;

Size
hx_progress_shmem_size(void)
{
	return MAXALIGN(sizeof(Run) * MAX_RUNS);
}

void
hx_progress_shmem_init(void *memory, bool found, LWLock *lock)
{
	if (!found)
		memset(memory, 0, hx_progress_shmem_size());
	attached.runs = memory;
	attached.lock = lock;
}

static void
clear_all(int code, Datum arg)
{
	LWLockAcquire(attached.lock, LW_EXCLUSIVE);
	for (Run *run = attached.runs; run < attached.runs + MAX_RUNS; run++)
		if (run->pid == MyProcPid)
			run->pid = 0;
	LWLockRelease(attached.lock);
}

/* The memory of a run goes. */
static void
clear_one(void *arg)
{
	HxProgress *progress = arg;

	if (progress->run == NULL || MyProc == NULL)
		return;
	LWLockAcquire(attached.lock, LW_EXCLUSIVE);
	progress->run->pid = 0;
	LWLockRelease(attached.lock);
	progress->run = NULL;
}

static void
publish(const HxProgress *progress)
{
	if (progress->run == NULL)
		return;
	LWLockAcquire(attached.lock, LW_EXCLUSIVE);
	progress->run->figures = progress->figures;
	LWLockRelease(attached.lock);
}

/* Takes a slot, if one is free. */
static Run *
take_slot(const char *subscription)
{
	Run		   *free_run = NULL;

	if (attached.runs == NULL)
		return NULL;
	if (!attached.registered)
		before_shmem_exit(clear_all, (Datum) 0);
	attached.registered = true;

	LWLockAcquire(attached.lock, LW_EXCLUSIVE);
	for (Run *run = attached.runs; run < attached.runs + MAX_RUNS && free_run == NULL; run++)
		if (run->pid == 0)
			free_run = run;
	if (free_run != NULL)
	{
		int			len = pg_mbcliplen(subscription, strlen(subscription), NAME_BYTES - 1);

		memset(free_run, 0, sizeof(Run));
		free_run->pid = MyProcPid;
		free_run->database = MyDatabaseId;
		memcpy(free_run->subscription, subscription, len);
	}
	LWLockRelease(attached.lock);
	return free_run;
}

HxProgress *
hx_progress_begin(const char *subscription, HxSyncKind kind)
{
	HxProgress *progress = palloc0(sizeof(HxProgress));

	progress->figures.kind = kind;
	progress->figures.began_at = GetCurrentTimestamp();
	progress->figures.total = -1;
	progress->at_end.func = clear_one;
	progress->at_end.arg = progress;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &progress->at_end);
	progress->run = take_slot(subscription);
	publish(progress);
	return progress;
}

/* By which rate its requests go. */
void
hx_progress_quota(HxProgress *progress, const HxRate *rate)
{
	if (progress == NULL)
		return;
	progress->figures.quota_us = rate->kind == HX_RATE_NONE ? 0 : rate->window_us / Max(rate->count, 1);
	publish(progress);
}

void
hx_progress_phase(HxProgress *progress, HxSyncPhase phase)
{
	if (progress == NULL || progress->figures.phase == phase)
		return;
	progress->figures.phase = phase;
	publish(progress);
}

/* How far it is; total is -1 where that is not known, reads and applied are sums of this run. */
void
hx_progress_note(HxProgress *progress, int64 done, int64 total, const HxApplied *applied, const HxReadStats *reads)
{
	if (progress == NULL)
		return;
	progress->figures.done = done;
	progress->figures.total = total;
	if (applied != NULL)
		progress->figures.applied = *applied;
	progress->figures.applied.drift = NULL; /* memory of this process */
	if (reads != NULL)
		progress->figures.reads = *reads;
	publish(progress);
}

/* How far it is, good as long as progress is. */
const HxProgressFigures *
hx_progress_figures(const HxProgress *progress)
{
	return &progress->figures;
}

const char *
hx_progress_phase_name(HxSyncPhase phase)
{
	static const char *const names[] = {
		[HX_PHASE_INITIALIZING] = "initializing",
		[HX_PHASE_READING] = "reading",
		[HX_PHASE_APPLYING] = "applying",
		[HX_PHASE_COMPARING] = "looking for missing rows",
		[HX_PHASE_CONFIRMING] = "confirming missing rows",
		[HX_PHASE_DELETING] = "deleting missing rows",
		[HX_PHASE_FINALIZING] = "finalizing"
	};

	return names[phase];
}

/*
 * The time, in microseconds, until a run has read its list: as the quota gives
 * requests for the pages that are left, or as it went so far where that is
 * slower.  -1: it cannot be told.
 */
int64
hx_progress_time_left(const HxProgressFigures *figures, TimestampTz now)
{
	double		left = figures->total - figures->done;
	double		records = figures->reads.records;	/* by this run, in so many pages */
	double		by_quota;
	double		by_pace;

	if (figures->total < 0 || records <= 0 || figures->reads.pages <= 0)
		return -1;
	if (left <= 0)
		return 0;
	by_quota = ceil(left / (records / figures->reads.pages)) * figures->quota_us;
	by_pace = left / records * (now - figures->began_at);
	return (int64) Min(Max(by_quota, by_pace), (double) USECS_PER_DAY * 36525);
}

/* hubex.sync_progress() -> a row for each run under way, in all databases. */
Datum
hubex_sync_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	Run		   *runs;

	InitMaterializedSRF(fcinfo, 0);
	if (attached.runs == NULL)
		return (Datum) 0;
	runs = palloc(hx_progress_shmem_size());
	LWLockAcquire(attached.lock, LW_SHARED);
	memcpy(runs, attached.runs, sizeof(Run) * MAX_RUNS);
	LWLockRelease(attached.lock);

	for (const Run *run = runs; run < runs + MAX_RUNS; run++)
	{
		const HxProgressFigures *figures = &run->figures;
		int64		left_us = hx_progress_time_left(figures, now);
		Interval   *left = palloc0(sizeof(Interval));
		Datum		values[18];
		bool		nulls[18] = {false};
		int			n = 0;

		if (run->pid == 0)
			continue;
		left->time = left_us;
		values[n++] = Int32GetDatum(run->pid);
		values[n++] = ObjectIdGetDatum(run->database);
		/* another database may have another encoding */
		nulls[n] = !pg_verifymbstr(run->subscription, strlen(run->subscription), true);
		values[n++] = CStringGetTextDatum(run->subscription);
		values[n++] = CStringGetTextDatum(figures->kind == HX_SYNC_SWEEP ? "full" : "incremental");
		values[n++] = CStringGetTextDatum(hx_progress_phase_name(figures->phase));
		nulls[n] = figures->total < 0;
		values[n++] = Int64GetDatum(figures->total);
		values[n++] = Int64GetDatum(figures->done);
		values[n++] = Int64GetDatum(figures->applied.inserted);
		values[n++] = Int64GetDatum(figures->applied.updated);
		values[n++] = Int64GetDatum(figures->applied.deleted);
		values[n++] = Int64GetDatum(figures->applied.unchanged);
		values[n++] = Int64GetDatum(figures->reads.pages);
		values[n++] = Int64GetDatum(figures->reads.requests);
		values[n++] = Int64GetDatum(figures->reads.retries);
		values[n++] = Int64GetDatum(figures->reads.bytes);
		values[n++] = Float8GetDatum(figures->reads.throttled_us / 1000.0);
		values[n++] = TimestampTzGetDatum(figures->began_at);
		nulls[n] = left_us < 0;
		values[n++] = IntervalPGetDatum(left);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
