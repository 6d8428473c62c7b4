"""Where django-allauth looks for an app's providers."""

from portal.accounts.orcid import OrcidProvider

provider_classes = [OrcidProvider]
