-- Deletes a user; what is still there of tasks and idempotency keys goes with the row (ON DELETE CASCADE).
DELETE FROM {schema}.users WHERE id = %(user)s
