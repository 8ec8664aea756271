"""Every other list of the catalogue, connectors/catalogue/hubex.json, with records that are made up from its types.

What the catalogue declares is what there is: the shape of a list (a map or an array), pages where it is `paginated`
(elsewhere Range, offset and fetch are ignored: 200 with everything), HEAD where it stands. An address that a module of
endpoints serves is left to that.

Where the contract is open:
* the id of a record of a map is its member `id`, else of the type that the list's DELETE takes, else a text;
* a parameter filters where it names something of the record: a member (ids repeat), the id of a member that is an
  object (`companyID` of `company`) or of the record itself (`roleID` of Roles), a person (`requestedBy` of
  `requestedByUserID`), a moment that is there or not (`isDeleted` of `deleted`, `isClosed` of `timesheet.closed`),
  `searchText`; else it is ignored, as the live server ignores what it does not know;
* a list that can be counted by HEAD has pages;
* below a record that is not there (`/ADM/Users/77/roles`) all is 404; so is a record that its list has not;
* a few lists are empty; then those for which the vendor declares it answer 204.
"""
import json
import pathlib
import re
from typing import Any, Mapping, NamedTuple

from tenant.made_up import Maker, members_of, plain_type
from wire.filters import derived, flag, search, selection
from wire.messages import Answer, Call, json_answer, not_found
from wire.paging import count, page, whole
from wire.routing import Router, Routes
from wire.values import field_name, guid, q_bool, q_int, q_text

CATALOGUE = pathlib.Path(__file__).resolve().parents[3] / "connectors/catalogue/hubex.json"
_MOST, _MOST_OF_A_PARENT = 48, 6
_EMPTY_EVERY = 16               # one list in so many has no records
_PARSERS = {"int": q_int, "str": q_text, "bool": q_bool, "uuid": guid}


class Record(NamedTuple):
    key: Any
    value: Any


class Listing(NamedTuple):
    """A GET of the catalogue, of a list or of one record."""

    path: str                   # with the service; variable parts as {name}
    service: str
    shape: str                  # "map", "array" or "one"
    type: str                   # of a record
    key: str                    # the type of its key
    paginated: bool
    empty: int                  # the status of an empty list
    query: Mapping

    @property
    def variables(self):
        return re.findall(r"{(\w+)}", self.path)

    def at(self, ids):
        """The address with its variable parts filled in."""
        values = iter(ids)
        return re.sub(r"{\w+}", lambda _: str(next(values)), self.path)


def _shape(path):
    """An address without the names of its variable parts."""
    return re.sub(r"{[^}]*}", "{}", path).lower()


def _listing(service, path, call, calls, types):
    result = call["result"]
    if result.startswith("map<") and result.endswith(">"):
        shape, type_ = "map", result[4:-1]
    elif result.endswith("[]"):
        shape, type_ = "array", result[:-2]
    else:
        shape, type_ = "one", result
    key = call.get("key") or plain_type(members_of(types, type_), "id") or calls.get("DELETE " + path, {}).get("body", "").removesuffix("[]")
    return Listing(f"/{service}{path}", service, shape, type_, key if key in ("int", "uuid") else "str",
                   call.get("paginated", False) or "HEAD " + path in calls, call.get("empty", 200), call.get("query", {}))


def _singular(path):
    """What one record of a list is called: "roleid" of /ADM/Roles, as a parameter names it."""
    return re.sub("ies$", "y", re.sub("(?<=ss|ch|us)es$|(?<!ie)s$", "", path.rsplit("/", 1)[-1].lower())) + "id"


def _texts(value):
    return [text for text in (value.values() if isinstance(value, dict) else (value,)) if isinstance(text, str)]


def _names(types, type_):
    """The members of an object type by name, whether or not they are optional."""
    return {member.removesuffix("?"): member_type for member, member_type in members_of(types, type_).items()}


def _filter(listing, types, name, type_):
    """The filter that a query parameter is, or None."""
    type_ = "bool" if type_.startswith("enum(true") else type_.removesuffix("[]")
    names = _names(types, listing.type)
    if name == "searchText":
        return search(lambda tenant, record: _texts(record.value))
    if type_ not in _PARSERS:
        return None
    member = field_name(name, names)
    if member is not None and names[member] in _PARSERS:
        if names[member] == "bool":
            return flag(lambda tenant, record: record.value.get(member))
        return derived(lambda tenant, record: record.value.get(member), _PARSERS[names[member]])
    member = field_name(name.removeprefix("is"), names)
    if type_ == "bool" and member is not None and names[member] == "datetime":
        return flag(lambda tenant, record: member in record.value)
    member = field_name(name.removeprefix("is"), _names(types, names.get("timesheet")))
    if type_ == "bool" and name.startswith("is") and member is not None:
        return flag(lambda tenant, record: member in record.value.get("timesheet", ()))
    member = field_name(name + "UserID", names)
    if type_ == "int" and member is not None:
        return derived(lambda tenant, record: record.value.get(member))
    member = field_name(name.removesuffix("ID"), names)
    if name.endswith("ID") and member is not None:
        return derived(lambda tenant, record: _id(record.value.get(member)), _PARSERS[type_])
    if name.lower() == _singular(listing.path) and type_ == listing.key:
        return derived(lambda tenant, record: record.key, _PARSERS[type_])
    return None


