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
 * A step is: collect the calls that ended and judge them (calls.c, answer.c);
 * in one transaction record what became of requests and claim what is due;
 * start the calls of what is ready.  Between claim and record lies the
 * network, and no transaction.  The transaction waits a moment for company:
 * its flush to disk costs as much for a hundred requests as for one.
 *
 * An item, one claimed request, is ready, in a call, or done; what it does
 * next is its request's step:
 *
 *	 RESOLVE -> SEND -> DONE		the record's id is looked up where only its
 *	    \	  ^  |	   ^				natural key is known
 *		 \	  |	 v	   |
 *		  -> LOOK_UP --			is the work done?  If not, SEND (again)
 *
 * An item's memory hangs below its batch's, the requests claimed together,
 * which goes when its last item is done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/binding.h"
#include "base/owner.h"
#include "base/shared.h"
#include "compat.h"
#include "connector/token.h"
#include "outbox/change.h"
#include "outbox/delivery_internal.h"

#define MAX_BYTES			(32 * 1024 * 1024)	/* of large bodies in flight to a server, but for one */
#define EMPTY_LOOK_MS		100
#define LOOK_EVERY_MS		5000	/* even if nobody wakes us */
#define RECOVER_EVERY_MS	2000	/* look for dead claimants */
#define SWEEP_SHARE			50	/* a full look takes at most this part of the time */
#define ERROR_PAUSE_MS		1000	/* after a failed transaction */
#define RECORD_DELAY_US		2000	/* an outcome waits for others to be recorded with */
#define RECORD_DELAY_MOST_US	50000
#define RECORD_DELAY_SHARE	4	/* so many times as long as a transaction takes */
#define NO_ACCOUNT_PAUSE_MS	1000	/* times the number of attempts */

/* Servers were made, changed or dropped since they were looked at last; the process's caches tell all. */
static bool servers_changed = true;
static bool servers_altered = false;	/* they or credentials were, for sure */

static void
note_server_change(Datum arg, int cache, uint32 hash)
{
	servers_changed = true;
	servers_altered = true;
}

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
	static bool callback_registered = false;

	delivery->context = context;
	delivery->transactions = transactions;
	delivery->only_server = only_server ? MemoryContextStrdup(context, only_server) : NULL;
	delivery->look = true;
	dlist_init(&delivery->ready);
	dlist_init(&delivery->done);
	delivery->at_end.func = release_delivery;
	delivery->at_end.arg = delivery;
	MemoryContextRegisterResetCallback(context, &delivery->at_end);
	servers_changed = true;
	if (!callback_registered)
	{
		CacheRegisterSyscacheCallback(FOREIGNSERVEROID, note_server_change, (Datum) 0);
		CacheRegisterSyscacheCallback(USERMAPPINGOID, note_server_change, (Datum) 0);
	}
	callback_registered = true;
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
	return delivery->nitems == 0;
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
	return item->request->uncertain ||
		(item->sent && !hx_outbox_repeats_safely(item->account, item->request));
}

/*
 * An item's outcome is known.  Those that come after it in its key go on, or
 * go back if it has to be sent again.
 */
void
hx_item_done(HxDelivery *delivery, DeliveryItem *item)
{
	HxVerdict	verdict = item->request->outcome.verdict;
	DeliveryItem	   *after = item->after;

	Assert(item->place == ITEM_READY);
	dlist_delete(&item->node);
	dlist_push_tail(&delivery->done, &item->node);
	item->place = ITEM_DONE;
	if (delivery->ndone++ == 0)
		delivery->done_since = GetCurrentTimestamp();
	item->peer->load -= item->weight;
	if (item->request->bytes > HX_REQUEST_SMALL_BYTES)
		item->peer->large_bytes -= item->request->bytes;

	item->after = NULL;
	if (after == NULL)
		return;
	after->before = NULL;
	if ((verdict == HX_RETRY || verdict == HX_RETURNED) && after->place == ITEM_READY)
		hx_item_put_back(delivery, after, 0, NULL);
}

