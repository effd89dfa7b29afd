// The page that labels texts, one at a time. A label is recorded at once: the next text is already here,
// and the request waits in an outbox until the service has stored it. So typing never waits for the
// network, and texts can be labeled while the service is away.
import { call } from "./api.js";
import { showAlert } from "./actions.js";
import { Outbox } from "./outbox.js";

const AHEAD = 5; // texts fetched ahead
const MAX_NEXT = 20; // texts of one request
const MAX_RETRY_SECONDS = 30;
const LOOK_AGAIN_SECONDS = 15; // when no text is left, others may give texts back
const FETCH_TIMEOUT = 20_000; // ms
const RETRY_STATUSES = [0, 408, 425, 429]; // and 500 or more: the request may succeed later
const KEYS = [..."123456789abcdefghijklmnopqrtuvwxy"]; // of labels: s skips, z undoes

const REASONS = {
  random: "Drawn at random: it measures accuracy, so no suggestion is shown.",
  spread: "Far from every labeled text.",
  uncertain: "Hard to predict so far.",
  diverse: "Unlike the labeled texts.",
  requested: "You chose this text.",
};

const root = document.getElementById("labeler");
const { name, task, labels, reopened, outbox: prefix } = JSON.parse(root.dataset.project);
const api = `/v1/labeling/${encodeURIComponent(name)}`;
const find = (id) => document.getElementById(id);
const numberField = find("number"); // null unless the task is a number
const labelFinder = find("find-label"); // null unless labels are names
const options = { suggestions: find("show-suggestions"), keys: find("use-keys"), annotator: find("annotator") };

const outbox = new Outbox(prefix, send);
const recorded = []; // {text, answer}: what undo takes back, the newest last
let current = null; // the text on the screen
let ahead = []; // the texts after it
let outdated = false; // others may have labeled the texts ahead
let exhausted = false; // the service had no more texts
let syncing = false;
let again = false; // sync once more
let failures = 0; // in a row
let timer;

// -- Recording and sending ------------------------------------------------------------------------

/** Records what was said of the current text, and shows the next one. */
function record(answer) {
  if (!current) return;
  const body = { ...answer, ...who(current), reason: current.reason };
  if (showsSuggestion(current)) body.suggested = valueOf(current.suggestion);
  outbox.add({ row: current.row, body });
  recorded.push({ text: current, answer });
  show(ahead.shift() ?? null);
  sync();
}

/** Takes back the last answer, and shows its text again. */
function undo() {
  const last = recorded.pop();
  if (!last) return;
  const { text, answer } = last;
  outbox.add({ row: text.row, body: text.before ? { ...text.before, ...who(text) } : null, ...who(text) });
  if (current) ahead.unshift({ ...current, kept: true });
  show({ ...text, answer });
  sync();
}

/** Returns the annotator of a text: of one that was labeled before, who labeled it. */
function who(text) {
  const annotator = text && "annotator" in text ? text.annotator : options.annotator.value.trim();
  return annotator ? { annotator } : {};
}

async function send({ row, body, annotator }, signal) {
  const path = `${api}/texts/${row}`;
  if (body) return call("PUT", path, body, { signal });
  const query = annotator === undefined ? "" : `?annotator=${encodeURIComponent(annotator)}`;
  try {
    await call("DELETE", path + query, undefined, { signal });
  } catch (problem) {
    if (problem.code !== "annotation_not_found") throw problem; // deleted already
  }
}

/** Sends what waits, then fetches texts. One at a time: a text is not offered again before its label is stored. */
async function sync() {
  again = true;
  showSaveState();
  if (syncing) return;
  syncing = true;
  clearTimeout(timer);
  try {
    while (again) {
      again = false;
      await outbox.flush();
      if (ahead.length < AHEAD || outdated) await fetchTexts();
    }
    failures = 0;
    showProblem(null);
    if (!current) timer = setTimeout(sync, 1000 * LOOK_AGAIN_SECONDS);
  } catch (problem) {
    if (problem.status === undefined && problem.name !== "TimeoutError") throw problem;
    failures += 1;
    const willRetry = problem.status === undefined || problem.status >= 500 || RETRY_STATUSES.includes(problem.status);
    if (willRetry) timer = setTimeout(sync, 1000 * (problem.retryAfter || Math.min(2 ** (failures - 1), MAX_RETRY_SECONDS)));
    showProblem(problem, willRetry);
  } finally {
    syncing = false;
    showSaveState();
  }
}

