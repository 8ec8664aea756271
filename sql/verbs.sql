-- What is said of a record that is there, or will be: it is put in as meant, or refused with a reason.
SET client_min_messages = warning;
CREATE EXTENSION hubex;
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1/fsm');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (service_token 'none');
SET TimeZone = 'Asia/Yekaterinburg';

CREATE VIEW put AS
    SELECT operation, resource, method, path, body, remote_id, natural_key, ordering_key
      FROM hubex.outbox ORDER BY id DESC LIMIT 1;

-- every verb
BEGIN;
SELECT hubex_update_task('{"notes": "а", "company_id": 17, "Deadline": null}', 5129) > 0 AS ok;
SELECT * FROM put;
SELECT hubex_delete_task(erp_id => 'A-1') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_move_task(8, 5129, notes => 'поехали', fields => '{"criticalityID": 2}') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_assign_task(31, erp_id => 'A-1', scheduled_start => '2026-12-01 10:00+05', scheduled_finish => '2026-12-01 12:00+05') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_complete_task(5129) > 0 AS ok;
SELECT * FROM put;
SELECT hubex_complete_task(5129, fields => '{"acceptedPerson": "Иванов"}') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_comment_task('Перезвоните', true, 5129) > 0 AS ok;
SELECT * FROM put;
SELECT hubex_attach_file('\x00ff', 'акт "№ 5".pdf', 'application/pdf', 5129, public => true) > 0 AS ok;
SELECT p.*, content, content_type FROM put p, (SELECT content, content_type FROM hubex.outbox ORDER BY id DESC LIMIT 1) c;
SELECT hubex_set_task_attributes('{"8": "красный", "5": 7, "12": null}', 5129) > 0 AS ok;
SELECT * FROM put;
SELECT hubex_set_task_attributes('[{"attributeID": 8, "value": true}, {"attributeID": "9"}]', erp_id => 'A-1') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_update('tasks', '5129', '{"notes": "б"}') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_update('tasks', fields => '{"notes": "б"}', erp_id => 'A-1') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_delete('assets', '77') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_create('companies', '{"name": "ООО «Лифт»", "erp_id": "C-1"}') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_create('assets', '{"Name": "Лифт", "asset_type_id": 3, "erp_id": "E-1"}') > 0 AS ok;
SELECT * FROM put;
ROLLBACK;

-- a record has one order, whichever of its names is used
BEGIN;
SELECT hubex_create_task(1, erp_id => 'A-2', ordering_key => 'mine') > 0 AS ok;
UPDATE hubex.outbox SET state = 'delivered', remote_id = '6000';
SELECT hubex_update_task('{"notes": "a"}', 6000) > 0 AS ok;
SELECT * FROM put;
SELECT hubex_move_task(2, erp_id => 'A-2') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_move_task(3, erp_id => 'A-2', ordering_key => 'other') > 0 AS ok;
SELECT * FROM put;
SELECT hubex_create_task(1, erp_id => 'A-2') > 0 AS ok;
SELECT hubex_comment_task('a', erp_id => 'A-2') > 0 AS ok;
SELECT * FROM put;
ROLLBACK;

-- who is meant?
SELECT hubex_update_task('{"notes": "a"}');
SELECT hubex_update_task('{"notes": "a"}', 5, 'A');
SELECT hubex_update('tasks', '5', '{"notes": "a"}', erp_id => 'A');
SELECT hubex_delete_task(0);
SELECT hubex_delete_task(-5);
SELECT hubex_delete('tasks', 'A-1');
SELECT hubex_delete('tasks', '');
SELECT hubex_delete_task(erp_id => '');
SELECT hubex_delete_task(erp_id => repeat('я', 501));
-- what is meant?
SELECT hubex_update_task(NULL, 5);
SELECT hubex_update_task('{}', 5);
SELECT hubex_update_task('[{"field": "notes", "value": "a"}]', 5);
SELECT hubex_move_task(NULL, 5);
SELECT hubex_move_task(8, 5, fields => '[]');
SELECT hubex_assign_task(NULL, 5);
SELECT hubex_comment_task(NULL, task_id => 5);
SELECT hubex_comment_task('', task_id => 5);
SELECT hubex_attach_file(NULL, 'a.txt', task_id => 5);
SELECT hubex_attach_file('\x00', NULL, task_id => 5);
SELECT hubex_attach_file('\x00', E'a\r\nX-B: b', task_id => 5);
SELECT hubex_attach_file('\x00', 'a', E'text/plain\r\nX-B: b', task_id => 5);
SELECT hubex_attach_file(convert_to(repeat('a', 64 * 1024 * 1024 + 1), 'UTF8'), 'a', task_id => 5);
SELECT hubex_set_task_attributes(NULL, 5);
SELECT hubex_set_task_attributes('{}', 5);
SELECT hubex_set_task_attributes('"8"', 5);
SELECT hubex_set_task_attributes('{"colour": "red"}', 5);
SELECT hubex_set_task_attributes('{"8": {"a": 1}}', 5);
SELECT hubex_set_task_attributes('[{"value": "red"}]', 5);
-- what cannot be done
SELECT hubex_update('assets', '5', '{"name": "a"}');
SELECT hubex_update('taskz', '5', '{"notes": "a"}');
SELECT hubex_delete(NULL, '5');
SELECT hubex.change('tasks', 'dance', '5', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT hubex.change('tasks', 'create', '5', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT hubex.change('tasks', 'update', '5', NULL, '{"notes": "a"}', '\x00', NULL, NULL, NULL, NULL, NULL, NULL);
SELECT hubex.change('tasks', 'delete', '5', NULL, '{"notes": "a"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT hubex_create('companies', '{"erp_id": "a"}');
SELECT hubex_get(NULL, '5');
SELECT hubex_get('tasks', '');
SELECT hubex_get('taskz', '5');
SELECT count(*) FROM hubex.outbox;

-- once by its key, not before its time, not after it
BEGIN;
SELECT hubex_move_task(8, 5, idempotency_key => 'k') = hubex_move_task(9, 6, idempotency_key => 'k') AS same;
SELECT hubex_comment_task('a', task_id => 5, deliver_after => '2200-01-01', expires_at => '2200-01-02') > 0 AS ok;
SELECT hubex_create_task(1, expires_at => '2200-01-02') > 0 AS ok;
SELECT hubex_enqueue('POST', '/WORK/X', expires_at => '2200-01-02') > 0 AS ok;
SELECT operation, next_attempt_at AT TIME ZONE 'UTC' = '2199-12-31 19:00' AS later, expires_at AT TIME ZONE 'UTC' AS expires_at
  FROM hubex.outbox ORDER BY id;
ROLLBACK;

SELECT hubex_create_task(1, deadline => 'infinity');
SELECT hubex_assign_task(5, 5, scheduled_start => '-infinity');

DROP VIEW put;
DROP SERVER s CASCADE;
DROP EXTENSION hubex;
