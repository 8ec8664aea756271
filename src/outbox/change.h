/*-------------------------------------------------------------------------
 *
 * change.h
 *	  Changes of a request's state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_CHANGE_H
#define HX_CHANGE_H

#include "outbox/outbox.h"

/* What can happen to a request; the states it leads from and to are in change_store.c. */
typedef enum HxEvent
{
	HX_EVENT_CLAIM,				/* taken up for sending */
	HX_EVENT_DELIVER,
	HX_EVENT_GIVE_UP,			/* refused, or tried often and long enough */
	HX_EVENT_PUT_BACK,			/* to be sent later */
	HX_EVENT_RECOVER,			/* its sender is dead */
	HX_EVENT_EXPIRE,
	HX_EVENT_CANCEL,
	HX_EVENT_DISCARD,			/* a dead one is cancelled */
	HX_EVENT_REVIVE,			/* a dead one is retried */
	HX_EVENT_RESTORE			/* a cancelled one is retried */
} HxEvent;

#define HX_ATTEMPTS_FORGET	(-1000)

typedef struct HxChange
{
	HxEvent		event;
	int64		id;
	int64		claimant;		/* who claims it, or must have it; 0: whoever */
	int			attempts;		/* to add; HX_ATTEMPTS_FORGET: begin again, without expiry */
	TimestampTz next_attempt_at;	/* 0: as it is */
	const char *error;			/* NULL: as it is, but none once it is delivered */
	bool		unwritten;
	const HxOutcome *outcome;	/* of an attempt, or NULL */
} HxChange;

extern int64 hx_outbox_change(List *changes);

#endif							/* HX_CHANGE_H */
