import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib

import PIL.Image
import psutil
import pytest

from imagehub.jobs.child import ChildDied
from imagehub.jobs.protocol import ExitCode
from scraping.crawler.assignment import CrawlFolder
from scraping.politeness.hosts import Manners
from scraping.politeness.store import MemoryStore
from scraping.tests.crawls import AGENT, ROOT, Run, assignment
from scraping.tests.sites import after_refusals, drawing, endless


def gallery(*paths):
    return "".join(f'<img src="{path}">' for path in paths)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "crawl")


def resized(body, size, quality):
    target = io.BytesIO()
    PIL.Image.open(io.BytesIO(body)).convert("RGB").resize(size).save(target, "JPEG", quality=quality)
    return target.getvalue()


class TestCrawl:
    def test_brings_every_picture_to_one_end(self, site, other_site, run):
        site.show(
            "/",
            "<figure><img src='/one.png' alt='First' title='A title'><figcaption>Of a series</figcaption></figure>"
            + gallery(
                "/same.png", "/near.jpg", "/small.png", "/animal.gif", "/text.png", "/broken.png", "/gone.png"
            )
            + gallery(
                "/secret/x.png",
                "/tagged.png",
                "/moved.png",
                "/loop.png",
                "/away.png",
                "http://10.0.0.1/x.png",
            )
            + gallery(
                "http://user:word@127.0.0.1/x.png",
                "http://127.0.0.1:1/closed.png",
                other_site.url("/cdn.png"),
            )
            + "<a href='/second'>on</a><a href='/deep'>deep</a><a rel=license href='https://licences.test/by'>by</a>"
            + f"<a href='{other_site.url('/page')}'>not ours</a><iframe src='/frame'></iframe>",
        )
        site.show("/second", gallery("/two.png", "/one.png") + "<a href='/third'>too deep</a>")
        site.show("/third", gallery("/three.png"))
        site.show("/frame", gallery("/framed.png"))
        site.show("/deep", "<meta name=robots content=noai>" + gallery("/opted.png", "/one.png"))
        site.show("/robots.txt", "User-agent: *\nDisallow: /secret", "text/plain")
        for number, path in enumerate(("/one.png", "/two.png", "/framed.png", "/opted.png", "/three.png")):
            site.show(path, drawing(number))
        site.show("/same.png", drawing(0))
        site.show("/near.jpg", resized(drawing(0), (180, 135), 60), "image/jpeg")
        site.show("/small.png", drawing(7, (60, 45)))
        site.show("/animal.gif", drawing(8, format="GIF"), "image/gif")
        site.show("/text.png", "<html>no picture</html>")
        site.show("/broken.png", drawing(9)[:300])
        site.show("/tagged.png", drawing(10), X_Robots_Tag="noai")
        site.pages["/moved.png"] = lambda visit: visit.answer(
            status=302, Location=other_site.url("/here.png")
        )
        site.pages["/loop.png"] = lambda visit: visit.answer(status=301, Location="/loop.png")
        site.pages["/away.png"] = lambda visit: visit.answer(status=302, Location="http://169.254.169.254/x")
        other_site.show("/cdn.png", drawing(11))
        other_site.show("/here.png", drawing(12))

        outcome = run.carry_out(assignment(start_urls=[site.url()], depth=2, attempts=2))

        assert outcome.exit.code == ExitCode.FINISHED
        states = run.states
        closed, private = states.pop("/closed.png"), states.pop("/x.png")
        assert (closed, private) == ("robots unreachable", "blocked blocked_address")
        assert states == {
            "/one.png": "saved",
            "/same.png": "duplicate same_bytes",
            "/near.jpg": "duplicate near_duplicate",
            "/small.png": "filtered too_small",
            "/animal.gif": "filtered unsupported_format",
            "/text.png": "filtered not_a_picture",
            "/broken.png": "filtered damaged",
            "/gone.png": "failed http_404",
            "/secret/x.png": "robots disallowed",
            "/tagged.png": "opted_out x_robots_tag",
            "/moved.png": "saved",
            "/loop.png": "failed too_many_redirects",
            "/away.png": "blocked blocked_redirect",
            "/cdn.png": "saved",
            "/two.png": "saved",
            "/framed.png": "saved",
            "/opted.png": "opted_out meta_robots",
        }
        assert run.finished["reason"] == "finished"
        assert {event["state"] for event in run.of("page")} == {"visited"}
        assert "/secret/x.png" not in site.paths()
        assert not {"/third", "/opted.png", "/page"} & {*site.paths(), *other_site.paths()}
        assert site.agents | other_site.agents == {AGENT}

        one, moved = run.items[site.url("/one.png")], run.items[site.url("/moved.png")]
        assert one["captions"] == [
            {"text": "First", "origin": "alt"},
            {"text": "A title", "origin": "title"},
            {"text": "Of a series", "origin": "figcaption"},
        ]
        assert (one["licence"], one["page_url"]) == ("https://licences.test/by", site.url())
        assert (one["robots"], one["status"], one["width"], one["height"]) == ("allowed", 200, 240, 180)
        assert (run.folder.pictures / one["file"]).read_bytes() == drawing(0)
        assert moved["redirects"] == [site.url("/moved.png")]
        assert moved["final_url"] == other_site.url("/here.png")
        assert run.items[site.url("/same.png")]["duplicate_of"] == one["sha256"]
        saved = {item["file"] for item in run.items.values() if item["state"] == "saved"}
        assert {file.name for file in run.folder.pictures.iterdir()} == saved

    def test_takes_a_list_of_pictures_and_fetches_nothing_that_it_was_told_is_there(self, site, run):
        for number in range(4):
            site.show(f"/{number}.png", drawing(number))
        known = run.folder.root  # only to have the hash of one
        run.carry_out(assignment(image_urls=[site.url("/0.png")]))
        sha256 = run.items[site.url("/0.png")]["sha256"]

        again = Run(known.with_name("again"))
        urls = [site.url(f"/{number}.png") for number in range(4)]
        again.carry_out(assignment(image_urls=urls, known_hashes=[sha256], seen_urls=[site.url("/3.png")]))

        assert again.states == {
            "/0.png": "duplicate known",
            "/1.png": "saved",
            "/2.png": "saved",
            "/3.png": "duplicate seen",
        }
        assert again.finished["counts"] == {"duplicate": 2, "saved": 2}
        assert "/3.png" not in site.paths()

    def test_reads_feeds_and_pages_that_are_pictures(self, site, run):
        site.show(
            "/", '<link rel=alternate type="application/rss+xml" href=/feed><a href="/view?id=1">view</a>'
        )
        feed = f"<rss><channel><item><title>News</title><enclosure type='image/png' url='{site.url('/n.png')}'/></item></channel></rss>"
        site.show("/feed", feed.encode(), "application/rss+xml")
        site.show("/n.png", drawing(1))
        site.show("/view?id=1", drawing(2))

        run.carry_out(assignment(start_urls=[site.url()], depth=2))

        assert run.states == {"/n.png": "saved", "/view?id=1": "saved"}
        assert run.items[site.url("/n.png")]["captions"] == [{"text": "News", "origin": "title"}]

    def test_may_override_robots_and_opt_outs_and_tells_what_they_say(self, site, run):
        site.show("/robots.txt", "User-agent: *\nDisallow: /", "text/plain")
        site.show("/1.png", drawing(1), tdm_reservation="1")

        run.carry_out(assignment(image_urls=[site.url("/1.png")], obey_robots=False, obey_opt_outs=False))

        (item,) = run.of("item")
        assert (item["state"], item["robots"], item["opt_out"]) == ("saved", "disallowed", "tdm_header")

    def test_a_site_whose_robots_txt_cannot_be_had_is_left_alone(self, site, run):
        site.pages["/robots.txt"] = lambda visit: visit.answer(status=503)
        site.show("/1.png", drawing(1))

        run.carry_out(assignment(image_urls=[site.url("/1.png")]))

        assert run.states == {"/1.png": "robots unreachable"}
        assert set(site.paths()) == {"/robots.txt"}


