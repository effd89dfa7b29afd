// The curves of one job: loaded once, then extended by the event stream.
import { showAlert } from "./actions.js";
import { call } from "./api.js";
import { axes, Curves, describe, metricFormat, traces } from "./curves.js";
import { refresh } from "./live.js";
import { formatNumber } from "./numbers.js";
import { color, draw } from "./plot.js";

const DRAW_INTERVAL = 250; // ms between two drawings, at least
const RECONNECT_DELAY = 3000; // ms, after the stream failed
const MAX_POINTS = 4000; // per curve; longer curves are loaded again, downsampled by the server
const RESET_EVENTS = ["started", "checkpoint_rejected"]; // after these, curves may have been cut back

const root = document.getElementById("curves");
const { metric } = root.dataset; // that the job is compared by
const url = `/v1/jobs/${root.dataset.job}`;
const byId = (id) => document.getElementById(id);
const SPLITS = {
  train: { label: "training", colorName: "--series-1" },
  validation: { label: "validation", colorName: "--series-2", markers: true },
  test: { label: "test", colorName: "--series-3", symbol: "diamond" },
};
const CHARTS = [
  { id: "loss", name: "loss", splits: ["train", "validation", "test"], formatValue: formatNumber, primary: true },
  { id: metric, name: metric, splits: ["validation", "test"], ...metricFormat("metricIsShare" in root.dataset), primary: true },
  { id: "learning-rate", name: "learning_rate", splits: ["train"], formatValue: formatNumber },
  { id: "throughput", name: "reviews_per_second", splits: ["train"], formatValue: formatNumber },
  { id: "gradient-norm", name: "grad_norm", splits: ["train"], formatValue: formatNumber },
];

const moreCurves = byId("more-curves"); // nothing is drawn in it until it is opened

let curves = new Curves();
let linearMetric = Number(root.dataset.linearMetric) || null; // of the linear model, on validation
let totalSteps; // undefined until known
let state; // of the job, as of the last event; undefined until known
let stream;
let timer;
let loadCount = 0; // identifies responses of an outdated load

/** Loads all curves, the primary charts first, then follows the stream. */
async function load() {
  stop();
  const current = loadCount;
  try {
    const [primary, secondary] = [true, false].map((wanted) => CHARTS.filter((chart) => Boolean(chart.primary) === wanted));
    const loaded = new Curves();
    const { seq, ...response } = await fetchCurves(primary);
    if (current !== loadCount) return;
    loaded.load(response);
    curves = loaded;
    drawCharts(primary);
    loaded.load(await fetchCurves(secondary));
    if (current !== loadCount) return;
    drawCharts(secondary);
    if (!("ended" in root.dataset) && !document.hidden) follow(seq);
  } catch (problem) {
    if (current !== loadCount) return;
    const isRefused = problem.status >= 400 && problem.status < 500 && problem.status !== 429;
    if (isRefused) return showAlert(problem.message); // for example because the job was deleted
    timer = setTimeout(load, RECONNECT_DELAY);
  }
}

function fetchCurves(charts) {
  return call("GET", `${url}/curves?${new URLSearchParams(charts.map(({ name }) => ["name", name]))}`);
}

function follow(seq) {
  stream = new EventSource(`${url}/stream?after=${seq}`); // reconnects by itself with Last-Event-ID
  stream.addEventListener("metric", ({ data }) => {
    curves.add(JSON.parse(data));
    curves.maxLength > MAX_POINTS ? load() : drawSoon();
  });
  stream.addEventListener("event", ({ data }) => {
    const event = JSON.parse(data);
    if (event.kind === "linear_model") linearMetric = event.data.validation[metric];
    if (RESET_EVENTS.includes(event.kind)) load();
  });
  stream.addEventListener("state", ({ data }) => {
    const job = JSON.parse(data);
    totalSteps = job.total_steps;
    drawSoon();
    if (job.state !== state) refresh(); // its buttons and questions differ by state
    state = job.state;
  });
  stream.addEventListener("end", () => {
    root.dataset.ended = "";
    stop();
    drawCharts();
    root.hidden ||= curves.maxLength < 2; // a method that is fitted at once has one point of each
    refresh();
  });
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) timer = setTimeout(load, RECONNECT_DELAY);
  });
}

