-- Rolls back 0005: members of tasks_service lose every privilege, so a running service fails. The role itself stays,
-- because it belongs to the whole PostgreSQL server: other databases may use it.

SET lock_timeout = '500ms';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tasks_service') THEN
        REVOKE ALL ON users, tasks, idempotency_keys, _yoyo_migration FROM tasks_service;
        REVOKE ALL ON SEQUENCE tasks_id_seq FROM tasks_service;
        EXECUTE pg_catalog.format('REVOKE USAGE ON SCHEMA %I FROM tasks_service', pg_catalog.current_schema());
    END IF;
END $$;
