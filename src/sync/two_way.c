/*-------------------------------------------------------------------------
 *
 * two_way.c
 *	  Whose value of a column stays.
 *
 * A column of a mirror belongs to the remote side, to this one, or to
 * whichever changed it last.  A change made here goes out as a request; until
 * the remote side has been seen to have it, hubex.local_change holds what it
 * was changed to and what the remote side had, as last seen:
 *
 *			 changed here							 changed here
 *				  |		  delivered, seen				  |
 *				  v		  since				  .---------------------.
 *		none -> open --------------> none	   \|					|
 *				 ^ |						   open				open
 *	 "overruled" | |-- not taken --> accepted --'	 refused -----'
 *				 | '-- given up ----------------------^
 *				none	(both only of columns that are this side's own)
 *
 * An answer of the remote side is compared with both.  What it says is the
 * echo of one's own change, or what was known before that, or else something
 * that was changed over there.  Only the last is a conflict, and who wins is
 * the column's owner; it is recorded once for each value the remote side shows.
 *
 * When the request has been delivered, what counts is whether the answer was
 * asked for after that, by this clock alone: then it knows of the change.  An
 * answer asked for before is not one, whenever it arrives.
 *
 * A value of a column that is this side's own is sent again when the remote
 * side shows another.  It may be that the remote side makes another value of
 * all it is sent (trims texts, cuts off microseconds), so that is done once
 * for each value it shows, and a few times in all; then its value is accepted as
 * what it makes of ours, until it shows yet another.
 *
 * "newest" compares the remote side's time with the one here: a difference of
 * the clocks is not known, and counts.
 *
 * Values are compared as their type does it: a number is the same with one
 * zero more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "sync/two_way.h"

/* So often a value is sent again in a row, whatever the remote side makes of it. */
#define MOST_ANSWERS	8

/* ---- values ---- */

/* Prepares for values of a type, in the current context. */
void
hx_mirror_values_init(HxMirrorValues *values, Oid type, int32 typmod)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR_FINFO);

	values->type = type;
	get_typlenbyval(type, &values->len, &values->byval);
	values->collation = entry->typcollation;
	hx_converter_init(&values->converter, type);
	hx_value_type_init(&values->reader, type, typmod, true);
	values->equal = NULL;
	if (OidIsValid(entry->eq_opr_finfo.fn_oid))
	{
		values->equal = palloc(sizeof(FmgrInfo));
		fmgr_info_copy(values->equal, &entry->eq_opr_finfo, CurrentMemoryContext);
	}
}

/* A value as JSON, palloc'd; SQL's null as that of JSON. */
Jsonb *
hx_mirror_value_json(const HxMirrorValues *values, Datum datum, bool isnull)
{
	JsonbValue	value;

	hx_converter_value(&values->converter, datum, isnull, &value);
	if (value.type == jbvString && values->converter.base == TIMESTAMPTZOID)
	{
		/* It is sent without a zone, and kept with one. */
		value.val.string.val = psprintf("%.*sZ", value.val.string.len, value.val.string.val);
		value.val.string.len++;
	}
	return JsonbValueToJsonb(&value);
}

/* The value again; false where it is none any more, because the column's type has changed meanwhile. */
bool
hx_mirror_json_value(HxMirrorValues *values, const Jsonb *json, Datum *datum, bool *isnull)
{
	HxFound		found = {.kind = HX_FOUND_JSON};
	JsonbValue	value;
	bool		replaced;
	char	   *problem;
	char	   *text;

	*datum = (Datum) 0;
	*isnull = json == NULL;
	if (json != NULL && JB_ROOT_IS_SCALAR(json))
	{
		(void) JsonbExtractScalar(&unconstify(Jsonb *, json)->root, &value);
		*isnull = value.type == jbvNull;
	}
	if (*isnull)
		return true;
	if (values->reader.kind == HX_VALUE_JSONB)
	{
		*datum = JsonbPGetDatum(json);
		return true;
	}
	text = JB_ROOT_IS_SCALAR(json) && values->reader.kind != HX_VALUE_JSON ? hx_json_value_text(&value) : hx_json_out(json);
	if (values->reader.kind != HX_VALUE_ARRAY)
		return hx_value_try_text(&values->reader, text, strlen(text), datum, &problem);
	found.bytes = pg_server_to_any(text, strlen(text), PG_UTF8);
	found.len = strlen(found.bytes);
	return hx_value_try(&values->reader, &found, datum, &replaced, &problem);
}

bool
hx_mirror_same_image(const HxMirrorValues *values, Datum a, bool a_null, Datum b, bool b_null)
{
	if (a_null || b_null)
		return a_null && b_null;

	/* What was not changed is stored as it was, so that nothing has to be unpacked. */
	if (values->len == -1 && VARSIZE_ANY(DatumGetPointer(a)) == VARSIZE_ANY(DatumGetPointer(b)) &&
		memcmp(DatumGetPointer(a), DatumGetPointer(b), VARSIZE_ANY(DatumGetPointer(a))) == 0)
		return true;
	return datum_image_eq(a, b, values->byval, values->len);
}

/* Are two values the same to their type? */
bool
hx_mirror_same(const HxMirrorValues *values, Datum a, bool a_null, Datum b, bool b_null)
{
	JsonbValue	one;
	JsonbValue	other;

	if (a_null || b_null || hx_mirror_same_image(values, a, a_null, b, b_null))
		return a_null == b_null;
	if (values->equal != NULL)
		return DatumGetBool(FunctionCall2Coll(values->equal, values->collation, a, b));
	hx_converter_value(&values->converter, a, false, &one);
	hx_converter_value(&values->converter, b, false, &other);
	return hx_json_same(&one, &other);
}

