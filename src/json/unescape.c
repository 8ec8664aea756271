/*-------------------------------------------------------------------------
 *
 * unescape.c
 *	  A string of JSON as text of this database.
 *
 * What a string holds is for PostgreSQL's own lexer to say, which writes
 * \u escapes in the encoding of the database; so the bytes, UTF-8 as they
 * came, are brought to that encoding first.  A letter that this database
 * cannot hold becomes a question mark, and the caller is told.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "base/attempt.h"
#include "compat.h"
#include "json/record.h"

typedef struct Reading
{
	const char *quoted;
	size_t		len;
	StringInfo	text;
} Reading;

/* Lets the lexer read one string, with its quotes and nothing else. */
static void
read_string(void *arg)
{
	Reading    *reading = arg;
	const char *bytes = pg_any_to_server(reading->quoted, (int) reading->len, PG_UTF8);
	size_t		len = bytes == reading->quoted ? reading->len : strlen(bytes);
	JsonLexContext *lex = hx_json_lex_strings(bytes, (int) len, GetDatabaseEncoding());
	JsonParseErrorType error = json_lex(lex);

	if (error == JSON_SUCCESS && (lex->token_type != JSON_TOKEN_STRING || lex->token_terminator != bytes + len))
		error = JSON_EXPECTED_STRING;
	if (error != JSON_SUCCESS)
		hx_json_report(error, lex);
	reading->text = lex->strval;
}

/*
 * The text of a string as it is written between its quotes, palloc'd and
 * NUL-terminated; *replaced is set where a letter had to be replaced, and else
 * left as it was.  What is not the inside of a JSON string is an error.
 */
char *
hx_json_unescape(const char *bytes, size_t len, size_t *text_len, bool *replaced)
{
	Reading		reading = {.len = len + 2};
	char	   *quoted = palloc(len + 3);
	char	   *problem;

	quoted[0] = '"';
	memcpy(quoted + 1, bytes, len);
	quoted[len + 1] = '"';
	quoted[len + 2] = '\0';
	reading.quoted = quoted;
	if (!hx_attempt(read_string, &reading, &problem))
	{
		reading.quoted = hx_json_make_fit(quoted, len + 2, &reading.len);
		read_string(&reading);
		*replaced = true;
	}
	*text_len = reading.text->len;
	return reading.text->data;
}
