"""The chats of a task: with the team (isExternal false) and with the customer (isExternal true)."""
from tenant.people import SERVICE_USER
from wire.filters import flag, search_fields, selection
from wire.messages import broken_rule, json_answer
from wire.paging import count, page
from wire.routing import Routes
from wire.values import b_bool, b_ints, b_text, present, read_fields

from .references import live_task, missing
from .task_lists import task_of

ROUTES = Routes()

_MESSAGE = {"message": b_text, "isExternal": b_bool, "attachments": b_ints}
_FILTERS = {"searchText": search_fields("message"), "isExternal": flag(lambda tenant, message: message["isExternal"])}


@ROUTES("POST", "/WORK/Tasks/{id}/conversation")
def add_message(tenant, call):
    """`{"message", "isExternal": false, "attachments": []}`, 201 {"id", "taskID"}; a message of nothing is 409."""
    task = task_of(tenant, call.ids[0])
    fields = present(read_fields(call.json(), _MESSAGE))
    live_task(tenant, task["id"])
    attachments = fields.get("attachments", [])
    if not fields.get("message") and not attachments:
        raise broken_rule("MessageIsEmpty", "Сообщение пусто", taskID=task["id"])
    for attachment in attachments:
        if attachment not in tenant.attachments:
            raise missing("attachments", attachment)
    message_id = tenant.messages.add({"message": fields.get("message", ""), "taskID": task["id"],
                                      "isExternal": fields.get("isExternal", False), "attachments": attachments,
                                      "created": tenant.now(), "authorID": SERVICE_USER})
    tenant.touch(task, messageIDs=[*task.get("messageIDs", ()), message_id])
    return json_answer(201, {"id": message_id, "taskID": task["id"]})


def _messages(tenant, call):
    task = task_of(tenant, call.ids[0])
    messages = [{"id": message_id, **tenant.messages[message_id]} for message_id in task.get("messageIDs", ())]
    return selection(call, tenant, _FILTERS).of(messages)


@ROUTES("GET", "/WORK/Tasks/{id}/conversations")
def list_messages(tenant, call):
    """An array, oldest first."""
    def render(message):
        view = {"id": message["id"], "created": message["created"], "author": tenant.user(message["authorID"]),
                "isExternal": message["isExternal"], "message": message["message"]}
        if message.get("attachments"):
            view["attachment"] = [{"id": attachment, "fileName": tenant.attachments[attachment]["fileName"]}
                                  for attachment in message["attachments"]]
        return view
    return page(call, _messages(tenant, call), render, as_array=True)


@ROUTES("HEAD", "/WORK/Tasks/{id}/conversations")
def count_messages(tenant, call):
    return count(len(_messages(tenant, call)))
