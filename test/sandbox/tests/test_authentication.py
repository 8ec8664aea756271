"""Addresses and authentication."""
import unittest

from support import SandboxTest, wait_until


class ApplicationId(SandboxTest):
    def test_without_it_any_endpoint_is_403(self):
        self.client.application_id = None
        for method, path in (("GET", "/WORK/Tasks"), ("HEAD", "/ES/Assets"), ("POST", "/AUTHZ/AccessTokens"),
                             ("GET", "/NOWHERE/Atall")):
            reply = self.client.call(method, path)
            self.assertEqual(reply.status, 403, path)
            if method != "HEAD":
                self.assert_error(reply, 403)

    def test_other_numbers_do_as_well(self):
        self.client.application_id = "5"
        self.assertEqual(self.client.get("/ADM/Roles").status, 200)

    def test_an_empty_one_is_none(self):
        self.client.application_id = ""
        self.assert_error(self.client.get("/ADM/Roles"), 403)


class SignIn(SandboxTest):
    def test_a_service_token_gives_a_bearer_for_half_an_hour(self):
        self.client.token = None
        reply = self.client.post("/AUTHZ/AccessTokens", {"serviceToken": self.client.service_token})
        self.assertIn(reply.status, (200, 201))
        answer = reply.json()
        self.assertEqual(answer["expires_in"], 1800)
        self.client.token = answer["access_token"]
        self.assertEqual(self.client.get("/ADM/Roles").status, 200)

    def test_a_token_looks_like_the_live_ones(self):
        self.assertEqual(self.client.token.count("."), 2)
        self.assertTrue(850 < len(self.client.token) < 1000, len(self.client.token))

    def test_every_sign_in_gives_another_token(self):
        first = self.client.token
        self.client.sign_in()
        self.assertNotEqual(self.client.token, first)

    def test_a_wrong_service_token_is_refused(self):
        self.assert_error(self.client.post("/AUTHZ/AccessTokens", {"serviceToken": "no"}), 401)

    def test_nothing_to_sign_in_with_is_400(self):
        self.assert_bare(self.client.post("/AUTHZ/AccessTokens", {}), 400)

    def test_a_refresh_token_turns_into_an_access_token(self):
        answer = self.client.post("/AUTHZ/RefreshTokens", {}).json()
        self.assertGreater(answer["expires_in"], 360 * 24 * 3600)
        self.client.token = None
        reply = self.client.post("/AUTHZ/AccessTokens", {"refreshJwt": answer["refresh_token"]})
        self.assertIn(reply.status, (200, 201))
        self.client.token = reply.json()["access_token"]
        self.assertEqual(self.client.get("/ADM/Roles").status, 200)

    def test_a_refresh_token_needs_a_live_bearer(self):
        self.client.token = None
        self.assert_error(self.client.post("/AUTHZ/RefreshTokens", {}), 401)

    def test_an_unknown_refresh_token_is_refused(self):
        self.assert_error(self.client.post("/AUTHZ/AccessTokens", {"refreshJwt": "x.y.z"}), 401)


class LifeOfAToken(SandboxTest):
    def test_without_a_bearer_it_is_401(self):
        self.client.token = None
        self.assert_error(self.client.get("/WORK/Tasks"), 401)

    def test_an_unknown_bearer_is_401(self):
        self.client.token = "a.b.c"
        self.assert_error(self.client.get("/WORK/Tasks"), 401)

    def test_it_is_accepted_past_exp_within_the_grace(self):
        self.control.post("/config", {"token_life": 0, "token_grace": 300})
        self.client.sign_in()
        self.assertEqual(self.client.get("/ADM/Roles").status, 200)

    def test_it_is_refused_past_the_grace(self):
        self.control.post("/config", {"token_life": 0, "token_grace": 0})
        self.client.sign_in()
        self.assert_error(self.client.get("/ADM/Roles"), 401)

    def test_it_runs_out_by_itself(self):
        self.control.post("/config", {"token_life": .05, "token_grace": .05})
        self.client.sign_in()
        wait_until(lambda: self.client.get("/ADM/Roles").status == 401, "the token to run out")


class Addresses(SandboxTest):
    def test_paths_are_case_insensitive(self):
        for path in ("/Work/tasks", "/WORK/TASKS", "/Work/tAsKs/1001"):
            self.assertIn(self.client.get(path, Range="items=1-1").status, (200, 206), path)

    def test_what_is_not_there_is_404(self):
        for method, path in (("GET", "/WORK/Nothing"), ("GET", "/"), ("DELETE", "/ADM/Roles"), ("GET", "/WORK/Tasks/x"),
                             ("PUT", "/WORK/Tasks")):
            self.assert_error(self.client.call(method, path), 404)

    def test_a_long_number_in_a_path_is_404(self):
        self.assert_error(self.client.get("/WORK/Tasks/" + "9" * 500), 404)


class Rate(SandboxTest):
    def test_past_the_limit_it_is_429_with_retry_after(self):
        self.control.post("/config", {"rate_limit": 3})
        self.assertEqual([self.client.get("/ADM/Roles").status for _ in range(3)], [200, 200, 200])
        reply = self.client.get("/ADM/Roles")
        self.assert_error(reply, 429)
        self.assertTrue(1 <= int(reply.headers["Retry-After"]) <= 60)

    def test_the_sign_in_counts(self):
        self.control.post("/config", {"rate_limit": 1})
        self.client.sign_in()
        self.assertEqual(self.client.get("/ADM/Roles").status, 429)


class WriteMarks(SandboxTest):
    def test_writes_answer_x_last_lsn(self):
        marks = [self.client.post("/WORK/Tasks", {"taskTypeID": 2, "requestMethodID": 4}).headers["X-Last-Lsn"]
                 for _ in range(2)]
        self.assertTrue(all(marks))
        self.assertNotEqual(*marks)

    def test_reads_and_refusals_do_not(self):
        self.assertNotIn("X-Last-Lsn", self.client.get("/ADM/Roles").headers)
        self.assertNotIn("X-Last-Lsn", self.client.post("/WORK/Tasks", {}).headers)


if __name__ == "__main__":
    unittest.main()
