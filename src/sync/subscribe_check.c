/*-------------------------------------------------------------------------
 *
 * subscribe_check.c
 *	  What a subscription must be.
 *
 * All that can be known to fail is refused when a subscription is made, with
 * what to do instead; what a run would find later, at night, is looked for
 * here.  The same is asked again by hubex_check(), for tables are altered and
 * rights taken away; therefore nothing here writes, and rights are those of
 * the subscription's owner, whoever asks.
 *
 * Which column shows what is found by mirror.c, which leaves out what either
 * table lost; a subscription that is made is taken at its word instead, so
 * that here every name must be one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "connector/table_fields.h"
#include "sync/subscribe.h"

/* ---- the list ---- */

static bool
shows(const HxColumn *column, const char *path)
{
	return column != NULL && strcmp(column->path, path) == 0;
}

/* Has a column the same value in all rows? */
static bool
is_constant(const HxColumn *column)
{
	return column != NULL && column->constant != NULL;
}

/* Opens the relation of a foreign table of hubex_fdw, locked to the end of the transaction. */
static Relation
open_foreign_table(Oid relid)
{
	Relation	relation = try_relation_open(relid, AccessShareLock);
	const char *other = NULL;

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("foreign table with OID %u does not exist", relid),
				 errhint("IMPORT FOREIGN SCHEMA makes the foreign tables of a server.")));
	if (relation->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
	{
		ForeignServer *server = GetForeignServer(GetForeignTable(relid)->serverid);
		ForeignDataWrapper *wrapper = GetForeignDataWrapper(server->fdwid);

		if (strcmp(wrapper->fdwname, "hubex_fdw") == 0)
			return relation;
		other = wrapper->fdwname;
	}
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" is not a foreign table of hubex_fdw", RelationGetRelationName(relation)),
			 other != NULL ? errdetail("It is one of %s.", other)
			 : errdetail_relkind_not_supported(relation->rd_rel->relkind),
			 errhint("IMPORT FOREIGN SCHEMA makes the foreign tables of a server.")));
}

static const char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

static void
check_one_list(const HxTable *table)
{
	const char *parent = table->resource->parent;

	if (parent == NULL)
		return;
	for (int i = 0; i < table->natts; i++)
		if (is_constant(table->columns[i]) && strcmp(table->columns[i]->name, parent) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("foreign table \"%s\" cannot be mirrored", table->name),
			 errdetail("Resource \"%s\" is a list for each %s; there is none of all of them.",
					   table->resource->name, parent),
			 errhint("Mirror what they belong to, and join %s to that by column %s: a query then asks for the lists of the rows it needs. "
					 "The list of one can be mirrored: ALTER FOREIGN TABLE %s ALTER COLUMN %s OPTIONS (ADD constant '...').",
					 qualified_name(table->relid), quote_identifier(parent), qualified_name(table->relid),
					 quote_identifier(parent))));
}

static int
find_key(const HxTable *table)
{
	const HxColumn *known = NULL;

	for (int i = 0; i < table->natts; i++)
		if (shows(table->columns[i], HX_PATH_KEY))
			return i;
	for (int i = 0; i < table->resource->ncolumns && known == NULL; i++)
		if (shows(&table->resource->columns[i], HX_PATH_KEY))
			known = &table->resource->columns[i];
	ereport(ERROR,
			(errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
			 errmsg("foreign table \"%s\" has no column with the key of a record", table->name),
			 errdetail("Which record a row of the mirror is could not be told."),
			 known ? errhint("ALTER FOREIGN TABLE %s ADD COLUMN %s %s.", qualified_name(table->relid),
							 quote_identifier(known->name), known->type)
			 : errhint("Where its records have an id that never changes: ALTER FOREIGN TABLE %s ADD COLUMN key text OPTIONS (path '%s').",
					   qualified_name(table->relid), HX_PATH_KEY)));
}

/* The column by which a list says what changed since a time; NULL: it cannot. */
static const char *
find_modified(const HxResource *resource)
{
	const char *name = hx_json_text(resource->described, "modified");
	const HxColumn *column = name ? hx_resource_column(resource, name) : NULL;

	return column != NULL && column->filter.from != NULL ? column->name : NULL;
}

