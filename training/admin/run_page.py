"""What the page of one training run shows: its curves, samples, log, and what else is made for looking at."""

import json
from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from imagehub.jobs.models import JobStatus
from training.admin.drawings import chart
from training.models import MetricPoint, Sample, TrainingRun
from training.services import metrics
from training.services.disk import disk_of
from training.services.preflight import preflight_of_run

NOTHING = "\N{EN DASH}"

CHART_POINTS = 120
MOST_SAMPLES = 60
PREFLIGHT_SECONDS = 60
"""So long one is good: an open page asks for itself every few seconds."""


class RunPage:
    """Fields of the page of a run. Those with ``data-live`` are kept fresh while it runs."""

    @admin.display(description="Losses", empty_value="Nothing was measured yet.")
    def losses(self, run: TrainingRun) -> str | None:
        train = metrics.curve(run, MetricPoint.Kind.TRAIN, points=CHART_POINTS)
        validation = metrics.curve(run, MetricPoint.Kind.VALIDATION, points=CHART_POINTS)
        drawn = chart(train, validation, total=run.total_steps)
        return format_html('<div id="losses" data-live>{}</div>', drawn) if drawn else None

    @admin.display(description="Samples", empty_value="None yet.")
    def samples_grid(self, run: TrainingRun) -> str | None:
        """Show what each prompt looked like at each step: a row for each prompt, the latest steps first."""
        found = list(run.samples.order_by("-step", "index")[:MOST_SAMPLES])
        if not found:
            return None
        steps = sorted({sample.step for sample in found}, reverse=True)
        by_place = {(sample.index, sample.step): sample for sample in found}
        prompts = {sample.index: sample.prompt for sample in found}
        head = format_html_join("", "<th>Step {}</th>", ((step,) for step in steps))
        rows = [
            format_html(
                '<tr><td class="prompt">{}</td>{}</tr>',
                prompts[index],
                self._row(run, index, steps, by_place),
            )
            for index in sorted(prompts)
        ]
        body = format_html_join("", "{}", ((row,) for row in rows))
        return format_html(
            '<div id="samples" data-live><table class="samples"><tr><th></th>{}</tr>{}</table></div>',
            head,
            body,
        )

    def _row(
        self, run: TrainingRun, index: int, steps: list[int], by_place: dict[tuple[int, int], Sample]
    ) -> str:
        urls = [
            reverse("training-sample-file", args=[run.pk, sample.pk])
            if (sample := by_place.get((index, step)))
            else ""
            for step in steps
        ]
        return format_html_join(
            "",
            '<td><a href="{0}"><img src="{0}" alt="" loading="lazy"></a></td>',
            ((url,) for url in urls if url),
        )

    @admin.display(description="Preflight", empty_value="")
    def preflight(self, run: TrainingRun) -> str | None:
        """Report on its pictures, as long as that can change anything."""
        if run.status not in (JobStatus.PENDING, JobStatus.QUEUED):
            return None
        said, findings = cache.get_or_set(f"preflight:{run.pk}", lambda: _looked_at(run), PREFLIGHT_SECONDS)
        listed = format_html_join("", '<li class="{}">{} ({})</li>', findings)
        return format_html('<p>{}</p><ul class="findings">{}</ul>', said, listed)

    @admin.display(description="Disk", empty_value="Nothing.")
    def disk(self, run: TrainingRun) -> str:
        parts = disk_of(run)
        rows = ((name, filesizeformat(size)) for name, size in parts.items())
        return format_html(
            "{} ({})", filesizeformat(sum(parts.values())), format_html_join(", ", "{} {}", rows)
        )

    @admin.display(description="Recipe")
    def recipe(self, run: TrainingRun) -> str:
        return _as_json(run.config)

    @admin.display(description="Expected")
    def expected(self, run: TrainingRun) -> str:
        return _as_json(run.estimate)

    @admin.display(description="Measured, and remarked")
    def measured(self, run: TrainingRun) -> str:
        return format_html('<div id="measured" data-live>{}</div>', _as_json(run.facts))

    @admin.display(description="Pictures")
    def pictures(self, run: TrainingRun) -> str:
        albums = ", ".join(str(album.get("name", "")) for album in run.dataset.albums)
        return f"{run.dataset.images.count()} of {albums}"


def _looked_at(run: TrainingRun) -> tuple[str, list[tuple[str, str, int]]]:
    """Return what a preflight says: in a sentence, and what it has found, with its kind and of how many pictures."""
    report = preflight_of_run(run)
    counts = report.counts
    said = (
        f"{counts.train} pictures to learn from and {counts.validation} to measure by, in {len(report.buckets)} "
        f"sizes; {report.steps_per_epoch} steps in an epoch, {report.epochs:g} epochs."
    )
    kinds = (("blocker", report.blockers), ("warning", report.warnings))
    return said, [(kind, item.detail, item.count) for kind, items in kinds for item in items]


def _as_json(value: Any) -> str:
    if not value:
        return NOTHING
    return format_html('<pre class="facts">{}</pre>', json.dumps(value, indent=1, ensure_ascii=False))
