/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  The delivery of the outbox: many requests in flight, no transaction open.
 *
 * One object, one loop: hx_delivery_step() does what can be done now and says
 * when it wants to be called again; hx_delivery_wait() sleeps on the latch and
 * the sockets until then.  The worker and CALL hubex_deliver() are two thin
 * callers that differ only in how a transaction is begun and committed.
 *
 * A step is: collect the transfers that ended, judge them (answer.c); in one
 * transaction record what became of them and claim what is due; start the
 * transfers of what is ready.  Between claim and record lies the network, and
 * no transaction.
 *
 * An item, one claimed request, moves like this:
 *
 *	 SEND -> SENDING -> done			answered, refused or to be retried
 *	  ^  \_____/  \						(a 401 renews the token, once)
 *	  |			   v
 *	 LOOK_UP -> LOOKING_UP -> done		found there; or SEND if it is not
 *
 * An item's memory hangs below its batch's, the requests claimed together,
 * which goes when its last item is done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "base/owner.h"
#include "base/shared.h"
#include "compat.h"
#include "connector/token.h"
#include "outbox/outbox.h"

#define MAX_ITEMS			128 /* in flight over all servers */
#define MAX_BYTES			(32 * 1024 * 1024)	/* of large bodies in flight to a server, but for one */
#define MAX_ANSWER			(16 * 1024 * 1024)	/* it is kept in the outbox */
#define LOOK_UP_POLL_MS		1000	/* no quota to look up with */
#define LOOK_EVERY_MS		5000	/* even if nobody wakes us */
#define RECOVER_EVERY_MS	2000	/* look for dead claimants */
#define TOKEN_POLL_MS		20	/* another process is signing in */
#define ERROR_PAUSE_MS		1000	/* after a failed transaction */
#define SIGN_IN_PAUSE_MS	5000	/* after a sign-in that failed */

/* Requests claimed together; owns their memory. */
typedef struct Batch
{
	MemoryContext context;
	int			items;
	List	   *accounts;		/* of BatchAccount * */
} Batch;

typedef struct BatchAccount
{
	char	   *server;
	char	   *owner;
	HxAccount  *account;		/* NULL: could not be opened */
	char	   *problem;
} BatchAccount;

typedef enum ItemPhase
{
	ITEM_SEND,
	ITEM_SENDING,
	ITEM_LOOK_UP,
	ITEM_LOOKING_UP,
	ITEM_DONE
} ItemPhase;

typedef struct DeliveryItem
{
	ItemPhase	phase;
	Batch	   *batch;
	HxRequest  *request;
	HxAccount  *account;
	HxTransfer *transfer;
	uint64		token_version;
	bool		sent;			/* since it was claimed */
	bool		renewed;		/* a 401 was answered by a new token already */
	bool		signs_in;		/* this transfer is a sign-in, for the item's account */
	HxOutcome	outcome;
} DeliveryItem;

struct HxDelivery
{
	MemoryContext context;
	const HxTransactions *transactions;
	char	   *only_server;
	HxHttpPool *pool;
	int64		claimant;		/* 0: none yet */
	MemoryContextCallback at_end;
	List	   *items;			/* of DeliveryItem *: claimed and not recorded */
	List	   *sign_ins;		/* of DeliveryItem *: sign-ins under way */
	List	   *throttled;		/* of Pause *: servers without quota */
	bool		look;			/* something may be due */
	TimestampTz next_due;		/* 0: nothing known */
	TimestampTz next_look;
	TimestampTz next_recovery;
	bool		stopping;		/* nothing more is claimed */
	Oid			outbox;			/* the table claimed from first */
	bool		gone;			/* the extension is not here any more, or is another */
	MemoryContext unfinished;	/* of a batch whose claim has not committed */
};

typedef struct Pause
{
	char	   *server;
	TimestampTz until;
} Pause;

