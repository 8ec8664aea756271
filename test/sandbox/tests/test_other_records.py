"""Dictionaries, assets, companies, webhooks."""
import unittest

from support import Client, Program, SandboxTest

DICTIONARIES = ("/WORK/TaskTypes", "/WORK/WorkTypes", "/WORK/TaskStatuses", "/WORK/RequestMethods",
                "/WORK/TaskTemplates", "/WORK/CheckLists")


class Dictionaries(SandboxTest):
    def test_those_of_work_are_maps_with_the_id_in_the_key(self):
        for path in DICTIONARIES:
            records = self.client.get(path).json()
            self.assertTrue(records, path)
            for record in records.values():
                self.assertIn("name", record)
                self.assertNotIn("id", record)

    def test_all_the_others_are_there(self):
        for path in ("/TSTG/TaskStages", "/SLA/Criticalities", "/ES/AssetTypes", "/ES/AssetClasses", "/ES/Companies",
                     "/ES/Districts", "/ES/Locations", "/ADM/Users", "/ADM/Roles", "/COMMON/Contacts",
                     "/COMMON/Attributes", "/WH/Warehouses", "/WH/Materials", "/SC/ServiceContract",
                     "/PMP/ScheduledTasks", "/PA/Employment/5", "/COMMON/Events"):
            reply = self.client.get(path)
            self.assertEqual(reply.status, 200, path)
            self.assertTrue(reply.json(), path)

    def test_one_record_has_its_id_inside(self):
        self.assertEqual(self.client.get("/WORK/WorkTypes/3").json()["id"], 3)
        self.assert_error(self.client.get("/WORK/WorkTypes/999"), 404)

    def test_references_of_tasks_lead_into_the_dictionaries(self):
        lists = {name: self.client.get(path).json() for name, path in (
            ("taskType", "/WORK/TaskTypes"), ("workType", "/WORK/WorkTypes"), ("taskStatus", "/WORK/TaskStatuses"),
            ("actualCriticality", "/SLA/Criticalities"), ("company", "/ES/Companies"), ("location", "/ES/Locations"))}
        for task in self.client.get("/WORK/Tasks").json().values():
            for name, records in lists.items():
                if name in task:
                    self.assertIn(str(task[name]["id"]), records, name)

    def test_attributes_of_tasks_that_are_not_deleted(self):
        found = self.client.get("/COMMON/Attributes", {"isRelevantForTask": "true", "isDeleted": "false"}).json()
        self.assertEqual(set(found), {"5", "6", "8", "9"})

    def test_erp_id_finds_a_work_type(self):
        self.assertEqual(set(self.client.get("/WORK/WorkTypes", {"erpID": "W-031"}).json()), {"13"})

    def test_roles_can_be_asked_without_the_deleted(self):
        self.assertEqual(len(self.client.get("/ADM/Roles").json())
                         - len(self.client.get("/ADM/Roles", {"isDeleted": "false"}).json()), 1)

    def test_a_new_contact_is_found_by_its_id(self):
        contact, = self.client.post("/COMMON/Contacts", [{"fullName": "Юрий Ё."}]).json()
        found = self.client.get("/COMMON/Contacts", {"contactID": contact}).json()
        self.assertEqual(found, {str(contact): {"id": contact, "fullName": "Юрий Ё."}})

    def test_users_by_what_they_are(self):
        users = self.client.get("/ADM/Users", {"isTechnician": "true", "isDeleted": "false"}).json()
        self.assertTrue(users)
        for key, user in users.items():
            self.assertEqual((user["isTechnician"], user["userID"]), (True, int(key)))
        self.assertFalse(self.client.get("/ADM/Users", {"isTeam": "true"}).json())
        self.assertEqual({user["middleName"] for user in self.client.get("/ADM/Users", {"middleName": "Петрович"}).json().values()},
                         {"Петрович"})

    def test_warehouses_and_materials(self):
        self.assertEqual(set(self.client.get("/WH/Warehouses", {"isDefault": "true"}).json()), {"1"})
        self.assertEqual([material["id"] for material in self.client.get("/WH/Materials", {"materialID": [3, 1]}).json()], [1, 3])
        self.assertFalse(self.client.get("/WH/Materials", {"warehouseID": 1}).json())


