-- The service's role. tasks_service has the privileges that the statements under sql/ need, column by column, and may
-- read which migrations are applied. It has no other privilege and cannot log in. The service logs in as a member of
-- it:
--     CREATE ROLE tasks_app LOGIN PASSWORD '…' IN ROLE tasks_service;
-- Roles belong to the whole PostgreSQL server, so an existing tasks_service is used as it is; creating it needs
-- CREATEROLE.
-- PostgreSQL checks foreign keys as the tables' owner, so the service needs no privilege for them.
-- Deploy: pre.
-- depends: 0004.create-idempotency-keys
-- replaces: fc581479f1b13f89a99a01c39301f39d82ea03a2ba2f3e3a1f3affccf0deed7e

SET lock_timeout = '500ms';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tasks_service') THEN
        CREATE ROLE tasks_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    RAISE LOG 'tasks_service was created for another database at the same moment';
END $$;

DO $$
BEGIN
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO tasks_service', pg_catalog.current_schema());
END $$;

GRANT SELECT (id), INSERT (id) ON users TO tasks_service;

GRANT
    SELECT (user_id, id, title, description, completed, version, created_at, updated_at),
    INSERT (user_id, id, title, description, completed),
    UPDATE (title, description, completed, version, updated_at),
    DELETE
ON tasks TO tasks_service;

GRANT USAGE ON SEQUENCE tasks_id_seq TO tasks_service;

GRANT
    SELECT (user_id, operation, key, fingerprint, task_ids, created_at),
    INSERT (user_id, operation, key, fingerprint, task_ids),
    UPDATE (fingerprint, task_ids, created_at),
    DELETE
ON idempotency_keys TO tasks_service;

GRANT SELECT ON _yoyo_migration TO tasks_service;
