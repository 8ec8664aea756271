/*-------------------------------------------------------------------------
 *
 * trigger_plan.c
 *	  What a trigger's arguments mean.
 *
 * Reading them opens an account, parses JSON and looks into the catalogs; how
 * what was read is kept is in kept_plan.c.  hubex.default_server, too, is
 * compared at each statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/settings.h"
#include "compat.h"
#include "outbox/trigger.h"

/* ---- arguments ---- */

typedef struct Arguments
{
	const char *function;
	const char *server;			/* NULL: the only one */
	const char *resource;
	const char *tmpl;
	const char *options;		/* NULL: none */
} Arguments;

/* A use of the function that is not meant, with how it is. */
void
hx_trigger_refuse(const char *function, const char *detail)
{
	bool		tasks = strcmp(function, "hubex_task_trigger") == 0;

	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("%s is used in a way it does not support", function),
			 errdetail("%s", detail),
			 errhint("CREATE TRIGGER ... AFTER INSERT OR UPDATE OR DELETE ON ... FOR EACH ROW EXECUTE FUNCTION %s('server', %s'{\"%s\": \"{column}\"}').",
					 function, tasks ? "" : "'resource', ", tasks ? "notes" : "name")));
}

static bool
is_object(const char *text)
{
	while (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r')
		text++;
	return *text == '{';
}

/*
 * Takes the arguments apart: the template is the first that begins with a
 * brace, the options are what follows it.
 */
static void
read_arguments(Arguments *arguments, const Trigger *trigger, const char *function, bool tasks_only)
{
	int			nargs = trigger->tgnargs;
	char	  **args = trigger->tgargs;
	int			before = 0;

	while (before < nargs && !is_object(args[before]))
		before++;
	if (before == nargs)
		hx_trigger_refuse(function, "No argument is a JSON object, which the template has to be.");
	if (nargs > before + 2 || (before + 1 < nargs && !is_object(args[before + 1])))
		hx_trigger_refuse(function, "After the template it takes the options, a JSON object, and nothing else.");
	if (tasks_only && before > 1)
		hx_trigger_refuse(function, "Before the template it takes the server, or nothing.");
	if (!tasks_only && (before < 1 || before > 2))
		hx_trigger_refuse(function, "Before the template it takes the server and the resource, or the resource alone.");

	arguments->function = function;
	arguments->server = before == (tasks_only ? 1 : 2) ? args[0] : NULL;
	arguments->resource = tasks_only ? "tasks" : args[before - 1];
	arguments->tmpl = args[before];
	arguments->options = before + 1 < nargs ? args[before + 1] : NULL;
}

static void
add_context(void *arg)
{
	const char *const *what = arg;

	errcontext("%s of trigger \"%s\"", what[0], what[1]);
}

static Jsonb *
read_object(const char *text, const char *what, const Trigger *trigger)
{
	const char *names[2] = {what, trigger->tgname};
	ErrorContextCallback context = {.callback = add_context,.arg = names,.previous = error_context_stack};
	Jsonb	   *object;

	error_context_stack = &context;
	object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	error_context_stack = context.previous;
	return object;
}

/* ---- options ---- */

typedef struct Options
{
	const char *const *known;	/* of the object at hand, ends with NULL */
	const char *within;
} Options;

static void
check_known(const char *name, const JsonbValue *value, void *arg)
{
	Options    *options = arg;
	StringInfoData known;

	for (int i = 0; options->known[i] != NULL; i++)
		if (strcmp(options->known[i], name) == 0)
			return;
	initStringInfo(&known);
	for (int i = 0; options->known[i] != NULL; i++)
		appendStringInfo(&known, "%s\"%s\"", i ? ", " : "", options->known[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown option \"%s\" of %s", name, options->within),
			 errhint("The options are: %s.", known.data)));
}

