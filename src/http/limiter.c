/*-------------------------------------------------------------------------
 *
 * limiter.c
 *	  The rate limit of a remote account, shared by all processes.
 *
 * A remote system counts the requests of an account, not of a process, so the
 * permits to send are drawn from one place: shared memory, or the process's
 * own when hubex is not preloaded and cannot have shared memory.
 *
 * A window ('60/min') is kept exactly: the times of the last sends are
 * remembered, and a permit is given only if fewer than that many lie within
 * the window that ends now.  A bucket of tokens would let twice as many pass
 * in an unlucky minute.  The remote side counts arrivals, not departures, and
 * one request takes longer to arrive than the next (the first ones wait for a
 * handshake); so a window is held a little longer than it is.  Over 1,024 a window, neighbouring sends share an
 * entry that carries the time of the latest: a permit may come back late,
 * never early.  A bucket ('2/s burst 50') needs only the time at which it will
 * be empty.
 *
 * Priorities.  A refusal leaves a claim, valid until one second after the time
 * at which the refused one was told to ask again; while a claim stands, nobody
 * of a lower priority gets a permit.  The second is for those who come late;
 * one who never comes costs the others no more than it.
 *
 * What goes on in the background, which nobody waits for, leaves something to
 * those who come later: a backfill a third of the window or of the burst, what
 * is asked for to stay in step a sixth.  Counted is all that was taken, so that
 * somebody who has a steady use of the quota finds as much above that use, and
 * the background has what is left.  Two more things hold for a window, of which
 * nothing comes back before its time:
 *	- The background takes its part evenly, with a tenth of it at once.  Else it
 *	  would take it in the window's first moments, and who then needs more than
 *	  the reserve would wait for all of the window.
 *	- Who has just begun to ask is expected to go on as he began.  So it leaves
 *	  room for that, too: for what others took since the first of them, as much
 *	  again for each such time to the window's end.
 * So who asks for a third of the quota at once, or evenly for four fifths of it,
 * never waits for a backfill, whenever he begins; but of a few permits a part
 * is less.  Two leave one; of a single one nothing can be left: a backfill takes
 * it where nobody has for a whole window.
 *
 * The reserve is left also where nobody has asked for long: he who comes then
 * is the one who must not wait, and what was taken cannot be given back.
 *
 * The clock is the caller's.  Where it goes back, which the system's may, what
 * is remembered goes back with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>

#include "utils/memutils.h"

#include "http/limiter.h"

#define RING_SIZE			1024
#define MAX_RATE_NUMBER		1000000
#define MAX_PAUSE			USECS_PER_HOUR	/* whatever a Retry-After says */
#define LONG_AGO			(PG_INT64_MIN / 2)	/* with room to subtract */
#define WINDOW_MARGIN_SHARE	50
#define WINDOW_MARGIN_MIN	(USECS_PER_SEC / 10)
#define WINDOW_MARGIN_MAX	USECS_PER_SEC
#define BACKFILL_RESERVE	3		/* a backfill leaves one permit in so many */
#define SYNC_RESERVE		6
#define BURST_SHARE			10		/* of what a window gives the background, so much at once */
#define CLAIM_GRACE			USECS_PER_SEC
#define CLAIM_POLL			(USECS_PER_SEC / 10)
#define CLOCK_TOLERANCE		USECS_PER_SEC	/* it is read before the lock */

typedef struct LimiterSlot
{
	bool		used;
	uint8		key[HX_LIMITER_KEY_BYTES];
	uint64		last_used;		/* in asks, not in time */
	TimestampTz last_now;		/* the latest time that anybody gave */
	TimestampTz paused_until;
	TimestampTz claims[HX_PRIORITIES];	/* valid until */
	TimestampTz bucket_empty;	/* when all that was taken has leaked out */
	TimestampTz background_even;	/* when what the background took of a window is no more than its even share */
	int64		taken;
	int64		throttled;
	HxRate		rate;			/* as it was last asked for with */

	/* the sends of a window, oldest first */
	int			first;
	int			entries;
	int64		sends;			/* in all entries */
	TimestampTz times[RING_SIZE];
	uint32		counts[RING_SIZE];
	uint32		backgrounds[RING_SIZE];	/* of these, those of the background */
} LimiterSlot;

typedef struct Limiter
{
	uint64		asks;
	LimiterSlot slots[HX_LIMITER_SLOTS];
} Limiter;

