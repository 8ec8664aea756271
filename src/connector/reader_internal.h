/*-------------------------------------------------------------------------
 *
 * reader_internal.h
 *	  What the files of the reader share.
 *
 *	reader.c			an order: its parts, what is asked for and when
 *	reader_page.c		one page: asked for, judged, cut into records
 *	reader_window.c		which records were given already
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_READER_INTERNAL_H
#define HX_READER_INTERNAL_H

#include "lib/ilist.h"

#include "connector/reader.h"
#include "connector/token.h"

#define HX_READ_TRIES	3		/* of one page */

/* reader_window.c */
typedef struct HxReadWindow HxReadWindow;

extern HxReadWindow *hx_window_make(MemoryContext parent, int64 size);
extern int64 hx_window_find(const HxReadWindow *window, const char *key, size_t len);
extern void hx_window_add(HxReadWindow *window, const char *key, size_t len, int64 page);
extern void hx_window_add_earlier(HxReadWindow *window, const char *key);
extern bool hx_window_is_complete(const HxReadWindow *window);

typedef struct ReaderPart ReaderPart;

/* What has to be true of a page's first records. */
typedef enum PageBegin
{
	PAGE_FREE,					/* nothing */
	PAGE_ANCHORED,				/* the very first was given already */
	PAGE_SEARCHED				/* those before one that was given do not count */
} PageBegin;

/* One request, until what it brought is used up. */
typedef struct ReaderPage
{
	dlist_node	node;			/* of the part's pages, in their order */
	ReaderPart *part;
	MemoryContext cxt;
	int64		number;			/* counts the reader's requests for pages */
	int64		from;			/* first record asked for */
	int64		till;			/* last one; positions are counted as the API does */
	PageBegin	begin;

	/* the request */
	HxTransfer *transfer;		/* NULL: to be sent, maybe again */
	uint64		token_version;
	bool		renewed;		/* the token was, for this page */
	int			tries;
	TimestampTz not_before;		/* it is to be sent; 0: at once */
	TimestampTz throttled_since;	/* it waits for quota; 0: it does not */
	TimestampTz sent_at;		/* the last time */

	/* the answer */
	bool		headed;			/* its head was judged */
	bool		empty;			/* it says that it has no records */
	bool		whole_list;		/* it does not say which it has: all there are */
	int64		last;			/* position of the last record */
	int64		total;
	int64		cut;			/* records cut off so far */
	HxPageCutter *cutter;
	bool		closed;			/* the cutter was given all */
} ReaderPage;

/* A part of the order that was begun. */
struct ReaderPart
{
	dlist_node	node;
	MemoryContext cxt;
	const HxReadPart *order;
	int			index;
	bool		paged;			/* its list is asked for page by page */
	dlist_head	pages;
	HxReadWindow *window;
	int64		total;			/* as the latest head says; -1: none yet */
	int64		largest_total;	/* that any head said */
	int64		fitting_total;	/* as the last page said that fitted */
	int64		said_to_end;	/* the position at which that page said the list ends; 0: it did not */
	int64		next;			/* first record that no page was made for; 0: not known yet */
	bool		resumed;		/* where an earlier reader ended was not found yet */
	bool		doubted;		/* what the page at hand says of the list's end */
	int			steps_back;		/* since a page fitted */
	int64		search_from;	/* where the place is looked for, after a step back */
	int64		search_till;
	int64		low;			/* where an earlier reader ended is not from here */
	int64		high;			/* ... to here */
	bool		looks_ahead;	/* it is looked for behind that */
	int64		searched;		/* pages that were looked through */
	int64		search_most;	/* ... and no more */
};

struct HxReader
{
	MemoryContext cxt;
	MemoryContextCallback callback;
	dlist_node	node;			/* of the readers of this process */
	HxReadOrder order;
	bool		counting;		/* how many records there are is all that is asked */
	bool		signs_in;
	bool		plain;			/* a record need not be an object */
	const char *unit;			/* of pages */
	int64		origin;			/* position of a list's first record */
	int64		page_size;		/* as ordered, or what the API turned out to give */
	int64		most_unpaged;	/* an answer without pages that has so many may be cut off */
	int			most_in_flight;

	dlist_head	parts;			/* begun and not used up */
	int			next_part;		/* index of the next to begin */
	int			in_flight;		/* pages sent */
	int64		numbers;		/* pages sent ever */
	int64		total;
	int64		counted;
	bool		ended;
	int64		position;		/* of the record given last, in the list; from 1 */
	TimestampTz asked_at;		/* when it was asked for */

	HxSignIn   *sign_in;		/* this reader's own, or NULL */
	TimestampTz wake_at;		/* what is blocked may go on; 0: nothing is */
	TimestampTz ahead_at;		/* there may be quota for pages ahead */
	TimestampTz driven_at;		/* the pool was; 0: never */
	bool		left_alone;		/* nobody read for long, and nothing came since */

	/* bytes taken from a transfer and not yet cut */
	char	   *chunk;
	size_t		chunk_len;
	size_t		chunk_used;

	HxRecordFinder *id_finder;	/* of records without a key, or NULL */
	HxReadStats stats;

	/* of the record given last, while that is good; NULL: it was asked for by its id */
	const char *key;
	size_t		key_len;
};

/* What a look at a page came to. */
typedef enum PageState
{
	PAGE_RECORD,				/* here is one */
	PAGE_WAITS,					/* for bytes, for quota, for a token */
	PAGE_USED_UP,				/* and it was what it should be */
	PAGE_GAP					/* records before it may have been missed */
} PageState;

/* reader.c */
extern void hx_reader_block(HxReader *reader, TimestampTz until);
extern bool hx_reader_drive(HxReader *reader, long timeout_ms);
extern void hx_reader_headed(HxReader *reader, ReaderPage *page);
extern int64 hx_reader_overlap(const HxReader *reader);
extern bool hx_reader_may_ask(const HxReader *reader, bool ahead);
extern void hx_reader_begin_anew(HxReader *reader, ReaderPart *part);

/* reader_page.c */
extern ReaderPage *hx_reader_page_make(HxReader *reader, ReaderPart *part, int64 from, int64 till, PageBegin begin);
extern bool hx_reader_page_send(HxReader *reader, ReaderPage *page, bool ahead);
extern PageState hx_reader_page_next(HxReader *reader, ReaderPage *page, HxRecord *record);
extern bool hx_reader_page_mend(HxReader *reader, ReaderPage *page);
extern void hx_reader_page_release(HxReader *reader, ReaderPage *page);

#endif							/* HX_READER_INTERNAL_H */
