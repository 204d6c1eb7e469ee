-- Distributes a table over Citus' nodes by hash of `by_column`, on the nodes of the table `with` ('none': a group of its
-- own). Moves the rows that are there; writes wait meanwhile.
SELECT pg_catalog.create_distributed_table(%(table)s::regclass, %(by_column)s::text, colocate_with => %(with)s::text)
