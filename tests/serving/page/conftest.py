"""The replayed server, the browser, and visitors whose pages keep to their policy."""

import pytest
from browser import WATCH, chromium
from page_server import PageServer
from page_steps import seen


@pytest.fixture(scope="module")
def server():
    served = PageServer()
    yield served
    served.shutdown()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser, server):
    """Open the page as a new visitor; nothing it does may go elsewhere or break its policy."""
    server.reset()
    visitors, asked, errors = [], [], []

    def open_page(**options):
        context = browser.new_context(base_url=server.url, **options)
        context.set_default_timeout(20_000)
        context.grant_permissions(["microphone", "clipboard-read", "clipboard-write"])
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto("/")
        visitors.append(page)
        seen(lambda: page.locator("#model").inner_text() != "Looking for the model…")
        return page

    yield open_page
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked)
    assert not errors
    for page in visitors:
        assert page.evaluate("window.violations") == []
        page.context.close()
