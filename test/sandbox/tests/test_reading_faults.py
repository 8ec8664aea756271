"""Faults of reading: what goes wrong with pages, and what of it the journal shows."""
import http.client
import threading
import time
import unittest

from support import SandboxTest, wait_until

LIST = "/WORK/Tasks"


class ReadingFaults(SandboxTest):
    def fault(self, name, **parameters):
        return self.control.fault(name, "GET", LIST, **parameters)

    def page(self, first=1, last=10, **query):
        return self.client.get(LIST, query, Range=f"items={first}-{last}")

    def total(self):
        return int(self.page().headers["Content-Range"].split("/")[1])


class Lists(ReadingFaults):
    def test_mutate_creates_deletes_and_changes_just_before_the_answer(self):
        before = [int(key) for key in self.page(isDeleted="false").json()]
        self.fault("mutate", create=2, delete=[before[1], before[4]], modify=[before[9]], range="items=11-*")
        self.assertEqual([int(key) for key in self.page(isDeleted="false").json()], before, "not yet: another range")
        self.page(11, 20)
        after = {int(key): task for key, task in self.page(isDeleted="false").json().items()}
        self.assertEqual(list(after)[2:8], [before[0], *before[2:4], *before[5:8]])
        self.assertEqual(self.stored(before[1])["deleted"], self.stored(before[4])["deleted"])
        self.assertTrue(self.stored(before[9])["notes"].endswith("+"))
        self.assertGreater(self.stored(before[9])["lastModified"], self.stored(before[0])["lastModified"])

    def test_mutate_takes_numbers_too_and_means_the_newest(self):
        before = [int(key) for key in self.page(isDeleted="false").json()]
        self.fault("mutate", delete=3)
        self.page()
        self.assertEqual([int(key) for key in self.page(isDeleted="false").json()][:7], before[3:])

    def test_mutate_shows_at_once_although_items_are_kept_rendered(self):
        first = next(iter(self.page().json()))
        self.fault("mutate", modify=[int(first)])
        self.assertTrue(self.page().json()[first]["notes"].endswith("+"))

    def test_reshape_gives_and_takes_members_of_the_records_of_an_answer(self):
        before = self.page().json()
        self.fault("reshape", set={"brandNew": {"a": 1}, "company.name": 5}, drop=["number", "taskType.id", "no.such"])
        after = self.page().json()
        self.assertEqual(list(after), list(before))
        for key, task in after.items():
            self.assertEqual((task["brandNew"], task["company"]["name"]), ({"a": 1}, 5))
            self.assertNotIn("number", task)
            self.assertEqual(task["taskType"], {"name": before[key]["taskType"]["name"]})
        self.assertEqual(self.page().json(), before)

    def test_reshape_reaches_arrays_and_single_records(self):
        for path in ("/ES/Assets", f"{LIST}/1001"):
            self.control.fault("reshape", "GET", path, set={"brandNew": 7})
            body = self.client.get(path, {}).json()
            self.assertTrue(all(one["brandNew"] == 7 for one in (body if isinstance(body, list) else
                                                                  body.values() if "id" not in body else [body])))

    def test_content_range_says_what_it_is_told_to(self):
        self.fault("content_range", value="items 1..10 of 240")
        reply = self.page()
        self.assertEqual((reply.status, reply.headers["Content-Range"], len(reply.json())),
                         (206, "items 1..10 of 240", 10))

    def test_no_content_range_is_200_and_everything(self):
        for query in ({}, {"offset": 3, "fetch": 4}):
            self.fault("no_content_range")
            reply = self.client.get(LIST, query, Range="items=1-10") if not query else self.client.get(LIST, query)
            self.assertEqual((reply.status, reply.headers["Content-Range"], len(reply.json())), (200, None, 240))

    def test_empty_is_a_page_of_nothing_of_a_list_that_is_not(self):
        self.fault("empty")
        reply = self.page()
        self.assertEqual((reply.status, reply.headers["Content-Range"], reply.body), (206, "items=0-0/240", b"{}"))
        self.control.fault("empty", "GET", "/ADM/Roles")
        self.assertEqual(self.client.get("/ADM/Roles").body, b"[]")

    def test_shrink_lowers_the_total_but_not_below_the_page(self):
        self.fault("shrink", by=7)
        self.assertEqual(self.page().headers["Content-Range"], "items=1-10/233")
        self.fault("shrink", by=1000)
        self.assertEqual(self.page().headers["Content-Range"], "items=1-10/10")
        self.control.fault("shrink", "HEAD", LIST, by=40)
        self.assertEqual(self.client.head(LIST).headers["Content-Range"], "items=0-0/200")

    def test_page_limit_gives_fewer_records_than_were_asked_for(self):
        self.control.post("/config", {"page_limit": 6})
        self.assertEqual([self.page().headers["Content-Range"], self.page(11, 13).headers["Content-Range"]],
                         ["items=1-6/240", "items=11-13/240"])
        self.assertEqual(len(self.client.get(LIST, {"offset": 0, "fetch": 100}).json()), 6)
        self.control.post("/reset")
        self.client.sign_in()
        self.assertEqual(len(self.page().json()), 10)


