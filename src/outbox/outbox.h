/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The outbox: requests put in by transactions, and their delivery.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_OUTBOX_H
#define HX_OUTBOX_H

#include "base/job.h"
#include "base/transactions.h"
#include "connector/connector.h"
#include "connector/writer.h"
#include "datatype/timestamp.h"
#include "utils/uuid.h"

/*
 * Limits: the body of one request; a natural key, which has to fit a URL when
 * it is looked up by.
 */
#define HX_REQUEST_MAX_BYTES		(64 * 1024 * 1024)
#define HX_REQUEST_SMALL_BYTES		(64 * 1024) /* counts as nothing */
#define HX_NATURAL_KEY_MAX_BYTES	1000

/* Requests that are put in together (insert.c). */
typedef struct HxBatch HxBatch;

/* A request to be put into the outbox. */
typedef struct HxNewRequest
{
	const char *server;
	const char *resource;		/* NULL with operation "call" */
	const char *operation;		/* a name of the connector's, or "call" */
	const char *method;
	const char *path;			/* may hold {id} */
	Jsonb	   *query;
	Jsonb	   *headers;
	Jsonb	   *body;			/* fields, or the body of a call */
	bytea	   *content;
	const char *content_type;
	const char *idempotency_key;
	const char *ordering_key;
	const char *natural_key;
	const char *remote_id;		/* of the record it is about, where known */
	Jsonb	   *write_back;
	pg_uuid_t  *stamp;
	pg_uuid_t	binding;
	bool		has_deliver_after;
	TimestampTz deliver_after;
	bool		has_expires_at;
	TimestampTz expires_at;
	bool		within_command; /* of a row; what it put in is not looked at before the command ends */
	HxBatch    *batch;			/* to be put in with others; NULL: at once */
} HxNewRequest;

/* What became of a request; the state machine is in docs/architecture.md. */
typedef enum HxVerdict
{
	HX_OPEN,					/* nothing yet */
	HX_DELIVERED,
	HX_DEAD,
	HX_RETRY,					/* waiting again; the attempt is over */
	HX_RETURNED					/* waiting again; it was never sent */
} HxVerdict;

typedef struct HxOutcome
{
	HxVerdict	verdict;
	bool		uncertain;		/* it may have done its work unseen */
	int			status;			/* 0: none */
	char	   *error;
	char	   *remote_id;
	char	   *remote_number;
	Jsonb	   *response;
	TimestampTz next_attempt_at;	/* of a retry */
	int64		merged_into;	/* 0: it went alone, or first */
} HxOutcome;

/* What is to be done next with a request that is being delivered. */
typedef enum HxStep
{
	HX_STEP_RESOLVE,			/* find out the id of the record it is about */
	HX_STEP_LOOK_UP,			/* find out whether its work is done already */
	HX_STEP_SEND,				/* send it (again) */
	HX_STEP_DONE				/* the outcome is filled */
} HxStep;

/* A request taken from the outbox for delivery. */
typedef struct HxRequest
{
	int64		id;
	char	   *server;
	char	   *owner;
	char	   *resource;
	char	   *operation;
	bool		creates;		/* the operation is "create" */
	char	   *method;
	char	   *path;
	Jsonb	   *query;
	Jsonb	   *headers;
	Jsonb	   *body;
	char	   *content;
	size_t		content_len;
	bool		has_content;
	char	   *content_type;
	int			attempts;		/* with this one */
	char	   *ordering_key;
	char	   *natural_key;
	char	   *remote_id;		/* what is known of it so far */
	char	   *stamp;
	bool		uncertain;
	int64		bytes;
	TimestampTz created_at;
	TimestampTz tried_since;	/* attempts count from then */
	TimestampTz expires_at;		/* 0: never */
	Jsonb	   *write_back;
	HxStep		step;
	int			most;			/* with how many it may go as one call; 0: as the connector says */
	HxOutcome	outcome;
} HxRequest;

/* A server, as far as delivering to it goes. */
typedef struct HxOutboxServer
{
	Oid			oid;
	const char *name;
	int			connections;	/* as many calls at once */
	bool		paused;
} HxOutboxServer;

/* What is to be claimed of one server. */
typedef struct HxRoom
{
	const char *server;
	int			free;			/* requests, at most */
	int64		bytes;			/* of large bodies; the last may exceed it */
	const char *resource;		/* only of this resource and operation; NULL: any */
	const char *operation;
	bool		untried;		/* only what was never tried, the newest first */
	TimestampTz due_from;		/* nothing before it in the order of times and ids is due; a claim moves it on */
	int64		due_from_id;
	bool		more;			/* out: something due was left */
} HxRoom;

/* outbox_store.c */
extern int64 hx_outbox_insert_by_statement(const HxNewRequest *request, const char *owner, int64 bytes);
extern bool hx_outbox_state(int64 id, char **state, bool *own_transaction);
extern int64 hx_outbox_new_claimant(Oid outbox);
extern void hx_outbox_end_claimant(Oid outbox, int64 claimant);
extern int64 hx_outbox_recover(Oid outbox, int64 claimant, const pg_uuid_t *binding);
extern List *hx_outbox_servers(void);
extern bool hx_outbox_next_due(const char *only_server, const pg_uuid_t *binding, TimestampTz *due);
extern int64 hx_outbox_expire(const pg_uuid_t *binding);

