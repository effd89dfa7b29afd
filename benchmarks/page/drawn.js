// Measures the curves of a job, in ms from the navigation: when the inline SVG curves were visible
// (`seen`), and when the last Plotly chart had replaced them (`interactive`).
const INLINE_CURVE = ".inline-curve path";
const PLOTLY_CURVE = ".js-plotly-plot .scatterlayer path.js-line";
const SETTLE_TIME = 1000; // ms without another curve

window.timings = new Promise((resolve) => {
  let seen;
  let interactive;
  let curveCount = 0;
  const poll = (now) => {
    if (document.querySelector(INLINE_CURVE)) seen ??= now;
    const drawn = document.querySelectorAll(PLOTLY_CURVE).length;
    if (drawn > curveCount) [curveCount, interactive] = [drawn, now];
    if (curveCount && now - interactive > SETTLE_TIME) resolve({ seen, interactive });
    else requestAnimationFrame(poll);
  };
  requestAnimationFrame(poll);
});