/* The end of a delivery: others may recover its requests and sign in. */
static void
release_delivery(void *arg)
{
	HxDelivery *delivery = arg;

	if (MyProc == NULL)
		return;
	if (delivery->claimant != 0)
		hx_outbox_end_claimant(delivery->outbox, delivery->claimant);
	delivery->claimant = 0;
	hx_token_give_up_all();
}

/*
 * Makes a delivery in the current context, whose end releases everything,
 * what is in flight included: that is then recovered as of a dead process.
 */
HxDelivery *
hx_delivery_create(const HxTransactions *transactions, const char *only_server)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "hubex delivery", ALLOCSET_DEFAULT_SIZES);
	HxDelivery *delivery = MemoryContextAllocZero(context, sizeof(HxDelivery));

	delivery->context = context;
	delivery->transactions = transactions;
	delivery->only_server = only_server ? MemoryContextStrdup(context, only_server) : NULL;
	delivery->look = true;
	delivery->at_end.func = release_delivery;
	delivery->at_end.arg = delivery;
	MemoryContextRegisterResetCallback(context, &delivery->at_end);
	delivery->pool = hx_http_pool_create(context);
	return delivery;
}

/* Has the extension gone from the database? */
bool
hx_delivery_gone(const HxDelivery *delivery)
{
	return delivery->gone;
}

/* Is nothing in flight? */
bool
hx_delivery_idle(const HxDelivery *delivery)
{
	return delivery->items == NIL;
}

/* From now on nothing more is taken up; what is in flight is brought to its end. */
void
hx_delivery_stop_claiming(HxDelivery *delivery)
{
	delivery->stopping = true;
}

/* Sleeps until the latch, a socket or the time calls. */
void
hx_delivery_wait(HxDelivery *delivery, int64 milliseconds)
{
	static uint32 event = 0;

	if (event == 0)
		event = hx_wait_event("HubexDelivery");
	if (hx_http_wait(delivery->pool, (long) milliseconds, event) & WL_LATCH_SET)
		delivery->look = true;
}

/* May what the item asks for have been done unseen? */
static bool
is_uncertain(const DeliveryItem *item)
{
	return item->request->uncertain || (item->sent && item->request->creates);
}

/* Puts an item back; if it was not sent, as it was. */
static void
put_back(DeliveryItem *item, int64 wait_ms, const char *why)
{
	MemoryContext old = MemoryContextSwitchTo(item->batch->context);

	item->outcome.verdict = item->sent ? HX_RETRY : HX_RETURNED;
	item->outcome.uncertain = is_uncertain(item);
	item->outcome.next_attempt_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	if (why != NULL)
		item->outcome.error = pstrdup(why);
	item->phase = ITEM_DONE;
	MemoryContextSwitchTo(old);
}

/* Ends an attempt that could not go on. */
static void
fail_attempt(DeliveryItem *item, const char *why, int64 retry_after_ms)
{
	MemoryContext old = MemoryContextSwitchTo(item->batch->context);

	item->outcome.verdict = HX_RETRY;
	item->outcome.uncertain = is_uncertain(item);
	item->outcome.error = pstrdup(why);
	item->outcome.next_attempt_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									hx_outbox_backoff_ms(item->account ? item->account->manifest : NULL,
														 item->request->attempts, retry_after_ms, 0.5));
	item->phase = ITEM_DONE;
	MemoryContextSwitchTo(old);
}

/*
 * The account to send a request from, opened once for all requests of a batch
 * with one server and owner.  What cannot be opened (a mapping that is
 * missing, say) fails the attempt, not the request: the DBA can mend it.
 */
