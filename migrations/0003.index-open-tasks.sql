-- The list of open tasks (sql/tasks/list_open.sql): without it, a user with a long history of completed tasks would
-- have them all read to find the few that are open. Small, because completed tasks leave it.
-- Deploy: pre.
-- transactional: false
-- depends: 0002.create-tasks

-- Waits for every older transaction, and holds up no request meanwhile.
SET lock_timeout = '10min';

-- A build that was cut short leaves an invalid index behind, which IF NOT EXISTS would keep.
DROP INDEX CONCURRENTLY IF EXISTS tasks_open_idx;

-- squawk-ignore prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_open_idx ON tasks (user_id, id) WHERE NOT completed;
