// Forms whose page is the answer: what is typed goes into the address, and the page that the
// service makes of it says what it means. Only what differs is taken over.
import { tell } from "./actions.js";
import { read } from "./document.js";
import { morph } from "./morph.js";

const WAIT = 400; // ms after the last key
const form = document.querySelector("form[data-asks]");
let timer;
let asking; // AbortController of the page that is asked for

async function ask() {
  clearTimeout(timer);
  asking?.abort();
  asking = new AbortController();
  const typed = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  history.replaceState(null, "", `${location.pathname}?${typed}`);
  try {
    const { page } = await read(location.href, { signal: asking.signal });
    const fresh = page.getElementById(form.id);
    if (!fresh) return location.reload(); // signed out, or an error, which is a page of its own
    morph(form, fresh);
    tell("");
  } catch (error) {
    if (error.name !== "AbortError") tell("The service does not answer. Is it running?");
  }
}

form.addEventListener("input", () => {
  for (const button of form.querySelectorAll("[data-call]")) button.disabled = true; // it would send what was typed before
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT);
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
