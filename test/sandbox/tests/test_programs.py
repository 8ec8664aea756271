"""The programs: starting, ending, seeds, TLS; and hang.py, which hangs where it is told to."""
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest
import urllib.parse

from support import DEADLINE, FOLDER, Client, Control, Program, SandboxTest, wait_until


class Start(SandboxTest):
    def start(self, *arguments):
        program = Program(".", *arguments)
        self.addCleanup(program.stop)
        return program

    def test_it_says_where_it_is(self):
        program = Program(".")
        url, control = program.ready["url"], program.ready["control"]
        self.assertEqual(set(program.ready), {"url", "control", "service_token", "application_id", "pid", "port"})
        self.assertEqual((program.ready["pid"], url),
                         (program.process.pid, f"http://127.0.0.1:{program.ready['port']}/fsm"))
        _, out, err = program.stop()
        self.assertEqual(out.splitlines(), [f"HubEx sandbox at {url}", "service token:   sandbox-service-token",
                                            "application id:  3", f"control address: {control}"])
        self.assertEqual(err, "")

    def test_sigterm_and_sigint_end_it_at_once_and_cut_what_is_open(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            program = Program(".")
            control, client = Control(program.ready), Client(program.ready)
            control.fault("hang")
            client.connection.request("GET", "/fsm/WORK/Tasks")
            wait_until(control.journal, "the request to hang")
            program.process.send_signal(number)
            self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError), client.connection.getresponse)
            self.assertEqual(program.process.wait(10), 0)
            client.close()
            program.stop()

    def test_it_ends_with_its_parent(self):
        parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        for script, arguments in ((".", ()), ("hang.py", ("--mode", "body"))):
            program = Program(script, "--parent", parent.pid, *arguments)
            self.addCleanup(program.stop)
            self.assertIsNone(program.process.poll())
            self.addCleanup(program.process.wait, 10)
        parent.communicate(b"\n")

    def test_with_a_parent_that_is_gone_it_does_not_start(self):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        done = subprocess.run([sys.executable, str(FOLDER), "--parent", str(gone.pid)], capture_output=True, timeout=10)
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def test_the_same_seed_gives_the_same_data(self):
        other = Control(self.start("--seed", 1).ready)
        self.assertEqual(other.get("/tasks"), self.stored())
        another = Control(self.start("--seed", 2).ready)
        self.assertNotEqual(another.get("/tasks"), self.stored())

    def test_the_number_of_tasks_and_assets_can_be_chosen(self):
        for tasks, assets in ((0, 0), (3, 1), (500, 1000)):
            state = Control(self.start("--tasks", tasks, "--assets", assets).ready).get("/state")
            self.assertEqual((state["tasks"], state["assets"]), (tasks, assets))

    def test_token_life_and_rate_can_be_chosen(self):
        config = Control(self.start("--token-life", 9, "--token-grace", 2, "--rate-limit", 60).ready).get("/config")
        self.assertEqual((config["token_life"], config["token_grace"], config["rate_limit"]), (9, 2, 60))

    def test_the_access_log_is_optional(self):
        program = Program(".", "--access-log")
        client = Client(program.ready)
        client.get("/ADM/Roles")
        client.close()
        self.assertIn("GET /fsm/ADM/Roles", program.stop()[2])


@unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificate")
class Tls(unittest.TestCase):
    def test_it_speaks_https(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True)
        program = Program(".", "--tls-cert", cert, "--tls-key", key)
        self.addCleanup(program.stop)
        self.assertTrue(program.ready["url"].startswith("https://"))
        client = Client(program.ready, ssl.create_default_context(cafile=cert))
        self.addCleanup(client.close)
        client.sign_in()
        self.assertEqual(len(client.get("/WORK/Tasks").json()), 240)


class Hang(unittest.TestCase):
    PATIENCE = .3       # how long a client waits here before it is sure that it hangs

    def start(self, mode):
        program = Program("hang.py", "--mode", mode)
        self.addCleanup(program.stop)
        self.assertEqual(set(program.ready), {"url", "port", "pid"})
        return urllib.parse.urlsplit(program.ready["url"])

    def connect(self, mode):
        address = self.start(mode)
        raw = socket.create_connection((address.hostname, address.port), timeout=self.PATIENCE)
        self.addCleanup(raw.close)
        return raw

    def test_connect_never_completes(self):
        address = self.start("connect")
        for _ in range(2):
            self.assertRaises(TimeoutError, socket.create_connection, (address.hostname, address.port), self.PATIENCE)

    def test_tls_never_answers_the_handshake(self):
        context = ssl._create_unverified_context()
        self.assertRaises(TimeoutError, context.wrap_socket, self.connect("tls"))

    def test_tls_has_an_https_address(self):
        self.assertEqual(self.start("tls").scheme, "https")

    def assert_hangs_after(self, mode, expected):
        raw = self.connect(mode)
        raw.sendall(b"POST /fsm/WORK/Tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{")
        self.assertRaises(TimeoutError, raw.recv, 1)        # not before the request is whole
        raw.sendall(b'"a"}')
        raw.settimeout(DEADLINE)
        received = b""
        while not re.search(expected, received):
            received += raw.recv(1000)
        raw.settimeout(self.PATIENCE)
        self.assertRaises(TimeoutError, raw.recv, 1)

    def test_headers_stop_half_way(self):
        self.assert_hangs_after("headers", rb"^HTTP/1\.1 200 OK\r\nContent-Type: application/js$")

    def test_the_body_stops_after_10_of_1000_bytes(self):
        self.assert_hangs_after("body", rb"^HTTP/1\.1 200 OK\r\n(.+\r\n)*Content-Length: 1000\r\n\r\n.{10}$")


if __name__ == "__main__":
    unittest.main()
