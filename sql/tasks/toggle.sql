-- Flips completed, or sets it if `completed` is given. Setting it to its present value changes nothing, so a retry is safe.
-- Changes nothing if `versions` is given and lacks the task's version, or `excluded_versions` contains it.
-- Returns the task as it now is, and `applied`; no row if the user has no such task. A task that was not changed is read
-- FOR SHARE, so that the row returned is the newest one even if another transaction has just changed it. `applied` is true
-- if that row is what the request asked for. It is false if a version condition does not hold, and in one race: the
-- condition held, or nothing had to change, when the statement began, and another transaction committed a change before
-- the row was read. The caller then runs the statement again. Served by tasks_pkey.
WITH changed AS (
    UPDATE {schema}.tasks
    SET
        completed = coalesce(%(completed)s, NOT completed),
        version = version + 1,
        updated_at = greatest(updated_at, pg_catalog.statement_timestamp())
    WHERE user_id = %(user_id)s AND id = %(task_id)s
        AND (%(versions)s::integer [] IS NULL OR version = ANY (%(versions)s::integer []))
        AND (%(excluded_versions)s::integer [] IS NULL OR version <> ALL (%(excluded_versions)s::integer []))
        AND completed <> coalesce(%(completed)s, NOT completed)
    RETURNING id, user_id, title, description, completed, version, created_at, updated_at
),

unchanged AS (
    SELECT id, user_id, title, description, completed, version, created_at, updated_at
    FROM {schema}.tasks
    WHERE user_id = %(user_id)s AND id = %(task_id)s AND NOT EXISTS (SELECT FROM changed)
    FOR SHARE
)

SELECT true AS applied, id, user_id, title, description, completed, version, created_at, updated_at
FROM changed
UNION ALL
SELECT
    (%(versions)s::integer [] IS NULL OR version = ANY (%(versions)s::integer []))
    AND (%(excluded_versions)s::integer [] IS NULL OR version <> ALL (%(excluded_versions)s::integer []))
    AND completed = coalesce(%(completed)s, NOT completed) AS applied,
    id, user_id, title, description, completed, version, created_at, updated_at
FROM unchanged
