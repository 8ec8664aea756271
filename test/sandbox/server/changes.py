"""What other clients do, on request: changes of tasks and assets that come by no request of the API.

An order names one change, {"list": "tasks", "kind": "change", "id": 1001, "fields": {...}}; drawn from a seed it can be
so many of them. The kinds:

    create      a new record; `fields` are those it is stored with
    change      fields of a record that is alive; null empties one
    touch       nothing, but lastModified (of a task; an asset has none)
    delete      soft: the record stays, with `deleted`
    restore     ... without it
    erase       hard: the record is gone without a trace, and so is what pointed to it
    hide, show  a list that lies: the record is there, and its list leaves it out unless asked for it by id; `show` without
                an id ends all lies of a list

`late` is how many seconds, at most, the lastModified of a change lies before the moment at which it can be seen, as that
of a transaction that commits late. It does not go below that of the record's change before.

A task shows a few things of its asset, its parent and its children. As lastModified has to tell of them for a client that
asks for what has changed, those that show a change are touched with it; not so with `quietly`, as it also happens live.
"""
import random
from contextlib import contextmanager

from api.stages import enter_stage
from api.task_writes import new_task
from tenant.people import DISPATCHERS, TECHNICIANS
from tenant.routes import ROUTES, TASK_STAGES
from tenant.clock import as_text
from wire.values import present

LISTS = ("tasks", "assets")
_WEIGHTS = {"create": 4, "change": 10, "touch": 1, "delete": 4, "restore": 3, "erase": 0, "hide": 0, "show": 0}
_OPTIONS = {"list": str, "kind": str, "id": int, "fields": dict, "late": (int, float), "quietly": bool}
_NOTES = ("Шум в шахте", "Течь\nпод витриной", "Ключ \"у охраны\" & C:\\temp", "🥶", "", "ok", "a,b\t{c}",
          "Просьба\r\nсрочно", "'); --", "x" * 300)
_PHONES = ("+79215550101", "8 (812) 555-01-02", "доб. 15")
_ASSET_NAMES = ("Лифт № 7", "Чиллер \"Север\"", "Камера 'А'", "Здание\\3", "Витрина 🧊", "Т")


class Mistake(ValueError):
    """The order cannot be carried out; the text says why."""


def _record(tenant, order):
    store, key = getattr(tenant, order["list"]), order.get("id")
    record = store.get(key) if isinstance(key, int) else None
    if record is None:
        raise Mistake(f"there is none of the {order['list']} with id {key!r}")
    return record


def _checked(order):
    if not isinstance(order, dict):
        raise Mistake("an order is an object")
    for name, value in order.items():
        if name not in _OPTIONS or not isinstance(value, _OPTIONS[name]):
            raise Mistake(f"{name}: {value!r} does not do in an order, which takes {', '.join(_OPTIONS)}")
    if order.get("list") not in LISTS:
        raise Mistake(f"list: one of {', '.join(LISTS)} is needed")
    if order.get("kind") not in _WEIGHTS:
        raise Mistake(f"kind: one of {', '.join(_WEIGHTS)} is needed")
    return order


@contextmanager
def _committed_late(tenant, seconds, record):
    """Within, lastModified lies so many seconds back, though not before what the record has."""
    moments = tenant.moments
    earlier = moments.modified - seconds
    if record is not None and as_text(earlier) < record.get("lastModified", "") <= as_text(moments.modified):
        earlier = moments.modified      # seconds are whole: near enough
    tenant.moments = moments._replace(modified=earlier)
    try:
        yield
    finally:
        tenant.moments = moments


