/*-------------------------------------------------------------------------
 *
 * trigger.h
 *	  What the files of the trigger functions share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_TRIGGER_H
#define HX_TRIGGER_H

#include "connector/kept_plan.h"
#include "executor/tuptable.h"
#include "outbox/outbox.h"

/* A column that the template names, or that is part of the primary key. */
typedef struct HxRowColumn
{
	char	   *name;
	AttrNumber	number;
	bool		byval;
	int16		len;
	bool		written_back;
	HxConverter converter;
} HxRowColumn;

/* A value of a template, taken apart so that a row only has to be put in. */
typedef struct HxPart
{
	enum
	{
		HX_PART_CONSTANT,
		HX_PART_COLUMN,			/* a {column} alone, with its type */
		HX_PART_TEXT,			/* texts and columns, joined */
		HX_PART_OBJECT,
		HX_PART_ARRAY
	}			kind;
	JsonbValue	constant;
	int			column;			/* index into the plan's columns */
	struct HxPart **parts;		/* of a text, an object, an array */
	JsonbValue *names;			/* of an object */
	int			nparts;
} HxPart;

/* A column to be filled in when a request is delivered; number 0: none. */
typedef struct HxTarget
{
	char	   *name;
	AttrNumber	number;
} HxTarget;

/* A column of the primary key, and how its value is written. */
typedef struct HxKeyColumn
{
	JsonbValue	name;
	AttrNumber	number;
	FmgrInfo	out;
} HxKeyColumn;

/* What a trigger does, for one role: its arguments, read and checked. */
typedef struct HxTriggerPlan
{
	HxKeptPlan	kept;			/* comes first */
	char	   *default_server; /* the setting it was made with; NULL: it does not matter */

	HxAccount  *account;
	char	   *resource;
	HxRowColumn   *columns;
	int			ncolumns;
	AttrNumber	last_attribute; /* the last that has to be taken out of the row */
	HxCreation *creation;
	HxPart	   *tmpl;			/* an object, its members by the API's names */
	int			natural_key;	/* which of its members; -1: none */
	HxPart	   *ordering_key;	/* NULL: the usual one */
	bool		ignores_delete;

	/* What is to be done in this database afterwards. */
	bool		writes_back;	/* any of the following */
	bool		calls_function;
	Jsonb	   *home;			/* the table, its owner and the callback */
	HxTarget	id;
	HxTarget	record_number;
	FmgrInfo	id_out;
	HxKeyColumn *key;
	int			nkey;
	bool		plain_key;		/* no setting changes how it is written */
	bool		runs_code;		/* to write a row's values functions of others may be called */
} HxTriggerPlan;

/* trigger_plan.c */
extern HxTriggerPlan *hx_trigger_plan(TriggerData *trigger, const char *function, bool tasks_only,
									  HxTriggerPlan *last);
extern void hx_trigger_refuse(const char *function, const char *detail);

/* row_template.c */
extern HxPart *hx_template_compile(HxTriggerPlan *plan, Relation relation, const Jsonb *tmpl);
extern HxPart *hx_template_compile_text(HxTriggerPlan *plan, Relation relation, const char *text);
extern bool hx_template_value(const HxTriggerPlan *plan, const HxPart *part, TupleTableSlot *row, JsonbValue *value);
extern char *hx_template_text(const HxTriggerPlan *plan, const HxPart *part, TupleTableSlot *row);
extern bool hx_template_same_columns(const HxTriggerPlan *plan, TupleTableSlot *old, TupleTableSlot *new);

/* row_request.c */
extern void hx_row_inserted(const HxTriggerPlan *plan, TupleTableSlot *row, HxBatch *batch);
extern void hx_row_updated(const HxTriggerPlan *plan, TupleTableSlot *old, TupleTableSlot *new, HxBatch *batch);
extern void hx_row_deleted(const HxTriggerPlan *plan, TupleTableSlot *row, HxBatch *batch);

/* transition.c */
extern void hx_transition_rows(const HxTriggerPlan *plan, TriggerData *trigger, const char *function);

/* write_back_store.c */
extern bool hx_write_back_fires(Oid relation);

#endif							/* HX_TRIGGER_H */
