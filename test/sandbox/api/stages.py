"""The life of a task: the stages it may move to, moving it, its history.

`POST /WORK/TaskStagingHistory {"taskID", "taskStageID", "notes"?, "completed"?, "criticalityID"?, "revertClosed"?}`
answers 201 {"stageId", "isFinalStage", "errors": []}, and a 201 whose `errors` is not empty is a refusal: the task did
not move, `stageId` is the stage it is in. Many moves at once go through /multiple and /batch, 202.

Where the contract is open:
* `errors` holds texts. A stage that is not next on the route, and any stage of a closed task, is such a refusal; an
  unknown task is 404, an unknown stage 409;
* revertClosed opens a closed task again, at any stage of its route that is not a final one;
* many: every move that is possible is made; if some were not, `isSuccessed` is false and `error` says why;
* /batch is `{"concurrencyStamp", "completed"?, "data": [{"taskStageID", "tasks": [ids], ...}]}`, a repeated stamp 409.
"""
from tenant.routes import (ACCEPTED, CANCELLED, CLOSED, COMPLETED, ON_SITE, OPEN, PHASES, ROUTES as STAGE_ROUTES,
                           STATUS_OF_STAGE, TASK_STATUSES, branch_of, is_final, next_stages)
from wire.filters import parsed
from wire.messages import json_answer, not_found
from wire.paging import page
from wire.routing import Routes
from wire.values import b_bool, b_guid, b_int, b_ints, b_moment, b_objects, b_text, present, q_int, read_fields

from . import stamps
from .references import check_reference, live_task
from .task_lists import task_of

ROUTES = Routes()

_MOVE = {"taskStageID": b_int, "notes": b_text, "completed": b_moment, "criticalityID": b_int, "revertClosed": b_bool}
_STAMP_KIND = "stages"


def enter_stage(tenant, task, stage, moment, notes=None):
    """Puts the task into the stage, with what that means for it, and adds to its history."""
    phase = PHASES[stage]
    entry = {"taskStageID": stage, "completed": moment, "sortOrder": len(task["stages"]) + 1}
    if notes:
        entry["notes"] = notes
    changes = {"taskStageID": stage, "taskStatusID": STATUS_OF_STAGE[stage],
               "branchID": branch_of(task["taskStageID"], stage), "stages": [*task["stages"], entry]}
    if phase == OPEN:
        changes.update(completed=None, accepted=None, closed=None)
    elif phase == COMPLETED:
        changes["completed"] = moment
    elif phase == ACCEPTED:
        changes["accepted"] = moment
    elif phase == CLOSED:
        changes.update(closed=moment, completed=task.get("completed", moment))
    elif phase == CANCELLED:
        changes["closed"] = moment
    if stage == ON_SITE:
        changes["checkedIn"] = moment
    tenant.touch(task, **changes)


def _refusals(task, stage, revert_closed):
    """Why the task may not move to the stage; empty: it may."""
    if "closed" in task:
        if not revert_closed:
            return ["Заявка закрыта"]
        reachable = {target for _, target in STAGE_ROUTES[task["taskTypeID"]] if not is_final(target)}
    else:
        reachable = next_stages(task)
    return [] if stage in reachable else ["Переход на эту стадию не предусмотрен маршрутом"]


def _check_move(tenant, move):
    """409 where the stage or the criticality is not there; looked at before anything moves."""
    check_reference(tenant, "taskStageID", move["taskStageID"])
    if "criticalityID" in move:
        check_reference(tenant, "criticalityID", move["criticalityID"])


def _move(tenant, task, move):
    """Moves the task if it may -> the refusals."""
    refusals = _refusals(task, move["taskStageID"], move.get("revertClosed", False))
    if not refusals:
        enter_stage(tenant, task, move["taskStageID"], move.get("completed") or tenant.now(), move.get("notes"))
        if "criticalityID" in move:
            tenant.touch(task, criticalityID=move["criticalityID"])
    return refusals


