/*-------------------------------------------------------------------------
 *
 * calls.c
 *	  The calls of a delivery: what goes out, and what comes of it.
 *
 * A call is one HTTP request, for one item or for several that may go
 * together: the same operation on different records as a batch, updates of
 * one record merged.  Which may, what the call says and what its answer means
 * is answer.c's affair; here are tokens, quota, transfers, and the bringing
 * together.  Without a token or quota an item waits for the one, and goes
 * back to the outbox for the other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "base/owner.h"
#include "connector/token.h"
#include "outbox/delivery_internal.h"

#define MAX_ANSWER			(16 * 1024 * 1024)	/* it is kept in the outbox */
#define LOOK_UP_POLL_MS		1000	/* no quota to look up with */
#define TOKEN_POLL_MS		20	/* another process is signing in */
#define REFUSED_PAUSE_MS	5000	/* after a sign-in that was refused, at least */

typedef struct BatchAccount
{
	char	   *server;
	char	   *owner;
	HxAccount  *account;		/* NULL: could not be opened */
	char	   *problem;
} BatchAccount;

/*
 * Opens the account to send an item from, once for all items of a batch with
 * one server and owner.  What cannot be opened (a mapping that is missing,
 * say) is a problem of the attempt, not of the request: the DBA can mend it.
 */
void
hx_calls_open_account(DeliveryItem *item, char **problem)
{
	Batch	   *batch = item->batch;
	const HxRequest *request = item->request;
	BatchAccount *entry = NULL;
	ListCell   *cell;

	foreach(cell, batch->accounts)
	{
		BatchAccount *other = lfirst(cell);

		if (strcmp(other->server, request->server) == 0 && strcmp(other->owner, request->owner) == 0)
			entry = other;
	}
	if (entry == NULL)
	{
		Oid			role = get_role_oid(request->owner, true);

		entry = palloc0(sizeof(BatchAccount));
		entry->server = request->server;
		entry->owner = request->owner;
		batch->accounts = lappend(batch->accounts, entry);
		if (!OidIsValid(role))
			entry->problem = psprintf("role \"%s\" does not exist any more", request->owner);
		else
			entry->account = hx_account_try_open(request->server, role, &entry->problem);
	}
	item->account = entry->account;
	*problem = entry->problem;
}

/* Is a sign-in for this account under way here? */
static bool
signing_in(HxDelivery *delivery, const HxAccount *account)
{
	ListCell   *cell;

	foreach(cell, delivery->sign_ins)
		if (memcmp(((Call *) lfirst(cell))->account->key, account->key, HX_ACCOUNT_KEY_LEN) == 0)
			return true;
	return false;
}

static Call *
make_call(HxDelivery *delivery, DeliveryItem *item)
{
	Call	   *call = MemoryContextAllocZero(delivery->context, sizeof(Call));

	call->batch = item->batch;
	call->account = item->account;
	call->peer = item->peer;
	call->step = item->request->step;
	call->started = GetCurrentTimestamp();
	return call;
}

/*
 * Starts the sign-in for an item's account.  What cannot be started leaves the
 * signer's part to others.
 */
static void
start_sign_in(HxDelivery *delivery, DeliveryItem *item)
{
	Call	   *call = make_call(delivery, item);
	MemoryContext old;

	PG_TRY();
	{
		call->transfer = hx_http_start(delivery->pool, hx_sign_in_request(item->account), call);
	}
	PG_CATCH();
	{
		pfree(call);
		hx_token_give_up(item->account->key);
		PG_RE_THROW();
	}
	PG_END_TRY();
	item->batch->holders++;		/* the account's memory stays until we are done */
	item->peer->holders++;
	old = MemoryContextSwitchTo(delivery->context);
	delivery->sign_ins = lappend(delivery->sign_ins, call);
	MemoryContextSwitchTo(old);
}

/*
 * The items that go with one that is ready: those merged with it, or others of
 * the same kind.  The current context is the item's batch's.
 */
