-- The list of open tasks (sql/tasks/list_open.sql). Without this index, that list would read all of a user's completed
-- tasks to find the few open ones. It is small, because completed tasks are not in it.
-- Deploy: pre.
-- transactional: false
-- depends: 0002.create-tasks

-- CONCURRENTLY waits for every older transaction, but blocks no request meanwhile.
SET lock_timeout = '10min';

-- A build that failed leaves an invalid index, which IF NOT EXISTS would keep.
DROP INDEX CONCURRENTLY IF EXISTS tasks_open_idx;

-- squawk-ignore prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_open_idx ON tasks (user_id, id) WHERE NOT completed;
