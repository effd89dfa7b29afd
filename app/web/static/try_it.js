// Queries models while the user types: predictions, and explanations by word.
import { Problem, request, throwProblem } from "./api.js";
import { renderExplanation, renderScores, responseInfo, taskOf, verdict, verdictOfTargets } from "./explanation.js";
import { renderNearestExamples } from "./nearest_examples.js";

const PREDICT_DELAY = 120; // ms after the last input
const EXPLAIN_DELAY = 600; // ms after the prediction: an explanation costs hundreds of predictions
const SLOW_RESPONSE = 1000; // ms after which the model is assumed to be loading
const RETRY_STATUSES = [429, 503]; // busy or loading; Retry-After says when to retry
const LOADING = "Loading the model. The first prediction takes a few seconds; the next ones are immediate.";
const MAX_EXAMPLES = 4;
const MAX_EXAMPLE_LENGTH = 160; // characters

const textBox = document.getElementById("text");
const pairBox = document.getElementById("text-pair"); // for models of text pairs
const pairField = document.getElementById("pair-field");
const explainCheckbox = document.getElementById("explain");
const panels = document.getElementById("answers");
const examples = document.getElementById("examples");

/** Returns what a model is asked: a text, a pair as an object, or null if a text is missing. */
function currentInput() {
  const texts = pairField.hidden ? [textBox.value] : [textBox.value, pairBox.value];
  if (texts.some((text) => !text.trim())) return null;
  return pairField.hidden ? texts[0] : { text: texts[0], text_pair: texts[1] };
}

const thresholds = new Map(); // of versions, by label; of several targets TARGET/LABEL

/** Returns the labels of several targets, one list for each. A bar is named TARGET/LABEL, as its threshold is. */
function barsOfTargets(targets) {
  return Object.entries(targets).map(([target, outputs]) =>
    taskOf(outputs) === "regression" ? [] : outputs.map((output) => ({ ...output, label: `${target}/${output.label}` })),
  );
}

/** Returns the thresholds of a version, {} if it has none. They are drawn, not needed. */
async function thresholdsOf(version, task) {
  if (task !== "multi_label" && task !== "several_targets") return {};
  if (!thresholds.has(version)) {
    const path = `/models/${encodeURIComponent(version)}/info`;
    const info = await request("GET", path).then((response) => response.json(), () => ({ thresholds: {} }));
    thresholds.set(version, info.thresholds);
  }
  return thresholds.get(version);
}

/** A model and its panel. Responses to outdated requests are ignored. */
class ModelPanel {
  constructor(id) {
    this.select = document.getElementById(id);
    this.panel = document.getElementById("answer-template").content.firstElementChild.cloneNode(true);
    this.panel.id = `answer-${id}`;
    this.label = null; // the label to explain; null: the highest
  }

  find(selector) {
    return this.panel.querySelector(selector);
  }

  /** Starts over after the text or the model has changed. */
  update() {
    this.stop();
    const text = currentInput();
    if (!this.select.value || text === null) {
      this.setBusy(false);
      return this.panel.remove();
    }
    if (!this.panel.isConnected) panels.append(this.panel);
    this.find("h2").textContent = this.select.selectedOptions[0].textContent;
    for (const part of [".explanation", ".by-example", ".explaining"]) this.find(part).hidden = true; // of the previous text
    this.showError("");
    this.setBusy(true);
    this.timer = setTimeout(() => this.predict(text), PREDICT_DELAY);
  }

  stop() {
    clearTimeout(this.timer);
    this.pending?.abort();
  }

  predict(text) {
    const path = `/models/${encodeURIComponent(this.select.value)}/predict`;
    this.send(path, { inputs: text }, () => this.predict(text), async (answer, headers) => {
      const { signal } = this.pending;
      const task = headers.get("X-Task");
      const drawn = await thresholdsOf(headers.get("X-Model-Version"), task);
      if (signal.aborted) return;
      this.shownText = text;
      this.task = task;
      this.targets = task === "several_targets" ? answer : null;
      const bars = this.targets ? barsOfTargets(answer) : task === "regression" ? [] : [answer];
      if (!bars.flat().some(({ label }) => label === this.label)) this.label = null;
      this.find(".verdict").textContent = this.targets ? verdictOfTargets(answer) : verdict(task, answer);
      this.find(".response-info").textContent = responseInfo(headers);
      renderScores(this.find(".bars"), bars, drawn, (label) => {
        this.label = label;
        this.explain(text);
      });
      if (explainCheckbox.checked) this.timer = setTimeout(() => this.explain(text), EXPLAIN_DELAY);
    });
  }

