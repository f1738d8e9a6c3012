"""A page with 27 pictures, shown in every way that the research of scrapers found, and with what is none among them."""

URL = "http://gallery.test/rooms/first.html"
BASE = "http://gallery.test/media/"

HTML = r"""<!doctype html>
<html><head>
<base href="/media/">
<meta property="og:image" content="og.jpg"><meta property="og:image:alt" content="The house">
<meta name="twitter:image" content="twitter.jpg">
<link rel="image_src" href="image-src.jpg">
<link rel="preload" as="image" href="preload.webp">
<link rel="icon" href="favicon.png"><link rel="stylesheet" href="style.css">
<link rel="alternate" type="application/rss+xml" href="/feed.xml">
<script type="application/ld+json">
{"@context": "https:\/\/schema.org", "@graph": [
  {"@type": "Article", "image": ["http:\/\/gallery.test\/media\/ld-plain.jpg"], "publisher": {"logo": {"url": "logo.png"}}},
  {"@type": "ImageObject", "contentUrl": "http:\/\/gallery.test\/media\/ld-object.jpg", "thumbnailUrl": "ld-thumb.jpg",
   "caption": "A ladder", "license": "https:\/\/licences.test\/by"}]}
</script>
<script type="application/ld+json">{"broken": </script>
<script>var hidden = "http://gallery.test/media/in-script.jpg";</script>
<style>.hero { background: #fff url('style-element.png') no-repeat }</style>
</head><body>
<img src="quoted.jpg" alt="A quoted   picture" title="Its title" aria-label="Its label">
<img src=unquoted.png>
<img src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw==" data-src="lazy-src.jpg">
<img src="placeholder.gif" data-lazy-src="lazy-lazy.jpg">
<img src="placeholder.gif" data-original="lazy-original.jpg">
<img src="w-small.jpg" srcset="w-320.jpg 320w, w-1280.jpg 1280w, w-640.jpg 640w">
<img src="x-1.jpg" srcset="x-1.jpg, x-2,cropped.jpg 2x">
<img data-srcset="ds-1.webp 1x, ds-3.webp 3x">
<picture><source type="image/avif" srcset="only.avif"></picture>
<picture><source type="image/avif" srcset="p-2000.avif 2000w"><source srcset="p-800.webp 800w, p-1600.webp 1600w"><img src="p.jpg"></picture>
<noscript><img src="noscript.jpg" alt="Without scripts"></noscript>
<div style="background-image: url(&quot;css.jpg&quot;)" aria-label="A wall"></div>
<div data-bg="lazy-background.jpg"></div>
<a href="full.JPG" title="Large"><img src="thumb.jpg" alt="A full picture"></a>
<img src="/cdn/image?id=77&amp;w=800">
<img src="//cdn.test/protocol-relative.jpg">
<video poster="poster.jpg"></video>
<input type="image" src="button.png" alt="Go"><input type="text" src="no.png">
<svg><image href="inside.jpg" width="10"></image></svg>
<figure><img src="photo.heic"><figcaption>The <b>only</b> one
 of its kind</figcaption><a rel="license" href="https://licences.test/zero">CC0</a></figure>
<img src="javascript:1"><img src="with space.jpg"><img src=""><img><img src="{{ template }}"><img src="mailto:a@b.test">
<img src="http://[broken/"><a href="ftp://gallery.test/x.jpg">x</a><img src="back\slash.jpg">
<iframe src="/frames/one.html"></iframe>
<a href="/rooms/second.html#top">Next</a><a href="/rooms/second.html">Again</a><a href="/archive.zip">Archive</a>
<a rel="license" href="https://licences.test/by-sa">Licence</a>
</body></html>
"""

PICTURES = {
    *(
        BASE + name
        for name in (
            "og.jpg", "twitter.jpg", "image-src.jpg", "preload.webp", "ld-plain.jpg", "ld-object.jpg",
            "style-element.png", "quoted.jpg", "unquoted.png", "lazy-src.jpg", "lazy-lazy.jpg", "lazy-original.jpg",
            "w-1280.jpg", "x-2,cropped.jpg", "ds-3.webp", "only.avif", "p-1600.webp", "noscript.jpg", "css.jpg",
            "lazy-background.jpg", "full.JPG", "poster.jpg", "button.png", "inside.jpg", "photo.heic",
        )
    ),
    "http://gallery.test/cdn/image?id=77&w=800",
    "http://cdn.test/protocol-relative.jpg",
}  # fmt: skip
