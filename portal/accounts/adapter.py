"""Where django-allauth meets the portal: its mails go through the outbox, and a confirmed address
becomes identity evidence."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core import context as current
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sites.shortcuts import get_current_site
from django.db import transaction
from django.http import HttpRequest
from django.utils.timezone import now

from portal.accounts import sessions
from portal.accounts.evidence import By
from portal.accounts.models import User
from portal.accounts.people import confirm_address
from portal.outbox.sending import post

# The mails whose links open something: their text goes as soon as they are sent.
WITH_LINKS = frozenset(
    {
        "account/email/email_confirmation",
        "account/email/email_confirmation_signup",
        "account/email/password_reset_key",
    }
)


class AccountAdapter(DefaultAccountAdapter):
    """The portal's choices in sign-up and sign-in."""

    def login(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        """Sign somebody in, and note when."""
        super().login(request, user)
        sessions.begin(request)

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> Any:
        """Confirm an address, and keep the evidence with the person."""
        confirmed = super().confirm_email(request, email_address)
        if confirmed:
            user = email_address.user
            confirm_address(
                user,
                email_address.email,
                source="link sent by e-mail",
                by=user.actor,
                asserted_by=By.SYSTEM,
                at=now(),
            )
        return confirmed

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Whether somebody must prove again that it is them: not within minutes of signing in."""
        asked: bool = super().is_reauthentication_required(app=app, **kwargs)
        return asked and not sessions.is_fresh(current.request)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Put a mail into the outbox, in the transaction of what it tells of."""
        request = current.request
        told = {"request": request, "email": email, "current_site": get_current_site(request)}
        mail = self.render_mail(template_prefix, email, told | context)
        person = context.get("user")
        if not isinstance(person, User):
            # nothing of the portal's is told here, so the mail names whoever has the address
            person = User.objects.filter(email__iexact=email).first()
        with transaction.atomic():
            post(
                person,
                address=email,
                kind=template_prefix.replace("/email/", ".")[:40],
                about=person.actor if person else "address",
                subject=str(mail.subject),
                body=str(mail.body),
                private=template_prefix in WITH_LINKS,
                at=now(),
            )