@ROUTES("POST", "/WORK/TaskStagingHistory")
def move_task(tenant, call):
    move = present(read_fields(call.json(), {**_MOVE, "taskID": b_int}, required=("taskID", "taskStageID")))
    task_of(tenant, move["taskID"])
    task = live_task(tenant, move["taskID"])
    _check_move(tenant, move)
    refusals = _move(tenant, task, move)
    return json_answer(201, {"stageId": task["taskStageID"], "isFinalStage": is_final(task["taskStageID"]),
                             "errors": refusals})


def _move_many(tenant, moves):
    """`moves`: pairs of a task and its move, all checked beforehand."""
    refusals = []
    for task, move in moves:
        refusals += (f"{task['number']}: {refusal}" for refusal in _move(tenant, task, move))
    result = {"batchID": tenant.guid(), "isSuccessed": not refusals}
    if refusals:
        result["error"] = "; ".join(refusals)
    return result


@ROUTES("POST", "/WORK/TaskStagingHistory/multiple")
def move_tasks(tenant, call):
    """An array of the same objects: many tasks in one request."""
    table = {**_MOVE, "taskID": b_int}
    moves = [present(read_fields(item, table, required=("taskID", "taskStageID"))) for item in call.json_list()]
    for move in moves:
        _check_move(tenant, move)
    return json_answer(202, _move_many(tenant, [(live_task(tenant, move["taskID"]), move) for move in moves]))


@ROUTES("POST", "/WORK/TaskStagingHistory/batch")
def move_batch(tenant, call):
    batch = present(read_fields(call.json(), {"concurrencyStamp": b_guid, "completed": b_moment, "data": b_objects},
                                required=("concurrencyStamp", "data")))
    stamps.refuse_repeat(tenant, _STAMP_KIND, batch["concurrencyStamp"])
    moves = []
    for item in batch["data"]:
        move = present(read_fields(item, {**_MOVE, "tasks": b_ints}, required=("taskStageID", "tasks")))
        _check_move(tenant, move)
        move.setdefault("completed", batch.get("completed"))
        moves += ((live_task(tenant, task_id), move) for task_id in move["tasks"])
    result = _move_many(tenant, moves)
    stamps.use(tenant, _STAMP_KIND, batch["concurrencyStamp"], result)
    return json_answer(202, result)


def _next_stages(tenant, task):
    """{"8": {"name", "branch", "taskStatus", "isFinishStage", ...}}: id in the key."""
    stages = {}
    for order, stage in enumerate(next_stages(task), 1):
        branch, status = branch_of(task["taskStageID"], stage), STATUS_OF_STAGE[stage]
        stages[str(stage)] = {"name": tenant.collections["task_stages"][stage]["name"], "sortOrder": order,
                              "branch": tenant.named("branches", branch), "isFinishStage": is_final(stage),
                              "isPositiveResult": PHASES[stage] != CANCELLED,
                              "taskStatus": {"id": status, "name": TASK_STATUSES[status]["name"]}}
    return stages


@ROUTES("GET", "/WORK/Tasks/{id}/stages/next")
def next_stages_of_one(tenant, call):
    return json_answer(200, _next_stages(tenant, task_of(tenant, call.ids[0])))


@ROUTES("GET", "/WORK/Tasks/stages/next")
def next_stages_of_many(tenant, call):
    """`?id=..&id=..`; a map from task id to the map of its next stages; a task that is not there is 404."""
    ids = parsed(call, "id", q_int)
    tasks = [tenant.tasks.get(task_id) for task_id in ids]
    for task_id, task in zip(ids, tasks):
        if task is None:
            raise not_found("Task", task_id)
    return json_answer(200, {str(task["id"]): _next_stages(tenant, task) for task in tasks})


@ROUTES("GET", "/WORK/Tasks/{id}/stages")
def stages_of(tenant, call):
    """The history: an array, oldest first."""
    def render(entry):
        view = {name: entry[name] for name in ("completed", "notes", "sortOrder") if name in entry}
        return {"taskStage": tenant.named("task_stages", entry["taskStageID"]),
                "taskStatus": tenant.named("task_statuses", STATUS_OF_STAGE[entry["taskStageID"]]), **view}
    return page(call, task_of(tenant, call.ids[0])["stages"], render, as_array=True)
