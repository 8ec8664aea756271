/*-------------------------------------------------------------------------
 *
 * attempt.c
 *	  Running something that may fail, where the failure is one item's.
 *
 * An error of one request, one page or one account must not end the loop that
 * serves all.  hx_attempt() is for code that touches no database state, such
 * as parsing or building a request; hx_attempt_in_database() wraps the code in
 * a subtransaction, so that locks, scans and identities are undone.  A cancel
 * or a shutdown passes through both.  hx_attempt_in_time() does that for code that
 * is not ours, such as a user's function: what it raises as if it were a
 * cancel is an error like any other, and it cannot run for ever.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/attempt.h"

/* How often what ran out of time is asked again to end. */
#define INSIST_MS		200

/* The timer of hx_attempt_in_time(), of which a process has one. */
static TimeoutId time_limit;
static bool time_limit_registered = false;
static volatile sig_atomic_t time_is_up;

/* Did somebody ask this process to stop, or does the error only look so? */
static bool
is_cancel(const ErrorData *error, bool foreign)
{
	if (!foreign)
		return error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN;
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && !time_is_up &&
		error->funcname != NULL && strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/* Turns the error being caught into a text in cxt, unless it is a cancel. */
static char *
catch_error(MemoryContext cxt, bool foreign)
{
	ErrorData  *error;
	char	   *text;

	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	if (is_cancel(error, foreign))
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
		*problem = catch_error(here, false);
	}
	PG_END_TRY();
	return done;
}

static bool
attempt_in_subtransaction(HxAttempt fn, void *arg, bool foreign, char **problem)
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
		char	   *text;

		if (foreign)
			disable_timeout(time_limit, false);
		text = catch_error(here, foreign);
		RollbackAndReleaseCurrentSubTransaction();
		*problem = text;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(here);
	CurrentResourceOwner = owner;
	return done;
}

/* The same within an open transaction, for code that reads the database. */
bool
hx_attempt_in_database(HxAttempt fn, void *arg, char **problem)
{
	return attempt_in_subtransaction(fn, arg, false, problem);
}

/* In a signal handler. */
static void
end_of_time(void)
{
	time_is_up = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * The same for code that is not ours: where it takes longer than so many
 * milliseconds, it is cancelled, and that is its error.
 */
bool
hx_attempt_in_time(HxAttempt fn, void *arg, int milliseconds, char **problem)
{
	bool		done;

	if (!time_limit_registered)
	{
		time_limit = RegisterTimeout(USER_TIMEOUT, end_of_time);
		time_limit_registered = true;
	}
	time_is_up = false;
	enable_timeout_every(time_limit, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds), INSIST_MS);
	done = attempt_in_subtransaction(fn, arg, true, problem);
	disable_timeout(time_limit, false);
	if (time_is_up)
	{
		QueryCancelPending = false;
		if (!done)
			*problem = psprintf("it took longer than %d ms, and was cancelled", milliseconds);
	}
	return done;
}
