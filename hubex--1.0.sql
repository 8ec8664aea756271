/* hubex--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION hubex" to load this file. \quit

/*
 * Functions stand in the schema that CREATE EXTENSION chose and begin with
 * hubex_.  State and settings are in the schema hubex, which belongs to the
 * extension.  Nothing is granted to PUBLIC: the end of this script takes the
 * execute right away, hubex_grant() gives it.
 */
CREATE SCHEMA hubex;
COMMENT ON SCHEMA hubex IS 'State and settings of the extension hubex';

------------------------------------------------------------------------------
-- Connectors: how each kind of system speaks, as data
------------------------------------------------------------------------------

CREATE FUNCTION hubex.check_manifest(manifest jsonb) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'hubex_check_manifest';
COMMENT ON FUNCTION hubex.check_manifest(jsonb) IS
'Private: true for a valid connector manifest, an error that names the path of the mistake for any other';

CREATE TABLE hubex.connector (
    name        name PRIMARY KEY,
    manifest    jsonb NOT NULL CHECK (hubex.check_manifest(manifest)),
    builtin     boolean NOT NULL DEFAULT false,
    CHECK (name = manifest ->> 'connector')
);
COMMENT ON TABLE hubex.connector IS 'Public: connectors this database knows; add a system by inserting its manifest';
COMMENT ON COLUMN hubex.connector.builtin IS 'came with the extension, so that a dump leaves it out';
SELECT pg_catalog.pg_extension_config_dump('hubex.connector', 'WHERE NOT builtin');

-- A kept plan holds what the manifest said of filters, so a change of a manifest ends all that are kept.
CREATE FUNCTION hubex.forget_plans() RETURNS trigger
LANGUAGE C
AS 'MODULE_PATHNAME', 'hubex_forget_plans';
COMMENT ON FUNCTION hubex.forget_plans() IS 'Private: lets all sessions plan anew';
CREATE TRIGGER forget_plans AFTER UPDATE OR DELETE OR TRUNCATE ON hubex.connector
    FOR EACH STATEMENT EXECUTE FUNCTION hubex.forget_plans();

-- The manifests that are installed beside this script.
INSERT INTO hubex.connector (name, manifest, builtin)
SELECT m ->> 'connector', m, true
  FROM (SELECT setting || '/extension/hubex/' FROM pg_catalog.pg_config() WHERE name = 'SHAREDIR') AS d (dir),
       LATERAL pg_catalog.pg_ls_dir(d.dir) AS f (file),
       LATERAL (SELECT pg_catalog.pg_read_file(d.dir || f.file)::jsonb) AS j (m)
 WHERE f.file LIKE '%.json';

------------------------------------------------------------------------------
-- The foreign data wrapper: servers, credentials, remote tables
------------------------------------------------------------------------------

CREATE FUNCTION hubex_fdw_handler() RETURNS fdw_handler
LANGUAGE C STRICT
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_fdw_handler() IS 'Private: foreign data wrapper handler of hubex';

CREATE FUNCTION hubex_fdw_validator(options text[], catalog oid) RETURNS void
LANGUAGE C STRICT
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_fdw_validator(text[], oid) IS 'Private: checks options when they are written';

CREATE FOREIGN DATA WRAPPER hubex_fdw
    HANDLER hubex_fdw_handler
    VALIDATOR hubex_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER hubex_fdw IS 'Accounts at HubEx and other systems; each is a foreign server';

------------------------------------------------------------------------------
-- The outbox
------------------------------------------------------------------------------

CREATE FUNCTION hubex.here(OUT system bigint, OUT database oid, OUT place text) RETURNS record
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'hubex_here';
COMMENT ON FUNCTION hubex.here() IS 'Private: this cluster''s system identifier, this database''s oid, and what tells this data directory from a copy of its files';

CREATE TABLE hubex.binding (
    token           uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    system          bigint NOT NULL,
    database        oid NOT NULL,
    place           text NOT NULL
);
COMMENT ON TABLE hubex.binding IS 'Private: the place that may send what the outbox holds; its one row is not dumped, so that a copy is known by it';
COMMENT ON COLUMN hubex.binding.token IS 'the requests that carry it are this database''s own';
COMMENT ON COLUMN hubex.binding.system IS 'the cluster''s system identifier';
COMMENT ON COLUMN hubex.binding.database IS 'the database''s oid';
COMMENT ON COLUMN hubex.binding.place IS 'what tells this data directory from a copy of its files';
INSERT INTO hubex.binding (system, database, place) SELECT h.system, h.database, h.place FROM hubex.here() h;

CREATE FUNCTION hubex.binding() RETURNS uuid
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'hubex_binding';
COMMENT ON FUNCTION hubex.binding() IS 'Private: the token of this database''s binding';

CREATE FUNCTION hubex.held() RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'hubex_held';
COMMENT ON FUNCTION hubex.held() IS 'Private: why nothing is sent from this database; null where nothing keeps it from sending';

CREATE FUNCTION hubex_take_over() RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_take_over() IS
'Public: makes a copy the one that sends: a restored dump, a clone, a copied database, all of which hold what they came with; its original must not send any more. Returns how many requests that were';

CREATE SEQUENCE hubex.claimant;
COMMENT ON SEQUENCE hubex.claimant IS 'Private: numbers of those who deliver; a number lives as long as its lock is held';

