"""Where django-allauth meets the portal: its mails go through the outbox, and a confirmed address
becomes identity evidence."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from django.http import HttpRequest
from django.utils.timezone import now

from portal.accounts.people import confirm_address


class AccountAdapter(DefaultAccountAdapter):
    """The portal's choices in sign-up and sign-in."""

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> Any:
        """Confirm an address, and keep the evidence with the person."""
        confirmed = super().confirm_email(request, email_address)
        if confirmed:
            user = email_address.user
            confirm_address(user, source="link sent by e-mail", by=user.actor, at=now())
        return confirmed
