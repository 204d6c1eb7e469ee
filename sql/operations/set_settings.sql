-- Sets each of `names` to its value, until the transaction ends where `local`, else until the session does.
SELECT pg_catalog.set_config(setting.name, setting.value, %(local)s)
FROM ROWS FROM (pg_catalog.unnest(%(names)s::text []), pg_catalog.unnest(%(values)s::text [])) AS setting (name, value)
