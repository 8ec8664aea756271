/*-------------------------------------------------------------------------
 *
 * mirror_plan.h
 *	  What a trigger of a mirror has to know.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_MIRROR_PLAN_H
#define HX_MIRROR_PLAN_H

#include "connector/kept_plan.h"
#include "sync/outgoing.h"
#include "sync/two_way.h"

/* What hubex_mirror_trigger does for one trigger and one role. */
typedef struct HxMirrorPlan
{
	HxKeptPlan	kept;			/* comes first */
	HxMirror   *mirror;
	HxOutgoing *outgoing;
	HxMirrorValues *values;		/* of the mirror's columns */
	AttrNumber *attributes;		/* of the mirror's columns in the relation; 0: none */
	AttrNumber	last_attribute;
	AttrNumber	synced_at;		/* 0: none */
	AttrNumber	marked;
	Datum	   *constants;		/* of the columns that are constant in the foreign table */
	bool		has_constants;
	FmgrInfo	key_out;
} HxMirrorPlan;

extern HxMirrorPlan *hx_mirror_plan(const TriggerData *trigger, HxMirrorPlan *last);

#endif							/* HX_MIRROR_PLAN_H */
