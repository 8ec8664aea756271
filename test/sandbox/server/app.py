"""The way of a request: journal, fault, gate, endpoint, fault, answer.

An endpoint runs to its end without waiting, so two requests never see each other's half-done work.
"""
import logging
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from api import ROUTE_TABLES
from tenant.clock import Clocks
from tenant.store import Tenant
from wire.messages import Answer, Call, Refusal, not_found
from wire.routing import Router

from .auth import Gate, Tokens
from .changes import Changes, Draw, Mistake
from .fault_kinds import Scene
from .faults import Faults
from .history import History
from .journal import Journal
from .versions import Versions

API, CONTROL = "/fsm", "/_sandbox"
_WRITES = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_log = logging.getLogger("sandbox")


def change(tenant, request):
    """-> what was done; ValueError says what is wrong with the request"""
    if not isinstance(request, dict):
        raise Mistake("an object is needed")
    if "do" in request:
        if len(request) > 1 or not isinstance(request["do"], list):
            raise Mistake("do: a list of orders, and nothing beside it")
        changes = Changes(tenant)
        return [changes.do(order) for order in request["do"]]
    return Draw(tenant, request).do()


class Sandbox:
    """All there is: the tenant, who signed in, the faults, the journal. A reset makes it anew.

    With a `state` file it goes on from what that tells.
    """

    def __init__(self, settings, seed, tasks, assets, state=None):
        self._seed_arguments = (seed, tasks, assets)
        self._first_settings = settings.shown()
        self.settings = settings
        self.clocks = Clocks(settings)
        self.journal = Journal()
        self._grow()
        self._history = History(state, {"seed": seed, "tasks": tasks, "assets": assets})
        self._history.replay(self.tenant, self.journal, change)

    def _grow(self):
        seed, tasks, assets = self._seed_arguments
        self.tenant = Tenant(seed, tasks, assets)
        self.tokens = Tokens(self.settings, seed, self.clocks)
        self.faults = Faults(seed)
        self._gate = Gate(self.settings, self.tokens)
        self._router = Router(self.tokens.routes(), *ROUTE_TABLES)
        self.versions = None

    def reset(self, grow=None):
        """Back to the seed and the settings of the command line; journal, faults and tokens are emptied.

        `grow` may name another seed, or other numbers of tasks and assets, where no state is kept.
        """
        seed, tasks, assets = self._seed_arguments
        if grow:
            names = {"seed": seed, "tasks": tasks, "assets": assets}
            if not isinstance(grow, dict) or not set(grow) <= set(names) or self._history.is_kept() or \
                    any(type(value) is not int or value < 0 for value in grow.values()):
                raise ValueError("seed, tasks, assets: whole numbers, where no state is kept")
            self._seed_arguments = tuple({**names, **grow}.values())
        self.settings.update(self._first_settings)
        self.journal.clear()
        self._history.forget()
        self._grow()
        self._seed_arguments = seed, tasks, assets

    def clear_journal(self):
        self.journal.clear()
        self._history.cleared()

    def tick(self):
        """It is now, by the clocks."""
        self.tenant.moments = self.clocks.moments()

    def change(self, request):
        """Does what other clients do, {"do": [orders]} or what Draw takes -> what was done"""
        self.tick()
        self._history.changed(request, self.tenant.moments)
        return change(self.tenant, request)

    def keep_versions(self, keep):
        self.tick()
        if self.versions is not None:
            self.versions.end()
        self.versions = Versions(self.tenant) if keep else None

    def export(self, path, query):
        """What the list at a path holds, whole, as the API shows it -> JSON; Refusal where it is no list."""
        route, ids = self._router.find("GET", path)
        if route is None:
            raise not_found("List", path)
        call = Call("GET", path, query, {"Range": "items=1-999999999"})
        call.ids = ids
        self.tick()
        hidden, self.tenant.hidden = self.tenant.hidden, {of: set() for of in self.tenant.hidden}
        pages, self.tenant.assets.pages = self.tenant.assets.pages, {}
        try:
            return route.handler(self.tenant, call).body
        finally:
            self.tenant.hidden, self.tenant.assets.pages = hidden, pages

    async def serve(self, request, connection, path):
        """A request under /fsm, for `path` there."""
        query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
        entry = self.journal.open(connection.arrival(), request.method, path, query, request.headers, connection.number)
        answer = Answer(None)
        try:
            entry.body = await request.content.read()
            connection.request_read()
            call = Call(request.method, unquote(path), query, request.headers, entry.body)
            call.page_limit = self.settings.page_limit
            answer = await self._answer(call, entry, connection)
        except (ConnectionError, web.RequestPayloadError):
            _log.debug("the client went away before its request was whole")
        finally:
            self.journal.close(entry, None if connection.lost.done() else answer.status, answer.size(request.method))
            self._history.answered(entry)
        return answer

    async def _answer(self, call, entry, connection):
        token = self.tokens.find(call.headers)
        if token is not None:
            entry.token = token.number
        fault = self.faults.pick(call)
        scene = Scene(connection, token, call, self.tenant, self.tick)
        if fault is not None:
            entry.fault = fault.label or fault.name
        self._history.came(entry)
        if fault is not None and fault.kind.before:
            answer = await fault.kind.before(fault, scene)
            if answer is not None:
                return answer
        answer = self._work(call, token, entry, f"0HS{connection.number:08X}:{entry.number:08X}")
        if fault is not None and fault.kind.after:
            answer = await fault.kind.after(fault, scene, answer)
        return answer

    def _work(self, call, token, entry, trace):
        try:
            route, call.ids = self._router.find(call.method, call.path)
            self._gate.admit(call, token, route is not None and route.anonymous)
            if route is None:
                raise not_found("Endpoint", f"{call.method} {call.path}")
            self.tick()
            answer = route.handler(self.tenant, call)
        except Refusal as refusal:
            return refusal.answer(trace)
        except Exception:
            _log.exception("%s %s", call.method, call.path)
            return Refusal(500, "InternalServerError", "The sandbox failed; see its log").answer(trace)
        if call.method in _WRITES and answer.status < 400 and not route.anonymous:
            answer.headers["X-Last-Lsn"] = self.tenant.written()
            entry.created, entry.write = call.created, self.tenant.writes
            self._history.did(entry, self.tenant.moments)
        return answer


    async def send(self, answer, request, connection):
        """-> the response for aiohttp to finish."""
        if request.method != "HEAD":
            if answer.cut is not None:
                return await _send_cut(answer, request, connection)
            if answer.pause is not None:
                with self.journal.still_in_flight():
                    return await _send_slowly(answer, request, connection)
        return web.Response(status=answer.status or 500, body=answer.body, headers=answer.headers)


async def _begin(answer, request):
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    return response


async def _send_cut(answer, request, connection):
    """Status line and headers whole, the body not."""
    response = await _begin(answer, request)
    await response.write(answer.body[:answer.cut])
    connection.transport.close()        # sends what is buffered first
    await connection.lost
    return response


async def _send_slowly(answer, request, connection):
    """The body in pieces, with a pause after each but the last."""
    response = await _begin(answer, request)
    for start in range(0, len(answer.body), answer.piece):
        if start:
            await connection.wait(answer.pause)
        if connection.lost.done():
            break
        await response.write(answer.body[start:start + answer.piece])
    return response
