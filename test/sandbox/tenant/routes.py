"""Stages of a task and the routes between them.

A task type has a route: the stage and status a task starts with, the stage it ends with, and links from stage to
stage. A link carries the branch it leads into and the status it applies. What a stage means for the task itself (is it
completed, closed?) is its `phase`.
"""

BRANCHES = {1: {"name": "Основная"}, 2: {"name": "Отмена"}, 3: {"name": "Возврат"}}

TASK_STATUSES = {
    1: {"name": "Новая", "color": "#2D9CDB", "sortOrder": 1},
    2: {"name": "В работе", "color": "#F2C94C", "sortOrder": 2},
    3: {"name": "Приостановлена", "color": "#9B51E0", "sortOrder": 3},
    5: {"name": "Выполнена", "color": "#27AE60", "sortOrder": 4},
    6: {"name": "Закрыта", "color": "#828282", "sortOrder": 5},
    8: {"name": "Отменена", "color": "#4F4F4F", "sortOrder": 6},
}

OPEN, COMPLETED, ACCEPTED, CLOSED, CANCELLED = "open", "completed", "accepted", "closed", "cancelled"

# id: name, phase, status
_STAGES = {
    1: ("Новая", OPEN, 1),
    2: ("Назначена", OPEN, 1),
    3: ("Принята исполнителем", OPEN, 2),
    5: ("В пути", OPEN, 2),
    6: ("На объекте", OPEN, 2),
    8: ("В работе", OPEN, 2),
    9: ("Ожидание запчастей", OPEN, 3),
    12: ("Выполнена", COMPLETED, 5),
    14: ("Принята заказчиком", ACCEPTED, 5),
    15: ("Закрыта", CLOSED, 6),
    17: ("Отменена", CANCELLED, 8),
}

ON_SITE = 6             # reaching this stage is the check-in of the assignee
PHASES = {stage: phase for stage, (_, phase, _) in _STAGES.items()}
STAGE_OF_PHASE = {phase: stage for stage, phase in PHASES.items() if phase != OPEN}

TASK_STAGES = {stage: {"id": stage, "name": name, "color": TASK_STATUSES[status]["color"],
                       "isShowTechnicianOnMap": phase == OPEN}
               for stage, (name, phase, status) in _STAGES.items()}
STATUS_OF_STAGE = {stage: status for stage, (_, _, status) in _STAGES.items()}

TASK_TYPES = {
    1: {"name": "Аварийный ремонт", "numberMask": "01{MM}{N:9}", "isDefault": False, "closeMinutes": 1440},
    2: {"name": "Ремонт", "numberMask": "02{MM}{N:9}", "isDefault": True},
    3: {"name": "Плановое ТО", "numberMask": "03{MM}{N:9}", "isDefault": False, "closeMinutes": 2880},
    6: {"name": "Монтаж", "numberMask": "06{MM}{N:9}", "isDefault": False},
    7: {"name": "Консультация", "numberMask": "07{MM}{N:9}", "isDefault": False},
}

_FULL = ((1, 2), (1, 17), (2, 1), (2, 3), (2, 17), (3, 5), (3, 17), (5, 6), (6, 8), (8, 9), (9, 8), (8, 12), (12, 14),
         (12, 8), (12, 15), (14, 15))
_BRIEF = ((1, 2), (1, 17), (2, 8), (2, 17), (8, 9), (9, 8), (8, 12), (12, 8), (12, 15))
_TALK = ((1, 8), (1, 17), (8, 15))

ROUTES = {1: _FULL, 2: _FULL, 3: _FULL, 6: _BRIEF, 7: _TALK}
START_STAGE, FINISH_STAGE = 1, STAGE_OF_PHASE[CLOSED]


def branch_of(source, target):
    """The branch a link leads into: cancelling and sending back leave the main one."""
    if PHASES[target] == CANCELLED:
        return 2
    return 3 if PHASES[source] == COMPLETED and PHASES[target] == OPEN else 1


def _stage_links():
    records = {}
    for task_type, links in ROUTES.items():
        for order, (source, target) in enumerate(links, 1):
            branch, status = branch_of(source, target), STATUS_OF_STAGE[target]
            records[len(records) + 1] = {
                "taskTypeID": task_type, "sortOrder": order,
                "fromTaskStage": {"id": source, "name": TASK_STAGES[source]["name"]},
                "toTaskStage": {"id": target, "name": TASK_STAGES[target]["name"]},
                "branch": {"id": branch, **BRANCHES[branch]},
                "taskStatus": {"id": status, "name": TASK_STATUSES[status]["name"]},
                "isPositiveResult": PHASES[target] != CANCELLED,
            }
    return records


STAGE_LINKS = _stage_links()


def next_stages(task):
    """The stages the task may move to."""
    return [target for source, target in ROUTES[task["taskTypeID"]] if source == task["taskStageID"]]


def is_final(stage):
    return PHASES[stage] in (CLOSED, CANCELLED)
