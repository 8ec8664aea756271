/*-------------------------------------------------------------------------
 *
 * mirror.c
 *	  Which column of a target shows what of a record.
 *
 * Both tables belong to somebody else and may be altered at any time, so all
 * of this is found out anew in each transaction.  A column takes part where
 * both tables have it and the target's can be written: not one that is
 * generated, nor one that is an identity (GENERATED ALWAYS), except as the
 * key.  What either side lost is left out; what the target has besides is
 * its own affair.
 *
 * Rows are told apart by a unique index of the target over the record's key,
 * with or without columns that are constant in the foreign table: the key of
 * a partition that holds one of several tenants, say.  An index of a
 * partitioned table has to have the columns it is partitioned by; so there may
 * be others besides whose values never change, as the connector says: where a
 * record has one value of them for good, no two rows can be of one record.
 * Such a column does not tell rows apart: they are found by the key alone.
 *
 * Values are read as the foreign table's type and then cast to the target's
 * as an assignment is, once, here; so everything behind works with values as
 * the target has them.
 *
 * What is written and looked up by SQL has to mean just that, so a target is
 * refused whose rules or policies would have it mean something else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"

#include "connector/options.h"
#include "sync/sync.h"

#define SYNCED_AT	"synced_at"
#define MARKED		"deleted"

/* ---- the two tables ---- */

static Relation
open_relation(const HxSubscription *subscription, Oid relid, LOCKMODE mode, const char *what)
{
	Relation	relation = try_relation_open(relid, mode);

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the %s of subscription \"%s\" does not exist any more", what, subscription->name),
				 errhint("SELECT hubex_unsubscribe(%s) ends the subscription.", quote_literal_cstr(subscription->name))));
	return relation;
}

static void
check_foreign_table(const HxSubscription *subscription, Relation relation)
{
	ForeignServer *server = NULL;
	ForeignDataWrapper *fdw = NULL;

	if (relation->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
	{
		server = GetForeignServer(GetForeignTable(RelationGetRelid(relation))->serverid);
		fdw = GetForeignDataWrapper(server->fdwid);
	}
	if (fdw == NULL || strcmp(fdw->fdwname, "hubex_fdw") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a foreign table of hubex_fdw", RelationGetRelationName(relation)),
				 errcontext("subscription \"%s\"", subscription->name)));
}

static void
refuse_target(Relation target, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" cannot be a mirror", RelationGetRelationName(target)),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * As whom rows are written, and the target's triggers run: as its owner, or who
 * owns a table could have a mightier role's rights by a trigger; where the
 * subscription's owner may not act as that role, as himself.
 */
static Oid
find_writer(const HxSubscription *subscription, Relation target)
{
	Oid			owner = target->rd_rel->relowner;

	return has_privs_of_role(subscription->owner, owner) ? owner : subscription->owner;
}

static void
check_target(const HxMirror *mirror, Relation target)
{
	char		kind = target->rd_rel->relkind;

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		refuse_target(target, "It is not a table.", NULL);
	if (target->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_target(target, "It is a temporary table, which only one session can see.", NULL);
	if (target->rd_rules != NULL && target->rd_rules->numLocks > 0)
		refuse_target(target, "It has rules, which would have its rows written differently.",
					  "Use triggers instead.");
	if (check_enable_rls(RelationGetRelid(target), mirror->writer, true) == RLS_ENABLED)
		refuse_target(target, psprintf("Its row security applies to role \"%s\", so not all of its rows can be seen.",
									   GetUserNameFromId(mirror->writer, false)),
					  "Let its owner subscribe, without FORCE ROW LEVEL SECURITY, or a role with BYPASSRLS.");
}

/* ---- the columns ---- */

/* A column of the target and that of the foreign table whose values it shows. */
typedef struct Mapping
{
	List	   *pairs;			/* of HxPair *; by the target's names */
} Mapping;

static void
add_pair(const char *name, const JsonbValue *value, void *arg)
{
	Mapping    *mapping = arg;

	mapping->pairs = lappend(mapping->pairs, hx_http_pair(pstrdup(name), hx_json_value_text(value)));
}

/* What an object of the subscription says of a column; NULL: nothing. */
static const char *
said_of(const Mapping *mapping, const char *name)
{
	ListCell   *cell;

	foreach(cell, mapping->pairs)
		if (strcmp(((HxPair *) lfirst(cell))->name, name) == 0)
			return ((HxPair *) lfirst(cell))->value;
	return NULL;
}

static HxColumnOwner
owner_of(const Mapping *owners, const char *name)
{
	const char *owner = said_of(owners, name);

	if (owner != NULL && strcmp(owner, "local") == 0)
		return HX_OWNER_LOCAL;
	if (owner != NULL && strcmp(owner, "newest") == 0)
		return HX_OWNER_NEWEST;
	return HX_OWNER_REMOTE;
}

/* The cast from what is read to what is stored, of the value in a CaseTestExpr; NULL: they are the same. */
static Node *
make_cast(const HxMirrorColumn *column, Oid collation)
{
	CaseTestExpr *value = makeNode(CaseTestExpr);
	Node	   *cast;

	if (column->type == column->target_type &&
		(column->target_typmod < 0 || column->target_typmod == column->typmod))
		return NULL;
	value->typeId = column->type;
	value->typeMod = column->typmod;
	value->collation = collation;
	cast = coerce_to_target_type(NULL, (Node *) value, column->type, column->target_type, column->target_typmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (cast == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of the mirror is of type %s, which a value of type %s does not become by itself",
						column->name, format_type_be(column->target_type), format_type_be(column->type)),
				 errhint("Change the column, or CREATE CAST ... AS ASSIGNMENT.")));

	/* The same bytes under another name. */
	if (IsA(cast, RelabelType) && ((RelabelType *) cast)->arg == (Expr *) value)
		return NULL;
	return (Node *) expression_planner((Expr *) cast);
}

