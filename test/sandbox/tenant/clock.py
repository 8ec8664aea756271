"""The clocks of the remote side, which need not be right.

A moment of the API is taken from one of three clocks: that of the server, that of `lastModified`, that of `created`;
access tokens have a fourth. All go by the machine's, so many seconds ahead of it or, where negative, behind; any can be
set back while the sandbox runs.
"""
import time
from typing import NamedTuple


class Moments(NamedTuple):
    """What the clocks show, in unix seconds."""

    now: float
    modified: float
    created: float


def as_text(seconds):
    """Whole seconds, as the API's own moments are."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class Clocks:
    """`settings` has the skews in seconds: clock_skew of the first three, what modified_skew and created_skew add to it,
    and token_skew, which is alone: with another's skew, whoever is signed in would not be any more."""

    def __init__(self, settings):
        self._settings = settings

    def moments(self):
        settings, now = self._settings, time.time() + self._settings.clock_skew
        return Moments(now, now + settings.modified_skew, now + settings.created_skew)

    def token_time(self):
        """By which access tokens are given out and run out."""
        return time.time() + self._settings.token_skew
