-- Everything that is kept about one user, a JSON text a row: the user, the tasks, the idempotency keys. No rows: there is
-- no such user. Read through a cursor, so that a user with millions of tasks takes no more memory than one with few.
SELECT pg_catalog.json_build_object('user', pg_catalog.row_to_json(person))::text
FROM {schema}.users AS person
WHERE person.id = %(user)s
UNION ALL
SELECT pg_catalog.json_build_object('task', pg_catalog.row_to_json(task))::text
FROM {schema}.tasks AS task
WHERE task.user_id = %(user)s
UNION ALL
SELECT
    pg_catalog.json_build_object(
        'idempotency_key',
        pg_catalog.json_build_object(
            'key', record.key, 'operation', record.operation, 'task_ids', record.task_ids, 'created_at', record.created_at
        )
    )::text
FROM {schema}.idempotency_keys AS record
WHERE record.user_id = %(user)s
