/*-------------------------------------------------------------------------
 *
 * two_way.h
 *	  What the files of two-way mirrors share.
 *
 *	mirror_trigger.c		hubex_mirror_trigger(): changes made here, on their way out
 *	mirror_plan.c			what it has to know, kept for the session
 *	two_way.c				whose value of a column stays
 *	resolve.c				... of a batch of records
 *	settle.c				... at the end of a run
 *	outgoing.c				rows as requests
 *	local_change_store.c	the rows of hubex.local_change and hubex.conflict
 *	target_store.c			rows of a target as they are now
 *	echo.c					writing what our own change made of a record, which is no change
 *	pending_store.c			hubex.pending(), hubex_pending_view()
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_TWO_WAY_H
#define HX_TWO_WAY_H

#include "access/attnum.h"
#include "connector/value.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "sync/sync.h"

/* ---- two_way.c ---- */

/* Values of a mirror's column, as the target has them: as JSON and back, and compared. */
typedef struct HxMirrorValues
{
	Oid			type;
	int16		len;
	bool		byval;
	Oid			collation;
	HxConverter converter;
	HxValueType reader;
	FmgrInfo   *equal;			/* NULL: the type has no equality */
} HxMirrorValues;

extern void hx_mirror_values_init(HxMirrorValues *values, Oid type, int32 typmod);
extern Jsonb *hx_mirror_value_json(const HxMirrorValues *values, Datum datum, bool isnull);
extern bool hx_mirror_json_value(HxMirrorValues *values, const Jsonb *json, Datum *datum, bool *isnull);
extern bool hx_mirror_same_image(const HxMirrorValues *values, Datum a, bool a_null, Datum b, bool b_null);
extern bool hx_mirror_same(const HxMirrorValues *values, Datum a, bool a_null, Datum b, bool b_null);

typedef enum HxChangeKind
{
	HX_CHANGE_CREATE,
	HX_CHANGE_UPDATE,
	HX_CHANGE_DELETE
} HxChangeKind;

typedef enum HxChangeState
{
	HX_CHANGE_OPEN,				/* its request is under way, or what came of it is not seen yet */
	HX_CHANGE_ACCEPTED,			/* the remote side makes another value of it, which is known */
	HX_CHANGE_REFUSED			/* the remote side did not take it: the column follows it */
} HxChangeState;

typedef enum HxRequestState
{
	HX_REQUEST_UNDER_WAY,		/* waiting, or being sent */
	HX_REQUEST_DELIVERED,
	HX_REQUEST_GIVEN_UP,		/* dead, or cancelled */
	HX_REQUEST_GONE				/* it is in the outbox no more */
} HxRequestState;

/* A row of hubex.local_change, with what became of its request. */
typedef struct HxLocalChange
{
	const char *key;
	HxChangeKind kind;
	const char *column;
	HxChangeState state;
	Jsonb	   *local;			/* NULL: none */
	Jsonb	   *remote;
	Jsonb	   *earlier;		/* [[request, value], ...] */
	Jsonb	   *answered;		/* [value, ...] */
	TimestampTz changed_at;
	int64		request;
	HxRequestState request_state;
	bool		has_ended;
	TimestampTz ended_at;		/* of the request, or since when it is known to be gone */
	const char *message;		/* why it was given up, or NULL */
	const char *remote_id;		/* of the record it made or is about, where known */
} HxLocalChange;

/* A disagreement about a column, as far as the record goes. */
typedef struct HxDispute
{
	const HxLocalChange *change;	/* NULL: there is none */
	HxColumnOwner owner;
	HxMirrorValues *values;
	Datum		remote;			/* what the record says */
	bool		remote_null;
	bool		has_row;		/* the mirror has a row, with the following in it */
	Datum		current;
	bool		current_null;
	bool		filled;			/* the mirror was filled once */
	TimestampTz asked_at;		/* of the answer with the record */
	bool		has_modified;
	TimestampTz modified;
} HxDispute;

/* What is to be done about it. */
typedef struct HxSettlement
{
	bool		keeps;			/* the value here stays */
	bool		echo;			/* the record shows what was sent to it */
	const char *conflict;		/* the reason by which it is recorded; NULL: it is none */
	enum
	{
		HX_THEN_NOTHING,
		HX_THEN_FORGET,			/* the change is settled */
		HX_THEN_REMEMBER,		/* the remote value is the one last seen */
		HX_THEN_ACCEPT,
		HX_THEN_REFUSE,
		HX_THEN_CANCEL,			/* what of its requests still waits; and forget it */
		HX_THEN_SEND			/* the value here is sent again */
	}			then;
} HxSettlement;

extern HxSettlement hx_two_way_judge(const HxDispute *dispute);
extern bool hx_two_way_is_settled(const HxLocalChange *change, TimestampTz asked_at);

/* ---- local_change_store.c ---- */

/* A row of hubex.conflict. */
typedef struct HxConflict
{
	const char *key;
	const char *column;
	const Jsonb *base;
	const Jsonb *local;
	const Jsonb *remote;
	bool		kept_local;
	const char *reason;
	const char *message;
	int64		request;		/* 0: none */
} HxConflict;

/* What is to be written of changes, collected. */
typedef struct HxChangeNotes
{
	List	   *forget;			/* of HxLocalChange * */
	List	   *update;			/* of the same: state, remote, earlier and answered are as they are to be */
	List	   *conflicts;		/* of HxConflict * */
} HxChangeNotes;

extern List *hx_local_changes_of(const char *subscription, int nkeys, const char *const *keys);
extern List *hx_local_changes_ended(const char *subscription);
extern List *hx_local_changes_at_rest(const char *subscription);
extern void hx_local_change_put(const char *subscription, const HxLocalChange *change);
extern void hx_local_changes_write(const char *subscription, const HxChangeNotes *notes);
extern void hx_conflicts_forget_old(void);

/* ---- target_store.c ---- */

/* A row of the target, as it is. */
typedef struct HxTargetRow
{
	bool		found;
	ItemPointerData tid;
	Oid			relation;		/* the partition */
	TransactionId version;
	bool		has_synced;
	TimestampTz synced;
	bool		marked;			/* as deleted */
	Datum	   *values;			/* of the mirror's columns that were asked for */
	bool	   *nulls;
} HxTargetRow;

extern HxTargetRow *hx_target_rows(const HxMirror *mirror, int nkeys, const char *const *keys, const Bitmapset *columns,
								   bool lock);
extern bool hx_target_holds(const HxMirror *mirror, const char *key);
extern HxBatchRow *hx_target_row_of_json(const HxMirror *mirror, const char *key, const Jsonb *row);
extern void hx_target_give_back(const HxMirror *mirror, const char *key, const Jsonb *row);

/* ---- echo.c ---- */

extern bool hx_echo_write(const HxMirror *mirror, const HxTargetRow *target, const HxBatchRow *row,
						  const Bitmapset *columns);

#endif							/* HX_TWO_WAY_H */
