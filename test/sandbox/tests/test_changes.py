"""What other clients do: changes by the control address, clocks that are wrong, lists that lie, and what is told of it all."""
import os
import shutil
import signal
import tempfile
import threading
import time
import unittest
from datetime import datetime, timezone

from support import Client, Control, Program, SandboxTest, wait_until

DAY = 86400


def seconds(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


class Changing(SandboxTest):
    def do(self, *orders):
        return self.control.post("/changes", {"do": list(orders)})

    def draw(self, **description):
        return self.control.post("/changes", description)

    def listed(self, path="/WORK/Tasks", **query):
        reply = self.client.get(path, query, Range="items=1-100000")
        self.assertEqual(reply.status, 206)
        return reply.json()

    def versions(self, key, of="tasks"):
        return [shown for its, its_key, shown in self.control.get("/versions") if (its, its_key) == (of, key)]

    def refused(self, path, body, status=400):
        reply = self.control.call("POST", path, body)
        self.assertEqual(reply.status, status, reply)
        return reply.json()["error"]


class Orders(Changing):
    def test_a_change_is_there_at_once_and_touches(self):
        before = self.stored(1001)
        done, = self.do({"list": "tasks", "kind": "change", "id": 1001, "fields": {"notes": "«n»", "erpID": None}})
        task = self.stored(1001)
        self.assertEqual((task["notes"], task["erpID"], done["lastModified"]), ("«n»", None, task["lastModified"]))
        self.assertGreater(task["lastModified"], before["lastModified"])
        self.assertLess(abs(seconds(task["lastModified"]) - time.time()), 60)

    def test_a_create_tells_its_id(self):
        task, asset = self.do({"list": "tasks", "kind": "create", "fields": {"companyID": 5}},
                              {"list": "assets", "kind": "create", "fields": {"name": "A"}})
        self.assertEqual(self.task(task["id"])["company"]["id"], 5)
        self.assertEqual(self.listed("/ES/Assets")[str(asset["id"])]["name"], "A")

    def test_what_is_erased_is_gone_from_everywhere(self):
        parent, child = (self.create()["id"] for _ in range(2))
        self.do({"list": "tasks", "kind": "change", "id": child, "fields": {"parentID": parent, "assetID": 14}})
        self.assertEqual(self.task(child)["parent"]["id"], parent)
        self.do({"list": "tasks", "kind": "erase", "id": parent}, {"list": "assets", "kind": "erase", "id": 14},
                {"list": "assets", "kind": "erase", "id": 13})
        tasks, assets = self.listed(), self.listed("/ES/Assets")
        self.assertNotIn(str(parent), tasks)
        self.assertTrue({"parent", "asset"}.isdisjoint(tasks[str(child)]))
        self.assertEqual({"13", "14"} & set(assets), set())
        self.assertEqual(len(assets), 58)
        self.assertNotIn("parentID", assets["15"])
        self.assertEqual(self.client.get(f"/WORK/Tasks/{parent}").status, 404)
        self.assertEqual(self.client.get("/ES/Assets/14").status, 404)
        self.assertEqual(self.client.head("/ES/Assets").headers["Content-Range"], "items=0-0/58")
        self.assertEqual(self.client.get("/ES/Assets", Range="items=13-13").json().keys(), {"15"})
        self.assertGreater(self.do({"list": "assets", "kind": "create"})[0]["id"], 60, "ids are not used again")

    def test_deleted_and_restored(self):
        for path, of, key in (("/WORK/Tasks", "tasks", 1001), ("/ES/Assets", "assets", 14)):
            self.do({"list": of, "kind": "delete", "id": key})
            self.assertIn("deleted", self.listed(path)[str(key)])
            self.do({"list": of, "kind": "restore", "id": key})
            self.assertNotIn("deleted", self.listed(path)[str(key)])

    def test_tasks_that_show_a_changed_asset_are_touched_unless_quietly(self):
        task = self.create(assetID=14)["id"]
        self.do({"list": "tasks", "kind": "touch", "id": task, "late": 0})
        for quietly in (False, True):
            self.control.post("/config", {"modified_skew": DAY if not quietly else 2 * DAY})
            before = self.stored(task)["lastModified"]
            self.do({"list": "assets", "kind": "change", "id": 14, "fields": {"name": f"n{quietly}"}, "quietly": quietly})
            self.assertEqual(self.listed()[str(task)]["asset"]["name"], f"n{quietly}")
            self.assertEqual(self.stored(task)["lastModified"] == before, quietly)

    def test_a_late_commit_is_seen_with_an_earlier_moment_but_none_before_the_one_it_has(self):
        done, = self.do({"list": "tasks", "kind": "change", "id": 1001, "fields": {"notes": "late"}, "late": 3000})
        self.assertLess(seconds(done["lastModified"]), time.time() - 2900)
        again, = self.do({"list": "tasks", "kind": "change", "id": 1001, "fields": {"notes": "later"}, "late": 6000})
        self.assertGreater(again["lastModified"], done["lastModified"])

    def test_a_hidden_record_is_left_out_by_lists_alone(self):
        self.do({"list": "tasks", "kind": "hide", "id": 1002}, {"list": "assets", "kind": "hide", "id": 2})
        self.assertNotIn("1002", self.listed())
        self.assertEqual(self.client.head("/WORK/Tasks").headers["Content-Range"], "items=0-0/239")
        self.assertEqual(self.listed(taskID=1002).keys(), {"1002"})
        self.assertEqual(self.task(1002)["id"], 1002)
        self.assertEqual((len(self.listed("/ES/Assets")), self.client.get("/ES/Assets/2").status), (59, 200))
        self.assertEqual(len(self.control.get("/export?path=/WORK/Tasks")), 240)
        self.do({"list": "tasks", "kind": "show", "id": 1002}, {"list": "assets", "kind": "show"})
        self.assertEqual((len(self.listed()), len(self.listed("/ES/Assets"))), (240, 60))

    def test_mistakes(self):
        for order in ({"list": "tasks"}, {"list": "x", "kind": "touch", "id": 1001}, {"list": "tasks", "kind": "touch"},
                      {"list": "tasks", "kind": "touch", "id": 7}, {"list": "tasks", "kind": "touch", "id": "1001"},
                      {"list": "tasks", "kind": "touch", "id": 1001, "odd": 1}, "touch"):
            self.refused("/changes", {"do": [order]})
        for description in ({"number": 3}, {"count": -1}, {"lists": []}, {"lists": ["x"]}, {"weights": {"x": 1}}, [],
                            {"weights": {"create": -1}}, {"do": [], "count": 1}, {"count": True}, {"late": -1},
                            {"weights": dict.fromkeys(("create", "change", "touch", "delete", "restore"), 0)}):
            self.refused("/changes", description)
        self.refused("/config", {"clock_skew": "x"})
        self.refused("/config", {"clock_skew": 1e12})
        self.refused("/faults", {"fault": "mutate", "changes": {"count": -1}})
        self.assertEqual(self.control.call("GET", "/export?path=/WORK/Tasks/77").status, 404)
        self.assertEqual(self.control.call("GET", "/export?path=/WORK/Odd").status, 404)
        self.assertEqual(self.control.call("GET", "/versions").status, 404)


class Drawn(Changing):
    def test_the_same_seed_does_the_same(self):
        weights = {"erase": 3, "hide": 1, "show": 1}
        runs = []
        for _ in range(2):
            self.control.post("/reset")
            done = self.draw(count=150, seed=7, weights=weights, late=60)
            self.assertEqual({order["kind"] for order in done},
                             {"create", "change", "touch", "delete", "restore", "erase", "hide", "show"})
            self.assertEqual({order["list"] for order in done}, {"tasks", "assets"})
            runs.append([{name: value for name, value in order.items() if name != "lastModified"} for order in done])
        self.assertEqual(*runs)
        self.assertNotEqual([order["kind"] for order in self.draw(count=150, seed=8)],
                            [order["kind"] for order in runs[0]])

    def test_lists_kinds_and_ids_can_be_chosen(self):
        only = {kind: 0 for kind in ("create", "delete", "restore", "touch")}
        done = self.draw(count=20, seed=1, lists=["tasks"], weights=only, ids=[1001, 1002])
        self.assertEqual({(order["list"], order["kind"]) for order in done}, {("tasks", "change")})
        self.assertEqual({order["id"] for order in done}, {1001, 1002})

    def test_whatever_was_drawn_the_lists_can_be_read(self):
        for seed in range(5):
            self.draw(count=100, seed=seed, weights={"erase": 6, "hide": 1}, late=30)
            for path in ("/WORK/Tasks", "/ES/Assets"):
                listed = self.listed(path)
                for key in list(listed)[:30]:
                    self.assertEqual(self.client.get(f"{path}/{key}").status, 200)
            self.assertEqual(self.control.get("/export?path=/WORK/Tasks&isDeleted=false").keys(),
                             {key for key, task in self.control.get("/export?path=/WORK/Tasks").items()
                              if "deleted" not in task})

    def test_between_two_pages_and_while_one_is_on_its_way(self):
        self.control.fault("mutate", path="/ES/Assets", range="items=31-*",
                           changes={"count": 5, "lists": ["assets"], "weights": {"erase": 1000}})
        first = self.client.get("/ES/Assets", Range="items=1-30")
        second = self.client.get("/ES/Assets", Range="items=31-60")
        self.assertEqual([reply.headers["Content-Range"].rpartition("/")[2] for reply in (first, second)], ["60", "55"])
        self.control.fault("mutate_after", path="/ES/Assets", changes={"count": 5, "lists": ["assets"],
                                                                      "weights": {"erase": 1000}})
        late = self.client.get("/ES/Assets", Range="items=1-60")
        self.assertEqual((len(late.json()), len(self.listed("/ES/Assets"))), (55, 50))

    def test_a_page_on_its_way_can_be_slow(self):
        self.control.fault("mutate_after", path="/WORK/Tasks", seconds=1.5, modify=[1001])
        replies = []
        other = self.new_client()
        thread = threading.Thread(target=lambda: replies.append(other.get("/WORK/Tasks", {"taskID": 1001})))
        thread.start()
        self.addCleanup(thread.join)
        wait_until(lambda: self.stored(1001)["notes"].endswith("+"), "the change")
        self.assertEqual(replies, [])
        self.assertTrue(self.listed(taskID=1001)["1001"]["notes"].endswith("+"))
        thread.join()
        self.assertFalse(replies[0].json()["1001"]["notes"].endswith("+"))


class Clocks(Changing):
    def skew(self, **settings):
        self.control.post("/config", settings)

    def test_all_moments_go_by_the_clock(self):
        for skew in (3 * DAY, -3 * DAY):
            self.skew(clock_skew=skew)
            task = self.stored(self.create()["id"])
            for field in ("created", "lastModified"):
                self.assertLess(abs(seconds(task[field]) - time.time() - skew), 60)
            self.client.call("DELETE", f"/WORK/Tasks/{task['id']}")
            self.assertLess(abs(seconds(self.stored(task["id"])["deleted"]) - time.time() - skew), 60)

    def test_a_clock_of_its_own_for_created_and_for_last_modified(self):
        self.skew(modified_skew=-DAY, created_skew=DAY, clock_skew=10 * DAY)
        task = self.stored(self.create()["id"])
        self.assertLess(abs(seconds(task["lastModified"]) - time.time() - 9 * DAY), 60)
        self.assertLess(abs(seconds(task["created"]) - time.time() - 11 * DAY), 60)

    def test_a_clock_that_is_set_back_gives_earlier_moments(self):
        self.skew(clock_skew=3600)
        self.client.call("PATCH", "/WORK/Tasks/1001", [{"field": "notes", "value": "1"}])
        before = self.stored(1001)["lastModified"]
        self.skew(clock_skew=0)
        self.client.call("PATCH", "/WORK/Tasks/1001", [{"field": "notes", "value": "2"}])
        self.assertLess(self.stored(1001)["lastModified"], before)

    def test_tokens_run_out_by_theirs(self):
        self.skew(token_skew=-DAY)
        token = self.client.post("/AUTHZ/AccessTokens", {"serviceToken": self.ready["service_token"]}).json()
        self.assertLess(seconds(token["jwtValidTill"]), time.time())
        self.client.token = token["access_token"]
        self.assertEqual(self.client.get("/ADM/Roles").status, 200)
        self.skew(token_skew=0)
        self.assertEqual(self.client.get("/ADM/Roles").status, 401)


class Told(Changing):
    def test_versions_of_a_record_in_their_order(self):
        self.control.post("/versions")
        first = self.versions(1001)
        self.assertEqual(first, [self.listed(taskID=1001)["1001"]])
        for notes in ("a", "b", "a"):
            self.client.call("PATCH", "/WORK/Tasks/1001", [{"field": "notes", "value": notes}])
        self.client.call("DELETE", "/WORK/Tasks/1001")
        self.do({"list": "tasks", "kind": "erase", "id": 1001})
        versions = self.versions(1001)[1:]
        self.assertEqual([version and version["notes"] for version in versions], ["a", "b", "a", "a", None])
        self.assertIn("deleted", versions[3])

    def test_what_faults_change_and_what_shows_a_change_has_a_version(self):
        task = self.create(assetID=14)["id"]
        self.control.post("/versions")
        self.control.fault("mutate", modify=[1001])
        self.client.get("/ADM/Roles")
        self.assertEqual(len(self.versions(1001)), 2)
        self.do({"list": "assets", "kind": "change", "id": 14, "fields": {"name": "N"}, "quietly": True})
        self.assertEqual([version["name"] for version in self.versions(14, "assets")][1:], ["N"])
        self.assertEqual([version["asset"]["name"] for version in self.versions(task)][1:], ["N"])
        child, = self.do({"list": "assets", "kind": "create", "fields": {"parentID": 14}})
        self.assertEqual([version["hasChildren"] for version in self.versions(14, "assets")], [False, False, True])
        self.do({"list": "assets", "kind": "erase", "id": child["id"]})
        self.assertEqual(self.versions(14, "assets")[-1]["hasChildren"], False)

    def test_the_last_versions_are_what_is_exported(self):
        self.control.post("/versions")
        for seed in range(4):
            self.draw(count=60, seed=seed, weights={"erase": 4, "hide": 1})
        last = {"tasks": {}, "assets": {}}
        for of, key, shown in self.control.get("/versions"):
            last[of][str(key)] = shown
        for of, path in (("tasks", "/WORK/Tasks"), ("assets", "/ES/Assets")):
            self.assertEqual({key: shown for key, shown in last[of].items() if shown is not None},
                             self.control.get(f"/export?path={path}"))
        self.control.delete("/versions")
        self.assertEqual(self.control.call("GET", "/versions").status, 404)

    def test_a_reset_may_grow_another_tenant(self):
        first = self.control.get("/export?path=/WORK/Tasks")
        self.control.post("/reset", {"seed": 3, "tasks": 7, "assets": 0})
        self.assertEqual([self.control.get("/state")[name] for name in ("seed", "tasks", "assets")], [3, 7, 0])
        self.assertNotEqual(self.control.get("/export?path=/WORK/Tasks")["1001"], first["1001"])
        self.control.post("/reset")
        self.assertEqual(self.control.get("/export?path=/WORK/Tasks"), first)
        for grow in ({"tasks": -1}, {"task": 1}, {"seed": "1"}, [1]):
            self.refused("/reset", grow)

    def test_the_journal_tells_the_range(self):
        self.client.get("/WORK/Tasks", {"isDeleted": "false"}, Range="items=1-5")
        entry = self.control.journal("?fields=method,path,query,range,time")[-1]
        self.assertEqual((entry["method"], entry["path"], entry["query"], entry["range"]),
                         ("GET", "/WORK/Tasks", [["isDeleted", "false"]], "items=1-5"))
        self.assertLess(abs(entry["time"] - time.time()), 60)


class Kept(unittest.TestCase):
    def test_changes_are_there_again_after_kill_9(self):
        folder = tempfile.mkdtemp(prefix="hubex-sandbox-test-")
        self.addCleanup(shutil.rmtree, folder)
        lists = []
        for _ in range(2):
            program = Program(".", "--tasks", 20, "--assets", 20, "--state", os.path.join(folder, "state"))
            self.addCleanup(program.stop)
            control = Control(program.ready)
            if not lists:
                control.post("/config", {"modified_skew": -5 * DAY})
                control.post("/changes", {"count": 50, "seed": 1, "weights": {"erase": 3}, "late": 20})
                control.call("POST", "/changes", {"do": [{"list": "tasks", "kind": "create"}, {}]})
            lists.append([control.get(f"/export?path={path}") for path in ("/WORK/Tasks", "/ES/Assets")])
            program.process.send_signal(signal.SIGKILL)
            program.process.wait(10)
        self.assertEqual(*lists)


class Large(unittest.TestCase):
    ASSETS, PAGE = 577_953, 10_000

    def test_a_tenant_of_577953_assets_starts_soon_and_reads_fast(self):
        began = time.monotonic()
        program = Program(".", "--tasks", 0, "--assets", self.ASSETS)
        self.addCleanup(program.stop)
        self.assertLess(time.monotonic() - began, 10)
        client = Client(program.ready)
        self.addCleanup(client.close)
        client.sign_in()
        sums, took = [], []
        for _ in range(2):
            began, total = time.monotonic(), 0
            for first in range(1, self.ASSETS + 1, self.PAGE):
                reply = client.get("/ES/Assets", Range=f"items={first}-{first + self.PAGE - 1}")
                last = min(first + self.PAGE - 1, self.ASSETS)
                self.assertEqual((reply.status, reply.headers["Content-Range"]), (206, f"items={first}-{last}/{self.ASSETS}"))
                total += len(reply.body)
            took.append(time.monotonic() - began)
            sums.append(total)
            sums.append(hash(reply.body))
        self.assertEqual(sums[:2], sums[2:])
        self.assertLess(took[0], 60)
        with open(f"/proc/{program.ready['pid']}/status", encoding="ascii") as status:
            memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        self.assertLess(memory, 200 * 1024)
        Control(program.ready).post("/changes", {"do": [{"list": "assets", "kind": "erase", "id": 5},
                                                        {"list": "assets", "kind": "hide", "id": 6}]})
        page = client.get("/ES/Assets", Range=f"items=1-{self.PAGE}")
        self.assertEqual(list(page.json())[:5], ["1", "2", "3", "4", "7"])
        self.assertTrue(page.headers["Content-Range"].endswith(f"/{self.ASSETS - 2}"))


if __name__ == "__main__":
    unittest.main()
