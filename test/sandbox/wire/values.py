"""The types of the API: of query parameters (text) and of fields of a body (JSON values).

A moment is ISO 8601 in UTC, usually without a zone suffix: `2025-07-24T11:31:25`. The same with `Z`, an offset or a
fraction is accepted; what is stored is UTC without a suffix, the fraction kept. That canonical text sorts as the
moments do, so moments are kept, compared and answered as text.

Body types are strict, as a schema is: a number in quotes is not a number. The API's ids are 32 bits wide.
"""
import re
from datetime import datetime, timedelta

from .messages import Malformed


class WrongType(ValueError):
    """The value does not have the type. In a query: 409 InvalidData; in a body: 400 without a body."""


_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)"
                     r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:(Z)|([+-])(\d\d):?(\d\d)?)?)?", re.IGNORECASE)
_GUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}")
_INT32 = range(-2**31, 2**31)
_DIGITS = re.compile(r"[+-]?[0-9]{1,10}")
_TICKS = 7          # .NET keeps ten-millionths of a second


def moment(text):
    """'2025-07-24T14:31:25.120+03:00' -> '2025-07-24T11:31:25.12'"""
    match = _MOMENT.fullmatch(text)
    if not match:
        raise WrongType(text)
    year, month, day, hour, minute, second, fraction, _, sign, offset_hours, offset_minutes = match.groups()
    try:
        stamp = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
        if sign:
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes or 0))
            stamp = stamp - offset if sign == "+" else stamp + offset
    except (ValueError, OverflowError) as error:
        raise WrongType(text) from error
    fraction = (fraction or "")[:_TICKS].rstrip("0")
    return stamp.isoformat() + ("." + fraction if fraction else "")


def guid(text):
    """Any of the usual spellings of a GUID -> lower case with hyphens."""
    text = text.strip().lower()
    if (text[:1], text[-1:]) in (("{", "}"), ("(", ")")):
        text = text[1:-1]
    if not _GUID.fullmatch(text):
        raise WrongType(text)
    digits = text.replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


# Query parameters: text -> value.

def q_int(text):
    if not _DIGITS.fullmatch(text) or int(text) not in _INT32:
        raise WrongType(text)
    return int(text)


def q_bool(text):
    value = {"true": True, "false": False}.get(text.lower())
    if value is None:
        raise WrongType(text)
    return value


def q_text(text):
    return text


q_moment = moment


# Fields of a body: JSON value -> value as stored.

def b_int(value):
    if type(value) is not int or value not in _INT32:     # bool is an int to Python, not to the API
        raise WrongType(value)
    return value


def b_number(value):
    if type(value) not in (int, float):
        raise WrongType(value)
    return value


def b_bool(value):
    if type(value) is not bool:
        raise WrongType(value)
    return value


def b_text(value):
    if not isinstance(value, str):
        raise WrongType(value)
    return value


def b_moment(value):
    return moment(b_text(value))


def b_guid(value):
    return guid(b_text(value))


def b_any(value):
    return value


def b_object(value):
    if not isinstance(value, dict):
        raise WrongType(value)
    return value


def b_list(of):
    """The type of an array of `of`."""
    def check(value):
        if not isinstance(value, list):
            raise WrongType(value)
        return [of(item) for item in value]
    return check


b_ints = b_list(b_int)
b_texts = b_list(b_text)
b_objects = b_list(b_object)


def field_name(name, table):
    """The field's own name: names are accepted in either case of the first letter. None: not a field of the table."""
    if name in table:
        return name
    other = name[:1].swapcase() + name[1:]
    return other if other in table else None


def read_fields(value, table, required=()):
    """The known fields of a JSON object, checked and under their own names; null stays, unknown ones are ignored."""
    if not isinstance(value, dict):
        raise Malformed("not an object")
    fields = {}
    for key, item in value.items():
        name = field_name(key, table)
        if name is not None:
            try:
                fields[name] = None if item is None else table[name](item)
            except WrongType as error:
                raise Malformed(f"field {name} has a wrong type") from error
    for name in required:
        if fields.get(name) is None:
            raise Malformed(f"field {name} is required")
    return fields


def present(fields):
    """The fields without the nulls: the API does not tell null from absent."""
    return {name: value for name, value in fields.items() if value is not None}


def read_ids(call):
    """The body as an array of ids."""
    try:
        return b_ints(call.json())
    except WrongType as error:
        raise Malformed("not an array of ids") from error
