// Fragments of other pages: <div data-fragment="/datasets/…/rows"> is filled with the element `fragment`
// of that page, and its links load into the same place. Without scripts it contains a link to the page.
import { fetchPage } from "./morph.js";

async function loadFragment(container, url) {
  const { page } = await fetchPage(url);
  const fragment = page.getElementById("fragment") ?? page.querySelector("main > p"); // or the message of an error page
  container.replaceChildren(...fragment.childNodes);
}

for (const container of document.querySelectorAll("[data-fragment]")) {
  loadFragment(container, container.dataset.fragment).catch(() => {}); // the link remains
  container.addEventListener("click", async (event) => {
    const link = event.target.closest("a[href]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    await loadFragment(container, link.href).catch(() => location.assign(link.href));
    container.querySelector("a[rel=next]")?.focus({ preventScroll: true }); // the clicked link was replaced
  });
}
