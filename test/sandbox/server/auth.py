"""Who may come in: the application id, the access token, the number of requests a minute.

Facts: without X-Application-ID any endpoint is 403, and that is looked at first. `POST /AUTHZ/AccessTokens` needs no
more than that; it takes `{"serviceToken"}` or `{"refreshJwt"}` and answers {"access_token", "expires_in", ...}. A token
lives half an hour and is accepted for a few minutes past its `exp`; after that, as without one: 401.
`POST /AUTHZ/RefreshTokens` with a live bearer gives a refresh_token valid for a year.

Tokens look like the live ones, a JWT of about 900 characters, but are only ever looked up: the signature is noise.

Where the contract is open: a service token answers 201, a refresh token 200; a wrong one of either kind is 401; any
number is an application id; what goes over the limit is 429 with Retry-After, and does not count.
"""
import base64
import hashlib
import json
import math
import re
import time
from collections import deque

from tenant.clock import as_text
from wire.messages import Malformed, Refusal, json_answer
from wire.routing import Routes
from wire.values import b_text, present, read_fields

_REFRESH_LIFE = 365 * 24 * 3600
_NUMBER = re.compile(r"\s*\d{1,9}\s*")
_PERMISSIONS = " ".join(("TaskAdd", "TaskUpdate", "TaskDelete", "TasksList", "TaskStagingHistoryAdd", "AssetsList",
                         "CompaniesList", "AttributeList", "WebhookMerge", "CompletedWorkAdd", "TaskAttachmentUpload",
                         "TaskConversationAdd", "TaskAssignmentHistoryAdd"))


class Token:
    __slots__ = ("number", "expires", "revoked")

    def __init__(self, number, expires):
        self.number = number
        self.expires = expires      # unix seconds, what `exp` says
        self.revoked = False


def _base64url(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


class Tokens:
    """Access and refresh tokens given out so far."""

    def __init__(self, settings, seed, clocks):
        self._settings = settings
        self._seed = seed
        self._clocks = clocks
        self._access = {}
        self._refresh = {}
        self.issued = 0

    def _jwt(self, kind, number, expires):
        header = {"alg": "RS256", "kid": "sandbox", "typ": "JWT"}
        # "iat" in fractions of a second: a sandbox that is started again gives out none of its old tokens
        claims = {"iss": "hubex-sandbox", "aud": "hubex", "jti": f"{kind}-{number}", "iat": time.time(),
                  "exp": int(expires), "tenantID": 207, "tenantMemberID": 1, "userID": 1, "applicationID": 3,
                  "permissions": _PERMISSIONS}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_base64url(hashlib.shake_256(f'{self._seed}:{signed}'.encode()).digest(256))}"

    def find(self, headers):
        """The access token a request bears, or None where it bears none that was ever given out."""
        scheme, _, text = headers.get("Authorization", "").partition(" ")
        return self._access.get(text.strip()) if scheme.lower() == "bearer" else None

    def is_live(self, token):
        return not token.revoked and self._clocks.token_time() < token.expires + self._settings.token_grace

    def expire_all(self):
        for token in self._access.values():
            token.revoked = True

    def routes(self):
        routes = Routes()
        routes.add("POST", "/AUTHZ/AccessTokens", self._sign_in, anonymous=True)
        routes.add("POST", "/AUTHZ/RefreshTokens", self._refresh_token)
        return routes

    def _sign_in(self, tenant, call):
        fields = present(read_fields(call.json(), {"serviceToken": b_text, "refreshJwt": b_text}))
        if "serviceToken" in fields:
            if fields["serviceToken"] != self._settings.service_token:
                raise _unauthorized("InvalidServiceToken")
            status = 201
        elif "refreshJwt" in fields:
            if self._refresh.get(fields["refreshJwt"], 0) < self._clocks.token_time():
                raise _unauthorized("InvalidRefreshToken")
            status = 200
        else:
            raise Malformed("nothing to sign in with")
        self.issued += 1
        life = self._settings.token_life
        token = Token(self.issued, self._clocks.token_time() + life)
        text = self._jwt("access", token.number, token.expires)
        self._access[text] = token
        return json_answer(status, {"access_token": text, "expires_in": int(life),
                                    "jwtValidTill": as_text(token.expires)})

    def _refresh_token(self, tenant, call):
        """The body is `{}`; `validity` is not honoured."""
        read_fields(call.json(), {})
        expires = self._clocks.token_time() + _REFRESH_LIFE
        text = self._jwt("refresh", len(self._refresh) + 1, expires)
        self._refresh[text] = expires
        return json_answer(201, {"refresh_token": text, "expires_in": _REFRESH_LIFE, "jwtValidTill": as_text(expires)})


def _unauthorized(code):
    return Refusal(401, code, "Требуется авторизация")


class Quota:
    """No more than so many requests in any minute."""

    def __init__(self, settings):
        self._settings = settings
        self._taken = deque()

    def take(self):
        limit = self._settings.rate_limit
        if not limit:
            return
        now = time.monotonic()
        while self._taken and self._taken[0] <= now - 60:
            self._taken.popleft()
        if len(self._taken) >= limit:
            wait = math.ceil(self._taken[-limit] + 60 - now)
            raise throttled(max(wait, 1))
        self._taken.append(now)


def throttled(retry_after):
    """429; Retry-After is in seconds or an HTTP date."""
    return Refusal(429, "TooManyRequests", "Слишком много запросов", {"Retry-After": str(retry_after)})


class Gate:
    """What every request under /fsm passes before its endpoint."""

    def __init__(self, settings, tokens):
        self._tokens = tokens
        self._quota = Quota(settings)

    def admit(self, call, token, anonymous):
        if not _NUMBER.fullmatch(call.headers.get("X-Application-ID", "")):
            raise Refusal(403, "ApplicationIDRequired", "Не указан X-Application-ID")
        self._quota.take()
        if not anonymous and (token is None or not self._tokens.is_live(token)):
            raise _unauthorized("Unauthorized")
