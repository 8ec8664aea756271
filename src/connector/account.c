/*-------------------------------------------------------------------------
 *
 * account.c
 *	  Accounts: a foreign server as one role sees it.
 *
 * Resolves everything a request needs (connector, options, credentials) from
 * the catalogs, at the time it is needed: an ALTER SERVER or a new secret
 * takes effect with the next request.  The right to use an account is USAGE
 * on the server; the credentials are those of the role's user mapping, else
 * PUBLIC's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "base/attempt.h"
#include "base/settings.h"
#include "compat.h"
#include "connector/connector.h"
#include "connector/options.h"

#define CREDENTIAL_FILE_MAX		65536

PG_FUNCTION_INFO_V1(hubex_only_server);

/* The names of all servers of hubex_fdw, a List of char *. */
static List *
server_names(void)
{
	ForeignDataWrapper *fdw = GetForeignDataWrapperByName("hubex_fdw", false);
	Relation	catalog = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	List	   *names = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (server->srvfdw == fdw->fdwid)
			names = lappend(names, pstrdup(NameStr(server->srvname)));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return names;
}

/*
 * The server a call means: the one it names, else hubex.default_server, else
 * the only one there is.  Otherwise an error that lists the choices.
 */
char *
hx_account_only_server(const char *name)
{
	StringInfoData choices;
	List	   *names;
	ListCell   *cell;
	bool		known = false;

	if (name == NULL && hx_guc_default_server != NULL && *hx_guc_default_server)
		name = hx_guc_default_server;

	names = server_names();
	initStringInfo(&choices);
	foreach(cell, names)
	{
		appendStringInfo(&choices, "%s%s", choices.len ? ", " : "", (char *) lfirst(cell));
		if (name != NULL && strcmp(lfirst(cell), name) == 0)
			known = true;
	}
	if (name == NULL && list_length(names) == 1)
		return linitial(names);
	if (known)
		return pstrdup(name);

	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" of hubex_fdw does not exist", name),
				 names != NIL ? errhint("The servers are: %s.", choices.data)
				 : errhint("There is none yet: hubex_connect() or CREATE SERVER makes one.")));
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no server of hubex_fdw yet"),
				 errhint("hubex_connect() or CREATE SERVER makes one.")));
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
			 errmsg("no server is named and there are several"),
			 errhint("Name one of %s, or set hubex.default_server.", choices.data)));
}

/* hubex.only_server(name): the server a call means that may name none. */
Datum
hubex_only_server(PG_FUNCTION_ARGS)
{
	char	   *name = hx_account_only_server(PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0)));

	PG_RETURN_DATUM(DirectFunctionCall1(namein, CStringGetDatum(name)));
}

static void
add_value(HxAccount *account, const char *name, const char *value)
{
	account->values = lappend(account->values, hx_http_pair(name, value));
}

/* The options of the role's user mapping, else PUBLIC's; NIL where none. */
static List *
mapping_options(Oid server, Oid role)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
										ObjectIdGetDatum(role), ObjectIdGetDatum(server));
	List	   *options = NIL;
	Datum		datum;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		options = untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return options;
}

/* Reads a credential from the file an option names, less a final newline. */
static char *
read_credential(const char *option, const char *path)
{
	FILE	   *file = AllocateFile(path, "r");
	char	   *text = palloc(CREDENTIAL_FILE_MAX + 1);
	size_t		len;

	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the file of option \"%s\": %m", option)));
	len = fread(text, 1, CREDENTIAL_FILE_MAX, file);
	if (ferror(file))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the file of option \"%s\": %m", option)));
	FreeFile(file);
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r' || text[len - 1] == ' '))
		len--;
	text[len] = '\0';
	return text;
}

typedef struct Gathering
{
	HxAccount  *account;
	List	   *given;
	Oid			role;
	bool		secrets;		/* read credentials, or only see that they are there */
} Gathering;

static void
gather_option(const char *name, const JsonbValue *declared, void *arg)
{
	Gathering  *gathering = arg;
	const char *value = hx_option_get(gathering->given, name);

	if (value == NULL && declared->type == jbvBinary)
		value = hx_json_text(hx_json_value_part(declared), "default");
	if (value != NULL)
		add_value(gathering->account, name, value);
}

static void
gather_credential(const char *name, const JsonbValue *declared, void *arg)
{
	Gathering  *gathering = arg;
	const char *value = hx_option_get(gathering->given, name);
	char	   *file_option = psprintf("%s_file", name);
	const char *file = hx_option_get(gathering->given, file_option);

	if (file != NULL)
		value = gathering->secrets ? read_credential(file_option, file) : "";
	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("no credentials for server \"%s\"", gathering->account->server),
				 errdetail("Role \"%s\" has no user mapping with option \"%s\" or \"%s\", and PUBLIC has none.",
						   GetUserNameFromId(gathering->role, true) ? GetUserNameFromId(gathering->role, true) : "?",
						   name, file_option),
				 errhint("CREATE USER MAPPING FOR PUBLIC SERVER %s OPTIONS (%s '...').",
						 quote_identifier(gathering->account->server), name)));
	if (gathering->secrets)
	{
		add_value(gathering->account, name, value);
		gathering->account->secrets = lappend(gathering->account->secrets, pstrdup(value));
	}
}

/*
 * The key under which all processes know the remote account: a hash over its
 * address, options and credentials.
 */
