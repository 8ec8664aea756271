"""What the sandbox does, in a file, so that one that is started again goes on where the last one ended, however it ended.

The file is a log of lines, each an array in JSON, which are only ever added:

    ["grew", {"seed", "tasks", "assets"}]               first: what the data grow from
    ["came", {entry}]                                   a request is here, whole
    ["did", number, write, moments, [ids it created]]   its endpoint has done its work
    ["answered", number, moment, status, bytes]         its answer is sent, or it was dropped
    ["changed", request, moments]                       the control address changed what the request says
    ["cleared"]                                         the journal was emptied

A line is with the kernel before the next step is taken. So what anybody was ever answered for is there after kill -9,
but not after a crash of the machine: nothing is synced. A last line that is cut off spoke of a step that was not taken.

At the start the requests that did something are done again, in their order and at their moments, by the endpoints
themselves. Sign-ins, faults, what faults changed, and settings are forgotten.
"""
import json
import os
import time
from contextlib import suppress
from urllib.parse import unquote

from multidict import CIMultiDict

from api import ROUTE_TABLES
from tenant.clock import Moments
from wire.messages import Call
from wire.routing import Router


class NotItsHistory(Exception):
    """The file tells of another sandbox than this one."""


class History:
    """The log in the file `path`; with None, nothing is kept."""

    def __init__(self, path, grew):
        self._grew = grew
        self._file = None
        self._told = []
        if path is not None:
            self._file = open(path, "a+b", buffering=0)
            self._told = self._read()
            if not self._told:
                self._add("grew", grew)

    def _read(self):
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        os.truncate(self._file.fileno(), whole)
        return [json.loads(line) for line in content[:whole].splitlines()]

    def _add(self, *line):
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    def came(self, entry):
        self._add("came", entry.kept())

    def did(self, entry, moments):
        self._add("did", entry.number, entry.write, moments, entry.created or [])

    def changed(self, request, moments):
        self._add("changed", request, moments)

    def answered(self, entry):
        self._add("answered", entry.number, entry.finished, entry.status, entry.bytes)

    def cleared(self):
        self._add("cleared")

    def is_kept(self):
        return self._file is not None

    def forget(self):
        """Begins anew."""
        if self._file is not None:
            os.truncate(self._file.fileno(), 0)
            self._add("grew", self._grew)

    def replay(self, tenant, journal, change):
        """Does again what the file told when it was opened; `change(tenant, request)` does what the control address did."""
        if self._told and self._told[0] != ["grew", self._grew]:
            raise NotItsHistory(f"it is of a sandbox with {self._told[0][1]}, not {self._grew}")
        router = Router(*ROUTE_TABLES)
        for what, *line in self._told[1:]:
            if what == "came":
                journal.restore(line[0])
            elif what == "did":
                _do_again(tenant, router, journal.find(line[0]), *line[1:])
            elif what == "changed":
                tenant.moments = Moments(*line[1])
                with suppress(ValueError):      # it was refused then, too
                    change(tenant, line[0])
            elif what == "answered":
                number, moment, status, size = line
                entry = journal.find(number)
                if entry is not None:
                    entry.finished, entry.status, entry.bytes = moment, status, size
            else:
                journal.clear()
        journal.drop_open(time.time())
        self._told = []


def _do_again(tenant, router, entry, write, moments, created):
    call = Call(entry.method, unquote(entry.path), entry.query, CIMultiDict(entry.headers), entry.body)
    route, call.ids = router.find(call.method, call.path)
    tenant.moments = Moments(*moments)
    if route is not None:       # a sign-in has its route elsewhere
        route.handler(tenant, call)
    tenant.written()
    if call.created != created:
        raise NotItsHistory(f"request {entry.number} made {created}, and makes {call.created} now")
    entry.write, entry.created = write, created
