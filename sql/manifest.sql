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
SELECT try('{resources,notes,columns,0,type}', '""');
SELECT try('{resources,notes,columns,0,type}', '" big"');
SELECT try('{resources,notes,columns,0,filter}', '"id"');
SELECT try('{resources,notes,columns,0,path}', '"@row"');
SELECT try('{resources,notes,columns,0,name}', '""');
SELECT try('{resources,notes,columns,1}', '{"name": "id", "type": "text", "path": "@key"}');
SELECT try('{resources,notes,columns,1}', '{"name": "is_open", "type": "boolean", "path": "closed", "present": 1}');
SELECT try('{resources,notes,columns,1}', '{"name": "open", "type": "text", "path": "closed", "present": true}');
SELECT try('{resources,notes,columns,1}', '{"name": "search", "type": "text", "path": "@filter"}');
SELECT try('{resources,notes,columns,1}', '{"name": "user_id", "type": "text", "path": "@parent"}');
SELECT try('{resources,notes,columns,0,filter}', '{}');
SELECT try('{resources,notes,columns,0,filter}', '{"equal": "noteID"}');
SELECT try('{resources,notes,columns,0,filter}', '{"equal": "note.id"}');
CREATE OR REPLACE VIEW small AS SELECT '{
    "connector": "small", "version": 1, "title": "A small system", "delivery": "at_least_once",
    "sign_in": {"mechanism": "none"}, "retry": {"base": 1, "factor": 2, "cap": 60, "attempts": 10, "final": [400]},
    "resources": {
        "notes": {
            "schema": "a", "path": "/users/{user_id}/notes", "envelope": "array", "paged": false, "rows": 10, "count": true,
            "count_ignores": ["since"], "one": {"path": "/notes/{id}", "lacks": ["search"]}, "parent": "user_id", "comment": "notes",
            "columns": [{"name": "id", "type": "bigint", "path": "id", "filter": {"equal": "noteID", "several": true, "exact": true}},
                {"name": "user_id", "type": "bigint", "path": "@parent", "comment": "who wrote it"},
                {"name": "made", "type": "timestamptz", "path": "made", "filter": {"from": "since", "till": "until", "present": "isMade"}},
                {"name": "search", "type": "text", "path": "@filter", "filter": {"equal": "search", "exact": true}},
                {"name": "all", "type": "jsonb", "path": "@record"}],
            "filters": {"noteID": "integer", "since": "timestamp", "until": "timestamp", "isMade": "boolean", "search": "text", "cost": "number"},
            "filter_defaults": {"isMade": "true"}, "filter_aliases": {"note": "noteID"},
            "modified": "made", "order_by": {"made": {"ascending": {"sort": "made"}, "descending": {"sort": "-made"}, "stable": true}}
        },
        "others": {"schema": "b", "table": "notes", "path": "/notes", "envelope": "array", "columns": [{"name": "value", "type": "text", "path": "@value"}]}
    }
}'::jsonb AS m;
SELECT try('{probe}', '"notes"');
DELETE FROM hubex.connector WHERE name = 'small';
SELECT try('{probe}', '"note"');
SELECT try('{resources,others,schema}', '"a"');
SELECT try('{resources,others,table}', '""');
SELECT try('{resources,a.b}', '{"path": "/", "envelope": "array", "columns": []}');
SELECT try('{resources,notes,parent}', NULL);
SELECT try('{resources,notes,parent}', '"id"');
SELECT try('{resources,notes,parent}', '"writer"');
SELECT try('{resources,notes,path}', '"/notes"');
SELECT try('{resources,notes,path}', '"/users/{user_id}/notes/{id}"');
SELECT try('{resources,notes,columns,1,path}', '"user.id"');
SELECT try('{resources,notes,columns,2,filter,present}', '"search"');
SELECT try('{resources,notes,columns,2,filter,several}', 'true');
SELECT try('{resources,notes,columns,3,filter}', '{"from": "since"}');
SELECT try('{resources,notes,columns,4,filter}', '{"equal": "search"}');
SELECT try('{resources,notes,count_ignores}', '["since", "before"]');
SELECT try('{resources,notes,one,path}', '"/notes"');
SELECT try('{resources,notes,one,lacks}', '["cost"]');
SELECT try('{resources,notes,columns,0,name}', '"note_id"');
SELECT try('{resources,notes,filter_defaults}', '{"isDeleted": "false"}');
SELECT try('{resources,notes,filter_aliases}', '{"id": "ID"}');
SELECT try('{resources,notes,order_by}', '{"title": {"ascending": {"sort": "title"}}}');
SELECT try('{resources,notes,order_by}', '{"made": {"stable": true}}');
SELECT try('{resources,notes,modified}', '"changed"');
SELECT try('{resources,notes,modified}', '"search"');
SELECT try('{resources,notes,modified}', '["made"]');
SELECT try('{resources,notes,columns,2,filter}', '{"till": "until"}');
SELECT try('{resources,others,operations}', '{"create": {"method": "POST"}}');
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
  FROM pg_attribute a
  LEFT JOIN (hubex.connector CROSS JOIN LATERAL jsonb_array_elements(manifest #> '{resources,tasks,columns}') c) ON a.attname = c ->> 'name'
 WHERE a.attrelid = 'hubex_task'::regclass AND a.attnum > 0 AND a.atttypid IS DISTINCT FROM (c ->> 'type')::regtype;

-- every statement sees the manifest as it is, whoever changed it and however that ends
INSERT INTO hubex.connector (name, manifest) SELECT 'small', m FROM small;
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'small', url 'https://small.example');
IMPORT FOREIGN SCHEMA b FROM SERVER s INTO public;
CREATE FUNCTION request() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXPLAIN (COSTS OFF) SELECT * FROM notes LOOP
        IF line ~ 'GET' THEN
            RETURN substring(line FROM 'GET \S*');
        END IF;
    END LOOP;
END
$$;
CREATE FUNCTION move(path text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hubex.connector SET manifest = jsonb_set(manifest, '{resources,others,path}', to_jsonb(path)) WHERE name = 'small';
    RETURN request();
END
$$;
SELECT request();
SELECT move('/1');
BEGIN;
SELECT move('/2');
SAVEPOINT a;
SELECT move('/3'), move('/4');
ROLLBACK TO a;
SELECT request();
ROLLBACK;
SELECT request();
BEGIN;
CREATE TEMP TABLE kept AS SELECT * FROM hubex.connector;
TRUNCATE hubex.connector;
INSERT INTO hubex.connector SELECT * FROM kept;
SELECT request();
TRUNCATE hubex.connector;
INSERT INTO hubex.connector SELECT name, replace(manifest::text, '"/1"', '"/5"')::jsonb, builtin FROM kept;
SELECT request();
DELETE FROM hubex.connector WHERE name = 'small';
SELECT request();
ROLLBACK;
SELECT request();
VACUUM FULL hubex.connector;
SELECT request();
SELECT move('/6');
DROP SERVER s CASCADE;
DELETE FROM hubex.connector WHERE name = 'small';

DROP FUNCTION move, request, try;
DROP VIEW small;
DROP EXTENSION hubex;
