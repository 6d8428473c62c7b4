"""Second factors: what allauth keeps of them is encrypted under the portal's secret."""

import base64
import hashlib

from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser

DOMAIN = b"weighbridge second factors 1\0"


class SecondFactorAdapter(DefaultMFAAdapter):
    """The portal's choices for second factors."""

    def encrypt(self, text: str) -> str:
        """Return ``text`` as it is stored, readable only with the portal's secret key."""
        return _cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Return what :meth:`encrypt` was given."""
        return _cipher().decrypt(encrypted_text.encode()).decode()

    def get_totp_issuer(self) -> str:
        """Return the name that an authenticator app shows."""
        return f"Weighbridge {self._get_site_name()}"

    def generate_authenticator_name(self, user: AbstractBaseUser, type: Authenticator.Type) -> str:
        """Return a name for a new key, until its owner gives it another."""
        count = Authenticator.objects.filter(user_id=user.pk, type=type).count()
        return f"Key {count + 1}"


def _cipher() -> Fernet:
    secret = hashlib.sha256(DOMAIN + str(settings.SECRET_KEY).encode()).digest()
    return Fernet(base64.urlsafe_b64encode(secret))
