// Metric curves of jobs: loaded from the API, then extended by the event stream.
import { formatNumber, percent } from "./numbers.js";
import { color, escapeMarkup } from "./plot.js";

/** Returns how a metric is formatted; a share is shown in percent. */
export const metricFormat = (isShare) => (isShare ? { formatValue: percent, tickFormat: ".0%", format: ".1%" } : { formatValue: formatNumber });

/** The curves of one job, by split and metric name. */
export class Curves {
  #curves = new Map();

  /** Adds a response of `GET /v1/jobs/ID/curves`. */
  load({ data }) {
    for (const curve of data) this.#curves.set(`${curve.split} ${curve.name}`, curve);
  }

  get(split, name) {
    return this.#curves.get(`${split} ${name}`);
  }

  /** Appends a point of the stream; ignores points that the curve already has. */
  add({ split, name, step, value }) {
    let curve = this.get(split, name);
    if (!curve) this.load({ data: [(curve = { split, name, points: 0, steps: [], values: [], low: null, high: null })] });
    if (step <= curve.steps.at(-1)) return;
    curve.points += 1;
    curve.steps.push(step);
    for (const values of [curve.values, curve.low, curve.high]) values?.push(value);
  }

  /** Whether the curve has a finite value to draw. */
  has(split, name) {
    return this.get(split, name)?.values.some((value) => value !== null) ?? false;
  }

  /** The number of points of the longest curve. */
  get maxLength() {
    return Math.max(0, ...[...this.#curves.values()].map((curve) => curve.steps.length));
  }
}

/** Returns Plotly traces: the line, and for a downsampled curve the band from minimum to maximum. */
export function traces(curve, { label, colorName, dash, markers, symbol = "circle", format = ".4~g" }) {
  const stroke = color(colorName);
  const finite = curve.values.filter((value) => value !== null).length;
  const line = {
    x: curve.steps,
    y: curve.values,
    name: escapeMarkup(label),
    mode: markers || finite < 3 ? "lines+markers" : "lines",
    line: { color: stroke, width: 2, dash },
    marker: { color: stroke, symbol, size: finite === 1 ? 9 : 6 },
    hovertemplate: `%{y:${format}}`,
  };
  if (!curve.low) return [line];
  const edge = { x: curve.steps, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return [{ ...edge, y: curve.low }, { ...edge, y: curve.high, fill: "tonexty", fillcolor: `${stroke}38` }, line];
}

/** Describes a curve: "training from 0.69 at step 1 to 0.31 at step 94". */
export function describe(curve, label, formatValue) {
  const known = curve.values.map((value, i) => [curve.steps[i], value]).filter(([, value]) => value !== null);
  const [first, last] = [known[0], known.at(-1)];
  const at = ([step, value]) => `${formatValue(value)} at step ${step.toLocaleString("en")}`;
  return known.length === 1 ? `${label} ${at(last)}` : `${label} from ${at(first)} to ${at(last)}`;
}

/** Returns the axes that all curve charts share, for these traces; `lastStep` is the last step of a running job. */
export function axes(tickFormat, data, lastStep) {
  // Around a single value, Plotly's automatic range is one to each side: below 0%, above 100%, and too much for a small number.
  const isShare = tickFormat?.endsWith("%");
  const [first, ...others] = data.flatMap(({ y }) => y).filter((value) => value !== null);
  const margin = Math.abs(first) / 10;
  const isSingle = margin > 0 && others.every((value) => value === first);
  const bounds = isShare ? { minallowed: -0.02, maxallowed: 1.02 } : isSingle && { range: [first - margin, first + margin] };
  return {
    xaxis: { title: { text: "step" }, rangemode: "tozero", ...(lastStep && { range: [0, lastStep] }) },
    yaxis: { tickformat: tickFormat, exponentformat: "e", ...bounds },
    hovermode: "x unified",
  };
}
