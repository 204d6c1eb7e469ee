-- The session's prepared statement of that name, if the server itself has one: a pooler that keeps track of prepared
-- statements gives them other names.
SELECT name FROM pg_catalog.pg_prepared_statements WHERE name = %(name)s
