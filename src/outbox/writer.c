/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  What foreign tables and mirrors write, put into the outbox: the other side
 *	  of connector/writer.h.
 *
 * A row of a table is what a call of hubex_create(), hubex_update() or
 * hubex_delete() would be, and needs the same rights: EXECUTE on that function
 * and USAGE on the server.
 *
 * The request is that of the role which the table is checked as, for whose
 * rights and whose user mapping it is made: through a view that is its owner.
 * The role that uses the view needs neither, and does not see the request.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "outbox/outbox.h"

struct HxWriter
{
	const HxAccount *account;
	const char *resource;
	const char *operation;
	Oid			role;
	HxCreation *creation;		/* of the operation create, else NULL */
	HxBatch    *batch;
	bool		holds;
};

/* Who we were before we acted as the writer's role. */
typedef struct Caller
{
	Oid			role;
	int			sec_context;
} Caller;

/* An error in between needs no care: the end of the (sub)transaction brings the caller back. */
static void
act_as_role(const HxWriter *writer, Caller *caller)
{
	GetUserIdAndSecContext(&caller->role, &caller->sec_context);
	if (caller->role != writer->role)
		SetUserIdAndSecContext(writer->role, caller->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

static void
act_as_caller(const Caller *caller)
{
	SetUserIdAndSecContext(caller->role, caller->sec_context);
}

/* The function that does an operation when it is called: the one of the schema in which the wrapper's handler is. */
static Oid
public_function(const HxAccount *account, const char *operation)
{
	static const struct
	{
		const char *operation;
		const char *function;
		int			nargs;
		Oid			args[9];
	}			functions[] = {
		{"create", "hubex_create", 7, {TEXTOID, JSONBOID, NAMEOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}},
		{"update", "hubex_update", 9, {TEXTOID, TEXTOID, JSONBOID, NAMEOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID}},
		{"delete", "hubex_delete", 8, {TEXTOID, TEXTOID, NAMEOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID}},
	};
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(GetForeignServer(account->server_oid)->fdwid);
	Oid			schema = get_func_namespace(wrapper->fdwhandler);
	Oid			function = InvalidOid;

	for (int i = 0; i < lengthof(functions); i++)
		if (strcmp(functions[i].operation, operation) == 0)
			function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(functions[i].function),
									   PointerGetDatum(buildoidvector(functions[i].args, functions[i].nargs)),
									   ObjectIdGetDatum(schema));
	if (!OidIsValid(function))
		elog(ERROR, "there is no function for operation \"%s\"", operation);
	return function;
}

static void
check_right(const HxAccount *account, const char *operation, Oid role)
{
	Oid			function = public_function(account, operation);

	if (hx_function_aclcheck(function, role, ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", get_func_name(function)),
				 errdetail("Role \"%s\" may change the table, but put no such request into the outbox.",
						   GetUserNameFromId(role, false)),
				 errhint("SELECT hubex_grant(%s, 'enqueue').",
						 quote_literal_cstr(GetUserNameFromId(role, false)))));
}

static HxWriter *
begin(const HxAccount *account, const char *resource, const char *operation, Oid role)
{
	HxWriter   *writer = palloc0(sizeof(HxWriter));

	check_right(account, operation, role);
	writer->account = account;
	writer->resource = resource;
	writer->operation = operation;
	writer->role = role;
	writer->batch = hx_outbox_batch_begin();
	if (strcmp(operation, "create") == 0)
		writer->creation = hx_outbox_creation(account, resource);
	return writer;
}

static int64
create(HxWriter *writer, const HxField *fields, int nfields, Jsonb *more)
{
	HxNewRequest request = {.within_command = true,.batch = writer->holds ? writer->batch : NULL};
	HxField    *all = NULL;
	int64		id;
	Caller		caller;

	if (more != NULL)
	{
		all = palloc(sizeof(HxField) * (nfields + JB_ROOT_COUNT(more)));
		memcpy(all, fields, sizeof(HxField) * nfields);
		nfields = hx_outbox_take_fields(writer->creation, more, all, nfields);
	}
	act_as_role(writer, &caller);
	id = hx_outbox_enqueue_creation(writer->creation, all ? all : fields, nfields, &request);
	act_as_caller(&caller);
	return id;
}

static int64
change(HxWriter *writer, const HxRecordKey *key, Jsonb *fields)
{
	HxNewRequest request = {.within_command = true,.batch = writer->holds ? writer->batch : NULL};
	int64		id;
	Caller		caller;

	act_as_role(writer, &caller);
	id = hx_outbox_enqueue_change(writer->account, writer->resource, writer->operation, key, fields, &request);
	act_as_caller(&caller);
	return id;
}

static void
hold(HxWriter *writer)
{
	writer->holds = true;
}

static void
release(HxWriter *writer)
{
	writer->holds = false;
	hx_outbox_batch_write(writer->batch);
}

/* Says that these write for the foreign tables and the mirrors; called when the library is loaded. */
void
hx_outbox_install_writer(void)
{
	static const HxWriterRoutines routines = {begin, create, change, hold, release, hx_outbox_cancel};

	hx_writer_install(&routines);
}
