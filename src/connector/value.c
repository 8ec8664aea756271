/*-------------------------------------------------------------------------
 *
 * value.c
 *	  Members of records as values of PostgreSQL's types.
 *
 * A value is what the type's input function makes of the member's text: a
 * string without its quotes and escapes, anything else as jsonb would write
 * it.  For the types that most columns have and the forms that most values
 * have, that is found out here without a copy and a call; whatever looks
 * different in the least goes to the input function, so that result and error
 * are always those of the type.
 *
 * Where a value that does not fit is not to be an error, the input function
 * runs guarded.  Those of the types in is_pure() look at nothing but the text,
 * so an error of theirs is caught as it is.  Any other, such as that of a
 * domain or an enum, may have read the database; there the server's soft
 * errors are used, and a subtransaction where it has none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/attempt.h"
#include "compat.h"
#include "connector/value.h"

/* Longer numbers go to the input function, which knows where the type ends. */
#define FAST_DIGITS		18

static HxValueKind
kind_of(Oid type, int32 typmod)
{
	switch (type)
	{
		case INT2OID:
			return HX_VALUE_SMALLINT;
		case INT4OID:
			return HX_VALUE_INTEGER;
		case INT8OID:
			return HX_VALUE_BIGINT;
		case BOOLOID:
			return HX_VALUE_BOOLEAN;
		case TEXTOID:
			return HX_VALUE_TEXT;
		case VARCHAROID:
			return typmod < 0 ? HX_VALUE_TEXT : HX_VALUE_OTHER;
		case TIMESTAMPTZOID:
			return HX_VALUE_TIME;
		case JSONOID:
			return HX_VALUE_JSON;
		case JSONBOID:
			return HX_VALUE_JSONB;
		default:
			return HX_VALUE_OTHER;
	}
}

static bool
is_pure(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
		case UUIDOID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case JSONOID:
		case JSONBOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
			return true;
		default:
			return false;
	}
}

/* Prepares to make values of a type, in the current memory context. */
void
hx_value_type_init(HxValueType *type, Oid oid, int32 typmod, bool naive_is_utc)
{
	Oid			input;
	Oid			element = get_element_type(oid);

	memset(type, 0, sizeof(HxValueType));
	type->kind = kind_of(oid, typmod);
	type->type = oid;
	type->typmod = typmod;
	type->naive_is_utc = naive_is_utc;
	type->pure = is_pure(oid);
	getTypeInputInfo(oid, &input, &type->ioparam);
	fmgr_info(input, &type->input);
	if (OidIsValid(element))
	{
		type->kind = HX_VALUE_ARRAY;
		type->element = palloc(sizeof(HxValueType));
		hx_value_type_init(type->element, element, typmod, naive_is_utc);
		type->pure = type->element->pure;
		get_typlenbyvalalign(element, &type->element_len, &type->element_byval, &type->element_align);
	}
}

/* A whole number of few digits and nothing else. */
static bool
read_number(const char *text, size_t len, int64 *number)
{
	bool		negative = len > 0 && text[0] == '-';
	size_t		i = negative ? 1 : 0;
	int64		result = 0;

	if (len == i || len - i > FAST_DIGITS)
		return false;
	for (; i < len; i++)
	{
		unsigned int digit = (unsigned char) text[i] - '0';

		if (digit > 9)
			return false;
		result = result * 10 + digit;
	}
	*number = negative ? -result : result;
	return true;
}

/* So many digits as a number, or -1. */
static inline int
read_digits(const char *text, int count)
{
	int			number = 0;

	for (int i = 0; i < count; i++)
	{
		unsigned int digit = (unsigned char) text[i] - '0';

		if (digit > 9)
			return -1;
		number = number * 10 + digit;
	}
	return number;
}

/*
 * A time of the form "2025-07-24T11:31:25.123456Z", where fraction and Z may
 * be missing; without a Z it is UTC only if naive times are.
 */
