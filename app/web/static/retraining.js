// The form that sets the retraining rule of a model.
import { call } from "./api.js";
import { refresh } from "./live.js";

const form = document.getElementById("rule-form");

const number = (field) => (field.value.trim() ? Number(field.value) : null);

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { new_labels, every_days, level, enabled } = form.elements;
  const error = document.getElementById("rule-error");
  const button = form.querySelector("button");
  error.textContent = "";
  button.disabled = true;
  try {
    // A search is set by the API or the command line only, and kept here.
    const rule = await call("GET", form.dataset.path).catch((problem) => {
      if (problem.code === "retraining_rule_not_found") return { search: null };
      throw problem; // otherwise saving would delete the search
    });
    await call("PUT", form.dataset.path, {
      enabled: enabled.checked,
      new_labels: number(new_labels),
      every_days: number(every_days),
      level: number(level),
      search: rule.search,
    });
    await refresh();
  } catch (problem) {
    error.textContent = problem.fieldMessages;
    new_labels.focus();
  } finally {
    button.disabled = false;
  }
});
