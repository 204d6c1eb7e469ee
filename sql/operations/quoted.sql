-- A name as it stands in a statement that an operator is told to run: in quotes where it needs them.
SELECT pg_catalog.quote_ident(%(name)s) AS name
