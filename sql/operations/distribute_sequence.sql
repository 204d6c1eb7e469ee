-- Citus does not pass on the privilege on an identity's sequence: grants it on each worker, and says how each answered.
SELECT worker.nodename, worker.nodeport, worker.success, worker.result
FROM pg_catalog.run_command_on_workers(
    pg_catalog.format('GRANT USAGE ON SEQUENCE %%I.tasks_id_seq TO tasks_service', %(schema)s::text)
) AS worker
