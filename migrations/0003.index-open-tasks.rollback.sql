-- Rolls back 0003: the list of open tasks stays correct, but becomes slower.
-- transactional: false

SET lock_timeout = '10min';

DROP INDEX CONCURRENTLY tasks_open_idx;