/* Takes in a column of the target, if it shows one of the foreign table's. */
static void
add_column(HxMirror *mirror, TupleDesc foreign, Form_pg_attribute attribute, const Mapping *names,
		   const Mapping *owners)
{
	const char *name = NameStr(attribute->attname);
	const char *source = mirror->subscription->columns ? said_of(names, name) : name;
	AttrNumber	shown = source ? get_attnum(mirror->table->relid, source) : InvalidAttrNumber;
	HxMirrorColumn *column = &mirror->columns[mirror->ncolumns];
	Form_pg_attribute from;

	if (shown <= 0 || mirror->table->columns[shown - 1] == NULL || hx_table_is_filter(mirror->table, shown))
		return;
	from = TupleDescAttr(foreign, shown - 1);
	column->name = pstrdup(name);
	column->attno = attribute->attnum;
	column->column = mirror->table->columns[shown - 1];
	column->type = from->atttypid;
	column->typmod = from->atttypmod;
	column->target_type = attribute->atttypid;
	column->target_typmod = attribute->atttypmod;
	column->cast = make_cast(column, from->attcollation);
	column->owner = owner_of(owners, name);
	mirror->ncolumns++;
}

static void
find_columns(HxMirror *mirror, TupleDesc foreign, TupleDesc target)
{
	Mapping		names = {NIL};
	Mapping		owners = {NIL};

	hx_json_each(mirror->subscription->columns, add_pair, &names);
	hx_json_each(mirror->subscription->owners, add_pair, &owners);

	/* one more, for a column that the target need not have */
	mirror->columns = palloc0((target->natts + 1) * sizeof(HxMirrorColumn));
	for (int i = 0; i < target->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(target, i);

		if (!attribute->attisdropped && !attribute->attgenerated)
			add_column(mirror, foreign, attribute, &names, &owners);
	}
}

static HxMirrorColumn *
column_of(HxMirror *mirror, AttrNumber attno)
{
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->columns[i].attno == attno)
			return &mirror->columns[i];
	return NULL;
}

/* ---- the key ---- */

static bool
may_be_key(const HxMirror *mirror, const HxMirrorColumn *column)
{
	return column == &mirror->columns[mirror->record_key] || column->column->constant != NULL;
}

/* Does a column show a place in the records whose value never changes? */
static bool
is_stable(const HxMirror *mirror, const HxMirrorColumn *column)
{
	const HxResource *resource = mirror->table->resource;
	ListCell   *cell;

	foreach(cell, resource->orders)
	{
		const HxColumnOrder *order = lfirst(cell);
		const HxColumn *known = hx_resource_column(resource, order->column);

		if (order->stable && known != NULL && !column->column->present &&
			strcmp(known->path, column->column->path) == 0)
			return true;
	}
	return false;
}

/* The number of columns of a unique index that tell the rows apart; 0: it does not. */
static int
key_columns(HxMirror *mirror, Relation target, Relation index)
{
	Form_pg_index form = index->rd_index;
	bool		has_key = false;
	int			n = 0;

	if (!form->indisunique || !form->indisvalid || !form->indimmediate ||
		RelationGetIndexPredicate(index) != NIL || RelationGetIndexExpressions(index) != NIL)
		return 0;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		HxMirrorColumn *column = column_of(mirror, form->indkey.values[i]);

		if (column == NULL || (!may_be_key(mirror, column) && !is_stable(mirror, column)) ||
			index->rd_indcollation[i] != TupleDescAttr(RelationGetDescr(target), column->attno - 1)->attcollation)
			return 0;
		has_key |= column == &mirror->columns[mirror->record_key];
		n += may_be_key(mirror, column);
	}
	return has_key ? n : 0;
}

