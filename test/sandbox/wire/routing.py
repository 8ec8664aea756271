"""Routes: paths are case-insensitive, and every variable part of a path is a number.

A segment of digits therefore never competes with a literal one (`Tasks/5129` and `Tasks/restore`), and finding a
route is one dictionary look-up a segment. A path or method that is not declared is 404, whatever else the path can do:
so `HEAD` is 404 on the lists that do not declare it, as on COMMON/Contacts.
"""
from typing import Callable, NamedTuple


class Route(NamedTuple):
    handler: Callable       # (tenant, call) -> Answer
    anonymous: bool         # no access token needed


class Routes:
    """A table of routes that a module of endpoints fills: `@ROUTES("GET", "/WORK/Tasks/{id}")`."""

    def __init__(self):
        self._entries = []

    def __call__(self, method, path, anonymous=False):
        def declare(handler):
            self.add(method, path, handler, anonymous)
            return handler
        return declare

    def add(self, method, path, handler, anonymous=False):
        self._entries.append((method, path, Route(handler, anonymous)))

    def __iter__(self):
        return iter(self._entries)


_NUMBER = "{}"      # the key under which a node keeps the branch for a number; no literal segment holds a brace


class Router:
    def __init__(self, *tables):
        self._root = {}
        for table in tables:
            for method, path, route in table:
                node = self._root
                for segment in path.strip("/").split("/"):
                    key = _NUMBER if segment.startswith("{") else segment.lower()
                    node = node.setdefault(key, {})
                node[method] = route        # methods are upper case, segments lower: they share the node

    def find(self, method, path):
        """-> (Route or None, the numbers of the path)"""
        node, ids = self._root, []
        for segment in path.strip("/").lower().split("/"):
            if segment.isascii() and segment.isdigit():
                ids.append(int(segment[:20]))       # longer than any id; int() of a novel would take its time
                segment = _NUMBER
            node = node.get(segment)
            if node is None:
                return None, ()
        return node.get(method), tuple(ids)
