-- Rolls back 0001: every user is lost. Roll back 0002 first.

SET lock_timeout = '500ms';

DROP TABLE users;
