-- Deletes a task. With `versions`, nothing is deleted unless the task's version is one of them.
-- Answers the version that was deleted, or, with `matched` false, the one that stood in the way; no row where there is
-- no such task. A task that was kept is read FOR SHARE, so that its version is the newest even where another request has
-- just changed it. Served by tasks_pkey.
WITH deleted AS (
    DELETE FROM tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s
        AND (%(versions)s::integer [] IS NULL OR version = ANY (%(versions)s::integer []))
    RETURNING version
),

kept AS (
    SELECT version
    FROM tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND NOT EXISTS (SELECT FROM deleted)
    FOR SHARE
)

SELECT true AS matched, version FROM deleted
UNION ALL
SELECT false AS matched, version FROM kept