/** Replaces the texts ahead: those that the service offers again have a newer suggestion. */
async function fetchTexts() {
  const kept = ahead.filter((text) => text.kept);
  const count = Math.min(MAX_NEXT, AHEAD + 1 + kept.length);
  const { texts } = await call("POST", `${api}/next`, { count, ...who() }, { signal: AbortSignal.timeout(FETCH_TIMEOUT) });
  const stillKept = ahead.filter((text) => text.kept);
  const known = new Set([current, ...stillKept, ...outbox.requests].filter(Boolean).map(({ row }) => row));
  ahead = [...stillKept, ...texts.filter(({ row }) => !known.has(row))];
  exhausted = !ahead.length;
  outdated = false;
  if (!current) show(ahead.shift() ?? null);
}

function showSaveState() {
  const count = outbox.size;
  find("save-state").textContent = count ? `${count} not yet saved` : "All saved";
  find("save-state").classList.toggle("unsaved", count > 0);
}

/** Shows why labels wait. A rejected request stays until it is sent again or discarded. */
function showProblem(problem, willRetry) {
  find("sync-problem").hidden = !problem;
  find("sync-actions").hidden = !problem || willRetry;
  if (!problem) return;
  const [request] = outbox.requests;
  const kept = outbox.stored ? "in this browser" : "in this tab only: do not close it";
  const waiting = request ? ` Your labels are kept ${kept}.` : "";
  const rejected = request && !willRetry ? `Row ${request.row} was not saved. ` : "";
  const reason = problem.status === undefined ? "The service did not answer in time." : problem.message;
  const text = `${rejected}${reason}${waiting}${willRetry ? " Trying again." : ""}`;
  if (find("sync-message").textContent !== text) find("sync-message").textContent = text; // announced once
  find("sync-discard").hidden = !request;
  find("sync-sign-in").hidden = problem.status !== 401;
}

// -- Showing --------------------------------------------------------------------------------------

const showsSuggestion = (text) => Boolean(text.suggestion && text.reason !== "random" && options.suggestions.checked);

/** Returns what a suggestion or an annotation says: a label, a list of labels, or a number. */
const valueOf = ({ label, labels: several, value }) => label ?? several ?? value;

function describe(value) {
  if (Array.isArray(value)) return value.length ? value.join(", ") : "no label";
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : value;
}

/** Shows a text, with its earlier answer if it has one, or that none is left. */
function show(text) {
  current = text;
  find("text-panel").hidden = !text;
  find("controls").classList.toggle("waiting", !text);
  find("no-text").hidden = Boolean(text);
  find("no-text-waiting").hidden = exhausted;
  find("no-text-left").hidden = !exhausted;
  find("undo").disabled = !recorded.length;
  for (const button of document.querySelectorAll(".needs-text")) button.disabled = !text;
  if (text) {
    find("text").textContent = text.text;
    if (find("text-pair")) find("text-pair").textContent = text.text_pair ?? "";
    find("reason").textContent = text.answer ? "You labeled this text before." : REASONS[text.reason];
    for (const panel of document.querySelectorAll("#text-panel, .text-part")) panel.scrollTop = 0;
    scrollTo(0, 0);
  }
  setAnswer(text?.answer ?? {});
  showSuggestion();
}

