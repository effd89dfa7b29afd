// Asks models as one types: what they answer, and which words drove it.
import { bars, facts, percent, reasons } from "./answer.js";
import { Problem, request } from "./api.js";

const ANSWER_WAIT = 120; // ms after the last key
const REASONS_WAIT = 600; // ms after the answer: it costs the model hundreds of texts
const LOADING_WAIT = 1000; // ms without an answer: the model is most likely being loaded
const AGAIN = [429, 503]; // busy, or still loading: the service says when to come back
const LOADING = "The model is being loaded. The first answer after a pause takes some seconds, the next ones come at once.";
const EXAMPLES = 4;
const LONGEST_EXAMPLE = 160; // characters

const box = document.getElementById("text");
const why = document.getElementById("why");
const answers = document.getElementById("answers");
const examples = document.getElementById("examples");

/** One model and its place on the page. What comes for an older question is thrown away. */
class Asked {
  constructor(id) {
    this.pick = document.getElementById(id);
    this.place = document.getElementById("answer").content.firstElementChild.cloneNode(true);
    this.place.id = `answer-${id}`;
    this.label = null; // whose words are told; null: the highest
  }

  part(selector) {
    return this.place.querySelector(selector);
  }

  /** The text or the model is another one. */
  ask() {
    this.stop();
    const text = box.value;
    if (!this.pick.value || !text.trim()) {
      this.busy(false);
      return this.place.remove();
    }
    if (!this.place.isConnected) answers.append(this.place);
    this.part("h2").textContent = this.pick.selectedOptions[0].textContent;
    for (const part of [".reasons", ".looking"]) this.part(part).hidden = true; // of the text before
    this.trouble("");
    this.busy(true);
    this.timer = setTimeout(() => this.answer(text), ANSWER_WAIT);
  }

  stop() {
    clearTimeout(this.timer);
    this.under?.abort();
  }

  answer(text) {
    const path = `/models/${encodeURIComponent(this.pick.value)}/predict`;
    this.send(path, { inputs: text }, () => this.answer(text), (labels, headers) => {
      this.shown = text;
      if (!labels.some(({ label }) => label === this.label)) this.label = null;
      this.part(".verdict").textContent = `${labels[0].label}, ${percent(labels[0].score)}`;
      this.part(".facts").textContent = facts(headers);
      bars(this.part(".bars"), labels, (label) => {
        this.label = label;
        this.reason(text);
      });
      if (why.checked) this.timer = setTimeout(() => this.reason(text), REASONS_WAIT);
    });
  }

  reason(text) {
    const path = `/v1/models/${encodeURIComponent(this.pick.value)}/explain`;
    this.part(".looking").hidden = false;
    const body = this.label === null ? { inputs: text } : { inputs: text, label: this.label };
    this.send(path, body, () => this.reason(text), (found, headers) => {
      this.part(".looking").hidden = true;
      reasons(this.place, text, found, Boolean(headers.get("X-Truncated")));
    });
  }

  /** Sends, instead of what is under way. `again` is done later where the service asks for it. */
  async send(path, body, again, take) {
    this.stop();
    const { signal } = (this.under = new AbortController());
    try {
      const answer = await request("POST", path, body, { signal });
      const found = await answer.json();
      if (signal.aborted) return;
      this.busy(false);
      this.trouble("");
      take(found, answer.headers);
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      if (this.shown !== body.inputs) this.clear();
      this.busy(false);
      this.part(".looking").hidden = true;
      const later = AGAIN.includes(problem.status);
      const loading = problem.code === "model_loading"; // not a problem, only a matter of time
      if (loading) this.wait(LOADING);
      const told = later ? `${problem.message} This page asks again by itself.` : problem.message;
      this.trouble(loading ? "" : told);
      if (later) this.timer = setTimeout(again, 1000 * (problem.retryAfter || 1));
    }
  }

  /** No answer of an older text may stand beside a text that has none. */
  clear() {
    this.shown = undefined;
    this.part(".bars").replaceChildren();
    for (const part of [".verdict", ".facts"]) this.part(part).textContent = "";
  }

  /** An answer is under way: told at once where the panel is empty, else once it takes long. */
  busy(is) {
    this.part(".given").setAttribute("aria-busy", String(is));
    clearTimeout(this.slow);
    if (!is) this.since = undefined;
    else this.since ??= performance.now();
    const left = is ? this.since + LOADING_WAIT - performance.now() : Infinity;
    if (left <= 0) return this.wait(LOADING);
    this.wait(is && this.shown === undefined ? "Asking the model…" : "");
    if (is) this.slow = setTimeout(() => this.wait(LOADING), left);
  }

  wait(text) {
    this.part(".waiting p").textContent = text;
    this.part(".waiting").hidden = !text;
  }

  trouble(text) {
    this.part(".trouble").textContent = text;
    this.part(".trouble").hidden = !text;
  }
}

const asked = [new Asked("model"), new Asked("beside")];

/** Texts that the model was tested with, where the person may read them. */
async function offer() {
  const artifact = asked[0].pick.selectedOptions[0].dataset.artifact;
  const kept = await request("GET", `/v1/artifacts/${artifact}/files/golden.json`).then((answer) => answer.json(), () => []);
  const short = kept.map(({ text }) => text).filter((text) => text.length <= LONGEST_EXAMPLE);
  for (const old of examples.querySelectorAll("button")) old.remove();
  for (const text of short.slice(0, EXAMPLES)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    examples.append(button);
  }
  examples.hidden = !short.length;
}

function address() {
  const query = new URLSearchParams(asked.map(({ pick }) => [pick.name, pick.value]).filter(([, value]) => value));
  history.replaceState(null, "", `?${query}`);
}

box.addEventListener("input", () => asked.forEach((each) => each.ask()));
for (const each of asked) {
  each.pick.addEventListener("change", () => {
    each.label = null;
    each.clear(); // it was the answer of another model
    each.ask();
    address();
    if (each === asked[0]) offer();
  });
}
why.addEventListener("change", () => asked.forEach((each) => each.ask()));
examples.addEventListener("click", (event) => {
  if (event.target.localName !== "button") return;
  box.value = event.target.textContent;
  asked.forEach((each) => each.ask());
});
document.getElementById("try").addEventListener("submit", (event) => event.preventDefault());

offer();
asked.forEach((each) => each.ask()); // a browser may have kept the text
