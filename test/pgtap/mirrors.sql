-- What scripts that make mirrors build on: the functions with their arguments, and the tables that tell of subscriptions.
BEGIN;
SELECT plan(6);

SELECT is(pg_get_function_arguments('hubex_subscribe'::regproc),
    $$name text, foreign_table regclass, target text, every interval DEFAULT '00:01:00'::interval, deletes text DEFAULT 'delete'::text, $$
    || $$mode text DEFAULT NULL::text, columns jsonb DEFAULT NULL::jsonb, filter jsonb DEFAULT NULL::jsonb, owners jsonb DEFAULT NULL::jsonb, $$
    || $$on_drift text DEFAULT 'error'::text, full_every interval DEFAULT NULL::interval, full_at time without time zone DEFAULT NULL::time without time zone, $$
    || $$overlap interval DEFAULT '00:05:00'::interval, delete_limit double precision DEFAULT 0.1$$, 'hubex_subscribe(), by position and by name');
SELECT function_returns('hubex_subscribe', ARRAY['text', 'regclass', 'text', 'interval', 'text', 'text', 'jsonb', 'jsonb', 'jsonb', 'text', 'interval',
    'time without time zone', 'interval', 'double precision'], 'void', '... returns nothing');
SELECT function_returns('hubex_unsubscribe', ARRAY['text'], 'void', 'hubex_unsubscribe(name)');
SELECT columns_are('hubex', 'subscription', ARRAY['name', 'owner', 'binding', 'foreign_table', 'target', 'mode', 'every', 'full_every', 'full_at',
    'overlap', 'deletes', 'delete_limit', 'on_drift', 'columns', 'owners', 'filter', 'created_at']);
SELECT col_is_pk('hubex', 'subscription', 'name', 'known by their names');
-- What pg_upgrade refuses are the types of names that are no regclass, regrole or regtype.
SELECT is_empty($$SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'hubex'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND a.atttypid = ANY (ARRAY['regcollation', 'regconfig', 'regdictionary',
        'regnamespace', 'regoper', 'regoperator', 'regproc', 'regprocedure']::regtype[])$$, 'all tables have types that pg_upgrade takes along');

SELECT * FROM finish();
ROLLBACK;
