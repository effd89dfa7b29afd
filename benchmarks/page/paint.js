// Tells when the page was first painted and when the largest thing on it was, in ms.
const QUIET = 1000; // ms without a larger one

window.told = new Promise((settle) => {
  const told = {};
  let timer;
  const tell = (name) => (list) => {
    told[name] = list.getEntries().at(-1).startTime;
    clearTimeout(timer);
    if (Object.keys(told).length === 2) timer = setTimeout(settle, QUIET, told);
  };
  const paints = { paint: "first_paint", "largest-contentful-paint": "largest_paint" };
  for (const [type, name] of Object.entries(paints)) {
    new PerformanceObserver(tell(name)).observe({ type, buffered: true });
  }
});
