/*-------------------------------------------------------------------------
 *
 * write_back_store.c
 *	  What a delivered request does in this database: it fills in columns of
 *	  the row it was made for, and calls a function.
 *
 * Both are in the transaction that records the delivery, so they are there
 * when it is, but in a subtransaction of it: what fails here must not make a
 * delivery undone that has happened.  It fails as a text, and is tried again later.
 *
 * It runs as the owner of the table whose trigger asked for it, restricted
 * (base/restricted.c), with nothing of the worker's rights.  It waits for a
 * lock, and runs, for a short time only; the time is shared by all write-backs
 * of a transaction, for others wait for its end.
 *
 * A row that is gone, or a table, counts as done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "base/attempt.h"
#include "base/restricted.h"
#include "outbox/trigger.h"

#define LOCK_MS			500		/* to wait for a row that is locked */
#define LOCK_AGAIN_MS	10		/* ... when another was waited for already */
#define TIME_MS			5000	/* for all write-backs of a transaction */

/* What this process is writing at the moment, for its triggers to know. */
static struct
{
	Oid			relation;
	int			depth;
}			writing = {InvalidOid, 0};

/* What the write-backs of the current transaction have used of its time. */
static struct
{
	TimestampTz transaction;
	int			milliseconds;
	bool		waited;			/* for a lock, in vain */
}			used = {0, 0, false};

typedef struct WriteBack
{
	const HxRequest *request;
	Oid			relation;
	Oid			owner;
} WriteBack;

static int
trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/*
 * Was a trigger on this relation fired by hubex's own UPDATE?  What the row's
 * other triggers do for it is not meant by that.
 */
bool
hx_write_back_fires(Oid relation)
{
	if (!OidIsValid(writing.relation) || trigger_depth() != writing.depth)
		return false;
	return relation == writing.relation ||
		list_member_oid(get_partition_ancestors(relation), writing.relation);
}

/* ---- whose it is ---- */

static bool
relation_owner(Oid relation, Oid *owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		return false;
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return true;
}

/*
 * Finds the table; false where it is gone.  It is the one that was meant if
 * it has the same oid; or, after a dump was restored or it was made anew or
 * renamed, if it has the name or the oid and belongs to the same role still.  Were
 * that not asked for, somebody else's table of that name could be written to.
 */
static bool
find_home(WriteBack *work)
{
	const Jsonb *described = work->request->write_back;
	char	   *name = hx_json_text(described, "table");
	char	   *owner = hx_json_text(described, "owner");
	char	   *oid = hx_json_text(described, "oid");
	Oid			known = oid ? (Oid) strtoul(oid, NULL, 10) : InvalidOid;
	RangeVar   *range = name ? makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name))) : NULL;

	work->relation = range ? RangeVarGetRelid(range, NoLock, true) : InvalidOid;
	if (OidIsValid(work->relation) && work->relation == known)
		return relation_owner(known, &work->owner);
	if (!OidIsValid(work->relation))
		work->relation = known;
	return OidIsValid(work->relation) && relation_owner(work->relation, &work->owner) &&
		owner != NULL && strcmp(GetUserNameFromId(work->owner, false), owner) == 0;
}

/* ---- the columns ---- */

#define MAX_PARAMETERS	(INDEX_MAX_KEYS + 2)

/* An UPDATE under construction. */
typedef struct Update
{
	Oid			relation;
	StringInfoData sql;
	int			nparameters;
	Oid			types[MAX_PARAMETERS];
	Datum		values[MAX_PARAMETERS];
} Update;

/*
 * Takes a text as the value of a column, as its type reads it, and gives the
 * parameter that stands for it.
 */
static int
add_parameter(Update *update, const char *column, char *text)
{
	AttrNumber	number = get_attnum(update->relation, column);
	Oid			type;
	Oid			input;
	Oid			element;

	if (number <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", column, get_rel_name(update->relation)),
				 errdetail("The trigger that made the request named it.")));
	if (update->nparameters == MAX_PARAMETERS)
		elog(ERROR, "too many columns in a write-back");
	type = get_atttype(update->relation, number);
	getTypeInputInfo(type, &input, &element);
	update->types[update->nparameters] = type;
	update->values[update->nparameters] = OidInputFunctionCall(input, text, element, -1);
	return ++update->nparameters;
}

static void
set_column(Update *update, const Jsonb *described, const char *what, char *text)
{
	char	   *column = hx_json_text(described, what);
	int			parameter;

	if (column == NULL || text == NULL)
		return;
	parameter = add_parameter(update, column, text);
	appendStringInfo(&update->sql, "%s %s = $%d", parameter == 1 ? " SET" : ",", quote_identifier(column), parameter);
}

typedef struct Condition
{
	Update	   *update;
	const char *word;
} Condition;

static void
add_condition(const char *column, const JsonbValue *value, void *arg)
{
	Condition  *condition = arg;
	Update	   *update = condition->update;
	int			parameter = add_parameter(update, column, hx_json_value_text(value));
	TypeCacheEntry *type = lookup_type_cache(getBaseType(update->types[parameter - 1]), TYPECACHE_EQ_OPR);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(type->eq_opr));
	Form_pg_operator equal;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "type %s has no equality", format_type_be(type->type_id));
	equal = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(&update->sql, " %s %s OPERATOR(%s.%s) $%d", condition->word, quote_identifier(column),
					 quote_identifier(get_namespace_name(equal->oprnamespace)), NameStr(equal->oprname), parameter);
	ReleaseSysCache(tuple);
	condition->word = "AND";
}

