// Renders a prediction and its explanation. Texts and labels are never interpreted as markup.

const MAX_LABELS = 8;
const TOP_WORDS = 6; // words in the list
const MAX_TRUNCATED_CHARACTERS = 200; // shown of the text beyond the model's maximum length
const MIN_WEIGHT = 0.08; // relative to the strongest word; weaker words are not highlighted

export const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
const points = (score) => `${score < 0 ? "−" : "+"}${Math.abs(100 * score).toFixed(1)}`;

function element(name, text = "", className = "") {
  const created = document.createElement(name);
  created.textContent = text;
  if (className) created.className = className;
  return created;
}

/** Renders one bar per label, highest first. `onPick` is called with a label to explain. */
export function renderScores(list, labels, onPick) {
  list.replaceChildren(
    ...labels.slice(0, MAX_LABELS).map(({ label, score }) => {
      const row = element("li");
      const name = element("button", label, "plain");
      name.type = "button";
      name.title = `Explain ${label}`;
      name.addEventListener("click", () => onPick(label));
      const bar = element("span", "", "score-bar");
      bar.append(element("span"));
      bar.firstChild.style.width = `${100 * score}%`;
      row.append(name, bar, element("span", percent(score), "number"));
      return row;
    }),
  );
  const rest = labels.slice(MAX_LABELS);
  if (rest.length) list.append(element("li", `and ${rest.length} more, at most ${percent(rest[0].score)} each`, "muted"));
}

/** Returns the model version, engine and timing from the response headers. */
export function responseInfo(headers) {
  const info = [headers.get("X-Model-Version"), headers.get("X-Engine"), `${headers.get("x-compute-tokens")} tokens`];
  info.push(`${headers.get("x-total-time")} ms, of which ${headers.get("x-queue-time")} ms in the queue`);
  if (headers.get("X-Truncated")) info.push("truncated to the model's maximum length");
  return info.join(" · ");
}

/** Renders the text with highlighted words, and the words with the largest contributions. */
export function renderExplanation(panel, text, explanation, isTruncated) {
  const find = (selector) => panel.querySelector(selector);
  const largest = Math.max(...explanation.words.map((word) => Math.abs(word.score)), 1e-9);
  find(".explanation h3").textContent = `Why “${explanation.label}”`;
  const ofField = (field) => explanation.words.filter((word) => word.field === field);
  const [first, second] = typeof text === "string" ? [text] : [text.text, text.text_pair];
  find(".explained-text").replaceChildren(...highlighted(first, ofField("text"), largest, isTruncated));
  find(".explained-pair").hidden = second === undefined;
  find(".explained-pair").replaceChildren(...highlighted(second ?? "", ofField("text_pair"), largest, isTruncated));
  find(".legend").textContent = legend(explanation);
  find(".top-words").replaceChildren(
    ...[...explanation.words]
      .sort((a, b) => Math.abs(b.score) - Math.abs(a.score))
      .slice(0, TOP_WORDS)
      .map((word) => {
        const row = element("li");
        const direction = word.score < 0 ? "against" : "for";
        row.append(element("span", points(word.score), "number"), " ", element("mark", word.text, direction));
        row.lastChild.style.setProperty("--weight", Math.abs(word.score) / largest);
        return row;
      }),
  );
  for (const button of panel.querySelectorAll(".bars button")) {
    button.setAttribute("aria-pressed", String(button.textContent === explanation.label));
  }
  find(".explanation").hidden = false;
}

function* highlighted(text, words, largest, isTruncated) {
  const characters = Array.from(text); // offsets count code points, JavaScript strings UTF-16 units
  const slice = (start, end) => characters.slice(start, end).join("");
  let position = 0;
  for (const { start, end, score } of words) {
    yield slice(position, start);
    const weight = Math.abs(score) / largest;
    const word = element(weight < MIN_WEIGHT ? "span" : "mark", slice(start, end), score < 0 ? "against" : "for");
    word.title = points(score);
    word.style.setProperty("--weight", weight);
    yield word;
    position = end;
  }
  const isLong = characters.length - position > MAX_TRUNCATED_CHARACTERS;
  const rest = isLong ? `${slice(position, position + MAX_TRUNCATED_CHARACTERS)}…` : slice(position);
  yield isTruncated ? element("span", rest, "truncated") : slice(position);
}

function legend(explanation) {
  const { score, empty_score: emptyScore } = explanation;
  const sum = `All words together add ${points(score - emptyScore)} points: from ${percent(emptyScore)} without words to ${percent(score)}.`;
  return explanation.grouped ? `${sum} The text is long, so adjacent words are grouped.` : sum;
}
