"""What a service's /metrics says."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import RunningService
from tests.support.waiting import wait_until

Figures = Counter[tuple[str, ...]]


def figures(service: RunningService, name: str) -> Figures:
    """The samples of one name, by the values of their labels in alphabetical order."""
    answer = service.http.get("/metrics")
    assert answer.status_code == 200
    return Counter(
        {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name
        }
    )


def figure(service: RunningService, name: str) -> float:
    return figures(service, name)[()]


def wait_for_figure(service: RunningService, name: str, value: float) -> None:
    """Waits until the figure has this value."""
    wait_until(lambda: figure(service, name) == value, why=lambda: f"{name} is {figure(service, name)}")


def requests_by_route(service: RunningService) -> Figures:
    """How many requests, by method, route and status; but for the probes."""
    counts = figures(service, "tasks_http_request_duration_seconds_count")
    return Counter({labels: count for labels, count in counts.items() if labels[1] not in ("/metrics", "/readyz")})
