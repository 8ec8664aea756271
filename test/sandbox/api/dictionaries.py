"""The dictionaries and the lesser lists of all services: one table, one set of handlers.

Facts: the WORK dictionaries are maps with the id in the key alone; ES/Companies and most others repeat it inside;
ADM/Roles, TSTG/TaskStages, ES/Districts, WH/Materials are arrays. HEAD counts where the list declares it and is 404
where it does not, as on COMMON/Contacts. Records that can be written take an array and answer an array of ids (POST,
201), replace what the fields cover (PUT, 202), or are soft-deleted (DELETE `[ids]`, 202).

Where the contract is open: one record, `GET {path}/{id}`, has its id inside; all filters are listed here and taken
from the vendor's schema.
"""
from typing import Mapping, NamedTuple, Tuple

from wire.filters import derived, flag, has, one_of, search_fields, selection
from wire.messages import accepted, json_answer, not_found
from wire.paging import count, page
from wire.routing import Routes
from wire.values import b_bool, b_int, b_number, b_text, present, q_text, read_fields, read_ids

from .references import check_references, missing

ROUTES = Routes()

KEY, INSIDE, ARRAY = "id in the key", "id in the key and inside", "array, id inside"


class Listing(NamedTuple):
    path: str
    collection: str
    shape: str = KEY
    head: bool = False
    filters: Mapping = {}
    fields: Mapping = {}            # what a body may hold; empty: read only
    required: Tuple = ("name",)
    internal: Tuple = ()            # fields of the record that the API does not show
    variable: str = "{id}"          # the last part of the address of one record


_DELETED = {"isDeleted": has("deleted")}
_ERP = {"erpID": one_of("erpID", q_text)}


def _relevant(subject):
    return flag(lambda tenant, attribute: attribute.get("relevantFor", {}).get(subject))


def _link_filter(field):
    return derived(lambda tenant, link: link[field]["id"])


_NAMED = {"name": b_text, "description": b_text, "erpID": b_text, "isDefault": b_bool}

LISTINGS = (
    Listing("/WORK/TaskTypes", "task_types"),
    Listing("/WORK/WorkTypes", "work_types", filters={"searchText": search_fields("name", "description"), **_ERP,
                                                      "isPublished": has("published")},
            fields={**_NAMED, "cost": b_number, "closeMinutes": b_int, "normalWorkingHours": b_int,
                    "normalWorkingMinutes": b_int}),
    Listing("/WORK/TaskStatuses", "task_statuses"),
    Listing("/WORK/RequestMethods", "request_methods"),
    Listing("/WORK/TaskTemplates", "task_templates", head=True, variable="{id:text}",
            filters={"searchText": search_fields("name", "description"), "isPublished": has("published"),
                     "taskTemplateID": one_of("code", q_text)}),
    Listing("/WORK/CheckLists", "check_lists", filters={"searchText": search_fields("name", "description")}),
    Listing("/WORK/TaskActualities", "task_actualities"),
    Listing("/WORK/TaskOrderBy", "task_order_by"),
    Listing("/TSTG/TaskStages", "task_stages", ARRAY, head=True),
    Listing("/TSTG/Branches", "branches"),
    Listing("/TSTG/TaskStageLinks", "stage_links", ARRAY,
            filters={"taskTypeID": one_of("taskTypeID"), "taskStageFromID": _link_filter("fromTaskStage"),
                     "taskStageToID": _link_filter("toTaskStage")}),
    Listing("/SLA/Criticalities", "criticalities",
            fields={**_NAMED, "color": b_text, "sortOrder": b_int}, required=("name", "color")),
    Listing("/ES/AssetTypes", "asset_types"),
    Listing("/ES/AssetClasses", "asset_classes", INSIDE, fields=_NAMED),
    Listing("/ES/Companies", "companies", INSIDE, head=True,
            filters={"searchText": search_fields("name", "code", "tin", "erpID")},
            fields={**_NAMED, "fullName": b_text, "code": b_text, "tin": b_text, "iec": b_text, "okpo": b_text,
                    "psrn": b_text, "email": b_text, "phone": b_text, "siteUrl": b_text, "locationID": b_int,
                    "registrationTypeID": b_int, "registeredOffice": b_text, "vatRate": b_int, "isEmployer": b_bool,
                    "isOurCompany": b_bool, "isContractorHolder": b_bool, "isVATTaxpayer": b_bool},
            internal=("districtID", "locationID")),
    Listing("/ES/Districts", "districts", ARRAY, fields={**_NAMED, "parentID": b_int, "sortOrder": b_int}),
    Listing("/ES/Locations", "locations", INSIDE, head=True, filters={"searchText": search_fields("address")},
            fields={"address": b_text, "coordinate": b_text, "description": b_text}, required=("address",)),
    Listing("/ADM/Users", "users", head=True,
            filters={"searchText": search_fields("lastName", "firstName", "middleName", "email"), **_DELETED, **_ERP,
                     "userID": one_of("userID"), "roleID": one_of("roleID"), "companyID": one_of("companyID"),
                     "isTechnician": flag(lambda tenant, user: user["isTechnician"]),
                     "isCustomer": flag(lambda tenant, user: user["isCustomer"]),
                     "isTeam": flag(lambda tenant, user: user.get("isTeam")), "position": one_of("position", q_text),
                     "lastName": one_of("lastName", q_text), "firstName": one_of("firstName", q_text),
                     "middleName": one_of("middleName", q_text)},
            internal=("roleID", "companyID", "position", "erpID")),
    Listing("/ADM/Roles", "roles", ARRAY, filters=_DELETED),
    Listing("/COMMON/Contacts", "contacts", INSIDE,
            filters={"searchText": search_fields("fullName", "phone", "email"), **_DELETED, "contactID": one_of("id")},
            fields={"fullName": b_text, "phone": b_text, "email": b_text, "position": b_text, "description": b_text},
            required=("fullName",)),
    Listing("/COMMON/Attributes", "attributes",
            filters={**_DELETED, "isPublic": flag(lambda tenant, attribute: attribute["isPublic"]),
                     "isRelevantForTask": _relevant("task"), "isRelevantForAsset": _relevant("asset")}),
    Listing("/COMMON/MeasurementUnits", "measurement_units"),
    Listing("/COMMON/Currencies", "currencies"),
    Listing("/COMMON/Events", "events", ARRAY),
    Listing("/WH/Warehouses", "warehouses", INSIDE, head=True,
            filters={"searchText": search_fields("name"), **_DELETED,
                     "isDefault": flag(lambda tenant, warehouse: warehouse.get("isDefault"))},
            fields={**_NAMED, "locationID": b_int}, internal=("locationID",)),
    Listing("/WH/Materials", "materials", ARRAY, head=True,
            filters={"searchText": search_fields("name", "vendorCode", "erpID"), **_DELETED, "materialID": one_of("id"),
                     "warehouseID": one_of("warehouseID")},
            fields={**_NAMED, "vendorCode": b_text, "cost": b_number, "isMarkable": b_bool}),
    Listing("/SC/ServiceContract", "contracts", head=True,
            filters={"searchText": search_fields("name", "number"), "companyID": one_of("companyID")}),
    Listing("/PMP/ScheduledTasks", "scheduled_tasks", head=True),
    Listing("/PA/Skills", "skills", INSIDE, filters=_DELETED),
)


