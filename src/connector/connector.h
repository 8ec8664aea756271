/*-------------------------------------------------------------------------
 *
 * connector.h
 *	  Connectors, accounts and calls: how hubex speaks to a remote system.
 *
 * A connector is data (a manifest); an account is a foreign server seen by a
 * role, with everything resolved that a request needs; a call is one request
 * to an account, signed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_CONNECTOR_H
#define HX_CONNECTOR_H

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "http/http.h"
#include "http/limiter.h"
#include "json/json.h"
#include "storage/block.h"
#include "storage/off.h"

#define HX_ACCOUNT_KEY_LEN	32

/* When and how often what failed is tried again; times in seconds. */
typedef struct HxRetry
{
	int			attempts;
	double		base;			/* the wait after the first attempt */
	double		factor;			/* each wait is so many times the one before */
	double		cap;			/* but no longer than this */
	double		jitter;			/* so much of a wait is left to chance, 0 to 1 */
	double		total;			/* given up after so long; 0: never */
	int			circuit_failures;	/* so many in a row open the circuit */
} HxRetry;

/*
 * An account: one server as one role sees it.  Holds credentials in memory,
 * so it lives in a context that is short-lived or a worker's own, and is
 * never shown.
 */
typedef struct HxAccount
{
	char	   *server;			/* name of the foreign server */
	Oid			server_oid;
	char	   *connector;		/* name of the connector */
	Jsonb	   *manifest;
	char	   *url;
	List	   *values;			/* of HxPair *: options and credentials, for {names} */
	List	   *secrets;		/* of char *: the credentials among them */
	int			connect_timeout_ms;
	int			timeout_ms;
	int			max_connections;
	int			page_size;
	char	   *ca_file;
	char	   *proxy;
	bool		allow_http;
	HxRate		rate;
	HxRetry		retry;
	uint8		key[HX_ACCOUNT_KEY_LEN];	/* of the remote account, for token and limiter */
} HxAccount;

/* What is asked of an account. */
typedef struct HxCall
{
	const char *method;
	const char *path;			/* below the server's url */
	List	   *query;			/* of HxPair * */
	List	   *headers;		/* of HxPair *, besides the connector's own */
	const char *body;
	size_t		body_len;
	const char *content_type;	/* of the body; NULL: JSON */
	List	   *parts;			/* of HxHttpPart *: a form, instead of a body */
	bool		once;			/* a repetition does harm, whatever HTTP says of the method */
} HxCall;

/* connector_store.c */
extern Jsonb *hx_connector_load(const char *name);
extern List *hx_connector_names(void);
extern List *hx_connector_credential_names(void);

/* Tells the manifest read at one time from that of another. */
typedef struct HxConnectorVersion
{
	Oid			table;
	uint32		transaction;
	uint32		command;		/* of that transaction: after a TRUNCATE, another row is in its place */
	BlockNumber block;
	OffsetNumber offset;
} HxConnectorVersion;
extern void hx_connector_version(const char *name, HxConnectorVersion *version);
extern bool hx_connector_is_version(const HxConnectorVersion *version);

/* manifest.c */
extern Jsonb *hx_manifest_resource(const Jsonb *manifest, const char *connector, const char *resource);
extern char *hx_manifest_resource_text(const Jsonb *manifest, const char *resource, const char *path);
extern void hx_manifest_each_resource(const Jsonb *manifest, HxJsonVisit fn, void *arg);
extern Jsonb *hx_manifest_operation(const Jsonb *manifest, const char *resource, const char *operation);

/* retry.c */
extern void hx_retry_read(const Jsonb *manifest, List *server_options, HxRetry *retry);
extern bool hx_retry_is_final(const Jsonb *manifest, int status);
extern int64 hx_retry_wait_ms(const HxRetry *retry, int attempts, int64 retry_after_ms, double random);

/* account.c */
extern char *hx_account_only_server(const char *name);
extern HxAccount *hx_account_open(const char *server, Oid role, bool secrets);
extern HxAccount *hx_account_try_open(const char *server, Oid role, char **problem);
extern char *hx_account_expand(const HxAccount *account, const char *text);
extern Jsonb *hx_account_expand_document(const HxAccount *account, const Jsonb *document);

/* call.c */
extern void hx_call_from_args(FunctionCallInfo fcinfo, HxCall *call);
extern void hx_call_check(const HxAccount *account, const HxCall *call);
extern List *hx_call_query(const Jsonb *query);
extern List *hx_call_headers(const Jsonb *headers);

/* request.c */
extern HxHttpRequest *hx_call_request(const HxAccount *account, const HxCall *call, const char *token);
extern char *hx_call_problem(const HxAccount *account, const HxHttpResult *result, const Jsonb *body);
extern Jsonb *hx_call_refusal(const HxAccount *account, const Jsonb *body);
extern int64 hx_call_permit(const HxAccount *account, HxPriority priority, TimestampTz since);
extern const HxHttpResult *hx_call_perform(const HxAccount *account, const HxCall *call);

/* sign_in.c */
extern bool hx_sign_in_needed(const HxAccount *account);
extern HxHttpRequest *hx_sign_in_request(const HxAccount *account);
extern bool hx_sign_in_accept(const HxAccount *account, const HxHttpResult *result, char **problem);

typedef struct HxSignIn HxSignIn;
extern HxSignIn *hx_sign_in_begin(const HxAccount *account, HxPriority priority);
extern bool hx_sign_in_step(HxSignIn *sign_in);
extern void hx_sign_in_step_all(void);
extern TimestampTz hx_sign_in_ask_at(const HxSignIn *sign_in);
extern void hx_sign_in_end(HxSignIn *sign_in);

/* record.c; see resource.h */
extern bool hx_record_time(const Jsonb *resource, const char *text, TimestampTz *time);

/* convert.c */

/* What turns the values of one type into JSON values; made once, used for many. */
typedef struct HxConverter
{
	Oid			type;
	Oid			base;			/* what a domain is over */
	FmgrInfo   *to_jsonb;
} HxConverter;
extern void hx_converter_init(HxConverter *converter, Oid type);
extern void hx_converter_value(const HxConverter *converter, Datum value, bool isnull, JsonbValue *result);
extern JsonbValue *hx_convert_datum(Datum value, bool isnull, Oid type);

#endif							/* HX_CONNECTOR_H */
