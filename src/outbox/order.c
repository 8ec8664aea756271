/*-------------------------------------------------------------------------
 *
 * order.c
 *	  What stands before a request: the order of keys, safe against commits.
 *
 * Requests of one ordering key go one after another by id.  A smaller id may
 * belong to a transaction that has not committed yet, so looking at what is
 * visible is not enough: every question is asked twice, of an ordinary
 * snapshot and of a dirty one, which sees rows that others are still putting
 * in; what either of them knows stands before.  (The dirty one alone would
 * not do: it can miss a row that is changed while it looks.)  An enqueuing
 * transaction therefore takes no lock, and only requests of its own keys wait
 * for its end.
 *
 * Of one natural key only one create is in flight at a time, whatever their
 * ordering keys: what a look-up finds must be the request's own.  What may
 * have done its work unseen goes first there, since it has to be looked up.
 *
 * The index of ordering keys holds open requests only, so a scan sees the
 * history of a key just as far as it has not been vacuumed away.
 *
 * A create is in one of two indexes, never in both, so that a new one costs no
 * more than it has to.  While it is open and has the ordering key that its
 * natural key makes (resource:natural_key, nearly all have it), it is found by
 * that; any other is in the index of natural keys.  The planner cannot prove
 * such a predicate from a statement's parameters, so whoever asks for the
 * creates of a natural key asks here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/owner.h"
#include "compat.h"
#include "outbox/order.h"

struct HxOrder
{
	Relation	outbox;
	Relation	by_order;		/* ordering_key, server, id */
	Relation	by_natural;		/* natural_key, resource, server */
	AttrNumber	id;
	AttrNumber	resource;
	AttrNumber	operation;
	AttrNumber	state;
	AttrNumber	remote_id;
	AttrNumber	ordering_key;
	AttrNumber	natural_key;
	AttrNumber	uncertain;
	Snapshot	snapshot;
	TupleTableSlot *slot;
};

static AttrNumber
attribute(Relation relation, const char *name)
{
	AttrNumber	number = get_attnum(RelationGetRelid(relation), name);

	if (number == InvalidAttrNumber)
		elog(ERROR, "hubex.outbox has no column \"%s\"", name);
	return number;
}

static Relation
open_index(Relation outbox, const char *name)
{
	Oid			oid = get_relname_relid(name, RelationGetNamespace(outbox));

	if (!OidIsValid(oid))
		elog(ERROR, "hubex.outbox has no index \"%s\"", name);
	return index_open(oid, AccessShareLock);
}

/* Opens what the questions below need; hx_order_end() closes it. */
HxOrder *
hx_order_begin(void)
{
	HxOrder    *order = palloc(sizeof(HxOrder));
	Oid			relation;
	Oid			owner;

	if (!hx_owner_table("outbox", &relation, &owner))
		hx_owner_report_missing();
	order->outbox = table_open(relation, AccessShareLock);
	order->by_order = open_index(order->outbox, "outbox_order");
	order->by_natural = open_index(order->outbox, "outbox_natural");
	order->id = attribute(order->outbox, "id");
	order->resource = attribute(order->outbox, "resource");
	order->operation = attribute(order->outbox, "operation");
	order->state = attribute(order->outbox, "state");
	order->remote_id = attribute(order->outbox, "remote_id");
	order->ordering_key = attribute(order->outbox, "ordering_key");
	order->natural_key = attribute(order->outbox, "natural_key");
	order->uncertain = attribute(order->outbox, "uncertain");
	order->slot = table_slot_create(order->outbox, NULL);
	order->snapshot = RegisterSnapshot(GetLatestSnapshot());
	return order;
}

void
hx_order_end(HxOrder *order)
{
	UnregisterSnapshot(order->snapshot);
	ExecDropSingleTupleTableSlot(order->slot);
	index_close(order->by_natural, AccessShareLock);
	index_close(order->by_order, AccessShareLock);
	table_close(order->outbox, AccessShareLock);
	pfree(order);
}

static int64
slot_id(const HxOrder *order)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(order->slot, order->id, &isnull));
}

