"""Reading lists: shapes, empty fields, paging, counting, filters at large, sort, dates."""
import json
import re
import unittest

from support import SandboxTest, Program, Client


class Shapes(SandboxTest):
    def test_a_list_is_an_object_keyed_by_id_in_the_order_of_the_sort(self):
        tasks = self.client.get("/WORK/Tasks").json()
        self.assertIsInstance(tasks, dict)
        created = [task["timesheet"]["created"] for task in tasks.values()]
        self.assertEqual(created, sorted(created, reverse=True))

    def test_in_tasks_the_id_stands_only_in_the_key(self):
        self.assertFalse([task for task in self.client.get("/WORK/Tasks").json().values() if "id" in task])

    def test_in_assets_the_value_holds_the_id_too(self):
        for key, asset in self.client.get("/ES/Assets").json().items():
            self.assertEqual(int(key), asset["id"])

    def test_a_few_lists_are_arrays(self):
        for path in ("/ADM/Roles", "/WORK/TaskAttributes", "/WORK/Tasks/1003/conversations"):
            self.assertIsInstance(self.client.get(path).json(), list, path)

    def test_empty_fields_are_absent_not_null(self):
        for path in ("/WORK/Tasks", "/ES/Assets", "/ES/Companies", "/COMMON/Contacts", "/ADM/Users"):
            self.assertNotIn(b"null", self.client.get(path).body, path)

    def test_records_of_one_page_differ_in_their_keys(self):
        keys = {frozenset(task) for task in self.client.get("/WORK/Tasks", Range="items=1-50").json().values()}
        self.assertGreater(len(keys), 5)

    def test_a_task_shows_what_the_contract_names(self):
        plain = {"number", "notes", "erpID", "lastModified", "deleted", "contactPerson", "contactPhone", "contactEmail",
                 "childCount", "averageRating", "isAvailable", "isRated", "isFavourite"}
        named = {"taskType", "workType", "taskStage", "taskStatus", "actualCriticality", "company", "asset",
                 "requestedBy", "assignedTo", "escalatedTo", "approvalWith", "parent", "serviceLevelAgreement",
                 "taskActuality"}
        moments = {"created", "requested", "assigned", "deadline", "completed", "closed", "accepted", "signed",
                   "outdated", "escalated", "faultTimestamp", "requestedStart", "requestedFinish", "lastUpdated"}
        tasks = list(self.client.get("/WORK/Tasks").json().values())
        self.assertEqual(set().union(*tasks), plain | named | {"listAssignedTo", "location", "timesheet"})
        self.assertEqual(set().union(*(task["timesheet"] for task in tasks)), moments)
        for task in tasks:
            for name in named & set(task):
                self.assertLessEqual({"id", "name"}, set(task[name]), name)
            for name in ("taskStage", "taskStatus", "actualCriticality"):
                self.assertIn("color", task[name])
            self.assertEqual(task.get("listAssignedTo", [None])[0], task.get("assignedTo"))

    def test_a_location_has_a_coordinate_lat_lng(self):
        for task in self.client.get("/WORK/Tasks").json().values():
            self.assertRegex(task["location"]["coordinate"], r"^\d+\.\d+:\d+\.\d+$")

    def test_dates_are_utc_without_a_zone(self):
        for moment in re.findall(r'"(?:created|lastModified|deadline|closed)":"([^"]*)"',
                                 self.client.get("/WORK/Tasks").body.decode()):
            self.assertRegex(moment, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")

    def test_one_task_has_its_id_inside_and_more_detail(self):
        listed = self.client.get("/WORK/Tasks", {"taskID": 1004}).json()["1004"]
        task = self.task(1004)
        self.assertEqual(task["id"], 1004)
        self.assertLess({"requestMethod", "branch", "counters"}, set(task) - set(listed))


class Paging(SandboxTest):
    def page(self, asked, query=None):
        reply = self.client.get("/WORK/Tasks", query, Range=asked)
        return reply.status, reply.headers["Content-Range"], len(reply.json())

    def test_range_is_1_based_and_inclusive(self):
        self.assertEqual(self.page("items=1-50"), (206, "items=1-50/240", 50))
        self.assertEqual(self.page("items=51-51"), (206, "items=51-51/240", 1))

    def test_items_0_49_yields_49_records(self):
        self.assertEqual(self.page("items=0-49"), (206, "items=1-49/240", 49))

    def test_a_right_edge_past_the_end_is_clamped(self):
        self.assertEqual(self.page("items=201-300"), (206, "items=201-240/240", 40))

    def test_an_empty_page_is_0_0_of_the_total(self):
        self.assertEqual(self.page("items=241-300"), (206, "items=0-0/240", 0))
        self.assertEqual(self.page("items=1-50", {"erpID": "none"}), (206, "items=0-0/0", 0))

    def test_pages_from_the_answer_s_own_content_range_give_everything_once(self):
        whole, pages, first = self.ids(), [], 1
        while True:
            reply = self.client.get("/WORK/Tasks", Range=f"items={first}-{first + 69}")
            pages += map(int, reply.json())
            last, total = map(int, re.fullmatch(r"items=\d+-(\d+)/(\d+)", reply.headers["Content-Range"]).groups())
            if last == total:
                break
            first = last + 1
        self.assertEqual(pages, whole)

    def test_offset_and_fetch_are_0_based(self):
        whole = self.ids()
        reply = self.client.get("/WORK/Tasks", {"offset": 10, "fetch": 5})
        self.assertEqual((reply.status, reply.headers["Content-Range"]), (206, "items=11-15/240"))
        self.assertEqual([int(key) for key in reply.json()], whole[10:15])

    def test_a_negative_or_mistyped_offset_is_409(self):
        for query in ({"offset": -1}, {"fetch": "many"}):
            self.assert_error(self.client.get("/WORK/Tasks", query), 409, "InvalidData")

    def test_no_paging_is_200_without_content_range(self):
        reply = self.client.get("/WORK/Tasks")
        self.assertEqual((reply.status, len(reply.json())), (200, 240))
        self.assertNotIn("Content-Range", reply.headers)

    def test_a_range_of_something_else_is_ignored(self):
        for asked in ("bytes=0-10", "items=50-1", "items=x"):
            self.assertEqual(self.client.get("/WORK/Tasks", Range=asked).status, 200, asked)

    def test_arrays_are_paged_the_same_way(self):
        reply = self.client.get("/ADM/Roles", Range="items=2-3")
        self.assertEqual((reply.status, reply.headers["Content-Range"], len(reply.json())), (206, "items=2-3/6", 2))


class SilentCut(unittest.TestCase):
    def test_no_paging_gives_at_most_10000_records(self):
        program = Program(".", "--tasks", 10_050, "--assets", 0)
        self.addCleanup(program.stop)
        client = Client(program.ready)
        self.addCleanup(client.close)
        client.sign_in()
        reply = client.get("/WORK/Tasks")
        self.assertEqual((reply.status, len(reply.json())), (200, 10_000))
        self.assertNotIn("Content-Range", reply.headers)
        self.assertEqual(client.head("/WORK/Tasks").headers["Content-Range"], "items=0-0/10050")


class Counting(SandboxTest):
    def test_head_counts_with_the_same_filters(self):
        for query in (None, {"isDeleted": "true"}, {"companyID": [2, 3]}, {"creationFrom": "2025-06-01"}):
            reply = self.client.head("/WORK/Tasks", query)
            self.assertEqual((reply.status, reply.headers["Content-Range"]),
                             (200, f"items=0-0/{len(self.ids(query))}"))

    def test_head_ignores_what_the_catalogue_does_not_declare_for_it(self):
        for query in ({"lastModifiedFrom": "2025-06-01"}, {"districtID": 1}):
            self.assertLess(len(self.ids(query)), 240)
            self.assertEqual(self.client.head("/WORK/Tasks", query).headers["Content-Range"], "items=0-0/240")

    def test_head_works_on_lists_that_declare_it(self):
        for path in ("/ES/Assets", "/ES/Companies", "/ES/Locations", "/ADM/Users", "/WORK/TaskTemplates",
                     "/TSTG/TaskStages", "/WH/Warehouses", "/WH/Materials", "/SC/ServiceContract",
                     "/PMP/ScheduledTasks", "/WORK/Tasks/1003/conversations"):
            self.assertEqual(self.client.head(path).headers["Content-Range"],
                             f"items=0-0/{len(self.client.get(path).json())}", path)

    def test_head_is_404_on_contacts(self):
        self.assertEqual(self.client.head("/COMMON/Contacts").status, 404)

    def test_count_is_500_without_dates(self):
        self.assert_error(self.client.get("/WORK/Tasks/count"), 500)
        days = self.client.get("/WORK/Tasks/count", {"dateFrom": "2025-01-01", "dateTill": "2026-01-01"}).json()
        self.assertEqual(sum(sum(day.values()) for day in days.values()), 240)


class Filters(SandboxTest):
    def test_an_unknown_parameter_is_silently_ignored(self):
        for query in ({"compnayID": 2}, {"companyid": 2}, {"CompanyID": "x"}):
            self.assertEqual(len(self.ids(query)), 240, query)

    def test_a_value_of_a_wrong_type_is_409_invalid_data(self):
        for name, value in (("taskID", "abc"), ("companyID", "1,2"), ("companyID", ""), ("isClosed", "1"),
                            ("creationFrom", "yesterday"), ("taskTypeID", "1.5"), ("assetID", "99999999999"),
                            ("creationFrom", "2025-07-24T11:31:25 03:00"), ("attributeValues", "[1]")):
            self.assert_error(self.client.get("/WORK/Tasks", {name: value}), 409, "InvalidData")

    def test_id_filters_repeat(self):
        self.assertEqual(sorted(self.ids([("taskID", 1001), ("taskID", 1007), ("taskID", 9999)])), [1001, 1007])

    def test_closed_completed_and_deleted_are_independent(self):
        self.assertTrue(set(self.ids({"isClosed": "false"})) & set(self.ids({"isDeleted": "true"})))
        self.assertTrue(self.ids({"isClosed": "true", "isDeleted": "true"}))
        self.assertTrue(self.ids({"isClosed": "true", "isCompleted": "false"}))
        self.assertTrue(self.ids({"isClosed": "false", "isCompleted": "true"}))

    def test_assets_have_no_is_deleted_filter(self):
        assets = self.client.get("/ES/Assets").json()
        self.assertTrue([asset for asset in assets.values() if "deleted" in asset])
        self.assertEqual(len(self.client.get("/ES/Assets", {"isDeleted": "false"}).json()), len(assets))


class Sort(SandboxTest):
    def values(self, field, query=None):
        tasks = self.client.get("/WORK/Tasks", query).json()
        return [(task["timesheet"][field], int(key)) for key, task in tasks.items()]

    def test_order_by_ids_are_listed_and_sparse(self):
        orders = self.client.get("/WORK/TaskOrderBy").json()
        self.assertLessEqual({"1", "8"}, set(orders))
        self.assertNotEqual(list(map(int, orders)), list(range(1, len(orders) + 1)))

    def test_by_default_the_latest_created_come_first(self):
        self.assertEqual(self.values("created"), sorted(self.values("created"), reverse=True))

    def test_8_is_the_last_modification_and_1_ascending(self):
        found = self.values("lastUpdated", {"orderBy": 8, "sortDirection": 1})
        self.assertEqual(found, sorted(found))
        self.assertLess(len({moment for moment, _ in found}), len(found), "the seed should hold ties")

    def test_2_is_descending_ties_as_well(self):
        found = self.values("lastUpdated", {"orderBy": 8, "sortDirection": 2})
        self.assertEqual(found, sorted(found, reverse=True))

    def test_every_order_sorts(self):
        results = {order: tuple(self.ids({"orderBy": order})) for order in self.client.get("/WORK/TaskOrderBy").json()}
        self.assertEqual(len(set(results.values())), len(results))

    def test_a_direction_out_of_its_domain_turns_sorting_off(self):
        for direction in (0, 3, -1):
            self.assertEqual(self.ids({"orderBy": 8, "sortDirection": direction}), sorted(self.ids()))

    def test_an_order_out_of_its_domain_is_the_creation_date(self):
        self.assertEqual(self.ids({"orderBy": 999}), self.ids({"orderBy": 1}))

    def test_a_text_for_either_is_409(self):
        for query in ({"orderBy": "created"}, {"sortDirection": "asc"}):
            self.assert_error(self.client.get("/WORK/Tasks", query), 409, "InvalidData")


class Incremental(SandboxTest):
    def test_last_modified_from_and_till_are_inclusive(self):
        moments = {task["id"]: task["lastModified"] for task in self.stored()}
        edge = sorted(moments.values())[100]
        self.assertEqual(sorted(self.ids({"lastModifiedFrom": edge, "lastModifiedTill": edge})),
                         [key for key, moment in moments.items() if moment == edge])

    def test_a_change_shows_up(self):
        before = self.create()["id"]
        edge = self.task(before)["lastModified"]
        self.client.call("PATCH", "/WORK/Tasks/1001", [{"field": "notes", "value": "x"}])
        self.assertEqual(set(self.ids({"lastModifiedFrom": edge})), {before, 1001})

    def test_an_offset_and_a_z_are_understood(self):
        plain = self.ids({"creationFrom": "2025-06-01T12:00:00"})
        self.assertTrue(plain)
        for same in ("2025-06-01T12:00:00Z", "2025-06-01T15:00:00+03:00", "2025-06-01T12:00"):
            self.assertEqual(self.ids({"creationFrom": same}), plain, same)


class Text(SandboxTest):
    def test_the_seed_holds_cyrillic_quotes_and_emoji(self):
        body = self.client.get("/WORK/Tasks").body.decode()
        for text in ("Лифт", '\\"', "«", "🚨", "\\n", "\\\\"):
            self.assertIn(text, body)
        self.assertEqual(self.client.get("/WORK/Tasks").headers["Content-Type"], "application/json; charset=utf-8")
        self.assertEqual(json.loads(body).keys(), self.client.get("/WORK/Tasks").json().keys())


if __name__ == "__main__":
    unittest.main()
