"""The filters and the sort of `WORK/Tasks`, as tables.

Where the contract is open:
* searchText looks into number, notes, erpID, contact and the names of company, asset and address;
* districtID is the district of the asset's company, else of the task's;
* branchID is the branch of the stage route the task is in;
* isScheduled: the current assignment has a planned start; hasAssigneeCheckedIn: the task has been "on site";
* attributeValues is a JSON object from attribute id to a value or an array of values: any of them, all attributes;
* a tie in the sort goes by id, in the same direction; records without the field sort as the lowest.
"""
import json

from wire.filters import Filter, any_of, derived, flag, has, one_of, parameter, period, search
from wire.values import WrongType, q_int, q_text

from .task_views import average_rating, outdated_since


def _asset_field(field):
    def value(tenant, task):
        return tenant.assets.get(task["assetID"]).get(field) if "assetID" in task else None
    return value


def _district(tenant, task):
    if "assetID" in task:
        return tenant.assets.district(task["assetID"])
    company = tenant.collections["companies"].get(task.get("companyID"))
    return company.get("districtID") if company else None


def _below_assets(tenant, values):
    """The asset or anything that stands in it."""
    wanted = frozenset(values)
    return lambda task: "assetID" in task and not wanted.isdisjoint(tenant.assets.ancestors(task["assetID"]))


def _texts(tenant, task):
    texts = [task.get(field) for field in ("number", "notes", "erpID", "contactPerson", "contactPhone", "contactEmail")]
    if "companyID" in task:
        texts.append(tenant.collections["companies"][task["companyID"]]["name"])
    if "assetID" in task:
        texts.append(tenant.assets.get(task["assetID"])["name"])
    if "locationID" in task:
        texts.append(tenant.collections["locations"][task["locationID"]]["address"])
    return texts


def _attribute_map(text):
    """'{"8": "1", "5": ["1", "2"]}' -> ((8, {"1"}), (5, {"1", "2"}))"""
    try:
        pairs = json.loads(text).items()
        return tuple((q_int(key), frozenset(value if isinstance(value, list) else [value])) for key, value in pairs)
    except (ValueError, AttributeError, TypeError) as error:
        raise WrongType(text) from error


def _with_attributes(tenant, values):
    return lambda task: all(task.get("attributes", {}).get(attribute) in wanted for attribute, wanted in values[0])


TASK_FILTERS = {
    "searchText": search(_texts),
    "taskID": one_of("id", index="id"),
    "taskNumber": one_of("number", q_text, index="number"),
    "erpID": one_of("erpID", q_text, index="erpID"),
    "parentID": one_of("parentID", index="parentID"),
    "taskTypeID": one_of("taskTypeID"),
    "workTypeID": one_of("workTypeID"),
    "taskStageID": one_of("taskStageID"),
    "taskStatusID": one_of("taskStatusID"),
    "branchID": one_of("branchID"),
    "criticalityID": one_of("criticalityID"),
    "companyID": one_of("companyID"),
    "contractID": one_of("contractID"),
    "payeeCompanyID": one_of("payeeCompanyID"),
    "requestMethodID": one_of("requestMethodID"),
    "taskTemplateID": one_of("taskTemplateID", q_text),
    "assetID": one_of("assetID"),
    "startWithAssetID": Filter(q_int, _below_assets),
    "assetTypeID": derived(_asset_field("assetTypeID")),
    "assetClassID": derived(_asset_field("assetClassID")),
    "districtID": derived(_district),
    "requestedBy": one_of("requestedByUserID"),
    "assignedTo": any_of("assignees"),
    "approvalWith": one_of("approvalWithUserID"),
    "escalatedTo": one_of("escalatedToUserID"),
    "contactID": any_of("contactIDs"),
    **period("creation", "created"),
    **period("assignation", "assigned"),
    **period("completion", "completed"),
    **period("closing", "closed"),
    **period("deadline", "deadline"),
    **period("lastModified", "lastModified"),
    "isClosed": has("closed"),
    "isCompleted": has("completed"),
    "isAssigned": has("assignees"),
    "isDeleted": has("deleted"),
    "isOutdated": flag(outdated_since),
    "isFavourite": has("favourite"),
    "isRated": flag(lambda tenant, task: average_rating(task)),
    "isScheduled": has("scheduledStart"),
    "hasAssigneeCheckedIn": has("checkedIn"),
    "attributeValues": Filter(_attribute_map, _with_attributes),
}

CREATION_DATE, LAST_MODIFICATION = 1, 8
ASCENDING, DESCENDING = 1, 2


def _company_name(tenant, task):
    return tenant.collections["companies"][task["companyID"]]["name"] if "companyID" in task else ""


# What the ids of GET /WORK/TaskOrderBy sort by.
_SORT_KEYS = {
    CREATION_DATE: lambda tenant, task: task["created"],
    2: lambda tenant, task: task["number"],
    4: lambda tenant, task: task.get("deadline", ""),
    5: lambda tenant, task: task.get("criticalityID", 0),
    LAST_MODIFICATION: lambda tenant, task: task["lastModified"],
    11: _company_name,
    13: lambda tenant, task: task["taskStageID"],
}


def sort_tasks(call, tenant, tasks):
    """Sorts in place, as orderBy and sortDirection ask, what comes in order of id (the order of storage).

    An orderBy out of its domain falls back to the creation date; a sortDirection out of its domain turns sorting off
    silently, which leaves the order of storage; a text for either is 409.
    """
    order = parameter(call, "orderBy", q_int, CREATION_DATE)
    direction = parameter(call, "sortDirection", q_int, DESCENDING)
    if direction in (ASCENDING, DESCENDING):
        key = _SORT_KEYS.get(order, _SORT_KEYS[CREATION_DATE])
        if direction == DESCENDING:
            tasks.reverse()         # the sort is stable in both directions: this turns the ties round as well
        tasks.sort(key=lambda task: key(tenant, task), reverse=direction == DESCENDING)
