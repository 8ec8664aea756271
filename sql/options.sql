-- Options are checked when they are written, and a mistake is answered with what is known there.
SET client_min_messages = warning;
CREATE EXTENSION hubex;
SET client_min_messages = notice;
\set VERBOSITY default
\set SHOW_CONTEXT never

-- servers
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw;
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubx', url 'https://api.hubex.ru/fsm');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm', colour 'red');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'not a url');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'ftp://api.hubex.ru/fsm');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://user:secret@api.hubex.ru/fsm');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm?a=1');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://api.hubex.ru/fsm');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm', rate_limit 'fast');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm', max_connections '0');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm', timeout 'soon');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm', allow_http 'maybe');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm', application_id 'three');
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://api.hubex.ru/fsm', allow_http 'true');
ALTER SERVER s OPTIONS (DROP allow_http);
DROP SERVER s;
CREATE SERVER s FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1/fsm', application_id '5',
    rate_limit '2/s burst 50', max_connections '4', connect_timeout '500ms', timeout '2min', page_size '100');
ALTER SERVER s OPTIONS (SET rate_limit 'none', ADD proxy 'http://proxy.example:3128');
ALTER SERVER s OPTIONS (SET proxy 'http://user:secret@proxy.example:3128');
ALTER SERVER s OPTIONS (DROP proxy);

-- the retry policy, and numbers that are none
ALTER SERVER s OPTIONS (SET max_connections '1.5');
ALTER SERVER s OPTIONS (SET max_connections '0x4');
ALTER SERVER s OPTIONS (SET max_connections '99999999999');
ALTER SERVER s OPTIONS (ADD retry_attempts '0');
ALTER SERVER s OPTIONS (ADD retry_attempts '1.5');
ALTER SERVER s OPTIONS (ADD retry_base '0');
ALTER SERVER s OPTIONS (ADD retry_base '-1s');
ALTER SERVER s OPTIONS (ADD retry_base 'soon');
ALTER SERVER s OPTIONS (ADD retry_factor '0.5');
ALTER SERVER s OPTIONS (ADD retry_factor 'NaN');
ALTER SERVER s OPTIONS (ADD retry_factor '1e6');
ALTER SERVER s OPTIONS (ADD retry_cap '');
ALTER SERVER s OPTIONS (ADD retry_cap '2 lightyears');
ALTER SERVER s OPTIONS (ADD retry_jitter '1.1');
ALTER SERVER s OPTIONS (ADD retry_jitter '-0.1');
ALTER SERVER s OPTIONS (ADD retry_jitter 'Infinity');
ALTER SERVER s OPTIONS (ADD retry_total '0');
ALTER SERVER s OPTIONS (ADD retry_total '400d');
ALTER SERVER s OPTIONS (ADD retry_first '1');
ALTER SERVER s OPTIONS (ADD retry_attempts '5', ADD retry_base '500ms', ADD retry_factor '1.5', ADD retry_cap '1h', ADD retry_jitter '0', ADD retry_total '7d');
ALTER SERVER s OPTIONS (DROP retry_attempts, DROP retry_base, DROP retry_factor, DROP retry_cap, DROP retry_jitter, DROP retry_total);

-- user mappings: the value of a credential is in no message
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (password 'canary');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (service_token '');
CREATE ROLE regress_hubex_clerk;
GRANT USAGE ON FOREIGN SERVER s TO regress_hubex_clerk;
SET ROLE regress_hubex_clerk;
CREATE USER MAPPING FOR regress_hubex_clerk SERVER s OPTIONS (service_token_file '/etc/passwd');
RESET ROLE;