function stop() {
  loadCount += 1;
  clearTimeout(timer);
  timer = undefined;
  stream?.close();
  stream = undefined;
}

function drawSoon() {
  timer ??= setTimeout(() => {
    timer = undefined;
    drawCharts();
  }, DRAW_INTERVAL);
}

function drawCharts(charts = CHARTS) {
  const lines = charts.map((chart) => chart.splits.filter((split) => curves.has(split, chart.name)).map((split) => [SPLITS[split], curves.get(split, chart.name)]));
  charts.forEach(({ id }, i) => (byId(id).closest("figure").hidden = !lines[i].length)); // before drawing: visible charts share the width
  byId("no-curves").hidden ||= lines.some((each) => each.length);
  if (charts.some((chart, i) => !chart.primary && lines[i].length)) moreCurves.hidden = false;
  charts.forEach((chart, i) => lines[i].length && (chart.primary || moreCurves.open) && drawChart(chart, lines[i]));
}

function drawChart(chart, lines) {
  const data = lines.flatMap(([style, curve]) => traces(curve, { ...style, format: chart.format }));
  const lastStep = "ended" in root.dataset ? undefined : totalSteps;
  byId(chart.id).setAttribute("aria-label", lines.map(([style, curve]) => describe(curve, style.label, chart.formatValue)).join("; "));
  draw(byId(chart.id), { data, layout: { ...axes(chart.tickFormat, data, lastStep), ...linearModelLine(chart), showlegend: lines.length > 1 } });
}

/** Returns a horizontal line at the metric of the linear model. */
function linearModelLine(chart) {
  if (chart.id !== metric || !linearMetric) return {};
  return {
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: linearMetric, y1: linearMetric, line: { color: color("--muted"), dash: "dot", width: 1.5 } }],
    annotations: [{ xref: "paper", x: 1, xanchor: "right", y: linearMetric, yanchor: "bottom", showarrow: false, text: `linear model ${chart.formatValue(linearMetric)}` }],
  };
}

// Browsers allow few connections per host; a hidden tab must not keep one open.
document.addEventListener("visibilitychange", () => {
  if ("ended" in root.dataset) return;
  if (document.hidden) stop();
  else load();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts());
moreCurves.addEventListener("toggle", () => moreCurves.open && drawCharts());

byId("metadata-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { tags, notes } = event.target.elements;
  const tagList = tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
  for (const field of [tags, notes]) field.removeAttribute("aria-invalid");
  const changes = {}; // others may have changed the other field since this page was loaded
  if (tags.value !== tags.defaultValue) changes.tags = tagList;
  if (notes.value !== notes.defaultValue) changes.notes = notes.value;
  try {
    await call("PATCH", url, changes);
    location.reload();
  } catch (problem) {
    const [{ at, message } = {}] = problem.errors ?? [];
    const invalid = at?.startsWith("notes") ? notes : tags;
    byId("metadata-error").textContent = at ? `${tagList[at.split(".")[1]] ?? "This"} ${message}.` : problem.message;
    if (!at) return;
    invalid.setAttribute("aria-invalid", "true");
    invalid.focus();
  }
});

document.addEventListener("submit", async (event) => {
  if (event.target.id !== "register-form") return;
  event.preventDefault();
  const name = event.target.elements.model.value.trim();
  const button = event.target.querySelector("button");
  if (button.hasAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  try {
    await call("POST", `/v1/models/${encodeURIComponent(name)}/versions`, { job_id: root.dataset.job });
    location.reload();
  } catch (problem) {
    showAlert(problem.message);
    button.removeAttribute("aria-disabled");
  }
});

load();
