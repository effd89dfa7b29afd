// Fetch a page of this service, and update elements in place from it. Only differences are applied,
// so focus, selection, input and opened details are kept, and buttons whose request still runs.
// Children and errors (`aria-invalid`) of elements with `data-preserve` belong to scripts and are left
// alone.

const parser = new DOMParser();

/** Returns {page, response}; `page` is the parsed document. Throws what fetch throws. */
export async function fetchPage(url, options) {
  const response = await fetch(url, { ...options, headers: { Accept: "text/html", ...options?.headers } });
  return { page: parser.parseFromString(await response.text(), "text/html"), response };
}

/** Makes `current` equal to `updated`. Children with an id are matched wherever they have moved. */
export function morph(current, updated) {
  if (current.isEqualNode(updated)) return;
  if (current.nodeType !== Node.ELEMENT_NODE) {
    current.data = updated.data;
    return;
  }
  morphAttributes(current, updated);
  if (!("preserve" in current.dataset)) morphChildren(current, updated);
}

function morphAttributes(current, updated) {
  for (const { name, value } of updated.attributes) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  for (const name of current.getAttributeNames()) {
    const isKept =
      name === "aria-disabled" ||
      (name === "open" && current.localName === "details") ||
      (name === "aria-invalid" && "preserve" in current.dataset);
    if (!updated.hasAttribute(name) && !isKept) current.removeAttribute(name);
  }
}

function morphChildren(current, updated) {
  let next = current.firstChild; // the first child that is not yet matched
  for (const wanted of [...updated.childNodes]) {
    const match = findMatch(current, next, wanted);
    if (!match) {
      current.insertBefore(document.importNode(wanted, true), next);
      continue;
    }
    if (match === next) next = next.nextSibling;
    else current.insertBefore(match, next);
    morph(match, wanted);
  }
  while (next) {
    const following = next.nextSibling;
    next.remove();
    next = following;
  }
}

function findMatch(parent, next, wanted) {
  if (wanted.id) return [...parent.children].find((child) => child.id === wanted.id && child.localName === wanted.localName);
  return next?.nodeName === wanted.nodeName && !next.id ? next : null;
}
