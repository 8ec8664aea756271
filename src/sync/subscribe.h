/*-------------------------------------------------------------------------
 *
 * subscribe.h
 *	  What a subscription must be, for who makes one and who looks after it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_SUBSCRIBE_H
#define HX_SUBSCRIBE_H

#include "utils/rel.h"

#include "sync/sync.h"

/* A column of a target that shows one of the foreign table. */
typedef struct HxShown
{
	const char *name;			/* in the target */
	AttrNumber	attno;			/* in the target; 0 where that is still to be made */
	int			source;			/* attribute number in the foreign table - 1 */
	bool		key;			/* with the other such ones it tells which record a row is */
} HxShown;

/* A list as it is to be mirrored. */
typedef struct HxSource
{
	HxTable    *table;			/* with the subscription's filter, and deleted records */
	TupleDesc	desc;			/* of the foreign table */
	int			key;			/* attribute number - 1 of the record's key */
	HxAccount  *account;		/* of the subscription's owner, without secrets; NULL where that was not asked for */
	const char *modified;		/* the resource's column that tells what changed since; NULL: it cannot tell */
} HxSource;

extern HxSource *hx_subscribe_open_source(const HxSubscription *subscription);
extern HxSource *hx_subscribe_source(const HxSubscription *subscription);
extern List *hx_subscribe_columns(const HxSubscription *subscription, const HxSource *source, Relation target);
extern void hx_subscribe_check_owners(const HxSubscription *subscription, const HxSource *source, Relation target,
									  List *columns);
extern Oid	hx_subscribe_target(const HxSubscription *subscription, const HxSource *source, text *name);
extern void hx_subscribe_check_kind(Relation target);
extern HxMirror *hx_subscribe_check_target(const HxSubscription *subscription, Relation target, List *columns);
extern List *hx_subscribe_unshown(const HxSource *source, List *columns);

#endif							/* HX_SUBSCRIBE_H */
