"""The addresses that the Hub's clients know. A repository has two parts, `llama/7b`.

A slash in a revision or a file may come encoded; both are the same here, for a version has none.
"""

from django.urls import re_path

from portal.hub import login, metadata, requests, resolving

REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
MODELS = rf"^api/models/{REPO}"

urlpatterns = [
    re_path(r"^oauth/device\Z", login.device_view, name="hub-device"),
    re_path(r"^oauth/token\Z", login.token_view, name="hub-token"),
    re_path(r"^api/whoami-v2\Z", metadata.whoami_view, name="hub-whoami"),
    re_path(r"^api/models\Z", metadata.models_view, name="hub-models"),
    re_path(rf"{MODELS}\Z", metadata.info_view, name="hub-info"),
    re_path(rf"{MODELS}/revision/{REVISION}\Z", metadata.info_view, name="hub-revision"),
    re_path(rf"{MODELS}/tree/{REVISION}/?\Z", metadata.tree_view, name="hub-tree"),
    re_path(
        rf"{MODELS}/tree/{REVISION}/(?P<folder>(?s:.+))\Z", metadata.tree_view, name="hub-folder"
    ),
    re_path(rf"{MODELS}/paths-info/{REVISION}\Z", metadata.paths_view, name="hub-paths"),
    re_path(rf"{MODELS}/refs\Z", metadata.refs_view, name="hub-refs"),
    re_path(rf"{MODELS}/commits/{REVISION}\Z", metadata.commits_view, name="hub-commits"),
    re_path(rf"{MODELS}/auth-check\Z", resolving.check_view, name="hub-check"),
    re_path(
        rf"{MODELS}/user-access-request/(?P<status>pending|accepted|rejected)\Z",
        requests.list_view,
        name="hub-requests",
    ),
    re_path(rf"{MODELS}/user-access-request/handle\Z", requests.handle_view, name="hub-handle"),
    re_path(rf"{MODELS}/user-access-request/grant\Z", requests.grant_view, name="hub-grant"),
    re_path(r"^api/models/(?P<rest>(?s:.*))\Z", metadata.unknown_view, name="hub-unknown"),
    re_path(
        r"^(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>(?s:.+))\Z",
        resolving.resolve_view,
        name="hub-resolve",
    ),
]
