"""Writing tasks: create, change, replace, delete and restore, complete.

A create needs taskTypeID and requestMethodID. What is refused, in the order it is looked at:

    400 without a body   a stamp that is no GUID, a body that is not JSON, a field of the wrong type, one missing
    409                  the stamp was used before
    422                  the sanitiser's remarks on notesHtml
    409                  a business rule: a reference to nothing, ...

Where the contract is open: erpID is not unique; a task that is soft-deleted cannot be changed (409) until it is
restored; an unknown field of a PATCH is 409, of an object ignored; PUT without `number` keeps the number; DELETE of
many answers what became of each, one that is deleted already is no error.
"""
from tenant.clock import as_text
from tenant.people import SERVICE_USER
from tenant.routes import CLOSED, COMPLETED, STAGE_OF_PHASE, START_STAGE, STATUS_OF_STAGE
from wire.messages import accepted, broken_rule, invalid_data, json_answer
from wire.routing import Routes
from wire.values import (WrongType, b_any, b_int, b_moment, b_number, b_text, field_name, present, read_fields,
                         read_ids)

from . import stamps
from .references import check_references, live_task, missing
from .sanitiser import check_html
from .stages import enter_stage
from .task_lists import task_of

ROUTES = Routes()

_CHANGEABLE = {
    "taskTypeID": b_int, "criticalityID": b_int, "deadline": b_moment, "companyID": b_int, "assetID": b_int,
    "locationID": b_int, "workTypeID": b_int, "notes": b_text, "notesHtml": b_text, "number": b_text, "erpID": b_text,
    "contactPerson": b_text, "contactPhone": b_text, "contactEmail": b_text, "contractID": b_int, "parentID": b_int,
    "payeeCompanyID": b_int, "payerCompanyID": b_int, "requestedByUserID": b_int, "requestedStartDateTime": b_moment,
    "requestedFinishDateTime": b_moment, "faultTimestamp": b_moment, "serviceLevelAgreementID": b_int,
    "estimatedCost": b_number, "estimatedCostCurrencyID": b_int, "actualCost": b_number, "actualCostCurrencyID": b_int,
    "estimatedTimeConsumptionMinutes": b_int, "actualTimeConsumptionMinutes": b_int, "assetSchemaID": b_int,
}
_CREATED_WITH = {**_CHANGEABLE, "requestMethodID": b_int, "taskTemplateID": b_text}
_REQUIRED = ("taskTypeID", "requestMethodID")
_STAMP_KIND = "task"


@ROUTES("POST", "/WORK/Tasks")
def create_task(tenant, call):
    """201 {"id": 5129, "number": "0207000000003", "concurrencyStamp": "<guid>"}"""
    stamp = stamps.header_stamp(call)
    request = call.json()
    fields = present(read_fields(request, _CREATED_WITH, _REQUIRED))
    stamps.refuse_repeat(tenant, _STAMP_KIND, stamp)
    _check(tenant, fields)
    task = new_task(tenant, fields, request=request)
    if stamp:
        task["stamp"] = stamp
    stamps.use(tenant, _STAMP_KIND, stamp, task["id"])
    call.created.append(task["id"])
    return json_answer(201, {"id": task["id"], "number": task["number"], "concurrencyStamp": stamp or tenant.guid()})


def new_task(tenant, fields, **more):
    """A task at the start of its route -> its record"""
    now, created = tenant.now(), as_text(tenant.moments.created)
    if "number" not in fields:
        fields["number"] = tenant.tasks.number(fields["taskTypeID"], created)
    fields.setdefault("requestedByUserID", SERVICE_USER)
    return tenant.tasks.add({**fields, "created": created, "lastModified": as_text(tenant.moments.modified),
                             "branchID": 1, "taskStageID": START_STAGE,
                             "taskStatusID": STATUS_OF_STAGE[START_STAGE], **more,
                             "stages": [{"taskStageID": START_STAGE, "completed": now, "sortOrder": 1}]})


def _check(tenant, fields):
    if fields.get("notesHtml"):
        check_html(fields["notesHtml"])
    check_references(tenant, fields, tenant.tasks)


