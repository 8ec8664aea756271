"""Attributes, assignees, conversation, attachments, completed works, tags and the other lists of a task."""
import hashlib
import unittest

from support import GUID, SandboxTest


class Attributes(SandboxTest):
    def test_many_tasks_in_one_request(self):
        first, second = self.create()["id"], self.create()["id"]
        self.assert_bare(self.client.post("/WORK/TaskAttributes", [
            {"taskID": first, "data": [{"attributeID": 8, "value": "2"}, {"attributeID": 9, "value": "4.5"}]},
            {"taskID": second, "data": [{"attributeID": 8, "value": "3"}]}]), 202)
        rows = self.client.get("/WORK/TaskAttributes", [("taskID", first), ("taskID", second)]).json()
        self.assertEqual({(row["taskID"], row["attributeID"], row["value"]) for row in rows},
                         {(first, 8, "2"), (first, 9, "4.5"), (second, 8, "3")})

    def test_values_are_merged_and_null_takes_one_away(self):
        task = self.create()["id"]
        for data in ([{"attributeID": 8, "value": "2"}, {"attributeID": 6, "value": "true"}],
                     [{"attributeID": 8, "value": None}, {"attributeID": 6, "value": "false"}]):
            self.client.post("/WORK/TaskAttributes", [{"taskID": task, "data": data}])
        values = self.client.get(f"/WORK/Tasks/{task}/attributes").json()
        self.assertEqual([(item["attribute"]["id"], item["value"]) for item in values], [(6, "false")])

    def test_an_unknown_task_or_attribute_is_409_and_nothing_is_written(self):
        task = self.create()["id"]
        good = {"taskID": task, "data": [{"attributeID": 8, "value": "2"}]}
        for bad in ({"taskID": 99999, "data": []}, {"taskID": task, "data": [{"attributeID": 999, "value": "x"}]}):
            self.assert_error(self.client.post("/WORK/TaskAttributes", [good, bad]), 409)
        self.assertEqual(self.client.get(f"/WORK/Tasks/{task}/attributes").json(), [])

    def test_malformed_bodies_are_400(self):
        for body in ({}, [5], [{"taskID": 1001}], [{"taskID": 1001, "data": [5]}],
                     [{"taskID": 1001, "data": [{"attributeID": 8, "value": 5}]}]):
            self.assert_bare(self.client.post("/WORK/TaskAttributes", body), 400)


class Assignment(SandboxTest):
    def assign(self, *wishes):
        reply = self.client.post("/WORK/TaskAssignmentHistory", list(wishes))
        self.assertEqual(reply.status, 201, reply)
        return reply.json()

    def test_it_is_201_and_sets_the_assignee(self):
        task = self.create()
        answer = self.assign({"taskID": task["id"], "userID": 5, "scheduledStartDateTime": "2026-12-01T09:00:00",
                              "scheduledFinishDateTime": "2026-12-01T11:00:00"})
        self.assertEqual(answer, [{"taskID": task["id"], "taskNumber": task["number"], "assignments": [
            {"userID": 5, "dateTimeFrom": "2026-12-01T09:00:00", "dateTimeTill": "2026-12-01T11:00:00"}]}])
        view = self.task(task["id"])
        self.assertEqual(view["assignedTo"]["id"], 5)
        self.assertIn("assigned", view["timesheet"])
        self.assertEqual(self.ids({"taskID": task["id"], "isScheduled": "true"}), [task["id"]])

    def test_several_assignees_and_their_replacement(self):
        task = self.create()["id"]
        self.assign({"taskID": task, "userID": 5}, {"taskID": task, "userID": 6})
        self.assertEqual([user["id"] for user in self.task(task)["listAssignedTo"]], [5, 6])
        self.assign({"taskID": task, "userID": 8})
        self.assertEqual([user["id"] for user in self.task(task)["listAssignedTo"]], [8])
        self.assign({"taskID": task})
        self.assertNotIn("assignedTo", self.task(task))

    def test_an_unknown_user_is_an_error_inside_an_unknown_task_409(self):
        task = self.create()["id"]
        self.assertIn("error", self.assign({"taskID": task, "userID": 999})[0]["assignments"][0])
        self.assertNotIn("assignedTo", self.task(task))
        self.assert_error(self.client.post("/WORK/TaskAssignmentHistory", [{"taskID": 99999, "userID": 5}]), 409)


class Conversation(SandboxTest):
    def say(self, task, **fields):
        return self.client.post(f"/WORK/Tasks/{task}/conversation", fields)

    def test_a_message_is_201_with_id_and_task(self):
        task = self.create()["id"]
        reply = self.say(task, message="Выезжаем 🚐", isExternal=False, attachments=[])
        self.assertEqual((reply.status, set(reply.json()), reply.json()["taskID"]), (201, {"id", "taskID"}, task))

    def test_messages_are_read_as_an_array_oldest_first(self):
        task = self.create()["id"]
        self.say(task, message="Команде «внутри»\n")
        self.say(task, message="Клиенту", isExternal=True)
        messages = self.client.get(f"/WORK/Tasks/{task}/conversations").json()
        self.assertEqual([(message["message"], message["isExternal"]) for message in messages],
                         [("Команде «внутри»\n", False), ("Клиенту", True)])
        self.assertEqual(len(self.client.get(f"/WORK/Tasks/{task}/conversations", {"isExternal": "true"}).json()), 1)

    def test_refusals(self):
        self.assert_error(self.say(99999, message="x"), 404)
        self.assert_error(self.say(1001, message=""), 409)
        self.assert_error(self.say(1001, message="x", attachments=[999]), 409)
        self.assert_bare(self.say(1001, message=5), 400)


