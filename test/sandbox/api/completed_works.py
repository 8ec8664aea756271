"""Works done on a task: `[{"taskID", "data": [{workTypeID, maintainedAssetID, started, finished, quantity, ...}]}]`.

POST and PUT take X-Concurrency-Stamp like the create of a task. A repeat is 409, and with `X-Suppress-Conflict: true`
it is 200 with the results of the first time. That header is documented here alone, and here alone it works.
"""
from wire.messages import accepted, broken_rule, json_answer
from wire.paging import page
from wire.routing import Routes
from wire.values import b_int, b_ints, b_moment, b_number, b_objects, b_text, present, read_fields

from . import stamps
from .references import check_references
from .task_lists import task_of
from .task_parts import task_actions

ROUTES = Routes()

_WORK = {"workTypeID": b_int, "maintainedAssetID": b_int, "implementedByUserID": b_int, "started": b_moment,
         "finished": b_moment, "notes": b_text, "quantity": b_number, "measurementUnitID": b_int,
         "workTypeCost": b_number, "costCurrencyID": b_int, "offlineCreated": b_moment}
_ADDED, _REPLACED = "completed work added", "completed work replaced"      # kinds of stamps


def _actions(tenant, call, table, required):
    """The body as pairs (task, works), all checked."""
    actions = []
    for task, data in task_actions(tenant, call, b_objects):
        works = [present(read_fields(item, table, required)) for item in data]
        for work in works:
            check_references(tenant, work, parents=None)
        actions.append((task, works))
    return actions


def _suppressed(tenant, call, kind, stamp):
    """The answer to a repeat whose conflict is to be suppressed; 409 to any other repeat; None: no repeat."""
    first_time = stamps.earlier(tenant, kind, stamp)
    if first_time is not None and call.headers.get("X-Suppress-Conflict", "").lower() == "true":
        return json_answer(200, first_time)
    stamps.refuse_repeat(tenant, kind, stamp)
    return None


@ROUTES("POST", "/WORK/CompletedWorks")
def add_works(tenant, call):
    """201 [{"id", "taskID", "concurrencyStamp"}]"""
    stamp = stamps.header_stamp(call)
    actions = _actions(tenant, call, _WORK, required=("workTypeID",))
    repeat = _suppressed(tenant, call, _ADDED, stamp)
    if repeat:
        return repeat
    results = []
    for task, works in actions:
        ids = [tenant.completed_works.add({**work, "taskID": task["id"], "created": tenant.now()}) for work in works]
        tenant.touch(task, completedWorkIDs=[*task.get("completedWorkIDs", ()), *ids] or None)
        results += ({"id": work, "taskID": task["id"], "concurrencyStamp": stamp or tenant.guid()} for work in ids)
    stamps.use(tenant, _ADDED, stamp, results)
    return json_answer(201, results)


def _own(task, works):
    """Refuses works that are not the task's."""
    for work in works:
        if work not in task.get("completedWorkIDs", ()):
            raise broken_rule("EntityNotFound", "Выполненная работа не найдена", taskID=task["id"], id=work)


@ROUTES("PUT", "/WORK/CompletedWorks")
def put_works(tenant, call):
    """The whole work, named by `id`. 202."""
    stamp = stamps.header_stamp(call)
    actions = _actions(tenant, call, {**_WORK, "id": b_int}, required=("id", "workTypeID"))
    for task, works in actions:
        _own(task, [work["id"] for work in works])
    repeat = _suppressed(tenant, call, _REPLACED, stamp)
    if repeat:
        return repeat
    for task, works in actions:
        for work in works:
            record = tenant.completed_works[work["id"]]
            kept = {name: record[name] for name in ("taskID", "created")}
            tenant.completed_works[work.pop("id")] = {**work, **kept}
        tenant.touch(task)
    stamps.use(tenant, _REPLACED, stamp, [])
    return accepted()


@ROUTES("DELETE", "/WORK/CompletedWorks")
def delete_works(tenant, call):
    """`[{"taskID", "data": [ids]}]`, 202."""
    actions = task_actions(tenant, call, b_ints)
    for task, works in actions:
        _own(task, works)
    for task, works in actions:
        left = [work for work in task.get("completedWorkIDs", ()) if work not in works]
        tenant.touch(task, completedWorkIDs=left or None)
    return accepted()


@ROUTES("GET", "/WORK/Tasks/{id}/completedWorks")
def list_works(tenant, call):
    """An array."""
    def render(work_id):
        work = tenant.completed_works[work_id]
        shown = ("created", "started", "finished", "notes", "quantity", "offlineCreated")
        view = {"id": work_id, **{name: work[name] for name in shown if name in work},
                "workType": tenant.named("work_types", work["workTypeID"])}
        if "maintainedAssetID" in work:
            asset = tenant.assets.get(work["maintainedAssetID"])
            view["maintainedAsset"] = {"id": asset["id"], "name": asset["name"]}
        if "measurementUnitID" in work:
            view["measurementUnit"] = tenant.named("measurement_units", work["measurementUnitID"])
        return view
    return page(call, task_of(tenant, call.ids[0]).get("completedWorkIDs", []), render, as_array=True)
