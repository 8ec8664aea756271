/*-------------------------------------------------------------------------
 *
 * list.c
 *	  Reads a resource as a list, page by page.
 *
 * HubEx cuts a list silently at 10,000 records if no page is asked for, so
 * every read asks for pages and believes only what Content-Range confirms: a
 * page must say which records it holds, hold that many, and follow the one
 * before; else the read ends in an error, never in a short list.
 *
 * Records come in the order of the connector's choice (oldest first), so what
 * is created while the pages are read lands behind.  A record that leaves the
 * list meanwhile makes the rest move up; the total shrinks then, and the
 * pages are read once more from the start, giving only what was not given
 * yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "connector/connector.h"

#define LIST_MAX_RESTARTS	5
#define LIST_KEY_MAX		128

struct HxList
{
	const HxAccount *account;
	Jsonb	   *resource;
	char	   *name;
	char	   *path;
	char	   *envelope;
	List	   *query;
	int64		page_size;
	bool		first_page_only;

	int64		from;			/* first record of the next page */
	int64		total;			/* as the last page told, -1 before the first */
	bool		at_end;
	int			page_number;
	int			restarts;
	HTAB	   *given;			/* keys given so far */

	MemoryContext page_context; /* the page at hand */
	Jsonb	   *page;
	JsonbIterator *it;
};

typedef struct GivenKey
{
	char		key[LIST_KEY_MAX];
} GivenKey;

typedef struct FilterArg
{
	HxList	   *list;
	Jsonb	   *filters;
	Jsonb	   *aliases;
	Jsonb	   *defaults;
	List	   *seen;
	const char *connector;
} FilterArg;

static void
add_query(HxList *list, const char *name, const char *value)
{
	list->query = lappend(list->query, hx_http_pair(name, value));
}

static void
refuse_filter(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for filter \"%s\"", name),
			 errdetail("%s", detail)));
}

/* Adds one value of a filter, checked by the type the manifest gives it. */
static void
add_filter_value(FilterArg *arg, const char *name, const char *type, const JsonbValue *value)
{
	char	   *text = hx_json_value_text(value);

	if (text == NULL)
		refuse_filter(name, "The remote API cannot filter for null.");
	if (value->type == jbvBinary)
		refuse_filter(name, "It takes a value or an array of values.");

	/*
	 * The remote API takes a boolean of the wrong form as no filter at all,
	 * and a number of the wrong form as an error.
	 */
	if (strcmp(type, "boolean") == 0 && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		refuse_filter(name, "It takes true or false.");
	if (strcmp(type, "integer") == 0 && strspn(text, "-0123456789") != strlen(text))
		refuse_filter(name, "It takes a whole number.");
	add_query(arg->list, name, text);
}

/*
 * Adds one filter.  An unknown name is an error here because it is none
 * there: the API ignores it and returns everything.
 */
static void
add_filter(const char *given_name, const JsonbValue *value, void *argument)
{
	FilterArg  *arg = argument;
	char	   *alias = strchr(given_name, '.') ? NULL : hx_json_text(arg->aliases, given_name);
	const char *name = alias ? alias : given_name;
	char	   *type = strchr(name, '.') ? NULL : hx_json_text(arg->filters, name);

	if (type == NULL)
	{
		StringInfoData names;
		ListCell   *cell;

		initStringInfo(&names);
		foreach(cell, hx_json_names(arg->filters))
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", (char *) lfirst(cell));
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
				 errmsg("resource \"%s\" of connector \"%s\" has no filter \"%s\"",
						arg->list->name, arg->connector, given_name),
				 errhint("Its filters are: %s.", names.data)));
	}
	arg->seen = lappend(arg->seen, pstrdup(name));

	/* Null takes back what the manifest would filter for by itself. */
	if (value->type == jbvNull && hx_json_text(arg->defaults, name) != NULL)
		return;

	if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data))
	{
		ListCell   *cell;

		if (JsonContainerSize(value->val.binary.data) == 0)
			refuse_filter(given_name, "An empty array would filter nothing.");
		if (JsonContainerSize(value->val.binary.data) > 1 && strcmp(type, "integer") != 0)
			refuse_filter(given_name, "The remote API takes several values for ids only.");
		foreach(cell, hx_json_elements(hx_json_value_part(value)))
			add_filter_value(arg, name, type, lfirst(cell));
	}
	else
		add_filter_value(arg, name, type, value);
}

