/*-------------------------------------------------------------------------
 *
 * reader_page.c
 *	  One page of a list: asked for, judged, cut into records.
 *
 * A page must say which records it holds, and hold that many: HubEx cuts a
 * list silently at 10,000 records if no page is asked for, so what is not
 * confirmed by Content-Range is believed only where it is too short to have
 * been cut.  Whatever contradicts itself is an error, never a short list.
 *
 * Records are given while the page arrives.  If it then breaks off, or if it
 * could not be had at all for a reason that may pass, it is asked for again,
 * a few times, from where the records that were given end.
 *
 * How a page is put to the one before it: it begins with records that were
 * given already.  If it does not, records left the list in the meantime and
 * others moved up unseen (PAGE_GAP); reader.c then looks for the place.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "connector/reader_internal.h"

#define CHUNK_SIZE			65536
#define RETRY_AFTER_MOST_MS	(60 * 1000)	/* that somebody is kept waiting */

static bool take_token(HxReader *reader, HxToken *token);
static bool take_quota(HxReader *reader, ReaderPage *page, bool ahead);
static void start_transfer(HxReader *reader, ReaderPage *page, const HxToken *token);
static bool judge_head(HxReader *reader, ReaderPage *page, int status);
static bool read_content_range(const char *header, const char *unit, int64 *first, int64 *last, int64 *total);
static PageState cut_record(HxReader *reader, ReaderPage *page, HxRecord *record);
static bool next_chunk(HxReader *reader, ReaderPage *page);
static PageState judge_record(HxReader *reader, ReaderPage *page, HxRecord *record);
static PageState judge_end(HxReader *reader, ReaderPage *page);
static PageState judge_failure(HxReader *reader, ReaderPage *page);
static bool asks_for_pause(const HxHttpResult *result);
static bool pause_is_too_long(const HxReader *reader, const HxHttpResult *result);
static bool may_repeat(const HxReader *reader, const HxHttpResult *result);
HX_NORETURN static void report_failure(HxReader *reader, ReaderPage *page, const HxHttpResult *result);
static void ask_again(HxReader *reader, ReaderPage *page);
HX_NORETURN static void bad_page(const HxReader *reader, const ReaderPage *page, const char *detail);

/* Makes a page of a part that is not asked for yet, the last of its pages. */
ReaderPage *
hx_reader_page_make(HxReader *reader, ReaderPart *part, int64 from, int64 till, PageBegin begin)
{
	MemoryContext cxt = AllocSetContextCreate(part->cxt, "hubex page", ALLOCSET_SMALL_SIZES);
	ReaderPage *page = MemoryContextAllocZero(cxt, sizeof(ReaderPage));

	page->cxt = cxt;
	page->part = part;
	page->from = from;
	page->till = till;
	page->begin = begin;
	dlist_push_tail(&part->pages, &page->node);
	return page;
}

/* Forgets a page; what is still to come of it is cut off. */
void
hx_reader_page_release(HxReader *reader, ReaderPage *page)
{
	if (page->transfer != NULL)
		reader->in_flight--;
	dlist_delete(&page->node);
	MemoryContextDelete(page->cxt);
	reader->chunk_len = reader->chunk_used = 0;
}

/*
 * Asks for a page, if token and quota are there; else what it waits for is
 * noted for hx_reader_drive().  One that is asked for ahead of its time never
 * costs an error.
 */
bool
hx_reader_page_send(HxReader *reader, ReaderPage *page, bool ahead)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at = ahead ? Max(page->not_before, reader->ahead_at) : page->not_before;
	HxToken		token = {0, NULL};
	bool		sent;

	if (at > now)
	{
		hx_reader_block(reader, at);
		return false;
	}
	if (reader->signs_in && !take_token(reader, &token))
		return false;
	sent = hx_reader_may_ask(reader, ahead) && take_quota(reader, page, ahead);
	if (sent)
		start_transfer(reader, page, &token);
	if (token.text != NULL)
	{
		explicit_bzero(token.text, strlen(token.text));
		pfree(token.text);
	}
	return sent;
}

