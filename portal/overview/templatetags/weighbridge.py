"""How pages write sizes, digests, times and states."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, FileInput, RadioSelect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.timezone import now
from django_guid import get_guid

register = template.Library()

UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
SHOWN_OF_DIGEST = 8  # letters at either end
# The shape and colour of each state; the word stands beside it.
KINDS = {
    "draft": "",
    "withdrawn": "",
    "submitted": "wait",
    "returned": "warn",
    "approved": "good",
    "rejected": "bad",
    "revoked": "bad",
    "queued": "wait",
    "running": "wait",
    "done": "good",
    "failed": "bad",
    "waiting": "wait",
    "confirmed": "good",
    "declined": "bad",
    "expired": "warn",
}


def in_units(size: int) -> str:
    """Write ``size``, in bytes, with three digits or so: `13.5 GB`."""
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:,.{1 if size < 100 * unit else 0}f} {name}"
    return f"{size} B"


@register.filter
def size(value: int) -> SafeString:
    """Write a size in bytes for people, with the exact number in its title."""
    return format_html(
        '<span class="number" title="{} bytes">{}</span>', f"{value:,}", in_units(value)
    )


@register.filter
def digest(value: str) -> SafeString:
    """Shorten a digest in the middle; it is whole in the markup, where it can be copied."""
    if len(value) <= 2 * SHOWN_OF_DIGEST + 1:
        return format_html('<code class="digest">{}</code>', value)
    return format_html(
        '<span class="digest" title="{}" data-copy="{}">{}…{}</span>',
        value,
        value,
        value[:SHOWN_OF_DIGEST],
        value[-SHOWN_OF_DIGEST:],
    )


@register.simple_tag
def request_id() -> str:
    """Return the id of the request being answered, which the log has too."""
    return get_guid() or "–"


@register.filter
def when(value: datetime) -> SafeString:
    """Write a time as people say it (`3 hours ago`), with the exact one in its title."""
    at = now()
    if abs(at - value) < timedelta(minutes=1):
        said = "just now"
    elif value > at:
        said = f"in {timeuntil(value, at, depth=1)}"
    else:
        said = f"{timesince(value, at, depth=1)} ago"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        f"{value:%d %B %Y, %H:%M} UTC",
        said,
    )


@register.filter
def day(value: datetime) -> SafeString:
    """Write a date, with the minute in its title."""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        f"{value:%d %B %Y, %H:%M} UTC",
        f"{value.day} {value:%B %Y}",
    )


@register.filter
def long(value: timedelta) -> str:
    """Write a length of time in its largest unit: `2 days`."""
    for seconds, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if value.total_seconds() >= seconds:
            count = round(value.total_seconds() / seconds)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "less than a minute"


@register.filter
def kind(status: str) -> str:
    """Return the class that draws the state ``status``."""
    return KINDS.get(status, "")


@register.simple_tag(takes_context=True)
def nav_link(context: template.Context, href: str, text: str) -> SafeString:
    """Write a link of the navigation, marked where it is the current page."""
    request = context.get("request")
    here = getattr(request, "path", None) == href
    return format_html('<a href="{}"{}>{}</a>', href, _CURRENT if here else "", text)


_CURRENT = SafeString(' aria-current="page"')


@register.filter
def is_group(field: BoundField) -> bool:
    """Whether this field is several inputs, which want a fieldset with a legend."""
    return isinstance(field.field.widget, (RadioSelect, CheckboxSelectMultiple))


@register.filter
def is_tick(field: BoundField) -> bool:
    """Whether this field is one box, whose label stands beside it."""
    return isinstance(field.field.widget, CheckboxInput)


@register.filter
def is_file(field: BoundField) -> bool:
    """Whether this field takes a file."""
    return isinstance(field.field.widget, FileInput)


@register.filter
def is_table(field: BoundField) -> bool:
    """Whether this field is rows of inputs."""
    return getattr(field.field.widget, "is_table", False)


@register.filter
def anchor(field: BoundField) -> str:
    """Return the id of the input at which a link to this field's error leads."""
    if is_group(field):
        return f"{field.auto_id}_0"
    return field.id_for_label or field.auto_id


@register.filter
def at_key(mapping: dict[str, Any], key: str) -> Any:
    """Return what ``mapping`` has at ``key``."""
    return mapping.get(key, "")


@register.filter
def described(field: BoundField) -> Any:
    """Draw the input, tied to its help and its error; a placeholder would only repeat the label."""
    field.field.widget.attrs.pop("placeholder", None)
    ids = [f"{field.auto_id}-help"] if field.help_text else []
    ids += [f"{field.auto_id}-error"] if field.errors else []
    attributes: dict[str, str | bool] = {"aria-describedby": " ".join(ids)} if ids else {}
    return field.as_widget(attrs=attributes)
