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

typedef struct Load
{
	const char *name;
	Jsonb	   *manifest;
} Load;

static bool
load_named(const char *name, Datum manifest, HeapTuple row, void *arg)
{
	Load	   *load = arg;

	if (strcmp(name, load->name) != 0)
		return true;
	load->manifest = (Jsonb *) PG_DETOAST_DATUM_COPY(manifest);
	return false;
}

/* The manifest of a connector, or NULL where there is none of that name. */
Jsonb *
hx_connector_load(const char *name)
{
	Load		load = {name, NULL};

	scan_connectors(load_named, &load);
	return load.manifest;
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
	stamp->version->table = row->t_tableOid;
	stamp->version->transaction = HeapTupleHeaderGetRawXmin(row->t_data);
	stamp->version->block = ItemPointerGetBlockNumber(&row->t_self);
	stamp->version->offset = ItemPointerGetOffsetNumber(&row->t_self);
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
	static Oid	held = InvalidOid;
	static HxHold hold;
	HeapTupleData row;
	Relation	table;
	Snapshot	snapshot;
	LOCKMODE	mode;
	Buffer		buffer;
	bool		is = false;

	if (!OidIsValid(version->table))
		return false;
	if (held != version->table)
		memset(&hold, 0, sizeof(HxHold));
	held = version->table;
	mode = hx_hold(&hold, AccessShareLock);
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
		is = HeapTupleHeaderGetRawXmin(row.t_data) == version->transaction;
		ReleaseBuffer(buffer);
	}
	UnregisterSnapshot(snapshot);
	relation_close(table, NoLock);
	return is;
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
