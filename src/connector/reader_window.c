/*-------------------------------------------------------------------------
 *
 * reader_window.c
 *	  Which records were given already.
 *
 * Pages overlap, and what a record is known by tells where the one before
 * ended.  It is enough to remember about as many as a page holds: the records
 * are kept in two generations, and when the young one has as many as a page,
 * the old one is forgotten.  So memory does not grow with the list.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "connector/reader_internal.h"

typedef struct SeenKey
{
	const char *bytes;
	size_t		len;
} SeenKey;

typedef struct SeenRecord
{
	SeenKey		key;
	int64		page;			/* the one it was given from */
	uint32		hash;
	char		status;
} SeenRecord;

#define SH_PREFIX		seen
#define SH_ELEMENT_TYPE SeenRecord
#define SH_KEY_TYPE		SeenKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, k) hash_bytes((const unsigned char *) (k).bytes, (int) (k).len)
#define SH_EQUAL(tb, a, b) ((a).len == (b).len && memcmp((a).bytes, (b).bytes, (a).len) == 0)
#define SH_SCOPE		static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define FIRST_SIZE		256

/* A generation; its table and the keys are in its context. */
typedef struct Generation
{
	MemoryContext cxt;
	seen_hash  *table;
} Generation;

struct HxReadWindow
{
	MemoryContext cxt;
	int64		size;			/* records of a generation */
	Generation	young;
	Generation	old;
	bool		complete;		/* none was forgotten yet */
};

static void
begin_generation(HxReadWindow *window, Generation *generation)
{
	generation->cxt = AllocSetContextCreate(window->cxt, "hubex records seen", ALLOCSET_DEFAULT_SIZES);
	generation->table = seen_create(generation->cxt, FIRST_SIZE, NULL);
}

/* Makes a window that remembers at least the last so many records. */
HxReadWindow *
hx_window_make(MemoryContext parent, int64 size)
{
	HxReadWindow *window = MemoryContextAllocZero(parent, sizeof(HxReadWindow));

	window->cxt = parent;
	window->size = Max(size, 1);
	window->complete = true;
	begin_generation(window, &window->young);
	return window;
}

/* The number of the page that a record was given from; -1: it is not known. */
int64
hx_window_find(const HxReadWindow *window, const char *key, size_t len)
{
	SeenKey		wanted = {key, len};
	SeenRecord *seen = seen_lookup(window->young.table, wanted);

	if (seen == NULL && window->old.table != NULL)
		seen = seen_lookup(window->old.table, wanted);
	return seen != NULL ? seen->page : -1;
}

/* Remembers a record that is not known. */
void
hx_window_add(HxReadWindow *window, const char *key, size_t len, int64 page)
{
	SeenKey		copy;
	char	   *bytes;
	bool		found;

	if (window->young.table->members >= window->size)
	{
		if (window->old.cxt != NULL)
		{
			MemoryContextDelete(window->old.cxt);
			window->complete = false;
		}
		window->old = window->young;
		begin_generation(window, &window->young);
	}
	bytes = MemoryContextAlloc(window->young.cxt, len + 1);
	memcpy(bytes, key, len);
	bytes[len] = '\0';
	copy.bytes = bytes;
	copy.len = len;
	seen_insert(window->young.table, copy, &found)->page = page;
}

/* Remembers a record that an earlier reader gave: not the only one, so that it is never known what all of them are. */
void
hx_window_add_earlier(HxReadWindow *window, const char *key)
{
	size_t		len = strlen(key);

	if (hx_window_find(window, key, len) < 0)
		hx_window_add(window, key, len, 0);
	window->complete = false;
}

/* Is every record known that was ever given? */
bool
hx_window_is_complete(const HxReadWindow *window)
{
	return window->complete;
}
