"""Crawls of the system before. ``import_legacy`` runs this after albums and images: see ``albums.legacy.registry``."""

import re
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from albums.batches import in_batches
from albums.legacy import LegacyRun, values
from albums.legacy.source import Row, key_of
from albums.models import Album
from imagehub.config import get_config
from imagehub.egress.hosts import read_host
from imagehub.jobs.models import JobStatus
from scraping.crawler.addresses import normal
from scraping.legacy_origins import Origins, trace_images
from scraping.models import ScrapeJob
from scraping.services.plans import Plan, config_of

TABLE = "scrape_jobs"
COLUMNS = (
    "id", "name", "description", "source_url", "scrape_config", "status", "progress", "images_scraped", "error_message",
    "last_error_at", "created_at", "started_at", "completed_at",
)  # fmt: skip
BATCH = 100
LONGEST_NAME = ScrapeJob._meta.get_field("name").max_length or 0
LONGEST_DETAIL = ScrapeJob._meta.get_field("error_detail").max_length or 0
MOST = 2**31 - 1
MOST_IMAGES = 10_000

END_REASON = "imported"

ENDED: dict[str, JobStatus] = {
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
}

_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)


def import_crawls(run: LegacyRun) -> None:
    """Import crawls as finished ones, and give them the images that they have brought, as far as that can be told.

    From which addresses each picture came was never written down, so they come without items and pages. A retry does again what
    was asked for, by the manners of today.
    """
    if TABLE not in run.source.tables():
        return
    table = run.report.table(TABLE)
    origins = Origins.of(run.source)
    there: dict[int, uuid.UUID] = {}
    for rows in in_batches(run.source.rows(TABLE, COLUMNS), BATCH):
        keys = {row["id"]: key_of(TABLE, row, name=values.text(row["name"])) for row in rows}
        known = set(ScrapeJob.objects.filter(pk__in=keys.values()).values_list("pk", flat=True))
        for row in rows:
            table.found += 1
            key = keys[row["id"]]
            if key in known:
                table.already_there += 1
            elif not _import(row, key, origins.album_of.get(row["id"]), run):
                continue
            there[row["id"]] = key
    traced = trace_images(origins, there, run)
    if traced:
        table.notes["image of which is known now that it came by a crawl"] += traced


def _import(row: Row, key: uuid.UUID, album: uuid.UUID | None, run: LegacyRun) -> bool:
    """Import a crawl; return whether it is there now, or would be."""
    table = run.report.table(TABLE)
    if run.owner is None:
        run.refuse(TABLE, row["id"], "no_owner", "A crawl is somebody's: name a user with --owner.")
        return False
    notes: Counter[str] = Counter()
    address = _address(row, notes)
    if not address:
        run.refuse(TABLE, row["id"], "bad_address", "It has no address of a page.")
        return False
    job = _crawl(row, address, run, notes)
    job.pk = key
    try:
        job.clean_fields(exclude=["owner", "album", "retry_of"])
        if not run.dry_run:
            job.album = Album.objects.filter(pk=album).first() if album else None
            job.album_name = "" if job.album else job.name
            with transaction.atomic():
                job.save(force_insert=True)
    except ValidationError as error:
        run.refuse(TABLE, row["id"], "invalid", f"Not valid: {', '.join(error.message_dict)}.")
        return False
    except IntegrityError:  # another run was faster
        table.already_there += 1
        return True
    table.imported += 1
    table.notes += notes
    return True


def _crawl(row: Row, address: str, run: LegacyRun, notes: Counter[str]) -> ScrapeJob:
    """Return the crawl of a row, unsaved."""
    config = _config(row, notes)
    plan = _plan(address, config)
    saved = values.whole_number(row["images_scraped"], least=0, most=MOST) or 0
    runtime = config.get("runtime")
    found = runtime.get("discovered") if isinstance(runtime, dict) else None
    host = _host(address)
    return ScrapeJob(
        owner=run.owner,
        name=_without_addresses(values.text(row["name"])).strip()[:LONGEST_NAME] or host[:LONGEST_NAME],
        description=_description(row, notes),
        host=host,
        config=config_of(plan),
        images_saved=saved,
        images_found=max(saved, values.whole_number(found, least=0, most=MOST) or 0),
        step=saved,
        total_steps=plan.max_images,
        end_reason=END_REASON,
        **_how_it_ended(row, notes),
    )