/* Puts an item back; if it was not sent, as it was. */
void
hx_item_put_back(HxDelivery *delivery, DeliveryItem *item, int64 wait_ms, const char *why)
{
	MemoryContext old = MemoryContextSwitchTo(item->batch->context);
	HxOutcome  *outcome = &item->request->outcome;

	outcome->verdict = item->sent ? HX_RETRY : HX_RETURNED;
	outcome->uncertain = is_uncertain(item);
	outcome->next_attempt_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	if (why != NULL)
		outcome->error = pstrdup(why);
	item->request->step = HX_STEP_DONE;
	hx_item_done(delivery, item);
	MemoryContextSwitchTo(old);
}

/* Ends an attempt that could not go on. */
void
hx_item_fail(HxDelivery *delivery, DeliveryItem *item, const char *why)
{
	MemoryContext old = MemoryContextSwitchTo(item->batch->context);
	HxRequest  *request = item->request;

	if (item->account != NULL)
		hx_outbox_try_again(item->account, request, -1, pstrdup(why));
	else
	{
		/* no account, no policy */
		request->outcome.verdict = HX_RETRY;
		request->outcome.error = pstrdup(why);
		request->outcome.next_attempt_at =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), NO_ACCOUNT_PAUSE_MS * Min(request->attempts, 60));
		request->step = HX_STEP_DONE;
	}
	request->outcome.uncertain = is_uncertain(item);
	hx_item_done(delivery, item);
	MemoryContextSwitchTo(old);
}

/* Lets a batch go whose last holder this was. */
void
hx_batch_release(Batch *batch)
{
	if (--batch->holders == 0)
		MemoryContextDelete(batch->context);
}

/* Makes the item of a claimed request; the first step of what may be sent. */
static DeliveryItem *
make_item(HxDelivery *delivery, Batch *batch, Peer *peer, HxRequest *request)
{
	DeliveryItem	   *item = palloc0(sizeof(DeliveryItem));

	item->batch = batch;
	item->request = request;
	item->peer = peer;
	item->weight = 1;
	batch->holders++;
	return item;
}

/* A claim has committed: its items are on their way. */
static void
take_in(HxDelivery *delivery, List *items)
{
	ListCell   *cell;

	foreach(cell, items)
	{
		DeliveryItem	   *item = lfirst(cell);

		item->place = ITEM_READY;
		dlist_push_tail(&delivery->ready, &item->node);
		delivery->nitems++;
		item->peer->holders++;
		item->peer->load += item->weight;
		if (item->request->bytes > HX_REQUEST_SMALL_BYTES)
			item->peer->large_bytes += item->request->bytes;
	}
	foreach(cell, items)
	{
		DeliveryItem	   *item = lfirst(cell);
		MemoryContext old;

		if (item->place != ITEM_READY)
			continue;
		old = MemoryContextSwitchTo(item->batch->context);
		if (item->problem != NULL)
			hx_item_fail(delivery, item, item->problem);
		MemoryContextSwitchTo(old);
	}
}

/* Opens the account of a claimed item and fills in what the outbox knows of its record. */
static void
prepare_item(DeliveryItem *item)
{
	HxRequest  *request = item->request;

	hx_calls_open_account(item, &item->problem);
	if (request->remote_id == NULL && request->natural_key != NULL && request->resource != NULL && !request->creates)
		request->remote_id = hx_outbox_known_record(request);
	if (item->account != NULL && hx_outbox_can_send(item->account, request))
		request->step = hx_outbox_first_step(item->account, request);
	else if (item->account != NULL)
		item->problem = "the connector does not say any more how this is done";
}

/*
 * Claims what is due of one server, in the open transaction; with each request
 * those that can be merged with it, and more of a kind that goes in batches.
 */
