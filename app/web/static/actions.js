// Buttons that call the API: <button data-call="POST /v1/jobs/…/cancel" data-confirm="Stop it?">.
// `data-body` is JSON to send; `data-then` is where to go after it, {field} of the answer filled in.
// <button data-copy="ID"> copies the text of an element.
import { call } from "./api.js";
import { refresh } from "./live.js";

const alertBox = document.getElementById("alert");
const dialog = document.getElementById("confirm");

/** Tells what went wrong, above the page; nothing takes it away. */
export function tell(text) {
  alertBox.textContent = text ?? "";
  alertBox.hidden = !text;
}

/** Whether the person says yes. */
export function confirmed(question, yes = "Yes") {
  document.getElementById("confirm-question").textContent = question;
  document.getElementById("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((settle) => {
    dialog.addEventListener("close", () => settle(dialog.returnValue === "yes"), { once: true });
  });
}

async function act(button) {
  const { call: what, confirm: question, body, then } = button.dataset;
  if (question && !(await confirmed(question, button.textContent.trim()))) return;
  const [method, path] = what.split(" ");
  tell("");
  button.disabled = true;
  try {
    const answer = await call(method, path, body && JSON.parse(body));
    if (then) location.assign(then.replace(/\{(\w+)\}/g, (_, field) => encodeURIComponent(answer[field])));
    else await refresh();
  } catch (problem) {
    tell(problem.message);
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-call]");
  if (button) act(button);
  const copied = event.target.closest("[data-copy]");
  if (copied) navigator.clipboard?.writeText(document.getElementById(copied.dataset.copy).textContent);
});
