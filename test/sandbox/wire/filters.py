"""Filters of lists, as tables: `{"companyID": one_of("companyID"), "isClosed": has("closed"), ...}`.

Facts: a parameter that is not in the table is silently ignored, so a misspelt filter returns everything; a value of
the wrong type is 409 InvalidData; id filters repeat (`taskID=1&taskID=2`) and mean any of them; different filters are
all to be met. Where the contract is open: text filters repeat like ids and compare exactly, a flag, moment or search
text that repeats counts once, the first; `...From` and `...Till` are both inclusive.

A filter is a parser of one value and `test(tenant, values)`, which gives the predicate on a record. `index` names an
index of the list, so that look-ups by key do not go through all records.
"""
from typing import Callable, NamedTuple, Optional

from .messages import invalid_data
from .values import WrongType, q_bool, q_int, q_moment, q_text


class Filter(NamedTuple):
    parse: Callable
    test: Callable              # (tenant, values) -> (record -> bool)
    index: Optional[str] = None


def parsed(call, name, parse):
    """All values of a query parameter, parsed."""
    values = []
    for text in call.values(name):
        try:
            values.append(parse(text))
        except WrongType as error:
            raise invalid_data(name, text) from error
    return values


def parameter(call, name, parse, default=None):
    """The first value of a query parameter, parsed."""
    values = parsed(call, name, parse)
    return values[0] if values else default


def one_of(field, parse=q_int, index=None):
    """The field is one of the values."""
    def test(tenant, values):
        wanted = frozenset(values)
        return lambda record: record.get(field) in wanted
    return Filter(parse, test, index)


def any_of(field, parse=q_int):
    """The field, a list, holds one of the values."""
    def test(tenant, values):
        wanted = frozenset(values)
        return lambda record: not wanted.isdisjoint(record.get(field, ()))
    return Filter(parse, test)


def derived(value, parse=q_int):
    """`value(tenant, record)` is one of the values."""
    def test(tenant, values):
        wanted = frozenset(values)
        return lambda record: value(tenant, record) in wanted
    return Filter(parse, test)


def has(field):
    """true: the record has the field; false: it has not (empty fields are absent)."""
    return flag(lambda tenant, record: field in record)


def flag(value):
    """`value(tenant, record)` is true or false as asked."""
    def test(tenant, values):
        wanted = values[0]
        return lambda record: bool(value(tenant, record)) == wanted
    return Filter(q_bool, test)


def since(field):
    def test(tenant, values):
        return lambda record: record.get(field, "") >= values[0]
    return Filter(q_moment, test)


def until(field):
    def test(tenant, values):
        return lambda record: field in record and record[field] <= values[0]
    return Filter(q_moment, test)


def period(prefix, field):
    """The two filters of a period: {prefix}From and {prefix}Till."""
    return {prefix + "From": since(field), prefix + "Till": until(field)}


def search(texts):
    """`texts(tenant, record)` gives the texts to look in; case is ignored."""
    def test(tenant, values):
        wanted = values[0].casefold()
        return lambda record: any(text and wanted in text.casefold() for text in texts(tenant, record))
    return Filter(q_text, test)


def search_fields(*fields):
    return search(lambda tenant, record: [record.get(field) for field in fields])


class Selection(NamedTuple):
    """What the query of a call asks for: predicates to meet, and one index with the keys to look up, or None."""

    predicates: list
    index: Optional[tuple]

    def of(self, records):
        records = list(records)
        for met in self.predicates:
            records = [record for record in records if met(record)]
        return records


def selection(call, tenant, table):
    predicates, index = [], None
    for name in dict.fromkeys(name for name, _ in call.query):
        entry = table.get(name)
        if entry is not None:
            values = parsed(call, name, entry.parse)
            predicates.append(entry.test(tenant, values))
            if entry.index and index is None:
                index = entry.index, values
    return Selection(predicates, index)
