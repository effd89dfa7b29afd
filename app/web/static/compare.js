// Charts of compared jobs. Curves of unfinished jobs are loaded again at each page refresh.
import { showAlert } from "./actions.js";
import { call } from "./api.js";
import { axes, Curves, describe, metricFormat, traces } from "./curves.js";
import { formatNumber } from "./numbers.js";
import { color, draw, escapeMarkup } from "./plot.js";

const MAX_POINTS = 500; // per curve
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"]; // the same as in the table
const DASHES = ["solid", "dash", "dot", "dashdot"]; // next, once all colors and symbols are in use
const byId = (id) => document.getElementById(id);
const { metric, ...chartData } = byId("chart-data").dataset; // the metric of the first job
const metricStyle = metricFormat("metricIsShare" in chartData);
const CHARTS = [
  { id: metric, split: "validation", name: metric, markers: true, ...metricStyle },
  { id: "loss", split: "validation", name: "loss", markers: true, formatValue: formatNumber },
  { id: "training-loss", split: "train", name: "loss", formatValue: formatNumber },
];

const curvesByJob = new Map(); // job id → Curves
const complete = new Set(); // ids of jobs that had ended when their curves were loaded

const readJobs = () => JSON.parse(byId("chart-data").dataset.jobs);
const seriesStyle = (i) => {
  const n = i % SYMBOLS.length;
  return { colorName: `--series-${n + 1}`, symbol: SYMBOLS[n], dash: DASHES[Math.floor(i / SYMBOLS.length)] };
};

async function update() {
  try {
    await Promise.all(readJobs().filter(({ id }) => !complete.has(id)).map(loadCurves));
    drawAll();
  } catch (problem) {
    if (problem.status) showAlert(problem.message);
  }
}

async function loadCurves({ id, ended }) {
  const curves = new Curves();
  curves.load(await call("GET", `/v1/jobs/${id}/curves?points=${MAX_POINTS}&name=loss&name=${metric}`));
  curvesByJob.set(id, curves);
  if (ended) complete.add(id);
}

function drawAll() {
  const jobs = readJobs();
  const lines = CHARTS.map(({ split, name }) => jobs.flatMap((job, i) => (curvesByJob.get(job.id)?.has(split, name) ? [[job, i]] : [])));
  const evaluated = jobs.filter(({ result }) => result);
  setVisible("result-intervals", evaluated.length);
  CHARTS.forEach(({ id }, i) => setVisible(id, lines[i].length)); // before drawing: visible charts share the width
  byId("no-curves").hidden = lines.some((each) => each.length);
  if (evaluated.length) drawIntervals(jobs);
  CHARTS.forEach((chart, i) => lines[i].length && drawCurves(chart, lines[i]));
}

const setVisible = (id, visible) => (byId(id).closest("figure").hidden = !visible);

function drawCurves(chart, lines) {
  const series = lines.map(([job, i]) => [curvesByJob.get(job.id).get(chart.split, chart.name), job.name, seriesStyle(i)]);
  const data = series.flatMap(([curve, label, style]) => traces(curve, { label, ...style, markers: chart.markers, format: chart.format }));
  byId(chart.id).setAttribute("aria-label", series.map(([curve, label]) => describe(curve, label, chart.formatValue)).join("; "));
  draw(byId(chart.id), { data, layout: { ...axes(chart.tickFormat, data), showlegend: false } });
}

function drawIntervals(jobs) {
  const data = jobs.flatMap(({ name, result }, i) => {
    if (!result) return [];
    const [value, low, high] = result;
    const { colorName, symbol } = seriesStyle(i);
    const stroke = color(colorName);
    return [{
      x: [value],
      y: [i],
      name: escapeMarkup(name),
      mode: "markers",
      marker: { color: stroke, symbol, size: 10 },
      error_x: { type: "data", array: [high - value], arrayminus: [value - low], color: stroke, thickness: 2, width: 6 },
      hovertemplate: `%{x:${metricStyle.format ?? ".4~g"}} (${metricStyle.formatValue(low)} to ${metricStyle.formatValue(high)})`,
    }];
  });
  const names = jobs.map(({ name }) => escapeMarkup(name.length > 24 ? `${name.slice(0, 23)}…` : name));
  const layout = {
    showlegend: false,
    xaxis: { tickformat: metricStyle.tickFormat },
    yaxis: { tickvals: jobs.map((_, i) => i), ticktext: names, range: [jobs.length - 0.5, -0.5], showgrid: false },
  };
  byId("result-intervals").setAttribute("aria-label", jobs.filter(({ result }) => result)
    .map(({ name, result }) => [name, ...result.map(metricStyle.formatValue)])
    .map(([name, value, low, high]) => `${name} ${value}, between ${low} and ${high}`).join("; "));
  draw(byId("result-intervals"), { data, layout });
}

document.addEventListener("live", update);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
update();