def _change(tenant, task, fields):
    live_task(tenant, task["id"])
    if fields.get("taskTypeID", task["taskTypeID"]) != task["taskTypeID"]:
        raise broken_rule("TaskTypeCannotBeChanged", "Тип заявки нельзя изменить", taskID=task["id"])
    _check(tenant, fields)
    if fields.get("parentID") == task["id"]:
        raise broken_rule("TaskIsItsOwnParent", "Заявка не может быть родителем самой себе", taskID=task["id"])
    tenant.touch(task, **fields)
    return accepted()


@ROUTES("PATCH", "/WORK/Tasks/{id}")
def patch_task(tenant, call):
    """`[{"field": "companyID", "value": 17}]`; null empties the field. 202. A plain object is 400."""
    task = task_of(tenant, call.ids[0])
    fields = {}
    for item in call.json_list():
        item = read_fields(item, {"field": b_text, "value": b_any}, required=("field",))
        name = field_name(item["field"], _CHANGEABLE)
        if name is None:
            raise invalid_data("field", item["field"])
        value = item.get("value")
        try:
            fields[name] = None if value is None else _CHANGEABLE[name](value)
        except WrongType as error:
            raise invalid_data(name, value) from error
    if any(name in fields and fields[name] is None for name in ("taskTypeID", "number")):
        raise broken_rule("FieldCannotBeEmpty", "Поле не может быть пустым", taskID=task["id"])
    return _change(tenant, task, fields)


@ROUTES("PUT", "/WORK/Tasks/{id}")
def put_task(tenant, call):
    """The whole task: what is not sent is emptied, but for what cannot be sent or changed. 202."""
    task = task_of(tenant, call.ids[0])
    fields = present(read_fields(call.json(), _CHANGEABLE))
    kept = {"taskTypeID": task["taskTypeID"], "number": task["number"]}
    return _change(tenant, task, {**dict.fromkeys(_CHANGEABLE), **kept, **fields})


def _delete(tenant, task_ids):
    results = []
    for task_id in task_ids:
        task = tenant.tasks.get(task_id)
        result = {"taskID": task_id}
        if task is None:
            result["error"] = "Заявка не найдена"
        elif "deleted" not in task:
            tenant.touch(task, deleted=tenant.now())
        results.append(result)
    return json_answer(202, results)


@ROUTES("DELETE", "/WORK/Tasks/{id}")
def delete_task(tenant, call):
    """Soft: the task stays, with the moment in `deleted`. 202."""
    return _delete(tenant, [task_of(tenant, call.ids[0])["id"]])


@ROUTES("DELETE", "/WORK/Tasks")
def delete_tasks(tenant, call):
    """`[ids]`, 202 with `[{"taskID", "error"?}]`"""
    return _delete(tenant, read_ids(call))


@ROUTES("PUT", "/WORK/Tasks/restore")
def restore_tasks(tenant, call):
    """`[ids]`, 202; nothing is restored where one of them is not there."""
    tasks = []
    for task_id in read_ids(call):
        task = tenant.tasks.get(task_id)
        if task is None:
            raise missing("taskID", task_id)
        tasks.append(task)
    for task in tasks:
        tenant.touch(task, deleted=None)
    return accepted()


_COMPLETION = {"completed": b_moment, "closed": b_moment, "accepted": b_moment, "acceptedPerson": b_text,
               "signed": b_moment, "signedBy": b_int, "closedBy": b_int, "signFacsimileAttachementID": b_int,
               "signNFCTag": b_text}


@ROUTES("PUT", "/WORK/Tasks/{id}/complete")
def complete_task(tenant, call):
    """Completed, by default now; closed as well where `closed` is sent. 202; 409 where it is completed already."""
    task = task_of(tenant, call.ids[0])
    fields = present(read_fields(call.json(), _COMPLETION))
    live_task(tenant, task["id"])
    if "completed" in task and ("closed" in task or "closed" not in fields):
        raise broken_rule("TaskAlreadyCompleted", "Заявка уже выполнена", taskID=task["id"])
    completed = task.get("completed") or fields.get("completed") or tenant.now()
    phase = CLOSED if "closed" in fields else COMPLETED
    enter_stage(tenant, task, STAGE_OF_PHASE[phase], completed)
    tenant.touch(task, **{**fields, "completed": completed})
    return accepted()
