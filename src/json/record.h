/*-------------------------------------------------------------------------
 *
 * record.h
 *	  A page of records taken apart as its bytes arrive, and members of a
 *	  record found without building the rest.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_JSON_RECORD_H
#define HX_JSON_RECORD_H

#include "json/json.h"
#include "json/outline.h"

#define HX_RECORD_MAX_KEY	4096	/* bytes of a record's name, as written */

/* A record as it came: bytes of JSON, in the encoding of the wire (UTF-8). */
typedef struct HxRecord
{
	const char *key;			/* the member's name of an object keyed by id,
								 * de-escaped; NULL in an array */
	const char *bytes;			/* the value, one whole JSON text; not
								 * NUL-terminated */
	size_t		len;
	const char *parent;			/* of the part it was read from, or NULL */
	int			part;			/* which of the parts that is */
	const HxOutline *outline;	/* of an object or array, from the cutter; or
								 * NULL */
} HxRecord;

/* page_cutter.c: finds where records begin and end in an object or array that arrives in pieces. */
typedef struct HxPageCutter HxPageCutter;

typedef enum HxCut
{
	HX_CUT_RECORD,
	HX_CUT_MORE,				/* more bytes are needed */
	HX_CUT_END,					/* the page is whole */
	HX_CUT_BAD,					/* it is not the JSON it should be; see
								 * hx_page_problem() */
	HX_CUT_LIMIT				/* a record is too large or too deep; see
								 * hx_page_problem() */
} HxCut;

extern HxPageCutter *hx_page_begin(bool by_key);
extern HxCut hx_page_cut(HxPageCutter *cutter, const char *bytes, size_t len, size_t *used, HxRecord *record);
extern HxCut hx_page_finish(HxPageCutter *cutter);
extern const char *hx_page_problem(const HxPageCutter *cutter);

/* finder.c: members of records; what is looked for is said once, then found in many. */
typedef struct HxRecordFinder HxRecordFinder;

typedef enum HxFoundKind
{
	HX_FOUND_NOTHING,			/* absent, or null */
	HX_FOUND_TEXT,				/* a string, without its quotes */
	HX_FOUND_WORD,				/* a number, true or false */
	HX_FOUND_JSON				/* an object or array */
} HxFoundKind;

/* A member as it is written, in the record's own bytes; hx_found_text() has what it means. */
typedef struct HxFound
{
	HxFoundKind kind;
	bool		escaped;		/* of a TEXT: there is a backslash in it */
	const char *bytes;			/* not NUL-terminated */
	size_t		len;
} HxFound;

extern HxRecordFinder *hx_finder_make(int npaths, const char *const *paths);
extern bool hx_finder_find(HxRecordFinder *finder, const HxRecord *record, HxFound *found);
extern void hx_found_whole(const HxRecord *record, HxFound *found);
extern char *hx_found_text(const HxFound *found, size_t *len, bool *replaced);

/* unescape.c: a string of JSON as written, between its quotes, as text of this database. */
extern char *hx_json_unescape(const char *bytes, size_t len, size_t *text_len, bool *replaced);

#endif							/* HX_JSON_RECORD_H */
