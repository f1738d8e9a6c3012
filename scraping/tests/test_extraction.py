import pytest

from scraping.crawler.addresses import Base, ending, normal, site_of
from scraping.crawler.candidates import parse_srcset
from scraping.crawler.content import Caption
from scraping.crawler.extraction import extract
from scraping.crawler.feeds import extract_feed, is_xml
from scraping.crawler.structured import MAX_BYTES, pictures
from scraping.tests import gallery_page

URL = "http://a.test/dir/page.html"


def found(html, url=URL):
    return list(extract(html.encode(), url).pictures)


class TestGalleryPage:
    @pytest.fixture
    def content(self):
        return extract(gallery_page.HTML.encode(), gallery_page.URL)

    def test_has_27_pictures_and_no_junk(self, content):
        assert len(gallery_page.PICTURES) == 27
        assert set(content.pictures) == gallery_page.PICTURES

    @pytest.mark.parametrize(
        ("name", "captions"),
        [
            (
                "quoted.jpg",
                [("A quoted picture", "alt"), ("Its title", "title"), ("Its label", "aria-label")],
            ),
            ("full.JPG", [("A full picture", "alt"), ("Large", "title")]),
            ("photo.heic", [("The only one of its kind", "figcaption")]),
            ("ld-object.jpg", [("A ladder", "json-ld")]),
            ("og.jpg", [("The house", "og:image:alt")]),
            ("css.jpg", [("A wall", "aria-label")]),
            ("unquoted.png", []),
        ],
    )
    def test_tells_captions_and_where_they_stood(self, content, name, captions):
        assert content.pictures[gallery_page.BASE + name].captions == [Caption(*one) for one in captions]

    def test_tells_the_nearest_licence(self, content):
        licences = {url.rpartition("/")[2]: picture.licence for url, picture in content.pictures.items()}
        assert licences["ld-object.jpg"] == "https://licences.test/by"
        assert licences["photo.heic"] == "https://licences.test/zero"
        assert licences["quoted.jpg"] == "https://licences.test/by-sa"

    def test_tells_links_frames_and_feeds_once(self, content):
        assert list(content.links) == [
            "http://gallery.test/feed.xml",
            "http://gallery.test/frames/one.html",
            "http://gallery.test/rooms/second.html",
        ]


class TestPages:
    @pytest.mark.parametrize(
        ("html", "pictures"),
        [
            ("<img src=x.jpg srcset='y.jpg 1x'>", ["y.jpg"]),
            ("<img src=x.jpg data-full-src=z.png>", ["z.png"]),
            ("<picture><source type=image/avif srcset=x.avif><img src=x.jpg></picture>", ["x.jpg"]),
            ("<picture><source srcset='x.webp 1x, y.webp 2x' type=image/webp></picture>", ["y.webp"]),
            ("<a href=big.png><img src=s.png><img src=t.png></a>", ["big.png"]),
            ("<a href=page><img src=s.png></a>", ["s.png"]),
            ("<a href=x.svg>drawing</a><a href=x.pdf>paper</a>", []),
            ("<img srcset='data:image/png;base64,AA== 1x, real.png 2x'>", ["real.png"]),
            ("<p style='background:url(data:image/png;base64,AA==),url( \"x.png\" )'>", ["x.png"]),
            ("<template><img src=x.png></template>", ["x.png"]),
            ("<object type=image/png data=x.png></object><amp-img src=y.png></amp-img>", ["x.png", "y.png"]),
            ("<link rel='shortcut icon' href=x.png><link rel=apple-touch-icon href=y.png>", []),
            ("<meta itemprop=image content=x.png>", ["x.png"]),
            ("<img src=x.png><img src='./x.png'><img src='HTTP://A.test:80/dir/x.png#top'>", ["x.png"]),
        ],
    )
    def test_one_best_file_for_each_picture(self, html, pictures):
        assert found(html) == [f"http://a.test/dir/{name}" for name in pictures]

    @pytest.mark.parametrize(
        "body", [b"", b"\0\0\0", b"<", b"no markup", b"<!--", b"<img src=" * 3, "ü".encode("latin-1")]
    )
    def test_survives_what_is_no_page(self, body):
        assert extract(body, URL, "no-such-encoding").pictures == {}

    def test_survives_a_page_that_is_far_too_deep(self):
        assert extract(b"<div>" * 100_000 + b"<img src=x.png>", URL).opt_out == ""

    @pytest.mark.parametrize("encoding", ["shift_jis", "utf-16"])
    def test_reads_other_encodings(self, encoding):
        html = "<img src=x.png alt='猫'><p data-bg=y.png style='background: url(z.png)'>".encode(encoding)
        pictures = extract(html, URL, encoding).pictures
        assert pictures["http://a.test/dir/x.png"].captions == [Caption("猫", "alt")]
        assert len(pictures) == 3

    def test_tells_opt_outs_and_whether_links_may_be_followed(self):
        content = extract(b"<meta name=Robots content='NoAI, nofollow'><a href=x>x</a>", URL)
        assert (content.opt_out, content.may_follow) == ("meta_robots", False)
        content = extract(b"<meta name=tdm-reservation content=1>", URL)
        assert (content.opt_out, content.may_follow) == ("tdm_meta", True)


