"""Files of a task: upload as multipart/form-data, and the list of them.

Where the contract is open: the fields of the form (taskID, isPublic, isIgnorePossibleDuplication, description) are
taken from the query as well, where the vendor's schema puts them; the same content a second time on one task is 409
unless isIgnorePossibleDuplication is true; isProtected is the opposite of isPublic.
"""
import hashlib

from wire.forms import read_form
from wire.messages import Malformed, broken_rule, json_answer
from wire.paging import page
from wire.routing import Routes
from wire.values import WrongType, field_name, q_bool, q_int, q_text

from .references import live_task
from .task_lists import task_of

ROUTES = Routes()

_FIELDS = {"taskID": q_int, "isPublic": q_bool, "isIgnorePossibleDuplication": q_bool, "description": q_text,
           "fileName": q_text}


def _form(call):
    """-> the fields of the form by name, the part that is the file"""
    texts, file = list(call.query), None
    for part in read_form(call):
        if part.filename is not None:
            file = part
        else:
            texts.append((part.name, part.content.decode("utf-8", "replace")))
    fields = {}
    for key, text in texts:
        name = field_name(key, _FIELDS)
        if name is not None:
            try:
                fields[name] = _FIELDS[name](text)
            except WrongType as error:
                raise Malformed(f"field {name} has a wrong type") from error
    if file is None or "taskID" not in fields:
        raise Malformed("a file and a taskID are required")
    return fields, file


@ROUTES("POST", "/WORK/TaskAttachments/upload/fromForm")
def upload(tenant, call):
    """201 {"taskID", "attachmentID", "md5Hash", "fileName", "isProtected"}"""
    fields, file = _form(call)
    task = live_task(tenant, fields["taskID"])
    md5 = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
    if not fields.get("isIgnorePossibleDuplication") and any(
            tenant.attachments[attachment]["md5Hash"] == md5 for attachment in task.get("attachmentIDs", ())):
        raise broken_rule("PossibleDuplication", "Такой файл уже приложен к заявке", taskID=task["id"], md5Hash=md5)
    record = {"fileName": fields.get("fileName") or file.filename, "md5Hash": md5, "size": len(file.content),
              "isProtected": not fields.get("isPublic", False), "contentType": file.content_type,
              "created": tenant.now()}
    if fields.get("description"):
        record["description"] = fields["description"]
    attachment = tenant.attachments.add(record)
    tenant.touch(task, attachmentIDs=[*task.get("attachmentIDs", ()), attachment])
    return json_answer(201, {"taskID": task["id"], "attachmentID": attachment, "md5Hash": md5,
                             "fileName": record["fileName"], "isProtected": record["isProtected"]})


@ROUTES("GET", "/WORK/Tasks/{id}/attachments")
def list_attachments(tenant, call):
    """A map, id in the key."""
    def render(attachment):
        record = tenant.attachments[attachment]
        shown = ("created", "description", "fileName", "isProtected", "size")
        return attachment, {"isUploaded": True, **{name: record[name] for name in shown if name in record}}
    return page(call, task_of(tenant, call.ids[0]).get("attachmentIDs", []), render)
