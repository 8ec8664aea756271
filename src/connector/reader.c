/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  Records of a list, as they arrive: what is asked for, and when.
 *
 * Requests are what is scarce: sixty a minute.  So a reader asks for no record
 * that is not wanted, and for a page only when the one before is used up;
 * unless everything will be read anyway.  Then pages, and the parts behind,
 * are asked for ahead, side by side, as far as connections and quota are there
 * at once.  They are given in their order all the same, each held back by its
 * window until it is its turn, so that memory does not grow with the list.
 *
 * How pages are put together.  The list may change while it is read.  Where a
 * record is removed, those behind move up, and a page that is asked for by
 * position would miss some; where one is added before, they move down, and
 * some would come twice.  So each page begins some records before the last one
 * ended, and has to begin with one that was given: that is the proof that
 * nothing was missed.  What was given already is not given again.  Where the
 * proof fails, pages are asked for anew from further back, as far as needed.
 * What that promises is for records that are there all the time; one that
 * comes, goes or moves meanwhile may be given or not.
 *
 * Going on where an earlier reader ended.  That one's place is given by a
 * position and by the keys of the records given last.  The first page begins
 * before the position, and what it has before the last of those that is there
 * does not count.  It is the same proof: an order that is stable has behind a
 * record that was given, and those given with it, just what was not.  Where
 * the page has none of them, they are looked for before and behind it; where
 * they are not found, all of them may be gone, and the list is read from its
 * start.  So is one that comes without pages, whose order says nothing.  Only
 * then do records come again.
 *
 * Nothing here waits but hx_reader_next() when told to, and hx_reader_wait().
 * Nothing here needs a transaction, if the encoding of the client is UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "connector/reader_internal.h"

#define OVERLAP_MOST		10
#define OVERLAP_SHARE		100	/* a page has one record of overlap for so many */
#define STEPS_BACK_MOST		5
#define SEARCH_LEAST		6		/* pages */
#define UNPAGED_MOST		10000
#define LEFT_ALONE_US		(10 * USECS_PER_SEC)

/* The readers of this process; each leaves with its memory. */
static dlist_head readers = DLIST_STATIC_INIT(readers);

static void reader_release(void *arg);
static HxReadState try_next(HxReader *reader, HxRecord *record);
static ReaderPart *begin_part(HxReader *reader);
static void go_on(HxReader *reader, ReaderPart *part, int64 from, int64 size);
static void end_part(HxReader *reader, ReaderPart *part);
static void used_up(HxReader *reader, ReaderPage *page);
static bool reads_on_for_total(HxReader *reader);
static void look_elsewhere(HxReader *reader, ReaderPage *page);
static void step_back(HxReader *reader, ReaderPage *page);
static void drop_pages(HxReader *reader, ReaderPart *part, ReaderPage *but);
static void ask_ahead(HxReader *reader);
static void mend_ahead(HxReader *reader, const ReaderPage *wanted);
static bool failed(const ReaderPage *page);
static ReaderPage *page_ahead(HxReader *reader);
static void check_budget(HxReader *reader, const ReaderPart *part);
HX_NORETURN static void over_budget(const HxReader *reader, int64 needed);

/* Begins to read; nothing is asked for before the first record is. */
HxReader *
hx_reader_begin(const HxReadOrder *order)
{
	const HxAccount *account = order->account;
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "hubex reader", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	HxReader   *reader = palloc0(sizeof(HxReader));

	Assert((order->skip == 0 && order->known == NIL) || list_length(order->parts) == 1);
	reader->cxt = cxt;
	reader->order = *order;
	reader->signs_in = hx_sign_in_needed(account);
	for (int i = 0; i < order->resource->ncolumns; i++)
		reader->plain = reader->plain || strcmp(order->resource->columns[i].path, HX_PATH_VALUE) == 0;
	reader->unit = hx_json_text(account->manifest, "paging.unit");
	if (reader->unit == NULL)
		reader->unit = "items";
	reader->origin = hx_json_int(account->manifest, "paging.first", 1);
	reader->page_size = Max(account->page_size, 1);
	reader->most_unpaged = hx_json_int(account->manifest, "limits.unpaged", UNPAGED_MOST);
	reader->most_in_flight = account->max_connections > 0 ?
		Min(account->max_connections, HX_HTTP_MAX_CONNECTIONS) : HX_HTTP_MAX_CONNECTIONS;
	reader->total = -1;
	dlist_init(&reader->parts);
	dlist_push_tail(&readers, &reader->node);
	reader->callback.func = reader_release;
	reader->callback.arg = reader;
	MemoryContextRegisterResetCallback(cxt, &reader->callback);
	MemoryContextSwitchTo(old);
	return reader;
}

