// Notes when each point of the training loss came to the screen, in seconds since 1970.
window.shown = {};

function look() {
  const chart = document.getElementById("loss");
  const curve = chart?.data?.find(({ name }) => name === "training");
  for (const step of curve?.x ?? []) window.shown[step] ??= Date.now() / 1000;
  requestAnimationFrame(look);
}
requestAnimationFrame(look);
