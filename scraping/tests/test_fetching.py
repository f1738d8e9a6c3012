"""What is fetched when the parent answers late: it need not know yet what a host has just said."""

import asyncio

from scrapy.http import Response

from scraping.crawler.fetching import Budget, FetchEnded, Fetcher
from scraping.crawler.gate import Gate
from scraping.tests.crawls import assignment

URLS = ["http://127.0.0.1/1.png", "http://127.0.0.1/2.png"]
GO = {"verdict": "go", "robots": "allowed", "opt_out": ""}


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
