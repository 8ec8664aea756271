"""The dictionaries of the tenant: a service company for lifts, ventilation and commercial refrigeration.

Written out rather than generated, so that a failing test shows a believable record. Ids are sparse where the live ones
are. Records stand as the API answers them; whether the id is repeated inside is the endpoint's matter.
"""
import random

from .people import CONTACTS, EMPLOYMENTS, ROLES, USERS
from .places import COMPANIES, DISTRICTS, STREETS
from .routes import BRANCHES, STAGE_LINKS, TASK_STAGES, TASK_STATUSES, TASK_TYPES

RUBLE = {"id": 1, "asciiCode": "RUB", "shortName": "руб."}

TASK_ORDER_BY = {
    1: {"code": "CreationDate", "name": "Дата создания"},
    2: {"code": "Number", "name": "Номер"},
    4: {"code": "Deadline", "name": "Срок исполнения"},
    5: {"code": "Criticality", "name": "Критичность"},
    8: {"code": "LastModified", "name": "Дата изменения"},
    11: {"code": "Company", "name": "Компания"},
    13: {"code": "TaskStage", "name": "Стадия"},
}

REQUEST_METHODS = {
    1: {"name": "Телефон"},
    2: {"name": "Электронная почта"},
    3: {"name": "Портал клиента"},
    4: {"name": "Интеграция"},
    5: {"name": "Мобильное приложение"},
    6: {"name": "Телеметрия"},
}

CRITICALITIES = {
    1: {"name": "Авария", "color": "#EB5757", "isDefault": False, "sortOrder": 1, "erpID": "P1"},
    2: {"name": "Высокая", "color": "#F2994A", "isDefault": False, "sortOrder": 2, "erpID": "P2"},
    3: {"name": "Обычная", "color": "#2D9CDB", "isDefault": True, "sortOrder": 3, "erpID": "P3"},
    5: {"name": "Низкая", "color": "#BDBDBD", "isDefault": False, "sortOrder": 4},
}

SERVICE_LEVEL_AGREEMENTS = {1: {"name": "Круглосуточно 24×7"}, 2: {"name": "Рабочие дни 8×5"}}

TASK_ACTUALITIES = {
    1: {"name": "Просрочена", "color": "#EB5757", "sortOrder": 1},
    2: {"name": "Сегодня", "color": "#F2C94C", "sortOrder": 2},
    3: {"name": "Завтра", "color": "#6FCF97", "sortOrder": 3, "isTillNextDay": True},
    4: {"name": "Позже", "color": "#BDBDBD", "sortOrder": 4},
}

# id, name, hours, minutes, erpID or None
_WORK_TYPES = (
    (1, "Освобождение пассажиров из кабины", 0, 40, "W-010"),
    (2, "Регулировка дверей шахты", 1, 30, "W-011"),
    (3, "Замена тягового каната", 8, 0, "W-012"),
    (4, "Ежемесячное ТО лифта", 2, 0, "W-013"),
    (7, "Замена воздушных фильтров", 1, 0, "W-020"),
    (8, "Балансировка вентилятора", 3, 0, "W-021"),
    (9, "Чистка теплообменника", 2, 30, None),
    (12, "Дозаправка хладагента", 1, 45, "W-030"),
    (13, "Замена компрессора", 6, 0, "W-031"),
    (14, "Поиск утечки «течеискателем»", 2, 0, "W-032"),
    (17, "Проверка автоматики и КИП", 1, 15, None),
    (21, "Выезд для осмотра", 1, 0, "W-090"),
)

ASSET_TYPES = {
    1: {"name": "Здание", "isDefault": False, "isHostable": True},
    2: {"name": "Лифт пассажирский", "isDefault": True, "isHostable": False},
    3: {"name": "Лифт грузовой", "isDefault": False, "isHostable": False},
    4: {"name": "Эскалатор", "isDefault": False, "isHostable": False},
    6: {"name": "Приточная установка", "isDefault": False, "isHostable": False},
    7: {"name": "Чиллер", "isDefault": False, "isHostable": False},
    9: {"name": "Холодильная камера", "isDefault": False, "isHostable": True},
    10: {"name": "Витрина холодильная", "isDefault": False, "isHostable": False},
}

