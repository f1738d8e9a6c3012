"""How large the web process is after it has answered many different requests."""

from collections import Counter
from itertools import cycle, islice
from pathlib import Path

from bench import machine
from bench.instance import Service, temporary_instance
from bench.report import Figure, at_most, info
from bench.setting import Setting, say
from bench.subject import Subject, pictures
from bench.throughput import make_through_everything

NAME = "web_memory"
GOAL_MIB = 150.0
REQUESTS = 500


def run(setting: Setting) -> list[Figure]:
    """Make a few pictures, ask for everything there is, and look at the process that answered."""
    with temporary_instance() as instance:
        subject = instance.add_subject(setting.scratch)
        instance.add_images(500)
        with instance.supervised() as service:
            web = machine.find_process(service.pid, "uvicorn")
            at_start = machine.memory_mib(web)
            answers = _ask(service, subject)
            pss, rss = machine.memory_mib(web)
            has_torch = "libtorch" in Path(f"/proc/{web}/maps").read_text()
        say(f"answers by status: {dict(sorted(answers.items()))}")
    return [
        at_most(NAME, f"PSS of the web process after {answers.total()} requests", pss, GOAL_MIB, unit=" MiB"),
        at_most(NAME, f"RSS of the web process after {answers.total()} requests", rss, GOAL_MIB, unit=" MiB"),
        info(NAME, "PSS; RSS when it had just started", f"{at_start[0]:.0f}; {at_start[1]:.0f} MiB"),
        Figure(
            NAME,
            "torch is not in it",
            "it is there" if has_torch else "not there",
            "not there",
            verdict="MISS" if has_torch else "pass",
        ),
    ]


def _ask(service: Service, subject: Subject) -> Counter[int]:
    """Make the requests; return how many answers had each status."""
    with service.client() as client:
        _, jobs = make_through_everything(client, pictures(3, first_seed=1), subject)
        image = jobs[0]["images"][0]
        requests: list[tuple[str, str, object]] = [
            ("GET", "/api/health", None),
            ("GET", "/api/images?limit=200", None),
            ("GET", "/api/images", None),
            ("GET", "/api/albums", None),
            ("GET", "/api/jobs", None),
            ("GET", f"/api/jobs/{jobs[0]['id']}", None),
            ("GET", f"/api/images/{image['id']}", None),
            ("GET", image["file_url"], None),
            ("GET", image["thumbnail_url"], None),
            ("POST", "/api/generate", pictures(1, first_seed=9)[0] | {"base_model": subject.name}),
            ("POST", "/api/generate", {"prompt": 7, "steps": True, "nonsense": "x" * 10_000}),
            ("GET", "/api/schema/", None),
            ("GET", "/api/docs/", None),
            ("GET", "/", None),
            ("GET", "/admin/login/", None),
            ("GET", "/static/admin/css/base.css", None),
            ("GET", "/api/nothing", None),
        ]
        return Counter(client.fetch(*request)[0] for request in islice(cycle(requests), REQUESTS))
