// Renders a prediction and its explanation. Texts and labels are never interpreted as markup.
import { formatNumber, percent } from "./numbers.js";

const MAX_LABELS = 8;
const TOP_WORDS = 6; // words in the list
const MAX_TRUNCATED_CHARACTERS = 200; // shown of the text beyond the model's maximum length
const MIN_WEIGHT = 0.08; // relative to the strongest word; weaker words are not highlighted

const number = (value) => formatNumber(value).replace("-", "−");
const signed = (value, magnitude) => `${value < 0 ? "−" : "+"}${magnitude}`;
const points = (score) => signed(score, Math.abs(100 * score).toFixed(1));
const isNumber = (task) => task === "regression";
/** What a word contributes: percentage points, or a part of a number. */
const contribution = (task) => (isNumber(task) ? (score) => signed(score, number(Math.abs(score))) : points);

/** Returns what is predicted, in words: a label, all labels that reach their thresholds, or a number. */
export function verdict(task, outputs) {
  const [{ label, score, low, high }] = outputs;
  if (isNumber(task)) return low === undefined ? number(score) : `${number(score)}, probably ${number(low)} to ${number(high)}`;
  if (task !== "multi_label") return `${label}, ${percent(score)}`;
  const predicted = outputs.filter((output) => output.predicted).map((output) => `${output.label}, ${percent(output.score)}`);
  return predicted.join("; ") || "No label reaches its threshold";
}

/** Infers the task of one of several targets from its outputs. */
export function taskOf(outputs) {
  if (outputs.length === 1 && outputs[0].label === "value") return "regression";
  return outputs.every(({ predicted }) => predicted === undefined) ? "single_label" : "multi_label";
}

/** Returns what is predicted for each of several targets, in words. */
export function verdictOfTargets(targets) {
  return Object.entries(targets).map(([name, outputs]) => `${name}: ${verdict(taskOf(outputs), outputs)}`).join(" · ");
}

export function element(name, text = "", className = "") {
  const created = document.createElement(name);
  created.textContent = text;
  if (className) created.className = className;
  return created;
}

/**
 * Renders one bar per label, of each target the highest first, with its threshold if it has one. `onPick` is
 * called with a label to explain.
 */
export function renderScores(list, targets, thresholds, onPick) {
  list.replaceChildren(...targets.flatMap((labels) => scoreRows(labels, thresholds, onPick)));
}

function scoreRows(labels, thresholds, onPick) {
  const rows = labels.slice(0, MAX_LABELS).map(({ label, score, predicted }) => {
    const row = element("li");
    const name = element("button", label, "plain");
    name.type = "button";
    name.title = `Explain ${label}`;
    name.addEventListener("click", () => onPick(label));
    const bar = element("span", "", predicted === false ? "score-bar below" : "score-bar");
    bar.append(element("span"));
    bar.firstChild.style.width = `${100 * score}%`;
    if (label in thresholds) {
      bar.append(element("i"));
      bar.lastChild.style.left = `${100 * thresholds[label]}%`;
      bar.title = `Threshold ${percent(thresholds[label])}`;
    }
    row.append(name, bar, element("span", percent(score), "number"));
    return row;
  });
  const rest = labels.slice(MAX_LABELS);
  if (rest.length) rows.push(element("li", `and ${rest.length} more, at most ${percent(rest[0].score)} each`, "muted"));
  return rows;
}

/** Returns the model version, engine and timing from the response headers. */
export function responseInfo(headers) {
  const info = [headers.get("X-Model-Version"), headers.get("X-Engine"), `${headers.get("x-compute-tokens")} tokens`];
  info.push(`${headers.get("x-total-time")} ms, of which ${headers.get("x-queue-time")} ms in the queue`);
  if (headers.get("X-Truncated")) info.push("truncated to the model's maximum length");
  return info.join(" · ");
}

/** Renders the text with highlighted words, and the words with the largest contributions. `target`: one of several. */
export function renderExplanation(panel, text, explanation, isTruncated, task, target) {
  const find = (selector) => panel.querySelector(selector);
  const format = contribution(task);
  const largest = Math.max(...explanation.words.map((word) => Math.abs(word.score)), 1e-9);
  find(".explanation h3").textContent = isNumber(task) ? `Why ${number(explanation.score)}` : `Why “${explanation.label}”`;
  const ofField = (field) => explanation.words.filter((word) => word.field === field);
  const [first, second] = typeof text === "string" ? [text] : [text.text, text.text_pair];
  find(".explained-text").replaceChildren(...highlighted(first, ofField("text"), largest, isTruncated, format));
  find(".explained-pair").hidden = second === undefined;
  find(".explained-pair").replaceChildren(...highlighted(second ?? "", ofField("text_pair"), largest, isTruncated, format));
  find(".legend").textContent = legend(explanation, task);
  find(".top-words").replaceChildren(
    ...[...explanation.words]
      .sort((a, b) => Math.abs(b.score) - Math.abs(a.score))
      .slice(0, TOP_WORDS)
      .map((word) => {
        const row = element("li");
        const direction = word.score < 0 ? "against" : "for";
        row.append(element("span", format(word.score), "number"), " ", element("mark", word.text, direction));
        row.lastChild.style.setProperty("--weight", Math.abs(word.score) / largest);
        return row;
      }),
  );
  const bar = target === undefined ? explanation.label : `${target}/${explanation.label}`;
  for (const button of panel.querySelectorAll(".bars button")) {
    button.setAttribute("aria-pressed", String(button.textContent === bar));
  }
  find(".explanation").hidden = false;
}

function* highlighted(text, words, largest, isTruncated, format) {
  const characters = Array.from(text); // offsets count code points, JavaScript strings UTF-16 units
  const slice = (start, end) => characters.slice(start, end).join("");
  let position = 0;
  for (const { start, end, score } of words) {
    yield slice(position, start);
    const weight = Math.abs(score) / largest;
    const word = element(weight < MIN_WEIGHT ? "span" : "mark", slice(start, end), score < 0 ? "against" : "for");
    word.title = format(score);
    word.style.setProperty("--weight", weight);
    yield word;
    position = end;
  }
  const isLong = characters.length - position > MAX_TRUNCATED_CHARACTERS;
  const rest = isLong ? `${slice(position, position + MAX_TRUNCATED_CHARACTERS)}…` : slice(position);
  yield isTruncated ? element("span", rest, "truncated") : slice(position);
}

function legend(explanation, task) {
  const { score, empty_score: emptyScore } = explanation;
  const [show, unit] = isNumber(task) ? [number, ""] : [percent, " points"];
  const total = contribution(task)(score - emptyScore);
  const sum = `All words together add ${total}${unit}: from ${show(emptyScore)} without words to ${show(score)}.`;
  return explanation.grouped ? `${sum} The text is long, so adjacent words are grouped.` : sum;
}
