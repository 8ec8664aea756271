/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  What is counted of each server's deliveries, and its circuit.
 *
 * A server is one of this database, by its oid.  Nothing here fails, needs a
 * transaction, or takes longer than a lock that nobody holds for long.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_STATS_H
#define HX_STATS_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

typedef enum HxStat
{
	HX_STAT_SENT,				/* HTTP requests made, sign-ins not among them */
	HX_STAT_DELIVERED,			/* requests of the outbox delivered */
	HX_STAT_FAILED,				/* attempts that failed */
	HX_STAT_DEAD,				/* requests given up */
	HX_STAT_RETRIED,			/* requests put back to be tried again */
	HX_STAT_RECONCILED,			/* requests a look-up found to be done already */
	HX_STAT_MERGED,				/* requests that went within another's call */
	HX_STAT_THROTTLED,			/* times the quota had no room */
	HX_STAT_THROTTLED_US		/* how long that was, in microseconds */
} HxStat;

#define HX_STATS	(HX_STAT_THROTTLED_US + 1)

/*
 * The circuit of a server: closed, requests pass; open, none does until a
 * time; half open, one is sent to see.  What leads from one to another is the
 * delivery's affair.
 */
typedef enum HxCircuitState
{
	HX_CIRCUIT_CLOSED,
	HX_CIRCUIT_OPEN,
	HX_CIRCUIT_HALF_OPEN
} HxCircuitState;

typedef struct HxCircuit
{
	HxCircuitState state;
	TimestampTz since;			/* 0: always */
	TimestampTz until;			/* of an open one */
	int			failures;		/* in a row */
} HxCircuit;

extern Size hx_stats_shmem_size(void);
extern void hx_stats_shmem_init(void *memory, bool found, LWLock *lock);

extern void hx_stats_add(Oid server, HxStat stat, int64 n);
extern void hx_stats_latency(Oid server, int64 us);
extern void hx_stats_account(Oid server, const uint8 *key);
extern void hx_stats_end_pause(Oid server);
extern void hx_stats_circuit_set(Oid server, const HxCircuit *circuit);

#endif							/* HX_STATS_H */
