"""A call, its answer, and the refusals.

Endpoints are plain functions `(tenant, call) -> Answer`; only server/ knows the web framework. An endpoint refuses
by raising, so the happy path reads straight down.

The error shape of the API, on most codes >= 400:

    {"code": "...", "message": "...", "arguments": {...}, "traceIdentifier": "..."}

and the exceptions to it: a malformed request is 400 without a body, the sanitiser's 422 has a shape of its own.
"""
import json


class Answer:
    """What is sent back. `status` None: nothing is, the connection was cut or will never be answered."""

    __slots__ = ("status", "body", "headers", "cut", "piece", "pause")

    def __init__(self, status, body=b"", headers=None, content_type=None):
        self.status = status
        self.body = body
        self.headers = headers if headers is not None else {}
        self.cut = None     # send only so many bytes of the body, then close (a fault)
        self.piece = self.pause = None      # send so many bytes at a time, with so many seconds in between (a fault)
        if content_type:
            self.headers["Content-Type"] = content_type

    def size(self, method):
        """How many bytes of body are sent."""
        if self.status is None or method == "HEAD":
            return 0
        return len(self.body) if self.cut is None else self.cut


class Refusal(Exception):
    """An error in the API's usual shape. `arguments` is a map of strings: what the message is about."""

    def __init__(self, status, code, message, headers=None, **arguments):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.arguments = {name: str(value) for name, value in arguments.items()}

    def answer(self, trace):
        return json_answer(self.status, {"code": self.code, "message": self.message, "arguments": self.arguments,
                                         "traceIdentifier": trace}, self.headers)


class Malformed(Refusal):
    """400 without a body: not JSON, a field of the wrong type, a required field missing, a stamp that is no GUID."""

    def __init__(self, why):
        super().__init__(400, "BadRequest", why)

    def answer(self, trace):
        return Answer(400)


class Unclean(Refusal):
    """422: the sanitiser's remarks on HTML, `[{"key": "NotAllowedTag", "value": ["script"]}]`."""

    def __init__(self, remarks):
        super().__init__(422, "NotClean", "the HTML holds what is not allowed")
        self.remarks = remarks

    def answer(self, trace):
        return json_answer(422, [{"key": reason, "value": found} for reason, found in self.remarks.items()])


def invalid_data(name, value):
    """409 InvalidData: a query parameter of the wrong type."""
    return Refusal(409, "InvalidData", "Недопустимое значение параметра", parameter=name, value=value)


def not_found(what, key):
    """404: the address names a record that is not there."""
    return Refusal(404, "NotFound", "Объект не найден", entity=what, id=key)


def broken_rule(code, message, **arguments):
    """409: a business rule refuses the write."""
    return Refusal(409, code, message, **arguments)


class Call:
    """One request as the endpoints see it.

    `path` is decoded and stands without /fsm; `ids` are the variable parts in it, in order; `query` is a list of pairs;
    `headers` is case-insensitive; `page_limit` is how many records a page may hold, 0: as many as are asked for.
    Endpoints add the ids of the tasks they make to `created`: the journal shows it as the effect of the request.
    """

    __slots__ = ("method", "path", "ids", "query", "headers", "body", "created", "page_limit")

    def __init__(self, method, path, query, headers, body=b""):
        self.method = method
        self.path = path
        self.ids = ()
        self.query = query
        self.headers = headers
        self.body = body
        self.created = []
        self.page_limit = 0

    def values(self, name):
        """All values of one query parameter. Names are exact: HubEx ignores what it does not know."""
        return [value for key, value in self.query if key == name]

    def json(self):
        """The body as JSON; anything else is 400 without a body."""
        try:
            return _decode(self.body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Malformed("the body is not JSON") from error

    def json_list(self):
        """The body as a JSON array."""
        value = self.json()
        if not isinstance(value, list):
            raise Malformed("the body is not an array")
        return value


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_bytes(value):
    """JSON in UTF-8, the text left as it came in."""
    text = _encode(value)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:      # a lone surrogate, sent as \ud83d: UTF-8 has no form for it, JSON's escape has
        return json.dumps(value).encode("ascii")


def json_text(status, text, headers=None):
    """An answer of what is JSON already."""
    return Answer(status, text, dict(headers) if headers else None, "application/json; charset=utf-8")


def json_answer(status, value, headers=None):
    return json_text(status, json_bytes(value), headers)


def accepted():
    """202 without a body, the answer to most changes."""
    return Answer(202)
