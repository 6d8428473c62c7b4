"""What a reviewer types with a decision."""

from datetime import datetime, time

from django import forms
from django.utils.timezone import make_aware, now

from portal.access import conversation, decisions


class ReasonForm(forms.Form):
    """The reason that the applicant reads."""

    reason = forms.CharField(
        label="Reason",
        widget=forms.Textarea(attrs={"rows": 5, "cols": 70}),
        max_length=decisions.LONGEST_REASON,
        help_text="The applicant reads this, word for word.",
    )


class ApprovalForm(ReasonForm):
    """A reason, and the last day of the grant."""

    until = forms.DateField(
        label="Access ends after",
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="The last day, in UTC.",
    )

    def clean_until(self) -> datetime:
        """Return the last moment of the day."""
        until = make_aware(datetime.combine(self.cleaned_data["until"], time.max))
        if until <= now():
            raise forms.ValidationError("This day has passed; choose a later one.")
        return until


class MessageForm(forms.Form):
    """A message to the applicant."""

    body = forms.CharField(
        label="Message",
        widget=forms.Textarea(attrs={"rows": 5, "cols": 70}),
        max_length=conversation.LONGEST,
        help_text="The applicant gets this by mail, from “a reviewer”.",
    )
