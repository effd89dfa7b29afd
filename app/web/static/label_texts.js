// The page that labels texts, one at a time. A label is recorded at once: the next text is already here,
// and the request waits in an outbox until the service has stored it. So typing never waits for the
// network, and texts can be labeled while the service is away.
import { showAlert } from "./actions.js";
import { call } from "./api.js";
import { confirmLabels, labelAction, numberField, openDialog, setAnswer, setLabels } from "./label_input.js";
import { find, project, showProblem, showSaveState, showSuggestion, showText, valueOf } from "./label_view.js";
import { Outbox } from "./outbox.js";

const AHEAD = 5; // texts fetched ahead
const MAX_NEXT = 20; // texts of one request
const MAX_RETRY_SECONDS = 30;
const LOOK_AGAIN_SECONDS = 15; // when no text is left, others may give texts back
const FETCH_TIMEOUT = 20_000; // ms
const RETRY_STATUSES = [0, 408, 425, 429]; // and 500 or more: the request may succeed later

const api = `/v1/labeling/${encodeURIComponent(project.name)}`;
const options = { suggestions: find("show-suggestions"), keys: find("use-keys"), annotator: find("annotator") };
const outbox = new Outbox(project.outbox, send);
const recorded = []; // {text, answer}: what undo takes back, the newest last
const recordedElsewhere = new Set(); // rows that other tabs of this annotator have labeled
let current = null; // the text on the screen
let ahead = []; // the texts after it
let outdated = false; // others may have labeled the texts ahead
let exhausted = false; // the service had no more texts
let syncing = false;
let again = false; // sync once more
let failures = 0; // in a row
let timer;

// -- Recording ------------------------------------------------------------------------------------

/** Records what was said of the current text, and shows the next one. */
function record(answer) {
  if (!current) return;
  const body = { ...answer, ...who(current), reason: current.reason };
  if (isSuggested(current)) body.suggested = valueOf(current.suggestion);
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

const skip = () => record({ skipped: true });

/** Returns the annotator of a text: of one that was labeled before, who labeled it. */
function who(text) {
  const annotator = text && "annotator" in text ? text.annotator : options.annotator.value.trim();
  return annotator ? { annotator } : {};
}

/** Shows a text, with its earlier answer if it has one. */
function show(text) {
  current = text;
  showText(text, exhausted);
  setAnswer(text?.answer ?? {});
  showSuggestion(text && isSuggested(text) ? text : null);
  find("undo").disabled = !recorded.length;
}

/** Whether the suggestion of a text is shown. Texts that measure something have none. */
const isSuggested = (text) => Boolean(text.suggestion && options.suggestions.checked);

// -- Sending and fetching -------------------------------------------------------------------------

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
  showSaveState(outbox);
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
    showProblem(problem, willRetry, outbox);
  } finally {
    syncing = false;
    showSaveState(outbox);
  }
}

/** Replaces the texts ahead: those that the service offers again have a newer suggestion. */
async function fetchTexts() {
  const count = Math.min(MAX_NEXT, AHEAD + 1 + ahead.filter((text) => text.kept).length);
  const { texts } = await call("POST", `${api}/next`, { count, ...who() }, { signal: AbortSignal.timeout(FETCH_TIMEOUT) });
  const kept = ahead.filter((text) => text.kept); // undo has brought them here
  const isGone = outdated && current && !current.answer && !texts.some(({ row }) => row === current.row); // labeled elsewhere
  if (isGone) current = null;
  const known = new Set([current, ...kept, ...outbox.requests].filter(Boolean).map(({ row }) => row).concat([...recordedElsewhere]));
  ahead = [...kept, ...texts.filter(({ row }) => !known.has(row))];
  exhausted = !ahead.length;
  outdated = false;
  if (!current) show(ahead.shift() ?? null);
}

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
// Tabs of one annotator show the same texts, and what is labeled in one leaves the others too. Their
// requests are in the same storage.
addEventListener("storage", ({ key, newValue }) => {
  if (!key?.startsWith(project.outbox) || newValue === null) return;
  const { row, body, annotator } = JSON.parse(newValue);
  if ((body ?? { annotator }).annotator !== who().annotator) return;
  if (!body) return recordedElsewhere.delete(row); // undone
  recordedElsewhere.add(row);
  ahead = ahead.filter((text) => text.row !== row);
  if (current?.row === row) show(ahead.shift() ?? null);
  if (!document.hidden) sync();
});
addEventListener("beforeunload", (event) => {
  if (outbox.size && !outbox.stored) event.preventDefault(); // nothing else keeps them
});

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
  const isCommand = event.target.closest("a, summary, .command");
  if (key === "Enter" && find("confirm-labels") && !isTyping && !isCommand) return confirmLabels;
  if (!options.keys.checked) return undefined;
  if (isTyping && (event.target !== numberField || !"sz".includes(key))) return undefined;
  if (key === "z") return undo;
  return key === "s" ? skip : labelAction(key);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  if (!event.repeat) action(); // a key that is held down labels one text
});
document.addEventListener("answer", (event) => record(event.detail));

const COMMANDS = { undo, skip, "open-add-label": openDialog, "confirm-labels": confirmLabels };
for (const [id, command] of Object.entries(COMMANDS)) find(id)?.addEventListener("click", () => command());

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
    if (option === "suggestions") showSuggestion(current && isSuggested(current) ? current : null);
    if (option === "annotator") startOver();
  });
}

/** Starts with the texts of another annotator. */
function startOver() {
  ahead = [];
  recorded.length = 0;
  recordedElsewhere.clear();
  show(null);
  sync();
}

if (!outbox.stored) showAlert("This browser keeps nothing: labels that are not yet saved are lost when the page is closed.");
if (project.reopened) history.replaceState(null, "", location.pathname); // live.js need not read that text again
setLabels(project.labels);
show(project.reopened);
sync();
