/*-------------------------------------------------------------------------
 *
 * attempt.h
 *	  Running something that may fail, where the failure is one item's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_ATTEMPT_H
#define HX_ATTEMPT_H

typedef void (*HxAttempt) (void *arg);

extern bool hx_attempt(HxAttempt fn, void *arg, char **problem);
extern bool hx_attempt_in_database(HxAttempt fn, void *arg, char **problem);
extern bool hx_attempt_in_time(HxAttempt fn, void *arg, int milliseconds, char **problem);

#endif							/* HX_ATTEMPT_H */