/*
 * Some parameters are the subscription's own: by these it asks what changed,
 * whether a record is still there, and for the deleted ones.
 */
static void
check_filters(const HxSource *source)
{
	const HxResource *resource = source->table->resource;
	const HxColumn *modified = source->modified ? hx_resource_column(resource, source->modified) : NULL;
	const HxColumn *key = source->table->columns[source->key];
	Jsonb	   *defaults = hx_json_part(resource->described, "filter_defaults");
	ListCell   *cell;

	foreach(cell, source->table->query)
	{
		const char *name = ((HxPair *) lfirst(cell))->name;
		const char *instead = NULL;

		if (modified != NULL && strcmp(name, modified->filter.from) == 0)
			instead = "A mirror asks by it what has changed.";
		else if (key->filter.equal != NULL && strcmp(name, key->filter.equal) == 0)
			instead = "A mirror asks by it whether a record is still there.";
		else if (strchr(name, '.') == NULL && hx_json_text(defaults, name) != NULL)
			instead = "A mirror sees deleted records too; hubex_subscribe's argument deletes says what becomes of them.";
		if (instead != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a mirror cannot have the filter \"%s\"", name),
					 errdetail("%s", instead),
					 errhint("It is one of the subscription's filter or of the option filter of foreign table %s.",
							 qualified_name(source->table->relid))));
	}
}

/*
 * The list of a subscription, palloc'd here; its table is locked to the end of
 * the transaction.  Errors: no such table (42P01), one of another kind
 * (42809), one that cannot be mirrored (0A000), no key (HV00R), and those of
 * hx_table_open_whole().
 */
HxSource *
hx_subscribe_open_source(const HxSubscription *subscription)
{
	HxSource   *source = palloc0(sizeof(HxSource));
	Relation	relation = open_foreign_table(subscription->foreign_table);

	source->desc = CreateTupleDescCopy(RelationGetDescr(relation));
	relation_close(relation, NoLock);
	source->table = hx_table_open_whole(subscription->foreign_table, subscription->filter);
	check_one_list(source->table);
	source->key = find_key(source->table);
	source->modified = find_modified(source->table->resource);
	return source;
}

/*
 * The same where the subscription can also be served.  Errors besides: a mode
 * or filter that the list is not up to (0A000, 22023), rights of the
 * subscription's owner that are missing (42501, 28000).
 */
HxSource *
hx_subscribe_source(const HxSubscription *subscription)
{
	HxSource   *source = hx_subscribe_open_source(subscription);
	HxTable    *table = source->table;

	if (pg_class_aclcheck(table->relid, subscription->owner, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign table %s", table->name),
				 errhint("GRANT SELECT ON %s TO %s.", qualified_name(table->relid),
						 quote_identifier(GetUserNameFromId(subscription->owner, false)))));
	if (subscription->incremental && source->modified == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("resource \"%s\" of connector \"%s\" cannot say what has changed",
						table->resource->name, table->connector),
				 errdetail("Mode incremental, and so both, asks for what changed since a time."),
				 errhint("Use mode => 'full': the whole list is read every time.")));
	check_filters(source);
	source->account = hx_account_open(table->server->servername, subscription->owner, false);
	return source;
}

/* ---- columns ---- */

/* An attribute of a relation by name; NULL where it has no such column. */
static Form_pg_attribute
find_attribute(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute;
	}
	return NULL;
}

static const char *
source_name(const HxSource *source, int n)
{
	return NameStr(TupleDescAttr(source->desc, n)->attname);
}

/* Is the value of a column something that records show, or that all rows have? */
static bool
can_show(const HxSource *source, int n)
{
	return source->table->columns[n] != NULL && !hx_table_is_filter(source->table, n + 1);
}

static const HxShown *
find_shown(List *columns, const char *name)
{
	ListCell   *cell;

	foreach(cell, columns)
		if (strcmp(((HxShown *) lfirst(cell))->name, name) == 0)
			return lfirst(cell);
	return NULL;
}

