"""What stands in several shipped files has to agree with the code, and with each other."""

import re

import pytest
import yaml

from deploy import gunicorn_conf
from deploy.shipped import DEPLOY, settings_of
from imagehub.config_schema import Config
from imagehub.jobs.clusters import GRACE_SECONDS, Cluster
from imagehub.production import ROOTS

pytestmark = pytest.mark.once

LEAST_STOP_SECONDS = GRACE_SECONDS + 20
"""As long as the supervisor waits for a training that saves what it has learned."""

MIB = 1 << 20


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())


def values() -> dict:
    return yaml.safe_load((DEPLOY / "helm" / "imagehub" / "values.yaml").read_text())


@pytest.mark.parametrize("cluster", Cluster)
def test_a_cluster_has_the_time_to_save_before_it_is_killed(cluster):
    unit = settings_of("imagehub-cluster@.service", instance=cluster)

    assert unit["ExecStart"][0].endswith(f" qcluster {cluster}")
    assert unit["KillMode"] == ["mixed"]
    assert int(unit["TimeoutStopSec"][0]) >= LEAST_STOP_SECONDS
    assert int(compose()["services"][cluster]["stop_grace_period"].removesuffix("s")) >= LEAST_STOP_SECONDS
    assert compose()["services"][cluster]["environment"]["Q_CLUSTER_NAME"] == cluster
    assert values()["clusterGraceSeconds"] >= LEAST_STOP_SECONDS
    assert values()["clusters"][cluster]["enabled"]


def test_the_web_server_has_the_time_to_end_its_streams():
    assert int(settings_of("imagehub-web.service")["TimeoutStopSec"][0]) > gunicorn_conf.graceful_timeout


def test_proxies_let_through_what_the_application_takes_in():
    site = (DEPLOY / "nginx" / "server.conf").read_text()
    requests, adapters = (int(size) * MIB for size in re.findall(r"client_max_body_size (\d+)m;", site))
    annotation = values()["ingress"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    uploads = Config().uploads

    # A form adds a little to the files in it.
    assert requests > uploads.max_request_bytes + MIB // 2
    assert adapters > uploads.max_adapter_bytes + MIB // 2
    assert int(annotation.removesuffix("m")) * MIB >= adapters


def test_nginx_never_sends_into_a_connection_that_is_being_closed():
    assert gunicorn_conf.keepalive > 60  # nginx's own keepalive_timeout of an upstream, where none is set
    assert "keepalive_timeout" not in (DEPLOY / "nginx" / "imagehub.conf").read_text()


def test_the_example_of_an_environment_names_every_root():
    names = re.findall(r"^(\w+)=", (DEPLOY / "systemd" / "imagehub.env.example").read_text(), re.MULTILINE)
    image = (DEPLOY / "docker" / "Dockerfile").read_text()

    assert set(ROOTS) <= set(names)
    assert all(f"{name}=" in image for name in ROOTS)
