/*-------------------------------------------------------------------------
 *
 * options.c
 *	  The options of servers, user mappings, foreign tables and columns, and
 *	  their check when they are written.
 *
 * One table says which option is legal where and how its value is checked;
 * what a connector declares comes on top of it.  An unknown name is answered
 * with the names that are known there.  The value of a credential is never
 * part of a message.
 *
 * pg_restore writes servers before the rows of hubex.connector that are the
 * user's own; like PostgreSQL's function bodies, what depends on them goes
 * unchecked while check_function_bodies is off, and is checked when used.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "connector/connector.h"
#include "connector/options.h"

PG_FUNCTION_INFO_V1(hubex_fdw_validator);

typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_CONNECTOR,
	OPTION_URL,
	OPTION_RATE,
	OPTION_COUNT,				/* a whole number of 1 or more */
	OPTION_SECONDS,
	OPTION_LONG_SECONDS,		/* up to a year */
	OPTION_FACTOR,				/* a number of 1 or more */
	OPTION_SHARE,				/* a number from 0 to 1 */
	OPTION_BOOL,
	OPTION_FILE,				/* a path the server reads: superusers only */
	OPTION_PROXY,
	OPTION_OBJECT,				/* a JSON object */
	OPTION_ON_ERROR				/* what a value that does not fit is */
} OptionKind;

typedef struct Option
{
	const char *name;
	Oid			catalog;
	OptionKind	kind;
} Option;

static const Option options_known[] = {
	{"connector", ForeignServerRelationId, OPTION_CONNECTOR},
	{"url", ForeignServerRelationId, OPTION_URL},
	{"rate_limit", ForeignServerRelationId, OPTION_RATE},
	{"max_connections", ForeignServerRelationId, OPTION_COUNT},
	{"connect_timeout", ForeignServerRelationId, OPTION_SECONDS},
	{"timeout", ForeignServerRelationId, OPTION_SECONDS},
	{"page_size", ForeignServerRelationId, OPTION_COUNT},
	{"retry_attempts", ForeignServerRelationId, OPTION_COUNT},
	{"retry_base", ForeignServerRelationId, OPTION_SECONDS},
	{"retry_factor", ForeignServerRelationId, OPTION_FACTOR},
	{"retry_cap", ForeignServerRelationId, OPTION_SECONDS},
	{"retry_jitter", ForeignServerRelationId, OPTION_SHARE},
	{"retry_total", ForeignServerRelationId, OPTION_LONG_SECONDS},
	{"ca_file", ForeignServerRelationId, OPTION_FILE},
	{"proxy", ForeignServerRelationId, OPTION_PROXY},
	{"allow_http", ForeignServerRelationId, OPTION_BOOL},
	{"resource", ForeignTableRelationId, OPTION_TEXT},
	{"filter", ForeignTableRelationId, OPTION_OBJECT},
	{"include_deleted", ForeignTableRelationId, OPTION_BOOL},
	{"on_error", ForeignTableRelationId, OPTION_ON_ERROR},
	{"page_size", ForeignTableRelationId, OPTION_COUNT},
	{"path", AttributeRelationId, OPTION_TEXT},
	{"constant", AttributeRelationId, OPTION_TEXT},
	{"filter", AttributeRelationId, OPTION_TEXT},
};

/* The value of an option in a list of DefElem, or NULL. */
const char *
hx_option_get(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst(cell);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

/* Reads a time like '30', '30s', '500ms' or '2min'; a bare number is seconds. */
bool
hx_option_seconds(const char *text, int *milliseconds)
{
	double		seconds;
	const char *hint;

	if (!parse_real(text, &seconds, GUC_UNIT_S, &hint) || seconds < 0.001 || seconds > 86400)
		return false;
	*milliseconds = (int) (seconds * 1000 + 0.5);
	return true;
}

/* The same for up to a year; a real number of seconds. */
bool
hx_option_long_seconds(const char *text, double *seconds)
{
	const char *hint;

	return parse_real(text, seconds, GUC_UNIT_S, &hint) && *seconds >= 0.001 && *seconds <= 366 * 86400.0;
}

static void
refuse_value(const char *option, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\"", option),
			 hint ? errhint("%s", hint) : 0));
}

