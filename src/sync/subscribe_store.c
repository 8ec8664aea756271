/*-------------------------------------------------------------------------
 *
 * subscribe_store.c
 *	  hubex_subscribe(), hubex_unsubscribe(): mirrors that begin and end.
 *
 * What a subscription must be is in subscribe_check.c; hubex adds nothing to its
 * target that an ordinary table has not: no trigger, no foreign key.  The
 * subscription itself is a row of hubex's own tables; all that makes one do so
 * one after another, as no two may write the same rows of a table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/relation.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "base/binding.h"
#include "base/owner.h"
#include "base/shared.h"
#include "base/statement_store.h"
#include "sync/subscribe.h"

PG_FUNCTION_INFO_V1(hubex_subscribe);
PG_FUNCTION_INFO_V1(hubex_unsubscribe);

/* No interval of a subscription is shorter, or longer. */
#define SHORTEST_US		USECS_PER_SEC
#define LONGEST_US		(INT64CONST(36525) * USECS_PER_DAY)

/* The arguments of hubex_subscribe(). */
enum
{
	ARG_NAME,
	ARG_FOREIGN_TABLE,
	ARG_TARGET,
	ARG_EVERY,
	ARG_DELETES,
	ARG_MODE,
	ARG_COLUMNS,
	ARG_FILTER,
	ARG_OWNERS,
	ARG_ON_DRIFT,
	ARG_FULL_EVERY,
	ARG_FULL_AT,
	ARG_OVERLAP,
	ARG_DELETE_LIMIT
};

/* A subscription that is being made: what of the row is not in an HxSubscription, too. */
typedef struct Making
{
	HxSubscription subscription;
	const char *mode;			/* NULL: what the list can do */
	const char *deletes;
	const char *on_drift;
	Interval   *every;			/* NULL: by hand only */
	Interval   *full_every;
	Datum		full_at;
	bool		has_full_at;
	Interval   *overlap;
} Making;

/* ---- arguments ---- */

static void
refuse_null(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", name, "null")));
}

/* A word of a fixed list, and which of them it is. */
static const char *
word_arg(FunctionCallInfo fcinfo, int n, const char *name, const char *const *words, int *which)
{
	StringInfoData list;
	char	   *word;

	refuse_null(fcinfo, n, name);
	word = text_to_cstring(PG_GETARG_TEXT_PP(n));
	initStringInfo(&list);
	for (*which = 0; words[*which] != NULL; (*which)++)
	{
		if (strcmp(word, words[*which]) == 0)
			return word;
		appendStringInfo(&list, "%s%s", *which == 0 ? "" : words[*which + 1] == NULL ? " and " : ", ", words[*which]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for argument \"%s\": \"%s\"", name, word),
			 errhint("The values are %s.", list.data)));
}

static int64
interval_us(const Interval *interval)
{
	double		days = interval->month * (double) DAYS_PER_MONTH + interval->day;

	/* what is out of all bounds must not overflow */
	if (fabs(days) * USECS_PER_DAY > LONGEST_US || interval->time > LONGEST_US || interval->time < -LONGEST_US)
		return days < 0 || interval->time < 0 ? -1 : LONGEST_US + 1;
	return (int64) days * USECS_PER_DAY + interval->time;
}

static Interval *
interval_arg(FunctionCallInfo fcinfo, int n, const char *name, int64 shortest)
{
	Interval   *interval = PG_ARGISNULL(n) ? NULL : PG_GETARG_INTERVAL_P(n);

	if (interval != NULL && (interval_us(interval) < shortest || interval_us(interval) > LONGEST_US))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\": \"%s\"", name,
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)))),
				 shortest > 0 ? errhint("It is at least one second, and at most 100 years.")
				 : errhint("It is not negative, and at most 100 years.")));
	return interval;
}

static Jsonb *
object_arg(FunctionCallInfo fcinfo, int n, const char *name, const char *example)
{
	Jsonb	   *object = PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);

	if (object != NULL && !JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON object", name),
				 errhint("Like %s.", example)));
	return object;
}

