"""What is fetched when the parent answers late: it need not know yet what a host has just said, nor when it was asked."""

import asyncio
import itertools
import time

from scrapy.http import Response

from scraping.crawler.fetching import Budget, FetchEnded, Fetcher
from scraping.crawler.gate import Gate
from scraping.politeness.gatekeeper import Gatekeeper
from scraping.politeness.hosts import Manners
from scraping.politeness.store import MemoryStore, PolicyFile
from scraping.tests.crawls import assignment

URLS = ["http://127.0.0.1/1.png", "http://127.0.0.1/2.png"]
GO = {"verdict": "go", "robots": "allowed", "opt_out": "", "interval": 0.0}


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_what_was_let_go_before_a_refusal_was_known_is_asked_for_again():
    told, fetched = [], []

    async def download(request):
        fetched.append(request.url)
        return Response(request.url, status=429, headers={"Retry-After": "7"})

    async def scenario():
        gate = Gate(lambda event, fields: told.append((event, fields)), obey_robots=True, obey_opt_outs=True)
        fetcher = Fetcher(download, gate, assignment(image_urls=URLS), Budget(10**6))
        tasks = [asyncio.create_task(fetcher.fetch(url, "image", 1000)) for url in URLS]
        await turns()
        for number in (1, 2):
            gate.answered(GO | {"id": number})
            await turns()
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ended, _ = asyncio.run(scenario())

    assert isinstance(ended, FetchEnded)
    assert fetched == URLS[:1]
    assert [(event, fields["id"]) for event, fields in told[:5]] == [
        ("slot", 1),
        ("slot", 2),
        ("outcome", 1),
        ("outcome", 2),
        ("slot", 3),
    ]
    assert told[3][1]["unsent"] is True


class SlowParent:
    """A gatekeeper whose answers are under way for a while."""

    def __init__(self, *delays, **manners):
        store = MemoryStore()
        for path in ("/robots.txt", "/.well-known/tdmrep.json"):
            store.keep_file("http://127.0.0.1", path, PolicyFile(404, b"", time.time()))
        self.delays = list(delays)
        """Of those answers that let a request go, one after the other; later ones are in time."""
        self.told = []
        self.gatekeeper = Gatekeeper(store, Manners(**manners))
        self.gate = Gate(self.hear, obey_robots=True, obey_opt_outs=True)

    def hear(self, event, fields):
        self.told.append((event, fields))
        answer = self.gatekeeper.answer({"event": event} | fields)
        if answer is not None:
            delay = self.delays.pop(0) if answer["verdict"] == "go" and self.delays else 0.0
            asyncio.get_running_loop().call_later(delay, self.gate.answered, answer)

    @property
    def unsent(self):
        return [fields["id"] for event, fields in self.told if event == "outcome" and fields.get("unsent")]


def test_no_two_requests_come_closer_together_because_the_first_was_let_go_late():
    begun = []

    async def download(request):
        begun.append(time.monotonic())
        return Response(request.url, body=b"x")

    async def scenario():
        # Three may be waiting at once: each waits for the one before, whenever that really began.
        parent = SlowParent(0.55, 0.3, interval=0.2, connections=3)
        urls = [f"http://127.0.0.1/{number}.png" for number in range(4)]
        fetcher = Fetcher(download, parent.gate, assignment(image_urls=urls), Budget(10**6))
        await asyncio.gather(*(fetcher.fetch(url, "image", 1000) for url in urls))
        return parent

    parent = asyncio.run(scenario())

    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(gaps) == 3
    assert min(gaps) >= 0.19
    assert parent.unsent == []


def test_those_that_wait_for_their_pace_begin_in_the_order_they_were_let_go_in():
    urls, fetched = [f"http://127.0.0.1/{number}.png" for number in range(8)], []

    async def download(request):
        fetched.append(request.url)
        return Response(request.url, body=b"x")

    async def scenario():
        gate = Gate(lambda event, fields: None, obey_robots=True, obey_opt_outs=True)
        fetcher = Fetcher(download, gate, assignment(image_urls=urls), Budget(10**6))
        tasks = [asyncio.create_task(fetcher.fetch(url, "image", 1000)) for url in urls]
        await turns()
        for number in range(1, 9):
            gate.answered(GO | {"id": number, "interval": 0.02})
        await asyncio.gather(*tasks)

    asyncio.run(scenario())

    assert fetched == urls


def test_what_waits_for_its_pace_is_given_back_if_the_crawl_ends():
    fetched = []

    async def download(request):
        fetched.append(request.url)
        return Response(request.url, body=b"x")

    async def scenario():
        told = []
        gate = Gate(lambda event, fields: told.append((event, fields)), obey_robots=True, obey_opt_outs=True)
        fetcher = Fetcher(download, gate, assignment(image_urls=URLS), Budget(10**6))
        tasks = [asyncio.create_task(fetcher.fetch(url, "image", 1000)) for url in URLS]
        await turns()
        for number in (1, 2):
            gate.answered(GO | {"id": number, "interval": 30.0})
        await turns()
        assert tasks[0].done()
        assert not tasks[1].done()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return told

    told = asyncio.run(scenario())

    assert fetched == URLS[:1]
    assert told[-1][0] == "outcome"
    assert (told[-1][1]["id"], told[-1][1]["unsent"]) == (2, True)


def test_what_is_refused_while_another_waits_for_its_pace_is_heeded():
    told, fetched = [], []

    async def scenario():
        is_over = asyncio.Event()

        async def download(request):
            fetched.append(request.url)
            await is_over.wait()
            return Response(request.url, status=429, headers={"Retry-After": "7"})

        gate = Gate(lambda event, fields: told.append((event, fields)), obey_robots=True, obey_opt_outs=True)
        fetcher = Fetcher(download, gate, assignment(image_urls=URLS), Budget(10**6))
        tasks = [asyncio.create_task(fetcher.fetch(url, "image", 1000)) for url in URLS]
        await turns()
        for number in (1, 2):
            gate.answered(GO | {"id": number, "interval": 0.1})
        await turns()
        is_over.set()
        await asyncio.sleep(0.2)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())

    assert fetched == URLS[:1]
    assert [(event, fields["id"]) for event, fields in told[2:5]] == [
        ("outcome", 1),
        ("outcome", 2),
        ("slot", 3),
    ]
    assert told[3][1]["unsent"] is True