static void
reader_release(void *arg)
{
	HxReader   *reader = arg;

	dlist_delete(&reader->node);
}

/* Ends a reader, its requests too; it ends with its memory anyway. */
void
hx_reader_end(HxReader *reader)
{
	MemoryContextDelete(reader->cxt);
}

/*
 * What the record that was given last is known by, palloc'd: what "known" takes.
 * NULL for one that was asked for by its id.
 */
char *
hx_reader_key(const HxReader *reader)
{
	return reader->key != NULL ? pnstrdup(reader->key, reader->key_len) : NULL;
}

/* The number of records that the remote side counts in the part at hand; -1: none said yet. */
int64
hx_reader_total(const HxReader *reader)
{
	return reader->total;
}

/*
 * Where the record given last was: how many records of the list lie up to and
 * including it, as the remote side counted them when it gave its page; and when
 * that page was asked for, by the request that brought it.  An order that has
 * *position as "skip" goes on behind it.
 */
void
hx_reader_place(const HxReader *reader, int64 *position, TimestampTz *asked_at)
{
	*position = reader->position;
	*asked_at = reader->asked_at;
}

const HxReadStats *
hx_reader_stats(const HxReader *reader)
{
	return &reader->stats;
}

/* Adds what one reading cost to what others have. */
void
hx_reader_add_stats(HxReadStats *sum, const HxReadStats *more)
{
	sum->requests += more->requests;
	sum->pages += more->pages;
	sum->bytes += more->bytes;
	sum->retries += more->retries;
	sum->throttled_us += more->throttled_us;
	sum->records += more->records;
}

/*
 * Gives the next record, good until the next call for this reader.  Told not
 * to wait it does what can be done at once, and may answer HX_READ_WAIT.
 */
HxReadState
hx_reader_next(HxReader *reader, bool wait, HxRecord *record)
{
	MemoryContext old = MemoryContextSwitchTo(reader->cxt);
	HxReadState state;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		reader->wake_at = 0;
		state = try_next(reader, record);
		if (state != HX_READ_WAIT)
			break;
		ask_ahead(reader);
		if (wait)
			hx_reader_drive(reader, -1);
		else if (!hx_reader_drive(reader, 0))
			break;
	}
	if (state != HX_READ_WAIT)
		reader->wake_at = 0;
	MemoryContextSwitchTo(old);
	return state;
}

/*
 * Waits once until one of this process's readers that had to wait may go on,
 * at most so long (-1: no end).  Returns early for whatever sets the latch,
 * which is reset: who has other wishes looks after them after each call, and
 * then asks each reader again.  Throws for interrupts.
 */
void
hx_reader_wait(long timeout_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;

	dlist_foreach(iter, &readers)
	{
		HxReader   *reader = dlist_container(HxReader, node, iter.cur);
		long		wait_ms;

		if (reader->wake_at == 0)
			continue;
		wait_ms = TimestampDifferenceMilliseconds(now, reader->wake_at);
		if (timeout_ms < 0 || wait_ms < timeout_ms)
			timeout_ms = wait_ms;

		/* once is enough: it may be that nobody asks it any more */
		if (reader->wake_at <= now)
			reader->wake_at = 0;
	}
	(void) hx_http_streams_wait(timeout_ms);
}

/* Something cannot go on before that time. */
void
hx_reader_block(HxReader *reader, TimestampTz until)
{
	if (reader->wake_at == 0 || until < reader->wake_at)
		reader->wake_at = until;
}

/*
 * Lets all transfers go on, and waits for that up to the time given (-1: no
 * end but that of what is blocked).  Tells whether anything happened.
 */
bool
hx_reader_drive(HxReader *reader, long timeout_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		happened;

	if (reader->driven_at != 0 && now - reader->driven_at > LEFT_ALONE_US)
		reader->left_alone = true;
	if (timeout_ms < 0 && reader->wake_at != 0)
		timeout_ms = TimestampDifferenceMilliseconds(now, reader->wake_at);
	happened = hx_http_streams_wait(timeout_ms);
	reader->driven_at = GetCurrentTimestamp();

	/* a token that is renewed ahead of its end is not waited for */
	if (reader->sign_in != NULL)
		(void) hx_sign_in_step(reader->sign_in);
	if (timeout_ms == 0)
		ask_ahead(reader);
	return happened;
}

