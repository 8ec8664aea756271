/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings of hubex, hubex.*, in alphabetical order.
 *
 * What belongs to one account is an option of its server, and what belongs
 * to one kind of system stands in its connector; a setting is what is left.
 * No setting ever holds a secret.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "base/settings.h"

char	   *hx_guc_default_server = NULL;

/* Defines the settings; called once, when the library is loaded. */
void
hx_settings_define(void)
{
	DefineCustomStringVariable("hubex.default_server",
							   "The foreign server that calls mean which name none.",
							   "Empty: the only server of hubex_fdw there is.",
							   &hx_guc_default_server,
							   "",
							   PGC_USERSET,
							   0,
							   NULL, NULL, NULL);

	MarkGUCPrefixReserved("hubex");
}
