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
#include "access/table.h"
#include "access/tableam.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/owner.h"
#include "connector/connector.h"

/* The columns of hubex.connector, as the extension's script makes it. */
#define CONNECTOR_NAME		1
#define CONNECTOR_MANIFEST	2

/* Takes one row; false ends the scan. */
typedef bool (*Visit) (const char *name, Datum manifest, void *arg);

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

		if (!visit(NameStr(*name), heap_getattr(row, CONNECTOR_MANIFEST, desc, &isnull), arg))
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
load_named(const char *name, Datum manifest, void *arg)
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

static bool
add_connector(const char *name, Datum manifest, void *arg)
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
add_credentials(const char *name, Datum manifest, void *arg)
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