/* Columns by name, or an array of those that have the same name in both tables. */
static Jsonb *
columns_arg(FunctionCallInfo fcinfo)
{
	Jsonb	   *columns = PG_ARGISNULL(ARG_COLUMNS) ? NULL : PG_GETARG_JSONB_P(ARG_COLUMNS);
	HxJsonBuilder builder;
	ListCell   *cell;

	if (columns == NULL || !JB_ROOT_IS_ARRAY(columns) || JB_ROOT_IS_SCALAR(columns))
		return object_arg(fcinfo, ARG_COLUMNS, "columns",
						  "{\"column of the target\": \"column of the foreign table\"}, or an array of names");
	hx_json_begin(&builder);
	foreach(cell, hx_json_elements(columns))
	{
		const JsonbValue *value = lfirst(cell);
		char	   *name = value->type == jbvString ? hx_json_value_text(value) : NULL;

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" must name columns", "columns"),
					 errhint("Like [\"number\", \"notes\"].")));
		hx_json_add_text(&builder, name, name);
	}
	return hx_json_end(&builder);
}

static char *
name_arg(FunctionCallInfo fcinfo)
{
	char	   *name;

	refuse_null(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("the name of a subscription must not be empty")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("subscription name \"%s\" is too long", name),
				 errdetail("It has %zu bytes; %d are the most.", strlen(name), NAMEDATALEN - 1)));
	return name;
}

static void
read_arguments(FunctionCallInfo fcinfo, Making *making)
{
	static const char *const modes[] = {"incremental", "full", "both", NULL};
	static const char *const deletes[] = {"delete", "mark", "ignore", NULL};
	static const char *const drifts[] = {"error", "null", "ignore", NULL};
	HxSubscription *subscription = &making->subscription;
	int			which;

	subscription->name = name_arg(fcinfo);
	subscription->owner = GetUserId();
	refuse_null(fcinfo, ARG_FOREIGN_TABLE, "foreign_table");
	subscription->foreign_table = PG_GETARG_OID(ARG_FOREIGN_TABLE);
	refuse_null(fcinfo, ARG_TARGET, "target");

	making->deletes = word_arg(fcinfo, ARG_DELETES, "deletes", deletes, &which);
	subscription->deletes = which == 0 ? HX_DELETES_DELETE : which == 1 ? HX_DELETES_MARK : HX_DELETES_IGNORE;
	making->on_drift = word_arg(fcinfo, ARG_ON_DRIFT, "on_drift", drifts, &which);
	subscription->on_drift = which == 0 ? HX_DRIFT_ERROR : which == 1 ? HX_DRIFT_NULL : HX_DRIFT_IGNORE;
	if (!PG_ARGISNULL(ARG_MODE))
	{
		making->mode = word_arg(fcinfo, ARG_MODE, "mode", modes, &which);
		subscription->incremental = which != 1;
		subscription->full = which != 0;
	}

	subscription->columns = columns_arg(fcinfo);
	subscription->filter = object_arg(fcinfo, ARG_FILTER, "filter", "{\"taskTypeID\": 3, \"isClosed\": false}");
	subscription->owners = object_arg(fcinfo, ARG_OWNERS, "owners", "{\"notes\": \"local\", \"company_id\": \"newest\"}");

	making->every = interval_arg(fcinfo, ARG_EVERY, "every", SHORTEST_US);
	making->full_every = interval_arg(fcinfo, ARG_FULL_EVERY, "full_every", SHORTEST_US);
	making->has_full_at = !PG_ARGISNULL(ARG_FULL_AT);
	if (making->has_full_at)
		making->full_at = PG_GETARG_DATUM(ARG_FULL_AT);
	refuse_null(fcinfo, ARG_OVERLAP, "overlap");
	making->overlap = interval_arg(fcinfo, ARG_OVERLAP, "overlap", 0);
	subscription->overlap_us = interval_us(making->overlap);
	refuse_null(fcinfo, ARG_DELETE_LIMIT, "delete_limit");
	subscription->delete_limit = PG_GETARG_FLOAT8(ARG_DELETE_LIMIT);
	if (!(subscription->delete_limit >= 0 && subscription->delete_limit <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"%s\": %g", "delete_limit", subscription->delete_limit),
				 errhint("It is a share of the mirror's rows, from 0 to 1.")));
}