def _id(value):
    return value.get("id") if isinstance(value, dict) else None


class Generated:
    """The endpoints. `others` are the tables of the endpoints that are served elsewhere."""

    def __init__(self, catalogue, others):
        self._types = {service: part["types"] for service, part in catalogue.items()}
        self._others = Router(*others)
        self._lists = {}
        self.routes = Routes()
        served = {_shape(path) for table in others for _, path, _ in table}
        for service, part in catalogue.items():
            for name, call in part["calls"].items():
                method, path = name.split(" ")
                shape = _shape(f"/{service}{path}")
                if method == "GET" and "result" in call and shape not in served:
                    self._declare(_listing(service, path, call, part["calls"], part["types"]), shape,
                                  f"HEAD {path}" in part["calls"])

    def _declare(self, listing, shape, head):
        path = re.sub(r"{(\w+)}", r"{\1:text}", listing.path)
        if listing.shape == "one":
            self.routes.add("GET", path, lambda tenant, call: self._one(listing, tenant, call))
            return
        self._lists[shape] = listing
        filters = {name: entry for name, type_ in listing.query.items()
                   if (entry := _filter(listing, self._types[listing.service], name, type_))}

        def selected(tenant, call):
            self._go_through(listing, tenant, call.ids)
            return selection(call, tenant, filters).of(self._records(listing, tenant, call.ids))

        self.routes.add("GET", path, lambda tenant, call: _answer(listing, call, selected(tenant, call)))
        if head:
            self.routes.add("HEAD", path, lambda tenant, call: count(len(selected(tenant, call))))

    def _records(self, listing, tenant, ids):
        """The records of a list; those of lists without a parent are kept."""
        where = listing.at(ids)
        if where not in tenant.made_up:
            records = self._make(listing, tenant, ids, where)
            if ids:
                return records
            tenant.made_up[where] = records
        return tenant.made_up[where]

    def _maker(self, listing, tenant):
        return Maker(tenant.seed, self._types[listing.service])

    def _make(self, listing, tenant, ids, where):
        maker = self._maker(listing, tenant)
        chance = tenant.chance(where)
        most = _MOST_OF_A_PARENT if ids else _MOST
        size = 0 if chance < 1 / _EMPTY_EVERY else max(1, int(chance * most))
        keys = [maker.key(listing.key, where, number) for number in range(1, size + 1)]
        return [Record(key, maker.value(listing.type, f"{where}/{key}", self._given(listing, ids, key)))
                for key in keys]

    def _given(self, listing, ids, key):
        """Members of the record that its address tells."""
        members = members_of(self._types[listing.service], listing.type)
        given = dict(zip(listing.variables, ids)) | ({"id": key} if key is not None else {})
        return {name: int(value) if plain_type(members, name) == "int" and str(value).isdecimal() else value
                for name, value in given.items()}

    def _one(self, listing, tenant, call):
        self._go_through(listing, tenant, call.ids)
        key = call.ids[-1] if listing.path.endswith("}") else None
        return json_answer(200, self._maker(listing, tenant).value(
            listing.type, listing.at(call.ids), self._given(listing, call.ids, key)))

    def _go_through(self, listing, tenant, ids):
        """404 where the address goes through a record that is not there."""
        segments, known = listing.path.split("/"), 0
        for place, segment in enumerate(segments):
            if segment.startswith("{"):
                above = self._lists.get(_shape("/".join(segments[:place])))
                known += 1
                if above is None:
                    self._ask_others("/".join(listing.at(ids).split("/")[:place + 1]), tenant)
                elif not any(str(record.key) == ids[known - 1]
                             for record in self._records(above, tenant, ids[:known - 1])):
                    raise not_found(above.type, ids[known - 1])

    def _ask_others(self, path, tenant):
        """404 where it is the address of one record of a list that is served elsewhere, which has not got it."""
        call = Call("GET", path, [], {})
        route, call.ids = self._others.find("GET", path)
        if route is not None:
            route.handler(tenant, call)


def _answer(listing, call, records):
    if not records and listing.empty != 200:
        return Answer(listing.empty)
    as_array = listing.shape == "array"
    if listing.paginated:
        return page(call, records, (lambda record: record.value) if as_array else tuple, as_array)
    return whole([record.value for record in records] if as_array else records, as_array)


def _counting(handler, declared):
    def head(tenant, call):
        call.query = [(name, text) for name, text in call.query if name in declared]
        return handler(tenant, call)
    return head


def complete(tables):
    """The tables of all endpoints, from those of the ones that are written out.

    HEAD takes the parameters that the catalogue declares for HEAD, in places fewer than for GET, and ignores the others.
    But ES/Assets takes the same ones: there the contract tells more than the catalogue.
    """
    catalogue = json.loads(CATALOGUE.read_text("utf-8"))
    declared = {_shape(f"/{service}{name[5:]}"): call.get("query", {}) for service, part in catalogue.items()
                for name, call in part["calls"].items() if name.startswith("HEAD ")}
    del declared["/es/assets"]
    tables = (*tables, Generated(catalogue, tables).routes)
    return tuple([(method, path, route._replace(handler=_counting(route.handler, declared[_shape(path)]))
                   if method == "HEAD" and _shape(path) in declared else route) for method, path, route in table]
                 for table in tables)
