/*-------------------------------------------------------------------------
 *
 * fit.c
 *	  Letters of a document that this database cannot hold.
 *
 * jsonb cannot hold \u0000, half a surrogate pair, or a letter that the
 * database's encoding lacks, and refuses the whole document for one of them.
 * Somebody else's text decides whether one is in an answer, so those who must
 * go on put a question mark in its place.  Nothing but escapes and letters is
 * looked at; whether the result is JSON is for PostgreSQL to say.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "base/attempt.h"
#include "json/json.h"

static void
try_letter(void *arg)
{
	char	   *letter = arg;

	(void) pg_any_to_server(letter, strlen(letter), PG_UTF8);
}

/* Can a letter be written in this database's encoding? */
static bool
fits(const char *utf8, int len)
{
	char		letter[MAX_MULTIBYTE_CHAR_LEN + 1] = {0};
	char	   *problem;

	if (len == 1 || GetDatabaseEncoding() == PG_UTF8)
		return true;
	memcpy(letter, utf8, len);
	return hx_attempt(try_letter, letter, &problem);
}

/* The number in the \u and four digits at bytes, or -1 where there is none. */
static int
read_escape(const char *bytes, const char *end)
{
	int			code = 0;

	if (end - bytes < 6 || bytes[0] != '\\' || bytes[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		const char *digits = "0123456789abcdef";
		const char *digit = strchr(digits, pg_tolower((unsigned char) bytes[i]));

		if (bytes[i] == '\0' || digit == NULL)
			return -1;
		code = code * 16 + (int) (digit - digits);
	}
	return code;
}

/* The length of the letter or escape at bytes; *good: jsonb can hold it. */
static int
measure(const char *bytes, const char *end, bool *good)
{
	unsigned char utf8[MAX_MULTIBYTE_CHAR_LEN + 1] = {0};
	int			code;
	int			second;
	int			len = 6;

	*good = true;
	if (*bytes != '\\')
	{
		len = pg_encoding_verifymbchar(PG_UTF8, bytes, end - bytes);
		*good = len <= 0 || fits(bytes, len);
		return Max(len, 1);
	}
	code = read_escape(bytes, end);
	if (code < 0)
		return end - bytes > 1 ? 2 : 1;
	if (code >= 0xD800 && code < 0xDC00)
	{
		second = read_escape(bytes + 6, end);
		*good = second >= 0xDC00 && second < 0xE000;
		if (!*good)
			return len;
		code = 0x10000 + ((code & 0x3FF) << 10) + (second & 0x3FF);
		len = 12;
	}
	*good = code != 0 && (code < 0xDC00 || code > 0xDFFF);
	if (*good)
	{
		unicode_to_utf8(code, utf8);
		*good = fits((char *) utf8, pg_utf_mblen(utf8));
	}
	return len;
}

/*
 * A copy of a document, UTF-8 as it came, in which a question mark stands for
 * every letter that this database's jsonb cannot hold.
 */
char *
hx_json_make_fit(const char *bytes, size_t len, size_t *fit_len)
{
	const char *end = bytes + len;
	StringInfoData out;

	initStringInfo(&out);
	while (bytes < end)
	{
		bool		good;
		int			step = measure(bytes, end, &good);

		if (good)
			appendBinaryStringInfo(&out, bytes, step);
		else
			appendStringInfoChar(&out, '?');
		bytes += step;
	}
	*fit_len = out.len;
	return out.data;
}
