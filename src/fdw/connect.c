/*-------------------------------------------------------------------------
 *
 * connect.c
 *	  hubex.make_server: a server and its user mapping, without a trace.
 *
 * CREATE USER MAPPING has the secret in its text, which the server log,
 * pg_stat_statements and an error's context may show.  Here no text is made:
 * the two commands are run from parse trees.  The statement that calls
 * hubex_connect() may have the secret in its own text; therefore that text
 * follows no message in the server log, whoever reports it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"

#include "connector/connector.h"
#include "fdw/connect.h"

PG_FUNCTION_INFO_V1(hubex_make_server);

static emit_log_hook_type previous_hook = NULL;

static void
add_option(const char *name, const JsonbValue *value, void *arg)
{
	List	  **options = arg;
	char	   *text = hx_json_value_text(value);

	if (text != NULL)
		*options = lappend(*options, makeDefElem(pstrdup(name), (Node *) makeString(text), -1));
}

static Jsonb *
object_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	Jsonb	   *object = PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);

	if (object != NULL && !JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON object", name)));
	return object;
}

/* Where a text names hubex_connect; NULL: nowhere. */
static const char *
find_name(const char *text)
{
	static const char name[] = "hubex_connect";

	for (; text != NULL && *text != '\0'; text++)
		if (pg_strncasecmp(text, name, sizeof(name) - 1) == 0)
			return text;
	return NULL;
}

/* Does a context repeat a statement that calls it?  That it was in it does no harm. */
static bool
repeats_call(const char *context)
{
	static const char harmless[] = "PL/pgSQL function ";
	const char *found = context;

	while ((found = find_name(found)) != NULL)
	{
		const char *line = found;

		while (line > context && line[-1] != '\n')
			line--;
		if (strncmp(line, harmless, sizeof(harmless) - 1) != 0)
			return true;
		found++;
	}
	return false;
}

/*
 * Keeps the text of a statement that calls hubex_connect() out of the log, and
 * where a function runs it, the context that repeats it.
 */
static void
hide_statement(ErrorData *error)
{
	if (!error->hide_stmt && find_name(debug_query_string) != NULL)
		error->hide_stmt = true;
	if (!error->hide_ctx && repeats_call(error->context))
		error->hide_ctx = true;
	if (find_name(error->internalquery) != NULL)
		error->internalquery = NULL;	/* nothing says that it is not to be shown */
	if (previous_hook)
		previous_hook(error);
}

/* Installs the hook; called when the library is loaded. */
void
hx_connect_install(void)
{
	previous_hook = emit_log_hook;
	emit_log_hook = hide_statement;
}

static void
make_server(FunctionCallInfo fcinfo)
{
	CreateForeignServerStmt *server = makeNode(CreateForeignServerStmt);
	CreateUserMappingStmt *mapping = makeNode(CreateUserMappingStmt);
	Jsonb	   *credentials = object_arg(fcinfo, 3, "credentials");
	Jsonb	   *options = object_arg(fcinfo, 4, "options");

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be %s", "server", "null")));

	server->servername = pstrdup(NameStr(*PG_GETARG_NAME(0)));
	server->fdwname = "hubex_fdw";
	if (!PG_ARGISNULL(1))
		server->options = lappend(server->options,
								  makeDefElem("connector", (Node *) makeString(text_to_cstring(PG_GETARG_TEXT_PP(1))), -1));
	if (!PG_ARGISNULL(2))
		server->options = lappend(server->options,
								  makeDefElem("url", (Node *) makeString(text_to_cstring(PG_GETARG_TEXT_PP(2))), -1));
	hx_json_each(options, add_option, &server->options);
	(void) CreateForeignServer(server);
	CommandCounterIncrement();

	mapping->user = makeNode(RoleSpec);
	mapping->user->roletype = ROLESPEC_PUBLIC;
	mapping->user->location = -1;
	mapping->servername = server->servername;
	hx_json_each(credentials, add_option, &mapping->options);
	(void) CreateUserMapping(mapping);
	CommandCounterIncrement();
}

/*
 * hubex.make_server(server, connector, url, credentials, options): CREATE
 * SERVER and CREATE USER MAPPING FOR PUBLIC.  Errors are those of the two.
 */
Datum
hubex_make_server(PG_FUNCTION_ARGS)
{
	make_server(fcinfo);
	PG_RETURN_VOID();
}
