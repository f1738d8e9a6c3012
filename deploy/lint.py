"""Checks what deploy/ ships, each by the tool that reads it in earnest: ``python -m deploy.lint``.

What is not installed is left out and named; with ``--all``, as in CI, that is a failure.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.shipped import Site, make_certificate, nginx_configuration

DEPLOY = Path(__file__).resolve().parent
CHART = DEPLOY / "helm" / "imagehub"
KUBERNETES = ("1.27", "1.33")
"""The oldest release that the chart is for (``kubeVersion``), and a recent one."""

VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "bucket": {
        "environment": {"IMAGEHUB_STORAGE": "s3", "IMAGEHUB_S3_BUCKET": "pictures"},
        "storage": {"media": {"emptyDir": True}, "models": {"existingClaim": "weights"}},
        "config": "generation:\n  images_per_job: 4\n",
        "image": {"pullSecrets": [{"name": "registry"}], "tag": "2"},
    },
    "small": {
        "web": {"replicas": 1, "nodeSelector": {"disk": "ssd"}},
        "clusters": {"training": {"enabled": False}, "generation": {"nodeSelector": {"gpu": "a"}}},
        "ingress": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
}
"""Values that between them take every branch of the templates."""


class Missing(Exception):
    """A tool that is not installed."""


class Faulty(Exception):
    """What a tool says is wrong."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="a missing tool is a failure")
    is_all_needed = parser.parse_args().all
    status = 0
    for name, check in CHECKS.items():
        try:
            check()
        except Missing as missing:
            sys.stdout.write(f"left out: {name}: {missing} is not installed\n")
            status |= is_all_needed
        except Faulty as fault:
            sys.stdout.write(f"FAULTY: {name}\n{fault}\n")
            status = 1
        else:
            sys.stdout.write(f"ok: {name}\n")
    return int(status)


def units() -> None:
    _need("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        # Units name programs where they are installed. Here something else stands in their place.
        for source in (DEPLOY / "systemd").glob("imagehub*"):
            if source.suffix in {".service", ".target"}:
                text = re.sub(
                    r"/opt/imagehub/\.venv/bin/\w+", shutil.which("true") or "/bin/true", source.read_text()
                )
                Path(folder, source.name).write_text(text)
        for cluster in ("generation", "training"):
            drop_in = Path(folder, f"imagehub-cluster@{cluster}.service.d")
            drop_in.mkdir()
            shutil.copy(DEPLOY / "systemd" / "gpu.conf", drop_in)
            Path(folder, f"imagehub-cluster@{cluster}.service").symlink_to("imagehub-cluster@.service")
        names = sorted(
            str(path) for path in Path(folder).iterdir() if path.is_file() and "@." not in path.name
        )
        # It knows the user only where ImageHub is installed, and without systemd at work it finds no other units.
        said = _run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names])
        _fail_if(said)


def site() -> None:
    _need("nginx", "openssl")
    with tempfile.TemporaryDirectory() as folder:
        make_certificate(Path(folder))
        path = nginx_configuration(Site(Path(folder), 8000, 8080, 8443))
        said = _run(["nginx", "-t", "-q", "-e", "stderr", "-c", str(path)])
        _fail_if(said)


def dockerfile() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        raise Missing("hadolint")
    _fail_if(_run([str(program), str(DEPLOY / "docker" / "Dockerfile")]))


def compose_file() -> None:
    plugin = (
        subprocess.run(["docker", "compose", "version"], capture_output=True)
        if shutil.which("docker")
        else None
    )
    if plugin is not None and plugin.returncode == 0:
        program = ["docker", "compose"]
    else:
        _need("docker-compose")
        program = ["docker-compose"]
    folder = DEPLOY / "docker"
    required = re.findall(r"^(\w+)=$", (folder / ".env.example").read_text(), re.MULTILINE)
    env = os.environ | dict.fromkeys(required, "x")
    argv = [*program, "--env-file", str(folder / ".env.example")]
    for files in (["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]):
        chosen = [part for name in files for part in ("-f", str(folder / name))]
        _fail_if(_run([*argv, *chosen, "config", "-q"], env=env))


def chart() -> None:
    if importlib.util.find_spec("helm_python") is None:
        raise Missing("helm-python-sdk")
    import helm_python

    for name, values in VALUES.items():
        report = helm_python.lint(CHART, values, strict=True)
        _fail_if(
            "\n".join(
                f"{name}: {message['error']}" for message in report["messages"] if message["severity"] > 1
            )
        )
        with helm_python.Chart.load(CHART) as loaded:
            try:
                loaded.validate_schema(values)
                rendered = loaded.render(values, name="imagehub", namespace="imagehub")
            except helm_python.HelmError as error:
                raise Faulty(f"{name}: {error}") from error
        documents = list(_documents(rendered))
        for document in documents:
            _validate(name, document)
        _check_order(name, documents)
    with helm_python.Chart.load(CHART) as loaded:
        try:
            loaded.validate_schema({"environment": {"IMAGEHUB_SECRET_KEY": "x"}})
        except helm_python.HelmError:
            return
    raise Faulty("values.schema.json lets a secret stand among the plain variables")


def _documents(rendered: dict[str, str]) -> Iterator[dict[str, Any]]:
    for path, text in rendered.items():
        if not path.endswith(".txt"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def _check_order(name: str, documents: list[dict[str, Any]]) -> None:
    """Refuse pods that use what is made at another time: hooks come first, go, and are not rolled back with a release."""
    made: dict[str, set[bool]] = {}
    for document in documents:
        if document["kind"] in {"ConfigMap", "ServiceAccount"}:
            made.setdefault(document["metadata"]["name"], set()).add(_is_hook(document))
    for document in documents:
        if document["kind"] in {"Deployment", "Job"}:
            where = f"{name}: {document['kind']} {document['metadata']['name']}"
            pod = document["spec"]["template"]["spec"]
            used = set(re.findall(r"'configMap(?:Ref)?': {'name': '([^']+)'", str(pod)))
            for other in used | {pod["serviceAccountName"]}:
                if made.get(other) != {_is_hook(document)}:
                    raise Faulty(f"{where}: {other} is made at another time")
            if str(pod).count("'httpGet'") != str(pod).count("'httpHeaders': [{'name': 'Host'"):
                raise Faulty(f"{where}: a probe does not name the Host, and would be refused")


def _is_hook(document: dict[str, Any]) -> bool:
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def _validate(name: str, document: dict[str, Any]) -> None:
    if importlib.util.find_spec("kubernetes_validate") is None:
        raise Missing("kubernetes-validate")
    import kubernetes_validate

    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(str(part) for part in error.path)
            raise Faulty(
                f"{name}: {document['kind']} {document['metadata']['name']}: {where}: {error.message}"
            ) from error


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(program)


def _run(argv: list[str], env: dict[str, str] | None = None) -> str:
    """Run a tool. Returns what it says, which is nothing where nothing is wrong."""
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    said = (done.stdout + done.stderr).strip()
    return said or (f"{argv[0]} ended with {done.returncode}" if done.returncode else "")


def _fail_if(said: str) -> None:
    if said:
        raise Faulty(said)


CHECKS: dict[str, Callable[[], None]] = {
    "systemd-analyze verify": units,
    "nginx -t": site,
    "hadolint": dockerfile,
    "docker compose config": compose_file,
    "helm lint, helm template, and the API of Kubernetes": chart,
}

if __name__ == "__main__":
    sys.exit(main())
