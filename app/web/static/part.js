// A part of the page that has an address of its own: <div data-part="/datasets/…/rows">, which holds a link to
// it for whom there are no scripts. Taken from the element `part` of that page, and so is where its links lead.
import { read } from "./document.js";

async function fill(place, address) {
  const { page } = await read(address);
  const part = page.getElementById("part") ?? page.querySelector("main > p"); // else what went wrong
  place.replaceChildren(...part.childNodes);
}

for (const place of document.querySelectorAll("[data-part]")) {
  fill(place, place.dataset.part).catch(() => {}); // the link is still there
  place.addEventListener("click", async (event) => {
    const link = event.target.closest("a[href]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    await fill(place, link.href).catch(() => location.assign(link.href));
    place.querySelector("a[rel=next]")?.focus({ preventScroll: true }); // the link that was followed is gone
  });
}
