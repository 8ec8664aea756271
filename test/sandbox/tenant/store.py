"""The data of the tenant and the few operations everything else is made of.

A record is a plain dict; an empty field is absent. Dictionaries are kept in `collections` by name, each a mapping from
id to record. Tasks and assets have stores of their own: tasks are indexed by the keys clients look them up with, assets
come to be only when looked at, since a tenant can hold 600,000 of them.
"""
import random
import uuid

from .assets import Assets
from .clock import Moments, as_text
from .directory import build_directory
from .past import grow_tasks


class Collection(dict):
    """id -> record. Ids of new records go on from the highest there is."""

    def __init__(self, records=()):
        super().__init__(records)
        self._last = max((key for key in self if isinstance(key, int)), default=0)

    def add(self, record):
        self._last += 1
        self[self._last] = record
        return self._last


class Tasks:
    """The tasks by id, in order of creation, with an index for each key that look-ups come by."""

    INDEXED = ("erpID", "number", "parentID")

    def __init__(self, first_id=1001):
        self._records = {}
        self._next_id = first_id
        self._indexes = {field: {} for field in self.INDEXED}
        self._counters = {}
        self.rendered = {}      # id -> JSON of its item of lists, for as long as nothing that it shows has changed
        self.touched = None     # ids of tasks that look otherwise than before, where somebody wants to know

    def __len__(self):
        return len(self._records)

    def __iter__(self):
        return iter(self._records.values())

    def get(self, task_id):
        return self._records.get(task_id)

    def latest(self, back):
        """The task created so many tasks ago, 1 being the last one."""
        return self._records[self._next_id - back]

    def children(self, task_id):
        """The ids of the tasks below a task."""
        return self._indexes["parentID"].get(task_id, ())

    def number(self, task_type, created):
        """A number as the mask of the task types has it: type, month, running number: 0207000000003."""
        count = self._counters[task_type] = self._counters.get(task_type, 0) + 1
        return f"{task_type:02d}{created[5:7]}{count:09d}"

    def add(self, record):
        record = {"id": self._next_id, **record}
        self._next_id += 1
        self._records[record["id"]] = record
        for field in self.INDEXED:
            self._index(field, record)
        self._forget_rendered(record)
        return record

    def remove(self, record):
        """Without a trace; nothing must point to it."""
        self._forget_rendered(record)
        for field in self.INDEXED:
            if field in record:
                self._indexes[field][record[field]].discard(record["id"])
        del self._records[record["id"]]

    def put(self, record, changes):
        """Changes fields of a task; None makes a field empty, that is, absent."""
        self._forget_rendered(record)
        for field, value in changes.items():
            if field in self.INDEXED and field in record:
                self._indexes[field][record[field]].discard(record["id"])
            if value is None:
                record.pop(field, None)
            else:
                record[field] = value
                if field in self.INDEXED:
                    self._index(field, record)
        self._forget_rendered(record)

    def _forget_rendered(self, record):
        """The item of the task, of its parent (which counts its children) and of its children (which show its number)."""
        for task_id in (record["id"], record.get("parentID"), *self.children(record["id"])):
            self.rendered.pop(task_id, None)
            if self.touched is not None and task_id is not None:
                self.touched.add(task_id)

    def _index(self, field, record):
        if field in record:
            self._indexes[field].setdefault(record[field], set()).add(record["id"])

    def find(self, field, values):
        """The tasks whose field is one of the values: `id` or an indexed field."""
        if field == "id":
            ids = {value for value in values if value in self._records}
        else:
            index = self._indexes[field]
            ids = set().union(*(index.get(value, ()) for value in values))
        return [self._records[task_id] for task_id in sorted(ids)]


class Tenant:
    def __init__(self, seed, tasks, assets):
        self.seed = seed
        self._random = random.Random(f"{seed}:live")
        self.moments = Moments(0, 0, 0)     # when the request at hand is worked on
        self.writes = 0
        self.hidden = {"tasks": set(), "assets": set()}     # ids that the lists leave out, though the records are there
        self.observer = None    # called when something has changed
        self.collections = {name: Collection(records) for name, records in build_directory(seed).items()}
        self.assets = Assets(seed, assets, self.collections)
        self.tasks = Tasks()
        self.stamps = {}        # what was made under which stamp: (kind, guid) -> result
        # Of all tasks; a task lists the ids of its own.
        self.messages = Collection()
        self.attachments = Collection()
        self.completed_works = Collection()
        self.made_up = {}       # the records of the lists that api/generated.py serves, by address
        grow_tasks(self, tasks)

    def now(self):
        """The server's clock."""
        return as_text(self.moments.now)

    def chance(self, where):
        """A number of [0, 1) that belongs to that place."""
        return random.Random(f"{self.seed}:{where}").random()

    def guid(self):
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def touch(self, task, **changes):
        """Changes a task and marks it as modified."""
        self.tasks.put(task, {**changes, "lastModified": as_text(self.moments.modified)})

    def written(self):
        """Notes that something was written -> the mark of the write, for X-Last-Lsn."""
        self.writes += 1
        self.changed()
        return f"0/{0x1A2B3C0 + 0x38 * self.writes:X}"

    def changed(self):
        """To be called when something was written, whatever it was."""
        self.tasks.rendered.clear()         # a task may show it
        self.assets.pages.clear()
        if self.observer is not None:
            self.observer()

    def named(self, collection, key, *more):
        """A reference as it stands in other records: {"id", "name"}, further fields and `deleted` where they are."""
        record = self.collections[collection][key]
        brief = {"id": key, "name": record["name"]}
        for field in (*more, "deleted"):
            if field in record:
                brief[field] = record[field]
        return brief

    def user(self, user_id):
        """A person as references to people show them."""
        user = self.collections["users"][user_id]
        brief = {"id": user_id, "name": " ".join(filter(None, (user["lastName"], user["firstName"],
                                                               user.get("middleName"))))}
        for field in ("lastName", "firstName", "middleName", "email", "mobilePhone", "isCustomer", "isTechnician",
                      "deleted"):
            if field in user:
                brief[field] = user[field]
        return brief

    def location(self, location_id):
        """{"id", "address", "coordinate": "LAT:LNG"}"""
        return {"id": location_id, **self.collections["locations"][location_id]}

    def sizes(self):
        """How much there is of everything."""
        return {"tasks": len(self.tasks), "assets": len(self.assets), "messages": len(self.messages),
                "attachments": len(self.attachments), "completed_works": len(self.completed_works),
                "stamps": len(self.stamps), **{name: len(records) for name, records in self.collections.items()}}
