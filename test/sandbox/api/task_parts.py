"""What hangs on a task: attributes, assignees, tags, contacts, watchers, skills, favourites, ratings.

Bodies are arrays, many tasks in one request; all of a body is checked before any of it is written. The four lists of
references share one shape, `[{"taskID", "data": [...]}]` (for tags `tags` is taken as well as `data`, since the sources
disagree), and one table.
"""
from typing import NamedTuple, Optional

from wire.filters import one_of, parsed, selection
from wire.messages import accepted, json_answer
from wire.paging import page
from wire.routing import Routes
from wire.values import (b_bool, b_int, b_ints, b_moment, b_objects, b_text, b_texts, present, q_int, read_fields,
                         read_ids)

from .references import check_reference, live_task, missing
from .task_lists import task_of
from .task_views import attribute_values

ROUTES = Routes()


def task_actions(tenant, call, data):
    """An array of `{"taskID", "data": [...]}` as pairs (task, items); `data` is the type of the array."""
    actions = []
    for item in call.json_list():
        fields = present(read_fields(item, {"taskID": b_int, "data": data}, required=("taskID", "data")))
        actions.append((live_task(tenant, fields["taskID"]), fields["data"]))
    return actions


# Attributes

_ATTRIBUTE = {"attributeID": b_int, "value": b_text}


@ROUTES("POST", "/WORK/TaskAttributes")
def set_attributes(tenant, call):
    """`[{"taskID", "data": [{"attributeID", "value"}]}]`, 202; a null value takes the attribute away."""
    actions = []
    for task, data in task_actions(tenant, call, b_objects):
        values = [read_fields(item, _ATTRIBUTE, required=("attributeID",)) for item in data]
        for value in values:
            check_reference(tenant, "attributeID", value["attributeID"])
        actions.append((task, values))
    for task, values in actions:
        merged = {**task.get("attributes", {}), **{value["attributeID"]: value.get("value") for value in values}}
        tenant.touch(task, attributes=present(merged) or None)
    return accepted()


_ATTRIBUTE_FILTERS = {"taskID": one_of("taskID"), "attributeID": one_of("attributeID")}


@ROUTES("GET", "/WORK/TaskAttributes")
def list_attributes(tenant, call):
    """The attributes of all tasks, or of some: an array."""
    wanted = parsed(call, "taskID", q_int)
    tasks = tenant.tasks.find("id", wanted) if wanted else tenant.tasks
    rows = [{"taskID": task["id"], "attributeID": attribute, "value": value,
             "attributeName": tenant.collections["attributes"][attribute]["name"]}
            for task in tasks for attribute, value in task.get("attributes", {}).items()]
    return page(call, selection(call, tenant, _ATTRIBUTE_FILTERS).of(rows), dict, as_array=True)


@ROUTES("GET", "/WORK/Tasks/{id}/attributes")
def attributes_of(tenant, call):
    return page(call, attribute_values(tenant, task_of(tenant, call.ids[0])), dict, as_array=True)


# Assignees

_ASSIGNMENT = {"taskID": b_int, "userID": b_int, "scheduledStartDateTime": b_moment,
               "scheduledFinishDateTime": b_moment, "isPostponedNotification": b_bool}


@ROUTES("POST", "/WORK/TaskAssignmentHistory")
def assign(tenant, call):
    """`[{"taskID", "userID", "scheduledStartDateTime"?, "scheduledFinishDateTime"?}]`, 201.

    Where the contract is open: all users that one request names for a task are its assignees from then on, the first
    in front; no userID takes the assignees away; an unknown user is an `error` inside the 201, an unknown task 409.
    """
    by_task = {}
    for item in call.json_list():
        fields = present(read_fields(item, _ASSIGNMENT, required=("taskID",)))
        task = live_task(tenant, fields["taskID"])
        by_task.setdefault(task["id"], (task, []))[1].append(fields)
    return json_answer(201, [_assign(tenant, task, wishes) for task, wishes in by_task.values()])


def _assign(tenant, task, wishes):
    users, granted, outcome = tenant.collections["users"], [], []
    for wish in wishes:
        result = {"userID": wish.get("userID"), "dateTimeFrom": wish.get("scheduledStartDateTime"),
                  "dateTimeTill": wish.get("scheduledFinishDateTime")}
        if "userID" in wish and "deleted" in users.get(wish["userID"], {"deleted": True}):
            result["error"] = "Исполнитель не найден"
        else:
            granted.append(wish)
        outcome.append(present(result))
    if granted:
        crew = list(dict.fromkeys(wish["userID"] for wish in granted if "userID" in wish))
        tenant.touch(task, assignees=crew or None, assigned=tenant.now() if crew else None,
                     scheduledStart=granted[0].get("scheduledStartDateTime"),
                     scheduledFinish=granted[0].get("scheduledFinishDateTime"))
    return {"taskID": task["id"], "taskNumber": task["number"], "assignments": outcome}