class Bodies(ReadingFaults):
    def test_truncate_takes_a_number_of_bytes(self):
        self.fault("truncate", bytes=100)
        with self.assertRaises(http.client.IncompleteRead) as caught:
            self.page()
        self.assertEqual(len(caught.exception.partial), 100)
        self.assertEqual(self.control.journal()[-1]["bytes"], 100)

    def test_slow_body_comes_in_pieces(self):
        whole = self.page(1, 1).body
        self.fault("slow_body", bytes=len(whole) // 4, seconds=.5)
        began = time.monotonic()
        self.client.connection.request("GET", "/fsm" + LIST, headers={
            "X-Application-ID": "3", "Authorization": "Bearer " + self.client.token, "Range": "items=1-1"})
        response = self.client.connection.getresponse()
        first = response.read(10)
        early = time.monotonic() - began
        self.assertEqual(first + response.read(), whole)
        self.assertGreaterEqual(time.monotonic() - began, 1.5)
        self.assertLess(early, 1.4)

    def test_a_slow_body_is_in_flight_until_its_end(self):
        self.fault("slow_body", bytes=400, seconds=.2)
        client = self.new_client()
        thread = threading.Thread(target=client.get, args=(LIST,), kwargs={"Range": "items=1-5"})
        thread.start()
        self.addCleanup(thread.join)
        wait_until(lambda: any(entry["fault"] for entry in self.control.journal()), "the slow one")
        self.page(6, 6)
        self.assertEqual(self.control.journal()[-1]["in_flight"], 2)

    def test_a_client_may_go_away_in_the_middle(self):
        self.fault("slow_body", bytes=1, seconds=30)
        client = self.new_client()
        client.connection.request("GET", "/fsm" + LIST, headers={
            "X-Application-ID": "3", "Authorization": "Bearer " + client.token})
        client.connection.getresponse().read(1)
        client.close()
        self.assertEqual(self.page().status, 206)


class Matching(ReadingFaults):
    def statuses(self, pages):
        return [self.page(first, first + 9).status for first in pages]

    def test_by_range_and_query(self):
        self.fault("status", status=503, range="items=11-20", times=9)
        self.assertEqual(self.statuses((1, 11, 21, 11)), [206, 503, 206, 503])
        self.control.delete("/faults")
        self.fault("status", status=503, query="*taskTypeID=2*", times=9)
        self.assertEqual([self.page(taskTypeID=2).status, self.page(taskTypeID=1).status, self.page().status],
                         [503, 206, 206])

    def test_every_so_many(self):
        self.fault("status", status=503, every=3, times=9)
        self.assertEqual(self.statuses((1,) * 7), [206, 206, 503, 206, 206, 503, 206])

    def test_each_request_has_its_own_times(self):
        self.fault("status", status=503, each=True)
        self.assertEqual(self.statuses((1, 11, 1, 11, 21, 21)), [503, 503, 206, 206, 503, 206])

    def test_mistakes_are_400(self):
        for parameters in ({"fault": "slow_body", "bytes": 0, "seconds": 1}, {"fault": "mutate", "delete": ["1"]},
                           {"fault": "shrink", "by": -1}, {"fault": "empty", "every": 0}, {"fault": "empty", "each": 1},
                           {"fault": "content_range"}):
            self.assertEqual(self.control.call("POST", "/faults", parameters).status, 400, parameters)


class Journal(ReadingFaults):
    def test_it_shows_what_was_asked_and_how_much_was_answered(self):
        reply = self.client.get(LIST, {"taskID": [1001, 1002], "isDeleted": "false"}, Range="items=1-2")
        self.client.head(LIST)
        first, second = self.control.journal()
        self.assertEqual((first["method"], first["query"], first["headers"]["range"], first["bytes"]),
                         ("GET", [["taskID", "1001"], ["taskID", "1002"], ["isDeleted", "false"]], "items=1-2",
                          len(reply.body)))
        self.assertEqual((second["method"], second["bytes"], second["in_flight"]), ("HEAD", 0, 1))


class Speed(SandboxTest):
    def test_an_item_is_rendered_anew_when_what_it_shows_has_changed(self):
        shown = self.client.get(LIST).json()
        asset, task = next((task["asset"]["id"], key) for key, task in shown.items()
                           if "asset" in task and "deleted" not in task["asset"])
        self.client.call("PUT", f"/ES/Assets/{asset}", {"name": "Новое имя"})
        self.assertEqual(self.client.get(LIST).json()[task]["asset"]["name"], "Новое имя")
        child = self.create(parentID=int(task))
        self.assertEqual(self.client.get(LIST).json()[task]["childCount"], shown[task]["childCount"] + 1)
        self.client.call("PATCH", f"/WORK/Tasks/{task}", [{"field": "number", "value": "N-1"}])
        self.assertEqual(self.client.get(LIST).json()[str(child["id"])]["parent"]["name"], "N-1")


if __name__ == "__main__":
    unittest.main()
