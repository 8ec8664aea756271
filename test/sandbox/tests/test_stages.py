"""The stages a task may move to, and moving it."""
import unittest

from support import GUID, SandboxTest

NEW, ASSIGNED, TAKEN, WORKING, DONE, CLOSED, CANCELLED = 1, 2, 3, 8, 12, 15, 17


class Stages(SandboxTest):
    def move(self, task_id, stage, **fields):
        reply = self.client.post("/WORK/TaskStagingHistory", {"taskID": task_id, "taskStageID": stage, **fields})
        self.assertEqual(reply.status, 201, reply)
        return reply.json()

    def moved(self, *stages):
        """A new task that went through the stages."""
        task_id = self.create()["id"]
        for stage in stages:
            self.assertEqual(self.move(task_id, stage)["errors"], [])
        return task_id

    def closed(self):
        return self.moved(ASSIGNED, TAKEN, 5, 6, WORKING, DONE, CLOSED)

    def test_next_of_one_task_is_a_map_of_stages(self):
        stages = self.client.get(f"/WORK/Tasks/{self.moved()}/stages/next").json()
        self.assertEqual(set(stages), {str(ASSIGNED), str(CANCELLED)})
        self.assertEqual((stages["17"]["isFinishStage"], stages["17"]["isPositiveResult"], stages["2"]["name"]),
                         (True, False, "Назначена"))

    def test_next_of_many_tasks(self):
        first, second = self.moved(), self.moved(ASSIGNED)
        answer = self.client.get("/WORK/Tasks/stages/next", [("id", first), ("id", second)]).json()
        self.assertEqual({key: set(value) for key, value in answer.items()},
                         {str(first): {"2", "17"}, str(second): {"1", "3", "17"}})
        self.assert_error(self.client.get("/WORK/Tasks/stages/next", {"id": 99999}), 404)

    def test_a_move_is_201_with_the_stage_and_no_errors(self):
        task_id = self.create()["id"]
        self.assertEqual(self.move(task_id, ASSIGNED), {"stageId": ASSIGNED, "isFinalStage": False, "errors": []})
        self.assertEqual(self.task(task_id)["taskStage"]["id"], ASSIGNED)

    def test_a_201_with_errors_is_a_refusal(self):
        task_id = self.create()["id"]
        answer = self.move(task_id, DONE)
        self.assertTrue(answer["errors"])
        self.assertEqual(answer["stageId"], NEW)
        self.assertEqual(self.task(task_id)["taskStage"]["id"], NEW)

    def test_the_last_stage_closes_the_task(self):
        task_id = self.closed()
        self.assertEqual(self.ids({"taskID": task_id, "isClosed": "true", "isCompleted": "true"}), [task_id])

    def test_cancelling_closes_without_completing(self):
        task_id = self.create()["id"]
        self.assertEqual(self.move(task_id, CANCELLED)["isFinalStage"], True)
        self.assertEqual(self.ids({"taskID": task_id, "isClosed": "true", "isCompleted": "false"}), [task_id])

    def test_a_closed_task_moves_only_with_revert_closed(self):
        task_id = self.closed()
        self.assertTrue(self.move(task_id, WORKING)["errors"])
        self.assertEqual(self.move(task_id, WORKING, revertClosed=True)["errors"], [])
        self.assertEqual(self.ids({"taskID": task_id, "isClosed": "false", "isCompleted": "false"}), [task_id])

    def test_notes_moment_and_criticality_are_kept(self):
        task_id = self.create()["id"]
        self.move(task_id, ASSIGNED, notes="Бригада 2", completed="2026-01-02T03:04:05Z", criticalityID=1)
        entry = self.client.get(f"/WORK/Tasks/{task_id}/stages").json()[-1]
        self.assertEqual((entry["notes"], entry["completed"], entry["taskStage"]["id"]),
                         ("Бригада 2", "2026-01-02T03:04:05", ASSIGNED))
        self.assertEqual(self.task(task_id)["actualCriticality"]["id"], 1)

    def test_refusals(self):
        path = "/WORK/TaskStagingHistory"
        self.assert_error(self.client.post(path, {"taskID": 99999, "taskStageID": 2}), 404)
        self.assert_error(self.client.post(path, {"taskID": 1001, "taskStageID": 999}), 409)
        self.assert_bare(self.client.post(path, {"taskID": 1001}), 400)

    def test_many_tasks_in_one_request(self):
        tasks = [self.create()["id"] for _ in range(3)]
        reply = self.client.post("/WORK/TaskStagingHistory/multiple",
                                 [{"taskID": task, "taskStageID": ASSIGNED} for task in tasks])
        self.assertEqual((reply.status, reply.json()["isSuccessed"]), (202, True))
        self.assertEqual(set(self.ids([("taskID", task) for task in tasks] + [("taskStageID", ASSIGNED)])), set(tasks))

    def test_of_many_those_that_cannot_are_told(self):
        good, bad = self.create()["id"], self.create()
        reply = self.client.post("/WORK/TaskStagingHistory/multiple", [
            {"taskID": good, "taskStageID": ASSIGNED}, {"taskID": bad["id"], "taskStageID": DONE}])
        self.assertEqual((reply.status, reply.json()["isSuccessed"]), (202, False))
        self.assertIn(bad["number"], reply.json()["error"])
        self.assertEqual(self.task(good)["taskStage"]["id"], ASSIGNED)

    def test_of_many_nothing_moves_where_one_names_nothing(self):
        task_id = self.create()["id"]
        for bad in ({"taskID": 99999}, {"taskStageID": 999}, {"criticalityID": 999}):
            moves = [{"taskID": task_id, "taskStageID": ASSIGNED}, {"taskID": 1001, "taskStageID": ASSIGNED, **bad}]
            self.assert_error(self.client.post("/WORK/TaskStagingHistory/multiple", moves), 409)
        self.assertEqual(self.task(task_id)["taskStage"]["id"], NEW)

    def test_a_batch_takes_a_concurrency_stamp_once(self):
        tasks = [self.create()["id"] for _ in range(2)]
        batch = {"concurrencyStamp": GUID, "data": [{"taskStageID": ASSIGNED, "tasks": tasks}]}
        self.assertEqual(self.client.post("/WORK/TaskStagingHistory/batch", batch).status, 202)
        self.assertEqual(self.task(tasks[1])["taskStage"]["id"], ASSIGNED)
        self.assert_error(self.client.post("/WORK/TaskStagingHistory/batch", batch), 409)
        self.assert_bare(self.client.post("/WORK/TaskStagingHistory/batch", {"data": []}), 400)


if __name__ == "__main__":
    unittest.main()
