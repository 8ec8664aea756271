"""References from a body to records: 409, a business rule, where the record is not there or is deleted."""
from wire.messages import broken_rule

# Field of a body -> the collection it points into. Tasks and assets have stores of their own.
_COLLECTIONS = {
    "taskTypeID": "task_types", "requestMethodID": "request_methods", "criticalityID": "criticalities",
    "companyID": "companies", "payeeCompanyID": "companies", "payerCompanyID": "companies", "locationID": "locations",
    "workTypeID": "work_types", "contractID": "contracts", "requestedByUserID": "users", "userID": "users",
    "implementedByUserID": "users", "responsiblePerson": "users", "technicianID": "users",
    "serviceLevelAgreementID": "service_level_agreements", "taskTemplateID": "task_templates",
    "estimatedCostCurrencyID": "currencies", "actualCostCurrencyID": "currencies", "costCurrencyID": "currencies",
    "assetSchemaID": "asset_schemas", "assetTypeID": "asset_types", "assetClassID": "asset_classes",
    "taskStageID": "task_stages", "attributeID": "attributes", "measurementUnitID": "measurement_units",
    "contactID": "contacts", "skillID": "skills", "events": "events", "taskStages": "task_stages",
}


def _store(tenant, field):
    if field in ("assetID", "maintainedAssetID"):
        return tenant.assets
    return tenant.collections[_COLLECTIONS[field]] if field in _COLLECTIONS else None


def missing(field, value):
    return broken_rule("EntityNotFound", "Связанный объект не найден", field=field, value=value)


def check_reference(tenant, field, value, store=None):
    """-> the record the field points to"""
    record = (_store(tenant, field) if store is None else store).get(value)
    if record is None or "deleted" in record:
        raise missing(field, value)
    return record


def check_references(tenant, fields, parents):
    """Checks every field that is a reference; `parents` is where `parentID` points to. Null refers to nothing."""
    for field, value in fields.items():
        if value is not None:
            store = parents if field == "parentID" else _store(tenant, field)
            if store is not None:
                check_reference(tenant, field, value, store)


def live_task(tenant, task_id):
    """The task named in a body: 409 where it is not there, or deleted."""
    task = tenant.tasks.get(task_id)
    if task is None:
        raise missing("taskID", task_id)
    if "deleted" in task:
        raise broken_rule("TaskIsDeleted", "Заявка удалена", taskID=task_id)
    return task
