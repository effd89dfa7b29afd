// The buttons of labels, the field of a number, and the dialog that adds a label. What the annotator says
// is dispatched on the document as the event `answer`, with a body for the API.
import { call } from "./api.js";
import { find, project } from "./label_view.js";

const KEYS = [..."123456789abcdefghijklmnoprtuvwxy"]; // as in a terminal, where q quits; s skips, z undoes
const isSeveral = project.task === "multi_label";
const dialog = find("add-label"); // null unless labels are names
const labelFinder = find("find-label"); // the same
export const numberField = find("number"); // null unless the task is a number

const answer = (detail) => document.dispatchEvent(new CustomEvent("answer", { detail }));
const labelButtons = () => [...document.querySelectorAll("#labels button")];

/** Presses the labels of an answer, or fills in its number. */
export function setAnswer(given) {
  if (numberField) {
    numberField.value = given.value ?? "";
    showNumberError("");
    const opensKeyboard = !matchMedia("(hover: hover)").matches; // over the text, on a phone
    if (!numberField.disabled && !opensKeyboard) numberField.focus({ preventScroll: true });
    return;
  }
  const pressed = given.labels ?? [given.label];
  for (const button of labelButtons()) {
    const isPressed = pressed.includes(button.dataset.label);
    if (isSeveral) button.setAttribute("aria-pressed", String(isPressed));
    else button.classList.toggle("chosen", isPressed);
  }
  if (labelFinder.value) clearFinder();
}

/** Returns what a key does with the labels, or undefined. */
export function labelAction(key) {
  if (!dialog) return undefined;
  if (key === "?") return openDialog;
  if (key === "/" && !find("find-label-field").hidden) return () => labelFinder.focus();
  const button = labelButtons()[KEYS.indexOf(key)];
  return button && (() => choose(button));
}

// -- Buttons --------------------------------------------------------------------------------------

/** Adds buttons of new labels. One of ordered labels may come between others. */
export function setLabels(names) {
  if (!dialog) return;
  const shown = labelButtons().map((each) => each.dataset.label);
  const isExtended = shown.every((label, index) => label === names[index]);
  if (!isExtended) find("labels").replaceChildren();
  for (const label of isExtended ? names.slice(shown.length) : names) addButton(label);
  find("find-label-field").hidden = names.length <= KEYS.length;
  find("no-labels").hidden = names.length > 0;
}

function addButton(label) {
  const key = KEYS[labelButtons().length];
  const button = document.createElement("button");
  button.type = "button";
  button.className = "needs-text";
  button.dataset.label = label;
  button.disabled = find("skip").disabled; // no text is shown
  if (key) {
    const hint = document.createElement("kbd");
    hint.textContent = key;
    button.append(hint);
    button.setAttribute("aria-keyshortcuts", key);
  }
  const text = document.createElement("bdi");
  text.textContent = label;
  button.append(text);
  if (isSeveral) button.setAttribute("aria-pressed", "false");
  find("labels").append(button);
}

function choose(button) {
  if (isSeveral) button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  else answer({ label: button.dataset.label });
}

export function confirmLabels() {
  const pressed = labelButtons().filter((each) => each.getAttribute("aria-pressed") === "true");
  answer({ labels: pressed.map((each) => each.dataset.label) });
}

find("labels")?.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button) choose(button);
});

// -- Finding a label by its name ------------------------------------------------------------------

function filterLabels() {
  const wanted = labelFinder.value.trim().toLowerCase();
  for (const button of labelButtons()) button.hidden = !button.dataset.label.toLowerCase().includes(wanted);
}

function clearFinder() {
  labelFinder.value = "";
  filterLabels();
}

labelFinder?.addEventListener("input", filterLabels);
labelFinder?.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== "Escape") return;
  const isFound = event.key === "Enter" && labelFinder.value.trim();
  const found = isFound && labelButtons().find((each) => !each.hidden && !each.disabled);
  if (found) choose(found);
  clearFinder();
  labelFinder.blur();
});

// -- Numbers --------------------------------------------------------------------------------------

const THOUSANDS = /^[+-]?[1-9]\d{0,2},\d{3}$/; // as numbers are shown here; elsewhere it is a decimal comma

function showNumberError(message) {
  find("number-error").textContent = message;
  if (message) numberField.setAttribute("aria-invalid", "true");
  else numberField.removeAttribute("aria-invalid");
}

find("number-form")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = numberField.value.trim();
  const text = given.replace(",", ".");
  const value = Number(text);
  if (text === "" || !Number.isFinite(value)) showNumberError("Enter a number, such as 3.5.");
  else if (THOUSANDS.test(given)) showNumberError(`Enter ${given.replace(",", "")} or ${text}: the comma may mean either.`);
  else answer({ value });
});

// -- New labels -----------------------------------------------------------------------------------

export function openDialog() {
  find("new-label").value = "";
  showLabelError("");
  dialog.showModal();
}

function showLabelError(message) {
  find("new-label-error").textContent = message;
  if (message) find("new-label").setAttribute("aria-invalid", "true");
  else find("new-label").removeAttribute("aria-invalid");
}

find("add-label-form")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const changed = await call("PATCH", `/v1/labeling/${encodeURIComponent(project.name)}`, { add_labels: [find("new-label").value.trim()] });
    dialog.close();
    setLabels(changed.labels.map((each) => each.name));
  } catch (problem) {
    showLabelError(problem.fieldMessages);
    find("new-label").focus();
  }
});
find("cancel-add-label")?.addEventListener("click", () => dialog.close());
document.addEventListener("live", () => setLabels(JSON.parse(find("progress").dataset.labels))); // others add labels, too
