"""The control address /_sandbox: the journal, faults, tokens, settings, what is stored. No sign-in, never journaled.

Answers JSON; a mistake is 400 or 404 with {"error": "what to do"}.
"""
import json
from urllib.parse import parse_qsl

from aiohttp import web

from wire.messages import Refusal, json_bytes
from wire.routing import Route, Router


class Json(bytes):
    """What is JSON already."""


class Mistake(Exception):
    def __init__(self, text, status=400):
        super().__init__(text)
        self.status = status


async def _body(request):
    try:
        return json.loads(await request.text())
    except ValueError as error:
        raise Mistake(f"the body is not JSON: {error}") from error


def _integer(text, name):
    try:
        return int(text)
    except ValueError as error:
        raise Mistake(f"{name}: {text!r} is not a number") from error


async def _journal(sandbox, request):
    since = _integer(request.query.get("since", "0"), "since")
    fields = request.query.get("fields")
    return sandbox.journal.shown(request.query.get("method"), request.query.get("path"), since,
                                 fields and fields.split(","))


async def _clear_journal(sandbox, request):
    sandbox.clear_journal()
    return {}


async def _summary(sandbox, request):
    return sandbox.journal.summary()


async def _add_fault(sandbox, request):
    try:
        return {"id": sandbox.faults.add(await _body(request))}
    except ValueError as error:
        raise Mistake(str(error)) from error


async def _faults(sandbox, request):
    return sandbox.faults.shown()


async def _clear_faults(sandbox, request):
    sandbox.faults.clear()
    return {}


async def _remove_fault(sandbox, request, number):
    if not sandbox.faults.remove(number):
        raise Mistake(f"there is no fault {number}", 404)
    return {}


async def _expire_tokens(sandbox, request):
    sandbox.tokens.expire_all()
    return {"issued": sandbox.tokens.issued}


async def _tokens(sandbox, request):
    return {"issued": sandbox.tokens.issued}


async def _config(sandbox, request):
    return sandbox.settings.shown()


async def _configure(sandbox, request):
    changes = await _body(request)
    if not isinstance(changes, dict):
        raise Mistake("an object of settings is needed")
    try:
        sandbox.settings.update(changes)
    except ValueError as error:
        raise Mistake(str(error)) from error
    return sandbox.settings.shown()


_ALWAYS_SHOWN = dict.fromkeys(("id", "number", "erpID", "created", "deleted", "stamp", "request"))


async def _tasks(sandbox, request):
    """As stored; the fields tests ask for most are there even where they are empty."""
    return [{**_ALWAYS_SHOWN, **task} for task in sandbox.tenant.tasks]


async def _state(sandbox, request):
    return {"seed": sandbox.tenant.seed, **sandbox.tenant.sizes()}


async def _change(sandbox, request):
    try:
        return sandbox.change(await _body(request))
    except ValueError as error:
        raise Mistake(str(error)) from error


async def _export(sandbox, request):
    query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
    path = request.query.get("path", "")
    try:
        return Json(sandbox.export(path, [(name, text) for name, text in query if name != "path"]))
    except Refusal as refusal:
        raise Mistake(f"path: {path!r} is no list: {refusal.code}", refusal.status) from refusal


async def _keep_versions(sandbox, request):
    sandbox.keep_versions(True)
    return {}


async def _versions(sandbox, request):
    if sandbox.versions is None:
        raise Mistake("versions are not kept: POST /versions first", 404)
    return Json(sandbox.versions.shown())


async def _forget_versions(sandbox, request):
    sandbox.keep_versions(False)
    return {}


async def _reset(sandbox, request):
    grow = await _body(request) if request.can_read_body else None
    try:
        sandbox.reset(grow)
    except ValueError as error:
        raise Mistake(str(error)) from error
    return {}


_ROUTER = Router([(method, path, Route(handler, True)) for method, path, handler in (
    ("GET", "journal", _journal), ("DELETE", "journal", _clear_journal), ("GET", "journal/summary", _summary),
    ("GET", "faults", _faults), ("POST", "faults", _add_fault), ("DELETE", "faults", _clear_faults),
    ("DELETE", "faults/{id}", _remove_fault), ("GET", "tokens", _tokens), ("POST", "tokens/expire", _expire_tokens),
    ("GET", "config", _config), ("POST", "config", _configure), ("GET", "tasks", _tasks), ("GET", "state", _state),
    ("POST", "changes", _change), ("GET", "export", _export), ("GET", "versions", _versions),
    ("POST", "versions", _keep_versions), ("DELETE", "versions", _forget_versions), ("POST", "reset", _reset))])


async def answer_control(sandbox, request, path):
    """-> the response to a request for `path` under the control address."""
    route, ids = _ROUTER.find(request.method, path)
    status = 200
    try:
        if route is None:
            raise Mistake(f"there is no {request.method} {path}; README.md lists what there is", 404)
        value = await route.handler(sandbox, request, *ids)
    except Mistake as mistake:
        status, value = mistake.status, {"error": str(mistake)}
    return web.Response(status=status, body=value if isinstance(value, Json) else json_bytes(value),
                        content_type="application/json")
