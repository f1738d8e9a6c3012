"""Everything that writes about generation, and the failures it can meet."""

from generation.services.control import (
    GREATEST_PRIORITY,
    LEAST_PRIORITY,
    AlreadyFinished,
    Cancelled,
    ModelDisabled,
    NotRetryable,
    cancel_generation_job,
    cancel_generation_jobs,
    follow_merged_albums,
    hold_jobs_of_album,
    prioritise_generation_job,
    retry_generation_job,
    tries_of,
)
from generation.services.making import generate_images
from generation.services.quotas import BeyondQuota, QueueFull, QuotaExceeded, check_quota
from generation.services.selections import (
    Retried,
    cancel_set_runs,
    prioritise_selected,
    retry_jobs,
    retry_set_runs,
)
from generation.services.set_places import position_in_set
from generation.services.set_runs import (
    NothingToRetry,
    Progress,
    cancel_set_run,
    images_of,
    items_of,
    progress_of,
    retry_set_run,
    submit_set_run,
)
from generation.services.stacks import adapters_of_template, find_adapters, stack_adapters
from generation.services.submitting import KeyUsedDifferently, draw_seed, find_earlier, submit_generation

__all__ = [
    "GREATEST_PRIORITY",
    "LEAST_PRIORITY",
    "AlreadyFinished",
    "BeyondQuota",
    "Cancelled",
    "KeyUsedDifferently",
    "ModelDisabled",
    "NotRetryable",
    "NothingToRetry",
    "Progress",
    "QueueFull",
    "QuotaExceeded",
    "Retried",
    "adapters_of_template",
    "cancel_generation_job",
    "cancel_generation_jobs",
    "cancel_set_run",
    "cancel_set_runs",
    "check_quota",
    "draw_seed",
    "find_adapters",
    "find_earlier",
    "follow_merged_albums",
    "generate_images",
    "hold_jobs_of_album",
    "images_of",
    "items_of",
    "position_in_set",
    "prioritise_generation_job",
    "prioritise_selected",
    "progress_of",
    "retry_generation_job",
    "retry_jobs",
    "retry_set_run",
    "retry_set_runs",
    "stack_adapters",
    "submit_generation",
    "submit_set_run",
    "tries_of",
]