/* The mode that was left open, and how often the whole list is read. */
static void
decide_mode(Making *making, const HxSource *source)
{
	HxSubscription *subscription = &making->subscription;
	static Interval day = {.day = 1};

	if (making->mode == NULL)
	{
		subscription->full = true;
		subscription->incremental = source->modified != NULL;
		making->mode = subscription->incremental ? "both" : "full";
	}
	if (!subscription->full && (making->full_every != NULL || making->has_full_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is not for mode \"%s\"", making->full_every ? "full_every" : "full_at", making->mode),
				 errdetail("In this mode the whole list is read once, to fill the target."),
				 errhint("Use mode => 'both'.")));
	if (!subscription->incremental && making->full_every == NULL)
		making->full_every = making->every;
	else if (subscription->full && making->full_every == NULL && making->every != NULL)
		making->full_every = &day;
}

/* ---- other subscriptions ---- */

/* A subscription that writes the same table, in part at least. */
typedef struct Neighbour
{
	HxSubscription subscription;
	const HxMirror *mirror;		/* of the new one */
	bool		apart;			/* no row can be of both */
} Neighbour;

/*
 * The value that a column of a mirror's key has in all of its rows, as a text
 * by which equal values are the same; NULL where it has no such value.
 */
static const char *
constant_of(const HxMirrorColumn *column)
{
	Oid			input;
	Oid			param;
	Oid			output;
	bool		varlena;

	if (!column->key || column->column->constant == NULL)
		return NULL;
	getTypeInputInfo(column->target_type, &input, &param);
	getTypeOutputInfo(column->target_type, &output, &varlena);
	return OidOutputFunctionCall(output, OidInputFunctionCall(input, unconstify(char *, column->column->constant),
															  param, column->target_typmod));
}

/* Have both a column of the key with one value in all of their rows, and not the same? */
static void
compare_constants(void *arg)
{
	Neighbour  *neighbour = arg;
	HxMirror   *other = hx_mirror_open(&neighbour->subscription);

	for (int i = 0; i < neighbour->mirror->ncolumns; i++)
		for (int k = 0; k < other->ncolumns; k++)
		{
			const char *mine = constant_of(&neighbour->mirror->columns[i]);
			const char *theirs = constant_of(&other->columns[k]);

			if (mine != NULL && theirs != NULL && strcmp(mine, theirs) != 0 &&
				strcmp(neighbour->mirror->columns[i].name, other->columns[k].name) == 0)
				neighbour->apart = true;
		}
}

/* The table itself, and what it is a partition of, and its own partitions, as an oid[]. */
static Datum
same_rows(Oid relid)
{
	List	   *relations = list_concat(find_all_inheritors(relid, NoLock, NULL),
										get_rel_relispartition(relid) ? get_partition_ancestors(relid) : NIL);
	Datum	   *oids = palloc(sizeof(Datum) * list_length(relations));
	int			n = 0;
	ListCell   *cell;

	foreach(cell, relations)
		oids[n++] = ObjectIdGetDatum(lfirst_oid(cell));
	return PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* The other subscriptions of these rows, a List of Neighbour *. */
static List *
find_neighbours(Oid target)
{
	static HxStatement find = {
		"SELECT s.name, s.foreign_table::oid, s.target::oid, s.columns, s.owner::text"
		" FROM hubex.subscription s WHERE s.target::oid = ANY ($1) ORDER BY s.name",
		1, {OIDARRAYOID}
	};
	MemoryContext cxt = CurrentMemoryContext;
	Datum		arg = same_rows(target);
	List	   *neighbours = NIL;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&find, &arg, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Neighbour  *neighbour = MemoryContextAllocZero(cxt, sizeof(Neighbour));
		MemoryContext old;
		bool		isnull;

		neighbour->subscription.name = hx_column_text(row, desc, 1, cxt);
		neighbour->subscription.foreign_table = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
		neighbour->subscription.target = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
		neighbour->subscription.columns = hx_column_jsonb(row, desc, 4, cxt);
		neighbour->subscription.owner = get_role_oid(hx_column_text(row, desc, 5, cxt), true);
		old = MemoryContextSwitchTo(cxt);
		neighbours = lappend(neighbours, neighbour);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return neighbours;
}

/* No row may be of two subscriptions: each would undo what the other does. */
static void
check_neighbours(const HxMirror *mirror)
{
	ListCell   *cell;

	foreach(cell, find_neighbours(mirror->target))
	{
		Neighbour  *neighbour = lfirst(cell);
		char	   *problem;

		neighbour->mirror = mirror;
		(void) hx_attempt_in_database(compare_constants, neighbour, &problem);
		if (!neighbour->apart)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table \"%s\" is the mirror of subscription \"%s\"", get_rel_name(mirror->target),
							neighbour->subscription.name),
					 errdetail("No column of the key tells the rows of the two lists apart."),
					 errhint("Give both foreign tables a column that has a value of its own in each, and make it part of the target's unique index: "
							 "ALTER FOREIGN TABLE %s ADD COLUMN tenant text OPTIONS (constant '...').",
							 quote_identifier(mirror->table->name))));
	}
}

