-- Changes what is given and leaves the rest: a title or a completed that is NULL is not given; a description is given
-- when sets_description, and may be NULL. The row is touched, and version moves, only where something really changes.
-- With `versions`, nothing changes unless the task's version is one of them.
-- Answers the task as it then is; no row where there is no such task. A task that was not changed is read FOR SHARE, so
-- that what is answered is its newest state even where another request has just changed it. `matched` says whether that
-- is what was asked for: false where the version stood in the way, and where the task was as asked for, or of another
-- version, when this statement began and is not when it could be read. Served by tasks_pkey.
WITH changed AS (
    UPDATE tasks
    SET
        title = coalesce(%(title)s, title),
        description = CASE WHEN %(sets_description)s THEN %(description)s ELSE description END,
        completed = coalesce(%(completed)s, completed),
        version = version + 1,
        updated_at = clock_timestamp()
    WHERE user_id = %(user_id)s AND id = %(task_id)s
        AND (%(versions)s::integer [] IS NULL OR version = ANY (%(versions)s::integer []))
        AND (
            title <> coalesce(%(title)s, title)
            OR completed <> coalesce(%(completed)s, completed)
            OR (%(sets_description)s AND description IS DISTINCT FROM %(description)s)
        )
    RETURNING id, user_id, title, description, completed, version, created_at, updated_at
),

unchanged AS (
    SELECT id, user_id, title, description, completed, version, created_at, updated_at
    FROM tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND NOT EXISTS (SELECT FROM changed)
    FOR SHARE
)

SELECT true AS matched, id, user_id, title, description, completed, version, created_at, updated_at
FROM changed
UNION ALL
SELECT
    (%(versions)s::integer [] IS NULL OR version = ANY (%(versions)s::integer []))
    AND title = coalesce(%(title)s, title)
    AND completed = coalesce(%(completed)s, completed)
    AND NOT (%(sets_description)s AND description IS DISTINCT FROM %(description)s) AS matched,
    id, user_id, title, description, completed, version, created_at, updated_at
FROM unchanged
