// Records when each point of the training loss was drawn, in seconds since 1970.
window.drawnAt = {};

function poll() {
  const chart = document.getElementById("loss");
  const curve = chart?.data?.find(({ name }) => name === "training");
  for (const step of curve?.x ?? []) window.drawnAt[step] ??= Date.now() / 1000;
  requestAnimationFrame(poll);
}
requestAnimationFrame(poll);
