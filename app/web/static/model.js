// Points an alias at a version: the form of a model's page.
import { confirmed } from "./actions.js";
import { call } from "./api.js";
import { refresh } from "./live.js";

const tell = (text) => (document.getElementById("move-error").textContent = text);

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.id !== "move") return;
  event.preventDefault();
  const field = form.elements.alias;
  const alias = field.value.trim();
  const version = Number(form.elements.number.value);
  tell("");
  field.removeAttribute("aria-invalid");
  if (!(await confirmed(`Point ${alias} at version ${version}? It is loaded and checked first.`))) return;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await call("PUT", `/v1/models/${form.dataset.model}/aliases/${encodeURIComponent(alias)}`, { version });
    form.reset();
    await refresh();
  } catch (problem) {
    field.setAttribute("aria-invalid", "true");
    tell(problem.errors.map((each) => each.message).join(" ") || problem.message);
    field.focus();
  } finally {
    button.disabled = false;
  }
});
