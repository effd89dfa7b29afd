// Shows the first rows of a chosen or dropped file, and uploads it with progress and errors. A form with a
// field `model` then starts a prediction run on the file.
import { call, Problem, readToken } from "./api.js";

const form = document.getElementById("upload");
const fileField = form.elements.file;
const button = document.getElementById("upload-button");
const progressBar = document.getElementById("upload-progress");
const previewSection = document.getElementById("file-preview");
const columnPicker = document.getElementById("column-picker");
const sheetField = document.getElementById("pick-sheet-field");
const setText = (id, text) => (document.getElementById(id).textContent = text);

/** Returns the response body. Uses XMLHttpRequest, because fetch does not report upload progress. */
function send(url, body, onProgress) {
  return new Promise((resolve, reject) => {
    const upload = new XMLHttpRequest();
    upload.open("POST", url);
    upload.responseType = "json";
    const token = readToken();
    if (token) upload.setRequestHeader("X-Page-Token", token);
    upload.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    upload.addEventListener("load", () => (upload.status < 300 ? resolve(upload.response) : reject(new Problem(upload.status, upload.response ?? {}))));
    upload.addEventListener("error", () => reject(new Problem(0, { detail: "The connection was lost. Is the service running, and is the file within the size limit?" })));
    upload.send(body);
  });
}

/** Returns the form data without empty fields. */
function formData() {
  const data = new FormData(form);
  for (const [name, value] of [...data]) if (value === "" || name === "model") data.delete(name);
  return data;
}

/** Returns the URL of the next page. */
async function nextPage({ id }) {
  if (!form.elements.model) return `/datasets/${id}`;
  setText("upload-status", "Starting the run");
  const run = await call("POST", "/v1/predictions", { dataset: id, model: form.elements.model.value });
  return `/predictions/${run.id}`;
}

function showError(problem) {
  setText("upload-error", problem?.message ?? "");
  for (const old of form.querySelectorAll("[aria-invalid]")) old.removeAttribute("aria-invalid");
  if (!problem) return;
  const name = { missing_column: "text_column", incomplete_pair: "text_pair_column", same_column: "text_pair_column", missing_sheet: "sheet" }[problem.code] ?? problem.errors?.[0]?.at;
  const invalid = form.elements[name] ?? fileField;
  invalid.closest("details")?.setAttribute("open", "");
  invalid.setAttribute("aria-invalid", "true");
  invalid.focus();
}

const MAX_PREVIEWED_BYTES = 50_000_000; // a larger file is sent once, unless it may raise a question
let loadingPreview = Promise.resolve(null); // of the chosen file
const NO_LABELS = "\u0000"; // instead of the name of a column
const pickLabel = document.getElementById("pick-label"); // absent in the prediction form
const pickSheet = document.getElementById("pick-sheet");
const selects = [...previewSection.querySelectorAll("select")];

/** Fills a select, and copies its choice to the form field named by `data-field`. */
function setOptions(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
  if (chosen === null) select.prepend(new Option("choose one", "", true, true));
  form.elements[select.dataset.field].value = chosen ?? "";
}

const MAX_CELL_LENGTH = 100; // characters

function tableCell(name, text) {
  const cell = document.createElement(name);
  cell.textContent = text.length > MAX_CELL_LENGTH ? `${text.slice(0, MAX_CELL_LENGTH - 1)}…` : text;
  return cell;
}

/** Shows the first rows of the file, and its sheets if there are several. */
function showPreview(preview) {
  const row = (kind, cells) => {
    const created = document.createElement("tr");
    created.append(...cells.map((cell) => tableCell(kind, cell)));
    return created;
  };
  document.getElementById("preview-rows").replaceChildren(row("th", preview.columns), ...preview.rows.map((cells) => row("td", cells)));
  sheetField.hidden = preview.sheets.length < 2;
  if (!sheetField.hidden) setOptions(pickSheet, preview.sheets, preview.sheet);
  if (!columnPicker.hidden) setColumns(preview); // of another sheet
  previewSection.hidden = false;
}

/** Lets the user choose among the columns of the file. */
function setColumns(preview) {
  setOptions(document.getElementById("pick-text"), preview.columns, preview.text_column);
  const pickPair = document.getElementById("pick-pair");
  const pair = preview.columns.find((column) => column === form.elements[pickPair.dataset.field].value) ?? "";
  setOptions(pickPair, preview.columns, pair);
  pickPair.prepend(new Option("none: single texts", "", !pair, !pair));
  const labelField = document.getElementById("pick-label-field"); // absent in the prediction form
  if (labelField) {
    forgetNoLabels(); // another sheet may have labels
    labelField.hidden = form.elements.purpose.checked;
    setOptions(pickLabel, preview.columns, labelField.hidden ? "" : preview.label_column);
    pickLabel.append(new Option("none: the texts have no labels yet", NO_LABELS));
    if (!labelField.hidden && preview.columns.length === 1) pickLabel.value = NO_LABELS;
    pickLabel.dispatchEvent(new Event("change"));
  }
}

