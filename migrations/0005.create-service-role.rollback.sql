-- Takes back 0005: who serves as a member of tasks_service can do nothing any more. The role itself stays, since it
-- belongs to the whole server: other databases may use it, and its members would lose it.

SET lock_timeout = '500ms';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tasks_service') THEN
        REVOKE ALL ON users, tasks, idempotency_keys, _yoyo_migration FROM tasks_service;
        REVOKE ALL ON SEQUENCE tasks_id_seq FROM tasks_service;
        EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM tasks_service', current_schema);
    END IF;
END $$;
