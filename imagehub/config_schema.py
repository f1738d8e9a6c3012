"""The typed schema of ``config.yaml``: what may stand there, within which bounds, and what holds when it does not."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from imagehub.jobs.clusters import GRACE_SECONDS, LIMITS, Cluster


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


class GenerationConfig(Section):
    """Limits and defaults of ``POST /api/generate``. The limits are those of the system this replaces."""

    default_model: Annotated[str, Field(pattern=r"^[-a-zA-Z0-9_]{1,100}$")] = "starter"
    max_prompt_length: Annotated[int, Field(ge=1, le=20_000)] = 2000
    steps: Steps = Steps(minimum=1, maximum=150)
    side: Sides = Sides(minimum=64, maximum=2048)
    guidance_scale_maximum: Annotated[float, Field(ge=0, le=100, strict=False)] = 30.0
    images_per_job: Annotated[int, Field(ge=1, le=64)] = 8
    default_visibility: Literal["public", "private"] = "private"
    max_queued: Annotated[int, Field(ge=1)] = 10_000


class EngineConfig(Section):
    """How the generation engine is run and guarded. Times are seconds."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    wall_seconds: Annotated[int, Field(ge=1, le=LIMITS[Cluster.GENERATION].max_wall_seconds)] = 1800
    idle_seconds: Annotated[int, Field(ge=1, le=LIMITS[Cluster.GENERATION].max_wall_seconds)] = 300
    grace_seconds: Annotated[int, Field(ge=1, le=GRACE_SECONDS)] = 10
    log_limit_bytes: Annotated[int, Field(ge=10_000)] = 1_000_000
    allow_downloads: bool = False


class StorageConfig(Section):
    """When a disk counts as full, and which thumbnails exist."""

    minimum_free_bytes: Annotated[int, Field(ge=0)] = 200_000_000
    thumbnail_sizes: tuple[Annotated[int, Field(ge=16, le=2048)], ...] = Field(
        default=(150, 300, 600), strict=False, min_length=1
    )


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
    storage: StorageConfig = StorageConfig()
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
