"""Faults: what goes wrong with the requests that match.

A fault is looked at when the request is here whole. The ones of the first table act before the work, and most keep it
from being done; those of the second act on the answer, when the work is done. An Answer without a status is never sent.
"""
import random
import re
from typing import Callable, Mapping, NamedTuple, Optional

from wire.messages import Answer, json_bytes

from .auth import throttled


# Before the work: `(fault, connection, token)` -> the Answer that stands in for it, or None to go on.

async def _status(fault, connection, token):
    return _made_up(fault)


async def _drop_before(fault, connection, token):
    await connection.cut()
    return Answer(None)


async def _delay_before(fault, connection, token):
    await connection.wait(fault.parameters["seconds"])


async def _hang(fault, connection, token):
    await connection.lost
    return Answer(None)


async def _throttle(fault, connection, token):
    return throttled(fault.parameters.get("retry_after", 1)).answer("fault")


async def _expire(fault, connection, token):
    if token is not None:
        token.revoked = True


# After the work: `(fault, connection, answer)` -> the Answer to send.

async def _status_after(fault, connection, answer):
    return _made_up(fault)


async def _drop_after(fault, connection, answer):
    return await _drop_before(fault, connection, None)


async def _delay(fault, connection, answer):
    await connection.wait(fault.parameters["seconds"])
    return answer


async def _hang_after(fault, connection, answer):
    return await _hang(fault, connection, None)


async def _truncate(fault, connection, answer):
    answer.cut = len(answer.body) // 2
    return answer


async def _not_json(fault, connection, answer):
    return Answer(answer.status, b"<html><body><h1>Service page</h1></body></html>", content_type="text/html")


async def _bad_json(fault, connection, answer):
    answer.body = answer.body[:len(answer.body) // 2] or b"{"
    answer.headers.setdefault("Content-Type", "application/json; charset=utf-8")
    return answer


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

def _check_status(value):
    return type(value) is int and 200 <= value <= 599


def _check_seconds(value):
    return type(value) in (int, float) and value >= 0


def _check_count(value):
    return type(value) is int and value >= 0


def _check_share(value):
    return type(value) in (int, float) and 0 <= value <= 1


def _check_text(value):
    return isinstance(value, str)


def _check_headers(value):
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _check_retry_after(value):
    return _check_text(value) or _check_seconds(value)


def _check_anything(value):
    return True


class Kind(NamedTuple):
    before: Optional[Callable] = None
    after: Optional[Callable] = None
    required: Mapping = {}
    optional: Mapping = {}


_MADE_UP = {"body": _check_anything, "headers": _check_headers}

KINDS = {
    "status": Kind(before=_status, required={"status": _check_status}, optional=_MADE_UP),
    "status_after": Kind(after=_status_after, required={"status": _check_status}, optional=_MADE_UP),
    "drop_before": Kind(before=_drop_before),
    "drop_after": Kind(after=_drop_after),
    "delay": Kind(after=_delay, required={"seconds": _check_seconds}),
    "delay_before": Kind(before=_delay_before, required={"seconds": _check_seconds}),
    "hang": Kind(before=_hang),
    "hang_after": Kind(after=_hang_after),
    "truncate": Kind(after=_truncate),
    "not_json": Kind(after=_not_json),
    "bad_json": Kind(after=_bad_json),
    "throttle": Kind(before=_throttle, optional={"retry_after": _check_retry_after}),
    "expire": Kind(before=_expire),
}
_MATCHING = {"method": _check_text, "path": _check_text, "fault": _check_text, "times": _check_count,
             "probability": _check_share, "after": _check_count, "label": _check_text}


class Fault:
    """One fault, its description checked: ValueError says what is wrong with it."""

    def __init__(self, number, description):
        if not isinstance(description, dict) or description.get("fault") not in KINDS:
            raise ValueError(f"fault: one of {', '.join(KINDS)} is needed")
        self.number = number
        self.name = description["fault"]
        self.kind = KINDS[self.name]
        self.label = description.get("label")       # what the journal calls it, else its name
        known = {**_MATCHING, **self.kind.required, **self.kind.optional}
        for name, value in description.items():
            if name not in known:
                raise ValueError(f"{name}: not a parameter of {self.name}, which takes {', '.join(known)}")
            if not known[name](value):
                raise ValueError(f"{name}: {value!r} does not do")
        for name in self.kind.required:
            if name not in description:
                raise ValueError(f"{name}: {self.name} needs it")
        self.parameters = {name: value for name, value in description.items() if name not in _MATCHING}
        self.method = description.get("method", "*").upper()
        self.path = description.get("path", "*")
        self.probability = description.get("probability")
        self.times = description.get("times", 1 if self.probability is None else None)
        self.after = description.get("after", 0)
        self.seen = 0
        self.fired = 0
        wildcards = ".*".join(re.escape(part) for part in self.path.split("*"))
        self._pattern = re.compile(wildcards, re.IGNORECASE | re.DOTALL)

    def fires(self, method, path, chance):
        if self.method not in ("*", method) or not self._pattern.fullmatch(path):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.fired >= self.times):
            return False
        if self.probability is not None and chance() >= self.probability:
            return False
        self.fired += 1
        return True

    def shown(self):
        view = {"id": self.number, "method": self.method, "path": self.path, "fault": self.name, "after": self.after,
                "label": self.label, "times": self.times, "probability": self.probability, **self.parameters}
        view = {name: value for name, value in view.items() if value is not None}
        return {**view, "seen": self.seen, "fired": self.fired}


class Faults:
    """The faults in order of creation."""

    def __init__(self, seed):
        self._chance = random.Random(f"{seed}:faults").random
        self._faults = {}
        self._count = 0

    def add(self, description):
        fault = Fault(self._count + 1, description)
        self._count = fault.number
        self._faults[fault.number] = fault
        return fault.number

    def remove(self, number):
        """-> was it there?"""
        return self._faults.pop(number, None) is not None

    def clear(self):
        self._faults.clear()

    def shown(self):
        return [fault.shown() for fault in self._faults.values()]

    def pick(self, method, path):
        """The first that fires, or None; the ones after it do not see the request."""
        for fault in self._faults.values():
            if fault.fires(method, path, self._chance):
                return fault
        return None
