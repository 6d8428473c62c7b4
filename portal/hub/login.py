"""`hf auth login` without a token: device authorization (RFC 8628), where the Hub's clients ask for it.

The questions and the page on which their person answers them are those of `portal.accounts`.
"""

from django.http import HttpRequest, HttpResponse

from portal.accounts.api import ask_device_code, ask_device_token
from portal.hub.answers import hub_view

# these clients name no scope; what they do is to download
SCOPE = "download"


@hub_view("POST")
def device_view(request: HttpRequest) -> HttpResponse:
    """Give a client its two codes, and the address where its person types the short one."""
    client = request.POST.get("client_id", "")
    response: HttpResponse = ask_device_code(request, client_id=client, scope=SCOPE)
    return response


@hub_view("POST")
def token_view(request: HttpRequest) -> HttpResponse:
    """Give a client its token once its person said yes; there is nothing to refresh."""
    response: HttpResponse = ask_device_token(
        request,
        grant_type=request.POST.get("grant_type", ""),
        device_code=request.POST.get("device_code", ""),
        client_id=request.POST.get("client_id", ""),
    )
    return response
