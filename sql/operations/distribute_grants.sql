-- Citus writes out the defaults of columns that an INSERT leaves out, so the service's role needs to insert them too.
GRANT INSERT (created_at) ON {schema}.users TO tasks_service;

GRANT INSERT (version, created_at, updated_at) ON {schema}.tasks TO tasks_service;

GRANT INSERT (created_at) ON {schema}.idempotency_keys TO tasks_service