class Attachments(SandboxTest):
    PATH = "/WORK/TaskAttachments/upload/fromForm"
    CONTENT = bytes(range(256)) + "Акт\r\n--bound\r\n".encode()

    def upload(self, fields, content=CONTENT, filename="Акт «1».bin"):
        body = b"".join(f'--boundary7\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
                        for name, value in fields.items())
        if content is not None:
            body += (f'--boundary7\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
                     "Content-Type: application/octet-stream\r\n\r\n").encode() + content + b"\r\n"
        return self.client.post(self.PATH, body + b"--boundary7--\r\n",
                                Content_Type="multipart/form-data; boundary=boundary7")

    def test_an_upload_is_201_with_the_md5_of_the_bytes(self):
        task = self.create()["id"]
        reply = self.upload({"taskID": task, "isPublic": "true"})
        self.assertEqual(reply.status, 201, reply)
        answer = reply.json()
        self.assertEqual(set(answer), {"taskID", "attachmentID", "md5Hash", "fileName", "isProtected"})
        self.assertEqual((answer["taskID"], answer["md5Hash"], answer["fileName"], answer["isProtected"]),
                         (task, hashlib.md5(self.CONTENT).hexdigest(), "Акт «1».bin", False))

    def test_they_are_listed_as_a_map(self):
        task = self.create()["id"]
        attachment = self.upload({"TaskID": task}).json()["attachmentID"]
        listed = self.client.get(f"/WORK/Tasks/{task}/attachments").json()
        self.assertEqual(set(listed), {str(attachment)})
        self.assertEqual((listed[str(attachment)]["size"], listed[str(attachment)]["isProtected"]),
                         (len(self.CONTENT), True))

    def test_the_same_content_twice_is_409_unless_it_is_to_be_ignored(self):
        task = self.create()["id"]
        self.upload({"taskID": task})
        self.assert_error(self.upload({"taskID": task}), 409, "PossibleDuplication")
        self.assertEqual(self.upload({"taskID": task, "isIgnorePossibleDuplication": "true"}).status, 201)

    def test_a_large_and_an_empty_file(self):
        task = self.create()["id"]
        self.assertEqual(self.upload({"taskID": task}, b"x" * 5_000_000).status, 201)
        self.assertEqual(self.upload({"taskID": task}, b"").json()["md5Hash"], hashlib.md5(b"").hexdigest())

    def test_refusals(self):
        self.assert_error(self.upload({"taskID": 99999}), 409)
        self.assert_bare(self.upload({"taskID": "x"}), 400)
        self.assert_bare(self.upload({}), 400)
        self.assert_bare(self.upload({"taskID": 1001}, content=None), 400)
        for body, content_type in ((b"x", "multipart/form-data; boundary=y"), (b"x", "multipart/form-data"), (b"", ""),
                                   (b"{}", "application/json"), (b"--y\r\n\r\n5", "multipart/form-data; boundary=y")):
            self.assert_bare(self.client.post(self.PATH, body, Content_Type=content_type), 400)

    def test_the_journal_keeps_the_bytes(self):
        self.upload({"taskID": 1001})
        entry = self.control.journal()[-1]
        self.assertIsNone(entry["body"])
        self.assertIn("body_base64", entry)


