/*-------------------------------------------------------------------------
 *
 * tombstone_store.c
 *	  Rows that were deleted from a mirror, as long as an answer of the time
 *	  before may come.
 *
 * Such an answer must not bring them back.  It may be one of a sweep, where an
 * incremental run deletes; or of an incremental run, where the sweep deletes
 * what it found to be missing.  So it is remembered which rows were deleted
 * while both may be under way, and forgotten when neither has an answer that
 * old (run_changes.c, run_sweep.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/owner.h"
#include "base/statement_store.h"
#include "sync/apply.h"

static int
compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The keys of rows that were deleted at a time or later, sorted; palloc'd. */
char **
hx_tombstones_read(const HxMirror *mirror, TimestampTz since, int *n)
{
	static HxStatement statement = {
		"SELECT key FROM hubex.tombstone WHERE subscription = $1 AND deleted_at >= $2",
		2, {TEXTOID, TIMESTAMPTZOID}
	};
	MemoryContext cxt = CurrentMemoryContext;
	Datum		args[2] = {CStringGetTextDatum(mirror->subscription->name), TimestampTzGetDatum(since)};
	char	  **keys;
	HxOwner		owner;

	hx_owner_enter(&owner);
	SPI_connect();
	hx_statement_run(&statement, args, NULL);
	*n = (int) SPI_processed;
	keys = MemoryContextAllocHuge(cxt, Max(*n, 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
		keys[i] = hx_column_text(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, cxt);
	SPI_finish();
	hx_owner_leave(&owner);
	qsort(keys, *n, sizeof(char *), compare_texts);
	return keys;
}

/* Is a key one of those? */
bool
hx_tombstones_have(char **keys, int n, const char *key)
{
	return n > 0 && bsearch(&key, keys, n, sizeof(char *), compare_texts) != NULL;
}

/* Remembers that rows were deleted in this transaction, given by their keys as texts. */
void
hx_tombstones_leave(const HxMirror *mirror, int nkeys, Datum *keys)
{
	static HxStatement statement = {
		"INSERT INTO hubex.tombstone AS t (subscription, key, deleted_at)"
		" SELECT $1, k, pg_catalog.now() FROM pg_catalog.unnest($2) k ORDER BY k"
		" ON CONFLICT (subscription, key) DO UPDATE SET deleted_at = excluded.deleted_at",
		2, {TEXTOID, TEXTARRAYOID}
	};
	Datum		args[2] = {CStringGetTextDatum(mirror->subscription->name),
	PointerGetDatum(construct_array(keys, nkeys, TEXTOID, -1, false, TYPALIGN_INT))};
	HxOwner		owner;

	hx_owner_enter(&owner);
	SPI_connect();
	hx_statement_run(&statement, args, NULL);
	SPI_finish();
	hx_owner_leave(&owner);
}