typedef struct Mapping
{
	const HxSource *source;
	Relation	target;			/* NULL: to be made */
	List	   *columns;		/* of HxShown * */
} Mapping;

/* Adds a column that the target has, or is to have. */
static void
add_column(Mapping *mapping, const char *name, int source)
{
	HxShown    *shown = palloc0(sizeof(HxShown));

	shown->name = pstrdup(name);
	shown->source = source;
	shown->key = source == mapping->source->key || is_constant(mapping->source->table->columns[source]);
	if (mapping->target != NULL)
		shown->attno = find_attribute(RelationGetDescr(mapping->target), name)->attnum;
	mapping->columns = lappend(mapping->columns, shown);
}

/* Adds a column that the subscription names. */
static void
add_named_column(const char *name, const JsonbValue *value, void *arg)
{
	Mapping    *mapping = arg;
	const HxTable *table = mapping->source->table;
	char	   *from = value->type == jbvString ? hx_json_value_text(value) : NULL;
	Form_pg_attribute attribute = from ? find_attribute(mapping->source->desc, from) : NULL;

	if (from == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for column \"%s\" of argument \"%s\"", name, "columns"),
				 errhint("Like {\"column of the target\": \"column of the foreign table\"}.")));
	if (attribute == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of foreign table \"%s\" does not exist", from, table->name),
				 errdetail("Column \"%s\" of the target is to show it.", name)));
	if (!can_show(mapping->source, attribute->attnum - 1))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of foreign table \"%s\" has no value of records", from, table->name),
				 errdetail("It is there for a query to filter by it.")));
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" cannot be the name of a column", name)));
	if (mapping->target != NULL && find_attribute(RelationGetDescr(mapping->target), name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name,
						RelationGetRelationName(mapping->target)),
				 errdetail("It is to show column \"%s\" of foreign table \"%s\".", from, table->name)));
	if (mapping->target != NULL && find_attribute(RelationGetDescr(mapping->target), name)->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("column \"%s\" of relation \"%s\" takes no values", name,
						RelationGetRelationName(mapping->target)),
				 errdetail("It is GENERATED ALWAYS.")));
	add_column(mapping, name, attribute->attnum - 1);
}

static bool
shows_source(List *columns, int source)
{
	ListCell   *cell;

	foreach(cell, columns)
		if (((HxShown *) lfirst(cell))->source == source)
			return true;
	return false;
}

static int
by_source(const ListCell *a, const ListCell *b)
{
	return ((HxShown *) lfirst(a))->source - ((HxShown *) lfirst(b))->source;
}

/* The record's key is shown by one column: a row is known by it. */
static void
check_key(const Mapping *mapping)
{
	const HxSource *source = mapping->source;
	const char *name = source_name(source, source->key);
	int			n = 0;
	ListCell   *cell;

	foreach(cell, mapping->columns)
		n += ((HxShown *) lfirst(cell))->source == source->key;
	if (n == 1)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_COLUMN_DEFINITION),
			 n == 0 ? errmsg("no column of relation \"%s\" shows the key of a record", RelationGetRelationName(mapping->target))
			 : errmsg("the key of a record can be shown by one column only"),
			 errdetail("The key is column \"%s\" of foreign table \"%s\".", name, source->table->name),
			 n == 0 ? errhint("ALTER TABLE %s ADD COLUMN %s %s, or name another in the argument columns.",
							  qualified_name(RelationGetRelid(mapping->target)), quote_identifier(name),
							  format_type_with_typemod(TupleDescAttr(source->desc, source->key)->atttypid,
													   TupleDescAttr(source->desc, source->key)->atttypmod)) : 0));
}

/*
 * Which columns of a target show what, a List of HxShown * in the order of the
 * foreign table's columns; a target that is NULL is to be made.  What the
 * subscription does not name is shown under its own name: without columns all
 * that both have, else the key.
 * Errors: unknown columns (42703), no key among them (42611).
 */
