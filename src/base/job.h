/*-------------------------------------------------------------------------
 *
 * job.h
 *	  What a background worker does, as the worker sees it.
 *
 * A job is an object that is made once by the worker's process and then asked
 * to step and to wait, in turn.  No function but step, wait and after_error
 * may raise an error.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_JOB_H
#define HX_JOB_H

#include "base/transactions.h"

typedef struct HxJob
{
	const char *name;			/* of the kind: "delivery"; its process is "hubex delivery" */
	const char *held_text;		/* what does not happen while it is held, for the log */

	/* settings of its session besides those of every worker: names and values, ending with NULL */
	const char *const (*settings)[2];

	/*
	 * Is there anything to be done in this database?  Asked by another worker,
	 * in a transaction that holds the extension.  NULL: wherever the extension
	 * is.
	 */
	bool		(*wanted) (void);

	/* In the current context. */
	void	   *(*create) (const HxTransactions *transactions);

	/* Milliseconds until it wants to step again at the latest; less than 0: it is over. */
	int64		(*step) (void *job);
	int64		(*after_error) (void *job); /* the same, after an error in a step, whose transaction is gone */
	void		(*wait) (void *job, int64 milliseconds);

	int			(*in_flight) (const void *job); /* what it is at */
	const char *(*held) (const void *job);	/* why it may do nothing; NULL: it may */
	const char *(*over) (const void *job);	/* why it is over */
} HxJob;

#endif							/* HX_JOB_H */
