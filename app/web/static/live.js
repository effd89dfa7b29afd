// Keeps what changes up to date: fetches this page again and takes over its live parts,
// elements with `data-live` and an id. Each is made in one place, the template.
import { read } from "./document.js";
import { morph } from "./morph.js";

const SECONDS = 2;
const ASK_AGAIN_SECONDS = 5; // when there was no answer
let timer;

/** Take over what has changed, now. Scripts hear of it by the event `live` of the document. */
export async function refresh() {
  clearTimeout(timer);
  let seconds = SECONDS;
  try {
    const { page, answer } = await read(location.href);
    if (answer.redirected) return location.reload(); // signed out meanwhile
    if (!answer.ok) throw new Error(answer.status);
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      if (fresh) morph(old, fresh);
    }
    document.dispatchEvent(new Event("live"));
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale"); // old figures must not look like new ones
    seconds = ASK_AGAIN_SECONDS;
  }
  schedule(seconds);
}

function schedule(seconds) {
  clearTimeout(timer);
  if (document.querySelector("[data-live]") && !document.hidden) timer = setTimeout(refresh, seconds * 1000);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : document.querySelector("[data-live]") && refresh()));
schedule(SECONDS);
