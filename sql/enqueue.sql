-- Requests are put in by the caller's transaction; what is wrong is an error there and leaves nothing behind.
SET client_min_messages = warning;
CREATE EXTENSION hubex;
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1/fsm');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (service_token 'none');
SET TimeZone = 'Asia/Yekaterinburg';

-- nothing here is due in our lifetime
SELECT hubex_create_task(3, 'Не работает', deadline => '2026-12-01 10:00+03', fields => '{"estimatedCost": 1.10, "ErpID": "A-1"}',
                         deliver_after => '2200-01-01') AS id;
SELECT hubex_create('tasks', '{"TaskTypeID": 3, "work_type_id": 7}', deliver_after => '2200-01-01') AS id;
SELECT hubex_enqueue('post', '/Work/tasks/', '{"taskTypeID": 1, "requestMethodID": 9, "erpID": "A-2"}', deliver_after => '2200-01-01') AS id;
SELECT hubex_enqueue('PUT', '/WORK/Tasks/7/complete', '{}', query => '{"a": [1, "два"], "b": null}', headers => '{"X-Trace": "1"}',
                     deliver_after => '2200-01-01') AS id;
SELECT hubex_enqueue('POST', '/COMMON/Attachments', content => '\x00ff', content_type => 'image/png', deliver_after => '2200-01-01') AS id;
SELECT id, operation, resource, method, path, query, headers, body - 'erpID' AS body, content, content_type,
       regexp_replace(natural_key, '[0-9a-f]{8}-[0-9a-f-]{27}', 'UUID') AS natural_key,
       natural_key = body ->> 'erpID' AS same, regexp_replace(ordering_key, '[0-9a-f]{8}-[0-9a-f-]{27}', 'UUID') AS ordering_key, state
  FROM hubex.outbox ORDER BY id;

-- one idempotency key, one request
SELECT hubex_create_task(1, 'a', idempotency_key => 'k', deliver_after => '2200-01-01')
     = hubex_create_task(1, 'b', idempotency_key => 'k', deliver_after => '2200-01-01') AS same;

-- refused
SELECT hubex_create_task(1, 'a', idempotency_key => '');
SELECT hubex_create_task(1, 'a', ordering_key => '');
SELECT hubex_create_task(1, 'a', erp_id => repeat('я', 501));
SELECT hubex_create_task();
SELECT hubex_create('tasks', NULL);
SELECT hubex_create('tasks', '[1]');
SELECT hubex_create('taskz', '{}');
SELECT hubex_create(NULL, '{}');
SELECT hubex_enqueue('FETCH', '/WORK/Tasks');
SELECT hubex_enqueue(NULL, '/WORK/Tasks');
SELECT hubex_enqueue('GET', NULL);
SELECT hubex_enqueue('GET', '/WORK/../AUTHZ/AccessTokens');
SELECT hubex_enqueue('GET', '/WORK/Tasks?x=1');
SELECT hubex_enqueue('POST', '/WORK/Tasks', '{}', headers => '{"Authorization": "Bearer canary"}');
SELECT hubex_enqueue('POST', '/WORK/X', '{}', headers => '{"X-A": "a\r\nX-B: b"}');
SELECT hubex_enqueue('POST', '/WORK/X', '{}', headers => '[1]');
SELECT hubex_enqueue('POST', '/WORK/X', '{}', content => '\x00');
SELECT hubex_wait(1000000);
BEGIN;
SELECT hubex_wait(hubex_create_task(1, 'now'));
ROLLBACK;
SELECT count(*) FROM hubex.outbox;
SELECT hubex_tasks('[1]');
SELECT hubex_tasks('{"colour": 1}');
SELECT hubex_tasks('{"isClosed": "yes"}');
SELECT hubex_tasks('{"taskID": "seven"}');
SELECT hubex_tasks('{"taskID": []}');
SELECT hubex_tasks('{"taskID": null}');
SELECT hubex_tasks('{"taskID": {"a": 1}}');

-- triggers
CREATE TABLE orders (id bigint, what text, price numeric, ratio float8, due timestamptz, at timestamp, day date, ok boolean, tags text[], more jsonb);
CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '{
    "task_type_id": 1, "notes": "{what}, {price}, {{what}} {ok}", "erp_id": "O-{id}", "estimatedCost": "{price}", "big": "{id}",
    "ratio": "{ratio}", "deadline": "{due}", "at": "{at}", "day": "{day}", "ok": "{ok}", "tags": "{tags}", "more": {"in": ["{more}", "{what}", 7, null]}}');
BEGIN;
INSERT INTO orders VALUES (9223372036854775807, 'a "b" \ c', 99999999999999999999.1000, 0.1, '2026-12-01 10:00:00.123456+03',
    '2026-12-01 10:00', '2026-12-01', true, '{a,"b c"}', '{"x": null}');
INSERT INTO orders VALUES (-1);
SELECT jsonb_pretty(body) FROM hubex.outbox ORDER BY id DESC LIMIT 2;
ROLLBACK;
INSERT INTO orders (id, due) VALUES (1, 'infinity');
INSERT INTO orders (id, ratio) VALUES (1, 'NaN');
INSERT INTO orders (id, price) VALUES (1, '-Infinity');
INSERT INTO orders (id, day) VALUES (1, 'infinity');
CREATE TABLE bad (id int);
CREATE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '{"task_type_id": 1, "notes": "{text}"}');
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '{"task_type_id": 1, "notes": "{id"}');
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '{"task_type_id": 1,}');
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '[]');
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger();
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('{"taskTypeID": 1}');
BEGIN;
INSERT INTO bad VALUES (1);
SELECT server, body - 'erpID' AS body FROM hubex.outbox ORDER BY id DESC LIMIT 1;
ROLLBACK;
CREATE OR REPLACE TRIGGER t AFTER INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('nowhere', '{}');
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '{}');
INSERT INTO bad VALUES (1);
CREATE OR REPLACE TRIGGER t AFTER UPDATE ON bad FOR EACH ROW EXECUTE FUNCTION hubex_task_trigger('s', '{}');
INSERT INTO bad VALUES (1);
UPDATE bad SET id = 2;
SELECT count(*) FROM bad;
SELECT count(*) FROM hubex.outbox;

\set VERBOSITY default
DROP TABLE orders, bad;
DROP SERVER s CASCADE;
DROP EXTENSION hubex;
