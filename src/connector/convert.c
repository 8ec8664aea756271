/*-------------------------------------------------------------------------
 *
 * convert.c
 *	  Values of PostgreSQL as JSON values on their way out.
 *
 * PostgreSQL's own to_jsonb() decides, with few exceptions.  A timestamp
 * with time zone is written in UTC without a suffix, as HubEx writes its own
 * times, whatever the session's TimeZone.  A float keeps all its digits,
 * whatever the session's extra_float_digits.  A value that JSON has no form for
 * (infinite or not a number) is an error here rather than a text there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "connector/connector.h"

PG_FUNCTION_INFO_V1(hubex_moment);

static void
refuse_infinite(Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a value of type %s that is infinite or not a number cannot be sent", format_type_be(type)),
			 errdetail("JSON has no form for it.")));
}

/* A time in UTC as ISO 8601 without a suffix. */
static void
convert_timestamptz(TimestampTz time, JsonbValue *value)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (TIMESTAMP_NOT_FINITE(time))
		refuse_infinite(TIMESTAMPTZOID);
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	EncodeDateTime(&tm, fsec, false, 0, NULL, USE_XSD_DATES, text);
	value->type = jbvString;
	value->val.string.val = pstrdup(text);
	value->val.string.len = strlen(text);
}

/* Makes ready a call of to_jsonb(), which learns its argument's type from the expression. */
static FmgrInfo *
prepare_to_jsonb(Oid type)
{
	FmgrInfo   *function = palloc(sizeof(FmgrInfo));
	Param	   *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramtype = type;
	param->paramtypmod = -1;
	fmgr_info(F_TO_JSONB, function);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(param), InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL), function);
	return function;
}

static Jsonb *
call_to_jsonb(FmgrInfo *function, Datum datum)
{
	LOCAL_FCINFO(fcinfo, 1);
	int			session_digits = extra_float_digits;
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = datum;
	fcinfo->args[0].isnull = false;
	if (extra_float_digits < 1)
		extra_float_digits = 1;	/* the shortest that is exact */
	PG_TRY();
	{
		result = FunctionCallInvoke(fcinfo);
	}
	PG_FINALLY();
	{
		extra_float_digits = session_digits;
	}
	PG_END_TRY();
	return DatumGetJsonbP(result);
}

static void
set_string(JsonbValue *value, char *text, int len)
{
	value->type = jbvString;
	value->val.string.val = text;
	value->val.string.len = len;
}

/* Makes a converter for values of a type ready, in the current context. */
void
hx_converter_init(HxConverter *converter, Oid type)
{
	converter->type = type;
	converter->base = getBaseType(type);
	converter->to_jsonb = prepare_to_jsonb(type);
}

/*
 * A value as a JSON value; SQL's null as JSON's.  The result may point into
 * the datum.  The commonest types are converted here, as to_jsonb() does it,
 * because a trigger does this for every row.
 * Errors: ERROR 22023 for what JSON cannot say.
 */
void
hx_converter_value(const HxConverter *converter, Datum datum, bool isnull, JsonbValue *value)
{
	Jsonb	   *jsonb;
	struct varlena *text;

	if (isnull)
	{
		value->type = jbvNull;
		return;
	}
	switch (converter->base)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(converter->base == INT8OID ? DatumGetInt64(datum) :
												  converter->base == INT4OID ? DatumGetInt32(datum) :
												  DatumGetInt16(datum));
			return;
		case BOOLOID:
			value->type = jbvBool;
			value->val.boolean = DatumGetBool(datum);
			return;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			text = PG_DETOAST_DATUM_PACKED(datum);
			set_string(value, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
			return;
		case UUIDOID:
			set_string(value, DatumGetCString(DirectFunctionCall1(uuid_out, datum)), 36);
			return;
		case TIMESTAMPTZOID:
			convert_timestamptz(DatumGetTimestampTz(datum), value);
			return;
		case TIMESTAMPOID:
			if (TIMESTAMP_NOT_FINITE(DatumGetTimestamp(datum)))
				refuse_infinite(converter->type);
			break;
		case DATEOID:
			if (DATE_NOT_FINITE(DatumGetDateADT(datum)))
				refuse_infinite(converter->type);
			break;
		case FLOAT4OID:
			if (!isfinite(DatumGetFloat4(datum)))
				refuse_infinite(converter->type);
			break;
		case FLOAT8OID:
			if (!isfinite(DatumGetFloat8(datum)))
				refuse_infinite(converter->type);
			break;
		case NUMERICOID:
			value->type = jbvNumeric;
			value->val.numeric = DatumGetNumeric(datum);
			if (numeric_is_nan(value->val.numeric) || numeric_is_inf(value->val.numeric))
				refuse_infinite(converter->type);
			return;
		default:
			break;
	}
	jsonb = call_to_jsonb(converter->to_jsonb, datum);
	if (JB_ROOT_IS_SCALAR(jsonb))
		(void) JsonbExtractScalar(&jsonb->root, value);
	else
		JsonbToJsonbValue(jsonb, value);
}

/* The same for a single value of any type, palloc'd. */
JsonbValue *
hx_convert_datum(Datum datum, bool isnull, Oid type)
{
	JsonbValue *value = palloc(sizeof(JsonbValue));
	HxConverter converter;

	hx_converter_init(&converter, type);
	hx_converter_value(&converter, datum, isnull, value);
	return value;
}

/* hubex.moment(timestamptz) -> jsonb: a time as it is sent. */
Datum
hubex_moment(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(JsonbValueToJsonb(hx_convert_datum(PG_GETARG_DATUM(0), false, TIMESTAMPTZOID)));
}
