// Errors of a form at its fields. The field of the path `data.source` has the id `field-data-source`, and
// refers to `error-data-source` in its aria-describedby.

/** Shows each error {at, message} at its field, instead of earlier ones; returns those without a field. */
export function showFieldErrors(form, errors) {
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const old of form.querySelectorAll(".field .error")) old.remove();
  return errors.filter(({ at, message }) => {
    const field = form.querySelector(`#${CSS.escape(`field-${at.replace(/\.\d+$/, "").replace(/[._]/g, "-")}`)}`);
    if (!field) return true;
    field.closest("details")?.setAttribute("open", "");
    field.querySelector("input, select, textarea")?.setAttribute("aria-invalid", "true");
    const error = document.createElement("p");
    error.className = "error";
    error.id = field.id.replace("field-", "error-");
    error.textContent = message;
    field.append(error);
    return false;
  });
}