-- tables and columns
CREATE FOREIGN TABLE t (id bigint) SERVER s OPTIONS (table_name 'tasks');
CREATE FOREIGN TABLE t (id bigint) SERVER s OPTIONS (resource 'tasks', filter '[1]');
CREATE FOREIGN TABLE t (id bigint) SERVER s OPTIONS (resource 'tasks', include_deleted 'perhaps');
CREATE FOREIGN TABLE t (id bigint) SERVER s OPTIONS (resource 'tasks', on_error 'ignore');
CREATE FOREIGN TABLE t (id bigint) SERVER s OPTIONS (resource 'tasks', page_size '0');
CREATE FOREIGN TABLE t (id bigint OPTIONS (colour 'red')) SERVER s OPTIONS (resource 'tasks');
CREATE FOREIGN TABLE t (id bigint OPTIONS (filter '')) SERVER s OPTIONS (resource 'tasks');
CREATE FOREIGN TABLE t (id bigint OPTIONS (path 'id', filter 'taskID')) SERVER s OPTIONS (resource 'tasks');
CREATE FOREIGN TABLE t (id bigint, district bigint OPTIONS (filter 'districtID'))
    SERVER s OPTIONS (resource 'tasks', include_deleted 'on', on_error 'null', page_size '500');
DROP FOREIGN TABLE t;
CREATE FOREIGN TABLE t (id bigint) SERVER s;
SELECT * FROM t;
DROP FOREIGN TABLE t;

-- credentials are missing
SELECT hubex_request('GET', '/WORK/Tasks');
SELECT hubex_create_task(1, 'x');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (service_token 'canary');

-- the connector's resources and columns
CREATE FOREIGN TABLE t (id bigint, colour text) SERVER s OPTIONS (resource 'tasks');
SELECT * FROM t;
ALTER FOREIGN TABLE t OPTIONS (SET resource 'taskz');
SELECT * FROM t;
DROP FOREIGN TABLE t;

-- which server?
SELECT hubex_request('GET', '/WORK/Tasks', server => 'nowhere');
CREATE SERVER s2 FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'https://api.hubex.ru/fsm');
SELECT hubex_request('GET', '/WORK/Tasks');
SET hubex.default_server = 's3';
SELECT hubex_request('GET', '/WORK/Tasks');
SET hubex.default_server = 's';
SELECT hubex.only_server(NULL);
SET hubex.colour = 'red';
RESET hubex.default_server;
DROP SERVER s2;

-- hubex_connect: what it refuses, it refuses as a whole
SELECT hubex_connect('s4', 'hubx', 'https://api.hubex.ru/fsm', '{"service_token": "canary"}');
SELECT hubex_connect('s4', 'hubex', 'nonsense', '{"service_token": "canary"}');
SELECT hubex_connect('s4', 'hubex', 'https://api.hubex.ru/fsm', '{"token": "canary"}');
SELECT hubex_connect('s4', 'hubex', 'https://api.hubex.ru/fsm', '["canary"]');
SELECT hubex_connect(NULL, 'hubex', 'https://api.hubex.ru/fsm');
SELECT srvname FROM pg_foreign_server;

-- IMPORT FOREIGN SCHEMA, and no request is needed to plan
CREATE SCHEMA fsm;
IMPORT FOREIGN SCHEMA "QQ" FROM SERVER s INTO fsm;
IMPORT FOREIGN SCHEMA "WORK" FROM SERVER s INTO fsm OPTIONS (colour 'red');
IMPORT FOREIGN SCHEMA "WORK" FROM SERVER s INTO fsm OPTIONS (raw 'perhaps');
IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks, no_such_table) FROM SERVER s INTO fsm;
IMPORT FOREIGN SCHEMA "WORK" LIMIT TO (tasks) FROM SERVER s INTO fsm;
IMPORT FOREIGN SCHEMA "work" LIMIT TO (tasks_tags) FROM SERVER s INTO fsm OPTIONS (raw 'false', include_deleted 'true');
SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = 'fsm.tasks_tags'::regclass AND attnum > 0 ORDER BY attnum;
SELECT obj_description('fsm.tasks_tags'::regclass), ftoptions FROM pg_foreign_table WHERE ftrelid = 'fsm.tasks_tags'::regclass;
SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 'fsm.tasks'::regclass AND attnum > 0 ORDER BY attnum LIMIT 6;
EXPLAIN (COSTS OFF) SELECT id FROM fsm.tasks WHERE erp_id = 'x';

-- grants
SELECT hubex_grant('regress_hubex_clerk', 'owner');
SELECT hubex_grant('regress_hubex_clerk', NULL);

\set VERBOSITY default
DROP SCHEMA fsm CASCADE;
DROP SERVER s CASCADE;
DROP ROLE regress_hubex_clerk;
DROP EXTENSION hubex;
