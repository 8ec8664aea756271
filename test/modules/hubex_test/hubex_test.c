/*-------------------------------------------------------------------------
 *
 * hubex_test.c
 *	  Parts of hubex that no SQL leads to, for tests.
 *
 * The module is linked with hubex's objects, all but the one that loads the
 * extension, and uses its own copy of them: its limiter and its tokens are the
 * process's own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "connector/reader.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(hubex_test_take);
PG_FUNCTION_INFO_V1(hubex_test_read);

static HxPriority
priority_of(const char *name)
{
	static const char *const names[HX_PRIORITIES] = {"interactive", "delivery", "sync", "backfill"};

	for (int i = 0; i < HX_PRIORITIES; i++)
		if (strcmp(names[i], name) == 0)
			return (HxPriority) i;
	elog(ERROR, "no priority is called \"%s\"", name);
}

/* hubex_test_take(account integer, rate text, at bigint, priority text) -> bigint: a permit, at a time of the caller's. */
Datum
hubex_test_take(PG_FUNCTION_ARGS)
{
	uint8		key[HX_LIMITER_KEY_BYTES] = {0};
	int32		account = PG_GETARG_INT32(0);
	HxRate		rate;

	memcpy(key, &account, sizeof(account));
	if (!hx_rate_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)), &rate))
		elog(ERROR, "this is no rate");
	PG_RETURN_INT64(hx_limiter_take(key, &rate, PG_GETARG_INT64(2),
									priority_of(text_to_cstring(PG_GETARG_TEXT_PP(3)))));
}

static char *
key_of(HxRecordFinder *finder, const HxRecord *record)
{
	HxFound		id;
	bool		replaced;
	size_t		len;

	if (record->key != NULL)
		return pstrdup(record->key);
	(void) hx_finder_find(finder, record, &id);
	return hx_found_text(&id, &len, &replaced);
}

static List *
texts_of(ArrayType *array)
{
	Datum	   *elements;
	int			count;
	List	   *texts = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		texts = lappend(texts, TextDatumGetCString(elements[i]));
	return texts;
}

/*
 * hubex_test_read(server name, resource text, stop bigint, skip bigint, known
 * text[], most bigint, ahead boolean, total boolean, priority text)
 * -> (key text, place bigint, asked_at timestamptz, total bigint): the records
 * of a list, up to "stop" of them; then a row without a key where the list
 * came to its end.  The known may be null, which is none.
 */
Datum
hubex_test_read(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HxAccount  *account = hx_account_open(NameStr(*PG_GETARG_NAME(0)), GetUserId(), true);
	HxReadOrder order = {.account = account};
	HxReadPart	part = {NULL};
	HxRecordFinder *finder;
	HxReader   *reader;
	MemoryContext row_cxt;
	int64		stop = PG_GETARG_INT64(2);
	const char *id = "id";

	InitMaterializedSRF(fcinfo, 0);
	order.resource = hx_resource_read(account->manifest, account->connector, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	part.path = order.resource->path;
	part.query = hx_resource_filter(order.resource, account->connector, NULL, NULL, false);
	order.parts = list_make1(&part);
	order.skip = PG_GETARG_INT64(3);
	if (!PG_ARGISNULL(4))
		order.known = texts_of(PG_GETARG_ARRAYTYPE_P(4));
	order.most = PG_GETARG_INT64(5);
	order.all = PG_GETARG_BOOL(6);
	order.total = PG_GETARG_BOOL(7);
	order.priority = priority_of(text_to_cstring(PG_GETARG_TEXT_PP(8)));
	reader = hx_reader_begin(&order);
	finder = hx_finder_make(1, &id);
	row_cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex test row", ALLOCSET_DEFAULT_SIZES);

	for (int64 n = 0; stop < 0 || n < stop; n++)
	{
		HxRecord	record;
		bool		ended = hx_reader_next(reader, true, &record) == HX_READ_END;
		MemoryContext old = MemoryContextSwitchTo(row_cxt);
		Datum		values[4];
		bool		nulls[4] = {ended, ended, ended, false};
		int64		place;
		TimestampTz asked_at;

		hx_reader_place(reader, &place, &asked_at);
		if (!ended)
			values[0] = CStringGetTextDatum(key_of(finder, &record));
		values[1] = Int64GetDatum(place);
		values[2] = TimestampTzGetDatum(asked_at);
		values[3] = Int64GetDatum(hx_reader_total(reader));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_cxt);
		if (ended)
			break;
	}
	hx_reader_end(reader);
	return (Datum) 0;
}
