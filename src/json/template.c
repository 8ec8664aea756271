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
 * empty text.  {{ and }} stand for braces.
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

/* Is the whole text one {name}? */
static bool
stands_alone(const char *text)
{
	const char *close;

	if (text[0] != '{' || text[1] == '{')
		return false;
	close = strchr(text, '}');
	return close != NULL && close[1] == '\0';
}

/* Fills in a text; the result is palloc'd. */
char *
hx_json_expand_text(const char *text, HxJsonResolve resolve, void *arg)
{
	StringInfoData out;

	initStringInfo(&out);
	while (*text)
	{
		if ((text[0] == '{' && text[1] == '{') || (text[0] == '}' && text[1] == '}'))
		{
			appendStringInfoChar(&out, *text);
			text += 2;
		}
		else if (*text == '{')
		{
			char	   *name;
			JsonbValue *value;

			text = read_name(text, &name);
			value = resolve(name, false, arg);
			if (value != NULL)
			{
				char	   *piece = hx_json_value_text(value);

				if (piece != NULL)
					appendStringInfoString(&out, piece);
			}
		}
		else
			appendStringInfoChar(&out, *text++);
	}
	return out.data;
}

/* Fills in one string of a document; NULL where it comes to nothing. */
static JsonbValue *
expand_string(const JsonbValue *string, HxJsonResolve resolve, void *arg)
{
	char	   *text = pnstrdup(string->val.string.val, string->val.string.len);
	JsonbValue *result;

	if (stands_alone(text))
	{
		char	   *name;

		(void) read_name(text, &name);
		result = resolve(name, true, arg);
		return (result == NULL || result->type == jbvNull) ? NULL : result;
	}
	result = palloc(sizeof(JsonbValue));
	result->type = jbvString;
	result->val.string.val = hx_json_expand_text(text, resolve, arg);
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