static List *
gather(HxDelivery *delivery, DeliveryItem *first)
{
	List	   *items = list_make1(first);
	const HxRequest *request = first->request;
	int			most;
	dlist_iter	iter;

	if (first->after != NULL && request->step == HX_STEP_SEND && hx_outbox_merges(first->account, request))
	{
		most = request->most > 0 ? request->most : MAX_FOLLOWERS + 1;
		for (DeliveryItem *next = first->after; next != NULL && list_length(items) < most; next = next->after)
		{
			if (next->request->step != HX_STEP_SEND)
				break;
			items = lappend(items, next);
		}
		return items;
	}
	most = hx_outbox_most_a_call(first->account, request);
	if (most <= 1)
		return items;
	dlist_foreach(iter, &delivery->ready)
	{
		DeliveryItem	   *item = dlist_container(DeliveryItem, node, iter.cur);

		if (list_length(items) >= most)
			break;
		if (item == first || item->before != NULL || item->peer != first->peer ||
			item->request->step != request->step || item->request->resource == NULL ||
			strcmp(item->request->operation, request->operation) != 0 ||
			strcmp(item->request->resource, request->resource) != 0 ||
			memcmp(item->account->key, first->account->key, HX_ACCOUNT_KEY_LEN) != 0 ||
			strcmp(item->request->owner, request->owner) != 0 ||
			hx_outbox_most_a_call(item->account, item->request) <= list_length(items))
			continue;
		items = lappend(items, item);
	}
	return items;
}

static List *
requests_of(List *items)
{
	List	   *requests = NIL;
	ListCell   *cell;

	foreach(cell, items)
		requests = lappend(requests, ((DeliveryItem *) lfirst(cell))->request);
	return requests;
}

/* Without quota it is the server that waits, not the requests: the quota may change. */
static void
put_all_back(HxDelivery *delivery, List *items)
{
	ListCell   *cell;

	/* one that goes back may take those behind it along */
	foreach(cell, items)
		if (((DeliveryItem *) lfirst(cell))->place == ITEM_READY)
			hx_item_put_back(delivery, lfirst(cell), 0, NULL);
}

/*
 * The account's token, as far as it needs one.  False: there is none yet;
 * *wait_ms says when to ask again, 0 where the end of a call will tell.
 */
static bool
obtain_token(HxDelivery *delivery, DeliveryItem *item, HxToken *token, int64 *wait_ms)
{
	int64		wait_us;

	*wait_ms = 0;
	if (!hx_sign_in_needed(item->account))
		return true;
	if (signing_in(delivery, item->account))
		return false;
	switch (hx_token_take(item->account->key, token))
	{
		case HX_TOKEN_READY:
			return true;
		case HX_TOKEN_WAIT:
			*wait_ms = TOKEN_POLL_MS;
			return false;
		case HX_TOKEN_SIGN_IN:
			break;
	}
	wait_us = hx_limiter_take(item->account->key, &item->account->rate, GetCurrentTimestamp(), HX_PRIORITY_DELIVERY);
	if (wait_us > 0)
	{
		hx_token_give_up(item->account->key);
		hx_peer_throttle(item->peer, wait_us);
		hx_item_put_back(delivery, item, 0, NULL);
	}
	else
		start_sign_in(delivery, item);
	return false;
}

/*
 * Starts what an item is ready for, with those that may go with it, if there
 * is a token and quota.  Returns the milliseconds after which to try again, 0
 * if it was started, is done or will be called for.
 */
