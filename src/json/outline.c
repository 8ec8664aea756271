/*-------------------------------------------------------------------------
 *
 * outline.c
 *	  The outline of a record: the same JSON, without what its strings say.
 *
 * Most of a record's bytes are in its strings, and most of the time that
 * PostgreSQL's parser takes goes into looking at them one by one.  But a
 * string in which there is no backslash and no control character is a string
 * of JSON whatever else is in it; so, while the end of a record is looked for,
 * and its strings have to be followed anyway, a copy of the record is made in
 * which those strings are empty.  All other strings, and every byte outside
 * of strings, are copied as they are.  The parser says of the copy just what
 * it would say of the record, five times as fast, and the places of the
 * strings tell where in the record it is.
 *
 * Nothing is judged here but what ends a string, and nothing is known but how
 * many brackets are open: what is no JSON is no JSON in the outline, either.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "json/outline.h"

/* Bytes that mean something outside of strings. */
enum
{
	BYTE_PLAIN, BYTE_QUOTE, BYTE_OPEN, BYTE_CLOSE
};
static const char byte_class[256] = {
	['"'] = BYTE_QUOTE,
	['{'] = BYTE_OPEN,['['] = BYTE_OPEN,
	['}'] = BYTE_CLOSE,[']'] = BYTE_CLOSE
};

/*
 * Eight bytes at once: the highest bit of each that is zero, equal to c, or
 * less than c.  Behind the first such byte others may be marked wrongly.
 */
#define EACH_BYTE(c)	(UINT64CONST(0x0101010101010101) * (unsigned char) (c))
#define zero_bytes(w)	(((w) - EACH_BYTE(0x01)) & ~(w) & EACH_BYTE(0x80))
#define equal_bytes(w, c) zero_bytes((w) ^ EACH_BYTE(c))
#define lesser_bytes(w, c) (((w) - EACH_BYTE(c)) & ~(w) & EACH_BYTE(0x80))

/* The two of a string that stand for one byte of the end of it. */
#define QUOTES			2

/* Prepares for outlines, in the current memory context. */
void
hx_outline_init(HxOutline *outline)
{
	memset(outline, 0, sizeof(HxOutline));
	outline->size = 1024;
	outline->text = palloc(outline->size);
	outline->most_strings = 128;
	outline->strings = palloc(outline->most_strings * sizeof(HxOutlineString));
}

/* Begins the outline of another record. */
void
hx_outline_begin(HxOutline *outline)
{
	outline->len = 0;
	outline->nstrings = 0;
	outline->depth = 0;
	outline->in_string = false;
	outline->excess = NULL;
}

static void
make_room(HxOutline *outline, size_t more)
{
	if (outline->size - outline->len >= more)
		return;
	while (outline->size - outline->len < more)
		outline->size *= 2;
	outline->text = repalloc(outline->text, outline->size);
}

/* The first byte of a string that is a quote, a backslash or a control character, or the end. */
static inline const char *
skip_letters(const char *p, const char *end)
{
#ifndef WORDS_BIGENDIAN
	while (end - p >= (ptrdiff_t) sizeof(uint64))
	{
		uint64		word;
		uint64		found;

		memcpy(&word, p, sizeof(word));
		found = equal_bytes(word, '"') | equal_bytes(word, '\\') | lesser_bytes(word, ' ');
		if (found != 0)
			return p + pg_rightmost_one_pos64(found) / 8;
		p += sizeof(word);
	}
#endif
	while (p < end && *p != '"' && *p != '\\' && (unsigned char) *p >= ' ')
		p++;
	return p;
}

/* Goes on within a string; returns its closing quote, or NULL where that has not come yet. */
static inline const char *
follow_string(HxOutline *outline, const char *p, const char *end)
{
	if (outline->escaped && p < end)
	{
		outline->escaped = false;
		p++;
	}
	for (;;)
	{
		p = skip_letters(p, end);
		if (p == end)
			return NULL;
		if (*p == '"')
			return p;
		outline->plain = false;
		if (*p++ != '\\')
			continue;
		if (p == end)
		{
			outline->escaped = true;
			return NULL;
		}
		p++;
	}
}

