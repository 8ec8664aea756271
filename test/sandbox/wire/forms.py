"""Bodies of multipart/form-data (RFC 7578), from the bytes of a body that is here whole.

The headers of the parts are left to the standard library, the contents are cut out of the body untouched.
"""
from email import message_from_string
from email.message import Message
from typing import NamedTuple, Optional

from .messages import Malformed


class Part(NamedTuple):
    name: str
    filename: Optional[str]         # None: not a file
    content_type: str
    content: bytes


def _boundary(content_type):
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise Malformed("not multipart/form-data")
    return boundary.encode("utf-8", "surrogateescape")


def read_form(call):
    """The parts of the body; 400 where it is no form, or not a whole one."""
    sections = (b"\r\n" + call.body).split(b"\r\n--" + _boundary(call.headers.get("Content-Type", "")))
    if len(sections) < 2 or not sections[-1].startswith(b"--"):
        raise Malformed("the form has no end")
    parts = []
    for section in sections[1:-1]:
        head, _, content = section.partition(b"\r\n\r\n")
        headers = message_from_string(head.decode("utf-8", "replace").lstrip())
        name = headers.get_param("name", "", "Content-Disposition")
        parts.append(Part(name, headers.get_filename(), headers.get_content_type(), content))
    return parts
