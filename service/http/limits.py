"""The numbers of the contract that a client can meet, each stated once.

Errors name them, schemas and requests check them, the OpenAPI document publishes them. The database's CHECKs repeat
four of them; a test holds those equal. Must not import anything of the service.
"""

# Lengths in Unicode code points, as PostgreSQL's char_length counts them.
USER_ID_LENGTH = 255  # users_id_length
TITLE_LENGTH = 255  # tasks_title_length
DESCRIPTION_LENGTH = 5000  # tasks_description_length

IDEMPOTENCY_KEY_LENGTH = 255
QUERY_LENGTH = 100  # parameters
CONDITION_LENGTH = 1000  # entity tags or commas of an If-Match or If-None-Match
REQUEST_ID_LENGTH = 128

BODY_BYTES = 64 * 1024
BATCH_BYTES = 8 * 1024 * 1024
BATCH_LENGTH = 1000  # tasks
LIMIT_MAX = 1000  # tasks on a page

ID_MAX = 2**63 - 1  # PostgreSQL's bigint
VERSION_MAX = 2**31 - 1  # PostgreSQL's integer