static BatchAccount *
batch_account(Batch *batch, const HxRequest *request)
{
	BatchAccount *entry;
	ListCell   *cell;
	Oid			role;

	foreach(cell, batch->accounts)
	{
		entry = lfirst(cell);
		if (strcmp(entry->server, request->server) == 0 && strcmp(entry->owner, request->owner) == 0)
			return entry;
	}

	entry = palloc0(sizeof(BatchAccount));
	entry->server = request->server;
	entry->owner = request->owner;
	batch->accounts = lappend(batch->accounts, entry);
	role = get_role_oid(request->owner, true);
	if (!OidIsValid(role))
		entry->problem = psprintf("role \"%s\" does not exist any more", request->owner);
	else
		entry->account = hx_account_try_open(request->server, role, &entry->problem);
	return entry;
}

/* How many more requests of a server may be taken now. */
static int
free_room(HxDelivery *delivery, const HxRoom *room, TimestampTz now)
{
	int			room_left = room->free;
	int			allowed = room->free;
	ListCell   *cell;

	if (delivery->stopping)
		return 0;
	if (delivery->only_server != NULL && strcmp(delivery->only_server, room->server) != 0)
		return 0;
	foreach(cell, delivery->throttled)
	{
		Pause	   *pause = lfirst(cell);

		if (strcmp(pause->server, room->server) == 0)
		{
			if (pause->until > now)
				return 0;
			allowed = 1;		/* feel the way back, whatever is in flight still */
		}
	}
	foreach(cell, delivery->items)
	{
		DeliveryItem *item = lfirst(cell);

		if (item->phase != ITEM_DONE && strcmp(item->request->server, room->server) == 0)
			room_left--;
	}
	return Max(Min(room_left, allowed), 0);
}

/* The size of the large bodies in flight to a server. */
static int64
large_bytes(HxDelivery *delivery, const char *server)
{
	int64		bytes = 0;
	ListCell   *cell;

	foreach(cell, delivery->items)
	{
		DeliveryItem *item = lfirst(cell);

		if (item->phase != ITEM_DONE && strcmp(item->request->server, server) == 0 &&
			item->request->bytes > HX_REQUEST_SMALL_BYTES)
			bytes += item->request->bytes;
	}
	return bytes;
}

/* Claims what is due, in the open transaction; the items start as SEND. */
static List *
claim(HxDelivery *delivery, Batch *batch)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *servers = hx_outbox_servers();
	HxRoom	   *rooms = palloc(sizeof(HxRoom) * Max(list_length(servers), 1));
	List	   *claimed = NIL;
	int			nrooms = 0;
	int			in_all = MAX_ITEMS;
	ListCell   *cell;

	/* What is being recorded makes room already. */
	foreach(cell, delivery->items)
		if (((DeliveryItem *) lfirst(cell))->phase != ITEM_DONE)
			in_all--;
	foreach(cell, servers)
	{
		HxRoom	   *room = lfirst(cell);

		room->free = Min(free_room(delivery, room, now), in_all);
		room->bytes = MAX_BYTES - large_bytes(delivery, room->server);
		if (room->free > 0)
			rooms[nrooms++] = *room;
	}
	if (nrooms == 0)
		return NIL;

	foreach(cell, hx_outbox_claim(delivery->claimant, rooms, nrooms, in_all))
	{
		DeliveryItem *item = palloc0(sizeof(DeliveryItem));
		BatchAccount *entry;

		item->batch = batch;
		item->request = lfirst(cell);
		item->outcome.id = item->request->id;
		item->outcome.uncertain = item->request->uncertain;
		entry = batch_account(batch, item->request);
		item->account = entry->account;
		batch->items++;
		if (item->account == NULL)
			fail_attempt(item, entry->problem, -1);
		else if (item->request->creates && !hx_outbox_can_create(item->account, item->request))
			fail_attempt(item, "the connector does not say any more how a record of this resource is created", -1);
		else if (item->request->uncertain && hx_outbox_can_look_up(item->account, item->request))
			item->phase = ITEM_LOOK_UP;
		claimed = lappend(claimed, item);
	}
	return claimed;
}

