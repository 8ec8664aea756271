"""The kinds of faults: what each does, and the parameters it takes.

Those of the first group act before the work, and most keep it from being done; those of the second act on the answer,
when the work is done. An Answer without a status is never sent.
"""
import json
import re
from typing import Any, Callable, Mapping, NamedTuple, Optional

from multidict import CIMultiDict

from api.task_writes import new_task
from wire.messages import Answer, json_bytes

from .auth import throttled
from .changes import Draw, Mistake, check_draw


class Scene(NamedTuple):
    """What a fault may act on."""

    connection: Any
    token: Any          # the access token used, or None
    call: Any
    tenant: Any
    tick: Callable      # to be called before the tenant is changed


# Before the work: `(fault, scene)` -> the Answer that stands in for it, or None to go on.

async def _status(fault, scene):
    return _made_up(fault)


async def _drop_before(fault, scene):
    await scene.connection.cut()
    return Answer(None)


async def _delay_before(fault, scene):
    await scene.connection.wait(fault.parameters["seconds"])


async def _hang(fault, scene):
    await scene.connection.lost
    return Answer(None)


async def _throttle(fault, scene):
    return throttled(fault.parameters.get("retry_after", 1)).answer("fault")


async def _expire(fault, scene):
    if scene.token is not None:
        scene.token.revoked = True


async def _mutate(fault, scene):
    """What other clients do just before. It is the newest that go, so that the pages of the usual sort shift."""
    tenant, parameters = scene.tenant, fault.parameters
    scene.tick()
    for task in _tasks(tenant, parameters.get("delete", 0)):
        tenant.touch(task, deleted=tenant.now())
    for task in _tasks(tenant, parameters.get("modify", 0)):
        tenant.touch(task, notes=f"{task.get('notes', '')} +")
    for number in range(parameters.get("create", 0)):
        new_task(tenant, {"taskTypeID": 2, "requestMethodID": 4, "notes": f"mutate {number}"})
    drawn = parameters.get("changes")
    if drawn:
        Draw(tenant, {**drawn, "seed": f"{drawn.get('seed', 0)}:{fault.fired}"}).do()
    tenant.changed()


def _tasks(tenant, which):
    """So many of the newest that are not deleted, or those of the ids."""
    if isinstance(which, list):
        return [task for task in map(tenant.tasks.get, which) if task is not None]
    alive = [task for task in tenant.tasks if "deleted" not in task]
    return sorted(alive, key=lambda task: task["created"])[len(alive) - which:] if which else []


async def _no_content_range(fault, scene):
    """As if no page had been asked for."""
    call = scene.call
    call.headers = CIMultiDict((name, text) for name, text in call.headers.items() if name.lower() != "range")
    call.query = [(name, text) for name, text in call.query if name not in ("offset", "fetch")]


# After the work: `(fault, scene, answer)` -> the Answer to send.

async def _status_after(fault, scene, answer):
    return _made_up(fault)


async def _drop_after(fault, scene, answer):
    return await _drop_before(fault, scene)


async def _mutate_after(fault, scene, answer):
    """The answer tells of the time before."""
    await _mutate(fault, scene)
    await scene.connection.wait(fault.parameters.get("seconds", 0))
    return answer


async def _delay(fault, scene, answer):
    await scene.connection.wait(fault.parameters["seconds"])
    return answer


async def _hang_after(fault, scene, answer):
    return await _hang(fault, scene)


