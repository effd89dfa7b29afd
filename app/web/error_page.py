"""Errors as pages, for people who go to an address."""

from urllib.parse import quote

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.http.error_responses import Problem
from app.web.page import render


def page(request: Request, problem: Problem) -> Response:
    """What was wrong and what to do. Who is not signed in is asked to."""
    if problem.status == 401:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(wanted)}", 303)
    answer = render(request, "problem.html", status=problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer
