"""The lists that are made up from the catalogue, and the catalogue itself as a list of what there is."""
import json
import re
import unittest
import urllib.parse
import uuid

from support import Client, FOLDER, Program, SandboxTest

CATALOGUE = json.loads((FOLDER.parents[1] / "connectors/catalogue/hubex.json").read_text("utf-8"))


def calls(method):
    """-> (path, what the catalogue tells) of every call"""
    for service, part in CATALOGUE.items():
        for name, call in part["calls"].items():
            if name.startswith(method + " "):
                yield f"/{service}{name.split()[1]}", call


def is_list(call):
    return call.get("result", "").startswith("map<") or call.get("result", "").endswith("[]")


class EveryList(SandboxTest):
    def test_all_164_lists_without_a_parent_answer_in_their_shape(self):
        lists = [(path, call) for path, call in calls("GET") if is_list(call) and "{" not in path]
        self.assertEqual(len(lists), 164)
        records = 0
        for path, call in lists:
            reply = self.client.get(path)
            if path == "/WORK/Tasks/count":         # the one that the contract calls unreliable
                continue
            self.assertIn(reply.status, (200, 204), path)
            if reply.status == 200:
                shape = dict if re.fullmatch("map<.*>", call["result"]) and path != "/ADM/Roles" else list
                self.assertIsInstance(reply.json(), shape, path)
                records += len(reply.json())
        self.assertGreater(records, 2000)

    def test_lists_of_a_parent_answer_too(self):
        parents = {"taskID": "1001", "schemaID": "1", "id": "1"}
        for path, call in calls("GET"):
            if is_list(call) and path.count("{") == 1 and not path.endswith("}"):
                address = re.sub(r"{(\w+)}", lambda match: parents.get(match[1], "1"), path)
                self.assertIn(self.client.get(address).status, (200, 204, 404), path)
        self.assertEqual(self.client.get("/WORK/Tasks/1001/changes").status, 200)

    def test_pages_only_where_the_catalogue_says_so(self):
        for path, status in (("/ADM/Invitations", 206), ("/ADM/DefaultPages", 200)):
            reply = self.client.get(path, Range="items=1-2")
            self.assertEqual(reply.status, status, path)
            self.assertEqual("Content-Range" in reply.headers, status == 206)
            self.assertEqual(len(reply.json()) == 2, status == 206)

    def test_pages_together_are_the_list(self):
        whole = self.client.get("/ADM/Invitations").json()
        pages, first = {}, 1
        while len(pages) < len(whole):
            pages.update(self.client.get("/ADM/Invitations", Range=f"items={first}-{first + 6}").json())
            first += 7
        self.assertEqual(list(pages.items()), list(whole.items()))

    def test_head_counts_where_it_is_declared_and_only_there(self):
        self.assertEqual(self.client.head("/MSG/Notifications").headers["Content-Range"],
                         f"items=0-0/{len(self.client.get('/MSG/Notifications').json())}")
        self.assertEqual(self.client.head("/ADM/Invitations").status, 404)

    def test_an_empty_list_is_204_where_that_is_declared_and_else_an_empty_answer(self):
        declared = {path: call.get("empty") for path, call in calls("GET")}
        replies = {path: self.client.get(path) for path, call in calls("GET")
                   if is_list(call) and "{" not in path and path != "/WORK/Tasks/count"}
        self.assertTrue(any(reply.status == 204 for reply in replies.values()))
        self.assertTrue(any(reply.body in (b"{}", b"[]") for reply in replies.values()))
        for path, reply in replies.items():
            self.assertEqual(reply.status == 204, declared[path] == 204 and not reply.body, path)

    def test_the_same_seed_gives_the_same_records_in_another_process(self):
        other = Program("", "--seed", 1)
        self.addCleanup(other.stop)
        client = Client(other.ready)
        self.addCleanup(client.close)
        client.sign_in()
        for path in ("/ADM/BanReasons", "/WORK/Tasks/1001/changes", "/MSG/Notifications"):
            self.assertEqual(client.get(path).body, self.client.get(path).body)

    def test_it_needs_a_token_like_everything_else(self):
        self.assertEqual(self.new_client(signed_in=False).get("/ADM/BanReasons").status, 401)


