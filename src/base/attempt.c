/*-------------------------------------------------------------------------
 *
 * attempt.c
 *	  Running something that may fail, where the failure is one item's.
 *
 * An error of one request, one page or one account must not end the loop that
 * serves all.  hx_attempt() is for code that touches no database state, such
 * as parsing or building a request; hx_attempt_in_database() wraps the code in
 * a subtransaction, so that locks, scans and identities are undone.  A cancel
 * or a shutdown passes through both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/attempt.h"

/* Turns the error being caught into a text in cxt, unless it is not ours. */
static char *
catch_error(MemoryContext cxt)
{
	ErrorData  *error;
	char	   *text;

	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		PG_RE_THROW();
	FlushErrorState();
	text = psprintf("%s%s%s%s%s", error->message,
					error->detail ? ". " : "", error->detail ? error->detail : "",
					error->hint ? " Hint: " : "", error->hint ? error->hint : "");
	FreeErrorData(error);
	return text;
}

/*
 * Runs fn and returns true; where it fails, false and the error's message,
 * detail and hint as one text, palloc'd here.
 */
bool
hx_attempt(HxAttempt fn, void *arg, char **problem)
{
	MemoryContext here = CurrentMemoryContext;
	volatile bool done = false;

	*problem = NULL;
	PG_TRY();
	{
		fn(arg);
		done = true;
	}
	PG_CATCH();
	{
		*problem = catch_error(here);
	}
	PG_END_TRY();
	return done;
}

/* The same within an open transaction, for code that reads the database. */
bool
hx_attempt_in_database(HxAttempt fn, void *arg, char **problem)
{
	MemoryContext here = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	*problem = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(here);
	PG_TRY();
	{
		fn(arg);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		char	   *text = catch_error(here);

		RollbackAndReleaseCurrentSubTransaction();
		*problem = text;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(here);
	CurrentResourceOwner = owner;
	return done;
}