/* A member that has to be a text that is not empty, or NULL where there is none. */
static char *
option_text(const Jsonb *options, const char *name)
{
	JsonbValue	value;

	if (!hx_json_find(options, name, &value))
		return NULL;
	if (value.type != jbvString || value.val.string.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" of a trigger must be a text", name)));
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* A column that write-back fills in. */
static void
find_target(HxTriggerPlan *plan, Relation relation, HxTarget *target, const char *option, char *name)
{
	TupleDesc	desc = RelationGetDescr(relation);
	AttrNumber	number;

	if (name == NULL)
		return;
	number = get_attnum(RelationGetRelid(relation), name);
	if (number <= 0 || TupleDescAttr(desc, number - 1)->attgenerated != '\0' ||
		TupleDescAttr(desc, number - 1)->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg(number <= 0 ? "column \"%s\" of relation \"%s\" does not exist" :
						"column \"%s\" of relation \"%s\" cannot be written", name, RelationGetRelationName(relation)),
				 errdetail("The trigger's option \"%s\" names it.", option),
				 errhint("Name a column that takes what the remote system answers, such as a text or a bigint.")));
	target->name = name;
	target->number = number;
	plan->last_attribute = Max(plan->last_attribute, number);
}

/* Does no setting change how a value of the type is written? */
static bool
is_plain(Oid type)
{
	switch (getBaseType(type))
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case BOOLOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
			return true;
		default:
			return false;
	}
}

/* The primary key, by which the row is found again. */
static void
find_primary_key(HxTriggerPlan *plan, Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);
	Oid			constraint;
	Bitmapset  *columns = get_primary_key_attnos(RelationGetRelid(relation), false, &constraint);
	int			member = -1;

	if (bms_is_empty(columns))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s\" has no primary key to find a row again by", RelationGetRelationName(relation)),
				 errdetail("The trigger's option \"write_back\" fills in columns of the row when its request is delivered."),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...), or take the result with the option \"callback\".",
						 quote_identifier(RelationGetRelationName(relation)))));

	plan->key = palloc0(sizeof(HxKeyColumn) * bms_num_members(columns));
	plan->plain_key = true;
	while ((member = bms_next_member(columns, member)) >= 0)
	{
		AttrNumber	number = member + FirstLowInvalidHeapAttributeNumber;
		Form_pg_attribute attribute = TupleDescAttr(desc, number - 1);
		HxKeyColumn *column = &plan->key[plan->nkey++];
		Oid			out;
		bool		varlena;

		column->name.type = jbvString;
		column->name.val.string.val = pstrdup(NameStr(attribute->attname));
		column->name.val.string.len = strlen(NameStr(attribute->attname));
		column->number = number;
		getTypeOutputInfo(attribute->atttypid, &out, &varlena);
		fmgr_info(out, &column->out);
		plan->plain_key &= is_plain(attribute->atttypid);
		plan->last_attribute = Max(plan->last_attribute, number);
	}
}

static char *
qualified_name(Oid schema, const char *name)
{
	return quote_qualified_identifier(get_namespace_name(schema), name);
}

/*
 * The function to be called when a request is delivered, by its full name.  It
 * will run as the table's owner, so it has to be one that could do nothing
 * more than its own owner can do anyway: whoever may put a trigger on a table
 * must not be able to act as the table's owner by it.
 */
static char *
find_callback(const char *name, Oid owner)
{
	static const Oid types[4] = {INT8OID, TEXTOID, TEXTOID, JSONBOID};
	List	   *names = textToQualifiedNameList(cstring_to_text(name));
	Oid			function = LookupFuncName(names, lengthof(types), types, true);
	HeapTuple	tuple = OidIsValid(function) ? SearchSysCache1(PROCOID, ObjectIdGetDatum(function)) : NULL;
	Form_pg_proc form;
	char	   *full_name;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s(bigint, text, text, jsonb) does not exist", name),
				 errdetail("The trigger's option \"callback\" names it."),
				 errhint("CREATE FUNCTION %s(request_id bigint, remote_id text, remote_number text, response jsonb) RETURNS void ...", name)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (form->prokind != PROKIND_FUNCTION || form->proretset)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s(bigint, text, text, jsonb) cannot be a callback", name),
				 errdetail("It is not a function that returns void or a single value.")));
	if (!has_privs_of_role(form->proowner, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s cannot be a callback of this table", name),
				 errdetail("A callback runs as the owner of the table, \"%s\", and the function belongs to \"%s\", who may not act as that role.",
						   GetUserNameFromId(owner, false), GetUserNameFromId(form->proowner, false)),
				 errhint("ALTER FUNCTION %s OWNER TO %s.", name, quote_identifier(GetUserNameFromId(owner, false)))));
	if (hx_function_aclcheck(function, owner, ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", name),
				 errdetail("A callback runs as the owner of the table, \"%s\".", GetUserNameFromId(owner, false)),
				 errhint("GRANT EXECUTE ON FUNCTION %s TO %s.", name, quote_identifier(GetUserNameFromId(owner, false)))));
	full_name = qualified_name(form->pronamespace, NameStr(form->proname));
	ReleaseSysCache(tuple);
	return full_name;
}

