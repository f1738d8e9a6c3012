import copy

import pytest

from imagehub.jobs.checks import check_timeouts
from imagehub.jobs.clusters import LIMITS, Cluster, django_q_settings


def test_the_shipped_settings_are_sound():
    assert check_timeouts() == []


@pytest.mark.parametrize(
    ("cluster", "broken", "code"),
    [
        (Cluster.TRAINING, {"timeout": LIMITS[Cluster.TRAINING].max_wall_seconds}, "jobs.E001"),
        (Cluster.GENERATION, {"timeout": 30_000.5}, "jobs.E001"),
        (Cluster.GENERATION, {"retry": 30_000}, "jobs.E002"),
    ],
)
def test_a_cluster_that_could_cut_a_job_short_is_reported(settings, cluster, broken, code):
    settings.Q_CLUSTER = copy.deepcopy(settings.Q_CLUSTER)
    settings.Q_CLUSTER["ALT_CLUSTERS"][cluster.value] |= broken

    assert [problem.id for problem in check_timeouts()] == [code]


def test_retry_outlasts_everything_a_cluster_may_have_fetched():
    conf = django_q_settings()
    for alternative in [{}, *conf["ALT_CLUSTERS"].values()]:
        own = conf | alternative
        depth = own["workers"] + own["queue_limit"] + 1
        assert own["retry"] > depth * own["timeout"] / own["workers"]


def test_guard_cycle_meets_every_timeout():
    """Django-Q compares a countdown with zero, so only exact multiples are ever found (libraries.md 2)."""
    conf = django_q_settings()
    for alternative in [{}, *conf["ALT_CLUSTERS"].values()]:
        assert ((conf | alternative)["timeout"] + 3) % conf["guard_cycle"] == 0
