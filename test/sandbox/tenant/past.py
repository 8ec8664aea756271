"""The past of the tenant: tasks of the first half of 2025, with all that happened to them.

What state a task is in follows from its number alone (a repeating pattern of 20), so that any twenty tasks in a row
hold open, completed, closed, cancelled and deleted ones, and one that is closed AND deleted. Everything else is drawn
from the seed. All moments lie before END, well before any clock the sandbox runs under.
"""
import random
from datetime import datetime, timedelta

from .people import CUSTOMERS, DISPATCHERS, SERVICE_USER, TECHNICIANS
from .routes import (ACCEPTED, BRANCHES, CANCELLED, CLOSED, COMPLETED, ON_SITE, PHASES, ROUTES, START_STAGE,
                     STATUS_OF_STAGE, branch_of)

BEGIN, END = datetime(2025, 1, 13, 6, 0), datetime(2025, 7, 24, 18, 0)      # UTC
BULK_CHANGE = "2025-07-20T03:00:00"     # a nightly job that touched a tenth of all tasks in one second

# stage reached, deleted?
_PATTERN = ((1, False), (2, False), (8, False), (15, False), (12, False), (1, False), (15, False), (5, False),
            (3, False), (15, True), (14, False), (1, True), (9, False), (15, False), (8, False), (12, True),
            (2, False), (17, False), (6, False), (1, False))

# by asset class: work types and what customers write
_STORIES = {
    1: ((1, 2, 3, 4), ("Лифт остановился между 4 и 5 этажами, в кабине люди! 🚨",
                       "Двери закрываются и сразу открываются, табло показывает \"Er 07\"",
                       "Скрип при движении вверх.\nПросьба проверить башмаки и канат",
                       "Плановое ТО по графику; ключ от машинного помещения — у вахтёра")),
    2: ((7, 8, 9), ("Приточка не тянет, в зале душно. Фильтр 592×592 забит?",
                    "Вибрация вентилятора, слышно на 2-м этаже",
                    "Чиллер ушёл в аварию «низкое давление»; сброс C:\\alarms\\reset не помогает")),
    3: ((12, 13, 14, 17), ("Камера №3: +9 °C вместо −18 °C, товар тает 🥶",
                           "Витрина \"плачет\", лужа у кассы",
                           "Утечка фреона, пахнет маслом. Клиент просит быть до 12:00 & с актом",
                           "Льдогенератор не набирает воду\tпроверить клапан")),
    4: ((17, 21), ("Осмотр перед подписанием договора", "Консультация по смете: 100% предоплата?")),
}
_MESSAGES = ("Выезжаю, буду через 40 минут", "Нужна запчасть, заказал на складе «Юг»", "Готово 👍 акт подписан",
             "Клиент просит перенести на завтра", "Фото до/после приложил")
_TAGS = ("гарантия", "VIP", "повторная", "ночные работы")
_DAYS = {1: 1, 2: 2, 3: 5, 5: 14}       # criticality -> days until the deadline


def _text(moment):
    return moment.isoformat(timespec="seconds")


def _path(task_type, stage):
    """The shortest way from the start of the type's route to a stage; None where there is none."""
    paths = {START_STAGE: (START_STAGE,)}
    queue = [START_STAGE]
    for source in queue:
        for link_source, target in ROUTES[task_type]:
            if link_source == source and target not in paths:
                paths[target] = (*paths[source], target)
                queue.append(target)
    return paths.get(stage)


def grow_tasks(tenant, count):
    rng = random.Random(f"{tenant.seed}:past")
    paths = {(task_type, stage): _path(task_type, stage) for task_type in ROUTES for stage in PHASES}
    step = (END - BEGIN) / max(count, 1)
    for position in range(count):
        created = BEGIN + step * (position + rng.random() * .9)
        _grow_task(tenant, rng, position, created, paths)


def _grow_task(tenant, rng, position, created, paths):
    stage, deleted = _PATTERN[position % len(_PATTERN)]
    task_type = rng.choices((1, 2, 3, 6, 7), (4, 8, 4, 2, 2))[0]
    if paths[task_type, stage] is None:         # a short route leaves this stage out
        task_type = 2
    task = {"taskTypeID": task_type, "created": _text(created),
            "number": tenant.tasks.number(task_type, _text(created))}
    _describe(tenant, rng, task, position, created)
    last = _live_through(rng, task, paths[task_type, stage], created)
    if deleted:
        last = _later(rng, last, 48)
        task["deleted"] = _text(last)
    task["lastModified"] = _text(last)
    if position % 10 == 3 and task["lastModified"] < BULK_CHANGE:
        task["lastModified"] = BULK_CHANGE
    _gather(tenant, rng, tenant.tasks.add(task), last)


def _later(rng, moment, hours):
    """Up to so many hours later, but not after the END."""
    return min(moment + timedelta(seconds=rng.randint(300, hours * 3600)), END)


