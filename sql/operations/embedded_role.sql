-- The role that the service logs in as on its own PostgreSQL: a member of tasks_service (migration 0005), and nothing more.
-- Run by `serve` after the migrations; changes nothing where it is there.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tasks_app') THEN
        CREATE ROLE tasks_app LOGIN;
    END IF;
    IF NOT pg_catalog.pg_has_role('tasks_app', 'tasks_service', 'MEMBER') THEN
        GRANT tasks_service TO tasks_app;
    END IF;
END $$;
