/*-------------------------------------------------------------------------
 *
 * page_cutter.c
 *	  Cuts a page of records into records while its bytes arrive.
 *
 * A page is one JSON object whose members are the records, or one array of
 * them, and comes from the network in pieces of any size.  PostgreSQL's
 * parser can be fed in pieces from version 17 on only, so the cut is made
 * here, and it is no more than a cut: strings and brackets are followed to
 * see where a record ends, and nothing inside of it is judged (outline.c).
 * Every record is then parsed by PostgreSQL's own parser, and so is every key,
 * so what is not JSON is refused there; what stands between the records (one
 * colon, one comma, the end and nothing behind it) is judged here.
 *
 * No byte is looked at twice, however small the pieces are: a record that is
 * not whole is kept in the cutter with the state of its scan.  The price is
 * one copy of the records on the borders of pieces; all others are given
 * where they lie.  Memory is bounded by the largest record that is taken.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "json/record.h"

/* Where in the page the next byte stands. */
typedef enum CutState
{
	CUT_START,					/* before the opening bracket */
	CUT_FIRST,					/* after it: a record, or the end */
	CUT_NEXT,					/* after a comma: a record */
	CUT_KEY,					/* within a record's name */
	CUT_COLON,					/* after it */
	CUT_VALUE,					/* before a record's value */
	CUT_NESTED,					/* within an object or array */
	CUT_STRING,
	CUT_SCALAR,					/* within a number or word */
	CUT_AFTER,					/* after a record: a comma, or the end */
	CUT_END						/* behind the page */
} CutState;

struct HxPageCutter
{
	bool		by_key;
	CutState	state;
	int			bom;			/* bytes of a byte order mark seen */
	bool		escaped;		/* the next byte belongs to a backslash: of a
								 * string that is no part of an object */
	bool		given;			/* what is held was given, and can go */
	int64		offset;			/* of the bytes at hand, within the page */
	StringInfoData held;		/* the record's bytes from earlier pieces */
	StringInfoData key;			/* its name with the quotes, as written */
	char	   *key_text;		/* the same de-escaped */
	size_t		key_size;
	HxOutline	outline;		/* of the record */
	MemoryContext scratch;		/* for one key */
	char	   *problem;
};

/*
 * Begins a page that is an object of records, or else an array of them.  The
 * cutter lives in the current memory context.
 */
HxPageCutter *
hx_page_begin(bool by_key)
{
	HxPageCutter *cutter = palloc0(sizeof(HxPageCutter));

	cutter->by_key = by_key;
	cutter->key_size = 64;
	cutter->key_text = palloc(cutter->key_size);
	initStringInfo(&cutter->held);
	initStringInfo(&cutter->key);
	hx_outline_init(&cutter->outline);
	cutter->scratch = AllocSetContextCreate(CurrentMemoryContext, "hubex key", ALLOCSET_SMALL_SIZES);
	return cutter;
}

/* What is wrong with the page, in plain words. */
const char *
hx_page_problem(const HxPageCutter *cutter)
{
	return cutter->problem;
}

static inline bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/*
 * Goes on within a string; returns the byte behind its closing quote, or NULL
 * where that has not come yet.
 */
static const char *
skip_string(HxPageCutter *cutter, const char *p, const char *end)
{
	const char *quote = NULL;

	if (cutter->escaped && p < end)
	{
		cutter->escaped = false;
		p++;
	}
	while (p < end)
	{
		const char *backslash;

		if (quote == NULL || quote < p)
		{
			quote = memchr(p, '"', end - p);
			if (quote == NULL)
				quote = end;
		}
		backslash = memchr(p, '\\', quote - p);
		if (backslash == NULL)
			return quote < end ? quote + 1 : NULL;
		if (backslash + 1 == end)
		{
			cutter->escaped = true;
			return NULL;
		}
		p = backslash + 2;
	}
	return NULL;
}

/* The key at hand as text; it has its quotes. */
static const char *
read_key(HxPageCutter *cutter)
{
	const char *bytes = cutter->key.data + 1;
	size_t		len = cutter->key.len - 2;
	bool		replaced = false;
	MemoryContext old;
	char	   *text;
	size_t		text_len;

	if (len + 1 <= cutter->key_size && strspn(bytes, "0123456789abcdefABCDEF-_") == len)
	{
		memcpy(cutter->key_text, bytes, len);
		cutter->key_text[len] = '\0';
		return cutter->key_text;
	}
	old = MemoryContextSwitchTo(cutter->scratch);
	text = hx_json_unescape(bytes, len, &text_len, &replaced);
	MemoryContextSwitchTo(old);
	if (text_len + 1 > cutter->key_size)
	{
		cutter->key_size = text_len + 1;
		cutter->key_text = repalloc(cutter->key_text, cutter->key_size);
	}
	memcpy(cutter->key_text, text, text_len + 1);
	MemoryContextReset(cutter->scratch);
	return cutter->key_text;
}

/* The byte behind a number or word, or NULL where that has not come yet. */
static const char *
skip_word(const char *p, const char *end, char close)
{
	while (p < end && *p != ',' && *p != close && !is_space(*p))
		p++;
	return p < end ? p : NULL;
}

static HxCut
bad_page(HxPageCutter *cutter, const char *bytes, const char *p, const char *problem)
{
	cutter->problem = psprintf("%s (byte " INT64_FORMAT ")", problem, cutter->offset + (p - bytes) + 1);
	return HX_CUT_BAD;
}

static HxCut
over_limit(HxPageCutter *cutter, const char *problem)
{
	cutter->problem = pstrdup(problem);
	return HX_CUT_LIMIT;
}