class CompletedWorks(SandboxTest):
    def add(self, task, headers=None, **work):
        return self.client.call("POST", "/WORK/CompletedWorks", [{"taskID": task, "data": [{"workTypeID": 7, **work}]}],
                                headers)

    def test_it_is_201_and_listed(self):
        task = self.create(assetID=2)["id"]
        reply = self.add(task, maintainedAssetID=2, implementedByUserID=5, started="2026-01-01T08:00:00Z",
                         finished="2026-01-01T09:30:00Z", notes="Готово", quantity=1.5, measurementUnitID=5)
        self.assertEqual((reply.status, reply.json()[0]["taskID"]), (201, task))
        works = self.client.get(f"/WORK/Tasks/{task}/completedWorks").json()
        self.assertEqual([(work["id"], work["workType"]["id"], work["quantity"], work["started"]) for work in works],
                         [(reply.json()[0]["id"], 7, 1.5, "2026-01-01T08:00:00")])

    def test_a_repeated_stamp_is_409_or_200_if_the_conflict_is_suppressed(self):
        task = self.create()["id"]
        first = self.add(task, {"X-Concurrency-Stamp": GUID})
        self.assertEqual(first.json()[0]["concurrencyStamp"], GUID)
        self.assert_error(self.add(task, {"X-Concurrency-Stamp": GUID}), 409)
        again = self.add(task, {"X-Concurrency-Stamp": GUID, "X-Suppress-Conflict": "true"})
        self.assertEqual((again.status, again.json()), (200, first.json()))
        self.assertEqual(len(self.client.get(f"/WORK/Tasks/{task}/completedWorks").json()), 1)

    def test_the_stamp_of_a_task_is_not_that_of_a_work(self):
        reply = self.client.post("/WORK/Tasks", {"taskTypeID": 2, "requestMethodID": 4}, X_Concurrency_Stamp=GUID)
        self.assertEqual(self.add(reply.json()["id"], {"X-Concurrency-Stamp": GUID}).status, 201)

    def test_put_replaces_and_delete_removes(self):
        task = self.create()["id"]
        work = self.add(task, notes="x").json()[0]["id"]
        self.assert_bare(self.client.call("PUT", "/WORK/CompletedWorks", [
            {"taskID": task, "data": [{"id": work, "workTypeID": 8, "quantity": 2}]}]), 202)
        listed = self.client.get(f"/WORK/Tasks/{task}/completedWorks").json()[0]
        self.assertEqual((listed["workType"]["id"], listed["quantity"], "notes" in listed), (8, 2, False))
        self.assert_bare(self.client.call("DELETE", "/WORK/CompletedWorks", [{"taskID": task, "data": [work]}]), 202)
        self.assertEqual(self.client.get(f"/WORK/Tasks/{task}/completedWorks").json(), [])

    def test_put_takes_a_stamp_as_well(self):
        task = self.create()["id"]
        body = [{"taskID": task, "data": [{"id": self.add(task).json()[0]["id"], "workTypeID": 8}]}]
        headers = {"X-Concurrency-Stamp": GUID}
        self.assert_bare(self.client.call("PUT", "/WORK/CompletedWorks", body, headers), 202)
        self.assert_error(self.client.call("PUT", "/WORK/CompletedWorks", body, headers), 409)
        headers["X-Suppress-Conflict"] = "true"
        self.assertEqual(self.client.call("PUT", "/WORK/CompletedWorks", body, headers).status, 200)

    def test_refusals(self):
        self.assert_error(self.add(99999), 409)
        self.assert_error(self.add(1001, maintainedAssetID=99999), 409)
        self.assert_bare(self.add(1001, {"X-Concurrency-Stamp": "7"}), 400)
        self.assert_bare(self.add(1001, workTypeID=None), 400)
        self.assert_error(self.client.call("DELETE", "/WORK/CompletedWorks", [{"taskID": 1001, "data": [9999]}]), 409)


class Lists(SandboxTest):
    def test_tags_contacts_watchers_and_skills(self):
        task = self.create()["id"]
        for resource, listing, data, shown in (
                ("TaskTags", "tags", ["срочно", "VIP"], lambda reply: reply),
                ("TaskContacts", "contacts", [1, 2], lambda reply: [int(key) for key in reply]),
                ("TaskWatchLists", "watchLists", [2, 3], lambda reply: [user["id"] for user in reply]),
                ("TaskSkills", "skills", [1, 4], lambda reply: [int(key) for key in reply])):
            with self.subTest(resource):
                body = [{"taskID": task, "data": data}]
                self.assertEqual(self.client.post(f"/WORK/{resource}", body).status, 201)
                self.assertEqual(shown(self.client.get(f"/WORK/Tasks/{task}/{listing}").json()), data)
                self.assert_bare(self.client.call("DELETE", f"/WORK/{resource}", [{"taskID": task, "data": data[:1]}]),
                                 202)
                self.assertEqual(shown(self.client.get(f"/WORK/Tasks/{task}/{listing}").json()), data[1:])
                self.assert_error(self.client.post(f"/WORK/{resource}", [{"taskID": 99999, "data": data}]), 409)

    def test_unknown_references_are_409(self):
        for resource in ("TaskContacts", "TaskWatchLists", "TaskSkills"):
            self.assert_error(self.client.post(f"/WORK/{resource}", [{"taskID": 1001, "data": [999]}]), 409)

    def test_a_contact_of_a_task_finds_it(self):
        task = self.create()["id"]
        self.client.post("/WORK/TaskContacts", [{"taskID": task, "data": [2]}])
        self.assertIn(task, self.ids({"contactID": 2}))

    def test_favourites_and_ratings(self):
        task = self.create()["id"]
        self.assertEqual(self.client.post("/WORK/UserTaskFavourites", [task]).status, 201)
        self.assertIn(task, self.ids({"isFavourite": "true"}))
        self.assert_bare(self.client.call("DELETE", "/WORK/UserTaskFavourites", [task]), 202)
        self.assertNotIn(task, self.ids({"isFavourite": "true"}))
        for rating in (3, 4):
            self.client.post("/WORK/TaskRatings", [{"taskID": task, "technicianID": 5, "rating": rating}])
        self.assertEqual(self.task(task)["averageRating"], 4)


if __name__ == "__main__":
    unittest.main()
