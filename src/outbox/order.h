/*-------------------------------------------------------------------------
 *
 * order.h
 *	  What stands before a request: the order of keys, safe against commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_ORDER_H
#define HX_ORDER_H

#include "outbox/outbox.h"

typedef struct HxOrder HxOrder;

/* A create, as far as it matters to others of its natural key. */
typedef struct HxNamesake
{
	int64		id;
	const char *state;
	const char *remote_id;		/* NULL: none is known */
	const char *ordering_key;	/* NULL: none */
	bool		uncertain;
} HxNamesake;

/* Takes one; false ends the search. */
typedef bool (*HxNamesakeVisit) (const HxNamesake *namesake, void *arg);

extern HxOrder *hx_order_begin(void);
extern void hx_order_end(HxOrder *order);
extern int64 hx_order_before(HxOrder *order, const HxRequest *request, bool *by_key);
extern void hx_order_namesakes(HxOrder *order, const char *server, const char *resource, const char *natural_key,
							   HxNamesakeVisit visit, void *arg);
extern int	hx_order_followers(HxOrder *order, const HxRequest *request, int64 *ids, int most);

#endif							/* HX_ORDER_H */
