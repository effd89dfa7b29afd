// The form that creates a labeling project.
import { call } from "./api.js";
import { showFieldErrors } from "./field_errors.js";

const form = document.getElementById("new-labeling");
const { name, dataset, task, labels, base, random_share: randomShare, overlap } = form.elements;

/** Returns a percentage as a share of 1; undefined if empty. The API rejects text. */
function share(field) {
  const text = field.value.trim().replace("%", "");
  if (text === "") return undefined;
  return Number.isFinite(Number(text)) ? Number(text) / 100 : text;
}

function readBody() {
  const type = task.value === "ordered" ? "single_label" : task.value;
  const lines = labels.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return {
    name: name.value.trim(),
    dataset: dataset.value,
    task: task.value === "ordered" ? { type, ordered: true } : { type },
    labels: type === "regression" ? [] : lines,
    base: base.value.trim() || undefined,
    random_share: share(randomShare),
    overlap: share(overlap),
  };
}

/** Shows each error at its field, and the others above the button. */
function showErrors(problem) {
  const named = problem?.errors?.length ? problem.errors : problem ? [{ at: fieldOf(problem.code ?? ""), message: problem.message }] : [];
  const others = showFieldErrors(form, named);
  document.getElementById("form-error").textContent = others.map((each) => each.message).join(" ");
  form.querySelector("[aria-invalid]")?.focus();
}

/** Returns the field of an error that names none, "" for the form. */
function fieldOf(code) {
  if (code === "labeling_name_taken") return "name";
  if (code === "labeling_pool_too_large" || code.startsWith("dataset_")) return "dataset";
  return /(^|_)base|encoder/.test(code) ? "base" : "";
}

task.addEventListener("change", () => (document.getElementById("field-labels").hidden = task.value === "regression"));
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  showErrors(null);
  button.disabled = true;
  try {
    const project = await call("POST", "/v1/labeling", readBody());
    location.assign(`/labeling/${encodeURIComponent(project.name)}/label`);
  } catch (problem) {
    showErrors(problem);
    button.disabled = false;
  }
});
task.dispatchEvent(new Event("change")); // the browser may have restored another task
