-- Users: the rows that a task's owner refers to. Accounts belong to the auth provider; a row is created here with the
-- user's first task, in the same statement (sql/tasks/create.sql).
-- Deploy: pre.
-- depends:
-- replaces: 90b72f22e3aece492b63a12a07463cefcbedbbffdf01010e4f48791c565f4aa6

SET lock_timeout = '500ms';

CREATE TABLE users (
    id text NOT NULL,
    email text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_key UNIQUE (email),
    CONSTRAINT users_id_length CHECK (pg_catalog.char_length(id) BETWEEN 1 AND 255),
    CONSTRAINT users_email_length CHECK (pg_catalog.char_length(email) BETWEEN 3 AND 320)
);