# Lists of references

class References(NamedTuple):
    resource: str               # POST and DELETE /WORK/{resource}
    listing: str                # GET /WORK/Tasks/{id}/{listing}
    field: str                  # of the task
    item: Optional[str]         # what an id refers to; None: texts
    as_array: bool


_REFERENCE_LISTS = (
    References("TaskTags", "tags", "tags", None, True),
    References("TaskContacts", "contacts", "contactIDs", "contactID", False),
    References("TaskWatchLists", "watchLists", "watcherIDs", "userID", True),
    References("TaskSkills", "skills", "skillIDs", "skillID", False),
)


def _reference_actions(tenant, call, kind):
    data = b_texts if kind.item is None else b_ints
    actions = []
    for item in call.json_list():
        fields = present(read_fields(item, {"taskID": b_int, "data": data, "tags": data}, required=("taskID",)))
        values = fields.get("data") or fields.get("tags") or []
        if kind.item is not None:
            for value in values:
                check_reference(tenant, kind.item, value)
        actions.append((live_task(tenant, fields["taskID"]), values))
    return actions


def _render(tenant, kind, task, value):
    if kind.item is None:
        return value
    if kind.item == "userID":
        return tenant.user(value)
    if kind.item == "contactID":
        contact = tenant.collections["contacts"][value]
        view = {name: contact[name] for name in ("fullName", "phone", "email", "position") if name in contact}
        return value, {"taskID": task["id"], "contactID": value, **view}
    return value, tenant.named("skills", value)


def _declare(kind):
    def add(tenant, call):
        actions = _reference_actions(tenant, call, kind)
        for task, values in actions:
            tenant.touch(task, **{kind.field: list(dict.fromkeys([*task.get(kind.field, ()), *values])) or None})
        made = [{"taskID": task["id"], kind.item or "tag": value} for task, values in actions for value in values]
        return json_answer(201, made)

    def remove(tenant, call):
        for task, values in _reference_actions(tenant, call, kind):
            left = [value for value in task.get(kind.field, ()) if value not in values]
            tenant.touch(task, **{kind.field: left or None})
        return accepted()

    def listing(tenant, call):
        task = task_of(tenant, call.ids[0])
        return page(call, task.get(kind.field, []), lambda value: _render(tenant, kind, task, value), kind.as_array)

    ROUTES.add("POST", f"/WORK/{kind.resource}", add)
    ROUTES.add("DELETE", f"/WORK/{kind.resource}", remove)
    ROUTES.add("GET", f"/WORK/Tasks/{{id}}/{kind.listing}", listing)


for _kind in _REFERENCE_LISTS:
    _declare(_kind)


# Favourites and ratings

@ROUTES("POST", "/WORK/UserTaskFavourites")
def favour(tenant, call):
    """`[ids]`: the tasks are favourites of the user from now on; no change of the tasks themselves."""
    for task_id in read_ids(call):
        tenant.tasks.put(live_task(tenant, task_id), {"favourite": True})
    return json_answer(201, [])


@ROUTES("DELETE", "/WORK/UserTaskFavourites")
def disfavour(tenant, call):
    for task_id in read_ids(call):
        tenant.tasks.put(live_task(tenant, task_id), {"favourite": None})
    return accepted()


_RATING = {"taskID": b_int, "technicianID": b_int, "rating": b_int, "comment": b_text}


@ROUTES("POST", "/WORK/TaskRatings")
def rate(tenant, call):
    """`[{"taskID", "technicianID", "rating", "comment"?}]`, 202; one rating a technician, the last one counts."""
    ratings = [present(read_fields(item, _RATING, required=("taskID", "technicianID", "rating")))
               for item in call.json_list()]
    for rating in ratings:
        live_task(tenant, rating["taskID"])
        if rating["technicianID"] not in tenant.collections["users"]:
            raise missing("technicianID", rating["technicianID"])
    for rating in ratings:
        task = tenant.tasks.get(rating.pop("taskID"))
        others = [other for other in task.get("ratings", ()) if other["technicianID"] != rating["technicianID"]]
        tenant.touch(task, ratings=[*others, rating])
    return accepted()
