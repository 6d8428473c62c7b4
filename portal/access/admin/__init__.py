"""The reviewer's desk and the operator's: importing this registers both."""

from portal.access.admin import facts, form_versions, grants, requests, terms

__all__ = ["facts", "form_versions", "grants", "requests", "terms"]