ASSET_CLASSES = {
    1: {"name": "Подъёмное оборудование", "isDefault": True, "erpID": "AC-LIFT"},
    2: {"name": "Вентиляция и кондиционирование", "isDefault": False, "erpID": "AC-HVAC"},
    3: {"name": "Торговый холод", "isDefault": False, "erpID": "AC-COLD"},
    4: {"name": "Прочее", "isDefault": False},
}

TASK_TEMPLATES = {
    "lift-monthly": {"name": "Ежемесячное ТО лифта", "code": "lift-monthly", "description": "По регламенту ПБ 10-558",
                     "published": "2025-01-09T08:00:00", "allowCreateTask": True, "isVisible": True},
    "hvac-season": {"name": "Сезонное ТО вентиляции", "code": "hvac-season", "published": "2025-03-01T08:00:00",
                    "allowCreateTask": True, "isVisible": True},
    "cold-alarm": {"name": "Авария холода по телеметрии", "code": "cold-alarm", "allowCreateTask": False,
                   "isVisible": False},
}

CHECK_LISTS = {
    1: {"name": "ТО лифта: машинное помещение", "sortOrder": 1, "assetsCount": 12, "workTypesCount": 1},
    3: {"name": "ТО лифта: кабина и двери", "sortOrder": 2, "assetsCount": 12, "workTypesCount": 2},
    4: {"name": "Пуск холодильной камеры", "sortOrder": 3, "description": "Перед сдачей смены"},
}

SKILLS = {
    1: {"name": "Электробезопасность, группа III", "isOptional": False},
    2: {"name": "Работа на высоте", "isOptional": False},
    4: {"name": "Обращение с хладагентами", "isOptional": True},
}

MEASUREMENT_UNITS = {
    1: {"name": "Штука", "designation": "шт.", "abbreviation": "pcs"},
    2: {"name": "Килограмм", "designation": "кг", "abbreviation": "kg"},
    3: {"name": "Метр", "designation": "м", "abbreviation": "m"},
    5: {"name": "Час", "designation": "ч", "abbreviation": "h"},
}

CURRENCIES = {1: {"name": "Российский рубль", "asciiCode": "RUB", "shortName": "руб."},
              2: {"name": "Казахстанский тенге", "asciiCode": "KZT", "shortName": "тг"}}

_TEXT = {"id": 1, "code": "Text", "name": "Текст"}
_NUMBER = {"id": 2, "code": "Number", "name": "Число"}
_LIST = {"id": 3, "code": "List", "name": "Список"}
_FLAG = {"id": 4, "code": "Bool", "name": "Да/нет"}

ATTRIBUTES = {
    3: {"name": "Номер по паспорту Ростехнадзора", "type": _TEXT, "isPublic": True,
        "relevantFor": {"task": False, "asset": True}},
    5: {"name": "Причина неисправности", "type": _LIST, "isPublic": False,
        "relevantFor": {"task": True, "asset": False},
        "listOfValues": {"1": "Износ", "2": "Вандализм", "3": "Перепад напряжения", "4": "Ошибка монтажа"}},
    6: {"name": "Гарантийный случай", "type": _FLAG, "isPublic": True, "relevantFor": {"task": True, "asset": False}},
    8: {"name": "Хладагент", "type": _LIST, "isPublic": True, "relevantFor": {"task": True, "asset": True},
        "listOfValues": {"1": "R404A", "2": "R410A", "3": "R134a"}},
    9: {"name": "Давление всасывания", "type": _NUMBER, "isPublic": False,
        "measurementUnit": {"id": 6, "designation": "бар"}, "relevantFor": {"task": True, "asset": False}},
    11: {"name": "Показания счётчика пусков", "type": _NUMBER, "isPublic": False,
         "relevantFor": {"task": True, "asset": False}, "deleted": "2025-02-11T07:30:00"},
}

WAREHOUSES = {
    1: {"name": "Центральный склад", "isDefault": True, "erpID": "WH-01"},
    2: {"name": "Машина бригады «Юг»", "isDefault": False, "erpID": "WH-07"},
    4: {"name": "Старый склад", "isDefault": False, "deleted": "2025-04-02T09:00:00"},
}

