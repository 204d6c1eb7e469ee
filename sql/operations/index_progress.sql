-- How far the index is that session `pid` builds, and which session it waits for, where it waits for one.
SELECT
    progress.phase,
    progress.blocks_done,
    progress.blocks_total,
    progress.tuples_done,
    progress.tuples_total,
    blocker.pid,
    blocker.usename,
    blocker.application_name,
    blocker.state,
    blocker.xact_start,
    blocker.query
FROM pg_catalog.pg_stat_progress_create_index AS progress
LEFT JOIN pg_catalog.pg_stat_activity AS blocker ON blocker.pid = nullif(progress.current_locker_pid, 0)
WHERE progress.pid = %(pid)s
