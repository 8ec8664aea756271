"""What the tests share: the sandbox as a running program, a client that speaks plain HTTP to it, waiting.

One sandbox serves all tests of a run; every test begins with a reset. Nothing of the sandbox is imported: what is
tested is what goes over the wire.
"""
import atexit
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

FOLDER = pathlib.Path(__file__).resolve().parent.parent
DEADLINE = 20           # seconds until a test gives up waiting; reached only when something is broken
GUID = "7d1f0c54-9a1e-4c0b-8b65-2f6f5f1f9a01"
OTHER_GUID = "7d1f0c54-9a1e-4c0b-8b65-2f6f5f1f9a02"


def wait_until(condition, what):
    """-> the first true value of `condition()`"""
    end = time.monotonic() + DEADLINE
    pause = threading.Event()
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        pause.wait(.005)
    raise AssertionError(f"waited in vain for {what}")


class Program:
    """A program of the folder as a process of its own, running once this returns."""

    def __init__(self, script, *arguments):
        self.folder = tempfile.mkdtemp(prefix="hubex-sandbox-test-")
        self.ready_file = os.path.join(self.folder, "ready.json")
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / script), "--ready-file", self.ready_file, "--parent", str(os.getpid()),
             *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: os.path.exists(self.ready_file) or self.process.poll() is not None, "the ready file")
        if self.process.poll() is not None:
            raise AssertionError(f"{script} ended at once: {self.process.stderr.read()}")
        with open(self.ready_file, encoding="utf-8") as file:
            self.ready = json.load(file)

    def stop(self):
        """-> exit code, what it wrote to stdout and to stderr"""
        self.process.terminate()
        out, err = self.process.communicate(timeout=DEADLINE)
        shutil.rmtree(self.folder)
        return self.process.returncode, out, err


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Client:
    """One kept-alive connection to the API; `token` and `application_id` go with every call unless None."""

    def __init__(self, ready, context=None):
        parts = urllib.parse.urlsplit(ready["url"])
        if context is None:
            self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE)
        else:
            self.connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=DEADLINE, context=context)
        self.root = parts.path
        self.service_token = ready["service_token"]
        self.application_id = str(ready["application_id"])
        self.token = None

    def call(self, method, path, body=None, headers=None, query=None):
        """`body`: bytes as they are, anything else as JSON; `query`: a dict (lists repeat) or pairs."""
        sent = {}
        if self.application_id is not None:
            sent["X-Application-ID"] = self.application_id
        if self.token is not None:
            sent["Authorization"] = "Bearer " + self.token
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        url = self.root + path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")
        self.connection.request(method, url, body, sent)
        return Reply(self.connection.getresponse())

    def get(self, path, query=None, **headers):
        return self.call("GET", path, query=query, headers=_header_names(headers))

    def head(self, path, query=None):
        return self.call("HEAD", path, query=query)

    def post(self, path, body, **headers):
        return self.call("POST", path, body, _header_names(headers))

    def sign_in(self):
        self.token = self.post("/AUTHZ/AccessTokens", {"serviceToken": self.service_token}).json()["access_token"]

    def close(self):
        self.connection.close()


def _header_names(headers):
    """X_Concurrency_Stamp -> X-Concurrency-Stamp"""
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Control:
    """The control address."""

    def __init__(self, ready):
        parts = urllib.parse.urlsplit(ready["control"])
        self.address = parts.hostname, parts.port
        self.root = parts.path

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection(*self.address, timeout=DEADLINE)
        try:
            connection.request(method, self.root + path, None if body is None else json.dumps(body))
            reply = Reply(connection.getresponse())
        finally:
            connection.close()
        return reply

    def get(self, path):
        return self.call("GET", path).json()

    def post(self, path, body=None):
        reply = self.call("POST", path, body)
        assert reply.status == 200, reply
        return reply.json()

    def delete(self, path):
        return self.call("DELETE", path)

    def fault(self, fault, method="*", path="*", **parameters):
        return self.post("/faults", {"fault": fault, "method": method, "path": path, **parameters})["id"]

    def journal(self, query=""):
        return self.get("/journal" + query)


_shared = []


def shared_sandbox():
    """The sandbox of this run, started when first asked for."""
    if not _shared:
        _shared.append(Program("."))
        atexit.register(_stop_shared)
    return _shared[0]


def _stop_shared():
    _, _, err = _shared[0].stop()
    if err:
        sys.stderr.write(f"the sandbox wrote to stderr, which it should not:\n{err}")


class SandboxTest(unittest.TestCase):
    """A test against a sandbox fresh from its seed, with a client that is signed in and an empty journal."""

    def setUp(self):
        self.ready = shared_sandbox().ready
        self.control = Control(self.ready)
        self.control.post("/reset")
        self.client = self.new_client()
        self.control.delete("/journal")

    def new_client(self, signed_in=True):
        client = Client(self.ready)
        self.addCleanup(client.close)
        if signed_in:
            client.sign_in()
        return client

    def stored(self, task_id=None):
        """The tasks as stored, or one of them."""
        tasks = self.control.get("/tasks")
        return tasks if task_id is None else next(task for task in tasks if task["id"] == task_id)

    def create(self, **fields):
        """-> the answer to the create of a task"""
        reply = self.client.post("/WORK/Tasks", {"taskTypeID": 2, "requestMethodID": 4, **fields})
        self.assertEqual(reply.status, 201, reply)
        return reply.json()

    def task(self, task_id):
        reply = self.client.get(f"/WORK/Tasks/{task_id}")
        self.assertEqual(reply.status, 200, reply)
        return reply.json()

    def ids(self, query=None, **headers):
        """The ids of a list of tasks, in the order of the answer."""
        reply = self.client.get("/WORK/Tasks", query, **headers)
        self.assertIn(reply.status, (200, 206), reply)
        return [int(key) for key in reply.json()]

    def assert_error(self, reply, status, code=None):
        """The error shape of the API."""
        self.assertEqual(reply.status, status, reply)
        error = reply.json()
        self.assertEqual(set(error), {"code", "message", "arguments", "traceIdentifier"})
        self.assertIsInstance(error["arguments"], dict)
        if code:
            self.assertEqual(error["code"], code)

    def assert_bare(self, reply, status):
        """No body."""
        self.assertEqual((reply.status, reply.body), (status, b""), reply)