/* ---- the rows ---- */

/* Whoever makes, ends or takes over subscriptions waits for the one who does. */
static void
lock_subscriptions(void)
{
	Oid			relation;
	Oid			owner;

	if (!hx_owner_table("subscription", &relation, &owner))
		hx_owner_report_missing();
	LockRelationOid(relation, ShareRowExclusiveLock);
}

/* The role that a subscription belongs to, palloc'd here; NULL where there is none. */
static char *
find_owner(const char *name)
{
	static HxStatement find = {"SELECT owner::text FROM hubex.subscription WHERE name = $1", 1, {TEXTOID}};
	MemoryContext cxt = CurrentMemoryContext;
	Datum		arg = CStringGetTextDatum(name);
	char	   *found = NULL;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&find, &arg, NULL);
	if (SPI_processed > 0)
		found = hx_column_text(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, cxt);
	SPI_finish();
	hx_owner_leave(&saved);
	return found;
}

static void
insert_subscription(const Making *making)
{
	static HxStatement insert = {
		"INSERT INTO hubex.subscription (name, owner, binding, foreign_table, target, mode, every, full_every, full_at,"
		" \"overlap\", deletes, delete_limit, on_drift, columns, owners, filter)"
		" VALUES ($1, $2::name, $16, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
		16, {TEXTOID, TEXTOID, REGCLASSOID, REGCLASSOID, TEXTOID, INTERVALOID, INTERVALOID, TIMEOID, INTERVALOID,
		TEXTOID, FLOAT8OID, TEXTOID, JSONBOID, JSONBOID, JSONBOID, UUIDOID}
	};
	static HxStatement insert_state = {
		"INSERT INTO hubex.subscription_state (subscription) VALUES ($1)", 1, {TEXTOID}
	};
	const HxSubscription *subscription = &making->subscription;
	Datum		args[16];
	char		nulls[17] = "                ";
	pg_uuid_t	token;
	HxOwner		saved;

	hx_binding_token(&token);

	args[0] = CStringGetTextDatum(subscription->name);
	args[1] = CStringGetTextDatum(GetUserNameFromId(subscription->owner, false));
	args[2] = ObjectIdGetDatum(subscription->foreign_table);
	args[3] = ObjectIdGetDatum(subscription->target);
	args[4] = CStringGetTextDatum(making->mode);
	args[5] = hx_pointer_or_null(making->every, &nulls[5]);
	args[6] = hx_pointer_or_null(making->full_every, &nulls[6]);
	args[7] = making->full_at;
	nulls[7] = making->has_full_at ? ' ' : 'n';
	args[8] = IntervalPGetDatum(making->overlap);
	args[9] = CStringGetTextDatum(making->deletes);
	args[10] = Float8GetDatum(subscription->delete_limit);
	args[11] = CStringGetTextDatum(making->on_drift);
	args[12] = hx_pointer_or_null(subscription->columns, &nulls[12]);
	args[13] = hx_pointer_or_null(subscription->owners, &nulls[13]);
	args[14] = hx_pointer_or_null(subscription->filter, &nulls[14]);
	args[15] = UUIDPGetDatum(&token);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&insert, args, nulls);
	hx_statement_run(&insert_state, args, NULL);
	SPI_finish();
	hx_owner_leave(&saved);
}

/* What argument columns comes to, with the key that need not be named. */
static Jsonb *
all_columns(const HxSource *source, List *columns)
{
	HxJsonBuilder builder;
	ListCell   *cell;

	hx_json_begin(&builder);
	foreach(cell, columns)
	{
		const HxShown *shown = lfirst(cell);

		hx_json_add_text(&builder, shown->name, NameStr(TupleDescAttr(source->desc, shown->source)->attname));
	}
	return hx_json_end(&builder);
}

