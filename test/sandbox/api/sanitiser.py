"""What the API does not take in HTML (`notesHtml`): scripts and their like. Plain `notes` take any text."""
import re

from wire.messages import Unclean

_RULES = (
    ("NotAllowedTag", re.compile(r"<\s*/?\s*(script|iframe|object|embed|form|link|meta|base|svg)\b", re.IGNORECASE)),
    ("NotAllowedAttribute", re.compile(r"<[^>]*\s(on[a-z]+)\s*=", re.IGNORECASE)),
    ("NotAllowedUrlValue", re.compile(r"((?:javascript|vbscript)\s*:[^\s\"'>]*)", re.IGNORECASE)),
)


def check_html(text):
    """422 with a remark for everything found."""
    remarks = {}
    for reason, pattern in _RULES:
        found = list(dict.fromkeys(match.lower() for match in pattern.findall(text)))
        if found:
            remarks[reason] = found
    if remarks:
        raise Unclean(remarks)
