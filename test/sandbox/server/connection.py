"""TCP connections, as the faults and the journal need them: numbered, cut at will, and known to be gone.

aiohttp's protocol object knows none of this in public, so a thin protocol of our own stands between the transport and
it, hands everything on, and notes what passes. A handler finds its connection in a context variable: aiohttp's tasks
inherit the context in which the connection was made. So it is found even when the client has gone in the meantime, and
the request, which did arrive, is worked on. Only public interfaces of asyncio and aiohttp are leant on.
"""
import asyncio
import contextvars
import itertools
import time

_current = contextvars.ContextVar("connection")


def current_connection():
    """The connection of the request that is being handled."""
    return _current.get()


class Connection(asyncio.Protocol):
    def __init__(self, inner, number):
        self._inner = inner
        self._arrived = None
        self.number = number
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()      # done once the connection is gone

    def connection_made(self, transport):
        self.transport = transport
        context = contextvars.copy_context()
        context.run(_current.set, self)
        context.run(self._inner.connection_made, transport)

    def data_received(self, data):
        if self._arrived is None:
            self._arrived = time.time()
        self._inner.data_received(data)

    def eof_received(self):
        return self._inner.eof_received()

    def pause_writing(self):
        self._inner.pause_writing()

    def resume_writing(self):
        self._inner.resume_writing()

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(None)
        self._inner.connection_lost(exc)

    def arrival(self):
        """When the request at hand began to arrive, in unix seconds."""
        return self._arrived or time.time()

    def request_read(self):
        """The request at hand is here whole: what arrives from now on belongs to the next one."""
        self._arrived = None

    async def cut(self):
        """Drops the connection now; what was not sent is not sent."""
        self.transport.abort()
        await self.lost

    async def wait(self, seconds):
        """Waits so long, or less if the client goes away."""
        await asyncio.wait((self.lost,), timeout=seconds)


def connection_factory(protocol_factory, first):
    """Makes the protocol of each new connection, numbered from `first` on."""
    numbers = itertools.count(first)
    return lambda: Connection(protocol_factory(), next(numbers))
