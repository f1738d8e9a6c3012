"""The client against real servers. 127.0.0.2 stands for the public internet; nobody may reach 127.0.0.1."""

import gzip
import ssl
import time
import zlib
from collections.abc import Callable

import pytest

from imagehub.egress.client import Limits, open_url
from imagehub.egress.connections import Deadline, GuardedBackend, look_up
from imagehub.egress.policy import NOT_PUBLIC, BlockedAddress, FetchFailed, Policy
from imagehub.egress.tests import checklist, servers
from imagehub.egress.tests.servers import page, redirect


def answering(**names: list[str]) -> Callable[[str, int], list[str]]:
    """A resolver that knows these names, with _ for a dot. Numbers are what they are."""
    return lambda host, port: names.get(host.replace(".", "_"), [host])


def fetch(url, policy, **options) -> bytes:
    with open_url(url, policy=policy, **options) as answer:
        return answer.read()


@pytest.fixture
def refused(policy, decoy):
    """Fetch, and see that it is refused with nothing sent to anybody but the site."""

    def check(url: str, **options) -> BlockedAddress:
        with servers.connects() as attempts, pytest.raises(BlockedAddress) as caught:
            fetch(url, policy, **options)
        assert {attempt[0] for attempt in attempts} <= {servers.SITE}
        assert decoy.visitors == []
        return caught.value

    return check


class TestAnswers:
    def test_gives_what_the_site_answers(self, site, policy):
        site.pages["/"] = page(b"hello", X_Thing="1")

        with open_url(site.url(), policy=policy) as answer:
            assert (answer.status, answer.url, answer.redirects) == (200, site.url(), ())
            assert answer.headers["x-thing"] == "1"
            assert answer.read() == b"hello"
        assert site.requests[0][1]["User-Agent"].startswith("ImageHub/")

    def test_gives_an_error_as_an_answer(self, site, policy):
        with open_url(site.url("/missing"), policy=policy) as answer:
            assert (answer.status, answer.read()) == (404, b"nothing")

    def test_posts(self, site, policy):
        got = []

        def take(visit):
            got.append(visit.rfile.read(int(visit.headers["Content-Length"])))
            visit.answer(status=204)

        site.pages["/hook"] = take

        with open_url(site.url("/hook"), policy=policy, method="POST", content=b"{}") as answer:
            assert answer.status == 204
        assert got == [b"{}"]

    def test_follows_redirects_and_tells_them(self, site, policy):
        site.pages |= {"/": redirect("/b", 301), "/b": redirect(site.url("/c"), 307), "/c": page(b"there")}

        with open_url(site.url(), policy=policy) as answer:
            assert answer.read() == b"there"
            assert (answer.url, answer.redirects) == (site.url("/c"), (site.url(), site.url("/b")))

    def test_does_not_send_what_was_posted_anywhere_else(self, site, policy):
        site.pages["/"] = redirect(site.url("/b"), 307)

        with open_url(site.url(), policy=policy, method="POST", content=b"secret") as answer:
            assert answer.status == 307
        assert [path for path, _ in site.requests] == ["/"]

    def test_sends_secrets_and_cookies_to_no_other_host(self, site, policy):
        site.pages |= {
            "/": redirect(f"//other.example:{site.port}/b"),
            "/b": lambda visit: visit.answer(status=302, Location="/c", Set_Cookie="a=b"),
            "/c": page(b""),
        }
        headers = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Signature": "x", "User-Agent": "Us"}

        fetch(site.url(), policy, headers=headers, resolve=lambda host, port: [servers.SITE])

        first, *others = [sent for _, sent in site.requests]
        assert first["Authorization"] == "Bearer x"
        assert len(others) == 2
        for sent in others:
            assert sent["User-Agent"] == "Us"
            assert not any(name in sent for name in ("Authorization", "Cookie", "X-Signature"))

    def test_a_name_that_resolves_to_the_public_internet_is_reached(self, site, policy):
        site.pages["/"] = page(b"hello")
        url = site.url(host="pictures.example")

        assert fetch(url, policy, resolve=answering(pictures_example=[servers.SITE])) == b"hello"
        assert site.requests[0][1]["Host"] == f"pictures.example:{site.port}"


