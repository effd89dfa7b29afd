"use strict";
// Draws the charts in the colors of the page, and again when it switches between dark and light.
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function template() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: color("--line"), linecolor: color("--line"), zeroline: false, automargin: true, title: { standoff: 14 } };
  return {
    data: { heatmap: [{ textfont: { color: color("--ink") } }] },
    layout: {
      font: { color: color("--ink"), family: style.fontFamily, size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      coloraxis: { colorscale: [[0, color("--worst")], [1, color("--best")]] },
      annotationdefaults: { bgcolor: color("--page") },
      shapedefaults: { line: { color: color("--line") } },
      hoverlabel: { bgcolor: color("--page"), bordercolor: color("--line"), font: { color: color("--ink") } },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

function draw() {
  figures.forEach((figure, index) => {
    const layout = { ...figure.layout, template: template(), dragmode: false };
    Plotly.react(`picture-${index + 1}`, figure.data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: "hover",
      modeBarButtons: [["toImage"]],
    });
  });
}

draw();
dark.addEventListener("change", draw);
