"""The typed schema of ``config.yaml``: what may stand there, within which bounds, and what holds when it does not."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from imagehub.jobs.clusters import GRACE_SECONDS, LIMITS, Cluster

MIB = 1024 * 1024


class Section(BaseModel):
    """A part of the configuration: unknown names are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Range(Section):
    """An inclusive range of whole numbers."""

    minimum: int
    maximum: int

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError("the minimum lies above the maximum")
        return self


class Sides(Range):
    """Sides of pictures, in pixels."""

    minimum: Annotated[int, Field(ge=8, le=8192)]
    maximum: Annotated[int, Field(ge=8, le=8192)]


class Steps(Range):
    """Denoising steps."""

    minimum: Annotated[int, Field(ge=1, le=1000)]
    maximum: Annotated[int, Field(ge=1, le=1000)]


class Quotas(Section):
    """How much each user may have waiting, and may ask for in 24 hours. 0 is no limit."""

    queued_images: Annotated[int, Field(ge=0)] = 10_000
    images_per_day: Annotated[int, Field(ge=0)] = 0
    pixels_per_day: Annotated[int, Field(ge=0)] = 0


class GenerationConfig(Section):
    """Limits and defaults of ``POST /api/generate``. The limits are those of the system this replaces."""

    default_model: Annotated[str, Field(pattern=r"^[-a-zA-Z0-9_]{1,100}$")] = "starter"
    max_prompt_length: Annotated[int, Field(ge=1, le=20_000)] = 2000
    steps: Steps = Steps(minimum=1, maximum=150)
    side: Sides = Sides(minimum=64, maximum=2048)
    guidance_scale_maximum: Annotated[float, Field(ge=0, le=100, strict=False)] = 30.0
    images_per_job: Annotated[int, Field(ge=1, le=64)] = 8
    default_visibility: Literal["public", "private"] = "private"
    max_queued: Annotated[int, Field(ge=1)] = 50_000
    quotas: Quotas = Quotas()
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 30


