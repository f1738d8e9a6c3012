from datetime import UTC, datetime

import factory

from imagehub.accounts.tests.factories import UserFactory
from scraping.models import ScrapedImage, ScrapedPage, ScrapeJob, address_key, domain_key
from scraping.services.plans import Plan, config_of


class ScrapeJobFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = ScrapeJob

    owner = factory.SubFactory(UserFactory, staff=True)
    name = factory.Sequence(lambda n: f"crawl {n}")
    host = "gallery.example"
    config = factory.LazyAttribute(
        lambda job: config_of(
            Plan(start_urls=[f"https://{job.host}/"], max_pages=10, max_images=100, min_side=64)
        )
    )


class ScrapedImageFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = ScrapedImage

    job = factory.SubFactory(ScrapeJobFactory)
    position = factory.Sequence(int)
    url = factory.Sequence(lambda n: f"https://gallery.example/pictures/{n}.png")
    key = factory.LazyAttribute(lambda item: address_key(item.url))
    page_url = "https://gallery.example/"
    final_url = factory.SelfAttribute("url")
    domain = factory.LazyAttribute(lambda item: domain_key("gallery.example"))
    page_domain = domain_key("gallery.example")
    state = "saved"
    status = 200
    robots = "allowed"
    sha256 = factory.LazyAttribute(lambda item: item.key * 2)
    format = "png"
    width = 240
    height = 180
    size_bytes = 1000
    fetched_at = datetime(2026, 11, 1, tzinfo=UTC)


class ScrapedPageFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = ScrapedPage

    job = factory.SubFactory(ScrapeJobFactory)
    url = factory.Sequence(lambda n: f"https://gallery.example/pages/{n}")
    key = factory.LazyAttribute(lambda page: address_key(page.url))
    final_url = factory.SelfAttribute("url")
    domain = factory.LazyAttribute(lambda page: domain_key("gallery.example"))
    state = "visited"
    status = 200
    robots = "allowed"
    fetched_at = datetime(2026, 11, 1, tzinfo=UTC)