/** Asks for the columns of the file, which are not named as they should be. */
function askForColumns(preview) {
  columnPicker.hidden = false;
  setColumns(preview);
  document.getElementById("pick-text").focus();
}

/** Discards what was chosen for another file. */
function resetPreview() {
  previewSection.hidden = true;
  for (const select of selects) {
    const isAsked = select === pickSheet ? !sheetField.hidden : !columnPicker.hidden;
    if (isAsked) form.elements[select.dataset.field].value = "";
  }
  forgetNoLabels();
  pickLabel?.replaceChildren();
  columnPicker.hidden = sheetField.hidden = true;
}

/** Unchecks what the choice of no label column has checked. */
function forgetNoLabels() {
  if (pickLabel?.value === NO_LABELS) form.elements.purpose.checked = false;
}

/** Shows a preview of the chosen file; resolves to it, or to null if the file cannot be read. */
async function loadPreview() {
  const [file] = fileField.files;
  setText("upload-status", "Reading the first rows");
  try {
    const preview = await send("/v1/datasets/preview", formData(), () => {});
    if (fileField.files[0] !== file) return null; // another file was chosen meanwhile
    showPreview(preview);
    return preview;
  } catch (problem) {
    if (fileField.files[0] === file) showError(problem);
    return null;
  } finally {
    if (!button.disabled) setText("upload-status", "");
  }
}

/** Starts to load the preview of a file that was chosen or dropped. */
function previewFile() {
  resetPreview();
  showError(null);
  const [file] = fileField.files;
  const limit = /\.xlsx$/i.test(file?.name) ? form.dataset.maxBytes : Math.min(MAX_PREVIEWED_BYTES, form.dataset.maxBytes);
  loadingPreview = file?.size <= limit ? loadPreview() : Promise.resolve(null);
}

function setBusy(isBusy) {
  button.disabled = isBusy;
  document.getElementById("uploading").hidden = !isBusy;
  if (!isBusy) setText("upload-status", "");
}

function showProgress(fraction) {
  if (fraction < 1) {
    progressBar.value = fraction;
    setText("upload-status", `Uploading, ${Math.floor(100 * fraction)}%`);
  } else {
    progressBar.removeAttribute("value"); // indeterminate
    setText("upload-status", "Checking the rows");
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  showError(null);
  if (!fileField.files.length) return showError({ message: "Choose a file or drop one here." });
  if (fileField.files[0].size > form.dataset.maxBytes) return showError({ message: "The file is larger than the upload limit." });
  const sheetIsChosen = form.elements.sheet.value !== "";
  setBusy(true);
  let preview = await loadingPreview;
  if (preview?.sheets.length > 1 && !sheetIsChosen) { // it was not shown before
    setBusy(false);
    return pickSheet.focus();
  }
  showError(null);
  showProgress(0);
  try {
    const dataset = await send("/v1/datasets", formData(), showProgress);
    location.assign(await nextPage(dataset));
  } catch (problem) {
    if (problem.code === "missing_column" && columnPicker.hidden) preview ??= await loadPreview();
    setBusy(false);
    if (problem.code === "missing_column" && columnPicker.hidden && preview) askForColumns(preview);
    else showError(problem);
  }
});

for (const select of selects) {
  select.addEventListener("change", () => {
    const isNone = select.value === NO_LABELS;
    form.elements[select.dataset.field].value = isNone ? "" : select.value;
    if (select === pickLabel && !select.closest(".field").hidden) form.elements.purpose.checked = isNone;
    if (select === pickSheet) loadingPreview = loadPreview();
  });
}
fileField.addEventListener("change", previewFile);

for (const kind of ["dragenter", "dragover"]) {
  form.addEventListener(kind, (event) => {
    event.preventDefault(); // allows the drop
    form.classList.add("dragging");
  });
}
form.addEventListener("dragleave", (event) => form.contains(event.relatedTarget) || form.classList.remove("dragging"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("dragging");
  if (button.disabled) return;
  if (event.dataTransfer.files.length !== 1) return showError({ message: "Drop one file at a time." });
  fileField.files = event.dataTransfer.files;
  previewFile();
  form.requestSubmit();
});