class TestPoliteness:
    def test_recovers_what_was_refused_and_is_never_early(self, site, run):
        def page(visit):
            visit.answer(drawing(1), "image/png")

        site.pages["/busy.png"] = after_refusals(2, page, Retry_After="1")
        site.pages["/down.png"] = after_refusals(1, page, status=503)
        site.show("/", gallery("/busy.png", *(f"/{number}.png" for number in range(2, 8))))
        for number in range(2, 8):
            site.show(f"/{number}.png", drawing(number))

        run.carry_out(assignment(start_urls=[site.url()]))

        assert run.states["/busy.png"] == "saved"
        refused = site.times("/busy.png")[:2]
        for at in refused:
            # The header is sent a moment after the request has been noted: whoever was on its way then is no breach.
            assert not [time for time, _ in site.requests if at + 0.1 < time < at + 1.0]
        assert len(site.times("/busy.png")) == 3

    def test_gives_up_a_host_that_wants_to_be_left_alone_for_too_long(self, site, run):
        site.pages["/1.png"] = lambda visit: visit.answer(status=429, Retry_After="3600")
        site.show("/2.png", drawing(2))

        urls = [site.url("/1.png"), site.url("/2.png")]
        run.carry_out(assignment(image_urls=urls, patience_seconds=2.0, concurrency=1))

        assert run.states["/1.png"] == "failed host_unavailable"
        assert site.times("/1.png") == site.times("/1.png")[:1]

    def test_no_host_sees_more_than_its_rate_or_its_connections_of_all_crawls_together(
        self, site, other_site, tmp_path
    ):
        quick, slow, store = site, other_site, MemoryStore()
        slow.latency = 0.5
        runs = [Run(tmp_path / name, Manners(interval=0.15), store) for name in ("one", "two")]
        tasks = []
        for half in (0, 1):
            urls = [one.url(f"/{half}{number}.png") for number in range(6) for one in (quick, slow)]
            tasks.append(assignment(image_urls=urls))
            for number in range(6):
                quick.show(f"/{half}{number}.png", drawing(10 * half + number))
                slow.show(f"/{half}{number}.png", drawing(10 * half + number + 100))

        threads = [
            threading.Thread(target=run.carry_out, args=[task]) for run, task in zip(runs, tasks, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [run.finished["counts"] for run in runs] == [{"saved": 12}, {"saved": 12}]
        assert slow.peak == 2
        for one in (quick, slow):
            starts = [at for at, _ in one.requests]
            assert len(starts) == 12 + 2  # with the files of the site
            assert one.connections <= 8
            # The pace is kept where requests begin; on a busy machine two may come closer on their way, but not all.
            assert starts[-1] - starts[0] >= 0.15 * (len(starts) - 1) - 0.1


class TestCaps:
    def test_images_are_never_more_than_asked_for(self, site, run):
        site.show("/", gallery(*(f"/{number}.png" for number in range(12))))
        for number in range(12):
            site.show(f"/{number}.png", drawing(number % 10))

        run.carry_out(assignment(start_urls=[site.url()], caps={"images": 5}))

        assert run.finished["counts"]["saved"] == 5
        assert run.finished["reason"] == "image_limit"
        assert {state for state in run.states.values() if state != "saved"} == {"skipped image_limit"}
        assert len(list(run.folder.pictures.iterdir())) == 5

    def test_pages_are_never_more_than_asked_for(self, site, run):
        for number in range(8):
            site.show(f"/{number}", f"<a href='/{number + 1}'>on</a><a href='/{number + 2}'>on</a>")

        run.carry_out(assignment(start_urls=[site.url("/0")], depth=10, caps={"pages": 3}))

        assert run.finished["pages"]["visited"] == 3
        assert len([path for path in site.paths() if path[1:].isdigit()]) == 3
        assert {page["reason"] for page in run.of("page") if page["state"] == "skipped"} == {"page_limit"}

    def test_bytes_of_one_picture_and_of_all_together(self, site, run):
        site.pages["/endless.png"] = endless
        bomb = zlib.compressobj(wbits=31)
        packed = bomb.compress(drawing(1)[:8] + bytes(30_000_000)) + bomb.flush()
        site.show("/bomb.png", packed, Content_Encoding="gzip")
        urls = [site.url("/endless.png"), site.url("/bomb.png")]

        run.carry_out(assignment(image_urls=urls, caps={"image_bytes": 200_000}))
        assert set(run.states.values()) == {"filtered too_many_bytes"}

        other = Run(run.folder.root.with_name("other"))
        other.carry_out(assignment(image_urls=urls[:1], caps={"total_bytes": 300_000}))
        assert other.states == {"/endless.png": "skipped byte_limit"}
        assert other.finished["reason"] == "byte_limit"

    def test_seconds(self, site, run):
        site.latency = 1.0
        urls = [site.url(f"/{number}.png") for number in range(50)]

        run.carry_out(assignment(image_urls=urls, caps={"seconds": 3.0}))

        assert run.finished["reason"] == "time_limit"
        assert len(run.items) == 50

    def test_sizes(self, site, run):
        for name, size in {"wide": (900, 130), "large": (600, 600), "fits": (300, 200)}.items():
            site.show(f"/{name}.png", drawing(1, size))
        urls = [site.url(f"/{name}.png") for name in ("wide", "large", "fits")]

        run.carry_out(assignment(image_urls=urls, sizes={"max_side": 500, "max_ratio": 3.0}))

        assert run.states == {
            "/wide.png": "filtered too_large",
            "/large.png": "filtered too_large",
            "/fits.png": "saved",
        }


class TestEnding:
    def test_begins_nothing_more_once_it_is_asked_to_stop(self, site, run):
        site.latency = 0.3
        urls = [site.url(f"/{number}.png") for number in range(200)]
        run.stop_when = lambda: len(site.requests) > 6

        outcome = run.carry_out(assignment(image_urls=urls))

        assert outcome.stopped
        assert time.time() - run.stopped_at < 4.0
        assert max(at for at, _ in site.requests) - run.stopped_at < 2.0
        assert run.of("stopped")
        assert not list(run.folder.pictures.glob("*.part"))

    def test_goes_on_after_it_was_killed_and_fetches_nothing_twice(self, site, run):
        site.show("/", gallery(*(f"/{number}.png" for number in range(20))) + "<a href='/more'>more</a>")
        site.show("/more", gallery(*(f"/{number}.png" for number in range(20, 30))))
        for number in range(30):
            site.show(f"/{number}.png", drawing(number))

        def kill_half_way(event, child):
            if len(run.of("item")) == 15:
                os.kill(child.pid, signal.SIGKILL)

        run.on_event = kill_half_way
        with pytest.raises(ChildDied):
            run.carry_out(assignment(start_urls=[site.url()], depth=2))
        with run.folder.journal.open("ab") as file:
            file.write(b'{"kind":"image","url":"half')  # what a kill in the middle of a write leaves

        (run.folder.pictures / "stray.png").write_bytes(drawing(99))  # or one between a file and its line

        again = Run(run.folder.root)
        again.carry_out()

        assert again.of("started")[0]["resumed"] >= 15
        assert again.states == {f"/{number}.png": "saved" for number in range(30)}
        done = {item["url"] for item in run.of("item")}
        assert len(done) >= 15
        assert all(len(site.times("/" + url.rsplit("/", 1)[1])) == 1 for url in done)
        assert len(site.times("/")) == 1
        assert {file.name for file in again.folder.pictures.iterdir()} == {
            item["file"] for item in again.items.values()
        }

    def test_listens_to_nobody_from_outside(self, site, run):
        seen = []

        def look(event, child):
            if event["event"] == "outcome" and not seen:
                seen.append(psutil.Process(child.pid).net_connections(kind="inet"))

        site.show("/1.png", drawing(1))
        run.on_event = look
        run.carry_out(assignment(image_urls=[site.url("/1.png")]))

        assert seen
        assert [one for one in seen[0] if one.status == psutil.CONN_LISTEN] == []


class TestByHand:
    def crawl(self, folder):
        return subprocess.run(
            [sys.executable, "-m", "scraping.crawler", str(folder)],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def test_asks_itself_without_a_parent(self, site, tmp_path):
        site.show("/1.png", drawing(1))
        assignment(image_urls=[site.url("/1.png")]).write(CrawlFolder(tmp_path))

        done = self.crawl(tmp_path)

        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == ExitCode.FINISHED
        assert events[-1]["counts"] == {"saved": 1}
        assert site.paths() == ["/robots.txt", "/.well-known/tdmrep.json", "/1.png"]

    def test_says_what_is_wrong_with_an_assignment(self, tmp_path):
        (tmp_path / "crawl.json").write_text(
            '{"start_urls": ["ftp://x.test/"], "user_agent": "ImageHub (+x)"}'
        )
        done = self.crawl(tmp_path)
        (event,) = map(json.loads, done.stdout.splitlines())
        assert done.returncode == ExitCode.BAD_REQUEST
        assert event["code"] == "bad_request"
        assert "start_urls.0" in event["detail"]
