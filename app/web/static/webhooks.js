// The form that creates a webhook, and the button that rotates a secret. The API shows a secret once.
import { confirmed, showAlert } from "./actions.js";
import { call } from "./api.js";
import { refresh } from "./live.js";

const form = document.getElementById("new-webhook");
const panel = document.getElementById("new-secret");

async function showSecret(webhook) {
  document.getElementById("secret").textContent = webhook.secret;
  panel.hidden = false;
  panel.focus();
  await refresh();
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { url, description } = form.elements;
  const error = document.getElementById("webhook-error");
  const button = form.querySelector("button");
  const events = new FormData(form).getAll("events");
  error.textContent = "";
  url.removeAttribute("aria-invalid");
  button.disabled = true;
  try {
    const body = { url: url.value.trim(), description: description.value.trim() || null, events: events.length ? events : null };
    const webhook = await call("POST", "/v1/webhooks", body);
    form.reset();
    await showSecret(webhook);
  } catch (problem) {
    error.textContent = problem.fieldMessages;
    url.setAttribute("aria-invalid", "true");
    url.focus();
  } finally {
    button.disabled = false;
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-rotate]:not([aria-disabled])");
  if (!button) return;
  if (!(await confirmed("Generate a new secret? The old one signs as well for a day.", "Rotate secret"))) return;
  showAlert("");
  button.setAttribute("aria-disabled", "true");
  try {
    await showSecret(await call("POST", `${button.dataset.rotate}/rotate`));
  } catch (problem) {
    showAlert(problem.message);
  } finally {
    button.removeAttribute("aria-disabled");
  }
});