def _describe(tenant, rng, task, position, created):
    """What the customer, or the ERP, asked for."""
    asset_class = 4
    if len(tenant.assets) and rng.random() < .9:
        asset = tenant.assets.get(rng.randint(1, len(tenant.assets)))
        asset_class = asset["assetClassID"]
        task.update(assetID=asset["id"], companyID=asset["companyID"], locationID=asset["locationID"])
    else:
        task["companyID"] = rng.choice(list(tenant.collections["companies"])[1:])
        task["locationID"] = rng.choice(list(tenant.collections["locations"]))
    work_types, stories = _STORIES[asset_class]
    criticality = rng.choices((1, 2, 3, 5), (2, 3, 8, 2))[0]
    task.update(notes=rng.choice(stories), criticalityID=criticality, requestMethodID=rng.choice((1, 2, 3, 5, 6)),
                requestedByUserID=rng.choice(CUSTOMERS + DISPATCHERS))
    if rng.random() < .9:
        task["workTypeID"] = rng.choice(work_types)
    if rng.random() < .8:
        task["deadline"] = _text(created + timedelta(days=_DAYS[criticality], hours=rng.randint(0, 8)))
    if rng.random() < .45:
        task.update(erpID=f"ORD-2025-{position + 1:06d}", requestMethodID=4, requestedByUserID=SERVICE_USER)
    if rng.random() < .6:
        contact_id, contact = rng.choice(list(tenant.collections["contacts"].items()))
        task["contactPerson"] = contact["fullName"]
        task["contactIDs"] = [contact_id]
        for field, source in (("contactPhone", "phone"), ("contactEmail", "email")):
            if source in contact:
                task[field] = contact[source]
    contracts = [key for key, contract in tenant.collections["contracts"].items()
                 if contract["companyID"] == task["companyID"]]
    if contracts:
        task.update(contractID=contracts[0], serviceLevelAgreementID=1 + criticality // 3, payeeCompanyID=1,
                    payerCompanyID=task["companyID"])
    if task["taskTypeID"] == 1:
        task["faultTimestamp"] = _text(created - timedelta(minutes=rng.randint(5, 300)))
        if rng.random() < .3:
            task["escalatedToUserID"], task["escalated"] = 13, _text(created + timedelta(minutes=20))
    if task["taskTypeID"] == 3:
        task["taskTemplateID"] = "lift-monthly" if asset_class == 1 else "hvac-season"
        task["requestedStartDateTime"] = _text(created + timedelta(days=2))
        task["requestedFinishDateTime"] = _text(created + timedelta(days=3))
    if rng.random() < .1:
        task.update(estimatedCost=rng.randint(10, 900) * 100, estimatedCostCurrencyID=1,
                    estimatedTimeConsumptionMinutes=rng.choice((30, 60, 120)))
    if position > 20 and rng.random() < .06:
        task["parentID"] = tenant.tasks.latest(rng.randint(1, 20))["id"]


def _live_through(rng, task, path, created):
    """Walks the stages up to the one reached -> the moment of the last change."""
    moment, history = created, []
    for order, stage in enumerate(path, 1):
        if order > 1:
            moment = _later(rng, moment, 20)
        history.append({"taskStageID": stage, "completed": _text(moment), "sortOrder": order})
        phase = PHASES[stage]
        if stage == 2 or (order == 2 and phase != CANCELLED):
            crew = rng.sample(TECHNICIANS, 2 if rng.random() < .15 else 1)
            task.update(assignees=crew, assigned=_text(moment))
            if rng.random() < .5:
                task.update(scheduledStart=_text(moment + timedelta(hours=2)),
                            scheduledFinish=_text(moment + timedelta(hours=4)))
        if stage == ON_SITE:
            task["checkedIn"] = _text(moment)
        if phase == COMPLETED:
            task["completed"] = _text(moment)
        elif phase == ACCEPTED:
            task.update(accepted=_text(moment), signed=_text(moment),
                        acceptedPerson=task.get("contactPerson", "Клиент"))
        elif phase in (CLOSED, CANCELLED):
            task["closed"] = _text(moment)
            if phase == CLOSED:
                task.setdefault("completed", _text(moment))
    if PHASES[path[-1]] == COMPLETED and rng.random() < .5:
        task["approvalWithUserID"] = rng.choice(DISPATCHERS)
    branch = branch_of(path[-2], path[-1]) if len(path) > 1 else min(BRANCHES)
    task.update(taskStageID=path[-1], taskStatusID=STATUS_OF_STAGE[path[-1]], branchID=branch, stages=history)
    return moment


def _gather(tenant, rng, task, last):
    """What hangs on a task: messages, attributes, works, ratings, tags."""
    if rng.random() < .3:
        author = rng.choice(task.get("assignees", DISPATCHERS))
        for _ in range(rng.randint(1, 3)):
            message = {"message": rng.choice(_MESSAGES), "isExternal": rng.random() < .3, "created": _text(last),
                       "authorID": author, "taskID": task["id"]}
            task.setdefault("messageIDs", []).append(tenant.messages.add(message))
    if rng.random() < .35:
        task["attributes"] = {6: rng.choice(("true", "false")), 5: rng.choice("1234")}
        if rng.random() < .4:
            task["attributes"][8] = rng.choice("123")
    if "completed" in task and "workTypeID" in task:
        work = {"taskID": task["id"], "workTypeID": task["workTypeID"], "quantity": rng.randint(1, 3),
                "started": task["assigned"], "finished": task["completed"], "created": task["completed"]}
        if "assetID" in task:
            work["maintainedAssetID"] = task["assetID"]
        task["completedWorkIDs"] = [tenant.completed_works.add(work)]
    if "closed" in task and "assignees" in task and rng.random() < .4:
        task["ratings"] = [{"rating": rng.randint(3, 5), "technicianID": task["assignees"][0]}]
    if rng.random() < .15:
        task["tags"] = rng.sample(_TAGS, rng.randint(1, 2))
    if rng.random() < .05:
        task["favourite"] = True
    if rng.random() < .1:
        task["watcherIDs"] = [rng.choice(DISPATCHERS)]
    if rng.random() < .1:
        task["skillIDs"] = [rng.choice((1, 2, 4))]
