// What the page that labels texts shows: the text, the suggestion, and whether labels are saved.
import { formatNumber } from "./numbers.js";

export const find = (id) => document.getElementById(id);
export const project = JSON.parse(find("labeler").dataset.project); // {name, task, labels, reopened, outbox}

const REASONS = {
  random: "Drawn at random: it measures accuracy, so no suggestion is shown.",
  spread: "Far from every labeled text.",
  uncertain: "Hard to predict so far.",
  diverse: "Unlike the labeled texts.",
  requested: "You chose this text.",
};

/** Shows a text; null: that none is here, or that none is left. */
export function showText(text, isExhausted) {
  find("text-panel").hidden = !text;
  find("no-text").hidden = Boolean(text);
  find("no-text-waiting").hidden = isExhausted;
  find("no-text-left").hidden = !isExhausted;
  for (const button of document.querySelectorAll(".needs-text")) button.disabled = !text;
  if (!text) return;
  find("text").textContent = text.text;
  if (find("text-pair")) find("text-pair").textContent = text.text_pair ?? "";
  find("reason").textContent = text.answer ? "You labeled this text before." : REASONS[text.reason];
  for (const panel of document.querySelectorAll("#text-panel, .text-part")) panel.scrollTop = 0;
  scrollTo(0, 0);
}

/** Returns what a suggestion or an annotation says: a label, a list of labels, or a number. */
export const valueOf = ({ label, labels, value }) => label ?? labels ?? value;

function describe(value) {
  if (Array.isArray(value)) return value.length ? value.join(", ") : "no label";
  return typeof value === "number" ? formatNumber(value) : value;
}

/** Shows the suggestion of a text with the most similar labeled texts; null: none. */
export function showSuggestion(text) {
  find("suggestion").classList.toggle("absent", !text);
  if (!text) return;
  const { suggestion, nearest } = text;
  find("suggested").textContent = describe(valueOf(suggestion));
  const score = typeof suggestion.score === "number" ? `${Math.round(100 * suggestion.score)}%` : "";
  find("suggested-score").textContent = score && project.task === "multi_label" ? `least certain: ${score}` : score;
  find("why").hidden = !nearest.length;
  find("nearest").replaceChildren(...nearest.map(similarText));
}

function similarText(each) {
  const item = document.createElement("li");
  for (const [kind, content] of [["strong", describe(valueOf(each))], ["span", each.text]]) {
    const element = document.createElement(kind);
    element.dir = "auto";
    element.textContent = content;
    item.append(element);
  }
  return item;
}

// The suggestion is beside the text where there is room, else between the text and the labels.
const hasRoom = matchMedia("(min-width: 60.01rem)");
function placeSuggestion() {
  if (hasRoom.matches) find("suggestion-place").append(find("suggestion"));
  else find("controls").before(find("suggestion"));
  find("why").open = hasRoom.matches;
}

hasRoom.addEventListener("change", placeSuggestion);
placeSuggestion();

export function showSaveState({ size }) {
  find("save-state").textContent = size ? `${size} not yet saved` : "All saved";
  find("save-state").classList.toggle("unsaved", size > 0);
}

/** Shows why labels wait. A rejected request stays until it is sent again or discarded. */
export function showProblem(problem, willRetry, outbox) {
  find("sync-problem").hidden = !problem;
  find("sync-actions").hidden = !problem || willRetry;
  if (!problem) return;
  const [request] = outbox.requests;
  const kept = outbox.stored ? "in this browser" : "in this tab only: do not close it";
  const text = [
    request && !willRetry ? `Row ${request.row} was not saved.` : "",
    problem.status === undefined ? "The service did not answer in time." : problem.message,
    request ? `Your labels are kept ${kept}.` : "",
    willRetry ? "Trying again." : "",
  ].filter(Boolean).join(" ");
  if (find("sync-message").textContent !== text) find("sync-message").textContent = text; // announced once
  find("sync-discard").hidden = !request;
  find("sync-sign-in").hidden = problem.status !== 401;
}
