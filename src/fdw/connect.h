/*-------------------------------------------------------------------------
 *
 * connect.h
 *	  Keeping the secrets that hubex_connect() is given out of the server log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_CONNECT_H
#define HX_CONNECT_H

extern void hx_connect_install(void);

#endif							/* HX_CONNECT_H */
