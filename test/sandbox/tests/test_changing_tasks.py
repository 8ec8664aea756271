"""PATCH, PUT, DELETE, restore, complete."""
import unittest

from support import SandboxTest


class Patch(SandboxTest):
    def patch(self, task_id, *pairs):
        return self.client.call("PATCH", f"/WORK/Tasks/{task_id}",
                                [{"field": field, "value": value} for field, value in pairs])

    def test_an_array_of_field_and_value_is_202_without_a_body(self):
        self.assert_bare(self.patch(1001, ("companyID", 7), ("notes", "новое")), 202)
        task = self.task(1001)
        self.assertEqual((task["company"]["id"], task["notes"]), (7, "новое"))

    def test_other_fields_stay(self):
        before = self.stored(1003)
        self.patch(1003, ("notes", "x"))
        after = self.stored(1003)
        changed = {name for name in after if after[name] != before.get(name)}
        self.assertEqual(changed, {"notes", "lastModified"})

    def test_null_empties_a_field(self):
        self.patch(1001, ("notes", None))
        self.assertNotIn("notes", self.task(1001))

    def test_field_names_in_either_case_of_the_first_letter(self):
        self.assertEqual(self.patch(1001, ("Notes", "y")).status, 202)
        self.assertEqual(self.task(1001)["notes"], "y")

    def test_a_changed_erp_id_is_found_under_the_new_one_only(self):
        self.patch(1002, ("erpID", "NEW"))
        self.assertEqual((self.ids({"erpID": "NEW"}), self.ids({"erpID": "ORD-2025-000002"})), ([1002], []))

    def test_a_plain_object_is_400(self):
        self.assert_bare(self.client.call("PATCH", "/WORK/Tasks/1001", {"companyID": 7}), 400)

    def test_the_task_type_cannot_be_changed(self):
        type_now = self.stored(1001)["taskTypeID"]
        self.assert_error(self.patch(1001, ("taskTypeID", 1 if type_now != 1 else 2)), 409)
        self.assertEqual(self.patch(1001, ("taskTypeID", type_now)).status, 202)

    def test_business_rules_are_409_and_change_nothing(self):
        before = self.stored(1001)
        for pairs in ([("notes", "x"), ("companyID", 999)], [("surprise", 1)], [("deadline", "soon")],
                      [("number", None)], [("parentID", 1001)]):
            self.assert_error(self.patch(1001, *pairs), 409)
        self.assertEqual(self.stored(1001), before)

    def test_html_is_sanitised_here_too(self):
        self.assertEqual(self.patch(1001, ("notesHtml", "<script>")).status, 422)

    def test_an_unknown_task_is_404(self):
        self.assert_error(self.patch(99999, ("notes", "x")), 404)

    def test_a_deleted_task_is_409(self):
        deleted = next(task["id"] for task in self.stored() if task["deleted"])
        self.assert_error(self.patch(deleted, ("notes", "x")), 409, "TaskIsDeleted")


class Put(SandboxTest):
    def test_it_replaces_the_whole_task(self):
        before = self.stored(1002)
        reply = self.client.call("PUT", "/WORK/Tasks/1002", {"taskTypeID": before["taskTypeID"], "companyID": 5})
        self.assert_bare(reply, 202)
        after = self.stored(1002)
        self.assertEqual((after["companyID"], after["number"]), (5, before["number"]))
        self.assertEqual({"notes", "deadline", "contactPerson"} & set(after), set())
        self.assertIsNone(after["erpID"])
        for kept in ("created", "taskStageID", "assignees", "requestMethodID"):
            self.assertEqual(after[kept], before[kept])

    def test_the_task_type_cannot_be_changed(self):
        type_now = self.stored(1001)["taskTypeID"]
        self.assert_error(self.client.call("PUT", "/WORK/Tasks/1001", {"taskTypeID": 1 if type_now != 1 else 2}), 409)

    def test_html_is_sanitised_here_too(self):
        self.assertEqual(self.client.call("PUT", "/WORK/Tasks/1001", {"notesHtml": "<script>"}).status, 422)


class Delete(SandboxTest):
    def test_it_is_soft(self):
        task_id = self.create(erpID="gone")["id"]
        self.assertEqual(self.client.call("DELETE", f"/WORK/Tasks/{task_id}").status, 202)
        self.assertRegex(self.task(task_id)["deleted"], r"^\d{4}-")
        self.assertEqual(self.ids({"erpID": "gone"}), [task_id])
        self.assertEqual(self.ids({"erpID": "gone", "isDeleted": "false"}), [])

    def test_many_at_once(self):
        reply = self.client.call("DELETE", "/WORK/Tasks", [1001, 1002, 99999])
        self.assertEqual(reply.status, 202)
        self.assertEqual([result["taskID"] for result in reply.json() if "error" in result], [99999])
        self.assertLessEqual({1001, 1002}, set(self.ids({"isDeleted": "true"})))

    def test_restore_undoes_it(self):
        self.client.call("DELETE", "/WORK/Tasks", [1001, 1002])
        self.assert_bare(self.client.call("PUT", "/WORK/Tasks/restore", [1001, 1002]), 202)
        self.assertNotIn("deleted", self.task(1001))

    def test_unknown_tasks(self):
        self.assert_error(self.client.call("DELETE", "/WORK/Tasks/99999"), 404)
        self.assert_error(self.client.call("PUT", "/WORK/Tasks/restore", [99999]), 409)

    def test_anything_but_an_array_of_ids_is_400(self):
        for body in ({}, ["1001"], [1.5], b"x"):
            self.assert_bare(self.client.call("DELETE", "/WORK/Tasks", body), 400)


class Complete(SandboxTest):
    def complete(self, task_id, **fields):
        return self.client.call("PUT", f"/WORK/Tasks/{task_id}/complete", fields)

    def test_completed_and_closed_are_set_as_sent(self):
        task_id = self.create()["id"]
        fields = {"completed": "2026-01-02T03:04:05", "closed": "2026-01-03T00:00:00", "acceptedPerson": "Иванова",
                  "accepted": "2026-01-02T12:00:00", "signed": "2026-01-02T12:01:00"}
        self.assert_bare(self.complete(task_id, **fields), 202)
        task = self.task(task_id)
        shown = {**task["timesheet"], "acceptedPerson": task["acceptedPerson"]}
        self.assertEqual(shown, {**shown, **fields})

    def test_without_fields_it_is_completed_now_and_not_closed(self):
        task_id = self.create()["id"]
        self.complete(task_id)
        self.assertEqual(self.ids({"taskID": task_id, "isCompleted": "true", "isClosed": "false"}), [task_id])

    def test_a_completed_task_is_409_an_unknown_one_404(self):
        task_id = self.create()["id"]
        self.complete(task_id)
        self.assert_error(self.complete(task_id), 409)
        self.assertEqual(self.complete(task_id, closed="2026-01-03T00:00:00").status, 202)
        self.assert_error(self.complete(99999), 404)


if __name__ == "__main__":
    unittest.main()