/* Takes recorded items out of the list, and their batches with the last. */
static void
drop_recorded(HxDelivery *delivery, List *recorded)
{
	ListCell   *cell;

	foreach(cell, recorded)
	{
		DeliveryItem *item = lfirst(cell);
		Batch	   *batch = item->batch;

		delivery->items = list_delete_ptr(delivery->items, item);
		if (--batch->items == 0)
			MemoryContextDelete(batch->context);
	}
}

/* The items that are done, and their outcomes. */
static List *
done_items(HxDelivery *delivery, List **outcomes)
{
	List	   *done = NIL;
	ListCell   *cell;

	*outcomes = NIL;
	foreach(cell, delivery->items)
	{
		DeliveryItem *item = lfirst(cell);

		if (item->phase == ITEM_DONE)
		{
			done = lappend(done, item);
			*outcomes = lappend(*outcomes, &item->outcome);
		}
	}
	return done;
}

/*
 * The one transaction of a step: records what is done, recovers what the dead
 * left behind, claims what is due.  After its commit, and only then, the
 * claimed may be sent and the recorded are forgotten.
 */
static void
record_and_claim(HxDelivery *delivery)
{
	MemoryContext here = CurrentMemoryContext;
	MemoryContext batch_context = AllocSetContextCreate(delivery->context, "hubex batch", ALLOCSET_SMALL_SIZES);
	Batch	   *batch = MemoryContextAllocZero(batch_context, sizeof(Batch));
	TimestampTz now = GetCurrentTimestamp();
	List	   *outcomes;
	List	   *recorded = done_items(delivery, &outcomes);
	List	   *claimed = NIL;
	TimestampTz due = 0;
	Oid			relation;
	Oid			owner;

	delivery->unfinished = batch_context;
	batch->context = batch_context;
	delivery->transactions->begin();
	if (!hx_owner_table("outbox", &relation, &owner) ||
		(OidIsValid(delivery->outbox) && delivery->outbox != relation))
	{
		delivery->gone = true;
		delivery->transactions->commit();
		MemoryContextSwitchTo(here);
		return;
	}
	delivery->outbox = relation;
	if (delivery->claimant == 0)
	{
		delivery->claimant = hx_outbox_new_claimant(relation);
		delivery->next_recovery = 0;
	}
	if (outcomes != NIL)
		hx_outbox_record(delivery->claimant, outcomes);
	if (now >= delivery->next_recovery)
	{
		int64		recovered = hx_outbox_recover(relation, delivery->claimant);

		if (recovered > 0)
			ereport(LOG,
					(errmsg("hubex recovered " INT64_FORMAT " requests that were in flight when their sender ended", recovered)));
		delivery->next_recovery = TimestampTzPlusMilliseconds(now, RECOVER_EVERY_MS);
	}
	MemoryContextSwitchTo(batch_context);
	claimed = claim(delivery, batch);
	MemoryContextSwitchTo(here);
	if (!hx_outbox_next_due(delivery->only_server, &due))
		due = 0;
	delivery->transactions->commit();
	MemoryContextSwitchTo(here);

	if (recorded != NIL && hx_shared() != NULL)
		ConditionVariableBroadcast(&hx_shared()->delivered);
	drop_recorded(delivery, recorded);

	{
		MemoryContext old = MemoryContextSwitchTo(delivery->context);

		delivery->items = list_concat(delivery->items, claimed);
		MemoryContextSwitchTo(old);
	}
	if (claimed == NIL)
		MemoryContextDelete(batch_context);
	delivery->unfinished = NULL;

	/*
	 * All that is due and had room is claimed.  What comes next is announced
	 * by a commit, by the end of an item, or by its time.
	 */
	delivery->look = false;
	delivery->next_due = due;
	delivery->next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_EVERY_MS);
}