/* ---- judging ---- */

/* Does the record show a value that is known? */
static bool
shows(const HxDispute *dispute, const Jsonb *known)
{
	bool		isnull;
	Datum		value;

	return known != NULL && hx_mirror_json_value(dispute->values, known, &value, &isnull) &&
		hx_mirror_same(dispute->values, dispute->remote, dispute->remote_null, value, isnull);
}

static bool
shows_current(const HxDispute *dispute)
{
	return hx_mirror_same(dispute->values, dispute->remote, dispute->remote_null, dispute->current,
						  dispute->current_null);
}

/* ... or one of those in an array; with pairs, that stand second in one of its elements. */
static bool
shows_any(const HxDispute *dispute, const Jsonb *known, bool pairs)
{
	ListCell   *cell;

	foreach(cell, hx_json_elements(known))
	{
		JsonbValue *value = lfirst(cell);

		if (pairs)
			value = lsecond(hx_json_elements(hx_json_value_part(value)));
		if (shows(dispute, JsonbValueToJsonb(value)))
			return true;
	}
	return false;
}

/* Does an answer that was asked for at a time know of a change? */
bool
hx_two_way_is_settled(const HxLocalChange *change, TimestampTz asked_at)
{
	return (change->request_state == HX_REQUEST_DELIVERED || change->request_state == HX_REQUEST_GONE) &&
		change->has_ended && asked_at > change->ended_at;
}

/* Nothing is under way: the column is its owner's. */
static void
judge_at_rest(const HxDispute *dispute, HxSettlement *settlement)
{
	if (dispute->owner != HX_OWNER_LOCAL || !dispute->has_row)
		return;
	settlement->keeps = true;
	if (shows_current(dispute))
		return;
	if (dispute->current_null && !dispute->filled)
	{
		/* A column that has never been filled says nothing yet. */
		settlement->keeps = false;
		return;
	}
	settlement->conflict = "overruled";
	settlement->then = HX_THEN_SEND;
}

/* The answer knows of the change. */
static void
judge_delivered(const HxDispute *dispute, HxSettlement *settlement)
{
	const HxLocalChange *change = dispute->change;

	settlement->then = HX_THEN_FORGET;
	if (shows(dispute, change->local))
		settlement->keeps = settlement->echo = true;
	else if (dispute->owner == HX_OWNER_LOCAL && dispute->has_row && !shows_current(dispute))
	{
		bool		in_vain = shows_any(dispute, change->answered, false) ||
			list_length(hx_json_elements(change->answered)) >= MOST_ANSWERS;

		settlement->keeps = true;
		settlement->echo = in_vain;
		settlement->conflict = in_vain ? "not taken" : "overruled";
		settlement->then = in_vain ? HX_THEN_ACCEPT : HX_THEN_SEND;
	}
}

/* It does not, or the change is not delivered yet. */
static void
judge_under_way(const HxDispute *dispute, HxSettlement *settlement)
{
	const HxLocalChange *change = dispute->change;

	settlement->keeps = true;
	if (shows(dispute, change->remote))
		return;
	settlement->then = HX_THEN_REMEMBER;
	if (shows(dispute, change->local) || shows_any(dispute, change->earlier, true))
	{
		settlement->echo = true;
		return;
	}
	settlement->conflict = "both changed";
	if (dispute->owner == HX_OWNER_LOCAL)
		return;
	if (dispute->owner == HX_OWNER_NEWEST)
	{
		if (!dispute->has_modified || dispute->modified <= change->changed_at)
			return;
		settlement->conflict = "newer";
	}
	settlement->keeps = false;
	settlement->then = HX_THEN_CANCEL;
}

static void
judge_open(const HxDispute *dispute, HxSettlement *settlement)
{
	const HxLocalChange *change = dispute->change;

	if (change->request_state != HX_REQUEST_GIVEN_UP)
	{
		if (hx_two_way_is_settled(change, dispute->asked_at))
			judge_delivered(dispute, settlement);
		else
			judge_under_way(dispute, settlement);
		return;
	}
	settlement->then = HX_THEN_FORGET;
	if (shows(dispute, change->local))
	{
		settlement->keeps = true;
		return;
	}
	settlement->conflict = "refused";
	if (dispute->owner == HX_OWNER_LOCAL)
		settlement->then = HX_THEN_REFUSE;
}

/* The remote side's form of a value of ours is known. */
static void
judge_accepted(const HxDispute *dispute, HxSettlement *settlement)
{
	settlement->keeps = true;
	if (shows_current(dispute))
		settlement->then = HX_THEN_FORGET;
	else if (!shows(dispute, dispute->change->remote))
	{
		settlement->conflict = "overruled";
		settlement->then = HX_THEN_SEND;
	}
}

/* Says whose value of a column stays, and what becomes of the change. */
HxSettlement
hx_two_way_judge(const HxDispute *dispute)
{
	const HxLocalChange *change = dispute->change;
	HxSettlement settlement = {.then = HX_THEN_NOTHING};

	if (change == NULL)
		judge_at_rest(dispute, &settlement);
	else if (change->state == HX_CHANGE_OPEN)
		judge_open(dispute, &settlement);
	else if (dispute->owner != HX_OWNER_LOCAL || !dispute->has_row)
		settlement.then = HX_THEN_FORGET;
	else if (change->state == HX_CHANGE_ACCEPTED)
		judge_accepted(dispute, &settlement);
	else if (shows(dispute, change->local))
		settlement.then = HX_THEN_FORGET;	/* it was retried, and taken */
	return settlement;
}
