/*-------------------------------------------------------------------------
 *
 * pending_store.c
 *	  hubex.pending(), hubex_pending_view(): what of a mirror is still on its
 *	  way to the remote side.
 *
 * The view is an ordinary one over the mirror, of the one who has it made: each
 * row with what is pending of it, and besides the rows that are to be created,
 * and those that are to be deleted.  It shows what its reader may see of the
 * mirror, and of what is on its way: everything, who may read the whole
 * mirror; the role's own, where row-level security decides what it sees.
 *
 * A record that is delivered and not yet in the mirror is pending; as soon as
 * it is there, the mirror shows it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"
#include "utils/varlena.h"

#include "base/owner.h"
#include "base/statement_store.h"
#include "sync/two_way.h"

PG_FUNCTION_INFO_V1(hubex_pending);
PG_FUNCTION_INFO_V1(hubex_pending_view);

enum
{
	PENDING_KEY,
	PENDING_OPERATION,
	PENDING_STATE,
	PENDING_REQUEST,
	PENDING_FIELDS,
	PENDING_COLUMNS
};

/* Which target a subscription has; an error (42501) where the caller may not read it. */
static Oid
readable_target(const char *name)
{
	static HxStatement find = {"SELECT target::oid FROM hubex.subscription WHERE name = $1", 1, {TEXTOID}};
	Datum		arg = CStringGetTextDatum(name);
	Oid			target = InvalidOid;
	bool		isnull;
	HxOwner		saved;

	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_read(&find, &arg, NULL);
	if (SPI_processed > 0)
		target = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	hx_owner_leave(&saved);
	if (!OidIsValid(target))
		hx_subscription_report_missing(name);
	if (get_rel_name(target) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the target of subscription \"%s\" does not exist any more", name)));
	if (pg_class_aclcheck(target, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(target));
	return target;
}

/*
 * hubex.pending(subscription) -> (key, operation, state, request, fields): what
 * was changed in a mirror and has not been seen to have come to its end.  The
 * fields are by the mirror's columns: those that change, or the row that is
 * created or deleted.  Of a row that is deleted, only that is pending.
 */