/*
 * Where this process finds the limiter; set by hx_limiter_attach, else made
 * when first needed.  Without a lock it is the process's own.
 */
static struct
{
	Limiter    *limiter;
	LWLock	   *lock;
}			attached;

static bool parse_number(const char **input, int *number);
static bool parse_unit(const char **input, int64 *window_us);
static const char *skip_space(const char *c);
static Limiter *limiter_lock(LWLockMode mode);
static void limiter_unlock(void);
static LimiterSlot *find_slot(Limiter *limiter, const uint8 *key);
static LimiterSlot *obtain_slot(Limiter *limiter, const uint8 *key);
static TimestampTz follow_clock(LimiterSlot *slot, TimestampTz now);
static int64 rate_wait(LimiterSlot *slot, const HxRate *rate, TimestampTz now, HxPriority priority);
static int usable(int permits, HxPriority priority);
static int64 window_wait(LimiterSlot *slot, const HxRate *rate, TimestampTz now, int count);
static int64 others_wait(const LimiterSlot *slot, const HxRate *rate, TimestampTz now);
static int64 even_wait(LimiterSlot *slot, const HxRate *rate, TimestampTz now, int count);
static int64 even_step(const HxRate *rate, int count);
static int64 window_span(const HxRate *rate);
static int64 bucket_step(const HxRate *rate);
static int64 claim_wait(const LimiterSlot *slot, TimestampTz now, HxPriority priority);
static void record_send(LimiterSlot *slot, const HxRate *rate, TimestampTz now, HxPriority priority);
static int64 now_taken(const LimiterSlot *slot, TimestampTz now);
static void copy_stats(const LimiterSlot *slot, TimestampTz now, HxLimiterStats *stats);

/*
 * Reads a rate: '60/min', '10/s', '1000/h' (a window), '2/s burst 50' (a
 * bucket), 'none'.  False: it is none of these, and *rate is as it was.
 */
bool
hx_rate_parse(const char *input, HxRate *rate)
{
	HxRate		parsed = {.kind = HX_RATE_WINDOW};
	const char *c = skip_space(input);

	if (pg_strncasecmp(c, "none", 4) == 0 && *skip_space(c + 4) == '\0')
	{
		memset(rate, 0, sizeof(*rate));
		rate->kind = HX_RATE_NONE;
		return true;
	}
	if (!parse_number(&c, &parsed.count))
		return false;
	c = skip_space(c);
	if (*c != '/')
		return false;
	c = skip_space(c + 1);
	if (!parse_unit(&c, &parsed.window_us))
		return false;
	c = skip_space(c);
	if (pg_strncasecmp(c, "burst", 5) == 0)
	{
		parsed.kind = HX_RATE_BUCKET;
		c = skip_space(c + 5);
		if (!parse_number(&c, &parsed.burst))
			return false;
		c = skip_space(c);
	}
	if (*c != '\0')
		return false;
	*rate = parsed;
	return true;
}

static bool
parse_number(const char **input, int *number)
{
	const char *c = *input;
	int			value = 0;

	for (; *c >= '0' && *c <= '9'; c++)
	{
		value = value * 10 + (*c - '0');
		if (value > MAX_RATE_NUMBER)
			return false;
	}
	*input = c;
	*number = value;
	return value > 0;
}

static bool
parse_unit(const char **input, int64 *window_us)
{
	static const struct
	{
		const char *name;
		int64		us;
	}			units[] = {
		{"s", USECS_PER_SEC}, {"sec", USECS_PER_SEC}, {"second", USECS_PER_SEC},
		{"min", USECS_PER_MINUTE}, {"minute", USECS_PER_MINUTE},
		{"h", USECS_PER_HOUR}, {"hour", USECS_PER_HOUR},
		{"d", USECS_PER_DAY}, {"day", USECS_PER_DAY},
	};
	size_t		len = 0;

	while (isalpha((unsigned char) (*input)[len]))
		len++;
	for (int i = 0; i < lengthof(units); i++)
	{
		if (strlen(units[i].name) == len && pg_strncasecmp(*input, units[i].name, len) == 0)
		{
			*input += len;
			*window_us = units[i].us;
			return true;
		}
	}
	return false;
}

static const char *
skip_space(const char *c)
{
	while (*c == ' ' || *c == '\t')
		c++;
	return c;
}

