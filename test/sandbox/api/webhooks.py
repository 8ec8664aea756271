"""MSG/Webhooks: their state only. The sandbox calls nobody: what the live server sends is not documented.

POST creates or updates `[{"id"?, "name", "uri", "events": [ids], "taskStages": [ids], "isActive", "description"?}]`,
201 with an array of ids. `callsRemaining` is what is left of the tries for a failing call; activating fills it up.
"""
from wire.messages import accepted, json_answer, not_found
from wire.paging import page
from wire.routing import Routes
from wire.values import b_bool, b_int, b_ints, b_text, present, read_fields, read_ids

from .references import check_reference, missing

ROUTES = Routes()

_WEBHOOK = {"id": b_int, "name": b_text, "uri": b_text, "events": b_ints, "taskStages": b_ints, "isActive": b_bool,
            "description": b_text}
_TRIES = 10


def _webhook_of(tenant, webhook_id):
    webhook = tenant.collections["webhooks"].get(webhook_id)
    if webhook is None:
        raise not_found("Webhook", webhook_id)
    return webhook


@ROUTES("POST", "/MSG/Webhooks")
def merge_webhooks(tenant, call):
    webhooks, merged = tenant.collections["webhooks"], []
    for item in call.json_list():
        fields = present(read_fields(item, _WEBHOOK, required=("name", "uri")))
        for reference in ("events", "taskStages"):
            for value in fields.get(reference, ()):
                check_reference(tenant, reference, value)
        if "id" in fields and fields["id"] not in webhooks:
            raise missing("id", fields["id"])
        merged.append({"events": [], "taskStages": [], "isActive": False, "callsRemaining": _TRIES, **fields})
    ids = []
    for record in merged:
        webhook_id = record.pop("id", None)
        if webhook_id is None:
            webhook_id = webhooks.add(record)
        else:
            webhooks[webhook_id] = record
        ids.append(webhook_id)
    return json_answer(201, ids)


@ROUTES("GET", "/MSG/Webhooks")
def list_webhooks(tenant, call):
    def render(webhook_id):
        webhook, shown = tenant.collections["webhooks"][webhook_id], ("name", "isActive", "callsRemaining")
        return webhook_id, {"id": webhook_id, **{name: webhook[name] for name in shown}}
    return page(call, list(tenant.collections["webhooks"]), render)


@ROUTES("GET", "/MSG/Webhooks/{id}")
def get_webhook(tenant, call):
    """Nobody is called, so `lastCall` stays empty, that is, absent."""
    webhook = _webhook_of(tenant, call.ids[0])
    references = {name: [tenant.named(collection, key) for key in webhook[name]]
                  for name, collection in (("events", "events"), ("taskStages", "task_stages"))}
    return json_answer(200, {"id": call.ids[0], **webhook, **references})


def _switch(tenant, webhook_id, active):
    webhook = _webhook_of(tenant, webhook_id)
    webhook["isActive"] = active
    if active:
        webhook["callsRemaining"] = _TRIES
    return accepted()


@ROUTES("PUT", "/MSG/Webhooks/activate/{id}")
def activate_webhook(tenant, call):
    return _switch(tenant, call.ids[0], True)


@ROUTES("PUT", "/MSG/Webhooks/deactivate/{id}")
def deactivate_webhook(tenant, call):
    return _switch(tenant, call.ids[0], False)


@ROUTES("DELETE", "/MSG/Webhooks/{id}")
def delete_webhook(tenant, call):
    _webhook_of(tenant, call.ids[0])
    del tenant.collections["webhooks"][call.ids[0]]
    return accepted()


@ROUTES("DELETE", "/MSG/Webhooks")
def delete_webhooks(tenant, call):
    webhooks, ids = tenant.collections["webhooks"], set(read_ids(call))
    for webhook_id in ids:
        if webhook_id not in webhooks:
            raise missing("id", webhook_id)
    for webhook_id in ids:
        del webhooks[webhook_id]
    return accepted()