static List *
claim_of(HxDelivery *delivery, Batch *batch, Peer *peer, const pg_uuid_t *binding, int places)
{
	HxRoom		room = {.server = peer->name,.free = places,.due_from = peer->due_from,
	.due_from_id = peer->due_from_id};
	List	   *items = NIL;
	List	   *heads;
	ListCell   *cell;
	double		load = 0;

	room.bytes = MAX_BYTES - peer->large_bytes;

	/* The one to see whether a server answers again is none that has failed already, if there is another. */
	room.untried = peer->circuit.state != HX_CIRCUIT_CLOSED;
	heads = hx_outbox_claim(delivery->claimant, binding, &room);
	if (room.untried && heads == NIL)
	{
		room.untried = false;
		heads = hx_outbox_claim(delivery->claimant, binding, &room);
	}
	peer->due_from = room.due_from;
	peer->due_from_id = room.due_from_id;
	peer->more = room.more || room.untried;
	foreach(cell, heads)
	{
		DeliveryItem	   *item = make_item(delivery, batch, peer, lfirst(cell));
		DeliveryItem	   *last = item;
		ListCell   *follower;

		prepare_item(item);
		items = lappend(items, item);
		if (item->problem != NULL)
			continue;
		item->weight = 1.0 / hx_outbox_most_a_call(item->account, item->request);
		load += item->weight;
		if (!hx_outbox_merges(item->account, item->request))
			continue;
		foreach(follower, hx_outbox_claim_followers(delivery->claimant, binding, item->request, MAX_FOLLOWERS))
		{
			DeliveryItem	   *next = make_item(delivery, batch, peer, lfirst(follower));

			prepare_item(next);
			next->weight = 0;
			next->before = last;
			last->after = next;
			last = next;
			items = lappend(items, next);
		}
	}

	/* A batch takes one place: fill up with others of the last one's kind. */
	if (room.more && list_length(heads) > 0 && load < list_length(heads) - 0.5)
	{
		HxRequest  *last = llast(heads);
		DeliveryItem	   *like = NULL;
		int			most = 1;

		foreach(cell, items)
		{
			like = lfirst(cell);
			if (like->request == last && like->problem == NULL)
				most = hx_outbox_most_a_call(like->account, like->request);
		}
		if (most > 1)
		{
			HxRoom		same = {.server = peer->name,.free = most * (places - (int) load) - list_length(heads),
				.bytes = room.bytes,.resource = last->resource,.operation = last->operation,
			.due_from = peer->due_from,.due_from_id = peer->due_from_id};

			foreach(cell, hx_outbox_claim(delivery->claimant, binding, &same))
			{
				DeliveryItem	   *item = make_item(delivery, batch, peer, lfirst(cell));

				prepare_item(item);
				item->weight = 1.0 / most;
				items = lappend(items, item);
			}
		}
	}
	return items;
}

/* Claims what is due, in the open transaction; the items are not on their way yet. */
static List *
claim(HxDelivery *delivery, Batch *batch, const pg_uuid_t *binding)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *items = NIL;
	double		in_all = MAX_CALLS;
	ListCell   *cell;
	bool		locked = false;

	foreach(cell, delivery->peers)
		in_all -= Min(((Peer *) lfirst(cell))->load, ((Peer *) lfirst(cell))->connections);
	foreach(cell, delivery->peers)
	{
		Peer	   *peer = lfirst(cell);
		List	   *claimed;
		int			places = hx_peer_room(delivery, peer, now);

		if (!peer->unlimited)
			places = Min(places, (int) in_all);
		if (places <= 0 || !peer->more)
			continue;
		if (!locked)
			hx_outbox_begin_claiming();
		locked = true;
		claimed = claim_of(delivery, batch, peer, binding, places);
		peer->empty_until = claimed == NIL ? TimestampTzPlusMilliseconds(now, EMPTY_LOOK_MS) : 0;
		items = list_concat(items, claimed);
		in_all -= Min(places, list_length(items));
	}
	return items;
}

/* What happens to a request by its outcome. */
static HxChange *
change_of(const HxDelivery *delivery, const DeliveryItem *item)
{
	static const HxEvent events[] = {
		[HX_DELIVERED] = HX_EVENT_DELIVER,
		[HX_DEAD] = HX_EVENT_GIVE_UP,
		[HX_RETRY] = HX_EVENT_PUT_BACK,
		[HX_RETURNED] = HX_EVENT_PUT_BACK
	};
	const HxOutcome *outcome = &item->request->outcome;
	HxChange   *change = palloc0(sizeof(HxChange));

	change->event = events[outcome->verdict];
	change->id = item->request->id;
	change->claimant = delivery->claimant;
	change->attempts = outcome->verdict == HX_RETURNED ? -1 : 0;
	change->next_attempt_at = outcome->next_attempt_at;
	change->error = outcome->error;
	change->outcome = outcome;
	return change;
}

