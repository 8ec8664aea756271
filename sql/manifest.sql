-- A connector is data; a bad manifest is refused with the path of the mistake.
SET client_min_messages = warning;
CREATE EXTENSION hubex;
SET client_min_messages = notice;
\set SHOW_CONTEXT never

SELECT name, builtin, manifest ->> 'title' AS title FROM hubex.connector;

-- the smallest that is valid
CREATE VIEW small AS SELECT '{
    "connector": "small", "version": 1, "title": "A small system", "delivery": "at_least_once",
    "sign_in": {"mechanism": "header", "header": "X-Key", "value": "{key}"},
    "credentials": {"key": {"description": "its key"}},
    "retry": {"base": 1, "factor": 2, "cap": 60, "attempts": 10, "final": [400]},
    "resources": {"notes": {"path": "/notes", "envelope": "array", "columns": [{"name": "id", "type": "bigint", "path": "id"}]}}
}'::jsonb AS m;
INSERT INTO hubex.connector (name, manifest) SELECT 'small', m FROM small;
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'small', url 'https://small.example');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (key 'k');
CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (kee 'k');
DROP SERVER s CASCADE;
DELETE FROM hubex.connector WHERE name = 'small';

-- what is refused
CREATE FUNCTION try(path text[], value jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    INSERT INTO hubex.connector (name, manifest)
        SELECT 'small', CASE WHEN value IS NULL THEN m #- path ELSE jsonb_set(m, path, value) END FROM small;
    RAISE NOTICE 'taken';
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE NOTICE '%: % %', sqlerrm, detail, hint;
END
$$;
SELECT try('{version}', NULL);
SELECT try('{version}', '"1"');
SELECT try('{colour}', '"red"');
SELECT try('{delivery}', '"twice"');
SELECT try('{sign_in,mechanism}', '"guess"');
SELECT try('{sign_in,mechanism}', '"token_exchange"');
SELECT try('{sign_in,value}', NULL);
SELECT try('{sign_in,value}', '"{secret}"');
SELECT try('{headers}', '{"X-App": "{application_id}"}');
SELECT try('{retry,attempts}', NULL);
SELECT try('{retry,final}', '[400, "404"]');
SELECT try('{retry,final}', '{"400": true}');
SELECT try('{limits}', '{"rate": "often"}');
SELECT try('{paging}', '{"mechanism": "cursor", "unit": "x", "first": 0}');
SELECT try('{resources}', '[]');
SELECT try('{resources,notes,path}', NULL);
SELECT try('{resources,notes,columns,0,type}', '"varchar"');
SELECT try('{resources,notes,columns,0,tpe}', '"text"');
SELECT try('{resources,notes,filters}', '{"isOpen": "flag"}');
SELECT try('{credentials,key,optional}', 'true');
SELECT try('{retry,first}', '1');
SELECT try('{retry,jitter}', '2');
SELECT try('{retry,circuit}', '"often"');
SELECT try('{resources,notes,operations}', '{"create": {"method": "POST"}}');
SELECT try('{resources,notes,operations}', '{"create": {"method": "GET", "id": "id"}}');
SELECT try('{resources,notes,operations}', '{"erase": {"method": "DELETE"}}');
SELECT try('{resources,notes,operations}', '{"erase": {"method": "DELETE", "path": "/notes"}}');
SELECT try('{resources,notes,operations}', '{"erase": {"method": "DELETE", "path": "/notes/{id}", "gone": ["404"]}}');
SELECT try('{resources,notes,operations}', '{"erase": {"method": "DELETE", "path": "/notes/{id}", "body": "nothing"}}');
SELECT try('{resources,notes,operations}', '{"erase": {"method": "DELETE", "path": "/notes/{id}", "repeat": "never"}}');
SELECT try('{resources,notes,operations}', '{"change": {"method": "PATCH", "path": "/notes/{id}", "merge": "yes"}}');
SELECT try('{resources,notes,operations}', '{"change": {"method": "PATCH", "path": "/notes/{id}", "batch": {"path": "/notes/all", "most": 10}}}');
SELECT try('{resources,notes,operations}', '{"scan": {"method": "POST", "path": "/notes/{id}/scan", "body": "form"}}');
SELECT try('{resources,notes,operations}', '{"scan": {"method": "POST", "path": "/notes/{id}/scan", "verify": {"equal": {}}}}');
SELECT try('{resources,notes,operations}', '{"call": {"method": "POST", "path": "/notes/{id}"}}');
INSERT INTO hubex.connector (name, manifest) VALUES ('list', '[]');
INSERT INTO hubex.connector (name, manifest) SELECT 'other', m FROM small;

-- the policy of retries: half fixed, half random; Retry-After is the least
SELECT attempts, retry_after, hubex.backoff(m, attempts, retry_after, 0) AS least, hubex.backoff(m, attempts, retry_after, 0.999999) AS most
  FROM small, (VALUES (1, NULL::float8), (2, NULL), (3, NULL), (6, NULL), (7, NULL), (1000000, NULL), (1, 30), (7, 5)) AS v (attempts, retry_after);

-- the composite types and the manifest agree
SELECT a.attname, format_type(a.atttypid, a.atttypmod), c ->> 'type'
  FROM hubex.connector, jsonb_array_elements(manifest #> '{resources,tasks,columns}') WITH ORDINALITY AS e (c, n)
  FULL JOIN pg_attribute a ON a.attname = c ->> 'name' AND a.attnum = n
 WHERE a.attrelid = 'hubex_task'::regclass AND a.atttypid IS DISTINCT FROM (c ->> 'type')::regtype;

DROP FUNCTION try;
DROP VIEW small;
DROP EXTENSION hubex;
