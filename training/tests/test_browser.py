"""The cockpit of training in a real browser."""

import pytest

from training.models import MetricPoint, TrainingRun
from training.tests.test_run_admin import LIST, with_everything

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.django_db(transaction=True)]


def test_the_cockpit_of_training(chromium, live_server, sign_in):
    errors = []
    page = chromium.new_page(base_url=live_server.url, viewport={"width": 1300, "height": 1500})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
    page.on(
        "console", lambda message: errors.append(message.text) if "Content Security" in message.text else None
    )
    sign_in(page.context)

    with_everything(name="zebras", queued=True)
    run = TrainingRun.objects.claim(worker="w")
    page.goto(LIST)
    assert page.locator("svg.sparkline polyline").bounding_box()["width"] > 50
    page.get_by_role("link", name="zebras").click()
    page.get_by_role("button", name="Stop and save").wait_for()
    assert page.locator("svg.chart .train").bounding_box()["width"] > 300
    assert page.locator(".samples img").first.evaluate(
        "image => image.decode().then(() => image.naturalWidth > 0)"
    )
    page.get_by_role("button", name="Pin").first.click()
    page.get_by_text("is kept").wait_for()

    MetricPoint.objects.create(run=run, kind="validation", step=61, loss=0.1)
    page.locator("circle title", has_text="Step 61").wait_for(state="attached", timeout=10_000)
    page.get_by_role("button", name="Stop and save").click()
    page.get_by_text("is stopping, and saves").wait_for()
    page.goto(LIST)
    page.get_by_text("Stopping").wait_for()
    page.close()
    assert errors == []