/* The columns by which rows could be told apart, quoted: those that are constant first. */
static char *
key_names(const HxMirror *mirror)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < mirror->ncolumns; i++)
		if (i != mirror->record_key && may_be_key(mirror, &mirror->columns[i]))
			appendStringInfo(&names, "%s, ", quote_identifier(mirror->columns[i].name));
	appendStringInfoString(&names, quote_identifier(mirror->columns[mirror->record_key].name));
	return names.data;
}

static void
set_indexed(HxMirrorColumn *column, Relation index, int n)
{
	column->indexed = true;
	column->equal = get_opfamily_member(index->rd_opfamily[n], index->rd_opcintype[n], index->rd_opcintype[n],
										BTEqualStrategyNumber);
	if (!OidIsValid(column->equal))
		elog(ERROR, "index \"%s\" has no operator of equality", RelationGetRelationName(index));
}

/*
 * Marks the columns of the key: those of the index that tells rows apart by
 * the most of them, and with the fewest besides.
 */
static void
find_key(HxMirror *mirror, Relation target)
{
	int			most = 0;
	int			width = 0;
	ListCell   *cell;

	mirror->record_key = -1;
	for (int i = mirror->ncolumns - 1; i >= 0; i--)
		if (strcmp(mirror->columns[i].column->path, HX_PATH_KEY) == 0)
			mirror->record_key = i;
	if (mirror->record_key < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
				 errmsg("no column of mirror \"%s\" shows the key of the records", RelationGetRelationName(target)),
				 errdetail("The foreign table is \"%s\".", mirror->table->name)));

	foreach(cell, RelationGetIndexList(target))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		int			n = key_columns(mirror, target, index);

		if (n > most || (n > 0 && n == most && index->rd_index->indnkeyatts < width))
		{
			most = n;
			width = index->rd_index->indnkeyatts;
			for (int i = 0; i < mirror->ncolumns; i++)
				mirror->columns[i].key = mirror->columns[i].indexed = false;
			for (int i = 0; i < width; i++)
			{
				HxMirrorColumn *column = column_of(mirror, index->rd_index->indkey.values[i]);

				set_indexed(column, index, i);
				column->key = may_be_key(mirror, column);
			}
		}
		index_close(index, AccessShareLock);
	}
	if (most == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("mirror \"%s\" has no unique index over its column \"%s\"", RelationGetRelationName(target),
						mirror->columns[mirror->record_key].name),
				 target->rd_rel->relkind == RELKIND_PARTITIONED_TABLE
				 ? errdetail("It may have columns besides that are constant in the foreign table, or that never change, as those the table is partitioned by; but no condition and no expressions.")
				 : errdetail("It may have columns besides that are constant in the foreign table, but no condition and no expressions."),
				 errhint("CREATE UNIQUE INDEX ON %s (%s%s).", mirror->target_name, key_names(mirror),
						 target->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? ", ..." : "")));
}

/* Leaves out what cannot be changed once a row is there, except for the key. */
static void
drop_identities(HxMirror *mirror, TupleDesc target)
{
	int			kept = 0;

	for (int i = 0; i < mirror->ncolumns; i++)
	{
		const HxMirrorColumn *column = &mirror->columns[i];

		if (TupleDescAttr(target, column->attno - 1)->attidentity == ATTRIBUTE_IDENTITY_ALWAYS && !column->indexed)
			continue;
		if (i == mirror->record_key)
			mirror->record_key = kept;
		mirror->columns[kept++] = *column;
	}
	mirror->ncolumns = kept;
}

/* ---- times ---- */

/* The resource's column for when a record was changed last; NULL: it has none. */
static HxColumn *
modified_column(const HxTable *table)
{
	return table->resource->modified ? hx_resource_column(table->resource, table->resource->modified) : NULL;
}

static void
find_modified(HxMirror *mirror)
{
	HxColumn   *modified = modified_column(mirror->table);
	HxMirrorColumn *column = &mirror->columns[mirror->ncolumns];

	mirror->modified = -1;
	if (modified == NULL)
		return;
	for (int i = 0; i < mirror->ncolumns; i++)
		if (strcmp(mirror->columns[i].column->path, modified->path) == 0 && !mirror->columns[i].column->present)
			mirror->modified = i;
	if (mirror->modified >= 0)
		return;
	column->name = modified->name;
	column->attno = InvalidAttrNumber;
	column->column = modified;
	column->type = column->target_type = TIMESTAMPTZOID;
	column->typmod = column->target_typmod = -1;
	mirror->modified = mirror->ncolumns++;
}

