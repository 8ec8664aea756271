/*-------------------------------------------------------------------------
 *
 * restricted.h
 *	  Acting as a role, for what that role may have written itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_RESTRICTED_H
#define HX_RESTRICTED_H

typedef struct HxRestricted
{
	Oid			caller;
	int			sec_context;
	int			guc_level;
} HxRestricted;

extern void hx_restricted_enter(HxRestricted *saved, Oid role, int lock_ms);
extern void hx_restricted_leave(const HxRestricted *saved);

#endif							/* HX_RESTRICTED_H */
