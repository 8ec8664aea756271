"""POST /WORK/Tasks: fields, idempotency, refusals."""
import unittest

from support import GUID, OTHER_GUID, SandboxTest

PLAIN = {"taskTypeID": 2, "requestMethodID": 4}


class Create(SandboxTest):
    def test_it_answers_201_with_id_number_and_stamp(self):
        answer = self.create()
        self.assertEqual(set(answer), {"id", "number", "concurrencyStamp"})
        self.assertRegex(answer["number"], r"^02\d{11}$")
        self.assertRegex(answer["concurrencyStamp"], r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

    def test_every_field_is_kept(self):
        fields = {
            "criticalityID": 2, "deadline": "2026-12-01T10:00:00", "companyID": 3, "assetID": 2, "locationID": 4,
            "workTypeID": 7, "notes": "Фильтр", "notesHtml": "<b>Фильтр</b>", "number": "ЗН-17", "erpID": "A/1",
            "contactPerson": "Анна", "contactPhone": "+7", "contactEmail": "a@b.example", "contractID": 1,
            "parentID": 1001, "payeeCompanyID": 1, "payerCompanyID": 3, "requestedByUserID": 16,
            "requestedStartDateTime": "2026-11-30T08:00:00", "requestedFinishDateTime": "2026-11-30T18:00:00",
            "faultTimestamp": "2026-11-29T01:02:03", "serviceLevelAgreementID": 1, "taskTemplateID": "lift-monthly",
            "estimatedCost": 1500.5, "estimatedCostCurrencyID": 1, "actualCost": 1400, "actualCostCurrencyID": 1,
            "estimatedTimeConsumptionMinutes": 90, "actualTimeConsumptionMinutes": 80, "assetSchemaID": 1,
        }
        stored = self.stored(self.create(**fields)["id"])
        self.assertEqual({name: stored[name] for name in fields}, fields)
        self.assertEqual(stored["request"], {**PLAIN, **fields})

    def test_what_was_made_can_be_read_and_found(self):
        created = self.create(erpID="ERP-77", notes="Лифт", companyID=3)
        task = self.client.get("/WORK/Tasks", {"erpID": "ERP-77"}).json()[str(created["id"])]
        self.assertEqual((task["notes"], task["company"]["id"], task["number"]), ("Лифт", 3, created["number"]))
        self.assertEqual(task["taskStage"]["name"], "Новая")
        self.assertEqual(self.ids({"taskNumber": created["number"]}), [created["id"]])

    def test_field_names_are_accepted_in_either_case_of_the_first_letter(self):
        reply = self.client.post("/WORK/Tasks", {"TaskTypeID": 2, "RequestMethodID": 4, "Notes": "x", "ErpID": "y"})
        stored = self.stored(reply.json()["id"])
        self.assertEqual((stored["notes"], stored["erpID"]), ("x", "y"))

    def test_unknown_fields_are_ignored_and_null_is_absent(self):
        self.assertNotIn("notes", self.task(self.create(surprise=1, notes=None)["id"]))

    def test_erp_id_is_not_unique(self):
        ids = {self.create(erpID="same")["id"], self.create(erpID="same")["id"]}
        self.assertEqual(set(self.ids({"erpID": "same"})), ids)
        self.assertEqual(len(ids), 2)

    def test_text_comes_back_byte_for_byte(self):
        for text in ("  «Ёж» \"в\" 'тумане' \\ / \t\r\n 🛠️👩‍🔧 \u2028 \u0001 \u0000 e\u0301 {column} 100% ", "",
                     " ", "null", "</script><script>alert(1)</script>", "javascript:"):
            created = self.create(notes=text, erpID=text)
            self.assertEqual((self.task(created["id"])["notes"], self.task(created["id"])["erpID"]), (text, text))

    def test_a_lone_surrogate_comes_back_escaped(self):
        reply = self.client.post("/WORK/Tasks", b'{"taskTypeID":2,"requestMethodID":4,"notes":"\\ud83d"}')
        self.assertEqual(self.task(reply.json()["id"])["notes"], "\ud83d")

    def test_moments_are_stored_in_utc_with_their_fraction(self):
        for sent, kept in (("2026-12-01T10:00:00", "2026-12-01T10:00:00"),
                           ("2026-12-01T10:00:00Z", "2026-12-01T10:00:00"),
                           ("2026-12-01T13:00:00+03:00", "2026-12-01T10:00:00"),
                           ("2026-11-30T23:30:00.5-10:30", "2026-12-01T10:00:00.5"),
                           ("2026-12-01T10:00:00.123456Z", "2026-12-01T10:00:00.123456"),
                           ("2026-12-01T10:00:00.120", "2026-12-01T10:00:00.12"),
                           ("2026-12-01", "2026-12-01T00:00:00")):
            self.assertEqual(self.task(self.create(deadline=sent)["id"])["timesheet"]["deadline"], kept, sent)

    def test_a_child_counts_at_its_parent(self):
        parent = self.create()["id"]
        self.create(parentID=parent)
        self.assertEqual(self.task(parent)["childCount"], 1)


class Idempotency(SandboxTest):
    def create_with(self, stamp, **fields):
        return self.client.post("/WORK/Tasks", {**PLAIN, **fields}, X_Concurrency_Stamp=stamp)

    def test_the_stamp_comes_back(self):
        self.assertEqual(self.create_with(GUID).json()["concurrencyStamp"], GUID)

    def test_a_repeat_is_409_and_makes_nothing(self):
        created = self.create_with(GUID, erpID="once").json()["id"]
        self.assert_error(self.create_with(GUID, erpID="once"), 409, "ConcurrencyStampAlreadyUsed")
        self.assertEqual(self.ids({"erpID": "once"}), [created])

    def test_a_repeat_is_409_whatever_the_body_asks(self):
        self.create_with(GUID)
        self.assert_error(self.create_with(GUID, notes="other"), 409)

    def test_one_guid_has_many_spellings(self):
        self.create_with(GUID)
        for spelling in (GUID.upper(), "{" + GUID + "}", GUID.replace("-", "")):
            self.assert_error(self.create_with(spelling), 409)

    def test_another_stamp_makes_another_task(self):
        self.assertEqual([self.create_with(stamp).status for stamp in (GUID, OTHER_GUID)], [201, 201])

    def test_a_stamp_is_used_only_by_a_create_that_succeeded(self):
        self.assertEqual(self.create_with(GUID, companyID=999).status, 409)
        self.assertEqual(self.create_with(GUID, notesHtml="<script>").status, 422)
        self.assertEqual(self.create_with(GUID, deadline="soon").status, 400)
        self.assertEqual(self.create_with(GUID).status, 201)

    def test_not_a_guid_empty_or_over_255_is_400(self):
        for stamp in ("17", "", GUID[:-1], GUID + "0", "x" * 300, GUID.replace("-", "", 1)):
            self.assert_bare(self.create_with(stamp), 400)

    def test_suppress_conflict_is_not_for_tasks(self):
        self.create_with(GUID)
        reply = self.client.post("/WORK/Tasks", PLAIN, X_Concurrency_Stamp=GUID, X_Suppress_Conflict="true")
        self.assert_error(reply, 409)

    def test_without_a_stamp_every_create_makes_a_task(self):
        self.assertNotEqual(self.create()["id"], self.create()["id"])


class Refusals(SandboxTest):
    def test_what_is_not_json_is_400_without_a_body(self):
        for body in (b"", b"{", b"taskTypeID=2", b"\xff\xfe", b'{"taskTypeID": NaN}', b"[" * 100_000, b"[]", b"5"):
            self.assert_bare(self.client.post("/WORK/Tasks", body), 400)

    def test_task_type_and_request_method_are_required(self):
        for fields in ({}, {"taskTypeID": 2}, {"requestMethodID": 4}, {"taskTypeID": None, "requestMethodID": 4}):
            self.assert_bare(self.client.post("/WORK/Tasks", fields), 400)

    def test_a_field_of_a_wrong_type_is_400_without_a_body(self):
        for name, value in (("taskTypeID", "2"), ("companyID", 1.5), ("companyID", True), ("companyID", 2**31),
                            ("notes", 5), ("deadline", "tomorrow"), ("deadline", "2026-02-30"), ("deadline", 0),
                            ("deadline", "0001-01-01T00:00:00+03:00"), ("estimatedCost", "1")):
            self.assert_bare(self.client.post("/WORK/Tasks", {**PLAIN, name: value}), 400)

    def test_a_reference_to_nothing_is_409(self):
        for name in ("taskTypeID", "requestMethodID", "companyID", "assetID", "locationID", "workTypeID", "contractID",
                     "criticalityID", "parentID", "payeeCompanyID", "payerCompanyID", "requestedByUserID",
                     "serviceLevelAgreementID", "estimatedCostCurrencyID", "assetSchemaID"):
            reply = self.client.post("/WORK/Tasks", {**PLAIN, name: 99999})
            self.assert_error(reply, 409)
            self.assertEqual(reply.json()["arguments"], {"field": name, "value": "99999"})
        self.assert_error(self.client.post("/WORK/Tasks", {**PLAIN, "taskTemplateID": "none"}), 409)

    def test_html_that_is_not_clean_is_422_with_remarks(self):
        for html, reason in (("<p>x</p><ScRiPt>alert(1)</script>", "NotAllowedTag"),
                             ("<a href='JavaScript:alert(1)'>x</a>", "NotAllowedUrlValue"),
                             ("<img src=x onerror=alert(1)>", "NotAllowedAttribute"),
                             ("<iframe src=x>", "NotAllowedTag")):
            reply = self.client.post("/WORK/Tasks", {**PLAIN, "notesHtml": html})
            self.assertEqual((reply.status, reply.json()[0]["key"]), (422, reason))
            self.assertTrue(reply.json()[0]["value"])

    def test_clean_html_is_taken(self):
        html = "<p class=\"x\">Лифт <b>стоит</b> <a href=\"https://e.example\">фото</a> &lt;script&gt;</p>"
        self.assertEqual(self.task(self.create(notesHtml=html)["id"])["notesHtml"], html)

    def test_a_refused_create_makes_nothing(self):
        before = self.control.get("/state")
        self.client.post("/WORK/Tasks", {**PLAIN, "companyID": 999})
        self.assertEqual(self.control.get("/state"), before)


if __name__ == "__main__":
    unittest.main()