/* One attempt at a record; HX_READ_WAIT: something has to happen first. */
static HxReadState
try_next(HxReader *reader, HxRecord *record)
{
	while (!reader->ended)
	{
		ReaderPart *part;
		ReaderPage *page;
		bool		enough = reader->order.most >= 0 && reader->stats.records >= reader->order.most && !reader->counting;

		if (enough && !reads_on_for_total(reader))
			break;
		if (dlist_is_empty(&reader->parts) && begin_part(reader) == NULL)
			break;
		part = dlist_head_element(ReaderPart, node, &reader->parts);
		page = dlist_head_element(ReaderPage, node, &part->pages);
		switch (hx_reader_page_next(reader, page, record))
		{
			case PAGE_RECORD:
				if (enough)
					break;
				reader->stats.records++;
				reader->position = page->cut;
				if (part->paged && !page->whole_list)
					reader->position += page->from - reader->origin;
				reader->asked_at = page->sent_at;
				return HX_READ_RECORD;
			case PAGE_WAITS:
				return HX_READ_WAIT;
			case PAGE_USED_UP:
				used_up(reader, page);
				break;
			case PAGE_GAP:
				if (part->resumed)
					look_elsewhere(reader, page);
				else if (page->empty && page->total <= part->said_to_end)
					end_part(reader, part);
				else
					step_back(reader, page);
				break;
		}
	}

	/* what is still under way will not be read */
	reader->ended = true;
	while (!dlist_is_empty(&reader->parts))
		end_part(reader, dlist_head_element(ReaderPart, node, &reader->parts));
	return HX_READ_END;
}

/* Is a page being read that will say only at its end how many records there are, and is that wanted? */
static bool
reads_on_for_total(HxReader *reader)
{
	ReaderPart *part;

	if (!reader->order.total || reader->total >= 0 || dlist_is_empty(&reader->parts))
		return false;
	part = dlist_head_element(ReaderPart, node, &reader->parts);
	return dlist_head_element(ReaderPage, node, &part->pages)->whole_list;
}

/* Begins the next part with its first page, which is not asked for yet; NULL: there is none. */
static ReaderPart *
begin_part(HxReader *reader)
{
	const HxReadOrder *order = &reader->order;
	MemoryContext cxt;
	ReaderPart *part;
	int64		from;
	int64		size = reader->page_size;

	if (reader->next_part >= list_length(order->parts))
		return NULL;
	if (reader->next_part == 0)
		check_budget(reader, NULL);
	cxt = AllocSetContextCreate(reader->cxt, "hubex part of a list", ALLOCSET_SMALL_SIZES);
	part = MemoryContextAllocZero(cxt, sizeof(ReaderPart));
	part->cxt = cxt;
	part->index = reader->next_part;
	part->order = list_nth(order->parts, reader->next_part++);
	part->paged = order->resource->paged && part->order->one == NULL && !reader->counting;
	part->total = -1;
	dlist_init(&part->pages);
	if (part->order->one == NULL && !reader->counting)
		part->window = hx_window_make(cxt, part->paged ? size : reader->most_unpaged);

	/* no page is longer than what is still wanted */
	from = reader->origin + (part->paged ? order->skip : 0);
	if (order->most >= 0 && !reader->counting)
		size = Min(size, order->most - reader->stats.records);
	if (order->known != NIL)
		go_on(reader, part, from, size);
	else
		(void) hx_reader_page_make(reader, part, from, from + size - 1, PAGE_FREE);
	dlist_push_tail(&reader->parts, &part->node);
	return part;
}

