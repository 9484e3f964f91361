"""Pages from templates: whatever is inserted is text, never markup."""

import jinja2
import pytest

from ltu_jax.core import html


@pytest.fixture
def page(monkeypatch):
    """A page with one value `text`, made of a template given here."""

    def make(template, **values):
        environment = html._environment.__wrapped__("ltu_jax.evaluation.report")
        return environment.from_string(template).render(**values)

    return make


def test_markup_is_shown_and_not_followed(page):
    assert page("<p>{{ text }}</p>", text="<b>&\"'") == "<p>&lt;b&gt;&amp;&#34;&#39;</p>"
    assert page('<p title="{{ text }}">', text='" onclick="x') == (
        '<p title="&#34; onclick=&#34;x">'
    )
    assert "<i>" not in page("{{ text|cut(4) }}", text="<i>" * 9)


def test_what_no_page_may_hold_is_replaced(page):
    assert (
        page("{{ text }}", text="a\x00\x1b\ud800\u202e\uffff\tb\n") == "a" + "\ufffd" * 5 + "\tb\n"
    )
    assert page("{{ 1.5 }}{{ none }}") == "1.5None"


def test_a_text_is_cut_before_it_is_escaped(page):
    assert page("{{ text|cut(2) }}", text="&&&") == "&amp;&amp; […]"
    assert page("{{ text|cut(3) }}", text="&&&") == "&amp;" * 3


def test_a_name_that_is_not_given_is_an_error(page):
    with pytest.raises(jinja2.UndefinedError):
        page("{{ nothing }}")


def test_a_picture_lies_in_the_page(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert html.png_source(tmp_path / "a.png") == "data:image/png;base64,iVBORw=="
    assert html.png_source(tmp_path / "b.png") == ""