function showSuggestion() {
  const isShown = current !== null && showsSuggestion(current);
  find("suggestion").classList.toggle("absent", !isShown);
  if (!isShown) return;
  const { suggestion, nearest } = current;
  find("suggested").textContent = describe(valueOf(suggestion));
  const score = typeof suggestion.score === "number" ? `${Math.round(100 * suggestion.score)}%` : "";
  find("suggested-score").textContent = score && task === "multi_label" ? `least certain: ${score}` : score;
  find("why").hidden = !nearest.length;
  find("nearest").replaceChildren(
    ...nearest.map((each) => {
      const item = document.createElement("li");
      const [label, text] = ["strong", "span"].map((kind) => document.createElement(kind));
      for (const [element, content] of [[label, describe(valueOf(each))], [text, each.text]]) {
        element.dir = "auto";
        element.textContent = content;
      }
      item.append(label, text);
      return item;
    }),
  );
}

/** Presses the labels of an answer, or fills in its number. */
function setAnswer(answer) {
  if (numberField) {
    numberField.value = answer.value ?? "";
    showNumberError("");
    if (current && matchMedia("(hover: hover)").matches) numberField.focus({ preventScroll: true }); // opens no keyboard on a phone
    return;
  }
  const pressed = answer.labels ?? [answer.label];
  for (const button of labelButtons()) {
    const isPressed = pressed.includes(button.dataset.label);
    if (task === "multi_label") button.setAttribute("aria-pressed", String(isPressed));
    else button.classList.toggle("chosen", isPressed);
  }
  if (labelFinder.value) {
    labelFinder.value = "";
    filterLabels();
  }
}

// -- Labels ---------------------------------------------------------------------------------------

const labelButtons = () => [...document.querySelectorAll("#labels button")];

function addButton(label) {
  const key = KEYS[labelButtons().length];
  const button = document.createElement("button");
  button.type = "button";
  button.className = "needs-text";
  button.dataset.label = label;
  button.disabled = !current;
  if (key) {
    const hint = document.createElement("kbd");
    hint.textContent = key;
    button.append(hint);
    button.setAttribute("aria-keyshortcuts", key);
  }
  const text = document.createElement("bdi");
  text.textContent = label;
  button.append(text);
  if (task === "multi_label") button.setAttribute("aria-pressed", "false");
  find("labels").append(button);
  find("find-label-field").hidden = labelButtons().length <= KEYS.length;
  find("no-labels").hidden = true;
}

function choose(button) {
  if (task === "multi_label") button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  else record({ label: button.dataset.label });
}

function confirmLabels() {
  record({ labels: labelButtons().filter((each) => each.getAttribute("aria-pressed") === "true").map((each) => each.dataset.label) });
}

function filterLabels() {
  const wanted = labelFinder.value.trim().toLowerCase();
  for (const button of labelButtons()) button.hidden = !button.dataset.label.toLowerCase().includes(wanted);
}

function recordNumber() {
  const text = numberField.value.trim().replace(",", ".");
  const value = Number(text);
  if (text === "" || !Number.isFinite(value)) return showNumberError("Enter a number, such as 3.5.");
  record({ value });
}

function showNumberError(message) {
  find("number-error").textContent = message;
  if (message) numberField.setAttribute("aria-invalid", "true");
  else numberField.removeAttribute("aria-invalid");
}

const dialog = find("add-label"); // null unless labels are names

function openDialog() {
  find("new-label").value = "";
  find("new-label-error").textContent = "";
  find("new-label").removeAttribute("aria-invalid");
  dialog.showModal();
}

async function addLabel() {
  const label = find("new-label").value.trim();
  try {
    const project = await call("PATCH", api, { add_labels: [label] });
    dialog.close();
    setLabels(project.labels.map((each) => each.name));
  } catch (problem) {
    find("new-label-error").textContent = problem.errors?.map((each) => each.message).join(" ") || problem.message;
    find("new-label").setAttribute("aria-invalid", "true");
    find("new-label").focus();
  }
}

/** Adds buttons of new labels. One of ordered labels may come between others. */
function setLabels(names) {
  const shown = labelButtons().map((each) => each.dataset.label);
  const isExtended = shown.every((label, index) => label === names[index]);
  if (!isExtended) find("labels").replaceChildren();
  for (const label of isExtended ? names.slice(shown.length) : names) addButton(label);
}

// -- Keys and buttons -----------------------------------------------------------------------------

