"""Reading tasks: `GET` and `HEAD /WORK/Tasks`, one task, the count that is unreliable."""
from wire.filters import parameter, selection
from wire.messages import Refusal, json_answer, not_found
from wire.paging import count, page
from wire.routing import Routes
from wire.values import q_moment

from .task_filters import TASK_FILTERS, sort_tasks
from .task_views import detail, list_json

ROUTES = Routes()


def task_of(tenant, task_id):
    """The task an address names; 404 where there is none. A soft-deleted one is there."""
    task = tenant.tasks.get(task_id)
    if task is None:
        raise not_found("Task", task_id)
    return task


def _selected(tenant, call):
    """The tasks asked for; those that the list hides are left out, unless they are asked for by id."""
    chosen = selection(call, tenant, TASK_FILTERS)
    tasks = chosen.of(tenant.tasks.find(*chosen.index) if chosen.index else tenant.tasks)
    hidden = tenant.hidden["tasks"]
    if hidden and not call.values("taskID"):
        tasks = [task for task in tasks if task["id"] not in hidden]
    return tasks


@ROUTES("GET", "/WORK/Tasks")
def list_tasks(tenant, call):
    tasks = _selected(tenant, call)
    sort_tasks(call, tenant, tasks)
    return page(call, tasks, lambda task: (task["id"], list_json(tenant, task)))


@ROUTES("HEAD", "/WORK/Tasks")
def count_tasks(tenant, call):
    return count(len(_selected(tenant, call)))


@ROUTES("GET", "/WORK/Tasks/{id}")
def get_task(tenant, call):
    return json_answer(200, detail(tenant, task_of(tenant, call.ids[0])))


@ROUTES("GET", "/WORK/Tasks/count")
def count_by_day(tenant, call):
    """500 without both dates; with them a map from day of creation to numbers of tasks."""
    first, last = (parameter(call, name, q_moment) for name in ("dateFrom", "dateTill"))
    if first is None or last is None:
        raise Refusal(500, "InternalServerError", "Object reference not set to an instance of an object.")
    days = {}
    for task in _selected(tenant, call):
        if first <= task["created"] <= last:
            day = days.setdefault(task["created"][:10], {"countWithAssign": 0, "countWithoutAssign": 0})
            day["countWithAssign" if "assignees" in task else "countWithoutAssign"] += 1
    return json_answer(200, dict(sorted(days.items())))
