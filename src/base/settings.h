/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings of hubex, hubex.*.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_SETTINGS_H
#define HX_SETTINGS_H

extern char *hx_guc_default_server;
extern bool hx_guc_deliver;
extern int	hx_guc_max_requests_per_query;	/* 0: no end */
extern bool hx_guc_pushdown;
extern int	hx_guc_retention;	/* minutes; 0: for ever */

extern void hx_settings_define(void);

#endif							/* HX_SETTINGS_H */