/* ---- the functions ---- */

/*
 * hubex_subscribe(name, foreign_table, target, ...): from COMMIT on a table is
 * kept in step with a list; one that does not exist is made.  Times are
 * intervals of at least a second.  Errors: a name that is taken (42710), bad
 * arguments (22004, 22023), those of subscribe_check.c, a target whose rows
 * another subscription writes (55006), a standby (25006).
 */
Datum
hubex_subscribe(PG_FUNCTION_ARGS)
{
	Making		making = {0};
	HxSource   *source;
	List	   *columns;
	Relation	target;
	HxMirror   *mirror;
	char	   *owner;

	PreventCommandDuringRecovery("hubex_subscribe()");
	read_arguments(fcinfo, &making);
	lock_subscriptions();
	owner = find_owner(making.subscription.name);
	if (owner != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists", making.subscription.name),
				 errdetail("It belongs to role \"%s\".", owner),
				 errhint("hubex_unsubscribe() ends one; its table stays, and can be the target of the next.")));
	source = hx_subscribe_source(&making.subscription);
	decide_mode(&making, source);

	making.subscription.target = hx_subscribe_target(&making.subscription, source, PG_GETARG_TEXT_PP(ARG_TARGET));
	target = relation_open(making.subscription.target, AccessShareLock);
	hx_subscribe_check_kind(target);
	columns = hx_subscribe_columns(&making.subscription, source, target);
	if (making.subscription.columns != NULL)
		making.subscription.columns = all_columns(source, columns);
	mirror = hx_subscribe_check_target(&making.subscription, target, columns);
	hx_subscribe_check_owners(&making.subscription, source, target, columns);
	check_neighbours(mirror);
	relation_close(target, NoLock);

	insert_subscription(&making);
	if (making.every != NULL || making.full_every != NULL)
		hx_shared_announce_at_commit(HX_WORKER_SYNC);
	if (PG_ARGISNULL(ARG_MODE) && !making.subscription.incremental && making.every != NULL && PG_ARGISNULL(ARG_FULL_EVERY))
		ereport(NOTICE,
				(errmsg("resource \"%s\" cannot say what has changed: every %s the whole list is read",
						source->table->resource->name,
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(making.every)))),
				 errhint("The argument every says how often.")));
	PG_RETURN_VOID();
}

/* May the caller do with a subscription what its owner may? */
static void
check_caller(const char *name, const char *owner)
{
	Oid			role = get_role_oid(owner, true);
	Oid			connectors;
	Oid			tables_owner;

	if (OidIsValid(role) && has_privs_of_role(GetUserId(), role))
		return;
	if (hx_owner_table("connector", &connectors, &tables_owner) &&
		pg_class_aclcheck(connectors, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for subscription %s", name),
			 errdetail("It belongs to role \"%s\".", owner)));
}

/*
 * hubex_unsubscribe(name): from COMMIT on its target is an ordinary table,
 * with the rows it has.  Errors: no such subscription (42704), that of another
 * role (42501), a standby (25006).
 */
Datum
hubex_unsubscribe(PG_FUNCTION_ARGS)
{
	/* as a run that applies something does first, too */
	static HxStatement lock = {
		"SELECT FROM hubex.subscription_state WHERE subscription = $1 FOR UPDATE", 1, {TEXTOID}
	};
	static HxStatement forget = {"DELETE FROM hubex.subscription WHERE name = $1", 1, {TEXTOID}};
	char	   *name;
	char	   *owner;
	Datum		arg;
	HxOwner		saved;

	PreventCommandDuringRecovery("hubex_unsubscribe()");
	name = name_arg(fcinfo);
	lock_subscriptions();
	owner = find_owner(name);
	if (owner == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name)));
	check_caller(name, owner);
	arg = CStringGetTextDatum(name);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&lock, &arg, NULL);
	hx_statement_run(&forget, &arg, NULL);
	SPI_finish();
	hx_owner_leave(&saved);
	hx_shared_wake_at_commit(HX_WORKER_SYNC, PG_INT64_MIN);
	PG_RETURN_VOID();
}
