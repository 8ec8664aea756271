-- What `make demo` runs, and what one would type: an ERP table whose rows become tasks in HubEx.
-- Variables: sandbox_url, service_token.

\echo
\echo '== 1. Connect an account: one call makes the server and the user mapping, and checks them'
CREATE EXTENSION hubex;
SELECT subject, ok, message
  FROM hubex_connect('fsm', 'hubex', :'sandbox_url', json_build_object('service_token', :'service_token')::jsonb,
                     options => '{"rate_limit": "none"}');

\echo '== 2. An ERP table, and a trigger that makes a task of every row'
CREATE SCHEMA erp;
CREATE TABLE erp.request (
    id          integer PRIMARY KEY,
    customer    text NOT NULL,
    phone       text,
    problem     text NOT NULL,
    wanted_by   timestamptz
);
CREATE TRIGGER request_to_hubex AFTER INSERT ON erp.request
    FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('fsm', '{
        "task_type_id": 1, "erp_id": "ERP-{id}", "notes": "{customer}: {problem}",
        "contact_person": "{customer}", "contact_phone": "{phone}", "deadline": "{wanted_by}"}');
\d erp.request

\echo '== 3. Rows come and go; what is rolled back is never sent'
INSERT INTO erp.request VALUES
    (1, 'ООО «Ромашка»', '+7 495 123-45-67', 'Не работает кондиционер в "переговорной"', '2026-12-01 10:00+03'),
    (2, 'Пекарня №5', NULL, E'Печь: ошибка E-17\nПовтор после перезапуска \\ сброса', '2026-12-02 18:30+05'),
    (3, 'Café Łódź', '+48 42 000 00 00', 'Freezer at −3 °C instead of −18 °C 🧊', NULL);
BEGIN;
INSERT INTO erp.request VALUES (99, 'Никто', NULL, 'Передумали', NULL);
ROLLBACK;

SELECT id, hubex_wait(id) FROM hubex.outbox ORDER BY id;

\echo '== 4. The outbox: what became of each request'
SELECT id, natural_key AS erp_id, state, attempts, last_status, remote_id, remote_number FROM hubex.outbox ORDER BY id;

\echo '== 5. HubEx read back as a table, joined with the ERP'
SELECT r.id, r.customer, t.number AS task, t.task_type_name, t.task_stage_name, t.deadline
  FROM erp.request r
  JOIN hubex_tasks('{"task_type_id": 1, "isClosed": false}') t ON t.erp_id = 'ERP-' || r.id
 ORDER BY r.id;
