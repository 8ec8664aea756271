"""The endpoints of HubEx, a module a subject. Each has a table ROUTES; api.ROUTE_TABLES lists them all."""
from . import assets, attachments, completed_works, conversations, dictionaries, stages, task_lists, task_parts, \
    task_writes, webhooks

ROUTE_TABLES = tuple(module.ROUTES for module in (task_lists, task_writes, stages, task_parts, conversations,
                                                  attachments, completed_works, assets, dictionaries, webhooks))