class Changes:
    """Carries orders out."""

    def __init__(self, tenant):
        self._tenant = tenant

    def do(self, order):
        """-> what was done: the order with the id of what it made, and lastModified of a task"""
        order = dict(_checked(order))
        of, kind = order["list"], order["kind"]
        if kind in ("hide", "show"):
            hidden = self._tenant.hidden[of]
            if kind == "show" and "id" not in order:
                hidden.clear()
            else:
                (hidden.add if kind == "hide" else hidden.discard)(_record(self._tenant, order)["id"])
            self._tenant.assets.pages.clear()
            return order
        record = None if kind == "create" else _record(self._tenant, order)
        with _committed_late(self._tenant, order.get("late", 0), record):
            order["id"] = getattr(self, f"_{kind}_{of}")(record, order.get("fields", {}), order.get("quietly", False))
        if of == "tasks" and kind != "erase":
            order["lastModified"] = self._tenant.tasks.get(order["id"])["lastModified"]
        self._tenant.changed()
        return order

    # Tasks

    def _create_tasks(self, _, fields, quietly):
        task = new_task(self._tenant, {"taskTypeID": 2, "requestMethodID": 4, **present(fields)})
        self._tell(self._related(task), quietly)
        return task["id"]

    def _change_tasks(self, task, fields, quietly):
        shown = self._related(task)
        fields = dict(fields)
        stage = fields.pop("taskStageID", None)
        if stage is not None:
            enter_stage(self._tenant, task, stage, self._tenant.now())
        self._tenant.touch(task, **fields)
        if "parentID" in fields or "number" in fields:
            self._tell({*shown, *self._related(task)} - {task["id"]}, quietly)
        return task["id"]

    def _touch_tasks(self, task, fields, quietly):
        return self._change_tasks(task, {}, quietly)

    def _delete_tasks(self, task, fields, quietly):
        return self._change_tasks(task, {"deleted": self._tenant.now()}, quietly)

    def _restore_tasks(self, task, fields, quietly):
        return self._change_tasks(task, {"deleted": None}, quietly)

    def _erase_tasks(self, task, fields, quietly):
        related = self._related(task)
        for child in list(self._tenant.tasks.children(task["id"])):
            self._tenant.tasks.put(self._tenant.tasks.get(child), {"parentID": None})
        self._tenant.tasks.remove(task)
        self._tenant.hidden["tasks"].discard(task["id"])
        self._tell(related, quietly)
        return task["id"]

    def _related(self, task):
        """The ids of the tasks that show something of one: its parent and its children."""
        parent = (task["parentID"],) if "parentID" in task else ()
        return {*parent, *self._tenant.tasks.children(task["id"])}

    def _tell(self, task_ids, quietly):
        for task_id in sorted(task_ids):
            if not quietly:
                self._tenant.touch(self._tenant.tasks.get(task_id))

    # Assets

    def _create_assets(self, _, fields, quietly):
        return self._tenant.assets.add({"name": "Объект", "isMobileAsset": False, "useAllWorkTypes": True,
                                        **present(fields)})

    def _change_assets(self, asset, fields, quietly):
        self._tenant.assets.replace(asset["id"], present({**asset, **fields}))
        if not {"name", "parentID", "deleted", "companyID"}.isdisjoint(fields):
            self._tell(self._showing(asset["id"]), quietly)
        return asset["id"]

    def _touch_assets(self, asset, fields, quietly):
        return self._change_assets(asset, {}, quietly)

    def _delete_assets(self, asset, fields, quietly):
        return self._change_assets(asset, {"deleted": self._tenant.now()}, quietly)

    def _restore_assets(self, asset, fields, quietly):
        return self._change_assets(asset, {"deleted": None}, quietly)

    def _erase_assets(self, asset, fields, quietly):
        showing = self._showing(asset["id"])
        for task_id in showing:
            self._tenant.tasks.put(self._tenant.tasks.get(task_id), {"assetID": None})
        for child in self._tenant.assets.children(asset["id"]):
            self._tenant.assets.replace(child, present({**self._tenant.assets.get(child), "parentID": None}))
        self._tenant.assets.remove(asset["id"])
        self._tenant.hidden["assets"].discard(asset["id"])
        self._tell(showing, quietly)
        return asset["id"]

    def _showing(self, asset_id):
        """The ids of the tasks at an asset."""
        return [task["id"] for task in self._tenant.tasks if task.get("assetID") == asset_id]


_DRAWN_BY = {"count": int, "seed": (int, str), "lists": list, "weights": dict, "late": (int, float), "quietly": bool,
             "ids": list}


def check_draw(description):
    """Mistake says what is wrong with what Draw is to be made of."""
    for name, value in description.items():
        if name not in _DRAWN_BY or not isinstance(value, _DRAWN_BY[name]) or \
                isinstance(value, bool) and name != "quietly":
            raise Mistake(f"{name}: {value!r} does not do; there are {', '.join(_DRAWN_BY)}")
    lists = description.get("lists", LISTS)
    if description.get("count", 0) < 0 or description.get("late", 0) < 0 or not lists or set(lists) - set(LISTS):
        raise Mistake(f"count and late: 0 or more, lists: some of {', '.join(LISTS)}")
    weights = description.get("weights", {})
    for kind, weight in weights.items():
        if kind not in _WEIGHTS or type(weight) not in (int, float) or weight < 0:
            raise Mistake(f"weights: {kind!r}: {weight!r} does not do; there are {', '.join(_WEIGHTS)}")
    if not any({**_WEIGHTS, **weights}.values()):
        raise Mistake("weights: all of them are 0")


