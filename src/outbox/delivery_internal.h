/*-------------------------------------------------------------------------
 *
 * delivery_internal.h
 *	  What the files of a delivery share: delivery.c, calls.c, peers.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_DELIVERY_INTERNAL_H
#define HX_DELIVERY_INTERNAL_H

#include "lib/ilist.h"

#include "outbox/outbox.h"
#include "outbox/stats.h"

#define MAX_CALLS			128 /* places over all servers */
#define MAX_FOLLOWERS		1000	/* requests merged with one */
#define LONG_AGO			(PG_INT64_MIN / 2)	/* with room to subtract */

/* Requests claimed together; owns their memory. */
typedef struct Batch
{
	MemoryContext context;
	int			holders;		/* items, and sign-ins and calls of others that point in */
	List	   *accounts;		/* of BatchAccount *, see calls.c */
} Batch;

/*
 * A server, as long as it is there.  Its circuit: after so many failures of
 * different requests in a row nothing is sent to it for a while, then one
 * request to see.
 */
#define CIRCUIT_MEMORY	16

typedef struct Peer
{
	char	   *name;
	Oid			oid;
	int			connections;
	bool		paused;
	bool		seen;			/* by the last look at the servers */
	bool		unlimited;		/* no rate limit, as far as known */
	bool		more;			/* there may be something due that was not taken */
	double		load;			/* places that are taken */
	int			calls;			/* in flight */
	int			probes;			/* of the calls, those to see whether it answers again */
	int			holders;		/* items and sign-ins that point here */
	int64		large_bytes;	/* of large bodies that are claimed */
	TimestampTz due_from;		/* nothing before it in the order of times and ids is due */
	int64		due_from_id;
	TimestampTz throttled_until;	/* no quota; 0: there is some */
	TimestampTz empty_until;	/* a look found nothing to feel the way back with; not again before */
	int			sign_ins_failed;	/* in a row */
	HxCircuit	circuit;
	int			opened;			/* times in a row */
	int64		failed[CIRCUIT_MEMORY]; /* the requests that failed in a row */
} Peer;

typedef enum ItemPlace
{
	ITEM_READY,					/* in the list of that name */
	ITEM_CALLING,				/* in a call */
	ITEM_DONE					/* in the list of that name */
} ItemPlace;

/* One request on its way. */
typedef struct DeliveryItem
{
	dlist_node	node;
	ItemPlace	place;
	Batch	   *batch;
	List	   *held;			/* of Batch *: others that hold what it points to */
	HxRequest  *request;
	HxAccount  *account;
	Peer	   *peer;
	char	   *problem;		/* why it cannot be sent */
	double		weight;			/* its share of a place */
	struct DeliveryItem *before;		/* of the same key and not done: goes first */
	struct DeliveryItem *after;
	bool		sent;			/* since it was claimed */
	bool		renewed;		/* a 401 was answered by a new token already */
	bool		looked_up;		/* its outcome is what a look-up found */
} DeliveryItem;

/* One HTTP request under way, for one item or several, or to sign in. */
typedef struct Call
{
	HxTransfer *transfer;
	HxStep		step;
	List	   *items;			/* of DeliveryItem *; NIL: a sign-in */
	Batch	   *batch;			/* whose memory it uses */
	HxAccount  *account;
	Peer	   *peer;
	uint64		token_version;
	bool		probe;			/* to see whether the server answers again */
	TimestampTz started;
} Call;

struct HxDelivery
{
	MemoryContext context;
	const HxTransactions *transactions;
	char	   *only_server;
	HxHttpPool *pool;
	int64		claimant;		/* 0: none yet */
	MemoryContextCallback at_end;
	List	   *peers;			/* of Peer * */
	dlist_head	ready;			/* items to be sent, looked up or resolved, in order */
	dlist_head	done;			/* items to be recorded */
	int			nitems;			/* in all lists and calls */
	int			ndone;
	TimestampTz done_since;		/* of the first in done */
	int64		transaction_us; /* how long the last one took */
	List	   *sign_ins;		/* of Call * */
	bool		look;			/* something may be due */
	TimestampTz next_due;		/* 0: nothing known */
	TimestampTz next_look;
	TimestampTz next_recovery;
	TimestampTz next_sweep;		/* a look that trusts no due_from */
	bool		stopping;		/* nothing more is claimed */
	Oid			outbox;			/* the table claimed from first */
	bool		gone;			/* the extension is not here any more, or is another */
	char	   *held;			/* why this database sends nothing; NULL: it does */
	MemoryContext unfinished;	/* of a batch whose claim has not committed */
};

/* delivery.c */
extern void hx_item_done(HxDelivery *delivery, DeliveryItem *item);
extern void hx_item_put_back(HxDelivery *delivery, DeliveryItem *item, int64 wait_ms, const char *why);
extern void hx_item_fail(HxDelivery *delivery, DeliveryItem *item, const char *why);
extern void hx_batch_release(Batch *batch);

/* calls.c */
extern void hx_calls_open_account(DeliveryItem *item, char **problem);
extern int64 hx_calls_start(HxDelivery *delivery);
extern void hx_calls_forget_accounts(HxDelivery *delivery);
extern void hx_calls_end(HxDelivery *delivery, Call *call);

/* peers.c */
extern void hx_peers_refresh(HxDelivery *delivery, List *servers, bool altered);
extern Peer *hx_peers_find(HxDelivery *delivery, const char *server);
extern int	hx_peer_room(const HxDelivery *delivery, const Peer *peer, TimestampTz now);
extern bool hx_peer_may_call(Peer *peer, TimestampTz now);
extern void hx_peer_throttle(Peer *peer, int64 wait_us);
extern void hx_peer_note_result(Peer *peer, const HxAccount *account, const HxHttpResult *result,
								int64 request, bool probe);

#endif							/* HX_DELIVERY_INTERNAL_H */
