-- Takes back 0001: every user is lost. Needs 0002 taken back first.

SET lock_timeout = '500ms';

DROP TABLE IF EXISTS users;