/* Counts what became of an item. */
static void
count_outcome(const DeliveryItem *item)
{
	Oid			server = item->peer->oid;

	switch (item->request->outcome.verdict)
	{
		case HX_DELIVERED:
			hx_stats_add(server, HX_STAT_DELIVERED, 1);
			if (item->looked_up)
				hx_stats_add(server, HX_STAT_RECONCILED, 1);
			break;
		case HX_DEAD:
			hx_stats_add(server, HX_STAT_FAILED, 1);
			hx_stats_add(server, HX_STAT_DEAD, 1);
			break;
		case HX_RETRY:
			hx_stats_add(server, HX_STAT_FAILED, 1);
			hx_stats_add(server, HX_STAT_RETRIED, 1);
			break;
		default:
			break;
	}
}

/*
 * Records what became of the items that are done, in the open transaction, and
 * lets go what waited for them.  Returns those items.
 */
static List *
record(HxDelivery *delivery)
{
	List	   *recorded = NIL;
	List	   *changes = NIL;
	List	   *ended = NIL;	/* requests */
	List	   *unwritten = NIL;
	ListCell   *cell;
	dlist_iter	iter;

	dlist_foreach(iter, &delivery->done)
	{
		DeliveryItem	   *item = dlist_container(DeliveryItem, node, iter.cur);

		recorded = lappend(recorded, item);
		changes = lappend(changes, change_of(delivery, item));
		if (item->request->outcome.verdict == HX_DELIVERED || item->request->outcome.verdict == HX_DEAD)
			ended = lappend(ended, item->request);
		else
			item->peer->more = true;
	}
	if (recorded == NIL)
		return NIL;
	(void) hx_outbox_change(changes);
	if (hx_outbox_release_blocked(ended) > 0)
		foreach(cell, delivery->peers)
			((Peer *) lfirst(cell))->more = true;
	foreach(cell, ended)
	{
		HxRequest  *request = lfirst(cell);
		char	   *problem;

		if (request->outcome.verdict == HX_DELIVERED && request->write_back != NULL && !hx_write_back(request, &problem))
		{
			request->outcome.error = problem;
			unwritten = lappend(unwritten, request);
		}
	}
	hx_outbox_mark_unwritten(unwritten);
	return recorded;
}

/* Takes recorded items out of the list, and their batches with the last. */
static void
drop_recorded(HxDelivery *delivery, List *recorded)
{
	ListCell   *cell;

	foreach(cell, recorded)
	{
		DeliveryItem	   *item = lfirst(cell);
		Batch	   *batch = item->batch;
		List	   *held = item->held;
		ListCell   *other;

		count_outcome(item);
		item->peer->holders--;
		dlist_delete(&item->node);
		delivery->ndone--;
		delivery->nitems--;
		foreach(other, held)
			hx_batch_release(lfirst(other));
		hx_batch_release(batch);
	}
}

/* What is not needed at every step: the dead claimants, what expired, what could not be written back. */
static void
look_around(HxDelivery *delivery, const pg_uuid_t *binding, TimestampTz now)
{
	int64		recovered;
	ListCell   *cell;

	delivery->next_recovery = TimestampTzPlusMilliseconds(now, RECOVER_EVERY_MS);
	if (delivery->held != NULL)
		return;					/* the claimants are another database's */
	recovered = hx_outbox_recover(delivery->outbox, delivery->claimant, binding);
	if (recovered > 0)
		ereport(LOG,
				(errmsg("hubex recovered " INT64_FORMAT " requests that were in flight when their sender ended", recovered)));
	if (hx_outbox_expire(binding) > 0)
		foreach(cell, delivery->peers)
			((Peer *) lfirst(cell))->more = true;

	/* An old snapshot keeps the traces of all that was in flight: looking through them takes a small part of the time. */
	delivery->next_recovery = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														  RECOVER_EVERY_MS +
														  SWEEP_SHARE * TimestampDifferenceMilliseconds(now, GetCurrentTimestamp()));

	/* after that, for the user's functions may take their time */
	hx_outbox_write_back_again(binding);
}