/*
 * Cuts the next record off a page.  bytes are those that have not been used
 * yet, and *used tells how many of them now are: all of them with
 * HX_CUT_MORE, those up to the record's end with HX_CUT_RECORD.  The record
 * lies in these bytes or in the cutter, and lives as long as the bytes, but
 * not beyond the next call.  A key that is not a JSON string is an error
 * (22P02).  After HX_CUT_END white space may still be given.
 */
HxCut
hx_page_cut(HxPageCutter *cutter, const char *bytes, size_t len, size_t *used, HxRecord *record)
{
	const char *p = bytes;
	const char *end = bytes + len;
	const char *start = bytes;	/* of the part of key or value at hand */
	char		close = cutter->by_key ? '}' : ']';

	if (cutter->given)
	{
		resetStringInfo(&cutter->held);
		resetStringInfo(&cutter->key);
		cutter->given = false;
	}
	*used = len;
	while (p < end)
	{
		const char *stop;

		switch (cutter->state)
		{
			case CUT_KEY:
				stop = skip_string(cutter, p, end);
				if (cutter->key.len + ((stop ? stop : end) - start) > HX_RECORD_MAX_KEY)
					return over_limit(cutter, "the name of a record is too long");
				appendBinaryStringInfo(&cutter->key, start, (stop ? stop : end) - start);
				if (stop == NULL)
					goto more;
				p = stop;
				cutter->state = CUT_COLON;
				continue;

			case CUT_NESTED:
			case CUT_STRING:
			case CUT_SCALAR:
				if (cutter->state == CUT_NESTED)
					stop = hx_outline_follow(&cutter->outline, cutter->held.data, cutter->held.len,
											 start, end);
				else if (cutter->state == CUT_STRING)
					stop = skip_string(cutter, p, end);
				else
					stop = skip_word(p, end, close);
				if (cutter->outline.excess != NULL)
					return over_limit(cutter, cutter->outline.excess);
				if (cutter->held.len + ((stop ? stop : end) - start) > HX_RECORD_MAX_LEN)
					return over_limit(cutter, "a record is too large");
				if (stop == NULL)
				{
					appendBinaryStringInfo(&cutter->held, start, end - start);
					goto more;
				}
				memset(record, 0, sizeof(HxRecord));
				record->bytes = start;
				record->len = stop - start;
				if (cutter->held.len > 0)
				{
					appendBinaryStringInfo(&cutter->held, start, stop - start);
					record->bytes = cutter->held.data;
					record->len = cutter->held.len;
				}
				if (cutter->state == CUT_NESTED)
					record->outline = &cutter->outline;
				cutter->state = CUT_AFTER;
				cutter->given = true;
				*used = stop - bytes;
				if (cutter->by_key)
					record->key = read_key(cutter);
				cutter->offset += *used;
				return HX_CUT_RECORD;

			case CUT_START:
				if (cutter->bom < 3 && *p == "\xEF\xBB\xBF"[cutter->bom])
				{
					cutter->bom++;
					p++;
					continue;
				}
				if (cutter->bom % 3 != 0)
					return bad_page(cutter, bytes, p, cutter->by_key ? "it is not an object" : "it is not an array");
				cutter->bom = 3;
				break;
			default:
				break;
		}

		/* Everything else stands between records, where blanks do no harm. */
		if (is_space(*p))
		{
			p++;
			continue;
		}
		switch (cutter->state)
		{
			case CUT_START:
				if (*p != (cutter->by_key ? '{' : '['))
					return bad_page(cutter, bytes, p, cutter->by_key ? "it is not an object" : "it is not an array");
				cutter->state = CUT_FIRST;
				p++;
				break;

			case CUT_FIRST:
			case CUT_NEXT:
				if (*p == close && cutter->state == CUT_FIRST)
				{
					cutter->state = CUT_END;
					p++;
					break;
				}
				if (!cutter->by_key)
				{
					cutter->state = CUT_VALUE;
					break;
				}
				if (*p != '"')
					return bad_page(cutter, bytes, p, "there is no name where a record's should be");
				cutter->state = CUT_KEY;
				appendStringInfoChar(&cutter->key, '"');
				start = ++p;
				break;

			case CUT_COLON:
				if (*p != ':')
					return bad_page(cutter, bytes, p, "there is no colon after a record's name");
				cutter->state = CUT_VALUE;
				p++;
				break;

			case CUT_VALUE:
				if (strchr(",:}]", *p) != NULL)
					return bad_page(cutter, bytes, p, "there is nothing where a record should be");
				hx_outline_begin(&cutter->outline);
				start = p;
				if (*p == '{' || *p == '[')
					cutter->state = CUT_NESTED;
				else if (*p != '"')
					cutter->state = CUT_SCALAR;
				else
				{
					/*
					 * the byte that opens it belongs to it, also at the end
					 * of a piece
					 */
					cutter->state = CUT_STRING;
					if (++p == end)
					{
						appendStringInfoChar(&cutter->held, '"');
						goto more;
					}
				}
				break;

			case CUT_AFTER:
				if (*p != ',' && *p != close)
					return bad_page(cutter, bytes, p, "there is no comma between two records");
				cutter->state = *p == ',' ? CUT_NEXT : CUT_END;
				p++;
				break;

			default:
				return bad_page(cutter, bytes, p, "something stands behind its end");
		}
	}
more:
	cutter->offset += len;
	return cutter->state == CUT_END ? HX_CUT_END : HX_CUT_MORE;
}

/* Says that nothing more will come: HX_CUT_END where the page is whole. */
HxCut
hx_page_finish(HxPageCutter *cutter)
{
	if (cutter->state == CUT_END)
		return HX_CUT_END;
	return bad_page(cutter, NULL, NULL, cutter->state == CUT_START ? "it is empty" : "it ends too early");
}
