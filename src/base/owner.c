/*-------------------------------------------------------------------------
 *
 * owner.c
 *	  Acting as the owner of hubex's own tables, for hubex's own statements.
 *
 * A caller needs no right on the tables of the schema hubex: what it may do
 * is decided by the execute right on a function and by USAGE on the foreign
 * server.  The function then reads and writes its tables as their owner, for
 * the length of one statement whose text is fixed, with a search_path that
 * nobody can bend.  An error in between needs no care: the end of the
 * (sub)transaction gives the caller's identity and settings back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/owner.h"

/*
 * Finds a table of the schema hubex and its owner.  False where the
 * extension is not (or no longer) in this database.
 */
bool
hx_owner_table(const char *table, Oid *relation, Oid *owner)
{
	Oid			schema = get_namespace_oid("hubex", true);
	HeapTuple	tuple;

	*relation = OidIsValid(schema) ? get_relname_relid(table, schema) : InvalidOid;
	if (!OidIsValid(*relation))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(*relation));
	if (!HeapTupleIsValid(tuple))
		return false;
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return true;
}

/*
 * Keeps the extension in this database until the transaction ends.  False
 * where it is not there, or is being made anew; a DROP EXTENSION under way is
 * waited for.  DROP locks the extension before anything of it, so who holds
 * this lock finds all its tables.  Where another one has taken its place in
 * the very transaction that dropped it, the caches may still know the old
 * tables, until the lock on one of those has been waited for.
 */
bool
hx_owner_hold_extension(void)
{
	Oid			extension = get_extension_oid("hubex", true);
	Oid			relation;
	Oid			again;
	Oid			owner;

	if (!OidIsValid(extension))
		return false;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	if (get_extension_oid("hubex", true) != extension || !hx_owner_table("outbox", &relation, &owner))
		return false;
	LockRelationOid(relation, AccessShareLock);
	return hx_owner_table("outbox", &again, &owner) && again == relation;
}

/* Says that the extension is not in this database. */
void
hx_owner_report_missing(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the extension hubex is not installed in this database"),
			 errhint("Run CREATE EXTENSION hubex.")));
}

/* Becomes the owner of hubex's tables; hx_owner_leave() undoes it. */
void
hx_owner_enter(HxOwner *saved)
{
	Oid			relation;
	Oid			owner;

	if (!hx_owner_table("outbox", &relation, &owner))
		hx_owner_report_missing();

	GetUserIdAndSecContext(&saved->caller, &saved->sec_context);
	saved->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(owner, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

/* Becomes the caller again. */
void
hx_owner_leave(const HxOwner *saved)
{
	SetUserIdAndSecContext(saved->caller, saved->sec_context);
	AtEOXact_GUC(true, saved->guc_level);
}
