"""An acceptance as a PDF: who accepted which words, when, and the words themselves.

The exact bytes whose hash is named are embedded as a file too (ISO 32000-2, section 7.11.4), for
letters that the font lacks.
"""

from django.conf import settings
from fpdf import FPDF

from portal.access.models import Acceptance

FONT = settings.BASE_DIR / "portal" / "fonts" / "DejaVuSans.ttf"
LINE, SMALL, LARGE = 5.5, 10, 15  # mm; points


def acceptance_pdf(acceptance: Acceptance) -> bytes:
    """Return the PDF; the same acceptance always gives the same words."""
    terms = acceptance.terms
    pdf = FPDF(format="A4")
    pdf.set_creation_date(acceptance.at)
    pdf.set_title(str(acceptance))
    pdf.set_lang("en")
    pdf.add_font("DejaVu", fname=FONT)
    pdf.set_auto_page_break(True, margin=20)
    pdf.add_page()
    pdf.set_font("DejaVu", size=LARGE)
    pdf.multi_cell(0, LINE * 1.5, str(terms), new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("DejaVu", size=SMALL)
    for name, value in facts(acceptance):
        pdf.multi_cell(0, LINE, f"{name}: {value}", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(LINE)
    pdf.multi_cell(0, LINE, terms.text.expandtabs(4), new_x="LMARGIN", new_y="NEXT")
    pdf.embed_file(
        basename=f"{terms.family.slug}-terms-{terms.version}.txt",
        bytes=terms.text.encode(),
        mime_type="text/plain",
        modification_date=terms.created_at,
    )
    return bytes(pdf.output())


def facts(acceptance: Acceptance) -> list[tuple[str, str]]:
    """Return what is on record of an acceptance, in words."""
    how = "on this portal"
    if acceptance.attested_by:
        how = f"on paper, as {acceptance.attested_by} attests"
    elif acceptance.address:
        how += f", from {acceptance.address}"
    return [
        ("Accepted by", str(acceptance.user)),
        ("At", f"{acceptance.at:%d %B %Y, %H:%M:%S} UTC"),
        ("How", how),
        ("SHA-256 of the text", acceptance.text_sha256),
    ]
