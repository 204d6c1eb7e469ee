-- Takes back 0003: the open list stays right, only slower.
-- transactional: false

SET lock_timeout = '10min';

DROP INDEX CONCURRENTLY IF EXISTS tasks_open_idx;