/* Takes the account's token; signs in where nobody does. */
static bool
take_token(HxReader *reader, HxToken *token)
{
	const HxAccount *account = reader->order.account;

	for (;;)
	{
		if (reader->sign_in != NULL && hx_sign_in_step(reader->sign_in))
		{
			HxSignIn   *sign_in = reader->sign_in;

			reader->sign_in = NULL;
			reader->stats.requests++;
			hx_sign_in_end(sign_in);
		}
		switch (hx_token_take(account->key, token))
		{
			case HX_TOKEN_READY:
				return true;
			case HX_TOKEN_SIGN_IN:
				reader->sign_in = hx_sign_in_begin(account, reader->order.priority);
				break;
			case HX_TOKEN_WAIT:
				/* another reader of this process may be the one that signs in */
				hx_sign_in_step_all();
				hx_reader_block(reader, GetCurrentTimestamp() + HX_TOKEN_POLL_MS * INT64CONST(1000));
				return false;
		}
	}
}

static bool
take_quota(HxReader *reader, ReaderPage *page, bool ahead)
{
	const HxAccount *account = reader->order.account;
	TimestampTz now = GetCurrentTimestamp();
	int64		wait_us;

	if (ahead)
		wait_us = hx_limiter_take(account->key, &account->rate, now, reader->order.priority);
	else
		wait_us = hx_call_permit(account, reader->order.priority,
								 page->throttled_since != 0 ? page->throttled_since : now);
	if (wait_us <= 0)
	{
		if (page->throttled_since != 0)
			reader->stats.throttled_us += now - page->throttled_since;
		page->throttled_since = 0;
		return true;
	}
	if (ahead)
		reader->ahead_at = now + wait_us;
	else if (page->throttled_since == 0)
		page->throttled_since = now;
	hx_reader_block(reader, now + wait_us);
	return false;
}

