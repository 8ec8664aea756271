/*-------------------------------------------------------------------------
 *
 * options.h
 *	  Reading the options of servers, user mappings and tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_OPTIONS_H
#define HX_OPTIONS_H

#include "nodes/pg_list.h"

extern const char *hx_option_get(List *options, const char *name);
extern bool hx_option_seconds(const char *text, int *milliseconds);
extern bool hx_option_long_seconds(const char *text, double *seconds);

#endif							/* HX_OPTIONS_H */
