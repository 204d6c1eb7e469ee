-- Whether any of the migrations `ids` is recorded as applied in this schema.
SELECT EXISTS (
    SELECT FROM {schema}._yoyo_migration AS applied WHERE applied.migration_id = ANY (%(ids)s::text [])
) AS recorded
