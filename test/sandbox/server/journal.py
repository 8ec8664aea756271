"""The journal: what came in, as it came in. Entries are made when a request arrives, so one that hangs is there too.

It is kept whole until it is emptied: about a kilobyte a request. Text that repeats in every request (header names,
the access token) is kept once.
"""
import base64
import time
from contextlib import contextmanager
from sys import intern

_SIGN_IN = "/authz/accesstokens"


class Entry:
    __slots__ = ("number", "time", "finished", "method", "path", "query", "headers", "body", "connection", "status",
                 "fault", "created", "token", "write", "bytes", "in_flight")

    def __init__(self, number, arrived, method, path, query, headers, connection):
        self.number = number
        self.time = arrived
        self.finished = None
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = b""
        self.connection = connection
        self.status = None
        self.bytes = None       # of the body of the answer
        self.in_flight = 1      # how many requests were being answered when this one came, itself among them
        self.fault = None
        self.created = None
        self.token = None
        self.write = None       # which of all writes it was: requests are numbered as they arrive, writes as they are done

    def kept(self):
        """What is known of it before it is worked on, to be made again from by Journal.restore."""
        return {"number": self.number, "arrived": self.time, "method": self.method, "path": self.path,
                "query": self.query, "headers": self.headers, "connection": self.connection,
                "body": self.body.decode("latin-1"), "fault": self.fault, "token": self.token,
                "in_flight": self.in_flight}

    def shown(self):
        view = {"n": self.number, "time": self.time, "finished": self.finished, "method": self.method,
                "path": self.path, "query": self.query, "range": self.headers.get("range"), "headers": self.headers,
                "body": None}
        if self.body:
            try:
                view["body"] = self.body.decode("utf-8")
            except UnicodeDecodeError:
                view["body_base64"] = base64.b64encode(self.body).decode("ascii")
        view.update(connection=self.connection, status=self.status, bytes=self.bytes, in_flight=self.in_flight, fault=self.fault,
                    token=self.token, write=self.write)
        if self.created:
            view["effect"] = {"created": self.created}
        return view


def _headers(headers):
    """{lower-case name: value}, one that repeats joined by commas"""
    result = {}
    for name, value in headers.items():
        name = intern(name.lower())
        result[name] = f"{result[name]}, {value}" if name in result else intern(str(value))
    return result


class Journal:
    def __init__(self):
        self._count = 0
        self._in_flight = 0
        self.last_connection = 0
        self.clear()

    def clear(self):
        """Forgets the entries; numbers go on, so that `since` stays right."""
        self._entries = []
        self._max_in_flight = self._in_flight

    def open(self, arrived, method, path, query, headers, connection):
        """Notes a request whose headers are here."""
        self._count += 1
        entry = Entry(self._count, arrived, method, path, query, _headers(headers), connection)
        self._entries.append(entry)
        self.last_connection = max(self.last_connection, connection)
        self._in_flight += 1
        entry.in_flight = self._in_flight
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        return entry

    def close(self, entry, status, size):
        """The request has been answered with so many bytes, or (status None) dropped."""
        entry.status, entry.bytes = status, size
        entry.finished = time.time()
        self._in_flight -= 1

    @contextmanager
    def still_in_flight(self):
        """While an answer is sent slowly, which is after its request was closed."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def restore(self, kept):
        """Notes a request of an earlier life of the sandbox, from what Entry.kept() gave."""
        kept = dict(kept)
        body, fault, token, in_flight = (kept.pop(name) for name in ("body", "fault", "token", "in_flight"))
        entry = Entry(**{**kept, "headers": _headers(kept["headers"])})
        entry.body, entry.fault, entry.token, entry.in_flight = body.encode("latin-1"), fault, token, in_flight
        self._entries.append(entry)
        self._count = entry.number
        self.last_connection = max(self.last_connection, entry.connection)

    def find(self, number):
        """The entry of that number, or None where there is none any more."""
        for entry in reversed(self._entries):
            if entry.number <= number:
                return entry if entry.number == number else None
        return None

    def drop_open(self, moment):
        """What had no answer when the sandbox ended will not have one."""
        for entry in self._entries:
            if entry.finished is None:
                entry.finished = moment

    def shown(self, method=None, path=None, since=0, fields=None):
        """The entries, or those of a method, a path, above a number; all that is known of them, or some fields."""
        method, path = method and method.upper(), path and path.lower()
        shown = [entry.shown() for entry in self._entries
                 if entry.number > since and (not method or entry.method == method)
                 and (not path or entry.path.lower() == path)]
        return shown if fields is None else [{name: view[name] for name in fields if name in view} for view in shown]

    def summary(self):
        """Requests by method and path and by what was answered; those without an answer yet count as "pending"."""
        by, sign_ins, size = {}, 0, 0
        for entry in self._entries:
            outcome = "pending" if entry.finished is None else "dropped" if entry.status is None else str(entry.status)
            outcomes = by.setdefault(f"{entry.method} {entry.path}", {})
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            size += entry.bytes or 0
            sign_ins += entry.method == "POST" and entry.path.lower() == _SIGN_IN
        return {"requests": len(self._entries), "by": by, "sign_ins": sign_ins, "bytes": size,
                "max_in_flight": self._max_in_flight}
