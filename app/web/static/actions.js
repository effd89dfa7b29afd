// Buttons that call the API: <button data-request="POST /v1/jobs/…/cancel" data-confirm="Stop it?">.
// `data-body` is the JSON to send; `data-redirect` is the page to open afterwards, where {field} is
// replaced by a field of the response. `data-verdict` is the verdict on the model to promote.
// <button data-copy="ID"> copies the text of an element.
import { call } from "./api.js";
import { refresh } from "./live.js";

const COPIED_TIME = 1500; // ms for which a button says that it has copied

const alertBox = document.getElementById("alert");
const dialog = document.getElementById("confirm");

/** Shows an error at the top of the window until the next call; an empty text hides it. */
export function showAlert(text) {
  alertBox.textContent = text ?? "";
  alertBox.hidden = !text;
}

/** Asks for confirmation; resolves to whether the user agreed. `verdict` is a `data-verdict`, or undefined. */
export function confirmed(question, yes = "Yes", verdict) {
  document.getElementById("confirm-question").textContent = question;
  document.getElementById("confirm-yes").textContent = yes;
  showVerdict(verdict && JSON.parse(verdict));
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Shows the verdict on the model above the question; red if the model has learned nothing. */
function showVerdict(verdict) {
  const sentences = verdict ? [verdict.headline, ...verdict.sentences] : [];
  const paragraphs = sentences.map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  document.getElementById("confirm-verdict").replaceChildren(...paragraphs);
  dialog.classList.toggle("learned-nothing", Boolean(verdict?.learned_nothing));
}

async function runAction(button) {
  const { request, confirm: question, body, redirect, verdict } = button.dataset;
  if (question && !(await confirmed(question, button.textContent.trim(), verdict))) return;
  const [method, path] = request.split(" ");
  showAlert("");
  button.setAttribute("aria-disabled", "true"); // `disabled` is set by the server's templates
  try {
    const response = await call(method, path, body && JSON.parse(body));
    if (redirect) { // the button stays disabled: it still shows until the next page is here
      return location.assign(redirect.replace(/\{(\w+)\}/g, (_, field) => encodeURIComponent(response[field])));
    }
    await refresh();
  } catch (problem) {
    showAlert(problem.message);
  }
  button.removeAttribute("aria-disabled");
}

async function copyText(button) {
  const source = document.getElementById(button.dataset.copy);
  getSelection().selectAllChildren(source); // to be copied by hand where scripts have no clipboard: on plain http
  const isCopied = await navigator.clipboard?.writeText(source.textContent).then(() => true, () => false);
  if (!isCopied) return;
  const label = button.firstChild;
  label.data = "Copied";
  setTimeout(() => (label.data = "Copy"), COPIED_TIME);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-request]:not([aria-disabled])");
  if (button) runAction(button);
  const copyButton = event.target.closest("[data-copy]");
  if (copyButton) copyText(copyButton);
});
