/*-------------------------------------------------------------------------
 *
 * row_template.c
 *	  A trigger's template, made ready for many rows.
 *
 * It means what json/template.c says.  Here the template is taken apart once:
 * columns are numbers and texts are pieces, so that a row costs no search for
 * a name and no parsing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

#include "outbox/trigger.h"

/* ---- taking it apart ---- */

static void
report_no_column(Relation relation, const char *name)
{
	TupleDesc	desc = RelationGetDescr(relation);
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", NameStr(TupleDescAttr(desc, i)->attname));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation \"%s\" does not exist", name, RelationGetRelationName(relation)),
			 errdetail("The trigger's template names it."),
			 errhint("The columns are: %s. Write {{ for a brace that is meant as one.", names.data)));
}

/* The place of a column among the plan's; an unknown one is an error. */
static int
find_column(HxTriggerPlan *plan, Relation relation, const char *name)
{
	TupleDesc	desc = RelationGetDescr(relation);
	HxRowColumn   *column;

	for (int i = 0; i < plan->ncolumns; i++)
		if (strcmp(plan->columns[i].name, name) == 0)
			return i;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped || strcmp(NameStr(attribute->attname), name) != 0)
			continue;
		if (attribute->attgenerated == 'v')
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of relation \"%s\" is a virtual generated column", name,
							RelationGetRelationName(relation)),
					 errdetail("The trigger's template names it, and a trigger does not get its value."),
					 errhint("Make it a stored one.")));
		plan->columns = plan->ncolumns == 0 ? palloc(sizeof(HxRowColumn)) :
			repalloc(plan->columns, sizeof(HxRowColumn) * (plan->ncolumns + 1));
		column = &plan->columns[plan->ncolumns];
		column->name = pstrdup(name);
		column->number = attribute->attnum;
		column->byval = attribute->attbyval;
		column->len = attribute->attlen;
		column->written_back = false;
		hx_converter_init(&column->converter, attribute->atttypid);
		plan->last_attribute = Max(plan->last_attribute, attribute->attnum);
		return plan->ncolumns++;
	}
	report_no_column(relation, name);
	return -1;
}

static HxPart *
new_part(int kind)
{
	HxPart	   *part = palloc0(sizeof(HxPart));

	part->kind = kind;
	return part;
}

static void
set_text(JsonbValue *value, const char *text)
{
	value->type = jbvString;
	value->val.string.val = unconstify(char *, text);
	value->val.string.len = strlen(text);
}

static void
add_part(HxPart *whole, HxPart *part)
{
	whole->parts = whole->nparts == 0 ? palloc(sizeof(HxPart *)) :
		repalloc(whole->parts, sizeof(HxPart *) * (whole->nparts + 1));
	whole->parts[whole->nparts++] = part;
}

/* A text of a template. */
HxPart *
hx_template_compile_text(HxTriggerPlan *plan, Relation relation, const char *text)
{
	List	   *pieces = hx_json_pieces(text);
	HxPart	   *whole = new_part(hx_json_stands_alone(pieces) ? HX_PART_COLUMN : HX_PART_TEXT);
	ListCell   *cell;

	if (whole->kind == HX_PART_COLUMN)
	{
		whole->column = find_column(plan, relation, ((HxJsonPiece *) linitial(pieces))->text);
		return whole;
	}
	foreach(cell, pieces)
	{
		HxJsonPiece *piece = lfirst(cell);
		HxPart	   *part = new_part(piece->is_name ? HX_PART_COLUMN : HX_PART_CONSTANT);

		if (piece->is_name)
			part->column = find_column(plan, relation, piece->text);
		else
			set_text(&part->constant, piece->text);
		add_part(whole, part);
	}
	if (whole->nparts == 0 || (whole->nparts == 1 && whole->parts[0]->kind == HX_PART_CONSTANT))
	{
		whole->kind = HX_PART_CONSTANT;
		set_text(&whole->constant, whole->nparts ? whole->parts[0]->constant.val.string.val : "");
	}
	return whole;
}

static HxPart *
compile_scalar(HxTriggerPlan *plan, Relation relation, const JsonbValue *value)
{
	HxPart	   *part;

	if (value->type == jbvString)
		return hx_template_compile_text(plan, relation, pnstrdup(value->val.string.val, value->val.string.len));
	part = new_part(HX_PART_CONSTANT);
	part->constant = *value;
	return part;
}