/* Begins a part where an earlier reader ended: its first page overlaps with what that one gave. */
static void
go_on(HxReader *reader, ReaderPart *part, int64 from, int64 size)
{
	int64		back = Min(hx_reader_overlap(reader), Min(list_length(reader->order.known), from - reader->origin));
	ListCell   *cell;

	/* from here on it is no more than a place in the list, which may turn out to be another one */
	reader->order.skip = 0;
	part->resumed = part->paged && back > 0;
	if (!part->resumed)
		from = reader->origin;
	else
	{
		foreach(cell, reader->order.known)
			hx_window_add_earlier(part->window, lfirst(cell));
		part->doubted = true;
		part->search_most = Max((from - reader->origin) / reader->page_size, SEARCH_LEAST);
		from -= back;
		size = Min(size + back, reader->page_size);
	}
	(void) hx_reader_page_make(reader, part, from, from + size - 1, part->resumed ? PAGE_SEARCHED : PAGE_FREE);
}

/* Where an earlier reader ended is not to be found, or says nothing: all of the list is to be given. */
void
hx_reader_begin_anew(HxReader *reader, ReaderPart *part)
{
	part->resumed = false;
	part->steps_back = part->search_from = part->search_till = 0;
	part->window = hx_window_make(part->cxt, reader->page_size);
}

static void
end_part(HxReader *reader, ReaderPart *part)
{
	drop_pages(reader, part, NULL);
	dlist_delete(&part->node);
	MemoryContextDelete(part->cxt);
}

/* How many records of a page are those of the one before. */
int64
hx_reader_overlap(const HxReader *reader)
{
	if (reader->page_size <= 1)
		return 0;
	return Max(1, Min(OVERLAP_MOST, reader->page_size / OVERLAP_SHARE));
}

/*
 * A page has said which records it holds, and how many there are.  If there
 * are fewer than could be, the API has a limit of its own: what was asked for
 * behind this page is asked for anew, in pages of that size.
 */
void
hx_reader_headed(HxReader *reader, ReaderPage *page)
{
	ReaderPart *part = page->part;
	bool		first = part->total < 0;

	part->total = reader->total = page->total;
	part->largest_total = Max(part->largest_total, page->total);
	if (!part->paged || page->whole_list || page->empty)
		return;
	if (page->last < Min(page->till, page->total))
	{
		reader->page_size = page->last - page->from + 1;
		drop_pages(reader, part, page);
	}
	if (!dlist_has_next(&part->pages, &page->node))
		part->next = page->last + 1;
	if (first)
		check_budget(reader, part);
}

/* Makes the page that has a part's next record, if there is one up to the end. */
static ReaderPage *
next_page(HxReader *reader, ReaderPart *part, int64 end)
{
	int64		from = Max(part->next - hx_reader_overlap(reader), reader->origin + reader->order.skip);
	int64		till = from + reader->page_size - 1;
	ReaderPage *page;

	if (!part->paged || part->next == 0 || part->next > end)
		return NULL;

	/* while the place is looked for, nobody knows where it is */
	page = dlist_tail_element(ReaderPage, node, &part->pages);
	if (page->begin == PAGE_SEARCHED)
		return NULL;
	if (reader->order.most >= 0)
		till = Min(till, end);
	page = hx_reader_page_make(reader, part, from, till, from < part->next ? PAGE_ANCHORED : PAGE_FREE);
	part->next = till + 1;
	return page;
}

/* A page was given, and was whole: on to the next one, or the part's end. */
static void
used_up(HxReader *reader, ReaderPage *page)
{
	ReaderPart *part = page->part;
	int64		end = page->total;
	bool		at_end = page->last >= page->total;

	/*
	 * A list that has become shorter is believed to end only when there is
	 * nothing behind its end: it may be that the number alone is wrong.  So it
	 * is where an earlier reader knew another number.
	 */
	if (!part->paged || page->whole_list ||
		(at_end && ((page->total >= part->largest_total && !part->doubted) || page->last <= part->said_to_end)))
	{
		end_part(reader, part);
		return;
	}
	part->doubted = false;
	part->fitting_total = page->total;
	part->steps_back = 0;
	part->said_to_end = at_end ? page->last : 0;
	if (at_end)
		end = page->last + 1;
	if (reader->order.most >= 0)
		end = Min(end, page->last + reader->order.most - reader->stats.records);
	if (!dlist_has_next(&part->pages, &page->node))
	{
		/* where records moved, this page may not have ended where the next was thought to begin */
		part->next = page->last + 1;
		if (next_page(reader, part, end) == NULL)
		{
			end_part(reader, part);
			return;
		}
	}
	hx_reader_page_release(reader, page);
}

/*
 * A page has none of the records that an earlier reader gave last: others were
 * removed before them, or added, or they themselves are gone.  They are looked
 * for on both sides, further and further away, as long as that costs less than
 * to read again what that reader gave; then that is done.
 */
