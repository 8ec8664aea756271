/*-------------------------------------------------------------------------
 *
 * inspect_store.c
 *	  hubex.check_subscription(): is a subscription still what it must be?
 *
 * Between two runs tables are altered, dropped and made anew, roles and rights
 * go, a connector's manifest changes.  What was asked when the subscription
 * was made is asked again for hubex_check(), in the same words.  Beyond that
 * it tells of columns that only one of the two tables has: the list may have
 * got one that the mirror could show, or the mirror one that nothing fills any
 * more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/owner.h"
#include "base/statement_store.h"
#include "sync/subscribe.h"

PG_FUNCTION_INFO_V1(hubex_check_subscription);

/* Reads what a subscription says, and its role's name. */
static void
read_subscription(const char *name, HxSubscription *subscription, char **owner)
{
	static HxStatement find = {
		"SELECT owner::text, foreign_table::oid, target::oid, mode IN ('incremental', 'both'), deletes = 'mark',"
		" columns, owners, filter FROM hubex.subscription WHERE name = $1",
		1, {TEXTOID}
	};
	MemoryContext cxt = CurrentMemoryContext;
	Datum		arg = CStringGetTextDatum(name);
	HxOwner		saved;
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_run(&find, &arg, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", name)));
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	subscription->name = pstrdup(name);
	*owner = hx_column_text(row, desc, 1, cxt);
	subscription->foreign_table = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	subscription->target = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
	subscription->incremental = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
	subscription->deletes = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull)) ? HX_DELETES_MARK : HX_DELETES_DELETE;
	subscription->columns = hx_column_jsonb(row, desc, 6, cxt);
	subscription->owners = hx_column_jsonb(row, desc, 7, cxt);
	subscription->filter = hx_column_jsonb(row, desc, 8, cxt);
	SPI_finish();
	hx_owner_leave(&saved);
}

static Relation
open_table(const HxSubscription *subscription, Oid relid, const char *what)
{
	Relation	relation = try_relation_open(relid, AccessShareLock);

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the %s of subscription \"%s\" does not exist any more", what, subscription->name),
				 errhint("hubex_unsubscribe() ends the subscription; hubex_subscribe() can then make another, of the same name.")));
	return relation;
}

static void
put(ReturnSetInfo *result, const char *what, const char *column, const char *type)
{
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = CStringGetTextDatum(what);
	values[1] = CStringGetTextDatum(column);
	values[2] = CStringGetTextDatum(type);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static bool
shows_attribute(List *columns, AttrNumber attno)
{
	ListCell   *cell;

	foreach(cell, columns)
		if (((HxShown *) lfirst(cell))->attno == attno)
			return true;
	return false;
}

/* Columns of the target with the name of one of the list's, which the foreign table has not. */
static void
put_lost(ReturnSetInfo *result, const HxSubscription *subscription, const HxSource *source, Relation target,
		 List *columns)
{
	TupleDesc	desc = RelationGetDescr(target);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		const HxColumn *known = attribute->attisdropped ? NULL :
			hx_resource_column(source->table->resource, NameStr(attribute->attname));

		if (known == NULL || attribute->attgenerated || strcmp(known->path, HX_PATH_FILTER) == 0 ||
			shows_attribute(columns, attribute->attnum) ||
			(subscription->deletes == HX_DELETES_MARK && strcmp(known->name, "deleted") == 0))
			continue;
		put(result, "lost", known->name, known->type);
	}
}

/*
 * hubex.check_subscription(name) -> (what, column, type): columns that are
 * shown by nothing of the target ("unshown"), or show nothing of the list any
 * more ("lost"); of subscriptions that leave it to the names.  Errors: no such
 * subscription or role (42704), a table that is gone (42P01), and those of
 * hubex_subscribe().
 */
Datum
hubex_check_subscription(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	HxSubscription subscription = {0};
	HxSource   *source;
	Relation	target;
	List	   *columns;
	char	   *owner;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	read_subscription(text_to_cstring(PG_GETARG_TEXT_PP(0)), &subscription, &owner);
	subscription.owner = get_role_oid(owner, true);
	if (!OidIsValid(subscription.owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist any more", owner),
				 errdetail("It is who subscription \"%s\" acts as.", subscription.name),
				 errhint("hubex_unsubscribe() ends the subscription; another role can then subscribe with the same table.")));

	if (RecoveryInProgress())
		return (Datum) 0;		/* its primary's affair */
	relation_close(open_table(&subscription, subscription.foreign_table, "foreign table"), NoLock);
	target = open_table(&subscription, subscription.target, "target");
	hx_subscribe_check_kind(target);
	source = hx_subscribe_source(&subscription);
	columns = hx_subscribe_columns(&subscription, source, target);
	(void) hx_subscribe_check_target(&subscription, target, columns);
	hx_subscribe_check_owners(&subscription, source, target, columns);
	if (subscription.columns == NULL)
	{
		foreach(cell, hx_subscribe_unshown(source, columns))
		{
			Form_pg_attribute attribute = TupleDescAttr(source->desc, lfirst_int(cell));

			put(result, "unshown", NameStr(attribute->attname),
				format_type_with_typemod(attribute->atttypid, attribute->atttypmod));
		}
		put_lost(result, &subscription, source, target, columns);
	}
	relation_close(target, NoLock);
	return (Datum) 0;
}
