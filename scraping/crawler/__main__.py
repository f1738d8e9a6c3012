"""The command line: crawl what a folder says."""

import argparse
import logging
import os
import sys
from pathlib import Path

from imagehub.jobs.protocol import EVENTS_FD, Channel, ExitCode, end_with
from scraping.crawler.assignment import Assignment, AssignmentInvalid, CrawlFolder

DESCRIPTION = """\
Collect pictures from the web. FOLDER holds crawl.json (what to do); the pictures and a journal are written there. A crawl that was
broken off goes on from its journal. What happens is told as JSON lines on the event pipe (by hand: standard output).
Before each request the crawler asks its guard; by hand it asks itself, by the same rules. SIGTERM and Ctrl-C stop it.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scraping.crawler", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a crawl")
    return parser


def main() -> int:
    """Parse the command line and crawl; return the exit status."""
    options = build_parser().parse_args()
    folder = CrawlFolder(options.folder.resolve())
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    has_parent = EVENTS_FD in os.environ
    channel = Channel.from_environment()
    try:
        assignment = Assignment.read(folder)
    except AssignmentInvalid as error:
        channel.emit("error", code="bad_request", detail=str(error))
        return ExitCode.BAD_REQUEST

    # Imported late: neither --help nor a mistake in crawl.json should wait for Scrapy.
    from scraping.crawler.program import Program

    return Program(folder, assignment, channel, has_parent=has_parent).run()


if __name__ == "__main__":
    end_with(main)