List *
hx_subscribe_columns(const HxSubscription *subscription, const HxSource *source, Relation target)
{
	Mapping		mapping = {source, target};

	hx_json_each(subscription->columns, add_named_column, &mapping);
	for (int i = 0; i < source->desc->natts; i++)
	{
		const char *name = source_name(source, i);
		Form_pg_attribute attribute = target ? find_attribute(RelationGetDescr(target), name) : NULL;

		if (!can_show(source, i) || find_shown(mapping.columns, name) != NULL ||
			(target != NULL && (attribute == NULL || attribute->attgenerated)))
			continue;
		if (subscription->columns == NULL ||
			((i == source->key || is_constant(source->table->columns[i])) && !shows_source(mapping.columns, i)))
			add_column(&mapping, name, i);
	}
	check_key(&mapping);
	list_sort(mapping.columns, by_source);
	return mapping.columns;
}

/* The columns of the foreign table that no column of the target shows, a List of int: attribute numbers - 1. */
List *
hx_subscribe_unshown(const HxSource *source, List *columns)
{
	List	   *unshown = NIL;

	for (int i = 0; i < source->desc->natts; i++)
		if (can_show(source, i) && !shows_source(columns, i))
			unshown = lappend_int(unshown, i);
	return unshown;
}

/* ---- owners ---- */

typedef struct Owners
{
	const HxSubscription *subscription;
	const HxSource *source;
	List	   *columns;
	List	   *tables;			/* of Relation: the target and its partitions that have partitions */
	HxTableFields *fields;		/* as an update writes them; NULL: nothing can */
	bool		sends;			/* some column has another owner than the remote side */
} Owners;

/* Is a table partitioned by a column? */
static bool
is_partitioned_by(List *tables, const char *name)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		Relation	table = lfirst(cell);
		Form_pg_attribute attribute = find_attribute(RelationGetDescr(table), name);
		bool		in_expression;

		if (has_partition_attrs(table, bms_make_singleton(attribute->attnum - FirstLowInvalidHeapAttributeNumber),
								&in_expression))
			return true;
	}
	return false;
}

static void
check_owner(const char *name, const JsonbValue *value, void *arg)
{
	Owners	   *owners = arg;
	const HxResource *resource = owners->source->table->resource;
	char	   *word = value->type == jbvString ? hx_json_value_text(value) : NULL;
	const HxShown *shown = find_shown(owners->columns, name);

	if (word == NULL || (strcmp(word, "remote") != 0 && strcmp(word, "local") != 0 && strcmp(word, "newest") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid owner of column \"%s\"", name),
				 errhint("The owner of a column is remote, local or newest.")));
	if (shown == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of argument \"%s\" is not one of the mirror", name, "owners"),
				 errdetail("It shows no column of foreign table \"%s\".", owners->source->table->name)));
	if (strcmp(word, "remote") == 0)
		return;
	if (shown->key)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" cannot have an owner", name),
				 errdetail("It tells which record a row is.")));
	if (is_partitioned_by(owners->tables, name))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" cannot have the owner \"%s\"", name, word),
				 errdetail("The target is partitioned by it: a row that is changed is deleted and inserted then, and what was changed could not be told.")));
	owners->sends = true;
	if (owners->fields == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" cannot have the owner \"%s\"", name, word),
				 errdetail("Connector \"%s\" knows no operation update of resource \"%s\", so that no change could be sent.",
						   owners->source->table->connector, resource->name)));
	if (!hx_table_field(owners->fields, shown->source)->writable)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" cannot have the owner \"%s\"", name, word),
				 errdetail("The remote system takes no value for column \"%s\" of foreign table \"%s\".",
						   source_name(owners->source, shown->source), owners->source->table->name)));
	if (strcmp(word, "newest") == 0 && hx_json_text(resource->described, "modified") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" cannot have the owner \"%s\"", name, word),
				 errdetail("Records of resource \"%s\" do not tell when they were changed.", resource->name)));
}

