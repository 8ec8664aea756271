"""Reading lists: shapes and pages.

Most lists are a JSON object keyed by id, in the order of the sort; a few are arrays. A page is asked for by

    Range: items=FROM-TILL      1-based, inclusive; or   ?offset=N&fetch=M   0-based

and answered 206 with `Content-Range: items=A-B/TOTAL` (note the `=`). A right edge past the end is clamped; items=0-49
silently yields 49 records. Without either: 200, at most 10,000 records and no Content-Range, a silent cut.

Where the contract is open:
* a page that holds nothing (an empty list, or FROM past the end) is 206 with an empty list and `items=0-0/TOTAL`, the
  form HEAD uses for a count;
* a Range header that is no range of items is ignored, as RFC 9110 has it; with both forms the header wins;
* `fetch` left out is 10,000, `offset` left out 0, a negative value is 409 InvalidData;
* there may be a limit to the records of a page (the setting page_limit): more are not given, whatever was asked.
"""
import re
import zlib

from .filters import parameter
from .messages import Answer, invalid_data, json_bytes, json_text
from .values import q_int

UNPAGED_LIMIT = 10_000
_WORTH_KEEPING = 1000       # records of a page
_RANGE = re.compile(r"\s*items\s*=\s*(\d{1,9})\s*-\s*(\d{1,9})\s*", re.IGNORECASE)


def _asked(call):
    """The records asked for as a half-open 0-based range, or None where no paging was asked for."""
    match = _RANGE.fullmatch(call.headers.get("Range", ""))
    if match:
        first, last = int(match[1]), int(match[2])
        if first <= last:
            return max(first, 1) - 1, last
    offset, fetch = parameter(call, "offset", q_int), parameter(call, "fetch", q_int)
    if offset is None and fetch is None:
        return None
    for name, value in (("offset", offset), ("fetch", fetch)):
        if value is not None and value < 0:
            raise invalid_data(name, value)
    start = offset or 0
    return start, start + (UNPAGED_LIMIT if fetch is None else fetch)


def _json(value):
    return value if isinstance(value, bytes) else json_bytes(value)


def whole(shown, as_array=False):
    """Answers what is shown, all of it: the pairs (key, value) of the object, or the values of the array.

    A value that is bytes is JSON already.
    """
    if as_array:
        return json_text(200, b"[%s]" % b",".join(_json(value) for value in shown))
    return json_text(200, b"{%s}" % b",".join(b"%s:%s" % (json_bytes(str(key)), _json(value)) for key, value in shown))


def page(call, records, render, as_array=False, kept=None):
    """Answers one page of `records`, any sequence that can be sliced.

    `render(record)` gives the pair (key, value) of the object, or the value alone for an array; see whole().
    In `kept`, if given, large pages are kept, packed, to be answered again for as long as the caller leaves them there.
    """
    total = len(records)
    asked = _asked(call)
    start, stop = asked or (0, UNPAGED_LIMIT)
    if asked and call.page_limit:
        stop = min(stop, start + call.page_limit)
    wanted = records[start:stop]
    if kept is not None and (start, stop) in kept:
        answer = json_text(200, zlib.decompress(kept[start, stop]))
    else:
        answer = whole([render(record) for record in wanted], as_array)
        if kept is not None and len(wanted) >= _WORTH_KEEPING:
            kept[start, stop] = zlib.compress(answer.body, 1)
    if asked:
        edges = f"{start + 1}-{start + len(wanted)}" if wanted else "0-0"
        answer.status = 206
        answer.headers["Content-Range"] = f"items={edges}/{total}"
    return answer


def count(total):
    """The answer to HEAD on a list: its length alone."""
    return Answer(200, headers={"Content-Range": f"items=0-0/{total}"})
