"""The reviewer's desk in Django admin. Facts are read-only; what a reviewer does is a form and one
call of a verb of `decisions.py`."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timesince import timesince
from django.utils.timezone import now

from portal.access import conversation, decisions
from portal.access.admin.reasons import ApprovalForm, MessageForm, ReasonForm
from portal.access.attachments import attached_to
from portal.access.forms import questions_of
from portal.access.models import AccessRequest, Appeal, Grant
from portal.access.questions.words import in_words
from portal.accounts.models import User
from portal.accounts.people import signed_in
from portal.audit.admin import ReadOnlyAdmin
from portal.audit.models import Event

MOST_AT_ONCE = 200


Decide = Callable[..., object]
# address → (heading, what the button says, form, verb)
VERBS: dict[str, tuple[str, str, type[forms.Form], Decide]] = {
    "approve": ("Approve", "Approve and begin the grant", ApprovalForm, decisions.approve),
    "return": ("Return for changes", "Return to the applicant", ReasonForm, decisions.return_),
    "reject": ("Reject", "Reject", ReasonForm, decisions.reject),
}


class StatusFilter(admin.SimpleListFilter):
    """Shows who waits, unless another state is asked for."""

    title = "state"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "All"), *AccessRequest.Status.choices]

    def choices(self, changelist: Any) -> Any:
        yield {
            "selected": self.value() is None,
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
            "display": "Waiting, oldest first",
        }
        for value, label in self.lookup_choices:
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": label,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() is None:
            return queryset.filter(status=AccessRequest.Status.SUBMITTED)
        return queryset if self.value() == "all" else queryset.filter(status=self.value())


@admin.register(AccessRequest)
class AccessRequestAdmin(ReadOnlyAdmin):
    """The queue, the page of one request, and the decisions on one or many."""

    list_display = ("number", "applicant", "family", "wanted", "state", "age")
    list_filter = (StatusFilter, "family")
    search_fields = ("applicant__email", "applicant__name")
    list_select_related = ("applicant", "family")
    ordering = ("submitted_at", "pk")
    actions = ("approve_many", "return_many", "reject_many")
    change_form_template = "admin/access/review.html"
    list_per_page = 50

    @admin.display(description="Request", ordering="pk")
    def number(self, request: AccessRequest) -> str:
        return str(request)

    @admin.display(description="Checkpoints")
    def wanted(self, request: AccessRequest) -> str:
        return ", ".join(f"{c.variant}@{c.version}" for c in request.checkpoints.all())

    @admin.display(description="State", ordering="status")
    def state(self, request: AccessRequest) -> str:
        said = request.get_status_display()
        return f"{said} (appeal)" if request.appealed else said  # type: ignore[attr-defined]

    @admin.display(description="Waiting", ordering="submitted_at")
    def age(self, request: AccessRequest) -> str:
        if request.status != AccessRequest.Status.SUBMITTED or not request.submitted_at:
            return "–"
        return timesince(request.submitted_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessRequest]:
        drafts = AccessRequest.Status.DRAFT
        appeals = Appeal.objects.filter(decision__request=OuterRef("pk"))
        every = super().get_queryset(request).exclude(status=drafts)
        every = every.annotate(appealed=Exists(appeals))
        return every.prefetch_related("checkpoints__family")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Whether this person decides; Django asks it for each action that wants `decide`."""
        return request.user.has_perm("access.decide_request")

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                "<int:pk>/decide/<str:verb>/",
                self.admin_site.admin_view(self.decide_view),
                name="access_accessrequest_decide",
            ),
            path(
                "<int:pk>/message/",
                self.admin_site.admin_view(self.message_view),
                name="access_accessrequest_message",
            ),
            *super().get_urls(),
        ]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the whole application; reading it is an event like any other."""
        application = self.get_object(request, object_id) if object_id else None
        context = extra_context or {}
        if application is not None:
            waiting = AccessRequest.objects.waiting()
            barred = application.decisions.filter(by=request.user.pk, appeal__isnull=False).exists()
            context |= {
                "application": application,
                "said": in_words(
                    questions_of(application), application.answers, attached_to(application)
                ),
                "wanted": application.checkpoints.all(),
                "evidence": application.applicant.evidence.order_by("asserted_at"),
                "acceptances": application.applicant.acceptances.filter(
                    terms__family=application.family
                ).select_related("terms__family", "attested_by"),
                "earlier": application.applicant.requests.exclude(pk=application.pk)
                .exclude(status=AccessRequest.Status.DRAFT)
                .select_related("family"),
                "decisions": application.decisions.select_related("by"),
                "grants": Grant.objects.filter(decision__request=application).select_related(
                    "checkpoint__family"
                ),
                "history": _history(application),
                "appeals": Appeal.objects.filter(decision__request=application).select_related(
                    "decision__by"
                ),
                "written": application.messages.select_related("by"),
                "writing": MessageForm(),
                "may_write": self.has_decide_permission(request)
                and application.applicant_id != request.user.pk,
                "verbs": [(name, verb[0]) for name, verb in VERBS.items()],
                "may_decide": self.has_decide_permission(request)
                and application.status == AccessRequest.Status.SUBMITTED
                and not barred,
                "barred": barred,
                "next": waiting.exclude(pk=application.pk).first(),
                "title": f"{application}: {application.family}",
            }
        return super().changeform_view(request, object_id, form_url, context)

    def decide_view(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Ask for the reason; on POST, decide and return to the queue."""
        if verb not in VERBS or not self.has_decide_permission(request):
            raise PermissionDenied
        application = get_object_or_404(self.get_queryset(request), pk=pk)
        return self._decide(
            request, [application], verb, reverse("admin:access_accessrequest_changelist")
        )

    @admin.action(description="Approve the selected requests", permissions=["decide"])
    def approve_many(self, request: HttpRequest, chosen: QuerySet) -> HttpResponse:
        return self._decide(request, list(chosen[:MOST_AT_ONCE]), "approve", "")

    @admin.action(description="Return the selected requests for changes", permissions=["decide"])
    def return_many(self, request: HttpRequest, chosen: QuerySet) -> HttpResponse:
        return self._decide(request, list(chosen[:MOST_AT_ONCE]), "return", "")

    @admin.action(description="Reject the selected requests", permissions=["decide"])
    def reject_many(self, request: HttpRequest, chosen: QuerySet) -> HttpResponse:
        return self._decide(request, list(chosen[:MOST_AT_ONCE]), "reject", "")

    def message_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Write to the applicant, and return to the request."""
        if not self.has_decide_permission(request):
            raise PermissionDenied
        application = get_object_or_404(self.get_queryset(request), pk=pk)
        if application.applicant_id == request.user.pk:
            raise PermissionDenied
        form = MessageForm(request.POST or None)
        if form.is_valid():
            try:
                conversation.write(
                    application, by=signed_in(request), at=now(), **form.cleaned_data
                )
            except conversation.ConversationError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, "The applicant has your message.", messages.SUCCESS)
            return redirect("admin:access_accessrequest_change", pk)
        context = self.admin_site.each_context(request) | {
            "title": f"Write to the applicant of {application}",
            "button": "Send",
            "form": form,
            "chosen": [application],
            "opts": self.model._meta,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/access/decide.html", context)

    def _decide(
        self, request: HttpRequest, chosen: list[AccessRequest], verb: str, after: str
    ) -> HttpResponse:
        """Ask once for the reason, then decide on each of ``chosen`` by itself."""
        heading, button, form_class, decide = VERBS[verb]
        asked = request.method == "POST" and "decide" in request.POST
        form = form_class(request.POST if asked else None)
        if form.is_valid():
            at = now()
            results = decisions.decide_each(
                chosen,
                lambda application: decide(
                    application, by=signed_in(request), at=at, **form.cleaned_data
                ),
            )
            for result in results:
                level = messages.ERROR if result.error else messages.SUCCESS
                self.message_user(
                    request,
                    f"{result.request}: {result.error or heading.lower() + ', done.'}",
                    level,
                )
            return redirect(after or request.get_full_path())
        context = self.admin_site.each_context(request) | {
            "title": heading,
            "button": button,
            "form": form,
            "chosen": chosen,
            "action": f"{verb}_many",
            "opts": self.model._meta,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/access/decide.html", context)


def _history(application: AccessRequest) -> list[tuple[Event, str]]:
    """Return the events of a request with who each was: the chain itself holds no names."""
    events = list(Event.objects.filter(subject=application.subject).order_by("seq"))
    keys = {event.actor.removeprefix("user:") for event in events}
    people = User.objects.filter(pk__in=[key for key in keys if key.isdecimal()])
    names = {person.actor: str(person) for person in people}
    return [(event, names.get(event.actor, event.actor)) for event in events]
