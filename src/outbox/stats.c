/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  What is counted of each server's deliveries, and its circuit.
 *
 * Shared memory where hubex is preloaded, so that the worker and every CALL
 * hubex_deliver() count into one place; the process's own memory otherwise.
 * Each of them has a circuit of its own (outbox/peers.c); what is seen here is
 * what the last of them said.  The figures begin anew with the server, as those of the
 * cumulative statistics do after a crash; what must not be lost is in the
 * outbox.
 *
 * How long calls take is kept in buckets, eight to each power of two: a
 * quantile read from them is at most 6 % off, however many calls there were.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "http/limiter.h"
#include "outbox/stats.h"

PG_FUNCTION_INFO_V1(hubex_server_stats);
PG_FUNCTION_INFO_V1(hubex_stat_reset);

#define MAX_SERVERS		256		/* of all databases; the one longest unused is forgotten */
#define MINUTES			60
#define SUB_BITS		3		/* 2^3 buckets to a power of two */
#define LONGEST_BITS	31		/* 2^31 us, 35 minutes, and all above */
#define BUCKETS			((LONGEST_BITS - SUB_BITS + 2) << SUB_BITS)

typedef struct ServerStats
{
	Oid			database;		/* InvalidOid: free */
	Oid			server;
	uint64		used;			/* when it was last used, by the count of uses */
	TimestampTz since;
	TimestampTz last_error_at;	/* 0: none */
	HxCircuit	circuit;
	bool		has_key;
	uint8		key[HX_LIMITER_KEY_BYTES];	/* of the account last used */
	int64		counts[HX_STATS];
	int64		minutes[MINUTES];	/* the minute that each of these is of */
	int64		delivered[MINUTES];
	uint64		latency[BUCKETS];
} ServerStats;

typedef struct Stats
{
	uint64		uses;
	ServerStats servers[MAX_SERVERS];
} Stats;

/* Where this process counts; without a lock it is memory of its own. */
static struct
{
	Stats	   *stats;
	LWLock	   *lock;
	int			recent;			/* the server last looked for */
}			attached;

Size
hx_stats_shmem_size(void)
{
	return MAXALIGN(sizeof(Stats));
}

void
hx_stats_shmem_init(void *memory, bool found, LWLock *lock)
{
	if (!found)
		memset(memory, 0, sizeof(Stats));
	attached.stats = memory;
	attached.lock = lock;
}

static Stats *
lock_stats(LWLockMode mode)
{
	if (attached.stats == NULL)
		attached.stats = MemoryContextAllocZero(TopMemoryContext, sizeof(Stats));
	if (attached.lock != NULL)
		LWLockAcquire(attached.lock, mode);
	return attached.stats;
}

static void
unlock_stats(void)
{
	if (attached.lock != NULL)
		LWLockRelease(attached.lock);
}

static bool
is_of(const ServerStats *entry, Oid server)
{
	return entry->database == MyDatabaseId && entry->server == server;
}

/* The entry of a server, made where there is none; the caller holds the lock. */
static ServerStats *
entry_of(Stats *stats, Oid server)
{
	ServerStats *entry = &stats->servers[attached.recent];

	if (!is_of(entry, server))
	{
		ServerStats *oldest = &stats->servers[0];

		for (entry = stats->servers; entry < stats->servers + MAX_SERVERS && !is_of(entry, server); entry++)
			if (oldest->database != InvalidOid && (entry->database == InvalidOid || entry->used < oldest->used))
				oldest = entry;
		if (entry == stats->servers + MAX_SERVERS)
		{
			entry = oldest;
			memset(entry, 0, sizeof(ServerStats));
			entry->database = MyDatabaseId;
			entry->server = server;
			entry->since = GetCurrentTimestamp();
		}
		attached.recent = entry - stats->servers;
	}
	entry->used = ++stats->uses;
	return entry;
}

static void
count_delivered(ServerStats *entry, int64 n)
{
	int64		minute = GetCurrentTimestamp() / USECS_PER_MINUTE;
	int			place = minute % MINUTES;

	if (entry->minutes[place] != minute)
	{
		entry->minutes[place] = minute;
		entry->delivered[place] = 0;
	}
	entry->delivered[place] += n;
}

/* Counts n of something. */
void
hx_stats_add(Oid server, HxStat stat, int64 n)
{
	ServerStats *entry = entry_of(lock_stats(LW_EXCLUSIVE), server);

	entry->counts[stat] += n;
	if (stat == HX_STAT_DELIVERED)
		count_delivered(entry, n);
	if (stat == HX_STAT_FAILED || stat == HX_STAT_DEAD)
		entry->last_error_at = GetCurrentTimestamp();
	unlock_stats();
}

/* The bucket of a time, and the middle of a bucket's times. */
static int
bucket_of(int64 us)
{
	uint64		value = Min(Max(us, 0), (INT64CONST(1) << (LONGEST_BITS + 1)) - 1);
	int			top;

	if (value < (1 << SUB_BITS))
		return (int) value;
	top = pg_leftmost_one_pos64(value);
	return ((top - SUB_BITS + 1) << SUB_BITS) + (int) ((value >> (top - SUB_BITS)) & ((1 << SUB_BITS) - 1));
}

static double
middle_of(int bucket)
{
	int			shift = (bucket >> SUB_BITS) - 1;
	uint64		low;

	if (shift < 0)
		return bucket;
	low = (uint64) ((1 << SUB_BITS) + (bucket & ((1 << SUB_BITS) - 1))) << shift;
	return low + ((UINT64CONST(1) << shift) - 1) / 2.0;
}

