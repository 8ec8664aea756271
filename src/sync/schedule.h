/*-------------------------------------------------------------------------
 *
 * schedule.h
 *	  Which runs are due.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_SCHEDULE_H
#define HX_SCHEDULE_H

#include "utils/uuid.h"

#include "sync/sync.h"

/* A run that a worker is to do at a time. */
typedef struct HxDueRun
{
	char	   *subscription;
	TimestampTz made_at;		/* the subscription; tells it from one of the same name before */
	HxSyncKind	kind;
	TimestampTz at;				/* PG_INT64_MAX: never again, as it stands */
} HxDueRun;

extern bool hx_schedule_wanted(void);
extern List *hx_schedule_due(const pg_uuid_t *binding);

#endif							/* HX_SCHEDULE_H */