async def _truncate(fault, scene, answer):
    answer.cut = min(fault.parameters.get("bytes", len(answer.body) // 2), len(answer.body))
    return answer


async def _slow_body(fault, scene, answer):
    answer.piece, answer.pause = fault.parameters["bytes"], fault.parameters["seconds"]
    return answer


async def _not_json(fault, scene, answer):
    return Answer(answer.status, b"<html><body><h1>Service page</h1></body></html>", content_type="text/html")


async def _bad_json(fault, scene, answer):
    answer.body = answer.body[:len(answer.body) // 2] or b"{"
    answer.headers.setdefault("Content-Type", "application/json; charset=utf-8")
    return answer


async def _content_range(fault, scene, answer):
    answer.headers["Content-Range"] = fault.parameters["value"]
    return answer


async def _empty(fault, scene, answer):
    """A page of nothing of a list that holds something."""
    answer.body = b"[]" if answer.body.startswith(b"[") else b"{}"
    if "Content-Range" in answer.headers:
        answer.headers["Content-Range"] = re.sub(r"\d+-\d+", "0-0", answer.headers["Content-Range"])
    return answer


async def _shrink(fault, scene, answer):
    """The list is said to be shorter than it is, though not shorter than the page."""
    match = re.fullmatch(r"items=(\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
    if match:
        first, last, total = map(int, match.groups())
        total = max(total - fault.parameters.get("by", 1), last)
        answer.headers["Content-Range"] = f"items={first}-{last}/{total}"
    return answer


async def _reshape(fault, scene, answer):
    """The records have other members than they used to: a version of the API that nobody told of."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return answer
    if answer.status >= 300 or not isinstance(body, (dict, list)):
        return answer
    one = isinstance(body, dict) and not all(isinstance(record, dict) for record in body.values())
    for record in [body] if one else list(body.values() if isinstance(body, dict) else body):
        if isinstance(record, dict):
            _reshape_record(record, fault.parameters.get("set", {}), fault.parameters.get("drop", []))
    answer.body = json_bytes(body)
    return answer


def _reshape_record(record, given, dropped):
    for path, value in given.items():
        *parents, name = path.split(".")
        place = record
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    for path in dropped:
        *parents, name = path.split(".")
        place = record
        for parent in parents:
            place = place.get(parent, {})
        place.pop(name, None)


def _made_up(fault):
    """A text is sent as it is, any other JSON value as JSON."""
    headers = dict(fault.parameters.get("headers", {}))
    body = fault.parameters.get("body")
    if body is None:
        return Answer(fault.parameters["status"], b"", headers)
    content_type = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json; charset=utf-8"
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = content_type
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else json_bytes(body)
    return Answer(fault.parameters["status"], content, headers)


# Checks of a fault's description

def check_status(value):
    return type(value) is int and 200 <= value <= 599


def check_seconds(value):
    return type(value) in (int, float) and value >= 0


def check_count(value):
    return type(value) is int and value >= 0


def check_text(value):
    return isinstance(value, str)


def check_share(value):
    return type(value) in (int, float) and 0 <= value <= 1


def check_flag(value):
    return isinstance(value, bool)


def check_headers(value):
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def check_retry_after(value):
    return check_text(value) or check_seconds(value)


def check_positive(value):
    return type(value) is int and value > 0


def check_tasks(value):
    return check_count(value) or (isinstance(value, list) and all(type(task_id) is int for task_id in value))


def check_changes(value):
    """Those that POST /changes would draw."""
    try:
        check_draw(value)
    except (Mistake, AttributeError):
        return False
    return True


def check_object(value):
    return isinstance(value, dict)


def check_texts(value):
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def check_anything(value):
    return True


class Kind(NamedTuple):
    before: Optional[Callable] = None
    after: Optional[Callable] = None
    required: Mapping = {}
    optional: Mapping = {}


_MADE_UP = {"body": check_anything, "headers": check_headers}
_MUTATIONS = {"create": check_count, "delete": check_tasks, "modify": check_tasks, "changes": check_changes}

KINDS = {
    "status": Kind(before=_status, required={"status": check_status}, optional=_MADE_UP),
    "status_after": Kind(after=_status_after, required={"status": check_status}, optional=_MADE_UP),
    "drop_before": Kind(before=_drop_before),
    "drop_after": Kind(after=_drop_after),
    "delay": Kind(after=_delay, required={"seconds": check_seconds}),
    "delay_before": Kind(before=_delay_before, required={"seconds": check_seconds}),
    "hang": Kind(before=_hang),
    "hang_after": Kind(after=_hang_after),
    "truncate": Kind(after=_truncate, optional={"bytes": check_count}),
    "slow_body": Kind(after=_slow_body, required={"bytes": check_positive, "seconds": check_seconds}),
    "not_json": Kind(after=_not_json),
    "bad_json": Kind(after=_bad_json),
    "throttle": Kind(before=_throttle, optional={"retry_after": check_retry_after}),
    "expire": Kind(before=_expire),
    "mutate": Kind(before=_mutate, optional=_MUTATIONS),
    "mutate_after": Kind(after=_mutate_after, optional={**_MUTATIONS, "seconds": check_seconds}),
    "content_range": Kind(after=_content_range, required={"value": check_text}),
    "no_content_range": Kind(before=_no_content_range),
    "empty": Kind(after=_empty),
    "shrink": Kind(after=_shrink, optional={"by": check_count}),
    "reshape": Kind(after=_reshape, optional={"set": check_object, "drop": check_texts}),
}
