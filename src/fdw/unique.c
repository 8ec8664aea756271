/*-------------------------------------------------------------------------
 *
 * unique.c
 *	  Tells the planner that ids are unique.
 *
 * PostgreSQL believes in the uniqueness of a column where a unique index
 * proves it.  A list that is an object keyed by id proves it as well; so its
 * relation gets the description of an index that does not exist.  Nothing
 * tries to scan it, for only plain tables have index paths.  In return the
 * planner knows, before any ANALYZE, that an id finds one row: it estimates
 * joins rightly, stops looking for a second match, and leaves a LEFT JOIN out
 * altogether whose columns nobody wants, which costs no request at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_am_d.h"
#include "catalog/pg_type_d.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/settings.h"
#include "fdw/fdw.h"

static get_relation_info_hook_type previous_hook = NULL;

/* Are two ids that differ for the API different for SQL, too? */
static bool
keeps_apart(Oid type, Oid collation)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case UUIDOID:
			return true;
		case TEXTOID:
		case VARCHAROID:
			return OidIsValid(collation) && get_collation_isdeterministic(collation);
		default:
			return false;
	}
}

static void
add_unique_index(RelOptInfo *rel, AttrNumber attno, Oid type, Oid collation)
{
	TypeCacheEntry *entry = lookup_type_cache(type == VARCHAROID ? TEXTOID : type, TYPECACHE_BTREE_OPFAMILY);
	IndexOptInfo *index = makeNode(IndexOptInfo);

	index->hypothetical = true;
	index->rel = rel;
	index->relam = BTREE_AM_OID;
	index->ncolumns = index->nkeycolumns = 1;
	index->indexkeys = palloc(sizeof(int));
	index->indexkeys[0] = attno;
	index->indexcollations = palloc(sizeof(Oid));
	index->indexcollations[0] = collation;
	index->opfamily = palloc(sizeof(Oid));
	index->opfamily[0] = entry->btree_opf;
	index->opcintype = palloc(sizeof(Oid));
	index->opcintype[0] = entry->btree_opintype;
	index->canreturn = palloc0(sizeof(bool));
	index->unique = true;
	index->immediate = true;
	rel->indexlist = lappend(rel->indexlist, index);
}

/* get_relation_info_hook */
static void
add_unique_indexes(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	HxTable    *table;

	if (previous_hook != NULL)
		previous_hook(root, relid, inhparent, rel);
	if (!hx_guc_pushdown || rel->fdwroutine == NULL || rel->fdwroutine->ImportForeignSchema != hxImportForeignSchema)
		return;
	table = hx_table_open(relid);
	if (!table->resource->by_key || table->resource->parent != NULL)
		return;
	for (int i = 0; i < table->natts; i++)
	{
		const HxColumn *column = table->columns[i];
		Oid			collation = column ? get_typcollation(table->types[i]) : InvalidOid;

		if (column != NULL && column->path != NULL && strcmp(column->path, HX_PATH_KEY) == 0 &&
			keeps_apart(table->types[i], collation))
			add_unique_index(rel, i + 1, table->types[i], collation);
	}
}

/* Called when the library is loaded. */
void
hx_unique_install(void)
{
	previous_hook = get_relation_info_hook;
	get_relation_info_hook = add_unique_indexes;
}
