from service.app import create_app
from service.auth import Principal
from service.http.errors import authentication_required
from service.settings import load

KEYS = {b"5b6d9c1e": "user-1", b"a04f77d2": "user-2"}


class ApiKeys:
    """The caller is the user whose API key the request has."""

    async def authenticate(self, headers, path_user_id):
        user_id = KEYS.get(dict(headers).get(b"x-api-key", b""))
        if user_id is None:
            raise authentication_required()
        return Principal(user_id)


app = create_app(load(), authenticator=ApiKeys())
