/*-------------------------------------------------------------------------
 *
 * binding.h
 *	  Which database may act on what its tables say: a copy stays silent.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_BINDING_H
#define HX_BINDING_H

#include "utils/uuid.h"

extern void hx_binding_token(pg_uuid_t *token);
extern bool hx_binding_holds(pg_uuid_t *token, char **why);
extern void hx_binding_report_held(int elevel, const char *why);
extern void hx_binding_take(pg_uuid_t *token);

#endif							/* HX_BINDING_H */
