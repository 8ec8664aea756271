"""A task as lists show it and as `GET /WORK/Tasks/{id}` shows it. Empty fields are absent, not null."""
from datetime import datetime, timedelta

from wire.messages import json_bytes

# Where the reference stands in the answer: field of the task -> name, collection, further fields shown.
_REFERENCES = (
    ("taskTypeID", "taskType", "task_types", ()),
    ("workTypeID", "workType", "work_types", ("normalWorkingHours", "normalWorkingMinutes")),
    ("taskStageID", "taskStage", "task_stages", ("color",)),
    ("taskStatusID", "taskStatus", "task_statuses", ("color",)),
    ("criticalityID", "actualCriticality", "criticalities", ("color",)),
    ("companyID", "company", "companies", ()),
    ("serviceLevelAgreementID", "serviceLevelAgreement", "service_level_agreements", ()),
)
_DETAIL_REFERENCES = (
    ("criticalityID", "requestedCriticality", "criticalities", ()),
    ("requestMethodID", "requestMethod", "request_methods", ()),
    ("payeeCompanyID", "payeeCompany", "companies", ()),
    ("payerCompanyID", "payerCompany", "companies", ()),
    ("branchID", "branch", "branches", ()),
    ("assetSchemaID", "assetSchema", "asset_schemas", ()),
    ("contractID", "contract", "contracts", ("number",)),
    ("estimatedCostCurrencyID", "estimatedCostCurrency", "currencies", ("asciiCode", "shortName")),
    ("actualCostCurrencyID", "actualCostCurrency", "currencies", ("asciiCode", "shortName")),
)
_PEOPLE = (("requestedByUserID", "requestedBy"), ("escalatedToUserID", "escalatedTo"),
           ("approvalWithUserID", "approvalWith"))
_PLAIN = ("number", "notes", "erpID", "lastModified", "deleted", "contactPerson", "contactPhone", "contactEmail")
_DETAIL_PLAIN = ("notesHtml", "acceptedPerson", "estimatedCost", "actualCost", "estimatedTimeConsumptionMinutes",
                 "actualTimeConsumptionMinutes")
# Moment of the task -> its name in `timesheet`.
_TIMESHEET = (("created", "created"), ("created", "requested"), ("assigned", "assigned"), ("deadline", "deadline"),
              ("completed", "completed"), ("closed", "closed"), ("accepted", "accepted"), ("signed", "signed"),
              ("escalated", "escalated"), ("faultTimestamp", "faultTimestamp"),
              ("requestedStartDateTime", "requestedStart"), ("requestedFinishDateTime", "requestedFinish"),
              ("lastModified", "lastUpdated"))


def average_rating(task):
    ratings = [rating["rating"] for rating in task.get("ratings", ()) if "rating" in rating]
    return round(sum(ratings) / len(ratings), 2) if ratings else None


def outdated_since(tenant, task):
    """The deadline, once it has passed without the task being completed (or closed) by then; else None."""
    deadline = task.get("deadline")
    if deadline is None:
        return None
    until = task.get("completed") or task.get("closed") or tenant.now()
    return deadline if until > deadline else None


def _actuality(tenant, task):
    """Overdue, today, tomorrow or later: of a task that has a deadline and is still to be done."""
    if "deadline" not in task or "completed" in task or "closed" in task:
        return None
    if outdated_since(tenant, task):
        return 1
    today = tenant.now()[:10]
    tomorrow = (datetime.fromisoformat(today) + timedelta(days=1)).date().isoformat()
    return {today: 2, tomorrow: 3}.get(task["deadline"][:10], 4)


def _asset(tenant, asset_id):
    asset = tenant.assets.get(asset_id)
    brief = {"id": asset_id, "name": asset["name"]}
    for field in ("parentID", "deleted"):
        if field in asset:
            brief[field] = asset[field]
    if "companyID" in asset:
        brief["company"] = tenant.named("companies", asset["companyID"])
    return brief


def _timesheet(tenant, task):
    sheet = {name: task[field] for field, name in _TIMESHEET if field in task}
    outdated = outdated_since(tenant, task)
    if outdated:
        sheet["outdated"] = outdated
    return sheet


def list_item(tenant, task):
    """An item of a list of tasks; the id stands in the key only."""
    item = {field: task[field] for field in _PLAIN if field in task}
    item["childCount"] = len(tenant.tasks.children(task["id"]))
    rating = average_rating(task)
    if rating is not None:
        item["averageRating"] = rating
    item["isAvailable"] = "deleted" not in task
    item["isRated"] = rating is not None
    item["isFavourite"] = "favourite" in task
    for field, name, collection, more in _REFERENCES:
        if field in task:
            item[name] = tenant.named(collection, task[field], *more)
    for field, name in _PEOPLE:
        if field in task:
            item[name] = tenant.user(task[field])
    if "assignees" in task:
        item["listAssignedTo"] = [tenant.user(user) for user in task["assignees"]]
        item["assignedTo"] = item["listAssignedTo"][0]
    if "assetID" in task:
        item["asset"] = _asset(tenant, task["assetID"])
    if "locationID" in task:
        item["location"] = tenant.location(task["locationID"])
    if "parentID" in task:
        item["parent"] = {"id": task["parentID"], "name": tenant.tasks.get(task["parentID"])["number"]}
    actuality = _actuality(tenant, task)
    if actuality:
        item["taskActuality"] = tenant.named("task_actualities", actuality)
    item["timesheet"] = _timesheet(tenant, task)
    return item


def list_json(tenant, task):
    """The item as JSON. Making 10,000 of them takes half a second, so they are kept, unless a deadline to come will
    change them."""
    text = tenant.tasks.rendered.get(task["id"])
    if text is None:
        text = json_bytes(list_item(tenant, task))
        if task.get("deadline", "") < tenant.now() or "completed" in task or "closed" in task:
            tenant.tasks.rendered[task["id"]] = text
    return text


def attribute_values(tenant, task):
    """[{"attribute": {id, name}, "value": "..."}]"""
    return [{"attribute": tenant.named("attributes", attribute),
             "attributeType": tenant.collections["attributes"][attribute]["type"], "value": value}
            for attribute, value in task.get("attributes", {}).items()]


def detail(tenant, task):
    """One task with its id and more detail."""
    view = {"id": task["id"], **list_item(tenant, task)}
    for name in ("isAvailable", "isRated"):     # of lists alone
        del view[name]
    for field in _DETAIL_PLAIN:
        if field in task:
            view[field] = task[field]
    for field, name, collection, more in _DETAIL_REFERENCES:
        if field in task:
            view[name] = tenant.named(collection, task[field], *more)
    if "attributes" in task:
        view["attribute"] = attribute_values(tenant, task)
    view["counters"] = {"completedWorksCount": len(task.get("completedWorkIDs", ())), "checkListsCount": 0}
    return view
