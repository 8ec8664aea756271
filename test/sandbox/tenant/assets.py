"""The assets: seeded ones are computed when looked at, changed and new ones are kept.

A tenant can hold 600,000 assets, and a client pages through them; making each up from its number costs microseconds,
keeping them all would cost seconds at start and half a gigabyte. So an asset of the seed is a pure function of seed
and id, and only what was written since is stored. Ids are 1..n, without gaps as long as nothing is removed.
"""
from collections import Counter

_MASK = 2**64 - 1

# asset type, class, what the name begins with, share of 16
_KINDS = (
    (2, 1, "Лифт пассажирский ЛП-0401", 5),
    (3, 1, "Лифт грузовой ЛГ-1000", 1),
    (4, 1, "Эскалатор Э-4,5", 1),
    (6, 2, "Приточная установка ПВ", 3),
    (7, 2, "Чиллер «Север» CH-250", 1),
    (9, 3, "Холодильная камера КХ-12", 2),
    (10, 3, "Витрина холодильная \"Полюс\"", 3),
)
_BY_SHARE = tuple(kind for kind in _KINDS for _ in range(kind[3]))
_HOST_EVERY = 12        # every so many assets a building; the ones after it stand in it
_BUILDING = (1, 4)      # type and class


class Assets:

    def __init__(self, seed, seeded, collections):
        self._seeded = seeded
        self._last = seeded
        self._changed = {}
        self._removed = set()
        self._ids = None                # those that are left, once something was removed
        self.pages = {}                 # what the endpoint keeps of pages it made, until something changes
        self.touched = None             # ids of assets that look otherwise than before, where somebody wants to know
        self._children = Counter()      # by parent: how many more or fewer than the seed has
        self._salt = seed * 0x9E3779B97F4A7C15 & _MASK
        self._companies = [key for key, company in collections["companies"].items() if not company["isOurCompany"]]
        self._districts = {key: company["districtID"] for key, company in collections["companies"].items()
                           if "districtID" in company}
        self._locations = list(collections["locations"])
        self._contacts = list(collections["contacts"])
        self._location_names = {key: place["address"].split(", ")[1] for key, place in collections["locations"].items()}

    def __len__(self):
        return self._last - len(self._removed)

    def ids(self):
        """All ids, in order: a range for as long as nothing was removed, so that a page of them costs nothing."""
        if not self._removed:
            return range(1, self._last + 1)
        if self._ids is None:
            self._ids = [asset_id for asset_id in range(1, self._last + 1) if asset_id not in self._removed]
        return self._ids

    def ids_with_contact(self, contacts):
        """The ids of the assets that have one of the contacts; a seeded building shares its contact with all in it."""
        found = []
        for host in range(1, self._seeded + 1, _HOST_EVERY):
            if self._contact(self._draw(host)) in contacts:
                found.extend(range(host, min(host + _HOST_EVERY, self._seeded + 1)))
        return [asset_id for asset_id in found if asset_id not in self._removed]

    def get(self, asset_id):
        """The record, or None."""
        record = self._changed.get(asset_id)
        if record is None and 1 <= asset_id <= self._seeded and asset_id not in self._removed:
            record = self._seed_record(asset_id)
        return record

    def add(self, record):
        self._last += 1
        self._ids = None
        self.replace(self._last, record)
        return self._last

    def replace(self, asset_id, record):
        old = self.get(asset_id)
        if old is not None and "parentID" in old:
            self._children[old["parentID"]] -= 1
        if "parentID" in record:
            self._children[record["parentID"]] += 1
        self._changed[asset_id] = {**record, "id": asset_id}
        self._touch(asset_id, old or {}, record)

    def remove(self, asset_id):
        """Without a trace; nothing must point to it."""
        old = self.get(asset_id)
        if "parentID" in old:
            self._children[old["parentID"]] -= 1
        self._changed.pop(asset_id, None)
        self._removed.add(asset_id)
        self._ids = None
        self._touch(asset_id, old, {})

    def children(self, asset_id):
        """The ids of the assets right below one; goes through what was written, and no more than a building of the rest."""
        near = range(asset_id + 1, min(asset_id + _HOST_EVERY, self._seeded + 1))
        return [child for child in {*near, *self._changed}
                if (record := self.get(child)) is not None and record.get("parentID") == asset_id]

    def _touch(self, asset_id, *records):
        """Notes what looks otherwise: it, and what it stands or stood in, which tells whether there is anything in it."""
        if self.touched is not None:
            self.touched.update((asset_id, *(record["parentID"] for record in records if "parentID" in record)))

    def district(self, asset_id):
        """The district an asset is served in: its company's."""
        asset = self.get(asset_id)
        return self._districts.get(asset.get("companyID")) if asset else None

    def ancestors(self, asset_id):
        """The asset and everything it stands in, from the inside out."""
        seen = []
        while asset_id is not None and asset_id not in seen:    # a loop of parents can be written by PUT
            seen.append(asset_id)
            asset = self.get(asset_id)
            asset_id = asset.get("parentID") if asset else None
        return seen

    def has_children(self, asset_id):
        seeded = 0
        if asset_id % _HOST_EVERY == 1 and asset_id <= self._seeded:
            seeded = min(_HOST_EVERY - 1, self._seeded - asset_id)
        return seeded + self._children[asset_id] > 0

    def _draw(self, number):
        """A 64-bit number that looks random and depends on seed and number alone (the mixer of splitmix64)."""
        value = (number * 0x9E3779B97F4A7C15 + self._salt) & _MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
        return value ^ value >> 31

    def _contact(self, place):
        return self._contacts[(place >> 16) % len(self._contacts)]

    def _seed_record(self, asset_id):
        host = (asset_id - 1) // _HOST_EVERY * _HOST_EVERY + 1
        place = self._draw(host)                # everything in a building shares its owner and address
        own = self._draw(asset_id)
        company = self._companies[place % len(self._companies)]
        location = self._locations[(place >> 8) % len(self._locations)]
        record = {"id": asset_id, "companyID": company, "locationID": location, "isMobileAsset": False,
                  "useAllWorkTypes": True, "published": "2025-01-15T09:00:00",
                  "contactID": self._contact(place)}
        if asset_id == host:
            record["assetTypeID"], record["assetClassID"] = _BUILDING
            record["name"] = f"Здание, {self._location_names[location]}"
        else:
            record["assetTypeID"], record["assetClassID"], model, _ = _BY_SHARE[own % 16]
            record["name"] = f"{model} № {asset_id}"
            record["parentID"] = host
            record["serialNumber"] = f"SN{own >> 40:08d}"
        if own >> 8 & 3:
            record["erpID"] = f"EQ-{asset_id:06d}"
        if own >> 12 & 15 == 0:
            record["deleted"] = "2025-05-05T10:00:00"
        if own >> 16 & 7 == 0:
            record["warrantyTill"] = "2027-01-01T00:00:00"
        if own >> 20 & 7 == 0:
            record["notes"] = "Доступ по пропуску; ключ у охраны"
        return record
