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

#include <limits.h>

#include "utils/guc.h"

#include "base/settings.h"

char	   *hx_guc_default_server = NULL;
bool		hx_guc_deliver = true;
int			hx_guc_max_requests_per_query = 0;
bool		hx_guc_pushdown = true;
int			hx_guc_retention = 0;

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

	DefineCustomBoolVariable("hubex.deliver",
							 "Delivers what the outboxes of this server hold.",
							 "Off: everything waits, in all databases. For a copy of a server that is to be started silent.",
							 &hx_guc_deliver,
							 true,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("hubex.max_requests_per_query",
							"The most requests that one query may make to read foreign tables.",
							"A query that needs more ends in an error. 0 sets no limit.",
							&hx_guc_max_requests_per_query,
							100,
							0,
							INT_MAX,
							PGC_USERSET,
							0,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("hubex.pushdown",
							 "Lets the remote system filter, sort, limit and count.",
							 "Off: whole lists are read and PostgreSQL does all of it. To compare.",
							 &hx_guc_pushdown,
							 true,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("hubex.retention",
							"How long a request stays in the outbox after it was delivered or cancelled.",
							"Dead letters stay. 0 keeps everything.",
							&hx_guc_retention,
							30 * 24 * 60,
							0,
							INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MIN,
							NULL, NULL, NULL);

	MarkGUCPrefixReserved("hubex");
}