class Draw:
    """Draws orders and carries them out; the same seed does the same to the same tenant."""

    def __init__(self, tenant, description):
        check_draw(description)
        self._tenant = tenant
        self._changes = Changes(tenant)
        self._count = description.get("count", 1)
        self._rng = random.Random(f"{tenant.seed}:changes:{description.get('seed', 0)}")
        self._lists = description.get("lists", list(LISTS))
        self._weights = {**_WEIGHTS, **description.get("weights", {})}
        self._late = description.get("late", 0)
        self._quietly = description.get("quietly", False)
        self._ids = description.get("ids")

    def do(self):
        """-> what was done, in order"""
        return [done for _ in range(self._count) for done in self._one()]

    def _one(self):
        rng = self._rng
        of = rng.choice(self._lists)
        kind, = rng.choices(list(self._weights), list(self._weights.values()))
        order = {"list": of, "kind": kind, "quietly": self._quietly}
        if self._late:
            order["late"] = rng.choice((0, rng.uniform(0, self._late)))
        if kind != "create":
            candidates = self._candidates(of, kind)
            if not candidates:
                return []
            order["id"] = rng.choice(candidates)
        if kind == "create":
            order["fields"] = {name: value for draw in rng.sample(_FIELDS[of], 3)
                               for name, value in draw(rng, self._tenant, None).items()}
            if of == "assets":
                order["fields"].setdefault("name", rng.choice(_ASSET_NAMES))
        elif kind == "change":
            record = getattr(self._tenant, of).get(order["id"])
            order["fields"] = {name: value for draw in rng.sample(_FIELDS[of], rng.choice((1, 1, 2)))
                               for name, value in draw(rng, self._tenant, record).items()}
        return [self._changes.do(order)]

    def _candidates(self, of, kind):
        """The ids of the records that a change of that kind can be made to."""
        store, hidden = getattr(self._tenant, of), self._tenant.hidden[of]
        ids = self._ids or (store.ids() if of == "assets" else [task["id"] for task in store])
        fits = {"restore": lambda record: "deleted" in record, "erase": lambda record: True,
                "show": lambda record: record["id"] in hidden, "hide": lambda record: record["id"] not in hidden}
        met = fits.get(kind, lambda record: "deleted" not in record)
        if len(ids) > 10_000:       # a few of many do
            ids = sorted(self._rng.sample(ids, 100))
        return [key for key in ids if (record := store.get(key)) is not None and met(record)]


# What can be drawn: (rng, tenant, record or None) -> fields

def _some(name, *values):
    return lambda rng, tenant, record: {name: rng.choice(values)}


def _alive(name, collection):
    def draw(rng, tenant, record):
        records = tenant.collections[collection]
        return {name: rng.choice([key for key, value in records.items() if "deleted" not in value])}
    return draw


def _number(name, prefix, most):
    return lambda rng, tenant, record: {name: rng.choice((None, f"{prefix}{rng.randint(1, most)}"))}


def _asset(rng, tenant, record):
    ids = tenant.assets.ids()
    key = rng.choice(ids) if ids else None
    return {"assetID": None if key is None or "deleted" in tenant.assets.get(key) else key}


def _stage(rng, tenant, record):
    if record is None:
        return {}
    return {"taskStageID": rng.choice([target for source, target in ROUTES[record["taskTypeID"]]
                                       if source == record["taskStageID"]] or list(TASK_STAGES))}


def _assignees(rng, tenant, record):
    crew = rng.sample(TECHNICIANS, rng.randint(0, 2)) or None
    return {"assignees": crew, "assigned": crew and tenant.now()}


_FIELDS = {
    "tasks": (_some("notes", None, *_NOTES), _some("notes", *_NOTES), _number("erpID", "CH-", 50),
              _number("contactPerson", "Иванов ", 9), _some("contactPhone", None, *_PHONES),
              _alive("companyID", "companies"), _alive("criticalityID", "criticalities"),
              _some("deadline", None, "2025-02-03T04:05:06", "2025-03-01T00:00:00.1234567", "2999-12-31T23:59:59"),
              _alive("locationID", "locations"), _some("requestedByUserID", *DISPATCHERS), _asset, _stage, _assignees),
    "assets": (_some("name", *_ASSET_NAMES), _number("erpID", "EQ-CH-", 50), _number("serialNumber", "SN", 99),
               _some("warrantyTill", None, "2027-01-01T00:00:00", "0001-01-01T00:00:00"),
               _alive("companyID", "companies"), _alive("locationID", "locations"), _some("notes", None, *_NOTES),
               _some("published", None, "2025-01-15T09:00:00")),
}