static void
look_elsewhere(HxReader *reader, ReaderPage *page)
{
	ReaderPart *part = page->part;
	int64		from = page->last + 1;
	PageBegin	begin = PAGE_SEARCHED;

	part->searched++;
	if (part->search_from == 0)
	{
		/* this was the first page; where it is behind the end, there is nothing behind it */
		part->low = page->empty ? Min(page->from, page->total + 1) : page->from;
		part->high = page->last;
		part->looks_ahead = true;	/* so the first look is back: more is removed than comes back */
	}
	if (part->search_from == 0 || from > Min(part->search_till, page->total))
	{
		int64		span;

		/* each side once, then both twice as far; at an end of the list only the other */
		part->low = part->search_from > 0 ? Min(part->low, part->search_from) : part->low;
		part->high = Max(part->high, page->last);
		span = reader->page_size << (part->steps_back++ / 2);
		part->looks_ahead = part->low <= reader->origin || (!part->looks_ahead && part->high < page->total);
		if (part->looks_ahead)
		{
			part->search_from = part->high + 1;
			part->search_till = Min(part->high + span, page->total);
		}
		else
		{
			part->search_from = Max(part->low - span, reader->origin);
			part->search_till = part->low - 1;
		}
		from = part->search_from;
	}
	if (part->searched > part->search_most || from > part->search_till)
	{
		hx_reader_begin_anew(reader, part);
		from = reader->origin;
		begin = PAGE_FREE;
	}
	drop_pages(reader, part, NULL);
	(void) hx_reader_page_make(reader, part, from, from + reader->page_size - 1, begin);
}

/*
 * A page does not begin with a record that was given.  So many records as the
 * list has lost meanwhile are those behind moved up by, at most: the place is
 * looked for from there on to where it was.  If it is not there, others were
 * added as well, and it is looked for further and further back.  Only where all
 * that was ever given is known can the whole list be read anew.
 */
static void
step_back(HxReader *reader, ReaderPage *page)
{
	ReaderPart *part = page->part;
	int64		overlap = hx_reader_overlap(reader);
	int64		from = page->last + 1;
	PageBegin	begin = PAGE_SEARCHED;

	if (page->begin != PAGE_SEARCHED || from > Min(part->search_till, page->total))
	{
		if (part->steps_back == 0)
		{
			part->search_till = page->from + overlap - 1;
			from = page->from - Max(part->fitting_total - page->total, overlap);
		}
		else
		{
			part->search_till = part->search_from - 1;
			from = part->search_from - (reader->page_size << part->steps_back);
		}
		if (part->steps_back++ >= STEPS_BACK_MOST || part->search_till < reader->origin)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("resource \"%s\" of server \"%s\" changes faster than it can be read",
							reader->order.resource->name, reader->order.account->server),
					 errhint("Narrow the filter, or try again.")));
		from = Max(from, reader->origin);
		part->search_from = from;
		if (from == reader->origin && hx_window_is_complete(part->window))
			begin = PAGE_FREE;
	}
	drop_pages(reader, part, NULL);
	(void) hx_reader_page_make(reader, part, from, from + reader->page_size - 1, begin);
}

/* Forgets the pages of a part, or those behind one. */
static void
drop_pages(HxReader *reader, ReaderPart *part, ReaderPage *but)
{
	while (!dlist_is_empty(&part->pages))
	{
		ReaderPage *page = dlist_tail_element(ReaderPage, node, &part->pages);

		if (page == but)
			break;
		hx_reader_page_release(reader, page);
	}
}

/* Where everything will be read: asks for what comes later, as far as that costs nobody anything. */
static void
ask_ahead(HxReader *reader)
{
	ReaderPart *part;
	ReaderPage *page;

	if (!reader->order.all || reader->ended || dlist_is_empty(&reader->parts))
		return;

	/* not before what is wanted first */
	part = dlist_head_element(ReaderPart, node, &reader->parts);
	page = dlist_head_element(ReaderPage, node, &part->pages);
	if (page->transfer == NULL)
		return;
	mend_ahead(reader, page);
	while (reader->in_flight < reader->most_in_flight && (page = page_ahead(reader)) != NULL)
	{
		if (!hx_reader_page_send(reader, page, true))
			break;
	}
}