/*
 * Where to look for what is due: as far back as what others have committed
 * since, or, where that is not known, everywhere.
 */
static void
decide_where_to_look(HxDelivery *delivery, TimestampTz now)
{
	TimestampTz due_from = delivery->transactions->takes_announcements ? hx_shared_take_due_from(HX_WORKER_DELIVERY) : PG_INT64_MIN;
	bool		by_hand = delivery->transactions->takes_announcements && due_from == PG_INT64_MIN;
	bool		due = delivery->look || now >= delivery->next_look || (delivery->next_due != 0 && now >= delivery->next_due);
	ListCell   *cell;

	if (now >= delivery->next_sweep)
	{
		due = true;
		due_from = PG_INT64_MIN;
	}

	/* pauses and connectors are tables of ours, so a change of them is announced or found after a while */
	if (due_from == PG_INT64_MIN || now >= delivery->next_look)
		servers_changed = true;
	servers_altered = servers_altered || by_hand;
	foreach(cell, delivery->peers)
	{
		Peer	   *peer = lfirst(cell);

		if (due_from <= peer->due_from)
		{
			peer->due_from = due_from;
			peer->due_from_id = 0;
		}
		peer->more = peer->more || due;
	}
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
	TimestampTz begin = GetCurrentTimestamp();
	bool		sweep = begin >= delivery->next_sweep;
	List	   *recorded;
	List	   *claimed = NIL;
	TimestampTz due = 0;
	pg_uuid_t	binding;
	char	   *held;
	Oid			relation;
	Oid			owner;

	delivery->unfinished = batch_context;
	batch->context = batch_context;
	decide_where_to_look(delivery, begin);
	delivery->transactions->begin();
	if (!hx_owner_hold_extension() || !hx_owner_table("outbox", &relation, &owner) ||
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
	(void) hx_binding_holds(&binding, &held);
	if (held != NULL)
		held = MemoryContextStrdup(delivery->context, held);
	if (delivery->held != NULL)
		pfree(delivery->held);
	delivery->held = held;

	MemoryContextSwitchTo(here);
	recorded = record(delivery);
	if (begin >= delivery->next_recovery)
		look_around(delivery, &binding, begin);
	if (servers_changed)
	{
		servers_changed = false;
		hx_peers_refresh(delivery, hx_outbox_servers(), servers_altered);
		if (servers_altered)
			hx_calls_forget_accounts(delivery);
		servers_altered = false;
	}
	MemoryContextSwitchTo(batch_context);
	claimed = claim(delivery, batch, &binding);
	MemoryContextSwitchTo(here);
	if (held != NULL || !hx_outbox_next_due(delivery->only_server, &binding, &due))
		due = 0;
	if (recorded != NIL && !delivery->transactions->takes_announcements)
		hx_shared_wake_at_commit(HX_WORKER_DELIVERY, begin);
	delivery->transactions->commit();
	MemoryContextSwitchTo(here);

	if (recorded != NIL && hx_shared() != NULL)
		ConditionVariableBroadcast(&hx_shared()->delivered);
	drop_recorded(delivery, recorded);
	delivery->unfinished = NULL;
	if (claimed == NIL)
		MemoryContextDelete(batch_context);
	delivery->transaction_us = GetCurrentTimestamp() - begin;

	/*
	 * All that is due and had room is claimed.  What comes next is announced
	 * by a commit, by the end of an item, or by its time.
	 */
	delivery->look = false;
	delivery->next_due = due;
	delivery->next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_EVERY_MS);
	if (sweep)
		delivery->next_sweep = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   LOOK_EVERY_MS +
														   SWEEP_SHARE * TimestampDifferenceMilliseconds(begin, GetCurrentTimestamp()));
	take_in(delivery, claimed);
}

/*
 * How long an outcome waits for others, in microseconds: so long that
 * transactions take a small part of the time.
 */
