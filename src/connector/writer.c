/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  Who puts requests into the outbox; see writer.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "connector/writer.h"

static const HxWriterRoutines *writer = NULL;

/* Says whose functions they are; called when the library is loaded. */
void
hx_writer_install(const HxWriterRoutines *routines)
{
	writer = routines;
}

const HxWriterRoutines *
hx_writer(void)
{
	return writer;
}
