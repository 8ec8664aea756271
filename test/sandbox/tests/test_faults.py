"""Faults: what goes wrong on request. Whether the work was done is judged by what is stored."""
import http.client
import json
import threading
import time
import unittest

from support import SandboxTest, wait_until

PLAIN = {"taskTypeID": 2, "requestMethodID": 4}
LATE = 1.5          # seconds of delay: enough for a busy machine to look at what is stored in the meantime


class Faults(SandboxTest):
    def fault(self, name, **parameters):
        return self.control.fault(name, "POST", "/WORK/Tasks", **parameters)

    def post(self, erp_id="E", client=None):
        return (client or self.client).post("/WORK/Tasks", {**PLAIN, "erpID": erp_id})

    def made(self, erp_id="E"):
        """How many tasks there are of the ERP's number."""
        return sum(task["erpID"] == erp_id for task in self.stored())

    def assert_dropped(self, client=None):
        """The server closes the connection without a byte of answer."""
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.post(client=client)

    def in_background(self, client):
        """Posts in a thread; -> the thread and the list that gets the reply, or the exception."""
        outcome = []

        def run():
            try:
                outcome.append(self.post(client=client))
            except (OSError, http.client.HTTPException) as error:
                outcome.append(error)
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        return thread, outcome


class Kinds(Faults):
    def test_status_answers_without_doing_anything(self):
        self.fault("status", status=503, body={"oops": "«x»"}, headers={"Retry-After": "7", "X-Odd": "1"})
        reply = self.post()
        self.assertEqual((reply.status, reply.json(), reply.headers["Retry-After"], reply.headers["X-Odd"]),
                         (503, {"oops": "«x»"}, "7", "1"))
        self.assertEqual(self.made(), 0)

    def test_status_with_a_text_and_with_no_body(self):
        self.fault("status", status=502, body="<html>Bad Gateway</html>", headers={"Content-Type": "text/html"})
        self.fault("status", status=500)
        self.fault("status", status=500, body="plain")
        first, second, third = self.post(), self.post(), self.post()
        self.assertEqual((first.body, first.headers["Content-Type"]), (b"<html>Bad Gateway</html>", "text/html"))
        self.assert_bare(second, 500)
        self.assertEqual(third.body, b"plain")

    def test_status_after_answers_wrongly_when_the_work_is_done(self):
        self.fault("status_after", status=500, body={"code": "x"})
        self.assertEqual((self.post().status, self.made()), (500, 1))

    def test_drop_before_closes_without_a_byte_and_nothing_done(self):
        self.fault("drop_before")
        self.assert_dropped()
        self.assertEqual(self.made(), 0)

    def test_drop_after_closes_without_a_byte_when_the_work_is_done(self):
        self.fault("drop_after")
        self.assert_dropped()
        self.assertEqual(self.made(), 1)

    def test_drops_work_on_a_kept_alive_connection(self):
        for name in ("drop_before", "drop_after"):
            self.client.get("/ADM/Roles")
            connection = self.control.journal()[-1]["connection"]
            self.fault(name)
            self.assert_dropped()
            entry = self.control.journal()[-1]
            self.assertEqual((entry["connection"], entry["status"], entry["fault"]), (connection, None, name))

    def test_after_a_drop_the_next_connection_works(self):
        self.fault("drop_after")
        self.assert_dropped()
        self.assertEqual(self.post().status, 201)

    def test_delay_does_the_work_at_once_and_answers_late(self):
        self.fault("delay", seconds=LATE)
        began = time.time()
        _, outcome = self.in_background(self.client)
        wait_until(self.made, "the work to be done")
        self.assertFalse(outcome, "the answer should be late")
        wait_until(lambda: outcome, "the answer")
        self.assertEqual(outcome[0].status, 201)
        self.assertGreaterEqual(time.time() - began, LATE)

    def test_delay_before_is_late_before_the_work(self):
        self.fault("delay_before", seconds=LATE)
        _, outcome = self.in_background(self.client)
        wait_until(lambda: self.control.journal("?path=/WORK/Tasks"), "the request to arrive")
        self.assertEqual(self.made(), 0)
        wait_until(lambda: outcome, "the answer")
        self.assertEqual((outcome[0].status, self.made()), (201, 1))

    def hang(self, name):
        """Posts into the hang and leaves -> how many tasks were made while it hung."""
        self.fault(name)
        client = self.new_client()
        self.in_background(client)
        wait_until(lambda: [entry for entry in self.control.journal("?path=/WORK/Tasks") if entry["fault"]],
                   "the request to arrive")
        if name == "hang_after":
            wait_until(self.made, "the work to be done")
        entry = self.control.journal("?path=/WORK/Tasks")[-1]
        self.assertEqual((entry["status"], entry["finished"]), (None, None))
        client.connection.sock.shutdown(2)      # the client goes away
        wait_until(lambda: self.control.journal("?path=/WORK/Tasks")[-1]["finished"], "the hang to end")
        self.assertIsNone(self.control.journal("?path=/WORK/Tasks")[-1]["status"])
        return self.made()

    def test_hang_never_answers_and_nothing_is_done(self):
        self.assertEqual(self.hang("hang"), 0)

    def test_hang_after_never_answers_and_the_work_is_done(self):
        self.assertEqual(self.hang("hang_after"), 1)

    def test_truncate_promises_the_whole_length_and_stops_half_way(self):
        self.fault("truncate")
        self.client.connection.request("POST", "/fsm/WORK/Tasks", json.dumps({**PLAIN, "erpID": "E"}), {
            "X-Application-ID": "3", "Authorization": "Bearer " + self.client.token})
        response = self.client.connection.getresponse()
        self.assertEqual((response.status, response.headers["Content-Type"]), (201, "application/json; charset=utf-8"))
        with self.assertRaises(http.client.IncompleteRead) as caught:
            response.read()
        self.assertEqual(len(caught.exception.partial), int(response.headers["Content-Length"]) // 2)
        self.assertEqual(self.made(), 1)

    def test_not_json_is_html_with_the_right_status(self):
        self.fault("not_json")
        reply = self.post()
        self.assertEqual((reply.status, reply.headers["Content-Type"], reply.body[:6]), (201, "text/html", b"<html>"))
        self.assertEqual(self.made(), 1)

    def test_bad_json_is_cut_and_its_length_is_right(self):
        self.fault("bad_json")
        reply = self.post()
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (201, "application/json; charset=utf-8"))
        self.assertEqual(len(reply.body), int(reply.headers["Content-Length"]))
        self.assertRaises(ValueError, reply.json)
        self.assertEqual(self.made(), 1)

    def test_bad_json_of_an_answer_without_a_body(self):
        self.control.fault("bad_json", "PATCH", "/WORK/Tasks/1001")
        reply = self.client.call("PATCH", "/WORK/Tasks/1001", [])
        self.assertEqual(reply.status, 202)
        self.assertRaises(ValueError, reply.json)

    def test_throttle_is_429_with_retry_after(self):
        date = "Wed, 21 Oct 2026 07:28:00 GMT"
        for parameters, header in (({}, "1"), ({"retry_after": 5}, "5"), ({"retry_after": date}, date)):
            self.fault("throttle", **parameters)
            reply = self.post()
            self.assert_error(reply, 429)
            self.assertEqual(reply.headers["Retry-After"], header)
        self.assertEqual(self.made(), 0)

    def test_expire_makes_the_token_used_401(self):
        other = self.new_client()
        self.fault("expire")
        self.assert_error(self.post(), 401)
        self.assert_error(self.post(), 401)
        self.assertEqual(self.post(client=other).status, 201)
        self.client.sign_in()
        self.assertEqual(self.post().status, 201)

    def test_faults_may_hit_the_sign_in(self):
        self.control.fault("drop_after", "POST", "/AUTHZ/AccessTokens")
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.client.sign_in()
        self.client.sign_in()


