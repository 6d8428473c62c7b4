"""A file is what its bytes say, and its name must say the same."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.access.file_types import CHECKS, FileTypeError, media_type_of, safe_name

DOCX_TYPE = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
ODT = b"application/vnd.oasis.opendocument.text"


def zipped(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return made.getvalue()


def docx(**more):
    return zipped(**{"[Content_Types]_xml": DOCX_TYPE, "word__document_xml": b"<w/>"} | more)


def odt(**more):
    return zipped(**{"mimetype": ODT, "content_xml": b"<o/>"} | more)


GOOD = {
    "a.pdf": b"%PDF-1.7\n...",
    "a.PNG": b"\x89PNG\r\n\x1a\n...",
    "a.jpg": b"\xff\xd8\xff\xe0...",
    "a.jpeg": b"\xff\xd8\xff\xe1...",
    "a.txt": "Straße\n\tnaïve".encode(),
    "a.docx": docx(),
    "a.odt": odt(),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_whose_bytes_agree_with_its_name_is_taken(name):
    assert media_type_of(name, io.BytesIO(GOOD[name]), list(CHECKS))


@pytest.mark.parametrize("ending", CHECKS)
@pytest.mark.parametrize("other", GOOD)
def test_bytes_of_another_type_are_refused(ending, other):
    other_ending = other.rsplit(".", 1)[1].lower()
    same = {"jpg", "jpeg"}
    if (
        ending == other_ending
        or {ending, other_ending} <= same
        or (ending, other) == ("txt", "a.pdf")
    ):
        return
    with pytest.raises(FileTypeError, match="something else"):
        media_type_of(f"x.{ending}", io.BytesIO(GOOD[other]), list(CHECKS))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.exe", b"MZ", "not one of the types"),
        ("pdf", b"%PDF-1.7", "not one of the types"),
        ("a.txt", b"a\0b", "something else"),
        ("a.txt", b"\xff\xfe", "something else"),
        ("a.docx", docx(word__vbaProject_bin=b"x", **{"word__vbaProject.bin": b"x"}), "macros"),
        ("a.docx", docx(**{"[Content_Types]_xml": DOCX_TYPE + b"macroEnabled"}), "macros"),
        ("a.docx", docx(**{"word___rels__settings_xml.rels": b"attachedTemplate"}), "template"),
        ("a.docx", GOOD["a.docx"][:-30], "something else"),
        ("a.odt", odt(Basic__Standard__Module1_xml=b"x"), "macros"),
        ("a.odt", odt(mimetype=b"application/zip"), "something else"),
    ],
)
def test_what_is_not_asked_for_or_carries_macros_is_refused(name, content, says):
    with pytest.raises(FileTypeError, match=says):
        media_type_of(name, io.BytesIO(content), list(CHECKS))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("plan.pdf", "plan.pdf"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\a\\plan.pdf", "plan.pdf"),
        ("a\u202efdp.exe.pdf", "afdp.exe.pdf"),
        ("a\r\nX-Header: 1.pdf", "a  X-Header_ 1.pdf"),
        ("...", "file"),
        ("", "file"),
        ("x" * 200 + ".pdf", "x" * 116 + ".pdf"),
    ],
)
def test_a_name_keeps_nothing_that_misleads(name, safe):
    assert safe_name(name) == safe


@given(st.text(max_size=300))
def test_no_name_leads_elsewhere(name):
    safe = safe_name(name)
    assert 1 <= len(safe) <= 120 and not set(safe) & set('/\\\0\r\n"')
    assert safe not in (".", "..")


@given(
    content=st.binary(max_size=300), name=st.sampled_from(sorted(CHECKS)), cut=st.integers(0, 400)
)
def test_any_bytes_are_taken_or_refused_in_words(content, name, cut):
    for bytes_ in (content, GOOD["a.docx"][:cut] + content, GOOD["a.odt"][cut:] + content):
        try:
            media_type_of(f"x.{name}", io.BytesIO(bytes_), list(CHECKS))
        except FileTypeError as error:
            assert str(error)
