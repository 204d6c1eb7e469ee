-- Tasks: every row has an owner.
-- The primary key starts with user_id. Its index serves get, update, delete and toggle (user_id, id), the list newest
-- first (user_id, id DESC: read backwards) and its pages (user_id, id < after). Hash partitioning and Citus also need
-- the distribution column in every unique key. Lengths count code points, as the service does.
-- The title is stored trimmed. White space is what str.strip removes; btrim gets that set in full.
-- Deploy: pre.
-- depends: 0001.create-users
-- replaces: 289abcbd3d23db31a7edd9b225611ea55e4937a52fe69b9ae09aa33703a74413

SET lock_timeout = '500ms';

CREATE TABLE tasks (
    user_id text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    title text NOT NULL,
    description text,
    completed boolean NOT NULL DEFAULT false,
    -- squawk-ignore prefer-bigint-over-int
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT tasks_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT tasks_title_length CHECK (pg_catalog.char_length(title) BETWEEN 1 AND 255),
    CONSTRAINT tasks_title_trimmed CHECK (
        title = pg_catalog.btrim(
            title,
            U&'\0009\000A\000B\000C\000D\001C\001D\001E\001F\0020\0085\00A0\1680\2000\2001\2002\2003\2004\2005'
            '\2006\2007\2008\2009\200A\2028\2029\202F\205F\3000'
        )
    ),
    CONSTRAINT tasks_description_length CHECK (pg_catalog.char_length(description) <= 5000),
    CONSTRAINT tasks_version_positive CHECK (version >= 1)
);