/* A column of the target that shows nothing of the records and is of a type; NULL: there is none. */
static const char *
own_column(HxMirror *mirror, TupleDesc target, const char *name, bool any_time)
{
	for (int i = 0; i < target->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(target, i);
		Oid			type = attribute->attisdropped ? InvalidOid : getBaseType(attribute->atttypid);

		if (attribute->attisdropped || attribute->attgenerated || strcmp(NameStr(attribute->attname), name) != 0)
			continue;
		if (column_of(mirror, attribute->attnum) == NULL &&
			(type == TIMESTAMPTZOID || (any_time && (type == TIMESTAMPOID || type == DATEOID))))
			return pstrdup(name);
	}
	return NULL;
}

static void
find_mark(HxMirror *mirror, TupleDesc target)
{
	mirror->mark = -1;
	if (mirror->subscription->deletes != HX_DELETES_MARK)
		return;
	for (int i = 0; i < mirror->ncolumns; i++)
		if (mirror->deleted_path != NULL && strcmp(mirror->columns[i].column->path, mirror->deleted_path) == 0 &&
			!mirror->columns[i].column->present && mirror->columns[i].type == TIMESTAMPTZOID)
			mirror->mark = i;
	mirror->marked = mirror->mark >= 0 ? mirror->columns[mirror->mark].name : own_column(mirror, target, MARKED, true);
	if (mirror->marked == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("mirror %s has no column that says when a row was deleted", mirror->target_name),
				 errhint("ALTER TABLE %s ADD COLUMN deleted timestamptz.", mirror->target_name)));
}

/*
 * Where records say that they are deleted.  A foreign table that shows deleted
 * records has them as rows, and so has its mirror; unless it says how else.
 */
static const char *
deleted_path(const HxMirror *mirror)
{
	const char *shown = hx_option_get(GetForeignTable(mirror->table->relid)->options, "include_deleted");
	bool		includes = false;

	if (shown != NULL)
		(void) parse_bool(shown, &includes);
	return includes && mirror->subscription->deletes == HX_DELETES_DELETE ? NULL : mirror->table->resource->deleted;
}

/*
 * Has the target a trigger that sends off what is changed here?  Rows come and
 * go by it also where every column is the remote side's.
 */
static bool
sends_changes(Relation target)
{
	const TriggerDesc *triggers = target->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const char *function = get_func_name(triggers->triggers[i].tgfoid);

		if (function != NULL && strcmp(function, "hubex_mirror_trigger") == 0)
			return true;
	}
	return false;
}

/* ---- all of it ---- */

static HxMirror *
make_mirror(const HxSubscription *subscription, Relation foreign, Relation target)
{
	HxMirror   *mirror = palloc0(sizeof(HxMirror));

	check_foreign_table(subscription, foreign);
	mirror->subscription = subscription;
	mirror->writer = find_writer(subscription, target);
	check_target(mirror, target);
	mirror->table = hx_table_open_whole(RelationGetRelid(foreign), subscription->filter);
	mirror->deleted_path = deleted_path(mirror);
	mirror->target = RelationGetRelid(target);
	mirror->target_name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
													 RelationGetRelationName(target));
	find_columns(mirror, RelationGetDescr(foreign), RelationGetDescr(target));
	find_key(mirror, target);
	drop_identities(mirror, RelationGetDescr(target));
	mirror->synced_at = own_column(mirror, RelationGetDescr(target), SYNCED_AT, false);
	find_mark(mirror, RelationGetDescr(target));
	find_modified(mirror);
	mirror->versioned = mirror->synced_at != NULL;
	for (int i = 0; i < mirror->ncolumns; i++)
	{
		if (mirror->columns[i].key || i == mirror->record_key || i == mirror->mark)
			mirror->columns[i].owner = HX_OWNER_REMOTE;
		mirror->two_way |= mirror->columns[i].owner != HX_OWNER_REMOTE;
	}
	mirror->two_way |= subscription->changed_here || sends_changes(target);
	return mirror;
}

HxMirror *
hx_mirror_open(const HxSubscription *subscription)
{
	int			guc_level = NewGUCNestLevel();
	Relation	foreign;
	Relation	target;
	HxMirror   *mirror;

	(void) set_config_option("lock_timeout", psprintf("%d", HX_SYNC_LOCK_MS),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	foreign = open_relation(subscription, subscription->foreign_table, AccessShareLock, "foreign table");
	target = open_relation(subscription, subscription->target, RowExclusiveLock, "target");
	mirror = make_mirror(subscription, foreign, target);
	relation_close(target, NoLock);
	relation_close(foreign, NoLock);
	AtEOXact_GUC(false, guc_level);
	return mirror;
}

const char *
hx_mirror_cursor_column(const HxMirror *mirror)
{
	const HxColumn *column = modified_column(mirror->table);

	return column != NULL && column->filter.from != NULL ? column->name : NULL;
}
