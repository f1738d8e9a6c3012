import json

import pytest

from scraping.crawler.assignment import Assignment, AssignmentInvalid, CrawlFolder
from scraping.crawler.content import Caption
from scraping.crawler.frontier import Frontier, Target
from scraping.crawler.journal import Journal
from scraping.tests.crawls import AGENT, assignment

START = {"start_urls": ["http://www.a.test/"], "user_agent": AGENT}


class TestAssignment:
    def read(self, tmp_path, content):
        folder = CrawlFolder(tmp_path)
        folder.assignment.write_text(json.dumps(content))
        return Assignment.read(folder)

    def test_comes_back_as_it_was_written(self, tmp_path):
        task = assignment(start_urls=["http://a.test"], depth=3, caps={"images": 7}, follow="host")
        task.write(CrawlFolder(tmp_path / "new"))
        assert Assignment.read(CrawlFolder(tmp_path / "new")) == task

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"start_urls": []}, "start_urls"),
            ({"start_urls": ["javascript:1"]}, "start_urls.0"),
            ({"depth": 0}, "depth"),
            ({"depth": 11}, "depth"),
            ({"depth": True}, "depth"),
            ({"depth": "2"}, "depth"),
            ({"follow": "all"}, "follow"),
            ({"caps": {"images": 10_001}}, "caps.images"),
            ({"caps": {"total_bytes": 0}}, "caps.total_bytes"),
            ({"caps": {"nonsense": 1}}, "caps.nonsense"),
            ({"sizes": {"min_side": 10, "max_side": 9}}, "sizes"),
            ({"user_agent": "Mozilla/5.0"}, "user_agent"),
            ({"user_agent": "ImageHub without a contact"}, "user_agent"),
            ({"user_agent": "ImageHub (+x)\r\nX: y"}, "user_agent"),
            ({"known_hashes": ["abc"]}, "known_hashes.0"),
            ({"egress": {"allow_private": ["not a network/99"]}}, "egress"),
            ({"version": 2}, "version"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    def test_refuses_what_cannot_be_carried_out_and_names_the_field(self, tmp_path, change, field):
        with pytest.raises(AssignmentInvalid) as caught:
            self.read(tmp_path, START | change)
        assert field in str(caught.value)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null"])
    def test_refuses_what_is_no_assignment(self, tmp_path, text):
        (tmp_path / "crawl.json").write_text(text)
        with pytest.raises(AssignmentInvalid):
            Assignment.read(CrawlFolder(tmp_path))


class TestFrontier:
    def frontier(self, **fields):
        return Frontier(Assignment.model_validate(START | fields))

    @pytest.mark.parametrize(
        ("follow", "url", "depth", "is_followed"),
        [
            ("site", "http://other.a.test/x", 2, True),
            ("site", "http://b.test/x", 2, False),
            ("site", "http://nota.test/x", 2, False),
            ("site", "http://www.a.test/x", 3, False),
            ("host", "http://other.a.test/x", 2, False),
            ("host", "https://www.a.test:8443/x", 2, True),
            ("anywhere", "http://b.test/x", 2, True),
            ("nowhere", "http://www.a.test/x", 2, False),
        ],
    )
    def test_follows_by_its_rules(self, follow, url, depth, is_followed):
        assert self.frontier(depth=2, follow=follow).may_visit(url, depth) is is_followed

    def test_lets_no_more_pictures_begin_than_may_be_saved(self):
        frontier = self.frontier(caps={"images": 2})
        for number in range(4):
            assert frontier.add(Target(f"http://a.test/{number}", "image"))
        assert not frontier.add(Target("http://a.test/0", "image"))
        one, two = frontier.pop("a.test"), frontier.pop("a.test")
        assert frontier.pop("a.test") is None
        frontier.end(one, "failed")
        three = frontier.pop("a.test")
        frontier.end(two, "saved")
        frontier.end(three, "saved")
        assert frontier.has_all_images
        assert frontier.found == 4
        assert [target.url for target in frontier.drain()] == ["http://a.test/3"]

    def test_puts_back_behind_all_others(self):
        frontier = self.frontier()
        for number in range(2):
            frontier.add(Target(f"http://a.test/{number}", "image", captions=[Caption("x", "alt")]))
        first = frontier.pop("a.test")
        frontier.put_back(first)
        assert [frontier.pop("a.test").url, frontier.pop("a.test")] == ["http://a.test/1", first]
        assert first.attempts == 1


class TestJournal:
    @pytest.mark.parametrize("rest", [b"", b'{"half": ', b"x" * 100_000])
    def test_goes_on_behind_the_last_whole_line(self, tmp_path, rest):
        path = tmp_path / "journal"
        path.write_bytes(b'{"n":1}\n' + rest)
        journal = Journal(path)
        assert list(journal.read()) == [{"n": 1}]
        journal.open()
        journal.write({"n": 2})
        journal.close()
        assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'
