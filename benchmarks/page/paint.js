// Measures First Paint and Largest Contentful Paint, in ms.
const SETTLE_TIME = 1000; // ms without a larger paint

window.timings = new Promise((resolve) => {
  const timings = {};
  let timer;
  const record = (name) => (list) => {
    timings[name] = list.getEntries().at(-1).startTime;
    clearTimeout(timer);
    if (Object.keys(timings).length === 2) timer = setTimeout(resolve, SETTLE_TIME, timings);
  };
  const paints = { paint: "first_paint", "largest-contentful-paint": "largest_paint" };
  for (const [type, name] of Object.entries(paints)) {
    new PerformanceObserver(record(name)).observe({ type, buffered: true });
  }
});
