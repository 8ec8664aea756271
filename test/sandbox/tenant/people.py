"""The people: users of the tenant with their roles and employment, contacts of its customers."""

from .places import COMPANIES

ROLES = {
    1: {"id": 1, "name": "Администратор"},
    2: {"id": 2, "name": "Диспетчер", "description": "Принимает и распределяет заявки"},
    3: {"id": 3, "name": "Инженер"},
    5: {"id": 5, "name": "Заказчик"},
    8: {"id": 8, "name": "Интеграция", "description": "Сервисный пользователь API"},
    9: {"id": 9, "name": "Стажёр", "deleted": "2025-03-14T10:00:00"},
}

SERVICE_USER = 1        # who the service token signs in

# id: last name, first name, middle name, role, company, position
_USERS = {
    1: ("Интеграция", "ERP", None, 8, 1, None),
    2: ("Соколова", "Марина", "Игоревна", 2, 1, "Старший диспетчер"),
    3: ("Ёжиков", "Семён", "Петрович", 2, 1, "Диспетчер"),
    5: ("Кузнецов", "Андрей", "Викторович", 3, 1, "Электромеханик по лифтам"),
    6: ("Мустафаев", "Руслан", None, 3, 1, "Электромеханик по лифтам"),
    8: ("Лебедева", "Ольга", "Сергеевна", 3, 1, "Инженер по вентиляции"),
    9: ("Новиков", "Павел", "Андреевич", 3, 1, "Инженер-холодильщик"),
    11: ("О'Коннор", "Дмитрий", "Патрикович", 3, 1, "Инженер-холодильщик"),
    12: ("Цой", "Виктор", "Робертович", 3, 1, "Механик"),
    13: ("Фёдорова", "Анна", "Львовна", 1, 1, "Руководитель сервиса"),
    16: ("Громов", "Илья", "Олегович", 5, 2, "Управляющий домом"),
    17: ("Белова", "Жанна", None, 5, 3, "Администратор ТЦ"),
    19: ("Шмидт", "Карл", "Иванович", 5, 7, "Главный инженер"),
}

TECHNICIANS = tuple(user for user, person in _USERS.items() if person[3] == 3)
CUSTOMERS = tuple(user for user, person in _USERS.items() if person[3] == 5)
DISPATCHERS = tuple(user for user, person in _USERS.items() if person[3] == 2)


def _users():
    records = {}
    for user, (last, first, middle, role, company, position) in _USERS.items():
        record = {"userID": user, "lastName": last, "firstName": first, "isTechnician": role == 3,
                  "isCustomer": role == 5, "isTeam": False, "isEmailVerified": True, "roleID": role,
                  "companyID": company, "erpID": f"U-{user:03d}"}
        if middle:
            record["middleName"] = middle
        if position:
            record.update(email=f"user{user}@sever-service.example", mobilePhone=f"+7921555{user:04d}",
                          position=position)
        records[user] = record
    records[12]["deleted"] = "2025-06-30T18:00:00"
    return records


def _employments():
    """By user, not by id of their own: the API asks for the employment of a user."""
    return {user: {"id": number, "company": {"id": company, "name": COMPANIES[company]["name"]}, "position": position,
                   "personnelNumber": f"{user:05d}", "validityPeriod": {"from": "2025-01-01T00:00:00"}}
            for number, (user, (*_, company, position)) in enumerate(_USERS.items(), 1) if position}


USERS = _users()
EMPLOYMENTS = _employments()

_CONTACTS = (
    ("Иванова Наталья Юрьевна", "+7 812 555-01-11", "ivanova@galereya.example", "Администратор"),
    ("Пётр «Петрович» Сидоров", "+7 812 555-01-12", None, "Охрана"),
    ("Абдуллаев Тимур", "+79215550113", "timur@hlebsol.example", None),
    ("Васильев-Майский К. К.", None, "kk@nevm.example", "Главный механик"),
    ("Диспетчерская ЖК", "+7 812 555-01-15", None, None),
    ("Эмма Шульц", "+7 812 555-01-16", "e.schulz@azimut.example", "Управляющая"),
    ("Щукина Юлия", "+7 812 555-01-17", None, "Товаровед"),
    ("O'Brien, Liam", "+353 1 555 0118", "liam@leurope.example", "Шеф-повар"),
)


def _contacts():
    records = {}
    for contact, (name, phone, email, position) in enumerate(_CONTACTS, 1):
        record = {"id": contact, "fullName": name, "phone": phone, "email": email, "position": position, "isUsed": True}
        records[contact] = {field: value for field, value in record.items() if value is not None}
    records[7]["deleted"] = "2025-05-20T12:00:00"
    return records


CONTACTS = _contacts()
