// Live updates: fetches this page again and updates its live elements, which have `data-live` and an
// id. All HTML is rendered in one place, the server's templates.
import { fetchPage, morph } from "./morph.js";

const REFRESH_SECONDS = 2;
const RETRY_SECONDS = 5; // after a failed request
let timer;
let etag; // of the page as applied last; only pages that are expensive to read have one

/** Updates the live elements now, then dispatches the event `live` on the document. */
export async function refresh() {
  clearTimeout(timer);
  let seconds = REFRESH_SECONDS;
  try {
    const { page, response } = await fetchPage(location.href, { headers: etag ? { "If-None-Match": etag } : {} });
    if (response.redirected) return location.reload(); // signed out in the meantime
    if (response.ok) update(page);
    else if (response.status !== 304) throw new Error(response.status);
    etag = response.headers.get("ETag");
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale"); // marks the content as outdated
    seconds = RETRY_SECONDS;
  }
  schedule(seconds);
}

function update(page) {
  for (const element of document.querySelectorAll("[data-live]")) {
    const updated = page.getElementById(element.id);
    if (updated) morph(element, updated);
  }
  document.dispatchEvent(new Event("live"));
}

function schedule(seconds) {
  clearTimeout(timer);
  if (document.querySelector("[data-live]") && !document.hidden) timer = setTimeout(refresh, seconds * 1000);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : document.querySelector("[data-live]") && refresh()));
schedule(REFRESH_SECONDS);
