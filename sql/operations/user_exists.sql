-- Whether there is such a user.
SELECT exists(SELECT FROM {schema}.users WHERE id = %(user)s)
