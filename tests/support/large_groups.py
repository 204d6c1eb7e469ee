"""`python -m tests.support.large_groups serve`: the service with one write lane at a time, so that all writes that come
while it is busy go as one group. Workers run this module too.
"""

import sys

from service.__main__ import main
from service.database import database, lane_pool
from service.server import workers

lane_pool.FEW_LANES = 1
lane_pool.FULL_GROUP = database.MAX_GROUP
workers.MODULE = "tests.support.large_groups"

if __name__ == "__main__":
    main() if sys.argv[1] == "serve" else workers.main()