static bool
read_time(const char *text, size_t len, bool naive_is_utc, Datum *value)
{
	int			year,
				month,
				day,
				hour,
				minute,
				second;
	int			microseconds = 0;

	if (len < 19 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':')
		return false;
	year = read_digits(text, 4);
	month = read_digits(text + 5, 2);
	day = read_digits(text + 8, 2);
	hour = read_digits(text + 11, 2);
	minute = read_digits(text + 14, 2);
	second = read_digits(text + 17, 2);
	if (year < 1 || month < 1 || month > 12 || day < 1 || hour < 0 || hour > 23 ||
		minute < 0 || minute > 59 || second < 0 || second > 59 || day > day_tab[isleap(year)][month - 1])
		return false;
	text += 19;
	len -= 19;
	if (len > 1 && *text == '.')
	{
		int			unit = 100000;

		for (text++, len--; len > 0 && *text >= '0' && *text <= '9'; text++, len--, unit /= 10)
		{
			if (unit == 0)
				return false;
			microseconds += (*text - '0') * unit;
		}
		if (unit == 100000)
			return false;
	}
	if (len > 1 || (len == 1 && *text != 'Z') || (len == 0 && !naive_is_utc))
		return false;
	*value = TimestampTzGetDatum(((date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * (int64) SECS_PER_DAY +
								  (hour * MINS_PER_HOUR + minute) * SECS_PER_MINUTE + second) * USECS_PER_SEC +
								 microseconds);
	return true;
}

/* Reads the common forms of the common types; false leaves it to the input function. */
static bool
read_fast(const HxValueType *type, const char *text, size_t len, Datum *value)
{
	int64		number;

	switch (type->kind)
	{
		case HX_VALUE_SMALLINT:
			if (!read_number(text, len, &number) || number < PG_INT16_MIN || number > PG_INT16_MAX)
				return false;
			*value = Int16GetDatum((int16) number);
			return true;
		case HX_VALUE_INTEGER:
			if (!read_number(text, len, &number) || number < PG_INT32_MIN || number > PG_INT32_MAX)
				return false;
			*value = Int32GetDatum((int32) number);
			return true;
		case HX_VALUE_BIGINT:
			if (!read_number(text, len, &number))
				return false;
			*value = Int64GetDatum(number);
			return true;
		case HX_VALUE_BOOLEAN:
			if (len == 4 && memcmp(text, "true", 4) == 0)
				*value = BoolGetDatum(true);
			else if (len == 5 && memcmp(text, "false", 5) == 0)
				*value = BoolGetDatum(false);
			else
				return false;
			return true;
		case HX_VALUE_TIME:
			return type->typmod < 0 && read_time(text, len, type->naive_is_utc, value);
		default:
			return false;
	}
}

/* The time's own form is left to the input function. */
char *
hx_value_name_zone(char *text)
{
	const char *time = strchr(text, 'T');

	if (time == NULL || strpbrk(time, "Zz+-") != NULL)
		return text;
	return psprintf("%sZ", text);
}

/* The text that is given to the input function. */
static char *
input_text(const HxValueType *type, char *text)
{
	return type->type == TIMESTAMPTZOID && type->naive_is_utc ? hx_value_name_zone(text) : text;
}

/* A value from a text in the encoding of the database. */
Datum
hx_value_read_text(HxValueType *type, const char *text, size_t len)
{
	Datum		value;

	if (type->kind == HX_VALUE_TEXT)
		return PointerGetDatum(cstring_to_text_with_len(text, (int) len));
	if (read_fast(type, text, len, &value))
		return value;
	return InputFunctionCall(&type->input, input_text(type, pnstrdup(text, len)), type->ioparam, type->typmod);
}

/* The JSON text of what is found, as it came. */
static void
written(const HxFound *found, const char **bytes, size_t *len)
{
	bool		quoted = found->kind == HX_FOUND_TEXT;

	*bytes = quoted ? found->bytes - 1 : found->bytes;
	*len = quoted ? found->len + 2 : found->len;
}

/* What is found as a document; letters that jsonb cannot hold become question marks. */
static Jsonb *
read_document(const HxFound *found, bool *replaced)
{
	const char *bytes;
	size_t		len;
	bool		unfit;
	char	   *problem;
	Jsonb	   *document;

	written(found, &bytes, &len);
	document = hx_json_parse_leniently(bytes, len, &unfit, &problem);
	if (document == NULL)
		return hx_json_parse(bytes, len);	/* says why */
	if (unfit)
		*replaced = true;
	return document;
}

/*
 * A number the way jsonb writes it: without an exponent, and zero without a
 * sign.
 */
static char *
number_text(const HxFound *found)
{
	char	   *text = pnstrdup(found->bytes, found->len);

	if (strpbrk(text, "eE") == NULL && strncmp(text, "-0", 2) != 0)
		return text;
	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return text;
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   DirectFunctionCall3(numeric_in, CStringGetDatum(text),
																   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))));
}

/* The text of what is found, for the type's input function. */
static char *
found_text(const HxValueType *type, const HxFound *found, size_t *len, bool *replaced)
{
	char	   *text;

	if (type->kind == HX_VALUE_JSON)
	{
		const char *bytes;

		written(found, &bytes, len);
		text = pg_any_to_server(bytes, (int) *len, PG_UTF8);
		if (text == bytes)
			text = pnstrdup(bytes, *len);
	}
	else if (found->kind == HX_FOUND_TEXT)
		return hx_found_text(found, len, replaced);
	else if (found->kind == HX_FOUND_WORD)
		text = number_text(found);
	else
		text = hx_json_out(read_document(found, replaced));
	*len = strlen(text);
	return text;
}

