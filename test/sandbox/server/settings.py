"""The settings that can change while the sandbox runs."""
import math
from dataclasses import asdict, dataclass

SERVICE_TOKEN = "sandbox-service-token"
APPLICATION_ID = 3
_FURTHEST = 10 * 365 * 24 * 3600


def _seconds(value):
    if type(value) not in (int, float) or not (0 <= value < math.inf):
        raise ValueError("a number of seconds, 0 or more, is needed")
    return value


def _count(value):
    if type(value) is not int or value < 0:
        raise ValueError("a whole number, 0 or more, is needed")
    return value


def _skew(value):
    if type(value) not in (int, float) or not (-_FURTHEST <= value <= _FURTHEST):
        raise ValueError("a number of seconds is needed, no more than ten years of them")
    return value


def _secret(value):
    if not isinstance(value, str) or not value:
        raise ValueError("a text is needed")
    return value


_CHECKS = {"token_life": _seconds, "token_grace": _seconds, "rate_limit": _count, "page_limit": _count,
           "service_token": _secret, **dict.fromkeys(("clock_skew", "modified_skew", "created_skew", "token_skew"), _skew)}


@dataclass
class Settings:
    token_life: float = 1800
    token_grace: float = 300
    rate_limit: int = 0             # requests a minute, 0: no limit
    page_limit: int = 0             # records a page, 0: as many as are asked for
    service_token: str = SERVICE_TOKEN
    clock_skew: float = 0           # seconds by which the server's clock is ahead of the machine's
    modified_skew: float = 0        # and more, for lastModified
    created_skew: float = 0         # for created
    token_skew: float = 0           # by which those are ahead that access tokens go by

    def update(self, changes):
        """Changes some of them, or none: ValueError says which one is wrong."""
        checked = {}
        for name, value in changes.items():
            if name not in _CHECKS:
                raise ValueError(f"there is no setting {name!r}, but: {', '.join(_CHECKS)}")
            try:
                checked[name] = _CHECKS[name](value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        vars(self).update(checked)

    def shown(self):
        return asdict(self)