/* Notes that a server has no quota for a while. */
static void
note_pause(HxDelivery *delivery, const char *server, int64 wait_us)
{
	MemoryContext old = MemoryContextSwitchTo(delivery->context);
	TimestampTz until = GetCurrentTimestamp() + wait_us;
	Pause	   *pause = NULL;
	ListCell   *cell;

	foreach(cell, delivery->throttled)
		if (strcmp(((Pause *) lfirst(cell))->server, server) == 0)
			pause = lfirst(cell);
	if (pause == NULL)
	{
		pause = palloc(sizeof(Pause));
		pause->server = pstrdup(server);
		delivery->throttled = lappend(delivery->throttled, pause);
	}
	pause->until = until;
	MemoryContextSwitchTo(old);
}

/* The quota had room: the server is not throttled any more, so more is claimed. */
static void
forget_pause(HxDelivery *delivery, const char *server)
{
	ListCell   *cell;

	foreach(cell, delivery->throttled)
	{
		Pause	   *pause = lfirst(cell);

		if (strcmp(pause->server, server) == 0)
		{
			delivery->throttled = foreach_delete_current(delivery->throttled, cell);
			pfree(pause->server);
			pfree(pause);
			delivery->look = true;
		}
	}
}

/* Is a sign-in for this account under way here? */
static bool
signing_in(HxDelivery *delivery, const HxAccount *account)
{
	ListCell   *cell;

	foreach(cell, delivery->sign_ins)
		if (memcmp(((DeliveryItem *) lfirst(cell))->account->key, account->key, HX_ACCOUNT_KEY_LEN) == 0)
			return true;
	return false;
}

/*
 * Starts the sign-in for an item's account.  What cannot be started leaves the
 * signer's part to others.
 */
static void
start_sign_in(HxDelivery *delivery, DeliveryItem *item)
{
	MemoryContext old = MemoryContextSwitchTo(delivery->context);
	DeliveryItem *sign_in = palloc0(sizeof(DeliveryItem));

	sign_in->signs_in = true;
	sign_in->account = item->account;
	sign_in->batch = item->batch;
	MemoryContextSwitchTo(item->batch->context);
	PG_TRY();
	{
		sign_in->transfer = hx_http_start(delivery->pool, hx_sign_in_request(item->account), sign_in);
	}
	PG_CATCH();
	{
		pfree(sign_in);
		hx_token_give_up(item->account->key);
		PG_RE_THROW();
	}
	PG_END_TRY();
	item->batch->items++;		/* the account's memory stays until we are done */
	MemoryContextSwitchTo(delivery->context);
	delivery->sign_ins = lappend(delivery->sign_ins, sign_in);
	MemoryContextSwitchTo(old);
}

/*
 * Starts what an item is ready for, if there is a token and quota.  Returns
 * the milliseconds after which to try again, 0 if it was started, is done or
 * will be called for.
 */
static int64
start_item(HxDelivery *delivery, DeliveryItem *item)
{
	MemoryContext old;
	HxToken		token = {0, NULL};
	HxHttpRequest *request;
	HxCall	   *call;
	int64		wait_us;

	old = MemoryContextSwitchTo(item->batch->context);

	if (hx_sign_in_needed(item->account))
	{
		if (signing_in(delivery, item->account))
		{
			MemoryContextSwitchTo(old);
			return 0;
		}
		switch (hx_token_take(item->account->key, &token))
		{
			case HX_TOKEN_READY:
				break;
			case HX_TOKEN_SIGN_IN:
				wait_us = hx_limiter_take(item->account->key, &item->account->rate,
										  GetCurrentTimestamp(), HX_PRIORITY_DELIVERY);
				if (wait_us > 0)
				{
					hx_token_give_up(item->account->key);
					put_back(item, wait_us / 1000 + 1, NULL);
					note_pause(delivery, item->request->server, wait_us);
				}
				else
					start_sign_in(delivery, item);
				MemoryContextSwitchTo(old);
				return 0;
			case HX_TOKEN_WAIT:
				MemoryContextSwitchTo(old);
				return TOKEN_POLL_MS;
		}
	}

	wait_us = hx_limiter_take(item->account->key, &item->account->rate, GetCurrentTimestamp(), HX_PRIORITY_DELIVERY);
	if (wait_us > 0 && item->phase == ITEM_LOOK_UP && !delivery->stopping)
	{
		/* What has been sent is brought to its end first. */
		note_pause(delivery, item->request->server, wait_us);
		MemoryContextSwitchTo(old);
		return Min(wait_us / 1000 + 1, LOOK_UP_POLL_MS);
	}
	if (wait_us > 0)
	{
		put_back(item, wait_us / 1000 + 1, NULL);
		note_pause(delivery, item->request->server, wait_us);
		MemoryContextSwitchTo(old);
		return 0;
	}
	forget_pause(delivery, item->request->server);

	item->token_version = token.version;
	call = item->phase == ITEM_SEND ? hx_outbox_call(item->account, item->request)
		: hx_outbox_lookup_call(item->account, item->request);
	request = hx_call_request(item->account, call, token.text);
	request->max_body = MAX_ANSWER;
	item->transfer = hx_http_start(delivery->pool, request, item);
	if (item->phase == ITEM_SEND)
		item->sent = true;
	item->phase = item->phase == ITEM_SEND ? ITEM_SENDING : ITEM_LOOKING_UP;
	MemoryContextSwitchTo(old);
	return 0;
}