MATERIALS = {
    1: {"name": "Фильтр карманный F7 592×592", "erpID": "MAT-0001", "vendorCode": "FK-F7-592", "cost": 1890.5,
        "currency": RUBLE, "measurementUnit": {"id": 1, "name": "Штука"}},
    2: {"name": "Хладагент R404A", "erpID": "MAT-0002", "cost": 2150, "currency": RUBLE,
        "measurementUnit": {"id": 2, "name": "Килограмм"}},
    3: {"name": "Канат тяговый Ø10 мм", "erpID": "MAT-0003", "cost": 640, "currency": RUBLE,
        "measurementUnit": {"id": 3, "name": "Метр"}},
    6: {"name": "Ролик двери кабины", "vendorCode": "RD-60"},
}

SCHEDULED_TASKS = {
    1: {"name": "ТО лифтов, ЖК «Северная звезда»", "taskTemplateID": "lift-monthly", "sortOrder": 1},
    2: {"name": "Сезонное ТО, ТЦ «Галерея»", "taskTemplateID": "hvac-season", "sortOrder": 2, "notes": "Ночью"},
}

EVENTS = {
    1: {"code": "TaskCreated", "name": "Заявка создана"},
    2: {"code": "TaskUpdated", "name": "Заявка изменена"},
    5: {"code": "TaskStageChanged", "name": "Стадия заявки изменена"},
    9: {"code": "TaskMessageAdded", "name": "Новое сообщение в заявке"},
}

ASSET_SCHEMAS = {1: {"name": "План этажа"}}


def _work_types():
    records = {}
    for work_type, name, hours, minutes, erp_id in _WORK_TYPES:
        record = {"name": name, "isDefault": False, "normalWorkingHours": hours, "normalWorkingMinutes": minutes,
                  "published": "2025-01-09T08:00:00", "hasChildren": False}
        if erp_id:
            record["erpID"] = erp_id
        records[work_type] = record
    return records


def _locations(rng):
    """Two houses a street, near the middle of its city."""
    records = {}
    for city, latitude, longitude, streets in STREETS:
        for street in streets:
            for _ in range(2):
                records[len(records) + 1] = {
                    "address": f"г. {city}, {street}, д. {rng.randint(1, 120)}",
                    "coordinate": f"{latitude + rng.uniform(-.06, .06):.6f}:{longitude + rng.uniform(-.1, .1):.6f}",
                }
    return records


def _contracts(rng):
    records = {}
    for company_id, company in COMPANIES.items():
        if company_id % 3:
            contract = {"contractID": len(records) + 1, "companyID": company_id, "companyName": company["name"],
                        "name": f"Договор на обслуживание № {100 + company_id}/{rng.randint(24, 25)}",
                        "number": f"{100 + company_id}", "dateFrom": "2025-01-01T00:00:00"}
            if company_id % 2:
                contract["dateTill"] = "2026-12-31T00:00:00"
            records[len(records) + 1] = contract
    return records


def _copies(records):
    """Records of their own for each tenant: a reset must not meet what was written before."""
    return {key: dict(record) for key, record in records.items()}


def build_directory(seed):
    """All dictionaries, by name of the collection."""
    rng = random.Random(f"{seed}:directory")
    plain = {
        "task_types": TASK_TYPES, "task_statuses": TASK_STATUSES, "task_stages": TASK_STAGES, "branches": BRANCHES,
        "stage_links": STAGE_LINKS, "task_order_by": TASK_ORDER_BY, "request_methods": REQUEST_METHODS,
        "criticalities": CRITICALITIES, "service_level_agreements": SERVICE_LEVEL_AGREEMENTS,
        "task_actualities": TASK_ACTUALITIES, "work_types": _work_types(), "asset_types": ASSET_TYPES,
        "asset_classes": ASSET_CLASSES, "task_templates": TASK_TEMPLATES, "check_lists": CHECK_LISTS, "skills": SKILLS,
        "measurement_units": MEASUREMENT_UNITS, "currencies": CURRENCIES, "attributes": ATTRIBUTES,
        "warehouses": WAREHOUSES, "materials": MATERIALS, "scheduled_tasks": SCHEDULED_TASKS, "events": EVENTS,
        "asset_schemas": ASSET_SCHEMAS, "companies": COMPANIES, "districts": DISTRICTS, "locations": _locations(rng),
        "contracts": _contracts(rng), "users": USERS, "employments": EMPLOYMENTS, "roles": ROLES, "contacts": CONTACTS,
        "webhooks": {},
    }
    return {name: _copies(records) for name, records in plain.items()}
