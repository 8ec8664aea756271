/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The outbox: requests put in by transactions, and their delivery.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_OUTBOX_H
#define HX_OUTBOX_H

#include "connector/connector.h"
#include "datatype/timestamp.h"
#include "utils/uuid.h"

/*
 * Limits: the body of one request; a natural key, which has to fit a URL when
 * it is looked up by.
 */
#define HX_REQUEST_MAX_BYTES		(64 * 1024 * 1024)
#define HX_REQUEST_SMALL_BYTES		(64 * 1024) /* counts as nothing */
#define HX_NATURAL_KEY_MAX_BYTES	1000

/* A request to be put into the outbox. */
typedef struct HxNewRequest
{
	const char *server;
	const char *resource;		/* with operation create, else NULL */
	const char *operation;		/* "create" or "call" */
	const char *method;
	const char *path;
	Jsonb	   *query;
	Jsonb	   *headers;
	Jsonb	   *body;
	bytea	   *content;
	const char *content_type;
	const char *idempotency_key;
	const char *ordering_key;
	const char *natural_key;
	pg_uuid_t  *stamp;
	bool		has_deliver_after;
	TimestampTz deliver_after;
} HxNewRequest;

/* A request taken from the outbox for delivery. */
typedef struct HxRequest
{
	int64		id;
	char	   *server;
	char	   *owner;
	char	   *resource;
	bool		creates;
	char	   *method;
	char	   *path;
	Jsonb	   *query;
	Jsonb	   *headers;
	char	   *text;			/* the JSON body, in the database's encoding */
	char	   *body;			/* or the raw content */
	size_t		body_len;
	bool		has_content;
	char	   *content_type;
	int			attempts;		/* with this one */
	char	   *natural_key;
	char	   *stamp;
	bool		uncertain;
	int64		bytes;
	TimestampTz created_at;
} HxRequest;

/* What became of a request; the state machine is in docs/architecture.md. */
typedef enum HxVerdict
{
	HX_DELIVERED,
	HX_DEAD,
	HX_RETRY,					/* waiting again; the attempt is over */
	HX_RETURNED					/* waiting again; it was never sent */
} HxVerdict;

typedef struct HxOutcome
{
	int64		id;
	HxVerdict	verdict;
	bool		uncertain;		/* it may have done its work unseen */
	int			status;			/* 0: none */
	char	   *error;
	char	   *remote_id;
	char	   *remote_number;
	Jsonb	   *response;
	TimestampTz next_attempt_at;	/* of a retry */
} HxOutcome;

/* A server's room for more requests, for claiming. */
typedef struct HxRoom
{
	const char *server;
	int			free;			/* requests */
	int64		bytes;			/* of large bodies */
} HxRoom;

/* outbox_store.c */
extern int64 hx_outbox_insert(const HxNewRequest *request);
extern bool hx_outbox_state(int64 id, char **state, bool *own_transaction);
extern int64 hx_outbox_new_claimant(Oid outbox);
extern void hx_outbox_end_claimant(Oid outbox, int64 claimant);
extern int64 hx_outbox_recover(Oid outbox, int64 claimant);
extern List *hx_outbox_servers(void);
extern List *hx_outbox_claim(int64 claimant, const HxRoom *rooms, int nrooms, int in_all);
extern void hx_outbox_record(int64 claimant, List *outcomes);
extern bool hx_outbox_next_due(const char *only_server, TimestampTz *due);
extern List *hx_outbox_known_ids(const char *server, const char *resource, const char *natural_key, int64 except);

extern void hx_outbox_procedure_begin(void);
extern void hx_outbox_procedure_commit(void);
extern void hx_outbox_procedure_enter(void);
extern void hx_outbox_procedure_leave(void);

/* enqueue.c */
extern int64 hx_outbox_enqueue_create(const HxAccount *account, const char *resource, Jsonb *fields,
									  HxNewRequest *request);

/* backoff.c */
extern int64 hx_outbox_backoff_ms(const Jsonb *manifest, int attempts, int64 retry_after_ms, double random);

/* delivery.c */
typedef struct HxDelivery HxDelivery;
typedef struct HxTransactions
{
	void		(*begin) (void);
	void		(*commit) (void);
} HxTransactions;

extern HxDelivery *hx_delivery_create(const HxTransactions *transactions, const char *only_server);
extern int64 hx_delivery_step(HxDelivery *delivery);
extern bool hx_delivery_gone(const HxDelivery *delivery);
extern bool hx_delivery_idle(const HxDelivery *delivery);
extern void hx_delivery_wait(HxDelivery *delivery, int64 milliseconds);
extern void hx_delivery_stop_claiming(HxDelivery *delivery);
extern int64 hx_delivery_after_error(HxDelivery *delivery);

/* answer.c */
typedef enum HxNextStep
{
	HX_STEP_DONE,				/* outcome is filled */
	HX_STEP_LOOK_UP,			/* find out whether the record is there */
	HX_STEP_SEND				/* it is not: send (again) */
} HxNextStep;
extern HxCall *hx_outbox_call(const HxAccount *account, const HxRequest *request);
extern HxCall *hx_outbox_lookup_call(const HxAccount *account, const HxRequest *request);
extern HxNextStep hx_outbox_judge(const HxAccount *account, const HxRequest *request,
								  const HxHttpResult *result, HxOutcome *outcome);
extern HxNextStep hx_outbox_judge_lookup(const HxAccount *account, const HxRequest *request,
										 const HxHttpResult *result, List *known_ids, HxOutcome *outcome);
extern bool hx_outbox_can_create(const HxAccount *account, const HxRequest *request);
extern bool hx_outbox_can_look_up(const HxAccount *account, const HxRequest *request);

#endif							/* HX_OUTBOX_H */
