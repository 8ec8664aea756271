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

static void
refuse_infinite(Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a value of type %s that is infinite or not a number cannot be sent", format_type_be(type)),
			 errdetail("JSON has no form for it.")));
}

/* A time in UTC as ISO 8601 without a suffix. */
static JsonbValue *
convert_timestamptz(TimestampTz time)
{
	JsonbValue *value = palloc(sizeof(JsonbValue));
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
	return value;
}

/* Calls to_jsonb(), which learns its argument's type from the expression. */
static Jsonb *
call_to_jsonb(Datum datum, Oid type)
{
	FmgrInfo	function;
	LOCAL_FCINFO(fcinfo, 1);
	Param	   *param = makeNode(Param);
	FuncExpr   *expr;
	int			session_digits = extra_float_digits;
	Datum		result;

	param->paramkind = PARAM_EXTERN;
	param->paramtype = type;
	param->paramtypmod = -1;
	expr = makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(param), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);

	fmgr_info(F_TO_JSONB, &function);
	fmgr_info_set_expr((Node *) expr, &function);
	InitFunctionCallInfoData(*fcinfo, &function, 1, InvalidOid, NULL, NULL);
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

/*
 * A value of any type as a JSON value, palloc'd; SQL's null as JSON's.
 * Errors: ERROR 22023 for what JSON cannot say.
 */
JsonbValue *
hx_convert_datum(Datum datum, bool isnull, Oid type)
{
	JsonbValue *value = palloc(sizeof(JsonbValue));
	Jsonb	   *jsonb;

	if (isnull)
	{
		value->type = jbvNull;
		return value;
	}
	switch (getBaseType(type))
	{
		case TIMESTAMPTZOID:
			return convert_timestamptz(DatumGetTimestampTz(datum));
		case TIMESTAMPOID:
			if (TIMESTAMP_NOT_FINITE(DatumGetTimestamp(datum)))
				refuse_infinite(type);
			break;
		case DATEOID:
			if (DATE_NOT_FINITE(DatumGetDateADT(datum)))
				refuse_infinite(type);
			break;
		case FLOAT4OID:
			if (!isfinite(DatumGetFloat4(datum)))
				refuse_infinite(type);
			break;
		case FLOAT8OID:
			if (!isfinite(DatumGetFloat8(datum)))
				refuse_infinite(type);
			break;
		case NUMERICOID:
			if (numeric_is_nan(DatumGetNumeric(datum)) || numeric_is_inf(DatumGetNumeric(datum)))
				refuse_infinite(type);
			break;
		default:
			break;
	}
	jsonb = call_to_jsonb(datum, type);
	if (JB_ROOT_IS_SCALAR(jsonb))
		(void) JsonbExtractScalar(&jsonb->root, value);
	else
		JsonbToJsonbValue(jsonb, value);
	return value;
}
