"""The command line and what its commands do: migrations, check, prune, the embedded PostgreSQL."""