class TestSrcset:
    @pytest.mark.parametrize(
        ("text", "candidates"),
        [
            ("a.png", [("a.png", 1.0)]),
            ("a.png 1x, b.png 2x", [("a.png", 1.0), ("b.png", 2.0)]),
            ("a.png 320w,b.png 640w", [("a.png", 320.0), ("b.png", 640.0)]),
            ("a,1.png 1x,  b,2.png 1.5x", [("a,1.png", 1.0), ("b,2.png", 1.5)]),
            ("a.png, b.png", [("a.png", 1.0), ("b.png", 1.0)]),
            ("a.png 100w 50h, b.png", [("a.png", 100.0), ("b.png", 1.0)]),
            ("a.png nanx, b.png -1x, c.png 1e999x", [("a.png", 0.0), ("b.png", 0.0), ("c.png", 0.0)]),
            (" , ,, ", []),
            ("", []),
        ],
    )
    def test_parses(self, text, candidates):
        assert parse_srcset(text) == candidates


class TestStructured:
    def test_reads_pictures_and_no_logos(self):
        text = """{"@type": "Recipe", "image": [{"url": "1.jpg", "name": "One"}, "2.jpg"], "logo": "no.png",
            "step": {"image": "3.jpg"}, "url": "page"}"""
        assert [(one.reference, one.caption) for one in pictures(text)] == [
            ("1.jpg", "One"),
            ("2.jpg", ""),
            ("3.jpg", ""),
        ]

    @pytest.mark.parametrize(
        "text", ["", "{", "[" * 100_000, "1", '"x"', '{"image": 1}', " " * MAX_BYTES + "{}"]
    )
    def test_survives_what_is_none(self, text):
        assert list(pictures(text)) == []

    def test_halves_of_characters_and_controls_go_nowhere(self):
        html = r"""<script type="application/ld+json">{"image": [{"url": "x.png", "caption": "a\u0000b\ud800c"},
            {"url": "y\ud800.png"}, {"url": "z\u0000.png"}]}</script>"""
        (picture,) = extract(html.encode(), URL).pictures.values()
        assert (picture.url, picture.captions) == ("http://a.test/dir/x.png", [Caption("a b c", "json-ld")])


