"""`python -m tests.support.without_fast_path serve`: the service with Litestar alone. Workers run this module too."""

from functools import partial

from service.operations import cli
from service.server import uvicorn

uvicorn.create_app = partial(uvicorn.create_app, fast_path=False)

if __name__ == "__main__":
    cli.main()