class Records(SandboxTest):
    def test_keys_are_numbers_texts_or_guids(self):
        self.assertTrue(all(key.isdigit() for key in self.client.get("/MSG/Notifications").json()))
        for key, record in self.client.get("/ADM/Invitations").json().items():
            self.assertEqual(str(uuid.UUID(key)), record["id"])
        self.assertFalse(all(key.isdigit() for key in self.client.get("/ADM/Tenants/this/variables").json()))

    def test_one_record_tells_what_the_list_tells(self):
        for path in ("/ADM/Invitations", "/WORK/TemplateQuickResponse", "/ADM/PermissionsUi"):
            for key, listed in self.client.get(path).json().items():
                one = self.client.get(f"{path}/{urllib.parse.quote(key)}")
                self.assertEqual(one.status, 200, one)
                shared = set(listed) & set(one.json())
                self.assertTrue(shared)
                for name in shared:
                    if not isinstance(listed[name], (dict, list)):
                        self.assertEqual(one.json()[name], listed[name], (path, key, name))

    def test_a_record_that_is_not_in_its_list_is_404(self):
        for path in ("/ADM/Invitations/" + str(uuid.UUID(int=7)), "/WORK/TemplateQuickResponse/99999"):
            self.assert_error(self.client.get(path), 404)

    def test_below_a_record_that_is_not_there_all_is_404(self):
        for path in ("/WORK/Tasks/77/changes", "/ADM/Users/9999/attributes", "/WORK/Tasks/1001/checkLists/9999/results"):
            self.assert_error(self.client.get(path), 404)

    def test_a_text_as_a_key_is_found(self):
        self.assertEqual(self.client.get("/WORK/TaskTemplates/lift-monthly").json()["name"], "Ежемесячное ТО лифта")
        self.assert_error(self.client.get("/WORK/TaskTemplates/none"), 404)

    def test_optional_members_are_absent_and_texts_are_unruly(self):
        body = self.client.get("/MSG/Notifications").body + self.client.get("/ADM/BanReasons").body
        self.assertNotIn(b"null,", body.replace(b"[1, null]", b""))
        for part in ("🏠", "«", '\\"', "\\\\", "\\n", "\\r\\n"):
            self.assertIn(part, body.decode())
        self.assertGreater(len({frozenset(record) for record in self.client.get("/MSG/Notifications").json().values()}), 3)

    def test_some_are_deleted(self):
        records = self.client.get("/WORK/TemplateQuickResponse").json()
        deleted = {key for key, record in records.items() if "deleted" in record}
        self.assertTrue(0 < len(deleted) < len(records))


class Filters(SandboxTest):
    def keys(self, path, **query):
        reply = self.client.get(path, query)
        return set() if reply.status == 204 else set(reply.json())

    def test_a_member_filters_and_repeats(self):
        records = self.client.get("/MSG/Notifications").json()
        everything = self.keys("/MSG/Notifications")
        self.assertEqual(everything, set(records))
        users = self.client.get("/ADM/Users/short").json()
        for name, member in (("isTeam", "isTeam"), ("isTechnician", "isTechnician")):
            for asked in (True, False):
                self.assertEqual(self.keys("/ADM/Users/short", **{name: str(asked).lower()}),
                                 {key for key, record in users.items() if record.get(member, False) == asked})
        wanted = [record["userID"] for record in users.values() if "userID" in record][:2]
        self.assertEqual(self.keys("/ADM/Users/short", userID=wanted),
                         {key for key, record in users.items() if record.get("userID") in wanted})

    def test_deleted_ones_are_left_out_on_request(self):
        records = self.client.get("/WORK/TemplateQuickResponse").json()
        self.assertEqual(self.keys("/WORK/TemplateQuickResponse", isDeleted="false"),
                         {key for key, record in records.items() if "deleted" not in record})

    def test_people_and_moments_by_what_a_parameter_calls_them(self):
        tasks = self.client.get("/WORK/Tasks/short").json()
        for name, member in (("requestedBy", "requestedByUserID"), ("approvalWith", "approvalWithUserID")):
            wanted = next(record[member] for record in tasks.values() if member in record)
            self.assertEqual(self.keys("/WORK/Tasks/short", **{name: wanted}),
                             {key for key, record in tasks.items() if record.get(member) == wanted})
        for asked in (True, False):
            self.assertEqual(self.keys("/WORK/Tasks/short", isClosed=str(asked).lower()),
                             {key for key, record in tasks.items() if ("closed" in record.get("timesheet", ())) == asked})

    def test_search_looks_into_all_texts(self):
        self.assertEqual(self.keys("/COMMON/Banks", searchText="НАСОС"),
                         {key for key, record in self.client.get("/COMMON/Banks").json().items()
                          if any("насос" in value.casefold() for value in record.values() if isinstance(value, str))})

    def test_what_is_no_member_is_ignored_and_a_wrong_type_is_409(self):
        self.assertEqual(self.keys("/ADM/Users/short", nonsense="1"), self.keys("/ADM/Users/short"))
        self.assert_error(self.client.get("/ADM/Users/short", {"userID": "x"}), 409, "InvalidData")


if __name__ == "__main__":
    unittest.main()