class Choice(Faults):
    def statuses(self, count):
        return [self.post(str(number)).status for number in range(count)]

    def test_once_by_default(self):
        self.fault("status", status=500)
        self.assertEqual(self.statuses(3), [500, 201, 201])

    def test_so_many_times(self):
        self.fault("status", status=500, times=2)
        self.assertEqual(self.statuses(3), [500, 500, 201])

    def test_after_so_many_passed(self):
        self.fault("status", status=500, after=2)
        self.assertEqual(self.statuses(4), [201, 201, 500, 201])

    def test_with_a_probability_until_deleted(self):
        fault = self.fault("status", status=500, probability=.5)
        found = self.statuses(40)
        self.assertTrue(5 < found.count(500) < 35, found)
        self.assertEqual(self.control.get("/faults")[0]["fired"], found.count(500))
        self.control.delete(f"/faults/{fault}")
        self.assertEqual(self.statuses(3), [201] * 3)

    def test_the_first_that_fires_wins_in_order_of_creation(self):
        self.fault("status", status=500, after=1)
        self.fault("status", status=501, times=2)
        self.assertEqual(self.statuses(4), [501, 500, 501, 201])

    def test_method_and_path_match_in_any_case_and_with_wildcards(self):
        for method, path, query in (("*", "*", "GET /Work/tasks"), ("get", "/Work/TASKS", "GET /WORK/Tasks"),
                                    ("GET", "/WORK/Tasks/*", "GET /WORK/Tasks/1001/stages/next"),
                                    ("PATCH", "*/1001", "PATCH /WORK/Tasks/1001")):
            self.control.fault("status", method, path, status=599)
            used, address = query.split()
            self.assertEqual(self.client.call(used, address).status, 599, (method, path))

    def test_others_do_not_match(self):
        for method, path in (("POST", "/WORK/Tasks/1"), ("GET", "/WORK/Tasks"), ("POST", "/WORK/Task"),
                             ("POST", "/WORK/Task?")):
            self.control.fault("status", method, path, status=599)
        self.assertEqual(self.post().status, 201)

    def test_the_list_says_how_often_each_fired(self):
        fault = self.fault("status", status=500, times=3)
        self.statuses(2)
        self.assertEqual(self.control.get("/faults"), [
            {"id": fault, "method": "POST", "path": "/WORK/Tasks", "fault": "status", "after": 0, "times": 3,
             "status": 500, "seen": 2, "fired": 2}])

    def test_all_can_be_deleted(self):
        self.fault("status", status=500)
        self.control.delete("/faults")
        self.assertEqual((self.control.get("/faults"), self.post().status), ([], 201))

    def test_a_mistaken_description_is_400_and_says_why(self):
        for description in ({"fault": "explode"}, {"fault": "status"}, {"fault": "delay", "seconds": "1"}, [],
                            {"fault": "hang", "secnods": 1}, {"fault": "hang", "times": -1}, {}, "hang",
                            {"fault": "status", "status": 1000}, {"fault": "hang", "probability": 2}):
            reply = self.control.call("POST", "/faults", description)
            self.assertEqual(reply.status, 400, description)
            self.assertTrue(reply.json()["error"])
        self.assertEqual(self.control.delete("/faults/77").status, 404)


if __name__ == "__main__":
    unittest.main()
