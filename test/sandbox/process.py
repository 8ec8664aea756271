"""What the programs of this folder share as processes: the ready file, and when they end.

They hold nothing that is worth saving, so they end by leaving at once; the kernel cuts the open connections.
"""
import asyncio
import json
import os
import signal
import tempfile


def write_ready_file(path, content):
    """Writes JSON so that a reader finds either no file or the whole of it."""
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=".ready-", delete=False) as file:
        json.dump(content, file)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def end_with(parent):
    """Ends the process at once on SIGTERM and SIGINT, and when the process `parent` (None: nobody) is gone."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)
    if parent is not None:
        try:
            loop.add_reader(os.pidfd_open(parent), os._exit, 0)     # readable once that process is gone
        except ProcessLookupError:
            os._exit(0)
