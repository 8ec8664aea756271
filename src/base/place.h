/*-------------------------------------------------------------------------
 *
 * place.h
 *	  Where this server's files are: what tells them from a copy of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_PLACE_H
#define HX_PLACE_H

extern void hx_place_look_for_standby(void);
extern bool hx_place_began_as_standby(void);
extern const char *hx_place(void);
extern bool hx_place_is_here(const char *place);

#endif							/* HX_PLACE_H */
