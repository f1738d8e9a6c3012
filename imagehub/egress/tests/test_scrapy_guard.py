"""The guard in real crawls, each a program of its own: Twisted's reactor runs once in a process."""

import gzip
import json
import os
import subprocess
import sys
import time

import pytest
from django.conf import settings as django_settings

from imagehub.egress.policy import NOT_PUBLIC
from imagehub.egress.tests import checklist, servers
from imagehub.egress.tests.servers import page, redirect

REFUSED = ["BlockedAddress", NOT_PUBLIC]


@pytest.fixture
def crawl(values, decoy):
    """Crawl these addresses, see that nobody but the site was connected to, and return what came of each."""

    def run(*urls, names=None, policy=None, settings=None, env=None, **plan):
        plan |= {"urls": urls, "names": names or {}, "policy": policy or values, "settings": settings or {}}
        result = subprocess.run(
            [sys.executable, "-m", "imagehub.egress.tests.crawl"],
            input=json.dumps(plan),
            env=os.environ | (env or {}),
            cwd=django_settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if plan.get("fails"):
            assert "TypeError: Nobody says what this crawl may reach" in result.stderr
            return None
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        if policy is None and plan.get("guarded", True):
            assert {host for host, _ in answer["connects"]} <= {servers.SITE}
            assert decoy.visitors == []
        return answer["outcomes"]

    return run


def blocked(outcome) -> bool:
    return outcome[0] == "BlockedAddress"


def test_reaches_the_public_internet(crawl, site):
    site.pages |= {"/": redirect("/b"), "/b": page(b"hello")}
    named = site.url(host="pictures.example")

    outcomes = crawl(site.url(), named, names={"pictures.example": [[servers.SITE]]})

    assert outcomes == {site.url(): [200, "hello"], named: [200, "hello"]}


def test_rows_1_to_33_and_46_send_nothing(crawl, decoy):
    urls = checklist.refused_at_submission(decoy.port)

    outcomes = crawl(*urls, names={"example.com": [[]]})

    assert outcomes.keys() == set(urls)
    for url, outcome in outcomes.items():
        if outcome == "ValueError":  # Scrapy makes no request of it
            assert not url.startswith("http://") or ":" in url.removeprefix("http://"), url
        elif outcome[0] == "NotSupported":
            assert not url.startswith("http"), url
        elif (
            outcome[0] == "CannotResolveHostError"
        ):  # Scrapy escapes the backslash, and it is example.com without a doubt
            assert "\\@" in url
        else:
            assert blocked(outcome), (url, outcome)


def test_the_decoy_would_notice(crawl, decoy, values):
    url = f"http://127.0.0.1:{decoy.port}/"

    crawl(url, policy=values | {"allow_private": ["127.0.0.1"]})

    assert len(decoy.visitors) == 1


def test_rows_33_34_35_and_37_one_private_answer_spoils_all(crawl, decoy):
    names = checklist.PRIVATE_ANSWERS
    urls = [f"http://{name}:{decoy.port}/{number}" for name in names for number in range(2)]

    outcomes = crawl(*urls, names={name: [answers, answers[::-1]] for name, answers in names.items()})

    assert outcomes == dict.fromkeys(urls, REFUSED)


@pytest.mark.parametrize("caches", [True, False])
def test_row_36_what_a_name_resolves_to_is_looked_at_for_each_connection(crawl, site, caches):
    site.pages |= {"/": redirect("/again"), "/again": page(b"hello")}
    url = site.url(host="rebinding.example")
    names = {"rebinding.example": [[servers.SITE], ["127.0.0.1"]]}

    outcome = crawl(url, names=names, settings={"DNSCACHE_ENABLED": caches})[url]

    assert outcome == ([200, "hello"] if caches else REFUSED)


def test_rows_38_to_40_and_42_and_43_no_redirect_leads_away(crawl, site):
    port = site.port
    hostile = [
        *("http://169.254.169.254/", f"http://127.0.0.1:{port}/", f"http://private.example:{port}/"),
        *(f"//127.0.0.1:{port}/", f"http://2130706433:{port}/", "http://images.example.net/"),
        *(f"http://user@127.0.0.1:{port}/", "http://example.com:22/", f"http://0x7f.1:{port}/"),
    ]
    odd = ["file:///etc/hostname", f"gopher://127.0.0.1:{port}/", "data:text/html,x"]
    odd += [f"\\\\127.0.0.1:{port}\\", f"/\\127.0.0.1:{port}/"]
    for number, location in enumerate(hostile + odd):
        site.pages[f"/{number}"] = redirect(location, 301 + number % 2)
    refreshing = f'<meta http-equiv="refresh" content="0;url=http://127.0.0.1:{port}/">'
    site.pages["/refresh"] = page(refreshing.encode(), Refresh=f"0;url=http://127.0.0.1:{port}/")
    site.pages |= {f"/hop{hop}": redirect(f"/hop{hop + 1}") for hop in range(10)}
    urls = [site.url(f"/{number}") for number in range(len(hostile + odd))]

    outcomes = crawl(
        *urls, site.url("/refresh"), site.url("/hop0"), names={"private.example": [["127.0.0.1"]]}
    )

    assert all(blocked(outcomes[url]) for url in urls[: len(hostile)]), outcomes
    assert not any(outcomes[url][1] == "hello" for url in urls[len(hostile) :])
    assert outcomes[site.url("/refresh")] == [200, refreshing]
    assert outcomes[site.url("/hop0")][0] == "IgnoreRequest"
    assert "/hop6" not in {path for path, _ in site.requests}


def test_row_41_no_redirect_leads_from_https_to_http(crawl, site, values, tmp_path):
    authority, certificate = servers.certificates(tmp_path)
    secure = servers.Site(certificate=certificate)
    values["ports"] = [site.port, secure.port]
    site.pages["/"] = page(b"plain")
    secure.pages |= {"/": page(b"secret"), "/down": redirect(site.url())}
    try:
        outcomes = crawl(secure.url(), secure.url("/down"), env={"SSL_CERT_FILE": str(authority)})

        assert outcomes[secure.url()] == [200, "secret"]
        assert blocked(outcomes[secure.url("/down")])
        assert site.requests == []
        assert crawl(secure.url())[secure.url()][0] == "DownloadFailedError"  # nobody vouches for it
        assert len(secure.requests) == 2
    finally:
        secure.close()


def test_row_44_nothing_that_a_page_names_leads_away(crawl, site):
    port = site.port
    links = [
        f"http://127.0.0.1:{port}/a.png",
        "http://10.0.0.1/a.png",
        f"http://private.example:{port}/b.png",
    ]
    links += ["file:///etc/hostname", "http://169.254.169.254/latest/meta-data/"]
    site.pages["/"] = page("".join(f"<<{link}>>" for link in links).encode())

    outcomes = crawl(site.url(), names={"private.example": [["10.0.0.5"]]})

    assert set(outcomes) == {site.url(), *links}
    assert all(blocked(outcomes[link]) for link in links if link.startswith("http")), outcomes


def test_row_45_the_rules_of_robots_are_fetched_under_the_guard(crawl, site, decoy):
    site.pages["/robots.txt"] = redirect(f"http://127.0.0.1:{decoy.port}/robots.txt")

    crawl(site.url(), settings={"ROBOTSTXT_OBEY": True})

    assert site.requests[0][0] == "/robots.txt"


def test_row_47_there_is_no_proxy(crawl, site, decoy):
    site.pages["/"] = page(b"direct")
    proxy = f"http://127.0.0.1:{decoy.port}"
    env = dict.fromkeys(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"], proxy)

    assert crawl(site.url(), env=env)[site.url()] == [200, "direct"]
    assert blocked(crawl(site.url(), meta={"proxy": proxy})[site.url()])


def test_rows_48_and_49_answers_are_left_at_their_limits(crawl, site):
    def pour(visit):
        visit.send_response(200)
        visit.end_headers()
        for _ in range(1000):
            visit.wfile.write(bytes(100_000))

    def drip(visit):
        for _ in range(100):
            visit.wfile.write(b"H")
            visit.wfile.flush()
            time.sleep(0.1)

    site.pages |= {
        "/bomb": page(gzip.compress(bytes(20_000_000)), Content_Encoding="gzip"),
        "/pour": pour,
        "/drip": drip,
    }
    urls = [site.url(path) for path in ("/bomb", "/pour", "/drip")]

    outcomes = crawl(*urls, settings={"DOWNLOAD_MAXSIZE": 100_000, "DOWNLOAD_TIMEOUT": 2})

    assert {outcome[0] for outcome in outcomes.values()} <= {
        *("DownloadCancelledError", "IgnoreRequest", "DownloadTimeoutError", "DownloadFailedError")
    }
    assert len(outcomes) == 3


def test_what_a_spider_wants_does_not_open_it(crawl, site, decoy):
    url = f"http://127.0.0.1:{decoy.port}/"
    wishes = {"DOWNLOAD_HANDLERS": {"http": "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler"}}
    wishes |= {"EGRESS_POLICY": None, "TWISTED_DNS_RESOLVER": "scrapy.resolver.CachingHostnameResolver"}

    outcome = crawl(url, spider_settings=wishes)[url]

    assert outcome[0] == "CannotResolveHostError"  # the resolver is that of the process


def test_neither_half_of_the_guard_works_alone(crawl, site):
    handler = "imagehub.egress.scrapy_guard.GuardedDownloadHandler"
    url = site.url()

    assert crawl(url, without=["TWISTED_DNS_RESOLVER"])[url][0] == "RuntimeError"
    assert (
        crawl(url, settings={"DOWNLOAD_HANDLERS": {"http": handler}}, guarded=False)[url][0] == "NotSupported"
    )
    assert crawl(url, without=["EGRESS_POLICY"], fails=True) is None
    assert site.requests == []


def test_open_closed_and_filtered_answer_alike(crawl, decoy):
    with servers.Decoy() as closed_port_was:
        closed = closed_port_was.port
    urls = [f"http://127.0.0.1:{decoy.port}/", f"http://127.0.0.1:{closed}/", "http://10.255.255.1/"]

    assert crawl(*urls) == dict.fromkeys(urls, REFUSED)