static void
start_transfer(HxReader *reader, ReaderPage *page, const HxToken *token)
{
	const HxReadOrder *order = &reader->order;
	const HxReadPart *part = page->part->order;
	MemoryContext request_cxt = AllocSetContextCreate(page->cxt, "hubex page request", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(request_cxt);
	HxCall		call = {.method = reader->counting ? "HEAD" : "GET",.path = part->path};
	HxHttpRequest *request;
	HxPair		range = {"Range", NULL};

	call.query = part->query;
	if (part->one == NULL && !reader->counting)
		call.query = list_concat_copy(call.query, order->order != NIL ? order->order : order->resource->order);
	if (page->part->paged)
	{
		range.value = psprintf("%s=" INT64_FORMAT "-" INT64_FORMAT, reader->unit, page->from, page->till);
		call.headers = list_make1(&range);
	}
	request = hx_call_request(order->account, &call, token->text);
	request->stream = true;
	request->cxt = page->cxt;
	page->sent_at = GetCurrentTimestamp();
	page->transfer = hx_http_start(hx_http_streams(), request, NULL);
	page->token_version = token->version;
	page->number = ++reader->numbers;
	page->tries++;
	reader->in_flight++;
	reader->stats.requests++;
	if (order->budget != NULL)
		order->budget->requests++;

	/* it holds the token */
	MemoryContextSwitchTo(old);
	MemoryContextDelete(request_cxt);
}

/* Gives the next record of a page, or says what else there is to be done. */
PageState
hx_reader_page_next(HxReader *reader, ReaderPage *page, HxRecord *record)
{
	int			status;

	if (page->transfer == NULL && !hx_reader_page_send(reader, page, false))
		return PAGE_WAITS;
	if (!page->headed)
	{
		if (!hx_http_head(page->transfer, &status) || status < 200 || status > 299)
			return hx_http_ended(page->transfer) ? judge_failure(reader, page) : PAGE_WAITS;

		/* where the head is all there is, the connection is waited for */
		if ((reader->counting || status == 204) && !hx_http_ended(page->transfer))
			return PAGE_WAITS;
		if (!judge_head(reader, page, status))
			return page->part->resumed ? PAGE_GAP : PAGE_USED_UP;
	}
	return cut_record(reader, page, record);
}

/*
 * Reads the head of a success: which records the body holds.  False where
 * there is no body to read.
 */
static bool
judge_head(HxReader *reader, ReaderPage *page, int status)
{
	ReaderPart *part = page->part;
	MemoryContext old = MemoryContextSwitchTo(page->cxt);
	char	   *header = hx_http_arrived_header(page->transfer, "content-range");
	int64		first;
	int64		last;
	int64		total;
	size_t		used;
	HxRecord	none;

	page->headed = true;
	reader->stats.pages++;
	if (status == 204 && !reader->counting && part->order->one == NULL && !reader->order.resource->no_content)
		bad_page(reader, page, "No content, where an empty list would be one without records.");
	if (status == 204 && part->total > 0)
		bad_page(reader, page, "No content where the page before announced more.");
	if (header == NULL && reader->counting)
		bad_page(reader, page, "The answer has no Content-Range, which would tell the number of records.");
	if (status == 204 || part->order->one != NULL)
	{
		page->empty = status == 204;
		page->last = page->total = page->empty ? 0 : reader->origin;

		/* nothing there where an earlier reader was is not nothing at all */
		if (part->resumed)
			page->last = page->total = page->from - 1;
	}
	else if (header == NULL)
	{
		if (status == 206 || part->total >= 0)
			bad_page(reader, page, "The answer has no Content-Range, so it may be cut off.");
		page->whole_list = true;
		if (part->resumed)
		{
			hx_reader_begin_anew(reader, part);
			page->begin = PAGE_FREE;
		}
	}
	else if (!read_content_range(header, reader->unit, &first, &last, &total))
		bad_page(reader, page, psprintf("Content-Range \"%s\" cannot be read.", header));
	else if (reader->counting)
	{
		page->total = total;
		reader->counted += Max(total - reader->order.skip, 0);
	}
	else if (total < page->from)
	{
		page->empty = true;
		page->last = page->from - 1;
		page->total = total;
	}
	else if (first != page->from || last < first || last > total || last > page->till)
		bad_page(reader, page, psprintf("Content-Range \"%s\" does not fit what was asked for, records from " INT64_FORMAT " on.",
										header, page->from));
	else if (!part->paged && last < total)
		bad_page(reader, page, psprintf("Content-Range \"%s\" says that it is only a part.", header));
	else
	{
		page->last = last;
		page->total = total;
	}

	if (!page->whole_list && (status != 204 || !part->resumed))
		hx_reader_headed(reader, page);
	if (status != 204 && !reader->counting)
	{
		/* a record alone is made an array of one, so that it is looked at like any */
		page->cutter = hx_page_begin(part->order->one == NULL && reader->order.resource->by_key);
		if (part->order->one != NULL)
			(void) hx_page_cut(page->cutter, "[", 1, &used, &none);
	}
	MemoryContextSwitchTo(old);
	return page->cutter != NULL;
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
	return a >= 0 && b >= 0 && t >= 0;
}

static PageState
cut_record(HxReader *reader, ReaderPage *page, HxRecord *record)
{
	for (;;)
	{
		PageState	state;
		size_t		used;

		if (reader->chunk_used == reader->chunk_len && !next_chunk(reader, page))
		{
			if (!hx_http_ended(page->transfer))
				return PAGE_WAITS;
			if (hx_http_result(page->transfer)->fault != HX_HTTP_OK)
				return judge_failure(reader, page);
			return judge_end(reader, page);
		}
		switch (hx_page_cut(page->cutter, reader->chunk + reader->chunk_used,
							reader->chunk_len - reader->chunk_used, &used, record))
		{
			case HX_CUT_RECORD:
				reader->chunk_used += used;
				page->cut++;
				state = judge_record(reader, page, record);
				if (state != PAGE_WAITS)
					return state;
				break;
			case HX_CUT_MORE:
			case HX_CUT_END:
				reader->chunk_used = reader->chunk_len;
				break;
			case HX_CUT_BAD:
				bad_page(reader, page, psprintf("The body is not what it should be: %s.", hx_page_problem(page->cutter)));
			case HX_CUT_LIMIT:
				ereport(ERROR,
						(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						 errmsg("unusable page of resource \"%s\" from server \"%s\"",
								reader->order.resource->name, reader->order.account->server),
						 errdetail("Record " INT64_FORMAT " of page " INT64_FORMAT ": %s.",
								   page->cut + 1, reader->stats.pages, hx_page_problem(page->cutter))));
		}
	}
}

/* Takes what has arrived of a page.  The records in hand are no longer good. */
static bool
next_chunk(HxReader *reader, ReaderPage *page)
{
	const char *bytes;
	size_t		len;

	/* meanwhile the other pages arrive, too */
	hx_reader_drive(reader, 0);
	reader->chunk_len = reader->chunk_used = 0;
	if (reader->chunk == NULL)
		reader->chunk = MemoryContextAlloc(reader->cxt, CHUNK_SIZE);
	if (!hx_http_arrived(page->transfer, &bytes, &len))
	{
		/* the bracket that judge_head() opened */
		if (page->part->order->one == NULL || page->closed || !hx_http_ended(page->transfer) ||
			hx_http_result(page->transfer)->fault != HX_HTTP_OK)
			return false;
		page->closed = true;
		reader->chunk[0] = ']';
		reader->chunk_len = 1;
		return true;
	}
	len = Min(len, CHUNK_SIZE);
	memcpy(reader->chunk, bytes, len);
	reader->chunk_len = len;
	hx_http_take(page->transfer, len);
	reader->stats.bytes += len;
	reader->left_alone = false;
	return true;
}

/* The id that stands in a record; false where none does. */
static bool
find_id(HxReader *reader, const HxRecord *record, HxFound *id)
{
	if (*record->bytes != '{')
		return false;
	if (reader->id_finder == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(reader->cxt);
		const char *path = "id";

		reader->id_finder = hx_finder_make(1, &path);
		MemoryContextSwitchTo(old);
	}
	return hx_finder_find(reader->id_finder, record, id) && id->kind != HX_FOUND_NOTHING;
}

/*
 * What a record is known by: its key, else its id, else all that it says.  The
 * first two as the record's column shows them, good as long as the page.
 */
static void
identify(HxReader *reader, const ReaderPage *page, const HxRecord *record, const char **key, size_t *len)
{
	HxFound		id;

	if (record->key != NULL)
	{
		*key = record->key;
		*len = strlen(record->key);
	}
	else if (find_id(reader, record, &id))
	{
		*key = id.bytes;
		*len = id.len;
		if (id.escaped || (id.kind == HX_FOUND_TEXT && GetDatabaseEncoding() != PG_UTF8))
		{
			MemoryContext old = MemoryContextSwitchTo(page->cxt);
			bool		replaced = false;
			size_t		text_len;
			char	   *text = hx_found_text(&id, &text_len, &replaced);

			/* what this database cannot show may be the same of two */
			if (!replaced)
			{
				*key = text;
				*len = text_len;
			}
			MemoryContextSwitchTo(old);
		}
	}
	else
	{
		*key = record->bytes;
		*len = record->len;
	}
}

/* Is a record that was asked for by its id the one?  One that does not say its id is believed, unless it says nothing. */
static void
check_one(HxReader *reader, const ReaderPage *page, const HxRecord *record)
{
	MemoryContext old = MemoryContextSwitchTo(page->cxt);
	HxFound		id;
	bool		replaced;
	size_t		len;

	if (find_id(reader, record, &id))
	{
		if (strcmp(hx_found_text(&id, &len, &replaced), page->part->order->one) != 0)
			bad_page(reader, page, "It is not the record that was asked for.");
	}
	else if (JB_ROOT_COUNT(hx_json_parse(record->bytes, record->len)) == 0)
		bad_page(reader, page, "The record is empty.");
	MemoryContextSwitchTo(old);
}

/*
 * Is a record one to be given?  PAGE_RECORD: yes; PAGE_WAITS: no, to the next
 * one; PAGE_GAP: there is something between it and the last one given.
 */
static PageState
judge_record(HxReader *reader, ReaderPage *page, HxRecord *record)
{
	ReaderPart *part = page->part;
	const char *key;
	size_t		len;
	int64		seen;

	if (!reader->plain && *record->bytes != '{')
		bad_page(reader, page, "A record is not an object.");
	if (page->whole_list && page->cut >= reader->most_unpaged)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the list of resource \"%s\" of server \"%s\" may be cut off",
						reader->order.resource->name, reader->order.account->server),
				 errdetail("It came without pages and has " INT64_FORMAT " records or more.", reader->most_unpaged),
				 errhint("Narrow the query by what the API can filter for.")));

	record->parent = part->order->parent;
	record->part = part->index;
	if (part->order->one != NULL)
	{
		check_one(reader, page, record);
		record->key = part->order->one;
	}
	else
	{
		/* it begins where the list does, whatever was asked for */
		if ((page->whole_list || !part->paged) && page->cut <= reader->order.skip)
			return PAGE_WAITS;

		/* in an array without ids two may be the same */
		identify(reader, page, record, &key, &len);
		reader->key = key;
		reader->key_len = len;
		seen = hx_window_find(part->window, key, len);
		if (seen >= 0 && (seen != page->number || key != record->bytes))
		{
			page->begin = PAGE_FREE;
			part->resumed = false;
			return PAGE_WAITS;
		}
		if (page->begin == PAGE_ANCHORED)
			return PAGE_GAP;
		if (page->begin == PAGE_SEARCHED)
			return PAGE_WAITS;
		if (seen < 0)
			hx_window_add(part->window, key, len, page->number);
	}
	hx_http_hide_secrets(page->transfer, unconstify(char *, record->bytes), record->len);
	return PAGE_RECORD;
}

