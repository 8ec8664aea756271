"""--state: a sandbox that is started again goes on where the last one ended, however it ended."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from support import FOLDER, GUID, Client, Control, Program, wait_until

TASK = {"taskTypeID": 2, "requestMethodID": 4, "notes": "«ёж»", "erpID": "ORDER-1"}


class History(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="hubex-sandbox-test-")
        self.addCleanup(shutil.rmtree, folder)
        self.state = os.path.join(folder, "state")
        self.program = None
        self.start()

    def start(self, *arguments, number=signal.SIGKILL):
        """Starts it (again), the one before being ended by a signal."""
        if self.program is not None:
            self.program.process.send_signal(number)
            self.program.process.wait(10)
        self.program = Program(".", "--tasks", 3, "--state", self.state, *arguments)
        self.addCleanup(self.program.stop)
        self.control = Control(self.program.ready)
        self.client = Client(self.program.ready)
        self.addCleanup(self.client.close)
        self.client.sign_in()

    def stored(self):
        return self.control.get("/tasks")

    def journal(self):
        """Without what this test itself asks after each start: its sign-ins."""
        return [entry for entry in self.control.journal() if "AUTHZ" not in entry["path"]]

    def test_tasks_changes_stamps_and_journal_are_there_again(self):
        for number in (signal.SIGKILL, signal.SIGTERM):
            task = self.client.post("/WORK/Tasks", TASK).json()["id"]
            self.client.call("PATCH", f"/WORK/Tasks/{task}", [{"field": "notes", "value": "changed"}])
            self.client.post("/WORK/TaskStagingHistory", {"taskID": task, "taskStageID": 2})
            self.client.post("/WORK/Tasks", {})
            self.client.post("/WORK/Tasks", b"\xff\xfe")
            tasks, journal, state = self.stored(), self.journal(), self.control.get("/state")
            self.start(number=number)
            self.assertEqual((self.stored(), self.journal(), self.control.get("/state")), (tasks, journal, state))

    def test_a_stamp_that_was_used_stays_used(self):
        self.assertEqual(self.client.post("/WORK/Tasks", TASK, X_Concurrency_Stamp=GUID).status, 201)
        self.start()
        self.assertEqual(self.client.post("/WORK/Tasks", TASK, X_Concurrency_Stamp=GUID).status, 409)

    def test_ids_numbers_writes_and_connections_go_on(self):
        first = self.client.post("/WORK/Tasks", TASK).json()
        self.start()
        second = self.client.post("/WORK/Tasks", TASK).json()
        self.assertEqual((second["id"], int(second["number"])), (first["id"] + 1, int(first["number"]) + 1))
        one, two = self.journal()
        self.assertEqual(two["write"], one["write"] + 1)
        self.assertGreater(two["n"], one["n"])
        self.assertGreater(two["connection"], one["connection"])

    def test_what_was_done_is_kept_though_its_answer_never_went_out(self):
        self.control.fault("hang_after", path="/WORK/Tasks", label="no answer")
        self.client.connection.request("POST", "/fsm/WORK/Tasks", json.dumps(TASK), {
            "Authorization": f"Bearer {self.client.token}", "X-Application-ID": "3"})
        wait_until(lambda: len(self.stored()) == 4, "the work to be done")
        self.start()
        self.assertEqual(len(self.stored()), 4)
        entry, = self.journal()
        self.assertEqual((entry["status"], entry["fault"]), (None, "no answer"))
        self.assertEqual(entry["effect"], {"created": [self.stored()[-1]["id"]]})
        self.assertGreaterEqual(entry["finished"], entry["time"])

    def test_a_line_that_was_cut_off_is_left_out(self):
        self.client.post("/WORK/Tasks", TASK)
        with open(self.state, "ab") as file:
            file.write(b'["did",2,')
        for _ in range(2):
            self.start()
            self.assertEqual(len(self.stored()), 4)

    def test_an_emptied_journal_stays_empty_and_a_reset_forgets_all(self):
        self.client.post("/WORK/Tasks", TASK)
        self.control.delete("/journal")
        self.start()
        self.assertEqual((len(self.stored()), self.journal()), (4, []))
        self.client.get("/WORK/Tasks")
        self.control.post("/reset")
        self.start()
        self.assertEqual((len(self.stored()), self.journal()), (3, []))

    def test_sign_ins_and_faults_are_forgotten(self):
        token = self.client.token
        self.client.post("/AUTHZ/RefreshTokens", {})
        self.control.fault("hang")
        self.start()
        self.client.token = token
        self.assertEqual(self.client.get("/ADM/Roles").status, 401)
        self.assertEqual(self.control.get("/faults"), [])

    def test_the_file_of_another_sandbox_is_refused(self):
        done = subprocess.run([sys.executable, str(FOLDER), "--state", self.state, "--seed", "2"], capture_output=True,
                              timeout=10, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("it is of a sandbox with {'seed': 1, 'tasks': 3,", done.stderr)


if __name__ == "__main__":
    unittest.main()
