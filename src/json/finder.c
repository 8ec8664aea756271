/*-------------------------------------------------------------------------
 *
 * finder.c
 *	  Finds members of a record without building the rest of it.
 *
 * A record of a hundred members is read for ten columns, so PostgreSQL's
 * parser runs over it and builds nothing: it calls back for each member, and
 * those that are wanted have the place of their value noted, in the record's
 * own bytes.  The parser sees all of the record, so whatever is not JSON is
 * an error, wanted or not.
 *
 * Three things make it fast.  What the parser runs over is the record's
 * outline (outline.c), in which the strings are empty, and their places in
 * the record are known; so it is asked for no names and texts either.  When
 * it calls for a member, the value's first token is lexed already, so no
 * other callback is needed for what is not an object or array.  And the
 * members of most records come in the same order, so each is compared with
 * the one expected first.
 *
 * Paths mean what they mean to hx_json_find(): only objects are on the way,
 * and of members of one name the last counts, as in jsonb.  A path's names
 * are compared as UTF-8, unescaped where there is a backslash in the name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "compat.h"
#include "json/record.h"

/* A name that is looked for, at its place in the tree of all paths. */
typedef struct Member
{
	const char *name;			/* UTF-8 */
	size_t		len;
	int			slot;			/* of the value in found, or -1: only on the
								 * way */
	int			first_slot;		/* of the values at and below it */
	int			end_slot;
	uint64		seen;			/* in the record of this number */
	uint64		names;			/* of the children, see name_bit() */
	int			nchildren;
	int			expected;		/* the child that comes next, as far as one
								 * knows */
	struct Member **children;
} Member;

struct HxRecordFinder
{
	int			npaths;
	int		   *slots;			/* of the paths; equal paths share one */
	int			nslots;
	HxFound    *found;			/* by slot */
	Member	   *root;
	int			depth;			/* names in the longest path */
	uint64		record_number;
	HxFound   **open;			/* by level: the object or array that has not
								 * ended */
	Member	  **parents;		/* by level: whose members stand there */
	int			level;			/* the deepest level that has wanted members,
								 * at this place of the record */
	const char *base;			/* the record */
	const HxOutline *outline;
	uint32		nth;			/* its first string that is not before the
								 * place at hand */
	HxOutline	own;			/* where the record has none */
	MemoryContext scratch;		/* for one name */
	JsonLexContext lex;
	JsonSemAction actions;
};

/* One bit of a name; most members that are not wanted have another than those that are. */
static inline uint64
name_bit(const char *name, size_t len)
{
	return UINT64CONST(1) << (((len > 0 ? (unsigned char) *name : 0) * 5 + len) % 64);
}

/* The child of this name, made where there is none. */
static Member *
add_child(Member *parent, const char *name, size_t len)
{
	char	   *server = pnstrdup(name, len);
	char	   *utf8 = pg_server_to_any(server, (int) len, PG_UTF8);
	Member	   *child;

	len = strlen(utf8);
	for (int i = 0; i < parent->nchildren; i++)
		if (parent->children[i]->len == len && memcmp(parent->children[i]->name, utf8, len) == 0)
			return parent->children[i];
	child = palloc0(sizeof(Member));
	child->name = utf8;
	child->len = len;
	child->slot = -1;
	if (parent->children == NULL)
		parent->children = palloc(sizeof(Member *));
	else
		parent->children = repalloc(parent->children, (parent->nchildren + 1) * sizeof(Member *));
	parent->children[parent->nchildren++] = child;
	parent->names |= name_bit(utf8, len);
	return child;
}

/* Numbers the values so that those below a node stand together. */
static void
number_slots(Member *node, int *next)
{
	node->first_slot = *next;
	if (node->slot >= 0)
		node->slot = (*next)++;
	for (int i = 0; i < node->nchildren; i++)
		number_slots(node->children[i], next);
	node->end_slot = *next;
}

static HX_JSON_ACTION begin_member(void *arg, char *name, bool isnull);
static HX_JSON_ACTION end_member(void *arg, char *name, bool isnull);
static HX_JSON_ACTION check_depth(void *arg);

/* Prepares to find the values at paths; found[i] will be that of paths[i]. */
HxRecordFinder *
hx_finder_make(int npaths, const char *const *paths)
{
	HxRecordFinder *finder = palloc0(sizeof(HxRecordFinder));
	Member	  **nodes = palloc(Max(npaths, 1) * sizeof(Member *));

	finder->npaths = npaths;
	finder->root = palloc0(sizeof(Member));
	finder->root->slot = -1;
	for (int i = 0; i < npaths; i++)
	{
		const char *name = paths[i];
		int			depth = 0;

		nodes[i] = finder->root;
		do
		{
			size_t		len = strcspn(name, ".");

			nodes[i] = add_child(nodes[i], name, len);
			depth++;
			name = name[len] == '.' ? name + len + 1 : NULL;
		} while (name != NULL);
		nodes[i]->slot = 0;
		finder->depth = Max(finder->depth, depth);
	}
	number_slots(finder->root, &finder->nslots);
	finder->slots = palloc(Max(npaths, 1) * sizeof(int));
	for (int i = 0; i < npaths; i++)
		finder->slots[i] = nodes[i]->slot;
	finder->found = palloc0(Max(finder->nslots, 1) * sizeof(HxFound));
	finder->open = palloc0((finder->depth + 2) * sizeof(HxFound *));
	finder->parents = palloc0((finder->depth + 2) * sizeof(Member *));
	finder->parents[1] = finder->root;
	finder->scratch = AllocSetContextCreate(CurrentMemoryContext, "hubex name", ALLOCSET_SMALL_SIZES);

	finder->actions.semstate = finder;
	finder->actions.object_field_start = begin_member;
	finder->actions.object_field_end = end_member;
	finder->actions.object_start = check_depth;
	finder->actions.array_start = check_depth;
	return finder;
}