/* The shared memory that a limiter takes. */
Size
hx_limiter_shmem_size(void)
{
	return MAXALIGN(sizeof(Limiter));
}

/* Prepares a limiter's memory, if nobody has done so before. */
void
hx_limiter_init(void *memory, bool found)
{
	Limiter    *limiter = memory;

	if (found)
		return;
	limiter->asks = 0;
	for (int i = 0; i < HX_LIMITER_SLOTS; i++)
		limiter->slots[i].used = false;
}

/*
 * Names the limiter that this process uses: prepared memory and the lock that
 * protects it.  NULL for both: the process's own, which is also what it uses
 * without this call.
 */
void
hx_limiter_attach(void *memory, LWLock *lock)
{
	Assert((memory == NULL) == (lock == NULL));
	attached.limiter = memory;
	attached.lock = lock;
}

static Limiter *
limiter_lock(LWLockMode mode)
{
	if (attached.limiter == NULL)
	{
		Limiter    *own = MemoryContextAlloc(TopMemoryContext, sizeof(Limiter));

		hx_limiter_init(own, false);
		attached.limiter = own;
	}
	if (attached.lock != NULL)
		LWLockAcquire(attached.lock, mode);
	return attached.limiter;
}

static void
limiter_unlock(void)
{
	if (attached.lock != NULL)
		LWLockRelease(attached.lock);
}

/*
 * Asks for a permit to send one request.  Returns 0 and counts it as sent, or
 * returns the microseconds until it makes sense to ask again.  All who ask for
 * an account are to give the same rate.
 */
int64
hx_limiter_take(const uint8 *key, const HxRate *rate, TimestampTz now, HxPriority priority)
{
	Limiter    *limiter = limiter_lock(LW_EXCLUSIVE);
	LimiterSlot *slot = obtain_slot(limiter, key);
	int64		wait;

	now = follow_clock(slot, now);
	slot->rate = *rate;
	wait = Max(slot->paused_until - now, rate_wait(slot, rate, now, priority));
	if (wait <= 0)
		wait = claim_wait(slot, now, priority);
	if (wait <= 0)
	{
		wait = 0;
		record_send(slot, rate, now, priority);
		slot->claims[priority] = now;
		slot->taken++;
	}
	else
	{
		slot->claims[priority] = now + wait + CLAIM_GRACE;
		slot->throttled++;
	}
	limiter_unlock();
	return wait;
}

/*
 * Lets nobody send for an account until a time, what the remote side asked for
 * with 429 or 503.  Never shortens a pause that is longer.
 */
void
hx_limiter_pause(const uint8 *key, TimestampTz until)
{
	Limiter    *limiter = limiter_lock(LW_EXCLUSIVE);
	LimiterSlot *slot = obtain_slot(limiter, key);

	slot->paused_until = Max(slot->paused_until, until);
	limiter_unlock();
}

/* Ends such a pause: somebody knows better. */
void
hx_limiter_resume(const uint8 *key)
{
	LimiterSlot *slot = find_slot(limiter_lock(LW_EXCLUSIVE), key);

	if (slot != NULL)
		slot->paused_until = LONG_AGO;
	limiter_unlock();
}

/* What is known of an account; false: nothing. */
bool
hx_limiter_stats(const uint8 *key, TimestampTz now, HxLimiterStats *stats)
{
	LimiterSlot *slot = find_slot(limiter_lock(LW_SHARED), key);

	if (slot != NULL)
		copy_stats(slot, now, stats);
	limiter_unlock();
	return slot != NULL;
}

/* The same by number, 0 to HX_LIMITER_SLOTS - 1, to look at all of them. */
bool
hx_limiter_slot(int slot, TimestampTz now, HxLimiterStats *stats)
{
	Limiter    *limiter = limiter_lock(LW_SHARED);
	bool		used = limiter->slots[slot].used;

	if (used)
		copy_stats(&limiter->slots[slot], now, stats);
	limiter_unlock();
	return used;
}

static void
copy_stats(const LimiterSlot *slot, TimestampTz now, HxLimiterStats *stats)
{
	memcpy(stats->key, slot->key, sizeof(stats->key));
	stats->taken = slot->taken;
	stats->throttled = slot->throttled;
	stats->in_window = now_taken(slot, now);
	stats->paused_until = slot->paused_until;
}

