"""The journal and the rest of the control address."""
import json
import socket
import threading
import time
import unittest
import urllib.parse

from support import SandboxTest, wait_until


class Journal(SandboxTest):
    def test_an_entry_tells_what_came_and_what_was_answered(self):
        began = time.time()
        body = {"taskTypeID": 2, "requestMethodID": 4, "notes": "«ёж»"}
        created = self.client.post("/WORK/Tasks", body, X_Odd="Да".encode().decode("latin-1")).json()["id"]
        entry, = self.control.journal()
        self.assertTrue(began <= entry["time"] <= entry["finished"] <= time.time())
        self.assertEqual((entry["method"], entry["path"], entry["status"], entry["fault"]),
                         ("POST", "/WORK/Tasks", 201, None))
        self.assertEqual(json.loads(entry["body"]), body)
        self.assertEqual(entry["headers"]["x-application-id"], "3")
        self.assertEqual(entry["effect"], {"created": [created]})
        self.assertGreater(entry["connection"], 0)
        self.assertEqual(entry["token"], self.control.get("/tokens")["issued"])
        self.assertNotIn("body_base64", entry)

    def test_path_and_query_are_as_sent(self):
        self.client.get("/Work/TASKS?erpID=%D0%96&erpID=a+b&x=&taskID=1")
        entry, = self.control.journal()
        self.assertEqual((entry["path"], entry["query"]),
                         ("/Work/TASKS", [["erpID", "Ж"], ["erpID", "a b"], ["x", ""], ["taskID", "1"]]))

    def test_no_body_is_null_and_no_effect_is_absent(self):
        self.client.get("/ADM/Roles")
        entry, = self.control.journal()
        self.assertIsNone(entry["body"])
        self.assertNotIn("effect", entry)

    def test_a_body_that_is_not_utf8_is_base64(self):
        self.client.post("/WORK/Tasks", b"\xff\xfe")
        entry, = self.control.journal()
        self.assertEqual((entry["body"], entry["body_base64"]), (None, "//4="))

    def test_every_refusal_is_there_too(self):
        self.client.application_id = None
        self.client.get("/ADM/Roles")
        self.client.application_id, self.client.token = "3", "unknown"
        self.client.get("/ADM/Roles")
        self.assertEqual([(entry["status"], entry["token"]) for entry in self.control.journal()][1], (401, None))
        self.assertEqual(self.control.journal()[0]["status"], 403)

    def test_numbers_and_connections_run_on(self):
        other = self.new_client(signed_in=False)
        self.client.get("/ADM/Roles")
        other.get("/ADM/Roles")
        self.client.get("/ADM/Roles")
        first, second, third = self.control.journal()
        self.assertEqual((second["n"], third["n"]), (first["n"] + 1, first["n"] + 2))
        self.assertEqual(first["connection"], third["connection"])
        self.assertNotEqual(first["connection"], second["connection"])

    def test_the_token_used_is_numbered(self):
        self.client.sign_in()
        self.client.get("/ADM/Roles")
        sign_in, read = self.control.journal()
        self.assertEqual((sign_in["token"] + 1, read["token"]), (read["token"], self.control.get("/tokens")["issued"]))

    def test_it_can_be_narrowed(self):
        self.client.get("/ADM/Roles")
        self.client.get("/WORK/Tasks/1001")
        self.client.post("/WORK/Tasks", {})
        everything = self.control.journal()
        self.assertEqual(self.control.journal("?method=post"), everything[2:])
        self.assertEqual(self.control.journal("?path=/Work/tasks"), everything[2:])
        self.assertEqual(self.control.journal(f"?since={everything[0]['n']}"), everything[1:])
        self.assertEqual(self.control.call("GET", "/journal?since=x").status, 400)

    def test_emptying_it_keeps_the_numbers_going(self):
        self.client.get("/ADM/Roles")
        last = self.control.journal()[-1]["n"]
        self.control.delete("/journal")
        self.assertEqual(self.control.journal(), [])
        self.client.get("/ADM/Roles")
        self.assertEqual(self.control.journal()[-1]["n"], last + 1)

    def test_the_summary_counts_by_address_and_answer(self):
        self.control.fault("drop_before", "GET", "/ADM/Roles", after=1)
        self.client.sign_in()
        self.client.get("/ADM/Roles")
        self.assertRaises(OSError, self.client.get, "/ADM/Roles")
        self.client.post("/WORK/Tasks", {})
        summary = self.control.get("/journal/summary")
        self.assertEqual(summary.pop("bytes"), sum(entry["bytes"] for entry in self.control.journal()))
        self.assertEqual(summary, {
            "requests": 4, "sign_ins": 1, "max_in_flight": 1,
            "by": {"POST /AUTHZ/AccessTokens": {"201": 1}, "GET /ADM/Roles": {"200": 1, "dropped": 1},
                   "POST /WORK/Tasks": {"400": 1}}})

    def test_the_summary_knows_how_many_were_in_flight_at_once(self):
        self.control.fault("delay", "GET", "/ADM/Roles", seconds=1.5, times=3)
        clients = [self.new_client() for _ in range(3)]
        threads = [threading.Thread(target=client.get, args=("/ADM/Roles",)) for client in clients]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(self.control.journal("?path=/ADM/Roles")) == 3, "all to arrive")
        for thread in threads:
            thread.join()
        self.assertEqual(self.control.get("/journal/summary")["max_in_flight"], 3)

    def test_a_request_whose_body_never_came_whole_is_there(self):
        address = urllib.parse.urlsplit(self.ready["url"])
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(b"POST /fsm/WORK/Tasks HTTP/1.1\r\nHost: x\r\nX-Application-ID: 3\r\n"
                        b"Content-Length: 99\r\n\r\n{")
            wait_until(self.control.journal, "the request to arrive")
        entry = wait_until(lambda: [entry for entry in self.control.journal() if entry["finished"]], "its end")[0]
        self.assertEqual((entry["status"], entry["path"]), (None, "/WORK/Tasks"))

    def test_a_request_is_worked_on_even_if_the_client_left(self):
        address = urllib.parse.urlsplit(self.ready["url"])
        body = b'{"taskTypeID":2,"requestMethodID":4,"erpID":"LEFT"}'
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(b"POST /fsm/WORK/Tasks HTTP/1.1\r\nHost: x\r\nX-Application-ID: 3\r\nAuthorization: Bearer "
                        + self.client.token.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: self.ids({"erpID": "LEFT"}), "the task")

    def test_100_continue_is_honoured(self):
        address = urllib.parse.urlsplit(self.ready["url"])
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(b"POST /fsm/AUTHZ/AccessTokens HTTP/1.1\r\nHost: x\r\nX-Application-ID: 3\r\n"
                        b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            self.assertEqual(raw.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            raw.sendall(b"{}")
            self.assertTrue(raw.recv(100).startswith(b"HTTP/1.1 400 "))

    def test_the_control_address_is_not_journaled_and_needs_no_sign_in(self):
        self.control.get("/state")
        self.control.call("GET", "/nothing")
        self.assertEqual(self.control.journal(), [])


class Control(SandboxTest):
    def test_tokens_given_out_so_far_can_be_expired(self):
        self.control.post("/tokens/expire")
        self.assert_error(self.client.get("/ADM/Roles"), 401)
        self.client.sign_in()
        self.assertEqual(self.client.get("/ADM/Roles").status, 200)

    def test_tokens_are_counted(self):
        before = self.control.get("/tokens")["issued"]
        self.client.sign_in()
        self.assertEqual(self.control.get("/tokens"), {"issued": before + 1})

    def test_settings_can_be_changed_and_are_shown(self):
        before = self.control.get("/config")
        self.assertEqual(set(before), {"clock_skew", "modified_skew", "created_skew", "token_skew",
                                        "token_life", "token_grace", "rate_limit", "page_limit",
                                       "service_token"})
        self.assertEqual(self.control.post("/config", {"token_life": 5, "service_token": "other"}),
                         {**before, "token_life": 5, "service_token": "other"})
        self.client.service_token = "other"
        self.client.sign_in()
        self.assert_error(self.client.post("/AUTHZ/AccessTokens", {"serviceToken": self.ready["service_token"]}), 401)

    def test_mistaken_settings_are_400_and_change_nothing(self):
        before = self.control.get("/config")
        for changes in ({"token_life": 5, "rate_limt": 1}, {"rate_limit": "60"}, {"token_life": -1}, [],
                        {"service_token": 1}):
            self.assertEqual(self.control.call("POST", "/config", changes).status, 400, changes)
        self.assertEqual(self.control.get("/config"), before)

    def test_tasks_are_shown_as_stored(self):
        tasks = self.stored()
        self.assertEqual(len(tasks), 240)
        for task in tasks:
            self.assertLessEqual({"id", "number", "erpID", "created", "deleted", "stamp", "request"}, set(task))

    def test_state_counts(self):
        state = self.control.get("/state")
        self.assertEqual((state["tasks"], state["assets"], state["seed"]), (240, 60, 1))

    def test_reset_goes_back_to_the_seed(self):
        before = self.stored()
        self.create()
        self.client.call("PATCH", "/WORK/Tasks/1001", [{"field": "notes", "value": "x"}])
        self.client.call("PUT", "/ES/Companies", [{"id": 2, "name": "x"}])
        self.control.fault("hang")
        self.control.post("/config", {"rate_limit": 1})
        self.control.post("/reset")
        self.assertEqual(self.stored(), before)
        self.assertEqual((self.control.get("/faults"), self.control.journal(), self.control.get("/tokens")),
                         ([], [], {"issued": 0}))
        self.assertEqual(self.control.get("/config")["rate_limit"], 0)
        self.assert_error(self.client.get("/ADM/Roles"), 401)
        self.client.sign_in()
        self.assertNotEqual(self.client.get("/ES/Companies").json()["2"]["name"], "x")

    def test_what_is_not_there_is_404(self):
        for method, path in (("GET", "/nothing"), ("PUT", "/faults"), ("GET", "")):
            self.assertEqual(self.control.call(method, path).status, 404)


if __name__ == "__main__":
    unittest.main()