static void
refuse(const char *excess)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("%s", excess),
			 errdetail("It may have %d MB, %d levels and %d members and texts.", HX_RECORD_MAX_LEN / (1024 * 1024),
					   HX_RECORD_MAX_DEPTH, HX_RECORD_MAX_STRINGS)));
}

/*
 * Sees to it that somebody else's brackets do not fill the stack; called
 * before the level is counted up.
 */
static HX_JSON_ACTION
check_depth(void *arg)
{
	HxRecordFinder *finder = arg;

	if (finder->lex.lex_level >= HX_RECORD_MAX_DEPTH)
		refuse("a record is nested too deep");
	hx_json_action_done();
}

/* The child of a name as the record writes it, or NULL. */
static inline Member *
find_child(Member *parent, const char *name, size_t len)
{
	int			i = parent->expected;

	if ((parent->names & name_bit(name, len)) == 0)
		return NULL;
	for (int n = parent->nchildren; n > 0; n--)
	{
		Member	   *child = parent->children[i];

		if (++i == parent->nchildren)
			i = 0;
		if (child->len == len && memcmp(child->name, name, len) == 0)
		{
			parent->expected = i;
			return child;
		}
	}
	return NULL;
}

/* The same for a name with escapes, which may mean any letter. */
static Member *
find_escaped_child(HxRecordFinder *finder, Member *parent, const char *name, size_t len)
{
	MemoryContext old = MemoryContextSwitchTo(finder->scratch);
	bool		replaced = false;
	char	   *text = hx_json_unescape(name, len, &len, &replaced);
	char	   *utf8 = pg_server_to_any(text, (int) len, PG_UTF8);
	Member	   *child = replaced ? NULL : find_child(parent, utf8, strlen(utf8));

	MemoryContextSwitchTo(old);
	MemoryContextReset(finder->scratch);
	return child;
}

/* Goes on to a place in the outline: gives the last string before it, of which there is one. */
static inline const HxOutlineString *
string_before(HxRecordFinder *finder, uint32 place)
{
	const HxOutline *outline = finder->outline;

	while (finder->nth < outline->nstrings && outline->strings[finder->nth].at < place)
		finder->nth++;
	Assert(finder->nth > 0);
	return &outline->strings[finder->nth - 1];
}

/* The place in the record of one in the outline, behind a string and before the next. */
static inline const char *
place_in_record(const HxRecordFinder *finder, const HxOutlineString *string, uint32 place)
{
	return finder->base + string->from + string->len + 1 + (place - string->end);
}

/* A member begins: its name is read, and the first token of its value lexed. */
static HX_JSON_ACTION
begin_member(void *arg, char *name, bool isnull)
{
	HxRecordFinder *finder = arg;
	JsonLexContext *lex = &finder->lex;
	int			level = lex->lex_level;
	const HxOutlineString *string;
	uint32		place;
	Member	   *node;
	HxFound    *found;

	if (level > finder->level)
		hx_json_action_done();
	finder->level = level;
	place = lex->token_start - finder->outline->text;
	string = string_before(finder, place);
	if (string->plain)
		node = find_child(finder->parents[level], finder->base + string->from, string->len);
	else
		node = find_escaped_child(finder, finder->parents[level], finder->base + string->from, string->len);
	if (node == NULL)
		hx_json_action_done();

	/* An earlier member of this name, and all below it, never was. */
	if (node->seen == finder->record_number)
		for (int i = node->first_slot; i < node->end_slot; i++)
			finder->found[i].kind = HX_FOUND_NOTHING;
	node->seen = finder->record_number;

	if (lex->token_type == JSON_TOKEN_OBJECT_START && node->nchildren > 0)
	{
		finder->parents[level + 1] = node;
		finder->level = level + 1;
	}
	if (node->slot < 0)
		hx_json_action_done();

	found = &finder->found[node->slot];
	found->bytes = place_in_record(finder, string, place);
	found->len = lex->token_terminator - lex->token_start;
	switch (lex->token_type)
	{
		case JSON_TOKEN_STRING:
			string = &finder->outline->strings[finder->nth];
			found->kind = HX_FOUND_TEXT;
			found->bytes = finder->base + string->from;
			found->len = string->len;
			found->escaped = !string->plain;
			break;
		case JSON_TOKEN_OBJECT_START:
		case JSON_TOKEN_ARRAY_START:
			found->kind = HX_FOUND_JSON;
			finder->open[level] = found;
			break;
		case JSON_TOKEN_NULL:
			found->kind = HX_FOUND_NOTHING;
			break;
		default:
			found->kind = HX_FOUND_WORD;
			break;
	}
	hx_json_action_done();
}