/* claim_store.c */
extern void hx_outbox_begin_claiming(void);
extern List *hx_outbox_claim(int64 claimant, const pg_uuid_t *binding, HxRoom *room);
extern List *hx_outbox_claim_followers(int64 claimant, const pg_uuid_t *binding, const HxRequest *request, int most);
extern int64 hx_outbox_release_blocked(List *requests);
extern void hx_outbox_mark_unwritten(List *requests);
extern void hx_outbox_write_back_again(const pg_uuid_t *binding);

/* insert.c */
extern pg_uuid_t *hx_outbox_new_stamp(void);
extern int64 hx_outbox_insert(HxNewRequest *request);
extern HxBatch *hx_outbox_batch_begin(void);
extern void hx_outbox_batch_write(HxBatch *batch);
extern void hx_outbox_batch_end(HxBatch *batch);

/* enqueue.c */
extern int64 hx_outbox_enqueue_create(const HxAccount *account, const char *resource, Jsonb *fields,
									  HxNewRequest *request);
typedef struct HxCreation HxCreation;
extern HxCreation *hx_outbox_creation(const HxAccount *account, const char *resource);
extern int	hx_outbox_take_fields(const HxCreation *creation, Jsonb *object, HxField *fields, int nfields);
extern char *hx_outbox_field_name(const HxCreation *creation, const char *given, bool *is_key);
extern int64 hx_outbox_enqueue_creation(const HxCreation *creation, const HxField *fields, int nfields,
										HxNewRequest *request);
extern int64 hx_outbox_enqueue_change(const HxAccount *account, const char *resource, const char *operation,
									  const HxRecordKey *key, Jsonb *fields, HxNewRequest *request);

/* writer.c */
extern void hx_outbox_install_writer(void);

/* control_store.c */
extern bool hx_outbox_cancel(int64 id);

/* record_store.c */
extern void hx_outbox_complete_key(const char *server, const char *resource, HxRecordKey *key,
								   const char **ordering_key);
extern char *hx_outbox_known_record(const HxRequest *request);
extern List *hx_outbox_known_ids(const HxRequest *request);

/* write_back_store.c */
extern bool hx_write_back(const HxRequest *request, char **problem);
extern bool hx_write_back_has_time(void);

/* backoff.c */
extern void hx_outbox_try_again(const HxAccount *account, HxRequest *request, int64 retry_after_ms, char *error);

/* delivery.c */
typedef struct HxDelivery HxDelivery;
extern HxDelivery *hx_delivery_create(const HxTransactions *transactions, const char *only_server);
extern int64 hx_delivery_step(HxDelivery *delivery);
extern bool hx_delivery_gone(const HxDelivery *delivery);
extern const char *hx_delivery_held(const HxDelivery *delivery);
extern int	hx_delivery_in_flight(const HxDelivery *delivery);
extern bool hx_delivery_idle(const HxDelivery *delivery);
extern void hx_delivery_wait(HxDelivery *delivery, int64 milliseconds);
extern void hx_delivery_stop_claiming(HxDelivery *delivery);
extern int64 hx_delivery_after_error(HxDelivery *delivery);

/* job.c */
extern const HxJob hx_delivery_job;

/* retention_store.c */

/* How far a walk over the outbox's old requests has come; begins with zeros. */
typedef struct HxRetention
{
	int64		walked;			/* the last id that was looked at */
	TimestampTz next;			/* nothing is done before */
} HxRetention;
extern int64 hx_retention_step(HxRetention *retention, const HxTransactions *transactions);
extern void hx_retention_walk(const HxTransactions *transactions, TimestampTz deadline);

/*
 * wire.c: what requests go out as.  All requests of a call share account,
 * resource, operation and step.
 */
extern bool hx_outbox_can_send(const HxAccount *account, const HxRequest *request);
extern bool hx_outbox_repeats_safely(const HxAccount *account, const HxRequest *request);
extern HxStep hx_outbox_first_step(const HxAccount *account, const HxRequest *request);
extern int	hx_outbox_most_a_call(const HxAccount *account, const HxRequest *request);
extern bool hx_outbox_merges(const HxAccount *account, const HxRequest *request);
extern bool hx_outbox_can_send(const HxAccount *account, const HxRequest *request);
extern bool hx_outbox_repeats_safely(const HxAccount *account, const HxRequest *request);
extern HxCall *hx_outbox_call(const HxAccount *account, List *requests);

/*
 * answer.c: what the answer means.  Each request gets its next step, and with
 * HX_STEP_DONE its outcome, palloc'd here.
 */
extern void hx_outbox_judge(const HxAccount *account, List *requests, const HxHttpResult *result, List *known_ids);

#endif							/* HX_OUTBOX_H */
