-- Takes back 0002: every task is lost.

SET lock_timeout = '5s';

DROP TABLE IF EXISTS tasks;
