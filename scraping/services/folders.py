"""Where the files of crawls are: below the scraping root."""

from pathlib import Path

from imagehub import roots
from scraping.crawler.assignment import CrawlFolder
from scraping.models import ScrapeJob


def folder_of(job: ScrapeJob) -> CrawlFolder:
    """Return the folder of a crawl. It need not be there."""
    return CrawlFolder(roots.scraping_root() / job.folder)


def log_of(job: ScrapeJob) -> Path:
    """Return where what the crawler of a crawl prints is kept. It need not be there."""
    return folder_of(job).root / "run.log"


def thumbnails_of(job: ScrapeJob) -> Path:
    """Return where the thumbnails are kept by which somebody decides on the pictures of a crawl. It need not be there.

    Not in the folder of the crawl: its crawler writes there, and has met the web.
    """
    return roots.scraping_root() / "previews" / str(job.pk)