static void
make_key(HxAccount *account)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	StringInfoData text;
	ListCell   *cell;

	StaticAssertStmt(HX_ACCOUNT_KEY_LEN == PG_SHA256_DIGEST_LENGTH, "an account's key is a SHA-256");
	initStringInfo(&text);
	appendStringInfo(&text, "%s%c%s", account->connector, 0, account->url);
	foreach(cell, account->values)
	{
		HxPair	   *pair = lfirst(cell);

		appendStringInfo(&text, "%c%s%c%s", 0, pair->name, 0, pair->value);
	}
	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (uint8 *) text.data, text.len) < 0 ||
		pg_cryptohash_final(hash, account->key, sizeof(account->key)) < 0)
		elog(ERROR, "could not hash an account's key");
	pg_cryptohash_free(hash);
	explicit_bzero(text.data, text.len);
	pfree(text.data);
}

static int
seconds_option(List *options, const char *name, int otherwise)
{
	const char *text = hx_option_get(options, name);
	int			milliseconds = otherwise;

	if (text != NULL)
		(void) hx_option_seconds(text, &milliseconds);
	return milliseconds;
}

static int
count_option(List *options, const char *name, int64 otherwise)
{
	const char *text = hx_option_get(options, name);
	int			number = (int) otherwise;

	if (text != NULL)
		(void) parse_int(text, &number, 0, NULL);
	return number;
}

/*
 * Opens the account of a server for a role, palloc'd here.  Without secrets
 * it serves to put requests into the outbox: it is seen that credentials are
 * there, but none is read.  Errors: no such server, no USAGE on it, no such
 * connector, no credentials.
 */
HxAccount *
hx_account_open(const char *server_name, Oid role, bool secrets)
{
	HxAccount  *account = palloc0(sizeof(HxAccount));
	char	   *name = hx_account_only_server(server_name);
	ForeignServer *server = GetForeignServerByName(name, false);
	Gathering	gathering = {account, server->options, role, secrets};
	const char *text;
	AclResult	allowed;

	allowed = hx_server_aclcheck(server->serverid, role, ACL_USAGE);
	if (allowed != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", name),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s.", quote_identifier(name),
						 quote_identifier(GetUserNameFromId(role, false)))));

	account->server = name;
	account->server_oid = server->serverid;
	account->connector = pstrdup(hx_option_get(server->options, "connector"));
	account->manifest = hx_connector_load(account->connector);
	if (account->manifest == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector \"%s\" of server \"%s\" does not exist", account->connector, name),
				 errhint("Insert its manifest into hubex.connector.")));

	account->url = pstrdup(hx_option_get(server->options, "url"));
	account->connect_timeout_ms = seconds_option(server->options, "connect_timeout", HX_HTTP_CONNECT_TIMEOUT_MS);
	account->timeout_ms = seconds_option(server->options, "timeout", HX_HTTP_TIMEOUT_MS);
	account->max_connections = count_option(server->options, "max_connections",
											hx_json_int(account->manifest, "limits.connections", HX_HTTP_MAX_CONNECTIONS));
	account->page_size = count_option(server->options, "page_size",
									  hx_json_int(account->manifest, "limits.page_size", 1000));
	text = hx_option_get(server->options, "ca_file");
	account->ca_file = text ? pstrdup(text) : NULL;
	text = hx_option_get(server->options, "proxy");
	account->proxy = text ? pstrdup(text) : NULL;
	text = hx_option_get(server->options, "allow_http");
	if (text != NULL)
		(void) parse_bool(text, &account->allow_http);
	text = hx_option_get(server->options, "rate_limit");
	if (text == NULL)
		text = hx_json_text(account->manifest, "limits.rate");
	if (!hx_rate_parse(text ? text : "none", &account->rate))
		elog(ERROR, "unreadable rate limit of server \"%s\"", name);

	hx_retry_read(account->manifest, server->options, &account->retry);

	hx_json_each(hx_json_part(account->manifest, "options"), gather_option, &gathering);
	gathering.given = mapping_options(server->serverid, role);
	hx_json_each(hx_json_part(account->manifest, "credentials"), gather_credential, &gathering);
	if (secrets)
		make_key(account);
	return account;
}

typedef struct Opening
{
	const char *server;
	Oid			role;
	HxAccount  *account;
} Opening;

static void
open_account(void *arg)
{
	Opening    *opening = arg;

	opening->account = hx_account_open(opening->server, opening->role, true);
}

/* The same with secrets; NULL and the reason, palloc'd, where it fails. */
HxAccount *
hx_account_try_open(const char *server, Oid role, char **problem)
{
	Opening		opening = {server, role, NULL};

	return hx_attempt_in_database(open_account, &opening, problem) ? opening.account : NULL;
}

static JsonbValue *
resolve_value(const char *name, bool alone, void *arg)
{
	const HxAccount *account = arg;
	ListCell   *cell;

	foreach(cell, account->values)
	{
		HxPair	   *pair = lfirst(cell);

		if (strcmp(pair->name, name) == 0)
		{
			JsonbValue *value = palloc(sizeof(JsonbValue));

			value->type = jbvString;
			value->val.string.val = unconstify(char *, pair->value);
			value->val.string.len = strlen(pair->value);
			return value;
		}
	}
	return NULL;
}

/* Fills the {names} of a text with the account's options and credentials. */
char *
hx_account_expand(const HxAccount *account, const char *text)
{
	return hx_json_expand_text(text, resolve_value, unconstify(HxAccount *, account));
}

/* The same for a document. */
Jsonb *
hx_account_expand_document(const HxAccount *account, const Jsonb *document)
{
	return hx_json_expand(document, resolve_value, unconstify(HxAccount *, account));
}
