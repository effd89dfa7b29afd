"""Collect browser errors: a test fails if any unexpected one remains.

These are console errors, uncaught script errors, failed requests, and violations of the content
security policy, which are reported by an event because the console does not show all of them.
"""

import re
from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Request, WebError

CSP_LISTENER = """
document.addEventListener("securitypolicyviolation", event => console.error(
  `security policy: ${event.effectiveDirective} forbids ${event.blockedURI || event.sample} `
  + `at ${event.sourceFile}:${event.lineNumber}`))
"""
ABORTED = "net::ERR_ABORTED"  # the page was left, or its script aborted the request


@dataclass
class BrowserErrors:
    """The errors of one browser context, with all its pages."""

    messages: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # patterns

    def listen(self, context: BrowserContext) -> None:
        """Start collecting."""
        context.add_init_script(CSP_LISTENER)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("requestfailed", self._failed)

    def expect(self, *statuses: int) -> None:
        """Expect responses with these statuses: the browser logs each as an error."""
        self.expected += [f"the server responded with a status of {status} " for status in statuses]

    def unexpected(self) -> list[str]:
        """Return the errors that fail the test."""
        return [
            message
            for message in self.messages
            if not any(re.search(pattern, message) for pattern in self.expected)
        ]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.messages.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _error(self, error: WebError) -> None:
        self.messages.append(f"uncaught: {error.error}")

    def _failed(self, request: Request) -> None:
        if request.failure != ABORTED:
            self.messages.append(f"failed: {request.method} {request.url}: {request.failure}")