/* A member ends: so does the object or array that is its value. */
static HX_JSON_ACTION
end_member(void *arg, char *name, bool isnull)
{
	HxRecordFinder *finder = arg;
	int			level = finder->lex.lex_level;

	if (level <= finder->depth && finder->open[level] != NULL)
	{
		HxFound    *found = finder->open[level];
		uint32		place = finder->lex.prev_token_terminator - finder->outline->text;

		found->len = place_in_record(finder, string_before(finder, place), place) - found->bytes;
		finder->open[level] = NULL;
	}
	hx_json_action_done();
}

static bool
is_blank(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	return p == end;
}

/*
 * Lets the parser run over a record.  Of what is no object it need only know
 * that it is JSON.
 */
static bool
parse(HxRecordFinder *finder, const HxRecord *record, bool is_object)
{
	const char *end = record->bytes + record->len;
	const char *behind;

	finder->outline = record->outline;
	if (finder->outline == NULL && is_object)
	{
		if (finder->own.text == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(finder));

			hx_outline_init(&finder->own);
			MemoryContextSwitchTo(old);
		}
		hx_outline_begin(&finder->own);
		behind = hx_outline_follow(&finder->own, NULL, 0, finder->base, end);
		if (finder->own.excess != NULL)
			refuse(finder->own.excess);
		if (behind == NULL || !is_blank(behind, end))
			return false;
		finder->outline = &finder->own;
	}
	if (finder->outline != NULL)
		hx_json_lex_init(&finder->lex, finder->outline->text, finder->outline->len, PG_UTF8);
	else
		hx_json_lex_init(&finder->lex, record->bytes, record->len, PG_UTF8);
	return pg_parse_json(&finder->lex, &finder->actions) == JSON_SUCCESS;
}

/*
 * Finds the members of a record.  What is found lies in the record's bytes.
 * False where the record is JSON, but no object; where it is not JSON, the
 * error is PostgreSQL's own.
 */
bool
hx_finder_find(HxRecordFinder *finder, const HxRecord *record, HxFound *found)
{
	const char *end = record->bytes + record->len;
	bool		is_object;

	if (record->len > HX_RECORD_MAX_LEN)
		refuse("a record is too large");
	for (int i = 0; i < finder->nslots; i++)
		finder->found[i].kind = HX_FOUND_NOTHING;
	finder->record_number++;
	memset(finder->open, 0, (finder->depth + 2) * sizeof(HxFound *));
	finder->nth = 0;

	finder->base = record->bytes;
	while (finder->base < end && is_blank(finder->base, finder->base + 1))
		finder->base++;
	is_object = finder->base < end && *finder->base == '{';
	finder->level = is_object ? 1 : 0;

	if (!parse(finder, record, is_object))
	{
		/* Words and place of the error, in the encoding of the database. */
		(void) hx_json_parse(record->bytes, record->len);
		elog(ERROR, "a record that is JSON was not taken for it");
	}
	for (int i = 0; i < finder->npaths; i++)
		found[i] = finder->found[finder->slots[i]];
	return is_object;
}

/* The whole of a record, of which it is known that it is JSON, as what is found. */
void
hx_found_whole(const HxRecord *record, HxFound *found)
{
	const char *bytes = record->bytes;
	size_t		len = record->len;

	while (len > 0 && strchr(" \t\r\n", bytes[len - 1]) != NULL)
		len--;
	while (len > 0 && strchr(" \t\r\n", *bytes) != NULL)
		bytes++, len--;
	found->bytes = bytes;
	found->len = len;
	found->escaped = false;
	switch (len > 0 ? *bytes : 'n')
	{
		case '"':
			found->kind = HX_FOUND_TEXT;
			found->bytes++;
			found->len -= 2;
			found->escaped = memchr(found->bytes, '\\', found->len) != NULL;
			break;
		case '{':
		case '[':
			found->kind = HX_FOUND_JSON;
			break;
		case 'n':
			found->kind = HX_FOUND_NOTHING;
			break;
		default:
			found->kind = HX_FOUND_WORD;
			break;
	}
}

/*
 * What is found as text of this database, palloc'd and NUL-terminated: a
 * string without its escapes, all else as it is written.  *replaced is set
 * where a letter had to be replaced, and else left as it was.
 */
char *
hx_found_text(const HxFound *found, size_t *len, bool *replaced)
{
	char	   *text;

	if (found->kind == HX_FOUND_NOTHING)
		return NULL;
	if (found->escaped || (found->kind == HX_FOUND_TEXT && GetDatabaseEncoding() != PG_UTF8))
		return hx_json_unescape(found->bytes, found->len, len, replaced);
	text = pg_any_to_server(found->bytes, (int) found->len, PG_UTF8);
	if (text == found->bytes)
	{
		*len = found->len;
		return pnstrdup(found->bytes, found->len);
	}
	*len = strlen(text);
	return text;
}
