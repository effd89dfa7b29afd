// Draws an answer of a model and the words that drove it. Texts and labels stay texts.

const MOST_LABELS = 8;
const STRONGEST = 6; // words in the list
const UNREAD = 200; // characters that are shown of what the model has not read
const FAINT = 0.08; // of the strongest word: less is not marked

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
const points = (score) => `${score < 0 ? "−" : "+"}${Math.abs(100 * score).toFixed(1)}`;

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A bar for each label, highest first. `pick` is called with the label whose words are wanted. */
export function bars(list, labels, pick) {
  list.replaceChildren(
    ...labels.slice(0, MOST_LABELS).map(({ label, score }) => {
      const row = element("li");
      const name = element("button", label, "plain");
      name.type = "button";
      name.title = `Which words speak for ${label}`;
      name.addEventListener("click", () => pick(label));
      const bar = element("span", "", "share");
      bar.append(element("span"));
      bar.firstChild.style.width = `${100 * score}%`;
      row.append(name, bar, element("span", percent(score), "number"));
      return row;
    }),
  );
  const rest = labels.slice(MOST_LABELS);
  if (rest.length) list.append(element("li", `and ${rest.length} more, ${percent(rest[0].score)} or less each`, "quiet"));
}

/** Who answered and what it took, from the headers of the answer. */
export function facts(headers) {
  const told = [headers.get("X-Model-Version"), headers.get("X-Engine"), `${headers.get("x-compute-tokens")} tokens`];
  told.push(`${headers.get("x-total-time")} ms, ${headers.get("x-queue-time")} of them waiting`);
  if (headers.get("X-Truncated")) told.push("longer than the model reads: only the beginning counted");
  return told.join(" · ");
}

/** The text with its words marked, and the strongest ones with their figures. */
export function reasons(place, text, found, cut) {
  const part = (selector) => place.querySelector(selector);
  const most = Math.max(...found.words.map((word) => Math.abs(word.score)), 1e-9);
  part(".reasons h3").textContent = `Which words drove “${found.label}”`;
  part(".spoken").replaceChildren(...marked(text, found.words, most, cut));
  part(".legend").textContent = legend(found);
  part(".strongest").replaceChildren(
    ...[...found.words]
      .sort((a, b) => Math.abs(b.score) - Math.abs(a.score))
      .slice(0, STRONGEST)
      .map((word) => {
        const row = element("li");
        const side = word.score < 0 ? "against" : "for";
        row.append(element("span", points(word.score), "number"), " ", element("mark", word.text, side));
        row.lastChild.style.setProperty("--weight", Math.abs(word.score) / most);
        return row;
      }),
  );
  for (const button of place.querySelectorAll(".bars button")) {
    button.setAttribute("aria-pressed", String(button.textContent === found.label));
  }
  part(".reasons").hidden = false;
}

function* marked(text, words, most, cut) {
  const characters = Array.from(text); // places count code points, strings of JavaScript do not
  const between = (start, end) => characters.slice(start, end).join("");
  let at = 0;
  for (const { start, end, score } of words) {
    yield between(at, start);
    const weight = Math.abs(score) / most;
    const word = element(weight < FAINT ? "span" : "mark", between(start, end), score < 0 ? "against" : "for");
    word.title = points(score);
    word.style.setProperty("--weight", weight);
    yield word;
    at = end;
  }
  const rest = characters.length - at > UNREAD ? `${between(at, at + UNREAD)}…` : between(at);
  yield cut ? element("span", rest, "unread") : between(at);
}

function legend(found) {
  const sum = `Together ${points(found.score - found.empty_score)} points: from ${percent(found.empty_score)} without any words to ${percent(found.score)}.`;
  return found.grouped ? `${sum} There are many words, so neighbours count as one.` : sum;
}