/* An array of JSON as one of PostgreSQL. */
static Datum
read_array(HxValueType *type, const HxFound *found, bool *replaced)
{
	List	   *elements = hx_json_elements(read_document(found, replaced));
	int			n = list_length(elements);
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));
	bool	   *nulls = palloc(Max(n, 1) * sizeof(bool));
	int			low = 1;

	if (n == 0)
		return PointerGetDatum(construct_empty_array(type->element->type));
	for (int i = 0; i < n; i++)
	{
		char	   *text = hx_json_value_text(list_nth(elements, i));

		nulls[i] = text == NULL;
		values[i] = text ? hx_value_read_text(type->element, text, strlen(text)) : (Datum) 0;
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &low, type->element->type,
											  type->element_len, type->element_byval, type->element_align));
}

/* The same as read_fast() of what is found. */
static inline bool
read_found_fast(const HxValueType *type, const HxFound *found, Datum *value)
{
	if (found->kind != HX_FOUND_JSON && read_fast(type, found->bytes, found->len, value))
		return true;

	/* Bytes of UTF-8 that are text already. */
	if (type->kind == HX_VALUE_TEXT && found->kind == HX_FOUND_TEXT && !found->escaped &&
		GetDatabaseEncoding() == PG_UTF8 && pg_verify_mbstr(PG_UTF8, found->bytes, (int) found->len, true))
	{
		*value = PointerGetDatum(cstring_to_text_with_len(found->bytes, (int) found->len));
		return true;
	}
	return false;
}

/* Is it made of more than the text of what is found? */
static bool
is_structured(const HxValueType *type, const HxFound *found)
{
	return type->kind == HX_VALUE_JSONB ||
		(type->kind == HX_VALUE_ARRAY && found->kind == HX_FOUND_JSON && *found->bytes == '[');
}

/*
 * The value of a member that is there, palloc'd; *replaced is set where a
 * letter that this database cannot hold became a question mark.  What does
 * not fit is the type's own error.
 */
Datum
hx_value_read(HxValueType *type, const HxFound *found, bool *replaced)
{
	Datum		value;
	char	   *text;
	size_t		len;

	if (read_found_fast(type, found, &value))
		return value;
	if (is_structured(type, found))
		return type->kind == HX_VALUE_ARRAY ? read_array(type, found, replaced)
			: JsonbPGetDatum(read_document(found, replaced));
	text = found_text(type, found, &len, replaced);
	return hx_value_read_text(type, text, len);
}

typedef struct Reading
{
	HxValueType *type;
	const HxFound *found;		/* or a text */
	const char *text;
	size_t		len;
	bool		replaced;
	Datum		value;
} Reading;

static void
read_value(void *arg)
{
	Reading    *reading = arg;

	reading->value = reading->found ? hx_value_read(reading->type, reading->found, &reading->replaced)
		: hx_value_read_text(reading->type, reading->text, reading->len);
}

static void
read_text(void *arg)
{
	Reading    *reading = arg;

	reading->text = found_text(reading->type, reading->found, &reading->len, &reading->replaced);
}

static bool
try_reading(Reading *reading, char **problem)
{
	if (reading->type->pure)
		return hx_attempt(read_value, reading, problem);
#ifdef HX_SOFT_ERRORS
	if (reading->found == NULL || !is_structured(reading->type, reading->found))
	{
		if (reading->found != NULL && !hx_attempt(read_text, reading, problem))
			return false;
		return hx_input_softly(&reading->type->input, pnstrdup(reading->text, reading->len), reading->type->ioparam,
							   reading->type->typmod, &reading->value, problem);
	}
#else
	(void) read_text;
#endif
	return hx_attempt_in_database(read_value, reading, problem);
}

/* The same; what does not fit gives false, and why. */
bool
hx_value_try(HxValueType *type, const HxFound *found, Datum *value, bool *replaced, char **problem)
{
	Reading		reading = {.type = type,.found = found};

	if (read_found_fast(type, found, value))
		return true;
	if (!try_reading(&reading, problem))
		return false;
	*value = reading.value;
	if (reading.replaced)
		*replaced = true;
	return true;
}

bool
hx_value_try_text(HxValueType *type, const char *text, size_t len, Datum *value, char **problem)
{
	Reading		reading = {.type = type,.text = text,.len = len};

	if (!try_reading(&reading, problem))
		return false;
	*value = reading.value;
	return true;
}
