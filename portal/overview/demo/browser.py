"""A browser for the story: cookies, pages and forms, over real HTTP."""

import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import Any

TIMEOUT = 30


@dataclass
class Form:
    """A form as the page holds it: where it goes, and what its fields hold already."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    choices: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """One answer of the site."""

    url: str
    status: int
    text: str
    forms: list[Form]
    links: list[str]

    def form_with(self, name: str) -> Form:
        """Return the form that asks for ``name`` or goes to an address that ends so."""
        for form in self.forms:
            if name in form.names or urllib.parse.urlsplit(form.action).path.endswith(name):
                return form
        raise LookupError(f"{self.url} ({self.status}) has no form with “{name}”")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self._form: Form | None = None
        self._area: str | None = None
        self._typed = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is not None and given.get("name"):
            self._read_field(tag, given)

    def _read_field(self, tag: str, given: dict[str, str]) -> None:
        assert self._form is not None
        name, kind = given["name"], given.get("type", "text")
        if tag == "textarea":
            self._area, self._typed = name, ""
        if tag not in ("input", "textarea", "select", "button"):
            return
        self._form.names.add(name)
        if kind in ("checkbox", "radio"):
            self._form.choices.setdefault(name, []).append(given.get("value", "on"))
            if "checked" in given:
                self._form.fields.append((name, given.get("value", "on")))
        elif tag == "input" and kind not in ("submit", "file"):
            self._form.fields.append((name, given.get("value", "")))

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._typed += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None and self._form is not None:
            self._form.fields.append((self._area, self._typed.removeprefix("\n")))
            self._area = None
        elif tag == "form":
            self._form = None


class Browser:
    """One person's browser."""

    def __init__(self, site: str) -> None:
        self.site = site
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def get(self, path: str) -> Page:
        """Open a page of the site, following redirects."""
        return self._open(urllib.request.Request(urllib.parse.urljoin(self.site, path)))

    def send(self, page: Page, form: Form, **values: Any) -> Page:
        """Fill ``form`` of ``page`` and send it; a list gives a field several values."""
        filled = [(name, value) for name, value in form.fields if name not in values]
        for name, value in values.items():
            each = value if isinstance(value, list) else [value]
            filled += [(name, str(one)) for one in each]
        request = urllib.request.Request(
            urllib.parse.urljoin(page.url, form.action or page.url),
            data=urllib.parse.urlencode(filled).encode(),
            headers={"Referer": page.url},
        )
        return self._open(request)

    def _open(self, request: urllib.request.Request) -> Page:
        try:
            answer = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            text = answer.read().decode(errors="replace")
            reader = _Reader()
            reader.feed(text)
            return Page(answer.url, answer.status, text, reader.forms, reader.links)


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    data: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Ask with a plain HTTP client; return status, headers (small letters) and body."""
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as refused:
        answer = refused
    with answer:
        named = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, named, answer.read()
