/*-------------------------------------------------------------------------
 *
 * connector_store.c
 *	  Reads the table hubex.connector.
 *
 * By a scan of its own rather than by SQL, because a statement would keep its
 * lock on the table until the transaction ends, and a call that waits for a
 * peer that hangs would hold up DROP EXTENSION.  The table has a handful of
 * rows.  No right of the caller's is asked for: what a connector says is no
 * secret to who may use a server of it.
 *
 * A manifest may have hundreds of kilobytes, and a delivery opens an account
 * for each request, so what was read is kept by the process and looked at
 * again only when the row has changed; that is seen by the row's version
 * without a look at the manifest.  Who asked for a manifest may use it for as
 * long as the memory context lives in which it was asked for: the context
 * holds a share of it, given back by a callback.  A version that the row has
 * no more is freed with its last share.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/hold.h"
#include "base/owner.h"
#include "connector/connector.h"

/* The columns of hubex.connector, as the extension's script makes it. */
#define CONNECTOR_NAME		1
#define CONNECTOR_MANIFEST	2

/* Takes one row; false ends the scan. */
typedef bool (*Visit) (const char *name, Datum manifest, HeapTuple row, void *arg);

static void
scan_connectors(Visit visit, void *arg)
{
	MemoryContext here = CurrentMemoryContext;
	Snapshot	snapshot;
	TableScanDesc scan;
	Relation	table;
	HeapTuple	row;
	Oid			relation;
	Oid			owner;

	if (!hx_owner_table("connector", &relation, &owner))
		hx_owner_report_missing();
	table = table_open(relation, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(table, snapshot, 0, NULL);
	while ((row = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(table);
		bool		isnull;
		Name		name = DatumGetName(heap_getattr(row, CONNECTOR_NAME, desc, &isnull));

		if (!visit(NameStr(*name), heap_getattr(row, CONNECTOR_MANIFEST, desc, &isnull), row, arg))
			break;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(table, AccessShareLock);
	MemoryContextSwitchTo(here);
}

/* Looks at the row of a version; see hx_connector_is_version(). */
static bool
is_version(const HxConnectorVersion *version, bool keep_lock)
{
	static Oid	held = InvalidOid;
	static HxHold hold;
	HeapTupleData row;
	Relation	table;
	Snapshot	snapshot;
	LOCKMODE	mode = AccessShareLock;
	Buffer		buffer;
	bool		is = false;

	if (!OidIsValid(version->table))
		return false;
	if (keep_lock)
	{
		if (held != version->table)
			memset(&hold, 0, sizeof(HxHold));
		held = version->table;
		mode = hx_hold(&hold, AccessShareLock);
	}
	table = try_relation_open(version->table, mode);
	if (table == NULL)
	{
		held = InvalidOid;
		return false;
	}
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ItemPointerSet(&row.t_self, version->block, version->offset);

	/* While the lock is held nobody cuts the table's end off. */
	if ((mode == NoLock || version->block < RelationGetNumberOfBlocks(table)) &&
		heap_fetch(table, snapshot, &row, &buffer, false))
	{
		is = HeapTupleHeaderGetRawXmin(row.t_data) == version->transaction &&
			HeapTupleHeaderGetRawCommandId(row.t_data) == version->command;
		ReleaseBuffer(buffer);
	}
	UnregisterSnapshot(snapshot);
	relation_close(table, keep_lock ? NoLock : AccessShareLock);
	return is;
}

/* A manifest that was read, for all who use it. */
typedef struct Kept
{
	MemoryContext context;		/* of this struct and the manifest */
	char	   *name;
	HxConnectorVersion version;
	int			shares;			/* of memory contexts */
	bool		current;		/* no newer one was read */
	Jsonb	   *manifest;
} Kept;

/* The latest of each connector this process has asked for, a List of Kept * in TopMemoryContext. */
static List *kept_manifests = NIL;

static void
set_version(HxConnectorVersion *version, HeapTuple row)
{
	version->table = row->t_tableOid;
	version->transaction = HeapTupleHeaderGetRawXmin(row->t_data);
	version->command = HeapTupleHeaderGetRawCommandId(row->t_data);
	version->block = ItemPointerGetBlockNumber(&row->t_self);
	version->offset = ItemPointerGetOffsetNumber(&row->t_self);
}

static void
give_back(void *arg)
{
	Kept	   *kept = arg;

	if (--kept->shares == 0 && !kept->current)
		MemoryContextDelete(kept->context);
}

/* Lets the current context have a share. */
static Jsonb *
share(Kept *kept)
{
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	callback->func = give_back;
	callback->arg = kept;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	kept->shares++;
	return kept->manifest;
}

typedef struct Load
{
	const char *name;
	Kept	   *kept;
} Load;

static bool
load_named(const char *name, Datum manifest, HeapTuple row, void *arg)
{
	Load	   *load = arg;
	MemoryContext context;
	MemoryContext old;

	if (strcmp(name, load->name) != 0)
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext, "hubex manifest", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	load->kept = palloc0(sizeof(Kept));
	load->kept->context = context;
	load->kept->name = pstrdup(name);
	set_version(&load->kept->version, row);
	load->kept->manifest = (Jsonb *) PG_DETOAST_DATUM_COPY(manifest);
	MemoryContextSwitchTo(old);
	return false;
}

/* Keeps a manifest that was just read, instead of the one that was kept under its name. */
static void
keep(Kept *kept)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	kept_manifests = lappend(kept_manifests, kept);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(kept->context, TopMemoryContext);
	kept->current = true;
}

static void
forget(Kept *kept)
{
	kept_manifests = list_delete_ptr(kept_manifests, kept);
	kept->current = false;
	if (kept->shares == 0)
		MemoryContextDelete(kept->context);
}

/*
 * The manifest of a connector, or NULL where there is none of that name.  It
 * is shared: nobody changes it, and it is there for as long as the current
 * memory context.
 */
Jsonb *
hx_connector_load(const char *name)
{
	Load		load = {name, NULL};
	ListCell   *cell;

	foreach(cell, kept_manifests)
	{
		Kept	   *kept = lfirst(cell);

		if (strcmp(kept->name, name) != 0)
			continue;
		if (is_version(&kept->version, false))
			return share(kept);
		forget(kept);
		break;
	}
	scan_connectors(load_named, &load);
	if (load.kept == NULL)
		return NULL;
	keep(load.kept);
	return share(load.kept);
}

typedef struct Stamp
{
	const char *name;
	HxConnectorVersion *version;
} Stamp;

static bool
stamp_named(const char *name, Datum manifest, HeapTuple row, void *arg)
{
	Stamp	   *stamp = arg;

	if (strcmp(name, stamp->name) != 0)
		return true;
	set_version(stamp->version, row);
	return false;
}

/*
 * Which version of its row a connector has now, all zero where it is gone: what
 * was kept of its manifest is good for as long as this does not change.
 */
void
hx_connector_version(const char *name, HxConnectorVersion *version)
{
	Stamp		stamp = {name, version};

	memset(version, 0, sizeof(HxConnectorVersion));
	scan_connectors(stamp_named, &stamp);
}

/*
 * Is that the version still?  True is certain; false may be said of a row that
 * was only moved.  A trigger asks this for every statement, so it looks at the
 * one row only, and keeps the lock to the end of the transaction, as it does
 * that on the outbox.  The caller does not ask any more once PostgreSQL has
 * told it of a change of the table: a TRUNCATE of this transaction.
 */
bool
hx_connector_is_version(const HxConnectorVersion *version)
{
	return is_version(version, true);
}

static bool
add_connector(const char *name, Datum manifest, HeapTuple row, void *arg)
{
	List	  **names = arg;

	*names = lappend(*names, pstrdup(name));
	return true;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/* The names of all connectors, a List of char *, sorted. */
List *
hx_connector_names(void)
{
	List	   *names = NIL;

	scan_connectors(add_connector, &names);
	list_sort(names, compare_names);
	return names;
}

static bool
add_credentials(const char *name, Datum manifest, HeapTuple row, void *arg)
{
	List	  **names = arg;
	ListCell   *cell;

	foreach(cell, hx_json_names(hx_json_part(DatumGetJsonbP(manifest), "credentials")))
	{
		bool		known = false;
		ListCell   *other;

		foreach(other, *names)
			known |= strcmp(lfirst(cell), lfirst(other)) == 0;
		if (!known)
			*names = lappend(*names, lfirst(cell));
	}
	return true;
}

/* The names of credentials that any connector declares, a List of char *, sorted. */
List *
hx_connector_credential_names(void)
{
	List	   *names = NIL;

	scan_connectors(add_credentials, &names);
	list_sort(names, compare_names);
	return names;
}