CREATE TABLE hubex.outbox (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    server          text COLLATE "C" NOT NULL,
    owner           text COLLATE "C" NOT NULL,
    resource        text COLLATE "C",
    operation       text COLLATE "C" NOT NULL,
    method          text NOT NULL,
    path            text NOT NULL,
    query           jsonb,
    headers         jsonb,
    body            jsonb,
    content         bytea,
    content_type    text,
    state           text NOT NULL DEFAULT 'waiting'
                    CHECK (state IN ('waiting', 'sending', 'delivered', 'dead', 'cancelled')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    tried_since     timestamptz,
    expires_at      timestamptz,
    last_status     integer,
    last_error      text,
    remote_id       text COLLATE "C",
    remote_number   text,
    response        jsonb,
    idempotency_key text COLLATE "C",
    ordering_key    text COLLATE "C",
    natural_key     text COLLATE "C",
    stamp           uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    uncertain       boolean NOT NULL DEFAULT false,
    bytes           bigint NOT NULL DEFAULT 0,
    merged_into     bigint,
    blocked_by      bigint,
    write_back      jsonb,
    unwritten       boolean NOT NULL DEFAULT false,
    binding         uuid NOT NULL DEFAULT hubex.binding(),
    claimed_by      bigint,
    sending_since   timestamptz,
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    delivered_at    timestamptz,
    ended_at        timestamptz
);
COMMENT ON TABLE hubex.outbox IS 'Public: the durable queue of writes to remote systems; one row is one request';
COMMENT ON SEQUENCE hubex.outbox_id_seq IS 'Private: request ids';
COMMENT ON COLUMN hubex.outbox.server IS 'the foreign server the request goes to';
COMMENT ON COLUMN hubex.outbox.owner IS 'the role that enqueued it; its user mapping signs the request';
COMMENT ON COLUMN hubex.outbox.resource IS 'the connector''s resource, where the request is about a record of it';
COMMENT ON COLUMN hubex.outbox.operation IS 'what is done to the record, by the connector''s name for it: create, update...; call: any other call';
COMMENT ON COLUMN hubex.outbox.path IS 'below the server''s url; {id} stands for remote_id';
COMMENT ON COLUMN hubex.outbox.body IS 'the fields of the record, or the body of a call; the connector says how fields are sent';
COMMENT ON COLUMN hubex.outbox.state IS 'waiting, sending, delivered, dead (given up) or cancelled';
COMMENT ON COLUMN hubex.outbox.attempts IS 'how often it was taken up for sending';
COMMENT ON COLUMN hubex.outbox.next_attempt_at IS 'not sent before';
COMMENT ON COLUMN hubex.outbox.tried_since IS 'its attempts count from then: deliver_after, or when it was retried by hand; null: created_at';
COMMENT ON COLUMN hubex.outbox.expires_at IS 'given up if it is not delivered by then';
COMMENT ON COLUMN hubex.outbox.last_status IS 'HTTP status of the last answer';
COMMENT ON COLUMN hubex.outbox.last_error IS 'why the last attempt did not succeed, in the remote system''s words where it gave any';
COMMENT ON COLUMN hubex.outbox.remote_id IS 'the id of the record there: the one the request made, or the one it is about';
COMMENT ON COLUMN hubex.outbox.remote_number IS 'the number people there know the record by';
COMMENT ON COLUMN hubex.outbox.response IS 'the body of the answer, where it was JSON';
COMMENT ON COLUMN hubex.outbox.idempotency_key IS 'the caller''s own key: the same key again returns the request there is';
COMMENT ON COLUMN hubex.outbox.ordering_key IS 'requests with one key are delivered one after another, by id';
COMMENT ON COLUMN hubex.outbox.natural_key IS 'the key the record carries in the remote system (erpID), to find it by';
COMMENT ON COLUMN hubex.outbox.stamp IS 'the request''s own UUID, sent in the connector''s idempotency header';
COMMENT ON COLUMN hubex.outbox.uncertain IS 'an attempt may have done its work unseen: looked up before it is sent again';
COMMENT ON COLUMN hubex.outbox.bytes IS 'about the size of body or content: only so much is in flight at once';
COMMENT ON COLUMN hubex.outbox.merged_into IS 'it was sent together with that request, as one call';
COMMENT ON COLUMN hubex.outbox.blocked_by IS 'put off until that earlier request of its ordering key has reached its end';
COMMENT ON COLUMN hubex.outbox.write_back IS 'what is done in this database when it is delivered: columns of a row to fill, or a function to call';
COMMENT ON COLUMN hubex.outbox.unwritten IS 'delivered, and its write-back is still to be done';
COMMENT ON COLUMN hubex.outbox.binding IS 'where it may be sent from: another binding than this database''s own came with a dump, and is held';
COMMENT ON COLUMN hubex.outbox.claimed_by IS 'who is sending it; see hubex.claimant';
COMMENT ON COLUMN hubex.outbox.sending_since IS 'in flight since';
COMMENT ON COLUMN hubex.outbox.ended_at IS 'delivered, given up or cancelled at';

-- What the application's INSERT waits for are the first three, the primary key and outbox_natural. In outbox_due the
-- server stands as a number: all columns have a fixed length then, which halves what it costs to find a place. Entries
-- that hold an id are never the same, so none are looked for.
CREATE INDEX outbox_due ON hubex.outbox (binding, pg_catalog.hashtext(server), next_attempt_at, id)
    WITH (deduplicate_items = off) WHERE state = 'waiting';
CREATE INDEX outbox_sending ON hubex.outbox (claimed_by) WHERE state = 'sending';
CREATE INDEX outbox_order ON hubex.outbox (ordering_key, server, id) WITH (deduplicate_items = off)
    WHERE ordering_key IS NOT NULL AND state IN ('waiting', 'sending');
CREATE UNIQUE INDEX outbox_idempotency ON hubex.outbox (server, owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- Open creates with the usual ordering key are found by that; see src/outbox/order.c.
CREATE INDEX outbox_natural ON hubex.outbox (natural_key, resource, server)
    WHERE operation = 'create' AND natural_key IS NOT NULL
      AND (state NOT IN ('waiting', 'sending') OR ordering_key IS DISTINCT FROM resource || ':' || natural_key);
CREATE INDEX outbox_remote ON hubex.outbox (remote_id, resource, server)
    WHERE remote_id IS NOT NULL AND operation = 'create';
CREATE INDEX outbox_blocked ON hubex.outbox (ordering_key, server, id) WHERE blocked_by IS NOT NULL;
CREATE INDEX outbox_expires ON hubex.outbox (expires_at) WHERE expires_at IS NOT NULL AND state = 'waiting';
CREATE INDEX outbox_dead ON hubex.outbox (server, id) WHERE state = 'dead';
CREATE INDEX outbox_unwritten ON hubex.outbox (next_attempt_at) WHERE unwritten;

ALTER TABLE hubex.outbox SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
SELECT pg_catalog.pg_extension_config_dump('hubex.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('hubex.outbox_id_seq', '');

CREATE TABLE hubex.server_state (
    server          name PRIMARY KEY,
    paused_at       timestamptz,
    paused_by       name,
    reason          text
);
COMMENT ON TABLE hubex.server_state IS 'Public: servers to which nothing is delivered at present; see hubex_pause()';
COMMENT ON COLUMN hubex.server_state.paused_at IS 'null: not paused';
COMMENT ON COLUMN hubex.server_state.paused_by IS 'the role that paused it';
SELECT pg_catalog.pg_extension_config_dump('hubex.server_state', '');

-- A role sees its own requests, an administrator all.  Who is one is known by
-- a right of hubex_grant(role, 'admin'), which a dump keeps; policies of an
-- extension's table it does not.
ALTER TABLE hubex.outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_requests ON hubex.outbox FOR SELECT
    USING (owner = current_user OR (SELECT pg_catalog.has_table_privilege('hubex.connector', 'INSERT')));

------------------------------------------------------------------------------
-- Writing, in the transaction of the caller
------------------------------------------------------------------------------

CREATE FUNCTION hubex.moment(moment timestamptz) RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'hubex_moment';
COMMENT ON FUNCTION hubex.moment(timestamptz) IS 'Private: a time as it is sent, in UTC; an error for one that is infinite';

CREATE FUNCTION hubex_create(resource text, fields jsonb, server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_create(text, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the creation of a record of a resource, sent once after COMMIT; returns the request id. Fields by the API''s names or the resource''s short ones';

CREATE FUNCTION hubex_create_task(task_type_id integer DEFAULT NULL, notes text DEFAULT NULL,
    request_method_id integer DEFAULT 4, erp_id text DEFAULT NULL, company_id integer DEFAULT NULL,
    asset_id integer DEFAULT NULL, work_type_id integer DEFAULT NULL, criticality_id integer DEFAULT NULL,
    location_id integer DEFAULT NULL, deadline timestamptz DEFAULT NULL, contact_person text DEFAULT NULL,
    contact_phone text DEFAULT NULL, contact_email text DEFAULT NULL, fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex_create('tasks',
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
            'task_type_id', task_type_id, 'notes', notes, 'request_method_id', request_method_id,
            'erp_id', erp_id, 'company_id', company_id, 'asset_id', asset_id, 'work_type_id', work_type_id,
            'criticality_id', criticality_id, 'location_id', location_id,
            'deadline', hubex.moment(deadline), 'contact_person', contact_person,
            'contact_phone', contact_phone, 'contact_email', contact_email))
        || COALESCE(fields, '{}'::jsonb),
        server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_create_task(integer, text, integer, text, integer, integer, integer, integer, integer,
    timestamptz, text, text, text, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the creation of a task, POST /WORK/Tasks, sent once after COMMIT; returns the request id. fields takes any further field by the API''s name';

-- A change of a record names it by its id or by its key in one's own system,
-- erp_id; by the latter also a record can be meant that is not created yet.

CREATE FUNCTION hubex.change(resource text, operation text, remote_id text, natural_key text, fields jsonb,
    content bytea, content_type text, server name, idempotency_key text, ordering_key text, deliver_after timestamptz,
    expires_at timestamptz)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'hubex_change';
COMMENT ON FUNCTION hubex.change(text, text, text, text, jsonb, bytea, text, name, text, text, timestamptz, timestamptz) IS
'Private: enqueues an operation on one record; what the functions of one operation each call';

CREATE FUNCTION hubex_update_task(fields jsonb, task_id integer DEFAULT NULL, erp_id text DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'update', task_id::text, erp_id,
        fields,
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_update_task(jsonb, integer, text, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues a change of a task''s fields, PATCH /WORK/Tasks/{id}; null empties a field. Changes of one task that wait go as one call';

CREATE FUNCTION hubex_delete_task(task_id integer DEFAULT NULL, erp_id text DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'delete', task_id::text, erp_id,
        NULL,
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_delete_task(integer, text, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the (soft) deletion of a task, DELETE /WORK/Tasks/{id}';

CREATE FUNCTION hubex_move_task(stage_id integer, task_id integer DEFAULT NULL, erp_id text DEFAULT NULL,
    notes text DEFAULT NULL, fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'move', task_id::text, erp_id,
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('taskStageID', stage_id, 'notes', notes))
            || COALESCE(fields, '{}'::jsonb),
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_move_task(integer, integer, text, text, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the move of a task to a stage of its life cycle, POST /WORK/TaskStagingHistory; moves of several tasks go as one call';

CREATE FUNCTION hubex_assign_task(user_id integer, task_id integer DEFAULT NULL, erp_id text DEFAULT NULL,
    scheduled_start timestamptz DEFAULT NULL, scheduled_finish timestamptz DEFAULT NULL, fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'assign', task_id::text, erp_id,
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('userID', user_id,
            'scheduledStartDateTime', hubex.moment(scheduled_start),
            'scheduledFinishDateTime', hubex.moment(scheduled_finish)))
            || COALESCE(fields, '{}'::jsonb),
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_assign_task(integer, integer, text, timestamptz, timestamptz, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the assignment of a task to a user, POST /WORK/TaskAssignmentHistory';

CREATE FUNCTION hubex_complete_task(task_id integer DEFAULT NULL, erp_id text DEFAULT NULL, fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'complete', task_id::text, erp_id,
        fields,
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_complete_task(integer, text, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the completion of a task, PUT /WORK/Tasks/{id}/complete; fields: completed, closed, acceptedPerson...';

CREATE FUNCTION hubex_comment_task(message text, external boolean DEFAULT false, task_id integer DEFAULT NULL, erp_id text DEFAULT NULL,
    fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'comment', task_id::text, erp_id,
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('message', message, 'isExternal', external))
            || COALESCE(fields, '{}'::jsonb),
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_comment_task(text, boolean, integer, text, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues a message in the chat of a task, the team''s or (external) the customer''s, POST /WORK/Tasks/{id}/conversation';

CREATE FUNCTION hubex_attach_file(content bytea, filename text, content_type text DEFAULT 'application/octet-stream',
    task_id integer DEFAULT NULL, erp_id text DEFAULT NULL, public boolean DEFAULT NULL, fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'attach', task_id::text, erp_id,
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('fileName', filename, 'isPublic', public))
            || COALESCE(fields, '{}'::jsonb),
        content, content_type, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_attach_file(bytea, text, text, integer, text, boolean, jsonb, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues the upload of a file to a task, POST /WORK/TaskAttachments/upload/fromForm';

CREATE FUNCTION hubex_set_task_attributes("values" jsonb, task_id integer DEFAULT NULL, erp_id text DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change('tasks', 'set_attributes', task_id::text, erp_id,
        pg_catalog.jsonb_build_object('data', hubex_set_task_attributes."values"),
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_set_task_attributes(jsonb, integer, text, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues values of a task''s own attributes, {"attributeID": "value", ...}, POST /WORK/TaskAttributes; those of several tasks go as one call';

CREATE FUNCTION hubex_update(resource text, key text DEFAULT NULL, fields jsonb DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL, erp_id text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change(resource, 'update', key, erp_id,
        fields,
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_update(text, text, jsonb, name, text, text, timestamptz, timestamptz, text) IS
'Public: enqueues a change of a record of a resource, named by its id (key) or erp_id';

CREATE FUNCTION hubex_delete(resource text, key text DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL, erp_id text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT hubex.change(resource, 'delete', key, erp_id,
        NULL,
        NULL, NULL, server, idempotency_key, ordering_key, deliver_after, expires_at);
END;
COMMENT ON FUNCTION hubex_delete(text, text, name, text, text, timestamptz, timestamptz, text) IS
'Public: enqueues the deletion of a record of a resource, named by its id (key) or erp_id';

CREATE FUNCTION hubex_enqueue(method text, path text, body jsonb DEFAULT NULL, query jsonb DEFAULT NULL,
    headers jsonb DEFAULT NULL, content bytea DEFAULT NULL, content_type text DEFAULT NULL,
    server name DEFAULT NULL, idempotency_key text DEFAULT NULL, ordering_key text DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_enqueue(text, text, jsonb, jsonb, jsonb, bytea, text, name, text, text, timestamptz, timestamptz) IS
'Public: enqueues any call of the remote API, sent after COMMIT; returns the request id';

CREATE FUNCTION hubex_task_trigger() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_task_trigger() IS
'Public: trigger function ([server,] template [, options]), AFTER INSERT, UPDATE or DELETE: a row is a task; {column} in the template is the row''s value, with its type where it stands alone. Options: write_back {id, number}, callback, delete (delete or ignore), ordering_key';

CREATE FUNCTION hubex_create_trigger() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_create_trigger() IS
'Public: trigger function ([server,] resource, template [, options]): as hubex_task_trigger, for the records of any resource';

CREATE FUNCTION hubex_wait(request_id bigint, timeout interval DEFAULT '30 seconds') RETURNS text
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_wait(bigint, interval) IS
'Public: waits until a request is delivered, dead or cancelled, or the timeout passes; returns its state';

CREATE FUNCTION hubex_cancel(request_id bigint) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_cancel(bigint) IS
'Public: a request that waits or was given up will not be sent; false where it is being sent or has reached its end';

CREATE FUNCTION hubex_retry(request_id bigint) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_retry(bigint) IS
'Public: a request that was given up or cancelled waits again, one that waits has its next attempt at once; false where it is being sent or delivered';

CREATE FUNCTION hubex_retry_all(filter jsonb DEFAULT NULL, since timestamptz DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_retry_all(jsonb, timestamptz, name) IS
'Public: retries all dead letters that a filter by columns matches, given up since a time; returns how many';

CREATE PROCEDURE hubex_deliver(server name DEFAULT NULL, timeout interval DEFAULT '1 minute')
LANGUAGE C
AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE hubex_deliver(name, interval) IS
'Public: delivers what is due in this session, for servers without hubex in shared_preload_libraries; not inside a transaction block';

CREATE FUNCTION hubex.backoff(manifest jsonb, attempts integer, retry_after double precision, random double precision)
RETURNS double precision
LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'hubex_backoff';
COMMENT ON FUNCTION hubex.backoff(jsonb, integer, double precision, double precision) IS
'Private: seconds a request waits after so many attempts by a connector''s policy; retry_after in seconds where the answer asked for it, random from 0 to 1';

------------------------------------------------------------------------------
-- Reading, now
------------------------------------------------------------------------------

CREATE TYPE hubex_response AS (
    status          integer,
    headers         jsonb,
    body            jsonb,
    content         bytea
);
COMMENT ON TYPE hubex_response IS 'Public: a remote answer; body where it is JSON, else content has the bytes';

CREATE FUNCTION hubex_request(method text, path text, body jsonb DEFAULT NULL, query jsonb DEFAULT NULL,
    headers jsonb DEFAULT NULL, content bytea DEFAULT NULL, content_type text DEFAULT NULL, server name DEFAULT NULL)
RETURNS hubex_response
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_request(text, text, jsonb, jsonb, jsonb, bytea, text, name) IS
'Public: makes any call of the remote API now, outside the outbox, and gives its answer; a status of 300 or more is an error';

CREATE FUNCTION hubex_get(resource text, key text, server name DEFAULT NULL) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_get(text, text, name) IS
'Public: one record of a resource as it is in the remote system now, by its id; one that is not there is an error';

CREATE TYPE hubex_task AS (
    id                   bigint,
    number               text,
    notes                text,
    erp_id               text,
    task_type_id         bigint,
    task_type_name       text,
    work_type_id         bigint,
    work_type_name       text,
    task_stage_id        bigint,
    task_stage_name      text,
    task_status_id       bigint,
    task_status_name     text,
    criticality_id       bigint,
    criticality_name     text,
    company_id           bigint,
    company_name         text,
    asset_id             bigint,
    asset_name           text,
    location_id          bigint,
    location_address     text,
    location_coordinate  text,
    requested_by_id      bigint,
    requested_by_name    text,
    assigned_to_id       bigint,
    assigned_to_name     text,
    parent_id            bigint,
    parent_name          text,
    contact_person       text,
    contact_phone        text,
    contact_email        text,
    created              timestamptz,
    requested            timestamptz,
    assigned             timestamptz,
    deadline             timestamptz,
    completed            timestamptz,
    closed               timestamptz,
    accepted             timestamptz,
    signed               timestamptz,
    last_modified        timestamptz,
    deleted              timestamptz,
    raw                  jsonb
);
COMMENT ON TYPE hubex_task IS 'Public: a task as GET /WORK/Tasks lists it; times of the remote system are UTC; raw is the whole record';

CREATE FUNCTION hubex_tasks(filter jsonb DEFAULT NULL, server name DEFAULT NULL) RETURNS SETOF hubex_task
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_tasks(jsonb, name) IS
'Public: tasks as they are in the remote system now, all pages. The filter takes names of the API (taskTypeID, isClosed, creationFrom...) or of columns; an array of ids means any of them. Soft-deleted tasks are left out unless it has isDeleted, null for all';

CREATE FUNCTION hubex_list(resource text, filter jsonb DEFAULT NULL, server name DEFAULT NULL) RETURNS SETOF jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_list(text, jsonb, name) IS
'Public: the records of a resource as they are in the remote system now, all pages, each as it was sent, with its id as "id" where that stands outside of it. The filter is as that of hubex_tasks';

------------------------------------------------------------------------------
-- Connecting and looking
------------------------------------------------------------------------------

CREATE FUNCTION hubex_version() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_version() IS 'Public: versions of hubex, PostgreSQL and libcurl, for bug reports';

CREATE FUNCTION hubex.worker_state(OUT state text, OUT pid integer) RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'hubex_worker_state';
COMMENT ON FUNCTION hubex.worker_state() IS 'Private: what the delivery worker of this database does: not preloaded, standby, starting, running, held or what it waits for';

CREATE FUNCTION hubex.workers(OUT database oid, OUT kind text, OUT pid integer, OUT state text,
    OUT started_at timestamptz, OUT last_step_at timestamptz, OUT steps bigint, OUT in_flight integer,
    OUT failures integer) RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10
AS 'MODULE_PATHNAME', 'hubex_workers';
COMMENT ON FUNCTION hubex.workers() IS 'Private: the workers of all databases; none without preload or on a standby';

CREATE FUNCTION hubex.server_stats(OUT server oid, OUT sent bigint, OUT delivered bigint, OUT failed bigint,
    OUT dead bigint, OUT retried bigint, OUT reconciled bigint, OUT merged bigint, OUT throttled bigint,
    OUT throttled_time double precision, OUT delivered_last_hour bigint, OUT p50 double precision,
    OUT p95 double precision, OUT p99 double precision, OUT circuit text, OUT circuit_since timestamptz,
    OUT circuit_until timestamptz, OUT circuit_failures integer, OUT last_error_at timestamptz,
    OUT quota_taken bigint, OUT quota_paused_until timestamptz, OUT stats_since timestamptz) RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10
AS 'MODULE_PATHNAME', 'hubex_server_stats';
COMMENT ON FUNCTION hubex.server_stats() IS 'Private: what is counted of the servers of this database; without preload what this session counted itself';

CREATE FUNCTION hubex_stat_reset() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_stat_reset() IS 'Public: begins the figures of hubex_stat_server anew, for all servers of this database';

CREATE VIEW hubex_stat_server AS
SELECT s.srvname AS server, o.connector,
       p.paused_at IS NOT NULL AS paused, p.paused_at, p.paused_by, p.reason AS pause_reason,
       COALESCE(t.circuit, 'closed') AS circuit, t.circuit_since, t.circuit_until,
       COALESCE(t.circuit_failures, 0) AS circuit_failures,
       COALESCE(t.sent, 0) AS sent, COALESCE(t.delivered, 0) AS delivered, COALESCE(t.failed, 0) AS failed,
       COALESCE(t.dead, 0) AS dead, COALESCE(t.retried, 0) AS retried, COALESCE(t.reconciled, 0) AS reconciled,
       COALESCE(t.merged, 0) AS merged, t.last_error_at,
       t.p50 AS p50_time, t.p95 AS p95_time, t.p99 AS p99_time,
       COALESCE(o.rate_limit, c.manifest #>> '{limits,rate}', 'none') AS rate_limit,
       t.quota_taken, t.quota_paused_until,
       COALESCE(t.throttled, 0) AS throttled, COALESCE(t.throttled_time, 0) AS throttled_time, t.stats_since
  FROM pg_catalog.pg_foreign_server s
  JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'hubex_fdw'
 CROSS JOIN LATERAL (SELECT max(x.option_value) FILTER (WHERE x.option_name = 'connector') AS connector,
                            max(x.option_value) FILTER (WHERE x.option_name = 'rate_limit') AS rate_limit
                       FROM pg_catalog.pg_options_to_table(s.srvoptions) x) o
  LEFT JOIN hubex.connector c ON c.name = o.connector
  LEFT JOIN hubex.server_state p ON p.server = s.srvname
  LEFT JOIN hubex.server_stats() t ON t.server = s.oid
 WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE') OR pg_catalog.has_table_privilege('hubex.connector', 'INSERT');
COMMENT ON VIEW hubex_stat_server IS 'Public: how delivery to each server goes: circuit, counts since stats_since, times of calls in ms, quota; servers the role may use, an administrator sees all';

CREATE VIEW hubex_stat_outbox WITH (security_invoker = true) AS
SELECT s.srvname AS server, COALESCE(q.waiting, 0) AS waiting, COALESCE(q.due, 0) AS due,
       COALESCE(b.blocked, 0) - COALESCE(f.together, 0) AS blocked, COALESCE(f.sending, 0) AS sending,
       COALESCE(CASE WHEN h.why IS NOT NULL THEN q.waiting ELSE q.held END, 0) AS held,
       COALESCE(d.dead, 0) AS dead, t.delivered_last_hour,
       (SELECT pg_catalog.clock_timestamp() - o.created_at FROM hubex.outbox o WHERE o.id = q.first) AS oldest_waiting
  FROM pg_catalog.pg_foreign_server s
  JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'hubex_fdw'
 CROSS JOIN hubex.held() AS h (why)
  LEFT JOIN (SELECT o.server, count(*) AS waiting, count(*) FILTER (WHERE o.next_attempt_at <= pg_catalog.now()) AS due,
                    count(*) FILTER (WHERE o.binding <> (SELECT hubex.binding())) AS held, min(o.id) AS first
               FROM hubex.outbox o WHERE o.state = 'waiting' GROUP BY o.server) q ON q.server = s.srvname
  LEFT JOIN (SELECT o.server, count(*) AS sending, count(o.ordering_key) - count(DISTINCT o.ordering_key) AS together
               FROM hubex.outbox o WHERE o.state = 'sending' GROUP BY o.server) f ON f.server = s.srvname
  LEFT JOIN (SELECT k.server, sum(k.requests - 1)::bigint AS blocked
               FROM (SELECT o.server, o.ordering_key, count(*) AS requests FROM hubex.outbox o
                      WHERE o.ordering_key IS NOT NULL AND o.state IN ('waiting', 'sending')
                      GROUP BY o.ordering_key, o.server) k
              GROUP BY k.server) b ON b.server = s.srvname
  LEFT JOIN (SELECT o.server, count(*) AS dead FROM hubex.outbox o WHERE o.state = 'dead' GROUP BY o.server) d ON d.server = s.srvname
  LEFT JOIN hubex.server_stats() t ON t.server = s.oid
 WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE') OR pg_catalog.has_table_privilege('hubex.connector', 'INSERT');
COMMENT ON VIEW hubex_stat_outbox IS 'Public: what of the outbox waits for each server, and why; of the role''s own requests, an administrator sees all. It reads the open requests, not the delivered ones';

CREATE VIEW hubex_stat_worker AS
SELECT d.datname AS database, w.kind, w.pid, w.state, w.started_at, w.last_step_at, w.steps, w.in_flight, w.failures
  FROM hubex.workers() w
  JOIN pg_catalog.pg_database d ON d.oid = w.database
 WHERE d.datname = pg_catalog.current_database() OR pg_catalog.has_table_privilege('hubex.connector', 'INSERT');
COMMENT ON VIEW hubex_stat_worker IS 'Public: the workers of this database and what they do; an administrator sees those of all databases. None without preload';

CREATE FUNCTION hubex_pause(server name DEFAULT NULL, reason text DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_pause(name, text) IS
'Public: holds all deliveries to a server, and what is read of it for mirrors, from COMMIT on, until hubex_resume(); what is in flight is brought to its end, and more can be enqueued';

CREATE FUNCTION hubex_resume(server name DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_resume(name) IS 'Public: lets a server''s deliveries and mirrors go on at once, after hubex_pause() or where the remote system asked for a pause; what waits for its next attempt has it now';

CREATE FUNCTION hubex.announce() RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'hubex_announce';
COMMENT ON FUNCTION hubex.announce() IS 'Private: tells the launcher at COMMIT that this database has the extension';

CREATE FUNCTION hubex.probe(server name) RETURNS text
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'hubex_probe';
COMMENT ON FUNCTION hubex.probe(name) IS 'Private: signs in and asks for the number of records of the connector''s first resource';

CREATE FUNCTION hubex.only_server(server name) RETURNS name
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'hubex_only_server';
COMMENT ON FUNCTION hubex.only_server(name) IS 'Private: the server a call means that names none';

CREATE FUNCTION hubex.make_server(server name, connector text, url text, credentials jsonb, options jsonb) RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'hubex_make_server';
COMMENT ON FUNCTION hubex.make_server(name, text, text, jsonb, jsonb) IS
'Private: creates the foreign server and PUBLIC''s user mapping without a statement text that a log could show';

CREATE FUNCTION hubex_check(server name DEFAULT NULL,
    OUT subject text, OUT ok boolean, OUT message text, OUT hint text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target name;
    worker record;
    pause record;
    held text;
    waiting bigint;
    dead bigint;
    oldest timestamptz;
    orphans text;
BEGIN
    subject := 'version'; ok := true; message := @extschema@.hubex_version(); hint := NULL;
    RETURN NEXT;

    worker := hubex.worker_state();
    subject := 'delivery';
    ok := worker.state IN ('running', 'standby');
    message := CASE worker.state
        WHEN 'running' THEN format('The delivery worker runs (process %s).', worker.pid)
        WHEN 'held' THEN format('The delivery worker runs (process %s), but may send nothing.', worker.pid)
        WHEN 'standby' THEN 'This is a standby: nothing is delivered here before its promotion.'
        WHEN 'not preloaded' THEN 'There is no delivery worker: hubex is not in shared_preload_libraries.'
        ELSE format('The delivery worker is not running yet: %s.', worker.state) END;
    hint := CASE worker.state
        WHEN 'running' THEN NULL
        WHEN 'standby' THEN NULL
        WHEN 'held' THEN NULL
        WHEN 'not preloaded' THEN 'Add hubex to shared_preload_libraries and restart, or run CALL hubex_deliver(), by hand or from pg_cron.'
        ELSE 'If this stays so, look into the server log; max_worker_processes may be too low.' END;
    RETURN NEXT;

    held := hubex.held();
    IF held IS NOT NULL THEN
        subject := 'binding'; ok := false;
        message := format('This database is held: nothing is sent from it. %s.', held);
        hint := CASE WHEN current_setting('hubex.deliver')::boolean
            THEN 'If it is to send what it holds, and its original never again, run SELECT hubex_take_over().'
            ELSE 'Set hubex.deliver to on in the server''s configuration, and reload it.' END;
        RETURN NEXT;
    END IF;

    subject := 'server'; ok := true; hint := NULL;
    BEGIN
        target := hubex.only_server(server);
        message := format('Server "%s".', target);
    EXCEPTION WHEN others THEN
        ok := false; message := sqlerrm || '.';
        GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    END;
    RETURN NEXT;
    IF NOT ok THEN
        RETURN QUERY SELECT * FROM hubex.check_mirrors(NULL);
        RETURN;
    END IF;

    SELECT t.paused_at, t.paused_by, t.pause_reason INTO pause
      FROM @extschema@.hubex_stat_server t WHERE t.server = target AND t.paused;
    IF FOUND THEN
        subject := 'pause'; ok := false;
        message := format('Delivery to server "%s" is paused since %s, by %s%s.', target, pause.paused_at, pause.paused_by,
            ': ' || pause.pause_reason);
        hint := format('hubex_resume(%L) ends it.', target);
        RETURN NEXT;
    END IF;

    subject := 'account'; ok := true; hint := NULL;
    BEGIN
        message := hubex.probe(target);
    EXCEPTION WHEN others THEN
        DECLARE
            detail text;
        BEGIN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            ok := false; message := sqlerrm || '.' || CASE WHEN detail <> '' THEN ' ' || detail ELSE '' END;
        END;
    END;
    RETURN NEXT;

    BEGIN
        RETURN QUERY SELECT * FROM hubex.check_mirrors(target);
    EXCEPTION WHEN insufficient_privilege THEN
        subject := 'mirror'; ok := NULL; message := 'The mirrors are not yours to see.'; hint := 'hubex_grant() gives the right.';
        RETURN NEXT;
    END;

    subject := 'outbox'; hint := NULL;
    BEGIN
        SELECT count(*) FILTER (WHERE o.state = 'waiting'), count(*) FILTER (WHERE o.state = 'dead'),
               min(o.created_at) FILTER (WHERE o.state = 'waiting')
          INTO waiting, dead, oldest
          FROM hubex.outbox o WHERE o.server = target AND o.state IN ('waiting', 'dead');
        ok := dead = 0;
        message := format('%s requests wait, %s were given up.', waiting, dead)
            || CASE WHEN oldest < now() - interval '1 minute' THEN format(' The oldest waits since %s.', oldest) ELSE '' END;
        hint := CASE WHEN dead > 0 THEN 'SELECT id, last_error FROM hubex.outbox WHERE state = ''dead'' says why.' END;
        RETURN NEXT;

        SELECT count(*) INTO waiting FROM hubex.outbox o
         WHERE o.server = target AND o.state = 'waiting' AND o.binding <> hubex.binding();
        IF waiting > 0 AND held IS NULL THEN
            subject := 'binding'; ok := false;
            message := format('%s of those that wait came with a dump of another database, and are held.', waiting);
            hint := 'If they are to be sent from here, and never again from there, run SELECT hubex_take_over().';
            RETURN NEXT;
        END IF;

        subject := 'outbox';
        SELECT count(*), string_agg(DISTINCT pg_catalog.quote_ident(o.server), ', ')
          INTO waiting, orphans
          FROM hubex.outbox o
         WHERE o.state = 'waiting' AND NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = o.server);
        IF waiting = 0 THEN
            RETURN;
        END IF;
        ok := false;
        message := format('%s requests wait for servers that do not exist: %s.', waiting, orphans);
        hint := 'Make the server again, or UPDATE hubex.outbox SET server = ... where it was renamed.';
    EXCEPTION WHEN insufficient_privilege THEN
        ok := NULL; message := 'The outbox is not yours to see.'; hint := 'hubex_grant() gives the right.';
    END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION hubex_check(name) IS 'Public: says in plain words what works, what is wrong and what to do; makes one or two remote calls';

CREATE FUNCTION hubex_connect(server name, connector text DEFAULT 'hubex', url text DEFAULT NULL,
    credentials jsonb DEFAULT NULL, schema name DEFAULT NULL, options jsonb DEFAULT NULL,
    OUT subject text, OUT ok boolean, OUT message text, OUT hint text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM hubex.make_server(server, connector, url, credentials, options);
    IF schema IS NOT NULL THEN
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schema);
        EXECUTE format('IMPORT FOREIGN SCHEMA "*" FROM SERVER %I INTO %I', server, schema);
    END IF;
    RETURN QUERY SELECT * FROM @extschema@.hubex_check(server);
END
$$;
COMMENT ON FUNCTION hubex_connect(name, text, text, jsonb, name, jsonb) IS
'Public: makes the server, PUBLIC''s user mapping and, where a schema is named, the foreign tables in it; then shows hubex_check. Who may use the server is decided by GRANT USAGE ON FOREIGN SERVER';

CREATE FUNCTION hubex_grant(role name, level text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- by name, whatever their arguments; those in the schema hubex with it
    functions text[] := ARRAY['hubex_tasks', 'hubex_list', 'hubex_get', 'hubex_check', 'hubex_version',
        'hubex.worker_state', 'hubex.workers', 'hubex.server_stats', 'hubex.held', 'hubex.binding',
        'hubex.probe', 'hubex.only_server', 'hubex_is_syncing', 'hubex.sync_progress', 'hubex.check_subscription', 'hubex.check_mirrors',
        'hubex.pending'];
    routine regprocedure;
BEGIN
    IF level IS NULL OR level NOT IN ('read', 'enqueue', 'admin') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('unknown level "%s"', level),
            HINT = 'The levels are read, enqueue and admin; each includes the ones before.';
    END IF;
    IF role IS NULL OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('role "%s" does not exist', role),
            HINT = 'Rights are given to roles by name, not to PUBLIC.';
    END IF;
    IF level IN ('enqueue', 'admin') THEN
        functions := functions || ARRAY['hubex_create', 'hubex_update', 'hubex_delete', 'hubex_enqueue',
            'hubex_create_task', 'hubex_update_task', 'hubex_delete_task', 'hubex_move_task', 'hubex_assign_task',
            'hubex_complete_task', 'hubex_comment_task', 'hubex_attach_file', 'hubex_set_task_attributes',
            'hubex_task_trigger', 'hubex_create_trigger', 'hubex_wait', 'hubex_cancel', 'hubex_retry',
            'hubex_mirror_trigger', 'hubex_pending_view', 'hubex.change', 'hubex.moment'];
    END IF;
    IF level = 'admin' THEN
        functions := functions || ARRAY['hubex_request', 'hubex_connect', 'hubex_deliver', 'hubex_retry_all',
            'hubex_pause', 'hubex_resume', 'hubex_take_over', 'hubex_stat_reset',
            'hubex_subscribe', 'hubex_unsubscribe', 'hubex_sync', 'hubex_confirm_deletes',
            'hubex.make_server', 'hubex.check_manifest'];
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA hubex TO %I', role);
    FOR routine IN
        SELECT p.oid
          FROM pg_extension e
          JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                          AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
          JOIN pg_proc p ON p.oid = d.objid
          JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE e.extname = 'hubex'
           AND CASE WHEN n.nspname = 'hubex' THEN 'hubex.' ELSE '' END || p.proname = ANY (functions)
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', routine, role);
    END LOOP;
    EXECUTE format('GRANT SELECT ON @extschema@.hubex_stat_server, @extschema@.hubex_stat_worker, @extschema@.hubex_stat_sync, '
                   '@extschema@.hubex_stat_progress_sync, hubex.mirror TO %I', role);
    IF level IN ('enqueue', 'admin') THEN
        EXECUTE format('GRANT SELECT ON hubex.outbox, @extschema@.hubex_stat_outbox TO %I', role);
        EXECUTE format('GRANT SELECT, DELETE ON hubex.conflict TO %I', role);
    END IF;
    IF level = 'admin' THEN
        EXECUTE format('GRANT USAGE ON FOREIGN DATA WRAPPER hubex_fdw TO %I', role);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON hubex.connector TO %I', role);
        EXECUTE format('GRANT SELECT ON hubex.server_state, hubex.subscription TO %I', role);
    END IF;
END
$$;
COMMENT ON FUNCTION hubex_grant(name, text) IS
'Public: lets a role read, enqueue or administer (each includes the ones before); which accounts it may use is decided by GRANT USAGE ON FOREIGN SERVER';

------------------------------------------------------------------------------
-- Mirrors: local tables that are kept in step with lists of a remote system
------------------------------------------------------------------------------

CREATE TABLE hubex.subscription (
    name text NOT NULL PRIMARY KEY CHECK (name <> ''),
    owner name NOT NULL,
    -- As hubex.outbox.binding: a copy of this database stays silent.
    binding uuid NOT NULL,
    foreign_table regclass NOT NULL,
    target regclass NOT NULL,
    mode text NOT NULL CHECK (mode IN ('incremental', 'full', 'both')),
    every interval CHECK (every > interval '0'),
    full_every interval CHECK (full_every > interval '0'),
    full_at time,
    "overlap" interval NOT NULL CHECK ("overlap" >= interval '0'),
    deletes text NOT NULL CHECK (deletes IN ('delete', 'mark', 'ignore')),
    delete_limit double precision NOT NULL CHECK (delete_limit BETWEEN 0 AND 1),
    on_drift text NOT NULL CHECK (on_drift IN ('error', 'null', 'ignore')),
    columns jsonb CHECK (jsonb_typeof(columns) = 'object'),
    owners jsonb CHECK (jsonb_typeof(owners) = 'object'),
    filter jsonb CHECK (jsonb_typeof(filter) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hubex.subscription IS 'Public: which local tables mirror which remote lists, and how; see hubex_subscribe()';
COMMENT ON COLUMN hubex.subscription.every IS 'so often the worker asks what has changed; NULL: only hubex_sync() does';
COMMENT ON COLUMN hubex.subscription.full_every IS 'so often the worker reads the whole list; NULL: only once, to fill the target';
COMMENT ON COLUMN hubex.subscription.full_at IS 'the earliest time of day, in the time zone of log_timezone, to do so';
COMMENT ON COLUMN hubex.subscription."overlap" IS 'what changed so long before the newest change that is known is asked for again';
COMMENT ON COLUMN hubex.subscription.delete_limit IS 'a sweep that would delete more than this share of the rows waits for hubex_confirm_deletes()';
COMMENT ON COLUMN hubex.subscription.columns IS 'names of the foreign table''s columns, by those of the target; NULL: the names that both have';
COMMENT ON COLUMN hubex.subscription.owners IS 'columns whose value is not the remote side''s alone: local or newest, by name';
COMMENT ON COLUMN hubex.subscription.filter IS 'filters of the API, by name, besides those of the foreign table';
COMMENT ON COLUMN hubex.subscription.created_at IS 'when it was made, or got other tables';

-- How far each has come; written in the transaction of what it tells of.
CREATE TABLE hubex.subscription_state (
    subscription text NOT NULL PRIMARY KEY,
    "cursor" timestamptz,
    filled_at timestamptz,
    sweeps bigint NOT NULL DEFAULT 0,
    sweep_began_at timestamptz,
    sweep_definition bigint,
    sweep_cursor timestamptz,
    sweep_position bigint NOT NULL DEFAULT 0,
    sweep_keys text[],
    sweep_total bigint,
    sweep_read_at timestamptz,
    sweep_missing bigint,
    sweep_confirmed boolean NOT NULL DEFAULT false,
    next_at timestamptz NOT NULL DEFAULT now(),
    next_full_at timestamptz DEFAULT now(),
    failures integer NOT NULL DEFAULT 0,
    sweep_failures integer NOT NULL DEFAULT 0,
    in_step_at timestamptz,
    last_started_at timestamptz,
    last_ended_at timestamptz,
    last_error text,
    last_error_at timestamptz,
    runs bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    inserted bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    drift jsonb
) WITH (fillfactor = 50);
COMMENT ON TABLE hubex.subscription_state IS 'Private: how far each subscription has come; see hubex_stat_sync';
COMMENT ON COLUMN hubex.subscription_state."cursor" IS 'the newest remote change up to which the target has everything';
COMMENT ON COLUMN hubex.subscription_state.sweeps IS 'how often one began, or went on after a confirmation: an answer of the time before may be of no use';
COMMENT ON COLUMN hubex.subscription_state.sweep_began_at IS 'a sweep, that is a reading of the whole list, is under way since; NULL: none is';
COMMENT ON COLUMN hubex.subscription_state.sweep_definition IS 'tells whether what is mirrored, or where, was changed since';
COMMENT ON COLUMN hubex.subscription_state.sweep_cursor IS 'the newest remote change before the first sweep began';
COMMENT ON COLUMN hubex.subscription_state.sweep_position IS 'so many of the list''s records are applied';
COMMENT ON COLUMN hubex.subscription_state.sweep_keys IS 'those of the last records before the position';
COMMENT ON COLUMN hubex.subscription_state.sweep_read_at IS 'the sweep has read the whole list; what it did not find is still to be deleted';
COMMENT ON COLUMN hubex.subscription_state.sweep_missing IS 'so many rows it would delete, more than the limit: it waits for hubex_confirm_deletes()';
COMMENT ON COLUMN hubex.subscription_state.failures IS 'incremental runs that failed since the last that did not';
COMMENT ON COLUMN hubex.subscription_state.sweep_failures IS 'the same of sweeps';
COMMENT ON COLUMN hubex.subscription_state.in_step_at IS 'when the last run began that came to its end: as of then the target is in step';
COMMENT ON COLUMN hubex.subscription_state.drift IS 'what of the remote records did not fit the target, by column: {"column": {"problem", "since", "count"}}';

-- The keys that a sweep under way has found, a row for each piece that was applied.
CREATE TABLE hubex.sweep_page (
    subscription text NOT NULL,
    position bigint NOT NULL,
    keys text[] NOT NULL,
    PRIMARY KEY (subscription, position)
);
COMMENT ON TABLE hubex.sweep_page IS 'Private: the keys that a sweep under way has found';

-- Rows that were deleted, as long as an answer of the time before may come: it must not bring them back.
CREATE TABLE hubex.tombstone (
    subscription text NOT NULL,
    key text NOT NULL,
    deleted_at timestamptz NOT NULL,
    PRIMARY KEY (subscription, key)
);
COMMENT ON TABLE hubex.tombstone IS 'Private: rows that were deleted from a mirror, as long as an answer of the time before may come';

-- What was changed in a mirror here and the remote side has not been seen to have yet: a row for each changed value,
-- written by a trigger of the mirror. What constraints would look at for each of them the trigger looks at once.
CREATE TABLE hubex.local_change (
    subscription text NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    column_name name NOT NULL,
    state text NOT NULL DEFAULT 'open',
    local jsonb,
    remote jsonb,
    earlier jsonb,
    answered jsonb,
    changed_at timestamptz NOT NULL,
    request_id bigint NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (subscription, key, kind, column_name)
) WITH (fillfactor = 70);
COMMENT ON TABLE hubex.local_change IS 'Private: changes made in mirrors here that the remote side has not been seen to have yet; see src/sync/two_way.c';
COMMENT ON COLUMN hubex.local_change.kind IS 'create, update or delete';
COMMENT ON COLUMN hubex.local_change.key IS 'the record''s; of one that is to be created its request''s id';
COMMENT ON COLUMN hubex.local_change.column_name IS 'the column of an update, else empty';
COMMENT ON COLUMN hubex.local_change.state IS 'open: the request is under way; of a column that is local''s own: accepted: the remote side makes another value of it, refused: it took none, and its own is shown';
COMMENT ON COLUMN hubex.local_change.local IS 'the value here; of a create the row';
COMMENT ON COLUMN hubex.local_change.remote IS 'the remote side''s value, as last seen; of a delete the row as it was';
COMMENT ON COLUMN hubex.local_change.earlier IS 'changes of the column before this one that are under way too: [[request, value], ...]';
COMMENT ON COLUMN hubex.local_change.answered IS 'the remote side''s values that were answered by sending the local one again';
COMMENT ON COLUMN hubex.local_change.ended_at IS 'since when it is known that the request is no longer in the outbox';

CREATE FUNCTION hubex.follow_subscription() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tg_op = 'DELETE' THEN
        DELETE FROM hubex.local_change WHERE subscription = old.name;
    ELSE
        UPDATE hubex.local_change SET subscription = new.name WHERE subscription = old.name;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION hubex.follow_subscription() IS 'Private: local changes go with their subscription, as by a foreign key';

-- What triggers of mirrors keep for the session holds what is said here.
CREATE TRIGGER forget_plans AFTER UPDATE OR DELETE OR TRUNCATE ON hubex.subscription
    FOR EACH STATEMENT EXECUTE FUNCTION hubex.forget_plans();
CREATE TRIGGER follow_subscription AFTER DELETE OR UPDATE OF name ON hubex.subscription
    FOR EACH ROW EXECUTE FUNCTION hubex.follow_subscription();

CREATE TABLE hubex.conflict (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription text NOT NULL,
    key text NOT NULL,
    column_name name NOT NULL,
    base jsonb,
    local jsonb,
    remote jsonb,
    kept text NOT NULL CHECK (kept IN ('local', 'remote')),
    reason text NOT NULL CHECK (reason IN ('both changed', 'newer', 'overruled', 'not taken', 'refused', 'deleted')),
    message text,
    request_id bigint,
    occurred_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX conflict_row ON hubex.conflict (subscription, key, column_name);
COMMENT ON SEQUENCE hubex.conflict_id_seq IS 'Private: ids of conflicts';
COMMENT ON TABLE hubex.conflict IS 'Public: where the two sides of a mirror disagreed, and which value was kept';
COMMENT ON COLUMN hubex.conflict.column_name IS 'empty: it is about the whole row';
COMMENT ON COLUMN hubex.conflict.base IS 'the remote side''s value before, as far as it is known';
COMMENT ON COLUMN hubex.conflict.reason IS 'both changed; newer: both did, the remote side later; overruled: the remote side changed a column that is local''s own, which is sent again; not taken: it was sent again in vain; refused: the request was given up or cancelled; deleted: the remote side deleted the record';
COMMENT ON COLUMN hubex.conflict.message IS 'why the remote side refused it, in its own words';

-- What belongs to a subscription goes with it. Foreign keys would do the same, but pg_restore --jobs knows no order of the
-- data of an extension's tables.
CREATE FUNCTION hubex.cascade_subscription() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM hubex.subscription_state t WHERE t.subscription = old.name;
        DELETE FROM hubex.sweep_page t WHERE t.subscription = old.name;
        DELETE FROM hubex.tombstone t WHERE t.subscription = old.name;
        DELETE FROM hubex.local_change t WHERE t.subscription = old.name;
        DELETE FROM hubex.conflict t WHERE t.subscription = old.name;
    ELSE
        UPDATE hubex.subscription_state t SET subscription = new.name WHERE t.subscription = old.name;
        UPDATE hubex.sweep_page t SET subscription = new.name WHERE t.subscription = old.name;
        UPDATE hubex.tombstone t SET subscription = new.name WHERE t.subscription = old.name;
        UPDATE hubex.local_change t SET subscription = new.name WHERE t.subscription = old.name;
        UPDATE hubex.conflict t SET subscription = new.name WHERE t.subscription = old.name;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION hubex.cascade_subscription() IS 'Private: what belongs to a subscription goes with it, and by its name';
CREATE TRIGGER cascade_delete AFTER DELETE ON hubex.subscription FOR EACH ROW EXECUTE FUNCTION hubex.cascade_subscription();
CREATE TRIGGER cascade_name AFTER UPDATE OF name ON hubex.subscription FOR EACH ROW WHEN (old.name <> new.name)
    EXECUTE FUNCTION hubex.cascade_subscription();

-- With other tables it is another subscription: what was read for the one is of no use for the other.
CREATE FUNCTION hubex.renew_subscription() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    new.created_at := clock_timestamp();
    RETURN new;
END
$$;
COMMENT ON FUNCTION hubex.renew_subscription() IS 'Private: a subscription with other tables is a new one';
CREATE TRIGGER renew BEFORE UPDATE OF foreign_table, target ON hubex.subscription FOR EACH ROW EXECUTE FUNCTION hubex.renew_subscription();

-- A subscription one of whose tables is gone has but their oids left, which may be those of other tables where a dump is
-- restored; so it is not dumped. The conditions are no joins: so the rows come in their order.
SELECT pg_catalog.pg_extension_config_dump('hubex.subscription',
           'WHERE (SELECT true FROM pg_catalog.pg_class c WHERE c.oid = foreign_table)'
           ' AND (SELECT true FROM pg_catalog.pg_class c WHERE c.oid = target)');
DO $$
DECLARE
    part text;
BEGIN
    FOREACH part IN ARRAY ARRAY['subscription_state', 'sweep_page', 'tombstone', 'local_change', 'conflict'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('hubex.' || part)::pg_catalog.regclass,
            'WHERE (SELECT true FROM hubex.subscription s'
            ' WHERE s.name = subscription AND (SELECT true FROM pg_catalog.pg_class c WHERE c.oid = s.foreign_table)'
            ' AND (SELECT true FROM pg_catalog.pg_class c WHERE c.oid = s.target))');
    END LOOP;
END
$$;
SELECT pg_catalog.pg_extension_config_dump('hubex.conflict_id_seq', '');

-- Mirrors: subscribing

CREATE FUNCTION hubex_subscribe(name text, foreign_table regclass, target text, every interval DEFAULT '1 minute',
    deletes text DEFAULT 'delete', mode text DEFAULT NULL, columns jsonb DEFAULT NULL, filter jsonb DEFAULT NULL,
    owners jsonb DEFAULT NULL, on_drift text DEFAULT 'error', full_every interval DEFAULT NULL, full_at time DEFAULT NULL,
    "overlap" interval DEFAULT '5 minutes', delete_limit double precision DEFAULT 0.1) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_subscribe(text, regclass, text, interval, text, text, jsonb, jsonb, jsonb, text, interval, time, interval, double precision) IS
'Public: keeps a table, made if it does not exist, in step with the list of a foreign table: every so often it asks what has changed, and more seldom (full_every) reads the whole list. Modes: incremental, full, both; deletes: delete, mark, ignore; on_drift: error, null, ignore';

CREATE FUNCTION hubex_unsubscribe(name text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_unsubscribe(text) IS 'Public: ends a subscription; its table stays as it is';

CREATE FUNCTION hubex.check_subscription(name text, OUT what text, OUT "column" text, OUT type text) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'hubex_check_subscription';
COMMENT ON FUNCTION hubex.check_subscription(text) IS
'Private: an error where a subscription is not what it must be any more; else the columns that its target could show (unshown), and those that show nothing any more (lost)';

-- Subscriptions with what is known of them: those of one's own roles and of servers one may use; an administrator sees all.
CREATE VIEW hubex.mirror AS
SELECT s.name, s.owner, s.foreign_table, s.target, s.mode, s.every, s.full_every, s.deletes, s.columns, s.owners, s.created_at,
       v.srvname AS server, s.binding IS DISTINCT FROM (SELECT hubex.binding()) AS foreign_binding,
       p.paused_at IS NOT NULL AS paused,
       LEAST(CASE WHEN s.mode <> 'full' AND s.every IS NOT NULL THEN t.next_at END,
             CASE WHEN s.full_every IS NOT NULL OR s.every IS NOT NULL AND t.filled_at IS NULL THEN t.next_full_at END) AS due_at,
       t."cursor", t.filled_at, t.sweep_began_at, t.sweep_position, t.sweep_total, t.sweep_missing, t.sweep_confirmed,
       t.failures, t.last_ended_at, t.last_error, t.last_error_at, t.drift,
       t.sweep_failures, t.next_at, t.next_full_at, t.in_step_at, t.last_started_at, t.runs, t.requests, t.inserted, t.updated,
       t.deleted, t.unchanged
  FROM hubex.subscription s
  JOIN hubex.subscription_state t ON t.subscription = s.name
  LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = s.foreign_table
  LEFT JOIN pg_catalog.pg_foreign_server v ON v.oid = f.ftserver
  LEFT JOIN hubex.server_state p ON p.server = v.srvname
 WHERE pg_catalog.has_server_privilege(v.oid, 'USAGE') OR pg_catalog.has_table_privilege('hubex.connector', 'INSERT')
    OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = s.owner AND pg_catalog.pg_has_role(r.oid, 'USAGE'));
COMMENT ON VIEW hubex.mirror IS 'Private: subscriptions of servers that the role may use, with what is known of them; see hubex_stat_sync';

CREATE FUNCTION hubex.check_mirrors(server name, OUT subject text, OUT ok boolean, OUT message text, OUT hint text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
DECLARE
    held text := hubex.held();
    running boolean;
    m record;
    unshown record;
    lost record;
    drifting record;
    gone boolean;
    detail text;
BEGIN
    SELECT bool_or(w.state = 'running') INTO running
      FROM hubex.workers() w JOIN pg_database d ON d.oid = w.database AND d.datname = current_database()
     WHERE w.kind = 'sync';
    FOR m IN
        SELECT * FROM hubex.mirror k
         WHERE k.server IS NULL OR k.server = check_mirrors.server
         ORDER BY k.name
    LOOP
        subject := 'mirror'; ok := true; hint := NULL;
        gone := m.target NOT IN (SELECT c.oid FROM pg_class c) OR m.foreign_table NOT IN (SELECT c.oid FROM pg_class c);
        message := format('Subscription "%s" keeps %s in step with %s%s.', m.name, m.target, m.foreign_table,
            CASE WHEN m.filled_at IS NULL THEN
                     format('; it is being filled, %s of %s records so far', m.sweep_position, coalesce(m.sweep_total::text, 'an unknown number of'))
                 WHEN m.mode <> 'full' THEN format('; it shows what changed until %s', m."cursor")
                 ELSE format('; it shows what there was at %s', m.filled_at) END);

        IF pg_is_in_recovery() THEN
            NULL;
        ELSIF m.foreign_binding THEN
            ok := false;
            message := format('Subscription "%s" came with a dump of another database, and is held.', m.name);
            hint := 'If the mirror is to be kept in step from here, run SELECT hubex_take_over().';
        ELSIF held IS NOT NULL THEN
            ok := false;
            message := format('Subscription "%s" is held, as this database is.', m.name);
        ELSIF m.paused THEN
            ok := false;
            message := format('Subscription "%s" is held, as server "%s" is paused.', m.name, m.server);
            hint := format('hubex_resume(%L) ends it.', m.server);
        ELSIF m.failures + m.sweep_failures > 0 THEN
            ok := false;
            message := format('Subscription "%s" fails since %s run(s), the last time at %s: %s', m.name, m.failures + m.sweep_failures, m.last_error_at,
                m.last_error);
            hint := format('CALL hubex_sync(%L) tries again at once%s.', m.name, '; else that is done at ' || m.due_at);
        ELSIF m.sweep_missing IS NOT NULL AND NOT m.sweep_confirmed THEN
            ok := false;
            message := format('Subscription "%s" has found %s rows of %s that the remote system has no more, which is more than delete_limit allows; it keeps them for now.',
                m.name, m.sweep_missing, m.target);
            hint := format('If they are to go: SELECT hubex_confirm_deletes(%L).', m.name);
        ELSIF m.due_at < now() - interval '1 minute' AND running IS NOT TRUE THEN
            ok := false;
            message := format('Subscription "%s" is due since %s, and there is nobody who runs it.', m.name, m.due_at);
            hint := CASE WHEN (hubex.worker_state()).state = 'not preloaded'
                THEN format('Add hubex to shared_preload_libraries and restart, or have pg_cron CALL hubex_sync(%L).', m.name)
                ELSE 'The sync worker does not run; if this stays so, look into the server log: max_worker_processes may be too low.' END;
        ELSIF m.due_at < now() - greatest(m.every * 2, interval '5 minutes') AND m.sweep_began_at IS NULL THEN
            ok := false;
            message := format('Subscription "%s" is behind: it is due since %s.', m.name, m.due_at);
            hint := 'The quota may be used up by other calls, see hubex_stat_server; a longer interval (every) asks less often.';
        END IF;
        IF NOT gone THEN
            RETURN NEXT;
        END IF;

        BEGIN
            hint := NULL;
            SELECT array_agg(quote_ident(c."column")) AS names,
                   string_agg(format('ADD COLUMN %I %s', c."column", c.type), ', ') AS adds INTO unshown
              FROM hubex.check_subscription(m.name) c WHERE c.what = 'unshown';
            IF unshown.names IS NOT NULL THEN
                -- many are a choice, a few may be new
                ok := true;
                message := format('Subscription "%s": %s has columns that %s does not show: %s%s.', m.name, m.foreign_table, m.target,
                    array_to_string(unshown.names[:5], ', '), ' and ' || nullif(greatest(cardinality(unshown.names) - 5, 0), 0) || ' more');
                hint := CASE WHEN cardinality(unshown.names) <= 5
                    THEN format('ALTER TABLE %s %s; then CALL hubex_sync(%L, ''full'').', m.target, unshown.adds, m.name) END;
                RETURN NEXT;
            END IF;
            hint := NULL;
            SELECT string_agg(quote_ident(c."column"), ', ') AS names,
                   string_agg(format('ADD COLUMN %I %s', c."column", c.type), ', ') AS adds INTO lost
              FROM hubex.check_subscription(m.name) c WHERE c.what = 'lost';
            IF lost.names IS NOT NULL THEN
                ok := false;
                message := format('Subscription "%s": columns of %s are filled no more, as %s has none of their names: %s.', m.name, m.target,
                    m.foreign_table, lost.names);
                hint := format('ALTER FOREIGN TABLE %s %s; or drop them.', m.foreign_table, lost.adds);
                RETURN NEXT;
            END IF;
        EXCEPTION WHEN others THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            ok := false; message := format('Subscription "%s": %s.', m.name, sqlerrm) || CASE WHEN detail <> '' THEN ' ' || detail ELSE '' END;
            hint := nullif(hint, '');
            RETURN NEXT;
        END;
        CONTINUE WHEN gone;

        hint := NULL;
        FOR drifting IN SELECT d.key, d.value FROM jsonb_each(m.drift) d ORDER BY d.key
        LOOP
            ok := false;
            message := format('Subscription "%s": column "%s" of the remote records has changed since %s: %s (%s records).', m.name,
                drifting.key, drifting.value ->> 'since', drifting.value ->> 'problem', drifting.value ->> 'count');
            RETURN NEXT;
        END LOOP;

        IF EXISTS (SELECT FROM jsonb_each_text(m.owners) o WHERE o.value <> 'remote')
            AND NOT EXISTS (SELECT FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
                             WHERE g.tgrelid = m.target AND p.proname = 'hubex_mirror_trigger' AND g.tgenabled IN ('O', 'A'))
        THEN
            ok := false;
            message := format('Subscription "%s" has columns of another owner than the remote side, and no trigger on %s sends what is changed there.',
                m.name, m.target);
            hint := format('CREATE TRIGGER to_hubex AFTER UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION hubex_mirror_trigger(%L).',
                m.target, m.name);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION hubex.check_mirrors(name) IS 'Private: what hubex_check() says of the subscriptions of a server, and of those that have none any more';

-- Mirrors: running

CREATE PROCEDURE hubex_sync(name text, mode text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE hubex_sync(text, text) IS
'Public: brings a mirror in step now, as the worker does; mode: incremental or full, without one what is due and at least an incremental run. Waits for a run that is under way, tells how far it is, and commits as it goes';

CREATE FUNCTION hubex_confirm_deletes(name text) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_confirm_deletes(text) IS
'Public: lets a full reading that waits delete rows although they are more than delete_limit allows; returns how many those are';

CREATE FUNCTION hubex_is_syncing() RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_is_syncing() IS
'Public: in a trigger, does what fired it write what came from the remote side? So triggers tell remote changes from local ones';

-- Mirrors: looking

CREATE FUNCTION hubex.sync_progress(OUT pid integer, OUT database oid, OUT subscription text, OUT mode text,
    OUT phase text, OUT records_total bigint, OUT records_done bigint, OUT rows_inserted bigint, OUT rows_updated bigint,
    OUT rows_deleted bigint, OUT rows_unchanged bigint, OUT pages bigint, OUT requests bigint, OUT retries bigint,
    OUT bytes bigint, OUT throttled_time double precision, OUT began_at timestamptz, OUT time_left interval)
    RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10
AS 'MODULE_PATHNAME', 'hubex_sync_progress';
COMMENT ON FUNCTION hubex.sync_progress() IS 'Private: the runs under way in all databases; none without preload';

CREATE VIEW hubex_stat_progress_sync AS
SELECT p.pid, p.database AS datid, d.datname, p.subscription, p.mode, p.phase, p.records_total, p.records_done,
       p.rows_inserted, p.rows_updated, p.rows_deleted, p.rows_unchanged, p.pages, p.requests, p.retries, p.bytes,
       p.throttled_time, p.began_at, p.time_left
  FROM hubex.sync_progress() p
  JOIN pg_catalog.pg_database d ON d.oid = p.database
 WHERE pg_catalog.has_table_privilege('hubex.connector', 'INSERT')
    OR d.datname = pg_catalog.current_database() AND EXISTS (SELECT FROM hubex.mirror m WHERE m.name = p.subscription);
COMMENT ON VIEW hubex_stat_progress_sync IS
'Public: the runs of subscriptions that are under way, of those that hubex_stat_sync shows; an administrator sees those of all databases. time_left is what the quota, or the pace so far, leaves to be read; throttled_time is in ms. None without preload';

CREATE VIEW hubex_stat_sync AS
SELECT m.name, m.owner, m.server, m.foreign_table, m.target, m.mode, w.state, w.reason, m."cursor", m.in_step_at,
       pg_catalog.clock_timestamp() - m.in_step_at AS lag,
       (SELECT sum(pg_catalog.pg_stat_get_live_tuples(r.relid))::bigint
          FROM (SELECT p.relid FROM pg_catalog.pg_partition_tree(m.target) p UNION SELECT m.target) r) AS rows,
       m.filled_at, m.sweep_began_at, m.sweep_position AS sweep_done, m.sweep_total,
       CASE WHEN NOT m.sweep_confirmed THEN m.sweep_missing END AS to_confirm,
       CASE WHEN m.mode <> 'full' AND m.every IS NOT NULL THEN m.next_at END AS next_at, m.next_full_at,
       m.runs, m.requests, m.inserted, m.updated, m.deleted, m.unchanged,
       (SELECT count(*) FROM hubex.local_change c WHERE c.subscription = m.name AND c.state = 'open') AS pending,
       (SELECT count(*) FROM hubex.conflict c WHERE c.subscription = m.name) AS conflicts,
       m.drift, m.failures + m.sweep_failures AS failures, m.last_started_at, m.last_ended_at, m.last_error, m.last_error_at
  FROM hubex.mirror m
 CROSS JOIN hubex.held() AS h (why)
 CROSS JOIN LATERAL (SELECT CASE WHEN m.mode = 'full' THEN m.next_full_at + COALESCE(m.full_every, m.every)
                                 ELSE m.next_at + m.every END AS time) AS late
 CROSS JOIN LATERAL (
       SELECT CASE WHEN h.why IS NOT NULL OR m.foreign_binding THEN 'held'
                   WHEN m.paused THEN 'paused'
                   WHEN m.failures + m.sweep_failures > 0 THEN 'failing'
                   WHEN m.sweep_missing IS NOT NULL AND NOT m.sweep_confirmed THEN 'waits for confirmation'
                   WHEN m.filled_at IS NULL THEN 'filling'
                   WHEN late.time < pg_catalog.clock_timestamp() AND m.every IS NOT NULL THEN 'late'
                   ELSE 'in step' END,
              CASE WHEN h.why IS NOT NULL THEN h.why
                   WHEN m.foreign_binding THEN 'It came here with a copy of another database; see hubex_take_over()'
                   WHEN m.paused THEN pg_catalog.format('Server %I is paused; see hubex_resume()', m.server)
                   WHEN m.failures + m.sweep_failures > 0 THEN m.last_error
                   WHEN m.sweep_missing IS NOT NULL AND NOT m.sweep_confirmed
                   THEN pg_catalog.format('%s rows would be deleted; see hubex_confirm_deletes()', m.sweep_missing)
                   END) AS w (state, reason);
COMMENT ON VIEW hubex_stat_sync IS
'Public: how each subscription stands: in step, filling, late, failing, waits for confirmation, paused or held, and why; lag is the age of the last look that came to its end, rows an estimate, the counts are of all runs. Subscriptions of one''s own roles and of servers one may use; an administrator sees all';
COMMENT ON COLUMN hubex_stat_sync."cursor" IS 'the newest remote change up to which the target has everything';
COMMENT ON COLUMN hubex_stat_sync.in_step_at IS 'when the last run began that came to its end: as of then the target is in step';
COMMENT ON COLUMN hubex_stat_sync.to_confirm IS 'so many rows wait for hubex_confirm_deletes() to be deleted';
COMMENT ON COLUMN hubex_stat_sync.pending IS 'values changed in the target that the remote side has not been seen to have yet';

-- Mirrors: two-way

CREATE FUNCTION hubex_mirror_trigger() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_mirror_trigger() IS
'Public: trigger function (subscription) of a mirror, AFTER UPDATE OR DELETE and BEFORE INSERT, FOR EACH ROW: sends changes that are made here, of columns whose owner is local or newest. A new row is not stored: it is shown when the remote side has it';

CREATE FUNCTION hubex.pending(subscription text, OUT key text, OUT operation text, OUT state text, OUT request bigint,
    OUT fields jsonb) RETURNS SETOF record
LANGUAGE C STABLE STRICT PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'hubex_pending';
COMMENT ON FUNCTION hubex.pending(text) IS 'Private: changes made in a mirror that the remote side has not been seen to have; see hubex_pending_view()';

CREATE FUNCTION hubex_pending_view(subscription text, view text) RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION hubex_pending_view(text, text) IS
'Public: makes a view over a mirror that shows what is on its way to the remote side: hubex_pending (create, update, delete or null), hubex_state and hubex_request; rows to be created, and those deleted here, are in it, too. Made again after the mirror was altered';

-- Who may act as a subscription's owner sees its conflicts, and may delete them; an administrator all.
ALTER TABLE hubex.conflict ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_conflicts ON hubex.conflict
    USING ((SELECT pg_catalog.has_table_privilege('hubex.connector', 'INSERT'))
        OR subscription IN (SELECT m.name FROM hubex.mirror m JOIN pg_catalog.pg_roles r ON r.rolname = m.owner
                             WHERE pg_catalog.pg_has_role(r.oid, 'USAGE')));

------------------------------------------------------------------------------
-- Rights, and the start of the worker
------------------------------------------------------------------------------

DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN
        SELECT d.objid FROM pg_catalog.pg_depend d, pg_catalog.pg_extension e
         WHERE e.extname = 'hubex' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
           AND d.refobjid = e.oid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', routine);
    END LOOP;
END
$$;

SELECT hubex.announce();