/* The body is here: was it all that the head promised? */
static PageState
judge_end(HxReader *reader, ReaderPage *page)
{
	int64		promised = page->empty ? 0 : page->last - page->from + 1;

	if (hx_page_finish(page->cutter) != HX_CUT_END)
		bad_page(reader, page, psprintf("The body is not what it should be: %s.", hx_page_problem(page->cutter)));
	if (page->part->order->one != NULL && page->cut != 1)
		bad_page(reader, page, "The body is not one record.");
	if (page->part->order->one != NULL)
		promised = 1;
	else if (page->whole_list)
	{
		promised = page->cut;
		page->last = page->total = reader->origin - 1 + page->cut;
		hx_reader_headed(reader, page);
	}
	if (page->cut != promised)
		bad_page(reader, page, psprintf("Its Content-Range does not fit a body of " INT64_FORMAT " records.", page->cut));
	if (page->begin == PAGE_FREE || (page->total == 0 && !page->part->resumed))
		return PAGE_USED_UP;
	return PAGE_GAP;
}

/*
 * A page could not be had, or not to its end.  What may pass is asked for
 * again; all else is an error.
 */
static PageState
judge_failure(HxReader *reader, ReaderPage *page)
{
	const HxHttpResult *result = hx_http_result(page->transfer);

	if (result->outcome == HX_HTTP_ANSWERED && result->status == 404 && page->part->order->one != NULL &&
		!reader->counting)
	{
		page->empty = true;
		return PAGE_USED_UP;
	}
	if (hx_reader_page_mend(reader, page))
		return PAGE_WAITS;
	if (pause_is_too_long(reader, result))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("server \"%s\" allows no more requests for now", reader->order.account->server),
				 errdetail("It answered with status %d and asks to wait for " INT64_FORMAT " s.",
						   result->status, (result->retry_after_ms + 999) / 1000)));
	report_failure(reader, page, result);
}

