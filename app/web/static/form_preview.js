// Forms with a server-rendered preview: the query string holds the input, and the server renders the
// form again with its plan and errors. Only what changed is updated in place.
import { showAlert } from "./actions.js";
import { fetchPage, morph } from "./morph.js";

const DEBOUNCE = 400; // ms after the last input
const form = document.querySelector("form[data-preview]");
let timer;
let pending; // AbortController of the request in flight

async function preview() {
  clearTimeout(timer);
  pending?.abort();
  pending = new AbortController();
  const values = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  history.replaceState(null, "", `${location.pathname}?${values}`);
  try {
    const { page } = await fetchPage(location.href, { signal: pending.signal });
    const updated = page.getElementById(form.id);
    if (!updated) return location.reload(); // the sign-in page or an error page
    morph(form, updated);
    showAlert("");
  } catch (error) {
    if (error.name !== "AbortError") showAlert("Could not reach the service. Is it running?");
  }
}

form.addEventListener("input", () => {
  for (const button of form.querySelectorAll("[data-request]")) button.disabled = true; // its body is outdated
  pending?.abort(); // its answer is outdated, too, and would enable the button
  clearTimeout(timer);
  timer = setTimeout(preview, DEBOUNCE);
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  preview();
});
