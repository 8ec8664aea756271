/*-------------------------------------------------------------------------
 *
 * kept_plan.h
 *	  What a trigger has to know, kept for the session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_KEPT_PLAN_H
#define HX_KEPT_PLAN_H

#include "commands/trigger.h"
#include "connector/connector.h"

/*
 * Whose a plan is.  The function is looked at because CREATE OR REPLACE TRIGGER
 * gives the same trigger another, while a statement may still fire the one
 * before: what a plan is besides HxKeptPlan, its function knows.
 */
typedef struct HxKeptPlanKey
{
	Oid			trigger;
	Oid			function;
	Oid			role;
} HxKeptPlanKey;

/*
 * What each plan begins with.  "valid" becomes false when something it was made
 * from changes, and another is made for the next row or statement.
 */
typedef struct HxKeptPlan
{
	HxKeptPlanKey key;
	MemoryContext cxt;			/* of the plan and of all that it is made of */
	Oid			relation;		/* that fires; it may be a partition */
	bool		valid;
	bool		busy;			/* it is used at the moment, and not to be used twice at once */
	uint64		changes;		/* there had been when it was begun */

	/* what else it is made from; for whoever makes it to fill in */
	List	   *relations;		/* of Oid, in cxt */
	HxConnectorVersion connector_version;
	bool		uses_functions; /* or casts */
} HxKeptPlan;

extern HxKeptPlan *hx_kept_plan_find(const TriggerData *trigger);
extern void *hx_kept_plan_begin(const TriggerData *trigger, Size size);
extern void hx_kept_plan_keep(HxKeptPlan *plan);

#endif							/* HX_KEPT_PLAN_H */
