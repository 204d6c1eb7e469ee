-- E-mail addresses need not be unique: nothing reads users.email, each write to it maintained an index, and a table that
-- Citus distributes by user cannot have a unique key without that column. Dropping the key changes the catalog only, so
-- its lock lasts for a moment; lock_timeout bounds the wait for it.
-- Deploy: pre.
-- depends: 0007.validate-times

SET lock_timeout = '500ms';

-- squawk-ignore ban-drop-constraint
ALTER TABLE users DROP CONSTRAINT users_email_key;
