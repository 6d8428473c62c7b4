"""What applicants type besides the answers to the family's own questions."""

from collections.abc import Mapping
from typing import Any

from django import forms

from portal.access.models import AccessRequest
from portal.access.questions import form_class
from portal.catalog.models import Checkpoint, Terms


def application_form(request: AccessRequest, data: Mapping[str, Any] | None) -> forms.Form:
    """Return the family's form with the choice of checkpoints, filled with what was saved."""
    questions = request.form_version.questions if request.form_version else []
    checkpoints = request.family.checkpoints.select_related("family")
    field = forms.ModelMultipleChoiceField(
        checkpoints,
        widget=forms.CheckboxSelectMultiple,
        label="Which checkpoints do you need?",
        help_text="Two layouts of the same weights are two checkpoints.",
        error_messages={"required": "Choose at least one."},
    )
    base = form_class(questions)
    made = type("ApplicationForm", (base,), {"checkpoints": field})
    initial = dict(request.answers) | {"checkpoints": request.checkpoints.all()}
    form: forms.Form = made(data, initial=initial)
    for name in base.base_fields:
        form.fields[name].error_messages["required"] = "Answer this question."
    return form


def as_typed(form: forms.Form, data: Any) -> dict[str, Any]:
    """Return what was typed into ``form``, valid or not, so that none of it is lost."""
    typed: dict[str, Any] = {}
    for name, field in form.fields.items():
        if name == "checkpoints":
            continue
        many = isinstance(field, forms.MultipleChoiceField)
        typed[name] = data.getlist(name) if many else data.get(name, "")[:20_000]
    return typed


def chosen_checkpoints(form: forms.Form, data: Any) -> list[Checkpoint]:
    """Return the checkpoints that were ticked and are of this family."""
    ids = [value for value in data.getlist("checkpoints") if value.isascii() and value.isdigit()]
    field = form.fields["checkpoints"]
    assert isinstance(field, forms.ModelMultipleChoiceField)
    return list(field.queryset.filter(pk__in=ids[:1000])) if field.queryset is not None else []


class AcceptForm(forms.Form):
    """The acceptance of one version of the terms."""

    accept = forms.BooleanField(error_messages={"required": "Accept the terms to submit."})

    def __init__(self, data: Mapping[str, Any] | None, *, terms: Terms) -> None:
        super().__init__(data)
        self.fields["accept"].label = f"I accept version {terms.version} of these terms"
        self.fields["version"] = forms.IntegerField(
            widget=forms.HiddenInput, initial=terms.version, label="The version you read"
        )
