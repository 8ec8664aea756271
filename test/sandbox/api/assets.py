"""ES/Assets: a map that repeats the id inside. There can be 600,000 of them.

The only filters that are known to work are searchText and, undocumented, contactID: anything else is ignored, and there
is no isDeleted. POST takes one object, PUT is a full replacement: what is not sent is gone.

Where the contract is open: the order of the list is that of the ids, rising; `name` is required, 400 without a body;
a reference to nothing is 409; a change of a deleted asset is 409.
"""
from wire.filters import parameter, parsed
from wire.messages import accepted, broken_rule, json_answer, not_found
from wire.paging import count, page
from wire.routing import Routes
from wire.values import b_any, b_bool, b_int, b_moment, b_text, present, q_int, q_text, read_fields, read_ids

from .references import check_references, missing

ROUTES = Routes()

_ASSET = {
    "name": b_text, "assetTypeID": b_int, "assetClassID": b_int, "companyID": b_int, "locationID": b_int,
    "parentID": b_int, "erpID": b_text, "serialNumber": b_text, "notes": b_text, "warrantyTill": b_moment,
    "isAutoPublish": b_bool, "isMobileAsset": b_bool, "isInheritParentDistricts": b_bool, "useAllWorkTypes": b_bool,
    "isSkipForEscalation": b_bool, "isStopEscalation": b_bool, "responsiblePerson": b_int, "scheduleRuleID": b_int,
    "assetTemplateID": b_int, "positionOnSchema": b_any,
}
_LISTED = ("id", "name", "erpID", "serialNumber", "parentID", "published", "deleted", "warrantyTill", "useAllWorkTypes")
_DETAILED = ("notes", "isMobileAsset", "isInheritParentDistricts", "positionOnSchema")


def list_item(tenant, asset):
    item = {name: asset[name] for name in _LISTED if name in asset}
    if "companyID" in asset:
        item["company"] = tenant.named("companies", asset["companyID"])
    if "locationID" in asset:
        item["location"] = tenant.location(asset["locationID"])
    item["hasChildren"] = tenant.assets.has_children(asset["id"])
    return item


def _detail(tenant, asset):
    view = list_item(tenant, asset)
    del view["hasChildren"]         # of lists alone
    view.update({name: asset[name] for name in _DETAILED if name in asset})
    for field, name, collection in (("assetTypeID", "assetType", "asset_types"),
                                    ("assetClassID", "assetClass", "asset_classes")):
        if field in asset:
            view[name] = tenant.named(collection, asset[field])
    if "parentID" in asset:
        view["parent"] = {"id": asset["parentID"], "name": tenant.assets.get(asset["parentID"])["name"]}
    if "responsiblePerson" in asset:
        view["responsiblePerson"] = tenant.user(asset["responsiblePerson"])
    return view


def _selected(tenant, call):
    """The ids of the assets asked for, in order; those that the list hides are left out."""
    contacts = parsed(call, "contactID", q_int)
    ids = tenant.assets.ids_with_contact(contacts) if contacts else tenant.assets.ids()
    wanted = parameter(call, "searchText", q_text, "").casefold()
    if wanted:
        ids = [asset_id for asset_id in ids if _matches(tenant.assets.get(asset_id), wanted)]
    hidden = tenant.hidden["assets"]
    return [asset_id for asset_id in ids if asset_id not in hidden] if hidden else ids


def _matches(asset, wanted):
    return any(wanted in asset.get(field, "").casefold() for field in ("name", "serialNumber", "erpID", "notes"))


@ROUTES("GET", "/ES/Assets")
def list_assets(tenant, call):
    """Pages of all assets are kept: a client that reads the whole list again is not to wait for the sandbox."""
    filtered = any(name in ("contactID", "searchText") for name, _ in call.query)
    return page(call, _selected(tenant, call),
                lambda asset_id: (asset_id, list_item(tenant, tenant.assets.get(asset_id))),
                kept=None if filtered else tenant.assets.pages)


@ROUTES("HEAD", "/ES/Assets")
def count_assets(tenant, call):
    return count(len(_selected(tenant, call)))


def _asset_of(tenant, call):
    asset = tenant.assets.get(call.ids[0])
    if asset is None:
        raise not_found("Asset", call.ids[0])
    return asset


@ROUTES("GET", "/ES/Assets/{id}")
def get_asset(tenant, call):
    return json_answer(200, _detail(tenant, _asset_of(tenant, call)))


def _record(tenant, call):
    """The body of a create or a replacement as a record."""
    fields = present(read_fields(call.json(), _ASSET, required=("name",)))
    check_references(tenant, fields, parents=tenant.assets)
    if fields.pop("isAutoPublish", False):
        fields["published"] = tenant.now()
    return fields


@ROUTES("POST", "/ES/Assets")
def create_asset(tenant, call):
    """`{name, assetTypeID, assetClassID, companyID, isAutoPublish, ...}`, 201 {"id", "name"}"""
    record = _record(tenant, call)
    return json_answer(201, {"id": tenant.assets.add(record), "name": record["name"]})


def _live(asset):
    if "deleted" in asset:
        raise broken_rule("AssetIsDeleted", "Объект удалён", assetID=asset["id"])
    return asset


@ROUTES("PUT", "/ES/Assets/{id}")
def replace_asset(tenant, call):
    """202. What links the asset to others and whether it is published are not part of the body, and stay."""
    asset = _live(_asset_of(tenant, call))
    kept = {name: asset[name] for name in ("published", "contactID") if name in asset}
    tenant.assets.replace(asset["id"], {**kept, **_record(tenant, call)})
    return accepted()


def _put(tenant, asset, **changes):
    tenant.assets.replace(asset["id"], present({**asset, **changes}))
    return accepted()


@ROUTES("PUT", "/ES/Assets/{id}/publish")
def publish_asset(tenant, call):
    return _put(tenant, _live(_asset_of(tenant, call)), published=tenant.now())


@ROUTES("PUT", "/ES/Assets/{id}/unpublish")
def unpublish_asset(tenant, call):
    return _put(tenant, _live(_asset_of(tenant, call)), published=None)


@ROUTES("DELETE", "/ES/Assets/{id}")
def delete_asset(tenant, call):
    """Soft. 202."""
    return _put(tenant, _asset_of(tenant, call), deleted=tenant.now())


def _all(tenant, call):
    assets = []
    for asset_id in read_ids(call):
        asset = tenant.assets.get(asset_id)
        if asset is None:
            raise missing("assetID", asset_id)
        assets.append(asset)
    return assets


@ROUTES("DELETE", "/ES/Assets")
def delete_assets(tenant, call):
    for asset in _all(tenant, call):
        _put(tenant, asset, deleted=tenant.now())
    return accepted()


@ROUTES("PUT", "/ES/Assets/restore")
def restore_assets(tenant, call):
    for asset in _all(tenant, call):
        _put(tenant, asset, deleted=None)
    return accepted()
