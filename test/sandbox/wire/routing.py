"""Routes: paths are case-insensitive, and a variable part of a path is a number, `{id}`, or any text, `{key:text}`.

A literal segment goes before a number, a number before a text (`Tasks/restore`, `Tasks/5129`,
`TaskTemplates/lift-monthly`), and finding a route is two or three dictionary look-ups a segment. A path or method that is not declared is 404, whatever else the path can do: so
`HEAD` is 404 on the lists that do not declare it, as on COMMON/Contacts.
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


_NUMBER, _TEXT = "{}", "{:text}"    # the branches of a node for variable parts; no literal segment holds a brace


def _branch(segment):
    if not segment.startswith("{"):
        return segment.lower()
    return _TEXT if segment.endswith(":text}") else _NUMBER


def _branches(segment):
    """The branches a segment of a request may take, and what it is the value of there."""
    yield segment.lower(), ()
    if segment.isascii() and segment.isdigit():
        yield _NUMBER, (int(segment[:20]),)     # longer than any id; int() of a novel would take its time
    yield _TEXT, (segment,)


class Router:
    def __init__(self, *tables):
        self._root = {}
        for table in tables:
            for method, path, route in table:
                node = self._root
                for segment in path.strip("/").split("/"):
                    node = node.setdefault(_branch(segment), {})
                node[method] = route        # methods are upper case, segments lower: they share the node

    def find(self, method, path):
        """-> (Route or None, the numbers and texts of the path)"""
        return self._find(self._root, path.strip("/").split("/"), method) or (None, ())

    def _find(self, node, segments, method):
        if not segments:
            return (node[method], ()) if method in node else None
        for branch, value in _branches(segments[0]):
            found = branch in node and self._find(node[branch], segments[1:], method)
            if found:
                route, values = found
                return route, value + values
        return None