/* The object or array that the iterator has just entered. */
static HxPart *
compile_container(HxTriggerPlan *plan, Relation relation, JsonbIterator **it, bool object)
{
	HxPart	   *whole = new_part(object ? HX_PART_OBJECT : HX_PART_ARRAY);
	JsonbIteratorToken token;
	JsonbValue	value;

	check_stack_depth();
	while ((token = JsonbIteratorNext(it, &value, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_KEY:
				whole->names = whole->nparts == 0 ? palloc(sizeof(JsonbValue)) :
					repalloc(whole->names, sizeof(JsonbValue) * (whole->nparts + 1));
				whole->names[whole->nparts] = value;
				break;
			case WJB_VALUE:
			case WJB_ELEM:
				add_part(whole, compile_scalar(plan, relation, &value));
				break;
			case WJB_BEGIN_OBJECT:
			case WJB_BEGIN_ARRAY:
				add_part(whole, compile_container(plan, relation, it, token == WJB_BEGIN_OBJECT));
				break;
			default:
				return whole;
		}
	}
	return whole;
}

/*
 * Takes a template, an object, apart, in the current context; the result
 * points into it.
 */
HxPart *
hx_template_compile(HxTriggerPlan *plan, Relation relation, const Jsonb *tmpl)
{
	JsonbIterator *it = JsonbIteratorInit((JsonbContainer *) &tmpl->root);
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &value, false);
	return compile_container(plan, relation, &it, true);
}

/* ---- putting a row in ---- */

static void
column_value(const HxTriggerPlan *plan, int n, TupleTableSlot *row, JsonbValue *value)
{
	const HxRowColumn *column = &plan->columns[n];

	hx_converter_value(&column->converter, row->tts_values[column->number - 1],
					   row->tts_isnull[column->number - 1], value);
}

static void
append_column(const HxTriggerPlan *plan, int n, TupleTableSlot *row, StringInfo out)
{
	JsonbValue	value;
	char	   *text;

	column_value(plan, n, row, &value);
	if (value.type == jbvString)
		appendBinaryStringInfo(out, value.val.string.val, value.val.string.len);
	else if ((text = hx_json_value_text(&value)) != NULL)
		appendStringInfoString(out, text);
}

static void
join_text(const HxTriggerPlan *plan, const HxPart *whole, TupleTableSlot *row, JsonbValue *value)
{
	StringInfoData out;

	initStringInfo(&out);
	for (int i = 0; i < whole->nparts; i++)
	{
		const HxPart *part = whole->parts[i];

		if (part->kind == HX_PART_COLUMN)
			append_column(plan, part->column, row, &out);
		else
			appendBinaryStringInfo(&out, part->constant.val.string.val, part->constant.val.string.len);
	}
	value->type = jbvString;
	value->val.string.val = out.data;
	value->val.string.len = out.len;
}

/*
 * The value of a part for a row, whose columns are out; false where it comes
 * to nothing.  It may point into the row and the template.
 */
bool
hx_template_value(const HxTriggerPlan *plan, const HxPart *part, TupleTableSlot *row, JsonbValue *value)
{
	JsonbParseState *state = NULL;
	JsonbValue	member;

	switch (part->kind)
	{
		case HX_PART_CONSTANT:
			*value = part->constant;
			return true;
		case HX_PART_COLUMN:
			column_value(plan, part->column, row, value);
			return value->type != jbvNull;
		case HX_PART_TEXT:
			join_text(plan, part, row, value);
			return true;
		case HX_PART_OBJECT:
			pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
			for (int i = 0; i < part->nparts; i++)
			{
				if (!hx_template_value(plan, part->parts[i], row, &member))
					continue;
				pushJsonbValue(&state, WJB_KEY, &part->names[i]);
				pushJsonbValue(&state, WJB_VALUE, &member);
			}
			*value = *pushJsonbValue(&state, WJB_END_OBJECT, NULL);
			return true;
		case HX_PART_ARRAY:
			pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
			for (int i = 0; i < part->nparts; i++)
			{
				if (!hx_template_value(plan, part->parts[i], row, &member))
					member.type = jbvNull;
				pushJsonbValue(&state, WJB_ELEM, &member);
			}
			*value = *pushJsonbValue(&state, WJB_END_ARRAY, NULL);
			return true;
	}
	return false;
}

/* The same as a text; NULL where it comes to nothing or an empty text. */
char *
hx_template_text(const HxTriggerPlan *plan, const HxPart *part, TupleTableSlot *row)
{
	JsonbValue	value;
	char	   *text;

	if (!hx_template_value(plan, part, row, &value))
		return NULL;
	text = hx_json_value_text(&value);
	return (text == NULL || *text == '\0') ? NULL : text;
}

/* ---- comparing two versions of a row ---- */

/*
 * Are the columns that matter the same, byte for byte?  Those that hubex
 * itself fills in do not matter.
 */
bool
hx_template_same_columns(const HxTriggerPlan *plan, TupleTableSlot *old, TupleTableSlot *new)
{
	for (int i = 0; i < plan->ncolumns; i++)
	{
		const HxRowColumn *column = &plan->columns[i];
		int			n = column->number - 1;

		if (column->written_back)
			continue;
		if (old->tts_isnull[n] != new->tts_isnull[n])
			return false;
		if (!old->tts_isnull[n] && !datumIsEqual(old->tts_values[n], new->tts_values[n], column->byval, column->len))
			return false;
	}
	return true;
}
