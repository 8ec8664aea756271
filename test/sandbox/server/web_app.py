"""The aiohttp application. Routes are the sandbox's own (case-insensitive, one dictionary look-up a segment)."""
import asyncio

from aiohttp import web

from wire.messages import not_found

from .app import API, CONTROL
from .connection import connection_factory, current_connection
from .control import answer_control

_LARGEST_BODY = 256 * 2**20
_BACKLOG = 1024


def _below(root, path):
    """What follows the root in the path, or None where it does not begin with it."""
    rest = path[len(root):]
    return rest if path[:len(root)].lower() == root and rest[:1] in ("/", "") else None


async def _no_type_of_nothing(request, response):
    """aiohttp names a content type for an empty body as well; the live server does not."""
    if response.content_length == 0:
        response.headers.popall("Content-Type", None)


async def listen(sandbox, host, port, tls=None, access_log=None):
    """Starts to listen -> the port."""
    async def anything(request):
        connection = current_connection()
        path = request.rel_url.raw_path
        below = _below(CONTROL, path)
        if below is not None:
            return await answer_control(sandbox, request, below)
        below = _below(API, path)
        if below is None:
            answer = not_found("Address", path).answer("outside")
        else:
            answer = await sandbox.serve(request, connection, below)
        return await sandbox.send(answer, request, connection)

    app = web.Application(client_max_size=_LARGEST_BODY)
    app.on_response_prepare.append(_no_type_of_nothing)
    app.router.add_route("*", "/{path:.*}", anything)
    runner = web.AppRunner(app, access_log=access_log, handle_signals=False)
    await runner.setup()
    connections = connection_factory(runner.server, sandbox.journal.last_connection + 1)
    server = await asyncio.get_running_loop().create_server(connections, host, port, ssl=tls, backlog=_BACKLOG)
    return server.sockets[0].getsockname()[1]
