"""Values made up from a type of the catalogue, for the lists that nobody wrote out.

A type is `int`, `float`, `bool`, `str`, `datetime`, `uuid`, `T[]`, `map<T>`, a list of the values it may have, or the
name of a type of its service: `{"id?": "int", "company?": "IdNameResultOfShort", ...}`, where `?` is what may be absent.

A value follows from the seed and from where it stands, nothing else: so a list and the GET of one of its records tell
the same, and so does a sandbox of another day. Texts are such as people write, moments such as .NET writes.
"""
import random
import uuid
from datetime import datetime, timedelta

_BEGIN = datetime(2024, 2, 29, 21, 0)
_WORDS = ("Лифт", "Насос", "Щит", "Клапан", "Договор", "Участок", "Бригада", "Смена", "Фильтр", "Этаж")
_MORE = ("«Север»", "№ 7/2", "\"Б\"", "O'Neill", "ЖК «Мечта» 🏠", "50% & Co", "back\\slash", "tab\there", "старый", "Ё")
_NOTES = ("Ключ у охраны.\nЗвонить за час", "Windows\r\nтоже пишет строки", "{\"json\": [1, null]}", "👩🏽‍🔧 едет", "",
          "  пробелы по краям  ", "Линия 1;Линия 2,\"кавычки\"", "не срочно")
_FLOATS = (0.0, 1.5, -0.25, 1890.5, 2150.0, 0.1, 1e-7, 123456789.125)


def members_of(types, type_):
    """The members of an object type; none where it is no object of a declared type."""
    members = types.get(type_) if isinstance(type_, str) else None
    return members if isinstance(members, dict) else {}


def plain_type(members, name):
    """The type of the member of that name, or None; whether or not each record has it."""
    return members.get(name, members.get(name + "?"))


class Maker:
    """Makes values of the types of one service."""

    def __init__(self, seed, types):
        self._seed = seed
        self._types = types

    def _rng(self, where):
        return random.Random(f"{self._seed}:{where}")

    def key(self, type_, where, number):
        """The key of a record: ids rise with gaps, texts are numbers in one list and words in the other."""
        rng = self._rng(f"{where}/{number}/@key")
        if type_ == "int":
            return 3 * number + rng.randrange(3)
        if type_ == "uuid":
            return self._uuid(rng)
        if self._rng(where).random() < .5:
            return str(3 * number + rng.randrange(3))
        return f"{rng.choice(_WORDS)} {rng.choice(_MORE)}-{number}"

    def value(self, type_, where, given=None):
        """`where` is the address of the value, `given` are members whose values are known already."""
        members = members_of(self._types, type_)
        if members:
            return self._object(members, where, given or {})
        rng = self._rng(where)
        if isinstance(type_, list):
            return rng.choice(type_)
        if type_.endswith("[]"):
            return [self.value(type_[:-2], f"{where}/{place}") for place in range(rng.randrange(4))]
        if type_.startswith("map<"):
            return {str(key): self.value(type_[4:-1], f"{where}/{key}")
                    for key in sorted(rng.sample(range(1, 40), rng.randrange(4)))}
        scalar = self._SCALARS.get(type_)
        # what the catalogue does not declare (JToken, ...) is some object
        return scalar(self, rng, where.rsplit("/", 1)[-1].lower()) if scalar else {"kind": type_, "value": rng.randrange(9)}

    def _object(self, members, where, given):
        record = {}
        for name, type_ in members.items():
            optional, name = name.endswith("?"), name.removesuffix("?")
            if name in given:
                record[name] = given[name]
            elif not optional or self._is_there(name, f"{where}/{name}"):
                record[name] = self.value(type_, f"{where}/{name}")
        return record

    def _is_there(self, name, where):
        share = 1 if name in ("id", "name") else .15 if name == "deleted" else .75
        return self._rng(where + "?").random() < share

    # Scalars: (self, rng, name of the member in lower case)

    def _int(self, rng, name):
        return rng.randrange(1, 40) if name.endswith("id") else rng.choice((0, 1, 2, 17, 600, 86400, -5, 2147483647))

    def _float(self, rng, name):
        return rng.choice(_FLOATS)

    def _bool(self, rng, name):
        return rng.random() < .5

    def _datetime(self, rng, name):
        moment = (_BEGIN + timedelta(seconds=rng.randrange(45_000_000))).isoformat()
        return rng.choice((moment, moment, moment, moment + ".1234567", moment + "Z", "0001-01-01T00:00:00"))

    def _uuid(self, rng, name=None):
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    def _coordinate(self, rng, name):
        return f"{rng.uniform(54, 60):.6f}:{rng.uniform(30, 60):.6f}"

    def _str(self, rng, name):
        if name.endswith("coordinate"):
            return self._coordinate(rng, name)
        if name.endswith("color"):
            return f"#{rng.getrandbits(24):06X}"
        if name.endswith("phone"):
            return f"+7 (9{rng.randrange(10, 99)}) {rng.randrange(100, 999)}-{rng.randrange(10, 99)}-00"
        if name.endswith("email"):
            return f"user{rng.randrange(1000)}@example.org"
        if name.endswith(("url", "uri")):
            return f"https://example.org/{rng.getrandbits(32):x}?a=1&b=%D0%96"
        if name.endswith(("id", "code", "number")):
            return f"{rng.choice('АБВXYZ')}-{rng.randrange(10_000):05d}"
        if name.endswith(("notes", "description", "message", "text", "value")):
            return rng.choice(_NOTES)
        return f"{rng.choice(_WORDS)} {rng.choice(_MORE)}"

    _SCALARS = {"int": _int, "float": _float, "bool": _bool, "datetime": _datetime, "uuid": _uuid, "str": _str,
                "coordinate": _coordinate, "file": _str}
