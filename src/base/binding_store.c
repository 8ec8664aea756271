/*-------------------------------------------------------------------------
 *
 * binding_store.c
 *	  Which database may act on what its tables say: a copy stays silent.
 *
 * Two that send the same outbox do everything twice, and two that keep the
 * same mirrors spend the quota twice.  So the database is bound to one place,
 * in two ways.
 *
 * The table hubex.binding has one row, which no dump holds.  It names the
 * cluster, the database and the place of the files (base/place.c).  Where they
 * are not these, the database is a copy of another, by CREATE DATABASE ...
 * TEMPLATE or file by file, and is held: nothing at all is sent from it.
 *
 * The row also has a token, which every request and every subscription
 * carries.  A restored dump has a binding and so a token of its own, made by
 * CREATE EXTENSION, but what came with the dump carries another and is held;
 * whatever is put in afterwards is not.
 *
 * hubex_take_over() (outbox/take_over_store.c) ends either.  A promoted standby is the same cluster in
 * another place, and needs it only where hubex is not preloaded: a postmaster
 * that began as a standby is known to have been promoted, and its database
 * binds itself to the new place.
 *
 * The row is read without SPI: every request that is enqueued and every step
 * of a delivery asks for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/binding.h"
#include "base/owner.h"
#include "base/place.h"
#include "base/settings.h"
#include "base/statement_store.h"

PG_FUNCTION_INFO_V1(hubex_here);
PG_FUNCTION_INFO_V1(hubex_binding);
PG_FUNCTION_INFO_V1(hubex_held);

/* The row of hubex.binding. */
typedef struct Binding
{
	pg_uuid_t	token;
	int64		system;
	Oid			database;
	char	   *place;
} Binding;

/* The order of its columns. */
enum
{
	BINDING_TOKEN,
	BINDING_SYSTEM,
	BINDING_DATABASE,
	BINDING_PLACE
};

typedef enum BindingFit
{
	BINDING_HERE,
	BINDING_PROMOTED,			/* here, on a standby that was promoted */
	BINDING_ELSEWHERE
} BindingFit;

/*
 * Reads the binding as it is now, whatever snapshot the transaction has.  False
 * where there is none.  The lock is kept to the end of the transaction where
 * it keeps out a change of the token (hubex_take_over).
 */
