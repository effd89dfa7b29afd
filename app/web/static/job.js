// The curves of one job. They are read once, then grow by the stream from where they ended.
import { tell } from "./actions.js";
import { call } from "./api.js";
import { axes, Curves, figure, inWords, percent, traces } from "./curves.js";
import { refresh } from "./live.js";
import { colour, draw } from "./plot.js";

const REDRAW = 250; // ms between two pictures at least
const AGAIN = 3000; // ms, after a stream that broke for good
const MOST = 4000; // points of a curve that has grown, before it is thinned anew
const NEWS = ["started", "checkpoint_rejected"]; // events after which curves may have been cut back

const root = document.getElementById("curves");
const url = `/v1/jobs/${root.dataset.job}`;
const place = (id) => document.getElementById(id);
const PARTS = {
  train: { label: "training", ink: "--series-1" },
  validation: { label: "validation", ink: "--series-2", marked: true },
  test: { label: "test", ink: "--series-3", symbol: "diamond" },
};
const CHARTS = [
  { id: "loss", name: "loss", parts: ["train", "validation", "test"], words: figure, first: true },
  { id: "accuracy", name: "accuracy", parts: ["validation", "test"], words: percent, ticks: ".0%", format: ".1%", first: true },
  { id: "rate", name: "learning_rate", parts: ["train"], words: figure },
  { id: "speed", name: "reviews_per_second", parts: ["train"], words: figure },
  { id: "norm", name: "grad_norm", parts: ["train"], words: figure },
];

const more = place("more-curves"); // folded: nothing is drawn in there until it is opened

let curves = new Curves();
let rival = Number(root.dataset.rival) || null; // validation accuracy of the linear one
let steps; // of the whole run, once they are known
let stream;
let timer;
let reading = 0; // counts up, so that an answer that was overtaken is known

/** Read all curves, those that are looked at first before the others, and follow what comes. */
async function load() {
  const mine = ++reading;
  stop();
  try {
    const [now, later] = [true, false].map((first) => CHARTS.filter((chart) => Boolean(chart.first) === first));
    const fresh = new Curves();
    const { seq, ...answer } = await read(now);
    if (mine !== reading) return;
    fresh.take(answer);
    curves = fresh;
    paint(now);
    fresh.take(await read(later));
    if (mine !== reading) return;
    paint(later);
    if (!("ended" in root.dataset)) follow(seq);
  } catch (problem) {
    if (mine !== reading) return;
    if (problem.status) return tell(problem.message); // refused, as when the job is deleted
    timer = setTimeout(load, AGAIN);
  }
}

function read(charts) {
  return call("GET", `${url}/curves?${new URLSearchParams(charts.map(({ name }) => ["name", name]))}`);
}

function follow(seq) {
  stream = new EventSource(`${url}/stream?after=${seq}`); // comes back by itself, with the last number
  stream.addEventListener("metric", ({ data }) => {
    curves.add(JSON.parse(data));
    curves.longest > MOST ? load() : paintSoon();
  });
  stream.addEventListener("event", ({ data }) => {
    const event = JSON.parse(data);
    if (event.kind === "rival") rival = event.data.validation.accuracy;
    if (NEWS.includes(event.kind)) load();
  });
  stream.addEventListener("state", ({ data }) => {
    steps = JSON.parse(data).total_steps;
    paintSoon();
  });
  stream.addEventListener("end", () => {
    root.dataset.ended = "";
    stop();
    paint();
    refresh();
  });
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) timer = setTimeout(load, AGAIN);
  });
}

function stop() {
  clearTimeout(timer);
  timer = undefined;
  stream?.close();
  stream = undefined;
}

function paintSoon() {
  timer ??= setTimeout(() => {
    timer = undefined;
    paint();
  }, REDRAW);
}

function paint(charts = CHARTS) {
  const shown = charts.map((chart) => chart.parts.filter((part) => curves.has(part, chart.name)).map((part) => [PARTS[part], curves.get(part, chart.name)]));
  charts.forEach(({ id }, i) => (place(id).closest("figure").hidden = !shown[i].length)); // before any is drawn: all share the width
  place("no-curves").hidden ||= shown.some((lines) => lines.length);
  if (charts.some((chart, i) => !chart.first && shown[i].length)) more.hidden = false;
  charts.forEach((chart, i) => shown[i].length && (chart.first || more.open) && drawChart(chart, shown[i]));
}

function drawChart(chart, lines) {
  const data = lines.flatMap(([part, curve]) => traces(curve, { ...part, format: chart.format }));
  const upto = "ended" in root.dataset ? undefined : steps;
  place(chart.id).setAttribute("aria-label", lines.map(([part, curve]) => inWords(curve, part.label, chart.words)).join("; "));
  draw(place(chart.id), { data, layout: { ...axes(chart.ticks, upto), ...level(chart), showlegend: lines.length > 1 } });
}

/** The linear rival, as a level to get over. */
function level(chart) {
  if (chart.id !== "accuracy" || !rival) return {};
  return {
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: rival, y1: rival, line: { color: colour("--quiet"), dash: "dot", width: 1.5 } }],
    annotations: [{ xref: "paper", x: 1, xanchor: "right", y: rival, yanchor: "bottom", showarrow: false, text: `linear rival ${percent(rival)}` }],
  };
}

// A stream that nobody looks at would only take one of the few connections of the browser.
document.addEventListener("visibilitychange", () => {
  if ("ended" in root.dataset) return;
  if (document.hidden) stop();
  else load();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint());
more.addEventListener("toggle", () => more.open && paint());

place("describe").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { tags, notes } = event.target.elements;
  const named = tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
  for (const field of [tags, notes]) field.removeAttribute("aria-invalid");
  try {
    await call("PATCH", url, { tags: named, notes: notes.value });
    location.reload();
  } catch (problem) {
    const [{ at, message } = {}] = problem.errors ?? [];
    const wrong = at?.startsWith("notes") ? notes : tags;
    place("describe-error").textContent = at ? `${named[at.split(".")[1]] ?? "This"} ${message}.` : problem.message;
    if (!at) return;
    wrong.setAttribute("aria-invalid", "true");
    wrong.focus();
  }
});

document.addEventListener("submit", async (event) => {
  if (event.target.id !== "register") return;
  event.preventDefault();
  const name = event.target.elements.model.value.trim();
  try {
    await call("POST", `/v1/models/${encodeURIComponent(name)}/versions`, { job_id: root.dataset.job });
    location.reload();
  } catch (problem) {
    tell(problem.message);
  }
});

load();