/* A column of the row in the slot as text, palloc'd, or NULL. */
static char *
slot_text(const HxOrder *order, AttrNumber column)
{
	bool		isnull;
	Datum		datum = slot_getattr(order->slot, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

static bool
slot_is(const HxOrder *order, AttrNumber column, const char *text)
{
	char	   *found = slot_text(order, column);
	bool		is = found != NULL && strcmp(found, text) == 0;

	if (found != NULL)
		pfree(found);
	return is;
}

static void
key_entry(ScanKey key, Relation index, AttrNumber column, const char *text)
{
	ScanKeyEntryInitialize(key, 0, column, BTEqualStrategyNumber, TEXTOID, index->rd_indcollation[column - 1],
						   F_TEXTEQ, CStringGetTextDatum(text));
}

/* The requests of an ordering key with a smaller, or a larger, id. */
static IndexScanDesc
scan_ordering_key(HxOrder *order, Snapshot snapshot, const HxRequest *request, bool larger)
{
	IndexScanDesc scan = hx_index_beginscan(order->outbox, order->by_order, snapshot, 3);
	ScanKeyData keys[3];

	key_entry(&keys[0], order->by_order, 1, request->ordering_key);
	key_entry(&keys[1], order->by_order, 2, request->server);
	ScanKeyInit(&keys[2], 3, larger ? BTGreaterStrategyNumber : BTLessStrategyNumber,
				larger ? F_INT8GT : F_INT8LT, Int64GetDatum(request->id));
	index_rescan(scan, keys, 3, NULL, 0);
	return scan;
}

/* Shows the creates that a scan finds; false: enough. */
static bool
show_namesakes(HxOrder *order, IndexScanDesc scan, const char *resource, const char *natural_key,
			   HxNamesakeVisit visit, void *arg)
{
	bool		more = true;

	while (more && index_getnext_slot(scan, ForwardScanDirection, order->slot))
	{
		HxNamesake	namesake;
		bool		isnull;

		if (natural_key != NULL &&
			!(slot_is(order, order->operation, "create") && slot_is(order, order->resource, resource) &&
			  slot_is(order, order->natural_key, natural_key)))
			continue;
		namesake.id = slot_id(order);
		namesake.state = slot_text(order, order->state);
		namesake.remote_id = slot_text(order, order->remote_id);
		namesake.ordering_key = slot_text(order, order->ordering_key);
		namesake.uncertain = DatumGetBool(slot_getattr(order->slot, order->uncertain, &isnull));
		more = visit(&namesake, arg);
	}
	index_endscan(scan);
	ExecClearTuple(order->slot);
	return more;
}

/* Shows the creates of a natural key to visit, each once, until that has seen enough. */
static void
each_namesake(HxOrder *order, Snapshot snapshot, const char *server, const char *resource, const char *natural_key,
			  HxNamesakeVisit visit, void *arg)
{
	ScanKeyData keys[3];
	IndexScanDesc scan;

	/* Open ones of the usual ordering key, among all requests of that. */
	scan = hx_index_beginscan(order->outbox, order->by_order, snapshot, 2);
	key_entry(&keys[0], order->by_order, 1, psprintf("%s:%s", resource, natural_key));
	key_entry(&keys[1], order->by_order, 2, server);
	index_rescan(scan, keys, 2, NULL, 0);
	if (!show_namesakes(order, scan, resource, natural_key, visit, arg))
		return;

	/* All others. */
	scan = hx_index_beginscan(order->outbox, order->by_natural, snapshot, 3);
	key_entry(&keys[0], order->by_natural, 1, natural_key);
	key_entry(&keys[1], order->by_natural, 2, resource);
	key_entry(&keys[2], order->by_natural, 3, server);
	index_rescan(scan, keys, 3, NULL, 0);
	(void) show_namesakes(order, scan, resource, NULL, visit, arg);
}

/*
 * Shows the creates of a natural key, whatever became of them, as of
 * hx_order_begin(); this transaction's own count.  What visit is shown is
 * palloc'd.
 */
void
hx_order_namesakes(HxOrder *order, const char *server, const char *resource, const char *natural_key,
				   HxNamesakeVisit visit, void *arg)
{
	each_namesake(order, order->snapshot, server, resource, natural_key, visit, arg);
}

/* The first open request of the same ordering key and a smaller id, for a snapshot; 0: none. */
static int64
earlier(HxOrder *order, Snapshot snapshot, const HxRequest *request)
{
	IndexScanDesc scan = scan_ordering_key(order, snapshot, request, false);
	int64		id = index_getnext_slot(scan, ForwardScanDirection, order->slot) ? slot_id(order) : 0;

	index_endscan(scan);
	ExecClearTuple(order->slot);
	return id;
}

typedef struct Search
{
	const HxRequest *request;
	int64		found;			/* 0: none */
} Search;

static bool
goes_before(const HxNamesake *namesake, void *arg)
{
	Search	   *search = arg;
	const HxRequest *request = search->request;
	bool		waits = strcmp(namesake->state, "waiting") == 0;

	if (namesake->id == request->id)
		return true;
	if (strcmp(namesake->state, "sending") == 0 ||
		(waits && (namesake->uncertain == request->uncertain ? namesake->id < request->id : !request->uncertain)))
		search->found = namesake->id;
	return search->found == 0;
}

/* A create of the same natural key that goes before, for a snapshot; 0: none. */
static int64
namesake_before(HxOrder *order, Snapshot snapshot, const HxRequest *request)
{
	Search		search = {request, 0};

	each_namesake(order, snapshot, request->server, request->resource, request->natural_key, goes_before, &search);
	return search.found;
}

/*
 * The id of a request that a waiting one has to wait for; 0: it may be taken
 * up now, as far as the order goes.  *by_key says whether it is a committed one
 * of the same ordering key, whose end will be noticed.
 */
int64
hx_order_before(HxOrder *order, const HxRequest *request, bool *by_key)
{
	/* a key that hubex made of the stamp is nobody else's */
	bool		own_key = request->natural_key != NULL && strncmp(request->natural_key, "hubex-", 6) == 0 &&
		strcmp(request->natural_key + 6, request->stamp) == 0;
	SnapshotData dirty;
	int64		id = 0;

	*by_key = false;
	InitDirtySnapshot(dirty);
	if (request->ordering_key != NULL)
	{
		id = earlier(order, order->snapshot, request);
		*by_key = id != 0;
		if (id == 0)
			id = earlier(order, &dirty, request);
	}
	if (id == 0 && request->creates && request->natural_key != NULL && !own_key)
	{
		id = namesake_before(order, &dirty, request);
		if (id == 0)
			id = namesake_before(order, order->snapshot, request);
	}
	return id;
}

/* The ids of the waiting requests right behind one, for a snapshot, up to the first in doubt. */
static int
list_followers(HxOrder *order, Snapshot snapshot, const HxRequest *request, int64 *ids, int most)
{
	IndexScanDesc scan = scan_ordering_key(order, snapshot, request, true);
	int			n = 0;

	while (n < most && index_getnext_slot(scan, ForwardScanDirection, order->slot))
	{
		if (snapshot->snapshot_type == SNAPSHOT_DIRTY &&
			(TransactionIdIsValid(snapshot->xmin) || TransactionIdIsValid(snapshot->xmax)))
			break;
		if (!slot_is(order, order->state, "waiting"))
			break;
		ids[n++] = slot_id(order);
	}
	index_endscan(scan);
	ExecClearTuple(order->slot);
	return n;
}

/*
 * The ids of the waiting requests right behind one of the same ordering key,
 * at most so many, as far as there is no doubt.  Returns how many.
 */
int
hx_order_followers(HxOrder *order, const HxRequest *request, int64 *ids, int most)
{
	int64	   *others = palloc(sizeof(int64) * most);
	SnapshotData dirty;
	int			n;
	int			sure;

	InitDirtySnapshot(dirty);
	n = list_followers(order, &dirty, request, ids, most);
	n = Min(n, list_followers(order, order->snapshot, request, others, most));
	for (sure = 0; sure < n && ids[sure] == others[sure]; sure++)
		;
	pfree(others);
	return sure;
}
