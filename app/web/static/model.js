// The form that moves an alias to a version.
import { confirmed } from "./actions.js";
import { call } from "./api.js";
import { refresh } from "./live.js";

const showError = (text) => (document.getElementById("alias-error").textContent = text);

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.id !== "alias-form") return;
  event.preventDefault();
  const button = form.querySelector("button");
  if (button.hasAttribute("aria-disabled")) return;
  const field = form.elements.alias;
  const alias = field.value.trim();
  const version = Number(form.elements.number.value);
  showError("");
  field.removeAttribute("aria-invalid");
  const { verdict } = form.elements.number.selectedOptions[0].dataset;
  if (!(await confirmed(`Move the alias ${alias} to version ${version}? The version is loaded and checked first.`, "Yes", verdict))) return;
  button.setAttribute("aria-disabled", "true");
  try {
    await call("PUT", `/v1/models/${form.dataset.model}/aliases/${encodeURIComponent(alias)}`, { version });
    form.reset();
    await refresh();
  } catch (problem) {
    field.setAttribute("aria-invalid", "true");
    showError(problem.fieldMessages);
    field.focus();
  } finally {
    button.removeAttribute("aria-disabled");
  }
});