/* The next string of an outline, which has room for it. */
static inline HxOutlineString *
next_string(HxOutline *outline)
{
	if (outline->nstrings == outline->most_strings)
	{
		outline->most_strings *= 2;
		outline->strings = repalloc_huge(outline->strings, outline->most_strings * sizeof(HxOutlineString));
	}
	return &outline->strings[outline->nstrings++];
}

/* Notes the string at hand, which ends at this byte of the record; more are the bytes behind it. */
static void
end_string(HxOutline *outline, const char *held, uint32 held_len, const char *bytes, uint32 till, size_t more)
{
	HxOutlineString *string = next_string(outline);

	string->at = outline->len;
	string->from = outline->from;
	string->len = till - outline->from;
	string->plain = outline->plain;
	outline->text[outline->len++] = '"';
	if (!outline->plain)
	{
		uint32		early = string->from < held_len ? held_len - string->from : 0;

		make_room(outline, (size_t) string->len + more + QUOTES);
		memcpy(outline->text + outline->len, held + string->from, early);
		memcpy(outline->text + outline->len + early, bytes + (string->from + early - held_len), string->len - early);
		outline->len += string->len;
	}
	outline->text[outline->len++] = '"';
	string->end = outline->len;
}

/*
 * Follows an object or array from its opening bracket on.  bytes are those
 * that have not been seen, up to end; those of the record that have are held.
 * Returns the byte behind the record; NULL where it has not come yet, or where
 * there is an excess of something.
 */
const char *
hx_outline_follow(HxOutline *outline, const char *held, uint32 held_len,
				  const char *bytes, const char *end)
{
	const char *p = bytes;
	char	   *out;

	/*
	 * No byte becomes more in the outline, but for a string whose begin is
	 * held.
	 */
	make_room(outline, (end - p) + QUOTES);
	for (;;)
	{
		if (outline->in_string)
		{
			p = follow_string(outline, p, end);
			if (p == NULL)
				return NULL;
			if (outline->nstrings == HX_RECORD_MAX_STRINGS)
			{
				outline->excess = "a record has too many members";
				return NULL;
			}
			end_string(outline, held, held_len, bytes, held_len + (p - bytes), end - p);
			outline->in_string = false;
			p++;
		}
		out = outline->text + outline->len;
		while (p < end)
		{
			char		class = byte_class[(unsigned char) *p];

			if (class == BYTE_QUOTE)
			{
				const char *quote = skip_letters(p + 1, end);
				HxOutlineString *string;

				if (quote == end || *quote != '"')
					break;
				if (outline->nstrings == HX_RECORD_MAX_STRINGS)
				{
					outline->excess = "a record has too many members";
					return NULL;
				}

				/* As most are: plain, and here as a whole. */
				string = next_string(outline);
				string->at = out - outline->text;
				string->end = string->at + 2;
				string->from = held_len + (p + 1 - bytes);
				string->len = quote - p - 1;
				string->plain = true;
				*out++ = '"';
				*out++ = '"';
				p = quote + 1;
				continue;
			}
			*out++ = *p++;
			if (class == BYTE_PLAIN)
				continue;
			if (class == BYTE_OPEN && ++outline->depth > HX_RECORD_MAX_DEPTH)
			{
				outline->excess = "a record is nested too deep";
				return NULL;
			}
			if (class == BYTE_CLOSE && --outline->depth == 0)
			{
				outline->len = out - outline->text;
				return p;
			}
		}
		outline->len = out - outline->text;
		if (p == end)
			return NULL;
		outline->in_string = true;
		outline->plain = true;
		outline->escaped = false;
		outline->from = held_len + (++p - bytes);
	}
}
