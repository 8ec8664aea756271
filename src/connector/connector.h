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

#define HX_ACCOUNT_KEY_LEN	32

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
} HxCall;

/* connector_store.c */
extern Jsonb *hx_connector_load(const char *name);
extern List *hx_connector_names(void);
extern List *hx_connector_credential_names(void);

/* manifest.c */
extern Jsonb *hx_manifest_resource(const Jsonb *manifest, const char *connector, const char *resource);

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
extern const HxHttpResult *hx_call_perform(const HxAccount *account, const HxCall *call);

/* sign_in.c */
extern bool hx_sign_in_needed(const HxAccount *account);
extern HxHttpRequest *hx_sign_in_request(const HxAccount *account);
extern bool hx_sign_in_accept(const HxAccount *account, const HxHttpResult *result, char **problem);

/* list.c */
typedef struct HxList HxList;
extern HxList *hx_list_begin(const HxAccount *account, const char *resource, const Jsonb *filter);
extern bool hx_list_next(HxList *list, char **key, Jsonb **record);
extern int64 hx_list_total(const HxList *list);
extern void hx_list_first_page_only(HxList *list);

/* record.c */
typedef struct HxRecordShape HxRecordShape;
extern HxRecordShape *hx_record_shape(const HxAccount *account, const char *resource, TupleDesc desc, Oid foreign_table);
extern void hx_record_values(HxRecordShape *shape, const char *key, const Jsonb *record,
							 Datum *values, bool *nulls);

extern bool hx_record_time(const Jsonb *resource, const char *text, TimestampTz *time);

/* convert.c */
extern JsonbValue *hx_convert_datum(Datum value, bool isnull, Oid type);

#endif							/* HX_CONNECTOR_H */