static int64
start_item(HxDelivery *delivery, DeliveryItem *item)
{
	HxToken		token = {0, NULL};
	HxHttpRequest *request;
	List	   *items;
	ListCell   *cell;
	Call	   *call;
	int64		wait_ms;
	int64		wait_us;

	hx_stats_account(item->peer->oid, item->account->key);
	if (!obtain_token(delivery, item, &token, &wait_ms))
		return wait_ms;

	items = gather(delivery, item);
	wait_us = hx_limiter_take(item->account->key, &item->account->rate, GetCurrentTimestamp(), HX_PRIORITY_DELIVERY);
	if (wait_us > 0)
	{
		hx_peer_throttle(item->peer, wait_us);

		/* What has been sent is brought to its end first. */
		if (item->request->step == HX_STEP_LOOK_UP && !delivery->stopping)
			return Min(wait_us / 1000 + 1, LOOK_UP_POLL_MS);
		put_all_back(delivery, items);
		return 0;
	}
	if (item->peer->throttled_until != 0)
	{
		item->peer->throttled_until = 0;
		delivery->look = true;	/* there is room for more than one now */
	}
	item->peer->unlimited = item->account->rate.kind == HX_RATE_NONE;
	if (item->peer->circuit.state == HX_CIRCUIT_OPEN)
	{
		item->peer->circuit.state = HX_CIRCUIT_HALF_OPEN;
		hx_stats_circuit_set(item->peer->oid, &item->peer->circuit);
	}

	call = make_call(delivery, item);
	call->token_version = token.version;
	request = hx_call_request(item->account, hx_outbox_call(item->account, requests_of(items)), token.text);
	request->max_body = MAX_ANSWER;
	call->transfer = hx_http_start(delivery->pool, request, call);
	call->items = items;
	call->probe = item->peer->circuit.state != HX_CIRCUIT_CLOSED;
	item->peer->calls++;
	item->peer->probes += call->probe;
	foreach(cell, items)
	{
		DeliveryItem	   *each = lfirst(cell);

		dlist_delete(&each->node);
		each->place = ITEM_CALLING;
		if (call->step == HX_STEP_SEND)
			each->sent = true;
		if (each->batch != item->batch)
		{
			MemoryContext old = MemoryContextSwitchTo(each->batch->context);

			each->held = lappend(each->held, item->batch);
			item->batch->holders++;
			MemoryContextSwitchTo(old);
		}
	}
	if (call->step == HX_STEP_SEND)
		hx_stats_add(item->peer->oid, HX_STAT_SENT, 1);
	if (call->step == HX_STEP_SEND && list_length(items) > 1)
		hx_stats_add(item->peer->oid, HX_STAT_MERGED, list_length(items) - 1);
	return 0;
}

typedef struct Start
{
	HxDelivery *delivery;
	DeliveryItem	   *item;
	int64		wait_ms;
} Start;

static void
call_start_item(void *arg)
{
	Start	   *start = arg;

	start->wait_ms = start_item(start->delivery, start->item);
}

/*
 * The same for any item.  One that cannot be made into a call (a path that
 * makes no URL, say) will never be: it is given up, and harms nobody else.
 */
static int64
start(HxDelivery *delivery, DeliveryItem *item)
{
	Start		start = {delivery, item, 0};
	MemoryContext old = MemoryContextSwitchTo(item->batch->context);
	char	   *problem;

	if (!hx_attempt(call_start_item, &start, &problem))
	{
		if (item->request->most != 1 && (item->after != NULL || hx_outbox_most_a_call(item->account, item->request) > 1))
		{
			/* it may be another's fault, so it tries alone */
			item->request->most = 1;
			delivery->look = true;
		}
		else
		{
			hx_item_fail(delivery, item, problem);
			item->request->outcome.verdict = HX_DEAD;
			item->request->outcome.next_attempt_at = 0;
		}
	}
	MemoryContextSwitchTo(old);
	return start.wait_ms;
}

/* The items that are ready, in an array: what is done with one may take others out of the list. */
static DeliveryItem **
ready_items(HxDelivery *delivery, int *n)
{
	DeliveryItem **items = palloc(sizeof(DeliveryItem *) * Max(delivery->nitems, 1));
	dlist_iter	iter;

	*n = 0;
	dlist_foreach(iter, &delivery->ready)
		items[(*n)++] = dlist_container(DeliveryItem, node, iter.cur);
	return items;
}

