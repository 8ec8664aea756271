"""All filters of WORK/Tasks that the contract names, each against a rule of its own over what is stored."""
import json
import unittest

from support import SandboxTest

# Filter -> field of the stored task that has to be one of the values.
EQUAL = {
    "taskID": "id", "taskNumber": "number", "taskTypeID": "taskTypeID", "workTypeID": "workTypeID",
    "taskStageID": "taskStageID", "taskStatusID": "taskStatusID", "assetID": "assetID", "companyID": "companyID",
    "contractID": "contractID", "criticalityID": "criticalityID", "branchID": "branchID",
    "requestedBy": "requestedByUserID", "approvalWith": "approvalWithUserID", "escalatedTo": "escalatedToUserID",
    "payeeCompanyID": "payeeCompanyID", "parentID": "parentID", "erpID": "erpID", "requestMethodID": "requestMethodID",
    "taskTemplateID": "taskTemplateID",
}
HOLDS = {"assignedTo": "assignees", "contactID": "contactIDs"}
PERIODS = {"creation": "created", "assignation": "assigned", "completion": "completed", "closing": "closed",
           "deadline": "deadline", "lastModified": "lastModified"}
FLAGS = {
    "isClosed": lambda task: "closed" in task,
    "isCompleted": lambda task: "completed" in task,
    "isAssigned": lambda task: "assignees" in task,
    "isDeleted": lambda task: task["deleted"] is not None,
    "isOutdated": lambda task: "deadline" in task and task["deadline"] < task.get("completed", task.get("closed", "9")),
    "isFavourite": lambda task: "favourite" in task,
    "isRated": lambda task: "ratings" in task,
    "isScheduled": lambda task: "scheduledStart" in task,
    "hasAssigneeCheckedIn": lambda task: "checkedIn" in task,
}


class TaskFilters(SandboxTest):
    def setUp(self):
        super().setUp()
        self.tasks = self.stored()

    def check(self, query, rule):
        """The filter gives what the rule picks, which is some tasks and not all of them."""
        expected = {task["id"] for task in self.tasks if rule(task)}
        self.assertTrue(expected, f"{query}: the seed should hold such tasks")
        self.assertLess(len(expected), len(self.tasks), f"{query}: the seed should hold other tasks")
        self.assertEqual(set(self.ids(query)), expected, query)

    def test_fields_that_are_one_of_the_values(self):
        for name, field in EQUAL.items():
            with self.subTest(name):
                values = sorted({task[field] for task in self.tasks if task.get(field) is not None})
                self.check({name: values[0]}, lambda task: task.get(field) == values[0])
                if len(values) > 2:
                    self.check({name: values[:2]}, lambda task: task.get(field) in values[:2])

    def test_fields_that_hold_one_of_the_values(self):
        for name, field in HOLDS.items():
            with self.subTest(name):
                value = next(task[field][-1] for task in self.tasks if field in task)
                self.check({name: value}, lambda task: value in task.get(field, ()))

    def test_periods(self):
        for name, field in PERIODS.items():
            with self.subTest(name):
                moments = sorted(task[field] for task in self.tasks if field in task)
                low, high = moments[len(moments) // 3], moments[2 * len(moments) // 3]
                self.check({name + "From": low}, lambda task: task.get(field, "") >= low)
                self.check({name + "Till": high}, lambda task: task.get(field, "9") <= high)
                self.check({name + "From": low, name + "Till": high}, lambda task: low <= task.get(field, "") <= high)

    def test_flags(self):
        for name, rule in FLAGS.items():
            with self.subTest(name):
                self.check({name: "true"}, rule)
                self.check({name: "False"}, lambda task: not rule(task))

    def test_by_the_asset(self):
        details = {}
        for task in self.tasks:
            if "assetID" in task and task["assetID"] not in details:
                details[task["assetID"]] = self.client.get(f"/ES/Assets/{task['assetID']}").json()
        for name, field in (("assetTypeID", "assetType"), ("assetClassID", "assetClass")):
            with self.subTest(name):
                value = next(iter(details.values()))[field]["id"]
                self.check({name: value},
                           lambda task: "assetID" in task and details[task["assetID"]][field]["id"] == value)
        building = next(asset["parentID"] for asset in details.values() if "parentID" in asset)
        self.check({"startWithAssetID": building}, lambda task: "assetID" in task and building in
                   (task["assetID"], details[task["assetID"]].get("parentID")))

    def test_district(self):
        found = [set(self.ids({"districtID": district["id"]})) for district in self.client.get("/ES/Districts").json()]
        self.assertGreater(sum(map(bool, found)), 2)
        self.assertEqual(sum(map(len, found)), len(set().union(*found)), "a task is in one district")

    def test_search_text_ignores_case(self):
        self.check({"searchText": "ЛИФТ ОСТАНОВИЛСЯ"}, lambda task: "Лифт остановился" in task["notes"])
        self.check({"searchText": "ord-2025-00001"}, lambda task: (task["erpID"] or "").startswith("ORD-2025-00001"))

    def test_attribute_values(self):
        self.check({"attributeValues": json.dumps({"8": "1"})}, lambda task: task.get("attributes", {}).get("8") == "1")
        self.check({"attributeValues": json.dumps({"5": ["1", "2"], "6": "true"})},
                   lambda task: task.get("attributes", {}).get("5") in ("1", "2") and task["attributes"]["6"] == "true")

    def test_filters_are_all_to_be_met(self):
        self.check({"companyID": 2, "isClosed": "false", "isDeleted": "false", "taskTypeID": [1, 2]},
                   lambda task: task["companyID"] == 2 and "closed" not in task and task["deleted"] is None
                   and task["taskTypeID"] in (1, 2))

    def test_a_looked_up_key_meets_the_other_filters_too(self):
        task = next(task for task in self.tasks if task["erpID"] and task["deleted"])
        self.assertEqual(self.ids({"erpID": task["erpID"]}), [task["id"]])
        self.assertEqual(self.ids({"erpID": task["erpID"], "isDeleted": "false"}), [])
        self.assertEqual(self.ids({"erpID": task["erpID"], "taskID": task["id"] + 1}), [])


if __name__ == "__main__":
    unittest.main()