/* How much of a window, or of a bucket, is taken; changes nothing. */
static int64
now_taken(const LimiterSlot *slot, TimestampTz now)
{
	int64		taken = 0;

	switch (slot->rate.kind)
	{
		case HX_RATE_NONE:
			break;
		case HX_RATE_WINDOW:
			for (int i = 0; i < slot->entries; i++)
			{
				int			entry = (slot->first + i) % RING_SIZE;

				if (now - slot->times[entry] <= window_span(&slot->rate))
					taken += slot->counts[entry];
			}
			break;
		case HX_RATE_BUCKET:
			if (slot->bucket_empty > now)
				taken = (slot->bucket_empty - now + bucket_step(&slot->rate) - 1) / bucket_step(&slot->rate);
			break;
	}
	return taken;
}

static LimiterSlot *
find_slot(Limiter *limiter, const uint8 *key)
{
	for (int i = 0; i < HX_LIMITER_SLOTS; i++)
	{
		LimiterSlot *slot = &limiter->slots[i];

		if (slot->used && memcmp(slot->key, key, sizeof(slot->key)) == 0)
			return slot;
	}
	return NULL;
}

/* An account's slot: its own, a free one, or the one longest unused. */
static LimiterSlot *
obtain_slot(Limiter *limiter, const uint8 *key)
{
	LimiterSlot *slot = find_slot(limiter, key);

	if (slot == NULL)
	{
		slot = &limiter->slots[0];
		for (int i = 0; i < HX_LIMITER_SLOTS && slot->used; i++)
		{
			LimiterSlot *other = &limiter->slots[i];

			if (!other->used || other->last_used < slot->last_used)
				slot = other;
		}
		memset(slot, 0, offsetof(LimiterSlot, times));
		memcpy(slot->key, key, sizeof(slot->key));
		slot->paused_until = slot->bucket_empty = slot->background_even = slot->last_now = LONG_AGO;
		for (int i = 0; i < HX_PRIORITIES; i++)
			slot->claims[i] = LONG_AGO;
		slot->used = true;
	}
	slot->last_used = ++limiter->asks;
	return slot;
}

/*
 * The time to reckon with: never before one that was given already.  A clock
 * that was set back takes all that is remembered along, so that nobody waits
 * for it to come to where it was.
 */
static TimestampTz
follow_clock(LimiterSlot *slot, TimestampTz now)
{
	if (slot->last_now == LONG_AGO || now >= slot->last_now)
		slot->last_now = now;
	else if (slot->last_now - now > CLOCK_TOLERANCE)
	{
		int64		back = slot->last_now - now;

		for (int i = 0; i < slot->entries; i++)
			slot->times[(slot->first + i) % RING_SIZE] -= back;
		for (int i = 0; i < HX_PRIORITIES; i++)
			slot->claims[i] -= back;
		slot->bucket_empty -= back;
		slot->background_even -= back;
		slot->paused_until -= back;
		slot->last_now = now;
	}
	slot->paused_until = Min(slot->paused_until, slot->last_now + MAX_PAUSE);
	return slot->last_now;
}

/* Microseconds until the rate allows one of this priority one more; not positive: now. */
static int64
rate_wait(LimiterSlot *slot, const HxRate *rate, TimestampTz now, HxPriority priority)
{
	int64		wait;

	switch (rate->kind)
	{
		case HX_RATE_NONE:
			return 0;
		case HX_RATE_WINDOW:
			wait = window_wait(slot, rate, now, usable(rate->count, priority));
			if (priority >= HX_PRIORITY_SYNC)
			{
				wait = Max(wait, even_wait(slot, rate, now, usable(rate->count, priority)));
				wait = Max(wait, others_wait(slot, rate, now));
			}
			return wait;
		case HX_RATE_BUCKET:
			return slot->bucket_empty - now - (usable(rate->burst, priority) - 1) * bucket_step(rate);
	}
	pg_unreachable();
}

/* How many of a window's permits, or of a burst's, a priority may use: not what it leaves to others. */
static int
usable(int permits, HxPriority priority)
{
	int			share = priority == HX_PRIORITY_BACKFILL ? BACKFILL_RESERVE : SYNC_RESERVE;

	if (priority < HX_PRIORITY_SYNC || permits == 1)
		return permits;
	return permits - Max(permits / share, 1);
}

/*
 * How long the background has to wait until there is room beside it for those
 * who have begun to ask, if they go on as they did.
 */
