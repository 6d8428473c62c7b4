"""Pages that anyone may open."""

import re

import pytest
from django.test import Client
from django_guid.log_filters import CorrelationId

MOST_QUERIES = 15
PUBLIC = ["/", "/families/llama/", "/verify/", "/account/login/", "/account/signup/"]
ELSEWHERE = re.compile(r'(?:src|href|action)="(?:https?:)?//')
# a script element that holds JSON is data, which no browser runs
DATA_OR_FILE = r'(?:src=|type="application/json")'
INLINE = re.compile(rf"<style|\sstyle=|<script(?![^>]*\s{DATA_OR_FILE})|\son[a-z]+=")


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_page_answers_anyone_with_few_queries(
    client, checkpoint, path, django_assert_max_num_queries
):
    with django_assert_max_num_queries(MOST_QUERIES):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", PUBLIC)
def test_a_page_asks_nothing_of_other_hosts_and_runs_nothing_of_its_own(client, checkpoint, path):
    page = client.get(path)
    assert not ELSEWHERE.search(page.text)
    assert not INLINE.search(page.text)
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_the_number_of_queries_does_not_grow_with_the_checkpoints(
    client, checkpoint, django_assert_max_num_queries
):
    from tests.portal.access.rows import checkpoint_row

    for number in range(20):
        checkpoint_row(f"variant-{number}")
    with django_assert_max_num_queries(MOST_QUERIES):
        page = client.get("/families/llama/")
    assert page.text.count("Signed manifest of") == 21


def test_an_empty_portal_says_what_the_operator_must_run(client, db):
    assert "manage.py publish DIR" in client.get("/").text


def test_a_familys_page_shows_terms_sizes_and_the_way_to_the_manifest(client, checkpoint):
    page = client.get("/families/llama/").text
    assert "100,003 bytes" in page
    assert "/manifests/llama/7b@1/files/model.sig" in page
    assert checkpoint.family.terms.sha256 in page


def test_a_page_that_is_not_there_says_so_in_words(client, db):
    page = client.get("/families/nothing/")
    assert page.status_code == 404 and "There is nothing here" in page.text


def test_a_form_without_its_token_is_refused_in_words(applicant, family):
    client = Client(enforce_csrf_checks=True)
    client.force_login(applicant)
    page = client.post("/families/llama/apply/")
    assert page.status_code == 403 and "Nothing was changed" in page.text


def test_a_fault_of_ours_is_told_in_words(client, checkpoint, monkeypatch):
    monkeypatch.setattr("portal.overview.views.render", lambda *_: 1 / 0)
    client.raise_request_exception = False
    page = client.get("/")
    assert page.status_code == 500 and "on our side" in page.text


@pytest.mark.parametrize("path", ["/families/nothing/", "/"])
def test_an_error_has_an_id_to_quote_that_the_log_has_too(
    client, checkpoint, monkeypatch, path, caplog
):
    monkeypatch.setattr("portal.overview.views.render", lambda *_: 1 / 0)
    client.raise_request_exception = False
    caplog.handler.addFilter(CorrelationId())
    page = client.get(path)
    assert page.headers["X-Request-ID"] in page.text
    assert page.headers["X-Request-ID"] in {r.correlation_id for r in caplog.records}