/*
 * Puts back what waits to be sent for the first time: accounts were altered,
 * so it is to be taken up again with what holds now, quota and credentials.
 */
void
hx_calls_forget_accounts(HxDelivery *delivery)
{
	int			n;
	DeliveryItem **items = ready_items(delivery, &n);

	for (int i = 0; i < n; i++)
		if (items[i]->place == ITEM_READY && items[i]->before == NULL && !items[i]->sent)
			hx_item_put_back(delivery, items[i], 0, NULL);
	pfree(items);
}

/*
 * Starts what is ready and may go.  Returns the milliseconds after which to
 * try again, 0 where the end of a call will tell.
 */
int64
hx_calls_start(HxDelivery *delivery)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		wish = 0;
	int			n;
	DeliveryItem **items = ready_items(delivery, &n);

	for (int i = 0; i < n; i++)
	{
		DeliveryItem	   *item = items[i];
		int64		wait_ms = 0;

		if (item->place != ITEM_READY || item->before != NULL)
			continue;
		if (item->peer->circuit.state == HX_CIRCUIT_OPEN && item->peer->circuit.until > now)
			hx_item_put_back(delivery, item, 0, NULL);
		else if (hx_peer_may_call(item->peer, now))
			wait_ms = start(delivery, item);
		if (wait_ms > 0)
			wish = wish == 0 ? wait_ms : Min(wish, wait_ms);
	}
	pfree(items);
	return wish;
}

/* A sign-in ended; its failure is that of all items that wait for it. */
static void
end_sign_in(HxDelivery *delivery, Call *call)
{
	const HxHttpResult *result = hx_http_result(call->transfer);
	char	   *problem;

	hx_peer_note_result(call->peer, call->account, result, 0, true);
	if (!hx_sign_in_accept(call->account, result, &problem))
	{
		bool		refused = result->outcome == HX_HTTP_ANSWERED && result->status >= 400 && result->status < 500 &&
			result->status != 408 && result->status != 429;
		int64		wait_ms = hx_retry_wait_ms(&call->account->retry, ++call->peer->sign_ins_failed,
											   result->retry_after_ms, pg_prng_double(&pg_global_prng_state));
		int			n;
		DeliveryItem **items = ready_items(delivery, &n);

		/* Credentials that are wrong do not mend themselves. */
		if (refused)
			wait_ms = Max(wait_ms, REFUSED_PAUSE_MS);
		hx_token_give_up(call->account->key);
		for (int i = 0; i < n; i++)
		{
			if (items[i]->place != ITEM_READY || items[i]->before != NULL ||
				memcmp(items[i]->account->key, call->account->key, HX_ACCOUNT_KEY_LEN) != 0)
				continue;
			items[i]->peer->throttled_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
			items[i]->peer->more = true;
			hx_item_put_back(delivery, items[i], wait_ms, problem);
		}
		pfree(items);
	}
	else
		call->peer->sign_ins_failed = 0;
	hx_http_release(call->transfer);
	delivery->sign_ins = list_delete_ptr(delivery->sign_ins, call);
	call->peer->holders--;
	hx_batch_release(call->batch);
	pfree(call);
}

/* What is known in the outbox for the judging of a look-up, a List of char *. */
static List *
known_ids(HxDelivery *delivery, Call *call)
{
	MemoryContext here = CurrentMemoryContext;
	List	   *ids = NIL;

	if (call->step == HX_STEP_SEND || list_length(call->items) > 1)
		return NIL;
	delivery->transactions->begin();
	MemoryContextSwitchTo(here);
	if (hx_owner_hold_extension())
		ids = hx_outbox_known_ids(((DeliveryItem *) linitial(call->items))->request);
	delivery->transactions->commit();
	MemoryContextSwitchTo(here);
	return ids;
}

typedef struct Judging
{
	Call	   *call;
	List	   *known_ids;
} Judging;

