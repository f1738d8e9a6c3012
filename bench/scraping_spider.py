"""``python -m bench.scraping_spider FOLDER URL...``: what somebody writes with Scrapy in an afternoon.

A spider that follows all links, and Scrapy's own pipeline for pictures. Scrapy's defaults, but for what its template sets
(robots.txt is obeyed) and the smallest size, which is ours.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess
from scrapy.http import HtmlResponse, Response

SMALLEST_SIDE = 128
PICTURES = (".jpg", ".png", ".webp")


class PlainSpider(Spider):
    name = "plain"

    async def start(self) -> AsyncIterator[Any]:
        for url in sys.argv[2:]:
            yield Request(url)

    def parse(self, response: Response) -> Iterator[Any]:
        if not isinstance(response, HtmlResponse):
            return
        links = response.css("a::attr(href)").getall()
        found = response.css("img::attr(src), img::attr(data-src)").getall()
        found += [link for link in links if link.endswith(PICTURES)]
        yield {"image_urls": [response.urljoin(one) for one in found if not one.startswith("data:")]}
        yield from response.follow_all([link for link in links if not link.endswith(PICTURES)], self.parse)


def main() -> None:
    settings = {
        "ITEM_PIPELINES": {"scrapy.pipelines.images.ImagesPipeline": 1},
        "IMAGES_STORE": sys.argv[1],
        "IMAGES_MIN_WIDTH": SMALLEST_SIDE,
        "IMAGES_MIN_HEIGHT": SMALLEST_SIDE,
        "MEDIA_ALLOW_REDIRECTS": True,
        "ROBOTSTXT_OBEY": True,
        "LOG_ENABLED": False,
    }
    process = CrawlerProcess(settings)
    process.crawl(PlainSpider)
    process.start()


if __name__ == "__main__":
    main()
