"""Markers of several tests. Apart from the other helpers, since the load harness uses those without pytest."""

import pytest

from tests.support.processes import HTTP_PROTOCOL

own_protocol = pytest.mark.skipif(HTTP_PROTOCOL != "", reason="only service.http.protocol promises this")