  explain(text) {
    let path = `/v1/models/${encodeURIComponent(this.select.value)}/explain`;
    let { label, task } = this;
    let target;
    if (this.targets) { // one of them: that of the label, or the first
      target = label === null ? Object.keys(this.targets)[0] : label.slice(0, label.indexOf("/"));
      path += `?target=${encodeURIComponent(target)}`;
      label = label === null ? null : label.slice(target.length + 1);
      task = taskOf(this.targets[target]);
    }
    this.find(".explaining").hidden = false;
    const body = label === null ? { inputs: text } : { inputs: text, label };
    this.send(path, body, () => this.explain(text), (explanation, headers) => {
      this.find(".explaining").hidden = true;
      renderExplanation(this.panel, text, explanation, Boolean(headers.get("X-Truncated")), task, target);
      renderNearestExamples(this.panel, explanation);
    });
  }

  /** Sends a request, aborting the previous one. `retry` is called later if the service is busy. */
  async send(path, body, retry, onSuccess) {
    this.stop();
    const { signal } = (this.pending = new AbortController());
    try {
      const response = await request("POST", path, body, { signal });
      const result = await response.json().catch(throwProblem);
      if (signal.aborted) return;
      this.setBusy(false);
      this.showError("");
      onSuccess(result, response.headers);
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      if (problem.code === "text_pair_required" && pairField.hidden) {
        pairField.hidden = false;
        return updateAll();
      }
      if (this.shownText !== body.inputs) this.clear();
      this.setBusy(false);
      this.find(".explaining").hidden = true;
      const willRetry = RETRY_STATUSES.includes(problem.status);
      const isLoading = problem.code === "model_loading"; // not an error
      if (isLoading) this.showWaiting(LOADING);
      const message = willRetry ? `${problem.message} Retrying automatically.` : problem.message;
      this.showError(isLoading ? "" : message);
      if (willRetry) this.timer = setTimeout(retry, 1000 * (problem.retryAfter || 1));
    }
  }

  /** Removes the prediction of a previous text. */
  clear() {
    this.shownText = undefined;
    this.find(".bars").replaceChildren();
    for (const part of [".verdict", ".response-info"]) this.find(part).textContent = "";
  }

  /** Shows that a request is in flight: at once in an empty panel, else only if it is slow. */
  setBusy(isBusy) {
    this.find(".prediction").setAttribute("aria-busy", String(isBusy));
    clearTimeout(this.slowTimer);
    if (!isBusy) this.busySince = undefined;
    else this.busySince ??= performance.now();
    const left = isBusy ? this.busySince + SLOW_RESPONSE - performance.now() : Infinity;
    if (left <= 0) return this.showWaiting(LOADING);
    this.showWaiting(isBusy && this.shownText === undefined ? "Waiting for the model…" : "");
    if (isBusy) this.slowTimer = setTimeout(() => this.showWaiting(LOADING), left);
  }

  showWaiting(text) {
    this.find(".waiting p").textContent = text;
    this.find(".waiting").hidden = !text;
  }

  showError(text) {
    this.find(".request-error").textContent = text;
    this.find(".request-error").hidden = !text;
  }
}

const modelPanels = [new ModelPanel("model"), new ModelPanel("compare")];
const updateAll = () => modelPanels.forEach((panel) => panel.update());

/** Offers test texts of the first model, if the user may read its artifact. */
async function loadExamples() {
  const artifact = modelPanels[0].select.selectedOptions[0].dataset.artifact;
  const rows = await request("GET", `/v1/artifacts/${artifact}/files/golden.json`).then((response) => response.json(), () => []);
  const isSingle = rows.length ? rows[0].text_pair === undefined : pairField.hidden;
  const isOther = isSingle !== pairField.hidden;
  pairField.hidden = isSingle;
  const short = rows.filter(({ text, text_pair: pair = "" }) => text.length + pair.length <= MAX_EXAMPLE_LENGTH);
  for (const old of examples.querySelectorAll("button")) old.remove();
  for (const { text, text_pair: pair } of short.slice(0, MAX_EXAMPLES)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = pair === undefined ? text : `${text} / ${pair}`;
    button.addEventListener("click", () => {
      textBox.value = text;
      pairBox.value = pair ?? "";
      updateAll();
    });
    examples.append(button);
  }
  examples.hidden = !short.length;
  if (isOther) updateAll();
}

function updateUrl() {
  const query = new URLSearchParams(modelPanels.map(({ select }) => [select.name, select.value]).filter(([, value]) => value));
  history.replaceState(null, "", `?${query}`);
}

for (const box of [textBox, pairBox]) box.addEventListener("input", updateAll);
for (const panel of modelPanels) {
  panel.select.addEventListener("change", () => {
    panel.label = null;
    panel.clear(); // the prediction came from another model
    panel.update();
    updateUrl();
    if (panel === modelPanels[0]) loadExamples();
  });
}
explainCheckbox.addEventListener("change", updateAll);
document.getElementById("try-form").addEventListener("submit", (event) => event.preventDefault());

loadExamples();
updateAll(); // the browser may have restored the text
