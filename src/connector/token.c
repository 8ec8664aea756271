/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Access tokens, one for all processes of the server.
 *
 * A sign-in costs a request of a quota of sixty a minute, so there is one
 * token per remote account for the whole server, in shared memory, and one
 * process at a time that signs in for it.  Who finds the token absent, refused
 * or near its end becomes the one; near its end the others go on with the old
 * token meanwhile, else they wait.
 *
 * An account is known by a hash over its address and credentials, so a
 * changed user mapping never gets the old token, and two databases that use
 * the same account share one.
 *
 * The signer is known by its process id, which is cleared when it stores a
 * token, gives up, or exits; a process that vanishes without exiting (kill -9)
 * makes the postmaster start over with fresh shared memory.  So nobody waits
 * for a signer that is gone, and no time-out has to guess.
 *
 * Without shared memory the same slots live in the process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "connector/token.h"

#define TOKEN_SLOTS		32
#define TOKEN_SLOTS_PER_PROCESS 4
#define LONGEST_LIFE	(INT64CONST(10) * 366 * 24 * 3600)	/* seconds, whatever a peer says */

typedef struct TokenSlot
{
	bool		used;
	uint8		key[HX_TOKEN_KEY_LEN];
	uint64		version;		/* counts sign-ins; 0: none yet */
	bool		valid;
	TimestampTz renew_at;
	TimestampTz expires_at;
	int			signer;			/* process that signs in, 0: none */
	TimestampTz last_used;
	char		text[HX_TOKEN_MAX];
} TokenSlot;

typedef struct TokenStore
{
	int			nslots;
	uint64		versions;		/* last version given out, over all slots */
	TokenSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} TokenStore;

/* The store and its lock; without preload a store of the process, no lock. */
static TokenStore *store = NULL;
static LWLock *store_lock = NULL;
static bool exit_registered = false;

/* Bytes of shared memory the store takes. */
Size
hx_token_shmem_size(void)
{
	return offsetof(TokenStore, slots) + TOKEN_SLOTS * sizeof(TokenSlot);
}

/* Sets the store up in shared memory. */
void
hx_token_shmem_init(void *memory, bool found, LWLock *lock)
{
	store = memory;
	store_lock = lock;
	if (!found)
	{
		memset(store, 0, hx_token_shmem_size());
		store->nslots = TOKEN_SLOTS;
	}
}

static void
lock_store(void)
{
	if (store == NULL)
	{
		store = MemoryContextAllocZero(TopMemoryContext, offsetof(TokenStore, slots) +
									   TOKEN_SLOTS_PER_PROCESS * sizeof(TokenSlot));
		store->nslots = TOKEN_SLOTS_PER_PROCESS;
	}
	if (store_lock != NULL)
		LWLockAcquire(store_lock, LW_EXCLUSIVE);
}

static void
unlock_store(void)
{
	if (store_lock != NULL)
		LWLockRelease(store_lock);
}

/* Ends all sign-ins of this process without a token. */
void
hx_token_give_up_all(void)
{
	lock_store();
	for (int i = 0; i < store->nslots; i++)
		if (store->slots[i].signer == MyProcPid)
			store->slots[i].signer = 0;
	unlock_store();
}

/* A process that exits signs in for nobody any more. */
static void
forget_signer(int code, Datum arg)
{
	hx_token_give_up_all();
}

/*
 * The slot of an account; the longest unused one is given to a new account.
 * NULL where every slot is being signed in for.  The caller holds the lock.
 */
static TokenSlot *
find_slot(const uint8 *key)
{
	TokenSlot  *oldest = NULL;

	for (int i = 0; i < store->nslots; i++)
	{
		TokenSlot  *slot = &store->slots[i];

		if (slot->used && memcmp(slot->key, key, HX_TOKEN_KEY_LEN) == 0)
			return slot;
		if (slot->signer == 0 &&
			(oldest == NULL || !slot->used || (oldest->used && slot->last_used < oldest->last_used)))
			oldest = slot;
	}
	if (oldest != NULL)
	{
		explicit_bzero(oldest, sizeof(TokenSlot));
		oldest->used = true;
		memcpy(oldest->key, key, HX_TOKEN_KEY_LEN);
	}
	return oldest;
}

/*
 * Asks for the token of an account.  READY gives it, palloc'd.  SIGN_IN makes
 * this process the signer, which must call hx_token_store() or
 * hx_token_give_up(), whatever happens.
 */
HxTokenAnswer
hx_token_take(const uint8 *key, HxToken *token)
{
	TimestampTz now = GetCurrentTimestamp();
	HxTokenAnswer answer;
	TokenSlot  *slot;
	char	   *copy = palloc(HX_TOKEN_MAX);	/* nothing may throw under the lock */

	if (!exit_registered)
	{
		before_shmem_exit(forget_signer, (Datum) 0);
		exit_registered = true;
	}

	lock_store();
	slot = find_slot(key);
	if (slot == NULL)
		answer = HX_TOKEN_WAIT;
	else
	{
		bool		usable = slot->valid && now < slot->expires_at;

		slot->last_used = now;
		if (usable && (now < slot->renew_at || slot->signer != 0))
		{
			answer = HX_TOKEN_READY;
			strlcpy(copy, slot->text, HX_TOKEN_MAX);
			token->version = slot->version;
		}
		else if (slot->signer == 0 || slot->signer == MyProcPid)
		{
			answer = slot->signer == 0 ? HX_TOKEN_SIGN_IN : HX_TOKEN_WAIT;
			slot->signer = MyProcPid;
		}
		else
			answer = HX_TOKEN_WAIT;
	}
	unlock_store();

	if (answer == HX_TOKEN_READY)
		token->text = copy;
	else
		pfree(copy);
	return answer;
}

/*
 * Stores what a sign-in gave.  It is renewed renew_before seconds ahead of
 * its end, at the latest at half its life.
 */
void
hx_token_store(const uint8 *key, const char *text, int64 life_seconds, int64 renew_before)
{
	TimestampTz now = GetCurrentTimestamp();
	TokenSlot  *slot;

	Assert(strlen(text) < HX_TOKEN_MAX);
	life_seconds = Min(life_seconds, LONGEST_LIFE);
	if (renew_before > life_seconds / 2)
		renew_before = life_seconds / 2;

	lock_store();
	slot = find_slot(key);
	if (slot != NULL)
	{
		strlcpy(slot->text, text, HX_TOKEN_MAX);
		slot->version = ++store->versions;
		slot->valid = true;
		slot->renew_at = now + (life_seconds - renew_before) * USECS_PER_SEC;
		slot->expires_at = now + life_seconds * USECS_PER_SEC;
		if (slot->signer == MyProcPid)
			slot->signer = 0;
	}
	unlock_store();
}

/* Ends this process's sign-in for an account without a token. */
void
hx_token_give_up(const uint8 *key)
{
	TokenSlot  *slot;

	lock_store();
	slot = find_slot(key);
	if (slot != NULL && slot->signer == MyProcPid)
		slot->signer = 0;
	unlock_store();
}

/*
 * The remote system refused a token of this version.  If it is still the one
 * in the store, it is not given out any more; a newer one stays.
 */
void
hx_token_refuse(const uint8 *key, uint64 version)
{
	TokenSlot  *slot;

	lock_store();
	slot = find_slot(key);
	if (slot != NULL && slot->version == version)
		slot->valid = false;
	unlock_store();
}
