-- What others build on: the objects, their comments, and that nothing is given to PUBLIC.
BEGIN;
SELECT plan(12);

SELECT has_table('hubex', 'outbox', 'the outbox is a table');
SELECT columns_are('hubex', 'outbox', ARRAY['id', 'server', 'owner', 'resource', 'operation', 'method', 'path', 'query',
    'headers', 'body', 'content', 'content_type', 'state', 'attempts', 'next_attempt_at', 'last_status', 'last_error',
    'remote_id', 'remote_number', 'response', 'idempotency_key', 'ordering_key', 'natural_key', 'stamp', 'uncertain', 'bytes',
    'expires_at', 'merged_into', 'write_back', 'unwritten', 'blocked_by', 'tried_since', 'binding', 'claimed_by', 'sending_since', 'created_at',
    'delivered_at', 'ended_at']);
SELECT function_returns('hubex_create_task', 'bigint', 'hubex_create_task() gives the request''s id');
SELECT function_returns('hubex_enqueue', 'bigint', 'hubex_enqueue() gives the request''s id');
SELECT function_returns('hubex_wait', ARRAY['bigint', 'interval'], 'text', 'hubex_wait() gives a state');
SELECT function_returns('hubex_tasks', ARRAY['jsonb', 'name'], 'setof hubex_task', 'hubex_tasks() gives tasks');
SELECT function_returns('hubex_request', 'hubex_response', 'hubex_request() gives an answer');

CREATE TEMP VIEW member AS
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
     WHERE e.extname = 'hubex' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e';

SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN member m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass
    WHERE obj_description(p.oid, 'pg_proc') !~ '^(Public|Private): '$$ , 'every function says whether it is public, and what it does');
SELECT is_empty($$SELECT c.relname FROM pg_class c JOIN member m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass
    WHERE c.relkind IN ('r', 'v', 'S') AND obj_description(c.oid, 'pg_class') IS NULL$$, 'every table, view and sequence has a comment');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN member m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass,
    LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0$$, 'PUBLIC may run no function');
SELECT is_empty($$SELECT c.relname FROM pg_class c JOIN member m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass,
    LATERAL aclexplode(c.relacl) a WHERE a.grantee = 0$$, 'PUBLIC may see no table');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN member m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass
    WHERE p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')$$, 'what runs as its owner has its search_path pinned');

SELECT * FROM finish();
ROLLBACK;
