"""What a browser complains of while it shows pages: none of it may be there at the end of a test.

Errors on the console and in scripts, requests that failed, and violations of the content-security
policy, which an event tells even where the console is silent.
"""

import re
from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Request, WebError

LISTEN = """
document.addEventListener("securitypolicyviolation", event => console.error(
  `security policy: ${event.effectiveDirective} forbids ${event.blockedURI || event.sample} `
  + `at ${event.sourceFile}:${event.lineNumber}`))
"""
LEFT = "net::ERR_ABORTED"  # the page was left, or its script gave the request up


@dataclass
class Complaints:
    """Of one browser profile, with all its pages."""

    told: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # patterns

    def listen(self, context: BrowserContext) -> None:
        """From now on."""
        context.add_init_script(LISTEN)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("requestfailed", self._failed)

    def expect(self, *statuses: int) -> None:
        """Answers that are refusals, and meant to be: a browser puts each on its console."""
        self.expected += [f"the server responded with a status of {status} " for status in statuses]

    def unexpected(self) -> list[str]:
        """What a test fails for."""
        return [
            told for told in self.told if not any(re.search(each, told) for each in self.expected)
        ]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.told.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _error(self, error: WebError) -> None:
        self.told.append(f"uncaught: {error.error}")

    def _failed(self, request: Request) -> None:
        if request.failure != LEFT:
            self.told.append(f"failed: {request.method} {request.url}: {request.failure}")
