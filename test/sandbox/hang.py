"""A server that hangs at one stage of a request, for clients that must be able to be interrupted at each of them.

    python3 test/sandbox/hang.py --mode connect|tls|headers|body [--port 0] [--ready-file PATH] [--parent PID]

    connect   the listen queue is full: connect() never completes
    tls       accepts the connection, never answers the handshake
    headers   reads the request, sends the status line and half a header, then nothing
    body      sends headers that promise 1000 bytes, and 10 bytes of them, then nothing

Nobody is cut off: a connection lasts until the client goes away or this process ends. The ready file holds
{"url": "http://127.0.0.1:PORT/fsm", "port", "pid"}; the url is https for tls.
"""
import argparse
import asyncio
import contextlib
import os
import re
import select
import socket

from process import end_with, write_ready_file

HOST = "127.0.0.1"
_SETTLED = 0.25         # a connection on loopback that is not there after this long will not be
_HEAD = {
    "headers": b"HTTP/1.1 200 OK\r\nContent-Type: application/js",
    "body": b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 1000\r\n\r\n"
            b'{"5136":{"',
}


def _fill_queue(listener):
    """Connects to ourselves until no more connections are taken, and keeps them -> the connections."""
    taken = []
    while True:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        taken.append(client)
        _, connected, _ = select.select((), (client,), (), _SETTLED)
        if not connected:
            return taken


async def _read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)


async def _serve(reader, writer, mode):
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        if mode in _HEAD:
            await _read_request(reader)
            writer.write(_HEAD[mode])
        while await reader.read(2**16):     # until the client goes away
            pass
    writer.close()


async def _keep(kept):
    """Forever: connections and listeners end with the objects that hold them."""
    await asyncio.Event().wait()


async def _run(arguments):
    end_with(arguments.parent)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, arguments.port))
    port = listener.getsockname()[1]
    if arguments.mode == "connect":
        listener.listen(0)
        kept = _fill_queue(listener)
    else:
        kept = await asyncio.start_server(lambda reader, writer: _serve(reader, writer, arguments.mode), sock=listener)
    url = f"{'https' if arguments.mode == 'tls' else 'http'}://{HOST}:{port}/fsm"
    print(f"hangs at {arguments.mode}: {url}", flush=True)
    if arguments.ready_file:
        write_ready_file(arguments.ready_file, {"url": url, "port": port, "pid": os.getpid()})
    await _keep(kept)


def _arguments():
    parser = argparse.ArgumentParser(description="A server that hangs.")
    parser.add_argument("--mode", required=True, choices=("connect", "tls", "headers", "body"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", metavar="PATH")
    parser.add_argument("--parent", type=int, metavar="PID")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(_run(_arguments()))
