"""`python -m tests.support.without_fast_path serve`: the service with Litestar alone. Workers run this module too."""

import sys
from functools import partial

from service.__main__ import main
from service.server import process, workers

process.create_service = partial(process.create_service, fast_path=False)
workers.MODULE = "tests.support.without_fast_path"

if __name__ == "__main__":
    main() if sys.argv[1] == "serve" else workers.main()
