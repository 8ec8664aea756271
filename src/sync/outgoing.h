/*-------------------------------------------------------------------------
 *
 * outgoing.h
 *	  Rows of a mirror as requests.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_OUTGOING_H
#define HX_OUTGOING_H

#include "nodes/bitmapset.h"
#include "sync/sync.h"

/* Changes of one mirror on their way out, for one role. */
typedef struct HxOutgoing HxOutgoing;

extern HxOutgoing *hx_outgoing_begin(const HxMirror *mirror, Oid role);
extern void hx_outgoing_next_row(HxOutgoing *outgoing);
extern char *hx_outgoing_key(HxOutgoing *outgoing, Datum key);
extern bool hx_outgoing_same(HxOutgoing *outgoing, int column, Datum a, bool a_null, Datum b, bool b_null);
extern int64 hx_outgoing_create(HxOutgoing *outgoing, const Datum *values, const bool *nulls);
extern int64 hx_outgoing_update(HxOutgoing *outgoing, Datum key, const Bitmapset *columns, const Datum *values,
								const bool *nulls);
extern int64 hx_outgoing_delete(HxOutgoing *outgoing, Datum key);

#endif							/* HX_OUTGOING_H */
