-- The settings `names` as a session of this role has them, and where each comes from; a setting that this version of
-- PostgreSQL does not have is left out. Run before the search path is set to pg_catalog.
SELECT setting.name, setting.setting, setting.unit, setting.source
FROM pg_catalog.pg_settings AS setting
WHERE setting.name OPERATOR(pg_catalog.=) ANY (%(names)s::pg_catalog.text [])
ORDER BY setting.name