class Companies(SandboxTest):
    def test_post_takes_an_array_and_answers_an_array_of_ids(self):
        reply = self.client.post("/ES/Companies", [{"name": "ООО «Новая»", "erpID": "N1", "registrationTypeID": 1},
                                                   {"Name": "Вторая"}])
        self.assertEqual((reply.status, len(reply.json())), (201, 2))
        company = self.client.get("/ES/Companies").json()[str(reply.json()[0])]
        self.assertEqual((company["id"], company["name"], company["erpID"]), (reply.json()[0], "ООО «Новая»", "N1"))
        self.create(companyID=reply.json()[1])

    def test_put_and_delete(self):
        self.assert_bare(self.client.call("PUT", "/ES/Companies", [{"id": 4, "name": "Хлеб"}]), 202)
        company = self.client.get("/ES/Companies/4").json()
        self.assertEqual((company["name"], "erpID" in company), ("Хлеб", False))
        self.assert_bare(self.client.call("DELETE", "/ES/Companies", [4]), 202)
        self.assertIn("deleted", self.client.get("/ES/Companies/4").json())
        self.assert_error(self.client.post("/WORK/Tasks", {"taskTypeID": 2, "requestMethodID": 4, "companyID": 4}), 409)

    def test_refusals(self):
        self.assert_bare(self.client.post("/ES/Companies", {"name": "x"}), 400)
        self.assert_bare(self.client.post("/ES/Companies", [{"code": "x"}]), 400)
        self.assert_error(self.client.call("PUT", "/ES/Companies", [{"id": 999, "name": "x"}]), 409)
        self.assert_error(self.client.call("DELETE", "/ES/Companies", [999]), 409)
        self.assert_error(self.client.call("DELETE", "/ES/Companies/999"), 404)


class Assets(SandboxTest):
    def add(self, **fields):
        return self.client.post("/ES/Assets", {"name": "Чиллер «Юг»", "assetTypeID": 7, "assetClassID": 2, **fields})

    def test_post_one_object_is_201_with_id_and_name(self):
        reply = self.add(companyID=3, erpID="EQ-NEW", isAutoPublish=True)
        self.assertEqual((reply.status, reply.json()), (201, {"id": 61, "name": "Чиллер «Юг»"}))
        asset = self.client.get("/ES/Assets/61").json()
        self.assertEqual((asset["company"]["id"], asset["erpID"], asset["assetType"]["id"], "published" in asset),
                         (3, "EQ-NEW", 7, True))

    def test_put_is_a_full_replacement(self):
        before = self.client.get("/ES/Assets/2").json()
        self.assertIn("serialNumber", before)
        self.assert_bare(self.client.call("PUT", "/ES/Assets/2", {"name": "Новое имя"}), 202)
        after = self.client.get("/ES/Assets/2").json()
        self.assertEqual(set(after), {"id", "name", "published"})
        self.assertEqual(after["name"], "Новое имя")

    def test_publish(self):
        asset = self.add().json()["id"]
        self.assertNotIn("published", self.client.get(f"/ES/Assets/{asset}").json())
        self.assert_bare(self.client.call("PUT", f"/ES/Assets/{asset}/publish"), 202)
        self.assertIn("published", self.client.get(f"/ES/Assets/{asset}").json())

    def test_delete_and_restore(self):
        self.assert_bare(self.client.call("DELETE", "/ES/Assets/3"), 202)
        self.assertIn("deleted", self.client.get("/ES/Assets").json()["3"])
        self.assert_error(self.client.call("PUT", "/ES/Assets/3", {"name": "x"}), 409)
        self.assert_bare(self.client.call("PUT", "/ES/Assets/restore", [3]), 202)
        self.assertNotIn("deleted", self.client.get("/ES/Assets").json()["3"])

    def test_children(self):
        parent = self.add().json()["id"]
        self.assertFalse(self.client.get("/ES/Assets").json()[str(parent)]["hasChildren"])
        self.add(parentID=parent)
        assets = self.client.get("/ES/Assets").json()
        for key, asset in assets.items():
            self.assertEqual(asset["hasChildren"], any(other.get("parentID") == int(key) for other in assets.values()))

    def test_the_undocumented_filter_contact_id(self):
        found = [self.client.get("/ES/Assets", {"contactID": contact}).json() for contact in range(1, 9)]
        self.assertEqual(sum(map(len, found)), 60)
        self.assertEqual(self.client.head("/ES/Assets", {"contactID": 1}).headers["Content-Range"],
                         f"items=0-0/{len(found[0])}")
        self.assert_error(self.client.get("/ES/Assets", {"contactID": "x"}), 409)

    def test_search_text(self):
        found = self.client.get("/ES/Assets", {"searchText": "приточная"}).json()
        self.assertTrue(0 < len(found) < 60)

    def test_refusals(self):
        self.assert_bare(self.client.post("/ES/Assets", {"assetTypeID": 7}), 400)
        self.assert_error(self.add(companyID=999), 409)
        self.assert_error(self.add(parentID=999), 409)
        self.assert_error(self.client.get("/ES/Assets/999"), 404)