def _shown(listing, key, record, with_id):
    view = {"id": key} if with_id else {}
    view.update(record)
    for field in listing.internal:
        view.pop(field, None)
    return view


def _declare(listing):
    def records(tenant):
        return tenant.collections[listing.collection]

    def selected(tenant, call):
        """The keys of the records asked for, in order."""
        found = selection(call, tenant, listing.filters).of({"id": key, **record}
                                                            for key, record in records(tenant).items())
        return [record["id"] for record in found]

    def listing_of(tenant, call):
        def render(key):
            view = _shown(listing, key, records(tenant)[key], listing.shape != KEY)
            return view if listing.shape == ARRAY else (key, view)
        return page(call, selected(tenant, call), render, listing.shape == ARRAY)

    def head(tenant, call):
        return count(len(selected(tenant, call)))

    def named_by_address(tenant, call):
        record = records(tenant).get(call.ids[0])
        if record is None:
            raise not_found(listing.collection, call.ids[0])
        return record

    def one(tenant, call):
        return json_answer(200, _shown(listing, call.ids[0], named_by_address(tenant, call), with_id=True))

    def body(tenant, call, table, required):
        items = [read_fields(item, table, required) for item in call.json_list()]
        for item in items:
            if "id" in item and item["id"] not in records(tenant):
                raise missing("id", item["id"])
            check_references(tenant, item, parents=records(tenant))
        return items

    def add(tenant, call):
        items = body(tenant, call, listing.fields, listing.required)
        return json_answer(201, [records(tenant).add(present(item)) for item in items])

    def put(tenant, call):
        for item in body(tenant, call, {**listing.fields, "id": b_int}, ("id", *listing.required)):
            key = item.pop("id")
            kept = {name: value for name, value in records(tenant)[key].items() if name not in listing.fields}
            records(tenant)[key] = present({**kept, **item})
        return accepted()

    def delete_one(tenant, call):
        named_by_address(tenant, call).setdefault("deleted", tenant.now())
        return accepted()

    def delete_many(tenant, call):
        ids = read_ids(call)
        for key in ids:
            if key not in records(tenant):
                raise missing("id", key)
        for key in ids:
            records(tenant)[key].setdefault("deleted", tenant.now())
        return accepted()

    ROUTES.add("GET", listing.path, listing_of)
    ROUTES.add("GET", f"{listing.path}/{listing.variable}", one)
    if listing.head:
        ROUTES.add("HEAD", listing.path, head)
    if listing.fields:
        ROUTES.add("POST", listing.path, add)
        ROUTES.add("PUT", listing.path, put)
        ROUTES.add("DELETE", listing.path, delete_many)
        ROUTES.add("DELETE", f"{listing.path}/{listing.variable}", delete_one)


for _listing in LISTINGS:
    _declare(_listing)


@ROUTES("GET", "/PA/Employment/{userID}")
def employment(tenant, call):
    """An array: where the user is employed."""
    if call.ids[0] not in tenant.collections["users"]:
        raise not_found("User", call.ids[0])
    record = tenant.collections["employments"].get(call.ids[0])
    return page(call, [record] if record else [], dict, as_array=True)
