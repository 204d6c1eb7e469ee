-- The list of open tasks (sql/tasks/list_open.sql). Without this index, that list would read all of a user's completed
-- tasks to find the few open ones. It is small, because completed tasks are not in it.
-- Deploy: pre.
-- transactional: false
-- depends: 0002.create-tasks
-- replaces: d5b093ae02f3db7aa0167a05e477d3f6bb5d2a8ca9fef53b411dceecf4e1a658

-- CONCURRENTLY waits for every older transaction, but blocks no request meanwhile. `migrate apply` first drops an invalid
-- index that an interrupted build left behind.
SET lock_timeout = '10min';

CREATE INDEX CONCURRENTLY tasks_open_idx ON tasks (user_id, id) WHERE NOT completed;
