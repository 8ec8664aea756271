"""A server whose answers are what the request asks for, byte by byte: pages of any shape, in pieces of any size.

    python3 test/sandbox/pages.py [--port 0] [--ready-file PATH] [--parent PID]

GET .../PIECE-HEX/... is answered with 200 and the bytes that HEX stands for, PIECE of them at a time (0: all at once)
with a pause between. The headers promise all of them. The ready file holds {"url", "port", "pid"}.
"""
import argparse
import asyncio
import contextlib
import os
import re

from process import end_with, write_ready_file

HOST = "127.0.0.1"
_PAUSE = 0.0005         # enough for a client to see the pieces one by one
_PATH = re.compile(rb"GET [^ ]*/(\d+)-((?:[0-9a-f]{2})*)/")


async def _answer(reader, writer, gone):
    head = await reader.readuntil(b"\r\n\r\n")
    asked = _PATH.match(head)
    if asked is None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    piece, body = int(asked[1]), bytes.fromhex(asked[2].decode())
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
                 % len(body))
    for at in range(0, len(body), piece or len(body) or 1):
        writer.write(body[at:at + (piece or len(body))])
        await writer.drain()
        if piece:
            await asyncio.wait((gone,), timeout=_PAUSE)     # at most so long: the client may go away before


async def _serve(reader, writer):
    gone = asyncio.ensure_future(writer.wait_closed())
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            await _answer(reader, writer, gone)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await gone


async def _run(arguments):
    end_with(arguments.parent)
    server = await asyncio.start_server(_serve, HOST, arguments.port, limit=2**22)
    port = server.sockets[0].getsockname()[1]
    url = f"http://{HOST}:{port}/fsm"
    print(f"pages: {url}", flush=True)
    if arguments.ready_file:
        write_ready_file(arguments.ready_file, {"url": url, "port": port, "pid": os.getpid()})
    await server.serve_forever()


def _arguments():
    parser = argparse.ArgumentParser(description="A server of pages.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", metavar="PATH")
    parser.add_argument("--parent", type=int, metavar="PID")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(_run(_arguments()))
