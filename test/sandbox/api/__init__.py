"""The endpoints of HubEx, a module a subject. Each has a table ROUTES; api.ROUTE_TABLES lists them all, and what the
catalogue declares beyond them."""
from . import assets, attachments, completed_works, conversations, dictionaries, generated, stages, task_lists, \
    task_parts, task_writes, webhooks

_WRITTEN_OUT = tuple(module.ROUTES for module in (task_lists, task_writes, stages, task_parts, conversations,
                                                  attachments, completed_works, assets, dictionaries, webhooks))
ROUTE_TABLES = generated.complete(_WRITTEN_OUT)