class TestTheChecklist:
    @pytest.mark.parametrize("row", checklist.REFUSED_AT_SUBMISSION)
    def test_rows_1_to_33_and_46_send_nothing(self, refused, decoy, row):
        for url in checklist.REFUSED_AT_SUBMISSION[row]:
            refused(url.replace("{port}", str(decoy.port)))

    def test_the_decoy_would_notice(self, decoy, values):
        opened = Policy.read(**values | {"allow_private": ["127.0.0.1"]})

        with servers.connects() as attempts, pytest.raises(FetchFailed):
            fetch(f"http://127.0.0.1:{decoy.port}/", opened)
        assert attempts == [("127.0.0.1", decoy.port)]
        assert len(decoy.visitors) == 1

    @pytest.mark.parametrize("name", checklist.PRIVATE_ANSWERS)
    def test_rows_33_34_35_and_37_one_private_answer_spoils_all(self, refused, decoy, name):
        answers = checklist.PRIVATE_ANSWERS[name]

        assert str(refused(f"http://{name}:{decoy.port}/", resolve=lambda host, port: answers)) == NOT_PUBLIC
        assert str(refused(f"http://{name}/", resolve=lambda host, port: answers[::-1])) == NOT_PUBLIC

    def test_row_36_a_name_is_looked_up_once_for_a_connection_and_checked_at_each(self, refused, site):
        lookups = []

        def rebinding(host: str, port: int) -> list[str]:
            lookups.append(host)
            return [servers.SITE if len(lookups) == 1 else "127.0.0.1"]

        site.pages["/"] = redirect("/again")

        refused(site.url(host="rebinding.example"), resolve=rebinding)
        assert [path for path, _ in site.requests] == ["/"]
        assert len(lookups) == 2

    @pytest.mark.parametrize(
        "location",
        [
            *("http://169.254.169.254/", "http://127.0.0.1:{port}/", "http://private.example:{port}/"),
            *("file:///etc/hostname", "gopher://127.0.0.1:{port}/", "data:text/html,x"),
            *(
                "//127.0.0.1:{port}/",
                "\\\\127.0.0.1:{port}\\",
                "/\\127.0.0.1:{port}/",
                "http://2130706433:{port}/",
            ),
            *("http://user@127.0.0.1:{port}/", "http://images.example.net/"),
        ],
    )
    def test_rows_38_to_40_and_43_no_redirect_leads_away(self, refused, site, location):
        for status in (301, 302, 303, 307, 308):
            site.pages["/"] = redirect(location.replace("{port}", str(site.port)), status)

            refused(site.url(), resolve=answering(private_example=["127.0.0.1"]))

        assert [path for path, _ in site.requests] == ["/"] * 5

    def test_row_41_no_redirect_leads_from_https_to_http(self, site, values, tmp_path):
        authority, certificate = servers.certificates(tmp_path)
        secure = servers.Site(certificate=certificate)
        policy = Policy.read(**values | {"ports": [site.port, secure.port]})
        site.pages["/"] = page(b"plain")
        secure.pages |= {"/": page(b"secret"), "/down": redirect(site.url())}
        trusted = ssl.create_default_context(cafile=authority)
        try:
            assert fetch(secure.url(), policy, authorities=trusted) == b"secret"
            with pytest.raises(BlockedAddress, match="https"):
                fetch(secure.url("/down"), policy, authorities=trusted)
            with pytest.raises(FetchFailed) as caught:
                fetch(secure.url(), policy)
            assert caught.value.reason == "unreachable"
            assert len(secure.requests) == 2  # whom we do not trust is not asked
            assert site.requests == []
        finally:
            secure.close()

    def test_row_42_chains_end(self, refused, site, policy, decoy):
        site.pages |= {f"/{hop}": redirect(f"/{hop + 1}") for hop in range(6)} | {"/6": page(b"too far")}
        site.pages |= {"/a": redirect("/b"), "/b": redirect("/a")}

        assert fetch(site.url("/1"), policy) == b"too far"  # five of them
        for path in ("/0", "/a"):
            with pytest.raises(FetchFailed) as caught:
                fetch(site.url(path), policy)
            assert caught.value.reason == "redirects"
        site.pages["/5"] = redirect(f"http://127.0.0.1:{decoy.port}/")
        refused(site.url("/1"))

    def test_row_43_refresh_is_not_followed(self, site, policy, decoy):
        url = f"http://127.0.0.1:{decoy.port}/"
        body = f'<meta http-equiv="refresh" content="0;url={url}">'.encode()
        site.pages["/"] = page(body, Refresh=f"0;url={url}")

        assert fetch(site.url(), policy) == body
        assert decoy.visitors == []

    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
    def test_row_47_a_proxy_in_the_environment_is_ignored(self, monkeypatch, site, policy, decoy, name):
        monkeypatch.setenv(name, f"http://127.0.0.1:{decoy.port}")
        site.pages["/"] = page(b"direct")

        assert fetch(site.url(), policy) == b"direct"
        assert decoy.visitors == []

    def test_row_50_a_line_break_stays_escaped(self, site, policy):
        with open_url(site.url("/%0d%0aX:1"), policy=policy) as answer:
            assert answer.status == 404
        assert site.requests[0][0] == "/%0d%0aX:1"
        assert "X" not in site.requests[0][1]


