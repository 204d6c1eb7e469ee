-- Copies a table to every node of Citus, so that a service that enters through a worker can read it.
SELECT pg_catalog.create_reference_table(%(table)s::regclass)