static char *
join_names(List *names)
{
	StringInfoData joined;
	ListCell   *cell;

	initStringInfo(&joined);
	foreach(cell, names)
		appendStringInfo(&joined, "%s%s", joined.len ? ", " : "", (char *) lfirst(cell));
	return joined.data;
}

static bool
has_name(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

/* Does an option of a user mapping name a file with a credential? */
static bool
names_file(const char *option)
{
	size_t		len = strlen(option);

	return len > 5 && strcmp(option + len - 5, "_file") == 0;
}

static void
require_superuser(const char *option)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may set option \"%s\"", option),
				 errdetail("It names a file that the server reads.")));
}

static void
check_value(const Option *option, const char *value, bool allow_http)
{
	int			number;
	double		real;
	bool		flag;
	HxRate		rate;
	const char *problem;

	switch (option->kind)
	{
		case OPTION_TEXT:
		case OPTION_CONNECTOR:
			if (*value == '\0')
				refuse_value(option->name, "It must not be empty.");
			break;
		case OPTION_URL:
			problem = hx_http_url_problem(value, allow_http);
			if (problem != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"%s\"", option->name),
						 errdetail("The URL is refused: %s.", problem),
						 errhint("A URL is like https://api.hubex.ru/fsm. Plain http to another machine needs the option allow_http.")));
			break;
		case OPTION_PROXY:
			problem = hx_http_url_problem(value, true);
			if (problem != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"%s\"", option->name),
						 errdetail("The URL is refused: %s.", problem)));
			break;
		case OPTION_RATE:
			if (!hx_rate_parse(value, &rate))
				refuse_value(option->name, "A rate is like 60/min, 10/s, 2/s burst 50 or none.");
			break;
		case OPTION_COUNT:
			/* parse_int() would round 1.5, and what is read by SQL cannot be that */
			if (value[strspn(value, "0123456789")] != '\0' || !parse_int(value, &number, 0, NULL) || number < 1)
				refuse_value(option->name, "It is a whole number of 1 or more.");
			break;
		case OPTION_SECONDS:
			if (!hx_option_seconds(value, &number))
				refuse_value(option->name, "It is a time like 30s, 500ms or 2min; a bare number is seconds.");
			break;
		case OPTION_LONG_SECONDS:
			if (!hx_option_long_seconds(value, &real))
				refuse_value(option->name, "It is a time like 90s, 12h or 7d; a bare number is seconds.");
			break;
		case OPTION_FACTOR:
			if (!parse_real(value, &real, 0, NULL) || !(real >= 1 && real <= 1000))
				refuse_value(option->name, "It is a number of 1 or more.");
			break;
		case OPTION_SHARE:
			if (!parse_real(value, &real, 0, NULL) || !(real >= 0 && real <= 1))
				refuse_value(option->name, "It is a number from 0 to 1.");
			break;
		case OPTION_BOOL:
			if (!parse_bool(value, &flag))
				refuse_value(option->name, "It is true or false.");
			break;
		case OPTION_FILE:
			require_superuser(option->name);
			break;
		case OPTION_OBJECT:
			if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(value)))))
				refuse_value(option->name, "It is a JSON object.");
			break;
		case OPTION_ON_ERROR:
			if (strcmp(value, "error") != 0 && strcmp(value, "null") != 0)
				refuse_value(option->name, "It is error, or null: a value that does not fit its column is NULL, with a warning.");
			break;
	}
}