/* Notes how long a call took, from its start to the end of its answer. */
void
hx_stats_latency(Oid server, int64 us)
{
	ServerStats *entry = entry_of(lock_stats(LW_EXCLUSIVE), server);

	entry->latency[bucket_of(us)]++;
	unlock_stats();
}

/* Ends the pause that a server's remote account asked for. */
void
hx_stats_end_pause(Oid server)
{
	ServerStats *entry = entry_of(lock_stats(LW_EXCLUSIVE), server);
	bool		has_key = entry->has_key;
	uint8		key[HX_LIMITER_KEY_BYTES];

	memcpy(key, entry->key, sizeof(key));
	unlock_stats();
	if (has_key)
		hx_limiter_resume(key);
}

/* Notes the remote account a server is delivered to with, by its key: for its quota. */
void
hx_stats_account(Oid server, const uint8 *key)
{
	ServerStats *entry = entry_of(lock_stats(LW_EXCLUSIVE), server);

	memcpy(entry->key, key, sizeof(entry->key));
	entry->has_key = true;
	unlock_stats();
}

void
hx_stats_circuit_set(Oid server, const HxCircuit *circuit)
{
	entry_of(lock_stats(LW_EXCLUSIVE), server)->circuit = *circuit;
	unlock_stats();
}

static int64
delivered_last_hour(const ServerStats *entry)
{
	int64		minute = GetCurrentTimestamp() / USECS_PER_MINUTE;
	int64		sum = 0;

	for (int i = 0; i < MINUTES; i++)
		if (entry->minutes[i] > minute - MINUTES)
			sum += entry->delivered[i];
	return sum;
}

/* The time in ms that a share of all calls took at most. */
static Datum
quantile(const ServerStats *entry, double share, bool *isnull)
{
	uint64		total = 0;
	uint64		wanted;
	uint64		seen = 0;
	int			bucket = 0;

	for (int i = 0; i < BUCKETS; i++)
		total += entry->latency[i];
	*isnull = total == 0;
	if (*isnull)
		return (Datum) 0;
	wanted = Max((uint64) (share * total + 0.999999), 1);
	while (bucket < BUCKETS - 1 && (seen += entry->latency[bucket]) < wanted)
		bucket++;
	return Float8GetDatum(middle_of(bucket) / 1000.0);
}

static Datum
time_or_null(TimestampTz time, bool *isnull)
{
	*isnull = time == 0;
	return TimestampTzGetDatum(time);
}

/*
 * hubex.server_stats() -> a row for each server of this database of which
 * something is known.
 */
Datum
hubex_server_stats(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {
		[HX_CIRCUIT_CLOSED] = "closed",
		[HX_CIRCUIT_OPEN] = "open",
		[HX_CIRCUIT_HALF_OPEN] = "half_open"
	};
	enum
	{
		COLUMNS = 22
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Stats	   *copy = palloc(sizeof(Stats));
	TimestampTz now = GetCurrentTimestamp();

	InitMaterializedSRF(fcinfo, 0);
	memcpy(copy, lock_stats(LW_SHARED), sizeof(Stats));
	unlock_stats();
	for (const ServerStats *entry = copy->servers; entry < copy->servers + MAX_SERVERS; entry++)
	{
		Datum		values[COLUMNS] = {0};
		bool		nulls[COLUMNS] = {false};
		HxLimiterStats quota;
		int			c = 0;

		if (entry->database != MyDatabaseId)
			continue;
		values[c++] = ObjectIdGetDatum(entry->server);
		for (int i = 0; i < HX_STAT_THROTTLED_US; i++)
			values[c++] = Int64GetDatum(entry->counts[i]);
		values[c++] = Float8GetDatum(entry->counts[HX_STAT_THROTTLED_US] / 1000.0);
		values[c++] = Int64GetDatum(delivered_last_hour(entry));
		values[c] = quantile(entry, 0.50, &nulls[c]);
		c++;
		values[c] = quantile(entry, 0.95, &nulls[c]);
		c++;
		values[c] = quantile(entry, 0.99, &nulls[c]);
		c++;
		values[c++] = CStringGetTextDatum(states[entry->circuit.state]);
		values[c] = time_or_null(entry->circuit.since, &nulls[c]);
		c++;
		values[c] = time_or_null(entry->circuit.until, &nulls[c]);
		c++;
		values[c++] = Int32GetDatum(entry->circuit.failures);
		values[c] = time_or_null(entry->last_error_at, &nulls[c]);
		c++;
		if (entry->has_key && hx_limiter_stats(entry->key, now, &quota))
		{
			values[c++] = Int64GetDatum(quota.in_window);
			nulls[c] = quota.paused_until <= now;
			values[c++] = TimestampTzGetDatum(quota.paused_until);
		}
		else
		{
			nulls[c++] = true;
			nulls[c++] = true;
		}
		values[c++] = TimestampTzGetDatum(entry->since);
		Assert(c == COLUMNS);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* hubex_stat_reset(): counts this database's servers anew; circuits stay. */
Datum
hubex_stat_reset(PG_FUNCTION_ARGS)
{
	Stats	   *stats = lock_stats(LW_EXCLUSIVE);
	TimestampTz now = GetCurrentTimestamp();

	for (ServerStats *entry = stats->servers; entry < stats->servers + MAX_SERVERS; entry++)
	{
		if (entry->database != MyDatabaseId)
			continue;
		entry->since = now;
		entry->last_error_at = 0;
		memset(entry->counts, 0, sizeof(ServerStats) - offsetof(ServerStats, counts));
	}
	unlock_stats();
	PG_RETURN_VOID();
}
