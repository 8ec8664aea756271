/*-------------------------------------------------------------------------
 *
 * json.h
 *	  Reading and building JSON with PostgreSQL's own jsonb.
 *
 * A path is the names of nested members joined by dots, as connectors write
 * them: "taskType.id".
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_JSON_H
#define HX_JSON_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

extern bool hx_json_find(const Jsonb *document, const char *path, JsonbValue *found);
extern char *hx_json_text(const Jsonb *document, const char *path);
extern int64 hx_json_int(const Jsonb *document, const char *path, int64 otherwise);
extern double hx_json_double(const Jsonb *document, const char *path, double otherwise);
extern bool hx_json_bool(const Jsonb *document, const char *path, bool otherwise);
extern Jsonb *hx_json_part(const Jsonb *document, const char *path);
extern List *hx_json_elements(const Jsonb *array);
extern bool hx_json_has(const Jsonb *array, const char *text);

extern char *hx_json_value_text(const JsonbValue *value);
extern Jsonb *hx_json_value_part(const JsonbValue *value);
extern bool hx_json_same(JsonbValue *a, JsonbValue *b);
extern char *hx_json_out(const Jsonb *document);

extern Jsonb *hx_json_parse(const char *bytes, size_t len);
extern Jsonb *hx_json_parse_leniently(const char *bytes, size_t len, bool *replaced, char **problem);
extern char *hx_json_make_fit(const char *bytes, size_t len, size_t *fit_len);
extern Jsonb *hx_json_try_parse(const char *bytes, size_t len, char **problem);

/* Calls fn for each member of an object; the name is NUL-terminated. */
typedef void (*HxJsonVisit) (const char *name, const JsonbValue *value, void *arg);
extern void hx_json_each(const Jsonb *object, HxJsonVisit fn, void *arg);
extern void hx_json_each_of(const JsonbContainer *object, HxJsonVisit fn, void *arg);
extern List *hx_json_names(const Jsonb *object);

/* An object under construction; members keep the last value given. */
typedef struct HxJsonBuilder
{
	JsonbParseState *state;
} HxJsonBuilder;

extern void hx_json_begin(HxJsonBuilder *builder);
extern void hx_json_add(HxJsonBuilder *builder, const char *name, JsonbValue *value);
extern void hx_json_add_text(HxJsonBuilder *builder, const char *name, const char *text);
extern void hx_json_add_part(HxJsonBuilder *builder, const char *name, const Jsonb *part);
extern Jsonb *hx_json_end(HxJsonBuilder *builder);

/* Values of a template: what stands for "{name}", NULL for nothing. */
typedef JsonbValue *(*HxJsonResolve) (const char *name, bool alone, void *arg);
extern Jsonb *hx_json_expand(const Jsonb *tmpl, HxJsonResolve resolve, void *arg);
extern char *hx_json_expand_text(const char *text, HxJsonResolve resolve, void *arg);

/* A text of a template, taken apart. */
typedef struct HxJsonPiece
{
	bool		is_name;		/* of a {name}, else text as it is */
	char	   *text;
} HxJsonPiece;
extern List *hx_json_pieces(const char *text);
extern bool hx_json_stands_alone(const List *pieces);

#endif							/* HX_JSON_H */