/*
 * Makes a page that failed one that is to be sent again.  False where that
 * would not help, or did not.
 */
bool
hx_reader_page_mend(HxReader *reader, ReaderPage *page)
{
	const HxAccount *account = reader->order.account;
	const HxHttpResult *result = hx_http_result(page->transfer);
	bool		answered = result->outcome == HX_HTTP_ANSWERED;
	int64		wait_ms;

	if (answered && result->status == 401 && reader->signs_in && !page->renewed)
	{
		hx_token_refuse(account->key, page->token_version);
		page->renewed = true;
		page->tries--;
		ask_again(reader, page);
		return true;
	}

	/* a connection that nobody read from may be closed by right */
	if (!answered && result->fault == HX_HTTP_CLOSED && reader->left_alone)
		page->tries = 0;

	/* a quota that others have used up is no failure where nobody waits */
	if (asks_for_pause(result) && result->status == 429 && reader->order.priority >= HX_PRIORITY_SYNC)
		page->tries--;
	if (!may_repeat(reader, result) || page->tries >= HX_READ_TRIES || pause_is_too_long(reader, result))
		return false;
	if (asks_for_pause(result))
		hx_limiter_pause(account->key, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), result->retry_after_ms));
	wait_ms = hx_retry_wait_ms(&account->retry, Max(page->tries, 1), result->retry_after_ms,
							   pg_prng_double(&pg_global_prng_state));
	page->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	reader->stats.retries++;
	ask_again(reader, page);
	return true;
}