static Oid
owner_of(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * The table to find the row in again: of a partition the table it is a part
 * of, for the row may move to another partition meanwhile; but only where it
 * belongs to the same role.
 */
static Oid
home_table(Relation relation, Oid owner)
{
	List	   *ancestors;
	Oid			root;
	Oid			constraint;

	if (!relation->rd_rel->relispartition)
		return RelationGetRelid(relation);
	ancestors = get_partition_ancestors(RelationGetRelid(relation));
	root = llast_oid(ancestors);
	return owner_of(root) == owner &&
		!bms_is_empty(get_primary_key_attnos(root, false, &constraint)) ? root : RelationGetRelid(relation);
}

/* What is to be done in this database when a request is delivered. */
static void
read_write_back(HxTriggerPlan *plan, Relation relation, const Jsonb *options)
{
	static const char *const known[] = {"id", "number", NULL};
	Options		rules = {known, "\"write_back\" of a trigger"};
	Oid			owner = relation->rd_rel->relowner;
	char	   *callback = option_text(options, "callback");
	Jsonb	   *write_back = hx_json_part(options, "write_back");
	JsonbValue	value;
	HxJsonBuilder home;
	Oid			table;

	if (write_back == NULL ? hx_json_find(options, "write_back", &value) : !JB_ROOT_IS_OBJECT(write_back))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"write_back\" of a trigger must be an object"),
				 errhint("{\"write_back\": {\"id\": \"column\", \"number\": \"column\"}}")));
	hx_json_each(write_back, check_known, &rules);
	find_target(plan, relation, &plan->id, "write_back.id", option_text(write_back, "id"));
	find_target(plan, relation, &plan->record_number, "write_back.number", option_text(write_back, "number"));
	for (int i = 0; i < plan->ncolumns; i++)
		plan->columns[i].written_back = plan->columns[i].number == plan->id.number ||
			plan->columns[i].number == plan->record_number.number;
	if (plan->id.number != 0)
	{
		Oid			out;
		bool		varlena;

		getTypeOutputInfo(TupleDescAttr(RelationGetDescr(relation), plan->id.number - 1)->atttypid, &out, &varlena);
		fmgr_info(out, &plan->id_out);
	}
	if (plan->id.number != 0 || plan->record_number.number != 0)
		find_primary_key(plan, relation);
	else if (callback == NULL)
		return;

	if (relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("nothing can be written back to the temporary table \"%s\"", RelationGetRelationName(relation)),
				 errdetail("It may be gone when the request is delivered, and only this session sees it."),
				 errhint("Use a table that stays.")));
	table = home_table(relation, owner);
	hx_json_begin(&home);
	hx_json_add_text(&home, "table", qualified_name(get_rel_namespace(table), get_rel_name(table)));
	hx_json_add_text(&home, "oid", psprintf("%u", table));
	hx_json_add_text(&home, "owner", GetUserNameFromId(owner, false));
	if (callback != NULL)
		hx_json_add_text(&home, "callback", find_callback(callback, owner));
	plan->home = hx_json_end(&home);
	plan->calls_function = plan->kept.uses_functions = callback != NULL;
	plan->writes_back = true;
}

/*
 * May functions of others run when a row's value is written?  Those of
 * PostgreSQL's own types are its own; of any other type there may be a cast to
 * json, or the output function.
 */
static bool
runs_code(Relation relation, AttrNumber column)
{
	return getBaseType(TupleDescAttr(RelationGetDescr(relation), column - 1)->atttypid) >= FirstNormalObjectId;
}

