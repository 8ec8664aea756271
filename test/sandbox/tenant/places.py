"""Where the tenant works: companies served, districts, streets."""

# id: name, code, tin (ИНН), district, erpID or None
_COMPANIES = {
    1: ("ООО «Север-Сервис»", "SEV", "7801234501", 2, None),           # the tenant itself
    2: ("ЖК «Северная звезда»", "ZVEZ", "7802345612", 3, "C-00002"),
    3: ("ТЦ «Галерея»", "GAL", "7813456723", 2, "C-00003"),
    4: ("ООО \"Хлеб & Соль\"", "HLEB", "7804567834", 4, "C-00004"),
    5: ("АО «Невский молокозавод»", "NEVM", "7805678945", 4, "C-00005"),
    6: ("БЦ «Пулково-Скай»", "PULK", "7806789056", 4, "C-00006"),
    7: ("Сеть магазинов «Пятница»", "PYAT", "7707890167", 6, "C-00007"),
    8: ("ГБУЗ «Городская больница № 15»", "GB15", "7808901278", 4, None),
    9: ("Отель «Азимут»", "AZIM", "7809012389", 2, "C-00009"),
    10: ("ТСЖ «Приморское, 47»", "PRIM", "7810123490", 3, None),
    11: ("ООО «Логопарк Шушары»", "LOGO", "7811234512", 4, "C-00011"),
    12: ("Ресторан «L'Europe»", "LEUR", "7812345623", 2, "C-00012"),
    13: ("ФГУП «Почта»", "POST", "7713456734", 6, "C-00013"),
    14: ("ООО «Рыба/Море»", "RYBA", "7814567845", 7, "C-00014"),
    15: ("Школа № 239", "SCH239", "7815678956", 2, None),
    16: ("ИП Ёлкин А. Ю.", "ELK", "781678906712", 7, "C-00016"),
}


def _companies():
    records = {}
    for company, (name, code, tin, district, erp_id) in _COMPANIES.items():
        records[company] = {"id": company, "name": name, "code": code, "tin": tin, "isOurCompany": company == 1,
                            "isContractorHolder": company != 1, "registrationTypeID": 3 if name.startswith("ИП") else 1,
                            "districtID": district}
        if erp_id:
            records[company]["erpID"] = erp_id
    return records


COMPANIES = _companies()

DISTRICTS = {
    1: {"id": 1, "name": "Санкт-Петербург", "hasChildren": True, "isDefault": True, "sortOrder": 1, "erpID": "D-78"},
    2: {"id": 2, "name": "Центральный район", "hasChildren": False, "isDefault": False, "parentID": 1, "sortOrder": 2,
        "erpID": "D-7801"},
    3: {"id": 3, "name": "Приморский район", "hasChildren": False, "isDefault": False, "parentID": 1, "sortOrder": 3,
        "erpID": "D-7802"},
    4: {"id": 4, "name": "Московский район", "hasChildren": False, "isDefault": False, "parentID": 1, "sortOrder": 4},
    5: {"id": 5, "name": "Москва", "hasChildren": True, "isDefault": False, "sortOrder": 5, "erpID": "D-77"},
    6: {"id": 6, "name": "САО", "hasChildren": False, "isDefault": False, "parentID": 5, "sortOrder": 6,
        "erpID": "D-7701"},
    7: {"id": 7, "name": "Ленинградская область", "hasChildren": False, "isDefault": False, "sortOrder": 7},
}

STREETS = (
    ("Санкт-Петербург", 59.93428, 30.3351, ("Невский пр.", "Лиговский пр.", "ул. Савушкина", "Московский пр.",
                                            "пр. Энгельса", "ул. Ёлочная", "наб. реки Фонтанки", "Пулковское ш.")),
    ("Москва", 55.755864, 37.617698, ("Ленинградский пр-т", "ул. Сущёвский Вал", "Дмитровское ш.",
                                      "ул. Лётчика Бабушкина")),
    ("Гатчина", 59.5652, 30.1282, ("ул. Соборная", "пр. 25 Октября")),
)