/* Does an answer say how long nothing is to be asked? */
static bool
asks_for_pause(const HxHttpResult *result)
{
	return result->outcome == HX_HTTP_ANSWERED && (result->status == 429 || result->status == 503) &&
		result->retry_after_ms > 0;
}

/* Does it say so to one for whom somebody waits, who will hear of it instead? */
static bool
pause_is_too_long(const HxReader *reader, const HxHttpResult *result)
{
	return asks_for_pause(result) && result->retry_after_ms > RETRY_AFTER_MOST_MS &&
		reader->order.priority < HX_PRIORITY_SYNC;
}

static bool
may_repeat(const HxReader *reader, const HxHttpResult *result)
{
	if (result->outcome != HX_HTTP_ANSWERED)
		return result->fault == HX_HTTP_CLOSED;
	return result->status == 429 ||
		(result->status >= 500 && !hx_retry_is_final(reader->order.account->manifest, result->status));
}

/* Says which request it was that failed. */
static void
add_request_context(void *arg)
{
	const ReaderPage *page = arg;

	errcontext("request of %s", page->part->order->path);
}

static void
report_failure(HxReader *reader, ReaderPage *page, const HxHttpResult *result)
{
	ErrorContextCallback context = {.callback = add_request_context,.arg = page,.previous = error_context_stack};
	Jsonb	   *body = NULL;
	char	   *problem;

	error_context_stack = &context;

	if (result->body_len > 0)
		body = hx_json_try_parse(result->body, result->body_len, &problem);
	hx_http_report(ERROR, result, hx_call_problem(reader->order.account, result, body));
	pg_unreachable();
}

/* Makes a page one that is to be sent again, for what was not given of it. */
static void
ask_again(HxReader *reader, ReaderPage *page)
{
	int64		overlap = hx_reader_overlap(reader);

	hx_http_release(page->transfer);
	page->transfer = NULL;
	reader->in_flight--;
	reader->chunk_len = reader->chunk_used = 0;

	/* a page that was not searched through to a record that is known is useless */
	if (page->part->paged && !page->whole_list && page->begin == PAGE_FREE && page->cut > 0)
	{
		int64		back = Min(overlap, page->cut);

		page->from += page->cut - back;
		if (page->from > page->till)
			page->from = page->till;
		if (back > 0)
			page->begin = PAGE_ANCHORED;
	}
	page->cut = 0;
	page->cutter = NULL;
	page->headed = page->whole_list = page->empty = page->closed = false;

	/* at once, where there is nothing to wait for */
	hx_reader_block(reader, Max(page->not_before, 1));
}

static void
bad_page(const HxReader *reader, const ReaderPage *page, const char *detail)
{
	CHECK_FOR_INTERRUPTS();
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unusable page of resource \"%s\" from server \"%s\"",
					reader->order.resource->name, reader->order.account->server),
			 errdetail("Page " INT64_FORMAT ": %s", reader->stats.pages, detail)));
}