static int64
others_wait(const LimiterSlot *slot, const HxRate *rate, TimestampTz now)
{
	int64		span = window_span(rate);
	TimestampTz since = 0;
	int64		others = 0;
	int64		room = rate->count - 1;
	int64		wait;

	for (int i = 0; i < slot->entries; i++)
	{
		int			entry = (slot->first + i) % RING_SIZE;

		if (others == 0)
			since = slot->times[entry];
		others += slot->counts[entry] - slot->backgrounds[entry];
		room -= slot->backgrounds[entry];
	}
	if (others == 0)
		return 0;

	/* others * span / (now - since) <= room; if not, when it is, or when the next permit comes back */
	wait = slot->times[slot->first] + span + 1 - now;
	if (room > 0)
		wait = Min(wait, (int64) ceil((double) others * span / room) - (now - since));
	return wait;
}

/* How long the background has to wait to take so many permits a window evenly, but for a few at once. */
static int64
even_wait(LimiterSlot *slot, const HxRate *rate, TimestampTz now, int count)
{
	int64		step = even_step(rate, count);
	int			at_once = Max(count / BURST_SHARE, 1);

	/* what is so far ahead is of another rate */
	slot->background_even = Min(slot->background_even, now + 2 * at_once * step);
	return slot->background_even - now - (at_once - 1) * step;
}

/* The time between two of so many permits a window, rounded up. */
static int64
even_step(const HxRate *rate, int count)
{
	return (window_span(rate) + count - 1) / count;
}

/* Forgets what the window has left behind, then looks for room for one of so many in it. */
static int64
window_wait(LimiterSlot *slot, const HxRate *rate, TimestampTz now, int count)
{
	int64		span = window_span(rate);
	int64		surplus;
	int			i;

	while (slot->entries > 0 && now - slot->times[slot->first] > span)
	{
		slot->sends -= slot->counts[slot->first];
		slot->first = (slot->first + 1) % RING_SIZE;
		slot->entries--;
	}

	/* the sends that need to leave the window first */
	surplus = slot->sends + 1 - count;
	if (surplus <= 0)
		return 0;
	for (i = 0; i < slot->entries - 1; i++)
	{
		surplus -= slot->counts[(slot->first + i) % RING_SIZE];
		if (surplus <= 0)
			break;
	}
	return slot->times[(slot->first + i) % RING_SIZE] + span + 1 - now;
}

/* A window and what it is held longer: a fiftieth, at most a second. */
static int64
window_span(const HxRate *rate)
{
	return rate->window_us +
		Min(Max(rate->window_us / WINDOW_MARGIN_SHARE, WINDOW_MARGIN_MIN), WINDOW_MARGIN_MAX);
}

/* What one request adds to the time in which a bucket empties, rounded up. */
static int64
bucket_step(const HxRate *rate)
{
	return (rate->window_us + rate->count - 1) / rate->count;
}

/* While one of a higher priority is expected: a moment, to ask again after. */
static int64
claim_wait(const LimiterSlot *slot, TimestampTz now, HxPriority priority)
{
	int64		wait = 0;

	for (int i = 0; i < (int) priority; i++)
	{
		if (slot->claims[i] > now)
			wait = Max(wait, Min(slot->claims[i] - now, CLAIM_POLL));
	}
	return wait;
}

static void
record_send(LimiterSlot *slot, const HxRate *rate, TimestampTz now, HxPriority priority)
{
	int			last = (slot->first + slot->entries - 1 + RING_SIZE) % RING_SIZE;
	bool		background = priority >= HX_PRIORITY_SYNC;
	uint32		shared;

	if (rate->kind == HX_RATE_BUCKET)
		slot->bucket_empty = Max(slot->bucket_empty, now) + bucket_step(rate);
	if (rate->kind != HX_RATE_WINDOW)
		return;
	if (background)
		slot->background_even = Max(slot->background_even, now) + even_step(rate, usable(rate->count, priority));

	/* how many sends an entry holds so that a full window fits */
	shared = (rate->count + RING_SIZE - 1) / RING_SIZE;
	if (slot->entries > 0 && (slot->counts[last] < shared || slot->entries == RING_SIZE))
	{
		slot->counts[last]++;
		slot->backgrounds[last] += background;
		slot->times[last] = now;
	}
	else
	{
		last = (last + 1) % RING_SIZE;
		slot->times[last] = now;
		slot->counts[last] = 1;
		slot->backgrounds[last] = background;
		slot->entries++;
	}
	slot->sends++;
}
