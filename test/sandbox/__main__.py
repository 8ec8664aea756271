"""A HubEx to develop and test against. See README.md beside this file.

    python3 test/sandbox --port 8080
"""
import argparse
import asyncio
import gc
import logging
import os
import ssl
import sys

from process import end_with, write_ready_file
from server.app import API, CONTROL, Sandbox
from server.history import NotItsHistory
from server.settings import APPLICATION_ID, Settings
from server.web_app import listen


def _arguments():
    parser = argparse.ArgumentParser(prog="test/sandbox", description="A HubEx to develop and test against.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free one")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same data")
    parser.add_argument("--tasks", type=int, default=240, help="how many tasks there are to begin with")
    parser.add_argument("--assets", type=int, default=60, help="how many assets; 600000 is fine")
    parser.add_argument("--ready-file", metavar="PATH", help="written, as JSON, once the sandbox listens")
    parser.add_argument("--state", metavar="PATH",
                        help="keep data and journal in this file, and go on from it where it is there already")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when that process is gone")
    parser.add_argument("--token-life", type=float, default=Settings.token_life, metavar="SECONDS")
    parser.add_argument("--token-grace", type=float, default=Settings.token_grace, metavar="SECONDS",
                        help="how long a token is accepted past its exp")
    parser.add_argument("--rate-limit", type=int, default=Settings.rate_limit, metavar="N",
                        help="requests a minute; 0, the default: no limit")
    parser.add_argument("--page-limit", type=int, default=Settings.page_limit, metavar="N",
                        help="the most records of a page; 0, the default: as many as are asked for")
    parser.add_argument("--tls-cert", metavar="FILE")
    parser.add_argument("--tls-key", metavar="FILE")
    parser.add_argument("--access-log", action="store_true", help="a line for each request, to stderr")
    arguments = parser.parse_args()
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        parser.error("--tls-cert and --tls-key go together")
    return arguments


def _tls(arguments):
    if not arguments.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    return context


async def _run(arguments):
    end_with(arguments.parent)
    settings = Settings(arguments.token_life, arguments.token_grace, arguments.rate_limit,
                        arguments.page_limit)
    try:
        sandbox = Sandbox(settings, arguments.seed, arguments.tasks, arguments.assets, arguments.state)
    except NotItsHistory as error:
        sys.exit(f"{arguments.state}: {error}")
    gc.freeze()                         # the data is no garbage: looking through it again and again would show
    gc.set_threshold(50_000, 20, 100)   # in the answering times
    access_log = logging.getLogger("aiohttp.access") if arguments.access_log else None
    port = await listen(sandbox, arguments.host, arguments.port, _tls(arguments), access_log)
    origin = f"{'https' if arguments.tls_cert else 'http'}://{arguments.host}:{port}"
    print(f"HubEx sandbox at {origin}{API}",
          f"service token:   {settings.service_token}",
          f"application id:  {APPLICATION_ID}",
          f"control address: {origin}{CONTROL}", sep="\n", flush=True)
    if arguments.ready_file:
        write_ready_file(arguments.ready_file, {
            "url": origin + API, "control": origin + CONTROL, "service_token": settings.service_token,
            "application_id": APPLICATION_ID, "pid": os.getpid(), "port": port})
    await asyncio.Event().wait()        # until a signal ends the process


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    asyncio.run(_run(_arguments()))