class TestLimits:
    """Rows 48 and 49."""

    def failure(self, site, policy, path="/", **limits) -> str:
        with pytest.raises(FetchFailed) as caught:
            fetch(site.url(path), policy, limits=Limits(**limits))
        assert str(caught.value) == "The address could not be fetched."
        return caught.value.reason

    @pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
    def test_a_body_is_counted_decompressed(self, site, policy, encoding, pack):
        bomb = pack(bytes(50_000_000))
        site.pages |= {
            "/bomb": page(bomb, Content_Encoding=encoding),
            "/small": page(pack(b"hello"), Content_Encoding=encoding),
        }

        assert fetch(site.url("/small"), policy) == b"hello"
        assert len(bomb) < 100_000
        assert self.failure(site, policy, "/bomb", body_bytes=100_000) == "body_too_large"

    @pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "gzip,identity", "x"])
    def test_a_body_is_unpacked_once_and_by_few_codecs(self, site, policy, encoding):
        site.pages["/"] = page(gzip.compress(gzip.compress(b"")), Content_Encoding=encoding)

        assert self.failure(site, policy) == "encoding"

    def test_a_broken_body_is_a_failure(self, site, policy):
        site.pages |= {
            "/packed": page(b"no gzip", Content_Encoding="gzip"),
            "/short": page(b"short", Content_Length="10"),
        }

        assert self.failure(site, policy, "/packed") == "encoding"
        assert self.failure(site, policy, "/short") == "protocol"

    def test_a_body_without_end_is_left_at_the_limit(self, site, policy):
        sent = []

        def pour(visit):
            visit.send_response(200)
            visit.end_headers()
            for _ in range(1000):
                visit.wfile.write(bytes(100_000))
                sent.append(100_000)

        site.pages["/"] = pour

        assert self.failure(site, policy, body_bytes=200_000) == "body_too_large"
        assert sum(sent) < 50_000_000  # what the buffers of the kernel take

    @pytest.mark.parametrize("count", [1500, 100_000])
    def test_heads_have_a_size(self, site, policy, count):
        def boast(visit):
            visit.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(count):
                visit.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 40))
            visit.wfile.write(b"\r\n")

        site.pages["/"] = boast

        assert self.failure(site, policy) == ("headers_too_large" if count == 1500 else "protocol")

    @pytest.mark.parametrize("early", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
    def test_a_site_that_drips_is_left_in_time(self, site, policy, early):
        def drip(visit):
            visit.wfile.write(early)
            for _ in range(100):
                visit.wfile.write(b"H")
                visit.wfile.flush()
                time.sleep(0.1)

        site.pages["/"] = drip
        start = time.monotonic()

        assert self.failure(site, policy, total_seconds=0.6) == "timeout"
        assert time.monotonic() - start < 3

    def test_a_site_that_says_nothing_is_left_in_time(self, site, policy):
        site.pages["/"] = lambda visit: time.sleep(2)

        assert self.failure(site, policy, silence_seconds=0.3) == "timeout"

    def test_a_look_up_that_takes_long_is_left_in_time(self, site, policy):
        start = time.monotonic()
        with pytest.raises(FetchFailed) as caught:
            fetch(
                "http://slow.example/",
                policy,
                limits=Limits(connect_seconds=0.2),
                resolve=lambda *_: time.sleep(3),
            )

        assert caught.value.reason == "timeout"
        assert time.monotonic() - start < 2

    def test_a_name_without_an_address_is_a_failure(self, policy):
        with pytest.raises(FetchFailed) as caught:
            fetch("http://nothing.example/", policy, resolve=lambda host, port: [])

        assert caught.value.reason == "unresolved"

    def test_a_port_where_nobody_listens_is_a_failure(self, site, policy):
        url = site.url()
        site.close()

        with pytest.raises(FetchFailed) as caught:
            fetch(url, policy)
        assert caught.value.reason == "unreachable"


class TestConnections:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "2130706433", "127.1", "0x7f.1", "0", "localhost"]
    )
    def test_are_refused_although_nobody_vetted_the_address(self, policy, decoy, host):
        lookups = []
        backend = GuardedBackend(
            policy, Deadline(5), lambda *asked: lookups.append(asked) or ["93.184.216.34"]
        )

        with servers.connects() as attempts, pytest.raises(BlockedAddress):
            backend.connect_tcp(host, decoy.port)
        assert attempts == lookups == []  # nor is anybody asked about names of a private network

    def test_never_go_to_a_socket_of_this_machine(self, policy):
        with pytest.raises(NotImplementedError):
            GuardedBackend(policy, Deadline(5), look_up).connect_unix_socket("/var/run/docker.sock")

    def test_try_one_address_after_the_other(self, site, decoy, values):
        site.pages["/"] = page(b"hello")
        policy = Policy.read(**values | {"allow_private": ["127.0.0.2/31"]})

        answers = ["127.0.0.3", servers.SITE]
        assert fetch(site.url(host="two.example"), policy, resolve=lambda host, port: answers) == b"hello"

    def test_know_the_names_of_this_machine(self):
        assert "127.0.0.1" in look_up("localhost", 80)
        assert look_up("nothing.invalid", 80) == []
        assert look_up("a" * 70 + ".example", 80) == []


def test_open_closed_and_filtered_answer_alike(policy, decoy):
    with servers.Decoy() as closed_port_was:
        closed = closed_port_was.port
    told, seconds = set(), []
    for address in (f"127.0.0.1:{decoy.port}", f"127.0.0.1:{closed}", "10.255.255.1"):
        for url in (f"http://{address}/", "http://private.example/"):
            start = time.monotonic()
            with servers.connects() as attempts, pytest.raises(BlockedAddress) as caught:
                fetch(url, policy, resolve=lambda *_, found=address: [found.partition(":")[0]])
            seconds.append(time.monotonic() - start)
            told.add((str(caught.value), caught.value.code, tuple(attempts)))

    assert told == {(NOT_PUBLIC, "blocked_address", ())}
    assert max(seconds) < 1  # a connection to the filtered one would take until its timeout of five


def test_addresses_are_not_logged(site, policy, caplog, settings):
    site.pages["/"] = page(b"")

    fetch(site.url("/?token=4711"), policy)
    assert "4711" not in caplog.text