static void
add_filter_default(const char *name, const JsonbValue *value, void *argument)
{
	FilterArg  *arg = argument;
	ListCell   *cell;

	foreach(cell, arg->seen)
		if (strcmp(lfirst(cell), name) == 0)
			return;
	add_query(arg->list, name, hx_json_value_text(value));
}

static void
add_order(const char *name, const JsonbValue *value, void *argument)
{
	FilterArg  *arg = argument;

	add_query(arg->list, name, hx_json_value_text(value));
}

/*
 * Begins to read a resource of an account; filter is an object of the
 * manifest's filter names, or NULL.  No request is made yet.  Everything is
 * allocated in a context below the current one.
 */
HxList *
hx_list_begin(const HxAccount *account, const char *resource, const Jsonb *filter)
{
	HxList	   *list = palloc0(sizeof(HxList));
	HASHCTL		ctl = {.keysize = LIST_KEY_MAX,.entrysize = sizeof(GivenKey),.hcxt = CurrentMemoryContext};
	FilterArg	arg = {.list = list};

	list->account = account;
	list->name = pstrdup(resource);
	list->resource = hx_manifest_resource(account->manifest, account->connector, resource);
	list->path = hx_json_text(list->resource, "path");
	list->envelope = hx_json_text(list->resource, "envelope");
	list->page_size = account->page_size;
	list->from = hx_json_int(account->manifest, "paging.first", 1);
	list->total = -1;
	list->given = hash_create("hubex list keys", 1024, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	list->page_context = AllocSetContextCreate(CurrentMemoryContext, "hubex page", ALLOCSET_DEFAULT_SIZES);

	if (filter != NULL && !JB_ROOT_IS_OBJECT(filter))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a filter must be a JSON object"),
				 errhint("Like {\"taskTypeID\": 3, \"isClosed\": false}.")));
	arg.connector = account->connector;
	arg.filters = hx_json_part(list->resource, "filters");
	arg.aliases = hx_json_part(list->resource, "filter_aliases");
	arg.defaults = hx_json_part(list->resource, "filter_defaults");
	hx_json_each(filter, add_filter, &arg);
	hx_json_each(arg.defaults, add_filter_default, &arg);
	hx_json_each(hx_json_part(list->resource, "order"), add_order, &arg);
	return list;
}

/* Reads one record only, to learn the total. */
void
hx_list_first_page_only(HxList *list)
{
	list->page_size = 1;
	list->first_page_only = true;
}

/* The number of records the remote side counts, -1 before the first page. */
int64
hx_list_total(const HxList *list)
{
	return list->total;
}

static void
bad_page(HxList *list, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unusable page of resource \"%s\" from server \"%s\"", list->name, list->account->server),
			 errdetail("Page %d: %s", list->page_number, detail)));
}

/*
 * Reads "items=A-B/TOTAL"; the header has an equals sign where RFC 9110 has a
 * blank, so either is taken.
 */
static bool
read_content_range(const char *header, const char *unit, int64 *first, int64 *last, int64 *total)
{
	size_t		len = strlen(unit);
	long long	a,
				b,
				t;
	int			end = 0;

	if (pg_strncasecmp(header, unit, len) != 0 || (header[len] != '=' && header[len] != ' '))
		return false;
	if (sscanf(header + len + 1, "%lld-%lld/%lld%n", &a, &b, &t, &end) != 3 || header[len + 1 + end] != '\0')
		return false;
	*first = a;
	*last = b;
	*total = t;
	return true;
}

