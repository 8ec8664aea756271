/*-------------------------------------------------------------------------
 *
 * template.c
 *	  A JSON document with {names} in its strings, filled in.
 *
 * One notation serves connectors ("X-Application-ID": "{application_id}") and
 * triggers ("notes": "{customer} calls: {text}").  A string that is a single
 * {name} takes the value with its type, so a number stays a number; a member
 * whose value is nothing is left out, as HubEx itself leaves out empty
 * fields.  Inside a longer string the value's text is put in, nothing as an
 * empty text.  {{ and }} stand for braces.  hx_json_pieces() is the notation
 * itself, for who fills in the same document again and again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "json/json.h"

/*
 * Takes the name from the brace at text; returns what follows its closing
 * brace.  A brace that is never closed is an error.
 */
static const char *
read_name(const char *text, char **name)
{
	const char *close = strchr(text, '}');

	if (close == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unclosed brace in template"),
				 errdetail("The text is \"%s\".", text),
				 errhint("Write {{ for a brace that is meant as one.")));
	*name = pnstrdup(text + 1, close - text - 1);
	return close + 1;
}

static List *
add_piece(List *pieces, bool is_name, char *text)
{
	HxJsonPiece *piece = palloc(sizeof(HxJsonPiece));

	piece->is_name = is_name;
	piece->text = text;
	return lappend(pieces, piece);
}

/*
 * Takes a text apart into what is meant as it is and the {names} between, a
 * List of HxJsonPiece *, palloc'd.  Neighbours are never both texts, and none is
 * an empty text.
 */
List *
hx_json_pieces(const char *text)
{
	List	   *pieces = NIL;
	StringInfoData plain;

	initStringInfo(&plain);
	for (;;)
	{
		bool		at_name = text[0] == '{' && text[1] != '{';

		if ((at_name || *text == '\0') && plain.len > 0)
		{
			pieces = add_piece(pieces, false, pnstrdup(plain.data, plain.len));
			resetStringInfo(&plain);
		}
		if (*text == '\0')
			break;
		if (at_name)
		{
			char	   *name;

			text = read_name(text, &name);
			pieces = add_piece(pieces, true, name);
			continue;
		}
		appendStringInfoChar(&plain, *text);
		text += ((text[0] == '{' || text[0] == '}') && text[1] == text[0]) ? 2 : 1;
	}
	pfree(plain.data);
	return pieces;
}

/* Is the whole text one {name}? */
bool
hx_json_stands_alone(const List *pieces)
{
	return list_length(pieces) == 1 && ((HxJsonPiece *) linitial(pieces))->is_name;
}

static char *
expand_pieces(const List *pieces, HxJsonResolve resolve, void *arg)
{
	StringInfoData out;
	ListCell   *cell;

	initStringInfo(&out);
	foreach(cell, pieces)
	{
		HxJsonPiece *piece = lfirst(cell);
		JsonbValue *value = piece->is_name ? resolve(piece->text, false, arg) : NULL;
		char	   *text = piece->is_name ? (value ? hx_json_value_text(value) : NULL) : piece->text;

		if (text != NULL)
			appendStringInfoString(&out, text);
	}
	return out.data;
}

/* Fills in a text; the result is palloc'd. */
char *
hx_json_expand_text(const char *text, HxJsonResolve resolve, void *arg)
{
	return expand_pieces(hx_json_pieces(text), resolve, arg);
}

/* Fills in one string of a document; NULL where it comes to nothing. */
static JsonbValue *
expand_string(const JsonbValue *string, HxJsonResolve resolve, void *arg)
{
	List	   *pieces = hx_json_pieces(pnstrdup(string->val.string.val, string->val.string.len));
	JsonbValue *result;

	if (hx_json_stands_alone(pieces))
	{
		result = resolve(((HxJsonPiece *) linitial(pieces))->text, true, arg);
		return (result == NULL || result->type == jbvNull) ? NULL : result;
	}
	result = palloc(sizeof(JsonbValue));
	result->type = jbvString;
	result->val.string.val = expand_pieces(pieces, resolve, arg);
	result->val.string.len = strlen(result->val.string.val);
	return result;
}

/*
 * Fills in a document.  The result is a new one; its shape follows the
 * template's, less the members that came to nothing.
 */
Jsonb *
hx_json_expand(const Jsonb *tmpl, HxJsonResolve resolve, void *arg)
{
	JsonbIterator *it = JsonbIteratorInit((JsonbContainer *) &tmpl->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue	key;
	JsonbValue *result = NULL;
	JsonbParseState *state = NULL;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		JsonbValue *out = &value;

		switch (token)
		{
			case WJB_KEY:
				key = value;
				break;
			case WJB_VALUE:
			case WJB_ELEM:
				if (value.type == jbvString)
					out = expand_string(&value, resolve, arg);
				if (out == NULL)
				{
					static JsonbValue nothing = {.type = jbvNull};

					if (token == WJB_VALUE)
						break;
					out = &nothing;
				}
				if (token == WJB_VALUE)
					(void) pushJsonbValue(&state, WJB_KEY, &key);
				result = pushJsonbValue(&state, token, out);
				break;
			case WJB_BEGIN_OBJECT:
			case WJB_BEGIN_ARRAY:

				/*
				 * The iterator descends by itself.  A container that is a
				 * member's value comes after its key, which was held back to
				 * see whether the value comes to nothing.
				 */
				if (state != NULL && state->contVal.type == jbvObject)
					(void) pushJsonbValue(&state, WJB_KEY, &key);
				result = pushJsonbValue(&state, token,
										token == WJB_BEGIN_ARRAY && value.val.array.rawScalar ? &value : NULL);
				break;
			default:
				result = pushJsonbValue(&state, token, NULL);
				break;
		}
	}
	return JsonbValueToJsonb(result);
}
