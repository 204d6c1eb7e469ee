"""deploy/kubernetes: valid manifests that name settings of this service and give it the time that a stop takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import describe
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
DOCUMENTS: list[tuple[Path, dict[str, Any]]] = [
    (path, document) for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
NAMES = [f"{path.stem}-{document['kind']}" for path, document in DOCUMENTS]
SETTINGS = {name: default for name, default, *_ in describe()}


def by_kind(kind: str) -> dict[str, Any]:
    return next(document for _, document in DOCUMENTS if document["kind"] == kind)


def environment(pod: dict[str, Any]) -> dict[str, str]:
    (container,) = pod["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


@pytest.mark.debian  # or rather of the extra `deploy`
@pytest.mark.parametrize(("path", "document"), DOCUMENTS, ids=NAMES)
def test_each_manifest_is_valid(path: Path, document: dict[str, Any]) -> None:
    """By the API's own schemas of the newest version that the package has, where an unknown field is an error."""
    import kubernetes_validate

    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_each_variable_is_a_setting(kind: str) -> None:
    assert set(environment(by_kind(kind)["spec"]["template"]["spec"])) <= set(SETTINGS)


def test_the_pod_lives_longer_than_a_stop_takes() -> None:
    pod = by_kind("Deployment")["spec"]["template"]["spec"]
    given = SETTINGS | environment(pod)
    assert pod["terminationGracePeriodSeconds"] > int(given["DRAIN_S"]) + int(given["SHUTDOWN_GRACE_S"])


def test_the_load_balancer_notices_before_the_port_closes() -> None:
    pod = by_kind("Deployment")["spec"]["template"]["spec"]
    probe = pod["containers"][0]["readinessProbe"]
    notices_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert int(environment(pod)["DRAIN_S"]) > notices_s


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_the_container_has_no_privileges(kind: str) -> None:
    pod = by_kind(kind)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_budget_and_the_service_select_the_deployment_s_pods() -> None:
    labels = by_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    job = by_kind("Job")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        by_kind("Service")["spec"]["selector"],
        by_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= job.items()