static void
judge(void *arg)
{
	Judging    *judging = arg;
	Call	   *call = judging->call;

	hx_outbox_judge(call->account, requests_of(call->items), hx_http_result(call->transfer),
					judging->known_ids);
}

/* A token was refused: once, the items try again with a new one. */
static bool
renew_token(HxDelivery *delivery, Call *call, const HxHttpResult *result)
{
	ListCell   *cell;

	if (result->outcome != HX_HTTP_ANSWERED || result->status != 401 ||
		((DeliveryItem *) linitial(call->items))->renewed || !hx_sign_in_needed(call->account))
		return false;
	hx_token_refuse(call->account->key, call->token_version);
	foreach(cell, call->items)
	{
		DeliveryItem	   *item = lfirst(cell);

		item->renewed = true;
		item->place = ITEM_READY;
		dlist_push_tail(&delivery->ready, &item->node);
	}
	return true;
}

/* After a call, and its judging, an item goes on with its next step. */
static void
go_on(HxDelivery *delivery, Call *call, DeliveryItem *item)
{
	HxOutcome  *outcome = &item->request->outcome;

	item->renewed = false;
	item->place = ITEM_READY;
	dlist_push_tail(&delivery->ready, &item->node);
	if (item->request->step != HX_STEP_DONE)
		return;
	if (outcome->verdict == HX_DELIVERED && call->step == HX_STEP_LOOK_UP)
		item->looked_up = true;
	if (call->step == HX_STEP_SEND && item != linitial(call->items) && outcome->merged_into == 0)
		outcome->merged_into = ((DeliveryItem *) linitial(call->items))->request->id;
	hx_item_done(delivery, item);
}

/* A call of items ended: what now? */
static void
end_items(HxDelivery *delivery, Call *call)
{
	const HxHttpResult *result = hx_http_result(call->transfer);
	MemoryContext old = MemoryContextSwitchTo(call->batch->context);
	Judging		judging = {call, NIL};
	ListCell   *cell;
	char	   *problem = NULL;

	call->peer->calls--;
	call->peer->probes -= call->probe;
	hx_peer_note_result(call->peer, call->account, result, ((DeliveryItem *) linitial(call->items))->request->id, call->probe);
	if (call->step == HX_STEP_SEND)
		hx_stats_latency(call->peer->oid, GetCurrentTimestamp() - call->started);
	if (result->outcome == HX_HTTP_ANSWERED && (result->status == 429 || result->status == 503) &&
		result->retry_after_ms > 0)
		hx_limiter_pause(call->account->key,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), result->retry_after_ms));

	if (!renew_token(delivery, call, result))
	{
		bool		judged;

		PG_TRY();
		{
			judging.known_ids = known_ids(delivery, call);
			judged = hx_attempt(judge, &judging, &problem);
		}
		PG_CATCH();
		{
			/* A transaction failed, or we are told to end: what was sent is found out about later. */
			foreach(cell, call->items)
			{
				DeliveryItem	   *item = lfirst(cell);

				item->place = ITEM_READY;
				dlist_push_tail(&delivery->ready, &item->node);
				hx_item_fail(delivery, item, "the answer could not be judged");
			}
			PG_RE_THROW();
		}
		PG_END_TRY();
		foreach(cell, call->items)
		{
			if (!judged)
			{
				DeliveryItem	   *item = lfirst(cell);

				item->place = ITEM_READY;
				dlist_push_tail(&delivery->ready, &item->node);
				hx_item_fail(delivery, item, problem);
			}
			else
				go_on(delivery, call, lfirst(cell));
		}
	}
	hx_http_release(call->transfer);
	pfree(call);
	MemoryContextSwitchTo(old);
}

/* A call has ended. */
void
hx_calls_end(HxDelivery *delivery, Call *call)
{
	if (call->items == NIL)
		end_sign_in(delivery, call);
	else
		end_items(delivery, call);
}