class TestFeeds:
    def test_rss(self):
        body = b"""<?xml version="1.0"?><rss xmlns:media="http://search.yahoo.com/mrss/" xmlns:content="c"><channel>
            <item><title>One</title><link>/1</link>
              <media:content url="/small.jpg" medium="image" width="100"/><media:content url="/large.jpg" medium="image" width="900"/>
              <media:thumbnail url="/thumb.jpg"/><content:encoded>&lt;img src="/inner.png" alt="In"&gt;</content:encoded></item>
            <item><enclosure url="/song.mp3" type="audio/mpeg"/><enclosure url="/cover.png" type="image/png"/></item>
            </channel></rss>"""
        content = extract_feed(body, "http://a.test/feed")
        assert [url.removeprefix("http://a.test") for url in content.pictures] == [
            "/inner.png",
            "/large.jpg",
            "/cover.png",
        ]
        assert content.pictures["http://a.test/large.jpg"].captions == [Caption("One", "title")]
        assert list(content.links) == ["http://a.test/1"]

    def test_atom(self):
        body = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>Two</title><link href="/2"/>
            <link rel="enclosure" type="image/jpeg" href="/2.jpg"/></entry></feed>"""
        content = extract_feed(body, "http://a.test/feed")
        assert (list(content.pictures), list(content.links)) == (["http://a.test/2.jpg"], ["http://a.test/2"])

    def test_sitemap(self):
        body = b"""<urlset xmlns="s" xmlns:image="i"><url><loc>http://a.test/p</loc><image:image><image:loc>http://a.test/p.png</image:loc>
            <image:caption>Three</image:caption></image:image></url></urlset>"""
        content = extract_feed(body, "http://a.test/sitemap.xml")
        assert content.pictures["http://a.test/p.png"].captions == [Caption("Three", "sitemap")]
        assert list(content.links) == ["http://a.test/p"]

    def test_resolves_no_entities(self, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("http://a.test/secret.png")
        body = f"""<!DOCTYPE rss [<!ENTITY x SYSTEM "file://{secret}">]><rss><item><link>&x;</link></item></rss>"""
        content = extract_feed(body.encode(), "http://a.test/feed")
        assert (content.pictures, content.links) == ({}, {})

    def test_is_told_from_html(self):
        assert is_xml(b"<rss>", "application/rss+xml; charset=utf-8")
        assert is_xml(b"<?xml version='1.0'?><feed>", "")
        assert not is_xml(b"<?xml version='1.0'?><html>", "application/xhtml+xml")
        assert not is_xml(b"<html>", "text/html")


class TestAddresses:
    @pytest.mark.parametrize(
        ("reference", "url"),
        [
            ("x", "http://a.test/dir/x"),
            ("/x", "http://a.test/x"),
            ("//b.test/x", "http://b.test/x"),
            ("../x/./y", "http://a.test/x/y"),
            ("/a/../x", "http://a.test/x"),
            ("?q=1", "http://a.test/dir/page.html?q=1"),
            (" x ", "http://a.test/dir/x"),
            ("HTTPS://B.TEST:443/Ä", "https://b.test/%C3%84"),
            ("http://b.test", "http://b.test/"),
            ("/x#part", "http://a.test/x"),
            ("/a%20b", "http://a.test/a%20b"),
            ("", ""),
            ("#part", "http://a.test/dir/page.html"),
            ("javascript:1", ""),
            ("data:,x", ""),
            ("file:///etc/passwd", ""),
            ("a b", ""),
            ("/<x>", ""),
            ("http://b.test/<x>", ""),
            ("a\nb", ""),
            ("http://b.test\\@c.test/", ""),
            ("http://[::1/", ""),
            ("http://b.test:99999/", ""),
            ("/" + "x" * 3000, ""),
        ],
    )
    def test_are_made_absolute_in_one_spelling(self, reference, url):
        assert Base(URL).absolute(reference) == url

    def test_only_whole_addresses_of_the_web_are_normal(self):
        assert normal("HTTP://A.test") == "http://a.test/"
        assert [normal(url) for url in ("//a.test/", "/x", "ftp://a.test/", "a.test")] == ["", "", "", ""]

    def test_ending(self):
        urls = [
            "http://a.test/x.JPG",
            "http://a.test/x.jpg?v=1.2",
            "http://a.test/",
            "http://a.test/x",
            "http://a.test/a.b/c",
        ]
        assert [ending(url) for url in urls] == ["jpg", "jpg", "", "", ""]

    @pytest.mark.parametrize(
        ("url", "site"),
        [
            ("http://www.example.co.uk/x", "example.co.uk"),
            ("http://a.b.example.com:8080/", "example.com"),
            ("http://127.0.0.1:99/", "127.0.0.1"),
            ("http://localhost/", "localhost"),
            ("http://[::1]/", "::1"),
            ("http://nas.office.lan/", "office.lan"),
            ("http://somebody.github.io/", "somebody.github.io"),
            ("http://co.uk/", "co.uk"),
        ],
    )
    def test_registrable_domain(self, url, site):
        assert site_of(url) == site