/* What failed is not left lying until it is its turn, as far as it may be sent again. */
static void
mend_ahead(HxReader *reader, const ReaderPage *wanted)
{
	dlist_iter	parts;
	dlist_iter	pages;

	dlist_foreach(parts, &reader->parts)
	{
		ReaderPart *part = dlist_container(ReaderPart, node, parts.cur);

		dlist_foreach(pages, &part->pages)
		{
			ReaderPage *page = dlist_container(ReaderPage, node, pages.cur);

			if (page != wanted && page->transfer != NULL && failed(page))
				(void) hx_reader_page_mend(reader, page);
		}
	}
}

/* Is a page that was asked for one that brought nothing? */
static bool
failed(const ReaderPage *page)
{
	int			status;

	return hx_http_ended(page->transfer) &&
		(!hx_http_head(page->transfer, &status) || status < 200 || status > 299);
}

/* The next page that is not asked for, made if need be. */
static ReaderPage *
page_ahead(HxReader *reader)
{
	dlist_iter	parts;
	dlist_iter	pages;

	dlist_foreach(parts, &reader->parts)
	{
		ReaderPart *part = dlist_container(ReaderPart, node, parts.cur);
		ReaderPage *page;
		int64		end = part->total;

		dlist_foreach(pages, &part->pages)
		{
			page = dlist_container(ReaderPage, node, pages.cur);
			if (page->transfer == NULL)
				return page;
		}
		if (reader->order.most >= 0)
			end = Min(end, reader->origin + reader->order.skip + reader->order.most - 1);
		page = next_page(reader, part, end);
		if (page != NULL)
			return page;
	}
	if (begin_part(reader) == NULL)
		return NULL;
	return dlist_head_element(ReaderPage, node, &dlist_tail_element(ReaderPart, node, &reader->parts)->pages);
}

/*
 * Does the query's budget have a request more?  False where it has none for a
 * page ahead; where it has none for one that is needed, an error.
 */
bool
hx_reader_may_ask(const HxReader *reader, bool ahead)
{
	const HxReadBudget *budget = reader->order.budget;

	if (budget == NULL || budget->most <= 0 || budget->requests < budget->most)
		return true;
	if (!ahead)
		over_budget(reader, 0);
	return false;
}

/* Where everything will be read, it is told before the first row that it is too much. */
static void
check_budget(HxReader *reader, const ReaderPart *part)
{
	const HxReadBudget *budget = reader->order.budget;
	int64		needed = list_length(reader->order.parts) - reader->next_part;

	if (budget == NULL || budget->most <= 0 || !reader->order.all)
		return;
	if (part != NULL && part->next != 0)
	{
		int64		stride = Max(reader->page_size - hx_reader_overlap(reader), 1);
		int64		end = part->total;

		if (reader->order.most >= 0)
			end = Min(end, reader->origin + reader->order.skip + reader->order.most - 1);
		needed += Max(end - part->next + stride, 0) / stride;
	}
	needed += budget->requests;
	if (needed > budget->most)
		over_budget(reader, needed);
}

static void
over_budget(const HxReader *reader, int64 needed)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("query needs more than %d requests", reader->order.budget->most),
			 needed > 0 ?
			 errdetail("Resource \"%s\" of server \"%s\": about " INT64_FORMAT " requests are needed.",
					   reader->order.resource->name, reader->order.account->server, needed) :
			 errdetail("The last was for resource \"%s\" of server \"%s\".",
					   reader->order.resource->name, reader->order.account->server),
			 errhint("Narrow the query by columns that the API can filter by, let ANALYZE tell the planner how large its tables are, "
					 "or raise hubex.max_requests_per_query.")));
}

/*
 * The number of records that an order would give, without reading any: asked
 * for by HEAD, which the API has to know for this list.  What it cost is added
 * to the statistics, where there are any.
 */
int64
hx_reader_count(const HxReadOrder *order, HxReadStats *stats)
{
	HxReader   *reader = hx_reader_begin(order);
	HxRecord	none;
	int64		count;

	reader->counting = true;
	reader->order.all = true;
	(void) hx_reader_next(reader, true, &none);
	count = reader->counted;
	if (order->most >= 0)
		count = Min(count, order->most);
	if (stats != NULL)
		hx_reader_add_stats(stats, &reader->stats);
	hx_reader_end(reader);
	return count;
}
