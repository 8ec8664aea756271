"""Idempotent writes: a stamp that was used once is refused from then on.

A stamp is used up by the write it succeeded with, not by one that was refused. Each kind of write keeps its own.
Where the contract is open: spellings of one GUID (case, braces, no hyphens) are the same stamp.
"""
from wire.messages import Malformed, broken_rule
from wire.values import WrongType, guid

HEADER = "X-Concurrency-Stamp"
_LONGEST = 255


def header_stamp(call):
    """The stamp in the header, or None. Not a GUID, empty or over 255 characters: 400."""
    text = call.headers.get(HEADER)
    if text is None:
        return None
    try:
        if len(text) > _LONGEST:
            raise WrongType(text)
        return guid(text)
    except WrongType as error:
        raise Malformed(f"{HEADER} is not a GUID") from error


def earlier(tenant, kind, stamp):
    """What was made under the stamp before, or None."""
    return tenant.stamps.get((kind, stamp)) if stamp else None


def refuse_repeat(tenant, kind, stamp):
    if earlier(tenant, kind, stamp) is not None:
        raise broken_rule("ConcurrencyStampAlreadyUsed", "Запрос с таким идентификатором уже выполнен", stamp=stamp)


def use(tenant, kind, stamp, result):
    if stamp:
        tenant.stamps[kind, stamp] = result
