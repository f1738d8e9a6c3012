"""A small crawl under the guard, as a program: it asks for addresses and for what their pages name, and says what came of each.

It reads JSON from standard input and writes JSON to standard output.
"""

import json
import re
import socket
import sys
from typing import Any

from imagehub.egress.tests import servers

plan: dict[str, Any] = json.load(sys.stdin)
_lookups: dict[str, int] = {}


def _resolve(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
    """Stand in for the resolver of this machine, at its edge: each look-up of a name takes its next answer."""
    answers = plan["names"].get(host)
    if answers is None:
        return _getaddrinfo(host, port, *arguments, **options)
    number = _lookups[host] = _lookups.get(host, 0) + 1
    return [
        info
        for address in answers[min(number, len(answers)) - 1]
        for info in _getaddrinfo(address, port, type=socket.SOCK_STREAM)
    ]


_getaddrinfo, socket.getaddrinfo = socket.getaddrinfo, _resolve  # before Twisted takes it

import scrapy  # noqa: E402
from scrapy.crawler import CrawlerProcess  # noqa: E402

from imagehub.egress.policy import Policy  # noqa: E402
from imagehub.egress.scrapy_guard import guard_settings  # noqa: E402

outcomes: dict[str, Any] = {}


class Asking(scrapy.Spider):
    name = "asking"
    custom_settings = plan.get("spider_settings")

    async def start(self):
        for url in plan["urls"]:
            for request in self.request(url):
                yield request

    def request(self, url: str):
        try:
            yield scrapy.Request(
                url, callback=self.parse, errback=self.failed, cb_kwargs={"asked": url}, meta=plan.get("meta")
            )
        except ValueError as error:
            outcomes[url] = type(error).__name__

    def parse(self, response, asked):
        outcomes[asked] = [response.status, response.body.decode(errors="replace")[:1000]]
        for link in re.findall(rb"<<(.*?)>>", response.body):
            yield from self.request(link.decode())

    def failed(self, failure):
        outcomes[failure.request.cb_kwargs["asked"]] = [failure.type.__name__, str(failure.value)]


settings = {
    "ROBOTSTXT_OBEY": False,
    "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",  # the same place in other words is asked for again
    "LOG_ENABLED": False,
    "RETRY_ENABLED": False,
    "DOWNLOAD_DELAY": 0.001,
    "DOWNLOAD_TIMEOUT": 5,
    "HTTPERROR_ALLOW_ALL": True,
    **plan["settings"],
}
if plan.get("guarded", True):
    settings |= guard_settings(Policy.read(**plan["policy"]))
    settings = {name: value for name, value in settings.items() if name not in plan.get("without", ())}
process = CrawlerProcess(settings)
process.crawl(Asking)
with servers.connects() as attempts:
    process.start()
json.dump({"outcomes": outcomes, "connects": [attempt[:2] for attempt in attempts]}, sys.stdout)
