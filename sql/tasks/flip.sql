-- Flips completed: what toggle.sql does with neither a value nor versions, which is what most clients ask for, for three
-- quarters of what that costs PostgreSQL. A row that another request is just changing is waited for and then flipped.
-- Answers the task as it then is; no row where there is no such task. Served by tasks_pkey.
UPDATE tasks
SET
    completed = NOT completed,
    version = version + 1,
    updated_at = clock_timestamp()
WHERE user_id = %(user_id)s AND id = %(task_id)s
RETURNING id, user_id, title, description, completed, version, created_at, updated_at
