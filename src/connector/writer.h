/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  The way from a table's rows into the outbox, for rooms that do not see
 *	  the outbox.
 *
 * The jobs do not include each other, so the foreign data wrapper knows of the
 * outbox no more than this: the outbox says at load which functions do it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_WRITER_H
#define HX_WRITER_H

#include "connector/connector.h"

/* A field of a record, by the API's name. */
typedef struct HxField
{
	JsonbValue	name;
	JsonbValue	value;
} HxField;

/* Which record a request is about: one of the two. */
typedef struct HxRecordKey
{
	const char *remote_id;
	const char *natural_key;
} HxRecordKey;

/* Puts one operation on records of one resource in, for one role. */
typedef struct HxWriter HxWriter;

typedef struct HxWriterRoutines
{
	/*
	 * In the current context, and good for as long as the account.  Errors:
	 * 0A000 for an operation the connector does not know, 42501 for a role
	 * that may not call hubex_create(), hubex_update() or hubex_delete().
	 */
	HxWriter   *(*begin) (const HxAccount *account, const char *resource, const char *operation, Oid role);

	/*
	 * Creates a record; "more" is an object of further fields by any of their
	 * names, or NULL.  This and change() return the request's id; 0 while they
	 * are held.
	 */
	int64		(*create) (HxWriter *writer, const HxField *fields, int nfields, Jsonb *more);

	/* Any other operation on a record; the fields are an object, or NULL. */
	int64		(*change) (HxWriter *writer, const HxRecordKey *key, Jsonb *fields);

	/*
	 * What is written between the two is put in some hundred at a time, the
	 * last of it by release().  No code of others may run in between: it
	 * would not see what is held, and could put something in before it.
	 */
	void		(*hold) (HxWriter *writer);
	void		(*release) (HxWriter *writer);

	/*
	 * Sees to it that a request is not sent, whoever's it is.  False where it
	 * has been claimed for sending, has reached its end, or is gone.
	 */
	bool		(*cancel) (int64 request);
} HxWriterRoutines;

extern void hx_writer_install(const HxWriterRoutines *routines);
extern const HxWriterRoutines *hx_writer(void);

#endif							/* HX_WRITER_H */