class ManyAssets(unittest.TestCase):
    def test_600000_assets_are_paged_through_quickly(self):
        program = Program(".", "--assets", 600_000, "--tasks", 20)
        self.addCleanup(program.stop)
        client = Client(program.ready)
        self.addCleanup(client.close)
        client.sign_in()
        self.assertEqual(client.head("/ES/Assets").headers["Content-Range"], "items=0-0/600000")
        reply = client.get("/ES/Assets", Range="items=599951-600050")
        self.assertEqual(reply.headers["Content-Range"], "items=599951-600000/600000")
        self.assertEqual(list(reply.json()), [str(key) for key in range(599951, 600001)])
        self.assertEqual(len(client.get("/ES/Assets").json()), 10_000)


class Webhooks(SandboxTest):
    HOOK = {"name": "hubex", "uri": "http://127.0.0.1:9/hook", "events": [1, 5], "taskStages": [12], "isActive": True}

    def add(self, **fields):
        reply = self.client.post("/MSG/Webhooks", [{**self.HOOK, **fields}])
        self.assertEqual(reply.status, 201, reply)
        return reply.json()

    def test_post_creates_and_answers_ids(self):
        ids = self.add()
        hook = self.client.get(f"/MSG/Webhooks/{ids[0]}").json()
        self.assertEqual((hook["uri"], [event["id"] for event in hook["events"]], hook["taskStages"][0]["name"]),
                         (self.HOOK["uri"], [1, 5], "Выполнена"))
        self.assertEqual((hook["callsRemaining"], "lastCall" in hook), (10, False))
        self.assertEqual(set(self.client.get("/MSG/Webhooks").json()), {str(ids[0])})

    def test_post_with_an_id_updates(self):
        ids = self.add()
        self.assertEqual(self.add(id=ids[0], name="other"), ids)
        self.assertEqual(self.client.get("/MSG/Webhooks").json()[str(ids[0])]["name"], "other")

    def test_activate_and_deactivate(self):
        hook = self.add()[0]
        for verb, active in (("deactivate", False), ("activate", True)):
            self.assert_bare(self.client.call("PUT", f"/MSG/Webhooks/{verb}/{hook}"), 202)
            self.assertEqual(self.client.get(f"/MSG/Webhooks/{hook}").json()["isActive"], active)

    def test_delete(self):
        first, second, third = self.add()[0], self.add()[0], self.add()[0]
        self.assert_bare(self.client.call("DELETE", f"/MSG/Webhooks/{first}"), 202)
        self.assert_bare(self.client.call("DELETE", "/MSG/Webhooks", [second]), 202)
        self.assertEqual(set(self.client.get("/MSG/Webhooks").json()), {str(third)})

    def test_refusals(self):
        self.assert_bare(self.client.post("/MSG/Webhooks", [{"name": "x"}]), 400)
        self.assert_error(self.client.post("/MSG/Webhooks", [{**self.HOOK, "events": [99]}]), 409)
        self.assert_error(self.client.post("/MSG/Webhooks", [{**self.HOOK, "id": 99}]), 409)
        for method, path in (("GET", "/99"), ("DELETE", "/99"), ("PUT", "/activate/99")):
            self.assert_error(self.client.call(method, "/MSG/Webhooks" + path), 404)
        self.assert_error(self.client.call("DELETE", "/MSG/Webhooks", [99]), 409)


if __name__ == "__main__":
    unittest.main()
