"""Faults: what goes wrong with the requests that match. What can go wrong is in fault_kinds.py.

A fault is looked at when the request is here whole.
"""
import random
import re
from collections import Counter

from .fault_kinds import KINDS, check_count, check_flag, check_positive, check_share, check_text

_MATCHING = {"method": check_text, "path": check_text, "query": check_text, "range": check_text, "fault": check_text,
             "times": check_count, "probability": check_share, "after": check_count, "every": check_positive,
             "each": check_flag, "label": check_text}


def _wildcards(pattern):
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.IGNORECASE | re.DOTALL)


def _query(call):
    """The query as a fault matches it: decoded, in the order it was sent in."""
    return "&".join(f"{name}={text}" for name, text in call.query)


def _range(call):
    return call.headers.get("Range", "")


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
        self.probability = description.get("probability")
        self.times = description.get("times", 1 if self.probability is None else None)
        self.after = description.get("after", 0)
        self.every = description.get("every", 1)
        self.each = description.get("each", False)
        self.seen = 0
        self.fired = 0
        self._patterns = {name: _wildcards(description.get(name, "*")) for name in ("path", "query", "range")}
        self._shown = {name: value for name, value in description.items() if name in _MATCHING}
        self._fired_for = Counter()

    def _matches(self, call):
        return self.method in ("*", call.method) and all(
            self._patterns[name].fullmatch(text)
            for name, text in (("path", call.path), ("query", _query(call)), ("range", _range(call))))

    def fires(self, call, chance):
        if not self._matches(call):
            return False
        self.seen += 1
        request = (call.method, call.path.lower(), _query(call), _range(call)) if self.each else None
        if self.seen <= self.after or (self.seen - self.after) % self.every:
            return False
        if self.times is not None and self._fired_for[request] >= self.times:
            return False
        if self.probability is not None and chance() >= self.probability:
            return False
        self._fired_for[request] += 1
        self.fired += 1
        return True

    def shown(self):
        view = {"id": self.number, "method": self.method, "path": "*", "after": self.after, "times": self.times,
                **self._shown, **self.parameters}
        view = {name: value for name, value in view.items() if value is not None}
        return {**view, "method": self.method, "seen": self.seen, "fired": self.fired}


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

    def pick(self, call):
        """The first that fires, or None; the ones after it do not see the request."""
        for fault in self._faults.values():
            if fault.fires(call, self._chance):
                return fault
        return None