static int64
record_delay(const HxDelivery *delivery)
{
	return Min(Max(delivery->transaction_us * RECORD_DELAY_SHARE, RECORD_DELAY_US), RECORD_DELAY_MOST_US);
}

/*
 * Is it time for a transaction?  One that looks for a request to feel the way
 * back to a server with may find none: all that is due can stand behind what
 * is on its way there still.  Then the end of that calls for the next look.
 */
static bool
must_transact(const HxDelivery *delivery, TimestampTz now)
{
	ListCell   *cell;

	if (delivery->look || now >= delivery->next_look || (delivery->next_due != 0 && now >= delivery->next_due))
		return true;
	foreach(cell, delivery->peers)
	{
		const Peer *peer = lfirst(cell);

		if (peer->empty_until > now)
			continue;
		if (peer->more && peer->throttled_until != 0 && peer->throttled_until <= now && hx_peer_room(delivery, peer, now) > 0)
			return true;
		if (peer->more && peer->circuit.state == HX_CIRCUIT_OPEN && peer->circuit.until <= now &&
			hx_peer_room(delivery, peer, now) > 0)
			return true;
	}

	/* outcomes wait for company, unless most of what is on its way is there */
	return delivery->ndone > 0 &&
		(delivery->ndone * 2 >= delivery->nitems ||
		 now - delivery->done_since >= record_delay(delivery));
}

/* The time until something is to be done that nothing else will call for. */
static int64
time_left(const HxDelivery *delivery, int64 wish)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	if (delivery->next_due != 0)
		wish = Min(wish, Max(TimestampDifferenceMilliseconds(now, delivery->next_due), 1));
	foreach(cell, delivery->peers)
	{
		const Peer *peer = lfirst(cell);

		if (peer->more && peer->throttled_until > now)
			wish = Min(wish, TimestampDifferenceMilliseconds(now, peer->throttled_until) + 1);
		if (peer->circuit.state == HX_CIRCUIT_OPEN && peer->circuit.until > now)
			wish = Min(wish, TimestampDifferenceMilliseconds(now, peer->circuit.until) + 1);
		if (peer->more && peer->empty_until > now && (peer->throttled_until != 0 || peer->circuit.state == HX_CIRCUIT_OPEN))
			wish = Min(wish, TimestampDifferenceMilliseconds(now, peer->empty_until) + 1);
	}
	if (delivery->ndone > 0)
		wish = Min(wish, Max((delivery->done_since + record_delay(delivery) - now) / 1000, 1));
	return Min(wish, Max(TimestampDifferenceMilliseconds(now, delivery->next_look), 1));
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
	int64		wish = LOOK_EVERY_MS;
	int64		wait_ms;

	while ((transfer = hx_http_next_done(delivery->pool)) != NULL)
		hx_calls_end(delivery, hx_http_owner(transfer));

	if (must_transact(delivery, GetCurrentTimestamp()))
		record_and_claim(delivery);
	if (delivery->gone)
		return -1;

	wait_ms = hx_calls_start(delivery);
	if (wait_ms > 0)
		wish = Min(wish, wait_ms);

	/* Items that ended without a call are recorded at once. */
	if (must_transact(delivery, GetCurrentTimestamp()))
		return 0;
	return time_left(delivery, wish);
}

/* Why this database sends nothing, or NULL. */
const char *
hx_delivery_held(const HxDelivery *delivery)
{
	return delivery->held;
}

/* How many requests are claimed and not recorded. */
int
hx_delivery_in_flight(const HxDelivery *delivery)
{
	return delivery->nitems;
}

/*
 * After an error in a step, when the transaction is gone: what was being
 * claimed was not, what was being recorded will be recorded again.
 */
int64
hx_delivery_after_error(HxDelivery *delivery)
{
	ListCell   *cell;

	if (delivery->unfinished != NULL)
		MemoryContextDelete(delivery->unfinished);
	delivery->unfinished = NULL;
	servers_changed = true;
	delivery->next_sweep = 0;	/* what was looked at may not have been claimed */
	foreach(cell, delivery->peers)
		((Peer *) lfirst(cell))->more = true;
	delivery->next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ERROR_PAUSE_MS);
	delivery->look = false;
	return ERROR_PAUSE_MS;
}
