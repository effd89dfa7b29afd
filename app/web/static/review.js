// The review of live texts: each label is sent at once, and its text leaves the page.
import { showAlert } from "./actions.js";
import { call } from "./api.js";

const status = document.getElementById("review-status");

async function draw(form) {
  await call("POST", form.dataset.requestPath, { count: Number(form.elements.count.value) });
  location.reload();
}

function labelOf(form, button) {
  if (form.dataset.task === "multi_label") return { labels: new FormData(form).getAll("labels") };
  if (form.dataset.task === "regression") return { value: Number(form.elements.value.value) };
  return { label: button?.name === "label" ? button.value : form.elements.label.value };
}

async function save(form, button) {
  const text = form.closest("article");
  const target = form.dataset.target ? { target: form.dataset.target } : {};
  await call("POST", "/v1/feedback", { prediction_id: text.dataset.prediction, ...target, ...labelOf(form, button) });
  form.remove();
  if (!text.querySelector("form")) {
    const next = text.nextElementSibling?.querySelector("button, input, select");
    text.remove();
    const left = document.querySelectorAll(".review-text").length;
    status.textContent = left ? `${left} left to label.` : "Nothing is left to label.";
    if (left) next?.focus();
    else location.reload(); // shows the estimate
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.id !== "draw" && !form.matches(".review-label")) return;
  event.preventDefault();
  showAlert("");
  const buttons = form.querySelectorAll("button");
  buttons.forEach((each) => (each.disabled = true));
  try {
    await (form.id === "draw" ? draw(form) : save(form, event.submitter));
  } catch (problem) {
    showAlert(problem.fieldMessages);
  } finally {
    buttons.forEach((each) => (each.disabled = false));
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !/^[1-9]$/.test(event.key)) return;
  if (event.target.closest("input, select, textarea") || document.querySelector("dialog[open]")) return;
  const text = event.target.closest(".review-text") ?? document.querySelector(".review-text");
  const button = text?.querySelector(`button[aria-keyshortcuts="${event.key}"]`);
  if (!button || button.disabled) return;
  event.preventDefault();
  button.form.requestSubmit(button);
});