static bool
read_binding(Binding *binding, LOCKMODE lock)
{
	Oid			relation;
	Oid			owner;
	Relation	table;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found;

	if (!hx_owner_table("binding", &relation, &owner))
		hx_owner_report_missing();
	table = table_open(relation, lock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(table, NULL);
	scan = table_beginscan(table, snapshot, 0, NULL);
	found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	if (found)
	{
		slot_getallattrs(slot);
		binding->token = *DatumGetUUIDP(slot->tts_values[BINDING_TOKEN]);
		binding->system = DatumGetInt64(slot->tts_values[BINDING_SYSTEM]);
		binding->database = DatumGetObjectId(slot->tts_values[BINDING_DATABASE]);
		binding->place = TextDatumGetCString(slot->tts_values[BINDING_PLACE]);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(table, lock == AccessShareLock ? lock : NoLock);
	return found;
}

/* Is a binding one to here?  If not, *why says so in words, palloc'd. */
static BindingFit
judge_binding(const Binding *binding, char **why)
{
	*why = NULL;
	if (binding->system != (int64) GetSystemIdentifier())
		*why = pstrdup("The database came with the files of another cluster, by a copy of them or by pg_upgrade");
	else if (binding->database != MyDatabaseId)
	{
		char	   *original = get_database_name(binding->database);

		*why = original ? psprintf("The database is a copy of database \"%s\"", original)
			: pstrdup("The database is a copy of another one of this cluster");
	}
	else if (!hx_place_is_here(binding->place))
	{
		if (hx_place_began_as_standby())
			return BINDING_PROMOTED;
		*why = pstrdup("The files of this server are a copy of another's, or a restored backup");
	}
	return *why == NULL ? BINDING_HERE : BINDING_ELSEWHERE;
}

static const char *const no_binding = "The row of hubex.binding is missing";

/*
 * The token that this (sub)transaction has read under a lock, which nobody
 * else can change before it ends.  A transaction that enqueues much asks once.
 */
static struct
{
	bool		known;
	pg_uuid_t	token;
}			kept;

static void
forget_token(void *arg)
{
	kept.known = false;
}

static void
keep_token(const pg_uuid_t *token)
{
	MemoryContextCallback *at_end = MemoryContextAllocZero(CurTransactionContext, sizeof(MemoryContextCallback));

	at_end->func = forget_token;
	MemoryContextRegisterResetCallback(CurTransactionContext, at_end);
	kept.known = true;
	kept.token = *token;
}

/*
 * The token that a request enqueued now has to carry.  It is the database's
 * own until the transaction ends.  Where the database is held, the session is
 * told so once.
 */
void
hx_binding_token(pg_uuid_t *token)
{
	static bool warned = false;
	Binding		binding;
	char	   *why = NULL;

	if (kept.known)
	{
		*token = kept.token;
		return;
	}
	if (!read_binding(&binding, RowShareLock))
		hx_binding_report_held(ERROR, no_binding);
	*token = binding.token;
	keep_token(token);
	if (!warned && judge_binding(&binding, &why) == BINDING_ELSEWHERE)
	{
		warned = true;
		hx_binding_report_held(WARNING, why);
	}
	pfree(binding.place);
}

/* Binds the database to here; the row may have to be made. */
static void
write_binding(bool exists, const pg_uuid_t *token)
{
	static HxStatement update = {
		"UPDATE hubex.binding SET token = $1, system = $2, database = $3, place = $4",
		4, {UUIDOID, INT8OID, OIDOID, TEXTOID}
	};
	static HxStatement insert = {
		"INSERT INTO hubex.binding (token, system, database, place) VALUES ($1, $2, $3, $4)",
		4, {UUIDOID, INT8OID, OIDOID, TEXTOID}
	};
	Datum		args[4];

	args[BINDING_TOKEN] = UUIDPGetDatum(token);
	args[BINDING_SYSTEM] = Int64GetDatum((int64) GetSystemIdentifier());
	args[BINDING_DATABASE] = ObjectIdGetDatum(MyDatabaseId);
	args[BINDING_PLACE] = CStringGetTextDatum(hx_place());
	hx_statement_run(exists ? &update : &insert, args, NULL);
}

/* The standby was promoted: from now on it is here that is sent from. */
static void
bind_promoted(const Binding *binding)
{
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	write_binding(true, &binding->token);
	SPI_finish();
	hx_owner_leave(&saved);
	ereport(LOG,
			(errmsg("hubex delivery goes on in database \"%s\", on the promoted standby",
					get_database_name(MyDatabaseId))));
}

/*
 * Is this database kept from sending?  If so *why says it in words, palloc'd;
 * if not, *token is the one whose requests may be sent.  Asked within the
 * transaction of each step of a delivery; on a promoted standby it binds the
 * database to its new place.
 */
bool
hx_binding_holds(pg_uuid_t *token, char **why)
{
	Binding		binding;

	*why = NULL;
	if (!hx_guc_deliver)
		*why = pstrdup("The setting hubex.deliver is off");
	else if (!read_binding(&binding, AccessShareLock))
		*why = pstrdup(no_binding);
	else
	{
		if (judge_binding(&binding, why) == BINDING_PROMOTED)
			bind_promoted(&binding);
		*token = binding.token;
		pfree(binding.place);
	}
	return *why != NULL;
}

/* Says that nothing is sent from this database, and what can be done. */
void
hx_binding_report_held(int elevel, const char *why)
{
	ereport(elevel,
			(errcode(elevel >= ERROR ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE : ERRCODE_WARNING),
			 errmsg("this database is held: nothing is sent from it"),
			 errdetail("%s.", why),
			 hx_guc_deliver
			 ? errhint("If it is to send from now on, and its original never again, run SELECT hubex_take_over().")
			 : errhint("Set hubex.deliver to on in the server's configuration, and reload it.")));
}

/* hubex.here() -> (system, database, place): what a binding to here holds. */
Datum
hubex_here(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "hubex.here must return a row");
	values[0] = Int64GetDatum((int64) GetSystemIdentifier());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	values[2] = CStringGetTextDatum(hx_place());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* hubex.binding() -> the token of this database. */
Datum
hubex_binding(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *token = palloc(sizeof(pg_uuid_t));
	Binding		binding;

	if (!read_binding(&binding, AccessShareLock))
		PG_RETURN_NULL();
	*token = binding.token;
	PG_RETURN_UUID_P(token);
}

/* hubex.held() -> why nothing is sent from this database; null where it is. */
Datum
hubex_held(PG_FUNCTION_ARGS)
{
	Binding		binding;
	char	   *why = NULL;

	if (RecoveryInProgress())
		PG_RETURN_NULL();		/* its primary's affair */
	if (!hx_guc_deliver)
		why = "The setting hubex.deliver is off";
	else if (!read_binding(&binding, AccessShareLock))
		why = unconstify(char *, no_binding);
	else
		(void) judge_binding(&binding, &why);
	if (why == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(why));
}

/*
 * Binds the database to here, whatever it was bound to.  Nobody puts in
 * anything with the old token from now on until the transaction ends.  Where
 * the database was a copy its token changes, so that two copies of one
 * original never hold each other's requests for their own.
 */
void
hx_binding_take(pg_uuid_t *token)
{
	Binding		binding;
	HxOwner		saved;
	Oid			relation;
	Oid			owner;
	char	   *why;
	bool		bound;

	if (!hx_owner_table("binding", &relation, &owner))
		hx_owner_report_missing();

	/* Whoever enqueues holds RowShareLock: what has the old token has committed. */
	LockRelationOid(relation, ExclusiveLock);
	bound = read_binding(&binding, AccessShareLock);
	if (bound && judge_binding(&binding, &why) == BINDING_HERE)
		*token = binding.token;
	else
		*token = *DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));

	hx_owner_enter(&saved);
	SPI_connect();
	write_binding(bound, token);
	SPI_finish();
	hx_owner_leave(&saved);
	forget_token(NULL);
}
