/*-------------------------------------------------------------------------
 *
 * answer.h
 *	  What wire.c, answer.c and reconcile.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_ANSWER_H
#define HX_ANSWER_H

#include "outbox/outbox.h"

/* More records than this are not looked through. */
#define HX_LOOK_UP_MAX_RECORDS	1000

/* wire.c */
extern Jsonb *hx_wire_operation(const HxAccount *account, const HxRequest *request);
extern bool hx_wire_can_look_up(const HxAccount *account, const HxRequest *request);

/* answer.c */
extern void hx_answer_try_again(const HxAccount *account, HxRequest *request, const HxHttpResult *result, char *error);
extern void hx_answer_give_up(HxRequest *request, char *error);
extern void hx_answer_deliver(HxRequest *request);
extern char *hx_answer_describe(const HxAccount *account, const HxHttpResult *result, const Jsonb *body);
extern bool hx_answer_is_final(const HxAccount *account, int status);
extern List *hx_answer_texts(const Jsonb *document, const char *place);

/* reconcile.c */
extern void hx_reconcile_resolved(const HxAccount *account, HxRequest *request, const HxHttpResult *result,
								  List *awaited);
extern void hx_reconcile_looked_up(const HxAccount *account, List *requests, const HxHttpResult *result,
								   List *known_ids);

#endif							/* HX_ANSWER_H */
