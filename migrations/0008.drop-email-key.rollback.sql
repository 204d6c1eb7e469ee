-- Rolls back 0008: nothing is lost, but the addresses in users.email have to be unique. Where two users have one by now it
-- fails, and 0008 stays applied. The index is built while reads and writes go on, and becomes the key's.
-- transactional: false

SET lock_timeout = '10min';

CREATE UNIQUE INDEX CONCURRENTLY users_email_key ON users (email);

ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE USING INDEX users_email_key;
