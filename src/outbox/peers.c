/*-------------------------------------------------------------------------
 *
 * peers.c
 *	  The servers of a delivery: room, quota, and the circuit.
 *
 * One server's trouble is its own.  It has its own places; without quota it
 * is left alone until there is some; and when the failures of several
 * requests in a row say that it is the server that fails (it cannot be
 * reached, does not answer, or its gateway says 502, 503 or 504), its circuit
 * opens: nothing is tried for a while, which grows by the retry policy, and
 * then one request.  Requests that are not tried lose no attempt.  A single request that always fails never opens
 * a circuit, however often it is tried.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "outbox/delivery_internal.h"

#define CIRCUIT_LONGEST_MS	60000
#define CLAIM_AHEAD			6	/* times the connections of a server without a rate limit */

Peer *
hx_peers_find(HxDelivery *delivery, const char *server)
{
	ListCell   *cell;

	foreach(cell, delivery->peers)
		if (strcmp(((Peer *) lfirst(cell))->name, server) == 0)
			return lfirst(cell);
	return NULL;
}

/*
 * Brings the peers in step with the servers there are, a List of
 * HxOutboxServer *.  Where their options or credentials were altered, what was
 * without quota, or could not sign in, tries again: it may have both now.
 */
void
hx_peers_refresh(HxDelivery *delivery, List *servers, bool altered)
{
	MemoryContext old = MemoryContextSwitchTo(delivery->context);
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	foreach(cell, delivery->peers)
		((Peer *) lfirst(cell))->seen = false;
	foreach(cell, servers)
	{
		HxOutboxServer *server = lfirst(cell);
		Peer	   *peer = hx_peers_find(delivery, server->name);

		if (peer == NULL)
		{
			peer = palloc0(sizeof(Peer));
			peer->name = pstrdup(server->name);
			peer->due_from = LONG_AGO;
			peer->more = true;
			delivery->peers = lappend(delivery->peers, peer);
		}
		peer->more = peer->more || (peer->paused && !server->paused) || peer->oid != server->oid;
		peer->oid = server->oid;
		peer->connections = server->connections;
		peer->paused = server->paused;
		peer->seen = true;
		if (altered)
			peer->throttled_until = Min(peer->throttled_until, now);
	}
	foreach(cell, delivery->peers)
	{
		Peer	   *peer = lfirst(cell);

		/* a server that is gone leaves when its last item has */
		if (!peer->seen && peer->holders == 0)
		{
			delivery->peers = foreach_delete_current(delivery->peers, cell);
			pfree(peer->name);
			pfree(peer);
		}
	}
	MemoryContextSwitchTo(old);
}

/* How many more places a server has now. */
int
hx_peer_room(const HxDelivery *delivery, const Peer *peer, TimestampTz now)
{
	/* Where no quota is at stake the next ones are claimed while the last are on their way. */
	int			places = peer->unlimited ? CLAIM_AHEAD * peer->connections : peer->connections;
	int			room;

	if (delivery->stopping || delivery->held != NULL || peer->paused || !peer->seen)
		return 0;
	if (delivery->only_server != NULL && strcmp(delivery->only_server, peer->name) != 0)
		return 0;
	if (peer->throttled_until > now || (peer->circuit.state == HX_CIRCUIT_OPEN && peer->circuit.until > now))
		return 0;
	room = (int) (places - peer->load + 0.001);

	/* feel the way back, whatever is in flight still */
	if (peer->throttled_until != 0)
		room = Min(room, 1);
	if (peer->circuit.state != HX_CIRCUIT_CLOSED)
		room = peer->probes == 0 ? 1 : 0;	/* what hangs there still takes no place of it */
	return Max(room, 0);
}

/* May a call be made to a server now? */
bool
hx_peer_may_call(Peer *peer, TimestampTz now)
{
	if (peer->circuit.state == HX_CIRCUIT_CLOSED)
		return peer->calls < peer->connections;
	if (peer->circuit.state == HX_CIRCUIT_OPEN && peer->circuit.until > now)
		return false;
	return peer->probes == 0;
}

/* Notes that a server has no quota for a while. */
void
hx_peer_throttle(Peer *peer, int64 wait_us)
{
	peer->throttled_until = GetCurrentTimestamp() + wait_us;
	peer->more = true;
	hx_stats_add(peer->oid, HX_STAT_THROTTLED, 1);
	hx_stats_add(peer->oid, HX_STAT_THROTTLED_US, wait_us);
}

static void
set_circuit(Peer *peer, HxCircuitState state, int64 open_ms)
{
	TimestampTz now = GetCurrentTimestamp();

	if (peer->circuit.state != state)
		peer->circuit.since = now;
	peer->circuit.state = state;
	peer->circuit.until = state == HX_CIRCUIT_OPEN ? TimestampTzPlusMilliseconds(now, open_ms) : 0;
	hx_stats_circuit_set(peer->oid, &peer->circuit);
	if (state == HX_CIRCUIT_OPEN)
		ereport(LOG,
				(errmsg("hubex sends nothing to server \"%s\" for %.1f s", peer->name, open_ms / 1000.0),
				 errdetail("%d requests in a row failed to get an answer from it.", peer->circuit.failures)));
	else if (state == HX_CIRCUIT_CLOSED)
		ereport(LOG, (errmsg("hubex sends to server \"%s\" again", peer->name)));
}

/* Does a result speak against the server, rather than against the request? */
static bool
is_server_failure(const HxHttpResult *result)
{
	return result->outcome != HX_HTTP_ANSWERED ||
		result->status == 502 || result->status == 503 || result->status == 504;
}

/*
 * Takes note of how a call went: of the circuit.  request is the id of the
 * request it was for; probe, that it was to see whether the server answers.
 */
void
hx_peer_note_result(Peer *peer, const HxAccount *account, const HxHttpResult *result, int64 request, bool probe)
{
	const HxRetry *retry = &account->retry;
	int			failures = Max(1, Min(retry->circuit_failures, CIRCUIT_MEMORY));
	int64		open_ms;

	if (!is_server_failure(result))
	{
		peer->opened = 0;
		peer->circuit.failures = 0;
		peer->more = true;
		if (peer->circuit.state != HX_CIRCUIT_CLOSED)
			set_circuit(peer, HX_CIRCUIT_CLOSED, 0);
		return;
	}
	if (peer->circuit.state == HX_CIRCUIT_CLOSED)
	{
		/* one that fails again says nothing new */
		for (int i = 0; i < Min(peer->circuit.failures, CIRCUIT_MEMORY); i++)
			if (peer->failed[i] == request)
				return;
		if (peer->circuit.failures < CIRCUIT_MEMORY)
			peer->failed[peer->circuit.failures] = request;
		peer->circuit.failures++;
		if (peer->circuit.failures < failures)
			return;
	}
	else if (!probe)
		return;					/* it was sent before the circuit opened */
	peer->opened++;
	open_ms = hx_retry_wait_ms(retry, peer->opened, -1, 1);
	set_circuit(peer, HX_CIRCUIT_OPEN, Min(open_ms, CIRCUIT_LONGEST_MS));
}
