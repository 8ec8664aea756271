/*-------------------------------------------------------------------------
 *
 * limiter.h
 *	  The rate limit of a remote account, shared by all processes.
 *
 * An account is a 32-byte key; whoever asks with the same key draws from the
 * same quota.  Time is always a parameter.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_HTTP_LIMITER_H
#define HX_HTTP_LIMITER_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

#define HX_LIMITER_KEY_BYTES	32
#define HX_LIMITER_SLOTS		64	/* accounts known at once */

typedef enum HxRateKind
{
	HX_RATE_NONE,
	HX_RATE_WINDOW,				/* never more than count in any window */
	HX_RATE_BUCKET				/* count a window on average, burst at once */
} HxRateKind;

typedef struct HxRate
{
	HxRateKind	kind;
	int			count;
	int64		window_us;
	int			burst;			/* of a bucket */
} HxRate;

/* Who asks; the smaller goes first. */
typedef enum HxPriority
{
	HX_PRIORITY_INTERACTIVE,
	HX_PRIORITY_DELIVERY,
	HX_PRIORITY_SYNC,			/* from here on, nobody waits for the answer */
	HX_PRIORITY_BACKFILL
} HxPriority;

#define HX_PRIORITIES	4

/* What is known of an account. */
typedef struct HxLimiterStats
{
	uint8		key[HX_LIMITER_KEY_BYTES];
	int64		taken;
	int64		throttled;
	int64		in_window;		/* of the window, or the bucket, that is taken now */
	TimestampTz paused_until;	/* in the past: not paused */
} HxLimiterStats;

extern bool hx_rate_parse(const char *input, HxRate *rate);

extern Size hx_limiter_shmem_size(void);
extern void hx_limiter_init(void *memory, bool found);
extern void hx_limiter_attach(void *memory, LWLock *lock);

extern int64 hx_limiter_take(const uint8 *key, const HxRate *rate, TimestampTz now,
							 HxPriority priority);
extern void hx_limiter_pause(const uint8 *key, TimestampTz until);
extern void hx_limiter_resume(const uint8 *key);
extern bool hx_limiter_stats(const uint8 *key, TimestampTz now, HxLimiterStats *stats);
extern bool hx_limiter_slot(int slot, TimestampTz now, HxLimiterStats *stats);

#endif							/* HX_HTTP_LIMITER_H */
