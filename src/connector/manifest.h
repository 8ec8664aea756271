/*-------------------------------------------------------------------------
 *
 * manifest.h
 *	  The check of a connector's manifest, beyond its grammar.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_MANIFEST_H
#define HX_MANIFEST_H

#include "json/json.h"

/* manifest.c */
extern void hx_manifest_refuse(const char *path, const char *problem, const char *hint);

/* manifest_resource.c */
extern void hx_manifest_check_resources(const Jsonb *manifest);

#endif							/* HX_MANIFEST_H */