/** Returns the key as on a keyboard with Latin letters; digits need no shift. */
function keyOf({ key, code, shiftKey }) {
  if (!shiftKey && /^Digit[1-9]$/.test(code)) return code.slice(5);
  if (key.length === 1 && key.charCodeAt(0) > 126) return code.replace("Key", "").toLowerCase();
  return key.length === 1 ? key.toLowerCase() : key;
}

/** Returns what a key does, or undefined. */
function actionOf(event) {
  const key = keyOf(event);
  const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (key === "Enter" && task === "multi_label" && !isTyping && !event.target.closest("a, summary, .command")) return confirmLabels;
  if (!options.keys.checked) return undefined;
  if (isTyping && (event.target !== numberField || !"sz".includes(key))) return undefined;
  if (key === "z") return undo;
  if (key === "s") return () => record({ skipped: true });
  if (!dialog) return undefined;
  if (key === "?") return openDialog;
  if (key === "/" && !find("find-label-field").hidden) return () => labelFinder.focus();
  const button = labelButtons()[KEYS.indexOf(key)];
  return button && (() => choose(button));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  if (!event.repeat) action(); // a key that is held down labels one text
});

const COMMANDS = { undo, skip: () => record({ skipped: true }), "open-add-label": openDialog, "confirm-labels": confirmLabels };
root.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button?.dataset.label !== undefined) choose(button);
  else COMMANDS[button?.id]?.();
});

labelFinder?.addEventListener("input", filterLabels);
labelFinder?.addEventListener("keydown", (event) => {
  if (event.key === "Escape") labelFinder.value = "";
  else if (event.key !== "Enter") return;
  const found = labelFinder.value.trim() && labelButtons().find((each) => !each.hidden);
  if (found) choose(found);
  labelFinder.value = "";
  filterLabels();
  labelFinder.blur();
});
find("number-form")?.addEventListener("submit", (event) => {
  event.preventDefault();
  recordNumber();
});
find("add-label-form")?.addEventListener("submit", (event) => {
  event.preventDefault();
  addLabel();
});
find("cancel-add-label")?.addEventListener("click", () => dialog.close());

find("sync-retry").addEventListener("click", sync);
find("sync-discard").addEventListener("click", () => {
  outbox.discardFirst();
  sync();
});
addEventListener("online", sync);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  outdated = true;
  sync();
});
addEventListener("beforeunload", (event) => {
  if (outbox.size && !outbox.stored) event.preventDefault(); // nothing else keeps them
});
document.addEventListener("live", () => dialog && setLabels(JSON.parse(find("progress").dataset.labels)));

// -- Options, kept in this browser ----------------------------------------------------------------

for (const [option, field] of Object.entries(options)) {
  const key = `labeling-${option}`;
  const isCheckbox = field.type === "checkbox";
  try {
    const stored = localStorage.getItem(key);
    if (stored !== null && isCheckbox) field.checked = stored === "true";
    else if (stored !== null) field.value = stored;
  } catch {
    // storage is disabled: the defaults apply
  }
  field.addEventListener("change", () => {
    try {
      localStorage.setItem(key, isCheckbox ? field.checked : field.value.trim());
    } catch {
      // it lasts as long as the page
    }
    if (option === "suggestions") showSuggestion();
    if (option === "annotator") startOver();
  });
}

/** Starts with the texts of another annotator. */
function startOver() {
  ahead = [];
  recorded.length = 0;
  show(null);
  sync();
}

if (dialog) setLabels(labels);
// The suggestion is beside the text where there is room, else between the text and the labels.
const hasRoom = matchMedia("(min-width: 60.01rem)");
function placeSuggestion() {
  if (hasRoom.matches) find("suggestion-place").append(find("suggestion"));
  else find("controls").before(find("suggestion"));
  find("why").open = hasRoom.matches;
}

hasRoom.addEventListener("change", placeSuggestion);
placeSuggestion();
if (!outbox.stored) showAlert("This browser keeps nothing: labels that are not yet saved are lost when the page is closed.");
if (reopened) history.replaceState(null, "", location.pathname); // live.js need not read that text again
show(reopened);
sync();
