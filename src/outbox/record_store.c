/*-------------------------------------------------------------------------
 *
 * record_store.c
 *	  What the outbox itself knows of a remote record.
 *
 * A record has two names: its id there, and the natural key that this side
 * gave it.  The request that made it holds both once it is delivered, and its
 * ordering key; so a record can be spoken of by either name, also before it is
 * there, and what is said of it stays in order.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "base/owner.h"
#include "base/statement_store.h"
#include "outbox/order.h"

/* ---- by the natural key: what its creates say (order.c) ---- */

static bool
was_given_up(const HxNamesake *namesake)
{
	return strcmp(namesake->state, "dead") == 0 || strcmp(namesake->state, "cancelled") == 0;
}

/* The creates of a natural key that were not given up. */
typedef struct Makers
{
	int			n;
	HxNamesake	last;			/* the one of the largest id */
} Makers;

static bool
note_maker(const HxNamesake *namesake, void *arg)
{
	Makers	   *makers = arg;

	if (was_given_up(namesake))
		return true;
	if (makers->n++ == 0 || namesake->id > makers->last.id)
		makers->last = *namesake;
	return true;
}

static void
find_makers(const char *server, const char *resource, const char *natural_key, Makers *makers)
{
	HxOrder    *order = hx_order_begin();

	memset(makers, 0, sizeof(Makers));
	hx_order_namesakes(order, server, resource, natural_key, note_maker, makers);
	hx_order_end(order);
}

/*
 * The id of the record that a change names by its natural key, where this
 * outbox made it and made it once; else NULL.
 */
char *
hx_outbox_known_record(const HxRequest *request)
{
	Makers		makers;

	find_makers(request->server, request->resource, request->natural_key, &makers);
	return makers.n == 1 && makers.last.remote_id ? pstrdup(makers.last.remote_id) : NULL;
}

/* The other creates of a natural key, as a request that waits for an answer has to know them. */
typedef struct Others
{
	int64		except;
	List	   *ids;
} Others;

static bool
note_made(const HxNamesake *namesake, void *arg)
{
	Others	   *others = arg;

	if (namesake->id != others->except && namesake->remote_id != NULL)
		others->ids = lappend(others->ids, pstrdup(namesake->remote_id));
	return true;
}

static bool
note_awaited(const HxNamesake *namesake, void *arg)
{
	Others	   *others = arg;

	if (namesake->id != others->except &&
		(strcmp(namesake->state, "waiting") == 0 || strcmp(namesake->state, "sending") == 0))
		others->ids = lappend(others->ids, psprintf("%lld", (long long) namesake->id));
	return true;
}

static List *
list_namesakes(const HxRequest *request, HxNamesakeVisit visit)
{
	Others		others = {request->id, NIL};
	HxOrder    *order = hx_order_begin();

	hx_order_namesakes(order, request->server, request->resource, request->natural_key, visit, &others);
	hx_order_end(order);
	return others.ids;
}

/* ---- by the id ---- */

static void
complete_by_id(const char *server, const char *resource, HxRecordKey *key, const char **ordering_key)
{
	static HxStatement by_id = {
		"SELECT natural_key, ordering_key FROM hubex.outbox"
		" WHERE server = $1 AND resource = $2 AND remote_id = $3 AND operation = 'create' ORDER BY id DESC LIMIT 1",
		3, {TEXTOID, TEXTOID, TEXTOID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum		args[3];
	HxOwner		saved;

	args[0] = CStringGetTextDatum(server);
	args[1] = CStringGetTextDatum(resource);
	args[2] = CStringGetTextDatum(key->remote_id);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&by_id, args, NULL);
	if (SPI_processed > 0)
	{
		key->natural_key = hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, here);
		*ordering_key = hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, here);
	}
	SPI_finish();
	hx_owner_leave(&saved);
}

/* The ids of what other requests of the same operation on a record made. */
static List *
list_added(const HxRequest *request)
{
	static HxStatement added = {
		"SELECT remote_number FROM hubex.outbox"
		" WHERE server = $1 AND resource = $2 AND remote_id = $3 AND id <> $4 AND operation = $5"
		" AND remote_number IS NOT NULL",
		5, {TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID}
	};
	MemoryContext here = CurrentMemoryContext;
	Datum		args[5];
	List	   *ids = NIL;
	HxOwner		saved;

	args[0] = CStringGetTextDatum(request->server);
	args[1] = CStringGetTextDatum(request->resource);
	args[2] = CStringGetTextDatum(request->remote_id);
	args[3] = Int64GetDatum(request->id);
	args[4] = CStringGetTextDatum(request->operation);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&added, args, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *id = hx_column_text(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, here);
		MemoryContext old = MemoryContextSwitchTo(here);

		ids = lappend(ids, id);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return ids;
}

/* ---- by either ---- */

/*
 * Completes the name of a record by what the outbox knows: the name that is
 * missing, and the ordering key of the request that made the record, each left
 * as it is where nothing is known.  A natural key that several requests have
 * used does not tell the id.  This transaction's own requests count.
 */
void
hx_outbox_complete_key(const char *server, const char *resource, HxRecordKey *key, const char **ordering_key)
{
	Makers		makers;

	if (key->remote_id != NULL)
	{
		complete_by_id(server, resource, key, ordering_key);
		return;
	}
	CommandCounterIncrement();	/* what triggers of this statement put in */
	find_makers(server, resource, key->natural_key, &makers);
	if (makers.n == 0)
		return;
	if (makers.n == 1)
		key->remote_id = makers.last.remote_id;
	*ordering_key = makers.last.ordering_key;
}

/*
 * What the outbox knows that bears on the answer a request waits for, a List
 * of char *.  Where the request looks for its own work, the ids of what other
 * requests made: that proves nothing for this one.  Where it looks for the
 * record it is about, the requests that are still to make it.
 */
List *
hx_outbox_known_ids(const HxRequest *request)
{
	bool		resolves = request->step == HX_STEP_RESOLVE;
	const char *name = request->creates || resolves ? request->natural_key : request->remote_id;

	if (request->resource == NULL || name == NULL)
		return NIL;
	return resolves ? list_namesakes(request, note_awaited) : request->creates ? list_namesakes(request, note_made) :
		list_added(request);
}