static void
note_code(HxTriggerPlan *plan, Relation relation)
{
	for (int i = 0; i < plan->ncolumns; i++)
		plan->runs_code |= runs_code(relation, plan->columns[i].number);
	for (int i = 0; i < plan->nkey; i++)
		plan->runs_code |= runs_code(relation, plan->key[i].number);
	if (plan->id.number != 0)
		plan->runs_code |= runs_code(relation, plan->id.number);
}

static void
read_options(HxTriggerPlan *plan, Relation relation, const Jsonb *options)
{
	static const char *const known[] = {"write_back", "callback", "delete", "ordering_key", NULL};
	Options		rules = {known, "a trigger"};
	char	   *text;

	hx_json_each(options, check_known, &rules);
	text = option_text(options, "delete");
	if (text != NULL && strcmp(text, "delete") != 0 && strcmp(text, "ignore") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"delete\" of a trigger is \"%s\"", text),
				 errhint("It is \"delete\" or \"ignore\".")));
	plan->ignores_delete = text != NULL && strcmp(text, "ignore") == 0;
	text = option_text(options, "ordering_key");
	if (text != NULL)
		plan->ordering_key = hx_template_compile_text(plan, relation, text);
	read_write_back(plan, relation, options);
}

/* ---- making a plan ---- */

/* Gives the template's members the API's names, and finds the natural key. */
static void
name_members(HxTriggerPlan *plan)
{
	plan->natural_key = -1;
	for (int i = 0; i < plan->tmpl->nparts; i++)
	{
		JsonbValue *name = &plan->tmpl->names[i];
		bool		is_key;

		name->val.string.val = hx_outbox_field_name(plan->creation, pnstrdup(name->val.string.val, name->val.string.len),
													&is_key);
		name->val.string.len = strlen(name->val.string.val);
		if (is_key)
			plan->natural_key = i;
	}
}

/* The setting as it is now; it matters where a trigger names no server. */
static const char *
default_server(void)
{
	return hx_guc_default_server ? hx_guc_default_server : "";
}

/* Fills a plan, in its own context. */
static void
fill_plan(HxTriggerPlan *plan, TriggerData *trigger, const Arguments *arguments)
{
	Relation	relation = trigger->tg_relation;
	Jsonb	   *options = arguments->options ? read_object(arguments->options, "options", trigger->tg_trigger) : NULL;

	if (arguments->server == NULL)
		plan->default_server = pstrdup(default_server());
	plan->account = hx_account_open(arguments->server, plan->kept.key.role, false);
	hx_connector_version(plan->account->connector, &plan->kept.connector_version);
	plan->resource = pstrdup(arguments->resource);
	plan->tmpl = hx_template_compile(plan, relation, read_object(arguments->tmpl, "template", trigger->tg_trigger));
	plan->creation = hx_outbox_creation(plan->account, plan->resource);
	name_members(plan);
	if (options != NULL)
		read_options(plan, relation, options);
	note_code(plan, relation);
}

/*
 * The plan of a trigger that fires.  "last" is what this gave for the
 * statement's row before, or NULL.  The plan is good until the transaction
 * ends.
 */
HxTriggerPlan *
hx_trigger_plan(TriggerData *trigger, const char *function, bool tasks_only, HxTriggerPlan *last)
{
	Arguments	arguments;
	HxTriggerPlan *plan;
	MemoryContext old;

	if (last != NULL && last->kept.valid && last->kept.key.role == GetUserId())
		return last;
	plan = (HxTriggerPlan *) hx_kept_plan_find(trigger);
	if (plan != NULL)
	{
		if (plan->default_server == NULL || strcmp(plan->default_server, default_server()) == 0)
			return plan;
		plan->kept.valid = false;
	}
	read_arguments(&arguments, trigger->tg_trigger, function, tasks_only);
	plan = hx_kept_plan_begin(trigger, sizeof(HxTriggerPlan));
	old = MemoryContextSwitchTo(plan->kept.cxt);
	fill_plan(plan, trigger, &arguments);
	MemoryContextSwitchTo(old);
	hx_kept_plan_keep(&plan->kept);
	return plan;
}
