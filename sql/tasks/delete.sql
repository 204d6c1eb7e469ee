-- Deletes a task. Deletes nothing if `versions` is given and lacks the task's version, or `excluded_versions` contains it.
-- Returns the row's owner, id and version, and `applied`: true if it was deleted. No row if the user has no such task.
-- A task that was kept is read FOR SHARE, so that the version returned is the newest one even if another transaction has
-- just changed the task; if that version meets the conditions, the caller runs the statement again. Served by tasks_pkey.
WITH deleted AS (
    DELETE FROM {schema}.tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s
        AND (%(versions)s::integer [] IS NULL OR version = ANY (%(versions)s::integer []))
        AND (%(excluded_versions)s::integer [] IS NULL OR version <> ALL (%(excluded_versions)s::integer []))
    RETURNING user_id, id, version
),

kept AS (
    SELECT user_id, id, version
    FROM {schema}.tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND NOT EXISTS (SELECT FROM deleted)
    FOR SHARE
)

SELECT true AS applied, user_id, id, version FROM deleted
UNION ALL
SELECT false AS applied, user_id, id, version FROM kept
