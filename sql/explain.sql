-- What is pushed down, as EXPLAIN shows it: every shape of query. Nothing is asked for, so no remote side is needed.
SET client_min_messages = warning;
CREATE EXTENSION hubex;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
\set x 'EXPLAIN (COSTS OFF)'
\set VERBOSITY terse

-- For plans whose names of parameters differ between versions of PostgreSQL.
CREATE FUNCTION shape(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        RETURN NEXT regexp_replace(regexp_replace(line, ' \(returns .*\)', ''), '\(InitPlan 1\)\.col1', '$0');
    END LOOP;
END $$;
CREATE FUNCTION part(query text, VARIADIC names text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (COSTS OFF, FORMAT JSON) ' || query INTO plan;
    RETURN QUERY SELECT n || ': ' || (plan -> 0 -> 'Plan' ->> n) FROM unnest(names) n;
END $$;

CREATE SERVER north FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:9/');
CREATE SERVER south FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:9/', rate_limit '30/min');
CREATE USER MAPPING FOR PUBLIC SERVER north OPTIONS (service_token 'none');
CREATE USER MAPPING FOR PUBLIC SERVER south OPTIONS (service_token 'none');
IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, tasks_conversations) FROM SERVER north INTO public;
IMPORT FOREIGN SCHEMA "ES" LIMIT TO (assets, companies) FROM SERVER north INTO public;
CREATE TABLE orders (no int PRIMARY KEY, task_id bigint, task4 int, erp_id text, company_id int, made timestamptz);
INSERT INTO orders SELECT n, n * 3, n * 3, 'ERP-' || n, n % 7, timestamptz '2026-01-01' + n * interval '1 hour' FROM generate_series(1, 4000) n;
CREATE INDEX ON orders (made);
ANALYZE orders;

-- no condition, and only what is needed
:x SELECT * FROM tasks;
:x SELECT number FROM tasks;

-- equality
:x SELECT id FROM tasks WHERE id = 5;
:x SELECT id FROM tasks WHERE 5 = id;
:x SELECT id FROM tasks WHERE task_type_id = 3 AND company_id = 7;
:x SELECT id FROM tasks WHERE erp_id = 'ERP 17 & "x"';
:x SELECT id FROM tasks WHERE assigned_to_id = 21;
:x SELECT id FROM tasks WHERE id = 5::smallint;
SELECT shape($$SELECT id FROM tasks WHERE company_id = (SELECT max(company_id) FROM orders)$$);
:x SELECT id FROM tasks WHERE task_type_id = 3 AND task_type_id = 3;

-- any of several
:x SELECT id FROM tasks WHERE id IN (5, 6, 7);
:x SELECT id FROM tasks WHERE id = ANY ('{5,6,7,8,9,10}');
SELECT shape($$SELECT id FROM tasks WHERE id = ANY (ARRAY(SELECT task_id FROM orders))$$);
:x SELECT id FROM tasks WHERE id IN (5, 6) AND company_id IN (1, 2);
:x SELECT id FROM tasks WHERE id IN (5, 6) AND id IN (6, 7);
:x SELECT id FROM tasks WHERE assigned_to_id IN (21, 22);
:x SELECT id FROM tasks WHERE erp_id IN ('a', 'b');
:x SELECT id FROM tasks WHERE id <> ALL ('{5,6}');

-- ranges: a second wider, and checked
:x SELECT id FROM tasks WHERE created >= '2026-01-01';
:x SELECT id FROM tasks WHERE created BETWEEN '2026-01-01' AND '2026-02-01';
:x SELECT id FROM tasks WHERE '2026-01-01' < closed AND closed < '2026-02-01'::date;
:x SELECT id FROM tasks WHERE deadline < now() - interval '1 day';
:x SELECT id FROM tasks WHERE created = '2026-01-01';
:x SELECT id FROM tasks WHERE id > 5;

-- is there a value?
:x SELECT id FROM tasks WHERE closed IS NULL;
:x SELECT id FROM tasks WHERE completed IS NOT NULL AND closed IS NULL;
:x SELECT id FROM tasks WHERE assigned_to_id IS NULL;

-- booleans
:x SELECT id FROM tasks WHERE is_closed;
:x SELECT id FROM tasks WHERE NOT is_closed AND is_assigned IS TRUE;
:x SELECT id FROM tasks WHERE is_closed = false;
:x SELECT id FROM tasks WHERE is_closed IS NOT TRUE;
:x SELECT id FROM tasks WHERE NOT is_rated;
:x SELECT id FROM tasks WHERE is_closed IS FALSE AND closed IS NULL;

-- search
:x SELECT id FROM tasks WHERE search_text = 'compressor';
:x SELECT id, search_text FROM tasks WHERE search_text = 'compressor' AND task_type_id = 2 LIMIT 5;

-- one record by its path
:x SELECT id, name FROM assets WHERE id = 5;
:x SELECT id, name FROM assets WHERE id IN (5, 6);
:x SELECT id, name FROM assets WHERE id = 5 AND company_id = 7;
:x SELECT id, name FROM assets WHERE id = 5 AND search_text = 'x';

-- lists of one parent
:x SELECT id, message FROM tasks_conversations WHERE task_id = 5;
:x SELECT id, message FROM tasks_conversations WHERE task_id IN (5, 6) AND is_external;
:x SELECT id, message FROM tasks_conversations;
:x SELECT count(*) FROM tasks_conversations WHERE task_id = 5;
:x SELECT id, message FROM tasks_conversations WHERE task_id = 5 LIMIT 3;

-- order
:x SELECT id FROM tasks ORDER BY created;
:x SELECT id FROM tasks ORDER BY created DESC;
:x SELECT id FROM tasks WHERE erp_id = 'a' ORDER BY created DESC;
:x SELECT id FROM tasks ORDER BY created, id;
:x SELECT id FROM tasks ORDER BY created DESC NULLS LAST;
:x SELECT id FROM tasks ORDER BY number;
:x SELECT id FROM tasks WHERE id = ANY ('{1,2}') ORDER BY created;
:x SELECT id FROM tasks ORDER BY last_modified;
:x SELECT id FROM tasks ORDER BY last_modified DESC LIMIT 20;
:x SELECT id FROM tasks ORDER BY last_modified LIMIT 200000;
SELECT shape($$SELECT max(created) FROM tasks$$);

-- limit and offset
:x SELECT id FROM tasks LIMIT 20;
:x SELECT id FROM tasks OFFSET 40 LIMIT 20;
:x SELECT id FROM tasks OFFSET 40;
:x SELECT id FROM tasks LIMIT 10 + 10;
:x SELECT id FROM tasks LIMIT NULL;
:x SELECT id, number FROM tasks WHERE task_type_id = 3 AND NOT is_closed ORDER BY created DESC LIMIT 20;
:x SELECT id + 1, upper(number) FROM tasks ORDER BY created LIMIT 20;
:x SELECT id FROM tasks WHERE erp_id = 'a' LIMIT 20;
:x SELECT id FROM tasks ORDER BY created, id LIMIT 20;
:x SELECT id FROM tasks ORDER BY created FETCH FIRST 5 ROWS WITH TIES;
:x SELECT DISTINCT task_type_id FROM tasks LIMIT 5;
:x SELECT id FROM assets LIMIT 5;
SELECT shape($$SELECT EXISTS (SELECT FROM tasks WHERE task_type_id = 3)$$);

-- counts
:x SELECT count(*) FROM tasks;
:x SELECT count(*), count(id) + 1 FROM tasks WHERE task_type_id = 3 AND NOT is_closed;
:x SELECT count(*) FROM tasks WHERE erp_id = 'a';
:x SELECT count(number) FROM tasks;
SELECT part('SELECT count(DISTINCT id) FROM tasks', 'Node Type');
:x SELECT count(*) FILTER (WHERE is_closed) FROM tasks;
:x SELECT count(*) FROM tasks WHERE last_modified > '2026-01-01';
:x SELECT count(*) FROM tasks HAVING count(*) > 5;
:x SELECT task_type_id, count(*) FROM tasks GROUP BY task_type_id;
:x SELECT count(*) FROM assets;

-- deleted records
:x SELECT id FROM tasks WHERE deleted IS NULL;
:x SELECT count(*) FROM tasks WHERE NOT is_deleted;
ALTER FOREIGN TABLE tasks OPTIONS (ADD include_deleted 'true');
:x SELECT id FROM tasks;
:x SELECT id FROM tasks WHERE is_deleted;
ALTER FOREIGN TABLE tasks OPTIONS (DROP include_deleted);
ALTER FOREIGN TABLE assets OPTIONS (ADD include_deleted 'true');
:x SELECT count(*) FROM assets;
:x SELECT id FROM assets LIMIT 5;
ALTER FOREIGN TABLE assets OPTIONS (DROP include_deleted);

-- a table's own filter
CREATE FOREIGN TABLE open_tasks (id bigint, number text, task_type_id bigint, district_id bigint OPTIONS (filter 'districtID'))
    SERVER north OPTIONS (resource 'tasks', filter '{"isClosed": false, "task_type_id": [1, 2]}');
:x SELECT * FROM open_tasks;
:x SELECT * FROM open_tasks WHERE task_type_id = 1;
:x SELECT * FROM open_tasks WHERE district_id = 4;
:x SELECT count(*) FROM open_tasks;
:x SELECT count(*) FROM open_tasks WHERE district_id = 4;

-- what stays here: volatile, cast, other collation, OR, functions
:x SELECT id FROM tasks WHERE id = (random() * 10)::bigint;
:x SELECT id FROM tasks WHERE id::text = '5';
:x SELECT id FROM tasks WHERE id = 5.0;
:x SELECT id FROM tasks WHERE erp_id = 'a' COLLATE "C";
:x SELECT id FROM tasks WHERE id = 5 OR task_type_id = 3;
:x SELECT id FROM tasks WHERE erp_id LIKE 'ERP-%';
:x SELECT id FROM tasks WHERE lower(erp_id) = 'a';
:x SELECT id FROM tasks WHERE id = id;
:x SELECT id FROM tasks WHERE id IS DISTINCT FROM 5;
:x SELECT id FROM tasks WHERE number < 'a';

-- contradictions
:x SELECT id FROM tasks WHERE false;
:x SELECT id FROM tasks WHERE id = NULL;
SELECT part('SELECT id FROM tasks WHERE task_type_id = 3 AND task_type_id = 4', 'One-Time Filter');
:x SELECT id FROM tasks WHERE is_closed AND NOT is_closed;
:x SELECT id FROM tasks WHERE id = ANY ('{}');

-- joins: by the list, by many keys, row by row
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id WHERE o.no < 300;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task4 WHERE o.no < 300;
:x SELECT o.no, t.number FROM orders o LEFT JOIN tasks t ON t.id = o.task_id AND t.task_type_id = 3 AND o.no > 7 WHERE o.no < 300;
:x SELECT o.no, t.number FROM orders o LEFT JOIN tasks t ON t.id = o.task_id WHERE o.no < 300 AND t.number IS NULL;
:x SELECT o.no FROM orders o WHERE o.no < 300 AND EXISTS (SELECT FROM tasks t WHERE t.id = o.task_id AND NOT t.is_closed);
:x SELECT o.no FROM orders o WHERE o.no < 300 AND NOT EXISTS (SELECT FROM tasks t WHERE t.id = o.task_id AND NOT t.is_closed);
:x SELECT number FROM tasks WHERE id IN (SELECT task_id FROM orders WHERE no < 300);
:x SELECT o.no FROM orders o LEFT JOIN tasks t ON t.id = o.task_id;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.erp_id = o.erp_id WHERE o.no < 8;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.erp_id = o.erp_id;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.erp_id = o.erp_id WHERE t.task_type_id = 3 AND NOT t.is_closed ORDER BY t.created DESC LIMIT 20;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id ORDER BY o.made LIMIT 20;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id ORDER BY o.erp_id LIMIT 20;
:x SELECT o.no, c.message FROM orders o JOIN tasks_conversations c ON c.task_id = o.task_id WHERE o.no < 8;
:x SELECT t.number, c.message FROM tasks t JOIN tasks_conversations c ON c.task_id = t.id WHERE t.id IN (5, 6);
:x SELECT o.no, c.name FROM orders o JOIN companies c ON c.id = o.company_id;
:x SELECT o.no, t.number, c.name FROM orders o JOIN tasks t ON t.id = o.task_id LEFT JOIN companies c ON c.id = t.company_id WHERE o.no < 8;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id OR t.id = o.no WHERE o.no < 8;
:x SELECT o.no, t.number FROM orders o FULL JOIN tasks t ON t.id = o.task_id;
:x SELECT o.no, (SELECT number FROM tasks t WHERE t.id = o.task_id) FROM orders o WHERE o.no < 8;
:x SELECT o.no, t.id FROM orders o CROSS JOIN LATERAL (SELECT id FROM tasks t WHERE t.company_id = o.company_id ORDER BY created DESC LIMIT 1) t WHERE o.no < 8;
:x SELECT t.id FROM (VALUES ('a'), ('b')) v (word) JOIN tasks t ON t.search_text = v.word;
:x UPDATE orders o SET erp_id = t.erp_id FROM tasks t WHERE t.id = o.task_id AND o.no < 300;

-- prepared statements
SET plan_cache_mode = force_generic_plan;
PREPARE by_id(bigint) AS SELECT number FROM tasks WHERE id = $1;
:x EXECUTE by_id(5);
PREPARE by_ids(bigint[], int) AS SELECT number FROM tasks WHERE id = ANY ($1) AND company_id = $2;
:x EXECUTE by_ids('{5,6}', 7);
PREPARE page(int, int, timestamptz) AS SELECT number FROM tasks WHERE created > $3 ORDER BY created OFFSET $1 LIMIT $2;
:x EXECUTE page(40, 20, '2026-01-01');
PREPARE exact_page(int, int, int) AS SELECT number FROM tasks WHERE task_type_id = $3 ORDER BY created OFFSET $1 LIMIT $2;
:x EXECUTE exact_page(40, 20, 3);
PREPARE joined(int) AS SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id AND t.task_type_id = $1 WHERE o.no BETWEEN 1 AND 5;
:x EXECUTE joined(3);
PREPARE comments(bigint) AS SELECT message FROM tasks_conversations WHERE task_id = $1;
:x EXECUTE comments(5);
PREPARE counted(bigint, boolean) AS SELECT count(*) FROM tasks WHERE company_id = $1 AND is_closed = $2;
:x EXECUTE counted(5, true);
RESET plan_cache_mode;

-- pushdown switched off
SET hubex.pushdown = off;
:x SELECT id FROM tasks WHERE id = 5 AND NOT is_closed ORDER BY created LIMIT 5;
:x SELECT count(*) FROM tasks;
:x SELECT id, name FROM assets WHERE id = 5;
:x SELECT id, message FROM tasks_conversations WHERE task_id = 5 AND is_external;
:x SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id WHERE o.no < 300;
:x SELECT o.no, c.message FROM orders o JOIN tasks_conversations c ON c.task_id = o.task_id WHERE o.no < 8;
:x SELECT id FROM tasks WHERE search_text = 'compressor';
RESET hubex.pushdown;

-- several servers as partitions
CREATE TABLE every_task (tenant text, id bigint, number text, task_type_id bigint, created timestamptz) PARTITION BY LIST (tenant);
CREATE FOREIGN TABLE north_tasks (tenant text OPTIONS (constant 'north'), id bigint, number text, task_type_id bigint, created timestamptz)
    SERVER north OPTIONS (resource 'tasks');
CREATE FOREIGN TABLE south_tasks (tenant text OPTIONS (constant 'south'), id bigint, number text, task_type_id bigint, created timestamptz)
    SERVER south OPTIONS (resource 'tasks');
ALTER TABLE every_task ATTACH PARTITION north_tasks FOR VALUES IN ('north');
ALTER TABLE every_task ATTACH PARTITION south_tasks FOR VALUES IN ('south');
:x SELECT tenant, number FROM every_task WHERE task_type_id = 3;
:x SELECT tenant, number FROM every_task WHERE tenant = 'south' AND task_type_id = 3;
:x SELECT tenant, number FROM every_task ORDER BY created DESC LIMIT 20;
:x SELECT count(*) FROM every_task;
:x SELECT o.no, t.number FROM orders o JOIN every_task t ON t.id = o.task_id WHERE o.no < 300;

-- changes
:x INSERT INTO tasks (task_type_id, notes) VALUES (1, 'x');
:x UPDATE tasks SET notes = 'x' WHERE id = 5;
:x DELETE FROM tasks WHERE id IN (SELECT task_id FROM orders WHERE no < 300);

-- the parts of EXPLAIN that are not text
SELECT part($$SELECT o.no, t.number FROM orders o LEFT JOIN tasks t ON t.id = o.task_id AND t.notes <> o.erp_id WHERE o.no < 300$$,
    'Node Type', 'Custom Plan Provider', 'Join Type', 'Join Cond', 'Join Filter', 'Batch');
SELECT part($$SELECT id FROM tasks OFFSET 20 LIMIT 10$$, 'Node Type', 'Relations', 'Remote Request', 'Remote Offset', 'Remote Limit', 'Quota');
EXPLAIN (COSTS OFF, VERBOSE) SELECT o.no, t.number FROM orders o JOIN tasks t ON t.id = o.task_id WHERE o.no < 300;
DROP EXTENSION hubex CASCADE;