typedef struct Start
{
	HxDelivery *delivery;
	DeliveryItem *item;
	int64		wait_ms;
} Start;

static void
call_start_item(void *arg)
{
	Start	   *start = arg;

	start->wait_ms = start_item(start->delivery, start->item);
}

/*
 * The same for any item.  One that cannot be made into a request (a path that
 * makes no URL, say) will never be: it is given up, and harms nobody else.
 */
static int64
start(HxDelivery *delivery, DeliveryItem *item)
{
	Start		start = {delivery, item, 0};
	MemoryContext old;
	char	   *problem;

	if (item->phase != ITEM_SEND && item->phase != ITEM_LOOK_UP)
		return 0;
	old = MemoryContextSwitchTo(item->batch->context);
	if (!hx_attempt(call_start_item, &start, &problem))
	{
		fail_attempt(item, problem, -1);
		item->outcome.verdict = HX_DEAD;
		item->outcome.next_attempt_at = 0;
	}
	MemoryContextSwitchTo(old);
	return start.wait_ms;
}

/* A sign-in ended; its failure is that of all items that wait for it. */
static void
end_sign_in(HxDelivery *delivery, DeliveryItem *sign_in)
{
	const HxHttpResult *result = hx_http_result(sign_in->transfer);
	char	   *problem;

	if (!hx_sign_in_accept(sign_in->account, result, &problem))
	{
		ListCell   *cell;

		hx_token_give_up(sign_in->account->key);
		foreach(cell, delivery->items)
		{
			DeliveryItem *item = lfirst(cell);

			if ((item->phase == ITEM_SEND || item->phase == ITEM_LOOK_UP) &&
				memcmp(item->account->key, sign_in->account->key, HX_ACCOUNT_KEY_LEN) == 0)
			{
				fail_attempt(item, problem, result->retry_after_ms);
				note_pause(delivery, item->request->server, SIGN_IN_PAUSE_MS * INT64CONST(1000));
			}
		}
	}
	hx_http_release(sign_in->transfer);
	delivery->sign_ins = list_delete_ptr(delivery->sign_ins, sign_in);
	if (--sign_in->batch->items == 0)
		MemoryContextDelete(sign_in->batch->context);
	pfree(sign_in);
}

/* The known ids of other requests with the item's natural key. */
static List *
known_ids(HxDelivery *delivery, DeliveryItem *item)
{
	List	   *ids;

	delivery->transactions->begin();
	MemoryContextSwitchTo(item->batch->context);
	ids = hx_outbox_known_ids(item->request->server, item->request->resource,
							  item->request->natural_key, item->request->id);
	delivery->transactions->commit();
	MemoryContextSwitchTo(item->batch->context);
	return ids;
}

