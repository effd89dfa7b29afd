// Sends a file, chosen or dropped, and says how far it is and what is wrong with it. A form with a field `model`
// then has the rows predicted.
import { call, Problem, token } from "./api.js";

const form = document.getElementById("upload");
const field = form.elements.file;
const button = document.getElementById("send");
const sent = document.getElementById("sent");
const show = (id, text) => (document.getElementById(id).textContent = text);

/** What is answered. Not with fetch, which does not tell how much of a body has been sent. */
function send(address, body, progress) {
  return new Promise((settle, fail) => {
    const call = new XMLHttpRequest();
    call.open("POST", address);
    call.responseType = "json";
    if (token) call.setRequestHeader("X-Page-Token", token);
    call.upload.addEventListener("progress", (event) => event.lengthComputable && progress(event.loaded / event.total));
    call.addEventListener("load", () => (call.status < 300 ? settle(call.response) : fail(new Problem(call.status, call.response ?? {}))));
    call.addEventListener("error", () => fail(new Problem(0, { detail: "The connection was lost. Is the service running, and the file not larger than it takes?" })));
    call.send(body);
  });
}

/** What the form says, without what was left empty. */
function body() {
  const said = new FormData(form);
  for (const [name, value] of [...said]) if (value === "" || name === "model") said.delete(name);
  return said;
}

/** The page to go to. */
async function next({ id }) {
  if (!form.elements.model) return `/datasets/${id}`;
  show("upload-state", "Starting the run");
  const run = await call("POST", "/v1/predictions", { dataset: id, model: form.elements.model.value });
  return `/predictions/${run.id}`;
}

function tell(problem) {
  show("upload-error", problem?.message ?? "");
  for (const old of form.querySelectorAll("[aria-invalid]")) old.removeAttribute("aria-invalid");
  if (!problem) return;
  const at = { missing_column: "text_column", missing_sheet: "sheet" }[problem.code] ?? problem.errors?.[0]?.at;
  const wrong = form.elements[at] ?? field;
  wrong.closest("details")?.setAttribute("open", "");
  wrong.setAttribute("aria-invalid", "true");
  wrong.focus();
}

const picks = [...document.querySelectorAll("#pick select")];

/** Fills a select; what it says goes into the field of the form that it stands for. */
function offer(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
  if (chosen === null) select.prepend(new Option("choose one", "", true, true));
  form.elements[select.dataset.fills].value = chosen ?? "";
}

const LONGEST = 100; // characters of a cell that are shown

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
  return made;
}

/** Shows the first rows of the file and lets one say which columns are meant. */
function pick(found) {
  offer(document.getElementById("pick-text"), found.columns, found.text_column);
  offer(document.getElementById("pick-sheet"), found.sheets, found.sheet);
  const labels = document.getElementById("pick-labels"); // not where a file is only predicted
  if (labels) {
    labels.hidden = form.elements.purpose.checked;
    offer(document.getElementById("pick-label"), found.columns, labels.hidden ? "" : found.label_column);
  }
  document.getElementById("pick-sheets").hidden = found.sheets.length < 2;
  const row = (kind, cells) => {
    const made = document.createElement("tr");
    made.append(...cells.map((cell) => element(kind, cell)));
    return made;
  };
  document.getElementById("pick-rows").replaceChildren(row("th", found.columns), ...found.rows.map((cells) => row("td", cells)));
  document.getElementById("pick").hidden = false;
  picks[0].focus();
}

/** What was picked was for another file. */
function forget() {
  if (document.getElementById("pick").hidden) return;
  document.getElementById("pick").hidden = true;
  for (const select of picks) form.elements[select.dataset.fills].value = "";
}

async function look() {
  busy(true);
  try {
    pick(await send("/v1/datasets/preview", body(), progress));
  } catch (problem) {
    tell(problem);
  } finally {
    busy(false);
  }
}

function busy(is) {
  button.disabled = is;
  document.getElementById("sending").hidden = !is;
  if (!is) show("upload-state", "");
}

function progress(share) {
  if (share < 1) {
    sent.value = share;
    show("upload-state", `Sending, ${Math.floor(100 * share)} %`);
  } else {
    sent.removeAttribute("value"); // nobody knows how long
    show("upload-state", "Checking each row");
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  tell(null);
  if (!field.files.length) return tell({ message: "Choose a file, or drop one here." });
  if (field.files[0].size > form.dataset.most) return tell({ message: "The file is larger than this installation takes." });
  busy(true);
  progress(0);
  try {
    const dataset = await send("/v1/datasets", body(), progress);
    location.assign(await next(dataset));
  } catch (problem) {
    busy(false);
    const picked = !document.getElementById("pick").hidden;
    if (problem.code === "missing_column" && !picked) await look();
    else tell(problem);
  }
});

for (const select of picks) {
  select.addEventListener("change", () => {
    form.elements[select.dataset.fills].value = select.value;
    if (select.id === "pick-sheet") look();
  });
}
field.addEventListener("change", forget);

for (const kind of ["dragenter", "dragover"]) {
  form.addEventListener(kind, (event) => {
    event.preventDefault(); // allows the drop
    form.classList.add("over");
  });
}
form.addEventListener("dragleave", (event) => form.contains(event.relatedTarget) || form.classList.remove("over"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (button.disabled) return;
  if (event.dataTransfer.files.length !== 1) return tell({ message: "Drop one file at a time." });
  forget();
  field.files = event.dataTransfer.files;
  form.requestSubmit();
});