static void
run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	int			result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not write back: %s", SPI_result_code_string(result));
}

/* The id of the record: the one that was made, or that the request was about. */
static char *
record_id(const HxRequest *request)
{
	return request->outcome.remote_id ? request->outcome.remote_id : request->remote_id;
}

static void
fill_columns(const WriteBack *work)
{
	const Jsonb *described = work->request->write_back;
	const HxOutcome *outcome = &work->request->outcome;
	Jsonb	   *key = hx_json_part(described, "key");
	Update		update = {.relation = work->relation};
	Condition	condition = {&update, "WHERE"};

	initStringInfo(&update.sql);
	appendStringInfo(&update.sql, "UPDATE %s%s",
					 get_rel_relkind(work->relation) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(work->relation)),
												get_rel_name(work->relation)));
	set_column(&update, described, "id", record_id(work->request));
	set_column(&update, described, "number", outcome->remote_number);
	if (update.nparameters == 0)
		return;
	hx_json_each(key, add_condition, &condition);
	if (strcmp(condition.word, "WHERE") == 0)
		elog(ERROR, "the write-back of request %lld names no row", (long long) work->request->id);

	writing.relation = work->relation;
	writing.depth = trigger_depth() + 1;
	PG_TRY();
	{
		run(update.sql.data, update.nparameters, update.types, update.values, NULL);
	}
	PG_FINALLY();
	{
		writing.relation = InvalidOid;
	}
	PG_END_TRY();
}

/* ---- the function ---- */

/*
 * Who may put a trigger on a table must not be able to act as its owner by it,
 * so the function's own owner is looked at again: it may have changed since.
 */
static void
check_callback(const char *name, Oid owner, int ntypes, const Oid *types)
{
	Oid			function = LookupFuncName(textToQualifiedNameList(cstring_to_text(name)), ntypes, types, false);
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		trusted;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	trusted = has_privs_of_role(((Form_pg_proc) GETSTRUCT(tuple))->proowner, owner);
	ReleaseSysCache(tuple);
	if (!trusted)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s cannot be a callback of this table", name),
				 errdetail("Its owner may not act as the table's.")));
}

static void
call_function(const WriteBack *work, const char *name)
{
	static Oid	types[4] = {INT8OID, TEXTOID, TEXTOID, JSONBOID};
	const HxOutcome *outcome = &work->request->outcome;
	char	   *id = record_id(work->request);
	Datum		values[4];
	char		nulls[5] = "    ";

	check_callback(name, work->owner, lengthof(types), types);
	values[0] = Int64GetDatum(work->request->id);
	values[1] = id ? CStringGetTextDatum(id) : (Datum) 0;
	nulls[1] = id ? ' ' : 'n';
	values[2] = outcome->remote_number ? CStringGetTextDatum(outcome->remote_number) : (Datum) 0;
	nulls[2] = outcome->remote_number ? ' ' : 'n';
	values[3] = PointerGetDatum(outcome->response);
	nulls[3] = outcome->response ? ' ' : 'n';
	run(psprintf("SELECT %s($1, $2, $3, $4)", name), lengthof(types), types, values, nulls);
}

/* ---- both ---- */

/* Names that are not found are most often names that are not given in full. */
static void
add_hint(void *arg)
{
	int			code = geterrcode();

	if (code == ERRCODE_UNDEFINED_TABLE || code == ERRCODE_UNDEFINED_FUNCTION || code == ERRCODE_UNDEFINED_OBJECT)
		errhint("Triggers and callbacks run with search_path = pg_catalog, pg_temp here: name things in full, or give the function a SET search_path.");
}

static void
write_back(void *arg)
{
	WriteBack  *work = arg;
	ErrorContextCallback context = {.callback = add_hint,.previous = error_context_stack};
	char	   *callback = hx_json_text(work->request->write_back, "callback");
	HxRestricted saved;

	if (!find_home(work))
		return;
	hx_restricted_enter(&saved, work->owner, used.waited ? LOCK_AGAIN_MS : LOCK_MS);
	error_context_stack = &context;
	SPI_connect();
	fill_columns(work);
	if (callback != NULL)
		call_function(work, callback);
	SPI_finish();
	error_context_stack = context.previous;
	hx_restricted_leave(&saved);
}

static void
begin_counting(void)
{
	if (used.transaction == GetCurrentTransactionStartTimestamp())
		return;
	used.transaction = GetCurrentTransactionStartTimestamp();
	used.milliseconds = 0;
	used.waited = false;
}

/* Is there time left in this transaction for hx_write_back()? */
bool
hx_write_back_has_time(void)
{
	begin_counting();
	return used.milliseconds < TIME_MS;
}

/*
 * Does what a delivered request asked for in this database, in the current
 * transaction.  False where it could not be done now, with the reason,
 * palloc'd; then nothing of it is done.  Raises nothing but a cancel.
 */
bool
hx_write_back(const HxRequest *request, char **problem)
{
	WriteBack	work = {.request = request};
	TimestampTz begun = GetCurrentTimestamp();
	int			milliseconds;
	bool		done;

	*problem = NULL;
	if (request->write_back == NULL)
		return true;
	if (!hx_write_back_has_time())
	{
		*problem = pstrdup("put off, as others took the time there was");
		return false;
	}
	done = hx_attempt_in_time(write_back, &work, TIME_MS - used.milliseconds, problem);
	milliseconds = (int) TimestampDifferenceMilliseconds(begun, GetCurrentTimestamp());
	used.milliseconds += milliseconds;
	used.waited |= !done && milliseconds >= LOCK_MS;
	return done;
}
