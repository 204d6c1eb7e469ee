-- Rolls back 0002: every task is lost.

SET lock_timeout = '500ms';

DROP TABLE tasks;
