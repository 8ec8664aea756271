/*-------------------------------------------------------------------------
 *
 * hubex.c
 *	  What happens when the library is loaded.
 *
 * In shared_preload_libraries it asks for shared memory and registers the
 * launcher; loaded later, by the first call of a function, it brings the
 * settings and everything but the background.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/place.h"
#include "base/settings.h"
#include "base/shared.h"
#include "connector/token.h"
#include "fdw/connect.h"
#include "fdw/fdw.h"
#include "fdw/import.h"
#include "http/http.h"
#include "http/limiter.h"
#include "outbox/outbox.h"
#include "outbox/stats.h"
#include "sync/progress.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

PG_FUNCTION_INFO_V1(hubex_version);

static void
init_limiter(void *memory, bool found, LWLock *lock)
{
	hx_limiter_init(memory, found);
	hx_limiter_attach(memory, lock);
}

/* What the rooms keep in shared memory. */
static const HxSharedPart parts[] = {
	{"hubex tokens", hx_token_shmem_size, hx_token_shmem_init},
	{"hubex limiter", hx_limiter_shmem_size, init_limiter},
	{"hubex statistics", hx_stats_shmem_size, hx_stats_shmem_init},
	{"hubex sync progress", hx_progress_shmem_size, hx_progress_shmem_init},
	{NULL}
};

void
_PG_init(void)
{
	hx_settings_define();
	hx_connect_install();
	hx_unique_install();
	hx_batch_join_install();
	hx_outbox_install_writer();
	hx_import_install();

	if (!process_shared_preload_libraries_in_progress)
		return;
	if (IsBinaryUpgrade)
		return;
	hx_place_look_for_standby();
	hx_shared_request(parts);
	hx_launcher_register();
	hx_make_way_install();
}

/* hubex_version(): the versions a bug report needs, in one line. */
Datum
hubex_version(PG_FUNCTION_ARGS)
{
	char	   *library = pstrdup(hx_http_library_version());
	char	   *end = strchr(library, ' ');

	/* libcurl and its TLS library; what else it was built with says nothing here. */
	if (end != NULL && (end = strchr(end + 1, ' ')) != NULL)
		*end = '\0';
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("hubex %s, PostgreSQL %s, %s", HUBEX_VERSION, PG_VERSION, library)));
}
