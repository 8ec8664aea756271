-- What monitoring and a DBA's scripts build on: the views, the functions beside them, and what a dump carries.
BEGIN;
SELECT plan(16);

SELECT columns_are('hubex_stat_server', ARRAY['server', 'connector', 'paused', 'paused_at', 'paused_by', 'pause_reason',
    'circuit', 'circuit_since', 'circuit_until', 'circuit_failures', 'sent', 'delivered', 'failed', 'dead', 'retried',
    'reconciled', 'merged', 'last_error_at', 'p50_time', 'p95_time', 'p99_time', 'rate_limit', 'quota_taken',
    'quota_paused_until', 'throttled', 'throttled_time', 'stats_since']);
SELECT columns_are('hubex_stat_outbox', ARRAY['server', 'waiting', 'due', 'blocked', 'sending', 'held', 'dead',
    'delivered_last_hour', 'oldest_waiting']);
SELECT columns_are('hubex_stat_worker', ARRAY['database', 'kind', 'pid', 'state', 'started_at', 'last_step_at', 'steps',
    'in_flight', 'failures']);
SELECT columns_are('hubex', 'server_state', ARRAY['server', 'paused_at', 'paused_by', 'reason']);
SELECT columns_are('hubex', 'binding', ARRAY['token', 'system', 'database', 'place']);
SELECT function_returns('hubex_take_over', ARRAY[]::text[], 'bigint', 'hubex_take_over() says how many requests it took');
SELECT function_returns('hubex_pause', ARRAY['name', 'text'], 'void', 'hubex_pause(server, reason)');
SELECT function_returns('hubex_resume', ARRAY['name'], 'void', 'hubex_resume(server)');
SELECT function_returns('hubex_stat_reset', ARRAY[]::text[], 'void', 'hubex_stat_reset()');
SELECT function_returns('hubex_grant', ARRAY['name', 'text'], 'void', 'hubex_grant(role, level)');

SELECT is((SELECT count(*)::int FROM hubex.binding), 1, 'a database is bound once');
SELECT is(hubex.held(), NULL, '... to where the extension was made');
SELECT is((SELECT h FROM hubex.here() h), (SELECT (b.system, b.database, b.place)::record FROM hubex.binding b) , '... which is here');
SELECT set_eq($$SELECT unnest(extconfig)::regclass::text FROM pg_extension WHERE extname = 'hubex'$$,
    ARRAY['hubex.connector', 'hubex.outbox', 'hubex.outbox_id_seq', 'hubex.server_state', 'hubex.subscription', 'hubex.subscription_state',
        'hubex.sweep_page', 'hubex.tombstone', 'hubex.local_change', 'hubex.conflict', 'hubex.conflict_id_seq'], 'a dump has what is the user''s, and no binding');
SELECT set_eq($$SELECT name || ' ' || setting || COALESCE(unit, '') || ' ' || context FROM pg_settings WHERE name IN ('hubex.deliver', 'hubex.retention')$$,
    ARRAY['hubex.deliver on sighup', 'hubex.retention 43200min sighup'], 'the settings and their defaults');
SELECT is_empty($$SELECT DISTINCT p.oid::regprocedure FROM pg_proc p, pg_depend d, pg_extension e
    WHERE e.extname = 'hubex' AND d.refobjid = e.oid AND d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
      AND obj_description(p.oid, 'pg_proc') LIKE 'Public%' AND p.pronamespace = 'hubex'::regnamespace$$, 'what is public is not in the schema hubex');

SELECT * FROM finish();
ROLLBACK;
