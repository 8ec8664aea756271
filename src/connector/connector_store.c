/*-------------------------------------------------------------------------
 *
 * connector_store.c
 *	  Reads the table hubex.connector.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/owner.h"
#include "connector/connector.h"

/* Runs one query over hubex.connector and gives its first column. */
static List *
query_column(const char *sql, const char *name, Datum (*copy) (Datum))
{
	MemoryContext here = CurrentMemoryContext;
	Oid			types[1] = {NAMEOID};
	NameData	name_data;
	Datum		args[1];
	List	   *result = NIL;
	HxOwner		saved;

	namestrcpy(&name_data, name ? name : "");
	args[0] = NameGetDatum(&name_data);

	hx_owner_enter(&saved);
	SPI_connect();
	if (SPI_execute_with_args(sql, 1, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read hubex.connector");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(here);

		result = lappend(result, DatumGetPointer(copy(value)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return result;
}

static Datum
copy_jsonb(Datum value)
{
	return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

static Datum
copy_text(Datum value)
{
	return CStringGetDatum(TextDatumGetCString(value));
}

/* The manifest of a connector, or NULL where there is none of that name. */
Jsonb *
hx_connector_load(const char *name)
{
	List	   *found = query_column("SELECT manifest FROM hubex.connector WHERE name = $1", name, copy_jsonb);

	return found == NIL ? NULL : (Jsonb *) linitial(found);
}

/* The names of all connectors, a List of char *. */
List *
hx_connector_names(void)
{
	return query_column("SELECT name::text FROM hubex.connector WHERE $1 IS NOT NULL ORDER BY name",
						NULL, copy_text);
}

/* The names of credentials that any connector declares, a List of char *. */
List *
hx_connector_credential_names(void)
{
	return query_column("SELECT DISTINCT c FROM hubex.connector, jsonb_object_keys(manifest -> 'credentials') c"
						" WHERE $1 IS NOT NULL AND jsonb_typeof(manifest -> 'credentials') = 'object' ORDER BY c",
						NULL, copy_text);
}
