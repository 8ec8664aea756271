-- The state machine of a request, as far as SQL reaches it: every event that a caller can bring about, from every state.
-- Nobody delivers here, so that a request stays as it is put.
BEGIN;
SELECT plan(62);

CREATE SERVER control FOREIGN DATA WRAPPER hubex_fdw OPTIONS (connector 'hubex', url 'http://127.0.0.1:1/fsm');
CREATE USER MAPPING FOR PUBLIC SERVER control OPTIONS (service_token 'none');

-- a request in a state, as the worker would have left it
CREATE FUNCTION pg_temp.request(state text, key text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO hubex.outbox (server, owner, operation, method, path, ordering_key, state, attempts, last_status, last_error,
        next_attempt_at, ended_at, claimed_by, sending_since, delivered_at, expires_at)
    VALUES ('control', current_user, 'call', 'PUT', '/' || state, key, state, 7, 500, 'as it was', now() + interval '1 hour',
        CASE WHEN state IN ('delivered', 'dead', 'cancelled') THEN now() - interval '1 day' END,
        CASE state WHEN 'sending' THEN 1 END, CASE state WHEN 'sending' THEN now() END,
        CASE state WHEN 'delivered' THEN now() END, now() + interval '1 day')
    RETURNING id
$$;
CREATE FUNCTION pg_temp.state(id bigint) RETURNS text LANGUAGE sql AS 'SELECT state FROM hubex.outbox WHERE id = $1';
CREATE TEMP TABLE request AS
    SELECT s AS state, f AS function, pg_temp.request(s) AS id
      FROM unnest('{waiting,sending,delivered,dead,cancelled}'::text[]) s, unnest('{hubex_cancel,hubex_retry}'::text[]) f;
CREATE FUNCTION pg_temp.id(state text, function text) RETURNS bigint LANGUAGE sql AS
    'SELECT id FROM request r WHERE r.state = $1 AND r.function = $2';

-- enqueued
CREATE TEMP TABLE fresh AS SELECT hubex_enqueue('PUT', '/x', '{}', server => 'control') AS id;
SELECT unnest(ARRAY[is(o.state, 'waiting', 'what is enqueued waits'), is(o.attempts, 0, '... without an attempt'), is(o.ended_at, NULL, '... and has not ended')])
  FROM hubex.outbox o JOIN fresh USING (id);

-- cancel
SELECT is(hubex_cancel(pg_temp.id(s, 'hubex_cancel')), s IN ('waiting', 'dead'), 'hubex_cancel of one that is ' || s)
  FROM unnest('{waiting,sending,delivered,dead,cancelled}'::text[]) s;
SELECT is(pg_temp.state(pg_temp.id(s, 'hubex_cancel')), CASE WHEN s IN ('waiting', 'dead') THEN 'cancelled' ELSE s END, s || ', then')
  FROM unnest('{waiting,sending,delivered,dead,cancelled}'::text[]) s;
SELECT unnest(ARRAY[ok(o.ended_at > now() - interval '1 hour', 'cancelled, it has ended now'),
       is(o.attempts, 7, '... its attempts are kept'), is(o.last_error, 'as it was', '... and why the last one failed')])
  FROM hubex.outbox o WHERE o.id IN (pg_temp.id('waiting', 'hubex_cancel'), pg_temp.id('dead', 'hubex_cancel')) ORDER BY o.id;
SELECT is(o.claimed_by, 1::bigint, 'what is being sent stays its sender''s') FROM hubex.outbox o WHERE o.id = pg_temp.id('sending', 'hubex_cancel');
SELECT is(o.ended_at, now() - interval '1 day', 'what was ' || o.state || ' ended when it did')
  FROM hubex.outbox o WHERE o.id IN (pg_temp.id('delivered', 'hubex_cancel'), pg_temp.id('cancelled', 'hubex_cancel')) ORDER BY o.id;

-- retry
SELECT is(hubex_retry(pg_temp.id(s, 'hubex_retry')), s IN ('waiting', 'dead', 'cancelled'), 'hubex_retry of one that is ' || s)
  FROM unnest('{waiting,sending,delivered,dead,cancelled}'::text[]) s;
SELECT is(pg_temp.state(pg_temp.id(s, 'hubex_retry')), CASE WHEN s IN ('dead', 'cancelled') THEN 'waiting' ELSE s END, s || ', then')
  FROM unnest('{waiting,sending,delivered,dead,cancelled}'::text[]) s;
SELECT unnest(ARRAY[is(o.next_attempt_at, now(), 'retried, it is due now'), is(o.ended_at, NULL, '... has not ended'),
       is(o.attempts, CASE r.state WHEN 'waiting' THEN 7 ELSE 0 END, '... has all its attempts if it had ended'),
       is(o.expires_at IS NULL, r.state <> 'waiting', '... and then no expiry'),
       is(o.tried_since IS NOT NULL, r.state <> 'waiting', '... and all its time')])
  FROM request r JOIN hubex.outbox o ON o.id = r.id WHERE r.function = 'hubex_retry' AND r.state IN ('waiting', 'dead', 'cancelled') ORDER BY r.state;
SELECT throws_ok('SELECT ' || f || '(0)', '42704', 'request 0 does not exist', f || ' of one that is not there')
  FROM unnest('{hubex_cancel,hubex_retry}'::text[]) f;
SELECT is(hubex_cancel(NULL), NULL, 'hubex_cancel(NULL)');
SELECT is(hubex_retry(NULL), NULL, 'hubex_retry(NULL)');

-- an end lets the next of its key go
CREATE TEMP TABLE queue AS SELECT n, pg_temp.request(CASE n WHEN 1 THEN 'dead' ELSE 'waiting' END, 'queue') AS id FROM generate_series(1, 4) n;
UPDATE hubex.outbox SET blocked_by = (SELECT id FROM queue WHERE n = 2) WHERE id IN (SELECT id FROM queue WHERE n > 2);
SELECT ok(hubex_cancel(id), 'the first of a key is cancelled') FROM queue WHERE n = 2;
SELECT unnest(ARRAY[is(blocked_by, NULL, 'the next of its key waits for nobody'), ok(next_attempt_at < now() + interval '1 min', '... and is due')])
  FROM hubex.outbox WHERE id = (SELECT id FROM queue WHERE n = 3);
SELECT is(o.blocked_by, (SELECT id FROM queue WHERE n = 2), 'the one behind it is let go by its end')
  FROM hubex.outbox o WHERE o.id = (SELECT id FROM queue WHERE n = 4);

-- retry of all
SELECT throws_ok($$SELECT hubex_retry_all('{"state": "dead"}')$$, '42703', NULL, 'a filter by what is no column for it');
SELECT throws_ok($$SELECT hubex_retry_all('[]')$$, '22023', NULL, 'a filter that is no object');
SELECT is(hubex_retry_all('{"ordering_key": "none"}'), 0::bigint, 'none of that key');
SELECT is(hubex_retry_all('{"ordering_key": "queue", "server": "control"}'), 1::bigint, 'the dead one of that key');
SELECT is(pg_temp.state(id), 'waiting', '... waits again') FROM queue WHERE n = 1;
SELECT is(hubex_retry_all('{"ordering_key": "queue"}'), 0::bigint, '... and is no dead letter any more');

-- a state that there is not
SELECT throws_ok($$UPDATE hubex.outbox SET state = 'lost'$$, '23514', NULL, 'there are no other states');

SELECT * FROM finish();
ROLLBACK;