/* Fetches the next page into list->page; false where there is none. */
static bool
fetch_page(HxList *list)
{
	MemoryContext old;
	char	   *unit = hx_json_text(list->account->manifest, "paging.unit");
	int64		first_record = hx_json_int(list->account->manifest, "paging.first", 1);
	HxPair		range;
	HxCall		call = {.method = "GET"};
	const HxHttpResult *result;
	const char *header;
	char	   *problem;
	bool		replaced;
	int64		first,
				last,
				total;

	MemoryContextReset(list->page_context);
	list->page = NULL;
	list->it = NULL;
	list->page_number++;

	old = MemoryContextSwitchTo(list->page_context);
	range.name = "Range";
	range.value = psprintf("%s=" INT64_FORMAT "-" INT64_FORMAT, unit, list->from, list->from + list->page_size - 1);
	call.path = list->path;
	call.query = list->query;
	call.headers = list_make1(&range);
	result = hx_call_perform(list->account, &call);

	if (result->outcome != HX_HTTP_ANSWERED || result->status < 200 || result->status > 299)
	{
		Jsonb	   *body = result->body_len > 0 ?
			hx_json_try_parse(result->body, result->body_len, &problem) : NULL;

		hx_http_report(ERROR, result, hx_call_problem(list->account, result, body));
	}
	if (result->status == 204)
	{
		if (list->from != first_record)
			bad_page(list, "No content where the page before announced more.");
		list->total = 0;
		list->at_end = true;
		MemoryContextSwitchTo(old);
		return false;
	}

	list->page = hx_json_parse_leniently(result->body, result->body_len, &replaced, &problem);
	if (list->page == NULL)
		list->page = hx_json_parse(result->body, result->body_len);	/* says why */
	if (replaced)
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("letters that this database cannot hold were replaced by question marks"),
				 errdetail("Page %d of resource \"%s\" from server \"%s\": %s",
						   list->page_number, list->name, list->account->server, problem)));
	header = hx_http_header(result, "content-range");
	if (header == NULL)
		bad_page(list, "The answer has no Content-Range, so it may be cut off.");
	if (!read_content_range(header, unit, &first, &last, &total))
		bad_page(list, psprintf("Content-Range \"%s\" cannot be read.", header));
	MemoryContextSwitchTo(old);

	if (!JsonContainerIsObject(&list->page->root) && strcmp(list->envelope, "object_by_id") == 0)
		bad_page(list, "The body is not an object keyed by id.");
	if (!JsonContainerIsArray(&list->page->root) && strcmp(list->envelope, "array") == 0)
		bad_page(list, "The body is not an array.");

	if (total == 0 || JB_ROOT_COUNT(list->page) == 0)
	{
		if (JB_ROOT_COUNT(list->page) != 0 || total >= list->from)
			bad_page(list, psprintf("Content-Range \"%s\" does not fit a body of %d records.",
									header, (int) JB_ROOT_COUNT(list->page)));
		list->total = total;
		list->at_end = true;
		return false;
	}
	if (first != list->from || last < first || last > total || JB_ROOT_COUNT(list->page) != last - first + 1)
		bad_page(list, psprintf("Content-Range \"%s\" does not fit a body of %d records from " INT64_FORMAT " on.",
								header, (int) JB_ROOT_COUNT(list->page), list->from));

	/* Records left the list while we read: those behind moved up unseen. */
	if (list->total >= 0 && total < list->total)
	{
		if (++list->restarts > LIST_MAX_RESTARTS)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("resource \"%s\" of server \"%s\" changes faster than it can be read",
							list->name, list->account->server),
					 errhint("Narrow the filter, or try again.")));
		list->total = total;
		list->from = first_record;
		return fetch_page(list);
	}
	list->total = total;
	list->from = last + 1;
	list->at_end = last >= total || list->first_page_only;
	list->it = JsonbIteratorInit(&list->page->root);
	return true;
}

/*
 * Gives the next record and its key (the id).  Both live until the next call.
 * False at the end.
 */
bool
hx_list_next(HxList *list, char **key, Jsonb **record)
{
	for (;;)
	{
		MemoryContext old;
		JsonbIteratorToken token;
		JsonbValue	value;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (list->it == NULL)
		{
			if (list->at_end || !fetch_page(list))
				return false;
		}

		old = MemoryContextSwitchTo(list->page_context);
		*key = NULL;
		*record = NULL;
		while ((token = JsonbIteratorNext(&list->it, &value, true)) != WJB_DONE)
		{
			if (token == WJB_KEY)
				*key = pnstrdup(value.val.string.val, value.val.string.len);
			else if (token == WJB_VALUE || token == WJB_ELEM)
			{
				*record = hx_json_value_part(&value);
				break;
			}
		}
		if (*record != NULL && *key == NULL)
			*key = hx_json_text(*record, "id");
		MemoryContextSwitchTo(old);

		if (*record == NULL)
		{
			list->it = NULL;
			continue;
		}
		if (!JB_ROOT_IS_OBJECT(*record))
			bad_page(list, "A record is not an object.");
		if (*key == NULL || strlen(*key) >= LIST_KEY_MAX)
			bad_page(list, "A record has no usable id.");
		(void) hash_search(list->given, *key, HASH_ENTER, &found);
		if (!found)
			return true;
	}
}
