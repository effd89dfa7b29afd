// Pictures by Plotly in the colours of the page. Their texts must be escaped by who makes them.

const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // element → figure

// It takes a second to start on a slow machine; meanwhile a page reads what it will draw.
const plotly = new Promise((ready, failed) => {
  if (window.Plotly) ready(window.Plotly);
  const script = document.getElementById("plotly");
  script?.addEventListener("load", () => ready(window.Plotly));
  script?.addEventListener("error", failed);
});

/** A colour of the page as it is now, by its name in app.css. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function template() {
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, title: { standoff: 12 } };
  return {
    data: { heatmap: [{ textfont: { color: colour("--ink") } }] },
    layout: {
      font: { color: colour("--ink"), family: getComputedStyle(document.documentElement).fontFamily, size: 13 },
      colorway: ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"].map(colour),
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      coloraxis: { colorscale: [[0, colour("--worst")], [1, colour("--best")]] },
      annotationdefaults: { bgcolor: colour("--page") },
      shapedefaults: { line: { color: colour("--line") } },
      hoverlabel: { bgcolor: colour("--page"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      margin: { t: 8, r: 8, b: 40, l: 48 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

/** Draw `{data, layout}` into an element with an `aria-label`, or draw it anew. SVG traces only: others need eval. */
export async function draw(element, figure) {
  drawn.set(element, figure);
  const Plotly = await plotly;
  if (drawn.get(element) !== figure) return; // there is a newer one
  if (!element.data) element.replaceChildren(); // what stood for the picture until now
  const layout = { ...figure.layout, template: template(), dragmode: false };
  await Plotly.react(element, figure.data, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [["toImage"]],
  });
  label(element);
}

/** The picture is what the label tells, without the button beside it: an image may hold none. */
function label(element) {
  const words = element.getAttribute("aria-label");
  const [picture, ...others] = element.querySelectorAll(".main-svg");
  for (const svg of others) svg.setAttribute("aria-hidden", "true");
  if (!words) return;
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", words);
  element.removeAttribute("role");
  element.removeAttribute("aria-label");
}

/** What Plotly would read as markup, as text. */
export function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

dark.addEventListener("change", () => drawn.forEach((figure, element) => draw(element, figure)));