static List *
partitioned_tables(Relation target)
{
	List	   *tables = NIL;
	ListCell   *cell;

	if (target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return NIL;
	foreach(cell, find_all_inheritors(RelationGetRelid(target), AccessShareLock, NULL))
	{
		Relation	table = relation_open(lfirst_oid(cell), NoLock);

		if (table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
			tables = lappend(tables, table);
		else
			relation_close(table, NoLock);
	}
	return tables;
}

/*
 * Checks who owns which column.  Errors: what is no owner (22023), columns the
 * mirror has not (42703), those that cannot be written to the remote side, or
 * not be told to have changed (0A000), a subscription's owner who may not put
 * in requests (42501).
 */
void
hx_subscribe_check_owners(const HxSubscription *subscription, const HxSource *source, Relation target, List *columns)
{
	const char *resource = source->table->resource->name;
	Owners		owners = {subscription, source, columns};
	ListCell   *cell;

	if (subscription->owners == NULL)
		return;
	owners.tables = partitioned_tables(target);
	if (hx_manifest_operation(source->table->manifest, resource, "update") != NULL)
		owners.fields = hx_table_fields(source->table, source->desc, "update");
	hx_json_each(subscription->owners, check_owner, &owners);
	foreach(cell, owners.tables)
		relation_close(lfirst(cell), NoLock);
	if (owners.sends)
		(void) hx_writer()->begin(source->account, resource, "update", subscription->owner);
}

/* ---- the target ---- */

/*
 * Checks that a relation is no system table, nor one that loses its rows; what
 * else it must not be is in mirror.c.  Error 42809.
 */
void
hx_subscribe_check_kind(Relation target)
{
	const char *detail = NULL;

	if (target->rd_rel->relkind != RELKIND_RELATION && target->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be a mirror", RelationGetRelationName(target)),
				 errdetail_relkind_not_supported(target->rd_rel->relkind),
				 errhint("Name another table, with its schema; one that does not exist is made.")));
	if (IsSystemRelation(target) || RelationGetNamespace(target) == get_namespace_oid("hubex", true))
		detail = "It is a system table.";
	else if (target->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		detail = "It is an unlogged table, which a crash would empty unnoticed.";
	if (detail != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be a mirror", RelationGetRelationName(target)),
				 errdetail("%s", detail)));
}

static void
check_rights(const HxSubscription *subscription, Relation target)
{
	Oid			relid = RelationGetRelid(target);
	AclMode		needed = ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE;
	char	   *owner = GetUserNameFromId(subscription->owner, false);

	if (pg_class_aclmask(relid, subscription->owner, needed, ACLMASK_ALL) != needed)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", RelationGetRelationName(target)),
				 errdetail("Role \"%s\" would have to write the mirror.", owner),
				 errhint("GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s.", qualified_name(relid),
						 quote_identifier(owner))));
}

/* A column that no record has a value for must get one otherwise. */
static void
check_values(const HxMirror *mirror, Relation target, List *columns)
{
	TupleDesc	desc = RelationGetDescr(target);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped || !attribute->attnotnull || attribute->atthasdef || attribute->attidentity ||
			find_shown(columns, NameStr(attribute->attname)) != NULL ||
			(mirror->synced_at != NULL && strcmp(NameStr(attribute->attname), mirror->synced_at) == 0))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of table \"%s\" would get no value", NameStr(attribute->attname),
						RelationGetRelationName(target)),
				 errdetail("It is NOT NULL, has no default, and shows no column of the foreign table."),
				 errhint("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL.", qualified_name(RelationGetRelid(target)),
						 quote_identifier(NameStr(attribute->attname)))));
	}
}

/*
 * Checks a target that exists, with its columns.  Errors: rights that are
 * missing (42501), columns that get no value (23502), and those of
 * hx_mirror_open().
 */
HxMirror *
hx_subscribe_check_target(const HxSubscription *subscription, Relation target, List *columns)
{
	HxMirror   *mirror;

	check_rights(subscription, target);
	mirror = hx_mirror_open(subscription);
	check_values(mirror, target, columns);
	return mirror;
}