Datum
hubex_pending(PG_FUNCTION_ARGS)
{
	static HxStatement list = {
		"SELECT CASE WHEN l.kind = 'create' THEN max(o.remote_id) ELSE l.key END, l.kind,"
		"       COALESCE((array_agg(o.state ORDER BY l.request_id DESC))[1], 'delivered'), max(l.request_id),"
		"       CASE l.kind WHEN 'create' THEN (array_agg(l.local))[1] WHEN 'delete' THEN (array_agg(l.remote))[1]"
		"            ELSE jsonb_object_agg(l.column_name, l.local) END"
		"  FROM hubex.local_change l LEFT JOIN hubex.outbox o ON o.id = l.request_id"
		" WHERE l.subscription = $1 AND l.state = 'open' AND ($2 IS NULL OR o.owner = $2)"
		"   AND NOT (l.kind = 'update' AND EXISTS (SELECT FROM hubex.local_change d"
		"            WHERE d.subscription = $1 AND d.key = l.key AND d.kind = 'delete'))"
		" GROUP BY l.key, l.kind ORDER BY max(l.request_id)",
		2, {TEXTOID, TEXTOID}
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Oid			target = readable_target(name);
	bool		restricted = check_enable_rls(target, GetUserId(), true) == RLS_ENABLED;
	Datum		args[2];
	char		nulls[3] = "  ";
	HxOwner		saved;

	InitMaterializedSRF(fcinfo, 0);
	args[0] = CStringGetTextDatum(name);
	args[1] = hx_text_or_null(restricted ? GetUserNameFromId(GetUserId(), false) : NULL, &nulls[1]);
	hx_owner_enter(&saved);
	SPI_connect();
	hx_statement_read(&list, args, nulls);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[PENDING_COLUMNS];
		bool		isnull[PENDING_COLUMNS];

		for (int c = 0; c < PENDING_COLUMNS; c++)
			values[c] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, c + 1, &isnull[c]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	SPI_finish();
	hx_owner_leave(&saved);
	return (Datum) 0;
}

/* ---- the view ---- */

/* The name of a view as it was given, with quotes where it needs them. */
static char *
quoted_name(const char *given)
{
	List	   *names = textToQualifiedNameList(cstring_to_text(given));

	return NameListToQuotedString(names);
}

/* What the view says of a row besides. */
static const char *const says[][2] = {
	{"hubex_pending", "operation"},
	{"hubex_state", "state"},
	{"hubex_request", "request"}
};

static bool
says_column(const char *name)
{
	for (int i = 0; i < lengthof(says); i++)
		if (strcmp(says[i][0], name) == 0)
			return true;
	return false;
}

/* Adds the columns of a table or view to names, unless they are there; of what is not there any more, none. */
static List *
add_names(List *names, Oid relation)
{
	Relation	table = relation_open(relation, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(table);

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			names = list_append_unique(names, makeString(pstrdup(NameStr(TupleDescAttr(desc, i)->attname))));
	relation_close(table, NoLock);
	return names;
}

/*
 * The columns of the view, in order: of one that is there already first those
 * it has, for it can be replaced only by one with some more.
 */
static List *
view_columns(const HxMirror *mirror, const char *view)
{
	List	   *names = textToQualifiedNameList(cstring_to_text(view));
	Oid			there = RangeVarGetRelid(makeRangeVarFromNameList(names), AccessShareLock, true);
	List	   *columns = NIL;

	if (OidIsValid(there) && get_rel_relkind(there) == RELKIND_VIEW)
		columns = add_names(columns, there);
	columns = add_names(columns, mirror->target);
	for (int i = 0; i < lengthof(says); i++)
		columns = list_append_unique(columns, makeString(unconstify(char *, says[i][0])));
	return columns;
}

/* Adds the columns of the view, as they stand in a row of the mirror and in one of what is pending. */
static void
add_columns(StringInfo sql, List *columns, const HxMirror *mirror, const char *row)
{
	const char *comma = "";
	ListCell   *cell;

	foreach(cell, columns)
	{
		const char *name = strVal(lfirst(cell));

		for (int i = 0; i < lengthof(says); i++)
			if (strcmp(says[i][0], name) == 0)
				appendStringInfo(sql, "%sp.%s AS %s", comma, says[i][1], name);
		if (!says_column(name) && get_attnum(mirror->target, name) > 0)
			appendStringInfo(sql, "%s%s.%s", comma, row, quote_identifier(name));
		comma = ", ";
	}
}

/* Adds the columns of the target with their types; its row type would forbid some of what ALTER TABLE does. */
static void
add_types(StringInfo sql, const HxMirror *mirror)
{
	Relation	target = relation_open(mirror->target, NoLock);
	TupleDesc	desc = RelationGetDescr(target);
	const char *comma = "";

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		appendStringInfo(sql, "%s%s %s", comma, quote_identifier(NameStr(attribute->attname)),
						 format_type_extended(attribute->atttypid, attribute->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(attribute->attcollation) && attribute->attcollation != get_typcollation(attribute->atttypid))
			appendStringInfo(sql, " COLLATE %s", generate_collation_name(attribute->attcollation));
		comma = ", ";
	}
	relation_close(target, NoLock);
}

/* Adds the condition that a row of the target is the one of a pending key, p.key. */
static void
add_condition(StringInfo sql, const HxMirror *mirror)
{
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const HxMirrorColumn *column = &mirror->columns[i];
		const char *constant = column->column->constant;

		if (i == mirror->record_key)
			appendStringInfo(sql, " AND m.%s = CAST(p.key AS %s)", quote_identifier(column->name),
							 format_type_be_qualified(column->target_type));
		else if (constant != NULL && column->attno != InvalidAttrNumber)
			appendStringInfo(sql, " AND m.%s = CAST(%s AS %s)", quote_identifier(column->name),
							 quote_literal_cstr(constant), format_type_be_qualified(column->target_type));
	}
}

static char *
view_sql(const HxMirror *mirror, const char *subscription, const char *view)
{
	const char *from = psprintf("hubex.pending(%s)", quote_literal_cstr(subscription));
	List	   *columns = view_columns(mirror, view);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS SELECT ", view);
	add_columns(&sql, columns, mirror, "m");
	appendStringInfo(&sql, " FROM %s AS m LEFT JOIN %s AS p ON p.operation = 'update'", mirror->target_name, from);
	add_condition(&sql, mirror);
	appendStringInfoString(&sql, " UNION ALL SELECT ");
	add_columns(&sql, columns, mirror, "r");
	appendStringInfo(&sql, " FROM %s AS p CROSS JOIN LATERAL pg_catalog.jsonb_to_record(p.fields) AS r (", from);
	add_types(&sql, mirror);
	appendStringInfo(&sql, ") WHERE p.operation IN ('create', 'delete') AND NOT EXISTS (SELECT FROM %s AS m WHERE true",
					 mirror->target_name);
	add_condition(&sql, mirror);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* A view of that name that has other columns cannot be replaced: PostgreSQL's own error, and what to do. */
static void
add_hint(void *arg)
{
	int			code = geterrcode();

	if (code == ERRCODE_INVALID_TABLE_DEFINITION)
		errhint("The mirror has other columns now. DROP VIEW %s, and make it again.", (const char *) arg);
}

static void
run_as_caller(const char *sql, char *view)
{
	ErrorContextCallback context = {.callback = add_hint,.arg = view,.previous = error_context_stack};

	error_context_stack = &context;
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not make a view: %s", SPI_result_code_string(SPI_result));
	SPI_finish();
	error_context_stack = context.previous;
}

/*
 * hubex_pending_view(subscription, view): makes the view, or makes it again
 * after the mirror was altered.  Errors: no such subscription (42704); a
 * target that the caller may not read (42501); those of CREATE VIEW.
 */
Datum
hubex_pending_view(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *view = quoted_name(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	HxSubscription *subscription;
	HxMirror   *mirror;

	(void) readable_target(name);
	subscription = hx_subscription_load(name, false);
	if (subscription == NULL)
		hx_subscription_report_missing(name);
	mirror = hx_mirror_open(subscription);
	run_as_caller(view_sql(mirror, name, view), view);
	run_as_caller(psprintf("COMMENT ON VIEW %s IS %s", view,
						   quote_literal_cstr(psprintf("The mirror %s, with what of it is on its way to the remote side", mirror->target_name))),
				  view);
	PG_RETURN_VOID();
}
