// The page of a labeling project: the dialog that makes a dataset of the labels so far.
import { call } from "./api.js";
import { showFieldErrors } from "./field_errors.js";

const find = (id) => document.getElementById(id);
const dialog = find("make-dataset"); // null if the texts were deleted
const form = find("make-dataset-form");

function showErrors(problem) {
  const others = showFieldErrors(form, problem?.errors ?? []);
  find("make-dataset-error").textContent = problem && !problem.errors.length ? problem.message : others.map((each) => each.message).join(" ");
}

document.addEventListener("click", ({ target }) => {
  if (!target.closest("#open-make-dataset")) return; // live.js may have replaced it
  showErrors(null);
  dialog.showModal();
  form.elements.name.select();
});
find("cancel-make-dataset")?.addEventListener("click", () => dialog.close());

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { project } = form.dataset;
  const button = form.querySelector("button.primary");
  showErrors(null);
  button.disabled = true;
  try {
    const { ref } = await call("POST", `/v1/labeling/${encodeURIComponent(project)}/dataset`, { name: form.elements.name.value.trim() });
    location.assign(`/labeling/${encodeURIComponent(project)}?made=${encodeURIComponent(ref)}`);
  } catch (problem) {
    showErrors(problem);
    form.querySelector("[aria-invalid]")?.focus();
    button.disabled = false;
  }
});