/* Checks what the connector declares as an option of its own. */
static void
check_declared(const Jsonb *manifest, const char *name, const char *value)
{
	char	   *type = hx_json_text(manifest, psprintf("options.%s.type", name));
	int			number;
	bool		flag;

	if (strcmp(type, "integer") == 0 && !parse_int(value, &number, 0, NULL))
		refuse_value(name, "It is a whole number.");
	if (strcmp(type, "boolean") == 0 && !parse_bool(value, &flag))
		refuse_value(name, "It is true or false.");
}

/* The manifest of the connector a server's options name. */
static Jsonb *
server_manifest(List *options)
{
	const char *name = hx_option_get(options, "connector");
	Jsonb	   *manifest;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required", "connector"),
				 errhint("The connectors are: %s.", join_names(hx_connector_names()))));
	manifest = hx_connector_load(name);
	if (manifest == NULL && check_function_bodies)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown connector \"%s\"", name),
				 errhint("The connectors are: %s. Insert a manifest into hubex.connector to add one.",
						 join_names(hx_connector_names()))));
	return manifest;
}

/*
 * hubex_fdw_validator(options, catalog): refuses what is not an option there
 * (HV00D, with the names that are), what is missing and what has a bad value.
 */
Datum
hubex_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	Jsonb	   *manifest = NULL;
	List	   *names = NIL;
	List	   *declared = NIL;
	const char *allow_text = hx_option_get(options, "allow_http");
	bool		allow_http = false;
	bool		lenient = !check_function_bodies;
	ListCell   *cell;

	/* pg_upgrade makes servers before tables; all was checked when it was written. */
	if (IsBinaryUpgrade)
		PG_RETURN_VOID();

	for (int i = 0; i < lengthof(options_known); i++)
		if (options_known[i].catalog == catalog)
			names = lappend(names, unconstify(char *, options_known[i].name));

	if (catalog == ForeignServerRelationId)
	{
		manifest = server_manifest(options);
		declared = manifest ? hx_json_names(hx_json_part(manifest, "options")) : NIL;
		if (manifest != NULL)
			lenient = false;
	}
	else if (catalog == UserMappingRelationId)
	{
		foreach(cell, hx_connector_credential_names())
		{
			declared = lappend(declared, lfirst(cell));
			declared = lappend(declared, psprintf("%s_file", (char *) lfirst(cell)));
		}
	}

	if (allow_text != NULL)
		(void) parse_bool(allow_text, &allow_http);

	foreach(cell, options)
	{
		DefElem    *def = lfirst(cell);
		const Option *option = NULL;

		for (int i = 0; i < lengthof(options_known); i++)
			if (options_known[i].catalog == catalog && strcmp(options_known[i].name, def->defname) == 0)
				option = &options_known[i];

		/* whatever is known of it: a connector that comes later may declare it */
		if (catalog == UserMappingRelationId && names_file(def->defname))
			require_superuser(def->defname);

		if (option != NULL)
			check_value(option, defGetString(def), allow_http);
		else if (!has_name(declared, def->defname))
		{
			if (lenient && (catalog == ForeignServerRelationId || catalog == UserMappingRelationId))
				continue;
			names = list_concat(names, declared);
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", def->defname),
					 names != NIL ? errhint("Valid options in this context are: %s.", join_names(names))
					 : errhint("There are no valid options in this context.")));
		}
		else if (catalog == ForeignServerRelationId)
			check_declared(manifest, def->defname, defGetString(def));
		else if (*defGetString(def) == '\0')
			refuse_value(def->defname, "It must not be empty.");
	}

	if (catalog == AttributeRelationId && hx_option_get(options, "path") && hx_option_get(options, "filter"))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("a column cannot have both options \"%s\" and \"%s\"", "path", "filter"),
				 errdetail("The value of a column stands in the record, or is what a query filters by.")));
	if (catalog == ForeignServerRelationId && hx_option_get(options, "url") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required", "url"),
				 errhint("A URL is like https://api.hubex.ru/fsm.")));

	PG_RETURN_VOID();
}
