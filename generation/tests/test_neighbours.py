"""Jobs that share a worker and an engine: what becomes of one is not what becomes of the other."""

import os
import signal
import threading
import time
from datetime import timedelta

import pytest

from generation import warm_engine
from generation.models import GenerationJob
from generation.services import making
from generation.tests.test_making import run, submit
from imagehub.jobs import heart, lease
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, jobs
from imagehub.jobs.tasks import answer_doorbell

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("tiny_model")]


@pytest.mark.django_db(transaction=True)
def test_a_store_that_hangs_costs_no_attempt(monkeypatch):
    """Neither the job whose picture it takes for long, nor the one that the engine works for meanwhile."""
    run(seed=9)  # the engine is there
    monkeypatch.setattr(jobs, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(heart, "PULSE_SECONDS", 0.2)
    both, taken = [submit(seed=seed) for seed in range(2)], []
    real = making.adopt_image_file

    def adopt(image, path):
        time.sleep(4)
        taken.append(GenerationJob.objects.reap())
        return real(image, path)

    monkeypatch.setattr(making, "adopt_image_file", adopt)

    answer_doorbell(Cluster.GENERATION)

    assert taken == [0, 0]
    for job in both:
        job.refresh_from_db()
        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)


class TestAnEngineAtWorkForTheNext:
    """The file of a picture is on its way, and the engine makes one for the next job already."""

    @pytest.fixture
    def between(self, monkeypatch):
        """Stop the engine before it has written the file of the job with seed 1, and then do something.

        It is done once the next picture was asked for, or once nobody asks for one.
        """
        stopped, actions = [], []
        follow, collect = warm_engine.WarmEngine.follow, warm_engine.WarmEngine.collect

        def follow_and_stop(engine, key, **rest):
            follow(engine, key, **rest)
            if seeds[key] == 1:
                os.kill(engine._child.pid, signal.SIGSTOP)
                stopped.append(key)

        def act_and_collect(engine, key, **rest):
            if key in stopped:
                for action in actions:
                    action(engine._child.pid)
            return collect(engine, key, **rest)

        seeds = {}
        begin = warm_engine.WarmEngine.begin

        def noted_begin(engine, request, **rest):
            key = begin(engine, request, **rest)
            seeds[key] = request["seed"]
            return key

        monkeypatch.setattr(warm_engine.WarmEngine, "begin", noted_begin)
        monkeypatch.setattr(warm_engine.WarmEngine, "follow", follow_and_stop)
        monkeypatch.setattr(warm_engine.WarmEngine, "collect", act_and_collect)
        return actions

    @pytest.fixture
    def both(self):
        run(seed=3)  # the engine is there
        return submit(seed=1, steps=1, width=512, height=512), submit(seed=2)

    @staticmethod
    def states(both):
        answer_doorbell(Cluster.GENERATION)
        for job in both:
            job.refresh_from_db()
        return [(job.status, job.attempt) for job in both]

    def test_is_left_alone_when_the_one_before_was_taken_away(self, between, both, monkeypatch):
        monkeypatch.setattr(lease, "BEAT_SECONDS", 0.0)

        def take_away_and_go_on(pid):
            GenerationJob.objects.filter(pk=both[0].pk).update(token="0" * 32)
            threading.Timer(1.0, os.kill, [pid, signal.SIGCONT]).start()

        between.append(take_away_and_go_on)

        assert self.states(both) == [(JobStatus.RUNNING, 1), (JobStatus.COMPLETED, 1)]

    def test_dies_at_the_cost_of_the_one_it_works_for(self, between, both):
        def die_once(pid):
            between.clear()
            between.append(lambda pid: os.kill(pid, signal.SIGCONT))
            os.kill(pid, signal.SIGKILL)

        between.append(die_once)

        assert self.states(both) == [(JobStatus.COMPLETED, 1), (JobStatus.COMPLETED, 2)]
        assert not making._lost_to_others

    def test_is_not_killed_for_ever_by_the_one_before(self, between, both):
        between.append(lambda pid: os.kill(pid, signal.SIGKILL))

        assert self.states(both) == [(JobStatus.FAILED, 3), (JobStatus.COMPLETED, 2)]
        assert both[0].error_code == "engine_died"
