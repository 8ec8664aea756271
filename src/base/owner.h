/*-------------------------------------------------------------------------
 *
 * owner.h
 *	  Acting as the owner of hubex's own tables, for hubex's own statements.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_OWNER_H
#define HX_OWNER_H

typedef struct HxOwner
{
	Oid			caller;
	int			sec_context;
	int			guc_level;
} HxOwner;

extern bool hx_owner_table(const char *table, Oid *relation, Oid *owner);
extern bool hx_owner_hold_extension(void);
extern void hx_owner_report_missing(void);
extern void hx_owner_enter(HxOwner *saved);
extern void hx_owner_leave(const HxOwner *saved);

#endif							/* HX_OWNER_H */