/* A transfer of an item ended: what now? */
static void
end_transfer(HxDelivery *delivery, DeliveryItem *item)
{
	const HxHttpResult *result = hx_http_result(item->transfer);
	MemoryContext old = MemoryContextSwitchTo(item->batch->context);
	HxNextStep	next;
	bool		sent;

	if (result->outcome == HX_HTTP_ANSWERED && result->status == 401 && !item->renewed &&
		hx_sign_in_needed(item->account))
	{
		hx_token_refuse(item->account->key, item->token_version);
		item->renewed = true;
		item->phase = item->phase == ITEM_SENDING ? ITEM_SEND : ITEM_LOOK_UP;
		hx_http_release(item->transfer);
		item->transfer = NULL;
		MemoryContextSwitchTo(old);
		return;
	}
	if (result->outcome == HX_HTTP_ANSWERED && (result->status == 429 || result->status == 503) &&
		result->retry_after_ms > 0)
		hx_limiter_pause(item->account->key,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), result->retry_after_ms));

	sent = item->phase == ITEM_SENDING;

	/* Should judging fail, the item is found out about once more. */
	item->renewed = false;
	if (hx_outbox_can_look_up(item->account, item->request))
		item->phase = ITEM_LOOK_UP;
	else
		fail_attempt(item, "the answer could not be judged", -1);

	if (sent)
		next = hx_outbox_judge(item->account, item->request, result, &item->outcome);
	else
		next = hx_outbox_judge_lookup(item->account, item->request, result,
									  known_ids(delivery, item), &item->outcome);
	item->phase = next == HX_STEP_DONE ? ITEM_DONE : next == HX_STEP_LOOK_UP ? ITEM_LOOK_UP : ITEM_SEND;
	hx_http_release(item->transfer);
	item->transfer = NULL;
	MemoryContextSwitchTo(old);
}

/*
 * Does what can be done now; returns the milliseconds until it wants to be
 * called again at the latest.  Errors pass to the caller, which calls
 * hx_delivery_after_error(); nothing is lost by one.
 */
int64
hx_delivery_step(HxDelivery *delivery)
{
	HxTransfer *transfer;
	TimestampTz now;
	int64		wish = LOOK_EVERY_MS;
	List	   *outcomes;
	ListCell   *cell;

	while ((transfer = hx_http_next_done(delivery->pool)) != NULL)
	{
		DeliveryItem *item = hx_http_owner(transfer);

		if (item->signs_in)
			end_sign_in(delivery, item);
		else
			end_transfer(delivery, item);
	}

	now = GetCurrentTimestamp();
	if (done_items(delivery, &outcomes) != NIL || delivery->look || now >= delivery->next_look ||
		(delivery->next_due != 0 && now >= delivery->next_due))
		record_and_claim(delivery);
	if (delivery->gone)
		return -1;

	foreach(cell, delivery->items)
	{
		int64		wait_ms = start(delivery, lfirst(cell));

		if (wait_ms > 0)
			wish = Min(wish, wait_ms);
	}

	/* Items that ended without a transfer are recorded at once. */
	if (done_items(delivery, &outcomes) != NIL || delivery->look)
		return 0;
	now = GetCurrentTimestamp();
	if (delivery->next_due != 0)
		wish = Min(wish, Max(TimestampDifferenceMilliseconds(now, delivery->next_due), 1));
	return Min(wish, Max(TimestampDifferenceMilliseconds(now, delivery->next_look), 1));
}

/*
 * After an error in a step, when the transaction is gone: what was being
 * claimed was not, what was being recorded will be recorded again.
 */
int64
hx_delivery_after_error(HxDelivery *delivery)
{
	if (delivery->unfinished != NULL)
		MemoryContextDelete(delivery->unfinished);
	delivery->unfinished = NULL;
	delivery->next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ERROR_PAUSE_MS);
	return ERROR_PAUSE_MS;
}
