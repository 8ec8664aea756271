/*-------------------------------------------------------------------------
 *
 * mirror_plan.h
 *	  What a trigger of a mirror has to know, kept for the session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_MIRROR_PLAN_H
#define HX_MIRROR_PLAN_H

#include "commands/trigger.h"

#include "sync/outgoing.h"
#include "sync/two_way.h"

/*
 * What hubex_mirror_trigger does for one trigger and one role.  "valid" becomes
 * false when something it was made from changes, and another is made for the
 * next statement.
 */
typedef struct HxMirrorPlan
{
	Oid			trigger;
	Oid			role;
	Oid			relation;		/* that fires; it may be a partition */
	bool		valid;
	bool		busy;			/* it is used for a row at the moment */
	MemoryContext cxt;
	HxConnectorVersion connector_version;

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
