// Renders the training examples that are similar to an explained text. Texts are never interpreted as markup.
import { element } from "./explanation.js";
import { formatNumber } from "./numbers.js";

const HIDDEN = {
  scope: "text hidden: this needs the scope datasets:read",
  deleted: "text not shown: its dataset was deleted",
  forgotten: "text not shown: it was forgotten",
  elsewhere: "text not shown: its data are not stored here",
  unavailable: "text not shown: it cannot be read at the moment",
};

// Four decimals: of some encoders, all similarities are above 0.99.
const rounded = (similarity) => similarity.toFixed(4).replace("-", "−");
const describe = ({ label, labels, value }) => label ?? (labels ? labels.join(", ") || "no label" : formatNumber(value));

/** Returns whether a text is like the training texts, in words. */
function familiarityInWords(familiarity) {
  if (!familiarity) return "This version has no training examples to compare with: it was imported, or trained before they were stored.";
  const { unfamiliar, similarity, threshold, held_out_texts: count, expected_share: share } = familiarity;
  if (unfamiliar === null) return `Its ${count} held-out texts are too few, or too unlike the training texts, to say whether this text is unlike them.`;
  const usual = `${(100 * (1 - share)).toFixed(0)}% of texts like the training texts have ${rounded(threshold)} or more`;
  if (!unfamiliar) return "Similar to texts that it was trained on.";
  return `Unlike anything it was trained on: its fifth nearest example has a similarity of ${rounded(similarity)}, and ${usual}. Do not rely on this prediction.`;
}

function exampleItem(example) {
  const { row, similarity, text, text_pair: pair, hidden } = example;
  const item = element("li");
  const label = element("strong", describe(example));
  const content = element("span", hidden ? HIDDEN[hidden] : pair === undefined ? text : `${text} / ${pair}`, hidden ? "muted" : "");
  for (const part of [label, content]) part.dir = "auto";
  item.append(label, " ", element("span", `similarity ${rounded(similarity)}, row ${row}`, "small muted"), content);
  return item;
}

/** Renders how familiar a text is, and its nearest training examples. */
export function renderNearestExamples(panel, { familiarity, nearest }) {
  const find = (selector) => panel.querySelector(selector);
  find(".familiarity").textContent = familiarityInWords(familiarity);
  find(".familiarity").classList.toggle("unfamiliar", Boolean(familiarity?.unfamiliar));
  find(".nearest").replaceChildren(...nearest.map(exampleItem));
  find(".by-example h3").hidden = !nearest.length;
  find(".by-example").hidden = false;
}