def _address(row: Row, notes: Counter[str]) -> str:
    """Return the address that a crawl began with, in its one spelling and without a password; empty where there is none."""
    try:
        parts = urlsplit(values.text(row["source_url"]).strip())
        _, secret, netloc = parts.netloc.rpartition("@")
        address = normal(urlunsplit(parts._replace(netloc=netloc)))
    except ValueError:
        return ""
    if secret:
        notes["password in an address, left out"] += 1
    return address if _host(address) else ""


def _host(address: str) -> str:
    try:
        return str(read_host(urlsplit(address).hostname or ""))
    except ValueError:
        return ""


def _config(row: Row, notes: Counter[str]) -> Mapping[str, Any]:
    try:
        config = values.parsed(row["scrape_config"])
    except ValueError:
        config = ""
    if isinstance(config, dict):
        return config
    if config is not None:
        notes["configuration that cannot be read, taken as the default"] += 1
    return {}


def _plan(address: str, config: Mapping[str, Any]) -> Plan:
    """Return what would be done again. Links were followed on the same host; robots.txt, which was not read, is obeyed."""
    limits = get_config().scraping
    follows = values.flag(config.get("follow_links")) is not False
    depth = values.whole_number(config.get("depth"), least=1, most=10) or limits.depth
    return Plan(
        start_urls=[address],
        depth=depth if follows else 1,
        follow="host" if follows else "nowhere",
        max_pages=limits.max_pages,
        max_images=values.whole_number(config.get("max_images"), least=1, most=MOST_IMAGES) or 1000,
        min_side=limits.minimum_side,
    )


def _description(row: Row, notes: Counter[str]) -> str:
    """Return what somebody wrote of a crawl: the system before wrote its progress over it, with paths of its machine."""
    written = values.text(row["description"]).strip()
    if written and (row["started_at"] is not None or values.text(row["status"]).strip().lower() != "pending"):
        notes["description that told of progress, left out"] += 1
        return ""
    return _without_addresses(written)


def _without_addresses(text: str) -> str:
    """Return a text for everybody: of the addresses in it only their hosts, for there may be a secret behind."""
    return _ADDRESS.sub(lambda found: _host(found[0]) or "…", text)


def _how_it_ended(row: Row, notes: Counter[str]) -> dict[str, Any]:
    """Return status and times. What had not ended there has no one to end it, and counts as cancelled."""
    status = _status(row, notes)
    created = values.moment(row["created_at"])
    if created is None:
        notes["time that cannot be read, taken as now"] += 1
        created = timezone.now()
    started = values.moment(row["started_at"])
    finished: datetime = (
        values.moment(row["completed_at"]) or values.moment(row["last_error_at"]) or started or created
    )
    failure = {}
    if status == JobStatus.FAILED:
        # What stands there names folders of the machine that it was on.
        failure = {
            "error_code": "imported",
            "error_detail": "It failed in the system before.",
            "error_trace": values.text(row["error_message"])[:LONGEST_DETAIL],
        }
    progress = values.whole_number(row["progress"], least=0, most=100) or 0
    return {
        "status": status,
        "progress": 100 if status == JobStatus.COMPLETED else progress,
        "created_at": created,
        "queued_at": created,
        "started_at": started,
        "finished_at": max(finished, created),
        "purged_at": max(finished, created),
        **failure,
    }


def _status(row: Row, notes: Counter[str]) -> JobStatus:
    written = values.text(row["status"]).strip().lower()
    if written == "cleaned_up":  # it had ended somehow, before its files were deleted
        if values.text(row["error_message"]).strip():
            return JobStatus.FAILED
        has_ended = row["completed_at"] is not None or row["images_scraped"]
        return JobStatus.COMPLETED if has_ended else JobStatus.CANCELLED
    if written not in ENDED:
        notes["crawl that had not ended, made cancelled"] += 1
    return ENDED.get(written, JobStatus.CANCELLED)