class EngineConfig(Section):
    """How the generation engine is run and guarded. Times are seconds; 0 models or bytes let the engine choose."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    models: Annotated[int, Field(ge=0, le=100)] = 0
    model_memory_bytes: Annotated[int, Field(ge=0)] = 0
    adapters: Annotated[int, Field(ge=8, le=1000)] = 8
    adapter_memory_bytes: Annotated[int, Field(ge=1)] = 1024 * MIB
    wall_seconds: Annotated[int, Field(ge=1, le=LIMITS[Cluster.GENERATION].max_wall_seconds)] = 1800
    idle_seconds: Annotated[int, Field(ge=1, le=LIMITS[Cluster.GENERATION].max_wall_seconds)] = 300
    grace_seconds: Annotated[int, Field(ge=1, le=GRACE_SECONDS)] = 10
    log_limit_bytes: Annotated[int, Field(ge=10_000)] = 1_000_000
    allow_downloads: bool = False


class Ranks(Range):
    """Ranks of adapters."""

    minimum: Annotated[int, Field(ge=1, le=1024)]
    maximum: Annotated[int, Field(ge=1, le=1024)]


class TrainingSteps(Range):
    """Optimizer steps."""

    minimum: Annotated[int, Field(ge=1, le=1_000_000)]
    maximum: Annotated[int, Field(ge=1, le=1_000_000)]


class PhaseSeconds(Section):
    """How long each phase of a training may go without progress before it counts as hung."""

    load: Annotated[int, Field(ge=1, le=86_400)] = 600
    cache: Annotated[int, Field(ge=1, le=86_400)] = 900
    train: Annotated[int, Field(ge=1, le=86_400)] = 600
    validation: Annotated[int, Field(ge=1, le=86_400)] = 900
    sample: Annotated[int, Field(ge=1, le=86_400)] = 900
    save: Annotated[int, Field(ge=1, le=86_400)] = 600
    export: Annotated[int, Field(ge=1, le=86_400)] = 600


class ExternalTrainerConfig(Section):
    """A trainer of somebody else's, run in place of ours.

    ``command`` is a list of arguments in which ``{dataset}``, ``{output}``, ``{model}``, ``{name}``, ``{trigger_word}``,
    ``{threads}`` and, as in ``{config.rank}``, what the recipe says are filled in; ``progress`` a regular expression with the
    groups ``step`` and ``total``, and perhaps ``loss``, that is looked for in what it prints: as it is here, in what sd-scripts
    does; ``result`` a pattern of file names in its output folder.
    """

    command: tuple[str, ...] = Field(strict=False, min_length=1)
    progress: str = r"steps:.*?(?P<step>\d+)/(?P<total>\d+)(?:.*?avr_loss=(?P<loss>[\d.]+))?"
    result: str = "*.safetensors"

    @field_validator("progress")
    @classmethod
    def _names_its_groups(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from None
        if not {"step", "total"} <= groups.keys():
            raise ValueError("it needs the groups “step” and “total”")
        return value

    @field_validator("result")
    @classmethod
    def _stays_in_its_folder(cls, value: str) -> str:
        if not value or Path(value).name != value:
            raise ValueError("it is a pattern of names, without a folder")
        return value


class TrainingConfig(Section):
    """Limits of trainings, and how they are guarded. Times are seconds."""

    minimum_images: Annotated[int, Field(ge=1)] = 20
    recommended_images: Annotated[int, Field(ge=1)] = 50
    minimum_side: Annotated[int, Field(ge=8)] = 64
    steps: TrainingSteps = TrainingSteps(minimum=10, maximum=10_000)
    rank: Ranks = Ranks(minimum=1, maximum=128)
    resolution: Sides = Sides(minimum=64, maximum=2048)
    batch_size_maximum: Annotated[int, Field(ge=1, le=1024)] = 64
    max_images: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_active: Annotated[int, Field(ge=1, le=1000)] = 1
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    wall_seconds: Annotated[int, Field(ge=1, le=LIMITS[Cluster.TRAINING].max_wall_seconds)] = 4 * 3600
    idle_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    phase_seconds: PhaseSeconds = PhaseSeconds()
    grace_seconds: Annotated[int, Field(ge=1, le=GRACE_SECONDS)] = GRACE_SECONDS
    log_limit_bytes: Annotated[int, Field(ge=10_000)] = 5_000_000
    cache_bytes: Annotated[int, Field(ge=0)] = 5_000_000_000
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    external: ExternalTrainerConfig | None = None


class LabelingConfig(Section):
    """The models that look at pictures: folders under the models root, or hub ids; empty: there is none. ``starter`` is the bundled one."""

    captioner: str = ""
    tagger: str = ""
    nsfw: str = ""
    tag_threshold: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.35
    nsfw_threshold: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.5
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    max_images: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    allow_downloads: bool = False
    wall_seconds: Annotated[int, Field(ge=1, le=LIMITS[Cluster.TRAINING].max_wall_seconds)] = 4 * 3600
    idle_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    grace_seconds: Annotated[int, Field(ge=1, le=GRACE_SECONDS)] = 10
    log_limit_bytes: Annotated[int, Field(ge=10_000)] = 1_000_000

    @field_validator("captioner", "tagger", "nsfw")
    @classmethod
    def _names_no_place_of_this_machine(cls, value: str) -> str:
        # What a model is called stands beside each label that it wrote, for everybody to read.
        if value.startswith(("/", "~")):
            raise ValueError("it is a folder as seen from the models root, or a hub id")
        return value


class ScrapingConfig(Section):
    """Limits of crawls, how they treat hosts, and how they are guarded. Times are seconds, sizes bytes, sides pixels."""

    contact: Annotated[str, Field(max_length=200, pattern=r"^(https?://\S+|mailto:\S+|)$")] = ""
    depth: Annotated[int, Field(ge=1, le=10)] = 3
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    max_images: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    max_total_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * MIB
    max_page_bytes: Annotated[int, Field(ge=1, le=64 * MIB)] = 3 * MIB
    minimum_side: Annotated[int, Field(ge=1)] = 128
    interval_seconds: Annotated[float, Field(ge=0.005, le=3600, strict=False)] = 1.0
    connections_per_host: Annotated[int, Field(ge=1, le=16)] = 2
    concurrency: Annotated[int, Field(ge=1, le=64)] = 16
    attempts: Annotated[int, Field(ge=1, le=10)] = 4
    request_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    patience_seconds: Annotated[int, Field(ge=1, le=86_400)] = 120
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    wall_seconds: Annotated[int, Field(ge=10, le=LIMITS[Cluster.SCRAPING].max_wall_seconds)] = 7200
    idle_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    grace_seconds: Annotated[int, Field(ge=1, le=GRACE_SECONDS)] = 30
    log_limit_bytes: Annotated[int, Field(ge=10_000)] = 1_000_000
    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 30


class EventsConfig(Section):
    """How many streams of events one user may have open, in each web process; 0 is no limit."""

    streams_per_user: Annotated[int, Field(ge=0, le=100_000)] = 250


class EgressConfig(Section):
    """What may be reached of addresses that users and pages name."""

    ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = Field(
        default=(80, 443), strict=False, min_length=1
    )


class StorageConfig(Section):
    """When a disk counts as full, which thumbnails exist, and how many archives a process sends at once (0: no limit)."""

    minimum_free_bytes: Annotated[int, Field(ge=0)] = 200_000_000
    thumbnail_sizes: tuple[Annotated[int, Field(ge=16, le=2048)], ...] = Field(
        default=(150, 300, 600), strict=False, min_length=1
    )
    archives_at_once: Annotated[int, Field(ge=0, le=100)] = 2


class TrashConfig(Section):
    """After how many days images in the trash are deleted for good; 0 is never."""

    retention_days: Annotated[int, Field(ge=0, le=36_500)] = 30


TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class PurgesConfig(Section):
    """When each day what is old is deleted (UTC), and whether it is only told what would be."""

    training_at: TimeOfDay = "03:15"
    generation_at: TimeOfDay = "03:45"
    trash_at: TimeOfDay = "04:15"
    scraping_at: TimeOfDay = "04:45"
    dry_run: bool = False


class DiskConfig(Section):
    """How often it is looked how full the disks are, from when on that is an alert, and how long it is remembered."""

    sample_hours: Annotated[int, Field(ge=1, le=168)] = 6
    alert_percent: Annotated[float, Field(ge=1, le=100, strict=False)] = 85.0
    remembered_days: Annotated[int, Field(ge=7, le=3650)] = 180


class UploadsConfig(Section):
    """What is taken in, from whomever: pictures of users, folders and pages, and adapters. Sizes are bytes, sides pixels."""

    max_file_bytes: Annotated[int, Field(ge=1, le=200 * MIB)] = 20 * MIB
    max_adapter_bytes: Annotated[int, Field(ge=1, le=4096 * MIB)] = 1024 * MIB
    max_request_bytes: Annotated[int, Field(ge=1, le=200 * MIB)] = 200 * MIB
    max_files: Annotated[int, Field(ge=1, le=1000)] = 100
    max_side: Annotated[int, Field(ge=8, le=16_384)] = 4096
    max_pixels: Annotated[int, Field(ge=64, le=80_000_000)] = 4096 * 4096
    max_frames: Annotated[int, Field(ge=1, le=1000)] = 100
    max_total_pixels: Annotated[int, Field(ge=64, le=1_000_000_000)] = 200_000_000
    max_ratio: Annotated[int, Field(ge=1, le=1000)] = 50
    decoders: Annotated[int, Field(ge=1, le=64)] = 2
    decode_seconds: Annotated[int, Field(ge=1, le=300)] = 20
    decoder_memory_bytes: Annotated[int, Field(ge=256 * MIB, le=16 * 1024 * MIB)] = 1024 * MIB
    at_once: Annotated[int, Field(ge=0, le=100)] = 4


class PathsConfig(Section):
    """Where files lie, unless the environment says so. What is left out lies under ``IMAGEHUB_VAR``."""

    media: str | None = None
    models: str | None = None
    training: str | None = None
    scraping: str | None = None

    @field_validator("*")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_absolute():
            raise ValueError("a path here is absolute, so that it means the same to every program")
        return value


class RateLimit(Section):
    """How many calls one user or address may make in a window of time. A limit of zero or less is none."""

    limit: Annotated[int, Field(ge=-1, le=1_000_000_000)]
    window_seconds: Annotated[int, Field(ge=1, le=86_400)]


class RateLimitsConfig(Section):
    """What is limited. ``generate`` counts pictures; everything else counts calls that were accepted."""

    generate: RateLimit = RateLimit(limit=10, window_seconds=60)
    upload: RateLimit = RateLimit(limit=6, window_seconds=3600)
    training_start: RateLimit = RateLimit(limit=4, window_seconds=3600)
    scrape_start: RateLimit = RateLimit(limit=10, window_seconds=3600)
    labeling: RateLimit = RateLimit(limit=30, window_seconds=3600)
    sign_in: RateLimit = RateLimit(limit=10, window_seconds=60)
    sign_in_wide: RateLimit = RateLimit(limit=100, window_seconds=3600)
    sign_in_name: RateLimit = RateLimit(limit=1000, window_seconds=3600)


class Config(Section):
    """The whole file. Everything has a default, so an empty or missing file is a valid one."""

    paths: PathsConfig = PathsConfig()
    generation: GenerationConfig = GenerationConfig()
    engine: EngineConfig = EngineConfig()
    training: TrainingConfig = TrainingConfig()
    labeling: LabelingConfig = LabelingConfig()
    scraping: ScrapingConfig = ScrapingConfig()
    events: EventsConfig = EventsConfig()
    egress: EgressConfig = EgressConfig()
    storage: StorageConfig = StorageConfig()
    trash: TrashConfig = TrashConfig()
    purges: PurgesConfig = PurgesConfig()
    disk: DiskConfig = DiskConfig()
    uploads: UploadsConfig = UploadsConfig()
    rate_limits: RateLimitsConfig = RateLimitsConfig()

    @model_validator(mode="after")
    def _a_job_ends_before_its_cluster_ends_it(self) -> Self:
        longest = self.generation.images_per_job * self.engine.wall_seconds
        limit = LIMITS[Cluster.GENERATION].max_wall_seconds
        if longest > limit:
            raise ValueError(
                f"generation.images_per_job times engine.wall_seconds is {longest} s; a job may last {limit} s"
            )
        return self

    @model_validator(mode="after")
    def _the_largest_job_fits_its_rate_limit(self) -> Self:
        limit, largest = self.rate_limits.generate.limit, self.generation.images_per_job
        if 0 < limit < largest:
            raise ValueError(
                f"rate_limits.generate.limit is {limit}, but one job may ask for {largest} pictures"
                " (generation.images_per_job), which would be refused for ever"
            )
        return self
